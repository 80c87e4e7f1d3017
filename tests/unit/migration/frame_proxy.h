/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between source and destination: forwards frames, and at a chosen one does something to
 * a process or to the connections.
 */
#ifndef TESTS_UNIT_MIGRATION_FRAME_PROXY_H
#define TESTS_UNIT_MIGRATION_FRAME_PROXY_H

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "migration/protocol.h"
#include "tests/unit/migration/migration_fixture.h"

enum mischief {
	KILL_SOURCE,
	KILL_TARGET,
	CUT,	    /* all connections; new ones come through */
	CUT_DEAD,   /* and they do not */
	STALL,	    /* nothing moves on the connections there are; new ones are fine */
	STALL_DEAD, /* nor on new ones */
	MISCHIEFS,
};

#define PROXY_CONNECTIONS 64

struct proxy;

struct proxy_connection {
	struct proxy *proxy;
	int fds[2]; /* 0: the source's, 1: the target's */
	atomic_bool stalled;
	pthread_t threads[2];
	unsigned int index;
};

struct proxy_direction {
	struct proxy_connection *connection;
	int from;
};

struct proxy {
	int listener;
	struct sockaddr_storage target;
	socklen_t target_len;
	pthread_t thread;
	atomic_bool quit, dead;
	atomic_uint count;
	struct proxy_connection connections[PROXY_CONNECTIONS];
	struct proxy_direction directions[PROXY_CONNECTIONS][2];
	/* What to do at the first frame of this type: before or after it is forwarded. */
	uint16_t type;
	bool after;
	enum mischief mischief;
	pid_t source, target_pid;
	atomic_bool done;
	pthread_mutex_t lock;
};

static inline void proxy_reap(pid_t pid)
{
	siginfo_t info;

	/* It is gone when we go on; who waits for it still can. */
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) && errno == EINTR)
		; /* ECHILD: the test has seen it already */
}

static inline void proxy_cut(struct proxy *proxy)
{
	for (unsigned int i = 0; i < proxy->count; i++)
		for (int side = 0; side < 2; side++)
			shutdown(proxy->connections[i].fds[side], SHUT_RDWR);
}

static inline void proxy_act(struct proxy *proxy)
{
	switch (proxy->mischief) {
	case KILL_SOURCE: proxy_reap(proxy->source); break;
	case KILL_TARGET: proxy_reap(proxy->target_pid); break;
	case CUT_DEAD: atomic_store(&proxy->dead, true); /* fall through */
	case CUT: proxy_cut(proxy); break;
	case STALL_DEAD: atomic_store(&proxy->dead, true); /* fall through */
	case STALL:
		for (unsigned int i = 0; i < proxy->count; i++)
			atomic_store(&proxy->connections[i].stalled, true);
		break;
	default: break;
	}
	atomic_store(&proxy->done, true);
}

static inline bool proxy_at(struct proxy *proxy, uint16_t type, bool after)
{
	return !atomic_load(&proxy->done) && proxy->type == type && proxy->after == after;
}

/* One frame; false when the connection is over. */
static inline bool proxy_forward(struct proxy_direction *d, uint8_t **buf)
{
	struct proxy_connection *c = d->connection;
	struct proxy *proxy = c->proxy;
	int from = c->fds[d->from], to = c->fds[!d->from];
	uint8_t header[FRAME_HEADER_SIZE];
	struct frame frame;
	size_t rest;
	bool dropped = false;

	if (fd_read_full(from, header, sizeof(header)) || frame_decode(&frame, header, NULL))
		return false;
	rest = frame.meta_len + frame.length;
	*buf = realloc(*buf, rest + 1);
	if (fd_read_full(from, *buf, rest))
		return false;
	/* One at a time, so that the mischief is between two frames. */
	pthread_mutex_lock(&proxy->lock);
	if (proxy_at(proxy, frame.type, false)) {
		proxy_act(proxy);
		dropped = proxy->mischief <= KILL_TARGET; /* it was never sent */
	}
	dropped = dropped || atomic_load(&c->stalled);
	pthread_mutex_unlock(&proxy->lock);
	if (dropped)
		return true;
	if (send(to, header, sizeof(header), MSG_NOSIGNAL) != (ssize_t)sizeof(header) ||
	    (rest && fd_send(to, *buf, rest, NULL, 0)))
		return false;
	pthread_mutex_lock(&proxy->lock);
	if (proxy_at(proxy, frame.type, true))
		proxy_act(proxy);
	pthread_mutex_unlock(&proxy->lock);
	return true;
}

static inline void *proxy_run_direction(void *opaque)
{
	struct proxy_direction *d = opaque;
	uint8_t *buf = NULL;

	while (proxy_forward(d, &buf))
		while (atomic_load(&d->connection->stalled) &&
		       !atomic_load(&d->connection->proxy->quit))
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	free(buf);
	/* What one side closed the other shall see, after what came before. */
	while (atomic_load(&d->connection->stalled) && !atomic_load(&d->connection->proxy->quit))
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	shutdown(d->connection->fds[!d->from], SHUT_WR);
	return NULL;
}

static inline void proxy_add(struct proxy *proxy, int fd)
{
	struct proxy_connection *c = &proxy->connections[proxy->count];
	int to = connect_to(&proxy->target, proxy->target_len);

	if (to < 0 || proxy->count == PROXY_CONNECTIONS) {
		close(fd);
		if (to >= 0)
			close(to);
		return;
	}
	c->proxy = proxy;
	c->fds[0] = fd;
	c->fds[1] = to;
	c->index = proxy->count;
	/* Before anything moves: the mischief is for this one, too. */
	pthread_mutex_lock(&proxy->lock);
	proxy->count++;
	pthread_mutex_unlock(&proxy->lock);
	for (int i = 0; i < 2; i++) {
		struct proxy_direction *d = &proxy->directions[c->index][i];

		d->connection = c;
		d->from = i;
		pthread_create(&c->threads[i], NULL, proxy_run_direction, d);
	}
}

static inline void *proxy_run(void *opaque)
{
	struct proxy *proxy = opaque;

	while (!atomic_load(&proxy->quit)) {
		struct pollfd p = { .fd = proxy->listener, .events = POLLIN };
		int fd;

		if (poll(&p, 1, 20) <= 0)
			continue;
		fd = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		if (!atomic_load(&proxy->dead))
			proxy_add(proxy, fd);
		else if (proxy->mischief == CUT_DEAD)
			close(fd);
		/* else it is accepted and never served */
	}
	return NULL;
}

static inline void proxy_start(struct proxy *proxy)
{
	pthread_mutex_init(&proxy->lock, NULL);
	ck_assert_int_eq(pthread_create(&proxy->thread, NULL, proxy_run, proxy), 0);
}

static inline void proxy_stop(struct proxy *proxy)
{
	atomic_store(&proxy->quit, true);
	pthread_join(proxy->thread, NULL);
	proxy_cut(proxy);
	for (unsigned int i = 0; i < proxy->count; i++)
		for (int side = 0; side < 2; side++)
			pthread_join(proxy->connections[i].threads[side], NULL);
	for (unsigned int i = 0; i < proxy->count; i++)
		for (int side = 0; side < 2; side++)
			close(proxy->connections[i].fds[side]);
	close(proxy->listener);
}

#endif
