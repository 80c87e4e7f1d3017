/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI root's own parts, shared by pci_root.c (slots), pci_root_ports.c
 * (registers), pci_root_windows.c (addresses), pci_root_lines.c (INTx) and
 * pci_root_state.c (saving and loading). */
#ifndef DEVICES_PCI_PCI_ROOT_INTERNAL_H
#define DEVICES_PCI_PCI_ROOT_INTERNAL_H

#include "devices/pci/pci_root.h"

struct pci_slot {
	struct pci_root *root;
	struct pci_function *fn;	 /* stays while leaving, so that the slot is not reused */
	bool leaving;			 /* being taken out: no new config accesses */
	unsigned int users;		 /* config accesses inside fn */
	bool removal_wanted;		 /* pci_root_request_removal was called */
	uint64_t assigned[PCI_BARS + 1]; /* BAR addresses given by us, 0: none */

	struct interrupts line; /* what fn->intx goes through */
	unsigned int gsi;
	bool level;	    /* as the device set it; under line_lock */
	bool intx_disabled; /* by the command register; under line_lock */
};

struct pci_root {
	struct device_host *host;
	struct pci_root_layout layout;
	struct pci_root_callbacks callbacks;
	struct pci_windows windows;
	unsigned int ports_added; /* ranges now on the buses */
	pthread_mutex_t lock;	  /* slots' fn, leaving, users, removal_wanted; what follows */
	pthread_cond_t idle;	  /* a leaving slot has no users any more */
	uint32_t up, down;	  /* hot-plug registers */
	uint32_t config_address;  /* port 0xcf8 */
	struct pci_slot slots[PCI_SLOTS];
	pthread_mutex_t line_lock; /* innermost */
};

/* A config access enters the slot of devfn (NULL: nothing there) and leaves it. */
struct pci_slot *pci_root_enter(struct pci_root *root, unsigned int devfn);
void pci_root_leave(struct pci_root *root, struct pci_slot *slot);
/* The guest releases a slot. */
void pci_root_eject(struct pci_root *root, unsigned int index);

/* ECAM, hot-plug registers, ports 0xcf8-0xcff. */
int pci_root_ports_add(struct pci_root *root, struct error *err);
void pci_root_ports_remove(struct pci_root *root);

/* Finds a place for each BAR of fn: naturally aligned, first fit. */
int pci_root_allocate(struct pci_root *root, struct pci_function *fn,
		      uint64_t address[PCI_BARS + 1], struct error *err);

/* Whether such an address can have been given to bar (NULL: no BAR, no address). */
bool pci_root_may_place(const struct pci_root *root, const struct pci_bar *bar, uint64_t address);

void pci_root_wire_lines(struct pci_root *root);
/* The command register may have changed: interrupt disable. */
void pci_root_command_written(struct pci_slot *slot, struct pci_function *fn);
bool pci_root_line_level(struct pci_slot *slot);

#endif
