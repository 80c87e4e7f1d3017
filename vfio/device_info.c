/* SPDX-License-Identifier: Apache-2.0 */
/* What a device says about itself: regions, interrupts. Nothing of it is believed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "memory/guest_memory.h"
#include "vfio/info_caps.h"
#include "vfio/kernel_device.h"
#include "vfio/uapi_vfio.h"

#define IRQ_INDEXES_MAX 64U
#define IRQ_VECTORS_MAX 4096U /* MSI-X has 2048 at most */

int kernel_device_get_info(struct kernel_device *dev, struct error *err)
{
	/* Without room for capabilities: of those there are, none concerns us. */
	struct vfio_device_info info = { .argsz = sizeof(info) };
	int r = vfio_kernel_ioctl(dev->kernel, dev->t.fd, VFIO_DEVICE_GET_INFO, &info);

	if (r < 0)
		return error_set_errno(err, r, "%s: VFIO_DEVICE_GET_INFO", dev->t.name);
	if (info.num_regions > VFIO_REGIONS_MAX || info.num_irqs > IRQ_INDEXES_MAX)
		log_warn(dev->log, "%s: %u regions and %u interrupt indexes; the first %u are used",
			 dev->t.name, info.num_regions, info.num_irqs, VFIO_REGIONS_MAX);
	dev->t.region_count = MIN(info.num_regions, (uint32_t)VFIO_REGIONS_MAX);
	dev->t.irq_count = MIN(info.num_irqs, IRQ_INDEXES_MAX);
	dev->t.is_pci = info.flags & VFIO_DEVICE_FLAGS_PCI;
	dev->has_reset = info.flags & VFIO_DEVICE_FLAGS_RESET;
	dev->has_hot_reset = !dev->has_reset && dev->t.is_pci && kernel_device_can_hot_reset(dev);
	dev->t.resettable = dev->has_reset || dev->has_hot_reset;
	return 0;
}

struct kernel_device *kernel_device_take(const struct vfio_transport_ops *ops,
					 const char *sysfs_path, int fd, const char *id,
					 struct dma_space *space, struct log *log,
					 struct error *err)
{
	const struct vfio_kernel *kernel = kernel_space_of(space)->kernel;
	_cleanup_free_ struct sysfs_device *sysfs = NULL;
	_cleanup_free_ struct kernel_device *dev = NULL;
	bool known;

	if (fd < 0) {
		error_set(err, ENOENT, "%s: its descriptor did not come along", id);
		return NULL;
	}
	sysfs = calloc(1, sizeof(*sysfs));
	dev = calloc(1, sizeof(*dev));
	if (!sysfs || !dev) {
		error_set_errno(err, ENOMEM, "open a device");
		vfio_kernel_close(kernel, fd);
		return NULL;
	}
	dev->kernel = kernel;
	dev->log = log;
	dev->t.ops = ops;
	dev->t.space = space;
	dev->t.fd = fd;
	/* In a sandbox its path need not be there. */
	known = sysfs_path ? !sysfs_device_read(sysfs_path, sysfs, NULL)
			   : sysfs_device_of_fd(fd, sysfs);
	snprintf(dev->t.name, sizeof(dev->t.name), "%s", known ? sysfs->name : id);
	if (!kernel_device_get_info(dev, err))
		return take_ptr(dev);
	vfio_kernel_close(kernel, fd);
	return NULL;
}

static int compare_areas(const void *a, const void *b)
{
	const struct vfio_area *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Whole pages inside the region only; its end may be one that is no page's (a BAR smaller
 * than a page is mapped with the rest of its page). */
static bool clip_area(const struct vfio_region *region, struct vfio_area *area)
{
	uint64_t start, end;

	if (area->offset >= region->size || !area->size)
		return false;
	end = area->offset + MIN(area->size, region->size - area->offset);
	start = align_up(area->offset, GUEST_PAGE_SIZE);
	if (end != region->size)
		end = align_down(end, GUEST_PAGE_SIZE);
	if (start >= end || start < area->offset)
		return false;
	*area = (struct vfio_area){ .offset = start, .size = end - start };
	return true;
}

/* Sorted, and those that overlap the one before are dropped. */
static unsigned int order_areas(struct vfio_area *areas, unsigned int count)
{
	unsigned int kept = 0;

	qsort(areas, count, sizeof(*areas), compare_areas);
	for (unsigned int i = 0; i < count; i++) {
		if (kept && areas[i].offset < areas[kept - 1].offset + areas[kept - 1].size)
			continue;
		areas[kept++] = areas[i];
	}
	return kept;
}

static void read_sparse(const struct kernel_device *dev, const uint8_t *info, size_t size,
			uint32_t at, struct vfio_region *region)
{
	struct vfio_region_info_cap_sparse_mmap cap;
	size_t fit;
	unsigned int count = 0;

	memcpy(&cap, info + at, sizeof(cap));
	fit = MIN((size - at - sizeof(cap)) / sizeof(struct vfio_region_sparse_mmap_area),
		  (size_t)cap.nr_areas);
	for (size_t i = 0; i < fit && count < VFIO_SPARSE_AREAS_MAX; i++) {
		struct vfio_region_sparse_mmap_area area;

		memcpy(&area, info + at + sizeof(cap) + i * sizeof(area), sizeof(area));
		region->areas[count] =
			(struct vfio_area){ .offset = area.offset, .size = area.size };
		if (clip_area(region, &region->areas[count]))
			count++;
	}
	region->area_count = order_areas(region->areas, count);
	if (region->area_count != cap.nr_areas)
		log_warn(dev->log, "%s: region %u: of %u areas to map %u can be used", dev->t.name,
			 region->index, cap.nr_areas, region->area_count);
}

static void read_region_caps(const struct kernel_device *dev, const uint8_t *info, size_t size,
			     uint32_t caps, struct vfio_region *region)
{
	struct vfio_region_info_cap_type type;
	uint32_t at = vfio_info_cap_find(info, size, caps, VFIO_REGION_INFO_CAP_TYPE, sizeof(type));

	if (at) {
		memcpy(&type, info + at, sizeof(type));
		region->type = type.type;
		region->subtype = type.subtype;
	}
	region->msix_mappable =
		vfio_info_cap_find(info, size, caps, VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
				   sizeof(struct vfio_info_cap_header));
	if (!region->mappable)
		return;
	at = vfio_info_cap_find(info, size, caps, VFIO_REGION_INFO_CAP_SPARSE_MMAP,
				sizeof(struct vfio_region_info_cap_sparse_mmap));
	if (at) {
		read_sparse(dev, info, size, at, region);
	} else {
		region->area_count = 1;
		region->areas[0] = (struct vfio_area){ .offset = 0, .size = region->size };
	}
	region->mappable = region->area_count;
}

int kernel_device_region_info(struct vfio_transport *t, uint32_t index, struct vfio_region *region,
			      struct error *err)
{
	struct kernel_device *dev = kernel_device_of(t);
	const struct vfio_region_info ask = { .argsz = sizeof(ask), .index = index };
	struct vfio_region_info info;
	_cleanup_free_ void *answer = NULL;
	size_t size;
	int r;

	*region = (struct vfio_region){ .index = index, .map_fd = -1 };
	if (index >= t->region_count)
		return error_set(err, EINVAL, "%s: has no region %u", t->name, index);
	r = vfio_info_query(dev->kernel, t->fd, VFIO_DEVICE_GET_REGION_INFO, &ask, sizeof(ask),
			    &answer, &size);
	if (r == -EINVAL) /* an index its driver does not implement (VGA) */
		return 0;
	if (r)
		return error_set_errno(err, r, "%s: VFIO_DEVICE_GET_REGION_INFO of region %u",
				       t->name, index);
	memcpy(&info, answer, sizeof(info));
	if (info.size > INT64_MAX || info.offset > INT64_MAX - info.size)
		return error_set(err, EPROTO,
				 "%s: region %u of 0x%llx bytes at 0x%llx is larger than any "
				 "file: a fault of its driver",
				 t->name, index, (unsigned long long)info.size,
				 (unsigned long long)info.offset);
	region->size = info.size;
	region->offset = info.offset;
	if (!info.size)
		return 0;
	region->readable = info.flags & VFIO_REGION_INFO_FLAG_READ;
	region->writable = info.flags & VFIO_REGION_INFO_FLAG_WRITE;
	region->mappable = info.flags & VFIO_REGION_INFO_FLAG_MMAP;
	read_region_caps(dev, answer, size,
			 info.flags & VFIO_REGION_INFO_FLAG_CAPS ? info.cap_offset : 0, region);
	return 0;
}

int kernel_device_irq_info(struct vfio_transport *t, uint32_t index, struct vfio_irq *irq,
			   struct error *err)
{
	const struct kernel_device *dev = kernel_device_of(t);
	struct vfio_irq_info info = { .argsz = sizeof(info), .index = index };
	int r;

	*irq = (struct vfio_irq){ .index = index };
	if (index >= t->irq_count)
		return error_set(err, EINVAL, "%s: has no interrupt index %u", t->name, index);
	r = vfio_kernel_ioctl(dev->kernel, t->fd, VFIO_DEVICE_GET_IRQ_INFO, &info);
	if (r == -EINVAL) /* the error interrupt of a device that is not PCI Express */
		return 0;
	if (r < 0)
		return error_set_errno(err, r, "%s: VFIO_DEVICE_GET_IRQ_INFO of index %u", t->name,
				       index);
	if (info.count > IRQ_VECTORS_MAX)
		return error_set(err, EPROTO,
				 "%s: interrupt index %u with %u vectors: a fault of its driver",
				 t->name, index, info.count);
	irq->count = info.count;
	irq->eventfd = info.flags & VFIO_IRQ_INFO_EVENTFD;
	irq->maskable = info.flags & VFIO_IRQ_INFO_MASKABLE;
	irq->automasked = info.flags & VFIO_IRQ_INFO_AUTOMASKED;
	irq->noresize = info.flags & VFIO_IRQ_INFO_NORESIZE;
	return 0;
}
