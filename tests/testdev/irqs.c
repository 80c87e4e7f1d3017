/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts: eventfds of the client. MSI-X before MSI before INTx: a client sets those of
 * one kind at a time. */
#include <errno.h>
#include <linux/vfio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "tests/testdev/testdev.h"

static int *irq_slot(struct testdev *t, uint32_t index, uint32_t which)
{
	switch (index) {
	case VFIO_PCI_INTX_IRQ_INDEX: return &t->irqs.intx;
	case VFIO_PCI_MSI_IRQ_INDEX: return &t->irqs.msi[which];
	case VFIO_PCI_MSIX_IRQ_INDEX: return &t->irqs.msix[which];
	case VFIO_PCI_ERR_IRQ_INDEX: return &t->irqs.err;
	default: return &t->irqs.req;
	}
}

uint32_t testdev_irq_max(const struct testdev *t, uint32_t index)
{
	switch (index) {
	case VFIO_PCI_INTX_IRQ_INDEX: return 1;
	case VFIO_PCI_MSI_IRQ_INDEX: return TESTDEV_MSI_VECTORS;
	case VFIO_PCI_MSIX_IRQ_INDEX: return t->o.vectors;
	case VFIO_PCI_ERR_IRQ_INDEX:
	case VFIO_PCI_REQ_IRQ_INDEX: return 1;
	default: return 0;
	}
}

void testdev_irqs_init(struct testdev *t)
{
	memset(&t->irqs, 0xff, sizeof(t->irqs));
	t->irqs.intx_masked = false;
}

static void replace(int *slot, int fd)
{
	if (*slot >= 0)
		close(*slot);
	*slot = fd;
}

void testdev_irqs_close(struct testdev *t)
{
	for (uint32_t index = 0; index < VFIO_PCI_NUM_IRQS; index++)
		for (uint32_t i = 0; i < testdev_irq_max(t, index); i++)
			replace(irq_slot(t, index, i), -1);
	t->irqs.intx_masked = false;
}

static void update_intx(struct testdev *t)
{
	bool disabled = load_le16(t->config + 0x04) & 0x400;

	t->config[0x06] = (uint8_t)((t->config[0x06] & ~0x08) | (t->irq_status ? 0x08 : 0));
	if (t->irqs.intx < 0 || t->irqs.intx_masked || disabled || !t->irq_status)
		return;
	t->irqs.intx_masked = true; /* until the client unmasks */
	eventfd_signal(t->irqs.intx);
}

void testdev_raise(struct testdev *t, unsigned int vector, uint32_t status)
{
	t->irq_status |= status;
	t->irq_count++;
	if (vector < t->o.vectors && t->irqs.msix[vector] >= 0)
		eventfd_signal(t->irqs.msix[vector]);
	else if (t->irqs.msi[vector % TESTDEV_MSI_VECTORS] >= 0)
		eventfd_signal(t->irqs.msi[vector % TESTDEV_MSI_VECTORS]);
	else
		update_intx(t);
}

static void trigger(struct testdev *t, uint32_t index, uint32_t which)
{
	int *slot = irq_slot(t, index, which);

	if (*slot >= 0)
		eventfd_signal(*slot);
}

static int act(struct testdev *t, const struct vfio_irq_set *set, uint32_t action)
{
	if (set->index == VFIO_PCI_INTX_IRQ_INDEX && action == VFIO_IRQ_SET_ACTION_MASK) {
		t->irqs.intx_masked = true;
	} else if (set->index == VFIO_PCI_INTX_IRQ_INDEX && action == VFIO_IRQ_SET_ACTION_UNMASK) {
		t->irqs.intx_masked = false;
		update_intx(t);
	} else if (action == VFIO_IRQ_SET_ACTION_TRIGGER && set->count) {
		for (uint32_t i = 0; i < set->count; i++)
			trigger(t, set->index, set->start + i);
	} else if (action == VFIO_IRQ_SET_ACTION_TRIGGER) {
		for (uint32_t i = 0; i < testdev_irq_max(t, set->index); i++)
			replace(irq_slot(t, set->index, i), -1);
	} else {
		return ENOTSUP;
	}
	return 0;
}

int testdev_set_irqs(struct testdev *t, const struct testdev_message *m)
{
	struct vfio_irq_set set;
	uint32_t action, max;

	if (m->len < sizeof(set))
		return EINVAL;
	memcpy(&set, m->payload, sizeof(set));
	action = set.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	max = testdev_irq_max(t, set.index);
	if (!max || set.count > max || set.start > max - set.count)
		return EINVAL;
	if ((set.flags & VFIO_IRQ_SET_DATA_TYPE_MASK) == VFIO_IRQ_SET_DATA_NONE)
		return m->fd_count ? EINVAL : act(t, &set, action);
	if ((set.flags & VFIO_IRQ_SET_DATA_TYPE_MASK) != VFIO_IRQ_SET_DATA_EVENTFD ||
	    action != VFIO_IRQ_SET_ACTION_TRIGGER)
		return ENOTSUP;
	if (m->fd_count != 0 && m->fd_count != set.count)
		return EINVAL;
	for (uint32_t i = 0; i < set.count; i++) {
		int fd = m->fd_count ? dup(m->fds[i]) : -1;

		replace(irq_slot(t, set.index, set.start + i), fd);
	}
	if (set.index == VFIO_PCI_INTX_IRQ_INDEX)
		update_intx(t);
	return 0;
}
