/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/control.h"

#include <errno.h>

#include "base/clock.h"
#include "migration/protocol.h"

int control_receive(struct channel *control, const char *peer, struct frame *frame, int idle_ms,
		    struct error *err)
{
	int r = channel_receive(control, frame, idle_ms, err);

	if (r == -ENODATA)
		return error_set(err, ECONNRESET, "the %s closed the connection", peer);
	if (r)
		return r;
	if (frame->type == FRAME_FAILED)
		return failed_decode(peer, channel_meta(control), frame->meta_len, err);
	return 0;
}

int control_check(const struct frame *frame, const char *peer, uint16_t type, struct error *err)
{
	char got[16], wanted[16];

	if (frame->type == type)
		return 0;
	return error_set(err, EPROTO, "the %s sent %s where %s belongs", peer,
			 frame_name(frame->type, got, sizeof(got)),
			 frame_name(type, wanted, sizeof(wanted)));
}

int control_ping(struct channel *control, int stall_ms, uint64_t *pinged_ms, struct error *err)
{
	uint64_t now = clock_ms();

	if (now - *pinged_ms < (uint64_t)stall_ms / 4)
		return 0;
	*pinged_ms = now;
	return channel_send(control, &(struct frame){ .type = FRAME_PING, .flags = FRAME_OPTIONAL },
			    NULL, 0, NULL, 0, err);
}
