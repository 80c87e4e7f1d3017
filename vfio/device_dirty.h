/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an assigned device writes to RAM, as a dirty source (memory/dirty_source.h), the
 * best that the device has, in this order:
 *
 *   device-log  the device logs its DMA: VFIO_DEVICE_FEATURE_DMA_LOGGING_*
 *   iommu       its IOMMU does: dma_space_ops.dirty_* (iommufd's HWPT, type1's
 *               VFIO_IOMMU_DIRTY_PAGES); one for all devices of a space
 *   all         every page it can reach counts as dirty, in every round: only where the
 *               request says so (dirty_tracking=all), for it never converges
 *
 * A device's sources are collected after vCPUs' and VMM's (DIRTY_ORDER_LAST), and for the
 * last time after the device is stopped, before the last page is sent: a write that the
 * collect did not see yet is of a device that has not been stopped.
 *
 * Control plane; collect from the migration's thread.
 */
#ifndef VFIO_DEVICE_DIRTY_H
#define VFIO_DEVICE_DIRTY_H

#include "memory/dirty_source.h"
#include "vfio/transport.h"

enum device_dirty_choice {
	DEVICE_DIRTY_AUTO, /* the first two; -EOPNOTSUPP where there is neither */
	DEVICE_DIRTY_ALL,
};

/*
 * A source for that device, the caller's, freed (ops->free) before the transport is closed.
 * -EOPNOTSUPP names the device, what was tried and what would do. Sources of kind "iommu"
 * of one space share its log: started by the first, stopped by the last, read once a round.
 *
 * One thread at a time has all sources of a space: the migration's, or the control plane
 * while there is none.
 */
struct dirty_source *device_dirty_source(struct vfio_transport *transport,
					 struct guest_memory *memory,
					 enum device_dirty_choice choice, struct error *err);

#endif
