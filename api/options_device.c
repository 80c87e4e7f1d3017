/* SPDX-License-Identifier: Apache-2.0 */
/* --disk, --net, --vsock, --device and --user-device, and what ferryctl adds to a running VM. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "api/options.h"
#include "api/options_keys.h"
#include "api/options_vm.h"
#include "base/bytes.h"
#include "base/fd.h"
#include "base/parse.h"

#define FDS_MAX 256 /* of the whole command line */

#define SYNTAX(name, table) \
	{ \
		.option = (name), .keys = (table), .key_count = ARRAY_SIZE(table) \
	}

#define RATE(type, member) offsetof(type, rate_limiter_config.member)
/* clang-format off */
#define RATE_KEYS(type) \
	{ "bw_size", KEY_SIZE, RATE(type, bandwidth.size), 0, UINT64_MAX, NULL, NULL }, \
	{ "bw_one_time_burst", KEY_SIZE, RATE(type, bandwidth.one_time_burst), 0, UINT64_MAX, \
	  NULL, NULL }, \
	{ "bw_refill_time", KEY_U64, RATE(type, bandwidth.refill_time), 1, UINT32_MAX, \
	  "milliseconds, at least 1", NULL }, \
	{ "ops_size", KEY_U64, RATE(type, ops.size), 0, UINT64_MAX, NULL, NULL }, \
	{ "ops_one_time_burst", KEY_U64, RATE(type, ops.one_time_burst), 0, UINT64_MAX, \
	  NULL, NULL }, \
	{ "ops_refill_time", KEY_U64, RATE(type, ops.refill_time), 1, UINT32_MAX, \
	  "milliseconds, at least 1", NULL }
/* clang-format on */

static int check_bucket(const char *option, const char *prefix,
			const struct rate_bucket_config *bucket, struct error *err)
{
	if (bucket->size && !bucket->refill_time)
		return option_error(err, "%s: %s_size needs %s_refill_time=<milliseconds>", option,
				    prefix, prefix);
	if (!bucket->size && (bucket->refill_time || bucket->one_time_burst))
		return option_error(err, "%s: %s_refill_time and %s_one_time_burst need %s_size",
				    option, prefix, prefix, prefix);
	return 0;
}

static int check_rate(const char *option, const struct rate_config *rate, struct error *err)
{
	int r = check_bucket(option, "bw", &rate->bandwidth, err);

	return r ? r : check_bucket(option, "ops", &rate->ops, err);
}

static const struct option_key disk_keys[] = {
	{ "path", KEY_STRING, offsetof(struct disk_config, path), 0, OPTION_PATH_MAX, NULL, NULL },
	{ "readonly", KEY_BOOL, offsetof(struct disk_config, readonly), 0, 0, NULL, NULL },
	{ "direct", KEY_BOOL, offsetof(struct disk_config, direct), 0, 0, NULL, NULL },
	{ "serial", KEY_STRING, offsetof(struct disk_config, serial), 0, 20, NULL, NULL },
	{ "num_queues", KEY_UINT, offsetof(struct disk_config, num_queues), 1, 16, NULL, NULL },
	{ "queue_size", KEY_POWER, offsetof(struct disk_config, queue_size), 2, 1024, NULL, NULL },
	{ "id", KEY_STRING, offsetof(struct disk_config, id), 0, OPTION_ID_MAX, NULL, NULL },
	RATE_KEYS(struct disk_config),
	{ "_disable_io_uring", KEY_BOOL, offsetof(struct disk_config, disable_io_uring), 0, 0, NULL,
	  NULL },
};
static const struct option_syntax disk_syntax = SYNTAX("--disk", disk_keys);

int disk_config_parse(struct disk_config *disk, const char *text, struct error *err)
{
	int r;

	disk_config_init(disk);
	r = option_parse_keys(&disk_syntax, text, disk, NULL, err);
	if (!r && !disk->path)
		r = option_error(err, "--disk: path=<file or block device> is missing");
	if (!r)
		r = check_rate("--disk", &disk->rate_limiter_config, err);
	if (r)
		disk_config_destroy(disk);
	return r;
}

static int store_text(char **field, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static bool is_address(const char *text)
{
	struct in6_addr addr;

	return inet_pton(AF_INET, text, &addr) == 1 || inet_pton(AF_INET6, text, &addr) == 1;
}

static int parse_ip(void *target, const char *text)
{
	struct net_config *net = target;

	return is_address(text) ? store_text(&net->ip, text) : -EINVAL;
}

static int parse_mask(void *target, const char *text)
{
	struct net_config *net = target;
	struct in_addr addr;
	uint32_t host;

	if (!is_address(text))
		return -EINVAL;
	if (inet_pton(AF_INET, text, &addr) == 1) {
		host = ~ntohl(addr.s_addr);
		/* Ones, then zeros: the host part is one less than a power of two. */
		if (host & (host + 1))
			return -EINVAL;
	}
	return store_text(&net->mask, text);
}

static int parse_net_mac(void *target, const char *text)
{
	struct net_config *net = target;
	uint8_t mac[6];

	/* A multicast address is nobody's own. */
	if (parse_mac(text, mac) || mac[0] & 1)
		return -EINVAL;
	return store_text(&net->mac, text);
}

static int open_descriptor(const char *text, int *fd)
{
	uint64_t v;

	if (parse_u64(text, &v) || v < 3 || v > INT_MAX)
		return -EINVAL;
	/* A number nobody opened would be somebody else's descriptor later on. */
	if (fcntl((int)v, F_GETFD) < 0)
		return -EINVAL;
	*fd = (int)v;
	return 0;
}

int option_descriptors(const char *text, int **out, unsigned int *out_count)
{
	char *elements[FD_PASS_MAX];
	unsigned int count;
	int *fds;
	int r = option_list(text, elements, FD_PASS_MAX, &count);

	if (r)
		return r == -ENOMEM ? r : -EINVAL;
	fds = calloc(count ? count : 1, sizeof(*fds));
	if (!fds)
		r = -ENOMEM;
	for (unsigned int i = 0; i < count && !r; i++) {
		r = open_descriptor(elements[i], &fds[i]);
		for (unsigned int j = 0; j < i && !r; j++)
			if (fds[j] == fds[i])
				r = -EINVAL;
	}
	option_elements_free(elements, count);
	if (r || !count) {
		free(fds);
		return r ? r : -EINVAL;
	}
	/* Nothing this process starts has any use for them. */
	for (unsigned int i = 0; i < count; i++)
		fcntl(fds[i], F_SETFD, FD_CLOEXEC);
	*out = fds;
	*out_count = count;
	return 0;
}

static int parse_fds(void *target, const char *text)
{
	struct net_config *net = target;

	return option_descriptors(text, &net->fds, &net->fd_count);
}

static const struct option_key net_keys[] = {
	{ "tap", KEY_STRING, offsetof(struct net_config, tap), 0, IFNAMSIZ - 1, NULL, NULL },
	{ "ip", KEY_PARSE, 0, 0, 0, "an IP address such as 192.168.249.1", parse_ip },
	{ "mask", KEY_PARSE, 0, 0, 0, "a netmask such as 255.255.255.0", parse_mask },
	{ "mac", KEY_PARSE, 0, 0, 0, "a unicast MAC address such as 2e:89:a8:e4:bf:01",
	  parse_net_mac },
	{ "mtu", KEY_UINT, offsetof(struct net_config, mtu), 68, 65535, NULL, NULL },
	{ "num_queues", KEY_UINT, offsetof(struct net_config, num_queues), 2, 64,
	  "an even number from 2 to 64: a receive and a transmit queue per pair", NULL },
	{ "queue_size", KEY_POWER, offsetof(struct net_config, queue_size), 2, 1024, NULL, NULL },
	{ "fd", KEY_LIST, 0, 0, 0, "the numbers of open descriptors from 3 on, each once, as [3,4]",
	  parse_fds },
	{ "id", KEY_STRING, offsetof(struct net_config, id), 0, OPTION_ID_MAX, NULL, NULL },
	{ "vhost", KEY_BOOL, offsetof(struct net_config, vhost), 0, 0, NULL, NULL },
	{ "offload_tso", KEY_BOOL, offsetof(struct net_config, offload_tso), 0, 0, NULL, NULL },
	{ "offload_ufo", KEY_BOOL, offsetof(struct net_config, offload_ufo), 0, 0, NULL, NULL },
	{ "offload_csum", KEY_BOOL, offsetof(struct net_config, offload_csum), 0, 0, NULL, NULL },
	RATE_KEYS(struct net_config),
};
static const struct option_syntax net_syntax = SYNTAX("--net", net_keys);

static int check_net(struct net_config *net, uint64_t seen, struct error *err)
{
	if (net->num_queues % 2)
		return option_error(err,
				    "--net: num_queues=%u: must be even: a receive and a "
				    "transmit queue per pair",
				    net->num_queues);
	if (net->fd_count && net->tap)
		return option_error(err, "--net: tap=%s and fd= exclude each other", net->tap);
	if (!net->mask != !net->ip)
		return option_error(err, "--net: ip= and mask= need each other");
	if (net->fd_count && net->ip)
		return option_error(err, "--net: ip= is for a tap that ferry opens; with fd= give "
					 "the interface its address before");
	if (net->fd_count && !option_key_seen(&net_syntax, seen, "num_queues"))
		net->num_queues = 2 * net->fd_count;
	if (net->fd_count && net->num_queues != 2 * net->fd_count)
		return option_error(err,
				    "--net: num_queues=%u: must be %u with %u descriptors, one "
				    "per queue pair",
				    net->num_queues, 2 * net->fd_count, net->fd_count);
	return check_rate("--net", &net->rate_limiter_config, err);
}

int net_config_parse(struct net_config *net, const char *text, struct error *err)
{
	uint64_t seen;
	int r;

	net_config_init(net);
	r = option_parse_keys(&net_syntax, text, net, &seen, err);
	if (!r)
		r = check_net(net, seen, err);
	if (r)
		net_config_destroy(net);
	return r;
}

static const struct option_key vsock_keys[] = {
	/* 0 to 2 are the hypervisor, local and the host; the last is "any". */
	{ "cid", KEY_U64, offsetof(struct vsock_config, cid), 3, UINT32_MAX - 1, NULL, NULL },
	{ "socket", KEY_STRING, offsetof(struct vsock_config, socket), 0, OPTION_SOCKET_MAX, NULL,
	  NULL },
	{ "id", KEY_STRING, offsetof(struct vsock_config, id), 0, OPTION_ID_MAX, NULL, NULL },
};
static const struct option_syntax vsock_syntax = SYNTAX("--vsock", vsock_keys);

int vsock_config_parse(struct vsock_config *vsock, const char *text, struct error *err)
{
	uint64_t seen;
	int r;

	vsock_config_init(vsock);
	r = option_parse_keys(&vsock_syntax, text, vsock, &seen, err);
	if (!r && !option_key_seen(&vsock_syntax, seen, "cid"))
		r = option_error(err, "--vsock: cid=<number from 3 on> is missing");
	if (r)
		vsock_config_destroy(vsock);
	return r;
}

static int parse_device_fd(void *target, const char *text)
{
	struct device_config *device = target;
	int fd, r = open_descriptor(text, &fd);

	if (r)
		return r;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	device->fd = fd;
	return 0;
}

static int parse_bars(void *target, const char *text)
{
	struct device_config *device = target;
	char *elements[6];
	unsigned int count;
	uint8_t bars = 0;
	int r = option_list(text, elements, ARRAY_SIZE(elements), &count);

	if (r)
		return r == -ENOMEM ? r : -EINVAL;
	for (unsigned int i = 0; i < count && !r; i++) {
		uint64_t bar;

		if (parse_u64(elements[i], &bar) || bar > 5 || bars & 1 << bar)
			r = -EINVAL;
		else
			bars |= (uint8_t)(1 << bar);
	}
	option_elements_free(elements, count);
	if (!r)
		device->x_exclude_mmap_bars = bars;
	return r;
}

static int parse_tracking(const char *text, enum dirty_tracking *tracking)
{
	*tracking = !strcmp(text, "all") ? DIRTY_TRACKING_ALL : DIRTY_TRACKING_AUTO;
	return *tracking == DIRTY_TRACKING_ALL || !strcmp(text, "auto") ? 0 : -EINVAL;
}

static int parse_device_tracking(void *target, const char *text)
{
	return parse_tracking(text, &((struct device_config *)target)->dirty_tracking);
}

static int parse_user_device_tracking(void *target, const char *text)
{
	return parse_tracking(text, &((struct user_device_config *)target)->dirty_tracking);
}

#define MIGRATION_KEYS(type, parse) \
	{ "migration_plugin", \
	  KEY_STRING, \
	  offsetof(type, migration.plugin_path), \
	  0, \
	  OPTION_PATH_MAX, \
	  NULL, \
	  NULL }, \
		{ "migration_plugin_arg", \
		  KEY_STRING, \
		  offsetof(type, migration.plugin_arg), \
		  0, \
		  OPTION_PATH_MAX, \
		  NULL, \
		  NULL }, \
	{ \
		"dirty_tracking", KEY_PARSE, 0, 0, 0, "auto or all", parse \
	}

static int check_migration(const char *option, const struct device_migration_config *migration,
			   struct error *err)
{
	if (migration->plugin_path && *migration->plugin_path != '/')
		return option_error(err, "%s: migration_plugin=%.80s: must be absolute", option,
				    migration->plugin_path);
	if (migration->plugin_arg && !migration->plugin_path)
		return option_error(err, "%s: migration_plugin_arg= needs migration_plugin=<path>",
				    option);
	return 0;
}

static const struct option_key device_keys[] = {
	{ "path", KEY_STRING, offsetof(struct device_config, path), 0, OPTION_PATH_MAX, NULL,
	  NULL },
	{ "fd", KEY_PARSE, 0, 0, 0, "the number of an open descriptor from 3 on", parse_device_fd },
	{ "id", KEY_STRING, offsetof(struct device_config, id), 0, OPTION_ID_MAX, NULL, NULL },
	{ "iommufd", KEY_BOOL, offsetof(struct device_config, iommufd), 0, 0, NULL, NULL },
	{ "x_nv_gpudirect_clique", KEY_UINT, offsetof(struct device_config, x_nv_gpudirect_clique),
	  0, 15, NULL, NULL },
	{ "x_exclude_mmap_bars", KEY_LIST, 0, 0, 0, "numbers of BARs, 0 to 5, each once, as [2,4]",
	  parse_bars },
	MIGRATION_KEYS(struct device_config, parse_device_tracking),
};
static const struct option_syntax device_syntax = SYNTAX("--device", device_keys);

static int check_device(const struct device_config *device, struct error *err)
{
	if (!device->path && device->fd < 0)
		return option_error(err, "--device: path=<folder in /sys of a PCI or mediated "
					 "device> is missing");
	if (device->path && device->fd >= 0)
		return option_error(err, "--device: path=%.80s and fd= exclude each other",
				    device->path);
	if (device->path && *device->path != '/')
		return option_error(err,
				    "--device: path=%.80s: must be absolute, as "
				    "/sys/bus/pci/devices/0000:01:10.0",
				    device->path);
	if (device->fd >= 0 && !device->iommufd)
		return option_error(err,
				    "--device: iommufd=off: an opened device (fd=) needs iommufd");
	return check_migration("--device", &device->migration, err);
}

int device_config_parse(struct device_config *device, const char *text, struct error *err)
{
	int r;

	device_config_init(device);
	r = option_parse_keys(&device_syntax, text, device, NULL, err);
	if (!r)
		r = check_device(device, err);
	if (r)
		device_config_destroy(device);
	return r;
}

static const struct option_key user_device_keys[] = {
	{ "socket", KEY_STRING, offsetof(struct user_device_config, socket), 0, OPTION_SOCKET_MAX,
	  NULL, NULL },
	{ "id", KEY_STRING, offsetof(struct user_device_config, id), 0, OPTION_ID_MAX, NULL, NULL },
	MIGRATION_KEYS(struct user_device_config, parse_user_device_tracking),
};
static const struct option_syntax user_device_syntax = SYNTAX("--user-device", user_device_keys);

int user_device_config_parse(struct user_device_config *device, const char *text, struct error *err)
{
	int r;

	*device = (struct user_device_config){ 0 };
	r = option_parse_keys(&user_device_syntax, text, device, NULL, err);
	if (!r && !device->socket)
		r = option_error(err, "--user-device: socket=<socket of a vfio-user server> is "
				      "missing");
	if (!r)
		r = check_migration("--user-device", &device->migration, err);
	if (r)
		user_device_config_destroy(device);
	return r;
}

/* --- all descriptors together ------------------------------------------------------- */

struct descriptors {
	int fds[FDS_MAX];
	unsigned int count;
};

/* A descriptor has one owner, or two would close it. */
static int note_fd(struct descriptors *all, int fd, struct error *err)
{
	if (fd < 0)
		return 0;
	for (unsigned int i = 0; i < all->count; i++)
		if (all->fds[i] == fd)
			return option_error(err, "descriptor %d is given twice", fd);
	if (all->count == FDS_MAX)
		return option_error(err, "more than %d descriptors are given", FDS_MAX);
	all->fds[all->count++] = fd;
	return 0;
}

int option_check_descriptors(const struct ferry_options *o, struct error *err)
{
	const struct config_overrides *overrides = &o->restore.overrides;
	struct descriptors all = { .count = 0 };
	int r = note_fd(&all, o->api_socket_fd, err);

	if (!r)
		r = note_fd(&all, o->event_monitor_fd, err);
	for (unsigned int i = 0; i < o->config.net_count; i++)
		for (unsigned int j = 0; !r && j < o->config.nets[i].fd_count; j++)
			r = note_fd(&all, o->config.nets[i].fds[j], err);
	for (unsigned int i = 0; !r && i < o->config.device_count; i++)
		r = note_fd(&all, o->config.devices[i].fd, err);
	for (unsigned int i = 0; i < overrides->net_fds_count; i++)
		for (unsigned int j = 0; !r && j < overrides->net_fds[i].fd_count; j++)
			r = note_fd(&all, overrides->net_fds[i].fds[j], err);
	return r;
}
