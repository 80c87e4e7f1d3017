/* SPDX-License-Identifier: Apache-2.0 */
/* A channel by sendmsg(2) and recvmsg(2) on a non-blocking socket. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "migration/channel_private.h"

static int wait_for(struct channel *channel, short events, int timeout_ms)
{
	struct pollfd p[2] = { { .fd = channel->fd, .events = events },
			       { .fd = channel->options.cancel_fd, .events = POLLIN } };
	int n;

	do
		n = poll(p, 2, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (!n)
		return -ETIMEDOUT;
	return p[1].revents ? -ECANCELED : 0;
}

/* Cancelled, though nothing makes us wait? */
static bool cancelled(struct channel *channel)
{
	struct pollfd p = { .fd = channel->options.cancel_fd, .events = POLLIN };

	return p.fd >= 0 && poll(&p, 1, 0) > 0;
}

static int plain_send(struct channel *channel, struct iovec *iov, unsigned int count, size_t len,
		      struct channel_slot *slot)
{
	if (cancelled(channel))
		return -ECANCELED;
	while (len) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };
		ssize_t n = sendmsg(channel->fd, &msg, MSG_NOSIGNAL);
		unsigned int used;
		int r = 0;

		if (n < 0 && errno == EAGAIN)
			r = wait_for(channel, POLLOUT, channel->options.timeout_ms);
		else if (n < 0 && errno != EINTR)
			r = -errno;
		if (r)
			return r;
		if (n < 0)
			continue;
		used = channel_advance(iov, count, (size_t)n);
		iov += used;
		count -= used;
		len -= (size_t)n;
		atomic_fetch_add_explicit(&channel->sent, (uint64_t)n, memory_order_relaxed);
	}
	return 0;
}

/* Descriptors are kept until somebody takes them; more than fit are closed. */
static void keep_fds(struct channel *channel, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (channel->fd_count < FD_PASS_MAX)
				channel->fds[channel->fd_count++] = fd;
			else
				close(fd);
		}
	}
}

static ssize_t receive_some(struct channel *channel, struct iovec *iov, unsigned int count)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * FD_PASS_MAX)];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {
		.msg_iov = iov,
		.msg_iovlen = count,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t n = recvmsg(channel->fd, &msg, MSG_CMSG_CLOEXEC);

	if (n < 0)
		return -errno;
	keep_fds(channel, &msg);
	return n ? n : -ENODATA;
}

static int plain_receive(struct channel *channel, struct iovec *iov, unsigned int count,
			 int first_ms, size_t *done)
{
	if (cancelled(channel))
		return -ECANCELED;
	while (count) {
		ssize_t n = receive_some(channel, iov, count);
		unsigned int used;
		int r = 0;

		if (n == -EAGAIN)
			r = wait_for(channel, POLLIN,
				     *done ? channel->options.timeout_ms : first_ms);
		else if (n < 0 && n != -EINTR)
			r = (int)n;
		if (r)
			return r;
		if (n < 0)
			continue;
		used = channel_advance(iov, count, (size_t)n);
		iov += used;
		count -= used;
		*done += (size_t)n;
		atomic_fetch_add_explicit(&channel->received, (uint64_t)n, memory_order_relaxed);
	}
	return 0;
}

static void plain_close(struct channel *channel)
{
}

const struct channel_ops channel_plain_ops = {
	.name = "plain",
	.send = plain_send,
	.receive = plain_receive,
	.close = plain_close,
};
