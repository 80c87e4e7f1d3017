/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "memory/guest_memory.h"

#define EXTENT (2 * MIB)
#define LOW (16 * MIB)
#define HIGH 0x100000000ULL

static struct guest_memory *make(uint64_t size, bool transparent_hugepages)
{
	struct guest_memory_options o = {
		.size = size,
		.low_end = LOW,
		.high_start = HIGH,
		.transparent_hugepages = transparent_hugepages,
	};
	struct guest_memory *m = guest_memory_new(&o, NULL);

	ck_assert_ptr_nonnull(m);
	return m;
}

static uint64_t allocated(const struct guest_memory *m)
{
	struct stat st;

	ck_assert_int_eq(fstat(guest_memory_region(m, 0)->memfd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* Whether this host's kernel makes huge pages of a memfd when it is told to. */
static bool host_collapses(void)
{
	struct guest_memory *m = make(LOW, true);
	uint8_t *hva = guest_memory_ptr(m, 0, EXTENT);
	bool can;

	hva[0] = 1;
	can = !madvise(hva, EXTENT, 25);
	guest_memory_free(m);
	return can;
}

START_TEST(prefaulted_ram_is_all_there_and_keeps_its_contents)
{
	for (int in_use = 0; in_use < 2; in_use++)
		for (int huge = 0; huge < 2; huge++) {
			struct guest_memory *m = make(LOW + 3 * GUEST_PAGE_SIZE, huge);
			uint32_t value = 0x600d1dea, read = 0;

			ck_assert_int_eq(guest_memory_write(m, EXTENT + 8, &value, 4), 0);
			ck_assert_int_eq(guest_memory_prefault(m, in_use, NULL), 0);
			ck_assert_uint_ge(allocated(m), LOW + 3 * GUEST_PAGE_SIZE);
			ck_assert_int_eq(guest_memory_read(m, EXTENT + 8, &read, 4), 0);
			ck_assert_uint_eq(read, value);
			ck_assert_int_eq(guest_memory_read(m, HIGH + 2 * GUEST_PAGE_SIZE, &read, 4),
					 0);
			ck_assert_uint_eq(read, 0);
			guest_memory_free(m);
		}
}
END_TEST

START_TEST(expected_ram_is_allocated_in_whole_extents)
{
	struct guest_memory *m = make(LOW, true);

	if (_i)
		guest_memory_expect(m, EXTENT + 4096, EXTENT,
				    _i == 1 ? EXPECT_UPWARDS : EXPECT_DOWNWARDS);
	else
		guest_memory_make_huge(m, EXTENT + 4096, EXTENT);
	guest_memory_expect_wait(m);
	ck_assert_uint_eq(allocated(m), host_collapses() ? 2 * EXTENT : 2 * GUEST_PAGE_SIZE);
	guest_memory_free(m);
}
END_TEST

START_TEST(expecting_keeps_what_is_there)
{
	struct guest_memory *m = make(LOW, true);
	char text[8] = "", meanwhile[10] = "";

	ck_assert_int_eq(guest_memory_write(m, 0, "first", 6), 0);
	ck_assert_int_eq(guest_memory_write(m, EXTENT - 6, "last!", 6), 0);
	guest_memory_expect(m, 0, EXTENT, EXPECT_UPWARDS);
	guest_memory_expect(m, 0, EXTENT, EXPECT_UPWARDS);
	ck_assert_int_eq(guest_memory_write(m, EXTENT / 4, "meanwhile", 10), 0);
	guest_memory_expect_wait(m);
	ck_assert_int_eq(guest_memory_read(m, EXTENT / 4, meanwhile, 10), 0);
	ck_assert_str_eq(meanwhile, "meanwhile");
	ck_assert_int_eq(guest_memory_read(m, 0, text, 6), 0);
	ck_assert_str_eq(text, "first");
	ck_assert_int_eq(guest_memory_read(m, EXTENT - 6, text, 6), 0);
	ck_assert_str_eq(text, "last!");
	ck_assert_int_eq(guest_memory_read(m, EXTENT / 2, text, 6), 0);
	ck_assert_str_eq(text, "");
	guest_memory_free(m);
}
END_TEST

START_TEST(expected_range_may_cross_the_hole_and_the_end)
{
	/* The second region ends with half an extent, which stays as it is. */
	struct guest_memory *m = make(LOW + EXTENT + EXTENT / 2, true);

	guest_memory_expect(m, LOW - EXTENT, UINT64_MAX, EXPECT_UPWARDS);
	guest_memory_expect_wait(m);
	ck_assert_uint_eq(allocated(m), host_collapses() ? 2 * EXTENT : 2 * GUEST_PAGE_SIZE);
	guest_memory_free(m);
}
END_TEST

START_TEST(one_call_after_another_and_more_than_fit_are_advice)
{
	struct guest_memory *m = make(LOW, true);

	for (int i = 0; i < 3; i++) {
		guest_memory_expect(m, 0, EXTENT, EXPECT_UPWARDS);
		guest_memory_expect_wait(m);
		guest_memory_expect_wait(m);
	}
	ck_assert_uint_eq(allocated(m), host_collapses() ? EXTENT : GUEST_PAGE_SIZE);
	for (int i = 0; i < 100; i++)
		guest_memory_expect(m, EXTENT, EXTENT, EXPECT_UPWARDS);
	guest_memory_expect_wait(m);
	ck_assert_uint_ge(allocated(m), host_collapses() ? 2 * EXTENT : 2 * GUEST_PAGE_SIZE);
	guest_memory_free(m);
}
END_TEST

START_TEST(ram_is_freed_while_it_is_being_allocated)
{
	for (int i = 0; i < 20; i++) {
		struct guest_memory *m = make(LOW, true);

		guest_memory_expect(m, 0, LOW, EXPECT_UPWARDS);
		guest_memory_free(m);
	}
}
END_TEST

START_TEST(nothing_is_allocated_outside_of_ram_or_for_nothing)
{
	struct guest_memory *m = make(LOW, true);

	guest_memory_expect(m, LOW, HIGH, EXPECT_UPWARDS);
	guest_memory_expect(m, 0, 0, EXPECT_UPWARDS);
	guest_memory_expect(m, UINT64_MAX, UINT64_MAX, EXPECT_UPWARDS);
	guest_memory_expect_wait(m);
	ck_assert_uint_eq(allocated(m), 0);
	guest_memory_free(m);
}
END_TEST

START_TEST(without_huge_pages_wanted_nothing_is_allocated)
{
	struct guest_memory *m = make(LOW, false);

	guest_memory_expect(m, 0, LOW, EXPECT_UPWARDS);
	guest_memory_expect_wait(m);
	ck_assert_uint_eq(allocated(m), 0);
	guest_memory_free(m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("guest_memory_expect");
	TCase *t = tcase_create("expect");
	SRunner *runner;
	int failed;

	tcase_add_test(t, prefaulted_ram_is_all_there_and_keeps_its_contents);
	tcase_add_loop_test(t, expected_ram_is_allocated_in_whole_extents, 0, 3);
	tcase_add_test(t, expecting_keeps_what_is_there);
	tcase_add_test(t, expected_range_may_cross_the_hole_and_the_end);
	tcase_add_test(t, one_call_after_another_and_more_than_fit_are_advice);
	tcase_add_test(t, ram_is_freed_while_it_is_being_allocated);
	tcase_add_test(t, nothing_is_allocated_outside_of_ram_or_for_nothing);
	tcase_add_test(t, without_huge_pages_wanted_nothing_is_allocated);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
