/* SPDX-License-Identifier: Apache-2.0 */
/* Several dirty sources as one; the VMM's own writes as a real one of them. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "memory/dirty_tracker.h"
#include "memory/guest_memory.h"
#include "tests/unit/helpers/run_suite.h"

#define LOW (1 * MIB)
#define RAM_SIZE (3 * MIB)
#define HIGH_PAGES ((RAM_SIZE - LOW) / GUEST_PAGE_SIZE)

/* What happened, one letter per call: "aS" source a was started, then T, C. */
struct journal {
	char text[256];
	size_t len;
};

struct fake {
	struct dirty_source source; /* first */
	struct journal *journal;
	char letter;
	int start_fails, collect_fails; /* errno, 0: not */
	uint64_t lost_gpa;		/* the region that collect fails for */
	uint64_t page, count;		/* dirty in the high region, at each collect */
};

static void note(struct fake *fake, char what)
{
	struct journal *journal = fake->journal;

	ck_assert_uint_lt(journal->len + 3, sizeof(journal->text));
	journal->text[journal->len++] = fake->letter;
	journal->text[journal->len++] = what;
}

static int fake_start(struct dirty_source *source, struct error *err)
{
	struct fake *fake = container_of(source, struct fake, source);

	note(fake, 'S');
	return fake->start_fails ? error_set(err, fake->start_fails, "no log") : 0;
}

static void fake_stop(struct dirty_source *source)
{
	note(container_of(source, struct fake, source), 'T');
}

static int fake_collect(struct dirty_source *source, const struct guest_memory_region *region,
			struct dirty_bitmap *bitmap, struct error *err)
{
	struct fake *fake = container_of(source, struct fake, source);

	if (!region->gpa)
		note(fake, 'C');
	if (fake->collect_fails && region->gpa == fake->lost_gpa)
		return error_set(err, fake->collect_fails, "overflow");
	if (region->gpa)
		dirty_bitmap_set(bitmap, fake->page, fake->count);
	return 0;
}

static void fake_free(struct dirty_source *source)
{
	ck_abort_msg("sources are not the tracker's to free");
}

static const struct dirty_source_ops fake_ops = {
	.name = "fake",
	.start = fake_start,
	.stop = fake_stop,
	.collect = fake_collect,
	.free = fake_free,
};

static struct guest_memory *memory;
static struct dirty_tracker *tracker;
static struct journal journal;
static struct fake fakes[3];

static void setup(void)
{
	const struct guest_memory_options options = {
		.size = RAM_SIZE,
		.low_end = LOW,
		.high_start = 4 * GIB,
	};

	memory = guest_memory_new(&options, NULL);
	ck_assert_ptr_nonnull(memory);
	ck_assert_uint_eq(guest_memory_region_count(memory), 2);
	tracker = dirty_tracker_new(memory, NULL);
	memset(&journal, 0, sizeof(journal));
	for (int i = 0; i < 3; i++) {
		fakes[i] = (struct fake){
			.source.ops = &fake_ops,
			.journal = &journal,
			.letter = (char)('a' + i),
		};
		ck_assert_int_eq(dirty_tracker_add(tracker, &fakes[i].source,
						   i == 0 ? DIRTY_ORDER_LAST : DIRTY_ORDER_NORMAL,
						   NULL),
				 0);
	}
}

static void teardown(void)
{
	dirty_tracker_free(tracker);
	guest_memory_free(memory);
}

static struct dirty_round collect(void)
{
	struct error err = ERROR_INIT;
	struct dirty_round round;

	ck_assert_msg(!dirty_tracker_collect(tracker, &round, &err), "%s", err.message);
	return round;
}

START_TEST(devices_flagged_last_are_collected_last)
{
	ck_assert_int_eq(dirty_tracker_start(tracker, NULL), 0);
	collect();
	dirty_tracker_stop(tracker);
	ck_assert_str_eq(journal.text, "aSbScSbCcCaCcTbTaT");
}
END_TEST

START_TEST(a_source_that_does_not_start_stops_those_before_it)
{
	struct error err = ERROR_INIT;
	struct dirty_round round;

	fakes[2].start_fails = EOPNOTSUPP;
	ck_assert_int_eq(dirty_tracker_start(tracker, &err), -EOPNOTSUPP);
	ck_assert_str_eq(err.message, "start of dirty source fake: no log");
	ck_assert_str_eq(journal.text, "aSbScSbTaT");
	ck_assert_int_eq(dirty_tracker_collect(tracker, &round, &err), -EINVAL);
	/* and it can be tried again */
	fakes[2].start_fails = 0;
	ck_assert_int_eq(dirty_tracker_start(tracker, &err), 0);
	ck_assert_int_eq(dirty_tracker_start(tracker, &err), -EBUSY);
}
END_TEST

START_TEST(sources_are_merged_and_counted_by_round)
{
	struct dirty_bitmap *bitmap;
	struct dirty_round round;

	fakes[0].page = 0, fakes[0].count = 10;
	fakes[1].page = 5, fakes[1].count = 10;
	fakes[2].page = HIGH_PAGES - 1, fakes[2].count = 1;
	ck_assert_int_eq(dirty_tracker_start(tracker, NULL), 0);
	ck_assert_uint_eq(dirty_tracker_pages(tracker), 0);
	round = collect();
	ck_assert_uint_eq(round.number, 1);
	ck_assert_uint_eq(round.pages, 16);
	ck_assert_uint_eq(round.fresh, 16);
	ck_assert_uint_eq(round.losses, 0);
	ck_assert_uint_eq(round.lossy_sources, 0);
	ck_assert_uint_eq(dirty_bitmap_count(dirty_tracker_bitmap(tracker, 0)), 0);
	bitmap = dirty_tracker_bitmap(tracker, 1);
	ck_assert_uint_eq(bitmap->pages, HIGH_PAGES);
	ck_assert(dirty_bitmap_test(bitmap, HIGH_PAGES - 1));
	ck_assert_ptr_null(dirty_tracker_bitmap(tracker, 2));
	/* what was not taken stays; what was taken and written again is new */
	dirty_bitmap_clear(bitmap, 0, 4);
	round = collect();
	ck_assert_uint_eq(round.number, 2);
	ck_assert_uint_eq(round.pages, 16);
	ck_assert_uint_eq(round.fresh, 4);
	fakes[0].count = 0;
	dirty_bitmap_clear(bitmap, 0, HIGH_PAGES);
	round = collect();
	ck_assert_uint_eq(round.pages, 11);
	ck_assert_uint_eq(round.fresh, 11);
}
END_TEST

START_TEST(a_source_that_lost_track_dirties_its_region_and_is_named)
{
	struct dirty_round round;

	fakes[1].collect_fails = EIO;
	fakes[1].lost_gpa = 4 * GIB;
	ck_assert_int_eq(dirty_tracker_start(tracker, NULL), 0);
	round = collect();
	ck_assert_uint_eq(round.losses, 1);
	ck_assert_uint_eq(round.lossy_sources, 2);
	ck_assert_uint_eq(round.pages, HIGH_PAGES);
	ck_assert_ptr_eq(round.first.source, &fakes[1].source);
	ck_assert_uint_eq(round.first.region->gpa, 4 * GIB);
	ck_assert_int_eq(round.first.error.code, -EIO);
	ck_assert_str_eq(round.first.error.message,
			 "dirty source fake, RAM at 0x100000000, all of which counts as dirty "
			 "now: overflow");
	/* the others were collected, in this round too */
	ck_assert_str_eq(journal.text, "aSbScSbCcCaC");
	/* the next round is another chance */
	fakes[1].collect_fails = 0;
	dirty_bitmap_clear(dirty_tracker_bitmap(tracker, 1), 0, HIGH_PAGES);
	round = collect();
	ck_assert_uint_eq(round.losses, 0);
	ck_assert_uint_eq(round.pages, 0);
}
END_TEST

static int fake_collect_last(struct dirty_source *source, const struct guest_memory_region *region,
			     struct dirty_bitmap *bitmap, struct error *err)
{
	if (!region->gpa)
		note(container_of(source, struct fake, source), 'L');
	return fake_collect(source, region, bitmap, err);
}

START_TEST(the_last_round_tells_sources_that_want_to_know)
{
	const struct dirty_source_ops knowing = {
		.name = "knowing",
		.start = fake_start,
		.stop = fake_stop,
		.collect = fake_collect,
		.collect_last = fake_collect_last,
		.free = fake_free,
	};
	struct error err = ERROR_INIT;
	struct dirty_round round;

	fakes[1].source.ops = &knowing;
	fakes[1].page = 5, fakes[1].count = 10;
	ck_assert_int_eq(dirty_tracker_collect_last(tracker, &round, &err), -EINVAL);
	ck_assert_int_eq(dirty_tracker_start(tracker, NULL), 0);
	collect();
	ck_assert_str_eq(journal.text, "aSbScSbCcCaC");
	journal.len = 0;
	memset(journal.text, 0, sizeof(journal.text));
	ck_assert_int_eq(dirty_tracker_collect_last(tracker, &round, &err), 0);
	ck_assert_str_eq(journal.text, "bLbCcCaC");
	ck_assert_uint_eq(round.number, 2);
	ck_assert_uint_eq(round.pages, 10);
	/* One that follows is as any other. */
	ck_assert_uint_eq(collect().number, 3);
	dirty_tracker_stop(tracker);
}
END_TEST

START_TEST(all_losses_count_and_the_first_is_told)
{
	struct dirty_round round;

	for (int i = 0; i < 3; i++)
		fakes[i].collect_fails = EIO + i;
	ck_assert_int_eq(dirty_tracker_start(tracker, NULL), 0);
	round = collect();
	ck_assert_uint_eq(round.losses, 3);
	ck_assert_uint_eq(round.lossy_sources, 7);
	ck_assert_ptr_eq(round.first.source, &fakes[1].source);
	ck_assert_uint_eq(round.pages, LOW / GUEST_PAGE_SIZE);
}
END_TEST

START_TEST(all_pages_may_be_set)
{
	ck_assert_int_eq(dirty_tracker_start(tracker, NULL), 0);
	dirty_tracker_set_all(tracker);
	ck_assert_uint_eq(dirty_tracker_pages(tracker), RAM_SIZE / GUEST_PAGE_SIZE);
	ck_assert_uint_eq(collect().fresh, 0);
	/* a new start begins clean, a stop does not clean */
	dirty_tracker_stop(tracker);
	dirty_tracker_stop(tracker);
	ck_assert_uint_eq(dirty_tracker_pages(tracker), RAM_SIZE / GUEST_PAGE_SIZE);
	ck_assert_int_eq(dirty_tracker_start(tracker, NULL), 0);
	ck_assert_uint_eq(dirty_tracker_pages(tracker), 0);
	ck_assert_uint_eq(collect().number, 1);
}
END_TEST

START_TEST(sources_are_added_once_in_time_and_up_to_a_bound)
{
	struct error err = ERROR_INIT;
	static struct fake more[DIRTY_TRACKER_SOURCES_MAX - 2];

	ck_assert_int_eq(dirty_tracker_add(tracker, &fakes[0].source, DIRTY_ORDER_NORMAL, &err),
			 -EEXIST);
	for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
		more[i] = (struct fake){ .source.ops = &fake_ops, .journal = &journal };
		ck_assert_int_eq(
			dirty_tracker_add(tracker, &more[i].source, DIRTY_ORDER_NORMAL, &err),
			i < ARRAY_SIZE(more) - 1 ? 0 : -E2BIG);
	}
	/* 64 sources: the last one's bit is there too */
	more[ARRAY_SIZE(more) - 2].collect_fails = EIO;
	memset(&journal, 0, sizeof(journal));
	ck_assert_int_eq(dirty_tracker_start(tracker, &err), 0);
	memset(&journal, 0, sizeof(journal));
	ck_assert_uint_eq(collect().lossy_sources, 1ULL << 63);
	ck_assert_int_eq(dirty_tracker_add(tracker, &more[ARRAY_SIZE(more) - 1].source,
					   DIRTY_ORDER_NORMAL, &err),
			 -EBUSY);
	memset(&journal, 0, sizeof(journal));
}
END_TEST

START_TEST(ram_that_came_after_the_start_is_not_overlooked)
{
	const struct guest_memory_options options = { .size = MIB,
						      .low_end = GIB,
						      .high_start = 4 * GIB };
	struct guest_memory *other = guest_memory_new(&options, NULL);
	struct error err = ERROR_INIT;
	struct dirty_round round;
	int memfd = dup(guest_memory_region(other, 0)->memfd);

	ck_assert_int_eq(dirty_tracker_start(tracker, NULL), 0);
	ck_assert_int_eq(guest_memory_add(memory, 2 * GIB, MIB, memfd, 0, &err), 0);
	ck_assert_int_eq(dirty_tracker_collect(tracker, &round, &err), -ESTALE);
	guest_memory_free(other);
}
END_TEST

#define WRITERS 3
#define WRITES 20000

struct writer {
	pthread_t thread;
	uint64_t seed;
	uint8_t *written; /* by page of the high region */
};

static void *write_pages(void *opaque)
{
	struct writer *writer = opaque;

	for (uint64_t i = 0; i < WRITES; i++) {
		uint64_t page = (i * 7919 + writer->seed * 31) % HIGH_PAGES;

		guest_memory_write(memory, 4 * GIB + page * GUEST_PAGE_SIZE + writer->seed * 8, &i,
				   sizeof(i));
		writer->written[page] = 1;
	}
	return NULL;
}

START_TEST(writes_of_threads_are_in_one_round_or_the_next)
{
	struct dirty_source *source = guest_memory_dirty_source(memory, NULL);
	struct writer writers[WRITERS];
	struct dirty_bitmap *bitmap;
	uint8_t *seen = calloc(1, HIGH_PAGES);

	ck_assert_int_eq(dirty_tracker_add(tracker, source, DIRTY_ORDER_NORMAL, NULL), 0);
	ck_assert_int_eq(dirty_tracker_start(tracker, NULL), 0);
	bitmap = dirty_tracker_bitmap(tracker, 1);
	for (uint64_t i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){ .seed = i, .written = calloc(1, HIGH_PAGES) };
		ck_assert_int_eq(pthread_create(&writers[i].thread, NULL, write_pages, &writers[i]),
				 0);
	}
	for (int round = 0; round < 21; round++) {
		uint64_t first = 0, count;

		if (round == 20) { /* the last, after them all */
			for (int i = 0; i < WRITERS; i++)
				pthread_join(writers[i].thread, NULL);
		}
		collect();
		memset(&journal, 0, sizeof(journal));
		for (; dirty_bitmap_next_run(bitmap, &first, &count); first += count) {
			memset(seen + first, 1, count);
			dirty_bitmap_clear(bitmap, first, count);
		}
	}
	for (int i = 0; i < WRITERS; i++) {
		for (uint64_t page = 0; page < HIGH_PAGES; page++)
			ck_assert(seen[page] || !writers[i].written[page]);
		free(writers[i].written);
	}
	free(seen);
	dirty_tracker_stop(tracker);
	source->ops->free(source);
	/* which the tracker must not touch any more */
	dirty_tracker_free(tracker);
	tracker = NULL;
}
END_TEST

static Suite *dirty_tracker_suite(void)
{
	Suite *suite = suite_create("dirty tracker");
	TCase *test = tcase_create("tracker");

	tcase_add_checked_fixture(test, setup, teardown);
	tcase_set_timeout(test, 60);
	tcase_add_test(test, devices_flagged_last_are_collected_last);
	tcase_add_test(test, a_source_that_does_not_start_stops_those_before_it);
	tcase_add_test(test, sources_are_merged_and_counted_by_round);
	tcase_add_test(test, a_source_that_lost_track_dirties_its_region_and_is_named);
	tcase_add_test(test, the_last_round_tells_sources_that_want_to_know);
	tcase_add_test(test, all_losses_count_and_the_first_is_told);
	tcase_add_test(test, all_pages_may_be_set);
	tcase_add_test(test, sources_are_added_once_in_time_and_up_to_a_bound);
	tcase_add_test(test, ram_that_came_after_the_start_is_not_overlooked);
	tcase_add_test(test, writes_of_threads_are_in_one_round_or_the_next);
	suite_add_tcase(suite, test);
	return suite;
}

int main(void)
{
	return run_suite(dirty_tracker_suite());
}
