/* SPDX-License-Identifier: Apache-2.0 */
/* Writing the file `ram`. Private to migration/. */
#ifndef MIGRATION_SNAPSHOT_RAM_H
#define MIGRATION_SNAPSHOT_RAM_H

#include <pthread.h>

#include "migration/snapshot_live.h"
#include "migration/snapshot_units.h"

#define SNAPSHOT_RAM_WORKERS_MAX 8

struct snapshot_ram_worker;

struct snapshot_ram {
	/* given */
	struct snapshot_image *image; /* layout; frames, where compressed */
	struct snapshot_units *units;
	struct snapshot_live *live; /* NULL: nobody writes to RAM */
	int fd;
	bool rewrite; /* over what is there: zero pages are written, too */
	bool plain_io;
	int level;
	const struct thread_policy *policy;
	struct snapshot_progress *progress;

	/* of the workers */
	_Atomic uint64_t next;	    /* the first unit nobody looked at */
	_Atomic uint64_t remaining; /* units not yet written */
	_Atomic uint64_t tail;	    /* compressed: the first free block of the file */
	_Atomic uint64_t written;   /* bytes */
	atomic_bool failed;
	pthread_mutex_t lock;
	struct error error; /* the first, under the lock */

	bool used_ring;
	unsigned int worker_count;
	struct snapshot_ram_worker *workers[SNAPSHOT_RAM_WORKERS_MAX];
};

/*
 * Starts to write it all, by threads of its own, several where it is compressed: what is not
 * given is set up. From here to the end they need no other thread but live's: whoever
 * writes to RAM and waits may be the one that starts threads and opens files.
 */
int snapshot_ram_start(struct snapshot_ram *ram, struct error *err);
/* What is not written yet need not be. */
void snapshot_ram_cancel(struct snapshot_ram *ram);
/* Waits for the end. file_size of image is set; no copy of live's is queued any more, unless
 * it failed. */
int snapshot_ram_finish(struct snapshot_ram *ram, struct error *err);

#endif
