/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>

#include "base/clock.h"
#include "tests/unit/helpers/run_suite.h"

static void assert_date(int64_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm want, got;

	gmtime_r(&t, &want);
	clock_utc(seconds, &got);
	ck_assert_msg(got.tm_year == want.tm_year && got.tm_mon == want.tm_mon &&
			      got.tm_mday == want.tm_mday && got.tm_hour == want.tm_hour &&
			      got.tm_min == want.tm_min && got.tm_sec == want.tm_sec &&
			      got.tm_wday == want.tm_wday,
		      "%lld: %d-%d-%d %d:%d:%d, day %d", (long long)seconds, got.tm_year + 1900,
		      got.tm_mon + 1, got.tm_mday, got.tm_hour, got.tm_min, got.tm_sec,
		      got.tm_wday);
}

START_TEST(every_day_of_eight_centuries_has_its_date)
{
	/* From 1600 to 2400: each kind of year, and both sides of 1970. */
	for (int64_t day = -135140; day < 157054; day++) {
		assert_date(day * 86400);
		assert_date(day * 86400 + 86399);
	}
}
END_TEST

START_TEST(every_second_of_a_day_has_its_time)
{
	for (int64_t second = -86400; second < 86400; second++)
		assert_date(second);
}
END_TEST

START_TEST(far_dates_are_right)
{
	/* The year 0, the last second of 32 bits, the years 9999 and 20000 and so many before. */
	static const int64_t far[] = { -62167219200, -62167219201, 2147483647,	 2147483648,
				       253402300799, 253402300800, 568971820800, -693240000000 };

	for (unsigned int i = 0; i < sizeof(far) / sizeof(far[0]); i++)
		assert_date(far[i]);
}
END_TEST

START_TEST(time_goes_on)
{
	uint64_t a = clock_ns(), b = clock_ns();
	struct timespec then = clock_in_us(1500000);

	ck_assert_uint_ge(b, a);
	ck_assert_uint_le(clock_ms(), clock_ns() / 1000000);
	ck_assert_uint_ge((uint64_t)then.tv_sec * 1000000000 + (uint64_t)then.tv_nsec,
			  b + 1500000000);
	ck_assert_int_lt(then.tv_nsec, 1000000000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("clock");
	TCase *t = tcase_create("clock");

	tcase_add_test(t, every_day_of_eight_centuries_has_its_date);
	tcase_add_test(t, every_second_of_a_day_has_its_time);
	tcase_add_test(t, far_dates_are_right);
	tcase_add_test(t, time_goes_on);
	suite_add_tcase(s, t);
	return run_suite(s);
}
