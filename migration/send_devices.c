/* SPDX-License-Identifier: Apache-2.0 */
/* The threads that send devices' streams. */
#include "migration/send_devices.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "migration/send_private.h"

#define TICK_MS 50
#define IDLE_MS 10 /* between two looks at a device that had nothing to say */
/* A device is asked again what is to come when it has given out so much: a question costs a
 * vfio-user device as much as a small read. */
#define LOOK_BYTES (16ULL << 20)

/* Has another step begun, or is it over? */
static bool moved_on(struct migration_send *send, unsigned int steps)
{
	bool over;

	pthread_mutex_lock(&send->round_lock);
	over = send->quit || send->devices.steps != steps;
	pthread_mutex_unlock(&send->round_lock);
	return over;
}

/* The next frame of the destination on this connection. */
static int hear(struct device_sender *sender, uint16_t *flags, struct error *err)
{
	struct frame frame;
	/* The device over there may take its time. */
	int r = channel_receive(sender->channel, &frame,
				sender->send->options.stall_ms + MIGRATABLE_STEP_MS, err);
	char got[16];

	if (r == -ENODATA)
		return error_set(err, ECONNRESET, "the destination closed the connection");
	if (r)
		return r;
	if (frame.type != FRAME_DEVICE_LOADED)
		return error_set(err, EPROTO, "the destination sent %s where DEVICE_LOADED belongs",
				 frame_name(frame.type, got, sizeof(got)));
	*flags = frame.flags;
	return 0;
}

/* Looks for the word that initial bytes are loaded; does not wait. Whether they are the last
 * ones, only a look at the device can tell. */
static int look(struct device_sender *sender, struct error *err)
{
	struct pollfd p = { .fd = channel_fd(sender->channel), .events = POLLIN };
	uint16_t flags = 0;
	int r;

	if (poll(&p, 1, 0) <= 0)
		return 0;
	r = hear(sender, &flags, err);
	if (!r && (!(flags & FRAME_INITIAL) || !sender->unheard))
		r = error_set(err, EPROTO, "the destination has loaded what was not sent yet");
	if (r)
		return r;
	sender->unheard--;
	sender->ahead = 0;
	return 0;
}

static int send_data(struct device_sender *sender, size_t len, uint16_t flags, struct error *err)
{
	struct iovec iov = { .iov_base = sender->buf, .iov_len = len };
	struct frame frame = {
		.type = FRAME_DEVICE_DATA,
		.flags = flags,
		.offset = atomic_load(&sender->sent),
	};
	int r = channel_send(sender->channel, &frame, NULL, 0, &iov, len ? 1 : 0, err);

	atomic_fetch_add(&sender->sent, len);
	return r;
}

/* A part of the stream. *some: there was one. */
static int send_part(struct device_sender *sender, bool *some, struct error *err)
{
	struct migratable *device = sender->device;
	ssize_t n = device->ops->save_read(device, sender->buf, FRAME_DEVICE_DATA_MAX, err);

	*some = n > 0;
	if (n <= 0)
		return (int)n;
	sender->ahead -= MIN(sender->ahead, (uint64_t)n);
	if ((size_t)n > FRAME_DEVICE_DATA_MAX)
		return error_set(err, EOVERFLOW, "device %s: read more than was asked for",
				 device->id);
	return send_data(sender, (size_t)n, 0, err);
}

/* The migration's thread may wait for this one. */
static void note_loaded(struct device_sender *sender)
{
	struct migration_send *send = sender->send;

	pthread_mutex_lock(&send->round_lock);
	atomic_store(&sender->loaded, true);
	pthread_cond_broadcast(&send->round_over);
	pthread_mutex_unlock(&send->round_lock);
}

/* What is to come; a device that was reconfigured has initial bytes anew. */
static int look_ahead(struct device_sender *sender, struct error *err)
{
	struct migratable *device = sender->device;
	struct migratable_pending pending = { 0 };
	int r = device->ops->save_pending(device, &pending, err);

	if (r)
		return r;
	atomic_store(&sender->pending, pending.stop_copy);
	if (pending.reinit) {
		sender->initial_sent = false;
		atomic_store(&sender->loaded, false);
	}
	sender->initial = sender->initial_sent ? 0 : pending.initial;
	sender->ahead = MIN(sender->initial_sent ? pending.dirty : pending.initial, LOOK_BYTES);
	if (sender->initial_sent && !sender->unheard && !atomic_load(&sender->loaded))
		note_loaded(sender);
	return 0;
}

/* A word of the destination ends it. */
static void idle(struct device_sender *sender, unsigned int steps)
{
	struct migration_send *send = sender->send;
	struct timespec until = clock_in_us(IDLE_MS * 1000);
	struct pollfd p = { .fd = channel_fd(sender->channel), .events = POLLIN };

	if (sender->unheard) {
		poll(&p, 1, IDLE_MS);
		return;
	}
	pthread_mutex_lock(&send->round_lock);
	if (!send->quit && send->devices.steps == steps)
		pthread_cond_timedwait(&send->round_begins, &send->round_lock, &until);
	pthread_mutex_unlock(&send->round_lock);
}

/* Reads while the device runs. Initial bytes are an estimate: they are over where it has no
 * more for now, too. */
static int precopy(struct device_sender *sender, unsigned int steps, struct error *err)
{
	int r = 0;

	while (!r && !moved_on(sender->send, steps)) {
		bool some = false;

		r = look(sender, err);
		if (!r && !sender->ahead)
			r = look_ahead(sender, err);
		if (!r && sender->device->precopy)
			r = send_part(sender, &some, err);
		if (!r && !sender->initial_sent && (!some || !sender->initial)) {
			sender->initial_sent = true;
			sender->unheard++;
			r = send_data(sender, 0, FRAME_INITIAL, err);
		}
		if (r || some)
			continue;
		sender->ahead = 0;
		idle(sender, steps);
	}
	return r;
}

static int send_rest(struct device_sender *sender, struct error *err)
{
	struct migratable *device = sender->device;
	bool some = true;
	uint16_t flags = 0;
	int r = 0;

	while (!r && some)
		r = send_part(sender, &some, err);
	if (!r)
		r = send_data(sender, 0, FRAME_LAST, err);
	while (!r && !(flags & FRAME_LAST))
		r = hear(sender, &flags, err);
	return r ? r : device->ops->save_end(device, err);
}

static int take_step(struct device_sender *sender, enum device_step step, unsigned int steps,
		     struct error *err)
{
	struct migratable *device = sender->device;

	if (!sender->begun) {
		int r;

		sender->begun = true;
		r = device->ops->save_begin(device, err);
		if (r)
			return r;
	}
	switch (step) {
	case DEVICE_STEP_NONE: return 0;
	case DEVICE_STEP_PRECOPY: return precopy(sender, steps, err);
	case DEVICE_STEP_QUIESCE: return device->ops->quiesce(device, err);
	case DEVICE_STEP_STOP: return device->ops->save_stop(device, err);
	case DEVICE_STEP_REST: return send_rest(sender, err);
	}
	return -EINVAL;
}

static int introduce(struct device_sender *sender, struct error *err)
{
	struct device_head head = { .id = "" };
	uint8_t meta[DEVICE_HEAD_SIZE_MAX];

	memcpy(head.session, sender->send->session, SESSION_SIZE);
	snprintf(head.id, sizeof(head.id), "%s", sender->device->id);
	snprintf(head.kind, sizeof(head.kind), "%s", sender->device->ops->kind);
	return channel_send(sender->channel, &(struct frame){ .type = FRAME_DEVICE }, meta,
			    device_head_encode(&head, meta), NULL, 0, err);
}

static void *run_sender(void *opaque)
{
	struct device_sender *sender = opaque;
	struct migration_send *send = sender->send;
	struct error error = ERROR_INIT;
	unsigned int steps = 0;
	int r = introduce(sender, &error);

	if (r)
		send_note_error(send, &error);
	pthread_mutex_lock(&send->round_lock);
	for (;;) {
		enum device_step step;

		while (!send->quit && send->devices.steps == steps)
			pthread_cond_wait(&send->round_begins, &send->round_lock);
		if (send->quit)
			break;
		steps = send->devices.steps;
		step = send->devices.step;
		pthread_mutex_unlock(&send->round_lock);
		if (!r) {
			r = take_step(sender, step, steps, &error);
			if (r) {
				channel_disown_error(sender->channel, &error);
				send_note_error(send, &error);
			}
		}
		pthread_mutex_lock(&send->round_lock);
		if (steps == send->devices.steps && step != DEVICE_STEP_PRECOPY &&
		    !--send->devices.busy)
			pthread_cond_broadcast(&send->round_over);
	}
	pthread_mutex_unlock(&send->round_lock);
	return NULL;
}

int send_devices_find(struct migration_send *send, struct error *err)
{
	struct migratable *devices[MIGRATION_DEVICES_MAX];
	int n = migration_vm_devices(&send->vm, devices, "moved", err);

	if (n <= 0)
		return n;
	send->devices.senders = calloc((size_t)n, sizeof(*send->devices.senders));
	if (!send->devices.senders)
		return error_set_errno(err, ENOMEM, "send devices");
	for (int i = 0; i < n; i++) {
		send->devices.senders[i].send = send;
		send->devices.senders[i].device = devices[i];
	}
	/* Progress is asked for by others. */
	pthread_mutex_lock(&send->lock);
	send->devices.count = (unsigned int)n;
	pthread_mutex_unlock(&send->lock);
	return 0;
}

static int start_sender(struct migration_send *send, unsigned int index, struct error *err)
{
	const struct send_options *options = &send->options;
	struct channel_options channel = {
		.kind = options->kind,
		.zero_copy = ZERO_COPY_OFF, /* the buffer is used again at once */
		.stream = (options->local ? 0 : options->connections) + 1 + index,
		.timeout_ms = options->stall_ms,
		.cancel_fd = send->stop,
		.bandwidth = &send->bandwidth,
		.tls = options->tls,
		.policy = options->policy,
	};
	struct device_sender *sender = &send->devices.senders[index];
	char name[24];
	int r = options->dialer.connect(options->dialer.opaque, options->stall_ms, send->cancel,
					err);

	if (r < 0)
		return r;
	sender->channel = channel_new(r, &channel, err);
	sender->buf = malloc(FRAME_DEVICE_DATA_MAX);
	if (!sender->channel || !sender->buf)
		return err && err->code ? err->code : -ENOMEM;
	snprintf(name, sizeof(name), "send-dev%u", index + 1);
	r = thread_start(&sender->thread, options->policy, THREAD_MIGRATION, name, run_sender,
			 sender, err);
	sender->started = !r;
	return r;
}

int send_devices_start(struct migration_send *send, struct error *err)
{
	for (unsigned int i = 0; i < send->devices.count; i++) {
		int r = start_sender(send, i, err);

		if (r)
			return error_prefix(err, "connection of device %s",
					    send->devices.senders[i].device->id);
	}
	return 0;
}

void send_devices_begin(struct migration_send *send, enum device_step step)
{
	pthread_mutex_lock(&send->round_lock);
	send->devices.step = step;
	send->devices.steps++;
	send->devices.busy = step == DEVICE_STEP_PRECOPY ? 0 : send->devices.count;
	pthread_cond_broadcast(&send->round_begins);
	pthread_mutex_unlock(&send->round_lock);
}

static bool wait_a_little(struct migration_send *send)
{
	struct timespec until = clock_in_us(TICK_MS * 1000);
	bool over;

	pthread_mutex_lock(&send->round_lock);
	while (send->devices.busy && !send->page_error.code &&
	       pthread_cond_timedwait(&send->round_over, &send->round_lock, &until) != ETIMEDOUT)
		;
	over = !send->devices.busy;
	pthread_mutex_unlock(&send->round_lock);
	return over;
}

int send_devices_wait(struct migration_send *send, struct error *err)
{
	int r = 0;

	while (!r && !wait_a_little(send))
		r = send_tick(send, err);
	return r ? r : send_pages_error(send, err);
}

bool send_devices_ready(const struct migration_send *send)
{
	for (unsigned int i = 0; i < send->devices.count; i++)
		if (!atomic_load(&send->devices.senders[i].loaded))
			return false;
	return true;
}

void send_devices_await(struct migration_send *send, unsigned int ms)
{
	struct timespec until = clock_in_us((uint64_t)ms * 1000);

	pthread_mutex_lock(&send->round_lock);
	while (!send_devices_ready(send) && !send->page_error.code &&
	       pthread_cond_timedwait(&send->round_over, &send->round_lock, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&send->round_lock);
}

uint64_t send_devices_pending(const struct migration_send *send)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < send->devices.count; i++)
		bytes += atomic_load(&send->devices.senders[i].pending);
	return bytes;
}

uint64_t send_devices_sent(const struct migration_send *send)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < send->devices.count; i++)
		bytes += atomic_load(&send->devices.senders[i].sent);
	return bytes;
}

void send_devices_progress(const struct migration_send *send, struct transfer_progress *progress)
{
	progress->device_count = send->devices.count;
	for (unsigned int i = 0; i < send->devices.count; i++) {
		const struct device_sender *sender = &send->devices.senders[i];
		struct transfer_device *device = &progress->devices[i];

		snprintf(device->id, sizeof(device->id), "%s", sender->device->id);
		snprintf(device->kind, sizeof(device->kind), "%s", sender->device->ops->kind);
		device->bytes = atomic_load(&sender->sent);
		device->pending = atomic_load(&sender->pending);
		device->ready = atomic_load(&sender->loaded);
	}
}

void send_devices_stop(struct migration_send *send)
{
	pthread_mutex_lock(&send->round_lock);
	send->quit = true;
	pthread_cond_broadcast(&send->round_begins);
	pthread_mutex_unlock(&send->round_lock);
	for (unsigned int i = 0; i < send->devices.count; i++) {
		struct device_sender *sender = &send->devices.senders[i];

		if (sender->started)
			pthread_join(sender->thread, NULL);
		sender->started = false;
	}
}

int send_devices_rollback(struct migration_send *send, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < send->devices.count; i++) {
		struct device_sender *sender = &send->devices.senders[i];
		struct migratable *device = sender->device;
		int one = sender->begun ? device->ops->rollback(device, r ? NULL : err) : 0;

		sender->begun = false;
		r = r ? r : one;
	}
	return r;
}

void send_devices_free(struct migration_send *send)
{
	for (unsigned int i = 0; i < send->devices.count; i++) {
		channel_free(send->devices.senders[i].channel);
		free(send->devices.senders[i].buf);
	}
	free(take_ptr(send->devices.senders));
	send->devices.count = 0;
}
