/* SPDX-License-Identifier: Apache-2.0 */
/* A console that goes on in another process. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vmm/console_private.h"

/* Where they are in the struct, and what they are called. */
static const struct {
	const char *name;
	size_t offset;
} fds[] = {
	{ "in", offsetof(struct console, in_fd) },
	{ "out", offsetof(struct console, out_fd) },
	{ "slave", offsetof(struct console, pty_slave) },
	{ "listener", offsetof(struct console, listen_fd) },
	{ "relay", offsetof(struct console, relay_fd) },
};

static int *fd_of(struct console *console, size_t i)
{
	return (int *)(void *)((char *)console + fds[i].offset);
}

/* Input and output are often one descriptor: it goes once. */
static bool is_own(struct console *console, size_t i)
{
	int fd = *fd_of(console, i);

	return fd >= 0 && (i != 1 || fd != console->in_fd);
}

static int keep_bytes(const char *data, size_t len, struct kept *kept, const char *name,
		      const char *what, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; !r && len; i++) {
		size_t part = MIN(len, (size_t)KEPT_DATA_MAX);

		r = kept_add(kept, -1, data, part, err, "%s/%s/%u", name, what, i);
		data += part;
		len -= part;
	}
	return r;
}

static int keep_open(struct console *console, struct kept *kept, const char *name,
		     struct error *err)
{
	const uint8_t same = console->out_fd >= 0 && console->out_fd == console->in_fd;
	int r = kept_add(kept, -1, &same, 1, err, "%s/same", name);

	for (size_t i = 0; !r && i < ARRAY_SIZE(fds); i++)
		if (is_own(console, i))
			r = kept_add(kept, *fd_of(console, i), NULL, 0, err, "%s/%s", name,
				     fds[i].name);
	if (!r && console->raw)
		r = kept_add(kept, -1, &console->saved, sizeof(console->saved), err, "%s/termios",
			     name);
	return r;
}

/* What was read from one side and not taken by the other, and what waits for a client. */
static int keep_traffic(struct console *console, struct kept *kept, const char *name,
			struct error *err)
{
	const struct half *in = &console->to_guest, *out = &console->to_client;
	int r = 0;

	if (console->client_fd >= 0)
		r = kept_add(kept, console->client_fd, NULL, 0, err, "%s/client", name);
	if (!r && in->len)
		r = kept_add(kept, -1, in->buf + in->start, in->len, err, "%s/to-guest", name);
	if (!r && out->len)
		r = kept_add(kept, -1, out->buf + out->start, out->len, err, "%s/to-client", name);
	if (!r)
		r = keep_bytes(console->backlog.data, console->backlog.len, kept, name, "backlog",
			       err);
	return r;
}

int console_keep(struct console *console, struct kept *kept, const char *name, bool paused,
		 struct error *err)
{
	if (!console)
		return 0;
	return paused ? keep_traffic(console, kept, name, err)
		      : keep_open(console, kept, name, err);
}

struct console *console_take(const struct console_config *config, struct kept *kept,
			     const char *name, struct loop *loop, struct log *log,
			     struct error *err)
{
	struct console *console = console_new(loop, log, err);
	const struct termios *saved;
	const uint8_t *same;

	if (!console)
		return NULL;
	console->held = true;
	same = kept_facts(kept, 1, "%s/same", name);
	for (size_t i = 0; same && i < ARRAY_SIZE(fds); i++)
		*fd_of(console, i) = kept_take(kept, "%s/%s", name, fds[i].name);
	console->own_in = console->in_fd >= 0;
	console->own_out = console->out_fd >= 0;
	if (same && *same && console->in_fd >= 0 && console->out_fd < 0)
		console->out_fd = console->in_fd;
	saved = kept_facts(kept, sizeof(*saved), "%s/termios", name);
	if (saved) {
		memcpy(&console->saved, saved, sizeof(*saved));
		console->raw = true;
	}
	if (config->mode == CONSOLE_SOCKET)
		console->path = strdup(config->socket);
	if (!same || (config->mode == CONSOLE_SOCKET &&
		      (!console->path || console->listen_fd < 0 || console->relay_fd < 0))) {
		error_set(err, ENOENT, "console: it did not come along");
		console_close(console);
		return NULL;
	}
	return console;
}

static int take_half(struct half *half, struct kept *kept, const char *name, const char *what,
		     struct error *err)
{
	size_t len;
	const void *data = kept_bytes(kept, &len, "%s/%s", name, what);

	if (len > sizeof(half->buf))
		return error_set(err, EBADMSG, "console: %zu bytes on their way", len);
	half->start = 0;
	half->len = len;
	if (len)
		memcpy(half->buf, data, len);
	return 0;
}

int console_take_held(struct console *console, struct kept *kept, const char *name,
		      struct error *err)
{
	const char *data;
	size_t len;
	int r;

	if (!console)
		return 0;
	console->client_fd = kept_take(kept, "%s/client", name);
	r = take_half(&console->to_guest, kept, name, "to-guest", err);
	if (!r)
		r = take_half(&console->to_client, kept, name, "to-client", err);
	for (unsigned int i = 0; !r; i++) {
		data = kept_bytes(kept, &len, "%s/backlog/%u", name, i);
		if (!data)
			break;
		if (console->backlog.len + len > BACKLOG_MAX ||
		    (strbuf_append(&console->backlog, data, len), console->backlog.failed))
			r = error_set(err, EBADMSG, "console: its backlog is too long");
	}
	return r;
}

void console_hold(struct console *console, bool hold)
{
	if (!console || console->held == hold)
		return;
	console->held = hold;
	if (console->listen_fd >= 0)
		loop_call(console->loop, hold ? console_unwatch_socket : console_watch_socket,
			  console);
}
