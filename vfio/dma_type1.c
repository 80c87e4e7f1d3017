/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A DMA space that is a legacy VFIO container with the type1v2 IOMMU.
 *
 * A container has an IOMMU from its first group to its last: without one it maps nothing,
 * and when the last group leaves its mappings are gone. Mappings made in between are
 * recorded, and made real when a group joins.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "vfio/dma_type1.h"
#include "vfio/uapi_vfio.h"

#define CONTAINER_PATH "/dev/vfio/vfio"

static struct dma_type1 *type1_of(const struct dma_space *space)
{
	return (struct dma_type1 *)container_of(space, struct dma_type1, ks.space);
}

/* One wrapper per call. 0 or -errno. */

static int dma_map(const struct dma_type1 *t1, const struct dma_mapping *m)
{
	struct vfio_iommu_type1_dma_map args = {
		.argsz = sizeof(args),
		.flags = VFIO_DMA_MAP_FLAG_READ | (m->writable ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.vaddr = (uintptr_t)m->hva,
		.iova = m->iova,
		.size = m->size,
	};

	return vfio_kernel_ioctl(t1->ks.kernel, t1->ks.fd, VFIO_IOMMU_MAP_DMA, &args);
}

/* dirty has a bit for each page of the log's size. */
static struct vfio_bitmap bitmap_of(const struct dma_type1 *t1, const struct dirty_bitmap *dirty)
{
	return (struct vfio_bitmap){
		.pgsize = t1->dirty_page,
		.size = align_up(dirty->pages, 64) / 8,
		.data = (void *)dirty->words,
	};
}

static int dma_unmap(const struct dma_type1 *t1, uint64_t iova, uint64_t *size,
		     struct dirty_bitmap *dirty)
{
	union {
		struct vfio_iommu_type1_dma_unmap unmap;
		uint8_t room[sizeof(struct vfio_iommu_type1_dma_unmap) +
			     sizeof(struct vfio_bitmap)];
	} args = {
		.unmap = {
			.argsz = dirty ? sizeof(args.room) : sizeof(args.unmap),
			.flags = dirty ? VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP : 0,
			.iova = iova,
			.size = *size,
		},
	};
	struct vfio_bitmap bitmap;
	int r;

	if (dirty) {
		bitmap = bitmap_of(t1, dirty);
		memcpy(args.room + sizeof(args.unmap), &bitmap, sizeof(bitmap));
	}
	r = vfio_kernel_ioctl(t1->ks.kernel, t1->ks.fd, VFIO_IOMMU_UNMAP_DMA, &args);
	*size = args.unmap.size;
	return r;
}

static int dirty_pages_set(const struct dma_type1 *t1, uint32_t flag)
{
	struct vfio_iommu_type1_dirty_bitmap args = { .argsz = sizeof(args), .flags = flag };

	return vfio_kernel_ioctl(t1->ks.kernel, t1->ks.fd, VFIO_IOMMU_DIRTY_PAGES, &args);
}

static int dirty_pages_get(const struct dma_type1 *t1, uint64_t iova, uint64_t size,
			   struct dirty_bitmap *dirty)
{
	const struct vfio_iommu_type1_dirty_bitmap_get get = {
		.iova = iova,
		.size = size,
		.bitmap = bitmap_of(t1, dirty),
	};
	union {
		struct vfio_iommu_type1_dirty_bitmap head;
		uint8_t room[sizeof(struct vfio_iommu_type1_dirty_bitmap) + sizeof(get)];
	} args = {
		.head = {
			.argsz = sizeof(args.room),
			.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
		},
	};

	memcpy(args.room + sizeof(args.head), &get, sizeof(get));
	return vfio_kernel_ioctl(t1->ks.kernel, t1->ks.fd, VFIO_IOMMU_DIRTY_PAGES, &args);
}

/* The interface. */

static int map_locked(struct dma_type1 *t1, const struct dma_mapping *mapping, struct error *err)
{
	/* A BAR for other devices is told of again, and is there. */
	struct dma_mapping *there = kernel_space_foreign(&t1->ks, mapping->iova, mapping->size);
	int r;

	if (there) {
		r = dma_type1_claim(t1, there, mapping->hva);
		return r ? dma_type1_map_error(t1, r, mapping, err) : 0;
	}
	if (t1->ks.kept)
		return error_set(err, EBUSY,
				 "map 0x%llx bytes at IOVA 0x%llx: another process has the "
				 "VFIO container",
				 (unsigned long long)mapping->size,
				 (unsigned long long)mapping->iova);
	r = kernel_space_reserve(&t1->ks, err);
	if (r)
		return r;
	r = t1->groups ? dma_map(t1, mapping) : 0;
	if (r)
		return dma_type1_map_error(t1, r, mapping, err);
	kernel_space_remember(&t1->ks, mapping->iova, mapping->size, mapping->hva,
			      mapping->writable);
	return 0;
}

static int type1_map(struct dma_space *space, uint64_t iova, uint64_t size, int fd, uint64_t offset,
		     void *hva, bool writable, struct error *err)
{
	struct dma_type1 *t1 = type1_of(space);
	struct dma_mapping mapping = {
		.iova = iova, .size = size, .hva = hva, .writable = writable
	};
	int r;

	if (!hva)
		return error_set(err, EOPNOTSUPP,
				 "map for DMA: a VFIO container maps by address, not a file");
	pthread_mutex_lock(&t1->ks.lock);
	r = map_locked(t1, &mapping, err);
	pthread_mutex_unlock(&t1->ks.lock);
	return r;
}

int dma_type1_map_error(const struct dma_type1 *t1, int code, const struct dma_mapping *mapping,
			struct error *err)
{
	const char *why = "";

	if (code == -EINVAL || code == -EPERM)
		why = " (the IOMMU may not map there: see IOVA ranges)";
	else if (code == -ENOSPC)
		why = " (too many mappings: raise dma_entry_limit of vfio_iommu_type1)";
	return kernel_space_map_error(&t1->ks, code, mapping->size, err,
				      "VFIO_IOMMU_MAP_DMA 0x%llx bytes at IOVA 0x%llx%s",
				      (unsigned long long)mapping->size,
				      (unsigned long long)mapping->iova, why);
}

int dma_type1_map_all(struct dma_type1 *t1, struct error *err)
{
	for (unsigned int i = 0; i < t1->ks.mapping_count; i++) {
		const struct dma_mapping *m = &t1->ks.mappings[i];
		int r = 0;

		if (t1->range_count)
			r = dma_ranges_check(t1->ranges, t1->range_count, m->iova, m->size, err);
		if (r)
			return r;
		r = dma_map(t1, m);
		if (r)
			return dma_type1_map_error(t1, r, m, err);
	}
	return 0;
}

static uint64_t log_bytes(const struct dma_type1 *t1, uint64_t size)
{
	return align_up(align_up(size, t1->dirty_page) / t1->dirty_page, 64) / 8;
}

/* A bitmap for the log of so many bytes. The kernel takes whole mappings only, so there is
 * no asking in parts where it would be too long. */
static int log_bitmap_init(const struct dma_type1 *t1, struct dirty_bitmap *bitmap, uint64_t size,
			   struct error *err)
{
	uint64_t bytes = log_bytes(t1, size);

	if (bytes > t1->dirty_bitmap_max)
		return error_set(
			err, E2BIG,
			"read dirty pages: 0x%llx bytes take a bitmap of 0x%llx, the kernel "
			"has at most 0x%llx",
			(unsigned long long)size, (unsigned long long)bytes,
			(unsigned long long)t1->dirty_bitmap_max);
	return dirty_bitmap_init(bitmap, align_up(size, t1->dirty_page) / t1->dirty_page, err);
}

/* Each bit of the log's is as many of the guest's. */
static void merge_log(const struct dma_type1 *t1, struct dirty_bitmap *into,
		      const struct dirty_bitmap *log)
{
	uint64_t ratio = t1->dirty_page / GUEST_PAGE_SIZE, first = 0, count = 0;

	if (ratio == 1) {
		dirty_bitmap_or(into, log);
		return;
	}
	while (dirty_bitmap_next_run(log, &first, &count)) {
		dirty_bitmap_set(into, first * ratio, count * ratio);
		first += count;
	}
}

static int unmap_with_bitmap(struct dma_type1 *t1, uint64_t iova, uint64_t *size,
			     struct dirty_bitmap *dirty, struct error *err)
{
	struct dirty_bitmap found = { .pages = 0 };
	int r = log_bitmap_init(t1, &found, *size, err);

	if (r)
		return r;
	r = dma_unmap(t1, iova, size, &found);
	if (!r)
		merge_log(t1, dirty, &found);
	dirty_bitmap_destroy(&found);
	return r;
}

static int unmap_locked(struct dma_type1 *t1, uint64_t iova, uint64_t size,
			struct dirty_bitmap *dirty, struct error *err)
{
	bool log = t1->groups && dirty && t1->ks.logging;
	uint64_t unmapped = size;
	int r = 0;

	if (t1->ks.kept)
		return error_set(err, EBUSY,
				 "unmap from a VFIO container that another process has");
	if (log && log_bytes(t1, size) <= t1->dirty_bitmap_max) {
		r = unmap_with_bitmap(t1, iova, &unmapped, dirty, err);
	} else if (t1->groups) {
		if (log) /* nobody can say */
			dirty_bitmap_set(dirty, 0, dirty->pages);
		r = dma_unmap(t1, iova, &unmapped, NULL);
	}
	if (!r && unmapped != size)
		r = -EIO;
	if (r)
		return error_set_errno(err, r, "VFIO_IOMMU_UNMAP_DMA 0x%llx bytes at IOVA 0x%llx",
				       (unsigned long long)size, (unsigned long long)iova);
	kernel_space_forget(&t1->ks, iova, size);
	return 0;
}

static int type1_unmap(struct dma_space *space, uint64_t iova, uint64_t size,
		       struct dirty_bitmap *dirty, struct error *err)
{
	struct dma_type1 *t1 = type1_of(space);
	int r;

	pthread_mutex_lock(&t1->ks.lock);
	r = unmap_locked(t1, iova, size, dirty, err);
	pthread_mutex_unlock(&t1->ks.lock);
	return r;
}

static int type1_iova_ranges(struct dma_space *space, struct dma_range *ranges, unsigned int max,
			     struct error *err)
{
	struct dma_type1 *t1 = type1_of(space);
	unsigned int count = MIN(max, t1->range_count);

	if (!max)
		return 0;
	if (!count) { /* no group, or a kernel before 5.4: it will say when it maps */
		ranges[0] = (struct dma_range){ .start = 0, .last = UINT64_MAX };
		return 1;
	}
	memcpy(ranges, t1->ranges, count * sizeof(*ranges));
	return (int)count;
}

static int check_log(const struct dma_type1 *t1, struct error *err)
{
	if (!t1->dirty_page)
		return error_set(err, EOPNOTSUPP,
				 "this kernel's VFIO container tracks no dirty pages");
	if (t1->dirty_page < GUEST_PAGE_SIZE)
		return error_set(err, EOPNOTSUPP,
				 "this kernel's VFIO container tracks pages of %llu bytes, which "
				 "none has",
				 (unsigned long long)t1->dirty_page);
	return 0;
}

static int type1_dirty_able(struct dma_space *space, const char *device, struct error *err)
{
	return check_log(type1_of(space), err);
}

int dma_type1_start_log(struct dma_type1 *t1, struct error *err)
{
	int r = check_log(t1, err);

	if (r)
		return r;
	r = dirty_pages_set(t1, VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
	return r ? error_set_errno(err, r, "track dirty pages: VFIO_IOMMU_DIRTY_PAGES START") : 0;
}

static int type1_dirty_start(struct dma_space *space, struct error *err)
{
	struct dma_type1 *t1 = type1_of(space);
	int r = 0;

	pthread_mutex_lock(&t1->ks.lock);
	if (t1->groups)
		r = dma_type1_start_log(t1, err);
	t1->ks.logging = !r;
	pthread_mutex_unlock(&t1->ks.lock);
	return r;
}

static void type1_dirty_stop(struct dma_space *space)
{
	struct dma_type1 *t1 = type1_of(space);

	pthread_mutex_lock(&t1->ks.lock);
	if (t1->ks.logging && t1->groups)
		dirty_pages_set(t1, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
	t1->ks.logging = false;
	pthread_mutex_unlock(&t1->ks.lock);
}

static int read_log(struct dma_type1 *t1, uint64_t iova, uint64_t size, struct dirty_bitmap *bitmap,
		    struct error *err)
{
	struct dirty_bitmap found = { .pages = 0 };
	int r = log_bitmap_init(t1, &found, size, err);

	if (r)
		return r;
	r = dirty_pages_get(t1, iova, size, &found);
	if (r)
		error_set_errno(err, r,
				"read dirty pages: VFIO_IOMMU_DIRTY_PAGES GET_BITMAP of 0x%llx "
				"bytes at IOVA 0x%llx",
				(unsigned long long)size, (unsigned long long)iova);
	else
		merge_log(t1, bitmap, &found);
	dirty_bitmap_destroy(&found);
	return r;
}

static int type1_dirty_collect(struct dma_space *space, uint64_t iova, uint64_t size, bool last,
			       struct dirty_bitmap *bitmap, struct error *err)
{
	struct dma_type1 *t1 = type1_of(space);
	int r = 0;

	pthread_mutex_lock(&t1->ks.lock);
	if (!t1->ks.logging)
		r = error_set(err, EINVAL, "read dirty pages: tracking was not started");
	else if (t1->groups) /* without a device nobody wrote */
		r = read_log(t1, iova, size, bitmap, err);
	pthread_mutex_unlock(&t1->ks.lock);
	return r;
}

static void type1_free(struct dma_space *space)
{
	struct dma_type1 *t1 = type1_of(space);

	/* Of devices that were to be taken, and were not. */
	while (t1->groups) {
		struct type1_group *group = t1->groups;

		t1->groups = group->next;
		vfio_kernel_close(t1->ks.kernel, group->fd);
		free(group);
	}
	kernel_space_destroy(&t1->ks);
	free(t1);
}

const struct dma_space_ops dma_type1_ops = {
	.name = "type1",
	.map = type1_map,
	.unmap = type1_unmap,
	.iova_ranges = type1_iova_ranges,
	.dirty_able = type1_dirty_able,
	.dirty_start = type1_dirty_start,
	.dirty_stop = type1_dirty_stop,
	.dirty_collect = type1_dirty_collect,
	.keep = dma_type1_keep,
	.hold = dma_type1_hold,
	.own = dma_type1_own,
	.free = type1_free,
};

static int check_container(const struct vfio_kernel *kernel, int fd, struct error *err)
{
	int r = vfio_kernel_ioctl(kernel, fd, VFIO_GET_API_VERSION, NULL);

	if (r < 0)
		return error_set_errno(err, r, "%s: VFIO_GET_API_VERSION", CONTAINER_PATH);
	if (r != VFIO_API_VERSION)
		return error_set(err, EOPNOTSUPP,
				 "%s: VFIO API version %d; this program knows version %d",
				 CONTAINER_PATH, r, VFIO_API_VERSION);
	r = vfio_kernel_ioctl(kernel, fd, VFIO_CHECK_EXTENSION,
			      (void *)(uintptr_t)VFIO_TYPE1v2_IOMMU);
	if (r < 0)
		return error_set_errno(err, r, "%s: VFIO_CHECK_EXTENSION", CONTAINER_PATH);
	return r ? 0
		 : error_set(err, EOPNOTSUPP,
			     "%s: this kernel has no type1v2 IOMMU for VFIO: "
			     "modprobe vfio_iommu_type1",
			     CONTAINER_PATH);
}

static int open_container(const struct vfio_kernel *kernel, struct error *err)
{
	int fd = vfio_kernel_open(kernel, CONTAINER_PATH, O_RDWR), r;
	const char *remedy = "";

	if (fd == -ENOENT || fd == -ENODEV)
		remedy = " (modprobe vfio-pci)";
	else if (fd == -EACCES || fd == -EPERM)
		remedy = " (give this user read and write access to it)";
	if (fd < 0)
		return error_set(err, fd, "open %s: %s%s", CONTAINER_PATH, strerror(-fd), remedy);
	r = check_container(kernel, fd, err);
	if (r)
		vfio_kernel_close(kernel, fd);
	return r ? r : fd;
}

struct dma_space *dma_space_open_type1_with(const struct vfio_kernel *kernel, struct log *log,
					    struct error *err)
{
	int fd = open_container(kernel, err);
	struct dma_type1 *t1;

	if (fd < 0)
		return NULL;
	t1 = calloc(1, sizeof(*t1));
	if (!t1) {
		error_set_errno(err, ENOMEM, "make a DMA space");
		vfio_kernel_close(kernel, fd);
		return NULL;
	}
	kernel_space_init(&t1->ks, &dma_type1_ops, kernel, fd, log);
	return &t1->ks.space;
}

struct dma_space *dma_space_open_type1(struct log *log, struct error *err)
{
	return dma_space_open_type1_with(&vfio_kernel_host, log, err);
}
