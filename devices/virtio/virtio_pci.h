/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over PCI, modern only (virtio 1.2, 4.1): one 64-bit BAR with common
 * configuration, ISR, device configuration, notifications (one dword a queue, each
 * an ioeventfd) and the MSI-X table, and the PCI_CFG capability.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_PCI_H
#define DEVICES_VIRTIO_VIRTIO_PCI_H

#include "devices/pci/pci_function.h"
#include "devices/virtio/virtio_device.h"

/* The function of dev, to be given to pci_root_add; takes dev over (on failure dev
 * stays the caller's). fn->ops->free frees both. */
struct pci_function *virtio_pci_new(struct device_host *host, struct virtio_device *dev,
				    struct error *err);
/* The device behind a function made by virtio_pci_new; NULL for any other. */
struct virtio_device *virtio_pci_device(struct pci_function *fn);

/* Machine pause: the device's pause op where it is active. Control plane. A function
 * that was loaded (pci_function_load) is paused; resume starts it. The guest may run before
 * that: its kicks are kept, and what it writes to the device's registers comes after. */
void virtio_pci_pause(struct pci_function *fn);
void virtio_pci_resume(struct pci_function *fn);

/* The queues, a bit each, that have an ioeventfd; and the same for one that is to be loaded,
 * before that (pci_function_expect). */
uint64_t virtio_pci_doorbells(struct pci_function *fn);
void virtio_pci_expect_doorbells(struct pci_function *fn, uint64_t doorbells);

#endif
