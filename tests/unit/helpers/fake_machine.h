/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine of one virtio device on a PCI root, and a driver that brings it up through
 * its registers: what saving and loading a device needs around it.
 */
#ifndef TESTS_UNIT_HELPERS_FAKE_MACHINE_H
#define TESTS_UNIT_HELPERS_FAKE_MACHINE_H

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>

#include "base/state_tree.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_root.h"
#include "devices/virtio/virtio_pci.h"
#include "tests/unit/helpers/fake_driver.h"
#include "tests/unit/helpers/fake_host.h"

#define FAKE_MACHINE_RAM (8 * MIB)
#define FAKE_MACHINE_RINGS 0x10000
#define FAKE_MACHINE_DATA (4 * MIB)
#define FAKE_MACHINE_SLOT 3
#define FAKE_MACHINE_ECAM 0xe0000000ULL
#define FAKE_MACHINE_HOTPLUG 0xe1000000ULL
#define FAKE_MACHINE_MSI 0xfee00000U

struct fake_machine {
	struct fake_host h;
	struct pci_root *root;
	struct pci_function *fn;
	struct virtio_device *dev;
	struct fake_driver drivers[VIRTIO_QUEUES_MAX];
};

static inline struct fake_machine *fake_machine_new(void)
{
	static const struct pci_root_layout layout = {
		.ecam_base = FAKE_MACHINE_ECAM,
		.mem32_base = 0xc0000000,
		.mem32_size = 0x10000000,
		.mem64_base = 0x4000000000,
		.mem64_size = 0x100000000,
		.io_base = 0xd000,
		.io_size = 0x1000,
		.intx_gsi = { 16, 17, 18, 19 },
		.hotplug_base = FAKE_MACHINE_HOTPLUG,
	};
	struct fake_machine *m = calloc(1, sizeof(*m));

	ck_assert_ptr_nonnull(m);
	ck_assert_int_eq(fake_host_init_ram(&m->h, FAKE_MACHINE_RAM), 0);
	m->root = pci_root_new(&m->h.host, &layout, NULL, NULL);
	ck_assert_ptr_nonnull(m->root);
	return m;
}

static inline void fake_machine_plug(struct fake_machine *m, struct virtio_device *dev)
{
	struct error err = ERROR_INIT;

	m->dev = dev;
	m->fn = virtio_pci_new(&m->h.host, dev, &err);
	ck_assert_msg(m->fn != NULL, "%s", err.message);
	ck_assert_msg(!pci_root_add(m->root, m->fn, FAKE_MACHINE_SLOT, false, &err), "%s",
		      err.message);
}

static inline void fake_machine_free(struct fake_machine *m)
{
	pci_root_free(m->root);
	ck_assert_uint_eq(m->h.fake.misuses, 0);
	ck_assert_uint_eq(m->h.fake.ioevent_count, 0);
	ck_assert_uint_eq(m->h.fake.irqfd_count, 0);
	ck_assert_uint_eq(m->h.fake.routes, 0);
	fake_host_destroy_ram(&m->h);
	free(m);
}

static inline void fake_machine_config_write(struct fake_machine *m, unsigned int offset,
					     uint32_t value, unsigned int len)
{
	uint8_t data[4];

	store_le32(data, value);
	ck_assert(bus_write(m->h.host.mmio, FAKE_MACHINE_ECAM + (FAKE_MACHINE_SLOT << 15) + offset,
			    data, len));
}

static inline void fake_machine_write(struct fake_machine *m, uint32_t offset, uint64_t value,
				      unsigned int len)
{
	uint8_t data[8];

	store_le64(data, value);
	ck_assert(bus_write(m->h.host.mmio, m->fn->bars[0].address + offset, data, len));
}

static inline uint64_t fake_machine_read(struct fake_machine *m, uint32_t offset, unsigned int len)
{
	uint8_t data[8] = { 0 };

	ck_assert(bus_read(m->h.host.mmio, m->fn->bars[0].address + offset, data, len));
	return load_le64(data);
}

static inline unsigned int fake_machine_msix_cap(const struct fake_machine *m)
{
	unsigned int cap = m->fn->config[PCI_CAPABILITY_LIST];

	while (cap && m->fn->config[cap] != PCI_CAP_ID_MSIX)
		cap = m->fn->config[cap + 1];
	ck_assert_uint_ne(cap, 0);
	return cap;
}

/* Vector v of the table: address, data 0x40 + v, masked or not. */
static inline void fake_machine_vector(struct fake_machine *m, unsigned int v, bool masked)
{
	fake_machine_write(m, 0x4000 + 16 * v, FAKE_MACHINE_MSI, 4);
	fake_machine_write(m, 0x4004 + 16 * v, 0, 4);
	fake_machine_write(m, 0x4008 + 16 * v, 0x40 + v, 4);
	fake_machine_write(m, 0x400c + 16 * v, masked, 4);
}

static inline void fake_machine_status(struct fake_machine *m, uint8_t added)
{
	uint64_t status = fake_machine_read(m, VIRTIO_PCI_COMMON_STATUS, 1);

	fake_machine_write(m, VIRTIO_PCI_COMMON_STATUS, status | added, 1);
}

static inline void fake_machine_queue(struct fake_machine *m, unsigned int i, bool msix)
{
	const struct fake_driver *driver = &m->drivers[i];

	fake_machine_write(m, VIRTIO_PCI_COMMON_Q_SELECT, i, 2);
	fake_machine_write(m, VIRTIO_PCI_COMMON_Q_SIZE, driver->size, 2);
	if (msix)
		fake_machine_write(m, VIRTIO_PCI_COMMON_Q_MSIX, i + 1, 2);
	fake_machine_write(m, VIRTIO_PCI_COMMON_Q_DESCLO, driver->desc, 8);
	fake_machine_write(m, VIRTIO_PCI_COMMON_Q_AVAILLO, driver->driver, 8);
	fake_machine_write(m, VIRTIO_PCI_COMMON_Q_USEDLO, driver->device, 8);
	fake_machine_write(m, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
}

/* Decoding, MSI-X if asked for (vector 0 for configuration, i + 1 for queue i), features,
 * all queues, DRIVER_OK. */
static inline void fake_machine_start(struct fake_machine *m, uint64_t features, bool msix)
{
	uint64_t gpa = FAKE_MACHINE_RINGS;

	features |= VIRTIO_FEATURE(VIRTIO_F_VERSION_1);
	fake_machine_config_write(m, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	for (unsigned int i = 0; msix && i <= m->dev->queue_count; i++)
		fake_machine_vector(m, i, false);
	if (msix)
		fake_machine_config_write(m, fake_machine_msix_cap(m) + PCI_MSIX_FLAGS,
					  PCI_MSIX_FLAGS_ENABLE, 2);
	fake_machine_status(m, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	for (unsigned int half = 0; half < 2; half++) {
		fake_machine_write(m, VIRTIO_PCI_COMMON_GFSELECT, half, 4);
		fake_machine_write(m, VIRTIO_PCI_COMMON_GF, (uint32_t)(features >> 32 * half), 4);
	}
	fake_machine_status(m, VIRTIO_CONFIG_S_FEATURES_OK);
	ck_assert(fake_machine_read(m, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_FEATURES_OK);
	if (msix)
		fake_machine_write(m, VIRTIO_PCI_COMMON_MSIX, 0, 2);
	for (unsigned int i = 0; i < m->dev->queue_count; i++) {
		struct fake_driver *driver = &m->drivers[i];

		gpa = fake_driver_init(driver, m->h.host.memory, gpa, m->dev->queues[i].size_max,
				       features & VIRTIO_FEATURE(VIRTIO_F_RING_PACKED));
		driver->event_idx = features & VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX);
		driver->indirect = features & VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC);
		fake_machine_queue(m, i, msix);
	}
	fake_machine_status(m, VIRTIO_CONFIG_S_DRIVER_OK);
	ck_assert(m->dev->active);
}

static inline void fake_machine_kick(struct fake_machine *m, unsigned int queue)
{
	fake_machine_write(m, 0x3000 + 4 * queue, queue, 2);
}

static inline uint8_t *fake_machine_ram(struct fake_machine *m, uint64_t gpa)
{
	return guest_memory_ptr(m->h.host.memory, gpa, 1);
}

/* The guest goes from one machine to the other: RAM, and what its driver knows. */
static inline void fake_machine_move_guest(const struct fake_machine *from, struct fake_machine *to)
{
	memcpy(guest_memory_region(to->h.host.memory, 0)->hva,
	       guest_memory_region(from->h.host.memory, 0)->hva, FAKE_MACHINE_RAM);
	memcpy(to->drivers, from->drivers, sizeof(to->drivers));
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		to->drivers[i].memory = to->h.host.memory;
		to->drivers[i].ram = guest_memory_region(to->h.host.memory, 0);
	}
}

/* The paused machine's guest, and its state, to another: what loading it returns. */
static inline int fake_machine_hand_over(struct fake_machine *from, struct fake_machine *to,
					 struct error *err)
{
	struct state_writer *writer = state_writer_new(NULL);
	struct state_node root, node;
	void *blob;
	size_t len;
	int r;

	ck_assert_int_eq(pci_root_save(from->root, writer, "devices", NULL), 0);
	ck_assert_int_eq(state_writer_finish(writer, &blob, &len, NULL), 0);
	state_writer_free(writer);
	fake_machine_move_guest(from, to);
	ck_assert_int_eq(state_tree_open(blob, len, &root, NULL), 0);
	ck_assert_int_eq(state_child(&root, "devices", &node, NULL), 0);
	r = pci_root_load(to->root, &node, err);
	free(blob);
	return r;
}

#endif
