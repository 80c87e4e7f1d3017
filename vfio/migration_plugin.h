/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend "plugin": a device whose state an agent on its card has, reached by a shared
 * object in a process of its own (plugin_host.h, docs/plugins.md).
 *
 * When the device is opened the plugin is tried: loaded, initialised, cleaned up. After that
 * there is no process until a migration begins, and a new one for each: what a plugin did to
 * itself in the last one, a connection that died in the months between, are no matter.
 *
 * A plugin that hangs for longer than a step may take, ends, or answers nonsense loses its
 * process; the step fails with what it did, and so does the migration. rollback() then sets
 * the device running by a new process.
 *
 * Private to vfio/; made by device_migration_new where options->plugin_path is set. The stream
 * keeps the cuts of save() for load():
 *
 *	struct plugin_stream_head, then chunks: struct plugin_chunk, `len` bytes (1 to
 *	PLUGIN_WINDOW_SIZE); a chunk of no bytes is the end
 */
#ifndef VFIO_MIGRATION_PLUGIN_H
#define VFIO_MIGRATION_PLUGIN_H

#include "vfio/device_migration_private.h"

/* NULL: the device cannot be moved by it; err says why, names device and plugin, and becomes
 * the device's refusal. Freed with its process, if there is one. */
struct device_migration *migration_plugin_new(struct vfio_transport *transport,
					      const struct device_migration_options *options,
					      struct error *err);

#endif
