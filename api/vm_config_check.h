/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of vm_config_validate() share. Private to api/. `where` names the
 * object ("disks[1]"), ERROR_BAD_REQUEST says what is wrong with it.
 */
#ifndef API_VM_CONFIG_CHECK_H
#define API_VM_CONFIG_CHECK_H

#include "api/vm_config.h"

#define bad(err, ...) error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, __VA_ARGS__)

#define CONFIG_DEVICES_MAX 256

/* NULL is a good id: one will be given. */
int config_check_id(const char *id, const char *where, struct error *err);
int config_check_path(const char *path, const char *where, const char *field, struct error *err);
int config_check_socket(const char *socket, const char *where, struct error *err);

/* A plugin, if there is one. In an override an argument may come without its path. */
int config_check_migration(const struct device_migration_config *migration, const char *where,
			   struct error *err);

/* devices and user_devices. */
int config_check_assigned(const struct vm_config *config, struct error *err);
/* vm_config_admit_*() for each device and those before it. */
int config_check_conflicts(const struct vm_config *config, struct error *err);
/* No id twice, over all kinds; ids for those that have none. */
int config_check_ids(struct vm_config *config, struct error *err);

#endif
