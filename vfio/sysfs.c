/* SPDX-License-Identifier: Apache-2.0 */
#include "vfio/sysfs.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"

static void cleanup_closedir(DIR **d)
{
	if (*d)
		closedir(*d);
}
#define _cleanup_closedir_ __attribute__((cleanup(cleanup_closedir)))

/* The last part of what the link `path`/`name` points to, "" where there is none. */
static void link_name(const char *path, const char *name, char out[SYSFS_NAME_MAX])
{
	char link[PATH_MAX], target[PATH_MAX];
	const char *last;
	ssize_t n;

	out[0] = '\0';
	if (snprintf(link, sizeof(link), "%s/%s", path, name) >= (int)sizeof(link))
		return;
	n = readlink(link, target, sizeof(target) - 1);
	if (n <= 0)
		return;
	target[n] = '\0';
	last = strrchr(target, '/');
	snprintf(out, SYSFS_NAME_MAX, "%.*s", SYSFS_NAME_MAX - 1, last ? last + 1 : target);
}

/* The device's entry in vfio-dev/, and whether that has a device number. -EACCES: there is
 * one that we may not see, as without Landlock's permission. */
static int find_vfio(struct sysfs_device *dev)
{
	_cleanup_closedir_ DIR *d = NULL;
	char path[PATH_MAX];
	struct dirent *entry;

	if (snprintf(path, sizeof(path), "%s/vfio-dev", dev->path) >= (int)sizeof(path))
		return 0;
	d = opendir(path);
	if (!d && errno == EACCES)
		return -EACCES;
	while (d && (entry = readdir(d)))
		if (!strncmp(entry->d_name, "vfio", 4) && strlen(entry->d_name) < sizeof(dev->vfio))
			snprintf(dev->vfio, sizeof(dev->vfio), "%.*s", SYSFS_NAME_MAX - 1,
				 entry->d_name);
	if (dev->vfio[0] && snprintf(path, sizeof(path), "%s/vfio-dev/%s/dev", dev->path,
				     dev->vfio) < (int)sizeof(path))
		dev->cdev = !access(path, F_OK);
	return 0;
}

int sysfs_device_read(const char *path, struct sysfs_device *dev, struct error *err)
{
	const char *name;
	int r;

	memset(dev, 0, sizeof(*dev));
	if (!realpath(path, dev->path))
		return error_set_kind(err, ERROR_BAD_REQUEST, -errno,
				      "%s: no such device: %s; see /sys/bus/pci/devices", path,
				      strerror(errno));
	name = strrchr(dev->path, '/');
	link_name(dev->path, "subsystem", dev->bus);
	if (!dev->bus[0] || !name || strlen(name + 1) >= sizeof(dev->name))
		return error_set_kind(err, ERROR_BAD_REQUEST, -ENODEV,
				      "%s is not a device; the path is one like "
				      "/sys/bus/pci/devices/0000:01:10.0",
				      path);
	snprintf(dev->name, sizeof(dev->name), "%.*s", SYSFS_NAME_MAX - 1, name + 1);
	link_name(dev->path, "driver", dev->driver);
	link_name(dev->path, "iommu_group", dev->group);
	r = find_vfio(dev);
	return r ? error_set_errno(err, r, "%s: read %s/vfio-dev", dev->name, path) : 0;
}

bool sysfs_device_of_fd(int fd, struct sysfs_device *dev)
{
	char path[64];
	struct stat st;

	if (fstat(fd, &st) || !S_ISCHR(st.st_mode))
		return false;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/device", major(st.st_rdev),
		 minor(st.st_rdev));
	return !sysfs_device_read(path, dev, NULL);
}

/* From Linux 6.1 on VFIO's devices have a folder; before, only the driver's name tells. */
static bool is_vfio(const struct sysfs_device *dev)
{
	return dev->vfio[0] || strstr(dev->driver, "vfio") || !strcmp(dev->bus, "mdev");
}

int sysfs_device_check(const struct sysfs_device *dev, struct error *err)
{
	const char *n = dev->name;
	bool bound = dev->driver[0];
	char unbind[2 * SYSFS_NAME_MAX + 64] = "";

	if (!dev->group[0])
		return error_set_kind(
			err, ERROR_BAD_REQUEST, -ENODEV,
			"%s: is in no IOMMU group: the host has no IOMMU that is on; enable "
			"VT-d or AMD-Vi in the firmware and boot with intel_iommu=on",
			n);
	if (is_vfio(dev))
		return 0;
	if (strcmp(dev->bus, "pci") != 0)
		return error_set_kind(err, ERROR_BAD_REQUEST, -ENODEV,
				      "%s: driver %s of bus %s does not serve VFIO", n,
				      bound ? dev->driver : "(none)", dev->bus);
	if (bound)
		snprintf(unbind, sizeof(unbind), "echo %s > devices/%s/driver/unbind; ", n, n);
	return error_set_kind(
		err, ERROR_BAD_REQUEST, -ENODEV,
		"%s: is bound to %s%s, not to vfio-pci; to bind it: cd /sys/bus/pci; "
		"echo vfio-pci > devices/%s/driver_override; %secho %s > drivers_probe",
		n, bound ? "driver " : "no driver", dev->driver, n, unbind, n);
}

unsigned int sysfs_group_strangers(const struct sysfs_device *dev, char *text, size_t size)
{
	/* What may share a group with an assigned device: these do no DMA of their own. */
	static const char *const harmless[] = { "", "pcieport", "pci-stub" };
	_cleanup_closedir_ DIR *d = NULL;
	_cleanup_free_ struct sysfs_device *other = calloc(1, sizeof(*other));
	char path[PATH_MAX];
	struct dirent *entry;
	unsigned int count = 0;
	size_t used = 0;

	text[0] = '\0';
	if (!other ||
	    snprintf(path, sizeof(path), "%s/iommu_group/devices", dev->path) >= (int)sizeof(path))
		return 0;
	d = opendir(path);
	while (d && (entry = readdir(d))) {
		char at[PATH_MAX];
		bool ok = entry->d_name[0] == '.';

		if (ok ||
		    snprintf(at, sizeof(at), "%s/%s", path, entry->d_name) >= (int)sizeof(at) ||
		    sysfs_device_read(at, other, NULL) || is_vfio(other))
			continue;
		for (size_t i = 0; i < sizeof(harmless) / sizeof(harmless[0]); i++)
			ok |= !strcmp(other->driver, harmless[i]);
		if (ok)
			continue;
		if (used < size)
			used += (size_t)snprintf(text + used, size - used, "%s%s (%s)",
						 count ? ", " : "", other->name, other->driver);
		count++;
	}
	return count;
}

bool sysfs_group_reserved(const struct sysfs_device *dev, uint64_t start, uint64_t last,
			  uint64_t *region_start, uint64_t *region_last)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[PATH_MAX], line[128];

	if (snprintf(path, sizeof(path), "%s/iommu_group/reserved_regions", dev->path) >=
	    (int)sizeof(path))
		return false;
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *middle, *rest;
		unsigned long long a = strtoull(line, &middle, 16), b = strtoull(middle, &rest, 16);

		/* Users may map over those called relaxable. */
		if (rest == middle || strstr(rest, "relaxable") || a > b || b < start || a > last)
			continue;
		*region_start = a;
		*region_last = b;
		return true;
	}
	return false;
}
