/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/receive.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/receive_private.h"
#include "migration/update.h"

#define REASON_MS 300 /* for the source to say why it hung up */

void receive_options_init(struct receive_options *options)
{
	*options = (struct receive_options){
		.listener = -1,
		.max_connections = PROTOCOL_CONNECTIONS_MAX,
		.local = true,
		.wait_ms = -1,
		.stall_ms = 10000,
		.linger_ms = 120000,
		.recovery_ms = 360000,
	};
}

struct migration_receive *migration_receive_new(const struct migration_target *target,
						const struct receive_options *options,
						struct error *err)
{
	struct migration_receive *receive;
	pthread_condattr_t attr;

	if (options->stall_ms <= 0 || options->stall_ms > INT32_MAX / 8 || options->linger_ms < 0 ||
	    options->recovery_ms < 0 || !options->max_connections ||
	    options->max_connections > PROTOCOL_CONNECTIONS_MAX) {
		error_set(err, EINVAL, "receive a migration: options out of range");
		return NULL;
	}
	receive = calloc(1, sizeof(*receive));
	if (!receive) {
		error_set_errno(err, ENOMEM, "receive a migration");
		return NULL;
	}
	receive->target = *target;
	receive->options = *options;
	receive->witness = (struct witness)WITNESS_INIT;
	receive->postcopy.resumed = -1;
	pthread_mutex_init(&receive->lock, NULL);
	pthread_mutex_init(&receive->round_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&receive->round_over, &attr);
	pthread_condattr_destroy(&attr);
	receive->stop = eventfd_new();
	receive->late = eventfd_new();
	receive->postcopy.resumed = eventfd_new();
	if (receive->stop < 0 || receive->late < 0 || receive->postcopy.resumed < 0) {
		error_set_errno(err, EMFILE, "receive a migration");
		migration_receive_free(receive);
		return NULL;
	}
	return receive;
}

static void free_receivers(struct page_receiver *receivers, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		channel_free(receivers[i].channel);
		free(receivers[i].buffer);
	}
	free(receivers);
}

static uint64_t received_bytes(const struct migration_receive *receive)
{
	uint64_t bytes = receive->control ? channel_received(receive->control) : 0;

	for (unsigned int i = 0; i < receive->count; i++)
		bytes += channel_received(receive->receivers[i].channel);
	return bytes + (receive->postcopy.requests.channel
				? channel_received(receive->postcopy.requests.channel)
				: 0);
}

void receive_hang_up(struct migration_receive *receive)
{
	struct page_receiver *receivers;
	struct channel *control;
	unsigned int count;

	eventfd_signal(receive->stop);
	receive_pages_stop(receive);
	pthread_mutex_lock(&receive->lock);
	receive->closed_bytes += received_bytes(receive);
	control = take_ptr(receive->control);
	receivers = take_ptr(receive->receivers);
	count = receive->count;
	receive->count = 0;
	if (receive->progress.phase != TRANSFER_OVER)
		receive->progress.connection_count = 0;
	pthread_mutex_unlock(&receive->lock);
	receive_postcopy_hang_up(receive);
	free_receivers(receivers, count);
	channel_free(control);
}

static void hang_up(struct migration_receive *receive)
{
	eventfd_signal(receive->stop);
	receive_devices_free(receive);
	receive_hang_up(receive);
	witness_close(&receive->witness);
}

void migration_receive_free(struct migration_receive *receive)
{
	if (!receive)
		return;
	cleanup_close(&receive->stop);
	cleanup_close(&receive->late);
	cleanup_close(&receive->postcopy.resumed);
	arriving_free(receive->postcopy.arriving);
	pthread_cond_destroy(&receive->round_over);
	pthread_mutex_destroy(&receive->round_lock);
	pthread_mutex_destroy(&receive->lock);
	free(receive);
}

void receive_set_phase(struct migration_receive *receive, enum transfer_phase phase)
{
	pthread_mutex_lock(&receive->lock);
	receive->progress.phase = phase;
	pthread_mutex_unlock(&receive->lock);
}

/* Under the lock: what the channels and threads count. */
static void fill_in(struct migration_receive *receive, struct transfer_progress *progress)
{
	if (receive->started_ns)
		progress->elapsed_us = (clock_ns() - receive->started_ns) / 1000;
	progress->pages = atomic_load(&receive->pages);
	progress->zero_pages = atomic_load(&receive->zero_pages);
	progress->wire_bytes = receive->closed_bytes + received_bytes(receive);
	for (unsigned int i = 0; i < progress->connection_count; i++)
		progress->connections[i].bytes = channel_received(receive->receivers[i].channel);
	if (receive->postcopy.arriving) {
		progress->remaining_bytes =
			arriving_left(receive->postcopy.arriving) * GUEST_PAGE_SIZE;
		arriving_figures(receive->postcopy.arriving, &progress->faults);
	}
	receive_devices_progress(receive, progress);
}

void receive_set_outcome(struct migration_receive *receive, enum transfer_outcome outcome)
{
	pthread_mutex_lock(&receive->lock);
	if (receive->progress.phase != TRANSFER_OVER)
		fill_in(receive, &receive->progress);
	receive->progress.outcome = outcome;
	receive->progress.phase = TRANSFER_OVER;
	pthread_mutex_unlock(&receive->lock);
}

bool receive_cancelled(struct migration_receive *receive)
{
	bool cancelled;

	pthread_mutex_lock(&receive->lock);
	cancelled = receive->progress.cancelling;
	pthread_mutex_unlock(&receive->lock);
	return cancelled;
}

void receive_destroy_target(struct migration_receive *receive)
{
	/* Nobody writes to its RAM any more. */
	eventfd_signal(receive->stop);
	receive_pages_stop(receive);
	receive_devices_stop(receive);
	receive_postcopy_release(receive);
	if (receive->created)
		receive->target.ops->destroy(receive->target.opaque);
	receive->created = false;
}

static int load(struct migration_receive *receive, const void *blob, size_t len, struct error *err)
{
	struct state_node root, machine;
	int r = state_tree_open(blob, len, &root, err);

	if (!r)
		r = state_child(&root, "machine", &machine, err);
	return r ? r : receive->target.ops->load(receive->target.opaque, &machine, err);
}

static int answer_round(struct migration_receive *receive, uint64_t round, uint64_t *asked,
			struct error *err)
{
	struct frame loaded = { .type = FRAME_ROUND_LOADED, .offset = round };
	int r;

	if (round <= *asked)
		return error_set(err, EPROTO, "ROUND_SENT of the source: round %llu after %llu",
				 (unsigned long long)round, (unsigned long long)*asked);
	*asked = round;
	r = receive_pages_wait(receive, round, err);
	return r ? r : channel_send(receive->control, &loaded, NULL, 0, NULL, 0, err);
}

/* STATE; before it, the source asks after rounds. */
static int expect_state(struct migration_receive *receive, struct frame *frame, struct error *err)
{
	bool rounds = receive->capabilities & CAPABILITY_ROUNDS;
	uint64_t asked = 0;

	for (;;) {
		int r = receive_next(receive, frame, err);

		if (!r && rounds && frame->type == FRAME_ROUND_SENT)
			r = answer_round(receive, frame->offset, &asked, err);
		else if (!r && frame->type != FRAME_PING)
			return control_check(frame, "source", FRAME_STATE, err);
		if (r)
			return r;
	}
}

static int receive_state(struct migration_receive *receive, uint64_t *load_us, struct error *err)
{
	_cleanup_free_ void *blob = NULL;
	bool postcopy = receive->postcopy.arriving;
	struct frame frame;
	uint64_t begun;
	int r = postcopy ? receive_postcopy_prepare(receive, err)
			 : receive_update_kept(receive, true, err);

	if (!r)
		r = expect_state(receive, &frame, err);
	if (r)
		return r;
	receive_set_phase(receive, TRANSFER_STOPPED);
	r = channel_receive_blob(receive->control, &frame, &blob, err);
	if (!r && !postcopy)
		r = receive_pages_wait(receive, 0, err);
	begun = clock_ns();
	if (!r)
		r = load(receive, blob, frame.length, err);
	/* What it touched may never have come: it was let go, then, with zeros. */
	if (!r && postcopy)
		r = receive_pages_error(receive, err);
	*load_us = (clock_ns() - begun) / 1000;
	pthread_mutex_lock(&receive->lock);
	receive->progress.load_us = *load_us;
	pthread_mutex_unlock(&receive->lock);
	return r;
}

static int migrate(struct migration_receive *receive, struct error *err)
{
	uint64_t load_us;
	int r = receive_set_up(receive, err);

	if (r)
		return r;
	receive_set_phase(receive, TRANSFER_PRECOPY);
	r = receive_state(receive, &load_us, err);
	return r ? r : receive_hand_over(receive, load_us, err);
}

/* A connection that was closed says less than the source's last words, if it had any. */
static void find_reason(struct migration_receive *receive, struct error *err)
{
	struct error said = ERROR_INIT;
	struct frame frame;

	if (!receive->control || err->code != -ECONNRESET)
		return;
	channel_set_cancel(receive->control, -1);
	while (!channel_receive(receive->control, &frame, REASON_MS, &said))
		if (frame.type == FRAME_FAILED) {
			failed_decode("source", channel_meta(receive->control), frame.meta_len,
				      err);
			return;
		}
}

/* Who cancels, and whose page connection failed, shows as "cancelled" on control. */
static void name_cause(struct migration_receive *receive, struct error *err)
{
	if (receive_cancelled(receive)) {
		error_set(err, ECANCELED, "cancelled");
	} else if (err->code == -ECANCELED) {
		receive_pages_error(receive, err);
		if (!receive->decided)
			find_reason(receive, err);
	}
	error_prefix(err, "receive migration");
}

int migration_receive_run(struct migration_receive *receive, struct error *err)
{
	struct error own = ERROR_INIT;
	int r;

	pthread_mutex_lock(&receive->lock);
	receive->started_ns = clock_ns();
	pthread_mutex_unlock(&receive->lock);
	r = migrate(receive, &own);
	if (r) {
		if (!own.code)
			error_set_errno(&own, r, "migrate");
		name_cause(receive, &own);
		receive_destroy_target(receive);
		if (receive->control && !receive->decided)
			channel_send_failed(receive->control, &own);
		receive_set_outcome(receive,
				    receive->postcopy.lost ? TRANSFER_LOST : TRANSFER_STAYED);
	}
	hang_up(receive);
	if (r && err)
		*err = own;
	return r ? own.code : 0;
}

enum transfer_outcome migration_receive_outcome(struct migration_receive *receive)
{
	enum transfer_outcome outcome;

	pthread_mutex_lock(&receive->lock);
	outcome = receive->progress.outcome;
	pthread_mutex_unlock(&receive->lock);
	return outcome;
}

int migration_receive_cancel(struct migration_receive *receive)
{
	int r = 0;

	pthread_mutex_lock(&receive->lock);
	if (receive->progress.phase < TRANSFER_HANDOVER) {
		receive->progress.cancelling = true;
		eventfd_signal(receive->stop);
	} else {
		if (receive->progress.phase == TRANSFER_OVER)
			eventfd_signal(receive->late);
		r = -EALREADY;
	}
	pthread_mutex_unlock(&receive->lock);
	return r;
}

void migration_receive_progress(struct migration_receive *receive,
				struct transfer_progress *progress)
{
	pthread_mutex_lock(&receive->lock);
	*progress = receive->progress;
	if (progress->phase != TRANSFER_OVER)
		fill_in(receive, progress);
	pthread_mutex_unlock(&receive->lock);
}
