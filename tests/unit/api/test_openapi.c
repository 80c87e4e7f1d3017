/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api/openapi.yaml against the server: what is documented is served, status by
 * status, and what is served is documented. Run from the top of the tree.
 */
#include "tests/unit/api/server_fixture.h"
#include "tests/unit/helpers/run_suite.h"

#define DOCUMENT "api/openapi.yaml"
#define PROMISES_MAX 256

/* "path method -> status" as documented. */
struct promise {
	char path[64], method[8];
	int status;
};

static struct promise promises[PROMISES_MAX];
static unsigned int promise_count;

/* Knows the layout of our file: paths at 2 spaces, methods at 4, statuses at 8. */
static void read_document(void)
{
	FILE *f = fopen(DOCUMENT, "re");
	char line[512], path[64] = "", method[8] = "";
	bool in_paths = false;

	ck_assert_msg(f != NULL, "cannot read %s: run from the top of the tree", DOCUMENT);
	promise_count = 0;
	while (fgets(line, sizeof(line), f)) {
		int status;

		if (line[0] != ' ')
			in_paths = !strncmp(line, "paths:", 6);
		if (!in_paths)
			continue;
		if (!strncmp(line, "  /", 3)) {
			snprintf(path, sizeof(path), "%s%.*s",
				 strncmp(line, "  /metrics", 10) ? "/api/v1" : "",
				 (int)strcspn(line + 2, ":"), line + 2);
		} else if (!strncmp(line, "    get:", 8) || !strncmp(line, "    put:", 8)) {
			snprintf(method, sizeof(method), "%s", line[4] == 'g' ? "GET" : "PUT");
		} else if (sscanf(line, "        \"%d\":", &status) == 1) {
			ck_assert_uint_lt(promise_count, PROMISES_MAX);
			promises[promise_count].status = status;
			snprintf(promises[promise_count].path, 64, "%s", path);
			snprintf(promises[promise_count++].method, 8, "%s", method);
		}
	}
	fclose(f);
	ck_assert_uint_gt(promise_count, 50);
}

static const struct {
	const char *path, *body;
} bodies[] = {
	{ "/api/v1/vm.create", "{\"payload\":{\"kernel\":\"/k\"}}" },
	{ "/api/v1/vm.add-disk", "{\"path\":\"/d\",\"id\":\"x\"}" },
	{ "/api/v1/vm.add-net", "{\"id\":\"x\"}" },
	{ "/api/v1/vm.add-vsock", "{\"cid\":3,\"id\":\"x\"}" },
	{ "/api/v1/vm.add-device", "{\"path\":\"/sys/d\",\"id\":\"x\"}" },
	{ "/api/v1/vm.add-user-device", "{\"socket\":\"/s\",\"id\":\"x\"}" },
	{ "/api/v1/vm.remove-device", "{\"id\":\"x\"}" },
	{ "/api/v1/vm.resize", "{\"desired_balloon\":4096}" },
	{ "/api/v1/vm.resize-disk", "{\"id\":\"x\",\"desired_size\":512}" },
	{ "/api/v1/vm.snapshot", "{\"destination_url\":\"file:///s\"}" },
	{ "/api/v1/vm.restore", "{\"source_url\":\"file:///s\"}" },
	{ "/api/v1/vm.send-migration", "{\"destination_url\":\"unix:/s\"}" },
	{ "/api/v1/vm.receive-migration", "{\"receiver_url\":\"unix:/s\"}" },
	{ "/api/v1/vm.live-update", "{}" },
};

static const char *body_of(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++)
		if (!strcmp(bodies[i].path, path))
			return bodies[i].body;
	return NULL;
}

/* Paths whose operation cannot fail: their 405 is the method's. */
static bool never_fails(const char *path)
{
	return !strcmp(path, "/api/v1/vmm.ping") || !strcmp(path, "/api/v1/vmm.shutdown") ||
	       !strcmp(path, "/api/v1/vm.migration") || !strcmp(path, "/metrics");
}

static struct answer provoke(const struct promise *p)
{
	static const struct {
		int status;
		enum error_kind kind;
	} kinds[] = {
		{ 404, ERROR_NOT_FOUND },
		{ 405, ERROR_WRONG_STATE },
		{ 409, ERROR_CONFLICT },
		{ 500, ERROR_FAILED },
	};
	const char *method = p->method, *body = body_of(p->path);

	atomic_store(&fx.vm.failure, FAKE_NO_FAILURE);
	atomic_store(&fx.vm.cold, p->status == 204);
	if (p->status == 400)
		body = "{\"no such field\":1}";
	else if (p->status == 405 && never_fails(p->path))
		method = "POST";
	else
		for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
			if (kinds[i].status == p->status)
				atomic_store(&fx.vm.failure, (int)kinds[i].kind);
	return client_request(method, p->path, body);
}

START_TEST(every_documented_status_is_served)
{
	read_document();
	for (unsigned int i = 0; i < promise_count; i++) {
		struct answer a = provoke(&promises[i]);

		ck_assert_msg(a.status == promises[i].status, "%s %s: %d, documented %d: %s",
			      promises[i].method, promises[i].path, a.status, promises[i].status,
			      a.body);
		if (a.status >= 400)
			error_message(&a);
		ck_assert_msg((a.status == 204) == !strstr(a.head, "Content-Length"), "%s", a.head);
		ck_assert_msg((a.status == 405) == (strstr(a.head, "\r\nAllow: ") != NULL), "%s",
			      a.head);
	}
}
END_TEST

START_TEST(every_documented_path_refuses_other_methods)
{
	static const char *const methods[] = { "GET",	"PUT",	   "POST", "DELETE",
					       "PATCH", "OPTIONS", "TRACE" };

	read_document();
	for (unsigned int i = 0; i < promise_count; i++)
		for (size_t m = 0; m < ARRAY_SIZE(methods); m++)
			if (promises[i].status == 405 && strcmp(methods[m], promises[i].method))
				expect_error(client_request(methods[m], promises[i].path, NULL),
					     405, promises[i].path);
}
END_TEST

START_TEST(every_served_path_is_documented_with_its_method)
{
	const char *path, *method;
	unsigned int i;

	read_document();
	for (i = 0; (path = api_route_name(i, &method)); i++) {
		unsigned int found = 0;

		for (unsigned int k = 0; k < promise_count; k++)
			found += !strcmp(promises[k].path, path) &&
				 !strcmp(promises[k].method, method);
		ck_assert_msg(found >= 3, "%s %s is not documented", method, path);
	}
	ck_assert_uint_gt(i, 15);
}
END_TEST

START_TEST(documented_actions_reach_their_operation)
{
	static const char *const names[] = { "delete", "boot",	 "shutdown",	 "reboot",
					     "pause",  "resume", "power-button", "nmi" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char path[64], wanted[32];

		snprintf(path, sizeof(path), "/api/v1/vm.%s", names[i]);
		snprintf(wanted, sizeof(wanted), "%s", names[i]);
		if (strchr(wanted, '-'))
			*strchr(wanted, '-') = '_';
		ck_assert_int_eq(client_request("PUT", path, NULL).status, 204);
		ck_assert_str_eq(fake_last(&fx.vm), wanted);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("openapi");
	TCase *tc = tcase_create("openapi");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, fixture_start, fixture_stop);
	tcase_add_test(tc, every_documented_status_is_served);
	tcase_add_test(tc, every_documented_path_refuses_other_methods);
	tcase_add_test(tc, every_served_path_is_documented_with_its_method);
	tcase_add_test(tc, documented_actions_reach_their_operation);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
