/* SPDX-License-Identifier: Apache-2.0 */
/* --restore, and what ferryctl's snapshot, restore and migration commands take. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/migration_config_check.h"
#include "api/options.h"
#include "api/options_keys.h"
#include "api/options_vm.h"
#include "base/bytes.h"

#define URL_MAX (OPTION_PATH_MAX + 8)

#define SYNTAX(name, table, url) \
	{ \
		.option = (name), .keys = (table), .key_count = ARRAY_SIZE(table), .bare = (url) \
	}

/* --- words -------------------------------------------------------------------------- */

struct word {
	const char *text;
	int value;
};

static int find_word(const struct word *words, const char *text, int *value)
{
	for (; words->text; words++)
		if (!strcasecmp(words->text, text)) {
			*value = words->value;
			return 0;
		}
	return -EINVAL;
}

/* --- snapshot --------------------------------------------------------------------- */

static int parse_compress(void *target, const char *text)
{
	static const struct word words[] = {
		{ "none", SNAPSHOT_COMPRESS_NONE },
		{ "zstd", SNAPSHOT_COMPRESS_ZSTD },
		{ NULL, 0 },
	};
	struct snapshot_config *config = target;
	int value, r = find_word(words, text, &value);

	if (!r)
		config->compress = (enum snapshot_compress)value;
	return r;
}

static const struct option_key snapshot_keys[] = {
	{ "destination_url", KEY_STRING, offsetof(struct snapshot_config, destination_url), 0,
	  URL_MAX, NULL, NULL },
	{ "live", KEY_BOOL, offsetof(struct snapshot_config, live), 0, 0, NULL, NULL },
	{ "compress", KEY_PARSE, 0, 0, 0, "none or zstd", parse_compress },
	{ "base_url", KEY_STRING, offsetof(struct snapshot_config, base_url), 0, URL_MAX, NULL,
	  NULL },
};
static const struct option_syntax snapshot_syntax =
	SYNTAX("--snapshot", snapshot_keys, "destination_url");

int snapshot_config_parse(struct snapshot_config *config, const char *text, struct error *err)
{
	int r;

	snapshot_config_init(config);
	r = option_parse_keys(&snapshot_syntax, text, config, NULL, err);
	if (!r && (r = snapshot_config_validate(config, err)))
		error_prefix(err, "--snapshot");
	if (r)
		snapshot_config_destroy(config);
	return r;
}

/* --- overrides ---------------------------------------------------------------------- */

/* What --restore and receive-migration have in common. */
struct arrival {
	char *url, *tls_dir;
	bool prefault, resume;
	enum memory_restore_mode mode;
	struct config_overrides overrides;
	char *vsock_socket;
	uint64_t vsock_cid;
};

static void arrival_destroy(struct arrival *arrival)
{
	free(arrival->url);
	free(arrival->tls_dir);
	free(arrival->vsock_socket);
	config_overrides_destroy(&arrival->overrides);
}

/* Room for one more element at the end of an array, zeroed. */
static void *append(void **array, unsigned int count, size_t size)
{
	void *larger = realloc(*array, (count + 1) * size);

	if (!larger)
		return NULL;
	*array = larger;
	return memset((char *)larger + count * size, 0, size);
}

/*
 * "[id@value,...]": calls add with each, cut at the first @. An id has no @, a value may.
 */
static int each_of_list(struct config_overrides *overrides, const char *text,
			int (*add)(struct config_overrides *overrides, const char *id,
				   const char *value))
{
	char *elements[OPTION_LIST_MAX];
	unsigned int count;
	int r = option_list(text, elements, OPTION_LIST_MAX, &count);

	if (r)
		return r == -ENOMEM ? r : -EINVAL;
	if (!count)
		return -EINVAL;
	for (unsigned int i = 0; i < count && !r; i++) {
		char *at = strchr(elements[i], '@');

		if (!at || at == elements[i] || !at[1]) {
			r = -EINVAL;
			break;
		}
		*at = '\0';
		r = add(overrides, elements[i], at + 1);
	}
	option_elements_free(elements, count);
	return r;
}

static struct net_override *net_of(struct config_overrides *o, const char *id)
{
	struct net_override *net;

	for (unsigned int i = 0; i < o->net_count; i++)
		if (!strcmp(o->nets[i].id, id))
			return &o->nets[i];
	net = append((void **)&o->nets, o->net_count, sizeof(*net));
	if (!net)
		return NULL;
	net->id = strdup(id);
	if (!net->id)
		return NULL;
	o->net_count++;
	return net;
}

/* Once for each device. */
static int set_text(char **field, const char *text)
{
	if (*field)
		return -EINVAL;
	*field = strdup(text);
	return *field ? 0 : -ENOMEM;
}

static int add_tap(struct config_overrides *o, const char *id, const char *tap)
{
	struct net_override *net = net_of(o, id);

	return net ? set_text(&net->tap, tap) : -ENOMEM;
}

static int add_mac(struct config_overrides *o, const char *id, const char *mac)
{
	struct net_override *net = net_of(o, id);

	return net ? set_text(&net->mac, mac) : -ENOMEM;
}

/* A descriptor has one owner, or two would close it. */
static bool has_descriptor(const struct config_overrides *o, int fd)
{
	for (unsigned int i = 0; i < o->net_fds_count; i++)
		for (unsigned int k = 0; k < o->net_fds[i].fd_count; k++)
			if (o->net_fds[i].fds[k] == fd)
				return true;
	return false;
}

static int add_net_fds(struct config_overrides *o, const char *id, const char *list)
{
	struct net_fds_override *added =
		append((void **)&o->net_fds, o->net_fds_count, sizeof(*added));
	unsigned int count;
	int *fds, r;

	if (!added)
		return -ENOMEM;
	r = option_descriptors(list, &fds, &count);
	for (unsigned int i = 0; !r && i < count; i++)
		if (has_descriptor(o, fds[i])) {
			free(fds);
			r = -EINVAL;
		}
	if (r)
		return r;
	*added = (struct net_fds_override){ .id = strdup(id), .fds = fds, .fd_count = count };
	o->net_fds_count++;
	return added->id ? 0 : -ENOMEM;
}

static int add_disk(struct config_overrides *o, const char *id, const char *path)
{
	struct disk_override *disk = append((void **)&o->disks, o->disk_count, sizeof(*disk));

	if (!disk)
		return -ENOMEM;
	o->disk_count++;
	disk->id = strdup(id);
	disk->path = strdup(path);
	return disk->id && disk->path ? 0 : -ENOMEM;
}

static int add_device(struct config_overrides *o, const char *id, const char *path)
{
	struct device_override *device =
		append((void **)&o->devices, o->device_count, sizeof(*device));

	if (!device)
		return -ENOMEM;
	o->device_count++;
	device->fd = -1;
	device->id = strdup(id);
	device->path = strdup(path);
	return device->id && device->path ? 0 : -ENOMEM;
}

static int add_user_device(struct config_overrides *o, const char *id, const char *path)
{
	struct user_device_override *device =
		append((void **)&o->user_devices, o->user_device_count, sizeof(*device));

	if (!device)
		return -ENOMEM;
	o->user_device_count++;
	device->id = strdup(id);
	device->socket = strdup(path);
	return device->id && device->socket ? 0 : -ENOMEM;
}

static int parse_taps(void *target, const char *text)
{
	return each_of_list(&((struct arrival *)target)->overrides, text, add_tap);
}

static int parse_macs(void *target, const char *text)
{
	return each_of_list(&((struct arrival *)target)->overrides, text, add_mac);
}

static int parse_net_fds(void *target, const char *text)
{
	return each_of_list(&((struct arrival *)target)->overrides, text, add_net_fds);
}

static int parse_disks(void *target, const char *text)
{
	return each_of_list(&((struct arrival *)target)->overrides, text, add_disk);
}

static int parse_devices(void *target, const char *text)
{
	return each_of_list(&((struct arrival *)target)->overrides, text, add_device);
}

static int parse_user_devices(void *target, const char *text)
{
	return each_of_list(&((struct arrival *)target)->overrides, text, add_user_device);
}

static int put_vsock(struct arrival *arrival, struct error *err)
{
	struct vsock_override *vsock;

	if (!arrival->vsock_socket && !arrival->vsock_cid)
		return 0;
	vsock = calloc(1, sizeof(*vsock));
	if (!vsock)
		return error_set_errno(err, ENOMEM, "read options");
	vsock->socket = arrival->vsock_socket;
	vsock->cid = arrival->vsock_cid;
	arrival->vsock_socket = NULL;
	arrival->overrides.vsock = vsock;
	return 0;
}

/* clang-format off */
#define ARRIVAL_KEYS \
	{ "resume", KEY_BOOL, offsetof(struct arrival, resume), 0, 0, NULL, NULL }, \
	{ "net_fds", KEY_LIST, 0, 0, 0, \
	  "devices and open descriptors of their taps, each once, as [id@[3,4]]", \
	  parse_net_fds }, \
	{ "tap", KEY_LIST, 0, 0, 0, "devices and their taps, each once, as [id@tap5]", \
	  parse_taps }, \
	{ "mac", KEY_LIST, 0, 0, 0, \
	  "devices and their MAC addresses, each once, as [id@2e:89:a8:e4:bf:05]", \
	  parse_macs }, \
	{ "disk", KEY_LIST, 0, 0, 0, "disks and their files, as [id@/vm/clone.img]", \
	  parse_disks }, \
	{ "device", KEY_LIST, 0, 0, 0, \
	  "assigned devices and their paths, as [id@/sys/bus/pci/devices/0000:01:10.1]", \
	  parse_devices }, \
	{ "user_device", KEY_LIST, 0, 0, 0, \
	  "vfio-user devices and their sockets, as [id@/run/nic.sock]", parse_user_devices }, \
	{ "vsock_socket", KEY_STRING, offsetof(struct arrival, vsock_socket), 0, \
	  OPTION_SOCKET_MAX, NULL, NULL }, \
	{ "vsock_cid", KEY_U64, offsetof(struct arrival, vsock_cid), 3, UINT32_MAX - 1, NULL, \
	  NULL }
/* clang-format on */

/* --- restore ------------------------------------------------------------------------ */

static int parse_restore_mode(void *target, const char *text)
{
	static const struct word words[] = {
		{ "eager", MEMORY_RESTORE_EAGER },
		{ "copy", MEMORY_RESTORE_EAGER },
		{ "lazy", MEMORY_RESTORE_LAZY },
		{ "ondemand", MEMORY_RESTORE_LAZY },
		{ "shared", MEMORY_RESTORE_SHARED },
		{ "copyonwrite", MEMORY_RESTORE_SHARED },
		{ NULL, 0 },
	};
	struct arrival *arrival = target;
	int value, r = find_word(words, text, &value);

	if (!r)
		arrival->mode = (enum memory_restore_mode)value;
	return r;
}

static const struct option_key restore_keys[] = {
	{ "source_url", KEY_STRING, offsetof(struct arrival, url), 0, URL_MAX, NULL, NULL },
	{ "prefault", KEY_BOOL, offsetof(struct arrival, prefault), 0, 0, NULL, NULL },
	{ "memory_restore_mode", KEY_PARSE, 0, 0, 0,
	  "eager (copy), lazy (ondemand) or shared (copyonwrite)", parse_restore_mode },
	ARRIVAL_KEYS,
};
static const struct option_syntax restore_syntax = SYNTAX("--restore", restore_keys, "source_url");

int restore_config_parse(struct restore_config *config, const char *text, struct error *err)
{
	struct arrival arrival = { .mode = MEMORY_RESTORE_EAGER };
	int r = option_parse_keys(&restore_syntax, text, &arrival, NULL, err);

	if (!r)
		r = put_vsock(&arrival, err);
	if (r) {
		arrival_destroy(&arrival);
		return r;
	}
	*config = (struct restore_config){
		.source_url = arrival.url,
		.prefault = arrival.prefault,
		.memory_restore_mode = arrival.mode,
		.resume = arrival.resume,
		.overrides = arrival.overrides,
	};
	r = restore_config_validate(config, err);
	if (r) {
		error_prefix(err, "--restore");
		restore_config_destroy(config);
	}
	return r;
}

/* The console becomes one that overrides the snapshot's. */
static int override_console(struct console_config **override, struct console_config *console,
			    struct error *err)
{
	*override = malloc(sizeof(**override));
	if (!*override)
		return error_set_errno(err, ENOMEM, "--restore");
	**override = *console;
	*console = (struct console_config){ .mode = CONSOLE_NULL };
	return 0;
}

int option_finish_restore(struct ferry_options *o, bool serial, bool console, struct error *err)
{
	int r = 0;

	if (serial)
		r = override_console(&o->restore.overrides.serial, &o->config.serial, err);
	if (!r && console)
		r = override_console(&o->restore.overrides.console, &o->config.console, err);
	if (!r && !o->restore.resume && !o->api_socket && o->api_socket_fd < 0)
		r = option_error(err, "--restore: the VM comes up paused: give resume=on, or "
				      "--api-socket to resume it with ferryctl");
	return r;
}

/* --- migration ----------------------------------------------------------------------- */

static int parse_memory_mode(void *target, const char *text)
{
	static const struct word words[] = {
		{ "precopy", SEND_PRECOPY },
		{ "memfds", SEND_MEMFDS },
		{ "postcopy", SEND_POSTCOPY },
		{ NULL, 0 },
	};
	struct send_migration_config *config = target;
	int value, r = find_word(words, text, &value);

	if (!r)
		config->memory_mode = (enum send_memory_mode)value;
	return r;
}

static int parse_timeout_strategy(void *target, const char *text)
{
	static const struct word words[] = {
		{ "cancel", SEND_TIMEOUT_CANCEL },
		{ "ignore", SEND_TIMEOUT_IGNORE },
		{ NULL, 0 },
	};
	struct send_migration_config *config = target;
	int value, r = find_word(words, text, &value);

	if (!r)
		config->timeout_strategy = (enum send_timeout_strategy)value;
	return r;
}

#define SEND(field) offsetof(struct send_migration_config, field)

static const struct option_key send_keys[] = {
	{ "destination_url", KEY_STRING, SEND(destination_url), 0, URL_MAX, NULL, NULL },
	{ "local", KEY_BOOL, SEND(local), 0, 0, NULL, NULL },
	{ "memory_mode", KEY_PARSE, 0, 0, 0, "precopy, memfds or postcopy", parse_memory_mode },
	{ "downtime_ms", KEY_U64, SEND(downtime_ms), 1, SEND_DOWNTIME_MS_MAX, NULL, NULL },
	{ "timeout_s", KEY_U64, SEND(timeout_s), 1, SEND_TIMEOUT_S_MAX, NULL, NULL },
	{ "timeout_strategy", KEY_PARSE, 0, 0, 0, "cancel or ignore", parse_timeout_strategy },
	{ "connections", KEY_UINT, SEND(connections), 1, SEND_CONNECTIONS_MAX, NULL, NULL },
	{ "preserve_source", KEY_BOOL, SEND(preserve_source), 0, 0, NULL, NULL },
	{ "bandwidth", KEY_SIZE, SEND(bandwidth), 0, INT64_MAX, NULL, NULL },
	{ "max_throttle", KEY_UINT, SEND(max_throttle), 0, SEND_THROTTLE_MAX, NULL, NULL },
	{ "checksum", KEY_BOOL, SEND(checksum), 0, 0, NULL, NULL },
	{ "tls_dir", KEY_STRING, SEND(tls_dir), 0, OPTION_PATH_MAX, NULL, NULL },
};
static const struct option_syntax send_syntax =
	SYNTAX("--send-migration", send_keys, "destination_url");

int send_migration_config_parse(struct send_migration_config *config, const char *text,
				struct error *err)
{
	int r;

	send_migration_config_init(config);
	r = option_parse_keys(&send_syntax, text, config, NULL, err);
	if (!r && (r = send_migration_config_validate(config, err)))
		error_prefix(err, "--send-migration");
	if (r)
		send_migration_config_destroy(config);
	return r;
}

static const struct option_key receive_keys[] = {
	{ "receiver_url", KEY_STRING, offsetof(struct arrival, url), 0, URL_MAX, NULL, NULL },
	{ "tls_dir", KEY_STRING, offsetof(struct arrival, tls_dir), 0, OPTION_PATH_MAX, NULL,
	  NULL },
	ARRIVAL_KEYS,
};
static const struct option_syntax receive_syntax =
	SYNTAX("--receive-migration", receive_keys, "receiver_url");

int receive_migration_config_parse(struct receive_migration_config *config, const char *text,
				   struct error *err)
{
	struct arrival arrival = { .resume = true };
	int r = option_parse_keys(&receive_syntax, text, &arrival, NULL, err);

	if (!r)
		r = put_vsock(&arrival, err);
	if (r) {
		arrival_destroy(&arrival);
		return r;
	}
	*config = (struct receive_migration_config){
		.receiver_url = arrival.url,
		.tls_dir = arrival.tls_dir,
		.resume = arrival.resume,
		.overrides = arrival.overrides,
	};
	r = receive_migration_config_validate(config, err);
	if (r) {
		error_prefix(err, "--receive-migration");
		receive_migration_config_destroy(config);
	}
	return r;
}
