/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between source and destination, where frames cannot be seen: forwards bytes, and after
 * so many of a connection cuts or stalls it.
 */
#ifndef TESTS_UNIT_MIGRATION_BYTE_PROXY_H
#define TESTS_UNIT_MIGRATION_BYTE_PROXY_H

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/migration/migration_fixture.h"

#define BYTE_PROXY_CONNECTIONS 32

struct byte_proxy {
	int listener;
	struct sockaddr_storage target;
	socklen_t target_len;
	pthread_t thread;
	atomic_bool quit;
	atomic_bool cut_now; /* all connections there are */
	/* Of the connection `victim`: after so many bytes, both directions together. */
	unsigned int victim;
	size_t after;	  /* SIZE_MAX: never */
	long pause_ms;	  /* nothing moves for so long, then all goes on */
	bool stall;	  /* else cut */
	const char *text; /* looked for in what comes by; NULL: nothing */
	bool seen;
	atomic_uint count;
	size_t moved[BYTE_PROXY_CONNECTIONS];
	int fds[BYTE_PROXY_CONNECTIONS][2];
};

static inline void byte_proxy_hang_up(struct byte_proxy *proxy, unsigned int i)
{
	for (int side = 0; side < 2; side++)
		shutdown(proxy->fds[i][side], SHUT_RDWR);
}

static inline void byte_proxy_add(struct byte_proxy *proxy)
{
	int fd = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC);
	int to = fd < 0 ? -1 : connect_to(&proxy->target, proxy->target_len);
	unsigned int i = proxy->count;

	if (to < 0 || i == BYTE_PROXY_CONNECTIONS) {
		close(fd);
		if (to >= 0)
			close(to);
		return;
	}
	proxy->fds[i][0] = fd;
	proxy->fds[i][1] = to;
	proxy->moved[i] = 0;
	proxy->count++;
}

/* What one side has; false: it has ended. */
static inline bool byte_proxy_move(struct byte_proxy *proxy, unsigned int i, int side)
{
	size_t left = i == proxy->victim ? proxy->after - proxy->moved[i] : SIZE_MAX;
	char buf[16384];
	ssize_t n = recv(proxy->fds[i][side], buf, MIN(sizeof(buf), left), MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN;
	if (proxy->text && memmem(buf, (size_t)n, proxy->text, strlen(proxy->text)))
		proxy->seen = true;
	if (!n || send(proxy->fds[i][!side], buf, (size_t)n, MSG_NOSIGNAL) != n)
		return false;
	proxy->moved[i] += (size_t)n;
	return true;
}

static inline void byte_proxy_turn(struct byte_proxy *proxy, unsigned int i,
				   const struct pollfd p[2])
{
	for (int side = 0; side < 2; side++) {
		if (!p[side].revents)
			continue;
		if (i == proxy->victim && proxy->moved[i] >= proxy->after) {
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			continue; /* stalled */
		}
		if (!byte_proxy_move(proxy, i, side)) {
			shutdown(proxy->fds[i][!side], SHUT_WR);
			/* The other way may still have something. */
			if (p[side].revents & POLLHUP)
				byte_proxy_hang_up(proxy, i);
		}
	}
	if (i == proxy->victim && proxy->moved[i] >= proxy->after && proxy->pause_ms) {
		nanosleep(&(struct timespec){ .tv_sec = proxy->pause_ms / 1000,
					      .tv_nsec = proxy->pause_ms % 1000 * 1000000L },
			  NULL);
		proxy->after = SIZE_MAX;
	}
	if (i == proxy->victim && proxy->moved[i] >= proxy->after && !proxy->stall)
		byte_proxy_hang_up(proxy, i);
}

static inline void *byte_proxy_run(void *opaque)
{
	struct byte_proxy *proxy = opaque;

	while (!atomic_load(&proxy->quit)) {
		struct pollfd p[1 + 2 * BYTE_PROXY_CONNECTIONS];
		unsigned int count = proxy->count;

		p[0] = (struct pollfd){ .fd = proxy->listener, .events = POLLIN };
		for (unsigned int i = 0; i < 2 * count; i++)
			p[1 + i] =
				(struct pollfd){ .fd = proxy->fds[i / 2][i % 2], .events = POLLIN };
		poll(p, 1 + 2 * count, 5);
		if (atomic_exchange(&proxy->cut_now, false))
			for (unsigned int i = 0; i < count; i++)
				byte_proxy_hang_up(proxy, i);
		for (unsigned int i = 0; i < count; i++)
			byte_proxy_turn(proxy, i, &p[1 + 2 * i]);
		if (p[0].revents)
			byte_proxy_add(proxy);
	}
	return NULL;
}

/* Takes the fixture's destination over: the source dials the proxy. */
static inline void byte_proxy_start(struct byte_proxy *proxy, struct fixture *f)
{
	*proxy = (struct byte_proxy){
		.target = f->address,
		.target_len = f->address_len,
		.after = SIZE_MAX,
	};
	proxy->listener = listen_somewhere(true, &f->address, &f->address_len);
	ck_assert_int_eq(pthread_create(&proxy->thread, NULL, byte_proxy_run, proxy), 0);
}

static inline void byte_proxy_stop(struct byte_proxy *proxy)
{
	atomic_store(&proxy->quit, true);
	pthread_join(proxy->thread, NULL);
	for (unsigned int i = 0; i < 2 * proxy->count; i++)
		close(proxy->fds[i / 2][i % 2]);
	close(proxy->listener);
}

#endif
