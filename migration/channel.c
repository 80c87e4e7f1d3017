/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "migration/channel_private.h"
#include "migration/crc32c.h"

#define FAILED_TIMEOUT_MS 200

unsigned int channel_advance(struct iovec *iov, unsigned int count, size_t done)
{
	unsigned int used = 0;

	while (used < count && done >= iov[used].iov_len)
		done -= iov[used++].iov_len;
	if (used < count) {
		iov[used].iov_base = (uint8_t *)iov[used].iov_base + done;
		iov[used].iov_len -= done;
	}
	return used;
}

/* Is it a TCP connection, and do both ends have different addresses? */
static void look_at_socket(int fd, bool *tcp, bool *far)
{
	struct sockaddr_storage here = { 0 }, there = { 0 };
	socklen_t here_len = sizeof(here), there_len = sizeof(there);
	const struct sockaddr_in *h4 = (struct sockaddr_in *)&here, *t4 = (void *)&there;
	const struct sockaddr_in6 *h6 = (struct sockaddr_in6 *)&here, *t6 = (void *)&there;

	*tcp = *far = false;
	if (getsockname(fd, (struct sockaddr *)&here, &here_len) ||
	    getpeername(fd, (struct sockaddr *)&there, &there_len))
		return;
	*tcp = here.ss_family == AF_INET || here.ss_family == AF_INET6;
	if (here.ss_family == AF_INET)
		*far = h4->sin_addr.s_addr != t4->sin_addr.s_addr;
	else if (here.ss_family == AF_INET6)
		*far = memcmp(&h6->sin6_addr, &t6->sin6_addr, sizeof(h6->sin6_addr)) != 0;
}

static void set_up_tcp(int fd, int timeout_ms)
{
	int one = 1, seconds = MAX(timeout_ms / 4000, 1), count = 3;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (timeout_ms < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

struct opening {
	struct channel *channel;
	int result;
};

/* In the thread that may make rings. */
static void open_socket(void *opaque)
{
	struct opening *opening = opaque;
	struct channel *channel = opening->channel;
	bool tcp, far;

	look_at_socket(channel->fd, &tcp, &far);
	if (tcp)
		set_up_tcp(channel->fd, channel->options.timeout_ms);
	if (channel->options.kind == CHANNEL_PLAIN) {
		opening->result = fd_set_nonblocking(channel->fd, true);
		return;
	}
	/* With a checksum pages are copied anyway. */
	channel->zero_copy = tcp && !channel->options.checksum && !channel->tls &&
			     (channel->options.zero_copy == ZERO_COPY_ON ||
			      (channel->options.zero_copy == ZERO_COPY_AUTO && far));
	opening->result = channel_uring_open(channel);
	if (!opening->result) {
		/* A ring waits by itself, but for a socket that says not to. */
		channel->ops = &channel_uring_ops;
		opening->result = fd_set_nonblocking(channel->fd, false);
		return;
	}
	channel->zero_copy = false;
	if (channel->options.kind == CHANNEL_AUTO)
		opening->result = fd_set_nonblocking(channel->fd, true);
}

/* Takes over fd and tls. */
static struct channel *make(int fd, struct tls_session *tls, const struct channel_options *options,
			    struct error *err)
{
	struct channel *channel = calloc(1, sizeof(*channel));
	struct opening opening = { .channel = channel };

	if (!channel) {
		close(fd);
		tls_session_free(tls);
		error_set_errno(err, ENOMEM, "make a migration channel");
		return NULL;
	}
	channel->fd = fd;
	channel->tls = tls;
	channel->options = *options;
	channel->ops = &channel_plain_ops;
	thread_run_in_starter(options->policy, open_socket, &opening);
	channel->socket_ops = channel->ops;
	if (tls)
		channel->ops = &channel_tls_ops;
	if (opening.result) {
		error_set_errno(err, opening.result, "make a migration channel%s",
				options->kind == CHANNEL_URING ? " of io_uring" : "");
		channel_free(channel);
		return NULL;
	}
	channel->slot_count = channel->zero_copy ? CHANNEL_SLOTS : 1;
	channel->slots = calloc(channel->slot_count, sizeof(*channel->slots));
	if (options->checksum)
		channel->copy = malloc(FRAME_PAGES_MAX);
	if (!channel->slots || (options->checksum && !channel->copy)) {
		error_set_errno(err, ENOMEM, "make a migration channel");
		channel_free(channel);
		return NULL;
	}
	return channel;
}

struct channel *channel_new(int fd, const struct channel_options *options, struct error *err)
{
	struct tls_session *tls = NULL;

	if (options->tls && !(tls = tls_session_new(options->tls))) {
		close(fd);
		error_set_errno(err, ENOMEM, "make a migration channel with TLS");
		return NULL;
	}
	return make(fd, tls, options, err);
}

void channel_free(struct channel *channel)
{
	struct linger none = { .l_onoff = 1, .l_linger = 0 };

	if (!channel)
		return;
	/* Without this the kernel goes on sending to a peer that has stopped reading. */
	if (channel->failed && channel->fd >= 0)
		setsockopt(channel->fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	/* Now, not when the kernel gets round to closing the ring's file. */
	if (channel->fd >= 0)
		shutdown(channel->fd, SHUT_RDWR);
	channel->ops->close(channel);
	cleanup_close(&channel->fd);
	for (unsigned int i = 0; i < channel->fd_count; i++)
		close(channel->fds[i]);
	free(channel->slots);
	free(channel->copy);
	free(channel);
}

struct channel *channel_renew(struct channel *channel, const struct channel_options *options,
			      struct error *err)
{
	struct tls_session *tls = take_ptr(channel->tls);
	int fd = take_fd(&channel->fd);

	channel_free(channel);
	return make(fd, tls, options, err);
}

int channel_fd(const struct channel *channel)
{
	return channel->fd;
}

const char *channel_io(const struct channel *channel)
{
	return channel->socket_ops->name;
}

void channel_disown_error(const struct channel *channel, struct error *err)
{
	if (!channel->failed && (err->code == -ECONNRESET || err->code == -EPIPE))
		err->code = -EIO;
}

bool channel_zero_copy(const struct channel *channel)
{
	return channel->zero_copy;
}

uint64_t channel_sent(const struct channel *channel)
{
	return atomic_load_explicit(&channel->sent, memory_order_relaxed);
}

uint64_t channel_received(const struct channel *channel)
{
	return atomic_load_explicit(&channel->received, memory_order_relaxed);
}

void channel_set_timeout(struct channel *channel, int timeout_ms)
{
	channel->options.timeout_ms = timeout_ms;
}

void channel_set_cancel(struct channel *channel, int cancel_fd)
{
	channel->options.cancel_fd = cancel_fd;
}

static int fail_after(struct channel *channel, int code, const char *doing, int timeout_ms,
		      struct error *err)
{
	channel->failed = true;
	if (channel->tls && !tls_session_established(channel->tls))
		doing = "TLS handshake";
	switch (code) {
	case -EKEYREJECTED:
		if (channel->tls)
			return tls_session_error(channel->tls, err);
		return error_set_errno(err, code, "%s", doing);
	case -ECANCELED: return error_set(err, ECANCELED, "cancelled");
	case -ETIMEDOUT:
		return error_set(err, ETIMEDOUT,
				 "%s on migration connection %u: nothing moved for %d ms", doing,
				 channel->options.stream, timeout_ms);
	case -EPIPE:
	case -ENODATA:
	case -ECONNRESET:
		return error_set(err, ECONNRESET, "%s on migration connection %u: the peer is gone",
				 doing, channel->options.stream);
	default:
		return error_set_errno(err, code, "%s on migration connection %u", doing,
				       channel->options.stream);
	}
}

static int fail(struct channel *channel, int code, const char *doing, struct error *err)
{
	return fail_after(channel, code, doing, channel->options.timeout_ms, err);
}

/* A frame may be cut off: nothing can follow it. */
static int fail_send(struct channel *channel, int code, struct error *err)
{
	channel->cut = true;
	return fail(channel, code, "send", err);
}

static struct channel_slot *take_slot(struct channel *channel, int *result)
{
	struct channel_slot *slot = &channel->slots[channel->next_slot];

	channel->next_slot = (channel->next_slot + 1) % channel->slot_count;
	*result = slot->in_use ? channel->ops->settle(channel, slot) : 0;
	return slot;
}

/* Pages that the guest may write to meanwhile: what is checked has to be what is sent. */
static void copy_pages(struct channel *channel, struct iovec *iov, unsigned int *count)
{
	size_t at = 0;

	for (unsigned int i = 1; i < *count; i++) {
		memcpy(channel->copy + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	iov[1] = (struct iovec){ .iov_base = channel->copy, .iov_len = at };
	*count = 2;
}

int channel_send(struct channel *channel, const struct frame *frame, const void *meta,
		 size_t meta_len, const struct iovec *payload, unsigned int count,
		 struct error *err)
{
	struct iovec iov[CHANNEL_IOV_MAX];
	struct frame out = *frame;
	struct channel_slot *slot;
	int r;

	if (meta_len > FRAME_META_MAX || count >= CHANNEL_IOV_MAX)
		return fail_send(channel, -EMSGSIZE, err);
	slot = take_slot(channel, &r);
	if (r)
		return fail_send(channel, r, err);
	out.stream = channel->options.stream;
	out.meta_len = (uint32_t)meta_len;
	out.meta_crc = crc32c(0, meta, meta_len);
	out.length = 0;
	out.payload_crc = 0;
	for (unsigned int i = 0; i < count; i++) {
		iov[i + 1] = payload[i];
		out.length += payload[i].iov_len;
	}
	count++;
	if (out.type == FRAME_PAGES && channel->copy && out.length && out.length <= FRAME_PAGES_MAX)
		copy_pages(channel, iov, &count);
	if (out.length && (out.type != FRAME_PAGES || channel->copy)) {
		out.flags |= FRAME_PAYLOAD_CRC;
		for (unsigned int i = 1; i < count; i++)
			out.payload_crc = crc32c(out.payload_crc, iov[i].iov_base, iov[i].iov_len);
	}
	if (channel->options.bandwidth && out.length) {
		r = bandwidth_take(channel->options.bandwidth, out.length,
				   channel->options.cancel_fd);
		if (r)
			return fail_send(channel, r, err);
	}
	frame_encode(&out, slot->header);
	if (meta_len)
		memcpy(slot->header + FRAME_HEADER_SIZE, meta, meta_len);
	iov[0] =
		(struct iovec){ .iov_base = slot->header, .iov_len = FRAME_HEADER_SIZE + meta_len };
	r = channel->ops->send(channel, iov, count, iov[0].iov_len + out.length, slot);
	return r ? fail_send(channel, r, err) : 0;
}

int channel_flush(struct channel *channel, struct error *err)
{
	for (unsigned int i = 0; i < channel->slot_count; i++) {
		int r = channel->slots[i].in_use ? channel->ops->settle(channel, &channel->slots[i])
						 : 0;

		if (r)
			return fail_send(channel, r, err);
	}
	return 0;
}

/* One buffer, whole. An end of the stream is -ENODATA only where it may be. */
static int receive_buffer(struct channel *channel, void *buf, size_t len, int first_ms,
			  bool may_end, struct error *err)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	size_t done = 0;
	int r;

	if (!len)
		return 0;
	r = channel->ops->receive(channel, &iov, 1, first_ms, &done);
	if (r == -ENODATA && may_end && !done) {
		channel->failed = true;
		return error_set(err, ENODATA, "migration connection %u: closed by the peer",
				 channel->options.stream);
	}
	if (r == -ENODATA)
		r = -ECONNRESET;
	if (!r)
		return 0;
	return fail_after(channel, r, "receive", done ? channel->options.timeout_ms : first_ms,
			  err);
}

/* A source with TLS, and nobody told us: what it can be told is this. */
static int answer_tls_source(struct channel *channel, struct error *err)
{
	struct error why = ERROR_INIT;

	error_set(&why, EPROTO, "the peer speaks TLS, and this side was given no tls_dir");
	channel_send_failed(channel, &why);
	channel->cut = true;
	if (err)
		*err = why;
	return why.code;
}

static int receive_header(struct channel *channel, struct frame *frame, int idle_ms,
			  struct error *err)
{
	int timeout_ms = channel->options.timeout_ms, r;

	/* The first byte may take as long as it likes; from then on it is a stall. */
	r = receive_buffer(channel, channel->header, 1, idle_ms, true, err);
	if (!r)
		r = receive_buffer(channel, channel->header + 1, FRAME_HEADER_SIZE - 1, timeout_ms,
				   false, err);
	if (!r && !channel->tls && tls_is_handshake(channel->header))
		r = answer_tls_source(channel, err);
	if (!r)
		r = frame_decode(frame, channel->header, err);
	if (!r)
		r = receive_buffer(channel, channel->meta, frame->meta_len, timeout_ms, false, err);
	if (!r && crc32c(0, channel->meta, frame->meta_len) != frame->meta_crc)
		r = error_set(err, EBADMSG, "metadata of the peer is damaged (CRC32C)");
	if (r)
		channel->failed = true;
	return r;
}

static bool skippable(const struct frame *frame)
{
	return frame->type >= FRAME_TYPES || frame->type == 0;
}

static int skip_payload(struct channel *channel, const struct frame *frame, struct error *err)
{
	uint8_t waste[4096];
	uint64_t left = frame->length;

	while (left) {
		size_t part = MIN(left, sizeof(waste));
		int r = receive_buffer(channel, waste, part, channel->options.timeout_ms, false,
				       err);

		if (r)
			return r;
		left -= part;
	}
	return 0;
}

int channel_receive(struct channel *channel, struct frame *frame, int idle_ms, struct error *err)
{
	for (;;) {
		int r;

		/* Nobody would wait for it: poll() does not see it. */
		if (channel->tls && tls_session_pending(channel->tls))
			return fail(channel, -EBADMSG, "receive what begins inside a TLS record",
				    err);
		r = receive_header(channel, frame, idle_ms, err);

		if (r || !skippable(frame))
			return r;
		r = skip_payload(channel, frame, err);
		if (r)
			return r;
	}
}

const uint8_t *channel_meta(const struct channel *channel)
{
	return channel->meta;
}

int channel_receive_payload(struct channel *channel, const struct frame *frame,
			    const struct iovec *iov, unsigned int count, struct error *err)
{
	struct iovec left[CHANNEL_IOV_MAX];
	uint64_t len = 0;
	uint32_t crc = 0;
	size_t done = 0;
	int r;

	for (unsigned int i = 0; i < count; i++)
		len += iov[i].iov_len;
	if (count > CHANNEL_IOV_MAX || len != frame->length)
		return fail(channel, -EMSGSIZE, "receive", err);
	if (!len)
		return 0;
	memcpy(left, iov, count * sizeof(*iov));
	r = channel->ops->receive(channel, left, count, channel->options.timeout_ms, &done);
	if (r)
		return fail(channel, r == -ENODATA ? -ECONNRESET : r, "receive", err);
	if (!(frame->flags & FRAME_PAYLOAD_CRC))
		return 0;
	for (unsigned int i = 0; i < count; i++)
		crc = crc32c(crc, iov[i].iov_base, iov[i].iov_len);
	if (crc == frame->payload_crc)
		return 0;
	channel->failed = true;
	return error_set(err, EBADMSG, "payload of the peer is damaged (CRC32C)");
}

int channel_receive_blob(struct channel *channel, const struct frame *frame, void **blob,
			 struct error *err)
{
	struct iovec iov = { .iov_len = frame->length };
	int r;

	if (!(frame->flags & FRAME_PAYLOAD_CRC) && frame->length)
		return fail(channel, -EPROTO, "receive what has no checksum", err);
	iov.iov_base = malloc(frame->length + 1); /* bounded by frame_decode */
	if (!iov.iov_base)
		return fail(channel, -ENOMEM, "receive", err);
	r = channel_receive_payload(channel, frame, &iov, 1, err);
	if (r) {
		free(iov.iov_base);
		return r;
	}
	((uint8_t *)iov.iov_base)[frame->length] = 0;
	*blob = iov.iov_base;
	return 0;
}

int channel_send_fds(struct channel *channel, const struct frame *frame, const void *meta,
		     size_t meta_len, const int *fds, unsigned int count, struct error *err)
{
	struct frame out = *frame;
	uint8_t *header = channel->slots[0].header;
	ssize_t r;

	if (channel->ops != &channel_plain_ops || channel->tls || meta_len > FRAME_META_MAX)
		return fail(channel, -EINVAL, "send descriptors", err);
	out.stream = channel->options.stream;
	out.meta_len = (uint32_t)meta_len;
	out.meta_crc = crc32c(0, meta, meta_len);
	frame_encode(&out, header);
	memcpy(header + FRAME_HEADER_SIZE, meta, meta_len);
	/* A few KiB, and nothing before it that the peer has not read. */
	r = fd_send(channel->fd, header, FRAME_HEADER_SIZE + meta_len, fds, count);
	if (!r)
		channel->sent += FRAME_HEADER_SIZE + meta_len;
	return r ? fail(channel, (int)r, "send descriptors", err) : 0;
}

unsigned int channel_take_fds(struct channel *channel, int *fds, unsigned int max)
{
	unsigned int n = 0;

	while (n < max && n < channel->fd_count) {
		fds[n] = channel->fds[n];
		n++;
	}
	for (unsigned int i = n; i < channel->fd_count; i++)
		close(channel->fds[i]);
	channel->fd_count = 0;
	return n;
}

size_t channel_encode_failed(const struct channel *channel, const struct error *reason,
			     uint8_t *buf)
{
	size_t meta_len = failed_encode(reason, buf + FRAME_HEADER_SIZE);
	struct frame frame = {
		.type = FRAME_FAILED,
		.stream = channel->options.stream,
		.meta_len = (uint32_t)meta_len,
		.meta_crc = crc32c(0, buf + FRAME_HEADER_SIZE, meta_len),
	};

	frame_encode(&frame, buf);
	return FRAME_HEADER_SIZE + meta_len;
}

void channel_send_failed(struct channel *channel, const struct error *reason)
{
	uint8_t meta[FAILED_SIZE_MAX];

	if (channel->cut)
		return;
	channel_set_cancel(channel, -1);
	channel_set_timeout(channel, FAILED_TIMEOUT_MS);
	channel_send(channel, &(struct frame){ .type = FRAME_FAILED }, meta,
		     failed_encode(reason, meta), NULL, 0, NULL);
}
