/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IOAS as a DMA space (dma_iommufd.c), and the devices in it with the IOMMU's dirty
 * tracking (dma_iommufd_hwpt.c). Private to these two.
 */
#ifndef VFIO_DMA_IOMMUFD_H
#define VFIO_DMA_IOMMUFD_H

#include "vfio/kernel_space.h"

struct dma_iommufd {
	struct kernel_space ks;
	uint32_t ioas;
	bool by_file; /* until the kernel says that it has no IOMMU_IOAS_MAP_FILE */
	struct iommufd_attachment *attachments;
};

/* Live update, dma_iommufd_keep.c: dma_space_ops. */
int dma_iommufd_keep(struct dma_space *space, struct kept *kept, struct error *err);
int dma_iommufd_own(struct dma_space *space, struct error *err);

/* ORs what every page table of the space found dirty into bitmap. */
int dma_iommufd_read_dirty(struct dma_iommufd *io, uint64_t iova, uint64_t size, uint32_t flags,
			   struct dirty_bitmap *bitmap, struct error *err);
int dma_iommufd_dirty_able(struct dma_space *space, const char *device, struct error *err);
int dma_iommufd_dirty_start(struct dma_space *space, struct error *err);
void dma_iommufd_dirty_stop(struct dma_space *space);
int dma_iommufd_dirty_collect(struct dma_space *space, uint64_t iova, uint64_t size, bool last,
			      struct dirty_bitmap *bitmap, struct error *err);

#endif
