/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's devices whose state is a stream: a connection and a thread each, which
 * gives the device what comes. The migration's own thread waits until all have everything,
 * and lets them run right before the vCPUs do.
 */
#ifndef MIGRATION_RECEIVE_DEVICES_H
#define MIGRATION_RECEIVE_DEVICES_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/migratable.h"
#include "migration/channel.h"
#include "migration/transfer.h"

struct migration_receive;

struct device_receiver {
	struct migration_receive *receive;
	struct migratable *device;
	char id[DEVICE_ID_MAX + 1], kind[DEVICE_KIND_MAX + 1]; /* told when it is gone, too */
	struct channel *channel;			       /* NULL: not connected yet */
	pthread_t thread;
	bool started;
	atomic_bool complete; /* its end under round_lock */
	uint8_t *buf;	      /* FRAME_DEVICE_DATA_MAX */
	_Atomic uint64_t received;
};

struct receive_devices {
	unsigned int count, attached;
	struct device_receiver *receivers;
};

/* Of the machine that was made; as many as the source has, or -EINVAL. */
int receive_devices_find(struct migration_receive *receive, struct error *err);
/* A connection whose first frame was this DEVICE; its session is checked already. The device
 * begins to take a stream. Takes over channel. */
int receive_devices_attach(struct migration_receive *receive, struct channel *channel,
			   const struct device_head *head, struct error *err);
/* Every device has its whole stream? With round_lock. */
bool receive_devices_complete(const struct migration_receive *receive);
uint64_t receive_devices_received(const struct migration_receive *receive); /* bytes */
void receive_devices_progress(const struct migration_receive *receive,
			      struct transfer_progress *progress);
/* They run; the vCPUs do not yet. */
int receive_devices_run(struct migration_receive *receive, struct error *err);
void receive_devices_stop(struct migration_receive *receive); /* joins; may be called twice */
void receive_devices_free(struct migration_receive *receive);

#endif
