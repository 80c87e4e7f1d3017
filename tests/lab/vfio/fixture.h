/* SPDX-License-Identifier: Apache-2.0 */
/* What programs on the lab's devices start from: by both ways to a device. */
#ifndef TESTS_LAB_VFIO_FIXTURE_H
#define TESTS_LAB_VFIO_FIXTURE_H

#include <check.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vfio/transport.h"
#include "vfio/uapi_vfio.h"

#define LOW (32 * MIB)
#define HIGH (4 * GIB)
#define RAM (64 * MIB)

/* Loop index: mode, or mode and device. */
enum mode { IOMMUFD, TYPE1, MODES };

static inline bool have(enum mode mode)
{
	return mode == TYPE1 || !access("/dev/iommu", F_OK);
}

static inline struct dma_space *open_space(enum mode mode)
{
	struct error err = ERROR_INIT;
	struct dma_space *space = mode == IOMMUFD ? dma_space_open_iommufd(-1, NULL, &err)
						  : dma_space_open_type1(NULL, &err);

	ck_assert_msg(space != NULL, "%s", err.message);
	return space;
}

static inline struct vfio_transport *try_open(const char *path, struct dma_space *space,
					      struct error *err)
{
	if (!strcmp(space->ops->name, "iommufd"))
		return vfio_transport_open_cdev(path, -1, space, NULL, err);
	return vfio_transport_open_group(path, space, NULL, err);
}

static inline struct guest_memory *make_memory(void)
{
	struct guest_memory_options options = { .size = RAM, .low_end = LOW, .high_start = HIGH };
	struct error err = ERROR_INIT;
	struct guest_memory *memory = guest_memory_new(&options, &err);

	ck_assert_msg(memory != NULL, "%s", err.message);
	return memory;
}

static inline void map_memory(struct dma_space *space, struct guest_memory *memory)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(!dma_space_map_memory(space, memory, &err), "%s", err.message);
}

static inline struct vfio_region region(struct vfio_transport *t, uint32_t index)
{
	struct error err = ERROR_INIT;
	struct vfio_region r;

	ck_assert_msg(!t->ops->region_info(t, index, &r, &err), "%s", err.message);
	return r;
}

static inline uint32_t config_read(struct vfio_transport *t, uint64_t offset, size_t len)
{
	struct vfio_region config = region(t, VFIO_PCI_CONFIG_REGION_INDEX);
	struct error err = ERROR_INIT;
	uint32_t value = 0;

	ck_assert_msg(!t->ops->region_read(t, &config, offset, &value, len, &err), "%s",
		      err.message);
	return value;
}

static inline void config_write(struct vfio_transport *t, uint64_t offset, uint32_t value,
				size_t len)
{
	struct vfio_region config = region(t, VFIO_PCI_CONFIG_REGION_INDEX);
	struct error err = ERROR_INIT;

	ck_assert_msg(!t->ops->region_write(t, &config, offset, &value, len, &err), "%s",
		      err.message);
}

#endif
