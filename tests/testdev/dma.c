/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory: mapped where the client handed out descriptors, else by messages; and a
 * log of the pages written. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/testdev/testdev.h"

#define PAGE 4096ULL

static size_t bitmap_words(uint64_t size)
{
	return (size / PAGE + 63) / 64 + 1;
}

static void drop(struct testdev *t, unsigned int at)
{
	struct testdev_map *map = &t->maps[at];

	if (map->hva)
		munmap(map->hva, map->size);
	free(map->dirty);
	t->maps[at] = t->maps[--t->map_count];
}

void testdev_dma_unmap_all(struct testdev *t)
{
	while (t->map_count)
		drop(t, 0);
	t->logging = false;
}

/* The mapping that holds iova. */
static struct testdev_map *find(struct testdev *t, uint64_t iova)
{
	for (unsigned int i = 0; i < t->map_count; i++)
		if (iova - t->maps[i].iova < t->maps[i].size)
			return &t->maps[i];
	return NULL;
}

int testdev_dma_map(struct testdev *t, const struct testdev_message *m)
{
	struct vfio_user_dma_map want;
	struct testdev_map map;

	if (m->len < sizeof(want))
		return EINVAL;
	memcpy(&want, m->payload, sizeof(want));
	if (!want.size || (want.iova | want.size | want.offset) % PAGE || m->fd_count > 1 ||
	    want.iova + want.size - 1 < want.iova)
		return EINVAL;
	for (unsigned int i = 0; i < t->map_count; i++)
		if (want.iova < t->maps[i].iova + t->maps[i].size &&
		    t->maps[i].iova < want.iova + want.size)
			return EEXIST;
	if (t->map_count == TESTDEV_MAPS_MAX)
		return ENOSPC;
	map = (struct testdev_map){
		.iova = want.iova,
		.size = want.size,
		.writable = want.flags & VFIO_USER_DMA_WRITABLE,
		.dirty = calloc(bitmap_words(want.size), 8),
	};
	if (!map.dirty)
		return ENOMEM;
	if (m->fd_count && !t->o.dma_messages) {
		map.hva = mmap(NULL, map.size, PROT_READ | (map.writable ? PROT_WRITE : 0),
			       MAP_SHARED, m->fds[0], (off_t)want.offset);
		if (map.hva == MAP_FAILED) {
			free(map.dirty);
			return errno;
		}
	}
	t->maps[t->map_count++] = map;
	return 0;
}

/* The log. */

void testdev_dirty_clear(struct testdev *t)
{
	for (unsigned int i = 0; i < t->map_count; i++)
		memset(t->maps[i].dirty, 0, bitmap_words(t->maps[i].size) * 8);
}

static void mark(struct testdev_map *map, uint64_t iova, uint64_t len)
{
	for (uint64_t page = (iova - map->iova) / PAGE; page <= (iova + len - 1 - map->iova) / PAGE;
	     page++)
		map->dirty[page / 64] |= 1ULL << page % 64;
}

int testdev_dirty_report(struct testdev *t, uint64_t iova, uint64_t size, uint64_t page_size,
			 uint8_t *bits, size_t bytes)
{
	if (!is_power_of_2(page_size) || page_size < PAGE || (iova | size) % page_size ||
	    size / page_size > 8 * bytes)
		return EINVAL;
	memset(bits, 0, bytes);
	for (uint64_t at = 0; at < size; at += PAGE) {
		struct testdev_map *map = find(t, iova + at);
		uint64_t page;

		if (!map)
			continue;
		page = (iova + at - map->iova) / PAGE;
		if (!(map->dirty[page / 64] & 1ULL << page % 64))
			continue;
		map->dirty[page / 64] &= ~(1ULL << page % 64);
		bits[at / page_size / 8] |= (uint8_t)(1 << at / page_size % 8);
	}
	return 0;
}

int testdev_dma_unmap(struct testdev *t, const struct testdev_message *m, struct testdev_result *r)
{
	struct vfio_user_dma_unmap want;
	struct vfio_user_bitmap bitmap;
	unsigned int i;

	if (m->len < sizeof(want))
		return EINVAL;
	memcpy(&want, m->payload, sizeof(want));
	for (i = 0; i < t->map_count; i++)
		if (t->maps[i].iova == want.iova && t->maps[i].size == want.size)
			break;
	if (i == t->map_count)
		return ENOENT;
	memcpy(t->reply, &want, sizeof(want));
	r->len = sizeof(want);
	if (want.flags & VFIO_USER_UNMAP_GET_DIRTY_BITMAP) {
		if (t->o.dirty != DIRTY_PAGES || m->len < sizeof(want) + sizeof(bitmap))
			return EINVAL;
		memcpy(&bitmap, m->payload + sizeof(want), sizeof(bitmap));
		if (bitmap.size > TESTDEV_DATA_MAX ||
		    testdev_dirty_report(t, want.iova, want.size, bitmap.pgsize,
					 t->reply + sizeof(want) + sizeof(bitmap), bitmap.size))
			return EINVAL;
		memcpy(t->reply + sizeof(want), &bitmap, sizeof(bitmap));
		r->len += sizeof(bitmap) + bitmap.size;
	}
	drop(t, i);
	return 0;
}

/* The older revision's command. */
int testdev_dirty_pages(struct testdev *t, const struct testdev_message *m,
			struct testdev_result *r)
{
	struct vfio_user_dirty_pages want;
	struct vfio_user_dirty_range range;
	size_t fixed = sizeof(want) + sizeof(range);

	if (t->o.dirty != DIRTY_PAGES)
		return ENOTSUP;
	if (m->len < sizeof(want))
		return EINVAL;
	memcpy(&want, m->payload, sizeof(want));
	memcpy(t->reply, &want, sizeof(want));
	r->len = sizeof(want);
	if (want.flags == VFIO_USER_DIRTY_START || want.flags == VFIO_USER_DIRTY_STOP) {
		t->logging = want.flags == VFIO_USER_DIRTY_START;
		testdev_dirty_clear(t);
		return 0;
	}
	if (want.flags != VFIO_USER_DIRTY_GET_BITMAP || !t->logging || m->len < fixed)
		return EINVAL;
	memcpy(&range, m->payload + sizeof(want), sizeof(range));
	if (range.bitmap.size > TESTDEV_DATA_MAX ||
	    testdev_dirty_report(t, range.iova, range.size, range.bitmap.pgsize, t->reply + fixed,
				 range.bitmap.size))
		return EINVAL;
	memcpy(t->reply + sizeof(want), &range, sizeof(range));
	r->len = fixed + range.bitmap.size;
	return 0;
}

/* Accesses. */

static int by_message(struct testdev *t, uint64_t iova, void *in, const void *out, size_t len)
{
	struct vfio_user_dma_access a = { iova, len };
	size_t most = sizeof(a) + len;
	uint8_t *buffer = malloc(most);
	ssize_t n;

	if (!buffer)
		return ENOMEM;
	memcpy(buffer, &a, sizeof(a));
	if (out)
		memcpy(buffer + sizeof(a), out, len);
	n = testdev_call(t, out ? VFIO_USER_DMA_WRITE : VFIO_USER_DMA_READ, buffer,
			 out ? most : sizeof(a), buffer, most);
	if (n >= 0 && in) {
		if ((size_t)n == most)
			memcpy(in, buffer + sizeof(a), len);
		else
			n = -EPROTO;
	}
	free(buffer);
	return n < 0 ? (int)-n : 0;
}

/* One direction: in or out is NULL. */
static int transfer(struct testdev *t, uint64_t iova, uint8_t *in, const uint8_t *out, size_t len)
{
	while (len) {
		struct testdev_map *map = find(t, iova);
		uint64_t part = len;
		int error = 0;

		/* By messages the client is the judge of what is mapped. */
		if (!map && !t->o.dma_messages)
			return EFAULT;
		if (map)
			part = MIN(part, map->size - (iova - map->iova));
		if (map && out && !map->writable && !t->o.dma_messages)
			return EACCES;
		if (map && map->hva) {
			if (out)
				memcpy(map->hva + (iova - map->iova), out, part);
			else if (in)
				memcpy(in, map->hva + (iova - map->iova), part);
		} else {
			part = MIN(part, t->client_max_data);
			error = by_message(t, iova, in, out, part);
		}
		if (error)
			return error;
		map = find(t, iova);
		if (map && out)
			mark(map, iova, part);
		iova += part;
		in = in ? in + part : NULL;
		out = out ? out + part : NULL;
		len -= part;
	}
	return 0;
}

int testdev_dma_read(struct testdev *t, uint64_t iova, void *data, size_t len)
{
	return transfer(t, iova, data, NULL, len);
}

int testdev_dma_write(struct testdev *t, uint64_t iova, const void *data, size_t len)
{
	return transfer(t, iova, NULL, data, len);
}
