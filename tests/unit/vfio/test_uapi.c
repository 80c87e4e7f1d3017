/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our copies of kernel ABI against the documented layout and, where the system's headers
 * are new enough, against those. uapi_vfio.h steps back for what linux/vfio.h has, so its
 * checks are of the system's then; iommufd's header is included beside ours under other
 * names.
 */
#include <linux/ioctl.h>
#include <linux/types.h>

#if __has_include(<linux/iommufd.h>)
#define SYSTEM_IOMMUFD
#define iommu_destroy system_iommu_destroy
#define iommu_ioas_alloc system_iommu_ioas_alloc
#define iommu_iova_range system_iommu_iova_range
#define iommu_ioas_iova_ranges system_iommu_ioas_iova_ranges
#define iommu_ioas_map system_iommu_ioas_map
#define iommu_ioas_unmap system_iommu_ioas_unmap
#define iommu_option system_iommu_option
#define iommu_hwpt_alloc system_iommu_hwpt_alloc
#define iommu_hw_info system_iommu_hw_info
#define iommu_hwpt_set_dirty_tracking system_iommu_hwpt_set_dirty_tracking
#define iommu_hwpt_get_dirty_bitmap system_iommu_hwpt_get_dirty_bitmap
#define iommu_ioas_map_file system_iommu_ioas_map_file
#define iommu_ioas_change_process system_iommu_ioas_change_process
#include <linux/iommufd.h>

/* Calls and flags of the system's, before ours take their names. */
static const unsigned long system_values[] = {
	IOMMU_DESTROY,
	IOMMU_IOAS_ALLOC,
	IOMMU_IOAS_IOVA_RANGES,
	IOMMU_IOAS_MAP,
	IOMMU_IOAS_UNMAP,
	IOMMU_OPTION,
	IOMMU_IOAS_MAP_FIXED_IOVA,
	IOMMU_IOAS_MAP_WRITEABLE,
	IOMMU_IOAS_MAP_READABLE,
	IOMMU_OPTION_RLIMIT_MODE,
	IOMMU_OPTION_HUGE_PAGES,
	IOMMU_OPTION_OP_SET,
	IOMMU_OPTION_OP_GET,
#ifdef IOMMU_IOAS_CHANGE_PROCESS /* 6.13 has all of them */
	IOMMU_HWPT_ALLOC,
	IOMMU_GET_HW_INFO,
	IOMMU_HWPT_SET_DIRTY_TRACKING,
	IOMMU_HWPT_GET_DIRTY_BITMAP,
	IOMMU_IOAS_MAP_FILE,
	IOMMU_IOAS_CHANGE_PROCESS,
	IOMMU_HWPT_ALLOC_NEST_PARENT,
	IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
	IOMMU_HW_CAP_DIRTY_TRACKING,
	IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
	IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
#define SYSTEM_IOMMUFD_6_13
#endif
};
#undef iommu_destroy
#undef iommu_ioas_alloc
#undef iommu_iova_range
#undef iommu_ioas_iova_ranges
#undef iommu_ioas_map
#undef iommu_ioas_unmap
#undef iommu_option
#undef iommu_hwpt_alloc
#undef iommu_hw_info
#undef iommu_hwpt_set_dirty_tracking
#undef iommu_hwpt_get_dirty_bitmap
#undef iommu_ioas_map_file
#undef iommu_ioas_change_process
#undef IOMMUFD_TYPE
#undef IOMMU_DESTROY
#undef IOMMU_IOAS_ALLOC
#undef IOMMU_IOAS_IOVA_RANGES
#undef IOMMU_IOAS_MAP
#undef IOMMU_IOAS_UNMAP
#undef IOMMU_OPTION
#undef IOMMU_HWPT_ALLOC
#undef IOMMU_GET_HW_INFO
#undef IOMMU_HWPT_SET_DIRTY_TRACKING
#undef IOMMU_HWPT_GET_DIRTY_BITMAP
#undef IOMMU_IOAS_MAP_FILE
#undef IOMMU_IOAS_CHANGE_PROCESS
#endif

#include <stddef.h>

#include "base/bytes.h"
#include "tests/unit/helpers/run_suite.h"
#include "vfio/uapi_iommufd.h"
#include "vfio/uapi_vfio.h"

static const unsigned long values[] = {
	IOMMU_DESTROY,
	IOMMU_IOAS_ALLOC,
	IOMMU_IOAS_IOVA_RANGES,
	IOMMU_IOAS_MAP,
	IOMMU_IOAS_UNMAP,
	IOMMU_OPTION,
	IOMMU_IOAS_MAP_FIXED_IOVA,
	IOMMU_IOAS_MAP_WRITEABLE,
	IOMMU_IOAS_MAP_READABLE,
	IOMMU_OPTION_RLIMIT_MODE,
	IOMMU_OPTION_HUGE_PAGES,
	IOMMU_OPTION_OP_SET,
	IOMMU_OPTION_OP_GET,
	IOMMU_HWPT_ALLOC,
	IOMMU_GET_HW_INFO,
	IOMMU_HWPT_SET_DIRTY_TRACKING,
	IOMMU_HWPT_GET_DIRTY_BITMAP,
	IOMMU_IOAS_MAP_FILE,
	IOMMU_IOAS_CHANGE_PROCESS,
	IOMMU_HWPT_ALLOC_NEST_PARENT,
	IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
	IOMMU_HW_CAP_DIRTY_TRACKING,
	IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
	IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
};

struct layout {
	const char *name;
	size_t is, documented;
};
#define SIZE(s, bytes) \
	{ \
		"sizeof " #s, sizeof(struct s), bytes \
	}
#define AT(s, field, bytes) \
	{ \
#s "." #field, offsetof(struct s, field), bytes \
	}

static const struct layout layouts[] = {
	SIZE(iommu_destroy, 8),
	AT(iommu_destroy, id, 4),
	SIZE(iommu_ioas_alloc, 12),
	AT(iommu_ioas_alloc, out_ioas_id, 8),
	SIZE(iommu_iova_range, 16),
	AT(iommu_iova_range, last, 8),
	SIZE(iommu_ioas_iova_ranges, 32),
	AT(iommu_ioas_iova_ranges, num_iovas, 8),
	AT(iommu_ioas_iova_ranges, allowed_iovas, 16),
	AT(iommu_ioas_iova_ranges, out_iova_alignment, 24),
	SIZE(iommu_ioas_map, 40),
	AT(iommu_ioas_map, ioas_id, 8),
	AT(iommu_ioas_map, user_va, 16),
	AT(iommu_ioas_map, length, 24),
	AT(iommu_ioas_map, iova, 32),
	SIZE(iommu_ioas_unmap, 24),
	AT(iommu_ioas_unmap, iova, 8),
	AT(iommu_ioas_unmap, length, 16),
	SIZE(iommu_option, 24),
	AT(iommu_option, op, 8),
	AT(iommu_option, object_id, 12),
	AT(iommu_option, val64, 16),
	SIZE(iommu_hwpt_alloc, 48),
	AT(iommu_hwpt_alloc, dev_id, 8),
	AT(iommu_hwpt_alloc, pt_id, 12),
	AT(iommu_hwpt_alloc, out_hwpt_id, 16),
	AT(iommu_hwpt_alloc, data_type, 24),
	AT(iommu_hwpt_alloc, data_uptr, 32),
	AT(iommu_hwpt_alloc, fault_id, 40),
	SIZE(iommu_hw_info, 40),
	AT(iommu_hw_info, dev_id, 8),
	AT(iommu_hw_info, data_uptr, 16),
	AT(iommu_hw_info, out_data_type, 24),
	AT(iommu_hw_info, out_capabilities, 32),
	SIZE(iommu_hwpt_set_dirty_tracking, 16),
	AT(iommu_hwpt_set_dirty_tracking, hwpt_id, 8),
	SIZE(iommu_hwpt_get_dirty_bitmap, 48),
	AT(iommu_hwpt_get_dirty_bitmap, flags, 8),
	AT(iommu_hwpt_get_dirty_bitmap, iova, 16),
	AT(iommu_hwpt_get_dirty_bitmap, page_size, 32),
	AT(iommu_hwpt_get_dirty_bitmap, data, 40),
	SIZE(iommu_ioas_map_file, 40),
	AT(iommu_ioas_map_file, fd, 12),
	AT(iommu_ioas_map_file, start, 16),
	AT(iommu_ioas_map_file, length, 24),
	AT(iommu_ioas_map_file, iova, 32),
	SIZE(iommu_ioas_change_process, 8),
	/* vfio: a structure may have grown at its end, so offsets only where ours is not sure. */
	AT(vfio_device_bind_iommufd, iommufd, 8),
	AT(vfio_device_bind_iommufd, out_devid, 12),
	SIZE(vfio_device_attach_iommufd_pt, 16),
	AT(vfio_device_attach_iommufd_pt, pt_id, 8),
	AT(vfio_device_attach_iommufd_pt, pasid, 12),
	SIZE(vfio_device_detach_iommufd_pt, 12),
	SIZE(vfio_precopy_info, 24),
	AT(vfio_precopy_info, initial_bytes, 8),
	AT(vfio_precopy_info, dirty_bytes, 16),
	SIZE(vfio_device_feature_migration, 8),
	SIZE(vfio_device_feature_mig_state, 8),
	AT(vfio_device_feature_mig_state, data_fd, 4),
	SIZE(vfio_device_feature_mig_data_size, 8),
	SIZE(vfio_device_feature_dma_logging_control, 24),
	AT(vfio_device_feature_dma_logging_control, num_ranges, 8),
	AT(vfio_device_feature_dma_logging_control, ranges, 16),
	SIZE(vfio_device_feature_dma_logging_range, 16),
	AT(vfio_device_feature_dma_logging_range, length, 8),
	SIZE(vfio_device_feature_dma_logging_report, 32),
	AT(vfio_device_feature_dma_logging_report, length, 8),
	AT(vfio_device_feature_dma_logging_report, page_size, 16),
	AT(vfio_device_feature_dma_logging_report, bitmap, 24),
	SIZE(vfio_device_migration_info, 32),
	AT(vfio_device_migration_info, pending_bytes, 8),
	AT(vfio_device_migration_info, data_offset, 16),
	AT(vfio_device_migration_info, data_size, 24),
	SIZE(vfio_region_dma_range, 16),
	SIZE(vfio_device_feature_dma_buf, 16),
	AT(vfio_device_feature_dma_buf, nr_ranges, 12),
	AT(vfio_device_feature_dma_buf, dma_ranges, 16),
	SIZE(vfio_region_info, 32),
	AT(vfio_region_info, cap_offset, 12),
	AT(vfio_region_info, size, 16),
	AT(vfio_region_info, offset, 24),
	SIZE(vfio_irq_set, 20),
	SIZE(vfio_device_feature, 8),
	AT(vfio_iommu_type1_info, cap_offset, 16),
	SIZE(vfio_iommu_type1_dma_map, 32),
	SIZE(vfio_iommu_type1_dma_unmap, 24),
	SIZE(vfio_bitmap, 24),
	SIZE(vfio_iommu_type1_dirty_bitmap_get, 40),
	SIZE(vfio_pci_dependent_device, 8),
};

START_TEST(structures_have_the_documented_layout)
{
	ck_assert_msg(layouts[_i].is == layouts[_i].documented, "%s is %zu, documented as %zu",
		      layouts[_i].name, layouts[_i].is, layouts[_i].documented);
}
END_TEST

START_TEST(calls_have_the_documented_numbers)
{
	static const unsigned char iommufd[] = { 0x80, 0x81, 0x84, 0x85, 0x86, 0x87 };
	static const unsigned char newer[] = { 0x89, 0x8a, 0x8b, 0x8c, 0x8f, 0x92 };

	for (unsigned int i = 0; i < ARRAY_SIZE(iommufd); i++) {
		ck_assert_uint_eq(values[i], _IO(';', iommufd[i]));
		ck_assert_uint_eq(values[13 + i], _IO(';', newer[i]));
	}
	ck_assert_uint_eq(VFIO_DEVICE_BIND_IOMMUFD, _IO(';', 118));
	ck_assert_uint_eq(VFIO_DEVICE_ATTACH_IOMMUFD_PT, _IO(';', 119));
	ck_assert_uint_eq(VFIO_DEVICE_DETACH_IOMMUFD_PT, _IO(';', 120));
	ck_assert_uint_eq(VFIO_MIG_GET_PRECOPY_INFO, _IO(';', 121));
	ck_assert_uint_eq(VFIO_MIGRATION_STOP_COPY, 1);
	ck_assert_uint_eq(VFIO_MIGRATION_P2P, 2);
	ck_assert_uint_eq(VFIO_MIGRATION_PRE_COPY, 4);
	ck_assert_int_eq(VFIO_DEVICE_STATE_ERROR, 0);
	ck_assert_int_eq(VFIO_DEVICE_STATE_STOP, 1);
	ck_assert_int_eq(VFIO_DEVICE_STATE_RUNNING, 2);
	ck_assert_int_eq(VFIO_DEVICE_STATE_STOP_COPY, 3);
	ck_assert_int_eq(VFIO_DEVICE_STATE_RESUMING, 4);
	ck_assert_int_eq(VFIO_DEVICE_STATE_RUNNING_P2P, 5);
	ck_assert_int_eq(VFIO_DEVICE_STATE_PRE_COPY, 6);
	ck_assert_int_eq(VFIO_DEVICE_STATE_PRE_COPY_P2P, 7);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_GET, 1 << 16);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_SET, 1 << 17);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_PROBE, 1 << 18);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_MIGRATION, 1);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, 2);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_DMA_LOGGING_START, 6);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, 7);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, 8);
	ck_assert_uint_eq(VFIO_PRECOPY_INFO_REINIT, 1);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, 9);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_DMA_BUF, 11);
	ck_assert_uint_eq(VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, 12);
	ck_assert_uint_eq(VFIO_PCI_HOT_RESET_FLAG_DEV_ID, 1);
	ck_assert_uint_eq(VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED, 2);
}
END_TEST

#ifdef SYSTEM_IOMMUFD
#define SAME_SIZE(s) ck_assert_uint_eq(sizeof(struct s), sizeof(struct system_##s))
#define SAME(s, field) \
	ck_assert_uint_eq(offsetof(struct s, field), offsetof(struct system_##s, field))

START_TEST(iommufd_is_the_systems)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(system_values); i++)
		ck_assert_msg(values[i] == system_values[i], "value %u is %#lx, the system's %#lx",
			      i, values[i], system_values[i]);
	SAME_SIZE(iommu_destroy);
	SAME_SIZE(iommu_ioas_alloc);
	SAME_SIZE(iommu_iova_range);
	SAME_SIZE(iommu_ioas_iova_ranges);
	SAME(iommu_ioas_iova_ranges, out_iova_alignment);
	SAME_SIZE(iommu_ioas_map);
	SAME(iommu_ioas_map, user_va);
	SAME(iommu_ioas_map, length);
	SAME(iommu_ioas_map, iova);
	SAME_SIZE(iommu_ioas_unmap);
	SAME(iommu_ioas_unmap, length);
	SAME_SIZE(iommu_option);
	SAME(iommu_option, object_id);
#ifdef SYSTEM_IOMMUFD_6_13
	SAME_SIZE(iommu_hwpt_alloc);
	SAME(iommu_hwpt_alloc, out_hwpt_id);
	SAME(iommu_hwpt_alloc, data_uptr);
	SAME_SIZE(iommu_hw_info);
	SAME(iommu_hw_info, out_capabilities);
	SAME_SIZE(iommu_hwpt_set_dirty_tracking);
	SAME(iommu_hwpt_set_dirty_tracking, hwpt_id);
	SAME_SIZE(iommu_hwpt_get_dirty_bitmap);
	SAME(iommu_hwpt_get_dirty_bitmap, hwpt_id);
	SAME(iommu_hwpt_get_dirty_bitmap, data);
	SAME_SIZE(iommu_ioas_map_file);
	SAME(iommu_ioas_map_file, fd);
	SAME(iommu_ioas_map_file, start);
	SAME(iommu_ioas_map_file, iova);
	SAME_SIZE(iommu_ioas_change_process);
#endif
}
END_TEST
#endif

int main(void)
{
	Suite *s = suite_create("uapi");
	TCase *t = tcase_create("uapi");

	tcase_add_loop_test(t, structures_have_the_documented_layout, 0, ARRAY_SIZE(layouts));
	tcase_add_test(t, calls_have_the_documented_numbers);
#ifdef SYSTEM_IOMMUFD
	tcase_add_test(t, iommufd_is_the_systems);
#endif
	suite_add_tcase(s, t);
	return run_suite(s);
}
