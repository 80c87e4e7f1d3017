/* SPDX-License-Identifier: Apache-2.0 */
/* A cdev device and its IOAS go on in another process: what the kernel is asked, and what
 * it is not. */
#include "tests/unit/vfio/kernel_fixture.h"

static struct {
	struct dma_space *old_space, *space;
	struct vfio_transport *old, *t;
	struct kept kept;
	struct fake_device *dev;
} k;

static void setup(void)
{
	struct error err = ERROR_INIT;

	fixture_setup();
	memset(&k, 0, sizeof(k));
	k.dev = &fake.devices[0];
	k.dev->can_track = true;
	k.old_space = open_iommufd();
	ck_assert_int_eq(dma_space_map_memory(k.old_space, memory, &err), 0);
	k.old = open_cdev(k.old_space, PF);
}

static int map(uint64_t iova)
{
	const struct guest_memory_region *r = guest_memory_region(memory, 0);
	struct error err = ERROR_INIT;

	return k.space->ops->map(k.space, iova, r->size, r->memfd, 0, r->hva, true, &err);
}

static void keep(void)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(!k.old_space->ops->keep(k.old_space, &k.kept, &err), "%s", err.message);
	ck_assert_msg(!k.old->ops->keep(k.old, &k.kept, "vf0", false, &err), "%s", err.message);
	ck_assert_msg(!k.old->ops->keep(k.old, &k.kept, "vf0", true, &err), "%s", err.message);
}

static void take(void)
{
	struct error err = ERROR_INIT;

	k.space = dma_space_take_iommufd_with(&fake.kernel, &k.kept, NULL, &err);
	ck_assert_msg(k.space != NULL, "%s", err.message);
	k.t = vfio_transport_take_cdev(path_of(PF), &k.kept, "vf0", k.space, NULL, &err);
	ck_assert_msg(k.t != NULL, "%s", err.message);
}

static void release(struct vfio_transport **t, struct dma_space **space)
{
	(*t)->ops->close(*t);
	(*space)->ops->free(*space);
	*t = NULL;
	*space = NULL;
}

static void teardown(void)
{
	kept_destroy(&k.kept);
	fixture_teardown();
}

/* As the process that ends: the kernel closes its descriptors, no call is made. */
static void end_old(void)
{
	kernel_space_of(k.old_space)->kept = true;
	release(&k.old, &k.old_space);
}

START_TEST(nothing_is_bound_attached_mapped_or_reset)
{
	uint32_t ioas = fake.ioas, attached = k.dev->attached;
	unsigned int maps = fake_vfio_map_count(&fake), hwpts = fake_vfio_hwpt_count(&fake);
	struct error err = ERROR_INIT;

	ck_assert_uint_gt(maps, 0);
	ck_assert_uint_eq(hwpts, 1);
	keep();
	take();
	ck_assert_str_eq(k.t->name, PF);
	ck_assert_uint_eq(k.t->region_count, k.old->region_count);
	ck_assert_uint_eq(dma_space_ioas(k.space), ioas);
	ck_assert_uint_eq(fake.changes, 0);
	ck_assert_int_eq(k.space->ops->own(k.space, &err), 0);
	ck_assert_uint_eq(fake.changes, 1);
	end_old();
	ck_assert_uint_eq(k.dev->attached, attached);
	ck_assert(k.dev->bound);
	ck_assert_uint_eq(k.dev->resets + k.dev->detaches, 0);
	ck_assert_uint_eq(fake.ioas, ioas);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), maps);
	/* It is ours: RAM can be unmapped, the end is an end. */
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(memory, i);

		ck_assert_int_eq(k.space->ops->unmap(k.space, r->gpa, r->size, NULL, &err), 0);
	}
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 0);
	release(&k.t, &k.space);
	ck_assert(!k.dev->bound);
}
END_TEST

START_TEST(one_that_gives_up_leaves_it_to_the_old_one)
{
	uint32_t ioas = fake.ioas, attached = k.dev->attached;
	unsigned int maps = fake_vfio_map_count(&fake);

	keep();
	take();
	release(&k.t, &k.space);
	ck_assert(k.dev->bound);
	ck_assert_uint_eq(k.dev->attached, attached);
	ck_assert_uint_eq(fake.ioas, ioas);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), maps);
	ck_assert_uint_eq(fake_vfio_hwpt_count(&fake), 1);
	ck_assert_uint_eq(fake.changes, 0);
	kept_destroy(&k.kept);
	release(&k.old, &k.old_space);
}
END_TEST

START_TEST(until_it_owns_them_mappings_stay_as_they_are)
{
	const struct guest_memory_region *r = guest_memory_region(memory, 0);
	unsigned int maps = fake_vfio_map_count(&fake);
	struct error err = ERROR_INIT;

	keep();
	take();
	ck_assert_int_eq(
		k.space->ops->map(k.space, r->gpa, r->size, r->memfd, 0, r->hva, true, &err), 0);
	ck_assert_int_eq(
		k.space->ops->map(k.space, 64 * GIB, 4096, r->memfd, 0, r->hva, true, &err),
		-EBUSY);
	ck_assert_int_eq(k.space->ops->unmap(k.space, r->gpa, r->size, NULL, &err), -EBUSY);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), maps);
	release(&k.t, &k.space);
	kept_destroy(&k.kept);
	release(&k.old, &k.old_space);
}
END_TEST

/* The BARs of peers: the main loop maps them when it comes to it, maybe after own. */
START_TEST(what_is_mapped_when_it_is_taken_is_found_there_later)
{
	const struct guest_memory_region *r = guest_memory_region(memory, 0);
	unsigned int maps = fake_vfio_map_count(&fake);
	struct error err = ERROR_INIT;

	keep();
	take();
	ck_assert_int_eq(k.space->ops->own(k.space, &err), 0);
	end_old();
	ck_assert_int_eq(map(r->gpa), 0);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), maps);
	/* Only once: unmapped and mapped again it is the kernel's to do. */
	ck_assert_int_eq(k.space->ops->unmap(k.space, r->gpa, r->size, NULL, &err), 0);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), maps - 1);
	ck_assert_int_eq(map(r->gpa), 0);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), maps);
	release(&k.t, &k.space);
}
END_TEST

START_TEST(memory_mapped_by_address_cannot_be_handed_over)
{
	struct error err = ERROR_INIT;

	release(&k.old, &k.old_space);
	fake.no_map_file = true;
	k.old_space = open_iommufd();
	ck_assert_int_eq(dma_space_map_memory(k.old_space, memory, &err), 0);
	ck_assert_int_eq(k.old_space->ops->keep(k.old_space, &k.kept, &err), -EOPNOTSUPP);
	check_message(&err, "Linux 6.13");
	k.old_space->ops->free(k.old_space);
}
END_TEST

/* One whose descriptor has a copy elsewhere is detached when it is closed: by its owner. */
START_TEST(a_device_that_came_as_a_descriptor_goes_along)
{
	struct error err = ERROR_INIT;
	uint32_t devid = 0;
	int fd;

	k.old->ops->close(k.old);
	k.dev->bound = false;
	fd = fake.kernel.open(&fake, "/dev/vfio/devices/vfio0", O_RDWR);
	k.old = vfio_cdev_open_given(fd, &devid, k.old_space, NULL, &err);
	ck_assert_msg(k.old != NULL, "%s", err.message);
	ck_assert_uint_ne(devid, 0);
	for (int taken = 0; taken < 2; taken++) {
		uint32_t known = 0, attached = k.dev->attached;

		keep();
		k.space = dma_space_take_iommufd_with(&fake.kernel, &k.kept, NULL, &err);
		ck_assert_msg(k.space != NULL, "%s", err.message);
		k.t = vfio_cdev_take_given(&k.kept, "vf0", &known, k.space, NULL, &err);
		ck_assert_msg(k.t != NULL, "%s", err.message);
		ck_assert_uint_eq(known, devid);
		if (taken) {
			ck_assert_int_eq(k.space->ops->own(k.space, &err), 0);
			end_old();
		}
		ck_assert_uint_eq(k.dev->attached, attached);
		ck_assert_uint_eq(k.dev->resets + k.dev->detaches, 0);
		/* First it gives up, and the device is the old one's as it was. */
		release(&k.t, &k.space);
		ck_assert_uint_eq(k.dev->detaches, taken ? 1 : 0);
		kept_destroy(&k.kept);
	}
}
END_TEST

START_TEST(what_is_missing_is_said)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(dma_space_take_iommufd_with(&fake.kernel, &k.kept, NULL, &err));
	check_message(&err, "did not come along");
	keep();
	k.space = dma_space_take_iommufd_with(&fake.kernel, &k.kept, NULL, &err);
	ck_assert_ptr_null(
		vfio_transport_take_cdev(path_of(PF), &k.kept, "vf1", k.space, NULL, &err));
	check_message(&err, "vf1");
	k.space->ops->free(k.space);
	kept_destroy(&k.kept);
	release(&k.old, &k.old_space);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("keep_iommufd");
	TCase *c = tcase_create("keep");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, nothing_is_bound_attached_mapped_or_reset);
	tcase_add_test(c, one_that_gives_up_leaves_it_to_the_old_one);
	tcase_add_test(c, until_it_owns_them_mappings_stay_as_they_are);
	tcase_add_test(c, what_is_mapped_when_it_is_taken_is_found_there_later);
	tcase_add_test(c, memory_mapped_by_address_cannot_be_handed_over);
	tcase_add_test(c, a_device_that_came_as_a_descriptor_goes_along);
	tcase_add_test(c, what_is_missing_is_said);
	suite_add_tcase(s, c);
	return run_suite(s);
}
