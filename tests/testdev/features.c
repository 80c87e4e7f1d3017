/* SPDX-License-Identifier: Apache-2.0 */
/* DEVICE_FEATURE: a table of features and what they do. */
#include <errno.h>
#include <linux/vfio.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/testdev/testdev.h"

/* What a feature gets: the data of the command, and room for those of the reply. */
struct feature_data {
	const uint8_t *in;
	size_t in_len;
	uint8_t *out;
	size_t out_len, out_room;
};

static int log_start(struct testdev *t, struct feature_data *d)
{
	struct {
		uint64_t page_size;
		uint32_t num_ranges, reserved;
	} head;

	if (d->in_len < sizeof(head))
		return EINVAL;
	memcpy(&head, d->in, sizeof(head));
	if ((d->in_len - sizeof(head)) / 16 < head.num_ranges)
		return EINVAL;
	if (t->logging)
		return EBUSY;
	t->logging = true;
	testdev_dirty_clear(t);
	memcpy(d->out, d->in, d->in_len);
	head.page_size = 4096; /* what it has, whatever was asked for */
	memcpy(d->out, &head, sizeof(head));
	d->out_len = d->in_len;
	return 0;
}

static int log_stop(struct testdev *t, struct feature_data *d)
{
	if (!t->logging)
		return EINVAL;
	t->logging = false;
	return 0;
}

static int log_report(struct testdev *t, struct feature_data *d)
{
	struct {
		uint64_t iova, length, page_size;
	} head;
	size_t bytes;

	if (d->in_len < sizeof(head) || !t->logging)
		return EINVAL;
	memcpy(&head, d->in, sizeof(head));
	if (!is_power_of_2(head.page_size))
		return EINVAL;
	bytes = (head.length / head.page_size + 63) / 64 * 8;
	if (bytes > d->out_room - sizeof(head) || bytes > TESTDEV_DATA_MAX)
		return EINVAL;
	memcpy(d->out, &head, sizeof(head));
	d->out_len = sizeof(head) + bytes;
	return testdev_dirty_report(t, head.iova, head.length, head.page_size,
				    d->out + sizeof(head), bytes);
}

static int migration_get(struct testdev *t, struct feature_data *d)
{
	struct vfio_device_feature_migration f = { .flags = t->o.mig_flags };

	if (d->out_room < sizeof(f))
		return EINVAL;
	memcpy(d->out, &f, sizeof(f));
	d->out_len = sizeof(f);
	return 0;
}

static int put_state(struct testdev *t, struct feature_data *d)
{
	struct vfio_device_feature_mig_state f = {
		.device_state = t->migration.state,
		.data_fd = -1, /* there are messages in its place */
	};

	if (d->out_room < sizeof(f))
		return EINVAL;
	memcpy(d->out, &f, sizeof(f));
	d->out_len = sizeof(f);
	return 0;
}

static int state_set(struct testdev *t, struct feature_data *d)
{
	struct vfio_device_feature_mig_state f;
	int error;

	if (d->in_len < sizeof(f))
		return EINVAL;
	memcpy(&f, d->in, sizeof(f));
	error = testdev_set_state(t, f.device_state);
	return error ? error : put_state(t, d);
}

static int data_size_get(struct testdev *t, struct feature_data *d)
{
	struct vfio_device_feature_mig_data_size f = {
		.stop_copy_length = testdev_stop_copy_size(t),
	};

	if (d->out_room < sizeof(f))
		return EINVAL;
	memcpy(d->out, &f, sizeof(f));
	d->out_len = sizeof(f);
	return 0;
}

static const struct feature {
	uint32_t index;
	bool migration; /* of version 2 */
	enum testdev_dirty needs;
	int (*get)(struct testdev *t, struct feature_data *d);
	int (*set)(struct testdev *t, struct feature_data *d);
} features[] = {
	{ VFIO_DEVICE_FEATURE_DMA_LOGGING_START, false, DIRTY_LOG, NULL, log_start },
	{ VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, false, DIRTY_LOG, NULL, log_stop },
	{ VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, false, DIRTY_LOG, log_report, NULL },
	{ VFIO_DEVICE_FEATURE_MIGRATION, true, DIRTY_NONE, migration_get, NULL },
	{ VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, true, DIRTY_NONE, put_state, state_set },
	{ VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, true, DIRTY_NONE, data_size_get, NULL },
};

static const struct feature *find(const struct testdev *t, uint32_t index)
{
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (features[i].index == index &&
		    (!features[i].migration || (t->o.mig_flags && t->o.mig_way == WAY_FEATURES)) &&
		    (features[i].needs == DIRTY_NONE || features[i].needs == t->o.dirty))
			return &features[i];
	return NULL;
}

int testdev_feature(struct testdev *t, const struct testdev_message *m, struct testdev_result *r)
{
	struct vfio_user_feature head;
	struct feature_data d;
	const struct feature *f;
	bool get, set;
	int error;

	if (m->len < sizeof(head))
		return EINVAL;
	memcpy(&head, m->payload, sizeof(head));
	f = find(t, head.flags & VFIO_DEVICE_FEATURE_MASK);
	get = head.flags & VFIO_DEVICE_FEATURE_GET;
	set = head.flags & VFIO_DEVICE_FEATURE_SET;
	if (!f || (get && !f->get) || (set && !f->set))
		return ENOTTY;
	error = f->migration ? testdev_migration_message(t) : 0;
	if (error)
		return error;
	r->len = sizeof(head);
	if (!(head.flags & VFIO_DEVICE_FEATURE_PROBE)) {
		if (get == set || head.argsz < sizeof(head))
			return EINVAL;
		d = (struct feature_data){
			.in = m->payload + sizeof(head),
			.in_len = m->len - sizeof(head),
			.out = t->reply + sizeof(head),
			.out_room = MIN(head.argsz - sizeof(head), TESTDEV_PAYLOAD_MAX - 64),
		};
		error = get ? f->get(t, &d) : f->set(t, &d);
		if (error)
			return error;
		r->len += d.out_len;
	}
	head.argsz = (uint32_t)r->len;
	memcpy(t->reply, &head, sizeof(head));
	return 0;
}
