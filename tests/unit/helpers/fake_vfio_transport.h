/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI device behind a transport that is a table in memory: config space, regions,
 * interrupts as the kernel's vfio-pci has them. Everything is open to the test, and the
 * n-th call of all, or any call of one kind, can be made to fail. Depends on base alone.
 *
 * Regions are memfds named "fake-vfio", so that a mapping that was left over can be found.
 */
#ifndef TESTS_FAKE_VFIO_TRANSPORT_H
#define TESTS_FAKE_VFIO_TRANSPORT_H

#include <linux/vfio.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vfio/transport.h"

#define FAKE_VFIO_PCI_REGIONS VFIO_PCI_NUM_REGIONS
#define FAKE_VFIO_PCI_VECTORS 2048
#define FAKE_VFIO_PCI_WRITES 64

enum fake_vfio_pci_op {
	FAKE_VFIO_PCI_REGION_INFO,
	FAKE_VFIO_PCI_IRQ_INFO,
	FAKE_VFIO_PCI_READ,
	FAKE_VFIO_PCI_WRITE,
	FAKE_VFIO_PCI_MAP,
	FAKE_VFIO_PCI_SET_IRQ_FDS,
	FAKE_VFIO_PCI_MASK,
	FAKE_VFIO_PCI_UNMASK_FD,
	FAKE_VFIO_PCI_RESET,
	FAKE_VFIO_PCI_FEATURE,
	FAKE_VFIO_PCI_IOEVENTFDS,
	FAKE_VFIO_PCI_OPS,
};

struct fake_vfio_pci_irq {
	struct vfio_irq info;
	unsigned int enabled;		/* vectors [0, enabled) are set up; 0: off */
	unsigned int limit;		/* the host has no more; 0: as many as info.count */
	int fds[FAKE_VFIO_PCI_VECTORS]; /* -1: none */
	unsigned int enables, disables;
};

struct fake_vfio_pci_write {
	uint32_t region;
	uint64_t offset, value;
	size_t len;
};

struct fake_vfio_pci {
	struct vfio_transport transport;
	struct vfio_region regions[FAKE_VFIO_PCI_REGIONS];
	int memfd[FAKE_VFIO_PCI_REGIONS];
	uint8_t *data[FAKE_VFIO_PCI_REGIONS]; /* the content; config space is [CONFIG] */
	struct fake_vfio_pci_irq irqs[VFIO_PCI_NUM_IRQS];
	bool intx_masked;
	int unmask_fd;

	/* What region `ioevent_region` offers. */
	uint32_t ioevent_region;
	unsigned int ioevent_count;
	struct vfio_ioeventfd ioevents[8];

	bool exports_dma_bufs;
	unsigned int resets, closes, masks, unmasks, maps;
	unsigned int calls[FAKE_VFIO_PCI_OPS];
	struct fake_vfio_pci_write writes[FAKE_VFIO_PCI_WRITES]; /* the last ones, a ring */
	unsigned int write_count;

	unsigned int total;		/* calls so far */
	unsigned int fail_at;		/* the call (from 1) that fails; 0: none */
	unsigned int failed;		/* calls that failed so */
	int fail_op[FAKE_VFIO_PCI_OPS]; /* what every call of the kind returns; 0: it works */
};

/* An endpoint 1af4:10ab with nothing but config space. */
void fake_vfio_pci_init(struct fake_vfio_pci *fake);
void fake_vfio_pci_destroy(struct fake_vfio_pci *fake);

/* A region, mappable as a whole or not at all. BAR: its register too, of that kind
 * (PCI_BASE_ADDRESS_*). */
void fake_vfio_pci_add_region(struct fake_vfio_pci *fake, uint32_t index, uint64_t size,
			      bool mappable);
void fake_vfio_pci_add_bar(struct fake_vfio_pci *fake, uint32_t bar, uint32_t kind, uint64_t size,
			   bool mappable);
void fake_vfio_pci_add_irq(struct fake_vfio_pci *fake, uint32_t index, uint32_t count,
			   bool noresize);

uint8_t *fake_vfio_pci_config(struct fake_vfio_pci *fake);
void fake_vfio_pci_config16(struct fake_vfio_pci *fake, unsigned int offset, uint16_t value);
void fake_vfio_pci_config32(struct fake_vfio_pci *fake, unsigned int offset, uint32_t value);
/* A capability at `at`, linked from what links to the end so far. */
void fake_vfio_pci_add_cap(struct fake_vfio_pci *fake, uint8_t id, unsigned int at);
void fake_vfio_pci_add_ext_cap(struct fake_vfio_pci *fake, uint16_t id, unsigned int at);
void fake_vfio_pci_add_msix(struct fake_vfio_pci *fake, unsigned int at, unsigned int vectors,
			    unsigned int table_bar, uint32_t table, unsigned int pba_bar,
			    uint32_t pba);
/* The device interrupts: false where nothing is set up for it. */
bool fake_vfio_pci_interrupt(struct fake_vfio_pci *fake, uint32_t index, unsigned int vector);

/* Mappings of any fake's regions in this process. */
unsigned int fake_vfio_pci_mappings(void);

/* A DMA space that counts. */
#define FAKE_SPACE_MAPS 16
struct fake_space {
	struct dma_space space;
	struct dma_space_ops ops;
	struct {
		uint64_t iova, size;
		void *hva;
		bool by_fd;
	} maps[FAKE_SPACE_MAPS];
	unsigned int count, misuses;
	int map_error;
};

void fake_space_init(struct fake_space *fake, const char *name);

#endif
