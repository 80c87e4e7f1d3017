/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm_vcpu.h"

#include <errno.h>
#include <sys/ioctl.h>

#include "base/bytes.h"

static const struct part {
	const char *name, *get_name, *set_name;
	unsigned long get, set;
	size_t size;
	int capability; /* 0: always there */
} parts[] = {
#define PART(call, type) \
	.get_name = "KVM_GET_" #call, .set_name = "KVM_SET_" #call, .get = KVM_GET_##call, \
	.set = KVM_SET_##call, .size = sizeof(type)
	[KVM_PART_MP_STATE] = { "mp-state", PART(MP_STATE, struct kvm_mp_state) },
	[KVM_PART_REGS] = { "regs", PART(REGS, struct kvm_regs) },
	[KVM_PART_SREGS] = { "sregs", PART(SREGS, struct kvm_sregs) },
	[KVM_PART_SREGS2] = { "sregs2", PART(SREGS2, struct kvm_sregs2),
			      .capability = KVM_CAP_SREGS2 },
	[KVM_PART_XCRS] = { "xcrs", PART(XCRS, struct kvm_xcrs), .capability = KVM_CAP_XCRS },
	[KVM_PART_DEBUGREGS] = { "debugregs", PART(DEBUGREGS, struct kvm_debugregs) },
	[KVM_PART_LAPIC] = { "lapic", PART(LAPIC, struct kvm_lapic_state) },
	[KVM_PART_EVENTS] = { "events", PART(VCPU_EVENTS, struct kvm_vcpu_events) },
#undef PART
};

const char *kvm_part_name(enum kvm_vcpu_part part)
{
	return parts[part].name;
}

size_t kvm_part_size(enum kvm_vcpu_part part)
{
	return parts[part].size;
}

bool kvm_part_supported(const struct kvm *kvm, enum kvm_vcpu_part part)
{
	return !parts[part].capability || kvm_check(kvm, parts[part].capability);
}

static int call(int fd, unsigned long request, const void *arg, const char *name, struct error *err)
{
	int r = ioctl(fd, request, arg);

	return r < 0 ? error_set_errno(err, errno, "%s", name) : r;
}

int kvm_vcpu_get(int vcpu_fd, enum kvm_vcpu_part part, void *data, struct error *err)
{
	int r;

	/* Bytes that KVM leaves alone, as padding, are the same each time. */
	memset(data, 0, parts[part].size);
	r = call(vcpu_fd, parts[part].get, data, parts[part].get_name, err);
	return r < 0 ? r : 0;
}

int kvm_vcpu_set(int vcpu_fd, enum kvm_vcpu_part part, const void *data, struct error *err)
{
	int r = call(vcpu_fd, parts[part].set, data, parts[part].set_name, err);

	return r < 0 ? r : 0;
}

size_t kvm_xsave_size(const struct kvm *kvm)
{
	int size = kvm_check(kvm, KVM_CAP_XSAVE2);

	return MAX((size_t)MAX(size, 0), sizeof(struct kvm_xsave));
}

int kvm_vcpu_get_xsave(int vcpu_fd, void *data, size_t size, struct error *err)
{
	/* The newer call writes as many bytes as its capability says, the older 4096. */
	if (size > sizeof(struct kvm_xsave))
		return call(vcpu_fd, KVM_GET_XSAVE2, data, "KVM_GET_XSAVE2", err);
	return call(vcpu_fd, KVM_GET_XSAVE, data, "KVM_GET_XSAVE", err);
}

int kvm_vcpu_set_xsave(int vcpu_fd, const void *data, struct error *err)
{
	return call(vcpu_fd, KVM_SET_XSAVE, data, "KVM_SET_XSAVE", err);
}

int kvm_msr_list(const struct kvm *kvm, struct kvm_msr_list_buffer *list, struct error *err)
{
	list->nmsrs = KVM_MSRS_MAX;
	return call(kvm->fd, KVM_GET_MSR_INDEX_LIST, list, "KVM_GET_MSR_INDEX_LIST", err);
}

int kvm_vcpu_get_msrs(int vcpu_fd, struct kvm_msrs_buffer *msrs, struct error *err)
{
	return call(vcpu_fd, KVM_GET_MSRS, msrs, "KVM_GET_MSRS", err);
}

int kvm_vcpu_set_msrs(int vcpu_fd, const struct kvm_msrs_buffer *msrs, struct error *err)
{
	return call(vcpu_fd, KVM_SET_MSRS, msrs, "KVM_SET_MSRS", err);
}

struct one_msr { /* struct kvm_msrs */
	uint32_t nmsrs, pad;
	struct kvm_msr_entry entry;
};

int kvm_vcpu_get_msr(int vcpu_fd, uint32_t index, uint64_t *value, struct error *err)
{
	struct one_msr one = { .nmsrs = 1, .entry.index = index };
	int r = call(vcpu_fd, KVM_GET_MSRS, &one, "KVM_GET_MSRS", err);

	if (r < 0)
		return r;
	if (!r)
		return error_set(err, EINVAL, "KVM_GET_MSRS: KVM refuses MSR %#x", index);
	*value = one.entry.data;
	return 0;
}

int kvm_vcpu_set_msr(int vcpu_fd, uint32_t index, uint64_t value, struct error *err)
{
	const struct one_msr one = { .nmsrs = 1, .entry = { .index = index, .data = value } };
	int r = call(vcpu_fd, KVM_SET_MSRS, &one, "KVM_SET_MSRS", err);

	if (r < 0)
		return r;
	return r ? 0
		 : error_set(err, EINVAL, "KVM_SET_MSRS: KVM refuses MSR %#x = %#llx", index,
			     (unsigned long long)value);
}

int kvm_vcpu_set_cpuid(int vcpu_fd, const void *cpuid, struct error *err)
{
	return call(vcpu_fd, KVM_SET_CPUID2, cpuid, "KVM_SET_CPUID2", err);
}

uint32_t kvm_vcpu_tsc_khz(int vcpu_fd)
{
	int khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);

	return khz > 0 ? (uint32_t)khz : 0;
}

int kvm_vcpu_set_tsc_khz(int vcpu_fd, uint32_t khz, struct error *err)
{
	if (ioctl(vcpu_fd, KVM_SET_TSC_KHZ, (unsigned long)khz) < 0)
		return error_set_errno(err, errno, "KVM_SET_TSC_KHZ %u", khz);
	return 0;
}

static struct kvm_device_attr tsc_offset_attr(const uint64_t *offset)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};
}

int kvm_vcpu_get_tsc_offset(int vcpu_fd, uint64_t *offset, struct error *err)
{
	const struct kvm_device_attr attr = tsc_offset_attr(offset);
	int r = call(vcpu_fd, KVM_GET_DEVICE_ATTR, &attr, "KVM_GET_DEVICE_ATTR TSC_OFFSET", err);

	/* ENOTTY: no attributes at all; ENXIO: not this one. */
	return r == -ENOTTY || r == -EINVAL ? -ENXIO : r;
}

int kvm_vcpu_set_tsc_offset(int vcpu_fd, uint64_t offset, struct error *err)
{
	const struct kvm_device_attr attr = tsc_offset_attr(&offset);

	return call(vcpu_fd, KVM_SET_DEVICE_ATTR, &attr, "KVM_SET_DEVICE_ATTR TSC_OFFSET", err);
}
