/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of a serial port or virtio console: terminal, pty, file, socket or
 * nothing. It outlives the machine, so that a reboot keeps its pty and its clients.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include "api/vm_config.h"
#include "base/kept.h"
#include "base/log.h"
#include "base/loop.h"

struct console;

/*
 * config is updated for CONSOLE_PTY (file: the pty's path). A terminal is put into
 * raw mode until console_close. CONSOLE_OFF and CONSOLE_NULL give a console without
 * ends. A socket takes one client at a time; without one, the last 64 KiB of output are
 * kept for the next.
 */
struct console *console_open(struct console_config *config, struct loop *loop, struct log *log,
			     struct error *err);
void console_close(struct console *console); /* NULL is allowed */

/*
 * It goes on in another process (live update): its descriptors, the terminal's settings,
 * what it holds for clients. Held (console_hold), it serves nobody; where the VM stays, it
 * is let go on. What another process kept under that name comes up held, and leaves
 * terminal and socket as they are if it is closed so. Worker.
 */
int console_keep(struct console *console, struct kept *kept, const char *name, bool paused,
		 struct error *err);
struct console *console_take(const struct console_config *config, struct kept *kept,
			     const char *name, struct loop *loop, struct log *log,
			     struct error *err);
/* What is known only when the other side has stopped: before console_hold(false). */
int console_take_held(struct console *console, struct kept *kept, const char *name,
		      struct error *err);
void console_hold(struct console *console, bool hold);

/* For the device; -1: none. The console's, for its life. */
int console_in_fd(const struct console *console);
int console_out_fd(const struct console *console);

#endif
