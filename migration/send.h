/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending a VM: the source's side of protocol.h.
 *
 *     new -> run (blocks) -> outcome -> free;   cancel, progress: any thread, meanwhile
 *
 * Precopy: the first round sends all RAM, each further one what was written meanwhile,
 * while the VM runs. When what is left fits downtime_ms at the rate seen, the VM is paused
 * and the rest follows. Where rounds do not shrink, the vCPUs are slowed down step
 * by step, up to max_throttle. When timeout_s is over the migration is cancelled, or goes
 * on to the pause whatever the downtime. The limit on bandwidth does not hold for the last
 * round, when the guest waits.
 *
 * Postcopy: as many rounds of precopy as pay (each has to halve what is dirty), at least a
 * part of one; they end when timeout_s is over, whatever its strategy. Then the VM is paused
 * and runs at the destination at once, whatever it has written, and what it touches there
 * comes first. The limit on bandwidth holds for the rest. vCPUs are not slowed down. Once
 * the VM runs there nothing can be cancelled; a connection that is lost is made anew.
 *
 * When it is over:
 *   MOVED   run returned 0. The VM here is paused, without its disk locks, and may never
 *           be resumed; the caller deletes it, or keeps it as it is.
 *   STAYED  an error. The VM is as before (running where it ran, unless leave_paused).
 *   HELD    an error, which says why: paused, without disk locks. See protocol.h.
 *   LOST    postcopy: an error, which says why. The VM ran at the destination and cannot any
 *           more; what is here is paused, and may never be resumed.
 * Dirty logging and throttling are off again in all cases.
 */
#ifndef MIGRATION_SEND_H
#define MIGRATION_SEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/thread.h"
#include "migration/channel.h"
#include "migration/migration_vm.h"
#include "migration/transfer.h"

enum send_at_timeout {
	SEND_AT_TIMEOUT_CANCEL, /* the VM stays */
	SEND_AT_TIMEOUT_IGNORE, /* hand over now, whatever the downtime */
};

/* Where the destination is: another connection to it. Returns a connected stream socket
 * or -errno. url_connect, with what it needs, or a test's. */
struct send_dialer {
	int (*connect)(void *opaque, int timeout_ms, int cancel_fd, struct error *err);
	void *opaque;
};

struct send_options {
	struct send_dialer dialer;
	unsigned int connections; /* for pages; 1 to 128 */
	bool local;		  /* hand RAM over; needs unix sockets */
	bool postcopy;		  /* the VM runs there before its RAM is there; not with local */
	bool update;		  /* with local: what is open, too (update.h) */
	uint64_t downtime_ms;
	uint64_t timeout_s; /* 0: none */
	enum send_at_timeout timeout_strategy;
	uint64_t bandwidth;	   /* bytes/s; 0: no limit */
	unsigned int max_throttle; /* %, 0 to 99; 0: none */
	bool checksum;		   /* of pages, too; they are copied once more for it */
	bool destination_paused;   /* the VM is left paused there */
	bool leave_paused;	   /* if it fails after the pause, paused here */
	enum channel_kind kind;
	enum channel_zero_copy zero_copy;
	const struct tls_context *tls; /* of all connections; NULL: plain. Not with local */
	int stall_ms;		       /* a peer that does nothing for so long is given up */
	int inquiry_ms;		       /* how long it is asked what became of a COMMIT */
	int recovery_ms;	       /* postcopy: how long lost connections are made anew */
	bool no_witness;	       /* as between hosts; for tests */
	const struct thread_policy *policy;
};

/* Defaults: 1 connection, 300 ms, 3600 s, cancel, 99 %, stall 10 s, inquiry 60 s, recovery
 * 300 s. */
void send_options_init(struct send_options *options);

struct migration_send;

/* Copies options. -EINVAL (ERROR_BAD_REQUEST) what they cannot be. */
struct migration_send *migration_send_new(const struct migration_vm *vm,
					  const struct send_options *options, struct error *err);
void migration_send_free(struct migration_send *send); /* not while it runs; NULL is allowed */

/* In a thread of kind THREAD_MIGRATION; once. */
int migration_send_run(struct migration_send *send, struct error *err);
enum transfer_outcome migration_send_outcome(struct migration_send *send);

/* Asks it to end: with -ECANCELED, and as its error why (a string that stays; NULL: the user
 * wants it); of several the first one's. -EALREADY: too late, the hand-over has begun (or it
 * is over). While it is inquiring it ends, too (HELD), but that is still told as -EALREADY. */
int migration_send_cancel(struct migration_send *send, const char *why);
void migration_send_progress(struct migration_send *send, struct transfer_progress *progress);
/* From now on; bytes/s, 0: no limit. Any thread. */
void migration_send_set_bandwidth(struct migration_send *send, uint64_t bandwidth);

#endif
