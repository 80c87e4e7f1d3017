/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Ferry and ferry-plugin say to each other. Both come from one source tree and run on
 * one host: structures as they lie in memory; a version that differs is refused.
 *
 *	ferry                       ferry-plugin                     one process a plugin
 *	  |  starts it, before Ferry   |
 *	  |  confines itself           |
 *	  |<--------- HELLO -----------|
 *	  |-- START "/x/plugin.so" --->|
 *	  |                            |---- fork, confinement ----------->|
 *	  |<-- socket, window ---------|                                   |
 *	  |-- INIT, SAVE, LOAD, PENDING, SET_STATE, GET_STATE, CLEANUP --->|
 *	  |<---------------------- one reply each -------------------------|
 *	  |-- END ---------------------|-------- SIGKILL ----------------->|
 *	  |<-- how it ended -----------|
 *
 * Both sockets are SOCK_SEQPACKET: a message is one packet, and a packet of another size is
 * none. ferry-plugin itself never loads a plugin, and is believed. The process with the
 * plugin is not: a reply counts only if it has the size, the magic, the type and the number
 * of the call, and comes in time; whatever else it says is bytes to be passed on.
 *
 * Bulk data (the state, INIT's strings, the text of a failure) goes through the window: 1 MiB
 * of shared memory, sealed against changes of its size. A process may change it at any time,
 * so it is only ever copied from.
 */
#ifndef VFIO_PLUGIN_PROTOCOL_H
#define VFIO_PLUGIN_PROTOCOL_H

#include <stdint.h>

#define PLUGIN_MAGIC 0x314c5046 /* "FPL1": the version is in it */
#define PLUGIN_WINDOW_SIZE (1024UL * 1024)
#define PLUGIN_TEXT_MAX 256  /* of a failure, in the window */
#define PLUGIN_PATH_MAX 4096 /* with its NUL */
#define PLUGIN_PROCESSES_MAX 64
#define PLUGIN_CONTROL_FD 3 /* of ferry-plugin */

/* To and from ferry-plugin: the header alone, or with a path behind it (START). */
enum plugin_control_type { PLUGIN_HELLO = 1, PLUGIN_START, PLUGIN_END };

struct plugin_control {
	uint32_t magic;
	uint32_t type;
	uint32_t id;	/* of a process: START's reply, END */
	int32_t result; /* replies: 0 or -errno */
	int32_t status; /* END's reply: as of waitpid */
	uint32_t reserved;
};

/* To and from a plugin's process. */
enum plugin_call {
	PLUGIN_INIT = 1,  /* window: devid, NUL, arg, NUL; value 1: there is an arg */
	PLUGIN_SAVE,	  /* len; the reply's data are in the window */
	PLUGIN_LOAD,	  /* len bytes in the window */
	PLUGIN_PENDING,	  /* reply: value */
	PLUGIN_SET_STATE, /* value */
	PLUGIN_GET_STATE, /* reply: value */
	PLUGIN_CLEANUP,
	PLUGIN_CALLS,
};

struct plugin_message {
	uint32_t magic;
	uint32_t type;	/* enum plugin_call */
	uint32_t seq;	/* the reply has the call's */
	int32_t result; /* reply: 0, or what the plugin's function returned */
	uint64_t value;
	uint32_t len;	/* of data in the window */
	uint32_t flags; /* reply */
};

/* Replies: result is ours, not the plugin's, and the window begins with text of len bytes
 * that says why. */
#define PLUGIN_FAILED (1U << 0)
/* INIT's reply: the kernel has no Landlock. */
#define PLUGIN_NO_LANDLOCK (1U << 1)

#endif
