/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that says what a test wants, frame by frame: as source it knows how a good
 * migration goes, and can spoil any byte of it.
 */
#ifndef TESTS_UNIT_MIGRATION_SCRIPTED_PEER_H
#define TESTS_UNIT_MIGRATION_SCRIPTED_PEER_H

#include "base/fd.h"
#include "migration/crc32c.h"
#include "tests/unit/migration/migration_fixture.h"

#define SCRIPT_FRAME_MAX (64 * 1024)

struct script_frame {
	bool pages;    /* on the page connection */
	bool requests; /* on that of requests (postcopy) */
	struct frame frame;
	uint8_t bytes[SCRIPT_FRAME_MAX];
	size_t len;
	uint16_t reply; /* awaited afterwards on control; 0: none */
};

/* Builds the bytes; flags, offset of `frame` count. */
static inline void script_build(struct script_frame *f, const void *meta, size_t meta_len,
				const void *payload, size_t len)
{
	f->frame.meta_len = (uint32_t)meta_len;
	f->frame.meta_crc = crc32c(0, meta, meta_len);
	f->frame.length = len;
	if (f->frame.flags & FRAME_PAYLOAD_CRC)
		f->frame.payload_crc = crc32c(0, payload, len);
	frame_encode(&f->frame, f->bytes);
	if (meta_len)
		memcpy(f->bytes + FRAME_HEADER_SIZE, meta, meta_len);
	if (len)
		memcpy(f->bytes + FRAME_HEADER_SIZE + meta_len, payload, len);
	f->len = FRAME_HEADER_SIZE + meta_len + len;
}

enum script_step {
	SCRIPT_HELLO,
	SCRIPT_CPU,
	SCRIPT_MEMORY,
	SCRIPT_CONFIG,
	SCRIPT_ATTACH,
	SCRIPT_PAGES,
	SCRIPT_ROUND,
	SCRIPT_ROUND_SENT,
	SCRIPT_ROUND_END,
	SCRIPT_STATE,
	SCRIPT_COMMIT,
	SCRIPT_DONE,
	SCRIPT_STEPS,
};

static inline void script_tree(struct script_frame *f, const char *node, const char *kind,
			       const char *property, uint32_t value)
{
	struct state_writer *writer = state_writer_new(NULL);
	void *blob;
	size_t len;

	state_begin(writer, node, kind, 1);
	state_put_u32(writer, property, value);
	state_end(writer);
	ck_assert_int_eq(state_writer_finish(writer, &blob, &len, NULL), 0);
	state_writer_free(writer);
	script_build(f, NULL, 0, blob, len);
	free(blob);
}

/* A migration of FAKE_LOW_END + 1 page, of which one page has data; with checksums. */
static inline void script_init(struct script_frame frames[SCRIPT_STEPS])
{
	static const uint16_t types[] = {
		FRAME_HELLO,	 FRAME_CPU,   FRAME_MEMORY,    FRAME_CONFIG,
		FRAME_ATTACH,	 FRAME_PAGES, FRAME_ROUND_END, FRAME_ROUND_SENT,
		FRAME_ROUND_END, FRAME_STATE, FRAME_COMMIT,    FRAME_DONE,
	};
	struct hello hello = {
		.version_min = 1,
		.version_max = 1,
		.connections = 1,
		.offered = CAPABILITY_CHECKSUM | CAPABILITY_ROUNDS,
		.required = CAPABILITY_CHECKSUM,
		.ram_bytes = FAKE_LOW_END + GUEST_PAGE_SIZE,
	};
	struct memory_entry entries[2] = { { 0, FAKE_LOW_END, 0, 4096 },
					   { 4 * GIB, GUEST_PAGE_SIZE, FAKE_LOW_END, 4096 } };
	struct page_run runs[2] = { { 0x3000, GUEST_PAGE_SIZE, false },
				    { 4 * GIB, GUEST_PAGE_SIZE, true } };
	uint8_t meta[256] = { 0 }, page[GUEST_PAGE_SIZE];

	memset(page, 0xab, sizeof(page));
	for (int i = 0; i < SCRIPT_STEPS; i++)
		frames[i].frame = (struct frame){ .type = types[i], .flags = FRAME_PAYLOAD_CRC };
	frames[SCRIPT_HELLO].frame.flags = 0;
	frames[SCRIPT_ROUND].frame.flags = frames[SCRIPT_ROUND_SENT].frame.flags = 0;
	frames[SCRIPT_ROUND].frame.offset = frames[SCRIPT_ROUND_SENT].frame.offset = 1;
	frames[SCRIPT_ROUND_SENT].reply = FRAME_ROUND_LOADED;
	frames[SCRIPT_ROUND_END].frame.flags = FRAME_LAST;
	frames[SCRIPT_ROUND_END].frame.offset = 2;
	frames[SCRIPT_HELLO].reply = FRAME_HELLO_REPLY;
	frames[SCRIPT_STATE].reply = FRAME_READY;
	frames[SCRIPT_COMMIT].reply = FRAME_RUNNING;
	for (int i = SCRIPT_ATTACH; i <= SCRIPT_ROUND_END; i++)
		frames[i].pages = i != SCRIPT_ROUND_SENT;
	frames[SCRIPT_ATTACH].reply = FRAME_CREATED;

	hello_encode(&hello, meta);
	script_build(&frames[SCRIPT_HELLO], meta, HELLO_SIZE, NULL, 0);
	script_tree(&frames[SCRIPT_CPU], "cpu", "fake-cpu", "features", 7);
	memory_entry_encode(&entries[0], meta);
	memory_entry_encode(&entries[1], meta + MEMORY_ENTRY_SIZE);
	script_build(&frames[SCRIPT_MEMORY], meta, 2 * MEMORY_ENTRY_SIZE, NULL, 0);
	script_build(&frames[SCRIPT_CONFIG], NULL, 0, FAKE_CONFIG, strlen(FAKE_CONFIG));
	page_run_encode(&runs[0], meta);
	page_run_encode(&runs[1], meta + PAGE_RUN_SIZE);
	script_build(&frames[SCRIPT_PAGES], meta, 2 * PAGE_RUN_SIZE, page, sizeof(page));
	for (int i = SCRIPT_ROUND; i <= SCRIPT_ROUND_END; i++)
		script_build(&frames[i], NULL, 0, NULL, 0);
	script_tree(&frames[SCRIPT_STATE], "machine", "fake-machine", "counter", 4711);
	script_build(&frames[SCRIPT_COMMIT], NULL, 0, NULL, 0);
	script_build(&frames[SCRIPT_DONE], NULL, 0, NULL, 0);
}

/* Where a receive runs, and the script's connections to it. */
struct script_run {
	struct fake_world world;
	struct fake_machine target;
	struct receive_options options;
	struct migration_receive *receive;
	struct sockaddr_storage address;
	socklen_t address_len;
	int control, pages, requests;
	uint8_t session[SESSION_SIZE];
	uint8_t meta[FRAME_META_MAX]; /* of the reply read last */
	struct error error;
	int result;
	pthread_t thread;
};

static inline void *script_receive(void *opaque)
{
	struct script_run *run = opaque;

	run->result = migration_receive_run(run->receive, &run->error);
	return NULL;
}

static inline void script_start_with(struct script_run *run, int wait_ms, int linger_ms)
{
	struct migration_target target;

	memset(run, 0, sizeof(*run));
	fake_init(&run->target, &run->world, FAKE_LOW_END + GUEST_PAGE_SIZE);
	target = fake_target(&run->target);
	receive_options_init(&run->options);
	run->options.listener = listen_somewhere(false, &run->address, &run->address_len);
	run->options.stall_ms = 1000;
	run->options.linger_ms = linger_ms;
	run->options.wait_ms = wait_ms;
	run->options.recovery_ms = linger_ms;
	run->options.kind = CHANNEL_PLAIN;
	run->receive = migration_receive_new(&target, &run->options, NULL);
	ck_assert_ptr_nonnull(run->receive);
	run->control = connect_to(&run->address, run->address_len);
	run->pages = run->requests = -1;
	ck_assert_int_eq(pthread_create(&run->thread, NULL, script_receive, run), 0);
}

static inline void script_start(struct script_run *run)
{
	script_start_with(run, 100, 50);
}

/* The type of the next frame from the other side; 0: there is none any more. */
static inline uint16_t script_reply(int fd, uint8_t meta[FRAME_META_MAX])
{
	uint8_t header[FRAME_HEADER_SIZE];
	struct frame frame;

	if (fd_read_full(fd, header, sizeof(header)) || frame_decode(&frame, header, NULL) ||
	    fd_read_full(fd, meta, frame.meta_len))
		return 0;
	return frame.type;
}

/* Sends what the frame has to have of this run put in. False: the other side is gone. */
static inline bool script_send(struct script_run *run, const struct script_frame *frame, size_t len)
{
	int *fd = frame->pages ? &run->pages : frame->requests ? &run->requests : &run->control;

	if (*fd < 0)
		*fd = connect_to(&run->address, run->address_len);
	return send(*fd, frame->bytes, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static inline bool script_await(struct script_run *run, const struct script_frame *frame)
{
	struct hello_reply reply;
	uint16_t type;

	if (!frame->reply)
		return true;
	do
		type = script_reply(run->control, run->meta);
	while (type == FRAME_PING);
	if (type != frame->reply)
		return false;
	if (frame->reply == FRAME_HELLO_REPLY) {
		ck_assert_int_eq(hello_reply_decode(&reply, run->meta, HELLO_REPLY_SIZE, NULL), 0);
		memcpy(run->session, reply.session, SESSION_SIZE);
	}
	return true;
}

static inline void script_hang_up(struct script_run *run)
{
	close(run->control);
	if (run->pages >= 0)
		close(run->pages);
	if (run->requests >= 0)
		close(run->requests);
	pthread_join(run->thread, NULL);
}

static inline void script_end(struct script_run *run)
{
	migration_receive_free(run->receive);
	close(run->options.listener);
	fake_free(&run->target);
}

#endif
