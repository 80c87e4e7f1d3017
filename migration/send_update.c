/* SPDX-License-Identifier: Apache-2.0 */
/* The old process's side of a live update (update.h), where it differs from a migration. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "migration/send_private.h"
#include "migration/update.h"

static int await_agreed(struct migration_send *send, struct error *err)
{
	struct frame frame;

	return send_expect(send, FRAME_AGREED, &frame, send->options.stall_ms, err);
}

int send_update_ask(struct migration_send *send, struct error *err)
{
	_cleanup_free_ char *text = NULL;
	struct iovec iov;
	int r;

	if (!(send->capabilities & CAPABILITY_UPDATE))
		return 0;
	text = send->vm.ops->describe(send->vm.opaque, err);
	if (!text)
		return err && err->code ? err->code : -ENOMEM;
	iov = (struct iovec){ .iov_base = text, .iov_len = strlen(text) };
	r = channel_send(send->control, &(struct frame){ .type = FRAME_ASK }, NULL, 0, &iov, 1,
			 err);
	return r ? r : await_agreed(send, err);
}

/* One at a time: an answer to each, so that none finds the socket full of descriptors. While
 * the guest stands still the last answer is waited for later. */
static int send_all(struct migration_send *send, const struct kept *kept, bool paused,
		    struct error *err)
{
	unsigned int done = 0;
	bool last = false;

	while (!last) {
		uint8_t meta[FRAME_META_MAX];
		int fds[FD_PASS_MAX], r;
		unsigned int fd_count;
		struct frame frame = { .type = FRAME_KEPT };
		size_t len;

		done += kept_encode(kept, done, meta, &len, fds, &fd_count);
		last = done == kept->count;
		frame.flags = last ? FRAME_LAST : 0;
		r = channel_send_fds(send->control, &frame, meta, len, fds, fd_count, err);
		if (!r && !(last && paused))
			r = await_agreed(send, err);
		if (r)
			return r;
	}
	return 0;
}

int send_update_kept(struct migration_send *send, bool paused, struct error *err)
{
	struct kept kept = { .count = 0 };
	int r;

	if (!(send->capabilities & CAPABILITY_UPDATE))
		return 0;
	r = send->vm.ops->keep(send->vm.opaque, &kept, paused, err);
	if (!r)
		r = send_all(send, &kept, paused, err);
	kept_destroy(&kept);
	return r;
}

int send_update_agreed(struct migration_send *send, struct error *err)
{
	return send->capabilities & CAPABILITY_UPDATE ? await_agreed(send, err) : 0;
}
