/* SPDX-License-Identifier: Apache-2.0 */
#include "vfio/given.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "vfio/kernel_device.h"

static int copy(int fd, const char *what, struct error *err)
{
	int copied = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return copied >= 0 ? copied
			   : error_set_errno(err, errno, "copy the descriptor of %s", what);
}

int vfio_given_iommufd(const struct vfio_given *given, struct error *err)
{
	return given->bound ? copy(given->iommufd, "the iommufd", err) : -1;
}

/* Its entry, made where there is none: a descriptor's number may have been another's
 * before, so devid is a guess until the device is open. */
static struct vfio_given_device *entry_of(struct vfio_given *given, int fd, struct error *err)
{
	struct vfio_given_device *devices;

	for (unsigned int i = 0; i < given->count; i++)
		if (given->devices[i].fd == fd)
			return &given->devices[i];
	devices = reallocarray(given->devices, given->count + 1, sizeof(*devices));
	if (!devices) {
		error_set_errno(err, ENOMEM, "open a device");
		return NULL;
	}
	given->devices = devices;
	devices[given->count] = (struct vfio_given_device){ .fd = fd };
	return &devices[given->count++];
}

/* Its entry, with the iommufd kept, since a device may stay bound also where it cannot be
 * opened. */
static struct vfio_given_device *bind_to(struct vfio_given *given, int fd,
					 const struct dma_space *space, struct error *err)
{
	struct vfio_given_device *entry = entry_of(given, fd, err);
	int iommufd;

	if (!entry)
		return NULL;
	iommufd = given->bound ? given->iommufd : copy(dma_space_fd(space), "the iommufd", err);
	if (iommufd < 0)
		return NULL;
	given->iommufd = iommufd;
	given->bound = true;
	return entry;
}

struct vfio_transport *vfio_given_open(struct vfio_given *given, int fd, struct dma_space *space,
				       struct log *log, struct error *err)
{
	struct vfio_given_device *entry = bind_to(given, fd, space, err);
	struct vfio_transport *t;
	int device;

	if (!entry)
		return NULL;
	device = copy(fd, "a device", err);
	if (device < 0)
		return NULL;
	t = vfio_cdev_open_given(device, &entry->devid, space, log, err);
	if (!t)
		close(device);
	return t;
}

struct vfio_transport *vfio_given_take(struct vfio_given *given, int fd, struct kept *kept,
				       const char *id, struct dma_space *space, struct log *log,
				       struct error *err)
{
	struct vfio_given_device *entry = bind_to(given, fd, space, err);

	return entry ? vfio_cdev_take_given(kept, id, &entry->devid, space, log, err) : NULL;
}

void vfio_given_clear(struct vfio_given *given)
{
	if (given->bound)
		close(given->iommufd);
	free(given->devices);
	*given = (struct vfio_given){ .bound = false };
}
