/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Config space of an assigned function: who answers for each bit.
 *
 *   register               guest reads            guest's write goes to
 *   ---------------------  ---------------------  -------------------------------------
 *   vendor, device, class, the device's, read     nowhere
 *     revision, subsystem    once at the start
 *   command                ours                   ours; bus master and INTx disable to
 *                                                 the device too, whose decoding stays on
 *   status                 the device's, but for  the device, error bits only
 *                            the capability bit
 *   cache line size        ours                   ours
 *   latency, header type,  0                      nowhere
 *     BIST, CIS, grants
 *   BARs, ROM              ours                   ours
 *   capabilities pointer   ours                   nowhere
 *   interrupt line, pin    ours                   line: ours; pin: nowhere
 *   capabilities           by the tables of vfio_pci_caps.c
 *   all else from 0x40 on  the device's           the device
 *
 * Every bit is in at most one of device_read (else the guest reads our copy),
 * write_mask (else our copy does not change) and, independently, device_write.
 *
 * Decoding is never off in the device while it is ours: a kernel driver revokes mapped
 * BARs when it goes off, and a vCPU on its way there would not come back. What the guest
 * sees of it is made by taking BARs off the bus. For VFs there is no such bit at all.
 */
#include <errno.h>

#include "vfio/vfio_pci_private.h"

#define COMMAND_TO_DEVICE (PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE)
#define STATUS_FROM_DEVICE (0xffff & ~PCI_STATUS_CAP_LIST)

int vfio_pci_config_load(struct vfio_pci *self, unsigned int offset, unsigned int len,
			 uint32_t *value, struct error *err)
{
	uint8_t data[4] = { 0 };
	int r = self->transport->ops->region_read(self->transport, &self->config_region, offset,
						  data, len, err);

	/* All ones where the device does not answer, as on a real bus. */
	*value = r ? UINT32_MAX : load_le32(data);
	if (r)
		error_prefix(err, "%s: read config space at 0x%x", self->transport->name, offset);
	return r;
}

void vfio_pci_config_rule(struct vfio_pci *self, unsigned int offset, unsigned int len,
			  uint32_t device_read, uint32_t device_write, uint32_t ours)
{
	for (unsigned int i = 0; i < len && offset + i < self->config_size; i++) {
		self->device_read[offset + i] = (uint8_t)(device_read >> 8 * i);
		self->device_write[offset + i] = (uint8_t)(device_write >> 8 * i);
		self->fn.write_mask[offset + i] = (uint8_t)(ours >> 8 * i);
	}
}

static int check_header(struct vfio_pci *self, const uint32_t header[PCI_HEADER_END / 4],
			struct error *err)
{
	unsigned int type = header[PCI_HEADER_TYPE / 4] >> 16 & 0x7f;

	if ((uint16_t)header[0] == 0xffff || !(uint16_t)header[0])
		return error_set(
			err, ENODEV,
			"%s: config space reads 0x%08x: the device does not answer (was it "
			"pulled out, or is it powered off?)",
			self->transport->name, header[0]);
	if (type != PCI_HEADER_TYPE_NORMAL)
		return error_set(err, EINVAL,
				 "%s: header type %u: bridges cannot be assigned, only endpoints",
				 self->transport->name, type);
	return 0;
}

int vfio_pci_config_open(struct vfio_pci *self, struct pci_ids *ids, struct error *err)
{
	struct vfio_transport *t = self->transport;
	uint32_t header[PCI_HEADER_END / 4];
	int r;

	r = t->ops->region_info(t, VFIO_PCI_CONFIG_REGION_INDEX, &self->config_region, err);
	if (r)
		return r;
	if (!self->config_region.readable || !self->config_region.writable ||
	    self->config_region.size < PCI_HEADER_END)
		return error_set(
			err, EINVAL,
			"%s: config space of 0x%llx bytes%s: at least 0x%x that can be read "
			"and written are needed",
			t->name, (unsigned long long)self->config_region.size,
			self->config_region.writable ? "" : ", read-only", PCI_HEADER_END);
	/* Mediated devices may stop anywhere behind the header (the kernel's mtty: at 0xff). */
	if (self->config_region.size < PCI_CONVENTIONAL_END)
		self->config_size = self->config_region.size & ~3U;
	else if (self->config_region.size < PCI_CONFIG_SIZE)
		self->config_size = PCI_CONVENTIONAL_END;
	else
		self->config_size = PCI_CONFIG_SIZE;
	for (unsigned int i = 0; i < ARRAY_SIZE(header); i++) {
		r = vfio_pci_config_load(self, 4 * i, 4, &header[i], err);
		if (r)
			return r;
	}
	r = check_header(self, header, err);
	if (r)
		return r;
	*ids = (struct pci_ids){
		.vendor = (uint16_t)header[0],
		.device = (uint16_t)(header[0] >> 16),
		.revision = (uint8_t)header[PCI_CLASS_REVISION / 4],
		.class_code = header[PCI_CLASS_REVISION / 4] >> 8,
		.subsystem_vendor = (uint16_t)header[PCI_SUBSYSTEM_VENDOR_ID / 4],
		.subsystem = (uint16_t)(header[PCI_SUBSYSTEM_VENDOR_ID / 4] >> 16),
	};
	return 0;
}

void vfio_pci_config_header(struct vfio_pci *self)
{
	struct pci_function *fn = &self->fn;

	vfio_pci_config_rule(self, PCI_COMMAND, 2, 0, COMMAND_TO_DEVICE,
			     load_le16(fn->write_mask + PCI_COMMAND));
	vfio_pci_config_rule(self, PCI_STATUS, 2, STATUS_FROM_DEVICE, PCI_STATUS_W1C, 0);
	store_le16(fn->w1c_mask + PCI_STATUS, 0);
	memset(self->device_read + PCI_HEADER_END, 0xff, self->config_size - PCI_HEADER_END);
	memset(self->device_write + PCI_HEADER_END, 0xff, self->config_size - PCI_HEADER_END);
}

int vfio_pci_config_command(struct vfio_pci *self, uint16_t guest, struct error *err)
{
	struct vfio_transport *t = self->transport;
	uint32_t command = 0;
	uint8_t data[2];
	int r;

	if (vfio_pci_is_kept(self))
		return 0;
	r = vfio_pci_config_load(self, PCI_COMMAND, 2, &command, err);
	if (r)
		return r;
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_IO;
	command = (command & ~(uint32_t)COMMAND_TO_DEVICE) | (guest & COMMAND_TO_DEVICE);
	store_le16(data, (uint16_t)command);
	r = t->ops->region_write(t, &self->config_region, PCI_COMMAND, data, 2, err);
	if (r)
		error_prefix(err, "%s: write the command register", t->name);
	return r;
}

void vfio_pci_config_reset(struct vfio_pci *self)
{
	struct pci_function *fn = &self->fn;

	pthread_mutex_lock(&fn->lock);
	for (unsigned int i = PCI_HEADER_END; i < self->config_size; i++)
		fn->config[i] = (uint8_t)((fn->config[i] & ~fn->write_mask[i]) |
					  (self->power_on[i] & fn->write_mask[i]));
	pthread_mutex_unlock(&fn->lock);
}

static uint32_t device_load(struct vfio_pci *self, unsigned int offset, unsigned int len)
{
	struct error err = ERROR_INIT;
	uint32_t value;

	if (vfio_pci_config_load(self, offset, len, &value, &err))
		vfio_pci_complain(self, LOG_LEVEL_WARNING, "%s: %s", self->fn.id, err.message);
	return value;
}

static bool any(const uint8_t *mask, unsigned int len)
{
	for (unsigned int i = 0; i < len; i++)
		if (mask[i])
			return true;
	return false;
}

/* An access at an odd address goes to the device by bytes. */
static unsigned int step(unsigned int offset, unsigned int len)
{
	return offset % len ? 1 : len;
}

bool vfio_pci_config_read(struct pci_function *fn, unsigned int offset, void *data,
			  unsigned int len)
{
	struct vfio_pci *self = vfio_pci_of(fn);
	unsigned int by = step(offset, len);
	uint8_t *out = data;

	atomic_fetch_add_explicit(&self->config_reads, 1, memory_order_relaxed);
	memcpy(out, fn->config + offset, len);
	for (unsigned int at = 0; at < len; at += by) {
		const uint8_t *mask = self->device_read + offset + at;
		uint32_t value;

		if (!any(mask, by))
			continue;
		value = device_load(self, offset + at, by);
		for (unsigned int i = 0; i < by; i++)
			out[at + i] =
				(uint8_t)((out[at + i] & ~mask[i]) | (value >> 8 * i & mask[i]));
	}
	vfio_pci_msi_read(self, offset, out, len);
	return true;
}

static void device_store(struct vfio_pci *self, unsigned int offset, const uint8_t *data,
			 unsigned int len)
{
	struct vfio_transport *t = self->transport;
	struct error err = ERROR_INIT;

	if (t->ops->region_write(t, &self->config_region, offset, data, len, &err))
		vfio_pci_complain(self, LOG_LEVEL_WARNING, "%s: write config space at 0x%x: %s",
				  self->fn.id, offset, err.message);
}

/*
 * Registers that are the device's in part are at most 16 bits wide: a larger access is
 * taken apart there, so that nothing is written back that the guest did not write. What
 * is not the guest's to write keeps the device's value; no such register has bits beside
 * it that are cleared by writing what was read.
 */
static void write_device(struct vfio_pci *self, unsigned int offset, const uint8_t *data,
			 unsigned int len)
{
	uint32_t full = len == 4 ? UINT32_MAX : (1u << 8 * len) - 1;
	uint32_t mask = (uint32_t)load_le(self->device_write + offset, len), value;
	uint8_t merged[4];

	if (!mask)
		return;
	if (mask == full && !(offset % len)) {
		device_store(self, offset, data, len);
		return;
	}
	if (len == 4 || offset % len) {
		write_device(self, offset, data, len / 2);
		write_device(self, offset + len / 2, data + len / 2, len / 2);
		return;
	}
	if (vfio_pci_config_load(self, offset, len, &value, NULL))
		return; /* a device that is gone: nothing to merge with */
	value = (value & ~mask) | ((uint32_t)load_le(data, len) & mask);
	store_le32(merged, value);
	device_store(self, offset, merged, len);
}

int vfio_pci_config_put(struct vfio_pci *self, unsigned int offset, unsigned int len,
			uint32_t value, struct error *err)
{
	struct vfio_transport *t = self->transport;
	uint32_t mask = (uint32_t)load_le(self->device_write + offset, len), now;
	uint8_t data[4];
	int r;

	if (!mask)
		return 0;
	r = vfio_pci_config_load(self, offset, len, &now, err);
	if (r)
		return r;
	store_le32(data, (now & ~mask) | (value & mask));
	r = t->ops->region_write(t, &self->config_region, offset, data, len, err);
	if (r)
		error_prefix(err, "%s: write config space at 0x%x", t->name, offset);
	return r;
}

static bool sets(unsigned int offset, const uint8_t *data, unsigned int len, unsigned int byte,
		 uint8_t bit)
{
	return byte >= offset && byte < offset + len && data[byte - offset] & bit;
}

/* A function-level reset, asked for by the PCIe or the Advanced Features capability. */
static bool asks_for_reset(const struct vfio_pci *self, unsigned int offset, const uint8_t *data,
			   unsigned int len)
{
	return (self->pcie_cap && sets(offset, data, len, self->pcie_cap + PCI_EXP_DEVCTL + 1,
				       PCI_EXP_DEVCTL_BCR_FLR >> 8)) ||
	       (self->af_cap &&
		sets(offset, data, len, self->af_cap + PCI_AF_CTRL, PCI_AF_CTRL_FLR));
}

/* The generic part goes on with our bits, then the config_written op. */
bool vfio_pci_config_write(struct pci_function *fn, unsigned int offset, const void *data,
			   unsigned int len)
{
	struct vfio_pci *self = vfio_pci_of(fn);

	atomic_fetch_add_explicit(&self->config_writes, 1, memory_order_relaxed);
	if (asks_for_reset(self, offset, data, len))
		self->reset_wanted = true;
	write_device(self, offset, data, len);
	return false;
}
