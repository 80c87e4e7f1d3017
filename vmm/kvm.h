/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM: one wrapper per ioctl (linux/kvm.h; Linux Documentation/virt/kvm/api.rst).
 * Nothing else in vmm/ calls ioctl() on a KVM descriptor. All return 0 (or a
 * descriptor) or -errno with err naming the call. Control plane unless said
 * otherwise.
 */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/guest_memory.h"

struct kvm {
	int fd; /* /dev/kvm */
	int vm_fd;
	size_t run_size;	   /* of a vCPU's mapped kvm_run */
	uint32_t dirty_ring_bytes; /* per vCPU; 0: the log is used */
};

/* Closed. */
#define KVM_INIT \
	{ \
		.fd = -1, .vm_fd = -1 \
	}

/* Opens /dev/kvm (the message says what to do where it is missing or not
 * permitted), makes a VM. */
int kvm_open(struct kvm *kvm, struct error *err);
/* Makes the in-kernel PIC, IOAPIC and, with the vCPUs to come, local APICs. Call it
 * with the first memory mapped: it leaves an ordinary SRCU grace period behind, which
 * the mapping of memory would sit out (6 ms on Linux 6.18). */
int kvm_create_irqchip(struct kvm *kvm, struct error *err);
/* Closes both; a kvm of all zeros or closed already is allowed. */
void kvm_close(struct kvm *kvm);

/* KVM_CHECK_EXTENSION on the VM: 0 where absent. */
int kvm_check(const struct kvm *kvm, int capability);
/* How fast a guest's TSC runs where nothing else is asked for; 0: a vCPU has to be asked
 * (before Linux 5.18). */
uint32_t kvm_tsc_khz(const struct kvm *kvm);

/* Every region of memory as memslot (index = region index). */
int kvm_map_memory(struct kvm *kvm, const struct guest_memory *memory, bool log_dirty,
		   struct error *err);
int kvm_set_slot(struct kvm *kvm, uint32_t slot, uint32_t flags,
		 const struct guest_memory_region *region, struct error *err);
int kvm_enable_manual_dirty_log(struct kvm *kvm, struct error *err);
/* bitmap has a bit per page of the slot. */
int kvm_get_dirty_log(struct kvm *kvm, uint32_t slot, void *bitmap, struct error *err);
/* first is a multiple of 64, and so is count unless it ends the slot. */
int kvm_clear_dirty_log(struct kvm *kvm, uint32_t slot, uint64_t first, uint32_t count,
			void *bitmap, struct error *err);
/* Before the first vCPU; bytes is a power of two. -EOPNOTSUPP where absent. */
int kvm_enable_dirty_ring(struct kvm *kvm, uint32_t bytes, struct error *err);
/* KVM_RESET_DIRTY_RINGS: entries recycled, or -errno. Any thread. */
int kvm_reset_dirty_rings(const struct kvm *kvm);

int kvm_create_vcpu(struct kvm *kvm, unsigned int id, struct error *err);

/* Any thread. */
int kvm_irq_line(const struct kvm *kvm, unsigned int gsi, bool level);
int kvm_signal_msi(const struct kvm *kvm, uint64_t address, uint32_t data);
int kvm_set_gsi_routing(const struct kvm *kvm, const struct kvm_irq_routing *routing,
			struct error *err);
int kvm_irqfd(const struct kvm *kvm, unsigned int gsi, int fd, int resample_fd, bool assign,
	      struct error *err);
int kvm_ioeventfd(const struct kvm *kvm, const struct kvm_ioeventfd *args, struct error *err);

/* The VM's kvmclock; vmm/kvm_state.h says what for. */
int kvm_get_clock(const struct kvm *kvm, struct kvm_clock_data *clock, struct error *err);
int kvm_set_clock(const struct kvm *kvm, const struct kvm_clock_data *clock, struct error *err);

/* chip->chip_id says which. */
int kvm_get_irqchip(const struct kvm *kvm, struct kvm_irqchip *chip, struct error *err);
int kvm_set_irqchip(const struct kvm *kvm, const struct kvm_irqchip *chip, struct error *err);

/* vCPU descriptors; the vCPU's own thread, or while it does not run. Their state:
 * vmm/kvm_vcpu.h. */
int kvm_run(int vcpu_fd); /* 0 or -errno; -EINTR is a kick */
int kvm_nmi(int vcpu_fd, struct error *err);
int kvm_kvmclock_ctrl(int vcpu_fd);

#endif
