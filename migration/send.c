/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/send.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/send_private.h"
#include "migration/update.h"

#define LOCKS_MS 2000

void send_options_init(struct send_options *options)
{
	*options = (struct send_options){
		.connections = 1,
		.downtime_ms = 300,
		.timeout_s = 3600,
		.max_throttle = 99,
		.stall_ms = 10000,
		.inquiry_ms = 60000,
		.recovery_ms = 300000,
	};
}

static int check(const struct send_options *options, struct error *err)
{
	if (!options->connections || options->connections > PROTOCOL_CONNECTIONS_MAX)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "migrate over %u connections: 1 to %d are possible",
				      options->connections, PROTOCOL_CONNECTIONS_MAX);
	if (options->max_throttle > 99)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "slow vCPUs down by up to %u %%: 0 to 99 are possible",
				      options->max_throttle);
	/* In milliseconds and microseconds they have to fit, too. */
	if (options->timeout_s > UINT32_MAX || options->downtime_ms > UINT32_MAX)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "migrate: downtime_ms and timeout_s are at most %u",
				      UINT32_MAX);
	if (options->postcopy && options->local)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "migrate: RAM that is handed over cannot follow by postcopy");
	if (options->stall_ms <= 0 || options->inquiry_ms < 0 || options->recovery_ms < 0 ||
	    options->stall_ms > INT32_MAX / 8)
		return error_set(err, EINVAL, "migrate: timeouts out of range");
	return 0;
}

static void init_locks(struct migration_send *send)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&send->lock, NULL);
	pthread_mutex_init(&send->round_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&send->round_begins, &attr);
	pthread_cond_init(&send->round_over, &attr);
	pthread_condattr_destroy(&attr);
}

struct migration_send *migration_send_new(const struct migration_vm *vm,
					  const struct send_options *options, struct error *err)
{
	struct migration_send *send;

	if (check(options, err))
		return NULL;
	send = calloc(1, sizeof(*send));
	if (!send) {
		error_set_errno(err, ENOMEM, "migrate");
		return NULL;
	}
	send->vm = *vm;
	send->options = *options;
	send->witness = (struct witness)WITNESS_INIT;
	send->unit = 1;
	init_locks(send);
	bandwidth_init(&send->bandwidth, options->bandwidth);
	send->cancel = eventfd_new();
	send->stop = eventfd_new();
	send->late = eventfd_new();
	if (send->cancel < 0 || send->stop < 0 || send->late < 0) {
		error_set_errno(err, EMFILE, "migrate");
		migration_send_free(send);
		return NULL;
	}
	return send;
}

static void hang_up(struct migration_send *send)
{
	send_pages_stop(send);
	send_devices_stop(send);
	send_devices_free(send);
	send_pages_hang_up(send);
	channel_free(take_ptr(send->control));
	witness_close(&send->witness);
}

void migration_send_free(struct migration_send *send)
{
	if (!send)
		return;
	hang_up(send);
	dirty_tracker_free(send->tracker);
	cleanup_close(&send->cancel);
	cleanup_close(&send->stop);
	cleanup_close(&send->late);
	bandwidth_destroy(&send->bandwidth);
	pthread_cond_destroy(&send->round_begins);
	pthread_cond_destroy(&send->round_over);
	pthread_mutex_destroy(&send->round_lock);
	pthread_mutex_destroy(&send->lock);
	free(send);
}

void send_set_phase(struct migration_send *send, enum transfer_phase phase)
{
	pthread_mutex_lock(&send->lock);
	send->progress.phase = phase;
	pthread_mutex_unlock(&send->lock);
}

uint64_t send_wire_bytes(const struct migration_send *send)
{
	uint64_t bytes = send->closed_bytes + (send->control ? channel_sent(send->control) : 0);

	if (send->requests.channel)
		bytes += channel_sent(send->requests.channel);
	for (unsigned int i = 0; send->senders && i < send->options.connections; i++)
		if (send->senders[i].channel)
			bytes += channel_sent(send->senders[i].channel);
	return bytes + send_devices_sent(send);
}

/* Every source that writes to RAM, or the migration is refused: before anybody is called. */
static int make_tracker(struct migration_send *send, struct error *err)
{
	struct dirty_source *sources[MIGRATION_DIRTY_SOURCES_MAX];
	int n = send->vm.ops->dirty_sources(send->vm.opaque, sources, MIGRATION_DIRTY_SOURCES_MAX,
					    err);

	if (n < 0)
		return n;
	send->tracker = dirty_tracker_new(send->memory, err);
	if (!send->tracker)
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		int r = dirty_tracker_add(
			send->tracker, sources[i],
			sources[i]->ops->dma ? DIRTY_ORDER_LAST : DIRTY_ORDER_NORMAL, err);

		if (r)
			return r;
	}
	return 0;
}

static int check_memfds(struct migration_send *send, struct error *err)
{
	for (unsigned int i = 0; i < guest_memory_region_count(send->memory); i++)
		if (guest_memory_region(send->memory, i)->memfd < 0)
			return error_set_kind(
				err, ERROR_BAD_REQUEST, EOPNOTSUPP,
				"local migration hands over memfds, but this VM's RAM is a "
				"private copy of a snapshot's: migrate without \"local\"");
	return 0;
}

static uint64_t lap(uint64_t *since)
{
	uint64_t now = clock_ns(), us = (now - *since) / 1000;

	*since = now;
	return us;
}

static int save_state(struct migration_send *send, void **blob, size_t *len, struct error *err)
{
	struct state_writer *writer = state_writer_new(err);
	int r;

	if (!writer)
		return -ENOMEM;
	r = send->vm.ops->save(send->vm.opaque, writer, err);
	if (!r)
		r = state_writer_finish(writer, blob, len, err);
	state_writer_free(writer);
	return r;
}

/* First none starts DMA to another any more, then none does any: what they have written
 * until then, the dirty sources see. */
static int stop_devices(struct migration_send *send, struct error *err)
{
	int r;

	if (!send->devices.count)
		return 0;
	send_devices_begin(send, DEVICE_STEP_QUIESCE);
	r = send_devices_wait(send, err);
	if (r)
		return r;
	send_devices_begin(send, DEVICE_STEP_STOP);
	return send_devices_wait(send, err);
}

/* The VM stands still: what is left of its RAM, and of its devices beside that. Once its
 * state is saved, so that what saving wrote there comes along. */
static int send_rest(struct migration_send *send, struct error *err)
{
	struct dirty_round round;
	int r = send->tracker ? dirty_tracker_collect_last(send->tracker, &round, err) : 0;

	if (r)
		return r;
	if (send->options.postcopy)
		return send_postcopy_missing(send, err);
	send_devices_begin(send, DEVICE_STEP_REST);
	if (send->tracker)
		r = send_round(send, true, err);
	return r ? r : send_devices_wait(send, err);
}

static int send_state(struct migration_send *send, void *blob, size_t len, struct error *err)
{
	struct iovec iov = { .iov_base = blob, .iov_len = len };
	struct frame frame;
	int r = channel_send(send->control, &(struct frame){ .type = FRAME_STATE }, NULL, 0, &iov,
			     1, err);

	if (!r)
		r = send_update_agreed(send, err);
	if (!r)
		r = send_expect(send, FRAME_READY, &frame, send->options.stall_ms, err);
	if (r)
		return r;
	if (frame.meta_len < READY_SIZE)
		return error_set(err, EBADMSG, "READY of the destination is too short");
	pthread_mutex_lock(&send->lock);
	send->progress.load_us = load_le64(channel_meta(send->control));
	pthread_mutex_unlock(&send->lock);
	/* A witness that says nothing before the VM runs is none. */
	if (!(load_le32(channel_meta(send->control) + 8) & READY_WITNESS))
		witness_close(&send->witness);
	return 0;
}

static int stop_and_move(struct migration_send *send, struct error *err)
{
	_cleanup_free_ void *blob = NULL;
	struct transfer_downtime took = { .total = 0 };
	uint64_t since = clock_ns();
	size_t len;
	int r;

	send_set_phase(send, TRANSFER_STOPPED);
	if (!send->options.postcopy)
		bandwidth_set(&send->bandwidth, 0);
	send->paused = true; /* also where it failed half-way */
	send->paused_ns = since;
	r = send->vm.ops->pause(send->vm.opaque, err);
	took.pause = lap(&since);
	if (!r)
		r = stop_devices(send, err);
	took.devices = lap(&since);
	/* The new process of a live update takes it while the state is saved here. */
	if (!r)
		r = send_update_kept(send, true, err);
	if (!r)
		r = save_state(send, &blob, &len, err);
	took.save = lap(&since);
	if (!r)
		r = send_rest(send, err);
	took.pages = lap(&since);
	if (!r)
		r = send_state(send, blob, len, err);
	took.load = lap(&since);
	if (!r)
		r = send_hand_over(send, err);
	took.handover = lap(&since);
	took.total = (since - send->paused_ns) / 1000;
	pthread_mutex_lock(&send->lock);
	send->progress.downtime = took;
	pthread_mutex_unlock(&send->lock);
	return r || !send->options.postcopy ? r : send_follow(send, err);
}

static int check_postcopy(struct migration_send *send, struct error *err)
{
	const struct migration_vm_ops *ops = send->vm.ops;
	int r = 0;

	if (!send->options.postcopy)
		return 0;
	if (ops->check_postcopy)
		r = ops->check_postcopy(send->vm.opaque, err);
	if (!r && send->devices.count)
		r = error_set_kind(
			err, ERROR_BAD_REQUEST, EOPNOTSUPP,
			"device %s: its state is a stream, and its DMA cannot wait for a "
			"page that is still to come: migrate by precopy",
			send->devices.senders[0].device->id);
	return r;
}

static int migrate(struct migration_send *send, struct error *err)
{
	bool local = send->options.local;
	int r = send_devices_find(send, err);

	if (!r)
		r = check_postcopy(send, err);
	if (!r)
		r = local ? check_memfds(send, err) : make_tracker(send, err);
	if (!r)
		r = send_set_up(send, err);
	if (!r && !local)
		r = dirty_tracker_start(send->tracker, err);
	if (!r && !local)
		r = send_precopy(send, err);
	if (!r && send->options.postcopy)
		r = send_postcopy_announce(send, err);
	return r ? r : stop_and_move(send, err);
}

/* A process that has just ended may still have them for a moment. */
static int take_locks(struct migration_send *send, struct error *err)
{
	uint64_t until = clock_ms() + LOCKS_MS;
	int r = send->vm.ops->take_locks(send->vm.opaque, err);

	while (r && clock_ms() < until) {
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
		r = send->vm.ops->take_locks(send->vm.opaque, err);
	}
	return r;
}

/* Everything as it was before. What cannot be is told in err, in front of the cause. */
static enum transfer_outcome undo(struct migration_send *send, struct error *err)
{
	struct error own = ERROR_INIT;

	if (send->lost)
		return TRANSFER_LOST;
	if (send->in_doubt)
		return TRANSFER_HELD;
	if (send_devices_rollback(send, &own)) {
		error_prefix(err, "the VM goes on here with a device that does not (%s) after",
			     own.message);
		error_clear(&own);
	}
	if (send->unlocked && take_locks(send, &own)) {
		error_prefix(err,
			     "the VM is held here, paused, since its disks are locked (%s) after",
			     own.message);
		return TRANSFER_HELD;
	}
	if (!send->paused || !send->was_running || send->options.leave_paused)
		return TRANSFER_STAYED;
	if (send->vm.ops->resume(send->vm.opaque, &own))
		error_prefix(err,
			     "the VM is here and paused, for it could not be resumed (%s) after",
			     own.message);
	return TRANSFER_STAYED;
}

/* An error that a cancelled migration ends with is its cancelling's. */
static void name_cause(struct migration_send *send, struct error *err)
{
	const char *why;

	pthread_mutex_lock(&send->lock);
	why = send->in_doubt ? NULL : send->why;
	pthread_mutex_unlock(&send->lock);
	if (why)
		error_set(err, ECANCELED, "%s", why);
	error_prefix(err, "send migration");
}

/* Of a COMMIT that was sent the destination knows best what became. */
static void fail(struct migration_send *send, struct error *err)
{
	bool committed;

	pthread_mutex_lock(&send->lock);
	committed = send->progress.phase >= TRANSFER_HANDOVER;
	pthread_mutex_unlock(&send->lock);
	if (!committed)
		send_find_reason(send, err);
	name_cause(send, err);
	if (send->control && !committed)
		channel_send_failed(send->control, err);
}

/* Under the lock: what the channels and threads count. */
static void fill_in(struct migration_send *send, struct transfer_progress *progress)
{
	if (send->started_ns)
		progress->elapsed_us = (clock_ns() - send->started_ns) / 1000;
	progress->pages = atomic_load(&send->pages);
	progress->zero_pages = atomic_load(&send->zero_pages);
	progress->remaining_bytes = atomic_load(&send->remaining) * GUEST_PAGE_SIZE;
	progress->wire_bytes = send_wire_bytes(send);
	for (unsigned int i = 0; i < progress->connection_count; i++)
		progress->connections[i].bytes = channel_sent(send->senders[i].channel);
	send_devices_progress(send, progress);
	progress->faults.count = MAX(progress->faults.count, atomic_load(&send->faults));
}

static void finish(struct migration_send *send, enum transfer_outcome outcome)
{
	pthread_mutex_lock(&send->lock);
	fill_in(send, &send->progress);
	send->progress.outcome = outcome;
	send->progress.phase = TRANSFER_OVER;
	pthread_mutex_unlock(&send->lock);
	hang_up(send);
}

int migration_send_run(struct migration_send *send, struct error *err)
{
	struct error own = ERROR_INIT;
	enum transfer_outcome outcome = TRANSFER_MOVED;
	int r;

	send->rated_ns = clock_ns();
	send->deadline_ms =
		send->options.timeout_s ? clock_ms() + send->options.timeout_s * 1000 : 0;
	send->memory = send->vm.ops->memory(send->vm.opaque);
	send->was_running = send->vm.ops->running(send->vm.opaque);
	pthread_mutex_lock(&send->lock);
	send->started_ns = send->rated_ns;
	send->progress.ram_bytes = guest_memory_size(send->memory);
	pthread_mutex_unlock(&send->lock);

	r = migrate(send, &own);
	if (r && !own.code)
		error_set_errno(&own, r, "migrate");
	if (r)
		fail(send, &own);
	/* No page connection looks at the tracker or RAM any more. */
	eventfd_signal(send->stop);
	send_pages_stop(send);
	send_devices_stop(send);
	send_postcopy_hang_up(send);
	if (send->tracker)
		dirty_tracker_stop(send->tracker);
	if (send->progress.throttle)
		send->vm.ops->throttle(send->vm.opaque, 0, NULL);
	if (r)
		outcome = undo(send, &own);
	finish(send, outcome);
	if (r && err)
		*err = own;
	return r ? own.code : 0;
}

enum transfer_outcome migration_send_outcome(struct migration_send *send)
{
	enum transfer_outcome outcome;

	pthread_mutex_lock(&send->lock);
	outcome = send->progress.outcome;
	pthread_mutex_unlock(&send->lock);
	return outcome;
}

int migration_send_cancel(struct migration_send *send, const char *why)
{
	int r = 0;

	pthread_mutex_lock(&send->lock);
	if (send->progress.phase < TRANSFER_HANDOVER) {
		send->progress.cancelling = true;
		if (!send->why)
			send->why = why ?: "cancelled";
		eventfd_signal(send->cancel);
		eventfd_signal(send->stop);
	} else {
		if (send->inquiring)
			eventfd_signal(send->late);
		r = -EALREADY;
	}
	pthread_mutex_unlock(&send->lock);
	return r;
}

void migration_send_progress(struct migration_send *send, struct transfer_progress *progress)
{
	pthread_mutex_lock(&send->lock);
	*progress = send->progress;
	if (progress->phase != TRANSFER_OVER)
		fill_in(send, progress);
	pthread_mutex_unlock(&send->lock);
}

void migration_send_set_bandwidth(struct migration_send *send, uint64_t bandwidth)
{
	pthread_mutex_lock(&send->lock);
	/* The last round has none. */
	if (send->progress.phase < TRANSFER_STOPPED || send->options.postcopy)
		bandwidth_set(&send->bandwidth, bandwidth);
	pthread_mutex_unlock(&send->lock);
}
