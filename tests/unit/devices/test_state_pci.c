/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI root and what is common to its functions: saved and loaded. */
#include <stdlib.h>

#include "base/bytes.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_registers.h"
#include "devices/pci/pci_root.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/helpers/state_case.h"

#define ECAM 0xe0000000ULL
#define UP 0xe1000000ULL
#define DOWN (UP + 4)
#define MEM64 0x4000000000ULL
#define VECTORS 130

struct machine {
	struct fake_host h;
	struct pci_root *root;
	bool ecam_only;
};

/* A function with a BAR of each kind, and MSI-X. */
struct function {
	struct pci_function fn;
	struct msix *msix;
	unsigned int mapped, unmapped, confirmed; /* calls */
};

static void bar_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	memset(data, 0x77, len);
}

static void bar_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
}

static const struct bus_ops bar_ops = { .read = bar_read, .write = bar_write };

static struct function *of(struct pci_function *fn)
{
	return container_of(fn, struct function, fn);
}

static void config_written(struct pci_function *fn, unsigned int offset, unsigned int len)
{
	msix_config_written(of(fn)->msix, offset, len);
}

static void bar_mapped(struct pci_function *fn, unsigned int bar)
{
	of(fn)->mapped++;
}

static void bar_unmapped(struct pci_function *fn, unsigned int bar)
{
	of(fn)->unmapped++;
}

static void bar_confirmed(struct pci_function *fn, unsigned int bar)
{
	ck_assert(fn->bars[bar].mapped);
	of(fn)->confirmed++;
}

static int function_save(struct pci_function *fn, struct state_writer *writer, struct error *err)
{
	msix_save(of(fn)->msix, writer);
	return 0;
}

static int function_load(struct pci_function *fn, const struct state_node *node, struct error *err)
{
	return msix_load(of(fn)->msix, node, err);
}

static void function_free(struct pci_function *fn)
{
	msix_free(of(fn)->msix);
	pci_function_destroy(fn);
	free(of(fn));
}

static const struct pci_function_ops ops = {
	.config_written = config_written,
	.bar_mapped = bar_mapped,
	.bar_unmapped = bar_unmapped,
	.bar_confirmed = bar_confirmed,
	.save = function_save,
	.load = function_load,
	.free = function_free,
};

static const struct pci_function_ops unsaved_ops = { .free = function_free };

static struct pci_function *add_to(struct machine *m, const char *id, int slot,
				   const struct pci_function_ops *with, bool hotplug)
{
	static const struct pci_ids ids = { .vendor = 0x1af4, .device = 0x1041, .intx = true };
	struct function *f = calloc(1, sizeof(*f));

	ck_assert_ptr_nonnull(f);
	pci_function_init(&f->fn, with, &m->h.host, id, &ids);
	pci_function_set_bar(&f->fn, 0, PCI_BAR_MEM64, false, 0x4000, &bar_ops, f);
	pci_function_set_bar(&f->fn, 2, PCI_BAR_IO, false, 0x40, &bar_ops, f);
	pci_function_set_bar(&f->fn, 3, PCI_BAR_MEM32, false, 0x1000, &bar_ops, f);
	f->msix = msix_new(&f->fn, VECTORS, 0, 0, 0, 0x2000, NULL);
	ck_assert_ptr_nonnull(f->msix);
	ck_assert_int_eq(pci_root_add(m->root, &f->fn, slot, hotplug, NULL), 0);
	return &f->fn;
}

static struct machine *machine_new(bool ecam_only)
{
	const struct pci_root_layout layout = {
		.ecam_base = ECAM,
		.mem32_base = 0xc0000000,
		.mem32_size = 0x10000000,
		.mem64_base = MEM64,
		.mem64_size = 0x100000000,
		.io_base = 0xd000,
		.io_size = 0x1000,
		.intx_gsi = { 16, 17, 18, 19 },
		.hotplug_base = UP,
		.ecam_only = ecam_only,
	};
	struct machine *m = calloc(1, sizeof(*m));

	ck_assert_ptr_nonnull(m);
	ck_assert_int_eq(fake_host_init(&m->h), 0);
	m->root = pci_root_new(&m->h.host, &layout, NULL, NULL);
	ck_assert_ptr_nonnull(m->root);
	return m;
}

static void *make(void)
{
	struct machine *m = machine_new(false);

	add_to(m, "net:1", 5, &ops, false);
	add_to(m, "disk0", 2, &ops, false);
	return m;
}

static void destroy(void *opaque)
{
	struct machine *m = opaque;

	pci_root_free(m->root);
	ck_assert_uint_eq(m->h.fake.misuses, 0);
	ck_assert_uint_eq(m->h.fake.routes, 0);
	fake_host_destroy(&m->h);
	free(m);
}

static void config_write(struct machine *m, unsigned int slot, unsigned int offset, uint32_t value)
{
	uint8_t data[4];

	store_le32(data, value);
	ck_assert(bus_write(m->h.host.mmio, ECAM + (slot << 15) + offset, data, 4));
}

static uint32_t read32(struct machine *m, uint64_t address)
{
	uint8_t data[4];

	bus_read(m->h.host.mmio, address, data, 4);
	return load_le32(data);
}

static unsigned int msix_cap(const struct pci_function *fn)
{
	return fn->config[PCI_CAPABILITY_LIST];
}

/* Hot-plug pending, a removal asked for, BARs moved and decoded, vectors in use, masked
 * and pending; the address of config space left at something. */
static void prepare(void *opaque)
{
	struct machine *m = opaque;
	struct pci_function *disk = pci_root_find(m->root, "disk0");
	struct msix *msix = of(disk)->msix;
	uint8_t data[4];

	ck_assert_int_eq(pci_root_request_removal(m->root, pci_root_find(m->root, "net:1"), NULL),
			 0);
	config_write(m, 2, PCI_BASE_ADDRESS_0, 0x40000);
	config_write(m, 2, PCI_BASE_ADDRESS_1, MEM64 >> 32);
	config_write(m, 2, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_IO | PCI_COMMAND_MASTER);
	config_write(m, 2, PCI_CACHE_LINE_SIZE, 0x10);
	for (unsigned int i = 0; i < VECTORS; i++) {
		uint8_t entry[16] = { 0 };

		store_le32(entry, 0xfee00000);
		store_le32(entry + 8, i);
		entry[12] = i % 3 == 0;
		for (unsigned int at = 0; at < 16; at += 4)
			msix_table_write(msix, 16 * i + at, entry + at, 4);
	}
	config_write(m, 2, msix_cap(disk), (uint32_t)PCI_MSIX_FLAGS_ENABLE << 16);
	for (unsigned int i = 0; i < VECTORS; i += 9)
		msix_signal(msix, i);
	msix_signal(msix, VECTORS - 1); /* masked, too */
	store_le32(data, 0x80001234);
	ck_assert(bus_write(m->h.host.pio, 0xcf8, data, 4));
}

static int save(void *opaque, struct state_writer *writer, struct error *err)
{
	return pci_root_save(((struct machine *)opaque)->root, writer, "devices", err);
}

static int load(void *opaque, const struct state_node *node, struct error *err)
{
	return pci_root_load(((struct machine *)opaque)->root, node, err);
}

static const struct state_case root_case = { "pci-root-v1", make,    prepare, save,
					     load,	    destroy, NULL,    NULL };

START_TEST(what_a_fresh_root_loads_it_saves_again)
{
	state_case_round_trip(&root_case);
}
END_TEST

START_TEST(the_first_version_loads)
{
	state_case_golden(&root_case);
}
END_TEST

START_TEST(what_is_missing_or_wrong_is_refused_by_name)
{
	state_case_refusals(&root_case);
}
END_TEST

static struct state_blob prepared(void)
{
	return state_case_prepared(&root_case);
}

static int load_into(struct machine *m, struct state_blob blob, struct error *err)
{
	return state_case_load(&root_case, m, blob.data, blob.len, err);
}

static struct machine *moved(void)
{
	struct state_blob blob = prepared();
	struct machine *m = make();
	struct error err = ERROR_INIT;

	ck_assert_msg(!load_into(m, blob, &err), "%s", err.message);
	free(blob.data);
	return m;
}

START_TEST(hot_plug_that_was_pending_is_read_once)
{
	struct machine *m = moved();

	ck_assert_uint_eq(read32(m, DOWN), 1 << 5);
	ck_assert_uint_eq(read32(m, DOWN), 0);
	ck_assert_uint_eq(read32(m, UP), 0);
	destroy(m);
}
END_TEST

START_TEST(a_removal_that_was_asked_for_happens_at_the_next_reset)
{
	struct machine *m = moved();

	pci_root_reset(m->root);
	ck_assert_ptr_null(pci_root_find(m->root, "net:1"));
	ck_assert_ptr_nonnull(pci_root_find(m->root, "disk0"));
	destroy(m);
}
END_TEST

START_TEST(bars_are_where_the_guest_put_them_and_go_back_at_reset)
{
	struct machine *m = moved();
	struct pci_function *disk = pci_root_find(m->root, "disk0");
	uint8_t data[4];

	ck_assert_uint_eq(read32(m, MEM64 + 0x40000), 0x77777777);
	ck_assert(bus_read(m->h.host.pio, disk->bars[2].address, data, 4));
	pci_root_reset(m->root);
	ck_assert_uint_eq(disk->bars[0].address, MEM64 + 0x4000); /* the second one added */
	ck_assert(!disk->bars[0].mapped);
	destroy(m);
}
END_TEST

START_TEST(pending_vectors_are_pending_and_others_route)
{
	struct machine *m = moved();
	struct msix *msix = of(pci_root_find(m->root, "disk0"))->msix;
	uint8_t pba[24], zero[4] = { 0 };

	for (unsigned int at = 0; at < sizeof(pba); at += 8)
		msix_pba_read(msix, at, pba + at, 8);
	for (unsigned int i = 0; i < VECTORS; i++)
		ck_assert_uint_eq(pba[i / 8] >> i % 8 & 1, i % 9 == 0 || i == VECTORS - 1);
	ck_assert_uint_eq(msix_routes(msix), VECTORS - (VECTORS + 2) / 3);
	ck_assert_uint_eq(m->h.fake.delivered, 0);
	msix_table_write(msix, 16 * 9 + 12, zero, 4);
	ck_assert_uint_eq(m->h.fake.delivered, 1);
	ck_assert_uint_eq(m->h.fake.last_delivered.data, 9);
	ck_assert_uint_eq(m->h.fake.last_delivered.devid, 2 << 3);
	destroy(m);
}
END_TEST

START_TEST(a_place_on_the_bus_that_is_taken_is_said)
{
	struct state_blob blob = prepared();
	struct machine *m = make();
	struct error err = ERROR_INIT;

	ck_assert_int_eq(
		bus_add(m->h.host.mmio, MEM64 + 0x40000, 0x100, "intruder", &bar_ops, NULL, NULL),
		0);
	ck_assert_int_eq(load_into(m, blob, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "/devices/disk0: property mapped-bars"));
	ck_assert_ptr_nonnull(strstr(err.message, "intruder"));
	bus_remove(m->h.host.mmio, MEM64 + 0x40000);
	free(blob.data);
	destroy(m);
}
END_TEST

/* A guest that put one BAR on top of another did so there, too; who came first won. */
START_TEST(a_bar_that_was_not_decoded_is_not_decoded_here)
{
	const unsigned int slots[] = { _i ? 5 : 2, _i ? 2 : 5 };
	struct machine *from = make(), *to = make();
	struct error err = ERROR_INIT;
	struct pci_function *fn;
	struct state_blob blob;

	for (unsigned int i = 0; i < 2; i++) {
		config_write(from, slots[i], PCI_BASE_ADDRESS_0, 0x40000);
		config_write(from, slots[i], PCI_COMMAND, PCI_COMMAND_MEMORY);
	}
	blob = state_case_save(&root_case, from);
	ck_assert_msg(!load_into(to, blob, &err), "%s", err.message);
	for (unsigned int i = 0; i < 2; i++) {
		fn = pci_root_find(to->root, slots[i] == 2 ? "disk0" : "net:1");
		ck_assert(fn->bars[0].mapped == (i == 0));
		ck_assert(fn->bars[3].mapped);
		ck_assert_uint_eq(fn->bars[0].address, MEM64 + 0x40000);
	}
	free(blob.data);
	destroy(from);
	destroy(to);
}
END_TEST

/* Two functions whose BARs are all decoded, somewhere. */
static struct machine *running(void)
{
	struct machine *m = make();

	for (unsigned int slot = 2; slot <= 5; slot += 3) {
		config_write(m, slot, PCI_BASE_ADDRESS_0, slot * 0x10000);
		config_write(m, slot, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
	}
	return m;
}

static struct function *named(const struct machine *m, const char *id)
{
	return of(pci_root_find(m->root, id));
}

static void expect_as(struct machine *to, const char *id, const struct machine *from,
		      const char *from_id)
{
	uint64_t addresses[PCI_BARS];

	pci_function_mappings(&named(from, from_id)->fn, addresses);
	pci_function_expect(&named(to, id)->fn, addresses);
}

static void load_from(struct machine *to, struct machine *from)
{
	static const char *const ids[] = { "disk0", "net:1" };
	struct state_blob blob = state_case_save(&root_case, from);
	struct error err = ERROR_INIT;

	ck_assert_msg(!load_into(to, blob, &err), "%s", err.message);
	free(blob.data);
	for (unsigned int i = 0; i < 2; i++)
		for (unsigned int bar = 0; bar < PCI_BARS; bar++) {
			const struct pci_bar *is = &named(to, ids[i])->fn.bars[bar];
			const struct pci_bar *was = &named(from, ids[i])->fn.bars[bar];

			ck_assert(is->mapped == was->mapped && !is->expected);
			if (is->mapped)
				ck_assert_uint_eq(is->address, was->address);
		}
	ck_assert_uint_eq(read32(to, MEM64 + 0x20000), 0x77777777);
}

START_TEST(what_is_where_it_was_expected_stays_on_the_bus)
{
	struct machine *from = running(), *to = make();
	struct function *disk = named(to, "disk0");

	expect_as(to, "disk0", from, "disk0");
	ck_assert_uint_eq(disk->mapped, 3);
	ck_assert_uint_eq(read32(to, MEM64 + 0x20000), 0x77777777);
	load_from(to, from);
	ck_assert_uint_eq(disk->mapped, 3);
	ck_assert_uint_eq(disk->unmapped, 0);
	ck_assert_uint_eq(disk->confirmed, 3);
	ck_assert_uint_eq(named(to, "net:1")->mapped, 3); /* not expected */
	ck_assert_uint_eq(named(to, "net:1")->confirmed, 0);
	/* And then the guest's. */
	config_write(to, 2, PCI_COMMAND, 0);
	ck_assert_uint_eq(disk->unmapped, 3);
	destroy(from);
	destroy(to);
}
END_TEST

START_TEST(what_the_guest_moved_since_is_where_it_is)
{
	struct machine *from = running(), *to = make();

	/* Each where the other is now: both are off before one is on. */
	expect_as(to, "disk0", from, "net:1");
	expect_as(to, "net:1", from, "disk0");
	load_from(to, from);
	for (unsigned int i = 0; i < 2; i++) {
		const struct function *f = named(to, i ? "disk0" : "net:1");

		ck_assert_uint_eq(f->mapped, 6);
		ck_assert_uint_eq(f->unmapped, 3);
		ck_assert_uint_eq(f->confirmed, 0);
	}
	destroy(to);
	/* One that is not decoded any more, others that are. */
	to = make();
	expect_as(to, "disk0", from, "disk0");
	config_write(from, 2, PCI_COMMAND, PCI_COMMAND_MEMORY);
	load_from(to, from);
	ck_assert_uint_eq(named(to, "disk0")->unmapped, 1);
	ck_assert_uint_eq(named(to, "disk0")->confirmed, 2);
	destroy(from);
	destroy(to);
}
END_TEST

START_TEST(what_cannot_be_where_it_is_expected_is_left_out)
{
	static const uint64_t wrong[] = {
		1,	    MEM64 - 0x4000, MEM64 + 0x100, /* not aligned */
		UINT64_MAX, 0x80000000,
	};
	struct machine *from = running(), *to = make();
	struct function *disk = named(to, "disk0");
	uint64_t addresses[PCI_BARS];

	for (unsigned int i = 0; i < ARRAY_SIZE(wrong); i++) {
		for (unsigned int bar = 0; bar < PCI_BARS; bar++)
			addresses[bar] = wrong[i];
		pci_function_expect(&disk->fn, addresses);
	}
	ck_assert_uint_eq(disk->mapped, 0);
	/* On top of another. */
	expect_as(to, "net:1", from, "disk0");
	expect_as(to, "disk0", from, "disk0");
	ck_assert_uint_eq(disk->mapped, 0);
	load_from(to, from);
	destroy(from);
	/* Expected, and that was all. */
	from = running();
	destroy(to);
	to = make();
	expect_as(to, "disk0", from, "disk0");
	destroy(to);
	destroy(from);
}
END_TEST

START_TEST(a_function_that_is_on_one_side_only_is_refused)
{
	struct state_blob blob = prepared();
	struct machine *m = make();
	struct error err = ERROR_INIT;
	struct pci_function *disk = pci_root_find(m->root, "disk0");

	if (_i) {
		add_to(m, "extra", 9, &ops, false);
	} else {
		pci_root_remove(m->root, disk);
		function_free(disk);
	}
	ck_assert_int_lt(load_into(m, blob, &err), 0);
	ck_assert_str_eq(err.message, _i ? "/devices: node extra is missing"
					 : "/devices/disk0: this machine has no such device");
	free(blob.data);
	destroy(m);
}
END_TEST

START_TEST(a_function_in_another_slot_is_refused)
{
	struct state_blob blob = prepared();
	struct machine *m = machine_new(false);
	struct error err = ERROR_INIT;

	add_to(m, "disk0", 5, &ops, false);
	add_to(m, "net:1", 2, &ops, false);
	ck_assert_int_eq(load_into(m, blob, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "property devfn is"));
	free(blob.data);
	destroy(m);
}
END_TEST

START_TEST(a_function_that_cannot_be_saved_is_named)
{
	struct machine *m = make();
	struct state_writer *writer = state_writer_new(NULL);
	struct error err = ERROR_INIT;

	add_to(m, "vfio0", 9, &unsaved_ops, false);
	ck_assert_int_eq(pci_root_save(m->root, writer, "devices", &err), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(err.message, "vfio0"));
	state_writer_free(writer);
	destroy(m);
}
END_TEST

/* What the guest cannot write is this machine's, whatever the state says. */
START_TEST(bits_a_guest_cannot_write_are_compared_not_taken)
{
	static const unsigned int offsets[] = { PCI_REVISION_ID,
						PCI_CLASS_DEVICE,
						PCI_HEADER_TYPE,
						PCI_CAPABILITY_LIST,
						0x41,
						0x100,
						0xfff };
	struct state_blob blob = prepared();

	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		struct machine *m = make();
		struct error err = ERROR_INIT;
		void *copy;
		int node = state_case_copy(blob, "/devices/disk0", &copy);
		uint8_t *config = fdt_getprop_w(copy, node, "config", NULL);

		config[offsets[i]] ^= 1;
		ck_assert_int_eq(
			load_into(m, (struct state_blob){ copy, fdt_totalsize(copy) }, &err),
			-EINVAL);
		ck_assert_ptr_nonnull(strstr(err.message, "/devices/disk0: property config has"));
		free(copy);
		destroy(m);
	}
	free(blob.data);
}
END_TEST

START_TEST(a_config_address_without_ports_for_it_is_refused)
{
	struct state_blob blob = prepared();
	struct machine *m = machine_new(true);
	struct error err = ERROR_INIT;

	add_to(m, "net:1", 5, &ops, false);
	add_to(m, "disk0", 2, &ops, false);
	ck_assert_int_eq(load_into(m, blob, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "/devices: property config-address"));
	free(blob.data);
	destroy(m);
}
END_TEST

struct walk {
	unsigned int count;
	char ids[64];
};

static void visit(void *opaque, struct pci_function *fn)
{
	struct walk *walk = opaque;

	walk->count++;
	strcat(walk->ids, fn->id);
	strcat(walk->ids, " ");
}

START_TEST(each_function_is_visited_by_slot_and_not_the_bridge)
{
	struct machine *m = make();
	struct walk walk = { .count = 0 };

	pci_root_each(m->root, visit, &walk);
	ck_assert_str_eq(walk.ids, "disk0 net:1 ");
	destroy(m);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("state of PCI");
	TCase *t = tcase_create("state");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, what_a_fresh_root_loads_it_saves_again);
	tcase_add_test(t, the_first_version_loads);
	tcase_add_test(t, what_is_missing_or_wrong_is_refused_by_name);
	tcase_add_test(t, hot_plug_that_was_pending_is_read_once);
	tcase_add_test(t, a_removal_that_was_asked_for_happens_at_the_next_reset);
	tcase_add_test(t, bars_are_where_the_guest_put_them_and_go_back_at_reset);
	tcase_add_test(t, pending_vectors_are_pending_and_others_route);
	tcase_add_test(t, a_place_on_the_bus_that_is_taken_is_said);
	tcase_add_loop_test(t, a_bar_that_was_not_decoded_is_not_decoded_here, 0, 2);
	tcase_add_test(t, what_is_where_it_was_expected_stays_on_the_bus);
	tcase_add_test(t, what_the_guest_moved_since_is_where_it_is);
	tcase_add_test(t, what_cannot_be_where_it_is_expected_is_left_out);
	tcase_add_loop_test(t, a_function_that_is_on_one_side_only_is_refused, 0, 2);
	tcase_add_test(t, a_function_in_another_slot_is_refused);
	tcase_add_test(t, a_function_that_cannot_be_saved_is_named);
	tcase_add_test(t, bits_a_guest_cannot_write_are_compared_not_taken);
	tcase_add_test(t, a_config_address_without_ports_for_it_is_refused);
	tcase_add_test(t, each_function_is_visited_by_slot_and_not_the_bridge);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
