/* SPDX-License-Identifier: Apache-2.0 */
/* Devices by group; the operations on an open device are test_kernel_device.c's. */
#include "tests/unit/vfio/kernel_fixture.h"

static struct dma_space *space;

static void setup(void)
{
	fixture_setup();
	space = open_type1();
}

static void teardown(void)
{
	space->ops->free(space);
	fixture_teardown();
}

START_TEST(device_comes_from_its_group_in_the_container)
{
	struct vfio_transport *t = open_group(space, VF);
	struct vfio_region r;
	char text[8];

	ck_assert_str_eq(t->ops->name, "group");
	ck_assert_str_eq(t->name, VF);
	ck_assert_int_eq(t->fd, fake.devices[1].fd);
	ck_assert_ptr_eq(t->space, space);
	ck_assert(fake.groups[0].in_container && fake.iommu_set);
	ck_assert_int_eq(dma_space_fd(space), fake.container);
	ck_assert_uint_eq(dma_space_ioas(space), 0);
	ck_assert_int_eq(t->ops->region_info(t, 0, &r, NULL), 0);
	ck_assert_int_eq(t->ops->region_write(t, &r, 0, "by group", 8, NULL), 0);
	ck_assert_int_eq(t->ops->region_read(t, &r, 0, text, 8, NULL), 0);
	ck_assert_mem_eq(text, "by group", 8);
	t->ops->close(t);
}
END_TEST

START_TEST(device_that_cannot_be_had_leaves_its_group_as_it_was)
{
	struct vfio_transport *first = open_group(space, VF);
	struct error err = ERROR_INIT;

	for (unsigned int n = 1; n <= 2; n++) {
		fail_call(n);
		ck_assert_ptr_null(vfio_transport_open_group(path_of(VF2), space, NULL, &err));
		check_message(&err, n == 1 ? VF2 ": VFIO_GROUP_GET_DEVICE_FD"
					   : VF2 ": VFIO_DEVICE_GET_INFO");
		ck_assert_int_eq(fake.opened, 3);
	}
	first->ops->close(first);
	ck_assert_int_eq(fake.opened, 1);
}
END_TEST

START_TEST(device_opened_twice_is_refused)
{
	struct vfio_transport *t = open_group(space, PF);
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(vfio_transport_open_group(path_of(PF), space, NULL, &err));
	check_message(&err, PF ": this VM has it already");
	ck_assert_int_eq(err.kind, ERROR_CONFLICT);
	ck_assert_int_eq(fake.opened, 3);
	t->ops->close(t);
}
END_TEST

START_TEST(hot_reset_proves_ownership_by_the_group)
{
	struct vfio_transport *t;

	fake.devices[0].info_flags = VFIO_DEVICE_FLAGS_PCI;
	fake.devices[0].affected = 1;
	t = open_group(space, PF);
	ck_assert(t->resettable);
	ck_assert_int_eq(t->ops->reset(t, NULL), 0);
	ck_assert_uint_eq(fake.devices[0].hot_resets, 1);
	t->ops->close(t);
	/* The one device a reset of this one's bus would reset is another. */
	fake.devices[1].info_flags = VFIO_DEVICE_FLAGS_PCI;
	fake.devices[1].affected = 1;
	t = open_group(space, VF);
	ck_assert(!t->resettable);
	t->ops->close(t);
}
END_TEST

START_TEST(bad_paths_are_refused_before_anything_is_opened)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(vfio_transport_open_group(path_of("nowhere"), space, NULL, &err));
	ck_assert_int_eq(err.code, -ENOENT);
	fake_vfio_stranger(&fake, "0000:02:00.0", 9, "nvme");
	ck_assert_ptr_null(vfio_transport_open_group(path_of("0000:02:00.0"), space, NULL, &err));
	check_message(&err, "driver nvme");
	ck_assert_int_eq(fake.opened, 1);
}
END_TEST

START_TEST(kernel_before_6_1_is_told_by_the_drivers_name)
{
	struct vfio_transport *t;
	char path[PATH_MAX];

	/* No vfio-dev folder, and a variant driver. */
	snprintf(path, sizeof(path), "%s/devices/%s/vfio-dev/vfio0/dev", fake.root, PF);
	unlink(path);
	snprintf(path, sizeof(path), "%s/devices/%s/vfio-dev/vfio0", fake.root, PF);
	rmdir(path);
	fake_vfio_link(&fake, PF, "vfio-dev", NULL);
	fake_vfio_link(&fake, PF, "driver", "../../drivers/mlx5_vfio_pci");
	t = open_group(space, PF);
	t->ops->close(t);
}
END_TEST

START_TEST(mediated_device_may_have_any_driver)
{
	struct vfio_transport *t;

	fake_vfio_stranger(&fake, "c0ffee00-0000-4000-8000-000000000001", 9, "mtty");
	fake_vfio_link(&fake, "c0ffee00-0000-4000-8000-000000000001", "subsystem",
		       "../../bus/mdev");
	fake.devices[3] = fake.devices[2];
	fake.devices[3].name = "c0ffee00-0000-4000-8000-000000000001";
	fake.devices[3].group = 9;
	fake.device_count = 4;
	t = open_group(space, fake.devices[3].name);
	ck_assert_str_eq(t->name, fake.devices[3].name);
	t->ops->close(t);
}
END_TEST

START_TEST(a_hundred_rounds_leave_nothing)
{
	map_memory(space);
	for (unsigned int i = 0; i < 100; i++) {
		struct vfio_transport *a = open_group(space, VF), *b = open_group(space, VF2);

		a->ops->close(a);
		b->ops->close(b);
		ck_assert_int_eq(fake.opened, 1);
	}
	ck_assert_uint_eq(kernel_space_of(space)->mapping_count, 2);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("transport_group");
	TCase *c = tcase_create("transport_group");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, device_comes_from_its_group_in_the_container);
	tcase_add_test(c, device_that_cannot_be_had_leaves_its_group_as_it_was);
	tcase_add_test(c, device_opened_twice_is_refused);
	tcase_add_test(c, hot_reset_proves_ownership_by_the_group);
	tcase_add_test(c, bad_paths_are_refused_before_anything_is_opened);
	tcase_add_test(c, kernel_before_6_1_is_told_by_the_drivers_name);
	tcase_add_test(c, mediated_device_may_have_any_driver);
	tcase_add_test(c, a_hundred_rounds_leave_nothing);
	suite_add_tcase(s, c);
	return run_suite(s);
}
