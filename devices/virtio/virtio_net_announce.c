/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the guest's MAC is now: RARP requests (RFC 903) from it to everybody, which ask
 * nothing of anybody, but which every switch on the way learns from. Several, since
 * nobody acknowledges them and a port may not forward at once.
 */
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/virtio/virtio_net_priv.h"

#define FRAME_SIZE 60 /* the shortest there is, without its checksum */

static const uint64_t rounds_ns[] = { 50000000, 150000000, 150000000, 150000000 };

static void put_be16(uint8_t *to, uint16_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

static void send_rarp(struct virtio_net *net)
{
	uint8_t packet[NET_HEADER_SIZE + FRAME_SIZE] = { 0 };
	uint8_t *frame = packet + NET_HEADER_SIZE, *arp = frame + ETH_HLEN;

	memset(frame, 0xff, ETH_ALEN);
	memcpy(frame + ETH_ALEN, net->mac, ETH_ALEN);
	put_be16(frame + 2 * ETH_ALEN, ETHERTYPE_REVARP);
	put_be16(arp, ARPHRD_ETHER);
	put_be16(arp + 2, ETHERTYPE_IP);
	arp[4] = ETH_ALEN;
	arp[5] = 4;
	put_be16(arp + 6, ARPOP_RREQUEST);
	memcpy(arp + 8, net->mac, ETH_ALEN);
	memcpy(arp + 18, net->mac, ETH_ALEN);
	/* A tap that does not take it drops it, as a network may. */
	if (write(net->pairs[0]->tap_fd, packet, sizeof(packet)) < 0)
		log_debug(net->dev.host->log, "%s: no RARP on tap %s", net->dev.id, net->tap.name);
}

static void next_round(void *opaque)
{
	struct virtio_net *net = opaque;

	send_rarp(net);
	if (net->announce_timer && net->announce_round < ARRAY_SIZE(rounds_ns))
		loop_timer_set(net->announce_timer, rounds_ns[net->announce_round++]);
}

static void start(void *opaque)
{
	struct virtio_net *net = opaque;

	if (!net->live)
		return;
	if (!net->announce_timer)
		net->announce_timer = loop_timer_new(net->pairs[0]->loop, next_round, net, NULL);
	net->announce_round = 0;
	next_round(net);
	if (!virtio_device_has(&net->dev, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return;
	atomic_store(&net->announce, true);
	virtio_device_config_changed(&net->dev);
}

void net_announce_stop(struct virtio_net *net)
{
	loop_remove(net->announce_timer);
	net->announce_timer = NULL;
}

void virtio_net_announce(struct virtio_device *dev)
{
	struct virtio_net *net = container_of(dev, struct virtio_net, dev);

	loop_call(net->pairs[0]->loop, start, net);
}
