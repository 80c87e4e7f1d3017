/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed rings (virtio 1.2, 2.8). Positions are an index with the wrap counter in
 * bit 15, as the ring itself writes them in its event structures.
 */
#include <errno.h>

#include "base/bytes.h"
#include "devices/virtio/virtqueue_ring.h"

#define WRAP 0x8000
#define DESC_AVAIL (1 << VRING_PACKED_DESC_F_AVAIL)
#define DESC_USED (1 << VRING_PACKED_DESC_F_USED)

/* Offsets in a descriptor. */
enum { DESC_LEN = 8, DESC_ID = 12, DESC_FLAGS = 14 };

static uint8_t *descriptor(const struct virtqueue *vq, uint16_t position)
{
	return (uint8_t *)vq->desc_hva + 16 * (size_t)(position & ~WRAP);
}

static uint16_t forward(const struct virtqueue *vq, uint16_t position, unsigned int count)
{
	unsigned int index = (position & ~WRAP) + count, wrap = position & WRAP;

	if (index >= vq->size) {
		index -= vq->size;
		wrap ^= WRAP;
	}
	return (uint16_t)(index | wrap);
}

/* How far `to` lies after `from`, in [0, 2 * size): the ring with both wraps. */
static unsigned int distance(const struct virtqueue *vq, uint16_t from, uint16_t to)
{
	unsigned int turn = 2U * vq->size;
	unsigned int a = (from & ~WRAP) + (from & WRAP ? 0 : vq->size);
	unsigned int b = (to & ~WRAP) + (to & WRAP ? 0 : vq->size);

	return (b + turn - a) % turn;
}

int virtqueue_packed_start(struct virtqueue *vq, struct error *err)
{
	int r;

	r = virtqueue_map_area(vq, "descriptor ring", vq->desc, 16ULL * vq->size, 16, &vq->desc_hva,
			       err);
	if (!r)
		r = virtqueue_map_area(vq, "driver event area", vq->driver, 4, 4, &vq->driver_hva,
				       err);
	if (!r)
		r = virtqueue_map_area(vq, "device event area", vq->device, 4, 4, &vq->device_hva,
				       err);
	if (r)
		return r;
	vq->last_avail = vq->last_used = vq->signalled_used = WRAP;
	return 0;
}

/* The flags of a descriptor the driver made available, or -1. */
static int available_flags(const struct virtqueue *vq)
{
	uint16_t flags = ring_load16_acquire(descriptor(vq, vq->last_avail) + DESC_FLAGS);
	bool wrap = vq->last_avail & WRAP;

	if (!!(flags & DESC_AVAIL) != wrap || !!(flags & DESC_USED) == wrap)
		return -1;
	return flags;
}

bool virtqueue_packed_empty(struct virtqueue *vq)
{
	return available_flags(vq) < 0;
}

/* Every entry of the table, in order; their NEXT bits mean nothing here. */
static int walk_table(struct virtqueue *vq, struct virtqueue_chain *chain,
		      const struct vring_descriptor *indirect, unsigned int left)
{
	struct vring_table table;
	struct vring_descriptor d;

	if (virtqueue_indirect_table(vq, indirect->addr, indirect->len, &table))
		return -EBADMSG;
	if (table.count > left)
		return virtqueue_break(vq, "chain longer than the queue");
	for (uint32_t i = 0; i < table.count; i++) {
		if (virtqueue_read_descriptor(vq, &table, i, &d))
			return -EBADMSG;
		if (d.b & VRING_DESC_F_INDIRECT)
			return virtqueue_break(vq, "indirect table within an indirect one");
		if (virtqueue_add_buffer(vq, chain, d.addr, d.len, d.b & VRING_DESC_F_WRITE))
			return -EBADMSG;
	}
	return 0;
}

static int walk(struct virtqueue *vq, struct virtqueue_chain *chain, uint16_t flags)
{
	const struct vring_table ring = { .hva = vq->desc_hva, .gpa = vq->desc, .count = vq->size };
	uint16_t position = vq->last_avail;
	struct vring_descriptor d;

	for (chain->count = 0;;) {
		if (chain->count + vq->in_flight >= vq->size)
			return virtqueue_break(vq, "chains longer than the queue");
		if (virtqueue_read_descriptor(vq, &ring, position & (uint16_t)~WRAP, &d))
			return -EBADMSG;
		/* The head's flags were read already, and only once. */
		if (chain->count++)
			flags = d.b;
		position = forward(vq, position, 1);
		if (flags & VRING_DESC_F_INDIRECT) {
			if (flags & VRING_DESC_F_NEXT)
				return virtqueue_break(vq, "indirect descriptor with a next one");
			if (walk_table(vq, chain, &d, vq->size - (chain->count - 1U)))
				return -EBADMSG;
			break;
		}
		if (virtqueue_add_buffer(vq, chain, d.addr, d.len, flags & VRING_DESC_F_WRITE))
			return -EBADMSG;
		if (!(flags & VRING_DESC_F_NEXT))
			break;
	}
	/* The last descriptor carries the buffer's id; devices may index by it. */
	if (d.a >= vq->size)
		return virtqueue_break(vq, "buffer id out of range");
	chain->head = d.a;
	return 0;
}

int virtqueue_packed_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	int flags = available_flags(vq);

	if (flags < 0)
		return 0;
	if (walk(vq, chain, (uint16_t)flags))
		return -EBADMSG;
	vq->last_avail = forward(vq, vq->last_avail, chain->count);
	vq->in_flight += chain->count;
	return 1;
}

void virtqueue_packed_unpop(struct virtqueue *vq, const struct virtqueue_chain *chain)
{
	/* size - count steps on is count steps back, but for the wrap counter. */
	vq->last_avail = forward(vq, vq->last_avail, vq->size - chain->count) ^ WRAP;
	vq->in_flight -= MIN(vq->in_flight, (unsigned int)chain->count);
}

void virtqueue_packed_push(struct virtqueue *vq, const struct virtqueue_chain *chain,
			   uint32_t written)
{
	uint8_t *d = descriptor(vq, vq->last_used);
	uint16_t flags = vq->last_used & WRAP ? DESC_AVAIL | DESC_USED : 0;

	if (written)
		flags |= VRING_DESC_F_WRITE;
	ring_store32(d + DESC_LEN, written);
	ring_store16(d + DESC_ID, chain->head);
	ring_store16_release(d + DESC_FLAGS, flags);
	guest_memory_mark_dirty(vq->memory, vq->desc + 16ULL * (vq->last_used & ~WRAP), 16);
	/* Two turns without a look: the distance says nothing any more. */
	if (distance(vq, vq->signalled_used, vq->last_used) + chain->count >= 2U * vq->size)
		vq->signalled_valid = false;
	vq->last_used = forward(vq, vq->last_used, chain->count);
	vq->in_flight -= MIN(vq->in_flight, (unsigned int)chain->count);
}

bool virtqueue_packed_should_signal(struct virtqueue *vq)
{
	uint16_t old = vq->signalled_used, new = vq->last_used;
	bool valid = vq->signalled_valid;
	uint16_t event, flags;
	uint32_t both;

	if (valid && old == new)
		return false;
	vq->signalled_used = new;
	vq->signalled_valid = true;
	ring_fence();
	both = ring_load32(vq->driver_hva);
	event = (uint16_t)both;
	flags = both >> 16 & 3;
	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !vq->event_idx)
		return true;
	if (!valid || (event & ~WRAP) >= vq->size)
		return true;
	return distance(vq, old, event) < distance(vq, old, new);
}

void virtqueue_packed_set_notifications(struct virtqueue *vq, bool on)
{
	uint32_t flags = on ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE;

	ring_store32(vq->device_hva, flags << 16);
	guest_memory_mark_dirty(vq->memory, vq->device, 4);
	ring_fence();
}
