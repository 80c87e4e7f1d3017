/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers take units, first those the guest's writes had copied out, then the next in
 * order, and write them: plain ones straight from guest RAM, several in one request, at
 * their place; compressed ones one by one, wherever the file ends.
 */
#include "migration/snapshot_ram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/bytes.h"
#include "migration/snapshot_io.h"

#define BATCH_BYTES MIB /* what disks like in one request */
/* Zero pages in a shorter run are written: a hole of its own costs more than it saves. */
#define GAP_BYTES (16 * KIB)

/* Some units in writing. */
struct batch {
	bool used;
	unsigned int outstanding; /* requests, and 1 while there may come more */
	uint64_t first;
	unsigned int count;
	uint32_t mask;	/* those of them that it has */
	uint8_t *copy;	/* of the unit, a buffer of live's; NULL: in guest RAM */
	uint8_t *frame; /* compressed: what is written; the worker's */
};

struct snapshot_ram_worker {
	struct snapshot_ram *ram;
	struct snapshot_io io;
	struct batch batches[SNAPSHOT_IO_DEPTH + 1];
	ZSTD_CCtx *zstd;
	uint8_t *staging; /* a unit */
	uint8_t *frames;  /* one per batch */
	unsigned int batch_count;
	pthread_t thread;
};

/* A run of pages to be written. */
struct run {
	const uint8_t *data;
	uint64_t offset, len;
	bool extend; /* nothing but short runs of zero pages since its end */
};

static void fail(struct snapshot_ram *ram, const struct error *err)
{
	pthread_mutex_lock(&ram->lock);
	if (!atomic_load(&ram->failed))
		ram->error = *err;
	atomic_store(&ram->failed, true);
	pthread_mutex_unlock(&ram->lock);
}

static void fail_errno(struct snapshot_ram *ram, int code, const char *what)
{
	struct error err = ERROR_INIT;

	error_set_errno(&err, code, "%s", what);
	fail(ram, &err);
}

/* Its units need not stay as they are any more. */
static void release_units(struct snapshot_ram *ram, const struct batch *batch)
{
	if (batch->copy)
		return;
	for (unsigned int i = 0, n; i < batch->count; i += n) {
		for (n = 0; i + n < batch->count && batch->mask >> (i + n) & 1; n++)
			atomic_store(&ram->units->states[batch->first + i + n], UNIT_SAVED);
		if (n && ram->live)
			snapshot_live_release(ram->live, batch->first + i, n);
		n += !n;
	}
}

static void end_batch(struct snapshot_ram *ram, struct batch *batch)
{
	uint64_t bytes = 0;

	if (--batch->outstanding)
		return;
	/* Compressed ones are free since they were staged. */
	if (!ram->image->compressed)
		release_units(ram, batch);
	if (batch->copy)
		snapshot_live_put(ram->live, batch->copy);
	for (unsigned int i = 0; i < batch->count; i++)
		if (batch->mask >> i & 1)
			bytes += snapshot_place(&ram->image->layout, batch->first + i).len;
	if (ram->progress)
		snapshot_count(&ram->progress->done, bytes);
	atomic_fetch_sub(&ram->remaining, (unsigned int)__builtin_popcount(batch->mask));
	batch->used = false;
}

static void wait_one(struct snapshot_ram_worker *w)
{
	struct snapshot_ram *ram = w->ram;
	void *tag;
	size_t len;
	int r = snapshot_io_wait(&w->io, &tag, &len);

	if (r)
		fail_errno(ram, r, "ram");
	else
		snapshot_count(&ram->written, len);
	if (!r && ram->progress)
		snapshot_count(&ram->progress->transferred, len);
	end_batch(ram, tag);
}

static void submit(struct snapshot_ram_worker *w, struct batch *batch, const uint8_t *data,
		   uint64_t len, uint64_t offset)
{
	while (snapshot_io_is_full(&w->io))
		wait_one(w);
	batch->outstanding++;
	snapshot_io_write(&w->io, 0, data, (size_t)len, offset, batch);
}

static void flush(struct snapshot_ram_worker *w, struct batch *batch, struct run *run)
{
	if (run->len)
		submit(w, batch, run->data, run->len, run->offset);
	*run = (struct run){ 0 };
}

static void add_page(struct snapshot_ram_worker *w, struct batch *batch, struct run *run,
		     const uint8_t *page, uint64_t offset)
{
	uint64_t end = run->offset + run->len;

	if (!run->len || !run->extend || offset - end > GAP_BYTES ||
	    page != run->data + (offset - run->offset)) {
		flush(w, batch, run);
		*run = (struct run){ .data = page, .offset = offset, .extend = true };
	}
	run->len = offset + GUEST_PAGE_SIZE - run->offset;
}

static void add_unit(struct snapshot_ram_worker *w, struct batch *batch, struct run *run,
		     uint64_t unit)
{
	const struct snapshot_units *units = w->ram->units;
	struct snapshot_place place = snapshot_place(units->layout, unit);
	const struct dirty_bitmap *wanted = &units->regions[place.region].wanted;
	const uint8_t *data = batch->copy ? batch->copy : unit_hva(units, &place);
	uint64_t offset = units->layout->regions[place.region].offset + place.offset;

	if (!snapshot_unit_wants(units, &place)) {
		run->extend = false;
		return;
	}
	for (uint64_t at = 0; at < place.len; at += GUEST_PAGE_SIZE) {
		/* Pages that are not there are not read: that would allocate them. */
		if (!dirty_bitmap_test(wanted, (place.offset + at) / GUEST_PAGE_SIZE))
			run->extend = false;
		else if (w->ram->rewrite || !snapshot_is_zero(data + at, GUEST_PAGE_SIZE))
			add_page(w, batch, run, data + at, offset + at);
	}
}

static void write_plain(struct snapshot_ram_worker *w, struct batch *batch)
{
	struct run run = { 0 };

	for (unsigned int i = 0; i < batch->count; i++) {
		if (batch->mask >> i & 1)
			add_unit(w, batch, &run, batch->first + i);
		else
			run.extend = false;
	}
	flush(w, batch, &run);
}

static void write_frame(struct snapshot_ram_worker *w, struct batch *batch)
{
	struct snapshot_ram *ram = w->ram;
	struct snapshot_place place = snapshot_place(&ram->image->layout, batch->first);
	struct snapshot_frame *frame = &ram->image->frames[batch->first];
	const uint8_t *data = batch->copy;
	uint64_t block, padded;
	size_t len;

	if (!data) {
		snapshot_unit_copy(ram->units, &place, w->staging);
		data = w->staging;
		release_units(ram, batch);
	}
	*frame = (struct snapshot_frame){ 0 };
	if (snapshot_is_zero(data, place.len))
		return;
	len = ZSTD_compress2(w->zstd, batch->frame, place.len, data, place.len);
	if (ZSTD_isError(len) || len >= place.len) {
		/* It does not get smaller. */
		memcpy(batch->frame, data, place.len);
		len = place.len;
	}
	padded = align_up(len, SNAPSHOT_BLOCK);
	memset(batch->frame + len, 0, padded - len);
	block = atomic_fetch_add(&ram->tail, padded / SNAPSHOT_BLOCK);
	if (block + padded / SNAPSHOT_BLOCK > UINT32_MAX) {
		fail_errno(ram, EFBIG, "ram");
		return;
	}
	*frame = (struct snapshot_frame){ .block = (uint32_t)block, .len = (uint32_t)len };
	submit(w, batch, batch->frame, padded, block * SNAPSHOT_BLOCK);
}

static struct batch *free_batch(struct snapshot_ram_worker *w)
{
	for (unsigned int i = 0; i < w->batch_count; i++)
		if (!w->batches[i].used)
			return &w->batches[i];
	return NULL;
}

/* Of the next units in order those that nobody has; false at the end. */
static bool take_units(struct snapshot_ram *ram, struct batch *batch)
{
	unsigned int n = ram->image->compressed
				 ? 1
				 : MAX(1U, (unsigned int)(BATCH_BYTES / ram->image->layout.unit));

	for (;;) {
		uint64_t first = atomic_fetch_add(&ram->next, n), total = ram->image->layout.units;

		if (first >= total)
			return false;
		batch->first = first;
		batch->count = (unsigned int)MIN((uint64_t)n, total - first);
		batch->mask = 0;
		batch->copy = NULL;
		for (unsigned int i = 0; i < batch->count; i++)
			if (unit_take(ram->units, first + i, UNIT_WRITING))
				batch->mask |= 1U << i;
		if (batch->mask)
			return true;
	}
}

static bool take_work(struct snapshot_ram *ram, struct batch *batch)
{
	struct live_copy copy;

	if (!ram->live || !snapshot_live_next(ram->live, &copy))
		return take_units(ram, batch);
	batch->first = copy.unit;
	batch->count = batch->mask = 1;
	batch->copy = copy.data;
	return true;
}

static bool step(struct snapshot_ram_worker *w)
{
	struct snapshot_ram *ram = w->ram;
	struct batch *batch = free_batch(w);

	if (batch && !snapshot_io_is_full(&w->io) && take_work(ram, batch)) {
		batch->used = true;
		batch->outstanding = 1;
		if (ram->image->compressed)
			write_frame(w, batch);
		else
			write_plain(w, batch);
		end_batch(ram, batch);
		return true;
	}
	if (w->io.in_flight) {
		wait_one(w);
		return true;
	}
	/* Another worker has the rest, or the fault thread is copying it. */
	if (!ram->live || !atomic_load(&ram->remaining))
		return false;
	snapshot_live_wait(ram->live);
	return true;
}

static void *work(void *opaque)
{
	struct snapshot_ram_worker *w = opaque;
	struct snapshot_ram *ram = w->ram;

	snapshot_io_start(&w->io);
	while (!atomic_load(&ram->failed)) {
		if (snapshot_canceled(ram->progress)) {
			struct error err = ERROR_INIT;

			error_set(&err, ECANCELED, "it was canceled");
			fail(ram, &err);
		} else if (!step(w)) {
			break;
		}
	}
	while (w->io.in_flight)
		wait_one(w);
	snapshot_io_stop(&w->io);
	return NULL;
}

static void free_worker(struct snapshot_ram_worker *w)
{
	snapshot_io_destroy(&w->io);
	ZSTD_freeCCtx(w->zstd);
	free(w->staging);
	free(w->frames);
	free(w);
}

static bool prepare_zstd(struct snapshot_ram_worker *w, const struct snapshot_ram *ram)
{
	size_t unit = ram->image->layout.unit, room = unit + SNAPSHOT_BLOCK;

	/* Compressing is slower than the disk: a few are in flight at any time. */
	w->batch_count = 4;
	w->zstd = ZSTD_createCCtx();
	w->staging = aligned_alloc(SNAPSHOT_BLOCK, unit);
	w->frames = aligned_alloc(SNAPSHOT_BLOCK, room * w->batch_count);
	if (!w->zstd || !w->staging || !w->frames)
		return false;
	ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, ram->level);
	ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 1);
	for (unsigned int i = 0; i < w->batch_count; i++)
		w->batches[i].frame = w->frames + i * room;
	return true;
}

static int start_worker(struct snapshot_ram *ram, struct error *err)
{
	struct snapshot_ram_worker *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return error_set_errno(err, ENOMEM, "write RAM");
	w->ram = ram;
	w->batch_count = ARRAY_SIZE(w->batches);
	snapshot_io_init(&w->io, &ram->fd, 1, ram->plain_io, ram->policy);
	ram->used_ring = w->io.ring_made;
	if (ram->image->compressed && !prepare_zstd(w, ram))
		r = error_set_errno(err, ENOMEM, "write RAM");
	else
		r = thread_start(&w->thread, ram->policy, THREAD_MIGRATION, "snapshot-ram", work, w,
				 err);
	if (r)
		free_worker(w);
	else
		ram->workers[ram->worker_count++] = w;
	return r;
}

int snapshot_ram_start(struct snapshot_ram *ram, struct error *err)
{
	unsigned int want = ram->image->compressed ? snapshot_cpus(SNAPSHOT_RAM_WORKERS_MAX) : 1;
	int r;

	pthread_mutex_init(&ram->lock, NULL);
	ram->remaining = ram->image->layout.units;
	r = start_worker(ram, err);
	if (r)
		pthread_mutex_destroy(&ram->lock);
	/* With fewer than wanted it only takes longer. */
	while (!r && ram->worker_count < want)
		if (start_worker(ram, NULL))
			break;
	return r;
}

void snapshot_ram_cancel(struct snapshot_ram *ram)
{
	fail_errno(ram, ECANCELED, "ram");
}

int snapshot_ram_finish(struct snapshot_ram *ram, struct error *err)
{
	while (ram->worker_count) {
		struct snapshot_ram_worker *w = ram->workers[--ram->worker_count];

		pthread_join(w->thread, NULL);
		free_worker(w);
	}
	pthread_mutex_destroy(&ram->lock);
	if (atomic_load(&ram->failed)) {
		if (err)
			*err = ram->error;
		return ram->error.code;
	}
	ram->image->file_size =
		ram->image->compressed ? ram->tail * SNAPSHOT_BLOCK : ram->image->layout.plain_end;
	return 0;
}
