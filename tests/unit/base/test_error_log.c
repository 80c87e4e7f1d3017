/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "tests/unit/helpers/run_suite.h"

START_TEST(error_code_is_negative_whatever_the_sign_given)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(error_set(&err, ENOENT, "open %s", "x"), -ENOENT);
	ck_assert_int_eq(err.code, -ENOENT);
	ck_assert_int_eq(error_set(&err, -EBUSY, "open %s", "x"), -EBUSY);
	ck_assert_str_eq(err.message, "open x");
	ck_assert_int_eq(err.kind, ERROR_FAILED);
}
END_TEST

START_TEST(error_set_errno_appends_its_text)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(error_set_errno(&err, -ENOENT, "open %s", "x"), -ENOENT);
	ck_assert_str_eq(err.message, "open x: No such file or directory");
}
END_TEST

START_TEST(prefix_keeps_code_and_kind)
{
	struct error err = ERROR_INIT;

	error_set_kind(&err, ERROR_CONFLICT, EEXIST, "id is taken");
	ck_assert_int_eq(error_prefix(&err, "add disk %d", 3), -EEXIST);
	ck_assert_int_eq(err.kind, ERROR_CONFLICT);
	ck_assert_str_eq(err.message, "add disk 3: id is taken");
	error_clear(&err);
	ck_assert_int_eq(err.code, 0);
	ck_assert_int_eq(err.kind, ERROR_FAILED);
	ck_assert_str_eq(err.message, "");
}
END_TEST

START_TEST(no_error_wanted_still_gives_the_code)
{
	ck_assert_int_eq(error_set(NULL, EIO, "x"), -EIO);
	ck_assert_int_eq(error_set_errno(NULL, EPERM, "x"), -EPERM);
	ck_assert_int_eq(error_set_kind(NULL, ERROR_NOT_FOUND, ENOENT, "x"), -ENOENT);
	ck_assert_int_eq(error_prefix(NULL, "x"), -EIO);
	error_clear(NULL);
}
END_TEST

START_TEST(long_messages_are_cut_not_overrun)
{
	struct error err = ERROR_INIT;
	char big[2 * ERROR_MESSAGE_MAX];

	memset(big, 'b', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	error_set_errno(&err, EIO, "%s", big);
	ck_assert_uint_eq(strlen(err.message), ERROR_MESSAGE_MAX - 1);
	error_prefix(&err, "what");
	ck_assert_uint_eq(strlen(err.message), ERROR_MESSAGE_MAX - 1);
	ck_assert_int_eq(strncmp(err.message, "what: bbb", 9), 0);
	error_prefix(&err, "%s", big);
	ck_assert_uint_eq(strlen(err.message), ERROR_MESSAGE_MAX - 1);
}
END_TEST

static char path[] = "/tmp/ferry-log-XXXXXX";
static struct log *logger;

static void setup(void)
{
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	close(fd);
	logger = log_new(path, LOG_LEVEL_INFO, NULL);
	ck_assert_ptr_nonnull(logger);
}

static void teardown(void)
{
	log_free(logger);
	unlink(path);
}

static size_t contents(char *buf, size_t len)
{
	FILE *f = fopen(path, "r");
	size_t n = fread(buf, 1, len - 1, f);

	fclose(f);
	buf[n] = '\0';
	return n;
}

static unsigned int lines(void)
{
	static char buf[1 << 20];
	size_t n = contents(buf, sizeof(buf));
	unsigned int count = 0;

	for (size_t i = 0; i < n; i++)
		count += buf[i] == '\n';
	return count;
}

START_TEST(line_has_time_level_thread_and_message)
{
	char buf[1024];
	int at = 0;

	log_warn(logger, "disk %s is %d", "a", 5);
	contents(buf, sizeof(buf));
	sscanf(buf, "%*4u-%*2u-%*2uT%*2u:%*2u:%*2u.%*6uZ WARN %*[^:]: disk a is 5%n", &at);
	ck_assert_msg(at > 0 && buf[at] == '\n' && !buf[at + 1], "%s", buf);
}
END_TEST

START_TEST(levels_above_the_chosen_one_are_dropped)
{
	log_debug(logger, "no");
	ck_assert_uint_eq(lines(), 0);
	log_info(logger, "yes");
	ck_assert_uint_eq(lines(), 1);
	ck_assert(log_enabled(logger, LOG_LEVEL_ERROR));
	ck_assert(!log_enabled(logger, LOG_LEVEL_DEBUG));
	ck_assert(!log_enabled(NULL, LOG_LEVEL_ERROR));
}
END_TEST

START_TEST(control_characters_cannot_forge_lines)
{
	char buf[1024];

	log_err(logger, "guest says %s", "a\nERROR b\r\x1b[2J\x7f\t");
	ck_assert_uint_eq(lines(), 1);
	contents(buf, sizeof(buf));
	ck_assert_ptr_nonnull(strstr(buf, "guest says a?ERROR b??[2J??\n"));
}
END_TEST

START_TEST(long_lines_are_cut_and_still_end)
{
	char big[4096], buf[8192];
	size_t n;

	memset(big, 'b', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_err(logger, "%s", big);
	log_err(logger, "next");
	n = contents(buf, sizeof(buf));
	ck_assert_uint_eq(lines(), 2);
	ck_assert_uint_lt(n, 1024);
	ck_assert_str_eq(buf + n - 5, "next\n");
}
END_TEST

START_TEST(limiter_lets_the_burst_through_then_one_a_second)
{
	struct log_limit limit = LOG_LIMIT_INIT(3);

	for (int i = 0; i < 1000; i++)
		log_limited(logger, &limit, LOG_LEVEL_ERROR, "guest %d", i);
	ck_assert_uint_ge(lines(), 3);
	ck_assert_uint_le(lines(), 5);
	/* a second later one more */
	unsigned int before = lines();

	usleep(1100 * 1000);
	log_limited(logger, &limit, LOG_LEVEL_ERROR, "again");
	log_limited(logger, &limit, LOG_LEVEL_ERROR, "again");
	ck_assert_uint_eq(lines(), before + 1);
}
END_TEST

START_TEST(limiter_does_not_spend_its_burst_on_dropped_levels)
{
	struct log_limit limit = LOG_LIMIT_INIT(2);

	for (int i = 0; i < 10; i++)
		log_limited(logger, &limit, LOG_LEVEL_DEBUG, "no");
	ck_assert_uint_eq(lines(), 0);
	log_limited(logger, &limit, LOG_LEVEL_ERROR, "one");
	log_limited(logger, &limit, LOG_LEVEL_ERROR, "two");
	ck_assert_uint_eq(lines(), 2);
}
END_TEST

START_TEST(logging_to_no_log_does_nothing)
{
	struct log_limit limit = LOG_LIMIT_INIT(1);
	struct error err = ERROR_INIT;

	log_err(NULL, "x");
	log_error(NULL, "x", &err);
	log_limited(NULL, &limit, LOG_LEVEL_ERROR, "x");
	log_free(NULL);
}
END_TEST

#define THREADS 4
#define EACH 500
static void *writer(void *opaque)
{
	for (int i = 0; i < EACH; i++)
		log_info(opaque, "0123456789012345678901234567890123456789");
	return NULL;
}

START_TEST(lines_of_several_threads_do_not_mix)
{
	static char buf[1 << 20];
	pthread_t threads[THREADS];
	unsigned int whole = 0;

	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, writer, logger), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	contents(buf, sizeof(buf));
	for (char *p = buf; (p = strstr(p, ": 0123456789012345678901234567890123456789\n")); p++)
		whole++;
	ck_assert_uint_eq(whole, THREADS * EACH);
	ck_assert_uint_eq(lines(), THREADS * EACH);
}
END_TEST

START_TEST(log_file_that_cannot_be_opened_is_named)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(log_new("/nonexistent/log", LOG_LEVEL_INFO, &err));
	ck_assert_int_eq(err.code, -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.message, "/nonexistent/log"));
}
END_TEST

START_TEST(log_file_is_appended_to)
{
	struct log *other = log_new(path, LOG_LEVEL_INFO, NULL);

	log_info(logger, "a");
	log_info(other, "b");
	log_info(logger, "c");
	log_free(other);
	ck_assert_uint_eq(lines(), 3);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("error and log");
	TCase *error = tcase_create("error"), *log = tcase_create("log");

	tcase_add_test(error, error_code_is_negative_whatever_the_sign_given);
	tcase_add_test(error, error_set_errno_appends_its_text);
	tcase_add_test(error, prefix_keeps_code_and_kind);
	tcase_add_test(error, no_error_wanted_still_gives_the_code);
	tcase_add_test(error, long_messages_are_cut_not_overrun);
	tcase_add_checked_fixture(log, setup, teardown);
	tcase_add_test(log, line_has_time_level_thread_and_message);
	tcase_add_test(log, levels_above_the_chosen_one_are_dropped);
	tcase_add_test(log, control_characters_cannot_forge_lines);
	tcase_add_test(log, long_lines_are_cut_and_still_end);
	tcase_add_test(log, limiter_lets_the_burst_through_then_one_a_second);
	tcase_add_test(log, limiter_does_not_spend_its_burst_on_dropped_levels);
	tcase_add_test(log, logging_to_no_log_does_nothing);
	tcase_add_test(log, lines_of_several_threads_do_not_mix);
	tcase_add_test(log, log_file_that_cannot_be_opened_is_named);
	tcase_add_test(log, log_file_is_appended_to);
	suite_add_tcase(s, error);
	suite_add_tcase(s, log);
	return run_suite(s);
}
