/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells: registers that the device takes as a signal of an eventfd (vfio-user servers
 * offer them). While their BAR is on the bus, KVM signals it at the guest's write, and
 * neither this process nor the transport is in between. Where KVM takes no more of them,
 * the writes go the long way.
 *
 * Not taken up: what lies in the MSI-X table or the PBA, whose writes are ours to see, and
 * a value to match without a size, which KVM does not know. One that lies where the BAR is
 * mapped into the guest would never be signalled: the write reaches the device's memory.
 */
#include <errno.h>
#include <stdlib.h>

#include "vfio/vfio_pci_private.h"

#define IOEVENTS_MAX 256

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

static bool usable(const struct vfio_pci_bar *bar, const struct vfio_ioeventfd *io)
{
	const struct vfio_pci_msix *msix = &bar->self->msix;
	uint64_t size = MAX(io->size, 1U);

	if (size > bar->region.size || io->offset > bar->region.size - size)
		return false;
	if (io->match && !io->size)
		return false;
	if (msix->cap && msix->table_bar == bar->index &&
	    overlap(io->offset, size, msix->table_offset, msix->table_size))
		return false;
	if (msix->cap && msix->pba_bar == bar->index && msix->pba_size &&
	    overlap(io->offset, size, msix->pba_offset, msix->pba_size))
		return false;
	for (unsigned int i = 0; i < bar->area_count; i++)
		if (overlap(io->offset, size, bar->areas[i].offset, bar->areas[i].size))
			return false;
	return true;
}

static int add(struct vfio_pci_bar *bar, struct vfio_ioeventfd *offered, struct error *err)
{
	struct vfio_transport *t = bar->self->transport;
	int count = t->ops->region_ioeventfds(t, &bar->region, offered, IOEVENTS_MAX, err);

	if (count <= 0)
		return count;
	bar->ioevents = calloc((size_t)count, sizeof(*bar->ioevents));
	if (!bar->ioevents)
		return error_set_errno(err, ENOMEM, "%s: bar%u", t->name, bar->index);
	for (int i = 0; i < count; i++)
		if (usable(bar, &offered[i]))
			bar->ioevents[bar->ioevent_count++].io = offered[i];
	return 0;
}

int vfio_pci_ioevents_add(struct vfio_pci *self, struct error *err)
{
	struct vfio_ioeventfd *offered;
	int r = 0;

	if (!self->transport->ops->region_ioeventfds)
		return 0;
	offered = calloc(IOEVENTS_MAX, sizeof(*offered));
	if (!offered)
		return error_set_errno(err, ENOMEM, "%s", self->transport->name);
	for (unsigned int i = 0; !r && i < PCI_BARS; i++)
		if (self->bars[i].region.size && self->bars[i].region.writable)
			r = add(&self->bars[i], offered, err);
	free(offered);
	return r;
}

void vfio_pci_ioevents_attach(struct vfio_pci_bar *bar, uint64_t address)
{
	struct pci_function *fn = &bar->self->fn;
	const struct ioevents *to = &fn->host->ioevents;
	bool pio = fn->bars[bar->index].kind == PCI_BAR_IO;

	for (unsigned int i = 0; i < bar->ioevent_count; i++) {
		struct vfio_pci_ioevent *e = &bar->ioevents[i];
		struct error err = ERROR_INIT;

		e->address = address + e->io.offset;
		e->attached = !to->ops->attach(to->opaque, pio, e->address, e->io.size, e->io.match,
					       e->io.value, e->io.fd, &err);
		if (!e->attached)
			vfio_pci_complain(bar->self, LOG_LEVEL_WARNING,
					  "%s: bar%u+0x%llx: every doorbell exits: %s", fn->id,
					  bar->index, (unsigned long long)e->io.offset,
					  err.message);
	}
}

void vfio_pci_ioevents_detach(struct vfio_pci_bar *bar)
{
	struct pci_function *fn = &bar->self->fn;
	const struct ioevents *to = &fn->host->ioevents;
	bool pio = fn->bars[bar->index].kind == PCI_BAR_IO;

	for (unsigned int i = 0; i < bar->ioevent_count; i++) {
		struct vfio_pci_ioevent *e = &bar->ioevents[i];

		if (e->attached)
			to->ops->detach(to->opaque, pio, e->address, e->io.size, e->io.match,
					e->io.value, e->io.fd);
		e->attached = false;
	}
}

void vfio_pci_ioevents_free(struct vfio_pci *self)
{
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		free(self->bars[i].ioevents);
		self->bars[i].ioevents = NULL;
		self->bars[i].ioevent_count = 0;
	}
}
