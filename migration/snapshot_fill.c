/* SPDX-License-Identifier: Apache-2.0 */
/* Eager restore: workers take pieces of RAM and read them to their place. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "migration/snapshot_io.h"
#include "migration/snapshot_source.h"
#include "migration/snapshot_units.h"

#define WORKERS_MAX 4
#define PIECE (4 * MIB) /* taken at once */
#define REQUEST_MAX MIB

struct fill {
	const struct snapshot *snapshot;
	struct guest_memory *memory;
	const struct snapshot_read_options *options;
	struct snapshot_progress *progress;
	_Atomic uint64_t next; /* unit */
	atomic_bool failed;
	pthread_mutex_t lock;
	struct error error; /* the first */
};

struct worker {
	struct fill *fill;
	struct snapshot_source source;
	struct snapshot_io io;
	pthread_t thread;
};

static void fail(struct fill *fill, const struct error *err)
{
	pthread_mutex_lock(&fill->lock);
	if (!atomic_load(&fill->failed))
		fill->error = *err;
	atomic_store(&fill->failed, true);
	pthread_mutex_unlock(&fill->lock);
}

static void wait_one(struct worker *w)
{
	struct error err = ERROR_INIT;
	void *tag;
	size_t len;
	int r = snapshot_io_wait(&w->io, &tag, &len);

	if (r) {
		error_set_errno(&err, r, "ram");
		fail(w->fill, &err);
	} else if (w->fill->progress) {
		snapshot_count(&w->fill->progress->transferred, len);
	}
}

static void read_plain(struct worker *w, const struct snapshot_run *run, uint8_t *hva)
{
	for (uint64_t at = 0; at < run->len; at += REQUEST_MAX) {
		while (snapshot_io_is_full(&w->io))
			wait_one(w);
		snapshot_io_read(&w->io, run->image, hva + at, MIN(run->len - at, REQUEST_MAX),
				 run->file_offset + at, NULL);
	}
}

/* Zero pages stay holes. */
static int read_compressed(struct worker *w, unsigned int region, const struct snapshot_run *run,
			   uint8_t *hva, struct error *err)
{
	const uint8_t *data = snapshot_source_data(&w->source, region, run, err);

	if (!data)
		return -EINVAL;
	for (uint64_t at = 0; at < run->len; at += GUEST_PAGE_SIZE)
		if (!snapshot_is_zero(data + at, GUEST_PAGE_SIZE))
			memcpy(hva + at, data + at, GUEST_PAGE_SIZE);
	return 0;
}

static int fill_units(struct worker *w, uint64_t unit, uint64_t count, struct error *err)
{
	struct fill *fill = w->fill;
	const struct snapshot_layout *layout = &fill->snapshot->images[0]->layout;
	struct snapshot_place a = snapshot_place(layout, unit);
	struct snapshot_place b = snapshot_place(layout, unit + count - 1);
	uint8_t *hva = guest_memory_region(fill->memory, a.region)->hva;
	uint64_t at = a.offset, end = b.offset + b.len;
	struct snapshot_run run;
	int r = 0;

	while (!r && snapshot_source_next(&w->source, a.region, at, end, &run)) {
		if (run.compressed)
			r = read_compressed(w, a.region, &run, hva + run.offset, err);
		else
			read_plain(w, &run, hva + run.offset);
		at = run.offset + run.len;
	}
	if (fill->progress)
		snapshot_count(&fill->progress->done, end - a.offset);
	return r;
}

/* The next units, of one region. */
static uint64_t take(struct fill *fill, uint64_t *unit)
{
	const struct snapshot_layout *layout = &fill->snapshot->images[0]->layout;
	uint64_t first = atomic_load(&fill->next), count;

	do {
		const struct snapshot_region *region;

		if (first >= layout->units)
			return 0;
		region = &layout->regions[snapshot_place(layout, first).region];
		count = MIN(MAX(PIECE / layout->unit, (uint64_t)1),
			    region->first_unit + region->units - first);
	} while (!atomic_compare_exchange_weak(&fill->next, &first, first + count));
	*unit = first;
	return count;
}

static void *work(void *opaque)
{
	struct worker *w = opaque;
	struct fill *fill = w->fill;
	uint64_t unit, count;

	/* RAM takes what io_uring or read(2) puts there, past the page cache where it can be. */
	snapshot_io_init(&w->io, fill->snapshot->direct, fill->snapshot->count,
			 fill->options->plain_io, fill->options->policy);
	snapshot_io_start(&w->io);
	while (!atomic_load(&fill->failed) && (count = take(fill, &unit))) {
		struct error err = ERROR_INIT;
		int r = fill_units(w, unit, count, &err);

		if (!r && snapshot_canceled(fill->progress))
			r = error_set(&err, ECANCELED, "it was canceled");
		if (r)
			fail(fill, &err);
	}
	while (w->io.in_flight)
		wait_one(w);
	snapshot_io_stop(&w->io);
	snapshot_io_destroy(&w->io);
	return NULL;
}

static struct worker *new_worker(struct fill *fill, struct error *err)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w) {
		error_set_errno(err, ENOMEM, "read RAM");
		return NULL;
	}
	w->fill = fill;
	if (!snapshot_source_init(&w->source, fill->snapshot, err))
		return w;
	free(w);
	return NULL;
}

static void free_worker(struct worker *w)
{
	if (w)
		snapshot_source_destroy(&w->source);
	free(w);
}

static int fill_all(struct fill *fill, struct error *err)
{
	struct worker *workers[WORKERS_MAX];
	unsigned int want = snapshot_cpus(WORKERS_MAX), count;

	workers[0] = new_worker(fill, err);
	if (!workers[0])
		return -ENOMEM;
	for (count = 1; count < want; count++) {
		workers[count] = new_worker(fill, NULL);
		if (!workers[count] ||
		    thread_start(&workers[count]->thread, fill->options->policy, THREAD_MIGRATION,
				 "snapshot-fill", work, workers[count], NULL)) {
			free_worker(workers[count]);
			break;
		}
	}
	work(workers[0]);
	while (count--) {
		if (count)
			pthread_join(workers[count]->thread, NULL);
		free_worker(workers[count]);
	}
	if (!atomic_load(&fill->failed))
		return 0;
	if (err)
		*err = fill->error;
	return fill->error.code;
}

int snapshot_fill(struct snapshot *snapshot, struct guest_memory *memory,
		  const struct snapshot_read_options *options, struct snapshot_progress *progress,
		  struct error *err)
{
	struct fill fill = {
		.snapshot = snapshot,
		.memory = memory,
		.options = options,
		.progress = progress,
	};
	int r = snapshot_layout_match(&snapshot->images[0]->layout, memory, err);

	if (!r) {
		if (progress) {
			atomic_store(&progress->phase, SNAPSHOT_RAM);
			atomic_store(&progress->total, snapshot_ram_size(snapshot));
		}
		pthread_mutex_init(&fill.lock, NULL);
		r = fill_all(&fill, err);
		pthread_mutex_destroy(&fill.lock);
	}
	if (!r && progress)
		atomic_store(&progress->phase, SNAPSHOT_DONE);
	if (r)
		error_prefix(err, "restore RAM");
	return r;
}
