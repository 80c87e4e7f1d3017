/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtqueues: split rings (virtio 1.2, 2.7) and packed rings (2.8), with indirect
 * descriptors and event suppression (2.7.10, 2.8.10).
 *
 * A queue is set up by the transport when the driver enables it, and used by one
 * thread at a time from then on: the device's. Rings and descriptors are hostile:
 * a loop, an address that is not RAM, a chain longer than the queue, a ring
 * outside RAM breaks the queue (virtqueue_pop returns -EBADMSG once and the queue
 * stays broken until reset); the device then sets DEVICE_NEEDS_RESET. Nothing
 * else of the VM is affected.
 *
 * Each ring field the guest can change is read once.
 */
#ifndef DEVICES_VIRTIO_VIRTQUEUE_H
#define DEVICES_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/state_tree.h"
#include "memory/guest_memory.h"

#define VIRTQUEUE_SIZE_MAX 1024
/* Host ranges of one chain: a descriptor can cross a region border. */
#define VIRTQUEUE_IOV_MAX (VIRTQUEUE_SIZE_MAX + 2)

struct virtqueue {
	/* Set by the transport before virtqueue_start(). */
	struct guest_memory *memory;
	uint16_t size_max;		  /* what the device offers */
	uint16_t size;			  /* what the driver chose */
	uint64_t desc, driver, device;	  /* gpa of the three areas */
	bool packed, event_idx, indirect; /* negotiated */
	bool in_order;

	/* The rest is the queue's own. */
	bool ready, broken;
	const char *fault; /* what broke it, for virtio_device_needs_reset() */
	void *desc_hva, *driver_hva, *device_hva;
	uint16_t last_avail, last_used; /* free-running; packed: index with wrap bit 15 */
	uint16_t signalled_used;
	bool signalled_valid;
	bool notifications; /* asked of the driver */
	unsigned int in_flight;
};

/* One chain of descriptors. The device-readable part comes first. Its ranges are
 * in iov[0, readable) and iov[readable, readable + writable). */
struct virtqueue_chain {
	uint16_t head;			     /* id for virtqueue_push */
	uint16_t count;			     /* descriptors used (packed ring) */
	unsigned int readable, writable;     /* ranges */
	uint64_t readable_len, writable_len; /* bytes */
	struct iovec *iov;		     /* caller's array... */
	uint64_t *gpa;			     /* ...and the gpa of each range (NULL: not wanted) */
	unsigned int iov_max;
};

/* Validates sizes, alignment and addresses of the rings; -EINVAL names which. */
int virtqueue_start(struct virtqueue *vq, struct error *err);
/* Back to unconfigured; size_max and memory are kept. */
void virtqueue_reset(struct virtqueue *vq);

/* The next chain: 1 with *chain filled, 0 none, -EBADMSG the queue is broken. */
int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);
/* Gives back the chain popped last, as if never popped. */
void virtqueue_unpop(struct virtqueue *vq, const struct virtqueue_chain *chain);
/* Returns a chain, `written` bytes of it written by the device. Marks the ring
 * and the written ranges dirty (chain->gpa set) or the ring only. */
void virtqueue_push(struct virtqueue *vq, const struct virtqueue_chain *chain, uint32_t written);
/* Whether the driver wants an interrupt for what was pushed since the last call. */
bool virtqueue_should_signal(struct virtqueue *vq);
/* Asks the driver to kick, or not to. After enabling, returns true where chains
 * became available meanwhile: pop again. */
bool virtqueue_set_notifications(struct virtqueue *vq, bool on);
/* Chains available now? */
bool virtqueue_empty(struct virtqueue *vq);

/* The queue's own part of its state: properties of the node begun. -EBUSY where chains
 * are in flight, unless the queue is broken. */
int virtqueue_save(const struct virtqueue *vq, struct state_writer *writer, struct error *err);
/* Reads them; a started queue goes on from there. */
int virtqueue_load(struct virtqueue *vq, const struct state_node *node, struct error *err);

/* Copies between a chain's part and a buffer, from `offset` bytes in; returns the
 * bytes copied. */
size_t virtqueue_chain_read(const struct virtqueue_chain *chain, size_t offset, void *buf,
			    size_t len);
size_t virtqueue_chain_write(const struct virtqueue_chain *chain, size_t offset, const void *buf,
			     size_t len);

#endif
