/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/kept.h"
#include "tests/unit/helpers/run_suite.h"

static bool same_file(int a, int b)
{
	struct stat x, y;

	return !fstat(a, &x) && !fstat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

START_TEST(what_is_added_is_a_copy_that_is_taken_once)
{
	struct kept kept = { .count = 0 };
	int fds[2], taken;

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	ck_assert_int_eq(kept_add(&kept, fds[0], "abc", 3, NULL, "_disk%d/file", 0), 0);
	ck_assert_int_eq(kept_add(&kept, -1, "x", 1, NULL, "facts"), 0);
	ck_assert_uint_eq(kept.count, 2);
	taken = kept_take(&kept, "_disk%u/file", 0U);
	ck_assert_int_ge(taken, 0);
	ck_assert_int_ne(taken, fds[0]);
	ck_assert(same_file(taken, fds[0]));
	ck_assert(fcntl(taken, F_GETFD) & FD_CLOEXEC);
	ck_assert_int_eq(kept_take(&kept, "_disk0/file"), -1);
	ck_assert_int_eq(kept_take(&kept, "facts"), -1);
	ck_assert(kept_has(&kept, "facts") && !kept_has(&kept, "fact"));
	ck_assert_int_eq(memcmp(kept_facts(&kept, 3, "_disk0/file"), "abc", 3), 0);
	ck_assert_ptr_null(kept_facts(&kept, 2, "_disk0/file"));
	ck_assert_ptr_null(kept_facts(NULL, 2, "_disk0/file"));
	ck_assert_int_eq(kept_take(NULL, "any"), -1);
	close(taken);
	kept_destroy(&kept);
	ck_assert_uint_eq(kept.count, 0);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

START_TEST(what_is_left_is_closed)
{
	struct kept kept = { .count = 0 };
	int fds[2];
	char byte;

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	ck_assert_int_eq(kept_put(&kept, "end", fds[1], NULL, 0, NULL), 0);
	kept_destroy(&kept);
	ck_assert_int_eq(read(fds[0], &byte, 1), 0);
	close(fds[0]);
}
END_TEST

START_TEST(each_of_thousands_is_found_and_there_once)
{
	struct kept kept = { .count = 0 };

	ck_assert(!kept_has(&kept, "0/name"));
	for (unsigned int i = 0; i < KEPT_ENTRIES_MAX; i++) {
		ck_assert_int_eq(kept_add(&kept, -1, &i, sizeof(i), NULL, "%u/name", i), 0);
		ck_assert_int_eq(kept_add(&kept, -1, &i, sizeof(i), NULL, "%u/name", i / 2),
				 -EEXIST);
	}
	ck_assert_int_eq(kept_put(&kept, "one more", -1, NULL, 0, NULL), -E2BIG);
	for (unsigned int i = 0; i < KEPT_ENTRIES_MAX; i++) {
		const void *facts = kept_facts(&kept, sizeof(i), "%u/name", i);

		ck_assert_ptr_nonnull(facts);
		ck_assert_int_eq(memcmp(facts, &i, sizeof(i)), 0);
		ck_assert(!kept_has(&kept, "%u/nam", i));
	}
	kept_destroy(&kept);
	ck_assert(!kept_has(&kept, "0/name"));
}
END_TEST

START_TEST(names_and_facts_have_limits)
{
	static const char data[KEPT_DATA_MAX + 1];
	struct kept kept = { .count = 0 };
	struct error err = ERROR_INIT;
	char name[KEPT_NAME_MAX + 1];

	memset(name, 'n', sizeof(name));
	name[KEPT_NAME_MAX] = '\0';
	ck_assert_int_eq(kept_put(&kept, name, -1, NULL, 0, &err), -EINVAL);
	ck_assert_int_eq(kept_add(&kept, -1, NULL, 0, &err, "%s", name), -EINVAL);
	ck_assert_int_eq(kept_take(&kept, "%s", name), -1);
	name[KEPT_NAME_MAX - 1] = '\0';
	ck_assert_int_eq(kept_put(&kept, name, -1, NULL, 0, &err), 0);
	ck_assert_int_eq(kept_put(&kept, name, -1, NULL, 0, &err), -EEXIST);
	ck_assert_int_eq(kept_put(&kept, "", -1, NULL, 0, &err), -EINVAL);
	ck_assert_int_eq(kept_put(&kept, "big", -1, data, sizeof(data), &err), -EINVAL);
	ck_assert_int_eq(kept_put(&kept, "big", -1, data, sizeof(data) - 1, &err), 0);
	kept_destroy(&kept);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kept");
	TCase *c = tcase_create("kept");

	tcase_add_test(c, what_is_added_is_a_copy_that_is_taken_once);
	tcase_add_test(c, what_is_left_is_closed);
	tcase_add_test(c, each_of_thousands_is_found_and_there_once);
	tcase_add_test(c, names_and_facts_have_limits);
	suite_add_tcase(s, c);
	return run_suite(s);
}
