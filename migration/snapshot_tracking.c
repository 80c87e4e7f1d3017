/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/snapshot_tracking.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory/dirty_tracker.h"

struct snapshot_tracking {
	char id[SNAPSHOT_ID_SIZE];
	struct dirty_tracker *tracker; /* NULL: not started */
	unsigned int count;
	/* Per region: taken from the tracker for a snapshot that is being written. */
	struct dirty_bitmap taken[SNAPSHOT_REGIONS_MAX];
};

struct snapshot_tracking *snapshot_tracking_new(struct error *err)
{
	struct snapshot_tracking *tracking = calloc(1, sizeof(*tracking));

	if (!tracking)
		error_set_errno(err, ENOMEM, "track what is written since a snapshot");
	return tracking;
}

static void stop(struct snapshot_tracking *tracking)
{
	dirty_tracker_free(tracking->tracker);
	tracking->tracker = NULL;
	while (tracking->count)
		dirty_bitmap_destroy(&tracking->taken[--tracking->count]);
	tracking->id[0] = '\0';
}

void snapshot_tracking_free(struct snapshot_tracking *tracking)
{
	if (!tracking)
		return;
	stop(tracking);
	free(tracking);
}

const char *snapshot_tracking_id(const struct snapshot_tracking *tracking)
{
	return tracking->id;
}

static int add_sources(struct snapshot_tracking *tracking, const struct migration_vm *vm,
		       struct error *err)
{
	struct dirty_source *sources[MIGRATION_DIRTY_SOURCES_MAX];
	int count = vm->ops->dirty_sources(vm->opaque, sources, MIGRATION_DIRTY_SOURCES_MAX, err);
	int r = count < 0 ? count : 0;

	for (int i = 0; i < count && !r; i++)
		r = dirty_tracker_add(tracking->tracker, sources[i],
				      sources[i]->ops->dma ? DIRTY_ORDER_LAST : DIRTY_ORDER_NORMAL,
				      err);
	return r ? r : dirty_tracker_start(tracking->tracker, err);
}

int snapshot_tracking_start(struct snapshot_tracking *tracking, const struct migration_vm *vm,
			    struct error *err)
{
	struct guest_memory *memory = vm->ops->memory(vm->opaque);
	int r = 0;

	if (tracking->tracker)
		return 0;
	tracking->tracker = dirty_tracker_new(memory, err);
	if (!tracking->tracker)
		return err ? err->code : -ENOMEM;
	for (unsigned int i = 0; i < guest_memory_region_count(memory) && !r; i++) {
		r = dirty_bitmap_init(&tracking->taken[i],
				      guest_memory_region(memory, i)->size / GUEST_PAGE_SIZE, err);
		tracking->count += !r;
	}
	if (!r)
		r = add_sources(tracking, vm, err);
	if (r)
		stop(tracking);
	return r;
}

int snapshot_tracking_collect(struct snapshot_tracking *tracking, struct snapshot_layout *layout,
			      bool differential, snapshot_note_fn note, void *opaque,
			      struct error *err)
{
	struct dirty_round round;
	int r = dirty_tracker_collect(tracking->tracker, &round, err);

	/* A source that lost track counts as dirty what it covers: more than need be. */
	for (unsigned int i = 0; i < tracking->count && !r; i++) {
		struct dirty_bitmap *fresh = dirty_tracker_bitmap(tracking->tracker, i);

		if (differential)
			dirty_bitmap_or(&layout->regions[i].held, fresh);
		if (note)
			note(opaque, i, fresh);
		dirty_bitmap_move(&tracking->taken[i], fresh);
	}
	return r;
}

void snapshot_tracking_commit(struct snapshot_tracking *tracking, const char *id)
{
	for (unsigned int i = 0; i < tracking->count; i++)
		dirty_bitmap_clear(&tracking->taken[i], 0, tracking->taken[i].pages);
	memcpy(tracking->id, id, sizeof(tracking->id));
}

void snapshot_tracking_abort(struct snapshot_tracking *tracking)
{
	for (unsigned int i = 0; i < tracking->count; i++)
		dirty_bitmap_move(dirty_tracker_bitmap(tracking->tracker, i), &tracking->taken[i]);
}
