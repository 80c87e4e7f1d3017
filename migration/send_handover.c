/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From READY on. The rules are in protocol.h, "Exactly one side runs the VM": once COMMIT
 * has been sent, nothing but evidence decides.
 */
#include <errno.h>
#include <poll.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "migration/send_private.h"

#define ATTEMPT_MS 2000 /* of an inquiry: to connect, and to be answered */
#define PAUSE_MS 100	/* between two */
#define DRAIN_MS 200	/* for what a process that has ended had written before */

enum verdict {
	VERDICT_NONE,	 /* nothing can be said */
	VERDICT_RUNNING, /* over there */
	VERDICT_NOT,	 /* it did not start, and will not */
};

/* What one frame says; VERDICT_NONE with err: nothing more comes from here. */
static enum verdict hear(struct migration_send *send, struct channel *channel, int idle_ms,
			 struct error *err)
{
	struct frame frame;

	if (channel_receive(channel, &frame, idle_ms, err))
		return VERDICT_NONE;
	if (frame.type == FRAME_FAILED) {
		failed_decode("destination", channel_meta(channel), frame.meta_len, err);
		return VERDICT_NOT;
	}
	if (frame.type != FRAME_RUNNING) {
		error_set(err, EPROTO, "the destination sent a frame that does not belong there");
		return VERDICT_NONE;
	}
	if (frame.meta_len >= 8) {
		pthread_mutex_lock(&send->lock);
		send->progress.resume_us = load_le64(channel_meta(channel));
		pthread_mutex_unlock(&send->lock);
	}
	return VERDICT_RUNNING;
}

/* Evidence by the witness. The channel has the details, if there are any. */
static enum verdict weigh(struct migration_send *send, struct channel *channel, struct error *err)
{
	enum witness_word word = send->witness.heard;
	enum verdict verdict = VERDICT_NONE;

	if (channel)
		verdict = hear(send, channel, DRAIN_MS, err);
	if (verdict != VERDICT_NONE)
		return verdict;
	if (word == WITNESS_RUNNING)
		return VERDICT_RUNNING;
	if (word == WITNESS_STARTING) {
		error_set(err, EOWNERDEAD,
			  "the destination's process ended when it was about to run the VM");
		return VERDICT_NONE;
	}
	error_set(err, ECONNRESET, "the destination %s before it ran the VM",
		  word == WITNESS_FAILED ? "gave up" : "ended");
	return VERDICT_NOT;
}

/* What the witness has to say, if that is a verdict or the end. */
static bool look(struct migration_send *send, bool *alive)
{
	*alive = witness_look(&send->witness) != WITNESS_GONE;
	return !*alive || send->witness.heard == WITNESS_RUNNING ||
	       send->witness.heard == WITNESS_FAILED;
}

/* Waits for a word on channel (NULL: none), or for the end of the other process; *alive is
 * cleared where it has ended, *open where the channel is of no more use. */
static enum verdict await(struct migration_send *send, struct channel *channel, int timeout_ms,
			  bool *open, bool *alive, struct error *err)
{
	uint64_t until = clock_ms() + (uint64_t)timeout_ms;

	for (;;) {
		uint64_t now = clock_ms();
		struct pollfd p[3] = {
			{ .fd = channel ? channel_fd(channel) : -1, .events = POLLIN },
			{ .fd = send->witness.fd, .events = POLLIN },
			{ .fd = send->inquiring ? send->late : -1, .events = POLLIN },
		};
		int n = now < until ? poll(p, 3, (int)(until - now)) : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			error_set(err, ETIMEDOUT, "the destination did not answer for %d ms",
				  timeout_ms);
			return VERDICT_NONE;
		}
		if (p[0].revents) {
			enum verdict verdict = hear(send, channel, 0, err);

			*open = verdict != VERDICT_NONE;
			return verdict;
		}
		if (p[1].revents && look(send, alive))
			return weigh(send, channel, err);
		if (p[2].revents) {
			error_set(err, ECANCELED, "it was not asked any further, on request");
			return VERDICT_NONE;
		}
	}
}

/* One new connection, one question. */
static enum verdict ask(struct migration_send *send, int timeout_ms, bool *alive,
			struct channel **answered, struct error *err)
{
	const struct send_options *options = &send->options;
	struct channel_options how = {
		.kind = CHANNEL_PLAIN,
		.timeout_ms = timeout_ms,
		.cancel_fd = -1,
		.tls = options->tls,
		.policy = options->policy,
	};
	enum verdict verdict = VERDICT_NONE;
	struct channel *channel;
	bool open = true;
	int fd = options->dialer.connect(options->dialer.opaque, timeout_ms, send->late, err);

	if (fd < 0)
		return VERDICT_NONE;
	channel = channel_new(fd, &how, err);
	if (!channel)
		return VERDICT_NONE;
	if (!channel_send(channel, &(struct frame){ .type = FRAME_QUERY }, send->session,
			  SESSION_SIZE, NULL, 0, err))
		verdict = await(send, channel, timeout_ms, &open, alive, err);
	if (verdict != VERDICT_NONE)
		*answered = channel;
	else
		channel_free(channel);
	return verdict;
}

static bool given_up(const struct migration_send *send)
{
	struct pollfd p = { .fd = send->late, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

/* The control connection is lost, or silent: asks anew until something is known. */
static enum verdict inquire(struct migration_send *send, bool open, struct channel **answered,
			    struct error *err)
{
	uint64_t until = clock_ms() + (uint64_t)send->options.inquiry_ms;
	enum verdict verdict = VERDICT_NONE;
	bool alive = true;

	pthread_mutex_lock(&send->lock);
	send->inquiring = true;
	pthread_mutex_unlock(&send->lock);
	while (verdict == VERDICT_NONE && alive && !given_up(send)) {
		uint64_t now = clock_ms();

		if (now >= until)
			break;
		verdict = ask(send, (int)MIN(until - now, (uint64_t)ATTEMPT_MS), &alive, answered,
			      err);
		/* Meanwhile the old connection may have come back, or the process ended. */
		if (verdict == VERDICT_NONE && alive)
			verdict = await(send, open ? send->control : NULL, PAUSE_MS, &open, &alive,
					err);
	}
	return verdict;
}

static enum verdict find_out(struct migration_send *send, struct channel **answered,
			     struct error *err)
{
	bool open = true, alive = true;
	enum verdict verdict =
		await(send, send->control, send->options.stall_ms, &open, &alive, err);

	if (verdict != VERDICT_NONE || !alive)
		return verdict;
	return inquire(send, open, answered, err);
}

static void say_done(struct channel *channel)
{
	channel_set_timeout(channel, PAUSE_MS);
	channel_send(channel, &(struct frame){ .type = FRAME_DONE }, NULL, 0, NULL, 0, NULL);
}

/* From here on it cannot be cancelled, if it has not been. */
static int pass_the_point(struct migration_send *send, struct error *err)
{
	bool cancelled;

	pthread_mutex_lock(&send->lock);
	cancelled = send->progress.cancelling;
	if (!cancelled)
		send->progress.phase = TRANSFER_HANDOVER;
	pthread_mutex_unlock(&send->lock);
	return cancelled ? error_set(err, ECANCELED, "cancelled") : 0;
}

int send_hand_over(struct migration_send *send, struct error *err)
{
	struct channel *answered = NULL;
	enum verdict verdict;
	int r;

	/* In a live update both sides have the descriptions that are locked. */
	send->unlocked = !send->options.update; /* also where only some could be given up */
	r = send->unlocked ? send->vm.ops->release_locks(send->vm.opaque, err) : 0;
	if (!r)
		r = pass_the_point(send, err);
	if (r)
		return r;
	channel_set_cancel(send->control, -1);
	/* Whether it arrives is not known either way. */
	channel_send(send->control, &(struct frame){ .type = FRAME_COMMIT }, NULL, 0, NULL, 0, err);
	verdict = find_out(send, &answered, err);
	/* Postcopy: it is not done yet with control. */
	send->connected = verdict == VERDICT_RUNNING && !answered;
	if (answered || verdict == VERDICT_NOT ||
	    (verdict == VERDICT_RUNNING && !send->options.postcopy))
		say_done(answered ? answered : send->control);
	channel_free(answered);
	if (verdict == VERDICT_NOT)
		return err->code;
	if (verdict == VERDICT_RUNNING) {
		error_clear(err);
		return 0;
	}
	send->in_doubt = true;
	error_prefix(
		err,
		"the destination was told to run the VM, and whether it does is not known; the "
		"VM is held here, paused: resume it if the destination is known to be gone");
	return err->code;
}
