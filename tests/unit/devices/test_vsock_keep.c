/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of a vsock whose machine goes on in another process (live update). */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "devices/virtio/virtio_vsock_priv.h"
#include "tests/unit/helpers/fake_machine.h"
#include "tests/unit/helpers/host_program.h"
#include "tests/unit/helpers/run_suite.h"

#define EVENTS VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX)
#define PACKED VIRTIO_FEATURE(VIRTIO_F_RING_PACKED)
#define CID 42
#define WAIT_MS 5000
#define RX_AT FAKE_MACHINE_DATA
#define RX_SIZE 4096
#define TX_AT (RX_AT + MIB)
#define EVENT_AT (TX_AT + MIB)
#define PORT 52

static char dir[32], path[64], listener_path[80];
static struct fake_machine *now; /* where the guest is */
static uint64_t rx_gpa[VSOCK_QUEUE_SIZE];
static struct kept handed; /* to the machine that is made next */
static struct kept none;

/* The guest's end of a connection. */
struct guest {
	uint32_t host_port, port;
	uint32_t buf_alloc, fwd_cnt, sent, peer_buf_alloc, peer_fwd_cnt;
};

struct packet {
	struct virtio_vsock_hdr h;
	uint8_t data[RX_SIZE];
};

static struct vsock *inside(const struct fake_machine *m)
{
	return container_of(m->dev, struct vsock, dev);
}

static void plug(struct fake_machine *m, const char *socket, uint64_t cid)
{
	const struct virtio_vsock_options options = { .cid = cid, .socket = socket };
	struct error err = ERROR_INIT;
	struct virtio_device *dev = virtio_vsock_new(&m->h.host, "vsock0", &options, &err);

	ck_assert_msg(dev != NULL, "%s", err.message);
	fake_machine_plug(m, dev);
}

static void post_rx(uint64_t gpa)
{
	uint16_t head = fake_driver_add(&now->drivers[VSOCK_RX],
					&(struct fake_buffer){ gpa, RX_SIZE, true }, 1);

	rx_gpa[head] = gpa;
	fake_machine_kick(now, VSOCK_RX);
}

static void post_many(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		post_rx(RX_AT + (uint64_t)i * RX_SIZE);
}

static void start(uint64_t features, unsigned int rx_buffers)
{
	now = fake_machine_new();
	plug(now, path, CID);
	fake_machine_start(now, features, true);
	post_many(rx_buffers);
}

static void setup(void)
{
	strcpy(dir, "/tmp/vsock.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/v", dir);
	snprintf(listener_path, sizeof(listener_path), "%s_%u", path, 1234);
	now = NULL;
}

static void teardown(void)
{
	if (now)
		fake_machine_free(now);
	kept_destroy(&handed);
	unlink(listener_path);
	ck_assert_int_eq(rmdir(dir), 0); /* the socket goes with its last owner */
}

/* Live update, step by step. */

static struct fake_machine *made_around_what_is_kept(void)
{
	struct fake_machine *to = fake_machine_new();
	struct error err = ERROR_INIT;

	ck_assert_msg(!now->dev->ops->keep(now->dev, &handed, false, &err), "%s", err.message);
	to->h.host.kept = &handed;
	plug(to, path, CID);
	return to;
}

static int hand_over(struct fake_machine *to, bool connections, struct error *err)
{
	virtio_pci_pause(now->fn);
	if (connections)
		ck_assert_int_eq(now->dev->ops->keep(now->dev, &handed, true, NULL), 0);
	return fake_machine_hand_over(now, to, err);
}

/* The old process ends: what it had open is closed, and nothing else done to it. */
static void become(struct fake_machine *to)
{
	now->h.host.kept = &none;
	fake_machine_free(now);
	now = to;
	now->h.host.kept = NULL;
	kept_destroy(&handed);
	virtio_pci_resume(now->fn);
}

static void update(void)
{
	struct fake_machine *to = made_around_what_is_kept();
	struct error err = ERROR_INIT;

	ck_assert_msg(!hand_over(to, true, &err), "%s", err.message);
	become(to);
}

/* The new process fails when it has everything. */
static void update_that_fails(void)
{
	struct fake_machine *to = made_around_what_is_kept();
	struct error err = ERROR_INIT;

	ck_assert_msg(!hand_over(to, true, &err), "%s", err.message);
	fake_machine_free(to);
	kept_destroy(&handed);
	virtio_pci_resume(now->fn);
}

/* What the device's thread sees. */
struct look {
	unsigned int conns;
	enum vsock_state state; /* of the first */
	uint32_t buffered;
};

static void look_inside(void *opaque)
{
	const struct vsock_conn *first = TAILQ_FIRST(&inside(now)->all);
	struct look *look = opaque;

	look->conns = inside(now)->conns;
	look->state = first ? first->state : VSOCK_HANDSHAKE;
	look->buffered = first ? first->buffer_len : 0;
}

static struct look look(void)
{
	struct look seen;

	loop_call(inside(now)->loop, look_inside, &seen);
	return seen;
}

/* The guest's packets. */

static void send_packet(struct guest *g, uint16_t op, uint32_t flags, const void *data,
			uint32_t len)
{
	const struct virtio_vsock_hdr h = {
		.src_cid = CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = g->port,
		.dst_port = g->host_port,
		.len = len,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.flags = flags,
		.buf_alloc = g->buf_alloc,
		.fwd_cnt = g->fwd_cnt,
	};
	struct fake_driver *tx = &now->drivers[VSOCK_TX];
	uint32_t used;
	uint16_t id;

	memcpy(fake_machine_ram(now, TX_AT), &h, sizeof(h));
	if (len)
		memcpy(fake_machine_ram(now, TX_AT + sizeof(h)), data, len);
	fake_driver_add(tx, &(struct fake_buffer){ TX_AT, (uint32_t)sizeof(h) + len, false }, 1);
	fake_machine_kick(now, VSOCK_TX);
	for (unsigned int i = 0; !fake_driver_used(tx, &id, &used); i++) {
		ck_assert_uint_lt(i, WAIT_MS);
		usleep(i < 100 ? 10 : 1000);
	}
	g->sent += len;
}

static void op(struct guest *g, uint16_t what, uint32_t flags)
{
	send_packet(g, what, flags, NULL, 0);
}

static bool poll_packet(struct packet *p)
{
	uint32_t len;
	uint16_t id;

	if (!fake_driver_used(&now->drivers[VSOCK_RX], &id, &len))
		return false;
	memcpy(p, fake_machine_ram(now, rx_gpa[id]), len);
	ck_assert_uint_eq(len, sizeof(p->h) + p->h.len);
	post_rx(rx_gpa[id]);
	return true;
}

static bool receive_within(struct packet *p, unsigned int ms)
{
	for (unsigned int i = 0; !poll_packet(p); i++) {
		if (i == ms)
			return false;
		usleep(1000);
	}
	return true;
}

static void expect(struct guest *g, struct packet *p, uint16_t what)
{
	ck_assert_msg(receive_within(p, WAIT_MS), "nothing from the device");
	ck_assert_uint_eq(p->h.op, what);
	ck_assert_uint_eq(p->h.src_port, g->host_port);
	ck_assert_uint_eq(p->h.dst_port, g->port);
	g->peer_buf_alloc = p->h.buf_alloc;
	g->peer_fwd_cnt = p->h.fwd_cnt;
	g->fwd_cnt += p->h.len;
}

static void expect_data(struct guest *g, const char *text)
{
	struct packet p;

	expect(g, &p, VIRTIO_VSOCK_OP_RW);
	ck_assert_uint_eq(p.h.len, strlen(text));
	ck_assert_mem_eq(p.data, text, strlen(text));
}

/* Host programs. */

static int client(void)
{
	return client_of(path);
}

/* Whether the host's end is open, and nothing to be read. */
static bool is_idle(int fd)
{
	char c;

	return recv(fd, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static void accept_request(struct guest *g, int fd)
{
	struct packet p;
	char text[32];

	ck_assert(receive_within(&p, WAIT_MS));
	ck_assert_uint_eq(p.h.op, VIRTIO_VSOCK_OP_REQUEST);
	*g = (struct guest){ .host_port = p.h.src_port, .port = p.h.dst_port, .buf_alloc = 65536 };
	g->peer_buf_alloc = p.h.buf_alloc;
	op(g, VIRTIO_VSOCK_OP_RESPONSE, 0);
	snprintf(text, sizeof(text), "OK %u\n", g->host_port);
	hear(fd, text);
}

static int connect_client(struct guest *g)
{
	int fd = client();

	say(fd, "CONNECT 52\n");
	accept_request(g, fd);
	return fd;
}

/* A stream through the guest and back, while it changes its process again and again. */

#define STREAM_BYTES (2 * MIB)

struct stream {
	int fd;
	uint64_t sum, bytes;
};

static uint8_t byte_at(uint64_t at)
{
	return (uint8_t)(at * 13 + (at >> 11));
}

static void add(struct stream *s, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		s->sum = s->sum * 31 + data[i];
	s->bytes += len;
}

static void *write_stream(void *opaque)
{
	struct stream *s = opaque;
	uint8_t block[3001];

	while (s->bytes < STREAM_BYTES) {
		size_t len = MIN(sizeof(block), STREAM_BYTES - s->bytes);

		for (size_t i = 0; i < len; i++)
			block[i] = byte_at(s->bytes + i);
		if (fd_write_full(s->fd, block, len))
			break;
		add(s, block, len);
	}
	shutdown(s->fd, SHUT_WR);
	return NULL;
}

static void *read_stream(void *opaque)
{
	struct stream *s = opaque;
	uint8_t block[5000];
	ssize_t n;

	while ((n = recv(s->fd, block, sizeof(block), 0)) > 0)
		add(s, block, (size_t)n);
	return NULL;
}

/* What the guest has received and not sent back yet. */
struct echo {
	struct guest g;
	uint8_t data[65536];
	uint32_t len;
	bool ended;
};

static void take_in(struct echo *e, const struct packet *p)
{
	e->g.peer_buf_alloc = p->h.buf_alloc;
	e->g.peer_fwd_cnt = p->h.fwd_cnt;
	ck_assert_uint_le(e->g.sent - e->g.peer_fwd_cnt, e->g.peer_buf_alloc);
	if (p->h.op == VIRTIO_VSOCK_OP_RW) {
		ck_assert_uint_le(p->h.len, sizeof(e->data) - e->len);
		memcpy(e->data + e->len, p->data, p->h.len);
		e->len += p->h.len;
	} else if (p->h.op == VIRTIO_VSOCK_OP_SHUTDOWN) {
		e->ended = p->h.flags & VIRTIO_VSOCK_SHUTDOWN_SEND;
	} else if (p->h.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST) {
		op(&e->g, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	} else {
		ck_assert_uint_eq(p->h.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	}
}

static void send_back(struct echo *e)
{
	uint32_t credit = e->g.peer_buf_alloc - (e->g.sent - e->g.peer_fwd_cnt);
	uint32_t len = MIN(e->len, MIN(credit, 9000U));

	if (!len)
		return;
	e->g.fwd_cnt += len;
	send_packet(&e->g, VIRTIO_VSOCK_OP_RW, 0, e->data, len);
	e->len -= len;
	memmove(e->data, e->data + len, e->len);
}

START_TEST(a_stream_both_ways_goes_on_over_many_updates)
{
	struct stream out = { .fd = -1 }, in = { .fd = -1 };
	static struct echo e;
	unsigned int updates = 0, packets = 0;
	pthread_t writer, reader;
	struct packet p;

	memset(&e, 0, sizeof(e));
	start(EVENTS | (_i ? PACKED : 0), 16);
	out.fd = in.fd = connect_client(&e.g);
	ck_assert_int_eq(pthread_create(&writer, NULL, write_stream, &out), 0);
	ck_assert_int_eq(pthread_create(&reader, NULL, read_stream, &in), 0);
	while (!e.ended || e.len) {
		if (!poll_packet(&p)) {
			send_back(&e);
			continue;
		}
		take_in(&e, &p);
		if (++packets % 20)
			continue;
		if (packets % 60)
			update();
		else
			update_that_fails();
		updates++;
	}
	op(&e.g, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_BOTH);
	pthread_join(writer, NULL);
	pthread_join(reader, NULL);
	ck_assert_uint_gt(updates, 20);
	ck_assert_uint_eq(out.bytes, STREAM_BYTES);
	ck_assert_uint_eq(in.bytes, STREAM_BYTES);
	ck_assert_uint_eq(in.sum, out.sum);
	close(in.fd);
}
END_TEST

START_TEST(what_waits_in_a_full_buffer_arrives_whole)
{
	static uint8_t block[8192], got[8192];
	uint64_t sent = 0, read = 0;
	struct packet p;
	struct guest g;
	uint32_t room;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	/* The host reads nothing: until the guest has no credit left. */
	while ((room = g.peer_buf_alloc - (g.sent - g.peer_fwd_cnt))) {
		uint32_t len = MIN((uint32_t)sizeof(block), room);

		for (uint32_t i = 0; i < len; i++)
			block[i] = byte_at(sent + i);
		send_packet(&g, VIRTIO_VSOCK_OP_RW, 0, block, len);
		sent += len;
		while (receive_within(&p, room > sizeof(block) ? 0 : 20))
			g.peer_fwd_cnt = p.h.fwd_cnt;
	}
	for (int i = 0; i < 3; i++)
		update();
	ck_assert_uint_eq(look().buffered, VSOCK_BUFFER_SIZE);
	while (read < sent) {
		ssize_t n = recv(fd, got, sizeof(got), 0);

		ck_assert_int_gt(n, 0);
		for (ssize_t i = 0; i < n; i++)
			ck_assert_uint_eq(got[i], byte_at(read + (uint64_t)i));
		read += (uint64_t)n;
	}
	ck_assert(is_idle(fd));
	/* And the guest may send again. */
	expect(&g, &p, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	ck_assert_uint_gt(g.peer_buf_alloc - (g.sent - g.peer_fwd_cnt), 0);
	send_packet(&g, VIRTIO_VSOCK_OP_RW, 0, "more", 4);
	hear(fd, "more");
	close(fd);
}
END_TEST

START_TEST(what_the_host_wrote_waits_for_the_guests_credit)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	g.buf_alloc = 3;
	op(&g, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	say(fd, "abcdef");
	expect_data(&g, "abc");
	expect(&g, &p, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	update();
	ck_assert(!receive_within(&p, 50)); /* it was asked already */
	op(&g, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	expect_data(&g, "def");
	close(fd);
}
END_TEST

START_TEST(half_closed_connections_stay_so)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	if (_i) {
		op(&g, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
		expect_eof(fd);
		update();
		say(fd, "still");
		expect_data(&g, "still");
		shutdown(fd, SHUT_WR);
		expect(&g, &p, VIRTIO_VSOCK_OP_SHUTDOWN);
	} else {
		shutdown(fd, SHUT_WR);
		expect(&g, &p, VIRTIO_VSOCK_OP_SHUTDOWN);
		update();
		ck_assert(!receive_within(&p, 50)); /* it was told already */
		send_packet(&g, VIRTIO_VSOCK_OP_RW, 0, "still", 5);
		hear(fd, "still");
	}
	update();
	op(&g, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_BOTH);
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	expect_eof(fd);
	close(fd);
}
END_TEST

START_TEST(a_guest_that_goes_on_sending_after_its_end_is_reset)
{
	struct packet p;
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	op(&g, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	update();
	send_packet(&g, VIRTIO_VSOCK_OP_RW, 0, "x", 1);
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	close(fd);
}
END_TEST

START_TEST(connections_that_begin_go_on_to_be_made)
{
	struct packet p;
	struct guest g, other;
	int half, asked;

	start(EVENTS, 16);
	half = client();
	say(half, "CONNECT ");
	usleep(20000);
	asked = client();
	say(asked, "CONNECT 53\n");
	ck_assert(receive_within(&p, WAIT_MS));
	other = (struct guest){ .host_port = p.h.src_port, .port = 53, .buf_alloc = 65536 };
	update();
	op(&other, VIRTIO_VSOCK_OP_RESPONSE, 0);
	hear(asked, "OK ");
	say(half, "52\n");
	accept_request(&g, half);
	ck_assert_uint_ne(g.host_port, other.host_port);
	close(half);
	close(asked);
}
END_TEST

START_TEST(whoever_does_not_answer_is_dropped_also_afterwards)
{
	struct fake_machine *to;
	struct packet p;
	int half;

	start(EVENTS, 16);
	half = client();
	say(half, "CONNECT ");
	usleep(20000);
	to = made_around_what_is_kept();
	inside(to)->patience_ns = 100000000;
	ck_assert_int_eq(hand_over(to, true, NULL), 0);
	become(to);
	expect_eof(half);
	ck_assert(!receive_within(&p, 20));
	close(half);
}
END_TEST

START_TEST(what_the_guest_is_still_to_be_told_it_is_told_once)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct guest stranger = { .host_port = 4321, .port = 7 }, g = { .host_port = 1234 };
	struct packet p;
	int listener, fd;

	/* No buffers: a reset of nobody's connection, and an answer, wait. */
	start(EVENTS, 0);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, listener_path);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(listener, 5), 0);
	op(&stranger, VIRTIO_VSOCK_OP_RW, 0);
	g.port = 9;
	g.buf_alloc = 65536;
	op(&g, VIRTIO_VSOCK_OP_REQUEST, 0);
	fd = accept(listener, NULL, NULL);
	say(fd, "early");
	update();
	post_many(8);
	expect(&stranger, &p, VIRTIO_VSOCK_OP_RST);
	expect(&g, &p, VIRTIO_VSOCK_OP_RESPONSE);
	expect_data(&g, "early");
	ck_assert(!receive_within(&p, 50));
	close(fd);
	close(listener);
}
END_TEST

START_TEST(a_connection_that_died_is_reset_afterwards)
{
	struct guest g;
	struct packet p;
	int fd;

	start(EVENTS, 2);
	fd = connect_client(&g);
	/* The guest's fault ends it; that it is told waits for a buffer. */
	say(fd, "a");
	usleep(20000);
	say(fd, "b");
	usleep(20000);
	op(&g, VIRTIO_VSOCK_OP_INVALID, 0);
	expect_eof(fd);
	ck_assert_int_eq(look().state, VSOCK_DEAD);
	update();
	expect_data(&g, "a");
	expect_data(&g, "b");
	expect(&g, &p, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(look().conns, 0);
	close(fd);
}
END_TEST

static bool guest_was_told_of_a_reset(void)
{
	uint32_t len;
	uint16_t id;

	fake_driver_add(&now->drivers[VSOCK_EVENT], &(struct fake_buffer){ EVENT_AT, 8, true }, 1);
	fake_machine_kick(now, VSOCK_EVENT);
	for (unsigned int i = 0; i < 50; i++) {
		if (fake_driver_used(&now->drivers[VSOCK_EVENT], &id, &len))
			return true;
		usleep(1000);
	}
	return false;
}

START_TEST(the_guest_hears_of_a_reset_only_where_there_was_one)
{
	struct guest g;
	int fd;

	start(EVENTS, 16);
	fd = connect_client(&g);
	if (_i == 1)
		inside(now)->event.wanted = true; /* it came from elsewhere before */
	if (_i == 2) {
		/* Handed over by a version that leaves connections behind. */
		struct fake_machine *to = made_around_what_is_kept();

		ck_assert_int_eq(hand_over(to, false, NULL), 0);
		become(to);
		expect_eof(fd);
	} else {
		update();
		ck_assert(is_idle(fd));
	}
	ck_assert_int_eq(guest_was_told_of_a_reset(), _i != 0);
	close(fd);
}
END_TEST

START_TEST(many_connections_go_along)
{
	static struct guest g[200];
	static int fds[200];

	start(EVENTS, 16);
	for (unsigned int i = 0; i < ARRAY_SIZE(g); i++)
		fds[i] = connect_client(&g[i]);
	update();
	ck_assert_uint_eq(look().conns, ARRAY_SIZE(g));
	for (unsigned int i = 0; i < ARRAY_SIZE(g); i++) {
		send_packet(&g[i], VIRTIO_VSOCK_OP_RW, 0, &i, sizeof(i));
		ck_assert_int_eq(fd_read_full(fds[i], &(unsigned int){ 0 }, sizeof(i)), 0);
		close(fds[i]);
	}
}
END_TEST

/* What does not make sense, word by word: the device's entry, or the first connection's. */
static const struct {
	const char *what, *entry;
	unsigned int at;
	uint32_t value;
	int cut; /* bytes less */
} wrong[] = {
	{ "more connections than come", "vsock0/connections", 0, 2, 0 },
	{ "more than there can be", "vsock0/connections", 0, 1024, 0 },
	{ "more resets than come", "vsock0/connections", 12, 1, 0 },
	{ "more resets than there can be", "vsock0/connections", 12, 257, 0 },
	{ "a head cut short", "vsock0/connections", 0, 1, 1 },
	{ "no head at all", "vsock0/connections", 0, 1, 13 },
	{ "a state that is none", "vsock0/connection/0", 0, 4, 0 },
	{ "a state that is none", "vsock0/connection/0", 0, 0xffffffff, 0 },
	{ "a dead one with a socket", "vsock0/connection/0", 0, VSOCK_DEAD, 0 },
	{ "a handshake with a buffer", "vsock0/connection/0", 0, VSOCK_HANDSHAKE, 0 },
	{ "a request with a buffer", "vsock0/connection/0", 0, VSOCK_REQUESTED, 0 },
	{ "something to say that is nothing", "vsock0/connection/0", 4, 1 << 7, 0 },
	{ "a reset of an open one", "vsock0/connection/0", 4, VSOCK_SAY_RST, 0 },
	{ "directions that are none", "vsock0/connection/0", 16, 4, 0 },
	{ "directions that are none", "vsock0/connection/0", 20, 4, 0 },
	{ "flags that are none", "vsock0/connection/0", 24, 16, 0 },
	{ "more buffered than comes", "vsock0/connection/0", 48, 5, 0 },
	{ "less buffered than comes", "vsock0/connection/0", 48, 3, 0 },
	{ "more buffered than there is room", "vsock0/connection/0", 48, 65537, 0 },
	{ "a line too long", "vsock0/connection/0", 52, VSOCK_LINE_MAX, 0 },
	{ "facts cut short", "vsock0/connection/0", 0, VSOCK_OPEN, 1 },
};

static struct kept_entry *entry_of(const char *name)
{
	for (unsigned int i = 0; i < handed.count; i++)
		if (!strcmp(handed.entries[i].name, name))
			return &handed.entries[i];
	ck_abort_msg("%s is not kept", name);
	return NULL;
}

/* Up to where the new one would load, with a connection that has four bytes buffered. */
static struct fake_machine *ready_to_load(int *fd)
{
	struct vsock_conn *conn;
	struct guest g;

	start(EVENTS, 16);
	*fd = connect_client(&g);
	virtio_pci_pause(now->fn);
	conn = TAILQ_FIRST(&inside(now)->all);
	conn->buffer = malloc(VSOCK_BUFFER_SIZE);
	memcpy(conn->buffer + VSOCK_BUFFER_SIZE - 2, "wa", 2); /* around its end */
	memcpy(conn->buffer, "it", 2);
	conn->buffer_start = VSOCK_BUFFER_SIZE - 2;
	conn->buffer_len = 4;
	ck_assert_int_eq(now->dev->ops->keep(now->dev, &handed, true, NULL), 0);
	virtio_pci_resume(now->fn);
	return made_around_what_is_kept();
}

static void expect_refused(struct fake_machine *to, int fd, const char *what)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(hand_over(to, false, &err) == -EBADMSG, "%s was taken", what);
	ck_assert_msg(strstr(err.message, "vsock0") != NULL, "'%s' does not name the device",
		      err.message);
	fake_machine_free(to);
	virtio_pci_resume(now->fn);
	hear(fd, "wait"); /* the old one goes on */
	close(fd);
}

START_TEST(connections_that_make_no_sense_are_refused)
{
	struct kept_entry *entry;
	struct fake_machine *to;
	int fd;

	to = ready_to_load(&fd);
	entry = entry_of(wrong[_i].entry);
	store_le32(entry->data + wrong[_i].at, wrong[_i].value);
	entry->len -= (size_t)wrong[_i].cut;
	expect_refused(to, fd, wrong[_i].what);
}
END_TEST

START_TEST(descriptors_that_are_no_sockets_are_refused)
{
	struct kept_entry *entry;
	struct fake_machine *to;
	int fd, pair[2];

	to = ready_to_load(&fd);
	entry = entry_of("vsock0/connection/0");
	close(entry->fd);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	close(pair[1]);
	entry->fd = _i == 0 ? -1 : _i == 1 ? open("/dev/null", O_RDWR | O_NONBLOCK) : pair[0];
	expect_refused(to, fd, "no socket");
	if (_i != 2)
		close(pair[0]);
}
END_TEST

START_TEST(the_same_ports_twice_are_refused)
{
	struct kept_entry *first;
	struct fake_machine *to;
	struct error err = ERROR_INIT;
	int fd, pair[2];

	to = ready_to_load(&fd);
	first = entry_of("vsock0/connection/0");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
			 0);
	store_le32(entry_of("vsock0/connections")->data, 2);
	store_le32(first->data + 48, 0);
	ck_assert_int_eq(
		kept_add(&handed, pair[0], first->data, first->len, &err, "vsock0/connection/1"),
		0);
	store_le32(entry_of("vsock0/connection/0")->data + 48, 4);
	expect_refused(to, fd, "the same ports twice");
	close(pair[0]);
	close(pair[1]);
}
END_TEST

START_TEST(a_listener_that_is_none_is_refused)
{
	const struct virtio_vsock_options options = { .cid = CID, .socket = path };
	struct error err = ERROR_INIT;
	struct fake_machine *to;
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	start(EVENTS, 0);
	to = fake_machine_new();
	to->h.host.kept = &handed;
	ck_assert_ptr_null(virtio_vsock_new(&to->h.host, "vsock0", &options, &err));
	ck_assert_int_eq(err.code, -ENOENT);
	ck_assert_int_eq(kept_add(&handed, fd, NULL, 0, NULL, "vsock0/listener"), 0);
	ck_assert_ptr_null(virtio_vsock_new(&to->h.host, "vsock0", &options, &err));
	ck_assert_ptr_nonnull(strstr(err.message, "vsock0"));
	ck_assert_int_eq(access(path, F_OK), 0); /* the old one's */
	fake_machine_free(to);
	close(fd);
}
END_TEST

START_TEST(an_idle_device_without_a_driver_has_none)
{
	struct error err = ERROR_INIT;
	struct fake_machine *to;

	now = fake_machine_new();
	plug(now, path, CID);
	update();
	ck_assert_uint_eq(look().conns, 0);
	/* Nor is it given any. */
	to = made_around_what_is_kept();
	ck_assert_int_eq(
		kept_add(&handed, -1, (const uint8_t[16]){ 1 }, 16, NULL, "vsock0/connections"), 0);
	ck_assert_int_eq(hand_over(to, false, &err), -EBADMSG);
	fake_machine_free(to);
}
END_TEST

static void add_cases(Suite *s)
{
	TCase *goes_on = tcase_create("goes on"), *bad = tcase_create("makes no sense");

	tcase_add_checked_fixture(goes_on, setup, teardown);
	tcase_add_checked_fixture(bad, setup, teardown);
	tcase_set_timeout(goes_on, 60);
	suite_add_tcase(s, goes_on);
	suite_add_tcase(s, bad);
	tcase_add_loop_test(goes_on, a_stream_both_ways_goes_on_over_many_updates, 0, 2);
	tcase_add_test(goes_on, what_waits_in_a_full_buffer_arrives_whole);
	tcase_add_test(goes_on, what_the_host_wrote_waits_for_the_guests_credit);
	tcase_add_loop_test(goes_on, half_closed_connections_stay_so, 0, 2);
	tcase_add_test(goes_on, a_guest_that_goes_on_sending_after_its_end_is_reset);
	tcase_add_test(goes_on, connections_that_begin_go_on_to_be_made);
	tcase_add_test(goes_on, whoever_does_not_answer_is_dropped_also_afterwards);
	tcase_add_test(goes_on, what_the_guest_is_still_to_be_told_it_is_told_once);
	tcase_add_test(goes_on, a_connection_that_died_is_reset_afterwards);
	tcase_add_loop_test(goes_on, the_guest_hears_of_a_reset_only_where_there_was_one, 0, 3);
	tcase_add_test(goes_on, many_connections_go_along);
	tcase_add_loop_test(bad, connections_that_make_no_sense_are_refused, 0,
			    (int)ARRAY_SIZE(wrong));
	tcase_add_loop_test(bad, descriptors_that_are_no_sockets_are_refused, 0, 3);
	tcase_add_test(bad, the_same_ports_twice_are_refused);
	tcase_add_test(bad, a_listener_that_is_none_is_refused);
	tcase_add_test(bad, an_idle_device_without_a_driver_has_none);
}

int main(void)
{
	Suite *suite = suite_create("vsock in a live update");

	add_cases(suite);
	return run_suite(suite);
}
