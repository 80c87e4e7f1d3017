/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RAM that is being saved: which of its pages are wanted, and how far each unit is.
 * Private to migration/.
 */
#ifndef MIGRATION_SNAPSHOT_UNITS_H
#define MIGRATION_SNAPSHOT_UNITS_H

#include "migration/snapshot_private.h"

enum unit_state {
	UNIT_PENDING, /* nobody has it */
	UNIT_WRITING, /* a worker writes it from guest RAM: it must not change */
	UNIT_COPYING, /* the fault thread copies it */
	UNIT_SAVED,   /* the guest may write to it: a copy of it is safe, or on its way */
};

struct unit_region {
	uint8_t *hva;
	int memfd;	 /* to look for holes in; -1: it has none to tell */
	uint64_t offset; /* of the region in memfd */
	/* What is there and is wanted: fixed once the VM goes on. */
	struct dirty_bitmap wanted;
};

struct snapshot_units {
	const struct snapshot_layout *layout;
	struct unit_region regions[SNAPSHOT_REGIONS_MAX];
	_Atomic unsigned char *states; /* enum unit_state, one per unit */
};

int snapshot_units_init(struct snapshot_units *units, const struct snapshot_layout *layout,
			const struct guest_memory *memory, struct error *err);
void snapshot_units_destroy(struct snapshot_units *units);

/* Finds the pages that are there, of `count` units from `first` on, within one region:
 * fills `wanted` for them, without those that a differential snapshot does not hold. */
void snapshot_units_scan(struct snapshot_units *units, uint64_t first, uint64_t count);

static inline uint8_t *unit_hva(const struct snapshot_units *units,
				const struct snapshot_place *place)
{
	return units->regions[place->region].hva + place->offset;
}

static inline bool unit_take(struct snapshot_units *units, uint64_t unit, enum unit_state to)
{
	unsigned char pending = UNIT_PENDING;

	return atomic_compare_exchange_strong(&units->states[unit], &pending, (unsigned char)to);
}

/* A unit is of whole words of 64 pages: no two share one. */
bool snapshot_unit_wants(const struct snapshot_units *units, const struct snapshot_place *place);

/* Copies the wanted pages of a unit; the others' room becomes zero. Guest RAM as it is:
 * another thread may be writing to it. */
void snapshot_unit_copy(const struct snapshot_units *units, const struct snapshot_place *place,
			uint8_t *to);
bool snapshot_is_zero(const uint8_t *data, size_t len); /* multiples of 64 bytes */

#endif
