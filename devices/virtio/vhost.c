/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/vhost.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"

/* What the transport may negotiate and vhost must then understand. */
#define RING_FEATURES \
	(VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) | VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | \
	 VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) | VIRTIO_FEATURE(VIRTIO_F_IN_ORDER))

static int kernel_open(void *opaque, const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int kernel_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

const struct vhost_ops vhost_kernel_ops = { .open = kernel_open, .ioctl = kernel_ioctl };

static int control(const struct vhost *vhost, unsigned long request, void *arg)
{
	return vhost->ops->ioctl(vhost->ops->opaque, vhost->fd, request, arg);
}

int vhost_open(struct vhost *vhost, const struct vhost_ops *ops, const char *path,
	       unsigned int rings, struct error *err)
{
	_cleanup_close_ int fd = ops->open(ops->opaque, path);
	int r;

	*vhost = (struct vhost)VHOST_INIT;
	if (fd < 0)
		return error_set_errno(err, fd, "open %s", path);
	vhost->ops = ops;
	vhost->rings = MIN(rings, VHOST_RINGS_MAX);
	for (unsigned int i = 0; i < VHOST_RINGS_MAX; i++)
		vhost->relays[i].fd = -1;
	vhost->fd = fd;
	r = control(vhost, VHOST_SET_OWNER, NULL);
	if (!r)
		r = control(vhost, VHOST_GET_FEATURES, &vhost->features);
	if (r) {
		vhost->fd = -1;
		return error_set_errno(err, r, "%s: take ownership", path);
	}
	(void)take_fd(&fd);
	return 0;
}

void vhost_close(struct vhost *vhost)
{
	if (vhost->fd >= 0)
		close(vhost->fd);
	vhost->fd = -1;
}

uint64_t vhost_unsupported_features(const struct vhost *vhost)
{
	return RING_FEATURES & ~vhost->features;
}

static int set_features(const struct vhost *vhost, uint64_t negotiated, struct error *err)
{
	uint64_t missing = negotiated & vhost_unsupported_features(vhost);
	/* ACCESS_PLATFORM would make it ask us for every translation; a device
	 * address is a gpa here, and the memory table says where that is. */
	uint64_t features =
		negotiated & vhost->features & ~VIRTIO_FEATURE(VIRTIO_F_ACCESS_PLATFORM);
	int r;

	if (vhost->log)
		features |= VIRTIO_FEATURE(VHOST_F_LOG_ALL);

	if (missing)
		return error_set(err, EOPNOTSUPP,
				 "vhost: the host's kernel does not serve ring "
				 "features 0x%llx",
				 (unsigned long long)missing);
	r = control(vhost, VHOST_SET_FEATURES, &features);
	return r ? error_set_errno(err, r, "vhost: set features 0x%llx",
				   (unsigned long long)features)
		 : 0;
}

static int set_log_base(const struct vhost *vhost, struct error *err)
{
	uint64_t base = (uintptr_t)vhost->log;
	int r = vhost->log ? control(vhost, VHOST_SET_LOG_BASE, &base) : 0;

	return r ? error_set_errno(err, r, "vhost: set the log of pages written") : 0;
}

static int set_memory(const struct vhost *vhost, const struct guest_memory *memory,
		      struct error *err)
{
	unsigned int count = guest_memory_region_count(memory);
	_cleanup_free_ struct vhost_memory *table =
		calloc(1, sizeof(*table) + count * sizeof(table->regions[0]));
	int r;

	if (!table)
		return error_set_errno(err, ENOMEM, "vhost: set memory table");
	table->nregions = count;
	for (unsigned int i = 0; i < count; i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		table->regions[i] = (struct vhost_memory_region){
			.guest_phys_addr = region->gpa,
			.memory_size = region->size,
			.userspace_addr = (uintptr_t)region->hva,
		};
	}
	r = control(vhost, VHOST_SET_MEM_TABLE, table);
	return r ? error_set_errno(err, r, "vhost: set memory table of %u regions", count) : 0;
}

static int set_addresses(const struct vhost *vhost, unsigned int ring, const struct virtqueue *vq,
			 struct error *err)
{
	uint64_t n = vq->size;
	void *desc = guest_memory_ptr(vq->memory, vq->desc, 16 * n);
	void *avail = guest_memory_ptr(vq->memory, vq->driver, 6 + 2 * n);
	void *used = guest_memory_ptr(vq->memory, vq->device, 6 + 8 * n);
	struct vhost_vring_addr addr = {
		.index = ring,
		.flags = vhost->log ? 1U << VHOST_VRING_F_LOG : 0,
		.desc_user_addr = (uintptr_t)desc,
		.avail_user_addr = (uintptr_t)avail,
		.used_user_addr = (uintptr_t)used,
		.log_guest_addr = vq->device,
	};
	int r = desc && avail && used ? 0 : -EFAULT;

	if (!r)
		r = control(vhost, VHOST_SET_VRING_ADDR, &addr);
	return r ? error_set_errno(err, r, "vhost: set addresses of ring %u", ring) : 0;
}

static void relay(void *opaque, int fd, uint32_t events)
{
	struct vhost_relay *relay = opaque;

	if (eventfd_drain(fd))
		virtio_device_signal(relay->dev, relay->queue);
}

static void relay_stop(struct vhost_relay *relay)
{
	loop_remove(relay->source);
	relay->source = NULL;
	if (relay->fd >= 0)
		close(relay->fd);
	relay->fd = -1;
}

/* The eventfd vhost is to signal for a queue, or -errno. */
static int call_fd(struct vhost *vhost, unsigned int ring, struct loop *loop, struct error *err)
{
	struct vhost_relay *r = &vhost->relays[ring];
	int fd = virtio_device_call_fd(vhost->dev, vhost->first_queue + ring);

	if (fd >= 0)
		return fd;
	r->dev = vhost->dev;
	r->queue = vhost->first_queue + ring;
	r->fd = eventfd_new();
	if (r->fd < 0)
		return error_set_errno(err, r->fd, "vhost: make an eventfd");
	r->source = loop_add(loop, r->fd, EPOLLIN, relay, r, err);
	return r->source ? r->fd : -ENOMEM;
}

static int start_ring(struct vhost *vhost, unsigned int ring, struct loop *loop, struct error *err)
{
	unsigned int queue = vhost->first_queue + ring;
	const struct virtqueue *vq = &vhost->dev->queues[queue];
	struct vhost_vring_state num = { .index = ring, .num = vq->size };
	struct vhost_vring_state base = { .index = ring, .num = vq->last_avail };
	struct vhost_vring_file kick = { .index = ring, .fd = vhost->dev->kick_fd[queue] };
	struct vhost_vring_file call = { .index = ring };
	int r;

	if (!vq->ready)
		return error_set(err, EINVAL, "vhost: queue %u is not set up", queue);
	r = control(vhost, VHOST_SET_VRING_NUM, &num);
	if (!r)
		r = control(vhost, VHOST_SET_VRING_BASE, &base);
	if (r)
		return error_set_errno(err, r, "vhost: set size and base of ring %u", ring);
	r = set_addresses(vhost, ring, vq, err);
	if (r)
		return r;
	call.fd = call_fd(vhost, ring, loop, err);
	if (call.fd < 0)
		return call.fd;
	vhost->started = ring + 1;
	r = control(vhost, VHOST_SET_VRING_CALL, &call);
	if (!r)
		r = control(vhost, VHOST_SET_VRING_KICK, &kick);
	return r ? error_set_errno(err, r, "vhost: set eventfds of ring %u", ring) : 0;
}

int vhost_start(struct vhost *vhost, struct virtio_device *dev, unsigned int first,
		struct loop *loop, struct error *err)
{
	int r;

	vhost->dev = dev;
	vhost->first_queue = first;
	vhost->started = 0;
	r = set_log_base(vhost, err);
	if (!r)
		r = set_features(vhost, dev->features, err);
	if (!r)
		r = set_memory(vhost, dev->host->memory, err);
	for (unsigned int i = 0; !r && i < vhost->rings; i++)
		r = start_ring(vhost, i, loop, err);
	if (r)
		vhost_stop(vhost);
	return r;
}

static void stop_ring(struct vhost *vhost, unsigned int ring)
{
	struct virtqueue *vq = &vhost->dev->queues[vhost->first_queue + ring];
	struct vhost_vring_state base = { .index = ring };
	struct vhost_vring_file none = { .index = ring, .fd = VHOST_FILE_UNBIND };
	const uint8_t *used;

	control(vhost, VHOST_SET_VRING_KICK, &none);
	control(vhost, VHOST_SET_VRING_CALL, &none);
	/* vhost keeps the used index where the driver reads it, and nowhere else. */
	used = vq->ready ? guest_memory_ptr(vq->memory, vq->device + 2, 2) : NULL;
	if (used && !control(vhost, VHOST_GET_VRING_BASE, &base)) {
		vq->last_avail = (uint16_t)base.num;
		vq->last_used = load_le16(used);
		vq->signalled_valid = false;
	}
}

void vhost_stop(struct vhost *vhost)
{
	for (unsigned int i = 0; i < vhost->started; i++)
		stop_ring(vhost, i);
	vhost->started = 0;
	for (unsigned int i = 0; i < VHOST_RINGS_MAX; i++) {
		/* What vhost signalled and nobody relayed yet. */
		if (vhost->relays[i].fd >= 0 && eventfd_drain(vhost->relays[i].fd))
			virtio_device_signal(vhost->dev, vhost->relays[i].queue);
		relay_stop(&vhost->relays[i]);
	}
}

/* What a running ring is told of the log: buffers by the feature, its own used ring by
 * the flag at its addresses. */
static int update_log(struct vhost *vhost, struct error *err)
{
	int r = set_log_base(vhost, err);

	if (!vhost->started)
		return r;
	if (!r)
		r = set_features(vhost, vhost->dev->features, err);
	for (unsigned int i = 0; !r && i < vhost->started; i++)
		r = set_addresses(vhost, i, &vhost->dev->queues[vhost->first_queue + i], err);
	return r;
}

int vhost_set_log(struct vhost *vhost, void *log, struct error *err)
{
	int r;

	if (log && !(vhost->features & VIRTIO_FEATURE(VHOST_F_LOG_ALL)))
		return error_set(err, EOPNOTSUPP,
				 "vhost: the host's kernel keeps no log of pages written");
	vhost->log = log;
	r = update_log(vhost, err);
	if (r && log) {
		vhost->log = NULL;
		update_log(vhost, NULL);
	}
	return r;
}

int vhost_net_set_backend(const struct vhost *vhost, unsigned int ring, int fd)
{
	struct vhost_vring_file file = { .index = ring, .fd = fd };

	return control(vhost, VHOST_NET_SET_BACKEND, &file);
}

int vhost_vsock_set_cid(const struct vhost *vhost, uint64_t cid)
{
	return control(vhost, VHOST_VSOCK_SET_GUEST_CID, &cid);
}

int vhost_vsock_set_running(const struct vhost *vhost, bool running)
{
	int value = running;

	return control(vhost, VHOST_VSOCK_SET_RUNNING, &value);
}
