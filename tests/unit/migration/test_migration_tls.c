/* SPDX-License-Identifier: Apache-2.0 */
/* Whole migrations over TLS, and those that do not come about. */
#include <check.h>

#include "base/clock.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/byte_proxy.h"
#include "tests/unit/migration/certificates.h"

#define RAM (6 * MIB)

static struct fixture f;
static struct byte_proxy proxy;
static struct authority authority;
static char dir[TLS_DIR_SIZE];
static struct tls_context *contexts[2]; /* by enum tls_side */

static void read_contexts(void)
{
	struct error err = ERROR_INIT;

	for (int side = 0; side < 2; side++) {
		const char *host = side == TLS_SOURCE ? "127.0.0.1" : NULL;

		tls_context_free(contexts[side]);
		contexts[side] = tls_context_new(dir, side, host, NULL, &err);
		ck_assert_msg(contexts[side] != NULL, "%s", err.message);
	}
	f.send_options.tls = contexts[TLS_SOURCE];
	f.receive_options.tls = contexts[TLS_DESTINATION];
}

static void set_up(void)
{
	authority = authority_new("one");
	make_tls_dir(dir, &authority);
	fixture_init(&f, true, RAM, 0);
	read_contexts();
}

static void tear_down(void)
{
	fixture_free(&f);
	for (int side = 0; side < 2; side++) {
		tls_context_free(contexts[side]);
		contexts[side] = NULL;
	}
	remove_tls_dir(dir);
	authority_free(&authority);
}

static const struct {
	enum channel_kind kind;
	unsigned int connections;
	bool checksum;
} ways[] = {
	{ CHANNEL_PLAIN, 1, false }, { CHANNEL_PLAIN, 4, true },  { CHANNEL_URING, 1, true },
	{ CHANNEL_URING, 4, false }, { CHANNEL_AUTO, 24, false },
};

static void set_way(int i)
{
	f.send_options.kind = f.receive_options.kind = ways[i].kind;
	f.send_options.zero_copy = ZERO_COPY_ON;
	f.send_options.connections = ways[i].connections;
	f.send_options.checksum = ways[i].checksum;
}

START_TEST(all_memory_and_state_arrive)
{
	struct transfer_progress progress;

	set_way(_i);
	fixture_run(&f);
	assert_moved(&f);
	ck_assert(fake_running(&f.target));
	migration_send_progress(f.send, &progress);
	ck_assert_uint_eq(progress.pages + progress.zero_pages, RAM / GUEST_PAGE_SIZE);
	ck_assert_uint_gt(progress.wire_bytes, progress.pages * GUEST_PAGE_SIZE);
	ck_assert_uint_lt(progress.wire_bytes, (progress.pages + 100) * GUEST_PAGE_SIZE);
	ck_assert(!progress.zero_copy);
	if (ways[_i].kind != CHANNEL_AUTO)
		ck_assert_str_eq(progress.io,
				 ways[_i].kind == CHANNEL_URING ? "io_uring" : "plain");
}
END_TEST

START_TEST(what_is_written_meanwhile_arrives)
{
	fixture_free(&f);
	fixture_init(&f, true, RAM, 4);
	read_contexts();
	set_way(_i);
	f.send_options.bandwidth = 200 * MIB;
	fixture_run(&f);
	assert_moved(&f);
}
END_TEST

START_TEST(nothing_is_sent_in_clear)
{
	bool tls = !_i; /* else that the test would see it */

	if (!tls)
		f.send_options.tls = f.receive_options.tls = NULL;
	byte_proxy_start(&proxy, &f);
	proxy.text = FAKE_CONFIG;
	fixture_run(&f);
	byte_proxy_stop(&proxy);
	assert_moved(&f);
	ck_assert_int_eq(proxy.seen, !tls);
}
END_TEST

/* --- certificates --------------------------------------------------------------- */

static const struct {
	const char *what;
	struct wish wish;
	bool stranger;
	const char *source_says, *destination_says;
} refused[] = {
	{ "server", { .age = 7200, .life = -3600 }, false, "expired", "certificate expired" },
	{ "server", { .names = "IP:10.9.8.7" }, false, "not for 127.0.0.1", "bad certificate" },
	{ "server", { 0 }, true, "ca-cert.pem", "unknown CA" },
	{ "client", { .age = 7200, .life = -3600 }, false, "certificate expired", "expired" },
	{ "client", { 0 }, true, "unknown CA", "ca-cert.pem" },
};

START_TEST(refused_certificate_keeps_the_vm_and_is_told_on_both_sides)
{
	struct authority other = authority_new("another");

	put_certificate(dir, refused[_i].what, refused[_i].stranger ? &other : &authority,
			&refused[_i].wish);
	read_contexts();
	fixture_run(&f);
	assert_stayed(&f);
	ck_assert_msg(strstr(f.send_error.message, refused[_i].source_says), "%s",
		      f.send_error.message);
	ck_assert_msg(strstr(f.receive_error.message, refused[_i].destination_says), "%s",
		      f.receive_error.message);
	authority_free(&other);
}
END_TEST

START_TEST(one_side_without_tls_keeps_the_vm_and_is_told_on_both_sides)
{
	if (_i)
		f.send_options.tls = NULL;
	else
		f.receive_options.tls = NULL;
	fixture_run(&f);
	assert_stayed(&f);
	ck_assert_msg(strstr(f.send_error.message, "TLS"), "%s", f.send_error.message);
	ck_assert_msg(strstr(f.send_error.message, "tls_dir"), "%s", f.send_error.message);
	ck_assert_msg(strstr(f.receive_error.message, "TLS"), "%s", f.receive_error.message);
	ck_assert_msg(strstr(f.receive_error.message, "tls_dir"), "%s", f.receive_error.message);
}
END_TEST

/* --- handshakes that do not come to their end ------------------------------------ */

/* Bytes of a connection after which something happens: in each message of the handshake. */
static const size_t points[] = { 0, 5, 240, 1200, 1600 };

static void run_with_victim(unsigned int victim, size_t after, bool stall)
{
	f.send_options.connections = 2;
	f.send_options.stall_ms = f.receive_options.stall_ms = 300;
	byte_proxy_start(&proxy, &f);
	proxy.stall = stall;
	proxy.victim = victim;
	proxy.after = after;
	fixture_run(&f);
	byte_proxy_stop(&proxy);
}

START_TEST(connection_cut_in_the_handshake_keeps_the_vm)
{
	run_with_victim((unsigned int)_i % 3, points[_i / 3], false);
	assert_stayed(&f);
}
END_TEST

START_TEST(connection_that_stalls_in_the_handshake_keeps_the_vm)
{
	run_with_victim((unsigned int)_i % 3, points[_i / 3], true);
	assert_stayed(&f);
}
END_TEST

/* As by a source that shakes hands on many connections, or is busy otherwise. */
START_TEST(slow_handshake_is_waited_for)
{
	byte_proxy_start(&proxy, &f);
	proxy.victim = 1;
	proxy.after = 300;
	proxy.pause_ms = 1500;
	fixture_run(&f);
	byte_proxy_stop(&proxy);
	assert_moved(&f);
}
END_TEST

static uint64_t took_ms;

static void *cancel_receive(void *opaque)
{
	uint64_t begun;

	nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	begun = clock_ms();
	migration_receive_cancel(f.receive);
	pthread_join(f.receive_thread, NULL);
	took_ms = clock_ms() - begun;
	migration_send_cancel(f.send, NULL);
	return NULL;
}

static void *cancel_send(void *opaque)
{
	nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	took_ms = clock_ms();
	migration_send_cancel(f.send, NULL);
	return NULL;
}

START_TEST(either_side_can_cancel_a_handshake_that_stalls)
{
	pthread_t thread;

	byte_proxy_start(&proxy, &f);
	proxy.stall = true;
	proxy.after = 300;
	fixture_start(&f);
	pthread_create(&thread, NULL, _i ? cancel_send : cancel_receive, NULL);
	f.send_result = migration_send_run(f.send, &f.send_error);
	pthread_join(thread, NULL);
	if (_i) {
		took_ms = clock_ms() - took_ms;
		migration_receive_cancel(f.receive);
		pthread_join(f.receive_thread, NULL);
	}
	byte_proxy_stop(&proxy);
	assert_stayed(&f);
	ck_assert_msg(strstr(_i ? f.send_error.message : f.receive_error.message, "cancelled"),
		      "%s", _i ? f.send_error.message : f.receive_error.message);
	ck_assert_uint_lt(took_ms, 4000); /* stall_ms is 5000 */
}
END_TEST

/* --- after COMMIT ------------------------------------------------------------------ */

static int cut_all(struct fake_machine *machine, enum fake_step step)
{
	if (step == FAKE_RESUMED) {
		atomic_store(&proxy.cut_now, true);
		while (atomic_load(&proxy.cut_now))
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return 0;
}

START_TEST(question_after_commit_is_asked_and_answered_over_tls)
{
	f.send_options.no_witness = true;
	f.target.hook = cut_all;
	byte_proxy_start(&proxy, &f);
	fixture_run(&f);
	byte_proxy_stop(&proxy);
	assert_moved(&f);
	ck_assert(fake_running(&f.target));
	ck_assert_uint_eq(proxy.count, 3); /* control, pages, the question */
	ck_assert_uint_gt(proxy.moved[2], 1000);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("migration_tls");
	TCase *t = tcase_create("migration_tls");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_loop_test(t, all_memory_and_state_arrive, 0, ARRAY_SIZE(ways));
	tcase_add_loop_test(t, what_is_written_meanwhile_arrives, 0, 4);
	tcase_add_loop_test(t, nothing_is_sent_in_clear, 0, 2);
	tcase_add_loop_test(t, refused_certificate_keeps_the_vm_and_is_told_on_both_sides, 0,
			    ARRAY_SIZE(refused));
	tcase_add_loop_test(t, one_side_without_tls_keeps_the_vm_and_is_told_on_both_sides, 0, 2);
	tcase_add_loop_test(t, connection_cut_in_the_handshake_keeps_the_vm, 0,
			    3 * ARRAY_SIZE(points));
	tcase_add_loop_test(t, connection_that_stalls_in_the_handshake_keeps_the_vm, 0,
			    3 * ARRAY_SIZE(points));
	tcase_add_test(t, slow_handshake_is_waited_for);
	tcase_add_loop_test(t, either_side_can_cancel_a_handshake_that_stalls, 0, 2);
	tcase_add_test(t, question_after_commit_is_asked_and_answered_over_tls);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
