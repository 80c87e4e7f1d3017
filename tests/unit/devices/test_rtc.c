/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "devices/legacy/legacy.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/run_suite.h"

#define CONTROL_B 0x0b
#define B_BINARY 0x04
#define B_24H 0x02

static struct fake_host h;
static struct rtc *rtc;

static void setup(void)
{
	ck_assert_int_eq(fake_host_init(&h), 0);
	rtc = rtc_new(&h.host, 3 * GIB, 5 * GIB, NULL);
	ck_assert_ptr_nonnull(rtc);
}

static void teardown(void)
{
	rtc_free(rtc);
	fake_host_destroy(&h);
}

static uint8_t get(uint8_t reg)
{
	uint8_t value = 0;

	bus_write(h.host.pio, 0x70, &reg, 1);
	ck_assert(bus_read(h.host.pio, 0x71, &value, 1));
	return value;
}

static void put(uint8_t reg, uint8_t value)
{
	bus_write(h.host.pio, 0x70, &reg, 1);
	bus_write(h.host.pio, 0x71, &value, 1);
}

static int bcd(uint8_t value)
{
	ck_assert_uint_lt(value & 0xf, 10);
	return (value >> 4) * 10 + (value & 0xf);
}

/* As a driver does: not during an update. */
static time_t read_clock(bool binary)
{
	uint8_t raw[7];
	static const uint8_t regs[] = { 0, 2, 4, 7, 8, 9, 0x32 };
	struct tm tm = { 0 };
	int v[7];

	while (get(0x0a) & 0x80)
		;
	for (unsigned int i = 0; i < 7; i++) {
		raw[i] = get(regs[i]);
		v[i] = binary ? raw[i] : bcd(raw[i]);
	}
	tm.tm_sec = v[0];
	tm.tm_min = v[1];
	tm.tm_hour = v[2];
	tm.tm_mday = v[3];
	tm.tm_mon = v[4] - 1;
	tm.tm_year = v[6] * 100 + v[5] - 1900;
	return timegm(&tm);
}

START_TEST(clock_is_utc_in_bcd)
{
	time_t before = time(NULL), t = read_clock(false);

	ck_assert_int_ge(t, before);
	ck_assert_int_le(t, time(NULL) + 1);
}
END_TEST

START_TEST(clock_is_binary_where_register_b_says_so)
{
	time_t before = time(NULL), t;

	put(CONTROL_B, B_BINARY | B_24H);
	t = read_clock(true);
	ck_assert_int_ge(t, before);
	ck_assert_int_le(t, time(NULL) + 1);
}
END_TEST

START_TEST(twelve_hour_clock_marks_the_afternoon)
{
	uint8_t hours24, hours12;

	put(CONTROL_B, B_BINARY | B_24H);
	hours24 = get(4);
	put(CONTROL_B, B_BINARY);
	hours12 = get(4);
	ck_assert_uint_eq(hours12 & 0x80, hours24 >= 12 ? 0x80 : 0);
	ck_assert_uint_eq((hours12 & 0x7f) % 12, hours24 % 12);
	ck_assert_uint_ne(hours12 & 0x7f, 0);
}
END_TEST

START_TEST(day_of_week_counts_from_sunday)
{
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	ck_assert_uint_eq(get(6), tm.tm_wday + 1);
}
END_TEST

START_TEST(setting_the_clock_has_no_effect)
{
	time_t before = time(NULL), t;

	for (uint8_t reg = 0; reg < 10; reg++)
		put(reg, 0);
	put(0x32, 0x19);
	t = read_clock(false);
	ck_assert_int_ge(t, before);
}
END_TEST

START_TEST(status_registers_say_valid_and_quiet)
{
	ck_assert_uint_eq(get(0x0a) & 0x7f, 0x26);
	ck_assert_uint_eq(get(CONTROL_B), B_24H);
	ck_assert_uint_eq(get(0x0c), 0);
	ck_assert_uint_eq(get(0x0d), 0x80);
	/* Interrupts cannot be enabled: there is no line. */
	put(CONTROL_B, 0xff);
	ck_assert_uint_eq(get(CONTROL_B), 0x87);
	put(0x0d, 0);
	ck_assert_uint_eq(get(0x0d), 0x80);
}
END_TEST

START_TEST(memory_sizes_are_in_their_usual_bytes)
{
	ck_assert_uint_eq(get(0x15) | get(0x16) << 8, 640);
	ck_assert_uint_eq(get(0x17) | get(0x18) << 8, 0xffff);
	ck_assert_uint_eq(get(0x30) | get(0x31) << 8, 0xffff);
	ck_assert_uint_eq(get(0x34) | get(0x35) << 8, (3 * GIB - 16 * MIB) / (64 * KIB));
	ck_assert_uint_eq(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 5 * GIB / (64 * KIB));
}
END_TEST

START_TEST(small_memory_does_not_wrap)
{
	rtc_free(rtc);
	rtc = rtc_new(&h.host, 512 * KIB, 0, NULL);
	ck_assert_ptr_nonnull(rtc);
	ck_assert_uint_eq(get(0x17) | get(0x18) << 8, 0);
	ck_assert_uint_eq(get(0x34) | get(0x35) << 8, 0);
	ck_assert_uint_eq(get(0x5b) | get(0x5c) | get(0x5d), 0);
}
END_TEST

START_TEST(other_bytes_are_memory)
{
	put(0x40, 0x12);
	put(0x7f, 0x34);
	ck_assert_uint_eq(get(0x40), 0x12);
	ck_assert_uint_eq(get(0x7f), 0x34);
	/* Bit 7 of the index is the NMI mask. */
	ck_assert_uint_eq(get(0x80 | 0x40), 0x12);
}
END_TEST

START_TEST(odd_accesses_are_bounded)
{
	uint32_t value = 0;
	uint16_t word = 0x9940;

	ck_assert(!bus_read(h.host.pio, 0x70, &value, 4));
	ck_assert(!bus_write(h.host.pio, 0x71, &value, 2));
	value = 0;
	ck_assert(bus_read(h.host.pio, 0x70, &value, 2));
	ck_assert_uint_eq(value, 0xffff);
	/* A word is an index and its byte. */
	ck_assert(bus_write(h.host.pio, 0x70, &word, 2));
	ck_assert_uint_eq(get(0x40), 0x99);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rtc");
	TCase *t = tcase_create("rtc");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, clock_is_utc_in_bcd);
	tcase_add_test(t, clock_is_binary_where_register_b_says_so);
	tcase_add_test(t, twelve_hour_clock_marks_the_afternoon);
	tcase_add_test(t, day_of_week_counts_from_sunday);
	tcase_add_test(t, setting_the_clock_has_no_effect);
	tcase_add_test(t, status_registers_say_valid_and_quiet);
	tcase_add_test(t, memory_sizes_are_in_their_usual_bytes);
	tcase_add_test(t, small_memory_does_not_wrap);
	tcase_add_test(t, other_bytes_are_memory);
	tcase_add_test(t, odd_accesses_are_bounded);
	suite_add_tcase(s, t);
	return run_suite(s);
}
