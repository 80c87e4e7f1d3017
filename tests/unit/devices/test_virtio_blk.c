/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "devices/virtio/virtio_blk.h"
#include "memory/dirty_source.h"
#include "tests/unit/helpers/fake_driver.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/run_suite.h"

/* Guest RAM: a page for headers and status bytes, data from 1 MiB, rings from 12 MiB. */
#define RAM (16 * MIB)
#define HEADER 0x1000
#define STATUS 0x2000
#define RANGE 0x3000
#define DATA (1 * MIB)
#define RINGS (12 * MIB)
#define QUEUE_SIZE 64
#define DISK_SECTORS 4096ULL
#define DISK_SIZE (DISK_SECTORS * 512)
#define TIMEOUT 5000

#define S_NONE 0xff /* what the status byte holds before */

static struct fake_host host;
static struct fake_transport transport;
static struct virtio_device *dev;
static char path[64];
static uint8_t *ram;

/* Each test runs over io_uring and system calls, split and packed rings. */
enum { MODE_SYNC = 1, MODE_PACKED = 2, MODES = 4 };

static uint8_t pattern(uint64_t offset)
{
	return (uint8_t)(offset * 7 + offset / 512 * 13 + offset / 65536);
}

static void make_file(uint64_t size)
{
	static uint8_t buf[65536];
	int fd;

	snprintf(path, sizeof(path), "/var/tmp/ferry-blk-XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	for (uint64_t at = 0; at < size; at += sizeof(buf)) {
		size_t n = MIN(size - at, sizeof(buf));

		for (size_t i = 0; i < n; i++)
			buf[i] = pattern(at + i);
		ck_assert_int_eq(fd_write_full(fd, buf, n), 0);
	}
	close(fd);
}

static void file_read(uint64_t offset, void *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(fd_pread_full(fd, buf, len, (off_t)offset), 0);
	close(fd);
}

static struct virtio_blk_options options(void)
{
	return (struct virtio_blk_options){
		.path = path,
		.queues = 1,
		.queue_size = QUEUE_SIZE,
		.discard = true,
	};
}

static void setup(void)
{
	make_file(DISK_SIZE);
	ck_assert_int_eq(fake_host_init_ram(&host, RAM), 0);
	ram = guest_memory_ptr(host.host.memory, 0, RAM);
	dev = NULL;
}

static void teardown(void)
{
	if (dev)
		fake_transport_destroy(&transport);
	fake_host_destroy_ram(&host);
	unlink(path);
}

static void start_features(struct virtio_blk_options o, int mode, uint64_t features)
{
	struct error err = ERROR_INIT;

	o.disable_io_uring = mode & MODE_SYNC;
	dev = virtio_blk_new(&host.host, "disk", &o, &err);
	ck_assert_msg(dev != NULL, "%s", err.message);
	fake_transport_attach(&transport, dev);
	fake_transport_activate(
		&transport,
		(features & dev->device_features) | VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) |
			VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) |
			(mode & MODE_PACKED ? VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) : 0),
		RINGS, 0);
}

static void start(struct virtio_blk_options o, int mode)
{
	start_features(o, mode, ~VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE));
}

static void put_header_at(uint64_t gpa, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr header = { .type = htole32(type), .sector = htole64(sector) };

	memcpy(ram + gpa, &header, sizeof(header));
}

static void put_header(uint32_t type, uint64_t sector)
{
	put_header_at(HEADER, type, sector);
	ram[STATUS] = S_NONE;
}

/* Sends a chain on a queue and waits for it; returns the used length. */
static uint32_t send_on(unsigned int queue, const struct fake_buffer *buffers, unsigned int n)
{
	uint16_t id, used_id;
	uint32_t len;

	id = fake_driver_add(&transport.drivers[queue], buffers, n);
	if (fake_driver_wants_kick(&transport.drivers[queue]))
		fake_transport_kick(&transport, queue);
	ck_assert_msg(fake_transport_wait_used(&transport, queue, &used_id, &len, TIMEOUT),
		      "the device does not answer");
	ck_assert_uint_eq(used_id, id);
	return len;
}

static uint32_t send(const struct fake_buffer *buffers, unsigned int n)
{
	return send_on(0, buffers, n);
}

#define SEND(...) \
	send((struct fake_buffer[]){ __VA_ARGS__ }, \
	     ARRAY_SIZE(((struct fake_buffer[]){ __VA_ARGS__ })))
#define HDR \
	{ \
		HEADER, 16, false \
	}
#define STS \
	{ \
		STATUS, 1, true \
	}

static uint8_t read_sectors(uint64_t sector, uint32_t len)
{
	put_header(VIRTIO_BLK_T_IN, sector);
	SEND(HDR, { DATA, len, true }, STS);
	return ram[STATUS];
}

static uint8_t write_sectors(uint64_t sector, uint32_t len)
{
	put_header(VIRTIO_BLK_T_OUT, sector);
	SEND(HDR, { DATA, len, false }, STS);
	return ram[STATUS];
}

static void check_pattern(uint64_t gpa, uint64_t offset, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		if (ram[gpa + i] != pattern(offset + i))
			ck_abort_msg("byte %llu of %llu is %02x, not %02x", (unsigned long long)i,
				     (unsigned long long)len, ram[gpa + i], pattern(offset + i));
}

static uint64_t counter(const char *name)
{
	for (unsigned int i = 0; i < dev->counter_count; i++)
		if (!strcmp(dev->counters[i].name, name))
			return atomic_load(&dev->counters[i].value);
	ck_abort_msg("no counter %s", name);
	return 0;
}

START_TEST(read_returns_what_the_file_holds)
{
	start(options(), _i);
	ck_assert_uint_eq(read_sectors(0, 512), VIRTIO_BLK_S_OK);
	check_pattern(DATA, 0, 512);
	ck_assert_uint_eq(read_sectors(100, 65536), VIRTIO_BLK_S_OK);
	check_pattern(DATA, 51200, 65536);
	ck_assert_uint_eq(read_sectors(DISK_SECTORS - 1, 512), VIRTIO_BLK_S_OK);
	check_pattern(DATA, DISK_SIZE - 512, 512);
	ck_assert_uint_eq(read_sectors(0, DISK_SIZE), VIRTIO_BLK_S_OK);
	check_pattern(DATA, 0, DISK_SIZE);
	ck_assert_uint_eq(counter("read_ops"), 4);
	ck_assert_uint_eq(counter("read_bytes"), 512 + 65536 + 512 + DISK_SIZE);
	ck_assert_uint_eq(counter("errors"), 0);
}
END_TEST

START_TEST(write_reaches_the_file_and_nothing_beside)
{
	uint8_t buf[3 * 4096];

	start(options(), _i);
	memset(ram + DATA, 0xa5, 4096);
	ck_assert_uint_eq(write_sectors(8, 4096), VIRTIO_BLK_S_OK);
	file_read(0, buf, sizeof(buf));
	for (size_t i = 0; i < sizeof(buf); i++)
		ck_assert_uint_eq(buf[i], i >= 4096 && i < 8192 ? 0xa5 : pattern(i));
	ck_assert_uint_eq(counter("write_ops"), 1);
	ck_assert_uint_eq(counter("write_bytes"), 4096);
}
END_TEST

START_TEST(used_length_is_what_was_written)
{
	start(options(), _i);
	put_header(VIRTIO_BLK_T_IN, 0);
	ck_assert_uint_eq(SEND(HDR, { DATA, 1024, true }, STS), 1025);
	put_header(VIRTIO_BLK_T_OUT, 0);
	ck_assert_uint_eq(SEND(HDR, { DATA, 1024, false }, STS), 1);
	put_header(VIRTIO_BLK_T_IN, DISK_SECTORS);
	ck_assert_uint_eq(SEND(HDR, { DATA, 1024, true }, STS), 1);
}
END_TEST

START_TEST(header_may_be_split_in_any_way)
{
	struct fake_buffer buffers[18];

	start(options(), _i);
	put_header(VIRTIO_BLK_T_IN, 3);
	SEND({ HEADER, 7, false }, { HEADER + 7, 9, false }, { DATA, 512, true }, STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	check_pattern(DATA, 3 * 512, 512);

	put_header(VIRTIO_BLK_T_IN, 4);
	for (unsigned int i = 0; i < 16; i++)
		buffers[i] = (struct fake_buffer){ HEADER + i, 1, false };
	buffers[16] = (struct fake_buffer){ DATA, 512, true };
	buffers[17] = (struct fake_buffer)STS;
	send(buffers, 18);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	check_pattern(DATA, 4 * 512, 512);
}
END_TEST

START_TEST(header_and_data_may_share_a_descriptor)
{
	uint8_t buf[1024];

	start(options(), _i);
	put_header_at(DATA - 16, VIRTIO_BLK_T_OUT, 9);
	memset(ram + DATA, 0x5a, 1024);
	ram[STATUS] = S_NONE;
	SEND({ DATA - 16, 16 + 1024, false }, STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	file_read(9 * 512, buf, sizeof(buf));
	for (size_t i = 0; i < sizeof(buf); i++)
		ck_assert_uint_eq(buf[i], 0x5a);
	/* header, part of the data; the rest of the data */
	put_header_at(DATA - 16, VIRTIO_BLK_T_OUT, 20);
	memset(ram + DATA, 0x77, 1024);
	SEND({ DATA - 16, 16 + 100, false }, { DATA + 100, 924, false }, STS);
	file_read(20 * 512, buf, sizeof(buf));
	for (size_t i = 0; i < sizeof(buf); i++)
		ck_assert_uint_eq(buf[i], 0x77);
}
END_TEST

START_TEST(data_and_status_may_share_a_descriptor)
{
	start(options(), _i);
	put_header(VIRTIO_BLK_T_IN, 1);
	ram[DATA + 1024] = S_NONE;
	ck_assert_uint_eq(SEND(HDR, { DATA, 1025, true }), 1025);
	ck_assert_uint_eq(ram[DATA + 1024], VIRTIO_BLK_S_OK);
	check_pattern(DATA, 512, 1024);
	/* data, and the rest of it with the status */
	ram[DATA + 1024] = S_NONE;
	SEND(HDR, { DATA, 3, true }, { DATA + 3, 1022, true });
	ck_assert_uint_eq(ram[DATA + 1024], VIRTIO_BLK_S_OK);
	check_pattern(DATA, 512, 1024);
}
END_TEST

START_TEST(many_segments_of_odd_sizes_are_one_request)
{
	struct fake_buffer buffers[QUEUE_SIZE];
	struct virtio_blk_options o = options();
	uint32_t len = 0;
	unsigned int n = 1;

	start(o, _i);
	put_header(VIRTIO_BLK_T_IN, 5);
	buffers[0] = (struct fake_buffer)HDR;
	for (; n < QUEUE_SIZE - 2; n++) {
		uint32_t part = 100 + n * 3;

		buffers[n] = (struct fake_buffer){ DATA + len, part, true };
		len += part;
	}
	buffers[n] = (struct fake_buffer){ DATA + len, (uint32_t)align_up(len, 512) - len, true };
	n++;
	buffers[n++] = (struct fake_buffer)STS;
	send(buffers, n);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	check_pattern(DATA, 5 * 512, align_up(len, 512));
}
END_TEST

START_TEST(indirect_chain_of_seg_max_segments_is_served)
{
	static struct fake_buffer buffers[256];
	struct virtio_blk_options o = options();
	struct virtio_blk_config config;
	unsigned int segments;
	uint16_t id;
	uint32_t len;

	o.queue_size = 256;
	start(o, _i);
	dev->ops->config_read(dev, 0, &config, sizeof(config));
	segments = le32toh(config.seg_max);
	ck_assert_uint_eq(segments, 254);
	put_header(VIRTIO_BLK_T_IN, 0);
	buffers[0] = (struct fake_buffer)HDR;
	for (unsigned int i = 0; i < segments; i++) /* in reverse: nothing merges */
		buffers[i + 1] = (struct fake_buffer){ DATA + (segments - i) * 4096, 512, true };
	buffers[segments + 1] = (struct fake_buffer)STS;
	fake_driver_add_indirect(&transport.drivers[0], 8 * MIB, buffers, segments + 2);
	fake_transport_kick(&transport, 0);
	ck_assert(fake_transport_wait_used(&transport, 0, &id, &len, TIMEOUT));
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	for (unsigned int i = 0; i < segments; i++)
		check_pattern(DATA + (segments - i) * 4096, i * 512, 512);
}
END_TEST

START_TEST(flush_and_empty_requests_succeed)
{
	start(options(), _i);
	put_header(VIRTIO_BLK_T_FLUSH, 0);
	SEND(HDR, STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(counter("flush_ops"), 1);
	put_header(VIRTIO_BLK_T_IN, 0);
	SEND(HDR, STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	put_header(VIRTIO_BLK_T_OUT, DISK_SECTORS);
	SEND(HDR, STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(get_id_gives_the_serial)
{
	struct virtio_blk_options o = options();

	o.serial = "disk-0815";
	start(o, _i);
	put_header(VIRTIO_BLK_T_GET_ID, 0);
	memset(ram + DATA, 0xee, 32);
	SEND(HDR, { DATA, 20, true }, STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(ram + DATA, "disk-0815\0\0\0\0\0\0\0\0\0\0\0\xee", 21);
	/* a shorter buffer gets its part */
	memset(ram + DATA, 0xee, 32);
	SEND(HDR, { DATA, 4, true }, STS);
	ck_assert_mem_eq(ram + DATA, "disk\xee", 5);
}
END_TEST

START_TEST(unknown_type_is_unsupported)
{
	static const uint32_t types[] = { 2, 3, 5, 9, 12, 14, 0x80000000, UINT32_MAX };

	start(options(), _i);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		put_header(types[i], 0);
		SEND(HDR, { DATA, 512, true }, STS);
		ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_UNSUPP);
	}
	ck_assert_uint_eq(counter("errors"), ARRAY_SIZE(types));
}
END_TEST

static uint8_t send_range(uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = htole64(sector),
		.num_sectors = htole32(count),
		.flags = htole32(flags),
	};

	memcpy(ram + RANGE, &range, sizeof(range));
	put_header(type, 0);
	SEND(HDR, { RANGE, sizeof(range), false }, STS);
	return ram[STATUS];
}

static uint64_t allocated(void)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void check_zero(uint64_t offset, uint64_t len)
{
	uint8_t buf[65536];

	file_read(offset, buf, len);
	for (uint64_t i = 0; i < len; i++)
		ck_assert_uint_eq(buf[i], 0);
}

static void check_untouched(uint64_t offset, uint64_t len)
{
	uint8_t buf[65536];

	file_read(offset, buf, len);
	for (uint64_t i = 0; i < len; i++)
		ck_assert_uint_eq(buf[i], pattern(offset + i));
}

START_TEST(discard_frees_the_range)
{
	uint64_t before;

	start(options(), _i);
	put_header(VIRTIO_BLK_T_FLUSH, 0);
	SEND(HDR, STS);
	before = allocated();
	ck_assert_uint_eq(send_range(VIRTIO_BLK_T_DISCARD, 64, 64, 0), VIRTIO_BLK_S_OK);
	check_zero(64 * 512, 64 * 512);
	check_untouched(0, 64 * 512);
	check_untouched(128 * 512, 512);
	ck_assert_uint_eq(allocated(), before - 64 * 512);
	ck_assert_uint_eq(counter("discard_ops"), 1);
}
END_TEST

START_TEST(write_zeroes_keeps_the_range_allocated_unless_told)
{
	uint64_t before;

	start(options(), _i);
	put_header(VIRTIO_BLK_T_FLUSH, 0);
	SEND(HDR, STS);
	before = allocated();
	ck_assert_uint_eq(send_range(VIRTIO_BLK_T_WRITE_ZEROES, 1, 63, 0), VIRTIO_BLK_S_OK);
	check_zero(512, 63 * 512);
	check_untouched(0, 512);
	check_untouched(64 * 512, 512);
	ck_assert_uint_eq(allocated(), before);
	ck_assert_uint_eq(send_range(VIRTIO_BLK_T_WRITE_ZEROES, 128, 64, 1), VIRTIO_BLK_S_OK);
	check_zero(128 * 512, 64 * 512);
	ck_assert_uint_eq(allocated(), before - 64 * 512);
}
END_TEST

static const struct {
	uint32_t type;
	uint64_t sector;
	uint32_t count, flags;
	uint8_t status;
} ranges[] = {
	{ VIRTIO_BLK_T_DISCARD, 0, 0, 0, VIRTIO_BLK_S_OK },
	{ VIRTIO_BLK_T_WRITE_ZEROES, DISK_SECTORS, 0, 0, VIRTIO_BLK_S_OK },
	{ VIRTIO_BLK_T_DISCARD, DISK_SECTORS - 1, 2, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_WRITE_ZEROES, DISK_SECTORS, 1, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_WRITE_ZEROES, UINT64_MAX, 1, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_DISCARD, UINT64_MAX, 2, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_DISCARD, 1ULL << 55, 8, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_WRITE_ZEROES, 0, UINT32_MAX, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_DISCARD, 0, 8, 1, VIRTIO_BLK_S_UNSUPP },
	{ VIRTIO_BLK_T_DISCARD, 0, 8, 2, VIRTIO_BLK_S_UNSUPP },
	{ VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 2, VIRTIO_BLK_S_UNSUPP },
	{ VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0x80000001, VIRTIO_BLK_S_UNSUPP },
};

START_TEST(bad_ranges_are_refused_and_change_nothing)
{
	start(options(), _i);
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
		ck_assert_msg(send_range(ranges[i].type, ranges[i].sector, ranges[i].count,
					 ranges[i].flags) == ranges[i].status,
			      "row %zu", i);
	check_untouched(0, 65536);
	check_untouched(DISK_SIZE - 65536, 65536);
}
END_TEST

START_TEST(range_of_wrong_length_is_an_error)
{
	static const uint32_t lengths[] = { 1, 15, 17, 32 };

	start(options(), _i);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		memset(ram + RANGE, 0, 64);
		put_header(VIRTIO_BLK_T_DISCARD, 0);
		SEND(HDR, { RANGE, lengths[i], false }, STS);
		ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_IOERR);
	}
	put_header(VIRTIO_BLK_T_DISCARD, 0);
	SEND(HDR, STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(discard_not_negotiated_is_unsupported)
{
	start_features(options(), _i, VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH));
	ck_assert_uint_eq(send_range(VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(send_range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
	check_untouched(0, 4096);
}
END_TEST

static const struct {
	uint64_t sector;
	uint32_t len;
} outside[] = {
	{ DISK_SECTORS, 512 },	  { DISK_SECTORS - 1, 1024 }, { UINT64_MAX, 512 },
	{ UINT64_MAX - 1, 1024 }, { 1ULL << 55, 512 },	      { (1ULL << 55) - 1, 1024 },
	{ UINT64_MAX >> 9, 512 }, { 0, DISK_SIZE + 512 },
};

START_TEST(access_beyond_the_end_is_an_error_and_moves_no_data)
{
	struct stat st;

	start(options(), _i);
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		memset(ram + DATA, 0xee, outside[i].len);
		ck_assert_uint_eq(read_sectors(outside[i].sector, outside[i].len),
				  VIRTIO_BLK_S_IOERR);
		for (uint32_t k = 0; k < outside[i].len; k++)
			ck_assert_uint_eq(ram[DATA + k], 0xee);
		ck_assert_uint_eq(write_sectors(outside[i].sector, outside[i].len),
				  VIRTIO_BLK_S_IOERR);
	}
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, DISK_SIZE);
	check_untouched(0, 65536);
	check_untouched(DISK_SIZE - 65536, 65536);
	ck_assert_uint_eq(counter("errors"), 2 * ARRAY_SIZE(outside));
	ck_assert_uint_eq(counter("read_ops") + counter("write_ops"), 0);
}
END_TEST

START_TEST(odd_length_is_an_error)
{
	static const uint32_t lengths[] = { 1, 511, 513, 4095 };

	start(options(), _i);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		ck_assert_uint_eq(read_sectors(0, lengths[i]), VIRTIO_BLK_S_IOERR);
		ck_assert_uint_eq(write_sectors(0, lengths[i]), VIRTIO_BLK_S_IOERR);
	}
	check_untouched(0, 8192);
}
END_TEST

START_TEST(short_header_is_an_error)
{
	start(options(), _i);
	put_header(VIRTIO_BLK_T_OUT, 0);
	SEND({ HEADER, 15, false }, STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_IOERR);
	ram[STATUS] = S_NONE;
	SEND(STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_IOERR);
	/* and the queue goes on */
	ck_assert_uint_eq(read_sectors(0, 512), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(chain_without_status_is_returned_unanswered)
{
	start(options(), _i);
	put_header(VIRTIO_BLK_T_OUT, 0);
	memset(ram + DATA, 0, 512);
	ck_assert_uint_eq(SEND(HDR, { DATA, 512, false }), 0);
	ck_assert_uint_eq(SEND(HDR), 0);
	ck_assert_uint_eq(SEND({ HEADER, 3, false }), 0);
	check_untouched(0, 512);
	ck_assert_uint_eq(counter("errors"), 3);
	ck_assert_uint_eq(read_sectors(0, 512), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(chain_outside_ram_needs_a_reset_and_spares_other_queues)
{
	struct virtio_blk_options o = options();
	uint16_t id;
	uint32_t len;

	o.queues = 2;
	start(o, _i);
	put_header(VIRTIO_BLK_T_IN, 0);
	fake_driver_add(&transport.drivers[0],
			(struct fake_buffer[]){ HDR, { RAM - 256, 512, true }, STS }, 3);
	fake_transport_kick(&transport, 0);
	ck_assert(fake_transport_wait_reset_needed(&transport, TIMEOUT));
	ck_assert(!fake_transport_wait_used(&transport, 0, &id, &len, 20));
	send_on(1, (struct fake_buffer[]){ HDR, { DATA, 512, true }, STS }, 3);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	/* a reset makes it whole */
	dev->ops->deactivate(dev);
	fake_transport_activate(&transport, dev->features, RINGS, 0);
	ck_assert_uint_eq(read_sectors(0, 512), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(readonly_disk_refuses_writes)
{
	struct virtio_blk_options o = options();

	o.readonly = true;
	chmod(path, 0444);
	start(o, _i);
	ck_assert(dev->device_features & VIRTIO_FEATURE(VIRTIO_BLK_F_RO));
	ck_assert(!(dev->device_features & VIRTIO_FEATURE(VIRTIO_BLK_F_DISCARD)));
	memset(ram + DATA, 0, 512);
	ck_assert_uint_eq(write_sectors(0, 512), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(send_range(VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
	check_untouched(0, 4096);
	ck_assert_uint_eq(read_sectors(0, 512), VIRTIO_BLK_S_OK);
	check_pattern(DATA, 0, 512);
}
END_TEST

/* Keeps `depth` reads in flight on each of `queues` queues until `total` are done. */
static void deep(unsigned int queues, unsigned int depth, unsigned int total, uint32_t len)
{
	unsigned int added[4] = { 0 }, done[4] = { 0 }, all = 0;
	static uint16_t slot_of[4][VIRTQUEUE_SIZE_MAX];
	uint64_t sector_of[4][16];

	while (all < total * queues) {
		for (unsigned int q = 0; q < queues; q++) {
			struct fake_driver *driver = &transport.drivers[q];
			uint16_t id;
			uint32_t used;

			while (fake_driver_used(driver, &id, &used)) {
				unsigned int slot = slot_of[q][id];
				uint64_t base = DATA + (q * 16 + slot) * 0x10000;

				ck_assert_uint_eq(used, len + 1);
				ck_assert_uint_eq(ram[base + len], VIRTIO_BLK_S_OK);
				check_pattern(base, sector_of[q][slot] * 512, len);
				done[q]++;
				all++;
			}
			for (; added[q] < total && added[q] - done[q] < depth; added[q]++) {
				/* chains return in any order: a slot is free when all are */
				unsigned int slot = added[q] % depth;
				uint64_t base = DATA + (q * 16 + slot) * 0x10000;

				if (slot == 0 && added[q] != done[q])
					break;
				sector_of[q][slot] = (added[q] * 977ULL + q) % (DISK_SECTORS - 128);
				put_header_at(HEADER + (q * 16 + slot) * 16, VIRTIO_BLK_T_IN,
					      sector_of[q][slot]);
				ram[base + len] = S_NONE;
				id = fake_driver_add(
					driver,
					(struct fake_buffer[]){
						{ HEADER + (q * 16 + slot) * 16, 16, false },
						{ base, len + 1, true } },
					2);
				slot_of[q][id] = (uint16_t)slot;
			}
			if (fake_driver_wants_kick(driver))
				fake_transport_kick(&transport, q);
		}
	}
}

START_TEST(many_requests_in_flight_get_their_own_data)
{
	start(options(), _i);
	deep(1, 16, 4000, 4096);
	ck_assert_uint_eq(counter("read_ops"), 4000);
	ck_assert_uint_le(atomic_load(&transport.signals[0]), 4000);
	ck_assert_uint_ge(atomic_load(&transport.signals[0]), 1);
}
END_TEST

/* A driver with up to 16 reads out that sends one each gap_ns, and looks for answers only
 * when it is interrupted; returns the interrupts. */
static unsigned int paced(uint64_t gap_ns, unsigned int total)
{
	struct fake_driver *driver = &transport.drivers[0];
	unsigned int added = 0, done = 0, seen = atomic_load(&transport.signals[0]), before = seen;
	uint64_t next = clock_ns();

	put_header(VIRTIO_BLK_T_IN, 0);
	while (done < total) {
		unsigned int signals = atomic_load(&transport.signals[0]);
		uint16_t id;
		uint32_t len;

		while (seen != signals && fake_driver_used(driver, &id, &len)) {
			done++;
			/* The next is told, unless the next look finds it. */
			fake_driver_set_used_event(driver, driver->used);
			__sync_synchronize();
		}
		seen = signals;
		if (added == total || added - done == 16 || clock_ns() < next)
			continue;
		next = clock_ns() + gap_ns;
		fake_driver_add(driver, (struct fake_buffer[]){ HDR, { DATA, 512, true }, STS }, 3);
		added++;
		if (fake_driver_wants_kick(driver))
			fake_transport_kick(&transport, 0);
	}
	return atomic_load(&transport.signals[0]) - before;
}

/* Whether the device waits for more awake (as for the first of these) or asleep. */
static const uint64_t gaps[] = { 10000, 200000 };

START_TEST(stream_is_interrupted_less_often_than_answered)
{
	unsigned int total = 2000, interrupts = total;

	start(options(), _i % MODES);
	/* On a busy machine the stream halts too often to be one. */
	for (int tries = 0; tries < 8 && interrupts > total / 2; tries++)
		interrupts = paced(gaps[_i / MODES], total);
	ck_assert_uint_le(interrupts, total / 2);
}
END_TEST

START_TEST(queues_work_side_by_side)
{
	struct virtio_blk_options o = options();

	o.queues = 4;
	start(o, _i);
	ck_assert(dev->device_features & VIRTIO_FEATURE(VIRTIO_BLK_F_MQ));
	deep(4, 8, 500, 32768);
	ck_assert_uint_eq(counter("read_ops"), 2000);
}
END_TEST

START_TEST(interrupt_follows_completion)
{
	start(options(), _i);
	read_sectors(0, 512);
	ck_assert(fake_transport_wait_signal(&transport, 0, TIMEOUT));
}
END_TEST

START_TEST(paused_device_serves_nothing_until_resumed)
{
	uint16_t id;
	uint32_t len;

	start(options(), _i);
	ck_assert_uint_eq(read_sectors(0, 512), VIRTIO_BLK_S_OK);
	dev->ops->pause(dev);
	put_header(VIRTIO_BLK_T_IN, 7);
	fake_driver_add(&transport.drivers[0],
			(struct fake_buffer[]){ HDR, { DATA, 512, true }, STS }, 3);
	fake_transport_kick(&transport, 0);
	ck_assert(!fake_transport_wait_used(&transport, 0, &id, &len, 30));
	ck_assert_uint_eq(ram[STATUS], S_NONE);
	dev->ops->resume(dev);
	ck_assert(fake_transport_wait_used(&transport, 0, &id, &len, TIMEOUT));
	check_pattern(DATA, 7 * 512, 512);
	ck_assert_uint_eq(read_sectors(1, 512), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(pause_and_deactivate_leave_nothing_in_flight)
{
	uint16_t id;
	uint32_t len;

	start(options(), _i);
	for (int round = 0; round < 20; round++) {
		unsigned int taken = 0, before;

		for (unsigned int i = 0; i < 16; i++) {
			put_header_at(HEADER + i * 16, VIRTIO_BLK_T_IN, i * 8);
			fake_driver_add(
				&transport.drivers[0],
				(struct fake_buffer[]){ { HEADER + i * 16, 16, false },
							{ DATA + i * 0x10000, 4097, true } },
				2);
		}
		fake_transport_kick(&transport, 0);
		dev->ops->pause(dev);
		ck_assert_uint_eq(dev->queues[0].in_flight, 0);
		while (fake_driver_used(&transport.drivers[0], &id, &len))
			taken++;
		before = taken;
		usleep(1000);
		while (fake_driver_used(&transport.drivers[0], &id, &len))
			taken++;
		ck_assert_uint_eq(taken, before);
		dev->ops->resume(dev);
		for (; taken < 16; taken++)
			ck_assert(fake_transport_wait_used(&transport, 0, &id, &len, TIMEOUT));
	}
	dev->ops->deactivate(dev);
	dev->active = false;
}
END_TEST

START_TEST(written_guest_pages_are_marked_dirty)
{
	struct dirty_source *source = guest_memory_dirty_source(host.host.memory, NULL);
	const struct guest_memory_region *region = guest_memory_region(host.host.memory, 0);
	struct dirty_bitmap bitmap;

	start(options(), _i);
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, RAM / 4096, NULL), 0);
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	ck_assert_uint_eq(read_sectors(0, 3 * 4096), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(source->ops->collect(source, region, &bitmap, NULL), 0);
	for (uint64_t page = 0; page < RINGS / 4096; page++)
		ck_assert_int_eq(dirty_bitmap_test(&bitmap, page),
				 page == STATUS / 4096 ||
					 (page >= DATA / 4096 && page < DATA / 4096 + 3));
	/* the used ring, too */
	ck_assert(dirty_bitmap_test(&bitmap, transport.drivers[0].device / 4096) ||
		  dirty_bitmap_test(&bitmap, transport.drivers[0].desc / 4096));
	/* an error writes the status, and perhaps data */
	dirty_bitmap_clear(&bitmap, 0, RAM / 4096);
	read_sectors(DISK_SECTORS, 4096);
	ck_assert_int_eq(source->ops->collect(source, region, &bitmap, NULL), 0);
	ck_assert(dirty_bitmap_test(&bitmap, STATUS / 4096));
	dirty_bitmap_clear(&bitmap, 0, RAM / 4096);
	write_sectors(0, 4096);
	ck_assert_int_eq(source->ops->collect(source, region, &bitmap, NULL), 0);
	ck_assert(!dirty_bitmap_test(&bitmap, DATA / 4096));
	dirty_bitmap_destroy(&bitmap);
	source->ops->free(source);
}
END_TEST

START_TEST(operations_are_limited)
{
	struct virtio_blk_options o = options();
	uint64_t start_ms, took;

	o.rate_limit.ops = (struct token_bucket_options){ .size = 10, .refill_ms = 100 };
	start(o, _i);
	start_ms = clock_ms();
	for (int i = 0; i < 30; i++)
		ck_assert_uint_eq(read_sectors(0, 512), VIRTIO_BLK_S_OK);
	took = clock_ms() - start_ms;
	/* 10 at once, 20 more at 100 a second */
	ck_assert_uint_ge(took, 180);
	ck_assert_uint_le(took, 2000);
}
END_TEST

START_TEST(bandwidth_is_limited_and_large_requests_still_go)
{
	struct virtio_blk_options o = options();
	uint64_t start_ms, took;

	o.rate_limit.bandwidth = (struct token_bucket_options){ .size = 4096, .refill_ms = 10 };
	start(o, _i);
	start_ms = clock_ms();
	ck_assert_uint_eq(read_sectors(0, 65536), VIRTIO_BLK_S_OK);
	check_pattern(DATA, 0, 65536);
	ck_assert_uint_eq(read_sectors(0, 512), VIRTIO_BLK_S_OK);
	took = clock_ms() - start_ms;
	ck_assert_uint_ge(took, 145);
	ck_assert_uint_le(took, 2000);
}
END_TEST

START_TEST(throttled_disk_can_be_paused_and_reset)
{
	struct virtio_blk_options o = options();
	uint16_t id;
	uint32_t len;

	o.rate_limit.ops = (struct token_bucket_options){ .size = 1, .refill_ms = 50 };
	start(o, _i);
	put_header(VIRTIO_BLK_T_IN, 0);
	for (unsigned int i = 0; i < 4; i++)
		fake_driver_add(&transport.drivers[0],
				(struct fake_buffer[]){ HDR, { DATA, 512, true }, STS }, 3);
	fake_transport_kick(&transport, 0);
	ck_assert(fake_transport_wait_used(&transport, 0, &id, &len, TIMEOUT));
	dev->ops->pause(dev);
	ck_assert(!fake_transport_wait_used(&transport, 0, &id, &len, 120));
	dev->ops->resume(dev);
	for (unsigned int i = 1; i < 3; i++)
		ck_assert(fake_transport_wait_used(&transport, 0, &id, &len, TIMEOUT));
	/* torn down with one waiting for its token */
}
END_TEST

START_TEST(file_that_shrank_gives_errors)
{
	start(options(), _i);
	ck_assert_int_eq(truncate(path, DISK_SIZE / 2), 0);
	ck_assert_uint_eq(read_sectors(DISK_SECTORS - 8, 4096), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(read_sectors(DISK_SECTORS / 2 - 4, 4096), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(read_sectors(0, 4096), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(counter("errors"), 2);
}
END_TEST

START_TEST(direct_disk_serves_aligned_and_unaligned_buffers)
{
	struct virtio_blk_options o = options();
	struct error err = ERROR_INIT;
	struct virtio_device *probe;
	uint8_t buf[65536];

	o.direct = true;
	probe = virtio_blk_new(&host.host, "probe", &o, &err);
	if (!probe) {
		ck_assert_ptr_nonnull(strstr(err.message, "direct=off"));
		printf("SKIP direct_disk_serves_aligned_and_unaligned_buffers: %s\n", err.message);
		return;
	}
	probe->ops->free(probe);
	start(o, _i);
	ck_assert_uint_eq(read_sectors(8, 65536), VIRTIO_BLK_S_OK);
	check_pattern(DATA, 4096, 65536);
	deep(1, 16, 500, 4096); /* data at aligned addresses, status behind it */
	/* at an odd address, longer than the bounce buffer */
	put_header(VIRTIO_BLK_T_IN, 8);
	SEND(HDR, { DATA + 1, 1000, true }, { DATA + 1001, 512 * 1024 - 1000, true }, STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	check_pattern(DATA + 1, 4096, 512 * 1024);
	for (uint64_t i = 0; i < 600 * 1024; i++)
		ram[DATA + 3 + i] = (uint8_t)(i * 3 + i / 4096);
	put_header(VIRTIO_BLK_T_OUT, 16);
	SEND(HDR, { DATA + 3, 5, false }, { DATA + 8, 600 * 1024 - 5, false }, STS);
	ck_assert_uint_eq(ram[STATUS], VIRTIO_BLK_S_OK);
	for (uint64_t at = 0; at < 600 * 1024; at += sizeof(buf)) {
		size_t n = MIN(sizeof(buf), 600 * 1024 - at);

		file_read(8192 + at, buf, n);
		ck_assert_mem_eq(buf, ram + DATA + 3 + at, n);
	}
	check_untouched(4096, 4096);
	check_untouched(8192 + 600 * 1024, 4096);
}
END_TEST

START_TEST(driver_may_choose_write_through)
{
	uint32_t at = offsetof(struct virtio_blk_config, wce);
	uint8_t wce = 9;

	start_features(options(), _i, ~0ULL);
	dev->ops->config_read(dev, at, &wce, 1);
	ck_assert_uint_eq(wce, 1);
	wce = 0;
	dev->ops->config_write(dev, at, &wce, 1);
	dev->ops->config_read(dev, at, &wce, 1);
	ck_assert_uint_eq(wce, 0);
	memset(ram + DATA, 0x42, 512);
	ck_assert_uint_eq(write_sectors(0, 512), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(send_range(VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 0), VIRTIO_BLK_S_OK);
	check_zero(4096, 4096);
	/* other fields are not writable, and odd accesses harm nothing */
	for (uint32_t offset = 0; offset < 80; offset++) {
		uint64_t junk = ~0ULL;

		if (offset > at || offset + 8 <= at)
			dev->ops->config_write(dev, offset, &junk, 8);
		dev->ops->config_read(dev, offset, &junk, 8);
	}
	dev->ops->config_write(dev, UINT32_MAX, &wce, 1);
	dev->ops->config_read(dev, UINT32_MAX, &wce, 1);
	ck_assert_uint_eq(wce, 0);
	ck_assert_uint_eq(read_sectors(0, 512), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(config_tells_the_disk)
{
	struct virtio_blk_options o = options();
	struct virtio_blk_config config;

	o.queues = 3;
	start(o, _i);
	dev->ops->config_read(dev, 0, &config, sizeof(config));
	ck_assert_uint_eq(le64toh(config.capacity), DISK_SECTORS);
	ck_assert_uint_eq(le32toh(config.blk_size), 512);
	ck_assert_uint_eq(le16toh(config.num_queues), 3);
	ck_assert_uint_eq(le32toh(config.seg_max), QUEUE_SIZE - 2);
	ck_assert_uint_eq(le32toh(config.max_discard_seg), 1);
	ck_assert_uint_gt(le32toh(config.max_write_zeroes_sectors), 0);
}
END_TEST

START_TEST(resize_tells_the_driver_and_moves_the_end)
{
	struct virtio_blk_config config;
	struct error err = ERROR_INIT;

	start(options(), _i);
	ck_assert_int_eq(virtio_blk_resize(dev, &err), 0);
	ck_assert_uint_eq(atomic_load(&transport.config_changes), 0);
	ck_assert_int_eq(truncate(path, 2 * DISK_SIZE), 0);
	ck_assert_uint_eq(read_sectors(DISK_SECTORS, 512), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(virtio_blk_resize(dev, &err), 0);
	ck_assert_uint_eq(atomic_load(&transport.config_changes), 1);
	dev->ops->config_read(dev, 0, &config, sizeof(config));
	ck_assert_uint_eq(le64toh(config.capacity), 2 * DISK_SECTORS);
	ck_assert_uint_eq(read_sectors(DISK_SECTORS, 512), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(truncate(path, 0), 0);
	ck_assert_int_eq(virtio_blk_resize(dev, &err), -EINVAL);
}
END_TEST

/* Opening */

static void refused(struct virtio_blk_options o, int code, const char *text)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(virtio_blk_new(&host.host, "disk", &o, &err));
	ck_assert_int_eq(err.code, code);
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' lacks '%s'", err.message, text);
}

START_TEST(wrong_options_are_refused)
{
	static const unsigned int sizes[] = { 0, 3, 100, 2048 };
	struct virtio_blk_options o = options();

	o.queues = 0;
	refused(o, -EINVAL, "num_queues=0");
	o.queues = 17;
	refused(o, -EINVAL, "num_queues=17");
	o = options();
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		o.queue_size = sizes[i];
		refused(o, -EINVAL, "queue_size");
	}
	o = options();
	o.serial = "123456789012345678901";
	refused(o, -EINVAL, "serial");
	o = options();
	o.path = NULL;
	refused(o, -EINVAL, "no path");
	o.path = "";
	refused(o, -EINVAL, "no path");
}
END_TEST

START_TEST(what_is_no_disk_is_refused_by_name)
{
	struct virtio_blk_options o = options();
	char fifo[128], *long_path = malloc(10000);

	o.path = "/nonexistent/disk.raw";
	refused(o, -ENOENT, "/nonexistent/disk.raw");
	o.path = "/var/tmp";
	refused(o, -EISDIR, "/var/tmp");
	o.readonly = true;
	refused(o, -EINVAL, "neither a file nor a block device");
	o.path = "/dev/null";
	refused(o, -EINVAL, "neither a file nor a block device");
	snprintf(fifo, sizeof(fifo), "%s.fifo", path);
	ck_assert_int_eq(mkfifo(fifo, 0600), 0);
	o.path = fifo;
	refused(o, -EINVAL, "neither a file nor a block device");
	unlink(fifo);
	memset(long_path, 'a', 9999);
	long_path[9999] = '\0';
	o.path = long_path;
	refused(o, -ENAMETOOLONG, "aaa");
	free(long_path);
}
END_TEST

START_TEST(disk_that_cannot_be_written_says_readonly)
{
	struct virtio_blk_options o = options();

	if (!geteuid()) /* root may write anything: take what nobody can */
		return;
	chmod(path, 0444);
	refused(o, -EACCES, "readonly=on");
}
END_TEST

START_TEST(empty_disk_is_refused)
{
	ck_assert_int_eq(truncate(path, 0), 0);
	refused(options(), -EINVAL, "empty");
	ck_assert_int_eq(truncate(path, 511), 0);
	refused(options(), -EINVAL, "511");
}
END_TEST

START_TEST(odd_size_is_rounded_down)
{
	struct virtio_blk_config config;

	ck_assert_int_eq(truncate(path, 10 * 512 + 511), 0);
	start(options(), _i);
	dev->ops->config_read(dev, 0, &config, sizeof(config));
	ck_assert_uint_eq(le64toh(config.capacity), 10);
	ck_assert_uint_eq(read_sectors(9, 512), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(read_sectors(10, 512), VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(disk_in_use_is_refused_with_file_and_holder)
{
	struct virtio_blk_options o = options(), ro = options();
	char text[64];
	int ready[2], status;
	char c;
	pid_t pid;

	ro.readonly = true;
	start(o, 0);
	refused(o, -EBUSY, path);
	refused(o, -EBUSY, "another disk of this VM");
	refused(ro, -EBUSY, path);
	fake_transport_destroy(&transport);
	dev = NULL;

	/* the same from another process, which is named */
	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		struct virtio_device *other = virtio_blk_new(&host.host, "other", &o, NULL);

		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(other ? 0 : 1);
	}
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	snprintf(text, sizeof(text), "process %d", (int)pid);
	refused(o, -EBUSY, text);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	close(ready[0]);
	close(ready[1]);
	start(o, 0);
}
END_TEST

START_TEST(readers_share_a_disk)
{
	struct virtio_blk_options o = options();
	struct virtio_device *a, *b;

	o.readonly = true;
	a = virtio_blk_new(&host.host, "a", &o, NULL);
	b = virtio_blk_new(&host.host, "b", &o, NULL);
	ck_assert_ptr_nonnull(a);
	ck_assert_ptr_nonnull(b);
	o.readonly = false;
	refused(o, -EBUSY, "in use");
	a->ops->free(a);
	b->ops->free(b);
	a = virtio_blk_new(&host.host, "a", &o, NULL);
	ck_assert_ptr_nonnull(a);
	a->ops->free(a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio_blk");
	TCase *requests = tcase_create("requests"), *open = tcase_create("opening");

#define EACH(test) tcase_add_loop_test(requests, test, 0, MODES)
	tcase_add_checked_fixture(requests, setup, teardown);
	EACH(read_returns_what_the_file_holds);
	EACH(write_reaches_the_file_and_nothing_beside);
	EACH(used_length_is_what_was_written);
	EACH(header_may_be_split_in_any_way);
	EACH(header_and_data_may_share_a_descriptor);
	EACH(data_and_status_may_share_a_descriptor);
	EACH(many_segments_of_odd_sizes_are_one_request);
	EACH(indirect_chain_of_seg_max_segments_is_served);
	EACH(flush_and_empty_requests_succeed);
	EACH(get_id_gives_the_serial);
	EACH(unknown_type_is_unsupported);
	EACH(discard_frees_the_range);
	EACH(write_zeroes_keeps_the_range_allocated_unless_told);
	EACH(bad_ranges_are_refused_and_change_nothing);
	EACH(range_of_wrong_length_is_an_error);
	EACH(discard_not_negotiated_is_unsupported);
	EACH(access_beyond_the_end_is_an_error_and_moves_no_data);
	EACH(odd_length_is_an_error);
	EACH(short_header_is_an_error);
	EACH(chain_without_status_is_returned_unanswered);
	EACH(chain_outside_ram_needs_a_reset_and_spares_other_queues);
	EACH(readonly_disk_refuses_writes);
	EACH(many_requests_in_flight_get_their_own_data);
	tcase_add_loop_test(requests, stream_is_interrupted_less_often_than_answered, 0,
			    MODES * ARRAY_SIZE(gaps));
	EACH(queues_work_side_by_side);
	EACH(interrupt_follows_completion);
	EACH(paused_device_serves_nothing_until_resumed);
	EACH(pause_and_deactivate_leave_nothing_in_flight);
	EACH(written_guest_pages_are_marked_dirty);
	EACH(operations_are_limited);
	EACH(bandwidth_is_limited_and_large_requests_still_go);
	EACH(throttled_disk_can_be_paused_and_reset);
	EACH(file_that_shrank_gives_errors);
	EACH(direct_disk_serves_aligned_and_unaligned_buffers);
	EACH(driver_may_choose_write_through);
	EACH(config_tells_the_disk);
	EACH(resize_tells_the_driver_and_moves_the_end);
	EACH(odd_size_is_rounded_down);
	tcase_set_timeout(requests, 60);
	tcase_add_checked_fixture(open, setup, teardown);
	tcase_add_test(open, wrong_options_are_refused);
	tcase_add_test(open, what_is_no_disk_is_refused_by_name);
	tcase_add_test(open, disk_that_cannot_be_written_says_readonly);
	tcase_add_test(open, empty_disk_is_refused);
	tcase_add_test(open, disk_in_use_is_refused_with_file_and_holder);
	tcase_add_test(open, readers_share_a_disk);
	suite_add_tcase(s, requests);
	suite_add_tcase(s, open);
	return run_suite(s);
}
