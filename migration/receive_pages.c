/* SPDX-License-Identifier: Apache-2.0 */
/* The threads that receive pages, one per connection, straight into guest memory. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/receive_private.h"

#define WAIT_MS 50
#define POPULATE_MIN (2 * GUEST_PAGE_SIZE)
#define HUGE_PAGE (2ULL << 20)
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Makes pages zero without allocating those that are not there: they are zero. Page by
 * page, since SEEK_HOLE looks at all that follow. */
static void zero_range(const struct guest_memory_region *region, uint64_t gpa, uint64_t len)
{
	uint64_t at = region->offset + (gpa - region->gpa), end = at + len;

	while (at < end) {
		off_t data = lseek(region->memfd, (off_t)at, SEEK_DATA);

		if (data < 0 && errno == ENXIO)
			return;
		if (data >= 0)
			at = align_down((uint64_t)data, GUEST_PAGE_SIZE);
		if (at >= end)
			return;
		memset(region->hva + (at - region->offset), 0, GUEST_PAGE_SIZE);
		at += GUEST_PAGE_SIZE;
	}
}

/* Huge pages know no holes: all of them would come into being. What was never written is
 * still zero, and a look costs the pages that are there less than their writing. */
static void zero_huge(const struct guest_memory_region *region, uint64_t gpa, uint64_t len)
{
	static const uint8_t zero[GUEST_PAGE_SIZE];
	uint8_t *page = region->hva + (gpa - region->gpa);

	for (uint8_t *end = page + len; page < end; page += GUEST_PAGE_SIZE)
		if (memcmp(page, zero, sizeof(zero)))
			memset(page, 0, sizeof(zero));
}

static int zero_run(struct migration_receive *receive, const struct page_run *run,
		    struct error *err)
{
	uint64_t gpa = run->gpa, left = run->len;

	while (left) {
		const struct guest_memory_region *region = guest_memory_find(receive->memory, gpa);
		uint64_t part;

		if (!region)
			return error_set(err, EFAULT, "PAGES of the peer: 0x%llx is no RAM",
					 (unsigned long long)gpa);
		part = MIN(left, region->size - (gpa - region->gpa));
		if (region->page_size > GUEST_PAGE_SIZE) {
			/* In the first round nothing is there yet. */
			if (receive->round)
				zero_huge(region, gpa, part);
		} else {
			zero_range(region, gpa, part);
		}
		gpa += part;
		left -= part;
	}
	return 0;
}

/* The huge pages that a run fills. */
static void expect_huge(struct guest_memory *memory, const struct page_run *run)
{
	uint64_t start = align_up(run->gpa, HUGE_PAGE),
		 end = align_down(run->gpa + run->len, HUGE_PAGE);

	if (start < end)
		guest_memory_make_huge(memory, start, end - start);
}

/*
 * Pages come into being one by one when they are received into, by faults that cost several
 * times the copy; many at once are cheaper (MADV_POPULATE_WRITE, Linux 5.14; without it all
 * is just slower), huge ones cheap. After the first round most are there.
 */
static void populate(struct migration_receive *receive, const struct iovec *iov, unsigned int count)
{
	for (unsigned int i = 0; !receive->round && i < count; i++)
		if (iov[i].iov_len >= POPULATE_MIN)
			madvise(iov[i].iov_base, iov[i].iov_len, MADV_POPULATE_WRITE);
}

int receive_pages_check(const struct migration_receive *receive, const struct frame *frame,
			struct error *err)
{
	if (receive->capabilities & CAPABILITY_CHECKSUM && frame->length &&
	    !(frame->flags & FRAME_PAYLOAD_CRC))
		return error_set(err, EPROTO,
				 "PAGES of the peer lack the checksum that was agreed on");
	return 0;
}

int receive_pages_plain(struct page_receiver *receiver, const struct frame *frame,
			struct error *err)
{
	struct migration_receive *receive = receiver->receive;
	unsigned int count, iov_count = 0;
	uint64_t pages = 0, zero_pages = 0;
	int r = page_runs_decode(receiver->runs, &count, channel_meta(receiver->channel),
				 frame->meta_len, frame->length, err);

	for (unsigned int i = 0; !r && i < count; i++) {
		const struct page_run *run = &receiver->runs[i];

		if (run->zero) {
			r = zero_run(receive, run, err);
			zero_pages += run->len / GUEST_PAGE_SIZE;
			continue;
		}
		r = guest_memory_iov(receive->memory, run->gpa, run->len, receiver->iov, &iov_count,
				     ARRAY_SIZE(receiver->iov));
		if (r)
			error_set(err, r, "PAGES of the peer: 0x%llx is no RAM",
				  (unsigned long long)run->gpa);
		pages += run->len / GUEST_PAGE_SIZE;
		if (!r && !receive->round)
			expect_huge(receive->memory, run);
	}
	if (!r)
		r = receive_pages_check(receive, frame, err);
	if (!r)
		populate(receive, receiver->iov, iov_count);
	if (!r)
		r = channel_receive_payload(receiver->channel, frame, receiver->iov, iov_count,
					    err);
	atomic_fetch_add_explicit(&receive->pages, pages, memory_order_relaxed);
	atomic_fetch_add_explicit(&receive->zero_pages, zero_pages, memory_order_relaxed);
	return r;
}

/* With round_lock: the round is over, if this was the last connection to end it. */
static int count_end(struct migration_receive *receive, const struct frame *frame,
		     struct error *err)
{
	bool last = frame->flags & FRAME_LAST;

	if (frame->offset != receive->round + 1ULL || (receive->ended && last != receive->last) ||
	    (receive->postcopy.arriving && (last || receive->postcopy.switched)))
		return error_set(err, EPROTO, "ROUND_END of the peer: round %llu while %u is on",
				 (unsigned long long)frame->offset, receive->round + 1);
	receive->last = last;
	if (++receive->ended < receive->hello.connections)
		return 0;
	receive->ended = 0;
	receive->round++;
	receive->complete = last;
	pthread_cond_broadcast(&receive->round_over);
	return 0;
}

/* Returns when all connections have ended the round; *last: it was the last. */
static int end_round(struct migration_receive *receive, const struct frame *frame, bool *last,
		     struct error *err)
{
	unsigned int round;
	int r;

	pthread_mutex_lock(&receive->round_lock);
	round = receive->round;
	r = count_end(receive, frame, err);
	while (!r && receive->round == round && !receive->quit && !receive->page_error.code)
		pthread_cond_wait(&receive->round_over, &receive->round_lock);
	if (!r && receive->round == round)
		r = error_set(err, ECANCELED, "cancelled");
	*last = receive->complete;
	pthread_mutex_unlock(&receive->round_lock);
	return r;
}

void receive_note_error(struct migration_receive *receive, const struct error *error)
{
	pthread_mutex_lock(&receive->round_lock);
	if (!receive->page_error.code) {
		receive->page_error = *error;
		eventfd_signal(receive->stop);
	}
	pthread_cond_broadcast(&receive->round_over);
	pthread_mutex_unlock(&receive->round_lock);
}

static void *run_receiver(void *opaque)
{
	struct page_receiver *receiver = opaque;
	struct error error = ERROR_INIT;
	bool last = false;
	int r = 0;

	while (!r && !last) {
		struct frame frame;

		/* How long it is quiet is the control connection's business. */
		r = channel_receive(receiver->channel, &frame, -1, &error);
		if (r == -ENODATA)
			error_set(&error, ECONNRESET, "the source closed a page connection");
		if (r)
			break;
		if (frame.type == FRAME_PAGES)
			r = receiver->receive->postcopy.arriving
				    ? receive_postcopy_pages(receiver, &frame, &error)
				    : receive_pages_plain(receiver, &frame, &error);
		else if (frame.type == FRAME_ROUND_END)
			r = end_round(receiver->receive, &frame, &last, &error);
		else
			r = error_set(&error, EPROTO, "frame of type %u on a page connection",
				      frame.type);
	}
	if (r)
		receive_note_error(receiver->receive, &error);
	return NULL;
}

int receive_pages_attach(struct migration_receive *receive, struct channel *channel,
			 uint32_t stream, struct error *err)
{
	struct channel_options options = {
		.kind = receive->options.kind,
		.zero_copy = ZERO_COPY_OFF,
		.stream = stream,
		.timeout_ms = receive->options.stall_ms,
		.cancel_fd = receive->stop,
		.policy = receive->options.policy,
	};
	struct page_receiver *receiver = &receive->receivers[receive->count];
	char name[16];
	int r;

	receiver->receive = receive;
	receiver->channel = channel_renew(channel, &options, err);
	if (!receiver->channel)
		return err->code;
	pthread_mutex_lock(&receive->lock);
	receive->progress.io = channel_io(receiver->channel);
	receive->progress.connection_count = ++receive->count;
	pthread_mutex_unlock(&receive->lock);
	snprintf(name, sizeof(name), "receive%u", stream);
	r = thread_start(&receiver->thread, options.policy, THREAD_MIGRATION, name, run_receiver,
			 receiver, err);
	receiver->started = !r;
	return r;
}

int receive_pages_error(struct migration_receive *receive, struct error *err)
{
	int code;

	pthread_mutex_lock(&receive->round_lock);
	code = receive->page_error.code;
	if (code)
		*err = receive->page_error;
	pthread_mutex_unlock(&receive->round_lock);
	return code;
}

static uint64_t received(const struct migration_receive *receive)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < receive->count; i++)
		bytes += channel_received(receive->receivers[i].channel);
	return bytes + receive_devices_received(receive);
}

static void wait_a_little(struct migration_receive *receive)
{
	struct timespec until = clock_in_us(WAIT_MS * 1000);

	pthread_cond_timedwait(&receive->round_over, &receive->round_lock, &until);
}

/* With round_lock. Handed over, RAM was complete from the beginning. */
static bool is_over(struct migration_receive *receive, uint64_t round)
{
	struct receive_postcopy *postcopy = &receive->postcopy;

	if (!postcopy->arriving)
		return round ? receive->round >= round
			     : (receive->complete || receive->capabilities & CAPABILITY_LOCAL) &&
				       receive_devices_complete(receive);
	if (receive->round == round && !receive->ended && !postcopy->plain)
		postcopy->switched = true;
	return postcopy->switched;
}

/* The source waits for us to answer: we are there, and it has nothing to say. */
static int look_at_control(struct migration_receive *receive, uint64_t *pinged_ms,
			   struct error *err)
{
	struct pollfd p = { .fd = channel_fd(receive->control), .events = POLLIN };
	struct frame frame = { .type = FRAME_PING };
	int r = receive_ping(receive, pinged_ms, err);

	if (!r && poll(&p, 1, 0) > 0)
		r = receive_next(receive, &frame, err);
	return r ? r : control_check(&frame, "source", FRAME_PING, err);
}

int receive_pages_wait(struct migration_receive *receive, uint64_t round, struct error *err)
{
	uint64_t seen = received(receive), since = clock_ms(), pinged_ms = since;
	bool asked = round && !receive->postcopy.arriving, over;
	int r = 0;

	while (!r) {
		pthread_mutex_lock(&receive->round_lock);
		over = is_over(receive, round);
		if (!over && !receive->page_error.code) {
			wait_a_little(receive);
			over = is_over(receive, round);
		}
		pthread_mutex_unlock(&receive->round_lock);
		if (over)
			return 0;
		/* The source may have said why (name_cause()). */
		if (receive_pages_error(receive, err) || receive_cancelled(receive))
			r = error_set(err, ECANCELED, "cancelled");
		if (!r && asked)
			r = look_at_control(receive, &pinged_ms, err);
		if (received(receive) != seen) {
			seen = received(receive);
			since = clock_ms();
		}
		if (!r && clock_ms() - since > 3 * (uint64_t)receive->options.stall_ms)
			r = error_set(
				err, ETIMEDOUT,
				asked ? "the source sent ROUND_SENT, but the round is not complete"
				: round ? "the source sent MISSING, but the rounds before are "
					  "not complete"
					: "the source sent STATE, but RAM or a device's state "
					  "is not complete");
	}
	return r;
}

void receive_pages_stop(struct migration_receive *receive)
{
	pthread_mutex_lock(&receive->round_lock);
	receive->quit = true;
	pthread_cond_broadcast(&receive->round_over);
	pthread_mutex_unlock(&receive->round_lock);
	for (unsigned int i = 0; i < receive->count; i++) {
		struct page_receiver *receiver = &receive->receivers[i];

		if (receiver->started)
			pthread_join(receiver->thread, NULL);
		receiver->started = false;
	}
}
