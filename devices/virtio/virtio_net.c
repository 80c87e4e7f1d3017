/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/virtio_net.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "devices/virtio/virtio_net_priv.h"

#define QUEUE_SIZE_DEFAULT 256
#define MTU_MIN 68 /* virtio 1.2, 5.1.4.1 */

static struct virtio_net *of(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_net, dev);
}

static void config_read(struct virtio_device *dev, uint32_t offset, void *data, unsigned int len)
{
	const struct virtio_net *net = of(dev);
	uint8_t config[offsetof(struct virtio_net_config, mtu) + 2] = { 0 };

	memcpy(config, net->mac, sizeof(net->mac));
	store_le16(config + offsetof(struct virtio_net_config, status),
		   VIRTIO_NET_S_LINK_UP |
			   (atomic_load(&net->announce) ? VIRTIO_NET_S_ANNOUNCE : 0));
	store_le16(config + offsetof(struct virtio_net_config, max_virtqueue_pairs),
		   (uint16_t)net->pair_count);
	store_le16(config + offsetof(struct virtio_net_config, mtu), net->mtu);
	memset(data, 0, len);
	if (offset < sizeof(config))
		memcpy(data, config + offset, MIN((size_t)len, sizeof(config) - offset));
}

struct start {
	struct net_pair *pair;
	struct error *err;
	int result;
};

static void start_pair(void *opaque)
{
	struct start *start = opaque;

	start->result = net_pair_start(start->pair, start->err);
}

static void stop_pair(void *opaque)
{
	net_pair_stop(opaque);
}

static void start_ctrl(void *opaque)
{
	struct start *start = opaque;
	struct virtio_net *net = start->pair->net;
	int fd = net->dev.kick_fd[net->ctrl_queue];

	net->ctrl_kick = loop_add(start->pair->loop, fd, EPOLLIN, net_ctrl_kick, net, start->err);
	start->result = net->ctrl_kick ? 0 : -ENOMEM;
	if (net->ctrl_kick)
		eventfd_signal(fd);
}

static void set_offload(void *opaque)
{
	struct start *start = opaque;
	struct virtio_net *net = start->pair->net;
	unsigned int offloads = net_tap_offloads(net->offloads);
	int r = tap_set_offload(&net->tap, offloads);

	/* A tap without the ioctl has none on. */
	start->result = r && offloads ? error_set_errno(start->err, r, "tap %s: set offloads 0x%x",
							net->tap.name, offloads)
				      : 0;
}

static void stop_ctrl(void *opaque)
{
	struct virtio_net *net = opaque;

	net->live = false;
	net_announce_stop(net);
	loop_remove(net->ctrl_kick);
	net->ctrl_kick = NULL;
}

static void go_live(void *opaque)
{
	((struct virtio_net *)opaque)->live = true;
}

/* The control queue first: it changes the other pairs. */
static void stop(struct virtio_net *net)
{
	loop_call(net->pairs[0]->loop, stop_ctrl, net);
	for (unsigned int i = 0; i < net->pair_count; i++)
		loop_call(net->pairs[i]->loop, stop_pair, net->pairs[i]);
}

static int start(struct virtio_net *net, struct error *err)
{
	struct start s = { .err = err };

	for (unsigned int i = 0; !s.result && i < net->pairs_served; i++) {
		s.pair = net->pairs[i];
		if (s.pair->rx->ready && s.pair->tx->ready)
			loop_call(s.pair->loop, start_pair, &s);
	}
	s.pair = net->pairs[0];
	if (!s.result && net->dev.queues[net->ctrl_queue].ready)
		loop_call(s.pair->loop, start_ctrl, &s);
	if (s.result)
		stop(net);
	else
		loop_call(s.pair->loop, go_live, net);
	return s.result;
}

static int activate(struct virtio_device *dev, struct error *err)
{
	struct virtio_net *net = of(dev);
	struct start s = { .pair = net->pairs[0], .err = err };
	int r;

	/* Without MQ there is one pair, and the control queue follows it at once. */
	net->pairs_served = virtio_device_has(dev, VIRTIO_NET_F_MQ) ? net->pair_count : 1;
	net->ctrl_queue = 2 * net->pairs_served;
	if (!dev->restored) {
		net->pairs_used = 1;
		net->offloads = dev->features & NET_GUEST_OFFLOADS;
		atomic_store(&net->announce, false);
	}
	/* In the device's thread: a vCPU's may not call the tap. */
	loop_call(s.pair->loop, set_offload, &s);
	if (s.result)
		return s.result;
	r = net_use_pairs(net, net->pairs_used);
	if (r)
		return error_set_errno(err, r, "tap %s: attach the first %u queues only",
				       net->tap.name, net->pairs_used);
	return start(net, err);
}

static void deactivate(struct virtio_device *dev)
{
	stop(of(dev));
}

static void net_pause(struct virtio_device *dev)
{
	stop(of(dev));
}

static void net_resume(struct virtio_device *dev)
{
	struct error err = ERROR_INIT;

	if (start(of(dev), &err)) {
		log_error(dev->host->log, dev->id, &err);
		virtio_device_needs_reset(dev, "could not resume");
	}
}

static void net_free(struct virtio_device *dev)
{
	struct virtio_net *net = of(dev);

	for (unsigned int i = 0; i < net->pair_count; i++)
		io_thread_free(net->threads[i]);
	for (unsigned int i = 0; i < net->pair_count; i++) {
		if (net->pairs[i])
			vhost_close(&net->pairs[i]->vhost);
		free(net->pairs[i]);
	}
	net_log_free(net->log);
	tap_close(&net->tap);
	pthread_mutex_destroy(&net->rx_limit.lock);
	pthread_mutex_destroy(&net->tx_limit.lock);
	free(net);
}

static const struct virtio_device_ops net_ops = {
	.config_read = config_read,
	.activate = activate,
	.deactivate = deactivate,
	.save = net_save,
	.load = net_load,
	.dirty_source = net_dirty_source,
	.pause = net_pause,
	.resume = net_resume,
	.keep = net_keep,
	.free = net_free,
};

static int check_options(const struct virtio_net_options *o, const char *id, struct error *err)
{
	unsigned int size = o->queue_size ? o->queue_size : QUEUE_SIZE_DEFAULT;

	if (!o->queue_pairs || o->queue_pairs > TAP_QUEUES_MAX)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "net %s: %u queue pairs, not 1-%u", id, o->queue_pairs,
				      TAP_QUEUES_MAX);
	if (!is_power_of_2(size) || size < 2 || size > VIRTQUEUE_SIZE_MAX)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "net %s: queue size %u is not a power of two in 2-%u", id,
				      size, VIRTQUEUE_SIZE_MAX);
	if (o->fds && o->fd_count != o->queue_pairs)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "net %s: %u tap fds for %u queue pairs: one each", id,
				      o->fd_count, o->queue_pairs);
	if (o->mtu && o->mtu < MTU_MIN)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "net %s: MTU %u is below %u",
				      id, o->mtu, MTU_MIN);
	if (o->mask && !o->ip)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "net %s: a mask without an ip", id);
	if (o->mac[0] & 1)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, EINVAL,
			"net %s: %02x:%02x:%02x:%02x:%02x:%02x is a multicast address", id,
			o->mac[0], o->mac[1], o->mac[2], o->mac[3], o->mac[4], o->mac[5]);
	return 0;
}

static void choose_mac(struct virtio_net *net, const uint8_t wanted[6])
{
	static const uint8_t none[6];

	memcpy(net->mac, wanted, 6);
	if (memcmp(net->mac, none, 6) != 0)
		return;
	if (getrandom(net->mac, 6, 0) != 6)
		store_le32(net->mac + 2, (uint32_t)clock_ns());
	net->mac[0] = (net->mac[0] & 0xfc) | 2; /* locally administered, unicast */
	net->mac_made_up = true;
}

static uint64_t offload_features(const struct virtio_net *net,
				 const struct virtio_net_options *options)
{
	const unsigned int tso = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	uint64_t f = 0;

	if (!options->offload_csum)
		return 0;
	f |= VIRTIO_FEATURE(VIRTIO_NET_F_CSUM);
	if (options->offload_tso)
		f |= VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO4) |
		     VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO6) | VIRTIO_FEATURE(VIRTIO_NET_F_HOST_ECN);
	if (options->offload_ufo && !tap_set_offload(&net->tap, TUN_F_CSUM | TUN_F_UFO))
		f |= VIRTIO_FEATURE(VIRTIO_NET_F_HOST_UFO) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_UFO);
	if (options->offload_tso && !tap_set_offload(&net->tap, tso))
		f |= VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4) |
		     VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO6) |
		     VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_ECN);
	if (!tap_set_offload(&net->tap, TUN_F_CSUM))
		f |= VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
		     VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	/* Until a driver says what it can take. */
	tap_set_offload(&net->tap, 0);
	return f;
}

static void init_device(struct virtio_net *net, struct device_host *host, const char *id,
			const struct virtio_net_options *options)
{
	static const char *const names[NET_COUNTERS] = {
		"rx_bytes", "rx_frames", "rx_dropped", "tx_bytes", "tx_frames", "tx_dropped",
	};
	struct virtio_device *dev = &net->dev;

	dev->ops = &net_ops;
	dev->host = host;
	snprintf(dev->id, sizeof(dev->id), "%s", id);
	dev->type = VIRTIO_NET;
	dev->queue_count = 2 * net->pair_count + 1;
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		dev->kick_fd[i] = -1;
	for (unsigned int i = 0; i < dev->queue_count; i++) {
		dev->queues[i].memory = host->memory;
		dev->queues[i].size_max =
			(uint16_t)(options->queue_size ? options->queue_size : QUEUE_SIZE_DEFAULT);
	}
	dev->config_size = offsetof(struct virtio_net_config, mtu) + 2;
	for (unsigned int i = 0; i < NET_COUNTERS; i++)
		net->counters[i].name = names[i];
	dev->counters = net->counters;
	dev->counter_count = NET_COUNTERS;
}

static void init_features(struct virtio_net *net, const struct virtio_net_options *options)
{
	struct virtio_device *dev = &net->dev;
	const struct vhost *vhost = &net->pairs[0]->vhost;

	dev->device_features =
		VIRTIO_FEATURE(VIRTIO_NET_F_MAC) | VIRTIO_FEATURE(VIRTIO_NET_F_STATUS) |
		VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF) |
		VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_ANNOUNCE) |
		/* To ask a tap is to set it, and another process's guest still uses it. */
		(dev->host->kept ? net->kept_offloads : offload_features(net, options));
	if (net->pair_count > 1)
		dev->device_features |= VIRTIO_FEATURE(VIRTIO_NET_F_MQ);
	if (net->mtu)
		dev->device_features |= VIRTIO_FEATURE(VIRTIO_NET_F_MTU);
	if (!net->use_vhost)
		return;
	if (!(vhost->features & VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF)))
		dev->device_features &= ~VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF);
	dev->withheld = vhost_unsupported_features(vhost);
}

static int make_pairs(struct virtio_net *net, struct error *err)
{
	for (unsigned int i = 0; i < net->pair_count; i++) {
		struct net_pair *pair = calloc(1, sizeof(*pair));

		if (!pair)
			return error_set_errno(err, ENOMEM, "make queue pair %u", i);
		net->pairs[i] = pair;
		pair->net = net;
		pair->index = i;
		pair->rx = &net->dev.queues[2 * i];
		pair->tx = &net->dev.queues[2 * i + 1];
		pair->tap_fd = net->tap.fds[i];
		pair->attached = true; /* as the tap has it */
		pair->vhost.fd = -1;
	}
	return 0;
}

/* Whether the kernel serves all pairs; if not, why is logged. */
static bool open_vhost(struct virtio_net *net, const struct vhost_ops *ops)
{
	struct error err = ERROR_INIT;

	if (net->rx_limit.limited) {
		log_info(net->dev.host->log, "%s: vhost-net cannot limit rates: not used",
			 net->dev.id);
		return false;
	}
	for (unsigned int i = 0; i < net->pair_count; i++) {
		if (!vhost_open(&net->pairs[i]->vhost, ops, VHOST_NET_PATH, 2, &err))
			continue;
		log_info(net->dev.host->log, "%s: no vhost-net (%s): queues are served here",
			 net->dev.id, err.message);
		while (i--)
			vhost_close(&net->pairs[i]->vhost);
		return false;
	}
	return true;
}

/* vhost's queues need none but the control queue's. */
static int make_threads(struct virtio_net *net, struct error *err)
{
	unsigned int count = net->use_vhost ? 1 : net->pair_count;

	for (unsigned int i = 0; i < count; i++) {
		char name[32];

		snprintf(name, sizeof(name), "%.11s.%u", net->dev.id, i);
		net->threads[i] = io_thread_new(net->dev.host->threads, name, err);
		if (!net->threads[i])
			return err && err->code ? err->code : -ENOMEM;
	}
	for (unsigned int i = 0; i < net->pair_count; i++)
		net->pairs[i]->loop = io_thread_loop(net->threads[count > 1 ? i : 0]);
	return 0;
}

static void init_limiters(struct virtio_net *net, const struct rate_limiter_options *options)
{
	struct net_limiter *both[] = { &net->rx_limit, &net->tx_limit };

	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		pthread_mutex_init(&both[i]->lock, NULL);
		rate_limiter_init(&both[i]->limiter, options, clock_ns());
		both[i]->limited = !rate_limiter_unlimited(&both[i]->limiter);
	}
}

static int open_new_tap(struct virtio_net *net, const struct virtio_net_options *options,
			const struct tap_ops *ops, struct error *err)
{
	const struct tap_options tap = {
		.name = options->tap,
		.queues = options->queue_pairs,
		.ip = options->ip,
		.mask = options->mask,
		.mtu = options->mtu,
	};

	return options->fds ? tap_adopt(&net->tap, ops, options->fds, options->fd_count, err)
			    : tap_open(&net->tap, ops, &tap, err);
}

static int open_tap(struct virtio_net *net, const struct virtio_net_options *options,
		    const struct tap_ops *ops, struct kept *kept, const char *id, struct error *err)
{
	return kept ? net_take_tap(net, options->queue_pairs, ops, kept, id, err)
		    : open_new_tap(net, options, ops, err);
}

struct virtio_device *virtio_net_new_with(struct device_host *host, const char *id,
					  const struct virtio_net_options *options,
					  const struct tap_ops *tap_ops,
					  const struct vhost_ops *vhost_ops, struct error *err)
{
	struct error ours = ERROR_INIT;
	struct virtio_net *net;

	err = err ? err : &ours;
	if (check_options(options, id, err))
		return NULL;
	net = calloc(1, sizeof(*net));
	if (!net) {
		error_set_errno(err, ENOMEM, "net %s", id);
		return NULL;
	}
	if (open_tap(net, options, tap_ops, host->kept, id, err)) {
		error_prefix(err, "net %s", id);
		free(net);
		return NULL;
	}
	net->pair_count = options->queue_pairs;
	net->mtu = options->mtu;
	atomic_init(&net->tap_log.burst_left, 4);
	choose_mac(net, options->mac);
	init_device(net, host, id, options);
	init_limiters(net, &options->rate_limit);
	if (!make_pairs(net, err)) {
		net->use_vhost = options->vhost && open_vhost(net, vhost_ops);
		if (!make_threads(net, err)) {
			init_features(net, options);
			/* Taken over, but the tap is open already. */
			for (unsigned int i = 0; host->kept && i < options->fd_count; i++)
				close(options->fds[i]);
			return &net->dev;
		}
	}
	error_prefix(err, "net %s", id);
	for (unsigned int i = 0; options->fds && !host->kept && i < TAP_QUEUES_MAX; i++)
		net->tap.fds[i] = -1; /* they stay the caller's */
	net_free(&net->dev);
	return NULL;
}

struct virtio_device *virtio_net_new(struct device_host *host, const char *id,
				     const struct virtio_net_options *options, struct error *err)
{
	return virtio_net_new_with(host, id, options, &tap_kernel_ops, &vhost_kernel_ops, err);
}

void virtio_net_mac(const struct virtio_device *dev, uint8_t mac[6])
{
	memcpy(mac, container_of(dev, struct virtio_net, dev)->mac, 6);
}

const char *virtio_net_tap(const struct virtio_device *dev)
{
	return container_of(dev, struct virtio_net, dev)->tap.name;
}
