/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "tests/unit/helpers/run_suite.h"

/* Feeds in pieces of `step` bytes until an event other than HTTP_NEED_MORE. */
static enum http_event feed(struct http_reader *r, const char *data, size_t len, size_t step,
			    size_t *taken)
{
	enum http_event event = HTTP_NEED_MORE;
	size_t used;

	*taken = 0;
	while (*taken < len && event == HTTP_NEED_MORE) {
		event = http_reader_feed(r, data + *taken, MIN(step, len - *taken), &used);
		*taken += used;
	}
	return event;
}

static const struct {
	const char *text, *path, *body;
	bool keep_alive;
} good[] = {
	{ "GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n", "/api/v1/vmm.ping", "", true },
	{ "GET /a?b=c#d HTTP/1.1\r\nHost: x\r\n\r\n", "/a", "", true },
	{ "GET http://localhost/api HTTP/1.1\r\n\r\n", "/api", "", true },
	{ "GET / HTTP/1.0\r\n\r\n", "/", "", false },
	{ "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "/", "", true },
	{ "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "/", "", false },
	{ "\r\n\r\nGET / HTTP/1.1\r\n\r\n", "/", "", true },
	{ "PUT /x HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", "/x", "{}", true },
	{ "PUT /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "/x", "", true },
	{ "PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n"
	  "0\r\nTrailer: z\r\n\r\n",
	  "/x", "abc0123456789", true },
	{ "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "/", "", true },
};

START_TEST(request_is_read_whatever_the_pieces)
{
	size_t len = strlen(good[_i].text), taken, path_len;
	struct http_reader r;
	const char *path;

	for (size_t step = 1; step <= len; step++) {
		http_reader_init(&r);
		ck_assert_int_eq(feed(&r, good[_i].text, len, step, &taken), HTTP_COMPLETE);
		ck_assert_uint_eq(taken, len);
		ck_assert(http_reader_path(&r, &path, &path_len));
		ck_assert_uint_eq(path_len, strlen(good[_i].path));
		ck_assert_int_eq(strncmp(path, good[_i].path, path_len), 0);
		ck_assert_str_eq(r.body.data ? r.body.data : "", good[_i].body);
		ck_assert_int_eq(r.keep_alive, good[_i].keep_alive);
		http_reader_destroy(&r);
	}
}
END_TEST

static const struct {
	const char *text;
	int status;
} bad[] = {
	{ "GARBAGE\r\n\r\n", 400 },
	{ "get / HTTP/1.1\r\n\r\n", 400 },
	{ "GET\r\n\r\n", 400 },
	{ "GET / FTP/1.1\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\nNo colon\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\nBad\x01name: x\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\nX: a\x01z\r\n\r\n", 400 },
	{ "GET /\x7f HTTP/1.1\r\n\r\n", 400 },
	{ "GET / HTTP/2.0\r\n\r\n", 505 },
	{ "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400 },
	{ "GET /\r\n\r\n", 505 },
	{ "PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400 },
	{ "PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400 },
	{ "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400 },
	{ "PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400 },
	{ "PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	  400 },
	{ "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400 },
	{ "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400 },
	{ "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400 },
	{ "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", 400 },
	{ "PUT / HTTP/1.1\r\nContent-Length: 524289\r\n\r\n", 413 },
	{ "PUT / HTTP/1.1\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\n", 417 },
	{ "PUT / HTTP/1.1\r\nExpect: 100-continue-or-not\r\nContent-Length: 1\r\n\r\n", 417 },
};

START_TEST(malformed_request_is_an_error_whatever_the_pieces)
{
	size_t len = strlen(bad[_i].text), taken;
	struct http_reader r;

	for (size_t step = 1; step <= len; step++) {
		http_reader_init(&r);
		ck_assert_msg(feed(&r, bad[_i].text, len, step, &taken) == HTTP_ERROR,
			      "no error: %s", bad[_i].text);
		ck_assert_msg(r.status == bad[_i].status, "%d: %s: %s", r.status, bad[_i].text,
			      r.problem);
		ck_assert_str_ne(r.problem, "");
		http_reader_destroy(&r);
	}
}
END_TEST

START_TEST(what_follows_a_request_is_left_alone)
{
	static const char two[] =
		"PUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\nxGET /b HTTP/1.1\r\n\r\n";
	struct http_reader r;
	size_t used;

	http_reader_init(&r);
	ck_assert_int_eq(http_reader_feed(&r, two, strlen(two), &used), HTTP_COMPLETE);
	ck_assert_str_eq(r.body.data, "x");
	ck_assert_int_eq(strncmp(two + used, "GET /b", 6), 0);
	http_reader_reset(&r);
	ck_assert_int_eq(http_reader_feed(&r, two + used, strlen(two) - used, &used),
			 HTTP_COMPLETE);
	ck_assert_str_eq(r.target.data, "/b");
	http_reader_destroy(&r);
}
END_TEST

START_TEST(head_of_more_than_8_kib_is_refused)
{
	struct http_reader r;
	char head[HTTP_HEAD_MAX + 64];
	size_t taken;

	for (int exact = 0; exact < 2; exact++)
		for (size_t step = 1; step < sizeof(head); step = step * 7 + 1) {
			size_t len = HTTP_HEAD_MAX + !exact;

			memset(head, 'a', sizeof(head));
			memcpy(head, "GET /", 5);
			memcpy(head + len - 13, " HTTP/1.1\r\n\r\n", 13);
			http_reader_init(&r);
			ck_assert_int_eq(feed(&r, head, len, step, &taken),
					 exact ? HTTP_COMPLETE : HTTP_ERROR);
			ck_assert_int_eq(r.status, exact ? 0 : 431);
			http_reader_destroy(&r);
		}
}
END_TEST

START_TEST(chunks_beyond_512_kib_are_refused)
{
	static const char head[] = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
	static char chunk[8 + 4096];
	enum http_event event;
	struct http_reader r;
	size_t taken;

	memset(chunk, 'x', sizeof(chunk));
	memcpy(chunk, "1000\r\n", 6);
	memcpy(chunk + 6 + 4096, "\r\n", 2);
	http_reader_init(&r);
	event = feed(&r, head, strlen(head), 99, &taken);
	for (int i = 0; i < 128; i++) {
		ck_assert_int_eq(event, HTTP_NEED_MORE);
		event = feed(&r, chunk, sizeof(chunk), sizeof(chunk), &taken);
	}
	ck_assert_uint_eq(r.body.len, HTTP_BODY_MAX);
	ck_assert_int_eq(feed(&r, chunk, sizeof(chunk), sizeof(chunk), &taken), HTTP_ERROR);
	ck_assert_int_eq(r.status, 413);
	http_reader_destroy(&r);
}
END_TEST

START_TEST(framing_without_end_is_refused)
{
	static const char head[] = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;";
	static char filler[65536];
	enum http_event event;
	struct http_reader r;
	size_t taken, all = 0;

	memset(filler, 'x', sizeof(filler));
	http_reader_init(&r);
	event = feed(&r, head, strlen(head), 99, &taken);
	while (event == HTTP_NEED_MORE && all < 4 * HTTP_WIRE_MAX) {
		event = feed(&r, filler, sizeof(filler), sizeof(filler), &taken);
		all += taken;
	}
	ck_assert_int_eq(event, HTTP_ERROR);
	http_reader_destroy(&r);
}
END_TEST

START_TEST(continue_is_asked_for_once_and_not_when_the_body_is_there)
{
	static const char head[] =
		"PUT / HTTP/1.1\r\nEXPECT: 100-Continue\r\nContent-Length: 2\r\n\r\n";
	struct http_reader r;
	size_t used;

	http_reader_init(&r);
	ck_assert_int_eq(http_reader_feed(&r, head, strlen(head), &used), HTTP_SEND_CONTINUE);
	ck_assert_int_eq(http_reader_feed(&r, "{", 1, &used), HTTP_NEED_MORE);
	ck_assert_int_eq(http_reader_feed(&r, "}", 1, &used), HTTP_COMPLETE);
	http_reader_reset(&r);
	ck_assert_int_eq(http_reader_feed(&r,
					  "PUT / HTTP/1.1\r\nExpect: 100-continue\r\n"
					  "Content-Length: 2\r\n\r\n{}",
					  65, &used),
			 HTTP_COMPLETE);
	http_reader_destroy(&r);
}
END_TEST

START_TEST(target_that_is_no_path_is_refused)
{
	struct http_reader r;
	const char *path;
	size_t used, len;

	http_reader_init(&r);
	ck_assert_int_eq(http_reader_feed(&r, "GET http://a:b/ HTTP/1.1\r\n\r\n", 29, &used),
			 HTTP_COMPLETE);
	ck_assert(!http_reader_path(&r, &path, &len));
	http_reader_destroy(&r);
}
END_TEST

START_TEST(response_without_body_says_so)
{
	_cleanup_strbuf_ struct strbuf out = STRBUF_INIT;
	struct http_response response = { .status = 204, .keep_alive = true };

	http_response_write(&out, &response);
	ck_assert_str_eq(out.data,
			 "HTTP/1.1 204 \r\nServer: Ferry API\r\nConnection: keep-alive\r\n\r\n");
	strbuf_consume(&out, out.len);
	response = (struct http_response){
		.status = 405,
		.type = "application/json",
		.body = "[]",
		.len = 2,
		.allow = "PUT",
	};
	http_response_write(&out, &response);
	ck_assert_str_eq(out.data, "HTTP/1.1 405 \r\nServer: Ferry API\r\nConnection: close\r\n"
				   "Allow: PUT\r\nContent-Type: application/json\r\n"
				   "Content-Length: 2\r\n\r\n[]");
	strbuf_consume(&out, out.len);
	response = (struct http_response){
		.status = 405,
		.type = "application/json",
		.body = "[]",
		.len = 2,
		.head_only = true,
	};
	http_response_write(&out, &response);
	ck_assert_str_eq(out.data, "HTTP/1.1 405 \r\nServer: Ferry API\r\nConnection: close\r\n"
				   "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("http");
	TCase *tc = tcase_create("http");

	tcase_add_loop_test(tc, request_is_read_whatever_the_pieces, 0, ARRAY_SIZE(good));
	tcase_add_loop_test(tc, malformed_request_is_an_error_whatever_the_pieces, 0,
			    ARRAY_SIZE(bad));
	tcase_add_test(tc, what_follows_a_request_is_left_alone);
	tcase_add_test(tc, head_of_more_than_8_kib_is_refused);
	tcase_add_test(tc, chunks_beyond_512_kib_are_refused);
	tcase_add_test(tc, framing_without_end_is_refused);
	tcase_add_test(tc, continue_is_asked_for_once_and_not_when_the_body_is_there);
	tcase_add_test(tc, target_that_is_no_path_is_refused);
	tcase_add_test(tc, response_without_body_says_so);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
