/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/snapshot_early.h"

#include "base/bytes.h"

int snapshot_early_init(struct snapshot_early *early, struct snapshot_units *units,
			struct error *err)
{
	const struct snapshot_layout *layout = units->layout;
	int r = 0;

	*early = (struct snapshot_early){ .units = units };
	for (unsigned int i = 0; !r && i < layout->count; i++) {
		r = dirty_bitmap_init(&early->again[i], layout->regions[i].size / GUEST_PAGE_SIZE,
				      err);
		early->count += !r;
	}
	return r;
}

void snapshot_early_destroy(struct snapshot_early *early)
{
	while (early->count)
		dirty_bitmap_destroy(&early->again[--early->count]);
}

void snapshot_early_note(void *opaque, unsigned int region, const struct dirty_bitmap *fresh)
{
	struct snapshot_early *early = opaque;

	dirty_bitmap_or(&early->again[region], fresh);
}

static uint64_t again_in(struct snapshot_early *early, unsigned int index)
{
	const struct snapshot_layout *layout = early->units->layout;
	const struct snapshot_region *region = &layout->regions[index];
	uint64_t in_unit = layout->unit / GUEST_PAGE_SIZE, page = 0, pages, bytes = 0;

	while (dirty_bitmap_next_run(&early->again[index], &page, &pages)) {
		uint64_t unit = page / in_unit;

		snapshot_units_scan(early->units, region->first_unit + unit, 1);
		early->units->states[region->first_unit + unit] = UNIT_PENDING;
		bytes += snapshot_place(layout, region->first_unit + unit).len;
		page = (unit + 1) * in_unit;
		if (page >= early->again[index].pages)
			break;
	}
	dirty_bitmap_clear(&early->again[index], 0, early->again[index].pages);
	return bytes;
}

uint64_t snapshot_early_again(struct snapshot_early *early)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < early->count; i++)
		bytes += again_in(early, i);
	return bytes;
}
