/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/channel.h"
#include "migration/crc32c.h"
#include "tests/unit/helpers/run_suite.h"

#define BIG (3 * MIB)

static const struct {
	enum channel_kind kind;
	bool tcp;
	enum channel_zero_copy zero_copy;
	bool checksum;
} ways[] = {
	{ CHANNEL_PLAIN, false, ZERO_COPY_AUTO, false },
	{ CHANNEL_URING, false, ZERO_COPY_ON, false },
	{ CHANNEL_PLAIN, true, ZERO_COPY_AUTO, true },
	{ CHANNEL_URING, true, ZERO_COPY_OFF, true },
	{ CHANNEL_URING, true, ZERO_COPY_ON, false },
};

static struct channel *a, *b;
static int raw[2], cancel_fd;

static void tcp_pair(int fds[2])
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(listener, (struct sockaddr *)&in, sizeof(in)), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&in, &len), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fds[0], (struct sockaddr *)&in, sizeof(in)), 0);
	fds[1] = accept(listener, NULL, NULL);
	ck_assert_int_ge(fds[1], 0);
	close(listener);
}

static struct channel_options options_of(int way)
{
	return (struct channel_options){
		.kind = ways[way].kind,
		.zero_copy = ways[way].zero_copy,
		.checksum = ways[way].checksum,
		.stream = 5,
		.timeout_ms = 2000,
		.cancel_fd = cancel_fd,
	};
}

static void set_up(int way, const struct channel_options *options)
{
	cancel_fd = eventfd_new();
	if (ways[way].tcp)
		tcp_pair(raw);
	else
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, raw), 0);
	struct channel_options own = options ? *options : options_of(way);

	own.cancel_fd = cancel_fd;
	a = channel_new(raw[0], &own, NULL);
	b = channel_new(raw[1], &own, NULL);
	ck_assert_ptr_nonnull(a);
	ck_assert_ptr_nonnull(b);
}

static void tear_down(void)
{
	channel_free(a);
	channel_free(b);
	close(cancel_fd);
}

struct job {
	const uint8_t *data;
	struct iovec iov[4];
	int result;
};

static void *send_job(void *opaque)
{
	struct job *job = opaque;
	uint8_t meta[4 * PAGE_RUN_SIZE];

	memset(meta, 0x5a, sizeof(meta));
	for (int i = 0; i < 40 && !job->result; i++)
		job->result = channel_send(a, &(struct frame){ .type = FRAME_PAGES, .offset = i },
					   meta, sizeof(meta), job->iov, 4, NULL);
	if (!job->result)
		job->result = channel_flush(a, NULL);
	return NULL;
}

START_TEST(frames_arrive_in_order_and_whole)
{
	uint8_t *data = malloc(BIG), *copy = malloc(BIG);
	struct job job = { .data = data };
	pthread_t thread;

	for (size_t i = 0; i < BIG; i++)
		data[i] = (uint8_t)(i * 31 + i / 1000);
	job.iov[0] = (struct iovec){ data, 4096 };
	job.iov[1] = (struct iovec){ data + 4096, MIB };
	job.iov[2] = (struct iovec){ data + 4096 + MIB, 1 };
	job.iov[3] = (struct iovec){ data + 4097 + MIB, BIG - 4097 - MIB };
	set_up(_i, NULL);
	ck_assert_str_eq(channel_io(a), ways[_i].kind == CHANNEL_PLAIN ? "plain" : "io_uring");
	ck_assert_int_eq(channel_zero_copy(a), ways[_i].tcp && ways[_i].zero_copy == ZERO_COPY_ON);
	pthread_create(&thread, NULL, send_job, &job);
	for (int i = 0; i < 40; i++) {
		struct iovec to[2] = { { copy, 10 }, { copy + 10, BIG - 10 } };
		struct frame frame;

		ck_assert_int_eq(channel_receive(b, &frame, -1, NULL), 0);
		ck_assert_uint_eq(frame.type, FRAME_PAGES);
		ck_assert_uint_eq(frame.offset, i);
		ck_assert_uint_eq(frame.stream, 5);
		ck_assert_uint_eq(frame.length, BIG);
		ck_assert_uint_eq(frame.meta_len, 4 * PAGE_RUN_SIZE);
		ck_assert_uint_eq(channel_meta(b)[63], 0x5a);
		ck_assert_int_eq(!!(frame.flags & FRAME_PAYLOAD_CRC), ways[_i].checksum);
		memset(copy, 0, BIG);
		ck_assert_int_eq(channel_receive_payload(b, &frame, to, 2, NULL), 0);
		ck_assert_int_eq(memcmp(copy, data, BIG), 0);
	}
	pthread_join(thread, NULL);
	ck_assert_int_eq(job.result, 0);
	ck_assert_uint_eq(channel_sent(a), 40 * (FRAME_HEADER_SIZE + 64 + BIG));
	ck_assert_uint_eq(channel_received(b), channel_sent(a));
	tear_down();
	free(data);
	free(copy);
}
END_TEST

START_TEST(blobs_have_a_checksum_always)
{
	struct iovec iov = { (void *)"hello", 5 };
	struct frame frame;
	void *blob;

	set_up(_i, NULL);
	ck_assert_int_eq(
		channel_send(a, &(struct frame){ .type = FRAME_CONFIG }, NULL, 0, &iov, 1, NULL),
		0);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
	ck_assert(frame.flags & FRAME_PAYLOAD_CRC);
	ck_assert_int_eq(channel_receive_blob(b, &frame, &blob, NULL), 0);
	ck_assert_str_eq(blob, "hello");
	free(blob);
	tear_down();
}
END_TEST

static void put_frame(int fd, uint16_t type, uint16_t flags, const char *payload, uint32_t crc)
{
	struct frame frame = {
		.type = type,
		.flags = flags,
		.length = strlen(payload),
		.payload_crc = crc,
	};
	uint8_t header[FRAME_HEADER_SIZE];

	frame_encode(&frame, header);
	ck_assert_int_eq(fd_write_full(fd, header, sizeof(header)), 0);
	ck_assert_int_eq(fd_write_full(fd, payload, strlen(payload)), 0);
}

START_TEST(unknown_optional_frames_are_skipped_and_others_are_not)
{
	struct frame frame;
	char buf[9000];

	memset(buf, 'x', sizeof(buf) - 1);
	buf[sizeof(buf) - 1] = 0;
	set_up(_i, NULL);
	put_frame(raw[0], 999, FRAME_OPTIONAL, buf, 0);
	put_frame(raw[0], 0, FRAME_OPTIONAL, "", 0);
	put_frame(raw[0], FRAME_READY, 0, "", 0);
	put_frame(raw[0], 999, 0, "", 0);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
	ck_assert_uint_eq(frame.type, FRAME_READY);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), -EPROTO);
	tear_down();
}
END_TEST

START_TEST(damaged_payload_and_blob_without_checksum_are_refused)
{
	struct frame frame;
	void *blob = NULL;

	set_up(_i, NULL);
	put_frame(raw[0], FRAME_CONFIG, FRAME_PAYLOAD_CRC, "hello", crc32c(0, "hellO", 5));
	put_frame(raw[0], FRAME_CONFIG, 0, "hello", 0);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
	ck_assert_int_eq(channel_receive_blob(b, &frame, &blob, NULL), -EBADMSG);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
	ck_assert_int_eq(channel_receive_blob(b, &frame, &blob, NULL), -EPROTO);
	ck_assert_ptr_null(blob);
	tear_down();
}
END_TEST

START_TEST(end_between_frames_is_told_from_end_within)
{
	struct frame frame;
	uint8_t header[FRAME_HEADER_SIZE];
	int way = _i / 60, cut = _i % 60;

	set_up(way, NULL);
	frame_encode(&(struct frame){ .type = FRAME_CONFIG,
				      .flags = FRAME_PAYLOAD_CRC,
				      .length = 5,
				      .payload_crc = crc32c(0, "hello", 5) },
		     header);
	ck_assert_int_eq(fd_write_full(raw[0], header, MIN(cut, 48)), 0);
	if (cut > 48)
		ck_assert_int_eq(fd_write_full(raw[0], "hello", MIN(cut - 48, 5)), 0);
	shutdown(raw[0], SHUT_WR);
	if (cut < 48) {
		ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL),
				 cut ? -ECONNRESET : -ENODATA);
	} else {
		void *blob;
		int r;

		ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
		r = channel_receive_blob(b, &frame, &blob, NULL);
		ck_assert_int_eq(r, cut < 53 ? -ECONNRESET : 0);
		if (!r)
			free(blob);
	}
	tear_down();
}
END_TEST

START_TEST(what_is_there_is_received_without_time)
{
	struct frame frame;

	set_up(_i, NULL);
	put_frame(raw[0], FRAME_READY, 0, "", 0);
	ck_assert_int_eq(channel_receive(b, &frame, 0, NULL), 0);
	ck_assert_int_eq(channel_receive(b, &frame, 0, NULL), -ETIMEDOUT);
	tear_down();
}
END_TEST

START_TEST(receiver_that_gets_nothing_times_out)
{
	struct channel_options options = options_of(_i);
	uint8_t header[FRAME_HEADER_SIZE];
	struct error err = ERROR_INIT;
	struct frame frame;
	uint64_t begun = clock_ms();

	options.timeout_ms = 100;
	set_up(_i, &options);
	/* Before a frame: as long as the call says; within one: the channel's. */
	ck_assert_int_eq(channel_receive(b, &frame, 50, &err), -ETIMEDOUT);
	frame_encode(&(struct frame){ .type = FRAME_READY }, header);
	tear_down();
	set_up(_i, &options);
	ck_assert_int_eq(fd_write_full(raw[0], header, 20), 0);
	ck_assert_int_eq(channel_receive(b, &frame, -1, &err), -ETIMEDOUT);
	ck_assert_int_ge((int)(clock_ms() - begun), 140);
	ck_assert_int_lt((int)(clock_ms() - begun), 1500);
	tear_down();
}
END_TEST

static int send_much(void)
{
	static uint8_t page[256 * 4096];
	struct iovec iov = { page, sizeof(page) };
	int r = 0;

	for (int i = 0; i < 64 && !r; i++)
		r = channel_send(a, &(struct frame){ .type = FRAME_PAGES }, NULL, 0, &iov, 1, NULL);
	return r;
}

START_TEST(sender_to_one_who_reads_nothing_times_out)
{
	struct channel_options options = options_of(_i);
	uint64_t begun = clock_ms();

	options.timeout_ms = 100;
	set_up(_i, &options);
	ck_assert_int_eq(send_much(), -ETIMEDOUT);
	ck_assert_int_lt((int)(clock_ms() - begun), 3000);
	tear_down();
}
END_TEST

static void *signal_later(void *opaque)
{
	nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	eventfd_signal(cancel_fd);
	return NULL;
}

START_TEST(everything_ends_when_cancelled)
{
	struct frame frame;
	pthread_t thread;

	set_up(_i, NULL);
	pthread_create(&thread, NULL, signal_later, NULL);
	ck_assert_int_eq(channel_receive(b, &frame, -1, NULL), -ECANCELED);
	pthread_join(thread, NULL);
	ck_assert_int_eq(
		channel_send(a, &(struct frame){ .type = FRAME_READY }, NULL, 0, NULL, 0, NULL),
		-ECANCELED);
	tear_down();
	set_up(_i, NULL);
	pthread_create(&thread, NULL, signal_later, NULL);
	ck_assert_int_eq(send_much(), -ECANCELED);
	pthread_join(thread, NULL);
	/* Also what waits for the limit on bandwidth. */
	tear_down();
	struct channel_options options = options_of(_i);
	struct bandwidth bandwidth;

	bandwidth_init(&bandwidth, 1000);
	options.bandwidth = &bandwidth;
	set_up(_i, &options);
	pthread_create(&thread, NULL, signal_later, NULL);
	ck_assert_int_eq(send_much(), -ECANCELED);
	pthread_join(thread, NULL);
	tear_down();
	bandwidth_destroy(&bandwidth);
}
END_TEST

START_TEST(sending_to_one_who_is_gone_fails)
{
	int r = 0;

	set_up(_i, NULL);
	channel_free(b);
	b = NULL;
	for (int i = 0; i < 10 && !r; i++) {
		r = channel_send(a, &(struct frame){ .type = FRAME_READY }, NULL, 0, NULL, 0, NULL);
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	ck_assert_int_eq(r, -ECONNRESET);
	tear_down();
}
END_TEST

START_TEST(peer_sees_the_end_when_the_channel_is_freed)
{
	struct frame frame;

	set_up(_i, NULL);
	ck_assert_int_eq(
		channel_send(a, &(struct frame){ .type = FRAME_READY }, NULL, 0, NULL, 0, NULL), 0);
	channel_free(a);
	a = NULL;
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), -ENODATA);
	tear_down();
}
END_TEST

START_TEST(descriptors_come_along)
{
	int fds[3] = { memfd_create("x", 0), memfd_create("y", 0), memfd_create("z", 0) }, got[3];
	struct frame frame;

	set_up(0, NULL);
	ck_assert_int_eq(channel_send_fds(a, &(struct frame){ .type = FRAME_MEMORY }, "abcd", 4,
					  fds, 3, NULL),
			 0);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
	ck_assert_uint_eq(frame.meta_len, 4);
	ck_assert_uint_eq(channel_take_fds(b, got, 2), 2); /* the third is closed */
	ck_assert_uint_eq(channel_take_fds(b, got, 3), 0);
	ck_assert(fcntl(got[0], F_GETFD) & FD_CLOEXEC);
	close(got[0]);
	close(got[1]);
	/* Nobody takes these. */
	ck_assert_int_eq(channel_send_fds(a, &(struct frame){ .type = FRAME_MEMORY }, "abcd", 4,
					  fds, 3, NULL),
			 0);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
	tear_down();
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}
END_TEST

START_TEST(renewed_channel_goes_on_where_the_old_one_was)
{
	struct frame frame;

	set_up(0, NULL);
	put_frame(raw[0], FRAME_READY, 0, "", 0);
	put_frame(raw[0], FRAME_COMMIT, 0, "", 0);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
	b = channel_renew(b, &(struct channel_options){ .cancel_fd = -1, .timeout_ms = 1000 },
			  NULL);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
	ck_assert_uint_eq(frame.type, FRAME_COMMIT);
	tear_down();
}
END_TEST

START_TEST(failure_is_told_but_not_waited_for)
{
	struct error err = ERROR_INIT;
	struct frame frame;
	uint64_t begun;

	set_up(0, NULL);
	error_set(&err, EIO, "broken");
	channel_send_failed(a, &err);
	ck_assert_int_eq(channel_receive(b, &frame, 1000, NULL), 0);
	ck_assert_uint_eq(frame.type, FRAME_FAILED);
	ck_assert_int_eq(memcmp(channel_meta(b) + 4, "broken", 6), 0);
	while (send(raw[0], "x", 1, MSG_DONTWAIT) > 0)
		;
	begun = clock_ms();
	channel_send_failed(a, &err);
	ck_assert_int_lt((int)(clock_ms() - begun), 1000);
	tear_down();
}
END_TEST

START_TEST(bandwidth_is_shared_and_kept)
{
	struct bandwidth bandwidth;
	uint64_t begun = clock_ms();

	bandwidth_init(&bandwidth, 10 * MIB);
	for (int i = 0; i < 30; i++)
		ck_assert_int_eq(bandwidth_take(&bandwidth, 100 * KIB, -1), 0);
	/* 3000 KiB at 10 MiB/s: 290 ms */
	ck_assert_int_ge((int)(clock_ms() - begun), 200);
	ck_assert_int_lt((int)(clock_ms() - begun), 900);
	bandwidth_set(&bandwidth, 0);
	begun = clock_ms();
	ck_assert_int_eq(bandwidth_take(&bandwidth, 100 * GIB, -1), 0);
	ck_assert_int_lt((int)(clock_ms() - begun), 100);
	bandwidth_set(&bandwidth, UINT64_MAX);
	ck_assert_int_eq(bandwidth_take(&bandwidth, 100 * MIB, -1), 0);
	bandwidth_destroy(&bandwidth);
}
END_TEST

static Suite *channel_suite(void)
{
	Suite *suite = suite_create("channel");
	TCase *tcase = tcase_create("channel");
	int n = ARRAY_SIZE(ways);

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, frames_arrive_in_order_and_whole, 0, n);
	tcase_add_loop_test(tcase, blobs_have_a_checksum_always, 0, n);
	tcase_add_loop_test(tcase, unknown_optional_frames_are_skipped_and_others_are_not, 0, n);
	tcase_add_loop_test(tcase, damaged_payload_and_blob_without_checksum_are_refused, 0, n);
	tcase_add_loop_test(tcase, end_between_frames_is_told_from_end_within, 0, 60 * n);
	tcase_add_loop_test(tcase, what_is_there_is_received_without_time, 0, n);
	tcase_add_loop_test(tcase, receiver_that_gets_nothing_times_out, 0, n);
	tcase_add_loop_test(tcase, sender_to_one_who_reads_nothing_times_out, 0, n);
	tcase_add_loop_test(tcase, everything_ends_when_cancelled, 0, n);
	tcase_add_loop_test(tcase, sending_to_one_who_is_gone_fails, 0, n);
	tcase_add_loop_test(tcase, peer_sees_the_end_when_the_channel_is_freed, 0, n);
	tcase_add_test(tcase, descriptors_come_along);
	tcase_add_test(tcase, renewed_channel_goes_on_where_the_old_one_was);
	tcase_add_test(tcase, failure_is_told_but_not_waited_for);
	tcase_add_test(tcase, bandwidth_is_shared_and_kept);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(channel_suite());
}
