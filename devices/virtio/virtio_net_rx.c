/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "devices/virtio/virtio_net_priv.h"
#include "devices/virtio/virtqueue_batch.h"

/* How long a tap that fails (link down, removed) is left alone. */
#define TAP_RETRY_NS 1000000000ULL

static bool merging(const struct net_pair *pair)
{
	return virtio_device_has(&pair->net->dev, VIRTIO_NET_F_MRG_RXBUF);
}

/* Moves the ranges to the front of the pool; chains point into it. */
static void stock_compact(struct net_stock *stock)
{
	unsigned int head = stock->head, live = stock->tail - head;

	memmove(stock->iov, stock->iov + head, live * sizeof(stock->iov[0]));
	memmove(stock->gpa, stock->gpa + head, live * sizeof(stock->gpa[0]));
	stock->head = 0;
	stock->tail = live;
	for (unsigned int i = 0; i < stock->count; i++) {
		stock->chains[i].iov -= head;
		stock->chains[i].gpa -= head;
	}
}

/* Only the device-writable ranges of a receive chain interest us. */
static void stock_add(struct net_stock *stock, struct virtqueue_chain *chain)
{
	unsigned int skip = chain->readable;

	memmove(chain->iov, chain->iov + skip, chain->writable * sizeof(chain->iov[0]));
	memmove(chain->gpa, chain->gpa + skip, chain->writable * sizeof(chain->gpa[0]));
	chain->readable = 0;
	chain->readable_len = 0;
	stock->tail += chain->writable;
	stock->bytes += chain->writable_len;
	stock->count++;
}

static bool stock_full(const struct net_stock *stock)
{
	return stock->bytes >= NET_FRAME_MAX || stock->count == NET_STOCK_CHAINS ||
	       stock->tail - stock->head >= NET_STOCK_RANGES;
}

/* Pops chains until a frame of any size fits, or there are no more. */
static int stock_fill(struct net_pair *pair)
{
	struct net_stock *stock = &pair->stock;

	while (!stock_full(stock)) {
		struct virtqueue_chain *chain = &stock->chains[stock->count];
		int r;

		if (NET_STOCK_POOL - stock->tail < VIRTQUEUE_IOV_MAX)
			stock_compact(stock);
		*chain = (struct virtqueue_chain){
			.iov = stock->iov + stock->tail,
			.gpa = stock->gpa + stock->tail,
			.iov_max = VIRTQUEUE_IOV_MAX,
		};
		r = virtqueue_pop(pair->rx, chain);
		if (r < 0)
			virtio_device_needs_reset(&pair->net->dev, pair->rx->fault);
		if (r <= 0)
			return r;
		if (chain->writable_len < NET_HEADER_SIZE) {
			virtio_device_needs_reset(&pair->net->dev,
						  "receive buffer shorter than a header");
			pair->rx->broken = true;
			return -EBADMSG;
		}
		stock_add(stock, chain);
	}
	return 0;
}

static void stock_drop_first(struct net_stock *stock, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		stock->head += stock->chains[i].writable;
		stock->bytes -= stock->chains[i].writable_len;
	}
	stock->count -= count;
	memmove(stock->chains, stock->chains + count, stock->count * sizeof(stock->chains[0]));
	if (!stock->count)
		stock->head = stock->tail = 0;
}

void net_rx_release(struct net_pair *pair)
{
	struct net_stock *stock = &pair->stock;

	while (stock->count)
		virtqueue_unpop(pair->rx, &stock->chains[--stock->count]);
	stock->bytes = 0;
	stock->head = stock->tail = 0;
	if (pair->held_len)
		net_count(pair->net, NET_COUNTER_RX_DROPPED, 1);
	pair->held_len = 0;
}

/* Ranges a frame may be read into, and how many bytes that is. */
static unsigned int target(const struct net_pair *pair, uint64_t *bytes)
{
	const struct net_stock *stock = &pair->stock;
	unsigned int ranges = merging(pair) ? stock->tail - stock->head : stock->chains[0].writable;

	*bytes = merging(pair) ? stock->bytes : stock->chains[0].writable_len;
	for (; ranges > NET_STOCK_RANGES; ranges--)
		*bytes -= stock->iov[stock->head + ranges - 1].iov_len;
	return ranges;
}

static void copy_to_stock(struct net_stock *stock, size_t offset, const uint8_t *from, size_t len)
{
	struct virtqueue_chain all = {
		.writable = stock->tail - stock->head,
		.iov = stock->iov + stock->head,
	};

	virtqueue_chain_write(&all, offset, from, len);
}

/* Reads one frame: it is held afterwards. -EAGAIN none there. */
static int read_frame(struct net_pair *pair)
{
	struct iovec *iov = pair->stock.iov + pair->stock.head, *last, saved;
	uint64_t room;
	ssize_t len;

	/* Our buffer goes behind the ranges for the time of the read. */
	last = iov + target(pair, &room);
	saved = *last;
	*last = (struct iovec){ pair->overflow, sizeof(pair->overflow) };
	do
		len = readv(pair->tap_fd, iov, (int)(last - iov) + 1);
	while (len < 0 && errno == EINTR);
	*last = saved;
	if (len < 0)
		return -errno;
	if (len < NET_HEADER_SIZE)
		return -EIO; /* no tap sends that; a closed stand-in reads 0 */
	pair->held_len = (size_t)len;
	pair->held_direct = MIN((size_t)len, (size_t)room);
	return 0;
}

/* How many chains the held frame takes; 0: more than are there. */
static unsigned int chains_needed(const struct net_pair *pair)
{
	const struct net_stock *stock = &pair->stock;
	uint64_t room = 0;

	if (!merging(pair))
		return stock->count && pair->held_len <= stock->chains[0].writable_len ? 1 : 0;
	for (unsigned int i = 0; i < stock->count; i++) {
		room += stock->chains[i].writable_len;
		if (room >= pair->held_len)
			return i + 1;
	}
	return 0;
}

/* May the frame still fit, once the driver brings more? */
static bool may_fit(const struct net_pair *pair)
{
	return merging(pair) && pair->held_len <= NET_FRAME_MAX && !stock_full(&pair->stock);
}

static void deliver(struct net_pair *pair, unsigned int chains)
{
	struct net_stock *stock = &pair->stock;
	uint8_t buffers[2];

	if (pair->held_len > pair->held_direct)
		copy_to_stock(stock, pair->held_direct, pair->overflow,
			      pair->held_len - pair->held_direct);
	store_le16(buffers, (uint16_t)chains);
	copy_to_stock(stock, offsetof(struct virtio_net_hdr_v1, num_buffers), buffers, 2);
	virtqueue_push_merged(pair->rx, stock->chains, chains, pair->held_len);
	stock_drop_first(stock, chains);
	net_count(pair->net, NET_COUNTER_RX_FRAMES, 1);
	net_count(pair->net, NET_COUNTER_RX_BYTES, pair->held_len - NET_HEADER_SIZE);
	pair->held_len = 0;
}

/* Delivers or drops what is held: true where nothing is held any more. */
static bool settle(struct net_pair *pair)
{
	unsigned int chains = chains_needed(pair);
	uint64_t wait;

	if (!chains && may_fit(pair)) {
		pair->rx_starved = true;
		return false;
	}
	if (!chains) {
		net_count(pair->net, NET_COUNTER_RX_DROPPED, 1);
		pair->held_len = 0;
		return true;
	}
	wait = pair->net->rx_limit.limited
		       ? net_limiter_take(&pair->net->rx_limit, pair->held_len, clock_ns())
		       : 0;
	if (wait) {
		pair->rx_wait = true;
		pair->rx_due = clock_ns() + wait;
		return false;
	}
	deliver(pair, chains);
	return true;
}

static void tap_failed(struct net_pair *pair, int code)
{
	log_limited(pair->net->dev.host->log, &pair->net->tap_log, LOG_LEVEL_WARNING,
		    "%s: read from tap %s: %s; trying again", pair->net->dev.id,
		    pair->net->tap.name, strerror(-code));
	pair->rx_wait = true;
	pair->rx_due = clock_ns() + TAP_RETRY_NS;
}

/* One frame from the tap to the guest; false where that cannot go on now. */
static bool step(struct net_pair *pair)
{
	int r;

	if (stock_fill(pair) < 0)
		return false;
	if (pair->held_len)
		return settle(pair);
	if (!pair->stock.count) {
		pair->rx_starved = true;
		return false;
	}
	r = read_frame(pair);
	if (r == -EAGAIN)
		return false;
	if (r) {
		tap_failed(pair, r);
		return false;
	}
	return settle(pair);
}

void net_rx(struct net_pair *pair)
{
	bool more = true;

	if (!pair->serving || !pair->attached || !pair->rx->ready || pair->rx_wait ||
	    pair->rx_starved)
		return;
	/* A turn ends with no frame held: nothing may come that would call us for it. */
	for (unsigned int n = 0; more && (n < NET_TURN_FRAMES || pair->held_len); n++) {
		more = step(pair);
		/* Buffers may come just before we ask to be told of them. */
		if (pair->rx_starved && virtqueue_set_notifications(pair->rx, true)) {
			virtqueue_set_notifications(pair->rx, false);
			pair->rx_starved = false;
			more = true;
		}
	}
	if (virtqueue_should_signal(pair->rx))
		virtio_device_signal(&pair->net->dev, 2 * pair->index);
}
