/* SPDX-License-Identifier: Apache-2.0 */
/* What can be said of assigned devices without looking at the host. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/vm_config_check.h"

#define CLIQUE_MAX 15 /* four bits of NVIDIA's capability */
#define BARS_ALL 0x3f
#define CONFIG_PLUGIN_ARG_MAX 4095

static int check_device_path(const char *path, const char *where, struct error *err)
{
	int r = config_check_path(path, where, "path", err);

	if (r)
		return r;
	if (*path != '/')
		return bad(err,
			   "%s.path: \"%.80s\" must be the absolute path of a sysfs folder, as "
			   "/sys/bus/pci/devices/0000:01:10.0",
			   where, path);
	return 0;
}

int config_check_migration(const struct device_migration_config *migration, const char *where,
			   struct error *err)
{
	const char *path = migration->plugin_path;
	int r;

	if (migration->plugin_arg && strlen(migration->plugin_arg) > CONFIG_PLUGIN_ARG_MAX)
		return bad(err, "%s.migration.plugin_arg: is longer than %d bytes", where,
			   CONFIG_PLUGIN_ARG_MAX);
	if (!path)
		return 0;
	r = config_check_path(path, where, "migration.plugin_path", err);
	if (!r && *path != '/')
		r = bad(err, "%s.migration.plugin_path: \"%.80s\" must be absolute", where, path);
	return r;
}

static int check_migration(const struct device_migration_config *migration,
			   enum dirty_tracking dirty_tracking, const char *where, struct error *err)
{
	if (dirty_tracking != DIRTY_TRACKING_AUTO && dirty_tracking != DIRTY_TRACKING_ALL)
		return bad(err, "%s.dirty_tracking: must be auto or all", where);
	if (migration->plugin_arg && !migration->plugin_path)
		return bad(err, "%s.migration.plugin_arg: is a plugin's: give a plugin_path, too",
			   where);
	return config_check_migration(migration, where, err);
}

static int check_device(const struct device_config *device, const char *where, struct error *err)
{
	int r = config_check_id(device->id, where, err);

	if (r)
		return r;
	if (device->path && device->fd >= 0)
		return bad(err, "%s: give a path or a descriptor, not both", where);
	if (!device->path && device->fd < 0)
		return bad(err,
			   "%s.path: a path is needed, or a descriptor of the device that comes "
			   "with the request (SCM_RIGHTS)",
			   where);
	if (device->path && (r = check_device_path(device->path, where, err)))
		return r;
	if (!device->path && !device->iommufd)
		return bad(err,
			   "%s.iommufd: must not be off: an opened device (VFIO cdev) needs it",
			   where);
	if (device->x_nv_gpudirect_clique < -1 || device->x_nv_gpudirect_clique > CLIQUE_MAX)
		return bad(err, "%s.x_nv_gpudirect_clique: %d is not in 0 to %d", where,
			   device->x_nv_gpudirect_clique, CLIQUE_MAX);
	if (device->x_exclude_mmap_bars & ~BARS_ALL)
		return bad(err, "%s.x_exclude_mmap_bars: a device has BARs 0 to 5", where);
	return check_migration(&device->migration, device->dirty_tracking, where, err);
}

int device_config_validate(const struct device_config *device, struct error *err)
{
	return check_device(device, "device", err);
}

static int check_user_device(const struct user_device_config *device, const char *where,
			     struct error *err)
{
	int r = config_check_id(device->id, where, err);

	if (!r)
		r = config_check_socket(device->socket ? device->socket : "", where, err);
	return r ? r : check_migration(&device->migration, device->dirty_tracking, where, err);
}

int user_device_config_validate(const struct user_device_config *device, struct error *err)
{
	return check_user_device(device, "user_device", err);
}

static int check_devices(const struct vm_config *config, struct error *err)
{
	for (unsigned int i = 0; i < config->device_count; i++) {
		const struct device_config *device = &config->devices[i];
		char where[32];
		int r;

		snprintf(where, sizeof(where), "devices[%u]", i);
		if ((r = check_device(device, where, err)))
			return r;
	}
	return 0;
}

static int check_user_devices(const struct vm_config *config, struct error *err)
{
	for (unsigned int i = 0; i < config->user_device_count; i++) {
		const struct user_device_config *device = &config->user_devices[i];
		char where[32];
		int r;

		snprintf(where, sizeof(where), "user_devices[%u]", i);
		if ((r = check_user_device(device, where, err)))
			return r;
	}
	return 0;
}

int config_check_assigned(const struct vm_config *config, struct error *err)
{
	int r = check_devices(config, err);

	return r ? r : check_user_devices(config, err);
}
