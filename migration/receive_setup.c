/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's side up to CREATED. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "migration/receive_private.h"
#include "migration/update.h"

/* For a stranger to show that it is none. A source that shakes hands on all its connections at
 * once takes its time over each. */
#define STRANGER_MS 1000
#define STRANGER_TLS_MS 3000

int receive_next(struct migration_receive *receive, struct frame *frame, struct error *err)
{
	/* The source pings four times as often as it may be silent. */
	return control_receive(receive->control, "source", frame, 3 * receive->options.stall_ms,
			       err);
}

int receive_expect(struct migration_receive *receive, uint16_t type, struct frame *frame,
		   struct error *err)
{
	int r;

	do
		r = receive_next(receive, frame, err);
	while (!r && frame->type == FRAME_PING);
	return r ? r : control_check(frame, "source", type, err);
}

int receive_ping(struct migration_receive *receive, uint64_t *pinged_ms, struct error *err)
{
	return control_ping(receive->control, receive->options.stall_ms, pinged_ms, err);
}

/* Waits until the listener has something. Meanwhile the source, where it is known already,
 * has nothing to say but that it failed. */
static int await_connection(struct migration_receive *receive, int timeout_ms, struct error *err)
{
	struct pollfd p[3] = {
		{ .fd = receive->options.listener, .events = POLLIN },
		{ .fd = receive->stop, .events = POLLIN },
		{ .fd = receive->control ? channel_fd(receive->control) : -1, .events = POLLIN },
	};
	struct frame frame;
	int n;

	do
		n = poll(p, 3, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n > 0 && p[1].revents)
		return error_set(err, ECANCELED, "cancelled");
	if (n > 0 && p[2].revents)
		return receive_expect(receive, FRAME_TYPES, &frame,
				      err); /* there is no such type */
	if (n < 0)
		return error_set_errno(err, errno, "wait for a connection of the source");
	if (!n)
		return error_set(err, ETIMEDOUT, "the source did not connect in %d ms", timeout_ms);
	return 0;
}

struct channel *receive_accept(struct migration_receive *receive, int timeout_ms, struct error *err)
{
	struct channel_options options = {
		.kind = CHANNEL_PLAIN,
		.timeout_ms = receive->options.stall_ms,
		.cancel_fd = receive->stop,
		.tls = receive->options.tls,
		.policy = receive->options.policy,
	};
	int fd = -1;

	while (fd < 0) {
		if (await_connection(receive, timeout_ms, err))
			return NULL;
		fd = accept4(receive->options.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		/* It may be gone again. */
		if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
			error_set_errno(err, errno, "accept a connection of the source");
			return NULL;
		}
	}
	return channel_new(fd, &options, err);
}

/* The first that says anything is the source; a connection that only opens and closes
 * (somebody looks whether we listen) is not. */
static int meet(struct migration_receive *receive, struct frame *frame, struct error *err)
{
	for (;;) {
		struct channel *channel = receive_accept(receive, receive->options.wait_ms, err);
		int r;

		if (!channel)
			return err->code;
		r = channel_receive(channel, frame, receive->options.stall_ms, err);
		if ((r == -ENODATA || r == -ECONNRESET) && !channel_received(channel)) {
			channel_free(channel);
			error_clear(err);
			continue;
		}
		pthread_mutex_lock(&receive->lock);
		receive->control = channel;
		pthread_mutex_unlock(&receive->lock);
		if (!r && frame->type != FRAME_HELLO)
			r = error_set(err, EPROTO, "the peer does not begin with HELLO");
		return r;
	}
}

static int check_hello(struct migration_receive *receive, uint64_t supported, struct error *err)
{
	const struct hello *hello = &receive->hello;
	bool local = hello->required & CAPABILITY_LOCAL;

	if (hello->version_min > PROTOCOL_VERSION_MAX ||
	    hello->version_max < PROTOCOL_VERSION_MIN || hello->version_min > hello->version_max)
		return error_set(
			err, EPROTONOSUPPORT,
			"the source speaks versions %u to %u of the migration protocol, this "
			"side %d to %d",
			hello->version_min, hello->version_max, PROTOCOL_VERSION_MIN,
			PROTOCOL_VERSION_MAX);
	if (hello->required & ~supported)
		return error_set(
			err, EPROTONOSUPPORT,
			"the source needs capabilities 0x%llx, which this side does not have",
			(unsigned long long)(hello->required & ~supported));
	if (hello->required & ~hello->offered || (hello->required & CAPABILITY_UPDATE && !local) ||
	    ((local || hello->required & CAPABILITY_DEVICES) &&
	     hello->required & CAPABILITY_POSTCOPY))
		return error_set(err, EPROTO, "HELLO of the source contradicts itself");
	if (receive->options.update && !(hello->required & CAPABILITY_UPDATE))
		return error_set(err, EPROTO,
				 "this process takes a VM by live update only, and the source "
				 "migrates");
	if (local ? hello->connections != 0
		  : !hello->connections || hello->connections > receive->options.max_connections)
		return error_set(err, EPROTO,
				 "the source wants %u page connections, 1 to %u are possible",
				 hello->connections, receive->options.max_connections);
	if (hello->devices > MIGRATION_DEVICES_MAX ||
	    !hello->devices != !(hello->required & CAPABILITY_DEVICES))
		return error_set(err, EPROTO,
				 "the source wants to send %u devices, %d are possible",
				 hello->devices, MIGRATION_DEVICES_MAX);
	return 0;
}

static int answer_hello(struct migration_receive *receive, const struct frame *frame,
			struct error *err)
{
	bool local = receive->options.local && receive->target.ops->adopt_memory;
	uint64_t supported = CAPABILITY_CHECKSUM | CAPABILITY_WITNESS |
			     (local ? CAPABILITY_LOCAL : 0) |
			     (receive->target.ops->devices ? CAPABILITY_DEVICES : 0) |
			     (receive->options.update ? CAPABILITY_UPDATE : 0);
	bool postcopy = receive->target.ops->expect_postcopy;
	struct hello_reply reply = { .version = PROTOCOL_VERSION_MAX };
	uint8_t meta[HELLO_REPLY_SIZE];
	int r = hello_decode(&receive->hello, channel_meta(receive->control), frame->meta_len, err);

	if (!r)
		r = check_hello(receive, supported | (postcopy ? CAPABILITY_POSTCOPY : 0), err);
	if (!(receive->hello.required & (CAPABILITY_LOCAL | CAPABILITY_POSTCOPY)))
		supported |= CAPABILITY_ROUNDS;
	/* Whether the host can is asked only where the source wants it. */
	if (!r && postcopy && receive->hello.required & CAPABILITY_POSTCOPY) {
		r = receive_postcopy_open(receive, err);
		supported |= CAPABILITY_POSTCOPY;
	}
	if (r)
		return r;
	reply.version = MIN(receive->hello.version_max, reply.version);
	reply.capabilities = receive->hello.offered & supported;
	if (getrandom(reply.session, SESSION_SIZE, 0) != SESSION_SIZE ||
	    getrandom(reply.witness, SESSION_SIZE, 0) != SESSION_SIZE)
		return error_set_errno(err, errno, "choose a session");
	if (reply.capabilities & CAPABILITY_WITNESS &&
	    witness_listen(&receive->witness, reply.witness, receive->options.policy))
		reply.capabilities &= ~(uint64_t)CAPABILITY_WITNESS;
	memcpy(receive->session, reply.session, SESSION_SIZE);
	receive->capabilities = reply.capabilities;
	hello_reply_encode(&reply, meta);
	return channel_send(receive->control, &(struct frame){ .type = FRAME_HELLO_REPLY }, meta,
			    sizeof(meta), NULL, 0, err);
}

static int compare_cpu(struct migration_receive *receive, struct error *err)
{
	_cleanup_free_ void *blob = NULL;
	struct state_node root, cpu;
	struct frame frame;
	int r = receive_expect(receive, FRAME_CPU, &frame, err);

	if (!r)
		r = channel_receive_blob(receive->control, &frame, &blob, err);
	if (!r)
		r = state_tree_open(blob, frame.length, &root, err);
	if (!r)
		r = state_child(&root, "cpu", &cpu, err);
	return r ? r : receive->target.ops->check_cpu(receive->target.opaque, &cpu, err);
}

/* RAM from a peer: it must not shrink under us, that would be SIGBUS. */
static int check_memfd(int fd, const struct memory_entry *entry, struct error *err)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (fstat(fd, &st) || seals < 0 || !(seals & F_SEAL_SHRINK) || st.st_size < 0 ||
	    (uint64_t)st.st_size < entry->offset + entry->size)
		return error_set(
			err, EBADMSG,
			"MEMORY of the source: the descriptor for 0x%llx is no memfd that is "
			"sealed and large enough",
			(unsigned long long)entry->gpa);
	return 0;
}

static int adopt(struct migration_receive *receive, const struct memory_entry *entries,
		 unsigned int count, struct error *err)
{
	struct guest_memory_region regions[MEMORY_ENTRIES_MAX];
	int fds[MEMORY_ENTRIES_MAX];
	unsigned int n = channel_take_fds(receive->control, fds, MEMORY_ENTRIES_MAX);
	int r = 0;

	if (n != count)
		r = error_set(err, EBADMSG, "MEMORY of the source: %u descriptors for %u regions",
			      n, count);
	for (unsigned int i = 0; !r && i < count; i++) {
		regions[i] = (struct guest_memory_region){
			.gpa = entries[i].gpa,
			.size = entries[i].size,
			.memfd = fds[i],
			.offset = entries[i].offset,
			.page_size = entries[i].page_size,
		};
		r = check_memfd(fds[i], &entries[i], err);
	}
	if (!r)
		r = receive->target.ops->adopt_memory(receive->target.opaque, regions, count, err);
	receive->created = !r; /* in part */
	for (unsigned int i = 0; r && i < n; i++)
		close(fds[i]);
	return r;
}

static int compare_memory(struct migration_receive *receive, const struct memory_entry *entries,
			  unsigned int count, struct error *err)
{
	unsigned int own = guest_memory_region_count(receive->memory);

	for (unsigned int i = 0; i < MAX(own, count); i++) {
		const struct guest_memory_region *region =
			i < own ? guest_memory_region(receive->memory, i) : NULL;

		if (region && i < count && region->gpa == entries[i].gpa &&
		    region->size == entries[i].size)
			continue;
		return error_set(err, EINVAL,
				 "RAM differs: region %u is %llu bytes at 0x%llx here and %llu at "
				 "0x%llx on the source",
				 i, (unsigned long long)(region ? region->size : 0),
				 (unsigned long long)(region ? region->gpa : 0),
				 (unsigned long long)(i < count ? entries[i].size : 0),
				 (unsigned long long)(i < count ? entries[i].gpa : 0));
	}
	return 0;
}

static int make_machine(struct migration_receive *receive, struct error *err)
{
	struct memory_entry entries[MEMORY_ENTRIES_MAX];
	unsigned int count = MEMORY_ENTRIES_MAX;
	_cleanup_free_ void *config = NULL;
	struct frame frame;
	int r = receive_expect(receive, FRAME_MEMORY, &frame, err);

	if (!r)
		r = memory_entries_decode(entries, &count, channel_meta(receive->control),
					  frame.meta_len, err);
	if (!r && receive->capabilities & CAPABILITY_LOCAL)
		r = adopt(receive, entries, count, err);
	if (!r)
		r = receive_update_kept(receive, false, err);
	if (!r)
		r = receive_expect(receive, FRAME_CONFIG, &frame, err);
	if (!r)
		r = channel_receive_blob(receive->control, &frame, &config, err);
	if (r)
		return r;
	if (memchr(config, 0, frame.length))
		return error_set(err, EBADMSG, "CONFIG of the source is no text");
	r = receive->target.ops->create(receive->target.opaque, config, err);
	if (r)
		return r;
	receive->created = true;
	receive->memory = receive->target.ops->memory(receive->target.opaque);
	pthread_mutex_lock(&receive->lock);
	receive->progress.ram_bytes = guest_memory_size(receive->memory);
	pthread_mutex_unlock(&receive->lock);
	r = compare_memory(receive, entries, count, err);
	if (!r && receive->postcopy.arriving)
		r = arriving_set_memory(receive->postcopy.arriving, receive->memory, err);
	return r ? r : receive_devices_find(receive, err);
}

/* What a new connection says it is, where it knows the session; else 0: strangers are no
 * reason to fail. */
static uint16_t introduce(struct migration_receive *receive, struct channel *channel,
			  struct device_head *head, uint64_t *role)
{
	int timeout_ms = receive->options.tls ? STRANGER_TLS_MS : STRANGER_MS;
	struct frame frame;

	channel_set_timeout(channel, timeout_ms);
	if (channel_receive(channel, &frame, timeout_ms, NULL) || frame.meta_len < SESSION_SIZE ||
	    memcmp(channel_meta(channel), receive->session, SESSION_SIZE) != 0)
		return 0;
	if (frame.type == FRAME_DEVICE &&
	    device_head_decode(head, channel_meta(channel), frame.meta_len, NULL))
		return 0;
	*role = frame.offset;
	return frame.type;
}

static int attach_one(struct migration_receive *receive, struct channel *channel, struct error *err)
{
	struct receive_postcopy *postcopy = &receive->postcopy;
	struct device_head head;
	uint64_t role;
	uint16_t type = introduce(receive, channel, &head, &role);

	if (type == FRAME_DEVICE)
		return receive_devices_attach(receive, channel, &head, err);
	if (type == FRAME_ATTACH && role == ATTACH_PAGES &&
	    receive->count < receive->hello.connections)
		return receive_pages_attach(receive, channel, receive->count + 1, err);
	if (type == FRAME_ATTACH && role == ATTACH_REQUESTS && postcopy->arriving &&
	    !postcopy->requests.channel)
		return receive_postcopy_attach(receive, channel, err);
	channel_free(channel);
	return type != FRAME_ATTACH
		       ? 0
		       : error_set(err, EPROTO,
				   "the source attached a connection too many, or of role %llu",
				   (unsigned long long)role);
}

int receive_attach(struct migration_receive *receive, struct error *err)
{
	unsigned int pages = receive->hello.connections, devices = receive->devices.count;
	unsigned int wanted = pages + devices + (receive->postcopy.arriving ? 1 : 0), count;
	struct page_receiver *receivers = calloc(pages ? pages : 1, sizeof(*receivers));

	if (!receivers)
		return error_set_errno(err, ENOMEM, "receive pages");
	pthread_mutex_lock(&receive->lock);
	receive->receivers = receivers;
	pthread_mutex_unlock(&receive->lock);
	while ((count = receive->count + receive->devices.attached +
			(receive->postcopy.requests.channel ? 1 : 0)) < wanted) {
		struct channel *channel = receive_accept(receive, receive->options.stall_ms, err);
		int r;

		if (!channel)
			return error_prefix(err, "connection %u of %u for pages and devices",
					    count + 1, wanted);
		r = attach_one(receive, channel, err);
		if (r)
			return r;
	}
	return 0;
}

int receive_set_up(struct migration_receive *receive, struct error *err)
{
	uint8_t unit[CREATED_SIZE];
	struct frame frame = { 0 };
	int r = meet(receive, &frame, err);

	if (r)
		return r;
	receive_set_phase(receive, TRANSFER_SETUP);
	r = answer_hello(receive, &frame, err);
	if (!r)
		r = receive_update_asked(receive, err);
	if (!r)
		r = compare_cpu(receive, err);
	if (!r)
		r = make_machine(receive, err);
	if (!r)
		r = receive_attach(receive, err);
	if (r)
		return r;
	if (receive->postcopy.arriving)
		store_le32(unit, arriving_unit(receive->postcopy.arriving));
	return channel_send(receive->control, &(struct frame){ .type = FRAME_CREATED }, unit,
			    receive->postcopy.arriving ? sizeof(unit) : 0, NULL, 0, err);
}
