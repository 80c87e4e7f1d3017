/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which interrupts the device has: one kind at a time, as VFIO and PCI have it. MSI-X
 * goes before MSI, MSI before the pin; the pin only when the guest has begun to use the
 * device, since nobody would answer it before.
 */
#include "base/fd.h"
#include "vfio/vfio_pci_private.h"

static enum vfio_pci_irq_mode wanted_mode(const struct vfio_pci *self)
{
	uint16_t command = pci_function_command(&self->fn);

	if (vfio_pci_msix_enabled(self))
		return VFIO_PCI_IRQ_MSIX;
	if (vfio_pci_msi_enabled(self))
		return VFIO_PCI_IRQ_MSI;
	if (self->fn.config[PCI_INTERRUPT_PIN] && !(command & PCI_COMMAND_INTX_DISABLE) &&
	    command & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER))
		return VFIO_PCI_IRQ_INTX;
	return VFIO_PCI_IRQ_NONE;
}

static int no_start(struct vfio_pci *self, struct error *err)
{
	return 0;
}

static void no_stop(struct vfio_pci *self)
{
}

static const struct {
	const char *name;
	int (*start)(struct vfio_pci *self, struct error *err);
	void (*stop)(struct vfio_pci *self);
} modes[] = {
	[VFIO_PCI_IRQ_NONE] = { "none", no_start, no_stop },
	[VFIO_PCI_IRQ_INTX] = { "INTx", vfio_pci_intx_start, vfio_pci_intx_stop },
	[VFIO_PCI_IRQ_MSI] = { "MSI", vfio_pci_msi_start, vfio_pci_msi_stop },
	[VFIO_PCI_IRQ_MSIX] = { "MSI-X", vfio_pci_msix_start, vfio_pci_msix_stop },
};

int vfio_pci_irq_init(struct vfio_pci *self, struct error *err)
{
	struct vfio_transport *t = self->transport;
	struct vfio_irq *irqs[] = {
		[VFIO_PCI_INTX_IRQ_INDEX] = &self->intx.irq,
		[VFIO_PCI_MSI_IRQ_INDEX] = &self->msi.irq,
		[VFIO_PCI_MSIX_IRQ_INDEX] = &self->msix.irq,
	};

	for (uint32_t i = 0; i < ARRAY_SIZE(irqs) && i < t->irq_count; i++) {
		int r = t->ops->irq_info(t, i, irqs[i], err);

		if (r)
			return r;
		/* Without eventfds nobody would hear of it. */
		if (!irqs[i]->eventfd)
			irqs[i]->count = 0;
	}
	return vfio_pci_intx_init(self, err);
}

void vfio_pci_irq_update(struct vfio_pci *self)
{
	enum vfio_pci_irq_mode mode = wanted_mode(self);
	struct error err = ERROR_INIT;

	pthread_mutex_lock(&self->irq_lock);
	if (mode != self->irq_mode) {
		modes[self->irq_mode].stop(self);
		/* Also where it fails: not tried again until the guest asks for another. */
		self->irq_mode = mode;
		if (modes[mode].start(self, &err))
			vfio_pci_complain(self, LOG_LEVEL_ERROR, "%s: no %s interrupts: %s",
					  self->fn.id, modes[mode].name, err.message);
	} else if (mode == VFIO_PCI_IRQ_MSI) {
		vfio_pci_msi_update(self);
	}
	pthread_mutex_unlock(&self->irq_lock);
}

int vfio_pci_irq_arm(struct vfio_pci *self, struct error *err)
{
	enum vfio_pci_irq_mode mode = wanted_mode(self);
	int r;

	pthread_mutex_lock(&self->irq_lock);
	self->irq_mode = mode;
	r = modes[mode].start(self, err);
	if (!r && mode == VFIO_PCI_IRQ_MSI)
		r = vfio_pci_msi_route(self, err);
	/* A pin's level is the device's, which raises it again; but a device that is no
	 * hardware may signal only once what it did before it was moved. */
	if (!r && mode == VFIO_PCI_IRQ_INTX)
		eventfd_signal(self->intx.fd);
	pthread_mutex_unlock(&self->irq_lock);
	if (r)
		error_prefix(err, "%s: %s interrupts", self->fn.id, modes[mode].name);
	return r;
}

void vfio_pci_irq_disable(struct vfio_pci *self, uint32_t index)
{
	struct vfio_transport *t = self->transport;
	struct error err = ERROR_INIT;

	if (vfio_pci_is_kept(self))
		return;
	if (t->ops->set_irq_fds(t, index, 0, 0, NULL, &err))
		vfio_pci_complain(self, LOG_LEVEL_WARNING, "%s: disable interrupts: %s",
				  self->fn.id, err.message);
}

void vfio_pci_irq_free(struct vfio_pci *self)
{
	pthread_mutex_lock(&self->irq_lock);
	modes[self->irq_mode].stop(self);
	self->irq_mode = VFIO_PCI_IRQ_NONE;
	pthread_mutex_unlock(&self->irq_lock);
	vfio_pci_msix_free(self);
	vfio_pci_msi_free(self);
	vfio_pci_intx_free(self);
}
