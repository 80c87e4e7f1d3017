/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI root: bus 0 with 32 slots behind ECAM and behind ports 0xcf8-0xcff, the
 * address windows BARs are given out of, INTx wiring, and the register block
 * through which ACPI hot-plugs (its AML is written by vmm/x86/acpi).
 *
 * Config accesses, hot-plug registers and ejects come from vCPU threads. Adding,
 * removing, finding and resetting are for the control plane, one at a time, beside
 * them. Taking a function off waits for the accesses inside it: while the guest runs
 * only a vCPU (by ejecting) does that, so a device may wait for the main thread in a
 * register access; pci_root_remove, pci_root_reset and pci_root_free are called
 * while no vCPU runs.
 *
 * Lines shared by several functions are wired OR, and honour the interrupt disable
 * bit of the command register: fn->intx does both. An irqfd attached to fn->intx's
 * gsi bypasses them.
 */
#ifndef DEVICES_PCI_PCI_ROOT_H
#define DEVICES_PCI_PCI_ROOT_H

#include "devices/pci/pci_function.h"

#define PCI_SLOTS 32

struct pci_root;

struct pci_root_layout {
	uint64_t ecam_base;		 /* 1 MiB for bus 0 */
	uint64_t mem32_base, mem32_size; /* window below 4 GiB for 32-bit BARs */
	uint64_t mem64_base, mem64_size; /* window above RAM */
	uint16_t io_base, io_size;
	unsigned int intx_gsi[4]; /* INTA-D of slot s pin p: intx_gsi[(s + p) % 4] */
	uint64_t hotplug_base;	  /* the hot-plug registers, MMIO */
	/* No config space behind ports 0xcf8-0xcff, only the reset at 0xcf9. Linux takes
	 * the ports where it finds them, at two exits an access instead of ECAM's one. */
	bool ecam_only;
};

/*
 * Hot-plug registers, each 32 bits little-endian, at hotplug_base:
 *   +0  UP    read: bit s = slot s was plugged in and not yet reported; clears
 *   +4  DOWN  read: bit s = slot s shall be removed; clears
 *   +8  EJECT write: 1 << s, the guest has released slot s
 * 12 bytes. `notify` is called when UP or DOWN becomes non-zero (raise the GED).
 */
#define PCI_HOTPLUG_SIZE 12

struct pci_root_callbacks {
	void (*hotplug_notify)(void *opaque);
	/* The guest ejected fn: it is off the bus already; the callee frees it by
	 * fn->ops->free from a thread that is not inside a bus access (the vCPU is:
	 * post it to the main loop). */
	void (*ejected)(void *opaque, struct pci_function *fn);
	/* The guest wrote a reset to port 0xcf9: it lies within the dword of the
	 * config address, so whoever owns the one owns the other. May be NULL; as in
	 * struct machine_requests. */
	void (*reset)(void *opaque);
	void *opaque;
};

struct pci_root *pci_root_new(struct device_host *host, const struct pci_root_layout *layout,
			      const struct pci_root_callbacks *callbacks, struct error *err);
/* Frees every function on it as well; those ejected or removed were freed before. */
void pci_root_free(struct pci_root *root);

/*
 * Gives fn a slot (slot < 0: the first free one; slot 0 is the host bridge's),
 * an INTx line and BAR addresses. `hotplug`: the guest is running; tell it.
 * -ENOSPC where slots or a window are exhausted: named; -EINVAL no such slot,
 * -EEXIST it is taken. The root owns fn then.
 */
int pci_root_add(struct pci_root *root, struct pci_function *fn, int slot, bool hotplug,
		 struct error *err);
/* Asks the guest to release fn; `ejected` comes later, or never. */
int pci_root_request_removal(struct pci_root *root, struct pci_function *fn, struct error *err);
/* Takes fn off now, without asking (guest not running). Does not free it. */
void pci_root_remove(struct pci_root *root, struct pci_function *fn);

/* By the API's id; NULL where there is none (ejected ones are gone at once). Valid
 * while the thread that `ejected` posts to does not go on. */
struct pci_function *pci_root_find(struct pci_root *root, const char *id);
/* Machine reset: every function's generic header and reset op, BARs back where
 * pci_root_add put them; functions whose removal was asked for leave (through
 * `ejected`). */
void pci_root_reset(struct pci_root *root);
/*
 * The node of that name: hot-plug registers, config address, where each function's
 * BARs were put; below it each function with its slot, the host bridge included
 * (pci_function_save). The levels of INTx lines follow from the devices' own state.
 */
int pci_root_save(struct pci_root *root, struct state_writer *writer, const char *name,
		  struct error *err);
/*
 * Loads it and every function; the machine has the same functions in the same slots:
 * -EINVAL names one that is only on one side. A removal that was asked for there is
 * asked for here.
 */
int pci_root_load(struct pci_root *root, const struct state_node *node, struct error *err);
/* Calls fn for each function but the host bridge, by slot. Control plane. */
void pci_root_each(struct pci_root *root, void (*each)(void *opaque, struct pci_function *fn),
		   void *opaque);
/* "0000:00:03.0" into text of at least 13 bytes. */
void pci_function_bdf(const struct pci_function *fn, char *text, size_t size);

#endif
