/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin backend's insides: shared by its two sources, and by its tests. */
#ifndef VFIO_MIGRATION_PLUGIN_PRIVATE_H
#define VFIO_MIGRATION_PLUGIN_PRIVATE_H

#include <pthread.h>

#include "vfio/migration_plugin.h"
#include "vfio/plugin_channel.h"

#define PLUGIN_STREAM_MAGIC "FERRYPLG"
#define PLUGIN_STREAM_VERSION 1
/* Stopped, a device has so much to save and no more: so often it may say so without it
 * getting less. */
#define PLUGIN_ROUNDS_MAX 256
/* More than a device can have. */
#define PLUGIN_PENDING_MAX (1ULL << 40)

struct plugin_stream_head {
	char magic[8];
	uint32_t version, reserved;
};
#define PLUGIN_CHUNK_MAGIC 0x4b4e4843 /* "CHNK" */
struct plugin_chunk {
	uint32_t magic, len;
};

struct plugin_migration {
	struct device_migration dm; /* first */
	struct plugin_host *host;   /* NULL in a test: the process is the test's */
	char *path, *arg;
	char device[128]; /* as init() gets it */
	unsigned int timeout_ms;
	/* save_pending may come beside a save_read. */
	pthread_mutex_t lock;
	bool alive; /* there is a process */
	struct plugin_process process;
	struct plugin_channel channel;
	bool touched; /* it was told to leave RUNNING, or may have been */
	bool stopped; /* SAVING without RUNNING */
	/* Out: what is left of a head and of the window's data. */
	uint8_t head[sizeof(struct plugin_stream_head) + sizeof(struct plugin_chunk)];
	size_t head_at, head_len, data_at, data_len;
	bool begun, ended;
	uint64_t left;	 /* of what update_pending() said, not yet saved */
	uint64_t lowest; /* it said since the device stopped */
	unsigned int rounds;
	/* In: a head, as far as it came, and the chunk under way. */
	size_t in_len, chunk_at, chunk_len;
};

/* As migration_plugin_new, for the device of that address; timeout_ms of every call. */
struct device_migration *migration_plugin_new_for(const char *device, unsigned int timeout_ms,
						  const struct device_migration_options *options,
						  struct error *err);

/* For tests: one whose process is the caller's, by its socket and window. */
struct plugin_migration *migration_plugin_attach(int sock, uint8_t *window, struct error *err);

/* A call to the plugin. A process that breaks is ended, and err says how it ended. */
int plugin_call(struct plugin_migration *p, enum plugin_call type, uint64_t in, uint32_t len,
		uint64_t *value, struct error *err);

/* migration_plugin_stream.c; p->lock is held. */
void plugin_stream_begin(struct plugin_migration *p);
ssize_t plugin_stream_read(struct plugin_migration *p, void *buf, size_t len, struct error *err);
int plugin_stream_write(struct plugin_migration *p, const void *buf, size_t len, struct error *err);

#endif
