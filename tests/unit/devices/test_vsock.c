/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "devices/virtio/virtio_vsock_priv.h"
#include "tests/unit/helpers/fake_driver.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/host_program.h"
#include "tests/unit/helpers/run_suite.h"

#define RAM (16 * MIB)
#define RINGS 0x10000
#define RX_AT (4 * MIB)
#define RX_SIZE 4096
#define TX_AT (8 * MIB)
#define CID 42
#define GUEST_PORT 52
#define WAIT_MS 3000
#define EVENTS (VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC))

static struct fake_host host;
static struct fake_transport transport;
static struct virtio_device *dev;
static char dir[32], path[64], listener_path[80];

/* The guest's end of one connection, as a driver would keep it. */
struct guest {
	uint32_t host_port, port;
	uint32_t buf_alloc, fwd_cnt; /* what we tell */
	uint32_t sent, peer_buf_alloc, peer_fwd_cnt;
};

struct packet {
	struct virtio_vsock_hdr h;
	uint8_t data[RX_SIZE];
};

static uint64_t rx_gpa[VSOCK_QUEUE_SIZE]; /* by head */

static uint8_t *ram(uint64_t gpa)
{
	return guest_memory_ptr(host.host.memory, gpa, 1);
}

static void post_rx(uint64_t gpa)
{
	uint16_t head = fake_driver_add(&transport.drivers[VSOCK_RX],
					&(struct fake_buffer){ gpa, RX_SIZE, true }, 1);

	rx_gpa[head] = gpa;
}

static void post_many(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		post_rx(RX_AT + (uint64_t)i * RX_SIZE);
	fake_transport_kick(&transport, VSOCK_RX);
}

static void make(void)
{
	struct virtio_vsock_options options = { .cid = CID, .socket = path };
	struct error err = ERROR_INIT;

	dev = virtio_vsock_new(&host.host, "vsock0", &options, &err);
	ck_assert_msg(dev != NULL, "%s", err.message);
	fake_transport_attach(&transport, dev);
}

static void start(uint64_t features, unsigned int rx_buffers)
{
	make();
	fake_transport_activate(&transport, features, RINGS, 0);
	post_many(rx_buffers);
}

static void setup(void)
{
	strcpy(dir, "/tmp/vsock.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/v", dir);
	snprintf(listener_path, sizeof(listener_path), "%s_%u", path, 1234);
	ck_assert_int_eq(fake_host_init_ram(&host, RAM), 0);
	dev = NULL;
}

static void teardown(void)
{
	if (dev)
		fake_transport_destroy(&transport);
	fake_host_destroy_ram(&host);
	unlink(listener_path);
	unlink(path);
	ck_assert_int_eq(rmdir(dir), 0);
}

/* Raw bytes to the device, and back from it. */

static void send_raw(const void *bytes, uint32_t len, uint32_t buffer_len)
{
	uint16_t id;
	uint32_t used;

	memcpy(ram(TX_AT), bytes, len);
	fake_driver_add(&transport.drivers[VSOCK_TX],
			&(struct fake_buffer){ TX_AT, buffer_len, false }, 1);
	fake_transport_kick(&transport, VSOCK_TX);
	ck_assert(fake_transport_wait_used(&transport, VSOCK_TX, &id, &used, WAIT_MS));
	ck_assert_uint_eq(used, 0);
}

static bool receive_within(struct packet *p, unsigned int timeout_ms)
{
	uint64_t gpa;
	uint16_t id;
	uint32_t len;

	if (!fake_transport_wait_used(&transport, VSOCK_RX, &id, &len, timeout_ms))
		return false;
	gpa = rx_gpa[id];
	ck_assert_uint_ge(len, sizeof(p->h));
	memcpy(p, ram(gpa), len);
	ck_assert_uint_eq(len, sizeof(p->h) + p->h.len);
	ck_assert_uint_eq(p->h.dst_cid, CID);
	post_rx(gpa);
	fake_transport_kick(&transport, VSOCK_RX);
	return true;
}

static void receive(struct packet *p)
{
	ck_assert_msg(receive_within(p, WAIT_MS), "nothing from the device");
}

static struct virtio_vsock_hdr header(const struct guest *g, uint16_t op, uint32_t len)
{
	return (struct virtio_vsock_hdr){
		.src_cid = CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = g->port,
		.dst_port = g->host_port,
		.len = len,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = g->buf_alloc,
		.fwd_cnt = g->fwd_cnt,
	};
}

static void send_op(const struct guest *g, uint16_t op, uint32_t flags)
{
	struct virtio_vsock_hdr h = header(g, op, 0);

	h.flags = flags;
	send_raw(&h, sizeof(h), sizeof(h));
}

static void send_data(struct guest *g, const void *data, uint32_t len)
{
	static uint8_t raw[sizeof(struct virtio_vsock_hdr) + 100000];
	struct virtio_vsock_hdr h = header(g, VIRTIO_VSOCK_OP_RW, len);

	memcpy(raw, &h, sizeof(h));
	memcpy(raw + sizeof(h), data, len);
	send_raw(raw, (uint32_t)sizeof(h) + len, (uint32_t)sizeof(h) + len);
	g->sent += len;
}

static void learn(struct guest *g, const struct packet *p)
{
	g->peer_buf_alloc = p->h.buf_alloc;
	g->peer_fwd_cnt = p->h.fwd_cnt;
}

/* The next packet of the connection is of this op. */
static void expect(struct guest *g, struct packet *p, uint16_t op)
{
	receive(p);
	ck_assert_uint_eq(p->h.op, op);
	ck_assert_uint_eq(p->h.src_cid, VSOCK_CID_HOST);
	ck_assert_uint_eq(p->h.src_port, g->host_port);
	ck_assert_uint_eq(p->h.dst_port, g->port);
	ck_assert_uint_eq(p->h.type, VIRTIO_VSOCK_TYPE_STREAM);
	learn(g, p);
}

static void expect_silence(void)
{
	struct packet p;

	ck_assert(!receive_within(&p, 50));
}

/* Host programs. */

static int client(void)
{
	return client_of(path);
}

/* A client through to the guest's port. */
static int connect_client(struct guest *g)
{
	struct packet p;
	char text[32];
	int fd = client();

	say(fd, "CONNECT 52\n");
	receive(&p);
	ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_REQUEST);
	*g = (struct guest){ .host_port = p.h.src_port, .port = p.h.dst_port, .buf_alloc = 65536 };
	learn(g, &p);
	ck_assert_uint_eq(g->port, GUEST_PORT);
	ck_assert_uint_eq(g->peer_buf_alloc, VSOCK_BUFFER_SIZE);
	send_op(g, VIRTIO_VSOCK_OP_RESPONSE, 0);
	snprintf(text, sizeof(text), "OK %u\n", g->host_port);
	hear(fd, text);
	return fd;
}

static int listen_at(const char *at)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, at);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(fd, 5), 0);
	return fd;
}

static struct vsock *inside(void)
{
	return container_of(dev, struct vsock, dev);
}

/* What the device's thread sees when everything it was told so far is done. */
struct look {
	unsigned int conns;
	uint32_t buffered; /* of the first connection */
};

static void look_inside(void *opaque)
{
	struct look *look = opaque;
	const struct vsock_conn *first = TAILQ_FIRST(&inside()->all);

	look->conns = inside()->conns;
	look->buffered = first ? first->buffer_len : 0;
}

static struct look settle(void)
{
	struct look look;

	for (int i = 0; i < 3; i++)
		loop_call(inside()->loop, look_inside, &look);
	return look;
}

/* Those left; waits a little for none. */
static unsigned int connections(void)
{
	struct look look = settle();

	for (int i = 0; i < 200 && look.conns; i++) {
		usleep(1000);
		look = settle();
	}
	return look.conns;
}

START_TEST(client_reaches_the_guests_port)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS | (_i ? VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) : 0), 16);
	fd = connect_client(&g);
	ck_assert_uint_ge(g.host_port, VSOCK_PORT_FIRST);
	say(fd, "hello");
	expect(&g, &p, VIRTIO_VSOCK_OP_RW);
	ck_assert_uint_eq(p.h.len, 5);
	ck_assert_mem_eq(p.data, "hello", 5);
	send_data(&g, "welcome", 7);
	hear(fd, "welcome");
	ck_assert(fake_transport_wait_signal(&transport, VSOCK_RX, WAIT_MS));
	ck_assert_uint_eq(dev->counters[VSOCK_COUNTER_RX_BYTES].value, 5);
	ck_assert_uint_eq(dev->counters[VSOCK_COUNTER_TX_BYTES].value, 7);
	close(fd);
}
END_TEST

START_TEST(guest_reaches_a_listener_of_the_host)
{
	struct guest g = { .host_port = 1234, .port = 7777, .buf_alloc = 65536 };
	struct packet p;
	int listener = listen_at(listener_path), fd;

	start(EVENTS, 16);
	send_op(&g, VIRTIO_VSOCK_OP_REQUEST, 0);
	expect(&g, &p, VIRTIO_VSOCK_OP_RESPONSE);
	ck_assert_uint_eq(p.h.buf_alloc, VSOCK_BUFFER_SIZE);
	fd = accept(listener, NULL, NULL);
	send_data(&g, "ping", 4);
	hear(fd, "ping");
	say(fd, "pong");
	expect(&g, &p, VIRTIO_VSOCK_OP_RW);
	ck_assert_mem_eq(p.data, "pong", 4);
	close(fd);
	close(listener);
}
END_TEST

START_TEST(request_nobody_listens_for_is_reset)
{
	struct guest g = { .host_port = 1234, .port = 7777, .buf_alloc = 65536 };
	struct packet p;

	start(EVENTS, 16);
	send_op(&g, VIRTIO_VSOCK_OP_REQUEST, 0);
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	close(listen_at(listener_path)); /* a file, but nobody behind it */
	send_op(&g, VIRTIO_VSOCK_OP_REQUEST, 0);
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(connections(), 0);
}
END_TEST

START_TEST(client_the_guest_refuses_is_closed)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = client();
	say(fd, "CONNECT 1\n");
	receive(&p);
	g = (struct guest){ .host_port = p.h.src_port, .port = 1 };
	send_op(&g, VIRTIO_VSOCK_OP_RST, 0);
	expect_eof(fd);
	close(fd);
	ck_assert_uint_eq(connections(), 0);
	expect_silence();
}
END_TEST

START_TEST(data_right_behind_the_line_are_the_guests)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = client();
	say(fd, "CONN");
	usleep(20000);
	say(fd, "ECT 52");
	usleep(20000);
	say(fd, "\nfirst words");
	receive(&p);
	ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_REQUEST);
	g = (struct guest){ .host_port = p.h.src_port, .port = 52, .buf_alloc = 65536 };
	expect_silence();
	send_op(&g, VIRTIO_VSOCK_OP_RESPONSE, 0);
	expect(&g, &p, VIRTIO_VSOCK_OP_RW);
	ck_assert_uint_eq(p.h.len, 11);
	ck_assert_mem_eq(p.data, "first words", 11);
	close(fd);
}
END_TEST

START_TEST(clients_that_do_not_speak_the_protocol_are_dropped)
{
	static const char *const lines[] = {
		"\n",
		"HELLO\n",
		"CONNECT\n",
		"CONNECT \n",
		"CONNECT -1\n",
		"CONNECT 0x10\n",
		"CONNECT 4294967296\n",
		"CONNECT 99999999999999999999\n",
		"CONNECT 12 \n",
		"CONNECT 12\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT 00000000000000000000000000000000000001\n",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};

	start(EVENTS, 16);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		int fd = client();

		say(fd, lines[i]);
		expect_eof(fd);
		close(fd);
	}
	ck_assert_uint_eq(connections(), 0);
	expect_silence();
}
END_TEST

START_TEST(clients_and_guests_that_hang_are_dropped_in_time)
{
	struct packet p;
	int half, silent;

	make();
	inside()->patience_ns = 100000000;
	fake_transport_activate(&transport, EVENTS, RINGS, 0);
	post_many(16);
	half = client();
	say(half, "CONNECT 5");
	silent = client();
	say(silent, "CONNECT 6\n");
	receive(&p);
	ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_REQUEST);
	expect_eof(half);
	expect_eof(silent);
	receive(&p);
	ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(connections(), 0);
	close(half);
	close(silent);
}
END_TEST

/* 1 MiB each way at once: a host thread writes and one reads the echo. */

struct stream {
	int fd;
	uint64_t sum;
};

#define STREAM_BYTES MIB

static uint64_t sum_bytes(uint64_t sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum = sum * 31 + p[i];
	return sum;
}

static void *stream_out(void *opaque)
{
	struct stream *s = opaque;
	uint8_t block[3001];
	size_t done = 0;

	while (done < STREAM_BYTES) {
		size_t n = MIN(sizeof(block), STREAM_BYTES - done);

		for (size_t i = 0; i < n; i++)
			block[i] = (uint8_t)((done + i) * 13 + ((done + i) >> 11));
		s->sum = sum_bytes(s->sum, block, n);
		if (fd_write_full(s->fd, block, n))
			return NULL;
		done += n;
	}
	shutdown(s->fd, SHUT_WR);
	return NULL;
}

static void *stream_in(void *opaque)
{
	struct stream *s = opaque;
	uint8_t block[5000];
	ssize_t n;

	while ((n = recv(s->fd, block, sizeof(block), 0)) > 0) {
		s->sum = sum_bytes(s->sum, block, (size_t)n);
		if (s->sum % 16 == 0)
			usleep(500); /* now and then slower than the guest */
	}
	return NULL;
}

/* Sends what fits the credit. */
static uint32_t echo_some(struct guest *g, const uint8_t *data, uint32_t len)
{
	uint32_t credit = g->peer_buf_alloc - (g->sent - g->peer_fwd_cnt);

	len = MIN(MIN(len, credit), 20000U);
	if (len)
		send_data(g, data, len);
	return len;
}

START_TEST(a_mebibyte_goes_both_ways_within_the_credits)
{
	static uint8_t all[STREAM_BYTES];
	uint32_t got = 0, echoed = 0, window = 10000;
	struct stream out = { 0 }, in = { 0 };
	pthread_t writer, reader;
	struct packet p;
	struct guest g;
	bool eof = false;

	start(EVENTS | (_i ? VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) : 0), 32);
	out.fd = in.fd = connect_client(&g);
	g.buf_alloc = window;
	send_op(&g, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	pthread_create(&writer, NULL, stream_out, &out);
	pthread_create(&reader, NULL, stream_in, &in);
	while (!eof || echoed < got) {
		uint32_t n = echo_some(&g, all + echoed, got - echoed);

		echoed += n;
		if (!receive_within(&p, n ? 0 : WAIT_MS)) {
			ck_assert_msg(n > 0, "stuck at %u in, %u out", got, echoed);
			continue;
		}
		learn(&g, &p);
		if (p.h.op == VIRTIO_VSOCK_OP_RW) {
			ck_assert_uint_le(got + p.h.len, STREAM_BYTES);
			memcpy(all + got, p.data, p.h.len);
			got += p.h.len;
			ck_assert_uint_le(got - g.fwd_cnt, window); /* never more than allowed */
			if (got - g.fwd_cnt > window / 2) {
				g.fwd_cnt = got;
				send_op(&g, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
			}
		} else if (p.h.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST) {
			g.fwd_cnt = got;
			send_op(&g, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
		} else if (p.h.op == VIRTIO_VSOCK_OP_SHUTDOWN) {
			ck_assert_uint_eq(p.h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
			eof = true;
		} else {
			ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		}
	}
	send_op(&g, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_BOTH);
	pthread_join(writer, NULL);
	pthread_join(reader, NULL);
	do
		receive(&p);
	while (p.h.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(got, STREAM_BYTES);
	ck_assert_uint_eq(out.sum, in.sum);
	ck_assert_uint_eq(connections(), 0);
	close(in.fd);
}
END_TEST

START_TEST(guest_that_ignores_its_credit_is_reset)
{
	static uint8_t block[16384];
	struct packet p = { 0 };
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g); /* which does not read */
	for (unsigned int i = 0; i < 1000 && p.h.op != VIRTIO_VSOCK_OP_RST; i++) {
		send_data(&g, block, sizeof(block));
		receive_within(&p, 0);
	}
	ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_le(g.sent, MIB);
	ck_assert_uint_eq(connections(), 0);
	close(fd);
}
END_TEST

START_TEST(half_closed_by_the_host_the_guest_still_sends)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	say(fd, "last");
	shutdown(fd, SHUT_WR);
	expect(&g, &p, VIRTIO_VSOCK_OP_RW);
	expect(&g, &p, VIRTIO_VSOCK_OP_SHUTDOWN);
	ck_assert_uint_eq(p.h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	send_data(&g, "answer", 6);
	hear(fd, "answer");
	send_op(&g, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_BOTH);
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	expect_eof(fd);
	close(fd);
	ck_assert_uint_eq(connections(), 0);
}
END_TEST

START_TEST(half_closed_by_the_guest_the_host_still_sends)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	send_data(&g, "last", 4);
	send_op(&g, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	hear(fd, "last");
	expect_eof(fd);
	say(fd, "answer");
	expect(&g, &p, VIRTIO_VSOCK_OP_RW);
	ck_assert_mem_eq(p.data, "answer", 6);
	/* Sending after that is a fault. */
	send_data(&g, "more", 4);
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	close(fd);
	ck_assert_uint_eq(connections(), 0);
}
END_TEST

START_TEST(what_the_guest_sent_arrives_before_its_shutdown)
{
	static uint8_t block[16384], got[16384];
	struct packet p;
	struct guest g;
	unsigned int blocks = 0;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	memset(block, 7, sizeof(block));
	/* More than the socket takes, so that some waits with us. */
	while (!settle().buffered) {
		send_data(&g, block, sizeof(block));
		blocks++;
	}
	send_op(&g, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_BOTH);
	for (unsigned int i = 0; i < blocks; i++) {
		ck_assert_int_eq(fd_read_full(fd, got, sizeof(got)), 0);
		ck_assert_mem_eq(got, block, sizeof(block));
	}
	expect_eof(fd);
	do
		receive(&p);
	while (p.h.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_RST);
	close(fd);
}
END_TEST

START_TEST(host_that_closes_is_reported_after_its_data)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	say(fd, "bye");
	close(fd);
	expect(&g, &p, VIRTIO_VSOCK_OP_RW);
	ck_assert_mem_eq(p.data, "bye", 3);
	do
		expect(&g, &p, VIRTIO_VSOCK_OP_SHUTDOWN);
	while (p.h.flags != VSOCK_BOTH);
	send_op(&g, VIRTIO_VSOCK_OP_RST, 0);
	ck_assert_uint_eq(connections(), 0);
	expect_silence();
}
END_TEST

START_TEST(guest_that_does_not_confirm_a_close_is_reset)
{
	struct packet p;
	struct guest g;

	make();
	inside()->patience_ns = 100000000;
	fake_transport_activate(&transport, EVENTS, RINGS, 0);
	post_many(16);
	close(connect_client(&g));
	do
		expect(&g, &p, VIRTIO_VSOCK_OP_SHUTDOWN);
	while (p.h.flags != VSOCK_BOTH);
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(connections(), 0);
}
END_TEST

START_TEST(reset_by_the_guest_closes_the_socket)
{
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	send_op(&g, VIRTIO_VSOCK_OP_RST, 0);
	expect_eof(fd);
	close(fd);
	ck_assert_uint_eq(connections(), 0);
	expect_silence();
}
END_TEST

START_TEST(credit_is_told_when_asked_for)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	send_data(&g, "12345", 5);
	hear(fd, "12345");
	send_op(&g, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0);
	expect(&g, &p, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	ck_assert_uint_eq(p.h.fwd_cnt, 5);
	ck_assert_uint_eq(p.h.buf_alloc, VSOCK_BUFFER_SIZE);
	close(fd);
}
END_TEST

START_TEST(without_credit_the_guest_is_asked_once)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	g.buf_alloc = 3;
	send_op(&g, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	say(fd, "abcdef");
	expect(&g, &p, VIRTIO_VSOCK_OP_RW);
	ck_assert_uint_eq(p.h.len, 3);
	expect(&g, &p, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	expect_silence();
	g.fwd_cnt = 3;
	send_op(&g, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	expect(&g, &p, VIRTIO_VSOCK_OP_RW);
	ck_assert_mem_eq(p.data, "def", 3);
	/* Nonsense gives nothing away. */
	g.fwd_cnt = 4000000000U;
	g.buf_alloc = 100;
	send_op(&g, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	say(fd, "g");
	expect(&g, &p, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	expect_silence();
	close(fd);
}
END_TEST

/* Packets no driver sends. `reset`: the answer is a RST, else silence. */
static const struct {
	const char *what;
	uint64_t src_cid, dst_cid;
	uint32_t len;
	uint16_t type, op;
	bool reset;
} strangers[] = {
	{ "another's source", CID + 1, 2, 0, 1, VIRTIO_VSOCK_OP_REQUEST, false },
	{ "source 0", 0, 2, 0, 1, VIRTIO_VSOCK_OP_RW, false },
	{ "another destination", CID, 3, 0, 1, VIRTIO_VSOCK_OP_REQUEST, true },
	{ "destination above 32 bits", CID, 1ULL << 40, 0, 1, VIRTIO_VSOCK_OP_REQUEST, true },
	{ "unknown type", CID, 2, 0, 77, VIRTIO_VSOCK_OP_REQUEST, true },
	{ "seqpacket", CID, 2, 0, 2, VIRTIO_VSOCK_OP_REQUEST, true },
	{ "op 0", CID, 2, 0, 1, 0, true },
	{ "op 8", CID, 2, 0, 1, 8, true },
	{ "op 65535", CID, 2, 0, 1, 65535, true },
	{ "response unasked", CID, 2, 0, 1, VIRTIO_VSOCK_OP_RESPONSE, true },
	{ "data of no connection", CID, 2, 0, 1, VIRTIO_VSOCK_OP_RW, true },
	{ "shutdown of no connection", CID, 2, 0, 1, VIRTIO_VSOCK_OP_SHUTDOWN, true },
	{ "credit of no connection", CID, 2, 0, 1, VIRTIO_VSOCK_OP_CREDIT_UPDATE, true },
	{ "longer than its buffer", CID, 2, 1, 1, VIRTIO_VSOCK_OP_REQUEST, true },
	{ "4 GiB", CID, 2, 0xffffffff, 1, VIRTIO_VSOCK_OP_RW, true },
	{ "reset of no connection", CID, 2, 0, 1, VIRTIO_VSOCK_OP_RST, false },
	{ "reset of unknown type", CID, 2, 0, 9, VIRTIO_VSOCK_OP_RST, false },
	{ "reset and too long", CID, 2, 99, 1, VIRTIO_VSOCK_OP_RST, false },
};

START_TEST(packet_of_no_connection_is_reset_or_ignored)
{
	struct virtio_vsock_hdr h = {
		.src_cid = strangers[_i].src_cid,
		.dst_cid = strangers[_i].dst_cid,
		.src_port = 9,
		.dst_port = 1234,
		.len = strangers[_i].len,
		.type = strangers[_i].type,
		.op = strangers[_i].op,
	};
	int listener = listen_at(listener_path), fd;
	struct packet p;
	struct guest g;

	start(EVENTS, 16);
	send_raw(&h, sizeof(h), sizeof(h));
	if (strangers[_i].reset) {
		ck_assert_msg(receive_within(&p, WAIT_MS), "no answer: %s", strangers[_i].what);
		ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_RST);
		ck_assert_uint_eq(p.h.src_cid, strangers[_i].dst_cid);
		ck_assert_uint_eq(p.h.src_port, 1234);
		ck_assert_uint_eq(p.h.dst_port, 9);
	} else {
		expect_silence();
	}
	/* And the device goes on. */
	fd = connect_client(&g);
	close(fd);
	close(listener);
	ck_assert_uint_eq(transport.resets_needed, 0);
}
END_TEST

START_TEST(packet_cut_short_is_ignored)
{
	static const uint8_t zero[64];
	struct guest g;

	start(EVENTS, 16);
	for (uint32_t len = 1; len < sizeof(struct virtio_vsock_hdr); len += 6)
		send_raw(zero, len, len);
	expect_silence();
	close(connect_client(&g));
}
END_TEST

/* Faults within a connection end it, and only it. */
static const struct {
	uint16_t op;
	uint32_t len;
} faults[] = {
	{ VIRTIO_VSOCK_OP_REQUEST, 0 },	 /* ports in use */
	{ VIRTIO_VSOCK_OP_RESPONSE, 0 }, /* a second one */
	{ VIRTIO_VSOCK_OP_INVALID, 0 },	 { 99, 0 },
	{ VIRTIO_VSOCK_OP_RW, 1 }, /* without a payload */
	{ VIRTIO_VSOCK_OP_RW, 65537 },	 { VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0xffffffff },
};

START_TEST(fault_within_a_connection_resets_that_one_only)
{
	struct virtio_vsock_hdr h;
	struct packet p;
	struct guest g, other;
	int fd, second;

	start(EVENTS, 16);
	second = connect_client(&other);
	fd = connect_client(&g);
	ck_assert_uint_ne(g.host_port, other.host_port);
	h = header(&g, faults[_i].op, faults[_i].len);
	send_raw(&h, sizeof(h), sizeof(h));
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	expect_eof(fd);
	send_data(&other, "still", 5);
	hear(second, "still");
	close(fd);
	close(second);
}
END_TEST

START_TEST(anything_but_an_answer_to_a_request_resets_it)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = client();
	say(fd, "CONNECT 52\n");
	receive(&p);
	g = (struct guest){ .host_port = p.h.src_port, .port = 52, .buf_alloc = 65536 };
	send_data(&g, "early", 5);
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	expect_eof(fd);
	close(fd);
}
END_TEST

START_TEST(resets_nobody_fetches_hold_the_guests_packets_back)
{
	struct guest g = { .host_port = 1, .port = 0 };
	unsigned int returned = 0, resets = 0;
	uint16_t id;
	uint32_t len;

	/* No receive buffers at all. */
	start(EVENTS | (_i ? VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) : 0), 0);
	for (unsigned int round = 0; round < 4; round++) {
		for (unsigned int i = 0; i < 100; i++) {
			struct virtio_vsock_hdr h = header(&g, VIRTIO_VSOCK_OP_RW, 0);
			uint64_t gpa = TX_AT + 64 * (100 * (uint64_t)round + i);

			if (100 * round + i >= 256 + 256)
				break;
			memcpy(ram(gpa), &h, sizeof(h));
			fake_driver_add(&transport.drivers[VSOCK_TX],
					&(struct fake_buffer){ gpa, sizeof(h), false }, 1);
			g.port++;
		}
		fake_transport_kick(&transport, VSOCK_TX);
		while (returned < MIN(100 * (round + 1), VSOCK_RESETS_MAX) &&
		       fake_transport_wait_used(&transport, VSOCK_TX, &id, &len, WAIT_MS))
			returned++;
	}
	ck_assert_uint_eq(returned, VSOCK_RESETS_MAX);
	ck_assert(!fake_transport_wait_used(&transport, VSOCK_TX, &id, &len, 50));
	post_many(64);
	while (resets < 400) {
		struct packet p;

		receive(&p);
		ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_RST);
		ck_assert_uint_eq(p.h.dst_port, resets);
		resets++;
	}
}
END_TEST

START_TEST(busy_connections_take_turns)
{
	static const uint8_t block[60000];
	unsigned int turns[2] = { 0 };
	struct packet p;
	struct guest g[2];
	int fd[2];

	start(EVENTS, 0);
	post_many(4);
	for (int i = 0; i < 2; i++)
		fd[i] = connect_client(&g[i]);
	dev->ops->pause(dev);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(fd_write_full(fd[i], block, sizeof(block)), 0);
	dev->ops->resume(dev);
	for (unsigned int i = 0; i < 20; i++) {
		receive(&p);
		ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_RW);
		turns[p.h.src_port == g[1].host_port]++;
	}
	ck_assert_uint_ge(turns[0], 8);
	ck_assert_uint_ge(turns[1], 8);
	close(fd[0]);
	close(fd[1]);
}
END_TEST

START_TEST(connections_are_bounded)
{
	struct guest g = { .host_port = 1234, .port = 1, .buf_alloc = 65536 };
	static int fds[VSOCK_CONNS_MAX];
	struct rlimit limit = { 4096, 4096 };
	struct packet p;
	int listener = listen_at(listener_path), extra;

	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	start(EVENTS, 16);
	for (unsigned int i = 0; i < VSOCK_CONNS_MAX; i++) {
		fds[i] = client();
		if (i % 64 == 63)
			settle();
	}
	extra = client();
	expect_eof(extra);
	close(extra);
	send_op(&g, VIRTIO_VSOCK_OP_REQUEST, 0);
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	for (unsigned int i = 0; i < VSOCK_CONNS_MAX; i++)
		close(fds[i]);
	ck_assert_uint_eq(connections(), 0);
	close(connect_client(&g));
	close(listener);
}
END_TEST

static long cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

START_TEST(without_descriptors_clients_wait_and_cost_no_cpu)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct rlimit limit, none;
	struct packet p;
	long before;
	int fd;

	start(EVENTS, 16);
	settle();
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	getrlimit(RLIMIT_NOFILE, &limit);
	none = limit;
	none.rlim_cur = (rlim_t)fd + 1; /* the lowest free one is above */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	strcpy(address.sun_path, path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	say(fd, "CONNECT 52\n");
	usleep(20000);
	before = cpu_ms();
	usleep(300000);
	ck_assert_int_lt(cpu_ms() - before, 100);
	expect_silence();
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	receive(&p);
	ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_REQUEST);
	close(fd);
}
END_TEST

START_TEST(ends_nobody_reacts_to_cost_no_cpu)
{
	static const uint8_t block[100000];
	struct packet p;
	struct guest g[3];
	int fd[3];
	long before;

	start(EVENTS, 16);
	for (int i = 0; i < 3; i++)
		fd[i] = connect_client(&g[i]);
	/* Closed with no credit to say more; closed with data of the guest unread;
	 * half closed and idle. */
	g[0].buf_alloc = 1;
	send_op(&g[0], VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	ck_assert_int_eq(fd_write_full(fd[0], block, 1000), 0);
	close(fd[0]);
	send_data(&g[1], block, 60000);
	close(fd[1]);
	shutdown(fd[2], SHUT_WR);
	while (receive_within(&p, 100))
		;
	before = cpu_ms();
	usleep(400000);
	ck_assert_int_lt(cpu_ms() - before, 100);
	close(fd[2]);
}
END_TEST

START_TEST(paused_device_keeps_its_connections)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS | (_i ? VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) : 0), 16);
	fd = connect_client(&g);
	dev->ops->pause(dev);
	say(fd, "meanwhile");
	expect_silence();
	dev->ops->resume(dev);
	expect(&g, &p, VIRTIO_VSOCK_OP_RW);
	ck_assert_mem_eq(p.data, "meanwhile", 9);
	send_data(&g, "here", 4);
	hear(fd, "here");
	close(fd);
	dev->ops->pause(dev);
}
END_TEST

START_TEST(reset_of_the_device_closes_everything)
{
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	dev->ops->deactivate(dev);
	expect_eof(fd);
	close(fd);
	ck_assert_uint_eq(settle().conns, 0);
	for (unsigned int i = 0; i < dev->queue_count; i++)
		virtqueue_reset(&dev->queues[i]);
	fake_transport_activate(&transport, EVENTS, RINGS, 0);
	post_many(16);
	close(connect_client(&g));
}
END_TEST

START_TEST(receive_buffer_without_room_needs_a_reset)
{
	static const uint32_t lengths[] = { 1, 43, 44 };
	int fd;

	start(EVENTS, 0);
	fake_driver_add(&transport.drivers[VSOCK_RX],
			&(struct fake_buffer){ RX_AT, lengths[_i], true }, 1);
	fake_transport_kick(&transport, VSOCK_RX);
	fd = client();
	say(fd, "CONNECT 52\n");
	ck_assert(fake_transport_wait_reset_needed(&transport, WAIT_MS));
	close(fd);
}
END_TEST

START_TEST(broken_ring_needs_a_reset)
{
	int fd;

	start(EVENTS, 0);
	fake_driver_set_descriptor(&transport.drivers[_i], 0, RX_AT, 100,
				   VRING_DESC_F_NEXT | (_i ? 0 : VRING_DESC_F_WRITE), 0);
	fake_driver_publish(&transport.drivers[_i], 0);
	fake_transport_kick(&transport, (unsigned int)_i);
	fd = client();
	say(fd, "CONNECT 52\n");
	ck_assert(fake_transport_wait_reset_needed(&transport, WAIT_MS));
	close(fd);
}
END_TEST

/* The socket file. */

static void expect_error(uint64_t cid, const char *socket, int code, const char *text)
{
	struct virtio_vsock_options options = { .cid = cid, .socket = socket };
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(virtio_vsock_new(&host.host, "vsock1", &options, &err));
	ck_assert_int_eq(err.code, code);
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' is not in '%s'", text, err.message);
}

START_TEST(socket_file_is_private_and_goes_with_the_device)
{
	struct stat st;

	umask(0);
	make();
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_uint_eq(st.st_mode & 0777, 0660);
	fake_transport_destroy(&transport);
	dev = NULL;
	ck_assert_int_eq(stat(path, &st), -1);
}
END_TEST

START_TEST(socket_in_use_is_refused_and_named)
{
	make();
	expect_error(CID, path, -EADDRINUSE, path);
	ck_assert_int_eq(access(path, F_OK), 0); /* and left alone */
}
END_TEST

START_TEST(stale_socket_is_replaced)
{
	struct guest g;

	close(listen_at(path));
	start(EVENTS, 16);
	close(connect_client(&g));
}
END_TEST

START_TEST(other_files_are_never_replaced)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	expect_error(CID, path, -EEXIST, path);
	ck_assert_int_eq(access(path, F_OK), 0);
	close(fd);
}
END_TEST

START_TEST(somebody_elses_socket_stays)
{
	int fd;

	make();
	unlink(path);
	fd = listen_at(path);
	fake_transport_destroy(&transport);
	dev = NULL;
	ck_assert_int_eq(access(path, F_OK), 0);
	close(fd);
}
END_TEST

START_TEST(bad_options_are_refused)
{
	char name[200];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	expect_error(2, path, -EINVAL, "CID 2");
	expect_error(0xffffffff, path, -EINVAL, "CID 4294967295");
	expect_error(CID, name, -ENAMETOOLONG, "xxx");
	expect_error(CID, "", -ENAMETOOLONG, "socket");
	expect_error(CID, "/nonexistent/dir/v", -ENOENT, "/nonexistent/dir/v");
}
END_TEST

START_TEST(config_space_tells_the_cid)
{
	uint8_t config[16];

	make();
	dev->ops->config_read(dev, 0, config, sizeof(config));
	ck_assert_uint_eq(load_le64(config), CID);
	ck_assert_uint_eq(load_le64(config + 8), 0);
	dev->ops->config_read(dev, 4, config, 4);
	ck_assert_uint_eq(load_le32(config), 0);
	dev->ops->config_read(dev, 0xffffffff, config, 4);
	ck_assert_uint_eq(load_le32(config), 0);
}
END_TEST

static void add_cases(Suite *s)
{
	TCase *connect = tcase_create("connections"), *hostile = tcase_create("hostile");
	TCase *files = tcase_create("files");
	TCase *all[] = { connect, hostile, files };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		tcase_add_checked_fixture(all[i], setup, teardown);
		tcase_set_timeout(all[i], 60);
		suite_add_tcase(s, all[i]);
	}
	tcase_add_loop_test(connect, client_reaches_the_guests_port, 0, 2);
	tcase_add_test(connect, guest_reaches_a_listener_of_the_host);
	tcase_add_test(connect, request_nobody_listens_for_is_reset);
	tcase_add_test(connect, client_the_guest_refuses_is_closed);
	tcase_add_test(connect, data_right_behind_the_line_are_the_guests);
	tcase_add_loop_test(connect, a_mebibyte_goes_both_ways_within_the_credits, 0, 2);
	tcase_add_test(connect, half_closed_by_the_host_the_guest_still_sends);
	tcase_add_test(connect, half_closed_by_the_guest_the_host_still_sends);
	tcase_add_test(connect, what_the_guest_sent_arrives_before_its_shutdown);
	tcase_add_test(connect, host_that_closes_is_reported_after_its_data);
	tcase_add_test(connect, guest_that_does_not_confirm_a_close_is_reset);
	tcase_add_test(connect, reset_by_the_guest_closes_the_socket);
	tcase_add_test(connect, credit_is_told_when_asked_for);
	tcase_add_test(connect, without_credit_the_guest_is_asked_once);
	tcase_add_test(connect, busy_connections_take_turns);
	tcase_add_loop_test(connect, paused_device_keeps_its_connections, 0, 2);
	tcase_add_test(connect, reset_of_the_device_closes_everything);
	tcase_add_test(hostile, clients_that_do_not_speak_the_protocol_are_dropped);
	tcase_add_test(hostile, clients_and_guests_that_hang_are_dropped_in_time);
	tcase_add_test(hostile, guest_that_ignores_its_credit_is_reset);
	tcase_add_loop_test(hostile, packet_of_no_connection_is_reset_or_ignored, 0,
			    (int)ARRAY_SIZE(strangers));
	tcase_add_test(hostile, packet_cut_short_is_ignored);
	tcase_add_loop_test(hostile, fault_within_a_connection_resets_that_one_only, 0,
			    (int)ARRAY_SIZE(faults));
	tcase_add_test(hostile, anything_but_an_answer_to_a_request_resets_it);
	tcase_add_loop_test(hostile, resets_nobody_fetches_hold_the_guests_packets_back, 0, 2);
	tcase_add_test(hostile, connections_are_bounded);
	tcase_add_test(hostile, without_descriptors_clients_wait_and_cost_no_cpu);
	tcase_add_test(hostile, ends_nobody_reacts_to_cost_no_cpu);
	tcase_add_loop_test(hostile, receive_buffer_without_room_needs_a_reset, 0, 3);
	tcase_add_loop_test(hostile, broken_ring_needs_a_reset, 0, 2);
	tcase_add_test(files, socket_file_is_private_and_goes_with_the_device);
	tcase_add_test(files, socket_in_use_is_refused_and_named);
	tcase_add_test(files, stale_socket_is_replaced);
	tcase_add_test(files, other_files_are_never_replaced);
	tcase_add_test(files, somebody_elses_socket_stays);
	tcase_add_test(files, bad_options_are_refused);
	tcase_add_test(files, config_space_tells_the_cid);
}

int main(void)
{
	Suite *suite = suite_create("vsock");

	add_cases(suite);
	return run_suite(suite);
}
