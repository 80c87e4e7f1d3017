/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm_dirty.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

/* Region index = memslot number (kvm_map_memory). */
static int slot_of(const struct guest_memory *memory, const struct guest_memory_region *region)
{
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++)
		if (guest_memory_region(memory, i)->gpa == region->gpa)
			return (int)i;
	return -ENOENT;
}

static int set_logging(struct kvm *kvm, const struct guest_memory *memory, bool on,
		       struct error *err)
{
	return kvm_map_memory(kvm, memory, on, err);
}

struct dirty_log {
	struct dirty_source source;
	struct kvm *kvm;
	struct guest_memory *memory;
	bool manual;
};

static void log_stop(struct dirty_source *source)
{
	struct dirty_log *log = container_of(source, struct dirty_log, source);

	set_logging(log->kvm, log->memory, false, NULL);
}

/* At most so many pages at once: the vCPUs' faults wait for KVM's lock meanwhile. */
#define CLEAR_PAGES (1ULL << 16)

static int log_collect(struct dirty_source *source, const struct guest_memory_region *region,
		       struct dirty_bitmap *bitmap, struct error *err)
{
	struct dirty_log *log = container_of(source, struct dirty_log, source);
	int slot = slot_of(log->memory, region), r;
	struct dirty_bitmap got;

	if (slot < 0)
		return error_set(err, -slot, "KVM dirty log: no slot at 0x%llx",
				 (unsigned long long)region->gpa);
	r = dirty_bitmap_init(&got, region->size / GUEST_PAGE_SIZE, err);
	if (r)
		return r;
	r = kvm_get_dirty_log(log->kvm, (uint32_t)slot, got.words, err);
	/* Protect again what was seen, and only that: a page written in between stays
	 * reported, so it is not lost. */
	for (uint64_t first = 0; r >= 0 && log->manual && first < got.pages; first += CLEAR_PAGES) {
		uint64_t count = MIN(got.pages - first, CLEAR_PAGES);

		r = kvm_clear_dirty_log(log->kvm, (uint32_t)slot, first, (uint32_t)count,
					got.words + first / 64, err);
	}
	if (r >= 0)
		dirty_bitmap_or(bitmap, &got);
	dirty_bitmap_destroy(&got);
	return r < 0 ? r : 0;
}

/* With manual protection every page starts as written, and none protected, so that this
 * does not stop the guest. What counts here is what is written from now on. */
static int forget_all(struct dirty_source *source, struct error *err)
{
	struct dirty_log *log = container_of(source, struct dirty_log, source);
	int r = 0;

	for (unsigned int i = 0; !r && i < guest_memory_region_count(log->memory); i++) {
		const struct guest_memory_region *region = guest_memory_region(log->memory, i);
		struct dirty_bitmap ignored;

		r = dirty_bitmap_init(&ignored, region->size / GUEST_PAGE_SIZE, err);
		if (r)
			break;
		r = log_collect(source, region, &ignored, err);
		dirty_bitmap_destroy(&ignored);
	}
	return r;
}

static int log_start(struct dirty_source *source, struct error *err)
{
	struct dirty_log *log = container_of(source, struct dirty_log, source);
	struct error ignored = ERROR_INIT;
	int r;

	/* Without it, get also re-protects: correct, only slower. */
	log->manual = !kvm_enable_manual_dirty_log(log->kvm, &ignored);
	r = set_logging(log->kvm, log->memory, true, err);
	if (!r && log->manual)
		r = forget_all(source, err);
	if (r)
		set_logging(log->kvm, log->memory, false, NULL);
	return r;
}

static void log_destroy(struct dirty_source *source)
{
	free(container_of(source, struct dirty_log, source));
}

struct dirty_source *kvm_dirty_log_new(struct kvm *kvm, struct guest_memory *memory,
				       struct error *err)
{
	static const struct dirty_source_ops ops = {
		.name = "kvm-log",
		.start = log_start,
		.stop = log_stop,
		.collect = log_collect,
		.free = log_destroy,
	};
	struct dirty_log *log = calloc(1, sizeof(*log));

	if (!log) {
		error_set_errno(err, ENOMEM, "KVM dirty log");
		return NULL;
	}
	log->source.ops = &ops;
	log->kvm = kvm;
	log->memory = memory;
	return &log->source;
}

struct dirty_ring {
	struct dirty_source source;
	struct kvm *kvm;
	struct guest_memory *memory;
	struct vcpu *const *vcpus;
	unsigned int count;
	pthread_mutex_t lock;	    /* guards what follows, and the rings */
	uint32_t *next;		    /* per vCPU, free-running */
	struct dirty_bitmap *slots; /* per memslot, harvested and not yet collected */
	unsigned int slot_count;
};

static void harvest_locked(struct dirty_ring *ring, unsigned int vcpu)
{
	uint32_t entries;
	struct kvm_dirty_gfn *gfns = vcpu_dirty_ring(ring->vcpus[vcpu], &entries);

	for (;;) {
		struct kvm_dirty_gfn *gfn = &gfns[ring->next[vcpu] % entries];

		if (!(__atomic_load_n(&gfn->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			return;
		if ((gfn->slot & 0xffff) < ring->slot_count)
			dirty_bitmap_set(&ring->slots[gfn->slot & 0xffff], gfn->offset, 1);
		__atomic_store_n(&gfn->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		ring->next[vcpu]++;
	}
}

void kvm_dirty_ring_harvest(struct dirty_source *source, unsigned int vcpu)
{
	struct dirty_ring *ring = container_of(source, struct dirty_ring, source);

	pthread_mutex_lock(&ring->lock);
	if (vcpu < ring->count)
		harvest_locked(ring, vcpu);
	kvm_reset_dirty_rings(ring->kvm);
	pthread_mutex_unlock(&ring->lock);
}

static int harvest_all(struct dirty_ring *ring, struct error *err)
{
	int r;

	pthread_mutex_lock(&ring->lock);
	for (unsigned int i = 0; i < ring->count; i++)
		harvest_locked(ring, i);
	r = kvm_reset_dirty_rings(ring->kvm);
	pthread_mutex_unlock(&ring->lock);
	return r < 0 ? error_set_errno(err, -r, "KVM_RESET_DIRTY_RINGS") : 0;
}

static int ring_start(struct dirty_source *source, struct error *err)
{
	struct dirty_ring *ring = container_of(source, struct dirty_ring, source);
	int r = set_logging(ring->kvm, ring->memory, true, err);

	if (r)
		set_logging(ring->kvm, ring->memory, false, NULL);
	return r;
}

static void ring_stop(struct dirty_source *source)
{
	struct dirty_ring *ring = container_of(source, struct dirty_ring, source);

	set_logging(ring->kvm, ring->memory, false, NULL);
	harvest_all(ring, NULL);
	for (unsigned int i = 0; i < ring->slot_count; i++)
		dirty_bitmap_clear(&ring->slots[i], 0, ring->slots[i].pages);
}

static int ring_collect(struct dirty_source *source, const struct guest_memory_region *region,
			struct dirty_bitmap *bitmap, struct error *err)
{
	struct dirty_ring *ring = container_of(source, struct dirty_ring, source);
	int slot = slot_of(ring->memory, region);
	int r = harvest_all(ring, err);

	if (r)
		return r;
	if (slot < 0)
		return error_set(err, -slot, "KVM dirty ring: no slot at 0x%llx",
				 (unsigned long long)region->gpa);
	dirty_bitmap_move(bitmap, &ring->slots[slot]);
	return 0;
}

static void ring_free(struct dirty_source *source)
{
	struct dirty_ring *ring = container_of(source, struct dirty_ring, source);

	for (unsigned int i = 0; ring->slots && i < ring->slot_count; i++)
		dirty_bitmap_destroy(&ring->slots[i]);
	pthread_mutex_destroy(&ring->lock);
	free(ring->slots);
	free(ring->next);
	free(ring);
}

struct dirty_source *kvm_dirty_ring_new(struct kvm *kvm, struct guest_memory *memory,
					struct vcpu *const *vcpus, unsigned int count,
					struct error *err)
{
	static const struct dirty_source_ops ops = {
		.name = "kvm-ring",
		.start = ring_start,
		.stop = ring_stop,
		.collect = ring_collect,
		.free = ring_free,
	};
	struct dirty_ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		goto fail;
	ring->source.ops = &ops;
	ring->kvm = kvm;
	ring->memory = memory;
	ring->vcpus = vcpus;
	ring->count = count;
	pthread_mutex_init(&ring->lock, NULL);
	ring->slot_count = guest_memory_region_count(memory);
	ring->next = calloc(count, sizeof(*ring->next));
	ring->slots = calloc(ring->slot_count, sizeof(*ring->slots));
	if (!ring->next || !ring->slots)
		goto fail;
	for (unsigned int i = 0; i < ring->slot_count; i++)
		if (dirty_bitmap_init(&ring->slots[i],
				      guest_memory_region(memory, i)->size / GUEST_PAGE_SIZE, err))
			goto fail_set;
	return &ring->source;
fail:
	error_set_errno(err, ENOMEM, "KVM dirty ring");
fail_set:
	if (ring)
		ring_free(&ring->source);
	return NULL;
}
