/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RAM that stays as it was in the pause while the VM runs on. Private to migration/.
 *
 * Record: all of it is write-protected, while the VM runs; a write is noted and let
 * through. What was noted is protected again, a few times, then once more in the pause:
 * from there on (save) a write waits until its unit is copied out, or was written.
 */
#ifndef MIGRATION_SNAPSHOT_LIVE_H
#define MIGRATION_SNAPSHOT_LIVE_H

#include <pthread.h>

#include "memory/userfault.h"
#include "migration/snapshot_units.h"

#define LIVE_POOL_BYTES (32u << 20) /* copies waiting to be written */
#define LIVE_POOL_MAX (LIVE_POOL_BYTES / SNAPSHOT_UNIT)

enum live_mode { LIVE_RECORD, LIVE_SAVE, LIVE_ABANDON };

struct live_copy {
	uint64_t unit;
	uint8_t *data;
};

struct snapshot_live {
	struct snapshot_units *units;
	struct snapshot_progress *progress;
	struct guest_memory *holding; /* discards; NULL: not yet */
	struct userfault uf;
	bool registered[SNAPSHOT_REGIONS_MAX];
	pthread_t thread;
	bool started;
	int stop; /* eventfd */

	pthread_mutex_t lock; /* of all below */
	pthread_cond_t changed;
	enum live_mode mode;
	struct dirty_bitmap written; /* units, in LIVE_RECORD */
	uint8_t *pool;
	unsigned int free_count, queued, head;
	uint8_t *free[LIVE_POOL_MAX];
	struct live_copy queue[LIVE_POOL_MAX];
};

/* Record: protects every unit (of a differential snapshot: those it holds) and scans them.
 * -EOPNOTSUPP with the reason where this cannot be. */
int snapshot_live_start(struct snapshot_live *live, struct snapshot_units *units,
			const struct guest_memory *memory, const struct snapshot_options *options,
			struct snapshot_progress *progress, struct error *err);
/* Counts as written: pages that a dirty source reported, in LIVE_RECORD. */
void snapshot_live_note(void *live, unsigned int region, const struct dirty_bitmap *pages);
/* Protects and scans again what was written, so many units. */
int snapshot_live_again(struct snapshot_live *live, uint64_t *units, struct error *err);
/* The VM is paused: the last time, and from now on writes wait. */
int snapshot_live_save(struct snapshot_live *live, struct guest_memory *memory, struct error *err);

/* A copy that waits to be written, if there is one. */
bool snapshot_live_next(struct snapshot_live *live, struct live_copy *copy);
/* Its buffer is free again. */
void snapshot_live_put(struct snapshot_live *live, uint8_t *data);
/* Until something may have changed, at most a few milliseconds. */
void snapshot_live_wait(struct snapshot_live *live);
/* Writes to these units are let through. */
void snapshot_live_release(struct snapshot_live *live, uint64_t first, uint64_t count);

/* All writes are let through; saved or not. Also where start failed. */
void snapshot_live_end(struct snapshot_live *live);

#endif
