/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue's state beside its registers: where it is in the rings. The rings themselves
 * are RAM. Nothing is in flight while a queue is saved, so what was popped and not
 * returned needs no place here.
 */
#include <errno.h>

#include "base/bytes.h"
#include "devices/device_state.h"
#include "devices/virtio/virtqueue.h"

static const struct state_field fields[] = {
	STATE_FIELD(struct virtqueue, last_avail, "last-avail", UINT16_MAX),
	STATE_FIELD(struct virtqueue, last_used, "last-used", UINT16_MAX),
	STATE_FIELD(struct virtqueue, signalled_used, "signalled-used", UINT16_MAX),
	STATE_FIELD(struct virtqueue, signalled_valid, "signalled-valid", 1),
	STATE_FIELD(struct virtqueue, notifications, "notifications", 1),
	STATE_FIELD(struct virtqueue, broken, "broken", 1),
};

int virtqueue_save(const struct virtqueue *vq, struct state_writer *writer, struct error *err)
{
	if (vq->in_flight && !vq->broken)
		return error_set(err, EBUSY, "save virtqueue: %u descriptors are in flight",
				 vq->in_flight);
	state_fields_save(writer, fields, ARRAY_SIZE(fields), vq);
	return 0;
}

/* A packed ring's positions are indices with a wrap bit, not free-running. */
static int check_packed(const struct virtqueue *vq, const struct virtqueue *loaded,
			const struct state_node *node, struct error *err)
{
	const struct {
		const char *name;
		uint16_t value;
	} positions[] = {
		{ "last-avail", loaded->last_avail },
		{ "last-used", loaded->last_used },
		{ "signalled-used", loaded->signalled_used },
	};

	for (size_t i = 0; i < ARRAY_SIZE(positions); i++)
		if ((positions[i].value & 0x7fff) >= vq->size)
			return state_refuse(node, positions[i].name, err,
					    "is descriptor %u of a ring of %u",
					    positions[i].value & 0x7fff, vq->size);
	return 0;
}

int virtqueue_load(struct virtqueue *vq, const struct state_node *node, struct error *err)
{
	struct virtqueue loaded = { .ready = false };
	int r = state_fields_load(node, fields, ARRAY_SIZE(fields), &loaded, err);

	if (!r && vq->ready && vq->packed)
		r = check_packed(vq, &loaded, node, err);
	if (r || !vq->ready)
		return r;
	vq->last_avail = loaded.last_avail;
	vq->last_used = loaded.last_used;
	vq->signalled_used = loaded.signalled_used;
	vq->signalled_valid = loaded.signalled_valid;
	vq->notifications = loaded.notifications;
	vq->broken = loaded.broken;
	if (vq->broken)
		vq->fault = "it was broken before it was saved";
	return 0;
}
