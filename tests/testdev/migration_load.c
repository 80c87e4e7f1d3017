/* SPDX-License-Identifier: Apache-2.0 */
/* The stream of another device's state, taken record by record: see migration.h. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/testdev/testdev.h"

static int take_head(struct testdev *t, const struct testdev_record *r, const uint8_t *data)
{
	struct testdev_stream_head head;

	memcpy(&head, data, sizeof(head));
	if (memcmp(head.magic, TESTDEV_STREAM_MAGIC, sizeof(head.magic)) != 0 ||
	    head.version != TESTDEV_STREAM_VERSION || head.vendor != TESTDEV_VENDOR ||
	    head.device != TESTDEV_DEVICE ||
	    head.state_size != t->migration.filler.pages * TESTDEV_PAGE) {
		testdev_log(t, "the stream is another device's, or a version %u", head.version);
		return EINVAL;
	}
	t->migration.head = true;
	return 0;
}

static int take_filler(struct testdev *t, const struct testdev_record *r, const uint8_t *data)
{
	return testdev_filler_load(t, r->offset, data, r->len);
}

static int take_device(struct testdev *t, const struct testdev_record *r, const uint8_t *data)
{
	struct testdev_device_state s;

	memcpy(&s, data, sizeof(s));
	if (s.now_len > TESTDEV_DMA_MAX || s.now_done > s.now_len || s.now_pending > 1 ||
	    s.dma_status > TESTDEV_DMA_FAILED)
		return EINVAL;
	t->dma_src = s.dma_src;
	t->dma_dst = s.dma_dst;
	t->dma_now.src = s.now_src;
	t->dma_now.dst = s.now_dst;
	t->dma_now.len = s.now_len;
	t->dma_now.ctrl = s.now_ctrl;
	t->dma_now.done = s.now_done;
	t->dma_pending = s.now_pending;
	t->scratch = s.scratch;
	t->irq_status = s.irq_status;
	t->irq_count = s.irq_count;
	t->dma_len = s.dma_len;
	t->dma_ctrl = s.dma_ctrl;
	t->dma_status = s.dma_status;
	t->dma_error = s.dma_error;
	t->dma_count = s.dma_count;
	t->doorbell_count = s.doorbell_count;
	t->doorbell_irq = s.doorbell_irq & 1;
	t->migration.device = true;
	return 0;
}

static int take_bar2(struct testdev *t, const struct testdev_record *r, const uint8_t *data)
{
	if (r->offset != t->migration.bar2_at || r->len > TESTDEV_BAR2_SIZE - r->offset)
		return EINVAL;
	memcpy(t->bar2 + r->offset, data, r->len);
	t->migration.bar2_at += r->len;
	return 0;
}

static int take_end(struct testdev *t, const struct testdev_record *r, const uint8_t *data)
{
	struct testdev_migration *m = &t->migration;
	struct testdev_stream_end end;

	memcpy(&end, data, sizeof(end));
	if (!m->device || m->bar2_at != TESTDEV_BAR2_SIZE || end.records != r->seq ||
	    end.generations != m->filler.generations) {
		testdev_log(t, "the stream ends with something missing");
		return EINVAL;
	}
	m->ended = true;
	m->loads++;
	return 0;
}

static const struct {
	size_t len; /* exactly; 0: up to TESTDEV_RECORD_MAX */
	int (*take)(struct testdev *t, const struct testdev_record *r, const uint8_t *data);
} types[] = {
	[RECORD_HEAD] = { sizeof(struct testdev_stream_head), take_head },
	[RECORD_FILLER] = { 0, take_filler },
	[RECORD_DEVICE] = { sizeof(struct testdev_device_state), take_device },
	[RECORD_BAR2] = { 0, take_bar2 },
	[RECORD_END] = { sizeof(struct testdev_stream_end), take_end },
};

static int check_record(const struct testdev *t, const struct testdev_record *r)
{
	if (r->type >= ARRAY_SIZE(types) || !types[r->type].take || r->seq != t->migration.seq ||
	    (r->type == RECORD_HEAD) != (r->seq == 0) ||
	    (types[r->type].len ? r->len != types[r->type].len : r->len > TESTDEV_RECORD_MAX)) {
		testdev_log(t, "record %u of type %u, %u bytes: makes no sense", r->seq, r->type,
			    r->len);
		return EINVAL;
	}
	return 0;
}

/* Fills the stage up to `want`; whether it is that full. */
static bool fill(struct testdev_stage *s, size_t want, const uint8_t **from, size_t *len)
{
	size_t part = MIN(want - s->len, *len);

	memcpy(s->bytes + s->len, *from, part);
	s->len += part;
	*from += part;
	*len -= part;
	return s->len == want;
}

static int take(struct testdev *t, const uint8_t *from, size_t len)
{
	struct testdev_migration *m = &t->migration;
	struct testdev_record r;
	int error;

	while (len) {
		if (m->ended)
			return EINVAL; /* something behind the end */
		if (m->stage.len < sizeof(r) && !fill(&m->stage, sizeof(r), &from, &len))
			break;
		memcpy(&r, m->stage.bytes, sizeof(r));
		error = check_record(t, &r);
		if (error)
			return error;
		if (!fill(&m->stage, sizeof(r) + r.len, &from, &len))
			break;
		m->stage.len = 0;
		if (testdev_sum(m->stage.bytes + sizeof(r), r.len) != r.sum)
			return EINVAL;
		error = types[r.type].take(t, &r, m->stage.bytes + sizeof(r));
		if (error)
			return error;
		m->seq++;
	}
	return 0;
}

int testdev_stream_write(struct testdev *t, const uint8_t *from, size_t len)
{
	struct testdev_migration *m = &t->migration;
	int error;

	if (m->failed)
		return EINVAL;
	error = take(t, from, len);
	m->failed = error;
	return error;
}

bool testdev_stream_complete(const struct testdev *t)
{
	return t->migration.ended && !t->migration.failed;
}
