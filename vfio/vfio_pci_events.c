/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What VFIO tells of a device besides its interrupts: an error that it will not recover
 * from by itself, and that its driver wants it back (it is being unbound, or was pulled
 * out). Either way this one device leaves the guest.
 */
#include <errno.h>
#include <sys/epoll.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "vfio/vfio_pci_private.h"

/* Main loop. */
static void on_event(void *opaque, int fd, uint32_t events)
{
	struct vfio_pci_event *event = opaque;
	struct vfio_pci *self = event->self;
	char id[sizeof(self->fn.id)];

	/* Held, it is for whoever goes on with the device. */
	if (self->held || !eventfd_drain(fd) || self->lost)
		return;
	self->lost = true;
	memcpy(id, self->fn.id, sizeof(id));
	/* The last thing here: the device may be gone after it. */
	self->vfio_host.ops->device_lost(self->vfio_host.opaque, id, event->reason);
}

static int watch(struct vfio_pci_event *event, struct error *err)
{
	return loop_watch(event->self->fn.host->loop, &event->source, event->fd, EPOLLIN, on_event,
			  event, err);
}

static int add_event(struct vfio_pci_event *event, struct error *err)
{
	struct vfio_pci *self = event->self;
	struct vfio_transport *t = self->transport;
	struct vfio_irq irq = { .count = 0 };
	int r;

	/* Few devices have both. */
	if (event->index >= t->irq_count || t->ops->irq_info(t, event->index, &irq, NULL) ||
	    !irq.count || !irq.eventfd)
		return 0;
	/* Kept: the device has it, and another process listens still. */
	if (vfio_pci_is_kept(self)) {
		event->fd =
			kept_take(self->fn.host->kept, "%s/event/%u", self->fn.id, event->index);
		return event->fd >= 0 ? 0
				      : error_set(err, ENOENT, "%s: it did not come along whole",
						  self->fn.id);
	}
	event->fd = eventfd_new();
	if (event->fd < 0)
		return error_set_errno(err, event->fd, "%s: create eventfd", self->fn.id);
	r = watch(event, err);
	return r ? r : t->ops->set_irq_fds(t, event->index, 0, 1, &event->fd, err);
}

int vfio_pci_events_own(struct vfio_pci *self, struct error *err)
{
	for (unsigned int i = 0; i < VFIO_PCI_EVENTS; i++) {
		struct vfio_pci_event *event = &self->events[i];
		int r = event->fd < 0 || event->source ? 0 : watch(event, err);

		if (r)
			return r;
	}
	return 0;
}

int vfio_pci_events_add(struct vfio_pci *self, struct error *err)
{
	static const struct {
		uint32_t index;
		const char *reason;
	} events[VFIO_PCI_EVENTS] = {
		[VFIO_PCI_EVENT_ERROR] = { VFIO_PCI_ERR_IRQ_INDEX,
					   "the device reported an error that it does not recover "
					   "from" },
		[VFIO_PCI_EVENT_REQUEST] = { VFIO_PCI_REQ_IRQ_INDEX,
					     "the host wants the device back" },
	};

	for (unsigned int i = 0; i < VFIO_PCI_EVENTS; i++) {
		int r;

		self->events[i].self = self;
		self->events[i].index = events[i].index;
		self->events[i].reason = events[i].reason;
		r = add_event(&self->events[i], err);
		if (r)
			return r;
	}
	return 0;
}

void vfio_pci_events_free(struct vfio_pci *self)
{
	for (unsigned int i = 0; i < VFIO_PCI_EVENTS; i++) {
		struct vfio_pci_event *event = &self->events[i];

		if (event->source) {
			loop_unwatch(self->fn.host->loop, &event->source);
			vfio_pci_irq_disable(self, event->index);
		}
		cleanup_close(&event->fd);
	}
}
