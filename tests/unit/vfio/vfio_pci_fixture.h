/* SPDX-License-Identifier: Apache-2.0 */
/* A fake device on a fake host, for the tests of vfio/vfio_pci*.c. */
#ifndef TESTS_VFIO_PCI_FIXTURE_H
#define TESTS_VFIO_PCI_FIXTURE_H

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/fake_vfio_transport.h"
#include "vfio/vfio_pci.h"

#define FIXTURE_SLOTS 128

struct fixture_slot {
	bool used, readonly;
	uint64_t gpa, size;
	void *hva;
};

struct fixture {
	struct fake_host h;
	struct fake_vfio_pci dev;
	struct vfio_host vfio_host;
	struct vfio_pci_options options;
	struct pci_function *fn;
	struct error err;

	struct fixture_slot slots[FIXTURE_SLOTS];
	int slot_limit;
	unsigned int slot_count, slot_misuses;

	unsigned int lost;
	char lost_id[64], lost_reason[128];
	unsigned int fds, mappings; /* before the function was made */
};

static struct fixture f;

static inline int fixture_slot_add(void *opaque, uint64_t gpa, uint64_t size, void *hva,
				   bool readonly, struct error *err)
{
	if (gpa % 4096 || size % 4096 || !size)
		f.slot_misuses++;
	for (int i = 0; i < f.slot_limit; i++) {
		if (f.slots[i].used)
			continue;
		f.slots[i] = (struct fixture_slot){ true, readonly, gpa, size, hva };
		f.slot_count++;
		return i;
	}
	return error_set(err, ENOSPC, "out of memory slots");
}

static inline void fixture_slot_remove(void *opaque, int slot)
{
	if (slot < 0 || slot >= FIXTURE_SLOTS || !f.slots[slot].used) {
		f.slot_misuses++;
		return;
	}
	f.slots[slot].used = false;
	f.slot_count--;
}

static inline void fixture_device_lost(void *opaque, const char *id, const char *reason)
{
	f.lost++;
	snprintf(f.lost_id, sizeof(f.lost_id), "%s", id);
	snprintf(f.lost_reason, sizeof(f.lost_reason), "%s", reason);
}

static const struct vfio_host_ops fixture_host_ops = {
	.slot_add = fixture_slot_add,
	.slot_remove = fixture_slot_remove,
	.device_lost = fixture_device_lost,
};

static inline unsigned int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* A device to add to; plug() makes the function. */
static inline void fixture_setup(void)
{
	memset(&f, 0, sizeof(f));
	ck_assert_int_eq(fake_host_init(&f.h), 0);
	fake_vfio_pci_init(&f.dev);
	f.vfio_host = (struct vfio_host){ .ops = &fixture_host_ops };
	f.options = (struct vfio_pci_options){ .id = "vf0", .gpudirect_clique = -1 };
	f.slot_limit = FIXTURE_SLOTS;
}

static inline bool try_plug(void)
{
	f.fds = open_fds();
	f.mappings = fake_vfio_pci_mappings();
	error_clear(&f.err);
	f.fn = vfio_pci_new(&f.h.host, &f.vfio_host, &f.dev.transport, &f.options, &f.err);
	return f.fn;
}

static inline void plug(void)
{
	ck_assert_msg(try_plug(), "%s", f.err.message);
	/* As pci_root_add does. */
	f.fn->devfn = 3 << 3;
	f.fn->intx = (struct irq_line){ .interrupts = &f.h.host.interrupts, .gsi = 17 };
}

static inline void refused(const char *part)
{
	ck_assert(!try_plug());
	ck_assert_ptr_nonnull(strstr(f.err.message, part));
	ck_assert_ptr_nonnull(strstr(f.err.message, "0000:01:10.0"));
	ck_assert_int_lt(f.err.code, 0);
	ck_assert_uint_eq(f.dev.closes, 0);
}

static inline void nothing_is_left(void)
{
	ck_assert_uint_eq(f.slot_count, 0);
	ck_assert_uint_eq(f.slot_misuses, 0);
	ck_assert_uint_eq(f.h.fake.routes, 0);
	ck_assert_uint_eq(f.h.fake.irqfd_count, 0);
	ck_assert_uint_eq(f.h.fake.misuses, 0);
	ck_assert_uint_eq(open_fds(), f.fds);
	ck_assert_uint_eq(fake_vfio_pci_mappings(), f.mappings);
	for (unsigned int i = 0; i < VFIO_PCI_NUM_IRQS; i++)
		ck_assert_uint_eq(f.dev.irqs[i].enabled, 0);
}

static inline void unplug(void)
{
	pci_function_unmap(f.fn);
	f.fn->ops->free(f.fn);
	f.fn = NULL;
	ck_assert_uint_eq(f.dev.closes, 1);
	nothing_is_left();
}

static inline void fixture_teardown(void)
{
	if (f.fn)
		unplug();
	fake_vfio_pci_destroy(&f.dev);
	fake_host_destroy(&f.h);
}

static inline void stop_loop(void *opaque)
{
	loop_stop(opaque);
}

/* What is due in the main loop. */
static inline void run_loop(void)
{
	for (unsigned int i = 0; i < 3; i++) {
		loop_post(f.h.host.loop, stop_loop, f.h.host.loop);
		loop_run(f.h.host.loop);
	}
}

static inline uint32_t guest_read(unsigned int offset, unsigned int len)
{
	uint8_t data[4] = { 0 };

	pci_function_config_read(f.fn, offset, data, len);
	return load_le32(data);
}

static inline void guest_write(unsigned int offset, unsigned int len, uint32_t value)
{
	uint8_t data[4];

	store_le32(data, value);
	pci_function_config_write(f.fn, offset, data, len);
}

static inline uint64_t mmio_read(uint64_t addr, unsigned int len)
{
	uint8_t data[8] = { 0 };

	bus_read(f.h.host.mmio, addr, data, len);
	return load_le64(data);
}

static inline void mmio_write(uint64_t addr, unsigned int len, uint64_t value)
{
	uint8_t data[8];

	store_le64(data, value);
	bus_write(f.h.host.mmio, addr, data, len);
}

static inline struct vfio_pci_counters counters(void)
{
	struct vfio_pci_counters c;

	vfio_pci_count(f.fn, &c);
	return c;
}

#endif
