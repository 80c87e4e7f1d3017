/* SPDX-License-Identifier: Apache-2.0 */
/* ferry-testdev's migration by a bare client: the states, the stream from one server to
 * another, the region's protocol, and what goes wrong on request. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "base/fd.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vfio/testdev_client.h"
#include "vfio/uapi_vfio.h"

#define STREAM_MAX (16 * MIB)
#define STOP VFIO_DEVICE_STATE_STOP
#define RUNNING VFIO_DEVICE_STATE_RUNNING
#define STOP_COPY VFIO_DEVICE_STATE_STOP_COPY
#define RESUMING VFIO_DEVICE_STATE_RESUMING
#define RUNNING_P2P VFIO_DEVICE_STATE_RUNNING_P2P
#define PRE_COPY VFIO_DEVICE_STATE_PRE_COPY
#define PRE_COPY_P2P VFIO_DEVICE_STATE_PRE_COPY_P2P
#define ERROR_STATE VFIO_DEVICE_STATE_ERROR

static uint8_t *stream;
static size_t stream_len;

static void setup_stream(void)
{
	setup();
	stream = malloc(STREAM_MAX);
	ck_assert_ptr_nonnull(stream);
	stream_len = 0;
}

static void teardown_stream(void)
{
	free(stream);
	teardown();
}

/* The server is left, another one comes. The memory stays what it was. */
static void change_server(const char *const *options)
{
	if (b.t)
		b.t->ops->close(b.t);
	b.t = NULL;
	reap_server();
	open_good(options);
}

#define CHANGE(...) change_server((const char *const[]){ __VA_ARGS__, NULL })

static int set_state(uint32_t state)
{
	struct vfio_device_feature_mig_state f = { .device_state = state, .data_fd = -1 };

	error_clear(&b.err);
	return b.t->ops->feature(b.t,
				 VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &f,
				 sizeof(f), &b.err);
}

static uint32_t get_state(void)
{
	struct vfio_device_feature_mig_state f = { .device_state = 99 };
	int n = b.t->ops->feature(b.t,
				  VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
				  &f, sizeof(f), &b.err);

	ck_assert_msg(n == sizeof(f), "%d: %s", n, b.err.message);
	return f.device_state;
}

static void must(uint32_t state)
{
	ck_assert_msg(!set_state(state), "to %u: %s", state, b.err.message);
	ck_assert_uint_eq(get_state(), state);
}

/* All there is now, in pieces that are no multiple of anything. */
static size_t read_stream(void)
{
	size_t before = stream_len;

	for (;;) {
		ssize_t n =
			b.t->ops->migration_read(b.t, -1, stream + stream_len,
						 MIN(50021UL, STREAM_MAX - stream_len), 0, &b.err);

		ck_assert_uint_lt(stream_len, STREAM_MAX); /* else it was asked for nothing */
		ck_assert_msg(n >= 0, "%s", b.err.message);
		if (!n)
			return stream_len - before;
		stream_len += (size_t)n;
	}
}

static int write_stream(const uint8_t *from, size_t len, size_t piece)
{
	for (size_t done = 0; done < len; done += MIN(piece, len - done)) {
		int n = b.t->ops->migration_write(b.t, -1, from + done, MIN(piece, len - done),
						  &b.err);

		if (n < 0)
			return n;
	}
	return 0;
}

START_TEST(device_says_which_states_it_has)
{
	static const struct {
		const char *option;
		uint64_t flags;
	} kinds[] = {
		{ "--migration=v2", 7 },
		{ "--migration=stop-copy", 1 },
		{ "--migration=stop-copy+p2p", 3 },
		{ "--migration=stop-copy+pre-copy", 5 },
	};
	struct vfio_device_feature_migration f = { 0 };

	OPEN(kinds[_i].option);
	ck_assert_int_eq(b.t->ops->feature(b.t,
					   VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION,
					   &f, sizeof(f), &b.err),
			 sizeof(f));
	ck_assert_uint_eq(f.flags, kinds[_i].flags);
	ck_assert_uint_eq(get_state(), RUNNING);
	ck_assert_int_eq(set_state(RUNNING_P2P), kinds[_i].flags & 2 ? 0 : -EINVAL);
	ck_assert_int_eq(set_state(PRE_COPY), kinds[_i].flags & 4 ? 0 : -EINVAL);
	ck_assert_int_eq(set_state(PRE_COPY_P2P), kinds[_i].flags == 7 ? 0 : -EINVAL);
}
END_TEST

START_TEST(device_without_migration_has_no_feature_of_it)
{
	struct vfio_device_feature_migration f;
	uint8_t byte;

	if (_i)
		OPEN("--migration=region");
	else
		open_good(NULL);
	ck_assert_int_eq(b.t->ops->feature(b.t,
					   VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION,
					   &f, sizeof(f), &b.err),
			 -ENOTTY);
	ck_assert_int_eq(set_state(STOP), -ENOTTY);
	ck_assert_int_lt(b.t->ops->migration_read(b.t, -1, &byte, 1, 0, &b.err), 0);
	ck_assert_int_lt(b.t->ops->migration_write(b.t, -1, &byte, 1, &b.err), 0);
}
END_TEST

/* How a test gets into each state from RUNNING; what the kernel's interface forbids. */
START_TEST(every_pair_of_states_goes_or_is_refused_as_the_interface_has_it)
{
	uint32_t from = (uint32_t)_i / 8, to = (uint32_t)_i % 8;
	bool refused = to == ERROR_STATE || from == ERROR_STATE ||
		       (from == STOP_COPY && (to == PRE_COPY || to == PRE_COPY_P2P));
	/* It leaves RESUMING without a stream: that is an error, too. */
	bool broken = from == RESUMING && to != RESUMING && to != ERROR_STATE;

	if (from == ERROR_STATE) {
		OPEN("--migration=v2", "--misbehave=error-stop");
		ck_assert_int_eq(set_state(STOP), -EIO);
		ck_assert_uint_eq(get_state(), ERROR_STATE);
	} else {
		OPEN("--migration=v2");
		must(from);
	}
	if (refused || broken) {
		ck_assert_int_eq(set_state(to), -EINVAL);
		ck_assert_uint_eq(get_state(), broken ? ERROR_STATE : from);
	} else {
		must(to);
	}
	/* Whatever it was: the reset ends it. */
	ck_assert_int_eq(b.t->ops->reset(b.t, &b.err), 0);
	ck_assert_uint_eq(get_state(), RUNNING);
}
END_TEST

START_TEST(unknown_state_is_refused)
{
	OPEN("--migration=v2");
	ck_assert_int_eq(set_state(8), -EINVAL);
	ck_assert_int_eq(set_state(0xffffffff), -EINVAL);
	ck_assert_uint_eq(get_state(), RUNNING);
}
END_TEST

START_TEST(data_flow_only_in_their_states)
{
	uint8_t byte = 0;

	OPEN("--migration=v2");
	ck_assert_int_eq(b.t->ops->migration_read(b.t, -1, &byte, 1, 0, &b.err), -EINVAL);
	ck_assert_int_eq(b.t->ops->migration_write(b.t, -1, &byte, 1, &b.err), -EINVAL);
	must(STOP);
	ck_assert_int_eq(b.t->ops->migration_read(b.t, -1, &byte, 1, 0, &b.err), -EINVAL);
	must(RESUMING);
	ck_assert_int_eq(b.t->ops->migration_read(b.t, -1, &byte, 1, 0, &b.err), -EINVAL);
	ck_assert_int_eq(b.t->ops->migration_write(b.t, -1, "F", 1, &b.err), 0);
}
END_TEST

static void fill_device(void)
{
	uint8_t bytes[4096];

	put(TESTDEV_SCRATCH, 0xcafe1234);
	put(TESTDEV_DOORBELL, 1);
	put(TESTDEV_DOORBELL, 1);
	put(TESTDEV_DOORBELL_IRQ, 1);
	for (size_t at = 0; at < TESTDEV_BAR2_SIZE; at += sizeof(bytes)) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)(at / 4096 * 3 + i * 7);
		ck_assert_int_eq(
			b.t->ops->region_write(b.t, &bar2, at, bytes, sizeof(bytes), &b.err), 0);
	}
	put(TESTDEV_STATE_TOUCH, 3);
}

static void check_device(uint32_t state_sum)
{
	uint8_t bytes[4096];

	ck_assert_uint_eq(get(TESTDEV_SCRATCH), 0xcafe1234);
	ck_assert_uint_eq(get(TESTDEV_DOORBELL_COUNT), 2);
	ck_assert_uint_eq(get(TESTDEV_DOORBELL_IRQ), 1);
	ck_assert_uint_eq(get(TESTDEV_STATE_SUM), state_sum);
	ck_assert_uint_eq(get(TESTDEV_LOAD_COUNT), 1);
	for (size_t at = 0; at < TESTDEV_BAR2_SIZE; at += sizeof(bytes)) {
		ck_assert_int_eq(
			b.t->ops->region_read(b.t, &bar2, at, bytes, sizeof(bytes), &b.err), 0);
		for (size_t i = 0; i < sizeof(bytes); i++)
			ck_assert_uint_eq(bytes[i], (uint8_t)(at / 4096 * 3 + i * 7));
	}
}

static uint64_t stop_copy_size(void)
{
	struct vfio_device_feature_mig_data_size f = { 0 };

	ck_assert_int_eq(
		b.t->ops->feature(b.t, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
				  &f, sizeof(f), &b.err),
		sizeof(f));
	return f.stop_copy_length;
}

START_TEST(state_moves_while_it_stands)
{
	size_t pieces[] = { 1000, STREAM_MAX, 4096, 20011 };
	uint64_t estimate;

	OPEN("--migration=stop-copy", "--state-size=1M");
	fill_device();
	estimate = stop_copy_size();
	must(STOP_COPY);
	ck_assert_uint_ge(read_stream(), 2 * MIB);
	ck_assert_uint_ge(stream_len, estimate);
	ck_assert_uint_le(stream_len, estimate + 65536);
	must(STOP);
	must(RUNNING); /* it was a snapshot: the device goes on */
	ck_assert_uint_eq(get(TESTDEV_SCRATCH), 0xcafe1234);
	CHANGE("--migration=v2", "--state-size=1M");
	must(RESUMING);
	ck_assert_msg(!write_stream(stream, stream_len, pieces[_i]), "%s", b.err.message);
	must(RUNNING_P2P);
	must(RUNNING);
	check_device(3);
}
END_TEST

START_TEST(initial_bytes_come_first_and_the_rest_while_it_runs)
{
	size_t first;

	OPEN("--migration=v2", "--state-size=2M", "--state-initial=1M");
	fill_device();
	must(PRE_COPY);
	first = read_stream();
	ck_assert_uint_ge(first, 2 * MIB);
	ck_assert_uint_le(first, 2 * MIB + 65536);
	ck_assert_uint_eq(read_stream(), 0); /* for now */
	put(TESTDEV_STATE_TOUCH, 5);
	ck_assert_uint_ge(read_stream(), 5 * 4096);
	put(TESTDEV_STATE_TOUCH, 2);
	must(PRE_COPY_P2P);
	ck_assert_uint_le(stop_copy_size(), TESTDEV_BAR2_SIZE + 2 * 4096 + 4096);
	must(STOP_COPY);
	read_stream();
	CHANGE("--migration=v2", "--state-size=2M");
	must(RESUMING);
	ck_assert_msg(!write_stream(stream, stream_len, 60000), "%s", b.err.message);
	must(RUNNING);
	check_device(3 + 5 + 2);
}
END_TEST

START_TEST(state_gets_dirty_at_the_rate_it_is_told)
{
	struct timespec wait = { .tv_nsec = 200000000 };

	OPEN("--migration=v2", "--state-size=4M", "--state-dirty=1M");
	must(PRE_COPY);
	read_stream();
	nanosleep(&wait, NULL);
	ck_assert_uint_gt(read_stream(), 65536); /* of 200 KiB or more */
	must(STOP_COPY);
	nanosleep(&wait, NULL);
	read_stream();
	ck_assert_uint_eq(read_stream(), 0);
	CHANGE("--migration=v2", "--state-size=4M");
	must(RESUMING);
	ck_assert_msg(!write_stream(stream, stream_len, 60000), "%s", b.err.message);
	must(RUNNING);
}
END_TEST

static void start_dma(uint64_t src, uint64_t dst, uint32_t len, uint32_t ctrl)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(b.t->ops->region_write(b.t, &bar0, TESTDEV_DMA_SRC, &src, 8, &err), 0);
	ck_assert_int_eq(b.t->ops->region_write(b.t, &bar0, TESTDEV_DMA_DST, &dst, 8, &err), 0);
	put(TESTDEV_DMA_LEN, len);
	put(TESTDEV_DMA_CTRL, TESTDEV_DMA_START | ctrl);
}

static const char *const stops[] = { "--dma-stop=keep", "--dma-stop=finish" };

/* A transfer of a second and more is a tenth done when the device stops. */
START_TEST(dma_in_flight_is_kept_and_continued_or_finished_before)
{
	const uint32_t len = 0x180000;
	uint8_t *src = guest_memory_ptr(b.memory, 0, len);
	uint8_t *dst = guest_memory_ptr(b.memory, 4 * GIB, len);
	struct timespec wait = { .tv_nsec = 100000000 };
	int fd = eventfd_new();
	uint8_t seen;

	for (uint32_t i = 0; i < len; i++)
		src[i] = (uint8_t)(1 + i % 251);
	OPEN("--migration=v2", "--dma-rate=1M", stops[_i], "--dma=messages");
	start_dma(0, 4 * GIB, len, TESTDEV_DMA_IRQ);
	nanosleep(&wait, NULL);
	ck_assert_uint_eq(get(TESTDEV_DMA_STATUS), TESTDEV_DMA_BUSY);
	must(PRE_COPY_P2P);
	ck_assert_uint_eq(get(TESTDEV_DMA_STATUS), _i ? TESTDEV_DMA_DONE : TESTDEV_DMA_BUSY);
	must(STOP_COPY);
	read_stream();
	seen = dst[len - 1];
	ck_assert_uint_eq(seen, _i ? src[len - 1] : 0);
	CHANGE("--migration=v2");
	ck_assert_int_eq(b.t->ops->set_irq_fds(b.t, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &fd, &b.err), 0);
	must(RESUMING);
	ck_assert_msg(!write_stream(stream, stream_len, 60000), "%s", b.err.message);
	must(RUNNING_P2P);
	ck_assert_uint_eq(get(TESTDEV_DMA_COUNT), (uint32_t)_i);
	must(RUNNING);
	while (get(TESTDEV_DMA_STATUS) == TESTDEV_DMA_BUSY)
		;
	ck_assert_uint_eq(get(TESTDEV_DMA_COUNT), 1);
	ck_assert_mem_eq(dst, src, len);
	ck_assert(eventfd_drain(fd) == !_i);
	close(fd);
}
END_TEST

START_TEST(stopped_device_takes_no_writes_and_rings_later)
{
	struct vfio_ioeventfd io;

	OPEN("--migration=v2");
	ck_assert_int_eq(b.t->ops->region_ioeventfds(b.t, &bar0, &io, 1, &b.err), 1);
	must(STOP);
	put(TESTDEV_SCRATCH, 7);
	ck_assert_uint_eq(get(TESTDEV_SCRATCH), 0);
	eventfd_signal(io.fd);
	ck_assert_uint_eq(get(TESTDEV_DOORBELL_COUNT), 0);
	must(RUNNING);
	while (!get(TESTDEV_DOORBELL_COUNT)) /* now it is heard */
		;
	/* What was rung before it stops is in its state. */
	eventfd_signal(io.fd);
	must(STOP);
	ck_assert_uint_eq(get(TESTDEV_DOORBELL_COUNT), 2);
}
END_TEST

static const char *const unloadable[] = {
	"--misbehave=mig-magic",     "--misbehave=mig-version", "--misbehave=mig-device",
	"--misbehave=mig-reordered", "--misbehave=mig-corrupt", "--misbehave=mig-truncated",
	"--misbehave=mig-endless",   "--state-size=8K",
};

START_TEST(foreign_and_broken_streams_are_refused)
{
	int r;

	OPEN("--migration=v2", unloadable[_i]);
	must(STOP_COPY);
	if (_i == 6) /* it would not end */
		while (stream_len < 3 * MIB) {
			ssize_t n = b.t->ops->migration_read(b.t, -1, stream + stream_len, 60000, 0,
							     &b.err);

			ck_assert_int_gt(n, 0);
			stream_len += (size_t)n;
		}
	else
		read_stream();
	CHANGE("--migration=v2");
	must(RESUMING);
	r = write_stream(stream, stream_len, 60000);
	ck_assert_int_eq(r, _i == 5 ? 0 : -EINVAL);
	if (r)
		ck_assert_int_eq(write_stream(stream, 1, 1), -EINVAL);
	ck_assert_int_eq(set_state(STOP), -EINVAL);
	ck_assert_uint_eq(get_state(), ERROR_STATE);
	ck_assert_int_eq(b.t->ops->reset(b.t, &b.err), 0);
	ck_assert_uint_eq(get_state(), RUNNING);
}
END_TEST

START_TEST(stream_cut_anywhere_is_refused)
{
	OPEN("--migration=v2", "--state-size=64K");
	must(STOP_COPY);
	read_stream();
	CHANGE("--migration=v2", "--state-size=64K");
	for (size_t i = 0; i < 40; i++) {
		must(RESUMING);
		ck_assert_int_eq(write_stream(stream, stream_len * i / 40, 60000), 0);
		ck_assert_int_eq(set_state(RUNNING), -EINVAL);
		ck_assert_int_eq(b.t->ops->reset(b.t, &b.err), 0);
	}
	/* And with something behind its end. */
	must(RESUMING);
	ck_assert_int_eq(write_stream(stream, stream_len, 60000), 0);
	ck_assert_int_eq(write_stream(stream, 1, 60000), -EINVAL);
	ck_assert_int_eq(set_state(RUNNING), -EINVAL);
}
END_TEST

static const struct {
	const char *name;
	uint32_t state, before; /* where it stays */
} arcs[] = {
	{ "stop", STOP, RUNNING_P2P },	     { "stop-copy", STOP_COPY, STOP },
	{ "resuming", RESUMING, STOP },	     { "running-p2p", RUNNING_P2P, RUNNING },
	{ "pre-copy", PRE_COPY, RUNNING },   { "pre-copy-p2p", PRE_COPY_P2P, PRE_COPY },
	{ "running", RUNNING, RUNNING_P2P },
};

START_TEST(every_change_of_state_fails_on_request)
{
	char option[64];
	bool error = _i & 1;

	snprintf(option, sizeof(option), "--misbehave=%s-%s", error ? "error" : "refuse",
		 arcs[_i / 2].name);
	OPEN("--migration=v2", option);
	if (arcs[_i / 2].state == RUNNING)
		must(STOP);
	ck_assert_int_eq(set_state(arcs[_i / 2].state), -EIO);
	ck_assert_uint_eq(get_state(), error ? ERROR_STATE : arcs[_i / 2].before);
}
END_TEST

static const struct {
	const char *how, *says;
} lies[] = {
	{ "mig-short", "migration data say" },
	{ "mig-long", "were asked for" },
	{ "mig-lie", "migration data say" },
	{ "mig-error@3", "refused MIG_DATA_READ: Input/output error" },
	{ "mig-die@3", "closed the connection" },
	{ "mig-die-in-reply@3", "closed the connection" },
};

START_TEST(lies_about_migration_data_are_errors_that_name_them)
{
	char option[64];

	snprintf(option, sizeof(option), "--misbehave=%s", lies[_i].how);
	OPEN("--migration=v2", option);
	must(STOP_COPY);
	ck_assert_int_lt(b.t->ops->migration_read(b.t, -1, stream, 50000, 0, &b.err), 0);
	bench_says(b.err.message, lies[_i].says);
}
END_TEST

/* The region, as a client of the first protocol uses it. */

static struct vfio_region migration;

static void open_region(const char *const *options)
{
	open_good(options);
	ck_assert_uint_eq(b.t->region_count, VFIO_PCI_NUM_REGIONS + 1);
	ck_assert_msg(!b.t->ops->region_info(b.t, VFIO_PCI_NUM_REGIONS, &migration, &b.err), "%s",
		      b.err.message);
}

static uint64_t field(uint64_t offset, size_t len)
{
	uint64_t value = 0;

	ck_assert_msg(!b.t->ops->region_read(b.t, &migration, offset, &value, len, &b.err),
		      "0x%lx: %s", (unsigned long)offset, b.err.message);
	return value;
}

static int put_field(uint64_t offset, uint64_t value, size_t len)
{
	return b.t->ops->region_write(b.t, &migration, offset, &value, len, &b.err);
}

#define DEVICE_STATE 0
#define PENDING 8
#define DATA_OFFSET 16
#define DATA_SIZE 24

static void region_save(uint32_t state)
{
	ck_assert_int_eq(put_field(DEVICE_STATE, state, 4), 0);
	ck_assert_uint_eq(field(DEVICE_STATE, 4), state);
	while (field(PENDING, 8)) {
		uint64_t offset = field(DATA_OFFSET, 8), size = field(DATA_SIZE, 8);
		int r;

		ck_assert_uint_eq(offset, 4096);
		if (!size)
			break;
		ck_assert_uint_le(offset + size, migration.size);
		ck_assert_uint_le(stream_len + size, STREAM_MAX);
		r = b.t->ops->region_read(b.t, &migration, offset, stream + stream_len, size,
					  &b.err);
		ck_assert_msg(!r, "%s", b.err.message);
		stream_len += size;
	}
}

static int region_load(size_t piece)
{
	int r = put_field(DEVICE_STATE, 4, 4);

	for (size_t done = 0; !r && done < stream_len; done += piece) {
		uint64_t size = MIN(piece, stream_len - done), offset = field(DATA_OFFSET, 8);

		r = b.t->ops->region_write(b.t, &migration, offset, stream + done, size, &b.err);
		if (!r)
			r = put_field(DATA_SIZE, size, 8);
	}
	return r;
}

#define OPEN_REGION(...) open_region((const char *const[]){ __VA_ARGS__, NULL })

START_TEST(region_is_described)
{
	OPEN_REGION("--migration=region", "--region-data=1M");
	ck_assert(migration.type == 3 && migration.subtype == 1 && !migration.mappable);
	ck_assert_uint_eq(migration.size, MIB + 4096);
	CHANGE("--migration=region-mapped");
	ck_assert_int_eq(b.t->ops->region_info(b.t, 9, &migration, &b.err), 0);
	ck_assert(migration.type == 3 && migration.mappable && migration.area_count == 1);
	ck_assert_uint_eq(migration.areas[0].offset, 4096);
	ck_assert_uint_eq(migration.areas[0].size, 65536);
	CHANGE("--migration=region-sparse");
	ck_assert_int_eq(b.t->ops->region_info(b.t, 9, &migration, &b.err), 0);
	ck_assert(migration.type == 3 && migration.mappable && migration.area_count == 2);
	ck_assert_uint_eq(migration.areas[0].size, 32768);
	ck_assert_uint_eq(migration.areas[1].offset, 4096 + 32768 + 4096);
}
END_TEST

START_TEST(state_moves_through_the_region)
{
	OPEN_REGION("--migration=region", "--state-size=1M");
	fill_device();
	region_save(3); /* SAVING | RUNNING */
	put(TESTDEV_STATE_TOUCH, 2);
	region_save(2);
	ck_assert_int_eq(put_field(DEVICE_STATE, 0, 4), 0);
	CHANGE("--migration=region", "--region-data=16K", "--state-size=1M");
	ck_assert_int_eq(b.t->ops->region_info(b.t, 9, &migration, &b.err), 0);
	ck_assert_msg(!region_load(16384), "%s", b.err.message);
	ck_assert_int_eq(put_field(DEVICE_STATE, 1, 4), 0);
	check_device(3 + 2);
}
END_TEST

START_TEST(mapped_section_is_the_servers_memory)
{
	uint8_t *section = NULL;
	uint64_t size, offset;
	char trapped[64];

	OPEN_REGION("--migration=region-mapped");
	ck_assert_int_eq(
		b.t->ops->region_map(b.t, &migration, 4096, 65536, (void **)&section, &b.err), 0);
	ck_assert_int_eq(put_field(DEVICE_STATE, 2, 4), 0);
	ck_assert_uint_gt(field(PENDING, 8), 0);
	offset = field(DATA_OFFSET, 8);
	size = field(DATA_SIZE, 8);
	ck_assert_uint_eq(offset, 4096);
	ck_assert_uint_gt(size, 64);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &migration, offset, trapped, 64, &b.err), 0);
	ck_assert_mem_eq(section, trapped, 64);
	munmap(section, 65536);
}
END_TEST

START_TEST(region_goes_its_protocols_way_only)
{
	uint64_t value = 0;

	OPEN_REGION("--migration=region");
	ck_assert_uint_eq(field(DEVICE_STATE, 4), 1);
	ck_assert_uint_eq(field(PENDING, 8), 0);
	ck_assert_int_eq(put_field(DEVICE_STATE, 5, 4), -EINVAL); /* RESUMING | RUNNING */
	ck_assert_int_eq(put_field(DEVICE_STATE, 6, 4), -EINVAL);
	ck_assert_int_eq(put_field(DEVICE_STATE, 2, 4), 0);
	/* data_size before data_offset, data_offset before pending_bytes, data before all */
	ck_assert_int_eq(b.t->ops->region_read(b.t, &migration, DATA_SIZE, &value, 8, &b.err),
			 -EINVAL);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &migration, DATA_OFFSET, &value, 8, &b.err),
			 -EINVAL);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &migration, 4096, &value, 8, &b.err), -EINVAL);
	field(PENDING, 8);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &migration, DATA_SIZE, &value, 8, &b.err),
			 -EINVAL);
	field(DATA_OFFSET, 8);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &migration, 4096, &value, 8, &b.err), -EINVAL);
	value = field(DATA_SIZE, 8);
	ck_assert_uint_gt(value, 0);
	/* As often as one likes, until pending_bytes is read. */
	ck_assert_uint_eq(field(DATA_SIZE, 8), value);
	/* Fields whole. */
	ck_assert_int_eq(b.t->ops->region_read(b.t, &migration, PENDING, &value, 4, &b.err),
			 -EINVAL);
	ck_assert_int_eq(put_field(PENDING, 0, 8), -EINVAL);
	/* Resuming: data_size is the last. */
	ck_assert_int_eq(put_field(DEVICE_STATE, 4, 4), 0);
	ck_assert_int_eq(put_field(DATA_SIZE, 16, 8), -EINVAL);
	field(DATA_OFFSET, 8);
	ck_assert_int_eq(put_field(DATA_SIZE, 65537, 8), -EINVAL);
	ck_assert_int_eq(put_field(DATA_SIZE, 0, 8), 0);
	/* Without a stream there is no way out but a reset. */
	ck_assert_int_eq(put_field(DEVICE_STATE, 1, 4), -EINVAL);
	ck_assert_uint_eq(field(DEVICE_STATE, 4), 6);
	ck_assert_int_eq(b.t->ops->reset(b.t, &b.err), 0);
	ck_assert_uint_eq(field(DEVICE_STATE, 4), 1);
}
END_TEST

START_TEST(region_lies_on_request)
{
	static const char *const how[] = { "mig-offset", "mig-offset-head", "mig-long", "mig-lie",
					   "mig-endless" };
	char option[64];
	uint64_t offset, size;

	snprintf(option, sizeof(option), "--misbehave=%s", how[_i]);
	OPEN_REGION("--migration=region", option);
	ck_assert_int_eq(put_field(DEVICE_STATE, 2, 4), 0);
	for (int i = 0; i < 100 && _i == 4; i++) {
		ck_assert_uint_eq(field(PENDING, 8), MIB);
		field(DATA_OFFSET, 8);
		field(DATA_SIZE, 8);
	}
	field(PENDING, 8);
	offset = field(DATA_OFFSET, 8);
	size = field(DATA_SIZE, 8);
	ck_assert(_i == 4 || offset < 32 || offset > migration.size ||
		  size > migration.size - offset);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ferry-testdev's migration");
	TCase *tc = tcase_create("migration");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup_stream, teardown_stream);
	tcase_add_loop_test(tc, device_says_which_states_it_has, 0, 4);
	tcase_add_loop_test(tc, device_without_migration_has_no_feature_of_it, 0, 2);
	tcase_add_loop_test(tc, every_pair_of_states_goes_or_is_refused_as_the_interface_has_it, 0,
			    64);
	tcase_add_test(tc, unknown_state_is_refused);
	tcase_add_test(tc, data_flow_only_in_their_states);
	tcase_add_loop_test(tc, state_moves_while_it_stands, 0, 4);
	tcase_add_test(tc, initial_bytes_come_first_and_the_rest_while_it_runs);
	tcase_add_test(tc, state_gets_dirty_at_the_rate_it_is_told);
	tcase_add_loop_test(tc, dma_in_flight_is_kept_and_continued_or_finished_before, 0, 2);
	tcase_add_test(tc, stopped_device_takes_no_writes_and_rings_later);
	tcase_add_loop_test(tc, foreign_and_broken_streams_are_refused, 0, ARRAY_SIZE(unloadable));
	tcase_add_test(tc, stream_cut_anywhere_is_refused);
	tcase_add_loop_test(tc, every_change_of_state_fails_on_request, 0, 2 * ARRAY_SIZE(arcs));
	tcase_add_loop_test(tc, lies_about_migration_data_are_errors_that_name_them, 0,
			    ARRAY_SIZE(lies));
	tcase_add_test(tc, region_is_described);
	tcase_add_test(tc, state_moves_through_the_region);
	tcase_add_test(tc, mapped_section_is_the_servers_memory);
	tcase_add_test(tc, region_goes_its_protocols_way_only);
	tcase_add_loop_test(tc, region_lies_on_request, 0, 5);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
