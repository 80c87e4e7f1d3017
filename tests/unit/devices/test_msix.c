/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/pci/msix.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/run_suite.h"

#define VECTORS 70
#define CAP 0x40

static struct fake_host h;
static struct pci_function fn;
static struct msix *msix;

static void config_written(struct pci_function *f, unsigned int offset, unsigned int len)
{
	msix_config_written(msix, offset, len);
}

static const struct pci_function_ops ops = { .config_written = config_written };
static const struct pci_ids ids = { .vendor = 0x1af4, .device = 0x1041 };

static void setup(void)
{
	ck_assert_int_eq(fake_host_init(&h), 0);
	pci_function_init(&fn, &ops, &h.host, "net0", &ids);
	fn.devfn = 3 << 3;
	msix = msix_new(&fn, VECTORS, 0, 0x2000, 0, 0x3000, NULL);
	ck_assert_ptr_nonnull(msix);
}

static void teardown(void)
{
	msix_free(msix);
	ck_assert_uint_eq(h.fake.routes, 0);
	ck_assert_uint_eq(h.fake.irqfd_count, 0);
	ck_assert_uint_eq(h.fake.misuses, 0);
	pci_function_destroy(&fn);
	fake_host_destroy(&h);
}

static void control(uint16_t value)
{
	uint8_t data[2];

	store_le16(data, value);
	pci_function_config_write(&fn, CAP + 2, data, 2);
}

static void enable(void)
{
	control(PCI_MSIX_FLAGS_ENABLE);
}

static void entry_write(unsigned int vector, unsigned int at, uint32_t value)
{
	uint8_t data[4];

	store_le32(data, value);
	msix_table_write(msix, vector * 16 + at, data, 4);
}

static void set_mask(unsigned int vector, bool masked)
{
	entry_write(vector, 12, masked);
}

/* As Linux does: address, data, then unmask. */
static void program(unsigned int vector, uint64_t address, uint32_t data)
{
	entry_write(vector, 0, (uint32_t)address);
	entry_write(vector, 4, (uint32_t)(address >> 32));
	entry_write(vector, 8, data);
	set_mask(vector, false);
}

static bool pending(unsigned int vector)
{
	uint8_t byte = 0;

	msix_pba_read(msix, vector / 8, &byte, 1);
	return byte & 1u << vector % 8;
}

START_TEST(capability_describes_table_and_pba)
{
	uint8_t data[12];

	for (unsigned int i = 0; i < 12; i += 4)
		pci_function_config_read(&fn, CAP + i, data + i, 4);
	ck_assert_uint_eq(data[0], PCI_CAP_ID_MSIX);
	ck_assert_uint_eq(load_le16(data + 2), VECTORS - 1);
	ck_assert_uint_eq(load_le32(data + 4), 0x2000);
	ck_assert_uint_eq(load_le32(data + 8), 0x3000);
	control(0xffff);
	pci_function_config_read(&fn, CAP, data, 4);
	ck_assert_uint_eq(load_le16(data + 2), 0xc000 | (VECTORS - 1));
}
END_TEST

START_TEST(impossible_tables_are_refused)
{
	ck_assert_ptr_null(msix_new(&fn, 0, 0, 0, 0, 0, NULL));
	ck_assert_ptr_null(msix_new(&fn, 2049, 0, 0, 0, 0, NULL));
	ck_assert_ptr_null(msix_new(&fn, 1, 6, 0, 0, 0, NULL));
	ck_assert_ptr_null(msix_new(&fn, 1, 0, 4, 0, 0, NULL));
	ck_assert_ptr_null(msix_new(&fn, 1, 0, 0, 0, 4, NULL));
}
END_TEST

START_TEST(table_starts_masked_and_empty)
{
	for (unsigned int i = 0; i < VECTORS; i++) {
		uint64_t half;

		msix_table_read(msix, i * 16, &half, 8);
		ck_assert_uint_eq(half, 0);
		msix_table_read(msix, i * 16 + 8, &half, 8);
		ck_assert_uint_eq(half, 1ULL << 32);
	}
	enable();
	ck_assert_uint_eq(msix_routes(msix), 0);
}
END_TEST

START_TEST(only_unmasked_vectors_cost_a_route)
{
	enable();
	program(5, 0xfee00000, 0x41);
	ck_assert_uint_eq(msix_routes(msix), 1);
	ck_assert_uint_eq(h.fake.route_adds, 1);
	ck_assert_uint_eq(h.fake.route_updates, 0);
	msix_signal(msix, 5);
	ck_assert_uint_eq(fake_interrupts_deliver(&h.fake), 1);
	ck_assert_uint_eq(h.fake.last_delivered.address, 0xfee00000);
	ck_assert_uint_eq(h.fake.last_delivered.data, 0x41);
	ck_assert_uint_eq(h.fake.last_delivered.devid, 3 << 3);
	set_mask(5, true);
	ck_assert_uint_eq(msix_routes(msix), 0);
}
END_TEST

START_TEST(routes_wanted_at_once_are_asked_for_together)
{
	enable();
	program(3, 0xfee00000, 3);
	ck_assert_uint_eq(h.fake.expects, 0);
	control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	enable(); /* one alone */
	ck_assert_uint_eq(h.fake.expects, 0);
	control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	for (unsigned int i = 0; i < VECTORS; i++)
		program(i, 0xfee00000, i);
	enable();
	ck_assert_uint_eq(msix_routes(msix), VECTORS);
	ck_assert_uint_eq(h.fake.expects, 2); /* 64 and the rest */
	ck_assert_uint_eq(h.fake.expected, VECTORS);
	msix_hold(msix, true);
	ck_assert_uint_eq(msix_routes(msix), 0);
	ck_assert_uint_eq(h.fake.expects, 2);
	msix_hold(msix, false);
	ck_assert_uint_eq(h.fake.expects, 4);
	ck_assert_uint_eq(h.fake.expected, 2 * VECTORS);
}
END_TEST

START_TEST(masked_vector_stays_pending_and_is_delivered_at_unmask)
{
	enable();
	program(66, 0xfee00000, 0x41);
	set_mask(66, true);
	ck_assert(!pending(66));
	msix_signal(msix, 66);
	ck_assert(pending(66));
	ck_assert(!pending(65));
	ck_assert_uint_eq(h.fake.delivered, 0);
	set_mask(66, false);
	ck_assert_uint_eq(h.fake.delivered, 1);
	ck_assert(!pending(66));
}
END_TEST

START_TEST(function_mask_masks_all)
{
	enable();
	program(0, 0xfee00000, 0x41);
	program(1, 0xfee00000, 0x42);
	control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	ck_assert_uint_eq(msix_routes(msix), 0);
	msix_signal(msix, 0);
	ck_assert(pending(0));
	/* Unmasking a vector does not undo it. */
	set_mask(1, true);
	set_mask(1, false);
	ck_assert_uint_eq(msix_routes(msix), 0);
	enable();
	ck_assert_uint_eq(msix_routes(msix), 2);
	ck_assert_uint_eq(h.fake.delivered, 1);
}
END_TEST

START_TEST(vectors_unmasked_before_enabling_work_after)
{
	program(2, 0xfee01000, 7);
	ck_assert_uint_eq(msix_routes(msix), 0);
	enable();
	ck_assert(msix_enabled(msix));
	ck_assert_uint_eq(msix_routes(msix), 1);
	control(0);
	ck_assert(!msix_enabled(msix));
	ck_assert_uint_eq(msix_routes(msix), 0);
}
END_TEST

START_TEST(signals_while_disabled_are_dropped)
{
	int fd = msix_eventfd(msix, 1);

	msix_signal(msix, 1);
	ck_assert(!eventfd_drain(fd));
	enable();
	msix_signal(msix, 1);
	ck_assert(pending(1));
	control(0);
	ck_assert(!pending(1));
	program(1, 0xfee00000, 1);
	enable();
	ck_assert_uint_eq(h.fake.delivered, 0);
}
END_TEST

START_TEST(message_of_an_unmasked_vector_can_change)
{
	enable();
	program(3, 0xfee00000, 0x41);
	entry_write(3, 0, 0xfee02003);
	entry_write(3, 8, 0x55);
	/* Not a change. */
	entry_write(3, 8, 0x55);
	ck_assert_uint_eq(h.fake.route_updates, 2);
	ck_assert_uint_eq(h.fake.route_adds, 1);
	msix_signal(msix, 3);
	fake_interrupts_deliver(&h.fake);
	ck_assert_uint_eq(h.fake.last_delivered.address, 0xfee02000);
	ck_assert_uint_eq(h.fake.last_delivered.data, 0x55);
}
END_TEST

START_TEST(qword_writes_reach_both_halves)
{
	uint64_t address = 0x1fee00000, data = 0x99;

	enable();
	msix_table_write(msix, 16, &address, 8);
	msix_table_write(msix, 24, &data, 8);
	ck_assert_uint_eq(msix_routes(msix), 1);
	msix_signal(msix, 1);
	fake_interrupts_deliver(&h.fake);
	ck_assert_uint_eq(h.fake.last_delivered.address, 0x1fee00000);
	ck_assert_uint_eq(h.fake.last_delivered.data, 0x99);
}
END_TEST

START_TEST(malformed_table_and_pba_accesses_do_nothing)
{
	uint8_t ones[8], data[8], before[VECTORS * 16], after[VECTORS * 16];
	static const struct {
		uint64_t offset;
		unsigned int len;
	} bad[] = { { 0, 1 },
		    { 0, 2 },
		    { 2, 4 },
		    { 4, 8 },
		    { 12, 8 },
		    { 12, 1 },
		    { VECTORS * 16, 4 },
		    { VECTORS * 16 - 4, 8 },
		    { UINT64_MAX - 3, 4 },
		    { 1ULL << 40, 4 } };

	memset(ones, 0xff, sizeof(ones));
	for (unsigned int i = 0; i < sizeof(before); i += 8)
		msix_table_read(msix, i, before + i, 8);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++)
		msix_table_write(msix, bad[i].offset, ones, bad[i].len);
	for (unsigned int i = 0; i < sizeof(after); i += 8)
		msix_table_read(msix, i, after + i, 8);
	ck_assert_mem_eq(before, after, sizeof(before));
	memset(data, 0, sizeof(data));
	msix_table_read(msix, VECTORS * 16 - 4, data, 8);
	ck_assert_mem_eq(data, ones, 8);
	memset(data, 0, sizeof(data));
	msix_pba_read(msix, 16, data, 8);
	ck_assert_mem_eq(data, ones, 8);
	memset(data, 0, sizeof(data));
	msix_pba_read(msix, UINT64_MAX, data, 4);
	ck_assert_mem_eq(data, ones, 4);
	/* A read may cross into the next entry. */
	entry_write(1, 0, 0x11223344);
	msix_table_read(msix, 12, data, 8);
	ck_assert_uint_eq(load_le64(data), 0x1122334400000001);
	/* Bits past the last vector are zero. */
	msix_pba_read(msix, 8, data, 8);
	ck_assert_uint_eq(load_le64(data), 0);
	/* Reserved bits of the control dword are not kept. */
	entry_write(0, 12, 0xffffffff);
	msix_table_read(msix, 12, data, 4);
	ck_assert_uint_eq(load_le32(data), 1);
}
END_TEST

START_TEST(vectors_that_do_not_exist_are_ignored)
{
	enable();
	msix_signal(msix, VECTORS);
	msix_signal(msix, MSIX_NO_VECTOR);
	ck_assert_int_eq(msix_eventfd(msix, VECTORS), -1);
	ck_assert_uint_eq(fake_interrupts_deliver(&h.fake), 0);
}
END_TEST

START_TEST(eventfd_is_stable_and_what_signals)
{
	int fd = msix_eventfd(msix, 9);

	ck_assert_int_ge(fd, 0);
	enable();
	program(9, 0xfee00000, 9);
	ck_assert_int_eq(msix_eventfd(msix, 9), fd);
	ck_assert_int_ge(fake_interrupts_gsi_of(&h.fake, fd), FAKE_LINES);
	eventfd_signal(fd); /* as vhost does */
	ck_assert_uint_eq(fake_interrupts_deliver(&h.fake), 1);
}
END_TEST

START_TEST(exhausted_routes_leave_the_vector_pending_and_are_tried_again)
{
	enable();
	h.fake.route_limit = 1;
	program(0, 0xfee00000, 1);
	program(1, 0xfee00000, 2);
	ck_assert_uint_eq(msix_routes(msix), 1);
	msix_signal(msix, 1);
	ck_assert(pending(1));
	h.fake.route_limit = 8;
	set_mask(1, false);
	ck_assert_uint_eq(msix_routes(msix), 2);
	ck_assert_uint_eq(h.fake.delivered, 1);
}
END_TEST

START_TEST(failed_attach_gives_its_route_back)
{
	enable();
	h.fake.attach_error = ENOMEM;
	program(0, 0xfee00000, 1);
	ck_assert_uint_eq(msix_routes(msix), 0);
	ck_assert_uint_eq(h.fake.routes, 0);
}
END_TEST

START_TEST(reset_is_disabled_masked_and_not_pending)
{
	uint8_t data[8];

	enable();
	program(0, 0xfee00000, 1);
	msix_signal(msix, 1);
	msix_reset(msix);
	ck_assert(!msix_enabled(msix));
	ck_assert_uint_eq(msix_routes(msix), 0);
	ck_assert(!pending(1));
	msix_table_read(msix, 8, data, 8);
	ck_assert_uint_eq(load_le64(data), 1ULL << 32);
	pci_function_config_read(&fn, CAP + 2, data, 2);
	ck_assert_uint_eq(load_le16(data), VECTORS - 1);
}
END_TEST

struct notes {
	unsigned int calls;
	bool unmasked[VECTORS];
};

static void note(void *opaque, unsigned int vector, bool unmasked)
{
	struct notes *n = opaque;

	n->calls++;
	ck_assert(n->unmasked[vector] != unmasked);
	n->unmasked[vector] = unmasked;
	/* No lock is held. */
	ck_assert_uint_le(msix_routes(msix), VECTORS);
}

START_TEST(owner_is_told_what_becomes_deliverable)
{
	struct notes n = { .calls = 0 };

	msix_set_notify(msix, note, &n);
	program(1, 0xfee00000, 1);
	program(69, 0xfee00000, 2);
	ck_assert_uint_eq(n.calls, 0);
	enable();
	ck_assert_uint_eq(n.calls, 2);
	ck_assert(n.unmasked[1] && n.unmasked[69]);
	set_mask(1, true);
	ck_assert_uint_eq(n.calls, 3);
	control(0);
	ck_assert_uint_eq(n.calls, 4);
	ck_assert(!n.unmasked[69]);
}
END_TEST

static atomic_bool stop;

static void *toggle(void *opaque)
{
	unsigned int vector = *(unsigned int *)opaque;

	for (unsigned int i = 0; i < 300; i++) {
		program(vector, 0xfee00000 + (i << 12), i);
		set_mask(vector, true);
	}
	program(vector, 0xfee00000, vector);
	return NULL;
}

static void *signal_all(void *opaque)
{
	uint8_t data[8];

	while (!atomic_load(&stop)) {
		for (unsigned int i = 0; i < 4; i++)
			msix_signal(msix, i);
		msix_pba_read(msix, 0, data, 8);
		fake_interrupts_deliver(&h.fake);
	}
	return NULL;
}

START_TEST(vcpus_and_signals_run_beside_each_other)
{
	struct notes n = { .calls = 0 };
	unsigned int index[3] = { 0, 1, 2 };
	pthread_t threads[3], signaller;

	msix_set_notify(msix, note, &n);
	enable();
	pthread_create(&signaller, NULL, signal_all, NULL);
	for (unsigned int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, toggle, &index[i]);
	for (unsigned int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&stop, true);
	pthread_join(signaller, NULL);
	ck_assert_uint_eq(msix_routes(msix), 3);
	ck_assert(n.unmasked[0] && n.unmasked[1] && n.unmasked[2]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("msix");
	TCase *t = tcase_create("msix");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 30);
	tcase_add_test(t, capability_describes_table_and_pba);
	tcase_add_test(t, impossible_tables_are_refused);
	tcase_add_test(t, table_starts_masked_and_empty);
	tcase_add_test(t, only_unmasked_vectors_cost_a_route);
	tcase_add_test(t, routes_wanted_at_once_are_asked_for_together);
	tcase_add_test(t, masked_vector_stays_pending_and_is_delivered_at_unmask);
	tcase_add_test(t, function_mask_masks_all);
	tcase_add_test(t, vectors_unmasked_before_enabling_work_after);
	tcase_add_test(t, signals_while_disabled_are_dropped);
	tcase_add_test(t, message_of_an_unmasked_vector_can_change);
	tcase_add_test(t, qword_writes_reach_both_halves);
	tcase_add_test(t, malformed_table_and_pba_accesses_do_nothing);
	tcase_add_test(t, vectors_that_do_not_exist_are_ignored);
	tcase_add_test(t, eventfd_is_stable_and_what_signals);
	tcase_add_test(t, exhausted_routes_leave_the_vector_pending_and_are_tried_again);
	tcase_add_test(t, failed_attach_gives_its_route_back);
	tcase_add_test(t, reset_is_disabled_masked_and_not_pending);
	tcase_add_test(t, owner_is_told_what_becomes_deliverable);
	tcase_add_test(t, vcpus_and_signals_run_beside_each_other);
	suite_add_tcase(s, t);
	return run_suite(s);
}
