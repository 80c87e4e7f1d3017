/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM generation id ("Virtual Machine Generation ID", Microsoft, 2012): 128 bits in
 * a reserved page of guest RAM, which are another number when what runs is no longer the
 * only continuation of what it was: after a restore, in each clone. The guest is told by
 * the ACPI event device, and seeds its random numbers anew (Linux: vmgenid.c).
 *
 * They stay the same over a reboot, a pause, a migration and a live update.
 *
 * Functions are for the control plane, one at a time.
 */
#ifndef DEVICES_LEGACY_VMGENID_H
#define DEVICES_LEGACY_VMGENID_H

#include <stdint.h>

#include "devices/device_host.h"
#include "devices/device_state.h"
#include "devices/legacy/legacy.h"

#define VMGENID_SIZE 16

struct vmgenid;

/*
 * The id at gpa, 8-byte aligned, where the guest's tables say it is (ADDR); its page is
 * the firmware's. id: what it was in the VM's machine before this one; NULL, or all zero:
 * a new one. RAM is not touched. ged outlives it.
 */
struct vmgenid *vmgenid_new(struct device_host *host, uint64_t gpa, const uint8_t *id,
			    struct acpi_ged *ged, struct error *err);
void vmgenid_free(struct vmgenid *vmgenid); /* NULL is allowed */

/* Into RAM, as firmware does before the guest boots. -EFAULT. */
int vmgenid_write(struct vmgenid *vmgenid, struct error *err);

/* Another id, into RAM, and tells the guest. After a load, before the vCPUs run: then no
 * instruction of the clone runs with the old one. */
int vmgenid_renew(struct vmgenid *vmgenid, struct error *err);

void vmgenid_get(const struct vmgenid *vmgenid, uint8_t id[VMGENID_SIZE]);

/*
 * vmgenid, version 1
 *   address  u64, where the guest's tables say the id is
 *   id       16 bytes
 * The id in RAM comes with RAM: load does not touch it.
 */
void vmgenid_save(struct vmgenid *vmgenid, struct state_writer *writer, const char *name);
int vmgenid_load(struct vmgenid *vmgenid, const struct state_node *node, struct error *err);

#endif
