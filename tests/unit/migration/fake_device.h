/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device whose state is a stream, for migration: byte n of the stream is a function of n,
 * its length is told by its last 8 bytes. While it runs it writes to a page of its own in
 * the fake machine's RAM, as DMA does: seen by the dirty source, until it is stopped.
 */
#ifndef TESTS_UNIT_MIGRATION_FAKE_DEVICE_H
#define TESTS_UNIT_MIGRATION_FAKE_DEVICE_H

#include <stdio.h>

#include "base/migratable.h"
#include "tests/unit/migration/fake_machine.h"

/* In the order that they happen in. */
enum fake_device_step {
	FAKE_DEVICE_NONE,
	FAKE_SAVE_BEGIN,
	FAKE_SAVE_PENDING,
	FAKE_SAVE_READ,
	FAKE_QUIESCE,
	FAKE_SAVE_STOP,
	FAKE_REST_READ,
	FAKE_SAVE_END,
	FAKE_LOAD_BEGIN,
	FAKE_LOAD_WRITE,
	FAKE_LOAD_END,
	FAKE_DEVICE_RESUME,
	FAKE_DEVICE_RUN,
	FAKE_DEVICE_STEPS,
};

enum fake_device_state {
	FAKE_RUNS,
	FAKE_PRECOPIES,
	FAKE_QUIET,
	FAKE_SAVES,
	FAKE_STANDS,
	FAKE_LOADS,
	FAKE_ANSWERS,
};

struct fake_device {
	struct migratable base; /* first */
	struct fake_machine *machine;
	struct fake_device *others; /* all of the VM */
	unsigned int count;
	_Atomic enum fake_device_state state;
	uint64_t initial, rest; /* bytes: before the pause, after */
	unsigned int reinits;	/* how often it has initial bytes anew */
	bool late;		/* ... when it was asked once more after they were read */
	bool dma, no_rollback;
	enum fake_device_step fails;
	int fails_with; /* errno; 0: EIO */
	long load_ms;	/* that each part takes to load */
	uint64_t page;	/* its own, in region 0 */
	/* what went on */
	_Atomic uint64_t at;
	uint64_t end, loaded_at_pause;
	uint8_t trailer[8];
	unsigned int rollbacks, asked; /* asked: with some of its bytes read, not all */
	bool wrong_order, wrong_data, was_late;
};

static inline uint8_t fake_device_byte(uint64_t n)
{
	return (uint8_t)(n * 31 + n / 4096);
}

static inline struct fake_device *fake_device_of(struct migratable *m)
{
	return (struct fake_device *)m;
}

static inline int fake_device_fail(struct fake_device *d, enum fake_device_step step,
				   struct error *err)
{
	if (d->fails != step)
		return 0;
	return error_set(err, d->fails_with ? d->fails_with : EIO, "device %s: fake step %d fails",
			 d->base.id, step);
}

static inline void fake_device_expect(struct fake_device *d, bool right)
{
	if (!right)
		d->wrong_order = true;
}

/* DMA, where it may: the dirty source sees it. */
static inline void fake_device_dma(struct fake_device *d, uint64_t value)
{
	if (d->dma)
		fake_write(d->machine, 0, d->page, value);
}

static inline int fake_save_begin(struct migratable *m, struct error *err)
{
	struct fake_device *d = fake_device_of(m);

	fake_device_expect(d, d->state == FAKE_RUNS);
	d->state = FAKE_PRECOPIES;
	d->at = 0;
	d->end = d->initial;
	return fake_device_fail(d, FAKE_SAVE_BEGIN, err);
}

static inline int fake_save_pending(struct migratable *m, struct migratable_pending *pending,
				    struct error *err)
{
	struct fake_device *d = fake_device_of(m);

	*pending = (struct migratable_pending){ .initial = d->end - d->at, .stop_copy = d->rest };
	d->asked += d->at && d->at < d->end;
	if (d->at == d->end && d->late && !d->was_late) {
		d->was_late = true;
	} else if (d->at == d->end && d->reinits) {
		d->was_late = false;
		d->reinits--;
		d->end += d->initial;
		pending->reinit = true;
		pending->initial = d->initial;
	}
	return fake_device_fail(d, FAKE_SAVE_PENDING, err);
}

static inline ssize_t fake_save_read(struct migratable *m, void *buf, size_t len, struct error *err)
{
	struct fake_device *d = fake_device_of(m);
	bool stopped = d->state == FAKE_SAVES;
	uint8_t *out = buf;
	size_t n = 0;
	int r = fake_device_fail(d, stopped ? FAKE_REST_READ : FAKE_SAVE_READ, err);

	if (r)
		return r;
	fake_device_expect(d, stopped || d->state == FAKE_PRECOPIES);
	if (!stopped)
		fake_device_dma(d, d->at + 1);
	/* Odd pieces. */
	for (; n < len && n < 77777 && d->at < d->end; n++, d->at++)
		out[n] = stopped && d->at >= d->end - 8
				 ? (uint8_t)(d->end >> 8 * (d->at - (d->end - 8)))
				 : fake_device_byte(d->at);
	return (ssize_t)n;
}

static inline int fake_quiesce(struct migratable *m, struct error *err)
{
	struct fake_device *d = fake_device_of(m);

	fake_device_expect(d, d->state == FAKE_PRECOPIES && !fake_running(d->machine));
	for (unsigned int i = 0; i < d->count; i++)
		fake_device_expect(d, d->others[i].state != FAKE_SAVES);
	fake_device_dma(d, 1000001);
	d->state = FAKE_QUIET;
	return fake_device_fail(d, FAKE_QUIESCE, err);
}

static inline int fake_save_stop(struct migratable *m, struct error *err)
{
	struct fake_device *d = fake_device_of(m);

	fake_device_expect(d, d->state == FAKE_QUIET);
	for (unsigned int i = 0; i < d->count; i++)
		fake_device_expect(d, d->others[i].state != FAKE_PRECOPIES);
	/* The last write of the device: the round after it has to see it. */
	fake_device_dma(d, 1000002);
	d->state = FAKE_SAVES;
	d->end += d->rest + 8;
	return fake_device_fail(d, FAKE_SAVE_STOP, err);
}

static inline int fake_save_end(struct migratable *m, struct error *err)
{
	struct fake_device *d = fake_device_of(m);

	fake_device_expect(d, d->state == FAKE_SAVES && d->at == d->end);
	d->state = FAKE_STANDS;
	return fake_device_fail(d, FAKE_SAVE_END, err);
}

static inline int fake_rollback(struct migratable *m, struct error *err)
{
	struct fake_device *d = fake_device_of(m);

	d->rollbacks++;
	if (d->no_rollback)
		return error_set(err, EIO, "device %s is in ERROR", d->base.id);
	d->state = FAKE_RUNS;
	return 0;
}

static inline int fake_load_begin(struct migratable *m, struct error *err)
{
	struct fake_device *d = fake_device_of(m);

	fake_device_expect(d, d->state == FAKE_RUNS);
	d->state = FAKE_LOADS;
	d->at = 0;
	return fake_device_fail(d, FAKE_LOAD_BEGIN, err);
}

static inline int fake_load_write(struct migratable *m, const void *buf, size_t len,
				  struct error *err)
{
	struct fake_device *d = fake_device_of(m);
	const uint8_t *in = buf;

	nanosleep(&(struct timespec){ .tv_nsec = d->load_ms * 1000000L }, NULL);
	fake_device_expect(d, d->state == FAKE_LOADS);
	/* The last eight may be the trailer. */
	for (size_t i = 0; i + 8 < len; i++)
		if (in[i] != fake_device_byte(d->at + i))
			d->wrong_data = true;
	for (size_t i = len < 8 ? 0 : len - 8; i < len; i++) {
		memmove(d->trailer, d->trailer + 1, 7);
		d->trailer[7] = in[i];
	}
	d->at += len;
	return fake_device_fail(d, FAKE_LOAD_WRITE, err);
}

static inline int fake_load_end(struct migratable *m, struct error *err)
{
	struct fake_device *d = fake_device_of(m);

	fake_device_expect(d, d->state == FAKE_LOADS);
	d->state = FAKE_STANDS;
	if (d->at < 8 || load_le64(d->trailer) != d->at)
		return error_set(err, EINVAL, "device %s: its state is damaged", d->base.id);
	return fake_device_fail(d, FAKE_LOAD_END, err);
}

static inline int fake_device_resume(struct migratable *m, struct error *err)
{
	struct fake_device *d = fake_device_of(m);

	fake_device_expect(d, d->state == FAKE_STANDS && !fake_running(d->machine));
	d->state = FAKE_ANSWERS;
	return fake_device_fail(d, FAKE_DEVICE_RESUME, err);
}

static inline int fake_device_run(struct migratable *m, struct error *err)
{
	struct fake_device *d = fake_device_of(m);

	fake_device_expect(d, d->state == FAKE_ANSWERS);
	for (unsigned int i = 0; i < d->count; i++)
		fake_device_expect(d, d->others[i].state == FAKE_ANSWERS ||
					      d->others[i].state == FAKE_RUNS);
	d->state = FAKE_RUNS;
	return fake_device_fail(d, FAKE_DEVICE_RUN, err);
}

static const struct migratable_ops fake_device_ops = {
	.kind = "fake",
	.save_begin = fake_save_begin,
	.save_pending = fake_save_pending,
	.save_read = fake_save_read,
	.quiesce = fake_quiesce,
	.save_stop = fake_save_stop,
	.save_end = fake_save_end,
	.rollback = fake_rollback,
	.load_begin = fake_load_begin,
	.load_write = fake_load_write,
	.load_end = fake_load_end,
	.resume = fake_device_resume,
	.run = fake_device_run,
};

static inline void fake_devices_init(struct fake_device *devices, unsigned int count,
				     struct fake_machine *machine, uint64_t initial, uint64_t rest)
{
	for (unsigned int i = 0; i < count; i++) {
		struct fake_device *d = &devices[i];

		memset(d, 0, sizeof(*d));
		d->base.ops = &fake_device_ops;
		snprintf(d->base.id, sizeof(d->base.id), "vf%u", i);
		d->base.precopy = initial > 0;
		d->base.p2p = true;
		d->machine = machine;
		d->others = devices;
		d->count = count;
		d->initial = initial;
		d->rest = rest;
		d->dma = true;
		d->page = 100 + i;
		machine->devices[i] = &d->base;
	}
	machine->device_count = count;
}

#endif
