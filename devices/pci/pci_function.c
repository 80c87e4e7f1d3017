/* SPDX-License-Identifier: Apache-2.0 */
/* Config space of one function. Where its BARs are decoded: pci_bars.c. */
#include "devices/pci/pci_function.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/pci/pci_registers.h"

#define LOG_BURST 8

void pci_function_init(struct pci_function *fn, const struct pci_function_ops *ops,
		       struct device_host *host, const char *id, const struct pci_ids *ids)
{
	pthread_mutexattr_t attr;

	memset(fn, 0, sizeof(*fn));
	fn->ops = ops;
	fn->host = host;
	snprintf(fn->id, sizeof(fn->id), "%s", id);
	fn->next_cap = PCI_HEADER_END;
	fn->next_ext_cap = PCI_CONVENTIONAL_END;
	atomic_init(&fn->log_limit.burst_left, LOG_BURST);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&fn->write_lock, &attr);
	pthread_mutexattr_destroy(&attr);
	pthread_mutex_init(&fn->lock, NULL);

	store_le16(fn->config + PCI_VENDOR_ID, ids->vendor);
	store_le16(fn->config + PCI_DEVICE_ID, ids->device);
	store_le16(fn->config + PCI_SUBSYSTEM_VENDOR_ID, ids->subsystem_vendor);
	store_le16(fn->config + PCI_SUBSYSTEM_ID, ids->subsystem);
	fn->config[PCI_REVISION_ID] = ids->revision;
	fn->config[PCI_CLASS_PROG] = (uint8_t)ids->class_code;
	store_le16(fn->config + PCI_CLASS_DEVICE, (uint16_t)(ids->class_code >> 8));
	fn->config[PCI_INTERRUPT_PIN] = ids->intx ? 1 : 0;

	store_le16(fn->write_mask + PCI_COMMAND, PCI_COMMAND_WRITABLE);
	store_le16(fn->w1c_mask + PCI_STATUS, PCI_STATUS_W1C);
	fn->write_mask[PCI_CACHE_LINE_SIZE] = 0xff;
	fn->write_mask[PCI_INTERRUPT_LINE] = 0xff;
}

void pci_function_destroy(struct pci_function *fn)
{
	pthread_mutex_destroy(&fn->lock);
	pthread_mutex_destroy(&fn->write_lock);
}

int pci_function_add_capability(struct pci_function *fn, uint8_t id, unsigned int len)
{
	unsigned int at = fn->next_cap;

	if (len < 2 || len > PCI_CONVENTIONAL_END - PCI_HEADER_END ||
	    at + len > PCI_CONVENTIONAL_END)
		return -ENOSPC;
	fn->config[at] = id;
	fn->config[at + 1] = 0;
	if (fn->last_cap)
		fn->config[fn->last_cap + 1] = (uint8_t)at;
	else
		fn->config[PCI_CAPABILITY_LIST] = (uint8_t)at;
	fn->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	fn->last_cap = at;
	fn->next_cap = (unsigned int)align_up(at + len, 4);
	return (int)at;
}

int pci_function_add_extended_capability(struct pci_function *fn, uint16_t id, uint8_t version,
					 unsigned int len)
{
	unsigned int at = fn->next_ext_cap;

	if (len < 4 || len > PCI_CONFIG_SIZE || at + len > PCI_CONFIG_SIZE)
		return -ENOSPC;
	/* id 16 bits, version 4, next 12 */
	store_le32(fn->config + at, id | (uint32_t)(version & 0xf) << 16);
	if (fn->last_ext_cap) {
		uint8_t *last = fn->config + fn->last_ext_cap;

		store_le32(last, (load_le32(last) & 0xfffff) | (uint32_t)at << 20);
	}
	fn->last_ext_cap = at;
	fn->next_ext_cap = (unsigned int)align_up(at + len, 4);
	return (int)at;
}

static bool valid_access(unsigned int offset, unsigned int len)
{
	return (len == 1 || len == 2 || len == 4) && offset < PCI_CONFIG_SIZE &&
	       offset % 4 + len <= 4;
}

void pci_function_config_read(struct pci_function *fn, unsigned int offset, void *data,
			      unsigned int len)
{
	if (!valid_access(offset, len)) {
		memset(data, 0xff, len);
		return;
	}
	pthread_mutex_lock(&fn->lock);
	if (!fn->ops->config_read || !fn->ops->config_read(fn, offset, data, len))
		memcpy(data, fn->config + offset, len);
	pthread_mutex_unlock(&fn->lock);
}

static void write_masked_locked(struct pci_function *fn, unsigned int offset, const uint8_t *data,
				unsigned int len)
{
	for (unsigned int i = 0; i < len; i++) {
		uint8_t mask = fn->write_mask[offset + i], w1c = fn->w1c_mask[offset + i];
		uint8_t *byte = &fn->config[offset + i];

		*byte = (uint8_t)(((*byte & ~mask) | (data[i] & mask)) & ~(data[i] & w1c));
	}
}

static bool overlaps(unsigned int offset, unsigned int len, unsigned int start, unsigned int end)
{
	return offset < end && offset + len > start;
}

/* The registers that say where BARs are decoded. */
static bool touches_decoding(unsigned int offset, unsigned int len)
{
	return overlaps(offset, len, PCI_COMMAND, PCI_COMMAND + 2) ||
	       overlaps(offset, len, PCI_BASE_ADDRESS_0, PCI_BAR_OFFSET(PCI_BARS)) ||
	       overlaps(offset, len, PCI_ROM_ADDRESS, PCI_ROM_ADDRESS + 4);
}

void pci_function_config_write(struct pci_function *fn, unsigned int offset, const void *data,
			       unsigned int len)
{
	bool handled;

	if (!valid_access(offset, len))
		return;
	pthread_mutex_lock(&fn->write_lock);
	pthread_mutex_lock(&fn->lock);
	handled = fn->ops->config_write && fn->ops->config_write(fn, offset, data, len);
	if (!handled)
		write_masked_locked(fn, offset, data, len);
	pthread_mutex_unlock(&fn->lock);
	if (!handled) {
		if (touches_decoding(offset, len))
			pci_function_update_mappings(fn);
		if (fn->ops->config_written)
			fn->ops->config_written(fn, offset, len);
	}
	pthread_mutex_unlock(&fn->write_lock);
}

void pci_function_reset(struct pci_function *fn)
{
	pthread_mutex_lock(&fn->write_lock);
	pthread_mutex_lock(&fn->lock);
	store_le16(fn->config + PCI_COMMAND,
		   (uint16_t)(pci_function_command(fn) & ~PCI_COMMAND_WRITABLE));
	store_le16(fn->config + PCI_STATUS,
		   (uint16_t)(load_le16(fn->config + PCI_STATUS) & ~PCI_STATUS_W1C));
	fn->config[PCI_CACHE_LINE_SIZE] = 0;
	pthread_mutex_unlock(&fn->lock);
	pci_function_update_mappings(fn);
	pthread_mutex_unlock(&fn->write_lock);
}
