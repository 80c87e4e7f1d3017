/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tables of config_json.c (the VM) and config_json_device.c (what can be
 * plugged in) share. Private to api/.
 */
#ifndef API_CONFIG_JSON_FIELDS_H
#define API_CONFIG_JSON_FIELDS_H

#include "api/config_json.h"
#include "api/json_fields.h"

#define OFF(field) \
	{ \
		.name = field, .kind = JSON_FIELD_OFF \
	}
#define OFF_OR(field, text) \
	{ \
		.name = field, .kind = JSON_FIELD_OFF, .off = text \
	}
#define FIELD(type, field, what, ...) \
	{ \
		.name = #field, .kind = JSON_FIELD_##what, .offset = offsetof(struct type, field), \
		__VA_ARGS__ \
	}
/* What each virtio device has there. */
#define PCI_FIELDS OFF("iommu"), OFF("pci_segment"), OFF("pci_device_id")

extern const struct json_object device_migration_object, disk_object, net_object, vsock_object,
	device_object, user_device_object, console_object;

#endif
