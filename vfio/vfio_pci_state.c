/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of the function around an assigned device: what is ours, and so is not in the
 * device's own stream (base/migratable.h). The node "vfio-pci" below the function's:
 *
 *   config-size    bytes of config space that the device has
 *   bar0...5, rom  kind and size, as text: "mem64 prefetchable 0x4000"; "none"
 *   device-config  registers of the device's that say what it can do, or that the guest
 *                  sets in it: the tables below; the rest is 0
 *   msi-pending    vectors signalled while masked
 *   msix           the node of devices/pci/msix.h, where the guest has MSI-X
 *
 * Not saved: the ROM's copy (the device has it), and of INTx nothing at all. Its mode
 * follows from the command register; its level is the device's, which raises it again.
 *
 * The device here must be one whose driver in the guest cannot tell it from the one saved:
 * ids, revision, class, subsystem, BARs, capabilities at the same offsets and with the same
 * contents where those are fixed. What may differ from one host to the next does not count:
 * serial numbers, link speed and width, error logs. What cannot change is read once, while
 * the device is made: at a pause each read would be one of the guest's time.
 */
#include <errno.h>
#include <stdio.h>

#include "vfio/vfio_pci_private.h"

#define KIND "vfio-pci"
#define VERSION 1

enum use { MATCH, WRITE }; /* must be equal here; is written to the device here */

struct saved_register {
	uint16_t cap;
	uint8_t offset, len;
	uint8_t version; /* of PCI Express, from which on it is there */
	enum use use;
	uint64_t slot; /* bits that are the slot's, not the device's */
};

static const struct saved_register registers[] = {
	{ PCI_CAP_ID_PM, PCI_PM_PMC, 2, 0, MATCH, 0 },
	{ PCI_CAP_ID_VNDR, 2, 1, 0, MATCH, 0 }, /* length */
	{ PCI_CAP_ID_SSVID, 4, 4, 0, MATCH, 0 },
	{ PCI_CAP_ID_EXP, PCI_EXP_FLAGS, 2, 0, MATCH, 0 },
	{ PCI_CAP_ID_EXP, PCI_EXP_DEVCAP, 4, 0, MATCH,
	  PCI_EXP_DEVCAP_PWR_VAL | PCI_EXP_DEVCAP_PWR_SCL },
	{ PCI_CAP_ID_EXP, PCI_EXP_DEVCAP2, 4, 2, MATCH, 0 },
	{ PCI_CAP_ID_EXP, PCI_EXP_DEVCTL, 2, 0, WRITE, 0 },
	{ PCI_CAP_ID_EXP, PCI_EXP_DEVCTL2, 2, 2, WRITE, 0 },
	{ PCI_CAP_ID_AF, PCI_AF_LENGTH, 2, 0, MATCH, 0 },
};

static const struct saved_register extended_registers[] = {
	{ PCI_EXT_CAP_ID_VNDR, 4, 4, 0, MATCH, 0 },  /* id, revision, length */
	{ PCI_EXT_CAP_ID_DVSEC, 4, 6, 0, MATCH, 0 }, /* vendor, revision, length, id */
};

typedef int (*visit_fn)(struct vfio_pci *self, unsigned int at, const struct saved_register *reg,
			void *opaque, struct error *err);

/* A short capability may end where the next begins. */
static bool another_begins(const struct vfio_pci *self, unsigned int cap, unsigned int end)
{
	const uint8_t *config = self->fn.config;

	for (unsigned int at = config[PCI_CAPABILITY_LIST]; at; at = config[at + 1])
		if (at > cap && at < end)
			return true;
	return end > MIN(self->config_size, (unsigned int)PCI_CONVENTIONAL_END);
}

/* Of a PCI Express capability; its flags are the first of its registers that are learned. */
static unsigned int version_of(const struct vfio_pci *self, unsigned int cap)
{
	return load_le16(self->fixed + cap + PCI_EXP_FLAGS) & PCI_EXP_FLAGS_VERS;
}

static int visit_cap(struct vfio_pci *self, unsigned int cap, visit_fn visit, void *opaque,
		     struct error *err)
{
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(registers); i++) {
		const struct saved_register *reg = &registers[i];

		if (reg->cap == self->fn.config[cap] &&
		    (!reg->version || reg->version <= version_of(self, cap)) &&
		    !another_begins(self, cap, cap + reg->offset + reg->len))
			r = visit(self, cap + reg->offset, reg, opaque, err);
	}
	return r;
}

/* The lists are those we made for the guest: in order and without loops. */
static int visit_registers(struct vfio_pci *self, visit_fn visit, void *opaque, struct error *err)
{
	const uint8_t *config = self->fn.config;
	unsigned int at = self->config_size > PCI_CONVENTIONAL_END ? PCI_CONVENTIONAL_END : 0;
	int r = 0;

	for (unsigned int cap = config[PCI_CAPABILITY_LIST]; !r && cap; cap = config[cap + 1])
		r = visit_cap(self, cap, visit, opaque, err);
	for (; !r && at; at = load_le32(config + at) >> 20)
		for (size_t i = 0; !r && i < ARRAY_SIZE(extended_registers); i++) {
			const struct saved_register *reg = &extended_registers[i];

			if (reg->cap == load_le16(config + at))
				r = visit(self, at + reg->offset, reg, opaque, err);
		}
	return r;
}

/* As the guest reads it, but that a device that does not answer is an error. */
static int read_register(struct vfio_pci *self, unsigned int offset,
			 const struct saved_register *reg, uint8_t *data, struct error *err)
{
	unsigned int step = reg->len % 2 ? 1 : 2;

	for (unsigned int at = 0; at < reg->len; at += step) {
		uint32_t mask = (uint32_t)load_le(self->device_read + offset + at, step);
		uint32_t ours = (uint32_t)load_le(self->fn.config + offset + at, step), value;
		int r = vfio_pci_config_load(self, offset + at, step, &value, err);

		if (r)
			return r;
		value = ((ours & ~mask) | (value & mask)) & ~(uint32_t)(reg->slot >> 8 * at);
		store_le(data + at, value, step);
	}
	return 0;
}

static int learn_register(struct vfio_pci *self, unsigned int at, const struct saved_register *reg,
			  void *opaque, struct error *err)
{
	return reg->use == MATCH ? read_register(self, at, reg, self->fixed + at, err) : 0;
}

int vfio_pci_state_learn(struct vfio_pci *self, struct error *err)
{
	return visit_registers(self, learn_register, NULL, err);
}

static int save_register(struct vfio_pci *self, unsigned int at, const struct saved_register *reg,
			 void *opaque, struct error *err)
{
	uint8_t *data = (uint8_t *)opaque + at;

	if (reg->use == WRITE)
		return read_register(self, at, reg, data, err);
	memcpy(data, self->fixed + at, reg->len);
	return 0;
}

#define BAR_TEXT_MAX 64

static const char *describe_bar(const struct vfio_pci *self, unsigned int index,
				char text[BAR_TEXT_MAX])
{
	static const char *const kinds[] = {
		[PCI_BAR_MEM32] = "mem32",
		[PCI_BAR_MEM64] = "mem64",
		[PCI_BAR_IO] = "io",
	};
	const struct pci_bar *bar = &self->fn.bars[index];

	if (bar->kind == PCI_BAR_NONE)
		return "none";
	snprintf(text, BAR_TEXT_MAX, "%s%s 0x%llx", kinds[bar->kind],
		 bar->prefetchable ? " prefetchable" : "", (unsigned long long)bar->size);
	return text;
}

static const char *const bar_names[PCI_BARS + 1] = {
	"bar0", "bar1", "bar2", "bar3", "bar4", "bar5", [PCI_ROM_BAR] = "rom",
};

int vfio_pci_state_save(struct pci_function *fn, struct state_writer *writer, struct error *err)
{
	struct vfio_pci *self = vfio_pci_of(fn);
	uint8_t config[PCI_CONFIG_SIZE] = { 0 };
	char text[BAR_TEXT_MAX];
	int r = visit_registers(self, save_register, config, err);

	if (r)
		return error_prefix(err, "save %s", fn->id);
	state_begin(writer, KIND, KIND, VERSION);
	state_put_u32(writer, "config-size", self->config_size);
	for (unsigned int i = 0; i < ARRAY_SIZE(bar_names); i++)
		state_put_string(writer, bar_names[i], describe_bar(self, i, text));
	state_put_bytes(writer, "device-config", config, sizeof(config));
	state_put_u32(writer, "msi-pending", vfio_pci_msi_pending(self));
	if (self->msix.msix)
		msix_save(self->msix.msix, writer);
	state_end(writer);
	return 0;
}

static int match_bars(struct vfio_pci *self, const struct state_node *node, struct error *err)
{
	char text[BAR_TEXT_MAX];
	int r = 0;

	for (unsigned int i = 0; !r && i < ARRAY_SIZE(bar_names); i++) {
		const char *saved, *here = describe_bar(self, i, text);

		r = state_get_string(node, bar_names[i], &saved, err);
		if (!r && strcmp(saved, here) != 0)
			r = state_refuse(node, bar_names[i], err, "is %.64s, here %s of %s", saved,
					 here, self->transport->name);
	}
	return r;
}

struct saved_config {
	const struct state_node *node;
	const uint8_t *bytes;
};

static int match_register(struct vfio_pci *self, unsigned int at, const struct saved_register *reg,
			  void *opaque, struct error *err)
{
	const struct saved_config *saved = opaque;
	const uint8_t *here = self->fixed + at;
	int r = 0;

	if (reg->use != MATCH)
		return 0;
	for (unsigned int i = 0; !r && i < reg->len; i++)
		if (saved->bytes[at + i] != here[i])
			r = state_refuse(saved->node, "device-config", err,
					 "has 0x%02x at 0x%x, %s has 0x%02x: another device, or "
					 "configured in another way",
					 saved->bytes[at + i], at + i, self->transport->name,
					 here[i]);
	return r;
}

static int write_register(struct vfio_pci *self, unsigned int at, const struct saved_register *reg,
			  void *opaque, struct error *err)
{
	const struct saved_config *saved = opaque;

	if (reg->use != WRITE)
		return 0;
	return vfio_pci_config_put(self, at, reg->len,
				   (uint32_t)load_le(saved->bytes + at, reg->len), err);
}

static int restore_msi(struct vfio_pci *self, const struct state_node *node, struct error *err)
{
	uint64_t vectors = self->msi.cap ? self->msi.max : 0;
	uint32_t pending;
	int r = state_get_u32_max(node, "msi-pending", (uint32_t)((1ULL << vectors) - 1), &pending,
				  err);

	return r ? r : vfio_pci_msi_raise(self, pending, err);
}

int vfio_pci_state_restore(struct vfio_pci *self, const struct state_node *node, struct error *err)
{
	uint8_t config[PCI_CONFIG_SIZE];
	struct state_node state;
	struct saved_config saved = { .node = &state, .bytes = config };
	int r = state_expect_child(node, KIND, KIND, VERSION, &state, err);

	if (!r)
		r = match_bars(self, &state, err);
	if (!r)
		r = state_match_u32(&state, "config-size", self->config_size, err);
	if (!r)
		r = pci_function_match_config(&self->fn, node, err);
	if (!r)
		r = state_get_bytes(&state, "device-config", config, sizeof(config), err);
	if (!r)
		r = visit_registers(self, match_register, &saved, err);
	if (!r)
		r = restore_msi(self, &state, err);
	if (!r && self->msix.msix)
		r = msix_load(self->msix.msix, &state, err);
	return r;
}

int vfio_pci_state_arm(struct vfio_pci *self, const struct state_node *node, struct error *err)
{
	uint8_t config[PCI_CONFIG_SIZE];
	struct state_node state;
	struct saved_config saved = { .node = &state, .bytes = config };
	int r = state_expect_child(node, KIND, KIND, VERSION, &state, err);

	if (!r)
		r = state_get_bytes(&state, "device-config", config, sizeof(config), err);
	if (!r)
		r = visit_registers(self, write_register, &saved, err);
	if (!r)
		r = vfio_pci_config_command(self, pci_function_command(&self->fn), err);
	return r ? r : vfio_pci_irq_arm(self, err);
}

int vfio_pci_state_load(struct pci_function *fn, const struct state_node *node, struct error *err)
{
	struct vfio_pci *self = vfio_pci_of(fn);
	bool kept = vfio_pci_is_kept(self);
	int r = kept ? vfio_pci_keep_take(self, err) : 0;

	if (!r)
		r = vfio_pci_state_restore(self, node, err);
	if (r || !kept)
		return r ? r : vfio_pci_state_arm(self, node, err);
	/* The device was never stopped: it has all this. */
	vfio_pci_keep_resume(self);
	return 0;
}
