/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states of migration v2 (enum vfio_device_mig_state, linux/vfio.h) as a table: which
 * arc comes next on the way from one to another. The device is taken along these arcs one
 * by one, though it could be asked for the last at once, so that an arc that fails has a
 * name and the device is in a state that is known.
 *
 *                        RUNNING <-----> PRE_COPY          PRE_COPY states: only where
 *                           ^               |  ^           the device has them
 *                           v               v  |
 *	              RUNNING_P2P <--> PRE_COPY_P2P         *_P2P: likewise; without them
 *	                     ^               |                the two above are their place
 *	                     v               v
 *	RESUMING <-------> STOP <-----> STOP_COPY
 *
 * The ways are the shortest, and never lead through a state of the saving group (PRE_COPY,
 * PRE_COPY_P2P, STOP_COPY), as the header has it. From STOP_COPY there is no way back to
 * PRE_COPY; from ERROR there is none at all: a reset ends it, in RUNNING.
 */
#ifndef VFIO_MIGRATION_STATES_H
#define VFIO_MIGRATION_STATES_H

#include <stdbool.h>
#include <stdint.h>

#include "vfio/uapi_vfio.h"

#define MIGRATION_STATES 8

/* "PRE_COPY"; "state 9" has no name: "unknown". */
const char *migration_state_name(uint32_t state);
/* Is it one of a device with these VFIO_MIGRATION_* flags? */
bool migration_state_exists(uint32_t state, uint64_t flags);
/* The next state on the way, `to` itself where an arc leads there; VFIO_DEVICE_STATE_ERROR:
 * there is no way. from != to. */
uint32_t migration_state_next(uint32_t from, uint32_t to, uint64_t flags);
/* One arc: does it begin a stream (SET returns a descriptor), or end one? */
bool migration_arc_begins(uint32_t from, uint32_t to);
bool migration_arc_ends(uint32_t from, uint32_t to);

#endif
