/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an assigned device's own state is had. One interface (struct migratable), three
 * backends and none:
 *
 *   feature  migration v2: VFIO_DEVICE_FEATURE_MIGRATION, ..._MIG_DEVICE_STATE and a data
 *            descriptor (linux/vfio.h); by vfio-user MIG_DATA_READ and MIG_DATA_WRITE
 *   region   the first protocol: a region of type 3, subtype 1 that begins with struct
 *            vfio_device_migration_info (linux/vfio.h of Linux 5.8 to 5.17)
 *   plugin   out of band: a shared object in a process of its own (docs/plugins.md)
 *   none     it cannot be had; the reason is kept for vm.info and for refusals
 *
 * A device that was left in the middle of a migration (mediated ones keep their state when
 * they are closed) is brought back to RUNNING when it is opened, by a reset if need be.
 *
 * Which one is decided once, when the device is opened: the plugin where the request names
 * one, else v2, else the region. What the device writes to RAM while it is followed is a
 * dirty source of its own, the best it has (device_dirty.h).
 *
 * Control plane and the migration's threads; see base/migratable.h.
 */
#ifndef VFIO_DEVICE_MIGRATION_H
#define VFIO_DEVICE_MIGRATION_H

#include "base/log.h"
#include "base/migratable.h"
#include "base/thread.h"
#include "vfio/plugin_host.h"
#include "vfio/transport.h"

struct device_migration_options {
	const char *id;		 /* of the device, in the configuration */
	const char *plugin_path; /* NULL: in band */
	const char *plugin_arg;
	struct plugin_host *plugin_host; /* where plugins run; NULL: none is allowed */
	const struct thread_policy *threads;
	struct log *log;
};

/*
 * The device's backend, the caller's: device_migration_free() before the transport is
 * closed. Never NULL but for want of memory: a device whose state cannot be had gets one
 * whose device_migration_refusal() says why, and whose calls fail with that.
 */
struct migratable *device_migration_new(struct vfio_transport *transport,
					const struct device_migration_options *options,
					struct error *err);
void device_migration_free(struct migratable *m); /* NULL is allowed */

/* NULL: it can be moved. Else why not, naming the device and what would do. */
const char *device_migration_refusal(const struct migratable *m);

#endif
