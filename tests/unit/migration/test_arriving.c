/* SPDX-License-Identifier: Apache-2.0 */
/* RAM that arrives while it is used, without connections. */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "migration/arriving.h"
#include "tests/unit/helpers/run_suite.h"

#define PAGE GUEST_PAGE_SIZE
#define HUGE (2 * MIB)

static struct guest_memory *memory;
static struct arriving *arriving;

static void set_up(uint64_t size, uint64_t hugepage_size)
{
	struct guest_memory_options options = {
		.size = size,
		.hugepage_size = hugepage_size,
		.low_end = 3 * GIB,
		.high_start = 4 * GIB,
	};
	struct error err = ERROR_INIT;

	memory = guest_memory_new(&options, &err);
	ck_assert_msg(memory != NULL, "%s", err.message);
	arriving = arriving_new(NULL, &err);
	ck_assert_msg(arriving != NULL, "%s", err.message);
	ck_assert_int_eq(arriving_set_memory(arriving, memory, NULL), 0);
}

static void tear_down(void)
{
	arriving_free(arriving);
	guest_memory_free(memory);
}

static uint8_t *hva(uint64_t gpa)
{
	return guest_memory_ptr(memory, gpa, 1);
}

static int put(uint64_t gpa, uint64_t len, int value)
{
	uint8_t *data = malloc(len);
	int r;

	memset(data, value, len);
	r = arriving_place(arriving, gpa, len, value ? data : NULL, NULL);
	free(data);
	return r;
}

/* Somebody who touches RAM. */
struct toucher {
	pthread_t thread;
	uint64_t gpa;
	_Atomic int value;
};

static void *touch(void *opaque)
{
	struct toucher *t = opaque;

	t->value = *(volatile uint8_t *)hva(t->gpa);
	return NULL;
}

static void start(struct toucher *t, uint64_t gpa)
{
	*t = (struct toucher){ .gpa = gpa, .value = -1 };
	ck_assert_int_eq(pthread_create(&t->thread, NULL, touch, t), 0);
}

static int faults(uint64_t *gpas, int timeout_ms)
{
	struct pollfd p = { .fd = arriving_fd(arriving), .events = POLLIN };
	bool more;

	if (poll(&p, 1, timeout_ms) <= 0)
		return 0;
	return arriving_faults(arriving, gpas, 8, &more);
}

START_TEST(page_is_waited_for_until_it_comes_and_asked_for_once)
{
	struct transfer_faults figures;
	struct toucher one, two;
	uint64_t gpas[8];

	set_up(MIB, 0);
	memset(hva(0), 1, MIB);
	ck_assert_int_eq(arriving_expect(arriving, 3 * PAGE, 2 * PAGE, NULL), 0);
	ck_assert_int_eq(arriving_begin(arriving, NULL), 0);
	ck_assert_uint_eq(arriving_left(arriving), 2);
	/* What is not missing is there. */
	ck_assert_uint_eq(*hva(2 * PAGE), 1);
	ck_assert_uint_eq(*hva(5 * PAGE), 1);
	start(&one, 3 * PAGE + 100);
	ck_assert_int_eq(faults(gpas, 5000), 1);
	ck_assert_uint_eq(gpas[0], 3 * PAGE);
	start(&two, 3 * PAGE + 4000);
	ck_assert_int_eq(faults(gpas, 5000), 0); /* known */
	ck_assert_uint_eq(arriving_waited_for(arriving, gpas, 8), 1);
	ck_assert_uint_eq(gpas[0], 3 * PAGE);
	usleep(20000);
	ck_assert_int_eq(one.value, -1);
	ck_assert_uint_ge(arriving_stalled_ms(arriving), 10);
	ck_assert_int_eq(put(3 * PAGE, PAGE, 7), 0);
	pthread_join(one.thread, NULL);
	pthread_join(two.thread, NULL);
	ck_assert_int_eq(one.value, 7);
	ck_assert_int_eq(two.value, 7);
	ck_assert_uint_eq(arriving_stalled_ms(arriving), 0);
	ck_assert_uint_eq(arriving_left(arriving), 1);
	ck_assert(!eventfd_drain(arriving_done_fd(arriving)));
	ck_assert_int_eq(put(4 * PAGE, PAGE, 8), 0);
	ck_assert(eventfd_drain(arriving_done_fd(arriving)));
	arriving_figures(arriving, &figures);
	ck_assert_uint_eq(figures.count, 2);
	ck_assert_uint_ge(figures.max_us, 20000);
	ck_assert_uint_eq(figures.mean_us, figures.max_us);
	tear_down();
}
END_TEST

START_TEST(second_copy_and_what_is_not_expected_are_dropped)
{
	set_up(MIB, 0);
	memset(hva(0), 1, MIB);
	ck_assert_int_eq(arriving_expect(arriving, 8 * PAGE, 100 * PAGE, NULL), 0);
	ck_assert_int_eq(arriving_begin(arriving, NULL), 0);
	ck_assert_int_eq(put(10 * PAGE, PAGE, 2), 0);
	*hva(10 * PAGE) = 99; /* the guest's own */
	ck_assert_int_eq(put(0, 256 * PAGE, 3), 0);
	ck_assert_uint_eq(*hva(10 * PAGE), 99);
	ck_assert_uint_eq(*hva(10 * PAGE + 1), 2);
	ck_assert_uint_eq(*hva(7 * PAGE), 1);
	ck_assert_uint_eq(*hva(8 * PAGE), 3);
	ck_assert_uint_eq(*hva(107 * PAGE), 3);
	ck_assert_uint_eq(*hva(108 * PAGE), 1);
	ck_assert_uint_eq(arriving_left(arriving), 0);
	ck_assert_int_eq(put(0, 256 * PAGE, 4), 0);
	ck_assert_uint_eq(*hva(8 * PAGE), 3);
	tear_down();
}
END_TEST

START_TEST(zeros_come_without_a_page)
{
	struct toucher one;
	uint64_t gpas[8];

	set_up(MIB, 0);
	memset(hva(0), 1, MIB);
	ck_assert_int_eq(arriving_expect(arriving, 0, MIB, NULL), 0);
	ck_assert_int_eq(arriving_begin(arriving, NULL), 0);
	start(&one, 50 * PAGE);
	ck_assert_int_eq(faults(gpas, 5000), 1);
	ck_assert_int_eq(put(0, MIB, 0), 0);
	/* It faults again, and is served then. */
	for (int i = 0; i < 100 && one.value < 0; i++)
		faults(gpas, 20);
	pthread_join(one.thread, NULL);
	ck_assert_int_eq(one.value, 0);
	ck_assert_uint_eq(arriving_left(arriving), 0);
	arriving_end(arriving);
	for (uint64_t at = 0; at < MIB; at += PAGE)
		ck_assert_uint_eq(*hva(at), 0);
	tear_down();
}
END_TEST

/* A balloon takes a page that is still to come: its content is not to come back. */
static void *give_back(void *opaque)
{
	ck_assert_int_eq(guest_memory_discard(memory, 5 * PAGE, PAGE), 0);
	return NULL;
}

START_TEST(page_that_was_given_back_is_zero_afterwards)
{
	struct toucher one;
	pthread_t balloon;
	uint64_t gpas[8];

	set_up(MIB, 0);
	ck_assert_int_eq(arriving_expect(arriving, 0, MIB, NULL), 0);
	ck_assert_int_eq(arriving_begin(arriving, NULL), 0);
	ck_assert_int_eq(pthread_create(&balloon, NULL, give_back, NULL), 0);
	ck_assert_int_eq(faults(gpas, 5000), 1);
	ck_assert_uint_eq(gpas[0], 5 * PAGE);
	ck_assert_int_eq(put(5 * PAGE, PAGE, 6), 0);
	pthread_join(balloon, NULL);
	ck_assert_int_eq(put(5 * PAGE, PAGE, 6), 0); /* the second copy */
	start(&one, 5 * PAGE);
	for (int i = 0; i < 250 && one.value < 0; i++)
		ck_assert_int_eq(faults(gpas, 20), 0);
	pthread_join(one.thread, NULL);
	ck_assert_int_eq(one.value, 0);
	tear_down();
}
END_TEST

static const struct {
	uint64_t gpa, len;
} no_pages[] = {
	{ MIB, PAGE }, { MIB - PAGE, 2 * PAGE }, { 1ULL << 60, PAGE },
	{ 100, PAGE }, { 0, 1ULL << 60 },
};

START_TEST(what_is_no_ram_is_refused)
{
	struct error err = ERROR_INIT;
	uint8_t data[PAGE] = { 0 };

	set_up(MIB, 0);
	ck_assert_int_eq(arriving_expect(arriving, no_pages[_i].gpa, no_pages[_i].len, &err),
			 -EBADMSG);
	ck_assert_int_eq(arriving_begin(arriving, NULL), 0);
	ck_assert(eventfd_drain(arriving_done_fd(arriving)));
	ck_assert_int_eq(arriving_place(arriving, no_pages[_i].gpa, no_pages[_i].len, data, &err),
			 -EBADMSG);
	tear_down();
}
END_TEST

static void *place_all(void *opaque)
{
	uint8_t *data = malloc(64 * PAGE);
	uint64_t seed = (uintptr_t)opaque;

	/* In an order of its own, and overlapping the others'. */
	for (int i = 0; i < 4000; i++) {
		uint64_t page, pages = 1 + i % 64;

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		page = (seed >> 33) % (2048 - pages);
		for (uint64_t n = 0; n < pages; n++)
			memset(data + n * PAGE, (int)(page + n) | 1, PAGE);
		ck_assert_int_eq(arriving_place(arriving, page * PAGE, pages * PAGE, data, NULL),
				 0);
	}
	free(data);
	return NULL;
}

START_TEST(threads_that_place_the_same_pages_do_not_lose_any)
{
	pthread_t threads[4];

	set_up(8 * MIB, 0);
	ck_assert_int_eq(arriving_expect(arriving, 0, 8 * MIB, NULL), 0);
	ck_assert_int_eq(arriving_begin(arriving, NULL), 0);
	for (uintptr_t i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, place_all, (void *)(i + 1)), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (uint64_t page = 0; page < 2048; page++) {
		uint8_t data[PAGE];

		memset(data, (int)page | 1, PAGE);
		ck_assert_int_eq(arriving_place(arriving, page * PAGE, PAGE, data, NULL), 0);
	}
	ck_assert_uint_eq(arriving_left(arriving), 0);
	for (uint64_t page = 0; page < 2048; page++)
		ck_assert_uint_eq(*hva(page * PAGE + 17), (uint8_t)(page | 1));
	tear_down();
}
END_TEST

static int note(void *opaque, uint64_t gpa, uint64_t len, struct error *err)
{
	*(uint64_t *)opaque += len / PAGE;
	return 0;
}

START_TEST(list_has_what_has_not_come)
{
	struct missing_list *list = calloc(1, sizeof(*list));
	unsigned int region = 0;
	uint64_t page = 0, end = 0, pages = 0;

	set_up(8 * MIB, 0);
	ck_assert_int_eq(arriving_expect(arriving, 0, 4 * MIB, NULL), 0);
	ck_assert_int_eq(arriving_begin(arriving, NULL), 0);
	ck_assert_int_eq(put(5 * PAGE, 10 * PAGE, 1), 0);
	ck_assert_int_eq(put(50 * PAGE, 10 * PAGE, 0), 0);
	ck_assert(arriving_list(arriving, list, &region, &page));
	ck_assert_int_eq(missing_list_decode(list->meta, list->count * PAGE_RUN_SIZE, list->bits,
					     list->bits_len, &end, note, &pages, NULL),
			 0);
	ck_assert_uint_eq(pages, 1024 - 20);
	tear_down();
	free(list);
}
END_TEST

/* Needs a few of the host's huge pages. */
static bool have_hugepages(void)
{
	char path[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
	FILE *file = fopen(path, "r");
	int n = 0;

	if (file && fscanf(file, "%d", &n) != 1)
		n = 0;
	if (file)
		fclose(file);
	return n >= 4;
}

START_TEST(huge_pages_come_as_a_whole)
{
	struct toucher one;
	uint64_t gpas[8];

	if (!have_hugepages())
		return;
	set_up(4 * HUGE, HUGE);
	memset(hva(0), 1, 4 * HUGE);
	ck_assert_uint_eq(arriving_unit(arriving), HUGE);
	ck_assert_int_eq(arriving_expect(arriving, HUGE, PAGE, NULL), -EBADMSG);
	ck_assert_int_eq(arriving_expect(arriving, HUGE, 2 * HUGE, NULL), 0);
	ck_assert_int_eq(arriving_begin(arriving, NULL), 0);
	start(&one, HUGE + 17 * PAGE);
	ck_assert_int_eq(faults(gpas, 5000), 1);
	ck_assert_uint_eq(gpas[0], HUGE);
	ck_assert_int_eq(put(HUGE, PAGE, 5), -EBADMSG);
	ck_assert_int_eq(put(HUGE, HUGE, 5), 0);
	pthread_join(one.thread, NULL);
	ck_assert_int_eq(one.value, 5);
	ck_assert_uint_eq(*hva(0), 1);
	ck_assert_int_eq(put(0, 4 * HUGE, 6), 0);
	ck_assert_uint_eq(*hva(0), 1);
	ck_assert_uint_eq(*hva(HUGE), 5);
	ck_assert_uint_eq(*hva(2 * HUGE), 6);
	ck_assert_uint_eq(arriving_left(arriving), 0);
	tear_down();
}
END_TEST

static Suite *arriving_suite(void)
{
	Suite *suite = suite_create("arriving");
	TCase *tcase = tcase_create("pages");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, page_is_waited_for_until_it_comes_and_asked_for_once);
	tcase_add_test(tcase, second_copy_and_what_is_not_expected_are_dropped);
	tcase_add_test(tcase, zeros_come_without_a_page);
	tcase_add_test(tcase, page_that_was_given_back_is_zero_afterwards);
	tcase_add_loop_test(tcase, what_is_no_ram_is_refused, 0, ARRAY_SIZE(no_pages));
	tcase_add_test(tcase, threads_that_place_the_same_pages_do_not_lose_any);
	tcase_add_test(tcase, list_has_what_has_not_come);
	tcase_add_test(tcase, huge_pages_come_as_a_whole);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(arriving_suite());
}
