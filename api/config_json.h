/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VM configuration to and from JSON, as Cloud Hypervisor's API has it.
 *
 * Reading is strict: an unknown field, a wrong type, a number out of range or a
 * string with a NUL is ERROR_BAD_REQUEST and names the field by its path
 * ("disks[1].path"). A field whose feature Ferry does not have is refused by name
 * unless it holds the value that means "off" (null, false, 0, [], {} or the
 * documented default), so that clients that send every field keep working.
 */
#ifndef API_CONFIG_JSON_H
#define API_CONFIG_JSON_H

#include <jansson.h>

#include "api/vm_config.h"

/* *config is initialised by the call; on failure nothing is to be destroyed. */
int vm_config_from_json(struct vm_config *config, const json_t *json, struct error *err);
int disk_config_from_json(struct disk_config *disk, const json_t *json, const char *where,
			  struct error *err);
int net_config_from_json(struct net_config *net, const json_t *json, const char *where,
			 struct error *err);
int vsock_config_from_json(struct vsock_config *vsock, const json_t *json, const char *where,
			   struct error *err);
int device_config_from_json(struct device_config *device, const json_t *json, const char *where,
			    struct error *err);
int user_device_config_from_json(struct user_device_config *device, const json_t *json,
				 const char *where, struct error *err);
/* A new reference; NULL out of memory. */
json_t *vm_config_to_json(const struct vm_config *config);
json_t *disk_config_to_json(const struct disk_config *disk);
json_t *net_config_to_json(const struct net_config *net);
json_t *vsock_config_to_json(const struct vsock_config *vsock);
json_t *device_config_to_json(const struct device_config *device);
json_t *user_device_config_to_json(const struct user_device_config *device);

#endif
