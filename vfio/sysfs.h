/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sysfs says about a device to be assigned: a PCI function
 * (/sys/bus/pci/devices/0000:01:10.0) or a mediated device
 * (/sys/bus/mdev/devices/UUID). Everything is read below the device's own folder.
 * Private to vfio/. Any thread.
 */
#ifndef VFIO_SYSFS_H
#define VFIO_SYSFS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define SYSFS_NAME_MAX 128

struct sysfs_device {
	char path[PATH_MAX];
	char name[SYSFS_NAME_MAX];   /* "0000:01:10.0", a UUID */
	char bus[SYSFS_NAME_MAX];    /* "pci", "mdev" */
	char driver[SYSFS_NAME_MAX]; /* "": none */
	char group[SYSFS_NAME_MAX];  /* IOMMU group's number; "": no IOMMU */
	char vfio[SYSFS_NAME_MAX]; /* "vfio7": registered with VFIO (Linux 6.1 or newer); "": not */
	bool cdev;		   /* and has a character device */
};

/* -ENOENT: nothing there; -ENODEV: no device; -EACCES: not for us to see. */
int sysfs_device_read(const char *path, struct sysfs_device *dev, struct error *err);
/* Of a cdev that was opened by someone else; false where that cannot be told. */
bool sysfs_device_of_fd(int fd, struct sysfs_device *dev);
/* 0 where VFIO can open it; else -ENODEV: no IOMMU, or another driver has it. The error
 * says which, and the commands that bind it. */
int sysfs_device_check(const struct sysfs_device *dev, struct error *err);
/* The devices of dev's group that other drivers hold, as "0000:01:00.1 (igb), ...";
 * returns how many there are. */
unsigned int sysfs_group_strangers(const struct sysfs_device *dev, char *text, size_t size);
/* The first reserved region of the group that [start, last] overlaps. */
bool sysfs_group_reserved(const struct sysfs_device *dev, uint64_t start, uint64_t last,
			  uint64_t *region_start, uint64_t *region_last);

#endif
