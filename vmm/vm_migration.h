/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct vm as migration/ sees it (migration/migration_vm.h): one that is saved or sent,
 * and one that comes. In the server's worker, as all of struct vm.
 *
 * The configuration on its way is that of vm.create, with one object more: "machine",
 * where things are in the machine (machine_layout).
 */
#ifndef VMM_VM_MIGRATION_H
#define VMM_VM_MIGRATION_H

#include "api/migration_config.h"
#include "migration/migration_vm.h"
#include "vmm/vm.h"

struct migration_vm vm_migration_source(struct vm *vm);
/* What the API says of the VM follows what was done to it: running or paused. */
void vm_migration_settle(struct vm *vm);

struct vm_target {
	struct vm *vm;
	struct config_overrides *overrides; /* NULL: none */
	/* Taken over by create; with the regions that the VM had. NULL: RAM is made, empty. */
	struct guest_memory *memory;
	/* Closed: check_cpu opens it for the machine that create makes; the owner closes it.
	 * NULL: each makes its own. */
	struct kvm *kvm;
	bool lock_disks;      /* at once: nobody else has the VM */
	const bool *prefault; /* instead of the configuration's; NULL: as there */
	/* Live update: what comes along; NULL: nothing. Outlives the machine's own. */
	struct kept *kept;
	const char *no_devices; /* why there can be no assigned device; NULL: there can */
	bool created;
};

struct migration_target vm_migration_target(struct vm_target *target);

#endif
