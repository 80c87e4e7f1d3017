/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "tests/unit/helpers/run_suite.h"

static int pair[2];

static void setup(void)
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

static void teardown(void)
{
	close(pair[0]);
	close(pair[1]);
}

static unsigned int open_fds(void)
{
	unsigned int count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void *slow_writer(void *opaque)
{
	for (int i = 0; i < 10; i++) {
		usleep(2000);
		ck_assert_int_eq(write(pair[0], "x", 1), 1);
	}
	return NULL;
}

START_TEST(read_full_puts_short_reads_together)
{
	pthread_t thread;
	char buf[10];

	ck_assert_int_eq(pthread_create(&thread, NULL, slow_writer, NULL), 0);
	ck_assert_int_eq(fd_read_full(pair[1], buf, sizeof(buf)), 0);
	ck_assert_mem_eq(buf, "xxxxxxxxxx", 10);
	pthread_join(thread, NULL);
}
END_TEST

START_TEST(early_end_is_told_from_an_error)
{
	char buf[10];

	ck_assert_int_eq(fd_write_full(pair[0], "abc", 3), 0);
	shutdown(pair[0], SHUT_WR);
	ck_assert_int_eq(fd_read_full(pair[1], buf, 4), -ENODATA);
	ck_assert_int_eq(fd_read_full(-1, buf, 4), -EBADF);
	ck_assert_int_eq(fd_write_full(-1, buf, 4), -EBADF);
}
END_TEST

START_TEST(pread_full_leaves_the_position)
{
	char path[] = "/tmp/ferry-fd-XXXXXX", buf[4];
	int fd = mkstemp(path);

	unlink(path);
	ck_assert_int_eq(fd_write_full(fd, "0123456789", 10), 0);
	ck_assert_int_eq(fd_pread_full(fd, buf, 4, 3), 0);
	ck_assert_mem_eq(buf, "3456", 4);
	ck_assert_int_eq(lseek(fd, 0, SEEK_CUR), 10);
	ck_assert_int_eq(fd_pread_full(fd, buf, 4, 8), -ENODATA);
	close(fd);
}
END_TEST

START_TEST(nonblocking_goes_on_and_off)
{
	char c;

	ck_assert_int_eq(fd_set_nonblocking(pair[0], true), 0);
	ck_assert_int_eq(read(pair[0], &c, 1), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_eq(fd_set_nonblocking(pair[0], false), 0);
	ck_assert_int_eq(fcntl(pair[0], F_GETFL) & O_NONBLOCK, 0);
	ck_assert_int_eq(fd_set_nonblocking(-1, true), -EBADF);
}
END_TEST

/* Of the table, as the kernel tells: it only grows. */
static unsigned int table_size(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned int size = 0;
	char line[256];

	while (fgets(line, sizeof(line), file))
		sscanf(line, "FDSize: %u", &size);
	fclose(file);
	return size;
}

START_TEST(room_for_descriptors_is_made_before_they_are)
{
	const struct rlimit limit = { 600, 600 };
	unsigned int before = open_fds();

	ck_assert_uint_lt(table_size(), 512);
	ck_assert_int_eq(fd_reserve(pair[0], 0), 0);
	ck_assert_int_eq(fd_reserve(pair[0], 500), 0);
	ck_assert_uint_ge(table_size(), 500);
	ck_assert_uint_eq(open_fds(), before);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(fd_reserve(pair[0], 601), -EMFILE);
	ck_assert_uint_eq(open_fds(), before);
	ck_assert_int_eq(fd_reserve(-1, 1), -EBADF);
}
END_TEST

START_TEST(eventfd_signals_and_drains)
{
	int fd = eventfd_new();
	uint64_t full = UINT64_MAX - 1;

	ck_assert_int_ge(fd, 0);
	ck_assert(!eventfd_drain(fd));
	eventfd_signal(fd);
	eventfd_signal(fd);
	ck_assert(eventfd_drain(fd));
	ck_assert(!eventfd_drain(fd));
	ck_assert_int_eq(write(fd, &full, sizeof(full)), 8);
	eventfd_signal(fd); /* saturated: does not block */
	ck_assert(eventfd_drain(fd));
	close(fd);
}
END_TEST

START_TEST(descriptors_travel_with_their_bytes)
{
	int sent[2] = { eventfd_new(), eventfd_new() }, got[4];
	unsigned int n = 4;
	char buf[16];

	ck_assert_int_eq(fd_send(pair[0], "hello", 5, sent, 2), 0);
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), got, &n), 5);
	ck_assert_uint_eq(n, 2);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(fcntl(got[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
		eventfd_signal(sent[i]);
		ck_assert(eventfd_drain(got[i]));
		close(sent[i]);
		close(got[i]);
	}
}
END_TEST

START_TEST(no_descriptors_and_the_end_are_told)
{
	unsigned int n = 2;
	int got[2];
	char buf[16];

	ck_assert_int_eq(fd_send(pair[0], "hi", 2, NULL, 0), 0);
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), got, &n), 2);
	ck_assert_uint_eq(n, 0);
	shutdown(pair[0], SHUT_WR);
	n = 2;
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), got, &n), 0);
	ck_assert_uint_eq(n, 0);
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), NULL, NULL), 0);
}
END_TEST

START_TEST(more_descriptors_than_room_are_all_closed)
{
	int sent[FD_PASS_MAX], got[1];
	unsigned int n = 1, before;
	char buf[16];

	for (int i = 0; i < FD_PASS_MAX; i++)
		sent[i] = pair[0];
	before = open_fds();
	ck_assert_int_eq(fd_send(pair[0], "x", 1, sent, 2), 0);
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), got, &n), -EMFILE);
	ck_assert_uint_eq(n, 0);
	ck_assert_int_eq(fd_send(pair[0], "x", 1, sent, FD_PASS_MAX), 0);
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), NULL, NULL), -EMFILE);
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(more_descriptors_than_a_message_may_carry_leak_nothing)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * 100)];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = (char[]){ "x" }, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	int got[FD_PASS_MAX];
	unsigned int n = FD_PASS_MAX, before = open_fds();
	char buf[16];

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(sizeof(int) * 100);
	for (size_t i = 0; i < 100; i++)
		memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &pair[0], sizeof(int));
	ck_assert_int_eq(sendmsg(pair[0], &msg, 0), 1);
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), got, &n), -EMFILE);
	ck_assert_uint_eq(n, 0);
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(impossible_sends_are_refused)
{
	int fds[FD_PASS_MAX + 1] = { 0 };

	ck_assert_int_eq(fd_send(pair[0], "x", 1, fds, FD_PASS_MAX + 1), -EINVAL);
	ck_assert_int_eq(fd_send(pair[0], "x", 0, fds, 1), -EINVAL);
	fds[0] = -1;
	ck_assert_int_eq(fd_send(pair[0], "x", 1, fds, 1), -EBADF);
	close(pair[1]);
	ck_assert_int_eq(fd_send(pair[0], "x", 1, NULL, 0), -EPIPE); /* and no SIGPIPE */
	pair[1] = -1;
}
END_TEST

#define BIG (1 << 20)
static void *drain_all(void *opaque)
{
	char *buf = opaque;
	unsigned int fds = 0;
	size_t got = 0;

	while (got < BIG) {
		unsigned int n = 4;
		int list[4];
		ssize_t r = fd_recv(pair[1], buf + got, BIG - got, list, &n);

		ck_assert_int_gt(r, 0);
		fds += n;
		while (n)
			close(list[--n]);
		got += (size_t)r;
	}
	ck_assert_uint_eq(fds, 1);
	return NULL;
}

START_TEST(large_send_on_a_nonblocking_socket_is_whole_and_sends_descriptors_once)
{
	static char out[BIG], in[BIG];
	pthread_t thread;

	for (size_t i = 0; i < BIG; i++)
		out[i] = (char)(i * 7);
	fd_set_nonblocking(pair[0], true);
	ck_assert_int_eq(pthread_create(&thread, NULL, drain_all, in), 0);
	ck_assert_int_eq(fd_send(pair[0], out, BIG, &pair[0], 1), 0);
	pthread_join(thread, NULL);
	ck_assert_mem_eq(in, out, BIG);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fd");
	TCase *t = tcase_create("fd");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, read_full_puts_short_reads_together);
	tcase_add_test(t, early_end_is_told_from_an_error);
	tcase_add_test(t, pread_full_leaves_the_position);
	tcase_add_test(t, nonblocking_goes_on_and_off);
	tcase_add_test(t, room_for_descriptors_is_made_before_they_are);
	tcase_add_test(t, eventfd_signals_and_drains);
	tcase_add_test(t, descriptors_travel_with_their_bytes);
	tcase_add_test(t, no_descriptors_and_the_end_are_told);
	tcase_add_test(t, more_descriptors_than_room_are_all_closed);
	tcase_add_test(t, more_descriptors_than_a_message_may_carry_leak_nothing);
	tcase_add_test(t, impossible_sends_are_refused);
	tcase_add_test(t, large_send_on_a_nonblocking_socket_is_whole_and_sends_descriptors_once);
	suite_add_tcase(s, t);
	return run_suite(s);
}
