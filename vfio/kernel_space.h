/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two DMA spaces of the kernel share, and what their transports need of them.
 * Private to vfio/.
 *
 * A space remembers its mappings. iommufd keeps an IOAS alive without devices; a legacy
 * container forgets everything when its last group leaves, and gets it all again when the
 * next one joins. Either way mapping works before, between and after devices.
 *
 * `lock` guards the mappings, which devices are attached, and whether the log runs: besides
 * the thread that plugs devices, the main loop maps their BARs for peers, and collect reads.
 */
#ifndef VFIO_KERNEL_SPACE_H
#define VFIO_KERNEL_SPACE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vfio/dma_space.h"
#include "vfio/kernel.h"
#include "vfio/sysfs.h"

#define DMA_RANGES_MAX 128U

struct dma_mapping {
	uint64_t iova, size;
	void *hva;
	bool writable;
	bool foreign; /* another process made or has it: who maps it here finds it there, once */
};

struct kernel_space {
	struct dma_space space;
	const struct vfio_kernel *kernel;
	int fd;
	pthread_mutex_t lock;
	bool logging;
	bool kept; /* another process still has it: nothing is changed */
	struct dma_mapping *mappings;
	unsigned int mapping_count, mapping_room;
};

struct kernel_device;

extern const struct dma_space_ops dma_iommufd_ops, dma_type1_ops;

/* As dma_space_open_*, on a kernel of the caller's. */
struct dma_space *dma_space_open_iommufd_with(const struct vfio_kernel *kernel, int fd,
					      struct log *log, struct error *err);
struct dma_space *dma_space_take_iommufd_with(const struct vfio_kernel *kernel, struct kept *kept,
					      struct log *log, struct error *err);
struct dma_space *dma_space_open_type1_with(const struct vfio_kernel *kernel, struct log *log,
					    struct error *err);
struct dma_space *dma_space_take_type1_with(const struct vfio_kernel *kernel,
					    const struct guest_memory *memory, struct kept *kept,
					    struct log *log, struct error *err);

/* NULL where the space is no kernel's. */
struct kernel_space *kernel_space_of(const struct dma_space *space);
void kernel_space_init(struct kernel_space *ks, const struct dma_space_ops *ops,
		       const struct vfio_kernel *kernel, int fd, struct log *log);
/* Closes fd, frees what is in it. */
void kernel_space_destroy(struct kernel_space *ks);
/* Room for one more mapping: 0, -ENOMEM. After it kernel_space_remember cannot fail. With
 * lock held, as the next two. */
int kernel_space_reserve(struct kernel_space *ks, struct error *err);
void kernel_space_remember(struct kernel_space *ks, uint64_t iova, uint64_t size, void *hva,
			   bool writable);
void kernel_space_forget(struct kernel_space *ks, uint64_t iova, uint64_t size);

/* Live update, kernel_space_keep.c: the record, under that name. What was taken is foreign,
 * without an address. -EBADMSG. */
int kernel_space_keep(const struct kernel_space *ks, struct kept *kept, const char *name,
		      struct error *err);
int kernel_space_take(struct kernel_space *ks, struct kept *kept, const char *name,
		      struct error *err);
/* The foreign mapping of exactly that; NULL. With lock held. */
struct dma_mapping *kernel_space_foreign(const struct kernel_space *ks, uint64_t iova,
					 uint64_t size);

/* Checks size against RLIMIT_MEMLOCK before anything is pinned. */
int kernel_space_check_memlock(const struct kernel_space *ks, uint64_t size, struct error *err);
/* Fills err for a map or attach that failed with `code`; says what would do where that is
 * -ENOMEM and the limit may be the cause. `size`: bytes asked for. */
int kernel_space_map_error(const struct kernel_space *ks, int code, uint64_t size,
			   struct error *err, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

/* Sorts what a kernel reported, drops what is no range; the count left. */
unsigned int dma_ranges_normalise(struct dma_range *ranges, unsigned int count);
/* 0, or -EINVAL with an error that names what is outside and what the IOMMU maps. */
int dma_ranges_check(const struct dma_range *ranges, unsigned int count, uint64_t start,
		     uint64_t size, struct error *err);

/*
 * A device in an iommufd's IOAS. Where its IOMMU tracks dirty pages it is attached to a
 * page table (HWPT) that does, shared with other devices where the hardware allows;
 * else to the IOAS itself.
 */
struct iommufd_attachment {
	struct iommufd_attachment *next;
	const char *name;    /* the device's */
	const bool *own_log; /* its transport's; NULL: never */
	uint32_t hwpt;	     /* 0: the IOAS's own, which tracks nothing */
};

int dma_iommufd_attach(struct dma_space *space, struct iommufd_attachment *attachment,
		       int device_fd, uint32_t devid, const struct sysfs_device *dev,
		       struct error *err);
/* One that another process attached, and hands over. */
void dma_iommufd_take(struct dma_space *space, struct iommufd_attachment *attachment,
		      uint32_t hwpt);
/* After the device's descriptor was closed, which detaches it. */
void dma_iommufd_detach(struct dma_space *space, struct iommufd_attachment *attachment);

/* An IOMMU group in the container, shared by its devices. */
struct type1_group {
	struct type1_group *next;
	char id[SYSFS_NAME_MAX];
	int fd;
	struct kernel_device *devices; /* the open ones; without any the group is left */
};

/* Opens the group of dev, which has a name, and joins it to the container, or takes another
 * share of it. -EBUSY: the space has the device already; the kernel would open it again. */
int dma_type1_join(struct dma_space *space, const struct sysfs_device *sysfs,
		   struct kernel_device *dev, struct error *err);
/* A device that another process has in a group of that name, which it hands over. -ENOENT. */
int dma_type1_take_device(struct dma_space *space, const char *group, struct kernel_device *dev,
			  struct error *err);
/* After the device's descriptor was closed. */
void dma_type1_leave(struct dma_space *space, struct kernel_device *dev);

#endif
