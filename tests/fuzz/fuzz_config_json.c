/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Documents into configurations. What was read, written and read again must be the
 * same, and what validation says must not depend on which of the two it sees.
 */
#include <stdlib.h>

#include "api/config_json.h"
#include "api/migration_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void whole(const json_t *json)
{
	struct vm_config config, again;
	struct error err = ERROR_INIT;
	json_t *first, *second;

	if (vm_config_from_json(&config, json, &err)) {
		if (err.kind != ERROR_BAD_REQUEST || !err.message[0])
			abort();
		return;
	}
	first = vm_config_to_json(&config);
	if (!first || vm_config_from_json(&again, first, &err))
		abort();
	second = vm_config_to_json(&again);
	if (!json_equal(first, second))
		abort();
	if (!vm_config_validate(&config, &err) != !vm_config_validate(&again, &err))
		abort();
	json_decref(first);
	json_decref(second);
	vm_config_destroy(&config);
	vm_config_destroy(&again);
}

static void parts(const json_t *json)
{
	struct disk_config disk;
	struct net_config net;
	struct vsock_config vsock;
	struct device_config device;
	struct user_device_config user;

	if (!disk_config_from_json(&disk, json, "disk", NULL)) {
		disk_config_validate(&disk, NULL);
		json_decref(disk_config_to_json(&disk));
		disk_config_destroy(&disk);
	}
	if (!net_config_from_json(&net, json, "net", NULL)) {
		net_config_validate(&net, NULL);
		json_decref(net_config_to_json(&net));
		net_config_destroy(&net);
	}
	if (!vsock_config_from_json(&vsock, json, "vsock", NULL)) {
		vsock_config_validate(&vsock, NULL);
		json_decref(vsock_config_to_json(&vsock));
		vsock_config_destroy(&vsock);
	}
	if (!device_config_from_json(&device, json, "device", NULL)) {
		device_config_validate(&device, NULL);
		json_decref(device_config_to_json(&device));
		device_config_destroy(&device);
	}
	if (!user_device_config_from_json(&user, json, "user_device", NULL)) {
		user_device_config_validate(&user, NULL);
		json_decref(user_device_config_to_json(&user));
		user_device_config_destroy(&user);
	}
}

/* What was accepted, written and read again, must be accepted and the same. */
#define AGAIN(type, config) \
	do { \
		struct type##_config again; \
		json_t *first = type##_config_to_json(config), *second; \
\
		if (!first || type##_config_from_json(&again, first, NULL)) \
			abort(); \
		second = type##_config_to_json(&again); \
		if (!json_equal(first, second)) \
			abort(); \
		json_decref(first); \
		json_decref(second); \
		type##_config_destroy(&again); \
	} while (0)

static void overrides(struct config_overrides *overrides)
{
	static const char machine[] = "{\"payload\":{\"kernel\":\"/k\"},\"disks\":[{\"id\":\"d\","
				      "\"path\":\"/d\"}],\"net\":[{\"id\":\"n\"}],"
				      "\"vsock\":{\"cid\":3,\"socket\":\"/v\"}}";
	json_t *json = json_loads(machine, 0, NULL);
	struct vm_config config;

	if (!json || vm_config_from_json(&config, json, NULL))
		abort();
	config_overrides_apply(overrides, &config, NULL);
	vm_config_destroy(&config);
	json_decref(json);
}

static void moves(const json_t *json)
{
	struct snapshot_config snapshot;
	struct restore_config restore;
	struct send_migration_config send;
	struct receive_migration_config receive;

	if (!snapshot_config_from_json(&snapshot, json, NULL)) {
		AGAIN(snapshot, &snapshot);
		snapshot_config_destroy(&snapshot);
	}
	if (!restore_config_from_json(&restore, json, NULL)) {
		AGAIN(restore, &restore);
		overrides(&restore.overrides);
		restore_config_destroy(&restore);
	}
	if (!send_migration_config_from_json(&send, json, NULL)) {
		AGAIN(send_migration, &send);
		send_migration_config_destroy(&send);
	}
	if (!receive_migration_config_from_json(&receive, json, NULL)) {
		AGAIN(receive_migration, &receive);
		overrides(&receive.overrides);
		receive_migration_config_destroy(&receive);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);

	if (!json)
		return 0;
	whole(json);
	parts(json);
	moves(json);
	json_decref(json);
	return 0;
}
