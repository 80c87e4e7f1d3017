/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table against the rules it is made by (linux/vfio.h): the arcs there are, the shortest
 * way, no state of the saving group in between; for every pair and every kind of device.
 */
#include <check.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/unit/helpers/run_suite.h"
#include "vfio/migration_states.h"

#define N MIGRATION_STATES

static const struct arc {
	uint8_t from, to;
	uint64_t needs;
} arcs[] = {
	{ VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_DEVICE_STATE_STOP, VFIO_MIGRATION_P2P },
	{ VFIO_DEVICE_STATE_STOP_COPY, VFIO_DEVICE_STATE_STOP, 0 },
	{ VFIO_DEVICE_STATE_RESUMING, VFIO_DEVICE_STATE_STOP, 0 },
	{ VFIO_DEVICE_STATE_PRE_COPY, VFIO_DEVICE_STATE_RUNNING, VFIO_MIGRATION_PRE_COPY },
	{ VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_DEVICE_STATE_RUNNING, VFIO_MIGRATION_P2P },
	{ VFIO_DEVICE_STATE_PRE_COPY_P2P, VFIO_DEVICE_STATE_RUNNING_P2P,
	  VFIO_MIGRATION_PRE_COPY | VFIO_MIGRATION_P2P },
	{ VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_MIGRATION_P2P },
	{ VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_MIGRATION_P2P },
	{ VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_PRE_COPY, VFIO_MIGRATION_PRE_COPY },
	{ VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_DEVICE_STATE_PRE_COPY_P2P,
	  VFIO_MIGRATION_PRE_COPY | VFIO_MIGRATION_P2P },
	{ VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_STOP_COPY, 0 },
	{ VFIO_DEVICE_STATE_PRE_COPY, VFIO_DEVICE_STATE_PRE_COPY_P2P,
	  VFIO_MIGRATION_PRE_COPY | VFIO_MIGRATION_P2P },
	{ VFIO_DEVICE_STATE_PRE_COPY_P2P, VFIO_DEVICE_STATE_PRE_COPY,
	  VFIO_MIGRATION_PRE_COPY | VFIO_MIGRATION_P2P },
	{ VFIO_DEVICE_STATE_PRE_COPY_P2P, VFIO_DEVICE_STATE_STOP_COPY,
	  VFIO_MIGRATION_PRE_COPY | VFIO_MIGRATION_P2P },
	{ VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_RESUMING, 0 },
};

/* Without P2P its two states are their neighbours. */
static const struct arc plain_arcs[] = {
	{ VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_STOP, 0 },
	{ VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_RUNNING, 0 },
	{ VFIO_DEVICE_STATE_PRE_COPY, VFIO_DEVICE_STATE_STOP_COPY, VFIO_MIGRATION_PRE_COPY },
};

static bool arc_exists(uint32_t from, uint32_t to, uint64_t flags)
{
	for (size_t i = 0; i < ARRAY_SIZE(arcs); i++)
		if (arcs[i].from == from && arcs[i].to == to)
			return (arcs[i].needs & flags) == arcs[i].needs;
	for (size_t i = 0; i < ARRAY_SIZE(plain_arcs); i++)
		if (plain_arcs[i].from == from && plain_arcs[i].to == to)
			return !(flags & VFIO_MIGRATION_P2P) &&
			       (plain_arcs[i].needs & flags) == plain_arcs[i].needs;
	return false;
}

static bool saving(uint32_t state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P ||
	       state == VFIO_DEVICE_STATE_STOP_COPY;
}

/* May a way from `from` go on from `at` to `next`? Through the saving group only where it
 * stays in it. */
static bool passes(uint32_t from, uint32_t at, uint32_t next)
{
	return at == from || !saving(at) || (saving(from) && saving(next));
}

/* Arcs of the shortest way; 0: none. */
static unsigned int shortest(uint32_t from, uint32_t to, uint64_t flags)
{
	unsigned int distance[N] = { 0 };
	uint32_t queue[N], head = 0, tail = 0;

	queue[tail++] = from;
	while (head < tail) {
		uint32_t at = queue[head++];

		for (uint32_t next = 1; next < N; next++) {
			if (next == from || distance[next] || !arc_exists(at, next, flags) ||
			    !passes(from, at, next))
				continue;
			distance[next] = distance[at] + 1;
			queue[tail++] = next;
		}
	}
	return distance[to];
}

static const uint64_t kinds[] = {
	VFIO_MIGRATION_STOP_COPY,
	VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P,
	VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY,
	VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY | VFIO_MIGRATION_P2P,
};

/* Back to PRE_COPY would lead through RUNNING, which gives up what was stopped for: the
 * header leaves it out. */
static bool excluded(uint32_t from, uint32_t to)
{
	return from == VFIO_DEVICE_STATE_STOP_COPY &&
	       (to == VFIO_DEVICE_STATE_PRE_COPY || to == VFIO_DEVICE_STATE_PRE_COPY_P2P);
}

START_TEST(every_pair_takes_the_shortest_way)
{
	uint64_t flags = kinds[_i];

	for (uint32_t from = 1; from < N; from++)
		for (uint32_t to = 1; to < N; to++) {
			unsigned int arcs_left, taken = 0;
			uint32_t at = from;

			if (from == to || !migration_state_exists(from, flags) ||
			    !migration_state_exists(to, flags) || excluded(from, to))
				continue;
			arcs_left = shortest(from, to, flags);
			ck_assert_uint_gt(arcs_left, 0);
			while (at != to) {
				uint32_t next = migration_state_next(at, to, flags);

				ck_assert_msg(arc_exists(at, next, flags), "%s -> %s on %s -> %s",
					      migration_state_name(at), migration_state_name(next),
					      migration_state_name(from), migration_state_name(to));
				ck_assert(passes(from, at, next));
				at = next;
				ck_assert_uint_le(++taken, arcs_left);
			}
			ck_assert_uint_eq(taken, arcs_left);
		}
}
END_TEST

START_TEST(there_is_no_way_from_error_nor_to_what_the_device_lacks)
{
	uint64_t flags = kinds[_i];

	for (uint32_t from = 0; from < N + 2; from++)
		for (uint32_t to = 0; to < N + 2; to++) {
			bool missing = from == VFIO_DEVICE_STATE_ERROR ||
				       to == VFIO_DEVICE_STATE_ERROR || excluded(from, to) ||
				       !migration_state_exists(from, flags) ||
				       !migration_state_exists(to, flags);

			if (from != to)
				ck_assert_int_eq(migration_state_next(from, to, flags) ==
							 VFIO_DEVICE_STATE_ERROR,
						 missing);
		}
}
END_TEST

START_TEST(what_a_device_has_follows_from_its_flags)
{
	static const uint8_t states[] = { 5, 6, 6, 8 };
	unsigned int n = 0;

	for (uint32_t state = 0; state < N + 2; state++)
		n += migration_state_exists(state, kinds[_i]);
	ck_assert_uint_eq(n, states[_i]);
	ck_assert(!migration_state_exists(VFIO_DEVICE_STATE_STOP_COPY, VFIO_MIGRATION_P2P));
}
END_TEST

/* As the header says it, arc by arc. */
START_TEST(streams_begin_and_end_on_the_documented_arcs)
{
	for (uint32_t from = 1; from < N; from++)
		for (uint32_t to = 1; to < N; to++) {
			bool begins = (saving(to) && !saving(from)) ||
				      (to == VFIO_DEVICE_STATE_RESUMING && from != to);
			bool ends = (saving(from) && !saving(to)) ||
				    (from == VFIO_DEVICE_STATE_RESUMING && from != to);

			ck_assert_int_eq(migration_arc_begins(from, to), begins);
			ck_assert_int_eq(migration_arc_ends(from, to), ends);
		}
}
END_TEST

START_TEST(states_have_names)
{
	ck_assert_str_eq(migration_state_name(VFIO_DEVICE_STATE_PRE_COPY_P2P), "PRE_COPY_P2P");
	ck_assert_str_eq(migration_state_name(VFIO_DEVICE_STATE_ERROR), "ERROR");
	ck_assert_str_eq(migration_state_name(N), "unknown");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("migration_states");
	TCase *tc = tcase_create("table");

	tcase_add_loop_test(tc, every_pair_takes_the_shortest_way, 0, ARRAY_SIZE(kinds));
	tcase_add_loop_test(tc, there_is_no_way_from_error_nor_to_what_the_device_lacks, 0,
			    ARRAY_SIZE(kinds));
	tcase_add_loop_test(tc, what_a_device_has_follows_from_its_flags, 0, ARRAY_SIZE(kinds));
	tcase_add_test(tc, streams_begin_and_end_on_the_documented_arcs);
	tcase_add_test(tc, states_have_names);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
