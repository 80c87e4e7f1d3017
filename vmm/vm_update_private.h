/* SPDX-License-Identifier: Apache-2.0 */
/* What both sides of a live update agree on: vm_update.c, vm_adopt.c. */
#ifndef VMM_VM_UPDATE_PRIVATE_H
#define VMM_VM_UPDATE_PRIVATE_H

#include "vmm/state_kinds.h"
#include "vmm/vm_update.h"

/* The names in struct kept of what is not a device's (those are under its id, and no id
 * begins so). It changes where their meaning does. */
#define UPDATE_FORMAT 1
#define UPDATE_SERIAL "@serial"
#define UPDATE_CONSOLE "@console"
#define UPDATE_DEBUG_CONSOLE "@debug-console"
#define UPDATE_NET_FD "@net/%s/%u"
#define UPDATE_DEVICE_FD "@device/%s"

#endif
