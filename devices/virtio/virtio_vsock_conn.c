/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: a host socket and what the guest and the host may still do with it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "devices/virtio/virtio_vsock_priv.h"

struct vsock_conn *vsock_conn_new(struct vsock *vsock, int fd)
{
	struct vsock_conn *conn;

	if (vsock->conns == VSOCK_CONNS_MAX)
		return NULL;
	conn = calloc(1, sizeof(*conn));
	if (!conn)
		return NULL;
	conn->vsock = vsock;
	conn->fd = fd;
	conn->state = VSOCK_HANDSHAKE;
	TAILQ_INSERT_TAIL(&vsock->all, conn, all);
	vsock->conns++;
	return conn;
}

static void close_socket(struct vsock_conn *conn)
{
	vsock_conn_unwatch(conn);
	if (conn->fd >= 0)
		close(conn->fd);
	conn->fd = -1;
	free(conn->buffer);
	conn->buffer = NULL;
	conn->buffer_len = 0;
}

void vsock_conn_free(struct vsock_conn *conn)
{
	close_socket(conn);
	if (conn->state != VSOCK_HANDSHAKE)
		LIST_REMOVE(conn, hash);
	if (conn->queued)
		TAILQ_REMOVE(&conn->vsock->queue, conn, queue);
	TAILQ_REMOVE(&conn->vsock->all, conn, all);
	conn->vsock->conns--;
	free(conn);
}

static struct vsock_bucket *bucket(struct vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
	uint32_t h = (host_port * 0x9e3779b1U) ^ (guest_port * 0x85ebca6bU);

	return &vsock->buckets[(h ^ h >> 16) % VSOCK_BUCKETS];
}

void vsock_conn_insert(struct vsock_conn *conn)
{
	LIST_INSERT_HEAD(bucket(conn->vsock, conn->host_port, conn->guest_port), conn, hash);
}

void vsock_conn_name(struct vsock_conn *conn, uint32_t host_port, uint32_t guest_port)
{
	conn->host_port = host_port;
	conn->guest_port = guest_port;
	vsock_conn_insert(conn);
	vsock_count(conn->vsock, VSOCK_COUNTER_CONNECTIONS, 1);
}

struct vsock_conn *vsock_conn_find(struct vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_conn *conn = LIST_FIRST(bucket(vsock, host_port, guest_port));

	while (conn && (conn->host_port != host_port || conn->guest_port != guest_port))
		conn = LIST_NEXT(conn, hash);
	return conn;
}

void vsock_conn_say(struct vsock_conn *conn, unsigned int what)
{
	conn->pending |= what;
	if (conn->queued)
		return;
	conn->queued = true;
	TAILQ_INSERT_TAIL(&conn->vsock->queue, conn, queue);
}

void vsock_conn_reset(struct vsock_conn *conn)
{
	if (conn->state == VSOCK_HANDSHAKE) {
		vsock_conn_free(conn); /* the guest has not heard of it */
		return;
	}
	close_socket(conn);
	conn->state = VSOCK_DEAD;
	conn->deadline = 0;
	conn->pending = 0;
	vsock_conn_say(conn, VSOCK_SAY_RST);
}

void vsock_conn_patience(struct vsock_conn *conn)
{
	struct vsock *vsock = conn->vsock;

	conn->deadline = clock_ns() + vsock->patience_ns;
	if (!vsock->timer_set)
		loop_timer_set(vsock->timer, VSOCK_TICK_NS);
	vsock->timer_set = true;
}

/* The host does no more of `directions`. */
static void host_shut(struct vsock_conn *conn, uint32_t directions)
{
	if ((conn->host_shut & directions) == directions)
		return;
	conn->host_shut |= directions;
	vsock_conn_say(conn, VSOCK_SAY_SHUTDOWN);
	/* With nothing left in either direction the guest is to confirm by RST. */
	if (conn->host_shut == VSOCK_BOTH && !conn->deadline)
		vsock_conn_patience(conn);
}

/* Nobody takes what the guest sends any more: it is counted and lost. */
static void host_deaf(struct vsock_conn *conn)
{
	conn->fwd_cnt += conn->buffer_len;
	conn->buffer_len = 0;
	host_shut(conn, VIRTIO_VSOCK_SHUTDOWN_RCV);
}

uint32_t vsock_conn_credit(const struct vsock_conn *conn)
{
	uint32_t in_flight = conn->sent - conn->peer_fwd_cnt;

	return in_flight < conn->peer_buf_alloc ? conn->peer_buf_alloc - in_flight : 0;
}

static bool wants_data(const struct vsock_conn *conn)
{
	if (conn->state == VSOCK_HANDSHAKE)
		return true;
	return conn->state == VSOCK_OPEN && !conn->no_credit && !(conn->pending & VSOCK_SAY_DATA) &&
	       !(conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) &&
	       !(conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* Sends on what was buffered. */
static void flush(struct vsock_conn *conn)
{
	while (conn->buffer_len) {
		uint32_t start = conn->buffer_start % VSOCK_BUFFER_SIZE;
		uint32_t len = MIN(conn->buffer_len, VSOCK_BUFFER_SIZE - start);
		ssize_t n = send(conn->fd, conn->buffer + start, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == ENOBUFS))
			return;
		if (n < 0) {
			host_deaf(conn);
			return;
		}
		conn->buffer_start += (uint32_t)n;
		conn->buffer_len -= (uint32_t)n;
		conn->fwd_cnt += (uint32_t)n;
	}
}

static void tell_credit(struct vsock_conn *conn)
{
	if (conn->fwd_cnt - conn->fwd_told >= VSOCK_BUFFER_SIZE / 2)
		vsock_conn_say(conn, VSOCK_SAY_CREDIT_UPDATE);
}

/* Once everything the guest sent is with the host, its shutdown may follow. */
static void finish_shut(struct vsock_conn *conn)
{
	if (conn->state != VSOCK_OPEN || conn->buffer_len)
		return;
	if (conn->guest_shut == VSOCK_BOTH) {
		vsock_conn_reset(conn); /* the answer to a complete shutdown */
		return;
	}
	if (conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND && !conn->write_closed) {
		shutdown(conn->fd, SHUT_WR);
		conn->write_closed = true;
	}
}

void vsock_conn_guest_shut(struct vsock_conn *conn, uint32_t flags)
{
	uint32_t fresh = flags & ~conn->guest_shut;

	conn->guest_shut |= flags;
	if (fresh & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		shutdown(conn->fd, SHUT_RD);
		conn->pending &= ~(unsigned int)VSOCK_SAY_DATA;
	}
	finish_shut(conn);
}

static void append(struct vsock_conn *conn, const struct virtqueue_chain *chain, uint64_t offset,
		   uint32_t len)
{
	while (len) {
		uint32_t at = (conn->buffer_start + conn->buffer_len) % VSOCK_BUFFER_SIZE;
		uint32_t part = MIN(len, VSOCK_BUFFER_SIZE - at);

		virtqueue_chain_read(chain, offset, conn->buffer + at, part);
		conn->buffer_len += part;
		offset += part;
		len -= part;
	}
}

/* Straight from guest memory to the socket: the bytes it took. */
static uint32_t send_now(struct vsock_conn *conn, const struct virtqueue_chain *chain, uint32_t len)
{
	struct vsock *vsock = conn->vsock;
	uint64_t got;
	struct msghdr msg = {
		.msg_iov = vsock->part,
		.msg_iovlen = vsock_iov_part(chain->iov, chain->readable, VSOCK_HEADER_SIZE, len,
					     vsock->part, &got),
	};
	ssize_t n;

	do
		n = sendmsg(conn->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN && errno != ENOBUFS)
		host_deaf(conn);
	return n < 0 ? 0 : (uint32_t)n;
}

bool vsock_conn_forward(struct vsock_conn *conn, const struct virtqueue_chain *chain, uint32_t len)
{
	uint32_t taken = 0;

	if (len > VSOCK_BUFFER_SIZE - conn->buffer_len)
		return false;
	if (!len)
		return true;
	if (!conn->buffer_len && !(conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV))
		taken = send_now(conn, chain, len);
	if (conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV)
		taken = len;
	conn->fwd_cnt += taken;
	if (taken < len && !conn->buffer)
		conn->buffer = malloc(VSOCK_BUFFER_SIZE);
	if (taken < len && !conn->buffer)
		return false;
	if (taken < len)
		append(conn, chain, VSOCK_HEADER_SIZE + taken, len - taken);
	tell_credit(conn);
	return true;
}

uint32_t vsock_conn_read(struct vsock_conn *conn, const struct iovec *iov, unsigned int count,
			 uint32_t len)
{
	uint32_t credit = vsock_conn_credit(conn);
	struct iovec part[64];
	uint64_t room;
	ssize_t n;

	if (!credit) {
		conn->pending &= ~(unsigned int)VSOCK_SAY_DATA;
		if (!conn->no_credit)
			conn->pending |= VSOCK_SAY_CREDIT_REQUEST;
		conn->no_credit = true;
		return 0;
	}
	count = vsock_iov_part(iov, MIN(count, (unsigned int)ARRAY_SIZE(part)), 0, MIN(len, credit),
			       part, &room);
	do
		n = readv(conn->fd, part, (int)count);
	while (n < 0 && errno == EINTR);
	/* Less than asked for: there is no more for now. */
	if (n < (ssize_t)room)
		conn->pending &= ~(unsigned int)VSOCK_SAY_DATA;
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0) {
		host_shut(conn, conn->hung_up || n < 0 ? VSOCK_BOTH : VIRTIO_VSOCK_SHUTDOWN_SEND);
		return 0;
	}
	conn->sent += (uint32_t)n;
	return (uint32_t)n;
}

/* The host closed its end. What it wrote before is still there to be read. */
static void hang_up(struct vsock_conn *conn)
{
	conn->hung_up = true;
	if (conn->state == VSOCK_REQUESTED) {
		vsock_conn_reset(conn);
		return;
	}
	/* While there may be data the end of file comes behind them. */
	if (conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV ||
	    conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) {
		host_shut(conn, VIRTIO_VSOCK_SHUTDOWN_SEND);
		host_deaf(conn);
	}
}

/* A client's line has come, in part or whole. */
static void handshake(struct vsock_conn *conn)
{
	struct vsock *vsock = conn->vsock;
	uint32_t port, host_port;
	int r = vsock_read_line(conn, &port);

	if (r < 0)
		vsock_conn_free(conn);
	if (r <= 0)
		return;
	do
		host_port = VSOCK_PORT_FIRST | (vsock->next_port++ & (VSOCK_PORT_FIRST - 1));
	while (vsock_conn_find(vsock, host_port, port));
	vsock_conn_name(conn, host_port, port);
	conn->state = VSOCK_REQUESTED;
	vsock_conn_patience(conn);
	vsock_conn_say(conn, VSOCK_SAY_REQUEST);
	vsock_conn_update(conn);
}

static void ready(void *opaque, int fd, uint32_t events)
{
	struct vsock_conn *conn = opaque;
	struct vsock *vsock = conn->vsock;

	if (conn->state == VSOCK_HANDSHAKE) {
		handshake(conn);
	} else {
		if (events & EPOLLOUT)
			flush(conn);
		if (events & EPOLLIN && wants_data(conn))
			vsock_conn_say(conn, VSOCK_SAY_DATA);
		if (events & (EPOLLHUP | EPOLLERR) && !conn->hung_up)
			hang_up(conn);
		if (conn->state == VSOCK_OPEN) {
			tell_credit(conn);
			finish_shut(conn);
		}
		vsock_conn_update(conn);
	}
	vsock_pump(vsock); /* conn may be gone after it */
}

void vsock_conn_unwatch(struct vsock_conn *conn)
{
	loop_remove(conn->source);
	conn->source = NULL;
}

void vsock_conn_update(struct vsock_conn *conn)
{
	uint32_t events = (wants_data(conn) ? EPOLLIN : 0) | (conn->buffer_len ? EPOLLOUT : 0);

	if (conn->fd < 0 || !conn->vsock->serving)
		return;
	/* Watched for nothing it still reports that the host hung up; once known,
	 * that would be for ever. */
	if (!events && conn->hung_up) {
		vsock_conn_unwatch(conn);
	} else if (!conn->source) {
		conn->source = loop_add(conn->vsock->loop, conn->fd, events, ready, conn, NULL);
		conn->watched = events;
		if (!conn->source)
			vsock_conn_reset(conn);
	} else if (events != conn->watched) {
		loop_modify(conn->source, events);
		conn->watched = events;
	}
}

void vsock_tick(void *opaque)
{
	struct vsock *vsock = opaque;
	struct vsock_conn *conn, *next;
	uint64_t now = clock_ns();
	struct error err = ERROR_INIT;
	bool more = false;

	for (conn = TAILQ_FIRST(&vsock->all); conn; conn = next) {
		next = TAILQ_NEXT(conn, all);
		if (conn->deadline && conn->deadline <= now)
			vsock_conn_reset(conn);
		else if (conn->deadline)
			more = true;
	}
	if (vsock->accept_paused) {
		vsock->accept_paused = false;
		vsock->accept =
			loop_add(vsock->loop, vsock->listener, EPOLLIN, vsock_accept, vsock, &err);
		if (!vsock->accept)
			vsock->accept_paused = more = true;
	}
	vsock->timer_set = more;
	if (more)
		loop_timer_set(vsock->timer, VSOCK_TICK_NS);
	vsock_pump(vsock);
}
