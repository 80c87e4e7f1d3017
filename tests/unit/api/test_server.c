/* SPDX-License-Identifier: Apache-2.0 */
/* What the server does for well-behaved clients. Hostile ones: test_server_abuse.c. */
#include <sys/mman.h>

#include "tests/unit/api/server_fixture.h"
#include "tests/unit/helpers/run_suite.h"

START_TEST(ping_says_version_and_pid)
{
	struct answer a = client_request("GET", "/api/v1/vmm.ping", NULL);
	json_t *json = json_loads(a.body, 0, NULL);

	ck_assert_int_eq(a.status, 200);
	ck_assert(a.keep_alive);
	ck_assert_ptr_nonnull(strstr(a.head, "Content-Type: application/json\r\n"));
	ck_assert_str_eq(json_string_value(json_object_get(json, "version")), "1.2.3");
	ck_assert_str_eq(json_string_value(json_object_get(json, "build_version")), "1.2.3");
	ck_assert_int_eq(json_integer_value(json_object_get(json, "pid")), getpid());
	ck_assert(json_is_array(json_object_get(json, "features")));
	json_decref(json);
}
END_TEST

START_TEST(unknown_path_is_404)
{
	expect_error(client_request("GET", "/api/v1/vm.nonsense", NULL), 404, "vm.nonsense");
	expect_error(client_request("GET", "/", NULL), 404, "no such path");
	expect_error(client_request("PUT", "/api/v1/vm.coredump", "{}"), 404, "vm.coredump");
	expect_error(client_request("GET", "/api/v1/vmm.ping/", NULL), 404, "no such path");
	expect_error(client_request("GET", "/api/v1/vmm%2eping", NULL), 404, "no such path");
}
END_TEST

START_TEST(query_and_absolute_target_are_understood)
{
	ck_assert_int_eq(client_request("GET", "/api/v1/vmm.ping?x=y", NULL).status, 200);
	ck_assert_int_eq(client_request("GET", "http://localhost/api/v1/vmm.ping", NULL).status,
			 200);
}
END_TEST

START_TEST(error_text_of_the_operation_reaches_the_client)
{
	atomic_store(&fx.vm.failure, ERROR_WRONG_STATE);
	expect_error(client_request("PUT", "/api/v1/vm.pause", NULL), 405, "pause: fake failure");
	expect_error(client_request("GET", "/api/v1/vm.info", NULL), 405, "info: fake failure");
}
END_TEST

START_TEST(hot_added_device_is_placed_and_cold_added_is_204)
{
	struct answer a =
		client_request("PUT", "/api/v1/vm.add-disk", "{\"path\":\"/d\",\"id\":\"mine\"}");

	ck_assert_int_eq(a.status, 200);
	ck_assert_str_eq(a.body, "{\"id\":\"mine\",\"bdf\":\"0000:00:05.0\"}");
	atomic_store(&fx.vm.cold, true);
	a = client_request("PUT", "/api/v1/vm.add-disk", "{\"path\":\"/d\"}");
	ck_assert_int_eq(a.status, 204);
	ck_assert_str_eq(a.body, "");
}
END_TEST

START_TEST(assigned_devices_reach_their_operation)
{
	struct answer a = client_request("PUT", "/api/v1/vm.add-device",
					 "{\"path\":\"/sys/vf\",\"iommufd\":false}");

	ck_assert_int_eq(a.status, 200);
	ck_assert_str_eq(a.body, "{\"id\":\"_vfio0\",\"bdf\":\"0000:00:05.0\"}");
	ck_assert_str_eq(fake_last(&fx.vm), "/sys/vf");
	a = client_request("PUT", "/api/v1/vm.add-user-device",
			   "{\"socket\":\"/s\",\"id\":\"nic\"}");
	ck_assert_int_eq(a.status, 200);
	ck_assert_str_eq(a.body, "{\"id\":\"nic\",\"bdf\":\"0000:00:05.0\"}");
	ck_assert_str_eq(fake_last(&fx.vm), "/s");
	atomic_store(&fx.vm.cold, true);
	ck_assert_int_eq(
		client_request("PUT", "/api/v1/vm.add-device", "{\"path\":\"/sys/vf\"}").status,
		204);
}
END_TEST

START_TEST(operation_that_the_machine_lacks_is_refused)
{
	fx.server->ops.add_device = NULL;
	fx.server->ops.add_user_device = NULL;
	expect_error(client_request("PUT", "/api/v1/vm.add-device", "{\"path\":\"/sys/vf\"}"), 500,
		     "not supported");
	expect_error(client_request("PUT", "/api/v1/vm.add-user-device", "{\"socket\":\"/s\"}"),
		     500, "not supported");
}
END_TEST

static const struct {
	const char *path, *body, *expect;
} bad_bodies[] = {
	{ "vm.create", "", "a JSON body is needed" },
	{ "vm.create", "{", "body: line 1" },
	{ "vm.create", "{} x", "body: line 1" },
	{ "vm.create", "null", "body: line 1" },
	{ "vm.create", "[]", "the body must be an object" },
	{ "vm.create", "{\"cpus\":{\"boot_vcpus\":1},\"cpus\":{}}", "duplicate" },
	{ "vm.create", "{\"payload\":{\"kernel\":\"\xff\xfe\"}}", "unable to decode byte 0xff" },
	{ "vm.create", "{\"payload\":{\"kernel\":\"a\\u0000b\"}}", "body: line 1" },
	{ "vm.create", "{\"memory\":{\"size\":99999999999999999999}}", "body: line 1" },
	{ "vm.create", "{}", "payload.kernel: a kernel is needed" },
	{ "vm.create", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "nested deeper than 32" },
	{ "vm.create", "{\"payload\":{\"kernel\":\"/k\"},\"net\":[{\"fds\":[-1]}]}",
	  "ask for 1 descriptors, 0 came" },
	{ "vm.add-disk", "{\"id\":\"x\"}", "disk.path: a path is needed" },
	{ "vm.add-disk", "{\"path\":\"/d\",\"nope\":1}", "disk.nope: unknown field" },
	{ "vm.add-net", "{\"num_queues\":3}", "net.num_queues: 3" },
	{ "vm.add-net", "{\"fds\":[-1]}", "asks for 1 descriptors, 0 came" },
	{ "vm.add-vsock", "{\"socket\":\"/s\"}", "vsock.cid: is missing" },
	{ "vm.add-device", "{}", "device.path: a path is needed, or a descriptor" },
	{ "vm.add-device", "{\"fd\":-1}", "device.path: a path is needed, or a descriptor" },
	{ "vm.add-device", "{\"fd\":3}", "device.fd: may be -1 only" },
	{ "vm.add-device", "{\"path\":\"0000:01:10.0\"}", "device.path: \"0000:01:10.0\"" },
	{ "vm.add-device", "{\"path\":\"/f\",\"iommu\":true}", "device.iommu: not offered" },
	{ "vm.add-device", "{\"path\":\"/f\",\"id\":\"a b\"}", "device.id: \"a b\"" },
	{ "vm.add-user-device", "{}", "user_device.socket: is missing" },
	{ "vm.add-user-device", "{\"socket\":\"\"}", "user_device.socket: a path is needed" },
	{ "vm.create", "{\"payload\":{\"kernel\":\"/k\"},\"devices\":[{}]}",
	  "ask for 1 descriptors, 0 came" },
	{ "vm.remove-device", "{}", "id: is missing" },
	{ "vm.remove-device", "{\"id\":7}", "id: must be a string" },
	{ "vm.resize-disk", "{\"id\":\"x\"}", "desired_size: is missing" },
	{ "vm.resize-disk", "{\"id\":\"x\",\"desired_size\":0}", "desired_size: 0" },
	{ "vm.resize", "{\"desired_vcpus\":3}", "desired_vcpus: 3: the VM has 2" },
	{ "vm.resize", "{\"desired_ram\":1}", "desired_ram: 1: the VM has 1073741824" },
	{ "vm.resize", "{\"desired_balloon\":\"1G\"}", "desired_balloon: must be an integer" },
	{ "vm.boot", "{}", "takes no body" },
};

START_TEST(bad_body_is_400_and_reaches_no_operation)
{
	char path[64];

	snprintf(path, sizeof(path), "/api/v1/%s", bad_bodies[_i].path);
	expect_error(client_request("PUT", path, bad_bodies[_i].body), 400, bad_bodies[_i].expect);
	ck_assert_int_eq(atomic_load(&fx.vm.calls), 0);
}
END_TEST

START_TEST(get_takes_no_body)
{
	expect_error(client_request("GET", "/api/v1/vmm.ping", "{}"), 400, "takes no body");
}
END_TEST

START_TEST(resize_reaches_the_balloon_and_ignores_what_stays)
{
	ck_assert_int_eq(client_request("PUT", "/api/v1/vm.resize",
					"{\"desired_vcpus\":2,\"desired_ram\":1073741824,"
					"\"desired_balloon\":8192}")
				 .status,
			 204);
	ck_assert_uint_eq(atomic_load(&fx.vm.size), 8192);
	atomic_store(&fx.vm.calls, 0);
	ck_assert_int_eq(
		client_request("PUT", "/api/v1/vm.resize", "{\"desired_balloon\":null}").status,
		204);
	ck_assert_int_eq(atomic_load(&fx.vm.calls), 0);
}
END_TEST

START_TEST(connection_is_kept_and_closed_as_asked)
{
	static const char close_it[] = "GET /api/v1/vmm.ping HTTP/1.1\r\nConnection: close\r\n\r\n";
	int fd = client_connect();
	struct answer a;
	char c;

	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(client_request_on(fd, "PUT", "/api/v1/vm.pause", NULL).status,
				 204);
	client_send(fd, close_it);
	a = client_receive(fd);
	ck_assert_int_eq(a.status, 200);
	ck_assert(!a.keep_alive);
	ck_assert_int_eq(recv(fd, &c, 1, 0), 0);
	close(fd);
	fd = client_connect();
	client_send(fd, "GET /api/v1/vmm.ping HTTP/1.0\r\n\r\n");
	ck_assert(!client_receive(fd).keep_alive);
	close(fd);
}
END_TEST

START_TEST(pipelined_requests_are_answered_in_order)
{
	static const char many[] = "GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n"
				   "PUT /api/v1/vm.boot HTTP/1.1\r\n\r\n"
				   "GET /nope HTTP/1.1\r\n\r\n"
				   "PUT /api/v1/vm.resize HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
				   "GET /api/v1/vmm.ping HTTP/1.1\r\nConnection: close\r\n\r\n";
	static const int wanted[] = { 200, 204, 404, 204, 200 };
	int fd = client_connect();

	client_send(fd, many);
	shutdown(fd, SHUT_WR); /* half-closed clients still get their answers */
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		ck_assert_int_eq(client_receive(fd).status, wanted[i]);
	ck_assert_int_eq(client_receive(fd).status, 0);
	close(fd);
}
END_TEST

START_TEST(large_chunked_body_with_expectation_is_read)
{
	static const char head[] = "PUT /api/v1/vm.add-disk HTTP/1.1\r\nExpect: 100-continue\r\n"
				   "Transfer-Encoding: chunked\r\n\r\n";
	static char space[60001];
	char size[32];
	int fd = client_connect();

	client_send(fd, head);
	ck_assert_int_eq(client_receive(fd).status, 100);
	memset(space, ' ', sizeof(space) - 1);
	for (int i = 0; i < 8; i++) {
		snprintf(size, sizeof(size), "%zx\r\n", sizeof(space) - 1);
		client_send(fd, size);
		client_send(fd, space);
		client_send(fd, "\r\n");
	}
	client_send(fd, "c\r\n{\"path\":\"/d\"\r\n1\r\n}\r\n0\r\n\r\n");
	ck_assert_int_eq(client_receive(fd).status, 200);
	close(fd);
}
END_TEST

START_TEST(quick_requests_are_answered_while_a_long_one_runs)
{
	int slow = client_connect(), next = client_connect();
	struct pollfd answered = { .events = POLLIN };
	char text[256];

	atomic_store(&fx.vm.gated, true);
	client_send_fds(slow, text,
			client_format(text, sizeof(text), "PUT", "/api/v1/vm.boot", NULL), NULL, 0);
	while (!atomic_load(&fx.vm.booting))
		usleep(1000);
	client_send_fds(next, text,
			client_format(text, sizeof(text), "PUT", "/api/v1/vm.pause", NULL), NULL,
			0);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(client_request("GET", "/api/v1/vmm.ping", NULL).status, 200);
		ck_assert_int_eq(client_request("GET", "/api/v1/vm.info", NULL).status, 200);
		ck_assert_int_eq(client_request("GET", "/metrics", NULL).status, 200);
	}
	answered.fd = next; /* long ones wait for each other */
	ck_assert_int_eq(poll(&answered, 1, 50), 0);
	answered.fd = slow;
	ck_assert_int_eq(poll(&answered, 1, 0), 0);
	sem_post(&fx.vm.gate);
	ck_assert_int_eq(client_receive(slow).status, 204);
	ck_assert_int_eq(client_receive(next).status, 204);
	ck_assert_str_eq(fake_last(&fx.vm), "pause");
	close(slow);
	close(next);
}
END_TEST

START_TEST(client_that_leaves_during_its_operation_costs_nothing)
{
	int fd = client_connect();
	char text[256];

	atomic_store(&fx.vm.gated, true);
	client_send_fds(fd, text, client_format(text, sizeof(text), "PUT", "/api/v1/vm.boot", NULL),
			NULL, 0);
	while (!atomic_load(&fx.vm.booting))
		usleep(1000);
	close(fd);
	ck_assert_int_eq(client_request("GET", "/api/v1/vmm.ping", NULL).status, 200);
	sem_post(&fx.vm.gate);
	ck_assert_int_eq(client_request("PUT", "/api/v1/vm.pause", NULL).status, 204);
	ck_assert_int_eq(atomic_load(&fx.vm.calls), 2);
}
END_TEST

/* --- descriptors -------------------------------------------------------------------- */

static unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Bodies go after the descriptors' segment, as Cloud Hypervisor's client sends. */
static struct answer send_with_fds(const char *path, const char *body, unsigned int count)
{
	int fd = client_connect(), fds[FD_PASS_MAX];
	char head[256], rest[2048];
	struct answer a;

	for (unsigned int i = 0; i < count; i++)
		fds[i] = memfd_create("tap", MFD_CLOEXEC);
	snprintf(head, sizeof(head), "PUT %s HTTP/1.1\r\nHost: localhost\r\n", path);
	client_send_fds(fd, head, strlen(head), fds, count);
	snprintf(rest, sizeof(rest), "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
	client_send(fd, rest);
	a = client_receive(fd);
	for (unsigned int i = 0; i < count; i++)
		close(fds[i]);
	close(fd);
	return a;
}

static void settle(unsigned int wanted)
{
	for (int i = 0; i < 1000 && open_fds() != wanted; i++)
		usleep(1000);
	ck_assert_uint_eq(open_fds(), wanted);
}

START_TEST(descriptors_sent_with_add_net_are_the_devices)
{
	unsigned int before = open_fds();

	ck_assert_int_eq(send_with_fds("/api/v1/vm.add-net", "{\"num_queues\":4}", 2).status, 200);
	ck_assert_int_eq(atomic_load(&fx.vm.fd_count), 2);
	ck_assert_int_eq(send_with_fds("/api/v1/vm.add-net", "{\"fds\":[-1]}", 1).status, 200);
	expect_error(send_with_fds("/api/v1/vm.add-net", "{}", 2), 400, "net.num_queues");
	expect_error(send_with_fds("/api/v1/vm.add-net", "{\"fds\":[-1]}", 2), 400, "2 came");
	expect_error(send_with_fds("/api/v1/vm.add-net", "{\"tap\":\"t\"}", 1), 400, "not both");
	atomic_store(&fx.vm.failure, ERROR_FAILED);
	ck_assert_int_eq(send_with_fds("/api/v1/vm.add-net", "{}", 1).status, 500);
	settle(before);
}
END_TEST

START_TEST(descriptors_sent_with_create_go_to_the_nets_in_order)
{
	static const char body[] = "{\"payload\":{\"kernel\":\"/k\"},\"cpus\":{\"boot_vcpus\":2},"
				   "\"net\":[{\"fds\":[-1]},{\"tap\":\"t\"},"
				   "{\"fds\":[-1,-1],\"num_queues\":4}]}";
	unsigned int before = open_fds();

	ck_assert_int_eq(send_with_fds("/api/v1/vm.create", body, 3).status, 204);
	ck_assert_int_eq(atomic_load(&fx.vm.fd_count), 3);
	expect_error(send_with_fds("/api/v1/vm.create", body, 2), 400, "ask for 3 descriptors, 2");
	expect_error(send_with_fds("/api/v1/vm.create", "{\"payload\":null}", 1), 400,
		     "ask for 0 descriptors, 1");
	settle(before);
}
END_TEST

START_TEST(descriptor_sent_with_add_device_is_the_devices)
{
	unsigned int before = open_fds();

	ck_assert_int_eq(send_with_fds("/api/v1/vm.add-device", "{\"id\":\"vf\"}", 1).status, 200);
	ck_assert_int_eq(atomic_load(&fx.vm.fd_count), 1);
	ck_assert_int_eq(send_with_fds("/api/v1/vm.add-device", "{\"fd\":-1}", 1).status, 200);
	ck_assert_int_eq(send_with_fds("/api/v1/vm.add-device", "{\"path\":\"/sys/vf\"}", 0).status,
			 200);
	ck_assert_int_eq(atomic_load(&fx.vm.fd_count), 0);
	expect_error(send_with_fds("/api/v1/vm.add-device", "{}", 2), 400,
		     "one descriptor, 2 came");
	expect_error(send_with_fds("/api/v1/vm.add-device", "{\"path\":\"/sys/vf\"}", 1), 400,
		     "not both");
	expect_error(send_with_fds("/api/v1/vm.add-device", "{\"iommufd\":false}", 1), 400,
		     "device.iommufd");
	/* A vfio-user device takes none; they are closed with the request. */
	ck_assert_int_eq(
		send_with_fds("/api/v1/vm.add-user-device", "{\"socket\":\"/s\"}", 1).status, 200);
	atomic_store(&fx.vm.failure, ERROR_FAILED);
	ck_assert_int_eq(send_with_fds("/api/v1/vm.add-device", "{}", 1).status, 500);
	settle(before);
}
END_TEST

START_TEST(descriptors_sent_with_create_go_to_the_devices_behind_the_nets)
{
	static const char body[] = "{\"payload\":{\"kernel\":\"/k\"},"
				   "\"devices\":[{\"path\":\"/sys/a\"},{},{\"fd\":-1}],"
				   "\"net\":[{\"fds\":[-1]}]}";
	unsigned int before = open_fds();

	ck_assert_int_eq(send_with_fds("/api/v1/vm.create", body, 3).status, 204);
	ck_assert_int_eq(atomic_load(&fx.vm.fd_count), 3);
	expect_error(send_with_fds("/api/v1/vm.create", body, 1), 400, "ask for 3 descriptors, 1");
	expect_error(send_with_fds("/api/v1/vm.create", body, 4), 400, "ask for 3 descriptors, 4");
	settle(before);
}
END_TEST

START_TEST(descriptors_nobody_takes_are_closed_with_the_request)
{
	unsigned int before = open_fds();
	int fd, fds[3];

	fd = client_connect();
	for (int i = 0; i < 3; i++)
		fds[i] = memfd_create("x", MFD_CLOEXEC);
	client_send_fds(fd, "GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n", 33, fds, 3);
	ck_assert_int_eq(client_receive(fd).status, 200);
	settle(before + 2 + 3); /* both ends of this connection, and our three */
	client_send_fds(fd, "GET /api/v1", 11, fds, 3); /* and leaves */
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close(fd);
	settle(before);
}
END_TEST

START_TEST(descriptors_among_pipelined_requests_are_refused)
{
	static const char two[] = "PUT /api/v1/vm.add-net HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
				  "GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n";
	int fd = client_connect(), passed = memfd_create("x", MFD_CLOEXEC);

	client_send_fds(fd, two, strlen(two), &passed, 1);
	expect_error(client_receive(fd), 400, "pipelined");
	ck_assert_int_eq(client_receive(fd).status, 0);
	ck_assert_int_eq(atomic_load(&fx.vm.calls), 0);
	close(passed);
	close(fd);
}
END_TEST

START_TEST(more_than_64_descriptors_are_refused)
{
	unsigned int before = open_fds();
	int fd = client_connect(), fds[FD_PASS_MAX];

	for (int i = 0; i < FD_PASS_MAX; i++)
		fds[i] = memfd_create("x", MFD_CLOEXEC);
	client_send_fds(fd, "PUT /api/v1/vm.add-net ", 23, fds, FD_PASS_MAX);
	client_send_fds(fd, "HTTP/1.1\r\n", 10, fds, 1);
	expect_error(client_receive(fd), 400, "too many descriptors");
	for (int i = 0; i < FD_PASS_MAX; i++)
		close(fds[i]);
	close(fd);
	settle(before);
}
END_TEST

/* --- metrics -------------------------------------------------------------------------- */

START_TEST(metrics_show_state_counters_and_process)
{
	static const char *const lines[] = {
		"\nferry_up 1\n",
		"\nferry_build_info{version=\"1.2.3\"} 1\n",
		"\nferry_vm_created 1\n",
		"\nferry_vm_state{state=\"Running\"} 1\n",
		"\nferry_vm_state{state=\"Paused\"} 0\n",
		"\n# TYPE ferry_device_read_bytes_total counter\n"
		"ferry_device_read_bytes_total{device=\"_disk0\"} 4096\n"
		"ferry_device_read_bytes_total{device=\"a\\\"b\"} 512\n",
		"\nferry_device_rx_frames_total{device=\"a\\\"b\"} 7\n",
		"\nferry_api_connections 1\n",
		"\nferry_api_responses_total{code=\"4xx\"} 1\n",
		"\nprocess_cpu_seconds_total ",
		"\nprocess_resident_memory_bytes ",
	};
	struct answer a;

	client_request("GET", "/nope", NULL);
	/* Until that connection is seen to be gone. */
	for (unsigned int i = 0; i < 5000; i++) {
		a = client_request("GET", "/metrics", NULL);
		ck_assert_int_eq(a.status, 200);
		if (strstr(a.body, "\nferry_api_connections 1\n"))
			break;
		usleep(1000);
	}
	ck_assert_ptr_nonnull(strstr(a.head, "Content-Type: text/plain; version=0.0.4\r\n"));
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		ck_assert_msg(strstr(a.body, lines[i]) != NULL, "no %s in:\n%s", lines[i], a.body);
	atomic_store(&fx.vm.failure, ERROR_NOT_FOUND);
	a = client_request("GET", "/metrics", NULL);
	ck_assert_int_eq(a.status, 200);
	ck_assert_ptr_nonnull(strstr(a.body, "\nferry_vm_created 0\n"));
	ck_assert_ptr_null(strstr(a.body, "ferry_device"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("server");
	TCase *tc = tcase_create("server");

	signal(SIGPIPE, SIG_IGN);
	tcase_set_timeout(tc, 30);
	tcase_add_checked_fixture(tc, fixture_start, fixture_stop);
	tcase_add_test(tc, ping_says_version_and_pid);
	tcase_add_test(tc, unknown_path_is_404);
	tcase_add_test(tc, query_and_absolute_target_are_understood);
	tcase_add_test(tc, error_text_of_the_operation_reaches_the_client);
	tcase_add_test(tc, hot_added_device_is_placed_and_cold_added_is_204);
	tcase_add_test(tc, assigned_devices_reach_their_operation);
	tcase_add_test(tc, operation_that_the_machine_lacks_is_refused);
	tcase_add_loop_test(tc, bad_body_is_400_and_reaches_no_operation, 0,
			    ARRAY_SIZE(bad_bodies));
	tcase_add_test(tc, get_takes_no_body);
	tcase_add_test(tc, resize_reaches_the_balloon_and_ignores_what_stays);
	tcase_add_test(tc, connection_is_kept_and_closed_as_asked);
	tcase_add_test(tc, pipelined_requests_are_answered_in_order);
	tcase_add_test(tc, large_chunked_body_with_expectation_is_read);
	tcase_add_test(tc, quick_requests_are_answered_while_a_long_one_runs);
	tcase_add_test(tc, client_that_leaves_during_its_operation_costs_nothing);
	tcase_add_test(tc, descriptors_sent_with_add_net_are_the_devices);
	tcase_add_test(tc, descriptors_sent_with_create_go_to_the_nets_in_order);
	tcase_add_test(tc, descriptor_sent_with_add_device_is_the_devices);
	tcase_add_test(tc, descriptors_sent_with_create_go_to_the_devices_behind_the_nets);
	tcase_add_test(tc, descriptors_nobody_takes_are_closed_with_the_request);
	tcase_add_test(tc, descriptors_among_pipelined_requests_are_refused);
	tcase_add_test(tc, more_than_64_descriptors_are_refused);
	tcase_add_test(tc, metrics_show_state_counters_and_process);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
