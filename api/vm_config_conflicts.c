/* SPDX-License-Identifier: Apache-2.0 */
/* What a device must not share with the VM's others, and what it needs of the VM. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/vm_config_check.h"

static bool same(const char *a, const char *b)
{
	return a && b && !strcmp(a, b);
}

/* `id` has it; at creation it may have no name yet. */
static int taken(struct error *err, const char *where, const char *field, const char *value,
		 const char *id, const char *list, unsigned int index)
{
	if (id)
		return bad(err, "%s.%s: %s is %s's already", where, field, value, id);
	return bad(err, "%s.%s: %s is %s[%u]'s already", where, field, value, list, index);
}

/* Writers of one file would undo each other's work; its lock says so, too, but not who. */
static int check_disk(const struct vm_config *config, unsigned int count,
		      const struct disk_config *disk, const char *where, struct error *err)
{
	if (disk->num_queues > config->cpus.boot_vcpus)
		return bad(err, "%s.num_queues: %u queues for %u vCPUs", where, disk->num_queues,
			   config->cpus.boot_vcpus);
	for (unsigned int i = 0; i < count; i++) {
		const struct disk_config *other = &config->disks[i];

		if (same(disk->path, other->path) && !(disk->readonly && other->readonly))
			return taken(err, where, "path", disk->path, other->id, "disks", i);
	}
	return 0;
}

static int check_net(const struct vm_config *config, unsigned int count,
		     const struct net_config *net, const char *where, struct error *err)
{
	if (net->num_queues / 2 > config->cpus.boot_vcpus)
		return bad(err, "%s.num_queues: %u queue pairs for %u vCPUs", where,
			   net->num_queues / 2, config->cpus.boot_vcpus);
	for (unsigned int i = 0; i < count; i++)
		if (same(net->tap, config->nets[i].tap))
			return taken(err, where, "tap", net->tap, config->nets[i].id, "net", i);
	return 0;
}

static int check_device(const struct vm_config *config, unsigned int count,
			const struct device_config *device, const char *where, struct error *err)
{
	char number[16];

	for (unsigned int i = 0; i < count; i++) {
		const struct device_config *other = &config->devices[i];

		if (same(device->path, other->path))
			return taken(err, where, "path", device->path, other->id, "devices", i);
		snprintf(number, sizeof(number), "%d", device->fd);
		if (device->fd >= 0 && device->fd == other->fd)
			return taken(err, where, "fd", number, other->id, "devices", i);
	}
	return 0;
}

/* Sockets of any kind: two that listen at one path, or a device that would connect to
 * another of its own VM. */
static int check_socket(const struct vm_config *config, unsigned int user_devices,
			const struct vsock_config *vsock, const char *socket, const char *where,
			struct error *err)
{
	const struct {
		const struct console_config *config;
		const char *name;
	} consoles[] = { { &config->serial, "serial" }, { &config->console, "console" } };

	for (unsigned int i = 0; i < user_devices; i++)
		if (same(socket, config->user_devices[i].socket))
			return taken(err, where, "socket", socket, config->user_devices[i].id,
				     "user_devices", i);
	if (vsock && same(socket, vsock->socket))
		return taken(err, where, "socket", socket, vsock->id, "vsock", 0);
	for (size_t i = 0; i < sizeof(consoles) / sizeof(consoles[0]); i++)
		if (consoles[i].config->mode == CONSOLE_SOCKET &&
		    same(socket, consoles[i].config->socket))
			return taken(err, where, "socket", socket, consoles[i].name, "", 0);
	return 0;
}

int config_check_conflicts(const struct vm_config *config, struct error *err)
{
	char where[40];
	int r = 0;

	for (unsigned int i = 0; !r && i < config->disk_count; i++) {
		snprintf(where, sizeof(where), "disks[%u]", i);
		r = check_disk(config, i, &config->disks[i], where, err);
	}
	for (unsigned int i = 0; !r && i < config->net_count; i++) {
		snprintf(where, sizeof(where), "net[%u]", i);
		r = check_net(config, i, &config->nets[i], where, err);
	}
	for (unsigned int i = 0; !r && i < config->device_count; i++) {
		snprintf(where, sizeof(where), "devices[%u]", i);
		r = check_device(config, i, &config->devices[i], where, err);
	}
	if (!r && config->vsock)
		r = check_socket(config, 0, NULL, config->vsock->socket, "vsock", err);
	for (unsigned int i = 0; !r && i < config->user_device_count; i++) {
		snprintf(where, sizeof(where), "user_devices[%u]", i);
		r = check_socket(config, i, config->vsock, config->user_devices[i].socket, where,
				 err);
	}
	return r;
}

int vm_config_admit_disk(const struct vm_config *config, const struct disk_config *disk,
			 struct error *err)
{
	return check_disk(config, config->disk_count, disk, "disk", err);
}

int vm_config_admit_net(const struct vm_config *config, const struct net_config *net,
			struct error *err)
{
	return check_net(config, config->net_count, net, "net", err);
}

int vm_config_admit_vsock(const struct vm_config *config, const struct vsock_config *vsock,
			  struct error *err)
{
	return check_socket(config, config->user_device_count, NULL, vsock->socket, "vsock", err);
}

int vm_config_admit_device(const struct vm_config *config, const struct device_config *device,
			   struct error *err)
{
	return check_device(config, config->device_count, device, "device", err);
}

int vm_config_admit_user_device(const struct vm_config *config,
				const struct user_device_config *device, struct error *err)
{
	return check_socket(config, config->user_device_count, config->vsock, device->socket,
			    "user_device", err);
}
