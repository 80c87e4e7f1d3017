/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock over unix sockets, inside: private to virtio_vsock*.c and tests.
 *
 * One thread does everything; all below is touched in its loop only. A connection
 * is a host socket on one side and a pair of ports on the other:
 *
 *	host program --- fd [struct vsock_conn] (host_port, guest_port) --- guest
 *
 * Guest to host: a packet's payload is written to the socket; what that does not
 * take waits in a buffer of 64 KiB, which is the credit the guest has (5.10.6.3),
 * and is allocated only then. Host to guest: a connection with something to say
 * stands in a queue; whenever the guest has a receive buffer, the first one fills
 * it, by reading its socket straight into guest memory, and goes to the end. A
 * socket is watched for just what can go on: level-triggered events nobody handles
 * would turn the loop into a busy one.
 *
 * What a guest can make us keep is bounded: connections by VSOCK_CONNS_MAX, their
 * replies by flags (`pending`), resets of connections we do not know by a ring;
 * while that is full the guest's packets stay in its queue.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_VSOCK_PRIV_H
#define DEVICES_VIRTIO_VIRTIO_VSOCK_PRIV_H

#include <linux/virtio_vsock.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "devices/virtio/vhost.h"
#include "devices/virtio/virtio_vsock.h"

#define VSOCK_CID_HOST 2
#define VSOCK_CID_MIN 3
#define VSOCK_CID_MAX 0xfffffffeULL
#define VSOCK_QUEUES 3
enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT };

#define VSOCK_QUEUE_SIZE 256
#define VSOCK_BUFFER_SIZE 65536U /* credit of a guest's connection */
#define VSOCK_PAYLOAD_MAX 65536U /* of one packet */
#define VSOCK_CONNS_MAX 1023U
#define VSOCK_BUCKETS 256U
#define VSOCK_RESETS_MAX 256U
#define VSOCK_LINE_MAX 32U
#define VSOCK_TURN_PACKETS 128U
#define VSOCK_PORT_FIRST (1U << 30) /* of those the host's end is given */
/* A client has so long to send its line, a guest to answer a request or a close. */
#define VSOCK_PATIENCE_NS 8000000000ULL
#define VSOCK_TICK_NS 1000000000ULL

/* A packet's header in host order. */
struct vsock_header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
};
#define VSOCK_HEADER_SIZE sizeof(struct virtio_vsock_hdr)

enum vsock_state {
	VSOCK_HANDSHAKE, /* a client that has not sent its line; no ports yet */
	VSOCK_REQUESTED, /* asked the guest, no answer yet */
	VSOCK_OPEN,
	VSOCK_DEAD, /* no socket any more; the guest is still to be told (RST) */
};

/* What a connection has to say to the guest. */
enum {
	VSOCK_SAY_RST = 1 << 0,
	VSOCK_SAY_REQUEST = 1 << 1,
	VSOCK_SAY_RESPONSE = 1 << 2,
	VSOCK_SAY_CREDIT_UPDATE = 1 << 3,
	VSOCK_SAY_CREDIT_REQUEST = 1 << 4,
	VSOCK_SAY_DATA = 1 << 5, /* the socket is readable */
	VSOCK_SAY_SHUTDOWN = 1 << 6,
};

#define VSOCK_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

struct vsock;

struct vsock_conn {
	struct vsock *vsock;
	LIST_ENTRY(vsock_conn) hash; /* by ports; not in VSOCK_HANDSHAKE */
	TAILQ_ENTRY(vsock_conn) all, queue;
	bool queued; /* in vsock->queue: pending is not 0 */
	enum vsock_state state;
	unsigned int pending; /* VSOCK_SAY_* */
	int fd;
	struct loop_source *source;
	uint32_t watched;
	uint32_t host_port, guest_port;
	/* Directions that are over, from the respective side's view. */
	uint32_t guest_shut, host_shut;
	bool hung_up;	   /* the host closed altogether */
	bool write_closed; /* told the host that the guest sends no more */
	/* Guest to host: bytes the socket has not taken yet. */
	uint8_t *buffer; /* NULL until needed */
	uint32_t buffer_start, buffer_len;
	uint32_t fwd_cnt, fwd_told;
	/* Host to guest. */
	uint32_t sent, peer_buf_alloc, peer_fwd_cnt;
	bool no_credit;	   /* waits for a credit update */
	uint64_t deadline; /* ns; 0: none */
	char line[VSOCK_LINE_MAX];
	unsigned int line_len;
};

LIST_HEAD(vsock_bucket, vsock_conn);
TAILQ_HEAD(vsock_list, vsock_conn);

/* A packet of no connection that has to be answered by RST. */
struct vsock_reset {
	uint64_t cid; /* the guest addressed */
	uint32_t host_port, guest_port;
	uint16_t type;
};

enum {
	VSOCK_COUNTER_RX_BYTES,
	VSOCK_COUNTER_RX_PACKETS,
	VSOCK_COUNTER_TX_BYTES,
	VSOCK_COUNTER_TX_PACKETS,
	VSOCK_COUNTER_CONNECTIONS,
	VSOCK_COUNTERS
};

/* What the guest is to be told on its event queue: that its connections are gone. In
 * the loop, but for `wanted`, which load sets. */
struct vsock_event {
	struct virtio_device *dev;
	bool wanted;
	struct loop_source *kick;
	struct iovec iov[VSOCK_QUEUE_SIZE + 2];
	uint64_t gpa[VSOCK_QUEUE_SIZE + 2];
};

struct vsock {
	struct virtio_device dev;
	uint64_t cid;
	struct vsock_event event;
	uint64_t patience_ns; /* VSOCK_PATIENCE_NS, but for tests */
	struct io_thread *thread;
	struct loop *loop;
	struct virtio_counter counters[VSOCK_COUNTERS];

	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	int listener;
	dev_t path_dev; /* the socket file is ours while these match */
	ino_t path_ino;

	bool serving;
	struct loop_source *rx_kick, *tx_kick, *accept, *timer;
	bool timer_set;
	bool accept_paused; /* out of descriptors: until the next tick */
	bool tx_stalled;    /* the ring of resets is full */
	struct vsock_bucket buckets[VSOCK_BUCKETS];
	struct vsock_list all, queue;
	unsigned int conns;
	uint32_t next_port;
	struct vsock_reset resets[VSOCK_RESETS_MAX];
	unsigned int reset_first, reset_count;

	struct iovec rx_iov[VIRTQUEUE_IOV_MAX], tx_iov[VIRTQUEUE_IOV_MAX], part[VIRTQUEUE_IOV_MAX];
	uint64_t rx_gpa[VIRTQUEUE_IOV_MAX];
};

/* virtio_vsock_new() over another kernel's vhost. */
struct virtio_device *virtio_vsock_new_with(struct device_host *host, const char *id,
					    const struct virtio_vsock_options *options,
					    const struct vhost_ops *vhost_ops, struct error *err);
struct virtio_device *virtio_vsock_vhost_new(struct device_host *host, const char *id, uint64_t cid,
					     const struct vhost_ops *ops, struct error *err);
/* Of either form. */
void virtio_vsock_init_device(struct virtio_device *dev, const struct virtio_device_ops *ops,
			      struct device_host *host, const char *id);
void virtio_vsock_read_cid(uint64_t cid, uint32_t offset, void *data, unsigned int len);

/* The state of either form: the CID. What connected hosts and guests cannot be moved. */
int vsock_save(uint64_t cid, struct state_writer *writer);
int vsock_load(struct vsock_event *event, const struct state_node *node, struct error *err);
/* The device serves: tells the guest, now or when it brings a buffer. */
void vsock_event_start(struct vsock_event *event, struct virtio_device *dev, struct loop *loop);
void vsock_event_stop(struct vsock_event *event);

static inline void vsock_count(struct vsock *vsock, unsigned int counter, uint64_t n)
{
	atomic_fetch_add_explicit(&vsock->counters[counter].value, n, memory_order_relaxed);
}

/* The socket file: virtio_vsock_socket.c. */
int vsock_listen(struct vsock *vsock, const char *path, struct error *err);
void vsock_unlisten(struct vsock *vsock);
/* A client connects. */
void vsock_accept(void *opaque, int fd, uint32_t events);
/* Connects to the listener on "<path>_<port>": an fd or -errno. */
int vsock_connect(const struct vsock *vsock, uint32_t port);
/* Reads a client's line as far as it has come: 1 complete and understood, 0 not
 * yet, -errno no such line. */
int vsock_read_line(struct vsock_conn *conn, uint32_t *port);

/* Live update: virtio_vsock_keep.c. The listener of another process that hands it over, and
 * its connections (-EBADMSG: those taken so far are there). */
int vsock_keep(struct virtio_device *dev, struct kept *kept, bool paused, struct error *err);
int vsock_take_listener(struct vsock *vsock, const char *path, struct kept *kept,
			struct error *err);
int vsock_take_conns(struct vsock *vsock, struct error *err);

/* Connections: virtio_vsock_conn.c. */
struct vsock_conn *vsock_conn_new(struct vsock *vsock, int fd); /* takes fd on success */
void vsock_conn_free(struct vsock_conn *conn);
/* Makes it known by its ports; insert: those that it has. */
void vsock_conn_insert(struct vsock_conn *conn);
void vsock_conn_name(struct vsock_conn *conn, uint32_t host_port, uint32_t guest_port);
struct vsock_conn *vsock_conn_find(struct vsock *vsock, uint32_t host_port, uint32_t guest_port);
void vsock_conn_say(struct vsock_conn *conn, unsigned int what);
/* Ends it at once: the socket is closed, the guest gets a RST. */
void vsock_conn_reset(struct vsock_conn *conn);
/* Watches the socket for what can go on. */
void vsock_conn_update(struct vsock_conn *conn);
void vsock_conn_unwatch(struct vsock_conn *conn);
void vsock_conn_patience(struct vsock_conn *conn);
/* The payload of a packet, `len` bytes of iov: false: more than its credit. */
bool vsock_conn_forward(struct vsock_conn *conn, const struct virtqueue_chain *chain, uint32_t len);
/* The guest's side of a shutdown. */
void vsock_conn_guest_shut(struct vsock_conn *conn, uint32_t flags);
/* Reads the socket into iov: bytes (>0), 0 nothing to send. */
uint32_t vsock_conn_read(struct vsock_conn *conn, const struct iovec *iov, unsigned int count,
			 uint32_t len);
uint32_t vsock_conn_credit(const struct vsock_conn *conn);
/* Ends clients and requests that took too long. */
void vsock_tick(void *opaque);

/* Queues: virtio_vsock_queues.c. */
void vsock_rx_kicked(void *opaque, int fd, uint32_t events);
void vsock_tx_kicked(void *opaque, int fd, uint32_t events);
/* Gives the guest what there is for it, as far as it has buffers. May free any
 * connection. */
void vsock_pump(struct vsock *vsock);
void vsock_queue_reset(struct vsock *vsock, const struct vsock_header *header);
/* Ranges of iov from `offset`, at most `len` bytes and 1024 ranges; returns their
 * number and the bytes in *got. */
unsigned int vsock_iov_part(const struct iovec *iov, unsigned int count, uint64_t offset,
			    uint64_t len, struct iovec *part, uint64_t *got);

/* One packet from the guest: virtio_vsock_packet.c. */
void vsock_packet(struct vsock *vsock, const struct virtqueue_chain *chain);

#endif
