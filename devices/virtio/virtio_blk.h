/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk (virtio 1.2, 5.2) over a raw file or block device, by io_uring: one
 * ring and one thread per queue.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_BLK_H
#define DEVICES_VIRTIO_VIRTIO_BLK_H

#include "devices/rate_limiter.h"
#include "devices/virtio/virtio_device.h"

struct virtio_blk_options {
	const char *path;
	bool readonly;
	bool direct;		 /* O_DIRECT */
	const char *serial;	 /* up to 20 bytes; NULL: none */
	unsigned int queues;	 /* 1-16 */
	unsigned int queue_size; /* power of two up to VIRTQUEUE_SIZE_MAX */
	bool disable_io_uring;	 /* plain preadv/pwritev instead */
	bool unlocked;		 /* do not lock it: virtio_blk_take_lock() does, later */
	bool discard;		 /* offer DISCARD and WRITE_ZEROES (off for read-only) */
	struct rate_limiter_options rate_limit;
};

/* Opens and locks the file (open file description lock: exclusive, or shared where
 * read-only); -EBUSY names the file where another holds it; a size that is no
 * multiple of 512 is rounded down with a warning; an empty disk is refused. */
struct virtio_device *virtio_blk_new(struct device_host *host, const char *id,
				     const struct virtio_blk_options *options, struct error *err);
/* The file has a new size: tell the guest. Control plane. */
int virtio_blk_resize(struct virtio_device *dev, struct error *err);

/*
 * The lock of the file, which moves with the VM: given up on one side (paused, nothing
 * in flight) before it is taken on the other, or taken again. Taking what is held and
 * giving up what is not is 0. -EBUSY names the holder. Control plane.
 */
int virtio_blk_release_lock(struct virtio_device *dev, struct error *err);
int virtio_blk_take_lock(struct virtio_device *dev, struct error *err);

#endif
