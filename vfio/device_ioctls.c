/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to a device: accesses, interrupts, reset, features. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "memory/guest_memory.h"
#include "vfio/info_caps.h"
#include "vfio/kernel_device.h"
#include "vfio/uapi_vfio.h"

#define FEATURE_DATA_MAX (1U << 20)
#define IRQ_FDS_MAX 4096U

static bool in_region(const struct vfio_region *region, uint64_t offset, uint64_t len)
{
	return len && offset < region->size && len <= region->size - offset;
}

static int access_error(const struct vfio_transport *t, const struct vfio_region *region,
			const char *what, uint64_t offset, size_t len, ssize_t result,
			struct error *err)
{
	if (result < 0)
		return error_set_errno(err, (int)result, "%s: %s %zu bytes at 0x%llx of region %u",
				       t->name, what, len, (unsigned long long)offset,
				       region->index);
	return error_set(err, EIO,
			 "%s: %s %zu bytes at 0x%llx of region %u: the device took part in %zd "
			 "of them only",
			 t->name, what, len, (unsigned long long)offset, region->index, result);
}

int kernel_device_region_read(struct vfio_transport *t, const struct vfio_region *region,
			      uint64_t offset, void *data, size_t len, struct error *err)
{
	const struct kernel_device *dev = kernel_device_of(t);
	ssize_t n = -EINVAL;

	if (region->readable && in_region(region, offset, len))
		n = dev->kernel->pread(dev->kernel->opaque, t->fd, data, len,
				       region->offset + offset);
	return n == (ssize_t)len ? 0 : access_error(t, region, "read", offset, len, n, err);
}

int kernel_device_region_write(struct vfio_transport *t, const struct vfio_region *region,
			       uint64_t offset, const void *data, size_t len, struct error *err)
{
	const struct kernel_device *dev = kernel_device_of(t);
	ssize_t n = -EINVAL;

	if (region->writable && in_region(region, offset, len))
		n = dev->kernel->pwrite(dev->kernel->opaque, t->fd, data, len,
					region->offset + offset);
	return n == (ssize_t)len ? 0 : access_error(t, region, "write", offset, len, n, err);
}

static bool in_area(const struct vfio_region *region, uint64_t offset, uint64_t size)
{
	for (unsigned int i = 0; i < region->area_count; i++) {
		const struct vfio_area *a = &region->areas[i];

		if (offset >= a->offset && offset - a->offset < a->size &&
		    size <= a->size - (offset - a->offset))
			return size != 0;
	}
	return false;
}

int kernel_device_region_map(struct vfio_transport *t, const struct vfio_region *region,
			     uint64_t offset, uint64_t size, void **address, struct error *err)
{
	const struct kernel_device *dev = kernel_device_of(t);
	int prot = (region->readable ? PROT_READ : 0) | (region->writable ? PROT_WRITE : 0);
	int r = -EINVAL;

	if (in_area(region, offset, size) && offset % GUEST_PAGE_SIZE == 0)
		r = dev->kernel->mmap(dev->kernel->opaque, t->fd, region->offset + offset, size,
				      prot, address);
	return r ? error_set_errno(err, r, "%s: mmap 0x%llx bytes at 0x%llx of region %u", t->name,
				   (unsigned long long)size, (unsigned long long)offset,
				   region->index)
		 : 0;
}

static int set_irqs(const struct vfio_transport *t, uint32_t flags, uint32_t index, uint32_t start,
		    uint32_t count, const int *fds)
{
	const struct kernel_device *dev = kernel_device_of((struct vfio_transport *)t);
	size_t size = sizeof(struct vfio_irq_set) + (fds ? count * sizeof(int32_t) : 0);
	_cleanup_free_ struct vfio_irq_set *set = calloc(1, size);

	if (!set)
		return -ENOMEM;
	*set = (struct vfio_irq_set){
		.argsz = (uint32_t)size,
		.flags = flags | (fds ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE),
		.index = index,
		.start = start,
		.count = count,
	};
	if (fds)
		memcpy(set->data, fds, count * sizeof(int32_t));
	return vfio_kernel_ioctl(dev->kernel, t->fd, VFIO_DEVICE_SET_IRQS, set);
}

int kernel_device_set_irq_fds(struct vfio_transport *t, uint32_t index, uint32_t start,
			      uint32_t count, const int *fds, struct error *err)
{
	int r = -EINVAL;

	if (fds ? count && count <= IRQ_FDS_MAX : !count)
		r = set_irqs(t, VFIO_IRQ_SET_ACTION_TRIGGER, index, fds ? start : 0, count, fds);
	/* Not set up at all, though no error: how many there would have been. */
	if (r > 0)
		return error_set(err, ENOSPC,
				 "%s: VFIO_DEVICE_SET_IRQS of vectors %u to %u of index %u: the "
				 "host has only %d for this device",
				 t->name, start, start + count, index, r);
	return r < 0 ? error_set_errno(err, r,
				       "%s: VFIO_DEVICE_SET_IRQS of vectors %u to %u of index %u",
				       t->name, start, start + count, index)
		     : 0;
}

int kernel_device_mask_irq(struct vfio_transport *t, uint32_t index, bool masked, struct error *err)
{
	int r = set_irqs(t, masked ? VFIO_IRQ_SET_ACTION_MASK : VFIO_IRQ_SET_ACTION_UNMASK, index,
			 0, 1, NULL);

	return r < 0 ? error_set_errno(err, r, "%s: VFIO_DEVICE_SET_IRQS: %s index %u", t->name,
				       masked ? "mask" : "unmask", index)
		     : 0;
}

int kernel_device_set_unmask_fd(struct vfio_transport *t, uint32_t index, int fd, struct error *err)
{
	int r = set_irqs(t, VFIO_IRQ_SET_ACTION_UNMASK, index, 0, 1, &fd);

	return r < 0 ? error_set_errno(err, r,
				       "%s: VFIO_DEVICE_SET_IRQS: eventfd to unmask index %u",
				       t->name, index)
		     : 0;
}

/*
 * A hot reset resets everything behind a bridge. It is ours to do where that is this one
 * device: told by its id in our iommufd (cdev), or by its address.
 */
static bool is_own(const struct kernel_device *dev, uint32_t flags,
		   const struct vfio_pci_dependent_device *d)
{
	char name[16];

	if (flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID)
		return d->group_id == dev->devid;
	snprintf(name, sizeof(name), "%04x:%02x:%02x.%x", d->segment, d->bus, d->devfn >> 3,
		 d->devfn & 7);
	return !strcmp(name, dev->t.name);
}

bool kernel_device_can_hot_reset(struct kernel_device *dev)
{
	/* One entry is room enough for the answer wanted: ENOSPC says there are more. */
	union {
		struct vfio_pci_hot_reset_info info;
		uint8_t room[sizeof(struct vfio_pci_hot_reset_info) +
			     sizeof(struct vfio_pci_dependent_device)];
	} args = { .info = { .argsz = sizeof(args) } };
	struct vfio_pci_dependent_device d;

	if (vfio_kernel_ioctl(dev->kernel, dev->t.fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &args) <
		    0 ||
	    args.info.count != 1)
		return false;
	memcpy(&d, args.room + sizeof(args.info), sizeof(d));
	return is_own(dev, args.info.flags, &d);
}

static int hot_reset(const struct kernel_device *dev)
{
	union {
		struct vfio_pci_hot_reset reset;
		uint8_t room[sizeof(struct vfio_pci_hot_reset) + sizeof(int32_t)];
	} args = { .reset = { .argsz = sizeof(args) } };

	if (dev->group) { /* the proof that it is ours */
		int32_t fd = dev->group->fd;

		args.reset.count = 1;
		memcpy(args.room + sizeof(args.reset), &fd, sizeof(fd));
	}
	return vfio_kernel_ioctl(dev->kernel, dev->t.fd, VFIO_DEVICE_PCI_HOT_RESET, &args);
}

int kernel_device_reset(struct vfio_transport *t, struct error *err)
{
	const struct kernel_device *dev = kernel_device_of(t);
	int r;

	if (!t->resettable)
		return error_set(err, EOPNOTSUPP,
				 "%s: cannot be reset: it has no reset of its own, and its bus "
				 "cannot be reset for it alone",
				 t->name);
	if (dev->has_reset)
		r = vfio_kernel_ioctl(dev->kernel, t->fd, VFIO_DEVICE_RESET, NULL);
	else
		r = hot_reset(dev);
	return r < 0 ? error_set_errno(err, r, "%s: %s", t->name,
				       dev->has_reset ? "VFIO_DEVICE_RESET"
						      : "VFIO_DEVICE_PCI_HOT_RESET")
		     : 0;
}

int kernel_device_feature(struct vfio_transport *t, uint32_t flags, void *data, size_t len,
			  struct error *err)
{
	const struct kernel_device *dev = kernel_device_of(t);
	_cleanup_free_ struct vfio_device_feature *args = NULL;
	uint32_t feature = flags & VFIO_DEVICE_FEATURE_MASK;
	int r = -EINVAL;

	if (len <= FEATURE_DATA_MAX) {
		args = calloc(1, sizeof(*args) + len);
		r = args ? 0 : -ENOMEM;
	}
	if (!r) {
		args->argsz = (uint32_t)(sizeof(*args) + len);
		args->flags = flags;
		if (len)
			memcpy(args->data, data, len);
		r = vfio_kernel_ioctl(dev->kernel, t->fd, VFIO_DEVICE_FEATURE, args);
	}
	if (r < 0)
		return error_set_errno(err, r, "%s: VFIO_DEVICE_FEATURE %u", t->name, feature);
	if (flags & VFIO_DEVICE_FEATURE_PROBE)
		return 0;
	/* SET answers, too: the new state's data_fd. */
	if (len)
		memcpy(data, args->data, len);
	if (feature == VFIO_DEVICE_FEATURE_DMA_BUF && flags & VFIO_DEVICE_FEATURE_GET)
		return r; /* a descriptor */
	return flags & VFIO_DEVICE_FEATURE_GET ? (int)len : 0;
}
