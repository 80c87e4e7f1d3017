/* SPDX-License-Identifier: Apache-2.0 */
/* A device by its group and its container go on in another process. */
#include "tests/unit/vfio/kernel_fixture.h"

static struct {
	struct dma_space *old_space, *space;
	struct vfio_transport *old, *t;
	struct guest_memory *memory; /* the other process's: the same RAM elsewhere */
	struct kept kept;
	struct fake_device *dev;
} k;

static void setup(void)
{
	struct error err = ERROR_INIT;

	fixture_setup();
	memset(&k, 0, sizeof(k));
	k.dev = &fake.devices[0];
	k.old_space = open_type1();
	k.old = open_group(k.old_space, PF);
	ck_assert_int_eq(dma_space_map_memory(k.old_space, memory, &err), 0);
	k.memory = guest_memory_new_empty(&err);
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(memory, i);

		ck_assert_int_eq(
			guest_memory_add(k.memory, r->gpa, r->size, dup(r->memfd), r->offset, &err),
			0);
	}
}

static void teardown(void)
{
	kept_destroy(&k.kept);
	guest_memory_free(k.memory);
	fixture_teardown();
}

static int hold(bool on)
{
	struct error err = ERROR_INIT;

	return k.old_space->ops->hold(k.old_space, on, &err);
}

static void keep(void)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(!k.old_space->ops->keep(k.old_space, &k.kept, &err), "%s", err.message);
	ck_assert_msg(!k.old->ops->keep(k.old, &k.kept, "vf0", false, &err), "%s", err.message);
	ck_assert_int_eq(hold(true), 0);
	ck_assert_msg(!k.old->ops->keep(k.old, &k.kept, "vf0", true, &err), "%s", err.message);
}

static void take(void)
{
	struct error err = ERROR_INIT;

	ck_assert(vfio_transport_kept_group(&k.kept, "vf0"));
	k.space = dma_space_take_type1_with(&fake.kernel, k.memory, &k.kept, NULL, &err);
	ck_assert_msg(k.space != NULL, "%s", err.message);
	k.t = vfio_transport_take_group(path_of(PF), &k.kept, "vf0", k.space, NULL, &err);
	ck_assert_msg(k.t != NULL, "%s", err.message);
}

static void release(struct vfio_transport **t, struct dma_space **space)
{
	(*t)->ops->close(*t);
	(*space)->ops->free(*space);
	*t = NULL;
	*space = NULL;
}

/* How many mappings have no address of a process. */
static unsigned int adrift(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < FAKE_MAX; i++)
		n += fake.maps[i].size && fake.maps[i].no_address;
	return n;
}

static bool is_mapped_at(const struct guest_memory_region *r)
{
	for (unsigned int i = 0; i < FAKE_MAX; i++)
		if (fake.maps[i].size == r->size && fake.maps[i].iova == r->gpa)
			return fake.maps[i].address == (uintptr_t)r->hva;
	return false;
}

START_TEST(addresses_change_and_nothing_else)
{
	unsigned int maps = fake_vfio_map_count(&fake);
	struct error err = ERROR_INIT;

	ck_assert_uint_gt(maps, 0);
	keep();
	ck_assert_uint_eq(adrift(), maps);
	take();
	ck_assert_str_eq(k.t->name, PF);
	ck_assert_uint_eq(k.t->region_count, k.old->region_count);
	ck_assert_uint_eq(fake.changes, 0);
	ck_assert_int_eq(k.space->ops->own(k.space, &err), 0);
	ck_assert_uint_eq(fake.changes, maps);
	ck_assert_uint_eq(adrift(), 0);
	for (unsigned int i = 0; i < guest_memory_region_count(k.memory); i++)
		ck_assert(is_mapped_at(guest_memory_region(k.memory, i)));
	release(&k.old, &k.old_space);
	ck_assert_uint_eq(k.dev->resets, 0);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), maps);
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(memory, i);

		ck_assert_int_eq(k.space->ops->unmap(k.space, r->gpa, r->size, NULL, &err), 0);
	}
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 0);
	release(&k.t, &k.space);
	ck_assert_int_eq(fake.container, -1);
	ck_assert_uint_eq(fake.misordered, 0);
}
END_TEST

START_TEST(one_that_gives_up_leaves_it_to_the_old_one)
{
	unsigned int maps = fake_vfio_map_count(&fake);

	keep();
	take();
	release(&k.t, &k.space);
	kept_destroy(&k.kept);
	ck_assert_int_eq(hold(false), 0);
	ck_assert_int_eq(hold(false), 0);
	ck_assert_uint_eq(adrift(), 0);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), maps);
	/* And again. */
	keep();
	take();
	ck_assert_int_eq(k.space->ops->own(k.space, NULL), 0);
	ck_assert_uint_eq(adrift(), 0);
	release(&k.old, &k.old_space);
	release(&k.t, &k.space);
}
END_TEST

START_TEST(until_it_owns_them_mappings_stay_as_they_are)
{
	const struct guest_memory_region *r = guest_memory_region(memory, 0);
	struct error err = ERROR_INIT;

	keep();
	take();
	ck_assert_int_eq(k.space->ops->map(k.space, 64 * GIB, 4096, -1, 0, r->hva, true, &err),
			 -EBUSY);
	ck_assert_int_eq(k.space->ops->unmap(k.space, r->gpa, r->size, NULL, &err), -EBUSY);
	ck_assert_uint_eq(fake.changes, 0);
	release(&k.t, &k.space);
	release(&k.old, &k.old_space);
}
END_TEST

/* A BAR for peers: mapped in the old process; the new one's main loop maps it when it comes
 * to it. */
START_TEST(what_is_mapped_for_peers_is_found_there)
{
	const struct guest_memory_region *r = guest_memory_region(memory, 0);
	unsigned int maps = fake_vfio_map_count(&fake);
	struct error err = ERROR_INIT;

	ck_assert_int_eq(
		k.old_space->ops->map(k.old_space, 64 * GIB, 4096, -1, 0, r->hva, true, &err), 0);
	keep();
	take();
	ck_assert_int_eq(k.space->ops->own(k.space, &err), 0);
	ck_assert_uint_eq(adrift(), 1);
	ck_assert_int_eq(k.space->ops->map(k.space, 64 * GIB, 4096, -1, 0, r->hva, true, &err), 0);
	ck_assert_uint_eq(adrift(), 0);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), maps + 1);
	ck_assert_int_eq(k.space->ops->unmap(k.space, 64 * GIB, 4096, NULL, &err), 0);
	release(&k.old, &k.old_space);
	release(&k.t, &k.space);
}
END_TEST

START_TEST(a_container_with_a_mediated_device_is_refused)
{
	struct error err = ERROR_INIT;

	fake.no_update_vaddr = true;
	ck_assert_int_eq(k.old_space->ops->keep(k.old_space, &k.kept, &err), -EOPNOTSUPP);
	check_message(&err, "mediated device");
	check_message(&err, "iommufd=on");
	release(&k.old, &k.old_space);
}
END_TEST

START_TEST(an_address_that_cannot_be_put_in_is_said)
{
	struct error err = ERROR_INIT;

	keep();
	take();
	fake.fail_at = fake.calls + 1;
	ck_assert_int_eq(k.space->ops->own(k.space, &err), -EIO);
	check_message(&err, "VFIO_DMA_MAP_FLAG_VADDR");
	fake.fail_at = 0;
	/* The next update's hold leaves alone what has none, and ends with all in place. */
	ck_assert_int_eq(k.space->ops->hold(k.space, true, &err), 0);
	ck_assert_int_eq(k.space->ops->hold(k.space, false, &err), 0);
	ck_assert_uint_eq(adrift(), 0);
	release(&k.old, &k.old_space);
	release(&k.t, &k.space);
}
END_TEST

START_TEST(what_is_missing_is_said)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(dma_space_take_type1_with(&fake.kernel, k.memory, &k.kept, NULL, &err));
	check_message(&err, "did not come along");
	keep();
	k.space = dma_space_take_type1_with(&fake.kernel, k.memory, &k.kept, NULL, &err);
	ck_assert_ptr_null(
		vfio_transport_take_group(path_of(PF), &k.kept, "vf1", k.space, NULL, &err));
	check_message(&err, "vf1");
	k.space->ops->free(k.space);
	kept_destroy(&k.kept);
	ck_assert_int_eq(hold(false), 0);
	release(&k.old, &k.old_space);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("keep_type1");
	TCase *c = tcase_create("keep");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, addresses_change_and_nothing_else);
	tcase_add_test(c, one_that_gives_up_leaves_it_to_the_old_one);
	tcase_add_test(c, until_it_owns_them_mappings_stay_as_they_are);
	tcase_add_test(c, what_is_mapped_for_peers_is_found_there);
	tcase_add_test(c, a_container_with_a_mediated_device_is_refused);
	tcase_add_test(c, an_address_that_cannot_be_put_in_is_said);
	tcase_add_test(c, what_is_missing_is_said);
	suite_add_tcase(s, c);
	return run_suite(s);
}
