/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Postcopy from RUNNING on: the VM runs over there, its memory is sent after it. Nothing
 * is given up here but the VM itself, so connections that are lost are made anew.
 */
#include <errno.h>
#include <poll.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/send_private.h"

#define TICK_MS 20
#define PAUSE_MS 200 /* between two attempts */
#define DONE_MS 100
#define ATTEMPT_MS 2000 /* to connect, and to be answered */

enum follow_state {
	FOLLOW_ON,   /* pages are on their way */
	FOLLOW_ALL,  /* COMPLETE */
	FOLLOW_LOST, /* the destination says so, or has ended */
};

static void read_figures(struct migration_send *send, const struct frame *frame)
{
	const uint8_t *meta = channel_meta(send->control);

	if (frame->meta_len < COMPLETE_SIZE)
		return;
	pthread_mutex_lock(&send->lock);
	send->progress.faults.count = load_le64(meta);
	send->progress.faults.mean_us = load_le64(meta + 8);
	send->progress.faults.max_us = load_le64(meta + 16);
	pthread_mutex_unlock(&send->lock);
}

/* What control says. 0, or why it says nothing more. */
static int hear(struct migration_send *send, enum follow_state *state, int idle_ms,
		struct frame *frame, struct error *err)
{
	int r = channel_receive(send->control, frame, idle_ms, err);

	if (r == -ENODATA)
		return error_set(err, ECONNRESET, "the destination closed the connection");
	if (r)
		return r;
	switch (frame->type) {
	case FRAME_PING:
	case FRAME_MISSING: return 0;
	case FRAME_COMPLETE:
		read_figures(send, frame);
		*state = FOLLOW_ALL;
		return 0;
	case FRAME_FAILED:
		*state = FOLLOW_LOST;
		return failed_decode("destination", channel_meta(send->control), frame->meta_len,
				     err);
	default:
		return error_set(err, EPROTO, "the destination sent frame %u while pages follow",
				 frame->type);
	}
}

/* The other process, where it can be seen. */
static bool has_ended(struct migration_send *send, struct error *err)
{
	if (witness_look(&send->witness) == WITNESS_GONE || send->witness.heard == WITNESS_FAILED) {
		error_set(err, EOWNERDEAD, "the destination's process has ended, or given up");
		return true;
	}
	return false;
}

/* Once more around: 0, or why the connections are of no more use. */
static int tick(struct migration_send *send, enum follow_state *state, uint64_t *heard_ms,
		struct error *err)
{
	struct pollfd p = { .fd = channel_fd(send->control), .events = POLLIN };
	struct frame frame;
	int r = 0;

	send_take_rates(send);
	while (!r && *state == FOLLOW_ON && poll(&p, 1, 0) > 0) {
		r = hear(send, state, 0, &frame, err);
		if (!r && frame.type == FRAME_MISSING)
			r = error_set(err, EPROTO, "the destination sent MISSING unasked");
		*heard_ms = clock_ms();
	}
	if (r || *state != FOLLOW_ON)
		return r;
	r = send_pages_error(send, err);
	if (!r)
		r = send_ping(send, err);
	if (!r && clock_ms() - *heard_ms > (uint64_t)send->options.stall_ms)
		r = error_set(err, ETIMEDOUT, "the destination was silent for %d ms",
			      send->options.stall_ms);
	return r;
}

/* Sends all there is, and waits until it has come. */
static int push(struct migration_send *send, enum follow_state *state, struct error *err)
{
	uint64_t heard_ms = clock_ms();
	int r = 0;

	send_pages_begin_round(send, false);
	while (!r && *state == FOLLOW_ON) {
		send_pages_wait(send, TICK_MS);
		/* Where all is sent, wait is over at once. */
		if (!atomic_load(&send->remaining))
			poll(&(struct pollfd){ .fd = channel_fd(send->control), .events = POLLIN },
			     1, TICK_MS);
		r = tick(send, state, &heard_ms, err);
	}
	return r;
}

static void hang_up(struct migration_send *send)
{
	struct channel *control;

	send_pages_hang_up(send);
	pthread_mutex_lock(&send->lock);
	control = take_ptr(send->control);
	if (control)
		send->closed_bytes += channel_sent(control);
	pthread_mutex_unlock(&send->lock);
	channel_free(control);
	send->connected = false;
	pthread_mutex_lock(&send->round_lock);
	send->quit = false;
	send->page_error = (struct error)ERROR_INIT;
	pthread_mutex_unlock(&send->round_lock);
	eventfd_drain(send->stop);
}

static int dial(struct migration_send *send, struct error *err)
{
	const struct send_options *options = &send->options;
	int timeout_ms = MIN(options->stall_ms, ATTEMPT_MS);
	struct channel_options how = {
		.kind = CHANNEL_PLAIN,
		.timeout_ms = options->stall_ms,
		.cancel_fd = -1,
		.tls = options->tls,
		.policy = options->policy,
	};
	struct channel *control;
	int fd = options->dialer.connect(options->dialer.opaque, timeout_ms, -1, err);

	if (fd < 0)
		return fd;
	control = channel_new(fd, &how, err);
	pthread_mutex_lock(&send->lock);
	send->control = control;
	pthread_mutex_unlock(&send->lock);
	return control ? channel_send(control, &(struct frame){ .type = FRAME_RECOVER },
				      send->session, SESSION_SIZE, NULL, 0, err)
		       : -EIO;
}

/* One attempt: new connections for what the destination says it misses. */
static int reconnect(struct migration_send *send, enum follow_state *state, struct error *err)
{
	struct frame frame;
	int r = dial(send, err);

	if (!r)
		r = hear(send, state, MIN(send->options.stall_ms, ATTEMPT_MS), &frame, err);
	if (r || *state != FOLLOW_ON)
		return r;
	if (frame.type != FRAME_MISSING)
		return error_set(err, EPROTO, "the destination sent frame %u where MISSING belongs",
				 frame.type);
	r = send_postcopy_read_missing(send, &frame, err);
	if (!r)
		r = send_pages_start(send, err);
	if (!r)
		r = send_postcopy_connect(send, err);
	if (!r)
		r = send_expect(send, FRAME_CREATED, &frame, send->options.stall_ms, err);
	if (r)
		return r;
	send->connected = true;
	pthread_mutex_lock(&send->lock);
	send->progress.faults.recoveries++;
	pthread_mutex_unlock(&send->lock);
	return 0;
}

/* Until connections are there, or there is no more hope; err: why they were lost. */
static int recover(struct migration_send *send, enum follow_state *state, struct error *err)
{
	uint64_t until = clock_ms() + (uint64_t)send->options.recovery_ms;

	while (*state == FOLLOW_ON && !send->connected) {
		struct error why = ERROR_INIT;

		hang_up(send);
		if (has_ended(send, err)) {
			*state = FOLLOW_LOST;
		} else if (reconnect(send, state, &why)) {
			if (*state == FOLLOW_LOST)
				*err = why;
			else if (clock_ms() >= until)
				return error_prefix(err,
						    "no new connection came through in %d ms "
						    "(%s), after",
						    send->options.recovery_ms, why.message);
			else
				poll(&(struct pollfd){ .fd = send->witness.fd, .events = POLLIN },
				     1, MIN(PAUSE_MS, send->options.recovery_ms + 1));
		}
	}
	return *state == FOLLOW_LOST ? err->code : 0;
}

int send_follow(struct migration_send *send, struct error *err)
{
	enum follow_state state = FOLLOW_ON;
	int r = 0;

	send_set_phase(send, TRANSFER_POSTCOPY);
	if (!send->connected)
		error_set(err, ECONNRESET, "the connections were lost at the hand-over");
	while (!r && state == FOLLOW_ON) {
		if (send->connected && push(send, &state, err))
			send->connected = false;
		if (state == FOLLOW_ON && !send->connected)
			r = recover(send, &state, err);
		else if (state == FOLLOW_LOST)
			r = err->code;
	}
	if (r) {
		send->lost = true;
		return error_prefix(err, "the VM is lost: it ran at the destination before its "
					 "memory was there, and");
	}
	error_clear(err);
	channel_set_cancel(send->control, -1);
	channel_set_timeout(send->control, DONE_MS);
	channel_send(send->control, &(struct frame){ .type = FRAME_DONE }, NULL, 0, NULL, 0, NULL);
	return 0;
}
