/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <linux/virtio_ring.h>
#include <net/ethernet.h>
#include <netinet/if_ether.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "devices/virtio/virtio_net_priv.h"
#include "memory/dirty_source.h"
#include "tests/unit/helpers/fake_driver.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/fake_tap.h"
#include "tests/unit/helpers/run_suite.h"

#define RAM (16 * MIB)
#define RINGS 0x10000
#define TX_AT (4 * MIB)
#define RX_AT (8 * MIB)
#define CTRL_AT (12 * MIB)
#define WAIT_MS 3000

#define MERGE VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF)
#define EVENTS (VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC))

static struct fake_host host;
static struct fake_tap tap;
static struct fake_transport transport;
static struct virtio_net_options options;
static struct virtio_device *dev;

/* Loop tests run over split and packed rings. */
static uint64_t ring_features(int i)
{
	return EVENTS | (i ? VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) : 0);
}

static void setup(void)
{
	ck_assert_int_eq(fake_host_init_ram(&host, RAM), 0);
	fake_tap_init(&tap);
	options = (struct virtio_net_options){
		.tap = "tap7",
		.queue_pairs = 1,
		.queue_size = 256,
		.offload_csum = true,
		.offload_tso = true,
		.offload_ufo = true,
	};
	dev = NULL;
}

static void teardown(void)
{
	if (dev)
		fake_transport_destroy(&transport);
	fake_tap_destroy(&tap);
	fake_host_destroy_ram(&host);
}

static void make(void)
{
	struct error err = ERROR_INIT;

	dev = virtio_net_new_with(&host.host, "net0", &options, &tap.ops, &vhost_kernel_ops, &err);
	ck_assert_msg(dev != NULL, "%s", err.message);
	fake_transport_attach(&transport, dev);
}

static void start(uint64_t features)
{
	make();
	fake_transport_activate(&transport, features, RINGS, 0);
}

static uint8_t *ram(uint64_t gpa)
{
	return guest_memory_ptr(host.host.memory, gpa, 1);
}

static uint64_t counter(const char *name)
{
	for (unsigned int i = 0; i < dev->counter_count; i++)
		if (!strcmp(dev->counters[i].name, name))
			return dev->counters[i].value;
	ck_abort_msg("no counter %s", name);
}

static void wait_counter(const char *name, uint64_t value)
{
	for (int i = 0; i < WAIT_MS && counter(name) < value; i++)
		usleep(1000);
	ck_assert_uint_eq(counter(name), value);
}

static void fill(uint8_t *p, size_t len, uint8_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

static ssize_t peer_read(unsigned int queue, void *buf, size_t len, int timeout_ms)
{
	struct pollfd p = { .fd = tap.peers[queue], .events = POLLIN };

	if (poll(&p, 1, timeout_ms) != 1)
		return -1;
	return read(p.fd, buf, len);
}

/* A frame as the tap gives it: empty header, then a pattern. */
static void peer_send(unsigned int queue, size_t len, uint8_t seed)
{
	static uint8_t frame[80000];

	memset(frame, 0, NET_HEADER_SIZE);
	fill(frame + NET_HEADER_SIZE, len, seed);
	ck_assert_int_eq(write(tap.peers[queue], frame, len + NET_HEADER_SIZE),
			 (ssize_t)(len + NET_HEADER_SIZE));
}

static void check_pattern(uint64_t gpa, size_t offset, size_t len, uint8_t seed)
{
	static uint8_t want[80000];

	fill(want, offset + len, seed);
	ck_assert_mem_eq(ram(gpa), want + offset, len);
}

static void add_rx(unsigned int queue, uint64_t gpa, uint32_t len)
{
	memset(ram(gpa), 0xee, len);
	fake_driver_add(&transport.drivers[queue], &(struct fake_buffer){ gpa, len, true }, 1);
}

static void send_chain(unsigned int queue, const struct fake_buffer *buffers, unsigned int n)
{
	fake_driver_add(&transport.drivers[queue], buffers, n);
	fake_transport_kick(&transport, queue);
}

static uint32_t wait_used(unsigned int queue)
{
	uint16_t id;
	uint32_t len;

	ck_assert(fake_transport_wait_used(&transport, queue, &id, &len, WAIT_MS));
	return len;
}

static bool used_now(unsigned int queue)
{
	uint16_t id;
	uint32_t len;

	return fake_driver_used(&transport.drivers[queue], &id, &len);
}

START_TEST(transmits_a_frame_as_it_is)
{
	uint8_t got[3000];

	start(ring_features(_i));
	memset(ram(TX_AT), 0, NET_HEADER_SIZE);
	fill(ram(TX_AT) + NET_HEADER_SIZE, 1000, 3);
	send_chain(1,
		   (struct fake_buffer[]){ { TX_AT, 5, false },
					   { TX_AT + 5, 507, false },
					   { TX_AT + 512, 500, false } },
		   3);
	ck_assert_int_eq(peer_read(0, got, sizeof(got), WAIT_MS), 1012);
	ck_assert_mem_eq(got, ram(TX_AT), 1012);
	ck_assert_uint_eq(wait_used(1), 0);
	ck_assert(fake_transport_wait_signal(&transport, 1, WAIT_MS));
	ck_assert_uint_eq(counter("tx_frames"), 1);
	ck_assert_uint_eq(counter("tx_bytes"), 1000);
}
END_TEST

START_TEST(transmits_many_frames_in_order_with_few_interrupts)
{
	uint8_t got[200];

	start(ring_features(_i));
	for (unsigned int i = 0; i < 200; i++) {
		memset(ram(TX_AT + 256 * i), 0, NET_HEADER_SIZE);
		fill(ram(TX_AT + 256 * i) + NET_HEADER_SIZE, 60, (uint8_t)i);
		fake_driver_add(&transport.drivers[1],
				&(struct fake_buffer){ TX_AT + 256 * i, 72, false }, 1);
	}
	fake_transport_kick(&transport, 1);
	for (unsigned int i = 0; i < 200; i++) {
		ck_assert_int_eq(peer_read(0, got, sizeof(got), WAIT_MS), 72);
		ck_assert_mem_eq(got, ram(TX_AT + 256 * i), 72);
		wait_used(1);
	}
	/* 200 frames are two turns; a full socket may make a few more. */
	ck_assert_uint_le(transport.signals[1], 20);
}
END_TEST

START_TEST(drops_transmit_chains_that_are_no_frames)
{
	static const uint32_t lengths[] = { 1, 11, 12, 25, NET_FRAME_MAX + 1, 400000 };
	uint8_t got[200];

	start(ring_features(0));
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		send_chain(1, &(struct fake_buffer){ TX_AT, lengths[i], false }, 1);
		ck_assert_uint_eq(wait_used(1), 0);
	}
	send_chain(1, &(struct fake_buffer){ TX_AT, 100, true }, 1); /* nothing to read in it */
	ck_assert_uint_eq(wait_used(1), 0);
	ck_assert_uint_eq(counter("tx_dropped"), ARRAY_SIZE(lengths) + 1);
	ck_assert_uint_eq(counter("tx_frames"), 0);
	ck_assert_uint_eq(transport.resets_needed, 0);
	/* And goes on. */
	send_chain(1, &(struct fake_buffer){ TX_AT, 100, false }, 1);
	ck_assert_int_eq(peer_read(0, got, sizeof(got), WAIT_MS), 100);
}
END_TEST

START_TEST(transmits_a_chain_of_more_ranges_than_writev_takes)
{
	static struct fake_buffer buffers[1024];
	static uint8_t got[4096];
	struct guest_memory_options split = { .size = RAM,
					      .low_end = RAM / 2,
					      .high_start = RAM / 2 };
	struct error err = ERROR_INIT;

	/* Two regions side by side: a buffer across their border is two ranges. */
	guest_memory_free(host.host.memory);
	host.host.memory = guest_memory_new(&split, &err);
	ck_assert_msg(host.host.memory != NULL, "%s", err.message);
	options.queue_size = 1024;
	start(EVENTS);
	for (unsigned int i = 0; i < 1024; i++)
		buffers[i] = (struct fake_buffer){ TX_AT + 2 * i, 2, false };
	buffers[100] = (struct fake_buffer){ RAM / 2 - 1, 2, false };
	memset(ram(TX_AT), 0, NET_HEADER_SIZE);
	fill(ram(TX_AT) + NET_HEADER_SIZE, 2048 - NET_HEADER_SIZE, 1);
	ram(RAM / 2 - 1)[0] = 0xab;
	ram(RAM / 2)[0] = 0xcd;
	send_chain(1, buffers, 1024);
	ck_assert_int_eq(peer_read(0, got, sizeof(got), WAIT_MS), 2048);
	ck_assert_uint_eq(got[200], 0xab);
	ck_assert_uint_eq(got[201], 0xcd);
	ck_assert_mem_eq(got + 202, ram(TX_AT + 202), 2048 - 202);
}
END_TEST

START_TEST(transmit_waits_for_a_full_tap_and_loses_nothing)
{
	uint8_t got[2000];
	unsigned int sent = 0, received = 0;

	start(ring_features(_i));
	for (; sent < 255; sent++) {
		memset(ram(TX_AT + 4096 * sent), 0, 12);
		fill(ram(TX_AT + 4096 * sent) + 12, 1500, (uint8_t)sent);
		fake_driver_add(&transport.drivers[1],
				&(struct fake_buffer){ TX_AT + 4096 * sent, 1512, false }, 1);
	}
	fake_transport_kick(&transport, 1);
	usleep(50000);
	ck_assert_uint_lt(counter("tx_frames"), 255); /* the socket is full */
	for (; received < sent; received++) {
		ck_assert_int_eq(peer_read(0, got, sizeof(got), WAIT_MS), 1512);
		ck_assert_mem_eq(got, ram(TX_AT + 4096 * received), 1512);
	}
	wait_counter("tx_frames", 255);
	ck_assert_uint_eq(counter("tx_dropped"), 0);
}
END_TEST

START_TEST(receives_a_frame_into_one_buffer)
{
	start(ring_features(_i % 2) | (_i / 2 ? MERGE : 0));
	add_rx(0, RX_AT, 2048);
	fake_transport_kick(&transport, 0);
	peer_send(0, 1000, 9);
	ck_assert_uint_eq(wait_used(0), 1012);
	ck_assert_uint_eq(load_le16(ram(RX_AT + 10)), 1);
	check_pattern(RX_AT + 12, 0, 1000, 9);
	ck_assert(fake_transport_wait_signal(&transport, 0, WAIT_MS));
	ck_assert_uint_eq(counter("rx_frames"), 1);
	ck_assert_uint_eq(counter("rx_bytes"), 1000);
}
END_TEST

START_TEST(receives_a_long_frame_into_merged_buffers)
{
	start(ring_features(_i) | MERGE);
	for (unsigned int i = 0; i < 100; i++)
		add_rx(0, RX_AT + 4096 * i, 1000);
	fake_transport_kick(&transport, 0);
	peer_send(0, 65000, 5);
	peer_send(0, 100, 6);
	for (unsigned int i = 0; i < 65; i++)
		ck_assert_uint_eq(wait_used(0), 1000);
	ck_assert_uint_eq(wait_used(0), 12);
	ck_assert_uint_eq(load_le16(ram(RX_AT + 10)), 66);
	check_pattern(RX_AT + 12, 0, 988, 5);
	for (unsigned int i = 1; i < 65; i++)
		check_pattern(RX_AT + 4096 * i, 1000 * i - 12, 1000, 5);
	ck_assert_uint_eq(ram(RX_AT + 4096 * 65)[12], 0xee); /* not a byte more */
	ck_assert_uint_eq(wait_used(0), 112);
	check_pattern(RX_AT + 4096 * 66 + 12, 0, 100, 6);
	ck_assert(!used_now(0));
}
END_TEST

/* A descriptor of a packed ring that the device returned: both bits are the same. */
static bool returned(const struct fake_driver *driver, unsigned int index)
{
	const uint16_t *flags = (const uint16_t *)ram(driver->desc + 16 * index + 14);
	uint16_t now = __atomic_load_n(flags, __ATOMIC_ACQUIRE);

	return !(now & 1 << VRING_PACKED_DESC_F_AVAIL) == !(now & 1 << VRING_PACKED_DESC_F_USED);
}

/* Waits for the first of `expected` chains as a driver does that looks at nothing but
 * the ring: true where the others are there too. */
static bool poll_ring(const struct fake_driver *driver, unsigned int expected)
{
	const uint16_t *index = (const uint16_t *)ram(driver->device + 2);
	unsigned int first = driver->used & 0x7fff;
	uint16_t now;

	if (driver->packed) {
		while (!returned(driver, first))
			;
		return returned(driver, (first + expected - 1) % driver->size);
	}
	while ((now = __atomic_load_n(index, __ATOMIC_ACQUIRE)) == driver->used)
		;
	return (uint16_t)(now - driver->used) == expected;
}

START_TEST(merged_buffers_become_visible_together)
{
	/* A driver that polls must never find the first buffer without the rest. */
	start(ring_features(_i) | MERGE);
	for (unsigned int round = 0; round < 200; round++) {
		uint16_t id;
		uint32_t len;

		for (unsigned int i = 0; i < 20; i++)
			add_rx(0, RX_AT + 4096 * i, 200);
		fake_transport_kick(&transport, 0);
		peer_send(0, 3900, (uint8_t)round);
		ck_assert(poll_ring(&transport.drivers[0], 20));
		for (unsigned int i = 0; i < 20; i++)
			ck_assert(fake_driver_used(&transport.drivers[0], &id, &len));
	}
}
END_TEST

START_TEST(held_frame_waits_for_more_buffers)
{
	start(ring_features(_i) | MERGE);
	add_rx(0, RX_AT, 1500);
	fake_transport_kick(&transport, 0);
	peer_send(0, 4000, 17);
	usleep(30000);
	ck_assert(!used_now(0));
	add_rx(0, RX_AT + 4096, 1500);
	fake_transport_kick(&transport, 0);
	usleep(30000);
	ck_assert(!used_now(0));
	add_rx(0, RX_AT + 8192, 1500);
	fake_transport_kick(&transport, 0);
	ck_assert_uint_eq(wait_used(0), 1500);
	ck_assert_uint_eq(wait_used(0), 1500);
	ck_assert_uint_eq(wait_used(0), 1012);
	ck_assert_uint_eq(load_le16(ram(RX_AT + 10)), 3);
	check_pattern(RX_AT + 12, 0, 1488, 17);
	check_pattern(RX_AT + 4096, 1488, 1500, 17);
	check_pattern(RX_AT + 8192, 2988, 1012, 17);
}
END_TEST

/* The device's reads of its tap come here: buffers may arrive right after one. */
static unsigned int frames_until_buffers;

ssize_t readv(int fd, const struct iovec *iov, int n)
{
	ssize_t len = syscall(SYS_readv, fd, iov, n);

	if (len > 0 && fd == tap.ends[0] && frames_until_buffers && !--frames_until_buffers)
		for (unsigned int i = 0; i < 3; i++)
			add_rx(0, RX_AT + 4096 * (NET_TURN_FRAMES + i), 1000);
	return len;
}

START_TEST(held_frame_of_a_turns_end_goes_on_with_buffers_that_just_came)
{
	start(ring_features(_i) | MERGE);
	for (unsigned int i = 0; i < NET_TURN_FRAMES - 1; i++)
		peer_send(0, 100, 1);
	peer_send(0, 3000, 2);
	usleep(20000);
	for (unsigned int i = 0; i < NET_TURN_FRAMES; i++)
		add_rx(0, RX_AT + 4096 * i, 1000);
	frames_until_buffers = NET_TURN_FRAMES;
	fake_transport_kick(&transport, 0);
	for (unsigned int i = 0; i < NET_TURN_FRAMES - 1; i++)
		ck_assert_uint_eq(wait_used(0), 112);
	for (unsigned int i = 0; i < 3; i++)
		ck_assert_uint_eq(wait_used(0), 1000);
	ck_assert_uint_eq(wait_used(0), 12);
	check_pattern(RX_AT + 4096 * NET_TURN_FRAMES, 988, 1000, 2);
}
END_TEST

START_TEST(frame_too_long_for_its_buffer_is_dropped_without_merging)
{
	start(ring_features(_i));
	add_rx(0, RX_AT, 500);
	add_rx(0, RX_AT + 4096, 500);
	fake_transport_kick(&transport, 0);
	peer_send(0, 489, 1);
	wait_counter("rx_dropped", 1);
	peer_send(0, 488, 2);
	ck_assert_uint_eq(wait_used(0), 500);
	check_pattern(RX_AT + 12, 0, 488, 2);
	ck_assert_uint_eq(ram(RX_AT + 4096)[0], 0xee);
}
END_TEST

START_TEST(frame_no_stock_of_buffers_holds_is_dropped)
{
	start(MERGE | EVENTS);
	for (unsigned int i = 0; i < 256; i++)
		add_rx(0, RX_AT + 64 * i, 12);
	fake_transport_kick(&transport, 0);
	peer_send(0, 256 * 12, 1);
	wait_counter("rx_dropped", 1);
	peer_send(0, 100, 2);
	for (unsigned int i = 0; i < 9; i++)
		ck_assert_uint_eq(wait_used(0), 12);
	ck_assert_uint_eq(wait_used(0), 112 - 9 * 12);
}
END_TEST

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

START_TEST(frames_without_buffers_wait_and_cost_no_cpu)
{
	uint64_t before;

	start(ring_features(_i) | MERGE);
	for (uint8_t i = 0; i < 5; i++)
		peer_send(0, 100, i);
	usleep(20000);
	before = cpu_ns();
	usleep(300000);
	ck_assert_uint_lt(cpu_ns() - before, 100000000);
	for (unsigned int i = 0; i < 5; i++)
		add_rx(0, RX_AT + 4096 * i, 2048);
	/* The driver was asked to kick: a wait without that would never end. */
	ck_assert(fake_driver_wants_kick(&transport.drivers[0]));
	fake_transport_kick(&transport, 0);
	for (unsigned int i = 0; i < 5; i++) {
		ck_assert_uint_eq(wait_used(0), 112);
		check_pattern(RX_AT + 4096 * i + 12, 0, 100, (uint8_t)i);
	}
}
END_TEST

START_TEST(tap_that_goes_away_costs_no_cpu)
{
	uint64_t before;

	start(MERGE);
	add_rx(0, RX_AT, 2048);
	fake_transport_kick(&transport, 0);
	shutdown(tap.peers[0], SHUT_RDWR);
	usleep(20000);
	before = cpu_ns();
	usleep(300000);
	ck_assert_uint_lt(cpu_ns() - before, 100000000);
	send_chain(1, &(struct fake_buffer){ TX_AT, 100, false }, 1);
	ck_assert_uint_eq(wait_used(1), 0);
	ck_assert_uint_eq(counter("tx_dropped"), 1);
}
END_TEST

START_TEST(receive_buffer_shorter_than_a_header_needs_a_reset)
{
	start(_i ? MERGE : 0);
	add_rx(0, RX_AT, 11);
	fake_transport_kick(&transport, 0);
	peer_send(0, 100, 1);
	ck_assert(fake_transport_wait_reset_needed(&transport, WAIT_MS));
}
END_TEST

START_TEST(read_only_receive_buffer_needs_a_reset)
{
	start(MERGE);
	send_chain(0, &(struct fake_buffer){ RX_AT, 2048, false }, 1);
	peer_send(0, 100, 1);
	ck_assert(fake_transport_wait_reset_needed(&transport, WAIT_MS));
}
END_TEST

START_TEST(header_of_the_receive_chain_the_guest_filled_is_skipped)
{
	/* Device-readable ranges before the writable ones: not written to. */
	start(MERGE);
	memset(ram(RX_AT), 0x55, 64);
	send_chain(0, (struct fake_buffer[]){ { RX_AT, 64, false }, { RX_AT + 4096, 2048, true } },
		   2);
	peer_send(0, 100, 4);
	ck_assert_uint_eq(wait_used(0), 112);
	ck_assert_uint_eq(ram(RX_AT)[0], 0x55);
	check_pattern(RX_AT + 4096 + 12, 0, 100, 4);
}
END_TEST

START_TEST(broken_ring_needs_a_reset_and_works_after_it)
{
	struct fake_driver *driver;
	unsigned int queue = (unsigned int)_i;
	uint8_t got[200];

	start(VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ));
	driver = &transport.drivers[queue];
	/* A loop of one descriptor. */
	fake_driver_set_descriptor(driver, 0, TX_AT, 100, VRING_DESC_F_NEXT, 0);
	fake_driver_publish(driver, 0);
	fake_transport_kick(&transport, queue);
	if (!queue)
		peer_send(0, 100, 1);
	ck_assert(fake_transport_wait_reset_needed(&transport, WAIT_MS));
	dev->ops->deactivate(dev);
	for (unsigned int i = 0; i < dev->queue_count; i++)
		virtqueue_reset(&dev->queues[i]);
	fake_transport_activate(&transport, 0, RINGS, 0);
	send_chain(1, &(struct fake_buffer){ TX_AT, 100, false }, 1);
	ck_assert_int_eq(peer_read(0, got, sizeof(got), WAIT_MS), 100);
}
END_TEST

START_TEST(paused_device_touches_nothing_and_goes_on_after)
{
	uint8_t got[200];

	start(ring_features(_i) | MERGE);
	for (unsigned int i = 0; i < 10; i++)
		add_rx(0, RX_AT + 4096 * i, 2048);
	fake_transport_kick(&transport, 0);
	peer_send(0, 100, 1);
	ck_assert_uint_eq(wait_used(0), 112);
	dev->ops->pause(dev);
	peer_send(0, 100, 2);
	send_chain(1, &(struct fake_buffer){ TX_AT, 100, false }, 1);
	usleep(30000);
	ck_assert(!used_now(0));
	ck_assert(!used_now(1));
	ck_assert_int_eq(peer_read(0, got, sizeof(got), 0), -1);
	ck_assert_uint_eq(dev->queues[0].in_flight, 0); /* the stock went back */
	dev->ops->resume(dev);
	ck_assert_uint_eq(wait_used(0), 112);
	check_pattern(RX_AT + 4096 + 12, 0, 100, 2);
	ck_assert_int_eq(peer_read(0, got, sizeof(got), WAIT_MS), 100);
	dev->ops->pause(dev); /* and is torn down from there */
}
END_TEST

START_TEST(received_frames_are_marked_dirty)
{
	struct error err = ERROR_INIT;
	struct dirty_source *source = guest_memory_dirty_source(host.host.memory, &err);
	struct dirty_bitmap bitmap;

	ck_assert_ptr_nonnull(source);
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, RAM / 4096, &err), 0);
	ck_assert_int_eq(source->ops->start(source, &err), 0);
	start(ring_features(_i) | MERGE);
	for (unsigned int i = 0; i < 4; i++)
		add_rx(0, RX_AT + 8192 * i, 1000);
	fake_transport_kick(&transport, 0);
	peer_send(0, 2500, 1);
	for (unsigned int i = 0; i < 3; i++)
		wait_used(0);
	dev->ops->pause(dev);
	ck_assert_int_eq(source->ops->collect(source, guest_memory_region(host.host.memory, 0),
					      &bitmap, &err),
			 0);
	for (unsigned int i = 0; i < 3; i++)
		ck_assert(dirty_bitmap_test(&bitmap, (RX_AT + 8192 * i) / 4096));
	ck_assert(!dirty_bitmap_test(&bitmap, (RX_AT + 8192 * 3) / 4096));
	/* The rings: split reports in the used area, packed in the descriptors. */
	ck_assert(dirty_bitmap_test(
		&bitmap, (_i ? transport.drivers[0].desc : transport.drivers[0].device) / 4096));
	source->ops->stop(source);
	source->ops->free(source);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

static uint8_t control(unsigned int queue, const void *request, uint32_t len)
{
	memcpy(ram(CTRL_AT), request, len);
	*ram(CTRL_AT + 4096) = 0xff;
	send_chain(queue,
		   (struct fake_buffer[]){ { CTRL_AT, len, false }, { CTRL_AT + 4096, 1, true } },
		   2);
	ck_assert_uint_eq(wait_used(queue), 1);
	return *ram(CTRL_AT + 4096);
}

static uint8_t control_pairs(unsigned int queue, uint16_t pairs)
{
	uint8_t request[4] = { VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET };

	store_le16(request + 2, pairs);
	return control(queue, request, 4);
}

START_TEST(queue_pairs_follow_the_control_queue)
{
	const uint64_t features = ring_features(_i) | MERGE | VIRTIO_FEATURE(VIRTIO_NET_F_MQ) |
				  VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ);
	uint8_t got[200], short_request[2] = { VIRTIO_NET_CTRL_MQ, 0 };

	options.queue_pairs = 4;
	start(features);
	ck_assert_uint_eq(dev->queue_count, 9);
	ck_assert(tap.attached[0] && !tap.attached[1] && !tap.attached[2] && !tap.attached[3]);
	ck_assert_uint_eq(control_pairs(8, 0), VIRTIO_NET_ERR);
	ck_assert_uint_eq(control_pairs(8, 5), VIRTIO_NET_ERR);
	ck_assert_uint_eq(control_pairs(8, 0xffff), VIRTIO_NET_ERR);
	ck_assert_uint_eq(control(8, short_request, 2), VIRTIO_NET_ERR);
	ck_assert_uint_eq(control(8, short_request, 1), VIRTIO_NET_ERR);
	ck_assert_uint_eq(control_pairs(8, 3), VIRTIO_NET_OK);
	ck_assert(tap.attached[0] && tap.attached[1] && tap.attached[2] && !tap.attached[3]);
	send_chain(5, &(struct fake_buffer){ TX_AT, 100, false }, 1);
	ck_assert_int_eq(peer_read(2, got, sizeof(got), WAIT_MS), 100);
	add_rx(2, RX_AT, 2048);
	fake_transport_kick(&transport, 2);
	peer_send(1, 300, 3);
	ck_assert_uint_eq(wait_used(2), 312);
	ck_assert_uint_eq(control_pairs(8, 1), VIRTIO_NET_OK);
	ck_assert(!tap.attached[1] && !tap.attached[2]);
	/* Sent on a pair that is off: kept until it is on again. */
	send_chain(3, &(struct fake_buffer){ TX_AT, 100, false }, 1);
	ck_assert_int_eq(peer_read(1, got, sizeof(got), 30), -1);
	ck_assert_uint_eq(control_pairs(8, 2), VIRTIO_NET_OK);
	ck_assert_int_eq(peer_read(1, got, sizeof(got), WAIT_MS), 100);
}
END_TEST

START_TEST(without_multiqueue_the_control_queue_is_the_third)
{
	uint8_t request[10] = { VIRTIO_NET_CTRL_GUEST_OFFLOADS,
				VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET };

	options.queue_pairs = 2;
	start(VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ) |
	      VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS));
	ck_assert_uint_eq(control(2, request, 10), VIRTIO_NET_OK);
	ck_assert_uint_eq(control_pairs(2, 1), VIRTIO_NET_ERR); /* not negotiated */
}
END_TEST

START_TEST(unknown_control_commands_are_refused)
{
	uint8_t request[100] = { 0 };

	start(VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ));
	for (unsigned int class = 0; class < 256; class += 5) {
		request[0] = (uint8_t) class;
		request[1] = (uint8_t)(class * 3);
		ck_assert_uint_eq(control(2, request, class % 100 + 1), VIRTIO_NET_ERR);
	}
	/* No room for the answer. */
	send_chain(2, &(struct fake_buffer){ CTRL_AT, 10, false }, 1);
	ck_assert_uint_eq(wait_used(2), 0);
}
END_TEST

START_TEST(offloads_reach_the_tap_as_negotiated)
{
	uint8_t request[10] = { VIRTIO_NET_CTRL_GUEST_OFFLOADS,
				VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET };
	const uint64_t csum = VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM),
		       tso4 = VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4);

	start(csum | tso4 | VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ) |
	      VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS));
	ck_assert_uint_eq(tap.offload, TUN_F_CSUM | TUN_F_TSO4);
	store_le64(request + 2, csum);
	ck_assert_uint_eq(control(2, request, 10), VIRTIO_NET_OK);
	ck_assert_uint_eq(tap.offload, TUN_F_CSUM);
	store_le64(request + 2, csum | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO6));
	ck_assert_uint_eq(control(2, request, 10), VIRTIO_NET_ERR); /* never negotiated */
	store_le64(request + 2, UINT64_MAX);
	ck_assert_uint_eq(control(2, request, 10), VIRTIO_NET_ERR);
	ck_assert_uint_eq(control(2, request, 9), VIRTIO_NET_ERR);
	ck_assert_uint_eq(tap.offload, TUN_F_CSUM);
	store_le64(request + 2, tso4); /* without checksums: none at all */
	ck_assert_uint_eq(control(2, request, 10), VIRTIO_NET_OK);
	ck_assert_uint_eq(tap.offload, 0);
}
END_TEST

START_TEST(features_are_what_was_asked_for_and_the_tap_can_do)
{
	tap.no_ufo = true;
	make();
	ck_assert(dev->device_features & VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO4));
	ck_assert(!(dev->device_features & VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_UFO)));
	ck_assert(!(dev->device_features & VIRTIO_FEATURE(VIRTIO_NET_F_MQ)));
	ck_assert(!(dev->device_features & VIRTIO_FEATURE(VIRTIO_NET_F_MTU)));
	ck_assert_uint_eq(dev->type, VIRTIO_NET);
	ck_assert_uint_eq(dev->withheld, 0);
	fake_transport_destroy(&transport);
	options.offload_csum = false;
	options.mtu = 9000;
	make();
	ck_assert_uint_eq(dev->device_features,
			  VIRTIO_FEATURE(VIRTIO_NET_F_MAC) | VIRTIO_FEATURE(VIRTIO_NET_F_STATUS) |
				  VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ) |
				  VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_ANNOUNCE) | MERGE |
				  VIRTIO_FEATURE(VIRTIO_NET_F_MTU));
}
END_TEST

START_TEST(config_space_tells_mac_status_pairs_and_mtu)
{
	static const uint8_t mac[6] = { 2, 3, 4, 5, 6, 7 };
	uint8_t config[32], got[6];

	memcpy(options.mac, mac, 6);
	options.mtu = 1400;
	options.queue_pairs = 3;
	make();
	dev->ops->config_read(dev, 0, config, sizeof(config));
	ck_assert_mem_eq(config, mac, 6);
	ck_assert_uint_eq(load_le16(config + 6), VIRTIO_NET_S_LINK_UP);
	ck_assert_uint_eq(load_le16(config + 8), 3);
	ck_assert_uint_eq(load_le16(config + 10), 1400);
	ck_assert_uint_eq(config[12], 0);
	dev->ops->config_read(dev, 0xfffffff0, config, 4);
	ck_assert_uint_eq(load_le32(config), 0);
	virtio_net_mac(dev, got);
	ck_assert_mem_eq(got, mac, 6);
	ck_assert_str_eq(virtio_net_tap(dev), "tap7");
	ck_assert_int_eq(tap.mtu, 1400);
	ck_assert_int_eq(tap.header_size, 12);
	ck_assert(tap.up); /* it was made, so it was brought up */
}
END_TEST

START_TEST(made_up_macs_are_local_and_differ)
{
	uint8_t a[6], b[6];

	make();
	virtio_net_mac(dev, a);
	fake_transport_destroy(&transport);
	make();
	virtio_net_mac(dev, b);
	ck_assert_uint_eq(a[0] & 3, 2);
	ck_assert_mem_ne(a, b, 6);
}
END_TEST

START_TEST(existing_tap_is_left_as_it_is)
{
	tap.exists = true;
	tap.made_multi = true; /* one queue of it will do */
	make();
	ck_assert(!tap.up);
	ck_assert_uint_eq(tap.addresses, 0);
}
END_TEST

START_TEST(address_and_mask_are_set_where_asked)
{
	options.tap = NULL;
	options.ip = "192.168.249.1";
	options.mask = "255.255.255.0";
	make();
	ck_assert_uint_eq(tap.addresses, 2);
	ck_assert_str_eq(virtio_net_tap(dev), "vmtap0");
}
END_TEST

static void expect_error(int code, const char *text)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(virtio_net_new_with(&host.host, "net0", &options, &tap.ops,
					       &vhost_kernel_ops, &err));
	ck_assert_int_eq(err.code, code);
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' is not in '%s'", text, err.message);
}

START_TEST(busy_tap_is_named)
{
	tap.exists = true;
	tap.set_interface_error = -EBUSY;
	expect_error(-EBUSY, "tap7: it is in use");
}
END_TEST

START_TEST(missing_right_comes_with_the_remedy)
{
	tap.set_interface_error = -EPERM;
	expect_error(-EPERM, "ip tuntap add dev tap7 mode tap user $USER");
	tap.exists = true;
	expect_error(-EPERM, "tap7: it belongs to another user");
	options.queue_pairs = 2;
	expect_error(-EPERM, "multi_queue");
}
END_TEST

START_TEST(tap_of_the_wrong_kind_is_explained)
{
	tap.exists = true;
	options.queue_pairs = 2;
	expect_error(-EINVAL, "without multi_queue");
}
END_TEST

START_TEST(bad_options_are_refused)
{
	static const int fds[1] = { 0 };

	options.tap = "a name";
	expect_error(-EINVAL, "a name");
	options.tap = "seventeen-letters";
	expect_error(-EINVAL, "seventeen-letters");
	options.tap = "";
	expect_error(-EINVAL, "no name of an interface");
	options.tap = "tap%d";
	expect_error(-EINVAL, "tap%d");
	options.tap = "tap7";
	options.queue_pairs = 0;
	expect_error(-EINVAL, "0 queue pairs");
	options.queue_pairs = 33;
	expect_error(-EINVAL, "33 queue pairs");
	options.queue_pairs = 2;
	options.fds = fds;
	options.fd_count = 1;
	expect_error(-EINVAL, "1 tap fds for 2 queue pairs");
	options.fds = NULL;
	options.queue_pairs = 1;
	options.queue_size = 100;
	expect_error(-EINVAL, "queue size 100");
	options.queue_size = 2048;
	expect_error(-EINVAL, "queue size 2048");
	options.queue_size = 256;
	options.mtu = 20;
	expect_error(-EINVAL, "MTU 20");
	options.mtu = 0;
	options.mask = "255.0.0.0";
	expect_error(-EINVAL, "mask without an ip");
	options.ip = "300.1.1.1";
	expect_error(-EINVAL, "300.1.1.1");
	options.ip = options.mask = NULL;
	options.mac[0] = 1;
	expect_error(-EINVAL, "multicast");
}
END_TEST

START_TEST(fd_that_is_no_tap_is_refused_and_stays_open)
{
	struct error err = ERROR_INIT;
	int fd = eventfd_new();

	options.fds = &fd;
	options.fd_count = 1;
	ck_assert_ptr_null(virtio_net_new(&host.host, "net0", &options, &err));
	ck_assert_msg(strstr(err.message, "not of a tap") != NULL, "%s", err.message);
	ck_assert_int_eq(fcntl(fd, F_GETFD) < 0, 0);
	options.fds = NULL;
	close(fd);
}
END_TEST

START_TEST(rate_limit_slows_both_directions_and_loses_nothing)
{
	uint64_t begun;
	uint8_t got[200];
	double seconds;

	/* 10 frames at once, then 10 in 100 ms. */
	options.rate_limit.ops = (struct token_bucket_options){ .size = 10, .refill_ms = 100 };
	start(MERGE | EVENTS);
	begun = clock_ns();
	for (unsigned int i = 0; i < 40; i++) {
		fake_driver_add(&transport.drivers[1],
				&(struct fake_buffer){ TX_AT + 256 * i, 72, false }, 1);
		add_rx(0, RX_AT + 4096 * i, 2048);
		peer_send(0, 60, (uint8_t)i);
	}
	fake_transport_kick(&transport, 0);
	fake_transport_kick(&transport, 1);
	for (unsigned int i = 0; i < 40; i++) {
		ck_assert_int_eq(peer_read(0, got, sizeof(got), WAIT_MS), 72);
		ck_assert_uint_eq(wait_used(0), 72);
		check_pattern(RX_AT + 4096 * i + 12, 0, 60, (uint8_t)i);
	}
	seconds = (double)(clock_ns() - begun) / 1e9;
	ck_assert(seconds > 0.2);
	ck_assert(seconds < 2);
}
END_TEST

/* With the kernel's own tap, in a network namespace of the test's own. */

static void own_network(void)
{
	ck_assert_msg(!unshare(CLONE_NEWNET), "a network namespace needs root: %s",
		      strerror(errno));
}

static void make_real(void)
{
	struct error err = ERROR_INIT;

	dev = virtio_net_new(&host.host, "net0", &options, &err);
	ck_assert_msg(dev != NULL, "%s", err.message);
	fake_transport_attach(&transport, dev);
}

struct arp_frame {
	uint8_t header[NET_HEADER_SIZE];
	struct ether_header eth;
	struct ether_arp arp;
} __attribute__((packed));

static void put_arp_request(struct arp_frame *f)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 5 };

	memset(f, 0, sizeof(*f));
	memset(f->eth.ether_dhost, 0xff, 6);
	memcpy(f->eth.ether_shost, mac, 6);
	f->eth.ether_type = htons(ETHERTYPE_ARP);
	f->arp.arp_hrd = htons(ARPHRD_ETHER);
	f->arp.arp_pro = htons(ETHERTYPE_IP);
	f->arp.arp_hln = 6;
	f->arp.arp_pln = 4;
	f->arp.arp_op = htons(ARPOP_REQUEST);
	memcpy(f->arp.arp_sha, mac, 6);
	inet_pton(AF_INET, "192.168.77.2", f->arp.arp_spa);
	inet_pton(AF_INET, "192.168.77.1", f->arp.arp_tpa);
}

START_TEST(host_answers_arp_over_a_real_tap)
{
	const struct arp_frame *reply;
	bool answered = false;

	own_network();
	options.ip = "192.168.77.1";
	options.mask = "255.255.255.0";
	options.queue_pairs = _i ? 2 : 1;
	options.mtu = 1400;
	make_real();
	fake_transport_activate(
		&transport,
		(dev->device_features & ~(_i ? 0 : VIRTIO_FEATURE(VIRTIO_NET_F_MQ))) | EVENTS,
		RINGS, 0);
	for (unsigned int i = 0; i < 64; i++)
		add_rx(0, RX_AT + 4096 * i, 2048);
	fake_transport_kick(&transport, 0);
	put_arp_request((struct arp_frame *)ram(TX_AT));
	send_chain(1, &(struct fake_buffer){ TX_AT, sizeof(struct arp_frame), false }, 1);
	/* The host's own IPv6 chatter comes as well. */
	for (unsigned int i = 0; i < 64 && !answered; i++) {
		wait_used(0);
		reply = (const struct arp_frame *)ram(RX_AT + 4096 * i);
		answered = reply->eth.ether_type == htons(ETHERTYPE_ARP) &&
			   reply->arp.arp_op == htons(ARPOP_REPLY) &&
			   !memcmp(reply->arp.arp_tha, "\2\0\0\0\0\5", 6);
	}
	ck_assert(answered);
	ck_assert_uint_eq(counter("tx_dropped"), 0);
}
END_TEST

START_TEST(real_tap_in_use_is_busy)
{
	struct error err = ERROR_INIT;

	own_network();
	make_real();
	ck_assert_ptr_null(virtio_net_new(&host.host, "net1", &options, &err));
	ck_assert_int_eq(err.code, -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.message, "tap7"));
}
END_TEST

START_TEST(real_tap_refuses_garbage_headers_and_stays)
{
	own_network();
	make_real();
	fake_transport_activate(&transport, dev->device_features | EVENTS, RINGS, 0);
	for (unsigned int i = 0; i < 64; i++) {
		for (unsigned int j = 0; j < 200; j++)
			ram(TX_AT)[j] = (uint8_t)(i * 37 + j * 11 + (i << (j % 5)));
		send_chain(1, &(struct fake_buffer){ TX_AT, 27 + i, false }, 1);
		ck_assert_uint_eq(wait_used(1), 0);
	}
	ck_assert_uint_gt(counter("tx_dropped"), 0);
	ck_assert_uint_eq(transport.resets_needed, 0);
}
END_TEST

START_TEST(real_tap_fds_of_the_caller_are_taken_over)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
			     .ifr_name = "given0" };
	int fd;

	own_network();
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ioctl(fd, TUNSETIFF, &ifr), 0);
	options.fds = &fd;
	options.fd_count = 1;
	make_real();
	ck_assert_str_eq(virtio_net_tap(dev), "given0");
	ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
	fake_transport_destroy(&transport);
	dev = NULL;
	ck_assert_int_lt(fcntl(fd, F_GETFD), 0);
}
END_TEST

static void add_cases(Suite *s)
{
	TCase *tx = tcase_create("transmit"), *rx = tcase_create("receive");
	TCase *control = tcase_create("control"), *taps = tcase_create("taps");
	TCase *all[] = { tx, rx, control, taps };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		tcase_add_checked_fixture(all[i], setup, teardown);
		tcase_set_timeout(all[i], 60);
		suite_add_tcase(s, all[i]);
	}
	tcase_add_loop_test(tx, transmits_a_frame_as_it_is, 0, 2);
	tcase_add_loop_test(tx, transmits_many_frames_in_order_with_few_interrupts, 0, 2);
	tcase_add_test(tx, drops_transmit_chains_that_are_no_frames);
	tcase_add_test(tx, transmits_a_chain_of_more_ranges_than_writev_takes);
	tcase_add_loop_test(tx, transmit_waits_for_a_full_tap_and_loses_nothing, 0, 2);
	tcase_add_loop_test(rx, receives_a_frame_into_one_buffer, 0, 4);
	tcase_add_loop_test(rx, receives_a_long_frame_into_merged_buffers, 0, 2);
	tcase_add_loop_test(rx, merged_buffers_become_visible_together, 0, 2);
	tcase_add_loop_test(rx, held_frame_waits_for_more_buffers, 0, 2);
	tcase_add_loop_test(rx, held_frame_of_a_turns_end_goes_on_with_buffers_that_just_came, 0,
			    2);
	tcase_add_loop_test(rx, frame_too_long_for_its_buffer_is_dropped_without_merging, 0, 2);
	tcase_add_test(rx, frame_no_stock_of_buffers_holds_is_dropped);
	tcase_add_loop_test(rx, frames_without_buffers_wait_and_cost_no_cpu, 0, 2);
	tcase_add_test(rx, tap_that_goes_away_costs_no_cpu);
	tcase_add_loop_test(rx, receive_buffer_shorter_than_a_header_needs_a_reset, 0, 2);
	tcase_add_test(rx, read_only_receive_buffer_needs_a_reset);
	tcase_add_test(rx, header_of_the_receive_chain_the_guest_filled_is_skipped);
	tcase_add_loop_test(rx, broken_ring_needs_a_reset_and_works_after_it, 0, 3);
	tcase_add_loop_test(rx, paused_device_touches_nothing_and_goes_on_after, 0, 2);
	tcase_add_loop_test(rx, received_frames_are_marked_dirty, 0, 2);
	tcase_add_test(rx, rate_limit_slows_both_directions_and_loses_nothing);
	tcase_add_loop_test(control, queue_pairs_follow_the_control_queue, 0, 2);
	tcase_add_test(control, without_multiqueue_the_control_queue_is_the_third);
	tcase_add_test(control, unknown_control_commands_are_refused);
	tcase_add_test(control, offloads_reach_the_tap_as_negotiated);
	tcase_add_test(control, features_are_what_was_asked_for_and_the_tap_can_do);
	tcase_add_test(control, config_space_tells_mac_status_pairs_and_mtu);
	tcase_add_test(control, made_up_macs_are_local_and_differ);
	tcase_add_test(taps, existing_tap_is_left_as_it_is);
	tcase_add_test(taps, address_and_mask_are_set_where_asked);
	tcase_add_test(taps, busy_tap_is_named);
	tcase_add_test(taps, missing_right_comes_with_the_remedy);
	tcase_add_test(taps, tap_of_the_wrong_kind_is_explained);
	tcase_add_test(taps, bad_options_are_refused);
	tcase_add_test(taps, fd_that_is_no_tap_is_refused_and_stays_open);
	tcase_add_loop_test(taps, host_answers_arp_over_a_real_tap, 0, 2);
	tcase_add_test(taps, real_tap_in_use_is_busy);
	tcase_add_test(taps, real_tap_refuses_garbage_headers_and_stays);
	tcase_add_test(taps, real_tap_fds_of_the_caller_are_taken_over);
}

int main(void)
{
	Suite *suite = suite_create("virtio_net");

	add_cases(suite);
	return run_suite(suite);
}
