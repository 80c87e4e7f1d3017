/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/userfault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/* Newer than Debian 12's headers (Linux 6.6, include/uapi/linux/userfaultfd.h). */
#define FEATURE_POISON (1ULL << 14)
struct poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated; /* bytes, or -errno */
};
#define IOCTL_POISON _IOWR(UFFDIO, 0x08, struct poison)

/* What one ioctl covers: the kernel holds the mapping's lock for all of it, and whoever
 * faults meanwhile waits. */
#define STEP (64 * MIB)

struct opening {
	int device;
	uint64_t features; /* in: wanted */
	bool poison;
	int fd; /* or -errno */
	const char *failed;
};

static int new_fd(int device)
{
	_cleanup_close_ int own = -1;
	int fd = -1;

	if (device < 0) {
		own = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		device = own;
	}
	if (device >= 0)
		fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static int agree(int fd, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	return ioctl(fd, UFFDIO_API, &api) ? -errno : 0;
}

static void open_in_starter(void *opaque)
{
	struct opening *o = opaque;
	int r;

	o->failed = "userfaultfd";
	o->fd = new_fd(o->device);
	if (o->fd < 0)
		return;
	o->failed = "UFFDIO_API";
	o->poison = true;
	r = agree(o->fd, o->features | FEATURE_POISON);
	if (r) {
		o->poison = false;
		r = agree(o->fd, o->features);
	}
	if (r) {
		close(o->fd);
		o->fd = r;
	}
}

int userfault_open(struct userfault *uf, unsigned int mode, int device,
		   const struct thread_policy *policy, struct error *err)
{
	struct opening o = { .device = device };

	if (mode & USERFAULT_MISSING)
		o.features |= UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS;
	if (mode & USERFAULT_WRITE_PROTECT)
		o.features |= UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	thread_run_in_starter(policy, open_in_starter, &o);
	*uf = (struct userfault){ .fd = o.fd < 0 ? -1 : o.fd, .poison = o.poison };
	if (o.fd >= 0)
		return 0;
	if (o.fd == -EPERM || o.fd == -EACCES)
		return error_set(err, EOPNOTSUPP,
				 "%s: faults of the kernel's own are served to CAP_SYS_PTRACE, to "
				 "who may open /dev/userfaultfd, or to all with sysctl "
				 "vm.unprivileged_userfaultfd=1",
				 o.failed);
	if (o.fd == -ENOSYS || o.fd == -EINVAL)
		return error_set(err, EOPNOTSUPP, "%s: this kernel cannot do it for guest RAM%s",
				 o.failed,
				 mode & USERFAULT_WRITE_PROTECT ? " (Linux 5.19 can)" : "");
	return error_set_errno(err, o.fd, "%s", o.failed);
}

void userfault_close(struct userfault *uf)
{
	if (uf->fd >= 0)
		close(uf->fd);
	uf->fd = -1;
}

int userfault_register(const struct userfault *uf, uint8_t *start, uint64_t len, unsigned int mode,
		       struct error *err)
{
	struct uffdio_register r = {
		.range = { .start = (uintptr_t)start, .len = len },
		.mode = (mode & USERFAULT_MISSING ? UFFDIO_REGISTER_MODE_MISSING : 0) |
			(mode & USERFAULT_WRITE_PROTECT ? UFFDIO_REGISTER_MODE_WP : 0),
	};

	if (!ioctl(uf->fd, UFFDIO_REGISTER, &r))
		return 0;
	if (errno == EINVAL)
		return error_set(err, EOPNOTSUPP,
				 "UFFDIO_REGISTER: this kernel does not serve the faults of this "
				 "kind of memory");
	return error_set_errno(err, errno, "UFFDIO_REGISTER of %llu MiB of guest RAM",
			       (unsigned long long)(len / MIB));
}

void userfault_unregister(const struct userfault *uf, uint8_t *start, uint64_t len)
{
	for (uint64_t offset = 0, step; offset < len; offset += step) {
		struct uffdio_range range = { .start = (uintptr_t)start + offset };

		step = MIN(STEP, len - offset);
		range.len = step;
		/* A hugetlb mapping splits at its own pages only. */
		if (ioctl(uf->fd, UFFDIO_UNREGISTER, &range) && errno == EINVAL) {
			range.len = step = len - offset;
			ioctl(uf->fd, UFFDIO_UNREGISTER, &range);
		}
		/* The kernel itself wakes only who waits for a missing page. */
		ioctl(uf->fd, UFFDIO_WAKE, &range);
	}
}

static int write_protect(const struct userfault *uf, uint8_t *start, uint64_t len, uint64_t mode)
{
	for (uint64_t offset = 0, step; offset < len; offset += step) {
		struct uffdio_writeprotect wp = { .mode = mode };

		step = MIN(STEP, len - offset);
		wp.range.start = (uintptr_t)start + offset;
		wp.range.len = step;
		while (ioctl(uf->fd, UFFDIO_WRITEPROTECT, &wp))
			if (errno != EAGAIN && errno != EINTR)
				return -errno;
	}
	return 0;
}

int userfault_protect(const struct userfault *uf, uint8_t *start, uint64_t len)
{
	return write_protect(uf, start, len, UFFDIO_WRITEPROTECT_MODE_WP);
}

int userfault_unprotect(const struct userfault *uf, uint8_t *start, uint64_t len)
{
	return write_protect(uf, start, len, 0);
}

/* How far a copy or zeroing got, and whether to go on: a page that is there is passed. */
static int advance(int result, int64_t done, uint32_t page_size, uint64_t *offset)
{
	int error = errno;

	if (done > 0)
		*offset += (uint64_t)done;
	if (!result || done > 0 || error == EAGAIN || error == EINTR)
		return 0;
	if (error != EEXIST)
		return -error;
	*offset += page_size;
	return 0;
}

int userfault_copy(const struct userfault *uf, uint8_t *start, const void *from, uint64_t len,
		   uint32_t page_size)
{
	uint64_t offset = 0;
	int r = 0;

	while (!r && offset < len) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)start + offset,
			.src = (uintptr_t)from + offset,
			.len = len - offset,
		};
		int result = ioctl(uf->fd, UFFDIO_COPY, &copy);

		r = advance(result, copy.copy, page_size, &offset);
	}
	return r;
}

/* UFFDIO_ZEROPAGE is not for hugetlb: pages are copied from one that nobody wrote to. */
static int zero_hugepages(const struct userfault *uf, uint8_t *start, uint64_t len,
			  uint32_t page_size)
{
	void *zeros = mmap(NULL, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r = 0;

	if (zeros == MAP_FAILED)
		return -errno;
	for (uint64_t offset = 0; !r && offset < len; offset += page_size)
		r = userfault_copy(uf, start + offset, zeros, page_size, page_size);
	munmap(zeros, page_size);
	return r;
}

int userfault_zero(const struct userfault *uf, uint8_t *start, uint64_t len, uint32_t page_size)
{
	uint64_t offset = 0;
	int r = 0;

	if (page_size != 4096)
		return zero_hugepages(uf, start, len, page_size);
	while (!r && offset < len) {
		struct uffdio_zeropage zero = {
			.range = { .start = (uintptr_t)start + offset, .len = len - offset },
		};
		int result = ioctl(uf->fd, UFFDIO_ZEROPAGE, &zero);

		r = advance(result, zero.zeropage, page_size, &offset);
	}
	return r;
}

int userfault_poison(const struct userfault *uf, uint8_t *start, uint64_t len)
{
	uint64_t offset = 0;
	int r = 0;

	if (!uf->poison)
		return -EOPNOTSUPP;
	while (!r && offset < len) {
		struct poison poison = {
			.range = { .start = (uintptr_t)start + offset, .len = len - offset },
		};
		int result = ioctl(uf->fd, IOCTL_POISON, &poison);

		r = advance(result, poison.updated, 4096, &offset);
	}
	return r;
}

int userfault_wake(const struct userfault *uf, uint8_t *start, uint64_t len)
{
	struct uffdio_range range = { .start = (uintptr_t)start, .len = len };

	return ioctl(uf->fd, UFFDIO_WAKE, &range) ? -errno : 0;
}

int userfault_read(const struct userfault *uf, struct userfault_event *events, unsigned int max)
{
	struct uffd_msg messages[16];
	unsigned int count = 0;
	ssize_t n;

	do
		n = read(uf->fd, messages,
			 MIN((size_t)max, ARRAY_SIZE(messages)) * sizeof(*messages));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	for (size_t i = 0; i < (size_t)n / sizeof(*messages); i++) {
		const struct uffd_msg *m = &messages[i];

		if (m->event != UFFD_EVENT_PAGEFAULT)
			continue;
		events[count++] = (struct userfault_event){
			.address = (uint8_t *)(uintptr_t)align_down(m->arg.pagefault.address, 4096),
			.protected = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP,
		};
	}
	return (int)count;
}
