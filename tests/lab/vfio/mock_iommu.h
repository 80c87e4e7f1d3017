/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real iommufd with devices behind the kernel's mock IOMMU (uapi_iommufd_test.h). They
 * are no VFIO devices: what a cdev is asked is answered here, by a table of system calls, and
 * attaching one moves its mock. All else goes to the kernel as it is.
 */
#ifndef TESTS_LAB_VFIO_MOCK_IOMMU_H
#define TESTS_LAB_VFIO_MOCK_IOMMU_H

#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/lab/vfio/uapi_iommufd_test.h"
#include "vfio/kernel.h"
#include "vfio/uapi_vfio.h"

#define MOCK_DEVICES_MAX 4

struct mock_device {
	int fd;		/* its cdev's, a memfd: the last one to be closed; 0: none */
	uint32_t flags; /* MOCK_FLAGS_DEVICE_* */
	bool apart;	/* it joins no page table that another device is on */
	uint32_t id;	/* out_stdev_id */
	uint32_t pt;	/* what it is attached to */
};

struct mock_iommu {
	struct vfio_kernel kernel;
	bool wide; /* page tables are MOCK_IOMMUPT_HUGE */
	int fd;	   /* the iommufd, a device's as soon as it is bound */
	unsigned int destroys_failed;
	struct mock_device devices[MOCK_DEVICES_MAX];
};

static inline int mock_command(const struct mock_iommu *mock, struct iommu_test_cmd *cmd)
{
	cmd->size = sizeof(*cmd);
	return vfio_kernel_ioctl(&vfio_kernel_host, mock->fd, IOMMU_TEST_CMD, cmd);
}

/* NULL: no device's. */
static inline struct mock_device *mock_device_of(struct mock_iommu *mock, int fd)
{
	struct stat file, device;

	ck_assert_int_eq(fstat(fd, &file), 0);
	for (unsigned int i = 0; i < MOCK_DEVICES_MAX; i++)
		if (mock->devices[i].fd && !fstat(mock->devices[i].fd, &device) &&
		    device.st_dev == file.st_dev && device.st_ino == file.st_ino)
			return &mock->devices[i];
	return NULL;
}

/* A mock is attached from the start: to an IOAS that nobody uses. */
static inline int mock_bind(struct mock_iommu *mock, struct mock_device *dev,
			    struct vfio_device_bind_iommufd *args)
{
	struct iommu_ioas_alloc nowhere = { .size = sizeof(nowhere) };
	struct iommu_test_cmd cmd = { .op = IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS };
	int r;

	mock->fd = args->iommufd;
	r = vfio_kernel_ioctl(&vfio_kernel_host, mock->fd, IOMMU_IOAS_ALLOC, &nowhere);
	if (r)
		return r;
	cmd.id = nowhere.out_ioas_id;
	cmd.mock_domain_flags.dev_flags = dev->flags;
	r = mock_command(mock, &cmd);
	ck_assert_msg(r != -ENOTTY, "this kernel is without CONFIG_IOMMUFD_TEST");
	dev->id = cmd.mock_domain_flags.out_stdev_id;
	args->out_devid = cmd.mock_domain_flags.out_idev_id;
	return r;
}

static inline int mock_attach(struct mock_iommu *mock, struct mock_device *dev, uint32_t pt)
{
	struct iommu_test_cmd cmd = { .op = IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, .id = dev->id };
	int r;

	for (unsigned int i = 0; dev->apart && i < MOCK_DEVICES_MAX; i++)
		if (mock->devices[i].fd && mock->devices[i].pt == pt)
			return -EINVAL;
	cmd.mock_domain_replace.pt_id = pt;
	r = mock_command(mock, &cmd);
	if (!r)
		dev->pt = pt;
	return r;
}

static inline int mock_device_ioctl(struct mock_iommu *mock, struct mock_device *dev,
				    unsigned long request, void *arg)
{
	switch (request) {
	case VFIO_DEVICE_BIND_IOMMUFD: return mock_bind(mock, dev, arg);
	case VFIO_DEVICE_ATTACH_IOMMUFD_PT:
		return mock_attach(mock, dev, ((struct vfio_device_attach_iommufd_pt *)arg)->pt_id);
	case VFIO_DEVICE_GET_INFO: return 0;
	default: return -ENOTTY; /* no features: no log of its own */
	}
}

static inline int mock_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	struct mock_iommu *mock = opaque;
	struct mock_device *dev = mock_device_of(mock, fd);
	struct iommu_hwpt_selftest wide = { .pagetable_type = MOCK_IOMMUPT_HUGE };
	int r;

	if (dev)
		return mock_device_ioctl(mock, dev, request, arg);
	if (request == IOMMU_HWPT_ALLOC && mock->wide) {
		struct iommu_hwpt_alloc *args = arg;

		args->data_type = IOMMU_HWPT_DATA_SELFTEST;
		args->data_len = sizeof(wide);
		args->data_uptr = (uintptr_t)&wide;
	}
	r = vfio_kernel_ioctl(&vfio_kernel_host, fd, request, arg);
	if (request == IOMMU_DESTROY && r)
		mock->destroys_failed++;
	return r;
}

static inline void mock_close(void *opaque, int fd)
{
	struct mock_iommu *mock = opaque;
	struct mock_device *dev = mock_device_of(mock, fd);
	struct iommu_destroy args = { .size = sizeof(args) };

	if (dev && dev->fd == fd && dev->id) {
		args.id = dev->id;
		ck_assert_int_eq(
			vfio_kernel_ioctl(&vfio_kernel_host, mock->fd, IOMMU_DESTROY, &args), 0);
	}
	if (dev && dev->fd == fd)
		memset(dev, 0, sizeof(*dev));
	close(fd);
}

static inline void mock_init(struct mock_iommu *mock)
{
	*mock = (struct mock_iommu){ .kernel = vfio_kernel_host };
	mock->kernel.ioctl = mock_ioctl;
	mock->kernel.close = mock_close;
	mock->kernel.opaque = mock;
}

/* A device that can be opened by its fd. */
static inline struct mock_device *mock_plug(struct mock_iommu *mock, uint32_t flags)
{
	struct mock_device *dev = mock->devices;

	while (dev->fd)
		ck_assert_ptr_ne(++dev, mock->devices + MOCK_DEVICES_MAX);
	*dev = (struct mock_device){ .fd = memfd_create("mock", MFD_CLOEXEC), .flags = flags };
	ck_assert_int_gt(dev->fd, 0);
	return dev;
}

/* As if the device had written to [iova, iova + size): 0, -errno. */
static inline int mock_write(const struct mock_iommu *mock, const struct mock_device *dev,
			     uint64_t iova, uint64_t size)
{
	uint64_t bit = 1;
	struct iommu_test_cmd cmd = { .op = IOMMU_TEST_OP_DIRTY, .id = dev->pt };
	int r;

	cmd.dirty.iova = iova;
	cmd.dirty.length = cmd.dirty.page_size = size;
	cmd.dirty.uptr = (uintptr_t)&bit;
	r = mock_command(mock, &cmd);
	if (!r)
		ck_assert_uint_eq(cmd.dirty.out_nr_dirty, 1);
	return r;
}

#endif
