/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/vm_work.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "migration/receive.h"
#include "migration/send.h"
#include "migration/snapshot.h"

#define NS_PER_MS 1000000ULL

void vm_work_init(struct vm_work *work)
{
	memset(work, 0, sizeof(*work));
	pthread_mutex_init(&work->lock, NULL);
}

void vm_work_destroy(struct vm_work *work)
{
	pthread_mutex_destroy(&work->lock);
}

void vm_work_begin(struct vm_work *work, enum vm_migration_direction direction)
{
	pthread_mutex_lock(&work->lock);
	work->progress = (struct vm_migration_progress){
		.direction = direction,
		.phase = VM_MIGRATION_PHASE_SETUP,
	};
	work->started_ns = clock_ns();
	pthread_mutex_unlock(&work->lock);
}

static void count_snapshot(const struct vm_work *work, const struct snapshot_progress *snapshot,
			   struct vm_migration_progress *progress)
{
	uint64_t ms = progress->elapsed_ms ? progress->elapsed_ms : 1;

	progress->ram_bytes = atomic_load(&snapshot->total);
	progress->done_bytes = atomic_load(&snapshot->done);
	progress->remaining_bytes = progress->ram_bytes > progress->done_bytes
					    ? progress->ram_bytes - progress->done_bytes
					    : 0;
	progress->transferred_bytes = atomic_load(&snapshot->transferred);
	progress->rate = (uint64_t)((unsigned __int128)progress->transferred_bytes * 1000 / ms);
	progress->cancelling = atomic_load(&snapshot->cancel);
}

static enum vm_migration_phase phase_of(int snapshot_phase)
{
	switch (snapshot_phase) {
	case SNAPSHOT_PREPARING: return VM_MIGRATION_PHASE_SETUP;
	case SNAPSHOT_PAUSED: return VM_MIGRATION_PHASE_SWITCHOVER;
	default: return VM_MIGRATION_PHASE_BACKGROUND;
	}
}

static enum vm_migration_phase phase_of_transfer(enum transfer_phase phase)
{
	switch (phase) {
	case TRANSFER_CONNECT: return VM_MIGRATION_PHASE_CONNECT;
	case TRANSFER_SETUP: return VM_MIGRATION_PHASE_SETUP;
	case TRANSFER_PRECOPY: return VM_MIGRATION_PHASE_PRECOPY;
	case TRANSFER_STOPPED:
	case TRANSFER_HANDOVER: return VM_MIGRATION_PHASE_SWITCHOVER;
	case TRANSFER_POSTCOPY: return VM_MIGRATION_PHASE_POSTCOPY;
	case TRANSFER_OVER: return VM_MIGRATION_PHASE_COMPLETED;
	}
	return VM_MIGRATION_PHASE_NONE;
}

static void count_devices(const struct transfer_progress *from, struct vm_migration_progress *to)
{
	to->device_count = MIN(from->device_count, (unsigned int)VM_MIGRATION_DEVICES_MAX);
	for (unsigned int i = 0; i < to->device_count; i++) {
		const struct transfer_device *device = &from->devices[i];
		struct vm_migration_device_progress *out = &to->devices[i];

		snprintf(out->id, sizeof(out->id), "%s", device->id);
		snprintf(out->backend, sizeof(out->backend), "%s", device->kind);
		out->bytes = device->bytes;
		out->remaining_bytes = device->pending;
		out->ready = device->ready;
	}
}

static void count_transfer(const struct transfer_progress *from, struct vm_migration_progress *to)
{
	to->phase = phase_of_transfer(from->phase);
	to->cancelling = from->cancelling;
	to->elapsed_ms = from->elapsed_us / 1000;
	to->round = from->round;
	to->ram_bytes = from->ram_bytes;
	to->remaining_bytes = from->remaining_bytes;
	to->done_bytes = from->ram_bytes > from->remaining_bytes
				 ? from->ram_bytes - from->remaining_bytes
				 : 0;
	to->transferred_bytes = from->wire_bytes;
	to->pages = from->pages;
	to->zero_pages = from->zero_pages;
	to->rate = from->rate;
	to->dirty_rate = from->dirty_rate;
	to->throttle = from->throttle;
	to->expected_downtime_us = from->expected_downtime_us;
	to->downtime = (struct vm_migration_downtime){
		.total = from->downtime.total,
		.stop = from->downtime.pause,
		.devices = from->downtime.devices,
		.memory = from->downtime.pages,
		.state = from->downtime.save + from->downtime.load,
		.handover = from->downtime.handover,
	};
	to->faults = (struct vm_migration_faults){
		.count = from->faults.count,
		.mean = from->faults.mean_us,
		.max = from->faults.max_us,
		.recoveries = from->faults.recoveries,
	};
	to->io_uring = from->io && !strcmp(from->io, "io_uring");
	to->zero_copy = from->zero_copy;
	to->connection_count = MIN(from->connection_count, (unsigned int)SEND_CONNECTIONS_MAX);
	for (unsigned int i = 0; i < to->connection_count; i++)
		to->connections[i] = (struct vm_migration_connection_progress){
			.bytes = from->connections[i].bytes,
			.rate = from->connections[i].rate,
		};
	count_devices(from, to);
}

static void update_transfer_locked(struct vm_work *work)
{
	struct transfer_progress transfer;

	if (work->send)
		migration_send_progress(work->send, &transfer);
	else
		migration_receive_progress(work->receive, &transfer);
	count_transfer(&transfer, &work->progress);
	/* It is over when the worker says so, and how. */
	if (transfer.phase == TRANSFER_OVER && transfer.outcome != TRANSFER_MOVED)
		work->progress.phase = VM_MIGRATION_PHASE_SWITCHOVER;
}

static void update_locked(struct vm_work *work)
{
	struct vm_migration_progress *progress = &work->progress;

	if (progress->direction == VM_MIGRATION_DIRECTION_NONE)
		return;
	if (!vm_migration_phase_over(progress->phase))
		progress->elapsed_ms = (clock_ns() - work->started_ns) / NS_PER_MS;
	if (work->snapshot) {
		progress->phase = phase_of(atomic_load(&work->snapshot->phase));
		count_snapshot(work, work->snapshot, progress);
	} else if (work->background) {
		count_snapshot(work, work->background, progress);
	} else if (work->send || work->receive) {
		update_transfer_locked(work);
	}
}

void vm_work_set_snapshot(struct vm_work *work, struct snapshot_progress *snapshot)
{
	pthread_mutex_lock(&work->lock);
	update_locked(work);
	work->snapshot = snapshot;
	pthread_mutex_unlock(&work->lock);
}

void vm_work_set_background(struct vm_work *work, struct snapshot_progress *background)
{
	pthread_mutex_lock(&work->lock);
	update_locked(work);
	work->background = background;
	if (background)
		work->progress.phase = VM_MIGRATION_PHASE_BACKGROUND;
	pthread_mutex_unlock(&work->lock);
}

static void give_up_ended_locked(struct vm_work *work)
{
	if (work->send && work->ended && work->ended_generation == work->sent_generation)
		migration_send_cancel(work->send, work->ended);
}

void vm_work_set_send(struct vm_work *work, struct migration_send *send, unsigned int generation)
{
	pthread_mutex_lock(&work->lock);
	update_locked(work);
	work->send = send;
	work->sent_generation = generation;
	give_up_ended_locked(work);
	pthread_mutex_unlock(&work->lock);
}

void vm_work_set_receive(struct vm_work *work, struct migration_receive *receive)
{
	pthread_mutex_lock(&work->lock);
	update_locked(work);
	work->receive = receive;
	pthread_mutex_unlock(&work->lock);
}

void vm_work_end(struct vm_work *work, int result, const struct error *err)
{
	pthread_mutex_lock(&work->lock);
	update_locked(work);
	work->progress.cancelling = false;
	if (!result) {
		work->progress.phase = VM_MIGRATION_PHASE_COMPLETED;
	} else {
		work->progress.phase = result == -ECANCELED ? VM_MIGRATION_PHASE_CANCELLED
							    : VM_MIGRATION_PHASE_FAILED;
		snprintf(work->progress.error, sizeof(work->progress.error), "%s", err->message);
	}
	pthread_mutex_unlock(&work->lock);
}

void vm_work_progress(struct vm_work *work, struct vm_migration_progress *progress)
{
	pthread_mutex_lock(&work->lock);
	update_locked(work);
	*progress = work->progress;
	pthread_mutex_unlock(&work->lock);
}

int vm_work_cancel(struct vm_work *work, struct error *err)
{
	int r = 0;

	pthread_mutex_lock(&work->lock);
	if (work->snapshot)
		atomic_store(&work->snapshot->cancel, true);
	else if (work->send)
		r = migration_send_cancel(work->send, NULL);
	else if (work->receive)
		r = migration_receive_cancel(work->receive);
	else
		r = error_set_kind(err, ERROR_WRONG_STATE, EBUSY,
				   "no snapshot, restore or migration is under way");
	pthread_mutex_unlock(&work->lock);
	if (r == -EALREADY)
		return error_set_kind(err, ERROR_WRONG_STATE, EALREADY,
				      "it is too late: the VM is being handed over");
	return r;
}

void vm_work_guest_ended(struct vm_work *work, unsigned int generation, const char *how)
{
	pthread_mutex_lock(&work->lock);
	work->ended_generation = generation;
	work->ended = how;
	give_up_ended_locked(work);
	pthread_mutex_unlock(&work->lock);
}
