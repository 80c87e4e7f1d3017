/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/pci/pci_registers.h"
#include "devices/pci/pci_root.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/run_suite.h"

static const struct pci_root_layout layout = {
	.ecam_base = 0xe0000000,
	.mem32_base = 0xc0000000,
	.mem32_size = 0x10000000,
	.mem64_base = 0x4000000000,
	.mem64_size = 0x100000000,
	.io_base = 0xd000,
	.io_size = 0x1000,
	.intx_gsi = { 16, 17, 18, 19 },
	.hotplug_base = 0xe1000000,
};

#define UP (layout.hotplug_base)
#define DOWN (layout.hotplug_base + 4)
#define EJECT (layout.hotplug_base + 8)

static struct fake_host h;
static struct pci_root *root;
static atomic_uint notified, freed, resets, machine_resets;
static struct pci_function *ejected[4];
static unsigned int ejected_count;

static void bar_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	memset(data, 0x77, len);
}

static void bar_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
}

static const struct bus_ops bar_ops = { .read = bar_read, .write = bar_write };

static void fn_reset(struct pci_function *fn)
{
	atomic_fetch_add(&resets, 1);
}

static void fn_free(struct pci_function *fn)
{
	atomic_fetch_add(&freed, 1);
	pci_function_destroy(fn);
	free(fn);
}

static const struct pci_function_ops ops = { .reset = fn_reset, .free = fn_free };

static struct pci_function *new_function(const char *id)
{
	static const struct pci_ids ids = { .vendor = 0x1af4, .device = 0x1041, .intx = true };
	struct pci_function *fn = calloc(1, sizeof(*fn));

	ck_assert_ptr_nonnull(fn);
	pci_function_init(fn, &ops, &h.host, id, &ids);
	return fn;
}

static struct pci_function *add(const char *id, int slot, bool hotplug)
{
	struct pci_function *fn = new_function(id);

	pci_function_set_bar(fn, 0, PCI_BAR_MEM64, false, 0x4000, &bar_ops, fn);
	pci_function_set_bar(fn, 2, PCI_BAR_IO, false, 0x40, &bar_ops, fn);
	pci_function_set_bar(fn, 3, PCI_BAR_MEM32, false, 0x1000, &bar_ops, fn);
	if (pci_root_add(root, fn, slot, hotplug, NULL))
		ck_abort_msg("cannot add %s", id);
	return fn;
}

static void on_notify(void *opaque)
{
	atomic_fetch_add(&notified, 1);
}

static void on_ejected(void *opaque, struct pci_function *fn)
{
	ejected[ejected_count++ % 4] = fn;
}

static void on_reset(void *opaque)
{
	atomic_fetch_add(&machine_resets, 1);
}

static const struct pci_root_callbacks callbacks = {
	.hotplug_notify = on_notify,
	.ejected = on_ejected,
	.reset = on_reset,
};

static void setup(void)
{
	ck_assert_int_eq(fake_host_init(&h), 0);
	root = pci_root_new(&h.host, &layout, &callbacks, NULL);
	ck_assert_ptr_nonnull(root);
}

static void teardown(void)
{
	pci_root_free(root);
	ck_assert_uint_eq(h.fake.misuses, 0);
	fake_host_destroy(&h);
}

static uint64_t ecam(unsigned int slot, unsigned int offset)
{
	return layout.ecam_base + (slot << 15) + offset;
}

static uint32_t get(uint64_t addr, unsigned int len)
{
	uint8_t data[4];

	bus_read(h.host.mmio, addr, data, len);
	return (uint32_t)load_le(data, len);
}

static void put(uint64_t addr, uint32_t value, unsigned int len)
{
	uint8_t data[4];

	store_le(data, value, len);
	bus_write(h.host.mmio, addr, data, len);
}

static uint32_t in(uint16_t port, unsigned int len)
{
	uint8_t data[4];

	bus_read(h.host.pio, port, data, len);
	return (uint32_t)load_le(data, len);
}

static void out(uint16_t port, uint32_t value, unsigned int len)
{
	uint8_t data[4];

	store_le(data, value, len);
	bus_write(h.host.pio, port, data, len);
}

START_TEST(host_bridge_is_in_slot_0)
{
	ck_assert_uint_eq(get(ecam(0, PCI_VENDOR_ID), 2), 0x8086);
	ck_assert_uint_eq(get(ecam(0, PCI_CLASS_REVISION), 4) >> 8, 0x060000);
	ck_assert_uint_eq(get(ecam(1, PCI_VENDOR_ID), 4), 0xffffffff);
}
END_TEST

START_TEST(both_ways_lead_to_the_same_config_space)
{
	add("disk0", 5, false);
	ck_assert_uint_eq(get(ecam(5, 0), 4), 0x10411af4);
	out(0xcf8, 0x80000000 | 5 << 11, 4);
	ck_assert_uint_eq(in(0xcf8, 4), 0x80000000 | 5 << 11);
	ck_assert_uint_eq(in(0xcfc, 4), 0x10411af4);
	ck_assert_uint_eq(in(0xcfe, 2), 0x1041);
	ck_assert_uint_eq(in(0xcfd, 1), 0x1a);
	out(0xcf8, 0x80000000 | 5 << 11 | PCI_INTERRUPT_LINE, 4);
	out(0xcfc, 0x42, 1);
	ck_assert_uint_eq(get(ecam(5, PCI_INTERRUPT_LINE), 1), 0x42);
}
END_TEST

START_TEST(addresses_that_lead_nowhere_read_ones)
{
	static const uint32_t nowhere[] = {
		0,			       /* not enabled */
		5 << 11,		       /* not enabled */
		0x80000000 | 6 << 11,	       /* empty slot */
		0x80010000 | 5 << 11,	       /* bus 1 */
		0x80000000 | 5 << 11 | 1 << 8, /* function 1 */
	};

	add("disk0", 5, false);
	for (unsigned int i = 0; i < ARRAY_SIZE(nowhere); i++) {
		out(0xcf8, nowhere[i], 4);
		out(0xcfc, 0, 4);
		ck_assert_uint_eq(in(0xcfc, 4), 0xffffffff);
	}
	ck_assert_uint_eq(get(ecam(5, 1 << 12), 4), 0xffffffff);
	ck_assert_uint_eq(get(ecam(31, 0xffc), 4), 0xffffffff);
	out(0xcf8, 0x80000000 | 5 << 11, 4);
	ck_assert_uint_eq(in(0xcfe, 4), 0xffffffff);
	ck_assert_uint_eq(in(0xcfa, 2), 0xffff);
	ck_assert_uint_eq(in(0xcfa, 4), 0xffffffff);
	ck_assert_uint_eq(get(ecam(5, 3), 2), 0xffff);
}
END_TEST

START_TEST(qword_of_ecam_is_two_dwords)
{
	uint8_t data[8];

	add("disk0", 5, false);
	ck_assert(bus_read(h.host.mmio, ecam(5, 0), data, 8));
	ck_assert_uint_eq(load_le32(data), 0x10411af4);
	ck_assert_uint_eq(load_le32(data + 4), 0);
	bus_read(h.host.mmio, ecam(5, 0xffc), data, 8);
}
END_TEST

START_TEST(ecam_only_root_has_no_config_ports_but_resets)
{
	struct pci_root_layout ecam_only = layout;

	pci_root_free(root);
	ecam_only.ecam_only = true;
	root = pci_root_new(&h.host, &ecam_only, &callbacks, NULL);
	ck_assert_ptr_nonnull(root);
	add("a", 5, false);
	/* What Linux does to find mechanism #1 and #2. */
	out(0xcfb, 1, 1);
	out(0xcf8, 0x80000000, 4);
	ck_assert_uint_eq(in(0xcf8, 4), 0xffffffff);
	out(0xcf8, 0, 1);
	ck_assert_uint_eq(in(0xcf8, 1), 0xff);
	ck_assert_uint_eq(in(0xcfa, 1), 0xff);
	out(0xcf8, 0x80000000 | 5 << 11, 4);
	ck_assert_uint_eq(in(0xcfc, 4), 0xffffffff);
	out(0xcf9, 0x06, 1);
	ck_assert_uint_eq(machine_resets, 1);
}
END_TEST

START_TEST(reset_port_resets_and_leaves_the_config_address)
{
	out(0xcf8, 0x80000000, 4);
	out(0xcf9, 0x02, 1);
	ck_assert_uint_eq(machine_resets, 0);
	out(0xcf9, 0x06, 1);
	ck_assert_uint_eq(machine_resets, 1);
	ck_assert_uint_eq(in(0xcf8, 4), 0x80000000);
	/* The same byte within the dword is not the reset port. */
	out(0xcf8, 0x80000600, 4);
	out(0xcf9, 0x06, 2);
	ck_assert_uint_eq(machine_resets, 1);
}
END_TEST

START_TEST(bars_get_aligned_disjoint_addresses_in_their_windows)
{
	struct pci_function *fn[31];
	char id[16];

	for (unsigned int i = 0; i < 31; i++) {
		snprintf(id, sizeof(id), "fn%u", i);
		fn[i] = add(id, -1, false);
		ck_assert_uint_eq(fn[i]->devfn, (i + 1) << 3);
		put(ecam(i + 1, PCI_COMMAND), PCI_COMMAND_MEMORY | PCI_COMMAND_IO, 2);
		ck_assert(fn[i]->bars[0].mapped && fn[i]->bars[2].mapped && fn[i]->bars[3].mapped);
		ck_assert_uint_eq(fn[i]->bars[0].address % 0x4000, 0);
		ck_assert_uint_ge(fn[i]->bars[0].address, layout.mem64_base);
		ck_assert_uint_ge(fn[i]->bars[2].address, layout.io_base);
		ck_assert_uint_ge(fn[i]->bars[3].address, layout.mem32_base);
		ck_assert_uint_lt(fn[i]->bars[3].address, layout.mem32_base + layout.mem32_size);
	}
}
END_TEST

START_TEST(full_bus_is_said_to_be_full)
{
	struct error err = ERROR_INIT;
	struct pci_function *fn;

	for (unsigned int i = 1; i < PCI_SLOTS; i++)
		add("fn", -1, false);
	fn = new_function("late");
	ck_assert_int_eq(pci_root_add(root, fn, -1, false, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.message, "late"));
	fn_free(fn);
}
END_TEST

START_TEST(slot_can_be_chosen_but_not_shared)
{
	struct pci_function *fn = new_function("second");
	struct error err = ERROR_INIT;

	add("first", 7, false);
	ck_assert_int_eq(pci_root_add(root, fn, 7, false, &err), -EEXIST);
	ck_assert_ptr_nonnull(strstr(err.message, "first"));
	ck_assert_int_eq(pci_root_add(root, fn, 0, false, NULL), -EINVAL);
	ck_assert_int_eq(pci_root_add(root, fn, 32, false, NULL), -EINVAL);
	ck_assert_int_eq(pci_root_add(root, fn, 31, false, NULL), 0);
}
END_TEST

START_TEST(full_window_is_named_and_its_addresses_come_back)
{
	struct pci_function *big = new_function("big"), *second = new_function("second");
	struct error err = ERROR_INIT;

	pci_function_set_bar(big, 0, PCI_BAR_MEM64, true, layout.mem64_size, &bar_ops, big);
	pci_function_set_bar(second, 0, PCI_BAR_MEM64, true, 0x1000, &bar_ops, second);
	ck_assert_int_eq(pci_root_add(root, big, -1, false, NULL), 0);
	ck_assert_int_eq(pci_root_add(root, second, -1, false, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.message, "64-bit"));
	ck_assert_ptr_nonnull(strstr(err.message, "second bar0"));
	pci_root_remove(root, big);
	fn_free(big);
	ck_assert_int_eq(pci_root_add(root, second, -1, false, NULL), 0);
	ck_assert_uint_eq(second->bars[0].address, layout.mem64_base);
}
END_TEST

START_TEST(bar_larger_than_its_window_is_refused)
{
	struct pci_function *fn = new_function("huge");

	pci_function_set_bar(fn, 0, PCI_BAR_MEM64, true, 1ULL << 63, &bar_ops, fn);
	ck_assert_int_eq(pci_root_add(root, fn, -1, false, NULL), -ENOSPC);
	fn_free(fn);
}
END_TEST

START_TEST(new_function_is_not_put_where_the_guest_moved_another)
{
	struct pci_function *a = add("a", 1, false), *b;

	put(ecam(1, PCI_BASE_ADDRESS_0), (uint32_t)layout.mem64_base + 0x4000, 4);
	put(ecam(1, PCI_COMMAND), PCI_COMMAND_MEMORY, 2);
	ck_assert(a->bars[0].mapped);
	b = add("b", 2, true);
	put(ecam(2, PCI_COMMAND), PCI_COMMAND_MEMORY, 2);
	ck_assert(b->bars[0].mapped);
}
END_TEST

START_TEST(lines_are_swizzled_over_the_slots)
{
	static const unsigned int gsi[] = { 17, 18, 19, 16, 17 };

	for (unsigned int i = 0; i < ARRAY_SIZE(gsi); i++) {
		struct pci_function *fn = add("fn", -1, false);

		ck_assert_uint_eq(fn->intx.gsi, gsi[i]);
		ck_assert_uint_eq(get(ecam(i + 1, PCI_INTERRUPT_LINE), 1), gsi[i]);
	}
}
END_TEST

START_TEST(shared_line_is_high_while_any_function_asserts_it)
{
	struct pci_function *a = add("a", 1, false), *b = add("b", 5, false);

	ck_assert_uint_eq(a->intx.gsi, b->intx.gsi);
	irq_line_set(&a->intx, true);
	irq_line_set(&b->intx, true);
	ck_assert(get(ecam(1, PCI_STATUS), 2) & PCI_STATUS_INTERRUPT);
	irq_line_set(&a->intx, false);
	ck_assert(!(get(ecam(1, PCI_STATUS), 2) & PCI_STATUS_INTERRUPT));
	ck_assert(h.fake.level[17]);
	irq_line_set(&b->intx, false);
	ck_assert(!h.fake.level[17]);
}
END_TEST

START_TEST(interrupt_disable_silences_the_line)
{
	struct pci_function *a = add("a", 1, false);

	put(ecam(1, PCI_COMMAND), PCI_COMMAND_INTX_DISABLE, 2);
	irq_line_set(&a->intx, true);
	ck_assert(!h.fake.level[17]);
	ck_assert(get(ecam(1, PCI_COMMAND), 4) >> 16 & PCI_STATUS_INTERRUPT);
	put(ecam(1, PCI_COMMAND), 0, 2);
	ck_assert(h.fake.level[17]);
	put(ecam(1, PCI_COMMAND + 1), PCI_COMMAND_INTX_DISABLE >> 8, 1);
	ck_assert(!h.fake.level[17]);
	/* A function that leaves takes its share of the line with it. */
	put(ecam(1, PCI_COMMAND), 0, 2);
	pci_root_remove(root, a);
	ck_assert(!h.fake.level[17]);
	fn_free(a);
}
END_TEST

START_TEST(hotplug_is_reported_once)
{
	add("cold", 1, false);
	ck_assert_uint_eq(notified, 0);
	ck_assert_uint_eq(get(UP, 4), 0);
	add("hot", 4, true);
	ck_assert_uint_eq(notified, 1);
	ck_assert_uint_eq(get(UP, 4), 1 << 4);
	ck_assert_uint_eq(get(UP, 4), 0);
	ck_assert_uint_eq(get(DOWN, 4), 0);
}
END_TEST

START_TEST(guest_is_asked_and_ejects)
{
	struct pci_function *fn = add("net0", 4, false);

	put(ecam(4, PCI_COMMAND), PCI_COMMAND_MEMORY, 2);
	ck_assert_int_eq(pci_root_request_removal(root, fn, NULL), 0);
	ck_assert_uint_eq(notified, 1);
	ck_assert_uint_eq(get(DOWN, 4), 1 << 4);
	ck_assert_uint_eq(get(DOWN, 4), 0);
	ck_assert_ptr_eq(pci_root_find(root, "net0"), fn);
	put(EJECT, 1 << 4, 4);
	ck_assert_uint_eq(ejected_count, 1);
	ck_assert_ptr_eq(ejected[0], fn);
	ck_assert_uint_eq(freed, 0);
	ck_assert_uint_eq(get(ecam(4, 0), 4), 0xffffffff);
	ck_assert_uint_eq(get(fn->bars[0].address, 4), 0xffffffff);
	ck_assert_ptr_null(pci_root_find(root, "net0"));
	/* It is gone: once is enough. */
	put(EJECT, 1 << 4, 4);
	ck_assert_uint_eq(ejected_count, 1);
	ck_assert_int_eq(pci_root_request_removal(root, fn, NULL), -ENOENT);
	fn_free(fn);
}
END_TEST

START_TEST(host_bridge_and_empty_slots_cannot_be_ejected)
{
	put(EJECT, 0xffffffff, 4);
	ck_assert_uint_eq(ejected_count, 0);
	ck_assert_uint_eq(get(ecam(0, 0), 2), 0x8086);
}
END_TEST

START_TEST(malformed_hotplug_accesses_do_nothing)
{
	struct pci_function *fn = add("net0", 4, true);

	ck_assert_int_eq(pci_root_request_removal(root, fn, NULL), 0);
	ck_assert_uint_eq(get(UP, 1), 0xff);
	ck_assert_uint_eq(get(UP, 2), 0xffff);
	ck_assert_uint_eq(get(UP + 2, 4), 0xffffffff);
	ck_assert_uint_eq(get(EJECT, 4), 0);
	put(EJECT, 1 << 4, 2);
	put(EJECT, 1 << 4, 1);
	put(UP, 0xffffffff, 4);
	put(DOWN, 0xffffffff, 4);
	ck_assert_uint_eq(ejected_count, 0);
	ck_assert_uint_eq(get(UP, 4), 1 << 4);
	ck_assert_uint_eq(get(DOWN, 4), 1 << 4);
}
END_TEST

START_TEST(slot_can_be_used_again)
{
	struct pci_function *fn = add("a", 4, true);
	uint64_t address = fn->bars[0].address;

	put(EJECT, 1 << 4, 4);
	ck_assert_uint_eq(get(UP, 4), 0);
	fn_free(fn);
	fn = add("b", 4, true);
	ck_assert_uint_eq(fn->bars[0].address, address);
	ck_assert_uint_eq(get(UP, 4), 1 << 4);
}
END_TEST

START_TEST(reset_restores_addresses_and_lets_removed_functions_go)
{
	struct pci_function *a = add("a", 1, false), *b = add("b", 2, false);
	uint64_t address = a->bars[0].address;

	put(ecam(1, PCI_COMMAND), PCI_COMMAND_MEMORY, 2);
	put(ecam(1, PCI_BASE_ADDRESS_0), 0xffffffff, 4);
	put(ecam(1, PCI_INTERRUPT_LINE), 0, 1);
	irq_line_set(&a->intx, true);
	ck_assert_int_eq(pci_root_request_removal(root, b, NULL), 0);
	pci_root_reset(root);
	ck_assert_uint_eq(resets, 1);
	ck_assert_uint_eq(ejected_count, 1);
	ck_assert_ptr_eq(ejected[0], b);
	fn_free(b);
	ck_assert_uint_eq(get(ecam(1, PCI_COMMAND), 2), 0);
	ck_assert_uint_eq(get(ecam(1, PCI_INTERRUPT_LINE), 1), 17);
	ck_assert_uint_eq(a->bars[0].address, address);
	ck_assert(!a->bars[0].mapped);
	ck_assert(!h.fake.level[17]);
	ck_assert_uint_eq(get(DOWN, 4), 0);
}
END_TEST

START_TEST(function_is_named_by_its_address)
{
	char bdf[13];

	pci_function_bdf(add("a", 0x1f, false), bdf, sizeof(bdf));
	ck_assert_str_eq(bdf, "0000:00:1f.0");
}
END_TEST

START_TEST(root_on_taken_addresses_is_refused)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(pci_root_new(&h.host, &layout, &callbacks, &err));
	ck_assert_int_eq(err.code, -EEXIST);
	/* The first one is unharmed. */
	ck_assert_uint_eq(get(ecam(0, PCI_VENDOR_ID), 2), 0x8086);
}
END_TEST

static atomic_bool stop;

static void *use_config(void *opaque)
{
	while (!atomic_load(&stop)) {
		uint8_t data[4];

		store_le32(data, PCI_COMMAND_MEMORY);
		bus_write(h.host.mmio, ecam(4, PCI_COMMAND), data, 2);
		bus_read(h.host.mmio, ecam(4, PCI_BASE_ADDRESS_0), data, 4);
		bus_read(h.host.mmio, layout.mem64_base, data, 4);
		store_le32(data, 0);
		bus_write(h.host.mmio, ecam(4, PCI_COMMAND), data, 2);
	}
	return NULL;
}

static void *eject_all(void *opaque)
{
	while (!atomic_load(&stop)) {
		uint8_t data[4] = { 0x10, 0, 0, 0 };

		bus_write(h.host.mmio, EJECT, data, 4);
	}
	return NULL;
}

static atomic_uint left;

static void free_ejected(void *opaque, struct pci_function *fn)
{
	fn_free(fn);
	atomic_fetch_add(&left, 1);
}

START_TEST(function_ejected_while_vcpus_use_it_is_safe)
{
	static const struct pci_root_callbacks freeing = { .ejected = free_ejected };
	pthread_t threads[3];

	pci_root_free(root);
	root = pci_root_new(&h.host, &layout, &freeing, NULL);
	pthread_create(&threads[0], NULL, use_config, NULL);
	pthread_create(&threads[1], NULL, use_config, NULL);
	pthread_create(&threads[2], NULL, eject_all, NULL);
	for (unsigned int i = 0; i < 300; i++) {
		struct pci_function *fn = new_function("fn");

		pci_function_set_bar(fn, 0, PCI_BAR_MEM64, false, 0x4000, &bar_ops, fn);
		while (pci_root_add(root, fn, 4, true, NULL))
			sched_yield(); /* the one before has not gone yet */
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_ge(atomic_load(&left), 299);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pci_root");
	TCase *t = tcase_create("pci_root");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, host_bridge_is_in_slot_0);
	tcase_add_test(t, both_ways_lead_to_the_same_config_space);
	tcase_add_test(t, addresses_that_lead_nowhere_read_ones);
	tcase_add_test(t, qword_of_ecam_is_two_dwords);
	tcase_add_test(t, ecam_only_root_has_no_config_ports_but_resets);
	tcase_add_test(t, reset_port_resets_and_leaves_the_config_address);
	tcase_add_test(t, bars_get_aligned_disjoint_addresses_in_their_windows);
	tcase_add_test(t, full_bus_is_said_to_be_full);
	tcase_add_test(t, slot_can_be_chosen_but_not_shared);
	tcase_add_test(t, full_window_is_named_and_its_addresses_come_back);
	tcase_add_test(t, bar_larger_than_its_window_is_refused);
	tcase_add_test(t, new_function_is_not_put_where_the_guest_moved_another);
	tcase_add_test(t, lines_are_swizzled_over_the_slots);
	tcase_add_test(t, shared_line_is_high_while_any_function_asserts_it);
	tcase_add_test(t, interrupt_disable_silences_the_line);
	tcase_add_test(t, hotplug_is_reported_once);
	tcase_add_test(t, guest_is_asked_and_ejects);
	tcase_add_test(t, host_bridge_and_empty_slots_cannot_be_ejected);
	tcase_add_test(t, malformed_hotplug_accesses_do_nothing);
	tcase_add_test(t, slot_can_be_used_again);
	tcase_add_test(t, reset_restores_addresses_and_lets_removed_functions_go);
	tcase_add_test(t, function_is_named_by_its_address);
	tcase_add_test(t, root_on_taken_addresses_is_refused);
	tcase_add_test(t, function_ejected_while_vcpus_use_it_is_safe);
	suite_add_tcase(s, t);
	return run_suite(s);
}
