/* SPDX-License-Identifier: Apache-2.0 */
/* The stream of a device's state, record after record: see migration.h. */
#include <linux/vfio.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/testdev/testdev.h"

uint32_t testdev_sum(const uint8_t *data, size_t len)
{
	uint32_t sum = 0;
	size_t at = 0;

	for (; len - at >= 4; at += 4)
		sum += load_le32(data + at);
	for (unsigned int shift = 0; at < len; shift += 8)
		sum += (uint32_t)data[at++] << shift;
	return sum;
}

void testdev_stream_begin(struct testdev *t)
{
	struct testdev_migration *m = &t->migration;

	m->stage.len = m->stage.at = 0;
	m->seq = 0;
	m->head = m->device = m->ended = m->failed = false;
	m->bar2_at = 0;
	m->section_len = 0;
	testdev_filler_unsent_all(t);
}

static uint8_t *stage_data(struct testdev *t)
{
	return t->migration.stage.bytes + sizeof(struct testdev_record);
}

/* The data are in place. */
static void stage(struct testdev *t, enum testdev_record_type type, uint64_t offset, size_t len)
{
	struct testdev_migration *m = &t->migration;
	struct testdev_record record = {
		.type = type,
		.seq = m->seq++,
		.len = (uint32_t)len,
		.sum = testdev_sum(stage_data(t), len),
		.offset = offset,
	};

	if (testdev_fault(t, FAULT_MIG_REORDERED) && record.seq)
		record.seq ^= 1;
	if (testdev_fault(t, FAULT_MIG_CORRUPT) && type == RECORD_DEVICE)
		stage_data(t)[0] ^= 1;
	memcpy(m->stage.bytes, &record, sizeof(record));
	m->stage.at = 0;
	m->stage.len = sizeof(record) + len;
}

static void stage_head(struct testdev *t)
{
	struct testdev_stream_head head = {
		.version = TESTDEV_STREAM_VERSION,
		.vendor = TESTDEV_VENDOR,
		.device = TESTDEV_DEVICE,
		.state_size = t->migration.filler.pages * TESTDEV_PAGE,
	};

	memcpy(head.magic, TESTDEV_STREAM_MAGIC, sizeof(head.magic));
	if (testdev_fault(t, FAULT_MIG_MAGIC))
		head.magic[0] = 'X';
	if (testdev_fault(t, FAULT_MIG_VERSION))
		head.version++;
	if (testdev_fault(t, FAULT_MIG_DEVICE))
		head.device ^= 0xffff;
	memcpy(stage_data(t), &head, sizeof(head));
	stage(t, RECORD_HEAD, 0, sizeof(head));
	t->migration.head = true;
}

static bool stage_filler(struct testdev *t)
{
	uint64_t first = 0;
	uint64_t count = testdev_filler_take(t, TESTDEV_RECORD_MAX / TESTDEV_PAGE, &first);

	if (!count)
		return false;
	memcpy(stage_data(t), t->migration.filler.bytes + first * TESTDEV_PAGE,
	       count * TESTDEV_PAGE);
	stage(t, RECORD_FILLER, first * TESTDEV_PAGE, count * TESTDEV_PAGE);
	return true;
}

static void stage_device(struct testdev *t)
{
	const struct testdev_device_state state = {
		.dma_src = t->dma_src,
		.dma_dst = t->dma_dst,
		.now_src = t->dma_now.src,
		.now_dst = t->dma_now.dst,
		.now_len = t->dma_now.len,
		.now_ctrl = t->dma_now.ctrl,
		.now_done = t->dma_now.done,
		.now_pending = t->dma_pending,
		.scratch = t->scratch,
		.irq_status = t->irq_status,
		.irq_count = t->irq_count,
		.dma_len = t->dma_len,
		.dma_ctrl = t->dma_ctrl,
		.dma_status = t->dma_status,
		.dma_error = t->dma_error,
		.dma_count = t->dma_count,
		.doorbell_count = t->doorbell_count,
		.doorbell_irq = t->doorbell_irq,
	};

	memcpy(stage_data(t), &state, sizeof(state));
	stage(t, RECORD_DEVICE, 0, sizeof(state));
	t->migration.device = true;
}

static void stage_bar2(struct testdev *t)
{
	uint64_t at = t->migration.bar2_at;

	memcpy(stage_data(t), t->bar2 + at, TESTDEV_RECORD_MAX);
	stage(t, RECORD_BAR2, at, TESTDEV_RECORD_MAX);
	t->migration.bar2_at += TESTDEV_RECORD_MAX;
}

static void stage_end(struct testdev *t)
{
	struct testdev_stream_end end = {
		.generations = t->migration.filler.generations,
		.records = t->migration.seq,
	};

	memcpy(stage_data(t), &end, sizeof(end));
	stage(t, RECORD_END, 0, sizeof(end));
	t->migration.ended = true;
}

/* The next record, if there is one to send in this state. */
static bool stage_next(struct testdev *t)
{
	struct testdev_migration *m = &t->migration;
	bool stopped = m->state == VFIO_DEVICE_STATE_STOP_COPY;

	if (m->ended || (testdev_fault(t, FAULT_MIG_TRUNCATED) && m->device))
		return false;
	if (!m->head)
		stage_head(t);
	else if (stage_filler(t))
		return true;
	else if (!stopped)
		return false;
	else if (!m->device)
		stage_device(t);
	else if (m->bar2_at < TESTDEV_BAR2_SIZE)
		stage_bar2(t);
	else
		stage_end(t);
	return true;
}

size_t testdev_stream_read(struct testdev *t, uint8_t *to, size_t len)
{
	struct testdev_stage *s = &t->migration.stage;
	size_t done = 0;

	if (t->migration.state != VFIO_DEVICE_STATE_STOP_COPY)
		testdev_filler_run(t);
	while (done < len) {
		size_t part;

		if (s->at == s->len && !stage_next(t))
			break;
		part = MIN(len - done, s->len - s->at);
		memcpy(to + done, s->bytes + s->at, part);
		s->at += part;
		done += part;
	}
	return done;
}

uint64_t testdev_stop_copy_size(struct testdev *t)
{
	const struct testdev_migration *m = &t->migration;
	const struct testdev_filler *f = &m->filler;
	uint64_t fixed = 3 * sizeof(struct testdev_record) + sizeof(struct testdev_stream_head) +
			 sizeof(struct testdev_device_state) + sizeof(struct testdev_stream_end);

	testdev_filler_run(t);
	return fixed + TESTDEV_BAR2_SIZE + (m->head ? f->unsent_count : f->pages) * TESTDEV_PAGE;
}

void testdev_stream_pending(struct testdev *t, uint64_t *initial, uint64_t *rest)
{
	struct testdev_migration *m = &t->migration;
	const struct testdev_filler *f = &m->filler;
	const uint64_t record = sizeof(struct testdev_record);

	*initial = *rest = 0;
	if (m->state != VFIO_DEVICE_STATE_STOP_COPY)
		testdev_filler_run(t);
	if (!m->head)
		*initial += record + sizeof(struct testdev_stream_head);
	*initial += f->unsent_initial * TESTDEV_PAGE;
	*rest += m->stage.len - m->stage.at + (f->unsent_count - f->unsent_initial) * TESTDEV_PAGE;
	if (m->state != VFIO_DEVICE_STATE_STOP_COPY || m->ended)
		return;
	if (!m->device)
		*rest += record + sizeof(struct testdev_device_state);
	*rest += TESTDEV_BAR2_SIZE - m->bar2_at + record + sizeof(struct testdev_stream_end);
}
