/* SPDX-License-Identifier: Apache-2.0 */
/* The property "msrs" of a vCPU's node (cpu_state.h); private to vmm/x86. */
#ifndef VMM_X86_CPU_MSRS_H
#define VMM_X86_CPU_MSRS_H

#include "base/state_tree.h"
#include "vmm/kvm_vcpu.h"

#define MSR_IA32_TSC 0x10
#define MSR_IA32_TSC_DEADLINE 0x6e0
#define MSR_KVM_WALL_CLOCK 0x11 /* both of them the same */
#define MSR_KVM_WALL_CLOCK_NEW 0x4b564d00

/* Those of the list that KVM reads for this vCPU; others it does not have. */
int x86_msrs_save(int vcpu_fd, const struct kvm_msr_list_buffer *list, struct state_writer *writer,
		  struct error *err);
/* One that KVM refuses is an error, unless it has that value already. */
int x86_msrs_load(int vcpu_fd, const struct state_node *node, struct error *err);

#endif
