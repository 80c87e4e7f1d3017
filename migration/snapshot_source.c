/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/snapshot_source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"

int snapshot_source_init(struct snapshot_source *source, const struct snapshot *snapshot,
			 struct error *err)
{
	uint32_t unit = snapshot->images[0]->layout.unit;
	bool compressed = false;

	*source = (struct snapshot_source){ .snapshot = snapshot, .index = UINT64_MAX };
	for (unsigned int i = 0; i < snapshot->count; i++)
		compressed |= snapshot->images[i]->compressed;
	if (!compressed)
		return 0;
	source->zstd = ZSTD_createDCtx();
	source->frame = aligned_alloc(SNAPSHOT_BLOCK, unit);
	source->unit = aligned_alloc(SNAPSHOT_BLOCK, unit);
	if (source->zstd && source->frame && source->unit)
		return 0;
	snapshot_source_destroy(source);
	return error_set_errno(err, ENOMEM, "read a compressed snapshot");
}

void snapshot_source_destroy(struct snapshot_source *source)
{
	ZSTD_freeDCtx(source->zstd);
	free(source->frame);
	free(source->unit);
	*source = (struct snapshot_source){ 0 };
}

static unsigned int owner(const struct snapshot *snapshot, unsigned int region, uint64_t page)
{
	unsigned int image = 0;

	/* The last one is full. */
	while (image < snapshot->count - 1 &&
	       !dirty_bitmap_test(&snapshot->images[image]->layout.regions[region].held, page))
		image++;
	return image;
}

/* Cuts [*start, *end) of an image's file to its first extent of data; false: all hole. */
static bool clip(struct snapshot_source *source, unsigned int image, uint64_t *start, uint64_t *end)
{
	int fd = source->snapshot->fds[image];

	if (*start < source->extents[image].start || *start >= source->extents[image].end) {
		off_t data = lseek(fd, (off_t)*start, SEEK_DATA);
		off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);

		if (data < 0 && errno == ENXIO)
			return false;
		if (hole < 0) /* the file system cannot tell */
			return true;
		/* An extent may begin between pages where blocks are small. */
		source->extents[image].start =
			MAX(*start, align_down((uint64_t)data, SNAPSHOT_BLOCK));
		source->extents[image].end = align_up((uint64_t)hole, SNAPSHOT_BLOCK);
	}
	*start = MAX(*start, source->extents[image].start);
	*end = MIN(*end, source->extents[image].end);
	return *start < *end;
}

/* As much of [offset, end) as has the owner of its first page. */
static uint64_t owned(const struct snapshot_source *source, unsigned int region, uint64_t offset,
		      uint64_t end, unsigned int image)
{
	uint64_t at = offset + GUEST_PAGE_SIZE;

	if (source->snapshot->count == 1)
		return end;
	while (at < end && owner(source->snapshot, region, at / GUEST_PAGE_SIZE) == image)
		at += GUEST_PAGE_SIZE;
	return at;
}

static bool next_plain(struct snapshot_source *source, const struct snapshot_region *region,
		       uint64_t end, struct snapshot_run *run)
{
	uint64_t from = region->offset + run->offset, to = region->offset + end;

	if (!clip(source, run->image, &from, &to))
		return false;
	run->file_offset = from;
	run->offset = from - region->offset;
	run->len = to - from;
	return true;
}

static bool next_frame(const struct snapshot_source *source, const struct snapshot_region *region,
		       uint64_t end, struct snapshot_run *run)
{
	const struct snapshot_image *image = source->snapshot->images[run->image];
	uint64_t unit = run->offset / image->layout.unit;
	uint64_t unit_end = (unit + 1) * image->layout.unit;

	run->compressed = true;
	run->len = MIN(end, unit_end) - run->offset;
	return image->frames[region->first_unit + unit].len;
}

bool snapshot_source_next(struct snapshot_source *source, unsigned int region, uint64_t offset,
			  uint64_t end, struct snapshot_run *run)
{
	const struct snapshot *s = source->snapshot;

	while (offset < end) {
		unsigned int image = owner(s, region, offset / GUEST_PAGE_SIZE);
		const struct snapshot_region *in = &s->images[image]->layout.regions[region];
		uint64_t to = owned(source, region, offset, end, image);
		bool found;

		*run = (struct snapshot_run){ .offset = offset, .image = image };
		if (s->images[image]->compressed) {
			found = next_frame(source, in, to, run);
			to = run->offset + run->len;
		} else {
			found = next_plain(source, in, to, run);
		}
		if (found)
			return true;
		offset = to;
	}
	return false;
}

static int corrupt(struct error *err, uint64_t unit, const char *why)
{
	return error_set(err, EINVAL, "ram: unit %" PRIu64 " is corrupt: %s", unit, why);
}

static int load_unit(struct snapshot_source *source, unsigned int image, uint64_t unit,
		     struct error *err)
{
	const struct snapshot_image *from = source->snapshot->images[image];
	struct snapshot_frame frame = from->frames[unit];
	size_t len = snapshot_place(&from->layout, unit).len, got;
	int r;

	source->index = UINT64_MAX;
	r = fd_pread_full(source->snapshot->fds[image], source->frame, frame.len,
			  (off_t)frame.block * SNAPSHOT_BLOCK);
	if (r)
		return error_set_errno(err, r, "ram: unit %" PRIu64, unit);
	if (frame.len == len) {
		memcpy(source->unit, source->frame, len);
	} else {
		got = ZSTD_decompressDCtx(source->zstd, source->unit, len, source->frame,
					  frame.len);
		if (ZSTD_isError(got))
			return corrupt(err, unit, ZSTD_getErrorName(got));
		if (got != len)
			return corrupt(err, unit, "it is too short");
	}
	source->image = image;
	source->index = unit;
	return 0;
}

const uint8_t *snapshot_source_data(struct snapshot_source *source, unsigned int region,
				    const struct snapshot_run *run, struct error *err)
{
	const struct snapshot_layout *layout = &source->snapshot->images[run->image]->layout;
	uint64_t unit = layout->regions[region].first_unit + run->offset / layout->unit;

	if ((source->index != unit || source->image != run->image) &&
	    load_unit(source, run->image, unit, err))
		return NULL;
	return source->unit + run->offset % layout->unit;
}
