/* SPDX-License-Identifier: Apache-2.0 */
#include "vfio/device_paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vfio/sysfs.h"

int vfio_device_check(const char *sysfs_path, struct error *err)
{
	_cleanup_free_ struct sysfs_device *dev = calloc(1, sizeof(*dev));
	int r;

	if (!dev)
		return error_set_errno(err, ENOMEM, "%s", sysfs_path);
	r = sysfs_device_read(sysfs_path, dev, err);
	return r ? r : sysfs_device_check(dev, err);
}

int vfio_device_paths(const char *sysfs_path, bool iommufd,
		      int (*fn)(void *opaque, enum vfio_path_kind kind, const char *path),
		      void *opaque)
{
	_cleanup_free_ struct sysfs_device *dev = calloc(1, sizeof(*dev));
	bool cdev;
	char path[SYSFS_NAME_MAX + 32];
	int r;

	if (!dev || sysfs_device_read(sysfs_path, dev, NULL))
		return 0;
	cdev = iommufd && dev->cdev && !access(VFIO_IOMMU_NODE, F_OK);
	r = fn(opaque, VFIO_PATH_FOLDER, dev->path);
	if (r || !dev->group[0])
		return r;
	/* Reserved regions, and who else is in the group. */
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%s", dev->group);
	r = fn(opaque, VFIO_PATH_FOLDER, path);
	if (!r)
		r = fn(opaque, VFIO_PATH_NODE, cdev ? VFIO_IOMMU_NODE : "/dev/vfio/vfio");
	snprintf(path, sizeof(path), cdev ? "/dev/vfio/devices/%s" : "/dev/vfio/%s",
		 cdev ? dev->vfio : dev->group);
	return r ? r : fn(opaque, VFIO_PATH_NODE, path);
}
