/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has the VM in postcopy: source and destination are processes, a proxy does its
 * mischief at the frames from the pause on, before and after they are forwarded. The
 * expectations are those of protocol.h.
 */
/* A busy host is no stall. */
#define STAGE_STALL_MS 900

#include "tests/unit/migration/handover_stage.h"

static const uint16_t steps[] = {
	FRAME_MISSING, FRAME_DROPPED,	   FRAME_STATE,	   FRAME_READY, FRAME_COMMIT,
	FRAME_RUNNING, FRAME_PAGE_REQUEST, FRAME_COMPLETE, FRAME_DONE,
};

/* NONE: the side that had it is dead, or it is lost. */
static int expected_of_kill_source(uint16_t step)
{
	return step == FRAME_COMPLETE || step == FRAME_DONE ? TARGET : NONE;
}

static int expected_of_kill_target(uint16_t step, bool after, bool witness)
{
	switch (step) {
	case FRAME_MISSING:
	case FRAME_DROPPED: return SOURCE;
	case FRAME_STATE:
		/* READY may overtake the mischief. */
		return after && !witness ? SOURCE | HELD : SOURCE;
	case FRAME_READY:
		if (!after)
			return SOURCE;
		return witness ? SOURCE | HELD | NONE : HELD; /* COMMIT may overtake, too */
	case FRAME_COMMIT:
		if (after)
			return witness ? SOURCE | HELD | NONE : HELD | NONE;
		return witness ? SOURCE : HELD;
	case FRAME_RUNNING: return after || witness ? NONE : HELD;
	case FRAME_PAGE_REQUEST: return HELD | NONE; /* RUNNING may be on its way */
	default: return NONE;
	}
}

static int expected_of_cut(bool dead, uint16_t step, bool after, bool witness)
{
	switch (step) {
	case FRAME_MISSING:
	case FRAME_DROPPED: return SOURCE;
	/* READY may overtake the mischief. */
	case FRAME_STATE: return dead && after && !witness ? SOURCE | HELD : SOURCE;
	case FRAME_READY:
		if (!after)
			return SOURCE;
		return !dead ? SOURCE | TARGET : witness ? SOURCE | NONE : HELD;
	case FRAME_COMMIT:
		/* It may see that before it begins. */
		if (after)
			return !dead ? SOURCE | TARGET : witness ? SOURCE | NONE : HELD | NONE;
		return dead && !witness ? HELD : SOURCE;
	case FRAME_RUNNING:
		if (!dead)
			return TARGET;
		return after || witness ? NONE : HELD;
	case FRAME_PAGE_REQUEST: return !dead ? TARGET : witness ? NONE : HELD | NONE;
	default: return TARGET;
	}
}

static int expected(enum mischief mischief, uint16_t step, bool after, bool witness)
{
	if (mischief == KILL_SOURCE)
		return expected_of_kill_source(step);
	if (mischief == KILL_TARGET)
		return expected_of_kill_target(step, after, witness);
	return expected_of_cut(mischief == CUT_DEAD || mischief == STALL_DEAD, step, after,
			       witness);
}

static void play_all(enum mischief mischief, int i, bool witness)
{
	uint16_t step = steps[i / 2];
	bool after = i % 2;
	int wanted, is;

	play.postcopy = true;
	perform_mischief(i / 2 % 2, witness, mischief, step, after);
	wanted = expected(mischief, step, after, witness);
	is = who();
	ck_assert_msg(is & wanted, "mischief %d at frame %u %s: %d, not %d; source: %s; target: %s",
		      mischief, step, after ? "after" : "before", is, wanted,
		      play.stage->source.message, play.stage->target.message);
	ck_assert_int_le(play.stage->world.most, 1);
	ck_assert(!play.stage->world.wrong_state);
	if (is == TARGET)
		ck_assert_uint_eq(play.stage->world.arrived, play.stage->world.crc);
	/* Who does not run it says why, if it can. */
	if (is != TARGET && !ended(play.target))
		ck_assert_str_ne(play.stage->target.message, "");
	if (is != TARGET && !ended(play.source) && play.stage->source.outcome != TRANSFER_MOVED)
		ck_assert_str_ne(play.stage->source.message, "");
	/* A VM that has run elsewhere does not run here again. */
	if (is == NONE && !ended(play.source) && !ended(play.target))
		ck_assert_int_eq(play.stage->source.outcome, TRANSFER_LOST);
	leave_stage();
}

#define PLAY(name, mischief, witness) \
	START_TEST(name) \
	{ \
		play_all(mischief, _i, witness); \
	} \
	END_TEST

PLAY(source_is_killed, KILL_SOURCE, true)
PLAY(destination_is_killed, KILL_TARGET, true)
PLAY(connections_are_cut, CUT, true)
PLAY(connections_are_cut_and_no_new_ones_come_through, CUT_DEAD, true)
PLAY(connections_stall, STALL, true)
PLAY(connections_stall_and_so_do_new_ones, STALL_DEAD, true)
PLAY(source_is_killed_between_hosts, KILL_SOURCE, false)
PLAY(destination_is_killed_between_hosts, KILL_TARGET, false)
PLAY(connections_are_cut_between_hosts, CUT, false)
PLAY(connections_are_cut_and_no_new_ones_come_through_between_hosts, CUT_DEAD, false)
PLAY(connections_stall_between_hosts, STALL, false)
PLAY(connections_stall_and_so_do_new_ones_between_hosts, STALL_DEAD, false)

static const TTest *const *const plays[] = {
	&source_is_killed,
	&destination_is_killed,
	&connections_are_cut,
	&connections_are_cut_and_no_new_ones_come_through,
	&connections_stall,
	&connections_stall_and_so_do_new_ones,
	&source_is_killed_between_hosts,
	&destination_is_killed_between_hosts,
	&connections_are_cut_between_hosts,
	&connections_are_cut_and_no_new_ones_come_through_between_hosts,
	&connections_stall_between_hosts,
	&connections_stall_and_so_do_new_ones_between_hosts,
};

#define WAITERS 2

static Suite *suite_of(size_t i)
{
	return part_suite("postcopy_handover", *plays[i / WAITERS], 0, 2 * ARRAY_SIZE(steps),
			  (int)(i % WAITERS), WAITERS);
}

int main(void)
{
	return run_parts(ARRAY_SIZE(plays) * WAITERS, suite_of);
}
