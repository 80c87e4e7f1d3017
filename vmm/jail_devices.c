/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assigned devices in the jail. They are the one thing that options name by a path of the
 * host's: what is found there is bound to the same place in the jail.
 *
 *	/sys		a tmpfs with the folders of the devices and of their IOMMU groups, bound
 *			read-only, and links to them where options go by links
 *	/dev/vfio	a tmpfs with their nodes, the jail's user's
 *
 * Both are mounts of the jail's namespace: they end with it, and the next jail in the same
 * directory begins without devices.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfio/device_paths.h"
#include "vmm/jail_private.h"

#define QUIET (MS_NOSUID | MS_NOEXEC)

struct additions {
	const struct jail_options *jail;
	char folder[PATH_MAX]; /* of the device at hand; "": there is none */
	struct error *err;
};

static int inside(const struct jail_options *jail, const char *path, char out[PATH_MAX],
		  struct error *err)
{
	if (snprintf(out, PATH_MAX, "%s%s", jail->dir, path) >= PATH_MAX)
		return error_set(err, ENAMETOOLONG, "jail: %s%s", jail->dir, path);
	return 0;
}

/* Every folder on the way to path; its last part, too, if `whole`. */
static int make_way(const struct jail_options *jail, const char *path, bool whole,
		    struct error *err)
{
	char part[PATH_MAX];
	int r = 0;

	for (const char *slash = strchr(path + 1, '/'); !r && slash;
	     slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		r = jail_make_dir(jail, part, err);
	}
	return r || !whole ? r : jail_make_dir(jail, path, err);
}

static int bind_folder(const struct jail_options *jail, const char *path, struct error *err)
{
	char target[PATH_MAX];
	int r = make_way(jail, path, true, err);

	if (!r)
		r = inside(jail, path, target, err);
	if (r)
		return r;
	if (mount(path, target, NULL, MS_BIND, NULL) ||
	    mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NODEV | QUIET, NULL))
		return error_set_errno(err, errno, "jail: bind %s", path);
	return 0;
}

static int add_path(void *opaque, enum vfio_path_kind kind, const char *path)
{
	struct additions *a = opaque;

	if (kind == VFIO_PATH_NODE)
		return jail_make_node(a->jail, path, a->err);
	if (!a->folder[0])
		snprintf(a->folder, sizeof(a->folder), "%s", path);
	return bind_folder(a->jail, path, a->err);
}

/* The way the options take to the device's folder. */
static int add_link(const struct additions *a, const char *path)
{
	char link[PATH_MAX];
	int r = make_way(a->jail, path, false, a->err);

	if (!r)
		r = inside(a->jail, path, link, a->err);
	if (!r && symlink(a->folder, link) && errno != EEXIST)
		r = error_set_errno(a->err, errno, "jail: link %s", path);
	return r;
}

static int add_device(const struct jail_options *jail, const struct device_config *device,
		      struct error *err)
{
	struct additions a = { .jail = jail, .err = err };
	int r;

	/* It would be followed before there is a jail. */
	if (strstr(device->path, "/../"))
		return error_set(err, EINVAL, "jail: device %s: give a path without \"..\"",
				 device->path);
	r = vfio_device_paths(device->path, device->iommufd, add_path, &a);
	if (r || !a.folder[0] || !strcmp(a.folder, device->path))
		return r;
	return add_link(&a, device->path);
}

static int mount_tmpfs(const struct jail_options *jail, const char *path, unsigned long flags,
		       struct error *err)
{
	char target[PATH_MAX];
	int r = jail_make_dir(jail, path, err);

	if (!r)
		r = inside(jail, path, target, err);
	if (!r && mount("tmpfs", target, "tmpfs", QUIET | flags, "size=1m,mode=0755"))
		r = error_set_errno(err, errno, "jail: mount %s", target);
	return r;
}

static int close_tmpfs(const struct jail_options *jail, const char *path, unsigned long flags,
		       struct error *err)
{
	char target[PATH_MAX];
	int r = inside(jail, path, target, err);

	if (!r && mount(NULL, target, NULL, MS_REMOUNT | MS_RDONLY | QUIET | flags, NULL))
		r = error_set_errno(err, errno, "jail: close %s", target);
	return r;
}

static bool is_of_sysfs(const struct device_config *device)
{
	return device->path && !strncmp(device->path, "/sys/", strlen("/sys/"));
}

int jail_add_devices(const struct ferry_options *options, struct error *err)
{
	const struct vm_config *config = &options->config;
	const struct jail_options *jail = &options->jail;
	unsigned int count = 0;
	int r;

	for (unsigned int i = 0; i < config->device_count; i++)
		count += is_of_sysfs(&config->devices[i]);
	if (!count)
		return 0;
	r = mount_tmpfs(jail, "/sys", MS_NODEV, err);
	if (!r)
		r = mount_tmpfs(jail, "/dev/vfio", 0, err);
	if (!r)
		r = jail_make_dir(jail, "/dev/vfio/devices", err);
	for (unsigned int i = 0; !r && i < config->device_count; i++)
		if (is_of_sysfs(&config->devices[i]))
			r = add_device(jail, &config->devices[i], err);
	if (!r)
		r = close_tmpfs(jail, "/sys", MS_NODEV, err);
	return r ? r : close_tmpfs(jail, "/dev/vfio", 0, err);
}
