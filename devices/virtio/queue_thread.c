/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/queue_thread.h"

#include <errno.h>
#include <sys/epoll.h>

#include "base/fd.h"

static void serve(struct queue_thread_slot *slot)
{
	struct queue_thread *thread = slot->owner;

	if (thread->ops->serve(thread->dev, slot->queue))
		eventfd_signal(thread->dev->kick_fd[slot->queue]);
}

static void kicked(void *opaque, int fd, uint32_t events)
{
	eventfd_drain(fd);
	serve(opaque);
}

static void start(void *opaque)
{
	struct queue_thread *thread = opaque;
	struct virtio_device *dev = thread->dev;
	struct loop *loop = io_thread_loop(thread->thread);

	for (unsigned int i = 0; i < dev->queue_count; i++) {
		thread->slots[i] = (struct queue_thread_slot){ .owner = thread, .queue = i };
		if (!loop_add(loop, dev->kick_fd[i], EPOLLIN, kicked, &thread->slots[i],
			      thread->start_error)) {
			thread->start_result = -EIO;
			return;
		}
	}
	if (thread->ops->started)
		thread->ops->started(dev, loop);
	for (unsigned int i = 0; i < dev->queue_count; i++)
		serve(&thread->slots[i]);
}

int queue_thread_start(struct queue_thread *thread, struct virtio_device *dev,
		       const struct queue_thread_ops *ops, struct error *err)
{
	if (dev->queue_count > QUEUE_THREAD_QUEUES)
		return error_set(err, EINVAL, "start %s: %u queues are too many", dev->id,
				 dev->queue_count);
	thread->ops = ops;
	thread->dev = dev;
	thread->start_error = err;
	thread->start_result = 0;
	thread->thread = io_thread_new(dev->host->threads, dev->id, err);
	if (!thread->thread)
		return err ? err->code : -EIO;
	loop_call(io_thread_loop(thread->thread), start, thread);
	if (thread->start_result) {
		io_thread_free(thread->thread);
		thread->thread = NULL;
	}
	return thread->start_result;
}

static void stop(void *opaque)
{
	struct queue_thread *thread = opaque;

	thread->ops->stopping(thread->dev);
}

void queue_thread_stop(struct queue_thread *thread)
{
	if (!thread->thread)
		return;
	if (thread->ops->stopping)
		loop_call(io_thread_loop(thread->thread), stop, thread);
	io_thread_free(thread->thread);
	thread->thread = NULL;
}

bool queue_thread_drain(struct virtio_device *dev, unsigned int queue,
			struct virtqueue_chain *chain,
			int64_t (*handle)(struct virtio_device *dev, unsigned int queue,
					  struct virtqueue_chain *chain))
{
	struct virtqueue *vq = &dev->queues[queue];
	unsigned int left = vq->size;
	int r = 0;

	while (left && (r = virtqueue_pop(vq, chain)) == 1) {
		int64_t written = handle(dev, queue, chain);

		if (written < 0) {
			virtqueue_unpop(vq, chain);
			break;
		}
		virtqueue_push(vq, chain, (uint32_t)written);
		left--;
	}
	if (virtqueue_should_signal(vq))
		virtio_device_signal(dev, queue);
	if (r == -EBADMSG)
		virtio_device_needs_reset(dev, vq->fault);
	return vq->ready && !left;
}
