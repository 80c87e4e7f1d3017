/* SPDX-License-Identifier: Apache-2.0 */
/* One call, one reply, which is checked before it is believed. */
#include "vfio/plugin_channel.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/clock.h"

/* The functions, as their writers know them. */
static const char *const names[PLUGIN_CALLS] = {
	[PLUGIN_INIT] = "init",		  [PLUGIN_SAVE] = "save",
	[PLUGIN_LOAD] = "load",		  [PLUGIN_PENDING] = "update_pending",
	[PLUGIN_SET_STATE] = "set_state", [PLUGIN_GET_STATE] = "get_state",
	[PLUGIN_CLEANUP] = "cleanup",
};

static int lose(struct plugin_channel *c)
{
	c->broken = true;
	return -1;
}

static int wait_for_reply(struct plugin_channel *c, enum plugin_call type, struct error *err)
{
	struct pollfd p = { .fd = c->sock, .events = POLLIN };
	int64_t deadline = (int64_t)clock_ms() + c->timeout_ms;

	for (;;) {
		int64_t left = deadline - (int64_t)clock_ms();
		int r = left > 0 ? poll(&p, 1, (int)left) : 0;

		if (r > 0)
			return 0;
		if (r < 0 && errno == EINTR)
			continue;
		lose(c);
		if (r < 0)
			return error_set_errno(err, errno, "wait for %s()", names[type]);
		return error_set(err, ETIMEDOUT, "%s() has not returned for %u ms", names[type],
				 c->timeout_ms);
	}
}

static int nonsense(struct plugin_channel *c, enum plugin_call type, struct error *err)
{
	lose(c);
	return error_set(err, EPROTO, "its process answered %s() with nonsense", names[type]);
}

static int receive(struct plugin_channel *c, const struct plugin_message *call,
		   struct plugin_message *reply, struct error *err)
{
	/* One byte more: a packet that is too long shows. No room for descriptors: what comes
	 * of these is closed by the kernel. */
	uint8_t packet[sizeof(*reply) + 1];
	struct iovec iov = { packet, sizeof(packet) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	do
		n = recvmsg(c->sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n == 0 || (n < 0 && errno == ECONNRESET)) {
		lose(c);
		return error_set(err, ECONNRESET, "its process ended in %s()", names[call->type]);
	}
	if (n < 0) {
		lose(c);
		return error_set_errno(err, errno, "receive the result of %s()", names[call->type]);
	}
	if (n != (ssize_t)sizeof(*reply))
		return nonsense(c, call->type, err);
	memcpy(reply, packet, sizeof(*reply));
	if (reply->magic != PLUGIN_MAGIC || reply->type != call->type || reply->seq != call->seq)
		return nonsense(c, call->type, err);
	return 0;
}

/* The process' own words, cut to what can be shown. */
static int failed(struct plugin_channel *c, const struct plugin_message *reply, struct error *err)
{
	char text[PLUGIN_TEXT_MAX + 1];
	uint32_t len = MIN(reply->len, (uint32_t)PLUGIN_TEXT_MAX);

	memcpy(text, c->window, len);
	text[len] = '\0';
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p > '~')
			*p = '?';
	return error_set(err, EREMOTEIO, "%s", text[0] ? text : "it failed, and did not say why");
}

int plugin_channel_call(struct plugin_channel *c, enum plugin_call type, uint64_t in, uint32_t len,
			uint64_t *value, uint32_t *flags, struct error *err)
{
	struct plugin_message reply = { 0 };
	const struct plugin_message call = {
		.magic = PLUGIN_MAGIC,
		.type = type,
		.seq = ++c->seq,
		.value = in,
		.len = len,
	};
	struct iovec iov = { (void *)&call, sizeof(call) };
	const struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int r;

	if (c->broken)
		return error_set(err, ECONNRESET, "its process is gone");
	if (sendmsg(c->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof(call)) {
		lose(c);
		return error_set(err, ECONNRESET, "its process ended before %s()", names[type]);
	}
	r = wait_for_reply(c, type, err);
	if (!r)
		r = receive(c, &call, &reply, err);
	if (r)
		return r;
	if (flags)
		*flags = reply.flags;
	if (reply.flags & PLUGIN_FAILED)
		return failed(c, &reply, err);
	if (reply.result)
		return error_set(err, EREMOTEIO, "%s() returned %d", names[type], reply.result);
	if (value)
		*value = reply.value;
	return 0;
}
