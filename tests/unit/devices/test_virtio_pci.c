/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "devices/pci/msix.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_simple.h"
#include "tests/unit/helpers/fake_driver.h"
#include "tests/unit/helpers/fake_host.h"

#define BAR 0x100000000ULL
#define NOTIFY 0x3000
#define DEVICE 0x2000
#define ISR 0x1000
#define MSIX_TABLE 0x4000
#define GSI 10
#define RINGS 0x10000
#define DATA 0x80000
#define QUEUES 3
#define ALL_OK \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | \
	 VIRTIO_CONFIG_S_DRIVER_OK)

/* A device that records what its transport does to it. */
struct probe {
	struct virtio_device dev;
	unsigned int activated, deactivated, paused, resumed, freed;
	int activate_error;
	uint8_t config[12];
	unsigned int config_writes;
};

static struct fake_host h;
static struct probe probe;
static struct pci_function *fn;

static void probe_config_read(struct virtio_device *dev, uint32_t offset, void *data,
			      unsigned int len)
{
	ck_assert_uint_le(offset + len, sizeof(probe.config));
	memcpy(data, probe.config + offset, len);
}

static void probe_config_write(struct virtio_device *dev, uint32_t offset, const void *data,
			       unsigned int len)
{
	ck_assert_uint_le(offset + len, sizeof(probe.config));
	memcpy(probe.config + offset, data, len);
	probe.config_writes++;
}

static int probe_activate(struct virtio_device *dev, struct error *err)
{
	probe.activated++;
	return probe.activate_error ? error_set(err, probe.activate_error, "probe fails") : 0;
}

static void probe_deactivate(struct virtio_device *dev)
{
	probe.deactivated++;
}

static void probe_pause(struct virtio_device *dev)
{
	probe.paused++;
}

static void probe_resume(struct virtio_device *dev)
{
	probe.resumed++;
}

static void probe_free(struct virtio_device *dev)
{
	probe.freed++;
}

static const struct virtio_device_ops probe_ops = {
	.config_read = probe_config_read,
	.config_write = probe_config_write,
	.activate = probe_activate,
	.deactivate = probe_deactivate,
	.pause = probe_pause,
	.resume = probe_resume,
	.free = probe_free,
};

static void plug(struct virtio_device *dev)
{
	struct error err = ERROR_INIT;
	uint8_t address[8], command[2] = { PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0 };

	fn = virtio_pci_new(&h.host, dev, &err);
	ck_assert_msg(fn != NULL, "%s", err.message);
	fn->intx = (struct irq_line){ .interrupts = &h.host.interrupts, .gsi = GSI };
	store_le64(address, BAR);
	pci_function_config_write(fn, PCI_BASE_ADDRESS_0, address, 4);
	pci_function_config_write(fn, PCI_BASE_ADDRESS_1, address + 4, 4);
	pci_function_config_write(fn, PCI_COMMAND, command, 2);
}

static void set_up(void)
{
	ck_assert_int_eq(fake_host_init_ram(&h, MIB), 0);
	memset(&probe, 0, sizeof(probe));
	probe.dev.ops = &probe_ops;
	probe.dev.host = &h.host;
	strcpy(probe.dev.id, "probe0");
	probe.dev.type = VIRTIO_BLK;
	probe.dev.device_features = 1 << 5;
	probe.dev.queue_count = QUEUES;
	probe.dev.queues[0].size_max = 64;
	probe.dev.config_size = sizeof(probe.config);
	memcpy(probe.config, "configspace", 12);
	plug(&probe.dev);
}

static void tear_down(void)
{
	pci_function_unmap(fn);
	fn->ops->free(fn);
	ck_assert_uint_eq(h.fake.ioevent_count, 0);
	ck_assert_uint_eq(h.fake.irqfd_count, 0);
	ck_assert_uint_eq(h.fake.routes, 0);
	ck_assert_uint_eq(h.fake.misuses, 0);
	fake_host_destroy_ram(&h);
}

static uint64_t get(uint32_t offset, unsigned int len)
{
	uint8_t data[8] = { 0 };

	ck_assert(bus_read(h.host.mmio, BAR + offset, data, len));
	return load_le(data, len);
}

static void set(uint32_t offset, uint64_t value, unsigned int len)
{
	uint8_t data[8];

	store_le64(data, value);
	ck_assert(bus_write(h.host.mmio, BAR + offset, data, len));
}

static uint8_t status(void)
{
	return (uint8_t)get(VIRTIO_PCI_COMMON_STATUS, 1);
}

static uint64_t offered(void)
{
	uint64_t features;

	set(VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
	features = get(VIRTIO_PCI_COMMON_DF, 4);
	set(VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
	return features | get(VIRTIO_PCI_COMMON_DF, 4) << 32;
}

static void accept_features(uint64_t features)
{
	for (uint32_t i = 0; i < 2; i++) {
		set(VIRTIO_PCI_COMMON_GFSELECT, i, 4);
		set(VIRTIO_PCI_COMMON_GF, (uint32_t)(features >> 32 * i), 4);
	}
}

static void negotiate(uint64_t features)
{
	set(VIRTIO_PCI_COMMON_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE, 1);
	set(VIRTIO_PCI_COMMON_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, 1);
	accept_features(features);
	set(VIRTIO_PCI_COMMON_STATUS, ALL_OK & ~VIRTIO_CONFIG_S_DRIVER_OK, 1);
}

static void set_area(uint32_t reg, uint64_t gpa)
{
	set(reg, (uint32_t)gpa, 4);
	set(reg + 4, gpa >> 32, 4);
}

static void enable_queue(uint16_t queue, uint16_t size, uint64_t desc, uint64_t driver,
			 uint64_t device)
{
	set(VIRTIO_PCI_COMMON_Q_SELECT, queue, 2);
	set(VIRTIO_PCI_COMMON_Q_SIZE, size, 2);
	set_area(VIRTIO_PCI_COMMON_Q_DESCLO, desc);
	set_area(VIRTIO_PCI_COMMON_Q_AVAILLO, driver);
	set_area(VIRTIO_PCI_COMMON_Q_USEDLO, device);
	set(VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
}

static void bring_up(void)
{
	negotiate(VIRTIO_FEATURE(VIRTIO_F_VERSION_1));
	enable_queue(0, 16, RINGS, RINGS + 0x1000, RINGS + 0x2000);
	enable_queue(1, 8, RINGS + 0x3000, RINGS + 0x4000, RINGS + 0x5000);
	set(VIRTIO_PCI_COMMON_STATUS, ALL_OK, 1);
}

/* Identity and configuration space */

static uint32_t config(unsigned int offset, unsigned int len)
{
	uint8_t data[4] = { 0 };

	pci_function_config_read(fn, offset, data, len);
	return load_le32(data);
}

static void set_config(unsigned int offset, uint32_t value, unsigned int len)
{
	uint8_t data[4];

	store_le32(data, value);
	pci_function_config_write(fn, offset, data, len);
}

/* The capability of a type: MSI-X, or virtio's with cfg_type. */
static unsigned int find_cap(uint8_t id, uint8_t type)
{
	unsigned int cap = config(PCI_CAPABILITY_LIST, 1);

	for (int i = 0; cap && i < 48; i++, cap = config(cap + 1, 1))
		if (config(cap, 1) == id && (id != PCI_CAP_ID_VNDR || config(cap + 3, 1) == type))
			return cap;
	return 0;
}

START_TEST(function_is_a_modern_virtio_device)
{
	ck_assert_uint_eq(config(PCI_VENDOR_ID, 2), 0x1af4);
	ck_assert_uint_eq(config(PCI_DEVICE_ID, 2), 0x1042);
	ck_assert_uint_eq(config(PCI_REVISION_ID, 1), 1);
	ck_assert_uint_eq(config(PCI_CLASS_DEVICE, 2), 0x0180);
	ck_assert_uint_eq(config(PCI_INTERRUPT_PIN, 1), 1);
	ck_assert_ptr_eq(virtio_pci_device(fn), &probe.dev);
	ck_assert_ptr_null(virtio_pci_device(NULL));
}
END_TEST

START_TEST(capabilities_say_where_the_structures_are)
{
	static const struct {
		uint8_t type;
		uint32_t offset, length;
	} caps[] = {
		{ VIRTIO_PCI_CAP_COMMON_CFG, 0, 56 },
		{ VIRTIO_PCI_CAP_ISR_CFG, ISR, 1 },
		{ VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE, 12 },
		{ VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY, QUEUES * 4 },
	};
	unsigned int cap;

	for (unsigned int i = 0; i < ARRAY_SIZE(caps); i++) {
		cap = find_cap(PCI_CAP_ID_VNDR, caps[i].type);
		ck_assert_uint_ne(cap, 0);
		ck_assert_uint_eq(config(cap + 4, 1), 0);
		ck_assert_uint_eq(config(cap + 8, 4), caps[i].offset);
		ck_assert_uint_eq(config(cap + 12, 4), caps[i].length);
		ck_assert_uint_eq(config(cap + 2, 1),
				  caps[i].type == VIRTIO_PCI_CAP_NOTIFY_CFG ? 20 : 16);
	}
	cap = find_cap(PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_NOTIFY_CFG);
	ck_assert_uint_eq(config(cap + 16, 4), 4);
	cap = find_cap(PCI_CAP_ID_MSIX, 0);
	ck_assert_uint_eq(config(cap + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE, QUEUES);
}
END_TEST

START_TEST(pci_cfg_capability_reaches_the_structures)
{
	unsigned int cap = find_cap(PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG);

	set_config(cap + 4, 0, 1);
	set_config(cap + 8, VIRTIO_PCI_COMMON_NUMQ, 4);
	set_config(cap + 12, 2, 4);
	ck_assert_uint_eq(config(cap + 16, 2), QUEUES);
	set_config(cap + 8, VIRTIO_PCI_COMMON_STATUS, 4);
	set_config(cap + 12, 1, 4);
	set_config(cap + 16, VIRTIO_CONFIG_S_ACKNOWLEDGE, 1);
	ck_assert_uint_eq(status(), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	/* Another BAR, an odd length, MSI-X's part, past the end: nothing. */
	set_config(cap + 16, 0, 4);
	set_config(cap + 4, 1, 1);
	set_config(cap + 16, 0, 1);
	set_config(cap + 4, 0, 1);
	set_config(cap + 12, 3, 4);
	set_config(cap + 16, 0xff, 1);
	set_config(cap + 12, 4, 4);
	set_config(cap + 8, MSIX_TABLE + 12, 4);
	set_config(cap + 16, 0, 4);
	set_config(cap + 8, 0xfffffffc, 4);
	set_config(cap + 16, 0, 4);
	ck_assert_uint_eq(get(MSIX_TABLE + 12, 4), 1); /* still masked */
	ck_assert_uint_eq(status(), 0); /* the first 4-byte write of 0, length 1, was a reset */
}
END_TEST

/* Features and status */

START_TEST(features_are_the_devices_and_the_rings)
{
	ck_assert_uint_eq(offered(), 1 << 5 | VIRTIO_FEATURE(VIRTIO_F_VERSION_1) |
					     VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) |
					     VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) |
					     VIRTIO_FEATURE(VIRTIO_F_RING_PACKED));
	set(VIRTIO_PCI_COMMON_DFSELECT, 2, 4);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_DF, 4), 0);
	probe.dev.withheld = VIRTIO_FEATURE(VIRTIO_F_RING_PACKED);
	ck_assert(!(offered() & VIRTIO_FEATURE(VIRTIO_F_RING_PACKED)));
}
END_TEST

START_TEST(accepted_features_reach_the_device)
{
	negotiate(offered());
	ck_assert(status() & VIRTIO_CONFIG_S_FEATURES_OK);
	ck_assert_uint_eq(probe.dev.features, offered());
	/* They are settled now. */
	accept_features(0);
	set(VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_GF, 4), offered() >> 32);
}
END_TEST

START_TEST(features_never_offered_or_without_version_1_are_refused)
{
	const uint64_t wrong[] = {
		0,
		1 << 5,
		VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | 1,
		VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(63),
		~0ULL,
		VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_F_ACCESS_PLATFORM),
	};

	negotiate(wrong[_i]);
	ck_assert_uint_eq(status(), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	/* Nor can the driver go on without. */
	set(VIRTIO_PCI_COMMON_STATUS, ALL_OK & ~VIRTIO_CONFIG_S_FEATURES_OK, 1);
	ck_assert_uint_eq(probe.activated, 0);
	ck_assert(!(status() & VIRTIO_CONFIG_S_DRIVER_OK));
}
END_TEST

START_TEST(driver_ok_starts_the_enabled_queues_and_activates_once)
{
	bring_up();
	ck_assert_uint_eq(status(), ALL_OK);
	ck_assert_uint_eq(probe.activated, 1);
	ck_assert(probe.dev.active);
	ck_assert(probe.dev.queues[0].ready);
	ck_assert_uint_eq(probe.dev.queues[0].size, 16);
	ck_assert_uint_eq(probe.dev.queues[1].desc, RINGS + 0x3000);
	ck_assert(!probe.dev.queues[2].ready);
	set(VIRTIO_PCI_COMMON_STATUS, ALL_OK, 1);
	ck_assert_uint_eq(probe.activated, 1);
	/* Bits do not go away but by a reset. */
	set(VIRTIO_PCI_COMMON_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE, 1);
	ck_assert_uint_eq(status(), ALL_OK);
}
END_TEST

START_TEST(queue_registers_hold_and_are_fixed_once_enabled)
{
	set(VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
	set(VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 256);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_NOFF, 2), 1);
	set(VIRTIO_PCI_COMMON_Q_DESCLO, 0x1122334455667788, 8);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_DESCHI, 4), 0x11223344);
	set(VIRTIO_PCI_COMMON_Q_DESCHI, 0xaabbccdd, 4);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0xaabbccdd55667788);
	set(VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	set(VIRTIO_PCI_COMMON_Q_DESCLO, 0, 8);
	set(VIRTIO_PCI_COMMON_Q_SIZE, 2, 2);
	set(VIRTIO_PCI_COMMON_Q_ENABLE, 0, 2);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0xaabbccdd55667788);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 256);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	/* No such queue: zeros. */
	set(VIRTIO_PCI_COMMON_Q_SELECT, QUEUES, 2);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	set(VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
}
END_TEST

START_TEST(queue_enabled_after_driver_ok_stays_off)
{
	bring_up();
	enable_queue(2, 8, RINGS + 0x6000, RINGS + 0x7000, RINGS + 0x8000);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	ck_assert(!probe.dev.queues[2].ready);
}
END_TEST

START_TEST(queue_that_cannot_start_needs_a_reset_and_activates_nothing)
{
	negotiate(VIRTIO_FEATURE(VIRTIO_F_VERSION_1));
	enable_queue(0, 16, RINGS, RINGS + 0x1000, RINGS + 0x2000);
	if (_i)
		enable_queue(1, 8, MIB, RINGS + 0x4000, RINGS + 0x5000);
	else
		enable_queue(1, 9, RINGS + 0x3000, RINGS + 0x4000, RINGS + 0x5000);
	set(VIRTIO_PCI_COMMON_STATUS, ALL_OK, 1);
	ck_assert_uint_eq(status(), ALL_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(probe.activated, 0);
	ck_assert(!probe.dev.queues[0].ready);
	ck_assert(get(ISR, 1) & 2);
	/* And works after it. */
	set(VIRTIO_PCI_COMMON_STATUS, 0, 1);
	ck_assert_uint_eq(probe.deactivated, 0);
	bring_up();
	ck_assert_uint_eq(status(), ALL_OK);
}
END_TEST

START_TEST(device_that_fails_to_activate_needs_a_reset)
{
	probe.activate_error = -EIO;
	bring_up();
	ck_assert_uint_eq(status(), ALL_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert(!probe.dev.active);
	set(VIRTIO_PCI_COMMON_STATUS, 0, 1);
	ck_assert_uint_eq(probe.deactivated, 0);
}
END_TEST

START_TEST(reset_brings_everything_back)
{
	set(VIRTIO_PCI_COMMON_MSIX, 1, 2);
	set(VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	set(VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	bring_up();
	virtio_device_signal(&probe.dev, 0);
	ck_assert(h.fake.level[GSI]);
	if (_i)
		fn->ops->reset(fn);
	else
		set(VIRTIO_PCI_COMMON_STATUS, 0, 1);
	ck_assert_uint_eq(status(), 0);
	ck_assert_uint_eq(probe.deactivated, 1);
	ck_assert(!probe.dev.active);
	ck_assert_uint_eq(probe.dev.features, 0);
	ck_assert(!probe.dev.queues[0].ready);
	ck_assert(!h.fake.level[GSI]);
	ck_assert_uint_eq(get(ISR, 1), 0);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_MSIX, 2), MSIX_NO_VECTOR);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_SELECT, 2), 0);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_MSIX, 2), MSIX_NO_VECTOR);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
	bring_up();
	ck_assert_uint_eq(probe.activated, 2);
}
END_TEST

START_TEST(pause_and_resume_reach_only_an_active_device)
{
	virtio_pci_pause(fn);
	virtio_pci_resume(fn);
	ck_assert_uint_eq(probe.paused + probe.resumed, 0);
	bring_up();
	virtio_pci_pause(fn);
	virtio_pci_pause(fn);
	ck_assert_uint_eq(probe.paused, 1);
	virtio_pci_resume(fn);
	virtio_pci_resume(fn);
	ck_assert_uint_eq(probe.resumed, 1);
	virtio_pci_pause(fn);
	fn->ops->reset(fn);
	ck_assert_uint_eq(probe.deactivated, 1);
	virtio_pci_resume(fn);
	ck_assert_uint_eq(probe.resumed, 1);
}
END_TEST

/* Device configuration */

START_TEST(device_config_is_read_and_written_within_its_size)
{
	ck_assert_uint_eq(get(DEVICE, 4), 0x666e6f63); /* "conf" */
	ck_assert_uint_eq(get(DEVICE + 10, 4), 'e');
	ck_assert_uint_eq(get(DEVICE + 12, 4), 0);
	ck_assert_uint_eq(get(DEVICE + 0xffc, 8), 0);
	set(DEVICE + 4, 0x31323334, 4);
	ck_assert_uint_eq(probe.config_writes, 1);
	ck_assert_uint_eq(get(DEVICE + 4, 4), 0x31323334);
	set(DEVICE + 10, 0, 4);
	set(DEVICE + 0x100, 0, 4);
	ck_assert_uint_eq(probe.config_writes, 1);
}
END_TEST

START_TEST(config_change_bumps_the_generation_and_interrupts)
{
	uint64_t before = get(VIRTIO_PCI_COMMON_CFGGENERATION, 1);

	virtio_device_config_changed(&probe.dev);
	ck_assert(!h.fake.level[GSI]); /* no driver yet */
	bring_up();
	virtio_device_config_changed(&probe.dev);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_CFGGENERATION, 1), before + 2);
	ck_assert(h.fake.level[GSI]);
	ck_assert_uint_eq(get(ISR, 1), 2);
}
END_TEST

START_TEST(device_that_needs_a_reset_says_so)
{
	bring_up();
	virtio_device_needs_reset(&probe.dev, "the driver is mad");
	ck_assert_uint_eq(status(), ALL_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(get(ISR, 1), 2);
	/* The driver cannot take it back but by a reset. */
	set(VIRTIO_PCI_COMMON_STATUS, ALL_OK, 1);
	ck_assert(status() & VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

/* Kicks */

START_TEST(kick_that_exits_signals_the_queue)
{
	set(NOTIFY + 4, 1, 2);
	ck_assert(eventfd_drain(probe.dev.kick_fd[1]));
	ck_assert(!eventfd_drain(probe.dev.kick_fd[0]));
	set(NOTIFY + 5, 1, 2); /* between two queues */
	set(NOTIFY + 4 * QUEUES, 0, 4);
	set(NOTIFY + 0xffc, 0, 4);
	for (int i = 0; i < QUEUES; i++)
		ck_assert(!eventfd_drain(probe.dev.kick_fd[i]));
}
END_TEST

START_TEST(active_queues_are_kicked_by_ioeventfd_while_the_bar_is_mapped)
{
	ck_assert_uint_eq(h.fake.ioevent_count, 0);
	bring_up();
	ck_assert_uint_eq(h.fake.ioevent_count, 2); /* as many as are enabled */
	ck_assert_uint_eq(fake_ioevents_write(&h.fake, false, BAR + NOTIFY + 4, 1, 2), 1);
	ck_assert(eventfd_drain(probe.dev.kick_fd[1]));
	/* Decoding off, the BAR moved, decoding on. */
	set_config(PCI_COMMAND, 0, 2);
	ck_assert_uint_eq(h.fake.ioevent_count, 0);
	set_config(PCI_BASE_ADDRESS_0, 0x10000000, 4);
	set_config(PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	ck_assert_uint_eq(h.fake.ioevent_count, 2);
	ck_assert_uint_eq(fake_ioevents_write(&h.fake, false, BAR + NOTIFY, 0, 2), 0);
	ck_assert_uint_eq(fake_ioevents_write(&h.fake, false, BAR + 0x10000000 + NOTIFY, 0, 4), 1);
	ck_assert(eventfd_drain(probe.dev.kick_fd[0]));
	fn->ops->reset(fn);
	ck_assert_uint_eq(h.fake.ioevent_count, 0);
}
END_TEST

START_TEST(host_without_ioeventfds_still_kicks)
{
	h.fake.ioevent_error = ENOSPC;
	bring_up();
	ck_assert_uint_eq(status(), ALL_OK);
	set(NOTIFY, 0, 2);
	ck_assert(eventfd_drain(probe.dev.kick_fd[0]));
}
END_TEST

/* Interrupts */

START_TEST(intx_is_raised_and_lowered_by_reading_the_isr)
{
	bring_up();
	virtio_device_signal(&probe.dev, 0);
	virtio_device_signal(&probe.dev, 1);
	ck_assert(h.fake.level[GSI]);
	ck_assert_uint_eq(virtio_device_call_fd(&probe.dev, 0), -1);
	ck_assert_uint_eq(get(ISR, 1), 1);
	ck_assert(!h.fake.level[GSI]);
	ck_assert_uint_eq(get(ISR, 1), 0);
	set_config(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE, 2);
	virtio_device_signal(&probe.dev, 0);
	ck_assert(!h.fake.level[GSI]);
	set_config(PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	ck_assert(h.fake.level[GSI]);
}
END_TEST

static void enable_msix(void)
{
	unsigned int cap = find_cap(PCI_CAP_ID_MSIX, 0);

	for (uint32_t i = 0; i <= QUEUES; i++) {
		set(MSIX_TABLE + 16 * i, 0xfee00000, 4);
		set(MSIX_TABLE + 16 * i + 4, 0, 4);
		set(MSIX_TABLE + 16 * i + 8, 0x40 + i, 4);
		set(MSIX_TABLE + 16 * i + 12, 0, 4);
	}
	set_config(cap + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 2);
}

static unsigned int delivered(void)
{
	unsigned int n = fake_interrupts_deliver(&h.fake) + h.fake.msi_sent;

	h.fake.msi_sent = 0;
	return n;
}

START_TEST(msix_vectors_interrupt_for_queues_and_configuration)
{
	enable_msix();
	set(VIRTIO_PCI_COMMON_MSIX, 3, 2);
	set(VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
	set(VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_MSIX, 2), 2);
	bring_up();
	virtio_device_signal(&probe.dev, 1);
	ck_assert_uint_eq(delivered(), 1);
	ck_assert_uint_eq(h.fake.last_delivered.data, 0x42);
	virtio_device_config_changed(&probe.dev);
	ck_assert_uint_eq(delivered(), 1);
	ck_assert_uint_eq(h.fake.last_delivered.data, 0x43);
	/* A queue without a vector, and one that does not exist. */
	virtio_device_signal(&probe.dev, 0);
	virtio_device_signal(&probe.dev, 60);
	ck_assert_uint_eq(delivered(), 0);
	ck_assert(!h.fake.level[GSI]);
	ck_assert_uint_eq(get(ISR, 1), 0);
	/* vhost's way. */
	ck_assert_int_eq(virtio_device_call_fd(&probe.dev, 0), -1);
	ck_assert_int_eq(virtio_device_call_fd(&probe.dev, 60), -1);
	ck_assert_int_ge(virtio_device_call_fd(&probe.dev, 1), 0);
	eventfd_signal(virtio_device_call_fd(&probe.dev, 1));
	ck_assert_uint_eq(delivered(), 1);
}
END_TEST

START_TEST(vector_out_of_range_reads_back_as_none)
{
	set(VIRTIO_PCI_COMMON_MSIX, QUEUES + 1, 2);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_MSIX, 2), MSIX_NO_VECTOR);
	set(VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	set(VIRTIO_PCI_COMMON_Q_MSIX, 0x8000, 2);
	ck_assert_uint_eq(get(VIRTIO_PCI_COMMON_Q_MSIX, 2), MSIX_NO_VECTOR);
}
END_TEST

/* Hostile */

START_TEST(garbage_at_every_register_does_no_harm)
{
	static const unsigned int lens[] = { 1, 2, 4, 8 };
	uint64_t random = 88172645463325252ULL;
	uint8_t data[8];

	/* Not ck_assert in the loop: it writes to the runner each time. */
	for (uint64_t i = 0; i < 200000; i++) {
		unsigned int len;
		uint64_t offset;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		len = lens[random >> 62];
		offset = random >> 20 & 0x7fff;
		if (random & 1)
			offset &= 0x3f;
		store_le64(data, random & 2 ? random >> 40 & 0xff : random);
		if (offset + len > 0x8000)
			continue;
		if (random & 4)
			bus_write(h.host.mmio, BAR + offset, data, len);
		else
			bus_read(h.host.mmio, BAR + offset, data, len);
	}
	set(VIRTIO_PCI_COMMON_STATUS, 0, 1);
	bring_up();
	ck_assert_uint_eq(status(), ALL_OK);
	ck_assert_uint_eq(probe.activated - probe.deactivated, 1);
}
END_TEST

/* The whole way, with a real device */

static void unplug(void)
{
	pci_function_unmap(fn);
	fn->ops->free(fn);
}

static bool signalled_within_5s(unsigned int *count)
{
	struct timespec ms = { .tv_nsec = 1000000 };

	for (int i = 0; i < 5000; i++) {
		*count += delivered();
		if (*count)
			return true;
		nanosleep(&ms, NULL);
	}
	return false;
}

START_TEST(entropy_arrives_by_registers_rings_and_msix_alone)
{
	uint64_t features = VIRTIO_FEATURE(VIRTIO_F_VERSION_1) |
			    VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) |
			    VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) |
			    (_i ? VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) : 0);
	struct error err = ERROR_INIT;
	struct fake_driver driver;
	unsigned int interrupts = 0;
	uint16_t id;
	uint32_t len;

	unplug();
	plug(virtio_rng_new(&h.host, "rng0", NULL, &err));
	enable_msix();
	for (int round = 0; round < 20; round++) {
		fake_driver_init(&driver, h.host.memory, RINGS, 16, _i);
		set(VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
		set(VIRTIO_PCI_COMMON_Q_MSIX, 1, 2);
		negotiate(features);
		enable_queue(0, 16, driver.desc, driver.driver, driver.device);
		fake_driver_set_used_event(&driver, driver.used);
		set(VIRTIO_PCI_COMMON_STATUS, ALL_OK, 1);
		ck_assert_uint_eq(status(), ALL_OK);
		fake_driver_add(&driver, &(struct fake_buffer){ DATA, 32, true }, 1);
		ck_assert_uint_eq(fake_ioevents_write(&h.fake, false, BAR + NOTIFY, 0, 2), 1);
		interrupts = 0;
		ck_assert(signalled_within_5s(&interrupts));
		ck_assert(fake_driver_used(&driver, &id, &len));
		ck_assert_uint_eq(len, 32);
		/* A reset with a request on its way: no answer comes after it. */
		fake_driver_add(&driver, &(struct fake_buffer){ DATA, 32, true }, 1);
		fake_ioevents_write(&h.fake, false, BAR + NOTIFY, 0, 2);
		set(VIRTIO_PCI_COMMON_STATUS, 0, 1);
		delivered();
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("virtio_pci");
	TCase *tc = tcase_create("virtio_pci");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, function_is_a_modern_virtio_device);
	tcase_add_test(tc, capabilities_say_where_the_structures_are);
	tcase_add_test(tc, pci_cfg_capability_reaches_the_structures);
	tcase_add_test(tc, features_are_the_devices_and_the_rings);
	tcase_add_test(tc, accepted_features_reach_the_device);
	tcase_add_loop_test(tc, features_never_offered_or_without_version_1_are_refused, 0, 6);
	tcase_add_test(tc, driver_ok_starts_the_enabled_queues_and_activates_once);
	tcase_add_test(tc, queue_registers_hold_and_are_fixed_once_enabled);
	tcase_add_test(tc, queue_enabled_after_driver_ok_stays_off);
	tcase_add_loop_test(tc, queue_that_cannot_start_needs_a_reset_and_activates_nothing, 0, 2);
	tcase_add_test(tc, device_that_fails_to_activate_needs_a_reset);
	tcase_add_loop_test(tc, reset_brings_everything_back, 0, 2);
	tcase_add_test(tc, pause_and_resume_reach_only_an_active_device);
	tcase_add_test(tc, device_config_is_read_and_written_within_its_size);
	tcase_add_test(tc, config_change_bumps_the_generation_and_interrupts);
	tcase_add_test(tc, device_that_needs_a_reset_says_so);
	tcase_add_test(tc, kick_that_exits_signals_the_queue);
	tcase_add_test(tc, active_queues_are_kicked_by_ioeventfd_while_the_bar_is_mapped);
	tcase_add_test(tc, host_without_ioeventfds_still_kicks);
	tcase_add_test(tc, intx_is_raised_and_lowered_by_reading_the_isr);
	tcase_add_test(tc, msix_vectors_interrupt_for_queues_and_configuration);
	tcase_add_test(tc, vector_out_of_range_reads_back_as_none);
	tcase_add_test(tc, garbage_at_every_register_does_no_harm);
	tcase_add_loop_test(tc, entropy_arrives_by_registers_rings_and_msix_alone, 0, 2);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
