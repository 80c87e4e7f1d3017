/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who starts the new process of a live update. The threads of a running Ferry may not
 * start processes (gen_seccomp.c), and what they started would inherit their filters. So a
 * process is forked off before the first filter, with nothing open but its end of a socket
 * and the standard streams. It waits to be told, and ends when its maker is gone.
 *
 * What it starts is no way out of the sandbox: it is forked within the jail's and
 * Landlock's bounds, which its children inherit; and while there are seccomp filters it
 * starts the one program named at the start, with arguments of its own choice, so that
 * whoever took over the VMM could only have another, equally confined, Ferry. Without
 * filters there is nothing to protect, and it starts what it is told.
 */
#ifndef VMM_SPAWNER_H
#define VMM_SPAWNER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/thread.h"

#define SPAWNER_ARGS_MAX 64u

struct spawner;

struct spawner_options {
	const char *program;  /* what it starts; absolute. Kept by copy */
	bool any;	      /* or what else it is told, with any arguments */
	bool confined;	      /* by Landlock: the child says so to its own self */
	const char *seccomp;  /* "true", "log", "false": the child's, too */
	unsigned int verbose; /* -v that often */
	/* Migration plugins that it may load, as this process may; kept by reference, which the
	 * forked process has for its own. */
	const char *const *plugins;
	unsigned int plugin_count;
};

/* Before any thread is started. */
struct spawner *spawner_new(const struct spawner_options *options, struct error *err);
void spawner_free(struct spawner *spawner); /* NULL is allowed */

const char *spawner_program(const struct spawner *spawner);

/*
 * Starts `program` (NULL: the one it has) with `args`, and --adopt of the listening socket
 * `listener`. The process, or -errno: -EPERM where it is not allowed to. Worker.
 */
pid_t spawner_start(struct spawner *spawner, const char *program, char *const *args,
		    unsigned int arg_count, int listener, struct error *err);

#endif
