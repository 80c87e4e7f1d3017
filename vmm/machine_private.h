/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's insides, shared by machine.c and machine_devices.c. */
#ifndef VMM_MACHINE_PRIVATE_H
#define VMM_MACHINE_PRIVATE_H

#include <pthread.h>

#include "devices/device_host.h"
#include "devices/legacy/legacy.h"
#include "devices/legacy/vmgenid.h"
#include "devices/pci/pci_root.h"
#include "devices/virtio/virtio_device.h"
#include "vfio/dma_space.h"
#include "vmm/kvm.h"
#include "vmm/kvm_interrupts.h"
#include "vmm/kvm_state.h"
#include "vmm/machine.h"
#include "vmm/vcpu.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/cpu_state.h"

/* What the configuration says of moving an assigned device; read during the call. */
struct machine_movable {
	const char *plugin_path, *plugin_arg; /* NULL: in band */
	bool all_dirty;
};

struct machine_device {
	struct machine_device *next;
	struct pci_function *fn;
	char id[64];
	bool removing;			/* the guest was asked to release it */
	bool ejected;			/* off the bus, waiting for machine_finish_removal */
	struct machine_movable movable; /* of one that is another process's still: copies */
	bool unasked;			/* this process's now: machine_ask_devices() */
	/* Assigned devices (machine_movable.c); else NULL. */
	struct migratable *migration;
	struct dirty_source *dirty; /* made when it is first wanted */
	bool all_dirty;		    /* every page it can reach counts as written */
};

struct machine {
	struct machine_env env;
	struct device_host host;
	struct kvm kvm;
	struct kvm_interrupts *interrupts;
	struct pci_root *pci;

	struct serial *serial;
	struct rtc *rtc;
	struct i8042 *i8042;
	struct pvpanic *pvpanic;
	struct debug_port *debug_port;
	struct acpi_ged *ged;
	struct vmgenid *vmgenid;
	struct virtio_device *balloon;

	/* Assigned devices: DMA spaces (NULL until the first device of the kind), memory slots
	 * of their BARs, servers of vfio-user devices. */
	struct dma_space *iommufd, *type1;
	struct kvm_slots *slots;
	struct machine_server *servers;

	struct x86_topology topology;
	uint32_t apic_ids[VM_CPUS_MAX];
	uint64_t mem64_base, mem64_size;
	struct x86_cpuid *supported;
	struct vcpu *vcpus[VM_CPUS_MAX];
	struct x86_vcpu_state states[VM_CPUS_MAX];
	unsigned int vcpu_count;
	bool running;
	/* Time at the pause, here or where it was saved: clock, and each state's time. */
	bool clock_valid, clock_loaded;
	struct kvm_clock clock;
	/* NULL before the first migration. */
	struct dirty_source *kvm_writes, *vmm_writes;
	struct throttle *throttle;
	bool memory_lent;     /* host.memory is not this machine's */
	const json_t *layout; /* while it is made of one that comes in; else NULL */
	bool disks_unlocked;  /* and its disks are not locked */
	bool held;	      /* machine_hold_host() */

	pthread_mutex_t lock; /* guards what follows: readers are on other threads */
	struct machine_device *devices;
	json_t *counted; /* by another process, before a live update; NULL: nothing */
};

/* Sources of dirty pages and throttle; the vCPUs are still there. */
void machine_free_migration(struct machine *machine);

/* RAM, windows and slots as machine_layout() gave them (machine_layout.c). */
int machine_layout_window(struct machine *machine, struct error *err);
int machine_layout_slot(struct machine *machine, const char *id, int *slot, struct error *err);

/* In or out of the main loop; machine.c. */
void machine_hold_serial(struct machine *machine, bool hold);

/* The VM generation id to env.generation_id. */
void machine_keep_generation_id(struct machine *machine);

/* Makes, and puts on the bus, what config asks for. */
int machine_create_devices(struct machine *machine, const struct vm_config *config,
			   struct error *err);
void machine_free_devices(struct machine *machine);
/* Puts fn on the bus and in the list; takes it over, also on failure. */
int machine_plug_function(struct machine *machine, struct pci_function *fn, bool hotplug,
			  struct vm_device_place *place, struct error *err);

/* Assigned devices (machine_vfio.c). */
int machine_plug_device(struct machine *machine, const struct device_config *config, bool hotplug,
			struct vm_device_place *place, struct error *err);
int machine_plug_user_device(struct machine *machine, const struct user_device_config *config,
			     bool hotplug, struct vm_device_place *place, struct error *err);
/* After the last device. */
/* The device is gone: who its server was is of no interest any more. */
void machine_forget_server(struct machine *machine, const char *id);
void machine_free_vfio(struct machine *machine);

/* Live update: what was counted goes along, what is unplugged is forgotten;
 * machine_counters.c. */
int machine_keep_counters(struct machine *machine, struct kept *kept, struct error *err);
void machine_take_counters(struct machine *machine);
void machine_forget_counters(struct machine *machine, const char *id);

/* What can be done before the pause, of the machine that goes (a new reference, or NULL),
 * and, by its layout, of the one that comes; machine_expect.c. */
json_t *machine_expected(struct machine *machine);
void machine_expect(struct machine *machine);

/* Finds out how the state of the assigned device of that id can be had; machine_movable.c. */
void machine_make_movable(struct machine *machine, const char *id,
			  const struct machine_movable *how);
/* Before its function is freed. */
void machine_forget_movable(struct machine_device *device);
/* What it writes to RAM; the device's. -EOPNOTSUPP names it. */
int machine_movable_source(struct machine *machine, struct machine_device *device,
			   struct dirty_source **source, struct error *err);
/* For vm.info: a new reference; NULL where it is no assigned device. With the lock. */
json_t *machine_movable_json(const struct machine_device *device);

/* pci_root's callback: from a vCPU thread. */
void machine_on_ejected(void *opaque, struct pci_function *fn);
/* Every virtio device: its data path stopped, started. */
void machine_pause_devices(struct machine *machine);
void machine_resume_devices(struct machine *machine);

#endif
