/* SPDX-License-Identifier: Apache-2.0 */
/* The jail's insides, shared by jail.c and jail_devices.c. */
#ifndef VMM_JAIL_PRIVATE_H
#define VMM_JAIL_PRIVATE_H

#include "vmm/sandbox.h"

int jail_make_dir(const struct jail_options *jail, const char *path, struct error *err);
/* A device node in the jail with the numbers the host's has; one that the host does
 * not have is left out. */
int jail_make_node(const struct jail_options *jail, const char *path, struct error *err);

/* The assigned devices of the options: see jail_devices.c. In the mount namespace of the jail,
 * before its directory becomes the root. */
int jail_add_devices(const struct ferry_options *options, struct error *err);

#endif
