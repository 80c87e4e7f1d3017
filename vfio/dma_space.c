/* SPDX-License-Identifier: Apache-2.0 */
/* What DMA spaces have in common: checks before a mapping, and the mappings' record. */
#include "vfio/dma_space.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/strbuf.h"
#include "vfio/kernel_space.h"

struct kernel_space *kernel_space_of(const struct dma_space *space)
{
	if (!space || (space->ops != &dma_iommufd_ops && space->ops != &dma_type1_ops))
		return NULL;
	return (struct kernel_space *)container_of(space, struct kernel_space, space);
}

void kernel_space_init(struct kernel_space *ks, const struct dma_space_ops *ops,
		       const struct vfio_kernel *kernel, int fd, struct log *log)
{
	ks->space = (struct dma_space){ .ops = ops, .log = log };
	ks->kernel = kernel;
	ks->fd = fd;
	pthread_mutex_init(&ks->lock, NULL);
}

void kernel_space_destroy(struct kernel_space *ks)
{
	if (ks->fd >= 0)
		vfio_kernel_close(ks->kernel, ks->fd);
	pthread_mutex_destroy(&ks->lock);
	free(ks->mappings);
}

int kernel_space_reserve(struct kernel_space *ks, struct error *err)
{
	unsigned int room = ks->mapping_room ? 2 * ks->mapping_room : 8;
	struct dma_mapping *mappings;

	if (ks->mapping_count < ks->mapping_room)
		return 0;
	mappings = reallocarray(ks->mappings, room, sizeof(*mappings));
	if (!mappings)
		return error_set_errno(err, ENOMEM, "record a DMA mapping");
	ks->mappings = mappings;
	ks->mapping_room = room;
	return 0;
}

void kernel_space_remember(struct kernel_space *ks, uint64_t iova, uint64_t size, void *hva,
			   bool writable)
{
	ks->mappings[ks->mapping_count++] = (struct dma_mapping){
		.iova = iova, .size = size, .hva = hva, .writable = writable
	};
}

void kernel_space_forget(struct kernel_space *ks, uint64_t iova, uint64_t size)
{
	for (unsigned int i = 0; i < ks->mapping_count; i++) {
		if (ks->mappings[i].iova != iova || ks->mappings[i].size != size)
			continue;
		ks->mappings[i] = ks->mappings[--ks->mapping_count];
		return;
	}
}

/* Bytes that would have to be allowed for `size` more. */
static uint64_t memlock_needed(const struct kernel_space *ks, const struct vfio_memlock *memlock,
			       uint64_t size)
{
	return size + (ks->space.ops == &dma_type1_ops ? memlock->locked : memlock->pinned);
}

static unsigned long long to_mib(uint64_t bytes)
{
	return bytes / MIB + (bytes % MIB != 0);
}

int kernel_space_check_memlock(const struct kernel_space *ks, uint64_t size, struct error *err)
{
	struct vfio_memlock memlock;
	uint64_t needed;

	ks->kernel->memlock(ks->kernel->opaque, &memlock);
	needed = memlock_needed(ks, &memlock, size);
	if (memlock.exempt || needed <= memlock.limit)
		return 0;
	return error_set(
		err, ENOMEM,
		"map %llu MiB for DMA: RLIMIT_MEMLOCK is %llu KiB; %llu MiB would do: "
		"ulimit -l %llu, or LimitMEMLOCK=%lluM in the systemd unit, or CAP_IPC_LOCK",
		to_mib(size), (unsigned long long)(memlock.limit / KIB), to_mib(needed),
		to_mib(needed) * 1024, to_mib(needed));
}

int kernel_space_map_error(const struct kernel_space *ks, int code, uint64_t size,
			   struct error *err, const char *format, ...)
{
	char text[ERROR_MESSAGE_MAX];
	struct vfio_memlock memlock;
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	error_set_errno(err, code, "%s", text);
	if (code != -ENOMEM)
		return code;
	/* Per user, or in a user namespace, only the kernel knows what counts. */
	ks->kernel->memlock(ks->kernel->opaque, &memlock);
	if (memlock.limit == UINT64_MAX)
		return code;
	return error_set(err, code,
			 "%.*s: Cannot allocate memory; RLIMIT_MEMLOCK is %llu KiB, %llu MiB "
			 "would do (with iommufd all of this user's VMs may count as one)",
			 ERROR_MESSAGE_MAX - 200, text, (unsigned long long)(memlock.limit / KIB),
			 to_mib(memlock_needed(ks, &memlock, size)));
}

static int compare_ranges(const void *a, const void *b)
{
	const struct dma_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

unsigned int dma_ranges_normalise(struct dma_range *ranges, unsigned int count)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < count; i++)
		if (ranges[i].start <= ranges[i].last)
			ranges[kept++] = ranges[i];
	qsort(ranges, kept, sizeof(*ranges), compare_ranges);
	return kept;
}

int dma_ranges_check(const struct dma_range *ranges, unsigned int count, uint64_t start,
		     uint64_t size, struct error *err)
{
	uint64_t last = start + size - 1, at = start;
	_cleanup_strbuf_ struct strbuf text = { .max = 256 };

	if (!size || last < start)
		return error_set(err, EINVAL,
				 "map 0x%llx bytes at IOVA 0x%llx: beyond the address space",
				 (unsigned long long)size, (unsigned long long)start);
	for (unsigned int i = 0; i < count; i++) {
		if (at < ranges[i].start || at > ranges[i].last)
			continue;
		if (last <= ranges[i].last)
			return 0;
		at = ranges[i].last + 1; /* Adjacent ranges are one. */
	}
	for (unsigned int i = 0; i < count && !text.failed && i < 6; i++)
		strbuf_printf(&text, "%s0x%llx-0x%llx", i ? ", " : "",
			      (unsigned long long)ranges[i].start,
			      (unsigned long long)ranges[i].last);
	return error_set(err, EINVAL,
			 "map 0x%llx-0x%llx for DMA: no IOMMU mapping is possible from 0x%llx "
			 "on; it maps %s%s",
			 (unsigned long long)start, (unsigned long long)last,
			 (unsigned long long)at, text.data && !text.failed ? text.data : "nothing",
			 count > 6 ? ", ..." : "");
}

static int check_memory(struct dma_space *space, const struct guest_memory *memory,
			struct error *err)
{
	struct kernel_space *ks = kernel_space_of(space);
	struct dma_range ranges[DMA_RANGES_MAX];
	int count = space->ops->iova_ranges(space, ranges, DMA_RANGES_MAX, err);
	int r;

	if (count < 0)
		return count;
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		r = dma_ranges_check(ranges, (unsigned int)count, region->gpa, region->size, err);
		if (r)
			return r;
	}
	return ks ? kernel_space_check_memlock(ks, guest_memory_size(memory), err) : 0;
}

int dma_space_map_memory(struct dma_space *space, const struct guest_memory *memory,
			 struct error *err)
{
	unsigned int i;
	int r = check_memory(space, memory, err);

	/* A region in one call: the kernel finds the huge pages in it. */
	for (i = 0; !r && i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		r = space->ops->map(space, region->gpa, region->size, region->memfd, region->offset,
				    region->hva, true, err);
		if (r)
			break;
	}
	while (r && i--) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		space->ops->unmap(space, region->gpa, region->size, NULL, NULL);
	}
	return r;
}

int dma_space_fd(const struct dma_space *space)
{
	const struct kernel_space *ks = kernel_space_of(space);

	return ks ? ks->fd : -1;
}
