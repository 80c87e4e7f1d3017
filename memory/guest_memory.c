/* SPDX-License-Identifier: Apache-2.0 */
/* Regions and access to them. */
#include "memory/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "memory/guest_memory_private.h"

void guest_memory_free(struct guest_memory *memory)
{
	if (!memory)
		return;
	guest_memory_expect_destroy(memory);
	while (memory->count) {
		struct region *region = memory->regions[--memory->count];
		bool shared = false;

		/* One memfd may back several regions. */
		for (unsigned int i = 0; i < memory->count; i++)
			shared |= memory->regions[i]->r.memfd == region->r.memfd;
		if (!shared)
			close(region->r.memfd);
		munmap(region->r.hva, region->r.size);
		dirty_bitmap_destroy(&region->writes);
		free(region);
	}
	free(memory);
}

unsigned int guest_memory_region_count(const struct guest_memory *memory)
{
	return memory->count;
}

const struct guest_memory_region *guest_memory_region(const struct guest_memory *memory,
						      unsigned int index)
{
	return index < memory->count ? &memory->regions[index]->r : NULL;
}

static inline struct region *find(const struct guest_memory *memory, uint64_t gpa)
{
	/* Regions are two or three: a scan beats anything cleverer. */
	for (unsigned int i = 0; i < memory->count; i++) {
		struct region *region = memory->regions[i];

		if (gpa - region->r.gpa < region->r.size)
			return region;
	}
	return NULL;
}

const struct guest_memory_region *guest_memory_find(const struct guest_memory *memory, uint64_t gpa)
{
	struct region *region = find(memory, gpa);

	return region ? &region->r : NULL;
}

uint64_t guest_memory_size(const struct guest_memory *memory)
{
	uint64_t size = 0;

	for (unsigned int i = 0; i < memory->count; i++)
		size += memory->regions[i]->r.size;
	return size;
}

void *guest_memory_ptr(const struct guest_memory *memory, uint64_t gpa, uint64_t len)
{
	const struct region *region = find(memory, gpa);

	if (!region || len > region_rest(&region->r, gpa))
		return NULL;
	return region->r.hva + (gpa - region->r.gpa);
}

/* A walk over the host ranges of [gpa, gpa + len). The end of a region is at most
 * the end of the address space, so gpa cannot wrap. */
struct walk {
	uint64_t gpa, len;
	uint8_t *hva; /* of this step */
	uint64_t step;
};

/* 1: a step, 0: the end, -EFAULT. */
static inline int walk_next(const struct guest_memory *memory, struct walk *walk)
{
	const struct region *region;

	if (!walk->len)
		return 0;
	region = find(memory, walk->gpa);
	if (!region)
		return -EFAULT;
	walk->step = MIN(walk->len, region_rest(&region->r, walk->gpa));
	walk->hva = region->r.hva + (walk->gpa - region->r.gpa);
	walk->gpa += walk->step;
	walk->len -= walk->step;
	return 1;
}

static bool all_ram(const struct guest_memory *memory, uint64_t gpa, uint64_t len)
{
	struct walk walk = { .gpa = gpa, .len = len };
	int r;

	while ((r = walk_next(memory, &walk)) > 0)
		;
	return r == 0;
}

int guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *buf, size_t len)
{
	struct walk walk = { .gpa = gpa, .len = len };
	const void *src = guest_memory_ptr(memory, gpa, len);

	if (src) {
		memcpy(buf, src, len);
		return 0;
	}
	if (!all_ram(memory, gpa, len))
		return -EFAULT;
	while (walk_next(memory, &walk) > 0) {
		memcpy(buf, walk.hva, walk.step);
		buf = (uint8_t *)buf + walk.step;
	}
	return 0;
}

int guest_memory_write(struct guest_memory *memory, uint64_t gpa, const void *buf, size_t len)
{
	struct walk walk = { .gpa = gpa, .len = len };
	void *dst = guest_memory_ptr(memory, gpa, len);

	if (dst) {
		memcpy(dst, buf, len);
	} else {
		if (!all_ram(memory, gpa, len))
			return -EFAULT;
		while (walk_next(memory, &walk) > 0) {
			memcpy(walk.hva, buf, walk.step);
			buf = (const uint8_t *)buf + walk.step;
		}
	}
	guest_memory_mark_dirty(memory, gpa, len);
	return 0;
}

int guest_memory_zero(struct guest_memory *memory, uint64_t gpa, uint64_t len)
{
	struct walk walk = { .gpa = gpa, .len = len };

	if (!all_ram(memory, gpa, len))
		return -EFAULT;
	while (walk_next(memory, &walk) > 0)
		memset(walk.hva, 0, walk.step);
	guest_memory_mark_dirty(memory, gpa, len);
	return 0;
}

int guest_memory_iov(const struct guest_memory *memory, uint64_t gpa, uint64_t len,
		     struct iovec *iov, unsigned int *count, unsigned int max)
{
	struct walk walk = { .gpa = gpa, .len = len };
	unsigned int n = *count;
	int r;

	while ((r = walk_next(memory, &walk)) > 0) {
		if (n >= max) {
			/* What is no RAM is the graver fault. */
			return all_ram(memory, walk.gpa, walk.len) ? -E2BIG : -EFAULT;
		}
		iov[n++] = (struct iovec){ .iov_base = walk.hva, .iov_len = walk.step };
	}
	if (!r)
		*count = n;
	return r;
}

/* The part of [gpa, gpa + len) inside a region, as offset and length in it. */
static bool intersect(const struct guest_memory_region *r, uint64_t gpa, uint64_t len,
		      uint64_t *offset, uint64_t *part)
{
	uint64_t last, start = MAX(gpa, r->gpa);

	if (!len)
		return false;
	last = len - 1 > UINT64_MAX - gpa ? UINT64_MAX : gpa + len - 1;
	last = MIN(last, r->gpa + r->size - 1);
	if (start > last)
		return false;
	*offset = start - r->gpa;
	*part = last - start + 1;
	return true;
}

void guest_memory_mark_dirty(struct guest_memory *memory, uint64_t gpa, uint64_t len)
{
	if (__builtin_expect(!atomic_load_explicit(&memory->tracking, memory_order_acquire), 1))
		return;
	for (unsigned int i = 0; i < memory->count; i++) {
		struct region *region = memory->regions[i];
		uint64_t offset, part, first;

		if (!intersect(&region->r, gpa, len, &offset, &part))
			continue;
		first = offset / GUEST_PAGE_SIZE;
		dirty_bitmap_set(&region->writes, first,
				 (offset + part - 1) / GUEST_PAGE_SIZE - first + 1);
	}
}

static int discard_part(const struct guest_memory_region *r, uint64_t offset, uint64_t len,
			bool touch)
{
	/* Whole pages of the file. */
	uint64_t start = align_up(r->offset + offset, r->page_size);
	uint64_t end = align_down(r->offset + offset + len, r->page_size);

	if (start >= end)
		return 0;
	/* A write that changes nothing: it waits as the guest's would. */
	for (uint64_t at = start; touch && at < end; at += r->page_size)
		__atomic_fetch_or(r->hva + (at - r->offset), 0, __ATOMIC_RELAXED);
	if (fallocate(r->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
		      (off_t)(end - start)))
		return -errno;
	return 0;
}

int guest_memory_discard(struct guest_memory *memory, uint64_t gpa, uint64_t len)
{
	bool touch = atomic_load(&memory->discards_held);
	int result = 0;

	if (!all_ram(memory, gpa, len))
		return -EFAULT;
	for (unsigned int i = 0; i < memory->count && !result; i++) {
		const struct guest_memory_region *r = &memory->regions[i]->r;
		uint64_t offset, part;

		if (intersect(r, gpa, len, &offset, &part))
			result = discard_part(r, offset, part, touch);
	}
	/* The pages changed: a copy made elsewhere has to become zero, too. */
	guest_memory_mark_dirty(memory, gpa, len);
	return result;
}

void guest_memory_hold_discards(struct guest_memory *memory)
{
	atomic_fetch_add(&memory->discards_held, 1);
}

void guest_memory_release_discards(struct guest_memory *memory)
{
	atomic_fetch_sub(&memory->discards_held, 1);
}
