/* SPDX-License-Identifier: Apache-2.0 */
/* The VM generation id, in RAM and in the state tree, and the event that tells of it. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/legacy/vmgenid.h"
#include "memory/dirty_source.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/golden.h"
#include "tests/unit/helpers/run_suite.h"

#define GED 0xf0000000
#define GED_IRQ 9
#define ADDRESS 0x3028
#define RAM_SIZE (1 * MIB)

static struct fake_host h;
static struct acpi_ged *ged;
static struct vmgenid *vmgenid;

static const uint8_t golden_id[VMGENID_SIZE] = { 0xa0, 1, 2,  3,  4,  5,  6,  0x47,
						 0x88, 9, 10, 11, 12, 13, 14, 15 };

static void setup(void)
{
	static const struct machine_requests requests;
	struct irq_line line = { .gsi = GED_IRQ };

	ck_assert_int_eq(fake_host_init_ram(&h, RAM_SIZE), 0);
	line.interrupts = &h.host.interrupts;
	ged = acpi_ged_new(&h.host, GED, line, &requests, NULL);
	vmgenid = vmgenid_new(&h.host, ADDRESS, NULL, ged, NULL);
	ck_assert(ged && vmgenid);
}

static void teardown(void)
{
	vmgenid_free(vmgenid);
	acpi_ged_free(ged);
	fake_host_destroy_ram(&h);
}

static const uint8_t *in_ram(void)
{
	return guest_memory_ptr(h.host.memory, ADDRESS, VMGENID_SIZE);
}

static uint32_t events(void)
{
	uint8_t data[4];

	ck_assert(bus_read(h.host.mmio, GED, data, 4));
	return load_le32(data);
}

START_TEST(the_id_is_random_and_in_ram_once_written)
{
	static const uint8_t zero[VMGENID_SIZE];
	struct vmgenid *other = vmgenid_new(&h.host, ADDRESS, zero, ged, NULL);
	uint8_t id[VMGENID_SIZE], other_id[VMGENID_SIZE];

	vmgenid_get(vmgenid, id);
	vmgenid_get(other, other_id);
	ck_assert_mem_ne(id, zero, VMGENID_SIZE);
	ck_assert_mem_ne(id, other_id, VMGENID_SIZE);
	ck_assert_uint_eq(id[7] >> 4, 4);
	ck_assert_uint_eq(id[8] >> 6, 2);
	ck_assert_mem_eq(in_ram(), zero, VMGENID_SIZE);
	ck_assert_int_eq(vmgenid_write(vmgenid, NULL), 0);
	ck_assert_mem_eq(in_ram(), id, VMGENID_SIZE);
	/* a guest that boots reads it: no event */
	ck_assert_uint_eq(h.fake.rises[GED_IRQ], 0);
	ck_assert_uint_eq(events(), 0);
	vmgenid_free(other);
}
END_TEST

START_TEST(an_id_that_was_is_kept)
{
	struct vmgenid *kept = vmgenid_new(&h.host, ADDRESS, golden_id, ged, NULL);

	ck_assert_int_eq(vmgenid_write(kept, NULL), 0);
	ck_assert_mem_eq(in_ram(), golden_id, VMGENID_SIZE);
	vmgenid_free(kept);
}
END_TEST

START_TEST(renewing_writes_another_and_tells_the_guest)
{
	uint8_t before[VMGENID_SIZE], after[VMGENID_SIZE];

	ck_assert_int_eq(vmgenid_write(vmgenid, NULL), 0);
	vmgenid_get(vmgenid, before);
	ck_assert_int_eq(vmgenid_renew(vmgenid, NULL), 0);
	vmgenid_get(vmgenid, after);
	ck_assert_mem_ne(before, after, VMGENID_SIZE);
	ck_assert_mem_eq(in_ram(), after, VMGENID_SIZE);
	ck_assert_uint_eq(h.fake.rises[GED_IRQ], 1);
	ck_assert_uint_eq(events(), ACPI_EVENT_VMGENID);
}
END_TEST

START_TEST(the_write_is_seen_by_the_dirty_source)
{
	struct dirty_source *source = guest_memory_dirty_source(h.host.memory, NULL);
	struct dirty_bitmap bitmap;

	ck_assert_int_eq(dirty_bitmap_init(&bitmap, RAM_SIZE / GUEST_PAGE_SIZE, NULL), 0);
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	ck_assert_int_eq(vmgenid_renew(vmgenid, NULL), 0);
	ck_assert_int_eq(
		source->ops->collect(source, guest_memory_region(h.host.memory, 0), &bitmap, NULL),
		0);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 1);
	ck_assert(dirty_bitmap_test(&bitmap, ADDRESS / GUEST_PAGE_SIZE));
	source->ops->free(source);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(a_place_outside_of_ram_is_refused)
{
	static const uint64_t places[] = { RAM_SIZE, RAM_SIZE - 8, ADDRESS + 4, UINT64_MAX - 7 };
	struct error err = ERROR_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		ck_assert_ptr_null(vmgenid_new(&h.host, places[i], NULL, ged, &err));
		ck_assert_int_eq(err.code, -EFAULT);
	}
}
END_TEST

/* A tree of one node; kind NULL: as vmgenid_save writes it. */
static void *tree(const char *kind, uint32_t version, uint64_t address, const void *id,
		  size_t id_len, struct state_node *node)
{
	struct state_writer *writer = state_writer_new(NULL);
	struct state_node root;
	void *blob;
	size_t len;

	if (kind) {
		state_begin(writer, "vmgenid", kind, version);
		state_put_u64(writer, "address", address);
		if (id)
			state_put_bytes(writer, "id", id, id_len);
		state_end(writer);
	} else {
		vmgenid_save(vmgenid, writer, "vmgenid");
	}
	ck_assert_int_eq(state_writer_finish(writer, &blob, &len, NULL), 0);
	state_writer_free(writer);
	if (!kind)
		golden_write("vmgenid-v1", blob, len);
	ck_assert_int_eq(state_tree_open(blob, len, &root, NULL), 0);
	ck_assert_int_eq(state_child(&root, "vmgenid", node, NULL), 0);
	return blob;
}

START_TEST(what_is_saved_is_loaded_and_renewed_at_its_place)
{
	struct vmgenid *from, *to = vmgenid_new(&h.host, 0x5000, NULL, ged, NULL);
	uint8_t id[VMGENID_SIZE];
	struct state_node node;
	void *blob;

	vmgenid_free(vmgenid);
	vmgenid = from = vmgenid_new(&h.host, ADDRESS, golden_id, ged, NULL);
	ck_assert_int_eq(vmgenid_write(from, NULL), 0);
	blob = tree(NULL, 0, 0, NULL, 0, &node);
	ck_assert_int_eq(vmgenid_load(to, &node, NULL), 0);
	free(blob);
	vmgenid_get(to, id);
	ck_assert_mem_eq(id, golden_id, VMGENID_SIZE);
	ck_assert_uint_eq(events(), 0);
	/* the guest's tables say where it is, whatever a newer Ferry would choose */
	ck_assert_int_eq(vmgenid_renew(to, NULL), 0);
	vmgenid_get(to, id);
	ck_assert_mem_ne(id, golden_id, VMGENID_SIZE);
	ck_assert_mem_eq(in_ram(), id, VMGENID_SIZE);
	vmgenid_free(to);
}
END_TEST

START_TEST(version_1_is_loaded)
{
	struct state_node root, node;
	uint8_t id[VMGENID_SIZE];
	void *blob;

	root = golden_open("vmgenid-v1", &blob);
	ck_assert_int_eq(state_child(&root, "vmgenid", &node, NULL), 0);
	ck_assert_int_eq(vmgenid_load(vmgenid, &node, NULL), 0);
	vmgenid_get(vmgenid, id);
	ck_assert_mem_eq(id, golden_id, VMGENID_SIZE);
	free(blob);
}
END_TEST

static const struct {
	const char *kind;
	uint32_t version;
	uint64_t address;
	size_t id_len;
	int code;
	const char *reason;
} bad[] = {
	{ "other", 1, ADDRESS, 16, -EINVAL, "/vmgenid: is not of the kind vmgenid" },
	{ "vmgenid", 2, ADDRESS, 16, -EPROTONOSUPPORT,
	  "/vmgenid: vmgenid of version 2, of a newer Ferry; this one reads up to 1" },
	{ "vmgenid", 1, RAM_SIZE, 16, -EINVAL,
	  "/vmgenid: property address is 0x100000, no place for the id in RAM" },
	{ "vmgenid", 1, ADDRESS + 1, 16, -EINVAL,
	  "/vmgenid: property address is 0x3029, no place for the id in RAM" },
	{ "vmgenid", 1, ADDRESS, 15, -EINVAL, "/vmgenid: property id has 15 bytes, not 16" },
	{ "vmgenid", 1, ADDRESS, 0, -ENOENT, "/vmgenid: property id is missing" },
};

START_TEST(a_bad_node_is_refused_and_changes_nothing)
{
	uint8_t before[VMGENID_SIZE], after[VMGENID_SIZE];
	struct error err = ERROR_INIT;
	struct state_node node;
	void *blob = tree(bad[_i].kind, bad[_i].version, bad[_i].address,
			  bad[_i].id_len ? golden_id : NULL, bad[_i].id_len, &node);

	vmgenid_get(vmgenid, before);
	ck_assert_int_eq(vmgenid_load(vmgenid, &node, &err), bad[_i].code);
	ck_assert_str_eq(err.message, bad[_i].reason);
	vmgenid_get(vmgenid, after);
	ck_assert_mem_eq(before, after, VMGENID_SIZE);
	free(blob);
}
END_TEST

START_TEST(an_id_of_zero_is_refused)
{
	static const uint8_t zero[VMGENID_SIZE];
	struct error err = ERROR_INIT;
	struct state_node node;
	void *blob = tree("vmgenid", 1, ADDRESS, zero, sizeof(zero), &node);

	ck_assert_int_eq(vmgenid_load(vmgenid, &node, &err), -EINVAL);
	ck_assert_str_eq(err.message, "/vmgenid: property id is zero");
	free(blob);
}
END_TEST

static Suite *vmgenid_suite(void)
{
	Suite *suite = suite_create("VM generation id");
	TCase *test = tcase_create("vmgenid");

	tcase_add_checked_fixture(test, setup, teardown);
	tcase_add_test(test, the_id_is_random_and_in_ram_once_written);
	tcase_add_test(test, an_id_that_was_is_kept);
	tcase_add_test(test, renewing_writes_another_and_tells_the_guest);
	tcase_add_test(test, the_write_is_seen_by_the_dirty_source);
	tcase_add_test(test, a_place_outside_of_ram_is_refused);
	tcase_add_test(test, what_is_saved_is_loaded_and_renewed_at_its_place);
	tcase_add_test(test, version_1_is_loaded);
	tcase_add_loop_test(test, a_bad_node_is_refused_and_changes_nothing, 0, ARRAY_SIZE(bad));
	tcase_add_test(test, an_id_of_zero_is_refused);
	suite_add_tcase(suite, test);
	return suite;
}

int main(void)
{
	return run_suite(vmgenid_suite());
}
