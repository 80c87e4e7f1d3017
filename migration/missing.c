/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/missing.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "memory/guest_memory.h"

/* How many of the block's pages are set. Blocks begin at whole words. */
static uint64_t count_block(const struct dirty_bitmap *bitmap, uint64_t page, uint64_t pages)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < pages; i += 64)
		count += (uint64_t)__builtin_popcountll(bitmap->words[(page + i) / 64]);
	return count;
}

static void put_run(struct missing_list *list, uint64_t gpa, uint64_t len, bool bits)
{
	uint8_t *entry = list->meta + list->count++ * PAGE_RUN_SIZE;

	store_le64(entry, gpa | (bits ? MISSING_BITS : 0));
	store_le64(entry + 8, len);
}

/* Makes the run before longer, where it is whole and ends there. */
static bool extend(struct missing_list *list, uint64_t gpa, uint64_t len)
{
	uint8_t *last = list->meta + (list->count - 1) * PAGE_RUN_SIZE;

	if (!list->count || load_le64(last) & MISSING_BITS ||
	    load_le64(last) + load_le64(last + 8) != gpa)
		return false;
	store_le64(last + 8, load_le64(last + 8) + len);
	return true;
}

static void put_bits(struct missing_list *list, const struct dirty_bitmap *bitmap, uint64_t page,
		     uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i += 64) {
		store_le64(list->bits + list->bits_len, bitmap->words[(page + i) / 64]);
		list->bits_len += 8;
	}
}

bool missing_list_add(struct missing_list *list, const struct dirty_bitmap *bitmap, uint64_t gpa,
		      uint64_t *page)
{
	while (*page < bitmap->pages) {
		uint64_t pages = MIN(bitmap->pages - *page, (uint64_t)MISSING_BLOCK_PAGES);
		uint64_t set = count_block(bitmap, *page, pages);
		uint64_t at = gpa + *page * GUEST_PAGE_SIZE, len = pages * GUEST_PAGE_SIZE;

		if (set && (set < pages || !extend(list, at, len))) {
			if (list->count == PAGE_RUNS_MAX)
				return false;
			put_run(list, at, len, set < pages);
			if (set < pages)
				put_bits(list, bitmap, *page, pages);
		}
		*page += pages;
	}
	return true;
}

static int bad_run(uint64_t gpa, uint64_t len, struct error *err)
{
	return error_set(err, EBADMSG,
			 "MISSING of the peer: a run of %llu bytes at 0x%llx makes no sense",
			 (unsigned long long)len, (unsigned long long)gpa);
}

/* The runs in the bits of one. */
static int decode_bits(uint64_t gpa, uint64_t pages, const uint8_t *bits,
		       int (*found)(void *opaque, uint64_t gpa, uint64_t len, struct error *err),
		       void *opaque, struct error *err)
{
	uint64_t words[MISSING_BLOCK_PAGES / 64] = { 0 };
	struct dirty_bitmap bitmap = { .pages = pages, .words = words };
	uint64_t first = 0, count;
	int r = 0;

	for (uint64_t i = 0; i < (pages + 63) / 64; i++)
		words[i] = load_le64(bits + i * 8);
	if (pages % 64 && words[pages / 64] >> pages % 64)
		return bad_run(gpa, pages * GUEST_PAGE_SIZE, err);
	while (!r && dirty_bitmap_next_run(&bitmap, &first, &count)) {
		r = found(opaque, gpa + first * GUEST_PAGE_SIZE, count * GUEST_PAGE_SIZE, err);
		first += count;
	}
	return r;
}

int missing_list_decode(const void *meta, size_t meta_len, const void *bits, size_t bits_len,
			uint64_t *end,
			int (*found)(void *opaque, uint64_t gpa, uint64_t len, struct error *err),
			void *opaque, struct error *err)
{
	const uint8_t *entry = meta, *next = bits;
	int r = 0;

	if (meta_len % PAGE_RUN_SIZE || meta_len > PAGE_RUNS_MAX * PAGE_RUN_SIZE)
		return error_set(err, EBADMSG,
				 "MISSING of the peer: %zu bytes of metadata make no sense",
				 meta_len);
	for (size_t i = 0; !r && i < meta_len / PAGE_RUN_SIZE; i++, entry += PAGE_RUN_SIZE) {
		uint64_t gpa = load_le64(entry), len = load_le64(entry + 8);
		uint64_t low = gpa % GUEST_PAGE_SIZE, pages = len / GUEST_PAGE_SIZE;
		size_t need = low ? (pages + 63) / 64 * 8 : 0;

		gpa -= low;
		if (low > MISSING_BITS || !len || len % GUEST_PAGE_SIZE || gpa < *end ||
		    gpa > UINT64_MAX - len || (low && pages > MISSING_BLOCK_PAGES))
			return bad_run(gpa, len, err);
		if (need > bits_len)
			return error_set(err, EBADMSG,
					 "MISSING of the peer: the bits of its runs are missing");
		*end = gpa + len;
		r = low ? decode_bits(gpa, pages, next, found, opaque, err)
			: found(opaque, gpa, len, err);
		next += need;
		bits_len -= need;
	}
	if (!r && bits_len)
		return error_set(err, EBADMSG, "MISSING of the peer: %zu bytes too many", bits_len);
	return r;
}
