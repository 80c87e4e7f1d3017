/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net (virtio 1.2, 5.1) over a tap device: multi-queue, checksum and
 * segmentation offloads, in the kernel by vhost-net where asked and there.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_NET_H
#define DEVICES_VIRTIO_VIRTIO_NET_H

#include "devices/rate_limiter.h"
#include "devices/virtio/virtio_device.h"

struct virtio_net_options {
	const char *tap; /* name, made where there is none; NULL: the kernel chooses one */
	const int *fds;	 /* tap fds opened by the caller, one per queue pair, or NULL;
			  * taken over on success */
	unsigned int fd_count;
	uint8_t mac[6];		  /* all zero: a random local one is made */
	const char *ip, *mask;	  /* IPv4, for the host's end; NULL: leave it alone */
	uint16_t mtu;		  /* 0: unset */
	unsigned int queue_pairs; /* 1-32 */
	unsigned int queue_size;
	bool vhost; /* use /dev/vhost-net where the host has it and no rate is limited;
		     * else, with a log line, the queues are served here */
	bool offload_tso, offload_ufo, offload_csum; /* the first two need the last */
	struct rate_limiter_options rate_limit;	     /* of each direction, over all queues */
};

/* -EBUSY a tap in use, named; -EPERM no right to make one, with the remedy. A tap made
 * here is brought up, and goes away with the device. */
struct virtio_device *virtio_net_new(struct device_host *host, const char *id,
				     const struct virtio_net_options *options, struct error *err);
/* The MAC in use. */
void virtio_net_mac(const struct virtio_device *dev, uint8_t mac[6]);
/* The tap's name. */
const char *virtio_net_tap(const struct virtio_device *dev);
/*
 * The VM runs here since now: RARP frames of its MAC go out on the tap (a few, within
 * half a second), so that switches learn where it is, and a driver that can
 * (VIRTIO_NET_F_GUEST_ANNOUNCE) is asked to announce itself. Nothing where the device
 * is paused or has no driver. Control plane.
 */
void virtio_net_announce(struct virtio_device *dev);

#endif
