/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be said of a configuration without looking at the host. Objects are
 * named as in the JSON ("disks[1]") when they are part of a VM's configuration
 * and by kind ("disk") when they stand alone.
 */
#include "api/vm_config_check.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/parse.h"

#define QUEUE_SIZE_MAX 1024
#define DISK_QUEUES_MAX 16
#define NET_PAIRS_MAX 32
#define DISK_SERIAL_MAX 20 /* VIRTIO_BLK_ID_BYTES */
#define ID_MAX 63	   /* struct vm_device_place */
#define MEMORY_MAX (1ULL << 46)
#define MEMORY_ALIGN (4 * KIB)
#define HUGEPAGE_MIN (64 * KIB)
#define VSOCK_CID_MIN 3		    /* 0 to 2: hypervisor, local, host */
#define VSOCK_CID_MAX 0xfffffffeULL /* the next is VMADDR_CID_ANY */

/* ids name nodes of the state tree, metrics and log lines: keep to what all bear. */
int config_check_id(const char *id, const char *where, struct error *err)
{
	size_t len;

	if (!id)
		return 0;
	len = strlen(id);
	if (!len || len > ID_MAX)
		return bad(err, "%s.id: must have 1 to %d characters, not %zu", where, ID_MAX, len);
	for (size_t i = 0; i < len; i++)
		if (!isascii((unsigned char)id[i]) ||
		    (!isalnum((unsigned char)id[i]) && !strchr("._-+:,", id[i])))
			return bad(err,
				   "%s.id: \"%s\" may have letters, digits and . _ - + : , only",
				   where, id);
	if (!strncmp(id, "__", 2))
		return bad(err, "%s.id: \"%s\": names that begin with __ are reserved", where, id);
	return 0;
}

int config_check_path(const char *path, const char *where, const char *field, struct error *err)
{
	if (!path || !*path)
		return bad(err, "%s.%s: a path is needed", where, field);
	if (strlen(path) >= 4096)
		return bad(err, "%s.%s: the path is longer than 4095 bytes", where, field);
	return 0;
}

int config_check_socket(const char *path, const char *where, struct error *err)
{
	size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;

	if (!*path)
		return bad(err, "%s.socket: a path is needed", where);
	if (strlen(path) > max)
		return bad(err,
			   "%s.socket: \"%s\" is longer than the %zu bytes a unix socket's path "
			   "can have",
			   where, path, max);
	return 0;
}

static int check_queue_size(unsigned int size, const char *where, struct error *err)
{
	if (!is_power_of_2(size) || size < 2 || size > QUEUE_SIZE_MAX)
		return bad(err, "%s.queue_size: %u is not a power of two from 2 to %d", where, size,
			   QUEUE_SIZE_MAX);
	return 0;
}

static int check_bucket(const struct rate_bucket_config *bucket, const char *where,
			const char *name, struct error *err)
{
	if (bucket->size && !bucket->refill_time)
		return bad(err,
			   "%s.rate_limiter_config.%s.refill_time: must not be 0 where size is set",
			   where, name);
	if (!bucket->size && bucket->one_time_burst)
		return bad(
			err,
			"%s.rate_limiter_config.%s.size: must not be 0 where one_time_burst is set",
			where, name);
	return 0;
}

static int check_rate(const struct rate_config *rate, const char *where, struct error *err)
{
	int r = check_bucket(&rate->bandwidth, where, "bandwidth", err);

	return r ? r : check_bucket(&rate->ops, where, "ops", err);
}

static int check_disk(const struct disk_config *disk, const char *where, struct error *err)
{
	int r;

	if ((r = config_check_id(disk->id, where, err)) ||
	    (r = config_check_path(disk->path, where, "path", err)) ||
	    (r = check_queue_size(disk->queue_size, where, err)) ||
	    (r = check_rate(&disk->rate_limiter_config, where, err)))
		return r;
	if (disk->num_queues < 1 || disk->num_queues > DISK_QUEUES_MAX)
		return bad(err, "%s.num_queues: %u is not in 1 to %d", where, disk->num_queues,
			   DISK_QUEUES_MAX);
	if (disk->serial && strlen(disk->serial) > DISK_SERIAL_MAX)
		return bad(err, "%s.serial: \"%s\" is longer than %d bytes", where, disk->serial,
			   DISK_SERIAL_MAX);
	return 0;
}

int disk_config_validate(const struct disk_config *disk, struct error *err)
{
	return check_disk(disk, "disk", err);
}

static int check_tap(const char *tap, const char *where, struct error *err)
{
	size_t len = strlen(tap);

	if (!len || len >= IFNAMSIZ)
		return bad(err, "%s.tap: \"%s\": an interface's name has 1 to %d characters", where,
			   tap, IFNAMSIZ - 1);
	for (size_t i = 0; i < len; i++)
		if (!isgraph((unsigned char)tap[i]) || strchr("/:%", tap[i]))
			return bad(err, "%s.tap: \"%s\" is no interface name", where, tap);
	if (!strcmp(tap, ".") || !strcmp(tap, ".."))
		return bad(err, "%s.tap: \"%s\" is no interface name", where, tap);
	return 0;
}

/* Ones, then zeroes only. */
static bool contiguous_mask(const uint8_t *mask, size_t len)
{
	bool ended = false;

	for (size_t bit = 0; bit < len * 8; bit++) {
		bool one = mask[bit / 8] & (0x80 >> bit % 8);

		if (one && ended)
			return false;
		ended = !one;
	}
	return true;
}

static int check_address(const struct net_config *net, const char *where, struct error *err)
{
	uint8_t addr[16], mask[16];
	int family = AF_INET;

	if (!net->ip && !net->mask)
		return 0;
	if (!net->ip)
		return bad(err, "%s.mask: set without an ip", where);
	if (inet_pton(AF_INET, net->ip, addr) != 1) {
		family = AF_INET6;
		if (inet_pton(AF_INET6, net->ip, addr) != 1)
			return bad(err, "%s.ip: \"%s\" is no IPv4 or IPv6 address", where, net->ip);
	}
	if (!net->mask)
		return bad(err, "%s.mask: must be set where ip is", where);
	if (inet_pton(family, net->mask, mask) != 1 ||
	    !contiguous_mask(mask, family == AF_INET ? 4 : 16))
		return bad(err, "%s.mask: \"%s\" is no netmask of the ip's family", where,
			   net->mask);
	return 0;
}

static int check_mac(const char *text, const char *where, struct error *err)
{
	static const uint8_t zero[6];
	uint8_t mac[6];

	if (parse_mac(text, mac))
		return bad(err, "%s.mac: \"%s\" is no MAC address (xx:xx:xx:xx:xx:xx)", where,
			   text);
	if (mac[0] & 1)
		return bad(err, "%s.mac: %s is a multicast address", where, text);
	if (!memcmp(mac, zero, sizeof(mac)))
		return bad(err, "%s.mac: must not be all zero; leave it out for a random one",
			   where);
	return 0;
}

static int check_net_fds(const struct net_config *net, const char *where, struct error *err)
{
	if (!net->fd_count)
		return 0;
	if (net->tap)
		return bad(err, "%s: give a tap or descriptors, not both", where);
	if (net->fd_count > FD_PASS_MAX || net->num_queues != net->fd_count * 2)
		return bad(err,
			   "%s.num_queues: is %u, must be twice the number of descriptors (%u)",
			   where, net->num_queues, net->fd_count);
	for (unsigned int i = 0; i < net->fd_count; i++) {
		if (net->fds[i] < 0)
			return bad(err,
				   "%s.fds[%u]: no descriptor came with the request (SCM_RIGHTS)",
				   where, i);
		for (unsigned int k = 0; k < i; k++)
			if (net->fds[i] == net->fds[k])
				return bad(err, "%s.fds[%u]: descriptor %d is there twice", where,
					   i, net->fds[i]);
	}
	return 0;
}

static int check_net(const struct net_config *net, const char *where, struct error *err)
{
	int r;

	if ((r = config_check_id(net->id, where, err)) ||
	    (net->tap && (r = check_tap(net->tap, where, err))) ||
	    (r = check_address(net, where, err)) ||
	    (net->mac && (r = check_mac(net->mac, where, err))) ||
	    (r = check_queue_size(net->queue_size, where, err)) ||
	    (r = check_rate(&net->rate_limiter_config, where, err)))
		return r;
	if (net->num_queues < 2 || net->num_queues % 2 || net->num_queues > 2 * NET_PAIRS_MAX)
		return bad(err, "%s.num_queues: %u is not an even number from 2 to %d", where,
			   net->num_queues, 2 * NET_PAIRS_MAX);
	if (net->mtu && (net->mtu < 68 || net->mtu > 65535))
		return bad(err, "%s.mtu: %u is not in 68 to 65535", where, net->mtu);
	return check_net_fds(net, where, err);
}

int net_config_validate(const struct net_config *net, struct error *err)
{
	return check_net(net, "net", err);
}

static int check_vsock(const struct vsock_config *vsock, struct error *err)
{
	int r = config_check_id(vsock->id, "vsock", err);

	if (r)
		return r;
	if (vsock->cid < VSOCK_CID_MIN || vsock->cid > VSOCK_CID_MAX)
		return bad(err, "vsock.cid: %llu is not in %d to %llu",
			   (unsigned long long)vsock->cid, VSOCK_CID_MIN, VSOCK_CID_MAX);
	return vsock->socket ? config_check_socket(vsock->socket, "vsock", err) : 0;
}

int vsock_config_validate(const struct vsock_config *vsock, struct error *err)
{
	return check_vsock(vsock, err);
}

static int check_topology(const struct cpus_config *cpus, struct error *err)
{
	const unsigned int levels[] = { cpus->threads_per_core, cpus->cores_per_die,
					cpus->dies_per_package, cpus->packages };
	static const char *const names[] = { "threads_per_core", "cores_per_die",
					     "dies_per_package", "packages" };
	unsigned int product = 1, set = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(levels); i++)
		set += levels[i] != 0;
	if (!set)
		return 0;
	for (unsigned int i = 0; i < ARRAY_SIZE(levels); i++) {
		if (!levels[i] || levels[i] > VM_CPUS_MAX)
			return bad(err, "cpus.topology.%s: %u is not in 1 to %d", names[i],
				   levels[i], VM_CPUS_MAX);
		product *= levels[i]; /* at most 64^4 */
	}
	if (product != cpus->boot_vcpus)
		return bad(err, "cpus.topology: multiplies up to %u vCPUs, boot_vcpus is %u",
			   product, cpus->boot_vcpus);
	return 0;
}

static int check_cpus(const struct cpus_config *cpus, struct error *err)
{
	if (cpus->boot_vcpus < 1 || cpus->boot_vcpus > VM_CPUS_MAX)
		return bad(err, "cpus.boot_vcpus: %u is not in 1 to %d", cpus->boot_vcpus,
			   VM_CPUS_MAX);
	if (cpus->max_vcpus != cpus->boot_vcpus)
		return bad(err,
			   "cpus.max_vcpus: %u, must equal boot_vcpus (%u): CPU hot-plug is not "
			   "offered",
			   cpus->max_vcpus, cpus->boot_vcpus);
	return check_topology(cpus, err);
}

static int check_memory(const struct memory_config *memory, struct error *err)
{
	uint64_t align = MEMORY_ALIGN;

	if (memory->hugepage_size && !memory->hugepages)
		return bad(err, "memory.hugepage_size: set without hugepages");
	if (memory->hugepage_size) {
		align = memory->hugepage_size;
		if (!is_power_of_2(align) || align < HUGEPAGE_MIN)
			return bad(err,
				   "memory.hugepage_size: %llu is no size of a huge page (2M, 1G)",
				   (unsigned long long)align);
	}
	if (!memory->size || memory->size > MEMORY_MAX)
		return bad(err, "memory.size: %llu is not in 1 to %llu (64 TiB)",
			   (unsigned long long)memory->size, MEMORY_MAX);
	if (memory->size % align)
		return bad(err, "memory.size: %llu is no multiple of the page size %llu",
			   (unsigned long long)memory->size, (unsigned long long)align);
	return 0;
}

static int check_payload(const struct payload_config *payload, struct error *err)
{
	if (!payload->kernel || !*payload->kernel)
		return bad(err, "payload.kernel: a kernel is needed");
	if (payload->initramfs)
		return config_check_path(payload->initramfs, "payload", "initramfs", err);
	return config_check_path(payload->kernel, "payload", "kernel", err);
}

static int check_console(const struct console_config *console, const char *where, struct error *err)
{
	if (console->mode == CONSOLE_FILE)
		return config_check_path(console->file, where, "file", err);
	if (console->mode == CONSOLE_SOCKET) {
		if (!console->socket)
			return bad(err, "%s.socket: must be set where the mode is Socket", where);
		return config_check_socket(console->socket, where, err);
	}
	return 0;
}

static int check_consoles(const struct vm_config *config, struct error *err)
{
	const struct console_config *const all[] = { &config->serial, &config->console,
						     &config->debug_console };
	static const char *const names[] = { "serial", "console", "debug_console" };
	const char *tty = NULL;
	int r;

	if (config->debug_console.mode == CONSOLE_SOCKET)
		return bad(err, "debug_console.mode: Socket is not offered");
	for (unsigned int i = 0; i < ARRAY_SIZE(all); i++) {
		if ((r = check_console(all[i], names[i], err)))
			return r;
		if (all[i]->mode != CONSOLE_TTY)
			continue;
		if (tty)
			return bad(err,
				   "%s.mode: the terminal is %s's already; set one of them to Off "
				   "or Null",
				   names[i], tty);
		tty = names[i];
	}
	if (config->debug_console.mode != CONSOLE_OFF && !config->debug_console.iobase)
		return bad(err, "debug_console.iobase: must not be 0");
	return 0;
}

static bool valid_uuid(const char *text)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

	if (strlen(text) != strlen(form))
		return false;
	for (size_t i = 0; form[i]; i++)
		if (form[i] == '-' ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return false;
	return true;
}

static int check_misc(const struct vm_config *config, struct error *err)
{
	int r = config_check_path(config->rng.src, "rng", "src", err);

	if (r)
		return r;
	if (config->balloon &&
	    (config->balloon->size > config->memory.size || config->balloon->size % MEMORY_ALIGN))
		return bad(err,
			   "balloon.size: %llu is not a multiple of 4 KiB up to the memory's size",
			   (unsigned long long)config->balloon->size);
	if (config->watchdog)
		return bad(err, "watchdog: not offered");
	if (config->platform.uuid && !valid_uuid(config->platform.uuid))
		return bad(err, "platform.uuid: \"%s\" is no UUID", config->platform.uuid);
	for (unsigned int i = 0; i < config->landlock_rule_count; i++) {
		char where[40];

		snprintf(where, sizeof(where), "landlock_rules[%u]", i);
		if ((r = config_check_path(config->landlock_rules[i].path, where, "path", err)))
			return r;
		if (!config->landlock_rules[i].read && !config->landlock_rules[i].write)
			return bad(err, "%s.access: must be r, w or rw", where);
	}
	return 0;
}

/* --- the whole ------------------------------------------------------------------ */

static int check_disks(const struct vm_config *config, struct error *err)
{
	for (unsigned int i = 0; i < config->disk_count; i++) {
		const struct disk_config *disk = &config->disks[i];
		char where[32];
		int r;

		snprintf(where, sizeof(where), "disks[%u]", i);
		if ((r = check_disk(disk, where, err)))
			return r;
	}
	return 0;
}

static int check_nets(const struct vm_config *config, struct error *err)
{
	for (unsigned int i = 0; i < config->net_count; i++) {
		const struct net_config *net = &config->nets[i];
		char where[32];
		int r;

		snprintf(where, sizeof(where), "net[%u]", i);
		if ((r = check_net(net, where, err)))
			return r;
	}
	return 0;
}

int vm_config_validate(struct vm_config *config, struct error *err)
{
	int r;

	if (0ULL + config->disk_count + config->net_count + config->device_count +
		    config->user_device_count >=
	    CONFIG_DEVICES_MAX)
		return bad(err, "disks, net, devices, user_devices: more than %d devices",
			   CONFIG_DEVICES_MAX - 1);
	if ((r = check_cpus(&config->cpus, err)) || (r = check_memory(&config->memory, err)) ||
	    (r = check_payload(&config->payload, err)) || (r = check_disks(config, err)) ||
	    (r = check_nets(config, err)) ||
	    (config->vsock && (r = check_vsock(config->vsock, err))) ||
	    (r = config_check_assigned(config, err)) || (r = check_consoles(config, err)) ||
	    (r = config_check_conflicts(config, err)) || (r = check_misc(config, err)))
		return r;
	return config_check_ids(config, err);
}
