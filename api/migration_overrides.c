/* SPDX-License-Identifier: Apache-2.0 */
/* What differs where a VM comes up again, and how it gets into the configuration. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/migration_config.h"
#include "api/migration_config_check.h"
#include "api/vm_config_check.h"
#include "base/cleanup.h"

static void console_free(struct console_config *console)
{
	if (!console)
		return;
	free(console->file);
	free(console->socket);
	free(console);
}

static void migration_free(struct device_migration_config *migration)
{
	free(migration->plugin_path);
	free(migration->plugin_arg);
}

void config_overrides_destroy(struct config_overrides *o)
{
	for (unsigned int i = 0; i < o->net_count; i++) {
		free(o->nets[i].id);
		free(o->nets[i].tap);
		free(o->nets[i].mac);
	}
	free(o->nets);
	for (unsigned int i = 0; i < o->net_fds_count; i++) {
		for (unsigned int k = 0; k < o->net_fds[i].fd_count; k++)
			cleanup_close(&o->net_fds[i].fds[k]);
		free(o->net_fds[i].fds);
		free(o->net_fds[i].id);
	}
	free(o->net_fds);
	for (unsigned int i = 0; i < o->disk_count; i++) {
		free(o->disks[i].id);
		free(o->disks[i].path);
	}
	free(o->disks);
	for (unsigned int i = 0; i < o->device_count; i++) {
		free(o->devices[i].id);
		free(o->devices[i].path);
		cleanup_close(&o->devices[i].fd);
		migration_free(&o->devices[i].migration);
	}
	free(o->devices);
	for (unsigned int i = 0; i < o->user_device_count; i++) {
		free(o->user_devices[i].id);
		free(o->user_devices[i].socket);
		migration_free(&o->user_devices[i].migration);
	}
	free(o->user_devices);
	if (o->vsock)
		free(o->vsock->socket);
	free(o->vsock);
	console_free(o->serial);
	console_free(o->console);
	*o = (struct config_overrides){ 0 };
}

/* --- by themselves ------------------------------------------------------------------ */

/* What net_config_validate() calls "net" is one of several here. */
static int number_net(int r, unsigned int index, struct error *err)
{
	char text[ERROR_MESSAGE_MAX];

	if (!r || !err || strncmp(err->message, "net.", 4))
		return r;
	snprintf(text, sizeof(text), "net[%u]%.400s", index, err->message + 3);
	memcpy(err->message, text, sizeof(text));
	return r;
}

static const struct net_fds_override *fds_of(const struct config_overrides *o, const char *id)
{
	for (unsigned int i = 0; i < o->net_fds_count; i++)
		if (o->net_fds[i].id && !strcmp(o->net_fds[i].id, id))
			return &o->net_fds[i];
	return NULL;
}

static int check_net(const struct config_overrides *o, unsigned int index, struct error *err)
{
	const struct net_override *net = &o->nets[index];
	struct net_config probe;
	int r;

	net_config_init(&probe);
	probe.id = net->id;
	probe.tap = net->tap;
	probe.mac = net->mac;
	r = number_net(net_config_validate(&probe, err), index, err);
	if (r)
		return r;
	if (!net->id)
		return bad(err, "net[%u].id: is missing", index);
	for (unsigned int i = 0; i < index; i++)
		if (!strcmp(o->nets[i].id, net->id))
			return bad(err, "net[%u].id: \"%s\" is net[%u]'s already", index, net->id,
				   i);
	if (net->tap && fds_of(o, net->id))
		return bad(err, "net[%u].tap: \"%s\" has descriptors (net_fds): give one of them",
			   index, net->id);
	return 0;
}

static int check_net_fds(const struct config_overrides *o, unsigned int index, struct error *err)
{
	const struct net_fds_override *fds = &o->net_fds[index];
	char where[32];
	int r;

	snprintf(where, sizeof(where), "net_fds[%u]", index);
	r = config_check_id(fds->id, where, err);
	if (r)
		return r;
	if (!fds->id)
		return bad(err, "%s.id: is missing", where);
	if (!fds->fd_count)
		return bad(err, "%s.num_fds: is missing", where);
	if (fds_of(o, fds->id) != fds)
		return bad(err, "%s.id: \"%s\" is there twice", where, fds->id);
	return 0;
}

static int check_disk(const struct config_overrides *o, unsigned int index, struct error *err)
{
	const struct disk_override *disk = &o->disks[index];
	char where[32];
	int r;

	snprintf(where, sizeof(where), "disks[%u]", index);
	if ((r = config_check_id(disk->id, where, err)) ||
	    (r = config_check_path(disk->path, where, "path", err)))
		return r;
	if (!disk->id)
		return bad(err, "%s.id: is missing", where);
	for (unsigned int i = 0; i < index; i++)
		if (!strcmp(o->disks[i].id, disk->id))
			return bad(err, "%s.id: \"%s\" is disks[%u]'s already", where, disk->id, i);
	return 0;
}

static int check_device(const struct config_overrides *o, unsigned int index, struct error *err)
{
	const struct device_override *device = &o->devices[index];
	char where[32];
	int r;

	snprintf(where, sizeof(where), "devices[%u]", index);
	if ((r = config_check_id(device->id, where, err)) ||
	    (r = config_check_path(device->path, where, "path", err)))
		return r;
	if (!device->id)
		return bad(err, "%s.id: is missing", where);
	for (unsigned int i = 0; i < index; i++)
		if (!strcmp(o->devices[i].id, device->id))
			return bad(err, "%s.id: \"%s\" is devices[%u]'s already", where, device->id,
				   i);
	return config_check_migration(&device->migration, where, err);
}

static int check_user_device(const struct config_overrides *o, unsigned int index,
			     struct error *err)
{
	const struct user_device_override *device = &o->user_devices[index];
	char where[32];
	int r;

	snprintf(where, sizeof(where), "user_devices[%u]", index);
	if ((r = config_check_id(device->id, where, err)))
		return r;
	if (!device->id)
		return bad(err, "%s.id: is missing", where);
	for (unsigned int i = 0; i < index; i++)
		if (!strcmp(o->user_devices[i].id, device->id))
			return bad(err, "%s.id: \"%s\" is user_devices[%u]'s already", where,
				   device->id, i);
	r = config_check_socket(device->socket, where, err);
	return r ? r : config_check_migration(&device->migration, where, err);
}

static int check_console(const struct console_config *console, const char *field, struct error *err)
{
	if (!console)
		return 0;
	if (console->mode == CONSOLE_FILE)
		return config_check_path(console->file, field, "file", err);
	if (console->mode != CONSOLE_SOCKET)
		return 0;
	if (!console->socket)
		return bad(err, "%s.socket: must be set where the mode is Socket", field);
	return config_check_socket(console->socket, field, err);
}

int config_overrides_validate(const struct config_overrides *o, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < o->net_count && !r; i++)
		r = check_net(o, i, err);
	for (unsigned int i = 0; i < o->net_fds_count && !r; i++)
		r = check_net_fds(o, i, err);
	for (unsigned int i = 0; i < o->disk_count && !r; i++)
		r = check_disk(o, i, err);
	for (unsigned int i = 0; i < o->device_count && !r; i++)
		r = check_device(o, i, err);
	for (unsigned int i = 0; i < o->user_device_count && !r; i++)
		r = check_user_device(o, i, err);
	if (!r && o->vsock) {
		struct vsock_config probe = {
			.cid = o->vsock->cid ? o->vsock->cid : 3,
			.socket = o->vsock->socket,
		};

		r = vsock_config_validate(&probe, err);
	}
	if (!r)
		r = check_console(o->serial, "serial", err);
	return r ? r : check_console(o->console, "console", err);
}

/* --- into a configuration ------------------------------------------------------------ */

static void replace(char **field, char **with)
{
	if (!*with)
		return;
	free(*field);
	*field = *with;
	*with = NULL;
}

static struct net_config *find_net(struct vm_config *config, const char *id)
{
	for (unsigned int i = 0; i < config->net_count; i++)
		if (config->nets[i].id && !strcmp(config->nets[i].id, id))
			return &config->nets[i];
	return NULL;
}

static void drop_fds(struct net_config *net)
{
	for (unsigned int i = 0; i < net->fd_count; i++)
		cleanup_close(&net->fds[i]);
	free(net->fds);
	net->fds = NULL;
	net->fd_count = 0;
}

/* The address was that of the tap, which is another now. */
static void drop_address(struct net_config *net)
{
	free(net->ip);
	free(net->mask);
	net->ip = net->mask = NULL;
}

static int apply_net(struct net_override *o, unsigned int index, struct vm_config *config,
		     struct error *err)
{
	struct net_config *net = find_net(config, o->id);

	if (!net)
		return bad(err, "net[%u].id: \"%s\": the VM has no such network device", index,
			   o->id);
	if (o->tap) {
		drop_fds(net);
		drop_address(net);
	}
	replace(&net->tap, &o->tap);
	replace(&net->mac, &o->mac);
	return 0;
}

static int apply_net_fds(struct net_fds_override *o, unsigned int index, struct vm_config *config,
			 struct error *err)
{
	struct net_config *net = find_net(config, o->id);

	if (!net)
		return bad(err, "net_fds[%u].id: \"%s\": the VM has no such network device", index,
			   o->id);
	if (net->num_queues != 2 * o->fd_count)
		return bad(err,
			   "net_fds[%u].num_fds: %u: \"%s\" has %u pairs of queues, each takes a "
			   "descriptor",
			   index, o->fd_count, o->id, net->num_queues / 2);
	drop_fds(net);
	drop_address(net);
	free(net->tap);
	net->tap = NULL;
	net->fds = o->fds;
	net->fd_count = o->fd_count;
	o->fds = NULL;
	o->fd_count = 0;
	return 0;
}

static int apply_disk(struct disk_override *o, unsigned int index, struct vm_config *config,
		      struct error *err)
{
	for (unsigned int i = 0; i < config->disk_count; i++)
		if (config->disks[i].id && !strcmp(config->disks[i].id, o->id)) {
			replace(&config->disks[i].path, &o->path);
			return 0;
		}
	return bad(err, "disks[%u].id: \"%s\": the VM has no such disk", index, o->id);
}

static int apply_device(struct device_override *o, unsigned int index, struct vm_config *config,
			struct error *err)
{
	for (unsigned int i = 0; i < config->device_count; i++) {
		struct device_config *device = &config->devices[i];

		if (!device->id || strcmp(device->id, o->id) != 0)
			continue;
		free(take_ptr(device->path));
		cleanup_close(&device->fd);
		replace(&device->path, &o->path);
		device->fd = take_fd(&o->fd);
		replace(&device->migration.plugin_path, &o->migration.plugin_path);
		replace(&device->migration.plugin_arg, &o->migration.plugin_arg);
		return 0;
	}
	return bad(err, "devices[%u].id: \"%s\": the VM has no such assigned device", index, o->id);
}

static int apply_user_device(struct user_device_override *o, unsigned int index,
			     struct vm_config *config, struct error *err)
{
	for (unsigned int i = 0; i < config->user_device_count; i++) {
		struct user_device_config *device = &config->user_devices[i];

		if (!device->id || strcmp(device->id, o->id) != 0)
			continue;
		replace(&device->socket, &o->socket);
		replace(&device->migration.plugin_path, &o->migration.plugin_path);
		replace(&device->migration.plugin_arg, &o->migration.plugin_arg);
		return 0;
	}
	return bad(err, "user_devices[%u].id: \"%s\": the VM has no such device", index, o->id);
}

/* Where it goes may differ; whether the guest has the device may not. */
static int apply_console(struct console_config **o, struct console_config *console,
			 const char *field, struct error *err)
{
	if (!*o)
		return 0;
	if (console->mode == CONSOLE_OFF && (*o)->mode != CONSOLE_OFF)
		return bad(err, "%s.mode: the VM has none (Off), and gets none here", field);
	if (console->mode != CONSOLE_OFF && (*o)->mode == CONSOLE_OFF)
		return bad(err, "%s.mode: the VM has one, which cannot go; Null keeps it quiet",
			   field);
	free(console->file);
	free(console->socket);
	*console = **o;
	free(*o);
	*o = NULL;
	return 0;
}

static int apply_vsock(struct vsock_override *o, struct vsock_config *vsock, struct error *err)
{
	if (!o)
		return 0;
	if (!vsock)
		return bad(err, "vsock: the VM has no vsock device");
	replace(&vsock->socket, &o->socket);
	if (o->cid)
		vsock->cid = o->cid;
	return 0;
}

int config_overrides_apply(struct config_overrides *o, struct vm_config *config, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < o->net_count && !r; i++)
		r = apply_net(&o->nets[i], i, config, err);
	for (unsigned int i = 0; i < o->net_fds_count && !r; i++)
		r = apply_net_fds(&o->net_fds[i], i, config, err);
	for (unsigned int i = 0; i < o->disk_count && !r; i++)
		r = apply_disk(&o->disks[i], i, config, err);
	for (unsigned int i = 0; i < o->device_count && !r; i++)
		r = apply_device(&o->devices[i], i, config, err);
	for (unsigned int i = 0; i < o->user_device_count && !r; i++)
		r = apply_user_device(&o->user_devices[i], i, config, err);
	if (!r)
		r = apply_vsock(o->vsock, config->vsock, err);
	if (!r)
		r = apply_console(&o->serial, &config->serial, "serial", err);
	if (!r)
		r = apply_console(&o->console, &config->console, "console", err);
	return r ? r : vm_config_validate(config, err);
}
