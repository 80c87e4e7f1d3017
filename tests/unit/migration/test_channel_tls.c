/* SPDX-License-Identifier: Apache-2.0 */
/* Channels with TLS, by both ways to the socket. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/channel.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/certificates.h"

#define BIG (3 * MIB)

static const struct {
	enum channel_kind kind;
	bool tcp, checksum;
} ways[] = {
	{ CHANNEL_PLAIN, false, true },
	{ CHANNEL_URING, false, false },
	{ CHANNEL_PLAIN, true, false },
	{ CHANNEL_URING, true, true },
};

static struct authority authority;
static char dir[TLS_DIR_SIZE];
static struct tls_context *contexts[2]; /* by enum tls_side */
static struct channel *source, *destination;
static int raw[2], cancel_fd;

static void make_pair(bool tcp, int fds[2])
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int listener;

	if (!tcp) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		return;
	}
	listener = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&in, sizeof(in)), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&in, &len), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fds[0], (struct sockaddr *)&in, sizeof(in)), 0);
	fds[1] = accept(listener, NULL, NULL);
	ck_assert_int_ge(fds[1], 0);
	close(listener);
}

static void read_contexts(void)
{
	for (int side = 0; side < 2; side++) {
		const char *host = side == TLS_SOURCE ? "127.0.0.1" : NULL;

		tls_context_free(contexts[side]);
		contexts[side] = tls_context_new(dir, side, host, NULL, NULL);
		ck_assert_ptr_nonnull(contexts[side]);
	}
}

static void set_up(void)
{
	authority = authority_new("one");
	make_tls_dir(dir, &authority);
	read_contexts();
	cancel_fd = eventfd_new();
}

static void tear_down(void)
{
	channel_free(source);
	channel_free(destination);
	source = destination = NULL;
	for (int side = 0; side < 2; side++)
		tls_context_free(contexts[side]);
	close(cancel_fd);
	remove_tls_dir(dir);
	authority_free(&authority);
}

static struct channel_options options_of(int way, const struct tls_context *tls)
{
	return (struct channel_options){
		.kind = ways[way].kind,
		.zero_copy = ZERO_COPY_ON,
		.checksum = ways[way].checksum,
		.stream = 5,
		.timeout_ms = 5000,
		.cancel_fd = cancel_fd,
		.tls = tls,
	};
}

static void open_channels(int way, bool source_tls, bool destination_tls)
{
	struct channel_options options = options_of(way, source_tls ? contexts[TLS_SOURCE] : NULL);

	make_pair(ways[way].tcp, raw);
	source = channel_new(raw[0], &options, NULL);
	options = options_of(way, destination_tls ? contexts[TLS_DESTINATION] : NULL);
	destination = channel_new(raw[1], &options, NULL);
	ck_assert_ptr_nonnull(source);
	ck_assert_ptr_nonnull(destination);
}

/* One side in a thread of its own. */
struct job {
	pthread_t thread;
	void (*run)(struct job *job);
	const uint8_t *data;
	unsigned int pings; /* to be sent at the end */
	int result;
	struct error err;
};

static void *job_main(void *opaque)
{
	struct job *job = opaque;

	job->run(job);
	return NULL;
}

static void job_start(struct job *job)
{
	ck_assert_int_eq(pthread_create(&job->thread, NULL, job_main, job), 0);
}

/* What the source does, all in one thread. */
static void ask(struct job *job)
{
	struct frame frame;

	job->result = channel_send(source, &(struct frame){ .type = FRAME_HELLO }, NULL, 0, NULL, 0,
				   &job->err);
	if (!job->result)
		job->result = channel_receive(source, &frame, 5000, &job->err);
	/* The destination's last words. */
	if (!job->result && frame.type == FRAME_FAILED)
		job->result = failed_decode("destination", channel_meta(source), frame.meta_len,
					    &job->err);
	for (unsigned int i = 0; !job->result && i < job->pings; i++)
		job->result = channel_send(source, &(struct frame){ .type = FRAME_PING },
					   (uint8_t[100]){ 1 }, 100, NULL, 0, &job->err);
}

static void answer(void)
{
	struct error err = ERROR_INIT;
	struct frame frame;
	int r = channel_receive(destination, &frame, 5000, &err);

	ck_assert_msg(!r, "%s", err.message);
	ck_assert_uint_eq(frame.type, FRAME_HELLO);
	ck_assert_int_eq(channel_send(destination, &(struct frame){ .type = FRAME_CREATED }, NULL,
				      0, NULL, 0, &err),
			 0);
}

static void shake_hands(int way, unsigned int pings)
{
	struct job job = { .run = ask, .pings = pings };

	open_channels(way, true, true);
	job_start(&job);
	answer();
	pthread_join(job.thread, NULL);
	ck_assert_msg(!job.result, "%s", job.err.message);
}

static void send_many(struct job *job)
{
	uint8_t meta[4 * PAGE_RUN_SIZE];
	struct iovec iov[4] = {
		{ (void *)job->data, 4096 },
		{ (void *)(job->data + 4096), MIB },
		{ (void *)(job->data + 4096 + MIB), 1 },
		{ (void *)(job->data + 4097 + MIB), BIG - 4097 - MIB },
	};

	memset(meta, 0x5a, sizeof(meta));
	for (unsigned int i = 0; i < 20 && !job->result; i++)
		job->result =
			channel_send(source, &(struct frame){ .type = FRAME_PAGES, .offset = i },
				     meta, sizeof(meta), iov, 4, &job->err);
	if (!job->result)
		job->result = channel_flush(source, &job->err);
}

START_TEST(frames_arrive_in_order_and_whole)
{
	uint8_t *data = malloc(BIG), *copy = malloc(BIG);
	struct job job = { .run = send_many, .data = data };

	for (size_t i = 0; i < BIG; i++)
		data[i] = (uint8_t)(i * 31 + i / 1000);
	open_channels(_i, true, true);
	ck_assert_str_eq(channel_io(source), ways[_i].kind == CHANNEL_PLAIN ? "plain" : "io_uring");
	ck_assert(!channel_zero_copy(source));
	job_start(&job);
	for (unsigned int i = 0; i < 20; i++) {
		struct iovec to[2] = { { copy, 10 }, { copy + 10, BIG - 10 } };
		struct error err = ERROR_INIT;
		struct frame frame;

		ck_assert_msg(!channel_receive(destination, &frame, -1, &err), "%s", err.message);
		ck_assert_uint_eq(frame.type, FRAME_PAGES);
		ck_assert_uint_eq(frame.offset, i);
		ck_assert_uint_eq(frame.length, BIG);
		ck_assert_uint_eq(channel_meta(destination)[63], 0x5a);
		memset(copy, 0, BIG);
		ck_assert_msg(!channel_receive_payload(destination, &frame, to, 2, &err), "%s",
			      err.message);
		ck_assert_int_eq(memcmp(copy, data, BIG), 0);
	}
	pthread_join(job.thread, NULL);
	ck_assert_int_eq(job.result, 0);
	/* Encrypted: more than there is. */
	ck_assert_uint_gt(channel_sent(source), 20 * (FRAME_HEADER_SIZE + 64 + BIG));
	free(data);
	free(copy);
}
END_TEST

static bool readable(int fd)
{
	return poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 200) > 0;
}

START_TEST(poll_tells_whether_there_is_a_frame)
{
	struct frame frame;

	shake_hands(_i, 3);
	for (int i = 0; i < 3; i++) {
		ck_assert(readable(channel_fd(destination)));
		ck_assert_int_eq(channel_receive(destination, &frame, 0, NULL), 0);
		ck_assert_uint_eq(frame.type, FRAME_PING);
	}
	ck_assert(!readable(channel_fd(destination)));
	ck_assert_int_eq(channel_receive(destination, &frame, 0, NULL), -ETIMEDOUT);
}
END_TEST

START_TEST(renewed_channel_goes_on_with_its_session)
{
	int other = (_i + 1) % 2 + (_i & 2); /* the other kind of channel */
	struct channel_options options = options_of(other, NULL);
	struct frame frame;

	shake_hands(_i, 1);
	destination = channel_renew(destination, &options, NULL);
	ck_assert_ptr_nonnull(destination);
	ck_assert_int_eq(channel_receive(destination, &frame, 5000, NULL), 0);
	ck_assert_uint_eq(frame.type, FRAME_PING);
}
END_TEST

START_TEST(end_between_frames_is_told_from_end_within)
{
	struct frame frame;

	shake_hands(_i, 0);
	if (_i & 1) {
		/* A record that is not all there. */
		ck_assert_int_eq(fd_write_full(raw[0], "\x17\x03\x03\x00\x40", 5), 0);
		shutdown(raw[0], SHUT_WR);
		ck_assert_int_eq(channel_receive(destination, &frame, 5000, NULL), -ECONNRESET);
	} else {
		shutdown(raw[0], SHUT_WR);
		ck_assert_int_eq(channel_receive(destination, &frame, 5000, NULL), -ENODATA);
	}
}
END_TEST

/* --- a handshake that does not come to its end ------------------------------------- */

START_TEST(handshake_with_one_who_is_silent_times_out)
{
	struct error err = ERROR_INIT;
	struct frame frame;
	uint64_t begun = clock_ms();
	int r;

	open_channels(_i / 2, true, true);
	channel_set_timeout(_i % 2 ? source : destination, 200);
	if (_i % 2) {
		r = channel_send(source, &(struct frame){ .type = FRAME_HELLO }, NULL, 0, NULL, 0,
				 &err);
	} else {
		/* It begins, and does not go on. */
		ck_assert_int_eq(fd_write_full(raw[0], "\x16\x03\x01\x01\x00", 5), 0);
		r = channel_receive(destination, &frame, 200, &err);
	}
	ck_assert_int_eq(r, -ETIMEDOUT);
	ck_assert_msg(strstr(err.message, "TLS handshake"), "%s", err.message);
	ck_assert_uint_lt(clock_ms() - begun, 4000);
}
END_TEST

static void cancel_soon(struct job *job)
{
	nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	eventfd_signal(cancel_fd);
}

START_TEST(handshake_ends_when_cancelled)
{
	struct job job = { .run = cancel_soon };
	struct frame frame;
	int r;

	open_channels(_i / 2, true, true);
	job_start(&job);
	if (_i % 2)
		r = channel_send(source, &(struct frame){ .type = FRAME_HELLO }, NULL, 0, NULL, 0,
				 NULL);
	else
		r = channel_receive(destination, &frame, 5000, NULL);
	ck_assert_int_eq(r, -ECANCELED);
	pthread_join(job.thread, NULL);
}
END_TEST

START_TEST(handshake_with_one_who_hangs_up_fails)
{
	struct error err = ERROR_INIT;
	struct frame frame;
	int r;

	open_channels(_i / 2, true, true);
	if (_i % 2) {
		shutdown(raw[1], SHUT_WR);
		r = channel_send(source, &(struct frame){ .type = FRAME_HELLO }, NULL, 0, NULL, 0,
				 &err);
	} else {
		ck_assert_int_eq(fd_write_full(raw[0], "\x16\x03\x01\x01\x00", 5), 0);
		shutdown(raw[0], SHUT_WR);
		r = channel_receive(destination, &frame, 5000, &err);
	}
	ck_assert_int_eq(r, -ECONNRESET);
	ck_assert_msg(strstr(err.message, "TLS handshake"), "%s", err.message);
}
END_TEST

/* Somebody who looks whether anybody listens. */
START_TEST(peer_that_says_nothing_and_goes_is_no_peer)
{
	struct frame frame;

	open_channels(_i, true, true);
	shutdown(raw[0], SHUT_WR);
	ck_assert_int_eq(channel_receive(destination, &frame, 5000, NULL), -ENODATA);
	ck_assert_uint_eq(channel_received(destination), 0);
}
END_TEST

/* --- plain and TLS ------------------------------------------------------------------- */

START_TEST(plain_source_is_told_that_tls_is_asked_for)
{
	struct job job = { .run = ask };
	struct error err = ERROR_INIT;
	struct frame frame;

	open_channels(_i, false, true);
	job_start(&job);
	ck_assert_int_eq(channel_receive(destination, &frame, 5000, &err), -EKEYREJECTED);
	ck_assert_msg(strstr(err.message, "the source does not speak it"), "%s", err.message);
	channel_free(destination);
	destination = NULL;
	pthread_join(job.thread, NULL);
	ck_assert_int_lt(job.result, 0);
	ck_assert_msg(strstr(job.err.message, "asks for TLS"), "%s", job.err.message);
}
END_TEST

START_TEST(plain_destination_is_found_out_and_finds_out)
{
	struct job job = { .run = ask };
	struct error err = ERROR_INIT;
	struct frame frame;

	open_channels(_i, true, false);
	job_start(&job);
	ck_assert_int_eq(channel_receive(destination, &frame, 5000, &err), -EPROTO);
	ck_assert_msg(strstr(err.message, "speaks TLS"), "%s", err.message);
	channel_free(destination);
	destination = NULL;
	pthread_join(job.thread, NULL);
	ck_assert_int_eq(job.result, -EKEYREJECTED);
	ck_assert_msg(strstr(job.err.message, "the destination does not speak it"), "%s",
		      job.err.message);
}
END_TEST

START_TEST(who_speaks_neither_is_refused)
{
	static const char request[] = "GET / HTTP/1.1\r\n\r\n";
	struct error err = ERROR_INIT;
	struct frame frame;

	open_channels(_i, true, true);
	ck_assert_int_eq(fd_write_full(raw[0], request, sizeof(request)), 0);
	ck_assert_int_eq(channel_receive(destination, &frame, 5000, &err), -EKEYREJECTED);
	ck_assert_msg(strstr(err.message, "does not speak it"), "%s", err.message);
}
END_TEST

/* --- certificates: what each side says -------------------------------------------- */

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

START_TEST(refused_certificate_is_told_on_both_sides)
{
	unsigned int n = (unsigned int)_i / 4;
	struct authority other = authority_new("another");
	struct job job = { .run = ask };
	struct error err = ERROR_INIT;
	struct frame frame;

	put_certificate(dir, refused[n].what, refused[n].stranger ? &other : &authority,
			&refused[n].wish);
	read_contexts();
	open_channels(_i % 4, true, true);
	job_start(&job);
	ck_assert_int_eq(channel_receive(destination, &frame, 5000, &err), -EKEYREJECTED);
	ck_assert_msg(strstr(err.message, refused[n].destination_says), "%s", err.message);
	channel_free(destination);
	destination = NULL;
	pthread_join(job.thread, NULL);
	ck_assert_int_eq(job.result, -EKEYREJECTED);
	ck_assert_msg(strstr(job.err.message, refused[n].source_says), "%s", job.err.message);
	authority_free(&other);
}
END_TEST

/* A TLS client that is not Ferry. */
static SSL *other_client(SSL_CTX *ssl)
{
	SSL *client;

	SSL_CTX_set_verify(ssl, SSL_VERIFY_NONE, NULL);
	client = SSL_new(ssl);
	SSL_set_fd(client, raw[0]);
	return client;
}

static SSL *connecting;

static void connect_client(struct job *job)
{
	uint8_t buf[100];

	job->result = SSL_connect(connecting);
	if (job->result == 1)
		job->result = SSL_read(connecting, buf, sizeof(buf));
}

static void assert_refused(SSL_CTX *ssl, const char *says)
{
	struct job job = { .run = connect_client };
	struct error err = ERROR_INIT;
	struct frame frame;

	connecting = other_client(ssl);
	job_start(&job);
	ck_assert_int_eq(channel_receive(destination, &frame, 5000, &err), -EKEYREJECTED);
	ck_assert_msg(strstr(err.message, says), "%s", err.message);
	channel_free(destination);
	destination = NULL;
	pthread_join(job.thread, NULL);
	ck_assert_int_le(job.result, 0);
	SSL_free(connecting);
	SSL_CTX_free(ssl);
}

START_TEST(source_without_a_certificate_is_refused)
{
	open_channels(_i, false, true);
	fd_set_nonblocking(raw[0], false);
	assert_refused(SSL_CTX_new(TLS_client_method()), "shows no certificate");
}
END_TEST

START_TEST(older_tls_is_refused)
{
	SSL_CTX *ssl = SSL_CTX_new(TLS_client_method());

	SSL_CTX_set_max_proto_version(ssl, TLS1_2_VERSION);
	open_channels(_i, false, true);
	fd_set_nonblocking(raw[0], false);
	assert_refused(ssl, "unsupported protocol");
}
END_TEST

static void use_own(SSL_CTX *ssl)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/client-cert.pem", dir);
	ck_assert_int_eq(SSL_CTX_use_certificate_file(ssl, path, SSL_FILETYPE_PEM), 1);
	snprintf(path, sizeof(path), "%s/client-key.pem", dir);
	ck_assert_int_eq(SSL_CTX_use_PrivateKey_file(ssl, path, SSL_FILETYPE_PEM), 1);
}

static void send_two_frames(struct job *job)
{
	uint8_t two[2 * FRAME_HEADER_SIZE];

	frame_encode(&(struct frame){ .type = FRAME_PING }, two);
	memcpy(two + FRAME_HEADER_SIZE, two, FRAME_HEADER_SIZE);
	ck_assert_int_eq(SSL_connect(connecting), 1);
	ck_assert_int_eq(SSL_write(connecting, two, sizeof(two)), (int)sizeof(two));
}

/* Nobody would be woken for the second. */
START_TEST(frames_that_share_a_record_are_refused)
{
	SSL_CTX *ssl = SSL_CTX_new(TLS_client_method());
	struct job job = { .run = send_two_frames };
	struct error err = ERROR_INIT;
	struct frame frame;

	use_own(ssl);
	open_channels(_i, false, true);
	fd_set_nonblocking(raw[0], false);
	connecting = other_client(ssl);
	job_start(&job);
	ck_assert_int_eq(channel_receive(destination, &frame, 5000, &err), 0);
	ck_assert_int_eq(channel_receive(destination, &frame, 5000, &err), -EBADMSG);
	pthread_join(job.thread, NULL);
	SSL_free(connecting);
	SSL_CTX_free(ssl);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("channel_tls");
	TCase *t = tcase_create("channel_tls");
	int n = ARRAY_SIZE(ways);

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_loop_test(t, frames_arrive_in_order_and_whole, 0, n);
	tcase_add_loop_test(t, poll_tells_whether_there_is_a_frame, 0, n);
	tcase_add_loop_test(t, renewed_channel_goes_on_with_its_session, 0, n);
	tcase_add_loop_test(t, end_between_frames_is_told_from_end_within, 0, n);
	tcase_add_loop_test(t, handshake_with_one_who_is_silent_times_out, 0, 2 * n);
	tcase_add_loop_test(t, handshake_ends_when_cancelled, 0, 2 * n);
	tcase_add_loop_test(t, handshake_with_one_who_hangs_up_fails, 0, 2 * n);
	tcase_add_loop_test(t, peer_that_says_nothing_and_goes_is_no_peer, 0, n);
	tcase_add_loop_test(t, plain_source_is_told_that_tls_is_asked_for, 0, n);
	tcase_add_loop_test(t, plain_destination_is_found_out_and_finds_out, 0, n);
	tcase_add_loop_test(t, who_speaks_neither_is_refused, 0, n);
	tcase_add_loop_test(t, refused_certificate_is_told_on_both_sides, 0,
			    4 * ARRAY_SIZE(refused));
	tcase_add_loop_test(t, source_without_a_certificate_is_refused, 0, n);
	tcase_add_loop_test(t, older_tls_is_refused, 0, n);
	tcase_add_loop_test(t, frames_that_share_a_record_are_refused, 0, n);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
