/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost: queues served by the host's kernel (linux/vhost.h), for virtio-net and
 * virtio-vsock. The kernel polls the device's kick eventfds, reads and writes
 * guest memory through our mappings, and signals the queues' interrupt eventfds.
 *
 * A vhost is opened once (its owner is this process), then started and stopped
 * with the device. Between start and stop the kernel owns the queues' positions;
 * vhost_stop() fetches them back, so that a paused, saved or migrated device goes
 * on where it was.
 *
 * ioctls go through one table, so that tests can stand in for the kernel. All
 * calls come from one thread at a time.
 */
#ifndef DEVICES_VIRTIO_VHOST_H
#define DEVICES_VIRTIO_VHOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "devices/virtio/virtio_device.h"

#define VHOST_NET_PATH "/dev/vhost-net"
#define VHOST_VSOCK_PATH "/dev/vhost-vsock"
#define VHOST_RINGS_MAX 2U

/* open(2) and ioctl(2): a descriptor or 0, or -errno. */
struct vhost_ops {
	int (*open)(void *opaque, const char *path);
	int (*ioctl)(void *opaque, int fd, unsigned long request, void *arg);
	void *opaque;
};

/* The kernel's. */
extern const struct vhost_ops vhost_kernel_ops;

/* An interrupt the transport gives no eventfd for: ours, relayed by a loop. */
struct vhost_relay {
	struct virtio_device *dev;
	unsigned int queue;
	int fd;
	struct loop_source *source;
};

struct vhost {
	const struct vhost_ops *ops;
	int fd;			     /* -1: not open */
	uint64_t features;	     /* what the kernel offers */
	unsigned int rings, started; /* started: how many have been given to the kernel */
	unsigned int first_queue;
	struct virtio_device *dev;
	struct vhost_relay relays[VHOST_RINGS_MAX];
	void *log; /* of pages written, a bit each from gpa 0 on; NULL: none is kept */
};

#define VHOST_INIT \
	{ \
		.fd = -1 \
	}

/* Opens path and makes us its owner. -ENOENT and the like where the host has none. */
int vhost_open(struct vhost *vhost, const struct vhost_ops *ops, const char *path,
	       unsigned int rings, struct error *err);
void vhost_close(struct vhost *vhost);

/* Ring features of the transport that this kernel cannot serve. */
uint64_t vhost_unsupported_features(const struct vhost *vhost);

/*
 * Hands over dev->queues[first...first + rings), which must be ready: features,
 * memory, rings, kicks and calls. `loop` relays interrupts of queues that have no
 * eventfd of their own. The backend is set separately, last. Undone on failure.
 */
int vhost_start(struct vhost *vhost, struct virtio_device *dev, unsigned int first,
		struct loop *loop, struct error *err);
/* Takes the queues back with the positions they reached; the backend must have
 * been taken away. In the loop's thread, or while it does not run. */
void vhost_stop(struct vhost *vhost);

/*
 * The kernel notes each page it writes in `log`, zeroed memory of a bit for each 4 KiB
 * from gpa 0 to the end of RAM, from now on and over stop and start; NULL: no more. In
 * the loop's thread. -EOPNOTSUPP where the kernel cannot; undone on failure.
 */
int vhost_set_log(struct vhost *vhost, void *log, struct error *err);

/* Backends. fd -1 takes it away, and returns when the ring is idle. */
int vhost_net_set_backend(const struct vhost *vhost, unsigned int ring, int fd);
int vhost_vsock_set_cid(const struct vhost *vhost, uint64_t cid);
int vhost_vsock_set_running(const struct vhost *vhost, bool running);

#endif
