/* SPDX-License-Identifier: Apache-2.0 */
/* What snapshot_write does with a snapshot_tracking. Private to migration/. */
#ifndef MIGRATION_SNAPSHOT_TRACKING_H
#define MIGRATION_SNAPSHOT_TRACKING_H

#include "migration/snapshot_live.h"

/* Starts the VM's dirty sources, the first time. */
int snapshot_tracking_start(struct snapshot_tracking *tracking, const struct migration_vm *vm,
			    struct error *err);
/*
 * A round: what was written since the last snapshot is added to `held` of layout's regions,
 * where the snapshot is to be differential, and note (NULL: none) is told, by region. The
 * pages are kept aside until it is known what becomes of the snapshot.
 */
typedef void (*snapshot_note_fn)(void *opaque, unsigned int region,
				 const struct dirty_bitmap *fresh);
int snapshot_tracking_collect(struct snapshot_tracking *tracking, struct snapshot_layout *layout,
			      bool differential, snapshot_note_fn note, void *opaque,
			      struct error *err);
/* From the last round on, it counts from the snapshot of that id. */
void snapshot_tracking_commit(struct snapshot_tracking *tracking, const char *id);
/* There is no such snapshot: it counts from where it did. */
void snapshot_tracking_abort(struct snapshot_tracking *tracking);

#endif
