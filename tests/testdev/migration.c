/* SPDX-License-Identifier: Apache-2.0 */
/* The states of migration v2 (linux/vfio.h, enum vfio_device_mig_state), which the region's
 * are mapped onto: from which to which one gets by way of which, and what an arc does. */
#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "tests/testdev/testdev.h"

#define ERR VFIO_DEVICE_STATE_ERROR
#define STP VFIO_DEVICE_STATE_STOP
#define RUN VFIO_DEVICE_STATE_RUNNING
#define SCP VFIO_DEVICE_STATE_STOP_COPY
#define RES VFIO_DEVICE_STATE_RESUMING
#define RP2 VFIO_DEVICE_STATE_RUNNING_P2P
#define PRE VFIO_DEVICE_STATE_PRE_COPY
#define PP2 VFIO_DEVICE_STATE_PRE_COPY_P2P

/* The next state on the way from a row's to a column's, for a device that has them all. One
 * that has not goes on as if it had been there. ERROR: there is no way. */
static const uint8_t next[TESTDEV_STATES][TESTDEV_STATES] = {
	/* to:   ERROR STOP RUNN SCOPY RESUM R_P2P PRE  P_P2P */
	[ERR] = { ERR, ERR, ERR, ERR, ERR, ERR, ERR, ERR },
	[STP] = { ERR, STP, RP2, SCP, RES, RP2, RP2, RP2 },
	[RUN] = { ERR, RP2, RUN, RP2, RP2, RP2, PRE, PRE },
	[SCP] = { ERR, STP, STP, SCP, STP, STP, ERR, ERR },
	[RES] = { ERR, STP, STP, STP, RES, STP, STP, STP },
	[RP2] = { ERR, STP, RUN, STP, STP, RP2, RUN, PP2 },
	[PRE] = { ERR, RUN, RUN, PP2, RUN, RUN, PRE, PP2 },
	[PP2] = { ERR, RP2, RP2, SCP, RP2, RP2, PRE, PP2 },
};

static const struct state {
	uint64_t needs;	 /* VFIO_MIGRATION_*, all of them */
	bool dma;	 /* starts and continues DMA */
	bool writes;	 /* takes writes to its registers */
	bool precopying; /* its stream is that of a running device */
} states[TESTDEV_STATES] = {
	[ERR] = { .needs = 0 },
	[STP] = { .needs = VFIO_MIGRATION_STOP_COPY },
	[RUN] = { .needs = 0, .dma = true, .writes = true },
	[SCP] = { .needs = VFIO_MIGRATION_STOP_COPY },
	[RES] = { .needs = VFIO_MIGRATION_STOP_COPY },
	[RP2] = { .needs = VFIO_MIGRATION_P2P, .writes = true },
	[PRE] = { .needs = VFIO_MIGRATION_PRE_COPY,
		  .dma = true,
		  .writes = true,
		  .precopying = true },
	[PP2] = { .needs = VFIO_MIGRATION_PRE_COPY | VFIO_MIGRATION_P2P,
		  .writes = true,
		  .precopying = true },
};

static bool has_state(const struct testdev *t, uint32_t state)
{
	uint64_t needs = states[state].needs;

	return (t->o.mig_flags & needs) == needs;
}

bool testdev_dma_allowed(const struct testdev *t)
{
	return states[t->migration.state].dma;
}

bool testdev_writes_allowed(const struct testdev *t)
{
	return states[t->migration.state].writes;
}

static int take_arc(struct testdev *t, uint32_t to)
{
	struct testdev_migration *m = &t->migration;
	uint32_t from = m->state;

	if (testdev_fault(t, FAULT_REFUSE_STATE) && t->o.fault_state == to)
		return EIO;
	if (testdev_fault(t, FAULT_ERROR_STATE) && t->o.fault_state == to) {
		m->state = ERR;
		return EIO;
	}
	if (states[from].writes) {
		testdev_filler_run(t);
		/* What was signalled up to now belongs to the state. */
		if (eventfd_drain(t->doorbell_fd))
			testdev_doorbell(t);
	} else if (states[to].writes) {
		testdev_filler_start(t);
	}
	if (states[from].dma && !states[to].dma && t->o.dma_finish)
		testdev_finish_dma(t);
	if (to == RES || ((states[to].precopying || to == SCP) && !states[from].precopying))
		testdev_stream_begin(t);
	if (from == RES && !testdev_stream_complete(t)) {
		testdev_log(t, "the stream is incomplete");
		m->state = ERR;
		return EINVAL;
	}
	m->state = to;
	m->step = STEP_IDLE;
	testdev_log(t, "state %u -> %u", from, to);
	return 0;
}

int testdev_set_state(struct testdev *t, uint32_t target)
{
	struct testdev_migration *m = &t->migration;

	if (target >= TESTDEV_STATES || target == ERR || !has_state(t, target))
		return EINVAL;
	while (m->state != target) {
		uint32_t to = next[m->state][target];
		int error;

		while (to != ERR && !has_state(t, to))
			to = next[to][target];
		if (to == ERR)
			return EINVAL;
		error = take_arc(t, to);
		if (error)
			return error;
	}
	return 0;
}

void testdev_migration_reset(struct testdev *t)
{
	t->migration.state = RUN;
	t->migration.step = STEP_IDLE;
	testdev_stream_begin(t);
}

int testdev_migration_init(struct testdev *t)
{
	int r = testdev_filler_init(t);

	t->migration.state = RUN;
	t->migration.stage.bytes = calloc(1, sizeof(struct testdev_record) + TESTDEV_RECORD_MAX);
	if (!r && !t->migration.stage.bytes)
		r = -ENOMEM;
	t->migration.region_fd = -1;
	if (!r && t->o.mig_way == WAY_REGION)
		r = testdev_migration_region_init(t);
	return r;
}
