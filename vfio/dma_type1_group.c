/* SPDX-License-Identifier: Apache-2.0 */
/* IOMMU groups in a legacy container. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vfio/dma_type1.h"
#include "vfio/info_caps.h"
#include "vfio/kernel_device.h"
#include "vfio/uapi_vfio.h"

static struct dma_type1 *type1_of(struct dma_space *space)
{
	return container_of(space, struct dma_type1, ks.space);
}

static int group_get_status(const struct dma_type1 *t1, int group, uint32_t *flags)
{
	struct vfio_group_status args = { .argsz = sizeof(args) };
	int r = vfio_kernel_ioctl(t1->ks.kernel, group, VFIO_GROUP_GET_STATUS, &args);

	*flags = args.flags;
	return r;
}

static int group_set_container(const struct dma_type1 *t1, int group)
{
	int container = t1->ks.fd;

	return vfio_kernel_ioctl(t1->ks.kernel, group, VFIO_GROUP_SET_CONTAINER, &container);
}

static int set_iommu(const struct dma_type1 *t1)
{
	return vfio_kernel_ioctl(t1->ks.kernel, t1->ks.fd, VFIO_SET_IOMMU,
				 (void *)(uintptr_t)VFIO_TYPE1v2_IOMMU);
}

static void read_ranges(struct dma_type1 *t1, const uint8_t *info, size_t size, uint32_t caps)
{
	struct vfio_iommu_type1_info_cap_iova_range cap;
	uint32_t at = vfio_info_cap_find(info, size, caps, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
					 sizeof(cap));
	size_t fit;

	t1->range_count = 0;
	if (!at)
		return;
	memcpy(&cap, info + at, sizeof(cap));
	fit = (size - at - sizeof(cap)) / sizeof(struct vfio_iova_range);
	fit = MIN(MIN(fit, cap.nr_iovas), DMA_RANGES_MAX);
	for (size_t i = 0; i < fit; i++) {
		struct vfio_iova_range range;

		memcpy(&range, info + at + sizeof(cap) + i * sizeof(range), sizeof(range));
		t1->ranges[i] = (struct dma_range){ .start = range.start, .last = range.end };
	}
	t1->range_count = dma_ranges_normalise(t1->ranges, (unsigned int)fit);
}

static void read_caps(struct dma_type1 *t1, const uint8_t *info, size_t size, uint32_t caps)
{
	struct vfio_iommu_type1_info_cap_migration migration;
	struct vfio_iommu_type1_info_dma_avail avail;
	uint32_t at;

	read_ranges(t1, info, size, caps);
	t1->dirty_page = t1->dirty_bitmap_max = 0;
	at = vfio_info_cap_find(info, size, caps, VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
				sizeof(migration));
	if (at) {
		memcpy(&migration, info + at, sizeof(migration));
		/* The smallest is the one it takes. */
		t1->dirty_page = migration.pgsize_bitmap & -migration.pgsize_bitmap;
		t1->dirty_bitmap_max = migration.max_dirty_bitmap_size;
	}
	t1->mappings_left = UINT32_MAX;
	at = vfio_info_cap_find(info, size, caps, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, sizeof(avail));
	if (at) {
		memcpy(&avail, info + at, sizeof(avail));
		t1->mappings_left = avail.avail;
	}
}

int dma_type1_read_info(struct dma_type1 *t1, struct error *err)
{
	const struct vfio_iommu_type1_info ask = { .argsz = sizeof(ask) };
	struct vfio_iommu_type1_info info;
	_cleanup_free_ void *answer = NULL;
	size_t size;
	int r = vfio_info_query(t1->ks.kernel, t1->ks.fd, VFIO_IOMMU_GET_INFO, &ask, sizeof(ask),
				&answer, &size);

	if (r)
		return error_set_errno(err, r, "VFIO_IOMMU_GET_INFO");
	memcpy(&info, answer, sizeof(info));
	read_caps(t1, answer, size, info.flags & VFIO_IOMMU_INFO_CAPS ? info.cap_offset : 0);
	return 0;
}

static int open_error(int code, const char *path, struct error *err)
{
	const char *remedy = "";

	if (code == -EBUSY)
		remedy = " (another process has a device of this IOMMU group)";
	else if (code == -ENOENT || code == -ENODEV)
		remedy = " (no device of this IOMMU group is bound to vfio-pci)";
	else if (code == -EACCES || code == -EPERM)
		remedy = " (give this user read and write access to it)";
	return error_set(err, code, "open %s: %s%s", path, strerror(-code), remedy);
}

static int check_viable(const struct dma_type1 *t1, int group, const struct sysfs_device *dev,
			struct error *err)
{
	char strangers[256];
	uint32_t flags;
	int r = group_get_status(t1, group, &flags);

	if (r)
		return error_set_errno(err, r, "VFIO_GROUP_GET_STATUS of group %s", dev->group);
	if (flags & VFIO_GROUP_FLAGS_VIABLE)
		return 0;
	if (!sysfs_group_strangers(dev, strangers, sizeof(strangers)))
		snprintf(strangers, sizeof(strangers), "see /sys/kernel/iommu_groups/%s/devices",
			 dev->group);
	return error_set(err, EBUSY,
			 "IOMMU group %s is not viable: all of its devices have to be bound to "
			 "vfio-pci or to no driver, but other drivers have some: %s",
			 dev->group, strangers);
}

static int set_iommu_error(int code, struct error *err)
{
	if (code == -EPERM)
		return error_set_errno(err, code,
				       "VFIO_SET_IOMMU type1v2: the IOMMU does not isolate "
				       "interrupts; turn interrupt remapping on (or, unsafe: "
				       "allow_unsafe_interrupts of vfio_iommu_type1)");
	return error_set_errno(err, code, "VFIO_SET_IOMMU type1v2");
}

/* What a container's first group brings, and what it has to take. */
static int first_group(struct dma_type1 *t1, struct error *err)
{
	int r = set_iommu(t1);

	if (r)
		return set_iommu_error(r, err);
	r = dma_type1_read_info(t1, err);
	if (!r)
		r = dma_type1_map_all(t1, err);
	if (!r && t1->ks.logging)
		r = dma_type1_start_log(t1, err);
	return r;
}

static int enter_container(struct dma_type1 *t1, int group, const struct sysfs_device *dev,
			   struct error *err)
{
	uint64_t size = 0;
	int r = check_viable(t1, group, dev, err);

	if (r)
		return r;
	r = group_set_container(t1, group);
	for (unsigned int i = 0; i < t1->ks.mapping_count; i++)
		size += t1->ks.mappings[i].size;
	if (r)
		return kernel_space_map_error(
			&t1->ks, r, size, err, "VFIO_GROUP_SET_CONTAINER of group %s%s", dev->group,
			r == -EINVAL ? " (its IOMMU cannot map guest memory)" : "");
	return t1->groups ? dma_type1_read_info(t1, err) : first_group(t1, err);
}

/* A group of its own: closing its descriptor takes it out of the container again, and the
 * mappings with it where it was the only one. */
static int join_new(struct dma_type1 *t1, const struct sysfs_device *dev, struct error *err)
{
	_cleanup_free_ struct type1_group *group = calloc(1, sizeof(*group));
	char path[SYSFS_NAME_MAX + 16];
	int r;

	if (!group)
		return error_set_errno(err, ENOMEM, "join IOMMU group %s", dev->group);
	snprintf(path, sizeof(path), "/dev/vfio/%s", dev->group);
	group->fd = vfio_kernel_open(t1->ks.kernel, path, O_RDWR);
	if (group->fd < 0)
		return open_error(group->fd, path, err);
	r = enter_container(t1, group->fd, dev, err);
	if (r) {
		vfio_kernel_close(t1->ks.kernel, group->fd);
		return r;
	}
	snprintf(group->id, sizeof(group->id), "%s", dev->group);
	group->next = t1->groups;
	t1->groups = take_ptr(group);
	return 0;
}

static struct type1_group *find_group(const struct dma_type1 *t1, const char *id)
{
	struct type1_group *group = t1->groups;

	while (group && strcmp(group->id, id) != 0)
		group = group->next;
	return group;
}

/* A new group has none yet. */
static int add_device(struct type1_group *group, struct kernel_device *dev, struct error *err)
{
	for (const struct kernel_device *d = group->devices; d; d = d->next)
		if (!strcmp(d->t.name, dev->t.name))
			return error_set_kind(err, ERROR_CONFLICT, EBUSY, "this VM has it already");
	dev->group = group;
	dev->next = group->devices;
	group->devices = dev;
	return 0;
}

int dma_type1_join(struct dma_space *space, const struct sysfs_device *sysfs,
		   struct kernel_device *dev, struct error *err)
{
	struct dma_type1 *t1 = type1_of(space);
	int r = 0;

	pthread_mutex_lock(&t1->ks.lock);
	if (!find_group(t1, sysfs->group))
		r = join_new(t1, sysfs, err);
	if (!r)
		r = add_device(find_group(t1, sysfs->group), dev, err);
	pthread_mutex_unlock(&t1->ks.lock);
	return r;
}

int dma_type1_take_device(struct dma_space *space, const char *group, struct kernel_device *dev,
			  struct error *err)
{
	struct dma_type1 *t1 = type1_of(space);
	struct type1_group *found;
	int r;

	pthread_mutex_lock(&t1->ks.lock);
	found = find_group(t1, group);
	r = found ? add_device(found, dev, err)
		  : error_set(err, ENOENT, "its VFIO group did not come along");
	pthread_mutex_unlock(&t1->ks.lock);
	return r;
}

void dma_type1_leave(struct dma_space *space, struct kernel_device *dev)
{
	struct dma_type1 *t1 = type1_of(space);
	struct type1_group *group = dev->group, **at = &t1->groups;
	struct kernel_device **link = &group->devices;

	pthread_mutex_lock(&t1->ks.lock);
	while (*link != dev)
		link = &(*link)->next;
	*link = dev->next;
	if (!group->devices) {
		while (*at != group)
			at = &(*at)->next;
		*at = group->next;
		vfio_kernel_close(t1->ks.kernel, group->fd);
		free(group);
	}
	if (!t1->groups)
		t1->range_count = 0;
	pthread_mutex_unlock(&t1->ks.lock);
}
