/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/helpers/ctl_fake.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"

#define WORDS_MAX 16

static bool request_complete(const struct ctl_fake *fake)
{
	const char *end = strstr(fake->request, "\r\n\r\n");
	const char *length = strcasestr(fake->request, "content-length:");

	if (!end)
		return false;
	return fake->len >=
	       (size_t)(end + 4 - fake->request) + (length ? strtoul(length + 15, NULL, 10) : 0);
}

static void *serve(void *arg)
{
	struct ctl_fake *fake = arg;
	int fd = accept(fake->listener, NULL, NULL);

	while (!fake->read_nothing && !request_complete(fake) &&
	       fake->len < sizeof(fake->request) - 1) {
		unsigned int room = ARRAY_SIZE(fake->fds) - fake->fd_count;
		ssize_t n = fd_recv(fd, fake->request + fake->len,
				    sizeof(fake->request) - 1 - fake->len,
				    fake->fds + fake->fd_count, &room);

		if (n <= 0)
			break;
		fake->fd_count += room;
		fake->len += (size_t)n;
	}
	/* In two pieces, so that no reader may count on one. */
	if (send(fd, fake->reply, fake->reply_len / 2, MSG_NOSIGNAL) >= 0) {
		usleep(1000);
		send(fd, fake->reply + fake->reply_len / 2, fake->reply_len - fake->reply_len / 2,
		     MSG_NOSIGNAL);
	}
	for (size_t i = 0; i < fake->repeat; i += 4096) {
		char block[4096];

		memset(block, fake->reply[fake->reply_len - 1], sizeof(block));
		if (send(fd, block, sizeof(block), MSG_NOSIGNAL) < 0)
			break;
	}
	close(fd);
	return NULL;
}

void ctl_fake_listen(struct ctl_fake *fake)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	strcpy(fake->dir, "/tmp/ferryctl-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(fake->dir));
	snprintf(fake->path, sizeof(fake->path), "%s/api.sock", fake->dir);
	strcpy(addr.sun_path, fake->path);
	fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fake->listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fake->listener, 1), 0);
	setenv("FERRY_API_SOCKET", fake->path, 1);
}

void ctl_fake_start(struct ctl_fake *fake)
{
	ck_assert_int_eq(pthread_create(&fake->thread, NULL, serve, fake), 0);
}

void ctl_fake_remove(struct ctl_fake *fake)
{
	close(fake->listener);
	unlink(fake->path);
	rmdir(fake->dir);
	for (unsigned int i = 0; i < fake->fd_count; i++)
		close(fake->fds[i]);
}

/* Built beside the tests: <O>/tests/unit/api/test_ctl, <O>/ferryctl. */
static void program_path(char *path, size_t len)
{
	ssize_t n = readlink("/proc/self/exe", path, len - 16);

	ck_assert_int_gt(n, 0);
	path[n] = '\0';
	for (int up = 0; up < 4; up++)
		*strrchr(path, '/') = '\0';
	strcat(path, "/ferryctl");
}

static char *contents(int fd)
{
	off_t size = lseek(fd, 0, SEEK_END);
	char *text = calloc(1, (size_t)size + 1);

	ck_assert_int_eq(fd_pread_full(fd, text, (size_t)size, 0), 0);
	close(fd);
	return text;
}

static struct ctl_outcome run_to(const char *words, const char *out_to)
{
	char *copy = strdup(words), *save, *argv[WORDS_MAX + 2] = { (char *)"ferryctl" };
	int out = memfd_create("out", MFD_CLOEXEC), err = memfd_create("err", MFD_CLOEXEC);
	posix_spawn_file_actions_t actions;
	struct ctl_outcome o = { 0 };
	char program[4096];
	int argc = 1, status;
	pid_t pid;

	for (char *w = strtok_r(copy, "|", &save); w && argc < WORDS_MAX;
	     w = strtok_r(NULL, "|", &save))
		argv[argc++] = w;
	program_path(program, sizeof(program));
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	if (out_to)
		posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out_to, O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
	ck_assert_int_eq(posix_spawn(&pid, program, &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "%s: died, status %#x", words, status);
	o.status = WEXITSTATUS(status);
	o.out = contents(out);
	o.err = contents(err);
	free(copy);
	return o;
}

struct ctl_outcome ctl_run(const char *words)
{
	return run_to(words, NULL);
}

void ctl_outcome_free(struct ctl_outcome *o)
{
	free(o->out);
	free(o->err);
}

struct ctl_outcome ctl_call(struct ctl_fake *fake, const char *words, const char *reply)
{
	struct ctl_outcome o;

	fake->reply = reply;
	if (!fake->reply_len)
		fake->reply_len = strlen(reply);
	ctl_fake_listen(fake);
	ctl_fake_start(fake);
	o = run_to(words, fake->out_to);
	pthread_join(fake->thread, NULL);
	ctl_fake_remove(fake);
	return o;
}
