/* SPDX-License-Identifier: Apache-2.0 */
/* Whole migrations between two fake machines. */
#include <check.h>
#include <sys/stat.h>

#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/byte_proxy.h"

#define RAM (6 * MIB)

static struct fixture f;
static struct byte_proxy proxy;

static const struct {
	bool tcp;
	enum channel_kind kind;
	enum channel_zero_copy zero_copy;
	unsigned int connections;
	bool checksum;
} ways[] = {
	{ false, CHANNEL_PLAIN, ZERO_COPY_AUTO, 1, false },
	{ false, CHANNEL_PLAIN, ZERO_COPY_AUTO, 4, true },
	{ false, CHANNEL_URING, ZERO_COPY_AUTO, 1, false },
	{ false, CHANNEL_URING, ZERO_COPY_AUTO, 4, true },
	{ true, CHANNEL_PLAIN, ZERO_COPY_AUTO, 3, false },
	{ true, CHANNEL_URING, ZERO_COPY_AUTO, 3, false },
	{ true, CHANNEL_URING, ZERO_COPY_ON, 1, false },
	{ true, CHANNEL_URING, ZERO_COPY_ON, 3, false },
	{ true, CHANNEL_AUTO, ZERO_COPY_ON, 2, true },
	{ true, CHANNEL_AUTO, ZERO_COPY_AUTO, PROTOCOL_CONNECTIONS_MAX, false },
};

static void set_way(int i)
{
	f.send_options.kind = f.receive_options.kind = ways[i].kind;
	f.send_options.zero_copy = ways[i].zero_copy;
	f.send_options.connections = ways[i].connections;
	f.send_options.checksum = ways[i].checksum;
}

START_TEST(all_memory_and_state_arrive)
{
	struct transfer_progress progress;

	fixture_init(&f, ways[_i].tcp, RAM, 0);
	set_way(_i);
	fixture_run(&f);
	assert_moved(&f);
	ck_assert(fake_running(&f.target));
	migration_send_progress(f.send, &progress);
	ck_assert_int_eq(progress.phase, TRANSFER_OVER);
	ck_assert_uint_eq(progress.ram_bytes, RAM);
	ck_assert_uint_eq(progress.remaining_bytes, 0);
	ck_assert_uint_eq(progress.pages + progress.zero_pages, RAM / GUEST_PAGE_SIZE);
	ck_assert_uint_gt(progress.wire_bytes, progress.pages * GUEST_PAGE_SIZE);
	ck_assert_uint_lt(progress.wire_bytes, (progress.pages + 100) * GUEST_PAGE_SIZE);
	ck_assert_uint_eq(progress.connection_count, ways[_i].connections);
	ck_assert_uint_gt(progress.downtime.total, 0);
	if (ways[_i].kind != CHANNEL_AUTO)
		ck_assert_str_eq(progress.io,
				 ways[_i].kind == CHANNEL_URING ? "io_uring" : "plain");
	if (!strcmp(progress.io, "io_uring"))
		ck_assert_int_eq(progress.zero_copy,
				 ways[_i].zero_copy == ZERO_COPY_ON && !ways[_i].checksum);
	migration_receive_progress(f.receive, &progress);
	ck_assert_int_eq(progress.phase, TRANSFER_OVER);
	ck_assert_uint_eq(progress.pages + progress.zero_pages, RAM / GUEST_PAGE_SIZE);
	fixture_free(&f);
}
END_TEST

START_TEST(what_is_written_meanwhile_arrives)
{
	struct transfer_progress progress;

	/* Long enough that whoever writes gets to do so on a busy machine. */
	fixture_init(&f, ways[_i].tcp, RAM, 2);
	set_way(_i);
	f.send_options.bandwidth = 25 * MIB;
	f.send_options.downtime_ms = 5;
	fixture_run(&f);
	assert_moved(&f);
	migration_send_progress(f.send, &progress);
	ck_assert_uint_ge(progress.round, 2);
	ck_assert_uint_gt(progress.pages + progress.zero_pages, RAM / GUEST_PAGE_SIZE);
	fixture_free(&f);
}
END_TEST

/* Bytes of the region that are mapped as huge pages. */
static uint64_t huge_bytes(const struct guest_memory_region *region)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long long start, end, kib, bytes = 0;
	bool within = false;
	char line[512];

	ck_assert_ptr_nonnull(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
			within = start >= (uintptr_t)region->hva &&
				 end <= (uintptr_t)region->hva + region->size;
		else if (within && sscanf(line, "ShmemPmdMapped: %llu kB", &kib) == 1)
			bytes += kib * KIB;
	}
	fclose(smaps);
	return bytes;
}

/* Whether this host's kernel makes huge pages of a memfd: at the first touch, or when it is
 * told to. */
static bool host_makes_huge(bool told)
{
	struct guest_memory_options options = { .size = 2 * MIB, .transparent_hugepages = true };
	struct guest_memory *memory;
	uint64_t bytes;

	options.low_end = options.high_start = 4 * GIB;
	memory = guest_memory_new(&options, NULL);
	ck_assert_ptr_nonnull(memory);
	if (told)
		guest_memory_make_huge(memory, 0, 2 * MIB);
	else
		memset(guest_memory_region(memory, 0)->hva, 1, 2 * MIB);
	bytes = huge_bytes(guest_memory_region(memory, 0));
	guest_memory_free(memory);
	return bytes;
}

START_TEST(what_fills_huge_pages_arrives_in_huge_pages)
{
	const struct guest_memory_region *high;

	fixture_init(&f, false, RAM, 0);
	high = guest_memory_region(f.source.memory, 1);
	memset(high->hva, 1, high->size);
	/* A page without data is none of a huge page's. */
	memset(high->hva + 3 * MIB, 0, GUEST_PAGE_SIZE);
	f.target.huge_pages = true;
	fixture_run(&f);
	assert_moved(&f);
	if (!host_makes_huge(false))
		ck_assert_uint_eq(huge_bytes(guest_memory_region(f.target.memory, 1)),
				  host_makes_huge(true) ? 2 * MIB : 0);
	fixture_free(&f);
}
END_TEST

START_TEST(holes_are_not_allocated_on_either_side)
{
	struct stat before, after;

	fixture_init(&f, false, 64 * MIB, 0);
	ck_assert_int_eq(guest_memory_discard(f.source.memory, 0, FAKE_LOW_END), 0);
	ck_assert_int_eq(guest_memory_discard(f.source.memory, 4 * GIB, 62 * MIB), 0);
	fake_write(&f.source, 1, 4000, 99);
	ck_assert_int_eq(fstat(guest_memory_region(f.source.memory, 0)->memfd, &before), 0);
	fixture_run(&f);
	assert_moved(&f);
	ck_assert_int_eq(fstat(guest_memory_region(f.source.memory, 0)->memfd, &after), 0);
	ck_assert_int_eq(before.st_blocks, after.st_blocks);
	ck_assert_int_eq(fstat(guest_memory_region(f.target.memory, 0)->memfd, &after), 0);
	ck_assert_int_eq(before.st_blocks, after.st_blocks);
	fixture_free(&f);
}
END_TEST

/* In the second round a page that was sent with data is zero. */
static int zero_page_hook(struct fake_machine *m, enum fake_step step)
{
	if (step == FAKE_COLLECT && !m->collects) {
		fake_write(m, 0, 3, 0);
		for (uint64_t page = 30; page < 60; page++)
			fake_write(m, 0, page, 0);
		guest_memory_discard(m->memory, 30 * GUEST_PAGE_SIZE, 30 * GUEST_PAGE_SIZE);
	}
	return 0;
}

START_TEST(page_that_becomes_zero_is_zero_there)
{
	fixture_init(&f, false, RAM, 0);
	f.source.hook = zero_page_hook;
	f.send_options.downtime_ms = 0;
	fixture_run(&f);
	assert_moved(&f);
	fixture_free(&f);
}
END_TEST

static int losing_hook(struct fake_machine *m, enum fake_step step)
{
	return step == FAKE_COLLECT && m->collects >= 2 ? -EIO : 0;
}

START_TEST(source_that_lost_track_makes_all_pages_dirty)
{
	struct transfer_progress progress;

	fixture_init(&f, false, RAM, 0);
	f.source.hook = losing_hook;
	fixture_run(&f);
	assert_moved(&f);
	migration_send_progress(f.send, &progress);
	ck_assert_uint_ge(progress.pages + progress.zero_pages, 2 * RAM / GUEST_PAGE_SIZE);
	fixture_free(&f);
}
END_TEST

START_TEST(guest_that_writes_too_much_is_slowed_down)
{
	fixture_init(&f, false, RAM, 200);
	f.send_options.bandwidth = 50 * MIB;
	f.send_options.downtime_ms = 5;
	f.send_options.timeout_s = 60;
	fixture_run(&f);
	assert_moved(&f);
	ck_assert_uint_ge(f.source.most_throttle, 20);
	fixture_free(&f);
}
END_TEST

START_TEST(guest_that_writes_too_much_stays_when_time_is_over)
{
	fixture_init(&f, false, RAM, 200);
	f.send_options.bandwidth = 20 * MIB;
	f.send_options.downtime_ms = 1;
	f.send_options.max_throttle = 0;
	f.send_options.timeout_s = 1;
	fixture_run(&f);
	assert_stayed(&f);
	ck_assert_int_eq(f.send_result, -ETIMEDOUT);
	ck_assert_ptr_nonnull(strstr(f.send_error.message, "timeout_strategy"));
	ck_assert_int_eq(f.source.most_throttle, 0);
	fixture_free(&f);
}
END_TEST

START_TEST(guest_that_writes_too_much_moves_anyway_where_asked)
{
	fixture_init(&f, false, RAM, 200);
	f.send_options.bandwidth = 20 * MIB;
	f.send_options.downtime_ms = 1;
	f.send_options.max_throttle = 0;
	f.send_options.timeout_s = 1;
	f.send_options.timeout_strategy = SEND_AT_TIMEOUT_IGNORE;
	fixture_run(&f);
	assert_moved(&f);
	fixture_free(&f);
}
END_TEST

START_TEST(bandwidth_is_limited)
{
	struct transfer_progress progress;

	fixture_init(&f, true, 12 * MIB, 0);
	for (uint64_t page = 0; page < 2560; page++)
		fake_write(&f.source, 1, page, page + 1);
	f.send_options.bandwidth = 20 * MIB;
	f.send_options.connections = 3;
	fixture_run(&f);
	assert_moved(&f);
	migration_send_progress(f.send, &progress);
	/* more than 10 MiB, of which 2 at once */
	ck_assert_uint_gt(progress.elapsed_us, 350000);
	fixture_free(&f);
}
END_TEST

#define HELD_UP_MS 600

/* The rest of that connection, and of all others, comes late; it fits sockets. */
static void hold_up(unsigned int victim)
{
	fixture_init(&f, true, FAKE_LOW_END + GUEST_PAGE_SIZE, 0);
	ck_assert_int_eq(guest_memory_discard(f.source.memory, 0, FAKE_LOW_END), 0);
	for (uint64_t page = 0; page < 8; page++)
		fake_write(&f.source, 0, page, page + 1);
	f.send_options.connections = 4;
	byte_proxy_start(&proxy, &f);
	proxy.victim = victim;
	proxy.after = FRAME_HEADER_SIZE + SESSION_SIZE + 1; /* ATTACH */
}

START_TEST(vm_is_not_paused_before_all_that_was_sent_has_come)
{
	struct transfer_progress progress;

	hold_up(1 + (unsigned int)_i);
	proxy.pause_ms = HELD_UP_MS;
	fixture_run(&f);
	byte_proxy_stop(&proxy);
	assert_moved(&f);
	migration_send_progress(f.send, &progress);
	ck_assert_uint_gt(progress.elapsed_us, HELD_UP_MS * 1000);
	ck_assert_uint_lt(progress.downtime.total, HELD_UP_MS * 1000 / 2);
	fixture_free(&f);
}
END_TEST

START_TEST(paused_vm_arrives_paused)
{
	fixture_init(&f, false, RAM, 0);
	ck_assert_int_eq(fake_pause(&f.source, NULL), 0);
	fixture_run(&f);
	assert_moved(&f);
	ck_assert(!fake_running(&f.target));
	fixture_free(&f);
}
END_TEST

START_TEST(either_side_may_ask_for_a_paused_vm)
{
	fixture_init(&f, false, RAM, 0);
	f.send_options.destination_paused = _i == 0;
	f.receive_options.paused = _i == 1;
	fixture_run(&f);
	assert_moved(&f);
	ck_assert(!fake_running(&f.target));
	fixture_free(&f);
}
END_TEST

START_TEST(local_migration_hands_memory_over)
{
	struct stat here, there;
	struct transfer_progress progress;

	fixture_init(&f, false, RAM, 20);
	f.send_options.local = true;
	fixture_run(&f);
	ck_assert_int_eq(f.send_result, 0);
	ck_assert_int_eq(f.receive_result, 0);
	fake_stop_writer(&f.source);
	ck_assert_int_eq(fstat(guest_memory_region(f.source.memory, 0)->memfd, &here), 0);
	ck_assert_int_eq(fstat(guest_memory_region(f.target.memory, 0)->memfd, &there), 0);
	ck_assert_uint_eq(here.st_ino, there.st_ino);
	ck_assert(fake_running(&f.target));
	migration_send_progress(f.send, &progress);
	ck_assert_uint_lt(progress.wire_bytes, 8192);
	fixture_free(&f);
}
END_TEST

START_TEST(local_migration_is_refused_with_the_reason)
{
	fixture_init(&f, _i == 0, RAM, 0);
	f.send_options.local = true;
	f.target.no_adopt = _i == 1;
	f.receive_options.local = _i != 2;
	fixture_run(&f);
	assert_stayed(&f);
	ck_assert_ptr_nonnull(strstr(f.send_error.message, _i ? "capabilities" : "unix:"));
	fixture_free(&f);
}
END_TEST

static int failing_hook(struct fake_machine *m, enum fake_step step)
{
	if ((enum fake_step)(uintptr_t)m->hook_data != step)
		return 0;
	m->hook_data = (void *)(uintptr_t)FAKE_STEPS; /* once */
	return -ENOTRECOVERABLE;
}

static const struct {
	bool target;
	enum fake_step step;
} failures[] = {
	{ false, FAKE_SAVE_CPU },      { true, FAKE_CHECK_CPU },  { true, FAKE_CREATE },
	{ false, FAKE_START_LOG },     { false, FAKE_PAUSE },	  { false, FAKE_SAVE },
	{ true, FAKE_LOAD },	       { true, FAKE_TAKE_LOCKS }, { true, FAKE_RESUME },
	{ false, FAKE_RELEASE_LOCKS },
};

START_TEST(failure_of_any_step_leaves_the_vm_where_it_was_and_is_named_on_both_sides)
{
	struct fake_machine *m;
	char text[32];

	fixture_init(&f, _i % 2, RAM, 10);
	m = failures[_i].target ? &f.target : &f.source;
	m->hook = failing_hook;
	m->hook_data = (void *)(uintptr_t)failures[_i].step;
	fixture_run(&f);
	assert_stayed(&f);
	snprintf(text, sizeof(text), "fake step %d fails", failures[_i].step);
	ck_assert_msg(strstr(f.send_error.message, text), "send: %s", f.send_error.message);
	/* The source's page connections may be gone before its reason is read. */
	ck_assert_msg(strstr(f.receive_error.message, text) ||
			      (!failures[_i].target &&
			       strstr(f.receive_error.message, "closed a page connection")),
		      "receive: %s", f.receive_error.message);
	fixture_free(&f);
}
END_TEST

START_TEST(vm_is_left_paused_where_asked)
{
	fixture_init(&f, false, RAM, 0);
	f.send_options.leave_paused = true;
	f.target.hook = failing_hook;
	f.target.hook_data = (void *)(uintptr_t)FAKE_LOAD;
	fixture_run(&f);
	ck_assert_int_lt(f.send_result, 0);
	ck_assert(!fake_running(&f.source));
	ck_assert_int_eq(migration_send_outcome(f.send), TRANSFER_STAYED);
	fixture_free(&f);
}
END_TEST

/* Cancels from within a step, when the other side may be anywhere. */
static int cancelling_hook(struct fake_machine *m, enum fake_step step)
{
	if ((enum fake_step)(uintptr_t)m->hook_data == step) {
		m->hook_data = (void *)(uintptr_t)FAKE_STEPS;
		if (m->no_adopt) /* the marker of who cancels: see below */
			migration_receive_cancel(f.receive);
		else
			migration_send_cancel(f.send, NULL);
	}
	return 0;
}

static const struct {
	bool target;
	enum fake_step step;
	bool too_late;
} cancels[] = {
	{ false, FAKE_SAVE_CPU, false },      { true, FAKE_CHECK_CPU, false },
	{ true, FAKE_CREATE, false },	      { false, FAKE_START_LOG, false },
	{ false, FAKE_COLLECT, false },	      { false, FAKE_PAUSE, false },
	{ false, FAKE_SAVE, false },	      { true, FAKE_LOAD, false },
	{ false, FAKE_RELEASE_LOCKS, false }, { true, FAKE_TAKE_LOCKS, true },
	{ true, FAKE_RESUME, true },
};

static void ended_by(const char *words, bool target, int result)
{
	const char *message = (target ? f.receive_error : f.send_error).message;

	ck_assert_msg(strstr(message, words), "%s", message);
	ck_assert_int_eq(target ? f.receive_result : f.send_result, result);
}

static void cancel_at(int i, bool by_target)
{
	struct fake_machine *m;

	fixture_init(&f, i % 2, RAM, 10);
	m = cancels[i].target ? &f.target : &f.source;
	m->no_adopt = by_target;
	m->hook = cancelling_hook;
	m->hook_data = (void *)(uintptr_t)cancels[i].step;
	fixture_run(&f);
	if (cancels[i].too_late) {
		assert_moved(&f);
	} else {
		assert_stayed(&f);
		ended_by("cancelled", by_target, -ECANCELED);
	}
	fixture_free(&f);
}

START_TEST(send_can_be_cancelled_until_commit)
{
	cancel_at(_i, false);
}
END_TEST

START_TEST(receive_can_be_cancelled_until_commit)
{
	cancel_at(_i, true);
}
END_TEST

static int two_reasons_hook(struct fake_machine *m, enum fake_step step)
{
	if (step == FAKE_SAVE_CPU) {
		migration_send_cancel(f.send, "it is for the first");
		migration_send_cancel(f.send, "it is for the second");
		migration_send_cancel(f.send, NULL);
	}
	return 0;
}

START_TEST(send_that_is_cancelled_tells_the_first_reason)
{
	fixture_init(&f, false, RAM, 10);
	f.source.hook = two_reasons_hook;
	fixture_run(&f);
	assert_stayed(&f);
	ended_by("it is for the first", false, -ECANCELED);
	fixture_free(&f);
}
END_TEST

static void *cancel_later(void *opaque)
{
	nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	migration_send_cancel(opaque, NULL);
	return NULL;
}

static void assert_cancelled_at_once(void)
{
	struct timespec begun, ended;
	pthread_t thread;

	fixture_start(&f);
	pthread_create(&thread, NULL, cancel_later, f.send);
	clock_gettime(CLOCK_MONOTONIC, &begun);
	f.send_result = migration_send_run(f.send, &f.send_error);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	pthread_join(thread, NULL);
	pthread_join(f.receive_thread, NULL);
	assert_stayed(&f);
	ck_assert_int_eq(f.send_result, -ECANCELED);
	ck_assert_int_lt((ended.tv_sec - begun.tv_sec) * 1000 +
				 (ended.tv_nsec - begun.tv_nsec) / 1000000,
			 1500);
}

START_TEST(send_is_cancelled_at_once_in_a_slow_round)
{
	fixture_init(&f, _i, RAM, 0);
	f.send_options.kind = f.receive_options.kind = _i ? CHANNEL_URING : CHANNEL_PLAIN;
	f.send_options.bandwidth = MIB / 4;
	f.send_options.connections = 2;
	assert_cancelled_at_once();
	fixture_free(&f);
}
END_TEST

START_TEST(send_is_cancelled_at_once_while_a_round_is_on_its_way)
{
	hold_up(2);
	proxy.stall = true;
	assert_cancelled_at_once();
	byte_proxy_stop(&proxy);
	ended_by("cancelled", true, -ECANCELED);
	fixture_free(&f);
}
END_TEST

START_TEST(receive_that_waits_can_be_cancelled)
{
	fixture_init(&f, false, RAM, 0);
	fixture_start(&f);
	ck_assert_int_eq(migration_receive_cancel(f.receive), 0);
	pthread_join(f.receive_thread, NULL);
	ck_assert_int_eq(f.receive_result, -ECANCELED);
	fixture_free(&f);
}
END_TEST

static void *read_progress(void *opaque)
{
	struct transfer_progress *seen = opaque, now;
	int rounds = 0;

	do {
		migration_send_progress(f.send, &now);
		ck_assert_uint_ge(now.wire_bytes, seen->wire_bytes);
		ck_assert_int_ge(now.phase, seen->phase);
		/* Rates come and go with their periods: the highest. */
		now.rate = MAX(now.rate, seen->rate);
		now.dirty_rate = MAX(now.dirty_rate, seen->dirty_rate);
		*seen = now;
		migration_receive_progress(f.receive, &now);
		rounds++;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	} while (seen->phase != TRANSFER_OVER);
	ck_assert_int_gt(rounds, 10);
	return NULL;
}

START_TEST(progress_can_be_read_all_the_time)
{
	struct transfer_progress seen = { .phase = TRANSFER_CONNECT };
	pthread_t thread;

	fixture_init(&f, false, RAM, 20);
	f.send_options.bandwidth = 10 * MIB;
	f.send_options.connections = 2;
	fixture_start(&f);
	pthread_create(&thread, NULL, read_progress, &seen);
	f.send_result = migration_send_run(f.send, &f.send_error);
	pthread_join(thread, NULL);
	pthread_join(f.receive_thread, NULL);
	assert_moved(&f);
	ck_assert_uint_gt(seen.rate, 0);
	ck_assert_uint_gt(seen.dirty_rate, 0);
	ck_assert_uint_gt(seen.connections[0].bytes, 0);
	ck_assert_uint_gt(seen.connections[1].bytes, 0);
	fixture_free(&f);
}
END_TEST

static Suite *migration_suite(void)
{
	Suite *suite = suite_create("migration");
	TCase *whole = tcase_create("whole");
	TCase *wrong = tcase_create("wrong");

	tcase_set_timeout(whole, 60);
	tcase_add_loop_test(whole, all_memory_and_state_arrive, 0, ARRAY_SIZE(ways));
	tcase_add_loop_test(whole, what_is_written_meanwhile_arrives, 0, ARRAY_SIZE(ways));
	tcase_add_test(whole, what_fills_huge_pages_arrives_in_huge_pages);
	tcase_add_test(whole, holes_are_not_allocated_on_either_side);
	tcase_add_test(whole, page_that_becomes_zero_is_zero_there);
	tcase_add_test(whole, source_that_lost_track_makes_all_pages_dirty);
	tcase_add_test(whole, guest_that_writes_too_much_is_slowed_down);
	tcase_add_test(whole, guest_that_writes_too_much_moves_anyway_where_asked);
	tcase_add_test(whole, bandwidth_is_limited);
	tcase_add_loop_test(whole, vm_is_not_paused_before_all_that_was_sent_has_come, 0, 4);
	tcase_add_test(whole, paused_vm_arrives_paused);
	tcase_add_loop_test(whole, either_side_may_ask_for_a_paused_vm, 0, 2);
	tcase_add_test(whole, local_migration_hands_memory_over);
	tcase_add_test(whole, progress_can_be_read_all_the_time);
	suite_add_tcase(suite, whole);

	tcase_set_timeout(wrong, 60);
	tcase_add_test(wrong, guest_that_writes_too_much_stays_when_time_is_over);
	tcase_add_loop_test(wrong, local_migration_is_refused_with_the_reason, 0, 3);
	tcase_add_loop_test(
		wrong, failure_of_any_step_leaves_the_vm_where_it_was_and_is_named_on_both_sides, 0,
		ARRAY_SIZE(failures));
	tcase_add_test(wrong, vm_is_left_paused_where_asked);
	tcase_add_loop_test(wrong, send_can_be_cancelled_until_commit, 0, ARRAY_SIZE(cancels));
	tcase_add_loop_test(wrong, receive_can_be_cancelled_until_commit, 0, ARRAY_SIZE(cancels));
	tcase_add_test(wrong, send_that_is_cancelled_tells_the_first_reason);
	tcase_add_loop_test(wrong, send_is_cancelled_at_once_in_a_slow_round, 0, 2);
	tcase_add_test(wrong, send_is_cancelled_at_once_while_a_round_is_on_its_way);
	tcase_add_test(wrong, receive_that_waits_can_be_cancelled);
	suite_add_tcase(suite, wrong);
	return suite;
}

int main(void)
{
	return run_suite(migration_suite());
}
