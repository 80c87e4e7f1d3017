/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sockets go on in another process (live update): the listener, and every connection
 * with what each side has been told and what waits in a buffer, so that its byte stream
 * has no gap and nothing twice. What has not been read from a socket stays in it.
 *
 *   ID/listener        the descriptor, and u32 about how many connections will come
 *   ID/connections     u32 how many, u32 next port, u32 the guest is to be told of a
 *                      reset, u32 resets; a reset: u64 CID, u32 host port, u32 guest port,
 *                      u32 type
 *   ID/connection/N    its descriptor, none where it is dead, and
 *                       0 u32 state, 4 u32 pending, 8 u32 host port, 12 u32 guest port,
 *                      16 u32 what the guest shut, 20 u32 what the host shut, 24 u32 FLAG_*,
 *                      28 u32 forwarded, 32 u32 the guest was told of, 36 u32 sent,
 *                      40 u32 the guest's buffer, 44 u32 it has forwarded,
 *                      48 u32 bytes buffered, 52 u32 bytes of the line, 56 line
 *   ID/connection/N/I  what is buffered, in parts
 *
 * Paused on both sides: nobody serves, so this runs in the control plane. The other process
 * has only closed its copies when it gives up: that ends no connection.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "devices/virtio/virtio_vsock_priv.h"

#define HEAD_SIZE 16u
#define RESET_SIZE 20u
#define CONN_SIZE (56u + VSOCK_LINE_MAX)

_Static_assert(HEAD_SIZE + VSOCK_RESETS_MAX * RESET_SIZE <= KEPT_DATA_MAX, "they go as one");

enum {
	FLAG_HUNG_UP = 1 << 0,
	FLAG_WRITE_CLOSED = 1 << 1,
	FLAG_NO_CREDIT = 1 << 2,
	FLAG_PATIENCE = 1 << 3, /* somebody has to answer in time */
	FLAGS = (1 << 4) - 1,
};

/* What a connection may have to say in each state. */
static const unsigned int may_say[] = {
	[VSOCK_HANDSHAKE] = 0,
	[VSOCK_REQUESTED] = VSOCK_SAY_REQUEST,
	[VSOCK_OPEN] = VSOCK_SAY_REQUEST | VSOCK_SAY_RESPONSE | VSOCK_SAY_CREDIT_UPDATE |
		       VSOCK_SAY_CREDIT_REQUEST | VSOCK_SAY_DATA | VSOCK_SAY_SHUTDOWN,
	[VSOCK_DEAD] = VSOCK_SAY_RST,
};

static int keep_buffer(const struct vsock_conn *conn, unsigned int n, struct kept *kept,
		       struct error *err)
{
	uint32_t done = 0;
	int r = 0;

	for (unsigned int i = 0; !r && done < conn->buffer_len; i++) {
		uint32_t start = (conn->buffer_start + done) % VSOCK_BUFFER_SIZE;
		uint32_t len = MIN(conn->buffer_len - done, VSOCK_BUFFER_SIZE - start);

		len = MIN(len, KEPT_DATA_MAX);
		r = kept_add(kept, -1, conn->buffer + start, len, err, "%s/connection/%u/%u",
			     conn->vsock->dev.id, n, i);
		done += len;
	}
	return r;
}

static int keep_conn(const struct vsock_conn *conn, unsigned int n, struct kept *kept,
		     struct error *err)
{
	const uint32_t words[] = {
		conn->state,
		conn->pending,
		conn->host_port,
		conn->guest_port,
		conn->guest_shut,
		conn->host_shut,
		(conn->hung_up ? FLAG_HUNG_UP : 0) | (conn->write_closed ? FLAG_WRITE_CLOSED : 0) |
			(conn->no_credit ? FLAG_NO_CREDIT : 0) |
			(conn->deadline ? FLAG_PATIENCE : 0),
		conn->fwd_cnt,
		conn->fwd_told,
		conn->sent,
		conn->peer_buf_alloc,
		conn->peer_fwd_cnt,
		conn->buffer_len,
		conn->line_len,
	};
	uint8_t facts[CONN_SIZE];
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		store_le32(facts + 4 * i, words[i]);
	memcpy(facts + 4 * ARRAY_SIZE(words), conn->line, VSOCK_LINE_MAX);
	r = kept_add(kept, conn->fd, facts, sizeof(facts), err, "%s/connection/%u",
		     conn->vsock->dev.id, n);
	return r ? r : keep_buffer(conn, n, kept, err);
}

static int keep_head(const struct vsock *vsock, struct kept *kept, struct error *err)
{
	uint8_t facts[HEAD_SIZE + VSOCK_RESETS_MAX * RESET_SIZE];
	uint8_t *at = facts + HEAD_SIZE;

	store_le32(facts, vsock->conns);
	store_le32(facts + 4, vsock->next_port);
	store_le32(facts + 8, vsock->event.wanted);
	store_le32(facts + 12, vsock->reset_count);
	for (unsigned int i = 0; i < vsock->reset_count; i++, at += RESET_SIZE) {
		const struct vsock_reset *reset =
			&vsock->resets[(vsock->reset_first + i) % VSOCK_RESETS_MAX];

		store_le64(at, reset->cid);
		store_le32(at + 8, reset->host_port);
		store_le32(at + 12, reset->guest_port);
		store_le32(at + 16, reset->type);
	}
	return kept_add(kept, -1, facts, (size_t)(at - facts), err, "%s/connections",
			vsock->dev.id);
}

struct count {
	const struct vsock *vsock;
	unsigned int conns;
};

static void count_conns(void *opaque)
{
	struct count *count = opaque;

	count->conns = count->vsock->conns;
}

static int reserve(const struct vsock *vsock, unsigned int conns, struct error *err)
{
	int r = fd_reserve(vsock->listener, conns);

	return r ? error_set_errno(err, r,
				   "vsock %s: %u connections, whose descriptors are needed once "
				   "more for a while (ulimit -n)",
				   vsock->dev.id, conns)
		 : 0;
}

/* The guest runs: what takes time is done now. */
static int keep_listener(const struct vsock *vsock, struct kept *kept, struct error *err)
{
	struct count count = { .vsock = vsock };
	uint8_t facts[4];
	int r;

	loop_call(vsock->loop, count_conns, &count);
	store_le32(facts, count.conns);
	r = reserve(vsock, count.conns, err);
	return r ? r
		 : kept_add(kept, vsock->listener, facts, sizeof(facts), err, "%s/listener",
			    vsock->dev.id);
}

int vsock_keep(struct virtio_device *dev, struct kept *kept, bool paused, struct error *err)
{
	const struct vsock *vsock = container_of(dev, struct vsock, dev);
	const struct vsock_conn *conn;
	unsigned int n = 0;
	int r;

	if (!paused)
		return keep_listener(vsock, kept, err);
	r = keep_head(vsock, kept, err);
	for (conn = TAILQ_FIRST(&vsock->all); !r && conn; conn = TAILQ_NEXT(conn, all))
		r = keep_conn(conn, n++, kept, err);
	return r;
}

/* One that nobody waits in, as those are which we open ourselves. */
static bool is_socket(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	return flags >= 0 && flags & O_NONBLOCK && !fstat(fd, &st) && S_ISSOCK(st.st_mode);
}

int vsock_take_listener(struct vsock *vsock, const char *path, struct kept *kept, struct error *err)
{
	const uint8_t *facts = kept_facts(kept, 4, "%s/listener", vsock->dev.id);
	struct stat st;

	if (strlen(path) >= sizeof(vsock->path))
		return error_set_errno(err, ENAMETOOLONG, "vsock socket %s", path);
	vsock->listener = kept_take(kept, "%s/listener", vsock->dev.id);
	if (!is_socket(vsock->listener))
		return error_set(err, ENOENT, "vsock socket %s: it did not come along", path);
	memcpy(vsock->path, path, strlen(path) + 1);
	/* Where it is not there any more, there is nothing to remove. */
	if (!lstat(path, &st) && S_ISSOCK(st.st_mode)) {
		vsock->path_dev = st.st_dev;
		vsock->path_ino = st.st_ino;
	}
	return facts ? reserve(vsock, MIN(load_le32(facts), VSOCK_CONNS_MAX), err) : 0;
}

/* Whether what came makes a connection as there may be one. */
static bool is_sound(const struct vsock_conn *conn, uint32_t flags)
{
	bool dead = conn->state == VSOCK_DEAD;

	return !(flags & ~(uint32_t)FLAGS) && !(conn->pending & ~may_say[conn->state]) &&
	       !(conn->guest_shut & ~(uint32_t)VSOCK_BOTH) &&
	       !(conn->host_shut & ~(uint32_t)VSOCK_BOTH) && conn->line_len < VSOCK_LINE_MAX &&
	       (dead ? conn->fd < 0 : is_socket(conn->fd)) &&
	       conn->buffer_len <= (conn->state == VSOCK_OPEN ? VSOCK_BUFFER_SIZE : 0) &&
	       (!dead || conn->pending);
}

static bool take_words(struct vsock_conn *conn, const uint8_t *facts)
{
	uint32_t words[14], flags;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = load_le32(facts + 4 * i);
	if (words[0] > VSOCK_DEAD)
		return false;
	conn->state = (enum vsock_state)words[0];
	conn->pending = words[1];
	conn->host_port = words[2];
	conn->guest_port = words[3];
	conn->guest_shut = words[4];
	conn->host_shut = words[5];
	flags = words[6];
	conn->hung_up = flags & FLAG_HUNG_UP;
	conn->write_closed = flags & FLAG_WRITE_CLOSED;
	conn->no_credit = flags & FLAG_NO_CREDIT;
	/* Any time: it begins anew when the device serves. */
	conn->deadline = flags & FLAG_PATIENCE ? 1 : 0;
	conn->fwd_cnt = words[7];
	conn->fwd_told = words[8];
	conn->sent = words[9];
	conn->peer_buf_alloc = words[10];
	conn->peer_fwd_cnt = words[11];
	conn->buffer_len = words[12];
	conn->line_len = words[13];
	memcpy(conn->line, facts + 4 * ARRAY_SIZE(words), VSOCK_LINE_MAX);
	return is_sound(conn, flags);
}

/* All of it, and no more. */
static bool take_buffer(struct vsock_conn *conn, unsigned int n, struct kept *kept)
{
	uint32_t done = 0;

	if (!conn->buffer_len)
		return true;
	conn->buffer = malloc(VSOCK_BUFFER_SIZE);
	for (unsigned int i = 0; conn->buffer && done < conn->buffer_len; i++) {
		size_t len;
		const void *part =
			kept_bytes(kept, &len, "%s/connection/%u/%u", conn->vsock->dev.id, n, i);

		if (!part || len > conn->buffer_len - done)
			return false;
		memcpy(conn->buffer + done, part, len);
		done += (uint32_t)len;
	}
	return conn->buffer;
}

static bool take_conn(struct vsock *vsock, unsigned int n, struct kept *kept)
{
	const uint8_t *facts = kept_facts(kept, CONN_SIZE, "%s/connection/%u", vsock->dev.id, n);
	_cleanup_close_ int fd = facts ? kept_take(kept, "%s/connection/%u", vsock->dev.id, n) : -1;
	struct vsock_conn *conn = facts ? vsock_conn_new(vsock, fd) : NULL;
	bool good;

	if (!conn)
		return false;
	take_fd(&fd);
	good = take_words(conn, facts) && take_buffer(conn, n, kept) &&
	       (conn->state == VSOCK_HANDSHAKE ||
		!vsock_conn_find(vsock, conn->host_port, conn->guest_port));
	if (!good) {
		conn->state = VSOCK_HANDSHAKE; /* it is in no list of ports */
		vsock_conn_free(conn);
		return false;
	}
	if (conn->state != VSOCK_HANDSHAKE)
		vsock_conn_insert(conn);
	if (conn->pending)
		vsock_conn_say(conn, conn->pending);
	return true;
}

static bool take_head(struct vsock *vsock, const uint8_t *facts, size_t len, unsigned int *conns)
{
	const uint8_t *at = facts + HEAD_SIZE;

	if (len < HEAD_SIZE)
		return false;
	*conns = load_le32(facts);
	vsock->next_port = load_le32(facts + 4);
	vsock->event.wanted = load_le32(facts + 8);
	vsock->reset_count = load_le32(facts + 12);
	if (vsock->reset_count > VSOCK_RESETS_MAX ||
	    len != HEAD_SIZE + (size_t)vsock->reset_count * RESET_SIZE ||
	    *conns > VSOCK_CONNS_MAX) {
		vsock->reset_count = 0;
		return false;
	}
	for (unsigned int i = 0; i < vsock->reset_count; i++, at += RESET_SIZE)
		vsock->resets[i] = (struct vsock_reset){
			.cid = load_le64(at),
			.host_port = load_le32(at + 8),
			.guest_port = load_le32(at + 12),
			.type = (uint16_t)load_le32(at + 16),
		};
	return true;
}

int vsock_take_conns(struct vsock *vsock, struct error *err)
{
	struct kept *kept = vsock->dev.host->kept;
	unsigned int conns, taken = 0;
	const uint8_t *facts;
	size_t len;

	facts = kept_bytes(kept, &len, "%s/connections", vsock->dev.id);
	/* Of a version that left them behind: its guest is told of a reset. */
	if (!facts)
		return 0;
	if (take_head(vsock, facts, len, &conns) && (vsock->dev.active || !conns)) {
		while (taken < conns && take_conn(vsock, taken, kept))
			taken++;
		if (taken == conns)
			return 0;
	}
	return error_set(err, EBADMSG,
			 "vsock %s: connection %u of those that came along makes no sense",
			 vsock->dev.id, taken);
}
