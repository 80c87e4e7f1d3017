/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a driver chose of a net device. Frames on their way are lost, as on a wire; a
 * device served here and one served by vhost take each other's state.
 */
#include <inttypes.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "devices/virtio/virtio_net_priv.h"

int net_save(struct virtio_device *dev, struct state_writer *writer, struct error *err)
{
	const struct virtio_net *net = container_of(dev, struct virtio_net, dev);

	state_put_bytes(writer, "mac", net->mac, sizeof(net->mac));
	state_put_u32(writer, "mtu", net->mtu);
	state_put_u32(writer, "queue-pairs", dev->active ? net->pairs_used : 1);
	state_put_u64(writer, "offloads", dev->active ? net->offloads : 0);
	state_put_bool(writer, "announce", dev->active && atomic_load(&net->announce));
	rate_limiter_save(&net->rx_limit.limiter, writer, "rx-limit");
	rate_limiter_save(&net->tx_limit.limiter, writer, "tx-limit");
	return 0;
}

static int load_pairs(struct virtio_net *net, const struct state_node *node, struct error *err)
{
	uint64_t pairs = 0;
	int r = state_get_range(node, "queue-pairs", 1, net->pair_count, &pairs, err);

	if (r)
		return r;
	if (pairs > 1 && !virtio_device_has(&net->dev, VIRTIO_NET_F_MQ))
		return state_refuse(node, "queue-pairs", err, "is %" PRIu64 " without MQ", pairs);
	for (unsigned int i = 0; pairs > 1 && i < 2 * pairs; i++)
		if (!net->dev.queues[i].ready)
			return state_refuse(node, "queue-pairs", err,
					    "is %" PRIu64 ", queue %u is not enabled", pairs, i);
	net->pairs_used = (unsigned int)pairs;
	return 0;
}

static int load_offloads(struct virtio_net *net, const struct state_node *node, struct error *err)
{
	uint64_t offloads = 0, negotiated = NET_GUEST_OFFLOADS & net->dev.features;
	int r = state_get_u64(node, "offloads", &offloads, err);

	if (!r && offloads & ~negotiated)
		r = state_refuse(node, "offloads", err,
				 "is 0x%" PRIx64 ": more than was negotiated, 0x%" PRIx64, offloads,
				 negotiated);
	if (!r)
		net->offloads = offloads;
	return r;
}

/* A MAC that was asked for stays: a clone has another one than its original. */
static int load_mac(struct virtio_net *net, const struct state_node *node, struct error *err)
{
	uint8_t mac[6];
	int r = state_get_bytes(node, "mac", mac, sizeof(mac), err);

	if (!r && (mac[0] & 1))
		r = state_refuse(node, "mac", err, "is a multicast address");
	if (!r && net->mac_made_up)
		memcpy(net->mac, mac, sizeof(mac));
	return r;
}

int net_load(struct virtio_device *dev, const struct state_node *node, struct error *err)
{
	struct virtio_net *net = container_of(dev, struct virtio_net, dev);
	bool announce = false;
	int r = load_mac(net, node, err);

	if (!r)
		r = state_match_u32(node, "mtu", net->mtu, err);
	if (!r)
		r = load_pairs(net, node, err);
	if (!r)
		r = load_offloads(net, node, err);
	if (!r)
		r = state_get_bool(node, "announce", &announce, err);
	if (!r)
		r = rate_limiter_load(&net->rx_limit.limiter, node, "rx-limit", clock_ns(), err);
	if (!r)
		r = rate_limiter_load(&net->tx_limit.limiter, node, "tx-limit", clock_ns(), err);
	if (!r)
		r = net_take_attached(net, err);
	atomic_store(&net->announce, announce);
	return r;
}
