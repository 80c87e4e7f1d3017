/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live update of a struct vm (migration/update.h, docs/live-update.md): the side that goes
 * is the operation vm.live-update; this is the side that comes.
 */
#ifndef VMM_VM_UPDATE_H
#define VMM_VM_UPDATE_H

#include "vmm/vm.h"

/*
 * Waits on a listening socket (which stays the caller's) for the process that has the VM,
 * and goes on with it. On success the VM runs here, or is paused if it was. Worker; once,
 * with nothing created.
 */
int vm_adopt(struct vm *vm, int listener, struct error *err);
/* A listening socket for it at that path, which only this user may connect to; -errno.
 * Main thread. */
int vm_adopt_listen(const char *path, const struct thread_policy *threads, struct error *err);

/* The VM is another process's: what is left of it here may only be forgotten, by _exit().
 * Any thread. */
bool vm_handed_over(const struct vm *vm);

#endif
