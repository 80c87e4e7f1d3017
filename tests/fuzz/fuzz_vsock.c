/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock between a guest that sends anything and host programs that come, go
 * and stop half-way. The input is a list of steps, a byte each with its arguments
 * behind it; missing ones are 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/virtio/virtio_vsock_priv.h"
#include "tests/fuzz/without_check.h"
#include "tests/unit/helpers/fake_driver.h"
#include "tests/unit/helpers/fake_host.h"

#define CID 3
#define LISTENER_PORT 5
#define CLIENTS 4
#define RINGS 0x10000
#define RX_AT (1 * MIB)
#define TX_AT (2 * MIB)

struct input {
	const uint8_t *p;
	size_t left;
};

static struct {
	struct fake_host host;
	struct fake_transport transport;
	struct virtio_device *dev;
	char dir[32], path[64], listener_path[80];
	int listener;
	int clients[CLIENTS], accepted[CLIENTS];
	uint32_t host_port; /* of the last request to the guest */
	unsigned int rx_next;
	bool paused;
} s;

static uint32_t take(struct input *in, unsigned int bytes)
{
	uint32_t v = 0;

	for (unsigned int i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint32_t)*in->p++ << 8 * i;
	return v;
}

static void clean_up(void)
{
	unlink(s.listener_path);
	unlink(s.path);
	rmdir(s.dir);
}

static int unix_socket(const char *path, bool listening)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	if (listening ? bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 8)
		      : connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		return -1;
	}
	return fd;
}

static void init(void)
{
	struct virtio_vsock_options options = { .cid = CID, .socket = s.path };
	struct error err = ERROR_INIT;

	strcpy(s.dir, "/tmp/fuzz-vsock.XXXXXX");
	if (!mkdtemp(s.dir) || fake_host_init_ram(&s.host, 4 * MIB))
		abort();
	atexit(clean_up);
	snprintf(s.path, sizeof(s.path), "%s/v", s.dir);
	snprintf(s.listener_path, sizeof(s.listener_path), "%s_%u", s.path, LISTENER_PORT);
	s.listener = unix_socket(s.listener_path, true);
	s.dev = virtio_vsock_new(&s.host.host, "vsock0", &options, &err);
	if (!s.dev)
		abort();
	fake_transport_attach(&s.transport, s.dev);
}

static void nothing(void *opaque)
{
}

/* The device has done what it was told. */
static void settle(void)
{
	for (int i = 0; i < 2; i++)
		loop_call(container_of(s.dev, struct vsock, dev)->loop, nothing, NULL);
}

static uint8_t *ram(uint64_t gpa)
{
	return guest_memory_ptr(s.host.host.memory, gpa, 1);
}

static void post_rx(uint32_t len)
{
	uint64_t gpa = RX_AT + 8192 * (uint64_t)(s.rx_next++ % 64);

	fake_driver_add(&s.transport.drivers[VSOCK_RX],
			&(struct fake_buffer){ gpa, len % 8192, true }, 1);
	fake_transport_kick(&s.transport, VSOCK_RX);
}

/* A driver that knows what it does would look at the packets; this one looks for
 * the port of a client. */
static void fetch_rx(void)
{
	uint16_t id;
	uint32_t len;

	while (fake_driver_used(&s.transport.drivers[VSOCK_RX], &id, &len))
		if (len < sizeof(struct virtio_vsock_hdr) || len > 8192)
			abort();
	for (unsigned int i = 0; i < 64; i++) {
		const struct virtio_vsock_hdr *h = (const void *)ram(RX_AT + 8192 * (uint64_t)i);

		if (h->op == VIRTIO_VSOCK_OP_REQUEST)
			s.host_port = h->src_port;
	}
	while (fake_driver_used(&s.transport.drivers[VSOCK_TX], &id, &len))
		;
}

static void send_packet(const void *bytes, uint32_t len, uint32_t split)
{
	struct fake_buffer buffers[2] = { { TX_AT, len, false } };

	memcpy(ram(TX_AT), bytes, len);
	if (split && split < len) {
		buffers[0].len = split;
		buffers[1] = (struct fake_buffer){ TX_AT + split, len - split, false };
	}
	fake_driver_add(&s.transport.drivers[VSOCK_TX], buffers, buffers[1].len ? 2 : 1);
	fake_transport_kick(&s.transport, VSOCK_TX);
}

/* A packet with mostly sensible fields. */
static void likely_packet(struct input *in)
{
	static uint8_t raw[sizeof(struct virtio_vsock_hdr) + 65536];
	static const uint32_t ports[] = { LISTENER_PORT, 0, 6, 0xffffffff };
	uint8_t op = (uint8_t)take(in, 1), which = (uint8_t)take(in, 1);
	uint32_t len = take(in, 2), odd = which & 0x80 ? take(in, 2) : 0;
	struct virtio_vsock_hdr h = {
		.src_cid = CID + (odd & 1),
		.dst_cid = 2 + (odd >> 1 & 1),
		.src_port = 52 + (which >> 4 & 3),
		.dst_port = which & 4 ? s.host_port : ports[which & 3],
		.len = len + (odd >> 2 & 3),
		.type = (uint16_t)(1 + (odd >> 4 & 3)),
		.op = op & 0x0f,
		.flags = op >> 4,
		.buf_alloc = which & 8 ? take(in, 2) : 65536,
		.fwd_cnt = which & 8 ? take(in, 4) : 0,
	};

	memcpy(raw, &h, sizeof(h));
	send_packet(raw, (uint32_t)sizeof(h) + len, which & 0x40 ? 20 + op : 0);
}

static void raw_packet(struct input *in)
{
	uint8_t raw[256];
	uint32_t len = take(in, 1);

	for (uint32_t i = 0; i < len; i++)
		raw[i] = (uint8_t)take(in, 1);
	if (len)
		send_packet(raw, len, take(in, 1));
}

static void raw_descriptor(struct input *in)
{
	struct fake_driver *driver = &s.transport.drivers[take(in, 1) % 2];
	uint16_t index = (uint16_t)take(in, 1);

	fake_driver_set_descriptor(driver, index % driver->size, take(in, 4), take(in, 4),
				   (uint16_t)take(in, 1), (uint16_t)take(in, 2));
	fake_driver_publish(driver, index);
	fake_transport_kick(&s.transport, VSOCK_TX);
}

static void client(struct input *in)
{
	static const char *const lines[] = { "CONNECT 52\n", "CONNECT 53\nhello", "CONNECT ",
					     "x\n" };
	uint8_t step = (uint8_t)take(in, 1);
	int *fd = &(step & 0x80 ? s.accepted : s.clients)[step % CLIENTS];
	static uint8_t buffer[65536];

	switch (step >> 2 & 7) {
	case 0: /* anew */
		if (*fd >= 0)
			close(*fd);
		*fd = step & 0x80 ? accept4(s.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
				  : unix_socket(s.path, false);
		break;
	case 1:
		if (*fd >= 0)
			send(*fd, lines[step >> 5 & 3], strlen(lines[step >> 5 & 3]), MSG_NOSIGNAL);
		break;
	case 2:
		if (*fd >= 0)
			send(*fd, buffer, take(in, 2), MSG_NOSIGNAL);
		break;
	case 3:
		if (*fd >= 0)
			(void)!read(*fd, buffer, take(in, 2));
		break;
	case 4:
		if (*fd >= 0)
			shutdown(*fd, step & 0x20 ? SHUT_RD : SHUT_WR);
		break;
	default:
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
		break;
	}
}

static void pause_or_resume(void)
{
	if (s.paused)
		s.dev->ops->resume(s.dev);
	else
		s.dev->ops->pause(s.dev);
	s.paused = !s.paused;
}

static void step(struct input *in)
{
	uint8_t what = (uint8_t)take(in, 1);

	switch (what % 8) {
	case 0:
	case 1: likely_packet(in); break;
	case 2: raw_packet(in); break;
	case 3:
	case 4: client(in); break;
	case 5: post_rx(what & 0x80 ? take(in, 2) : 4096); break;
	case 6: fetch_rx(); break;
	case 7:
		if (what & 0x80)
			raw_descriptor(in);
		else
			pause_or_resume();
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	int fd;

	if (!s.dev)
		init();
	for (unsigned int i = 0; i < CLIENTS; i++)
		s.clients[i] = s.accepted[i] = -1;
	s.rx_next = 0;
	s.paused = false;
	memset(ram(RX_AT), 0, 64 * 8192);
	fake_transport_activate(&s.transport, VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX), RINGS, 64);
	for (unsigned int i = 0; i < 8; i++)
		post_rx(4096);
	for (unsigned int steps = 0; in.left && steps < 200; steps++) {
		step(&in);
		settle();
	}
	s.dev->ops->deactivate(s.dev);
	s.dev->active = false;
	if (container_of(s.dev, struct vsock, dev)->conns)
		abort();
	for (unsigned int i = 0; i < s.dev->queue_count; i++)
		virtqueue_reset(&s.dev->queues[i]);
	for (unsigned int i = 0; i < CLIENTS; i++) {
		if (s.clients[i] >= 0)
			close(s.clients[i]);
		if (s.accepted[i] >= 0)
			close(s.accepted[i]);
	}
	while ((fd = accept(s.listener, NULL, NULL)) >= 0)
		close(fd);
	return 0;
}
