/* SPDX-License-Identifier: Apache-2.0 */
/* ferry-plugin: started, asked for processes, ended. */
#include "vfio/plugin_host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "vfio/plugin/protocol.h"

/* ferry-plugin does little between a request and its reply. */
#define CONTROL_TIMEOUT_MS 10000
#define PROGRAM "ferry-plugin"

struct plugin_host {
	pthread_mutex_t lock; /* one request at a time */
	int sock;
	pid_t pid;
	bool broken;
};

static int find_program(const char *given, char path[PATH_MAX], struct error *err)
{
	ssize_t n;
	char *slash;

	if (given) {
		snprintf(path, PATH_MAX, "%s", given);
		return 0;
	}
	n = readlink("/proc/self/exe", path, PATH_MAX - sizeof(PROGRAM));
	if (n < 0)
		return error_set_errno(err, errno, "find " PROGRAM ": /proc/self/exe");
	path[n] = '\0';
	slash = strrchr(path, '/');
	memcpy(slash ? slash + 1 : path, PROGRAM, sizeof(PROGRAM));
	return 0;
}

/* In the child: what cannot be done is said over the socket. */
static _Noreturn void run_program(int sock, const char *program, char *const *argv)
{
	struct plugin_control failed = { .magic = PLUGIN_MAGIC, .type = PLUGIN_HELLO };
	char *no_environment[] = { NULL };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(sock, PLUGIN_CONTROL_FD) == PLUGIN_CONTROL_FD) {
		/* Also where it was that one before. */
		fcntl(PLUGIN_CONTROL_FD, F_SETFD, 0);
		syscall(SYS_close_range, PLUGIN_CONTROL_FD + 1, ~0U, 0);
		execve(program, argv, no_environment);
	}
	failed.result = -errno;
	send(PLUGIN_CONTROL_FD, &failed, sizeof(failed), MSG_NOSIGNAL);
	_exit(127);
}

static char **make_argv(const struct plugin_host_options *o, char numbers[2][16])
{
	char **argv = calloc(o->allowed_count + 8, sizeof(*argv));
	unsigned int n = 0;

	if (!argv)
		return NULL;
	argv[n++] = (char *)PROGRAM;
	if (o->uid) {
		snprintf(numbers[0], 16, "%u", o->uid);
		snprintf(numbers[1], 16, "%u", o->gid);
		argv[n++] = (char *)"--uid";
		argv[n++] = numbers[0];
		argv[n++] = (char *)"--gid";
		argv[n++] = numbers[1];
	}
	argv[n++] = (char *)"--allow";
	for (unsigned int i = 0; i < o->allowed_count; i++)
		argv[n++] = (char *)o->allowed[i];
	return argv;
}

/* One packet, in time: 0 or -errno. */
static int receive(struct plugin_host *host, struct plugin_control *m, int *fds, unsigned int *nfds)
{
	struct pollfd p = { .fd = host->sock, .events = POLLIN };
	ssize_t n;
	int r;

	do
		r = poll(&p, 1, CONTROL_TIMEOUT_MS);
	while (r < 0 && errno == EINTR);
	if (r <= 0)
		return r ? -errno : -ETIMEDOUT;
	n = fd_recv(host->sock, m, sizeof(*m), fds, nfds);
	if (n < 0)
		return (int)n;
	return n == (ssize_t)sizeof(*m) && m->magic == PLUGIN_MAGIC ? 0 : -ECONNRESET;
}

static int await_hello(struct plugin_host *host, const char *program, struct error *err)
{
	struct plugin_control m;
	unsigned int none = 0;
	int r = receive(host, &m, NULL, &none);

	if (!r && m.type != PLUGIN_HELLO)
		r = -EPROTO;
	if (r)
		return error_set_errno(err, r, "start %s: it is not this ferry's, or has failed",
				       program);
	if (m.result)
		return error_set_errno(err, m.result, "start %s", program);
	return 0;
}

/* What --allow names has to be there: a plugin that is misspelt is found out now. */
static int check_allowed(const struct plugin_host_options *o, struct error *err)
{
	if (!o->allowed_count)
		return error_set(err, EINVAL, PROGRAM ": no plugin is allowed");
	for (unsigned int i = 0; i < o->allowed_count; i++)
		if (access(o->allowed[i], R_OK))
			return error_set_errno(err, errno, "plugins: %s", o->allowed[i]);
	return 0;
}

struct plugin_host *plugin_host_new(const struct plugin_host_options *options, struct error *err)
{
	char program[PATH_MAX], numbers[2][16];
	_cleanup_free_ char **argv = NULL;
	struct plugin_host *host;
	int pair[2];

	if (check_allowed(options, err) || find_program(options->program, program, err))
		return NULL;
	argv = make_argv(options, numbers);
	host = calloc(1, sizeof(*host));
	if (!argv || !host) {
		free(host);
		error_set_errno(err, ENOMEM, "start " PROGRAM);
		return NULL;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		error_set_errno(err, errno, "start " PROGRAM);
		free(host);
		return NULL;
	}
	host->pid = fork();
	if (!host->pid)
		run_program(pair[1], program, argv);
	close(pair[1]);
	host->sock = pair[0];
	pthread_mutex_init(&host->lock, NULL);
	if (host->pid < 0)
		error_set_errno(err, errno, "start " PROGRAM);
	else if (!await_hello(host, program, err))
		return host;
	plugin_host_free(host);
	return NULL;
}

void plugin_host_free(struct plugin_host *host)
{
	if (!host)
		return;
	close(host->sock);
	/* It ends by the end of its socket. In a jail it is not our child any more, nor there
	 * to be seen: ECHILD. */
	if (host->pid > 0)
		while (waitpid(host->pid, NULL, 0) < 0 && errno == EINTR)
			;
	pthread_mutex_destroy(&host->lock);
	free(host);
}

/* A request and its reply: m is both. */
static int request(struct plugin_host *host, struct plugin_control *m, const char *path, int *fds,
		   unsigned int *nfds, struct error *err)
{
	uint8_t out[sizeof(*m) + PLUGIN_PATH_MAX];
	size_t path_size = path ? strlen(path) + 1 : 0;
	uint32_t type = m->type;
	int r;

	if (path_size > PLUGIN_PATH_MAX)
		return error_set_errno(err, ENAMETOOLONG, "plugin %.80s...", path);
	memcpy(out, m, sizeof(*m));
	memcpy(out + sizeof(*m), path ? path : "", path_size);
	pthread_mutex_lock(&host->lock);
	r = host->broken ? -ECONNRESET : fd_send(host->sock, out, sizeof(*m) + path_size, NULL, 0);
	if (!r)
		r = receive(host, m, fds, nfds);
	if (!r && m->type != type)
		r = -EPROTO;
	host->broken |= r != 0;
	pthread_mutex_unlock(&host->lock);
	if (r)
		return error_set_errno(err, r, PROGRAM " does not answer: start ferry anew");
	return 0;
}

/* Of the size that is believed, for good. */
static uint8_t *map_window(int fd)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	void *p;

	if ((fcntl(fd, F_GET_SEALS) & seals) != seals ||
	    lseek(fd, 0, SEEK_END) != (off_t)PLUGIN_WINDOW_SIZE)
		return NULL;
	p = mmap(NULL, PLUGIN_WINDOW_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static int refused(const char *path, int code, struct error *err)
{
	if (code == -EACCES)
		return error_set(err, EACCES,
				 "plugin %s is not allowed: name it, or its folder, in --plugins",
				 path);
	return error_set_errno(err, code, "plugin %s", path);
}

int plugin_host_start(struct plugin_host *host, const char *path, struct plugin_process *process,
		      struct error *err)
{
	struct plugin_control m = { .magic = PLUGIN_MAGIC, .type = PLUGIN_START };
	int fds[2] = { -1, -1 }, r;
	unsigned int count = 2;

	*process = (struct plugin_process){ .sock = -1 };
	r = request(host, &m, path, fds, &count, err);
	if (r)
		return r;
	if (m.result)
		return refused(path, m.result, err);
	process->id = m.id;
	process->sock = count > 0 ? fds[0] : -1;
	process->window = count > 1 ? map_window(fds[1]) : NULL;
	if (count > 1)
		close(fds[1]);
	if (process->window)
		return 0;
	plugin_host_end(host, process);
	return error_set(err, EPROTO, "plugin %s: " PROGRAM " has made no process for it", path);
}

int plugin_host_end(struct plugin_host *host, struct plugin_process *process)
{
	struct plugin_control m = { .magic = PLUGIN_MAGIC, .type = PLUGIN_END, .id = process->id };
	unsigned int none = 0;
	int r = request(host, &m, NULL, NULL, &none, NULL);

	if (process->sock >= 0)
		close(process->sock);
	if (process->window)
		munmap(process->window, PLUGIN_WINDOW_SIZE);
	*process = (struct plugin_process){ .sock = -1 };
	return r || m.result ? -1 : m.status;
}
