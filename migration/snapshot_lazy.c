/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lazy restore. RAM is registered for missing pages; two threads fill it unit by unit in
 * order, a third what is touched first. A unit belongs to who takes it from UNIT_EMPTY;
 * whoever touches it meanwhile waits until it is filled, and is woken then.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "memory/userfault.h"
#include "migration/snapshot_source.h"
#include "migration/snapshot_units.h"

#define FILLERS 2 /* one reads while another copies */
#define EVENTS 16
/* What is filled is forgotten in pieces of this: holes in it cost no fault any more. */
#define SEGMENT (128 * MIB)
/* A hole that is touched becomes this much zeros, not a fault for each page. */
#define ZEROS (64 * KIB)

enum lazy_state { UNIT_EMPTY, UNIT_FILLING, UNIT_FILLED, UNIT_LOST };

/* Of one thread. */
struct filler {
	struct snapshot_lazy *lazy;
	struct snapshot_source source;
	uint8_t *buffer; /* a unit */
	pthread_t thread;
	bool started;
};

struct snapshot_lazy {
	const struct snapshot *snapshot;
	const struct snapshot_layout *layout;
	struct guest_memory *memory;
	struct snapshot_progress *progress;
	struct userfault uf;
	bool registered[SNAPSHOT_REGIONS_MAX];
	int stop; /* eventfd */
	struct filler fillers[FILLERS], server;
	_Atomic unsigned char *states; /* enum lazy_state, one per unit */
	_Atomic uint32_t *left;	       /* units not yet filled, per segment */
	uint64_t first_segment[SNAPSHOT_REGIONS_MAX];
	_Atomic uint64_t next, remaining; /* units */
	atomic_bool stopping;

	void (*done)(void *opaque, const struct error *err);
	void *opaque;
	pthread_mutex_t lock; /* of the rest */
	pthread_cond_t changed;
	bool filling; /* also what nobody has asked for */
	bool finished, failed, holding;
	struct error error;
};

static uint64_t segment_units(const struct snapshot_lazy *lazy)
{
	return SEGMENT / lazy->layout->unit;
}

static void fail(struct snapshot_lazy *lazy, const struct error *err)
{
	bool first;

	pthread_mutex_lock(&lazy->lock);
	first = !lazy->failed;
	if (first)
		lazy->error = *err;
	lazy->failed = true;
	pthread_cond_broadcast(&lazy->changed);
	pthread_mutex_unlock(&lazy->lock);
	if (first && lazy->done)
		lazy->done(lazy->opaque, err);
}

static int read_run(struct filler *f, unsigned int region, const struct snapshot_run *run,
		    uint8_t *to, bool urgent, struct error *err)
{
	const struct snapshot *s = f->lazy->snapshot;
	const uint8_t *data;
	int r;

	if (run->compressed) {
		data = snapshot_source_data(&f->source, region, run, err);
		if (!data)
			return -EINVAL;
		memcpy(to, data, run->len);
		return 0;
	}
	/* What is touched may have been touched by a clone, too: through the page cache. */
	r = fd_pread_full(urgent ? s->fds[run->image] : s->direct[run->image], to, run->len,
			  (off_t)run->file_offset);
	return r ? error_set_errno(err, r, "ram") : 0;
}

/* Puts pages in place, those of `page_size`: all of one where any byte of it was read. */
static int place_run(struct filler *f, const struct guest_memory_region *region,
		     const struct snapshot_place *place, uint64_t start, uint64_t end,
		     struct error *err)
{
	uint64_t from = align_down(start, region->page_size);
	uint64_t to = align_up(end, region->page_size);
	int r = userfault_copy(&f->lazy->uf, region->hva + place->offset + from, f->buffer + from,
			       to - from, region->page_size);

	return r ? error_set_errno(err, r, "put pages in place") : 0;
}

static int fill_unit(struct filler *f, const struct snapshot_place *place, bool urgent,
		     struct error *err)
{
	const struct guest_memory_region *region =
		guest_memory_region(f->lazy->memory, place->region);
	uint64_t at = place->offset, end = place->offset + place->len, start = 0, stop = 0;
	bool small = region->page_size == GUEST_PAGE_SIZE;
	struct snapshot_run run;
	int r;

	/* A huge page is put in place as a whole, holes in it included. */
	if (!small)
		memset(f->buffer, 0, place->len);
	while (snapshot_source_next(&f->source, place->region, at, end, &run)) {
		uint64_t offset = run.offset - place->offset;

		r = read_run(f, place->region, &run, f->buffer + offset, urgent, err);
		/* Runs next to each other are one. */
		if (!r && small && stop > start && offset != stop)
			r = place_run(f, region, place, start, stop, err);
		if (r)
			return r;
		if (stop == start || (small && offset != stop))
			start = offset;
		stop = offset + run.len;
		at = run.offset + run.len;
		if (f->lazy->progress)
			snapshot_count(&f->lazy->progress->transferred, run.len);
	}
	return stop > start ? place_run(f, region, place, start, stop, err) : 0;
}

static void forget_segment(struct snapshot_lazy *lazy, const struct snapshot_place *place)
{
	uint64_t start = align_down(place->offset, SEGMENT);
	uint64_t segment = lazy->first_segment[place->region] + start / SEGMENT;
	const struct guest_memory_region *region = guest_memory_region(lazy->memory, place->region);

	if (atomic_fetch_sub(&lazy->left[segment], 1) == 1)
		userfault_unregister(&lazy->uf, region->hva + start,
				     MIN(SEGMENT, region->size - start));
	if (atomic_fetch_sub(&lazy->remaining, 1) == 1)
		eventfd_signal(lazy->stop);
}

/* A unit that the caller has taken. */
static void finish_unit(struct filler *f, uint64_t unit, bool urgent)
{
	struct snapshot_lazy *lazy = f->lazy;
	struct snapshot_place place = snapshot_place(lazy->layout, unit);
	uint8_t *hva = guest_memory_region(lazy->memory, place.region)->hva + place.offset;
	struct error err = ERROR_INIT;

	if (fill_unit(f, &place, urgent, &err)) {
		error_prefix(&err, "restore RAM lazily");
		atomic_store(&lazy->states[unit], UNIT_LOST);
		userfault_poison(&lazy->uf, hva, place.len);
		fail(lazy, &err);
		return;
	}
	atomic_store(&lazy->states[unit], UNIT_FILLED);
	/* Who waits for a page that is a hole is not woken by a copy. */
	userfault_wake(&lazy->uf, hva, place.len);
	if (lazy->progress)
		snapshot_count(&lazy->progress->done, place.len);
	forget_segment(lazy, &place);
}

static bool take_unit(struct snapshot_lazy *lazy, uint64_t unit)
{
	unsigned char empty = UNIT_EMPTY;

	return atomic_compare_exchange_strong(&lazy->states[unit], &empty, UNIT_FILLING);
}

static void await_turn(struct snapshot_lazy *lazy)
{
	pthread_mutex_lock(&lazy->lock);
	while (!lazy->filling && !atomic_load(&lazy->stopping))
		pthread_cond_wait(&lazy->changed, &lazy->lock);
	pthread_mutex_unlock(&lazy->lock);
}

static void *fill(void *opaque)
{
	struct filler *f = opaque;
	struct snapshot_lazy *lazy = f->lazy;
	uint64_t unit;

	await_turn(lazy);
	while (!atomic_load(&lazy->stopping) &&
	       (unit = atomic_fetch_add(&lazy->next, 1)) < lazy->layout->units)
		if (take_unit(lazy, unit))
			finish_unit(f, unit, false);
	return NULL;
}

/* Nothing was saved for this page, or it was given back since: zeros. */
static void serve_zeros(struct snapshot_lazy *lazy, const struct snapshot_place *place,
			uint64_t offset)
{
	const struct guest_memory_region *region = guest_memory_region(lazy->memory, place->region);
	uint64_t size = MAX(ZEROS, (uint64_t)region->page_size);
	uint64_t start = align_down(offset, size);

	/* -ENOENT: it was forgotten meanwhile, and with that woken. */
	userfault_zero(&lazy->uf, region->hva + start, MIN(size, region->size - start),
		       region->page_size);
	/* Where the page was there after all, nothing has woken who waits. */
	userfault_wake(&lazy->uf, region->hva + align_down(offset, region->page_size),
		       region->page_size);
}

static void serve(struct snapshot_lazy *lazy, const struct userfault_event *event)
{
	const struct guest_memory_region *region = NULL;
	struct snapshot_place place;
	uint64_t offset = 0, unit;
	unsigned int i;

	for (i = 0; i < lazy->layout->count; i++) {
		region = guest_memory_region(lazy->memory, i);
		offset = (uint64_t)(event->address - region->hva);
		if (offset < region->size)
			break;
	}
	if (i == lazy->layout->count)
		return;
	unit = lazy->layout->regions[i].first_unit + offset / lazy->layout->unit;
	place = snapshot_place(lazy->layout, unit);
	if (lazy->progress)
		snapshot_count(&lazy->progress->faults, 1);
	if (take_unit(lazy, unit))
		finish_unit(&lazy->server, unit, true);
	switch (atomic_load(&lazy->states[unit])) {
	case UNIT_FILLED: serve_zeros(lazy, &place, offset); break;
	case UNIT_LOST:
		userfault_poison(&lazy->uf, region->hva + align_down(offset, region->page_size),
				 region->page_size);
		break;
	default: /* its filler wakes */ break;
	}
}

static void finish(struct snapshot_lazy *lazy)
{
	bool failed;

	guest_memory_release_discards(lazy->memory);
	pthread_mutex_lock(&lazy->lock);
	lazy->holding = false;
	lazy->finished = true;
	failed = lazy->failed;
	pthread_cond_broadcast(&lazy->changed);
	pthread_mutex_unlock(&lazy->lock);
	if (lazy->progress && !failed)
		atomic_store(&lazy->progress->phase, SNAPSHOT_DONE);
	if (!failed && lazy->done)
		lazy->done(lazy->opaque, NULL);
}

static void *serve_all(void *opaque)
{
	struct filler *server = opaque;
	struct snapshot_lazy *lazy = server->lazy;
	struct userfault_event events[EVENTS];
	struct pollfd fds[] = {
		{ .fd = lazy->uf.fd, .events = POLLIN },
		{ .fd = lazy->stop, .events = POLLIN },
	};

	for (;;) {
		int n = userfault_read(&lazy->uf, events, EVENTS);

		for (int i = 0; i < n; i++)
			serve(lazy, &events[i]);
		if (atomic_load(&lazy->stopping))
			return NULL;
		/* All is filled, and forgotten: nobody waits any more. */
		if (!atomic_load(&lazy->remaining)) {
			finish(lazy);
			return NULL;
		}
		if (n <= 0)
			poll(fds, ARRAY_SIZE(fds), -1);
	}
}

static int start_filler(struct snapshot_lazy *lazy, struct filler *f, const char *name,
			void *(*fn)(void *arg), const struct thread_policy *policy,
			struct error *err)
{
	int r;

	f->lazy = lazy;
	r = snapshot_source_init(&f->source, lazy->snapshot, err);
	if (r)
		return r;
	f->buffer = aligned_alloc(SNAPSHOT_BLOCK, lazy->layout->unit);
	if (!f->buffer)
		return error_set_errno(err, ENOMEM, "buffer of a unit");
	r = thread_start(&f->thread, policy, THREAD_MIGRATION, name, fn, f, err);
	f->started = !r;
	return r;
}

static int make_states(struct snapshot_lazy *lazy, struct error *err)
{
	const struct snapshot_layout *layout = lazy->layout;
	uint64_t segments = 0, per = segment_units(lazy);

	for (unsigned int i = 0; i < layout->count; i++) {
		lazy->first_segment[i] = segments;
		segments += (layout->regions[i].units + per - 1) / per;
	}
	lazy->states = calloc(layout->units, sizeof(*lazy->states));
	lazy->left = calloc(segments, sizeof(*lazy->left));
	if (!lazy->states || !lazy->left)
		return error_set_errno(err, ENOMEM, "restore RAM lazily");
	for (unsigned int i = 0; i < layout->count; i++)
		for (uint64_t unit = 0; unit < layout->regions[i].units; unit += per)
			lazy->left[lazy->first_segment[i] + unit / per] =
				(uint32_t)MIN(per, layout->regions[i].units - unit);
	lazy->remaining = layout->units;
	return 0;
}

static int register_all(struct snapshot_lazy *lazy, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < lazy->layout->count && !r; i++) {
		const struct guest_memory_region *region = guest_memory_region(lazy->memory, i);

		if (region->page_size > lazy->layout->unit)
			return error_set(err, EOPNOTSUPP,
					 "pages of %u MiB cannot be filled one by one; restore the "
					 "snapshot eagerly",
					 (unsigned int)(region->page_size / MIB));
		r = userfault_register(&lazy->uf, region->hva, region->size, USERFAULT_MISSING,
				       err);
		lazy->registered[i] = !r;
	}
	return r;
}

static int start(struct snapshot_lazy *lazy, const struct snapshot_read_options *options,
		 struct error *err)
{
	int r = snapshot_layout_match(lazy->layout, lazy->memory, err);

	if (!r)
		r = make_states(lazy, err);
	if (!r)
		r = userfault_open(&lazy->uf, USERFAULT_MISSING, options->userfaultfd_device,
				   options->policy, err);
	if (!r) {
		lazy->stop = eventfd_new();
		r = lazy->stop < 0 ? error_set_errno(err, lazy->stop, "eventfd") : 0;
	}
	if (!r) {
		guest_memory_hold_discards(lazy->memory);
		lazy->holding = true;
	}
	if (!r)
		r = start_filler(lazy, &lazy->server, "restore-fault", serve_all, options->policy,
				 err);
	/* From here on who touches RAM waits for the thread above: also the one that starts
	 * the others. */
	if (!r)
		r = register_all(lazy, err);
	for (unsigned int i = 0; i < FILLERS && !r; i++)
		r = start_filler(lazy, &lazy->fillers[i], "restore-fill", fill, options->policy,
				 err);
	return r;
}

struct snapshot_lazy *snapshot_lazy_start(struct snapshot *snapshot, struct guest_memory *memory,
					  const struct snapshot_read_options *options,
					  struct snapshot_progress *progress,
					  void (*done)(void *opaque, const struct error *err),
					  void *opaque, struct error *err)
{
	struct snapshot_lazy *lazy = calloc(1, sizeof(*lazy));

	if (!lazy) {
		error_set_errno(err, ENOMEM, "restore RAM lazily");
		return NULL;
	}
	lazy->snapshot = snapshot;
	lazy->layout = &snapshot->images[0]->layout;
	lazy->memory = memory;
	lazy->progress = progress;
	lazy->done = done;
	lazy->opaque = opaque;
	lazy->uf.fd = lazy->stop = -1;
	pthread_mutex_init(&lazy->lock, NULL);
	pthread_cond_init(&lazy->changed, NULL);
	if (progress) {
		atomic_store(&progress->phase, SNAPSHOT_RAM);
		atomic_store(&progress->total, snapshot_ram_size(snapshot));
	}
	if (!start(lazy, options, err))
		return lazy;
	error_prefix(err, "restore RAM lazily");
	snapshot_lazy_free(lazy);
	return NULL;
}

void snapshot_lazy_fill(struct snapshot_lazy *lazy)
{
	pthread_mutex_lock(&lazy->lock);
	lazy->filling = true;
	pthread_cond_broadcast(&lazy->changed);
	pthread_mutex_unlock(&lazy->lock);
}

int snapshot_lazy_wait(struct snapshot_lazy *lazy, struct error *err)
{
	int r = 0;

	snapshot_lazy_fill(lazy);
	pthread_mutex_lock(&lazy->lock);
	while (!lazy->finished && !lazy->failed)
		pthread_cond_wait(&lazy->changed, &lazy->lock);
	if (lazy->failed) {
		if (err)
			*err = lazy->error;
		r = lazy->error.code;
	}
	pthread_mutex_unlock(&lazy->lock);
	return r;
}

static void end_filler(struct filler *f)
{
	if (f->started)
		pthread_join(f->thread, NULL);
	free(f->buffer);
	snapshot_source_destroy(&f->source);
}

void snapshot_lazy_free(struct snapshot_lazy *lazy)
{
	if (!lazy)
		return;
	pthread_mutex_lock(&lazy->lock);
	atomic_store(&lazy->stopping, true);
	pthread_cond_broadcast(&lazy->changed);
	pthread_mutex_unlock(&lazy->lock);
	if (lazy->stop >= 0)
		eventfd_signal(lazy->stop);
	for (unsigned int i = 0; i < FILLERS; i++)
		end_filler(&lazy->fillers[i]);
	end_filler(&lazy->server);
	if (lazy->holding)
		guest_memory_release_discards(lazy->memory);
	for (unsigned int i = 0; i < lazy->layout->count; i++)
		if (lazy->registered[i])
			userfault_unregister(&lazy->uf, guest_memory_region(lazy->memory, i)->hva,
					     guest_memory_region(lazy->memory, i)->size);
	userfault_close(&lazy->uf);
	if (lazy->stop >= 0)
		close(lazy->stop);
	free(lazy->states);
	free(lazy->left);
	pthread_cond_destroy(&lazy->changed);
	pthread_mutex_destroy(&lazy->lock);
	free(lazy);
}
