/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/console_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"

/* /dev/ptmx: opening it anew makes another terminal. */
static bool is_ptmx(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(5, 2);
}

/*
 * O_NONBLOCK belongs to the open file description, which a terminal or pipe shares
 * with the shell and every other program on it: get one that is ours alone.
 */
static int reopen(int fd, bool output)
{
	char path[64];
	struct stat st;

	if (fstat(fd, &st) || is_ptmx(&st) || !(S_ISFIFO(st.st_mode) || isatty(fd)))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, (output ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

void console_stream_open(struct console_stream *stream, int fd, bool output)
{
	int flags;

	*stream = (struct console_stream){ .fd = fd };
	if (fd < 0)
		return;
	fd = reopen(fd, output);
	if (fd >= 0) {
		stream->fd = fd;
		stream->own = true;
		return;
	}
	flags = fcntl(stream->fd, F_GETFL);
	stream->restore =
		flags >= 0 && !(flags & O_NONBLOCK) && !fd_set_nonblocking(stream->fd, true);
}

void console_stream_close(struct console_stream *stream)
{
	if (stream->own)
		close(stream->fd);
	else if (stream->restore)
		fd_set_nonblocking(stream->fd, false);
	*stream = (struct console_stream){ .fd = -1 };
}

ssize_t console_stream_write(const struct console_stream *stream, const void *buf, size_t len)
{
	ssize_t n;

	do
		n = write(stream->fd, buf, len);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t console_stream_readv(const struct console_stream *stream, const struct iovec *iov,
			     unsigned int count)
{
	ssize_t n;

	do
		n = readv(stream->fd, iov, (int)MIN(count, (unsigned int)IOV_MAX));
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}
