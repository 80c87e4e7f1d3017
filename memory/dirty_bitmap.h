/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bitmap of 4 KiB pages. Setting is atomic and from any thread; everything
 * else is for one thread at a time.
 */
#ifndef MEMORY_DIRTY_BITMAP_H
#define MEMORY_DIRTY_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct dirty_bitmap {
	uint64_t pages;
	uint64_t *words; /* (pages + 63) / 64; bits past `pages` stay 0 */
};

int dirty_bitmap_init(struct dirty_bitmap *bitmap, uint64_t pages, struct error *err);
void dirty_bitmap_destroy(struct dirty_bitmap *bitmap);

/* Pages past the end are ignored. */
void dirty_bitmap_set(struct dirty_bitmap *bitmap, uint64_t first, uint64_t count);
bool dirty_bitmap_test(const struct dirty_bitmap *bitmap, uint64_t page);
void dirty_bitmap_clear(struct dirty_bitmap *bitmap, uint64_t first, uint64_t count);
/* into |= from; both of the same size. */
void dirty_bitmap_or(struct dirty_bitmap *into, const struct dirty_bitmap *from);
/* into |= from and from = 0, word by word, atomically against dirty_bitmap_set. */
void dirty_bitmap_move(struct dirty_bitmap *into, struct dirty_bitmap *from);
uint64_t dirty_bitmap_count(const struct dirty_bitmap *bitmap);
/* The first run of set pages at or after *first: fills *first and *count, or
 * returns false where there is none. */
bool dirty_bitmap_next_run(const struct dirty_bitmap *bitmap, uint64_t *first, uint64_t *count);

#endif
