/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds while the VM runs, and when to stop them. */
#include <errno.h>
#include <poll.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/send_private.h"

#define TICK_MS 50
/* A rate taken from less than this says more about the clock. */
#define RATE_BYTES_MIN (1U << 20)
/* Bytes/s where no round tells, as with RAM that is all zero: a line of 1 Gbit/s. */
#define RATE_ASSUMED 125000000U
/* What the hand-over takes besides pages: state, locks, resume. */
#define FIXED_DOWNTIME_US 2000U
#define THROTTLE_FIRST 20U
#define THROTTLE_STEP 10U
#define STUCK_ROUNDS 2U
/* Between rounds, where RAM is done and devices are not: until their initial bytes are loaded,
 * and then. */
#define INITIAL_MS 50U
#define DEVICES_NS 5000000
/* RAM that is done: what keeps the VM from being stopped is the devices alone... */
#define DONE_PAGES 256U
#define DONE_MS 5000U /* ... for so long without getting less: it never will */

/* The destination says nothing during rounds, unless it fails. */
static int look_at_control(struct migration_send *send, struct error *err)
{
	struct pollfd p = { .fd = channel_fd(send->control), .events = POLLIN };
	struct frame frame;

	if (poll(&p, 1, 0) <= 0)
		return 0;
	return send_expect(send, FRAME_TYPES, &frame, send->options.stall_ms, err);
}

int send_ping(struct migration_send *send, struct error *err)
{
	return control_ping(send->control, send->options.stall_ms, &send->pinged_ms, err);
}

void send_take_rates(struct migration_send *send)
{
	uint64_t now = clock_ns(), ns = now - send->rated_ns, all = 0;

	if (ns < 200000000)
		return;
	pthread_mutex_lock(&send->lock);
	for (unsigned int i = 0; i < send->progress.connection_count; i++) {
		uint64_t bytes = channel_sent(send->senders[i].channel);
		uint64_t rate = (uint64_t)((double)(bytes - send->senders[i].rate_bytes) * 1e9 /
					   (double)ns);

		send->senders[i].rate_bytes = bytes;
		send->progress.connections[i].rate = rate;
		all += rate;
	}
	send->progress.rate = all;
	pthread_mutex_unlock(&send->lock);
	send->rated_ns = now;
}

static bool too_late(const struct migration_send *send)
{
	return send->deadline_ms && clock_ms() >= send->deadline_ms;
}

/* While the VM runs: time over, and what to do then is to give up? */
static int check_deadline(struct migration_send *send, struct error *err)
{
	if (send->options.timeout_strategy != SEND_AT_TIMEOUT_CANCEL || send->paused ||
	    send->options.postcopy || !too_late(send))
		return 0;
	return error_set(err, ETIMEDOUT,
			 "the migration did not get done in %llu s; with timeout_strategy "
			 "\"ignore\" it would have stopped the VM for longer than downtime_ms",
			 (unsigned long long)send->options.timeout_s);
}

/* Postcopy waits for no round: what it has not sent will follow. */
static void cut_short(struct migration_send *send)
{
	if (!send->options.postcopy || !too_late(send))
		return;
	pthread_mutex_lock(&send->round_lock);
	send->cut_round = true;
	pthread_mutex_unlock(&send->round_lock);
}

/* What send_tick() does, whatever the destination says. */
static int look_after(struct migration_send *send, struct error *err)
{
	struct pollfd cancel = { .fd = send->cancel, .events = POLLIN };
	int r = send_pages_error(send, err);

	send_take_rates(send);
	cut_short(send);
	if (poll(&cancel, 1, 0) > 0)
		return error_set(err, ECANCELED, "cancelled");
	if (!r)
		r = send_ping(send, err);
	return r ? r : check_deadline(send, err);
}

int send_tick(struct migration_send *send, struct error *err)
{
	int r = look_after(send, err);

	return r ? r : look_at_control(send, err);
}

int send_round(struct migration_send *send, bool last, struct error *err)
{
	int r = 0;

	send_pages_begin_round(send, last);
	pthread_mutex_lock(&send->lock);
	send->progress.round = send->round;
	pthread_mutex_unlock(&send->lock);
	while (!r && !send_pages_wait(send, TICK_MS))
		r = send_tick(send, err);
	if (!r)
		r = send_pages_error(send, err);
	if (r) {
		eventfd_signal(send->stop);
		while (!send_pages_wait(send, TICK_MS))
			;
		return r;
	}
	return 0;
}

/* What the destination says next; while it takes pages it pings. */
static int await_answer(struct migration_send *send, struct frame *frame, struct error *err)
{
	struct pollfd p = { .fd = channel_fd(send->control), .events = POLLIN };
	uint64_t heard_ms = clock_ms();
	int r = 0;

	frame->type = FRAME_PING;
	while (!r && frame->type == FRAME_PING) {
		bool readable = poll(&p, 1, TICK_MS) > 0;

		r = look_after(send, err);
		if (!r && readable) {
			heard_ms = clock_ms();
			r = send_next(send, frame, send->options.stall_ms, err);
		} else if (!r && clock_ms() - heard_ms > (uint64_t)send->options.stall_ms) {
			r = error_set(err, ETIMEDOUT, "the destination was silent for %d ms",
				      send->options.stall_ms);
		}
	}
	return r;
}

/* What was sent may still lie in sockets: a pause would wait for it. */
static int confirm_round(struct migration_send *send, struct error *err)
{
	struct frame frame = { .type = FRAME_ROUND_SENT, .offset = send->round };
	int r;

	if (!(send->capabilities & CAPABILITY_ROUNDS))
		return 0;
	r = channel_send(send->control, &frame, NULL, 0, NULL, 0, err);
	if (!r)
		r = await_answer(send, &frame, err);
	if (!r)
		r = control_check(&frame, "destination", FRAME_ROUND_LOADED, err);
	if (!r && frame.offset != send->round)
		r = error_set(err, EPROTO,
			      "ROUND_LOADED of the destination: round %llu, %u was asked after",
			      (unsigned long long)frame.offset, send->round);
	return r;
}

static void throttle(struct migration_send *send, unsigned int percent)
{
	struct error ignored = ERROR_INIT;

	/* A VM that cannot be slowed down is migrated without. */
	if (send->vm.ops->throttle(send->vm.opaque, percent, &ignored))
		return;
	pthread_mutex_lock(&send->lock);
	send->progress.throttle = percent;
	pthread_mutex_unlock(&send->lock);
}

/* The guest wrote more than half of what was sent meanwhile, and again: it has to write
 * less. Two rounds, since the first one after a change tells little. */
static void check_progress(struct migration_send *send, uint64_t sent, uint64_t dirty)
{
	unsigned int now = send->progress.throttle, next;

	send->stuck = dirty * 2 > sent ? send->stuck + 1 : 0;
	if (send->stuck < STUCK_ROUNDS || !send->options.max_throttle)
		return;
	next = MIN(now ? now + THROTTLE_STEP : THROTTLE_FIRST, send->options.max_throttle);
	if (next != now)
		throttle(send, next);
	send->stuck = 0;
}

struct round_result {
	uint64_t bytes, ns; /* on the wire */
	uint64_t rate;	    /* the last that could be taken; before, an assumption */
	struct dirty_round dirty;
};

static uint64_t expected_us(const struct migration_send *send, const struct round_result *result)
{
	uint64_t left = result->dirty.pages * GUEST_PAGE_SIZE + send_devices_pending(send);

	return FIXED_DOWNTIME_US + (uint64_t)((double)left * 1e6 / (double)result->rate);
}

static void tell_round(struct migration_send *send, const struct round_result *result)
{
	uint64_t expected = expected_us(send, result);

	pthread_mutex_lock(&send->lock);
	send->progress.dirty_rate = (uint64_t)((double)result->dirty.pages * GUEST_PAGE_SIZE * 1e9 /
					       (double)MAX(result->ns, (uint64_t)1));
	send->progress.expected_downtime_us = expected;
	pthread_mutex_unlock(&send->lock);
	atomic_store(&send->remaining, result->dirty.pages);
}

static int one_round(struct migration_send *send, struct round_result *result, struct error *err)
{
	uint64_t begun = clock_ns(), bytes = send_wire_bytes(send);
	int r = send_round(send, false, err);

	if (!r)
		r = confirm_round(send, err);
	if (r)
		return r;
	r = dirty_tracker_collect(send->tracker, &result->dirty, err);
	if (r)
		return r;
	result->ns = clock_ns() - begun;
	result->bytes = send_wire_bytes(send) - bytes;
	if (result->bytes >= RATE_BYTES_MIN)
		result->rate = (uint64_t)((double)result->bytes * 1e9 /
					  (double)MAX(result->ns, (uint64_t)1));
	tell_round(send, result);
	return 0;
}

/* Waits for devices where more rounds of RAM bring nothing; fails where that is in vain. */
static int wait_for_devices(struct migration_send *send, const struct round_result *result,
			    struct error *err)
{
	uint64_t pending = send_devices_pending(send), ms;
	bool less = pending < send->least_pending - send->least_pending / 10;
	int r;

	send->stuck = 0; /* what comes together while nothing is sent tells nothing */
	if (send_devices_ready(send))
		nanosleep(&(struct timespec){ .tv_nsec = DEVICES_NS }, NULL);
	else
		send_devices_await(send, INITIAL_MS);
	r = send_tick(send, err);
	if (less || !send->least_ms || !send_devices_ready(send)) {
		send->least_pending = pending;
		send->least_ms = clock_ms();
	}
	if (r || send->options.timeout_strategy != SEND_AT_TIMEOUT_CANCEL ||
	    clock_ms() - send->least_ms < DONE_MS)
		return r;
	ms = expected_us(send, result) / 1000 + 1;
	return error_set(err, ETIMEDOUT,
			 "the states of the assigned devices take %llu MiB while the VM stands, "
			 "about %llu ms: allow downtime_ms to be that long",
			 (unsigned long long)(pending >> 20), (unsigned long long)ms);
}

int send_precopy(struct migration_send *send, struct error *err)
{
	struct round_result result = { .rate = RATE_ASSUMED };
	int r;

	send_set_phase(send, TRANSFER_PRECOPY);
	dirty_tracker_set_all(send->tracker);
	send_devices_begin(send, DEVICE_STEP_PRECOPY);
	/* A VM that stands still needs no second round, but for what the VMM writes. */
	for (;;) {
		uint64_t goal = send->options.downtime_ms * 1000;

		r = one_round(send, &result, err);
		if (r)
			return r;
		if (send_devices_ready(send) &&
		    (!send->was_running ||
		     expected_us(send, &result) <= MAX(goal, FIXED_DOWNTIME_US)))
			return 0;
		/* What is left costs as much as what was sent: it may as well follow. */
		if (send->options.postcopy &&
		    result.dirty.pages * GUEST_PAGE_SIZE * 2 > result.bytes)
			return 0;
		r = check_deadline(send, err);
		if (r || too_late(send))
			return r;
		if (send->devices.count && result.dirty.pages < DONE_PAGES) {
			r = wait_for_devices(send, &result, err);
			if (r)
				return r;
		} else {
			check_progress(send, result.bytes, result.dirty.pages * GUEST_PAGE_SIZE);
		}
	}
}
