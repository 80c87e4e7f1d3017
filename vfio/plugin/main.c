/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ferry-plugin: started by ferry, once, where plugins are allowed (vfio/plugin_host.c); it
 * starts and ends a process per plugin. It has no privileges but those to do this: as ferry
 * will be confined, it takes no path that was not allowed on its command line.
 *
 *	ferry-plugin [--uid N --gid N] --allow PATH...     with its socket as descriptor 3
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfio/plugin/host.h"
#include "vfio/plugin/protocol.h"

struct warden {
	char *const *allowed; /* real paths of files and folders */
	pid_t pids[PLUGIN_PROCESSES_MAX];
};

int reason_set(struct reason *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why->text, sizeof(why->text), format, args);
	va_end(args);
	return -1;
}

static void die(const char *what)
{
	fprintf(stderr, "ferry-plugin: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void drop_privileges(uid_t uid, gid_t gid)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) && errno != EINVAL)
			die("drop capabilities");
	if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
		die("take on uid and gid");
	if (syscall(SYS_capset, &header, none))
		die("drop capabilities");
}

/* Whether a path's real one is an allowed file, or in an allowed folder. */
static int check_path(const struct warden *w, const char *path, char real[PATH_MAX])
{
	if (!realpath(path, real))
		return -errno;
	for (char *const *a = w->allowed; *a; a++) {
		size_t len = strlen(*a);

		if (!strncmp(real, *a, len) && (real[len] == '/' || !real[len]))
			return 0;
	}
	return -EACCES;
}

static int make_window(uint8_t **window)
{
	int fd = memfd_create("ferry-plugin", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	*window = MAP_FAILED;
	if (!ftruncate(fd, PLUGIN_WINDOW_SIZE) &&
	    !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		*window = mmap(NULL, PLUGIN_WINDOW_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*window != MAP_FAILED)
		return fd;
	close(fd);
	return -ENOMEM;
}

/* The new process has its socket and window and nothing else of ours. */
static _Noreturn void become_plugin(int sock, uint8_t *window, const char *plugin, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	dup2(sock, PLUGIN_CONTROL_FD);
	syscall(SYS_close_range, PLUGIN_CONTROL_FD + 1, ~0U, 0);
	run_plugin(PLUGIN_CONTROL_FD, window, plugin);
}

/* The descriptors of the reply: -1, or the caller's to send and close. */
static int start(struct warden *w, const char *path, uint32_t *id, int fds[2])
{
	char real[PATH_MAX];
	uint8_t *window = NULL;
	int pair[2], r = check_path(w, path, real);
	pid_t parent = getpid(), pid;

	if (r)
		return r;
	for (*id = 0; *id < PLUGIN_PROCESSES_MAX && w->pids[*id]; ++*id)
		;
	if (*id == PLUGIN_PROCESSES_MAX)
		return -ENOSPC;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	fds[1] = make_window(&window);
	pid = fds[1] < 0 ? -1 : fork();
	if (!pid)
		become_plugin(pair[1], window, real, parent);
	r = pid < 0 ? -EAGAIN : 0;
	close(pair[1]);
	if (fds[1] >= 0)
		munmap(window, PLUGIN_WINDOW_SIZE);
	fds[0] = pair[0];
	if (!r)
		w->pids[*id] = pid;
	return r;
}

static int end(struct warden *w, uint32_t id, int32_t *status)
{
	pid_t pid;
	int s = 0;

	if (id >= PLUGIN_PROCESSES_MAX || !w->pids[id])
		return -ESRCH;
	pid = w->pids[id];
	w->pids[id] = 0;
	kill(pid, SIGKILL); /* one that ended before keeps what it ended by */
	while (waitpid(pid, &s, 0) < 0 && errno == EINTR)
		;
	*status = s;
	return 0;
}

/* Ferry is gone, or speaks nonsense: its plugins go, too. */
static _Noreturn void leave(struct warden *w)
{
	int32_t status;

	for (uint32_t id = 0; id < PLUGIN_PROCESSES_MAX; id++)
		end(w, id, &status);
	_exit(0);
}

static void answer(struct warden *w, const struct plugin_control *m, int fds[2])
{
	union {
		char bytes[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)m, sizeof(*m) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fds[0] >= 0 && fds[1] >= 0 && !m->result) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(2 * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, 2 * sizeof(int));
	}
	if (sendmsg(PLUGIN_CONTROL_FD, &msg, MSG_NOSIGNAL) < 0)
		leave(w);
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static void serve(struct warden *w)
{
	struct {
		struct plugin_control m;
		char path[PLUGIN_PATH_MAX];
	} in;
	ssize_t n;

	for (;;) {
		int fds[2] = { -1, -1 };

		do
			n = recv(PLUGIN_CONTROL_FD, &in, sizeof(in), 0);
		while (n < 0 && errno == EINTR);
		if (n < (ssize_t)sizeof(in.m) || in.m.magic != PLUGIN_MAGIC)
			leave(w);
		if (in.m.type == PLUGIN_START && n > (ssize_t)sizeof(in.m) && !((char *)&in)[n - 1])
			in.m.result = start(w, in.path, &in.m.id, fds);
		else if (in.m.type == PLUGIN_END)
			in.m.result = end(w, in.m.id, &in.m.status);
		else
			in.m.result = -EINVAL;
		answer(w, &in.m, fds);
	}
}

static unsigned int number(const char *text)
{
	char *rest;
	unsigned long n = strtoul(text, &rest, 10);

	if (!*text || *rest || !n || n > INT_MAX) {
		fprintf(stderr, "ferry-plugin: %s is no uid or gid\n", text);
		_exit(2);
	}
	return (unsigned int)n;
}

static void usage(void)
{
	fprintf(stderr, "ferry-plugin is started by ferry: see ferry --help, --plugins\n");
	_exit(2);
}

/* The paths behind --allow, as they really are. */
static void resolve(char **paths)
{
	for (; *paths; paths++) {
		char *real = realpath(*paths, NULL);

		if (!real)
			die(*paths);
		*paths = real;
	}
}

int main(int argc, char **argv)
{
	struct warden w = { 0 };
	struct plugin_control hello = { .magic = PLUGIN_MAGIC, .type = PLUGIN_HELLO };
	int at = 1, type = 0, none[2] = { -1, -1 };
	socklen_t len = sizeof(type);

	if (getsockopt(PLUGIN_CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &len) ||
	    type != SOCK_SEQPACKET || argc < 3)
		usage();
	if (argc > 5 && !strcmp(argv[1], "--uid") && !strcmp(argv[3], "--gid")) {
		drop_privileges(number(argv[2]), number(argv[4]));
		/* Taking on a uid has taken it back. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		at = 5;
	}
	if (at + 1 >= argc || strcmp(argv[at], "--allow") != 0)
		usage();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		die("no_new_privs");
	setsid(); /* a terminal's signals are ferry's */
	signal(SIGPIPE, SIG_IGN);
	resolve(argv + at + 1);
	w.allowed = argv + at + 1;
	answer(&w, &hello, none);
	serve(&w);
}
