/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client. Bytes gather in c->in, requests are taken from it one at a time and
 * only while nothing is left to send, so a client that pipelines without reading
 * holds itself up and nobody else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/json_fields.h"
#include "api/server_internal.h"
#include "base/clock.h"

#define RECEIVE_BYTES (16 * KIB)
#define LINGER_BYTES (4 * HTTP_BODY_MAX)

static void close_fds(struct api_connection *c)
{
	for (unsigned int i = 0; i < c->fd_count; i++)
		if (c->fds[i] >= 0)
			close(c->fds[i]);
	c->fd_count = 0;
}

static void send_reply(struct api_connection *c, struct api_reply *reply, bool keep_alive)
{
	struct http_response response = { .status = reply->status, .allow = reply->allow };
	char *json = NULL;

	if (reply->json) {
		json = json_dumps(reply->json, JSON_COMPACT);
		response.type = "application/json";
		response.body = json;
		response.len = json ? strlen(json) : 0;
	} else if (reply->text.data) {
		response.type = "text/plain; version=0.0.4";
		response.body = reply->text.data;
		response.len = reply->text.len;
	}
	if ((reply->json && !json) || reply->text.failed) {
		response = (struct http_response){ .status = 500 };
		keep_alive = false;
	}
	response.head_only = c->reader.complete && c->reader.parser.method == HTTP_HEAD;
	response.keep_alive = keep_alive && (!c->eof || c->in.len);
	http_response_write(&c->out, &response);
	free(json);
	c->failed |= c->out.failed;
	c->server->responses[response.status / 100 % 6]++;
	c->state = response.keep_alive ? CONNECTION_READING : CONNECTION_CLOSING;
	close_fds(c);
	http_reader_reset(&c->reader);
	c->deadline = 0;
	c->idle_since = clock_ns();
	api_reply_destroy(reply);
}

/* The stream cannot be trusted any further: say why and close. */
static void refuse(struct api_connection *c, int status, const char *problem)
{
	struct api_reply reply = { 0 };

	log_info(c->server->log, "API: %d: %s", status, problem);
	api_reply_problem(&reply, status, problem);
	strbuf_consume(&c->in, c->in.len);
	send_reply(c, &reply, false);
}

static void dispatch(struct api_connection *c)
{
	struct api_request request = {
		.server = c->server,
		.connection = c,
		.method = c->reader.parser.method,
		.body = c->reader.body.data ? c->reader.body.data : "",
		.body_len = c->reader.body.len,
		.fds = c->fds,
		.fd_count = c->fd_count,
	};
	struct api_reply reply = { 0 };

	if (!http_reader_path(&c->reader, &request.path, &request.path_len)) {
		refuse(c, 400, "malformed HTTP: the request's target is no path or URL");
		return;
	}
	/* Which request they came with cannot be told. */
	if (c->fd_count && c->in.len) {
		refuse(c, 400,
		       "descriptors came with pipelined requests: send them with one request "
		       "alone");
		return;
	}
	c->deadline = 0;
	c->state = CONNECTION_WORKING;
	if (api_route_request(&request, &reply))
		send_reply(c, &reply, c->reader.keep_alive);
}

/* Up to one request out of c->in. */
static void take_request(struct api_connection *c)
{
	size_t used;
	enum http_event event = http_reader_feed(&c->reader, c->in.data, c->in.len, &used);

	strbuf_consume(&c->in, used);
	if (c->reader.begun && !c->deadline)
		c->deadline = clock_ns() + c->server->request_timeout;
	switch (event) {
	case HTTP_NEED_MORE: break;
	case HTTP_SEND_CONTINUE: http_continue_write(&c->out); break;
	case HTTP_COMPLETE: dispatch(c); break;
	case HTTP_ERROR: refuse(c, c->reader.status, c->reader.problem); break;
	}
}

static void flush(struct api_connection *c)
{
	bool progress = !c->deadline;

	while (c->out.len) {
		ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			c->failed = true;
			return;
		}
		strbuf_consume(&c->out, (size_t)n);
		progress = true;
	}
	if (c->out.len && progress)
		c->deadline = clock_ns() + c->server->request_timeout;
	if (!c->out.len && c->state == CONNECTION_CLOSING) {
		/* Closing with bytes unread would take the response away from a client
		 * that is still sending. */
		shutdown(c->fd, SHUT_WR);
		c->state = CONNECTION_LINGERING;
		c->deadline = clock_ns() + API_LINGER_NS;
	} else if (!c->out.len && c->state == CONNECTION_READING && !c->reader.begun) {
		c->deadline = 0;
	}
}

static void watch(struct api_connection *c)
{
	uint32_t events = 0;

	if (!c->eof &&
	    (c->state == CONNECTION_LINGERING || (c->state == CONNECTION_READING && !c->out.len)))
		events |= EPOLLIN;
	if (c->out.len)
		events |= EPOLLOUT;
	if (events != c->events)
		loop_modify(c->source, events);
	c->events = events;
}

/* Goes as far as it can now. The connection may be gone afterwards. */
static void advance(struct api_connection *c)
{
	struct api_server *server = c->server;

	if (c->advancing)
		return;
	c->advancing = true;
	do {
		if (c->state == CONNECTION_READING && c->in.len && !c->out.len)
			take_request(c);
		flush(c);
	} while (!c->failed && c->state == CONNECTION_READING && c->in.len && !c->out.len);
	if (!c->failed && c->eof && c->state == CONNECTION_READING && !c->out.len) {
		if (c->reader.begun) {
			refuse(c, 400, "malformed HTTP: the request ended early");
			flush(c);
		} else {
			c->failed = true;
		}
	}
	c->advancing = false;
	if (c->failed || (c->eof && c->state == CONNECTION_LINGERING))
		api_connection_close(c);
	else
		watch(c);
	api_server_schedule(server);
}

static void linger(struct api_connection *c)
{
	char buf[RECEIVE_BYTES];
	unsigned int none = 0;
	ssize_t n = fd_recv(c->fd, buf, sizeof(buf), NULL, &none);

	if (n == -EAGAIN || n == -EMFILE)
		return;
	if (n <= 0 || (c->lingered += (size_t)n) > LINGER_BYTES)
		c->failed = true;
}

static void receive(struct api_connection *c)
{
	unsigned int room = FD_PASS_MAX - c->fd_count;
	char buf[RECEIVE_BYTES];
	ssize_t n = fd_recv(c->fd, buf, sizeof(buf), c->fds + c->fd_count, &room);

	if (n == -EAGAIN)
		return;
	if (n == -EMFILE) {
		refuse(c, 400, "too many descriptors came with the request: at most 64 are taken");
	} else if (n < 0) {
		c->failed = true;
	} else if (n == 0) {
		c->eof = true;
	} else {
		c->fd_count += room;
		strbuf_append(&c->in, buf, (size_t)n);
		c->failed |= c->in.failed;
	}
}

static void on_events(void *opaque, int fd, uint32_t events)
{
	struct api_connection *c = opaque;

	if (events & EPOLLIN && c->events & EPOLLIN) {
		if (c->state == CONNECTION_LINGERING)
			linger(c);
		else
			receive(c);
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		c->failed = true; /* nobody is there to read an answer */
	}
	advance(c);
}

int api_connection_new(struct api_server *server, int fd, struct error *err)
{
	struct api_connection *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return error_set_errno(err, ENOMEM, "serve API client");
	}
	c->server = server;
	c->fd = fd;
	c->events = EPOLLIN;
	c->idle_since = clock_ns();
	http_reader_init(&c->reader);
	c->source = loop_add(server->loop, fd, EPOLLIN, on_events, c, err);
	if (!c->source) {
		close(fd);
		free(c);
		return -EIO;
	}
	c->next = server->connections;
	c->link = &server->connections;
	if (c->next)
		c->next->link = &c->next;
	server->connections = c;
	server->connection_count++;
	return 0;
}

void api_connection_close(struct api_connection *c)
{
	if (c->holder)
		*c->holder = NULL;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->server->connection_count--;
	loop_remove(c->source);
	close_fds(c);
	close(c->fd);
	http_reader_destroy(&c->reader);
	strbuf_free(&c->in);
	strbuf_free(&c->out);
	free(c);
}

void api_connection_answer(struct api_connection *c, struct api_reply *reply)
{
	c->holder = NULL;
	send_reply(c, reply, c->reader.keep_alive);
	advance(c);
}

void api_connection_expire(struct api_connection *c)
{
	if (c->state == CONNECTION_READING && !c->out.len && c->reader.begun)
		refuse(c, 408, "the request did not arrive in time");
	else
		c->failed = true;
	advance(c);
}
