/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The legacy container as a DMA space (dma_type1.c) and the groups in it
 * (dma_type1_group.c). Private to these two.
 */
#ifndef VFIO_DMA_TYPE1_H
#define VFIO_DMA_TYPE1_H

#include "vfio/kernel_space.h"

struct dma_type1 {
	struct kernel_space ks;
	struct type1_group *groups; /* none: no IOMMU set, nothing is mapped */
	/* What VFIO_IOMMU_GET_INFO says, renewed with each group. */
	struct dma_range ranges[DMA_RANGES_MAX];
	unsigned int range_count;  /* 0: it does not say */
	uint64_t dirty_page;	   /* bytes a bit of the dirty log stands for; 0: it has none */
	uint64_t dirty_bitmap_max; /* bytes of bits in a call */
	uint32_t mappings_left;
};

int dma_type1_map_error(const struct dma_type1 *t1, int code, const struct dma_mapping *mapping,
			struct error *err);
/* Makes what was recorded real; the caller undoes it by leaving the container. */
int dma_type1_map_all(struct dma_type1 *t1, struct error *err);
int dma_type1_start_log(struct dma_type1 *t1, struct error *err);

int dma_type1_read_info(struct dma_type1 *t1, struct error *err);

/* Live update, dma_type1_keep.c: dma_space_ops. */
int dma_type1_keep(struct dma_space *space, struct kept *kept, struct error *err);
int dma_type1_hold(struct dma_space *space, bool hold, struct error *err);
int dma_type1_own(struct dma_space *space, struct error *err);
/* A foreign mapping, at hva in this process. With lock held. */
int dma_type1_claim(struct dma_type1 *t1, struct dma_mapping *mapping, void *hva);

#endif
