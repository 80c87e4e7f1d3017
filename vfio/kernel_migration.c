/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stream of a device's own state, on the data descriptor of the kernel's migration v2.
 *
 * It is waited for before it is read, so that a driver that has nothing yet does not keep
 * the thread in the kernel. A driver that cannot be waited for is always ready, and says
 * ENOMSG where it has nothing.
 */
#include <errno.h>
#include <poll.h>

#include "vfio/kernel_device.h"
#include "vfio/uapi_vfio.h"

/* The data are ready in the kernel, or it is the driver that is slow: not for ever. */
#define WRITE_WAIT_MS 10000

static int wait_for(const struct kernel_device *dev, int fd, short events, unsigned int wait_ms)
{
	int r;

	do
		r = dev->kernel->wait(dev->kernel->opaque, fd, events, wait_ms);
	while (r == -EINTR);
	return r;
}

ssize_t kernel_device_migration_read(struct vfio_transport *t, int fd, void *data, size_t len,
				     unsigned int wait_ms, struct error *err)
{
	const struct kernel_device *dev = kernel_device_of(t);
	int ready = wait_for(dev, fd, POLLIN, wait_ms);
	ssize_t n = ready;

	if (ready > 0)
		do
			n = dev->kernel->read(dev->kernel->opaque, fd, data, len);
		while (n == -EINTR);
	if (ready && n >= 0 && (size_t)n <= len)
		return n;
	/* EAGAIN: the driver was not ready after all. */
	if (!ready || n == -ENOMSG || n == -EAGAIN)
		return error_set(err, ENOMSG, "%s: no migration data within %u ms", t->name,
				 wait_ms);
	return error_set_errno(err, n < 0 ? (int)n : -EIO, "%s: read migration data", t->name);
}

int kernel_device_migration_write(struct vfio_transport *t, int fd, const void *data, size_t len,
				  struct error *err)
{
	const struct kernel_device *dev = kernel_device_of(t);
	size_t done = 0;

	while (done < len) {
		int ready = wait_for(dev, fd, POLLOUT, WRITE_WAIT_MS);
		ssize_t n = ready ? ready : -ETIMEDOUT;

		if (ready > 0)
			n = dev->kernel->write(dev->kernel->opaque, fd,
					       (const uint8_t *)data + done, len - done);
		if (n == -EINTR || n == -EAGAIN)
			continue;
		if (n <= 0 || (size_t)n > len - done)
			return error_set_errno(err, n < 0 ? (int)n : -EIO,
					       "%s: write migration data", t->name);
		done += (size_t)n;
	}
	return 0;
}

int kernel_device_migration_precopy_info(struct vfio_transport *t, int fd,
					 struct vfio_precopy_info *info, struct error *err)
{
	const struct kernel_device *dev = kernel_device_of(t);
	int r;

	*info = (struct vfio_precopy_info){ .argsz = sizeof(*info) };
	r = vfio_kernel_ioctl(dev->kernel, fd, VFIO_MIG_GET_PRECOPY_INFO, info);
	return r < 0 ? error_set_errno(err, r, "%s: VFIO_MIG_GET_PRECOPY_INFO", t->name) : 0;
}

void kernel_device_migration_end(struct vfio_transport *t, int fd)
{
	const struct kernel_device *dev = kernel_device_of(t);

	if (fd >= 0)
		vfio_kernel_close(dev->kernel, fd);
}
