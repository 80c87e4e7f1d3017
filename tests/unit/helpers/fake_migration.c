/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/helpers/fake_migration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"

#define RUNNING 1U
#define SAVING 2U
#define RESUMING 4U

static struct fake_migration *fake_of(struct vfio_transport *t)
{
	return container_of(t, struct fake_migration, transport);
}

static bool fails(struct fake_migration *f)
{
	f->calls++;
	if (!f->fail_at || (f->calls != f->fail_at && !(f->fail_all && f->calls > f->fail_at)))
		return false;
	f->failed++;
	return true;
}

/* Arcs of the kernel's header; those of a device that lacks a state skip it. */
static bool arc_exists(const struct fake_migration *f, uint32_t from, uint32_t to)
{
	bool p2p = f->flags & VFIO_MIGRATION_P2P, pre = f->flags & VFIO_MIGRATION_PRE_COPY;
	static const uint8_t plain[][2] = {
		{ VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_STOP_COPY },
		{ VFIO_DEVICE_STATE_STOP_COPY, VFIO_DEVICE_STATE_STOP },
		{ VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_RESUMING },
		{ VFIO_DEVICE_STATE_RESUMING, VFIO_DEVICE_STATE_STOP },
	};

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (from == plain[i][0] && to == plain[i][1])
			return true;
	switch (from << 4 | to) {
	case VFIO_DEVICE_STATE_RUNNING << 4 | VFIO_DEVICE_STATE_STOP:
	case VFIO_DEVICE_STATE_STOP << 4 | VFIO_DEVICE_STATE_RUNNING: return !p2p;
	case VFIO_DEVICE_STATE_RUNNING << 4 | VFIO_DEVICE_STATE_RUNNING_P2P:
	case VFIO_DEVICE_STATE_RUNNING_P2P << 4 | VFIO_DEVICE_STATE_RUNNING:
	case VFIO_DEVICE_STATE_RUNNING_P2P << 4 | VFIO_DEVICE_STATE_STOP:
	case VFIO_DEVICE_STATE_STOP << 4 | VFIO_DEVICE_STATE_RUNNING_P2P: return p2p;
	case VFIO_DEVICE_STATE_RUNNING << 4 | VFIO_DEVICE_STATE_PRE_COPY:
	case VFIO_DEVICE_STATE_PRE_COPY << 4 | VFIO_DEVICE_STATE_RUNNING: return pre;
	case VFIO_DEVICE_STATE_PRE_COPY << 4 | VFIO_DEVICE_STATE_STOP_COPY: return pre && !p2p;
	case VFIO_DEVICE_STATE_PRE_COPY << 4 | VFIO_DEVICE_STATE_PRE_COPY_P2P:
	case VFIO_DEVICE_STATE_PRE_COPY_P2P << 4 | VFIO_DEVICE_STATE_PRE_COPY:
	case VFIO_DEVICE_STATE_PRE_COPY_P2P << 4 | VFIO_DEVICE_STATE_STOP_COPY:
	case VFIO_DEVICE_STATE_PRE_COPY_P2P << 4 | VFIO_DEVICE_STATE_RUNNING_P2P:
	case VFIO_DEVICE_STATE_RUNNING_P2P << 4 | VFIO_DEVICE_STATE_PRE_COPY_P2P: return pre && p2p;
	default: return false;
	}
}

static bool in_precopy(const struct fake_migration *f)
{
	return f->state == VFIO_DEVICE_STATE_PRE_COPY || f->state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

static bool saves(uint32_t state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P ||
	       state == VFIO_DEVICE_STATE_STOP_COPY;
}

static int fail_arc(struct fake_migration *f, int code, struct error *err)
{
	if (f->fail_in_error)
		f->state = VFIO_DEVICE_STATE_ERROR;
	return error_set(err, code, "0000:01:10.0: fake: the arc fails");
}

static int set_state(struct fake_migration *f, struct vfio_device_feature_mig_state *data,
		     bool fail, struct error *err)
{
	uint32_t to = data->device_state, from = f->state;

	data->data_fd = -1;
	if (fail)
		return fail_arc(f, EIO, err);
	if (!arc_exists(f, from, to)) {
		f->misuses++;
		return error_set(err, EINVAL, "0000:01:10.0: fake: no arc from %u to %u", from, to);
	}
	if (from == VFIO_DEVICE_STATE_RESUMING && f->refuses_state)
		return fail_arc(f, EINVAL, err);
	f->state = to;
	if ((saves(to) && !saves(from)) || to == VFIO_DEVICE_STATE_RESUMING) {
		if (f->fd >= 0) /* the last stream was not closed */
			f->misuses++;
		f->fd = memfd_create("fake-stream", MFD_CLOEXEC);
		data->data_fd = f->fd;
		f->sent = f->loaded_len = 0;
	}
	return 0;
}

static int log_start(struct fake_migration *f, struct vfio_device_feature_dma_logging_control *c,
		     struct error *err)
{
	if (f->logging)
		return error_set(err, EINVAL, "0000:01:10.0: fake: logs already");
	if (c->num_ranges > f->log_ranges_max || c->num_ranges > FAKE_LOG_RANGES)
		return error_set(err, E2BIG, "0000:01:10.0: fake: %u ranges", c->num_ranges);
	memcpy(f->log_ranges, (void *)(uintptr_t)c->ranges,
	       c->num_ranges * sizeof(f->log_ranges[0]));
	f->log_range_count = c->num_ranges;
	if (f->log_page)
		c->page_size = f->log_page;
	f->logging = true;
	f->log_starts++;
	return 0;
}

static bool logged(const struct fake_migration *f, uint64_t iova)
{
	for (uint32_t i = 0; i < f->log_range_count; i++)
		if (iova - f->log_ranges[i].iova < f->log_ranges[i].length)
			return true;
	return false;
}

/* Writes are logged in granted pages, and reported in those that are asked for. */
static int log_report(struct fake_migration *f,
		      const struct vfio_device_feature_dma_logging_report *report,
		      struct error *err)
{
	uint64_t *words = (uint64_t *)(uintptr_t)report->bitmap, page = report->page_size;
	unsigned int kept = 0;

	f->reports++;
	if (f->report_error)
		return error_set(err, f->report_error, "0000:01:10.0: fake: the log is lost");
	if (!f->logging || !is_power_of_2(page) || report->iova % page)
		return error_set(err, EINVAL, "0000:01:10.0: fake: no such report");
	for (unsigned int i = 0; i < f->dirty_count; i++) {
		uint64_t size = MAX(f->log_page, page), at = align_down(f->dirty[i], size);

		if (f->dirty[i] - report->iova >= report->length) {
			f->dirty[kept++] = f->dirty[i];
			continue;
		}
		for (uint64_t iova = at; iova < at + size && logged(f, f->dirty[i]); iova += page)
			if (iova - report->iova < report->length)
				words[(iova - report->iova) / page / 64] |=
					1ULL << (iova - report->iova) / page % 64;
	}
	f->dirty_count = kept;
	return 0;
}

static int migration_feature(struct fake_migration *f, uint32_t flags, void *data, bool fail,
			     struct error *err)
{
	switch (flags & ~VFIO_DEVICE_FEATURE_PROBE) {
	case VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_GET:
		if (flags & VFIO_DEVICE_FEATURE_PROBE)
			return 0;
		memcpy(data, &f->flags, sizeof(f->flags));
		return sizeof(f->flags);
	case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | VFIO_DEVICE_FEATURE_GET:
		*(struct vfio_device_feature_mig_state *)data =
			(struct vfio_device_feature_mig_state){ .device_state = f->state,
								.data_fd = -1 };
		return sizeof(struct vfio_device_feature_mig_state);
	case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | VFIO_DEVICE_FEATURE_SET:
		return set_state(f, data, fail, err);
	case VFIO_DEVICE_FEATURE_MIG_DATA_SIZE | VFIO_DEVICE_FEATURE_GET:
		if (!f->has_data_size)
			break;
		store_le64(data, f->len - f->sent);
		return 8;
	case VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 | VFIO_DEVICE_FEATURE_SET:
		if (!f->has_reinit)
			break;
		f->reinit_on = true;
		return 0;
	default: break;
	}
	return error_set(err, ENOTTY, "0000:01:10.0: fake: no such feature");
}

static int feature_locked(struct fake_migration *f, uint32_t flags, void *data, struct error *err)
{
	uint32_t number = flags & VFIO_DEVICE_FEATURE_MASK;
	bool probe = flags & VFIO_DEVICE_FEATURE_PROBE, fail = fails(f);
	bool sets_state =
		number == VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE && flags & VFIO_DEVICE_FEATURE_SET;

	if (fail && !sets_state)
		return error_set(err, EIO, "0000:01:10.0: fake: feature %u fails", number);
	if (number >= VFIO_DEVICE_FEATURE_DMA_LOGGING_START &&
	    number <= VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT) {
		if (!f->has_log)
			return error_set(err, ENOTTY, "0000:01:10.0: fake: no DMA log");
		if (probe)
			return 0;
		if (number == VFIO_DEVICE_FEATURE_DMA_LOGGING_START)
			return log_start(f, data, err);
		if (number == VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT)
			return log_report(f, data, err);
		f->log_stops++;
		f->misuses += !f->logging;
		f->logging = false;
		return 0;
	}
	if (!f->has_feature)
		return error_set(err, ENOTTY, "0000:01:10.0: fake: no migration");
	return migration_feature(f, flags, data, fail, err);
}

static int feature(struct vfio_transport *t, uint32_t flags, void *data, size_t len,
		   struct error *err)
{
	struct fake_migration *f = fake_of(t);
	int r;

	pthread_mutex_lock(&f->lock);
	r = feature_locked(f, flags, data, err);
	pthread_mutex_unlock(&f->lock);
	return r;
}

static ssize_t read_locked(struct fake_migration *f, int fd, void *data, size_t len,
			   unsigned int wait_ms, struct error *err)
{
	size_t end = in_precopy(f) ? f->precopy : f->len, n;

	if (fails(f))
		return error_set(err, EIO, "0000:01:10.0: fake: read fails");
	if (fd != f->fd || fd < 0 || !saves(f->state)) {
		f->misuses++;
		return error_set(err, EBADF, "0000:01:10.0: fake: read");
	}
	if (f->slow && !in_precopy(f)) {
		f->slow--;
		return error_set(err, ENOMSG, "0000:01:10.0: fake: nothing within %u ms", wait_ms);
	}
	if (f->endless && !in_precopy(f))
		return (ssize_t)len;
	n = MIN(len, end > f->sent ? end - f->sent : 0);
	if (!n && in_precopy(f))
		return error_set(err, ENOMSG, "0000:01:10.0: fake: nothing now");
	memcpy(data, f->content + f->sent, n);
	f->sent += n;
	return (ssize_t)n;
}

static ssize_t stream_read(struct vfio_transport *t, int fd, void *data, size_t len,
			   unsigned int wait_ms, struct error *err)
{
	struct fake_migration *f = fake_of(t);
	ssize_t n;

	pthread_mutex_lock(&f->lock);
	n = read_locked(f, fd, data, len, wait_ms, err);
	pthread_mutex_unlock(&f->lock);
	return n;
}

static int take(struct fake_migration *f, const void *data, size_t len, struct error *err)
{
	if (len > sizeof(f->loaded) - f->loaded_len)
		return error_set(err, ENOSPC, "0000:01:10.0: fake: more than it can take");
	memcpy(f->loaded + f->loaded_len, data, len);
	f->loaded_len += len;
	return 0;
}

static int stream_write(struct vfio_transport *t, int fd, const void *data, size_t len,
			struct error *err)
{
	struct fake_migration *f = fake_of(t);

	if (fails(f))
		return error_set(err, EIO, "0000:01:10.0: fake: write fails");
	if (fd != f->fd || fd < 0 || f->state != VFIO_DEVICE_STATE_RESUMING) {
		f->misuses++;
		return error_set(err, EBADF, "0000:01:10.0: fake: write");
	}
	return take(f, data, len, err);
}

static int info_locked(struct fake_migration *f, int fd, struct vfio_precopy_info *info,
		       struct error *err)
{

	if (fails(f))
		return error_set(err, EIO, "0000:01:10.0: fake: precopy info fails");
	if (f->no_precopy_info)
		return error_set(err, ENOTTY, "0000:01:10.0: fake: no precopy info");
	if (!in_precopy(f) || fd != f->fd)
		return error_set(err, EINVAL, "0000:01:10.0: fake: not in PRE_COPY");
	/* Without INFOv2 the flags are whatever lay there. */
	*info = (struct vfio_precopy_info){ .argsz = sizeof(*info), .flags = f->reinit_on ? 0 : 1 };
	if (f->reinit && f->reinit_on) {
		f->reinit = false;
		info->flags = VFIO_PRECOPY_INFO_REINIT;
	}
	info->initial_bytes = f->precopy > f->sent ? f->precopy - f->sent : 0;
	info->dirty_bytes = info->initial_bytes ? 0 : 100;
	return 0;
}

static int precopy_info(struct vfio_transport *t, int fd, struct vfio_precopy_info *info,
			struct error *err)
{
	struct fake_migration *f = fake_of(t);
	int r;

	pthread_mutex_lock(&f->lock);
	r = info_locked(f, fd, info, err);
	pthread_mutex_unlock(&f->lock);
	return r;
}

static void stream_end(struct vfio_transport *t, int fd)
{
	struct fake_migration *f = fake_of(t);

	if (fd < 0 || fd != f->fd) {
		f->misuses++;
		return;
	}
	close(fd);
	f->fd = -1;
}

/* The region. */

static void note(struct fake_migration *f, char what)
{
	size_t n = strlen(f->trace);

	/* Data in however many accesses. */
	if (!f->tracing || ((what == 'd' || what == 'D') && n && f->trace[n - 1] == what))
		return;
	if (n < sizeof(f->trace) - 1) {
		f->trace[n] = what;
		f->trace[n + 1] = '\0';
	}
}

static uint64_t pending(const struct fake_migration *f)
{
	size_t end = f->old_state & RUNNING ? f->precopy : f->len;

	if (!(f->old_state & SAVING))
		return 0;
	if (f->stuck_pending)
		return f->stuck_pending;
	return end > f->sent ? end - f->sent : 0;
}

static uint64_t stage(struct fake_migration *f)
{
	size_t n = MIN(f->packet, f->stuck_pending ? f->packet : (size_t)pending(f));

	if (f->old_state & SAVING) {
		if (!f->stuck_pending)
			memcpy(f->memory + f->data_at, f->content + f->sent, n);
		f->staged = n;
	}
	return f->wrong_offset ? f->wrong_offset : f->data_at;
}

static int region_info(struct vfio_transport *t, uint32_t index, struct vfio_region *region,
		       struct error *err)
{
	struct fake_migration *f = fake_of(t);

	if (fails(f))
		return error_set(err, EIO, "0000:01:10.0: fake: region_info fails");
	*region = (struct vfio_region){ .index = index, .map_fd = -1, .type = 7 };
	if (index == FAKE_MIGRATION_REGION && f->has_region)
		*region = f->region;
	return 0;
}

static int region_read(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		       void *data, size_t len, struct error *err)
{
	struct fake_migration *f = fake_of(t);

	if (fails(f))
		return error_set(err, EIO, "0000:01:10.0: fake: region_read fails");
	if (offset >= 0x20) {
		if (offset > f->region.size || len > f->region.size - offset) {
			f->misuses++;
			return error_set(err, EINVAL, "0000:01:10.0: fake: region_read beyond");
		}
		note(f, 'd');
		memcpy(data, f->memory + offset, len);
		return 0;
	}
	switch (offset << 8 | len) {
	case 0x0004: store_le32(data, f->old_state); return 0;
	case 0x0808:
		note(f, 'p');
		f->sent += f->stuck_pending ? 0 : f->staged;
		f->staged = 0;
		store_le64(data, pending(f));
		return 0;
	case 0x1008:
		note(f, f->old_state & RESUMING ? 'O' : 'o');
		store_le64(data, stage(f));
		return 0;
	case 0x1808:
		note(f, 's');
		store_le64(data, f->wrong_size ? f->wrong_size : f->staged);
		return 0;
	default: f->misuses++; return error_set(err, EINVAL, "0000:01:10.0: fake: region_read");
	}
}

/* By the transitions of the protocol's description. */
static bool may_become(uint32_t from, uint32_t to)
{
	static const char arcs[] = "13 32 12 20 10 14 41 31 21 01";
	char arc[3] = { (char)('0' + from), (char)('0' + to) };

	return strstr(arcs, arc) != NULL;
}

static int write_state(struct fake_migration *f, uint32_t value, bool fail, struct error *err)
{
	uint32_t from = f->old_state & 7, to = value & 7;

	note(f, 'w');
	if ((value ^ f->old_state) & ~7U)
		f->misuses++; /* not its bits */
	if (fail) {
		if (f->fail_in_error)
			f->old_state = (f->old_state & ~7U) | SAVING | RESUMING;
		return error_set(err, EIO, "0000:01:10.0: fake: the state does not change");
	}
	if (!may_become(from, to)) {
		f->misuses++;
		return error_set(err, EINVAL, "0000:01:10.0: fake: from %u to %u", from, to);
	}
	if (from == RESUMING && f->refuses_state)
		return error_set(err, EINVAL, "0000:01:10.0: fake: what was loaded does not do");
	f->misuses += f->staged && to == SAVING; /* it was not taken, and is lost */
	f->staged = 0;
	f->old_state = value;
	if (!(from & SAVING))
		f->sent = f->staged = 0;
	if (to == RESUMING)
		f->loaded_len = 0;
	return 0;
}

static int region_write(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
			const void *data, size_t len, struct error *err)
{
	struct fake_migration *f = fake_of(t);
	bool fail = fails(f);

	if (offset == 0 && len == 4)
		return write_state(f, load_le32(data), fail, err);
	if (fail)
		return error_set(err, EIO, "0000:01:10.0: fake: region_write fails");
	if (offset >= 0x20 && offset <= f->region.size && len <= f->region.size - offset) {
		note(f, 'D');
		memcpy(f->memory + offset, data, len);
		return 0;
	}
	if (offset == 0x18 && len == 8 && f->old_state & RESUMING) {
		uint64_t n = load_le64(data);

		note(f, 'S');
		if (n && n <= f->region.size - f->data_at)
			return take(f, f->memory + f->data_at, n, err);
	}
	f->misuses++;
	return error_set(err, EINVAL, "0000:01:10.0: fake: region_write");
}

static int region_map(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		      uint64_t size, void **address, struct error *err)
{
	struct fake_migration *f = fake_of(t);

	if (fails(f))
		return error_set(err, EIO, "0000:01:10.0: fake: region_map fails");
	*address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, (off_t)offset);
	return *address == MAP_FAILED ? error_set_errno(err, errno, "0000:01:10.0: fake: mmap") : 0;
}

static int reset(struct vfio_transport *t, struct error *err)
{
	struct fake_migration *f = fake_of(t);

	if (fails(f))
		return error_set(err, EIO, "0000:01:10.0: fake: reset fails");
	fake_migration_reset(f);
	return 0;
}

void fake_migration_reset(struct fake_migration *f)
{
	f->state = VFIO_DEVICE_STATE_RUNNING;
	f->old_state = (f->old_state & ~7U) | RUNNING;
	f->sent = f->staged = 0;
}

bool fake_migration_runs(const struct fake_migration *f)
{
	return f->state == VFIO_DEVICE_STATE_RUNNING && (f->old_state & 7) == RUNNING;
}

void fake_migration_init(struct fake_migration *f, size_t len, size_t precopy)
{
	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->lock, NULL);
	f->ops = (struct vfio_transport_ops){
		.name = "fake",
		.region_info = region_info,
		.region_read = region_read,
		.region_write = region_write,
		.region_map = region_map,
		.reset = reset,
		.feature = feature,
		.migration_read = stream_read,
		.migration_write = stream_write,
		.migration_precopy_info = precopy_info,
		.migration_end = stream_end,
	};
	f->transport = (struct vfio_transport){
		.ops = &f->ops,
		.name = "0000:01:10.0",
		.region_count = FAKE_MIGRATION_REGION + 1,
		.resettable = true,
		.is_pci = true,
		.fd = -1,
	};
	f->flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY;
	f->state = VFIO_DEVICE_STATE_RUNNING;
	f->old_state = 0xabcd0000 | RUNNING;
	f->fd = f->memfd = -1;
	f->log_ranges_max = 256;
	f->len = len;
	f->precopy = precopy;
	for (size_t i = 0; i < len; i++)
		f->content[i] = (uint8_t)(i * 7 + i / 251);
}

void fake_migration_destroy(struct fake_migration *f)
{
	pthread_mutex_destroy(&f->lock);
	if (f->fd >= 0)
		close(f->fd);
	if (f->memory)
		munmap(f->memory, align_up(f->region.size, 4096));
	if (f->memfd >= 0)
		close(f->memfd);
}

void fake_migration_add_region(struct fake_migration *f, uint64_t size, uint64_t data_at,
			       size_t packet, uint64_t mapped_at, uint64_t mapped)
{
	f->has_region = true;
	f->data_at = data_at;
	f->packet = packet;
	f->region = (struct vfio_region){
		.index = FAKE_MIGRATION_REGION,
		.readable = true,
		.writable = true,
		.mappable = mapped != 0,
		.size = size,
		.type = 3,
		.subtype = 1,
		.area_count = mapped != 0,
		.areas = { { mapped_at, mapped } },
		.map_fd = -1,
	};
	f->memfd = memfd_create("fake-migration", MFD_CLOEXEC);
	if (f->memfd < 0 || ftruncate(f->memfd, (off_t)align_up(size, 4096)))
		abort();
	f->memory =
		mmap(NULL, align_up(size, 4096), PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, 0);
	if (f->memory == MAP_FAILED)
		abort();
}
