/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of a console on the host: a terminal, pipe, socket or file that
 * is read or written without ever blocking.
 */
#ifndef DEVICES_VIRTIO_CONSOLE_STREAM_H
#define DEVICES_VIRTIO_CONSOLE_STREAM_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

struct console_stream {
	int fd;	      /* what to use; -1: none */
	bool own;     /* fd is a description of our own */
	bool restore; /* the caller's fd was blocking before */
};

/* fd may be -1. Never fails: where the host refuses, the fd is used as it is. */
void console_stream_open(struct console_stream *stream, int fd, bool output);
/* Closes what was opened, and leaves the caller's fd as it was. */
void console_stream_close(struct console_stream *stream);

/* Bytes, -EAGAIN, another -errno; reading: 0 at the end. */
ssize_t console_stream_write(const struct console_stream *stream, const void *buf, size_t len);
ssize_t console_stream_readv(const struct console_stream *stream, const struct iovec *iov,
			     unsigned int count);

#endif
