/* SPDX-License-Identifier: Apache-2.0 */
/* Whole migrations by postcopy between two fake machines. */
#include <check.h>

#include "base/clock.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/migration_fixture.h"

#define RAM (6 * MIB)
#define MARK 0x5a5a5a5a5a5a5a5aULL

static struct fixture f;

/* The guest at the destination: touches all pages in no order, and writes to each. */
static struct guest {
	pthread_t thread;
	bool started;
	uint64_t pages; /* to touch; 0: all */
	unsigned int wrong;
} guest;

static uint64_t page_of(uint64_t i, uint64_t pages)
{
	return i * 7919 % pages;
}

static void *be_guest(void *opaque)
{
	struct fake_machine *m = &f.target;

	for (unsigned int i = 0; i < guest_memory_region_count(m->memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(m->memory, i);
		uint64_t pages = r->size / GUEST_PAGE_SIZE;

		for (uint64_t n = 0; n < (guest.pages ? guest.pages : pages); n++) {
			uint64_t at = page_of(n, pages) * GUEST_PAGE_SIZE, word;

			/* Not a comparison by a library that is looked into by sanitizers. */
			word = *(volatile uint64_t *)(r->hva + at);
			if (atomic_load(&m->lost))
				return NULL;
			if (word != load_le64(f.source.alias[i] + at))
				guest.wrong++;
			*(volatile uint64_t *)(r->hva + at) = word ^ MARK;
		}
	}
	return NULL;
}

static void *run_send(void *opaque)
{
	f.send_result = migration_send_run(f.send, &f.send_error);
	return NULL;
}

static int guest_hook(struct fake_machine *m, enum fake_step step)
{
	if (step != FAKE_RESUMED)
		return 0;
	ck_assert_int_eq(pthread_create(&guest.thread, NULL, be_guest, NULL), 0);
	guest.started = true;
	return 0;
}

/* The page as it was when the VM was paused, but for what the guest did to it. */
static void assert_memory(void)
{
	if (guest.started)
		pthread_join(guest.thread, NULL);
	ck_assert_uint_eq(guest.wrong, 0);
	for (unsigned int i = 0; i < guest_memory_region_count(f.target.memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(f.target.memory, i);
		uint64_t pages = r->size / GUEST_PAGE_SIZE;
		uint64_t touched = !guest.started ? 0 : guest.pages ? guest.pages : pages;

		for (uint64_t n = 0; n < pages; n++) {
			uint64_t at = page_of(n, pages) * GUEST_PAGE_SIZE;
			uint8_t page[GUEST_PAGE_SIZE];

			memcpy(page, f.target.alias[i] + at, sizeof(page));
			if (n < touched)
				store_le64(page, load_le64(page) ^ MARK);
			ck_assert_mem_eq(page, f.source.alias[i] + at, sizeof(page));
		}
	}
}

static void assert_moved_by_postcopy(void)
{
	ck_assert_msg(!f.send_result, "send: %s", f.send_error.message);
	ck_assert_msg(!f.receive_result, "receive: %s", f.receive_error.message);
	ck_assert_int_eq(migration_send_outcome(f.send), TRANSFER_MOVED);
	ck_assert_int_eq(migration_receive_outcome(f.receive), TRANSFER_MOVED);
	ck_assert(!fake_running(&f.source));
	ck_assert(!f.source.logging);
	ck_assert_int_eq(f.world.most, 1);
	ck_assert(!f.source.locked && f.target.locked);
	ck_assert_uint_eq(f.target.counter, 4711);
	ck_assert_int_eq(f.target.announced, 1);
	ck_assert(!f.world.wrong_state);
	assert_memory();
}

static void set_up(bool tcp, uint64_t ram, unsigned int writes_per_ms)
{
	fixture_init(&f, tcp, ram, writes_per_ms);
	f.send_options.postcopy = true;
	f.target.hook = guest_hook;
	guest = (struct guest){ .pages = 0 };
}

static const struct {
	bool tcp;
	enum channel_kind kind;
	unsigned int connections;
	bool checksum;
} ways[] = {
	{ false, CHANNEL_PLAIN, 1, false }, { false, CHANNEL_URING, 4, true },
	{ true, CHANNEL_PLAIN, 3, true },   { true, CHANNEL_URING, 1, false },
	{ true, CHANNEL_AUTO, 16, false },
};

START_TEST(memory_follows_the_vm)
{
	struct transfer_progress progress;

	set_up(ways[_i].tcp, RAM, 20);
	f.send_options.kind = f.receive_options.kind = ways[_i].kind;
	f.send_options.connections = ways[_i].connections;
	f.send_options.checksum = ways[_i].checksum;
	fixture_run(&f);
	assert_moved_by_postcopy();
	migration_send_progress(f.send, &progress);
	ck_assert_int_eq(progress.phase, TRANSFER_OVER);
	ck_assert_uint_eq(progress.remaining_bytes, 0);
	ck_assert_uint_ge(progress.pages + progress.zero_pages, RAM / GUEST_PAGE_SIZE);
	ck_assert_uint_gt(progress.downtime.total, 0);
	ck_assert_uint_eq(progress.faults.recoveries, 0);
	migration_receive_progress(f.receive, &progress);
	ck_assert_uint_eq(progress.remaining_bytes, 0);
	fixture_free(&f);
}
END_TEST

/* Dirty pages at many times what the line carries: no precopy would get there. */
START_TEST(guest_that_writes_too_much_moves_at_once_and_waits_for_little)
{
	struct transfer_progress here, there;

	set_up(_i, 32 * MIB, 200);
	f.send_options.bandwidth = 16 * MIB;
	fixture_run(&f);
	assert_moved_by_postcopy();
	migration_send_progress(f.send, &here);
	migration_receive_progress(f.receive, &there);
	ck_assert_uint_le(here.round, 3);
	ck_assert_uint_eq(here.throttle, 0);
	ck_assert_int_eq(f.source.most_throttle, 0);
	ck_assert_uint_gt(there.faults.count, 0);
	ck_assert_uint_eq(here.faults.count, there.faults.count);
	ck_assert_uint_eq(here.faults.max_us, there.faults.max_us);
	ck_assert_uint_ge(there.faults.max_us, there.faults.mean_us);
	ck_assert_uint_gt(there.faults.mean_us, 0);
	/* What is limited is not what somebody waits for. */
	ck_assert_uint_lt(here.downtime.pages + here.downtime.load, 1500000);
	fixture_free(&f);
}
END_TEST

START_TEST(round_is_cut_short_when_time_is_over)
{
	struct transfer_progress progress;
	uint64_t begun = clock_ms();
	pthread_t send_thread;

	/* A whole round has some 20 MiB: what is left shows that it was cut. */
	set_up(false, 64 * MIB, 0);
	f.send_options.bandwidth = 4 * MIB;
	f.send_options.timeout_s = 1;
	guest.pages = 64;
	fixture_start(&f);
	ck_assert_int_eq(pthread_create(&send_thread, NULL, run_send, NULL), 0);
	do {
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
		migration_send_progress(f.send, &progress);
	} while (progress.phase < TRANSFER_POSTCOPY && clock_ms() - begun < 20000);
	ck_assert_int_eq(progress.phase, TRANSFER_POSTCOPY);
	ck_assert_uint_gt(progress.remaining_bytes, 8 * MIB);
	/* It is too late for that, and not for this. */
	ck_assert_int_eq(migration_send_cancel(f.send, NULL), -EALREADY);
	ck_assert_int_eq(migration_receive_cancel(f.receive), -EALREADY);
	migration_send_set_bandwidth(f.send, 0);
	pthread_join(send_thread, NULL);
	pthread_join(f.receive_thread, NULL);
	assert_moved_by_postcopy();
	fixture_free(&f);
}
END_TEST

START_TEST(paused_vm_arrives_paused_with_all_its_memory)
{
	set_up(_i, RAM, 0);
	f.target.hook = NULL;
	if (_i)
		f.receive_options.paused = true;
	else
		ck_assert_int_eq(fake_pause(&f.source, NULL), 0);
	fixture_run(&f);
	assert_moved_by_postcopy();
	ck_assert(!fake_running(&f.target));
	fixture_free(&f);
}
END_TEST

/* The VM stands still only for what is not its memory (and here for its checksums). */
START_TEST(downtime_does_not_depend_on_memory)
{
	struct transfer_progress progress;

	set_up(false, _i ? 512 * MIB : 8 * MIB, 100);
	f.send_options.bandwidth = _i ? 256 * MIB : 8 * MIB;
	guest.pages = 500;
	fixture_run(&f);
	assert_moved_by_postcopy();
	migration_send_progress(f.send, &progress);
	/* What had not been sent takes longer than that. */
	ck_assert_uint_lt(progress.downtime.pages + progress.downtime.load, 1000000);
	fixture_free(&f);
}
END_TEST

/* _i: fails at the source, or at the destination. */
static const struct {
	enum fake_step step;
	bool target;
} failures[] = {
	{ FAKE_CHECK_POSTCOPY, false },
	{ FAKE_EXPECT_POSTCOPY, true },
	{ FAKE_CREATE, true },
	{ FAKE_COLLECT, false },
	{ FAKE_PAUSE, false },
	{ FAKE_SAVE, false },
	{ FAKE_LOAD, true },
	{ FAKE_RELEASE_LOCKS, false },
	{ FAKE_TAKE_LOCKS, true },
	{ FAKE_RESUME, true },
};
static enum fake_step failing;

static int failing_hook(struct fake_machine *m, enum fake_step step)
{
	return step == failing ? -EXDEV : 0;
}

START_TEST(failure_of_any_step_leaves_the_vm_where_it_was)
{
	char text[32];

	set_up(false, RAM, 5);
	f.target.hook = NULL;
	failing = failures[_i].step;
	*(failures[_i].target ? &f.target.hook : &f.source.hook) = failing_hook;
	fixture_run(&f);
	if (failing == FAKE_COLLECT) {
		/* Pages that nobody keeps track of are all sent. */
		assert_moved_by_postcopy();
		fixture_free(&f);
		return;
	}
	assert_stayed(&f);
	snprintf(text, sizeof(text), "fake step %d fails", failing);
	ck_assert_msg(strstr(f.send_error.message, text), "%s", f.send_error.message);
	/* The destination may never have been called. */
	if (failing != FAKE_CHECK_POSTCOPY)
		ck_assert_msg(strstr(f.receive_error.message, text), "%s", f.receive_error.message);
	fixture_free(&f);
}
END_TEST

static const struct {
	enum fake_step step;
	bool target; /* whose step */
} cancels[] = {
	{ FAKE_CREATE, true }, { FAKE_START_LOG, false },     { FAKE_SAVE, false },
	{ FAKE_LOAD, true },   { FAKE_RELEASE_LOCKS, false },
};
static enum fake_step cancel_at;
static int cancel_result;
static bool by_target;

static int cancel_hook(struct fake_machine *m, enum fake_step step)
{
	if (step == cancel_at)
		cancel_result = by_target ? migration_receive_cancel(f.receive)
					  : migration_send_cancel(f.send, NULL);
	return 0;
}

static void cancel_by(bool target, int i)
{
	set_up(true, RAM, 5);
	f.target.hook = NULL;
	cancel_at = cancels[i].step;
	by_target = target;
	cancel_result = 1;
	*(cancels[i].target ? &f.target.hook : &f.source.hook) = cancel_hook;
	fixture_run(&f);
	assert_stayed(&f);
	ck_assert_int_eq(cancel_result, 0);
	ck_assert_int_eq(target ? f.receive_result : f.send_result, -ECANCELED);
	fixture_free(&f);
}

START_TEST(send_can_be_cancelled_until_commit)
{
	cancel_by(false, _i);
}
END_TEST

START_TEST(receive_can_be_cancelled_until_commit)
{
	cancel_by(true, _i);
}
END_TEST

START_TEST(it_is_refused_with_the_reason)
{
	struct error err = ERROR_INIT;
	struct migration_vm vm;

	set_up(false, RAM, 0);
	f.send_options.local = true;
	vm = fake_vm(&f.source);
	ck_assert_ptr_null(migration_send_new(&vm, &f.send_options, &err));
	ck_assert_ptr_nonnull(strstr(err.message, "cannot follow by postcopy"));
	f.send_options.local = false;
	/* A destination that does not offer it. */
	f.target.no_adopt = true;
	fixture_run(&f);
	assert_stayed(&f);
	ck_assert_ptr_nonnull(strstr(f.send_error.message, "capabilities 0x8"));
	fixture_free(&f);
}
END_TEST

static Suite *postcopy_suite(void)
{
	Suite *suite = suite_create("postcopy");
	TCase *whole = tcase_create("whole");
	TCase *wrong = tcase_create("wrong");

	tcase_set_timeout(whole, 120);
	tcase_add_loop_test(whole, memory_follows_the_vm, 0, ARRAY_SIZE(ways));
	tcase_add_loop_test(whole, guest_that_writes_too_much_moves_at_once_and_waits_for_little, 0,
			    2);
	tcase_add_test(whole, round_is_cut_short_when_time_is_over);
	tcase_add_loop_test(whole, paused_vm_arrives_paused_with_all_its_memory, 0, 2);
	tcase_add_loop_test(whole, downtime_does_not_depend_on_memory, 0, 2);
	suite_add_tcase(suite, whole);
	tcase_set_timeout(wrong, 60);
	tcase_add_loop_test(wrong, failure_of_any_step_leaves_the_vm_where_it_was, 0,
			    ARRAY_SIZE(failures));
	tcase_add_loop_test(wrong, send_can_be_cancelled_until_commit, 0, ARRAY_SIZE(cancels));
	tcase_add_loop_test(wrong, receive_can_be_cancelled_until_commit, 0, ARRAY_SIZE(cancels));
	tcase_add_test(wrong, it_is_refused_with_the_reason);
	suite_add_tcase(suite, wrong);
	return suite;
}

int main(void)
{
	return run_suite(postcopy_suite());
}
