/* SPDX-License-Identifier: Apache-2.0 */
/* The DMA space of a legacy container, and the groups in it. */
#include "tests/unit/vfio/kernel_fixture.h"

START_TEST(mappings_wait_for_the_first_group)
{
	struct dma_space *space = open_type1();
	struct vfio_transport *t;

	map_memory(space);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 0);
	t = open_group(space, PF);
	ck_assert(fake.iommu_set);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 2);
	ck_assert_uint_eq(fake.maps[1].iova, HIGH);
	ck_assert_uint_eq(fake.maps[1].address, (uintptr_t)guest_memory_region(memory, 1)->hva);
	ck_assert(fake.maps[1].writable);
	t->ops->close(t);
	space->ops->free(space);
}
END_TEST

START_TEST(mappings_come_back_after_the_last_group_has_left)
{
	struct dma_space *space = open_type1();
	struct vfio_transport *t = open_group(space, PF);
	struct error err = ERROR_INIT;

	map_memory(space);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 2);
	t->ops->close(t);
	ck_assert(!fake.iommu_set);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 0);
	ck_assert_int_eq(space->ops->unmap(space, HIGH, RAM - LOW, NULL, &err), 0);
	t = open_group(space, VF);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 1);
	t->ops->close(t);
	space->ops->free(space);
}
END_TEST

START_TEST(unmap_that_misses_is_an_error)
{
	struct dma_space *space = open_type1();
	struct vfio_transport *t = open_group(space, PF);
	struct error err = ERROR_INIT;

	map_memory(space);
	ck_assert_int_eq(space->ops->unmap(space, 0, LOW / 2, NULL, &err), -EIO);
	check_message(&err, "VFIO_IOMMU_UNMAP_DMA 0x100000 bytes at IOVA 0x0");
	ck_assert_int_eq(space->ops->unmap(space, 0, LOW, NULL, &err), 0);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 1);
	t->ops->close(t);
	space->ops->free(space);
}
END_TEST

START_TEST(container_maps_no_file)
{
	struct dma_space *space = open_type1();

	ck_assert_int_eq(space->ops->map(space, 0, MIB, 5, 0, NULL, true, NULL), -EOPNOTSUPP);
	space->ops->free(space);
}
END_TEST

START_TEST(ranges_are_everything_until_a_group_says_less)
{
	struct dma_space *space = open_type1();
	struct dma_range ranges[4];
	struct vfio_transport *t;

	fake.range_count = 2;
	fake.ranges[0].start = 8 * GIB;
	fake.ranges[0].last = 9 * GIB;
	fake.ranges[1].last = 4 * GIB;
	ck_assert_int_eq(space->ops->iova_ranges(space, ranges, 4, NULL), 1);
	ck_assert_uint_eq(ranges[0].last, UINT64_MAX);
	t = open_group(space, PF);
	ck_assert_int_eq(space->ops->iova_ranges(space, ranges, 4, NULL), 2);
	ck_assert_uint_eq(ranges[0].last, 4 * GIB);
	ck_assert_uint_eq(ranges[1].start, 8 * GIB);
	ck_assert_int_eq(space->ops->iova_ranges(space, ranges, 1, NULL), 1);
	ck_assert_int_eq(space->ops->iova_ranges(space, ranges, 0, NULL), 0);
	t->ops->close(t);
	space->ops->free(space);
}
END_TEST

START_TEST(group_that_cannot_map_what_is_mapped_is_refused_with_the_range)
{
	struct dma_space *space = open_type1();
	struct error err = ERROR_INIT;

	map_memory(space);
	fake.range_count = 1;
	fake.ranges[0].last = 4 * GIB;
	ck_assert_ptr_null(vfio_transport_open_group(path_of(PF), space, NULL, &err));
	ck_assert_int_eq(err.code, -EINVAL);
	check_message(&err, PF ": map 0x100000000-0x1000fffff for DMA");
	check_message(&err, "it maps 0x0-0x100000000");
	ck_assert_int_eq(fake.opened, 1);
	space->ops->free(space);
}
END_TEST

START_TEST(devices_of_a_group_share_its_descriptor)
{
	struct dma_space *space = open_type1();
	struct vfio_transport *a = open_group(space, VF), *b = open_group(space, VF2), *c;

	ck_assert_int_eq(fake.opened, 4); /* container, group, two devices */
	a->ops->close(a);
	ck_assert(fake.iommu_set);
	c = open_group(space, PF);
	ck_assert_int_eq(fake.opened, 5);
	b->ops->close(b);
	ck_assert(fake.iommu_set);
	c->ops->close(c);
	ck_assert_int_eq(fake.opened, 1);
	space->ops->free(space);
}
END_TEST

START_TEST(group_that_is_not_viable_names_the_devices_that_hold_it_back)
{
	struct dma_space *space = open_type1();
	struct error err = ERROR_INIT;

	fake_vfio_stranger(&fake, "0000:01:00.0", 7, "igb");
	fake_vfio_stranger(&fake, "0000:01:00.1", 7, "snd_hda_intel");
	fake_vfio_stranger(&fake, "0000:00:1c.0", 7, "pcieport");
	fake_vfio_stranger(&fake, "0000:01:00.2", 7, NULL);
	fake.not_viable = true;
	ck_assert_ptr_null(vfio_transport_open_group(path_of(PF), space, NULL, &err));
	ck_assert_int_eq(err.code, -EBUSY);
	check_message(&err, "IOMMU group 7 is not viable");
	check_message(&err, "0000:01:00.0 (igb)");
	check_message(&err, "0000:01:00.1 (snd_hda_intel)");
	ck_assert_ptr_null(strstr(err.message, "1c.0"));
	ck_assert_ptr_null(strstr(err.message, "00.2"));
	ck_assert_ptr_null(strstr(err.message, PF " ("));
	space->ops->free(space);
}
END_TEST

START_TEST(group_in_use_elsewhere_says_so)
{
	struct dma_space *space = open_type1();
	struct error err = ERROR_INIT;
	int fd = fake.kernel.open(&fake, "/dev/vfio/7", O_RDWR);

	ck_assert_ptr_null(vfio_transport_open_group(path_of(PF), space, NULL, &err));
	check_message(&err, PF ": open /dev/vfio/7: ");
	check_message(&err, "another process");
	fake.kernel.close(&fake, fd);
	space->ops->free(space);
}
END_TEST

START_TEST(each_call_that_fails_leaves_nothing_and_has_its_own_message)
{
	static struct messages messages;
	unsigned int n;

	for (n = 1;; n++) {
		struct error err = ERROR_INIT;
		struct vfio_transport *t = NULL;
		struct dma_space *space;

		fail_call(n);
		space = dma_space_open_type1_with(&fake.kernel, NULL, &err);
		if (space)
			t = vfio_transport_open_group(path_of(PF), space, NULL, &err);
		if (t && !dma_space_map_memory(space, memory, &err)) {
			ck_assert_ptr_null(fake.failed);
			t->ops->close(t);
			space->ops->free(space);
			break;
		}
		add_message(&messages, &err);
		ck_assert_uint_eq(fake_vfio_map_count(&fake), 0);
		if (t)
			t->ops->close(t);
		if (space) {
			ck_assert_int_eq(fake.opened, 1);
			space->ops->free(space);
		}
		ck_assert_int_eq(fake.opened, 0);
	}
	/* open, version, extension; open, status, container, iommu, info twice, device, info; maps
	 */
	ck_assert_uint_eq(n, 14);
}
END_TEST

START_TEST(replay_that_fails_leaves_the_space_as_it_was)
{
	struct dma_space *space = open_type1();
	struct vfio_transport *t;
	unsigned int failures = 0;

	map_memory(space);
	for (unsigned int n = 1;; n++) {
		struct error err = ERROR_INIT;

		fail_call(n);
		t = vfio_transport_open_group(path_of(PF), space, NULL, &err);
		if (t)
			break;
		failures++;
		ck_assert_int_eq(fake.opened, 1);
		ck_assert_uint_eq(kernel_space_of(space)->mapping_count, 2);
	}
	ck_assert_uint_eq(failures, 10);
	t->ops->close(t);
	space->ops->free(space);
}
END_TEST

START_TEST(wrong_container_is_refused)
{
	struct error err = ERROR_INIT;

	fake.api_version = 1;
	ck_assert_ptr_null(dma_space_open_type1_with(&fake.kernel, NULL, &err));
	check_message(&err, "VFIO API version 1");
	fake.api_version = 0;
	fake.no_type1 = true;
	ck_assert_ptr_null(dma_space_open_type1_with(&fake.kernel, NULL, &err));
	check_message(&err, "modprobe vfio_iommu_type1");
}
END_TEST

START_TEST(unsafe_interrupts_are_explained)
{
	struct dma_space *space = open_type1();
	struct error err = ERROR_INIT;

	fake.fail_code = EPERM;
	fail_call(4); /* open, status, container, then VFIO_SET_IOMMU */
	ck_assert_ptr_null(vfio_transport_open_group(path_of(PF), space, NULL, &err));
	check_message(&err, "interrupt remapping");
	space->ops->free(space);
}
END_TEST

START_TEST(too_many_mappings_are_explained)
{
	struct dma_space *space = open_type1();
	struct vfio_transport *t = open_group(space, PF);
	struct error err = ERROR_INIT;

	for (unsigned int i = 0; i < FAKE_MAX; i++)
		ck_assert_int_eq(
			space->ops->map(space, i * 4096UL, 4096, -1, 0, memory, true, &err), 0);
	ck_assert_int_eq(space->ops->map(space, GIB, 4096, -1, 0, memory, true, &err), -ENOSPC);
	check_message(&err, "dma_entry_limit");
	t->ops->close(t);
	space->ops->free(space);
}
END_TEST

START_TEST(memlock_limit_counts_what_the_process_has_locked)
{
	struct dma_space *space = open_type1();
	struct error err = ERROR_INIT;

	fake.memlock = (struct vfio_memlock){ .limit = 4 * MIB, .locked = 2 * MIB, .pinned = GIB };
	ck_assert_int_eq(dma_space_map_memory(space, memory, &err), -ENOMEM);
	check_message(&err, "5 MiB would do");
	ck_assert_uint_eq(kernel_space_of(space)->mapping_count, 0);
	space->ops->free(space);
}
END_TEST

START_TEST(dirty_log_runs_from_start_to_stop)
{
	struct dma_space *space = open_type1();
	struct vfio_transport *t = open_group(space, PF);
	struct dirty_bitmap bitmap = make_bitmap(LOW / 4096);
	struct error err = ERROR_INIT;

	map_memory(space);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, LOW, false, &bitmap, &err), -EINVAL);
	ck_assert_int_eq(space->ops->dirty_start(space, &err), 0);
	fake_vfio_write(&fake, 3 * 4096);
	fake_vfio_write(&fake, LOW - 4096);
	dirty_bitmap_set(&bitmap, 8, 1);
	ck_assert_msg(!space->ops->dirty_collect(space, 0, LOW, false, &bitmap, &err), "%s",
		      err.message);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 3);
	dirty_bitmap_clear(&bitmap, 0, LOW / 4096);
	fake_vfio_write(&fake, 4096);
	ck_assert_msg(!space->ops->unmap(space, 0, LOW, &bitmap, &err), "%s", err.message);
	ck_assert(dirty_bitmap_test(&bitmap, 1));
	space->ops->dirty_stop(space);
	ck_assert(!fake.logging);
	/* Off, an unmap has nothing to tell. */
	ck_assert_int_eq(space->ops->unmap(space, HIGH, RAM - LOW, &bitmap, &err), 0);
	t->ops->close(t);
	space->ops->free(space);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(dirty_log_goes_on_with_the_next_group)
{
	struct dma_space *space = open_type1();
	struct dirty_bitmap bitmap = make_bitmap(LOW / 4096);
	struct vfio_transport *t;
	struct error err = ERROR_INIT;

	map_memory(space);
	ck_assert_int_eq(space->ops->dirty_start(space, &err), 0);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, LOW, false, &bitmap, &err), 0);
	t = open_group(space, PF);
	ck_assert(fake.logging);
	t->ops->close(t);
	t = open_group(space, VF);
	ck_assert(fake.logging);
	space->ops->dirty_stop(space);
	ck_assert(!fake.logging);
	t->ops->close(t);
	space->ops->free(space);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(container_without_a_dirty_log_says_so)
{
	struct dma_space *space = open_type1();
	struct vfio_transport *t;
	struct error err = ERROR_INIT;

	fake.no_dirty_log = true;
	t = open_group(space, PF);
	ck_assert_int_eq(space->ops->dirty_start(space, &err), -EOPNOTSUPP);
	space->ops->dirty_stop(space);
	t->ops->close(t);
	space->ops->free(space);
}
END_TEST

START_TEST(dirty_log_that_cannot_be_read_is_an_error)
{
	struct dma_space *space = open_type1();
	struct vfio_transport *t = open_group(space, PF);
	struct dirty_bitmap bitmap = make_bitmap(LOW / 4096);
	struct error err = ERROR_INIT;

	map_memory(space);
	fail_call(1);
	ck_assert_int_eq(space->ops->dirty_start(space, &err), -EIO);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, LOW, false, &bitmap, &err), -EINVAL);
	ck_assert_int_eq(space->ops->dirty_start(space, &err), 0);
	fail_call(1);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, LOW, false, &bitmap, &err), -EIO);
	check_message(&err, "GET_BITMAP of 0x200000 bytes at IOVA 0x0");
	fail_call(1);
	ck_assert_int_eq(space->ops->unmap(space, 0, LOW, &bitmap, &err), -EIO);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 2);
	t->ops->close(t);
	space->ops->free(space);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(bars_are_mapped_for_peers_while_devices_come_and_go)
{
	struct dma_space *space = open_type1();
	struct vfio_transport *t = open_group(space, PF);

	map_memory(space);
	map_peers_while_devices_come_and_go(space, open_group);
	t->ops->close(t);
	space->ops->free(space);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dma_type1");
	TCase *t = tcase_create("dma_type1");

	tcase_add_checked_fixture(t, fixture_setup, fixture_teardown);
	tcase_add_test(t, mappings_wait_for_the_first_group);
	tcase_add_test(t, mappings_come_back_after_the_last_group_has_left);
	tcase_add_test(t, unmap_that_misses_is_an_error);
	tcase_add_test(t, container_maps_no_file);
	tcase_add_test(t, ranges_are_everything_until_a_group_says_less);
	tcase_add_test(t, group_that_cannot_map_what_is_mapped_is_refused_with_the_range);
	tcase_add_test(t, devices_of_a_group_share_its_descriptor);
	tcase_add_test(t, group_that_is_not_viable_names_the_devices_that_hold_it_back);
	tcase_add_test(t, group_in_use_elsewhere_says_so);
	tcase_add_test(t, each_call_that_fails_leaves_nothing_and_has_its_own_message);
	tcase_add_test(t, replay_that_fails_leaves_the_space_as_it_was);
	tcase_add_test(t, wrong_container_is_refused);
	tcase_add_test(t, unsafe_interrupts_are_explained);
	tcase_add_test(t, too_many_mappings_are_explained);
	tcase_add_test(t, memlock_limit_counts_what_the_process_has_locked);
	tcase_add_test(t, dirty_log_runs_from_start_to_stop);
	tcase_add_test(t, dirty_log_goes_on_with_the_next_group);
	tcase_add_test(t, container_without_a_dirty_log_says_so);
	tcase_add_test(t, dirty_log_that_cannot_be_read_is_an_error);
	tcase_add_test(t, bars_are_mapped_for_peers_while_devices_come_and_go);
	suite_add_tcase(s, t);
	return run_suite(s);
}
