/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of a device's dirty source, and those but for its own log: the log of its
 * IOMMU, and everything. */
#include "vfio/device_dirty.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "vfio/device_dirty_private.h"

struct iommu_source {
	struct dirty_source source; /* first */
	struct dma_space *space;
	bool started;
};

static struct iommu_source *iommu_of(struct dirty_source *source)
{
	return container_of(source, struct iommu_source, source);
}

static int iommu_start(struct dirty_source *source, struct error *err)
{
	struct iommu_source *s = iommu_of(source);
	int r = s->space->dirty_users ? 0 : s->space->ops->dirty_start(s->space, err);

	if (r)
		return r;
	s->space->dirty_users++;
	s->started = true;
	return 0;
}

static void iommu_stop(struct dirty_source *source)
{
	struct iommu_source *s = iommu_of(source);

	if (!s->started)
		return;
	s->started = false;
	if (s->space->dirty_reader == s)
		s->space->dirty_reader = NULL;
	if (!--s->space->dirty_users)
		s->space->ops->dirty_stop(s->space);
}

/* The log is of all devices: one of the sources reads it, for all. */
static int iommu_read(struct dirty_source *source, const struct guest_memory_region *region,
		      bool last, struct dirty_bitmap *bitmap, struct error *err)
{
	struct iommu_source *s = iommu_of(source);
	struct dma_space *space = s->space;

	if (!s->started)
		return error_set(err, EINVAL, "read dirty pages: tracking was not started");
	if (!space->dirty_reader)
		space->dirty_reader = s;
	if (space->dirty_reader != s)
		return 0;
	return space->ops->dirty_collect(space, region->gpa, region->size, last, bitmap, err);
}

static int iommu_collect(struct dirty_source *source, const struct guest_memory_region *region,
			 struct dirty_bitmap *bitmap, struct error *err)
{
	return iommu_read(source, region, false, bitmap, err);
}

static int iommu_collect_last(struct dirty_source *source, const struct guest_memory_region *region,
			      struct dirty_bitmap *bitmap, struct error *err)
{
	return iommu_read(source, region, true, bitmap, err);
}

static void iommu_free(struct dirty_source *source)
{
	iommu_stop(source);
	free(iommu_of(source));
}

static const struct dirty_source_ops iommu_ops = {
	.name = "iommu",
	.dma = true,
	.start = iommu_start,
	.stop = iommu_stop,
	.collect = iommu_collect,
	.collect_last = iommu_collect_last,
	.free = iommu_free,
};

static struct dirty_source *new_iommu(struct dma_space *space, struct error *err)
{
	struct iommu_source *s = calloc(1, sizeof(*s));

	if (!s) {
		error_set_errno(err, ENOMEM, "track dirty pages");
		return NULL;
	}
	s->source.ops = &iommu_ops;
	s->space = space;
	return &s->source;
}

/* Everything, always. */

static int all_start(struct dirty_source *source, struct error *err)
{
	return 0;
}

static void all_stop(struct dirty_source *source)
{
}

static int all_collect(struct dirty_source *source, const struct guest_memory_region *region,
		       struct dirty_bitmap *bitmap, struct error *err)
{
	dirty_bitmap_set(bitmap, 0, bitmap->pages);
	return 0;
}

static void all_free(struct dirty_source *source)
{
	free(source);
}

static const struct dirty_source_ops all_ops = {
	.name = "all",
	.dma = true,
	.start = all_start,
	.stop = all_stop,
	.collect = all_collect,
	.free = all_free,
};

static struct dirty_source *new_all(struct error *err)
{
	struct dirty_source *source = calloc(1, sizeof(*source));

	if (!source) {
		error_set_errno(err, ENOMEM, "track dirty pages");
		return NULL;
	}
	source->ops = &all_ops;
	return source;
}

static struct dirty_source *choose(struct vfio_transport *transport, struct guest_memory *memory,
				   struct error *err)
{
	struct error device = ERROR_INIT, iommu = ERROR_INIT;

	if (!device_log_able(transport, &device))
		return device_log_new(transport, memory, err);
	if (!transport->space->ops->dirty_able)
		error_set(&iommu, EOPNOTSUPP, "it has no IOMMU that could");
	else if (!transport->space->ops->dirty_able(transport->space, transport->name, &iommu))
		return new_iommu(transport->space, err);
	error_set(
		err, EOPNOTSUPP,
		"%s: what it writes to RAM cannot be followed: it keeps no log of its DMA (%s), "
		"and %s; with dirty_tracking=all every page counts as written, in every round, so "
		"that all of RAM is sent again while the guest is stopped",
		transport->name, device.message, iommu.message);
	return NULL;
}

struct dirty_source *device_dirty_source(struct vfio_transport *transport,
					 struct guest_memory *memory,
					 enum device_dirty_choice choice, struct error *err)
{
	return choice == DEVICE_DIRTY_ALL ? new_all(err) : choose(transport, memory, err);
}
