/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event queue (virtio 1.2, 5.10.6.7). There is one event: the transport was reset,
 * after which the driver ends its connections and reads its CID anew. It is due when a
 * guest goes on elsewhere than where it connected from.
 */
#include <sys/epoll.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/virtio/virtio_vsock_priv.h"

int vsock_save(uint64_t cid, struct state_writer *writer)
{
	state_put_u64(writer, "cid", cid);
	return 0;
}

/* A clone has a CID of its own: that of the state says nothing about ours. */
int vsock_load(struct vsock_event *event, const struct state_node *node, struct error *err)
{
	uint64_t cid;
	int r = state_get_range(node, "cid", VSOCK_CID_MIN, VSOCK_CID_MAX, &cid, err);

	event->wanted = !r;
	return r;
}

/* False where the driver has no buffer for it now. */
static bool deliver(struct vsock_event *event)
{
	struct virtqueue *vq = &event->dev->queues[VSOCK_EVENT];
	struct virtqueue_chain chain = {
		.iov = event->iov,
		.gpa = event->gpa,
		.iov_max = ARRAY_SIZE(event->iov),
	};
	uint8_t raw[sizeof(struct virtio_vsock_event)];
	int r;

	do
		r = virtqueue_pop(vq, &chain);
	while (!r && virtqueue_set_notifications(vq, true));
	if (r < 0)
		virtio_device_needs_reset(event->dev, vq->fault);
	if (r <= 0)
		return r < 0;
	store_le32(raw, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	virtqueue_push(vq, &chain, (uint32_t)virtqueue_chain_write(&chain, 0, raw, sizeof(raw)));
	if (virtqueue_should_signal(vq))
		virtio_device_signal(event->dev, VSOCK_EVENT);
	return true;
}

static void kicked(void *opaque, int fd, uint32_t events)
{
	struct vsock_event *event = opaque;

	eventfd_drain(fd);
	if (!deliver(event))
		return;
	event->wanted = false;
	vsock_event_stop(event);
}

void vsock_event_start(struct vsock_event *event, struct virtio_device *dev, struct loop *loop)
{
	struct error err = ERROR_INIT;

	event->dev = dev;
	if (!event->wanted || !dev->queues[VSOCK_EVENT].ready)
		return;
	if (deliver(event)) {
		event->wanted = false;
		return;
	}
	event->kick = loop_add(loop, dev->kick_fd[VSOCK_EVENT], EPOLLIN, kicked, event, &err);
	if (!event->kick)
		log_error(dev->host->log, dev->id, &err);
}

void vsock_event_stop(struct vsock_event *event)
{
	loop_remove(event->kick);
	event->kick = NULL;
}
