/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the iommufd ABI (/dev/iommu) we use, by its documented layout: Debian 12 has
 * no linux/iommufd.h. Names are the kernel's, so this file and that one exclude each other;
 * tests/unit/vfio/test_uapi.c compares them where the system has it.
 *
 * Every call takes a structure whose first word is its size: an older kernel accepts a
 * longer one as long as what it does not know is 0 (else E2BIG). ENOTTY: no such call;
 * EOPNOTSUPP: known, but not with these arguments or on this hardware.
 */
#ifndef VFIO_UAPI_IOMMUFD_H
#define VFIO_UAPI_IOMMUFD_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define IOMMUFD_TYPE ';'

/* Ends any object by its id. */
struct iommu_destroy {
	__u32 size;
	__u32 id;
};
#define IOMMU_DESTROY _IO(IOMMUFD_TYPE, 0x80)

/* A new, empty I/O address space. */
struct iommu_ioas_alloc {
	__u32 size;
	__u32 flags; /* 0 */
	__u32 out_ioas_id;
};
#define IOMMU_IOAS_ALLOC _IO(IOMMUFD_TYPE, 0x81)

struct iommu_iova_range {
	__aligned_u64 start;
	__aligned_u64 last; /* inclusive */
};

/* What can be mapped: everything at first, less with each device attached. EMSGSIZE:
 * more ranges than room; num_iovas says how many. */
struct iommu_ioas_iova_ranges {
	__u32 size;
	__u32 ioas_id;
	__u32 num_iovas; /* in: room; out: how many there are */
	__u32 __reserved;
	__aligned_u64 allowed_iovas; /* struct iommu_iova_range * */
	__aligned_u64 out_iova_alignment;
};
#define IOMMU_IOAS_IOVA_RANGES _IO(IOMMUFD_TYPE, 0x84)

/* Flags of map and map_file. */
#define IOMMU_IOAS_MAP_FIXED_IOVA (1 << 0)
#define IOMMU_IOAS_MAP_WRITEABLE (1 << 1)
#define IOMMU_IOAS_MAP_READABLE (1 << 2)

/* By address. */
struct iommu_ioas_map {
	__u32 size;
	__u32 flags;
	__u32 ioas_id;
	__u32 __reserved;
	__aligned_u64 user_va;
	__aligned_u64 length;
	__aligned_u64 iova;
};
#define IOMMU_IOAS_MAP _IO(IOMMUFD_TYPE, 0x85)

/* Exactly what was mapped, or several such ranges whole; length comes back as the bytes
 * unmapped. */
struct iommu_ioas_unmap {
	__u32 size;
	__u32 ioas_id;
	__aligned_u64 iova;
	__aligned_u64 length;
};
#define IOMMU_IOAS_UNMAP _IO(IOMMUFD_TYPE, 0x86)

#define IOMMU_OPTION_RLIMIT_MODE 0 /* 0: pinned pages count per user; 1: per process */
#define IOMMU_OPTION_HUGE_PAGES 1  /* of an IOAS; 1, the default: large IOMMU pages */
#define IOMMU_OPTION_OP_SET 0
#define IOMMU_OPTION_OP_GET 1

struct iommu_option {
	__u32 size;
	__u32 option_id;
	__u16 op;
	__u16 __reserved;
	__u32 object_id; /* 0 for options of the whole iommufd */
	__aligned_u64 val64;
};
#define IOMMU_OPTION _IO(IOMMUFD_TYPE, 0x87)

#define IOMMU_HWPT_ALLOC_NEST_PARENT (1 << 0)
#define IOMMU_HWPT_ALLOC_DIRTY_TRACKING (1 << 1) /* only devices that can are attached */

/* Linux 6.6: a hardware page table of the IOMMU behind dev_id, filled from an IOAS. */
struct iommu_hwpt_alloc {
	__u32 size;
	__u32 flags;
	__u32 dev_id;
	__u32 pt_id; /* the IOAS */
	__u32 out_hwpt_id;
	__u32 __reserved;
	__u32 data_type; /* 0: none */
	__u32 data_len;
	__aligned_u64 data_uptr;
	__u32 fault_id; /* from 6.11 */
	__u32 __reserved2;
};
#define IOMMU_HWPT_ALLOC _IO(IOMMUFD_TYPE, 0x89)

#define IOMMU_HW_CAP_DIRTY_TRACKING (1 << 0) /* in out_capabilities */

/* Linux 6.6, out_capabilities from 6.7. */
struct iommu_hw_info {
	__u32 size;
	__u32 flags;
	__u32 dev_id;
	__u32 data_len; /* room at data_uptr for what is specific to the kind of IOMMU */
	__aligned_u64 data_uptr;
	__u32 out_data_type;
	__u8 out_max_pasid_log2;
	__u8 __reserved[3];
	__aligned_u64 out_capabilities;
};
#define IOMMU_GET_HW_INFO _IO(IOMMUFD_TYPE, 0x8a)

#define IOMMU_HWPT_DIRTY_TRACKING_ENABLE 1

/* Linux 6.7. */
struct iommu_hwpt_set_dirty_tracking {
	__u32 size;
	__u32 flags; /* IOMMU_HWPT_DIRTY_TRACKING_ENABLE, or 0: off */
	__u32 hwpt_id;
	__u32 __reserved;
};
#define IOMMU_HWPT_SET_DIRTY_TRACKING _IO(IOMMUFD_TYPE, 0x8b)

#define IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR 1 /* the range is unmapped next */

/* Linux 6.7. Sets bits (bit 0: the page at iova), clears none. The IOMMU has a dirty bit per
 * page of its own, as large as what was mapped lies in one piece: all of it is told. Where
 * part of the range is not mapped, what lies behind that is not told, and it is no error
 * (both seen with Linux 7.3's AMDv1 page tables). */
struct iommu_hwpt_get_dirty_bitmap {
	__u32 size;
	__u32 hwpt_id;
	__u32 flags;
	__u32 __reserved;
	__aligned_u64 iova;
	__aligned_u64 length;
	__aligned_u64 page_size; /* of a bit */
	__aligned_u64 data;	 /* __u64 * */
};
#define IOMMU_HWPT_GET_DIRTY_BITMAP _IO(IOMMUFD_TYPE, 0x8c)

/* Linux 6.13: from a memfd; from 7.0 on also a dma-buf of a VFIO device's region. */
struct iommu_ioas_map_file {
	__u32 size;
	__u32 flags;
	__u32 ioas_id;
	__s32 fd;
	__aligned_u64 start; /* offset in the file */
	__aligned_u64 length;
	__aligned_u64 iova;
};
#define IOMMU_IOAS_MAP_FILE _IO(IOMMUFD_TYPE, 0x8f)

/* Linux 6.13: what the iommufd has pinned counts for the calling process from now on.
 * EINVAL where anything is mapped by address. */
struct iommu_ioas_change_process {
	__u32 size;
	__u32 __reserved;
};
#define IOMMU_IOAS_CHANGE_PROCESS _IO(IOMMUFD_TYPE, 0x92)

#endif
