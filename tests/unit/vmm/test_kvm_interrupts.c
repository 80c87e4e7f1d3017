/* SPDX-License-Identifier: Apache-2.0 */
/* MSI routes over a KVM that keeps the table it was given last. */
#include <check.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "tests/unit/helpers/run_suite.h"
#include "vmm/kvm_interrupts.h"

#define FIXED 40
#define FIRST_GSI 24
#define GSIS 4096
#define IDLE_MAX 64

static struct {
	struct kvm_irq_routing_entry entries[FIXED + GSIS];
	unsigned int count, calls;
	bool fail;
} table;

static struct kvm kvm = { .fd = 9000, .vm_fd = 9001 };
static struct kvm_interrupts *self;
static struct interrupts irqs;

int ioctl(int fd, unsigned long request, ...)
{
	const struct kvm_irq_routing *routing;
	va_list args;

	va_start(args, request);
	routing = va_arg(args, const struct kvm_irq_routing *);
	va_end(args);
	ck_assert_int_eq(fd, kvm.vm_fd);
	ck_assert_uint_eq(request, KVM_SET_GSI_ROUTING);
	table.calls++;
	if (table.fail) {
		errno = ENOMEM;
		return -1;
	}
	ck_assert_uint_le(routing->nr, FIXED + GSIS);
	table.count = routing->nr;
	memcpy(table.entries, routing->entries, routing->nr * sizeof(table.entries[0]));
	return 0;
}

static void setup(void)
{
	struct error err = ERROR_INIT;

	memset(&table, 0, sizeof(table));
	self = kvm_interrupts_new(&kvm, &err);
	ck_assert_msg(self, "%s", err.message);
	irqs = kvm_interrupts_ops(self);
}

static void teardown(void)
{
	kvm_interrupts_free(self);
}

static struct msi_message message(unsigned int n)
{
	return (struct msi_message){ .address = 0x1fee00000ULL + 0x1000ULL * n, .data = 0x40 + n };
}

static int add(unsigned int n)
{
	struct msi_message msg = message(n);

	return irqs.ops->route_add(irqs.opaque, &msg, NULL);
}

/* What KVM sends where that gsi is raised; exactly one entry has it. */
static void check(int gsi, unsigned int n)
{
	struct msi_message msg = message(n);
	unsigned int found = 0;

	for (unsigned int i = FIXED; i < table.count; i++) {
		const struct kvm_irq_routing_entry *entry = &table.entries[i];

		if ((int)entry->gsi != gsi)
			continue;
		found++;
		ck_assert_uint_eq(entry->type, KVM_IRQ_ROUTING_MSI);
		ck_assert_uint_eq(entry->u.msi.address_lo, (uint32_t)msg.address);
		ck_assert_uint_eq(entry->u.msi.address_hi, (uint32_t)(msg.address >> 32));
		ck_assert_uint_eq(entry->u.msi.data, msg.data);
	}
	ck_assert_uint_eq(found, 1);
}

START_TEST(each_route_has_its_gsi_and_message)
{
	int gsis[100];

	for (unsigned int i = 0; i < 100; i++) {
		gsis[i] = add(i);
		ck_assert_int_ge(gsis[i], FIRST_GSI);
		for (unsigned int k = 0; k < i; k++)
			ck_assert_int_ne(gsis[k], gsis[i]);
	}
	for (unsigned int i = 0; i < 100; i++)
		check(gsis[i], i);
	ck_assert_uint_eq(kvm_interrupts_routes(self), 100);
	for (unsigned int i = 0; i < FIXED; i++)
		ck_assert_uint_eq(table.entries[i].type, KVM_IRQ_ROUTING_IRQCHIP);
}
END_TEST

START_TEST(a_message_that_was_given_back_costs_no_call)
{
	int a = add(1), b = add(2);

	table.calls = 0;
	for (unsigned int i = 0; i < 5; i++) {
		irqs.ops->route_remove(irqs.opaque, (unsigned int)a);
		irqs.ops->route_remove(irqs.opaque, (unsigned int)b);
		ck_assert_uint_eq(kvm_interrupts_routes(self), 0);
		ck_assert_int_eq(add(2), b);
		ck_assert_int_eq(add(1), a);
		ck_assert_uint_eq(kvm_interrupts_routes(self), 2);
	}
	ck_assert_uint_eq(table.calls, 0);
	check(a, 1);
	check(b, 2);
}
END_TEST

START_TEST(two_with_the_same_message_have_two_routes)
{
	int a = add(1), b = add(1);

	ck_assert_int_ne(a, b);
	irqs.ops->route_remove(irqs.opaque, (unsigned int)a);
	ck_assert_int_eq(add(1), a);
	ck_assert_int_ne(add(1), a);
}
END_TEST

START_TEST(an_update_reaches_kvm_or_changes_nothing)
{
	int a = add(1);
	struct msi_message msg = message(7);

	table.fail = true;
	ck_assert_int_eq(irqs.ops->route_update(irqs.opaque, (unsigned int)a, &msg, NULL), -ENOMEM);
	ck_assert_int_eq(add(3), -ENOMEM);
	table.fail = false;
	ck_assert_uint_eq(kvm_interrupts_routes(self), 1);
	add(4);
	check(a, 1);
	ck_assert_int_eq(irqs.ops->route_update(irqs.opaque, (unsigned int)a, &msg, NULL), 0);
	check(a, 7);
	/* Given back, it is no route, and its old message nobody's. */
	irqs.ops->route_remove(irqs.opaque, (unsigned int)a);
	ck_assert_int_eq(irqs.ops->route_update(irqs.opaque, (unsigned int)a, &msg, NULL), -ENOENT);
	irqs.ops->route_remove(irqs.opaque, (unsigned int)a); /* twice is once */
	ck_assert_uint_eq(kvm_interrupts_routes(self), 1);
	ck_assert_int_ne(add(1), a);
	ck_assert_int_eq(add(7), a);
}
END_TEST

START_TEST(the_table_does_not_grow_by_what_is_given_back)
{
	int kept = add(0);

	for (unsigned int i = 1; i < 3 * GSIS; i++) {
		int gsi = add(i);

		ck_assert_int_ge(gsi, FIRST_GSI);
		check(gsi, i);
		irqs.ops->route_remove(irqs.opaque, (unsigned int)gsi);
		ck_assert_uint_le(table.count, FIXED + 1 + IDLE_MAX);
	}
	check(kept, 0);
}
END_TEST

static void expect(unsigned int first, unsigned int count)
{
	struct msi_message msgs[IDLE_MAX];

	for (unsigned int i = 0; i < count; i++)
		msgs[i] = message(first + i);
	irqs.ops->routes_expect(irqs.opaque, msgs, count);
}

START_TEST(routes_that_are_expected_cost_one_call)
{
	int gsis[3 * IDLE_MAX];

	for (unsigned int n = 0; n < 3; n++) {
		table.calls = 0;
		expect(n * IDLE_MAX, IDLE_MAX);
		ck_assert_uint_eq(table.calls, 1);
		ck_assert_uint_eq(kvm_interrupts_routes(self), n * IDLE_MAX);
		for (unsigned int i = n * IDLE_MAX; i < (n + 1) * IDLE_MAX; i++)
			gsis[i] = add(i);
		ck_assert_uint_eq(table.calls, 1);
	}
	for (unsigned int i = 0; i < 3 * IDLE_MAX; i++)
		check(gsis[i], i);
	/* What is there already is not asked for. */
	irqs.ops->route_remove(irqs.opaque, (unsigned int)gsis[5]);
	irqs.ops->route_remove(irqs.opaque, (unsigned int)gsis[6]);
	expect(5, 2);
	ck_assert_uint_eq(table.calls, 1);
	ck_assert_int_eq(add(6), gsis[6]);
	ck_assert_int_eq(add(5), gsis[5]);
	/* Also where twice as many would not fit. */
	for (unsigned int i = 0; i < 40; i++)
		irqs.ops->route_remove(irqs.opaque, (unsigned int)gsis[i]);
	expect(0, 40);
	ck_assert_uint_eq(table.calls, 1);
	for (unsigned int i = 0; i < 40; i++)
		ck_assert_int_eq(add(i), gsis[i]);
	ck_assert_uint_eq(table.calls, 1);
}
END_TEST

START_TEST(the_messages_of_routes_in_use_can_be_had)
{
	struct msi_message msgs[4];
	int a = add(1);

	add(2);
	add(3000);
	irqs.ops->route_remove(irqs.opaque, (unsigned int)a);
	expect(7, 1);
	ck_assert_uint_eq(kvm_interrupts_messages(self, msgs, 4), 2);
	ck_assert_uint_eq(msgs[0].address, message(2).address);
	ck_assert_uint_eq(msgs[0].data, message(2).data);
	ck_assert_uint_eq(msgs[1].address, message(3000).address);
	ck_assert_uint_eq(msgs[1].data, message(3000).data);
	ck_assert_uint_eq(kvm_interrupts_messages(self, msgs, 1), 1);
	ck_assert_uint_eq(kvm_interrupts_messages(self, msgs, 0), 0);
}
END_TEST

START_TEST(what_was_expected_in_vain_makes_room)
{
	int kept = add(9999), gsi;

	for (unsigned int i = 0; i < 100; i++) {
		expect(i * 40, 40);
		ck_assert_uint_le(table.count, FIXED + 1 + IDLE_MAX);
	}
	gsi = add(99 * 40 + 7);
	check(gsi, 99 * 40 + 7);
	check(kept, 9999);
	ck_assert_uint_eq(kvm_interrupts_routes(self), 2);
}
END_TEST

START_TEST(expecting_may_fail)
{
	int a = add(1), b;

	table.fail = true;
	expect(10, 8);
	ck_assert_int_eq(add(10), -ENOMEM);
	table.fail = false;
	b = add(10);
	ck_assert_int_ge(b, FIRST_GSI);
	ck_assert_int_ne(a, b);
	check(a, 1);
	check(b, 10);
	ck_assert_uint_eq(table.count, FIXED + 2);
}
END_TEST

START_TEST(all_gsis_can_be_in_use_and_one_more_is_refused)
{
	struct msi_message msg = message(GSIS);
	struct error err = ERROR_INIT;
	int gsi;

	for (unsigned int i = 0; i < GSIS - FIRST_GSI; i++)
		ck_assert_int_ge(add(i), FIRST_GSI);
	ck_assert_int_eq(irqs.ops->route_add(irqs.opaque, &msg, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.message, "4072"));
	expect(GSIS, 3); /* there is no room to expect any */
	ck_assert_int_eq(irqs.ops->route_add(irqs.opaque, &msg, NULL), -ENOSPC);
	irqs.ops->route_remove(irqs.opaque, 1000);
	gsi = irqs.ops->route_add(irqs.opaque, &msg, NULL);
	ck_assert_int_eq(gsi, 1000);
	check(gsi, GSIS);
	ck_assert_int_eq(add(0), -ENOSPC);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kvm_interrupts");
	TCase *tc = tcase_create("routes");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, each_route_has_its_gsi_and_message);
	tcase_add_test(tc, a_message_that_was_given_back_costs_no_call);
	tcase_add_test(tc, two_with_the_same_message_have_two_routes);
	tcase_add_test(tc, an_update_reaches_kvm_or_changes_nothing);
	tcase_add_test(tc, the_table_does_not_grow_by_what_is_given_back);
	tcase_add_test(tc, routes_that_are_expected_cost_one_call);
	tcase_add_test(tc, the_messages_of_routes_in_use_can_be_had);
	tcase_add_test(tc, what_was_expected_in_vain_makes_room);
	tcase_add_test(tc, expecting_may_fail);
	tcase_add_test(tc, all_gsis_can_be_in_use_and_one_more_is_refused);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
