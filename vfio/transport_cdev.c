/* SPDX-License-Identifier: Apache-2.0 */
/* A device by its own character device, bound to an iommufd. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vfio/kernel_device.h"
#include "vfio/uapi_vfio.h"

static int bind_iommufd(struct kernel_device *dev)
{
	struct vfio_device_bind_iommufd args = {
		.argsz = sizeof(args),
		.iommufd = dma_space_fd(dev->t.space),
	};
	int r = vfio_kernel_ioctl(dev->kernel, dev->t.fd, VFIO_DEVICE_BIND_IOMMUFD, &args);

	dev->devid = args.out_devid;
	return r;
}

/* Where closing the descriptor does not. */
static void detach_iommufd(const struct kernel_device *dev)
{
	struct vfio_device_detach_iommufd_pt args = { .argsz = sizeof(args) };

	vfio_kernel_ioctl(dev->kernel, dev->t.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &args);
}

static void cdev_close(struct vfio_transport *t)
{
	struct kernel_device *dev = kernel_device_of(t);

	/* Where another process still has it, it stays attached. */
	if (dev->given && !kernel_space_of(t->space)->kept)
		detach_iommufd(dev);
	vfio_kernel_close(dev->kernel, t->fd);
	dma_iommufd_detach(t->space, &dev->attachment);
	free(dev);
}

/* The device's number in the iommufd, and its page table there. */
#define FACTS_SIZE 8u

static int cdev_keep(struct vfio_transport *t, struct kept *kept, const char *id, bool paused,
		     struct error *err)
{
	const struct kernel_device *dev = kernel_device_of(t);
	uint8_t facts[FACTS_SIZE];

	if (paused)
		return 0;
	store_le32(facts, dev->devid);
	store_le32(facts + 4, dev->attachment.hwpt);
	return kept_add(kept, t->fd, facts, sizeof(facts), err, "%s/device", id);
}

static const struct vfio_transport_ops cdev_ops = {
	.name = "cdev",
	.region_info = kernel_device_region_info,
	.irq_info = kernel_device_irq_info,
	.region_read = kernel_device_region_read,
	.region_write = kernel_device_region_write,
	.region_map = kernel_device_region_map,
	.set_irq_fds = kernel_device_set_irq_fds,
	.mask_irq = kernel_device_mask_irq,
	.set_unmask_fd = kernel_device_set_unmask_fd,
	.reset = kernel_device_reset,
	.feature = kernel_device_feature,
	.migration_read = kernel_device_migration_read,
	.migration_write = kernel_device_migration_write,
	.migration_precopy_info = kernel_device_migration_precopy_info,
	.migration_end = kernel_device_migration_end,
	.keep = cdev_keep,
	.close = cdev_close,
};

static int open_cdev(const struct vfio_kernel *kernel, const struct sysfs_device *dev,
		     struct error *err)
{
	char path[SYSFS_NAME_MAX + 32];
	int fd, r = sysfs_device_check(dev, err);

	if (r)
		return r;
	if (!dev->cdev)
		return error_set(err, EOPNOTSUPP,
				 "%s: has no character device: this kernel is without "
				 "CONFIG_VFIO_DEVICE_CDEV; iommufd=off uses its group",
				 dev->name);
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", dev->vfio);
	fd = vfio_kernel_open(kernel, path, O_RDWR);
	if (fd >= 0)
		return fd;
	return error_set(err, fd, "%s: open %s: %s%s", dev->name, path, strerror(-fd),
			 fd == -EACCES || fd == -EPERM
				 ? " (give this user read and write access to it)"
			 : fd == -EBUSY ? " (another process has the device)"
					: "");
}

static int bind_error(int code, const struct sysfs_device *sysfs, struct error *err)
{
	const char *why = "";
	char strangers[256];

	/* EPERM is Linux's word for a group that is a driver's, EBUSY was before. */
	if ((code == -EBUSY || code == -EPERM) &&
	    sysfs_group_strangers(sysfs, strangers, sizeof(strangers)))
		return error_set(err, code,
				 "%s: VFIO_DEVICE_BIND_IOMMUFD: other drivers have devices of its "
				 "IOMMU group %s: %s; bind them to vfio-pci",
				 sysfs->name, sysfs->group, strangers);
	if (code == -EBUSY || code == -EINVAL)
		why = " (in use, by its group or another process?)";
	else if (code == -EPERM)
		why = " (its IOMMU group is in use by another process, or the IOMMU does not "
		      "isolate interrupts; turn interrupt remapping on, or, unsafe: "
		      "allow_unsafe_interrupts of iommufd)";
	return error_set_errno(err, code, "%s: VFIO_DEVICE_BIND_IOMMUFD%s", sysfs->name, why);
}

/* Bound already, by the machine before this one: in what state the guest left it. */
static int take_up(struct kernel_device *dev, uint32_t devid, struct error *err)
{
	int r = kernel_device_get_info(dev, err);

	dev->devid = devid;
	if (!r && dev->t.resettable)
		r = kernel_device_reset(&dev->t, err);
	return r;
}

/* dev->t.fd is open; on failure it still is. */
static int set_up(struct kernel_device *dev, const struct sysfs_device *sysfs, uint32_t *devid,
		  struct error *err)
{
	int r = bind_iommufd(dev);

	if (r == -EINVAL && devid && *devid) {
		r = take_up(dev, *devid, err);
	} else {
		if (r)
			return bind_error(r, sysfs, err);
		if (devid)
			*devid = dev->devid;
		r = kernel_device_get_info(dev, err);
	}
	if (r)
		return r;
	dev->attachment.name = dev->t.name;
	dev->attachment.own_log = &dev->t.own_log;
	r = dma_iommufd_attach(dev->t.space, &dev->attachment, dev->t.fd, dev->devid, sysfs, err);
	if (r)
		error_prefix(err, "%s", dev->t.name);
	return r;
}

/* What messages call it: by its path, or found from the descriptor. */
static int identify(const char *sysfs_path, int device_fd, struct sysfs_device *sysfs,
		    struct error *err)
{
	if (sysfs_path)
		return sysfs_device_read(sysfs_path, sysfs, err);
	if (device_fd < 0)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "a device needs a path");
	if (!sysfs_device_of_fd(device_fd, sysfs)) {
		memset(sysfs, 0, sizeof(*sysfs));
		snprintf(sysfs->name, sizeof(sysfs->name), "device of descriptor %d", device_fd);
	}
	return 0;
}

static struct vfio_transport *open_device(const char *sysfs_path, int device_fd, uint32_t *devid,
					  struct dma_space *space, struct log *log,
					  struct error *err)
{
	_cleanup_free_ struct sysfs_device *sysfs = calloc(1, sizeof(*sysfs));
	_cleanup_free_ struct kernel_device *dev = calloc(1, sizeof(*dev));
	int r;

	if (!sysfs || !dev) {
		error_set_errno(err, ENOMEM, "open a device");
		return NULL;
	}
	if (!space || space->ops != &dma_iommufd_ops) {
		error_set(err, EINVAL, "%s: a cdev needs a DMA space of an iommufd", sysfs_path);
		return NULL;
	}
	r = identify(sysfs_path, device_fd, sysfs, err);
	if (r)
		return NULL;
	dev->kernel = kernel_space_of(space)->kernel;
	dev->log = log;
	dev->t.ops = &cdev_ops;
	dev->t.space = space;
	snprintf(dev->t.name, sizeof(dev->t.name), "%s", sysfs->name);
	dev->t.fd = device_fd >= 0 ? device_fd : open_cdev(dev->kernel, sysfs, err);
	if (dev->t.fd < 0)
		return NULL;
	dev->given = devid;
	r = set_up(dev, sysfs, devid, err);
	if (!r)
		return &take_ptr(dev)->t;
	if (device_fd < 0)
		vfio_kernel_close(dev->kernel, dev->t.fd);
	return NULL;
}

struct vfio_transport *vfio_transport_take_cdev(const char *sysfs_path, struct kept *kept,
						const char *id, struct dma_space *space,
						struct log *log, struct error *err)
{
	const uint8_t *facts = kept_facts(kept, FACTS_SIZE, "%s/device", id);
	int fd = facts ? kept_take(kept, "%s/device", id) : -1;
	struct kernel_device *dev =
		kernel_device_take(&cdev_ops, sysfs_path, fd, id, space, log, err);

	if (!dev || !facts) /* no device comes without them */
		return NULL;
	dev->devid = load_le32(facts);
	dev->attachment.name = dev->t.name;
	dma_iommufd_take(space, &dev->attachment, load_le32(facts + 4));
	return &dev->t;
}

struct vfio_transport *vfio_cdev_take_given(struct kept *kept, const char *id, uint32_t *devid,
					    struct dma_space *space, struct log *log,
					    struct error *err)
{
	struct vfio_transport *t = vfio_transport_take_cdev(NULL, kept, id, space, log, err);

	if (!t)
		return NULL;
	kernel_device_of(t)->given = true;
	*devid = kernel_device_of(t)->devid;
	return t;
}

struct vfio_transport *vfio_transport_open_cdev(const char *sysfs_path, int device_fd,
						struct dma_space *space, struct log *log,
						struct error *err)
{
	return open_device(sysfs_path, device_fd, NULL, space, log, err);
}

struct vfio_transport *vfio_cdev_open_given(int device_fd, uint32_t *devid, struct dma_space *space,
					    struct log *log, struct error *err)
{
	return open_device(NULL, device_fd, devid, space, log, err);
}

bool vfio_cdev_available(const char *sysfs_path)
{
	_cleanup_free_ struct sysfs_device *dev = calloc(1, sizeof(*dev));

	return dev && !sysfs_device_read(sysfs_path, dev, NULL) && dev->cdev &&
	       !access("/dev/iommu", F_OK);
}
