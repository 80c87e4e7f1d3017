/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receiving a VM: the destination's side of protocol.h.
 *
 *     new -> run (blocks) -> outcome -> free;   cancel, progress: any thread, meanwhile
 *
 * run returns 0 when the VM is here (MOVED) and the source knows it. Otherwise it is an
 * error, and nothing is left of what came (STAYED).
 *
 * A source that cannot be reached any more when the VM starts: the VM runs, and run stays
 * to answer it for linger_ms, unless the source's process is seen to have ended; then it
 * returns 0. The phase is OVER, the outcome MOVED, as soon as the VM runs. A destination
 * that gave up while a COMMIT may be on its way also answers so long: it has destroyed the
 * VM before, and the outcome is set. linger_ms has to be more than the source's
 * inquiry_ms.
 *
 * Postcopy is served where the target offers it and the source wants it: the phase is
 * POSTCOPY while the VM runs and its memory follows, and run returns when all of it is
 * here. Where it does not come the outcome is LOST, and the VM was ended (target's lost());
 * the VM may wait in between, for recovery_ms at most, which has to be more than the
 * source's. It cannot be cancelled.
 */
#ifndef MIGRATION_RECEIVE_H
#define MIGRATION_RECEIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/thread.h"
#include "migration/channel.h"
#include "migration/migration_vm.h"
#include "migration/transfer.h"

struct receive_options {
	int listener; /* listening stream socket, non-blocking; stays the caller's */
	unsigned int max_connections; /* 1 to 128 */
	bool paused;		      /* the VM is left paused */
	bool local;		      /* RAM may be handed over */
	bool update;		      /* it has to be a live update (update.h) */
	enum channel_kind kind;
	const struct tls_context *tls; /* what all connections have to speak; NULL: plain */
	int wait_ms;		       /* for the source to come; -1: for ever */
	int stall_ms;
	int linger_ms;
	int recovery_ms; /* postcopy: how long the VM waits for a source that was lost */
	const struct thread_policy *policy;
};

/* Defaults: 128, running, local, for ever, 10 s, 120 s, 360 s. */
void receive_options_init(struct receive_options *options);

struct migration_receive;

struct migration_receive *migration_receive_new(const struct migration_target *target,
						const struct receive_options *options,
						struct error *err);
void migration_receive_free(struct migration_receive *receive); /* not while it runs */

/* In a thread of kind THREAD_MIGRATION; once. */
int migration_receive_run(struct migration_receive *receive, struct error *err);
enum transfer_outcome migration_receive_outcome(struct migration_receive *receive);

/* -EALREADY: too late. Ends lingering, too, but that is told as -EALREADY. */
int migration_receive_cancel(struct migration_receive *receive);
void migration_receive_progress(struct migration_receive *receive,
				struct transfer_progress *progress);

#endif
