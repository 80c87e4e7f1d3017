/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From READY on. The rules are in protocol.h, "Exactly one side runs the VM": the VM
 * starts on COMMIT alone; whoever asks gets the one answer there is.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "migration/receive_private.h"

#define STRANGER_MS 300 /* to send QUERY: somebody waits meanwhile */
#define STRANGER_TLS_MS 1000
#define DONE_MS 300
#define REASON_MS 300 /* for the source to say why it hung up */

static int tell(struct channel *channel, const struct receive_decision *decision)
{
	uint8_t meta[8];

	channel_set_cancel(channel, -1);
	if (!decision->runs) {
		uint8_t text[FAILED_SIZE_MAX];

		return channel_send(channel, &(struct frame){ .type = FRAME_FAILED }, text,
				    failed_encode(&decision->why_not, text), NULL, 0, NULL);
	}
	store_le64(meta, decision->resume_us);
	return channel_send(channel, &(struct frame){ .type = FRAME_RUNNING }, meta, sizeof(meta),
			    NULL, 0, NULL);
}

/* RECOVER is one only where RAM is still to come. */
static bool is_question(const struct migration_receive *receive, uint16_t type)
{
	return type == FRAME_QUERY || (type == FRAME_RECOVER && receive->postcopy.committed);
}

struct channel *receive_take_question(struct migration_receive *receive, uint16_t *type)
{
	int timeout_ms = receive->options.tls ? STRANGER_TLS_MS : STRANGER_MS;
	struct channel_options options = {
		.kind = CHANNEL_PLAIN,
		.timeout_ms = timeout_ms,
		.cancel_fd = -1,
		.tls = receive->options.tls,
		.policy = receive->options.policy,
	};
	int fd = accept4(receive->options.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct channel *channel;
	struct frame frame;

	if (fd < 0)
		return NULL;
	channel = channel_new(fd, &options, NULL);
	if (!channel)
		return NULL;
	if (!channel_receive(channel, &frame, timeout_ms, NULL) &&
	    is_question(receive, frame.type) && frame.meta_len == SESSION_SIZE &&
	    !memcmp(channel_meta(channel), receive->session, SESSION_SIZE)) {
		*type = frame.type;
		return channel;
	}
	channel_free(channel);
	return NULL;
}

/* One frame of control: 1 COMMIT, 0 nothing of interest, or why there will be none. */
static int hear(struct migration_receive *receive, struct error *err)
{
	struct frame frame;
	int r = channel_receive(receive->control, &frame, 0, err);

	if (r == -ENODATA)
		return error_set(err, ECONNRESET, "the source closed the connection before COMMIT");
	if (r)
		return r;
	switch (frame.type) {
	case FRAME_COMMIT: return 1;
	case FRAME_PING: return 0;
	case FRAME_FAILED:
		receive->source_failed = true;
		return failed_decode("source", channel_meta(receive->control), frame.meta_len, err);
	default:
		return error_set(err, EPROTO, "the source sent %u where COMMIT belongs",
				 frame.type);
	}
}

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

/* The user cancels, or a connection broke: then the source's own words tell more. */
static int interrupted(struct migration_receive *receive, struct error *err)
{
	struct pollfd p = { .fd = channel_fd(receive->control), .events = POLLIN };

	if (!receive_cancelled(receive) && poll(&p, 1, REASON_MS) > 0)
		return hear(receive, err);
	return error_set(err, ECANCELED, "cancelled");
}

/*
 * Waits for COMMIT. *query: a connection of a source that has lost this one, and asks:
 * if its COMMIT is not here by then, it is not acted upon any more.
 */
static int await_commit(struct migration_receive *receive, struct channel **query,
			struct error *err)
{
	int timeout_ms = 3 * receive->options.stall_ms, r = 0;
	uint64_t until = clock_ms() + (uint64_t)timeout_ms;
	uint16_t type;

	/* It is read where there is something, whatever became of other connections. */
	channel_set_cancel(receive->control, -1);
	while (!r) {
		struct pollfd p[3] = {
			{ .fd = channel_fd(receive->control), .events = POLLIN },
			{ .fd = receive->options.listener, .events = POLLIN },
			{ .fd = receive->stop, .events = POLLIN },
		};
		uint64_t now = clock_ms();
		int n = now < until ? poll(p, 3, (int)(until - now)) : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_set(err, ETIMEDOUT, "the source sent no COMMIT in %d ms",
					 timeout_ms);
		if (!p[0].revents && p[1].revents)
			*query = receive_take_question(receive, &type);
		/* What came on control before the question counts, however it ended. */
		if (p[0].revents || (*query && readable(p[0].fd)))
			r = hear(receive, err);
		else if (*query)
			r = error_set(err, ECONNRESET,
				      "the source lost its connection before COMMIT arrived");
		else if (p[2].revents)
			r = interrupted(receive, err);
	}
	return r > 0 ? 0 : r;
}

/* From here on it cannot be cancelled, if it has not been. */
static int pass_the_point(struct migration_receive *receive, struct error *err)
{
	bool cancelled;

	pthread_mutex_lock(&receive->lock);
	cancelled = receive->progress.cancelling;
	if (!cancelled)
		receive->progress.phase = TRANSFER_HANDOVER;
	pthread_mutex_unlock(&receive->lock);
	return cancelled ? error_set(err, ECANCELED, "cancelled") : 0;
}

static int start_vm(struct migration_receive *receive, struct receive_decision *decision,
		    struct error *err)
{
	const struct migration_target *target = &receive->target;
	bool paused = receive->options.paused || receive->hello.flags & HELLO_PAUSED;
	bool postcopy = receive->postcopy.arriving;
	uint64_t begun = clock_ns();
	int r = pass_the_point(receive, err);

	if (!r && !(receive->capabilities & CAPABILITY_UPDATE))
		r = target->ops->take_locks(target->opaque, err);
	if (!r && postcopy)
		r = receive_postcopy_commit(receive, err);
	if (r)
		return r;
	witness_say(&receive->witness, WITNESS_STARTING);
	if (receive->capabilities & CAPABILITY_UPDATE)
		r = target->ops->start(target->opaque, paused, err);
	else
		r = receive_devices_run(receive, err);
	if (!r && postcopy)
		r = receive_follow_resume(receive, !paused, err);
	else if (!r && !paused && !(receive->capabilities & CAPABILITY_UPDATE))
		r = target->ops->resume(target->opaque, err);
	decision->resume_us = (clock_ns() - begun) / 1000;
	return r;
}

static int send_ready(struct migration_receive *receive, uint64_t load_us, struct error *err)
{
	uint8_t meta[READY_SIZE];

	witness_accept(&receive->witness, receive->session);
	store_le64(meta, load_us);
	store_le32(meta + 8, receive->witness.fd >= 0 ? READY_WITNESS : 0);
	return channel_send(receive->control, &(struct frame){ .type = FRAME_READY }, meta,
			    sizeof(meta), NULL, 0, err);
}

/* Has the source acknowledged on this connection, or is it over? */
static bool acknowledged(struct channel *channel, int wait_ms, bool *closed)
{
	struct frame frame;
	bool done = false;
	int r;

	do {
		r = channel_receive(channel, &frame, wait_ms, NULL);
		done = !r && frame.type == FRAME_DONE;
	} while (!r && !done);
	*closed = r && r != -ETIMEDOUT;
	return done;
}

int receive_say_complete(struct migration_receive *receive, struct channel *channel)
{
	struct transfer_faults faults;
	uint8_t meta[COMPLETE_SIZE];

	arriving_figures(receive->postcopy.arriving, &faults);
	store_le64(meta, faults.count);
	store_le64(meta + 8, faults.mean_us);
	store_le64(meta + 16, faults.max_us);
	return channel_send(channel, &(struct frame){ .type = FRAME_COMPLETE }, meta, sizeof(meta),
			    NULL, 0, NULL);
}

bool receive_answer(struct migration_receive *receive, struct channel *question, uint16_t type,
		    const struct receive_decision *decision)
{
	bool closed, known = false;
	int r = type == FRAME_RECOVER ? receive_say_complete(receive, question)
				      : tell(question, decision);

	/* That it runs is not all there is to know while its memory is on its way. */
	if (!r)
		known = acknowledged(question, DONE_MS, &closed) &&
			(type == FRAME_RECOVER || !decision->runs || !receive->postcopy.arriving);
	channel_free(question);
	return known;
}

bool receive_linger(struct migration_receive *receive, const struct receive_decision *decision)
{
	uint64_t until = clock_ms() + (uint64_t)receive->options.linger_ms;
	bool open = receive->control;

	if (open)
		channel_set_timeout(receive->control, DONE_MS);
	for (;;) {
		struct pollfd p[4] = {
			{ .fd = open ? channel_fd(receive->control) : -1, .events = POLLIN },
			{ .fd = receive->options.listener, .events = POLLIN },
			{ .fd = receive->witness.fd, .events = POLLIN },
			{ .fd = receive->late, .events = POLLIN },
		};
		uint64_t now = clock_ms();
		int n = now < until ? poll(p, 4, (int)(until - now)) : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		if (p[0].revents) {
			bool closed;

			if (acknowledged(receive->control, 0, &closed))
				return true;
			open = !closed;
		}
		if (p[2].revents && witness_look(&receive->witness) == WITNESS_GONE)
			return true;
		if (p[1].revents) {
			uint16_t type;
			struct channel *question = receive_take_question(receive, &type);

			if (question && receive_answer(receive, question, type, decision))
				return true;
		}
		if (p[3].revents)
			return false;
	}
}

static void settle(struct migration_receive *receive, const struct receive_decision *decision,
		   struct channel *query)
{
	bool known = receive->source_failed, follows = decision->runs && receive->postcopy.arriving;

	/* First where the end of this process is seen, too. */
	witness_say(&receive->witness, decision->runs ? WITNESS_RUNNING : WITNESS_FAILED);
	tell(receive->control, decision);
	if (decision->runs && !follows && !(receive->capabilities & CAPABILITY_UPDATE))
		receive->target.ops->announce(receive->target.opaque);
	if (query)
		known = receive_answer(receive, query, FRAME_QUERY, decision);
	if (follows)
		return;
	/* What the witness has been told, the source will read: that it fails needs no more. */
	if (!known && !decision->runs && receive->witness.fd >= 0)
		known = true;
	if (!known)
		known = receive_linger(receive, decision);
	/* A source that is still asking must not see it end while the VM runs here. */
	if (!known && decision->runs)
		witness_keep(&receive->witness);
}

int receive_hand_over(struct migration_receive *receive, uint64_t load_us, struct error *err)
{
	struct receive_decision decision = { .why_not = ERROR_INIT };
	struct channel *query = NULL;
	int r = send_ready(receive, load_us, err);

	if (r)
		return r;
	r = await_commit(receive, &query, err);
	if (!r)
		r = start_vm(receive, &decision, err);
	decision.runs = !r;
	if (r) {
		/* First nothing is left here, then the source may go on. */
		receive_destroy_target(receive);
		decision.why_not = *err;
	}
	receive->decided = true;
	if (!r && receive->postcopy.arriving) {
		receive_set_phase(receive, TRANSFER_POSTCOPY);
		settle(receive, &decision, query);
		return receive_follow(receive, &decision, err);
	}
	receive_set_outcome(receive, r ? TRANSFER_STAYED : TRANSFER_MOVED);
	settle(receive, &decision, query);
	return r;
}
