/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tap goes on in another process: the same descriptors, so the frames in its queues
 * stay. What cannot be read from it, and may not be tried while its guest runs, comes
 * beside them: the offloads it can do, and which queues are attached.
 *
 * vhost's descriptors belong to the process that opened them, which the kernel checks: the
 * other process opens its own, and each gives up the tap when it is paused.
 */
#include <errno.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/virtio/virtio_net_priv.h"

#define OFFLOADS \
	(NET_GUEST_OFFLOADS | VIRTIO_FEATURE(VIRTIO_NET_F_CSUM) | \
	 VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO4) | VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO6) | \
	 VIRTIO_FEATURE(VIRTIO_NET_F_HOST_ECN) | VIRTIO_FEATURE(VIRTIO_NET_F_HOST_UFO) | \
	 VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))

static int keep_offloads(const struct virtio_net *net, struct kept *kept, struct error *err)
{
	uint8_t facts[8];

	store_le64(facts, net->dev.device_features & OFFLOADS);
	return kept_add(kept, -1, facts, sizeof(facts), err, "%s/offloads", net->dev.id);
}

int net_keep(struct virtio_device *dev, struct kept *kept, bool paused, struct error *err)
{
	const struct virtio_net *net = container_of(dev, struct virtio_net, dev);
	int r = 0;

	if (!paused) {
		r = keep_offloads(net, kept, err);
		for (unsigned int i = 0; !r && i < net->pair_count; i++)
			r = kept_add(kept, net->tap.fds[i], NULL, 0, err, "%s/tap/%u", dev->id, i);
		return r;
	}
	/* The guest changes it while it runs. */
	for (unsigned int i = 0; !r && i < net->pair_count; i++) {
		const uint8_t attached = net->pairs[i]->attached;

		r = kept_add(kept, -1, &attached, 1, err, "%s/attached/%u", dev->id, i);
	}
	return r;
}

int net_take_tap(struct virtio_net *net, unsigned int queues, const struct tap_ops *ops,
		 struct kept *kept, const char *id, struct error *err)
{
	const void *offloads = kept_facts(kept, 8, "%s/offloads", id);
	int fds[TAP_QUEUES_MAX], r = 0;
	unsigned int count = 0;

	while (count < queues && (fds[count] = kept_take(kept, "%s/tap/%u", id, count)) >= 0)
		count++;
	if (count < queues || !offloads)
		r = error_set(err, ENOENT, "its tap did not come along");
	if (!r)
		r = tap_adopt(&net->tap, ops, fds, count, err);
	while (r && count)
		close(fds[--count]);
	if (r || !offloads)
		return r;
	net->kept_offloads = load_le64(offloads) & OFFLOADS;
	return 0;
}

int net_take_attached(struct virtio_net *net, struct error *err)
{
	struct kept *kept = net->dev.host->kept;

	for (unsigned int i = 0; kept && i < net->pair_count; i++) {
		const uint8_t *attached = kept_facts(kept, 1, "%s/attached/%u", net->dev.id, i);

		if (!attached)
			return error_set(err, ENOENT, "net %s: its tap did not come along",
					 net->dev.id);
		net->pairs[i]->attached = *attached;
	}
	return 0;
}
