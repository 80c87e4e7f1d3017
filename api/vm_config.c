/* SPDX-License-Identifier: Apache-2.0 */
#include "api/vm_config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

void disk_config_init(struct disk_config *disk)
{
	*disk = (struct disk_config){ .num_queues = 1, .queue_size = 128 };
}

void disk_config_destroy(struct disk_config *disk)
{
	free(disk->id);
	free(disk->path);
	free(disk->serial);
	*disk = (struct disk_config){ 0 };
}

void net_config_init(struct net_config *net)
{
	*net = (struct net_config){
		.num_queues = 2,
		.queue_size = 256,
		.offload_tso = true,
		.offload_ufo = true,
		.offload_csum = true,
	};
}

void net_config_destroy(struct net_config *net)
{
	for (unsigned int i = 0; i < net->fd_count; i++)
		cleanup_close(&net->fds[i]);
	free(net->fds);
	free(net->id);
	free(net->tap);
	free(net->ip);
	free(net->mask);
	free(net->mac);
	*net = (struct net_config){ 0 };
}

void vsock_config_init(struct vsock_config *vsock)
{
	*vsock = (struct vsock_config){ 0 };
}

void vsock_config_destroy(struct vsock_config *vsock)
{
	free(vsock->id);
	free(vsock->socket);
	*vsock = (struct vsock_config){ 0 };
}

void device_config_init(struct device_config *device)
{
	*device = (struct device_config){
		.fd = -1,
		.iommufd = true,
		.x_nv_gpudirect_clique = -1,
	};
}

static void device_migration_destroy(struct device_migration_config *migration)
{
	free(migration->plugin_path);
	free(migration->plugin_arg);
}

void device_config_destroy(struct device_config *device)
{
	free(device->id);
	free(device->path);
	device_migration_destroy(&device->migration);
	/* What is zeroed (its contents were taken, or it was never filled) owns nothing,
	 * standard input least of all. */
	if (device->fd > 0)
		close(device->fd);
	*device = (struct device_config){ .fd = -1 };
}

void user_device_config_destroy(struct user_device_config *device)
{
	free(device->id);
	free(device->socket);
	device_migration_destroy(&device->migration);
	*device = (struct user_device_config){ 0 };
}

void vm_config_init(struct vm_config *config)
{
	*config = (struct vm_config){
		.cpus = { .boot_vcpus = 1, .max_vcpus = 1 },
		.memory = { .size = 512 * MIB, .thp = true },
		.rng = { .src = strdup("/dev/urandom") },
		.serial = { .mode = CONSOLE_NULL },
		.console = { .mode = CONSOLE_TTY },
		.debug_console = { .mode = CONSOLE_OFF, .iobase = 0xe9 },
	};
}

static void console_destroy(struct console_config *console)
{
	free(console->file);
	free(console->socket);
}

void vm_config_destroy(struct vm_config *config)
{
	free(config->payload.kernel);
	free(config->payload.cmdline);
	free(config->payload.initramfs);
	for (unsigned int i = 0; i < config->disk_count; i++)
		disk_config_destroy(&config->disks[i]);
	free(config->disks);
	for (unsigned int i = 0; i < config->net_count; i++)
		net_config_destroy(&config->nets[i]);
	free(config->nets);
	if (config->vsock)
		vsock_config_destroy(config->vsock);
	free(config->vsock);
	for (unsigned int i = 0; i < config->device_count; i++)
		device_config_destroy(&config->devices[i]);
	free(config->devices);
	for (unsigned int i = 0; i < config->user_device_count; i++)
		user_device_config_destroy(&config->user_devices[i]);
	free(config->user_devices);
	free(config->rng.src);
	free(config->balloon);
	console_destroy(&config->serial);
	console_destroy(&config->console);
	console_destroy(&config->debug_console);
	free(config->platform.serial_number);
	free(config->platform.uuid);
	for (unsigned int i = 0; i < config->platform.oem_string_count; i++)
		free(config->platform.oem_strings[i]);
	free(config->platform.oem_strings);
	for (unsigned int i = 0; i < config->landlock_rule_count; i++)
		free(config->landlock_rules[i].path);
	free(config->landlock_rules);
	*config = (struct vm_config){ 0 };
}
