/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "migration/crc32c.h"
#include "migration/protocol.h"
#include "tests/unit/helpers/run_suite.h"

START_TEST(crc32c_is_the_one_of_rfc_3720)
{
	uint8_t buf[32];

	ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283);
	memset(buf, 0, sizeof(buf));
	ck_assert_uint_eq(crc32c(0, buf, sizeof(buf)), 0x8a9136aa);
	memset(buf, 0xff, sizeof(buf));
	ck_assert_uint_eq(crc32c(0, buf, sizeof(buf)), 0x62a8ab43);
	for (unsigned int i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)i;
	ck_assert_uint_eq(crc32c(0, buf, sizeof(buf)), 0x46dd794e);
	ck_assert_uint_eq(crc32c(0, NULL, 0), 0);
}
END_TEST

START_TEST(crc32c_by_table_and_in_pieces_is_the_same)
{
	uint8_t buf[300];

	for (unsigned int i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 37 + i / 7);
	for (size_t from = 0; from < 9; from++)
		for (size_t len = 0; len < 64; len++) {
			uint32_t whole = crc32c(0, buf + from, len);

			ck_assert_uint_eq(whole, crc32c_table(0, buf + from, len));
			ck_assert_uint_eq(whole, crc32c(crc32c(0, buf + from, len / 3),
							buf + from + len / 3, len - len / 3));
		}
}
END_TEST

static const struct frame good = {
	.type = FRAME_PAGES,
	.flags = FRAME_PAYLOAD_CRC,
	.stream = 7,
	.meta_len = 16,
	.length = 4096,
	.offset = 0x123456789abcdef,
	.meta_crc = 1,
	.payload_crc = 2,
};

START_TEST(header_comes_back_as_it_went)
{
	uint8_t buf[FRAME_HEADER_SIZE];
	struct frame frame;

	frame_encode(&good, buf);
	ck_assert_int_eq(memcmp(buf, "FRRY", 4), 0);
	ck_assert_int_eq(frame_decode(&frame, buf, NULL), 0);
	ck_assert_uint_eq(frame.type, good.type);
	ck_assert_uint_eq(frame.flags, good.flags);
	ck_assert_uint_eq(frame.stream, good.stream);
	ck_assert_uint_eq(frame.meta_len, good.meta_len);
	ck_assert_uint_eq(frame.length, good.length);
	ck_assert_uint_eq(frame.offset, good.offset);
	ck_assert_uint_eq(frame.meta_crc, good.meta_crc);
	ck_assert_uint_eq(frame.payload_crc, good.payload_crc);
}
END_TEST

START_TEST(header_with_any_bit_flipped_is_refused)
{
	uint8_t buf[FRAME_HEADER_SIZE];
	struct frame frame;

	frame_encode(&good, buf);
	buf[_i / 8] ^= (uint8_t)(1 << _i % 8);
	ck_assert_int_eq(frame_decode(&frame, buf, NULL), -EBADMSG);
}
END_TEST

static const struct {
	uint16_t type, flags;
	uint32_t meta_len;
	uint64_t length;
	int result;
} limits[] = {
	{ FRAME_HELLO, 0, FRAME_META_MAX, 0, 0 },
	{ FRAME_HELLO, 0, FRAME_META_MAX + 1, 0, -EMSGSIZE },
	{ FRAME_HELLO, 0, UINT32_MAX, 0, -EMSGSIZE },
	{ FRAME_HELLO, 0, 0, 1, -EMSGSIZE },
	{ FRAME_CPU, 0, 0, FRAME_CPU_MAX, 0 },
	{ FRAME_CPU, 0, 0, FRAME_CPU_MAX + 1, -EMSGSIZE },
	{ FRAME_CONFIG, 0, 0, FRAME_CONFIG_MAX + 1, -EMSGSIZE },
	{ FRAME_PAGES, 0, 0, FRAME_PAGES_MAX, 0 },
	{ FRAME_PAGES, 0, 0, FRAME_PAGES_MAX + 1, -EMSGSIZE },
	{ FRAME_PAGES, 0, 0, UINT64_MAX, -EMSGSIZE },
	{ FRAME_STATE, 0, 0, FRAME_STATE_MAX, 0 },
	{ FRAME_STATE, 0, 0, FRAME_STATE_MAX + 1, -EMSGSIZE },
	{ FRAME_COMMIT, 0, 0, 1, -EMSGSIZE },
	{ FRAME_TYPES, FRAME_OPTIONAL, 0, FRAME_SKIP_MAX, 0 },
	{ FRAME_TYPES, FRAME_OPTIONAL, 0, FRAME_SKIP_MAX + 1, -EMSGSIZE },
	{ FRAME_TYPES, 0, 0, 0, -EPROTO },
	{ 0, 0, 0, 0, -EPROTO },
	{ UINT16_MAX, FRAME_OPTIONAL, FRAME_META_MAX, 0, 0 },
	{ UINT16_MAX, (uint16_t)~FRAME_OPTIONAL, 0, 0, -EPROTO },
};

START_TEST(header_is_held_to_the_limits_of_its_type)
{
	struct frame frame = {
		.type = limits[_i].type,
		.flags = limits[_i].flags,
		.meta_len = limits[_i].meta_len,
		.length = limits[_i].length,
	};
	struct error err = ERROR_INIT;
	uint8_t buf[FRAME_HEADER_SIZE];

	frame_encode(&frame, buf);
	ck_assert_int_eq(frame_decode(&frame, buf, &err), limits[_i].result);
	ck_assert_int_eq(err.message[0] == '\0', limits[_i].result == 0);
}
END_TEST

START_TEST(types_have_names)
{
	char buf[16];

	for (int type = FRAME_HELLO; type < FRAME_TYPES; type++)
		ck_assert_ptr_ne(frame_name((uint16_t)type, buf, sizeof(buf)), buf);
	ck_assert_str_eq(frame_name(999, buf, sizeof(buf)), "frame 999");
	ck_assert_str_eq(frame_name(FRAME_PAGES, buf, sizeof(buf)), "PAGES");
}
END_TEST

START_TEST(bodies_come_back_as_they_went_and_short_ones_are_refused)
{
	struct hello hello = { 1, 2, 3, 4, 5, 6, 7, 8 }, hello2;
	struct hello_reply reply = { .version = 1, .capabilities = 2 }, reply2;
	uint8_t buf[HELLO_REPLY_SIZE + 8] = { 0 };

	hello_encode(&hello, buf);
	ck_assert_int_eq(hello_decode(&hello2, buf, HELLO_SIZE + 8, NULL), 0); /* may grow */
	ck_assert_int_eq(hello2.version_min, 1);
	ck_assert_int_eq(hello2.version_max, 2);
	ck_assert_int_eq(hello2.connections, 3);
	ck_assert_int_eq(hello2.offered, 4);
	ck_assert_int_eq(hello2.required, 5);
	ck_assert_int_eq(hello2.ram_bytes, 6);
	ck_assert_int_eq(hello2.flags, 7);
	ck_assert_int_eq(hello2.devices, 8);
	ck_assert_int_eq(hello_decode(&hello2, buf, HELLO_SIZE_MIN, NULL), 0); /* an older one */
	ck_assert_int_eq(hello2.devices, 0);
	for (size_t len = 0; len < HELLO_SIZE_MIN; len++)
		ck_assert_int_eq(hello_decode(&hello2, buf, len, NULL), -EBADMSG);
	memset(reply.session, 3, SESSION_SIZE);
	memset(reply.witness, 4, SESSION_SIZE);
	hello_reply_encode(&reply, buf);
	ck_assert_int_eq(hello_reply_decode(&reply2, buf, HELLO_REPLY_SIZE + 8, NULL), 0);
	ck_assert_int_eq(reply2.version, 1);
	ck_assert_int_eq(reply2.capabilities, 2);
	ck_assert_int_eq(memcmp(reply2.session, reply.session, SESSION_SIZE), 0);
	ck_assert_int_eq(memcmp(reply2.witness, reply.witness, SESSION_SIZE), 0);
	for (size_t len = 0; len < HELLO_REPLY_SIZE; len++)
		ck_assert_int_eq(hello_reply_decode(&reply2, buf, len, NULL), -EBADMSG);
}
END_TEST

static const struct {
	struct memory_entry entry;
	bool good;
} entries[] = {
	{ { 0, 4096, 0, 4096 }, true },
	{ { 4 * GIB, 2 * MIB, 4 * MIB, 2 * MIB }, true },
	{ { 0, 0, 0, 4096 }, false },
	{ { 0, 100, 0, 4096 }, false },
	{ { 1, 4096, 0, 4096 }, false },
	{ { 0, 4096, 1, 4096 }, false },
	{ { 0, 4096, 0, 2 * MIB }, false },
	{ { 0, 4096, 0, 0 }, false },
	{ { 0, 4096, 0, 5000 }, false },
	{ { 0, 4096, 0, 512 }, false },
	{ { UINT64_MAX - 4095, 4096, 0, 4096 }, false },
	{ { 0, UINT64_MAX - 4095, 4096, 4096 }, false },
	{ { 0, 4096, (uint64_t)INT64_MAX - 4095, 4096 }, false },
};

START_TEST(regions_that_make_no_sense_are_refused)
{
	struct memory_entry out[2];
	unsigned int count = 2;
	uint8_t buf[MEMORY_ENTRY_SIZE];

	memory_entry_encode(&entries[_i].entry, buf);
	ck_assert_int_eq(memory_entries_decode(out, &count, buf, sizeof(buf), NULL),
			 entries[_i].good ? 0 : -EBADMSG);
	if (!entries[_i].good)
		return;
	ck_assert_uint_eq(count, 1);
	ck_assert_uint_eq(out[0].gpa, entries[_i].entry.gpa);
	ck_assert_uint_eq(out[0].size, entries[_i].entry.size);
	ck_assert_uint_eq(out[0].offset, entries[_i].entry.offset);
	ck_assert_uint_eq(out[0].page_size, entries[_i].entry.page_size);
}
END_TEST

START_TEST(region_table_of_odd_length_or_with_too_many_is_refused)
{
	struct memory_entry out[2];
	uint8_t buf[4 * MEMORY_ENTRY_SIZE];
	static const size_t lengths[] = { 0, 1, 31, 33, 96, 128 };

	for (int i = 0; i < 4; i++)
		memory_entry_encode(&entries[0].entry, buf + i * MEMORY_ENTRY_SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		unsigned int count = 2;

		ck_assert_int_eq(memory_entries_decode(out, &count, buf, lengths[i], NULL),
				 -EBADMSG);
	}
}
END_TEST

static const struct {
	uint64_t gpa, len, length;
	bool good;
} runs[] = {
	{ 0, 4096, 4096, true },
	{ 0x1000, 8192, 8192, true },
	{ 0x1000 | PAGE_RUN_ZERO, 1ULL << 40, 0, true },
	{ 0, 4096, 0, false },
	{ 0, 4096, 8192, false },
	{ 0x1000 | PAGE_RUN_ZERO, 4096, 4096, false },
	{ 2, 4096, 4096, false },
	{ 0x800, 4096, 4096, false },
	{ 0, 0, 0, false },
	{ 0, 100, 100, false },
	{ 0, FRAME_PAGES_MAX + 4096, FRAME_PAGES_MAX + 4096, false },
	{ UINT64_MAX - 4095, 4096, 4096, false },
	{ (UINT64_MAX - 4095) | PAGE_RUN_ZERO, 8192, 0, false },
};

START_TEST(page_runs_that_make_no_sense_are_refused)
{
	static struct page_run out[PAGE_RUNS_MAX];
	uint8_t buf[PAGE_RUN_SIZE];
	unsigned int count;

	store_le64(buf, runs[_i].gpa);
	store_le64(buf + 8, runs[_i].len);
	ck_assert_int_eq(page_runs_decode(out, &count, buf, sizeof(buf), runs[_i].length, NULL),
			 runs[_i].good ? 0 : -EBADMSG);
	if (!runs[_i].good)
		return;
	ck_assert_uint_eq(out[0].gpa, runs[_i].gpa & ~4095ULL);
	ck_assert_uint_eq(out[0].len, runs[_i].len);
	ck_assert_int_eq(out[0].zero, runs[_i].gpa & 1);
}
END_TEST

START_TEST(too_many_page_runs_are_refused)
{
	static struct page_run out[PAGE_RUNS_MAX];
	static uint8_t buf[(PAGE_RUNS_MAX + 1) * PAGE_RUN_SIZE];
	unsigned int count;

	for (unsigned int i = 0; i <= PAGE_RUNS_MAX; i++)
		page_run_encode(&(struct page_run){ .gpa = i * 8192ULL, .len = 4096, .zero = true },
				buf + i * PAGE_RUN_SIZE);
	ck_assert_int_eq(page_runs_decode(out, &count, buf, sizeof(buf), 0, NULL), -EBADMSG);
	ck_assert_int_eq(page_runs_decode(out, &count, buf, sizeof(buf) - 1, 0, NULL), -EBADMSG);
	ck_assert_int_eq(page_runs_decode(out, &count, buf, sizeof(buf) - PAGE_RUN_SIZE, 0, NULL),
			 0);
	ck_assert_uint_eq(count, PAGE_RUNS_MAX);
}
END_TEST

START_TEST(reason_of_the_peer_is_told_printable_and_bounded)
{
	uint8_t buf[FAILED_SIZE_MAX + 100];
	struct error error = ERROR_INIT, out = ERROR_INIT;
	size_t len;

	error_set(&error, ENOSPC, "no room\nleft\x1b[31m");
	len = failed_encode(&error, buf);
	ck_assert_int_eq(failed_decode("source", buf, len, &out), -ENOSPC);
	ck_assert_str_eq(out.message, "the source says: no room?left?[31m");
	ck_assert_int_eq(failed_decode("source", buf, 3, &out), -EPROTO);
	ck_assert_int_eq(failed_decode("source", buf, 4, &out), -ENOSPC);
	memset(buf, 'x', sizeof(buf));
	ck_assert_int_eq(failed_decode("source", buf, sizeof(buf), &out), -EPROTO);
	ck_assert_uint_eq(strlen(out.message), ERROR_MESSAGE_MAX - 1);
	store_le32(buf, 0);
	ck_assert_int_eq(failed_decode("source", buf, 10, &out), -EPROTO);
	error = (struct error){ .code = 0 };
	ck_assert_uint_eq(failed_encode(&error, buf), 4);
	ck_assert_int_eq(failed_decode("source", buf, 4, &out), -EIO);
}
END_TEST

START_TEST(names_of_a_device_come_back_or_are_refused)
{
	struct device_head head = { .id = "nic0", .kind = "feature" }, out;
	uint8_t buf[DEVICE_HEAD_SIZE_MAX + 8] = { 0 };
	size_t len;

	memset(head.session, 7, SESSION_SIZE);
	len = device_head_encode(&head, buf);
	ck_assert_int_eq(device_head_decode(&out, buf, len, NULL), 0);
	ck_assert_str_eq(out.id, "nic0");
	ck_assert_str_eq(out.kind, "feature");
	ck_assert_int_eq(memcmp(out.session, head.session, SESSION_SIZE), 0);
	for (size_t n = 0; n < len; n++)
		ck_assert_int_eq(device_head_decode(&out, buf, n, NULL), -EBADMSG);
	buf[DEVICE_HEAD_SIZE + 2] = '\n';
	ck_assert_int_eq(device_head_decode(&out, buf, len, NULL), -EBADMSG);
	store_le16(buf + SESSION_SIZE, 0);
	ck_assert_int_eq(device_head_decode(&out, buf, len, NULL), -EBADMSG);
	store_le16(buf + SESSION_SIZE, DEVICE_ID_MAX + 1);
	ck_assert_int_eq(device_head_decode(&out, buf, sizeof(buf), NULL), -EBADMSG);
	store_le16(buf + SESSION_SIZE, 4);
	store_le16(buf + SESSION_SIZE + 2, DEVICE_KIND_MAX + 1);
	ck_assert_int_eq(device_head_decode(&out, buf, sizeof(buf), NULL), -EBADMSG);
}
END_TEST

static Suite *protocol_suite(void)
{
	Suite *suite = suite_create("protocol");
	TCase *tcase = tcase_create("protocol");

	tcase_add_test(tcase, crc32c_is_the_one_of_rfc_3720);
	tcase_add_test(tcase, crc32c_by_table_and_in_pieces_is_the_same);
	tcase_add_test(tcase, header_comes_back_as_it_went);
	tcase_add_loop_test(tcase, header_with_any_bit_flipped_is_refused, 0,
			    FRAME_HEADER_SIZE * 8);
	tcase_add_loop_test(tcase, header_is_held_to_the_limits_of_its_type, 0, ARRAY_SIZE(limits));
	tcase_add_test(tcase, types_have_names);
	tcase_add_test(tcase, bodies_come_back_as_they_went_and_short_ones_are_refused);
	tcase_add_loop_test(tcase, regions_that_make_no_sense_are_refused, 0, ARRAY_SIZE(entries));
	tcase_add_test(tcase, region_table_of_odd_length_or_with_too_many_is_refused);
	tcase_add_loop_test(tcase, page_runs_that_make_no_sense_are_refused, 0, ARRAY_SIZE(runs));
	tcase_add_test(tcase, too_many_page_runs_are_refused);
	tcase_add_test(tcase, names_of_a_device_come_back_or_are_refused);
	tcase_add_test(tcase, reason_of_the_peer_is_told_printable_and_bounded);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(protocol_suite());
}
