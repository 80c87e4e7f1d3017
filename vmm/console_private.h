/* SPDX-License-Identifier: Apache-2.0 */
/* The console's insides, shared by console.c and console_keep.c. */
#ifndef VMM_CONSOLE_PRIVATE_H
#define VMM_CONSOLE_PRIVATE_H

#include <termios.h>

#include "base/strbuf.h"
#include "vmm/console.h"

/* What was read from one side and not yet taken by the other. */
struct half {
	char buf[4096];
	size_t start, len;
};

/* Who connects late still sees the last words: a guest boots faster than a client. */
#define BACKLOG_MAX (64 * 1024)

struct console {
	struct loop *loop;
	struct log *log;
	int in_fd, out_fd;
	bool own_in, own_out;
	int pty_slave; /* kept open: a master without slaves reports hang-ups */
	bool held;     /* another process serves it */

	bool raw; /* the terminal was put into raw mode */
	struct termios saved;

	/* Socket: the device has one end of a socket pair, the relay the other. */
	char *path;
	int listen_fd, relay_fd, client_fd;
	struct loop_source *listen_source, *relay_source, *client_source;
	struct half to_client, to_guest;
	struct strbuf backlog; /* what was said while nobody was connected */
};

struct console *console_new(struct loop *loop, struct log *log, struct error *err);
/* In the loop: serves clients from now on, or no more. */
void console_watch_socket(void *opaque);
void console_unwatch_socket(void *opaque);

#endif
