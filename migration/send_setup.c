/* SPDX-License-Identifier: Apache-2.0 */
/* The source's side up to CREATED: nothing has been done to the VM yet. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "migration/send_private.h"
#include "migration/update.h"

/* Making a machine takes longer than answering. */
#define CREATE_STALLS 6
/* For the destination to say why it hung up: it may have waited for our reason (its own
 * REASON_MS), and gives up RAM and locks first. */
#define REASON_MS 2000

int send_next(struct migration_send *send, struct frame *frame, int idle_ms, struct error *err)
{
	return control_receive(send->control, "destination", frame, idle_ms, err);
}

int send_expect(struct migration_send *send, uint16_t type, struct frame *frame, int idle_ms,
		struct error *err)
{
	int r = send_next(send, frame, idle_ms, err);

	return r ? r : control_check(frame, "destination", type, err);
}

void send_find_reason(struct migration_send *send, struct error *err)
{
	struct error said = ERROR_INIT;
	struct frame frame;

	if (!send->control || (err->code != -ECONNRESET && err->code != -EPIPE))
		return;
	while (!channel_receive(send->control, &frame, REASON_MS, &said))
		if (frame.type == FRAME_FAILED) {
			failed_decode("destination", channel_meta(send->control), frame.meta_len,
				      err);
			return;
		}
}

static bool is_unix(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_UNIX;
}

static int dial(struct migration_send *send, struct error *err)
{
	const struct send_options *options = &send->options;
	struct channel_options channel = {
		.kind = CHANNEL_PLAIN,
		.timeout_ms = options->stall_ms,
		.cancel_fd = send->cancel,
		.tls = options->tls,
		.policy = options->policy,
	};
	struct channel *control;
	int fd = options->dialer.connect(options->dialer.opaque, options->stall_ms, send->cancel,
					 err);

	if (fd < 0)
		return fd;
	if (options->local && !is_unix(fd)) {
		close(fd);
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "local migration hands RAM over a unix socket: the "
				      "destination's URL has to begin with \"unix:\"");
	}
	control = channel_new(fd, &channel, err);
	pthread_mutex_lock(&send->lock);
	send->control = control;
	pthread_mutex_unlock(&send->lock);
	return control ? 0 : -EIO;
}

static int say_hello(struct migration_send *send, struct error *err)
{
	const struct send_options *options = &send->options;
	uint64_t required = (options->checksum ? CAPABILITY_CHECKSUM : 0) |
			    (options->local ? CAPABILITY_LOCAL : 0) |
			    (send->devices.count ? CAPABILITY_DEVICES : 0) |
			    (options->postcopy ? CAPABILITY_POSTCOPY : 0) |
			    (options->update ? CAPABILITY_UPDATE : 0);
	struct hello hello = {
		.version_min = PROTOCOL_VERSION_MIN,
		.version_max = PROTOCOL_VERSION_MAX,
		.connections = options->local ? 0 : options->connections,
		.offered = required | (options->no_witness ? 0 : CAPABILITY_WITNESS) |
			   (options->local || options->postcopy ? 0 : CAPABILITY_ROUNDS),
		.required = required,
		.ram_bytes = guest_memory_size(send->memory),
		.flags = options->destination_paused || !send->was_running ? HELLO_PAUSED : 0,
		.devices = send->devices.count,
	};
	uint8_t meta[HELLO_SIZE];
	struct hello_reply reply;
	struct frame frame;
	int r;

	hello_encode(&hello, meta);
	r = channel_send(send->control, &(struct frame){ .type = FRAME_HELLO }, meta, sizeof(meta),
			 NULL, 0, err);
	if (!r)
		r = send_expect(send, FRAME_HELLO_REPLY, &frame, options->stall_ms, err);
	if (!r)
		r = hello_reply_decode(&reply, channel_meta(send->control), frame.meta_len, err);
	if (r)
		return r;
	if (reply.version < PROTOCOL_VERSION_MIN || reply.version > PROTOCOL_VERSION_MAX)
		return error_set(
			err, EPROTONOSUPPORT,
			"the destination chose version %u of the migration protocol, which "
			"this side did not offer",
			reply.version);
	if (reply.capabilities & ~hello.offered || required & ~reply.capabilities)
		return error_set(
			err, EPROTO, "the destination agreed to capabilities 0x%llx of 0x%llx",
			(unsigned long long)reply.capabilities, (unsigned long long)hello.offered);
	send->capabilities = reply.capabilities;
	memcpy(send->session, reply.session, SESSION_SIZE);
	/* On another host there is none: then what is said has to do. */
	if (reply.capabilities & CAPABILITY_WITNESS)
		witness_connect(&send->witness, reply.witness, reply.session, options->policy);
	return 0;
}

static int send_blob(struct migration_send *send, uint16_t type, const void *blob, size_t len,
		     struct error *err)
{
	struct iovec iov = { .iov_base = (void *)blob, .iov_len = len };

	return channel_send(send->control, &(struct frame){ .type = type }, NULL, 0, &iov, 1, err);
}

static int send_cpu(struct migration_send *send, struct error *err)
{
	_cleanup_free_ void *blob = NULL;
	struct state_writer *writer = state_writer_new(err);
	size_t len;
	int r;

	if (!writer)
		return -ENOMEM;
	r = send->vm.ops->save_cpu(send->vm.opaque, writer, err);
	if (!r)
		r = state_writer_finish(writer, &blob, &len, err);
	state_writer_free(writer);
	return r ? r : send_blob(send, FRAME_CPU, blob, len, err);
}

static int send_memory(struct migration_send *send, struct error *err)
{
	uint8_t meta[MEMORY_ENTRIES_MAX * MEMORY_ENTRY_SIZE];
	unsigned int count = guest_memory_region_count(send->memory);
	int fds[MEMORY_ENTRIES_MAX];
	struct frame frame = { .type = FRAME_MEMORY };

	if (count > MEMORY_ENTRIES_MAX)
		return error_set(err, E2BIG, "migrate RAM in %u regions: at most %u are possible",
				 count, MEMORY_ENTRIES_MAX);
	for (unsigned int i = 0; i < count; i++) {
		const struct guest_memory_region *region = guest_memory_region(send->memory, i);
		struct memory_entry entry = {
			.gpa = region->gpa,
			.size = region->size,
			.offset = region->offset,
			.page_size = region->page_size,
		};

		memory_entry_encode(&entry, meta + i * MEMORY_ENTRY_SIZE);
		fds[i] = region->memfd;
	}
	if (send->capabilities & CAPABILITY_LOCAL)
		return channel_send_fds(send->control, &frame, meta, count * MEMORY_ENTRY_SIZE, fds,
					count, err);
	return channel_send(send->control, &frame, meta, count * MEMORY_ENTRY_SIZE, NULL, 0, err);
}

static int send_config(struct migration_send *send, struct error *err)
{
	_cleanup_free_ char *config = send->vm.ops->config(send->vm.opaque, err);

	if (!config)
		return err && err->code ? err->code : -ENOMEM;
	return send_blob(send, FRAME_CONFIG, config, strlen(config), err);
}

/* Postcopy: in what the destination can take pages. */
static int read_unit(struct migration_send *send, const struct frame *frame, struct error *err)
{
	uint32_t unit =
		frame->meta_len >= CREATED_SIZE ? load_le32(channel_meta(send->control)) : 0;

	if (!is_power_of_2(unit) || unit < GUEST_PAGE_SIZE || unit > POSTCOPY_UNIT_MAX)
		return error_set(err, EBADMSG,
				 "CREATED of the destination: pages of %u bytes make no sense",
				 unit);
	send->unit = unit / GUEST_PAGE_SIZE;
	return 0;
}

int send_set_up(struct migration_send *send, struct error *err)
{
	struct frame frame;
	int r = dial(send, err);

	if (r)
		return r;
	send_set_phase(send, TRANSFER_SETUP);
	r = say_hello(send, err);
	if (!r)
		r = send_update_ask(send, err);
	if (!r)
		r = send_cpu(send, err);
	if (!r)
		r = send_memory(send, err);
	if (!r)
		r = send_update_kept(send, false, err);
	if (!r)
		r = send_config(send, err);
	if (!r && !(send->capabilities & CAPABILITY_LOCAL))
		r = send_pages_start(send, err);
	if (!r && send->options.postcopy)
		r = send_postcopy_connect(send, err);
	if (!r)
		r = send_devices_start(send, err);
	if (!r)
		r = send_expect(send, FRAME_CREATED, &frame, CREATE_STALLS * send->options.stall_ms,
				err);
	return r || !send->options.postcopy ? r : read_unit(send, &frame, err);
}
