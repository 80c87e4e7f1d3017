/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm_slots.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

/* Kernels before 4.x had no more, and said nothing. */
#define SLOTS_LEAST 32

struct kvm_slots {
	struct kvm *kvm;
	unsigned int first, count; /* [first, first + count) */
	pthread_mutex_t lock;	   /* guards what follows */
	unsigned int used;
	unsigned int hint; /* no free one below */
	uint64_t taken[];  /* bit n: slot first + n */
};

struct kvm_slots *kvm_slots_new(struct kvm *kvm, unsigned int first, struct error *err)
{
	int total = kvm_check(kvm, KVM_CAP_NR_MEMSLOTS);
	struct kvm_slots *slots;
	unsigned int count;

	if (total <= 0)
		total = SLOTS_LEAST;
	if ((unsigned int)total <= first) {
		error_set(err, ENOSPC, "KVM has %d memory slots, more than %u are needed", total,
			  first);
		return NULL;
	}
	count = (unsigned int)total - first;
	slots = calloc(1, sizeof(*slots) + (count + 63) / 64 * sizeof(slots->taken[0]));
	if (!slots) {
		error_set_errno(err, ENOMEM, "create memory slots");
		return NULL;
	}
	slots->kvm = kvm;
	slots->first = first;
	slots->count = count;
	pthread_mutex_init(&slots->lock, NULL);
	return slots;
}

static bool is_taken(const struct kvm_slots *slots, unsigned int n)
{
	return slots->taken[n / 64] >> n % 64 & 1;
}

static int set_slot(struct kvm_slots *slots, unsigned int n, bool readonly, uint64_t gpa,
		    uint64_t size, void *hva, struct error *err)
{
	const struct guest_memory_region region = { .gpa = gpa, .size = size, .hva = hva };

	return kvm_set_slot(slots->kvm, slots->first + n, readonly ? KVM_MEM_READONLY : 0, &region,
			    err);
}

void kvm_slots_free(struct kvm_slots *slots)
{
	if (!slots)
		return;
	for (unsigned int n = 0; n < slots->count && slots->used; n++)
		if (is_taken(slots, n)) {
			set_slot(slots, n, false, 0, 0, NULL, NULL);
			slots->used--;
		}
	pthread_mutex_destroy(&slots->lock);
	free(slots);
}

static int take_locked(struct kvm_slots *slots, struct error *err)
{
	for (unsigned int n = slots->hint; n < slots->count; n++) {
		if (is_taken(slots, n))
			continue;
		slots->taken[n / 64] |= 1ULL << n % 64;
		slots->used++;
		slots->hint = n + 1;
		return (int)n;
	}
	return error_set(err, ENOSPC, "all %u memory slots for devices are in use", slots->count);
}

static void give_back_locked(struct kvm_slots *slots, unsigned int n)
{
	slots->taken[n / 64] &= ~(1ULL << n % 64);
	slots->used--;
	if (n < slots->hint)
		slots->hint = n;
}

/* KVM takes one change at a time, too: nothing is lost by holding the lock. */
int kvm_slots_add(struct kvm_slots *slots, uint64_t gpa, uint64_t size, void *hva, bool readonly,
		  struct error *err)
{
	int n, r;

	pthread_mutex_lock(&slots->lock);
	n = take_locked(slots, err);
	r = n < 0 ? n : set_slot(slots, (unsigned int)n, readonly, gpa, size, hva, err);
	if (n >= 0 && r)
		give_back_locked(slots, (unsigned int)n);
	pthread_mutex_unlock(&slots->lock);
	return r ? r : (int)slots->first + n;
}

void kvm_slots_remove(struct kvm_slots *slots, int slot)
{
	unsigned int n = (unsigned int)slot - slots->first;

	if (slot < 0 || (unsigned int)slot < slots->first || n >= slots->count)
		return;
	pthread_mutex_lock(&slots->lock);
	if (is_taken(slots, n)) {
		/* Size 0 deletes it: of what is there that cannot fail. */
		set_slot(slots, n, false, 0, 0, NULL, NULL);
		give_back_locked(slots, n);
	}
	pthread_mutex_unlock(&slots->lock);
}

unsigned int kvm_slots_used(struct kvm_slots *slots)
{
	unsigned int used;

	pthread_mutex_lock(&slots->lock);
	used = slots->used;
	pthread_mutex_unlock(&slots->lock);
	return used;
}
