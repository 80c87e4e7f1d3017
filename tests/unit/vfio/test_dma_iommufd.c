/* SPDX-License-Identifier: Apache-2.0 */
/* The DMA space of an iommufd. */
#include "tests/unit/vfio/kernel_fixture.h"

START_TEST(ram_is_mapped_by_file_one_call_a_region)
{
	const struct guest_memory_region *high = guest_memory_region(memory, 1);
	struct dma_space *space = open_iommufd();
	unsigned int calls = fake.calls;

	map_memory(space);
	ck_assert_uint_eq(fake.calls - calls, 3); /* ranges, and two regions */
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 2);
	ck_assert(fake.maps[1].by_file && fake.maps[1].writable);
	ck_assert_int_eq(fake.maps[1].fd, high->memfd);
	ck_assert_uint_eq(fake.maps[1].address, high->offset);
	ck_assert_uint_eq(fake.maps[1].iova, HIGH);
	ck_assert_uint_eq(fake.maps[1].size, RAM - LOW);
	ck_assert_int_eq(dma_space_fd(space), fake.iommufd);
	ck_assert_uint_eq(dma_space_ioas(space), fake.ioas);
	space->ops->free(space);
}
END_TEST

START_TEST(kernel_without_map_file_maps_by_address_and_is_asked_once)
{
	struct dma_space *space;
	unsigned int calls;

	fake.no_map_file = true;
	space = open_iommufd();
	calls = fake.calls;
	map_memory(space);
	ck_assert_uint_eq(fake.calls - calls, 4);
	ck_assert(!fake.maps[0].by_file);
	ck_assert_uint_eq(fake.maps[0].address, (uintptr_t)guest_memory_region(memory, 0)->hva);
	space->ops->free(space);
}
END_TEST

START_TEST(dma_buf_that_cannot_be_mapped_leaves_ram_by_file)
{
	struct dma_space *space = open_iommufd();
	struct error err = ERROR_INIT;

	fake.fail_code = EOPNOTSUPP;
	fail_call(1);
	ck_assert_int_eq(space->ops->map(space, GIB, MIB, 99, 0, NULL, true, &err), -EOPNOTSUPP);
	map_memory(space);
	ck_assert(fake.maps[0].by_file);
	space->ops->free(space);
}
END_TEST

START_TEST(nothing_to_map_by_is_refused)
{
	struct dma_space *space = open_iommufd();

	ck_assert_int_eq(space->ops->map(space, 0, MIB, -1, 0, NULL, true, NULL), -EOPNOTSUPP);
	space->ops->free(space);
}
END_TEST

START_TEST(unmap_takes_exactly_what_was_mapped)
{
	struct dma_space *space = open_iommufd();
	struct error err = ERROR_INIT;

	map_memory(space);
	ck_assert_int_eq(space->ops->unmap(space, 0, LOW / 2, NULL, &err), -ENOENT);
	check_message(&err, "IOMMU_IOAS_UNMAP 0x100000 bytes at IOVA 0x0");
	ck_assert_int_eq(space->ops->unmap(space, 0, LOW, NULL, &err), 0);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 1);
	ck_assert_uint_eq(kernel_space_of(space)->mapping_count, 1);
	space->ops->free(space);
}
END_TEST

START_TEST(pinned_memory_counts_per_process_where_we_may_say_so)
{
	struct dma_space *space;

	fake.unprivileged = _i;
	space = open_iommufd();
	ck_assert_int_eq(fake.process_accounting, !_i);
	space->ops->free(space);
}
END_TEST

START_TEST(each_call_that_fails_leaves_nothing_and_has_its_own_message)
{
	static struct messages messages;
	struct dma_space *space;
	unsigned int n;

	for (n = 1;; n++) {
		struct error err = ERROR_INIT;

		fail_call(n);
		space = dma_space_open_iommufd_with(&fake.kernel, -1, NULL, &err);
		if (space && !dma_space_map_memory(space, memory, &err) && !fake.failed)
			break;
		if (err.code)
			add_message(&messages, &err);
		else
			ck_assert_str_eq(fake.failed, "IOMMU_OPTION"); /* per user, then */
		ck_assert_uint_eq(fake_vfio_map_count(&fake), err.code ? 0 : 2);
		if (space)
			space->ops->free(space);
		ck_assert_int_eq(fake.opened, 0);
	}
	ck_assert_uint_eq(n, 7); /* open, option, alloc, ranges, two maps */
	ck_assert_uint_eq(messages.count, 5);
	space->ops->free(space);
}
END_TEST

START_TEST(missing_iommufd_says_what_would_do)
{
	struct error err = ERROR_INIT;

	fake.no_iommufd = true;
	ck_assert_ptr_null(dma_space_open_iommufd_with(&fake.kernel, -1, NULL, &err));
	ck_assert_int_eq(err.code, -ENOENT);
	check_message(&err, "CONFIG_IOMMUFD");
	fail_call(1);
	fake.fail_code = EACCES;
	ck_assert_ptr_null(dma_space_open_iommufd_with(&fake.kernel, -1, NULL, &err));
	check_message(&err, "give this user read and write access");
}
END_TEST

START_TEST(descriptor_of_the_callers_is_taken_on_success_only)
{
	struct error err = ERROR_INIT;
	int fd = fake.kernel.open(&fake, "/dev/iommu", O_RDWR);
	struct dma_space *space;

	fail_call(2);
	ck_assert_ptr_null(dma_space_open_iommufd_with(&fake.kernel, fd, NULL, &err));
	ck_assert_int_eq(fake.opened, 1);
	space = dma_space_open_iommufd_with(&fake.kernel, fd, NULL, &err);
	ck_assert_ptr_nonnull(space);
	ck_assert_int_eq(dma_space_fd(space), fd);
	map_memory(space);
	space->ops->free(space);
	ck_assert_int_eq(fake.opened, 0);
}
END_TEST

START_TEST(ram_outside_the_iova_ranges_is_named_before_anything_is_mapped)
{
	struct dma_space *space = open_iommufd();
	struct error err = ERROR_INIT;

	fake.range_count = 2;
	fake.ranges[0].last = MIB - 1;
	fake.ranges[1].start = 3 * MIB;
	fake.ranges[1].last = 8 * GIB;
	ck_assert_int_eq(dma_space_map_memory(space, memory, &err), -EINVAL);
	check_message(&err, "map 0x0-0x1fffff for DMA");
	check_message(&err, "from 0x100000 on");
	check_message(&err, "0x0-0xfffff, 0x300000-0x200000000");
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 0);
	space->ops->free(space);
}
END_TEST

START_TEST(adjacent_and_unsorted_ranges_are_understood)
{
	struct dma_range ranges[] = {
		{ MIB, 2 * MIB - 1 },
		{ 5, 4 },
		{ 0, MIB - 1 },
		{ UINT64_MAX - 9, UINT64_MAX },
	};
	unsigned int n = dma_ranges_normalise(ranges, 4);

	ck_assert_uint_eq(n, 3);
	ck_assert_int_eq(dma_ranges_check(ranges, n, 0, 2 * MIB, NULL), 0);
	ck_assert_int_eq(dma_ranges_check(ranges, n, 0, 2 * MIB + 1, NULL), -EINVAL);
	ck_assert_int_eq(dma_ranges_check(ranges, n, UINT64_MAX - 9, 10, NULL), 0);
	ck_assert_int_eq(dma_ranges_check(ranges, n, UINT64_MAX - 8, 10, NULL), -EINVAL);
	ck_assert_int_eq(dma_ranges_check(ranges, n, 0, 0, NULL), -EINVAL);
	ck_assert_int_eq(dma_ranges_check(ranges, 0, 0, 1, NULL), -EINVAL);
}
END_TEST

START_TEST(memlock_limit_is_named_with_the_figure_that_would_do)
{
	struct dma_space *space = open_iommufd();
	struct error err = ERROR_INIT;
	unsigned int calls = fake.calls;

	fake.memlock = (struct vfio_memlock){ .limit = 4 * MIB, .pinned = MIB + 1, .locked = GIB };
	ck_assert_int_eq(dma_space_map_memory(space, memory, &err), -ENOMEM);
	check_message(&err, "RLIMIT_MEMLOCK is 4096 KiB; 5 MiB would do");
	check_message(&err, "ulimit -l 5120, or LimitMEMLOCK=5M");
	ck_assert_uint_eq(fake.calls - calls, 1);
	fake.memlock.pinned = MIB;
	map_memory(space);
	space->ops->free(space);
}
END_TEST

START_TEST(memlock_limit_is_none_with_the_capability)
{
	struct dma_space *space = open_iommufd();

	fake.memlock = (struct vfio_memlock){ .limit = 1, .exempt = true };
	map_memory(space);
	space->ops->free(space);
}
END_TEST

START_TEST(out_of_memory_from_the_kernel_names_the_limit)
{
	struct dma_space *space = open_iommufd();
	struct error err = ERROR_INIT;

	fake.memlock = (struct vfio_memlock){ .limit = 8 * MIB, .exempt = true };
	fake.fail_code = ENOMEM;
	fail_call(1);
	ck_assert_int_eq(space->ops->map(space, 0, 16 * MIB, 3, 0, NULL, true, &err), -ENOMEM);
	check_message(&err, "IOMMU_IOAS_MAP 0x1000000 bytes at IOVA 0x0");
	check_message(&err, "RLIMIT_MEMLOCK is 8192 KiB, 16 MiB would do");
	space->ops->free(space);
}
END_TEST

START_TEST(devices_behind_one_iommu_share_a_page_table_that_tracks)
{
	struct dma_space *space = open_iommufd();
	struct vfio_transport *a, *b, *c;

	for (unsigned int i = 0; i < 3; i++)
		fake.devices[i].can_track = true;
	fake.devices[2].iommu = 1;
	a = open_cdev(space, PF);
	b = open_cdev(space, VF);
	c = open_cdev(space, VF2);
	ck_assert_uint_eq(fake_vfio_hwpt_count(&fake), 2);
	ck_assert_uint_eq(fake.devices[0].attached, fake.devices[1].attached);
	ck_assert_uint_ne(fake.devices[0].attached, fake.devices[2].attached);
	a->ops->close(a);
	c->ops->close(c);
	ck_assert_uint_eq(fake_vfio_hwpt_count(&fake), 1);
	b->ops->close(b);
	ck_assert_uint_eq(fake_vfio_hwpt_count(&fake), 0);
	space->ops->free(space);
}
END_TEST

START_TEST(dirty_pages_come_from_every_page_table_once)
{
	struct dma_space *space = open_iommufd();
	struct dirty_bitmap bitmap = make_bitmap(LOW / 4096);
	struct vfio_transport *a, *b;
	struct error err = ERROR_INIT;

	fake.devices[0].can_track = fake.devices[1].can_track = true;
	fake.devices[1].iommu = 1;
	map_memory(space);
	a = open_cdev(space, PF);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, LOW, false, &bitmap, &err), -EINVAL);
	ck_assert_msg(!space->ops->dirty_start(space, &err), "%s", err.message);
	b = open_cdev(space, VF); /* plugged in while it runs: tracked as well */
	ck_assert(fake.hwpts[0].tracking && fake.hwpts[1].tracking);
	fake_vfio_write(&fake, 5 * 4096);
	fake_vfio_write(&fake, LOW - 4096);
	dirty_bitmap_set(&bitmap, 9, 1);
	ck_assert_msg(!space->ops->dirty_collect(space, 0, LOW, false, &bitmap, &err), "%s",
		      err.message);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 3);
	ck_assert(dirty_bitmap_test(&bitmap, 5) && dirty_bitmap_test(&bitmap, LOW / 4096 - 1));
	dirty_bitmap_clear(&bitmap, 0, LOW / 4096);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, LOW, false, &bitmap, &err), 0);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 0);
	fake_vfio_write(&fake, 7 * 4096);
	ck_assert_msg(!space->ops->unmap(space, 0, LOW, &bitmap, &err), "%s", err.message);
	ck_assert(dirty_bitmap_test(&bitmap, 7));
	space->ops->dirty_stop(space);
	ck_assert(!fake.hwpts[0].tracking && !fake.hwpts[1].tracking);
	a->ops->close(a);
	b->ops->close(b);
	space->ops->free(space);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(device_whose_iommu_cannot_track_is_named)
{
	struct dma_space *space = open_iommufd();
	struct dirty_bitmap bitmap = make_bitmap(LOW / 4096);
	struct vfio_transport *a, *b;
	struct error err = ERROR_INIT;

	fake.devices[0].can_track = true;
	fake.devices[1].can_track = fake.devices[1].software = true; /* mediated: has no IOMMU */
	map_memory(space);
	a = open_cdev(space, PF);
	b = open_cdev(space, VF);
	ck_assert_uint_eq(fake.devices[1].attached, fake.ioas);
	ck_assert_int_eq(space->ops->dirty_start(space, &err), -EOPNOTSUPP);
	check_message(&err, VF);
	ck_assert(!fake.hwpts[0].tracking);
	b->ops->close(b);
	ck_assert_int_eq(space->ops->dirty_start(space, &err), 0);
	/* One that comes later writes unseen: that is said, not passed over. */
	b = open_cdev(space, VF);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, LOW, false, &bitmap, &err),
			 -EOPNOTSUPP);
	check_message(&err, VF);
	a->ops->close(a);
	b->ops->close(b);
	space->ops->free(space);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(tracking_that_fails_half_way_is_stopped_again)
{
	struct dma_space *space = open_iommufd();
	struct dirty_bitmap bitmap = make_bitmap(LOW / 4096);
	struct vfio_transport *a, *b;
	struct error err = ERROR_INIT;

	fake.devices[0].can_track = fake.devices[1].can_track = true;
	fake.devices[1].iommu = 1;
	a = open_cdev(space, PF);
	b = open_cdev(space, VF);
	map_memory(space);
	fail_call(2);
	ck_assert_int_eq(space->ops->dirty_start(space, &err), -EIO);
	check_message(&err, "IOMMU_HWPT_SET_DIRTY_TRACKING for " PF);
	ck_assert(!fake.hwpts[0].tracking && !fake.hwpts[1].tracking);
	ck_assert_int_eq(space->ops->dirty_start(space, &err), 0);
	fail_call(1);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, LOW, false, &bitmap, &err), -EIO);
	check_message(&err, "GET_DIRTY_BITMAP");
	fail_call(1); /* unmapped it would be lost */
	ck_assert_int_eq(space->ops->unmap(space, 0, LOW, &bitmap, &err), -EIO);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 2);
	a->ops->close(a);
	b->ops->close(b);
	space->ops->free(space);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(bars_are_mapped_for_peers_while_devices_come_and_go)
{
	struct dma_space *space = open_iommufd();
	struct vfio_transport *t = open_cdev(space, PF);

	map_memory(space);
	map_peers_while_devices_come_and_go(space, open_cdev);
	t->ops->close(t);
	space->ops->free(space);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dma_iommufd");
	TCase *t = tcase_create("dma_iommufd");

	tcase_add_checked_fixture(t, fixture_setup, fixture_teardown);
	tcase_add_test(t, ram_is_mapped_by_file_one_call_a_region);
	tcase_add_test(t, kernel_without_map_file_maps_by_address_and_is_asked_once);
	tcase_add_test(t, dma_buf_that_cannot_be_mapped_leaves_ram_by_file);
	tcase_add_test(t, nothing_to_map_by_is_refused);
	tcase_add_test(t, unmap_takes_exactly_what_was_mapped);
	tcase_add_loop_test(t, pinned_memory_counts_per_process_where_we_may_say_so, 0, 2);
	tcase_add_test(t, each_call_that_fails_leaves_nothing_and_has_its_own_message);
	tcase_add_test(t, missing_iommufd_says_what_would_do);
	tcase_add_test(t, descriptor_of_the_callers_is_taken_on_success_only);
	tcase_add_test(t, ram_outside_the_iova_ranges_is_named_before_anything_is_mapped);
	tcase_add_test(t, adjacent_and_unsorted_ranges_are_understood);
	tcase_add_test(t, memlock_limit_is_named_with_the_figure_that_would_do);
	tcase_add_test(t, memlock_limit_is_none_with_the_capability);
	tcase_add_test(t, out_of_memory_from_the_kernel_names_the_limit);
	tcase_add_test(t, devices_behind_one_iommu_share_a_page_table_that_tracks);
	tcase_add_test(t, dirty_pages_come_from_every_page_table_once);
	tcase_add_test(t, device_whose_iommu_cannot_track_is_named);
	tcase_add_test(t, tracking_that_fails_half_way_is_stopped_again);
	tcase_add_test(t, bars_are_mapped_for_peers_while_devices_come_and_go);
	suite_add_tcase(s, t);
	return run_suite(s);
}
