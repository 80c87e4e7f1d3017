/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls to a plugin in its process, each answered in time or the process is not asked again.
 * It knows messages (vfio/plugin/protocol.h), not what they mean. One thread at a time.
 */
#ifndef VFIO_PLUGIN_CHANNEL_H
#define VFIO_PLUGIN_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vfio/plugin/protocol.h"

struct plugin_channel {
	int sock;	 /* the caller's */
	uint8_t *window; /* the caller's */
	unsigned int timeout_ms;
	uint32_t seq;
	bool broken; /* hung, ended, or spoke nonsense: every call fails */
};

/*
 * Calls. 0, with the reply in *value (may be NULL), or
 *   -EREMOTEIO   the plugin's function failed, or the process could not call it: it goes on
 *   -ETIMEDOUT, -ECONNRESET, -EPROTO, ...   broken
 * err says which call, and why.
 */
int plugin_channel_call(struct plugin_channel *channel, enum plugin_call type, uint64_t in,
			uint32_t len, uint64_t *value, uint32_t *flags, struct error *err);

#endif
