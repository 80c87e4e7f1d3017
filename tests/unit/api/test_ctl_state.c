/* SPDX-License-Identifier: Apache-2.0 */
/* The program ferryctl shows a state tree, without a ferry. */
#include <check.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "tests/unit/helpers/ctl_fake.h"
#include "tests/unit/helpers/golden.h"
#include "tests/unit/helpers/run_suite.h"

#define TREE "state-tree-v1"

static char folder[] = "/tmp/ferry-ctl-state-XXXXXX";

static void make_folder(void)
{
	unsetenv("FERRY_API_SOCKET");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	ck_assert_int_eq(chdir(folder), 0);
}

static void remove_folder(void)
{
	unlink("state");
	ck_assert_int_eq(rmdir(folder), 0);
}

static void put_state(const void *data, size_t len)
{
	int fd = open("state", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	close(fd);
}

static void shows(const char *words, const char *expected)
{
	struct ctl_outcome o = ctl_run(words);

	ck_assert_str_eq(o.err, "");
	ck_assert_int_eq(o.status, CTL_OK);
	ck_assert_str_eq(o.out, expected);
	ctl_outcome_free(&o);
}

static void fails(const char *words, int status, const char *expected)
{
	struct ctl_outcome o = ctl_run(words);

	ck_assert_int_eq(o.status, status);
	ck_assert_str_eq(o.out, "");
	ck_assert_str_eq(o.err, expected);
	ctl_outcome_free(&o);
}

START_TEST(a_file_and_a_snapshots_folder_are_shown)
{
	size_t len, size;
	char *blob = golden_file(TREE ".dtb", &len), *text = golden_file(TREE ".txt", &size);

	make_folder();
	put_state(blob, len);
	shows("state|show|state", text);
	shows("state|show|.", text);
	remove_folder();
	free(text);
	free(blob);
}
END_TEST

START_TEST(what_is_no_state_is_refused)
{
	size_t len;
	char *blob = golden_file(TREE ".dtb", &len);

	make_folder();
	fails("state|show|none", CTL_FAILED,
	      "ferryctl: state: open none: No such file or directory\n");
	fails("state|show|.", CTL_FAILED,
	      "ferryctl: state: . is no snapshot: there is no file state in it\n");
	put_state(blob, len - 1);
	fails("state|show|.", CTL_FAILED,
	      "ferryctl: state: ./state: state tree: 883 bytes, where its header says 884\n");
	ck_assert_int_eq(truncate("state", 0), 0);
	fails("state|show|state", CTL_FAILED,
	      "ferryctl: state: state: state tree: this is none (no device tree header)\n");
	ck_assert_int_eq(truncate("state", STATE_TREE_SIZE_MAX + 1L), 0);
	fails("state|show|state", CTL_FAILED,
	      "ferryctl: state: state: larger than the 64 MiB of any state tree\n");
	fails("state|show|/dev/zero", CTL_FAILED, "ferryctl: state: /dev/zero: is no file\n");
	ck_assert_int_eq(unlink("state"), 0);
	ck_assert_int_eq(mkfifo("state", 0600), 0);
	fails("state|show|state", CTL_FAILED, "ferryctl: state: state: is no file\n");
	remove_folder();
	free(blob);
}
END_TEST

START_TEST(wrong_usage_is_said)
{
	static const struct {
		const char *words, *err;
	} wrong[] = {
		{ "state", "what to do is missing: show FILE" },
		{ "state|list", "unknown argument \"list\": it must be show" },
		{ "state|show", "the file or folder to show is missing" },
		{ "state|show|", "the file or folder to show is missing" },
		{ "state|show|a|b", "unexpected argument \"b\"" },
		{ "state|show|a|--json", "there is no --json of this" },
	};
	char expected[256];

	snprintf(expected, sizeof(expected), "ferryctl: state: %s (see ferryctl state --help)\n",
		 wrong[_i].err);
	fails(wrong[_i].words, CTL_USAGE, expected);
}
END_TEST

START_TEST(help_has_an_example)
{
	struct ctl_outcome o = ctl_run("state|--help");

	ck_assert_int_eq(o.status, CTL_OK);
	ck_assert_ptr_nonnull(strstr(o.out, "Usage: ferryctl state show FILE\n"));
	ck_assert_ptr_nonnull(strstr(o.out, "Examples:\n  ferryctl state show "));
	ctl_outcome_free(&o);
}
END_TEST

static Suite *ctl_state_suite(void)
{
	Suite *suite = suite_create("ferryctl state");
	TCase *test = tcase_create("state show");

	tcase_add_test(test, a_file_and_a_snapshots_folder_are_shown);
	tcase_add_test(test, what_is_no_state_is_refused);
	tcase_add_loop_test(test, wrong_usage_is_said, 0, 6);
	tcase_add_test(test, help_has_an_example);
	suite_add_tcase(suite, test);
	return suite;
}

int main(void)
{
	return run_suite(ctl_state_suite());
}
