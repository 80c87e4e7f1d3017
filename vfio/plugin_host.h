/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes for out-of-band migration plugins (docs/plugins.md). A plugin is a shared object
 * of somebody else's, which Ferry, static and confined as it is, neither can load nor shall:
 * it runs in a process of the program ferry-plugin.
 *
 * Ferry may start no process once it has entered its sandbox: not by seccomp, not by
 * Landlock, and in a jail there is nothing it could start. So ferry-plugin is started before
 * all of that, by plugin_host_new(), and starts and ends processes on request over a socket:
 * what Ferry needs for that are sendmsg, recvmsg, poll and mmap, which every thread kind has.
 * It stays outside of the jail: that is where plugins, their libraries and the way to their
 * agents are. It takes no path that was not allowed on the command line, so that neither a
 * peer (whose VM names a plugin) nor a Ferry that a guest has taken over chooses what runs.
 *
 * When Ferry ends, however it does, ferry-plugin and its processes end: by the end of the
 * socket, and by PR_SET_PDEATHSIG.
 */
#ifndef VFIO_PLUGIN_HOST_START_H
#define VFIO_PLUGIN_HOST_START_H

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct plugin_host;

struct plugin_host_options {
	const char *program;	    /* NULL: ferry-plugin beside this program */
	const char *const *allowed; /* files, and folders of files, that may be loaded */
	unsigned int allowed_count;
	uid_t uid; /* not 0: takes it on, and gives up all capabilities */
	gid_t gid;
};

struct plugin_process {
	uint32_t id;
	int sock;	 /* SOCK_SEQPACKET: vfio/plugin/protocol.h */
	uint8_t *window; /* PLUGIN_WINDOW_SIZE bytes, shared with it */
};

/* Starts ferry-plugin: before there are threads, the jail and the filters. It must be gone
 * through plugin_host_free() before the program ends, or ends with it. */
struct plugin_host *plugin_host_new(const struct plugin_host_options *options, struct error *err);
void plugin_host_free(struct plugin_host *host); /* NULL is allowed; no process is left */

/* A process for the plugin at `path`, which it loads at INIT. -EACCES: not allowed; -ENOENT.
 * Any thread. */
int plugin_host_start(struct plugin_host *host, const char *path, struct plugin_process *process,
		      struct error *err);
/* Kills it, if it has not ended before, and forgets socket and window. What it ended by, as
 * of waitpid(); -1 where this cannot be said. Any thread. */
int plugin_host_end(struct plugin_host *host, struct plugin_process *process);

#endif
