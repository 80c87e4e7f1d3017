/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine: RAM, KVM, vCPUs, buses and devices of one running VM, assembled from
 * a configuration. A reboot makes a new one; what outlives it (configuration,
 * consoles, events) is handed in.
 *
 * Functions are for the control plane, one at a time, unless said otherwise.
 * Callbacks come from vCPU threads and must only post.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <jansson.h>

#include "api/vm_config.h"
#include "api/vm_ops.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/migratable.h"
#include "base/state_tree.h"
#include "memory/dirty_source.h"
#include "vmm/console.h"

struct kvm;
struct machine;
struct plugin_host;
struct vfio_given;

enum machine_request {
	MACHINE_RESET,	  /* i8042, reset register, triple fault */
	MACHINE_SHUTDOWN, /* ACPI S5 */
	MACHINE_PANICKED, /* pvpanic; the guest goes on as it likes */
	MACHINE_FAILED,	  /* a vCPU cannot go on */
};

struct machine_callbacks {
	/* `detail` is valid during the call only. */
	void (*request)(void *opaque, enum machine_request request, const char *detail);
	/* The guest released a device: machine_finish_removal() is to be called. */
	void (*device_ejected)(void *opaque, const char *id);
	/* An assigned device failed or is wanted back by the host: it should be unplugged,
	 * the VM goes on. Main loop. */
	void (*device_lost)(void *opaque, const char *id, const char *reason);
	void *opaque;
};

struct machine_env {
	struct loop *loop;
	const struct thread_policy *threads;
	struct log *log;
	struct console *serial, *console, *debug_console; /* NULL: no such device */
	struct plugin_host *plugins; /* outlives the machine; NULL: none is allowed */
	struct vfio_given *given;    /* outlives the machine: opened devices of the configuration */
	/* 16 bytes that outlive the machine, as the VM generation id outlives a reboot: read
	 * when it is made (zero: none yet), written with what the guest sees. NULL: a new one. */
	uint8_t *generation_id;
	struct machine_callbacks callbacks;
};

/* A machine whose state comes from elsewhere: a snapshot, another host. */
struct machine_incoming {
	const json_t *layout; /* machine_layout() of the one it was */
	/* Its RAM, with the regions that it had, taken over on success; NULL: it is made,
	 * empty. */
	struct guest_memory *memory;
	/* A VM of KVM that is made already (machine_check_cpu()), taken over where it is open:
	 * then it is closed here. NULL: one is made. */
	struct kvm *kvm;
	bool disks_unlocked; /* machine_lock_disks() follows */
	/* Live update: what the process has open whose machine it still is. Taken out while
	 * it is made and loaded; freed before machine_own(), it leaves all as it is. */
	struct kept *kept;
};

/*
 * Everything is loaded and every vCPU paused at its first instruction. config is
 * read during the call only.
 *
 * incoming, where not NULL: nothing is written into RAM, and vCPUs and devices want
 * machine_load() before they may run; devices are in the slots they had.
 */
struct machine *machine_new(const struct vm_config *config, const struct machine_env *env,
			    const struct machine_incoming *incoming, struct error *err);
/* Stops everything; NULL is allowed. */
void machine_free(struct machine *machine);

/* Lets the vCPUs run (first start, and after a pause). The guest's clock does not see
 * the pause. */
int machine_resume(struct machine *machine, struct error *err);
int machine_pause(struct machine *machine, struct error *err);

/*
 * The machine in the state tree, paused. -EBUSY a vCPU has failed; -EOPNOTSUPP names a
 * device that cannot be saved.
 *
 *   machine, version 1
 *     memory-size  bytes of RAM
 *     clock, vcpus/vcpu0..., irqchip       vmm/kvm_state.h, vmm/x86/cpu_state.h
 *     serial, rtc, i8042, pvpanic, debug-port, ged, vmgenid, pci   devices/
 */
int machine_save(struct machine *machine, struct state_writer *writer, struct error *err);
/* Into one made with `incoming`, which has not run. On failure it is to be freed. The
 * guest's clocks go on when it is resumed, by the time that has passed. */
int machine_load(struct machine *machine, const struct state_node *node, struct error *err);
/* What runs is from now on one of several: after the machine_load of a snapshot (not of a
 * migration), before it runs, the guest gets a new VM generation id and is told. */
int machine_renew_generation_id(struct machine *machine, struct error *err);
/* The node "cpu": what another host's CPU must have. */
int machine_save_cpu(struct machine *machine, struct state_writer *writer, struct error *err);
/* May a machine with that node run on this host? Needs no machine. kvm, closed: left open on
 * success, for machine_incoming, where the host's kernel lets the VM that was asked be used.
 * Making and closing one takes a few ms. NULL: it is closed. */
int machine_check_cpu(const struct state_node *node, struct kvm *kvm, struct error *err);
/* Where things are, for machine_incoming: a new reference. */
json_t *machine_layout(struct machine *machine, struct error *err);

struct guest_memory *machine_memory(struct machine *machine);
bool machine_running(const struct machine *machine);
/* Its assigned devices, whose own state is a stream; they stay the machine's. How many, or
 * -EOPNOTSUPP naming the one whose state cannot be had, and why. */
int machine_movables(struct machine *machine, struct migratable **movables, unsigned int max,
		     struct error *err);
/* After machine_load, where the devices were given their streams: they run. */
int machine_movables_resume(struct machine *machine, struct error *err);
/* They run, whatever a hand-over that came to nothing has left them in. */
int machine_movables_run(struct machine *machine, struct error *err);
/* Can it run before its RAM is complete? -EOPNOTSUPP names the device that cannot. */
int machine_check_postcopy(const struct machine *machine, struct error *err);
/* Sources that together see every write to RAM; they stay the machine's. How many, or
 * -EOPNOTSUPP naming the device that cannot be followed. */
int machine_dirty_sources(struct machine *machine, struct dirty_source **sources, unsigned int max,
			  struct error *err);
/* Keeps the vCPUs from running for that part of their time; 0: full speed. */
int machine_throttle(struct machine *machine, unsigned int percent, struct error *err);
/* Live update (base/kept.h): what its devices have open. Refusals name the device. */
int machine_keep(struct machine *machine, struct kept *kept, bool paused, struct error *err);
/* The machine stays in this process after all. */
void machine_unkeep(struct machine *machine);
/* What came along (incoming.kept) is this machine's: machine_resume() begins so, and a
 * paused one is told. */
void machine_own(struct machine *machine);
/* After that, and when the VM runs: how the devices' state can be had. It may take a while,
 * where a plugin is started for it. */
void machine_ask_devices(struct machine *machine);
bool machine_has_virtio(const struct machine *machine, unsigned int type);
bool machine_has_vfio(const struct machine *machine);
/* Held, it reads its serial port's input no more, and asks assigned devices nothing, whose
 * interrupts wait; to be let go of also where it failed. */
int machine_hold_host(struct machine *machine, bool hold, struct error *err);
int machine_lock_disks(struct machine *machine, struct error *err);
int machine_unlock_disks(struct machine *machine, struct error *err);
/* The guest is on another host, or back: its network peers are told. */
void machine_announce(struct machine *machine);

void machine_power_button(struct machine *machine);
int machine_nmi(struct machine *machine, struct error *err);

/* place->bdf and place->id are filled; config is read during the call only. */
int machine_add_disk(struct machine *machine, const struct disk_config *config,
		     struct vm_device_place *place, struct error *err);
int machine_add_net(struct machine *machine, const struct net_config *config,
		    struct vm_device_place *place, struct error *err);
int machine_add_vsock(struct machine *machine, const struct vsock_config *config,
		      struct vm_device_place *place, struct error *err);
int machine_add_device(struct machine *machine, const struct device_config *config,
		       struct vm_device_place *place, struct error *err);
int machine_add_user_device(struct machine *machine, const struct user_device_config *config,
			    struct vm_device_place *place, struct error *err);
/* Asks the guest; device_ejected follows when it agrees. */
int machine_request_removal(struct machine *machine, const char *id, struct error *err);
/* After device_ejected: frees the device. */
void machine_finish_removal(struct machine *machine, const char *id);

int machine_resize_balloon(struct machine *machine, uint64_t size, struct error *err);
int machine_resize_disk(struct machine *machine, const char *id, struct error *err);

/* RAM less what the balloon holds, bytes. Any thread. */
uint64_t machine_memory_actual(struct machine *machine);
/* { id: { counter: value } }, { id: { "id", "pci_bdf", ... } }: new references. Any
 * thread, while the machine exists. */
json_t *machine_counters(struct machine *machine);
json_t *machine_device_tree(struct machine *machine);

#endif
