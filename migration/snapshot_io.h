/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads and writes of a snapshot's RAM: several in flight by io_uring, or one after the
 * other by plain system calls where there is none. Private to migration/.
 *
 * Each object belongs to the thread that uses it. Buffers are not registered: a page is
 * read or written once, and pinning it once for that costs what pinning it once for good
 * does, without allocating RAM that the guest never touched, or its pages staying pinned.
 */
#ifndef MIGRATION_SNAPSHOT_IO_H
#define MIGRATION_SNAPSHOT_IO_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/thread.h"

#define SNAPSHOT_IO_DEPTH 16 /* requests in flight */

struct snapshot_io_request {
	bool used, write;
	unsigned int file;
	uint8_t *buf;
	size_t len;
	uint64_t offset;
	void *tag;
	int result;
};

struct snapshot_io {
	bool ring_made;
	struct io_uring ring;
	const int *fds; /* the caller's, as long as this lives */
	unsigned int in_flight;
	struct snapshot_io_request requests[SNAPSHOT_IO_DEPTH];
	const struct thread_policy *policy;
};

/* By any thread. Never fails: without a ring it is plain. */
void snapshot_io_init(struct snapshot_io *io, const int *fds, unsigned int count, bool plain,
		      const struct thread_policy *policy);
/* By the thread that uses it, first. */
void snapshot_io_start(struct snapshot_io *io);
/* Waits for what is in flight, and lets go of the files: by the thread that used it. */
void snapshot_io_stop(struct snapshot_io *io);
/* By any thread. */
void snapshot_io_destroy(struct snapshot_io *io);

static inline bool snapshot_io_is_full(const struct snapshot_io *io)
{
	return io->in_flight == SNAPSHOT_IO_DEPTH;
}

/* Not while it is full. `file`: index into fds. All of the bytes are transferred or
 * the request fails; -ENODATA: the file ends before. */
void snapshot_io_read(struct snapshot_io *io, unsigned int file, void *buf, size_t len,
		      uint64_t offset, void *tag);
void snapshot_io_write(struct snapshot_io *io, unsigned int file, const void *buf, size_t len,
		       uint64_t offset, void *tag);
/* Waits until one request is done, of those in flight (there must be one). *len: its bytes. 0 or
 * -errno of it. */
int snapshot_io_wait(struct snapshot_io *io, void **tag, size_t *len);

#endif
