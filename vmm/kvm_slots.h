/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM memory slots beside those of RAM: host memory, or a device's, at guest-physical
 * addresses that come and go while the guest runs (BARs of assigned devices).
 *
 * Slot numbers from `first` on are this allocator's; those below are the regions' of RAM
 * (kvm_map_memory). How many there are is KVM's to say (KVM_CAP_NR_MEMSLOTS: 32764 on
 * x86). Any thread.
 */
#ifndef VMM_KVM_SLOTS_H
#define VMM_KVM_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/kvm.h"

struct kvm_slots;

/* kvm stays the caller's and outlives it. -ENOSPC where KVM has not got `first`. */
struct kvm_slots *kvm_slots_new(struct kvm *kvm, unsigned int first, struct error *err);
/* NULL is allowed; slots still there go. */
void kvm_slots_free(struct kvm_slots *slots);

/* Everything page-aligned. The slot's number, or -errno: -ENOSPC all are taken, -EEXIST
 * another slot is there. */
int kvm_slots_add(struct kvm_slots *slots, uint64_t gpa, uint64_t size, void *hva, bool readonly,
		  struct error *err);
/* The guest does not reach it any more when this returns. */
void kvm_slots_remove(struct kvm_slots *slots, int slot);

/* For counters and tests. */
unsigned int kvm_slots_used(struct kvm_slots *slots);

#endif
