/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that misbehave, sockets that are in the way, and the server's end. */
#include <sys/resource.h>

#include "tests/unit/api/server_fixture.h"
#include "tests/unit/helpers/run_suite.h"

#define TIMEOUT_NS 100000000ULL

static void start_impatient(void)
{
	fx.timeout = TIMEOUT_NS;
	fixture_start();
}

static void server_lives(void)
{
	ck_assert_int_eq(client_request("GET", "/api/v1/vmm.ping", NULL).status, 200);
}

static const struct {
	const char *text;
	int status;
} malformed[] = {
	{ "GARBAGE\r\n\r\n", 400 },
	{ "\x16\x03\x01\x02\x01\x01", 400 },
	{ "GET / HTTP/9.9\r\n\r\n", 505 },
	{ "GET http://a:b/ HTTP/1.1\r\n\r\n", 400 },
	{ "PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: 600000\r\n\r\n", 413 },
	{ "PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400 },
	{ "PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: "
	  "chunked\r\n\r\n{}",
	  400 },
	{ "PUT /api/v1/vm.create HTTP/1.1\r\nExpect: tea\r\n\r\n", 417 },
	{ "CONNECT localhost:80 HTTP/1.1\r\n\r\n", 404 },
	{ "OPTIONS * HTTP/1.1\r\n\r\n", 404 },
};

START_TEST(malformed_http_is_answered_and_costs_its_connection)
{
	struct answer a = client_raw(malformed[_i].text, strlen(malformed[_i].text));

	expect_error(a, malformed[_i].status, "");
	ck_assert(a.status == 404 || !a.keep_alive);
	server_lives();
}
END_TEST

START_TEST(endless_head_is_431)
{
	int fd = client_connect();

	client_send(fd, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < 600; i++)
		client_send(fd, "X-Header: 0123456789\r\n");
	expect_error(client_receive(fd), 431, "8192 bytes");
	close(fd);
	server_lives();
}
END_TEST

/* The client learns why although it had not finished sending. */
START_TEST(oversized_body_is_413_while_the_client_still_sends)
{
	static char filler[100000];
	int fd = client_connect();

	memset(filler, 'x', sizeof(filler) - 1);
	client_send(fd, "PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
	for (int i = 0; i < 10; i++)
		client_send(fd, filler);
	expect_error(client_receive(fd), 413, "524288 bytes");
	close(fd);
	server_lives();
}
END_TEST

START_TEST(request_that_ends_early_is_400)
{
	int fd = client_connect();

	client_send(fd, "PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: 10\r\n\r\n{");
	shutdown(fd, SHUT_WR);
	expect_error(client_receive(fd), 400, "ended early");
	close(fd);
	server_lives();
}
END_TEST

START_TEST(client_that_hangs_half_way_is_408)
{
	int half = client_connect(), idle = client_connect();

	client_send(half, "PUT /api/v1/vm.create HTTP/1.1\r\nContent-Le");
	server_lives();
	expect_error(client_receive(half), 408, "in time");
	ck_assert_int_eq(client_receive(half).status, 0);
	/* Idle is not half-way. */
	ck_assert_int_eq(client_request_on(idle, "GET", "/api/v1/vmm.ping", NULL).status, 200);
	usleep(TIMEOUT_NS / 1000 * 3);
	ck_assert_int_eq(client_request_on(idle, "GET", "/api/v1/vmm.ping", NULL).status, 200);
	close(half);
	close(idle);
}
END_TEST

START_TEST(trickle_of_bytes_does_not_extend_the_time)
{
	int fd = client_connect();
	struct answer a;

	for (int i = 0; i < 30; i++) {
		client_send(fd, i ? "x" : "GET /");
		usleep(TIMEOUT_NS / 1000 / 10);
	}
	a = client_receive(fd);
	expect_error(a, 408, "in time");
	close(fd);
}
END_TEST

/* Thousands of requests whose answers are never read fill the socket: the server
 * stops reading and in the end drops the client. */
START_TEST(client_that_does_not_read_is_dropped)
{
	static const char request[] = "GET /metrics HTTP/1.1\r\n\r\n";
	int fd = client_connect();
	ssize_t n = 0;

	fd_set_nonblocking(fd, true);
	for (int i = 0; i < 20000 && n >= 0; i++)
		n = send(fd, request, strlen(request), MSG_NOSIGNAL);
	ck_assert_int_lt(n, 0);
	server_lives();
	for (int i = 0; i < 100; i++) {
		struct pollfd p = { .fd = fd, .events = 0 };

		if (poll(&p, 1, 100) == 1 && p.revents & (POLLHUP | POLLERR))
			break;
		ck_assert_int_lt(i, 99);
	}
	close(fd);
	server_lives();
}
END_TEST

START_TEST(the_65th_busy_connection_is_503)
{
	int fds[API_CONNECTIONS_MAX], extra;

	for (int i = 0; i < API_CONNECTIONS_MAX; i++) {
		fds[i] = client_connect();
		client_send(fds[i], "GET /api/v1/vmm.ping HTTP/1.1\r\n");
	}
	/* Each has been read, or it would count as idle. */
	usleep(200000);
	extra = client_connect();
	expect_error(client_receive(extra), 503, "64 connections");
	close(extra);
	for (int i = 0; i < API_CONNECTIONS_MAX; i++) {
		client_send(fds[i], "\r\n");
		ck_assert_int_eq(client_receive(fds[i]).status, 200);
	}
	server_lives(); /* an idle one makes room */
	for (int i = 0; i < API_CONNECTIONS_MAX; i++)
		close(fds[i]);
}
END_TEST

START_TEST(idle_connections_make_room_oldest_first)
{
	int fds[API_CONNECTIONS_MAX + 8];

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = client_connect();
		ck_assert_int_eq(client_request_on(fds[i], "GET", "/api/v1/vmm.ping", NULL).status,
				 200);
	}
	ck_assert_int_eq(client_receive(fds[0]).status, 0);
	ck_assert_int_eq(client_request_on(fds[8], "GET", "/api/v1/vmm.ping", NULL).status, 200);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}
END_TEST

START_TEST(server_out_of_descriptors_recovers)
{
	struct rlimit limit, old;
	int fd = client_connect(), top;

	getrlimit(RLIMIT_NOFILE, &old);
	limit = old;
	ck_assert_int_eq(client_request_on(fd, "GET", "/api/v1/vmm.ping", NULL).status, 200);
	/* The lowest that is free: room for the client's end, and none for the server's. */
	top = client_socket();
	limit.rlim_cur = (rlim_t)top + 1;
	setrlimit(RLIMIT_NOFILE, &limit);
	client_connect_socket(top);
	usleep(300000);
	setrlimit(RLIMIT_NOFILE, &old);
	ck_assert_int_eq(client_request_on(top, "GET", "/api/v1/vmm.ping", NULL).status, 200);
	close(top);
	close(fd);
}
END_TEST

/* --- the socket ------------------------------------------------------------------------ */

static void try_new(const char *path, int fd, int code, const char *expect)
{
	struct api_server_options options = fixture_options();
	struct error err = ERROR_INIT;
	struct api_server *server;
	struct loop *loop = loop_new(NULL);

	options.path = path;
	options.listen_fd = fd;
	options.loop = loop;
	server = api_server_new(&options, &err);
	if (code) {
		ck_assert_ptr_null(server);
		ck_assert_int_eq(err.code, code);
		ck_assert_msg(strstr(err.message, expect) != NULL, "\"%s\" lacks \"%s\"",
			      err.message, expect);
	} else {
		ck_assert_msg(server != NULL, "%s", err.message);
	}
	api_server_free(server);
	loop_free(loop);
}

START_TEST(socket_is_for_its_owner_only)
{
	struct stat st;

	ck_assert_int_eq(stat(fx.path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
}
END_TEST

START_TEST(socket_of_a_live_server_is_left_alone)
{
	try_new(fx.path, -1, -EADDRINUSE, "a live server has it");
	server_lives();
}
END_TEST

START_TEST(socket_of_a_dead_server_is_replaced)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.40s/dead", fx.dir);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	try_new(addr.sun_path, -1, 0, NULL);
	ck_assert_int_lt(access(addr.sun_path, F_OK), 0); /* removed at the end */
}
END_TEST

START_TEST(file_that_is_no_socket_is_left_alone)
{
	char path[64], text[8] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%.40s/file", fx.dir);
	f = fopen(path, "we");
	fputs("mine", f);
	fclose(f);
	try_new(path, -1, -EADDRINUSE, "is no socket");
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), f));
	ck_assert_str_eq(text, "mine");
	fclose(f);
	unlink(path);
}
END_TEST

START_TEST(impossible_sockets_are_refused)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	try_new("", -1, -EINVAL, "must have 1 to 107 bytes");
	try_new("/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/"
		"0123456789"
		"/0123456789/0123456789",
		-1, -EINVAL, "must have 1 to 107 bytes");
	try_new("/nonexistent/x", -1, -ENOENT, "/nonexistent/x");
	try_new(NULL, fd, -EINVAL, "it is not listening");
	ck_assert_int_lt(close(fd), 0); /* taken over, also on failure */
	try_new(NULL, 999, -EBADF, "fd 999");
}
END_TEST

START_TEST(listening_socket_can_be_handed_in)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.40s/given", fx.dir);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	try_new(NULL, fd, 0, NULL);
	ck_assert_int_eq(access(addr.sun_path, F_OK), 0); /* its file is not ours */
	unlink(addr.sun_path);
}
END_TEST

/* --- the end ----------------------------------------------------------------------------- */

START_TEST(client_of_shutdown_gets_its_answer_before_the_end)
{
	struct error err = ERROR_INIT;
	char text[256];
	int fd;

	fixture_paths();
	fake_vm_init(&fx.vm);
	fx.loop = loop_new(&err);
	fx.vm.stop_loop = fx.loop;
	in_loop_new(NULL);
	fd = client_connect();
	client_send_fds(fd, text,
			client_format(text, sizeof(text), "PUT", "/api/v1/vmm.shutdown", NULL),
			NULL, 0);
	loop_run(fx.loop); /* until the operation stops it */
	in_loop_free(NULL);
	ck_assert_int_eq(client_receive(fd).status, 204);
	ck_assert_int_eq(client_receive(fd).status, 0);
	loop_free(fx.loop);
	ck_assert_int_lt(access(fx.path, F_OK), 0);
	rmdir(fx.dir);
	close(fd);
}
END_TEST

struct outside {
	int ran, result, order;
	atomic_int *counter;
	struct error err;
};

static int outside_work(void *opaque, struct error *err)
{
	struct outside *o = opaque;

	o->ran++;
	return error_set(err, EBUSY, "from outside");
}

static void outside_done(void *opaque, int result, const struct error *err)
{
	struct outside *o = opaque;

	o->result = result;
	o->err = *err;
	o->order = atomic_fetch_add(o->counter, 1);
}

START_TEST(work_from_outside_runs_in_order_and_is_cancelled_at_the_end)
{
	atomic_int counter = 0;
	struct outside first = { .counter = &counter }, second = { .counter = &counter };
	struct error err = ERROR_INIT;
	char text[256];
	int fd;

	fixture_start();
	atomic_store(&fx.vm.gated, true);
	ck_assert_int_eq(api_server_work(fx.server, outside_work, outside_done, &first), 0);
	while (!atomic_load(&counter))
		usleep(1000);
	ck_assert_int_eq(first.result, -EBUSY);
	ck_assert_str_eq(first.err.message, "from outside");
	fd = client_connect();
	client_send_fds(fd, text, client_format(text, sizeof(text), "PUT", "/api/v1/vm.boot", NULL),
			NULL, 0);
	while (!atomic_load(&fx.vm.booting))
		usleep(1000);
	ck_assert_int_eq(api_server_work(fx.server, outside_work, outside_done, &second), 0);
	sem_post(&fx.vm.gate);
	fixture_stop();
	/* It had its turn or was told that it will not have one. */
	ck_assert_int_eq(second.result, second.ran ? -EBUSY : -ECANCELED);
	ck_assert_int_eq(second.order, 1);
	ck_assert_int_eq(client_receive(fd).status, 204);
	close(fd);
	(void)err;
}
END_TEST

static TCase *with(Suite *suite, const char *name, void (*start)(void), void (*stop)(void))
{
	TCase *tc = tcase_create(name);

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, start, stop);
	suite_add_tcase(suite, tc);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("server_abuse");
	TCase *tc = with(suite, "clients", fixture_start, fixture_stop);
	TCase *impatient = with(suite, "time", start_impatient, fixture_stop);
	TCase *socket = with(suite, "socket", fixture_start, fixture_stop);
	TCase *end = with(suite, "end", NULL, NULL);

	signal(SIGPIPE, SIG_IGN);
	tcase_add_loop_test(tc, malformed_http_is_answered_and_costs_its_connection, 0,
			    ARRAY_SIZE(malformed));
	tcase_add_test(tc, endless_head_is_431);
	tcase_add_test(tc, oversized_body_is_413_while_the_client_still_sends);
	tcase_add_test(tc, request_that_ends_early_is_400);
	tcase_add_test(tc, the_65th_busy_connection_is_503);
	tcase_add_test(tc, idle_connections_make_room_oldest_first);
	tcase_add_test(tc, server_out_of_descriptors_recovers);
	tcase_add_test(impatient, client_that_hangs_half_way_is_408);
	tcase_add_test(impatient, trickle_of_bytes_does_not_extend_the_time);
	tcase_add_test(impatient, client_that_does_not_read_is_dropped);
	tcase_add_test(socket, socket_is_for_its_owner_only);
	tcase_add_test(socket, socket_of_a_live_server_is_left_alone);
	tcase_add_test(socket, socket_of_a_dead_server_is_replaced);
	tcase_add_test(socket, file_that_is_no_socket_is_left_alone);
	tcase_add_test(socket, impossible_sockets_are_refused);
	tcase_add_test(socket, listening_socket_can_be_handed_in);
	tcase_add_test(end, client_of_shutdown_gets_its_answer_before_the_end);
	tcase_add_test(end, work_from_outside_runs_in_order_and_is_cancelled_at_the_end);
	return run_suite(suite);
}
