/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls that VFIO and iommufd are driven by, as one table, so that tests can
 * stand in for the kernel. A DMA space carries the table it was opened with, and the
 * transports attached to it use the same.
 *
 * Results are -errno on failure. Any thread.
 */
#ifndef VFIO_KERNEL_H
#define VFIO_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* RLIMIT_MEMLOCK, as far as it concerns DMA. */
struct vfio_memlock {
	uint64_t limit;	 /* bytes; UINT64_MAX: none */
	uint64_t locked; /* bytes of this process that count already: type1 */
	uint64_t pinned; /* the same for iommufd */
	bool exempt;	 /* CAP_IPC_LOCK: the limit does not count (but see user namespaces) */
};

struct vfio_kernel {
	int (*open)(void *opaque, const char *path, int flags);
	void (*close)(void *opaque, int fd);
	int (*ioctl)(void *opaque, int fd, unsigned long request, void *arg);
	ssize_t (*pread)(void *opaque, int fd, void *data, size_t len, uint64_t offset);
	ssize_t (*pwrite)(void *opaque, int fd, const void *data, size_t len, uint64_t offset);
	/* Of a stream. wait: 1 where events (POLLIN ...) came within timeout_ms, 0 not. */
	ssize_t (*read)(void *opaque, int fd, void *data, size_t len);
	ssize_t (*write)(void *opaque, int fd, const void *data, size_t len);
	int (*wait)(void *opaque, int fd, short events, unsigned int timeout_ms);
	int (*mmap)(void *opaque, int fd, uint64_t offset, uint64_t size, int prot, void **address);
	void (*memlock)(void *opaque, struct vfio_memlock *memlock);
	void *opaque;
};

/* The real one. */
extern const struct vfio_kernel vfio_kernel_host;

static inline int vfio_kernel_open(const struct vfio_kernel *k, const char *path, int flags)
{
	return k->open(k->opaque, path, flags);
}

static inline void vfio_kernel_close(const struct vfio_kernel *k, int fd)
{
	k->close(k->opaque, fd);
}

static inline int vfio_kernel_ioctl(const struct vfio_kernel *k, int fd, unsigned long request,
				    void *arg)
{
	return k->ioctl(k->opaque, fd, request, arg);
}

#endif
