/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the devices that can be plugged in. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/config_json_fields.h"
#include "base/fd.h"

/* --- disks, net, vsock ---------------------------------------------------------- */

static bool bucket_absent(const void *target)
{
	const struct rate_bucket_config *bucket = target;

	return !bucket->size && !bucket->one_time_burst && !bucket->refill_time;
}

static const struct json_field bucket_fields[] = {
	FIELD(rate_bucket_config, size, U64, .flags = JSON_FIELD_REQUIRED),
	FIELD(rate_bucket_config, one_time_burst, U64,
	      .flags = JSON_FIELD_NULLABLE | JSON_FIELD_UNSET_0),
	FIELD(rate_bucket_config, refill_time, U64, .flags = JSON_FIELD_REQUIRED),
	{ 0 },
};

static const struct json_object bucket_object = {
	.fields = bucket_fields,
	.absent = bucket_absent,
};

static bool rate_absent(const void *target)
{
	const struct rate_config *rate = target;

	return bucket_absent(&rate->bandwidth) && bucket_absent(&rate->ops);
}

static const struct json_field rate_fields[] = {
	FIELD(rate_config, bandwidth, OBJECT, .flags = JSON_FIELD_NULLABLE,
	      .object = &bucket_object),
	FIELD(rate_config, ops, OBJECT, .flags = JSON_FIELD_NULLABLE, .object = &bucket_object),
	{ 0 },
};

static const struct json_object rate_object = {
	.fields = rate_fields,
	.absent = rate_absent,
};

static void disk_init(void *target)
{
	disk_config_init(target);
}

static const struct json_field disk_fields[] = {
	FIELD(disk_config, id, STRING),
	FIELD(disk_config, path, STRING),
	FIELD(disk_config, readonly, BOOL),
	FIELD(disk_config, direct, BOOL),
	FIELD(disk_config, disable_io_uring, BOOL),
	FIELD(disk_config, serial, STRING),
	FIELD(disk_config, num_queues, UINT),
	FIELD(disk_config, queue_size, UINT),
	FIELD(disk_config, rate_limiter_config, OBJECT, .flags = JSON_FIELD_NULLABLE,
	      .object = &rate_object),
	PCI_FIELDS,
	OFF("vhost_user"),
	OFF("vhost_socket"),
	OFF("rate_limit_group"),
	OFF("queue_affinity"),
	OFF("backing_files"),
	OFF_OR("sparse", "true"),
	OFF_OR("image_type", "Raw|Unknown"),
	OFF_OR("lock_granularity", "ByteRange|Full"),
	OFF("disable_aio"),
	{ 0 },
};

const struct json_object disk_object = {
	.fields = disk_fields,
	.size = sizeof(struct disk_config),
	.init = disk_init,
};

/*
 * "fds": a descriptor's number means nothing in another process, so the array only
 * says how many of the descriptors sent with the request are this device's: one -1
 * each, which is also what vm.info answers.
 */
static int read_fds(void *target, const json_t *json, const struct json_where *where,
		    struct error *err)
{
	struct net_config *net = target;
	size_t n = json_array_size(json);

	if (!json_is_array(json))
		return json_bad(err, where, "must be an array, not %s", json_type_name(json));
	if (n > FD_PASS_MAX)
		return json_bad(err, where, "has %zu descriptors, at most %d are allowed", n,
				FD_PASS_MAX);
	for (size_t i = 0; i < n; i++) {
		const json_t *value = json_array_get(json, i);

		if (!json_is_integer(value) || json_integer_value(value) != -1)
			return json_bad(err, where,
					"may have -1 only: send the descriptors themselves with "
					"the request (SCM_RIGHTS)");
	}
	if (!n)
		return 0;
	net->fds = malloc(n * sizeof(*net->fds));
	if (!net->fds)
		return error_set_errno(err, ENOMEM, "read configuration");
	for (size_t i = 0; i < n; i++)
		net->fds[i] = -1;
	net->fd_count = (unsigned int)n;
	return 0;
}

static json_t *write_fds(const void *target)
{
	const struct net_config *net = target;
	json_t *array;

	if (!net->fd_count)
		return json_null();
	array = json_array();
	for (unsigned int i = 0; array && i < net->fd_count; i++)
		if (json_array_append_new(array, json_integer(-1))) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static void net_init(void *target)
{
	net_config_init(target);
}

static const struct json_field net_fields[] = {
	FIELD(net_config, id, STRING),
	FIELD(net_config, tap, STRING),
	FIELD(net_config, ip, STRING),
	FIELD(net_config, mask, STRING),
	FIELD(net_config, mac, STRING),
	FIELD(net_config, mtu, UINT, .flags = JSON_FIELD_NULLABLE | JSON_FIELD_UNSET_0),
	FIELD(net_config, num_queues, UINT),
	FIELD(net_config, queue_size, UINT),
	FIELD(net_config, vhost, BOOL),
	FIELD(net_config, offload_tso, BOOL),
	FIELD(net_config, offload_ufo, BOOL),
	FIELD(net_config, offload_csum, BOOL),
	{ .name = "fds",
	  .kind = JSON_FIELD_CUSTOM,
	  .flags = JSON_FIELD_NULLABLE,
	  .read = read_fds,
	  .write = write_fds },
	FIELD(net_config, rate_limiter_config, OBJECT, .flags = JSON_FIELD_NULLABLE,
	      .object = &rate_object),
	PCI_FIELDS,
	OFF("host_mac"),
	OFF("vhost_user"),
	OFF("vhost_socket"),
	OFF_OR("vhost_mode", "Client"),
	{ 0 },
};

const struct json_object net_object = {
	.fields = net_fields,
	.size = sizeof(struct net_config),
	.init = net_init,
};

static void vsock_init(void *target)
{
	vsock_config_init(target);
}

static const struct json_field vsock_fields[] = {
	FIELD(vsock_config, id, STRING),
	FIELD(vsock_config, cid, U64, .flags = JSON_FIELD_REQUIRED),
	FIELD(vsock_config, socket, STRING),
	PCI_FIELDS,
	{ 0 },
};

const struct json_object vsock_object = {
	.fields = vsock_fields,
	.size = sizeof(struct vsock_config),
	.init = vsock_init,
};

/* --- assigned devices ------------------------------------------------------------- */

static void device_init(void *target)
{
	device_config_init(target);
}

/*
 * As for "fds" of a net: -1 says that a descriptor comes with the request, which a
 * device without a path says too.
 */
static int read_device_fd(void *target, const json_t *json, const struct json_where *where,
			  struct error *err)
{
	if (!json_is_integer(json))
		return json_bad(err, where, "must be an integer, not %s", json_type_name(json));
	if (json_integer_value(json) != -1)
		return json_bad(err, where,
				"may be -1 only: send the descriptor itself with the request "
				"(SCM_RIGHTS)");
	return 0;
}

static json_t *write_device_fd(const void *target)
{
	return json_integer(-1);
}

static bool device_fd_unset(const void *target)
{
	const struct device_config *device = target;

	return device->path;
}

static int read_clique(void *target, const json_t *json, const struct json_where *where,
		       struct error *err)
{
	int *clique = target;

	if (!json_is_integer(json))
		return json_bad(err, where, "must be an integer, not %s", json_type_name(json));
	if (json_integer_value(json) < 0 || json_integer_value(json) > 15)
		return json_bad(err, where, "%lld is not in 0 to 15",
				(long long)json_integer_value(json));
	*clique = (int)json_integer_value(json);
	return 0;
}

static json_t *write_clique(const void *target)
{
	return json_integer(*(const int *)target);
}

static bool clique_unset(const void *target)
{
	return *(const int *)target < 0;
}

static int read_bars(void *target, const json_t *json, const struct json_where *where,
		     struct error *err)
{
	uint8_t *bars = target;
	const json_t *value;
	size_t i;

	if (!json_is_array(json))
		return json_bad(err, where, "must be an array, not %s", json_type_name(json));
	json_array_foreach(json, i, value)
	{
		uint8_t bit;

		if (!json_is_integer(value) || json_integer_value(value) < 0 ||
		    json_integer_value(value) > 5)
			return json_bad(err, where, "may have the numbers of BARs only, 0 to 5");
		bit = (uint8_t)(1 << json_integer_value(value));
		if (*bars & bit)
			return json_bad(err, where, "BAR %d is there twice",
					(int)json_integer_value(value));
		*bars |= bit;
	}
	return 0;
}

static json_t *write_bars(const void *target)
{
	const uint8_t *bars = target;
	json_t *array = json_array();

	for (int i = 0; array && i < 8; i++)
		if (*bars >> i & 1 && json_array_append_new(array, json_integer(i))) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static bool bars_unset(const void *target)
{
	return !*(const uint8_t *)target;
}

static bool migration_absent(const void *target)
{
	const struct device_migration_config *migration = target;

	return !migration->plugin_path && !migration->plugin_arg;
}

static const struct json_field migration_fields[] = {
	FIELD(device_migration_config, plugin_path, STRING),
	FIELD(device_migration_config, plugin_arg, STRING),
	{ 0 },
};

const struct json_object device_migration_object = {
	.fields = migration_fields,
	.absent = migration_absent,
};

static int read_dirty_tracking(void *target, const json_t *json, const struct json_where *where,
			       struct error *err)
{
	enum dirty_tracking *tracking = target;
	const char *text = json_string_value(json);

	if (!text)
		return json_bad(err, where, "must be a string, not %s", json_type_name(json));
	if (!strcmp(text, "auto"))
		*tracking = DIRTY_TRACKING_AUTO;
	else if (!strcmp(text, "all"))
		*tracking = DIRTY_TRACKING_ALL;
	else
		return json_bad(err, where, "\"%.40s\" is neither auto nor all", text);
	return 0;
}

static json_t *write_dirty_tracking(const void *target)
{
	return json_string("all");
}

static bool dirty_tracking_unset(const void *target)
{
	return *(const enum dirty_tracking *)target == DIRTY_TRACKING_AUTO;
}

#define MIGRATION_FIELDS(type) \
	FIELD(type, migration, OBJECT, .flags = JSON_FIELD_NULLABLE, \
	      .object = &device_migration_object), \
		FIELD(type, dirty_tracking, CUSTOM, .flags = JSON_FIELD_NULLABLE, \
		      .read = read_dirty_tracking, .write = write_dirty_tracking, \
		      .unset = dirty_tracking_unset)

static const struct json_field device_fields[] = {
	FIELD(device_config, id, STRING),
	FIELD(device_config, path, STRING),
	{ .name = "fd",
	  .kind = JSON_FIELD_CUSTOM,
	  .flags = JSON_FIELD_NULLABLE,
	  .read = read_device_fd,
	  .write = write_device_fd,
	  .unset = device_fd_unset },
	FIELD(device_config, iommufd, BOOL),
	FIELD(device_config, x_nv_gpudirect_clique, CUSTOM, .flags = JSON_FIELD_NULLABLE,
	      .read = read_clique, .write = write_clique, .unset = clique_unset),
	FIELD(device_config, x_exclude_mmap_bars, CUSTOM, .flags = JSON_FIELD_NULLABLE,
	      .read = read_bars, .write = write_bars, .unset = bars_unset),
	MIGRATION_FIELDS(device_config),
	PCI_FIELDS,
	{ 0 },
};

const struct json_object device_object = {
	.fields = device_fields,
	.size = sizeof(struct device_config),
	.init = device_init,
};

static const struct json_field user_device_fields[] = {
	FIELD(user_device_config, id, STRING),
	FIELD(user_device_config, socket, STRING, .flags = JSON_FIELD_REQUIRED),
	MIGRATION_FIELDS(user_device_config),
	PCI_FIELDS,
	{ 0 },
};

const struct json_object user_device_object = {
	.fields = user_device_fields,
	.size = sizeof(struct user_device_config),
};

/* --- one device alone -------------------------------------------------------------- */

int disk_config_from_json(struct disk_config *disk, const json_t *json, const char *where,
			  struct error *err)
{
	struct json_where root = { NULL, where, -1 };
	int r;

	disk_config_init(disk);
	r = json_object_read(&disk_object, disk, json, &root, err);
	if (r)
		disk_config_destroy(disk);
	return r;
}

int net_config_from_json(struct net_config *net, const json_t *json, const char *where,
			 struct error *err)
{
	struct json_where root = { NULL, where, -1 };
	int r;

	net_config_init(net);
	r = json_object_read(&net_object, net, json, &root, err);
	if (r)
		net_config_destroy(net);
	return r;
}

int vsock_config_from_json(struct vsock_config *vsock, const json_t *json, const char *where,
			   struct error *err)
{
	struct json_where root = { NULL, where, -1 };
	int r;

	vsock_config_init(vsock);
	r = json_object_read(&vsock_object, vsock, json, &root, err);
	if (r)
		vsock_config_destroy(vsock);
	return r;
}

int device_config_from_json(struct device_config *device, const json_t *json, const char *where,
			    struct error *err)
{
	struct json_where root = { NULL, where, -1 };
	int r;

	device_config_init(device);
	r = json_object_read(&device_object, device, json, &root, err);
	if (r)
		device_config_destroy(device);
	return r;
}

int user_device_config_from_json(struct user_device_config *device, const json_t *json,
				 const char *where, struct error *err)
{
	struct json_where root = { NULL, where, -1 };
	int r;

	*device = (struct user_device_config){ 0 };
	r = json_object_read(&user_device_object, device, json, &root, err);
	if (r)
		user_device_config_destroy(device);
	return r;
}

json_t *disk_config_to_json(const struct disk_config *disk)
{
	return json_object_write(&disk_object, disk);
}

json_t *net_config_to_json(const struct net_config *net)
{
	return json_object_write(&net_object, net);
}

json_t *vsock_config_to_json(const struct vsock_config *vsock)
{
	return json_object_write(&vsock_object, vsock);
}

json_t *device_config_to_json(const struct device_config *device)
{
	return json_object_write(&device_object, device);
}

json_t *user_device_config_to_json(const struct user_device_config *device)
{
	return json_object_write(&user_device_object, device);
}
