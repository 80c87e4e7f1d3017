/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One io_thread that serves all queues of a small device, from activate (or
 * resume) to deactivate (or pause): an idle or unused device has no thread.
 */
#ifndef DEVICES_VIRTIO_QUEUE_THREAD_H
#define DEVICES_VIRTIO_QUEUE_THREAD_H

#include "devices/virtio/virtio_device.h"

#define QUEUE_THREAD_QUEUES 8

struct queue_thread;

struct queue_thread_ops {
	/* In the thread: first of all, and last (after the queues' last service).
	 * May be NULL. */
	void (*started)(struct virtio_device *dev, struct loop *loop);
	void (*stopping)(struct virtio_device *dev);
	/* The queue was kicked (or the thread started). Returns true to be called
	 * again soon: a queue kept full must not keep the others waiting. */
	bool (*serve)(struct virtio_device *dev, unsigned int queue);
};

struct queue_thread {
	const struct queue_thread_ops *ops;
	struct virtio_device *dev;
	struct io_thread *thread;
	struct error *start_error;
	int start_result;
	struct queue_thread_slot {
		struct queue_thread *owner;
		unsigned int queue;
	} slots[QUEUE_THREAD_QUEUES];
};

/* The device has at most QUEUE_THREAD_QUEUES queues. Every queue is served once. */
int queue_thread_start(struct queue_thread *thread, struct virtio_device *dev,
		       const struct queue_thread_ops *ops, struct error *err);
/* Returns when nothing runs any more. */
void queue_thread_stop(struct queue_thread *thread);

/* Pops up to a queue's size of chains and gives each to `handle`, which returns
 * the bytes it wrote, or -EAGAIN to have the chain back later. As `serve`. */
bool queue_thread_drain(struct virtio_device *dev, unsigned int queue,
			struct virtqueue_chain *chain,
			int64_t (*handle)(struct virtio_device *dev, unsigned int queue,
					  struct virtqueue_chain *chain));

#endif
