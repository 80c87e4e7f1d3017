/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 requests out of a byte stream, and responses into one. No sockets in
 * here: bytes in, events out, so that tests and the fuzzer can drive it.
 *
 * A reader takes one request; http_reader_reset() makes it ready for the next.
 * Bounds: HTTP_HEAD_MAX of request line and headers, HTTP_BODY_MAX of body.
 * Private to api/.
 */
#ifndef API_HTTP_H
#define API_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include <http_parser.h>

#include "base/bytes.h"
#include "base/strbuf.h"

#define HTTP_HEAD_MAX (8 * KIB)
#define HTTP_BODY_MAX (512 * KIB)
/* What chunked framing may add to a body before the client is taken for hostile. */
#define HTTP_WIRE_MAX (4 * HTTP_BODY_MAX)

enum http_event {
	HTTP_NEED_MORE,
	HTTP_SEND_CONTINUE, /* the client waits for "100 Continue" */
	HTTP_COMPLETE,	    /* the request is there; what follows was not looked at */
	HTTP_ERROR,	    /* status and problem say what; the stream is of no more use */
};

struct http_reader {
	http_parser parser;
	bool begun;	 /* a byte of the request has been seen */
	bool keep_alive; /* of the complete request */
	struct strbuf target, body;
	int status; /* HTTP_ERROR: 400, 413, 417, 431, 505 */
	char problem[128];

	/* The rest is the reader's own. */
	size_t bytes;
	bool head_done, complete, expects, want_continue;
	char name[8], value[16]; /* of the header being read, as far as "Expect" needs */
	size_t name_len, value_len;
	bool in_value;
};

void http_reader_init(struct http_reader *reader);
void http_reader_reset(struct http_reader *reader);
void http_reader_destroy(struct http_reader *reader);

/* Takes up to `len` bytes; *used says how many. */
enum http_event http_reader_feed(struct http_reader *reader, const char *data, size_t len,
				 size_t *used);
/* The path of the request's target, without query, inside target. False: malformed. */
bool http_reader_path(const struct http_reader *reader, const char **path, size_t *len);

struct http_response {
	int status;
	const char *type; /* of the body; NULL: no body */
	const char *body;
	size_t len;
	const char *allow; /* 405: the method there is */
	bool keep_alive;
	bool head_only; /* to HEAD: a length and no body */
};

void http_response_write(struct strbuf *out, const struct http_response *response);
/* The interim response to HTTP_SEND_CONTINUE. */
void http_continue_write(struct strbuf *out);

#endif
