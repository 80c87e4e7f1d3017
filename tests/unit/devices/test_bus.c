/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "devices/bus.h"
#include "tests/unit/helpers/run_suite.h"

struct registers {
	uint64_t offset;
	unsigned int reads, writes, len;
	uint8_t written[8];
};

static struct bus *bus;

static void registers_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct registers *r = opaque;

	r->offset = offset;
	r->len = len;
	r->reads++;
	memset(data, 0x5a, len);
}

static void registers_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct registers *r = opaque;

	r->offset = offset;
	r->len = len;
	r->writes++;
	memcpy(r->written, data, len);
}

static const struct bus_ops ops = { .read = registers_read, .write = registers_write };

static void setup(void)
{
	bus = bus_new(NULL);
	ck_assert_ptr_nonnull(bus);
}

static void teardown(void)
{
	bus_free(bus);
}

START_TEST(access_reaches_its_range_with_the_offset_in_it)
{
	struct registers a = { 0 }, b = { 0 };
	uint8_t data[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };

	ck_assert_int_eq(bus_add(bus, 0x1000, 0x100, "a", &ops, &a, NULL), 0);
	ck_assert_int_eq(bus_add(bus, 0x1100, 0x10, "b", &ops, &b, NULL), 0);
	ck_assert(bus_write(bus, 0x1008, data, 8));
	ck_assert_uint_eq(a.offset, 8);
	ck_assert_mem_eq(a.written, data, 8);
	ck_assert(bus_read(bus, 0x110f, data, 1));
	ck_assert_uint_eq(b.offset, 15);
	ck_assert_uint_eq(data[0], 0x5a);
	ck_assert_uint_eq(a.reads + b.writes, 0);
}
END_TEST

START_TEST(nothing_there_reads_ones_and_drops_writes)
{
	struct registers a = { 0 };
	uint32_t value = 0;

	ck_assert(!bus_read(bus, 0, &value, 4));
	ck_assert_uint_eq(value, 0xffffffff);
	ck_assert_int_eq(bus_add(bus, 0x1000, 4, "a", &ops, &a, NULL), 0);
	value = 0;
	ck_assert(!bus_read(bus, 0x1004, &value, 4));
	ck_assert_uint_eq(value, 0xffffffff);
	ck_assert(!bus_write(bus, 0xfff, &value, 1));
	ck_assert(!bus_write(bus, UINT64_MAX, &value, 1));
	ck_assert_uint_eq(a.reads + a.writes, 0);
}
END_TEST

START_TEST(access_across_a_ranges_end_reaches_nobody)
{
	struct registers a = { 0 }, b = { 0 };
	uint64_t value = 0;

	ck_assert_int_eq(bus_add(bus, 0x1000, 4, "a", &ops, &a, NULL), 0);
	ck_assert_int_eq(bus_add(bus, 0x1004, 4, "b", &ops, &b, NULL), 0);
	ck_assert(!bus_read(bus, 0x1002, &value, 4));
	ck_assert(!bus_write(bus, 0x1000, &value, 8));
	ck_assert(!bus_read(bus, 0xffe, &value, 4));
	ck_assert_uint_eq(a.reads + a.writes + b.reads + b.writes, 0);
}
END_TEST

START_TEST(odd_length_reaches_nobody)
{
	struct registers a = { 0 };
	uint8_t data[16];

	ck_assert_int_eq(bus_add(bus, 0, 0x100, "a", &ops, &a, NULL), 0);
	ck_assert(!bus_read(bus, 0, data, 3));
	ck_assert(!bus_write(bus, 0, data, 16));
	ck_assert(!bus_write(bus, 0, data, 0));
	ck_assert_uint_eq(a.reads + a.writes, 0);
}
END_TEST

START_TEST(overlap_is_refused_and_names_both)
{
	static const struct {
		uint64_t start, len;
	} overlaps[] = { { 0x1000, 0x100 }, { 0xfff, 2 },      { 0x10ff, 1 },
			 { 0x1010, 8 },	    { 0x800, 0x1000 }, { 0, UINT64_MAX } };
	struct registers a = { 0 };

	ck_assert_int_eq(bus_add(bus, 0x1000, 0x100, "disk0 bar0", &ops, &a, NULL), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(overlaps); i++) {
		struct error err = ERROR_INIT;

		ck_assert_int_eq(bus_add(bus, overlaps[i].start, overlaps[i].len, "net1 bar2", &ops,
					 &a, &err),
				 -EEXIST);
		ck_assert_ptr_nonnull(strstr(err.message, "disk0 bar0"));
		ck_assert_ptr_nonnull(strstr(err.message, "net1 bar2"));
	}
	ck_assert_int_eq(bus_add(bus, 0xfff, 1, "below", &ops, &a, NULL), 0);
	ck_assert_int_eq(bus_add(bus, 0x1100, 1, "above", &ops, &a, NULL), 0);
}
END_TEST

START_TEST(range_that_is_empty_or_wraps_is_refused)
{
	ck_assert_int_eq(bus_add(bus, 0x1000, 0, "a", &ops, NULL, NULL), -EINVAL);
	ck_assert_int_eq(bus_add(bus, UINT64_MAX, 2, "a", &ops, NULL, NULL), -EINVAL);
	ck_assert_int_eq(bus_add(bus, 2, UINT64_MAX, "a", &ops, NULL, NULL), -EINVAL);
}
END_TEST

START_TEST(last_byte_of_the_space_can_be_used)
{
	struct registers a = { 0 };
	uint8_t data[8];

	ck_assert_int_eq(bus_add(bus, UINT64_MAX, 1, "a", &ops, &a, NULL), 0);
	ck_assert(bus_read(bus, UINT64_MAX, data, 1));
	ck_assert(!bus_read(bus, UINT64_MAX, data, 8));
	ck_assert_uint_eq(a.reads, 1);
}
END_TEST

START_TEST(many_ranges_in_any_order_are_found)
{
	static struct registers r[257];
	uint8_t byte;

	for (unsigned int i = 0; i < 257; i++) {
		unsigned int n = i * 101 % 257;

		ck_assert_int_eq(bus_add(bus, n * 16, 8, "r", &ops, &r[n], NULL), 0);
	}
	for (unsigned int i = 0; i < 257; i++) {
		ck_assert(bus_read(bus, i * 16 + 7, &byte, 1));
		ck_assert(!bus_read(bus, i * 16 + 8, &byte, 1));
		ck_assert_uint_eq(r[i].reads, 1);
	}
	for (unsigned int i = 0; i < 257; i += 2)
		bus_remove(bus, i * 16);
	for (unsigned int i = 0; i < 257; i++)
		ck_assert_int_eq(bus_read(bus, i * 16, &byte, 1), i % 2);
}
END_TEST

START_TEST(removing_what_is_not_there_does_nothing)
{
	struct registers a = { 0 };
	uint8_t byte;

	ck_assert_int_eq(bus_add(bus, 0x1000, 8, "a", &ops, &a, NULL), 0);
	bus_remove(bus, 0x1001);
	bus_remove(bus, 0xfff);
	bus_remove(bus, 0x2000);
	ck_assert(bus_read(bus, 0x1000, &byte, 1));
}
END_TEST

struct mover {
	struct registers other;
	bool mapped;
};

static void move_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct mover *m = opaque;

	if (m->mapped)
		bus_remove(bus, 0x2000);
	else
		bus_add(bus, 0x2000, 8, "other", &ops, &m->other, NULL);
	m->mapped = !m->mapped;
}

static const struct bus_ops move_ops = { .read = registers_read, .write = move_write };

START_TEST(handler_may_add_and_remove_other_ranges)
{
	struct mover m = { .mapped = false };
	uint8_t byte = 0;

	ck_assert_int_eq(bus_add(bus, 0x1000, 8, "mover", &move_ops, &m, NULL), 0);
	ck_assert(!bus_read(bus, 0x2000, &byte, 1));
	bus_write(bus, 0x1000, &byte, 1);
	ck_assert(bus_read(bus, 0x2000, &byte, 1));
	bus_write(bus, 0x1000, &byte, 1);
	ck_assert(!bus_read(bus, 0x2000, &byte, 1));
}
END_TEST

struct slow {
	sem_t entered, leave;
	atomic_bool left;
};

static void slow_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct slow *s = opaque;

	sem_post(&s->entered);
	sem_wait(&s->leave);
	atomic_store(&s->left, true);
}

static const struct bus_ops slow_ops = { .read = slow_read, .write = registers_write };

static void *read_slowly(void *opaque)
{
	uint8_t byte;

	bus_read(bus, 0x1000, &byte, 1);
	return NULL;
}

static void *release_later(void *opaque)
{
	struct slow *s = opaque;
	struct timespec pause = { .tv_nsec = 20000000 };

	nanosleep(&pause, NULL);
	ck_assert(!atomic_load(&s->left));
	sem_post(&s->leave);
	return NULL;
}

START_TEST(remove_waits_for_the_access_inside)
{
	struct slow s = { .left = false };
	pthread_t reader, releaser;
	uint8_t byte;

	sem_init(&s.entered, 0, 0);
	sem_init(&s.leave, 0, 0);
	ck_assert_int_eq(bus_add(bus, 0x1000, 8, "slow", &slow_ops, &s, NULL), 0);
	pthread_create(&reader, NULL, read_slowly, NULL);
	sem_wait(&s.entered);
	pthread_create(&releaser, NULL, release_later, &s);
	bus_remove(bus, 0x1000);
	ck_assert(atomic_load(&s.left));
	ck_assert(!bus_read(bus, 0x1000, &byte, 1));
	pthread_join(reader, NULL);
	pthread_join(releaser, NULL);
}
END_TEST

/* Accesses against a range that comes and goes: what it points to is only there
 * while it is on the bus. */
static atomic_bool alive, stop, touched_dead;

static void alive_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	if (!atomic_load(&alive))
		atomic_store(&touched_dead, true);
}

static const struct bus_ops alive_ops = { .read = alive_read, .write = registers_write };

static void *hammer(void *opaque)
{
	uint8_t byte;

	while (!atomic_load(&stop))
		bus_read(bus, 0x1000, &byte, 1);
	return NULL;
}

START_TEST(no_access_is_inside_after_remove)
{
	pthread_t threads[3];

	for (unsigned int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, hammer, NULL);
	for (unsigned int i = 0; i < 2000; i++) {
		atomic_store(&alive, true);
		if (bus_add(bus, 0x1000, 1, "r", &alive_ops, NULL, NULL))
			ck_abort();
		bus_remove(bus, 0x1000);
		atomic_store(&alive, false);
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	ck_assert(!atomic_load(&touched_dead));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bus");
	TCase *t = tcase_create("bus");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 30);
	tcase_add_test(t, access_reaches_its_range_with_the_offset_in_it);
	tcase_add_test(t, nothing_there_reads_ones_and_drops_writes);
	tcase_add_test(t, access_across_a_ranges_end_reaches_nobody);
	tcase_add_test(t, odd_length_reaches_nobody);
	tcase_add_test(t, overlap_is_refused_and_names_both);
	tcase_add_test(t, range_that_is_empty_or_wraps_is_refused);
	tcase_add_test(t, last_byte_of_the_space_can_be_used);
	tcase_add_test(t, many_ranges_in_any_order_are_found);
	tcase_add_test(t, removing_what_is_not_there_does_nothing);
	tcase_add_test(t, handler_may_add_and_remove_other_ranges);
	tcase_add_test(t, remove_waits_for_the_access_inside);
	tcase_add_test(t, no_access_is_inside_after_remove);
	suite_add_tcase(s, t);
	return run_suite(s);
}
