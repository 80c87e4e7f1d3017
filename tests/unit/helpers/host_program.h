/* SPDX-License-Identifier: Apache-2.0 */
/* Host programs at a vsock's socket: what they connect to, say and hear. */
#ifndef TESTS_UNIT_HELPERS_HOST_PROGRAM_H
#define TESTS_UNIT_HELPERS_HOST_PROGRAM_H

#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/fd.h"

/* Waits 5 s for what it receives. */
static inline int client_of(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const struct timeval limit = { .tv_sec = 5 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static inline void say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static inline void hear(int fd, const char *text)
{
	char got[64] = "";

	ck_assert_int_eq(fd_read_full(fd, got, strlen(text)), 0);
	ck_assert_str_eq(got, text);
}

static inline void expect_eof(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, 0);

	ck_assert_msg(n == 0 || (n < 0 && errno == ECONNRESET), "got %zd, %s", n, strerror(errno));
}

#endif
