/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/dirty_bitmap.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"

/* No machine has more: physical addresses end at 52 bits. */
#define PAGES_MAX (1ULL << (52 - 12))

static uint64_t word_count(const struct dirty_bitmap *bitmap)
{
	return bitmap->pages / 64 + (bitmap->pages % 64 != 0);
}

int dirty_bitmap_init(struct dirty_bitmap *bitmap, uint64_t pages, struct error *err)
{
	*bitmap = (struct dirty_bitmap){ .pages = pages };
	if (pages <= PAGES_MAX)
		bitmap->words = calloc(MAX(word_count(bitmap), 1UL), sizeof(*bitmap->words));
	if (!bitmap->words) {
		bitmap->pages = 0;
		return error_set_errno(err, ENOMEM, "allocate dirty bitmap of %llu pages",
				       (unsigned long long)pages);
	}
	return 0;
}

void dirty_bitmap_destroy(struct dirty_bitmap *bitmap)
{
	free(bitmap->words);
	*bitmap = (struct dirty_bitmap){ .pages = 0 };
}

/* The bits of one word that [first, first + count) covers; *count shrinks by them. */
static uint64_t take_mask(uint64_t first, uint64_t *count)
{
	unsigned int shift = first % 64;
	uint64_t bits = MIN(64UL - shift, *count);

	*count -= bits;
	return (bits == 64 ? UINT64_MAX : (1UL << bits) - 1) << shift;
}

static bool clip(const struct dirty_bitmap *bitmap, uint64_t first, uint64_t *count)
{
	if (first >= bitmap->pages)
		return false;
	*count = MIN(*count, bitmap->pages - first);
	return *count != 0;
}

void dirty_bitmap_set(struct dirty_bitmap *bitmap, uint64_t first, uint64_t count)
{
	if (!clip(bitmap, first, &count))
		return;
	/* Release: who sees the bit sees what was written to the page before. */
	for (uint64_t *word = &bitmap->words[first / 64]; count; word++) {
		__atomic_fetch_or(word, take_mask(first, &count), __ATOMIC_RELEASE);
		first = 0;
	}
}

bool dirty_bitmap_test(const struct dirty_bitmap *bitmap, uint64_t page)
{
	if (page >= bitmap->pages)
		return false;
	return __atomic_load_n(&bitmap->words[page / 64], __ATOMIC_ACQUIRE) >> page % 64 & 1;
}

void dirty_bitmap_clear(struct dirty_bitmap *bitmap, uint64_t first, uint64_t count)
{
	if (!clip(bitmap, first, &count))
		return;
	for (uint64_t *word = &bitmap->words[first / 64]; count; word++) {
		__atomic_fetch_and(word, ~take_mask(first, &count), __ATOMIC_ACQ_REL);
		first = 0;
	}
}

void dirty_bitmap_or(struct dirty_bitmap *into, const struct dirty_bitmap *from)
{
	uint64_t n = MIN(word_count(into), word_count(from));

	for (uint64_t i = 0; i < n; i++)
		into->words[i] |= __atomic_load_n(&from->words[i], __ATOMIC_ACQUIRE);
}

void dirty_bitmap_move(struct dirty_bitmap *into, struct dirty_bitmap *from)
{
	uint64_t n = MIN(word_count(into), word_count(from));

	for (uint64_t i = 0; i < n; i++) {
		/* Most words are clean: look before the locked exchange. */
		if (!__atomic_load_n(&from->words[i], __ATOMIC_RELAXED))
			continue;
		into->words[i] |= __atomic_exchange_n(&from->words[i], 0, __ATOMIC_ACQ_REL);
	}
}

uint64_t dirty_bitmap_count(const struct dirty_bitmap *bitmap)
{
	uint64_t n = word_count(bitmap), count = 0;

	for (uint64_t i = 0; i < n; i++)
		count += (uint64_t)__builtin_popcountll(
			__atomic_load_n(&bitmap->words[i], __ATOMIC_RELAXED));
	return count;
}

/* The first page at or after `page` whose bit is `value`, or bitmap->pages. */
static uint64_t next_bit(const struct dirty_bitmap *bitmap, uint64_t page, bool value)
{
	uint64_t flip = value ? 0 : UINT64_MAX;

	while (page < bitmap->pages) {
		uint64_t word = __atomic_load_n(&bitmap->words[page / 64], __ATOMIC_ACQUIRE) ^ flip;

		word &= UINT64_MAX << page % 64;
		page = align_down(page, 64);
		if (word)
			return MIN(page + (uint64_t)__builtin_ctzll(word), bitmap->pages);
		page += 64;
	}
	return bitmap->pages;
}

bool dirty_bitmap_next_run(const struct dirty_bitmap *bitmap, uint64_t *first, uint64_t *count)
{
	uint64_t start = next_bit(bitmap, *first, true);

	if (start >= bitmap->pages)
		return false;
	*first = start;
	*count = next_bit(bitmap, start, false) - start;
	return true;
}
