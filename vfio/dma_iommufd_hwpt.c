/* SPDX-License-Identifier: Apache-2.0 */
/* Devices in an IOAS, and the dirty pages their IOMMU sees. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "vfio/dma_iommufd.h"
#include "vfio/uapi_iommufd.h"
#include "vfio/uapi_vfio.h"

static struct dma_iommufd *iommufd_of(struct dma_space *space)
{
	return container_of(space, struct dma_iommufd, ks.space);
}

static int hw_capabilities(const struct dma_iommufd *io, uint32_t devid, uint64_t *capabilities)
{
	struct iommu_hw_info args = { .size = sizeof(args), .dev_id = devid };
	int r = vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_GET_HW_INFO, &args);

	*capabilities = args.out_capabilities;
	return r;
}

static int hwpt_alloc(const struct dma_iommufd *io, uint32_t devid, uint32_t flags, uint32_t *hwpt)
{
	struct iommu_hwpt_alloc args = {
		.size = sizeof(args),
		.flags = flags,
		.dev_id = devid,
		.pt_id = io->ioas,
	};
	int r = vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_HWPT_ALLOC, &args);

	*hwpt = args.out_hwpt_id;
	return r;
}

static void hwpt_destroy(const struct dma_iommufd *io, uint32_t hwpt)
{
	struct iommu_destroy args = { .size = sizeof(args), .id = hwpt };

	vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_DESTROY, &args);
}

static int hwpt_set_dirty_tracking(const struct dma_iommufd *io, uint32_t hwpt, bool on)
{
	struct iommu_hwpt_set_dirty_tracking args = {
		.size = sizeof(args),
		.flags = on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0,
		.hwpt_id = hwpt,
	};

	return vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_HWPT_SET_DIRTY_TRACKING, &args);
}

static int hwpt_get_dirty_bitmap(const struct dma_iommufd *io, uint32_t hwpt, uint64_t iova,
				 uint64_t size, uint32_t flags, uint64_t *words)
{
	struct iommu_hwpt_get_dirty_bitmap args = {
		.size = sizeof(args),
		.hwpt_id = hwpt,
		.flags = flags,
		.iova = iova,
		.length = size,
		.page_size = GUEST_PAGE_SIZE,
		.data = (uintptr_t)words,
	};

	return vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_HWPT_GET_DIRTY_BITMAP, &args);
}

static int device_attach(const struct dma_iommufd *io, int device_fd, uint32_t pt)
{
	struct vfio_device_attach_iommufd_pt args = { .argsz = sizeof(args), .pt_id = pt };

	return vfio_kernel_ioctl(io->ks.kernel, device_fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &args);
}

/* Whether `a` is the first in the list on its page table: each is visited once. */
static bool first_on_hwpt(const struct dma_iommufd *io, const struct iommufd_attachment *a)
{
	const struct iommufd_attachment *b = io->attachments;

	while (b != a && b->hwpt != a->hwpt)
		b = b->next;
	return a->hwpt && a == b;
}

static bool logs_itself(const struct iommufd_attachment *a)
{
	return a->own_log && *a->own_log;
}

static const struct iommufd_attachment *untracked(const struct dma_iommufd *io)
{
	const struct iommufd_attachment *a = io->attachments;

	while (a && (a->hwpt || logs_itself(a)))
		a = a->next;
	return a;
}

/* Joins a page table another device has: 1 where none takes the device. */
static int attach_shared(const struct dma_iommufd *io, int device_fd, uint32_t *hwpt)
{
	for (const struct iommufd_attachment *a = io->attachments; a; a = a->next) {
		int r;

		if (!first_on_hwpt(io, a))
			continue;
		r = device_attach(io, device_fd, a->hwpt);
		/* EINVAL: behind another IOMMU, or of other abilities. */
		if (r == -EINVAL)
			continue;
		*hwpt = a->hwpt;
		return r;
	}
	return 1;
}

/* 0, 1: the IOMMU has no tracking after all, -errno. */
static int attach_tracked(const struct dma_iommufd *io, int device_fd, uint32_t devid,
			  uint32_t *hwpt)
{
	int r = attach_shared(io, device_fd, hwpt);

	if (r <= 0)
		return r;
	r = hwpt_alloc(io, devid, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, hwpt);
	if (r)
		return r == -EOPNOTSUPP || r == -ENOTTY ? 1 : r;
	r = io->ks.logging ? hwpt_set_dirty_tracking(io, *hwpt, true) : 0;
	if (!r)
		r = device_attach(io, device_fd, *hwpt);
	if (r)
		hwpt_destroy(io, *hwpt);
	return r;
}

static int attach_error(const struct dma_iommufd *io, int code, const struct sysfs_device *dev,
			struct error *err)
{
	uint64_t size = 0, start, last;

	for (unsigned int i = 0; i < io->ks.mapping_count; i++) {
		const struct dma_mapping *m = &io->ks.mappings[i];

		size += m->size;
		if ((code == -EADDRINUSE || code == -EINVAL) && dev &&
		    sysfs_group_reserved(dev, m->iova, m->iova + m->size - 1, &start, &last))
			return error_set(
				err, code,
				"attach to the IOAS: its IOMMU cannot map 0x%llx-0x%llx, and "
				"guest memory is mapped at 0x%llx-0x%llx",
				(unsigned long long)start, (unsigned long long)last,
				(unsigned long long)m->iova,
				(unsigned long long)(m->iova + m->size - 1));
	}
	if (code == -EADDRINUSE)
		return error_set_errno(err, code,
				       "attach to the IOAS: guest memory lies beyond what its "
				       "IOMMU can address; give the guest less");
	return kernel_space_map_error(&io->ks, code, size, err, "attach to the IOAS%s",
				      code == -EBUSY ? " (its IOMMU group is in use elsewhere)"
						     : "");
}

int dma_iommufd_attach(struct dma_space *space, struct iommufd_attachment *attachment,
		       int device_fd, uint32_t devid, const struct sysfs_device *dev,
		       struct error *err)
{
	struct dma_iommufd *io = iommufd_of(space);
	uint64_t capabilities;
	int r = 1;

	attachment->hwpt = 0;
	pthread_mutex_lock(&io->ks.lock);
	/* Kernels before 6.7 and mediated devices, which have no IOMMU, fail this. */
	if (!hw_capabilities(io, devid, &capabilities) &&
	    capabilities & IOMMU_HW_CAP_DIRTY_TRACKING)
		r = attach_tracked(io, device_fd, devid, &attachment->hwpt);
	if (r == 1) {
		attachment->hwpt = 0;
		r = device_attach(io, device_fd, io->ioas);
	}
	if (!r) {
		attachment->next = io->attachments;
		io->attachments = attachment;
	}
	if (r)
		attach_error(io, r, dev, err);
	pthread_mutex_unlock(&io->ks.lock);
	return r;
}

void dma_iommufd_take(struct dma_space *space, struct iommufd_attachment *attachment, uint32_t hwpt)
{
	struct dma_iommufd *io = iommufd_of(space);

	pthread_mutex_lock(&io->ks.lock);
	attachment->hwpt = hwpt;
	attachment->next = io->attachments;
	io->attachments = attachment;
	pthread_mutex_unlock(&io->ks.lock);
}

void dma_iommufd_detach(struct dma_space *space, struct iommufd_attachment *attachment)
{
	struct dma_iommufd *io = iommufd_of(space);
	struct iommufd_attachment **at;
	bool shared = false;

	pthread_mutex_lock(&io->ks.lock);
	for (at = &io->attachments; *at && *at != attachment; at = &(*at)->next)
		;
	if (*at)
		*at = attachment->next;
	for (const struct iommufd_attachment *a = io->attachments; a; a = a->next)
		shared |= a->hwpt == attachment->hwpt;
	if (attachment->hwpt && !shared && !io->ks.kept)
		hwpt_destroy(io, attachment->hwpt);
	pthread_mutex_unlock(&io->ks.lock);
}

static void stop_tracking(struct dma_iommufd *io, const struct iommufd_attachment *end)
{
	for (const struct iommufd_attachment *a = io->attachments; a && a != end; a = a->next)
		if (first_on_hwpt(io, a))
			hwpt_set_dirty_tracking(io, a->hwpt, false);
	io->ks.logging = false;
}

static int start_tracking(struct dma_iommufd *io, struct error *err)
{
	const struct iommufd_attachment *a = untracked(io);

	if (a)
		return error_set(err, EOPNOTSUPP, "track dirty pages: the IOMMU of %s cannot",
				 a->name);
	for (a = io->attachments; a; a = a->next) {
		int r = first_on_hwpt(io, a) ? hwpt_set_dirty_tracking(io, a->hwpt, true) : 0;

		if (!r)
			continue;
		stop_tracking(io, a);
		return error_set_errno(
			err, r, "track dirty pages: IOMMU_HWPT_SET_DIRTY_TRACKING for %s", a->name);
	}
	io->ks.logging = true;
	return 0;
}

int dma_iommufd_dirty_able(struct dma_space *space, const char *device, struct error *err)
{
	struct dma_iommufd *io = iommufd_of(space);
	const struct iommufd_attachment *a;
	bool able;

	pthread_mutex_lock(&io->ks.lock);
	for (a = io->attachments; a && strcmp(a->name, device) != 0; a = a->next)
		;
	able = a && a->hwpt;
	pthread_mutex_unlock(&io->ks.lock);
	return able ? 0
		    : error_set(err, EOPNOTSUPP,
				"its IOMMU tracks no dirty pages (or this kernel, before 6.7, does "
				"not)");
}

int dma_iommufd_dirty_start(struct dma_space *space, struct error *err)
{
	struct dma_iommufd *io = iommufd_of(space);
	int r;

	pthread_mutex_lock(&io->ks.lock);
	r = start_tracking(io, err);
	pthread_mutex_unlock(&io->ks.lock);
	return r;
}

void dma_iommufd_dirty_stop(struct dma_space *space)
{
	struct dma_iommufd *io = iommufd_of(space);

	pthread_mutex_lock(&io->ks.lock);
	if (io->ks.logging)
		stop_tracking(io, NULL);
	pthread_mutex_unlock(&io->ks.lock);
}

static int read_all(struct dma_iommufd *io, uint64_t iova, uint64_t size, uint32_t flags,
		    struct dirty_bitmap *found, struct error *err)
{
	const struct iommufd_attachment *a = untracked(io);

	if (!io->ks.logging)
		return error_set(err, EINVAL, "read dirty pages: tracking was not started");
	/* One plugged in since: what it writes is not seen. */
	if (a)
		return error_set(err, EOPNOTSUPP, "read dirty pages: the IOMMU of %s tracks none",
				 a->name);
	for (a = io->attachments; a; a = a->next) {
		int r = 0;

		if (first_on_hwpt(io, a))
			r = hwpt_get_dirty_bitmap(io, a->hwpt, iova, size, flags, found->words);
		if (r)
			return error_set_errno(err, r,
					       "read dirty pages: IOMMU_HWPT_GET_DIRTY_BITMAP of "
					       "0x%llx bytes at 0x%llx for %s",
					       (unsigned long long)size, (unsigned long long)iova,
					       a->name);
	}
	return 0;
}

int dma_iommufd_read_dirty(struct dma_iommufd *io, uint64_t iova, uint64_t size, uint32_t flags,
			   struct dirty_bitmap *bitmap, struct error *err)
{
	struct dirty_bitmap found;
	int r = dirty_bitmap_init(&found, size / GUEST_PAGE_SIZE, err);

	if (r)
		return r;
	/* The kernel sets bits without care for others who do: into a bitmap of its own. */
	r = read_all(io, iova, size, flags, &found, err);
	if (!r)
		dirty_bitmap_or(bitmap, &found);
	dirty_bitmap_destroy(&found);
	return r;
}

/* What is not cleared needs no flush of the IOMMU's caches. */
int dma_iommufd_dirty_collect(struct dma_space *space, uint64_t iova, uint64_t size, bool last,
			      struct dirty_bitmap *bitmap, struct error *err)
{
	struct dma_iommufd *io = iommufd_of(space);
	int r;

	pthread_mutex_lock(&io->ks.lock);
	r = dma_iommufd_read_dirty(io, iova, size, last ? IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR : 0,
				   bitmap, err);
	pthread_mutex_unlock(&io->ks.lock);
	return r;
}
