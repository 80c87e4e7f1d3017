/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One queue and its thread. The thread sleeps in its loop until the driver kicks
 * or the ring completes something; then it works, with notifications off, until
 * nothing is left: pops all, tells the kernel once, returns what is complete,
 * interrupts the driver once.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "devices/virtio/virtio_blk_private.h"

/* Bytes started before completions are looked at: what the page cache answers at once
 * should not wait for a long batch behind it. */
#define BATCH_BYTES (512 * KIB)
/* A request that is larger is worth an interrupt of its own. */
#define SMALL_BYTES (32 * KIB)
#define RETRY_NS 1000000ULL
/* Rounds before the loop gets its turn: a driver that never stops must not keep pause
 * and reset waiting. */
#define ROUNDS_MAX 256

/*
 * A driver that sends the next request when it has the answer to the last is quicker
 * than two wake-ups: look a moment before going to sleep. The moment grows while that
 * pays, and is nothing for a queue whose requests come far apart.
 */
#define POLL_NS_MIN 4000ULL
#define POLL_NS_MAX 32000ULL

/* Completions are held back awake for so long, for longer asleep: of a guest that is slow
 * to send requests a core of the host is not worth what it spares that guest. */
#define HOLD_AWAKE_NS (2 * POLL_NS_MAX)

static void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static struct blk_request *slot_top(struct blk_queue *q)
{
	return &q->slots[q->free_slots[q->free_count - 1]];
}

static void slot_free(struct blk_queue *q, const struct blk_request *req)
{
	q->free_slots[q->free_count++] = (uint16_t)(req - q->slots);
}

/* Returns a chain to the driver. */
static void finish(struct blk_queue *q, struct blk_request *req, uint8_t status)
{
	struct virtqueue_chain *chain = &req->chain;
	struct guest_memory *memory = q->blk->dev.host->memory;
	uint32_t written = (uint32_t)MIN(chain->writable_len, (uint64_t)UINT32_MAX);

	if (req->status) {
		*(volatile uint8_t *)req->status = status;
		guest_memory_mark_dirty(memory, req->status_gpa, 1);
	}
	if (status != VIRTIO_BLK_S_OK) {
		/* A failed read may have written some of it all the same. */
		for (unsigned int i = 0; i < chain->writable; i++)
			guest_memory_mark_dirty(memory, chain->gpa[chain->readable + i],
						chain->iov[chain->readable + i].iov_len);
		written = req->status ? 1 : 0;
	}
	virtqueue_push(q->vq, chain, written);
	q->pushed++;
	slot_free(q, req);
}

static void complete(struct blk_queue *q, struct blk_request *req, int result)
{
	finish(q, req, blk_request_status(q->blk, req, result));
}

/* What the ring says may need a second try by hand. */
static void complete_ring(struct blk_queue *q, struct blk_request *req, int result)
{
	bool data = req->type == VIRTIO_BLK_T_IN || req->type == VIRTIO_BLK_T_OUT;

	if (data && result >= 0 && (uint64_t)result < req->len)
		result = blk_request_execute(q, req, (uint64_t)result);
	else if (result == -EAGAIN || result == -EINTR ||
		 (!data && (result == -EOPNOTSUPP || result == -EINVAL)))
		result = blk_request_execute(q, req, 0);
	complete(q, req, result);
}

static void start(struct blk_queue *q, struct blk_request *req)
{
	if (q->ring_on && blk_request_async(q->blk, req) && !blk_ring_add(q, req))
		return;
	complete(q, req, blk_request_execute(q, req, 0));
}

static bool wait_for_tokens(struct blk_queue *q, const struct blk_request *req)
{
	struct virtio_blk *blk = q->blk;
	bool data = req->type == VIRTIO_BLK_T_IN || req->type == VIRTIO_BLK_T_OUT;
	uint64_t wait;

	if (!blk->limited)
		return false;
	pthread_mutex_lock(&blk->limiter_lock);
	wait = rate_limiter_take(&blk->limiter, data ? req->len : 0, clock_ns());
	pthread_mutex_unlock(&blk->limiter_lock);
	if (!wait)
		return false;
	q->throttled = true;
	loop_timer_set(q->timer, wait);
	return true;
}

/* Takes the next chain and starts it; false: none is there, or none may go now. */
static bool pop_one(struct blk_queue *q, uint64_t *bytes)
{
	struct blk_request *req;
	uint8_t status;
	int r;

	if (q->throttled || q->broken || !q->free_count)
		return false;
	req = slot_top(q);
	req->chain.iov = req->iov;
	req->chain.gpa = req->gpa;
	req->chain.iov_max = BLK_IOV_MAX;
	r = virtqueue_pop(q->vq, &req->chain);
	if (r < 0) {
		q->broken = true;
		virtio_device_needs_reset(&q->blk->dev, q->vq->fault ? q->vq->fault : "bad chain");
	}
	if (r <= 0)
		return false;
	status = blk_request_parse(q->blk, req);
	if (wait_for_tokens(q, req)) {
		virtqueue_unpop(q->vq, &req->chain);
		return false;
	}
	q->free_count--;
	if (status == VIRTIO_BLK_S_OK) {
		start(q, req);
	} else {
		blk_count(q->blk, COUNT_ERRORS, 1);
		finish(q, req, status);
	}
	*bytes += req->len;
	return true;
}

static bool reap(struct blk_queue *q)
{
	struct blk_request *req;
	bool any = false;
	int result;

	while (q->ring_on && (req = blk_ring_next(q, &result))) {
		complete_ring(q, req, result);
		any = true;
	}
	return any;
}

static void interrupt(struct blk_queue *q)
{
	if (!q->pushed)
		return;
	q->pushed = 0;
	if (virtqueue_should_signal(q->vq))
		virtio_device_signal(&q->blk->dev, q->index);
}

/* Tells what is complete, unless it may wait for more. */
static void interrupt_in_time(struct blk_queue *q, bool may_wait)
{
	if (!q->pushed)
		return;
	if (may_wait) {
		if (!interrupt_hold_full(&q->hold, q->pushed))
			return;
		interrupt_hold_told(&q->hold);
	}
	interrupt(q);
}

/* One round of everything; false: there was nothing to do. */
static bool work(struct blk_queue *q)
{
	bool at_once = !q->in_flight, any = false, small;
	unsigned int popped = 0;
	uint64_t bytes = 0;

	while (bytes < BATCH_BYTES && pop_one(q, &bytes))
		popped++;
	if (popped)
		interrupt_hold_arrived(&q->hold, popped, clock_ns());
	if (q->ring_on) {
		blk_ring_submit(q);
		any = reap(q);
	}
	if (!any && !popped)
		return false;
	/* What came while nothing was on its way came at once. */
	small = bytes < popped * SMALL_BYTES;
	interrupt_in_time(q, small && at_once && !q->in_flight);
	return true;
}

/* Looks for more to do until the moment has passed. */
static bool look_for(struct blk_queue *q, uint64_t ns)
{
	uint64_t end = clock_ns() + ns;

	do {
		if (!virtqueue_empty(q->vq) || blk_ring_ready(q))
			return true;
		cpu_relax();
	} while (clock_ns() < end);
	return false;
}

/* Waits for more with completions held back: looks for it if that is for a moment only,
 * else asleep, with the timer set. False: nothing has come yet. */
static bool hold_on(struct blk_queue *q)
{
	uint64_t left = interrupt_hold_left(&q->hold, clock_ns());

	if (left && interrupt_hold_ns(&q->hold) > HOLD_AWAKE_NS) {
		if (!q->holding)
			loop_timer_set(q->timer, left);
		q->holding = true;
		return false;
	}
	if (left && look_for(q, left))
		return true;
	interrupt_hold_over(&q->hold, q->pushed);
	interrupt(q);
	return false;
}

static bool linger(struct blk_queue *q)
{
	if (q->pushed && hold_on(q))
		return true;
	return q->poll_ns && look_for(q, q->poll_ns);
}

/* Only completions or the timer can bring work now, not the driver. */
static bool deaf(const struct blk_queue *q)
{
	return q->throttled || q->broken;
}

/* Asks both sides to wake us; false where one had something meanwhile. */
static bool go_to_sleep(struct blk_queue *q)
{
	bool more = !deaf(q) && virtqueue_set_notifications(q->vq, true);

	blk_ring_notify(q, true);
	more |= blk_ring_ready(q);
	if (more)
		blk_ring_notify(q, false);
	return !more;
}

static void run(struct blk_queue *q)
{
	unsigned int rounds = 0;

	if (q->paused)
		return;
	blk_ring_notify(q, false);
	do {
		virtqueue_set_notifications(q->vq, false);
		do {
			while (work(q))
				if (++rounds >= ROUNDS_MAX) {
					interrupt(q);
					eventfd_signal(q->blk->dev.kick_fd[q->index]);
					return;
				}
		} while (!deaf(q) && linger(q));
		if (deaf(q))
			interrupt(q);
	} while (!go_to_sleep(q));
	/* Not taken by the kernel, and nothing in flight that would wake us. */
	if (q->unsubmitted && !q->throttled)
		loop_timer_set(q->timer, RETRY_NS);
	q->slept_ns = clock_ns();
}

/* Would it have paid to look longer? */
static void adapt_polling(struct blk_queue *q)
{
	uint64_t slept = clock_ns() - q->slept_ns;

	/* Waking up is part of the time slept. One long sleep does not change the habit. */
	if (slept <= 2 * POLL_NS_MAX)
		q->poll_ns = MIN(MAX(POLL_NS_MIN, q->poll_ns * 2), POLL_NS_MAX);
	else
		q->poll_ns = q->poll_ns > POLL_NS_MIN ? q->poll_ns / 2 : 0;
}

static void kicked(void *opaque, int fd, uint32_t events)
{
	/* Edge-triggered: the count need not be read. */
	adapt_polling(opaque);
	run(opaque);
}

static void ring_ready(void *opaque, int fd, uint32_t events)
{
	run(opaque);
}

static void timer_fired(void *opaque)
{
	struct blk_queue *q = opaque;

	q->throttled = q->holding = false;
	run(q);
}

static void resume(void *opaque)
{
	struct blk_queue *q = opaque;

	q->paused = false;
	q->kick_source = loop_add(q->loop, q->blk->dev.kick_fd[q->index], EPOLLIN | EPOLLET, kicked,
				  q, NULL);
	if (!q->kick_source)
		virtio_device_needs_reset(&q->blk->dev, "the host is out of memory");
	run(q);
}

static void pause_queue(void *opaque)
{
	struct blk_queue *q = opaque;

	if (!q->timer) /* never set up */
		return;
	loop_remove(q->kick_source);
	q->kick_source = NULL;
	q->paused = true;
	q->throttled = q->holding = false;
	loop_timer_set(q->timer, 0);
	while (q->in_flight) {
		blk_ring_wait(q);
		reap(q);
	}
	interrupt(q);
}

/* In the thread that starts all others. */
static void make_ring(void *opaque)
{
	struct blk_queue *q = opaque;

	q->ring_error = blk_ring_new(q);
}

/* In the thread: an io_uring belongs to the thread that started it. */
static void set_up(void *opaque)
{
	struct blk_queue *q = opaque;

	q->timer = loop_timer_new(q->loop, timer_fired, q, NULL);
	if (!q->timer || !q->ring_made)
		return;
	q->ring_error = blk_ring_start(q);
	if (q->ring_error)
		return;
	q->ring_source = loop_add(q->loop, q->ring_event, EPOLLIN | EPOLLET, ring_ready, q, NULL);
	if (!q->ring_source) {
		blk_ring_stop(q);
		q->ring_error = -ENOMEM;
	}
}

static int allocate(struct blk_queue *q, struct error *err)
{
	unsigned int n = q->vq->size;
	void *slots;

	q->slots_bytes = n * sizeof(*q->slots);
	slots = mmap(NULL, q->slots_bytes, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (slots == MAP_FAILED)
		return error_set_errno(err, errno, "start queue %u of disk %s", q->index,
				       q->blk->file.path);
	q->slots = slots;
	q->free_slots = calloc(n, sizeof(*q->free_slots));
	if (!q->free_slots)
		return error_set_errno(err, ENOMEM, "start queue %u of disk %s", q->index,
				       q->blk->file.path);
	for (unsigned int i = 0; i < n; i++)
		q->free_slots[i] = (uint16_t)(n - 1 - i);
	q->free_count = n;
	return 0;
}

int blk_queue_start(struct blk_queue *q, struct virtio_blk *blk, unsigned int index,
		    struct error *err)
{
	char name[16];
	int r;

	*q = (struct blk_queue){
		.blk = blk,
		.index = index,
		.vq = &blk->dev.queues[index],
		.paused = true,
	};
	r = allocate(q, err);
	if (r) {
		blk_queue_stop(q);
		return r;
	}
	if (blk->use_ring)
		thread_run_in_starter(blk->dev.host->threads, make_ring, q);
	snprintf(name, sizeof(name), "blk%u-%.9s", index, blk->dev.id);
	q->thread = io_thread_new(blk->dev.host->threads, name, err);
	if (!q->thread) {
		blk_queue_stop(q);
		return err ? err->code : -ENOMEM;
	}
	q->loop = io_thread_loop(q->thread);
	loop_call(q->loop, set_up, q);
	if (!q->timer) {
		blk_queue_stop(q);
		return error_set(err, EMFILE, "start queue %u of disk %s: no timer", index,
				 blk->file.path);
	}
	if (q->ring_error && !index)
		log_info(blk->dev.host->log,
			 "disk %s: no io_uring (%s), plain system calls instead", blk->file.path,
			 strerrordesc_np(-q->ring_error));
	loop_call(q->loop, resume, q);
	return 0;
}

void blk_queue_pause(struct blk_queue *q)
{
	if (q->loop)
		loop_call(q->loop, pause_queue, q);
}

void blk_queue_resume(struct blk_queue *q)
{
	if (q->loop)
		loop_call(q->loop, resume, q);
}

static void tear_down(void *opaque)
{
	struct blk_queue *q = opaque;

	pause_queue(q);
	loop_remove(q->ring_source);
	blk_ring_stop(q);
}

void blk_queue_stop(struct blk_queue *q)
{
	if (q->loop)
		loop_call(q->loop, tear_down, q);
	io_thread_free(q->thread);
	blk_ring_free(q);
	free(q->bounce);
	free(q->free_slots);
	if (q->slots)
		munmap(q->slots, q->slots_bytes);
	memset(q, 0, sizeof(*q));
}
