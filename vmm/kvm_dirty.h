/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vCPUs wrote, as a dirty source (memory/dirty_source.h): KVM's dirty log with
 * manual protection (Documentation/virt/kvm/api.rst, 4.43, 4.117), or the dirty ring
 * (8.29). start/stop/collect are for the control plane or a migration thread, one at a
 * time.
 */
#ifndef VMM_KVM_DIRTY_H
#define VMM_KVM_DIRTY_H

#include "memory/dirty_source.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"

/* kvm and memory outlive it. */
struct dirty_source *kvm_dirty_log_new(struct kvm *kvm, struct guest_memory *memory,
				       struct error *err);

/* Needs kvm_enable_dirty_ring() before the vCPUs were made; vcpus outlive it. Its
 * dirty_ring_full callback is kvm_dirty_ring_harvest. */
struct dirty_source *kvm_dirty_ring_new(struct kvm *kvm, struct guest_memory *memory,
					struct vcpu *const *vcpus, unsigned int count,
					struct error *err);
/* Takes the entries of one vCPU's ring over and makes room in it. Any thread. */
void kvm_dirty_ring_harvest(struct dirty_source *source, unsigned int vcpu);

#endif
