/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Postcopy on the source: what is missing at the destination, and the thread that sends
 * what is asked for. That has a connection of its own, so that a page which somebody waits
 * for does not stand in line behind those that nobody does.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/missing.h"
#include "migration/send_private.h"

#define RUNS_MAX 8192U /* of missing pages */
#define DROP_STALLS 6  /* dropping many pages takes longer than answering */
#define TICK_MS 50

/* --- what is missing -------------------------------------------------------------------- */

/* A page of the destination comes as a whole, or not at all. */
static void round_up(struct migration_send *send, struct dirty_bitmap *bitmap)
{
	uint64_t first = 0, count;

	while (send->unit > 1 && dirty_bitmap_next_run(bitmap, &first, &count)) {
		uint64_t end = align_up(first + count, send->unit);

		first = align_down(first, send->unit);
		dirty_bitmap_set(bitmap, first, end - first);
		first = end;
	}
}

static uint64_t count_runs(struct migration_send *send)
{
	uint64_t runs = 0;

	for (unsigned int i = 0; i < guest_memory_region_count(send->memory); i++) {
		uint64_t first = 0, count;

		while (dirty_bitmap_next_run(dirty_tracker_bitmap(send->tracker, i), &first,
					     &count)) {
			first += count;
			runs++;
		}
	}
	return runs;
}

static void close_gaps(struct dirty_bitmap *bitmap, uint64_t gap)
{
	uint64_t first = 0, end = 0, count;

	while (dirty_bitmap_next_run(bitmap, &first, &count)) {
		if (end && first - end <= gap)
			dirty_bitmap_set(bitmap, end, first - end);
		first = end = first + count;
	}
}

/*
 * The destination drops stale pages run by run, at some us each, and some of that while the
 * VM stands still. Where there are too many runs, pages between them are sent once more
 * instead: that is done while it runs.
 */
static void limit_runs(struct migration_send *send)
{
	uint64_t gap = send->unit;

	while (count_runs(send) > RUNS_MAX) {
		for (unsigned int i = 0; i < guest_memory_region_count(send->memory); i++)
			close_gaps(dirty_tracker_bitmap(send->tracker, i), gap);
		gap *= 2;
	}
}

static int send_list(struct migration_send *send, struct missing_list *list, uint16_t flags,
		     struct error *err)
{
	unsigned int region = 0, count = guest_memory_region_count(send->memory);
	uint64_t page = 0;
	int r = 0;

	while (!r && region < count) {
		struct frame frame = { .type = FRAME_MISSING, .offset = send->round };
		struct iovec iov;

		list->count = 0;
		list->bits_len = 0;
		while (region < count &&
		       missing_list_add(list, dirty_tracker_bitmap(send->tracker, region),
					guest_memory_region(send->memory, region)->gpa, &page)) {
			region++;
			page = 0;
		}
		frame.flags = flags | (region == count ? FRAME_LAST : 0);
		iov = (struct iovec){ .iov_base = list->bits, .iov_len = list->bits_len };
		r = channel_send(send->control, &frame, list->meta, list->count * PAGE_RUN_SIZE,
				 &iov, list->bits_len ? 1 : 0, err);
	}
	return r;
}

/* What is dirty now. */
static int list_dirty(struct migration_send *send, uint16_t flags, struct error *err)
{
	struct missing_list *list = malloc(sizeof(*list));
	int r;

	if (!list)
		return error_set_errno(err, ENOMEM, "postcopy");
	for (unsigned int i = 0; i < guest_memory_region_count(send->memory); i++)
		round_up(send, dirty_tracker_bitmap(send->tracker, i));
	limit_runs(send);
	r = send_list(send, list, flags, err);
	free(list);
	return r;
}

int send_postcopy_announce(struct migration_send *send, struct error *err)
{
	uint64_t until = clock_ms() + DROP_STALLS * (uint64_t)send->options.stall_ms;
	struct pollfd p[] = {
		{ .fd = channel_fd(send->control), .events = POLLIN },
		{ .fd = send->cancel, .events = POLLIN },
	};
	struct frame frame;
	int r = list_dirty(send, FRAME_INITIAL, err);

	while (!r && poll(p, ARRAY_SIZE(p), TICK_MS) <= 0) {
		r = send_pages_error(send, err);
		if (!r)
			r = send_ping(send, err);
		if (!r && clock_ms() > until)
			r = error_set(err, ETIMEDOUT,
				      "the destination did not drop stale pages in time");
	}
	if (!r && p[1].revents)
		r = error_set(err, ECANCELED, "cancelled");
	return r ? r : send_expect(send, FRAME_DROPPED, &frame, 0, err);
}

int send_postcopy_missing(struct migration_send *send, struct error *err)
{
	int r = list_dirty(send, 0, err);

	if (r)
		return r;
	/* From here on the bitmaps are the connections'. */
	pthread_mutex_lock(&send->round_lock);
	send->following = true;
	atomic_store(&send->remaining, dirty_tracker_pages(send->tracker));
	pthread_mutex_unlock(&send->round_lock);
	return 0;
}

/* The region of a run that lies in one; *page: its first. */
static bool find(struct migration_send *send, uint64_t gpa, uint64_t len, unsigned int *region,
		 uint64_t *page)
{
	for (unsigned int i = 0; i < guest_memory_region_count(send->memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(send->memory, i);
		uint64_t offset = gpa - r->gpa;

		if (offset >= r->size)
			continue;
		*region = i;
		*page = offset / GUEST_PAGE_SIZE;
		return len <= r->size - offset && offset % GUEST_PAGE_SIZE == 0;
	}
	return false;
}

static int note_missing(void *opaque, uint64_t gpa, uint64_t len, struct error *err)
{
	struct migration_send *send = opaque;
	unsigned int region;
	uint64_t page;

	if (!find(send, gpa, len, &region, &page))
		return error_set(err, EBADMSG,
				 "MISSING of the destination: %llu bytes at 0x%llx are no RAM",
				 (unsigned long long)len, (unsigned long long)gpa);
	dirty_bitmap_set(dirty_tracker_bitmap(send->tracker, region), page, len / GUEST_PAGE_SIZE);
	return 0;
}

int send_postcopy_read_missing(struct migration_send *send, struct frame *frame, struct error *err)
{
	uint64_t end = 0;
	int r = 0;

	for (unsigned int i = 0; i < guest_memory_region_count(send->memory); i++) {
		struct dirty_bitmap *bitmap = dirty_tracker_bitmap(send->tracker, i);

		dirty_bitmap_clear(bitmap, 0, bitmap->pages);
	}
	while (!r) {
		_cleanup_free_ void *bits = NULL;
		bool last = frame->flags & FRAME_LAST;

		r = channel_receive_blob(send->control, frame, &bits, err);
		if (!r)
			r = missing_list_decode(channel_meta(send->control), frame->meta_len, bits,
						frame->length, &end, note_missing, send, err);
		if (r || last)
			break;
		r = send_expect(send, FRAME_MISSING, frame, send->options.stall_ms, err);
	}
	for (unsigned int i = 0; i < guest_memory_region_count(send->memory); i++)
		round_up(send, dirty_tracker_bitmap(send->tracker, i));
	return r;
}

/* --- what is asked for ------------------------------------------------------------------- */

/* Sent now, so not later; and what follows it probably is needed next. */
static void take_unit(struct migration_send *send, unsigned int region, uint64_t page,
		      uint64_t pages)
{
	struct dirty_bitmap *bitmap = dirty_tracker_bitmap(send->tracker, region);

	pthread_mutex_lock(&send->round_lock);
	if (dirty_bitmap_test(bitmap, page)) {
		dirty_bitmap_clear(bitmap, page, pages);
		atomic_fetch_sub(&send->remaining, pages);
	}
	send->region = region;
	send->page = page + pages;
	pthread_mutex_unlock(&send->round_lock);
}

/* Whether it was sent before does not matter: it may still wait for the limit on bandwidth,
 * or in a socket. */
static int answer(struct migration_send *send, uint64_t gpa, struct error *err)
{
	const struct guest_memory_region *r;
	unsigned int region;
	uint64_t page, pages;

	if (!find(send, gpa, GUEST_PAGE_SIZE, &region, &page))
		return error_set(err, EBADMSG, "PAGE_REQUEST of the destination: 0x%llx is no RAM",
				 (unsigned long long)gpa);
	r = guest_memory_region(send->memory, region);
	page = align_down(page, send->unit);
	pages = MIN(send->unit, r->size / GUEST_PAGE_SIZE - page);
	take_unit(send, region, page, pages);
	atomic_fetch_add(&send->faults, 1);
	return send_pages_run(send, send->requests.channel, r, page, pages, err);
}

static bool is_following(struct migration_send *send)
{
	bool following;

	pthread_mutex_lock(&send->round_lock);
	following = send->following;
	pthread_mutex_unlock(&send->round_lock);
	return following;
}

static int answer_frame(struct migration_send *send, struct error *err)
{
	struct channel *channel = send->requests.channel;
	uint64_t gpas[PAGE_REQUESTS_MAX];
	struct frame frame;
	int r = channel_receive(channel, &frame, -1, err);

	if (r == -ENODATA)
		return error_set(err, ECONNRESET,
				 "the destination closed the connection of requests");
	if (r)
		return r;
	if (frame.type != FRAME_PAGE_REQUEST || !is_following(send))
		return error_set(err, EPROTO,
				 "the destination sent frame %u on the connection of requests",
				 frame.type);
	if (!frame.meta_len || frame.meta_len % 8 || frame.meta_len > sizeof(gpas))
		return error_set(err, EBADMSG,
				 "PAGE_REQUEST of the destination: %u bytes make no sense",
				 frame.meta_len);
	for (unsigned int i = 0; i < frame.meta_len / 8; i++)
		gpas[i] = load_le64(channel_meta(channel) + i * 8);
	for (unsigned int i = 0; !r && i < frame.meta_len / 8; i++)
		r = answer(send, gpas[i], err);
	return r;
}

static void *serve_requests(void *opaque)
{
	struct migration_send *send = opaque;
	struct error error = ERROR_INIT;
	int r = channel_send(send->requests.channel,
			     &(struct frame){ .type = FRAME_ATTACH, .offset = ATTACH_REQUESTS },
			     send->session, SESSION_SIZE, NULL, 0, &error);

	while (!r)
		r = answer_frame(send, &error);
	send_note_error(send, &error);
	return NULL;
}

int send_postcopy_connect(struct migration_send *send, struct error *err)
{
	const struct send_options *options = &send->options;
	struct channel_options how = {
		.kind = CHANNEL_PLAIN,
		.checksum = send->capabilities & CAPABILITY_CHECKSUM,
		.stream = options->connections + 1,
		.timeout_ms = options->stall_ms,
		.cancel_fd = send->stop,
		.tls = options->tls,
		.policy = options->policy,
	};
	struct channel *channel;
	int r = options->dialer.connect(options->dialer.opaque, options->stall_ms, send->cancel,
					err);

	if (r < 0)
		return r;
	channel = channel_new(r, &how, err);
	if (!channel)
		return err && err->code ? err->code : -EIO;
	pthread_mutex_lock(&send->lock);
	send->requests.channel = channel;
	pthread_mutex_unlock(&send->lock);
	r = thread_start(&send->requests.thread, options->policy, THREAD_MIGRATION, "postcopy",
			 serve_requests, send, err);
	send->requests.started = !r;
	return r;
}

void send_postcopy_hang_up(struct migration_send *send)
{
	struct channel *channel;

	if (send->requests.started)
		pthread_join(send->requests.thread, NULL);
	send->requests.started = false;
	pthread_mutex_lock(&send->lock);
	channel = take_ptr(send->requests.channel);
	if (channel)
		send->closed_bytes += channel_sent(channel);
	pthread_mutex_unlock(&send->lock);
	channel_free(channel);
}
