/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INTx: 31 slots on four lines. A line is high while any function on it asserts
 * its pin and has not got it disabled in its command register. Everything else a
 * function asks of its interrupts goes on to the host's as it is.
 */
#include <linux/pci_regs.h>

#include "devices/pci/pci_root_internal.h"

static void update_line_locked(struct pci_root *root, unsigned int gsi)
{
	const struct interrupts *irqs = &root->host->interrupts;
	bool level = false;

	for (unsigned int i = 0; i < PCI_SLOTS; i++) {
		const struct pci_slot *s = &root->slots[i];

		level = level || (s->gsi == gsi && s->level && !s->intx_disabled);
	}
	irqs->ops->set_line(irqs->opaque, gsi, level);
}

static void line_set(void *opaque, unsigned int gsi, bool level)
{
	struct pci_slot *slot = opaque;

	pthread_mutex_lock(&slot->root->line_lock);
	if (slot->level != level) {
		slot->level = level;
		if (!slot->intx_disabled)
			update_line_locked(slot->root, slot->gsi);
	}
	pthread_mutex_unlock(&slot->root->line_lock);
}

void pci_root_command_written(struct pci_slot *slot, struct pci_function *fn)
{
	bool disabled;

	pthread_mutex_lock(&fn->lock);
	disabled = pci_function_command(fn) & PCI_COMMAND_INTX_DISABLE;
	pthread_mutex_unlock(&fn->lock);
	pthread_mutex_lock(&slot->root->line_lock);
	if (slot->intx_disabled != disabled) {
		slot->intx_disabled = disabled;
		if (slot->level)
			update_line_locked(slot->root, slot->gsi);
	}
	pthread_mutex_unlock(&slot->root->line_lock);
}

bool pci_root_line_level(struct pci_slot *slot)
{
	bool level;

	pthread_mutex_lock(&slot->root->line_lock);
	level = slot->level;
	pthread_mutex_unlock(&slot->root->line_lock);
	return level;
}

static const struct interrupts *host_of(void *opaque)
{
	return &((struct pci_slot *)opaque)->root->host->interrupts;
}

static int line_send_msi(void *opaque, const struct msi_message *msg)
{
	return host_of(opaque)->ops->send_msi(host_of(opaque)->opaque, msg);
}

static int line_route_add(void *opaque, const struct msi_message *msg, struct error *err)
{
	return host_of(opaque)->ops->route_add(host_of(opaque)->opaque, msg, err);
}

static void line_routes_expect(void *opaque, const struct msi_message *msgs, unsigned int count)
{
	host_of(opaque)->ops->routes_expect(host_of(opaque)->opaque, msgs, count);
}

static int line_route_update(void *opaque, unsigned int gsi, const struct msi_message *msg,
			     struct error *err)
{
	return host_of(opaque)->ops->route_update(host_of(opaque)->opaque, gsi, msg, err);
}

static void line_route_remove(void *opaque, unsigned int gsi)
{
	host_of(opaque)->ops->route_remove(host_of(opaque)->opaque, gsi);
}

static int line_irqfd_attach(void *opaque, unsigned int gsi, int fd, int resample_fd,
			     struct error *err)
{
	return host_of(opaque)->ops->irqfd_attach(host_of(opaque)->opaque, gsi, fd, resample_fd,
						  err);
}

static void line_irqfd_detach(void *opaque, unsigned int gsi, int fd)
{
	host_of(opaque)->ops->irqfd_detach(host_of(opaque)->opaque, gsi, fd);
}

static const struct interrupt_ops line_ops = {
	.set_line = line_set,
	.send_msi = line_send_msi,
	.route_add = line_route_add,
	.routes_expect = line_routes_expect,
	.route_update = line_route_update,
	.route_remove = line_route_remove,
	.irqfd_attach = line_irqfd_attach,
	.irqfd_detach = line_irqfd_detach,
};

void pci_root_wire_lines(struct pci_root *root)
{
	for (unsigned int i = 0; i < PCI_SLOTS; i++) {
		struct pci_slot *slot = &root->slots[i];

		slot->root = root;
		slot->gsi = root->layout.intx_gsi[i % 4]; /* every function uses INTA */
		slot->line = (struct interrupts){ .ops = &line_ops, .opaque = slot };
	}
}
