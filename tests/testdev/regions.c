/* SPDX-License-Identifier: Apache-2.0 */
/* Regions: BAR0 registers, BAR1 MSI-X, BAR2 shared memory, config space. */
#include <errno.h>
#include <linux/vfio.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/testdev/testdev.h"

/* Behind the last one of PCI. */
#define MIGRATION_REGION VFIO_PCI_NUM_REGIONS

uint32_t testdev_region_count(const struct testdev *t)
{
	return t->o.mig_way == WAY_REGION ? MIGRATION_REGION + 1 : VFIO_PCI_NUM_REGIONS;
}

static uint64_t region_size(const struct testdev *t, uint32_t index)
{
	switch (index) {
	case VFIO_PCI_BAR0_REGION_INDEX: return TESTDEV_BAR0_SIZE;
	case VFIO_PCI_BAR1_REGION_INDEX: return TESTDEV_BAR1_SIZE;
	case VFIO_PCI_BAR2_REGION_INDEX: return TESTDEV_BAR2_SIZE;
	case VFIO_PCI_CONFIG_REGION_INDEX: return TESTDEV_CONFIG_SIZE;
	case MIGRATION_REGION: return testdev_migration_region_size(t);
	default: return 0;
	}
}

int testdev_region_info(struct testdev *t, const struct testdev_message *m,
			struct testdev_result *r)
{
	struct testdev_region_reply reply = { 0 };
	uint32_t room;

	if (m->len < sizeof(reply.info))
		return EINVAL;
	memcpy(&reply.info, m->payload, sizeof(reply.info));
	room = reply.info.argsz;
	if (reply.info.index >= testdev_region_count(t) || room < sizeof(reply.info))
		return EINVAL;
	reply.info.argsz = sizeof(reply.info);
	reply.info.flags = 0;
	reply.info.cap_offset = 0;
	reply.info.offset = 0;
	reply.info.size = region_size(t, reply.info.index);
	if (reply.info.size)
		reply.info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	if (reply.info.index == MIGRATION_REGION) {
		reply.info.argsz = room;
		testdev_migration_region_info(t, &reply.info, r);
		return 0;
	}
	r->len = sizeof(reply.info);
	if (reply.info.index == VFIO_PCI_BAR2_REGION_INDEX && t->client_max_fds) {
		reply.info.flags |= VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
		reply.info.argsz = sizeof(reply);
		reply.info.cap_offset = sizeof(reply.info);
		reply.sparse.header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
		reply.sparse.header.version = 1;
		reply.sparse.nr_areas = 2;
		reply.areas[0].offset = TESTDEV_AREA0;
		reply.areas[0].size = TESTDEV_AREA0_SIZE;
		reply.areas[1].offset = TESTDEV_AREA1;
		reply.areas[1].size = TESTDEV_AREA1_SIZE;
		if (room >= sizeof(reply)) {
			r->len = sizeof(reply);
			r->fds[0] = t->bar2_fd;
			r->fd_count = 1;
		} else {
			reply.info.cap_offset = 0;
		}
	}
	memcpy(t->reply, &reply, r->len);
	return 0;
}

int testdev_region_io_fds(struct testdev *t, const struct testdev_message *m,
			  struct testdev_result *r)
{
	struct {
		struct vfio_user_region_io_fds head;
		struct vfio_user_io_fd entry;
	} reply = { 0 };
	uint32_t room;

	if (m->len < sizeof(reply.head))
		return EINVAL;
	memcpy(&reply.head, m->payload, sizeof(reply.head));
	room = reply.head.argsz;
	reply.head.flags = 0;
	reply.head.argsz = sizeof(reply.head);
	reply.head.count = 0;
	r->len = sizeof(reply.head);
	if (reply.head.index == VFIO_PCI_BAR0_REGION_INDEX && t->client_max_fds) {
		reply.head.argsz = sizeof(reply);
		reply.head.count = 1;
		reply.entry.offset = TESTDEV_DOORBELL;
		reply.entry.size = 4;
		reply.entry.type = VFIO_USER_IO_FD_IOEVENTFD;
		if (room >= sizeof(reply)) {
			r->len = sizeof(reply);
			r->fds[0] = t->doorbell_fd;
			r->fd_count = 1;
		}
	}
	memcpy(t->reply, &reply, r->len);
	return 0;
}

/* What the guest may change in config space: the rest reads as it is. */
static void config_write(struct testdev *t, uint64_t offset, const uint8_t *data, size_t len)
{
	static const struct {
		uint8_t first, last;
	} writable[] = {
		{ 0x04, 0x05 }, /* command */
		{ 0x0c, 0x0c },
		{ 0x3c, 0x3c }, /* cache line, line */
		{ 0x10, 0x1f }, /* BARs: kept, not used */
		{ TESTDEV_CAP_MSIX + 2, TESTDEV_CAP_MSIX + 3 },
		{ TESTDEV_CAP_MSI + 2, TESTDEV_CAP_MSI + 13 },
	};

	for (size_t i = 0; i < len; i++)
		for (size_t k = 0; k < ARRAY_SIZE(writable); k++)
			if (offset + i >= writable[k].first && offset + i <= writable[k].last)
				t->config[offset + i] = data[i];
}

/* Fills *a; an errno where the access leaves the region. */
static int parse_access(const struct testdev *t, const struct testdev_message *m,
			struct vfio_user_region_access *a)
{
	uint64_t size;

	if (m->len < sizeof(*a))
		return EINVAL;
	memcpy(a, m->payload, sizeof(*a));
	size = region_size(t, a->region);
	if (a->count > size || a->offset > size - a->count || a->count > TESTDEV_DATA_MAX)
		return EINVAL;
	return 0;
}

int testdev_region_read(struct testdev *t, const struct testdev_message *m,
			struct testdev_result *r)
{
	struct vfio_user_region_access a;
	uint8_t *data = t->reply + sizeof(a);
	int error = parse_access(t, m, &a);

	if (error || a.count > t->o.max_data)
		return EINVAL;
	memcpy(t->reply, &a, sizeof(a));
	r->len = sizeof(a) + a.count;
	switch (a.region) {
	case VFIO_PCI_BAR0_REGION_INDEX: testdev_bar0_read(t, a.offset, data, a.count); break;
	case VFIO_PCI_BAR1_REGION_INDEX: memcpy(data, t->msix_table + a.offset, a.count); break;
	case VFIO_PCI_BAR2_REGION_INDEX: memcpy(data, t->bar2 + a.offset, a.count); break;
	case MIGRATION_REGION:
		error = testdev_migration_region_read(t, a.offset, data, a.count);
		break;
	default: memcpy(data, t->config + a.offset, a.count); break;
	}
	return error;
}

int testdev_region_write(struct testdev *t, const struct testdev_message *m,
			 struct testdev_result *r)
{
	struct vfio_user_region_access a;
	const uint8_t *data = m->payload + sizeof(a);
	int error = parse_access(t, m, &a);

	if (error || a.count > t->o.max_data || m->len - sizeof(a) != a.count)
		return EINVAL;
	switch (a.region) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		if (testdev_writes_allowed(t))
			testdev_bar0_write(t, a.offset, data, a.count);
		else
			testdev_log(t, "stopped: a write to register 0x%llx is lost",
				    (unsigned long long)a.offset);
		break;
	case VFIO_PCI_BAR1_REGION_INDEX: memcpy(t->msix_table + a.offset, data, a.count); break;
	case VFIO_PCI_BAR2_REGION_INDEX: memcpy(t->bar2 + a.offset, data, a.count); break;
	case MIGRATION_REGION:
		error = testdev_migration_region_write(t, a.offset, data, a.count);
		if (error)
			return error;
		break;
	default: config_write(t, a.offset, data, a.count); break;
	}
	/* After it: a DMA of the device uses t->reply, too. */
	memcpy(t->reply, &a, sizeof(a));
	r->len = sizeof(a);
	return 0;
}
