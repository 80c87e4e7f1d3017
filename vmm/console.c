/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/console.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "vmm/console_private.h"

/* Whether an fd can be waited for: regular files and /dev/null cannot. */
static bool can_poll(int fd)
{
	_cleanup_close_ int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_fd >= 0 && !epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

/* Our own non-blocking description of stdout where that can be had: O_NONBLOCK on
 * the shared one would surprise the shell. */
static int reopen_output(int fd)
{
	struct stat st;
	char path[32];
	int own = -1;

	if (!fstat(fd, &st) && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode))) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	}
	return own >= 0 ? own : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int open_tty(struct console *console, struct error *err)
{
	struct termios raw;

	console->out_fd = reopen_output(STDOUT_FILENO);
	if (console->out_fd < 0)
		return error_set_errno(err, errno, "console: stdout");
	console->own_out = true;
	if (can_poll(STDIN_FILENO))
		console->in_fd = STDIN_FILENO;
	if (console->in_fd >= 0 && !tcgetattr(STDIN_FILENO, &console->saved)) {
		raw = console->saved;
		cfmakeraw(&raw);
		raw.c_oflag |= OPOST; /* ferry's own messages keep their line ends */
		if (!tcsetattr(STDIN_FILENO, TCSANOW, &raw))
			console->raw = true;
	}
	return 0;
}

static int open_pty(struct console *console, struct console_config *config, struct error *err)
{
	char name[PATH_MAX];
	struct termios raw;

	console->in_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (console->in_fd < 0)
		return error_set_errno(err, errno, "console: open a pty");
	console->own_in = true;
	console->out_fd = console->in_fd;
	if (unlockpt(console->in_fd) || ptsname_r(console->in_fd, name, sizeof(name)))
		return error_set_errno(err, errno, "console: unlock the pty");
	console->pty_slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (console->pty_slave < 0)
		return error_set_errno(err, errno, "console: open %s", name);
	if (!tcgetattr(console->pty_slave, &raw)) {
		cfmakeraw(&raw);
		tcsetattr(console->pty_slave, TCSANOW, &raw);
	}
	free(config->file);
	config->file = strdup(name);
	return config->file ? 0 : error_set_errno(err, ENOMEM, "console");
}

static int open_file(struct console *console, const char *path, struct error *err)
{
	console->out_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0600);
	if (console->out_fd < 0)
		return error_set_errno(err, errno, "console: open %s", path);
	console->own_out = true;
	return 0;
}

static void update_events(struct console *console)
{
	if (console->client_source)
		loop_modify(console->client_source,
			    (console->to_guest.len ? 0 : EPOLLIN) |
				    (console->to_client.len ? EPOLLOUT : 0));
	if (console->relay_source)
		loop_modify(console->relay_source, (console->to_client.len ? 0 : EPOLLIN) |
							   (console->to_guest.len ? EPOLLOUT : 0));
}

static void drop_client(struct console *console)
{
	loop_remove(console->client_source);
	console->client_source = NULL;
	if (console->client_fd >= 0)
		close(console->client_fd);
	console->client_fd = -1;
	console->to_client.len = 0;
	update_events(console);
}

static void keep(struct console *console, const char *data, size_t len)
{
	if (console->backlog.len + len > BACKLOG_MAX)
		strbuf_consume(&console->backlog, BACKLOG_MAX / 2);
	strbuf_append(&console->backlog, data, len);
}

/* Fills an empty half; false where `from` was closed, or has nothing for now. */
static bool fill(struct console *console, struct half *half, int from, bool *closed)
{
	ssize_t n;

	if (half == &console->to_client && console->backlog.len) {
		half->len = MIN(console->backlog.len, sizeof(half->buf));
		memcpy(half->buf, console->backlog.data, half->len);
		half->start = 0;
		strbuf_consume(&console->backlog, half->len);
		return true;
	}
	n = recv(from, half->buf, sizeof(half->buf), MSG_DONTWAIT);
	*closed = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
	if (n <= 0)
		return false;
	half->start = 0;
	half->len = (size_t)n;
	return true;
}

/* Moves bytes until a side blocks. False: one of the two was closed. */
static bool relay(struct console *console, struct half *half, int from, int to)
{
	bool closed = false;
	ssize_t n;

	for (;;) {
		if (!half->len && !fill(console, half, from, &closed))
			return !closed;
		n = send(to, half->buf + half->start, half->len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		half->start += (size_t)n;
		half->len -= (size_t)n;
	}
}

static void relay_both(struct console *console)
{
	bool ok;

	if (console->client_fd < 0) {
		ssize_t n = recv(console->relay_fd, console->to_client.buf,
				 sizeof(console->to_client.buf), MSG_DONTWAIT);

		if (n > 0)
			keep(console, console->to_client.buf, (size_t)n);
		return;
	}
	ok = relay(console, &console->to_client, console->relay_fd, console->client_fd);
	ok = relay(console, &console->to_guest, console->client_fd, console->relay_fd) && ok;
	if (!ok)
		drop_client(console);
	else
		update_events(console);
}

static void on_relay(void *opaque, int fd, uint32_t events)
{
	relay_both(opaque);
}

static void on_client(void *opaque, int fd, uint32_t events)
{
	relay_both(opaque);
}

static void on_connect(void *opaque, int fd, uint32_t events)
{
	struct console *console = opaque;
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	if (client < 0)
		return;
	if (console->client_fd >= 0) {
		close(client);
		return;
	}
	console->client_fd = client;
	console->client_source = loop_add(console->loop, client, EPOLLIN, on_client, console, NULL);
	if (!console->client_source)
		drop_client(console);
	else
		relay_both(console);
}

void console_watch_socket(void *opaque)
{
	struct console *console = opaque;

	console->listen_source =
		loop_add(console->loop, console->listen_fd, EPOLLIN, on_connect, console, NULL);
	console->relay_source =
		loop_add(console->loop, console->relay_fd, EPOLLIN, on_relay, console, NULL);
	if (console->client_fd >= 0)
		console->client_source = loop_add(console->loop, console->client_fd, EPOLLIN,
						  on_client, console, NULL);
	if (console->client_fd >= 0 && console->client_source)
		relay_both(console);
}

void console_unwatch_socket(void *opaque)
{
	struct console *console = opaque;

	loop_remove(console->listen_source);
	loop_remove(console->relay_source);
	loop_remove(console->client_source);
	console->listen_source = console->relay_source = console->client_source = NULL;
}

static void close_socket(void *opaque)
{
	struct console *console = opaque;

	console_unwatch_socket(console);
	drop_client(console);
}

static int open_socket(struct console *console, const char *path, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int pair[2];

	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, ENAMETOOLONG,
				 "console: socket path %s is longer than %zu bytes", path,
				 sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return error_set_errno(err, errno, "console: socket");
	console->in_fd = console->out_fd = pair[0];
	console->own_in = true;
	console->relay_fd = pair[1];
	console->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (console->listen_fd < 0 ||
	    bind(console->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(console->listen_fd, 1))
		return error_set_errno(err, errno, "console: listen on %s", path);
	console->path = strdup(path);
	if (!console->path) {
		unlink(path);
		return error_set_errno(err, ENOMEM, "console");
	}
	loop_call(console->loop, console_watch_socket, console);
	if (!console->listen_source || !console->relay_source)
		return error_set_errno(err, ENOMEM, "console: watch %s", path);
	return 0;
}

struct console *console_new(struct loop *loop, struct log *log, struct error *err)
{
	struct console *console = calloc(1, sizeof(*console));

	if (!console) {
		error_set_errno(err, ENOMEM, "console");
		return NULL;
	}
	*console = (struct console){
		.loop = loop,
		.log = log,
		.in_fd = -1,
		.out_fd = -1,
		.pty_slave = -1,
		.listen_fd = -1,
		.relay_fd = -1,
		.client_fd = -1,
	};
	return console;
}

struct console *console_open(struct console_config *config, struct loop *loop, struct log *log,
			     struct error *err)
{
	struct console *console = console_new(loop, log, err);
	int r = 0;

	if (!console)
		return NULL;
	switch (config->mode) {
	case CONSOLE_OFF:
	case CONSOLE_NULL: break;
	case CONSOLE_TTY: r = open_tty(console, err); break;
	case CONSOLE_PTY: r = open_pty(console, config, err); break;
	case CONSOLE_FILE: r = open_file(console, config->file, err); break;
	case CONSOLE_SOCKET: r = open_socket(console, config->socket, err); break;
	}
	if (r) {
		console_close(console);
		return NULL;
	}
	return console;
}

void console_close(struct console *console)
{
	if (!console)
		return;
	loop_call(console->loop, close_socket, console);
	if (console->raw && !console->held)
		tcsetattr(console->in_fd, TCSANOW, &console->saved);
	if (console->own_in)
		close(console->in_fd);
	if (console->own_out)
		close(console->out_fd);
	if (console->pty_slave >= 0)
		close(console->pty_slave);
	if (console->listen_fd >= 0)
		close(console->listen_fd);
	if (console->relay_fd >= 0)
		close(console->relay_fd);
	if (console->path && !console->held)
		unlink(console->path);
	free(console->path);
	strbuf_free(&console->backlog);
	free(console);
}

int console_in_fd(const struct console *console)
{
	return console->in_fd;
}

int console_out_fd(const struct console *console)
{
	return console->out_fd;
}
