/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the pages of an opened snapshot are: in the newest image of the chain that holds
 * them. Private to migration/. A source belongs to one thread.
 */
#ifndef MIGRATION_SNAPSHOT_SOURCE_H
#define MIGRATION_SNAPSHOT_SOURCE_H

#include <zstd.h>

#include "migration/snapshot_private.h"

struct snapshot_source {
	const struct snapshot *snapshot;
	ZSTD_DCtx *zstd;
	uint8_t *frame; /* compressed, as in the file */
	uint8_t *unit;	/* decompressed: of image and unit below */
	unsigned int image;
	uint64_t index; /* UINT64_MAX: none */
	/* The extent of data found last, per image: lseek is not asked for each page. */
	struct {
		uint64_t start, end;
	} extents[SNAPSHOT_CHAIN_MAX];
};

int snapshot_source_init(struct snapshot_source *source, const struct snapshot *snapshot,
			 struct error *err);
void snapshot_source_destroy(struct snapshot_source *source);

/* A run of pages that are one after the other in one place. */
struct snapshot_run {
	uint64_t offset, len; /* in the region, bytes */
	unsigned int image;   /* of the chain */
	bool compressed;      /* else it is in `ram` at: */
	uint64_t file_offset;
};

/*
 * The first run at or after `offset` of the region that may hold anything but zeros, up to
 * `end`; false: there is none. A compressed run lies within one unit.
 */
bool snapshot_source_next(struct snapshot_source *source, unsigned int region, uint64_t offset,
			  uint64_t end, struct snapshot_run *run);
/* The bytes of a compressed run; valid until the next call. */
const uint8_t *snapshot_source_data(struct snapshot_source *source, unsigned int region,
				    const struct snapshot_run *run, struct error *err);

#endif
