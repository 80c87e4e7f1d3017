/* SPDX-License-Identifier: Apache-2.0 */
/* What a device writes to RAM: by its own log, over a fake of it; by its IOMMU's, over a fake
 * kernel's iommufd and container. */
#include <sys/mman.h>

#include "memory/dirty_tracker.h"
#include "tests/unit/helpers/fake_migration.h"
#include "tests/unit/helpers/fake_vfio_transport.h"
#include "tests/unit/vfio/kernel_fixture.h"
#include "vfio/device_dirty.h"

static struct fake_migration dev;
static struct fake_space space;
static struct error err;

static void setup(void)
{
	fixture_setup();
	fake_migration_init(&dev, 0, 0);
	fake_space_init(&space, "fake");
	dev.transport.space = &space.space;
	dev.has_log = true;
	error_clear(&err);
}

static void teardown(void)
{
	ck_assert_uint_eq(dev.misuses, 0);
	ck_assert(!dev.logging);
	fake_migration_destroy(&dev);
	fixture_teardown();
}

static struct dirty_source *source_of(struct vfio_transport *t)
{
	struct dirty_source *source = device_dirty_source(t, memory, DEVICE_DIRTY_AUTO, &err);

	ck_assert_msg(source != NULL, "%s", err.message);
	return source;
}

/* Collects region i: how many pages are dirty in `bitmap` then. */
static uint64_t collected(struct dirty_source *source, unsigned int i, struct dirty_bitmap *bitmap)
{
	const struct guest_memory_region *region = guest_memory_region(memory, i);

	ck_assert_int_eq(dirty_bitmap_init(bitmap, region->size / 4096, NULL), 0);
	ck_assert_msg(!source->ops->collect(source, region, bitmap, &err), "%s", err.message);
	return dirty_bitmap_count(bitmap);
}

static void dma(uint64_t iova)
{
	dev.dirty[dev.dirty_count++] = iova;
}

START_TEST(a_device_that_logs_its_dma_is_asked_itself)
{
	struct dirty_source *source = source_of(&dev.transport);
	struct dirty_bitmap bitmap;

	ck_assert_str_eq(source->ops->name, "device-log");
	ck_assert_uint_eq(dev.log_starts, 0);
	ck_assert_int_eq(source->ops->start(source, &err), 0);
	ck_assert(dev.transport.own_log);
	/* RAM, and nothing else. */
	ck_assert_uint_eq(dev.log_range_count, 2);
	ck_assert_uint_eq(dev.log_ranges[0].iova, 0);
	ck_assert_uint_eq(dev.log_ranges[0].length, LOW);
	ck_assert_uint_eq(dev.log_ranges[1].iova, HIGH);
	ck_assert_uint_eq(dev.log_ranges[1].length, RAM - LOW);
	dma(0x3000);
	dma(LOW - 1);
	dma(HIGH + 0x5000);
	ck_assert_uint_eq(collected(source, 0, &bitmap), 2);
	ck_assert(dirty_bitmap_test(&bitmap, 3) && dirty_bitmap_test(&bitmap, LOW / 4096 - 1));
	dirty_bitmap_destroy(&bitmap);
	ck_assert_uint_eq(collected(source, 1, &bitmap), 1);
	ck_assert(dirty_bitmap_test(&bitmap, 5));
	dirty_bitmap_destroy(&bitmap);
	ck_assert_uint_eq(collected(source, 0, &bitmap), 0); /* told once */
	dirty_bitmap_destroy(&bitmap);
	source->ops->stop(source);
	ck_assert(!dev.transport.own_log);
	ck_assert_int_eq(source->ops->start(source, &err), 0);
	source->ops->free(source); /* stops it */
	ck_assert_uint_eq(dev.log_stops, 2);
}
END_TEST

START_TEST(a_log_in_larger_pages_marks_all_of_them)
{
	static const uint64_t pages[] = { 512, 4096, 65536, 2 * MIB, GIB };
	static const uint64_t marked[] = { 1, 1, 16, 512, 512 };
	struct dirty_source *source = source_of(&dev.transport);
	struct dirty_bitmap bitmap;

	dev.log_page = pages[_i];
	ck_assert_int_eq(source->ops->start(source, &err), 0);
	dma(0x11000);
	ck_assert_uint_eq(collected(source, 0, &bitmap), marked[_i]);
	ck_assert(dirty_bitmap_test(&bitmap, 0x11));
	dirty_bitmap_destroy(&bitmap);
	source->ops->free(source);
}
END_TEST

START_TEST(a_page_size_that_is_none_is_refused)
{
	struct dirty_source *source = source_of(&dev.transport);

	dev.log_page = 12345;
	ck_assert_int_eq(source->ops->start(source, &err), -EPROTO);
	check_message(&err, "12345");
	check_message(&err, "0000:01:10.0");
	ck_assert(!dev.logging);
	ck_assert(!dev.transport.own_log);
	source->ops->free(source);
}
END_TEST

static void add_region_at(uint64_t gpa)
{
	int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert(fd >= 0 && !ftruncate(fd, (off_t)MIB));
	ck_assert_msg(!guest_memory_add(memory, gpa, MIB, fd, 0, &err), "%s", err.message);
}

START_TEST(ranges_that_adjoin_are_one)
{
	struct dirty_source *source;

	add_region_at(LOW);
	add_region_at(LOW + MIB);
	source = source_of(&dev.transport);
	ck_assert_int_eq(source->ops->start(source, &err), 0);
	ck_assert_uint_eq(dev.log_range_count, 2);
	ck_assert_uint_eq(dev.log_ranges[0].length, LOW + 2 * MIB);
	source->ops->free(source);
}
END_TEST

START_TEST(ranges_are_as_few_as_the_device_takes)
{
	static const uint32_t limits[] = { 1, 2, 3, 9 };
	struct dirty_source *source;
	struct dirty_bitmap bitmap;

	for (unsigned int i = 0; i < 16; i++) /* 18 in all */
		add_region_at((16 + i) * GIB);
	dev.log_ranges_max = limits[_i];
	source = source_of(&dev.transport);
	ck_assert_msg(!source->ops->start(source, &err), "%s", err.message);
	ck_assert_uint_le(dev.log_range_count, limits[_i]);
	ck_assert_uint_gt(dev.log_range_count * 2, limits[_i]);
	/* All of RAM is in them, in order and without overlap. */
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		dev.dirty_count = 0;
		dma(region->gpa);
		dma(region->gpa + region->size - 1);
		ck_assert_uint_eq(collected(source, i, &bitmap), 2);
		dirty_bitmap_destroy(&bitmap);
	}
	for (uint32_t i = 1; i < dev.log_range_count; i++)
		ck_assert_uint_lt(dev.log_ranges[i - 1].iova + dev.log_ranges[i - 1].length,
				  dev.log_ranges[i].iova);
	source->ops->free(source);
}
END_TEST

START_TEST(a_device_that_takes_no_range_does_not_start)
{
	struct dirty_source *source = source_of(&dev.transport);

	dev.log_ranges_max = 0;
	ck_assert_int_eq(source->ops->start(source, &err), -E2BIG);
	check_message(&err, "log DMA");
	check_message(&err, "1 ranges");
	source->ops->free(source);
}
END_TEST

START_TEST(a_report_that_fails_makes_all_of_it_dirty)
{
	struct dirty_tracker *tracker = dirty_tracker_new(memory, &err);
	struct dirty_source *source = source_of(&dev.transport);
	struct dirty_round round;

	ck_assert_int_eq(dirty_tracker_add(tracker, source, DIRTY_ORDER_LAST, &err), 0);
	ck_assert_int_eq(dirty_tracker_start(tracker, &err), 0);
	dma(0x3000);
	ck_assert_int_eq(dirty_tracker_collect(tracker, &round, &err), 0);
	ck_assert_uint_eq(round.pages, 1);
	ck_assert_uint_eq(round.losses, 0);
	dev.report_error = EIO;
	ck_assert_int_eq(dirty_tracker_collect(tracker, &round, &err), 0);
	ck_assert_uint_eq(round.pages, RAM / 4096);
	ck_assert_uint_eq(round.losses, 2);
	check_message(&round.first.error, "0000:01:10.0");
	check_message(&round.first.error, "the log is lost");
	check_message(&round.first.error, "device-log");
	/* It goes on where it can. */
	dev.report_error = 0;
	ck_assert_int_eq(dirty_tracker_collect(tracker, &round, &err), 0);
	ck_assert_uint_eq(round.losses, 0);
	dirty_tracker_free(tracker);
	source->ops->free(source);
}
END_TEST

START_TEST(a_log_is_not_read_before_it_is_started)
{
	struct dirty_source *source = source_of(&dev.transport);
	struct dirty_bitmap bitmap = make_bitmap(LOW / 4096);

	ck_assert_int_eq(
		source->ops->collect(source, guest_memory_region(memory, 0), &bitmap, &err),
		-EINVAL);
	source->ops->stop(source);
	ck_assert_uint_eq(dev.log_stops + dev.reports, 0);
	source->ops->free(source);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(every_call_of_the_log_that_fails_is_told)
{
	struct dirty_source *source = source_of(&dev.transport);
	struct dirty_bitmap bitmap = make_bitmap(LOW / 4096);

	dev.fail_at = dev.calls + 1;
	ck_assert_int_eq(source->ops->start(source, &err), -EIO);
	ck_assert(!dev.transport.own_log);
	error_clear(&err);
	ck_assert_int_eq(source->ops->start(source, &err), 0);
	dev.fail_at = dev.calls + 1;
	ck_assert_int_eq(
		source->ops->collect(source, guest_memory_region(memory, 0), &bitmap, &err), -EIO);
	source->ops->free(source);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(a_device_that_nothing_follows_is_refused_with_what_was_tried)
{
	dev.has_log = false;
	ck_assert_ptr_null(device_dirty_source(&dev.transport, memory, DEVICE_DIRTY_AUTO, &err));
	ck_assert_int_eq(err.code, -EOPNOTSUPP);
	check_message(&err, "0000:01:10.0");
	check_message(&err, "no DMA log");
	check_message(&err, "no IOMMU");
	check_message(&err, "dirty_tracking=all");
}
END_TEST

START_TEST(everything_is_dirty_in_every_round_where_that_is_asked_for)
{
	struct dirty_source *source =
		device_dirty_source(&dev.transport, memory, DEVICE_DIRTY_ALL, &err);
	struct dirty_bitmap bitmap;

	ck_assert_str_eq(source->ops->name, "all");
	ck_assert_int_eq(source->ops->start(source, &err), 0);
	for (unsigned int round = 0; round < 2; round++) {
		ck_assert_uint_eq(collected(source, 0, &bitmap), LOW / 4096);
		dirty_bitmap_destroy(&bitmap);
	}
	source->ops->stop(source);
	source->ops->free(source);
	ck_assert_uint_eq(dev.calls, 0);
}
END_TEST

/* IOMMUs: the fake kernel. */

START_TEST(sources_of_a_space_share_its_log)
{
	struct dma_space *io = open_iommufd();
	struct vfio_transport *a, *b;
	struct dirty_source *first, *second;
	struct dirty_bitmap bitmap;

	fake.devices[0].can_track = fake.devices[1].can_track = true;
	map_memory(io);
	a = open_cdev(io, PF);
	b = open_cdev(io, VF);
	first = source_of(a);
	second = source_of(b);
	ck_assert_str_eq(first->ops->name, "iommu");
	ck_assert(!fake.hwpts[0].tracking);
	ck_assert_int_eq(first->ops->start(first, &err), 0);
	ck_assert_int_eq(second->ops->start(second, &err), 0);
	fake_vfio_write(&fake, 0x7000);
	ck_assert_uint_eq(collected(first, 0, &bitmap), 1);
	dirty_bitmap_destroy(&bitmap);
	/* Read once a round, for both. */
	fake_vfio_write(&fake, 0x8000);
	fake.calls = 0;
	ck_assert_uint_eq(collected(second, 0, &bitmap), 0);
	ck_assert_uint_eq(fake.calls, 0);
	dirty_bitmap_destroy(&bitmap);
	/* The first leaves: the other takes over, and nothing is lost. */
	first->ops->stop(first);
	ck_assert(fake.hwpts[0].tracking);
	ck_assert_uint_eq(collected(second, 0, &bitmap), 1);
	dirty_bitmap_destroy(&bitmap);
	second->ops->stop(second);
	ck_assert(!fake.hwpts[0].tracking);
	ck_assert_int_eq(second->ops->start(second, &err), 0);
	second->ops->free(second);
	first->ops->free(first);
	ck_assert(!fake.hwpts[0].tracking);
	ck_assert_uint_eq(io->dirty_users, 0);
	a->ops->close(a);
	b->ops->close(b);
	io->ops->free(io);
}
END_TEST

START_TEST(the_last_round_leaves_the_log_as_it_is)
{
	struct dirty_tracker *tracker = dirty_tracker_new(memory, &err);
	struct dma_space *io = open_iommufd();
	struct dirty_source *source;
	struct dirty_round round;
	struct vfio_transport *t;

	fake.devices[0].can_track = true;
	map_memory(io);
	t = open_cdev(io, PF);
	source = source_of(t);
	ck_assert_int_eq(dirty_tracker_add(tracker, source, DIRTY_ORDER_LAST, &err), 0);
	ck_assert_int_eq(dirty_tracker_start(tracker, &err), 0);
	fake_vfio_write(&fake, 0x7000);
	ck_assert_int_eq(dirty_tracker_collect(tracker, &round, &err), 0);
	ck_assert_uint_eq(round.fresh, 1);
	ck_assert_uint_eq(fake.no_clears, 0);
	fake_vfio_write(&fake, 0x9000);
	ck_assert_int_eq(dirty_tracker_collect_last(tracker, &round, &err), 0);
	ck_assert_uint_eq(round.fresh, 1);
	ck_assert_uint_eq(fake.no_clears, 2); /* regions */
	/* Should it go on after all, it is told again. */
	dirty_bitmap_clear(dirty_tracker_bitmap(tracker, 0), 0, LOW / 4096);
	ck_assert_int_eq(dirty_tracker_collect(tracker, &round, &err), 0);
	ck_assert_uint_eq(round.pages, 1);
	dirty_tracker_free(tracker);
	source->ops->free(source);
	t->ops->close(t);
	io->ops->free(io);
}
END_TEST

/* One has a log of its own, the other an IOMMU that tracks. */
START_TEST(a_device_with_its_own_log_does_not_need_its_iommus)
{
	struct dma_space *io = open_iommufd();
	struct vfio_transport *a, *b;
	struct dirty_source *own, *other;
	struct dirty_bitmap bitmap;

	fake.devices[0].feature = VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
	fake.devices[1].can_track = true;
	map_memory(io);
	a = open_cdev(io, PF);
	b = open_cdev(io, VF);
	own = source_of(a);
	other = source_of(b);
	ck_assert_str_eq(own->ops->name, "device-log");
	ck_assert_str_eq(other->ops->name, "iommu");
	/* Nobody follows the first: that is not passed over. */
	ck_assert_int_eq(other->ops->start(other, &err), -EOPNOTSUPP);
	check_message(&err, PF);
	a->own_log = true; /* as its source does */
	ck_assert_int_eq(other->ops->start(other, &err), 0);
	fake_vfio_write(&fake, 0x7000);
	ck_assert_uint_eq(collected(other, 0, &bitmap), 1);
	dirty_bitmap_destroy(&bitmap);
	other->ops->free(other);
	own->ops->free(own);
	a->ops->close(a);
	b->ops->close(b);
	io->ops->free(io);
}
END_TEST

START_TEST(a_device_whose_iommu_tracks_nothing_is_refused)
{
	struct dma_space *io = open_iommufd();
	struct vfio_transport *t;

	map_memory(io);
	t = open_cdev(io, PF);
	ck_assert_ptr_null(device_dirty_source(t, memory, DEVICE_DIRTY_AUTO, &err));
	check_message(&err, PF);
	check_message(&err, "its IOMMU tracks no dirty pages");
	t->ops->close(t);
	io->ops->free(io);
}
END_TEST

START_TEST(a_container_tracks_in_its_own_page_size)
{
	static const uint32_t pages[] = { 4096, 65536 };
	static const uint64_t marked[] = { 1, 16 };
	struct dma_space *t1 = open_type1();
	struct dirty_bitmap bitmap;
	struct dirty_source *source;
	struct vfio_transport *t;

	fake.dirty_page = pages[_i];
	map_memory(t1);
	t = open_group(t1, PF);
	source = source_of(t);
	ck_assert_str_eq(source->ops->name, "iommu");
	ck_assert_int_eq(source->ops->start(source, &err), 0);
	fake_vfio_write(&fake, HIGH + 0x11000);
	ck_assert_uint_eq(collected(source, 1, &bitmap), marked[_i]);
	ck_assert(dirty_bitmap_test(&bitmap, 0x11));
	dirty_bitmap_destroy(&bitmap);
	/* Unmapped under way, what was written is told before it goes. */
	fake_vfio_write(&fake, 0x2000);
	bitmap = make_bitmap(LOW / 4096);
	ck_assert_msg(!t1->ops->unmap(t1, 0, LOW, &bitmap, &err), "%s", err.message);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), marked[_i]);
	ck_assert(dirty_bitmap_test(&bitmap, 2));
	dirty_bitmap_destroy(&bitmap);
	source->ops->free(source);
	t->ops->close(t);
	t1->ops->free(t1);
}
END_TEST

START_TEST(a_bitmap_larger_than_the_kernels_is_a_loss_by_name)
{
	struct dma_space *t1 = open_type1();
	struct dirty_bitmap bitmap = make_bitmap(LOW / 4096);
	struct dirty_source *source;
	struct vfio_transport *t;

	fake.dirty_max = LOW / 4096 / 8 - 8;
	map_memory(t1);
	t = open_group(t1, PF);
	source = source_of(t);
	ck_assert_int_eq(source->ops->start(source, &err), 0);
	ck_assert_int_eq(
		source->ops->collect(source, guest_memory_region(memory, 0), &bitmap, &err),
		-E2BIG);
	check_message(&err, "the kernel has at most 0x38");
	/* It goes all the same, and all of it is dirty. */
	ck_assert_msg(!t1->ops->unmap(t1, 0, LOW, &bitmap, &err), "%s", err.message);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), LOW / 4096);
	source->ops->free(source);
	t->ops->close(t);
	t1->ops->free(t1);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(a_container_without_a_log_is_refused)
{
	struct dma_space *t1 = open_type1();
	struct vfio_transport *t;

	fake.no_dirty_log = true;
	t = open_group(t1, PF);
	ck_assert_ptr_null(device_dirty_source(t, memory, DEVICE_DIRTY_AUTO, &err));
	check_message(&err, "container tracks no dirty pages");
	t->ops->close(t);
	t1->ops->free(t1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("device_dirty");
	TCase *tc = tcase_create("sources");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_device_that_logs_its_dma_is_asked_itself);
	tcase_add_loop_test(tc, a_log_in_larger_pages_marks_all_of_them, 0, 5);
	tcase_add_test(tc, a_page_size_that_is_none_is_refused);
	tcase_add_test(tc, ranges_that_adjoin_are_one);
	tcase_add_loop_test(tc, ranges_are_as_few_as_the_device_takes, 0, 4);
	tcase_add_test(tc, a_device_that_takes_no_range_does_not_start);
	tcase_add_test(tc, a_report_that_fails_makes_all_of_it_dirty);
	tcase_add_test(tc, a_log_is_not_read_before_it_is_started);
	tcase_add_test(tc, every_call_of_the_log_that_fails_is_told);
	tcase_add_test(tc, a_device_that_nothing_follows_is_refused_with_what_was_tried);
	tcase_add_test(tc, everything_is_dirty_in_every_round_where_that_is_asked_for);
	tcase_add_test(tc, sources_of_a_space_share_its_log);
	tcase_add_test(tc, the_last_round_leaves_the_log_as_it_is);
	tcase_add_test(tc, a_device_with_its_own_log_does_not_need_its_iommus);
	tcase_add_test(tc, a_device_whose_iommu_tracks_nothing_is_refused);
	tcase_add_loop_test(tc, a_container_tracks_in_its_own_page_size, 0, 2);
	tcase_add_test(tc, a_bitmap_larger_than_the_kernels_is_a_loss_by_name);
	tcase_add_test(tc, a_container_without_a_log_is_refused);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
