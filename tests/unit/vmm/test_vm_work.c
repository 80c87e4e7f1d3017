/* SPDX-License-Identifier: Apache-2.0 */
/* Which guest's end gives a migration up, and which does not. */
#include <check.h>

#include "migration/migration_vm.h"
#include "migration/send.h"
#include "tests/unit/helpers/run_suite.h"
#include "vmm/vm_work.h"

enum { BEFORE = 3, SENT = 4 };

static struct vm_work work;
static struct migration_send *sending;

static void setup(void)
{
	const struct migration_vm vm = { 0 };
	struct send_options options;

	send_options_init(&options);
	sending = migration_send_new(&vm, &options, NULL);
	ck_assert_ptr_nonnull(sending);
	vm_work_init(&work);
	vm_work_begin(&work, VM_MIGRATION_DIRECTION_SEND);
}

static void teardown(void)
{
	vm_work_set_send(&work, NULL, 0);
	vm_work_destroy(&work);
	migration_send_free(sending);
}

static bool given_up(void)
{
	struct vm_migration_progress progress;

	vm_work_progress(&work, &progress);
	return progress.cancelling;
}

START_TEST(a_guest_that_ends_while_it_is_sent)
{
	vm_work_set_send(&work, sending, SENT);
	ck_assert(!given_up());
	vm_work_guest_ended(&work, SENT, "it ended");
	ck_assert(given_up());
}
END_TEST

/* Its end is served behind the migration, which has not come to sending yet. */
START_TEST(a_guest_that_has_ended_before_it_is_sent)
{
	vm_work_guest_ended(&work, SENT, "it ended");
	vm_work_set_send(&work, sending, SENT);
	ck_assert(given_up());
}
END_TEST

START_TEST(the_guest_of_the_machine_before_does_not_matter)
{
	vm_work_guest_ended(&work, BEFORE, "it ended");
	vm_work_set_send(&work, sending, SENT);
	ck_assert(!given_up());
	vm_work_guest_ended(&work, BEFORE, "it ended");
	ck_assert(!given_up());
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vm_work");
	TCase *tc = tcase_create("ends");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_guest_that_ends_while_it_is_sent);
	tcase_add_test(tc, a_guest_that_has_ended_before_it_is_sent);
	tcase_add_test(tc, the_guest_of_the_machine_before_does_not_matter);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
