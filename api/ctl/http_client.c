/* SPDX-License-Identifier: Apache-2.0 */
#include "api/ctl/http_client.h"

#include <errno.h>
#include <http_parser.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define SEND_TIMEOUT 30 /* s: a request that nobody reads */
#define HEAD_MAX (64 * 1024)

struct reading {
	struct http_reply *reply;
	size_t head;
	bool in_body, complete, too_large;
};

static int on_headers_complete(http_parser *parser)
{
	struct reading *reading = parser->data;

	reading->in_body = true;
	return 0;
}

static int on_body(http_parser *parser, const char *data, size_t len)
{
	struct reading *reading = parser->data;

	strbuf_append(&reading->reply->body, data, len);
	if (!reading->reply->body.failed)
		return 0;
	reading->too_large = true;
	return -1;
}

static int on_message_complete(http_parser *parser)
{
	struct reading *reading = parser->data;

	/* "100 Continue" and its like only announce the reply. */
	if (parser->status_code < 200) {
		reading->in_body = false;
		return 0;
	}
	reading->reply->status = (int)parser->status_code;
	reading->complete = true;
	http_parser_pause(parser, 1);
	return 0;
}

static int connect_hint(const char *path, int code, struct error *err)
{
	switch (code) {
	case ENOENT:
		return error_set(err, code,
				 "%s: no such socket: is ferry running with "
				 "--api-socket %s?",
				 path, path);
	case ECONNREFUSED:
		return error_set(err, code,
				 "%s: nobody listens: the ferry that made this socket has "
				 "ended",
				 path);
	case EACCES:
	case EPERM:
		return error_set(err, code,
				 "%s: permission denied: run ferryctl as the user that "
				 "runs ferry",
				 path);
	case EAGAIN:
		return error_set(err, code,
				 "%s: ferry has more connections waiting than it takes: "
				 "try again",
				 path);
	case EPROTOTYPE:
	case ENOTSOCK: return error_set(err, code, "%s: is not the socket of an API", path);
	default: return error_set_errno(err, code, "connect to %s", path);
	}
}

static int connect_to(const char *path, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval send_timeout = { .tv_sec = SEND_TIMEOUT };
	_cleanup_close_ int fd = -1;
	int r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, ENAMETOOLONG,
				 "%s: longer than the %zu bytes a unix socket's "
				 "path can have",
				 path, sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	/* A unix socket connects at once or has no room: it is not waited for. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set_errno(err, errno, "make a socket");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return connect_hint(path, errno, err);
	r = fd_set_nonblocking(fd, false);
	if (r)
		return error_set_errno(err, r, "connect to %s", path);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &send_timeout, sizeof(send_timeout));
	return take_fd(&fd);
}

/* The descriptors go with the first byte; a peer that does not read is not waited
 * for for ever. */
static int send_all(int fd, const struct strbuf *text, const int *fds, unsigned int fd_count)
{
	size_t done = 1;
	int r = fd_send(fd, text->data, 1, fds, fd_count);

	while (!r && done < text->len) {
		ssize_t n = send(fd, text->data + done, text->len - done, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = -errno;
		else
			done += (size_t)n;
	}
	return r;
}

static int send_request(int fd, const char *path, const struct http_request *request,
			struct error *err)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT;
	int r;

	strbuf_printf(&text,
		      "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
		      "Connection: close\r\n",
		      request->method, request->path);
	if (request->body)
		strbuf_printf(&text, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
			      strlen(request->body));
	strbuf_puts(&text, "\r\n");
	if (request->body)
		strbuf_puts(&text, request->body);
	if (text.failed)
		return error_set_errno(err, ENOMEM, "make the request");
	r = send_all(fd, &text, request->fds, request->fd_count);
	/* Whoever refuses a request may do so before its end: the reply says why. */
	if (!r || r == -EPIPE || r == -ECONNRESET)
		return 0;
	if (r == -EAGAIN)
		return error_set(err, r, "%s: ferry does not read the request", path);
	return error_set_errno(err, r, "send to %s", path);
}

static int parse_failed(const http_parser *parser, const struct reading *reading, const char *path,
			struct error *err)
{
	enum http_errno code = HTTP_PARSER_ERRNO(parser);

	if (reading->too_large)
		return error_set(err, EMSGSIZE, "%s: the reply is larger than %d MiB", path,
				 HTTP_REPLY_MAX >> 20);
	if (code == HPE_INVALID_EOF_STATE)
		return error_set(err, EPROTO, "%s: the reply ends early: did ferry end?", path);
	if (code == HPE_HEADER_OVERFLOW)
		return error_set(err, EPROTO, "%s: the reply's head is too large", path);
	return error_set(err, EPROTO, "%s: the reply is not HTTP (%s)", path,
			 http_errno_description(code));
}

static int receive_failed(int code, const char *path, unsigned int timeout, struct error *err)
{
	if (code == EAGAIN)
		return error_set(err, ETIMEDOUT, "%s: no reply for %u s: ferry hangs", path,
				 timeout);
	return error_set_errno(err, code, "receive from %s", path);
}

static int receive_reply(int fd, const char *path, const struct http_request *request,
			 struct http_reply *reply, struct error *err)
{
	const http_parser_settings settings = {
		.on_headers_complete = on_headers_complete,
		.on_body = on_body,
		.on_message_complete = on_message_complete,
	};
	struct timeval timeout = { .tv_sec = request->timeout };
	struct reading reading = { .reply = reply };
	http_parser parser;
	char buf[16384];

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	http_parser_init(&parser, HTTP_RESPONSE);
	parser.data = &reading;
	while (!reading.complete) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		if (n < 0 && errno == EINTR)
			continue;
		/* Closed while data of ours was unread: an end like any other. */
		if (n < 0 && errno == ECONNRESET)
			n = 0;
		if (n < 0)
			return receive_failed(errno, path, request->timeout, err);
		if (!reading.in_body)
			reading.head += (size_t)n;
		if (!reading.in_body && reading.head > HEAD_MAX + sizeof(buf))
			return error_set(err, EPROTO, "%s: the reply's head is too large", path);
		http_parser_execute(&parser, &settings, buf, (size_t)n);
		if (reading.complete)
			break;
		if (HTTP_PARSER_ERRNO(&parser) != HPE_OK)
			return parse_failed(&parser, &reading, path, err);
		if (parser.upgrade)
			return error_set(err, EPROTO, "%s: the reply leaves HTTP", path);
		if (n == 0)
			return error_set(err, EPROTO, "%s: %s: did ferry end?", path,
					 reading.head ? "the reply ends early" : "no reply");
	}
	return 0;
}

int http_client_send(const char *path, const struct http_request *request, struct error *err)
{
	_cleanup_close_ int fd = connect_to(path, err);
	int r;

	if (fd < 0)
		return fd;
	r = send_request(fd, path, request, err);
	return r ? r : take_fd(&fd);
}

int http_client_receive(int fd, const char *path, const struct http_request *request,
			struct http_reply *reply, struct error *err)
{
	*reply = (struct http_reply){ .body.max = HTTP_REPLY_MAX };
	return receive_reply(fd, path, request, reply, err);
}

int http_client_call(const char *path, const struct http_request *request, struct http_reply *reply,
		     struct error *err)
{
	_cleanup_close_ int fd = -1;

	*reply = (struct http_reply){ .body.max = HTTP_REPLY_MAX };
	fd = http_client_send(path, request, err);
	return fd < 0 ? fd : http_client_receive(fd, path, request, reply, err);
}

void http_reply_free(struct http_reply *reply)
{
	strbuf_free(&reply->body);
}
