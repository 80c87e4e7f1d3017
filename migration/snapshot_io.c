/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/snapshot_io.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"

/* R_DISABLED (5.10): made by the thread that may, restricted, then started by the one
 * that uses it. */
static const unsigned int setups[] = {
	IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN,
	IORING_SETUP_R_DISABLED,
};

struct making {
	struct snapshot_io *io;
	unsigned int count;
	int result;
};

/* What liburing 2.3's shared library lacks. */
static int ring_register(struct io_uring *ring, unsigned int op, const void *arg, unsigned int n)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, op, arg, n) < 0 ? -errno : 0;
}

/* Reads and writes of the snapshot's files, and nothing else. */
static int restrict_ring(struct io_uring *ring)
{
	struct io_uring_restriction rules[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE },
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE },
		{ .opcode = IORING_RESTRICTION_REGISTER_OP,
		  .register_op = IORING_UNREGISTER_FILES },
	};

	return ring_register(ring, IORING_REGISTER_RESTRICTIONS, rules, ARRAY_SIZE(rules));
}

static void make_ring(void *opaque)
{
	struct making *making = opaque;
	struct snapshot_io *io = making->io;
	int r = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(setups) && r == -EINVAL; i++) {
		struct io_uring_params params = { .flags = setups[i] };

		r = io_uring_queue_init_params(SNAPSHOT_IO_DEPTH, &io->ring, &params);
	}
	making->result = r;
	if (r)
		return;
	r = io_uring_register_files(&io->ring, io->fds, making->count);
	if (!r)
		r = restrict_ring(&io->ring);
	if (r)
		io_uring_queue_exit(&io->ring);
	making->result = r;
}

void snapshot_io_init(struct snapshot_io *io, const int *fds, unsigned int count, bool plain,
		      const struct thread_policy *policy)
{
	struct making making = { .io = io, .count = count };

	*io = (struct snapshot_io){ .fds = fds, .policy = policy };
	if (plain)
		return;
	thread_run_in_starter(policy, make_ring, &making);
	io->ring_made = !making.result;
}

void snapshot_io_start(struct snapshot_io *io)
{
	if (!io->ring_made)
		return;
	if (ring_register(&io->ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0)) {
		io_uring_queue_exit(&io->ring);
		io->ring_made = false;
	}
}

void snapshot_io_stop(struct snapshot_io *io)
{
	void *tag;
	size_t len;

	while (io->in_flight)
		snapshot_io_wait(io, &tag, &len);
	/* At once, not when the kernel gets round to freeing the ring: a file that is removed
	 * shall give its room back, and its disk be free to go. */
	if (io->ring_made)
		io_uring_unregister_files(&io->ring);
}

void snapshot_io_destroy(struct snapshot_io *io)
{
	if (io->ring_made)
		io_uring_queue_exit(&io->ring);
	io->ring_made = false;
}

static struct snapshot_io_request *take_request(struct snapshot_io *io)
{
	struct snapshot_io_request *req = io->requests;

	while (req->used)
		req++;
	io->in_flight++;
	return req;
}

/* The rest of the request, from where it stopped. */
static int transfer(const struct snapshot_io *io, struct snapshot_io_request *req, size_t done)
{
	int fd = io->fds[req->file];

	while (done < req->len) {
		/* Past the C library, as io_uring's are: ThreadSanitizer would call a write of
		 * the guest's elsewhere in the page a race, which page protection decides. */
		long n = syscall(req->write ? SYS_pwrite64 : SYS_pread64, fd, req->buf + done,
				 req->len - done, (off_t)(req->offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return req->write ? -ENOSPC : -ENODATA;
		done += (size_t)n;
	}
	return 0;
}

static void begin(struct snapshot_io *io, const struct snapshot_io_request *want)
{
	struct snapshot_io_request *req = take_request(io);
	struct io_uring_sqe *sqe;

	*req = *want;
	req->used = true;
	if (!io->ring_made) {
		req->result = transfer(io, req, 0);
		return;
	}
	sqe = io_uring_get_sqe(&io->ring); /* one for each request in flight */
	if (req->write)
		io_uring_prep_write(sqe, (int)req->file, req->buf, (unsigned int)req->len,
				    req->offset);
	else
		io_uring_prep_read(sqe, (int)req->file, req->buf, (unsigned int)req->len,
				   req->offset);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, req);
	/* What it does not take now it takes when it is waited for. */
	io_uring_submit(&io->ring);
}

void snapshot_io_read(struct snapshot_io *io, unsigned int file, void *buf, size_t len,
		      uint64_t offset, void *tag)
{
	begin(io, &(struct snapshot_io_request){
			  .file = file, .buf = buf, .len = len, .offset = offset, .tag = tag });
}

void snapshot_io_write(struct snapshot_io *io, unsigned int file, const void *buf, size_t len,
		       uint64_t offset, void *tag)
{
	begin(io, &(struct snapshot_io_request){ .write = true,
						 .file = file,
						 .buf = (uint8_t *)buf,
						 .len = len,
						 .offset = offset,
						 .tag = tag });
}

static struct snapshot_io_request *oldest(struct snapshot_io *io)
{
	struct snapshot_io_request *req = io->requests;

	while (!req->used)
		req++;
	return req;
}

static struct snapshot_io_request *reap(struct snapshot_io *io)
{
	struct snapshot_io_request *req;
	struct io_uring_cqe *cqe;
	int r;

	do
		r = io_uring_submit_and_wait(&io->ring, 1);
	while (r == -EINTR || r == -EAGAIN || r == -EBUSY ||
	       (r >= 0 && io_uring_peek_cqe(&io->ring, &cqe)));
	if (r < 0) {
		/* The ring itself failed, which no file can cause: nothing works any more. */
		req = oldest(io);
		req->result = r;
		return req;
	}
	req = io_uring_cqe_get_data(cqe);
	req->result = cqe->res;
	io_uring_cqe_seen(&io->ring, cqe);
	/* A short one, or one interrupted: the rest by hand; its error is the truth. */
	if (req->result == -EINTR || req->result == -EAGAIN)
		req->result = 0;
	if (req->result >= 0)
		req->result = transfer(io, req, (size_t)req->result);
	return req;
}

int snapshot_io_wait(struct snapshot_io *io, void **tag, size_t *len)
{
	struct snapshot_io_request *req = io->ring_made ? reap(io) : oldest(io);

	*tag = req->tag;
	*len = req->len;
	req->used = false;
	io->in_flight--;
	return req->result;
}
