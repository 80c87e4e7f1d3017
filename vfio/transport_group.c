/* SPDX-License-Identifier: Apache-2.0 */
/* A device by its IOMMU group, in a legacy container. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "vfio/kernel_device.h"
#include "vfio/uapi_vfio.h"

static int group_get_device_fd(const struct kernel_device *dev, const char *name)
{
	return vfio_kernel_ioctl(dev->kernel, dev->group->fd, VFIO_GROUP_GET_DEVICE_FD,
				 (void *)name);
}

static void group_close(struct vfio_transport *t)
{
	struct kernel_device *dev = kernel_device_of(t);

	vfio_kernel_close(dev->kernel, t->fd);
	dma_type1_leave(t->space, dev);
	free(dev);
}

static int group_keep(struct vfio_transport *t, struct kept *kept, const char *id, bool paused,
		      struct error *err)
{
	const struct type1_group *group = kernel_device_of(t)->group;

	return paused ? 0
		      : kept_add(kept, t->fd, group->id, sizeof(group->id), err, "%s/group-device",
				 id);
}

static const struct vfio_transport_ops group_ops = {
	.name = "group",
	.region_info = kernel_device_region_info,
	.irq_info = kernel_device_irq_info,
	.region_read = kernel_device_region_read,
	.region_write = kernel_device_region_write,
	.region_map = kernel_device_region_map,
	.set_irq_fds = kernel_device_set_irq_fds,
	.mask_irq = kernel_device_mask_irq,
	.set_unmask_fd = kernel_device_set_unmask_fd,
	.reset = kernel_device_reset,
	.feature = kernel_device_feature,
	.migration_read = kernel_device_migration_read,
	.migration_write = kernel_device_migration_write,
	.migration_precopy_info = kernel_device_migration_precopy_info,
	.migration_end = kernel_device_migration_end,
	.keep = group_keep,
	.close = group_close,
};

/* The device is in its group, the group in the container. */
static int set_up(struct kernel_device *dev, struct error *err)
{
	int r;

	dev->t.fd = group_get_device_fd(dev, dev->t.name);
	if (dev->t.fd < 0)
		return error_set_errno(
			err, dev->t.fd, "%s: VFIO_GROUP_GET_DEVICE_FD%s", dev->t.name,
			dev->t.fd == -EBUSY ? " (in use by another process, or by its cdev)" : "");
	r = kernel_device_get_info(dev, err);
	if (r)
		vfio_kernel_close(dev->kernel, dev->t.fd);
	return r;
}

struct vfio_transport *vfio_transport_open_group(const char *sysfs_path, struct dma_space *space,
						 struct log *log, struct error *err)
{
	_cleanup_free_ struct sysfs_device *sysfs = calloc(1, sizeof(*sysfs));
	_cleanup_free_ struct kernel_device *dev = calloc(1, sizeof(*dev));

	if (!sysfs || !dev) {
		error_set_errno(err, ENOMEM, "open a device");
		return NULL;
	}
	if (!space || space->ops != &dma_type1_ops) {
		error_set(err, EINVAL, "%s: a group needs a DMA space of a VFIO container",
			  sysfs_path);
		return NULL;
	}
	if (sysfs_device_read(sysfs_path, sysfs, err) || sysfs_device_check(sysfs, err))
		return NULL;
	dev->kernel = kernel_space_of(space)->kernel;
	dev->log = log;
	dev->t.ops = &group_ops;
	dev->t.space = space;
	snprintf(dev->t.name, sizeof(dev->t.name), "%s", sysfs->name);
	if (dma_type1_join(space, sysfs, dev, err)) {
		error_prefix(err, "%s", sysfs->name);
		return NULL;
	}
	if (!set_up(dev, err))
		return &take_ptr(dev)->t;
	dma_type1_leave(space, dev);
	return NULL;
}

bool vfio_transport_kept_group(const struct kept *kept, const char *id)
{
	return kept_has(kept, "%s/group-device", id);
}

struct vfio_transport *vfio_transport_take_group(const char *sysfs_path, struct kept *kept,
						 const char *id, struct dma_space *space,
						 struct log *log, struct error *err)
{
	const char *group = kept_facts(kept, SYSFS_NAME_MAX, "%s/group-device", id);
	int fd = group ? kept_take(kept, "%s/group-device", id) : -1;
	struct kernel_device *dev =
		kernel_device_take(&group_ops, sysfs_path, fd, id, space, log, err);
	char name[SYSFS_NAME_MAX];

	if (!dev || !group) /* no device comes without it */
		return NULL;
	snprintf(name, sizeof(name), "%.*s", SYSFS_NAME_MAX - 1, group);
	if (!dma_type1_take_device(space, name, dev, err))
		return &dev->t;
	vfio_kernel_close(dev->kernel, dev->t.fd);
	free(dev);
	return NULL;
}
