/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot, restore or migration that a VM is in: what `vm.migration` tells of it, and
 * its end on request. Private to vm*.c.
 *
 * begin, end and the pointers between are the worker's; the rest is for any thread.
 */
#ifndef VMM_VM_WORK_H
#define VMM_VM_WORK_H

#include <pthread.h>

#include "api/migration_progress.h"
#include "base/error.h"

struct snapshot_progress;
struct migration_send;
struct migration_receive;

struct vm_work {
	pthread_mutex_t lock; /* guards what follows */
	/* Of the last one; while one runs, what is not told by these. */
	struct vm_migration_progress progress;
	uint64_t started_ns;
	struct snapshot_progress *snapshot;   /* of a snapshot, or a restore */
	bool stopped;			      /* a snapshot that is not live */
	struct snapshot_progress *background; /* of a lazy restore: the VM runs */
	struct migration_send *send;
	struct migration_receive *receive;
	unsigned int sent_generation, ended_generation; /* of send's machine; of one that ended */
	const char *ended;				/* how it did; NULL: none has */
};

void vm_work_init(struct vm_work *work);
void vm_work_destroy(struct vm_work *work);
void vm_work_begin(struct vm_work *work, enum vm_migration_direction direction);
/* What runs, or NULL when it is over: then the pointer may go. */
void vm_work_set_snapshot(struct vm_work *work, struct snapshot_progress *snapshot);
void vm_work_set_background(struct vm_work *work, struct snapshot_progress *background);
/* generation: of the machine that it sends. */
void vm_work_set_send(struct vm_work *work, struct migration_send *send, unsigned int generation);
void vm_work_set_receive(struct vm_work *work, struct migration_receive *receive);
/* By its result; err of one that failed. Numbers are those it had last. */
void vm_work_end(struct vm_work *work, int result, const struct error *err);

void vm_work_progress(struct vm_work *work, struct vm_migration_progress *progress);
/* ERROR_WRONG_STATE: nothing runs, or it is too late. */
int vm_work_cancel(struct vm_work *work, struct error *err);
/* The guest of a machine has ended: a migration that sends it, or is about to, is given up.
 * how: its error, a string that stays. */
void vm_work_guest_ended(struct vm_work *work, unsigned int generation, const char *how);

#endif
