/* SPDX-License-Identifier: Apache-2.0 */
#include "vfio/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

static int host_open(void *opaque, const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static void host_close(void *opaque, int fd)
{
	close(fd);
}

static int host_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	int r = ioctl(fd, request, arg);

	return r < 0 ? -errno : r;
}

static ssize_t host_pread(void *opaque, int fd, void *data, size_t len, uint64_t offset)
{
	ssize_t n = pread(fd, data, len, (off_t)offset);

	return n < 0 ? -errno : n;
}

static ssize_t host_pwrite(void *opaque, int fd, const void *data, size_t len, uint64_t offset)
{
	ssize_t n = pwrite(fd, data, len, (off_t)offset);

	return n < 0 ? -errno : n;
}

static ssize_t host_read(void *opaque, int fd, void *data, size_t len)
{
	ssize_t n = read(fd, data, len);

	return n < 0 ? -errno : n;
}

static ssize_t host_write(void *opaque, int fd, const void *data, size_t len)
{
	ssize_t n = write(fd, data, len);

	return n < 0 ? -errno : n;
}

static int host_wait(void *opaque, int fd, short events, unsigned int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = events };
	int r = poll(&p, 1, (int)timeout_ms);

	return r < 0 ? -errno : r;
}

static int host_mmap(void *opaque, int fd, uint64_t offset, uint64_t size, int prot, void **address)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED, fd, (off_t)offset);

	if (p == MAP_FAILED)
		return -errno;
	*address = p;
	return 0;
}

/* "Name: N kB" */
static void read_kib(const char *line, const char *name, uint64_t *bytes)
{
	size_t len = strlen(name);
	unsigned long long n;

	if (strncmp(line, name, len))
		return;
	n = strtoull(line + len, NULL, 10);
	*bytes = n < UINT64_MAX / KIB ? n * KIB : 0;
}

static void host_memlock(void *opaque, struct vfio_memlock *memlock)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/status", "re");
	struct rlimit limit;
	char line[256];

	*memlock = (struct vfio_memlock){ .limit = UINT64_MAX };
	if (!getrlimit(RLIMIT_MEMLOCK, &limit) && limit.rlim_cur != RLIM_INFINITY)
		memlock->limit = limit.rlim_cur;
	while (f && fgets(line, sizeof(line), f)) {
		read_kib(line, "VmLck:", &memlock->locked);
		read_kib(line, "VmPin:", &memlock->pinned);
		if (!strncmp(line, "CapEff:", 7))
			memlock->exempt = strtoull(line + 7, NULL, 16) >> CAP_IPC_LOCK & 1;
	}
}

const struct vfio_kernel vfio_kernel_host = {
	.open = host_open,
	.close = host_close,
	.ioctl = host_ioctl,
	.pread = host_pread,
	.pwrite = host_pwrite,
	.read = host_read,
	.write = host_write,
	.wait = host_wait,
	.mmap = host_mmap,
	.memlock = host_memlock,
};
