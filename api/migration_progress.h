/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a migration or snapshot is: what `GET vm.migration` answers. Plain data, no
 * pointers: it can be copied under a lock.
 */
#ifndef API_MIGRATION_PROGRESS_H
#define API_MIGRATION_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "api/migration_config.h"

/* Of the last one there was, or the one that runs. JSON: lower case. */
enum vm_migration_direction {
	VM_MIGRATION_DIRECTION_NONE, /* never: the rest means nothing */
	VM_MIGRATION_DIRECTION_SEND,
	VM_MIGRATION_DIRECTION_RECEIVE,
	VM_MIGRATION_DIRECTION_SNAPSHOT,
	VM_MIGRATION_DIRECTION_RESTORE,
};

/*
 * In order; one that does not apply is left out. JSON: lower case. A snapshot is in SETUP,
 * SWITCHOVER (paused) and BACKGROUND (writing RAM, syncing); a restore in SETUP (eager:
 * reading RAM) and, where it is lazy, BACKGROUND after vm.restore was answered.
 */
enum vm_migration_phase {
	VM_MIGRATION_PHASE_NONE,
	VM_MIGRATION_PHASE_CONNECT,    /* connecting, or waiting for the source */
	VM_MIGRATION_PHASE_SETUP,      /* capabilities, configuration, comparison of CPUs */
	VM_MIGRATION_PHASE_PRECOPY,    /* pages, the VM runs */
	VM_MIGRATION_PHASE_SWITCHOVER, /* the VM is stopped: last pages, state, hand-over */
	VM_MIGRATION_PHASE_POSTCOPY,   /* it runs at the destination, its memory follows */
	VM_MIGRATION_PHASE_BACKGROUND, /* the VM runs again, the rest of RAM is on its way */
	VM_MIGRATION_PHASE_COMPLETED,
	VM_MIGRATION_PHASE_FAILED,
	VM_MIGRATION_PHASE_CANCELLED,
};

struct vm_migration_downtime { /* us; those that do not apply are 0 */
	uint64_t total;	       /* the VM stood still: from stop to run */
	uint64_t stop;	       /* vCPUs and emulated devices */
	uint64_t devices;      /* assigned devices stopped */
	uint64_t memory;       /* the last pages */
	uint64_t state;	       /* state tree: saved, sent, loaded */
	uint64_t handover;     /* locks, acknowledgements, resume */
};

/* Postcopy: pages that the VM had to wait for. us; at the source only when it is over, but for
 * the count. */
struct vm_migration_faults {
	uint64_t count, mean, max;
	unsigned int recoveries; /* connections were lost and made anew */
};

struct vm_migration_connection_progress {
	uint64_t bytes; /* on the wire, headers included */
	uint64_t rate;	/* bytes/s */
};

#define VM_MIGRATION_DEVICES_MAX 32
struct vm_migration_device_progress { /* an assigned device, whose state is a stream */
	char id[64], backend[16];
	uint64_t bytes;		  /* of its state, sent or received */
	uint64_t remaining_bytes; /* source: that are left for the pause; an estimate */
	bool ready; /* source: what can be sent before the pause is loaded; destination: all */
};

struct vm_migration_progress {
	enum vm_migration_direction direction;
	enum vm_migration_phase phase;
	char error[ERROR_MESSAGE_MAX]; /* failed, cancelled: why */
	char note[256];		       /* what is otherwise than asked for, and why; or "" */
	bool cancelling;	       /* asked to, not done yet */

	uint64_t elapsed_ms;
	unsigned int round;
	/* Bytes of RAM: all of it, what is done, what is still to do. */
	uint64_t ram_bytes, done_bytes, remaining_bytes;
	uint64_t transferred_bytes;	       /* that went over the wire or to the file */
	uint64_t pages, zero_pages;	       /* 4 KiB; sent with content, by header only */
	uint64_t rate, dirty_rate;	       /* bytes/s; the guest's writes in the last round */
	unsigned int throttle;		       /* % that the vCPUs lose now */
	uint64_t expected_downtime_us;	       /* were the VM stopped now; 0: not known yet */
	struct vm_migration_downtime downtime; /* when it is over */
	struct vm_migration_faults faults;
	bool io_uring, zero_copy; /* what the channel uses */

	unsigned int connection_count;
	struct vm_migration_connection_progress connections[SEND_CONNECTIONS_MAX];
	unsigned int device_count;
	struct vm_migration_device_progress devices[VM_MIGRATION_DEVICES_MAX];
};

static inline bool vm_migration_phase_over(enum vm_migration_phase phase)
{
	return phase == VM_MIGRATION_PHASE_NONE || phase >= VM_MIGRATION_PHASE_COMPLETED;
}

/* The body; NULL out of memory. */
json_t *vm_migration_progress_to_json(const struct vm_migration_progress *progress);

#endif
