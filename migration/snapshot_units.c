/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/snapshot_units.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

#define SEEK_HOLE_MIN (32 * MIB)

/*
 * Guest RAM changes under whoever reads it; that is not a race of ours: what must not
 * change is protected by the page tables, which ThreadSanitizer cannot see. It leaves
 * relaxed atomic loads alone.
 */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define THREAD_SANITIZER 1
#endif

#ifdef THREAD_SANITIZER
#define LOAD(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#else
#define LOAD(p) (*(p))
#endif

static void copy(uint8_t *to, const uint8_t *from, size_t len)
{
#ifdef THREAD_SANITIZER
	for (size_t i = 0; i < len / 8; i++)
		((uint64_t *)(void *)to)[i] = LOAD(&((const uint64_t *)(const void *)from)[i]);
#else
	memcpy(to, from, len);
#endif
}

bool snapshot_is_zero(const uint8_t *data, size_t len)
{
	const uint64_t *words = (const uint64_t *)(const void *)data;
	size_t count = len / 8;

	/* Most pages in use show it at once. */
	if (LOAD(&words[0]) | LOAD(&words[count / 2]) | LOAD(&words[count - 1]))
		return false;
	for (size_t i = 0; i < count; i += 8)
		if (LOAD(&words[i]) | LOAD(&words[i + 1]) | LOAD(&words[i + 2]) |
		    LOAD(&words[i + 3]) | LOAD(&words[i + 4]) | LOAD(&words[i + 5]) |
		    LOAD(&words[i + 6]) | LOAD(&words[i + 7]))
			return false;
	return true;
}

/* A memfd tells its holes; a file mapped privately (a clone's) does not tell what was
 * written to the mapping, and hugetlbfs tells nothing. */
static bool tells_holes(const struct guest_memory_region *region)
{
	int seals = fcntl(region->memfd, F_GET_SEALS);

	return seals >= 0 && seals & F_SEAL_SHRINK && region->page_size == GUEST_PAGE_SIZE;
}

int snapshot_units_init(struct snapshot_units *units, const struct snapshot_layout *layout,
			const struct guest_memory *memory, struct error *err)
{
	*units = (struct snapshot_units){ .layout = layout };
	units->states = calloc(layout->units, sizeof(*units->states));
	if (!units->states)
		return error_set_errno(err, ENOMEM, "%" PRIu64 " units of RAM", layout->units);
	for (unsigned int i = 0; i < layout->count; i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);
		struct unit_region *own = &units->regions[i];
		int r = dirty_bitmap_init(&own->wanted, region->size / GUEST_PAGE_SIZE, err);

		if (r)
			return r;
		own->hva = region->hva;
		own->memfd = tells_holes(region) ? region->memfd : -1;
		own->offset = region->offset;
	}
	return 0;
}

void snapshot_units_destroy(struct snapshot_units *units)
{
	for (unsigned int i = 0; units->layout && i < units->layout->count; i++)
		dirty_bitmap_destroy(&units->regions[i].wanted);
	free(units->states);
	units->states = NULL;
}

/* The next data of [at, end) in the region, or end. */
static uint64_t next_data(const struct unit_region *region, uint64_t at, uint64_t end)
{
	off_t data = lseek(region->memfd, (off_t)(region->offset + at), SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? end : at; /* it cannot tell, after all: all is data */
	return MIN((uint64_t)data - region->offset, end);
}

/* Where the data that is at `at` ends, or end. */
static uint64_t data_end(const struct unit_region *region, uint64_t at, uint64_t end)
{
	off_t hole;

	/* SEEK_HOLE walks all the data there is, be it the whole of RAM: not for a few pages. */
	if (end - at < SEEK_HOLE_MIN)
		return at + GUEST_PAGE_SIZE;
	hole = lseek(region->memfd, (off_t)(region->offset + at), SEEK_HOLE);
	if (hole < 0)
		return end;
	return MIN(align_up((uint64_t)hole, GUEST_PAGE_SIZE) - region->offset, end);
}

/* [start, end) in the region: sets the pages of each extent of data. */
static void find_data(struct unit_region *region, uint64_t start, uint64_t end)
{
	uint64_t at = start, stop;

	while ((at = next_data(region, at, end)) < end) {
		stop = data_end(region, at, end);
		dirty_bitmap_set(&region->wanted, at / GUEST_PAGE_SIZE,
				 (stop - at) / GUEST_PAGE_SIZE);
		at = stop;
	}
}

void snapshot_units_scan(struct snapshot_units *units, uint64_t first, uint64_t count)
{
	struct snapshot_place place = snapshot_place(units->layout, first);
	const struct snapshot_region *region = &units->layout->regions[place.region];
	struct unit_region *own = &units->regions[place.region];
	uint64_t end = MIN(place.offset + count * units->layout->unit, region->size);
	uint64_t from = place.offset / GUEST_PAGE_SIZE,
		 pages = (end - place.offset) / GUEST_PAGE_SIZE;

	dirty_bitmap_clear(&own->wanted, from, pages);
	if (own->memfd >= 0)
		find_data(own, place.offset, end);
	else
		dirty_bitmap_set(&own->wanted, from, pages);
	if (!region->held.words)
		return;
	for (uint64_t word = from / 64; word < (from + pages + 63) / 64; word++)
		own->wanted.words[word] &= region->held.words[word];
}

bool snapshot_unit_wants(const struct snapshot_units *units, const struct snapshot_place *place)
{
	const uint64_t *words = units->regions[place->region].wanted.words;
	uint64_t first = place->offset / GUEST_PAGE_SIZE;

	for (uint64_t word = first / 64; word < (first + place->len / GUEST_PAGE_SIZE + 63) / 64;
	     word++)
		if (words[word])
			return true;
	return false;
}

void snapshot_unit_copy(const struct snapshot_units *units, const struct snapshot_place *place,
			uint8_t *to)
{
	const struct dirty_bitmap *wanted = &units->regions[place->region].wanted;
	const uint8_t *from = unit_hva(units, place);
	uint64_t first = place->offset / GUEST_PAGE_SIZE;

	for (uint64_t i = 0; i < place->len / GUEST_PAGE_SIZE; i++) {
		uint64_t at = i * GUEST_PAGE_SIZE;

		if (dirty_bitmap_test(wanted, first + i))
			copy(to + at, from + at, GUEST_PAGE_SIZE);
		else
			memset(to + at, 0, GUEST_PAGE_SIZE);
	}
}
