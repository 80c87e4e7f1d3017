/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An assigned PCI device as a function on our bus, whatever its transport.
 *
 * Config space: what we own is emulated, the rest is the device's, by the table at the
 * head of vfio_pci_config.c (docs/architecture.md has it too): BARs, command, status,
 * interrupt line and pin, ROM, MSI and MSI-X control are ours; capabilities that would let
 * a guest out or confuse it (SR-IOV, ATS, PRI, PASID, ACS, Resizable BAR ...) are hidden.
 * Capability lists are walked with bounds: a loop or an offset outside ends the list with a
 * warning.
 *
 * BARs: mapped straight into the guest by memory slots where the transport can map them
 * (whole, or by sparse areas, minus the MSI-X table's pages); trapped elsewhere. Interrupts:
 * MSI and MSI-X vectors are the kernel's eventfds attached as irqfds, enabled at the device
 * only when the guest unmasks them; INTx by irqfd with resample, masked while pending.
 *
 * State (pci_function_save, pci_function_load): what is ours, in vfio_pci_state.c. What the
 * device keeps for itself is another stream (device_migration.h); between its load_end and
 * resume the load below runs, which writes command and control registers to the device
 * and arms the interrupts the guest had. It refuses a device that is not the one saved,
 * by offset and both values, before it touches it.
 */
#ifndef VFIO_VFIO_PCI_H
#define VFIO_VFIO_PCI_H

#include "devices/pci/pci_function.h"
#include "vfio/transport.h"

/* What assigned devices need of the machine beyond devices/device_host.h. */
struct vfio_host_ops {
	/* Memory slots: guest-physical to host addresses, without an exit. slot_add returns
	 * an id or -errno (-ENOSPC: out of slots; then the area is trapped). Any thread. */
	int (*slot_add)(void *opaque, uint64_t gpa, uint64_t size, void *hva, bool readonly,
			struct error *err);
	void (*slot_remove)(void *opaque, int slot);
	/* The device failed, was pulled out, or its driver wants it back: unplug this one
	 * device. Main loop. */
	void (*device_lost)(void *opaque, const char *id, const char *reason);
};

struct vfio_host {
	const struct vfio_host_ops *ops;
	void *opaque;
};

struct vfio_pci_options {
	const char *id;
	int gpudirect_clique;	      /* NVIDIA GPUDirect clique id 0-15, -1: none */
	uint8_t exclude_mmap_bars;    /* bit n: BAR n is trapped, never mapped */
	bool exclude_msix_bar;	      /* x_exclude... the BAR that holds the MSI-X table */
	struct dma_space *peer_space; /* where BARs are mapped for peers; NULL: nowhere */
};

/* Exits caused by a device and what it has: for vm.counters. */
struct vfio_pci_counters {
	uint64_t config_reads, config_writes, bar_reads, bar_writes;
	uint64_t intx_exits, msi_vectors, mapped_bytes;
};

/*
 * The function of the device behind `transport`, which it takes over on success; for
 * pci_root_add. fn->ops->free releases everything, the transport last.
 */
struct pci_function *vfio_pci_new(struct device_host *host, const struct vfio_host *vfio_host,
				  struct vfio_transport *transport,
				  const struct vfio_pci_options *options, struct error *err);
/*
 * Live update. keep: what it has open, under its id: first while the guest uses it, then
 * paused; -EOPNOTSUPP names a device that cannot be handed over. hold: the device is asked
 * nothing, and its interrupts stay in their eventfds, until it is let go of. One that was
 * made with host->kept starts so; own() ends it. Control plane.
 */
int vfio_pci_keep(struct pci_function *fn, struct kept *kept, bool paused, struct error *err);
int vfio_pci_hold(struct pci_function *fn, bool hold, struct error *err);
int vfio_pci_own(struct pci_function *fn, struct error *err);

/*
 * Has fn a space whose other devices could reach its BARs? Where there are such, its BARs
 * are mapped for them, now and wherever the guest moves them, until it is freed; one
 * warning where that cannot be. The control plane's thread.
 */
bool vfio_pci_may_meet_peers(const struct pci_function *fn);
void vfio_pci_meet_peers(struct pci_function *fn);

/* Whether fn is one. */
bool vfio_pci_is(const struct pci_function *fn);
struct vfio_transport *vfio_pci_transport(struct pci_function *fn);
void vfio_pci_count(struct pci_function *fn, struct vfio_pci_counters *counters);

#endif
