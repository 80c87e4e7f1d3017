/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/virtqueue_batch.h"

#include "base/bytes.h"
#include "devices/virtio/virtqueue_ring.h"

/*
 * Only what becomes visible first matters: a split ring's driver reads entries up
 * to the used index, a packed ring's goes from descriptor to descriptor. So a
 * split ring is filled without its index, a packed one from the second chain on,
 * and the last, or first, chain is pushed the ordinary way, which publishes all.
 */

static void mark_written(struct virtqueue *vq, const struct virtqueue_chain *chain,
			 uint64_t written)
{
	unsigned int end = chain->readable + chain->writable;

	for (unsigned int i = chain->readable; chain->gpa && i < end && written; i++) {
		uint64_t len = MIN(written, (uint64_t)chain->iov[i].iov_len);

		guest_memory_mark_dirty(vq->memory, chain->gpa[i], len);
		written -= len;
	}
}

static void split_fill(struct virtqueue *vq, const struct virtqueue_chain *chain, uint32_t written)
{
	uint64_t offset = 4 + 8 * (uint64_t)(vq->last_used & (vq->size - 1));
	uint8_t *entry = (uint8_t *)vq->device_hva + offset;

	ring_store32(entry, chain->head);
	ring_store32(entry + 4, written);
	guest_memory_mark_dirty(vq->memory, vq->device + offset, 8);
	vq->last_used++;
	if (vq->last_used == vq->signalled_used)
		vq->signalled_valid = false;
	if (vq->in_flight)
		vq->in_flight--;
}

static void split_push(struct virtqueue *vq, const struct virtqueue_chain *chains,
		       unsigned int count, uint64_t total)
{
	for (unsigned int i = 0; i + 1 < count; i++) {
		uint64_t written = MIN(total, chains[i].writable_len);

		mark_written(vq, &chains[i], written);
		split_fill(vq, &chains[i], (uint32_t)written);
		total -= written;
	}
	virtqueue_push(vq, &chains[count - 1],
		       (uint32_t)MIN(total, chains[count - 1].writable_len));
}

#define WRAP 0x8000

static uint16_t packed_forward(const struct virtqueue *vq, uint16_t position, unsigned int count)
{
	unsigned int index = (position & ~WRAP) + count, wrap = position & WRAP;

	if (index >= vq->size) {
		index -= vq->size;
		wrap ^= WRAP;
	}
	return (uint16_t)(index | wrap);
}

static void packed_push(struct virtqueue *vq, const struct virtqueue_chain *chains,
			unsigned int count, uint64_t total)
{
	uint64_t first_written = MIN(total, chains[0].writable_len);
	uint16_t start = vq->last_used, end;

	vq->last_used = packed_forward(vq, start, chains[0].count);
	total -= first_written;
	for (unsigned int i = 1; i < count; i++) {
		uint64_t written = MIN(total, chains[i].writable_len);

		virtqueue_push(vq, &chains[i], (uint32_t)written);
		total -= written;
	}
	end = vq->last_used;
	vq->last_used = start;
	virtqueue_push(vq, &chains[0], (uint32_t)first_written);
	vq->last_used = end;
}

void virtqueue_push_merged(struct virtqueue *vq, const struct virtqueue_chain *chains,
			   unsigned int count, uint64_t total)
{
	if (count == 1)
		virtqueue_push(vq, chains, (uint32_t)MIN(total, chains[0].writable_len));
	else if (count && vq->ready && !vq->broken && vq->packed)
		packed_push(vq, chains, count, total);
	else if (count && vq->ready && !vq->broken)
		split_push(vq, chains, count, total);
}
