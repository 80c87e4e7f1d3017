/* SPDX-License-Identifier: Apache-2.0 */
/* Requests by io_uring: one ring per queue, used by the queue's thread alone. */
#include <errno.h>
#include <linux/fs.h>
#include <linux/virtio_blk.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/virtio/virtio_blk_private.h"

/* Submissions are told to the kernel in batches of at most this. */
#define SQ_ENTRIES 128U

/*
 * The best the kernel has first. DEFER_TASKRUN (6.1): completions are posted when we
 * ask, in one go, instead of interrupting the thread; TASKRUN_FLAG tells when to ask.
 * An eventfd wakes us for both; the ring's own fd does not for what is deferred.
 *
 * R_DISABLED (5.10): made by one thread, restricted, then started and used by another.
 */
static const unsigned int setups[] = {
	IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_R_DISABLED,
};

/*
 * Does the file start I/O without waiting (FMODE_NOWAIT), as block devices and the usual
 * file systems do? Of one that does not (tmpfs, FUSE) the kernel's workers do it all, and
 * they post what is complete themselves, unless it is deferred to us: then each completion
 * costs a wake-up and a system call more.
 */
static bool starts_at_once(int fd)
{
	uint8_t byte;
	struct iovec iov = { &byte, 1 };

	/* Anything else, a misaligned address of direct I/O, is said after this. */
	return preadv2(fd, &iov, 1, 0, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

/* What liburing 2.3's shared library lacks. */
static int ring_register(struct io_uring *ring, unsigned int op, const void *arg, unsigned int n)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, op, arg, n) < 0 ? -errno : 0;
}

static int set_up(struct io_uring *ring, int fd, unsigned int completions)
{
	size_t first = starts_at_once(fd) ? 0 : ARRAY_SIZE(setups) - 1;
	int r = -EINVAL;

	for (size_t i = first; i < ARRAY_SIZE(setups) && r == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = setups[i] | IORING_SETUP_CQSIZE,
			.cq_entries = completions,
		};

		r = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
	}
	return r;
}

/* From its start on the ring does what disks need, to the disk's file alone: whoever
 * takes the thread over opens no files by it and connects to nobody. */
static int restrict_ring(struct io_uring *ring)
{
	static const uint8_t ops[] = { IORING_OP_READ,	 IORING_OP_WRITE, IORING_OP_READV,
				       IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE };
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

int blk_ring_new(struct blk_queue *q)
{
	int r = set_up(&q->ring, q->blk->file.fd, MAX(2U * SQ_ENTRIES, (unsigned int)q->vq->size));

	if (r)
		return r;
	q->ring_event = eventfd_new();
	r = q->ring_event < 0 ? q->ring_event : io_uring_register_eventfd(&q->ring, q->ring_event);
	if (!r)
		r = io_uring_register_files(&q->ring, &q->blk->file.fd, 1);
	if (!r)
		r = restrict_ring(&q->ring);
	if (r) {
		io_uring_queue_exit(&q->ring);
		if (q->ring_event >= 0)
			close(q->ring_event);
		return r;
	}
	q->ring_made = true;
	return 0;
}

int blk_ring_start(struct blk_queue *q)
{
	int r = ring_register(&q->ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);

	if (r)
		return r;
	q->ring_on = true;
	q->in_flight = q->unsubmitted = 0;
	return 0;
}

void blk_ring_stop(struct blk_queue *q)
{
	/* At once, not when the kernel gets round to it: the file shall be closed. */
	if (q->ring_on)
		io_uring_unregister_files(&q->ring);
	q->ring_on = false;
}

void blk_ring_free(struct blk_queue *q)
{
	if (!q->ring_made)
		return;
	io_uring_queue_exit(&q->ring);
	close(q->ring_event);
	q->ring_made = false;
}

static void prepare_data(const struct blk_queue *q, const struct blk_request *req,
			 struct io_uring_sqe *sqe, int fd)
{
	bool in = req->type == VIRTIO_BLK_T_IN, one = req->data_count == 1;

	if (one && in)
		io_uring_prep_read(sqe, fd, req->data->iov_base, (unsigned int)req->len,
				   req->offset);
	else if (one)
		io_uring_prep_write(sqe, fd, req->data->iov_base, (unsigned int)req->len,
				    req->offset);
	else if (in)
		io_uring_prep_readv(sqe, fd, req->data, req->data_count, req->offset);
	else
		io_uring_prep_writev(sqe, fd, req->data, req->data_count, req->offset);
	if (!in && atomic_load_explicit(&q->blk->dsync, memory_order_relaxed))
		sqe->rw_flags = RWF_DSYNC;
}

/* Work the kernel does only when entered. */
static bool owed(const struct blk_queue *q)
{
	return IO_URING_READ_ONCE(*q->ring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

int blk_ring_add(struct blk_queue *q, struct blk_request *req)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);
	int fd = 0; /* the one registered file */

	if (!sqe) {
		blk_ring_submit(q);
		sqe = io_uring_get_sqe(&q->ring);
		if (!sqe)
			return -EBUSY;
	}
	switch (req->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT: prepare_data(q, req, sqe, fd); break;
	case VIRTIO_BLK_T_FLUSH: io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC); break;
	default:
		io_uring_prep_fallocate(sqe, fd, req->zero_mode, (off_t)req->offset,
					(off_t)req->len);
	}
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, req);
	q->in_flight++;
	q->unsubmitted++;
	return 0;
}

void blk_ring_submit(struct blk_queue *q)
{
	int r = 0;

	/* What the kernel does not take now (EAGAIN, EBUSY: out of memory, or completions
	 * first) stays in the ring for the next time. */
	if (owed(q))
		r = io_uring_submit_and_get_events(&q->ring);
	else if (q->unsubmitted)
		r = io_uring_submit(&q->ring);
	if (r > 0)
		q->unsubmitted -= MIN((unsigned int)r, q->unsubmitted);
}

struct blk_request *blk_ring_next(struct blk_queue *q, int *result)
{
	struct blk_request *req;
	struct io_uring_cqe *cqe;
	unsigned int head;

	/* Not io_uring_peek_cqe(): it may enter the kernel. */
	head = *q->ring.cq.khead;
	if (head == io_uring_smp_load_acquire(q->ring.cq.ktail))
		return NULL;
	cqe = &q->ring.cq.cqes[head & q->ring.cq.ring_mask];
	req = io_uring_cqe_get_data(cqe);
	*result = cqe->res;
	io_uring_cq_advance(&q->ring, 1);
	q->in_flight--;
	return req;
}

bool blk_ring_ready(struct blk_queue *q)
{
	return q->ring_on && q->in_flight && (io_uring_cq_ready(&q->ring) || owed(q));
}

void blk_ring_notify(struct blk_queue *q, bool on)
{
	if (!q->ring_on)
		return;
	io_uring_cq_eventfd_toggle(&q->ring, on);
	/* The wish must be out before the caller looks for completions. */
	atomic_thread_fence(memory_order_seq_cst);
}

void blk_ring_wait(struct blk_queue *q)
{
	struct io_uring_cqe *cqe;
	int r = io_uring_submit_and_wait(&q->ring, 1);

	if (r > 0)
		q->unsubmitted -= MIN((unsigned int)r, q->unsubmitted);
	io_uring_peek_cqe(&q->ring, &cqe);
}
