/* SPDX-License-Identifier: Apache-2.0 */
/* RAM that begins as a file's contents and is written to by nobody else. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "memory/guest_memory.h"
#include "tests/unit/helpers/run_suite.h"

#define SIZE (64 * KIB)

static char path[] = "/tmp/ferry-private-XXXXXX";
static int fd;
static struct guest_memory *memory;

static void setup(void)
{
	char page[GUEST_PAGE_SIZE];
	int writer = mkstemp(path);
	struct error err = ERROR_INIT;

	ck_assert_int_ge(writer, 0);
	for (unsigned int i = 0; i < SIZE / GUEST_PAGE_SIZE; i++) {
		memset(page, (int)i + 1, sizeof(page));
		ck_assert_int_eq(write(writer, page, sizeof(page)), sizeof(page));
	}
	close(writer);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	unlink(path);
	memory = guest_memory_new_empty(&err);
	ck_assert_msg(memory != NULL, "%s", err.message);
}

static void teardown(void)
{
	guest_memory_free(memory);
	close(fd);
}

static uint8_t file_byte(off_t at)
{
	uint8_t byte;

	ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
	return byte;
}

START_TEST(empty_memory_has_no_ram)
{
	uint8_t byte = 0;

	ck_assert_uint_eq(guest_memory_size(memory), 0);
	ck_assert_uint_eq(guest_memory_region_count(memory), 0);
	ck_assert_int_eq(guest_memory_read(memory, 0, &byte, 1), -EFAULT);
}
END_TEST

START_TEST(it_reads_as_the_file_and_writes_leave_the_file_alone)
{
	uint8_t byte = 0;

	ck_assert_int_eq(guest_memory_add_private(memory, 0, SIZE, fd, 0, NULL), 0);
	ck_assert_int_eq(guest_memory_read(memory, 3 * GUEST_PAGE_SIZE, &byte, 1), 0);
	ck_assert_uint_eq(byte, 4);
	byte = 0xaa;
	ck_assert_int_eq(guest_memory_write(memory, 3 * GUEST_PAGE_SIZE, &byte, 1), 0);
	byte = 0;
	ck_assert_int_eq(guest_memory_read(memory, 3 * GUEST_PAGE_SIZE, &byte, 1), 0);
	ck_assert_uint_eq(byte, 0xaa);
	ck_assert_uint_eq(file_byte(3 * GUEST_PAGE_SIZE), 4);
}
END_TEST

START_TEST(regions_are_parts_of_the_file_and_outlive_the_descriptor)
{
	uint8_t byte = 0;
	int own = dup(fd);

	ck_assert_int_eq(guest_memory_add_private(memory, 4 * GIB, 2 * GUEST_PAGE_SIZE, own,
						  8 * GUEST_PAGE_SIZE, NULL),
			 0);
	ck_assert_int_eq(guest_memory_add_private(memory, 0, 2 * GUEST_PAGE_SIZE, own, 0, NULL), 0);
	close(own);
	ck_assert_uint_eq(guest_memory_region(memory, 1)->gpa, 4 * GIB);
	ck_assert_int_eq(guest_memory_region(memory, 1)->memfd, -1);
	ck_assert_int_eq(guest_memory_read(memory, 4 * GIB + GUEST_PAGE_SIZE, &byte, 1), 0);
	ck_assert_uint_eq(byte, 10);
}
END_TEST

START_TEST(it_cannot_be_given_back_to_the_host)
{
	uint8_t byte = 0;

	ck_assert_int_eq(guest_memory_add_private(memory, 0, SIZE, fd, 0, NULL), 0);
	ck_assert_int_lt(guest_memory_discard(memory, 0, SIZE), 0);
	ck_assert_int_eq(guest_memory_read(memory, 0, &byte, 1), 0);
	ck_assert_uint_eq(byte, 1);
}
END_TEST

START_TEST(what_does_not_fit_the_file_is_refused)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(guest_memory_add_private(memory, 0, SIZE + GUEST_PAGE_SIZE, fd, 0, &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "0x10000 bytes"));
	ck_assert_int_eq(guest_memory_add_private(memory, 0, SIZE, fd, GUEST_PAGE_SIZE, &err),
			 -EINVAL);
	ck_assert_int_eq(guest_memory_add_private(memory, 0, 100, fd, 0, &err), -EINVAL);
	ck_assert_int_eq(guest_memory_add_private(memory, 7, SIZE, fd, 0, &err), -EINVAL);
	ck_assert_int_eq(guest_memory_add_private(memory, 0, 0, fd, 0, &err), -EINVAL);
	ck_assert_int_eq(guest_memory_add_private(memory, -GUEST_PAGE_SIZE, SIZE, fd, 0, &err),
			 -EINVAL);
	ck_assert_int_eq(guest_memory_add_private(memory, 0, SIZE, -1, 0, &err), -EBADF);
	ck_assert_uint_eq(guest_memory_region_count(memory), 0);
}
END_TEST

START_TEST(an_overlap_is_refused)
{
	ck_assert_int_eq(guest_memory_add_private(memory, 0, SIZE, fd, 0, NULL), 0);
	ck_assert_int_eq(guest_memory_add_private(memory, GUEST_PAGE_SIZE, SIZE, fd, 0, NULL),
			 -EEXIST);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("private guest memory");
	TCase *tcase = tcase_create("private");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, empty_memory_has_no_ram);
	tcase_add_test(tcase, it_reads_as_the_file_and_writes_leave_the_file_alone);
	tcase_add_test(tcase, regions_are_parts_of_the_file_and_outlive_the_descriptor);
	tcase_add_test(tcase, it_cannot_be_given_back_to_the_host);
	tcase_add_test(tcase, what_does_not_fit_the_file_is_refused);
	tcase_add_test(tcase, an_overlap_is_refused);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
