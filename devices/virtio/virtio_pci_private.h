/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over PCI, inside: the function's state, shared by virtio_pci.c (BAR,
 * capabilities, interrupts, ioeventfds), virtio_pci_common.c (common configuration and
 * the status machine) and virtio_pci_state.c (saving and loading).
 *
 * Locks: `lock` serialises everything the guest or the control plane does to the
 * device; it is taken with the function's lock held (config space), never the
 * other way round. Device threads only interrupt: that takes `irq_lock` at most,
 * so that a reset may wait for them with `lock` held.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_PCI_PRIVATE_H
#define DEVICES_VIRTIO_VIRTIO_PCI_PRIVATE_H

#include <stdatomic.h>

#include "base/log.h"
#include "devices/pci/msix.h"
#include "devices/virtio/virtio_pci.h"

/* The BAR: one page each, so that a host could map them apart. */
enum {
	BAR_COMMON = 0x0000,
	BAR_ISR = 0x1000,
	BAR_DEVICE = 0x2000,
	BAR_NOTIFY = 0x3000,
	BAR_MSIX_TABLE = 0x4000,
	BAR_MSIX_PBA = 0x5000,
	BAR_SIZE = 0x8000,
	BAR_PAGE = 0x1000,
};

#define VIRTIO_PCI_COMMON_SIZE 56
#define VIRTIO_PCI_NOTIFY_MULTIPLIER 4

/* ISR bits, virtio 1.2, 4.1.4.5. */
#define VIRTIO_ISR_QUEUE 1
#define VIRTIO_ISR_CONFIG 2

#define PCI_COMMAND_INTX_DISABLE 0x400

struct virtio_pci_queue {
	uint16_t size;
	bool enabled;
	uint64_t desc, driver, device;
	_Atomic uint16_t vector;
	bool ioevent; /* its kick_fd is attached at ioevent_base */
};

struct virtio_pci {
	struct pci_function fn; /* first: virtio_pci_device() casts */
	struct device_host *host;
	struct virtio_device *dev;
	struct msix *msix;
	unsigned int pci_cfg_cap; /* offset of the PCI_CFG capability */

	pthread_mutex_t lock; /* guards what follows, down to irq_lock */
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint16_t queue_select;
	struct virtio_pci_queue queues[VIRTIO_QUEUES_MAX];
	bool paused;
	bool loaded; /* active, but the device was not activated yet: resume does that */
	bool bar_mapped;
	uint64_t expected;    /* queues that are to have an ioeventfd before they are loaded */
	uint64_t notify_base; /* gpa of the notification area while bar_mapped */

	atomic_uint status;	 /* NEEDS_RESET comes from any thread */
	atomic_uchar generation; /* of device configuration space */
	_Atomic uint16_t config_vector;
	atomic_bool intx_disabled; /* by the command register */

	pthread_mutex_t irq_lock; /* guards isr and the INTx line */
	uint8_t isr;

	struct log_limit driver_errors;
};

uint64_t virtio_pci_offered_features(const struct virtio_pci *t);

void virtio_pci_common_read(struct virtio_pci *t, uint32_t offset, void *data, unsigned int len);
void virtio_pci_common_write(struct virtio_pci *t, uint32_t offset, const void *data,
			     unsigned int len);
/* Lock held: the device's reset, as by status 0. */
void virtio_pci_reset_locked(struct virtio_pci *t);

/* Lock held: what virtio_pci_resume() does. Before a write of the guest. */
void virtio_pci_resume_locked(struct virtio_pci *t);
/* Lock held: activates a device that was loaded. */
void virtio_pci_activate_loaded(struct virtio_pci *t);
/* Lock held: gives a queue the registers' values and starts it. */
int virtio_pci_start_queue(struct virtio_pci *t, unsigned int queue, struct error *err);
/* Saving and loading: pci_function_ops. */
int virtio_pci_save(struct pci_function *fn, struct state_writer *writer, struct error *err);
int virtio_pci_load(struct pci_function *fn, const struct state_node *node, struct error *err);

/* Lock held: attaches or detaches ioeventfds as BAR and device now say. */
void virtio_pci_update_ioevents(struct virtio_pci *t);
/* Raises isr bit and line, or the vector, whichever the driver uses. */
void virtio_pci_interrupt(struct virtio_pci *t, uint8_t isr, uint16_t vector);
void virtio_pci_clear_intx(struct virtio_pci *t);
/* After a load: ISR bits, and the line as they and the command register say. */
void virtio_pci_restore_isr(struct virtio_pci *t, uint8_t isr);
void virtio_pci_needs_reset(void *transport, const char *reason);

#endif
