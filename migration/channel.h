/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel: one connection that carries frames (protocol.h).
 *
 * Behind it is io_uring or plain system calls, with the same behaviour; which, is chosen
 * when the channel is made (io_uring where the host has it and it was not declined) and
 * told by channel_io(). Payload leaves guest memory without being copied by this process
 * and arrives at its final place. Over TCP to another host io_uring can also spare the
 * kernel's copy (SENDMSG_ZC): what was sent so may be used by the kernel until it says it
 * is done, so the channel keeps headers in slots that it reuses only then, and
 * channel_flush() waits for all. To a socket of the same host zero-copy costs a copy more
 * than it spares, on a unix socket there is none: ZERO_COPY_AUTO goes by the addresses.
 *
 * Guest memory is not registered with the ring: registered pages are those that were
 * there at registration. Where the guest gives a page back (balloon) and uses it again,
 * the ring would go on sending the old one. Registering would also allocate every
 * hole, and count against RLIMIT_MEMLOCK. Pages are looked up anew in each send.
 *
 * With TLS (tls.h) the frames go over a session of it, and what is sent is encrypted first:
 * a copy that nothing spares, so there is no zero-copy. The handshake is part of the first
 * frame, in the thread that sends or receives it. Who got a frame to send does not know yet
 * whether the destination takes its certificate: the first frame received tells.
 *
 * Timeouts are for no progress: nothing was sent or received for so long. A channel that
 * returned an error is of no use any more, but to be freed. One thread sends and receives,
 * always the same; the ring is made in the thread that starts all others.
 */
#ifndef MIGRATION_CHANNEL_H
#define MIGRATION_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/thread.h"
#include "migration/bandwidth.h"
#include "migration/protocol.h"
#include "migration/tls.h"

enum channel_kind {
	CHANNEL_AUTO,  /* io_uring, or else plain */
	CHANNEL_PLAIN, /* system calls */
	CHANNEL_URING, /* -EOPNOTSUPP where it cannot be had */
};

enum channel_zero_copy { ZERO_COPY_AUTO, ZERO_COPY_OFF, ZERO_COPY_ON };

struct channel_options {
	enum channel_kind kind;
	enum channel_zero_copy zero_copy; /* of io_uring */
	bool checksum;			  /* of payload that may change while it is sent */
	uint32_t stream;
	int timeout_ms;		       /* -1: none */
	int cancel_fd;		       /* -1: none; readable: everything ends with -ECANCELED */
	struct bandwidth *bandwidth;   /* of payload; NULL: no limit. Outlives the channel */
	const struct tls_context *tls; /* NULL: none. Outlives the channel */
	const struct thread_policy *policy;
};

struct channel;

/* Takes over fd, a connected stream socket, also on failure. */
struct channel *channel_new(int fd, const struct channel_options *options, struct error *err);
/* Closes. After an error what is on its way is dropped. NULL is allowed. */
void channel_free(struct channel *channel);
/* Frees it and makes another of its connection, with its TLS if it has that: nothing was read
 * ahead. The connection is closed on failure. */
struct channel *channel_renew(struct channel *channel, const struct channel_options *options,
			      struct error *err);

int channel_fd(const struct channel *channel);	       /* for poll */
const char *channel_io(const struct channel *channel); /* "io_uring", "plain" */
/* Of an error of something else than the channel, while it was in use: a device's server that
 * is gone (ECONNRESET) is no peer that is gone, which would be asked why. Its code becomes
 * -EIO, unless the channel has failed. */
void channel_disown_error(const struct channel *channel, struct error *err);
bool channel_zero_copy(const struct channel *channel);
uint64_t channel_sent(const struct channel *channel); /* bytes, any thread */
uint64_t channel_received(const struct channel *channel);

void channel_set_timeout(struct channel *channel, int timeout_ms);
/* -1, or what it was made with. */
void channel_set_cancel(struct channel *channel, int cancel_fd);

/*
 * One frame: type, flags and offset of `frame` count, the rest is filled in. Payload of
 * PAGES may change meanwhile (the guest runs): with `checksum` it is copied first, else it
 * has no checksum. All other payload has one.
 */
int channel_send(struct channel *channel, const struct frame *frame, const void *meta,
		 size_t meta_len, const struct iovec *payload, unsigned int count,
		 struct error *err);
/* Nothing that was given to channel_send is in use any more. */
int channel_flush(struct channel *channel, struct error *err);

/*
 * The next frame: header and metadata, both checked. Then the payload, if it has one, with
 * channel_receive_payload (into places that add up to frame->length) or
 * channel_receive_blob. Frames that may be skipped are. -ENODATA: closed by the peer
 * between frames, -ECONNRESET: within one. idle_ms: how long a frame may take to begin;
 * -1: for ever.
 */
int channel_receive(struct channel *channel, struct frame *frame, int idle_ms, struct error *err);
const uint8_t *channel_meta(const struct channel *channel); /* frame->meta_len bytes */
int channel_receive_payload(struct channel *channel, const struct frame *frame,
			    const struct iovec *iov, unsigned int count, struct error *err);
/* malloc'ed, with a 0 behind its end. */
int channel_receive_blob(struct channel *channel, const struct frame *frame, void **blob,
			 struct error *err);

/* As above, with descriptors (unix sockets, kind plain): those of MEMORY. */
int channel_send_fds(struct channel *channel, const struct frame *frame, const void *meta,
		     size_t meta_len, const int *fds, unsigned int count, struct error *err);
/* Of the frame received last; whoever takes them closes them. Returns how many. */
unsigned int channel_take_fds(struct channel *channel, int *fds, unsigned int max);

/* channel_send of a FAILED, best effort, without waiting long; also where the channel has
 * failed otherwise than by sending. */
void channel_send_failed(struct channel *channel, const struct error *reason);

#endif
