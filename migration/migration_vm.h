/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What migration knows of a VM: its RAM, a way to stop it and let it go on, its state as
 * a tree, and who writes to its RAM. vmm/ implements the table; tests fake it.
 *
 * All functions are called from the thread that runs the migration or the snapshot, one
 * at a time; but resume and announce of a target in postcopy from a thread of their own
 * (of kind THREAD_MAIN), since they may touch RAM that is still to come, and lost() at any
 * time after resume was called.
 */
#ifndef MIGRATION_MIGRATION_VM_H
#define MIGRATION_MIGRATION_VM_H

#include <stdbool.h>

#include "base/error.h"
#include "base/kept.h"
#include "base/migratable.h"
#include "base/state_tree.h"
#include "memory/dirty_source.h"
#include "memory/guest_memory.h"

#define MIGRATION_DIRTY_SOURCES_MAX 64
#define MIGRATION_DEVICES_MAX 32

struct migration_vm_ops {
	/* Valid as long as the VM has a machine. */
	struct guest_memory *(*memory)(void *vm);
	/* No vCPU and no device writes to RAM when it returns, but those of `devices`; resume
	 * undoes it. Both may be called in the state they lead to. */
	int (*pause)(void *vm, struct error *err);
	int (*resume)(void *vm, struct error *err);
	bool (*running)(void *vm);
	/* The node "machine", with everything below it. Paused. */
	int (*save)(void *vm, struct state_writer *writer, struct error *err);
	/* The configuration, JSON text (of vm.create, ids and places of devices included);
	 * malloc'ed, the caller's. */
	char *(*config)(void *vm, struct error *err);
	/* What the destination's CPU must have, for comparison: the node "cpu". */
	int (*save_cpu)(void *vm, struct state_writer *writer, struct error *err);
	/* Sources that together see every write to RAM; they stay the VM's. Returns how many,
	 * or -errno: -EOPNOTSUPP where a device cannot be followed (err names it). */
	int (*dirty_sources)(void *vm, struct dirty_source **sources, unsigned int max,
			     struct error *err);
	/* Devices whose state is a stream of its own; they stay the VM's. Returns how many, or
	 * -errno: -EOPNOTSUPP where one cannot be moved (err names it, and why). pause does not
	 * stop them: the migration does, after it. NULL: there are never any. */
	int (*devices)(void *vm, struct migratable **devices, unsigned int max, struct error *err);
	/* Can this VM run before its RAM is complete? -EOPNOTSUPP names the device that cannot
	 * wait for a page (DMA). NULL: it can. */
	int (*check_postcopy)(void *vm, struct error *err);
	/* Slows the vCPUs down to (100 - percent) % of their time; 0: full speed. */
	int (*throttle)(void *vm, unsigned int percent, struct error *err);
	/* Disk locks: given up when the other side takes over, taken again on failure. */
	int (*release_locks)(void *vm, struct error *err);
	int (*take_locks)(void *vm, struct error *err);
	/* The VM runs here since now: network peers are told (RARP, guest announce). */
	void (*announce)(void *vm);
	/*
	 * Live update (update.h); NULL: not offered. describe: what the other side is asked
	 * first, JSON text, malloc'ed, the caller's. keep: what is open, before the machine is
	 * made over there and, paused, what there is only then; into an empty *kept.
	 */
	char *(*describe)(void *vm, struct error *err);
	int (*keep)(void *vm, struct kept *kept, bool paused, struct error *err);
};

struct migration_vm {
	const struct migration_vm_ops *ops;
	void *opaque;
};

/* The side that receives: makes a VM out of what comes. */
struct migration_target_ops {
	/* Checks the node "cpu" against this host's. -EPROTONOSUPPORT names what is missing. */
	int (*check_cpu)(void *target, const struct state_node *cpu, struct error *err);
	/*
	 * Local migration: the machine that `create` makes next has these regions as its RAM,
	 * with what is in them; hva is NULL, the memfds (sealed against shrinking, long
	 * enough) are taken over on success. Nothing may write to it before resume: until
	 * then it is still the source's. NULL: local migration is not offered.
	 */
	int (*adopt_memory)(void *target, const struct guest_memory_region *regions,
			    unsigned int count, struct error *err);
	/* The machine that `create` makes next runs before its RAM is complete: a device that
	 * cannot wait for a page is refused by create. NULL: postcopy is not offered. */
	int (*expect_postcopy)(void *target, struct error *err);
	/* A machine for that configuration (JSON text), with empty RAM, vCPUs that do not run,
	 * and every device made; disk locks are not taken yet. */
	int (*create)(void *target, const char *config, struct error *err);
	struct guest_memory *(*memory)(void *target);
	/* As migration_vm_ops.devices, of the machine that was made. They run before resume is
	 * called. */
	int (*devices)(void *target, struct migratable **devices, unsigned int max,
		       struct error *err);
	/* Loads the node "machine". Devices have their streams; RAM is complete, but for postcopy's
	 * and lazy restore's. */
	int (*load)(void *target, const struct state_node *machine, struct error *err);
	int (*take_locks)(void *target, struct error *err);
	int (*resume)(void *target, struct error *err);
	/* Undoes create and adopt_memory: nothing is left. */
	void (*destroy)(void *target);
	/*
	 * Postcopy: the VM has run here, and memory that it needs will not come. vCPUs and
	 * devices wait in page faults that nobody serves any more, and must not see a page
	 * that is not the VM's. Where they cannot be ended one by one, the process ends here.
	 */
	void (*lost)(void *target, const struct error *why);
	void (*announce)(void *target);
	/*
	 * Live update; consider NULL: not offered. consider: the answer to describe, 0 or why
	 * not. kept: where what comes is collected, up to destroy; take_kept (may be NULL): it
	 * is there, before create and, paused, before load. Nothing of it is used before
	 * start. take_locks and announce are not called: nothing was let go of.
	 */
	int (*consider)(void *target, const char *text, struct error *err);
	struct kept *(*kept)(void *target);
	int (*take_kept)(void *target, bool paused, struct error *err);
	/* Instead of resume: it is this side's VM, and runs but where it is to be paused. */
	int (*start)(void *target, bool paused, struct error *err);
};

struct migration_target {
	const struct migration_target_ops *ops;
	void *opaque;
};

/*
 * ops->devices of a source, up to MIGRATION_DEVICES_MAX; 0 where it has none. Several of
 * which one has no P2P state are refused: -EOPNOTSUPP, and err says that they cannot be
 * `done` ("moved", "saved") together.
 */
int migration_vm_devices(const struct migration_vm *vm, struct migratable **devices,
			 const char *done, struct error *err);

#endif
