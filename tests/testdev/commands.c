/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of a client: a table. */
#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/testdev/testdev.h"

/* The value of a number in JSON text, by its name; good enough for what clients send. */
static uint64_t json_number(const char *text, const char *name, uint64_t otherwise)
{
	char quoted[64];
	const char *at;

	snprintf(quoted, sizeof(quoted), "\"%s\"", name);
	at = strstr(text, quoted);
	if (!at)
		return otherwise;
	at += strlen(quoted);
	at += strspn(at, " :");
	return *at >= '0' && *at <= '9' ? strtoull(at, NULL, 10) : otherwise;
}

static int version(struct testdev *t, const struct testdev_message *m, struct testdev_result *r)
{
	struct vfio_user_version v;
	const char *text = "";

	if (m->len < sizeof(v))
		return EINVAL;
	memcpy(&v, m->payload, sizeof(v));
	if (v.major != VFIO_USER_MAJOR)
		return EINVAL;
	if (m->len > sizeof(v))
		text = (const char *)m->payload + sizeof(v); /* a NUL is behind every payload */
	t->client_max_data = json_number(text, "max_data_xfer_size", VFIO_USER_DEFAULT_XFER_SIZE);
	t->client_max_fds =
		(unsigned int)json_number(text, "max_msg_fds", VFIO_USER_DEFAULT_MSG_FDS);
	v.minor = MIN(v.minor, VFIO_USER_MINOR);
	memcpy(t->reply, &v, sizeof(v));
	r->len = sizeof(v);
	if (t->o.no_caps)
		return 0;
	r->len += 1 + (size_t)snprintf(
			      (char *)t->reply + sizeof(v), 512,
			      "{\"capabilities\":{\"max_msg_fds\":%u,"
			      "\"max_data_xfer_size\":%llu,\"pgsizes\":4096,"
			      "\"max_dma_maps\":%u%s}}",
			      t->o.max_fds, (unsigned long long)t->o.max_data, TESTDEV_MAPS_MAX,
			      t->o.dirty == DIRTY_PAGES ? ",\"migration\":{\"pgsize\":4096}" : "");
	return 0;
}

static int dma_map(struct testdev *t, const struct testdev_message *m, struct testdev_result *r)
{
	return testdev_dma_map(t, m);
}

static int device_info(struct testdev *t, const struct testdev_message *m, struct testdev_result *r)
{
	struct vfio_user_device_info info = {
		.argsz = sizeof(info),
		.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
		.num_regions = testdev_region_count(t),
		.num_irqs = VFIO_PCI_NUM_IRQS,
	};

	if (m->len < sizeof(info))
		return EINVAL;
	memcpy(t->reply, &info, sizeof(info));
	r->len = sizeof(info);
	return 0;
}

static int irq_info(struct testdev *t, const struct testdev_message *m, struct testdev_result *r)
{
	struct vfio_irq_info info;

	if (m->len < sizeof(info))
		return EINVAL;
	memcpy(&info, m->payload, sizeof(info));
	if (info.index >= VFIO_PCI_NUM_IRQS)
		return EINVAL;
	info.argsz = sizeof(info);
	info.count = testdev_irq_max(t, info.index);
	info.flags = info.count ? VFIO_IRQ_INFO_EVENTFD : 0;
	if (info.index == VFIO_PCI_INTX_IRQ_INDEX)
		info.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
	memcpy(t->reply, &info, sizeof(info));
	r->len = sizeof(info);
	return 0;
}

static int set_irqs(struct testdev *t, const struct testdev_message *m, struct testdev_result *r)
{
	return testdev_set_irqs(t, m);
}

static int reset(struct testdev *t, const struct testdev_message *m, struct testdev_result *r)
{
	testdev_reset(t);
	return 0;
}

void testdev_command(struct testdev *t, const struct testdev_message *m,
		     struct testdev_result *result)
{
	static int (*const commands[])(struct testdev * t, const struct testdev_message *m,
				       struct testdev_result *r) = {
		[VFIO_USER_VERSION] = version,
		[VFIO_USER_DMA_MAP] = dma_map,
		[VFIO_USER_DMA_UNMAP] = testdev_dma_unmap,
		[VFIO_USER_DEVICE_GET_INFO] = device_info,
		[VFIO_USER_DEVICE_GET_REGION_INFO] = testdev_region_info,
		[VFIO_USER_DEVICE_GET_REGION_IO_FDS] = testdev_region_io_fds,
		[VFIO_USER_DEVICE_GET_IRQ_INFO] = irq_info,
		[VFIO_USER_DEVICE_SET_IRQS] = set_irqs,
		[VFIO_USER_REGION_READ] = testdev_region_read,
		[VFIO_USER_REGION_WRITE] = testdev_region_write,
		[VFIO_USER_DEVICE_RESET] = reset,
		[VFIO_USER_DIRTY_PAGES] = testdev_dirty_pages,
		[VFIO_USER_DEVICE_FEATURE] = testdev_feature,
		[VFIO_USER_MIG_DATA_READ] = testdev_mig_data_read,
		[VFIO_USER_MIG_DATA_WRITE] = testdev_mig_data_write,
	};
	uint16_t c = m->header.command;

	if (c < ARRAY_SIZE(commands) && commands[c])
		result->error = commands[c](t, m, result);
	else
		result->error = ENOTSUP;
}
