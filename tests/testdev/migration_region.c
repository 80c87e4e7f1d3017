/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first protocol of migration (linux/vfio.h of Linux 5.8 to 5.17): a region of type 3,
 * subtype 1, that begins with struct vfio_device_migration_info. The first page holds that
 * and is trapped; the data section is the rest, trapped or mapped, or with a hole in the
 * middle that is trapped.
 *
 * The order of accesses is the protocol: pending_bytes, data_offset (the device makes the
 * data available), data_size, the data, and pending_bytes again (they were taken); when
 * resuming data_offset, the data, data_size (the device takes them). Whoever goes another
 * way gets EINVAL here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/testdev/testdev.h"

#define SECTION TESTDEV_PAGE /* where the data section begins */
#define FIELD(name) offsetof(struct vfio_device_migration_info, name)

int testdev_migration_region_init(struct testdev *t)
{
	struct testdev_migration *m = &t->migration;

	/* A client that maps it wants to be sure that it stays. */
	m->region_fd = memfd_create("ferry-testdev-migration", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (m->region_fd < 0 || ftruncate(m->region_fd, (off_t)testdev_migration_region_size(t)) ||
	    fcntl(m->region_fd, F_ADD_SEALS, F_SEAL_SHRINK))
		return -errno;
	m->region = mmap(NULL, testdev_migration_region_size(t), PROT_READ | PROT_WRITE, MAP_SHARED,
			 m->region_fd, 0);
	return m->region == MAP_FAILED ? -errno : 0;
}

uint64_t testdev_migration_region_size(const struct testdev *t)
{
	return t->o.mig_way == WAY_REGION ? SECTION + t->o.region_data : 0;
}

/* The capabilities: the type, and where the data section can be mapped. */
void testdev_migration_region_info(struct testdev *t, const struct vfio_region_info *want,
				   struct testdev_result *r)
{
	struct {
		struct vfio_region_info info;
		struct vfio_region_info_cap_type type;
		struct {
			struct vfio_info_cap_header header;
			uint32_t nr_areas, reserved;
		} sparse;
		struct vfio_region_sparse_mmap_area areas[2];
	} reply = { .info = *want };
	bool mapped = t->o.region_map != REGION_TRAPPED && t->client_max_fds;
	size_t len = mapped ? sizeof(reply) : offsetof(__typeof__(reply), sparse);
	uint64_t half = align_down(t->o.region_data / 2, TESTDEV_PAGE);

	reply.info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
	reply.info.cap_offset = offsetof(__typeof__(reply), type);
	reply.type.header.id = VFIO_REGION_INFO_CAP_TYPE;
	reply.type.header.version = 1;
	reply.type.type = VFIO_REGION_TYPE_MIGRATION_DEPRECATED;
	reply.type.subtype = VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED;
	if (mapped) {
		reply.info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
		reply.type.header.next = offsetof(__typeof__(reply), sparse);
		reply.sparse.header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
		reply.sparse.header.version = 1;
		reply.sparse.nr_areas = 1;
		reply.areas[0].offset = SECTION;
		reply.areas[0].size = t->o.region_data;
		if (t->o.region_map == REGION_SPARSE) {
			/* Everything but the page in the middle. */
			reply.sparse.nr_areas = 2;
			reply.areas[0].size = half;
			reply.areas[1].offset = SECTION + half + TESTDEV_PAGE;
			reply.areas[1].size = t->o.region_data - half - TESTDEV_PAGE;
		} else {
			len -= sizeof(reply.areas[1]);
		}
	}
	reply.info.argsz = (uint32_t)len;
	if (want->argsz < len) {
		reply.info.cap_offset = 0;
		len = sizeof(reply.info);
	} else if (mapped) {
		r->fds[0] = t->migration.region_fd;
		r->fd_count = 1;
	}
	memcpy(t->reply, &reply, len);
	r->len = len;
}

static const struct {
	uint32_t v1, v2;
} states[] = {
	{ VFIO_DEVICE_STATE_V1_STOP, VFIO_DEVICE_STATE_STOP },
	{ VFIO_DEVICE_STATE_V1_RUNNING, VFIO_DEVICE_STATE_RUNNING },
	{ VFIO_DEVICE_STATE_V1_SAVING, VFIO_DEVICE_STATE_STOP_COPY },
	{ VFIO_DEVICE_STATE_V1_SAVING | VFIO_DEVICE_STATE_V1_RUNNING, VFIO_DEVICE_STATE_PRE_COPY },
	{ VFIO_DEVICE_STATE_V1_RESUMING, VFIO_DEVICE_STATE_RESUMING },
	{ VFIO_DEVICE_STATE_V1_RESUMING | VFIO_DEVICE_STATE_V1_SAVING, VFIO_DEVICE_STATE_ERROR },
};

uint32_t testdev_v1_state(const struct testdev *t)
{
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (states[i].v2 == t->migration.state)
			return states[i].v1;
	return 0;
}

int testdev_set_v1_state(struct testdev *t, uint32_t v1)
{
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (states[i].v1 == v1)
			return testdev_set_state(t, states[i].v2);
	return EINVAL;
}

static bool is_saving(const struct testdev *t)
{
	return t->migration.state == VFIO_DEVICE_STATE_PRE_COPY ||
	       t->migration.state == VFIO_DEVICE_STATE_STOP_COPY;
}

/* Reading it says that the data of the round before were taken. */
static int read_pending(struct testdev *t, uint64_t *value)
{
	struct testdev_migration *m = &t->migration;
	uint64_t initial = 0, rest = 0;

	*value = 0;
	if (!is_saving(t))
		return 0;
	if (m->step == STEP_SIZE)
		m->section_len = 0;
	m->step = STEP_PENDING;
	testdev_stream_pending(t, &initial, &rest);
	*value = initial + rest + m->section_len;
	if (testdev_fault(t, FAULT_MIG_ENDLESS))
		*value = 1 << 20;
	return 0;
}

static int read_offset(struct testdev *t, uint64_t *value)
{
	struct testdev_migration *m = &t->migration;

	*value = SECTION;
	if (testdev_fault(t, FAULT_MIG_OFFSET))
		*value = testdev_migration_region_size(t) + TESTDEV_PAGE;
	if (testdev_fault(t, FAULT_MIG_OFFSET_HEAD))
		*value = 8;
	if (m->state == VFIO_DEVICE_STATE_RESUMING) {
		m->step = STEP_OFFSET;
		return 0;
	}
	if (!is_saving(t) || m->step < STEP_PENDING)
		return EINVAL;
	if (m->step == STEP_PENDING && !m->section_len)
		m->section_len = testdev_stream_read(t, m->region + SECTION, t->o.region_data);
	if (m->step == STEP_PENDING)
		m->step = STEP_OFFSET;
	return 0;
}

static int read_size(struct testdev *t, uint64_t *value)
{
	struct testdev_migration *m = &t->migration;

	if (!is_saving(t) || m->step < STEP_OFFSET)
		return EINVAL;
	m->step = STEP_SIZE;
	*value = m->section_len;
	if (testdev_fault(t, FAULT_MIG_LONG))
		*value = t->o.region_data + 1;
	if (testdev_fault(t, FAULT_MIG_LIE))
		*value = UINT64_MAX - 4;
	if (testdev_fault(t, FAULT_MIG_SHORT))
		*value /= 2;
	return 0;
}

/* The data are in the section. */
static int write_size(struct testdev *t, uint64_t size)
{
	struct testdev_migration *m = &t->migration;

	if (m->state != VFIO_DEVICE_STATE_RESUMING || m->step != STEP_OFFSET ||
	    size > t->o.region_data)
		return EINVAL;
	m->step = STEP_IDLE;
	return testdev_stream_write(t, m->region + SECTION, size);
}

static bool is_data(const struct testdev *t, uint64_t offset)
{
	return offset >= SECTION;
}

int testdev_migration_region_read(struct testdev *t, uint64_t offset, uint8_t *data, size_t len)
{
	uint64_t value = 0;
	int error = testdev_migration_message(t);

	if (error)
		return error;
	error = EINVAL;
	if (is_data(t, offset)) {
		/* Only what was announced is there. */
		if (t->migration.step != STEP_SIZE)
			return EINVAL;
		memcpy(data, t->migration.region + offset, len);
		return 0;
	}
	if (offset == FIELD(device_state) && len == 4) {
		value = testdev_v1_state(t);
		error = 0;
	} else if (offset == FIELD(pending_bytes) && len == 8) {
		error = read_pending(t, &value);
	} else if (offset == FIELD(data_offset) && len == 8) {
		error = read_offset(t, &value);
	} else if (offset == FIELD(data_size) && len == 8) {
		error = read_size(t, &value);
	}
	if (!error)
		memcpy(data, &value, len);
	return error;
}

int testdev_migration_region_write(struct testdev *t, uint64_t offset, const uint8_t *data,
				   size_t len)
{
	int error = testdev_migration_message(t);

	if (error)
		return error;
	if (is_data(t, offset)) {
		if (t->migration.state != VFIO_DEVICE_STATE_RESUMING ||
		    t->migration.step != STEP_OFFSET)
			return EINVAL;
		memcpy(t->migration.region + offset, data, len);
		return 0;
	}
	if (offset == FIELD(device_state) && len == 4)
		return testdev_set_v1_state(t, load_le32(data));
	if (offset == FIELD(data_size) && len == 8)
		return write_size(t, load_le64(data));
	return EINVAL;
}
