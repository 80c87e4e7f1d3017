/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The border between the API and the machine: one table of operations. vmm/
 * implements it, the API calls it, tests fake it.
 *
 * Operations marked [long] may take any time and are called one at a time, from
 * the API's worker thread; [quick] ones are called from the main thread, also
 * while a long one runs, and must not block. Errors: struct error with a kind
 * (base/error.h); ERROR_NOT_FOUND "VM is not created" where there is none.
 */
#ifndef API_VM_OPS_H
#define API_VM_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "api/live_update_config.h"
#include "api/migration_config.h"
#include "api/migration_progress.h"
#include "api/vm_config.h"
#include "base/error.h"

enum vm_state { VM_CREATED, VM_RUNNING, VM_SHUTDOWN, VM_PAUSED, VM_BREAKPOINT };

/* Where a hot-plugged device went; cold: the VM was not running (204, no body). */
struct vm_device_place {
	bool cold;
	char id[64];
	char bdf[16]; /* "0000:00:05.0" */
};

struct vm_ops {
	/* Takes the contents of *config over on success (and leaves it empty). [long] */
	int (*create)(void *vm, struct vm_config *config, struct error *err);
	int (*delete)(void *vm, struct error *err);	  /* [long] */
	int (*boot)(void *vm, struct error *err);	  /* [long] */
	int (*shutdown)(void *vm, struct error *err);	  /* [long] */
	int (*reboot)(void *vm, struct error *err);	  /* [long] */
	int (*pause)(void *vm, struct error *err);	  /* [long] */
	int (*resume)(void *vm, struct error *err);	  /* [long] */
	int (*power_button)(void *vm, struct error *err); /* [long] */
	int (*nmi)(void *vm, struct error *err);	  /* [long] */

	/* add_*: take the contents of the config over on success. [long] */
	int (*add_disk)(void *vm, struct disk_config *disk, struct vm_device_place *place,
			struct error *err);
	int (*add_net)(void *vm, struct net_config *net, struct vm_device_place *place,
		       struct error *err);
	int (*add_vsock)(void *vm, struct vsock_config *vsock, struct vm_device_place *place,
			 struct error *err);
	int (*add_device)(void *vm, struct device_config *device, struct vm_device_place *place,
			  struct error *err);
	int (*add_user_device)(void *vm, struct user_device_config *device,
			       struct vm_device_place *place, struct error *err);
	int (*remove_device)(void *vm, const char *id, struct error *err); /* [long] */
	/* Bytes the balloon shall take; the guest follows in its own time. [long] */
	int (*resize_balloon)(void *vm, uint64_t size, struct error *err);
	/* The disk's file has the size `size` now, or shall be told the guest. [long] */
	int (*resize_disk)(void *vm, const char *id, uint64_t size, struct error *err);

	/*
	 * A table without these seven does not offer them: the paths are not there (404).
	 *
	 * While snapshot, send, receive or live_update runs, the server refuses the other [long]
	 * operations itself (ERROR_WRONG_STATE, naming what runs), hotplug among them;
	 * vmm_shutdown cancels it first.
	 *
	 * snapshot and send take a VM that runs or is paused (ERROR_WRONG_STATE else);
	 * restore and receive need that there is none. send: on success the VM is deleted
	 * here, or paused where preserve_source is set; on failure it is as before.
	 * Overrides' descriptors may be taken.
	 */
	int (*snapshot)(void *vm, const struct snapshot_config *config,
			struct error *err);					    /* [long] */
	int (*restore)(void *vm, struct restore_config *config, struct error *err); /* [long] */
	int (*send_migration)(void *vm, const struct send_migration_config *config,
			      struct error *err); /* [long] */
	int (*receive_migration)(void *vm, struct receive_migration_config *config,
				 struct error *err); /* [long] */
	/*
	 * Hands a VM that runs or is paused to another process, which goes on with it and with
	 * all that is open; this one ends afterwards. On failure the VM is as before.
	 */
	int (*live_update)(void *vm, const struct live_update_config *config,
			   struct live_update_result *result, struct error *err); /* [long] */
	/*
	 * Asks what runs (send, receive, snapshot) to end; it fails with ECANCELED then, in
	 * its own time. ERROR_WRONG_STATE where nothing runs or the hand-over is too far
	 * to undo. [quick]
	 */
	int (*cancel_migration)(void *vm, struct error *err);
	/* Of what runs, or of the last that did; also where there is no VM. [quick] */
	void (*migration)(void *vm, struct vm_migration_progress *progress);

	/*
	 * vm.info's body: { config, state, memory_actual_size, device_tree }, a new
	 * reference. [quick]
	 */
	json_t *(*info)(void *vm, struct error *err);
	/* vm.counters' body: { device id: { counter: value } }. [quick] */
	json_t *(*counters)(void *vm, struct error *err);
	/* The state alone; returns -ENOENT where no VM is created. [quick] */
	int (*state)(void *vm, enum vm_state *state);
	/* Ends the process after the VM was stopped and deleted. [long] */
	void (*vmm_shutdown)(void *vm);
};

#endif
