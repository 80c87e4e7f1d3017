/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Postcopy up to READY, and what its threads do then: page connections put pages in place,
 * the connection of requests asks for those that are waited for. That thread depends on
 * nobody who may touch RAM: not on the main loop, not on the worker.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "migration/receive_private.h"

#define TICK_MS 100

int receive_postcopy_open(struct migration_receive *receive, struct error *err)
{
	receive->postcopy.arriving = arriving_new(receive->options.policy, err);
	if (!receive->postcopy.arriving)
		return err->code;
	return receive->target.ops->expect_postcopy(receive->target.opaque, err);
}

static uint8_t *own_buffer(struct page_receiver *receiver, struct error *err)
{
	if (!receiver->buffer)
		receiver->buffer = malloc(FRAME_PAGES_MAX);
	if (!receiver->buffer)
		error_set_errno(err, ENOMEM, "receive pages");
	return receiver->buffer;
}

static int place_runs(struct page_receiver *receiver, unsigned int count, struct error *err)
{
	struct migration_receive *receive = receiver->receive;
	uint64_t pages = 0, zero_pages = 0, at = 0;
	int r = 0;

	for (unsigned int i = 0; !r && i < count; i++) {
		const struct page_run *run = &receiver->runs[i];

		r = arriving_place(receive->postcopy.arriving, run->gpa, run->len,
				   run->zero ? NULL : receiver->buffer + at, err);
		at += run->zero ? 0 : run->len;
		*(run->zero ? &zero_pages : &pages) += run->len / GUEST_PAGE_SIZE;
	}
	atomic_fetch_add_explicit(&receive->pages, pages, memory_order_relaxed);
	atomic_fetch_add_explicit(&receive->zero_pages, zero_pages, memory_order_relaxed);
	return r;
}

static int receive_and_place(struct page_receiver *receiver, const struct frame *frame,
			     struct error *err)
{
	struct iovec iov = { .iov_base = own_buffer(receiver, err), .iov_len = frame->length };
	unsigned int count = 0;
	int r = iov.iov_base ? 0 : -ENOMEM;

	if (!r)
		r = page_runs_decode(receiver->runs, &count, channel_meta(receiver->channel),
				     frame->meta_len, frame->length, err);
	if (!r)
		r = receive_pages_check(receiver->receive, frame, err);
	if (!r && frame->length)
		r = channel_receive_payload(receiver->channel, frame, &iov, 1, err);
	return r ? r : place_runs(receiver, count, err);
}

/* Waits until it is known how; *plain: straight into RAM, and that has begun. */
static int enter(struct migration_receive *receive, bool *plain, struct error *err)
{
	struct receive_postcopy *postcopy = &receive->postcopy;
	int r = 0;

	pthread_mutex_lock(&receive->round_lock);
	*plain = !postcopy->switched;
	if (*plain)
		postcopy->plain++;
	while (!*plain && !postcopy->begun && !receive->quit && !receive->page_error.code)
		pthread_cond_wait(&receive->round_over, &receive->round_lock);
	if (!*plain && !postcopy->begun)
		r = error_set(err, ECANCELED, "cancelled");
	pthread_mutex_unlock(&receive->round_lock);
	return r;
}

static void leave_plain(struct migration_receive *receive)
{
	pthread_mutex_lock(&receive->round_lock);
	if (!--receive->postcopy.plain)
		pthread_cond_broadcast(&receive->round_over);
	pthread_mutex_unlock(&receive->round_lock);
}

int receive_postcopy_pages(struct page_receiver *receiver, const struct frame *frame,
			   struct error *err)
{
	bool plain;
	int r = enter(receiver->receive, &plain, err);

	if (r)
		return r;
	if (!plain)
		return receive_and_place(receiver, frame, err);
	r = receive_pages_plain(receiver, frame, err);
	leave_plain(receiver->receive);
	return r;
}

int receive_postcopy_attach(struct migration_receive *receive, struct channel *channel,
			    struct error *err)
{
	struct channel_options options = {
		.kind = CHANNEL_PLAIN,
		.stream = receive->hello.connections + 1,
		.timeout_ms = receive->options.stall_ms,
		.cancel_fd = receive->stop,
		.policy = receive->options.policy,
	};

	channel = channel_renew(channel, &options, err);
	if (!channel)
		return err->code;
	pthread_mutex_lock(&receive->lock);
	receive->postcopy.requests.receive = receive;
	receive->postcopy.requests.channel = channel;
	pthread_mutex_unlock(&receive->lock);
	return 0;
}

/* --- the thread of requests ----------------------------------------------------------- */

static int ask(struct page_receiver *requests, const uint64_t *gpas, unsigned int count,
	       struct error *err)
{
	uint8_t meta[PAGE_REQUESTS_MAX * 8];

	for (unsigned int i = 0; i < count; i++)
		store_le64(meta + i * 8, gpas[i]);
	return !count ? 0
		      : channel_send(requests->channel,
				     &(struct frame){ .type = FRAME_PAGE_REQUEST }, meta, count * 8,
				     NULL, 0, err);
}

static int ask_for_faults(struct page_receiver *requests, struct error *err)
{
	struct arriving *arriving = requests->receive->postcopy.arriving;
	uint64_t gpas[PAGE_REQUESTS_MAX];
	bool more = true;
	int r = 0;

	while (!r && more) {
		int n = arriving_faults(arriving, gpas, PAGE_REQUESTS_MAX, &more);

		r = n < 0 ? error_set_errno(err, n, "read page faults")
			  : ask(requests, gpas, (unsigned int)n, err);
	}
	return r;
}

/* After the connections are made anew: what was asked for on those before. */
static int ask_again(struct page_receiver *requests, struct error *err)
{
	uint64_t gpas[4 * PAGE_REQUESTS_MAX];
	unsigned int n =
		arriving_waited_for(requests->receive->postcopy.arriving, gpas, ARRAY_SIZE(gpas));
	int r = 0;

	for (unsigned int i = 0; !r && i < n; i += PAGE_REQUESTS_MAX)
		r = ask(requests, gpas + i, MIN(n - i, PAGE_REQUESTS_MAX), err);
	return r;
}

static int hear(struct page_receiver *requests, struct error *err)
{
	struct frame frame;
	int r = channel_receive(requests->channel, &frame, 0, err);

	if (r == -ENODATA)
		return error_set(err, ECONNRESET, "the source closed the connection of requests");
	if (r)
		return r;
	if (frame.type != FRAME_PAGES)
		return error_set(err, EPROTO, "frame of type %u on the connection of requests",
				 frame.type);
	return receive_and_place(requests, &frame, err);
}

static int serve_once(struct page_receiver *requests, struct error *err)
{
	struct migration_receive *receive = requests->receive;
	struct arriving *arriving = receive->postcopy.arriving;
	struct pollfd p[] = {
		{ .fd = arriving_fd(arriving), .events = POLLIN },
		{ .fd = channel_fd(requests->channel), .events = POLLIN },
		{ .fd = receive->stop, .events = POLLIN },
	};
	int n = poll(p, ARRAY_SIZE(p), TICK_MS), r = 0;

	if (n < 0)
		return errno == EINTR ? 0 : error_set_errno(err, errno, "wait for page faults");
	if (p[2].revents)
		return error_set(err, ECANCELED, "cancelled");
	if (p[0].revents & POLLIN)
		r = ask_for_faults(requests, err);
	if (!r && p[1].revents)
		r = hear(requests, err);
	if (!r && arriving_stalled_ms(arriving) > (uint64_t)receive->options.stall_ms)
		r = error_set(err, ETIMEDOUT, "a page was asked for, and none has come for %d ms",
			      receive->options.stall_ms);
	return r;
}

/* The VM has not run: the thread that loads its state must not wait for ever. */
static void release_unless_committed(struct migration_receive *receive)
{
	pthread_mutex_lock(&receive->round_lock);
	if (!receive->postcopy.committed && !receive->postcopy.released) {
		receive->postcopy.released = true;
		arriving_end(receive->postcopy.arriving);
	}
	pthread_mutex_unlock(&receive->round_lock);
}

/* Why it was released, as an error. */
static int gave_up(struct migration_receive *receive, struct error *err)
{
	int r = receive_pages_error(receive, err);

	return r ? r : error_set(err, ECONNRESET, "a connection of the source was lost");
}

static void *serve_requests(void *opaque)
{
	struct page_receiver *requests = opaque;
	struct error error = ERROR_INIT;
	int r = ask_again(requests, &error);

	while (!r)
		r = serve_once(requests, &error);
	receive_note_error(requests->receive, &error);
	release_unless_committed(requests->receive);
	return NULL;
}

int receive_postcopy_serve_requests(struct migration_receive *receive, struct error *err)
{
	struct page_receiver *requests = &receive->postcopy.requests;
	int r = thread_start(&requests->thread, receive->options.policy, THREAD_MIGRATION,
			     "postcopy", serve_requests, requests, err);

	requests->started = !r;
	return r;
}

/* --- up to READY, and the end ---------------------------------------------------------- */

/* One list: before the pause (initial), or after it. */
static int receive_missing(struct migration_receive *receive, bool initial, struct error *err)
{
	bool last = false;
	uint64_t end = 0;
	int r = 0;

	while (!r && !last) {
		_cleanup_free_ void *bits = NULL;
		struct frame frame;

		r = receive_expect(receive, FRAME_MISSING, &frame, err);
		if (!r && (!(frame.flags & FRAME_INITIAL) != !initial || !frame.offset))
			r = error_set(err, EPROTO,
				      frame.offset
					      ? "MISSING of the source comes twice, or too early"
					      : "MISSING of the source comes before any round");
		if (r)
			return r;
		if (!initial)
			receive_set_phase(receive, TRANSFER_STOPPED);
		last = frame.flags & FRAME_LAST;
		r = channel_receive_blob(receive->control, &frame, &bits, err);
		/* Nothing of the rounds may come after what replaces it. */
		if (!r)
			r = receive_pages_wait(receive, frame.offset, err);
		if (!r)
			r = missing_list_decode(channel_meta(receive->control), frame.meta_len,
						bits, frame.length, &end, arriving_expect,
						receive->postcopy.arriving, err);
	}
	return r;
}

/* Unless the thread of the requests has given up already: nobody would place the pages. */
static int begin(struct migration_receive *receive, struct error *err)
{
	struct receive_postcopy *postcopy = &receive->postcopy;
	bool released;
	int r = 0;

	pthread_mutex_lock(&receive->round_lock);
	released = postcopy->released;
	if (!released)
		r = arriving_begin(postcopy->arriving, err);
	postcopy->begun = !released && !r;
	pthread_cond_broadcast(&receive->round_over);
	pthread_mutex_unlock(&receive->round_lock);
	return released ? gave_up(receive, err) : r;
}

int receive_postcopy_prepare(struct migration_receive *receive, struct error *err)
{
	int r = receive_missing(receive, true, err);

	if (!r)
		r = channel_send(receive->control, &(struct frame){ .type = FRAME_DROPPED }, NULL,
				 0, NULL, 0, err);
	if (!r)
		r = receive_missing(receive, false, err);
	/* First the thread, then what makes others wait for it: starting one may, too. */
	if (!r)
		r = receive_postcopy_serve_requests(receive, err);
	return r ? r : begin(receive, err);
}

int receive_postcopy_commit(struct migration_receive *receive, struct error *err)
{
	bool released;

	pthread_mutex_lock(&receive->round_lock);
	released = receive->postcopy.released;
	receive->postcopy.committed = !released;
	pthread_mutex_unlock(&receive->round_lock);
	return released ? gave_up(receive, err) : 0;
}

void receive_postcopy_hang_up(struct migration_receive *receive)
{
	struct page_receiver *requests = &receive->postcopy.requests;
	struct channel *channel;

	if (requests->started)
		pthread_join(requests->thread, NULL);
	requests->started = false;
	pthread_mutex_lock(&receive->lock);
	channel = take_ptr(requests->channel);
	pthread_mutex_unlock(&receive->lock);
	channel_free(channel);
	free(take_ptr(requests->buffer));
}

void receive_postcopy_release(struct migration_receive *receive)
{
	if (!receive->postcopy.arriving)
		return;
	receive_postcopy_hang_up(receive);
	pthread_mutex_lock(&receive->round_lock);
	receive->postcopy.released = true;
	arriving_end(receive->postcopy.arriving);
	pthread_mutex_unlock(&receive->round_lock);
}
