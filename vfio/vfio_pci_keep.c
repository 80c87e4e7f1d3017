/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An assigned function goes on in another process (live update). The device is not asked
 * to do anything: it has the eventfds of its interrupts, and keeps them; only who attaches
 * them to a KVM changes. In between they are attached nowhere, and count.
 */
#include <errno.h>

#include "base/fd.h"
#include "vfio/vfio_pci_private.h"

static int keep_open(struct vfio_pci *self, struct kept *kept, struct error *err)
{
	const char *id = self->fn.id;
	const struct vfio_pci_intx *intx = &self->intx;
	int r = 0;

	if (intx->irq.count) {
		r = kept_add(kept, intx->fd, NULL, 0, err, "%s/intx", id);
		if (!r)
			r = kept_add(kept, intx->resample_fd, NULL, 0, err, "%s/intx/resample", id);
		if (!r)
			r = kept_add(kept, intx->forward_fd, NULL, 0, err, "%s/intx/forward", id);
	}
	for (unsigned int i = 0; !r && i < VFIO_PCI_EVENTS; i++)
		if (self->events[i].fd >= 0)
			r = kept_add(kept, self->events[i].fd, NULL, 0, err, "%s/event/%u", id,
				     self->events[i].index);
	return r;
}

/* What the guest changes while it runs: which kind is on, and which vectors. */
static int keep_interrupts(struct vfio_pci *self, struct kept *kept, struct error *err)
{
	const struct vfio_pci_msix *m = &self->msix;
	const char *id = self->fn.id;
	uint8_t facts[16];
	int r;

	store_le32(facts, self->irq_mode);
	store_le32(facts + 4, self->irq_mode == VFIO_PCI_IRQ_MSI ? self->msi.count : m->enabled);
	store_le32(facts + 8, m->irq.noresize);
	store_le32(facts + 12, self->intx.on && self->intx.resampled_by == self->intx.forward_fd);
	r = kept_add(kept, -1, facts, sizeof(facts), err, "%s/interrupts", id);
	for (unsigned int i = 0; !r && self->msi.cap && i < VFIO_PCI_MSI_MAX; i++)
		if (self->msi.vectors[i].fd >= 0)
			r = kept_add(kept, self->msi.vectors[i].fd, NULL, 0, err, "%s/msi/%u", id,
				     i);
	for (unsigned int i = 0; !r && i < m->count; i++) {
		const uint8_t armed = m->armed[i];
		int fd = msix_has_eventfd(m->msix, i);

		if (fd >= 0)
			r = kept_add(kept, fd, &armed, 1, err, "%s/msix/%u", id, i);
	}
	return r;
}

int vfio_pci_keep(struct pci_function *fn, struct kept *kept, bool paused, struct error *err)
{
	struct vfio_pci *self = vfio_pci_of(fn);
	struct vfio_transport *t = self->transport;
	int r;

	if (!t->ops->keep)
		return error_set_kind(err, ERROR_BAD_REQUEST, EOPNOTSUPP,
				      "device %s: %s cannot be handed over by its transport (%s)",
				      fn->id, t->name, t->ops->name);
	r = t->ops->keep(t, kept, fn->id, paused, err);
	if (r)
		return r;
	return paused ? keep_interrupts(self, kept, err) : keep_open(self, kept, err);
}

static int broken(const struct vfio_pci *self, struct error *err)
{
	return error_set(err, EBADMSG, "%s: it did not come along whole", self->fn.id);
}

static void take_msi(struct vfio_pci *self, struct kept *kept)
{
	for (unsigned int i = 0; self->msi.cap && i < VFIO_PCI_MSI_MAX; i++) {
		int fd = kept_take(kept, "%s/msi/%u", self->fn.id, i);

		if (fd >= 0)
			self->msi.vectors[i].fd = fd;
	}
}

static void take_msix(struct vfio_pci *self, struct kept *kept)
{
	struct vfio_pci_msix *m = &self->msix;

	for (unsigned int i = 0; i < m->count; i++) {
		const uint8_t *armed = kept_facts(kept, 1, "%s/msix/%u", self->fn.id, i);
		int fd = kept_take(kept, "%s/msix/%u", self->fn.id, i);

		if (fd < 0)
			continue;
		msix_set_eventfd(m->msix, i, fd);
		m->armed[i] = armed && *armed;
	}
}

/* Nothing is enabled that has no eventfd. */
static bool is_sound(const struct vfio_pci *self, uint32_t mode, uint32_t count)
{
	if (mode > VFIO_PCI_IRQ_MSIX)
		return false;
	if (mode == VFIO_PCI_IRQ_INTX && !self->intx.irq.count)
		return false;
	if (mode == VFIO_PCI_IRQ_MSIX && (!self->msix.cap || count > self->msix.count))
		return false;
	if (mode == VFIO_PCI_IRQ_MSI && (!self->msi.cap || count > self->msi.max))
		return false;
	for (unsigned int i = 0; mode == VFIO_PCI_IRQ_MSI && i < count; i++)
		if (self->msi.vectors[i].fd < 0)
			return false;
	return true;
}

int vfio_pci_keep_take(struct vfio_pci *self, struct error *err)
{
	struct kept *kept = self->fn.host->kept;
	const uint8_t *facts = kept_facts(kept, 16, "%s/interrupts", self->fn.id);
	uint32_t mode, count;

	if (!facts)
		return broken(self, err);
	mode = load_le32(facts);
	count = load_le32(facts + 4);
	take_msi(self, kept);
	take_msix(self, kept);
	if (!is_sound(self, mode, count))
		return broken(self, err);
	pthread_mutex_lock(&self->irq_lock);
	self->held = true;
	self->irq_mode = (enum vfio_pci_irq_mode)mode;
	self->msi.count = mode == VFIO_PCI_IRQ_MSI ? count : 0;
	self->msix.enabled = mode == VFIO_PCI_IRQ_MSIX ? count : 0;
	self->msix.irq.noresize |= load_le32(facts + 8);
	self->intx.on = mode == VFIO_PCI_IRQ_INTX;
	self->intx.resampled_by =
		load_le32(facts + 12) ? self->intx.forward_fd : self->intx.resample_fd;
	pthread_mutex_unlock(&self->irq_lock);
	return 0;
}

void vfio_pci_keep_resume(struct vfio_pci *self)
{
	unsigned int vectors = 0;

	for (unsigned int i = 0; i < self->msix.count; i++)
		vectors += self->msix.armed[i];
	atomic_store(&self->msi_vectors,
		     self->irq_mode == VFIO_PCI_IRQ_MSI ? self->msi.count : vectors);
	self->intx.gsi = self->fn.intx.gsi;
}

static void hold_interrupts(struct vfio_pci *self, bool hold)
{
	pthread_mutex_lock(&self->irq_lock);
	if (self->held != hold) {
		self->held = hold;
		if (self->irq_mode == VFIO_PCI_IRQ_INTX && self->intx.on)
			vfio_pci_intx_hold(self);
		if (self->irq_mode == VFIO_PCI_IRQ_MSI)
			vfio_pci_msi_update(self);
	}
	pthread_mutex_unlock(&self->irq_lock);
	/* Without the lock: it tells us of its vectors. */
	if (self->msix.msix)
		msix_hold(self->msix.msix, hold);
}

int vfio_pci_hold(struct pci_function *fn, bool hold, struct error *err)
{
	struct vfio_pci *self = vfio_pci_of(fn);
	struct vfio_transport *t = self->transport;
	int r = t->ops->hold ? t->ops->hold(t, hold, err) : 0;

	/* Let go of in any case: what can go on shall. */
	if (!r || !hold)
		hold_interrupts(self, hold);
	return r;
}

int vfio_pci_own(struct pci_function *fn, struct error *err)
{
	struct vfio_pci *self = vfio_pci_of(fn);
	struct vfio_transport *t = self->transport;
	int r = t->ops->own ? t->ops->own(t, err) : 0;

	if (!r)
		r = vfio_pci_events_own(self, err);
	if (!r)
		r = vfio_pci_intx_own(self, err);
	/* For user space transports the unmasking by eventfd is this process's own work. */
	if (!r && self->intx.on && self->intx.resampled_by == self->intx.resample_fd &&
	    t->ops->keeps_unmask)
		r = t->ops->set_unmask_fd(t, VFIO_PCI_INTX_IRQ_INDEX, self->intx.resample_fd, err);
	hold_interrupts(self, false);
	return r;
}
