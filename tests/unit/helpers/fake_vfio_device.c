/* SPDX-License-Identifier: Apache-2.0 */
/* A device of the fake VFIO kernel. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/unit/helpers/fake_vfio_private.h"
#include "vfio/uapi_iommufd.h"
#include "vfio/uapi_vfio.h"

#define NAME(call) \
	{ \
		call, #call \
	}
static const struct {
	unsigned long request;
	const char *name;
} calls[] = {
	NAME(IOMMU_DESTROY),
	NAME(IOMMU_IOAS_ALLOC),
	NAME(IOMMU_IOAS_CHANGE_PROCESS),
	NAME(IOMMU_IOAS_IOVA_RANGES),
	NAME(IOMMU_IOAS_MAP),
	NAME(IOMMU_IOAS_MAP_FILE),
	NAME(IOMMU_IOAS_UNMAP),
	NAME(IOMMU_OPTION),
	NAME(IOMMU_HWPT_ALLOC),
	NAME(IOMMU_GET_HW_INFO),
	NAME(IOMMU_HWPT_SET_DIRTY_TRACKING),
	NAME(IOMMU_HWPT_GET_DIRTY_BITMAP),
	NAME(VFIO_GET_API_VERSION),
	NAME(VFIO_CHECK_EXTENSION),
	NAME(VFIO_SET_IOMMU),
	NAME(VFIO_IOMMU_MAP_DMA),
	NAME(VFIO_IOMMU_UNMAP_DMA),
	NAME(VFIO_IOMMU_DIRTY_PAGES),
	NAME(VFIO_GROUP_GET_STATUS),
	NAME(VFIO_GROUP_SET_CONTAINER),
	NAME(VFIO_GROUP_GET_DEVICE_FD),
	NAME(VFIO_DEVICE_GET_INFO),
	NAME(VFIO_DEVICE_GET_REGION_INFO),
	NAME(VFIO_DEVICE_GET_IRQ_INFO),
	NAME(VFIO_DEVICE_SET_IRQS),
	NAME(VFIO_DEVICE_RESET),
	/* Two meanings of one number each: on a container, and on a device. */
	{ VFIO_IOMMU_GET_INFO, "GET_INFO" },
	NAME(VFIO_DEVICE_PCI_HOT_RESET),
	NAME(VFIO_DEVICE_FEATURE),
	NAME(VFIO_DEVICE_BIND_IOMMUFD),
	NAME(VFIO_DEVICE_ATTACH_IOMMUFD_PT),
	NAME(VFIO_DEVICE_DETACH_IOMMUFD_PT),
};

const char *fake_vfio_name(unsigned long request)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i].request == request)
			return calls[i].name;
	return "?";
}

static int attach(struct fake_vfio_kernel *fake, struct fake_device *dev,
		  const struct vfio_device_attach_iommufd_pt *args)
{
	if (!dev->bound)
		return -EINVAL;
	if (args->pt_id == fake->ioas) {
		dev->attached = args->pt_id;
		return 0;
	}
	for (unsigned int i = 0; i < FAKE_MAX; i++) {
		if (!args->pt_id || fake->hwpts[i].id != args->pt_id)
			continue;
		if (fake->hwpts[i].iommu != dev->iommu)
			return -EINVAL;
		dev->attached = args->pt_id;
		return 0;
	}
	return -ENOENT;
}

static int region_info(const struct fake_device *dev, struct vfio_region_info *args)
{
	uint32_t room = args->argsz;

	if (args->index) { /* only the first is of interest */
		if (args->index == VFIO_PCI_VGA_REGION_INDEX)
			return -EINVAL;
		args->flags = 0;
		args->size = args->offset = 0;
		return 0;
	}
	args->flags = dev->region_flags | (dev->caps ? VFIO_REGION_INFO_FLAG_CAPS : 0);
	args->size = dev->region_size;
	args->offset = dev->region_offset;
	args->cap_offset = 0;
	args->argsz = (uint32_t)sizeof(*args) + dev->caps_size;
	if (!dev->caps || room < args->argsz)
		return 0;
	args->cap_offset = dev->caps_offset ? dev->caps_offset : sizeof(*args);
	memcpy((uint8_t *)args + sizeof(*args), dev->caps,
	       MIN(dev->caps_size, room - (uint32_t)sizeof(*args)));
	return 0;
}

static int set_irqs(struct fake_device *dev, const struct vfio_irq_set *args)
{
	uint32_t action = args->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	bool fds = args->flags & VFIO_IRQ_SET_DATA_EVENTFD;

	if (args->argsz != sizeof(*args) + (fds ? args->count * 4 : 0) ||
	    args->start + args->count > dev->vectors)
		return -EINVAL;
	dev->last_irq_flags = args->flags;
	if (action == VFIO_IRQ_SET_ACTION_UNMASK && fds)
		memcpy(&dev->unmask_fd, args->data, 4);
	if (action != VFIO_IRQ_SET_ACTION_TRIGGER)
		return 0;
	if (fds)
		memcpy(&dev->irq_fds[args->start], args->data, args->count * 4UL);
	else
		for (unsigned int i = 0; i < FAKE_MAX; i++)
			dev->irq_fds[i] = -1;
	return 0;
}

static int hot_reset_info(const struct fake_vfio_kernel *fake, const struct fake_device *dev,
			  struct vfio_pci_hot_reset_info *args)
{
	/* 0000:01:10.0 is devfn 0x80 of bus 1. */
	struct vfio_pci_dependent_device d = { .bus = 1, .devfn = 0x80 };

	if (!dev->affected)
		return -ENODEV;
	args->count = dev->affected;
	if (args->argsz < sizeof(*args) + dev->affected * sizeof(d))
		return -ENOSPC;
	if (dev->bound) {
		args->flags = VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
		d.group_id = 101 + (uint32_t)(dev - fake->devices);
	} else {
		d.group_id = dev->group;
	}
	memcpy(args->devices, &d, sizeof(d));
	return 0;
}

static int hot_reset(const struct fake_vfio_kernel *fake, struct fake_device *dev,
		     const struct vfio_pci_hot_reset *args)
{
	bool proven = dev->bound && !args->count;

	for (unsigned int i = 0; i < FAKE_MAX && args->count == 1; i++)
		proven |= fake->groups[i].fd == args->group_fds[0] &&
			  fake->groups[i].number == dev->group;
	dev->hot_resets += proven;
	return proven ? 0 : -EPERM;
}

static int feature(const struct fake_device *dev, struct vfio_device_feature *args)
{
	uint32_t f = args->flags & VFIO_DEVICE_FEATURE_MASK;

	if (f != dev->feature)
		return -ENOTTY;
	for (uint32_t i = 0; i < args->argsz - sizeof(*args); i++)
		args->data[i]++;
	return f == VFIO_DEVICE_FEATURE_DMA_BUF ? 77 : 0;
}

/* VFIO_DEVICE_GET_PCI_HOT_RESET_INFO is VFIO_IOMMU_GET_INFO's number. */
int fake_vfio_device_ioctl(struct fake_vfio_kernel *fake, struct fake_device *dev,
			   unsigned long request, void *arg)
{
	struct vfio_device_bind_iommufd *bind = arg;
	struct vfio_device_info *info = arg;
	struct vfio_irq_info *irq = arg;

	switch (request) {
	case VFIO_DEVICE_BIND_IOMMUFD:
		if (bind->iommufd != fake->iommufd || dev->bound)
			return -EINVAL;
		dev->bound = true;
		bind->out_devid = 101 + (uint32_t)(dev - fake->devices);
		return 0;
	case VFIO_DEVICE_ATTACH_IOMMUFD_PT: return attach(fake, dev, arg);
	case VFIO_DEVICE_DETACH_IOMMUFD_PT:
		dev->detaches += dev->attached != 0;
		dev->attached = 0;
		return 0;
	case VFIO_DEVICE_GET_INFO:
		info->flags = dev->info_flags;
		info->num_regions = dev->region_count;
		info->num_irqs = dev->irq_count;
		return 0;
	case VFIO_DEVICE_GET_REGION_INFO: return region_info(dev, arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		if (irq->index == VFIO_PCI_ERR_IRQ_INDEX)
			return -EINVAL;
		irq->count = dev->vectors;
		irq->flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
		return 0;
	case VFIO_DEVICE_SET_IRQS: return set_irqs(dev, arg);
	case VFIO_DEVICE_RESET: dev->resets++; return 0;
	case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: return hot_reset_info(fake, dev, arg);
	case VFIO_DEVICE_PCI_HOT_RESET: return hot_reset(fake, dev, arg);
	case VFIO_DEVICE_FEATURE: return feature(dev, arg);
	default: return -ENOTTY;
	}
}
