/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several chains returned at once: a driver that looks meanwhile sees none of
 * them or all. A received frame spread over merged buffers needs this (virtio
 * 1.2, 5.1.6.4): a driver that finds the first buffer counts on the others.
 */
#ifndef DEVICES_VIRTIO_VIRTQUEUE_BATCH_H
#define DEVICES_VIRTIO_VIRTQUEUE_BATCH_H

#include "devices/virtio/virtqueue.h"

/* Returns chains[0...count) in that order, `total` bytes written into them one
 * after the other. As virtqueue_push otherwise. */
void virtqueue_push_merged(struct virtqueue *vq, const struct virtqueue_chain *chains,
			   unsigned int count, uint64_t total);

#endif
