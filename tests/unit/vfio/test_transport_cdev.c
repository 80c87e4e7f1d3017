/* SPDX-License-Identifier: Apache-2.0 */
/* Opening devices by cdev; the operations on an open one are test_kernel_device.c's. */
#include "tests/unit/vfio/kernel_fixture.h"

static struct dma_space *space;
static struct vfio_transport *t;
static struct fake_device *dev;

static void setup(void)
{
	fixture_setup();
	space = open_iommufd();
	dev = &fake.devices[0];
	t = NULL;
}

static void teardown(void)
{
	fail_call(0);
	if (t)
		t->ops->close(t);
	space->ops->free(space);
	fixture_teardown();
}

static void make(void)
{
	t = open_cdev(space, PF);
}

static void open_fails(const char *name, int code, const char *text)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(vfio_transport_open_cdev(path_of(name), -1, space, NULL, &err));
	ck_assert_int_eq(err.code, code);
	check_message(&err, text);
	ck_assert_int_eq(fake.opened, 1);
}

START_TEST(device_is_bound_and_attached_when_it_is_open)
{
	make();
	ck_assert(dev->bound);
	ck_assert_uint_eq(dev->attached, fake.ioas);
	ck_assert_str_eq(t->name, PF);
	ck_assert_str_eq(t->ops->name, "cdev");
	ck_assert_int_eq(t->fd, dev->fd);
	ck_assert_ptr_eq(t->space, space);
	ck_assert(t->is_pci && t->resettable);
	ck_assert_uint_eq(t->region_count, VFIO_PCI_NUM_REGIONS);
	ck_assert_uint_eq(t->irq_count, VFIO_PCI_NUM_IRQS);
}
END_TEST

START_TEST(each_call_that_fails_leaves_nothing_and_has_its_own_message)
{
	static struct messages messages;
	unsigned int n, tolerated = 0;

	dev->can_track = true;
	for (n = 1;; n++) {
		struct error err = ERROR_INIT;

		fail_call(n);
		t = vfio_transport_open_cdev(path_of(PF), -1, space, NULL, &err);
		if (t && !fake.failed)
			break;
		if (t) { /* a kernel before 6.7 has no such call */
			ck_assert_str_eq(fake.failed, "IOMMU_GET_HW_INFO");
			tolerated++;
			t->ops->close(t);
		} else if (!strcmp(fake.failed, "IOMMU_HWPT_ALLOC")) {
			check_message(&err, PF ": attach");
		} else {
			add_message(&messages, &err);
			check_message(&err, PF ": ");
		}
		ck_assert_int_eq(fake.opened, 1);
		ck_assert_uint_eq(fake_vfio_hwpt_count(&fake), 0);
	}
	ck_assert_uint_eq(n, 7); /* open, bind, info, hw info, alloc, attach */
	ck_assert_uint_eq(tolerated, 1);
}
END_TEST

START_TEST(path_that_is_no_device_is_a_bad_request)
{
	struct error err = ERROR_INIT;
	char path[PATH_MAX];

	open_fails("0000:09:00.0", -ENOENT, "no such device");
	snprintf(path, sizeof(path), "%s/groups", fake.root);
	ck_assert_ptr_null(vfio_transport_open_cdev(path, -1, space, NULL, &err));
	ck_assert_int_eq(err.code, -ENODEV);
	ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
	check_message(&err, "is not a device; the path is one like /sys/bus/pci/devices/");
	ck_assert_ptr_null(vfio_transport_open_cdev(NULL, -1, space, NULL, &err));
}
END_TEST

START_TEST(path_with_a_slash_at_its_end_is_the_device)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/devices/%s/", fake.root, PF);
	t = vfio_transport_open_cdev(path, -1, space, NULL, NULL);
	ck_assert_ptr_nonnull(t);
	ck_assert_str_eq(t->name, PF);
}
END_TEST

START_TEST(device_of_another_driver_names_it_and_the_commands_that_bind)
{
	fake_vfio_stranger(&fake, "0000:02:00.0", 9, "igb");
	open_fails("0000:02:00.0", -ENODEV,
		   "is bound to driver igb, not to vfio-pci; to bind it: cd "
		   "/sys/bus/pci; echo vfio-pci > devices/0000:02:00.0/driver_override; "
		   "echo 0000:02:00.0 > devices/0000:02:00.0/driver/unbind; "
		   "echo 0000:02:00.0 > drivers_probe");
}
END_TEST

START_TEST(device_of_no_driver_needs_no_unbind)
{
	struct error err = ERROR_INIT;

	fake_vfio_stranger(&fake, "0000:02:00.0", 9, NULL);
	ck_assert_ptr_null(
		vfio_transport_open_cdev(path_of("0000:02:00.0"), -1, space, NULL, &err));
	check_message(&err, "is bound to no driver, not to vfio-pci");
	ck_assert_ptr_null(strstr(err.message, "unbind"));
}
END_TEST

START_TEST(device_without_an_iommu_says_how_to_turn_it_on)
{
	fake_vfio_link(&fake, PF, "iommu_group", NULL);
	open_fails(PF, -ENODEV, "intel_iommu=on");
}
END_TEST

START_TEST(kernel_without_cdevs_sends_us_to_the_group)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/devices/%s/vfio-dev/vfio0/dev", fake.root, PF);
	unlink(path);
	open_fails(PF, -EOPNOTSUPP, "CONFIG_VFIO_DEVICE_CDEV");
	ck_assert(!vfio_cdev_available(path_of(PF)));
}
END_TEST

static const struct {
	unsigned int call;
	int code;
	const char *text;
} refusals[] = {
	{ 1, EACCES, "open /dev/vfio/devices/vfio0: Permission denied (give this user" },
	{ 1, EBUSY, "another process has the device" },
	{ 2, EBUSY, "in use, by its group or another process?" },
	{ 2, EPERM, "interrupt remapping" },
	{ 5, ENOMEM, "RLIMIT_MEMLOCK is 1024 KiB, 3 MiB would do" },
	{ 5, EADDRINUSE, "guest memory lies beyond what its IOMMU can address" },
	{ 5, EBUSY, "its IOMMU group is in use elsewhere" },
};

START_TEST(refusal_of_the_kernel_is_explained)
{
	map_memory(space);
	fake.memlock = (struct vfio_memlock){ .limit = MIB };
	fake.fail_code = refusals[_i].code;
	fail_call(refusals[_i].call);
	open_fails(PF, -refusals[_i].code, refusals[_i].text);
}
END_TEST

START_TEST(reserved_region_under_guest_memory_is_named)
{
	fake_vfio_reserve(&fake, 7,
			  "0x0000000000100000 0x00000000001fffff direct-relaxable\n"
			  "0x0000000100080000 0x00000001000fffff direct\nnonsense\n");
	map_memory(space);
	fake.fail_code = EADDRINUSE;
	fail_call(5);
	open_fails(PF, -EADDRINUSE,
		   "its IOMMU cannot map 0x100080000-0x1000fffff, and guest memory is "
		   "mapped at 0x100000000-0x1000fffff");
}
END_TEST

START_TEST(group_shared_with_another_driver_is_named)
{
	static const int codes[] = { EBUSY, EPERM };

	fake_vfio_stranger(&fake, "0000:01:00.0", 7, "igb");
	fake.fail_code = codes[_i];
	fail_call(2);
	open_fails(PF, -codes[_i], "0000:01:00.0 (igb)");
}
END_TEST

START_TEST(descriptor_of_the_callers_is_taken_on_success_only)
{
	int fd = fake.kernel.open(&fake, "/dev/vfio/devices/vfio0", O_RDWR);
	struct error err = ERROR_INIT;

	fail_call(2);
	ck_assert_ptr_null(vfio_transport_open_cdev(NULL, fd, space, NULL, &err));
	check_message(&err, "device of descriptor");
	ck_assert_int_eq(fake.opened, 2);
	dev->bound = false;
	t = vfio_transport_open_cdev(NULL, fd, space, NULL, &err);
	ck_assert_msg(t != NULL, "%s", err.message);
	ck_assert_int_eq(t->fd, fd);
}
END_TEST

/* A copy of the descriptor is kept, so closing ours does not end its binding. */
static void open_again(uint32_t *devid, bool bound)
{
	int fd = fake.kernel.open(&fake, "/dev/vfio/devices/vfio0", O_RDWR);
	struct error err = ERROR_INIT;

	dev->bound = bound;
	t = vfio_cdev_open_given(fd, devid, space, NULL, &err);
	ck_assert_msg(t != NULL, "%s", err.message);
	ck_assert_uint_eq(dev->attached, fake.ioas);
}

START_TEST(descriptor_that_is_kept_is_detached_then_reset_and_attached_again)
{
	uint32_t devid = 0;

	dev->info_flags |= VFIO_DEVICE_FLAGS_RESET;
	open_again(&devid, false);
	ck_assert_uint_eq(devid, 101);
	ck_assert_uint_eq(dev->resets, 0);
	t->ops->close(t);
	ck_assert_uint_eq(dev->detaches, 1);
	open_again(&devid, true);
	ck_assert_uint_eq(devid, 101);
	ck_assert_uint_eq(dev->resets, 1);
	t->ops->close(t);
	ck_assert_uint_eq(dev->detaches, 2);
	/* What was remembered is wrong: another device has the descriptor's number now. */
	devid = 7;
	open_again(&devid, false);
	ck_assert_uint_eq(devid, 101);
	ck_assert_uint_eq(dev->resets, 1);
}
END_TEST

START_TEST(space_of_another_kind_is_refused)
{
	struct dma_space *type1 = open_type1();

	ck_assert_ptr_null(vfio_transport_open_cdev(path_of(PF), -1, type1, NULL, NULL));
	ck_assert_ptr_null(vfio_transport_open_group(path_of(PF), space, NULL, NULL));
	type1->ops->free(type1);
}
END_TEST

START_TEST(counts_beyond_reason_are_cut)
{
	dev->region_count = dev->irq_count = UINT32_MAX;
	make();
	ck_assert_uint_eq(t->region_count, VFIO_REGIONS_MAX);
	ck_assert_uint_le(t->irq_count, 64);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("transport_cdev");
	TCase *c = tcase_create("transport_cdev");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, device_is_bound_and_attached_when_it_is_open);
	tcase_add_test(c, each_call_that_fails_leaves_nothing_and_has_its_own_message);
	tcase_add_test(c, path_that_is_no_device_is_a_bad_request);
	tcase_add_test(c, path_with_a_slash_at_its_end_is_the_device);
	tcase_add_test(c, device_of_another_driver_names_it_and_the_commands_that_bind);
	tcase_add_test(c, device_of_no_driver_needs_no_unbind);
	tcase_add_test(c, device_without_an_iommu_says_how_to_turn_it_on);
	tcase_add_test(c, kernel_without_cdevs_sends_us_to_the_group);
	tcase_add_loop_test(c, refusal_of_the_kernel_is_explained, 0, ARRAY_SIZE(refusals));
	tcase_add_test(c, reserved_region_under_guest_memory_is_named);
	tcase_add_loop_test(c, group_shared_with_another_driver_is_named, 0, 2);
	tcase_add_test(c, descriptor_of_the_callers_is_taken_on_success_only);
	tcase_add_test(c, descriptor_that_is_kept_is_detached_then_reset_and_attached_again);
	tcase_add_test(c, space_of_another_kind_is_refused);
	tcase_add_test(c, counts_beyond_reason_are_cut);
	suite_add_tcase(s, c);
	return run_suite(s);
}
