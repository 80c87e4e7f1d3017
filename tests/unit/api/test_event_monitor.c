/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "api/event_monitor.h"
#include "tests/unit/helpers/run_suite.h"

static char dir[] = "/tmp/ferry-events-XXXXXX", path[64];

static void setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/events", dir);
}

static void teardown(void)
{
	unlink(path);
	rmdir(dir);
}

static size_t read_file(char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	size_t n = fread(buf, 1, size - 1, f);

	buf[n] = '\0';
	fclose(f);
	return n;
}

/* Objects one after another with an empty line behind each; returns how many. */
static int check_stream(const char *text)
{
	int n = 0;

	while (*text) {
		const char *end = strstr(text, "\n\n");
		json_t *json;

		ck_assert_ptr_nonnull(end);
		json = json_loadb(text, (size_t)(end - text), 0, NULL);
		ck_assert_msg(json != NULL, "broken event: %s", text);
		json_decref(json);
		text = end + 2;
		n++;
	}
	return n;
}

START_TEST(event_has_cloud_hypervisors_form)
{
	struct error err = ERROR_INIT;
	struct event_monitor *m = event_monitor_new(path, -1, &err);
	char text[4096], *second;
	json_t *json, *time;

	ck_assert_msg(m != NULL, "%s", err.message);
	event_monitor_emit(m, "vm", "booted", NULL);
	event_monitor_emit(m, "virtio-device", "activated", "id", "_disk0", "odd", "\xff", NULL);
	event_monitor_free(m);
	read_file(text, sizeof(text));
	ck_assert_int_eq(check_stream(text), 2);
	second = strstr(text, "\n\n") + 2;
	json = json_loadb(text, (size_t)(second - 2 - text), 0, NULL);
	time = json_object_get(json, "timestamp");
	ck_assert(json_is_integer(json_object_get(time, "secs")));
	ck_assert_int_lt(json_integer_value(json_object_get(time, "nanos")), 1000000000);
	ck_assert_str_eq(json_string_value(json_object_get(json, "source")), "vm");
	ck_assert_str_eq(json_string_value(json_object_get(json, "event")), "booted");
	ck_assert(json_is_null(json_object_get(json, "properties")));
	json_decref(json);
	json = json_loads(second, JSON_DISABLE_EOF_CHECK, NULL);
	ck_assert_str_eq(
		json_string_value(json_object_get(json_object_get(json, "properties"), "id")),
		"_disk0");
	json_decref(json);
}
END_TEST

START_TEST(file_is_appended_to)
{
	struct event_monitor *m;
	char text[4096];

	for (int i = 0; i < 3; i++) {
		m = event_monitor_new(path, -1, NULL);
		event_monitor_emit(m, "vm", "booting", NULL);
		event_monitor_free(m);
	}
	read_file(text, sizeof(text));
	ck_assert_int_eq(check_stream(text), 3);
}
END_TEST

START_TEST(no_monitor_is_a_valid_one)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(event_monitor_new(NULL, -1, &err));
	ck_assert_int_eq(err.code, 0);
	event_monitor_emit(NULL, "vm", "booted", NULL);
	event_monitor_free(NULL);
}
END_TEST

START_TEST(what_cannot_be_opened_is_named)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(event_monitor_new("/nonexistent/events", -1, &err));
	ck_assert_int_eq(err.code, -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.message, "/nonexistent/events"));
	ck_assert_ptr_null(event_monitor_new(NULL, 999, &err));
	ck_assert_int_eq(err.code, -EBADF);
}
END_TEST

/* The stream stays whole although the pipe filled up in the middle of an event. */
START_TEST(reader_that_does_not_read_loses_whole_events_only)
{
	int fds[2];
	struct event_monitor *m;
	static char text[1 << 20];
	size_t used = 0;
	char long_value[3000];
	int got;

	memset(long_value, 'v', sizeof(long_value) - 1);
	long_value[sizeof(long_value) - 1] = '\0';
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	m = event_monitor_new(NULL, fds[1], NULL);
	ck_assert_ptr_nonnull(m);
	for (int round = 0; round < 3; round++) {
		ssize_t n;

		for (int i = 0; i < 500; i++)
			event_monitor_emit(m, "vm", "event", "value", long_value, NULL);
		while ((n = recv(fds[0], text + used, sizeof(text) - 1 - used, MSG_DONTWAIT)) > 0)
			used += (size_t)n;
		ck_assert_uint_lt(used, sizeof(text) - 1);
	}
	event_monitor_emit(m, "vm", "last", NULL);
	used += (size_t)recv(fds[0], text + used, sizeof(text) - 1 - used, 0);
	text[used] = '\0';
	got = check_stream(text);
	ck_assert_int_gt(got, 10);
	ck_assert_int_lt(got, 1500);
	ck_assert_ptr_nonnull(strstr(text, "\"last\""));
	event_monitor_free(m);
	close(fds[0]);
}
END_TEST

START_TEST(fifo_without_reader_does_not_block)
{
	struct error err = ERROR_INIT;
	struct event_monitor *m;

	ck_assert_int_eq(mkfifo(path, 0600), 0);
	m = event_monitor_new(path, -1, &err);
	ck_assert_msg(m != NULL, "%s", err.message);
	for (int i = 0; i < 5000; i++)
		event_monitor_emit(m, "vm", "event", NULL);
	event_monitor_free(m);
}
END_TEST

START_TEST(reader_that_left_is_survived)
{
	struct event_monitor *m;
	int fds[2];

	signal(SIGPIPE, SIG_IGN); /* as ferry does */
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	m = event_monitor_new(NULL, fds[1], NULL);
	close(fds[0]);
	event_monitor_emit(m, "vm", "event", NULL);
	event_monitor_emit(m, "vm", "event", NULL);
	event_monitor_free(m);
}
END_TEST

static void *emit_many(void *m)
{
	for (int i = 0; i < 200; i++)
		event_monitor_emit(m, "vm", "event", "key", "value", NULL);
	return NULL;
}

START_TEST(threads_do_not_mix_their_events)
{
	struct event_monitor *m = event_monitor_new(path, -1, NULL);
	static char text[1 << 20];
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, emit_many, m);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	event_monitor_free(m);
	read_file(text, sizeof(text));
	ck_assert_int_eq(check_stream(text), 800);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("event_monitor");
	TCase *tc = tcase_create("event_monitor");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, event_has_cloud_hypervisors_form);
	tcase_add_test(tc, file_is_appended_to);
	tcase_add_test(tc, no_monitor_is_a_valid_one);
	tcase_add_test(tc, what_cannot_be_opened_is_named);
	tcase_add_test(tc, reader_that_does_not_read_loses_whole_events_only);
	tcase_add_test(tc, fifo_without_reader_does_not_block);
	tcase_add_test(tc, reader_that_left_is_survived);
	tcase_add_test(tc, threads_do_not_mix_their_events);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
