/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What split and packed rings share: reading descriptors, collecting a chain's
 * ranges, atomic access to ring fields. Private to virtqueue*.c.
 *
 * Descriptors are copied out once into struct vring_descriptor and judged there;
 * nothing is decided on memory the guest can still change.
 */
#ifndef DEVICES_VIRTIO_VIRTQUEUE_RING_H
#define DEVICES_VIRTIO_VIRTQUEUE_RING_H

#include <endian.h>
#include <linux/virtio_ring.h>

#include "devices/virtio/virtqueue.h"

/* Either layout: split has flags then next, packed has id then flags, in `a`, `b`. */
struct vring_descriptor {
	uint64_t addr;
	uint32_t len;
	uint16_t a, b;
};

/* A table of descriptors in guest memory: the ring's, or an indirect one. */
struct vring_table {
	const uint8_t *hva; /* NULL: crosses a region border, read through gpa */
	uint64_t gpa;
	uint32_t count;
};

/* Breaks the queue: for the caller to return. */
int virtqueue_break(struct virtqueue *vq, const char *fault);

/* The table an indirect descriptor points to. */
int virtqueue_indirect_table(struct virtqueue *vq, uint64_t gpa, uint32_t len,
			     struct vring_table *table);
/* Copies entry `index` (below table->count). */
int virtqueue_read_descriptor(struct virtqueue *vq, const struct vring_table *table, uint32_t index,
			      struct vring_descriptor *out);
/* Appends a descriptor's buffer to the chain. */
int virtqueue_add_buffer(struct virtqueue *vq, struct virtqueue_chain *chain, uint64_t gpa,
			 uint32_t len, bool writable);

int virtqueue_packed_start(struct virtqueue *vq, struct error *err);
int virtqueue_packed_pop(struct virtqueue *vq, struct virtqueue_chain *chain);
void virtqueue_packed_unpop(struct virtqueue *vq, const struct virtqueue_chain *chain);
void virtqueue_packed_push(struct virtqueue *vq, const struct virtqueue_chain *chain,
			   uint32_t written);
bool virtqueue_packed_should_signal(struct virtqueue *vq);
void virtqueue_packed_set_notifications(struct virtqueue *vq, bool on);
bool virtqueue_packed_empty(struct virtqueue *vq);

/* The host address of one of the queue's areas; -EINVAL names it. */
int virtqueue_map_area(struct virtqueue *vq, const char *name, uint64_t gpa, uint64_t len,
		       unsigned int align, void **hva, struct error *err);

static inline uint16_t ring_load16(const void *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED));
}

static inline uint16_t ring_load16_acquire(const void *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE));
}

static inline uint32_t ring_load32(const void *p)
{
	return le32toh(__atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED));
}

static inline void ring_store16(void *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, htole16(v), __ATOMIC_RELAXED);
}

static inline void ring_store16_release(void *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, htole16(v), __ATOMIC_RELEASE);
}

static inline void ring_store32(void *p, uint32_t v)
{
	__atomic_store_n((uint32_t *)p, htole32(v), __ATOMIC_RELAXED);
}

/* Orders what we published before what we then read of the other side. */
static inline void ring_fence(void)
{
	__sync_synchronize();
}

#endif
