/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Postcopy after COMMIT: the VM runs, its memory follows. This thread keeps the connections
 * and makes them anew; it never touches RAM, for what it does others wait for.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/receive_private.h"

#define TICK_MS 100

struct follow {
	struct migration_receive *receive;
	const struct receive_decision *decision;
	bool connected, source_ended;
	uint64_t lost_ms; /* the connections, since */
	uint64_t heard_ms, pinged_ms;
	struct error why; /* they were lost */
};

/* --- the VM, in a thread of its own ---------------------------------------------------- */

static void *resume_vm(void *opaque)
{
	struct migration_receive *receive = opaque;
	const struct migration_target *target = &receive->target;
	struct receive_postcopy *postcopy = &receive->postcopy;

	if (postcopy->resume_wanted)
		postcopy->resume_result =
			target->ops->resume(target->opaque, &postcopy->resume_error);
	eventfd_signal(postcopy->resumed);
	if (!postcopy->resume_result)
		target->ops->announce(target->opaque);
	return NULL;
}

static int join_resumer(struct migration_receive *receive, struct error *err)
{
	struct receive_postcopy *postcopy = &receive->postcopy;

	if (postcopy->resuming)
		pthread_join(postcopy->resumer, NULL);
	postcopy->resuming = false;
	if (postcopy->resume_result && err)
		*err = postcopy->resume_error;
	return postcopy->resume_result;
}

int receive_follow_resume(struct migration_receive *receive, bool wanted, struct error *err)
{
	struct receive_postcopy *postcopy = &receive->postcopy;
	struct pollfd p[] = {
		{ .fd = postcopy->resumed, .events = POLLIN },
		{ .fd = receive->stop, .events = POLLIN },
	};
	int r;

	postcopy->resume_wanted = wanted;
	r = thread_start(&postcopy->resumer, receive->options.policy, THREAD_MAIN, "resume",
			 resume_vm, receive, err);
	postcopy->resuming = !r;
	while (!r && poll(p, ARRAY_SIZE(p), -1) < 0 && errno == EINTR)
		;
	/* Where connections broke it may wait for a page: it is ours already, then. */
	if (!r && p[0].revents)
		r = postcopy->resume_result ? join_resumer(receive, err) : 0;
	return r;
}

/* --- connections ------------------------------------------------------------------------ */

static void disconnect(struct follow *f, const struct error *why)
{
	struct migration_receive *receive = f->receive;

	if (f->connected) {
		f->lost_ms = clock_ms();
		f->why = *why;
	}
	f->connected = false;
	receive_hang_up(receive);
	pthread_mutex_lock(&receive->round_lock);
	receive->quit = false;
	receive->page_error = (struct error)ERROR_INIT;
	pthread_mutex_unlock(&receive->round_lock);
	eventfd_drain(receive->stop);
}

static int send_missing(struct migration_receive *receive, struct error *err)
{
	struct missing_list *list = malloc(sizeof(*list));
	unsigned int region = 0;
	uint64_t page = 0;
	bool last = false;
	int r = 0;

	if (!list)
		return error_set_errno(err, ENOMEM, "postcopy");
	while (!r && !last) {
		struct frame frame = { .type = FRAME_MISSING };
		struct iovec iov;

		list->count = 0;
		list->bits_len = 0;
		last = arriving_list(receive->postcopy.arriving, list, &region, &page);
		frame.flags = last ? FRAME_LAST : 0;
		iov = (struct iovec){ .iov_base = list->bits, .iov_len = list->bits_len };
		r = channel_send(receive->control, &frame, list->meta, list->count * PAGE_RUN_SIZE,
				 &iov, list->bits_len ? 1 : 0, err);
	}
	free(list);
	return r;
}

/* The source is back: takes over its connection. */
static void recover(struct follow *f, struct channel *channel)
{
	struct migration_receive *receive = f->receive;
	struct error err = ERROR_INIT;
	int r;

	error_set(&err, ECONNRESET, "the source connected anew");
	disconnect(f, &err);
	error_clear(&err);
	channel_set_timeout(channel, receive->options.stall_ms);
	channel_set_cancel(channel, receive->stop);
	pthread_mutex_lock(&receive->lock);
	receive->control = channel;
	pthread_mutex_unlock(&receive->lock);
	if (!arriving_left(receive->postcopy.arriving))
		return; /* it will be told that all is here */
	r = send_missing(receive, &err);
	if (!r)
		r = receive_attach(receive, &err);
	if (!r)
		r = receive_postcopy_serve_requests(receive, &err);
	if (!r)
		r = channel_send(channel, &(struct frame){ .type = FRAME_CREATED }, NULL, 0, NULL,
				 0, &err);
	if (r) {
		f->why = err;
		disconnect(f, &err);
		return;
	}
	f->connected = true;
	f->heard_ms = clock_ms();
	pthread_mutex_lock(&receive->lock);
	receive->progress.faults.recoveries++;
	pthread_mutex_unlock(&receive->lock);
}

static void take_question(struct follow *f)
{
	uint16_t type;
	struct channel *question = receive_take_question(f->receive, &type);

	if (!question)
		return;
	if (type == FRAME_RECOVER)
		recover(f, question);
	else
		receive_answer(f->receive, question, type, f->decision);
}

/* -errno: the source has given up. */
static int hear(struct follow *f, struct error *err)
{
	struct channel *control = f->receive->control;
	struct error why = ERROR_INIT;
	struct frame frame;
	int r = channel_receive(control, &frame, 0, &why);

	if (!r && frame.type == FRAME_FAILED)
		return failed_decode("source", channel_meta(control), frame.meta_len, err);
	f->heard_ms = clock_ms();
	if (!r && (frame.type == FRAME_PING || frame.type == FRAME_DONE))
		return 0;
	if (!r)
		error_set(&why, EPROTO, "the source sent frame %u while its pages follow",
			  frame.type);
	else if (r == -ENODATA)
		error_set(&why, ECONNRESET, "the source closed the connection");
	disconnect(f, &why);
	return 0;
}

static void look_after(struct follow *f)
{
	struct migration_receive *receive = f->receive;
	uint64_t now = clock_ms(), stall_ms = (uint64_t)receive->options.stall_ms;
	struct error why = ERROR_INIT;
	int r = receive_pages_error(receive, &why);

	if (!r && now - f->heard_ms > 3 * stall_ms)
		r = error_set(&why, ETIMEDOUT, "the source was silent for %" PRIu64 " ms",
			      3 * stall_ms);
	if (!r)
		r = receive_ping(receive, &f->pinged_ms, &why);
	if (r)
		disconnect(f, &why);
}

/* Nothing is connected: is there any hope? */
static int check_hope(struct follow *f, struct error *err)
{
	struct migration_receive *receive = f->receive;
	uint64_t ms = clock_ms() - f->lost_ms;

	if (!f->source_ended && ms < (uint64_t)receive->options.recovery_ms)
		return 0;
	*err = f->why;
	if (f->source_ended)
		return error_set(err, EOWNERDEAD, "the source's process has ended");
	error_prefix(err, "the source did not come back in %d ms after",
		     receive->options.recovery_ms);
	return err->code;
}

static int wait_for_something(struct follow *f, struct error *err)
{
	struct migration_receive *receive = f->receive;
	struct pollfd p[] = {
		{ .fd = f->connected ? channel_fd(receive->control) : -1, .events = POLLIN },
		{ .fd = f->connected ? receive->stop : -1, .events = POLLIN },
		{ .fd = receive->options.listener, .events = POLLIN },
		{ .fd = f->source_ended ? -1 : receive->witness.fd, .events = POLLIN },
		{ .fd = arriving_done_fd(receive->postcopy.arriving), .events = POLLIN },
	};
	int limit = f->connected ? receive->options.stall_ms / 4 : receive->options.recovery_ms;
	int n = poll(p, ARRAY_SIZE(p), MIN(TICK_MS, limit + 1)), r = 0;

	if (n <= 0)
		return 0;
	if (p[3].revents)
		f->source_ended = witness_look(&receive->witness) == WITNESS_GONE;
	if (p[0].revents)
		r = hear(f, err);
	if (!r && p[2].revents)
		take_question(f);
	return r;
}

/* --- the end ------------------------------------------------------------------------------ */

static int lose(struct follow *f, struct error *err)
{
	struct migration_receive *receive = f->receive;

	error_prefix(err,
		     "the VM is lost: it ran here, and %llu MiB of its memory did not come, since",
		     (unsigned long long)(arriving_left(receive->postcopy.arriving) *
						  GUEST_PAGE_SIZE / MIB +
					  1));
	receive->postcopy.lost = true;
	witness_say(&receive->witness, WITNESS_FAILED);
	if (f->connected)
		channel_send_failed(receive->control, err);
	receive->target.ops->lost(receive->target.opaque, err);
	receive_hang_up(receive);
	receive_postcopy_release(receive);
	join_resumer(receive, NULL);
	return err->code;
}

static int finish(struct follow *f, struct error *err)
{
	struct migration_receive *receive = f->receive;

	arriving_end(receive->postcopy.arriving);
	if (join_resumer(receive, err))
		return lose(f, err);
	receive_set_outcome(receive, TRANSFER_MOVED);
	if (receive->control)
		receive_say_complete(receive, receive->control);
	if (!receive_linger(receive, f->decision))
		witness_keep(&receive->witness);
	return 0;
}

int receive_follow(struct migration_receive *receive, struct receive_decision *decision,
		   struct error *err)
{
	struct follow f = {
		.receive = receive,
		.decision = decision,
		.connected = true,
		.heard_ms = clock_ms(),
		.why = ERROR_INIT,
	};
	int r = 0;

	while (!r && arriving_left(receive->postcopy.arriving)) {
		r = wait_for_something(&f, err);
		if (!r && f.connected)
			look_after(&f);
		if (!r && !f.connected && arriving_left(receive->postcopy.arriving))
			r = check_hope(&f, err);
	}
	return r ? lose(&f, err) : finish(&f, err);
}
