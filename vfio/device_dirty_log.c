/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device logs of its DMA: VFIO_DEVICE_FEATURE_DMA_LOGGING_START, _REPORT, _STOP.
 *
 * It is told at the start which ranges may be written: RAM's, as few as it takes. A device
 * that does not take that many gets fewer, with the smallest gaps between them logged as
 * well; nobody asks what was written there. It says in which pages it logs; a report is in
 * pages of ours or, where it fits, in the larger ones of the log.
 *
 * A report clears what it tells, also where it fails half way: the whole region is dirty
 * then (dirty_source.h).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vfio/device_dirty_private.h"
#include "vfio/uapi_vfio.h"

struct device_log {
	struct dirty_source source; /* first */
	struct vfio_transport *transport;
	struct guest_memory *memory;
	bool started;
	uint64_t page; /* as granted */
	/* A report goes here first: devices set bits without care for others who do. */
	uint64_t *words;
	size_t word_room;
};

static struct device_log *log_of(struct dirty_source *source)
{
	return container_of(source, struct device_log, source);
}

int device_log_able(struct vfio_transport *transport, struct error *err)
{
	int r = transport->ops->feature(transport,
					VFIO_DEVICE_FEATURE_DMA_LOGGING_START |
						VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PROBE,
					NULL, 0, err);

	return MIN(r, 0);
}

typedef struct vfio_device_feature_dma_logging_range log_range;

static uint64_t gap_after(const log_range *ranges, unsigned int i)
{
	return ranges[i + 1].iova - (ranges[i].iova + ranges[i].length);
}

/* Joins the two with the smallest gap in between. */
static void join_nearest(log_range *ranges, unsigned int *count)
{
	unsigned int at = 0;

	for (unsigned int i = 1; i + 1 < *count; i++)
		if (gap_after(ranges, i) < gap_after(ranges, at))
			at = i;
	ranges[at].length = ranges[at + 1].iova + ranges[at + 1].length - ranges[at].iova;
	--*count;
	for (unsigned int i = at + 1; i < *count; i++)
		ranges[i] = ranges[i + 1];
}

/* RAM's, without gaps of nothing. */
static log_range *ram_ranges(const struct guest_memory *memory, unsigned int *count)
{
	unsigned int regions = guest_memory_region_count(memory);
	log_range *ranges = calloc(MAX(regions, 1U), sizeof(*ranges));

	*count = 0;
	for (unsigned int i = 0; ranges && i < regions; i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		ranges[(*count)++] = (log_range){ .iova = region->gpa, .length = region->size };
		if (*count > 1 && !gap_after(ranges, *count - 2))
			join_nearest(ranges, count);
	}
	return ranges;
}

static int start_with(struct device_log *l, const log_range *ranges, unsigned int count,
		      struct error *err)
{
	struct vfio_transport *t = l->transport;
	struct vfio_device_feature_dma_logging_control control = {
		.page_size = GUEST_PAGE_SIZE,
		.num_ranges = count,
		.ranges = (uintptr_t)ranges,
	};
	int r = t->ops->feature(t, VFIO_DEVICE_FEATURE_DMA_LOGGING_START | VFIO_DEVICE_FEATURE_SET,
				&control, sizeof(control), err);

	l->page = control.page_size;
	return MIN(r, 0);
}

/* Refusals that fewer ranges may cure. */
static bool too_many(int code)
{
	return code == -E2BIG || code == -EINVAL || code == -ENOSPC || code == -EOPNOTSUPP;
}

static void stop(struct dirty_source *source)
{
	struct device_log *l = log_of(source);
	struct vfio_transport *t = l->transport;

	if (!l->started)
		return;
	l->started = t->own_log = false;
	/* A device that is gone, or was reset, has stopped. */
	t->ops->feature(t, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP | VFIO_DEVICE_FEATURE_SET, NULL, 0,
			NULL);
}

static int start(struct dirty_source *source, struct error *err)
{
	struct device_log *l = log_of(source);
	unsigned int count;
	_cleanup_free_ log_range *ranges = ram_ranges(l->memory, &count);
	int r;

	if (!ranges)
		return error_set_errno(err, ENOMEM, "%s: log DMA", l->transport->name);
	r = start_with(l, ranges, count, err);
	while (too_many(r) && count > 1) {
		/* Half as many, down to one: a limit is a small power of two, if there is one. */
		for (unsigned int least = count / 2; count > least;)
			join_nearest(ranges, &count);
		error_clear(err);
		r = start_with(l, ranges, count, err);
	}
	if (r)
		return err ? error_prefix(err, "log DMA") : r;
	l->started = l->transport->own_log = true;
	if (is_power_of_2(l->page))
		return 0;
	stop(source);
	return error_set(err, EPROTO, "%s: log DMA: it logs in pages of %llu bytes",
			 l->transport->name, (unsigned long long)l->page);
}

/* The size of a report's bits: the log's, as far as the range is whole in it. */
static uint64_t report_page(const struct device_log *l, const struct guest_memory_region *region)
{
	uint64_t page = MAX(l->page, GUEST_PAGE_SIZE);

	while (page > GUEST_PAGE_SIZE && (region->gpa | region->size) & (page - 1))
		page /= 2;
	return page;
}

static int make_room(struct device_log *l, uint64_t bits, struct error *err)
{
	size_t words = (bits + 63) / 64;

	if (words > l->word_room) {
		free(l->words);
		l->words = malloc(words * sizeof(*l->words));
		l->word_room = l->words ? words : 0;
	}
	if (!l->words)
		return error_set_errno(err, ENOMEM, "%s: report DMA", l->transport->name);
	memset(l->words, 0, words * sizeof(*l->words));
	return 0;
}

static void merge(struct dirty_bitmap *into, const struct dirty_bitmap *found, uint64_t ratio)
{
	uint64_t first = 0, count = 0;

	if (ratio == 1 && into->pages == found->pages) {
		dirty_bitmap_or(into, found);
		return;
	}
	while (dirty_bitmap_next_run(found, &first, &count)) {
		dirty_bitmap_set(into, first * ratio, count * ratio);
		first += count;
	}
}

static int collect(struct dirty_source *source, const struct guest_memory_region *region,
		   struct dirty_bitmap *bitmap, struct error *err)
{
	struct device_log *l = log_of(source);
	struct vfio_transport *t = l->transport;
	struct vfio_device_feature_dma_logging_report report = {
		.iova = region->gpa,
		.length = region->size,
		.page_size = report_page(l, region),
	};
	struct dirty_bitmap found = { .pages = region->size / report.page_size };
	int r;

	if (!l->started)
		return error_set(err, EINVAL, "%s: report DMA: it is not logged", t->name);
	r = make_room(l, found.pages, err);
	if (r)
		return r;
	report.bitmap = (uintptr_t)l->words;
	found.words = l->words;
	r = t->ops->feature(t, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT | VFIO_DEVICE_FEATURE_GET,
			    &report, sizeof(report), err);
	if (r < 0)
		return err ? error_prefix(err, "report DMA") : r;
	/* Behind the end there is nothing, whatever the device says. */
	if (found.pages % 64)
		l->words[found.pages / 64] &= (1ULL << found.pages % 64) - 1;
	merge(bitmap, &found, report.page_size / GUEST_PAGE_SIZE);
	return 0;
}

static void free_log(struct dirty_source *source)
{
	struct device_log *l = log_of(source);

	stop(source);
	free(l->words);
	free(l);
}

static const struct dirty_source_ops log_ops = {
	.name = "device-log",
	.dma = true,
	.start = start,
	.stop = stop,
	.collect = collect,
	.free = free_log,
};

struct dirty_source *device_log_new(struct vfio_transport *transport, struct guest_memory *memory,
				    struct error *err)
{
	struct device_log *l = calloc(1, sizeof(*l));

	if (!l) {
		error_set_errno(err, ENOMEM, "%s: log DMA", transport->name);
		return NULL;
	}
	l->source.ops = &log_ops;
	l->transport = transport;
	l->memory = memory;
	return &l->source;
}
