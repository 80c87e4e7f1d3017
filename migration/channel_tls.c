/* SPDX-License-Identifier: Apache-2.0 */
/* A channel with TLS: between the frames and the channel's own way to its socket. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "migration/channel_private.h"

#define FLUSH_SIZE (128U << 10) /* encrypted, before it is sent */

static int flush(struct channel *channel, struct channel_slot *slot)
{
	struct iovec iov;
	int r;

	iov.iov_base = (void *)tls_session_output(channel->tls, &iov.iov_len);
	if (!iov.iov_len)
		return 0;
	r = channel->socket_ops->send(channel, &iov, 1, iov.iov_len, slot);
	tls_session_sent(channel->tls);
	return r;
}

/* Waits for what the session needs. What came before the stream ended counts first: it may
 * be the peer's reason. */
static int fill(struct channel *channel, int first_ms)
{
	struct iovec iov;
	size_t done = 0;
	int r = flush(channel, &channel->slots[0]);

	if (r)
		return r;
	iov.iov_base = tls_session_input(channel->tls, &iov.iov_len);
	r = channel->socket_ops->receive(channel, &iov, 1, first_ms, &done);
	tls_session_received(channel->tls, done);
	if (done && (r == -ENODATA || r == -ECONNRESET || r == -EPIPE))
		return 0;
	return r == -ENODATA && tls_session_pending(channel->tls) ? -ECONNRESET : r;
}

/* A source that was not told of TLS understands this, and no alert. */
static void answer_plain_source(struct channel *channel)
{
	uint8_t buf[FRAME_HEADER_SIZE + FAILED_SIZE_MAX];
	struct error why = ERROR_INIT;
	struct iovec iov;

	error_set(&why, EKEYREJECTED, "it asks for TLS: give its CA and a certificate by tls_dir");
	iov.iov_base = buf;
	iov.iov_len = channel_encode_failed(channel, &why, buf);
	channel->socket_ops->send(channel, &iov, 1, iov.iov_len, &channel->slots[0]);
}

/* The alert that says why, if there is one. */
static int give_up(struct channel *channel)
{
	if (channel->cut)
		return -EKEYREJECTED;
	channel->cut = true;
	if (!tls_session_peer_is_plain(channel->tls))
		flush(channel, &channel->slots[0]);
	else if (tls_session_side(channel->tls) == TLS_DESTINATION)
		answer_plain_source(channel);
	return -EKEYREJECTED;
}

/* The source's last words of the handshake leave with what it sends first: a destination
 * that refuses its certificate hangs up, and that must not meet a second message. */
static int handshake(struct channel *channel, int first_ms)
{
	int r = tls_session_handshake(channel->tls);

	while (r == -EAGAIN) {
		r = fill(channel, first_ms);
		first_ms = channel->options.timeout_ms;
		if (!r)
			r = tls_session_handshake(channel->tls);
	}
	return r == -EKEYREJECTED ? give_up(channel) : r;
}

/* Small pieces share a record. */
struct record {
	size_t len;
	uint8_t data[TLS_WRITE_MAX];
};

static int encrypt(struct channel *channel, const void *data, size_t len, struct channel_slot *slot)
{
	size_t waiting;
	int r = tls_session_write(channel->tls, data, len);

	if (r)
		return give_up(channel);
	tls_session_output(channel->tls, &waiting);
	return waiting >= FLUSH_SIZE ? flush(channel, slot) : 0;
}

static int encrypt_piece(struct channel *channel, struct record *record, const uint8_t *data,
			 size_t len, struct channel_slot *slot)
{
	int r = 0;

	while (!r && len) {
		size_t part = MIN(len, sizeof(record->data) - record->len);

		if (part == sizeof(record->data)) {
			r = encrypt(channel, data, part, slot);
		} else {
			memcpy(record->data + record->len, data, part);
			record->len += part;
			if (record->len == sizeof(record->data)) {
				r = encrypt(channel, record->data, record->len, slot);
				record->len = 0;
			}
		}
		data += part;
		len -= part;
	}
	return r;
}

static int tls_send(struct channel *channel, struct iovec *iov, unsigned int count, size_t len,
		    struct channel_slot *slot)
{
	struct record record = { .len = 0 };
	int r = handshake(channel, channel->options.timeout_ms);

	for (unsigned int i = 0; !r && i < count; i++)
		r = encrypt_piece(channel, &record, iov[i].iov_base, iov[i].iov_len, slot);
	if (!r && record.len)
		r = encrypt(channel, record.data, record.len, slot);
	return r ? r : flush(channel, slot);
}

static int tls_receive(struct channel *channel, struct iovec *iov, unsigned int count, int first_ms,
		       size_t *done)
{
	bool before = tls_session_established(channel->tls);
	size_t wanted = 0;
	int r = handshake(channel, first_ms);

	if (r)
		return r;
	if (!before)
		first_ms = channel->options.timeout_ms;
	for (unsigned int i = 0; i < count; i++)
		wanted += iov[i].iov_len;
	while (count) {
		ssize_t n = tls_session_read(channel->tls, iov->iov_base, iov->iov_len, wanted);
		unsigned int used;

		if (n == -EAGAIN) {
			r = fill(channel, *done ? channel->options.timeout_ms : first_ms);
			first_ms = channel->options.timeout_ms;
			if (r)
				return r;
			continue;
		}
		if (n < 0)
			return n == -EKEYREJECTED ? give_up(channel) : (int)n;
		used = channel_advance(iov, count, (size_t)n);
		iov += used;
		count -= used;
		wanted -= (size_t)n;
		*done += (size_t)n;
	}
	return 0;
}

static int tls_settle(struct channel *channel, struct channel_slot *slot)
{
	return channel->socket_ops->settle ? channel->socket_ops->settle(channel, slot) : 0;
}

static void tls_close(struct channel *channel)
{
	channel->socket_ops->close(channel);
	tls_session_free(channel->tls);
}

const struct channel_ops channel_tls_ops = {
	.name = "TLS",
	.send = tls_send,
	.receive = tls_receive,
	.settle = tls_settle,
	.close = tls_close,
};
