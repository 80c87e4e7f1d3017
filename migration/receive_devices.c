/* SPDX-License-Identifier: Apache-2.0 */
/* The threads that receive devices' streams. */
#include "migration/receive_devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "migration/receive_private.h"

static int load_part(struct device_receiver *receiver, const struct frame *frame, struct error *err)
{
	struct migratable *device = receiver->device;
	struct iovec iov = { .iov_base = receiver->buf, .iov_len = frame->length };
	int r;

	if (frame->offset != atomic_load(&receiver->received))
		return error_set(err, EPROTO,
				 "device %s: its stream goes on at %llu where %llu is next",
				 device->id, (unsigned long long)frame->offset,
				 (unsigned long long)atomic_load(&receiver->received));
	if (!frame->length)
		return 0;
	if (!(frame->flags & FRAME_PAYLOAD_CRC))
		return error_set(err, EPROTO, "device %s: a part of its stream has no checksum",
				 device->id);
	r = channel_receive_payload(receiver->channel, frame, &iov, 1, err);
	if (!r)
		r = device->ops->load_write(device, receiver->buf, frame->length, err);
	atomic_fetch_add(&receiver->received, frame->length);
	return r;
}

/* *last: the stream is complete and the device has accepted it. */
static int take_data(struct device_receiver *receiver, const struct frame *frame, bool *last,
		     struct error *err)
{
	struct migratable *device = receiver->device;
	struct frame loaded = {
		.type = FRAME_DEVICE_LOADED,
		.flags = frame->flags & (FRAME_INITIAL | FRAME_LAST),
	};
	int r = load_part(receiver, frame, err);

	*last = !r && frame->flags & FRAME_LAST;
	if (*last)
		r = device->ops->load_end(device, err);
	if (r || !loaded.flags)
		return r;
	return channel_send(receiver->channel, &loaded, NULL, 0, NULL, 0, err);
}

static void *run_receiver(void *opaque)
{
	struct device_receiver *receiver = opaque;
	struct migration_receive *receive = receiver->receive;
	struct error error = ERROR_INIT;
	bool last = false;
	int r = 0;

	while (!r && !last) {
		struct frame frame;

		/* How long it is quiet is the control connection's business. */
		r = channel_receive(receiver->channel, &frame, -1, &error);
		if (r == -ENODATA)
			error_set(&error, ECONNRESET,
				  "the source closed the connection of "
				  "device %s",
				  receiver->device->id);
		if (r)
			break;
		if (frame.type == FRAME_DEVICE_DATA)
			r = take_data(receiver, &frame, &last, &error);
		else
			r = error_set(&error, EPROTO,
				      "frame of type %u on the connection of device %s", frame.type,
				      receiver->device->id);
	}
	if (r) {
		if (r != -ENODATA)
			channel_disown_error(receiver->channel, &error);
		receive_note_error(receive, &error);
		return NULL;
	}
	pthread_mutex_lock(&receive->round_lock);
	receiver->complete = true;
	pthread_cond_broadcast(&receive->round_over);
	pthread_mutex_unlock(&receive->round_lock);
	return NULL;
}

int receive_devices_find(struct migration_receive *receive, struct error *err)
{
	struct migratable *devices[MIGRATION_DEVICES_MAX];
	int n = 0;

	if (receive->target.ops->devices)
		n = receive->target.ops->devices(receive->target.opaque, devices,
						 MIGRATION_DEVICES_MAX, err);
	if (n < 0)
		return n;
	if ((unsigned int)n != receive->hello.devices)
		return error_set(err, EINVAL,
				 "the source sends the state of %u assigned devices, the VM "
				 "made of its configuration has %d",
				 receive->hello.devices, n);
	if (!n)
		return 0;
	receive->devices.receivers = calloc((size_t)n, sizeof(*receive->devices.receivers));
	if (!receive->devices.receivers)
		return error_set_errno(err, ENOMEM, "receive devices");
	for (int i = 0; i < n; i++) {
		struct device_receiver *receiver = &receive->devices.receivers[i];

		receiver->receive = receive;
		receiver->device = devices[i];
		snprintf(receiver->id, sizeof(receiver->id), "%s", devices[i]->id);
		snprintf(receiver->kind, sizeof(receiver->kind), "%s", devices[i]->ops->kind);
	}
	/* Progress is asked for by others. */
	pthread_mutex_lock(&receive->lock);
	receive->devices.count = (unsigned int)n;
	pthread_mutex_unlock(&receive->lock);
	return 0;
}

static struct device_receiver *find(struct migration_receive *receive,
				    const struct device_head *head, struct error *err)
{
	for (unsigned int i = 0; i < receive->devices.count; i++) {
		struct device_receiver *receiver = &receive->devices.receivers[i];

		if (strcmp(receiver->device->id, head->id) != 0)
			continue;
		if (receiver->channel) {
			error_set(err, EPROTO, "the source sends device %s twice", head->id);
			return NULL;
		}
		if (!strcmp(receiver->device->ops->kind, head->kind))
			return receiver;
		error_set(err, EINVAL,
			  "device %s: the source has its state by \"%s\", this side by \"%s\": "
			  "give it a device with the same driver (or plugin)",
			  head->id, head->kind, receiver->device->ops->kind);
		return NULL;
	}
	error_set(err, ENODEV, "the source sends device %s, which the VM here does not have",
		  head->id);
	return NULL;
}

int receive_devices_attach(struct migration_receive *receive, struct channel *channel,
			   const struct device_head *head, struct error *err)
{
	struct channel_options options = {
		.kind = receive->options.kind,
		.zero_copy = ZERO_COPY_OFF,
		.stream = receive->hello.connections + 1 + receive->devices.attached,
		.timeout_ms = receive->options.stall_ms,
		.cancel_fd = receive->stop,
		.policy = receive->options.policy,
	};
	struct device_receiver *receiver = find(receive, head, err);
	char name[24];
	int r;

	if (!receiver) {
		channel_free(channel);
		return err->code;
	}
	receiver->channel = channel_renew(channel, &options, err);
	receiver->buf = malloc(FRAME_DEVICE_DATA_MAX);
	if (!receiver->channel || !receiver->buf)
		return err->code ? err->code : error_set_errno(err, ENOMEM, "receive devices");
	r = receiver->device->ops->load_begin(receiver->device, err);
	if (r)
		return r;
	snprintf(name, sizeof(name), "receive-dev%u", ++receive->devices.attached);
	r = thread_start(&receiver->thread, options.policy, THREAD_MIGRATION, name, run_receiver,
			 receiver, err);
	receiver->started = !r;
	return r;
}

bool receive_devices_complete(const struct migration_receive *receive)
{
	for (unsigned int i = 0; i < receive->devices.count; i++)
		if (!receive->devices.receivers[i].complete)
			return false;
	return true;
}

uint64_t receive_devices_received(const struct migration_receive *receive)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < receive->devices.count; i++)
		bytes += atomic_load(&receive->devices.receivers[i].received);
	return bytes;
}

void receive_devices_progress(const struct migration_receive *receive,
			      struct transfer_progress *progress)
{
	progress->device_count = receive->devices.count;
	for (unsigned int i = 0; i < receive->devices.count; i++) {
		const struct device_receiver *receiver = &receive->devices.receivers[i];
		struct transfer_device *device = &progress->devices[i];

		memcpy(device->id, receiver->id, sizeof(device->id));
		memcpy(device->kind, receiver->kind, sizeof(device->kind));
		device->bytes = atomic_load(&receiver->received);
		device->ready = atomic_load(&receiver->complete);
		progress->wire_bytes += device->bytes;
	}
}

int receive_devices_run(struct migration_receive *receive, struct error *err)
{
	int r = 0;

	/* Before one starts DMA, all others answer. */
	for (unsigned int i = 0; !r && i < receive->devices.count; i++) {
		struct migratable *device = receive->devices.receivers[i].device;

		r = device->ops->resume(device, err);
	}
	for (unsigned int i = 0; !r && i < receive->devices.count; i++) {
		struct migratable *device = receive->devices.receivers[i].device;

		r = device->ops->run(device, err);
	}
	return r;
}

void receive_devices_stop(struct migration_receive *receive)
{
	for (unsigned int i = 0; i < receive->devices.count; i++) {
		struct device_receiver *receiver = &receive->devices.receivers[i];

		if (receiver->started)
			pthread_join(receiver->thread, NULL);
		receiver->started = false;
	}
}

void receive_devices_free(struct migration_receive *receive)
{
	receive_devices_stop(receive);
	for (unsigned int i = 0; i < receive->devices.count; i++) {
		channel_free(receive->devices.receivers[i].channel);
		free(receive->devices.receivers[i].buf);
	}
	free(take_ptr(receive->devices.receivers));
	receive->devices.count = 0;
}
