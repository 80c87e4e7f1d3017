/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "memory/dirty_source.h"
#include "tests/unit/helpers/fake_driver.h"

#define SIZE 8
#define WRAP 0x8000
#define DATA 0x40000 /* gpa of buffers */
#define TABLE 0x30000
#define RAM MIB

/* ck_assert writes to the runner even where it holds; not in long loops. */
#define require(condition) \
	do { \
		if (!(condition)) \
			ck_abort_msg("%s", #condition); \
	} while (0)

static struct guest_memory *memory;
static struct fake_driver driver;
static struct virtqueue vq;
static struct iovec iov[VIRTQUEUE_IOV_MAX];
static uint64_t gpa[VIRTQUEUE_IOV_MAX];
static struct virtqueue_chain chain = { .iov = iov, .gpa = gpa, .iov_max = VIRTQUEUE_IOV_MAX };

static void start_queue(uint16_t size, bool packed, bool event_idx)
{
	struct error err = ERROR_INIT;

	memory = fake_driver_memory(RAM);
	fake_driver_init(&driver, memory, 0x10000, size, packed);
	driver.event_idx = event_idx;
	memset(&vq, 0, sizeof(vq));
	fake_driver_configure(&driver, &vq);
	ck_assert_msg(!virtqueue_start(&vq, &err), "%s", err.message);
}

static void stop_queue(void)
{
	guest_memory_free(memory);
}

static void assert_broken(const char *fault)
{
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), -EBADMSG);
	ck_assert(vq.broken);
	ck_assert_str_eq(vq.fault, fault);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
	ck_assert(virtqueue_empty(&vq));
	ck_assert(!virtqueue_should_signal(&vq));
}

/* As the driver must: flags and wrap bits of a packed descriptor at a position. */
static void set_packed(uint16_t index, uint64_t addr, uint32_t len, uint16_t flags, uint16_t id)
{
	fake_driver_set_descriptor(&driver, index, addr, len,
				   flags | fake_driver_packed_flags(WRAP), id);
}

START_TEST(chain_is_popped_read_written_and_returned)
{
	struct fake_buffer buffers[] = {
		{ DATA, 4, false },
		{ DATA + 0x1000, 3, false },
		{ DATA + 0x2000, 5, true },
	};
	char text[16] = "";
	uint16_t id, head;
	uint32_t len;

	start_queue(SIZE, _i, true);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
	guest_memory_write(memory, DATA, "abcd", 4);
	guest_memory_write(memory, DATA + 0x1000, "efg", 3);
	head = fake_driver_add(&driver, buffers, 3);
	ck_assert(!virtqueue_empty(&vq));
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	ck_assert_uint_eq(chain.head, head);
	ck_assert_uint_eq(chain.readable, 2);
	ck_assert_uint_eq(chain.writable, 1);
	ck_assert_uint_eq(chain.readable_len, 7);
	ck_assert_uint_eq(chain.writable_len, 5);
	ck_assert_uint_eq(chain.gpa[1], DATA + 0x1000);
	ck_assert_uint_eq(vq.in_flight, _i ? 3 : 1);
	ck_assert_uint_eq(virtqueue_chain_read(&chain, 2, text, sizeof(text)), 5);
	ck_assert_str_eq(text, "cdefg");
	ck_assert_uint_eq(virtqueue_chain_write(&chain, 1, "123456", 6), 4);
	guest_memory_read(memory, DATA + 0x2000, text, 5);
	ck_assert(!memcmp(text,
			  "\0"
			  "1234",
			  5));
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
	ck_assert(!fake_driver_used(&driver, &id, &len));
	virtqueue_push(&vq, &chain, 5);
	ck_assert(fake_driver_used(&driver, &id, &len));
	ck_assert_uint_eq(id, head);
	ck_assert_uint_eq(len, 5);
	ck_assert(!fake_driver_used(&driver, &id, &len));
	ck_assert_uint_eq(vq.in_flight, 0);
	stop_queue();
}
END_TEST

START_TEST(queue_turns_many_times_with_chains_of_every_length)
{
	uint16_t size = _i & 1 ? 7 : 8; /* packed rings of any size */
	uint16_t ids[8], id;
	uint32_t len;

	start_queue(_i & 1 ? size : 8, _i & 1, _i & 2);
	for (unsigned int round = 0; round < 70000; round++) {
		struct fake_buffer buffers[3];
		unsigned int n = 1 + round % 3, chains = 1 + round % 2;

		for (unsigned int i = 0; i < n; i++)
			buffers[i] = (struct fake_buffer){ DATA + 64 * i, 64, i == 2 };
		for (unsigned int i = 0; i < chains; i++)
			ids[i] = fake_driver_add(&driver, buffers, n);
		for (unsigned int i = 0; i < chains; i++) {
			require(virtqueue_pop(&vq, &chain) == 1);
			require(chain.head == ids[i]);
			require(chain.readable + chain.writable == n);
			virtqueue_push(&vq, &chain, round);
			require(virtqueue_should_signal(&vq) || (_i & 2));
		}
		require(virtqueue_pop(&vq, &chain) == 0);
		for (unsigned int i = 0; i < chains; i++) {
			require(fake_driver_used(&driver, &id, &len));
			require(id == ids[i]);
			require(len == round);
		}
	}
	stop_queue();
}
END_TEST

START_TEST(full_queue_is_popped_once_and_returned_out_of_order)
{
	struct virtqueue_chain chains[SIZE];
	struct iovec iovs[SIZE];
	uint16_t id;
	uint32_t len;

	start_queue(SIZE, _i, true);
	for (int turn = 0; turn < 3; turn++) {
		for (unsigned int i = 0; i < SIZE; i++) {
			fake_driver_add(&driver, &(struct fake_buffer){ DATA, 1, true }, 1);
			chains[i] = (struct virtqueue_chain){ .iov = &iovs[i], .iov_max = 1 };
			ck_assert_int_eq(virtqueue_pop(&vq, &chains[i]), 1);
		}
		ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
		ck_assert(!vq.broken);
		for (unsigned int i = SIZE; i-- > 0;)
			virtqueue_push(&vq, &chains[i], i);
		for (unsigned int i = SIZE; i-- > 0;) {
			ck_assert(fake_driver_used(&driver, &id, &len));
			ck_assert_uint_eq(id, chains[i].head);
			ck_assert_uint_eq(len, i);
		}
	}
	stop_queue();
}
END_TEST

START_TEST(unpopped_chain_is_popped_again)
{
	struct fake_buffer buffers[] = { { DATA, 4, false }, { DATA, 4, true }, { DATA, 4, true } };

	start_queue(SIZE, _i, true);
	/* Five turns of three in a ring of eight: across the wrap as well. */
	for (int i = 0; i < 5; i++) {
		uint16_t before = vq.last_avail, id;
		uint32_t len;

		fake_driver_add(&driver, buffers, 3);
		ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
		virtqueue_unpop(&vq, &chain);
		ck_assert_uint_eq(vq.last_avail, before);
		ck_assert_uint_eq(vq.in_flight, 0);
		ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
		ck_assert_uint_eq(chain.writable_len, 8);
		virtqueue_push(&vq, &chain, 0);
		ck_assert(fake_driver_used(&driver, &id, &len));
	}
	stop_queue();
}
END_TEST

START_TEST(indirect_table_is_followed)
{
	struct fake_buffer buffers[] = { { DATA, 10, false }, { DATA + 100, 20, true } };
	uint16_t id, head;
	uint32_t len;

	start_queue(SIZE, _i, true);
	head = fake_driver_add_indirect(&driver, TABLE + 3, buffers, 2); /* any alignment */
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	ck_assert_uint_eq(chain.readable_len, 10);
	ck_assert_uint_eq(chain.writable_len, 20);
	ck_assert_uint_eq(chain.count, 1);
	virtqueue_push(&vq, &chain, 20);
	ck_assert(fake_driver_used(&driver, &id, &len));
	ck_assert_uint_eq(id, head);
	stop_queue();
}
END_TEST

START_TEST(direct_descriptors_before_an_indirect_one_count_too)
{
	start_queue(SIZE, false, true);
	fake_driver_set_descriptor(&driver, 0, DATA, 4, VRING_DESC_F_NEXT, 1);
	fake_driver_set_descriptor(&driver, 1, TABLE, 16, VRING_DESC_F_INDIRECT, 0);
	guest_memory_write(memory, TABLE,
			   &(struct vring_desc){ .addr = DATA, .len = 6, .flags = 2 }, 16);
	fake_driver_publish(&driver, 0);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	ck_assert_uint_eq(chain.readable_len, 4);
	ck_assert_uint_eq(chain.writable_len, 6);
	stop_queue();
}
END_TEST

START_TEST(zero_length_descriptor_has_no_range)
{
	/* Its address may be anything. */
	struct fake_buffer buffers[] = { { ~0ULL, 0, false }, { DATA, 4, false } };

	start_queue(SIZE, _i, true);
	fake_driver_add(&driver, buffers, 2);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	ck_assert_uint_eq(chain.readable, 1);
	ck_assert_uint_eq(chain.readable_len, 4);
	stop_queue();
}
END_TEST

static void add_region(uint64_t at, uint64_t size)
{
	struct error err = ERROR_INIT;
	int fd = memfd_create("second", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	ck_assert_msg(!guest_memory_add(memory, at, size, fd, 0, &err), "%s", err.message);
}

START_TEST(buffer_and_table_across_regions_become_two_ranges)
{
	struct fake_buffer buffer = { RAM - 10, 30, true };
	struct vring_desc entry = { .addr = RAM - 10, .len = 30, .flags = VRING_DESC_F_WRITE };

	start_queue(SIZE, false, true);
	add_region(RAM, 0x10000);
	fake_driver_add(&driver, &buffer, 1);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	ck_assert_uint_eq(chain.writable, 2);
	ck_assert_uint_eq(chain.iov[0].iov_len, 10);
	ck_assert_uint_eq(chain.iov[1].iov_len, 20);
	ck_assert_uint_eq(chain.gpa[1], RAM);
	guest_memory_write(memory, RAM - 8, &entry, 16);
	fake_driver_set_descriptor(&driver, 1, RAM - 8, 16, VRING_DESC_F_INDIRECT, 0);
	fake_driver_publish(&driver, 1);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	ck_assert_uint_eq(chain.writable_len, 30);
	stop_queue();
}
END_TEST

static void refuses_to_start(const char *named)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(virtqueue_start(&vq, &err), -EINVAL);
	ck_assert_msg(strstr(err.message, named) != NULL, "'%s' lacks '%s'", err.message, named);
	ck_assert(!vq.ready);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
}

START_TEST(wrong_sizes_are_refused)
{
	start_queue(SIZE, _i, true);
	vq.size_max = 16;
	vq.size = 0;
	refuses_to_start("size 0");
	vq.size = 32;
	refuses_to_start("size 32");
	vq.size_max = 0x8000;
	vq.size = 2048;
	refuses_to_start("size 2048");
	if (!_i) {
		vq.size = 7;
		refuses_to_start("power of two");
	}
	stop_queue();
}
END_TEST

START_TEST(misaligned_ring_is_refused)
{
	struct virtqueue good;

	start_queue(SIZE, _i, true);
	good = vq;
	vq.desc += 8;
	refuses_to_start("descriptor");
	vq = good;
	vq.driver += 1;
	refuses_to_start(_i ? "driver event area" : "available ring");
	vq = good;
	vq.device += 2;
	refuses_to_start(_i ? "device event area" : "used ring");
	stop_queue();
}
END_TEST

START_TEST(ring_outside_ram_or_across_regions_is_refused)
{
	struct virtqueue good;

	start_queue(SIZE, _i, true);
	good = vq;
	vq.desc = RAM;
	refuses_to_start("descriptor");
	vq.desc = RAM - 16 * (SIZE - 1);
	refuses_to_start("descriptor");
	vq.desc = ~0ULL << 4;
	refuses_to_start("descriptor");
	add_region(RAM, 0x10000);
	vq.desc = RAM - 16;
	refuses_to_start("within one region");
	vq = good;
	vq.driver = RAM + 0x10000;
	refuses_to_start("0x110000");
	vq = good;
	vq.device = RAM + 0x10000;
	refuses_to_start("0x110000");
	stop_queue();
}
END_TEST

START_TEST(chain_with_loop_breaks_the_queue)
{
	start_queue(SIZE, false, true);
	fake_driver_set_descriptor(&driver, 0, DATA, 4, VRING_DESC_F_NEXT, 1);
	fake_driver_set_descriptor(&driver, 1, DATA, 4, VRING_DESC_F_NEXT, 0);
	fake_driver_publish(&driver, 0);
	assert_broken("chain longer than the queue (a loop?)");
	stop_queue();
}
END_TEST

START_TEST(loop_in_an_indirect_table_breaks_the_queue)
{
	struct vring_desc entry = { .addr = DATA, .len = 1, .flags = VRING_DESC_F_NEXT };

	start_queue(SIZE, false, true);
	guest_memory_write(memory, TABLE, &entry, 16);
	fake_driver_set_descriptor(&driver, 0, TABLE, 16, VRING_DESC_F_INDIRECT, 0);
	fake_driver_publish(&driver, 0);
	assert_broken("chain longer than the queue (a loop?)");
	stop_queue();
}
END_TEST

START_TEST(packed_chain_without_end_breaks_the_queue)
{
	start_queue(SIZE, true, true);
	for (uint16_t i = 0; i < SIZE; i++)
		set_packed(i, DATA, 4, VRING_DESC_F_NEXT, 0);
	assert_broken("chains longer than the queue");
	stop_queue();
}
END_TEST

START_TEST(descriptor_index_out_of_range_breaks_the_queue)
{
	start_queue(SIZE, false, true);
	if (_i) {
		fake_driver_set_descriptor(&driver, 0, DATA, 4, VRING_DESC_F_NEXT, SIZE);
		fake_driver_publish(&driver, 0);
	} else {
		fake_driver_publish(&driver, SIZE);
	}
	assert_broken("descriptor index out of range");
	stop_queue();
}
END_TEST

START_TEST(next_beyond_the_indirect_table_breaks_the_queue)
{
	struct vring_desc entry = { .addr = DATA, .len = 1, .flags = VRING_DESC_F_NEXT, .next = 1 };

	start_queue(SIZE, false, true);
	guest_memory_write(memory, TABLE, &entry, 16);
	fake_driver_set_descriptor(&driver, 0, TABLE, 16, VRING_DESC_F_INDIRECT, 0);
	fake_driver_publish(&driver, 0);
	assert_broken("descriptor index out of range");
	stop_queue();
}
END_TEST

START_TEST(packed_buffer_id_out_of_range_breaks_the_queue)
{
	start_queue(SIZE, true, true);
	set_packed(0, DATA, 4, 0, SIZE);
	assert_broken("buffer id out of range");
	stop_queue();
}
END_TEST

static const struct {
	uint64_t gpa;
	uint32_t len;
} outside[] = {
	{ RAM, 1 },
	{ RAM - 1, 2 },
	{ ~0ULL, 1 },
	{ ~0ULL, 2 },
	{ DATA, UINT32_MAX },
	{ 1ULL << 63, 4096 },
	{ ~0ULL - 0xffff, 0x20000 },
};

START_TEST(buffer_outside_ram_breaks_the_queue)
{
	start_queue(SIZE, _i & 1, true);
	fake_driver_add(&driver,
			&(struct fake_buffer){ outside[_i / 2].gpa, outside[_i / 2].len, true }, 1);
	assert_broken("buffer outside RAM");
	stop_queue();
}
END_TEST

START_TEST(indirect_table_outside_ram_breaks_the_queue)
{
	const uint64_t at[] = { RAM, RAM - 15, ~0ULL - 7, ~0ULL - 15 };

	start_queue(SIZE, _i & 1, true);
	if (driver.packed)
		set_packed(0, at[_i / 2], 16, VRING_DESC_F_INDIRECT, 0);
	else
		fake_driver_set_descriptor(&driver, 0, at[_i / 2], 16, VRING_DESC_F_INDIRECT, 0);
	if (!driver.packed)
		fake_driver_publish(&driver, 0);
	assert_broken("indirect table outside RAM");
	stop_queue();
}
END_TEST

/* One descriptor at index 0, of either ring, made available. */
static void publish_one(uint64_t addr, uint32_t len, uint16_t flags)
{
	if (driver.packed) {
		set_packed(0, addr, len, flags, 0);
		return;
	}
	fake_driver_set_descriptor(&driver, 0, addr, len, flags, 1);
	fake_driver_publish(&driver, 0);
}

START_TEST(nested_indirect_table_breaks_the_queue)
{
	struct fake_buffer buffer = { TABLE, 16, false };

	start_queue(SIZE, _i, true);
	fake_driver_add_indirect(&driver, TABLE, &buffer, 1);
	/* flags at 12 (split) or 14 (packed) */
	guest_memory_write(memory, TABLE + (_i ? 14 : 12), "\4\0", 2);
	assert_broken("indirect table within an indirect one");
	stop_queue();
}
END_TEST

START_TEST(indirect_descriptor_with_next_breaks_the_queue)
{
	start_queue(SIZE, _i, true);
	publish_one(TABLE, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT);
	assert_broken("indirect descriptor with a next one");
	stop_queue();
}
END_TEST

START_TEST(indirect_table_of_odd_length_breaks_the_queue)
{
	const uint32_t lens[] = { 0, 1, 15, 17, UINT32_MAX };

	start_queue(SIZE, _i & 1, true);
	publish_one(TABLE, lens[_i / 2], VRING_DESC_F_INDIRECT);
	assert_broken("indirect table whose length is no multiple of 16");
	stop_queue();
}
END_TEST

START_TEST(indirect_without_the_feature_breaks_the_queue)
{
	start_queue(SIZE, _i, true);
	vq.indirect = false;
	publish_one(TABLE, 16, VRING_DESC_F_INDIRECT);
	assert_broken("indirect descriptor without VIRTIO_F_INDIRECT_DESC");
	stop_queue();
}
END_TEST

START_TEST(indirect_chain_longer_than_the_queue_breaks_it)
{
	struct fake_buffer buffers[SIZE + 1];

	for (int i = 0; i <= SIZE; i++)
		buffers[i] = (struct fake_buffer){ DATA, 1, false };
	start_queue(SIZE, _i, true);
	fake_driver_add_indirect(&driver, TABLE, buffers, SIZE);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	ck_assert_uint_eq(chain.readable_len, SIZE);
	fake_driver_add_indirect(&driver, TABLE, buffers, SIZE + 1);
	assert_broken(_i ? "chain longer than the queue" : "chain longer than the queue (a loop?)");
	stop_queue();
}
END_TEST

START_TEST(readable_after_writable_breaks_the_queue)
{
	/* Even where the writable one is empty, or was the only other one. */
	struct fake_buffer buffers[] = { { DATA, 1, true }, { DATA, 1, false } };

	start_queue(SIZE, _i, true);
	fake_driver_add(&driver, buffers, 2);
	assert_broken("device-readable buffer after a device-writable one");
	stop_queue();
}
END_TEST

START_TEST(chain_of_more_than_4_gib_breaks_the_queue)
{
	struct fake_buffer buffers[3];

	/* Zero pages cost nothing: a sparse region of 2 GiB, three times. */
	for (int i = 0; i < 3; i++)
		buffers[i] = (struct fake_buffer){ GIB, (uint32_t)(2 * GIB), true };
	start_queue(SIZE, _i, true);
	add_region(GIB, 2 * GIB);
	fake_driver_add(&driver, buffers, 2);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	ck_assert_uint_eq(chain.writable_len, 4 * GIB);
	fake_driver_add(&driver, buffers, 3);
	assert_broken("chain longer than 4 GiB");
	stop_queue();
}
END_TEST

START_TEST(chain_of_more_ranges_than_the_device_takes_breaks_the_queue)
{
	struct fake_buffer buffers[] = { { DATA, 1, true }, { DATA, 1, true }, { DATA, 1, true } };

	start_queue(SIZE, _i, true);
	chain.iov_max = 2;
	fake_driver_add(&driver, buffers, 3);
	assert_broken("chain of more buffers than the device takes");
	stop_queue();
}
END_TEST

START_TEST(available_index_that_jumps_breaks_the_queue)
{
	start_queue(SIZE, false, true);
	fake_driver_set_avail(&driver, SIZE + 1);
	assert_broken("available index ahead by more than the queue's size");
	stop_queue();
}
END_TEST

START_TEST(available_index_that_runs_backwards_breaks_the_queue)
{
	start_queue(SIZE, false, true);
	fake_driver_set_avail(&driver, 0xffff);
	assert_broken("available index ahead by more than the queue's size");
	stop_queue();
}
END_TEST

START_TEST(more_chains_in_flight_than_descriptors_break_the_queue)
{
	start_queue(SIZE, false, true);
	fake_driver_set_descriptor(&driver, 0, DATA, 1, 0, 0);
	for (int i = 0; i < SIZE; i++) {
		fake_driver_publish(&driver, 0);
		ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	}
	fake_driver_publish(&driver, 0);
	assert_broken("more chains than descriptors");
	stop_queue();
}
END_TEST

START_TEST(packed_ring_refilled_while_in_flight_breaks_the_queue)
{
	start_queue(SIZE, true, true);
	for (int i = 0; i < SIZE; i++) {
		fake_driver_add(&driver, &(struct fake_buffer){ DATA, 1, false }, 1);
		ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	}
	fake_driver_add(&driver, &(struct fake_buffer){ DATA, 1, false }, 1);
	assert_broken("chains longer than the queue");
	stop_queue();
}
END_TEST

START_TEST(queue_works_again_after_a_reset)
{
	start_queue(SIZE, _i, true);
	publish_one(RAM, 1, 0);
	assert_broken("buffer outside RAM");
	virtqueue_reset(&vq);
	ck_assert(!vq.broken && !vq.ready && !vq.size && !vq.desc_hva);
	ck_assert_ptr_eq(vq.memory, memory);
	ck_assert_uint_eq(vq.size_max, VIRTQUEUE_SIZE_MAX);
	fake_driver_init(&driver, memory, 0x10000, SIZE, _i);
	fake_driver_configure(&driver, &vq);
	ck_assert_int_eq(virtqueue_start(&vq, NULL), 0);
	fake_driver_add(&driver, &(struct fake_buffer){ DATA, 1, false }, 1);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	stop_queue();
}
END_TEST

static void serve(unsigned int n)
{
	while (n--) {
		fake_driver_add(&driver, &(struct fake_buffer){ DATA, 1, false }, 1);
		require(virtqueue_pop(&vq, &chain) == 1);
		virtqueue_push(&vq, &chain, 0);
	}
}

static void take_used(unsigned int n)
{
	uint16_t id;
	uint32_t len;

	while (n--)
		require(fake_driver_used(&driver, &id, &len));
}

START_TEST(nothing_pushed_signals_nothing)
{
	start_queue(SIZE, _i, false);
	ck_assert(!virtqueue_should_signal(&vq));
	serve(1);
	ck_assert(virtqueue_should_signal(&vq));
	ck_assert(!virtqueue_should_signal(&vq));
	stop_queue();
}
END_TEST

START_TEST(interrupts_are_suppressed_by_flag)
{
	start_queue(SIZE, _i, false);
	fake_driver_set_interrupts(&driver, false);
	serve(1);
	ck_assert(!virtqueue_should_signal(&vq));
	fake_driver_set_interrupts(&driver, true);
	serve(1);
	ck_assert(virtqueue_should_signal(&vq));
	stop_queue();
}
END_TEST

static uint16_t used_position(unsigned int ahead)
{
	unsigned int index;

	if (!driver.packed)
		return (uint16_t)(driver.used + ahead);
	index = (driver.used & ~WRAP) + ahead;
	return (uint16_t)(index < SIZE ? index | (driver.used & WRAP)
				       : (index - SIZE) | ((driver.used & WRAP) ^ WRAP));
}

START_TEST(used_event_signals_when_passed_and_only_then)
{
	start_queue(SIZE, _i, true);
	/* Batches of five against a ring of eight: events on both sides of the wrap. */
	for (int round = 0; round < 100; round++) {
		fake_driver_set_used_event(&driver, used_position(3));
		serve(2);
		ck_assert(!virtqueue_should_signal(&vq));
		serve(1);
		ck_assert(!virtqueue_should_signal(&vq));
		serve(1);
		ck_assert(virtqueue_should_signal(&vq));
		serve(1);
		ck_assert(!virtqueue_should_signal(&vq));
		take_used(5);
	}
	stop_queue();
}
END_TEST

START_TEST(used_event_within_a_batch_signals)
{
	start_queue(SIZE, _i, true);
	for (int round = 0; round < 100; round++) {
		fake_driver_set_used_event(&driver, used_position(1));
		serve(3);
		ck_assert(virtqueue_should_signal(&vq));
		take_used(3);
	}
	stop_queue();
}
END_TEST

START_TEST(packed_event_offset_out_of_range_signals)
{
	start_queue(SIZE, true, true);
	fake_driver_set_used_event(&driver, WRAP | 100);
	serve(1);
	ck_assert(virtqueue_should_signal(&vq));
	stop_queue();
}
END_TEST

START_TEST(whole_turn_between_signals_is_not_lost)
{
	/* After a full turn of the index, old and new look alike. */
	unsigned int turn = _i ? 2 * SIZE : 0x10000;

	start_queue(SIZE, _i, true);
	fake_driver_set_used_event(&driver, used_position(SIZE / 2));
	for (unsigned int i = 0; i < turn; i++) {
		serve(1);
		take_used(1);
	}
	ck_assert(virtqueue_should_signal(&vq));
	ck_assert(!virtqueue_should_signal(&vq));
	stop_queue();
}
END_TEST

START_TEST(kicks_are_suppressed_while_the_device_is_busy)
{
	bool event_idx = _i & 2;

	start_queue(SIZE, _i & 1, event_idx);
	fake_driver_add(&driver, &(struct fake_buffer){ DATA, 1, false }, 1);
	ck_assert(fake_driver_wants_kick(&driver));
	virtqueue_set_notifications(&vq, false);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	fake_driver_add(&driver, &(struct fake_buffer){ DATA, 1, false }, 1);
	ck_assert(!fake_driver_wants_kick(&driver));
	ck_assert(virtqueue_set_notifications(&vq, true));
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	ck_assert(!virtqueue_set_notifications(&vq, true));
	fake_driver_add(&driver, &(struct fake_buffer){ DATA, 1, false }, 1);
	ck_assert(fake_driver_wants_kick(&driver));
	stop_queue();
}
END_TEST

START_TEST(device_that_never_asks_is_kicked_after_each_empty_pop)
{
	start_queue(SIZE, _i, true);
	for (int i = 0; i < 20; i++) {
		uint16_t id;
		uint32_t len;

		ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
		fake_driver_add(&driver, &(struct fake_buffer){ DATA, 1, false }, 1);
		ck_assert(fake_driver_wants_kick(&driver));
		ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
		virtqueue_push(&vq, &chain, 0);
		ck_assert(fake_driver_used(&driver, &id, &len));
	}
	stop_queue();
}
END_TEST

/* Two threads */

#define CHAINS 20000

static int kick_fd, call_fd;

static bool wait_fd(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	if (poll(&pollfd, 1, 10000) != 1)
		return false;
	eventfd_drain(fd);
	return true;
}

/* A device that sleeps whenever the rules allow it. */
static void *device_thread(void *opaque)
{
	unsigned int served = 0;

	while (served < CHAINS) {
		virtqueue_set_notifications(&vq, false);
		do {
			while (virtqueue_pop(&vq, &chain) == 1) {
				uint32_t value;

				virtqueue_chain_read(&chain, 0, &value, 4);
				value++;
				virtqueue_chain_write(&chain, 0, &value, 4);
				virtqueue_push(&vq, &chain, 4);
				served++;
				if (virtqueue_should_signal(&vq))
					eventfd_signal(call_fd);
			}
		} while (virtqueue_set_notifications(&vq, true));
		if (served < CHAINS && !wait_fd(kick_fd))
			return (void *)"the device was not kicked";
	}
	return NULL;
}

START_TEST(driver_and_device_threads_lose_no_kick_and_no_interrupt)
{
	unsigned int added = 0, returned = 0;
	pthread_t thread;
	void *failure;
	uint16_t id;
	uint32_t len;

	start_queue(SIZE, _i & 1, _i & 2);
	kick_fd = eventfd_new();
	call_fd = eventfd_new();
	ck_assert_int_eq(pthread_create(&thread, NULL, device_thread, NULL), 0);
	while (returned < CHAINS) {
		/* Each chain is two descriptors: number in, number + 1 out. */
		while (added < CHAINS && added - returned < SIZE / 2) {
			uint64_t at = DATA + 64 * (added % SIZE);

			store_le32(guest_memory_ptr(memory, at, 4), added);
			fake_driver_add(
				&driver,
				(struct fake_buffer[]){ { at, 4, false }, { at + 32, 4, true } },
				2);
			added++;
			if (fake_driver_wants_kick(&driver))
				eventfd_signal(kick_fd);
		}
		if (driver.event_idx)
			fake_driver_set_used_event(&driver, driver.used);
		__sync_synchronize();
		while (fake_driver_used(&driver, &id, &len)) {
			uint64_t at = DATA + 64 * (returned % SIZE);

			require(load_le32(guest_memory_ptr(memory, at + 32, 4)) == returned + 1);
			returned++;
			if (driver.event_idx)
				fake_driver_set_used_event(&driver, driver.used);
			__sync_synchronize();
		}
		if (returned < CHAINS && added - returned == SIZE / 2)
			require(wait_fd(call_fd));
	}
	pthread_join(thread, &failure);
	ck_assert_msg(!failure, "%s", (char *)failure);
	stop_queue();
}
END_TEST

START_TEST(ring_and_written_ranges_become_dirty)
{
	struct fake_buffer buffers[] = { { DATA, 4096, true }, { DATA + 0x4000, 4096, true } };
	struct error err = ERROR_INIT;
	struct dirty_source *source;
	struct dirty_bitmap bitmap;

	start_queue(SIZE, _i, true);
	source = guest_memory_dirty_source(memory, &err);
	ck_assert_ptr_nonnull(source);
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, RAM / 4096, &err), 0);
	ck_assert_int_eq(source->ops->start(source, &err), 0);
	fake_driver_add(&driver, buffers, 2);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	virtqueue_push(&vq, &chain, 100);
	ck_assert_int_eq(
		source->ops->collect(source, guest_memory_region(memory, 0), &bitmap, &err), 0);
	ck_assert(dirty_bitmap_test(&bitmap, DATA / 4096));
	ck_assert(!dirty_bitmap_test(&bitmap, DATA / 4096 + 4));
	ck_assert(dirty_bitmap_test(&bitmap, (_i ? driver.desc : driver.device) / 4096));
	dirty_bitmap_clear(&bitmap, 0, RAM / 4096);
	fake_driver_add(&driver, buffers, 2);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	virtqueue_push(&vq, &chain, 5000);
	source->ops->collect(source, guest_memory_region(memory, 0), &bitmap, &err);
	ck_assert(dirty_bitmap_test(&bitmap, DATA / 4096 + 4));
	source->ops->stop(source);
	source->ops->free(source);
	dirty_bitmap_destroy(&bitmap);
	stop_queue();
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("virtqueue");
	TCase *ring = tcase_create("ring"), *hostile = tcase_create("hostile");
	TCase *events = tcase_create("events");

	tcase_set_timeout(ring, 60);
	tcase_add_loop_test(ring, chain_is_popped_read_written_and_returned, 0, 2);
	tcase_add_loop_test(ring, queue_turns_many_times_with_chains_of_every_length, 0, 4);
	tcase_add_loop_test(ring, full_queue_is_popped_once_and_returned_out_of_order, 0, 2);
	tcase_add_loop_test(ring, unpopped_chain_is_popped_again, 0, 2);
	tcase_add_loop_test(ring, indirect_table_is_followed, 0, 2);
	tcase_add_test(ring, direct_descriptors_before_an_indirect_one_count_too);
	tcase_add_loop_test(ring, zero_length_descriptor_has_no_range, 0, 2);
	tcase_add_test(ring, buffer_and_table_across_regions_become_two_ranges);
	tcase_add_loop_test(ring, ring_and_written_ranges_become_dirty, 0, 2);
	suite_add_tcase(s, ring);

	tcase_add_loop_test(hostile, wrong_sizes_are_refused, 0, 2);
	tcase_add_loop_test(hostile, misaligned_ring_is_refused, 0, 2);
	tcase_add_loop_test(hostile, ring_outside_ram_or_across_regions_is_refused, 0, 2);
	tcase_add_test(hostile, chain_with_loop_breaks_the_queue);
	tcase_add_test(hostile, loop_in_an_indirect_table_breaks_the_queue);
	tcase_add_test(hostile, packed_chain_without_end_breaks_the_queue);
	tcase_add_loop_test(hostile, descriptor_index_out_of_range_breaks_the_queue, 0, 2);
	tcase_add_test(hostile, next_beyond_the_indirect_table_breaks_the_queue);
	tcase_add_test(hostile, packed_buffer_id_out_of_range_breaks_the_queue);
	tcase_add_loop_test(hostile, buffer_outside_ram_breaks_the_queue, 0,
			    2 * (int)ARRAY_SIZE(outside));
	tcase_add_loop_test(hostile, indirect_table_outside_ram_breaks_the_queue, 0, 8);
	tcase_add_loop_test(hostile, nested_indirect_table_breaks_the_queue, 0, 2);
	tcase_add_loop_test(hostile, indirect_descriptor_with_next_breaks_the_queue, 0, 2);
	tcase_add_loop_test(hostile, indirect_table_of_odd_length_breaks_the_queue, 0, 10);
	tcase_add_loop_test(hostile, indirect_without_the_feature_breaks_the_queue, 0, 2);
	tcase_add_loop_test(hostile, indirect_chain_longer_than_the_queue_breaks_it, 0, 2);
	tcase_add_loop_test(hostile, readable_after_writable_breaks_the_queue, 0, 2);
	tcase_add_loop_test(hostile, chain_of_more_than_4_gib_breaks_the_queue, 0, 2);
	tcase_add_loop_test(hostile, chain_of_more_ranges_than_the_device_takes_breaks_the_queue, 0,
			    2);
	tcase_add_test(hostile, available_index_that_jumps_breaks_the_queue);
	tcase_add_test(hostile, available_index_that_runs_backwards_breaks_the_queue);
	tcase_add_test(hostile, more_chains_in_flight_than_descriptors_break_the_queue);
	tcase_add_test(hostile, packed_ring_refilled_while_in_flight_breaks_the_queue);
	tcase_add_loop_test(hostile, queue_works_again_after_a_reset, 0, 2);
	suite_add_tcase(s, hostile);

	tcase_set_timeout(events, 60);
	tcase_add_loop_test(events, nothing_pushed_signals_nothing, 0, 2);
	tcase_add_loop_test(events, interrupts_are_suppressed_by_flag, 0, 2);
	tcase_add_loop_test(events, used_event_signals_when_passed_and_only_then, 0, 2);
	tcase_add_loop_test(events, used_event_within_a_batch_signals, 0, 2);
	tcase_add_test(events, packed_event_offset_out_of_range_signals);
	tcase_add_loop_test(events, whole_turn_between_signals_is_not_lost, 0, 2);
	tcase_add_loop_test(events, kicks_are_suppressed_while_the_device_is_busy, 0, 4);
	tcase_add_loop_test(events, device_that_never_asks_is_kicked_after_each_empty_pop, 0, 2);
	tcase_add_loop_test(events, driver_and_device_threads_lose_no_kick_and_no_interrupt, 0, 4);
	suite_add_tcase(s, events);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
