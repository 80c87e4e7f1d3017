/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"

/* A request: program, arguments, each with its NUL, and the listener beside them. Its
 * answer: the process, or -errno. */
#define REQUEST_MAX 8192u
#define LISTENER_FD 3
#define FIXED_ARGS 8
#define PLUGINS_MAX 64u

struct spawner {
	struct spawner_options options;
	char program[PATH_MAX];
	int fd;
	pid_t pid;
};

/* The spawner's process. */

struct request {
	char text[REQUEST_MAX];
	size_t len;
	const char *program;
	const char *args[SPAWNER_ARGS_MAX];
	unsigned int arg_count;
};

static int parse(struct request *request)
{
	const char *at = request->text, *end = request->text + request->len;

	if (!request->len || end[-1])
		return -EINVAL;
	request->program = at;
	for (at += strlen(at) + 1; at < end; at += strlen(at) + 1) {
		if (request->arg_count == SPAWNER_ARGS_MAX)
			return -E2BIG;
		request->args[request->arg_count++] = at;
	}
	return 0;
}

static int check(const struct spawner *spawner, const struct request *request)
{
	if (spawner->options.any)
		return 0;
	return strcmp(request->program, spawner->program) || request->arg_count ? -EPERM : 0;
}

static _Noreturn void run(const struct spawner *spawner, const struct request *request,
			  int listener, int report)
{
	const struct spawner_options *options = &spawner->options;
	const char *argv[SPAWNER_ARGS_MAX + FIXED_ARGS + PLUGINS_MAX + 1] = { request->program };
	unsigned int n = 1;
	sigset_t none;
	int code;

	argv[n++] = "--adopt";
	argv[n++] = options->confined ? "fd=3,confined=on" : "fd=3";
	argv[n++] = "--seccomp";
	argv[n++] = options->seccomp;
	if (options->verbose)
		argv[n++] = options->verbose > 1 ? "-vv" : "-v";
	if (options->plugin_count)
		argv[n++] = "--plugins";
	for (unsigned int i = 0; i < options->plugin_count && i < PLUGINS_MAX; i++)
		argv[n++] = options->plugins[i];
	for (unsigned int i = 0; i < request->arg_count; i++)
		argv[n++] = request->args[i];
	argv[n] = NULL;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGCHLD, SIG_DFL);
	if (dup2(listener, LISTENER_FD) == LISTENER_FD)
		execv(request->program, (char *const *)argv);
	code = -errno;
	while (write(report, &code, sizeof(code)) < 0 && errno == EINTR)
		;
	_exit(127);
}

/* The process, once it is the program; or why it is not. */
static int start(const struct spawner *spawner, const struct request *request, int listener)
{
	int report[2], code = 0;
	pid_t pid;

	/* Above the number that the listener gets. */
	if (pipe2(report, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0)
		code = -errno;
	if (!pid)
		run(spawner, request, listener, report[1]);
	close(report[1]);
	if (pid > 0 && fd_read_full(report[0], &code, sizeof(code)))
		code = 0; /* closed by the exec */
	close(report[0]);
	return code ? code : (int)pid;
}

static int serve_one(const struct spawner *spawner, int fd)
{
	struct request request = { .len = 0 };
	int listener = -1, answer;
	unsigned int count = 1;
	ssize_t n = fd_recv(fd, request.text, sizeof(request.text), &listener, &count);

	if (n == 0 || (n < 0 && n != -EMFILE))
		return -1;
	request.len = n < 0 ? 0 : (size_t)n;
	answer = count == 1 ? parse(&request) : -EINVAL;
	if (!answer)
		answer = check(spawner, &request);
	if (!answer)
		answer = start(spawner, &request, listener);
	if (count == 1)
		close(listener);
	return fd_send(fd, &answer, sizeof(answer), NULL, 0);
}

static _Noreturn void serve(const struct spawner *spawner, int fd)
{
	/* The same descriptor at the same place, and the rest closed: above LISTENER_FD, which
	 * a child's listener takes. */
	int own = fcntl(fd, F_DUPFD_CLOEXEC, LISTENER_FD + 1);
	int placeholder;

	prctl(PR_SET_NAME, "ferry-spawner");
	if (own < 0)
		_exit(1);
	if (own > LISTENER_FD + 1) {
		dup3(own, LISTENER_FD + 1, O_CLOEXEC);
		own = LISTENER_FD + 1;
	}
	syscall(SYS_close_range, LISTENER_FD + 2, ~0U, 0);
	/* So that nothing else becomes 3. */
	close(LISTENER_FD);
	placeholder = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (placeholder > LISTENER_FD)
		close(placeholder);
	/* Children are nobody's to wait for. */
	signal(SIGCHLD, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	while (!serve_one(spawner, own))
		;
	_exit(0);
}

/* Ours. */

struct spawner *spawner_new(const struct spawner_options *options, struct error *err)
{
	struct spawner *spawner = calloc(1, sizeof(*spawner));
	int pair[2];

	if (!spawner || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		error_set_errno(err, spawner ? errno : ENOMEM, "prepare live updates");
		free(spawner);
		return NULL;
	}
	spawner->options = *options;
	snprintf(spawner->program, sizeof(spawner->program), "%s", options->program);
	spawner->options.program = spawner->program;
	spawner->pid = fork();
	if (!spawner->pid)
		serve(spawner, pair[1]);
	close(pair[1]);
	spawner->fd = pair[0];
	if (spawner->pid > 0)
		return spawner;
	error_set_errno(err, errno, "prepare live updates: fork");
	close(pair[0]);
	free(spawner);
	return NULL;
}

void spawner_free(struct spawner *spawner)
{
	if (!spawner)
		return;
	close(spawner->fd);
	while (waitpid(spawner->pid, NULL, 0) < 0 && errno == EINTR)
		;
	free(spawner);
}

const char *spawner_program(const struct spawner *spawner)
{
	return spawner->program;
}

static int add_text(struct request *request, const char *text)
{
	size_t len = strlen(text) + 1;

	if (len > sizeof(request->text) - request->len)
		return -E2BIG;
	memcpy(request->text + request->len, text, len);
	request->len += len;
	return 0;
}

pid_t spawner_start(struct spawner *spawner, const char *program, char *const *args,
		    unsigned int arg_count, int listener, struct error *err)
{
	struct request request = { .len = 0 };
	int answer = 0, r;

	program = program ? program : spawner->program;
	r = add_text(&request, program);
	for (unsigned int i = 0; !r && i < arg_count; i++)
		r = add_text(&request, args[i]);
	if (r || arg_count > SPAWNER_ARGS_MAX)
		return error_set_kind(err, ERROR_BAD_REQUEST, E2BIG,
				      "start %s: its arguments are too long, or too many", program);
	r = fd_send(spawner->fd, request.text, request.len, &listener, 1);
	if (!r)
		r = fd_read_full(spawner->fd, &answer, sizeof(answer));
	if (r)
		return error_set_errno(err, r, "start %s: the process that would is gone", program);
	if (answer == -EPERM)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, EPERM,
			"start %s%s: under seccomp only %s is started, without arguments: name "
			"another with --live-update binary=, or start it yourself with --adopt and "
			"give its socket",
			program, arg_count ? " with arguments" : "", spawner->program);
	return answer > 0 ? answer
			  : error_set_kind(err, ERROR_BAD_REQUEST, answer, "start %s: %s", program,
					   strerror(-answer));
}
