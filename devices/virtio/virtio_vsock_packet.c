/* SPDX-License-Identifier: Apache-2.0 */
/* Packets from the guest (virtio 1.2, 5.10.6): what each means to a connection. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/virtio/virtio_vsock_priv.h"

static bool read_header(const struct virtqueue_chain *chain, struct vsock_header *h)
{
	uint8_t raw[VSOCK_HEADER_SIZE];

	if (virtqueue_chain_read(chain, 0, raw, sizeof(raw)) != sizeof(raw))
		return false;
	*h = (struct vsock_header){
		.src_cid = load_le64(raw + offsetof(struct virtio_vsock_hdr, src_cid)),
		.dst_cid = load_le64(raw + offsetof(struct virtio_vsock_hdr, dst_cid)),
		.src_port = load_le32(raw + offsetof(struct virtio_vsock_hdr, src_port)),
		.dst_port = load_le32(raw + offsetof(struct virtio_vsock_hdr, dst_port)),
		.len = load_le32(raw + offsetof(struct virtio_vsock_hdr, len)),
		.type = load_le16(raw + offsetof(struct virtio_vsock_hdr, type)),
		.op = load_le16(raw + offsetof(struct virtio_vsock_hdr, op)),
		.flags = load_le32(raw + offsetof(struct virtio_vsock_hdr, flags)),
		.buf_alloc = load_le32(raw + offsetof(struct virtio_vsock_hdr, buf_alloc)),
		.fwd_cnt = load_le32(raw + offsetof(struct virtio_vsock_hdr, fwd_cnt)),
	};
	return true;
}

static void learn_credit(struct vsock_conn *conn, const struct vsock_header *h)
{
	conn->peer_buf_alloc = h->buf_alloc;
	conn->peer_fwd_cnt = h->fwd_cnt;
	if (vsock_conn_credit(conn))
		conn->no_credit = false;
}

/* The guest connects to a port of the host's. */
static void request(struct vsock *vsock, const struct vsock_header *h)
{
	struct vsock_conn *conn;
	int fd = vsock_connect(vsock, h->dst_port);

	conn = fd < 0 ? NULL : vsock_conn_new(vsock, fd);
	if (!conn) {
		if (fd >= 0)
			close(fd);
		vsock_queue_reset(vsock, h);
		return;
	}
	conn->state = VSOCK_OPEN;
	vsock_conn_name(conn, h->dst_port, h->src_port);
	learn_credit(conn, h);
	vsock_conn_say(conn, VSOCK_SAY_RESPONSE);
	vsock_conn_update(conn);
}

/* The guest's port answers a client, who is told so before anything else. */
static void response(struct vsock_conn *conn)
{
	char line[32];
	int len = snprintf(line, sizeof(line), "OK %u\n", conn->host_port);

	conn->state = VSOCK_OPEN;
	conn->deadline = 0;
	if (send(conn->fd, line, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) != len)
		vsock_conn_reset(conn);
}

static void data(struct vsock_conn *conn, const struct vsock_header *h,
		 const struct virtqueue_chain *chain)
{
	if (conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND ||
	    !vsock_conn_forward(conn, chain, h->len))
		vsock_conn_reset(conn);
	else
		vsock_count(conn->vsock, VSOCK_COUNTER_TX_BYTES, h->len);
}

/* To an open connection; to a requested one only a response and a reset. */
static void to_connection(struct vsock_conn *conn, const struct vsock_header *h,
			  const struct virtqueue_chain *chain)
{
	bool requested = conn->state == VSOCK_REQUESTED;

	if (conn->state == VSOCK_DEAD)
		return; /* its RST is on the way */
	learn_credit(conn, h);
	if (requested != (h->op == VIRTIO_VSOCK_OP_RESPONSE)) {
		vsock_conn_reset(conn);
		return;
	}
	switch (h->op) {
	case VIRTIO_VSOCK_OP_RESPONSE: response(conn); break;
	case VIRTIO_VSOCK_OP_RW: data(conn, h, chain); break;
	case VIRTIO_VSOCK_OP_SHUTDOWN: vsock_conn_guest_shut(conn, h->flags & VSOCK_BOTH); break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE: break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST: vsock_conn_say(conn, VSOCK_SAY_CREDIT_UPDATE); break;
	default: /* REQUEST of ports in use among them */ vsock_conn_reset(conn); break;
	}
	vsock_conn_update(conn);
}

void vsock_packet(struct vsock *vsock, const struct virtqueue_chain *chain)
{
	struct vsock_conn *conn;
	struct vsock_header h;

	/* A packet cut short, or in another's name, has no one to be answered. */
	if (!read_header(chain, &h) || h.src_cid != vsock->cid)
		return;
	vsock_count(vsock, VSOCK_COUNTER_TX_PACKETS, 1);
	conn = h.dst_cid == VSOCK_CID_HOST && h.type == VIRTIO_VSOCK_TYPE_STREAM
		       ? vsock_conn_find(vsock, h.dst_port, h.src_port)
		       : NULL;
	if (h.op == VIRTIO_VSOCK_OP_RST) {
		if (conn)
			vsock_conn_free(conn);
	} else if (h.len > VSOCK_PAYLOAD_MAX || h.len > chain->readable_len - VSOCK_HEADER_SIZE) {
		if (conn)
			vsock_conn_reset(conn);
		else
			vsock_queue_reset(vsock, &h);
	} else if (conn) {
		to_connection(conn, &h, chain);
	} else if (h.op == VIRTIO_VSOCK_OP_REQUEST && h.dst_cid == VSOCK_CID_HOST &&
		   h.type == VIRTIO_VSOCK_TYPE_STREAM) {
		request(vsock, &h);
	} else {
		vsock_queue_reset(vsock, &h);
	}
}
