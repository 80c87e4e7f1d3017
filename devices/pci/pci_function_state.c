/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A function's state: what is common to all. A device that differs from the one saved
 * is told from it by the bytes of config space the guest cannot write.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/pci/pci_function.h"
#include "devices/pci/pci_registers.h"

#define KIND "pci-function"
#define VERSION 1

void pci_function_node_name(const struct pci_function *fn, char name[64])
{
	snprintf(name, 64, "%s", fn->id);
	for (char *c = name; *c; c++)
		if (*c == ':')
			*c = '@';
}

static uint32_t mapped_bars(const struct pci_function *fn)
{
	uint32_t mask = 0;

	for (unsigned int i = 0; i <= PCI_ROM_BAR; i++)
		if (fn->bars[i].mapped)
			mask |= 1u << i;
	return mask;
}

int pci_function_save(struct pci_function *fn, struct state_writer *writer, struct error *err)
{
	char name[64];
	int r;

	if (!fn->ops->save || !fn->ops->load)
		return error_set(err, EOPNOTSUPP,
				 "save %s: this kind of device has no state to "
				 "be saved",
				 fn->id);
	pci_function_node_name(fn, name);
	state_begin(writer, name, KIND, VERSION);
	pthread_mutex_lock(&fn->lock);
	state_put_string(writer, "id", fn->id);
	state_put_u32(writer, "devfn", fn->devfn);
	state_put_bytes(writer, "config", fn->config, sizeof(fn->config));
	state_put_u32(writer, "mapped-bars", mapped_bars(fn));
	pthread_mutex_unlock(&fn->lock);
	r = fn->ops->save(fn, writer, err);
	state_end(writer);
	return r;
}

static int check_identity(const struct pci_function *fn, const struct state_node *node,
			  const uint8_t *config, struct error *err)
{
	const char *id;
	int r = state_get_string(node, "id", &id, err);

	if (!r && strcmp(id, fn->id) != 0)
		r = state_refuse(node, "id", err, "is %.64s, here %s", id, fn->id);
	if (!r)
		r = state_match_u32(node, "devfn", fn->devfn, err);
	if (!r && load_le32(config) != load_le32(fn->config))
		r = state_refuse(node, "config", err, "is of a device %04x:%04x, here is %04x:%04x",
				 load_le16(config), load_le16(config + PCI_DEVICE_ID),
				 load_le16(fn->config), load_le16(fn->config + PCI_DEVICE_ID));
	return r;
}

static void take_writable(struct pci_function *fn, const uint8_t *config)
{
	pthread_mutex_lock(&fn->lock);
	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++) {
		uint8_t mask = fn->write_mask[i] | fn->w1c_mask[i];

		fn->config[i] = (uint8_t)((fn->config[i] & ~mask) | (config[i] & mask));
	}
	pthread_mutex_unlock(&fn->lock);
}

static int get_config(const struct state_node *node, const uint8_t **config, struct error *err)
{
	const void *data;
	size_t len;
	int r = state_get_blob(node, "config", &data, &len, err);

	if (!r && len != PCI_CONFIG_SIZE)
		r = state_refuse(node, "config", err, "has %zu bytes, not %u", len,
				 PCI_CONFIG_SIZE);
	if (!r)
		*config = data;
	return r;
}

int pci_function_match_config(const struct pci_function *fn, const struct state_node *node,
			      struct error *err)
{
	const uint8_t *config;
	int r = get_config(node, &config, err);

	if (r)
		return r;
	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++)
		if (config[i] != fn->config[i])
			return state_refuse(node, "config", err,
					    "has 0x%02x at 0x%x, here is 0x%02x: another device, "
					    "or configured in another way",
					    config[i], i, fn->config[i]);
	return 0;
}

/* What is expected, and nothing else, may be there before the guest. */
static void unmap_unexpected(struct pci_function *fn)
{
	for (unsigned int i = 0; i < PCI_BARS; i++)
		if (fn->bars[i].expected)
			return;
	pci_function_unmap(fn);
}

static int get_function(const struct state_node *node, const uint8_t **config, uint32_t *mapped,
			struct error *err)
{
	int r = state_expect(node, KIND, VERSION, NULL, NULL, err);

	if (!r)
		r = get_config(node, config, err);
	return r ? r
		 : state_get_u32_max(node, "mapped-bars", (1u << (PCI_ROM_BAR + 1)) - 1, mapped,
				     err);
}

int pci_function_settle(struct pci_function *fn, const struct state_node *node, struct error *err)
{
	const uint8_t *config;
	uint32_t mapped;
	int r = get_function(node, &config, &mapped, err);

	if (!r)
		pci_function_settle_mappings(fn, config, mapped);
	return r;
}

int pci_function_load(struct pci_function *fn, const struct state_node *node, struct error *err)
{
	struct error why = ERROR_INIT;
	const uint8_t *config;
	uint32_t mapped;
	int r;

	if (!fn->ops->load)
		return error_set(err, EOPNOTSUPP, "load %s: this kind of device cannot be loaded",
				 fn->id);
	r = get_function(node, &config, &mapped, err);
	if (!r)
		r = check_identity(fn, node, config, err);
	if (r)
		return r;
	unmap_unexpected(fn);
	take_writable(fn, config);
	/* Before the rest is compared: the device says it in better words. */
	r = fn->ops->load(fn, node, err);
	if (!r)
		r = pci_function_match_config(fn, node, err);
	if (!r && pci_function_restore_mappings(fn, mapped, &why))
		r = state_refuse(node, "mapped-bars", err, "is 0x%" PRIx32 ": %s", mapped,
				 why.message);
	return r;
}
