/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "memory/dirty_bitmap.h"
#include "memory/dirty_source.h"

static struct dirty_bitmap bitmap_of(uint64_t pages)
{
	struct dirty_bitmap b;

	ck_assert_int_eq(dirty_bitmap_init(&b, pages, NULL), 0);
	return b;
}

START_TEST(new_bitmap_is_clean)
{
	struct dirty_bitmap b = bitmap_of(130);
	uint64_t first = 0, count = 0;

	ck_assert_uint_eq(dirty_bitmap_count(&b), 0);
	ck_assert(!dirty_bitmap_next_run(&b, &first, &count));
	dirty_bitmap_destroy(&b);
}
END_TEST

static const struct {
	uint64_t first, count, want;
} sets[] = {
	{ 0, 1, 1 },	      { 0, 0, 0 },
	{ 63, 1, 1 },	      { 63, 2, 2 },
	{ 0, 64, 64 },	      { 1, 64, 64 },
	{ 5, 120, 120 },      { 64, 64, 64 },
	{ 0, 130, 130 },      { 129, 1, 1 },
	{ 129, 2, 1 },	      { 130, 1, 0 },
	{ 0, 1000, 130 },     { 100, UINT64_MAX, 30 },
	{ UINT64_MAX, 1, 0 }, { UINT64_MAX, UINT64_MAX, 0 },
};

START_TEST(set_and_clear_touch_just_their_range)
{
	struct dirty_bitmap b = bitmap_of(130);
	uint64_t first = sets[_i].first, count = sets[_i].count;

	dirty_bitmap_set(&b, first, count);
	ck_assert_uint_eq(dirty_bitmap_count(&b), sets[_i].want);
	for (uint64_t page = 0; page < 140; page++)
		ck_assert_int_eq(dirty_bitmap_test(&b, page),
				 page < 130 && page >= first && page - first < count);
	dirty_bitmap_set(&b, 0, 130);
	dirty_bitmap_clear(&b, first, count);
	ck_assert_uint_eq(dirty_bitmap_count(&b), 130 - sets[_i].want);
	dirty_bitmap_destroy(&b);
}
END_TEST

START_TEST(runs_come_in_order_and_cross_words)
{
	static const uint64_t runs[][2] = {
		{ 0, 1 }, { 3, 2 }, { 60, 70 }, { 191, 2 }, { 255, 2 }
	};
	struct dirty_bitmap b = bitmap_of(257);
	uint64_t first = 0, count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(runs); i++)
		dirty_bitmap_set(&b, runs[i][0], runs[i][1]);
	for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
		ck_assert(dirty_bitmap_next_run(&b, &first, &count));
		ck_assert_uint_eq(first, runs[i][0]);
		ck_assert_uint_eq(count, runs[i][1]);
		first += count;
	}
	ck_assert(!dirty_bitmap_next_run(&b, &first, &count));
	first = 61; /* from within a run */
	ck_assert(dirty_bitmap_next_run(&b, &first, &count));
	ck_assert_uint_eq(first, 61);
	ck_assert_uint_eq(count, 69);
	first = UINT64_MAX;
	ck_assert(!dirty_bitmap_next_run(&b, &first, &count));
	dirty_bitmap_destroy(&b);
}
END_TEST

START_TEST(or_keeps_its_source_and_move_empties_it)
{
	struct dirty_bitmap a = bitmap_of(100), b = bitmap_of(100);

	dirty_bitmap_set(&a, 0, 10);
	dirty_bitmap_set(&b, 5, 90);
	dirty_bitmap_or(&a, &b);
	ck_assert_uint_eq(dirty_bitmap_count(&a), 95);
	ck_assert_uint_eq(dirty_bitmap_count(&b), 90);
	dirty_bitmap_clear(&a, 0, 100);
	dirty_bitmap_set(&a, 99, 1);
	dirty_bitmap_move(&a, &b);
	ck_assert_uint_eq(dirty_bitmap_count(&a), 91);
	ck_assert_uint_eq(dirty_bitmap_count(&b), 0);
	dirty_bitmap_destroy(&a);
	dirty_bitmap_destroy(&b);
}
END_TEST

START_TEST(impossible_size_is_an_error)
{
	struct error err = ERROR_INIT;
	struct dirty_bitmap b;

	ck_assert_int_eq(dirty_bitmap_init(&b, UINT64_MAX / 2, &err), -ENOMEM);
	ck_assert_str_ne(err.message, "");
	dirty_bitmap_destroy(&b);
	ck_assert_int_eq(dirty_bitmap_init(&b, 0, &err), 0);
	ck_assert_uint_eq(dirty_bitmap_count(&b), 0);
	dirty_bitmap_destroy(&b);
}
END_TEST

#define SETS 20000
static void *setter(void *opaque)
{
	for (uint64_t i = 0; i < SETS; i++)
		dirty_bitmap_set(opaque, i, 1);
	return NULL;
}

START_TEST(no_bit_is_lost_between_set_and_move)
{
	struct dirty_bitmap a = bitmap_of(SETS), b = bitmap_of(SETS);
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, setter, &b), 0);
	for (int i = 0; i < 1000; i++)
		dirty_bitmap_move(&a, &b);
	pthread_join(thread, NULL);
	dirty_bitmap_move(&a, &b);
	ck_assert_uint_eq(dirty_bitmap_count(&a), SETS);
	dirty_bitmap_destroy(&a);
	dirty_bitmap_destroy(&b);
}
END_TEST

/* RAM [0, 1 MiB) and [4 GiB, 5 MiB on) with its dirty source. */
static struct guest_memory *memory;
static struct dirty_source *source;
static struct dirty_bitmap low, high;

static void setup(void)
{
	struct guest_memory_options options = {
		.size = 2 * MIB,
		.low_end = MIB,
		.high_start = 4 * GIB,
	};

	memory = guest_memory_new(&options, NULL);
	ck_assert_ptr_nonnull(memory);
	source = guest_memory_dirty_source(memory, NULL);
	ck_assert_ptr_nonnull(source);
	ck_assert_str_eq(source->ops->name, "vmm");
	low = bitmap_of(256);
	high = bitmap_of(256);
}

static void teardown(void)
{
	source->ops->free(source);
	guest_memory_free(memory);
	dirty_bitmap_destroy(&low);
	dirty_bitmap_destroy(&high);
}

static void collect(void)
{
	dirty_bitmap_clear(&low, 0, 256);
	dirty_bitmap_clear(&high, 0, 256);
	ck_assert_int_eq(source->ops->collect(source, guest_memory_region(memory, 0), &low, NULL),
			 0);
	ck_assert_int_eq(source->ops->collect(source, guest_memory_region(memory, 1), &high, NULL),
			 0);
}

START_TEST(writes_of_the_vmm_are_collected_once)
{
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	ck_assert_int_eq(guest_memory_write(memory, 4095, "ab", 2), 0);
	ck_assert_int_eq(guest_memory_zero(memory, 4 * GIB + 8192, 4096), 0);
	collect();
	ck_assert_uint_eq(dirty_bitmap_count(&low), 2);
	ck_assert(dirty_bitmap_test(&low, 0) && dirty_bitmap_test(&low, 1));
	ck_assert_uint_eq(dirty_bitmap_count(&high), 1);
	ck_assert(dirty_bitmap_test(&high, 2));
	collect();
	ck_assert_uint_eq(dirty_bitmap_count(&low) + dirty_bitmap_count(&high), 0);
}
END_TEST

START_TEST(collect_adds_to_what_the_bitmap_holds)
{
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	guest_memory_mark_dirty(memory, 0, 1);
	dirty_bitmap_set(&low, 9, 1);
	ck_assert_int_eq(source->ops->collect(source, guest_memory_region(memory, 0), &low, NULL),
			 0);
	ck_assert_uint_eq(dirty_bitmap_count(&low), 2);
}
END_TEST

START_TEST(marks_are_clipped_to_ram)
{
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	guest_memory_mark_dirty(memory, MIB - 1, 4 * GIB); /* across the hole */
	collect();
	ck_assert_uint_eq(dirty_bitmap_count(&low), 1);
	ck_assert_uint_eq(dirty_bitmap_count(&high), 256);
	guest_memory_mark_dirty(memory, 4 * GIB + MIB - 1, UINT64_MAX); /* wraps */
	guest_memory_mark_dirty(memory, MIB, 4 * GIB - MIB);		/* the hole */
	guest_memory_mark_dirty(memory, UINT64_MAX, 1);
	guest_memory_mark_dirty(memory, 0, 0);
	collect();
	ck_assert_uint_eq(dirty_bitmap_count(&low), 0);
	ck_assert_uint_eq(dirty_bitmap_count(&high), 1);
	ck_assert(dirty_bitmap_test(&high, 255));
}
END_TEST

START_TEST(failed_write_and_reads_mark_nothing)
{
	char c;

	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	ck_assert_int_eq(guest_memory_write(memory, MIB - 1, "ab", 2), -EFAULT);
	ck_assert_int_eq(guest_memory_read(memory, 0, &c, 1), 0);
	collect();
	ck_assert_uint_eq(dirty_bitmap_count(&low) + dirty_bitmap_count(&high), 0);
}
END_TEST

START_TEST(discard_marks_what_became_zero)
{
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	ck_assert_int_eq(guest_memory_discard(memory, 4096, 8192), 0);
	collect();
	ck_assert_uint_eq(dirty_bitmap_count(&low), 2);
}
END_TEST

START_TEST(restart_forgets_what_was_before)
{
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	guest_memory_mark_dirty(memory, 0, 4096);
	source->ops->stop(source);
	guest_memory_mark_dirty(memory, 4096, 4096);
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	collect();
	ck_assert_uint_eq(dirty_bitmap_count(&low), 0);
}
END_TEST

START_TEST(second_source_cannot_start_and_stops_nothing)
{
	struct dirty_source *other = guest_memory_dirty_source(memory, NULL);

	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	ck_assert_int_eq(other->ops->start(other, NULL), -EBUSY);
	other->ops->free(other);
	guest_memory_mark_dirty(memory, 0, 1);
	collect();
	ck_assert_uint_eq(dirty_bitmap_count(&low), 1);
}
END_TEST

START_TEST(collect_refuses_what_it_does_not_cover)
{
	const struct guest_memory_region *region = guest_memory_region(memory, 0);
	struct guest_memory_region foreign = *region;
	struct dirty_bitmap small = bitmap_of(255);
	struct error err = ERROR_INIT;

	ck_assert_int_eq(source->ops->collect(source, region, &low, &err),
			 -EINVAL); /* not started */
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	ck_assert_int_eq(source->ops->collect(source, &foreign, &low, &err), -ENOENT);
	ck_assert_int_eq(source->ops->collect(source, region, &small, &err), -EINVAL);
	dirty_bitmap_destroy(&small);
}
END_TEST

START_TEST(region_added_while_tracking_starts_dirty)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_eq(ftruncate(fd, MIB), 0);
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	ck_assert_int_eq(guest_memory_add(memory, MIB, MIB, fd, 0, NULL), 0);
	ck_assert_int_eq(source->ops->collect(source, guest_memory_find(memory, MIB), &low, NULL),
			 0);
	ck_assert_uint_eq(dirty_bitmap_count(&low), 256);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dirty");
	TCase *bitmap = tcase_create("bitmap"), *writes = tcase_create("vmm writes");
	SRunner *runner;
	int failed;

	tcase_add_test(bitmap, new_bitmap_is_clean);
	tcase_add_loop_test(bitmap, set_and_clear_touch_just_their_range, 0, ARRAY_SIZE(sets));
	tcase_add_test(bitmap, runs_come_in_order_and_cross_words);
	tcase_add_test(bitmap, or_keeps_its_source_and_move_empties_it);
	tcase_add_test(bitmap, impossible_size_is_an_error);
	tcase_add_test(bitmap, no_bit_is_lost_between_set_and_move);
	tcase_add_checked_fixture(writes, setup, teardown);
	tcase_add_test(writes, writes_of_the_vmm_are_collected_once);
	tcase_add_test(writes, collect_adds_to_what_the_bitmap_holds);
	tcase_add_test(writes, marks_are_clipped_to_ram);
	tcase_add_test(writes, failed_write_and_reads_mark_nothing);
	tcase_add_test(writes, discard_marks_what_became_zero);
	tcase_add_test(writes, restart_forgets_what_was_before);
	tcase_add_test(writes, second_source_cannot_start_and_stops_nothing);
	tcase_add_test(writes, collect_refuses_what_it_does_not_cover);
	tcase_add_test(writes, region_added_while_tracking_starts_dirty);
	suite_add_tcase(s, bitmap);
	suite_add_tcase(s, writes);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
