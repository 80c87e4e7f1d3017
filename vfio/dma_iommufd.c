/* SPDX-License-Identifier: Apache-2.0 */
/* A DMA space that is an IOAS of an iommufd. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vfio/dma_iommufd.h"
#include "vfio/uapi_iommufd.h"

#define IOMMUFD_PATH "/dev/iommu"

static struct dma_iommufd *iommufd_of(const struct dma_space *space)
{
	return (struct dma_iommufd *)container_of(space, struct dma_iommufd, ks.space);
}

/* One wrapper per call. 0 or -errno. */

static int ioas_alloc(const struct dma_iommufd *io, uint32_t *ioas)
{
	struct iommu_ioas_alloc args = { .size = sizeof(args) };
	int r = vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_IOAS_ALLOC, &args);

	*ioas = args.out_ioas_id;
	return r;
}

static int ioas_map(const struct dma_iommufd *io, uint64_t iova, uint64_t size, void *hva,
		    uint32_t flags)
{
	struct iommu_ioas_map args = {
		.size = sizeof(args),
		.flags = flags,
		.ioas_id = io->ioas,
		.user_va = (uintptr_t)hva,
		.length = size,
		.iova = iova,
	};

	return vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_IOAS_MAP, &args);
}

static int ioas_map_file(const struct dma_iommufd *io, uint64_t iova, uint64_t size, int fd,
			 uint64_t offset, uint32_t flags)
{
	struct iommu_ioas_map_file args = {
		.size = sizeof(args),
		.flags = flags,
		.ioas_id = io->ioas,
		.fd = fd,
		.start = offset,
		.length = size,
		.iova = iova,
	};

	return vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_IOAS_MAP_FILE, &args);
}

static int ioas_unmap(const struct dma_iommufd *io, uint64_t iova, uint64_t *size)
{
	struct iommu_ioas_unmap args = {
		.size = sizeof(args),
		.ioas_id = io->ioas,
		.iova = iova,
		.length = *size,
	};
	int r = vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_IOAS_UNMAP, &args);

	*size = args.length;
	return r;
}

static int ioas_iova_ranges(const struct dma_iommufd *io, struct iommu_iova_range *ranges,
			    uint32_t *count)
{
	struct iommu_ioas_iova_ranges args = {
		.size = sizeof(args),
		.ioas_id = io->ioas,
		.num_iovas = *count,
		.allowed_iovas = (uintptr_t)ranges,
	};
	int r = vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_IOAS_IOVA_RANGES, &args);

	*count = args.num_iovas;
	return r;
}

static int set_option(const struct dma_iommufd *io, uint32_t option, uint32_t object,
		      uint64_t value)
{
	struct iommu_option args = {
		.size = sizeof(args),
		.option_id = option,
		.op = IOMMU_OPTION_OP_SET,
		.object_id = object,
		.val64 = value,
	};

	return vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_OPTION, &args);
}

static void destroy_object(const struct dma_iommufd *io, uint32_t id)
{
	struct iommu_destroy args = { .size = sizeof(args), .id = id };

	vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_DESTROY, &args);
}

/* The interface. */

static int map_pages(struct dma_iommufd *io, uint64_t iova, uint64_t size, int fd, uint64_t offset,
		     void *hva, uint32_t flags)
{
	int r;

	if (fd >= 0 && io->by_file) {
		r = ioas_map_file(io, iova, size, fd, offset, flags);
		if (r == -ENOTTY) {
			io->by_file = false;
			log_info(io->ks.space.log,
				 "iommufd: this kernel maps memory by address only (Linux "
				 "6.13 maps it by file): no live update with devices");
		}
		if ((r != -ENOTTY && r != -EOPNOTSUPP) || !hva)
			return r;
	} else if (!hva) {
		return -EOPNOTSUPP;
	}
	return ioas_map(io, iova, size, hva, flags);
}

static int map_locked(struct dma_iommufd *io, uint64_t iova, uint64_t size, int fd, uint64_t offset,
		      void *hva, bool writable, struct error *err)
{
	struct dma_mapping *there = kernel_space_foreign(&io->ks, iova, size);
	int r;

	/* A BAR for other devices is told of again, and is there; now or when it is ours. */
	if (there) {
		there->foreign = false;
		return 0;
	}
	r = kernel_space_reserve(&io->ks, err);
	if (r)
		return r;
	if (io->ks.kept)
		return error_set(err, EBUSY,
				 "map 0x%llx bytes at IOVA 0x%llx: another process has the IOAS",
				 (unsigned long long)size, (unsigned long long)iova);
	r = map_pages(io, iova, size, fd, offset, hva,
		      IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			      (writable ? IOMMU_IOAS_MAP_WRITEABLE : 0));
	if (r)
		return kernel_space_map_error(
			&io->ks, r, size, err, "IOMMU_IOAS_MAP 0x%llx bytes at IOVA 0x%llx%s",
			(unsigned long long)size, (unsigned long long)iova,
			r == -EINVAL || r == -EADDRINUSE
				? " (the IOMMU may not map there: see IOVA ranges)"
				: "");
	kernel_space_remember(&io->ks, iova, size, hva, writable);
	return 0;
}

static int iommufd_map(struct dma_space *space, uint64_t iova, uint64_t size, int fd,
		       uint64_t offset, void *hva, bool writable, struct error *err)
{
	struct dma_iommufd *io = iommufd_of(space);
	int r;

	pthread_mutex_lock(&io->ks.lock);
	r = map_locked(io, iova, size, fd, offset, hva, writable, err);
	pthread_mutex_unlock(&io->ks.lock);
	return r;
}

static int unmap_locked(struct dma_iommufd *io, uint64_t iova, uint64_t size,
			struct dirty_bitmap *dirty, struct error *err)
{
	uint64_t unmapped = size;
	int r = 0;

	if (io->ks.kept)
		return error_set(err, EBUSY, "unmap from an IOAS that another process has");
	if (dirty && io->ks.logging)
		r = dma_iommufd_read_dirty(io, iova, size, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
					   dirty, err);
	if (r)
		return r;
	r = ioas_unmap(io, iova, &unmapped);
	if (!r && unmapped != size)
		r = -EIO;
	if (r)
		return error_set_errno(err, r, "IOMMU_IOAS_UNMAP 0x%llx bytes at IOVA 0x%llx",
				       (unsigned long long)size, (unsigned long long)iova);
	kernel_space_forget(&io->ks, iova, size);
	return 0;
}

static int iommufd_unmap(struct dma_space *space, uint64_t iova, uint64_t size,
			 struct dirty_bitmap *dirty, struct error *err)
{
	struct dma_iommufd *io = iommufd_of(space);
	int r;

	pthread_mutex_lock(&io->ks.lock);
	r = unmap_locked(io, iova, size, dirty, err);
	pthread_mutex_unlock(&io->ks.lock);
	return r;
}

static int iommufd_iova_ranges(struct dma_space *space, struct dma_range *ranges, unsigned int max,
			       struct error *err)
{
	struct iommu_iova_range found[DMA_RANGES_MAX];
	uint32_t room = MIN(max, DMA_RANGES_MAX), count = room;
	int r = ioas_iova_ranges(iommufd_of(space), found, &count);

	if (r && r != -EMSGSIZE) /* more than fit: these are the first */
		return error_set_errno(err, r, "IOMMU_IOAS_IOVA_RANGES");
	count = MIN(count, room);
	for (uint32_t i = 0; i < count; i++)
		ranges[i] = (struct dma_range){ .start = found[i].start, .last = found[i].last };
	return (int)dma_ranges_normalise(ranges, count);
}

static void iommufd_free(struct dma_space *space)
{
	struct dma_iommufd *io = iommufd_of(space);

	/* The descriptor may be a caller's, with a copy elsewhere: leave nothing in it. */
	if (!io->ks.kept)
		destroy_object(io, io->ioas);
	kernel_space_destroy(&io->ks);
	free(io);
}

const struct dma_space_ops dma_iommufd_ops = {
	.name = "iommufd",
	.map = iommufd_map,
	.unmap = iommufd_unmap,
	.iova_ranges = iommufd_iova_ranges,
	.dirty_able = dma_iommufd_dirty_able,
	.dirty_start = dma_iommufd_dirty_start,
	.dirty_stop = dma_iommufd_dirty_stop,
	.dirty_collect = dma_iommufd_dirty_collect,
	.keep = dma_iommufd_keep,
	.own = dma_iommufd_own,
	.free = iommufd_free,
};

static int open_error(int code, struct error *err)
{
	const char *remedy = "";

	if (code == -ENOENT || code == -ENODEV)
		remedy = " (this kernel has no iommufd: CONFIG_IOMMUFD, modprobe iommufd; "
			 "iommufd=off uses the VFIO container)";
	else if (code == -EACCES || code == -EPERM)
		remedy = " (give this user read and write access to it)";
	return error_set(err, code == -ENODEV ? ENOENT : code, "open %s: %s%s", IOMMUFD_PATH,
			 strerror(-code), remedy);
}

struct dma_space *dma_space_open_iommufd_with(const struct vfio_kernel *kernel, int fd,
					      struct log *log, struct error *err)
{
	struct dma_iommufd *io = calloc(1, sizeof(*io));
	int opened = fd, r;

	if (!io) {
		error_set_errno(err, ENOMEM, "make a DMA space");
		return NULL;
	}
	if (fd < 0)
		opened = vfio_kernel_open(kernel, IOMMUFD_PATH, O_RDWR);
	if (opened < 0) {
		open_error(opened, err);
		free(io);
		return NULL;
	}
	kernel_space_init(&io->ks, &dma_iommufd_ops, kernel, opened, log);
	io->by_file = true;
	/* Pinned memory counts for this process, as the container has it, and not together
	 * with all of the user's. It takes CAP_SYS_RESOURCE, and an iommufd without objects. */
	r = set_option(io, IOMMU_OPTION_RLIMIT_MODE, 0, 1);
	log_debug(log, "iommufd: locked memory counts per %s", r ? "user" : "process");
	r = ioas_alloc(io, &io->ioas);
	if (!r)
		return &io->ks.space;
	error_set_errno(err, r == -ENOTTY ? -EOPNOTSUPP : r, "%s: IOMMU_IOAS_ALLOC", IOMMUFD_PATH);
	if (fd >= 0)
		io->ks.fd = -1; /* stays the caller's */
	kernel_space_destroy(&io->ks);
	free(io);
	return NULL;
}

struct dma_space *dma_space_open_iommufd(int fd, struct log *log, struct error *err)
{
	return dma_space_open_iommufd_with(&vfio_kernel_host, fd, log, err);
}

uint32_t dma_space_ioas(const struct dma_space *space)
{
	return space && space->ops == &dma_iommufd_ops ? iommufd_of(space)->ioas : 0;
}
