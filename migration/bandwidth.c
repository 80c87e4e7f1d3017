/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/bandwidth.h"

#include <errno.h>
#include <poll.h>

#include "base/bytes.h"
#include "base/clock.h"

#define SECOND 1000000000ULL

void bandwidth_init(struct bandwidth *bandwidth, uint64_t rate)
{
	*bandwidth = (struct bandwidth){ .rate = rate, .last_ns = clock_ns() };
	pthread_mutex_init(&bandwidth->lock, NULL);
}

void bandwidth_destroy(struct bandwidth *bandwidth)
{
	pthread_mutex_destroy(&bandwidth->lock);
}

void bandwidth_set(struct bandwidth *bandwidth, uint64_t rate)
{
	pthread_mutex_lock(&bandwidth->lock);
	bandwidth->rate = rate;
	bandwidth->tokens = 0;
	bandwidth->last_ns = clock_ns();
	pthread_mutex_unlock(&bandwidth->lock);
}

/* Takes at once, also what is not there yet, so that nobody starves; returns how long the
 * bucket takes to make up for it. */
static uint64_t take(struct bandwidth *b, uint64_t bytes)
{
	uint64_t now = clock_ns(), debt;

	if (!b->rate)
		return 0;
	/* A second of it is more than the bucket holds, and does not overflow. */
	b->tokens += (int64_t)((double)b->rate * (double)MIN(now - b->last_ns, SECOND) / SECOND);
	b->tokens = MIN(b->tokens, (int64_t)(MIN(b->rate, (uint64_t)INT64_MAX) / 10 + 1));
	b->last_ns = now;
	b->tokens -= (int64_t)bytes;
	if (b->tokens >= 0)
		return 0;
	debt = (uint64_t)-b->tokens;
	return (uint64_t)((double)debt * (double)SECOND / (double)b->rate);
}

int bandwidth_take(struct bandwidth *bandwidth, uint64_t bytes, int cancel_fd)
{
	struct pollfd p = { .fd = cancel_fd, .events = POLLIN };
	uint64_t wait, until;

	pthread_mutex_lock(&bandwidth->lock);
	wait = take(bandwidth, bytes);
	pthread_mutex_unlock(&bandwidth->lock);
	until = clock_ns() + wait;
	for (uint64_t now = clock_ns(); wait && now < until; now = clock_ns()) {
		struct timespec ts = {
			.tv_sec = (time_t)((until - now) / SECOND),
			.tv_nsec = (long)((until - now) % SECOND),
		};
		int n = ppoll(&p, 1, &ts, NULL);

		if (n > 0)
			return -ECANCELED;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	return 0;
}
