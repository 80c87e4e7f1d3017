/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty pages by an iommufd's page tables, as the kernel tells them of its mock IOMMU: no
 * emulated IOMMU of the lab tracks any. Needs the lab's kernel, and none of its devices.
 */
#include <stdio.h>

#include "memory/dirty_tracker.h"
#include "tests/lab/vfio/mock_iommu.h"
#include "tests/unit/helpers/run_suite.h"
#include "vfio/device_dirty.h"
#include "vfio/kernel_space.h"

/* More than the 128 MiB whose bits fill a page of the bitmap; the rest is no whole word. */
#define LOW (160 * MIB)
#define HIGH (4 * GIB)
#define REST (16 * MIB + 20 * KIB)
#define PAGE GUEST_PAGE_SIZE

/* Memory inside what the default page table maps. */
#define NARROW MOCK_APERTURE_START
#define NARROW_SIZE (2 * MIB)

#define OK(call) ck_assert_msg(!(call), "%s", err.message)

static struct mock_iommu mock;
static struct dma_space *space;
static struct guest_memory *memory;
static struct dirty_tracker *tracker;
static struct error err;

/* Pages of the IOMMU are as large as memory happens to lie in one piece, or `small`. */
static void open_space(bool wide, bool small)
{
	struct iommu_option option = {
		.size = sizeof(option),
		.option_id = IOMMU_OPTION_HUGE_PAGES,
		.op = IOMMU_OPTION_OP_SET,
		.val64 = !small,
	};

	mock_init(&mock);
	mock.wide = wide;
	space = dma_space_open_iommufd_with(&mock.kernel, -1, NULL, &err);
	ck_assert_msg(space != NULL, "%s", err.message);
	option.object_id = dma_space_ioas(space);
	ck_assert_int_eq(
		vfio_kernel_ioctl(&mock.kernel, dma_space_fd(space), IOMMU_OPTION, &option), 0);
}

static void make_memory(uint64_t size, uint64_t hugepage_size)
{
	const struct guest_memory_options options = {
		.size = size,
		.hugepage_size = hugepage_size,
		.low_end = LOW,
		.high_start = HIGH,
	};

	memory = guest_memory_new(&options, &err);
	ck_assert_msg(memory != NULL, "%s", err.message);
}

/* RAM of two regions, mapped as a machine has it. */
static void open_machine(void)
{
	open_space(true, true);
	make_memory(LOW + REST, 0);
	ck_assert_uint_eq(guest_memory_region_count(memory), 2);
	OK(dma_space_map_memory(space, memory, &err));
}

/* Nothing is left of page tables, or the IOAS could not be destroyed. */
static void close_space(void)
{
	space->ops->free(space);
	guest_memory_free(memory);
	memory = NULL;
	ck_assert_uint_eq(mock.destroys_failed, 0);
}

struct device {
	struct mock_device *mock;
	struct vfio_transport *t;
	struct dirty_source *source; /* NULL: its IOMMU tracks nothing */
};

static void open_device(struct device *d, uint32_t flags, bool apart)
{
	d->mock = mock_plug(&mock, flags);
	d->mock->apart = apart;
	d->t = vfio_transport_open_cdev(NULL, d->mock->fd, space, NULL, &err);
	ck_assert_msg(d->t != NULL, "%s", err.message);
	d->source = device_dirty_source(d->t, memory, DEVICE_DIRTY_AUTO, &err);
	if (!d->source)
		return;
	ck_assert_str_eq(d->source->ops->name, "iommu");
}

/* The tracker goes first. */
static void close_device(struct device *d)
{
	dirty_tracker_free(tracker);
	tracker = NULL;
	if (d->source)
		d->source->ops->free(d->source);
	d->t->ops->close(d->t);
}

/* A tracker of both, or of one. */
static void start_tracker(struct device *a, struct device *b)
{
	tracker = dirty_tracker_new(memory, &err);
	ck_assert_ptr_nonnull(tracker);
	ck_assert_msg(a->source && (!b || b->source), "%s", err.message);
	OK(dirty_tracker_add(tracker, a->source, DIRTY_ORDER_LAST, &err));
	if (b)
		OK(dirty_tracker_add(tracker, b->source, DIRTY_ORDER_LAST, &err));
	OK(dirty_tracker_start(tracker, &err));
}

static bool is_dirty(uint64_t gpa)
{
	unsigned int region = gpa >= HIGH;

	return dirty_bitmap_test(dirty_tracker_bitmap(tracker, region),
				 (gpa - (region ? HIGH : 0)) / PAGE);
}

/* A round finds exactly these `count` pages, and all of them are taken. */
static void check_round(bool last, const uint64_t *pages, unsigned int count)
{
	struct dirty_round round;

	OK((last ? dirty_tracker_collect_last : dirty_tracker_collect)(tracker, &round, &err));
	ck_assert_msg(!round.losses, "%s", round.first.error.message);
	for (unsigned int i = 0; i < count; i++)
		ck_assert_msg(is_dirty(pages[i]), "0x%llx", (unsigned long long)pages[i]);
	ck_assert_uint_eq(round.pages, count);
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++) {
		struct dirty_bitmap *bitmap = dirty_tracker_bitmap(tracker, i);

		dirty_bitmap_clear(bitmap, 0, bitmap->pages);
	}
}

static void write_pages(const struct mock_device *dev, const uint64_t *pages, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		ck_assert_int_eq(mock_write(&mock, dev, pages[i], PAGE), 0);
}

/* Edges of RAM's regions, of a word of the bitmap, of a page of it. */
static const uint64_t edges[] = {
	0,	   PAGE,       63 * PAGE, 64 * PAGE,	    128 * MIB - PAGE,
	128 * MIB, LOW - PAGE, HIGH,	  HIGH + 64 * PAGE, HIGH + REST - PAGE,
};

START_TEST(what_is_written_is_told_once_up_to_the_edges)
{
	struct device d;

	open_machine();
	open_device(&d, 0, false);
	start_tracker(&d, NULL);
	check_round(false, NULL, 0);
	write_pages(d.mock, edges, ARRAY_SIZE(edges));
	check_round(false, edges, ARRAY_SIZE(edges));
	check_round(false, NULL, 0);
	/* One page, wherever it is: no other round, and no other page, knows of it. */
	for (unsigned int i = 0; i < ARRAY_SIZE(edges); i++) {
		write_pages(d.mock, edges + i, 1);
		check_round(false, edges + i, 1);
	}
	/* The mock's own pages are smaller than ours. */
	ck_assert_int_eq(mock_write(&mock, d.mock, 5 * PAGE + MOCK_PAGE_SIZE, MOCK_PAGE_SIZE), 0);
	check_round(false, (uint64_t[]){ 5 * PAGE }, 1);
	close_device(&d);
	close_space();
}
END_TEST

START_TEST(the_last_round_may_be_told_again)
{
	static const uint64_t later[] = { 7 * PAGE };
	struct device d;

	open_machine();
	open_device(&d, 0, false);
	start_tracker(&d, NULL);
	write_pages(d.mock, edges, ARRAY_SIZE(edges));
	check_round(true, edges, ARRAY_SIZE(edges));
	check_round(true, edges, ARRAY_SIZE(edges));
	/* The migration goes on after all. */
	check_round(false, edges, ARRAY_SIZE(edges));
	write_pages(d.mock, later, 1);
	check_round(false, later, 1);
	check_round(true, NULL, 0);
	close_device(&d);
	close_space();
}
END_TEST

START_TEST(tracking_ends_with_its_last_source_and_begins_clean)
{
	struct device d;

	open_machine();
	open_device(&d, 0, false);
	ck_assert_int_eq(mock_write(&mock, d.mock, 0, PAGE), -EINVAL);
	start_tracker(&d, NULL);
	write_pages(d.mock, edges, ARRAY_SIZE(edges));
	dirty_tracker_stop(tracker);
	ck_assert_int_eq(mock_write(&mock, d.mock, 0, PAGE), -EINVAL);
	OK(dirty_tracker_start(tracker, &err));
	check_round(false, NULL, 0);
	close_device(&d);
	close_space();
}
END_TEST

/* Of 2 MiB, for hugetlb: the host has none by itself. */
static void reserve_huge_pages(unsigned long count)
{
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", "w");

	ck_assert_ptr_nonnull(f);
	fprintf(f, "%lu\n", count);
	ck_assert_int_eq(fclose(f), 0);
}

START_TEST(of_a_large_page_of_the_iommu_all_is_dirty)
{
	static const uint64_t written[] = { 5 * PAGE, 3 * MOCK_HUGE_PAGE_SIZE, 8 * MIB - PAGE };
	struct device d;
	uint64_t whole[ARRAY_SIZE(written) * MOCK_HUGE_PAGE_SIZE / PAGE];
	unsigned int count = 0;

	reserve_huge_pages(4);
	open_space(true, false);
	make_memory(8 * MIB, 2 * MIB);
	OK(dma_space_map_memory(space, memory, &err));
	open_device(&d, 0, false);
	start_tracker(&d, NULL);
	write_pages(d.mock, written, ARRAY_SIZE(written));
	for (unsigned int i = 0; i < ARRAY_SIZE(written); i++)
		for (uint64_t at = 0; at < MOCK_HUGE_PAGE_SIZE; at += PAGE)
			whole[count++] =
				written[i] / MOCK_HUGE_PAGE_SIZE * MOCK_HUGE_PAGE_SIZE + at;
	check_round(true, whole, count);
	check_round(false, whole, count);
	check_round(false, NULL, 0);
	close_device(&d);
	close_space();
	reserve_huge_pages(0);
}
END_TEST

/* Loop index: whether the second device joins the page table of the first. */
START_TEST(pages_of_all_devices_are_told)
{
	static const uint64_t both[] = { 1 * PAGE, 1 * MIB, 2 * MIB };
	struct device a, b;

	open_machine();
	open_device(&a, 0, false);
	open_device(&b, 0, !_i);
	ck_assert(_i ? a.mock->pt == b.mock->pt : a.mock->pt != b.mock->pt);
	start_tracker(&a, &b);
	write_pages(a.mock, both, 2);
	write_pages(b.mock, both + 1, 2);
	check_round(false, both, 3);
	check_round(false, NULL, 0);
	/* The other goes on without the first. */
	close_device(&a);
	start_tracker(&b, NULL);
	write_pages(b.mock, both, 1);
	check_round(true, both, 1);
	close_device(&b);
	close_space();
}
END_TEST

/* Loop index: as above. */
START_TEST(device_plugged_in_meanwhile_is_tracked_at_once)
{
	static const uint64_t page[] = { HIGH + PAGE };
	struct device a, b;

	open_machine();
	open_device(&a, 0, false);
	start_tracker(&a, NULL);
	open_device(&b, 0, !_i);
	ck_assert(_i ? a.mock->pt == b.mock->pt : a.mock->pt != b.mock->pt);
	write_pages(b.mock, page, 1);
	check_round(false, page, 1);
	dirty_tracker_stop(tracker);
	ck_assert_int_eq(mock_write(&mock, b.mock, 0, PAGE), -EINVAL);
	close_device(&b);
	close_device(&a);
	close_space();
}
END_TEST

START_TEST(pages_of_a_range_that_goes_are_told_before)
{
	const struct guest_memory_region *low, *high;
	struct dirty_bitmap of_high, of_low;
	struct device d;

	open_machine();
	low = guest_memory_region(memory, 0);
	high = guest_memory_region(memory, 1);
	OK(dirty_bitmap_init(&of_low, low->size / PAGE, &err));
	OK(dirty_bitmap_init(&of_high, high->size / PAGE, &err));
	open_device(&d, 0, false);
	OK(space->ops->dirty_start(space, &err));
	write_pages(d.mock, edges, ARRAY_SIZE(edges));
	OK(space->ops->unmap(space, high->gpa, high->size, &of_high, &err));
	ck_assert_uint_eq(dirty_bitmap_count(&of_high), 3);
	ck_assert(dirty_bitmap_test(&of_high, 0) && dirty_bitmap_test(&of_high, 64) &&
		  dirty_bitmap_test(&of_high, REST / PAGE - 1));
	/* The others are as they were, and what comes there next is clean, and tracked. */
	OK(space->ops->dirty_collect(space, low->gpa, low->size, false, &of_low, &err));
	ck_assert_uint_eq(dirty_bitmap_count(&of_low), ARRAY_SIZE(edges) - 3);
	OK(space->ops->map(space, high->gpa, high->size, high->memfd, high->offset, high->hva, true,
			   &err));
	dirty_bitmap_clear(&of_high, 0, of_high.pages);
	OK(space->ops->dirty_collect(space, high->gpa, high->size, false, &of_high, &err));
	ck_assert_uint_eq(dirty_bitmap_count(&of_high), 0);
	ck_assert_int_eq(mock_write(&mock, d.mock, HIGH + PAGE, PAGE), 0);
	OK(space->ops->dirty_collect(space, high->gpa, high->size, true, &of_high, &err));
	ck_assert_uint_eq(dirty_bitmap_count(&of_high), 1);
	ck_assert(dirty_bitmap_test(&of_high, 1));
	space->ops->dirty_stop(space);
	dirty_bitmap_destroy(&of_low);
	dirty_bitmap_destroy(&of_high);
	close_device(&d);
	close_space();
}
END_TEST

/* As a live update has it, in one process: the old machine ends without a word. */
static void hand_over(struct device *d)
{
	struct dma_space *old = space;
	struct vfio_transport *t = d->t;
	struct kept kept = { 0 };

	d->source->ops->free(d->source);
	OK(old->ops->keep(old, &kept, &err));
	OK(t->ops->keep(t, &kept, "dev0", false, &err));
	space = dma_space_take_iommufd_with(&mock.kernel, &kept, NULL, &err);
	ck_assert_msg(space != NULL, "%s", err.message);
	d->t = vfio_transport_take_cdev(NULL, &kept, "dev0", space, NULL, &err);
	ck_assert_msg(d->t != NULL, "%s", err.message);
	mock.fd = dma_space_fd(space);
	d->mock->fd = d->t->fd;
	OK(space->ops->own(space, &err));
	kernel_space_of(old)->kept = true;
	t->ops->close(t);
	old->ops->free(old);
	kept_destroy(&kept);
	d->source = device_dirty_source(d->t, memory, DEVICE_DIRTY_AUTO, &err);
}

START_TEST(device_that_was_handed_over_is_tracked_in_its_old_page_table)
{
	struct device d;
	uint32_t pt;

	open_machine();
	open_device(&d, 0, false);
	pt = d.mock->pt;
	hand_over(&d);
	ck_assert_uint_eq(d.mock->pt, pt);
	start_tracker(&d, NULL);
	write_pages(d.mock, edges, ARRAY_SIZE(edges));
	check_round(false, edges, ARRAY_SIZE(edges));
	check_round(true, NULL, 0);
	close_device(&d);
	close_space();
}
END_TEST

/* The default page tables: as Ferry asks for them, and nothing at 0. */
static void open_narrow(void)
{
	const struct guest_memory_region *region;

	open_space(false, true);
	make_memory(NARROW_SIZE, 0);
	region = guest_memory_region(memory, 0);
	OK(space->ops->map(space, NARROW, region->size, region->memfd, region->offset, region->hva,
			   true, &err));
}

static void check_message(const char *text)
{
	ck_assert_msg(strstr(err.message, text) != NULL, "%s", err.message);
}

START_TEST(device_whose_iommu_cannot_is_named)
{
	struct dirty_bitmap bitmap;
	struct device able, unable;

	open_narrow();
	OK(dirty_bitmap_init(&bitmap, NARROW_SIZE / PAGE, &err));
	open_device(&able, 0, false);
	ck_assert_ptr_nonnull(able.source);
	OK(space->ops->dirty_start(space, &err));
	ck_assert_int_eq(mock_write(&mock, able.mock, NARROW + NARROW_SIZE - PAGE, PAGE), 0);
	OK(space->ops->dirty_collect(space, NARROW, NARROW_SIZE, false, &bitmap, &err));
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 1);
	ck_assert(dirty_bitmap_test(&bitmap, NARROW_SIZE / PAGE - 1));
	/* Plugged in while the log runs: what it writes is in no log. */
	open_device(&unable, MOCK_FLAGS_DEVICE_NO_DIRTY, false);
	ck_assert_ptr_null(unable.source);
	check_message(unable.t->name);
	check_message("its IOMMU tracks no dirty pages");
	ck_assert_uint_eq(unable.mock->pt, dma_space_ioas(space));
	error_clear(&err);
	ck_assert_int_eq(
		space->ops->dirty_collect(space, NARROW, NARROW_SIZE, false, &bitmap, &err),
		-EOPNOTSUPP);
	check_message(unable.t->name);
	space->ops->dirty_stop(space);
	error_clear(&err);
	ck_assert_int_eq(space->ops->dirty_start(space, &err), -EOPNOTSUPP);
	check_message(unable.t->name);
	ck_assert_int_eq(mock_write(&mock, able.mock, NARROW, PAGE), -EINVAL);
	OK(space->ops->dirty_able(space, able.t->name, &err));
	close_device(&unable);
	OK(space->ops->dirty_start(space, &err));
	space->ops->dirty_stop(space);
	close_device(&able);
	dirty_bitmap_destroy(&bitmap);
	close_space();
}
END_TEST

START_TEST(memory_that_the_iommu_cannot_reach_is_named)
{
	struct mock_device *refused;
	struct device d;

	open_space(false, true);
	make_memory(NARROW_SIZE, 0);
	OK(dma_space_map_memory(space, memory, &err));
	refused = mock_plug(&mock, 0);
	ck_assert_ptr_null(vfio_transport_open_cdev(NULL, refused->fd, space, NULL, &err));
	check_message("guest memory lies beyond what its IOMMU can address");
	vfio_kernel_close(&mock.kernel, refused->fd);
	OK(space->ops->unmap(space, 0, NARROW_SIZE, NULL, &err));
	open_device(&d, 0, false);
	error_clear(&err);
	ck_assert_int_eq(dma_space_map_memory(space, memory, &err), -EINVAL);
	check_message("it maps 0x1000000-0x7fffffff");
	close_device(&d);
	close_space();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("iommu_dirty");
	TCase *tc = tcase_create("mock");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, what_is_written_is_told_once_up_to_the_edges);
	tcase_add_test(tc, the_last_round_may_be_told_again);
	tcase_add_test(tc, tracking_ends_with_its_last_source_and_begins_clean);
	tcase_add_test(tc, of_a_large_page_of_the_iommu_all_is_dirty);
	tcase_add_loop_test(tc, pages_of_all_devices_are_told, 0, 2);
	tcase_add_loop_test(tc, device_plugged_in_meanwhile_is_tracked_at_once, 0, 2);
	tcase_add_test(tc, pages_of_a_range_that_goes_are_told_before);
	tcase_add_test(tc, device_that_was_handed_over_is_tracked_in_its_old_page_table);
	tcase_add_test(tc, device_whose_iommu_cannot_is_named);
	tcase_add_test(tc, memory_that_the_iommu_cannot_reach_is_named);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
