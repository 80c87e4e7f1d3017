/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exactly one side runs the VM: source and destination are processes, a proxy between them
 * does its mischief at every frame of the protocol, before and after it is forwarded. The
 * expectations are those of protocol.h.
 */
#include "tests/unit/migration/handover_stage.h"

/* Frames in the order of the migration. */
static const uint16_t steps[] = {
	FRAME_HELLO,	 FRAME_HELLO_REPLY, FRAME_CPU,		FRAME_MEMORY,
	FRAME_CONFIG,	 FRAME_ATTACH,	    FRAME_CREATED,	FRAME_PAGES,
	FRAME_ROUND_END, FRAME_ROUND_SENT,  FRAME_ROUND_LOADED, FRAME_STATE,
	FRAME_READY,	 FRAME_COMMIT,	    FRAME_RUNNING,	FRAME_DONE,
};

static int expected_of_kill(bool target, uint16_t step, bool after, bool witness)
{
	bool started = step == FRAME_DONE || step == FRAME_RUNNING;

	/* COMMIT may overtake the mischief. */
	if (!target && after && (step == FRAME_STATE || step == FRAME_READY))
		return NONE | TARGET;
	if (!target)
		return started || (step == FRAME_COMMIT && after) ? TARGET : NONE;
	if (step == FRAME_DONE || (step == FRAME_RUNNING && after))
		return NONE;	   /* moved, and died there */
	if (step == FRAME_RUNNING) /* by the witness it was heard to run */
		return witness ? NONE : HELD;
	if (step == FRAME_COMMIT && after)
		return witness ? SOURCE | HELD | NONE : HELD | NONE;
	if (step == FRAME_READY && after && witness)
		return SOURCE | HELD | NONE; /* COMMIT may overtake, too */
	if (witness)
		return SOURCE;
	if (step == FRAME_COMMIT || (step == FRAME_READY && after))
		return HELD;
	/* READY may overtake the mischief. */
	return step == FRAME_STATE && after ? SOURCE | HELD : SOURCE;
}

static int expected_of_cut(enum mischief mischief, uint16_t step, bool after, bool witness)
{
	bool dead = mischief == CUT_DEAD || mischief == STALL_DEAD;
	bool started =
		step == FRAME_DONE || step == FRAME_RUNNING || (step == FRAME_COMMIT && after);

	if (step == FRAME_DONE || (step == FRAME_RUNNING && after))
		return TARGET;
	if (started)
		return dead && !witness ? HELD_TARGET | TARGET : TARGET;
	if (step == FRAME_COMMIT && dead && !witness)
		return HELD;
	if (step == FRAME_READY && after)
		return dead && !witness ? HELD | HELD_TARGET : SOURCE | TARGET;
	return SOURCE;
}

static void play_all(enum mischief mischief, int i, bool witness)
{
	uint16_t step = steps[i / 2];
	bool after = i % 2;
	int expected, is;

	perform_mischief(i / 2 % 2, witness, mischief, step, after);
	expected = mischief <= KILL_TARGET
			   ? expected_of_kill(mischief == KILL_TARGET, step, after, witness)
			   : expected_of_cut(mischief, step, after, witness);
	is = who();
	ck_assert_msg(is & expected,
		      "mischief %d at frame %u %s: %d, not %d; source: %s; target: %s", mischief,
		      step, after ? "after" : "before", is, expected, play.stage->source.message,
		      play.stage->target.message);
	ck_assert_int_le(play.stage->world.most, 1);
	ck_assert(!play.stage->world.wrong_state);
	if (is == TARGET || is == HELD_TARGET)
		ck_assert_uint_eq(play.stage->world.arrived, play.stage->world.crc);
	/* Who does not run it says why, if it can. */
	if (is == SOURCE && !ended(play.target))
		ck_assert_str_ne(play.stage->target.message, "");
	if (is & (SOURCE | HELD | HELD_TARGET) && !ended(play.source))
		ck_assert_str_ne(play.stage->source.message, "");
	leave_stage();
}

START_TEST(source_is_killed)
{
	play_all(KILL_SOURCE, _i, true);
}
END_TEST

START_TEST(destination_is_killed)
{
	play_all(KILL_TARGET, _i, true);
}
END_TEST

START_TEST(connections_are_cut)
{
	play_all(CUT, _i, true);
}
END_TEST

START_TEST(connections_are_cut_and_no_new_ones_come_through)
{
	play_all(CUT_DEAD, _i, true);
}
END_TEST

START_TEST(connections_stall)
{
	play_all(STALL, _i, true);
}
END_TEST

START_TEST(connections_stall_and_so_do_new_ones)
{
	play_all(STALL_DEAD, _i, true);
}
END_TEST

/* As between hosts, where it makes a difference: from STATE on. */
#define FROM_STATE 18

START_TEST(source_is_killed_between_hosts)
{
	play_all(KILL_SOURCE, _i, false);
}
END_TEST

START_TEST(destination_is_killed_between_hosts)
{
	play_all(KILL_TARGET, _i, false);
}
END_TEST

START_TEST(connections_are_cut_between_hosts)
{
	play_all(CUT, _i, false);
}
END_TEST

START_TEST(connections_are_cut_and_no_new_ones_come_through_between_hosts)
{
	play_all(CUT_DEAD, _i, false);
}
END_TEST

START_TEST(connections_stall_between_hosts)
{
	play_all(STALL, _i, false);
}
END_TEST

START_TEST(connections_stall_and_so_do_new_ones_between_hosts)
{
	play_all(STALL_DEAD, _i, false);
}
END_TEST

/* Steps of the destination that no frame shows. */
static int die_taking_locks(struct fake_machine *m, enum fake_step step)
{
	if (step == FAKE_TAKE_LOCKS)
		raise(SIGKILL);
	return 0;
}

static int die_resumed(struct fake_machine *m, enum fake_step step)
{
	if (step == FAKE_RESUMED)
		raise(SIGKILL);
	return 0;
}

START_TEST(destination_that_dies_with_commit_read_has_not_started)
{
	set_stage(_i, true);
	play.target_hook = die_taking_locks;
	perform();
	ck_assert_int_eq(who(), SOURCE);
	ck_assert_ptr_nonnull(strstr(play.stage->source.message, "before it ran the VM"));
	leave_stage();
}
END_TEST

START_TEST(destination_that_dies_running_before_it_said_so_leaves_the_vm_held)
{
	set_stage(_i, true);
	play.target_hook = die_resumed;
	perform();
	ck_assert_int_eq(who(), HELD);
	ck_assert_ptr_nonnull(strstr(play.stage->source.message, "held here, paused"));
	leave_stage();
}
END_TEST

/* Stopped (SIGSTOP), not dead: whatever it does when it goes on, the source knows. */
static int stop_for_a_while(struct fake_machine *m, enum fake_step step)
{
	if (step == FAKE_TAKE_LOCKS)
		nanosleep(&(struct timespec){ .tv_sec = (STALL_MS * 2 + INQUIRY_MS) / 1000 + 1 },
			  NULL);
	return 0;
}

START_TEST(destination_that_takes_too_long_runs_and_the_source_does_not)
{
	set_stage(false, _i);
	play.target_hook = stop_for_a_while;
	perform();
	ck_assert_int_eq(who(), HELD_TARGET);
	ck_assert_int_le(play.stage->world.most, 1);
	leave_stage();
}
END_TEST

static const struct {
	const TTest *const *test;
	int from;
} plays[] = {
	{ &source_is_killed, 0 },
	{ &destination_is_killed, 0 },
	{ &connections_are_cut, 0 },
	{ &connections_are_cut_and_no_new_ones_come_through, 0 },
	{ &connections_stall, 0 },
	{ &connections_stall_and_so_do_new_ones, 0 },
	{ &source_is_killed_between_hosts, FROM_STATE },
	{ &destination_is_killed_between_hosts, FROM_STATE },
	{ &connections_are_cut_between_hosts, FROM_STATE },
	{ &connections_are_cut_and_no_new_ones_come_through_between_hosts, FROM_STATE },
	{ &connections_stall_between_hosts, FROM_STATE },
	{ &connections_stall_and_so_do_new_ones_between_hosts, FROM_STATE },
};

static Suite *other_suite(void)
{
	Suite *suite = suite_create("handover");
	TCase *tcase = tcase_create("others");

	tcase_set_timeout(tcase, 60 * SLOW);
	tcase_add_loop_test(tcase, destination_that_dies_with_commit_read_has_not_started, 0, 2);
	tcase_add_loop_test(
		tcase, destination_that_dies_running_before_it_said_so_leaves_the_vm_held, 0, 2);
	tcase_add_loop_test(tcase, destination_that_takes_too_long_runs_and_the_source_does_not, 0,
			    2);
	suite_add_tcase(suite, tcase);
	return suite;
}

#define PLAY_PARTS (ARRAY_SIZE(plays) * PARTS)

static Suite *suite_of(size_t i)
{
	int from;

	if (i == PLAY_PARTS)
		return other_suite();
	from = plays[i / PARTS].from;
	return part_suite("handover", *plays[i / PARTS].test, from,
			  2 * (int)ARRAY_SIZE(steps) - from, (int)(i % PARTS), PARTS);
}

int main(void)
{
	return run_parts(PLAY_PARTS + 1, suite_of);
}
