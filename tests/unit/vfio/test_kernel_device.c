/* SPDX-License-Identifier: Apache-2.0 */
/* What both kernel transports do with an open device: regions, interrupts, reset, features. */
#include <sys/mman.h>

#include "tests/unit/vfio/kernel_fixture.h"

static struct dma_space *space;
static struct vfio_transport *t;
static struct fake_device *dev;

static void setup(void)
{
	fixture_setup();
	space = open_iommufd();
	dev = &fake.devices[0];
	t = NULL;
}

static void teardown(void)
{
	fail_call(0);
	if (t)
		t->ops->close(t);
	space->ops->free(space);
	fixture_teardown();
}

static void make(void)
{
	t = open_cdev(space, PF);
}

/* Regions */

static struct vfio_region region(uint32_t index)
{
	struct error err = ERROR_INIT;
	struct vfio_region r;

	ck_assert_msg(!t->ops->region_info(t, index, &r, &err), "%s", err.message);
	return r;
}

START_TEST(region_without_capabilities_is_mapped_whole)
{
	struct vfio_region r;

	make();
	r = region(0);
	ck_assert(r.readable && r.writable && r.mappable && !r.msix_mappable);
	ck_assert_uint_eq(r.area_count, 1);
	ck_assert_uint_eq(r.areas[0].offset, 0);
	ck_assert_uint_eq(r.areas[0].size, r.size);
	ck_assert_int_eq(r.map_fd, -1);
	ck_assert_uint_eq(region(1).size, 0);
	ck_assert_uint_eq(region(VFIO_PCI_VGA_REGION_INDEX).size,
			  0); /* the driver knows none: absent */
	ck_assert_int_eq(t->ops->region_info(t, VFIO_PCI_NUM_REGIONS, &r, NULL), -EINVAL);
}
END_TEST

START_TEST(region_smaller_than_a_page_keeps_its_size)
{
	struct vfio_region r;

	dev->region_size = 256;
	make();
	r = region(0);
	ck_assert(r.mappable && r.area_count == 1 && r.areas[0].size == 256);
}
END_TEST

START_TEST(region_no_file_can_hold_is_refused)
{
	struct vfio_region r;
	struct error err = ERROR_INIT;

	make();
	dev->region_size = UINT64_MAX;
	ck_assert_int_eq(t->ops->region_info(t, 0, &r, &err), -EPROTO);
	check_message(&err, PF ": region 0 of 0xffffffffffffffff bytes");
	dev->region_size = 4096;
	dev->region_offset = INT64_MAX - 100;
	ck_assert_int_eq(t->ops->region_info(t, 0, &r, &err), -EPROTO);
}
END_TEST

/* Capabilities follow struct vfio_region_info, 32 bytes. */
#define CAPS 32

struct caps {
	struct vfio_region_info_cap_type type;
	struct vfio_info_cap_header msix;
	uint8_t sparse[sizeof(struct vfio_region_info_cap_sparse_mmap) +
		       80 * sizeof(struct vfio_region_sparse_mmap_area)];
};

static struct caps caps;

static void set_caps(const struct vfio_area *areas, uint32_t count, uint32_t claimed)
{
	struct vfio_region_info_cap_sparse_mmap sparse = {
		.header = { .id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1 },
		.nr_areas = claimed,
	};

	caps = (struct caps){
		.type = { .header = { .id = VFIO_REGION_INFO_CAP_TYPE,
				      .version = 1,
				      .next = CAPS + offsetof(struct caps, msix) },
			  .type = 0x80001234,
			  .subtype = 5 },
		.msix = { .id = VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
			  .version = 1,
			  .next = CAPS + offsetof(struct caps, sparse) },
	};
	memcpy(caps.sparse, &sparse, sizeof(sparse));
	memcpy(caps.sparse + sizeof(sparse), areas, count * sizeof(*areas));
	dev->caps = &caps;
	dev->caps_size =
		(uint32_t)(offsetof(struct caps, sparse) + sizeof(sparse) + count * sizeof(*areas));
}

START_TEST(capabilities_are_found_along_their_list)
{
	static const struct vfio_area areas[] = { { 0x4000, 0x2000 }, { 0, 0x1000 } };
	struct vfio_region r;

	set_caps(areas, 2, 2);
	make();
	r = region(0);
	ck_assert_uint_eq(r.type, 0x80001234);
	ck_assert_uint_eq(r.subtype, 5);
	ck_assert(r.msix_mappable && r.mappable);
	ck_assert_uint_eq(r.area_count, 2);
	ck_assert_uint_eq(r.areas[0].offset, 0);
	ck_assert_uint_eq(r.areas[1].offset, 0x4000);
	ck_assert_uint_eq(r.areas[1].size, 0x2000);
}
END_TEST

START_TEST(areas_are_cut_to_whole_pages_inside_the_region)
{
	static const struct vfio_area areas[] = {
		{ 0x800, 0x2000 },	 /* 0x1000-0x2000 */
		{ 0x1000, 0x1000 },	 /* overlaps it */
		{ 0x3100, 0x200 },	 /* no page */
		{ 0x5000, 0 },		 /* nothing */
		{ 0xf000, UINT64_MAX },	 /* to the end */
		{ UINT64_MAX - 10, 20 }, /* outside */
		{ 0x10000, 0x1000 },	 /* behind the end */
	};
	struct vfio_region r;

	set_caps(areas, ARRAY_SIZE(areas), ARRAY_SIZE(areas));
	make();
	r = region(0);
	ck_assert_uint_eq(r.area_count, 2);
	ck_assert_uint_eq(r.areas[0].offset, 0x1000);
	ck_assert_uint_eq(r.areas[0].size, 0x1000);
	ck_assert_uint_eq(r.areas[1].offset, 0xf000);
	ck_assert_uint_eq(r.areas[1].size, 0x1000);
}
END_TEST

START_TEST(more_areas_than_there_are_or_than_we_take_are_survived)
{
	static struct vfio_area areas[80];
	struct vfio_region r;

	for (unsigned int i = 0; i < 80; i++)
		areas[i] = (struct vfio_area){ i * 0x2000UL, 0x1000 };
	dev->region_size = 0x200000;
	make();
	set_caps(areas, 3, UINT32_MAX);
	ck_assert_uint_eq(region(0).area_count, 3);
	set_caps(areas, 80, 80);
	r = region(0);
	ck_assert_uint_eq(r.area_count, VFIO_SPARSE_AREAS_MAX);
	set_caps(areas, 0, 0);
	ck_assert(!region(0).mappable);
}
END_TEST

START_TEST(capability_list_with_a_loop_ends)
{
	static const struct vfio_area area = { 0, 0x1000 };

	set_caps(&area, 1, 1);
	caps.msix.next = CAPS;
	make();
	ck_assert_uint_eq(region(0).type, 0x80001234);
	ck_assert_uint_eq(region(0).area_count, 1); /* no sparse areas found: the whole */
	ck_assert_uint_eq(region(0).areas[0].size, dev->region_size);
	caps.msix.next = CAPS + offsetof(struct caps, msix);
	ck_assert_uint_eq(region(0).area_count, 1);
}
END_TEST

START_TEST(capability_outside_the_answer_ends_the_list)
{
	static const struct vfio_area area = { 0, 0x1000 };
	static const uint32_t outside[] = { 1, CAPS + sizeof(caps) - 3, 0x10000, UINT32_MAX,
					    UINT32_MAX - 7 };

	make();
	set_caps(&area, 1, 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(outside); i++) {
		dev->caps_offset = outside[i];
		region(0);
		dev->caps_offset = 0;
		caps.msix.next = outside[i];
		ck_assert_uint_eq(region(0).type, 0x80001234);
	}
	/* Capabilities the answer's end cuts. */
	set_caps(&area, 1, 1);
	for (; dev->caps_size; dev->caps_size--)
		region(0);
}
END_TEST

START_TEST(answer_larger_than_reason_is_refused)
{
	struct vfio_region r;
	struct error err = ERROR_INIT;

	make();
	dev->caps = &caps;
	dev->caps_size = 1U << 20;
	ck_assert_int_eq(t->ops->region_info(t, 0, &r, &err), -EMSGSIZE);
	check_message(&err, "VFIO_DEVICE_GET_REGION_INFO of region 0");
}
END_TEST

/* Accesses */

START_TEST(what_is_written_to_a_region_is_read_and_mapped)
{
	struct error err = ERROR_INIT;
	struct vfio_region r;
	uint64_t value = 0;
	void *p;

	make();
	r = region(0);
	ck_assert_int_eq(t->ops->region_write(t, &r, 0x1ff8, "register", 8, &err), 0);
	ck_assert_int_eq(t->ops->region_read(t, &r, 0x1ff8, &value, 8, &err), 0);
	ck_assert_mem_eq(&value, "register", 8);
	ck_assert_msg(!t->ops->region_map(t, &r, 0x1000, 0x1000, &p, &err), "%s", err.message);
	ck_assert_mem_eq((char *)p + 0xff8, "register", 8);
	munmap(p, 0x1000);
}
END_TEST

START_TEST(access_outside_a_region_reaches_no_kernel)
{
	static const struct vfio_area bad[] = {
		{ 0x10000, 1 }, { 0xffff, 2 }, { UINT64_MAX, 1 }, { 1, UINT64_MAX >> 1 }, { 0, 0 },
	};
	struct vfio_region r;
	unsigned int calls;
	char data[8];

	make();
	r = region(0);
	calls = fake.calls;
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		void *p;

		ck_assert_int_eq(t->ops->region_read(t, &r, bad[i].offset, data, bad[i].size, NULL),
				 -EINVAL);
		ck_assert_int_eq(
			t->ops->region_write(t, &r, bad[i].offset, data, bad[i].size, NULL),
			-EINVAL);
		ck_assert_int_eq(t->ops->region_map(t, &r, bad[i].offset, bad[i].size, &p, NULL),
				 -EINVAL);
	}
	r.readable = r.writable = false;
	ck_assert_int_eq(t->ops->region_read(t, &r, 0, data, 1, NULL), -EINVAL);
	ck_assert_int_eq(t->ops->region_write(t, &r, 0, data, 1, NULL), -EINVAL);
	ck_assert_uint_eq(fake.calls, calls);
}
END_TEST

START_TEST(only_areas_are_mapped)
{
	static const struct vfio_area areas[] = { { 0x1000, 0x1000 }, { 0x3000, 0x2000 } };
	struct vfio_region r;
	void *p;

	set_caps(areas, 2, 2);
	make();
	r = region(0);
	ck_assert_int_eq(t->ops->region_map(t, &r, 0, 0x1000, &p, NULL), -EINVAL);
	ck_assert_int_eq(t->ops->region_map(t, &r, 0x1000, 0x1001, &p, NULL), -EINVAL);
	ck_assert_int_eq(t->ops->region_map(t, &r, 0x3800, 0x800, &p, NULL), -EINVAL);
	ck_assert_int_eq(t->ops->region_map(t, &r, 0x4000, 0x1000, &p, NULL), 0);
	munmap(p, 0x1000);
}
END_TEST

START_TEST(short_access_is_an_error)
{
	struct error err = ERROR_INIT;
	struct vfio_region r;
	char data[8];

	make();
	r = region(0);
	dev->short_by = 1;
	ck_assert_int_eq(t->ops->region_read(t, &r, 16, data, 4, &err), -EIO);
	check_message(&err, PF ": read 4 bytes at 0x10 of region 0");
	ck_assert_int_eq(t->ops->region_write(t, &r, 16, data, 4, &err), -EIO);
	check_message(&err, PF ": write 4 bytes at 0x10 of region 0");
	/* A region larger than its driver backs. */
	dev->short_by = 0;
	dev->region_size = MIB;
	r = region(0);
	ck_assert_int_eq(t->ops->region_read(t, &r, MIB - 4, data, 4, &err), -EIO);
}
END_TEST

/* Interrupts, reset, features */

/* The kernel says so by a number of vectors where other calls have 0. */
START_TEST(fewer_vectors_than_asked_for_are_an_error)
{
	static const int fds[] = { 11, 12, 13 };
	struct error err = ERROR_INIT;

	make();
	fake.fail_code = -2;
	fail_call(1);
	ck_assert_int_eq(t->ops->set_irq_fds(t, VFIO_PCI_MSIX_IRQ_INDEX, 0, 3, fds, &err), -ENOSPC);
	check_message(&err, PF ": VFIO_DEVICE_SET_IRQS of vectors 0 to 3 of index 2");
	check_message(&err, "the host has only 2");
	fail_call(0);
	fake.fail_code = EIO;
}
END_TEST

START_TEST(eventfds_reach_their_vectors)
{
	static const int fds[] = { 11, -1, 13 };
	struct error err = ERROR_INIT;
	struct vfio_irq irq;

	make();
	ck_assert_int_eq(t->ops->irq_info(t, VFIO_PCI_MSIX_IRQ_INDEX, &irq, &err), 0);
	ck_assert(irq.count == 4 && irq.eventfd && irq.noresize && !irq.maskable &&
		  !irq.automasked);
	ck_assert_msg(!t->ops->set_irq_fds(t, VFIO_PCI_MSIX_IRQ_INDEX, 1, 3, fds, &err), "%s",
		      err.message);
	ck_assert_int_eq(dev->irq_fds[1], 11);
	ck_assert_int_eq(dev->irq_fds[2], -1);
	ck_assert_int_eq(dev->irq_fds[3], 13);
	ck_assert_int_eq(t->ops->set_irq_fds(t, VFIO_PCI_MSIX_IRQ_INDEX, 2, 3, fds, &err), -EINVAL);
	check_message(&err, PF ": VFIO_DEVICE_SET_IRQS of vectors 2 to 5 of index 2");
	ck_assert_int_eq(t->ops->set_irq_fds(t, VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL, &err), 0);
	ck_assert_uint_eq(dev->last_irq_flags,
			  VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER);
	ck_assert_int_eq(dev->irq_fds[1], -1);
	ck_assert_int_eq(t->ops->set_irq_fds(t, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, NULL, &err),
			 -EINVAL);
	ck_assert_int_eq(t->ops->set_irq_fds(t, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1U << 30, fds, &err),
			 -EINVAL);
}
END_TEST

START_TEST(intx_is_masked_unmasked_and_resampled)
{
	struct error err = ERROR_INIT;

	make();
	ck_assert_int_eq(t->ops->mask_irq(t, VFIO_PCI_INTX_IRQ_INDEX, true, &err), 0);
	ck_assert_uint_eq(dev->last_irq_flags, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK);
	ck_assert_int_eq(t->ops->mask_irq(t, VFIO_PCI_INTX_IRQ_INDEX, false, &err), 0);
	ck_assert_uint_eq(dev->last_irq_flags, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK);
	ck_assert_int_eq(t->ops->set_unmask_fd(t, VFIO_PCI_INTX_IRQ_INDEX, 42, &err), 0);
	ck_assert_int_eq(dev->unmask_fd, 42);
	ck_assert_int_eq(t->ops->set_unmask_fd(t, VFIO_PCI_INTX_IRQ_INDEX, -1, &err), 0);
	ck_assert_int_eq(dev->unmask_fd, -1);
}
END_TEST

START_TEST(interrupts_beyond_reason_are_refused)
{
	struct vfio_irq irq;

	make();
	ck_assert_int_eq(t->ops->irq_info(t, VFIO_PCI_ERR_IRQ_INDEX, &irq, NULL), 0);
	ck_assert_uint_eq(irq.count, 0);
	ck_assert_int_eq(t->ops->irq_info(t, VFIO_PCI_NUM_IRQS, &irq, NULL), -EINVAL);
	dev->vectors = 5000;
	ck_assert_int_eq(t->ops->irq_info(t, VFIO_PCI_MSIX_IRQ_INDEX, &irq, NULL), -EPROTO);
}
END_TEST

START_TEST(device_resets_itself_where_it_can)
{
	dev->affected = 1;
	make();
	ck_assert_int_eq(t->ops->reset(t, NULL), 0);
	ck_assert_uint_eq(dev->resets, 1);
	ck_assert_uint_eq(dev->hot_resets, 0);
}
END_TEST

START_TEST(bus_is_reset_where_the_device_is_alone_on_it)
{
	struct error err = ERROR_INIT;

	dev->info_flags = VFIO_DEVICE_FLAGS_PCI;
	dev->affected = (uint32_t)_i;
	make();
	ck_assert_int_eq(t->resettable, _i == 1);
	ck_assert_int_eq(t->ops->reset(t, &err), _i == 1 ? 0 : -EOPNOTSUPP);
	ck_assert_uint_eq(dev->hot_resets, _i == 1);
	if (_i != 1)
		check_message(&err, PF ": cannot be reset");
}
END_TEST

START_TEST(features_go_in_and_come_back)
{
	struct error err = ERROR_INIT;
	uint8_t data[3] = { 1, 2, 3 };

	make();
	dev->feature = 7;
	ck_assert_int_eq(t->ops->feature(t, VFIO_DEVICE_FEATURE_GET | 7, data, 3, &err), 3);
	ck_assert_mem_eq(data, "\2\3\4", 3);
	ck_assert_int_eq(t->ops->feature(t, VFIO_DEVICE_FEATURE_SET | 7, data, 3, &err), 0);
	ck_assert_mem_eq(data, "\3\4\5", 3);
	ck_assert_int_eq(t->ops->feature(t, VFIO_DEVICE_FEATURE_PROBE | 7, NULL, 0, &err), 0);
	ck_assert_int_eq(t->ops->feature(t, VFIO_DEVICE_FEATURE_GET | 8, data, 3, &err), -ENOTTY);
	check_message(&err, PF ": VFIO_DEVICE_FEATURE 8");
	ck_assert_int_eq(t->ops->feature(t, VFIO_DEVICE_FEATURE_GET | 7, data, SIZE_MAX, &err),
			 -EINVAL);
	dev->feature = VFIO_DEVICE_FEATURE_DMA_BUF;
	ck_assert_int_eq(t->ops->feature(t, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF,
					 data, 3, &err),
			 77);
}
END_TEST

START_TEST(each_operation_that_fails_has_its_own_message)
{
	static struct messages messages;
	struct vfio_region r, other;
	struct vfio_irq irq;
	struct error err = ERROR_INIT;
	int fd = 3;
	char data[4];
	void *p;

	make();
	r = region(0);
#define FAILS(call) \
	do { \
		fail_call(1); \
		ck_assert_int_eq(call, -EIO); \
		add_message(&messages, &err); \
	} while (0)
	FAILS(t->ops->region_info(t, 0, &other, &err));
	FAILS(t->ops->irq_info(t, 1, &irq, &err));
	FAILS(t->ops->region_read(t, &r, 0, data, 4, &err));
	FAILS(t->ops->region_write(t, &r, 0, data, 4, &err));
	FAILS(t->ops->region_map(t, &r, 0, 4096, &p, &err));
	FAILS(t->ops->set_irq_fds(t, 1, 0, 1, &fd, &err));
	FAILS(t->ops->mask_irq(t, 0, true, &err));
	FAILS(t->ops->mask_irq(t, 0, false, &err));
	FAILS(t->ops->set_unmask_fd(t, 0, fd, &err));
	FAILS(t->ops->reset(t, &err));
	FAILS(t->ops->feature(t, VFIO_DEVICE_FEATURE_GET | 7, data, 4, &err));
#undef FAILS
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernel_device");
	TCase *c = tcase_create("kernel_device");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, region_without_capabilities_is_mapped_whole);
	tcase_add_test(c, region_smaller_than_a_page_keeps_its_size);
	tcase_add_test(c, region_no_file_can_hold_is_refused);
	tcase_add_test(c, capabilities_are_found_along_their_list);
	tcase_add_test(c, areas_are_cut_to_whole_pages_inside_the_region);
	tcase_add_test(c, more_areas_than_there_are_or_than_we_take_are_survived);
	tcase_add_test(c, capability_list_with_a_loop_ends);
	tcase_add_test(c, capability_outside_the_answer_ends_the_list);
	tcase_add_test(c, answer_larger_than_reason_is_refused);
	tcase_add_test(c, what_is_written_to_a_region_is_read_and_mapped);
	tcase_add_test(c, access_outside_a_region_reaches_no_kernel);
	tcase_add_test(c, only_areas_are_mapped);
	tcase_add_test(c, short_access_is_an_error);
	tcase_add_test(c, fewer_vectors_than_asked_for_are_an_error);
	tcase_add_test(c, eventfds_reach_their_vectors);
	tcase_add_test(c, intx_is_masked_unmasked_and_resampled);
	tcase_add_test(c, interrupts_beyond_reason_are_refused);
	tcase_add_test(c, device_resets_itself_where_it_can);
	tcase_add_loop_test(c, bus_is_reset_where_the_device_is_alone_on_it, 0, 3);
	tcase_add_test(c, features_go_in_and_come_back);
	tcase_add_test(c, each_operation_that_fails_has_its_own_message);
	suite_add_tcase(s, c);
	return run_suite(s);
}
