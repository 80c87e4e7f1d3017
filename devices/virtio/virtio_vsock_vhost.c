/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock by the kernel's vhost-vsock: the guest's CID is known to the host.
 *
 * In a live update the CID changes hands, since a vhost belongs to the process that opened
 * it: paused, the old process closes its own, by which the kernel ends the connections and
 * tells the host's side, and the new one takes the CID when it loads; the guest hears of a
 * reset. For the case that it comes back the old process has a second vhost, opened while
 * the guest still runs, for that may fail.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/virtio/virtio_vsock_priv.h"

struct vhost_vsock {
	struct virtio_device dev;
	uint64_t cid;
	struct vsock_event event;
	struct vhost vhost;
	bool has_cid;
	struct vhost spare;	  /* open during a live update */
	struct io_thread *thread; /* relays interrupts where vhost cannot raise them */
};

/* The other process may take a moment to end. */
#define CID_WAIT_US 2000000U
#define CID_STEP_US 5000U

static struct vhost_vsock *of(struct virtio_device *dev)
{
	return container_of(dev, struct vhost_vsock, dev);
}

static void config_read(struct virtio_device *dev, uint32_t offset, void *data, unsigned int len)
{
	virtio_vsock_read_cid(of(dev)->cid, offset, data, len);
}

static int set_cid(struct vhost_vsock *vsock, struct error *err)
{
	int r = vhost_vsock_set_cid(&vsock->vhost, vsock->cid);

	if (r == -EADDRINUSE)
		return error_set_kind(err, ERROR_CONFLICT, r,
				      "CID %" PRIu64 " is in use by another VM of this host",
				      vsock->cid);
	vsock->has_cid = !r;
	return r ? error_set_errno(err, r, "set CID %" PRIu64, vsock->cid) : 0;
}

/* After a live update that failed. The connections have ended. */
static int take_cid_back(struct vhost_vsock *vsock, struct error *err)
{
	int r;

	if (vsock->has_cid)
		return 0;
	r = set_cid(vsock, err);
	if (!r && vsock->dev.active)
		vsock->event.wanted = true;
	return r;
}

struct serve {
	struct vhost_vsock *vsock;
	struct error *err;
	int result;
};

static void stop(void *opaque)
{
	struct vhost_vsock *vsock = opaque;

	if (!vsock->vhost.started)
		return;
	vsock_event_stop(&vsock->event);
	vhost_vsock_set_running(&vsock->vhost, false);
	vhost_stop(&vsock->vhost);
}

static void start(void *opaque)
{
	struct serve *s = opaque;
	struct vhost_vsock *vsock = s->vsock;

	s->result = take_cid_back(vsock, s->err);
	if (s->result)
		return;
	/* The event queue stays ours. */
	s->result = vhost_start(&vsock->vhost, &vsock->dev, VSOCK_RX, io_thread_loop(vsock->thread),
				s->err);
	if (s->result)
		return;
	s->result = vhost_vsock_set_running(&vsock->vhost, true);
	if (s->result) {
		vhost_stop(&vsock->vhost);
		error_set_errno(s->err, s->result, "vhost-vsock: start");
		return;
	}
	vsock_event_start(&vsock->event, &vsock->dev, io_thread_loop(vsock->thread));
	eventfd_signal(vsock->dev.kick_fd[VSOCK_RX]);
	eventfd_signal(vsock->dev.kick_fd[VSOCK_TX]);
}

static int activate(struct virtio_device *dev, struct error *err)
{
	struct serve s = { .vsock = of(dev), .err = err };

	loop_call(io_thread_loop(s.vsock->thread), start, &s);
	return s.result;
}

static void pause_device(struct virtio_device *dev)
{
	loop_call(io_thread_loop(of(dev)->thread), stop, of(dev));
}

static void deactivate(struct virtio_device *dev)
{
	pause_device(dev);
	of(dev)->event.wanted = false;
}

static int save(struct virtio_device *dev, struct state_writer *writer, struct error *err)
{
	return vsock_save(of(dev)->cid, writer);
}

static int load(struct virtio_device *dev, const struct state_node *node, struct error *err)
{
	struct vhost_vsock *vsock = of(dev);
	int r = vsock_load(&vsock->event, node, err);

	return r || vsock->has_cid ? r : set_cid(vsock, err);
}

static int unkeep(struct virtio_device *dev, struct error *err)
{
	struct vhost_vsock *vsock = of(dev);
	int r = take_cid_back(vsock, err);

	for (unsigned int waited = 0; r == -EADDRINUSE && waited < CID_WAIT_US;
	     waited += CID_STEP_US) {
		usleep(CID_STEP_US);
		error_clear(err);
		r = take_cid_back(vsock, err);
	}
	vhost_close(&vsock->spare);
	return r ? error_prefix(err, "vsock %s", dev->id) : 0;
}

static void vsock_resume(struct virtio_device *dev)
{
	struct error err = ERROR_INIT;

	if (unkeep(dev, &err) || activate(dev, &err)) {
		log_error(dev->host->log, dev->id, &err);
		virtio_device_needs_reset(dev, "could not resume");
	}
}

static void vsock_free(struct virtio_device *dev)
{
	struct vhost_vsock *vsock = of(dev);

	io_thread_free(vsock->thread);
	vhost_close(&vsock->vhost);
	vhost_close(&vsock->spare);
	free(vsock);
}

/* Of the guest's buffers vhost-vsock logs nothing, in any kernel so far. */
static int dirty_source(struct virtio_device *dev, struct dirty_source **source, struct error *err)
{
	return error_set(err, EOPNOTSUPP,
			 "vsock %s: the kernel does not say what vhost-vsock writes to RAM; a "
			 "socket instead would do",
			 dev->id);
}

static int keep(struct virtio_device *dev, struct kept *kept, bool paused, struct error *err)
{
	struct vhost_vsock *vsock = of(dev);

	if (!paused) {
		vhost_close(&vsock->spare);
		return vhost_open(&vsock->spare, vsock->vhost.ops, VHOST_VSOCK_PATH, 2, err)
			       ? error_prefix(err, "vsock %s", dev->id)
			       : 0;
	}
	vhost_close(&vsock->vhost);
	vsock->has_cid = false;
	vsock->vhost = vsock->spare;
	vsock->spare.fd = -1;
	return 0;
}

static const struct virtio_device_ops vhost_vsock_ops = {
	.config_read = config_read,
	.activate = activate,
	.deactivate = deactivate,
	.save = save,
	.load = load,
	.dirty_source = dirty_source,
	.pause = pause_device,
	.resume = vsock_resume,
	.keep = keep,
	.unkeep = unkeep,
	.free = vsock_free,
};

struct virtio_device *virtio_vsock_vhost_new(struct device_host *host, const char *id, uint64_t cid,
					     const struct vhost_ops *ops, struct error *err)
{
	struct vhost_vsock *vsock = calloc(1, sizeof(*vsock));
	char name[32];

	if (!vsock) {
		error_set_errno(err, ENOMEM, "make device");
		return NULL;
	}
	virtio_vsock_init_device(&vsock->dev, &vhost_vsock_ops, host, id);
	vsock->cid = cid;
	vsock->vhost.fd = vsock->spare.fd = -1;
	snprintf(name, sizeof(name), "%.13s", id);
	/* What goes on here has its CID elsewhere, up to load. */
	if (!vhost_open(&vsock->vhost, ops, VHOST_VSOCK_PATH, 2, err) &&
	    (host->kept || !set_cid(vsock, err)))
		vsock->thread = io_thread_new(host->threads, name, err);
	if (!vsock->thread) {
		vsock_free(&vsock->dev);
		return NULL;
	}
	vsock->dev.device_features =
		vsock->vhost.features & VIRTIO_FEATURE(VIRTIO_VSOCK_F_SEQPACKET);
	vsock->dev.withheld = vhost_unsupported_features(&vsock->vhost);
	return &vsock->dev;
}
