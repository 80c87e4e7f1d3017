/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An address space that devices do DMA through. One interface, three of them:
 *
 *   iommufd  one IOAS of an iommufd, shared by all cdev devices      dma_iommufd.c
 *   type1    one legacy container, shared by all group devices       dma_type1.c
 *   user     a vfio-user server's view, one per server               transport_user.c
 *
 * IOVA = guest-physical address. A machine has at most one space of each kernel kind;
 * it is made when the first device needs it, holds all of guest RAM, and outlives every
 * device (mappings do not depend on which devices are plugged).
 *
 * Control plane, one at a time; beside it map and unmap may come from the main loop (BARs
 * for peers), collect from a migration thread.
 */
#ifndef VFIO_DMA_SPACE_H
#define VFIO_DMA_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/kept.h"
#include "base/log.h"
#include "memory/dirty_bitmap.h"
#include "memory/guest_memory.h"

struct dma_space;

struct dma_range {
	uint64_t start, last; /* inclusive, as IOMMU_IOAS_IOVA_RANGES has them */
};

struct dma_space_ops {
	const char *name; /* "iommufd", "type1", "user" */

	/* Maps [iova, iova + size) to [offset, offset + size) of fd (a memfd, or a dma-buf):
	 * by file where the kernel can (iommufd from 6.13), else by the address hva. */
	int (*map)(struct dma_space *space, uint64_t iova, uint64_t size, int fd, uint64_t offset,
		   void *hva, bool writable, struct error *err);
	/* Exactly what was mapped. dirty not NULL: pages the devices wrote since the last
	 * collect are ORed into it (bit 0 = iova) before the mapping goes. */
	int (*unmap)(struct dma_space *space, uint64_t iova, uint64_t size,
		     struct dirty_bitmap *dirty, struct error *err);
	/* What the IOMMU can map: up to `max` ranges sorted into ranges; the count. */
	int (*iova_ranges)(struct dma_space *space, struct dma_range *ranges, unsigned int max,
			   struct error *err);

	/* Dirty tracking by the IOMMU. dirty_able: 0, or -EOPNOTSUPP and why the writes of
	 * that device (its transport's name) cannot be tracked. Started, the writes of all
	 * devices are but of those that log their own (vfio_transport.own_log): -EOPNOTSUPP
	 * names one whose cannot. */
	int (*dirty_able)(struct dma_space *space, const char *device, struct error *err);
	int (*dirty_start)(struct dma_space *space, struct error *err);
	void (*dirty_stop)(struct dma_space *space);
	/* ORs pages written since the last collect into bitmap (bit 0 = iova); of ranges that
	 * were mapped as one, or as several whole. last: no collect follows, what is reported
	 * may be so again. */
	int (*dirty_collect)(struct dma_space *space, uint64_t iova, uint64_t size, bool last,
			     struct dirty_bitmap *bitmap, struct error *err);

	/*
	 * Live update; NULL: it cannot be handed over. keep: its descriptors and mappings. hold
	 * (NULL: nothing to do): while no vCPU runs, this process gives up what is of its own
	 * address space in it, or, where the other one does not go on, has it again. own: of one
	 * made of what was kept, which up to then changes nothing: what is pinned counts for
	 * this process from now on.
	 */
	int (*keep)(struct dma_space *space, struct kept *kept, struct error *err);
	int (*hold)(struct dma_space *space, bool hold, struct error *err);
	int (*own)(struct dma_space *space, struct error *err);

	void (*free)(struct dma_space *space);
};

/* Embedded first in the implementation's struct. */
struct dma_space {
	const struct dma_space_ops *ops;
	struct log *log;
	/* The dirty sources that share its log (device_dirty.c): how many are started, and
	 * which of them reads it. Of the thread that has the sources. */
	unsigned int dirty_users;
	const void *dirty_reader;
};

/* Opens /dev/iommu and makes an IOAS; -ENOENT and -EOPNOTSUPP: the kernel has none. fd
 * >= 0: an iommufd opened by the caller, taken over on success. */
struct dma_space *dma_space_open_iommufd(int fd, struct log *log, struct error *err);
/* That of another process, kept by it: with all of its mappings, which may not be made again. */
struct dma_space *dma_space_take_iommufd(struct kept *kept, struct log *log, struct error *err);
/* Opens /dev/vfio/vfio. The IOMMU model is set when the first group joins. */
struct dma_space *dma_space_open_type1(struct log *log, struct error *err);
/* That of another process, as dma_space_take_iommufd; memory: the same RAM, in this one. */
struct dma_space *dma_space_take_type1(const struct guest_memory *memory, struct kept *kept,
				       struct log *log, struct error *err);

/*
 * Maps every region of RAM. Checks first: that every region lies in what the IOMMU can
 * map (the error names the range that does not), and RLIMIT_MEMLOCK where it counts (the
 * error names the figure that would do). On failure nothing stays mapped.
 */
int dma_space_map_memory(struct dma_space *space, const struct guest_memory *memory,
			 struct error *err);

/* The iommufd's IOAS, the container's fd: for transports of the same kind. */
int dma_space_fd(const struct dma_space *space);
uint32_t dma_space_ioas(const struct dma_space *space);

#endif
