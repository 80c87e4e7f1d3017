/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root's registers: ECAM (PCIe Base, 7.2.2), configuration mechanism #1 (PCI
 * Local Bus 3.0, 3.2.2.3.2), hot-plug.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/pci/pci_registers.h"
#include "devices/pci/pci_root_internal.h"

#define ECAM_SIZE (1u << 20)
#define ECAM_DEVFN_SHIFT 12

#define PORT_BASE 0xcf8
#define PORT_SIZE 8
#define PORT_RESET 1 /* 0xcf9 */
#define PORT_DATA 4  /* 0xcfc */
#define RESET_CPU 0x4
#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu

static void config_read(struct pci_root *root, unsigned int devfn, unsigned int offset, void *data,
			unsigned int len)
{
	struct pci_slot *slot = pci_root_enter(root, devfn);

	if (!slot) {
		memset(data, 0xff, len);
		return;
	}
	pci_function_config_read(slot->fn, offset, data, len);
	/* Interrupt status: the device sets a line, not a register. */
	if (offset <= PCI_STATUS && offset + len > PCI_STATUS && offset >= PCI_COMMAND &&
	    pci_root_line_level(slot))
		((uint8_t *)data)[PCI_STATUS - offset] |= PCI_STATUS_INTERRUPT;
	pci_root_leave(root, slot);
}

static void config_write(struct pci_root *root, unsigned int devfn, unsigned int offset,
			 const void *data, unsigned int len)
{
	struct pci_slot *slot = pci_root_enter(root, devfn);

	if (!slot)
		return;
	pci_function_config_write(slot->fn, offset, data, len);
	if (offset < PCI_COMMAND + 2 && offset + len > PCI_COMMAND)
		pci_root_command_written(slot, slot->fn);
	pci_root_leave(root, slot);
}

/* A qword is two dwords, in order; config space itself knows no more than those. */
static void ecam_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	for (unsigned int done = 0; done < len; done += 4)
		config_read(opaque, (unsigned int)(offset >> ECAM_DEVFN_SHIFT),
			    (unsigned int)(offset + done) % PCI_CONFIG_SIZE, (uint8_t *)data + done,
			    MIN(len, 4u));
}

static void ecam_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	for (unsigned int done = 0; done < len; done += 4)
		config_write(opaque, (unsigned int)(offset >> ECAM_DEVFN_SHIFT),
			     (unsigned int)(offset + done) % PCI_CONFIG_SIZE,
			     (const uint8_t *)data + done, MIN(len, 4u));
}

static const struct bus_ops ecam_ops = { .read = ecam_read, .write = ecam_write };

/* Where port 0xcfc now leads; false: nowhere. */
static bool selected(struct pci_root *root, uint64_t port, unsigned int *devfn,
		     unsigned int *offset)
{
	uint32_t address;

	pthread_mutex_lock(&root->lock);
	address = root->config_address;
	pthread_mutex_unlock(&root->lock);
	*devfn = (address >> 8) & 0xff;
	*offset = (address & 0xfc) + (unsigned int)(port - PORT_DATA);
	return (address & ADDRESS_ENABLE) && !((address >> 16) & 0xff);
}

static void ports_read(void *opaque, uint64_t port, void *data, unsigned int len)
{
	struct pci_root *root = opaque;
	unsigned int devfn, offset;

	memset(data, 0xff, len);
	if (port >= PORT_DATA) {
		if (selected(root, port, &devfn, &offset))
			config_read(root, devfn, offset, data, len);
	} else if (port == 0 && len == 4 && !root->layout.ecam_only) {
		pthread_mutex_lock(&root->lock);
		store_le32(data, root->config_address);
		pthread_mutex_unlock(&root->lock);
	} else if (port == PORT_RESET && len == 1) {
		*(uint8_t *)data = 0;
	}
}

static void ports_write(void *opaque, uint64_t port, const void *data, unsigned int len)
{
	struct pci_root *root = opaque;
	unsigned int devfn, offset;

	if (port >= PORT_DATA) {
		if (selected(root, port, &devfn, &offset))
			config_write(root, devfn, offset, data, len);
	} else if (port == 0 && len == 4 && !root->layout.ecam_only) {
		/* Without it no address is ever enabled: the data port leads nowhere. */
		pthread_mutex_lock(&root->lock);
		root->config_address = load_le32(data) & ADDRESS_WRITABLE;
		pthread_mutex_unlock(&root->lock);
	} else if (port == PORT_RESET && len == 1 && (*(const uint8_t *)data & RESET_CPU) &&
		   root->callbacks.reset) {
		root->callbacks.reset(root->callbacks.opaque);
	}
}

static const struct bus_ops port_ops = { .read = ports_read, .write = ports_write };

static void hotplug_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct pci_root *root = opaque;
	uint32_t value = 0;

	memset(data, 0xff, len);
	if (len != 4 || offset % 4)
		return;
	pthread_mutex_lock(&root->lock);
	if (offset == 0) {
		value = root->up;
		root->up = 0;
	} else if (offset == 4) {
		value = root->down;
		root->down = 0;
	}
	pthread_mutex_unlock(&root->lock);
	store_le32(data, value);
}

static void hotplug_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	uint32_t slots;

	if (len != 4 || offset != 8)
		return;
	slots = load_le32(data);
	for (unsigned int i = 1; i < PCI_SLOTS; i++)
		if (slots & (1u << i))
			pci_root_eject(opaque, i);
}

static const struct bus_ops hotplug_ops = { .read = hotplug_read, .write = hotplug_write };

struct port_range {
	struct bus *bus;
	uint64_t start, size;
	const char *name;
	const struct bus_ops *ops;
};

#define PORT_RANGES 3

static void port_ranges(const struct pci_root *root, struct port_range ranges[PORT_RANGES])
{
	ranges[0] = (struct port_range){ root->host->mmio, root->layout.ecam_base, ECAM_SIZE,
					 "PCI ECAM", &ecam_ops };
	ranges[1] = (struct port_range){ root->host->mmio, root->layout.hotplug_base,
					 PCI_HOTPLUG_SIZE, "PCI hot-plug", &hotplug_ops };
	ranges[2] = (struct port_range){ root->host->pio, PORT_BASE, PORT_SIZE, "PCI config ports",
					 &port_ops };
}

int pci_root_ports_add(struct pci_root *root, struct error *err)
{
	struct port_range ranges[PORT_RANGES];

	port_ranges(root, ranges);
	for (unsigned int i = 0; i < PORT_RANGES; i++) {
		int r = bus_add(ranges[i].bus, ranges[i].start, ranges[i].size, ranges[i].name,
				ranges[i].ops, root, err);

		if (r)
			return r;
		root->ports_added++;
	}
	return 0;
}

void pci_root_ports_remove(struct pci_root *root)
{
	struct port_range ranges[PORT_RANGES];

	port_ranges(root, ranges);
	while (root->ports_added) {
		root->ports_added--;
		bus_remove(ranges[root->ports_added].bus, ranges[root->ports_added].start);
	}
}
