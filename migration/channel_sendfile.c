/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RAM to a peer on the same host, by sendfile(2): the socket refers to the memfd's pages, and
 * the one copy is the peer's, into its own RAM. Zero-copy of io_uring cannot do that: what it
 * sends is pinned memory, which the kernel copies before it delivers it locally.
 */
#include <errno.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "migration/channel_private.h"

/* Runs of pages that are shorter on average cost more as calls of their own. */
#define RUN_MIN (16 * KIB)

static void count_bytes(struct channel *channel, ssize_t sent)
{
	atomic_fetch_add_explicit(&channel->sent, (uint64_t)sent, memory_order_relaxed);
}

/* After a call that failed with errno: 0, it is to be made again. */
static int try_again(struct channel *channel)
{
	if (errno == EAGAIN)
		return channel_plain_wait(channel, POLLOUT, channel->options.timeout_ms);
	return errno == EINTR ? 0 : -errno;
}

static int send_header(struct channel *channel, const struct iovec *header)
{
	const uint8_t *data = header->iov_base;
	size_t left = header->iov_len;

	while (left) {
		ssize_t n = send(channel->fd, data, left, MSG_NOSIGNAL | MSG_MORE);
		int r = n < 0 ? try_again(channel) : 0;

		if (r)
			return r;
		if (n < 0)
			continue;
		data += n;
		left -= (size_t)n;
		count_bytes(channel, n);
	}
	return 0;
}

/* *run is what is left of it. -EINVAL: the file or the socket cannot. */
static int send_run(struct channel *channel, const struct channel_file *file, struct iovec *run)
{
	while (run->iov_len) {
		off_t at = (off_t)file->offset + ((uint8_t *)run->iov_base - file->hva);
		ssize_t n = sendfile(channel->fd, file->fd, &at, run->iov_len);
		int r = n < 0 ? try_again(channel) : 0;

		if (r)
			return r;
		if (!n)
			return -EINVAL; /* it ends here: RAM does not */
		if (n < 0)
			continue;
		run->iov_base = (uint8_t *)run->iov_base + n;
		run->iov_len -= (size_t)n;
		count_bytes(channel, n);
	}
	return 0;
}

bool channel_sendfile_pays(const struct channel *channel, const struct channel_file *file,
			   unsigned int runs, size_t len)
{
	return channel->sendfile && file && file->fd >= 0 && runs && len / runs >= RUN_MIN;
}

int channel_sendfile(struct channel *channel, struct iovec *iov, unsigned int count,
		     const struct channel_file *file)
{
	int r = channel_plain_cancelled(channel) ? -ECANCELED : send_header(channel, &iov[0]);

	for (unsigned int i = 1; !r && i < count; i++) {
		r = channel->sendfile ? send_run(channel, file, &iov[i]) : 0;
		/* hugetlbfs has no splicing. */
		if (r == -EINVAL) {
			channel->sendfile = false;
			r = 0;
		}
		if (!r && iov[i].iov_len)
			r = channel_plain_ops.send(channel, &iov[i], 1, iov[i].iov_len, NULL);
	}
	return r;
}
