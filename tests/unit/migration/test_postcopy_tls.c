/* SPDX-License-Identifier: Apache-2.0 */
/* Postcopy over TLS: its connection of requests, and the connections that are made anew. */
#include <check.h>

#include "base/clock.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/byte_proxy.h"
#include "tests/unit/migration/certificates.h"

#define RAM (6 * MIB)
#define PAGE_CONNECTIONS 2
/* In the order in which the source makes them: control, pages, requests. */
#define CONNECTIONS (PAGE_CONNECTIONS + 2)

static struct fixture f;
static struct byte_proxy proxy;
static struct authority authority;
static char dir[TLS_DIR_SIZE];
static struct tls_context *contexts[2]; /* by enum tls_side */
static pthread_t guest;
static bool guest_started, cut_wanted;

/* Reads all of its memory, backwards: what is sent unasked comes from the other end. */
static void read_all(const struct fake_machine *m)
{
	for (unsigned int i = guest_memory_region_count(m->memory); i--;) {
		const struct guest_memory_region *r = guest_memory_region(m->memory, i);

		for (uint64_t at = r->size; at; at -= GUEST_PAGE_SIZE) {
			(void)*(volatile uint64_t *)(r->hva + at - GUEST_PAGE_SIZE);
			if (atomic_load(&m->lost))
				return;
		}
	}
}

static void wait_for_postcopy(void)
{
	struct transfer_progress progress;

	do {
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		migration_send_progress(f.send, &progress);
	} while (progress.phase < TRANSFER_POSTCOPY);
}

static void *be_guest(void *opaque)
{
	if (cut_wanted) {
		wait_for_postcopy();
		atomic_store(&proxy.cut_now, true);
		migration_send_set_bandwidth(f.send, 0);
	}
	read_all(&f.target);
	return NULL;
}

static int start_guest(struct fake_machine *m, enum fake_step step)
{
	if (step != FAKE_RESUMED)
		return 0;
	ck_assert_int_eq(pthread_create(&guest, NULL, be_guest, NULL), 0);
	guest_started = true;
	return 0;
}

static void read_context(enum tls_side side, const char *host)
{
	struct error err = ERROR_INIT;

	contexts[side] = tls_context_new(dir, side, host, NULL, &err);
	ck_assert_msg(contexts[side] != NULL, "%s", err.message);
}

static void set_up(void)
{
	authority = authority_new("one");
	make_tls_dir(dir, &authority);
	read_context(TLS_SOURCE, "127.0.0.1");
	read_context(TLS_DESTINATION, NULL);
	/* It writes more than the line carries: much of it follows. */
	fixture_init(&f, true, RAM, 200);
	f.send_options.postcopy = true;
	f.send_options.bandwidth = 4 * MIB;
	f.send_options.connections = PAGE_CONNECTIONS;
	f.send_options.tls = contexts[TLS_SOURCE];
	f.receive_options.tls = contexts[TLS_DESTINATION];
	f.target.hook = start_guest;
	guest_started = cut_wanted = false;
}

static void tear_down(void)
{
	if (guest_started)
		pthread_join(guest, NULL);
	fixture_free(&f);
	for (int side = 0; side < 2; side++)
		tls_context_free(contexts[side]);
	remove_tls_dir(dir);
	authority_free(&authority);
}

static void run_by_proxy(void)
{
	byte_proxy_start(&proxy, &f);
	proxy.text = FAKE_CONFIG;
	fixture_run(&f);
	byte_proxy_stop(&proxy);
}

static const struct {
	enum channel_kind kind;
	bool checksum;
} ways[] = { { CHANNEL_PLAIN, false }, { CHANNEL_PLAIN, true }, { CHANNEL_URING, true } };

START_TEST(memory_follows_and_what_is_waited_for_comes_first)
{
	struct transfer_progress progress;

	f.send_options.kind = f.receive_options.kind = ways[_i].kind;
	f.send_options.checksum = ways[_i].checksum;
	run_by_proxy();
	assert_moved(&f);
	migration_receive_progress(f.receive, &progress);
	ck_assert_uint_gt(progress.faults.count, 0);
	ck_assert_uint_eq(progress.faults.recoveries, 0);
	ck_assert_uint_eq(proxy.count, CONNECTIONS);
	ck_assert(!proxy.seen);
}
END_TEST

/* Keys are changed by whoever sends much, while the other waits for something else. */
START_TEST(keys_change_while_memory_follows)
{
	for (int side = 0; side < 2; side++)
		tls_context_set_rekey(contexts[side], 2);
	run_by_proxy();
	assert_moved(&f);
}
END_TEST

/* Bytes of a connection after which something happens: in each part of the handshake. */
static const size_t points[] = { 0, 1200 };

/* A busy host is no stall. */
#define STALL_MS 900

static void set_victim(unsigned int victim, int i)
{
	proxy.victim = victim;
	proxy.after = points[i / 2];
	proxy.stall = i % 2;
	f.send_options.stall_ms = f.receive_options.stall_ms = STALL_MS;
}

START_TEST(connection_of_requests_that_is_cut_or_stalls_in_its_handshake_keeps_the_vm)
{
	byte_proxy_start(&proxy, &f);
	set_victim(CONNECTIONS - 1, _i);
	fixture_run(&f);
	byte_proxy_stop(&proxy);
	assert_stayed(&f);
}
END_TEST

static void recover(void)
{
	struct transfer_progress here, there;

	cut_wanted = true;
	fixture_run(&f);
	byte_proxy_stop(&proxy);
	assert_moved(&f);
	migration_send_progress(f.send, &here);
	migration_receive_progress(f.receive, &there);
	ck_assert_uint_ge(here.faults.recoveries, 1);
	ck_assert_uint_ge(there.faults.recoveries, 1);
	ck_assert(!proxy.seen);
}

START_TEST(connections_that_are_cut_are_made_anew_over_tls)
{
	byte_proxy_start(&proxy, &f);
	proxy.text = FAKE_CONFIG;
	recover();
	ck_assert_uint_eq(proxy.count, 2 * CONNECTIONS);
}
END_TEST

/* Each of those that are made anew, at each point: the next attempt comes through. */
START_TEST(new_connection_that_is_cut_or_stalls_in_its_handshake_is_made_once_more)
{
	int n = 2 * ARRAY_SIZE(points);

	byte_proxy_start(&proxy, &f);
	set_victim((unsigned int)(CONNECTIONS + _i / n), _i % n);
	recover();
	ck_assert_uint_gt(proxy.count, 2 * CONNECTIONS);
}
END_TEST

/* Its certificate has come to its end meanwhile, say: nobody else's will do. */
START_TEST(source_that_comes_back_with_a_strangers_certificate_is_kept_out)
{
	struct authority other = authority_new("another");
	struct tls_context *stranger;
	struct sockaddr_storage address = f.address;
	struct channel_options options = { .timeout_ms = 3000, .cancel_fd = -1 };
	uint8_t session[SESSION_SIZE] = { 0 };
	struct error err = ERROR_INIT;
	struct channel *channel;
	struct frame frame;

	put_certificate(dir, "client", &other, &(struct wish){ 0 });
	stranger = tls_context_new(dir, TLS_SOURCE, "127.0.0.1", NULL, &err);
	ck_assert_msg(stranger != NULL, "%s", err.message);
	f.target.hook = NULL;
	fixture_start(&f);
	ck_assert_int_eq(pthread_create(&guest, NULL, fixture_send, &f), 0);
	guest_started = true;
	wait_for_postcopy();
	options.tls = stranger;
	channel = channel_new(connect_to(&address, f.address_len), &options, &err);
	ck_assert_ptr_nonnull(channel);
	channel_send(channel, &(struct frame){ .type = FRAME_RECOVER }, session, sizeof(session),
		     NULL, 0, &err);
	ck_assert_int_eq(channel_receive(channel, &frame, 3000, &err), -EKEYREJECTED);
	ck_assert_msg(strstr(err.message, "refuses this side's certificate"), "%s", err.message);
	channel_free(channel);
	migration_send_set_bandwidth(f.send, 0);
	pthread_join(f.receive_thread, NULL);
	pthread_join(guest, NULL);
	guest_started = false;
	assert_moved(&f);
	tls_context_free(stranger);
	authority_free(&other);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("postcopy_tls");
	TCase *t = tcase_create("postcopy_tls");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_loop_test(t, memory_follows_and_what_is_waited_for_comes_first, 0,
			    ARRAY_SIZE(ways));
	tcase_add_test(t, keys_change_while_memory_follows);
	tcase_add_loop_test(
		t, connection_of_requests_that_is_cut_or_stalls_in_its_handshake_keeps_the_vm, 0,
		2 * ARRAY_SIZE(points));
	tcase_add_test(t, connections_that_are_cut_are_made_anew_over_tls);
	tcase_add_loop_test(t,
			    new_connection_that_is_cut_or_stalls_in_its_handshake_is_made_once_more,
			    0, CONNECTIONS * 2 * ARRAY_SIZE(points));
	tcase_add_test(t, source_that_comes_back_with_a_strangers_certificate_is_kept_out);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
