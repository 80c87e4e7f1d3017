/* SPDX-License-Identifier: Apache-2.0 */
/* A queue pair's event sources, and what each event leads to. */
#include <errno.h>
#include <linux/if_tun.h>
#include <sys/epoll.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "devices/virtio/virtio_net_priv.h"

uint64_t net_limiter_take(struct net_limiter *limiter, uint64_t bytes, uint64_t now)
{
	uint64_t wait;

	pthread_mutex_lock(&limiter->lock);
	wait = rate_limiter_take(&limiter->limiter, bytes, now);
	pthread_mutex_unlock(&limiter->lock);
	return wait;
}

static int kick_fd(const struct net_pair *pair, unsigned int tx)
{
	return pair->net->dev.kick_fd[2 * pair->index + tx];
}

static void serve_tx(struct net_pair *pair)
{
	/* The rest of a long queue comes after the other sources had their turn. */
	if (!net_tx(pair))
		eventfd_signal(kick_fd(pair, 1));
}

static void rx_kicked(void *opaque, int fd, uint32_t events)
{
	struct net_pair *pair = opaque;

	eventfd_drain(fd);
	if (pair->rx_starved) {
		pair->rx_starved = false;
		virtqueue_set_notifications(pair->rx, false);
	}
	net_rx(pair);
	net_pair_update(pair);
}

static void tx_kicked(void *opaque, int fd, uint32_t events)
{
	struct net_pair *pair = opaque;

	eventfd_drain(fd);
	serve_tx(pair);
	net_pair_update(pair);
}

static void tap_ready(void *opaque, int fd, uint32_t events)
{
	struct net_pair *pair = opaque;

	if (pair->tx_blocked && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
		pair->tx_blocked = false;
		serve_tx(pair);
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		net_rx(pair);
	net_pair_update(pair);
}

static void timer_fired(void *opaque)
{
	struct net_pair *pair = opaque;
	uint64_t now = clock_ns();

	if (pair->rx_wait && pair->rx_due <= now) {
		pair->rx_wait = false;
		net_rx(pair);
	}
	if (pair->tx_wait && pair->tx_due <= now) {
		pair->tx_wait = false;
		serve_tx(pair);
	}
	net_pair_update(pair);
}

static void watch_tap(struct net_pair *pair, uint32_t events)
{
	struct error err = ERROR_INIT;

	if (events == pair->tap_events)
		return;
	/* epoll reports errors of a source watched for nothing, for ever. */
	if (!events) {
		loop_remove(pair->tap_source);
		pair->tap_source = NULL;
	} else if (pair->tap_source) {
		loop_modify(pair->tap_source, events);
	} else {
		pair->tap_source =
			loop_add(pair->loop, pair->tap_fd, events, tap_ready, pair, &err);
		if (!pair->tap_source) {
			log_error(pair->net->dev.host->log, pair->net->dev.id, &err);
			events = 0;
		}
	}
	pair->tap_events = events;
}

void net_pair_update(struct net_pair *pair)
{
	bool live = pair->serving && pair->attached;
	uint64_t due = UINT64_MAX, now;
	uint32_t events = 0;

	if (live && pair->rx->ready && !pair->rx->broken && !pair->rx_starved && !pair->rx_wait)
		events |= EPOLLIN;
	if (live && pair->tx_blocked)
		events |= EPOLLOUT;
	watch_tap(pair, events);
	if (!live || !(pair->rx_wait || pair->tx_wait))
		return;
	if (pair->rx_wait)
		due = pair->rx_due;
	if (pair->tx_wait)
		due = MIN(due, pair->tx_due);
	now = clock_ns();
	loop_timer_set(pair->timer, due > now ? due - now : 1);
}

static int start_vhost(struct net_pair *pair, struct error *err)
{
	struct vhost *vhost = &pair->vhost;
	int r = vhost_start(vhost, &pair->net->dev, 2 * pair->index, pair->loop, err);

	if (r)
		return r;
	for (unsigned int ring = 0; !r && ring < 2; ring++)
		r = vhost_net_set_backend(vhost, ring, pair->tap_fd);
	if (r) {
		vhost_net_set_backend(vhost, 0, -1);
		vhost_net_set_backend(vhost, 1, -1);
		vhost_stop(vhost);
		return error_set_errno(err, r, "vhost-net: attach tap %s", pair->net->tap.name);
	}
	/* What was available before it looked. */
	eventfd_signal(kick_fd(pair, 0));
	eventfd_signal(kick_fd(pair, 1));
	return 0;
}

static int start_user(struct net_pair *pair, struct error *err)
{
	pair->rx_kick = loop_add(pair->loop, kick_fd(pair, 0), EPOLLIN, rx_kicked, pair, err);
	if (pair->rx_kick)
		pair->tx_kick =
			loop_add(pair->loop, kick_fd(pair, 1), EPOLLIN, tx_kicked, pair, err);
	if (pair->tx_kick)
		pair->timer = loop_timer_new(pair->loop, timer_fired, pair, err);
	if (!pair->timer)
		return err && err->code ? err->code : -ENOMEM;
	pair->rx_starved = pair->rx_wait = pair->tx_wait = pair->tx_blocked = false;
	virtqueue_set_notifications(pair->rx, false);
	eventfd_signal(kick_fd(pair, 1));
	return 0;
}

int net_pair_start(struct net_pair *pair, struct error *err)
{
	int r = pair->net->use_vhost ? start_vhost(pair, err) : start_user(pair, err);

	pair->serving = true;
	if (r)
		net_pair_stop(pair);
	else if (!pair->net->use_vhost)
		net_pair_update(pair);
	return r;
}

void net_pair_stop(struct net_pair *pair)
{
	if (!pair->serving)
		return;
	pair->serving = false;
	if (pair->net->use_vhost) {
		if (pair->vhost.started) {
			vhost_net_set_backend(&pair->vhost, 0, -1);
			vhost_net_set_backend(&pair->vhost, 1, -1);
			vhost_stop(&pair->vhost);
		}
		return;
	}
	watch_tap(pair, 0);
	loop_remove(pair->rx_kick);
	loop_remove(pair->tx_kick);
	loop_remove(pair->timer);
	pair->rx_kick = pair->tx_kick = pair->timer = NULL;
	net_rx_release(pair);
}
