/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container goes on in another process (live update): the same container and groups,
 * the same mappings. It maps by a process's addresses, so the old process gives these up
 * (VFIO_DMA_UNMAP_FLAG_VADDR) while the devices stand still for it, and the new one puts in
 * its own (VFIO_DMA_MAP_FLAG_VADDR), which moves the accounting of what is pinned, too.
 * Pages stay pinned and mapped throughout, and DMA goes on: only what has yet to be pinned
 * needs an address. Mediated devices pin while they work, so the kernel does not offer it
 * for a container that has one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vfio/dma_type1.h"
#include "vfio/kernel_device.h"
#include "vfio/uapi_vfio.h"

#define NAME "@type1"

static struct dma_type1 *type1_of(struct dma_space *space)
{
	return container_of(space, struct dma_type1, ks.space);
}

static int give_up_address(const struct dma_type1 *t1, const struct dma_mapping *m)
{
	struct vfio_iommu_type1_dma_unmap args = {
		.argsz = sizeof(args),
		.flags = VFIO_DMA_UNMAP_FLAG_VADDR,
		.iova = m->iova,
		.size = m->size,
	};

	return vfio_kernel_ioctl(t1->ks.kernel, t1->ks.fd, VFIO_IOMMU_UNMAP_DMA, &args);
}

static int put_in_address(const struct dma_type1 *t1, const struct dma_mapping *m)
{
	struct vfio_iommu_type1_dma_map args = {
		.argsz = sizeof(args),
		.flags = VFIO_DMA_MAP_FLAG_VADDR,
		.vaddr = (uintptr_t)m->hva,
		.iova = m->iova,
		.size = m->size,
	};

	return vfio_kernel_ioctl(t1->ks.kernel, t1->ks.fd, VFIO_IOMMU_MAP_DMA, &args);
}

static int check_able(const struct dma_type1 *t1, struct error *err)
{
	int r = vfio_kernel_ioctl(t1->ks.kernel, t1->ks.fd, VFIO_CHECK_EXTENSION,
				  (void *)(uintptr_t)VFIO_UPDATE_VADDR);

	if (r < 0)
		return error_set_errno(err, r, "VFIO_CHECK_EXTENSION");
	return r ? 0
		 : error_set_kind(err, ERROR_BAD_REQUEST, EOPNOTSUPP,
				  "assigned devices cannot be handed over in their VFIO "
				  "container: the kernel is before Linux 5.12, or a mediated "
				  "device is in it, which needs this process's addresses at all "
				  "times; by iommufd it can (iommufd=on)");
}

static int keep_groups(const struct dma_type1 *t1, struct kept *kept, struct error *err)
{
	unsigned int n = 0;
	int r = 0;

	for (const struct type1_group *group = t1->groups; !r && group; group = group->next)
		r = kept_add(kept, group->fd, group->id, sizeof(group->id), err, NAME "/group/%u",
			     n++);
	return r;
}

int dma_type1_keep(struct dma_space *space, struct kept *kept, struct error *err)
{
	struct dma_type1 *t1 = type1_of(space);
	int r = check_able(t1, err);

	if (!r)
		r = kept_add(kept, t1->ks.fd, NULL, 0, err, NAME);
	if (!r)
		r = keep_groups(t1, kept, err);
	return r ? r : kernel_space_keep(&t1->ks, kept, NAME, err);
}

static int take_groups(struct dma_type1 *t1, struct kept *kept, struct error *err)
{
	struct type1_group **end = &t1->groups;

	for (unsigned int n = 0;; n++) {
		const char *id = kept_facts(kept, SYSFS_NAME_MAX, NAME "/group/%u", n);
		_cleanup_free_ struct type1_group *group = NULL;

		if (!id)
			return n ? 0 : error_set(err, ENOENT, "the VFIO groups did not come along");
		group = calloc(1, sizeof(*group));
		if (!group)
			return error_set_errno(err, ENOMEM, "take a VFIO group");
		group->fd = kept_take(kept, NAME "/group/%u", n);
		if (group->fd < 0)
			return error_set(err, ENOENT, "a VFIO group did not come along");
		snprintf(group->id, sizeof(group->id), "%.*s", SYSFS_NAME_MAX - 1, id);
		*end = take_ptr(group);
		end = &(*end)->next;
	}
}

/* RAM is where it is mapped one to one; what else there is, is mapped again by its user. */
static void find_addresses(struct dma_type1 *t1, const struct guest_memory *memory)
{
	for (unsigned int i = 0; i < t1->ks.mapping_count; i++)
		for (unsigned int n = 0; n < guest_memory_region_count(memory); n++) {
			const struct guest_memory_region *region = guest_memory_region(memory, n);

			if (t1->ks.mappings[i].iova == region->gpa &&
			    t1->ks.mappings[i].size == region->size)
				t1->ks.mappings[i].hva = region->hva;
		}
}

struct dma_space *dma_space_take_type1_with(const struct vfio_kernel *kernel,
					    const struct guest_memory *memory, struct kept *kept,
					    struct log *log, struct error *err)
{
	struct dma_type1 *t1;
	int fd = kept_take(kept, NAME);

	if (fd < 0) {
		error_set(err, ENOENT, "the VFIO container did not come along");
		return NULL;
	}
	t1 = calloc(1, sizeof(*t1));
	if (!t1) {
		vfio_kernel_close(kernel, fd);
		error_set_errno(err, ENOMEM, "make a DMA space");
		return NULL;
	}
	kernel_space_init(&t1->ks, &dma_type1_ops, kernel, fd, log);
	t1->ks.kept = true;
	if (!kernel_space_take(&t1->ks, kept, NAME, err) && !take_groups(t1, kept, err) &&
	    !dma_type1_read_info(t1, err)) {
		find_addresses(t1, memory);
		return &t1->ks.space;
	}
	t1->ks.space.ops->free(&t1->ks.space);
	return NULL;
}

struct dma_space *dma_space_take_type1(const struct guest_memory *memory, struct kept *kept,
				       struct log *log, struct error *err)
{
	return dma_space_take_type1_with(&vfio_kernel_host, memory, kept, log, err);
}

int dma_type1_claim(struct dma_type1 *t1, struct dma_mapping *m, void *hva)
{
	int r = 0;

	m->hva = hva;
	if (!t1->ks.kept)
		r = put_in_address(t1, m);
	m->foreign = t1->ks.kept || r;
	return r;
}

static int hold_locked(struct dma_type1 *t1, bool hold, struct error *err)
{
	int r = 0, one;

	for (unsigned int i = 0; i < t1->ks.mapping_count; i++) {
		struct dma_mapping *m = &t1->ks.mappings[i];

		if (m->foreign == hold || !m->hva)
			continue;
		one = hold ? give_up_address(t1, m) : put_in_address(t1, m);
		m->foreign = one ? !hold : hold;
		if (one && !r)
			r = error_set_errno(
				err, one, "%s at IOVA 0x%llx: memory pinned for devices %s",
				hold ? "VFIO_DMA_UNMAP_FLAG_VADDR" : "VFIO_DMA_MAP_FLAG_VADDR",
				(unsigned long long)m->iova,
				hold ? "cannot change its process"
				     : "goes on counting for another process");
	}
	return r;
}

int dma_type1_hold(struct dma_space *space, bool hold, struct error *err)
{
	struct dma_type1 *t1 = type1_of(space);
	int r = 0;

	pthread_mutex_lock(&t1->ks.lock);
	if (t1->groups && !t1->ks.kept)
		r = hold_locked(t1, hold, err);
	pthread_mutex_unlock(&t1->ks.lock);
	return r;
}

int dma_type1_own(struct dma_space *space, struct error *err)
{
	struct dma_type1 *t1 = type1_of(space);
	int r;

	pthread_mutex_lock(&t1->ks.lock);
	t1->ks.kept = false;
	r = hold_locked(t1, false, err);
	pthread_mutex_unlock(&t1->ks.lock);
	return r;
}
