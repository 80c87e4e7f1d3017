/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the iommufd's test ABI we use: an IOMMU of the kernel's own making, and devices
 * behind it, which only kernels with CONFIG_IOMMUFD_TEST have. Restated from Linux 7.3,
 * drivers/iommu/iommufd/iommufd_test.h, whose names these are; it is no stable ABI.
 */
#ifndef TESTS_LAB_VFIO_UAPI_IOMMUFD_TEST_H
#define TESTS_LAB_VFIO_UAPI_IOMMUFD_TEST_H

#include "vfio/uapi_iommufd.h"

enum {
	IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE = 10,
	IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS = 12,
	IOMMU_TEST_OP_DIRTY = 13,
};

#define MOCK_FLAGS_DEVICE_NO_DIRTY (1 << 0)

/* What a page table of the default type maps, and its smallest page. */
#define MOCK_APERTURE_START (1UL << 24)
#define MOCK_APERTURE_LAST ((1UL << 31) - 1)
#define MOCK_PAGE_SIZE 2048UL

/* A page table of this type maps from 0 on, in pages of these or of 4 KiB. */
#define MOCK_IOMMUPT_HUGE 1
#define MOCK_HUGE_PAGE_SIZE (512 * MOCK_PAGE_SIZE)

/* `dirty` is the largest of the kernel's union, which has more members than these. */
struct iommu_test_cmd {
	__u32 size;
	__u32 op;
	__u32 id; /* an IOAS; a mock's out_stdev_id; a page table */
	__u32 __reserved;
	union {
		/* A new mock, attached to the IOAS `id`. */
		struct {
			__u32 out_stdev_id; /* the mock: IOMMU_DESTROY unplugs it */
			__u32 out_hwpt_id;
			__u32 out_idev_id; /* what VFIO_DEVICE_BIND_IOMMUFD gives of a real one */
			__u32 dev_flags;
		} mock_domain_flags;
		/* The mock `id` goes over to another IOAS or page table. */
		struct {
			__u32 pt_id;
		} mock_domain_replace;
		/* As if devices had written, by page table `id`, to pages whose bit is set. EINVAL
		 * where tracking is off; pages that are not mapped are passed over. */
		struct {
			__u32 flags;
			__aligned_u64 iova;
			__aligned_u64 length;
			__aligned_u64 page_size; /* of a bit */
			__aligned_u64 uptr;
			__aligned_u64 out_nr_dirty;
		} dirty;
	};
	__u32 last;
};
#define IOMMU_TEST_CMD _IO(IOMMUFD_TYPE, 0xa0)

/* What IOMMU_HWPT_ALLOC takes as data_uptr for the mock. */
#define IOMMU_HWPT_DATA_SELFTEST 0xdead
struct iommu_hwpt_selftest {
	__u32 iotlb;
	__u32 pagetable_type;
};

#endif
