/* SPDX-License-Identifier: Apache-2.0 */
#include "vfio/migration_states.h"

#define ERROR VFIO_DEVICE_STATE_ERROR
#define STOP VFIO_DEVICE_STATE_STOP
#define RUNNING VFIO_DEVICE_STATE_RUNNING
#define STOP_COPY VFIO_DEVICE_STATE_STOP_COPY
#define RESUMING VFIO_DEVICE_STATE_RESUMING
#define RUNNING_P2P VFIO_DEVICE_STATE_RUNNING_P2P
#define PRE_COPY VFIO_DEVICE_STATE_PRE_COPY
#define PRE_COPY_P2P VFIO_DEVICE_STATE_PRE_COPY_P2P

static const struct {
	const char *name;
	uint64_t needs; /* VFIO_MIGRATION_*, of the device */
	bool saving;
} states[MIGRATION_STATES] = {
	[ERROR] = { "ERROR", 0, false },
	[STOP] = { "STOP", VFIO_MIGRATION_STOP_COPY, false },
	[RUNNING] = { "RUNNING", 0, false },
	[STOP_COPY] = { "STOP_COPY", VFIO_MIGRATION_STOP_COPY, true },
	[RESUMING] = { "RESUMING", VFIO_MIGRATION_STOP_COPY, false },
	[RUNNING_P2P] = { "RUNNING_P2P", VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P, false },
	[PRE_COPY] = { "PRE_COPY", VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY, true },
	[PRE_COPY_P2P] = { "PRE_COPY_P2P",
			   VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY | VFIO_MIGRATION_P2P,
			   true },
};

/* [from][to], of a device with every state; where one is missing, see below. 0 is ERROR. */
static const uint8_t next[MIGRATION_STATES][MIGRATION_STATES] = {
	[STOP] = {
		[STOP] = STOP,
		[RUNNING] = RUNNING_P2P,
		[STOP_COPY] = STOP_COPY,
		[RESUMING] = RESUMING,
		[RUNNING_P2P] = RUNNING_P2P,
		[PRE_COPY] = RUNNING_P2P,
		[PRE_COPY_P2P] = RUNNING_P2P,
	},
	[RUNNING] = {
		[STOP] = RUNNING_P2P,
		[RUNNING] = RUNNING,
		[STOP_COPY] = RUNNING_P2P,
		[RESUMING] = RUNNING_P2P,
		[RUNNING_P2P] = RUNNING_P2P,
		[PRE_COPY] = PRE_COPY,
		[PRE_COPY_P2P] = RUNNING_P2P,
	},
	[STOP_COPY] = {
		[STOP] = STOP,
		[RUNNING] = STOP,
		[STOP_COPY] = STOP_COPY,
		[RESUMING] = STOP,
		[RUNNING_P2P] = STOP,
	},
	[RESUMING] = {
		[STOP] = STOP,
		[RUNNING] = STOP,
		[STOP_COPY] = STOP,
		[RESUMING] = RESUMING,
		[RUNNING_P2P] = STOP,
		[PRE_COPY] = STOP,
		[PRE_COPY_P2P] = STOP,
	},
	[RUNNING_P2P] = {
		[STOP] = STOP,
		[RUNNING] = RUNNING,
		[STOP_COPY] = STOP,
		[RESUMING] = STOP,
		[RUNNING_P2P] = RUNNING_P2P,
		[PRE_COPY] = RUNNING,
		[PRE_COPY_P2P] = PRE_COPY_P2P,
	},
	[PRE_COPY] = {
		[STOP] = RUNNING,
		[RUNNING] = RUNNING,
		[STOP_COPY] = PRE_COPY_P2P,
		[RESUMING] = RUNNING,
		[RUNNING_P2P] = RUNNING,
		[PRE_COPY] = PRE_COPY,
		[PRE_COPY_P2P] = PRE_COPY_P2P,
	},
	[PRE_COPY_P2P] = {
		[STOP] = RUNNING_P2P,
		[RUNNING] = RUNNING_P2P,
		[STOP_COPY] = STOP_COPY,
		[RESUMING] = RUNNING_P2P,
		[RUNNING_P2P] = RUNNING_P2P,
		[PRE_COPY] = PRE_COPY,
		[PRE_COPY_P2P] = PRE_COPY_P2P,
	},
};

const char *migration_state_name(uint32_t state)
{
	return state < MIGRATION_STATES ? states[state].name : "unknown";
}

bool migration_state_exists(uint32_t state, uint64_t flags)
{
	return state < MIGRATION_STATES && (flags & states[state].needs) == states[state].needs;
}

uint32_t migration_state_next(uint32_t from, uint32_t to, uint64_t flags)
{
	uint32_t state = from;

	if (!migration_state_exists(from, flags) || !migration_state_exists(to, flags))
		return ERROR;
	/* What the device lacks is passed through on the same way. */
	do
		state = next[state][to];
	while (state != ERROR && !migration_state_exists(state, flags));
	return state;
}

/* What streams in a state: arcs between two that stream the same leave it alone. */
static enum { NOTHING, SAVED, RESUMED } stream_of(uint32_t state)
{
	if (state == RESUMING)
		return RESUMED;
	return states[state].saving ? SAVED : NOTHING;
}

bool migration_arc_begins(uint32_t from, uint32_t to)
{
	return stream_of(to) != NOTHING && stream_of(to) != stream_of(from);
}

bool migration_arc_ends(uint32_t from, uint32_t to)
{
	return migration_arc_begins(to, from);
}
