/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INTx. The device raises `fd`, an irqfd asserts the pin, and VFIO masks the device's
 * interrupt until it is told to go on: by KVM, which signals `resample_fd` at the guest's
 * EOI. So a level-triggered interrupt leaves the kernel neither way.
 *
 * Where the transport cannot unmask by eventfd, the main loop does it by a call: KVM then
 * signals `forward_fd`, which the loop watches from the start (a vCPU must not wait for the
 * loop). Each such time counts as an exit. Without irqfds that resample there is no INTx.
 */
#include <errno.h>
#include <sys/epoll.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "vfio/vfio_pci_private.h"

/* Main loop. */
static void on_forward(void *opaque, int fd, uint32_t events)
{
	struct vfio_pci *self = opaque;
	struct vfio_transport *t = self->transport;
	struct error err = ERROR_INIT;
	int r = 0;

	/* A vCPU that holds it may be waiting for a reply that comes through this loop. */
	if (pthread_mutex_trylock(&self->irq_lock))
		return;
	if (self->held) { /* it is for whoever goes on with the device */
		pthread_mutex_unlock(&self->irq_lock);
		return;
	}
	eventfd_drain(fd);
	if (self->intx.on) {
		atomic_fetch_add_explicit(&self->intx_exits, 1, memory_order_relaxed);
		r = t->ops->mask_irq(t, VFIO_PCI_INTX_IRQ_INDEX, false, &err);
	}
	pthread_mutex_unlock(&self->irq_lock);
	if (r)
		vfio_pci_complain(self, LOG_LEVEL_ERROR, "%s: INTx stays masked: %s", self->fn.id,
				  err.message);
}

static int watch_forward(struct vfio_pci *self, struct error *err)
{
	return loop_watch(self->fn.host->loop, &self->intx.forward, self->intx.forward_fd, EPOLLIN,
			  on_forward, self, err);
}

int vfio_pci_intx_init(struct vfio_pci *self, struct error *err)
{
	struct vfio_pci_intx *intx = &self->intx;
	int r;

	if (!intx->irq.count)
		return 0;
	if (vfio_pci_is_kept(self)) {
		struct kept *kept = self->fn.host->kept;

		intx->fd = kept_take(kept, "%s/intx", self->fn.id);
		intx->resample_fd = kept_take(kept, "%s/intx/resample", self->fn.id);
		intx->forward_fd = kept_take(kept, "%s/intx/forward", self->fn.id);
		self->fn.config[PCI_INTERRUPT_PIN] = 1;
		return intx->fd < 0 || intx->resample_fd < 0 || intx->forward_fd < 0
			       ? error_set(err, ENOENT, "%s: it did not come along whole",
					   self->fn.id)
			       : 0;
	}
	intx->fd = eventfd_new();
	intx->resample_fd = eventfd_new();
	intx->forward_fd = eventfd_new();
	if (intx->fd < 0 || intx->resample_fd < 0 || intx->forward_fd < 0)
		return error_set_errno(err, MIN(MIN(intx->fd, intx->resample_fd), intx->forward_fd),
				       "%s: create eventfds for INTx", self->fn.id);
	r = watch_forward(self, err);
	if (r)
		return r;
	self->fn.config[PCI_INTERRUPT_PIN] = 1;
	return 0;
}

static int attach(struct vfio_pci *self, int resample_fd, struct error *err)
{
	const struct interrupts *irqs = &self->fn.host->interrupts;

	self->intx.gsi = self->fn.intx.gsi;
	self->intx.resampled_by = resample_fd;
	if (self->held)
		return 0;
	return irqs->ops->irqfd_attach(irqs->opaque, self->intx.gsi, self->intx.fd, resample_fd,
				       err);
}

static void detach(struct vfio_pci *self)
{
	const struct interrupts *irqs = &self->fn.host->interrupts;

	if (self->held)
		return;

	irqs->ops->irqfd_detach(irqs->opaque, self->intx.gsi, self->intx.fd);
}

/* Who unmasks: the kernel, else the main loop. */
static int choose_unmask(struct vfio_pci *self, struct error *err)
{
	struct vfio_transport *t = self->transport;
	struct vfio_pci_intx *intx = &self->intx;
	struct error why = ERROR_INIT;
	int r;

	/* An EOI that came before is still in the eventfd. */
	if (!t->ops->set_unmask_fd(t, VFIO_PCI_INTX_IRQ_INDEX, intx->resample_fd, &why))
		return 0;
	log_debug(self->fn.host->log, "%s: INTx is unmasked by the main loop: %s", self->fn.id,
		  why.message);
	detach(self);
	r = attach(self, intx->forward_fd, err);
	if (!r && eventfd_drain(intx->resample_fd))
		eventfd_signal(intx->forward_fd);
	return r;
}

/* Off: KVM takes the pin down. On again it does not know that the pin was up and the
 * device, masked, waits for an end: so it is raised once, and the guest sees to the rest. */
void vfio_pci_intx_hold(struct vfio_pci *self)
{
	const struct interrupts *irqs = &self->fn.host->interrupts;
	struct vfio_pci_intx *intx = &self->intx;
	struct error err = ERROR_INIT;

	if (self->held) {
		irqs->ops->irqfd_detach(irqs->opaque, intx->gsi, intx->fd);
		return;
	}
	eventfd_signal(intx->fd);
	if (attach(self, intx->resampled_by, &err))
		vfio_pci_complain(self, LOG_LEVEL_ERROR, "%s: no INTx interrupts: %s", self->fn.id,
				  err.message);
}

int vfio_pci_intx_start(struct vfio_pci *self, struct error *err)
{
	struct vfio_transport *t = self->transport;
	struct vfio_pci_intx *intx = &self->intx;
	int r;

	r = attach(self, intx->resample_fd, err);
	if (r) {
		error_prefix(err, "irqfd with resampling");
		return r;
	}
	r = t->ops->set_irq_fds(t, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &intx->fd, err);
	if (r) {
		detach(self);
		return r;
	}
	r = choose_unmask(self, err);
	if (r)
		vfio_pci_irq_disable(self, VFIO_PCI_INTX_IRQ_INDEX);
	intx->on = !r;
	return r;
}

void vfio_pci_intx_stop(struct vfio_pci *self)
{
	if (!self->intx.on)
		return;
	self->intx.on = false;
	if (vfio_pci_is_kept(self)) /* another process's, with what is in them */
		return;
	vfio_pci_irq_disable(self, VFIO_PCI_INTX_IRQ_INDEX);
	detach(self);
	/* The next to use the pin does not get what this one left. */
	eventfd_drain(self->intx.fd);
	eventfd_drain(self->intx.resample_fd);
	eventfd_drain(self->intx.forward_fd);
}

int vfio_pci_intx_own(struct vfio_pci *self, struct error *err)
{
	return self->intx.irq.count && !self->intx.forward ? watch_forward(self, err) : 0;
}

void vfio_pci_intx_free(struct vfio_pci *self)
{
	struct vfio_pci_intx *intx = &self->intx;

	if (intx->forward)
		loop_unwatch(self->fn.host->loop, &intx->forward);
	cleanup_close(&intx->fd);
	cleanup_close(&intx->resample_fd);
	cleanup_close(&intx->forward_fd);
}
