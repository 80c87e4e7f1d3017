/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshot, restore and migration as calls: what is answered while they run. */
#include "tests/unit/api/server_fixture.h"
#include "tests/unit/helpers/run_suite.h"

#define V1 "/api/v1/"

static const struct {
	const char *path, *body, *what, *says;
} moves[] = {
	{ V1 "vm.snapshot", "{\"destination_url\":\"file:///s\"}", "file:///s",
	  "a snapshot is being taken" },
	{ V1 "vm.send-migration", "{\"destination_url\":\"unix:/s\"}", "unix:/s",
	  "the VM is being migrated away" },
	{ V1 "vm.receive-migration", "{\"receiver_url\":\"tcp:0.0.0.0:9\"}", "tcp:0.0.0.0:9",
	  "a VM is being received" },
};

static int begin(size_t move)
{
	int fd = client_connect();
	char text[512];

	atomic_store(&fx.vm.gated, true);
	client_send_fds(
		fd, text,
		client_format(text, sizeof(text), "PUT", moves[move].path, moves[move].body), NULL,
		0);
	while (!atomic_load(&fx.vm.moving))
		usleep(1000);
	return fd;
}

START_TEST(bodies_reach_their_operations)
{
	for (size_t i = 0; i < ARRAY_SIZE(moves); i++) {
		ck_assert_int_eq(client_request("PUT", moves[i].path, moves[i].body).status, 204);
		ck_assert_str_eq(fake_last(&fx.vm), moves[i].what);
	}
	ck_assert_int_eq(
		client_request("PUT", V1 "vm.restore", "{\"source_url\":\"file:///r\"}").status,
		204);
	ck_assert_str_eq(fake_last(&fx.vm), "file:///r");
	ck_assert_int_eq(client_request("PUT", V1 "vm.cancel-migration", NULL).status, 204);
	ck_assert_str_eq(fake_last(&fx.vm), "cancel_migration");
}
END_TEST

START_TEST(api_answers_while_it_runs_and_says_how_far_it_is)
{
	for (size_t i = 0; i < ARRAY_SIZE(moves); i++) {
		int fd = begin(i);
		struct answer a;

		ck_assert_int_eq(client_request("GET", V1 "vmm.ping", NULL).status, 200);
		ck_assert_int_eq(client_request("GET", V1 "vm.info", NULL).status, 200);
		ck_assert_int_eq(client_request("GET", V1 "vm.counters", NULL).status, 200);
		ck_assert_int_eq(client_request("GET", "/metrics", NULL).status, 200);
		a = client_request("GET", V1 "vm.migration", NULL);
		ck_assert_int_eq(a.status, 200);
		ck_assert_ptr_nonnull(strstr(a.body, "\"phase\":\"precopy\""));
		sem_post(&fx.vm.gate);
		ck_assert_int_eq(client_receive(fd).status, 204);
		close(fd);
	}
}
END_TEST

START_TEST(other_operations_are_refused_while_it_runs_with_the_reason)
{
	static const struct {
		const char *path, *body;
	} others[] = {
		{ V1 "vm.pause", NULL },
		{ V1 "vm.resume", NULL },
		{ V1 "vm.boot", NULL },
		{ V1 "vm.delete", NULL },
		{ V1 "vm.shutdown", NULL },
		{ V1 "vm.reboot", NULL },
		{ V1 "vm.create", "{\"payload\":{\"kernel\":\"/k\"}}" },
		{ V1 "vm.add-disk", "{\"path\":\"/d\"}" },
		{ V1 "vm.add-net", "{\"tap\":\"t\"}" },
		{ V1 "vm.remove-device", "{\"id\":\"x\"}" },
		{ V1 "vm.resize", "{\"desired_balloon\":4096}" },
		{ V1 "vm.snapshot", "{\"destination_url\":\"file:///s\"}" },
		{ V1 "vm.restore", "{\"source_url\":\"file:///s\"}" },
		{ V1 "vm.send-migration", "{\"destination_url\":\"unix:/s\"}" },
		{ V1 "vm.receive-migration", "{\"receiver_url\":\"unix:/s\"}" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(moves); i++) {
		int fd = begin(i);

		for (size_t k = 0; k < ARRAY_SIZE(others); k++) {
			struct answer a = client_request("PUT", others[k].path, others[k].body);

			expect_error(a, 405, moves[i].says);
			expect_error(a, 405, "vm.cancel-migration");
		}
		sem_post(&fx.vm.gate);
		ck_assert_int_eq(client_receive(fd).status, 204);
		close(fd);
		atomic_store(&fx.vm.gated, false);
		ck_assert_int_eq(client_request("PUT", V1 "vm.pause", NULL).status, 204);
		ck_assert_int_eq(client_request("PUT", moves[i].path, moves[i].body).status, 204);
	}
}
END_TEST

START_TEST(cancel_ends_what_runs)
{
	for (size_t i = 0; i < ARRAY_SIZE(moves); i++) {
		int fd = begin(i);

		ck_assert_int_eq(client_request("PUT", V1 "vm.cancel-migration", NULL).status, 204);
		expect_error(client_receive(fd), 500, "cancelled");
		close(fd);
	}
}
END_TEST

/* Behind a long operation, and refused what comes behind it all the same. */
START_TEST(cancel_takes_back_what_has_not_begun)
{
	int boot = client_connect(), send = client_connect();
	char text[512];

	atomic_store(&fx.vm.gated, true);
	client_send_fds(boot, text, client_format(text, sizeof(text), "PUT", V1 "vm.boot", NULL),
			NULL, 0);
	while (!atomic_load(&fx.vm.booting))
		usleep(1000);
	client_send_fds(send, text,
			client_format(text, sizeof(text), "PUT", moves[1].path, moves[1].body),
			NULL, 0);
	while (client_request("PUT", V1 "vm.resize", "{}").status != 405)
		usleep(1000);
	ck_assert_int_eq(client_request("PUT", V1 "vm.cancel-migration", NULL).status, 204);
	sem_post(&fx.vm.gate);
	ck_assert_int_eq(client_receive(boot).status, 204);
	expect_error(client_receive(send), 500, "cancelled before it began");
	ck_assert_str_eq(fake_last(&fx.vm), "boot");
	close(boot);
	close(send);
}
END_TEST

START_TEST(shutdown_of_the_process_cancels_what_runs)
{
	int fd = begin(1);

	ck_assert_int_eq(client_request("PUT", V1 "vmm.shutdown", NULL).status, 204);
	expect_error(client_receive(fd), 500, "cancelled");
	close(fd);
}
END_TEST

START_TEST(client_that_leaves_does_not_end_the_migration)
{
	int fd = begin(1);

	close(fd);
	ck_assert_int_eq(client_request("GET", V1 "vm.migration", NULL).status, 200);
	expect_error(client_request("PUT", V1 "vm.pause", NULL), 405, "being migrated");
	sem_post(&fx.vm.gate);
	while (client_request("PUT", V1 "vm.pause", NULL).status != 204)
		usleep(1000);
}
END_TEST

START_TEST(cancel_of_nothing_is_the_vms_to_refuse)
{
	atomic_store(&fx.vm.failure, (int)ERROR_WRONG_STATE);
	expect_error(client_request("PUT", V1 "vm.cancel-migration", NULL), 405, "fake failure");
}
END_TEST

static struct answer with_fds(const char *path, const char *body, unsigned int count)
{
	int fds[8], fd = client_connect();
	char text[1024];
	struct answer a;

	for (unsigned int i = 0; i < count; i++)
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	client_send_fds(fd, text, client_format(text, sizeof(text), "PUT", path, body), fds, count);
	for (unsigned int i = 0; i < count; i++)
		close(fds[i]);
	a = client_receive(fd);
	close(fd);
	return a;
}

START_TEST(descriptors_go_to_the_devices_that_ask_for_them)
{
	static const char restore[] = "{\"source_url\":\"file:///s\",\"net_fds\":["
				      "{\"id\":\"a\",\"num_fds\":2},{\"id\":\"b\",\"fds\":[-1]}]}";
	static const char receive[] = "{\"receiver_url\":\"unix:/s\",\"net_fds\":["
				      "{\"id\":\"a\",\"num_fds\":1}]}";

	ck_assert_int_eq(with_fds(V1 "vm.restore", restore, 3).status, 204);
	ck_assert_int_eq(atomic_load(&fx.vm.fd_count), 3);
	ck_assert_int_eq(with_fds(V1 "vm.receive-migration", receive, 1).status, 204);
	ck_assert_int_eq(atomic_load(&fx.vm.fd_count), 1);
	expect_error(with_fds(V1 "vm.restore", restore, 2), 400, "ask for 3 descriptors, 2 came");
	expect_error(with_fds(V1 "vm.receive-migration", receive, 2), 400,
		     "ask for 1 descriptors, 2 came");
}
END_TEST

static void in_loop_take_ops_away(void *opaque)
{
	fx.server->ops.snapshot = NULL;
	fx.server->ops.restore = NULL;
	fx.server->ops.send_migration = NULL;
	fx.server->ops.receive_migration = NULL;
	fx.server->ops.cancel_migration = NULL;
	fx.server->ops.migration = NULL;
}

START_TEST(operation_that_the_vm_does_not_have_is_not_offered)
{
	loop_call(fx.loop, in_loop_take_ops_away, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(moves); i++)
		expect_error(client_request("PUT", moves[i].path, moves[i].body), 404,
			     "not offered");
	expect_error(client_request("PUT", V1 "vm.restore", "{\"source_url\":\"file:///s\"}"), 404,
		     "not offered");
	expect_error(client_request("GET", V1 "vm.migration", NULL), 404, "not offered");
	expect_error(client_request("PUT", V1 "vm.cancel-migration", NULL), 404, "not offered");
	ck_assert_int_eq(client_request("PUT", V1 "vm.pause", NULL).status, 204);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("server, migration");
	TCase *tc = tcase_create("server, migration");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, fixture_start, fixture_stop);
	tcase_add_test(tc, bodies_reach_their_operations);
	tcase_add_test(tc, api_answers_while_it_runs_and_says_how_far_it_is);
	tcase_add_test(tc, other_operations_are_refused_while_it_runs_with_the_reason);
	tcase_add_test(tc, cancel_ends_what_runs);
	tcase_add_test(tc, cancel_takes_back_what_has_not_begun);
	tcase_add_test(tc, shutdown_of_the_process_cancels_what_runs);
	tcase_add_test(tc, client_that_leaves_does_not_end_the_migration);
	tcase_add_test(tc, cancel_of_nothing_is_the_vms_to_refuse);
	tcase_add_test(tc, descriptors_go_to_the_devices_that_ask_for_them);
	tcase_add_test(tc, operation_that_the_vm_does_not_have_is_not_offered);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
