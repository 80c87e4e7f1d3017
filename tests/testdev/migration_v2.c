/* SPDX-License-Identifier: Apache-2.0 */
/* MIG_DATA_READ and MIG_DATA_WRITE: what a data descriptor is to the kernel's interface. */
#include <errno.h>
#include <linux/vfio.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/testdev/testdev.h"

static bool can_read(const struct testdev *t)
{
	return t->migration.state == VFIO_DEVICE_STATE_STOP_COPY ||
	       t->migration.state == VFIO_DEVICE_STATE_PRE_COPY ||
	       t->migration.state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

int testdev_mig_data_read(struct testdev *t, const struct testdev_message *m,
			  struct testdev_result *r)
{
	struct vfio_user_mig_data head;
	uint8_t *data = t->reply + sizeof(head);
	uint32_t want;
	int error;

	if (t->o.mig_way != WAY_FEATURES || !t->o.mig_flags)
		return ENOTSUP;
	error = testdev_migration_message(t);
	if (error || m->len < sizeof(head))
		return error ? error : EINVAL;
	memcpy(&head, m->payload, sizeof(head));
	want = head.size;
	if (!can_read(t) || want > t->o.max_data)
		return EINVAL;
	head.size = (uint32_t)testdev_stream_read(t, data, want);
	if (testdev_fault(t, FAULT_MIG_ENDLESS) && !head.size) {
		/* Records of nothing, for ever. */
		memset(data, 0, want);
		head.size = want;
	}
	r->len = sizeof(head) + head.size;
	if (testdev_fault(t, FAULT_MIG_SHORT))
		r->len -= head.size / 2;
	if (testdev_fault(t, FAULT_MIG_LONG)) {
		r->len = sizeof(head) + want + 64;
		head.size = want + 64;
	}
	if (testdev_fault(t, FAULT_MIG_LIE))
		head.size += 4096;
	head.argsz = (uint32_t)sizeof(head) + head.size;
	memcpy(t->reply, &head, sizeof(head));
	return 0;
}

int testdev_mig_data_write(struct testdev *t, const struct testdev_message *m,
			   struct testdev_result *r)
{
	struct vfio_user_mig_data head;
	int error;

	if (t->o.mig_way != WAY_FEATURES || !t->o.mig_flags)
		return ENOTSUP;
	error = testdev_migration_message(t);
	if (error || m->len < sizeof(head))
		return error ? error : EINVAL;
	memcpy(&head, m->payload, sizeof(head));
	if (t->migration.state != VFIO_DEVICE_STATE_RESUMING || head.size > t->o.max_data ||
	    head.size != m->len - sizeof(head))
		return EINVAL;
	return testdev_stream_write(t, m->payload + sizeof(head), head.size);
}
