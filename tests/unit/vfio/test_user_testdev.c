/* SPDX-License-Identifier: Apache-2.0 */
/* The vfio-user client against ferry-testdev, which is found beside this program's folder;
 * well-behaved, and in every way it can misbehave. */
#include <check.h>
#include <errno.h>
#include <linux/vfio.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vfio/testdev_client.h"

/* Where the server is meant not to answer. */
#define SHORT_TIMEOUT_MS 300

static void start_dma(uint64_t src, uint64_t dst, uint32_t len, uint32_t ctrl)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(b.t->ops->region_write(b.t, &bar0, TESTDEV_DMA_SRC, &src, 8, &err), 0);
	ck_assert_int_eq(b.t->ops->region_write(b.t, &bar0, TESTDEV_DMA_DST, &dst, 8, &err), 0);
	put(TESTDEV_DMA_LEN, len);
	put(TESTDEV_DMA_CTRL, TESTDEV_DMA_START | ctrl);
}

/* TESTDEV_DMA_DONE or _FAILED. */
static uint32_t run_dma(uint64_t src, uint64_t dst, uint32_t len, uint32_t ctrl)
{
	uint32_t status;

	start_dma(src, dst, len, ctrl);
	while ((status = get(TESTDEV_DMA_STATUS)) == TESTDEV_DMA_BUSY)
		;
	return status;
}

static bool signalled(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 5000) == 1 && eventfd_drain(fd);
}

START_TEST(device_is_described)
{
	struct vfio_irq irq;
	struct vfio_region region;
	uint8_t header[64];

	OPEN("--vectors=257");
	ck_assert(b.t->is_pci && b.t->resettable);
	ck_assert_str_eq(b.t->ops->name, "user");
	ck_assert_uint_eq(b.t->region_count, VFIO_PCI_NUM_REGIONS);
	ck_assert_uint_eq(bar0.size, TESTDEV_BAR0_SIZE);
	ck_assert(bar0.readable && bar0.writable && !bar0.mappable && bar0.map_fd == -1);
	ck_assert(bar2.mappable && bar2.map_fd >= 0);
	ck_assert_uint_eq(bar2.area_count, 2);
	ck_assert_uint_eq(bar2.areas[0].offset, TESTDEV_AREA0);
	ck_assert_uint_eq(bar2.areas[1].size, TESTDEV_AREA1_SIZE);
	ck_assert_int_eq(b.t->ops->region_info(b.t, 4, &region, &b.err), 0);
	ck_assert_uint_eq(region.size, 0);
	ck_assert_int_eq(b.t->ops->region_info(b.t, 9, &region, &b.err), -EINVAL);
	ck_assert_int_eq(b.t->ops->irq_info(b.t, VFIO_PCI_MSIX_IRQ_INDEX, &irq, &b.err), 0);
	ck_assert(irq.count == 257 && irq.eventfd && !irq.maskable);
	ck_assert_int_eq(b.t->ops->irq_info(b.t, VFIO_PCI_INTX_IRQ_INDEX, &irq, &b.err), 0);
	ck_assert(irq.count == 1 && irq.maskable && irq.automasked);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &config, 0, header, 64, &b.err), 0);
	ck_assert_uint_eq(load_le16(header), TESTDEV_VENDOR);
	ck_assert_uint_eq(load_le16(header + 2), TESTDEV_DEVICE);
	ck_assert_uint_eq(load_le32(header + 8) >> 8, TESTDEV_CLASS);
}
END_TEST

START_TEST(registers_hold_what_is_written)
{
	uint64_t wide = 0;

	open_good(NULL);
	ck_assert_uint_eq(get(TESTDEV_ID), TESTDEV_ID_VALUE);
	put(TESTDEV_SCRATCH, 0x12345678);
	ck_assert_uint_eq(get(TESTDEV_INVERSE), ~0x12345678U);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &bar0, TESTDEV_SCRATCH, &wide, 8, &b.err), 0);
	ck_assert_uint_eq(wide, (uint64_t)~0x12345678U << 32 | 0x12345678);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &bar0, TESTDEV_SCRATCH + 1, &wide, 1, &b.err),
			 0);
	ck_assert_uint_eq(wide & 0xff, 0x56);
}
END_TEST

START_TEST(access_outside_of_a_region_is_refused)
{
	uint64_t value;

	open_good(NULL);
	ck_assert_int_eq(
		b.t->ops->region_read(b.t, &bar0, TESTDEV_BAR0_SIZE - 4, &value, 8, &b.err),
		-EINVAL);
	ck_assert_int_eq(b.t->ops->region_write(b.t, &bar0, UINT64_MAX, &value, 4, &b.err),
			 -EINVAL);
	bench_says(b.err.message, "region 0 ends at");
	ck_assert_uint_eq(get(TESTDEV_ID), TESTDEV_ID_VALUE);
}
END_TEST

START_TEST(long_accesses_are_cut_to_what_the_server_takes)
{
	static uint8_t out[200000], in[200000];

	OPEN(_i == 0 ? "--max-data=24" : _i == 1 ? "--no-caps" : "--max-data=65537");
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7 + i / 256);
	ck_assert_int_eq(
		b.t->ops->region_write(b.t, &bar2, 3, out, sizeof(out) / (_i ? 1 : 50), &b.err), 0);
	ck_assert_int_eq(
		b.t->ops->region_read(b.t, &bar2, 3, in, sizeof(in) / (_i ? 1 : 50), &b.err), 0);
	ck_assert_mem_eq(in, out, sizeof(in) / (_i ? 1 : 50));
}
END_TEST

START_TEST(mapped_areas_are_the_servers_memory)
{
	void *p = NULL;
	uint32_t word = 0;

	open_good(NULL);
	ck_assert_msg(
		!b.t->ops->region_map(b.t, &bar2, TESTDEV_AREA0, TESTDEV_AREA0_SIZE, &p, &b.err),
		"%s", b.err.message);
	((uint32_t *)p)[1] = 40;
	((uint32_t *)p)[1023] = 2;
	ck_assert_uint_eq(get(TESTDEV_SHARED_SUM), 42);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &bar2, TESTDEV_AREA0 + 4, &word, 4, &b.err), 0);
	ck_assert_uint_eq(word, 40);
	munmap(p, TESTDEV_AREA0_SIZE);
	ck_assert_int_eq(
		b.t->ops->region_map(b.t, &bar2, TESTDEV_AREA1 + 0x1000, 0x1000, &p, &b.err), 0);
	munmap(p, 0x1000);
}
END_TEST

START_TEST(only_mappable_areas_are_mapped)
{
	static const struct vfio_area wrong[] = {
		{ 0, 0x1000 },
		{ 0, 0x2000 },
		{ TESTDEV_AREA0, TESTDEV_AREA0_SIZE + 0x1000 },
		{ TESTDEV_AREA1 + TESTDEV_AREA1_SIZE, 0x1000 },
		{ TESTDEV_AREA0, 0 },
		{ TESTDEV_AREA0, UINT64_MAX },
		{ UINT64_MAX - 0xfff, 0x1000 },
	};
	void *p;

	open_good(NULL);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		ck_assert_int_eq(b.t->ops->region_map(b.t, &bar2, wrong[i].offset, wrong[i].size,
						      &p, &b.err),
				 -EINVAL);
	ck_assert_int_eq(b.t->ops->region_map(b.t, &bar0, 0, 0x1000, &p, &b.err), -EINVAL);
	ck_assert_int_eq(atomic_load(&b.lost), 0);
}
END_TEST

START_TEST(msix_vectors_signal_their_eventfds)
{
	int fds[20];

	OPEN("--vectors=32", "--max-fds=3");
	for (int i = 0; i < 20; i++)
		fds[i] = i % 7 == 5 ? -1 : eventfd_new();
	ck_assert_msg(!b.t->ops->set_irq_fds(b.t, VFIO_PCI_MSIX_IRQ_INDEX, 2, 20, fds, &b.err),
		      "%s", b.err.message);
	for (uint32_t i = 0; i < 20; i++) {
		put(TESTDEV_IRQ_TRIGGER, i + 2);
		if (fds[i] >= 0)
			ck_assert(signalled(fds[i]));
	}
	/* One is taken off, then all. */
	ck_assert_int_eq(
		b.t->ops->set_irq_fds(b.t, VFIO_PCI_MSIX_IRQ_INDEX, 2, 1, (int[]){ -1 }, &b.err),
		0);
	put(TESTDEV_IRQ_TRIGGER, 2);
	ck_assert(!eventfd_drain(fds[0]));
	ck_assert_int_eq(b.t->ops->set_irq_fds(b.t, VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL, &b.err),
			 0);
	put(TESTDEV_IRQ_TRIGGER, 3);
	ck_assert(!eventfd_drain(fds[1]));
	ck_assert_int_eq(b.t->ops->set_irq_fds(b.t, VFIO_PCI_MSIX_IRQ_INDEX, 30, 5, fds, &b.err),
			 -EINVAL);
	bench_says(b.err.message, "DEVICE_SET_IRQS");
	for (int i = 0; i < 20; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}
END_TEST

START_TEST(intx_is_masked_until_the_resample_eventfd_is_signalled)
{
	int fd = eventfd_new(), resample = eventfd_new();

	open_good(NULL);
	ck_assert_int_eq(b.t->ops->set_irq_fds(b.t, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &fd, &b.err), 0);
	ck_assert_int_eq(b.t->ops->set_unmask_fd(b.t, VFIO_PCI_INTX_IRQ_INDEX, resample, &b.err),
			 0);
	put(TESTDEV_IRQ_TRIGGER, 0);
	ck_assert(signalled(fd));
	put(TESTDEV_IRQ_TRIGGER, 0);
	ck_assert(!eventfd_drain(fd)); /* still masked */
	eventfd_signal(resample);
	ck_assert(signalled(fd)); /* still pending */
	put(TESTDEV_IRQ_ACK, ~0U);
	eventfd_signal(resample);
	bench_settle(&b);
	ck_assert_uint_eq(get(TESTDEV_IRQ_STATUS), 0);
	ck_assert(!eventfd_drain(fd));
	ck_assert_int_eq(b.t->ops->mask_irq(b.t, VFIO_PCI_INTX_IRQ_INDEX, true, &b.err), 0);
	put(TESTDEV_IRQ_TRIGGER, 0);
	ck_assert(!eventfd_drain(fd));
	ck_assert_int_eq(b.t->ops->mask_irq(b.t, VFIO_PCI_INTX_IRQ_INDEX, false, &b.err), 0);
	ck_assert(signalled(fd));
	ck_assert_int_eq(b.t->ops->set_unmask_fd(b.t, VFIO_PCI_INTX_IRQ_INDEX, -1, &b.err), 0);
	close(fd);
	close(resample);
}
END_TEST

START_TEST(server_without_descriptors_cannot_interrupt_and_works_by_messages)
{
	int fd = eventfd_new();
	struct vfio_ioeventfd io;

	OPEN("--max-fds=0", "--dma=messages");
	ck_assert_int_eq(b.t->ops->set_irq_fds(b.t, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &fd, &b.err),
			 -EOPNOTSUPP);
	ck_assert_int_eq(b.t->ops->region_ioeventfds(b.t, &bar0, &io, 1, &b.err), 1);
	memset(guest_memory_ptr(b.memory, 0x1000, 16), 0x5a, 16);
	ck_assert_uint_eq(run_dma(0x1000, 0x3000, 16, 0), TESTDEV_DMA_DONE);
	ck_assert_mem_eq(guest_memory_ptr(b.memory, 0x3000, 16),
			 guest_memory_ptr(b.memory, 0x1000, 16), 16);
	close(fd);
}
END_TEST

START_TEST(doorbell_is_an_eventfd)
{
	struct vfio_ioeventfd io[4];
	int fd = eventfd_new();

	open_good(NULL);
	ck_assert_int_eq(b.t->ops->region_ioeventfds(b.t, &bar0, io, 4, &b.err), 1);
	ck_assert(io[0].offset == TESTDEV_DOORBELL && io[0].size == 4 && !io[0].match);
	ck_assert_int_eq(b.t->ops->region_ioeventfds(b.t, &bar0, io, 0, &b.err), 0);
	ck_assert_int_eq(b.t->ops->region_ioeventfds(b.t, &config, io, 4, &b.err), 0);
	ck_assert_int_eq(b.t->ops->set_irq_fds(b.t, VFIO_PCI_MSIX_IRQ_INDEX, 2, 1, &fd, &b.err), 0);
	put(TESTDEV_DOORBELL_IRQ, 1);
	eventfd_signal(io[0].fd);
	ck_assert(signalled(fd));
	ck_assert_uint_eq(get(TESTDEV_DOORBELL_COUNT), 1);
	put(TESTDEV_DOORBELL, 1); /* trapped, it does the same */
	ck_assert(signalled(fd));
	close(fd);
}
END_TEST

START_TEST(reset_reaches_the_device)
{
	open_good(NULL);
	put(TESTDEV_SCRATCH, 1);
	ck_assert_int_eq(b.t->ops->reset(b.t, &b.err), 0);
	ck_assert_uint_eq(get(TESTDEV_SCRATCH), 0);
	ck_assert_uint_eq(get(TESTDEV_RESET_COUNT), 1);
}
END_TEST

START_TEST(what_another_client_left_is_gone_before_there_is_memory_to_reach)
{
	b.options.keep_state = false;
	open_good(NULL);
	ck_assert_uint_eq(get(TESTDEV_RESET_COUNT), 1);
	bench_done(&b);
	reap_server();

	/* VERSION, GET_INFO, RESET, before the first DMA_MAP. */
	bench_init(&b);
	b.options.keep_state = false;
	ck_assert_ptr_null(
		open_with(TIMEOUT_MS, (const char *const[]){ "--misbehave=die@3", NULL }));
	bench_says(b.err.message, "DEVICE_RESET");
}
END_TEST

static const char *const dma_modes[] = { "--dma=direct", "--dma=messages" };
static const uint32_t dma_ctrl[] = { 0, TESTDEV_DMA_SYNC };

START_TEST(dma_copies_guest_memory)
{
	/* From the region below the hole to the one above, and long. */
	uint64_t src = 0x10100, dst = 4 * GIB + 0x20200, len = 0x150000;
	uint8_t *from = guest_memory_ptr(b.memory, src, len);
	int fd = eventfd_new();

	OPEN(dma_modes[_i & 1]);
	for (size_t i = 0; i < len; i++)
		from[i] = (uint8_t)(i * 13 + i / 251);
	ck_assert_int_eq(b.t->ops->set_irq_fds(b.t, VFIO_PCI_MSIX_IRQ_INDEX, 5, 1, &fd, &b.err), 0);
	start_dma(src, dst, (uint32_t)len,
		  TESTDEV_DMA_IRQ | 5 << TESTDEV_DMA_VECTOR_SHIFT | dma_ctrl[_i >> 1]);
	ck_assert(signalled(fd)); /* served by the loop where nobody waits */
	ck_assert_uint_eq(get(TESTDEV_DMA_STATUS), TESTDEV_DMA_DONE);
	ck_assert_mem_eq(guest_memory_ptr(b.memory, dst, len), from, len);
	close(fd);
}
END_TEST

START_TEST(dma_outside_of_memory_fails_and_harms_nothing)
{
	static const uint64_t outside[] = { BENCH_RAM / 2 - 4, 3 * GIB, 4 * GIB - 1,
					    4 * GIB + BENCH_RAM / 2 - 1, UINT64_MAX - 3 };

	OPEN(dma_modes[_i & 1]);
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		ck_assert_uint_eq(run_dma(outside[i], 0x1000, 64, dma_ctrl[_i >> 1]),
				  TESTDEV_DMA_FAILED);
		ck_assert_uint_eq(get(TESTDEV_DMA_ERROR), EFAULT);
		ck_assert_uint_eq(run_dma(0x1000, outside[i], 64, dma_ctrl[_i >> 1]),
				  TESTDEV_DMA_FAILED);
	}
	ck_assert_uint_eq(run_dma(0x1000, 0x2000, 64, 0), TESTDEV_DMA_DONE);
	ck_assert_int_eq(atomic_load(&b.lost), 0);
}
END_TEST

static unsigned int dirty_pages(struct dirty_source *source, unsigned int region,
				struct dirty_bitmap *bitmap)
{
	const struct guest_memory_region *r = guest_memory_region(b.memory, region);

	dirty_bitmap_clear(bitmap, 0, bitmap->pages);
	ck_assert_int_eq(source->ops->collect(source, r, bitmap, &b.err), 0);
	return (unsigned int)dirty_bitmap_count(bitmap);
}

START_TEST(dma_by_messages_marks_pages_dirty)
{
	struct dirty_source *source = guest_memory_dirty_source(b.memory, &b.err);
	struct dirty_bitmap bitmap;

	OPEN("--dma=messages");
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, BENCH_RAM / 2 / GUEST_PAGE_SIZE, &b.err), 0);
	ck_assert_int_eq(source->ops->start(source, &b.err), 0);
	ck_assert_uint_eq(run_dma(0x5000, 0x1ffe, 4, 0), TESTDEV_DMA_DONE);
	ck_assert_uint_eq(dirty_pages(source, 0, &bitmap), 2);
	ck_assert(dirty_bitmap_test(&bitmap, 1) && dirty_bitmap_test(&bitmap, 2));
	source->ops->free(source);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(memory_that_was_unmapped_is_out_of_reach)
{
	const struct guest_memory_region *high = guest_memory_region(b.memory, 1);
	struct dma_space *space;

	OPEN(dma_modes[_i]);
	space = b.t->space;
	ck_assert_uint_eq(run_dma(high->gpa, 0, 8, 0), TESTDEV_DMA_DONE);
	ck_assert_int_eq(space->ops->unmap(space, high->gpa, high->size - 4096, NULL, &b.err),
			 -ENOENT);
	ck_assert_int_eq(space->ops->unmap(space, high->gpa, high->size, NULL, &b.err), 0);
	ck_assert_uint_eq(run_dma(high->gpa, 0, 8, 0), TESTDEV_DMA_FAILED);
	/* And back, read-only. */
	ck_assert_int_eq(space->ops->map(space, high->gpa, high->size, high->memfd, high->offset,
					 high->hva, false, &b.err),
			 0);
	ck_assert_uint_eq(run_dma(high->gpa, 0, 8, 0), TESTDEV_DMA_DONE);
	ck_assert_uint_eq(run_dma(0, high->gpa, 8, 0), TESTDEV_DMA_FAILED);
	ck_assert_uint_eq(get(TESTDEV_DMA_ERROR), EACCES);
}
END_TEST

START_TEST(mappings_are_checked)
{
	const struct guest_memory_region *low = guest_memory_region(b.memory, 0);
	struct dma_space *space;
	struct dma_range range;

	open_good(NULL);
	space = b.t->space;
	ck_assert_int_eq(
		space->ops->map(space, 0x1000, 0x1000, low->memfd, 0, low->hva, true, &b.err),
		-EEXIST);
	ck_assert_int_eq(space->ops->map(space, 3 * GIB, 0, low->memfd, 0, low->hva, true, &b.err),
			 -EINVAL);
	ck_assert_int_eq(
		space->ops->map(space, 3 * GIB, 0x800, low->memfd, 0, low->hva, true, &b.err),
		-EINVAL);
	bench_says(b.err.message, "multiples of 0x1000");
	ck_assert_int_eq(space->ops->map(space, UINT64_MAX - 0xfff, 0x2000, low->memfd, 0, low->hva,
					 true, &b.err),
			 -EINVAL);
	/* The server says no, and we forget it again. */
	ck_assert_int_eq(
		space->ops->map(space, 3 * GIB, 0x1000, low->memfd, 1, low->hva, true, &b.err),
		-EINVAL);
	bench_says(b.err.message, "DMA_MAP");
	ck_assert_int_eq(
		space->ops->map(space, 3 * GIB, 0x1000, low->memfd, 0, low->hva, true, &b.err), 0);
	ck_assert_int_eq(space->ops->iova_ranges(space, &range, 1, &b.err), 1);
	ck_assert(range.start == 0 && range.last == UINT64_MAX);
}
END_TEST

START_TEST(older_page_log_reports_dma)
{
	const struct guest_memory_region *low = guest_memory_region(b.memory, 0);
	struct dma_space *space;
	struct dirty_bitmap bitmap;

	OPEN("--dirty=pages");
	space = b.t->space;
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, low->size / GUEST_PAGE_SIZE, &b.err), 0);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, low->size, false, &bitmap, &b.err),
			 -EINVAL);
	ck_assert_int_eq(space->ops->dirty_start(space, &b.err), 0);
	ck_assert_uint_eq(run_dma(0, 0x3000, 0x2001, 0), TESTDEV_DMA_DONE);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, low->size, false, &bitmap, &b.err), 0);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 3);
	ck_assert(dirty_bitmap_test(&bitmap, 3) && dirty_bitmap_test(&bitmap, 5));
	dirty_bitmap_clear(&bitmap, 0, bitmap.pages);
	ck_assert_int_eq(space->ops->dirty_collect(space, 0, low->size, false, &bitmap, &b.err), 0);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 0);
	/* What was written last comes with the unmapping. */
	ck_assert_uint_eq(run_dma(0, low->size - 8, 8, 0), TESTDEV_DMA_DONE);
	ck_assert_int_eq(space->ops->unmap(space, 0, low->size, &bitmap, &b.err), 0);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 1);
	ck_assert(dirty_bitmap_test(&bitmap, bitmap.pages - 1));
	space->ops->dirty_stop(space);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(unmapping_without_a_log_counts_all_as_dirty)
{
	const struct guest_memory_region *low = guest_memory_region(b.memory, 0);
	struct dma_space *space;
	struct dirty_bitmap bitmap;

	open_good(NULL);
	space = b.t->space;
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, low->size / GUEST_PAGE_SIZE, &b.err), 0);
	ck_assert_int_eq(space->ops->dirty_start(space, &b.err), -EOPNOTSUPP);
	bench_says(b.err.message, "does not log");
	ck_assert_int_eq(space->ops->unmap(space, 0, low->size, &bitmap, &b.err), 0);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), bitmap.pages);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(dma_logging_features_take_the_kernels_structures)
{
	struct vfio_device_feature_dma_logging_range range = { 0, BENCH_RAM / 2 };
	struct vfio_device_feature_dma_logging_control control = {
		.page_size = 8192,
		.num_ranges = 1,
		.ranges = (uintptr_t)&range,
	};
	uint64_t bits[8] = { 0 };
	struct vfio_device_feature_dma_logging_report report = {
		.iova = 0x10000,
		.length = 0x100000,
		.page_size = 4096,
		.bitmap = (uintptr_t)bits,
	};

	OPEN("--dirty=log");
	ck_assert_int_eq(b.t->ops->feature(b.t,
					   VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET |
						   VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
					   NULL, 0, &b.err),
			 0);
	ck_assert_int_eq(
		b.t->ops->feature(b.t,
				  VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
				  &control, sizeof(control), &b.err),
		0);
	ck_assert_uint_eq(control.page_size, 4096);
	ck_assert_uint_eq(run_dma(0, 0x12000, 0x1001, 0), TESTDEV_DMA_DONE);
	bits[0] = 1; /* kept: bits are added */
	ck_assert_int_eq(
		b.t->ops->feature(b.t,
				  VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
				  &report, sizeof(report), &b.err),
		0);
	ck_assert_uint_eq(bits[0], 0xd);
	ck_assert_int_eq(
		b.t->ops->feature(b.t,
				  VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
				  NULL, 0, &b.err),
		0);
}
END_TEST

START_TEST(feature_the_device_lacks_is_enotty)
{
	uint64_t flags = 0;

	open_good(NULL);
	ck_assert_int_eq(b.t->ops->feature(b.t,
					   VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION,
					   &flags, 8, &b.err),
			 -ENOTTY);
	ck_assert_int_eq(b.t->ops->feature(b.t,
					   VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET |
						   VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
					   NULL, 0, &b.err),
			 -ENOTTY);
	ck_assert_uint_eq(get(TESTDEV_ID), TESTDEV_ID_VALUE);
}
END_TEST

struct hammer {
	uint32_t reg;
	int failures;
};

static void *hammer(void *opaque)
{
	struct hammer *h = opaque;
	struct error err = ERROR_INIT;

	for (uint32_t i = 0; i < 300; i++) {
		uint32_t value = i << 8 | h->reg, back = 0;

		if (b.t->ops->region_write(b.t, &bar2, h->reg, &value, 4, &err) ||
		    b.t->ops->region_read(b.t, &bar2, h->reg, &back, 4, &err) || back != value)
			h->failures++;
	}
	return NULL;
}

START_TEST(threads_call_at_once_while_the_server_does_dma_by_messages)
{
	struct hammer h[4] = { { 0x10, 0 }, { 0x20, 0 }, { 0x30, 0 }, { 0x40, 0 } };
	pthread_t threads[4];

	OPEN("--dma=messages");
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, hammer, &h[i]);
	for (int i = 0; i < 50; i++)
		ck_assert_uint_eq(run_dma(0x1000, 0x100000, 0x30000, dma_ctrl[i & 1]),
				  TESTDEV_DMA_DONE);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		ck_assert_int_eq(h[i].failures, 0);
	}
}
END_TEST

struct from_loop {
	uint32_t id;
	int result;
};

static void read_in_loop(void *opaque)
{
	struct from_loop *f = opaque;

	f->result = b.t->ops->region_read(b.t, &bar0, TESTDEV_ID, &f->id, 4, NULL);
}

START_TEST(loop_itself_may_call)
{
	struct from_loop f = { 0 };

	OPEN("--dma=messages");
	for (int i = 0; i < 50; i++) {
		loop_call(b.options.loop, read_in_loop, &f);
		ck_assert_int_eq(f.result, 0);
		ck_assert_uint_eq(f.id, TESTDEV_ID_VALUE);
	}
}
END_TEST

START_TEST(server_that_dies_is_told_once_and_ends_every_call)
{
	uint32_t value;
	int fd = eventfd_new();

	open_good(NULL);
	stuck = true;
	reap_server();
	ck_assert(bench_wait_lost(&b));
	bench_says(b.reason, "closed the connection");
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(b.t->ops->region_read(b.t, &bar0, 0, &value, 4, &b.err),
				 -ECONNRESET);
		bench_says(b.err.message, "test.sock");
		bench_says(b.err.message, "closed the connection");
		ck_assert_int_eq(b.t->ops->region_write(b.t, &bar0, 0, &value, 4, NULL),
				 -ECONNRESET);
		ck_assert_int_eq(b.t->ops->set_irq_fds(b.t, 2, 0, 1, &fd, &b.err), -ECONNRESET);
		ck_assert_int_eq(b.t->ops->mask_irq(b.t, 0, true, &b.err), -ECONNRESET);
		ck_assert_int_eq(b.t->ops->reset(b.t, &b.err), -ECONNRESET);
		ck_assert_int_eq(b.t->ops->feature(b.t, 1, NULL, 0, &b.err), -ECONNRESET);
	}
	bench_settle(&b);
	ck_assert_int_eq(atomic_load(&b.lost), 1);
	close(fd);
}
END_TEST

/* Opens, asks for all there is to ask, uses it: the first error. */
static int exercise(void)
{
	struct vfio_region region;
	struct vfio_irq irq;
	struct vfio_ioeventfd io[4];
	uint64_t value = 0;
	void *p;
	int r = 0, fd;

	for (uint32_t i = 0; i < b.t->region_count && !r; i++) {
		r = b.t->ops->region_info(b.t, i, &region, &b.err);
		if (!r && region.size)
			r = MIN(0, b.t->ops->region_ioeventfds(b.t, &region, io, 4, &b.err));
		if (!r && region.area_count) {
			r = b.t->ops->region_map(b.t, &region, region.areas[1].offset,
						 region.areas[1].size, &p, &b.err);
			if (!r)
				munmap(p, region.areas[1].size);
		}
		if (i == 0)
			bar0 = region;
	}
	for (uint32_t i = 0; i < b.t->irq_count && !r; i++)
		r = b.t->ops->irq_info(b.t, i, &irq, &b.err);
	if (!r)
		r = b.t->ops->region_read(b.t, &bar0, TESTDEV_ID, &value, 8, &b.err);
	fd = eventfd_new();
	if (!r)
		r = b.t->ops->set_irq_fds(b.t, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &fd, &b.err);
	close(fd);
	if (!r)
		r = b.t->ops->region_write(b.t, &bar0, TESTDEV_SCRATCH, &value, 8, &b.err);
	if (!r)
		r = b.t->ops->reset(b.t, &b.err);
	return r;
}

static const struct {
	const char *how, *says;
} faults[] = {
	{ "short-reply", "are needed" },
	{ "short-reply@2", "DEVICE_GET_INFO has 3 bytes" },
	{ "short-data", "8 bytes at 0x0 of region 0" },
	{ "long-reply", "were asked for" },
	{ "long-reply@3", "reply to DMA_MAP has 64 bytes, 0 were asked for" },
	{ "long-reply@5", "were asked for" },
	{ "huge-size", "of 4294967280 bytes" },
	{ "tiny-size", "of 8 bytes" },
	{ "wrong-id", "that nobody sent" },
	{ "wrong-id@7", "that nobody sent" },
	{ "wrong-command", "the server replied to VERSION with DMA_MAP" },
	{ "wrong-type", "unknown type 5" },
	{ "error-replies", "refused VERSION: Input/output error" },
	{ "error-replies@5", "refused DEVICE_GET_REGION_INFO: Input/output error" },
	{ "error-data", "carries 32 bytes" },
	{ "extra-fds", "carries 5 descriptors, at most 0" },
	{ "extra-fds@5", "at most 1 belong there" },
	{ "die", "closed the connection" },
	{ "die-in-reply", "closed the connection" },
	{ "die-in-reply@8", "closed the connection" },
	{ "reply-to-nothing", "that nobody sent" },
	{ "unknown-command", "the command 99" },
	{ "command-fds", "descriptors with DMA_READ" },
	{ "dma-lie", "makes no sense" },
	{ "bad-version", "speaks version 7.0" },
	{ "bad-json", "no JSON object" },
	{ "bad-caps", "max_msg_fds is no number" },
	{ "not-pci", "no PCI device" },
	{ "many-regions", "100000 regions" },
	{ "many-irqs", "100000 of index" },
	{ "huge-region", "region 0: too large" },
	{ "wrong-region", "about another one" },
	{ "cap-loop", "has a loop" },
	{ "cap-outside", "lies outside of the reply" },
	{ "area-outside", "outside of the region" },
	{ "areas-overlap", "areas overlap" },
	{ "areas-many", "too many mappable areas" },
	{ "short-file", "0x2000 bytes" },
	{ "io-fd-index", "names a descriptor that did not come" },
	{ "io-fd-outside", "lies outside of the region" },
};

static void misbehave(const char *how, unsigned int timeout_ms, const char *says)
{
	char option[64];
	int r = -1;

	snprintf(option, sizeof(option), "--misbehave=%s", how);
	if (open_with(timeout_ms, (const char *const[]){ option, NULL }))
		r = exercise();
	else
		ck_assert_int_lt(b.err.code, 0);
	ck_assert_msg(r < 0, "%s: no error", option);
	bench_says(b.err.message, says);
	bench_says(b.err.message, "test.sock");
	/* Lost and told; or refused by the server, and going on. */
	if (b.t && r == -ECONNRESET)
		ck_assert(bench_wait_lost(&b));
	ck_assert_int_eq(atomic_load(&b.lost), b.t && r == -ECONNRESET);
}

START_TEST(misbehaviour_is_an_error_that_names_it)
{
	misbehave(faults[_i].how, TIMEOUT_MS, faults[_i].says);
}
END_TEST

static const char *const silent[] = { "hang", "hang-at=9", "wrong-size", "wrong-size@6", "flood" };

START_TEST(silence_ends_in_a_timeout)
{
	stuck = true;
	misbehave(silent[_i], SHORT_TIMEOUT_MS, "300 ms");
}
END_TEST

static const char *const harmless[] = { "dma-outside", "dma-huge", "trickle", "dma-outside@9" };

START_TEST(some_misbehaviour_is_harmless)
{
	char option[64];

	snprintf(option, sizeof(option), "--misbehave=%s", harmless[_i]);
	ck_assert_msg(open_with(TIMEOUT_MS, (const char *const[]){ option, NULL }) != NULL, "%s",
		      b.err.message);
	ck_assert_msg(!exercise(), "%s", b.err.message);
	ck_assert_int_eq(atomic_load(&b.lost), 0);
}
END_TEST

/* exercise() is about thirty commands. */
START_TEST(server_may_die_at_every_message)
{
	char option[64];
	int r = -ECONNRESET;

	snprintf(option, sizeof(option), "--misbehave=%s@%d", _i & 1 ? "die" : "die-in-reply",
		 _i / 2 + 1);
	if (open_with(TIMEOUT_MS, (const char *const[]){ option, NULL })) {
		r = exercise();
		ck_assert_int_eq(r, -ECONNRESET);
		ck_assert(bench_wait_lost(&b));
	}
	bench_says(b.err.message, "closed the connection");
}
END_TEST

START_TEST(socket_by_its_path)
{
	char dir[] = "/tmp/ferry-testdev.XXXXXX", path[64], option[96];
	const char *argv[] = { testdev_path(), option, "--once", NULL };
	char line[128] = "";
	int out[2];
	FILE *f;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	snprintf(option, sizeof(option), "--socket=%s", path);
	ck_assert_int_eq(pipe(out), 0);
	b.options.socket = path;
	ck_assert_ptr_null(vfio_transport_open_user(&b.options, &b.err));
	ck_assert_int_eq(b.err.code, -ENOENT);
	bench_says(b.err.message, path);
	bench_says(b.err.message, "is the server running");
	server = fork();
	if (!server) {
		dup2(out[1], 1);
		execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	close(out[1]);
	f = fdopen(out[0], "r");
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), f)); /* it listens */
	fclose(f);
	b.t = vfio_transport_open_user(&b.options, &b.err);
	ck_assert_msg(b.t != NULL, "%s", b.err.message);
	ck_assert_int_eq(b.t->ops->region_info(b.t, 0, &bar0, &b.err), 0);
	ck_assert_uint_eq(get(TESTDEV_ID), TESTDEV_ID_VALUE);
	b.t->ops->close(b.t);
	b.t = NULL;
	ck_assert_int_eq(waitpid(server, NULL, 0), server); /* gone with its client */
	server = 0;
	ck_assert_int_ne(access(path, F_OK), 0);
	rmdir(dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vfio-user and ferry-testdev");
	TCase *tc = tcase_create("device");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, device_is_described);
	tcase_add_test(tc, registers_hold_what_is_written);
	tcase_add_test(tc, access_outside_of_a_region_is_refused);
	tcase_add_loop_test(tc, long_accesses_are_cut_to_what_the_server_takes, 0, 3);
	tcase_add_test(tc, mapped_areas_are_the_servers_memory);
	tcase_add_test(tc, only_mappable_areas_are_mapped);
	tcase_add_test(tc, msix_vectors_signal_their_eventfds);
	tcase_add_test(tc, intx_is_masked_until_the_resample_eventfd_is_signalled);
	tcase_add_test(tc, server_without_descriptors_cannot_interrupt_and_works_by_messages);
	tcase_add_test(tc, doorbell_is_an_eventfd);
	tcase_add_test(tc, reset_reaches_the_device);
	tcase_add_test(tc, what_another_client_left_is_gone_before_there_is_memory_to_reach);
	tcase_add_loop_test(tc, dma_copies_guest_memory, 0, 4);
	tcase_add_loop_test(tc, dma_outside_of_memory_fails_and_harms_nothing, 0, 4);
	tcase_add_test(tc, dma_by_messages_marks_pages_dirty);
	tcase_add_loop_test(tc, memory_that_was_unmapped_is_out_of_reach, 0, 2);
	tcase_add_test(tc, mappings_are_checked);
	tcase_add_test(tc, older_page_log_reports_dma);
	tcase_add_test(tc, unmapping_without_a_log_counts_all_as_dirty);
	tcase_add_test(tc, dma_logging_features_take_the_kernels_structures);
	tcase_add_test(tc, feature_the_device_lacks_is_enotty);
	tcase_add_test(tc, threads_call_at_once_while_the_server_does_dma_by_messages);
	tcase_add_test(tc, loop_itself_may_call);
	tcase_add_test(tc, server_that_dies_is_told_once_and_ends_every_call);
	tcase_add_loop_test(tc, misbehaviour_is_an_error_that_names_it, 0, ARRAY_SIZE(faults));
	tcase_add_loop_test(tc, silence_ends_in_a_timeout, 0, ARRAY_SIZE(silent));
	tcase_add_loop_test(tc, some_misbehaviour_is_harmless, 0, ARRAY_SIZE(harmless));
	tcase_add_loop_test(tc, server_may_die_at_every_message, 0, 40);
	tcase_add_test(tc, socket_by_its_path);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
