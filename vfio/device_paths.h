/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host's files say of a device before it is opened: whether VFIO has it, and which
 * files it is reached by, so that a sandbox leaves those within reach and no more. Reads
 * sysfs only. Any thread.
 */
#ifndef VFIO_DEVICE_PATHS_H
#define VFIO_DEVICE_PATHS_H

#include <stdbool.h>

#include "base/error.h"

#define VFIO_IOMMU_NODE "/dev/iommu"

/* 0 where VFIO can open the device of sysfs_path; else -errno, and err says why not: no such
 * device, no IOMMU, another driver's (and the commands that bind it to vfio-pci). */
int vfio_device_check(const char *sysfs_path, struct error *err);

enum vfio_path_kind {
	VFIO_PATH_NODE,	  /* a character device, to read, write and ioctl */
	VFIO_PATH_FOLDER, /* of sysfs, to read */
};

/*
 * Calls fn for every path that the device of sysfs_path needs, by the way
 * vfio_transport_open_* would take it (iommufd: the cdev where the host has it). Folders come
 * first, the device's own before all, with links resolved. Ends at the first fn that is not
 * 0, and returns that; a device that is not there needs nothing.
 */
int vfio_device_paths(const char *sysfs_path, bool iommufd,
		      int (*fn)(void *opaque, enum vfio_path_kind kind, const char *path),
		      void *opaque);

#endif
