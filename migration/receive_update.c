/* SPDX-License-Identifier: Apache-2.0 */
/* The new process's side of a live update (update.h), where it differs from a migration. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "migration/receive_private.h"
#include "migration/update.h"

static int agree(struct migration_receive *receive, struct error *err)
{
	return channel_send(receive->control, &(struct frame){ .type = FRAME_AGREED }, NULL, 0,
			    NULL, 0, err);
}

int receive_update_asked(struct migration_receive *receive, struct error *err)
{
	_cleanup_free_ void *text = NULL;
	struct frame frame;
	int r;

	if (!(receive->capabilities & CAPABILITY_UPDATE))
		return 0;
	r = receive_expect(receive, FRAME_ASK, &frame, err);
	if (!r)
		r = channel_receive_blob(receive->control, &frame, &text, err);
	if (!r && memchr(text, 0, frame.length))
		r = error_set(err, EBADMSG, "ASK of the source is no text");
	if (!r)
		r = receive->target.ops->consider(receive->target.opaque, text, err);
	return r ? r : agree(receive, err);
}

static int receive_one(struct migration_receive *receive, struct kept *kept, bool *last,
		       struct error *err)
{
	struct frame frame;
	int fds[FD_PASS_MAX], r = receive_expect(receive, FRAME_KEPT, &frame, err);
	unsigned int count = channel_take_fds(receive->control, fds, FD_PASS_MAX);

	if (r) {
		while (count)
			close(fds[--count]);
		return r;
	}
	*last = frame.flags & FRAME_LAST;
	r = kept_decode(kept, channel_meta(receive->control), frame.meta_len, fds, count, err);
	return r ? r : agree(receive, err);
}

int receive_update_kept(struct migration_receive *receive, bool paused, struct error *err)
{
	struct kept *kept;
	bool last = false;
	int r = 0;

	if (!(receive->capabilities & CAPABILITY_UPDATE))
		return 0;
	receive->created = true; /* in part: what was kept has to be let go of */
	kept = receive->target.ops->kept(receive->target.opaque);
	while (!r && !last)
		r = receive_one(receive, kept, &last, err);
	if (!r && receive->target.ops->take_kept)
		r = receive->target.ops->take_kept(receive->target.opaque, paused, err);
	return r;
}
