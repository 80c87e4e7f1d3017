/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DMA space of a vfio-user server: it is told of guest memory by messages, with the
 * memfd to map, and reaches it directly; or, as far as it has not mapped it, by DMA_READ
 * and DMA_WRITE, which are served here. What was not mapped for it is out of its reach by
 * messages; what it once mapped, it can write to until it lets go.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "vfio/user_private.h"

/* Pages of the bitmap asked for at a time: 8 GiB of memory. */
#define COLLECT_BYTES (256UL * 1024)

static struct user_transport *from_space(struct dma_space *space)
{
	return container_of(space, struct user_transport, space);
}

/* The first mapping that ends behind iova; the count where there is none. */
static unsigned int find_locked(const struct user_transport *u, uint64_t iova)
{
	unsigned int low = 0, high = u->map_count;

	while (low < high) {
		unsigned int middle = (low + high) / 2;

		if (iova - u->maps[middle].iova < u->maps[middle].size ||
		    iova < u->maps[middle].iova)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static int insert(struct user_transport *u, const struct user_mapping *want, struct error *err)
{
	unsigned int at;
	int r = 0;

	pthread_mutex_lock(&u->maps_lock);
	at = find_locked(u, want->iova);
	if (at < u->map_count &&
	    (want->iova >= u->maps[at].iova || u->maps[at].iova - want->iova < want->size)) {
		r = -EEXIST;
	} else if (u->map_count >= u->caps.max_dma_maps) {
		r = -ENOSPC;
	} else if (u->map_count == u->map_room) {
		unsigned int room = u->map_room ? 2 * u->map_room : 16;
		struct user_mapping *maps = reallocarray(u->maps, room, sizeof(*maps));

		if (maps) {
			u->maps = maps;
			u->map_room = room;
		} else {
			r = -ENOMEM;
		}
	}
	if (!r) {
		memmove(u->maps + at + 1, u->maps + at, (u->map_count - at) * sizeof(*u->maps));
		u->maps[at] = *want;
		u->map_count++;
	}
	pthread_mutex_unlock(&u->maps_lock);
	if (r)
		error_set_errno(err, r, "vfio-user device %s: map 0x%llx, 0x%llx bytes%s",
				u->t.name, (unsigned long long)want->iova,
				(unsigned long long)want->size,
				r == -ENOSPC ? ": the server takes no more mappings" : "");
	return r;
}

/* Removes exactly this mapping, copied to *was. */
static bool take(struct user_transport *u, uint64_t iova, uint64_t size, bool remove,
		 struct user_mapping *was)
{
	unsigned int at;
	bool found;

	pthread_mutex_lock(&u->maps_lock);
	at = find_locked(u, iova);
	found = at < u->map_count && u->maps[at].iova == iova && u->maps[at].size == size;
	if (found) {
		*was = u->maps[at];
		if (remove) {
			u->map_count--;
			memmove(u->maps + at, u->maps + at + 1,
				(u->map_count - at) * sizeof(*u->maps));
		}
	}
	pthread_mutex_unlock(&u->maps_lock);
	return found;
}

static int map(struct dma_space *space, uint64_t iova, uint64_t size, int fd, uint64_t offset,
	       void *hva, bool writable, struct error *err)
{
	struct user_transport *u = from_space(space);
	struct user_mapping mapping = { iova, size, hva, writable };
	uint64_t unit = MAX(u->caps.pgsizes & -u->caps.pgsizes, (uint64_t)GUEST_PAGE_SIZE);
	struct vfio_user_dma_map m = {
		.argsz = sizeof(m),
		.flags = VFIO_USER_DMA_READABLE | (writable ? VFIO_USER_DMA_WRITABLE : 0),
		.iova = iova,
		.size = size,
	};
	struct user_call call = { .command = VFIO_USER_DMA_MAP, .out = { { &m, sizeof(m) } } };
	int r;

	if (!size || iova + size - 1 < iova || !hva)
		return error_set(err, EINVAL, "vfio-user device %s: map 0x%llx: no range",
				 u->t.name, (unsigned long long)iova);
	if ((iova | size) & (unit - 1))
		return error_set(err, EINVAL,
				 "vfio-user device %s: map 0x%llx, 0x%llx bytes: the server wants "
				 "multiples of 0x%llx",
				 u->t.name, (unsigned long long)iova, (unsigned long long)size,
				 (unsigned long long)unit);
	/* A server that takes no descriptors does its DMA by messages. */
	if (fd >= 0 && u->caps.max_fds) {
		call.fds = &fd;
		call.fd_count = 1;
		m.offset = offset;
	}
	/* First ours: the server may use it before its reply is here. */
	r = insert(u, &mapping, err);
	if (r || u->quiet) /* the server has it already */
		return r;
	r = user_connection_call(u->connection, &call, err);
	if (r)
		take(u, iova, size, true, &mapping);
	return r;
}

void user_bitmap_merge(struct dirty_bitmap *bitmap, uint64_t first, const uint64_t *words,
		       uint64_t pages)
{
	for (uint64_t page = 0; page < pages;) {
		uint64_t word = words[page / 64] >> (page % 64), run;

		if (!word) {
			page = (page / 64 + 1) * 64;
			continue;
		}
		page += (uint64_t)__builtin_ctzll(word);
		word = words[page / 64] >> (page % 64);
		run = ~word ? (uint64_t)__builtin_ctzll(~word) : 64;
		run = MIN(run, 64 - page % 64);
		if (page >= pages)
			return;
		dirty_bitmap_set(bitmap, first + page, MIN(run, pages - page));
		page += run;
	}
}

static uint64_t bitmap_bytes(uint64_t size)
{
	return (size / GUEST_PAGE_SIZE + 63) / 64 * 8;
}

/* The older revision's way; dirty is filled. */
static int unmap_with_bitmap(struct user_transport *u, uint64_t iova, uint64_t size,
			     struct dirty_bitmap *dirty, struct error *err)
{
	uint64_t bytes = bitmap_bytes(size);
	struct {
		struct vfio_user_dma_unmap unmap;
		struct vfio_user_bitmap bitmap;
	} m = {
		.unmap = { .flags = VFIO_USER_UNMAP_GET_DIRTY_BITMAP, .iova = iova, .size = size },
		.bitmap = { .pgsize = GUEST_PAGE_SIZE, .size = bytes },
	}, back;
	struct user_call call = {
		.command = VFIO_USER_DMA_UNMAP,
		.out = { { &m, sizeof(m) } },
		.in = { { &back, sizeof(back) } },
	};
	uint64_t *words = calloc(1, bytes);
	int r;

	if (!words)
		return error_set_errno(err, ENOMEM, "vfio-user device %s: unmap", u->t.name);
	m.unmap.argsz = (uint32_t)(sizeof(m) + bytes);
	call.in[1] = (struct iovec){ words, bytes };
	r = user_connection_call(u->connection, &call, err);
	if (!r && (call.received != bytes || back.bitmap.pgsize != GUEST_PAGE_SIZE))
		r = user_connection_break(
			u->connection, err,
			"the server's reply to DMA_UNMAP has %zu bytes of bitmap, "
			"%llu were asked for",
			call.received, (unsigned long long)bytes);
	if (!r)
		user_bitmap_merge(dirty, 0, words, size / GUEST_PAGE_SIZE);
	free(words);
	return r;
}

static int unmap_plain(struct user_transport *u, uint64_t iova, uint64_t size, struct error *err)
{
	struct vfio_user_dma_unmap m = { .argsz = sizeof(m), .iova = iova, .size = size };
	/* Servers repeat the command in the reply, or leave it empty. */
	struct vfio_user_dma_unmap back;
	struct user_call call = {
		.command = VFIO_USER_DMA_UNMAP,
		.out = { { &m, sizeof(m) } },
		.in = { { NULL, 0 }, { &back, sizeof(back) } },
	};

	return user_connection_call(u->connection, &call, err);
}

static int unmap(struct dma_space *space, uint64_t iova, uint64_t size, struct dirty_bitmap *dirty,
		 struct error *err)
{
	struct user_transport *u = from_space(space);
	bool by_server = dirty && u->caps.dirty_pages && bitmap_bytes(size) <= u->caps.max_bitmap;
	struct user_mapping was;
	int r;

	if (!take(u, iova, size, false, &was))
		return error_set(err, ENOENT,
				 "vfio-user device %s: unmap 0x%llx, 0x%llx bytes: not mapped so",
				 u->t.name, (unsigned long long)iova, (unsigned long long)size);
	r = by_server ? unmap_with_bitmap(u, iova, size, dirty, err)
		      : unmap_plain(u, iova, size, err);
	/* Nobody can say what it wrote: everything it could have. */
	if (dirty && was.writable && (!by_server || r))
		dirty_bitmap_set(dirty, 0, (size + GUEST_PAGE_SIZE - 1) / GUEST_PAGE_SIZE);
	/* A server that is gone has no mapping either, whatever the call returns. */
	if (!r || r == -ECONNRESET)
		take(u, iova, size, true, &was);
	return r;
}

static int iova_ranges(struct dma_space *space, struct dma_range *ranges, unsigned int max,
		       struct error *err)
{
	if (max)
		ranges[0] = (struct dma_range){ 0, UINT64_MAX };
	return max ? 1 : 0;
}

static int dirty_control(struct user_transport *u, uint32_t flags, struct error *err)
{
	struct vfio_user_dirty_pages m = { .argsz = sizeof(m), .flags = flags }, back;
	struct user_call call = {
		.command = VFIO_USER_DIRTY_PAGES,
		.out = { { &m, sizeof(m) } },
		.in = { { NULL, 0 }, { &back, sizeof(back) } },
	};

	return user_connection_call(u->connection, &call, err);
}

static int dirty_able(struct dma_space *space, const char *device, struct error *err)
{
	if (from_space(space)->caps.dirty_pages)
		return 0;
	return error_set(err, EOPNOTSUPP, "its server does not log the pages it writes");
}

static int dirty_start(struct dma_space *space, struct error *err)
{
	struct user_transport *u = from_space(space);

	if (!u->caps.dirty_pages)
		return error_set(err, EOPNOTSUPP,
				 "vfio-user device %s: the server does not log the pages it writes",
				 u->t.name);
	return dirty_control(u, VFIO_USER_DIRTY_START, err);
}

static void dirty_stop(struct dma_space *space)
{
	struct user_transport *u = from_space(space);
	struct error err = ERROR_INIT;

	if (u->caps.dirty_pages && dirty_control(u, VFIO_USER_DIRTY_STOP, &err))
		log_error(u->log, "stop logging of DMA", &err);
}

static int collect_part(struct user_transport *u, uint64_t iova, uint64_t size, uint64_t first,
			uint64_t *words, struct dirty_bitmap *bitmap, struct error *err)
{
	uint64_t bytes = bitmap_bytes(size);
	struct {
		struct vfio_user_dirty_pages pages;
		struct vfio_user_dirty_range range;
	} m = {
		.pages = { .argsz = (uint32_t)(sizeof(m) + bytes),
			   .flags = VFIO_USER_DIRTY_GET_BITMAP },
		.range = { iova, size, { GUEST_PAGE_SIZE, bytes } },
	}, back;
	struct user_call call = {
		.command = VFIO_USER_DIRTY_PAGES,
		.out = { { &m, sizeof(m) } },
		.in = { { &back, sizeof(back) }, { words, bytes } },
	};
	int r = user_connection_call(u->connection, &call, err);

	if (r)
		return r;
	if (call.received != bytes || back.range.bitmap.pgsize != GUEST_PAGE_SIZE)
		return user_connection_break(u->connection, err,
					     "the server's reply to DIRTY_PAGES has %zu bytes of "
					     "bitmap, %llu were asked for",
					     call.received, (unsigned long long)bytes);
	user_bitmap_merge(bitmap, first, words, size / GUEST_PAGE_SIZE);
	return 0;
}

static int dirty_collect(struct dma_space *space, uint64_t iova, uint64_t size, bool last,
			 struct dirty_bitmap *bitmap, struct error *err)
{
	struct user_transport *u = from_space(space);
	uint64_t part = MIN((uint64_t)COLLECT_BYTES, u->caps.max_bitmap) * 8 * GUEST_PAGE_SIZE;
	uint64_t *words;
	int r = 0;

	if (!u->caps.dirty_pages)
		return error_set(err, EOPNOTSUPP, "vfio-user device %s: no dirty page log",
				 u->t.name);
	words = malloc(bitmap_bytes(MIN(part, size)));
	if (!words)
		return error_set_errno(err, ENOMEM, "vfio-user device %s: dirty pages", u->t.name);
	for (uint64_t done = 0; done < size && !r; done += part)
		r = collect_part(u, iova + done, MIN(part, size - done), done / GUEST_PAGE_SIZE,
				 words, bitmap, err);
	free(words);
	return r;
}

/* The space is the transport's, and ends with it. */
static void free_space(struct dma_space *space)
{
}

static const struct dma_space_ops space_ops = {
	.name = "user",
	.map = map,
	.unmap = unmap,
	.iova_ranges = iova_ranges,
	.dirty_able = dirty_able,
	.dirty_start = dirty_start,
	.dirty_stop = dirty_stop,
	.dirty_collect = dirty_collect,
	.free = free_space,
};

void user_dma_init(struct user_transport *u)
{
	u->space.ops = &space_ops;
	u->space.log = u->log;
	pthread_mutex_init(&u->maps_lock, NULL);
}

void user_dma_destroy(struct user_transport *u)
{
	free(u->maps);
	pthread_mutex_destroy(&u->maps_lock);
}

/* DMA by messages. */

/* Whether [iova, iova + len) is mapped: it may span mappings that adjoin. */
static int check_locked(const struct user_transport *u, uint64_t iova, uint64_t len, bool write)
{
	for (unsigned int i = find_locked(u, iova); len; i++) {
		const struct user_mapping *m;
		uint64_t step;

		if (i >= u->map_count || iova < u->maps[i].iova)
			return -EFAULT;
		m = &u->maps[i];
		if (write && !m->writable)
			return -EACCES;
		step = MIN(len, m->size - (iova - m->iova));
		iova += step; /* 0 at the very end of the space, and len is 0 unless it wraps */
		len -= step;
		if (len && !iova)
			return -EFAULT;
	}
	return 0;
}

static int copy_locked(struct user_transport *u, uint64_t iova, uint8_t *data, uint64_t len,
		       bool write)
{
	int r = check_locked(u, iova, len, write);

	if (r)
		return r;
	for (unsigned int i = find_locked(u, iova); len; i++) {
		const struct user_mapping *m = &u->maps[i];
		uint64_t step = MIN(len, m->size - (iova - m->iova));
		uint8_t *hva = m->hva + (iova - m->iova);

		if (write)
			memcpy(hva, data, step);
		else
			memcpy(data, hva, step);
		iova += step;
		data += step;
		len -= step;
	}
	return 0;
}

ssize_t user_dma_serve(void *opaque, uint16_t command, void *payload, size_t len)
{
	struct user_transport *u = opaque;
	bool write = command == VFIO_USER_DMA_WRITE;
	uint8_t *data = (uint8_t *)payload + sizeof(struct vfio_user_dma_access);
	struct vfio_user_dma_access access;
	int r;

	if (len < sizeof(access))
		return -EBADMSG;
	memcpy(&access, payload, sizeof(access));
	if (len - sizeof(access) != (write ? access.count : 0))
		return -EBADMSG;
	if (access.count > USER_DATA_MAX)
		return -EINVAL;
	pthread_mutex_lock(&u->maps_lock);
	r = copy_locked(u, access.iova, data, access.count, write);
	pthread_mutex_unlock(&u->maps_lock);
	if (r)
		return r;
	if (write)
		guest_memory_mark_dirty(u->memory, access.iova, access.count);
	return (ssize_t)(sizeof(access) + (write ? 0 : access.count));
}
