/* SPDX-License-Identifier: Apache-2.0 */
/* What the sources of memory/ share; nobody else includes this. */
#ifndef MEMORY_GUEST_MEMORY_PRIVATE_H
#define MEMORY_GUEST_MEMORY_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "memory/dirty_bitmap.h"
#include "memory/guest_memory.h"

/* RAM, hotplugged RAM and device memory come in a handful of regions. */
#define REGIONS_MAX 64

struct region {
	struct guest_memory_region r; /* first: the public part */
	struct dirty_bitmap writes;   /* of the VMM; words NULL before the first tracking */
	bool transparent_hugepages;   /* wanted, and hva is aligned for them */
};

/* What expect.c allocates beside: host ranges of whole 2 MiB extents. */
#define EXPECTED_MAX 16

struct expected {
	uint8_t *hva;
	uint64_t size;
	enum expect_order order;
};

struct guest_memory {
	struct {
		pthread_t thread;
		bool started; /* control plane; until it is joined */
		atomic_bool stop;
		pthread_mutex_t lock;
		bool done; /* under the lock, as are those that are left */
		unsigned int count;
		struct expected left[EXPECTED_MAX];
	} expecting;
	unsigned int count;
	struct region *regions[REGIONS_MAX]; /* sorted by gpa */
	/* While set, mark_dirty writes into the regions' bitmaps. They stay allocated
	 * until guest_memory_free(), so a writer that read the flag just before it was
	 * cleared does no harm. */
	atomic_bool tracking;
	atomic_uint discards_held;
};

/* Allocates the bitmap of a region that has none. */
int region_track(struct region *region, struct error *err);

/* Of a new one; of one that is about to be freed: ends the thread. */
void guest_memory_expect_init(struct guest_memory *memory);
void guest_memory_expect_destroy(struct guest_memory *memory);

/* Bytes from gpa to the end of the region that holds it. */
static inline uint64_t region_rest(const struct guest_memory_region *r, uint64_t gpa)
{
	return r->size - (gpa - r->gpa);
}

/* Maps [offset, offset + size) of memfd and inserts it; checks nothing but overlap
 * and room. `advice` as in guest_memory_new. */
struct region_advice {
	bool transparent_hugepages;
	bool mergeable;
	bool private; /* a copy on write; the file is not kept */
};
int region_insert(struct guest_memory *memory, const struct guest_memory_region *want,
		  const struct region_advice *advice, struct error *err);

#endif
