/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads that send pages, one per connection. In a round each takes the next batch of
 * dirty pages until there are none, so that a slow connection holds up no other; the
 * destination keeps rounds apart (protocol.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/send_private.h"

/* 2 MiB: far more than a header costs, far less than a socket stalls, and what the
 * destination can have as one huge page. */
#define BATCH_PAGES 512U
/* Runs of so many pages are looked up in the memfd for holes also after the first round. */
#define HOLE_PAGES 16U

_Static_assert(BATCH_PAGES <= PAGE_RUNS_MAX, "each page may be a run");
_Static_assert(BATCH_PAGES *GUEST_PAGE_SIZE <= FRAME_PAGES_MAX, "a batch fits a frame");

struct batch {
	const struct guest_memory_region *region;
	unsigned int count; /* runs of [first, first + pages) */
	uint64_t first[BATCH_PAGES], pages[BATCH_PAGES];
	bool hole;  /* the one run there is has no pages in the memfd */
	bool whole; /* it is one unit, which cannot be sent in parts */
};

/*
 * How many pages of the run are in one extent of the memfd, and whether that is a hole.
 * Where data ends is remembered for the round: SEEK_HOLE looks at every page up to there.
 * What becomes a hole meanwhile is read as zeros. hugetlbfs knows no holes and calls all
 * of it data; private RAM (memfd -1) has none, either. In postcopy, where pages are not
 * taken in order, only holes are looked for, not their end.
 */
static uint64_t extent(struct migration_send *send, const struct guest_memory_region *region,
		       uint64_t first, uint64_t pages, bool *hole)
{
	uint64_t start = region->offset + first * GUEST_PAGE_SIZE;
	uint64_t end = start + pages * GUEST_PAGE_SIZE;
	off_t at;

	*hole = false;
	if (send->following || start >= send->data_end) {
		at = lseek(region->memfd, (off_t)start, SEEK_DATA);
		*hole = at < 0 ? errno == ENXIO : (uint64_t)at > start;
		if (*hole)
			return at < 0 ? pages : (MIN((uint64_t)at, end) - start) / GUEST_PAGE_SIZE;
		if (send->following)
			return pages;
		at = lseek(region->memfd, (off_t)start, SEEK_HOLE);
		send->data_end = at < 0 ? UINT64_MAX : align_up((uint64_t)at, GUEST_PAGE_SIZE);
	}
	if (send->data_end <= start)
		return pages;
	return (MIN(send->data_end, end) - start) / GUEST_PAGE_SIZE;
}

/* Pages up to where the next huge page may begin, so that long runs are cut there. */
static uint64_t to_huge_page(const struct guest_memory_region *region, uint64_t first)
{
	return BATCH_PAGES - (region->gpa / GUEST_PAGE_SIZE + first) % BATCH_PAGES;
}

/* Adds the next run at *page: false where the batch is full, or the region has no more. */
static bool take_run(struct migration_send *send, struct dirty_bitmap *bitmap, struct batch *batch,
		     unsigned int *room)
{
	uint64_t first = send->page, pages;
	bool hole = false;

	if (!dirty_bitmap_next_run(bitmap, &first, &pages))
		return false;
	if (batch->whole) {
		if (batch->count)
			return false;
		pages = MIN(send->unit, bitmap->pages - first);
		*room = (unsigned int)pages;
	} else if (send->round == 1 || pages >= HOLE_PAGES)
		pages = extent(send, batch->region, first, pages, &hole);
	if (hole && batch->count)
		return false; /* a batch of its own: it has no limit */
	if (!hole)
		pages = MIN(pages, batch->count ? *room : to_huge_page(batch->region, first));
	/* Cleared before they are read: what is written from now on is seen again. */
	dirty_bitmap_clear(bitmap, first, pages);
	batch->first[batch->count] = first;
	batch->pages[batch->count++] = pages;
	batch->hole = hole;
	send->page = first + pages;
	atomic_fetch_sub_explicit(&send->remaining, pages, memory_order_relaxed);
	*room -= hole ? *room : (unsigned int)pages;
	return *room;
}

/* With round_lock. */
static void take_from_here(struct migration_send *send, struct batch *batch)
{
	unsigned int room = BATCH_PAGES;

	while (!batch->count && send->region < guest_memory_region_count(send->memory)) {
		struct dirty_bitmap *bitmap = dirty_tracker_bitmap(send->tracker, send->region);

		batch->region = guest_memory_region(send->memory, send->region);
		while (take_run(send, bitmap, batch, &room))
			;
		if (!batch->count) {
			send->region++;
			send->page = send->data_end = 0;
		}
	}
}

static bool take_batch(struct migration_send *send, struct batch *batch)
{
	batch->count = 0;
	batch->hole = false;
	pthread_mutex_lock(&send->round_lock);
	batch->whole = send->following && send->unit > 1;
	if (!send->cut_round)
		take_from_here(send, batch);
	/* Postcopy goes on after what was asked for last: there is more before that. */
	if (!batch->count && send->following && atomic_load(&send->remaining)) {
		send->region = 0;
		take_from_here(send, batch);
	}
	pthread_mutex_unlock(&send->round_lock);
	return batch->count;
}

/* Pages ahead of the one that is looked at: its first line is on its way then. */
#define LOOK_AHEAD 8U

static bool is_zero(const uint8_t *page)
{
	/* What is not zero mostly is not from its first word on. */
	if (*(const volatile uint64_t *)page)
		return false;
	for (unsigned int at = 0; at < GUEST_PAGE_SIZE; at += 256) {
		uint64_t any = 0;

		for (unsigned int i = 0; i < 256; i += 8)
			any |= *(const volatile uint64_t *)(page + at + i);
		if (any)
			return false;
	}
	return true;
}

/* The frame that is being put together. */
struct table {
	uint8_t meta[BATCH_PAGES * PAGE_RUN_SIZE];
	struct page_run runs[BATCH_PAGES];
	unsigned int count, iov_count;
	struct iovec iov[BATCH_PAGES];
	uint64_t pages, zero_pages;
};

static void add_run(struct table *table, const struct guest_memory_region *region, uint64_t page,
		    uint64_t pages, bool zero)
{
	uint64_t gpa = region->gpa + page * GUEST_PAGE_SIZE, len = pages * GUEST_PAGE_SIZE;
	struct page_run *last = table->count ? &table->runs[table->count - 1] : NULL;

	*(zero ? &table->zero_pages : &table->pages) += pages;
	if (last && last->zero == zero && last->gpa + last->len == gpa) {
		last->len += len;
		if (!zero)
			table->iov[table->iov_count - 1].iov_len += len;
		return;
	}
	table->runs[table->count++] = (struct page_run){ .gpa = gpa, .len = len, .zero = zero };
	if (!zero)
		table->iov[table->iov_count++] = (struct iovec){
			.iov_base = region->hva + page * GUEST_PAGE_SIZE,
			.iov_len = len,
		};
}

static void add_pages(struct table *table, const struct guest_memory_region *region, uint64_t first,
		      uint64_t pages)
{
	for (uint64_t page = first; page < first + pages; page++) {
		const uint8_t *data = region->hva + page * GUEST_PAGE_SIZE;

		__builtin_prefetch(data + LOOK_AHEAD * GUEST_PAGE_SIZE);
		add_run(table, region, page, 1, is_zero(data));
	}
}

/* Data that only makes sense together. */
static void add_unit(struct table *table, const struct guest_memory_region *region, uint64_t first,
		     uint64_t pages)
{
	bool zero = true;

	for (uint64_t page = first; zero && page < first + pages; page++)
		zero = is_zero(region->hva + page * GUEST_PAGE_SIZE);
	add_run(table, region, first, pages, zero);
}

static int send_batch(struct migration_send *send, struct channel *channel,
		      const struct batch *batch, struct error *err)
{
	const struct guest_memory_region *region = batch->region;
	struct table table;
	int r;

	table.count = table.iov_count = 0;
	table.pages = table.zero_pages = 0;
	for (unsigned int i = 0; i < batch->count; i++) {
		if (batch->hole)
			add_run(&table, region, batch->first[i], batch->pages[i], true);
		else if (batch->whole)
			add_unit(&table, region, batch->first[i], batch->pages[i]);
		else
			add_pages(&table, region, batch->first[i], batch->pages[i]);
	}
	for (unsigned int i = 0; i < table.count; i++)
		page_run_encode(&table.runs[i], table.meta + i * PAGE_RUN_SIZE);
	r = channel_send(channel, &(struct frame){ .type = FRAME_PAGES }, table.meta,
			 table.count * PAGE_RUN_SIZE, table.iov, table.iov_count, err);
	atomic_fetch_add_explicit(&send->pages, table.pages, memory_order_relaxed);
	atomic_fetch_add_explicit(&send->zero_pages, table.zero_pages, memory_order_relaxed);
	return r;
}

int send_pages_run(struct migration_send *send, struct channel *channel,
		   const struct guest_memory_region *region, uint64_t page, uint64_t pages,
		   struct error *err)
{
	struct batch batch;

	batch.region = region;
	batch.count = 1;
	batch.first[0] = page;
	batch.pages[0] = pages;
	batch.hole = false;
	batch.whole = send->unit > 1;
	return send_batch(send, channel, &batch, err);
}

static int send_own_round(struct page_sender *sender, unsigned int round, bool last, bool following,
			  struct error *err)
{
	struct frame end = {
		.type = FRAME_ROUND_END,
		.flags = last ? FRAME_LAST : 0,
		.offset = round,
	};
	struct batch batch;
	int r = 0;

	while (!r && take_batch(sender->send, &batch))
		r = send_batch(sender->send, sender->channel, &batch, err);
	if (!r && !following)
		r = channel_send(sender->channel, &end, NULL, 0, NULL, 0, err);
	return r ? r : channel_flush(sender->channel, err);
}

void send_note_error(struct migration_send *send, const struct error *error)
{
	pthread_mutex_lock(&send->round_lock);
	if (!send->page_error.code) {
		send->page_error = *error;
		eventfd_signal(send->stop);
	}
	pthread_mutex_unlock(&send->round_lock);
}

static void *run_sender(void *opaque)
{
	struct page_sender *sender = opaque;
	struct migration_send *send = sender->send;
	struct error error = ERROR_INIT;
	unsigned int round = sender->round;
	int r;

	r = channel_send(sender->channel, &(struct frame){ .type = FRAME_ATTACH }, send->session,
			 SESSION_SIZE, NULL, 0, &error);
	if (r)
		send_note_error(send, &error);
	pthread_mutex_lock(&send->round_lock);
	for (;;) {
		while (!send->quit && send->round == round)
			pthread_cond_wait(&send->round_begins, &send->round_lock);
		if (send->quit)
			break;
		round = send->round;
		bool last = send->last_round, following = send->following;

		pthread_mutex_unlock(&send->round_lock);
		if (!r) {
			r = send_own_round(sender, round, last, following, &error);
			if (r)
				send_note_error(send, &error);
		}
		pthread_mutex_lock(&send->round_lock);
		if (!--send->busy)
			pthread_cond_signal(&send->round_over);
	}
	pthread_mutex_unlock(&send->round_lock);
	return NULL;
}

static int start_sender(struct migration_send *send, unsigned int index, struct error *err)
{
	const struct send_options *options = &send->options;
	struct channel_options channel = {
		.kind = options->kind,
		.zero_copy = options->zero_copy,
		.checksum = send->capabilities & CAPABILITY_CHECKSUM,
		.stream = index + 1,
		.timeout_ms = options->stall_ms,
		.cancel_fd = send->stop,
		.bandwidth = &send->bandwidth,
		.tls = options->tls,
		.policy = options->policy,
	};
	struct page_sender *sender = &send->senders[index];
	struct channel *made;
	char name[16];
	int r = options->dialer.connect(options->dialer.opaque, options->stall_ms, send->cancel,
					err);

	if (r < 0)
		return r;
	sender->send = send;
	sender->index = index;
	sender->round = send->round;
	made = channel_new(r, &channel, err);
	/* Whoever asks for progress counts what it sent. */
	pthread_mutex_lock(&send->lock);
	sender->channel = made;
	pthread_mutex_unlock(&send->lock);
	if (!made)
		return err && err->code ? err->code : -EIO;
	snprintf(name, sizeof(name), "send%u", index + 1);
	r = thread_start(&sender->thread, options->policy, THREAD_MIGRATION, name, run_sender,
			 sender, err);
	sender->started = !r;
	return r;
}

int send_pages_start(struct migration_send *send, struct error *err)
{
	unsigned int count = send->options.connections;
	struct error own = ERROR_INIT;
	struct page_sender *senders = calloc(count, sizeof(*senders));

	pthread_mutex_lock(&send->lock);
	send->senders = senders;
	pthread_mutex_unlock(&send->lock);
	if (!senders)
		return error_set_errno(err, ENOMEM, "send pages");
	for (unsigned int i = 0; i < count; i++) {
		int r = start_sender(send, i, &own);

		if (r) {
			if (err)
				*err = own;
			return error_prefix(err, "migration connection %u of %u", i + 1, count);
		}
	}
	pthread_mutex_lock(&send->lock);
	send->progress.connection_count = count;
	send->progress.io = channel_io(send->senders[0].channel);
	send->progress.zero_copy = channel_zero_copy(send->senders[0].channel);
	pthread_mutex_unlock(&send->lock);
	return 0;
}

void send_pages_stop(struct migration_send *send)
{
	if (!send->senders)
		return;
	pthread_mutex_lock(&send->round_lock);
	send->quit = true;
	pthread_cond_broadcast(&send->round_begins);
	pthread_mutex_unlock(&send->round_lock);
	for (unsigned int i = 0; i < send->options.connections; i++) {
		struct page_sender *sender = &send->senders[i];

		if (sender->started)
			pthread_join(sender->thread, NULL);
		sender->started = false;
	}
}

void send_pages_hang_up(struct migration_send *send)
{
	struct page_sender *senders;

	eventfd_signal(send->stop);
	send_pages_stop(send);
	send_postcopy_hang_up(send);
	pthread_mutex_lock(&send->lock);
	for (unsigned int i = 0; send->senders && i < send->options.connections; i++)
		if (send->senders[i].channel)
			send->closed_bytes += channel_sent(send->senders[i].channel);
	senders = take_ptr(send->senders);
	if (send->progress.phase != TRANSFER_OVER)
		send->progress.connection_count = 0;
	pthread_mutex_unlock(&send->lock);
	for (unsigned int i = 0; senders && i < send->options.connections; i++)
		channel_free(senders[i].channel);
	free(senders);
}

void send_pages_begin_round(struct migration_send *send, bool last)
{
	pthread_mutex_lock(&send->round_lock);
	atomic_store(&send->remaining, dirty_tracker_pages(send->tracker));
	send->round++;
	send->cut_round = false;
	send->last_round = last;
	send->busy = send->options.connections;
	send->region = 0;
	send->page = send->data_end = 0;
	pthread_cond_broadcast(&send->round_begins);
	pthread_mutex_unlock(&send->round_lock);
}

bool send_pages_wait(struct migration_send *send, unsigned int ms)
{
	struct timespec until = clock_in_us((uint64_t)ms * 1000);
	bool over;

	pthread_mutex_lock(&send->round_lock);
	while (send->busy &&
	       pthread_cond_timedwait(&send->round_over, &send->round_lock, &until) != ETIMEDOUT)
		;
	over = !send->busy;
	pthread_mutex_unlock(&send->round_lock);
	return over;
}

int send_pages_error(struct migration_send *send, struct error *err)
{
	int code;

	pthread_mutex_lock(&send->round_lock);
	code = send->page_error.code;
	if (code && err)
		*err = send->page_error;
	pthread_mutex_unlock(&send->round_lock);
	return code;
}
