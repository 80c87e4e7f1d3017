/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The message pump.
 *
 * Calls come from vCPU threads and the control plane at once; commands of the server
 * come whenever it likes, also while a call waits (a server that does DMA by messages
 * reads guest memory before it answers the register write that asked for it). Two
 * designs were weighed:
 *
 *   the loop's thread reads: it completes the callers that wait. One reader, no hand-over
 *   of the role; but a reply takes two thread switches, and a caller depends on the main
 *   loop being free. It is not when it waits for that very vCPU to pause, and it cannot
 *   be when the caller is the loop itself.
 *
 *   callers read: whoever waits and finds no reader becomes the reader, completes whatever
 *   arrives (its own reply, those of others, commands of the server) and hands the role on
 *   when its reply is there. The loop reads only while nobody waits. A call depends on
 *   nothing but the server.
 *
 * The second it is. The role is `reading`, under the lock; the half-received message
 * (`rx`) belongs to the role. The loop watches the socket edge-triggered: an edge it sees
 * while a caller reads is remembered (`missed`), and the last caller to leave wakes the
 * loop through an eventfd to look again, so nothing is left lying. The price is a wake-up
 * of the loop per trapped access; the data path (mapped BARs, ioeventfds, irqfds) has
 * none of this.
 *
 * A full socket: callers send at most USER_SEND_MAX at a time, which the socket's buffer
 * takes, so a server that is itself blocked in sending to us does not hold both sides up.
 */
#include "vfio/user_connection.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "vfio/user_connection_private.h"

/* Messages the loop reads before other sources have their turn. */
#define LOOP_BATCH 64

/* The first reason stays. */
static void lose_locked_va(struct user_connection *c, const char *format, va_list args)
{
	if (c->lost)
		return;
	c->lost = true;
	vsnprintf(c->reason, sizeof(c->reason), format, args);
	/* Ends the wait of whoever polls, and tells the server. */
	shutdown(c->o.fd, SHUT_RDWR);
	pthread_cond_broadcast(&c->changed);
	eventfd_signal(c->kick_fd);
}

__attribute__((format(printf, 2, 3))) static void lose_locked(struct user_connection *c,
							      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	lose_locked_va(c, format, args);
	va_end(args);
}

void user_connection_lose(struct user_connection *c, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	pthread_mutex_lock(&c->lock);
	lose_locked_va(c, format, args);
	pthread_mutex_unlock(&c->lock);
	va_end(args);
}

/* The reason does not change once it is set. */
static int lost_error(struct user_connection *c, uint16_t command, struct error *err)
{
	return error_set(err, ECONNRESET, "vfio-user device %s: %s: %s", c->o.name,
			 user_command_name(command), c->reason);
}

int user_connection_break(struct user_connection *c, struct error *err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	pthread_mutex_lock(&c->lock);
	lose_locked_va(c, format, args);
	pthread_mutex_unlock(&c->lock);
	va_end(args);
	return error_set(err, ECONNRESET, "vfio-user device %s: %s", c->o.name, c->reason);
}

/* Waits for events on the socket until the deadline: false where it is over. */
bool user_wait_for(struct user_connection *c, short events, uint64_t deadline)
{
	struct pollfd p = { .fd = c->o.fd, .events = events };
	uint64_t now = clock_ms();

	if (now >= deadline)
		return false;
	poll(&p, 1, (int)(deadline - now)); /* interrupted: the caller comes back */
	return true;
}

/* Calls. */

static void link_locked(struct user_connection *c, struct user_call *call)
{
	/* There are as many calls as threads: an id is soon free. */
	do
		call->id = ++c->last_id;
	while (user_find_call_locked(c, call->id));
	call->next = c->calls;
	c->calls = call;
}

static void unlink_locked(struct user_connection *c, struct user_call *call)
{
	struct user_call **link = &c->calls;

	while (*link != call)
		link = &(*link)->next;
	*link = call->next;
	if (c->calls) {
		pthread_cond_broadcast(&c->changed); /* one of them reads on */
	} else if (c->missed && !c->reading) {
		c->missed = false;
		eventfd_signal(c->kick_fd);
	}
}

/* Waits for another reader's work. */
static void wait_locked(struct user_connection *c, uint64_t deadline)
{
	struct timespec until = {
		.tv_sec = (time_t)(deadline / 1000),
		.tv_nsec = (long)(deadline % 1000) * 1000000,
	};

	pthread_cond_timedwait(&c->changed, &c->lock, &until);
}

static void await_locked(struct user_connection *c, struct user_call *call)
{
	uint64_t deadline = clock_ms() + c->o.timeout_ms;

	while (!call->done && !c->lost) {
		if (c->reading) {
			wait_locked(c, deadline);
		} else {
			c->reading = true;
			pthread_mutex_unlock(&c->lock);
			user_wait_for(c, POLLIN, deadline);
			user_receive(c);
			pthread_mutex_lock(&c->lock);
			c->reading = false;
		}
		/* Also where the server keeps us busy with commands of its own. */
		if (!call->done && clock_ms() >= deadline)
			lose_locked(c, "the server has not answered %s for %u ms",
				    user_command_name(call->command), c->o.timeout_ms);
	}
}

int user_connection_call(struct user_connection *c, struct user_call *call, struct error *err)
{
	struct vfio_user_header header = { .command = call->command };
	bool done;

	call->done = false;
	call->result = 0;
	call->received = 0;
	call->reply_fd_count = 0;
	pthread_mutex_lock(&c->lock);
	if (c->lost) {
		pthread_mutex_unlock(&c->lock);
		return lost_error(c, call->command, err);
	}
	link_locked(c, call);
	header.id = call->id;
	pthread_mutex_unlock(&c->lock);
	user_send(c, &header, call->out, call->fds, call->fd_count);
	pthread_mutex_lock(&c->lock);
	await_locked(c, call);
	unlink_locked(c, call);
	done = call->done;
	pthread_mutex_unlock(&c->lock);
	if (!done)
		return lost_error(c, call->command, err);
	if (call->result)
		return error_set_errno(err, call->result,
				       "vfio-user device %s: the server refused %s", c->o.name,
				       user_command_name(call->command));
	return 0;
}

int user_connection_post(struct user_connection *c, uint16_t command, const void *payload,
			 size_t len, struct error *err)
{
	struct vfio_user_header header = { .command = command, .flags = VFIO_USER_NO_REPLY };
	struct iovec data[2] = { { (void *)payload, len } };
	bool lost;

	pthread_mutex_lock(&c->lock);
	header.id = ++c->last_id;
	lost = c->lost;
	pthread_mutex_unlock(&c->lock);
	if (!lost)
		user_send(c, &header, data, NULL, 0);
	return lost ? lost_error(c, command, err) : 0;
}

/* The loop. */

/* Reads for those who are not waiting; tells that the connection is lost. Nothing of c
 * is touched behind `lost`, which may free it. */
static void serve_idle(struct user_connection *c)
{
	char reason[sizeof(c->reason)];
	bool tell;

	pthread_mutex_lock(&c->lock);
	if (c->reading) {
		c->missed = true;
	} else if (!c->lost) {
		int r = 1;

		c->reading = true;
		pthread_mutex_unlock(&c->lock);
		for (int i = 0; i < LOOP_BATCH && r > 0; i++)
			r = user_receive(c);
		pthread_mutex_lock(&c->lock);
		c->reading = false;
		pthread_cond_broadcast(&c->changed);
		if (r > 0)
			eventfd_signal(c->kick_fd);
	}
	tell = c->lost && !c->told;
	c->told |= tell;
	memcpy(reason, c->reason, sizeof(reason));
	pthread_mutex_unlock(&c->lock);
	if (tell && c->o.lost)
		c->o.lost(c->o.opaque, reason);
}

static void input_ready(void *opaque, int fd, uint32_t events)
{
	serve_idle(opaque);
}

static void kicked(void *opaque, int fd, uint32_t events)
{
	eventfd_drain(fd);
	serve_idle(opaque);
}

struct watch {
	struct user_connection *c;
	struct error *err;
	int result;
};

static void unwatch(void *opaque)
{
	struct user_connection *c = opaque;

	loop_remove(c->input);
	loop_remove(c->kick);
	c->input = c->kick = NULL;
}

static void watch(void *opaque)
{
	struct watch *w = opaque;
	struct user_connection *c = w->c;

	c->kick = loop_add(c->o.loop, c->kick_fd, EPOLLIN, kicked, c, w->err);
	if (c->kick)
		c->input = loop_add(c->o.loop, c->o.fd, EPOLLIN | EPOLLET, input_ready, c, w->err);
	if (c->input)
		return;
	unwatch(c);
	w->result = w->err ? w->err->code : -ENOMEM;
}

int user_connection_watch(struct user_connection *c, struct error *err)
{
	struct watch w = { .c = c, .err = err };

	loop_call(c->o.loop, watch, &w);
	return w.result;
}

int user_connection_unwatch(struct user_connection *c, struct error *err)
{
	uint64_t deadline = clock_ms() + c->o.timeout_ms;
	bool whole, lost;

	if (c->kick)
		loop_call(c->o.loop, unwatch, c);
	/* Whoever reads now does so for a call, and gives the role up between two messages. Only
	 * what the loop has begun nobody else may come to end. */
	pthread_mutex_lock(&c->lock);
	while (!c->lost && !c->reading && c->rx.have && clock_ms() < deadline) {
		c->reading = true;
		pthread_mutex_unlock(&c->lock);
		user_wait_for(c, POLLIN, deadline);
		user_receive(c);
		pthread_mutex_lock(&c->lock);
		c->reading = false;
		pthread_cond_broadcast(&c->changed);
	}
	whole = c->reading || !c->rx.have;
	lost = c->lost;
	pthread_mutex_unlock(&c->lock);
	if (lost)
		return lost_error(c, VFIO_USER_VERSION, err);
	return whole ? 0
		     : error_set(err, ETIMEDOUT,
				 "vfio-user device %s: the server does not finish its message",
				 c->o.name);
}

struct user_connection *user_connection_new(const struct user_connection_options *options,
					    struct error *err)
{
	struct user_connection *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;

	if (c)
		c->rx.payload = malloc(USER_PAYLOAD_MAX); /* untouched pages cost nothing */
	if (!c || !c->rx.payload) {
		free(c);
		error_set_errno(err, ENOMEM, "vfio-user device %s", options->name);
		return NULL;
	}
	c->kick_fd = eventfd_new();
	if (c->kick_fd < 0 || fd_set_nonblocking(options->fd, true)) {
		error_set_errno(err, c->kick_fd < 0 ? -c->kick_fd : EBADF, "vfio-user device %s",
				options->name);
		if (c->kick_fd >= 0)
			close(c->kick_fd);
		free(c->rx.payload);
		free(c);
		return NULL;
	}
	c->o = *options;
	pthread_mutex_init(&c->send_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
	return c;
}

void user_connection_free(struct user_connection *c)
{
	if (!c)
		return;
	if (c->kick)
		loop_call(c->o.loop, unwatch, c);
	user_receive_reset(&c->rx);
	close(c->o.fd);
	close(c->kick_fd);
	free(c->rx.payload);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->send_lock);
	free(c);
}
