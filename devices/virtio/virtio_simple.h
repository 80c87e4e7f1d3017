/* SPDX-License-Identifier: Apache-2.0 */
/* The small virtio devices: entropy, console, balloon. */
#ifndef DEVICES_VIRTIO_VIRTIO_SIMPLE_H
#define DEVICES_VIRTIO_VIRTIO_SIMPLE_H

#include "devices/virtio/virtio_device.h"

/* Entropy (virtio 1.2, 5.4) from `source`, e.g. /dev/urandom (NULL). */
struct virtio_device *virtio_rng_new(struct device_host *host, const char *id, const char *source,
				     struct error *err);

/*
 * Console (5.3), one port, with VIRTIO_CONSOLE_F_SIZE. Reads in_fd and writes
 * out_fd (either -1: none); both stay the caller's and outlive the device. Output
 * to a slow reader is dropped after a bounded buffer, never blocks the guest.
 * Terminals and pipes are opened again (a shell may share ours), anything else is
 * set non-blocking until the device is freed.
 */
struct virtio_device *virtio_console_new(struct device_host *host, const char *id, int in_fd,
					 int out_fd, struct error *err);
/* Reads the terminal's size anew (it was resized) and tells the guest. Control plane. */
void virtio_console_resized(struct virtio_device *dev);

/* Balloon (5.5) with deflate-on-oom and free-page reporting as asked. */
struct virtio_device *virtio_balloon_new(struct device_host *host, const char *id, uint64_t size,
					 bool deflate_on_oom, bool free_page_reporting,
					 struct error *err);
/* The size wanted of it, bytes (a multiple of 4096). Control plane. */
int virtio_balloon_resize(struct virtio_device *dev, uint64_t size, struct error *err);
/* What the guest has given up so far, bytes. */
uint64_t virtio_balloon_actual(const struct virtio_device *dev);

#endif
