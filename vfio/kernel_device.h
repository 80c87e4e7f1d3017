/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device of the kernel's VFIO, once its descriptor is open: what the cdev and group
 * transports share (device_info.c, device_ioctls.c). Private to vfio/.
 */
#ifndef VFIO_KERNEL_DEVICE_H
#define VFIO_KERNEL_DEVICE_H

#include "vfio/kernel_space.h"
#include "vfio/sysfs.h"
#include "vfio/transport.h"

struct kernel_device {
	struct vfio_transport t;
	const struct vfio_kernel *kernel;
	struct log *log;
	bool has_reset;	    /* VFIO_DEVICE_RESET: by function or what else the kernel knows */
	bool has_hot_reset; /* reset of its bus, where it is the only device on it */
	/* cdev */
	uint32_t devid; /* in the iommufd */
	bool given;	/* its descriptor has a copy elsewhere */
	struct iommufd_attachment attachment;
	/* group */
	struct type1_group *group;
	struct kernel_device *next; /* of the group's that are open */
};

static inline struct kernel_device *kernel_device_of(struct vfio_transport *t)
{
	return (struct kernel_device *)(void *)t; /* t is its first member */
}

/* As vfio_transport_open_cdev. *devid: where an earlier machine had the device in the same
 * iommufd (0: none), then where this one has it; written as soon as it is known. */
struct vfio_transport *vfio_cdev_open_given(int device_fd, uint32_t *devid, struct dma_space *space,
					    struct log *log, struct error *err);

/* One that another process had open so, and hands over under id: *devid is filled. */
struct vfio_transport *vfio_cdev_take_given(struct kept *kept, const char *id, uint32_t *devid,
					    struct dma_space *space, struct log *log,
					    struct error *err);

/* VFIO_DEVICE_GET_INFO: fills the rest of t. t.fd and t.name are set. */
int kernel_device_get_info(struct kernel_device *dev, struct error *err);
/* One that another process had open as fd (-1: it did not come along), under id; its path
 * (NULL: that of fd) is for messages. fd is taken over: closed where NULL is returned. */
struct kernel_device *kernel_device_take(const struct vfio_transport_ops *ops,
					 const char *sysfs_path, int fd, const char *id,
					 struct dma_space *space, struct log *log,
					 struct error *err);
/* Whether a reset of the device's bus would reset this one device only. */
bool kernel_device_can_hot_reset(struct kernel_device *dev);

/* The operations in struct vfio_transport_ops. */
int kernel_device_region_info(struct vfio_transport *t, uint32_t index, struct vfio_region *region,
			      struct error *err);
int kernel_device_irq_info(struct vfio_transport *t, uint32_t index, struct vfio_irq *irq,
			   struct error *err);
int kernel_device_region_read(struct vfio_transport *t, const struct vfio_region *region,
			      uint64_t offset, void *data, size_t len, struct error *err);
int kernel_device_region_write(struct vfio_transport *t, const struct vfio_region *region,
			       uint64_t offset, const void *data, size_t len, struct error *err);
int kernel_device_region_map(struct vfio_transport *t, const struct vfio_region *region,
			     uint64_t offset, uint64_t size, void **address, struct error *err);
int kernel_device_set_irq_fds(struct vfio_transport *t, uint32_t index, uint32_t start,
			      uint32_t count, const int *fds, struct error *err);
int kernel_device_mask_irq(struct vfio_transport *t, uint32_t index, bool masked,
			   struct error *err);
int kernel_device_set_unmask_fd(struct vfio_transport *t, uint32_t index, int fd,
				struct error *err);
int kernel_device_reset(struct vfio_transport *t, struct error *err);
int kernel_device_feature(struct vfio_transport *t, uint32_t flags, void *data, size_t len,
			  struct error *err);
/* kernel_migration.c */
ssize_t kernel_device_migration_read(struct vfio_transport *t, int fd, void *data, size_t len,
				     unsigned int wait_ms, struct error *err);
int kernel_device_migration_write(struct vfio_transport *t, int fd, const void *data, size_t len,
				  struct error *err);
int kernel_device_migration_precopy_info(struct vfio_transport *t, int fd,
					 struct vfio_precopy_info *info, struct error *err);
void kernel_device_migration_end(struct vfio_transport *t, int fd);

#endif
