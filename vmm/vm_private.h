/* SPDX-License-Identifier: Apache-2.0 */
/* The VM's insides, shared by vm.c and vm_devices.c. */
#ifndef VMM_VM_PRIVATE_H
#define VMM_VM_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "vfio/given.h"
#include "vmm/console.h"
#include "vmm/machine.h"
#include "vmm/vm.h"
#include "vmm/vm_work.h"

struct snapshot_tracking;
struct vm_lazy;

/* Where the VM is, as far as it is known. */
enum vm_away {
	VM_HERE,
	VM_MOVED, /* what is here is what was left of it, and may not run again */
	VM_HELD,  /* perhaps here, without its disk locks: who resumes it knows that it is */
};

struct vm {
	struct vm_options options;
	struct api_server *server;
	atomic_uint generation; /* counts machines: an old one's last words are ignored */

	/* Written by the worker alone, under lock; read by it without, by others with. */
	pthread_mutex_t lock;
	bool created;
	enum vm_state state;
	struct vm_config config;
	struct machine *machine;
	struct console *serial, *console, *debug_console;
	struct loop_source *settle; /* a while after the first run; the main loop's */
	bool has_run;		    /* the worker's: a VM of this process has */
	uint8_t generation_id[16];  /* of the machines, one after the other; zero: none yet */

	struct vm_work work;
	enum vm_away away;	 /* the worker's, of a VM in VM_PAUSED */
	atomic_bool handed_over; /* by live update */
	/* The worker's. NULL: no snapshot was made yet; no lazy restore goes on. */
	struct snapshot_tracking *tracking;
	struct vm_lazy *lazy;
	struct vfio_given given; /* the worker's */
};

const char *vm_state_name(enum vm_state state);
/* Fill err, return its code. */
int vm_not_created(struct error *err);
int vm_wrong_state(struct vm *vm, const char *what, struct error *err);
int vm_is_away(struct error *err);

void vm_emit(struct vm *vm, const char *event);
void vm_set_state(struct vm *vm, enum vm_state state);
/* Worker. Consoles and a machine for vm->config, paused; incoming: see machine_new(). */
int vm_make_machine(struct vm *vm, const struct machine_incoming *incoming, struct error *err);
/* Worker: frees the machine, and what a snapshot or restore has left running beside it. */
void vm_drop_machine(struct vm *vm);
/* Worker: the VM is created, with what *config has, which is left empty. */
int vm_adopt_config(struct vm *vm, struct vm_config *config, struct error *err);
/* Worker: there is no VM any more. */
void vm_discard(struct vm *vm);

/* As a vCPU that cannot go on. Any thread. */
void vm_fail(struct vm *vm, const char *reason);

/* Where an error of opening something is Landlock's, adds what would do. access: r or rw. */
void vm_suggest_rule(const struct vm *vm, const char *access, struct error *err);

/* struct vm_ops of snapshots and migrations */
int vm_snapshot(void *opaque, const struct snapshot_config *config, struct error *err);
int vm_restore(void *opaque, struct restore_config *config, struct error *err);
int vm_send_migration(void *opaque, const struct send_migration_config *config, struct error *err);
int vm_receive_migration(void *opaque, struct receive_migration_config *config, struct error *err);
int vm_live_update(void *opaque, const struct live_update_config *config,
		   struct live_update_result *result, struct error *err);
/* Worker: all RAM is there, and no lazy restore any more. */
int vm_finish_restore(struct vm *vm, struct error *err);
/* Worker, before the machine goes: what counts or fills its RAM. */
void vm_forget_snapshots(struct vm *vm);

/* Worker: takes a device out of the configuration; -ENOENT. */
int vm_forget_device(struct vm *vm, const char *id);

/* struct vm_ops of devices */
int vm_add_disk(void *opaque, struct disk_config *disk, struct vm_device_place *place,
		struct error *err);
int vm_add_net(void *opaque, struct net_config *net, struct vm_device_place *place,
	       struct error *err);
int vm_add_vsock(void *opaque, struct vsock_config *vsock, struct vm_device_place *place,
		 struct error *err);
int vm_add_device(void *opaque, struct device_config *device, struct vm_device_place *place,
		  struct error *err);
int vm_add_user_device(void *opaque, struct user_device_config *device,
		       struct vm_device_place *place, struct error *err);
int vm_remove_device(void *opaque, const char *id, struct error *err);
int vm_resize_balloon(void *opaque, uint64_t size, struct error *err);
int vm_resize_disk(void *opaque, const char *id, uint64_t size, struct error *err);

#endif
