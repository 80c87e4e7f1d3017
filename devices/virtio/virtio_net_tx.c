/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "devices/virtio/virtio_net_priv.h"

#define TX_IOV_MAX 1024 /* what writev(2) takes */

enum sent { SENT, SENT_NOT, SENT_LATER };

/* Writes a frame to the tap. What the tap finds wrong with it (header, length), or
 * cannot take (link down), is lost as on any wire. */
static enum sent send_frame(struct net_pair *pair, const struct virtqueue_chain *chain)
{
	struct iovec whole = { pair->tx_bounce, chain->readable_len };
	const struct iovec *iov = chain->iov;
	unsigned int n = chain->readable;
	ssize_t len;

	if (chain->readable_len < NET_FRAME_MIN || chain->readable_len > NET_FRAME_MAX)
		return SENT_NOT;
	if (n > TX_IOV_MAX) {
		virtqueue_chain_read(chain, 0, pair->tx_bounce, whole.iov_len);
		iov = &whole;
		n = 1;
	}
	do
		len = writev(pair->tap_fd, iov, (int)n);
	while (len < 0 && errno == EINTR);
	if (len < 0 && (errno == EAGAIN || errno == ENOBUFS))
		return SENT_LATER;
	return len < 0 ? SENT_NOT : SENT;
}

/* One chain from the guest to the tap; false where that cannot go on now. */
static bool step(struct net_pair *pair)
{
	struct virtio_net *net = pair->net;
	struct virtqueue_chain chain = { .iov = pair->tx_iov, .iov_max = ARRAY_SIZE(pair->tx_iov) };
	int r = virtqueue_pop(pair->tx, &chain);
	enum sent sent;
	uint64_t wait;

	if (r < 0)
		virtio_device_needs_reset(&net->dev, pair->tx->fault);
	if (r <= 0)
		return false;
	wait = net->tx_limit.limited
		       ? net_limiter_take(&net->tx_limit, chain.readable_len, clock_ns())
		       : 0;
	if (wait) {
		virtqueue_unpop(pair->tx, &chain);
		pair->tx_wait = true;
		pair->tx_due = clock_ns() + wait;
		return false;
	}
	sent = send_frame(pair, &chain);
	if (sent == SENT_LATER) {
		virtqueue_unpop(pair->tx, &chain);
		pair->tx_blocked = true;
		return false;
	}
	virtqueue_push(pair->tx, &chain, 0);
	if (sent == SENT) {
		net_count(net, NET_COUNTER_TX_FRAMES, 1);
		net_count(net, NET_COUNTER_TX_BYTES, chain.readable_len - NET_HEADER_SIZE);
	} else {
		net_count(net, NET_COUNTER_TX_DROPPED, 1);
	}
	return true;
}

bool net_tx(struct net_pair *pair)
{
	unsigned int frames = 0;
	bool more = true;

	if (!pair->serving || !pair->attached || !pair->tx->ready || pair->tx_wait ||
	    pair->tx_blocked)
		return true;
	virtqueue_set_notifications(pair->tx, false);
	for (; frames < NET_TURN_FRAMES && more; frames++) {
		more = step(pair);
		if (!more && !pair->tx_wait && !pair->tx_blocked)
			more = virtqueue_set_notifications(pair->tx, true);
	}
	if (virtqueue_should_signal(pair->tx))
		virtio_device_signal(&pair->net->dev, 2 * pair->index + 1);
	return !more;
}
