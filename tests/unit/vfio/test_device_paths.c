/* SPDX-License-Identifier: Apache-2.0 */
/* What a sandbox has to leave within reach of an assigned device. */
#include <sys/stat.h>

#include "tests/unit/vfio/kernel_fixture.h"
#include "vfio/device_paths.h"

#define PATHS_MAX 8

static struct {
	enum vfio_path_kind kinds[PATHS_MAX];
	char paths[PATHS_MAX][PATH_MAX];
	unsigned int count, fail_at;
} seen;

static void setup(void)
{
	fixture_setup();
	memset(&seen, 0, sizeof(seen));
}

static int see(void *opaque, enum vfio_path_kind kind, const char *path)
{
	ck_assert_ptr_eq(opaque, &seen);
	ck_assert_uint_lt(seen.count, PATHS_MAX);
	seen.kinds[seen.count] = kind;
	snprintf(seen.paths[seen.count], PATH_MAX, "%s", path);
	return ++seen.count == seen.fail_at ? -EPERM : 0;
}

static void check_path(unsigned int i, enum vfio_path_kind kind, const char *path)
{
	ck_assert_uint_lt(i, seen.count);
	ck_assert_int_eq(seen.kinds[i], kind);
	ck_assert_str_eq(seen.paths[i], path);
}

START_TEST(a_device_by_its_group_needs_its_folder_its_groups_the_container_and_the_group)
{
	ck_assert_int_eq(vfio_device_paths(path_of(VF), false, see, &seen), 0);
	ck_assert_uint_eq(seen.count, 4);
	check_path(0, VFIO_PATH_FOLDER, path_of(VF));
	check_path(1, VFIO_PATH_FOLDER, "/sys/kernel/iommu_groups/8");
	check_path(2, VFIO_PATH_NODE, "/dev/vfio/vfio");
	check_path(3, VFIO_PATH_NODE, "/dev/vfio/8");
}
END_TEST

START_TEST(a_device_by_its_cdev_needs_that_and_the_iommufd_where_the_host_has_one)
{
	bool host_has_it = !access(VFIO_IOMMU_NODE, F_OK);

	ck_assert_int_eq(vfio_device_paths(path_of(PF), true, see, &seen), 0);
	ck_assert_uint_eq(seen.count, 4);
	check_path(2, VFIO_PATH_NODE, host_has_it ? VFIO_IOMMU_NODE : "/dev/vfio/vfio");
	check_path(3, VFIO_PATH_NODE, host_has_it ? "/dev/vfio/devices/vfio0" : "/dev/vfio/7");
}
END_TEST

START_TEST(a_link_is_followed_to_the_folder)
{
	char link[PATH_MAX];

	snprintf(link, sizeof(link), "%s/link", fake.root);
	ck_assert_int_eq(symlink(path_of(PF), link), 0);
	ck_assert_int_eq(vfio_device_paths(link, false, see, &seen), 0);
	check_path(0, VFIO_PATH_FOLDER, path_of(PF));
	unlink(link);
}
END_TEST

START_TEST(what_is_no_device_needs_nothing)
{
	ck_assert_int_eq(vfio_device_paths("/nowhere", true, see, &seen), 0);
	ck_assert_int_eq(vfio_device_paths(fake.root, true, see, &seen), 0);
	ck_assert_uint_eq(seen.count, 0);
}
END_TEST

START_TEST(a_device_without_an_iommu_needs_its_folder_only)
{
	fake_vfio_link(&fake, PF, "iommu_group", NULL);
	ck_assert_int_eq(vfio_device_paths(path_of(PF), true, see, &seen), 0);
	ck_assert_uint_eq(seen.count, 1);
}
END_TEST

START_TEST(the_first_refusal_ends_it)
{
	seen.fail_at = (unsigned int)_i;
	ck_assert_int_eq(vfio_device_paths(path_of(PF), false, see, &seen), -EPERM);
	ck_assert_uint_eq(seen.count, _i);
}
END_TEST

START_TEST(a_device_that_vfio_has_passes_the_check)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(vfio_device_check(path_of(PF), &err), 0);
}
END_TEST

START_TEST(what_vfio_does_not_have_is_refused_with_the_reason)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(vfio_device_check("/nowhere", &err), -ENOENT);
	check_message(&err, "/nowhere: no such device");
	fake_vfio_stranger(&fake, "0000:01:10.1", 7, "igbvf");
	ck_assert_int_eq(vfio_device_check(path_of("0000:01:10.1"), &err), -ENODEV);
	check_message(&err, "is bound to driver igbvf");
	fake_vfio_link(&fake, PF, "iommu_group", NULL);
	ck_assert_int_eq(vfio_device_check(path_of(PF), &err), -ENODEV);
	check_message(&err, "no IOMMU group");
}
END_TEST

/* As under Landlock: not taken for a device without a cdev. */
START_TEST(a_folder_we_may_not_read_is_named)
{
	struct error err = ERROR_INIT;
	char path[PATH_MAX + 16];
	bool root = !geteuid();

	snprintf(path, sizeof(path), "%s/vfio-dev", path_of(PF));
	ck_assert_int_eq(chmod(path, 0) || chmod(fake.root, 0755), 0);
	if (root) /* who may read everything */
		ck_assert_int_eq(seteuid(65534), 0);
	ck_assert_int_eq(vfio_device_check(path_of(PF), &err), -EACCES);
	if (root)
		ck_assert_int_eq(seteuid(0), 0);
	ck_assert_int_eq(chmod(path, 0755), 0);
	check_message(&err, "vfio-dev: Permission denied");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("device_paths");
	TCase *tc = tcase_create("device_paths");

	tcase_add_checked_fixture(tc, setup, fixture_teardown);
	tcase_add_test(
		tc, a_device_by_its_group_needs_its_folder_its_groups_the_container_and_the_group);
	tcase_add_test(tc, a_device_by_its_cdev_needs_that_and_the_iommufd_where_the_host_has_one);
	tcase_add_test(tc, a_link_is_followed_to_the_folder);
	tcase_add_test(tc, what_is_no_device_needs_nothing);
	tcase_add_test(tc, a_device_without_an_iommu_needs_its_folder_only);
	tcase_add_loop_test(tc, the_first_refusal_ends_it, 1, 5);
	tcase_add_test(tc, a_device_that_vfio_has_passes_the_check);
	tcase_add_test(tc, what_vfio_does_not_have_is_refused_with_the_reason);
	tcase_add_test(tc, a_folder_we_may_not_read_is_named);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
