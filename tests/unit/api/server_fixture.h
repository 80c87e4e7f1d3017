/* SPDX-License-Identifier: Apache-2.0 */
/* A server over a fake VM in a thread of its own, and a client to talk to it. */
#ifndef TESTS_UNIT_API_SERVER_FIXTURE_H
#define TESTS_UNIT_API_SERVER_FIXTURE_H

#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/server_internal.h"
#include "tests/unit/api/fake_vm.h"

#define ANSWER_MS 10000

struct fixture {
	char dir[32], path[64];
	struct fake_vm vm;
	struct io_thread *thread; /* plays the main thread */
	struct loop *loop;
	struct api_server *server;
	uint64_t timeout;
};

static struct fixture fx;

static inline struct api_server_options fixture_options(void)
{
	return (struct api_server_options){
		.path = fx.path,
		.listen_fd = -1,
		.ops = &fake_vm_ops,
		.vm = &fx.vm,
		.loop = fx.loop,
		.version = "1.2.3",
	};
}

static inline void in_loop_new(void *opaque)
{
	struct api_server_options options = fixture_options();
	struct error err = ERROR_INIT;

	fx.server = api_server_new(&options, &err);
	ck_assert_msg(fx.server != NULL, "%s", err.message);
	if (fx.timeout)
		api_server_set_request_timeout(fx.server, fx.timeout);
}

static inline void in_loop_free(void *opaque)
{
	api_server_free(fx.server);
	fx.server = NULL;
}

static inline void fixture_paths(void)
{
	strcpy(fx.dir, "/tmp/ferry-api-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(fx.dir));
	snprintf(fx.path, sizeof(fx.path), "%s/api.sock", fx.dir);
}

static inline void fixture_start(void)
{
	struct error err = ERROR_INIT;

	fixture_paths();
	fake_vm_init(&fx.vm);
	fx.thread = io_thread_new(NULL, "main", &err);
	ck_assert_msg(fx.thread != NULL, "%s", err.message);
	fx.loop = io_thread_loop(fx.thread);
	loop_call(fx.loop, in_loop_new, NULL);
}

static inline void fixture_stop(void)
{
	loop_call(fx.loop, in_loop_free, NULL);
	io_thread_free(fx.thread);
	unlink(fx.path);
	rmdir(fx.dir);
}

/* --- client ---------------------------------------------------------------------- */

static inline int client_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static inline int client_connect_socket(int fd)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = ANSWER_MS / 1000 };

	strcpy(addr.sun_path, fx.path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
}

static inline int client_connect(void)
{
	return client_connect_socket(client_socket());
}

/* What cannot be sent any more (the server has closed) is no failure here. */
static inline void client_send_fds(int fd, const char *data, size_t len, const int *fds,
				   unsigned int fd_count)
{
	(void)!fd_send(fd, data, len, fds, fd_count);
}

static inline void client_send(int fd, const char *text)
{
	client_send_fds(fd, text, strlen(text), NULL, 0);
}

struct answer {
	int status; /* 0: the connection ended without one */
	bool keep_alive;
	char head[2048], body[65536];
};

static inline struct answer client_receive(int fd)
{
	static struct answer a;
	size_t used = 0, len = 0;
	char *end, *field;

	memset(&a, 0, sizeof(a));
	while (used < sizeof(a.head) - 1 && !strstr(a.head, "\r\n\r\n")) {
		ssize_t n = recv(fd, a.head + used, 1, 0);

		if (n <= 0) {
			ck_assert_msg(n == 0 || errno == ECONNRESET, "no answer: %s",
				      strerror(errno));
			return a;
		}
		used += (size_t)n;
	}
	end = strstr(a.head, "\r\n\r\n");
	ck_assert_ptr_nonnull(end);
	ck_assert_int_eq(strncmp(a.head, "HTTP/1.1 ", 9), 0);
	/* Cloud Hypervisor's client takes the rest of the line for the number. */
	a.status = (int)strtol(a.head + 9, &field, 10);
	ck_assert_msg(!strncmp(field, " \r\n", 3), "reason phrase in: %s", a.head);
	a.keep_alive = strstr(a.head, "Connection: keep-alive\r\n");
	field = strstr(a.head, "Content-Length: ");
	if (field)
		len = strtoul(field + 16, NULL, 10);
	ck_assert_uint_lt(len, sizeof(a.body));
	for (used = 0; used < len;) {
		ssize_t n = recv(fd, a.body + used, len - used, 0);

		ck_assert_int_gt(n, 0);
		used += (size_t)n;
	}
	return a;
}

static inline size_t client_format(char *out, size_t size, const char *method, const char *path,
				   const char *body)
{
	int n = body ? snprintf(
			       out, size,
			       "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
			       method, path, strlen(body), body)
		     : snprintf(out, size, "%s %s HTTP/1.1\r\nHost: localhost\r\n\r\n", method,
				path);

	ck_assert_int_lt(n, (int)size);
	return (size_t)n;
}

static inline struct answer client_request_on(int fd, const char *method, const char *path,
					      const char *body)
{
	char text[8192];

	client_send_fds(fd, text, client_format(text, sizeof(text), method, path, body), NULL, 0);
	return client_receive(fd);
}

static inline struct answer client_request(const char *method, const char *path, const char *body)
{
	int fd = client_connect();
	struct answer a = client_request_on(fd, method, path, body);

	close(fd);
	return a;
}

/* Sends raw bytes on a new connection. */
static inline struct answer client_raw(const char *data, size_t len)
{
	int fd = client_connect();
	struct answer a;

	client_send_fds(fd, data, len, NULL, 0);
	a = client_receive(fd);
	close(fd);
	return a;
}

/* An error's body is an array of one message. Returns it in a static buffer. */
static inline const char *error_message(const struct answer *a)
{
	static char message[1024];
	json_t *json = json_loads(a->body, 0, NULL);
	const char *text = json_string_value(json_array_get(json, 0));

	ck_assert_msg(json_array_size(json) == 1 && text && *text, "no error body: %s", a->body);
	snprintf(message, sizeof(message), "%s", text);
	json_decref(json);
	return message;
}

static inline void expect_error(struct answer a, int status, const char *part)
{
	ck_assert_msg(a.status == status, "status %d, not %d: %s", a.status, status, a.body);
	ck_assert_msg(strstr(error_message(&a), part) != NULL, "\"%s\" lacks \"%s\"", a.body, part);
}

#endif
