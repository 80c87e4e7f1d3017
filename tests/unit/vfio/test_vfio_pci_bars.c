/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vfio/vfio_pci_fixture.h"

#define MSIX 0x50
#define AT 0xc0000000ULL
#define HIGH 0x4000000000ULL

/* A BAR of 64 KiB, MSI-X in its third and fifth page. */
static void device(void)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x10000, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 3, true);
	fake_vfio_pci_add_msix(&f.dev, MSIX, 3, 0, 0x2000, 0, 0x4000);
}

static void decode(bool on)
{
	guest_write(PCI_COMMAND, 2, on ? PCI_COMMAND_MEMORY | PCI_COMMAND_IO : 0);
}

static void place(unsigned int bar, uint64_t address)
{
	pci_function_place_bar(f.fn, bar, address);
	decode(true);
}

/* The slots as text, sorted by address: "gpa+size". */
static const char *slots(void)
{
	static char text[512];
	uint64_t after = 0;

	text[0] = '\0';
	for (unsigned int n = 0; n < f.slot_count; n++) {
		const struct fixture_slot *next = NULL;

		for (unsigned int i = 0; i < FIXTURE_SLOTS; i++)
			if (f.slots[i].used && f.slots[i].gpa >= after &&
			    (!next || f.slots[i].gpa < next->gpa))
				next = &f.slots[i];
		ck_assert_ptr_nonnull(next);
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%llx+%llx",
			 n ? " " : "", (unsigned long long)next->gpa,
			 (unsigned long long)next->size);
		after = next->gpa + 1;
	}
	return text;
}

START_TEST(a_bar_is_mapped_while_it_is_decoded)
{
	fake_vfio_pci_add_bar(&f.dev, 0,
			      PCI_BASE_ADDRESS_MEM_PREFETCH | PCI_BASE_ADDRESS_MEM_TYPE_64, 0x8000,
			      true);
	plug();
	ck_assert_int_eq(f.fn->bars[0].kind, PCI_BAR_MEM64);
	ck_assert(f.fn->bars[0].prefetchable);
	pci_function_place_bar(f.fn, 0, HIGH);
	ck_assert_uint_eq(f.slot_count, 0);
	decode(true);
	ck_assert_str_eq(slots(), "4000000000+8000");
	ck_assert_uint_eq(counters().mapped_bytes, 0x8000);
	*(uint32_t *)f.slots[0].hva = 0x1234;
	ck_assert_uint_eq(load_le32(f.dev.data[0]), 0x1234);
	place(0, HIGH + 0x8000);
	ck_assert_str_eq(slots(), "4000008000+8000");
	decode(false);
	ck_assert_str_eq(slots(), "");
	ck_assert_uint_eq(counters().mapped_bytes, 0);
}
END_TEST

START_TEST(a_read_only_region_is_mapped_read_only)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x1000, true);
	f.dev.regions[0].writable = false;
	plug();
	place(0, AT);
	ck_assert(f.slots[0].used && f.slots[0].readonly);
}
END_TEST

START_TEST(the_pages_of_the_msix_table_are_trapped)
{
	device();
	plug();
	place(0, AT);
	ck_assert_str_eq(slots(), "c0000000+2000 c0003000+1000 c0005000+b000");
	/* The table is ours, not the device's. */
	mmio_write(AT + 0x2000, 4, 0xfee00000);
	ck_assert_uint_eq(mmio_read(AT + 0x2000, 4), 0xfee00000);
	ck_assert_uint_eq(load_le32(f.dev.data[0] + 0x2000), 0);
	mmio_write(AT + 0x4000, 8, UINT64_MAX);
	ck_assert_uint_eq(mmio_read(AT + 0x4000, 8), 0);
	ck_assert_uint_eq(load_le32(f.dev.data[0] + 0x4000), 0);
	/* The rest of its page is the device's, one by one. */
	mmio_write(AT + 0x2100, 4, 0xcafe);
	ck_assert_uint_eq(load_le32(f.dev.data[0] + 0x2100), 0xcafe);
	ck_assert_uint_eq(mmio_read(AT + 0x2100, 4), 0xcafe);
	ck_assert_uint_eq(counters().bar_writes, 3);
	ck_assert_uint_eq(counters().bar_reads, 3);
}
END_TEST

START_TEST(the_table_is_trapped_also_where_the_driver_would_map_it)
{
	device();
	f.dev.regions[0].msix_mappable = true;
	plug();
	place(0, AT);
	ck_assert_str_eq(slots(), "c0000000+2000 c0003000+1000 c0005000+b000");
}
END_TEST

START_TEST(a_table_and_its_pending_bits_may_share_a_page)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x4000, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 3, true);
	fake_vfio_pci_add_msix(&f.dev, MSIX, 3, 0, 0x1800, 0, 0x1000);
	plug();
	place(0, AT);
	ck_assert_str_eq(slots(), "c0000000+1000 c0002000+2000");
}
END_TEST

START_TEST(sparse_areas_are_mapped_and_the_rest_is_trapped)
{
	device();
	f.dev.regions[0].area_count = 3;
	f.dev.regions[0].areas[0] = (struct vfio_area){ 0x0, 0x1000 };
	f.dev.regions[0].areas[1] =
		(struct vfio_area){ 0x1800, 0x3000 }; /* 0x2000-0x3fff in pages */
	f.dev.regions[0].areas[2] = (struct vfio_area){ 0x8000, 0x8000 };
	plug();
	place(0, AT);
	ck_assert_str_eq(slots(), "c0000000+1000 c0003000+1000 c0008000+8000");
	store_le32(f.dev.data[0] + 0x6000, 0x77);
	ck_assert_uint_eq(mmio_read(AT + 0x6000, 4), 0x77);
}
END_TEST

START_TEST(an_area_larger_than_its_region_is_not_mapped)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x4000, true);
	f.dev.regions[0].area_count = 3;
	f.dev.regions[0].areas[0] = (struct vfio_area){ 0x1000, 0x4000 };
	f.dev.regions[0].areas[1] = (struct vfio_area){ 0x2000, UINT64_MAX };
	f.dev.regions[0].areas[2] = (struct vfio_area){ UINT64_MAX - 0xfff, 0x1000 };
	plug();
	place(0, AT);
	ck_assert_str_eq(slots(), "");
	ck_assert_uint_eq(f.dev.maps, 0);
}
END_TEST

START_TEST(a_bar_smaller_than_a_page_is_shown_as_one)
{
	fake_vfio_pci_add_bar(&f.dev, 1, 0, 256, true);
	plug();
	ck_assert_uint_eq(f.fn->bars[1].size, 4096);
	place(1, AT);
	ck_assert_str_eq(slots(), "c0000000+1000");
}
END_TEST

START_TEST(a_small_bar_that_cannot_be_mapped_keeps_its_size)
{
	fake_vfio_pci_add_bar(&f.dev, 1, 0, 256, false);
	plug();
	ck_assert_uint_eq(f.fn->bars[1].size, 256);
	place(1, AT);
	ck_assert_str_eq(slots(), "");
	mmio_write(AT + 0xfc, 4, 5);
	ck_assert_uint_eq(load_le32(f.dev.data[1] + 0xfc), 5);
}
END_TEST

START_TEST(a_region_of_an_odd_size_reads_ones_past_its_end)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x3000, true);
	plug();
	ck_assert_uint_eq(f.fn->bars[0].size, 0x4000);
	place(0, AT);
	ck_assert_str_eq(slots(), "c0000000+3000");
	ck_assert_uint_eq(mmio_read(AT + 0x3000, 4), UINT32_MAX);
	mmio_write(AT + 0x3ffc, 4, 1);
}
END_TEST

START_TEST(excluded_bars_are_trapped)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x4000, true);
	fake_vfio_pci_add_bar(&f.dev, 1, 0, 0x4000, true);
	f.options.exclude_mmap_bars = 1 << 1;
	plug();
	pci_function_place_bar(f.fn, 1, AT + 0x10000);
	place(0, AT);
	ck_assert_str_eq(slots(), "c0000000+4000");
	ck_assert_uint_eq(f.dev.maps, 1);
	mmio_write(AT + 0x10008, 8, 0x1122334455667788);
	ck_assert_uint_eq(load_le64(f.dev.data[1] + 8), 0x1122334455667788);
}
END_TEST

START_TEST(the_bar_of_the_msix_table_can_be_excluded_whole)
{
	device();
	fake_vfio_pci_add_bar(&f.dev, 1, 0, 0x1000, true);
	f.options.exclude_msix_bar = true;
	plug();
	pci_function_place_bar(f.fn, 1, AT + 0x10000);
	place(0, AT);
	ck_assert_str_eq(slots(), "c0010000+1000");
}
END_TEST

START_TEST(out_of_slots_a_bar_is_trapped)
{
	device();
	f.slot_limit = 2;
	plug();
	place(0, AT);
	ck_assert_uint_eq(f.slot_count, 2);
	mmio_write(AT + 0x5000, 4, 9);
	ck_assert_uint_eq(load_le32(f.dev.data[0] + 0x5000), 9);
	decode(false);
	ck_assert_uint_eq(f.slot_count, 0);
}
END_TEST

START_TEST(a_bar_that_cannot_be_mapped_is_trapped)
{
	device();
	f.dev.fail_op[FAKE_VFIO_PCI_MAP] = -ENOMEM;
	plug();
	place(0, AT);
	ck_assert_uint_eq(f.slot_count, 0);
	mmio_write(AT + 0x10, 4, 9);
	ck_assert_uint_eq(mmio_read(AT + 0x10, 4), 9);
}
END_TEST

START_TEST(accesses_that_fail_read_ones)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x1000, false);
	plug();
	place(0, AT);
	f.dev.fail_op[FAKE_VFIO_PCI_READ] = f.dev.fail_op[FAKE_VFIO_PCI_WRITE] = -EIO;
	ck_assert_uint_eq(mmio_read(AT, 8), UINT64_MAX);
	mmio_write(AT, 4, 0);
}
END_TEST

START_TEST(io_bars_are_trapped)
{
	uint8_t data[4] = { 1, 2, 3, 4 };

	fake_vfio_pci_add_bar(&f.dev, 2, PCI_BASE_ADDRESS_SPACE_IO, 32, false);
	plug();
	ck_assert_int_eq(f.fn->bars[2].kind, PCI_BAR_IO);
	ck_assert_uint_eq(f.fn->bars[2].size, 32);
	place(2, 0xd000);
	ck_assert(bus_write(f.h.host.pio, 0xd008, data, 4));
	ck_assert_uint_eq(load_le32(f.dev.data[2] + 8), 0x04030201);
}
END_TEST

START_TEST(a_bar_its_register_cannot_address_is_refused)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x1000, false);
	f.dev.regions[0].size = 1ULL << 32;
	refused("bar0 of 0x100000000 bytes is larger than its register can address");
	f.dev.regions[0].size = 0x1000;
}
END_TEST

START_TEST(a_64_bit_bar_without_room_is_refused)
{
	fake_vfio_pci_add_bar(&f.dev, 5, PCI_BASE_ADDRESS_MEM_TYPE_64, 0x1000, false);
	refused("64 bits wide and the last");
}
END_TEST

START_TEST(a_bar_in_the_upper_half_of_another_is_refused)
{
	fake_vfio_pci_add_bar(&f.dev, 0, PCI_BASE_ADDRESS_MEM_TYPE_64, 0x1000, false);
	fake_vfio_pci_add_bar(&f.dev, 1, 0, 0x1000, false);
	refused("upper half");
}
END_TEST

START_TEST(an_io_bar_beyond_a_pcs_is_refused)
{
	fake_vfio_pci_add_bar(&f.dev, 0, PCI_BASE_ADDRESS_SPACE_IO, 0x10000, false);
	refused("I/O space");
}
END_TEST

static void table_at(unsigned int vectors, unsigned int bar, uint32_t offset)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x1000, true);
	fake_vfio_pci_add_bar(&f.dev, 1, PCI_BASE_ADDRESS_SPACE_IO, 0x100, false);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, vectors, true);
	fake_vfio_pci_add_msix(&f.dev, MSIX, vectors, bar, offset, 0, 0);
}

START_TEST(a_table_beyond_its_bar_is_refused)
{
	table_at(17, 0, 0xf00);
	refused("MSI-X table of 17 vectors at bar0+0xf00: that is beyond its end");
}
END_TEST

START_TEST(a_table_far_beyond_its_bar_is_refused)
{
	table_at(1, 0, 0xfffffff8);
	refused("that is beyond its end");
}
END_TEST

START_TEST(a_table_in_an_io_bar_is_refused)
{
	table_at(1, 1, 0);
	refused("that is an I/O BAR");
}
END_TEST

START_TEST(a_table_in_no_bar_is_refused)
{
	table_at(1, 7, 0);
	refused("there is no such BAR");
}
END_TEST

START_TEST(pending_bits_beyond_their_bar_are_left_out)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x2000, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 3, true);
	fake_vfio_pci_add_msix(&f.dev, MSIX, 3, 0, 0, 6, 0x10000);
	plug();
	place(0, AT);
	ck_assert_str_eq(slots(), "c0001000+1000");
}
END_TEST

START_TEST(the_rom_is_read_when_it_is_first_enabled)
{
	unsigned int reads;

	fake_vfio_pci_add_region(&f.dev, VFIO_PCI_ROM_REGION_INDEX, 3000, false);
	store_le32(f.dev.data[VFIO_PCI_ROM_REGION_INDEX] + 2996, 0xaa55);
	plug();
	ck_assert_uint_eq(f.fn->bars[PCI_ROM_BAR].size, 4096);
	place(PCI_ROM_BAR, AT);
	reads = f.dev.calls[FAKE_VFIO_PCI_READ];
	guest_write(PCI_ROM_ADDRESS, 4, (uint32_t)AT | PCI_ROM_ADDRESS_ENABLE);
	ck_assert_uint_eq(mmio_read(AT + 2996, 4), 0xaa55);
	ck_assert_uint_eq(mmio_read(AT + 3000, 4), UINT32_MAX);
	mmio_write(AT, 4, 0);
	guest_write(PCI_ROM_ADDRESS, 4, (uint32_t)AT);
	guest_write(PCI_ROM_ADDRESS, 4, (uint32_t)AT | PCI_ROM_ADDRESS_ENABLE);
	ck_assert_uint_eq(f.dev.calls[FAKE_VFIO_PCI_READ], reads + 1);
}
END_TEST

START_TEST(a_rom_that_cannot_be_read_is_all_ones)
{
	fake_vfio_pci_add_region(&f.dev, VFIO_PCI_ROM_REGION_INDEX, 4096, false);
	plug();
	place(PCI_ROM_BAR, AT);
	f.dev.fail_op[FAKE_VFIO_PCI_READ] = -EIO;
	guest_write(PCI_ROM_ADDRESS, 4, (uint32_t)AT | PCI_ROM_ADDRESS_ENABLE);
	ck_assert_uint_eq(mmio_read(AT, 4), UINT32_MAX);
}
END_TEST

START_TEST(a_rom_larger_than_any_is_refused)
{
	fake_vfio_pci_add_region(&f.dev, VFIO_PCI_ROM_REGION_INDEX, 4096, false);
	f.dev.regions[VFIO_PCI_ROM_REGION_INDEX].size = 1ULL << 40;
	refused("expansion ROM of 0x10000000000 bytes");
	f.dev.regions[VFIO_PCI_ROM_REGION_INDEX].size = 4096;
}
END_TEST

START_TEST(peers_reach_mapped_bars_by_address_with_type1)
{
	struct fake_space space;

	device();
	fake_space_init(&space, "type1");
	f.options.peer_space = &space.space;
	plug();
	vfio_pci_meet_peers(f.fn);
	place(0, AT);
	run_loop();
	ck_assert_uint_eq(space.count, 3);
	ck_assert_uint_eq(space.maps[0].iova, AT);
	ck_assert_uint_eq(space.maps[0].size, 0x2000);
	ck_assert(!space.maps[0].by_fd);
	place(0, AT + 0x10000);
	run_loop();
	ck_assert_uint_eq(space.count, 3);
	ck_assert_uint_eq(space.maps[0].iova, AT + 0x10000);
	decode(false);
	run_loop();
	ck_assert_uint_eq(space.count, 0);
	decode(true);
	unplug(); /* with a task still posted, and then one mapped */
	run_loop();
	ck_assert_uint_eq(space.count, 0);
	ck_assert_uint_eq(space.misuses, 0);
}
END_TEST

START_TEST(peers_reach_mapped_bars_by_dma_buf_with_iommufd)
{
	struct fake_space space;

	device();
	f.dev.exports_dma_bufs = true;
	fake_space_init(&space, "iommufd");
	f.options.peer_space = &space.space;
	plug();
	vfio_pci_meet_peers(f.fn);
	place(0, AT);
	run_loop();
	ck_assert_uint_eq(space.count, 3);
	ck_assert(space.maps[0].by_fd);
	unplug();
	ck_assert_uint_eq(space.count, 0);
	ck_assert_uint_eq(space.misuses, 0);
}
END_TEST

START_TEST(a_device_without_dma_bufs_works_without_peers)
{
	struct fake_space space;

	device();
	fake_space_init(&space, "iommufd");
	f.options.peer_space = &space.space;
	plug();
	vfio_pci_meet_peers(f.fn);
	place(0, AT);
	run_loop();
	ck_assert_uint_eq(space.count, 0);
	ck_assert_uint_eq(f.slot_count, 3);
}
END_TEST

START_TEST(a_space_that_refuses_a_bar_is_not_asked_again)
{
	struct fake_space space;

	device();
	fake_space_init(&space, "type1");
	space.map_error = -EFAULT;
	f.options.peer_space = &space.space;
	plug();
	vfio_pci_meet_peers(f.fn);
	place(0, AT);
	run_loop();
	space.map_error = 0;
	place(0, AT + 0x10000);
	run_loop();
	ck_assert_uint_eq(space.count, 0);
	unplug();
	ck_assert_uint_eq(space.misuses, 0);
}
END_TEST

/* Everything a device can have. */
static void rich_device(void)
{
	device();
	fake_vfio_pci_add_bar(&f.dev, 2, PCI_BASE_ADDRESS_MEM_TYPE_64, 0x2000, true);
	fake_vfio_pci_add_bar(&f.dev, 4, PCI_BASE_ADDRESS_SPACE_IO, 32, false);
	fake_vfio_pci_add_region(&f.dev, VFIO_PCI_ROM_REGION_INDEX, 4096, false);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_INTX_IRQ_INDEX, 1, false);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSI_IRQ_INDEX, 1, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_ERR_IRQ_INDEX, 1, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_REQ_IRQ_INDEX, 1, true);
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_EXP, 0x60);
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_MSI, 0xa0);
	fake_vfio_pci_add_ext_cap(&f.dev, PCI_EXT_CAP_ID_DSN, 0x100);
}

START_TEST(a_device_alone_maps_nothing_for_peers_until_one_comes)
{
	struct fake_space space;

	device();
	fake_space_init(&space, "type1");
	f.options.peer_space = &space.space;
	plug();
	ck_assert(vfio_pci_may_meet_peers(f.fn));
	place(0, AT);
	run_loop();
	ck_assert_uint_eq(space.count, 0);
	vfio_pci_meet_peers(f.fn);
	vfio_pci_meet_peers(f.fn);
	run_loop();
	ck_assert_uint_eq(space.count, 3);
	ck_assert_uint_eq(space.maps[0].iova, AT);
	unplug();
	ck_assert_uint_eq(space.count, 0);
	ck_assert_uint_eq(space.misuses, 0);
}
END_TEST

START_TEST(each_call_that_fails_is_survived_and_leaks_nothing)
{
	bool failed = true;
	unsigned int n = 0, survived = 0;

	for (; failed; n++) {
		fake_vfio_pci_destroy(&f.dev);
		fake_vfio_pci_init(&f.dev);
		rich_device();
		f.dev.fail_at = n + 1;
		if (try_plug()) {
			survived += f.dev.failed;
			f.fn->intx.gsi = 17;
			place(0, AT);
			guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
			guest_write(MSIX + 2, 2, PCI_MSIX_FLAGS_ENABLE);
			mmio_write(AT + 0x2000 + 12, 4, 0);
			guest_write(MSIX + 2, 2, 0);
			f.fn->ops->reset(f.fn);
			failed = f.dev.failed;
			/* A device that could not be told to stop is closed all the same. */
			for (unsigned int i = 0; i < VFIO_PCI_NUM_IRQS; i++)
				if (failed)
					f.dev.irqs[i].enabled = 0;
			f.dev.fail_at = 0;
			unplug();
		} else {
			ck_assert_ptr_nonnull(strstr(f.err.message, "fake: "));
			ck_assert_ptr_nonnull(strstr(f.err.message, "vf0: "));
			ck_assert_uint_eq(f.dev.closes, 0);
			nothing_is_left();
		}
		ck_assert_uint_lt(n, 1000);
	}
	ck_assert_uint_gt(n, 60);
	ck_assert_uint_gt(survived, 3);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vfio_pci_bars");
	TCase *tc = tcase_create("bars");

	tcase_add_checked_fixture(tc, fixture_setup, fixture_teardown);
	tcase_add_test(tc, a_bar_is_mapped_while_it_is_decoded);
	tcase_add_test(tc, a_read_only_region_is_mapped_read_only);
	tcase_add_test(tc, the_pages_of_the_msix_table_are_trapped);
	tcase_add_test(tc, the_table_is_trapped_also_where_the_driver_would_map_it);
	tcase_add_test(tc, a_table_and_its_pending_bits_may_share_a_page);
	tcase_add_test(tc, sparse_areas_are_mapped_and_the_rest_is_trapped);
	tcase_add_test(tc, an_area_larger_than_its_region_is_not_mapped);
	tcase_add_test(tc, a_bar_smaller_than_a_page_is_shown_as_one);
	tcase_add_test(tc, a_small_bar_that_cannot_be_mapped_keeps_its_size);
	tcase_add_test(tc, a_region_of_an_odd_size_reads_ones_past_its_end);
	tcase_add_test(tc, excluded_bars_are_trapped);
	tcase_add_test(tc, the_bar_of_the_msix_table_can_be_excluded_whole);
	tcase_add_test(tc, out_of_slots_a_bar_is_trapped);
	tcase_add_test(tc, a_bar_that_cannot_be_mapped_is_trapped);
	tcase_add_test(tc, accesses_that_fail_read_ones);
	tcase_add_test(tc, io_bars_are_trapped);
	tcase_add_test(tc, a_bar_its_register_cannot_address_is_refused);
	tcase_add_test(tc, a_64_bit_bar_without_room_is_refused);
	tcase_add_test(tc, a_bar_in_the_upper_half_of_another_is_refused);
	tcase_add_test(tc, an_io_bar_beyond_a_pcs_is_refused);
	tcase_add_test(tc, a_table_beyond_its_bar_is_refused);
	tcase_add_test(tc, a_table_far_beyond_its_bar_is_refused);
	tcase_add_test(tc, a_table_in_an_io_bar_is_refused);
	tcase_add_test(tc, a_table_in_no_bar_is_refused);
	tcase_add_test(tc, pending_bits_beyond_their_bar_are_left_out);
	tcase_add_test(tc, the_rom_is_read_when_it_is_first_enabled);
	tcase_add_test(tc, a_rom_that_cannot_be_read_is_all_ones);
	tcase_add_test(tc, a_rom_larger_than_any_is_refused);
	tcase_add_test(tc, peers_reach_mapped_bars_by_address_with_type1);
	tcase_add_test(tc, peers_reach_mapped_bars_by_dma_buf_with_iommufd);
	tcase_add_test(tc, a_device_without_dma_bufs_works_without_peers);
	tcase_add_test(tc, a_device_alone_maps_nothing_for_peers_until_one_comes);
	tcase_add_test(tc, a_space_that_refuses_a_bar_is_not_asked_again);
	tcase_add_test(tc, each_call_that_fails_is_survived_and_leaks_nothing);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
