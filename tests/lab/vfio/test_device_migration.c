/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State and DMA log of the lab's devices, as the kernel's drivers give them: edu with a
 * driver of ours, a PCI device with DMA, and mtty, a mediated one (tests/lab/vfio/
 * run-migration). Every test runs by cdev and by group.
 */
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "memory/dirty_tracker.h"
#include "tests/lab/vfio/fixture.h"
#include "tests/unit/helpers/run_suite.h"
#include "vfio/device_dirty.h"
#include "vfio/device_migration.h"

#define STREAM_MAX (4 * MIB)

struct device {
	struct dma_space *space;
	struct guest_memory *memory;
	struct vfio_transport *t;
	struct vfio_region bar;
	struct migratable *m;
};

static uint8_t stream[STREAM_MAX];
static size_t stream_len;
static struct error err;

static void open_device(struct device *d, const char *variable, enum mode mode)
{
	const struct device_migration_options options = { .id = "dev0" };

	d->space = open_space(mode);
	d->memory = make_memory();
	map_memory(d->space, d->memory);
	d->t = try_open(getenv(variable), d->space, &err);
	ck_assert_msg(d->t != NULL, "%s", err.message);
	d->bar = region(d->t, VFIO_PCI_BAR0_REGION_INDEX);
	d->m = device_migration_new(d->t, &options, &err);
	ck_assert_msg(d->m && !device_migration_refusal(d->m), "%s",
		      d->m ? device_migration_refusal(d->m) : err.message);
	ck_assert_str_eq(d->m->ops->kind, "feature");
}

static void close_device(struct device *d)
{
	device_migration_free(d->m);
	d->t->ops->close(d->t);
	d->space->ops->free(d->space);
	guest_memory_free(d->memory);
}

static uint32_t get(struct device *d, uint64_t offset, size_t len)
{
	uint8_t data[4] = { 0 };

	ck_assert_msg(!d->t->ops->region_read(d->t, &d->bar, offset, data, len, &err), "%s",
		      err.message);
	return load_le32(data);
}

static void put(struct device *d, uint64_t offset, uint32_t value, size_t len)
{
	uint8_t data[4];

	store_le32(data, value);
	ck_assert_msg(!d->t->ops->region_write(d->t, &d->bar, offset, data, len, &err), "%s",
		      err.message);
}

#define OK(call) ck_assert_msg(!(call), "%s", err.message)

/* To the end, or to where there is no more for now. */
static void read_stream(struct migratable *m)
{
	ssize_t n;

	while ((n = m->ops->save_read(m, stream + stream_len, MIN(STREAM_MAX - stream_len, 65536UL),
				      &err)) > 0)
		stream_len += (size_t)n;
	ck_assert_msg(n == 0, "%s", err.message);
}

static void save(struct migratable *m)
{
	stream_len = 0;
	OK(m->ops->save_begin(m, &err));
	read_stream(m);
	OK(m->ops->quiesce(m, &err));
	OK(m->ops->save_stop(m, &err));
	read_stream(m);
	OK(m->ops->save_end(m, &err));
	ck_assert_uint_gt(stream_len, 0);
}

static void load(struct migratable *m)
{
	OK(m->ops->load_begin(m, &err));
	for (size_t done = 0, n; done < stream_len; done += n) {
		n = MIN(stream_len - done, 10000UL);
		OK(m->ops->load_write(m, stream + done, n, &err));
	}
	OK(m->ops->load_end(m, &err));
	OK(m->ops->resume(m, &err));
	OK(m->ops->run(m, &err));
}

/* The scratch register of mtty's first port, and its divisor. */
#define SCRATCH 7

START_TEST(mtty_goes_on_in_another_device)
{
	struct device a, b;

	open_device(&a, "FERRY_VFIO_MTTY", _i);
	open_device(&b, "FERRY_VFIO_MTTY2", _i);
	ck_assert(a.m->precopy && a.m->p2p);
	/* They keep what was in them before they were opened. */
	put(&a, SCRATCH, 0x5a, 1);
	put(&b, SCRATCH, 0, 1);
	save(a.m);
	load(b.m);
	ck_assert_uint_eq(get(&b, SCRATCH, 1), 0x5a);
	/* The source is as it was. */
	OK(a.m->ops->rollback(a.m, &err));
	put(&a, SCRATCH, 0x33, 1);
	ck_assert_uint_eq(get(&a, SCRATCH, 1), 0x33);
	close_device(&a);
	close_device(&b);
}
END_TEST

START_TEST(mtty_refuses_what_is_no_state_of_its)
{
	static const char *const variables[] = { "FERRY_VFIO_MTTY3", "FERRY_VFIO_MTTY4" };
	const struct device_migration_options options = { .id = "dev0" };
	struct device d;
	const char *why;
	int r;

	open_device(&d, variables[_i], _i);
	save(d.m);
	OK(d.m->ops->rollback(d.m, &err));
	stream[0] ^= 0xff;
	OK(d.m->ops->load_begin(d.m, &err));
	r = d.m->ops->load_write(d.m, stream, stream_len, &err);
	if (!r)
		r = d.m->ops->load_end(d.m, &err);
	ck_assert_int_lt(r, 0);
	ck_assert_msg(strstr(err.message, "dev0") != NULL, "%s", err.message);
	/* It has no reset, and stays in the middle of a load: the next to open it has it
	 * running, or says why not. */
	device_migration_free(d.m);
	d.m = device_migration_new(d.t, &options, &err);
	ck_assert_ptr_nonnull(d.m);
	why = device_migration_refusal(d.m);
	if (why)
		ck_assert_msg(strstr(why, "RESUMING") != NULL, "%s", why);
	else
		save(d.m);
	close_device(&d);
}
END_TEST

/* edu */

enum { LIVENESS = 0x04, DMA_SRC = 0x80, DMA_DST = 0x88, DMA_COUNT = 0x90, DMA_COMMAND = 0x98 };

static void start_dma(struct device *d, uint64_t target)
{
	put(d, DMA_SRC, 0x40000, 4);
	put(d, DMA_DST, (uint32_t)target, 4);
	put(d, DMA_COUNT, 4096, 4);
	put(d, DMA_COMMAND, 3, 4);
}

static void wait_dma(struct device *d)
{
	const struct timespec moment = { .tv_nsec = 10000000 };

	for (unsigned int i = 0; get(d, DMA_COMMAND, 4) & 1; i++) {
		ck_assert_uint_lt(i, 2000);
		nanosleep(&moment, NULL);
	}
}

static void open_edu(struct device *d, enum mode mode)
{
	open_device(d, "FERRY_VFIO_EDU", mode);
	config_write(d->t, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	ck_assert_uint_eq(get(d, 0, 4) & 0xff, 0xed);
}

START_TEST(edu_goes_on_after_a_reset)
{
	struct migratable_pending pending;
	struct device d;

	open_edu(&d, _i);
	ck_assert(d.m->precopy && d.m->p2p);
	put(&d, LIVENESS, 0x12345678, 4);
	OK(d.m->ops->save_begin(d.m, &err));
	OK(d.m->ops->save_pending(d.m, &pending, &err));
	ck_assert_uint_gt(pending.initial, 64 * KIB);
	ck_assert_uint_ge(pending.stop_copy, pending.initial);
	stream_len = 0;
	read_stream(d.m);
	ck_assert_uint_eq(stream_len, pending.initial);
	OK(d.m->ops->save_pending(d.m, &pending, &err));
	ck_assert_uint_eq(pending.initial, 0);
	OK(d.m->ops->rollback(d.m, &err));
	/* Given up, and begun anew. */
	save(d.m);
	close_device(&d);
	open_edu(&d, _i);
	OK(d.t->ops->reset(d.t, &err));
	config_write(d.t, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	ck_assert_uint_ne(get(&d, LIVENESS, 4), ~0x12345678U);
	load(d.m);
	ck_assert_uint_eq(get(&d, LIVENESS, 4), ~0x12345678U);
	start_dma(&d, 0x5000);
	wait_dma(&d);
	close_device(&d);
}
END_TEST

START_TEST(edu_logs_what_it_writes_up_to_its_last_page)
{
	struct dirty_tracker *tracker;
	struct dirty_source *source;
	struct dirty_round round;
	struct device d;

	open_edu(&d, _i);
	source = device_dirty_source(d.t, d.memory, DEVICE_DIRTY_AUTO, &err);
	ck_assert_msg(source != NULL, "%s", err.message);
	ck_assert_str_eq(source->ops->name, "device-log");
	tracker = dirty_tracker_new(d.memory, &err);
	OK(dirty_tracker_add(tracker, source, DIRTY_ORDER_LAST, &err));
	OK(dirty_tracker_start(tracker, &err));
	OK(dirty_tracker_collect(tracker, &round, &err));
	ck_assert_uint_eq(round.pages, 0);
	start_dma(&d, 0x5000);
	wait_dma(&d);
	OK(dirty_tracker_collect(tracker, &round, &err));
	ck_assert_uint_eq(round.losses, 0);
	ck_assert_uint_eq(round.pages, 1);
	ck_assert(dirty_bitmap_test(dirty_tracker_bitmap(tracker, 0), 5));
	/* A copy is under way when it is stopped: it is done, and told, before the last page. */
	OK(d.m->ops->save_begin(d.m, &err));
	start_dma(&d, LOW - 4096);
	OK(d.m->ops->quiesce(d.m, &err));
	OK(d.m->ops->save_stop(d.m, &err));
	OK(dirty_tracker_collect_last(tracker, &round, &err));
	ck_assert_uint_eq(round.losses, 0);
	ck_assert_uint_eq(round.pages, 2);
	ck_assert(dirty_bitmap_test(dirty_tracker_bitmap(tracker, 0), LOW / 4096 - 1));
	OK(d.m->ops->rollback(d.m, &err));
	dirty_tracker_free(tracker);
	source->ops->free(source);
	close_device(&d);
}
END_TEST

/* A state that the driver does not enter: /sys/module/edu_vfio/parameters/fail_state. */
static void fail_state(int state)
{
	FILE *f = fopen("/sys/module/edu_vfio/parameters/fail_state", "w");

	ck_assert_ptr_nonnull(f);
	fprintf(f, "%d\n", state);
	ck_assert_int_eq(fclose(f), 0);
}

START_TEST(edu_runs_on_where_a_state_cannot_be_entered)
{
	static const struct {
		int state;
		const char *arc;
	} rows[] = {
		{ VFIO_DEVICE_STATE_PRE_COPY, "RUNNING -> PRE_COPY" },
		{ VFIO_DEVICE_STATE_PRE_COPY_P2P, "PRE_COPY -> PRE_COPY_P2P" },
		{ VFIO_DEVICE_STATE_STOP_COPY, "PRE_COPY_P2P -> STOP_COPY" },
		{ VFIO_DEVICE_STATE_STOP, "STOP_COPY -> STOP" },
	};
	struct device d;

	open_edu(&d, _i);
	put(&d, LIVENESS, 0x1234, 4);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct migratable *m = d.m;
		int r;

		fail_state(rows[i].state);
		stream_len = 0;
		r = m->ops->save_begin(m, &err);
		if (!r)
			r = m->ops->quiesce(m, &err);
		if (!r)
			r = m->ops->save_stop(m, &err);
		if (!r) {
			read_stream(m);
			r = m->ops->save_end(m, &err);
		}
		ck_assert_int_lt(r, 0);
		ck_assert_msg(strstr(err.message, rows[i].arc) != NULL, "%s", err.message);
		fail_state(-1);
		OK(m->ops->rollback(m, &err));
		ck_assert_uint_eq(get(&d, LIVENESS, 4), ~0x1234U);
		start_dma(&d, 0x5000);
		wait_dma(&d);
	}
	save(d.m);
	close_device(&d);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("device_migration");
	TCase *tc = tcase_create("kernel");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, mtty_goes_on_in_another_device, 0, MODES);
	tcase_add_loop_test(tc, mtty_refuses_what_is_no_state_of_its, 0, MODES);
	tcase_add_loop_test(tc, edu_goes_on_after_a_reset, 0, MODES);
	tcase_add_loop_test(tc, edu_logs_what_it_writes_up_to_its_last_page, 0, MODES);
	tcase_add_loop_test(tc, edu_runs_on_where_a_state_cannot_be_entered, 0, MODES);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
