/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's queues: packets in, packets out. */
#include "base/bytes.h"
#include "base/fd.h"
#include "devices/virtio/virtio_vsock_priv.h"

#define IOV_LIMIT 1024 /* of one system call */

unsigned int vsock_iov_part(const struct iovec *iov, unsigned int count, uint64_t offset,
			    uint64_t len, struct iovec *part, uint64_t *got)
{
	unsigned int n = 0;

	*got = 0;
	for (unsigned int i = 0; i < count && *got < len && n < IOV_LIMIT; i++) {
		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		part[n].iov_base = (uint8_t *)iov[i].iov_base + offset;
		part[n].iov_len = MIN(iov[i].iov_len - offset, len - *got);
		*got += part[n++].iov_len;
		offset = 0;
	}
	return n;
}

void vsock_queue_reset(struct vsock *vsock, const struct vsock_header *h)
{
	unsigned int at = (vsock->reset_first + vsock->reset_count) % VSOCK_RESETS_MAX;

	/* A RST is never answered; with a full ring no packet is looked at. */
	if (h->op == VIRTIO_VSOCK_OP_RST || vsock->reset_count == VSOCK_RESETS_MAX)
		return;
	vsock->resets[at] = (struct vsock_reset){
		.cid = h->dst_cid,
		.host_port = h->dst_port,
		.guest_port = h->src_port,
		.type = h->type,
	};
	vsock->reset_count++;
}

static void put_header(struct vsock *vsock, struct virtqueue_chain *chain,
		       const struct vsock_header *h)
{
	uint8_t raw[VSOCK_HEADER_SIZE];

	store_le64(raw + offsetof(struct virtio_vsock_hdr, src_cid), h->src_cid);
	store_le64(raw + offsetof(struct virtio_vsock_hdr, dst_cid), vsock->cid);
	store_le32(raw + offsetof(struct virtio_vsock_hdr, src_port), h->src_port);
	store_le32(raw + offsetof(struct virtio_vsock_hdr, dst_port), h->dst_port);
	store_le32(raw + offsetof(struct virtio_vsock_hdr, len), h->len);
	store_le16(raw + offsetof(struct virtio_vsock_hdr, type), h->type);
	store_le16(raw + offsetof(struct virtio_vsock_hdr, op), h->op);
	store_le32(raw + offsetof(struct virtio_vsock_hdr, flags), h->flags);
	store_le32(raw + offsetof(struct virtio_vsock_hdr, buf_alloc), h->buf_alloc);
	store_le32(raw + offsetof(struct virtio_vsock_hdr, fwd_cnt), h->fwd_cnt);
	virtqueue_chain_write(chain, 0, raw, sizeof(raw));
	vsock_count(vsock, VSOCK_COUNTER_RX_PACKETS, 1);
	vsock_count(vsock, VSOCK_COUNTER_RX_BYTES, h->len);
}

/* Bytes written into the chain. */
static uint32_t put_reset(struct vsock *vsock, struct virtqueue_chain *chain)
{
	const struct vsock_reset *reset = &vsock->resets[vsock->reset_first];
	const struct vsock_header h = {
		.src_cid = reset->cid,
		.src_port = reset->host_port,
		.dst_port = reset->guest_port,
		.type = reset->type,
		.op = VIRTIO_VSOCK_OP_RST,
	};

	vsock->reset_first = (vsock->reset_first + 1) % VSOCK_RESETS_MAX;
	vsock->reset_count--;
	put_header(vsock, chain, &h);
	return VSOCK_HEADER_SIZE;
}

/* The next thing a connection says; data are read into the chain right away. */
static uint16_t next_op(struct vsock_conn *conn, const struct virtqueue_chain *chain, uint32_t *len)
{
	static const struct {
		unsigned int say;
		uint16_t op;
	} order[] = {
		{ VSOCK_SAY_RST, VIRTIO_VSOCK_OP_RST },
		{ VSOCK_SAY_REQUEST, VIRTIO_VSOCK_OP_REQUEST },
		{ VSOCK_SAY_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE },
		{ VSOCK_SAY_CREDIT_UPDATE, VIRTIO_VSOCK_OP_CREDIT_UPDATE },
		{ VSOCK_SAY_DATA, VIRTIO_VSOCK_OP_RW },
		{ VSOCK_SAY_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_REQUEST },
		{ VSOCK_SAY_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN },
	};
	struct vsock *vsock = conn->vsock;
	uint64_t room;
	unsigned int n;

	*len = 0;
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		if (!(conn->pending & order[i].say))
			continue;
		if (order[i].say != VSOCK_SAY_DATA) {
			conn->pending &= ~order[i].say;
			return order[i].op;
		}
		n = vsock_iov_part(chain->iov + chain->readable, chain->writable, VSOCK_HEADER_SIZE,
				   VSOCK_PAYLOAD_MAX, vsock->part, &room);
		*len = vsock_conn_read(conn, vsock->part, n, (uint32_t)room);
		if (*len)
			return VIRTIO_VSOCK_OP_RW;
	}
	return VIRTIO_VSOCK_OP_INVALID;
}

/* One packet of the first connection in the queue; 0: it had none after all. */
static uint32_t put_packet(struct vsock *vsock, struct virtqueue_chain *chain)
{
	struct vsock_conn *conn = TAILQ_FIRST(&vsock->queue);
	struct vsock_header h = {
		.src_cid = VSOCK_CID_HOST,
		.src_port = conn->host_port,
		.dst_port = conn->guest_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.buf_alloc = VSOCK_BUFFER_SIZE,
		.fwd_cnt = conn->fwd_cnt,
	};

	TAILQ_REMOVE(&vsock->queue, conn, queue);
	conn->queued = false;
	h.op = next_op(conn, chain, &h.len);
	if (h.op == VIRTIO_VSOCK_OP_SHUTDOWN)
		h.flags = conn->host_shut;
	if (h.op != VIRTIO_VSOCK_OP_INVALID) {
		conn->fwd_told = conn->fwd_cnt;
		conn->pending &= ~(unsigned int)VSOCK_SAY_CREDIT_UPDATE;
		put_header(vsock, chain, &h);
	}
	if (h.op == VIRTIO_VSOCK_OP_RST) {
		vsock_conn_free(conn);
		return VSOCK_HEADER_SIZE;
	}
	if (conn->pending)
		vsock_conn_say(conn, conn->pending); /* to the end of the queue */
	vsock_conn_update(conn);
	return h.op == VIRTIO_VSOCK_OP_INVALID ? 0 : (uint32_t)(VSOCK_HEADER_SIZE + h.len);
}

/* One packet to the guest; false where that cannot go on now. */
static bool rx_step(struct vsock *vsock)
{
	struct virtqueue *vq = &vsock->dev.queues[VSOCK_RX];
	struct virtqueue_chain chain = {
		.iov = vsock->rx_iov,
		.gpa = vsock->rx_gpa,
		.iov_max = ARRAY_SIZE(vsock->rx_iov),
	};
	uint32_t written;
	int r = virtqueue_pop(vq, &chain);

	if (!r) /* does the guest bring buffers just now? */
		return virtqueue_set_notifications(vq, true);
	if (r < 0 || chain.writable_len <= VSOCK_HEADER_SIZE) {
		virtio_device_needs_reset(
			&vsock->dev, r < 0 ? vq->fault : "receive buffer without room for data");
		vq->broken = true;
		return false;
	}
	written = vsock->reset_count ? put_reset(vsock, &chain) : put_packet(vsock, &chain);
	if (written)
		virtqueue_push(vq, &chain, written);
	else
		virtqueue_unpop(vq, &chain);
	return true;
}

void vsock_pump(struct vsock *vsock)
{
	struct virtqueue *vq = &vsock->dev.queues[VSOCK_RX];
	unsigned int turn = 0;

	if (!vsock->serving)
		return;
	while ((vsock->reset_count || !TAILQ_EMPTY(&vsock->queue)) && rx_step(vsock))
		if (++turn == VSOCK_TURN_PACKETS) {
			eventfd_signal(vsock->dev.kick_fd[VSOCK_RX]);
			break;
		}
	if (virtqueue_should_signal(vq))
		virtio_device_signal(&vsock->dev, VSOCK_RX);
	if (vsock->tx_stalled && vsock->reset_count <= VSOCK_RESETS_MAX / 2) {
		vsock->tx_stalled = false;
		eventfd_signal(vsock->dev.kick_fd[VSOCK_TX]);
	}
}

void vsock_rx_kicked(void *opaque, int fd, uint32_t events)
{
	struct vsock *vsock = opaque;

	eventfd_drain(fd);
	virtqueue_set_notifications(&vsock->dev.queues[VSOCK_RX], false);
	vsock_pump(vsock);
}

/* One packet from the guest; false where there is none or it has to wait. */
static bool tx_step(struct vsock *vsock)
{
	struct virtqueue *vq = &vsock->dev.queues[VSOCK_TX];
	struct virtqueue_chain chain = { .iov = vsock->tx_iov,
					 .iov_max = ARRAY_SIZE(vsock->tx_iov) };
	int r;

	if (vsock->reset_count == VSOCK_RESETS_MAX) {
		vsock->tx_stalled = true;
		return false;
	}
	r = virtqueue_pop(vq, &chain);
	if (r < 0)
		virtio_device_needs_reset(&vsock->dev, vq->fault);
	if (r < 0)
		return false;
	if (!r)
		return virtqueue_set_notifications(vq, true);
	vsock_packet(vsock, &chain);
	virtqueue_push(vq, &chain, 0);
	return true;
}

void vsock_tx_kicked(void *opaque, int fd, uint32_t events)
{
	struct vsock *vsock = opaque;
	struct virtqueue *vq = &vsock->dev.queues[VSOCK_TX];
	unsigned int turn = 0;

	eventfd_drain(fd);
	virtqueue_set_notifications(vq, false);
	while (tx_step(vsock))
		if (++turn == VSOCK_TURN_PACKETS) {
			eventfd_signal(fd);
			break;
		}
	if (virtqueue_should_signal(vq))
		virtio_device_signal(&vsock->dev, VSOCK_TX);
	vsock_pump(vsock);
}
