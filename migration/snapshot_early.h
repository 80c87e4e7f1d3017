/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RAM written before the pause, in rounds, by the dirty sources: for VMs with devices that
 * write by DMA, which userfaultfd does not see. A round writes the units that were written
 * to since the one before, over what is there; in the pause only the last few are left.
 * Private to migration/.
 */
#ifndef MIGRATION_SNAPSHOT_EARLY_H
#define MIGRATION_SNAPSHOT_EARLY_H

#include "migration/snapshot_units.h"

struct snapshot_early {
	struct snapshot_units *units;
	unsigned int count;
	struct dirty_bitmap again[SNAPSHOT_REGIONS_MAX]; /* written to since the last round */
};

int snapshot_early_init(struct snapshot_early *early, struct snapshot_units *units,
			struct error *err);
void snapshot_early_destroy(struct snapshot_early *early);
/* For snapshot_tracking_collect. */
void snapshot_early_note(void *opaque, unsigned int region, const struct dirty_bitmap *fresh);
/* The units that are to be written again, pending now; bytes of RAM in them. */
uint64_t snapshot_early_again(struct snapshot_early *early);

#endif
