/* SPDX-License-Identifier: Apache-2.0 */
/* Messages out, and messages in: checked against what was asked before a byte of their
 * payload is believed. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "vfio/user_connection_private.h"

const char *user_command_name(uint16_t command)
{
	static const char *const names[] = {
		[VFIO_USER_VERSION] = "VERSION",
		[VFIO_USER_DMA_MAP] = "DMA_MAP",
		[VFIO_USER_DMA_UNMAP] = "DMA_UNMAP",
		[VFIO_USER_DEVICE_GET_INFO] = "DEVICE_GET_INFO",
		[VFIO_USER_DEVICE_GET_REGION_INFO] = "DEVICE_GET_REGION_INFO",
		[VFIO_USER_DEVICE_GET_REGION_IO_FDS] = "DEVICE_GET_REGION_IO_FDS",
		[VFIO_USER_DEVICE_GET_IRQ_INFO] = "DEVICE_GET_IRQ_INFO",
		[VFIO_USER_DEVICE_SET_IRQS] = "DEVICE_SET_IRQS",
		[VFIO_USER_REGION_READ] = "REGION_READ",
		[VFIO_USER_REGION_WRITE] = "REGION_WRITE",
		[VFIO_USER_DMA_READ] = "DMA_READ",
		[VFIO_USER_DMA_WRITE] = "DMA_WRITE",
		[VFIO_USER_DEVICE_RESET] = "DEVICE_RESET",
		[VFIO_USER_DIRTY_PAGES] = "DIRTY_PAGES",
		[VFIO_USER_REGION_WRITE_MULTI] = "REGION_WRITE_MULTI",
		[VFIO_USER_DEVICE_FEATURE] = "DEVICE_FEATURE",
		[VFIO_USER_MIG_DATA_READ] = "MIG_DATA_READ",
		[VFIO_USER_MIG_DATA_WRITE] = "MIG_DATA_WRITE",
	};

	return command < ARRAY_SIZE(names) && names[command] ? names[command] : "unknown command";
}

struct outgoing {
	struct iovec iov[3];
	struct msghdr msg;
	union {
		char buf[CMSG_SPACE(sizeof(int) * FD_PASS_MAX)];
		struct cmsghdr align;
	} control;
};

static void attach_fds(struct outgoing *out, const int *fds, unsigned int count)
{
	struct cmsghdr *c = &out->control.align;

	if (!count)
		return;
	memset(&out->control, 0, sizeof(out->control));
	out->msg.msg_control = out->control.buf;
	out->msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * count);
	memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
}

/* Takes n sent bytes off the front; false where nothing is left. */
static bool advance(struct outgoing *out, size_t n)
{
	out->msg.msg_control = NULL; /* descriptors went with the first byte */
	out->msg.msg_controllen = 0;
	while (out->msg.msg_iovlen && n >= out->msg.msg_iov->iov_len) {
		n -= out->msg.msg_iov->iov_len;
		out->msg.msg_iov++;
		out->msg.msg_iovlen--;
	}
	if (!out->msg.msg_iovlen)
		return false;
	out->msg.msg_iov->iov_base = (char *)out->msg.msg_iov->iov_base + n;
	out->msg.msg_iov->iov_len -= n;
	return true;
}

static void send_locked(struct user_connection *c, struct outgoing *out, uint16_t command,
			uint64_t deadline)
{
	for (;;) {
		ssize_t n = sendmsg(c->o.fd, &out->msg, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n >= 0) {
			if (!advance(out, (size_t)n))
				return;
		} else if (errno == EAGAIN) {
			if (!user_wait_for(c, POLLOUT, deadline)) {
				user_connection_lose(c, "the server has not read for %u ms",
						     c->o.timeout_ms);
				return;
			}
		} else if (errno != EINTR) {
			if (errno == EPIPE || errno == ECONNRESET)
				user_connection_lose(c, "the server closed the connection");
			else
				user_connection_lose(c, "cannot send %s: %s",
						     user_command_name(command),
						     strerrordesc_np(errno));
			return;
		}
	}
}

/* A failure loses the connection. */
void user_send(struct user_connection *c, struct vfio_user_header *header,
	       const struct iovec data[2], const int *fds, unsigned int fd_count)
{
	struct outgoing out = {
		.iov = { { header, sizeof(*header) } },
		.msg = { .msg_iov = out.iov, .msg_iovlen = 1 },
	};

	header->size = sizeof(*header);
	for (unsigned int i = 0; i < 2; i++) {
		if (!data[i].iov_len)
			continue;
		out.iov[out.msg.msg_iovlen++] = data[i];
		header->size += (uint32_t)data[i].iov_len;
	}
	attach_fds(&out, fds, fd_count);
	pthread_mutex_lock(&c->send_lock);
	send_locked(c, &out, header->command, clock_ms() + c->o.timeout_ms);
	pthread_mutex_unlock(&c->send_lock);
}

void user_receive_reset(struct rx *rx)
{
	while (rx->fd_count)
		close(rx->fds[--rx->fd_count]);
	rx->have = 0;
}

struct user_call *user_find_call_locked(struct user_connection *c, uint16_t id)
{
	for (struct user_call *call = c->calls; call; call = call->next)
		if (call->id == id && !call->done)
			return call;
	return NULL;
}

/* What is wrong with the header of a reply: 0, or -1 and the connection is lost. */
static int check_reply_header(struct user_connection *c, const struct vfio_user_header *h)
{
	size_t payload = h->size - sizeof(*h), fixed = 0, room = 0;
	struct user_call *call;
	uint16_t command = 0;

	pthread_mutex_lock(&c->lock);
	call = user_find_call_locked(c, h->id);
	if (call) {
		command = call->command;
		fixed = call->in[0].iov_len;
		room = fixed + call->in[1].iov_len;
	}
	pthread_mutex_unlock(&c->lock);
	if (!call)
		user_connection_lose(c,
				     "the server replied to a message (id %u, %s) that nobody sent",
				     h->id, user_command_name(h->command));
	else if (h->command != command)
		user_connection_lose(c, "the server replied to %s with %s (%u)",
				     user_command_name(command), user_command_name(h->command),
				     h->command);
	else if (h->flags & VFIO_USER_ERROR && payload)
		user_connection_lose(c, "the server's error reply to %s carries %zu bytes",
				     user_command_name(command), payload);
	else if (!(h->flags & VFIO_USER_ERROR) && payload < fixed)
		user_connection_lose(c, "the server's reply to %s has %zu bytes, %zu are needed",
				     user_command_name(command), payload, fixed);
	else if (payload > room)
		user_connection_lose(c,
				     "the server's reply to %s has %zu bytes, %zu were asked for",
				     user_command_name(command), payload, room);
	else
		return 0;
	return -1;
}

static int check_header(struct user_connection *c)
{
	const struct vfio_user_header *h = &c->rx.header;
	uint32_t type = h->flags & VFIO_USER_TYPE_MASK;

	if (h->size < sizeof(*h) || h->size - sizeof(*h) > USER_PAYLOAD_MAX)
		user_connection_lose(c, "the server sent a message (%s) of %u bytes",
				     user_command_name(h->command), h->size);
	else if (type == VFIO_USER_TYPE_REPLY)
		return check_reply_header(c, h);
	else if (type != VFIO_USER_TYPE_COMMAND)
		user_connection_lose(c, "the server sent a message of unknown type %u", type);
	else if (h->command != VFIO_USER_DMA_READ && h->command != VFIO_USER_DMA_WRITE)
		user_connection_lose(c, "the server sent the command %u (%s), which no server may",
				     h->command, user_command_name(h->command));
	else
		return 0;
	return -1;
}

static void complete_locked(struct user_connection *c, struct user_call *call)
{
	const struct vfio_user_header *h = &c->rx.header;
	size_t payload = h->size - sizeof(*h);

	if (h->flags & VFIO_USER_ERROR) {
		call->result = h->error && h->error < 4096 ? -(int)h->error : -EIO;
	} else {
		size_t fixed = call->in[0].iov_len;

		if (fixed)
			memcpy(call->in[0].iov_base, c->rx.payload, fixed);
		call->received = payload - fixed;
		if (call->received)
			memcpy(call->in[1].iov_base, c->rx.payload + fixed, call->received);
		call->reply_fd_count = c->rx.fd_count;
		for (unsigned int i = 0; i < c->rx.fd_count; i++)
			call->reply_fds[i] = c->rx.fds[i];
		c->rx.fd_count = 0;
	}
	call->done = true;
	pthread_cond_broadcast(&c->changed);
}

/* The caller may have given up meanwhile, and its buffers with it: only under the lock,
 * and only what is still on the list, is written to. */
static void rx_reply(struct user_connection *c)
{
	struct user_call *call;
	unsigned int fds = c->rx.fd_count, fds_max = 0;

	pthread_mutex_lock(&c->lock);
	call = c->lost ? NULL : user_find_call_locked(c, c->rx.header.id);
	if (call) {
		fds_max = call->reply_fds_max;
		if (fds <= fds_max)
			complete_locked(c, call);
	}
	pthread_mutex_unlock(&c->lock);
	if (call && fds > fds_max)
		user_connection_lose(
			c,
			"the server's reply to %s carries %u descriptors, at most %u belong there",
			user_command_name(c->rx.header.command), fds, fds_max);
}

static void rx_command(struct user_connection *c)
{
	struct vfio_user_header reply = {
		.id = c->rx.header.id,
		.command = c->rx.header.command,
		.flags = VFIO_USER_TYPE_REPLY,
	};
	struct iovec data[2] = { { c->rx.payload, 0 } };
	size_t payload = c->rx.header.size - sizeof(reply);
	ssize_t n;

	if (c->rx.fd_count) {
		user_connection_lose(c, "the server sent descriptors with %s",
				     user_command_name(reply.command));
		return;
	}
	n = c->o.serve(c->o.opaque, reply.command, c->rx.payload, payload);
	if (n == -EBADMSG) {
		user_connection_lose(c, "the server sent a %s of %zu bytes that makes no sense",
				     user_command_name(reply.command), payload);
		return;
	}
	if (c->rx.header.flags & VFIO_USER_NO_REPLY)
		return;
	if (n < 0) {
		reply.flags |= VFIO_USER_ERROR;
		reply.error = (uint32_t)-n;
	} else {
		data[0].iov_len = (size_t)n;
	}
	user_send(c, &reply, data, NULL, 0);
}

/* One piece of the message: 1, or 0 where the socket is empty, or -1 (lost). */
static int rx_piece(struct user_connection *c)
{
	struct rx *rx = &c->rx;
	bool in_header = rx->have < sizeof(rx->header);
	uint8_t *to = in_header ? (uint8_t *)&rx->header + rx->have
				: rx->payload + (rx->have - sizeof(rx->header));
	size_t want = (in_header ? sizeof(rx->header) : rx->header.size) - rx->have;
	unsigned int fds = FD_PASS_MAX - rx->fd_count;
	ssize_t n = fd_recv(c->o.fd, to, want, rx->fds + rx->fd_count, &fds);

	if (n == -EAGAIN)
		return 0;
	if (n == -EMFILE)
		user_connection_lose(
			c,
			"the server sent more descriptors than %u, or than this process may open",
			FD_PASS_MAX);
	else if (n == 0 || n == -ECONNRESET)
		user_connection_lose(c, "the server closed the connection%s",
				     rx->have ? " within a message" : "");
	else if (n < 0)
		user_connection_lose(c, "cannot receive: %s", strerrordesc_np((int)-n));
	if (n <= 0)
		return -1;
	rx->fd_count += fds;
	rx->have += (size_t)n;
	return in_header && rx->have == sizeof(rx->header) ? (check_header(c) ? -1 : 1) : 1;
}

/* One message: 1 where it was dealt with, 0 where it is not all there yet, -1 lost. */
int user_receive(struct user_connection *c)
{
	struct rx *rx = &c->rx;

	while (rx->have < sizeof(rx->header) || rx->have < rx->header.size) {
		int r = rx_piece(c);

		if (r <= 0)
			return r;
	}
	if ((rx->header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_REPLY)
		rx_reply(c);
	else
		rx_command(c);
	user_receive_reset(rx);
	return 1;
}
