/* SPDX-License-Identifier: Apache-2.0 */
/* The control queue (virtio 1.2, 5.1.6.5). */
#include <linux/if_tun.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/virtio/virtio_net_priv.h"

#define CTRL_TURN 64
#define CTRL_DATA_MAX 64

unsigned int net_tap_offloads(uint64_t features)
{
	static const struct {
		unsigned int feature, offload;
	} map[] = {
		{ VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4 },
		{ VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6 },
		{ VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN },
		{ VIRTIO_NET_F_GUEST_UFO, TUN_F_UFO },
	};
	unsigned int offloads = TUN_F_CSUM;

	/* Segmentation without checksums: the kernel refuses, and so does the spec. */
	if (!(features & VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM)))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (features & VIRTIO_FEATURE(map[i].feature))
			offloads |= map[i].offload;
	/* ECN only says something about TSO. */
	if (!(offloads & (TUN_F_TSO4 | TUN_F_TSO6)))
		offloads &= ~(unsigned int)TUN_F_TSO_ECN;
	return offloads;
}

struct attach {
	struct net_pair *pair;
	bool attach;
	int result;
};

static void attach_pair(void *opaque)
{
	struct attach *a = opaque;
	struct net_pair *pair = a->pair;

	if (pair->attached == a->attach)
		return;
	/* Not watched while detached: epoll would report an error for ever. */
	if (!a->attach) {
		pair->attached = false;
		if (!pair->net->use_vhost)
			net_pair_update(pair);
	}
	a->result = tap_attach_queue(&pair->net->tap, pair->index, a->attach);
	if (!a->attach || a->result)
		return;
	pair->attached = true;
	if (pair->net->use_vhost || !pair->serving)
		return;
	/* Kicks that came meanwhile found nothing attached. */
	eventfd_signal(pair->net->dev.kick_fd[2 * pair->index + 1]);
	net_pair_update(pair);
}

int net_use_pairs(struct virtio_net *net, unsigned int pairs)
{
	for (unsigned int i = 0; i < net->pair_count; i++) {
		struct attach a = { .pair = net->pairs[i], .attach = i < pairs };

		loop_call(net->pairs[i]->loop, attach_pair, &a);
		if (a.result)
			return a.result;
	}
	return 0;
}

static bool set_pairs(struct virtio_net *net, const uint8_t *data, size_t len)
{
	unsigned int pairs = len >= 2 ? load_le16(data) : 0;

	if (!virtio_device_has(&net->dev, VIRTIO_NET_F_MQ) || !pairs || pairs > net->pair_count)
		return false;
	for (unsigned int i = 0; i < 2 * pairs; i++)
		if (!net->dev.queues[i].ready)
			return false;
	if (net_use_pairs(net, pairs))
		return false;
	net->pairs_used = pairs;
	return true;
}

static bool set_offloads(struct virtio_net *net, const uint8_t *data, size_t len)
{
	uint64_t offloads = len >= 8 ? load_le64(data) : UINT64_MAX;

	if (!virtio_device_has(&net->dev, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
	    offloads & ~(NET_GUEST_OFFLOADS & net->dev.features))
		return false;
	if (tap_set_offload(&net->tap, net_tap_offloads(offloads)))
		return false;
	net->offloads = offloads;
	return true;
}

static bool acknowledge(struct virtio_net *net, const uint8_t *data, size_t len)
{
	if (!virtio_device_has(&net->dev, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return false;
	atomic_store(&net->announce, false);
	return true;
}

static const struct {
	uint8_t class, command;
	bool (*run)(struct virtio_net *net, const uint8_t *data, size_t len);
} commands[] = {
	{ VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, set_pairs },
	{ VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, set_offloads },
	{ VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, acknowledge },
};

/* Bytes written into the chain. */
static uint32_t run(struct virtio_net *net, const struct virtqueue_chain *chain)
{
	uint8_t request[2 + CTRL_DATA_MAX], ack = VIRTIO_NET_ERR;
	size_t len = virtqueue_chain_read(chain, 0, request, sizeof(request));

	for (size_t i = 0; len >= 2 && i < ARRAY_SIZE(commands); i++)
		if (commands[i].class == request[0] && commands[i].command == request[1] &&
		    commands[i].run(net, request + 2, len - 2))
			ack = VIRTIO_NET_OK;
	return (uint32_t)virtqueue_chain_write(chain, 0, &ack, 1);
}

void net_ctrl_kick(void *opaque, int fd, uint32_t events)
{
	struct virtio_net *net = opaque;
	struct virtqueue *vq = &net->dev.queues[net->ctrl_queue];
	struct virtqueue_chain chain = {
		.iov = net->ctrl_iov,
		.gpa = net->ctrl_gpa,
		.iov_max = ARRAY_SIZE(net->ctrl_iov),
	};
	unsigned int turn = 0;
	int r;

	eventfd_drain(fd);
	while ((r = virtqueue_pop(vq, &chain)) > 0) {
		virtqueue_push(vq, &chain, run(net, &chain));
		if (++turn == CTRL_TURN) {
			eventfd_signal(fd);
			break;
		}
	}
	if (r < 0)
		virtio_device_needs_reset(&net->dev, vq->fault);
	if (virtqueue_should_signal(vq))
		virtio_device_signal(&net->dev, net->ctrl_queue);
}
