/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty-collect - what it costs to collect what a device wrote: prints the median, in ms
 *
 * Of 64 GiB of IOVA, by the device's log (a fake that fills the bitmap as fast as memory
 * allows: one page in 64 and, here and there, a run of 2 MiB), merged into the bitmap of a
 * round, as a migration does it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "vfio/device_dirty.h"
#include "vfio/uapi_vfio.h"

#define SIZE (64 * GIB)
#define ROUNDS 41

static int feature(struct vfio_transport *t, uint32_t flags, void *data, size_t len,
		   struct error *err)
{
	const struct vfio_device_feature_dma_logging_report *report = data;

	if (flags == (VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT | VFIO_DEVICE_FEATURE_GET)) {
		uint64_t *words = (uint64_t *)(uintptr_t)report->bitmap;

		for (uint64_t i = 0; i < report->length / report->page_size / 64; i++)
			words[i] = i % 512 < 8 ? UINT64_MAX : 1;
		return (int)len;
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

int main(void)
{
	const struct guest_memory_options options = { .size = MIB,
						      .low_end = GIB,
						      .high_start = 4 * GIB };
	const struct guest_memory_region region = { .gpa = 0, .size = SIZE, .page_size = 4096 };
	const struct vfio_transport_ops ops = { .name = "fake", .feature = feature };
	struct vfio_transport transport = { .ops = &ops, .name = "fake" };
	struct guest_memory *memory = guest_memory_new(&options, NULL);
	struct error err = ERROR_INIT;
	struct dirty_source *source;
	struct dirty_bitmap bitmap;
	double ms[ROUNDS];

	source = device_dirty_source(&transport, memory, DEVICE_DIRTY_AUTO, &err);
	if (!memory || !source || source->ops->start(source, &err) ||
	    dirty_bitmap_init(&bitmap, SIZE / GUEST_PAGE_SIZE, &err)) {
		fprintf(stderr, "dirty-collect: %s\n", err.message);
		return 1;
	}
	for (unsigned int i = 0; i < ROUNDS; i++) {
		uint64_t begun = clock_ns();

		if (source->ops->collect(source, &region, &bitmap, &err)) {
			fprintf(stderr, "dirty-collect: %s\n", err.message);
			return 1;
		}
		ms[i] = (double)(clock_ns() - begun) / 1e6;
		dirty_bitmap_clear(&bitmap, 0, bitmap.pages);
	}
	qsort(ms, ROUNDS, sizeof(ms[0]), compare);
	printf("%.3f\n", ms[ROUNDS / 2]);
	source->ops->free(source);
	dirty_bitmap_destroy(&bitmap);
	guest_memory_free(memory);
	return 0;
}
