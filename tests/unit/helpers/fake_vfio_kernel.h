/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel with VFIO and iommufd, as far as vfio/ uses them, and a sysfs with the devices.
 *
 * It keeps the kernel's rules: nothing is mapped without an IOMMU, a container forgets all
 * when its last group leaves, an object in use cannot be destroyed, and a device does DMA
 * where it is attached only. Any one call can be made to fail.
 *
 * Descriptors are real (memfds), so that mmap works and leaks show in /proc/self/fd.
 */
#ifndef TESTS_FAKE_VFIO_KERNEL_H
#define TESTS_FAKE_VFIO_KERNEL_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "vfio/kernel.h"

#define FAKE_MAX 16U

struct fake_device {
	const char *name;
	unsigned int number; /* vfioN */
	unsigned int group;
	unsigned int iommu;	  /* page tables are shared behind the same one only */
	bool can_track, software; /* software: a mediated device, without an IOMMU */
	uint32_t info_flags, region_count, irq_count;
	/* What GET_REGION_INFO says of region 0 beyond the structure: its capabilities. */
	const void *caps;
	uint32_t caps_size, caps_offset;
	uint32_t region_flags;
	uint64_t region_size, region_offset;
	uint32_t vectors;
	/* state */
	int fd;
	bool bound;
	uint32_t attached; /* a page table or IOAS, 0: none */
	uint32_t affected; /* devices a hot reset would reset */
	unsigned int resets, hot_resets, detaches;
	int irq_fds[FAKE_MAX];
	int unmask_fd;
	uint32_t last_irq_flags;
	uint32_t feature;      /* the one it has; answers with its data, each byte + 1 */
	unsigned int short_by; /* accesses lack as many bytes */
};

struct fake_dma {
	uint64_t iova, size, address;
	int fd;
	bool by_file, writable;
	bool no_address; /* given up by a process, for another's */
};

struct fake_hwpt {
	uint32_t id;
	unsigned int iommu;
	bool tracking;
};

struct fake_vfio_kernel {
	struct vfio_kernel kernel;
	/* The fail_at'th call, from 1 on, fails with fail_code; `failed` is its name. */
	unsigned int calls, fail_at;
	int fail_code;
	const char *failed;
	/* What there is. */
	bool no_iommufd, no_map_file, no_type1, no_dirty_log, unprivileged, not_viable;
	bool no_update_vaddr; /* a mediated device is in the container */
	int api_version;
	struct vfio_memlock memlock;
	struct {
		uint64_t start, last;
	} ranges[4];
	unsigned int range_count;
	struct fake_device devices[4];
	unsigned int device_count;
	/* State. */
	int opened; /* descriptors open now */
	int iommufd, container;
	struct {
		int fd;
		unsigned int number;
		bool in_container;
	} groups[FAKE_MAX];
	uint32_t dirty_page;	/* of the container's log; 0: 4096 */
	uint64_t dirty_max;	/* its bitmap; 0: 256 MiB */
	unsigned int no_clears; /* reads of a HWPT's log that left it */
	bool iommu_set, logging, process_accounting;
	uint32_t ioas, next_id;
	unsigned int changes;		/* of the process that pinned memory counts for */
	struct fake_dma maps[FAKE_MAX]; /* size 0: free */
	struct fake_hwpt hwpts[FAKE_MAX];
	uint64_t dirty[FAKE_MAX]; /* iovas of pages written, + 1; 0: free */
	unsigned int misordered;  /* closed while in use */
	/* sysfs */
	char root[64];
};

/* Two devices "0000:01:10.0" and ".2" in groups 7 and 8, and "0000:01:11.0", also in 8. */
void fake_vfio_init(struct fake_vfio_kernel *fake);
void fake_vfio_destroy(struct fake_vfio_kernel *fake);

/* The sysfs folder of a device; `path` has room for PATH_MAX. */
const char *fake_vfio_path(const struct fake_vfio_kernel *fake, const char *name, char *path);
/* Changes a link or file of a device's folder; target NULL removes it. */
void fake_vfio_link(const struct fake_vfio_kernel *fake, const char *device, const char *link,
		    const char *target);
void fake_vfio_reserve(const struct fake_vfio_kernel *fake, unsigned int group, const char *text);
/* One more device in a group, which another driver has. */
void fake_vfio_stranger(const struct fake_vfio_kernel *fake, const char *name, unsigned int group,
			const char *driver);

unsigned int fake_vfio_map_count(const struct fake_vfio_kernel *fake);
unsigned int fake_vfio_hwpt_count(const struct fake_vfio_kernel *fake);
/* A device wrote to the page at iova. */
void fake_vfio_write(struct fake_vfio_kernel *fake, uint64_t iova);

#endif
