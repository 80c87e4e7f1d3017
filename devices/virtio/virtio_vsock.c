/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/virtio_vsock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/virtio/virtio_vsock_priv.h"

void virtio_vsock_init_device(struct virtio_device *dev, const struct virtio_device_ops *ops,
			      struct device_host *host, const char *id)
{
	dev->ops = ops;
	dev->host = host;
	snprintf(dev->id, sizeof(dev->id), "%s", id);
	dev->type = VIRTIO_VSOCK;
	dev->queue_count = VSOCK_QUEUES;
	dev->config_size = sizeof(struct virtio_vsock_config);
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		dev->kick_fd[i] = -1;
	for (unsigned int i = 0; i < VSOCK_QUEUES; i++) {
		dev->queues[i].memory = host->memory;
		dev->queues[i].size_max = VSOCK_QUEUE_SIZE;
	}
}

void virtio_vsock_read_cid(uint64_t cid, uint32_t offset, void *data, unsigned int len)
{
	uint8_t config[sizeof(struct virtio_vsock_config)];

	store_le64(config, cid);
	memset(data, 0, len);
	if (offset < sizeof(config))
		memcpy(data, config + offset, MIN((size_t)len, sizeof(config) - offset));
}

static struct vsock *of(struct virtio_device *dev)
{
	return container_of(dev, struct vsock, dev);
}

static void config_read(struct virtio_device *dev, uint32_t offset, void *data, unsigned int len)
{
	virtio_vsock_read_cid(of(dev)->cid, offset, data, len);
}

/* In the loop. */
static void suspend(void *opaque)
{
	struct vsock *vsock = opaque;
	struct vsock_conn *conn;

	vsock->serving = false;
	vsock_event_stop(&vsock->event);
	loop_remove(vsock->rx_kick);
	loop_remove(vsock->tx_kick);
	loop_remove(vsock->accept);
	loop_remove(vsock->timer);
	vsock->rx_kick = vsock->tx_kick = vsock->accept = vsock->timer = NULL;
	vsock->timer_set = vsock->accept_paused = false;
	for (conn = TAILQ_FIRST(&vsock->all); conn; conn = TAILQ_NEXT(conn, all))
		vsock_conn_unwatch(conn);
}

static void drop_all(void *opaque)
{
	struct vsock *vsock = opaque;

	suspend(vsock);
	while (!TAILQ_EMPTY(&vsock->all))
		vsock_conn_free(TAILQ_FIRST(&vsock->all));
	vsock->reset_first = vsock->reset_count = 0;
	vsock->tx_stalled = false;
	vsock->event.wanted = false;
}

struct serve {
	struct vsock *vsock;
	struct error *err;
	int result;
};

static void serve(void *opaque)
{
	struct serve *s = opaque;
	struct vsock *vsock = s->vsock;
	struct virtio_device *dev = &vsock->dev;
	struct vsock_conn *conn, *next;

	vsock->rx_kick = loop_add(vsock->loop, dev->kick_fd[VSOCK_RX], EPOLLIN, vsock_rx_kicked,
				  vsock, s->err);
	if (vsock->rx_kick)
		vsock->tx_kick = loop_add(vsock->loop, dev->kick_fd[VSOCK_TX], EPOLLIN,
					  vsock_tx_kicked, vsock, s->err);
	if (vsock->tx_kick)
		vsock->accept = loop_add(vsock->loop, vsock->listener, EPOLLIN, vsock_accept, vsock,
					 s->err);
	if (vsock->accept)
		vsock->timer = loop_timer_new(vsock->loop, vsock_tick, vsock, s->err);
	if (!vsock->timer) {
		suspend(vsock);
		s->result = -ENOMEM;
		return;
	}
	vsock->serving = true;
	vsock_event_start(&vsock->event, dev, vsock->loop);
	for (conn = TAILQ_FIRST(&vsock->all); conn; conn = next) {
		next = TAILQ_NEXT(conn, all);
		if (conn->deadline)
			vsock_conn_patience(conn); /* a pause is nobody's delay */
		vsock_conn_update(conn);
	}
	virtqueue_set_notifications(&dev->queues[VSOCK_RX], false);
	eventfd_signal(dev->kick_fd[VSOCK_RX]);
	eventfd_signal(dev->kick_fd[VSOCK_TX]);
}

static int activate(struct virtio_device *dev, struct error *err)
{
	struct serve s = { .vsock = of(dev), .err = err };

	if (!dev->queues[VSOCK_RX].ready || !dev->queues[VSOCK_TX].ready)
		return error_set(err, EINVAL, "vsock %s: the driver set up no queues", dev->id);
	loop_call(s.vsock->loop, serve, &s);
	return s.result;
}

static void deactivate(struct virtio_device *dev)
{
	loop_call(of(dev)->loop, drop_all, of(dev));
}

static void vsock_pause(struct virtio_device *dev)
{
	loop_call(of(dev)->loop, suspend, of(dev));
}

static void vsock_resume(struct virtio_device *dev)
{
	struct error err = ERROR_INIT;
	struct serve s = { .vsock = of(dev), .err = &err };

	loop_call(s.vsock->loop, serve, &s);
	if (s.result) {
		log_error(dev->host->log, dev->id, &err);
		virtio_device_needs_reset(dev, "could not resume");
	}
}

static int save(struct virtio_device *dev, struct state_writer *writer, struct error *err)
{
	return vsock_save(of(dev)->cid, writer);
}

static int load(struct virtio_device *dev, const struct state_node *node, struct error *err)
{
	struct vsock *vsock = of(dev);
	int r = vsock_load(&vsock->event, node, err);

	return r || !dev->host->kept ? r : vsock_take_conns(vsock, err);
}

static void vsock_free(struct virtio_device *dev)
{
	struct vsock *vsock = of(dev);

	if (vsock->loop)
		loop_call(vsock->loop, drop_all, vsock);
	io_thread_free(vsock->thread);
	vsock_unlisten(vsock);
	free(vsock);
}

static const struct virtio_device_ops vsock_ops = {
	.config_read = config_read,
	.activate = activate,
	.deactivate = deactivate,
	.save = save,
	.load = load,
	.pause = vsock_pause,
	.resume = vsock_resume,
	.keep = vsock_keep,
	.free = vsock_free,
};

static struct virtio_device *unix_new(struct device_host *host, const char *id,
				      const struct virtio_vsock_options *options, struct error *err)
{
	static const char *const names[VSOCK_COUNTERS] = {
		"rx_bytes", "rx_packets", "tx_bytes", "tx_packets", "connections",
	};
	struct vsock *vsock = calloc(1, sizeof(*vsock));
	char name[32];

	if (!vsock) {
		error_set_errno(err, ENOMEM, "make device");
		return NULL;
	}
	virtio_vsock_init_device(&vsock->dev, &vsock_ops, host, id);
	vsock->cid = options->cid;
	vsock->patience_ns = VSOCK_PATIENCE_NS;
	vsock->listener = -1;
	TAILQ_INIT(&vsock->all);
	TAILQ_INIT(&vsock->queue);
	for (unsigned int i = 0; i < VSOCK_COUNTERS; i++)
		vsock->counters[i].name = names[i];
	vsock->dev.counters = vsock->counters;
	vsock->dev.counter_count = VSOCK_COUNTERS;
	snprintf(name, sizeof(name), "%.13s", id);
	if (!(host->kept ? vsock_take_listener(vsock, options->socket, host->kept, err)
			 : vsock_listen(vsock, options->socket, err)))
		vsock->thread = io_thread_new(host->threads, name, err);
	if (!vsock->thread) {
		vsock_free(&vsock->dev);
		return NULL;
	}
	vsock->loop = io_thread_loop(vsock->thread);
	return &vsock->dev;
}

struct virtio_device *virtio_vsock_new_with(struct device_host *host, const char *id,
					    const struct virtio_vsock_options *options,
					    const struct vhost_ops *vhost_ops, struct error *err)
{
	struct error ours = ERROR_INIT;
	struct virtio_device *dev;

	err = err ? err : &ours;
	if (options->cid < VSOCK_CID_MIN || options->cid > VSOCK_CID_MAX) {
		error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
			       "vsock %s: CID %" PRIu64 " is not in %u-%llu", id, options->cid,
			       VSOCK_CID_MIN, VSOCK_CID_MAX);
		return NULL;
	}
	dev = options->socket ? unix_new(host, id, options, err)
			      : virtio_vsock_vhost_new(host, id, options->cid, vhost_ops, err);
	if (!dev)
		error_prefix(err, "vsock %s", id);
	return dev;
}

struct virtio_device *virtio_vsock_new(struct device_host *host, const char *id,
				       const struct virtio_vsock_options *options,
				       struct error *err)
{
	return virtio_vsock_new_with(host, id, options, &vhost_kernel_ops, err);
}
