/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VFIO's info structures (device, region, IOMMU): they start with argsz and flags, and may
 * be followed by a list of capabilities (struct vfio_info_cap_header) linked by offsets
 * from the structure's start. The list is the driver's word: every offset is checked, and a
 * loop ends the walk. Private to vfio/.
 */
#ifndef VFIO_INFO_CAPS_H
#define VFIO_INFO_CAPS_H

#include <stddef.h>
#include <stdint.h>

#include "vfio/kernel.h"

#define VFIO_INFO_SIZE_MAX (64U << 10)

/*
 * Asks with the first `size` bytes of `request_data`, again with more room where the answer
 * does not fit. *info is the answer, malloc'd, *info_size its length (at least `size`).
 * 0, -errno; -EMSGSIZE: it asks for more than VFIO_INFO_SIZE_MAX.
 */
int vfio_info_query(const struct vfio_kernel *kernel, int fd, unsigned long request,
		    const void *request_data, size_t size, void **info, size_t *info_size);

/* The offset of the first capability `id` that has at least `len` bytes before the end;
 * 0: none. `at` is where the list starts. */
uint32_t vfio_info_cap_find(const void *info, size_t info_size, uint32_t at, uint16_t id,
			    size_t len);

#endif
