/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of snapshot, restore and migration. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/config_json_fields.h"
#include "api/migration_config.h"
#include "api/migration_config_check.h"
#include "base/fd.h"
#include "base/strbuf.h"

/* --- words that more than one spelling has -------------------------------------------- */

struct word {
	const char *text; /* the first of a value is the one written */
	int value;
};

static int read_word(const struct word *words, int *value, const json_t *json,
		     const struct json_where *where, struct error *err)
{
	_cleanup_strbuf_ struct strbuf known = { .max = 256 };

	if (!json_is_string(json))
		return json_bad(err, where, "must be a string, not %s", json_type_name(json));
	for (const struct word *w = words; w->text; w++) {
		if (!strcmp(w->text, json_string_value(json))) {
			*value = w->value;
			return 0;
		}
		strbuf_printf(&known, "%s%s", w == words ? "" : ", ", w->text);
	}
	return json_bad(err, where, "\"%.64s\" is none of %s", json_string_value(json),
			known.data ? known.data : "");
}

static json_t *write_word(const struct word *words, int value)
{
	const struct word *w = words;

	while (w->text && w->value != value)
		w++;
	return w->text ? json_string(w->text) : NULL;
}

#define WORDS(name, ...) \
	static const struct word name##_words[] = { __VA_ARGS__, { NULL, 0 } }; \
	static int read_##name(void *target, const json_t *json, const struct json_where *where, \
			       struct error *err) \
	{ \
		enum name value; \
		int word = 0, r = read_word(name##_words, &word, json, where, err); \
\
		if (r) \
			return r; \
		value = (enum name)word; \
		memcpy(target, &value, sizeof(value)); \
		return 0; \
	} \
	static json_t *write_##name(const void *target) \
	{ \
		enum name value; \
\
		memcpy(&value, target, sizeof(value)); \
		return write_word(name##_words, (int)value); \
	}
#define WORD_FIELD(type, field, name) \
	FIELD(type, field, CUSTOM, .flags = JSON_FIELD_NULLABLE, .read = read_##name, \
	      .write = write_##name)

WORDS(memory_restore_mode, { "Copy", MEMORY_RESTORE_EAGER }, { "OnDemand", MEMORY_RESTORE_LAZY },
      { "CopyOnWrite", MEMORY_RESTORE_SHARED }, { "eager", MEMORY_RESTORE_EAGER },
      { "lazy", MEMORY_RESTORE_LAZY }, { "shared", MEMORY_RESTORE_SHARED })
WORDS(send_memory_mode, { "Precopy", SEND_PRECOPY }, { "MemFDs", SEND_MEMFDS },
      { "Postcopy", SEND_POSTCOPY }, { "precopy", SEND_PRECOPY }, { "memfds", SEND_MEMFDS },
      { "postcopy", SEND_POSTCOPY })
WORDS(send_timeout_strategy, { "Cancel", SEND_TIMEOUT_CANCEL }, { "Ignore", SEND_TIMEOUT_IGNORE },
      { "cancel", SEND_TIMEOUT_CANCEL }, { "ignore", SEND_TIMEOUT_IGNORE })

static int read_optional_bool(void *target, const json_t *json, const struct json_where *where,
			      struct error *err)
{
	if (!json_is_boolean(json))
		return json_bad(err, where, "must be a boolean, not %s", json_type_name(json));
	*(bool *)target = json_is_true(json);
	return 0;
}

static json_t *write_optional_bool(const void *target)
{
	return json_boolean(*(const bool *)target);
}

/* Cloud Hypervisor's clients send null for what is not set. */
#define BOOL_FIELD(type, field) \
	FIELD(type, field, CUSTOM, .flags = JSON_FIELD_NULLABLE, .read = read_optional_bool, \
	      .write = write_optional_bool)

/* --- snapshot --------------------------------------------------------------------- */

static const char *const compress_names[] = { "none", "zstd", NULL };

static const struct json_field snapshot_fields[] = {
	FIELD(snapshot_config, destination_url, STRING, .flags = JSON_FIELD_REQUIRED),
	BOOL_FIELD(snapshot_config, live),
	FIELD(snapshot_config, compress, ENUM, .flags = JSON_FIELD_NULLABLE,
	      .names = compress_names),
	FIELD(snapshot_config, base_url, STRING),
	{ 0 },
};

static const struct json_object snapshot_object = { .fields = snapshot_fields };

int snapshot_config_from_json(struct snapshot_config *config, const json_t *json, struct error *err)
{
	const struct json_where root = { NULL, NULL, -1 };
	int r;

	snapshot_config_init(config);
	r = json_object_read(&snapshot_object, config, json, &root, err);
	if (!r)
		r = snapshot_config_validate(config, err);
	if (r)
		snapshot_config_destroy(config);
	return r;
}

json_t *snapshot_config_to_json(const struct snapshot_config *config)
{
	return json_object_write(&snapshot_object, config);
}

/* --- overrides ---------------------------------------------------------------------- */

static const struct json_field net_override_fields[] = {
	FIELD(net_override, id, STRING, .flags = JSON_FIELD_REQUIRED),
	FIELD(net_override, tap, STRING),
	FIELD(net_override, mac, STRING),
	{ 0 },
};

static const struct json_object net_override_object = {
	.fields = net_override_fields,
	.size = sizeof(struct net_override),
};

/* "num_fds" and "fds" say the same; either may be there, or both. */
static int set_fd_count(struct net_fds_override *o, size_t count, const struct json_where *where,
			struct error *err)
{
	if (count < 1 || count > FD_PASS_MAX)
		return json_bad(err, where, "%zu descriptors are not in 1 to %d", count,
				FD_PASS_MAX);
	if (o->fds)
		return o->fd_count == count
			       ? 0
			       : json_bad(err, where, "num_fds and fds differ: %u and %zu",
					  o->fd_count, count);
	o->fds = malloc(count * sizeof(*o->fds));
	if (!o->fds)
		return error_set_errno(err, ENOMEM, "read configuration");
	for (size_t i = 0; i < count; i++)
		o->fds[i] = -1;
	o->fd_count = (unsigned int)count;
	return 0;
}

static int read_num_fds(void *target, const json_t *json, const struct json_where *where,
			struct error *err)
{
	json_int_t count = json_integer_value(json);

	if (!json_is_integer(json))
		return json_bad(err, where, "must be an integer, not %s", json_type_name(json));
	return set_fd_count(target, count < 0 ? 0 : (size_t)count, where, err);
}

static int read_net_fds(void *target, const json_t *json, const struct json_where *where,
			struct error *err)
{
	const json_t *value;
	size_t i;

	if (!json_is_array(json))
		return json_bad(err, where, "must be an array, not %s", json_type_name(json));
	json_array_foreach(json, i,
			   value) if (!json_is_integer(value) ||
				      json_integer_value(value) !=
					      -1) return json_bad(err, where,
								  "may have -1 only: send the "
								  "descriptors themselves with the "
								  "request (SCM_RIGHTS)");
	return set_fd_count(target, json_array_size(json), where, err);
}

static json_t *write_num_fds(const void *target)
{
	return json_integer(((const struct net_fds_override *)target)->fd_count);
}

static bool always_unset(const void *target)
{
	return true;
}

static const struct json_field net_fds_fields[] = {
	FIELD(net_fds_override, id, STRING, .flags = JSON_FIELD_REQUIRED),
	{ .name = "num_fds",
	  .kind = JSON_FIELD_CUSTOM,
	  .read = read_num_fds,
	  .write = write_num_fds },
	{ .name = "fds",
	  .kind = JSON_FIELD_CUSTOM,
	  .flags = JSON_FIELD_NULLABLE,
	  .read = read_net_fds,
	  .unset = always_unset },
	{ 0 },
};

static const struct json_object net_fds_object = {
	.fields = net_fds_fields,
	.size = sizeof(struct net_fds_override),
};

static const struct json_field disk_override_fields[] = {
	FIELD(disk_override, id, STRING, .flags = JSON_FIELD_REQUIRED),
	FIELD(disk_override, path, STRING, .flags = JSON_FIELD_REQUIRED),
	{ 0 },
};

static const struct json_object disk_override_object = {
	.fields = disk_override_fields,
	.size = sizeof(struct disk_override),
};

static void device_override_init(void *target)
{
	*(struct device_override *)target = (struct device_override){ .fd = -1 };
}

static const struct json_field device_override_fields[] = {
	FIELD(device_override, id, STRING, .flags = JSON_FIELD_REQUIRED),
	FIELD(device_override, path, STRING),
	FIELD(device_override, migration, OBJECT, .flags = JSON_FIELD_NULLABLE,
	      .object = &device_migration_object),
	{ 0 },
};

static const struct json_object device_override_object = {
	.fields = device_override_fields,
	.size = sizeof(struct device_override),
	.init = device_override_init,
};

static const struct json_field user_device_override_fields[] = {
	FIELD(user_device_override, id, STRING, .flags = JSON_FIELD_REQUIRED),
	FIELD(user_device_override, socket, STRING, .flags = JSON_FIELD_REQUIRED),
	FIELD(user_device_override, migration, OBJECT, .flags = JSON_FIELD_NULLABLE,
	      .object = &device_migration_object),
	{ 0 },
};

static const struct json_object user_device_override_object = {
	.fields = user_device_override_fields,
	.size = sizeof(struct user_device_override),
};

static const struct json_field vsock_override_fields[] = {
	FIELD(vsock_override, socket, STRING),
	FIELD(vsock_override, cid, U64, .flags = JSON_FIELD_NULLABLE | JSON_FIELD_UNSET_0),
	{ 0 },
};

static const struct json_object vsock_override_object = {
	.fields = vsock_override_fields,
	.size = sizeof(struct vsock_override),
};

#define OVERRIDE(type, key, field, what, obj) \
	{ \
		.name = key, .kind = JSON_FIELD_##what, \
		.offset = offsetof(struct type, overrides.field), .object = &(obj) \
	}
#define OVERRIDES(type, key, field, count, obj) \
	{ \
		.name = key, .kind = JSON_FIELD_ARRAY, \
		.offset = offsetof(struct type, overrides.field), \
		.count_offset = offsetof(struct type, overrides.count), .object = &(obj) \
	}
#define OVERRIDE_FIELDS(type) \
	OVERRIDES(type, "net", nets, net_count, net_override_object), \
		OVERRIDES(type, "net_fds", net_fds, net_fds_count, net_fds_object), \
		OVERRIDES(type, "disks", disks, disk_count, disk_override_object), \
		OVERRIDES(type, "devices", devices, device_count, device_override_object), \
		OVERRIDES(type, "user_devices", user_devices, user_device_count, \
			  user_device_override_object), \
		OVERRIDE(type, "vsock", vsock, POINTER, vsock_override_object), \
		OVERRIDE(type, "serial", serial, POINTER, console_object), \
		OVERRIDE(type, "console", console, POINTER, console_object)

/* --- restore ------------------------------------------------------------------------ */

static const struct json_field restore_fields[] = {
	FIELD(restore_config, source_url, STRING, .flags = JSON_FIELD_REQUIRED),
	BOOL_FIELD(restore_config, prefault),
	WORD_FIELD(restore_config, memory_restore_mode, memory_restore_mode),
	BOOL_FIELD(restore_config, resume),
	OVERRIDE_FIELDS(restore_config),
	OFF("zone_updates"),
	{ 0 },
};

static const struct json_object restore_object = { .fields = restore_fields };

int restore_config_from_json(struct restore_config *config, const json_t *json, struct error *err)
{
	const struct json_where root = { NULL, NULL, -1 };
	int r;

	restore_config_init(config);
	r = json_object_read(&restore_object, config, json, &root, err);
	if (!r)
		r = restore_config_validate(config, err);
	if (r)
		restore_config_destroy(config);
	return r;
}

json_t *restore_config_to_json(const struct restore_config *config)
{
	return json_object_write(&restore_object, config);
}

/* --- migration ----------------------------------------------------------------------- */

static const struct json_field send_fields[] = {
	FIELD(send_migration_config, destination_url, STRING, .flags = JSON_FIELD_REQUIRED),
	BOOL_FIELD(send_migration_config, local),
	WORD_FIELD(send_migration_config, memory_mode, send_memory_mode),
	FIELD(send_migration_config, downtime_ms, U64, .flags = JSON_FIELD_NULLABLE, .min = 1,
	      .max = SEND_DOWNTIME_MS_MAX),
	FIELD(send_migration_config, timeout_s, U64, .flags = JSON_FIELD_NULLABLE, .min = 1,
	      .max = SEND_TIMEOUT_S_MAX),
	WORD_FIELD(send_migration_config, timeout_strategy, send_timeout_strategy),
	FIELD(send_migration_config, connections, UINT, .flags = JSON_FIELD_NULLABLE, .min = 1,
	      .max = SEND_CONNECTIONS_MAX),
	BOOL_FIELD(send_migration_config, preserve_source),
	FIELD(send_migration_config, bandwidth, U64, .flags = JSON_FIELD_NULLABLE),
	FIELD(send_migration_config, max_throttle, UINT, .flags = JSON_FIELD_NULLABLE,
	      .max = SEND_THROTTLE_MAX),
	BOOL_FIELD(send_migration_config, checksum),
	FIELD(send_migration_config, tls_dir, STRING, .flags = JSON_FIELD_NULLABLE),
	{ 0 },
};

static const struct json_object send_object = { .fields = send_fields };

int send_migration_config_from_json(struct send_migration_config *config, const json_t *json,
				    struct error *err)
{
	const struct json_where root = { NULL, NULL, -1 };
	int r;

	send_migration_config_init(config);
	r = json_object_read(&send_object, config, json, &root, err);
	if (!r)
		r = send_migration_config_validate(config, err);
	if (r)
		send_migration_config_destroy(config);
	return r;
}

json_t *send_migration_config_to_json(const struct send_migration_config *config)
{
	return json_object_write(&send_object, config);
}

static const struct json_field receive_fields[] = {
	FIELD(receive_migration_config, receiver_url, STRING, .flags = JSON_FIELD_REQUIRED),
	BOOL_FIELD(receive_migration_config, resume),
	OVERRIDE_FIELDS(receive_migration_config),
	FIELD(receive_migration_config, tls_dir, STRING, .flags = JSON_FIELD_NULLABLE),
	OFF("zone_updates"),
	{ 0 },
};

static const struct json_object receive_object = { .fields = receive_fields };

int receive_migration_config_from_json(struct receive_migration_config *config, const json_t *json,
				       struct error *err)
{
	const struct json_where root = { NULL, NULL, -1 };
	int r;

	receive_migration_config_init(config);
	r = json_object_read(&receive_object, config, json, &root, err);
	if (!r)
		r = receive_migration_config_validate(config, err);
	if (r)
		receive_migration_config_destroy(config);
	return r;
}

json_t *receive_migration_config_to_json(const struct receive_migration_config *config)
{
	return json_object_write(&receive_object, config);
}
