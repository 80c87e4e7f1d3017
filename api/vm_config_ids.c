/* SPDX-License-Identifier: Apache-2.0 */
/* The ids of devices: unique over all kinds, given where there is none. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/vm_config_check.h"

struct device_name {
	char **id;
	const char *kind, *field;
	unsigned int index;
};

static unsigned int list_devices(struct vm_config *config, struct device_name *names)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < config->disk_count && n < CONFIG_DEVICES_MAX; i++)
		names[n++] = (struct device_name){ &config->disks[i].id, "_disk", "disks", i };
	for (unsigned int i = 0; i < config->net_count && n < CONFIG_DEVICES_MAX; i++)
		names[n++] = (struct device_name){ &config->nets[i].id, "_net", "net", i };
	if (config->vsock && n < CONFIG_DEVICES_MAX)
		names[n++] = (struct device_name){ &config->vsock->id, "_vsock", "vsock", 0 };
	for (unsigned int i = 0; i < config->device_count && n < CONFIG_DEVICES_MAX; i++)
		names[n++] = (struct device_name){ &config->devices[i].id, "_vfio", "devices", i };
	for (unsigned int i = 0; i < config->user_device_count && n < CONFIG_DEVICES_MAX; i++)
		names[n++] = (struct device_name){ &config->user_devices[i].id, "_vfio_user",
						   "user_devices", i };
	return n;
}

static const struct device_name *find_id(const struct device_name *names, unsigned int count,
					 const char *id)
{
	for (unsigned int i = 0; i < count; i++)
		if (*names[i].id && !strcmp(*names[i].id, id))
			return &names[i];
	return NULL;
}

static int give_id(const struct device_name *names, unsigned int count, unsigned int which,
		   struct error *err)
{
	char id[32];

	/* At most `count` are taken, so this ends. */
	for (unsigned int n = 0;; n++) {
		snprintf(id, sizeof(id), "%s%u", names[which].kind, n);
		if (!find_id(names, count, id))
			break;
	}
	*names[which].id = strdup(id);
	return *names[which].id ? 0 : error_set_errno(err, ENOMEM, "name device %s", id);
}

int config_check_ids(struct vm_config *config, struct error *err)
{
	struct device_name names[CONFIG_DEVICES_MAX];
	unsigned int count = list_devices(config, names);

	for (unsigned int i = 0; i < count; i++) {
		const struct device_name *other;

		if (!*names[i].id)
			continue;
		other = find_id(names, i, *names[i].id);
		if (other)
			return bad(err, "%s[%u].id: \"%s\" is %s[%u]'s already", names[i].field,
				   names[i].index, *names[i].id, other->field, other->index);
	}
	for (unsigned int i = 0; i < count; i++) {
		int r = *names[i].id ? 0 : give_id(names, count, i, err);

		if (r)
			return r;
	}
	return 0;
}
