/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net over a tap that is a socket pair: chains of any shape on receive,
 * transmit and control queues while frames come in. The first byte chooses the
 * features; then steps, a byte each with its arguments behind it.
 */
#include <stdlib.h>

#include "devices/virtio/virtio_net_priv.h"
#include "tests/fuzz/without_check.h"
#include "tests/unit/helpers/fake_driver.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/fake_tap.h"

#define RINGS 0x10000
#define BUFFERS (1 * MIB)
#define RAM (4 * MIB)
#define PAIRS 2

struct input {
	const uint8_t *p;
	size_t left;
};

static struct {
	struct fake_host host;
	struct fake_transport transport;
	struct fake_tap tap;
	struct virtio_device *dev;
	bool paused;
} s;

static uint32_t take(struct input *in, unsigned int bytes)
{
	uint32_t v = 0;

	for (unsigned int i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint32_t)*in->p++ << 8 * i;
	return v;
}

static void init(void)
{
	struct virtio_net_options options = {
		.tap = "tap0",
		.queue_pairs = PAIRS,
		.queue_size = 64,
		.offload_csum = true,
		.offload_tso = true,
		.offload_ufo = true,
	};
	struct error err = ERROR_INIT;

	if (fake_host_init_ram(&s.host, RAM))
		abort();
	fake_tap_init(&s.tap);
	s.dev = virtio_net_new_with(&s.host.host, "net0", &options, &s.tap.ops, &vhost_kernel_ops,
				    &err);
	if (!s.dev)
		abort();
	fake_transport_attach(&s.transport, s.dev);
}

static void nothing(void *opaque)
{
}

static void settle(void)
{
	struct virtio_net *net = container_of(s.dev, struct virtio_net, dev);

	for (unsigned int i = 0; i < PAIRS; i++)
		for (int j = 0; j < 2; j++)
			loop_call(net->pairs[i]->loop, nothing, NULL);
}

static uint8_t *ram(uint64_t gpa)
{
	return guest_memory_ptr(s.host.host.memory, gpa, 1);
}

/* A chain of up to eight buffers within RAM, of mostly one kind. */
static void chain(struct input *in, unsigned int queue)
{
	struct fake_buffer buffers[8];
	uint8_t shape = (uint8_t)take(in, 1);
	unsigned int n = 1 + (shape & 7);
	bool writable = !(queue & 1) && queue < 2 * PAIRS;

	for (unsigned int i = 0; i < n; i++) {
		buffers[i].gpa = BUFFERS + take(in, 2) * 16;
		buffers[i].len = take(in, 2);
		buffers[i].writable = shape & 8 ? i + 1 == n : writable;
		if (shape & 0x10)
			buffers[i].len *= 64;
	}
	fake_driver_add(&s.transport.drivers[queue], buffers, n);
	fake_transport_kick(&s.transport, queue);
}

static void control(struct input *in)
{
	unsigned int queue = container_of(s.dev, struct virtio_net, dev)->ctrl_queue;
	uint32_t len = 1 + take(in, 1) % 16;

	for (uint32_t i = 0; i < len; i++)
		ram(BUFFERS)[i] = (uint8_t)take(in, 1);
	fake_driver_add(
		&s.transport.drivers[queue],
		(struct fake_buffer[]){ { BUFFERS, len, false }, { BUFFERS + 64, 1, true } }, 2);
	fake_transport_kick(&s.transport, queue);
}

static void raw_descriptor(struct input *in, unsigned int queue)
{
	struct fake_driver *driver = &s.transport.drivers[queue];
	uint16_t index = (uint16_t)take(in, 1);

	fake_driver_set_descriptor(driver, index % driver->size, take(in, 4), take(in, 4),
				   (uint16_t)take(in, 1), (uint16_t)take(in, 2));
	if (!driver->packed)
		fake_driver_publish(driver, index);
	fake_transport_kick(&s.transport, queue);
}

static void frames(struct input *in, unsigned int pair)
{
	static uint8_t frame[NET_FRAME_MAX + 64];
	uint32_t len = 12 + take(in, 2) * (take(in, 1) % 2 ? 1 : 64);

	(void)!write(s.tap.peers[pair], frame, MIN(len, (uint32_t)sizeof(frame)));
}

static void drain(void)
{
	uint16_t id;
	uint32_t len;
	uint8_t got[64];

	for (unsigned int i = 0; i < s.tap.opened; i++)
		while (read(s.tap.peers[i], got, sizeof(got)) > 0)
			;
	/* Chains made by hand confuse a packed ring's driver. */
	for (unsigned int i = 0; i < s.dev->queue_count; i++)
		while (!s.transport.drivers[i].packed &&
		       fake_driver_used(&s.transport.drivers[i], &id, &len))
			;
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
	unsigned int queue = (what >> 4) % s.dev->queue_count;

	switch (what % 8) {
	case 0:
	case 1:
	case 2: chain(in, queue); break;
	case 3: control(in); break;
	case 4: raw_descriptor(in, queue); break;
	case 5: frames(in, what >> 4 & 1); break;
	case 6: drain(); break;
	case 7: pause_or_resume(); break;
	}
}

static uint64_t features(uint8_t choice)
{
	return (choice & 1 ? VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) : 0) |
	       (choice & 2 ? VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF) : 0) |
	       (choice & 4 ? VIRTIO_FEATURE(VIRTIO_NET_F_MQ) : 0) |
	       (choice & 8 ? VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) : 0) |
	       (choice & 16 ? VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
				      VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4)
			    : 0) |
	       VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ) |
	       VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!s.dev)
		init();
	s.paused = false;
	fake_transport_activate(&s.transport, features((uint8_t)take(&in, 1)), RINGS, 64);
	for (unsigned int steps = 0; in.left && steps < 200; steps++) {
		step(&in);
		settle();
	}
	s.dev->ops->deactivate(s.dev);
	s.dev->active = false;
	drain();
	for (unsigned int i = 0; i < s.dev->queue_count; i++)
		virtqueue_reset(&s.dev->queues[i]);
	return 0;
}
