/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/virtqueue.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/virtio/virtqueue_ring.h"

/* Of the split ring's driver ("available") and device ("used") areas. */
enum {
	AVAIL_FLAGS = 0,
	AVAIL_IDX = 2,
	AVAIL_RING = 4,
	USED_FLAGS = 0,
	USED_IDX = 2,
	USED_RING = 4,
};

/* No chain carries more, virtio 1.2, 2.7.4.1. */
#define CHAIN_BYTES_MAX (1ULL << 32)

static uint8_t *avail_entry(const struct virtqueue *vq, uint16_t index)
{
	return (uint8_t *)vq->driver_hva + AVAIL_RING + 2 * (size_t)(index & (vq->size - 1));
}

static uint8_t *used_event(const struct virtqueue *vq)
{
	return (uint8_t *)vq->driver_hva + AVAIL_RING + 2 * (size_t)vq->size;
}

static uint8_t *avail_event(const struct virtqueue *vq)
{
	return (uint8_t *)vq->device_hva + USED_RING + 8 * (size_t)vq->size;
}

static void mark_device_area(struct virtqueue *vq, const void *p, uint64_t len)
{
	uint64_t offset = (uint64_t)((const uint8_t *)p - (const uint8_t *)vq->device_hva);

	guest_memory_mark_dirty(vq->memory, vq->device + offset, len);
}

int virtqueue_break(struct virtqueue *vq, const char *fault)
{
	vq->broken = true;
	vq->fault = fault;
	return -EBADMSG;
}

int virtqueue_map_area(struct virtqueue *vq, const char *name, uint64_t gpa, uint64_t len,
		       unsigned int align, void **hva, struct error *err)
{
	if (gpa & (align - 1))
		return error_set(err, EINVAL,
				 "start virtqueue: %s at 0x%" PRIx64 " is not aligned to %u bytes",
				 name, gpa, align);
	*hva = guest_memory_ptr(vq->memory, gpa, len);
	if (!*hva)
		return error_set(err, EINVAL,
				 "start virtqueue: %s at 0x%" PRIx64 ", %" PRIu64
				 " bytes, is not within one region of RAM",
				 name, gpa, len);
	return 0;
}

static int split_start(struct virtqueue *vq, struct error *err)
{
	uint64_t n = vq->size;
	int r;

	if (!is_power_of_2(n))
		return error_set(err, EINVAL, "start virtqueue: size %u is not a power of two",
				 vq->size);
	r = virtqueue_map_area(vq, "descriptor table", vq->desc, 16 * n, 16, &vq->desc_hva, err);
	if (!r)
		r = virtqueue_map_area(vq, "available ring", vq->driver, 6 + 2 * n, 2,
				       &vq->driver_hva, err);
	if (!r)
		r = virtqueue_map_area(vq, "used ring", vq->device, 6 + 8 * n, 4, &vq->device_hva,
				       err);
	if (r)
		return r;
	vq->last_avail = vq->last_used = vq->signalled_used = 0;
	return 0;
}

int virtqueue_start(struct virtqueue *vq, struct error *err)
{
	int r;

	vq->ready = vq->broken = false;
	vq->fault = NULL;
	if (!vq->size || vq->size > vq->size_max || vq->size > VIRTQUEUE_SIZE_MAX)
		return error_set(err, EINVAL, "start virtqueue: size %u is not in 1-%u", vq->size,
				 MIN(vq->size_max, VIRTQUEUE_SIZE_MAX));
	r = vq->packed ? virtqueue_packed_start(vq, err) : split_start(vq, err);
	if (r)
		return r;
	vq->signalled_valid = true;
	vq->notifications = true;
	vq->in_flight = 0;
	vq->ready = true;
	return 0;
}

void virtqueue_reset(struct virtqueue *vq)
{
	*vq = (struct virtqueue){ .memory = vq->memory, .size_max = vq->size_max };
}

int virtqueue_indirect_table(struct virtqueue *vq, uint64_t gpa, uint32_t len,
			     struct vring_table *table)
{
	if (!vq->indirect)
		return virtqueue_break(vq, "indirect descriptor without VIRTIO_F_INDIRECT_DESC");
	if (!len || len % 16)
		return virtqueue_break(vq, "indirect table whose length is no multiple of 16");
	table->hva = guest_memory_ptr(vq->memory, gpa, len);
	table->gpa = gpa;
	table->count = len / 16;
	return 0;
}

int virtqueue_read_descriptor(struct virtqueue *vq, const struct vring_table *table, uint32_t index,
			      struct vring_descriptor *out)
{
	struct vring_descriptor d;

	if (table->hva)
		memcpy(&d, table->hva + 16 * (size_t)index, sizeof(d));
	else if (guest_memory_read(vq->memory, table->gpa + 16 * (uint64_t)index, &d, sizeof(d)))
		return virtqueue_break(vq, "indirect table outside RAM");
	/* The compiler must not go back to guest memory for a field. */
	__asm__ volatile("" : "+m"(d));
	out->addr = le64toh(d.addr);
	out->len = le32toh(d.len);
	out->a = le16toh(d.a);
	out->b = le16toh(d.b);
	return 0;
}

int virtqueue_add_buffer(struct virtqueue *vq, struct virtqueue_chain *chain, uint64_t gpa,
			 uint32_t len, bool writable)
{
	unsigned int first = chain->readable + chain->writable, count = first;

	if (writable)
		chain->writable_len += len;
	else if (chain->writable_len || chain->writable)
		return virtqueue_break(vq, "device-readable buffer after a device-writable one");
	else
		chain->readable_len += len;
	if (chain->readable_len + chain->writable_len > CHAIN_BYTES_MAX)
		return virtqueue_break(vq, "chain longer than 4 GiB");
	if (!len)
		return 0;
	switch (guest_memory_iov(vq->memory, gpa, len, chain->iov, &count, chain->iov_max)) {
	case 0: break;
	case -E2BIG: return virtqueue_break(vq, "chain of more buffers than the device takes");
	default: return virtqueue_break(vq, "buffer outside RAM");
	}
	for (unsigned int i = first; chain->gpa && i < count; i++) {
		chain->gpa[i] = gpa;
		gpa += chain->iov[i].iov_len;
	}
	if (writable)
		chain->writable += count - first;
	else
		chain->readable += count - first;
	return 0;
}

static int split_walk(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	struct vring_table table = { .hva = vq->desc_hva, .gpa = vq->desc, .count = vq->size };
	struct vring_descriptor d;
	unsigned int left = vq->size;
	uint32_t next = chain->head;
	bool in_table = false;

	for (;;) {
		uint16_t flags;

		if (next >= table.count)
			return virtqueue_break(vq, "descriptor index out of range");
		if (virtqueue_read_descriptor(vq, &table, next, &d))
			return -EBADMSG;
		flags = d.a;
		if (flags & VRING_DESC_F_INDIRECT) {
			if (in_table)
				return virtqueue_break(vq, "indirect table within an indirect one");
			if (flags & VRING_DESC_F_NEXT)
				return virtqueue_break(vq, "indirect descriptor with a next one");
			if (virtqueue_indirect_table(vq, d.addr, d.len, &table))
				return -EBADMSG;
			in_table = true;
			next = 0;
			continue;
		}
		if (!left--)
			return virtqueue_break(vq, "chain longer than the queue (a loop?)");
		if (virtqueue_add_buffer(vq, chain, d.addr, d.len, flags & VRING_DESC_F_WRITE))
			return -EBADMSG;
		if (!(flags & VRING_DESC_F_NEXT))
			return 0;
		next = d.b;
	}
}

static bool split_empty(struct virtqueue *vq)
{
	return ring_load16_acquire((uint8_t *)vq->driver_hva + AVAIL_IDX) == vq->last_avail;
}

static void split_set_avail_event(struct virtqueue *vq)
{
	ring_store16(avail_event(vq), vq->last_avail);
	mark_device_area(vq, avail_event(vq), 2);
	ring_fence();
}

static int split_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	const uint8_t *idx = (uint8_t *)vq->driver_hva + AVAIL_IDX;
	uint16_t available = (uint16_t)(ring_load16_acquire(idx) - vq->last_avail);

	/* A device that leaves notifications on gets the next kick too. */
	if (!available && vq->event_idx && vq->notifications &&
	    ring_load16(avail_event(vq)) != vq->last_avail) {
		split_set_avail_event(vq);
		available = (uint16_t)(ring_load16_acquire(idx) - vq->last_avail);
	}
	if (!available)
		return 0;
	if (available > vq->size)
		return virtqueue_break(vq, "available index ahead by more than the queue's size");
	if (vq->in_flight >= vq->size)
		return virtqueue_break(vq, "more chains than descriptors");
	chain->head = ring_load16(avail_entry(vq, vq->last_avail));
	chain->count = 1;
	if (split_walk(vq, chain))
		return -EBADMSG;
	vq->last_avail++;
	vq->in_flight++;
	return 1;
}

static void split_push(struct virtqueue *vq, const struct virtqueue_chain *chain, uint32_t written)
{
	uint8_t *idx = (uint8_t *)vq->device_hva + USED_IDX;
	uint8_t *entry = (uint8_t *)vq->device_hva + USED_RING +
			 8 * (size_t)(vq->last_used & (vq->size - 1));

	ring_store32(entry, chain->head);
	ring_store32(entry + 4, written);
	ring_store16_release(idx, ++vq->last_used);
	mark_device_area(vq, entry, 8);
	mark_device_area(vq, idx, 2);
	/* A whole turn without a look: the distance says nothing any more. */
	if (vq->last_used == vq->signalled_used)
		vq->signalled_valid = false;
	if (vq->in_flight)
		vq->in_flight--;
}

static bool split_should_signal(struct virtqueue *vq)
{
	uint16_t old = vq->signalled_used, new = vq->last_used;
	bool valid = vq->signalled_valid;

	if (valid && old == new)
		return false;
	vq->signalled_used = new;
	vq->signalled_valid = true;
	ring_fence();
	if (!vq->event_idx)
		return !(ring_load16((uint8_t *)vq->driver_hva + AVAIL_FLAGS) &
			 VRING_AVAIL_F_NO_INTERRUPT);
	return !valid || vring_need_event(ring_load16(used_event(vq)), new, old);
}

static void split_set_notifications(struct virtqueue *vq, bool on)
{
	/* With event_idx an index left behind keeps the driver quiet. */
	if (vq->event_idx) {
		if (on)
			split_set_avail_event(vq);
		return;
	}
	ring_store16((uint8_t *)vq->device_hva + USED_FLAGS, on ? 0 : VRING_USED_F_NO_NOTIFY);
	mark_device_area(vq, vq->device_hva, 2);
	ring_fence();
}

int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	if (!vq->ready || vq->broken)
		return 0;
	chain->readable = chain->writable = 0;
	chain->readable_len = chain->writable_len = 0;
	return vq->packed ? virtqueue_packed_pop(vq, chain) : split_pop(vq, chain);
}

void virtqueue_unpop(struct virtqueue *vq, const struct virtqueue_chain *chain)
{
	if (!vq->ready || vq->broken || !vq->in_flight)
		return;
	if (vq->packed) {
		virtqueue_packed_unpop(vq, chain);
		return;
	}
	vq->last_avail--;
	vq->in_flight--;
}

static void mark_written(struct virtqueue *vq, const struct virtqueue_chain *chain,
			 uint64_t written)
{
	unsigned int end = chain->readable + chain->writable;

	for (unsigned int i = chain->readable; i < end && written; i++) {
		uint64_t len = MIN(written, (uint64_t)chain->iov[i].iov_len);

		guest_memory_mark_dirty(vq->memory, chain->gpa[i], len);
		written -= len;
	}
}

void virtqueue_push(struct virtqueue *vq, const struct virtqueue_chain *chain, uint32_t written)
{
	if (chain->gpa)
		mark_written(vq, chain, written);
	if (!vq->ready || vq->broken)
		return;
	if (vq->packed)
		virtqueue_packed_push(vq, chain, written);
	else
		split_push(vq, chain, written);
}

bool virtqueue_should_signal(struct virtqueue *vq)
{
	if (!vq->ready || vq->broken)
		return false;
	return vq->packed ? virtqueue_packed_should_signal(vq) : split_should_signal(vq);
}

bool virtqueue_set_notifications(struct virtqueue *vq, bool on)
{
	if (!vq->ready || vq->broken)
		return false;
	vq->notifications = on;
	if (vq->packed)
		virtqueue_packed_set_notifications(vq, on);
	else
		split_set_notifications(vq, on);
	return on && !virtqueue_empty(vq);
}

bool virtqueue_empty(struct virtqueue *vq)
{
	if (!vq->ready || vq->broken)
		return true;
	return vq->packed ? virtqueue_packed_empty(vq) : split_empty(vq);
}

static size_t copy(const struct iovec *iov, unsigned int n, size_t offset, void *buf, size_t len,
		   bool to_chain)
{
	size_t done = 0;

	for (unsigned int i = 0; i < n && done < len; i++) {
		size_t part;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		part = MIN(iov[i].iov_len - offset, len - done);
		if (to_chain)
			memcpy((uint8_t *)iov[i].iov_base + offset, (uint8_t *)buf + done, part);
		else
			memcpy((uint8_t *)buf + done, (uint8_t *)iov[i].iov_base + offset, part);
		done += part;
		offset = 0;
	}
	return done;
}

size_t virtqueue_chain_read(const struct virtqueue_chain *chain, size_t offset, void *buf,
			    size_t len)
{
	return copy(chain->iov, chain->readable, offset, buf, len, false);
}

size_t virtqueue_chain_write(const struct virtqueue_chain *chain, size_t offset, const void *buf,
			     size_t len)
{
	return copy(chain->iov + chain->readable, chain->writable, offset, (void *)buf, len, true);
}
