/* SPDX-License-Identifier: Apache-2.0 */
/* What both sides say and hear on the control connection. `peer` is the other side's name in
 * errors, "source" or "destination". */
#ifndef MIGRATION_CONTROL_H
#define MIGRATION_CONTROL_H

#include "migration/channel.h"

/* The next frame; its FAILED, and that it hung up, are errors. idle_ms as channel_receive(). */
int control_receive(struct channel *control, const char *peer, struct frame *frame, int idle_ms,
		    struct error *err);
/* -EPROTO where the frame is of another type. */
int control_check(const struct frame *frame, const char *peer, uint16_t type, struct error *err);
/* So that the peer knows that we are there: four times as often as may be silence. */
int control_ping(struct channel *control, int stall_ms, uint64_t *pinged_ms, struct error *err);

#endif
