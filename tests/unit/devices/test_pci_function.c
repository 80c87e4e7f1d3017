/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/pci/pci_function.h"
#include "devices/pci/pci_registers.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/run_suite.h"

#define RAM (2 * MIB)

static struct fake_host h;

/* A function that records what its ops are told. */
struct device {
	struct pci_function fn;
	unsigned int mapped[PCI_BARS + 1], unmapped[PCI_BARS + 1];
	uint64_t mapped_at[PCI_BARS + 1], unmapped_at[PCI_BARS + 1];
	unsigned int written;
	unsigned int bar_accesses;
	unsigned int own_from, own_to; /* offsets config_read/config_write handle */
};

static struct device d, other;

static struct device *device_of(struct pci_function *fn)
{
	return container_of(fn, struct device, fn);
}

static bool own_read(struct pci_function *fn, unsigned int offset, void *data, unsigned int len)
{
	struct device *dev = device_of(fn);

	if (offset < dev->own_from || offset >= dev->own_to)
		return false;
	memset(data, 0xab, len);
	return true;
}

static bool own_write(struct pci_function *fn, unsigned int offset, const void *data,
		      unsigned int len)
{
	return offset >= device_of(fn)->own_from && offset < device_of(fn)->own_to;
}

static void config_written(struct pci_function *fn, unsigned int offset, unsigned int len)
{
	device_of(fn)->written++;
}

static void bar_mapped(struct pci_function *fn, unsigned int bar)
{
	device_of(fn)->mapped[bar]++;
	device_of(fn)->mapped_at[bar] = fn->bars[bar].address;
}

static void bar_unmapped(struct pci_function *fn, unsigned int bar)
{
	device_of(fn)->unmapped[bar]++;
	device_of(fn)->unmapped_at[bar] = fn->bars[bar].address;
}

static const struct pci_function_ops ops = {
	.config_read = own_read,
	.config_write = own_write,
	.config_written = config_written,
	.bar_mapped = bar_mapped,
	.bar_unmapped = bar_unmapped,
};

static void bar_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	((struct device *)opaque)->bar_accesses++;
	memset(data, 0x77, len);
}

static void bar_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	((struct device *)opaque)->bar_accesses++;
}

static const struct bus_ops bar_ops = { .read = bar_read, .write = bar_write };

static const struct pci_ids ids = {
	.vendor = 0x1af4,
	.device = 0x1042,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.class_code = 0x018000,
	.revision = 1,
	.intx = true,
};

static void setup(void)
{
	ck_assert_int_eq(fake_host_init_ram(&h, RAM), 0);
	memset(&d, 0, sizeof(d));
	memset(&other, 0, sizeof(other));
	pci_function_init(&d.fn, &ops, &h.host, "disk0", &ids);
	pci_function_init(&other.fn, &ops, &h.host, "net0", &ids);
}

static void teardown(void)
{
	pci_function_unmap(&d.fn);
	pci_function_unmap(&other.fn);
	pci_function_destroy(&d.fn);
	pci_function_destroy(&other.fn);
	fake_host_destroy_ram(&h);
}

static uint32_t get(struct device *dev, unsigned int offset, unsigned int len)
{
	uint8_t data[4] = { 0 };

	pci_function_config_read(&dev->fn, offset, data, len);
	return (uint32_t)load_le(data, len);
}

static void put(struct device *dev, unsigned int offset, uint32_t value, unsigned int len)
{
	uint8_t data[4];

	store_le(data, value, len);
	pci_function_config_write(&dev->fn, offset, data, len);
}

static void enable(struct device *dev)
{
	put(dev, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_IO, 2);
}

static bool answers(struct device *dev, struct bus *bus, uint64_t addr)
{
	unsigned int before = dev->bar_accesses;
	uint8_t byte;

	bus_read(bus, addr, &byte, 1);
	return dev->bar_accesses > before;
}

START_TEST(header_says_what_the_device_is)
{
	ck_assert_uint_eq(get(&d, PCI_VENDOR_ID, 4), 0x10421af4);
	ck_assert_uint_eq(get(&d, PCI_CLASS_REVISION, 4), 0x01800001);
	ck_assert_uint_eq(get(&d, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x11001af4);
	ck_assert_uint_eq(get(&d, PCI_HEADER_TYPE, 1), 0);
	ck_assert_uint_eq(get(&d, PCI_INTERRUPT_PIN, 1), 1);
	ck_assert_uint_eq(get(&d, PCI_STATUS, 2), 0);
	ck_assert_uint_eq(get(&d, 0x100, 4), 0);
}
END_TEST

START_TEST(config_can_be_read_in_bytes_words_and_dwords)
{
	ck_assert_uint_eq(get(&d, 0, 1), 0xf4);
	ck_assert_uint_eq(get(&d, 1, 1), 0x1a);
	ck_assert_uint_eq(get(&d, 1, 2), 0x421a);
	ck_assert_uint_eq(get(&d, 2, 2), 0x1042);
}
END_TEST

START_TEST(malformed_config_access_reads_ones_and_drops_writes)
{
	static const struct {
		unsigned int offset, len;
	} bad[] = { { 3, 2 },	       { 1, 4 },    { 2, 4 },	 { 3, 4 },
		    { 0x3e, 4 },       { 4096, 1 }, { 4095, 2 }, { 4094, 4 },
		    { UINT32_MAX, 1 }, { 0, 3 },    { 5000, 4 }, { 0x80000000, 4 } };

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t data[8] = { 0 }, zeros[8] = { 0 };
		uint8_t before[PCI_CONFIG_SIZE];

		pci_function_config_read(&d.fn, bad[i].offset, data, bad[i].len);
		for (unsigned int j = 0; j < bad[i].len; j++)
			ck_assert_uint_eq(data[j], 0xff);
		memcpy(before, d.fn.config, sizeof(before));
		pci_function_config_write(&d.fn, bad[i].offset, zeros, bad[i].len);
		ck_assert_mem_eq(before, d.fn.config, sizeof(before));
	}
	ck_assert_uint_eq(d.written, 0);
}
END_TEST

START_TEST(whatever_is_written_read_only_bytes_stay)
{
	uint8_t before[PCI_CONFIG_SIZE];

	pci_function_add_capability(&d.fn, PCI_CAP_ID_VNDR, 16);
	memcpy(before, d.fn.config, sizeof(before));
	for (unsigned int pass = 0; pass < 2; pass++)
		for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++)
			put(&d, i, pass ? 0xff : 0, 1);
	ck_assert_uint_eq(get(&d, PCI_COMMAND, 2), PCI_COMMAND_WRITABLE);
	ck_assert_uint_eq(get(&d, PCI_INTERRUPT_LINE, 1), 0xff);
	ck_assert_uint_eq(get(&d, PCI_CACHE_LINE_SIZE, 1), 0xff);
	d.fn.config[PCI_COMMAND] = d.fn.config[PCI_COMMAND + 1] = 0;
	d.fn.config[PCI_INTERRUPT_LINE] = d.fn.config[PCI_CACHE_LINE_SIZE] = 0;
	ck_assert_mem_eq(before, d.fn.config, sizeof(before));
}
END_TEST

START_TEST(status_errors_are_cleared_by_writing_one)
{
	store_le16(d.fn.config + PCI_STATUS,
		   PCI_STATUS_CAP_LIST | PCI_STATUS_DETECTED_PARITY | PCI_STATUS_SIG_SYSTEM_ERROR);
	put(&d, PCI_STATUS, PCI_STATUS_DETECTED_PARITY, 2);
	ck_assert_uint_eq(get(&d, PCI_STATUS, 2),
			  PCI_STATUS_CAP_LIST | PCI_STATUS_SIG_SYSTEM_ERROR);
	put(&d, PCI_STATUS, 0xffff, 2);
	ck_assert_uint_eq(get(&d, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
}
END_TEST

START_TEST(capabilities_form_a_list)
{
	int a = pci_function_add_capability(&d.fn, PCI_CAP_ID_MSIX, 12);
	int b = pci_function_add_capability(&d.fn, PCI_CAP_ID_VNDR, 17);
	int c = pci_function_add_capability(&d.fn, PCI_CAP_ID_VNDR, 16);

	ck_assert_int_eq(a, 0x40);
	ck_assert_int_eq(b, 0x4c);
	ck_assert_int_eq(c, 0x60);
	ck_assert_uint_eq(get(&d, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
	ck_assert_uint_eq(get(&d, PCI_CAPABILITY_LIST, 1), 0x40);
	ck_assert_uint_eq(get(&d, 0x40, 2), 0x4c11);
	ck_assert_uint_eq(get(&d, 0x4c, 2), 0x6009);
	ck_assert_uint_eq(get(&d, 0x60, 2), 0x0009);
}
END_TEST

START_TEST(capability_that_does_not_fit_is_refused)
{
	ck_assert_int_eq(pci_function_add_capability(&d.fn, 9, 0), -ENOSPC);
	ck_assert_int_eq(pci_function_add_capability(&d.fn, 9, 193), -ENOSPC);
	ck_assert_int_eq(pci_function_add_capability(&d.fn, 9, UINT32_MAX), -ENOSPC);
	ck_assert_int_eq(pci_function_add_capability(&d.fn, 9, 192), 0x40);
	ck_assert_int_eq(pci_function_add_capability(&d.fn, 9, 2), -ENOSPC);
	ck_assert_uint_eq(get(&d, 0x41, 1), 0);
	ck_assert_uint_eq(get(&d, 0x100, 4), 0);
}
END_TEST

START_TEST(extended_capabilities_form_a_list)
{
	ck_assert_int_eq(pci_function_add_extended_capability(&d.fn, 0x1, 2, 0x45), 0x100);
	ck_assert_int_eq(pci_function_add_extended_capability(&d.fn, 0x10, 1, 0x40), 0x148);
	ck_assert_uint_eq(get(&d, 0x100, 4), 0x14820001);
	ck_assert_uint_eq(get(&d, 0x148, 4), 0x00010010);
	ck_assert_int_eq(pci_function_add_extended_capability(&d.fn, 0x2, 1, 4096), -ENOSPC);
	ck_assert_int_eq(pci_function_add_extended_capability(&d.fn, 0x2, 1, 2), -ENOSPC);
	ck_assert_int_eq(pci_function_add_extended_capability(&d.fn, 0x2, 1, 4096 - 0x188), 0x188);
	ck_assert_int_eq(pci_function_add_extended_capability(&d.fn, 0x2, 1, 4), -ENOSPC);
}
END_TEST

START_TEST(bar_tells_its_size)
{
	pci_function_set_bar(&d.fn, 0, PCI_BAR_MEM32, false, 0x1000, &bar_ops, &d);
	pci_function_set_bar(&d.fn, 1, PCI_BAR_IO, false, 0x20, &bar_ops, &d);
	pci_function_set_bar(&d.fn, 2, PCI_BAR_MEM64, true, 8 * GIB, &bar_ops, &d);
	pci_function_set_bar(&d.fn, PCI_ROM_BAR, PCI_BAR_MEM32, false, 0x10000, &bar_ops, &d);
	for (unsigned int bar = 0; bar < PCI_BARS; bar++)
		put(&d, PCI_BAR_OFFSET(bar), 0xffffffff, 4);
	put(&d, PCI_ROM_ADDRESS, 0xffffffff, 4);
	ck_assert_uint_eq(get(&d, PCI_BASE_ADDRESS_0, 4), 0xfffff000);
	ck_assert_uint_eq(get(&d, PCI_BASE_ADDRESS_1, 4), 0x0000ffe1);
	ck_assert_uint_eq(get(&d, PCI_BASE_ADDRESS_2, 4), 0x0000000c);
	ck_assert_uint_eq(get(&d, PCI_BASE_ADDRESS_3, 4), 0xfffffffe);
	ck_assert_uint_eq(get(&d, PCI_BASE_ADDRESS_4, 4), 0);
	ck_assert_uint_eq(get(&d, PCI_BASE_ADDRESS_5, 4), 0);
	ck_assert_uint_eq(get(&d, PCI_ROM_ADDRESS, 4), 0xffff0001);
}
END_TEST

START_TEST(impossible_bar_is_not_made)
{
	static const struct {
		unsigned int bar;
		enum pci_bar_kind kind;
		uint64_t size;
	} bad[] = {
		{ 0, PCI_BAR_MEM32, 0 },
		{ 0, PCI_BAR_MEM32, 0x1001 },
		{ 0, PCI_BAR_MEM32, 8 },
		{ 0, PCI_BAR_MEM32, 4 * GIB },
		{ 0, PCI_BAR_IO, 2 },
		{ 0, PCI_BAR_IO, 0x10000 },
		{ 5, PCI_BAR_MEM64, 0x1000 },
		{ PCI_ROM_BAR, PCI_BAR_MEM64, 0x1000 },
		{ PCI_ROM_BAR, PCI_BAR_MEM32, 1024 },
		{ 7, PCI_BAR_MEM32, 0x1000 },
		{ 0, PCI_BAR_NONE, 0x1000 },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++)
		pci_function_set_bar(&d.fn, bad[i].bar, bad[i].kind, false, bad[i].size, &bar_ops,
				     &d);
	for (unsigned int bar = 0; bar <= PCI_ROM_BAR; bar++)
		ck_assert_int_eq(d.fn.bars[bar].kind, PCI_BAR_NONE);
}
END_TEST

START_TEST(bar_is_decoded_while_the_command_register_says_so)
{
	pci_function_set_bar(&d.fn, 0, PCI_BAR_MEM64, false, 0x1000, &bar_ops, &d);
	pci_function_set_bar(&d.fn, 2, PCI_BAR_IO, false, 0x20, &bar_ops, &d);
	pci_function_place_bar(&d.fn, 0, 0x4000000000);
	pci_function_place_bar(&d.fn, 2, 0xc000);
	ck_assert(!answers(&d, h.host.mmio, 0x4000000000));
	put(&d, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	ck_assert(answers(&d, h.host.mmio, 0x4000000fff));
	ck_assert(!answers(&d, h.host.pio, 0xc000));
	ck_assert_uint_eq(d.mapped_at[0], 0x4000000000);
	put(&d, PCI_COMMAND, PCI_COMMAND_IO, 1);
	ck_assert(!answers(&d, h.host.mmio, 0x4000000000));
	ck_assert(answers(&d, h.host.pio, 0xc01f));
	ck_assert_uint_eq(d.unmapped[0], 1);
	ck_assert_uint_eq(d.mapped[2], 1);
	pci_function_unmap(&d.fn);
	ck_assert(!answers(&d, h.host.pio, 0xc000));
	ck_assert_uint_eq(d.unmapped[2], 1);
	ck_assert_uint_eq(get(&d, PCI_COMMAND, 2), 0);
}
END_TEST

START_TEST(rom_needs_its_own_enable_bit_too)
{
	pci_function_set_bar(&d.fn, PCI_ROM_BAR, PCI_BAR_MEM32, false, 0x1000, &bar_ops, &d);
	pci_function_place_bar(&d.fn, PCI_ROM_BAR, 0xc0000000);
	enable(&d);
	ck_assert(!answers(&d, h.host.mmio, 0xc0000000));
	put(&d, PCI_ROM_ADDRESS, 0xc0000001, 4);
	ck_assert(answers(&d, h.host.mmio, 0xc0000000));
	put(&d, PCI_ROM_ADDRESS, 0, 1);
	ck_assert(!answers(&d, h.host.mmio, 0xc0000000));
}
END_TEST

START_TEST(guest_moves_a_bar_while_it_is_decoded)
{
	pci_function_set_bar(&d.fn, 0, PCI_BAR_MEM64, false, 0x1000, &bar_ops, &d);
	pci_function_place_bar(&d.fn, 0, 0xc0000000);
	enable(&d);
	put(&d, PCI_BASE_ADDRESS_0, 0xd0000000, 4);
	ck_assert(!answers(&d, h.host.mmio, 0xc0000000));
	ck_assert(answers(&d, h.host.mmio, 0xd0000000));
	ck_assert_uint_eq(d.unmapped_at[0], 0xc0000000);
	ck_assert_uint_eq(d.mapped_at[0], 0xd0000000);
	put(&d, PCI_BASE_ADDRESS_1, 0x41, 4);
	ck_assert(!answers(&d, h.host.mmio, 0xd0000000));
	ck_assert(answers(&d, h.host.mmio, 0x41d0000000));
	/* The same address again is no move. */
	put(&d, PCI_BASE_ADDRESS_1, 0x41, 4);
	ck_assert_uint_eq(d.mapped[0], 3);
}
END_TEST

START_TEST(bar_on_top_of_another_stays_unmapped_and_shadows_nothing)
{
	pci_function_set_bar(&d.fn, 0, PCI_BAR_MEM32, false, 0x1000, &bar_ops, &d);
	pci_function_set_bar(&other.fn, 0, PCI_BAR_MEM32, false, 0x10000, &bar_ops, &other);
	pci_function_place_bar(&d.fn, 0, 0xc0001000);
	pci_function_place_bar(&other.fn, 0, 0xd0000000);
	enable(&d);
	enable(&other);
	put(&other, PCI_BASE_ADDRESS_0, 0xc0000000, 4);
	ck_assert(!other.fn.bars[0].mapped);
	ck_assert(answers(&d, h.host.mmio, 0xc0001000));
	ck_assert(!answers(&other, h.host.mmio, 0xc0000000));
	ck_assert(!answers(&other, h.host.mmio, 0xd0000000));
	/* It comes back as soon as it is put where there is room. */
	put(&other, PCI_BASE_ADDRESS_0, 0xd0000000, 4);
	ck_assert(answers(&other, h.host.mmio, 0xd0000000));
}
END_TEST

START_TEST(bar_on_top_of_ram_stays_unmapped)
{
	pci_function_set_bar(&d.fn, 0, PCI_BAR_MEM32, false, 0x1000, &bar_ops, &d);
	enable(&d);
	put(&d, PCI_BASE_ADDRESS_0, RAM - 0x1000, 4);
	ck_assert(!d.fn.bars[0].mapped);
	put(&d, PCI_BASE_ADDRESS_0, 0x1000, 4);
	ck_assert(!d.fn.bars[0].mapped);
	put(&d, PCI_BASE_ADDRESS_0, RAM, 4);
	ck_assert(d.fn.bars[0].mapped);
}
END_TEST

START_TEST(bar_outside_the_windows_stays_unmapped)
{
	static const struct pci_windows windows = {
		.mem32 = { 0xc0000000, 0x10000000 },
		.mem64 = { 0x4000000000, 0x1000000000 },
		.io = { 0xc000, 0x1000 },
	};
	static const struct {
		uint64_t address;
		bool decoded;
	} rows[] = {
		{ 0xc0000000, true },	       { 0xbffff000, false },
		{ 0xcffff000, true },	       { 0xd0000000, false },
		{ 0x4000000000, true },	       { 0x4ffffff000, true },
		{ 0x5000000000, false },       { 0x3ffffff000, false },
		{ 0xfffffffffffff000, false }, { 0, false },
	};

	d.fn.windows = &windows;
	pci_function_set_bar(&d.fn, 0, PCI_BAR_MEM64, false, 0x1000, &bar_ops, &d);
	pci_function_set_bar(&d.fn, 2, PCI_BAR_IO, false, 0x100, &bar_ops, &d);
	enable(&d);
	for (unsigned int i = 0; i < ARRAY_SIZE(rows); i++) {
		pci_function_place_bar(&d.fn, 0, rows[i].address);
		ck_assert_int_eq(d.fn.bars[0].mapped, rows[i].decoded);
	}
	put(&d, PCI_BASE_ADDRESS_2, 0xcf00, 4);
	ck_assert(d.fn.bars[2].mapped);
	put(&d, PCI_BASE_ADDRESS_2, 0x100, 4);
	ck_assert(!d.fn.bars[2].mapped);
}
END_TEST

START_TEST(two_bars_of_a_function_can_swap_places)
{
	pci_function_set_bar(&d.fn, 0, PCI_BAR_MEM32, false, 0x1000, &bar_ops, &d);
	pci_function_set_bar(&d.fn, 1, PCI_BAR_MEM32, false, 0x1000, &bar_ops, &d);
	pci_function_place_bar(&d.fn, 0, 0xc0000000);
	pci_function_place_bar(&d.fn, 1, 0xc0001000);
	enable(&d);
	put(&d, PCI_BASE_ADDRESS_0, 0xc0001000, 4);
	ck_assert(!d.fn.bars[0].mapped);
	put(&d, PCI_BASE_ADDRESS_1, 0xc0000000, 4);
	ck_assert(d.fn.bars[0].mapped && d.fn.bars[1].mapped);
	ck_assert_uint_eq(d.fn.bars[0].address, 0xc0001000);
	ck_assert_uint_eq(d.fn.bars[1].address, 0xc0000000);
}
END_TEST

START_TEST(sizing_while_decoded_leaves_the_bar_where_it_was)
{
	pci_function_set_bar(&d.fn, 0, PCI_BAR_MEM32, false, 0x1000, &bar_ops, &d);
	pci_function_place_bar(&d.fn, 0, 0xc0000000);
	enable(&d);
	put(&d, PCI_BASE_ADDRESS_0, 0xffffffff, 4);
	ck_assert_uint_eq(get(&d, PCI_BASE_ADDRESS_0, 4), 0xfffff000);
	put(&d, PCI_BASE_ADDRESS_0, 0xc0000000, 4);
	ck_assert(answers(&d, h.host.mmio, 0xc0000000));
	ck_assert(!answers(&d, h.host.mmio, 0xfffff000));
}
END_TEST

START_TEST(device_handles_its_own_registers)
{
	d.own_from = 0x80;
	d.own_to = 0x84;
	memset(d.fn.write_mask + 0x80, 0xff, 8);
	ck_assert_uint_eq(get(&d, 0x80, 4), 0xabababab);
	put(&d, 0x80, 1, 4);
	ck_assert_uint_eq(d.written, 0);
	ck_assert_uint_eq(d.fn.config[0x80], 0);
	put(&d, 0x84, 1, 4);
	ck_assert_uint_eq(d.written, 1);
	ck_assert_uint_eq(get(&d, 0x84, 4), 1);
}
END_TEST

START_TEST(reset_stops_decoding_and_keeps_addresses)
{
	pci_function_set_bar(&d.fn, 0, PCI_BAR_MEM32, false, 0x1000, &bar_ops, &d);
	pci_function_place_bar(&d.fn, 0, 0xc0000000);
	enable(&d);
	pci_function_reset(&d.fn);
	ck_assert_uint_eq(get(&d, PCI_COMMAND, 2), 0);
	ck_assert(!answers(&d, h.host.mmio, 0xc0000000));
	enable(&d);
	ck_assert(answers(&d, h.host.mmio, 0xc0000000));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pci_function");
	TCase *t = tcase_create("pci_function");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, header_says_what_the_device_is);
	tcase_add_test(t, config_can_be_read_in_bytes_words_and_dwords);
	tcase_add_test(t, malformed_config_access_reads_ones_and_drops_writes);
	tcase_add_test(t, whatever_is_written_read_only_bytes_stay);
	tcase_add_test(t, status_errors_are_cleared_by_writing_one);
	tcase_add_test(t, capabilities_form_a_list);
	tcase_add_test(t, capability_that_does_not_fit_is_refused);
	tcase_add_test(t, extended_capabilities_form_a_list);
	tcase_add_test(t, bar_tells_its_size);
	tcase_add_test(t, impossible_bar_is_not_made);
	tcase_add_test(t, bar_is_decoded_while_the_command_register_says_so);
	tcase_add_test(t, rom_needs_its_own_enable_bit_too);
	tcase_add_test(t, guest_moves_a_bar_while_it_is_decoded);
	tcase_add_test(t, bar_on_top_of_another_stays_unmapped_and_shadows_nothing);
	tcase_add_test(t, bar_on_top_of_ram_stays_unmapped);
	tcase_add_test(t, bar_outside_the_windows_stays_unmapped);
	tcase_add_test(t, two_bars_of_a_function_can_swap_places);
	tcase_add_test(t, sizing_while_decoded_leaves_the_bar_where_it_was);
	tcase_add_test(t, device_handles_its_own_registers);
	tcase_add_test(t, reset_stops_decoding_and_keeps_addresses);
	suite_add_tcase(s, t);
	return run_suite(s);
}
