/* SPDX-License-Identifier: Apache-2.0 */
#include "api/http.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static int fail(struct http_reader *r, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The first problem counts. Returns what makes http_parser stop. */
static int fail(struct http_reader *r, int status, const char *format, ...)
{
	va_list args;

	if (r->status)
		return -1;
	r->status = status;
	va_start(args, format);
	vsnprintf(r->problem, sizeof(r->problem), format, args);
	va_end(args);
	return -1;
}

static int on_url(http_parser *parser, const char *at, size_t len)
{
	struct http_reader *r = parser->data;

	strbuf_append(&r->target, at, len);
	return r->target.failed ? fail(r, 500, "out of memory") : 0;
}

/* A header is complete where the next one, or the body, begins. */
static int end_header(struct http_reader *r)
{
	bool expect = r->name_len == strlen("expect") && !strncasecmp(r->name, "expect", 6);
	bool hundred = r->value_len == strlen("100-continue") &&
		       !strncasecmp(r->value, "100-continue", 12);

	if (r->in_value && expect) {
		if (!hundred)
			return fail(r, 417, "the only expectation known is 100-continue");
		r->expects = true;
	}
	r->name_len = r->value_len = 0;
	r->in_value = false;
	return 0;
}

/* Keeps what fits and counts the rest, so that a longer word never compares equal. */
static void collect(char *buf, size_t size, size_t *used, const char *at, size_t len)
{
	if (*used < size)
		memcpy(buf + *used, at, MIN(len, size - *used));
	*used += len;
}

static int on_header_field(http_parser *parser, const char *at, size_t len)
{
	struct http_reader *r = parser->data;

	if (r->in_value && end_header(r))
		return -1;
	collect(r->name, sizeof(r->name), &r->name_len, at, len);
	return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t len)
{
	struct http_reader *r = parser->data;

	r->in_value = true;
	collect(r->value, sizeof(r->value), &r->value_len, at, len);
	return 0;
}

static int on_headers_complete(http_parser *parser)
{
	struct http_reader *r = parser->data;

	if (end_header(r))
		return -1;
	if (parser->http_major != 1)
		return fail(r, 505, "the HTTP version must be 1.0 or 1.1");
	if (parser->content_length != ULLONG_MAX && parser->content_length > HTTP_BODY_MAX)
		return fail(r, 413, "a body may have %llu bytes, this one has %llu", HTTP_BODY_MAX,
			    (unsigned long long)parser->content_length);
	r->head_done = true;
	r->want_continue = r->expects && parser->http_minor >= 1;
	/* No protocol to upgrade to: an ordinary request. */
	parser->upgrade = 0;
	return 0;
}

static int on_body(http_parser *parser, const char *at, size_t len)
{
	struct http_reader *r = parser->data;

	if (r->body.len + len > HTTP_BODY_MAX)
		return fail(r, 413, "a body may have %llu bytes, this one has more", HTTP_BODY_MAX);
	r->want_continue = false;
	strbuf_append(&r->body, at, len);
	return r->body.failed ? fail(r, 500, "out of memory") : 0;
}

static int on_message_complete(http_parser *parser)
{
	struct http_reader *r = parser->data;

	r->complete = true;
	r->keep_alive = http_should_keep_alive(parser);
	http_parser_pause(parser, 1); /* what follows is the next request */
	return 0;
}

static const http_parser_settings settings = {
	.on_url = on_url,
	.on_header_field = on_header_field,
	.on_header_value = on_header_value,
	.on_headers_complete = on_headers_complete,
	.on_body = on_body,
	.on_message_complete = on_message_complete,
};

void http_reader_init(struct http_reader *reader)
{
	*reader = (struct http_reader){ .begun = false };
	http_parser_init(&reader->parser, HTTP_REQUEST);
	reader->parser.data = reader;
}

void http_reader_destroy(struct http_reader *reader)
{
	strbuf_free(&reader->target);
	strbuf_free(&reader->body);
}

void http_reader_reset(struct http_reader *reader)
{
	http_reader_destroy(reader);
	http_reader_init(reader);
}

static enum http_event feed_some(struct http_reader *r, const char *data, size_t len, size_t *used)
{
	size_t n;

	if (!r->head_done) {
		if (r->bytes >= HTTP_HEAD_MAX) {
			fail(r, 431, "request line and headers are longer than %llu bytes",
			     HTTP_HEAD_MAX);
			return HTTP_ERROR;
		}
		len = MIN(len, HTTP_HEAD_MAX - r->bytes);
	} else if (r->bytes > HTTP_WIRE_MAX) {
		fail(r, 413, "the request has too much framing");
		return HTTP_ERROR;
	}
	n = http_parser_execute(&r->parser, &settings, data, len);
	r->bytes += n;
	*used += n;
	if (r->complete && !r->status)
		return HTTP_COMPLETE;
	if (HTTP_PARSER_ERRNO(&r->parser) != HPE_OK) {
		fail(r, 400, "malformed HTTP: %s",
		     http_errno_description(HTTP_PARSER_ERRNO(&r->parser)));
		return HTTP_ERROR;
	}
	return HTTP_NEED_MORE;
}

enum http_event http_reader_feed(struct http_reader *reader, const char *data, size_t len,
				 size_t *used)
{
	enum http_event event = HTTP_NEED_MORE;

	*used = 0;
	reader->begun |= len > 0;
	while (*used < len && event == HTTP_NEED_MORE)
		event = feed_some(reader, data + *used, len - *used, used);
	if (event == HTTP_NEED_MORE && reader->want_continue) {
		reader->want_continue = false;
		return HTTP_SEND_CONTINUE;
	}
	return event;
}

bool http_reader_path(const struct http_reader *reader, const char **path, size_t *len)
{
	struct http_parser_url url;

	http_parser_url_init(&url);
	if (!reader->target.data || reader->target.len > UINT16_MAX ||
	    http_parser_parse_url(reader->target.data, reader->target.len,
				  reader->parser.method == HTTP_CONNECT, &url))
		return false;
	*path = reader->target.data;
	*len = 0;
	if (url.field_set & 1 << UF_PATH) {
		*path += url.field_data[UF_PATH].off;
		*len = url.field_data[UF_PATH].len;
	}
	return true;
}

/*
 * The reason phrase stays empty, which the grammar allows: Cloud Hypervisor's own
 * server sends none, and its client takes all that follows the version for the
 * number.
 */
void http_response_write(struct strbuf *out, const struct http_response *response)
{
	strbuf_printf(out, "HTTP/1.1 %d \r\nServer: Ferry API\r\nConnection: %s\r\n",
		      response->status, response->keep_alive ? "keep-alive" : "close");
	if (response->allow)
		strbuf_printf(out, "Allow: %s\r\n", response->allow);
	if (response->type)
		strbuf_printf(out, "Content-Type: %s\r\nContent-Length: %zu\r\n", response->type,
			      response->len);
	else if (response->status != 204)
		strbuf_puts(out, "Content-Length: 0\r\n");
	strbuf_puts(out, "\r\n");
	if (response->type && !response->head_only)
		strbuf_append(out, response->body, response->len);
}

void http_continue_write(struct strbuf *out)
{
	strbuf_puts(out, "HTTP/1.1 100 \r\n\r\n");
}
