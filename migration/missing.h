/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of pages that are still to come, as MISSING frames have it (protocol.h). Pure
 * functions.
 *
 * Metadata: runs of page_run's layout, ascending, each in one region, not empty, multiples
 * of 4096. A run without MISSING_BITS is missing as a whole. One with it is at most
 * MISSING_BLOCK_PAGES long, and has a bit for each of its pages in the payload, bit 0 of
 * byte 0 first, padded with zeros to 8 bytes; payloads of runs follow each other.
 *
 * So the list of a RAM in which every other page is missing has 1/32768 of its size, and
 * that of one which is missing as a whole 16 bytes.
 */
#ifndef MIGRATION_MISSING_H
#define MIGRATION_MISSING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/dirty_bitmap.h"
#include "migration/protocol.h"

#define MISSING_BITS 1u
#define MISSING_BLOCK_PAGES 4096u
#define MISSING_BLOCK_BYTES (MISSING_BLOCK_PAGES / 8)

_Static_assert(PAGE_RUNS_MAX *MISSING_BLOCK_BYTES <= FRAME_MISSING_MAX, "all runs may have bits");

/* A frame's worth. */
struct missing_list {
	unsigned int count;
	size_t bits_len;
	uint8_t meta[PAGE_RUNS_MAX * PAGE_RUN_SIZE];
	uint8_t bits[FRAME_MISSING_MAX];
};

/*
 * Adds what is set in the bitmap of a region at gpa, from page *page on, which it moves.
 * False: the list is full and the region not done. An empty list is {.count = 0}.
 */
bool missing_list_add(struct missing_list *list, const struct dirty_bitmap *bitmap, uint64_t gpa,
		      uint64_t *page);

/*
 * Calls found() for every run of missing pages; it may refuse (-errno, fills err). *end:
 * where the runs before it end (gpa), 0 at first: what does not ascend is refused, so that
 * lists of a peer end. -EBADMSG.
 */
int missing_list_decode(const void *meta, size_t meta_len, const void *bits, size_t bits_len,
			uint64_t *end,
			int (*found)(void *opaque, uint64_t gpa, uint64_t len, struct error *err),
			void *opaque, struct error *err);

#endif
