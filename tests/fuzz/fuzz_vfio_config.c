/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that does what it likes to an assigned device that is what it likes: the input
 * begins with flags, a count and so many dwords of the device's config space ({ offset,
 * value }, 6 bytes), then come steps of eight bytes { what, where (16 bits), length, value
 * (32 bits) }.
 *
 * Beside what the sanitizers find: interrupts and memory slots are never misused, nothing
 * is left of them, the device's decoding stays on, and only one kind of interrupt is on.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/fake_vfio_transport.h"
#include "vfio/vfio_pci.h"

#define STEP 8
#define PATCH 6
#define SLOTS 6
#define BAR0 0xc0000000ULL

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct machine {
	struct fake_host h;
	struct fake_vfio_pci dev;
	struct fake_space space;
	struct pci_function *fn;
	bool slot[SLOTS];
	unsigned int slots;
};

static void require(bool holds)
{
	if (!holds)
		abort();
}

static int slot_add(void *opaque, uint64_t gpa, uint64_t size, void *hva, bool readonly,
		    struct error *err)
{
	struct machine *m = opaque;

	require(size && !(gpa % 4096) && !(size % 4096));
	/* All of it is there to be touched. */
	for (uint64_t at = 0; at < size; at += 4096)
		(void)((volatile uint8_t *)hva)[at];
	for (int i = 0; i < SLOTS; i++)
		if (!m->slot[i]) {
			m->slot[i] = true;
			m->slots++;
			return i;
		}
	return error_set(err, ENOSPC, "no slots");
}

static void slot_remove(void *opaque, int slot)
{
	struct machine *m = opaque;

	require(slot >= 0 && slot < SLOTS && m->slot[slot]);
	m->slot[slot] = false;
	m->slots--;
}

static void device_lost(void *opaque, const char *id, const char *reason)
{
}

static const struct vfio_host_ops host_ops = {
	.slot_add = slot_add,
	.slot_remove = slot_remove,
	.device_lost = device_lost,
};

/* Something of everything; the input changes it. */
static void make_device(struct fake_vfio_pci *d, uint8_t flags)
{
	bool noresize = flags & 1;

	fake_vfio_pci_init(d);
	fake_vfio_pci_add_bar(d, 0, 0, 0x8000, true);
	fake_vfio_pci_add_bar(d, 2, PCI_BASE_ADDRESS_MEM_TYPE_64, 0x1000, flags & 2);
	fake_vfio_pci_add_bar(d, 4, PCI_BASE_ADDRESS_SPACE_IO, 32, false);
	fake_vfio_pci_add_region(d, VFIO_PCI_ROM_REGION_INDEX, 4096, false);
	if (flags & 4)
		fake_vfio_pci_add_irq(d, VFIO_PCI_INTX_IRQ_INDEX, 1, noresize);
	fake_vfio_pci_add_irq(d, VFIO_PCI_MSI_IRQ_INDEX, 4, noresize);
	fake_vfio_pci_add_irq(d, VFIO_PCI_MSIX_IRQ_INDEX, 9, noresize);
	fake_vfio_pci_add_irq(d, VFIO_PCI_REQ_IRQ_INDEX, 1, noresize);
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_PM, 0x40);
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_MSI, 0x50);
	fake_vfio_pci_config16(d, 0x52, 2 << 1 | PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT);
	fake_vfio_pci_add_msix(d, 0x70, 9, 0, 0x1000, 0, 0x3000);
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_EXP, 0x80);
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_VNDR, 0xc0);
	fake_vfio_pci_config(d)[0xc2] = 16;
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_AF, 0xe0);
	fake_vfio_pci_add_ext_cap(d, PCI_EXT_CAP_ID_ERR, 0x100);
	fake_vfio_pci_add_ext_cap(d, PCI_EXT_CAP_ID_SRIOV, 0x200);
	d->transport.resettable = !(flags & 8);
	if (flags & 16)
		d->fail_op[FAKE_VFIO_PCI_UNMASK_FD] = -ENOTSUP;
	d->exports_dma_bufs = flags & 32;
}

static bool plug(struct machine *m, uint8_t flags)
{
	const struct vfio_host host = { .ops = &host_ops, .opaque = m };
	const struct vfio_pci_options options = {
		.id = "fuzz",
		.gpudirect_clique = -1,
		.exclude_msix_bar = flags & 64,
		.peer_space = flags & 128 ? &m->space.space : NULL,
	};
	struct error err = ERROR_INIT;

	fake_space_init(&m->space, flags & 32 ? "iommufd" : "type1");
	m->fn = vfio_pci_new(&m->h.host, &host, &m->dev.transport, &options, &err);
	require(m->fn || (err.code < 0 && err.message[0]));
	if (!m->fn)
		return false;
	m->fn->intx = (struct irq_line){ .interrupts = &m->h.host.interrupts, .gsi = 17 };
	pci_function_place_bar(m->fn, 0, BAR0);
	pci_function_place_bar(m->fn, 2, BAR0 + 0x10000);
	pci_function_place_bar(m->fn, 4, 0xd000);
	pci_function_place_bar(m->fn, PCI_ROM_BAR, BAR0 + 0x20000);
	return true;
}

static void stop(void *opaque)
{
	loop_stop(opaque);
}

static void run_loop(struct machine *m)
{
	loop_post(m->h.host.loop, stop, m->h.host.loop);
	loop_run(m->h.host.loop);
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

static void config(struct machine *m, unsigned int offset, bool write, unsigned int len,
		   uint32_t value)
{
	uint8_t data[8];

	store_le32(data, value);
	if (write)
		pci_function_config_write(m->fn, offset, data, MIN(len, 4u));
	else
		pci_function_config_read(m->fn, offset, data, MIN(len, 4u));
}

/* What happens without the guest. */
static void around(struct machine *m, uint16_t where, uint32_t value)
{
	switch (where % 5) {
	case 0:
		fake_vfio_pci_interrupt(&m->dev, value % VFIO_PCI_NUM_IRQS, value >> 8 & 0xff);
		break;
	case 1: m->dev.fail_at = m->dev.total + 1 + value % 4; break;
	case 2:
		pci_function_reset(m->fn);
		m->fn->ops->reset(m->fn);
		break;
	case 3: run_loop(m); break;
	default: fake_interrupts_deliver(&m->h.fake); break;
	}
}

static void check(struct machine *m)
{
	unsigned int on = 0;

	for (unsigned int i = 0; i <= VFIO_PCI_MSIX_IRQ_INDEX; i++)
		on += m->dev.irqs[i].enabled != 0;
	require(on <= 1 && !m->h.fake.misuses && !m->space.misuses);
	if (!m->dev.failed)
		require((fake_vfio_pci_config(&m->dev)[PCI_COMMAND] & 3) == 3);
}

static void step(struct machine *m, const uint8_t *p)
{
	static const uint8_t lengths[] = { 1, 2, 4, 8 };
	uint16_t where = load_le16(p + 1);
	unsigned int len = lengths[p[3] % 4];
	uint32_t value = load_le32(p + 4);
	bool write = p[0] & 1;

	switch (p[0] >> 1 & 7) {
	case 0: config(m, where & 0xff, write, len, value); break;
	case 1: config(m, where, write, len, value); break;
	case 2: access_bus(m->h.host.mmio, BAR0 + where, write, len, value); break;
	case 3: access_bus(m->h.host.mmio, BAR0 + 0x1000 + where % 0xa0, write, len, value); break;
	case 4: access_bus(m->h.host.mmio, BAR0 + 0x10000 + where, write, len, value); break;
	case 5: access_bus(m->h.host.pio, 0xd000 + where % 64, write, MIN(len, 4u), value); break;
	default: around(m, where, value); break;
	}
	check(m);
}

static void end(struct machine *m)
{
	if (m->fn) {
		/* So that what is told to stop does. */
		m->dev.fail_at = 0;
		pci_function_unmap(m->fn);
		m->fn->ops->free(m->fn);
		require(m->dev.closes == 1);
	} else {
		require(!m->dev.closes);
	}
	require(!m->slots && !m->h.fake.routes && !m->h.fake.irqfd_count && !m->h.fake.misuses &&
		!m->space.count && !m->space.misuses);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine *m = calloc(1, sizeof(*m));
	uint8_t flags = size ? data[0] : 0;
	unsigned int patches = size > 1 ? data[1] : 0;

	require(m && !fake_host_init(&m->h));
	make_device(&m->dev, flags);
	data += MIN(size, (size_t)2);
	size -= MIN(size, (size_t)2);
	for (; patches && size >= PATCH; patches--, data += PATCH, size -= PATCH)
		fake_vfio_pci_config32(&m->dev, load_le16(data) & 0xffc, load_le32(data + 2));
	if (plug(m, flags))
		for (; size >= STEP; data += STEP, size -= STEP)
			step(m, data);
	end(m);
	fake_vfio_pci_destroy(&m->dev);
	fake_host_destroy(&m->h);
	free(m);
	return 0;
}
