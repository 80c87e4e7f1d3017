/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's state as KVM gives and takes it: one wrapper per ioctl (Linux
 * Documentation/virt/kvm/api.rst). Control plane, while the vCPU does not run. All return
 * 0 or -errno with err naming the call, unless said otherwise.
 */
#ifndef VMM_KVM_VCPU_H
#define VMM_KVM_VCPU_H

#include "vmm/kvm.h"

/* What KVM_GET_x and KVM_SET_x pass in a struct of fixed size. */
enum kvm_vcpu_part {
	KVM_PART_MP_STATE,  /* struct kvm_mp_state */
	KVM_PART_REGS,	    /* struct kvm_regs */
	KVM_PART_SREGS,	    /* struct kvm_sregs */
	KVM_PART_SREGS2,    /* struct kvm_sregs2; KVM_CAP_SREGS2 */
	KVM_PART_XCRS,	    /* struct kvm_xcrs; KVM_CAP_XCRS */
	KVM_PART_DEBUGREGS, /* struct kvm_debugregs */
	KVM_PART_LAPIC,	    /* struct kvm_lapic_state */
	KVM_PART_EVENTS,    /* struct kvm_vcpu_events */
	KVM_PARTS,
};

const char *kvm_part_name(enum kvm_vcpu_part part); /* "regs" */
size_t kvm_part_size(enum kvm_vcpu_part part);
bool kvm_part_supported(const struct kvm *kvm, enum kvm_vcpu_part part);
int kvm_vcpu_get(int vcpu_fd, enum kvm_vcpu_part part, void *data, struct error *err);
int kvm_vcpu_set(int vcpu_fd, enum kvm_vcpu_part part, const void *data, struct error *err);

#define KVM_XSAVE_SIZE_MAX (64u << 10)

/* Bytes of XSAVE state on this host: 4096, or more where KVM_GET_XSAVE2 says so. */
size_t kvm_xsave_size(const struct kvm *kvm);
int kvm_vcpu_get_xsave(int vcpu_fd, void *data, size_t size, struct error *err);
int kvm_vcpu_set_xsave(int vcpu_fd, const void *data, struct error *err);

#define KVM_MSRS_MAX 1024

struct kvm_msr_list_buffer { /* struct kvm_msr_list */
	uint32_t nmsrs;
	uint32_t indices[KVM_MSRS_MAX];
};

struct kvm_msrs_buffer { /* struct kvm_msrs */
	uint32_t nmsrs, pad;
	struct kvm_msr_entry entries[KVM_MSRS_MAX];
};

/* The MSRs that this host's KVM says make up a vCPU's state. */
int kvm_msr_list(const struct kvm *kvm, struct kvm_msr_list_buffer *list, struct error *err);
/* Reads, writes entries in order: returns how many it did before one that KVM refused. */
int kvm_vcpu_get_msrs(int vcpu_fd, struct kvm_msrs_buffer *msrs, struct error *err);
int kvm_vcpu_set_msrs(int vcpu_fd, const struct kvm_msrs_buffer *msrs, struct error *err);
/* One: 0, or -EINVAL where KVM refuses it. */
int kvm_vcpu_get_msr(int vcpu_fd, uint32_t index, uint64_t *value, struct error *err);
int kvm_vcpu_set_msr(int vcpu_fd, uint32_t index, uint64_t value, struct error *err);

/* struct kvm_cpuid2; before the vCPU's first run. */
int kvm_vcpu_set_cpuid(int vcpu_fd, const void *cpuid, struct error *err);

/* kHz; 0 where KVM does not know. */
uint32_t kvm_vcpu_tsc_khz(int vcpu_fd);
int kvm_vcpu_set_tsc_khz(int vcpu_fd, uint32_t khz, struct error *err);
/* What is added to the (scaled) TSC of the host: Linux 5.16. -ENXIO where absent. */
int kvm_vcpu_get_tsc_offset(int vcpu_fd, uint64_t *offset, struct error *err);
int kvm_vcpu_set_tsc_offset(int vcpu_fd, uint64_t offset, struct error *err);

#endif
