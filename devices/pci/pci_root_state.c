/* SPDX-License-Identifier: Apache-2.0 */
/* The root's state, and that of all that is on it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/pci/pci_registers.h"
#include "devices/pci/pci_root_internal.h"

#define KIND "pci-root"
#define VERSION 1
#define CONFIG_ADDRESS_WRITABLE 0x80fffffcu
/* Of all slots, 64 bits little-endian each, 0 where there is no BAR. */
#define ASSIGNED_SIZE (PCI_SLOTS * (PCI_BARS + 1) * 8)

static const struct state_field root_fields[] = {
	STATE_FIELD(struct pci_root, up, "hotplug-up", UINT32_MAX),
	STATE_FIELD(struct pci_root, down, "hotplug-down", UINT32_MAX),
	STATE_FIELD(struct pci_root, config_address, "config-address", CONFIG_ADDRESS_WRITABLE),
};

void pci_root_each(struct pci_root *root, void (*each)(void *opaque, struct pci_function *fn),
		   void *opaque)
{
	for (unsigned int i = 1; i < PCI_SLOTS; i++) {
		struct pci_function *fn;

		pthread_mutex_lock(&root->lock);
		fn = root->slots[i].leaving ? NULL : root->slots[i].fn;
		pthread_mutex_unlock(&root->lock);
		if (fn)
			each(opaque, fn);
	}
}

static uint32_t removals_wanted(const struct pci_root *root)
{
	uint32_t mask = 0;

	for (unsigned int i = 0; i < PCI_SLOTS; i++)
		if (root->slots[i].fn && root->slots[i].removal_wanted)
			mask |= 1u << i;
	return mask;
}

int pci_root_save(struct pci_root *root, struct state_writer *writer, const char *name,
		  struct error *err)
{
	uint8_t assigned[ASSIGNED_SIZE], *at = assigned;
	int r = 0;

	pthread_mutex_lock(&root->lock);
	for (unsigned int i = 0; i < PCI_SLOTS; i++)
		for (unsigned int bar = 0; bar <= PCI_ROM_BAR; bar++, at += 8)
			store_le64(at, root->slots[i].assigned[bar]);
	state_begin(writer, name, KIND, VERSION);
	state_fields_save(writer, root_fields, ARRAY_SIZE(root_fields), root);
	state_put_u32(writer, "removals-wanted", removals_wanted(root));
	state_put_bytes(writer, "assigned", assigned, sizeof(assigned));
	pthread_mutex_unlock(&root->lock);
	for (unsigned int i = 0; !r && i < PCI_SLOTS; i++)
		if (root->slots[i].fn)
			r = pci_function_save(root->slots[i].fn, writer, err);
	state_end(writer);
	return r;
}

/* Slots that have a function a guest can be told of. */
static uint32_t occupied(const struct pci_root *root)
{
	uint32_t mask = 0;

	for (unsigned int i = 1; i < PCI_SLOTS; i++)
		if (root->slots[i].fn)
			mask |= 1u << i;
	return mask;
}

static int load_registers(struct pci_root *root, const struct state_node *node, struct error *err)
{
	uint32_t wanted = 0, empty = ~occupied(root);
	int r;

	pthread_mutex_lock(&root->lock);
	r = state_fields_load(node, root_fields, ARRAY_SIZE(root_fields), root, err);
	if (!r)
		r = state_get_u32(node, "removals-wanted", &wanted, err);
	if (!r && (root->up & empty))
		r = state_refuse(node, "hotplug-up", err, "has slots 0x%x, which are empty",
				 root->up & empty);
	if (!r && (root->down & empty))
		r = state_refuse(node, "hotplug-down", err, "has slots 0x%x, which are empty",
				 root->down & empty);
	if (!r && (wanted & empty))
		r = state_refuse(node, "removals-wanted", err, "has slots 0x%x, which are empty",
				 wanted & empty);
	if (!r && (root->config_address &
		   (root->layout.ecam_only ? UINT32_MAX : ~CONFIG_ADDRESS_WRITABLE)))
		r = state_refuse(node, "config-address", err, "is 0x%x, which no guest can set",
				 root->config_address);
	for (unsigned int i = 0; !r && i < PCI_SLOTS; i++)
		root->slots[i].removal_wanted = wanted & 1u << i;
	pthread_mutex_unlock(&root->lock);
	return r;
}

static int load_assigned(struct pci_root *root, const struct state_node *node, struct error *err)
{
	uint8_t assigned[ASSIGNED_SIZE], *at = assigned;
	int r = state_get_bytes(node, "assigned", assigned, sizeof(assigned), err);

	for (unsigned int i = 0; !r && i < PCI_SLOTS; i++) {
		struct pci_slot *slot = &root->slots[i];

		for (unsigned int bar = 0; !r && bar <= PCI_ROM_BAR; bar++, at += 8) {
			uint64_t address = load_le64(at);

			if (!pci_root_may_place(root, slot->fn ? &slot->fn->bars[bar] : NULL,
						address))
				r = state_refuse(node, "assigned", err,
						 "puts bar%u of slot %u at 0x%llx, where it "
						 "cannot be",
						 bar, i, (unsigned long long)address);
			else
				slot->assigned[bar] = address;
		}
	}
	return r;
}

static const struct pci_function *function_of(const struct pci_root *root, const char *node)
{
	char name[64];

	for (unsigned int i = 0; i < PCI_SLOTS; i++) {
		if (!root->slots[i].fn)
			continue;
		pci_function_node_name(root->slots[i].fn, name);
		if (!strcmp(name, node))
			return root->slots[i].fn;
	}
	return NULL;
}

typedef int (*function_fn)(struct pci_slot *slot, const struct state_node *node, struct error *err);

static int each_function(struct pci_root *root, const struct state_node *node, function_fn fn,
			 struct error *err)
{
	struct state_node child;
	char name[64];
	int r = 0;

	for (unsigned int i = 0; !r && i < PCI_SLOTS; i++) {
		if (!root->slots[i].fn)
			continue;
		pci_function_node_name(root->slots[i].fn, name);
		r = state_child(node, name, &child, err);
		if (!r)
			r = fn(&root->slots[i], &child, err);
	}
	return r;
}

static int is_there(struct pci_slot *slot, const struct state_node *node, struct error *err)
{
	return 0;
}

/* Said before anything else: what follows from it would be hard to understand. */
static int check_functions(struct pci_root *root, const struct state_node *node, struct error *err)
{
	struct state_node child = { .offset = -1 };
	char path[128];

	while (state_next_child(node, &child)) {
		if (function_of(root, state_name(&child)))
			continue;
		state_path(&child, path, sizeof(path));
		return error_set(err, EINVAL, "%s: this machine has no such device", path);
	}
	return each_function(root, node, is_there, err);
}

static int settle_function(struct pci_slot *slot, const struct state_node *node, struct error *err)
{
	return pci_function_settle(slot->fn, node, err);
}

static int load_function(struct pci_slot *slot, const struct state_node *node, struct error *err)
{
	int r = pci_function_load(slot->fn, node, err);

	if (!r)
		pci_root_command_written(slot, slot->fn);
	return r;
}

int pci_root_load(struct pci_root *root, const struct state_node *node, struct error *err)
{
	int r = state_expect(node, KIND, VERSION, NULL, NULL, err);

	if (!r)
		r = check_functions(root, node, err);
	if (!r)
		r = load_registers(root, node, err);
	if (!r)
		r = load_assigned(root, node, err);
	if (!r)
		r = each_function(root, node, settle_function, err);
	return r ? r : each_function(root, node, load_function, err);
}
