/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/dirty_tracker.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "memory/guest_memory.h"

struct tracked {
	struct dirty_source *source;
	enum dirty_order order;
};

struct dirty_tracker {
	struct guest_memory *memory;
	struct tracked sources[DIRTY_TRACKER_SOURCES_MAX];
	unsigned int count;
	bool started;
	uint64_t rounds;
	/* one per region, of the regions at the last start */
	struct dirty_bitmap *bitmaps;
	const struct guest_memory_region **regions;
	unsigned int region_count;
};

struct dirty_tracker *dirty_tracker_new(struct guest_memory *memory, struct error *err)
{
	struct dirty_tracker *tracker = calloc(1, sizeof(*tracker));

	if (!tracker) {
		error_set_errno(err, ENOMEM, "track dirty pages");
		return NULL;
	}
	tracker->memory = memory;
	return tracker;
}

static void drop_bitmaps(struct dirty_tracker *tracker)
{
	for (unsigned int i = 0; i < tracker->region_count; i++)
		dirty_bitmap_destroy(&tracker->bitmaps[i]);
	free(tracker->bitmaps);
	free(tracker->regions);
	tracker->bitmaps = NULL;
	tracker->regions = NULL;
	tracker->region_count = 0;
}

void dirty_tracker_free(struct dirty_tracker *tracker)
{
	if (!tracker)
		return;
	dirty_tracker_stop(tracker);
	drop_bitmaps(tracker);
	free(tracker);
}

int dirty_tracker_add(struct dirty_tracker *tracker, struct dirty_source *source,
		      enum dirty_order order, struct error *err)
{
	const char *name = source->ops->name;

	if (tracker->started)
		return error_set(err, EBUSY, "track dirty pages: source %s comes too late", name);
	if (tracker->count == DIRTY_TRACKER_SOURCES_MAX)
		return error_set(err, E2BIG, "track dirty pages: source %s is one over %d", name,
				 DIRTY_TRACKER_SOURCES_MAX);
	for (unsigned int i = 0; i < tracker->count; i++) {
		if (tracker->sources[i].source == source)
			return error_set(err, EEXIST, "track dirty pages: source %s is given twice",
					 name);
	}
	tracker->sources[tracker->count++] = (struct tracked){ source, order };
	return 0;
}

static int make_bitmaps(struct dirty_tracker *tracker, struct error *err)
{
	unsigned int count = guest_memory_region_count(tracker->memory);

	drop_bitmaps(tracker);
	tracker->bitmaps = calloc(count ? count : 1, sizeof(*tracker->bitmaps));
	tracker->regions = calloc(count ? count : 1, sizeof(*tracker->regions));
	if (!tracker->bitmaps || !tracker->regions)
		return error_set_errno(err, ENOMEM, "track dirty pages");
	for (; tracker->region_count < count; tracker->region_count++) {
		unsigned int i = tracker->region_count;
		int rc;

		tracker->regions[i] = guest_memory_region(tracker->memory, i);
		rc = dirty_bitmap_init(&tracker->bitmaps[i],
				       tracker->regions[i]->size / GUEST_PAGE_SIZE, err);
		if (rc)
			return rc;
	}
	return 0;
}

static void stop_first(struct dirty_tracker *tracker, unsigned int count)
{
	while (count--) {
		struct dirty_source *source = tracker->sources[count].source;

		source->ops->stop(source);
	}
}

int dirty_tracker_start(struct dirty_tracker *tracker, struct error *err)
{
	int rc;

	if (tracker->started)
		return error_set(err, EBUSY, "track dirty pages: they are tracked already");
	rc = make_bitmaps(tracker, err);
	for (unsigned int i = 0; !rc && i < tracker->count; i++) {
		struct dirty_source *source = tracker->sources[i].source;

		rc = source->ops->start(source, err);
		if (rc) {
			stop_first(tracker, i);
			error_prefix(err, "start of dirty source %s", source->ops->name);
		}
	}
	if (rc) {
		drop_bitmaps(tracker);
		return rc;
	}
	tracker->rounds = 0;
	tracker->started = true;
	return 0;
}

void dirty_tracker_stop(struct dirty_tracker *tracker)
{
	if (tracker->started)
		stop_first(tracker, tracker->count);
	tracker->started = false;
}

static void note_loss(struct dirty_round *round, const struct dirty_source *source,
		      unsigned int index, const struct guest_memory_region *region,
		      struct error *cause)
{
	round->lossy_sources |= 1ULL << index;
	if (round->losses++)
		return;
	error_prefix(cause, "dirty source %s, RAM at 0x%llx, all of which counts as dirty now",
		     source->ops->name, (unsigned long long)region->gpa);
	round->first = (struct dirty_loss){ source, region, *cause };
}

static void collect_source(struct dirty_tracker *tracker, unsigned int index, bool last,
			   struct dirty_round *round)
{
	struct dirty_source *source = tracker->sources[index].source;
	const struct dirty_source_ops *ops = source->ops;
	__typeof__(ops->collect) collect =
		last && ops->collect_last ? ops->collect_last : ops->collect;

	for (unsigned int i = 0; i < tracker->region_count; i++) {
		struct dirty_bitmap *bitmap = &tracker->bitmaps[i];
		struct error cause = ERROR_INIT;

		if (!collect(source, tracker->regions[i], bitmap, &cause))
			continue;
		dirty_bitmap_set(bitmap, 0, bitmap->pages);
		note_loss(round, source, index, tracker->regions[i], &cause);
	}
}

/* A region without a bitmap would be written to and nobody see it. */
static bool regions_changed(const struct dirty_tracker *tracker)
{
	if (guest_memory_region_count(tracker->memory) != tracker->region_count)
		return true;
	for (unsigned int i = 0; i < tracker->region_count; i++) {
		if (guest_memory_region(tracker->memory, i) != tracker->regions[i])
			return true;
	}
	return false;
}

static int collect_all(struct dirty_tracker *tracker, bool last, struct dirty_round *round,
		       struct error *err)
{
	uint64_t begun = clock_ns(), before;

	if (!tracker->started)
		return error_set(err, EINVAL, "collect dirty pages: they are not tracked");
	if (regions_changed(tracker))
		return error_set(err, ESTALE,
				 "collect dirty pages: RAM is not what it was at the start");
	*round = (struct dirty_round){ .number = ++tracker->rounds };
	before = dirty_tracker_pages(tracker);
	for (int order = DIRTY_ORDER_NORMAL; order <= DIRTY_ORDER_LAST; order++) {
		for (unsigned int i = 0; i < tracker->count; i++) {
			if ((int)tracker->sources[i].order == order)
				collect_source(tracker, i, last, round);
		}
	}
	round->pages = dirty_tracker_pages(tracker);
	round->fresh = round->pages - before;
	round->duration_ns = clock_ns() - begun;
	return 0;
}

int dirty_tracker_collect(struct dirty_tracker *tracker, struct dirty_round *round,
			  struct error *err)
{
	return collect_all(tracker, false, round, err);
}

int dirty_tracker_collect_last(struct dirty_tracker *tracker, struct dirty_round *round,
			       struct error *err)
{
	return collect_all(tracker, true, round, err);
}

void dirty_tracker_set_all(struct dirty_tracker *tracker)
{
	for (unsigned int i = 0; i < tracker->region_count; i++)
		dirty_bitmap_set(&tracker->bitmaps[i], 0, tracker->bitmaps[i].pages);
}

struct dirty_bitmap *dirty_tracker_bitmap(struct dirty_tracker *tracker, unsigned int region)
{
	return region < tracker->region_count ? &tracker->bitmaps[region] : NULL;
}

uint64_t dirty_tracker_pages(const struct dirty_tracker *tracker)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < tracker->region_count; i++)
		pages += dirty_bitmap_count(&tracker->bitmaps[i]);
	return pages;
}
