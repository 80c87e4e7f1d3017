/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap device (kernel: Documentation/networking/tuntap.rst): an Ethernet
 * interface whose frames are read and written through file descriptors, one per
 * queue. Frames carry the 12-byte virtio-net header in front.
 *
 * Everything asked of the kernel goes through one table, so that tests can stand
 * in for it. Private to virtio-net; calls come from whoever owns the tap, one at
 * a time, except that each queue's fd is attached and detached by the control
 * queue's thread.
 */
#ifndef DEVICES_VIRTIO_TAP_H
#define DEVICES_VIRTIO_TAP_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define TAP_QUEUES_MAX 32
#define TAP_HEADER_SIZE 12

/* open(2), socket(2) and ioctl(2): a descriptor or 0, or -errno. */
struct tap_ops {
	int (*open)(void *opaque, const char *path);
	int (*socket)(void *opaque, int domain);
	int (*ioctl)(void *opaque, int fd, unsigned long request, void *arg);
	void *opaque;
};

/* The kernel's. */
extern const struct tap_ops tap_kernel_ops;

struct tap_options {
	const char *name;      /* NULL: the kernel chooses */
	unsigned int queues;   /* 1-TAP_QUEUES_MAX */
	const char *ip, *mask; /* IPv4; NULL: left alone */
	uint16_t mtu;	       /* 0: left alone */
};

struct tap {
	const struct tap_ops *ops;
	char name[IFNAMSIZ];
	unsigned int queues;
	int fds[TAP_QUEUES_MAX];
	bool created; /* not there before: it goes away with its last fd */
	bool multi_queue;
};

/* Attaches to the tap of that name, or makes it; brings up one it made. -EBUSY in
 * use, -EPERM no right to it: the message says what would help. */
int tap_open(struct tap *tap, const struct tap_ops *ops, const struct tap_options *options,
	     struct error *err);
/* Takes over descriptors of a tap the caller opened and set up (on success). */
int tap_adopt(struct tap *tap, const struct tap_ops *ops, const int *fds, unsigned int count,
	      struct error *err);
void tap_close(struct tap *tap);

/* TUN_F_* bits: what frames handed to the guest may leave to it. */
int tap_set_offload(const struct tap *tap, unsigned int offloads);
/* A detached queue gets no frames and takes none. */
int tap_attach_queue(const struct tap *tap, unsigned int queue, bool attach);

#endif
