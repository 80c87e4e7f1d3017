/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving and loading devices: what they share.
 *
 * Each device has one save and one load function. Save writes one node, whose name
 * the caller chooses where there may be several of the kind. Load reads it into a
 * device just made of the same configuration, which has not run; what the node holds
 * is hostile. A load that failed leaves a device that can be freed, and nothing
 * else. Both are for the control plane, while no vCPU runs and devices are paused.
 *
 * Saving cannot fail but where it says so: struct state_writer keeps the first
 * failure until it is finished.
 *
 * Loading interrupts the guest where something is pending: the interrupt controllers'
 * own state is loaded before the devices', or that is lost.
 */
#ifndef DEVICES_DEVICE_STATE_H
#define DEVICES_DEVICE_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/state_tree.h"

/* Plain members of a struct as properties: u64 where they have 8 bytes, else u32. */
struct state_field {
	const char *name;
	size_t offset, size; /* 1, 2, 4 or 8 bytes; a bool has 1 and max 1 */
	uint64_t max;
};

#define STATE_FIELD(type, member, text, limit) \
	{ \
		.name = (text), .offset = offsetof(type, member), \
		.size = sizeof(((type *)0)->member), .max = (limit) \
	}

void state_fields_save(struct state_writer *writer, const struct state_field *fields, size_t count,
		       const void *object);
/* -ERANGE beyond max, -ENOENT missing, -EINVAL another size: all name the property. */
int state_fields_load(const struct state_node *node, const struct state_field *fields, size_t count,
		      void *object, struct error *err);

/* A number of at most max, as u32. */
int state_get_u32_max(const struct state_node *node, const char *name, uint32_t max,
		      uint32_t *value, struct error *err);
/* Must be what this machine has: "<path>: property <name> is <saved>, here <here>". */
int state_match_u32(const struct state_node *node, const char *name, uint32_t here,
		    struct error *err);
int state_match_u64(const struct state_node *node, const char *name, uint64_t here,
		    struct error *err);
/* "<path>: property <name> <what>"; returns -EINVAL. */
int state_refuse(const struct state_node *node, const char *name, struct error *err,
		 const char *what, ...) __attribute__((format(printf, 4, 5)));
/* A child of that name, kind and version: as state_child and state_expect. */
int state_expect_child(const struct state_node *parent, const char *name, const char *kind,
		       uint32_t newest, struct state_node *child, struct error *err);

#endif
