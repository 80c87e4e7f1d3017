/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that does what it likes to a small machine: config space by ECAM and by
 * ports, BARs, MSI-X tables, hot-plug registers, the legacy devices. The input is a
 * program of eight-byte steps: { what, where (16 bits), length, value (32 bits) }.
 *
 * Beside what the sanitizers find: interrupts are never misused (a route or an
 * eventfd attached twice, or given back twice), nothing is left of them at the end,
 * and a BAR is never decoded outside the windows.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/legacy/legacy.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_root.h"
#include "tests/unit/helpers/fake_host.h"

#define VECTORS 40
#define TABLE 0x0
#define PBA 0x1000
#define BAR_SIZE 0x2000
#define GED 0xe2000000
#define STEP 8
#define EJECTED_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct pci_root_layout layout = {
	.ecam_base = 0xe0000000,
	.mem32_base = 0xc0000000,
	.mem32_size = 0x10000,
	.mem64_base = 0x4000000000,
	.mem64_size = 0x10000,
	.io_base = 0xd000,
	.io_size = 0x200,
	.intx_gsi = { 16, 17, 18, 19 },
	.hotplug_base = 0xe1000000,
};

struct device {
	struct pci_function fn;
	struct msix *msix;
};

struct machine {
	struct fake_host h;
	struct pci_root *root;
	struct serial *serial;
	struct rtc *rtc;
	struct i8042 *i8042;
	struct pvpanic *pvpanic;
	struct debug_port *debug_port;
	struct acpi_ged *ged;
	struct pci_function *ejected[EJECTED_MAX];
	unsigned int ejected_count;
	uint64_t requests;
};

static void require(bool holds)
{
	if (!holds)
		abort();
}

static struct device *device_of(struct pci_function *fn)
{
	return container_of(fn, struct device, fn);
}

static void bar_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct device *d = opaque;

	if (offset < PBA)
		msix_table_read(d->msix, offset - TABLE, data, len);
	else
		msix_pba_read(d->msix, offset - PBA, data, len);
}

static void bar_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct device *d = opaque;

	if (offset < PBA)
		msix_table_write(d->msix, offset - TABLE, data, len);
	else
		msix_signal(d->msix, *(const uint8_t *)data);
}

static void line_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	memset(data, 0, len);
}

static void line_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	irq_line_set(&((struct device *)opaque)->fn.intx, *(const uint8_t *)data & 1);
}

static const struct bus_ops bar_ops = { .read = bar_read, .write = bar_write };
static const struct bus_ops line_ops = { .read = line_read, .write = line_write };

static void config_written(struct pci_function *fn, unsigned int offset, unsigned int len)
{
	msix_config_written(device_of(fn)->msix, offset, len);
}

static bool inside(uint64_t base, uint64_t window, uint64_t address, uint64_t size)
{
	return address >= base && address + size <= base + window;
}

static void bar_mapped(struct pci_function *fn, unsigned int index)
{
	const struct pci_bar *bar = &fn->bars[index];

	require(bar->kind == PCI_BAR_IO
			? inside(layout.io_base, layout.io_size, bar->address, bar->size)
			: inside(layout.mem32_base, layout.mem32_size, bar->address, bar->size) ||
				  inside(layout.mem64_base, layout.mem64_size, bar->address,
					 bar->size));
}

static void fn_reset(struct pci_function *fn)
{
	msix_reset(device_of(fn)->msix);
}

static void fn_free(struct pci_function *fn)
{
	struct device *d = device_of(fn);

	for (unsigned int i = 0; i <= PCI_ROM_BAR; i++)
		require(!fn->bars[i].mapped);
	msix_free(d->msix);
	pci_function_destroy(fn);
	free(d);
}

static const struct pci_function_ops fn_ops = {
	.config_written = config_written,
	.bar_mapped = bar_mapped,
	.reset = fn_reset,
	.free = fn_free,
};

static void add_device(struct machine *m, int slot, bool hotplug)
{
	static const struct pci_ids ids = { .vendor = 0x1af4, .device = 0x1041, .intx = true };
	struct device *d = calloc(1, sizeof(*d));

	require(d);
	pci_function_init(&d->fn, &fn_ops, &m->h.host, "fuzz", &ids);
	pci_function_set_bar(&d->fn, 0, PCI_BAR_MEM64, false, BAR_SIZE, &bar_ops, d);
	pci_function_set_bar(&d->fn, 2, PCI_BAR_IO, false, 0x20, &line_ops, d);
	pci_function_set_bar(&d->fn, 3, PCI_BAR_MEM32, true, 0x1000, &line_ops, d);
	pci_function_set_bar(&d->fn, PCI_ROM_BAR, PCI_BAR_MEM32, false, 0x800, &line_ops, d);
	d->msix = msix_new(&d->fn, VECTORS, 0, TABLE, 0, PBA, NULL);
	require(d->msix);
	if (pci_root_add(m->root, &d->fn, slot, hotplug, NULL))
		fn_free(&d->fn);
}

static void on_request(void *opaque)
{
	((struct machine *)opaque)->requests++;
}

static void on_event(void *opaque, unsigned int event)
{
	on_request(opaque);
}

static void on_byte(void *opaque, uint8_t value)
{
	on_request(opaque);
}

static void on_ejected(void *opaque, struct pci_function *fn)
{
	struct machine *m = opaque;

	if (m->ejected_count < EJECTED_MAX)
		m->ejected[m->ejected_count++] = fn;
	else
		fn->ops->free(fn);
}

static void free_ejected(struct machine *m)
{
	while (m->ejected_count)
		fn_free(m->ejected[--m->ejected_count]);
}

static void machine_start(struct machine *m, int out_fd)
{
	const struct machine_requests requests = {
		.reset = on_request,
		.shutdown = on_request,
		.panicked = on_event,
		.debug = on_byte,
		.opaque = m,
	};
	const struct pci_root_callbacks callbacks = {
		.hotplug_notify = on_request,
		.ejected = on_ejected,
		.reset = on_request,
		.opaque = m,
	};
	struct irq_line line = { .gsi = 4 };

	require(!fake_host_init(&m->h));
	line.interrupts = &m->h.host.interrupts;
	m->root = pci_root_new(&m->h.host, &layout, &callbacks, NULL);
	m->serial = serial_new(&m->h.host, 0x3f8, line, -1, out_fd, NULL);
	m->rtc = rtc_new(&m->h.host, 64 * MIB, 0, NULL);
	m->i8042 = i8042_new(&m->h.host, &requests, NULL);
	m->pvpanic = pvpanic_new(&m->h.host, &requests, NULL);
	m->debug_port = debug_port_new(&m->h.host, &requests, 0xe9, out_fd, NULL);
	line.gsi = 9;
	m->ged = acpi_ged_new(&m->h.host, GED, line, &requests, NULL);
	require(m->root && m->serial && m->rtc && m->i8042 && m->pvpanic && m->debug_port &&
		m->ged);
	add_device(m, 1, false);
	add_device(m, 2, false);
}

static void machine_end(struct machine *m)
{
	free_ejected(m);
	pci_root_free(m->root);
	acpi_ged_free(m->ged);
	debug_port_free(m->debug_port);
	pvpanic_free(m->pvpanic);
	i8042_free(m->i8042);
	rtc_free(m->rtc);
	serial_free(m->serial);
	require(!m->h.fake.misuses && !m->h.fake.routes && !m->h.fake.irqfd_count);
	fake_host_destroy(&m->h);
}

/* Ports that answer, so that few steps are lost on those that don't. */
static uint16_t port(uint16_t where)
{
	static const uint16_t ports[] = { 0xcf8, 0xcf8, 0xcfc, 0x3f8, 0x70,   0x60,
					  0x64,	 0x505, 0x80,  0xe9,  0xd000, 0xd020 };

	return where & 0x8000 ? where
			      : (uint16_t)(ports[where % ARRAY_SIZE(ports)] + (where >> 8 & 7));
}

static void access_bus(struct bus *bus, uint64_t addr, bool write, unsigned int len, uint32_t value)
{
	uint8_t data[8];

	store_le64(data, value | (uint64_t)value << 32);
	if (write)
		bus_write(bus, addr, data, len);
	else
		bus_read(bus, addr, data, len);
}

/* What only the host does. */
static void control_plane(struct machine *m, uint16_t where, uint32_t value)
{
	struct pci_function *fn = pci_root_find(m->root, "fuzz");

	switch (where % 6) {
	case 0: add_device(m, (int)(value % 40) - 4, value & 0x100); break;
	case 1:
		if (fn)
			pci_root_request_removal(m->root, fn, NULL);
		break;
	case 2:
		pci_root_reset(m->root);
		serial_reset(m->serial);
		break;
	case 3:
		if (fn) {
			pci_root_remove(m->root, fn);
			fn_free(fn);
		}
		break;
	case 4: acpi_ged_raise(m->ged, value); break;
	default:
		if (fn)
			msix_signal(device_of(fn)->msix, value);
		fake_interrupts_deliver(&m->h.fake);
		break;
	}
}

static void step(struct machine *m, const uint8_t *p)
{
	static const uint8_t lengths[] = { 1, 2, 4, 8 };
	uint16_t where = load_le16(p + 1);
	unsigned int len = lengths[p[3] % 4];
	uint32_t value = load_le32(p + 4);
	bool write = p[0] & 1;
	uint64_t addr;

	switch (p[0] >> 1 & 7) {
	case 0: /* the first 512 bytes of the first four slots */
		addr = layout.ecam_base + ((where & 0x600) << 6) + (where & 0x1ff);
		access_bus(m->h.host.mmio, addr, write, len, value);
		break;
	case 1: /* anywhere in ECAM and past it */
		access_bus(m->h.host.mmio, layout.ecam_base + where * 17ULL, write, len, value);
		break;
	case 2: access_bus(m->h.host.mmio, layout.mem64_base + where, write, len, value); break;
	case 3: access_bus(m->h.host.mmio, layout.mem32_base + where, write, len, value); break;
	case 4:
		addr = where & 0x8000 ? GED + where % 0x10 : layout.hotplug_base + where % 0x10;
		access_bus(m->h.host.mmio, addr, write, len, value);
		break;
	case 5: access_bus(m->h.host.pio, port(where), write, len > 4 ? 4 : len, value); break;
	case 6: control_plane(m, where, value); break;
	default: free_ejected(m); break;
	}
	require(!m->h.fake.misuses);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine *m = calloc(1, sizeof(*m));
	int out_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	require(m && out_fd >= 0);
	machine_start(m, out_fd);
	for (; size >= STEP; data += STEP, size -= STEP)
		step(m, data);
	machine_end(m);
	close(out_fd);
	free(m);
	return 0;
}
