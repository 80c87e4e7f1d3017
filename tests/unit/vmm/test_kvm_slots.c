/* SPDX-License-Identifier: Apache-2.0 */
/* On a real /dev/kvm; without one nothing is tested, and the program says so. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/helpers/run_suite.h"
#include "vmm/kvm_slots.h"

#define PAGE 4096UL
#define FIRST 8

static struct kvm kvm;
static struct kvm_slots *slots;
static void *page;

static void setup(void)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(!kvm_open(&kvm, &err), "%s", err.message);
	slots = kvm_slots_new(&kvm, FIRST, &err);
	ck_assert_msg(slots, "%s", err.message);
	page = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(page, MAP_FAILED);
}

static void teardown(void)
{
	kvm_slots_free(slots);
	kvm_close(&kvm);
	munmap(page, 16 * PAGE);
}

static int add(uint64_t gpa, struct error *err)
{
	return kvm_slots_add(slots, gpa, PAGE, page, false, err);
}

START_TEST(slots_start_above_those_of_ram)
{
	ck_assert_int_eq(add(0x100000, NULL), FIRST);
	ck_assert_int_eq(add(0x200000, NULL), FIRST + 1);
	ck_assert_uint_eq(kvm_slots_used(slots), 2);
}
END_TEST

START_TEST(a_removed_slot_and_its_address_are_free_again)
{
	int a = add(0x100000, NULL), b = add(0x200000, NULL);

	kvm_slots_remove(slots, a);
	ck_assert_uint_eq(kvm_slots_used(slots), 1);
	ck_assert_int_eq(add(0x100000, NULL), a);
	kvm_slots_remove(slots, b);
	ck_assert_int_eq(kvm_slots_add(slots, 0x200000, PAGE, page, true, NULL), b);
}
END_TEST

START_TEST(a_slot_on_top_of_another_is_refused_and_takes_nothing)
{
	struct error err = ERROR_INIT;

	ck_assert_int_ge(add(0x100000, NULL), 0);
	ck_assert_int_eq(add(0x100000, &err), -EEXIST);
	ck_assert_ptr_nonnull(strstr(err.message, "0x100000"));
	ck_assert_uint_eq(kvm_slots_used(slots), 1);
	ck_assert_int_eq(add(0x101000, NULL), FIRST + 1);
}
END_TEST

START_TEST(an_unaligned_slot_is_refused)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(kvm_slots_add(slots, 0x100800, PAGE, page, false, &err), -EINVAL);
	ck_assert_int_eq(kvm_slots_add(slots, 0x100000, 100, page, false, &err), -EINVAL);
	ck_assert_uint_eq(kvm_slots_used(slots), 0);
}
END_TEST

START_TEST(removing_what_is_not_there_does_nothing)
{
	kvm_slots_remove(slots, FIRST);
	kvm_slots_remove(slots, 0);
	kvm_slots_remove(slots, -1);
	kvm_slots_remove(slots, 1 << 30);
	ck_assert_uint_eq(kvm_slots_used(slots), 0);
}
END_TEST

START_TEST(the_last_slot_is_given_and_then_there_are_no_more)
{
	unsigned int total = (unsigned int)kvm_check(&kvm, KVM_CAP_NR_MEMSLOTS);
	struct error err = ERROR_INIT;

	kvm_slots_free(slots);
	slots = kvm_slots_new(&kvm, total - 2, NULL);
	ck_assert_int_eq(add(0x100000, NULL), (int)total - 2);
	ck_assert_int_eq(add(0x200000, NULL), (int)total - 1);
	ck_assert_int_eq(add(0x300000, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.message, "all 2 memory slots"));
	kvm_slots_free(slots);
	slots = kvm_slots_new(&kvm, total, &err);
	ck_assert_ptr_null(slots);
	ck_assert_int_eq(err.code, -ENOSPC);
}
END_TEST

static void *churn(void *arg)
{
	uint64_t gpa = (uint64_t)(uintptr_t)arg;

	for (unsigned int i = 0; i < 50; i++) {
		int slot = add(gpa, NULL);

		if (slot < 0)
			return arg;
		kvm_slots_remove(slots, slot);
	}
	return NULL;
}

START_TEST(several_threads_do_not_share_a_slot)
{
	pthread_t threads[3];
	void *failed;

	for (uintptr_t i = 0; i < 3; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, churn, (void *)((i + 1) * 0x100000)), 0);
	for (unsigned int i = 0; i < 3; i++) {
		pthread_join(threads[i], &failed);
		ck_assert_ptr_null(failed);
	}
	ck_assert_uint_eq(kvm_slots_used(slots), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kvm_slots");
	TCase *tc = tcase_create("slots");

	tcase_add_checked_fixture(tc, setup, teardown);
	if (access("/dev/kvm", R_OK | W_OK)) {
		printf("kvm_slots: no /dev/kvm, nothing tested\n");
	} else {
		tcase_add_test(tc, slots_start_above_those_of_ram);
		tcase_add_test(tc, a_removed_slot_and_its_address_are_free_again);
		tcase_add_test(tc, a_slot_on_top_of_another_is_refused_and_takes_nothing);
		tcase_add_test(tc, an_unaligned_slot_is_refused);
		tcase_add_test(tc, removing_what_is_not_there_does_nothing);
		tcase_add_test(tc, the_last_slot_is_given_and_then_there_are_no_more);
		tcase_add_test(tc, several_threads_do_not_share_a_slot);
	}
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
