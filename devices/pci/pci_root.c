/* SPDX-License-Identifier: Apache-2.0 */
/* Slots of bus 0: who is in them, how they come and go. */
#include "devices/pci/pci_root.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/pci/pci_registers.h"
#include "devices/pci/pci_root_internal.h"

/* The host bridge: registers of its own it has none. */
static void bridge_free(struct pci_function *fn)
{
	pci_function_destroy(fn);
	free(fn);
}

static int bridge_save(struct pci_function *fn, struct state_writer *writer, struct error *err)
{
	return 0;
}

static int bridge_load(struct pci_function *fn, const struct state_node *node, struct error *err)
{
	return 0;
}

static const struct pci_function_ops bridge_ops = {
	.save = bridge_save,
	.load = bridge_load,
	.free = bridge_free,
};

static const struct pci_ids bridge_ids = {
	/* What other microVM monitors present: every guest knows it. */
	.vendor = 0x8086,
	.device = 0x0d57,
	.class_code = 0x060000,
};

static int add_bridge(struct pci_root *root, struct error *err)
{
	struct pci_function *fn = calloc(1, sizeof(*fn));

	if (!fn)
		return error_set_errno(err, ENOMEM, "create PCI host bridge");
	pci_function_init(fn, &bridge_ops, root->host, "host-bridge", &bridge_ids);
	root->slots[0].fn = fn;
	return 0;
}

struct pci_root *pci_root_new(struct device_host *host, const struct pci_root_layout *layout,
			      const struct pci_root_callbacks *callbacks, struct error *err)
{
	struct pci_root *root = calloc(1, sizeof(*root));

	if (!root) {
		error_set_errno(err, ENOMEM, "create PCI root");
		return NULL;
	}
	root->host = host;
	root->layout = *layout;
	if (callbacks)
		root->callbacks = *callbacks;
	root->windows = (struct pci_windows){
		.mem32 = { layout->mem32_base, layout->mem32_size },
		.mem64 = { layout->mem64_base, layout->mem64_size },
		.io = { layout->io_base, layout->io_size },
	};
	pthread_mutex_init(&root->lock, NULL);
	pthread_cond_init(&root->idle, NULL);
	pthread_mutex_init(&root->line_lock, NULL);
	pci_root_wire_lines(root);
	if (add_bridge(root, err) || pci_root_ports_add(root, err)) {
		pci_root_free(root);
		return NULL;
	}
	return root;
}

void pci_root_free(struct pci_root *root)
{
	if (!root)
		return;
	pci_root_ports_remove(root);
	for (unsigned int i = 0; i < PCI_SLOTS; i++) {
		struct pci_function *fn = root->slots[i].fn;

		if (!fn)
			continue;
		pci_function_unmap(fn);
		fn->ops->free(fn);
	}
	pthread_mutex_destroy(&root->line_lock);
	pthread_cond_destroy(&root->idle);
	pthread_mutex_destroy(&root->lock);
	free(root);
}

struct pci_slot *pci_root_enter(struct pci_root *root, unsigned int devfn)
{
	struct pci_slot *slot = NULL;

	if (devfn % 8)
		return NULL; /* no multi-function devices */
	pthread_mutex_lock(&root->lock);
	if (root->slots[devfn >> 3].fn && !root->slots[devfn >> 3].leaving) {
		slot = &root->slots[devfn >> 3];
		slot->users++;
	}
	pthread_mutex_unlock(&root->lock);
	return slot;
}

void pci_root_leave(struct pci_root *root, struct pci_slot *slot)
{
	pthread_mutex_lock(&root->lock);
	if (!--slot->users && slot->leaving)
		pthread_cond_broadcast(&root->idle);
	pthread_mutex_unlock(&root->lock);
}

static int choose_slot_locked(struct pci_root *root, const struct pci_function *fn, int slot,
			      struct error *err)
{
	if (slot >= PCI_SLOTS || slot == 0)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "add %s to PCI bus 0: slot %d: there are 1 to %d", fn->id,
				      slot, PCI_SLOTS - 1);
	if (slot > 0 && root->slots[slot].fn)
		return error_set_kind(err, ERROR_CONFLICT, EEXIST,
				      "add %s to PCI bus 0: slot %d is taken by %s", fn->id, slot,
				      root->slots[slot].fn->id);
	if (slot > 0)
		return slot;
	for (slot = 1; slot < PCI_SLOTS; slot++)
		if (!root->slots[slot].fn)
			return slot;
	return error_set(err, ENOSPC, "add %s to PCI bus 0: all %d slots are taken", fn->id,
			 PCI_SLOTS - 1);
}

static void notify(const struct pci_root *root)
{
	if (root->callbacks.hotplug_notify)
		root->callbacks.hotplug_notify(root->callbacks.opaque);
}

int pci_root_add(struct pci_root *root, struct pci_function *fn, int slot, bool hotplug,
		 struct error *err)
{
	uint64_t address[PCI_BARS + 1];
	struct pci_slot *s;

	pthread_mutex_lock(&root->lock);
	slot = choose_slot_locked(root, fn, slot, err);
	pthread_mutex_unlock(&root->lock);
	if (slot < 0)
		return slot;
	s = &root->slots[slot];
	/* Nobody else fills slots: the control plane does one thing at a time. */
	if (pci_root_allocate(root, fn, address, err))
		return err ? err->code : -ENOSPC;
	fn->devfn = (uint8_t)(slot << 3);
	fn->windows = &root->windows;
	fn->intx = (struct irq_line){ .interrupts = &s->line, .gsi = s->gsi };
	if (fn->config[PCI_INTERRUPT_PIN])
		fn->config[PCI_INTERRUPT_LINE] = (uint8_t)s->gsi;
	for (unsigned int i = 0; i <= PCI_ROM_BAR; i++)
		pci_function_place_bar(fn, i, address[i]);
	pci_root_command_written(s, fn);

	pthread_mutex_lock(&root->lock);
	memcpy(s->assigned, address, sizeof(s->assigned));
	s->removal_wanted = false;
	s->fn = fn;
	if (hotplug)
		root->up |= 1u << slot;
	pthread_mutex_unlock(&root->lock);
	/* From here on a guest may eject fn. */
	if (hotplug)
		notify(root);
	return 0;
}

/* Off the bus, and out of its slot. NULL: nothing there, or leaving already. */
static struct pci_function *take_out(struct pci_root *root, unsigned int index,
				     const struct pci_function *only)
{
	struct pci_slot *slot = &root->slots[index];
	struct pci_function *fn;

	pthread_mutex_lock(&root->lock);
	fn = slot->leaving ? NULL : slot->fn;
	if (fn && only && fn != only)
		fn = NULL;
	if (fn) {
		slot->leaving = true;
		while (slot->users)
			pthread_cond_wait(&root->idle, &root->lock);
	}
	pthread_mutex_unlock(&root->lock);
	if (!fn)
		return NULL;
	pci_function_unmap(fn);
	irq_line_set(&fn->intx, false);

	pthread_mutex_lock(&root->lock);
	slot->fn = NULL;
	slot->leaving = false;
	slot->removal_wanted = false;
	memset(slot->assigned, 0, sizeof(slot->assigned));
	root->up &= ~(1u << index);
	root->down &= ~(1u << index);
	pthread_mutex_unlock(&root->lock);
	return fn;
}

void pci_root_eject(struct pci_root *root, unsigned int index)
{
	struct pci_function *fn = index ? take_out(root, index, NULL) : NULL;

	if (!fn)
		return;
	log_info(root->host->log, "%s left PCI slot %u", fn->id, index);
	if (root->callbacks.ejected)
		root->callbacks.ejected(root->callbacks.opaque, fn);
	else
		fn->ops->free(fn);
}

int pci_root_request_removal(struct pci_root *root, struct pci_function *fn, struct error *err)
{
	unsigned int index = fn->devfn >> 3;
	bool found;

	pthread_mutex_lock(&root->lock);
	found = index && root->slots[index].fn == fn && !root->slots[index].leaving;
	if (found) {
		root->slots[index].removal_wanted = true;
		root->down |= 1u << index;
	}
	pthread_mutex_unlock(&root->lock);
	if (!found)
		return error_set_kind(err, ERROR_NOT_FOUND, ENOENT, "remove %s: not on PCI bus 0",
				      fn->id);
	notify(root);
	return 0;
}

void pci_root_remove(struct pci_root *root, struct pci_function *fn)
{
	if (fn->devfn >> 3)
		take_out(root, fn->devfn >> 3, fn);
}

struct pci_function *pci_root_find(struct pci_root *root, const char *id)
{
	struct pci_function *found = NULL;

	pthread_mutex_lock(&root->lock);
	for (unsigned int i = 1; i < PCI_SLOTS && !found; i++)
		if (root->slots[i].fn && !root->slots[i].leaving &&
		    !strcmp(root->slots[i].fn->id, id))
			found = root->slots[i].fn;
	pthread_mutex_unlock(&root->lock);
	return found;
}

static void reset_slot(struct pci_slot *slot)
{
	struct pci_function *fn = slot->fn;

	pci_function_reset(fn);
	if (fn->ops->reset)
		fn->ops->reset(fn);
	/* The guest may have left anything in there, and no firmware will tidy up. */
	for (unsigned int i = 0; i <= PCI_ROM_BAR; i++)
		pci_function_place_bar(fn, i, slot->assigned[i]);
	if (fn->config[PCI_INTERRUPT_PIN])
		fn->config[PCI_INTERRUPT_LINE] = (uint8_t)slot->gsi;
	irq_line_set(&fn->intx, false);
	pci_root_command_written(slot, fn);
}

void pci_root_reset(struct pci_root *root)
{
	for (unsigned int i = 1; i < PCI_SLOTS; i++)
		if (root->slots[i].fn && root->slots[i].removal_wanted)
			pci_root_eject(root, i);
	for (unsigned int i = 0; i < PCI_SLOTS; i++)
		if (root->slots[i].fn)
			reset_slot(&root->slots[i]);
	pthread_mutex_lock(&root->lock);
	root->up = 0;
	root->down = 0;
	root->config_address = 0;
	pthread_mutex_unlock(&root->lock);
}

void pci_function_bdf(const struct pci_function *fn, char *text, size_t size)
{
	snprintf(text, size, "0000:00:%02x.%x", fn->devfn >> 3, fn->devfn & 7);
}
