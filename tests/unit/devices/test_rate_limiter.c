/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>

#include "base/bytes.h"
#include "devices/rate_limiter.h"
#include "tests/unit/helpers/run_suite.h"

#define MS 1000000ULL
#define START (123456789ULL * MS) /* clocks do not begin at 0 */

static struct rate_limiter make(struct rate_limiter_options options)
{
	struct rate_limiter limiter;

	rate_limiter_init(&limiter, &options, START);
	return limiter;
}

START_TEST(no_limit_lets_everything_through)
{
	struct rate_limiter l = make((struct rate_limiter_options){ 0 });

	ck_assert(rate_limiter_unlimited(&l));
	for (int i = 0; i < 1000; i++)
		ck_assert_uint_eq(rate_limiter_take(&l, UINT64_MAX, START), 0);
}
END_TEST

START_TEST(bucket_without_refill_time_is_no_limit)
{
	struct rate_limiter l = make((struct rate_limiter_options){ .ops = { .size = 1 } });

	ck_assert(rate_limiter_unlimited(&l));
	ck_assert_uint_eq(rate_limiter_take(&l, 1, START), 0);
	ck_assert_uint_eq(rate_limiter_take(&l, 1, START), 0);
}
END_TEST

START_TEST(empty_bucket_says_how_long_to_wait)
{
	struct rate_limiter l =
		make((struct rate_limiter_options){ .ops = { .size = 10, .refill_ms = 100 } });
	uint64_t wait;

	ck_assert(!rate_limiter_unlimited(&l));
	for (int i = 0; i < 10; i++)
		ck_assert_uint_eq(rate_limiter_take(&l, 4096, START), 0);
	wait = rate_limiter_take(&l, 4096, START);
	ck_assert_uint_eq(wait, 10 * MS);
	/* asking in between takes nothing and keeps the part of a token */
	ck_assert_uint_eq(rate_limiter_take(&l, 4096, START + 4 * MS), 6 * MS);
	ck_assert_uint_eq(rate_limiter_take(&l, 4096, START + 7 * MS), 3 * MS);
	ck_assert_uint_eq(rate_limiter_take(&l, 4096, START + 10 * MS), 0);
	ck_assert_uint_eq(rate_limiter_take(&l, 4096, START + 10 * MS), 10 * MS);
}
END_TEST

START_TEST(waiting_as_told_is_long_enough)
{
	struct rate_limiter l = make((struct rate_limiter_options){
		.bandwidth = { .size = 1000003, .refill_ms = 97 },
		.ops = { .size = 7, .refill_ms = 13 },
	});
	uint64_t now = START, bytes = 0, ops = 0, wait;

	for (int i = 0; i < 10000; i++) {
		uint64_t len = (uint64_t)i * 7919 % 65536;

		wait = rate_limiter_take(&l, len, now);
		if (wait) {
			now += wait;
			ck_assert_uint_eq(rate_limiter_take(&l, len, now), 0);
		}
		bytes += len;
		ops++;
	}
	/* and the long-run rates are those asked for, after the first bucketful */
	ck_assert_uint_le((ops - 7) * 13 * MS / 7, now - START + 13 * MS);
	ck_assert_uint_le((bytes - 1000003) / 1000003 * 97 * MS, now - START + 97 * MS);
	ck_assert_uint_ge(MAX(ops * 13 * MS / 7, bytes / 1000003 * 97 * MS) + 200 * MS,
			  now - START);
}
END_TEST

START_TEST(tokens_do_not_pile_up_beyond_the_bucket)
{
	struct rate_limiter l =
		make((struct rate_limiter_options){ .ops = { .size = 3, .refill_ms = 10 } });
	uint64_t later = START + 3600 * 1000 * MS;

	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(rate_limiter_take(&l, 1, later), 0);
	ck_assert_uint_ne(rate_limiter_take(&l, 1, later), 0);
}
END_TEST

START_TEST(burst_is_spent_once)
{
	struct rate_limiter l = make((struct rate_limiter_options){
		.bandwidth = { .size = 100, .refill_ms = 10, .one_time_burst = 200 } });

	ck_assert_uint_eq(rate_limiter_take(&l, 250, START), 0);
	ck_assert_uint_eq(rate_limiter_take(&l, 50, START), 0);
	ck_assert_uint_ne(rate_limiter_take(&l, 50, START), 0);
	ck_assert_uint_eq(rate_limiter_take(&l, 100, START + 1000 * MS), 0);
	ck_assert_uint_ne(rate_limiter_take(&l, 1, START + 1000 * MS), 0);
}
END_TEST

START_TEST(request_larger_than_the_bucket_goes_and_is_waited_out)
{
	struct rate_limiter l = make(
		(struct rate_limiter_options){ .bandwidth = { .size = 100, .refill_ms = 10 } });

	ck_assert_uint_eq(rate_limiter_take(&l, 1000, START), 0);
	ck_assert(l.bandwidth.indebted);
	/* 900 owed, and one more */
	ck_assert_uint_eq(rate_limiter_take(&l, 1, START), 901 * MS / 10);
	ck_assert_uint_ne(rate_limiter_take(&l, 1, START + 90 * MS), 0);
	ck_assert(!l.bandwidth.indebted);
	ck_assert_uint_eq(rate_limiter_take(&l, 1, START + 91 * MS), 0);
	/* the next large one waits for a full bucket */
	ck_assert_uint_ne(rate_limiter_take(&l, 1000, START + 95 * MS), 0);
	ck_assert_uint_eq(rate_limiter_take(&l, 1000, START + 102 * MS), 0);
}
END_TEST

START_TEST(one_full_bucket_does_not_let_the_other_be_charged)
{
	struct rate_limiter l = make((struct rate_limiter_options){
		.bandwidth = { .size = 1000, .refill_ms = 10 },
		.ops = { .size = 1, .refill_ms = 1000 },
	});

	ck_assert_uint_eq(rate_limiter_take(&l, 100, START), 0);
	for (int i = 0; i < 100; i++)
		ck_assert_uint_ne(rate_limiter_take(&l, 100, START), 0);
	ck_assert_uint_eq(l.bandwidth.tokens, 900);
}
END_TEST

START_TEST(extreme_figures_do_not_overflow)
{
	struct rate_limiter l = make((struct rate_limiter_options){
		.bandwidth = { .size = UINT64_MAX,
			       .refill_ms = UINT64_MAX,
			       .one_time_burst = UINT64_MAX },
		.ops = { .size = 1, .refill_ms = UINT64_MAX },
	});
	uint64_t wait;

	ck_assert_uint_eq(rate_limiter_take(&l, UINT64_MAX, START), 0);
	wait = rate_limiter_take(&l, UINT64_MAX, UINT64_MAX);
	ck_assert_uint_ne(wait, 0);
	/* a clock that goes back */
	ck_assert_uint_ne(rate_limiter_take(&l, UINT64_MAX, 0), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rate_limiter");
	TCase *t = tcase_create("rate_limiter");

	tcase_add_test(t, no_limit_lets_everything_through);
	tcase_add_test(t, bucket_without_refill_time_is_no_limit);
	tcase_add_test(t, empty_bucket_says_how_long_to_wait);
	tcase_add_test(t, waiting_as_told_is_long_enough);
	tcase_add_test(t, tokens_do_not_pile_up_beyond_the_bucket);
	tcase_add_test(t, burst_is_spent_once);
	tcase_add_test(t, request_larger_than_the_bucket_goes_and_is_waited_out);
	tcase_add_test(t, one_full_bucket_does_not_let_the_other_be_charged);
	tcase_add_test(t, extreme_figures_do_not_overflow);
	suite_add_tcase(s, t);
	return run_suite(s);
}
