/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>

#include "base/bytes.h"
#include "devices/virtio/interrupt_hold.h"
#include "tests/unit/helpers/run_suite.h"

/* A driver that has at most `depth` requests out, sends one each gap_ns, and goes on when it
 * is told; a device that answers at once. */
struct play {
	struct interrupt_hold hold;
	unsigned int depth;
	uint64_t gap_ns, now_ns, waited_ns, interrupts, requests;
};

static void tell(struct play *p, unsigned int *held)
{
	p->interrupts++;
	*held = 0;
}

static void drive(struct play *p, unsigned int requests)
{
	unsigned int held = 0;

	for (unsigned int i = 0; i < requests; i++) {
		p->now_ns += p->gap_ns;
		interrupt_hold_arrived(&p->hold, 1, p->now_ns);
		p->requests++;
		held++;
		if (interrupt_hold_full(&p->hold, held)) {
			interrupt_hold_told(&p->hold);
			tell(p, &held);
		} else if (held == p->depth) {
			/* It waits for an answer, and so do we for it. */
			p->now_ns += interrupt_hold_ns(&p->hold);
			p->waited_ns += interrupt_hold_ns(&p->hold);
			interrupt_hold_over(&p->hold, held);
			tell(p, &held);
		}
	}
}

START_TEST(one_after_the_other_is_told_at_once)
{
	struct play p = { .depth = 1, .gap_ns = 10000 };

	drive(&p, 6400);
	ck_assert_uint_eq(p.interrupts, 6400);
	/* Tried now and then: a hundredth of the time in all is little. */
	ck_assert_uint_gt(p.waited_ns, 0);
	ck_assert_uint_le(p.waited_ns * 100, p.now_ns);
}
END_TEST

START_TEST(many_are_told_together)
{
	struct play p = { .depth = 64, .gap_ns = 3000 };

	drive(&p, 6400);
	ck_assert_uint_le(p.interrupts, 6400 / 10);
	ck_assert_uint_eq(p.waited_ns, 0);
	ck_assert_uint_eq(p.hold.limit, INTERRUPT_HOLD_MAX);
}
END_TEST

START_TEST(few_are_told_when_they_are_all)
{
	struct play p = { .depth = 6, .gap_ns = 3000 };

	drive(&p, 6400);
	ck_assert_uint_le(p.interrupts, 6400 / 4);
	ck_assert_uint_le(p.waited_ns * 10, p.now_ns);
}
END_TEST

START_TEST(one_halt_does_not_change_the_habit)
{
	struct play p = { .depth = 64, .gap_ns = 3000 };
	struct interrupt_hold *hold = &p.hold;

	drive(&p, 6400);
	interrupt_hold_over(hold, 1);
	ck_assert_uint_eq(hold->limit, INTERRUPT_HOLD_MAX);
	interrupt_hold_told(hold);
	interrupt_hold_over(hold, 1);
	ck_assert_uint_eq(hold->limit, INTERRUPT_HOLD_MAX);
	interrupt_hold_over(hold, 3);
	ck_assert_uint_eq(hold->limit, 3);
}
END_TEST

START_TEST(tries_in_vain_come_further_apart_until_one_is_not)
{
	struct play p = { .depth = 1, .gap_ns = 10000 };
	uint64_t waited;

	drive(&p, 640);
	waited = p.waited_ns;
	drive(&p, 640);
	ck_assert_uint_lt(p.waited_ns - waited, waited);
	p.depth = 64;
	drive(&p, 6400);
	ck_assert_uint_eq(p.hold.vain, 0);
	ck_assert_uint_eq(p.hold.limit, INTERRUPT_HOLD_MAX);
}
END_TEST

START_TEST(moment_runs_from_the_last_request)
{
	struct interrupt_hold hold = { 0 };

	for (uint64_t now = 0; now < 100 * 50000; now += 50000)
		interrupt_hold_arrived(&hold, 1, now);
	ck_assert_uint_eq(interrupt_hold_left(&hold, hold.arrived_ns), interrupt_hold_ns(&hold));
	ck_assert_uint_eq(interrupt_hold_left(&hold, hold.arrived_ns + 40000),
			  interrupt_hold_ns(&hold) - 40000);
	ck_assert_uint_eq(interrupt_hold_left(&hold, hold.arrived_ns + 100001), 0);
}
END_TEST

START_TEST(moment_goes_by_what_requests_come_apart)
{
	struct interrupt_hold hold = { 0 };

	ck_assert_uint_eq(interrupt_hold_ns(&hold), INTERRUPT_HOLD_NS_MIN);
	for (uint64_t now = 0; now < 100 * 50000; now += 50000)
		interrupt_hold_arrived(&hold, 1, now);
	ck_assert_uint_ge(interrupt_hold_ns(&hold), 90000);
	ck_assert_uint_le(interrupt_hold_ns(&hold), 100000);
	/* Several at once came in that time, each. */
	for (uint64_t now = 5000000, i = 0; i < 100; i++)
		interrupt_hold_arrived(&hold, 10, now += 50000);
	ck_assert_uint_le(interrupt_hold_ns(&hold), 12000);
	/* A pause is none. */
	interrupt_hold_arrived(&hold, 1, UINT64_MAX / 2);
	ck_assert_uint_le(interrupt_hold_ns(&hold), 12000);
	for (uint64_t now = UINT64_MAX / 2, i = 0; i < 100; i++)
		interrupt_hold_arrived(&hold, 1, now += 900000);
	ck_assert_uint_eq(interrupt_hold_ns(&hold), INTERRUPT_HOLD_NS_MAX);
}
END_TEST

static Suite *hold_suite(void)
{
	Suite *suite = suite_create("interrupt_hold");
	TCase *tcase = tcase_create("hold");

	tcase_add_test(tcase, one_after_the_other_is_told_at_once);
	tcase_add_test(tcase, many_are_told_together);
	tcase_add_test(tcase, few_are_told_when_they_are_all);
	tcase_add_test(tcase, one_halt_does_not_change_the_habit);
	tcase_add_test(tcase, tries_in_vain_come_further_apart_until_one_is_not);
	tcase_add_test(tcase, moment_runs_from_the_last_request);
	tcase_add_test(tcase, moment_goes_by_what_requests_come_apart);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(hold_suite());
}
