/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All dirty sources of a VM as one: a bitmap per RAM region, in which a round
 * (dirty_tracker_collect) adds what any source saw written since the round before.
 *
 *     new -> add each source -> start -> { collect -> take pages from the bitmaps }... -> stop
 *
 * The bitmaps are the caller's to read and clear between rounds: a page that it has
 * taken it clears (dirty_bitmap_next_run, dirty_bitmap_clear), before it reads the
 * page's bytes; what it left dirty stays so.
 *
 * Sources stay their owner's, and outlive the tracker. RAM regions may not change while
 * it is started. All functions are for one thread at a time.
 */
#ifndef MEMORY_DIRTY_TRACKER_H
#define MEMORY_DIRTY_TRACKER_H

#include <stdint.h>

#include "base/error.h"
#include "memory/dirty_bitmap.h"
#include "memory/dirty_source.h"

#define DIRTY_TRACKER_SOURCES_MAX 64

/* Sources of a class are collected in the order they were added, classes one after the
 * other: what a later one writes on behalf of an earlier one is then in the same round. */
enum dirty_order {
	DIRTY_ORDER_NORMAL, /* vCPUs, the VMM's own writes */
	DIRTY_ORDER_LAST,   /* devices that write by DMA */
};

/* A collect that failed: the source has lost track of the region, so all of its pages
 * were set dirty, and the round went on. */
struct dirty_loss {
	const struct dirty_source *source;
	const struct guest_memory_region *region;
	struct error error; /* names both, and the cause */
};

struct dirty_round {
	uint64_t number;	 /* from 1, since start */
	uint64_t pages;		 /* that are dirty now, in all regions */
	uint64_t fresh;		 /* of these, not dirty before the round */
	unsigned int losses;	 /* how many collects failed */
	struct dirty_loss first; /* the first of them, where losses > 0 */
	uint64_t lossy_sources;	 /* bit i: of the source added as i-th */
	uint64_t duration_ns;	 /* of the round */
};

struct dirty_tracker;

struct dirty_tracker *dirty_tracker_new(struct guest_memory *memory, struct error *err);
void dirty_tracker_free(struct dirty_tracker *tracker); /* stops it; NULL is allowed */

/* Not while it is started. -E2BIG, -EEXIST, -EBUSY. */
int dirty_tracker_add(struct dirty_tracker *tracker, struct dirty_source *source,
		      enum dirty_order order, struct error *err);

/* Starts all sources, with all bitmaps clean; or none: those already started are stopped
 * when one fails, and err names it. -EBUSY where it is started. */
int dirty_tracker_start(struct dirty_tracker *tracker, struct error *err);
/* Stops all sources, the last started first. May be called when it is not started. The
 * bitmaps stay as they are. */
void dirty_tracker_stop(struct dirty_tracker *tracker);

/*
 * A round. Sources that fail do not fail it: see struct dirty_loss; round tells. Errors
 * leave nothing unseen, because the next round sees it: -EINVAL it is not started;
 * -ESTALE there are other RAM regions than at the start.
 */
int dirty_tracker_collect(struct dirty_tracker *tracker, struct dirty_round *round,
			  struct error *err);

/* The same for the last round before stop, which then costs less: see collect_last. What
 * writes to RAM has been stopped. Rounds may follow all the same, and lose nothing. */
int dirty_tracker_collect_last(struct dirty_tracker *tracker, struct dirty_round *round,
			       struct error *err);

/* Every page counts as dirty, as before the first round of a migration. */
void dirty_tracker_set_all(struct dirty_tracker *tracker);
/* Of the region of that index (guest_memory_region); from start on. NULL: no such. */
struct dirty_bitmap *dirty_tracker_bitmap(struct dirty_tracker *tracker, unsigned int region);
uint64_t dirty_tracker_pages(const struct dirty_tracker *tracker); /* dirty now */

#endif
