/* SPDX-License-Identifier: Apache-2.0 */
/* The list of missing pages: there and back, small, and what makes no sense refused. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "memory/guest_memory.h"
#include "migration/missing.h"
#include "tests/unit/helpers/run_suite.h"

#define GPA (4 * GIB)

static struct missing_list list;
static struct dirty_bitmap there;
static unsigned int runs;

static int found(void *opaque, uint64_t gpa, uint64_t len, struct error *err)
{
	if (gpa < GPA || gpa % GUEST_PAGE_SIZE || !len || len % GUEST_PAGE_SIZE)
		ck_abort_msg("%llx bytes at %llx", (unsigned long long)len,
			     (unsigned long long)gpa);
	dirty_bitmap_set(&there, (gpa - GPA) / GUEST_PAGE_SIZE, len / GUEST_PAGE_SIZE);
	runs++;
	return opaque ? error_set(err, ENOSPC, "no") : 0;
}

static int decode(uint64_t *end, struct error *err)
{
	return missing_list_decode(list.meta, list.count * PAGE_RUN_SIZE, list.bits, list.bits_len,
				   end, found, NULL, err);
}

/* In as many frames as it takes; returns how many. */
static unsigned int there_and_back(const struct dirty_bitmap *bitmap, uint64_t *bytes)
{
	uint64_t page = 0, end = 0;
	unsigned int frames = 0;
	bool last = false;

	ck_assert_int_eq(dirty_bitmap_init(&there, bitmap->pages, NULL), 0);
	runs = 0;
	*bytes = 0;
	while (!last) {
		list.count = 0;
		list.bits_len = 0;
		last = missing_list_add(&list, bitmap, GPA, &page);
		ck_assert_int_eq(decode(&end, NULL), 0);
		*bytes += list.count * PAGE_RUN_SIZE + list.bits_len;
		frames++;
	}
	ck_assert_mem_eq(there.words, bitmap->words, (bitmap->pages + 63) / 64 * 8);
	dirty_bitmap_destroy(&there);
	return frames;
}

START_TEST(whole_ram_is_one_run)
{
	struct dirty_bitmap bitmap;
	uint64_t bytes;

	ck_assert_int_eq(dirty_bitmap_init(&bitmap, 1000003, NULL), 0);
	ck_assert_uint_eq(there_and_back(&bitmap, &bytes), 1);
	ck_assert_uint_eq(bytes, 0);
	dirty_bitmap_set(&bitmap, 0, bitmap.pages);
	ck_assert_uint_eq(there_and_back(&bitmap, &bytes), 1);
	ck_assert_uint_eq(bytes, PAGE_RUN_SIZE);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(every_other_page_takes_a_bit_each)
{
	struct dirty_bitmap bitmap;
	uint64_t bytes;

	/* 16 GiB and a bit */
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, 4 * MIB + 77, NULL), 0);
	for (uint64_t page = 0; page < bitmap.pages; page += 2)
		dirty_bitmap_set(&bitmap, page, 1);
	ck_assert_uint_eq(there_and_back(&bitmap, &bytes), 3);
	ck_assert_uint_lt(bytes, bitmap.pages / 8 * 104 / 100);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(any_pages_are_the_same_afterwards)
{
	struct dirty_bitmap bitmap;
	uint64_t bytes;

	srand48(_i);
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, 1 + (uint64_t)lrand48() % 30000, NULL), 0);
	for (int i = 0; i < 40; i++) {
		uint64_t first = (uint64_t)lrand48() % bitmap.pages;

		dirty_bitmap_set(&bitmap, first, (uint64_t)lrand48() % (_i % 2 ? 9000 : 70));
	}
	there_and_back(&bitmap, &bytes);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

static const struct {
	uint64_t gpa, len, end;
	size_t bits_len;
	uint64_t bits;
	size_t meta_len;
} bad[] = {
	{ GPA + 2, 4096, 0, 0, 0, 16 },
	{ GPA, 0, 0, 0, 0, 16 },
	{ GPA, 4095, 0, 0, 0, 16 },
	{ GPA, 4096, GPA + 4096, 0, 0, 16 },
	{ UINT64_MAX - 4095, 8192, 0, 0, 0, 16 },
	{ GPA, 4096, 0, 8, 0, 16 },
	{ GPA | 1, 4096, 0, 0, 0, 16 },
	{ GPA | 1, 4096 * 65, 0, 8, 0, 16 },
	{ GPA | 1, 4096, 0, 16, 1, 16 },
	{ GPA | 1, 4096, 0, 8, 2, 16 },
	{ GPA | 1, 4096 * 4097, 0, 8, 0, 16 },
	{ GPA, 4096, 0, 0, 0, 15 },
	{ GPA, 4096, 0, 0, 0, 17 },
	{ GPA, 4096, 0, 0, 0, (PAGE_RUNS_MAX + 1) * 16 },
};

START_TEST(list_that_makes_no_sense_is_refused)
{
	static uint8_t meta[(PAGE_RUNS_MAX + 1) * PAGE_RUN_SIZE];
	struct error err = ERROR_INIT;
	uint8_t bits[16] = { 0 };
	uint64_t end = bad[_i].end;

	ck_assert_int_eq(dirty_bitmap_init(&there, 8192, NULL), 0);
	store_le64(meta, bad[_i].gpa);
	store_le64(meta + 8, bad[_i].len);
	store_le64(bits, bad[_i].bits);
	ck_assert_int_eq(missing_list_decode(meta, bad[_i].meta_len, bits, bad[_i].bits_len, &end,
					     found, NULL, &err),
			 -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.message, "MISSING"));
	dirty_bitmap_destroy(&there);
}
END_TEST

START_TEST(refusal_of_the_caller_ends_it)
{
	uint8_t meta[2 * PAGE_RUN_SIZE];
	struct error err = ERROR_INIT;
	uint64_t end = 0;

	ck_assert_int_eq(dirty_bitmap_init(&there, 8192, NULL), 0);
	runs = 0;
	store_le64(meta, GPA);
	store_le64(meta + 8, 4096);
	store_le64(meta + 16, GPA + 8192);
	store_le64(meta + 24, 4096);
	ck_assert_int_eq(missing_list_decode(meta, sizeof(meta), NULL, 0, &end, found, meta, &err),
			 -ENOSPC);
	ck_assert_uint_eq(runs, 1);
	dirty_bitmap_destroy(&there);
}
END_TEST

static Suite *missing_suite(void)
{
	Suite *suite = suite_create("missing");
	TCase *tcase = tcase_create("list");

	tcase_add_test(tcase, whole_ram_is_one_run);
	tcase_add_test(tcase, every_other_page_takes_a_bit_each);
	tcase_add_loop_test(tcase, any_pages_are_the_same_afterwards, 0, 40);
	tcase_add_loop_test(tcase, list_that_makes_no_sense_is_refused, 0, ARRAY_SIZE(bad));
	tcase_add_test(tcase, refusal_of_the_caller_ends_it);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(missing_suite());
}
