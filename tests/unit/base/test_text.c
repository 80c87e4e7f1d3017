/* SPDX-License-Identifier: Apache-2.0 */
/* strbuf, parse and bytes. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/parse.h"
#include "base/strbuf.h"
#include "tests/unit/helpers/run_suite.h"

START_TEST(strbuf_grows_and_stays_terminated)
{
	_cleanup_strbuf_ struct strbuf s = STRBUF_INIT;

	for (int i = 0; i < 1000; i++) {
		strbuf_printf(&s, "%03d", i);
		ck_assert_uint_eq(s.len, (size_t)(i + 1) * 3);
		ck_assert_uint_eq(strlen(s.data), s.len);
	}
	strbuf_puts(&s, "end");
	strbuf_append(&s, "\0x", 2);
	ck_assert_str_eq(s.data + 2997, "999end");
	ck_assert_uint_eq(s.len, 3005);
	ck_assert(!s.failed);
}
END_TEST

START_TEST(strbuf_past_its_bound_fails_and_stays_failed)
{
	_cleanup_strbuf_ struct strbuf s = STRBUF_INIT;

	s.max = 5;
	strbuf_puts(&s, "12345");
	ck_assert(!s.failed);
	strbuf_puts(&s, "6");
	ck_assert(s.failed);
	ck_assert_str_eq(s.data, "12345");
	strbuf_consume(&s, 5);
	strbuf_puts(&s, "");
	strbuf_printf(&s, "%d", 1);
	ck_assert(s.failed);
	ck_assert_uint_eq(s.len, 0);
}
END_TEST

START_TEST(strbuf_refuses_impossible_lengths)
{
	_cleanup_strbuf_ struct strbuf s = STRBUF_INIT;

	strbuf_puts(&s, "abc");
	strbuf_append(&s, "x", SIZE_MAX);
	ck_assert(s.failed);
	ck_assert_str_eq(s.data, "abc");
}
END_TEST

START_TEST(strbuf_consume_takes_from_the_front)
{
	_cleanup_strbuf_ struct strbuf s = STRBUF_INIT;

	strbuf_consume(&s, 3); /* nothing there */
	strbuf_puts(&s, "abcdef");
	strbuf_consume(&s, 0);
	strbuf_consume(&s, 2);
	ck_assert_str_eq(s.data, "cdef");
	strbuf_consume(&s, 100);
	ck_assert_str_eq(s.data, "");
	ck_assert_uint_eq(s.len, 0);
}
END_TEST

static const struct {
	const char *text;
	int result;
	uint64_t value;
} u64s[] = {
	{ "0", 0, 0 },
	{ "42", 0, 42 },
	{ "010", 0, 10 },
	{ "0x10", 0, 16 },
	{ "0XfF", 0, 255 },
	{ "18446744073709551615", 0, UINT64_MAX },
	{ "0xffffffffffffffff", 0, UINT64_MAX },
	{ "18446744073709551616", -ERANGE, 0 },
	{ "0x10000000000000000", -ERANGE, 0 },
	{ "", -EINVAL, 0 },
	{ " 1", -EINVAL, 0 },
	{ "1 ", -EINVAL, 0 },
	{ "+1", -EINVAL, 0 },
	{ "-1", -EINVAL, 0 },
	{ "0x", -EINVAL, 0 },
	{ "0x-1", -EINVAL, 0 },
	{ "0x0x1", -EINVAL, 0 },
	{ "x", -EINVAL, 0 },
	{ "abc", -EINVAL, 0 },
	{ "1a", -EINVAL, 0 },
	{ "1K", -EINVAL, 0 },
	{ "1.5", -EINVAL, 0 },
	{ "1\n", -EINVAL, 0 },
};

START_TEST(numbers_are_parsed_strictly)
{
	uint64_t v = 77;

	ck_assert_int_eq(parse_u64(u64s[_i].text, &v), u64s[_i].result);
	ck_assert_uint_eq(v, u64s[_i].result ? 77 : u64s[_i].value);
}
END_TEST

static const struct {
	const char *text;
	int result;
	uint64_t value;
} sizes[] = {
	{ "0", 0, 0 },
	{ "512", 0, 512 },
	{ "4k", 0, 4096 },
	{ "4K", 0, 4096 },
	{ "128M", 0, 128 * MIB },
	{ "2g", 0, 2 * GIB },
	{ "1T", 0, 1024 * GIB },
	{ "0x10M", 0, 16 * MIB },
	{ "16777215T", 0, 16777215 * 1024ULL * GIB },
	{ "16777216T", -ERANGE, 0 },
	{ "18446744073709551615K", -ERANGE, 0 },
	{ "99999999999999999999", -ERANGE, 0 },
	{ "", -EINVAL, 0 },
	{ "M", -EINVAL, 0 },
	{ "1MB", -EINVAL, 0 },
	{ "1MM", -EINVAL, 0 },
	{ "1 M", -EINVAL, 0 },
	{ "1P", -EINVAL, 0 },
	{ "-1M", -EINVAL, 0 },
};

START_TEST(sizes_take_one_suffix)
{
	uint64_t v = 77;

	ck_assert_int_eq(parse_size(sizes[_i].text, &v), sizes[_i].result);
	ck_assert_uint_eq(v, sizes[_i].result ? 77 : sizes[_i].value);
}
END_TEST

START_TEST(booleans_have_three_spellings)
{
	static const char *const yes[] = { "on", "true", "yes", "ON", "True" };
	static const char *const no[] = { "off", "false", "no", "OFF" };
	static const char *const bad[] = { "", "1", "0", "onn", "o", " on", "t" };
	bool v;

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		v = false;
		ck_assert_int_eq(parse_bool(yes[i], &v), 0);
		ck_assert(v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(no); i++) {
		v = true;
		ck_assert_int_eq(parse_bool(no[i], &v), 0);
		ck_assert(!v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		v = true;
		ck_assert_int_eq(parse_bool(bad[i], &v), -EINVAL);
		ck_assert(v);
	}
}
END_TEST

START_TEST(mac_is_six_pairs)
{
	static const char *const bad[] = {
		"",
		"52",
		"52:54:00:12:34",
		"52:54:00:12:34:",
		"52:54:00:12:34:5",
		"52:54:00:12:34:566",
		"52:54:00:12:34:56:78",
		"52-54-00-12-34-56",
		"5g:54:00:12:34:56",
		"052:54:00:12:34:56",
		":52:54:00:12:34:56",
		"52:54:00:12:34:56 ",
	};
	uint8_t mac[6] = { 9, 9, 9, 9, 9, 9 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ck_assert_int_eq(parse_mac(bad[i], mac), -EINVAL);
		ck_assert_mem_eq(mac, "\x9\x9\x9\x9\x9\x9", 6);
	}
	ck_assert_int_eq(parse_mac("52:54:00:aB:34:56", mac), 0);
	ck_assert_mem_eq(mac, "\x52\x54\x00\xab\x34\x56", 6);
}
END_TEST

START_TEST(little_endian_at_any_alignment)
{
	uint8_t b[9] = { 0xff, 1, 2, 3, 4, 5, 6, 7, 8 };

	ck_assert_uint_eq(load_le16(b + 1), 0x0201);
	ck_assert_uint_eq(load_le32(b + 1), 0x04030201);
	ck_assert_uint_eq(load_le64(b + 1), 0x0807060504030201);
	ck_assert_uint_eq(load_le(b + 1, 1), 1);
	ck_assert_uint_eq(load_le(b + 1, 4), 0x04030201);
	store_le16(b + 1, 0xbbaa);
	ck_assert_mem_eq(b, "\xff\xaa\xbb\x03", 4);
	store_le(b + 3, 0x1122334455667788, 4);
	ck_assert_mem_eq(b + 3, "\x88\x77\x66\x55\x07", 5);
	store_le32(b + 1, 0x01020304);
	ck_assert_mem_eq(b + 1, "\x04\x03\x02\x01", 4);
	store_le64(b + 1, 0x0102030405060708);
	ck_assert_mem_eq(b + 1, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
}
END_TEST

START_TEST(alignment_and_powers_of_two)
{
	ck_assert_uint_eq(align_down(4097, 4096), 4096);
	ck_assert_uint_eq(align_up(4097, 4096), 8192);
	ck_assert_uint_eq(align_up(4096, 4096), 4096);
	ck_assert_uint_eq(align_up(UINT64_MAX, 4096), 0);
	ck_assert(!is_power_of_2(0));
	ck_assert(is_power_of_2(1));
	ck_assert(!is_power_of_2(3));
	ck_assert(is_power_of_2(1ULL << 63));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("text");
	TCase *t = tcase_create("text");

	tcase_add_test(t, strbuf_grows_and_stays_terminated);
	tcase_add_test(t, strbuf_past_its_bound_fails_and_stays_failed);
	tcase_add_test(t, strbuf_refuses_impossible_lengths);
	tcase_add_test(t, strbuf_consume_takes_from_the_front);
	tcase_add_loop_test(t, numbers_are_parsed_strictly, 0, ARRAY_SIZE(u64s));
	tcase_add_loop_test(t, sizes_take_one_suffix, 0, ARRAY_SIZE(sizes));
	tcase_add_test(t, booleans_have_three_spellings);
	tcase_add_test(t, mac_is_six_pairs);
	tcase_add_test(t, little_endian_at_any_alignment);
	tcase_add_test(t, alignment_and_powers_of_two);
	suite_add_tcase(s, t);
	return run_suite(s);
}
