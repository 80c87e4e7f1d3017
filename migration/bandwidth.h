/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A limit on bytes per second that several threads share: a token bucket that holds a
 * tenth of a second's worth. Any thread.
 */
#ifndef MIGRATION_BANDWIDTH_H
#define MIGRATION_BANDWIDTH_H

#include <pthread.h>
#include <stdint.h>

struct bandwidth {
	pthread_mutex_t lock;
	uint64_t rate;	  /* bytes/s; 0: no limit */
	int64_t tokens;	  /* bytes; below 0: owed */
	uint64_t last_ns; /* when they were counted */
};

void bandwidth_init(struct bandwidth *bandwidth, uint64_t rate);
void bandwidth_destroy(struct bandwidth *bandwidth);
/* From the next bandwidth_take on. */
void bandwidth_set(struct bandwidth *bandwidth, uint64_t rate);
/* Waits until so many bytes may go. -ECANCELED when cancel_fd (or -1) becomes readable. */
int bandwidth_take(struct bandwidth *bandwidth, uint64_t bytes, int cancel_fd);

#endif
