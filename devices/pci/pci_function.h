/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One PCI function: 4 KiB of configuration space (PCI Local Bus 3.0 chapter 6,
 * PCIe Base for the extended part), up to six BARs and a ROM, a capability list.
 *
 * The generic part emulates the header: command, status, BAR sizing and moving,
 * the capability list, with a write mask per byte. What a device does differently
 * it says in its ops. Config accesses come from vCPU threads, serialised by the
 * function's lock; BAR accesses come from vCPU threads, concurrently.
 *
 * Two locks, always taken in this order:
 *   write_lock  one config write, or one remapping, at a time, with all that
 *               follows from it: config_written, bar_mapped and bar_unmapped run
 *               with this one only. Recursive: they may remap again.
 *   lock        the bytes of config space and the placement of BARs, for the
 *               length of one access: config_read and config_write run with it.
 * Taking a BAR off the bus waits for the accesses inside it. So the handler of a
 * BAR may take `lock` but never write_lock: it must not write config space and not
 * remap; and config_read and config_write must not remap.
 *
 * A BAR is decoded only where nothing else is: not on top of another range of the
 * bus or of RAM, and not outside the root's windows. Where the guest puts it there
 * all the same it stays off the bus until it is moved.
 *
 * There is no firmware: BARs have addresses when the guest starts (pci_root
 * assigns them), and the guest may move them while decoding is off or on.
 */
#ifndef DEVICES_PCI_PCI_FUNCTION_H
#define DEVICES_PCI_PCI_FUNCTION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "devices/bus.h"
#include "devices/device_host.h"
#include "devices/device_state.h"

#define PCI_CONFIG_SIZE 4096
#define PCI_BARS 6
#define PCI_ROM_BAR 6 /* index of the expansion ROM in bars[] */

/* Where the root lets BARs be decoded, as a host bridge's windows do. */
struct pci_window {
	uint64_t base, size;
};

struct pci_windows {
	struct pci_window mem32, mem64, io;
};

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_IO };

struct pci_function;

struct pci_bar {
	enum pci_bar_kind kind; /* a MEM64 takes the next slot too, which stays NONE */
	bool prefetchable;
	uint64_t size;		   /* power of two, at least 16 (memory) or 4 (I/O) */
	uint64_t address;	   /* as the guest programmed it */
	bool mapped;		   /* decoded: on the bus at `address` now */
	bool expected;		   /* so before the state came that says so */
	const struct bus_ops *ops; /* called with opaque below */
	void *opaque;
	char name[48]; /* for messages and bus ranges: "disk0 bar0" */
};

struct pci_function_ops {
	/*
	 * A device's own registers (VFIO, virtio's PCI_CFG capability). Return true
	 * where the access was handled; the generic part then does nothing. Offsets
	 * and lengths are within config space and do not cross a dword. May be NULL.
	 */
	bool (*config_read)(struct pci_function *fn, unsigned int offset, void *data,
			    unsigned int len);
	bool (*config_write)(struct pci_function *fn, unsigned int offset, const void *data,
			     unsigned int len);
	/* After the generic part changed a register: command bits, MSI(-X) control. */
	void (*config_written)(struct pci_function *fn, unsigned int offset, unsigned int len);
	/* A BAR came on or left the bus at bar->address: ioeventfds, direct maps. */
	void (*bar_mapped)(struct pci_function *fn, unsigned int bar);
	void (*bar_unmapped)(struct pci_function *fn, unsigned int bar);
	/* One that was mapped since it was expected there (see below) is to be there. May
	 * be NULL. */
	void (*bar_confirmed)(struct pci_function *fn, unsigned int bar);
	/* Machine reset: back to the power-on state; BAR addresses are kept. */
	void (*reset)(struct pci_function *fn);
	/*
	 * The device's own nodes below the function's (pci_function_save). Load sees
	 * config space with the guest's bits already as they were saved, and no BAR on
	 * the bus but what was expected there. A function without these cannot be saved.
	 */
	int (*save)(struct pci_function *fn, struct state_writer *writer, struct error *err);
	int (*load)(struct pci_function *fn, const struct state_node *node, struct error *err);
	/* Off the bus, no access inside any more: stop everything, free fn. */
	void (*free)(struct pci_function *fn);
};

/* Embedded in the device's own struct. */
struct pci_function {
	const struct pci_function_ops *ops;
	struct device_host *host;
	char id[64];			     /* the device's id in the API: "disk0" */
	uint8_t devfn;			     /* slot << 3 | function; set by pci_root_add */
	struct irq_line intx;		     /* set by pci_root_add; INTA */
	uint8_t config[PCI_CONFIG_SIZE];     /* current values */
	uint8_t write_mask[PCI_CONFIG_SIZE]; /* bits the guest may write */
	uint8_t w1c_mask[PCI_CONFIG_SIZE];   /* bits cleared by writing 1 */
	struct pci_bar bars[PCI_BARS + 1];
	unsigned int next_cap;			 /* where the next capability goes, see below */
	unsigned int last_cap;			 /* the capability to link from; 0: the header */
	unsigned int next_ext_cap, last_ext_cap; /* the same from 0x100 on */
	const struct pci_windows *windows;	 /* set by pci_root_add; NULL: anywhere */
	struct log_limit log_limit;		 /* of what the guest does wrong */
	pthread_mutex_t write_lock, lock;	 /* see above */
};

struct pci_ids {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint32_t class_code; /* 24 bits */
	uint8_t revision;
	bool intx; /* has an interrupt pin (INTA) */
};

/* Fills in the header and clears the rest. */
void pci_function_init(struct pci_function *fn, const struct pci_function_ops *ops,
		       struct device_host *host, const char *id, const struct pci_ids *ids);
void pci_function_destroy(struct pci_function *fn);

/* Adds a capability of `len` bytes (with its two-byte header) and returns its
 * offset, or -ENOSPC. Its bytes are read-only until write_mask says otherwise. */
int pci_function_add_capability(struct pci_function *fn, uint8_t id, unsigned int len);
/* An extended (PCIe) capability at 0x100 and up; returns its offset. */
int pci_function_add_extended_capability(struct pci_function *fn, uint16_t id, uint8_t version,
					 unsigned int len);

void pci_function_set_bar(struct pci_function *fn, unsigned int bar, enum pci_bar_kind kind,
			  bool prefetchable, uint64_t size, const struct bus_ops *ops,
			  void *opaque);

/* Config access by the guest; len 1, 2 or 4; any offset: beyond the end or
 * crossing a dword reads ones and drops writes. */
void pci_function_config_read(struct pci_function *fn, unsigned int offset, void *data,
			      unsigned int len);
void pci_function_config_write(struct pci_function *fn, unsigned int offset, const void *data,
			       unsigned int len);
/* Puts BARs on the bus, or takes them off, as command and addresses now say. */
void pci_function_update_mappings(struct pci_function *fn);
/* Off the bus altogether (unplug, free): decoding is off in the command register. */
void pci_function_unmap(struct pci_function *fn);
/* Writes a BAR's address register(s), as firmware would. */
void pci_function_place_bar(struct pci_function *fn, unsigned int bar, uint64_t address);
/* The generic header's power-on state: nothing decoded, no bus mastering, no
 * interrupt line. Not the device's: see ops->reset. */
void pci_function_reset(struct pci_function *fn);

/*
 * Writes the node of fn, named by pci_function_node_name: config space, which BARs are
 * on the bus, what ops->save adds. -EOPNOTSUPP where fn cannot be saved.
 */
int pci_function_save(struct pci_function *fn, struct state_writer *writer, struct error *err);
/*
 * Of config space only what the guest may write is taken; the rest must be what it is
 * here. A BAR that was on the bus must find its place there again: -EINVAL says why not.
 * fn is in its slot (pci_root_add) and the guest has not run.
 */
int pci_function_load(struct pci_function *fn, const struct state_node *node, struct error *err);
/* For ops->load that must know before it acts: does config space, with the guest's bits
 * taken over, equal that in fn's node? pci_function_load asks after it in any case. */
int pci_function_match_config(const struct pci_function *fn, const struct state_node *node,
			      struct error *err);
/* The id, with '@' for the ':' that names of nodes cannot have. */
void pci_function_node_name(const struct pci_function *fn, char name[64]);

/* For pci_function_load: takes the addresses from config space and puts just those
 * BARs on the bus (bits of the mask: indices). */
int pci_function_restore_mappings(struct pci_function *fn, uint32_t mapped, struct error *err);

/*
 * Each BAR that is put on the bus costs KVM a grace period or more. Who knows, before the
 * state comes, where they were a moment ago can have that behind it:
 *
 *   pci_function_mappings  where they are; 0: not on the bus. Not of the ROM, which is
 *                          read when it comes on the bus
 *   pci_function_expect    puts them there. One that cannot be is left out
 *   pci_function_settle    before any function of the machine is loaded: takes off those
 *                          that the function's node has elsewhere, whose place may now be
 *                          another's
 */
void pci_function_mappings(struct pci_function *fn, uint64_t addresses[PCI_BARS]);
void pci_function_expect(struct pci_function *fn, const uint64_t addresses[PCI_BARS]);
int pci_function_settle(struct pci_function *fn, const struct state_node *node, struct error *err);
/* For pci_function_settle: by that config space, just those BARs. */
void pci_function_settle_mappings(struct pci_function *fn, const uint8_t *config, uint32_t mapped);

static inline uint16_t pci_function_command(const struct pci_function *fn)
{
	return (uint16_t)(fn->config[4] | fn->config[5] << 8);
}

#endif
