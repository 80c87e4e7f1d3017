/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices whose state is a stream (base/migratable.h) in a snapshot: a file each,
 * "device0"..., named with id, kind, length and CRC32C by the node "device-streams" of the
 * state tree. Private to migration/.
 *
 *   device-streams, version 1
 *     stream0...   id, kind, bytes (u64), crc32c (u32)
 */
#ifndef MIGRATION_SNAPSHOT_DEVICES_H
#define MIGRATION_SNAPSHOT_DEVICES_H

#include "base/migratable.h"
#include "migration/snapshot_private.h"

/* Of the VM. -EOPNOTSUPP names the one that cannot be saved. */
int snapshot_devices_find(struct snapshot_devices *devices, const struct migration_vm *vm,
			  struct error *err);
/* Their files, and what they have to say while the VM runs. */
int snapshot_devices_begin(struct snapshot_devices *devices, struct snapshot_dir *dir,
			   struct error *err);
/* vCPUs stand: no DMA any more. */
int snapshot_devices_stop(struct snapshot_devices *devices, struct error *err);
/* The rest of their streams. */
int snapshot_devices_rest(struct snapshot_devices *devices, struct error *err);
/* They run as before; also after a failure. Fails with the first that does not. */
int snapshot_devices_rollback(struct snapshot_devices *devices, struct error *err);
/* Everything to the disk; the node. */
int snapshot_devices_finish(struct snapshot_devices *devices, struct state_writer *writer,
			    struct error *err);
void snapshot_devices_end(struct snapshot_devices *devices);

/* Reads the node, if there is one, and opens the files: hostile. */
int snapshot_devices_open(struct snapshot_devices *devices, const struct state_node *root,
			  int dirfd, const struct thread_policy *policy, struct error *err);

#endif
