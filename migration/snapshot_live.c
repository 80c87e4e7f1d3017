/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/snapshot_live.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"

#define EVENTS 16
#define WAIT_NS 5000000
#define RUN_MAX ((uint64_t)64) /* units */

static bool find_unit(const struct snapshot_live *live, const uint8_t *address, uint64_t *unit)
{
	const struct snapshot_layout *layout = live->units->layout;

	for (unsigned int i = 0; i < layout->count; i++) {
		uint64_t offset = (uint64_t)(address - live->units->regions[i].hva);

		if (offset >= layout->regions[i].size)
			continue;
		*unit = layout->regions[i].first_unit + offset / layout->unit;
		return true;
	}
	return false;
}

void snapshot_live_release(struct snapshot_live *live, uint64_t first, uint64_t count)
{
	const struct snapshot_layout *layout = live->units->layout;

	for (uint64_t end = first + count, part; first < end; first += part) {
		struct snapshot_place place = snapshot_place(layout, first);
		const struct snapshot_region *region = &layout->regions[place.region];

		part = MIN(end, region->first_unit + region->units) - first;
		userfault_unprotect(&live->uf, unit_hva(live->units, &place),
				    MIN(part * layout->unit, region->size - place.offset));
	}
}

/* A buffer, or NULL: there will be none. Locked. */
static uint8_t *take_buffer(struct snapshot_live *live)
{
	while (!live->free_count && live->mode == LIVE_SAVE)
		pthread_cond_wait(&live->changed, &live->lock);
	return live->mode == LIVE_SAVE ? live->free[--live->free_count] : NULL;
}

static void put_buffer(struct snapshot_live *live, uint8_t *data)
{
	live->free[live->free_count++] = data;
	pthread_cond_broadcast(&live->changed);
}

static void enqueue(struct snapshot_live *live, uint64_t unit, uint8_t *data)
{
	live->queue[(live->head + live->queued++) % LIVE_POOL_MAX] =
		(struct live_copy){ .unit = unit, .data = data };
	pthread_cond_broadcast(&live->changed);
}

/* Copies the unit out, if nobody has it yet. Locked; the lock is given up for the copying. */
static void save_unit(struct snapshot_live *live, uint64_t unit)
{
	struct snapshot_place place = snapshot_place(live->units->layout, unit);
	uint8_t *data = take_buffer(live);

	if (!data)
		return;
	if (!unit_take(live->units, unit, UNIT_COPYING)) {
		put_buffer(live, data);
		return;
	}
	pthread_mutex_unlock(&live->lock);
	snapshot_unit_copy(live->units, &place, data);
	atomic_store(&live->units->states[unit], UNIT_SAVED);
	pthread_mutex_lock(&live->lock);
	enqueue(live, unit, data);
}

static void serve(struct snapshot_live *live, const struct userfault_event *event)
{
	struct snapshot_place place;
	uint64_t unit;

	if (!find_unit(live, event->address, &unit))
		return;
	place = snapshot_place(live->units->layout, unit);
	pthread_mutex_lock(&live->lock);
	if (live->mode == LIVE_RECORD)
		dirty_bitmap_set(&live->written, unit, 1);
	/* What is a hole has nothing to be saved; whoever writes it finds that out, too. */
	if (live->mode == LIVE_SAVE && atomic_load(&live->units->states[unit]) == UNIT_PENDING &&
	    snapshot_unit_wants(live->units, &place))
		save_unit(live, unit);
	/* In record, under the lock: whoever protects the unit again shall come after. A unit
	 * that a worker is writing is released when it is written. */
	if (atomic_load(&live->units->states[unit]) != UNIT_WRITING)
		snapshot_live_release(live, unit, 1);
	pthread_mutex_unlock(&live->lock);
	if (live->progress)
		snapshot_count(&live->progress->faults, 1);
}

static void *run(void *opaque)
{
	struct snapshot_live *live = opaque;
	struct userfault_event events[EVENTS];
	struct pollfd fds[] = {
		{ .fd = live->uf.fd, .events = POLLIN },
		{ .fd = live->stop, .events = POLLIN },
	};

	for (;;) {
		int n = userfault_read(&live->uf, events, EVENTS);

		for (int i = 0; i < n; i++)
			serve(live, &events[i]);
		if (n)
			continue;
		poll(fds, ARRAY_SIZE(fds), -1);
		if (fds[1].revents)
			return NULL;
	}
}

static int protect_units(struct snapshot_live *live, uint64_t first, uint64_t count)
{
	struct snapshot_place a = snapshot_place(live->units->layout, first);
	struct snapshot_place b = snapshot_place(live->units->layout, first + count - 1);
	int r = userfault_protect(&live->uf, unit_hva(live->units, &a),
				  b.offset + b.len - a.offset);

	if (!r)
		snapshot_units_scan(live->units, first, count);
	return r;
}

/* Does a differential snapshot hold any page of this unit? */
static bool holds(const struct snapshot_region *region, uint64_t unit, uint32_t size)
{
	uint64_t words = size / GUEST_PAGE_SIZE / 64, first = (unit - region->first_unit) * words;
	uint64_t end = (region->held.pages + 63) / 64;

	for (uint64_t word = first; word < MIN(first + words, end); word++)
		if (region->held.words[word])
			return true;
	return false;
}

static int protect_region(struct snapshot_live *live, unsigned int index)
{
	const struct snapshot_layout *layout = live->units->layout;
	const struct snapshot_region *region = &layout->regions[index];
	uint64_t end = region->first_unit + region->units;
	int r = 0;

	if (!region->held.words)
		return protect_units(live, region->first_unit, region->units);
	for (uint64_t unit = region->first_unit, next; unit < end && !r; unit = next) {
		for (next = unit; next < end && holds(region, next, layout->unit); next++)
			;
		if (next > unit)
			r = protect_units(live, unit, next - unit);
		else
			next++;
	}
	return r;
}

/* The first run of written units at or after *first, within one region: protected again.
 * Locked. Returns how many, 0 at the end, or -errno. */
static int64_t protect_next(struct snapshot_live *live, uint64_t *first)
{
	const struct snapshot_region *region;
	uint64_t count;
	int r;

	if (!dirty_bitmap_next_run(&live->written, first, &count))
		return 0;
	region = &live->units->layout->regions[snapshot_place(live->units->layout, *first).region];
	count = MIN(MIN(count, RUN_MAX), region->first_unit + region->units - *first);
	dirty_bitmap_clear(&live->written, *first, count);
	r = protect_units(live, *first, count);
	*first += count;
	return r ? r : (int64_t)count;
}

int snapshot_live_again(struct snapshot_live *live, uint64_t *units, struct error *err)
{
	uint64_t first = 0;
	int64_t n;

	*units = 0;
	do {
		/* One run at a time: who faults meanwhile waits no longer than for that. */
		pthread_mutex_lock(&live->lock);
		n = protect_next(live, &first);
		pthread_mutex_unlock(&live->lock);
		*units += n > 0 ? (uint64_t)n : 0;
	} while (n > 0);
	return n ? error_set_errno(err, (int)n, "write-protect RAM") : 0;
}

void snapshot_live_note(void *opaque, unsigned int region, const struct dirty_bitmap *pages)
{
	struct snapshot_live *live = opaque;
	const struct snapshot_layout *layout = live->units->layout;
	uint64_t per_unit = layout->unit / GUEST_PAGE_SIZE, first = 0, count;

	for (; dirty_bitmap_next_run(pages, &first, &count); first += count) {
		uint64_t unit = first / per_unit, last = (first + count - 1) / per_unit;

		dirty_bitmap_set(&live->written, layout->regions[region].first_unit + unit,
				 last - unit + 1);
	}
}

static int make_pool(struct snapshot_live *live, struct error *err)
{
	uint32_t unit = live->units->layout->unit;

	live->pool = mmap(NULL, LIVE_POOL_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (live->pool == MAP_FAILED)
		return error_set_errno(err, errno, "allocate buffers for pages");
	for (unsigned int i = 0; i < LIVE_POOL_BYTES / unit; i++)
		live->free[live->free_count++] = live->pool + (size_t)i * unit;
	return dirty_bitmap_init(&live->written, live->units->layout->units, err);
}

static int register_all(struct snapshot_live *live, const struct guest_memory *memory,
			struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < live->units->layout->count && !r; i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		if (region->page_size > live->units->layout->unit)
			return error_set(err, EOPNOTSUPP,
					 "RAM of pages of %u MiB cannot be copied one by one",
					 (unsigned int)(region->page_size / MIB));
		r = userfault_register(&live->uf, region->hva, region->size,
				       USERFAULT_WRITE_PROTECT, err);
		live->registered[i] = !r;
	}
	return r;
}

int snapshot_live_start(struct snapshot_live *live, struct snapshot_units *units,
			const struct guest_memory *memory, const struct snapshot_options *options,
			struct snapshot_progress *progress, struct error *err)
{
	int r;

	memset(live, 0, sizeof(*live));
	live->units = units;
	live->progress = progress;
	live->pool = MAP_FAILED;
	live->uf.fd = live->stop = -1;
	pthread_mutex_init(&live->lock, NULL);
	pthread_cond_init(&live->changed, NULL);
	r = userfault_open(&live->uf, USERFAULT_WRITE_PROTECT, options->userfaultfd_device,
			   options->policy, err);
	if (!r)
		r = make_pool(live, err);
	if (!r) {
		live->stop = eventfd_new();
		r = live->stop < 0 ? error_set_errno(err, live->stop, "eventfd") : 0;
	}
	if (!r)
		r = register_all(live, memory, err);
	if (!r) {
		r = thread_start(&live->thread, options->policy, THREAD_MIGRATION, "snapshot-wp",
				 run, live, err);
		live->started = !r;
	}
	for (unsigned int i = 0; i < units->layout->count && !r; i++) {
		r = protect_region(live, i);
		if (r)
			error_set_errno(err, r, "write-protect RAM");
	}
	return r;
}

int snapshot_live_save(struct snapshot_live *live, struct guest_memory *memory, struct error *err)
{
	uint64_t first = 0;
	int64_t n;

	live->holding = memory;
	guest_memory_hold_discards(memory);

	/* The thread may still have an event of a write that is long over: under one lock, it
	 * sees that in record mode, before, or after that in save mode. */
	pthread_mutex_lock(&live->lock);
	do
		n = protect_next(live, &first);
	while (n > 0);
	live->mode = LIVE_SAVE;
	pthread_mutex_unlock(&live->lock);
	return n ? error_set_errno(err, (int)n, "write-protect RAM") : 0;
}

bool snapshot_live_next(struct snapshot_live *live, struct live_copy *copy)
{
	bool found;

	pthread_mutex_lock(&live->lock);
	found = live->queued;
	if (found) {
		*copy = live->queue[live->head];
		live->head = (live->head + 1) % LIVE_POOL_MAX;
		live->queued--;
	}
	pthread_mutex_unlock(&live->lock);
	return found;
}

void snapshot_live_put(struct snapshot_live *live, uint8_t *data)
{
	pthread_mutex_lock(&live->lock);
	put_buffer(live, data);
	pthread_mutex_unlock(&live->lock);
}

void snapshot_live_wait(struct snapshot_live *live)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += WAIT_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&live->lock);
	if (!live->queued)
		pthread_cond_timedwait(&live->changed, &live->lock, &until);
	pthread_mutex_unlock(&live->lock);
}

void snapshot_live_end(struct snapshot_live *live)
{
	const struct snapshot_layout *layout = live->units->layout;

	pthread_mutex_lock(&live->lock);
	live->mode = LIVE_ABANDON;
	pthread_cond_broadcast(&live->changed);
	pthread_mutex_unlock(&live->lock);
	if (live->holding)
		guest_memory_release_discards(live->holding);
	/* The thread serves until all is let through: a write does not wait longer than it must. */
	for (unsigned int i = 0; i < layout->count; i++)
		if (live->registered[i])
			userfault_unregister(&live->uf, live->units->regions[i].hva,
					     layout->regions[i].size);
	if (live->started) {
		eventfd_signal(live->stop);
		pthread_join(live->thread, NULL);
	}
	userfault_close(&live->uf);
	if (live->stop >= 0)
		close(live->stop);
	if (live->pool != MAP_FAILED)
		munmap(live->pool, LIVE_POOL_BYTES);
	dirty_bitmap_destroy(&live->written);
	pthread_cond_destroy(&live->changed);
	pthread_mutex_destroy(&live->lock);
}
