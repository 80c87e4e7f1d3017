/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of virtio-blk, private to virtio_blk*.c:
 *
 *	virtio_blk.c		the device: config space, life cycle, counters
 *	virtio_blk_file.c	opening, measuring and locking the backing file
 *	virtio_blk_queue.c	one queue: pops, starts, completes requests
 *	virtio_blk_request.c	what a chain asks for: parsing, synchronous execution
 *	virtio_blk_ring.c	the same execution by io_uring
 *
 * Each queue has a thread; a struct blk_queue is touched by that thread alone
 * (others reach it by loop_call). What queues share is in struct virtio_blk.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_BLK_PRIVATE_H
#define DEVICES_VIRTIO_VIRTIO_BLK_PRIVATE_H

#include <liburing.h>
#include <pthread.h>

#include "devices/virtio/interrupt_hold.h"
#include "devices/virtio/virtio_blk.h"

#define SECTOR_SIZE 512ULL
#define SECTOR_SHIFT 9
#define BLK_QUEUES_MAX 16

/* Data segments offered, and the ranges of a chain that has them: header and status
 * may be scattered, and a segment may cross a border between regions. */
#define BLK_SEG_MAX 254
#define BLK_IOV_MAX (BLK_SEG_MAX + 20)

/* No file wants more alignment of direct I/O. */
#define BLK_ALIGN_MAX 65536U

/* One DISCARD or WRITE_ZEROES covers at most this: it blocks a worker for its time. */
#define BLK_ZERO_SECTORS_MAX ((256ULL << 20) >> SECTOR_SHIFT)

struct blk_file {
	int fd;		/* does the I/O; a ring may keep it open a while after we closed it */
	int lock_fd;	/* holds the lock, and is ours alone */
	char path[256]; /* for messages */
	bool readonly, direct, block_device, locked;
	uint32_t align;	   /* of offset, length and address of direct I/O; else 1 */
	uint32_t physical; /* block size underneath, bytes */
};

/* kept: not NULL, what another process had open of it under id, its lock included. */
int blk_file_open(struct blk_file *file, const struct virtio_blk_options *options,
		  struct kept *kept, const char *id, struct log *log, struct error *err);
/* Copies of both descriptors, with the lock if it is held. */
int blk_file_keep(const struct blk_file *file, struct kept *kept, const char *id,
		  struct error *err);
int blk_file_lock(struct blk_file *file, struct error *err);
int blk_file_unlock(struct blk_file *file, struct error *err);
void blk_file_close(struct blk_file *file);
/* Whole sectors (direct: whole blocks) of the file as it is now. */
int blk_file_sectors(const struct blk_file *file, uint64_t *sectors, struct log *log,
		     struct error *err);

enum {
	COUNT_READ_BYTES,
	COUNT_WRITE_BYTES,
	COUNT_READ_OPS,
	COUNT_WRITE_OPS,
	COUNT_FLUSH_OPS,
	COUNT_DISCARD_OPS,
	COUNT_ERRORS,
	COUNTERS,
};

struct virtio_blk;

/* A slot per chain that can be in flight; none is allocated on the data path. */
struct blk_request {
	struct virtqueue_chain chain;
	uint32_t type;
	int zero_mode;	 /* of fallocate, for DISCARD and WRITE_ZEROES */
	uint64_t offset; /* of the file, bytes */
	uint64_t len;	 /* bytes of data, or of the range */
	struct iovec *data;
	unsigned int data_count;
	uint8_t *status; /* in guest memory; NULL: the chain has no room for it */
	uint64_t status_gpa;
	struct iovec iov[BLK_IOV_MAX];
	uint64_t gpa[BLK_IOV_MAX];
};

struct blk_queue {
	struct virtio_blk *blk;
	unsigned int index;
	struct virtqueue *vq;
	struct io_thread *thread;
	struct loop *loop;
	struct loop_source *kick_source, *ring_source, *timer;

	struct blk_request *slots; /* vq->size of them, untouched pages cost nothing */
	size_t slots_bytes;
	uint16_t *free_slots; /* a stack: the hot ones are used again first */
	unsigned int free_count;

	bool ring_made, ring_on;
	struct io_uring ring;
	int ring_event;		  /* eventfd: something completed */
	int ring_error;		  /* why there is none: -errno */
	unsigned int in_flight;	  /* in the ring */
	unsigned int unsubmitted; /* of these, not told to the kernel yet */

	unsigned int pushed; /* chains returned, of which the driver was not told yet */
	struct interrupt_hold hold;
	bool holding;	/* some of these back, until the timer */
	bool throttled; /* by the rate limiter, until the timer */
	bool broken;	/* by the driver, until reset */
	bool paused;
	uint64_t poll_ns;  /* how long to look for more before sleeping */
	uint64_t slept_ns; /* when it went to sleep */

	uint8_t *bounce; /* for direct I/O of what the guest did not align; made at need */
};

struct virtio_blk {
	struct virtio_device dev; /* first */
	struct blk_file file;
	struct log_limit log_limit;
	char serial[20];
	unsigned int queue_size;
	bool use_ring;
	bool capacity_differs; /* from what the guest knew where it was saved */
	atomic_ullong sectors;
	atomic_bool writeback; /* the driver's wish; default on */
	atomic_bool dsync;     /* every write reaches the medium before it completes */

	bool limited;
	pthread_mutex_t limiter_lock;
	struct rate_limiter limiter;

	struct blk_queue queues[BLK_QUEUES_MAX];
	struct virtio_counter counters[COUNTERS];
};

static inline void blk_count(struct virtio_blk *blk, unsigned int counter, uint64_t n)
{
	atomic_fetch_add_explicit(&blk->counters[counter].value, n, memory_order_relaxed);
}

/* Queues: control plane. */
int blk_queue_start(struct blk_queue *q, struct virtio_blk *blk, unsigned int index,
		    struct error *err);
/* Drains what is in flight; then resume or stop. */
void blk_queue_pause(struct blk_queue *q);
void blk_queue_resume(struct blk_queue *q);
void blk_queue_stop(struct blk_queue *q);

/*
 * Reads a popped chain: VIRTIO_BLK_S_OK where it is to be executed (type, offset, len
 * and data are filled and within the disk), else the status to return at once.
 */
uint8_t blk_request_parse(struct virtio_blk *blk, struct blk_request *req);
/* Executes in the calling thread, from byte `done` of the data on: 0 or -errno. */
int blk_request_execute(struct blk_queue *q, struct blk_request *req, uint64_t done);
/* Whether io_uring can do it (or it has to be blk_request_execute). */
bool blk_request_async(const struct virtio_blk *blk, const struct blk_request *req);
/* The status for a result, and counting. */
uint8_t blk_request_status(struct virtio_blk *blk, const struct blk_request *req, int result);

/*
 * io_uring of a queue. It is made by the thread that starts all others, which alone may;
 * -errno where there is none: not an error. It is used, from start to stop, by the queue's
 * thread, and freed after stop by any.
 */
int blk_ring_new(struct blk_queue *q);
int blk_ring_start(struct blk_queue *q);
void blk_ring_stop(struct blk_queue *q);
void blk_ring_free(struct blk_queue *q);
/* Queues a request that blk_request_async() allows; told to the kernel later. */
int blk_ring_add(struct blk_queue *q, struct blk_request *req);
/* Submits what was added, and has the kernel post the completions it owes. */
void blk_ring_submit(struct blk_queue *q);
/* Takes a completion: the request and its result, or NULL. */
struct blk_request *blk_ring_next(struct blk_queue *q, int *result);
/* Completions are there, or the kernel wants to be asked for them. */
bool blk_ring_ready(struct blk_queue *q);
/* Whether completions signal the eventfd; look at blk_ring_ready() after turning it on. */
void blk_ring_notify(struct blk_queue *q, bool on);
/* Waits until at least one request has completed. */
void blk_ring_wait(struct blk_queue *q);

#endif
