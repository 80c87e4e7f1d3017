/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vfio-user client of ferry-testdev, which is found beside this program's folder: a server
 * per test, on one end of a socketpair. Inline: included by the programs that use it.
 */
#ifndef TESTS_UNIT_VFIO_TESTDEV_CLIENT_H
#define TESTS_UNIT_VFIO_TESTDEV_CLIENT_H

#include <check.h>
#include <libgen.h>
#include <limits.h>
#include <linux/vfio.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/testdev/testdev_regs.h"
#include "tests/unit/vfio/user_bench.h"

/* Sanitized, on a busy machine. */
#define TIMEOUT_MS 20000

static struct bench b;
static pid_t server;
static bool stuck; /* the server will not end by itself */
static struct vfio_region bar0, bar2, config;

static inline const char *testdev_path(void)
{
	static char path[PATH_MAX + 32];
	char self[PATH_MAX] = "";
	char *dir = self;

	ck_assert_int_gt(readlink("/proc/self/exe", self, sizeof(self) - 1), 0);
	for (int i = 0; i < 4; i++) /* O/tests/unit/vfio/test_... */
		dir = dirname(dir);
	snprintf(path, sizeof(path), "%s/ferry-testdev", dir);
	return path;
}

/* Starts a server with some options on one end of a socketpair; the other. */
static inline int start_server(const char *const *options)
{
	char fd_option[32];
	const char *argv[16] = { testdev_path(), fd_option };
	int pair[2], n = 2;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	for (; options && *options; options++)
		argv[n++] = *options;
	server = fork();
	if (!server) {
		int fd = dup(pair[1]); /* not close-on-exec */

		snprintf(fd_option, sizeof(fd_option), "--fd=%d", fd);
		execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	close(pair[1]);
	return pair[0];
}

/* The transport's result; b.err says why it is NULL. */
static inline struct vfio_transport *open_with(unsigned int timeout_ms, const char *const *options)
{
	int fd = start_server(options);

	b.t = vfio_transport_open_user_fd(&b.options, fd, timeout_ms, &b.err);
	if (!b.t)
		close(fd);
	return b.t;
}

static inline void open_good(const char *const *options)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(open_with(TIMEOUT_MS, options) != NULL, "%s", b.err.message);
	ck_assert_int_eq(b.t->ops->region_info(b.t, 0, &bar0, &err), 0);
	ck_assert_int_eq(b.t->ops->region_info(b.t, 2, &bar2, &err), 0);
	ck_assert_int_eq(b.t->ops->region_info(b.t, VFIO_PCI_CONFIG_REGION_INDEX, &config, &err),
			 0);
}

#define OPEN(...) open_good((const char *const[]){ __VA_ARGS__, NULL })

static inline void setup(void)
{
	bench_init(&b);
}

/* It ends when its client has gone, unless it hangs; and without a sanitizer's complaint. */
static inline void reap_server(void)
{
	int status;

	if (stuck)
		kill(server, SIGKILL);
	ck_assert_int_eq(waitpid(server, &status, 0), server);
	server = 0;
	ck_assert_msg(stuck || (WIFEXITED(status) && !WEXITSTATUS(status)), "server ended with %x",
		      status);
}

static inline void teardown(void)
{
	bench_done(&b);
	if (server)
		reap_server();
}

static inline uint32_t get(uint32_t reg)
{
	uint32_t value = 0xdeadbeef;
	struct error err = ERROR_INIT;

	ck_assert_msg(!b.t->ops->region_read(b.t, &bar0, reg, &value, 4, &err), "%s", err.message);
	return value;
}

static inline void put(uint32_t reg, uint32_t value)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(!b.t->ops->region_write(b.t, &bar0, reg, &value, 4, &err), "%s", err.message);
}

#endif
