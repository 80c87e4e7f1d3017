/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's devices whose state is a stream (base/migratable.h), a thread and a
 * connection each. All take the steps together: the migration's own thread begins one and
 * waits until every device has taken it; only precopy goes on by itself, until the next.
 */
#ifndef MIGRATION_SEND_DEVICES_H
#define MIGRATION_SEND_DEVICES_H

#include <stdatomic.h>

#include "base/migratable.h"
#include "migration/channel.h"
#include "migration/transfer.h"

struct migration_send;

enum device_step {
	DEVICE_STEP_NONE,
	DEVICE_STEP_PRECOPY, /* reads and sends while it runs */
	DEVICE_STEP_QUIESCE, /* all of them, before the first is stopped */
	DEVICE_STEP_STOP,
	DEVICE_STEP_REST, /* the rest of its stream, until the destination has loaded it */
};

struct device_sender {
	struct migration_send *send;
	struct migratable *device;
	struct channel *channel;
	pthread_t thread;
	bool started;
	bool begun;			/* save_begin was called: rollback is due */
	bool initial_sent;		/* this thread's, and what follows */
	unsigned int unheard;		/* times that they were sent, and not said to be loaded */
	uint64_t initial;		/* bytes of them that are left, as it was told last */
	uint64_t ahead;			/* bytes that may be read before it is asked again */
	uint8_t *buf;			/* FRAME_DEVICE_DATA_MAX */
	_Atomic uint64_t sent, pending; /* bytes of the stream; that STOP_COPY would take */
	atomic_bool loaded;		/* the initial ones are, over there */
};

struct send_devices {
	unsigned int count;
	struct device_sender *senders;
	/* Under the migration's round_lock; its conditions tell. */
	enum device_step step;
	unsigned int steps, busy; /* begun so far; devices that take the last */
};

/* Which devices there are, before anybody is called. -EOPNOTSUPP names the one that cannot
 * be moved: by itself, or beside others. */
int send_devices_find(struct migration_send *send, struct error *err);
/* Connects and starts a thread for each. */
int send_devices_start(struct migration_send *send, struct error *err);
void send_devices_begin(struct migration_send *send, enum device_step step);
/* Waits until all have taken it, looking after the control connection meanwhile. */
int send_devices_wait(struct migration_send *send, struct error *err);
/* All initial bytes are loaded at the destination. */
bool send_devices_ready(const struct migration_send *send);
/* Waits for that, up to ms. */
void send_devices_await(struct migration_send *send, unsigned int ms);
/* Bytes that are left for when they are stopped. */
uint64_t send_devices_pending(const struct migration_send *send);
uint64_t send_devices_sent(const struct migration_send *send); /* bytes of streams */
void send_devices_progress(const struct migration_send *send, struct transfer_progress *progress);
void send_devices_stop(struct migration_send *send); /* joins; may be called twice */
/* After that: every device runs as before. Fails with the first that does not. */
int send_devices_rollback(struct migration_send *send, struct error *err);
void send_devices_free(struct migration_send *send);

#endif
