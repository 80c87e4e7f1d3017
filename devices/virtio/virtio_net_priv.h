/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net, inside: private to virtio_net*.c and their tests.
 *
 * A pair is one receive queue (2i), one transmit queue (2i + 1), one fd of the tap
 * and one thread whose loop serves them; the control queue lives in the first
 * pair's. With vhost there is one thread only, for the control queue. Everything of
 * a pair is touched in its loop; control calls get there by loop_call().
 *
 * Receiving keeps a stock of popped chains, so that a frame is read from the tap
 * straight to its final place whatever its size. Behind the stock's ranges every
 * read has a buffer of ours: what does not fit the stock lands there, and the frame
 * is held until the driver brings more buffers, or dropped if it never can fit. Held
 * is also a frame for which the rate limiter has no tokens yet. While nothing can
 * be received the tap is not watched: no busy loop.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_NET_PRIV_H
#define DEVICES_VIRTIO_VIRTIO_NET_PRIV_H

#include <linux/virtio_net.h>
#include <pthread.h>

#include "devices/virtio/tap.h"
#include "devices/virtio/vhost.h"
#include "devices/virtio/virtio_net.h"

#define NET_HEADER_SIZE TAP_HEADER_SIZE
/* A GSO frame: an IP packet of 64 KiB with Ethernet and two VLAN headers. */
#define NET_FRAME_MAX (NET_HEADER_SIZE + 65535 + 14 + 8)
#define NET_FRAME_MIN (NET_HEADER_SIZE + 14)
#define NET_STOCK_CHAINS 256
#define NET_STOCK_RANGES 1023 /* with ours behind them, what readv(2) takes */
#define NET_STOCK_POOL (NET_STOCK_RANGES + 2 * VIRTQUEUE_IOV_MAX + 1)
/* One turn of the loop serves at most this much of a direction. */
#define NET_TURN_FRAMES 128

enum {
	NET_COUNTER_RX_BYTES,
	NET_COUNTER_RX_FRAMES,
	NET_COUNTER_RX_DROPPED,
	NET_COUNTER_TX_BYTES,
	NET_COUNTER_TX_FRAMES,
	NET_COUNTER_TX_DROPPED,
	NET_COUNTERS
};

struct virtio_net;

/* Popped receive chains, oldest first: chains[0...count). Their ranges follow one
 * another in iov[head...tail). */
struct net_stock {
	struct virtqueue_chain chains[NET_STOCK_CHAINS];
	unsigned int count;
	uint64_t bytes; /* room in all of them */
	struct iovec iov[NET_STOCK_POOL];
	uint64_t gpa[NET_STOCK_POOL];
	unsigned int head, tail;
};

struct net_pair {
	struct virtio_net *net;
	unsigned int index;
	struct loop *loop;
	bool serving;  /* sources below are live, queues may be used */
	bool attached; /* the tap's queue is ours to read: part of the pairs in use */
	struct virtqueue *rx, *tx;
	int tap_fd;
	struct loop_source *rx_kick, *tx_kick, *tap_source, *timer;
	uint32_t tap_events; /* watched now, 0: tap_source is NULL */
	struct net_stock stock;
	/* A frame read and not delivered: held_len bytes of it, header included, of
	 * which the first held_direct are in the stock, the rest in overflow. */
	size_t held_len, held_direct;
	bool rx_starved;	  /* waits for buffers: kicks are on */
	bool rx_wait;		  /* waits for the timer: rate limit, or a failing tap */
	bool tx_wait, tx_blocked; /* the same; the tap takes no more now */
	uint64_t rx_due, tx_due;  /* when the waits end, ns */
	struct iovec tx_iov[VIRTQUEUE_IOV_MAX];
	uint8_t overflow[NET_FRAME_MAX];  /* of reads */
	uint8_t tx_bounce[NET_FRAME_MAX]; /* frames of too many ranges for writev(2) */
	struct vhost vhost;
};

/* Shared by the pairs. */
struct net_limiter {
	bool limited;
	pthread_mutex_t lock;
	struct rate_limiter limiter;
};

struct virtio_net {
	struct virtio_device dev;
	struct tap tap;
	unsigned int pair_count;
	unsigned int pairs_served; /* by what was negotiated: all with MQ, else one */
	unsigned int pairs_used;   /* of these, as the driver chose: attached to the tap */
	uint64_t offloads;	   /* VIRTIO_NET_F_GUEST_* that are on, as the driver chose */
	struct net_pair *pairs[TAP_QUEUES_MAX];
	struct io_thread *threads[TAP_QUEUES_MAX];
	bool use_vhost;
	struct net_limiter rx_limit, tx_limit;
	struct loop_source *ctrl_kick;
	unsigned int ctrl_queue;
	struct iovec ctrl_iov[VIRTQUEUE_IOV_MAX];
	uint64_t ctrl_gpa[VIRTQUEUE_IOV_MAX];
	struct net_vhost_log *log; /* of what vhost writes; made when first asked for */
	uint64_t kept_offloads;	   /* what the tap can do: virtio_net_keep.c */
	uint8_t mac[6];
	bool mac_made_up;
	uint16_t mtu;
	atomic_bool announce; /* the driver was asked to, and has not acknowledged it */
	/* In the first pair's loop. */
	bool live; /* between start and stop */
	struct loop_source *announce_timer;
	unsigned int announce_round;
	struct log_limit tap_log;
	struct virtio_counter counters[NET_COUNTERS];
};

/* virtio_net_new() over other kernels than the host's. */
struct virtio_device *virtio_net_new_with(struct device_host *host, const char *id,
					  const struct virtio_net_options *options,
					  const struct tap_ops *tap_ops,
					  const struct vhost_ops *vhost_ops, struct error *err);

static inline void net_count(struct virtio_net *net, unsigned int counter, uint64_t n)
{
	atomic_fetch_add_explicit(&net->counters[counter].value, n, memory_order_relaxed);
}

/* 0: go on; else nanoseconds to wait. */
uint64_t net_limiter_take(struct net_limiter *limiter, uint64_t bytes, uint64_t now);

/* In the pair's loop. Serving: watch kicks and, where attached, the tap. */
int net_pair_start(struct net_pair *pair, struct error *err);
void net_pair_stop(struct net_pair *pair);
/* Brings the tap's watch and the timer in line with the waits. */
void net_pair_update(struct net_pair *pair);

/* Serve a direction for a turn; net_tx returns false where there is more to do at
 * once (of the tap epoll tells). */
void net_rx(struct net_pair *pair);
bool net_tx(struct net_pair *pair);
/* Gives the stock back to the queue and drops what is held. */
void net_rx_release(struct net_pair *pair);

/* The control queue was kicked. In the first pair's loop. */
void net_ctrl_kick(void *opaque, int fd, uint32_t events);
/* Attaches the first `pairs` queues of the tap and detaches the rest. */
int net_use_pairs(struct virtio_net *net, unsigned int pairs);
#define NET_GUEST_OFFLOADS \
	(VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4) | \
	 VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO6) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_ECN) | \
	 VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_UFO))
/* TUN_F_* of the guest's features, or of the offloads it chose. */
unsigned int net_tap_offloads(uint64_t features);

/* Announcing: virtio_net_announce.c. In the first pair's loop. */
void net_announce_stop(struct virtio_net *net);

/* What vhost writes to RAM, virtio_net_log.c: virtio_device_ops. */
int net_dirty_source(struct virtio_device *dev, struct dirty_source **source, struct error *err);
void net_log_free(struct net_vhost_log *log);

/* The tap in another process, virtio_net_keep.c: virtio_device_ops, and the other side. */
int net_keep(struct virtio_device *dev, struct kept *kept, bool paused, struct error *err);
int net_take_tap(struct virtio_net *net, unsigned int queues, const struct tap_ops *ops,
		 struct kept *kept, const char *id, struct error *err);

/* While it is loaded: which of the tap's queues are attached. */
int net_take_attached(struct virtio_net *net, struct error *err);

/* Saving and loading, virtio_net_state.c: virtio_device_ops. */
int net_save(struct virtio_device *dev, struct state_writer *writer, struct error *err);
int net_load(struct virtio_device *dev, const struct state_node *node, struct error *err);

#endif
