/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty pages come from several sources behind one interface: KVM's log or ring
 * (vmm/), the VMM's own writes (below), and per VFIO device the best it has.
 *
 * start, then collect() once per region and round, then stop. collect() reports
 * what was written since the previous collect (since start, the first time) and
 * re-arms. A source that fails a collect has lost track: the caller counts the
 * whole range as dirty and goes on or fails, but loses no page silently.
 */
#ifndef MEMORY_DIRTY_SOURCE_H
#define MEMORY_DIRTY_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/dirty_bitmap.h"
#include "memory/guest_memory.h"

struct dirty_source;

struct dirty_source_ops {
	const char *name; /* "kvm-log", "kvm-ring", "vmm", ... */
	bool dma;	  /* what devices write by themselves: collected after all others */
	int (*start)(struct dirty_source *source, struct error *err);
	void (*stop)(struct dirty_source *source);
	/* ORs dirty pages of the region into bitmap (bit 0 = region->gpa). */
	int (*collect)(struct dirty_source *source, const struct guest_memory_region *region,
		       struct dirty_bitmap *bitmap, struct error *err);
	/* Optional: as collect, for the last time before stop. Nothing needs to be re-armed: what
	 * is reported may be so again, should there be a collect after all. */
	int (*collect_last)(struct dirty_source *source, const struct guest_memory_region *region,
			    struct dirty_bitmap *bitmap, struct error *err);
	void (*free)(struct dirty_source *source);
};

/* Embedded first in the implementation's own struct. */
struct dirty_source {
	const struct dirty_source_ops *ops;
};

/* The source of guest_memory_mark_dirty() and guest_memory_write(). One per
 * guest_memory at a time is started; freed with ops->free. */
struct dirty_source *guest_memory_dirty_source(struct guest_memory *memory, struct error *err);

#endif
