/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/x86/layout.h"

static int vm_ioctl(const struct kvm *kvm, unsigned long request, void *arg, const char *name,
		    struct error *err)
{
	int r = ioctl(kvm->vm_fd, request, arg);

	return r < 0 ? error_set_errno(err, errno, "%s", name) : r;
}

int kvm_create_irqchip(struct kvm *kvm, struct error *err)
{
	uint64_t identity_map = X86_KVM_IDENTITY_MAP;

	/* Intel hosts without unrestricted guest need both; others ignore them. */
	if (ioctl(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map))
		return error_set_errno(err, errno, "KVM_SET_IDENTITY_MAP_ADDR");
	if (ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, X86_KVM_TSS))
		return error_set_errno(err, errno, "KVM_SET_TSS_ADDR");
	return vm_ioctl(kvm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP", err);
}

int kvm_open(struct kvm *kvm, struct error *err)
{
	int version, size, r;

	*kvm = (struct kvm)KVM_INIT;
	kvm->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm->fd < 0) {
		if (errno == EACCES)
			return error_set(
				err, errno,
				"open /dev/kvm: permission denied; add the user to the group "
				"that owns it (usually kvm)");
		return error_set_errno(
			err, errno,
			"open /dev/kvm (is virtualization enabled in the firmware, and "
			"kvm_intel or kvm_amd loaded?)");
	}
	version = ioctl(kvm->fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		r = error_set(err, ENOTSUP, "/dev/kvm: API version %d, expected %d", version,
			      KVM_API_VERSION);
		goto fail;
	}
	size = ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run)) {
		r = error_set_errno(err, size < 0 ? errno : EINVAL, "KVM_GET_VCPU_MMAP_SIZE");
		goto fail;
	}
	kvm->run_size = (size_t)size;
	do
		kvm->vm_fd = ioctl(kvm->fd, KVM_CREATE_VM, 0UL);
	while (kvm->vm_fd < 0 && errno == EINTR);
	if (kvm->vm_fd < 0) {
		r = error_set_errno(err, errno, "KVM_CREATE_VM");
		goto fail;
	}
	return 0;
fail:
	kvm_close(kvm);
	return r;
}

void kvm_close(struct kvm *kvm)
{
	if (kvm->fd > 0) {
		if (kvm->vm_fd >= 0)
			close(kvm->vm_fd);
		close(kvm->fd);
	}
	*kvm = (struct kvm)KVM_INIT;
}

int kvm_check(const struct kvm *kvm, int capability)
{
	int r = ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, (unsigned long)capability);

	return r < 0 ? 0 : r;
}

uint32_t kvm_tsc_khz(const struct kvm *kvm)
{
	/* Also where KVM_CAP_VM_TSC_CONTROL, by which it could be set, is absent. */
	int khz = ioctl(kvm->vm_fd, KVM_GET_TSC_KHZ, 0);

	return khz > 0 ? (uint32_t)khz : 0;
}

int kvm_set_slot(struct kvm *kvm, uint32_t slot, uint32_t flags,
		 const struct guest_memory_region *region, struct error *err)
{
	struct kvm_userspace_memory_region args = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = region->gpa,
		.memory_size = region->size,
		.userspace_addr = (uintptr_t)region->hva,
	};
	int r = vm_ioctl(kvm, KVM_SET_USER_MEMORY_REGION, &args, "KVM_SET_USER_MEMORY_REGION", err);

	if (r < 0)
		return error_prefix(err, "map guest memory 0x%llx+0x%llx",
				    (unsigned long long)region->gpa,
				    (unsigned long long)region->size);
	return 0;
}

int kvm_map_memory(struct kvm *kvm, const struct guest_memory *memory, bool log_dirty,
		   struct error *err)
{
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++) {
		int r = kvm_set_slot(kvm, i, log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0,
				     guest_memory_region(memory, i), err);

		if (r)
			return r;
	}
	return 0;
}

static int enable_cap(struct kvm *kvm, uint32_t cap, uint64_t arg, const char *name,
		      struct error *err)
{
	struct kvm_enable_cap args = { .cap = cap, .args = { arg } };
	int r = vm_ioctl(kvm, KVM_ENABLE_CAP, &args, name, err);

	return r < 0 ? r : 0;
}

int kvm_enable_manual_dirty_log(struct kvm *kvm, struct error *err)
{
	int supported = kvm_check(kvm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);

	if (!supported)
		return error_set(err, EOPNOTSUPP, "KVM has no manual dirty log protection");
	return enable_cap(kvm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
			  (uint64_t)supported & (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE |
						 KVM_DIRTY_LOG_INITIALLY_SET),
			  "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", err);
}

int kvm_get_dirty_log(struct kvm *kvm, uint32_t slot, void *bitmap, struct error *err)
{
	struct kvm_dirty_log args = { .slot = slot, .dirty_bitmap = bitmap };

	return vm_ioctl(kvm, KVM_GET_DIRTY_LOG, &args, "KVM_GET_DIRTY_LOG", err);
}

int kvm_clear_dirty_log(struct kvm *kvm, uint32_t slot, uint64_t first, uint32_t count,
			void *bitmap, struct error *err)
{
	struct kvm_clear_dirty_log args = {
		.slot = slot,
		.num_pages = count,
		.first_page = first,
		.dirty_bitmap = bitmap,
	};

	return vm_ioctl(kvm, KVM_CLEAR_DIRTY_LOG, &args, "KVM_CLEAR_DIRTY_LOG", err);
}

int kvm_enable_dirty_ring(struct kvm *kvm, uint32_t bytes, struct error *err)
{
	int max = kvm_check(kvm, KVM_CAP_DIRTY_LOG_RING);
	int r;

	if (max <= 0)
		return error_set(err, EOPNOTSUPP, "KVM has no dirty ring");
	if (bytes > (uint32_t)max)
		bytes = (uint32_t)max;
	r = enable_cap(kvm, KVM_CAP_DIRTY_LOG_RING, bytes, "KVM_CAP_DIRTY_LOG_RING", err);
	if (!r)
		kvm->dirty_ring_bytes = bytes;
	return r;
}

int kvm_reset_dirty_rings(const struct kvm *kvm)
{
	int r = ioctl(kvm->vm_fd, KVM_RESET_DIRTY_RINGS, 0);

	return r < 0 ? -errno : r;
}

int kvm_create_vcpu(struct kvm *kvm, unsigned int id, struct error *err)
{
	int fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)id);

	return fd < 0 ? error_set_errno(err, errno, "KVM_CREATE_VCPU %u", id) : fd;
}

int kvm_irq_line(const struct kvm *kvm, unsigned int gsi, bool level)
{
	struct kvm_irq_level args = { .irq = gsi, .level = level };

	return ioctl(kvm->vm_fd, KVM_IRQ_LINE, &args) < 0 ? -errno : 0;
}

int kvm_signal_msi(const struct kvm *kvm, uint64_t address, uint32_t data)
{
	struct kvm_msi args = {
		.address_lo = (uint32_t)address,
		.address_hi = (uint32_t)(address >> 32),
		.data = data,
	};

	return ioctl(kvm->vm_fd, KVM_SIGNAL_MSI, &args) < 0 ? -errno : 0;
}

int kvm_set_gsi_routing(const struct kvm *kvm, const struct kvm_irq_routing *routing,
			struct error *err)
{
	return vm_ioctl(kvm, KVM_SET_GSI_ROUTING, (void *)routing, "KVM_SET_GSI_ROUTING", err);
}

int kvm_irqfd(const struct kvm *kvm, unsigned int gsi, int fd, int resample_fd, bool assign,
	      struct error *err)
{
	struct kvm_irqfd args = {
		.fd = (uint32_t)fd,
		.gsi = gsi,
		.flags = assign ? (resample_fd >= 0 ? KVM_IRQFD_FLAG_RESAMPLE : 0)
				: KVM_IRQFD_FLAG_DEASSIGN,
		.resamplefd = resample_fd >= 0 ? (uint32_t)resample_fd : 0,
	};

	return vm_ioctl(kvm, KVM_IRQFD, &args, "KVM_IRQFD", err);
}

int kvm_ioeventfd(const struct kvm *kvm, const struct kvm_ioeventfd *args, struct error *err)
{
	return vm_ioctl(kvm, KVM_IOEVENTFD, (void *)args, "KVM_IOEVENTFD", err);
}

int kvm_get_clock(const struct kvm *kvm, struct kvm_clock_data *clock, struct error *err)
{
	*clock = (struct kvm_clock_data){ 0 };
	return vm_ioctl(kvm, KVM_GET_CLOCK, clock, "KVM_GET_CLOCK", err);
}

int kvm_set_clock(const struct kvm *kvm, const struct kvm_clock_data *clock, struct error *err)
{
	return vm_ioctl(kvm, KVM_SET_CLOCK, (void *)clock, "KVM_SET_CLOCK", err);
}

int kvm_get_irqchip(const struct kvm *kvm, struct kvm_irqchip *chip, struct error *err)
{
	return vm_ioctl(kvm, KVM_GET_IRQCHIP, chip, "KVM_GET_IRQCHIP", err);
}

int kvm_set_irqchip(const struct kvm *kvm, const struct kvm_irqchip *chip, struct error *err)
{
	return vm_ioctl(kvm, KVM_SET_IRQCHIP, (void *)chip, "KVM_SET_IRQCHIP", err);
}

int kvm_run(int vcpu_fd)
{
	return ioctl(vcpu_fd, KVM_RUN, 0) < 0 ? -errno : 0;
}

int kvm_nmi(int vcpu_fd, struct error *err)
{
	return ioctl(vcpu_fd, KVM_NMI, 0) < 0 ? error_set_errno(err, errno, "KVM_NMI") : 0;
}

int kvm_kvmclock_ctrl(int vcpu_fd)
{
	return ioctl(vcpu_fd, KVM_KVMCLOCK_CTRL, 0) < 0 ? -errno : 0;
}
