/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IOAS goes on in another process (live update): the same iommufd, the same object ids.
 * Memory that is mapped by file belongs to no process's address space, so nothing is mapped
 * anew; only the accounting of what is pinned moves (IOMMU_IOAS_CHANGE_PROCESS).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "vfio/dma_iommufd.h"
#include "vfio/uapi_iommufd.h"

#define NAME "@iommufd"
#define FACTS_SIZE 8u

static struct dma_iommufd *iommufd_of(struct dma_space *space)
{
	return container_of(space, struct dma_iommufd, ks.space);
}

static int change_process(const struct dma_iommufd *io)
{
	struct iommu_ioas_change_process args = { .size = sizeof(args) };

	return vfio_kernel_ioctl(io->ks.kernel, io->ks.fd, IOMMU_IOAS_CHANGE_PROCESS, &args);
}

int dma_iommufd_keep(struct dma_space *space, struct kept *kept, struct error *err)
{
	struct dma_iommufd *io = iommufd_of(space);
	uint8_t facts[FACTS_SIZE] = "";
	int r;

	if (!io->by_file)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, EOPNOTSUPP,
			"assigned devices cannot be handed over: this kernel maps "
			"memory for them by this process's addresses (Linux 6.13 maps "
			"it by file)");
	store_le32(facts, io->ioas);
	r = kept_add(kept, io->ks.fd, facts, sizeof(facts), err, NAME);
	return r ? r : kernel_space_keep(&io->ks, kept, NAME, err);
}

struct dma_space *dma_space_take_iommufd_with(const struct vfio_kernel *kernel, struct kept *kept,
					      struct log *log, struct error *err)
{
	const uint8_t *facts = kept_facts(kept, FACTS_SIZE, NAME);
	struct dma_iommufd *io;
	int fd = kept_take(kept, NAME);

	if (fd < 0 || !facts) {
		error_set(err, ENOENT, "the iommufd did not come along");
		return NULL;
	}
	io = calloc(1, sizeof(*io));
	if (!io) {
		vfio_kernel_close(kernel, fd);
		error_set_errno(err, ENOMEM, "make a DMA space");
		return NULL;
	}
	kernel_space_init(&io->ks, &dma_iommufd_ops, kernel, fd, log);
	io->ks.kept = true;
	io->by_file = true;
	io->ioas = load_le32(facts);
	if (!kernel_space_take(&io->ks, kept, NAME, err))
		return &io->ks.space;
	io->ks.space.ops->free(&io->ks.space);
	return NULL;
}

struct dma_space *dma_space_take_iommufd(struct kept *kept, struct log *log, struct error *err)
{
	return dma_space_take_iommufd_with(&vfio_kernel_host, kept, log, err);
}

int dma_iommufd_own(struct dma_space *space, struct error *err)
{
	struct dma_iommufd *io = iommufd_of(space);
	int r;

	io->ks.kept = false;
	r = change_process(io);
	return r ? error_set_errno(err, r,
				   "IOMMU_IOAS_CHANGE_PROCESS: memory pinned for devices goes on "
				   "counting for the process before this one")
		 : 0;
}
