/* SPDX-License-Identifier: Apache-2.0 */
/* Functions found through ECAM. */
#include "probe.h"

#define COMMAND 0x04
#define COMMAND_MEMORY 0x2
#define COMMAND_MASTER 0x4
#define HEADER_TYPE 0x0e
#define BAR0 0x10

static uint64_t config_of(unsigned int bus, unsigned int slot, unsigned int function)
{
	return platform.ecam + ((uint64_t)bus << 20 | slot << 15 | function << 12);
}

typedef bool (*visit_fn)(const struct pci_device *device, void *opaque);

static void walk(visit_fn visit, void *opaque)
{
	for (unsigned int bus = 0; bus < platform.ecam_buses && bus < 4; bus++) {
		for (unsigned int slot = 0; slot < 32; slot++) {
			for (unsigned int f = 0; f < 8; f++) {
				struct pci_device d = { config_of(bus, slot, f), (uint8_t)bus,
							(uint8_t)slot, (uint8_t)f };
				bool multi;

				if (!map_range(d.config, PAGE_SIZE) ||
				    (uint16_t)mmio_read(d.config, 2) == 0xffff) {
					if (!f)
						break;
					continue;
				}
				if (visit(&d, opaque))
					return;
				multi = mmio_read(d.config + HEADER_TYPE, 1) & 0x80;
				if (!f && !multi)
					break;
			}
		}
	}
}

/* A machine without firmware that gives BARs addresses (QEMU's microvm): they come
 * from where its window is, one after the other. */
static uint64_t assign(uint64_t at, bool is_64)
{
	static uint64_t next = 0xc0000000;
	uint32_t size;
	uint64_t address;

	mmio_write(at, 4, 0xffffffff);
	size = -((uint32_t)mmio_read(at, 4) & ~0xfU);
	if (!size || size > 2 * MIB)
		return 0;
	address = (next + size - 1) & ~(uint64_t)(size - 1);
	next = address + size;
	mmio_write(at, 4, address);
	if (is_64)
		mmio_write(at + 4, 4, 0);
	return address;
}

uint64_t pci_bar(const struct pci_device *device, unsigned int bar)
{
	uint64_t at = device->config + BAR0 + 4 * bar;
	uint32_t low = (uint32_t)mmio_read(at, 4);
	uint64_t address = low & ~0xfU;
	bool is_64 = (low & 6) == 4;

	if (low & 1)
		return 0;
	if (is_64)
		address |= mmio_read(at + 4, 4) << 32;
	if (!address)
		address = assign(at, is_64);
	/* The devices driven here have BARs of less than 2 MiB. */
	return address && map_range(address, 2 * MIB) ? address : 0;
}

struct wanted {
	uint16_t vendor, device, other;
	unsigned int nth;
	struct pci_device *found;
	bool done;
};

static bool matches(const struct pci_device *device, void *opaque)
{
	struct wanted *w = opaque;
	uint32_t id = (uint32_t)mmio_read(device->config, 4);

	if ((id & 0xffff) != w->vendor || (id >> 16 != w->device && id >> 16 != w->other))
		return false;
	if (w->nth--)
		return false;
	*w->found = *device;
	w->done = true;
	mmio_write(device->config + COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER);
	return true;
}

bool pci_find(uint16_t vendor, uint16_t device, uint16_t other, unsigned int nth,
	      struct pci_device *found)
{
	struct wanted w = { vendor, device, other, nth, found, false };

	walk(matches, &w);
	return w.done;
}

static bool show(const struct pci_device *device, void *opaque)
{
	uint32_t id = (uint32_t)mmio_read(device->config, 4);
	unsigned int *count = opaque;

	print("pci %x:%x.%x %x:%x class=%x bars=", device->bus, device->slot, device->function,
	      id & 0xffff, id >> 16, (uint32_t)mmio_read(device->config + 8, 4) >> 8);
	for (unsigned int i = 0; i < 6; i++)
		print("%s%x", i ? "," : "", (uint32_t)mmio_read(device->config + BAR0 + 4 * i, 4));
	print("\n");
	++*count;
	return false;
}

void command_pciscan(char *args)
{
	unsigned int count = 0;

	(void)args;
	walk(show, &count);
	print("pciscan ok functions=%u\n", count);
}
