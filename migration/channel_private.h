/* SPDX-License-Identifier: Apache-2.0 */
/* What channel*.c share; nobody else includes this. */
#ifndef MIGRATION_CHANNEL_PRIVATE_H
#define MIGRATION_CHANNEL_PRIVATE_H

#include <stdatomic.h>

#include "base/fd.h"
#include "migration/channel.h"
#include "migration/tls.h"

#define CHANNEL_SLOTS 16 /* frames whose header the kernel may still read: zero-copy */
#define CHANNEL_IOV_MAX (PAGE_RUNS_MAX + 1)

struct channel_slot {
	uint8_t header[FRAME_HEADER_SIZE + FRAME_META_MAX];
	unsigned int in_use; /* notifications to come */
};

struct channel_ops {
	const char *name;
	/*
	 * Sends or receives all of it; iov is used up. 0, -errno of the system; -ENODATA
	 * end of the stream, with *done bytes before it; -ETIMEDOUT, -ECANCELED. first_ms:
	 * the timeout for the first byte.
	 */
	int (*send)(struct channel *channel, struct iovec *iov, unsigned int count, size_t len,
		    struct channel_slot *slot);
	int (*receive)(struct channel *channel, struct iovec *iov, unsigned int count, int first_ms,
		       size_t *done);
	/* Waits until a slot may be used again; NULL: never in use. */
	int (*settle)(struct channel *channel, struct channel_slot *slot);
	void (*close)(struct channel *channel);
};

struct channel {
	const struct channel_ops *ops;
	struct channel_options options;
	int fd;
	bool failed;
	bool cut; /* in the middle of a frame to the peer */
	_Atomic uint64_t sent, received;
	uint8_t header[FRAME_HEADER_SIZE]; /* received */
	uint8_t meta[FRAME_META_MAX];
	int fds[FD_PASS_MAX];
	unsigned int fd_count;
	uint8_t *copy; /* of pages, FRAME_PAGES_MAX bytes; with checksum */
	unsigned int next_slot, slot_count;
	struct channel_slot *slots;
	bool zero_copy;
	struct tls_session *tls;	      /* NULL: none; else ops are channel_tls.c's ... */
	const struct channel_ops *socket_ops; /* ... over these */
	struct channel_ring *ring;	      /* channel_uring.c */
};

extern const struct channel_ops channel_plain_ops;
extern const struct channel_ops channel_uring_ops;
extern const struct channel_ops channel_tls_ops;

/* -EOPNOTSUPP and others where the host has no io_uring that is good enough. */
int channel_uring_open(struct channel *channel);

/* A whole FAILED frame; returns how much of buf (FRAME_HEADER_SIZE + FAILED_SIZE_MAX) it took. */
size_t channel_encode_failed(const struct channel *channel, const struct error *reason,
			     uint8_t *buf);

/* iov without its first `done` bytes: returns how many of its entries are used up. */
unsigned int channel_advance(struct iovec *iov, unsigned int count, size_t done);

#endif
