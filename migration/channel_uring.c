/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel by io_uring: one ring per channel, one send or receive in it at a time, and a
 * poll of the cancel fd beside it. The ring is made by the thread that may, restricted to
 * what a channel does to its own two descriptors, and started by the thread that uses it.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "migration/channel_private.h"

#define SQ_ENTRIES 8U
#define CQ_ENTRIES 64U /* an op, its notifications, a poll */

/* user_data */
#define TAG_CANCEL 1U
#define TAG_OP 2U
#define TAG_SLOT 16U /* and its index; notifications of zero-copy sends */

struct channel_ring {
	struct io_uring ring;
	bool started, cancelled;
	bool pending; /* an op is in the kernel */
	int result;   /* of the op that ended last */
};

/* What liburing 2.3's shared library lacks. */
static int ring_register(struct io_uring *ring, unsigned int op, const void *arg, unsigned int n)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, op, arg, n) < 0 ? -errno : 0;
}

static int set_up(struct io_uring *ring)
{
	/* Completions when we ask (6.1), or when we are in the kernel (5.19), or anyhow. */
	static const unsigned int setups[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	int r = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(setups) && r == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = setups[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
			.cq_entries = CQ_ENTRIES,
		};

		r = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
	}
	if (!r && !(ring->features & IORING_FEAT_EXT_ARG)) {
		io_uring_queue_exit(ring);
		r = -EOPNOTSUPP;
	}
	return r;
}

static int restrict_ring(struct io_uring *ring)
{
	static const uint8_t ops[] = { IORING_OP_SENDMSG, IORING_OP_SENDMSG_ZC, IORING_OP_RECVMSG,
				       IORING_OP_POLL_ADD };
	struct io_uring_restriction rules[ARRAY_SIZE(ops) + 2] = { 0 };
	unsigned int n = 0;

	for (; n < ARRAY_SIZE(ops); n++) {
		rules[n].opcode = IORING_RESTRICTION_SQE_OP;
		rules[n].sqe_op = ops[n];
	}
	rules[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	rules[n++].sqe_flags = IOSQE_FIXED_FILE;
	rules[n].opcode = IORING_RESTRICTION_REGISTER_OP;
	rules[n++].register_op = IORING_UNREGISTER_FILES;
	return ring_register(ring, IORING_REGISTER_RESTRICTIONS, rules, n);
}

int channel_uring_open(struct channel *channel)
{
	/* -1: a sparse entry, where there is nothing to be cancelled by */
	int fds[2] = { channel->fd, channel->options.cancel_fd }, r;
	struct channel_ring *cr = calloc(1, sizeof(*cr));

	if (!cr)
		return -ENOMEM;
	r = set_up(&cr->ring);
	if (r) {
		free(cr);
		return r;
	}
	r = io_uring_register_files(&cr->ring, fds, ARRAY_SIZE(fds));
	if (!r)
		r = restrict_ring(&cr->ring);
	if (r) {
		io_uring_queue_exit(&cr->ring);
		free(cr);
		return r;
	}
	channel->ring = cr;
	return 0;
}

static int start(struct channel *channel)
{
	struct channel_ring *cr = channel->ring;
	struct io_uring_sqe *sqe;
	int r;

	if (cr->started)
		return 0;
	r = ring_register(&cr->ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (r)
		return r;
	cr->started = true;
	if (channel->options.cancel_fd < 0)
		return 0;
	/* What was signalled before is noticed at once, the rest with the next completion. */
	cr->cancelled = poll(&(struct pollfd){ .fd = channel->options.cancel_fd, .events = POLLIN },
			     1, 0) > 0;
	sqe = io_uring_get_sqe(&cr->ring); /* the first of several */
	io_uring_prep_poll_add(sqe, 1, POLLIN);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = TAG_CANCEL;
	return 0;
}

static void take_completion(struct channel *channel, const struct io_uring_cqe *cqe)
{
	struct channel_ring *cr = channel->ring;
	uint64_t tag = cqe->user_data;

	if (tag == TAG_CANCEL) {
		cr->cancelled = true;
		return;
	}
	if (tag >= TAG_SLOT) {
		struct channel_slot *slot = &channel->slots[tag - TAG_SLOT];

		if (cqe->flags & IORING_CQE_F_NOTIF) {
			slot->in_use--;
			return;
		}
		if (cqe->flags & IORING_CQE_F_MORE)
			slot->in_use++;
	}
	cr->pending = false;
	cr->result = cqe->res;
}

static void reap(struct channel *channel)
{
	struct io_uring *ring = &channel->ring->ring;
	struct io_uring_cqe *cqe;
	unsigned int head, n = 0;

	io_uring_for_each_cqe(ring, head, cqe)
	{
		take_completion(channel, cqe);
		n++;
	}
	io_uring_cq_advance(ring, n);
}

/* Submits what there is, waits for a completion, and takes all there are. */
static int turn(struct channel *channel, int timeout_ms)
{
	struct __kernel_timespec ts = {
		.tv_sec = timeout_ms / 1000,
		.tv_nsec = (long long)(timeout_ms % 1000) * 1000000,
	};
	struct io_uring_cqe *cqe;
	int r = io_uring_submit_and_wait_timeout(&channel->ring->ring, &cqe, 1,
						 timeout_ms < 0 ? NULL : &ts, NULL);

	reap(channel);
	if (r == -ETIME)
		return -ETIMEDOUT;
	return r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY ? r : 0;
}

static bool cancelled(const struct channel *channel)
{
	return channel->ring->cancelled && channel->options.cancel_fd >= 0;
}

/* The kernel must be done with the op's memory before we give up on it. */
static void abandon(struct channel *channel)
{
	shutdown(channel->fd, SHUT_RDWR);
	while (channel->ring->pending && !turn(channel, -1))
		;
}

/* Waits for the op that was prepared: its result, or why it was given up. */
static int await(struct channel *channel, int timeout_ms)
{
	struct channel_ring *cr = channel->ring;
	uint64_t until = clock_ms() + (uint64_t)MAX(timeout_ms, 0);

	cr->pending = true;
	while (cr->pending) {
		uint64_t now = clock_ms();
		/* Also what has no time may be there already. */
		int left = timeout_ms < 0 ? -1 : now < until ? (int)(until - now) : 0;
		int r = turn(channel, left);

		if (!cr->pending)
			break;
		if (!r && cancelled(channel))
			r = -ECANCELED;
		if (r) {
			abandon(channel);
			return r;
		}
	}
	return cr->result;
}

static int send_some(struct channel *channel, struct msghdr *msg, struct channel_slot *slot)
{
	uint64_t tag = channel->zero_copy ? TAG_SLOT + (uint64_t)(slot - channel->slots) : TAG_OP;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&channel->ring->ring);

	if (!sqe)
		return -EBUSY;
	if (channel->zero_copy)
		io_uring_prep_sendmsg_zc(sqe, 0, msg, MSG_NOSIGNAL);
	else
		io_uring_prep_sendmsg(sqe, 0, msg, MSG_NOSIGNAL);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = tag;
	return await(channel, channel->options.timeout_ms);
}

static int uring_send(struct channel *channel, struct iovec *iov, unsigned int count, size_t len,
		      struct channel_slot *slot)
{
	int r = start(channel);

	if (r)
		return r;
	if (cancelled(channel))
		return -ECANCELED;
	while (len) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };
		unsigned int used;

		r = send_some(channel, &msg, slot);
		/* Not on this socket or kernel, or no more memory may be pinned. */
		if (channel->zero_copy &&
		    (r == -EOPNOTSUPP || r == -EINVAL || r == -ENOMEM || r == -ENOBUFS)) {
			channel->zero_copy = false;
			continue;
		}
		if (r == -EINTR)
			continue;
		if (r < 0)
			return r;
		used = channel_advance(iov, count, (size_t)r);
		iov += used;
		count -= used;
		len -= (size_t)r;
		atomic_fetch_add_explicit(&channel->sent, (uint64_t)r, memory_order_relaxed);
	}
	return 0;
}

static int uring_receive(struct channel *channel, struct iovec *iov, unsigned int count,
			 int first_ms, size_t *done)
{
	int r = start(channel);

	if (r)
		return r;
	if (cancelled(channel))
		return -ECANCELED;
	while (count) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };
		struct io_uring_sqe *sqe = io_uring_get_sqe(&channel->ring->ring);
		unsigned int used;

		if (!sqe)
			return -EBUSY;
		io_uring_prep_recvmsg(sqe, 0, &msg, 0);
		sqe->flags |= IOSQE_FIXED_FILE;
		sqe->user_data = TAG_OP;
		r = await(channel, *done ? channel->options.timeout_ms : first_ms);
		if (r == -EINTR)
			continue;
		if (r <= 0)
			return r ? r : -ENODATA;
		used = channel_advance(iov, count, (size_t)r);
		iov += used;
		count -= used;
		*done += (size_t)r;
		atomic_fetch_add_explicit(&channel->received, (uint64_t)r, memory_order_relaxed);
	}
	return 0;
}

static int uring_settle(struct channel *channel, struct channel_slot *slot)
{
	while (slot->in_use) {
		int r = turn(channel, channel->options.timeout_ms);

		if (!r && cancelled(channel))
			r = -ECANCELED;
		if (r)
			return r;
	}
	return 0;
}

static void uring_close(struct channel *channel)
{
	struct channel_ring *cr = channel->ring;

	/* At once, not when the kernel gets round to it: the peer shall see the end. */
	if (cr->started)
		io_uring_unregister_files(&cr->ring);
	io_uring_queue_exit(&cr->ring);
	free(cr);
}

const struct channel_ops channel_uring_ops = {
	.name = "io_uring",
	.send = uring_send,
	.receive = uring_receive,
	.settle = uring_settle,
	.close = uring_close,
};
