/* SPDX-License-Identifier: Apache-2.0 */
/* What a live update is asked to do, on the command line and in JSON; the API's listener
 * that goes on elsewhere. */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "api/live_update_config.h"
#include "base/fd.h"
#include "tests/unit/api/options_words.h"
#include "tests/unit/api/server_fixture.h"
#include "tests/unit/helpers/run_suite.h"

START_TEST(adopting_takes_a_path_or_a_descriptor)
{
	struct ferry_options o = good("--adopt|/run/new.sock|--log-file|/l|-v");
	char words[64];
	int fd;

	ck_assert(o.adopt_given && !o.vm_given && !o.adopt.confined);
	ck_assert_str_eq(o.adopt.path, "/run/new.sock");
	ck_assert_int_eq(o.adopt.fd, -1);
	ferry_options_destroy(&o);
	fd = fcntl(STDERR_FILENO, F_DUPFD, 40);
	snprintf(words, sizeof(words), "--adopt|fd=%d,confined=on", fd);
	o = good(words);
	ck_assert_int_eq(o.adopt.fd, fd);
	ck_assert(o.adopt.confined && !o.adopt.path);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	ferry_options_destroy(&o);
	close(fd);
	bad("--adopt|fd=900", "--adopt: fd=900", "no such descriptor");
	bad("--adopt|confined=on", "--adopt: must be one of");
	bad("--adopt|path=/s,fd=4", "--adopt: must be one of");
	bad("--adopt|/s|--kernel|/k", "--kernel: with --adopt the VM comes as it is");
	bad("--adopt|/s|--disk|path=/d", "--disk: with --adopt");
	bad("--adopt|/s|--restore|file:///r", "a VM comes from one place");
}
END_TEST

START_TEST(what_may_be_started_is_said_at_the_start)
{
	struct ferry_options o = good("--kernel|/k|--live-update|binary=/usr/bin/ferry");

	ck_assert_str_eq(o.live_update.binary, "/usr/bin/ferry");
	ck_assert(!o.live_update.off);
	ferry_options_destroy(&o);
	o = good("--kernel|/k|--live-update|off");
	ck_assert(o.live_update.off);
	ferry_options_destroy(&o);
	bad("--kernel|/k|--live-update|binary=ferry", "must be an absolute path");
	bad("--kernel|/k|--live-update|off,binary=/f", "--live-update: must be off, or binary=");
	bad("--kernel|/k|--live-update|on", "--live-update");
}
END_TEST

static const struct {
	const char *json, *says; /* NULL: it is taken */
} bodies[] = {
	{ "{}", NULL },
	{ "{\"binary\":\"/f\",\"args\":[\"-v\",\"--seccomp\",\"log\"]}", NULL },
	{ "{\"socket\":\"/s\"}", NULL },
	{ "{\"binary\":null,\"args\":null,\"socket\":null}", NULL },
	{ "[]", "" },
	{ "{\"binary\":\"f\"}", "binary: must be an absolute path" },
	{ "{\"binary\":\"\"}", "binary" },
	{ "{\"socket\":\"s\"}", "socket: must be an absolute path" },
	{ "{\"socket\":\"/s\",\"binary\":\"/f\"}", "either it, or binary" },
	{ "{\"socket\":\"/s\",\"args\":[\"-v\"]}", "either it, or binary" },
	{ "{\"args\":[1]}", "args[0]" },
	{ "{\"args\":\"-v\"}", "args" },
	{ "{\"program\":\"/f\"}", "program" },
};

START_TEST(bodies_are_read_strictly)
{
	json_t *json = json_loads(bodies[_i].json, 0, NULL), *again;
	struct live_update_config config;
	struct error err = ERROR_INIT;
	int r = live_update_config_from_json(&config, json, &err);

	ck_assert_msg(!r == !bodies[_i].says, "%s: %s", bodies[_i].json, err.message);
	if (r) {
		ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
		ck_assert_msg(strstr(err.message, bodies[_i].says) != NULL, "%s", err.message);
	} else {
		struct live_update_config back;

		again = live_update_config_to_json(&config);
		ck_assert_int_eq(live_update_config_from_json(&back, again, &err), 0);
		ck_assert_uint_eq(back.arg_count, config.arg_count);
		live_update_config_destroy(&back);
		json_decref(again);
		live_update_config_destroy(&config);
	}
	json_decref(json);
}
END_TEST

START_TEST(more_than_64_arguments_are_refused)
{
	json_t *json = json_object(), *args = json_array();
	struct live_update_config config;
	struct error err = ERROR_INIT;

	for (int i = 0; i < 65; i++)
		json_array_append_new(args, json_string("-v"));
	json_object_set_new(json, "args", args);
	ck_assert_int_ne(live_update_config_from_json(&config, json, &err), 0);
	json_decref(json);
}
END_TEST

START_TEST(the_answer_has_the_pause)
{
	struct answer a;

	fixture_start();
	a = client_request("PUT", "/api/v1/vm.live-update", "{\"binary\":\"/new\"}");
	ck_assert_int_eq(a.status, 200);
	ck_assert_str_eq(fx.vm.last, "/new");
	ck_assert_ptr_nonnull(strstr(a.body, "\"pid\":77") ?: strstr(a.body, "\"pid\": 77"));
	ck_assert_ptr_nonnull(strstr(a.body, "2345"));
	fixture_stop();
}
END_TEST

static int connect_client(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	if (!connect(fd, (struct sockaddr *)&un, sizeof(un)))
		return fd;
	close(fd);
	return -1;
}

static bool answers(int fd)
{
	static const char request[] = "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: x\r\n\r\n";
	struct pollfd p = { .fd = fd, .events = POLLIN };

	ck_assert_int_eq(send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL), sizeof(request) - 1);
	return poll(&p, 1, 300) > 0;
}

static void in_loop_take(void *opaque)
{
	struct api_server_options options = fixture_options();
	struct error err = ERROR_INIT;

	options.path = NULL;
	fx.server = api_server_new(&options, &err);
	ck_assert_ptr_nonnull(fx.server);
	ck_assert_msg(!api_server_take(fx.server, opaque, &err), "%s", err.message);
	api_server_hold(fx.server, false);
}

START_TEST(clients_wait_while_the_listener_is_held)
{
	struct error err = ERROR_INIT;
	struct kept kept = { .count = 0 };
	struct stat st;
	int client;

	fixture_start();
	api_server_hold(fx.server, true);
	client = connect_client(fx.path);
	ck_assert_int_ge(client, 0);
	ck_assert(!answers(client));
	ck_assert_int_eq(api_server_keep(fx.server, &kept, &err), 0);
	ck_assert(kept_has(&kept, "@api"));
	api_server_hold(fx.server, false);
	ck_assert(poll(&(struct pollfd){ .fd = client, .events = POLLIN }, 1, 5000) > 0);
	close(client);
	/* What is another's now stays. */
	api_server_forget(fx.server);
	loop_call(fx.loop, in_loop_free, NULL);
	ck_assert_int_eq(lstat(fx.path, &st), 0);
	client = connect_client(fx.path);
	ck_assert_int_ge(client, 0);
	close(client);
	/* And goes on in another server, which removes it at its end. */
	loop_call(fx.loop, in_loop_take, &kept);
	ck_assert_int_eq(client_request("GET", "/api/v1/vmm.ping", NULL).status, 200);
	kept_destroy(&kept);
	loop_call(fx.loop, in_loop_free, NULL);
	ck_assert_int_ne(lstat(fx.path, &st), 0);
	io_thread_free(fx.thread);
	rmdir(fx.dir);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("live_update");
	TCase *c = tcase_create("live_update");

	tcase_add_test(c, adopting_takes_a_path_or_a_descriptor);
	tcase_add_test(c, what_may_be_started_is_said_at_the_start);
	tcase_add_loop_test(c, bodies_are_read_strictly, 0, ARRAY_SIZE(bodies));
	tcase_add_test(c, more_than_64_arguments_are_refused);
	tcase_add_test(c, the_answer_has_the_pause);
	tcase_add_test(c, clients_wait_while_the_listener_is_held);
	suite_add_tcase(s, c);
	return run_suite(s);
}
