/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "migration/url.h"
#include "tests/unit/helpers/run_suite.h"

static const struct {
	const char *text;
	int family;
	uint16_t port;
} good[] = {
	{ "tcp:127.0.0.1:4444", AF_INET, 4444 }, { "tcp:localhost:1", AF_INET, 1 },
	{ "tcp:[::1]:65535", AF_INET6, 65535 },	 { "tcp:[fe80::1:2]:80", AF_INET6, 80 },
	{ "tcp:0.0.0.0:49152", AF_INET, 49152 }, { "unix:/run/ferry/m.sock", AF_UNIX, 0 },
	{ "unix:relative/path", AF_UNIX, 0 },
};

START_TEST(urls_of_both_kinds_are_read)
{
	struct url url;

	ck_assert_int_eq(url_parse(&url, good[_i].text, NULL), 0);
	ck_assert_int_eq(url.address.ss_family, good[_i].family);
	ck_assert_int_eq(url.tcp, good[_i].family != AF_UNIX);
	ck_assert_str_eq(url.text, good[_i].text);
	if (good[_i].family == AF_INET)
		ck_assert_uint_eq(ntohs(((struct sockaddr_in *)&url.address)->sin_port),
				  good[_i].port);
	if (good[_i].family == AF_INET6)
		ck_assert_uint_eq(ntohs(((struct sockaddr_in6 *)&url.address)->sin6_port),
				  good[_i].port);
	if (good[_i].family == AF_UNIX)
		ck_assert_str_eq(((struct sockaddr_un *)&url.address)->sun_path, good[_i].text + 5);
}
END_TEST

START_TEST(host_is_told_as_it_was_given)
{
	static const struct {
		const char *text, *host;
	} hosts[] = {
		{ "tcp:127.0.0.1:4444", "127.0.0.1" },
		{ "tcp:localhost:1", "localhost" },
		{ "tcp:[fe80::1:2]:80", "fe80::1:2" },
		{ "unix:/run/a:b", "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		char host[URL_HOST_MAX];
		struct url url;

		ck_assert_int_eq(url_parse(&url, hosts[i].text, NULL), 0);
		url_host(&url, host);
		ck_assert_str_eq(host, hosts[i].host);
	}
}
END_TEST

static const struct {
	const char *text, *why;
} bad[] = {
	{ "", "neither" },
	{ "http://host", "neither" },
	{ "file:///x", "neither" },
	{ "unix:", "path is missing" },
	{ "tcp:", "port is missing" },
	{ "tcp:127.0.0.1", "port is missing" },
	{ "tcp:[::1]", "port is missing" },
	{ "tcp:127.0.0.1:", "no number" },
	{ "tcp:127.0.0.1:0", "no number" },
	{ "tcp:127.0.0.1:65536", "no number" },
	{ "tcp:127.0.0.1:80x", "no number" },
	{ "tcp:127.0.0.1:-1", "no number" },
	{ "tcp::80", "no address" },
	{ "tcp:::1:80", "in brackets" },
	{ "tcp:[127.0.0.1]:80", "names are not resolved" },
	{ "tcp:[::1:80", "names are not resolved" },
	{ "tcp:[]:80", "names are not resolved" },
	{ "tcp:example.org:80", "names are not resolved" },
	{ "tcp:256.1.1.1:80", "names are not resolved" },
	{ "tcp://127.0.0.1:80", "names are not resolved" },
};

START_TEST(what_is_no_url_is_refused_with_the_reason)
{
	struct error err = ERROR_INIT;
	struct url url;

	ck_assert_int_eq(url_parse(&url, bad[_i].text, &err), -EINVAL);
	ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
	ck_assert_msg(strstr(err.message, bad[_i].why), "%s", err.message);
}
END_TEST

START_TEST(long_urls_are_refused)
{
	char text[2000] = "unix:";
	struct url url;

	memset(text + 5, 'x', 107);
	ck_assert_int_eq(url_parse(&url, text, NULL), 0);
	memset(text + 5, 'x', 108);
	ck_assert_int_eq(url_parse(&url, text, NULL), -EINVAL);
	memset(text + 5, 'x', sizeof(text) - 6);
	ck_assert_int_eq(url_parse(&url, text, NULL), -EINVAL);
}
END_TEST

static struct url unix_url(void)
{
	struct url url;
	char text[64];

	snprintf(text, sizeof(text), "unix:/tmp/ferry-test-url-%d", getpid());
	ck_assert_int_eq(url_parse(&url, text, NULL), 0);
	return url;
}

START_TEST(connection_comes_about_and_is_non_blocking)
{
	struct url url = unix_url();
	int listener, a, b;

	if (_i) {
		/* any free port: try some */
		listener = -1;
		for (int port = 40000 + getpid() % 20000; listener < 0; port++) {
			char text[32];

			snprintf(text, sizeof(text), "tcp:%s:%d", _i == 1 ? "127.0.0.1" : "[::1]",
				 port);
			ck_assert_int_eq(url_parse(&url, text, NULL), 0);
			listener = url_listen(&url, NULL, NULL);
			if (listener == -EADDRNOTAVAIL || listener == -EAFNOSUPPORT)
				return; /* no IPv6 here */
		}
	} else {
		listener = url_listen(&url, NULL, NULL);
	}
	ck_assert_int_ge(listener, 0);
	ck_assert_int_eq(accept(listener, NULL, NULL), -1);
	ck_assert_int_eq(errno, EAGAIN);
	a = url_connect(&url, NULL, 1000, -1, NULL);
	ck_assert_int_ge(a, 0);
	poll(&(struct pollfd){ .fd = listener, .events = POLLIN }, 1, 1000);
	b = accept(listener, NULL, NULL);
	ck_assert_int_ge(b, 0);
	ck_assert_int_eq(write(a, "x", 1), 1);
	ck_assert_int_eq(read(b, &(char){ 0 }, 1), 1);
	ck_assert_int_eq(read(a, &(char){ 0 }, 1), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_eq(url_listen(&url, NULL, NULL), -EADDRINUSE);
	close(a);
	close(b);
	close(listener);
	url_remove(&url, NULL);
}
END_TEST

START_TEST(file_that_nobody_listens_on_is_replaced_and_removed)
{
	struct url url = unix_url();
	const char *path = ((struct sockaddr_un *)&url.address)->sun_path;
	struct error err = ERROR_INIT;
	int fd = url_listen(&url, NULL, NULL);
	FILE *file;

	close(fd);
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_int_eq(url_connect(&url, NULL, 100, -1, &err), -ECONNREFUSED);
	ck_assert_ptr_nonnull(strstr(err.message, url.text));
	fd = url_listen(&url, NULL, NULL);
	ck_assert_int_ge(fd, 0);
	close(fd);
	url_remove(&url, NULL);
	ck_assert_int_ne(access(path, F_OK), 0);
	ck_assert_int_eq(url_connect(&url, NULL, 100, -1, NULL), -ENOENT);
	/* What is no socket stays. */
	file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fclose(file);
	ck_assert_int_eq(url_listen(&url, NULL, NULL), -EADDRINUSE);
	url_remove(&url, NULL);
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

START_TEST(full_backlog_ends_by_time_or_cancel)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct url url = unix_url();
	int listener, cancel = eventfd_new(), first;

	memcpy(&un, &url.address, sizeof(un));
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&un, url.len), 0);
	ck_assert_int_eq(listen(listener, 0), 0);
	first = url_connect(&url, NULL, 100, -1, NULL);
	ck_assert_int_ge(first, 0);
	ck_assert_int_eq(url_connect(&url, NULL, 50, -1, NULL), -ETIMEDOUT);
	eventfd_signal(cancel);
	ck_assert_int_eq(url_connect(&url, NULL, -1, cancel, NULL), -ECANCELED);
	close(first);
	close(listener);
	close(cancel);
	url_remove(&url, NULL);
}
END_TEST

static Suite *url_suite(void)
{
	Suite *suite = suite_create("url");
	TCase *tcase = tcase_create("url");

	tcase_add_loop_test(tcase, urls_of_both_kinds_are_read, 0, ARRAY_SIZE(good));
	tcase_add_test(tcase, host_is_told_as_it_was_given);
	tcase_add_loop_test(tcase, what_is_no_url_is_refused_with_the_reason, 0, ARRAY_SIZE(bad));
	tcase_add_test(tcase, long_urls_are_refused);
	tcase_add_loop_test(tcase, connection_comes_about_and_is_non_blocking, 0, 3);
	tcase_add_test(tcase, file_that_nobody_listens_on_is_replaced_and_removed);
	tcase_add_test(tcase, full_backlog_ends_by_time_or_cancel);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(url_suite());
}
