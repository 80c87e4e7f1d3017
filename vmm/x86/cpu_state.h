/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU in the state tree (base/state_tree.h), by KVM's structures (linux/kvm.h):
 *
 *   vcpu, version 1
 *     cpuid       struct kvm_cpuid_entry2[], as given to the vCPU
 *     mp-state    KVM_MP_STATE_x
 *     regs, sregs2 (sregs before Linux 5.14), xcrs, debugregs, lapic, events
 *                 the structs of that name
 *     xsave       struct kvm_xsave, with all that the host's CPU adds to it
 *     msrs        struct kvm_msr_entry[]
 *     tsc-khz     the guest's TSC frequency
 *     tsc         its value when the vCPUs were stopped
 *     tsc-offset  what is added to the host's TSC for it; where KVM says (Linux 5.16)
 *     tsc-deadline  of the local APIC's timer, 0: none
 *     wall-clock    where in RAM KVM wrote the wall clock, 0: nowhere. One for all vCPUs
 *
 * Saving: MP_STATE comes first, because KVM takes INIT and SIPI in as it gives it; LAPIC
 * takes in what is posted; EVENTS last, what the others change is in it.
 *
 * Loading, each step before those that look at it:
 *   TSC_KHZ            the timers count in it
 *   CPUID              what all others are checked against
 *   SREGS              the APIC base: in which form the local APIC is
 *   REGS, XSAVE, XCRS, DEBUGREGS
 *   LAPIC              its timer's mode: the TSC deadline is of one mode only
 *   MSRS
 *   EVENTS             SREGS clears what is pending
 *   MP_STATE           SREGS may set it
 *   TSC, TSC deadline, wall clock  x86_time_set, when the guest goes on and KVM's clock
 *                      is set: KVM writes the wall clock into RAM then
 *
 * Control plane, while no vCPU runs.
 */
#ifndef VMM_X86_CPU_STATE_H
#define VMM_X86_CPU_STATE_H

#include "base/state_tree.h"
#include "vmm/kvm_vcpu.h"
#include "vmm/x86/cpu.h"

/* A vCPU's time. */
struct x86_time {
	uint32_t khz;
	uint64_t tsc, deadline, wall_clock;
	uint64_t offset; /* where has_offset */
	bool has_offset;
};

int x86_time_read(int vcpu_fd, struct x86_time *time, struct error *err);
/* Lets the TSCs of `count` vCPUs go on, `elapsed` ns later than they were read: those that
 * were in step stay so. */
int x86_time_set(const int *vcpu_fds, const struct x86_time *times, unsigned int count,
		 uint64_t elapsed, struct error *err);

/* Which MSRs there are to be saved. */
int x86_msrs_find(const struct kvm *kvm, struct kvm_msr_list_buffer *list, struct error *err);

struct x86_vcpu_state {
	struct x86_cpuid *cpuid; /* as given; malloc'ed */
	struct x86_time time;
};

/* Begins and ends the node. */
int x86_vcpu_save(const struct kvm *kvm, int vcpu_fd, const char *name,
		  const struct x86_vcpu_state *state, const struct kvm_msr_list_buffer *msrs,
		  struct state_writer *writer, struct error *err);
/* Into a vCPU that has not run. Fills *state; its CPUID is replaced. */
int x86_vcpu_load(const struct kvm *kvm, int vcpu_fd, const struct state_node *node,
		  struct x86_vcpu_state *state, struct error *err);

/* CPUID as a property; shared with the comparison of CPUs. *cpuid is malloc'ed. */
void x86_cpuid_save(const struct x86_cpuid *cpuid, struct state_writer *writer);
int x86_cpuid_load(struct x86_cpuid **cpuid, const struct state_node *node, struct error *err);
/* A copy without the room that it does not use: not to be added to. */
struct x86_cpuid *x86_cpuid_copy(const struct x86_cpuid *cpuid, struct error *err);

#endif
