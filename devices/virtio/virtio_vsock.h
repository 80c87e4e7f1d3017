/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock (virtio 1.2, 5.10), two ways:
 * - the unix-socket form of Firecracker and Cloud Hypervisor: a host program
 *   connects to `socket` and writes "CONNECT <port>\n" (decimal, within 8 s), is
 *   answered "OK <its own port>\n" when the guest accepts, or disconnected, and
 *   then talks to the guest's port; a guest that connects to host port N reaches
 *   a listener on "<socket>_N", or is refused (RST). Half-closed connections stay
 *   open in the other direction. At most 1023 at once; more are disconnected.
 *   Connections outlive a pause and a live update, not a reset of the device, nor any
 *   other load: the guest is told of that (VIRTIO_VSOCK_EVENT_TRANSPORT_RESET).
 * - vhost: the kernel's vhost-vsock, the guest then is `cid` for the whole host. A live
 *   update ends its connections, and the guest is told.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_VSOCK_H
#define DEVICES_VIRTIO_VIRTIO_VSOCK_H

#include "devices/virtio/virtio_device.h"

struct virtio_vsock_options {
	uint64_t cid;	    /* 3 - 0xfffffffe */
	const char *socket; /* NULL: vhost */
};

/*
 * The socket file is made here (mode 0660 less the umask) and removed at free; one
 * that a dead process left is replaced. -EADDRINUSE: another program listens there,
 * or has the CID (vhost); -EEXIST: a file that is no socket; -ENOENT: no vhost-vsock.
 */
struct virtio_device *virtio_vsock_new(struct device_host *host, const char *id,
				       const struct virtio_vsock_options *options,
				       struct error *err);

#endif
