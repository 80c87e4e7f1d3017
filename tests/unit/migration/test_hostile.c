/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers that are broken, of another version, or hostile: each frame truncated and
 * corrupted, at both sides. Nothing runs twice, nothing of the VM is left behind.
 */
#include <check.h>
#include <poll.h>

#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/scripted_peer.h"

static struct script_frame frames[SCRIPT_STEPS];
static struct script_run run;

/* Plays the migration; at `spoiled` only `len` bytes are sent, as they are now. Returns
 * the step at which the other side stopped answering. */
static int play(int spoiled, size_t len)
{
	int i;

	for (i = 0; i < SCRIPT_STEPS; i++) {
		struct script_frame *f = &frames[i];

		if (i == SCRIPT_ATTACH) {
			uint8_t old[SCRIPT_FRAME_MAX];
			size_t old_len = f->len;

			memcpy(old, f->bytes, sizeof(old));
			if (i != spoiled)
				script_build(f, run.session, SESSION_SIZE, NULL, 0);
			if (!script_send(&run, f, i == spoiled ? len : f->len))
				break;
			memcpy(f->bytes, old, sizeof(old));
			f->len = old_len;
		} else if (!script_send(&run, f, i == spoiled ? len : f->len)) {
			break;
		}
		/* A page connection of nobody is closed, and the real one waited for. */
		if (i == spoiled && (len < f->len || i == SCRIPT_ATTACH))
			break;
		if (!script_await(&run, f))
			break;
	}
	script_hang_up(&run);
	return i;
}

static void assert_nothing_left(void)
{
	ck_assert_int_lt(run.result, 0);
	ck_assert_str_ne(run.error.message, "");
	ck_assert_int_eq(migration_receive_outcome(run.receive), TRANSFER_STAYED);
	ck_assert_int_eq(run.world.running, 0);
	ck_assert_int_eq(run.world.most, 0);
	ck_assert_int_eq(run.world.locked, 0);
	ck_assert_int_eq(run.target.created, run.target.destroyed);
	ck_assert_ptr_null(run.target.memory);
}

START_TEST(script_as_it_is_moves_the_vm)
{
	uint8_t page[GUEST_PAGE_SIZE];

	script_init(frames);
	script_start(&run);
	ck_assert_int_eq(play(-1, 0), SCRIPT_STEPS);
	ck_assert_int_eq(run.result, 0);
	ck_assert_int_eq(run.world.running, 1);
	ck_assert_uint_eq(run.target.counter, 4711);
	ck_assert_int_eq(guest_memory_read(run.target.memory, 0x3000, page, sizeof(page)), 0);
	ck_assert_uint_eq(page[17], 0xab);
	script_end(&run);
}
END_TEST

/* A good one of the run's own, where that is known in advance. */
static void prepare(int step)
{
	script_init(frames);
	if (step == SCRIPT_ATTACH) {
		memset(run.session, 0x11, SESSION_SIZE); /* another session's */
		script_build(&frames[step], run.session, SESSION_SIZE, NULL, 0);
	}
}

START_TEST(frame_cut_off_at_any_byte_starts_nothing)
{
	prepare(_i);
	for (size_t len = 0;
	     len<frames[_i].len; len += len> 300 && len + 50 < frames[_i].len ? 37 : 1) {
		script_start(&run);
		play(_i, len);
		assert_nothing_left();
		script_end(&run);
	}
}
END_TEST

START_TEST(frame_with_any_byte_damaged_starts_nothing)
{
	prepare(_i);
	for (size_t at = 0; at<frames[_i].len; at += at> 300 ? 37 : 1) {
		script_start(&run);
		frames[_i].bytes[at] ^= (uint8_t)(1 << at % 8);
		play(_i, frames[_i].len);
		frames[_i].bytes[at] ^= (uint8_t)(1 << at % 8);
		assert_nothing_left();
		script_end(&run);
	}
}
END_TEST

/* What is well-formed and wrong. */
static void wrong_version(struct script_frame *f)
{
	uint8_t meta[HELLO_SIZE];

	memcpy(meta, f->bytes + FRAME_HEADER_SIZE, sizeof(meta));
	store_le16(meta, 2);
	store_le16(meta + 2, 9);
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void old_version(struct script_frame *f)
{
	uint8_t meta[HELLO_SIZE];

	memcpy(meta, f->bytes + FRAME_HEADER_SIZE, sizeof(meta));
	store_le16(meta, 0);
	store_le16(meta + 2, 0);
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void unknown_capability(struct script_frame *f)
{
	uint8_t meta[HELLO_SIZE];

	memcpy(meta, f->bytes + FRAME_HEADER_SIZE, sizeof(meta));
	store_le64(meta + 8, UINT64_MAX);
	store_le64(meta + 16, 1ULL << 40);
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void no_connection(struct script_frame *f)
{
	uint8_t meta[HELLO_SIZE];

	memcpy(meta, f->bytes + FRAME_HEADER_SIZE, sizeof(meta));
	store_le32(meta + 4, 0);
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void many_connections(struct script_frame *f)
{
	uint8_t meta[HELLO_SIZE];

	memcpy(meta, f->bytes + FRAME_HEADER_SIZE, sizeof(meta));
	store_le32(meta + 4, PROTOCOL_CONNECTIONS_MAX + 1);
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void local_without_fds(struct script_frame *f)
{
	uint8_t meta[HELLO_SIZE];

	memcpy(meta, f->bytes + FRAME_HEADER_SIZE, sizeof(meta));
	store_le32(meta + 4, 0);
	store_le64(meta + 8, CAPABILITY_LOCAL | CAPABILITY_CHECKSUM);
	store_le64(meta + 16, CAPABILITY_LOCAL);
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void not_hello(struct script_frame *f)
{
	f->frame.type = FRAME_COMMIT;
	script_build(f, NULL, 0, NULL, 0);
}

static void no_tree(struct script_frame *f)
{
	script_build(f, NULL, 0, "this is no flattened device tree at all", 39);
}

static void empty(struct script_frame *f)
{
	script_build(f, NULL, 0, NULL, 0);
}

static void other_node(struct script_frame *f)
{
	script_tree(f, "other", "fake-cpu", "features", 7);
}

static void other_kind(struct script_frame *f)
{
	script_tree(f, f->frame.type == FRAME_CPU ? "cpu" : "machine", "other", "features", 7);
}

static void other_memory(struct script_frame *f)
{
	struct memory_entry entry = { 0, FAKE_LOW_END, 0, 4096 };
	uint8_t meta[MEMORY_ENTRY_SIZE];

	memory_entry_encode(&entry, meta);
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void other_config(struct script_frame *f)
{
	script_build(f, NULL, 0, "{}", 2);
}

static void binary_config(struct script_frame *f)
{
	script_build(f, NULL, 0, FAKE_CONFIG "\0x", strlen(FAKE_CONFIG) + 2);
}

static void pages_at(struct script_frame *f, uint64_t gpa, uint64_t pages, bool zero)
{
	static uint8_t data[8 * GUEST_PAGE_SIZE];
	struct page_run page_run = { gpa, pages * GUEST_PAGE_SIZE, zero };
	uint8_t meta[PAGE_RUN_SIZE];

	page_run_encode(&page_run, meta);
	script_build(f, meta, sizeof(meta), data, zero ? 0 : pages * GUEST_PAGE_SIZE);
}

static void pages_behind_ram(struct script_frame *f)
{
	pages_at(f, FAKE_LOW_END, 1, false);
}

static void pages_over_the_end(struct script_frame *f)
{
	pages_at(f, FAKE_LOW_END - GUEST_PAGE_SIZE, 2, false);
}

static void zeros_over_the_end(struct script_frame *f)
{
	pages_at(f, FAKE_LOW_END - GUEST_PAGE_SIZE, 2, true);
}

static void zeros_for_ever(struct script_frame *f)
{
	pages_at(f, 0, 1ULL << 50, true);
}

static void pages_without_checksum(struct script_frame *f)
{
	f->frame.flags = 0;
	f->frame.payload_crc = 0;
	pages_at(f, 0, 1, false);
}

static void wrong_round(struct script_frame *f)
{
	f->frame.offset += 7;
	empty(f);
}

static void round_0(struct script_frame *f)
{
	f->frame.offset = 0;
	empty(f);
}

static void twice(struct script_frame *f)
{
	memcpy(f->bytes + f->len, f->bytes, f->len);
	f->len *= 2;
}

static void with_payload(struct script_frame *f)
{
	script_build(f, NULL, 0, "pay", 3);
}

/* HELLO of a source of before. */
static void no_rounds(struct script_frame *f)
{
	uint8_t meta[HELLO_SIZE];

	memcpy(meta, f->bytes + FRAME_HEADER_SIZE, sizeof(meta));
	store_le64(meta + 8, CAPABILITY_CHECKSUM);
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void not_the_last_round(struct script_frame *f)
{
	f->frame.flags = 0;
	empty(f);
}

static void state_on_pages(struct script_frame *f)
{
	f->frame.type = FRAME_STATE;
	empty(f);
}

static void failed(struct script_frame *f)
{
	uint8_t meta[] = { 28, 0, 0, 0, 'n', 'o', ' ', 'r', 'o', 'o', 'm' };

	f->frame.type = FRAME_FAILED;
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static const struct {
	enum script_step step;
	void (*spoil)(struct script_frame *frame);
	const char *message;
} wrongs[] = {
	{ SCRIPT_HELLO, wrong_version, "versions 2 to 9" },
	{ SCRIPT_HELLO, old_version, "versions 0 to 0" },
	{ SCRIPT_HELLO, unknown_capability, "capabilities 0x10000000000" },
	{ SCRIPT_HELLO, no_connection, "0 page connections" },
	{ SCRIPT_HELLO, many_connections, "129 page connections" },
	{ SCRIPT_HELLO, local_without_fds, "0 descriptors for 2 regions" },
	{ SCRIPT_HELLO, not_hello, "HELLO" },
	{ SCRIPT_HELLO, empty, "HELLO" },
	{ SCRIPT_HELLO, no_rounds, "ROUND_SENT where STATE belongs" },
	{ SCRIPT_CPU, no_tree, "" },
	{ SCRIPT_CPU, empty, "" },
	{ SCRIPT_CPU, other_node, "cpu" },
	{ SCRIPT_CPU, other_kind, "cpu" },
	{ SCRIPT_CPU, failed, "no room" },
	{ SCRIPT_MEMORY, other_memory, "RAM differs" },
	{ SCRIPT_MEMORY, empty, "MEMORY" },
	{ SCRIPT_CONFIG, other_config, "fake: config" },
	{ SCRIPT_CONFIG, binary_config, "no text" },
	{ SCRIPT_CONFIG, empty, "fake: config" },
	{ SCRIPT_PAGES, pages_behind_ram, "no RAM" },
	{ SCRIPT_PAGES, pages_over_the_end, "no RAM" },
	{ SCRIPT_PAGES, zeros_over_the_end, "no RAM" },
	{ SCRIPT_PAGES, zeros_for_ever, "no RAM" },
	{ SCRIPT_PAGES, pages_without_checksum, "checksum" },
	{ SCRIPT_PAGES, empty, "PAGES" },
	{ SCRIPT_PAGES, state_on_pages, "page connection" },
	{ SCRIPT_ROUND, wrong_round, "ROUND_END" },
	{ SCRIPT_ROUND_SENT, round_0, "ROUND_SENT of the source: round 0 after 0" },
	{ SCRIPT_ROUND_SENT, twice, "ROUND_SENT of the source: round 1 after 1" },
	{ SCRIPT_ROUND_SENT, wrong_round, "sent ROUND_SENT, but the round is not complete" },
	{ SCRIPT_ROUND_SENT, with_payload, "ROUND_SENT of the peer: 0 bytes" },
	{ SCRIPT_ROUND_SENT, failed, "no room" },
	{ SCRIPT_ROUND_END, wrong_round, "ROUND_END" },
	{ SCRIPT_ROUND_END, not_the_last_round, "" },
	{ SCRIPT_STATE, no_tree, "" },
	{ SCRIPT_STATE, other_node, "machine" },
	{ SCRIPT_STATE, other_kind, "machine" },
	{ SCRIPT_STATE, failed, "no room" },
	{ SCRIPT_COMMIT, failed, "no room" },
};

START_TEST(frame_that_is_wrong_is_refused_with_the_reason)
{
	prepare(wrongs[_i].step);
	wrongs[_i].spoil(&frames[wrongs[_i].step]);
	script_start(&run);
	play(wrongs[_i].step, frames[wrongs[_i].step].len);
	assert_nothing_left();
	ck_assert_msg(strstr(run.error.message, wrongs[_i].message), "%s", run.error.message);
	script_end(&run);
}
END_TEST

START_TEST(source_that_does_not_ask_after_rounds_moves_the_vm)
{
	prepare(SCRIPT_HELLO);
	no_rounds(&frames[SCRIPT_HELLO]);
	script_start(&run);
	for (int i = 0; i < SCRIPT_STEPS; i++) {
		if (i == SCRIPT_ROUND_SENT)
			continue;
		if (i == SCRIPT_ATTACH)
			script_build(&frames[i], run.session, SESSION_SIZE, NULL, 0);
		ck_assert(script_send(&run, &frames[i], frames[i].len));
		ck_assert(script_await(&run, &frames[i]));
	}
	script_hang_up(&run);
	ck_assert_msg(!run.result, "%s", run.error.message);
	ck_assert_int_eq(run.world.running, 1);
	script_end(&run);
}
END_TEST

/* Up to ROUND_SENT, of a round that is still on its way. */
static void ask_too_early(void)
{
	prepare(SCRIPT_HELLO);
	script_start(&run);
	for (int i = 0; i <= SCRIPT_ROUND_SENT; i++) {
		if (i == SCRIPT_ROUND)
			continue;
		if (i == SCRIPT_ATTACH)
			script_build(&frames[i], run.session, SESSION_SIZE, NULL, 0);
		ck_assert(script_send(&run, &frames[i], frames[i].len));
		if (i < SCRIPT_ROUND_SENT)
			ck_assert(script_await(&run, &frames[i]));
	}
}

START_TEST(round_is_answered_when_it_has_come_and_pinged_for_until_then)
{
	ask_too_early();
	ck_assert_uint_eq(script_reply(run.control, run.meta), FRAME_PING);
	ck_assert(script_send(&run, &frames[SCRIPT_ROUND], frames[SCRIPT_ROUND].len));
	ck_assert(script_await(&run, &frames[SCRIPT_ROUND_SENT]));
	script_hang_up(&run);
	assert_nothing_left();
	script_end(&run);
}
END_TEST

START_TEST(source_that_fails_while_its_round_is_awaited_is_heard)
{
	ask_too_early();
	failed(&frames[SCRIPT_STATE]);
	ck_assert(script_send(&run, &frames[SCRIPT_STATE], frames[SCRIPT_STATE].len));
	while (script_reply(run.control, run.meta))
		;
	script_hang_up(&run);
	assert_nothing_left();
	ck_assert_msg(strstr(run.error.message, "no room"), "%s", run.error.message);
	script_end(&run);
}
END_TEST

START_TEST(strangers_that_only_look_do_not_disturb)
{
	script_init(frames);
	script_start(&run);
	/* The real one is the first in the queue: look before it, in a run of its own. */
	script_hang_up(&run);
	ck_assert_int_eq(run.result, -ETIMEDOUT);
	ck_assert_msg(strstr(run.error.message, "the source did not connect in 100 ms"), "%s",
		      run.error.message);
	script_end(&run);
	script_start(&run);
	for (int i = 0; i < SCRIPT_STEPS; i++) {
		int stranger = connect_to(&run.address, run.address_len);

		close(stranger);
		if (i == SCRIPT_ATTACH)
			script_build(&frames[i], run.session, SESSION_SIZE, NULL, 0);
		ck_assert(script_send(&run, &frames[i], frames[i].len));
		ck_assert(script_await(&run, &frames[i]));
	}
	script_hang_up(&run);
	ck_assert_int_eq(run.result, 0);
	script_end(&run);
}
END_TEST

START_TEST(question_with_another_session_is_not_answered)
{
	uint8_t meta[FRAME_META_MAX];
	struct script_frame *query = calloc(1, sizeof(*query));
	int fd;

	script_init(frames);
	script_start(&run);
	for (int i = 0; i <= SCRIPT_STATE; i++) {
		if (i == SCRIPT_ATTACH)
			script_build(&frames[i], run.session, SESSION_SIZE, NULL, 0);
		ck_assert(script_send(&run, &frames[i], frames[i].len));
		ck_assert(script_await(&run, &frames[i]));
	}
	/* READY: with the right one it would be the end of it. */
	query->frame.type = FRAME_QUERY;
	memset(meta, 7, SESSION_SIZE);
	script_build(query, meta, SESSION_SIZE, NULL, 0);
	fd = connect_to(&run.address, run.address_len);
	ck_assert_int_eq(fd_write_full(fd, query->bytes, query->len), 0);
	ck_assert_uint_eq(script_reply(fd, meta), 0);
	close(fd);
	ck_assert(script_send(&run, &frames[SCRIPT_COMMIT], frames[SCRIPT_COMMIT].len));
	ck_assert(script_await(&run, &frames[SCRIPT_COMMIT]));
	ck_assert(script_send(&run, &frames[SCRIPT_DONE], frames[SCRIPT_DONE].len));
	script_hang_up(&run);
	ck_assert_int_eq(run.result, 0);
	script_end(&run);
	free(query);
}
END_TEST

START_TEST(question_before_commit_ends_it_for_good)
{
	uint8_t meta[FRAME_META_MAX];
	struct script_frame *query = calloc(1, sizeof(*query));
	int fd;

	script_init(frames);
	script_start(&run);
	for (int i = 0; i <= SCRIPT_STATE; i++) {
		if (i == SCRIPT_ATTACH)
			script_build(&frames[i], run.session, SESSION_SIZE, NULL, 0);
		ck_assert(script_send(&run, &frames[i], frames[i].len));
		ck_assert(script_await(&run, &frames[i]));
	}
	query->frame.type = FRAME_QUERY;
	script_build(query, run.session, SESSION_SIZE, NULL, 0);
	fd = connect_to(&run.address, run.address_len);
	ck_assert_int_eq(fd_write_full(fd, query->bytes, query->len), 0);
	ck_assert_uint_eq(script_reply(fd, meta), FRAME_FAILED);
	close(fd);
	script_send(&run, &frames[SCRIPT_COMMIT], frames[SCRIPT_COMMIT].len);
	script_hang_up(&run);
	assert_nothing_left();
	script_end(&run);
	free(query);
}
END_TEST

/* The destination's side of the script: what it answers, and one of it spoiled. */
enum { REPLY_HELLO, REPLY_CREATED, REPLY_ROUND, REPLY_READY, REPLY_RUNNING, REPLIES };

static struct {
	struct fixture f;
	int spoiled;
	size_t len, flip; /* bytes to send; the byte to damage, SIZE_MAX: none */
	struct script_frame replies[REPLIES];
	bool no_rounds;
	unsigned int pings; /* before the answer to ROUND_SENT, each after ping_ms */
	unsigned int ping_ms;
	bool wrong_type;
} other;

static void build_replies(void)
{
	static const uint16_t types[] = { FRAME_HELLO_REPLY, FRAME_CREATED, FRAME_ROUND_LOADED,
					  FRAME_READY, FRAME_RUNNING };
	struct hello_reply reply = { .version = 1 };
	uint8_t meta[HELLO_REPLY_SIZE] = { 0 };

	for (int i = 0; i < REPLIES; i++)
		other.replies[i].frame = (struct frame){ .type = types[i] };
	reply.capabilities = other.no_rounds ? 0 : CAPABILITY_ROUNDS;
	hello_reply_encode(&reply, meta);
	script_build(&other.replies[REPLY_HELLO], meta, HELLO_REPLY_SIZE, NULL, 0);
	script_build(&other.replies[REPLY_CREATED], NULL, 0, NULL, 0);
	other.replies[REPLY_ROUND].frame.offset = 1;
	script_build(&other.replies[REPLY_ROUND], NULL, 0, NULL, 0);
	script_build(&other.replies[REPLY_READY], meta, READY_SIZE, NULL, 0);
	script_build(&other.replies[REPLY_RUNNING], meta, 8, NULL, 0);
}

/* Reads frames until one of that type; false at the end. */
static bool read_until(int fd, uint16_t type)
{
	uint8_t header[FRAME_HEADER_SIZE], waste[64 * 1024];
	struct frame frame;

	do {
		if (fd_read_full(fd, header, sizeof(header)) ||
		    frame_decode(&frame, header, NULL) ||
		    frame.meta_len + frame.length > sizeof(waste) ||
		    fd_read_full(fd, waste, frame.meta_len + frame.length))
			return false;
	} while (frame.type != type);
	return true;
}

static bool reply_with(int fd, int reply)
{
	struct script_frame *frame = &other.replies[reply];
	size_t len = frame->len;

	if (reply == other.spoiled) {
		len = other.len;
		if (other.flip != SIZE_MAX)
			frame->bytes[other.flip] ^= 4;
	}
	return send(fd, frame->bytes, len, MSG_NOSIGNAL) == (ssize_t)len && len == frame->len;
}

static bool answer_round(int fd)
{
	struct script_frame ping = { .frame = { .type = FRAME_PING, .flags = FRAME_OPTIONAL } };

	if (other.no_rounds)
		return true;
	if (!read_until(fd, FRAME_ROUND_SENT))
		return false;
	script_build(&ping, NULL, 0, NULL, 0);
	for (unsigned int i = 0; i < other.pings; i++) {
		nanosleep(&(struct timespec){ .tv_nsec = other.ping_ms * 1000000L }, NULL);
		/* It must not have been paused yet. */
		if (!fake_running(&other.f.source) ||
		    send(fd, ping.bytes, ping.len, MSG_NOSIGNAL) != (ssize_t)ping.len)
			return false;
	}
	return reply_with(fd, REPLY_ROUND);
}

static void *read_pages(void *opaque)
{
	while (read_until((int)(intptr_t)opaque, FRAME_PAGES))
		;
	return NULL;
}

static int accept_one(int listener)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };

	return poll(&p, 1, 2000) > 0 ? accept(listener, NULL, NULL) : -1;
}

static void *be_destination(void *opaque)
{
	int listener = other.f.receive_options.listener, control = accept_one(listener), pages = -1;
	pthread_t thread;

	if (!read_until(control, FRAME_HELLO) || !reply_with(control, REPLY_HELLO))
		goto out;
	if (!read_until(control, FRAME_CONFIG))
		goto out;
	pages = accept_one(listener);
	if (pages < 0)
		goto out;
	pthread_create(&thread, NULL, read_pages, (void *)(intptr_t)pages);
	if (reply_with(control, REPLY_CREATED) && answer_round(control) &&
	    read_until(control, FRAME_STATE) && reply_with(control, REPLY_READY) &&
	    read_until(control, FRAME_COMMIT) && reply_with(control, REPLY_RUNNING))
		read_until(control, FRAME_DONE);
	shutdown(pages, SHUT_RDWR);
	pthread_join(thread, NULL);
out:
	close(control);
	if (pages >= 0)
		close(pages);
	return NULL;
}

static void be_answered(int spoiled, size_t len, size_t flip)
{
	struct migration_vm vm;
	pthread_t thread;

	fixture_init(&other.f, false, FAKE_LOW_END + GUEST_PAGE_SIZE, 0);
	other.f.send_options.stall_ms = other.pings ? 500 : 2000;
	other.f.send_options.inquiry_ms = 50;
	other.f.send_options.kind = CHANNEL_PLAIN;
	other.spoiled = spoiled;
	other.len = len;
	other.flip = flip;
	vm = fake_vm(&other.f.source);
	other.f.send = migration_send_new(&vm, &other.f.send_options, NULL);
	pthread_create(&thread, NULL, be_destination, NULL);
	other.f.send_result = migration_send_run(other.f.send, &other.f.send_error);
	pthread_join(thread, NULL);
}

static void assert_kept(void)
{
	enum transfer_outcome outcome = migration_send_outcome(other.f.send);

	ck_assert_int_lt(other.f.send_result, 0);
	ck_assert_str_ne(other.f.send_error.message, "");
	/* Once COMMIT was sent, a damaged answer is no answer: it is held. */
	ck_assert_int_eq(outcome, other.spoiled == REPLY_RUNNING ? TRANSFER_HELD : TRANSFER_STAYED);
	ck_assert_int_eq(fake_running(&other.f.source), outcome == TRANSFER_STAYED);
	ck_assert_int_eq(other.f.source.locked, outcome == TRANSFER_STAYED);
	ck_assert(!other.f.source.logging);
}

START_TEST(replies_as_they_are_move_the_vm)
{
	build_replies();
	be_answered(-1, 0, SIZE_MAX);
	ck_assert_msg(!other.f.send_result, "%s", other.f.send_error.message);
	ck_assert_int_eq(migration_send_outcome(other.f.send), TRANSFER_MOVED);
	fixture_free(&other.f);
}
END_TEST

START_TEST(reply_cut_off_at_any_byte_keeps_the_vm)
{
	build_replies();
	for (size_t len = 0; len < other.replies[_i].len; len++) {
		be_answered(_i, len, SIZE_MAX);
		assert_kept();
		fixture_free(&other.f);
	}
}
END_TEST

START_TEST(reply_with_any_byte_damaged_keeps_the_vm)
{
	for (size_t at = 0; at < FRAME_HEADER_SIZE + HELLO_REPLY_SIZE; at++) {
		build_replies();
		if (at >= other.replies[_i].len)
			break;
		be_answered(_i, other.replies[_i].len, at);
		assert_kept();
		fixture_free(&other.f);
	}
}
END_TEST

static void reply_version(struct script_frame *f)
{
	uint8_t meta[HELLO_REPLY_SIZE] = { 2 };

	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void reply_capability(struct script_frame *f)
{
	uint8_t meta[HELLO_REPLY_SIZE] = { 1, 0, 0, 0, 0, 0, 0, 0, CAPABILITY_LOCAL };

	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void reply_commit(struct script_frame *f)
{
	f->frame.type = FRAME_COMMIT;
	script_build(f, NULL, 0, NULL, 0);
}

static const struct {
	int reply;
	void (*spoil)(struct script_frame *frame);
	const char *message;
} wrong_replies[] = {
	{ REPLY_HELLO, reply_version, "version 2" },
	{ REPLY_HELLO, reply_capability, "capabilities" },
	{ REPLY_HELLO, reply_commit, "COMMIT" },
	{ REPLY_HELLO, failed, "no room" },
	{ REPLY_CREATED, reply_commit, "COMMIT" },
	{ REPLY_CREATED, failed, "no room" },
	{ REPLY_ROUND, reply_commit, "COMMIT where ROUND_LOADED belongs" },
	{ REPLY_ROUND, failed, "no room" },
	{ REPLY_ROUND, wrong_round, "ROUND_LOADED of the destination: round 8, 1 was" },
	{ REPLY_ROUND, round_0, "ROUND_LOADED of the destination: round 0, 1 was" },
	{ REPLY_ROUND, twice, "sent ROUND_LOADED where" },
	{ REPLY_ROUND, with_payload, "ROUND_LOADED of the peer: 0 bytes" },
	{ REPLY_READY, reply_commit, "COMMIT" },
	{ REPLY_READY, failed, "no room" },
	{ REPLY_READY, empty, "READY" },
	{ REPLY_RUNNING, reply_commit, "" },
};

/* The source kept the VM, and says why. */
static void end_kept(const char *why)
{
	assert_kept();
	ck_assert_msg(strstr(other.f.send_error.message, why), "%s", other.f.send_error.message);
	fixture_free(&other.f);
}

START_TEST(reply_that_is_wrong_keeps_the_vm)
{
	build_replies();
	wrong_replies[_i].spoil(&other.replies[wrong_replies[_i].reply]);
	be_answered(wrong_replies[_i].reply, other.replies[wrong_replies[_i].reply].len, SIZE_MAX);
	end_kept(wrong_replies[_i].message);
}
END_TEST

START_TEST(destination_that_knows_nothing_of_rounds_is_not_asked)
{
	other.no_rounds = true;
	build_replies();
	be_answered(-1, 0, SIZE_MAX);
	ck_assert_msg(!other.f.send_result, "%s", other.f.send_error.message);
	ck_assert_int_eq(migration_send_outcome(other.f.send), TRANSFER_MOVED);
	fixture_free(&other.f);
}
END_TEST

START_TEST(answer_to_what_was_not_asked_keeps_the_vm)
{
	struct script_frame *ready = &other.replies[REPLY_READY];

	other.no_rounds = true;
	build_replies();
	ready->frame = other.replies[REPLY_ROUND].frame;
	script_build(ready, NULL, 0, NULL, 0);
	be_answered(-1, 0, SIZE_MAX);
	end_kept("ROUND_LOADED where READY belongs");
}
END_TEST

/* Twice as long as it may be silent. */
START_TEST(destination_that_pings_is_waited_for_before_the_pause)
{
	other.pings = 10;
	other.ping_ms = 100;
	build_replies();
	be_answered(-1, 0, SIZE_MAX);
	ck_assert_msg(!other.f.send_result, "%s", other.f.send_error.message);
	fixture_free(&other.f);
}
END_TEST

START_TEST(destination_that_is_silent_about_a_round_keeps_the_vm)
{
	other.pings = 1;
	other.ping_ms = 900;
	build_replies();
	be_answered(-1, 0, SIZE_MAX);
	end_kept("the destination was silent for 500 ms");
}
END_TEST

START_TEST(failed_after_commit_gives_the_vm_back)
{
	build_replies();
	failed(&other.replies[REPLY_RUNNING]);
	be_answered(-1, 0, SIZE_MAX);
	ck_assert_int_eq(other.f.send_result, -ENOSPC);
	ck_assert_int_eq(migration_send_outcome(other.f.send), TRANSFER_STAYED);
	ck_assert(fake_running(&other.f.source));
	ck_assert(other.f.source.locked);
	fixture_free(&other.f);
}
END_TEST

static Suite *hostile_suite(void)
{
	Suite *suite = suite_create("hostile");
	TCase *source = tcase_create("source");
	TCase *target = tcase_create("destination");

	tcase_set_timeout(source, 240);
	tcase_add_test(source, script_as_it_is_moves_the_vm);
	tcase_add_loop_test(source, frame_cut_off_at_any_byte_starts_nothing, 0, SCRIPT_DONE);
	tcase_add_loop_test(source, frame_with_any_byte_damaged_starts_nothing, 0, SCRIPT_DONE);
	tcase_add_loop_test(source, frame_that_is_wrong_is_refused_with_the_reason, 0,
			    ARRAY_SIZE(wrongs));
	tcase_add_test(source, source_that_does_not_ask_after_rounds_moves_the_vm);
	tcase_add_test(source, round_is_answered_when_it_has_come_and_pinged_for_until_then);
	tcase_add_test(source, source_that_fails_while_its_round_is_awaited_is_heard);
	tcase_add_test(source, strangers_that_only_look_do_not_disturb);
	tcase_add_test(source, question_with_another_session_is_not_answered);
	tcase_add_test(source, question_before_commit_ends_it_for_good);
	suite_add_tcase(suite, source);
	tcase_set_timeout(target, 240);
	tcase_add_test(target, replies_as_they_are_move_the_vm);
	tcase_add_loop_test(target, reply_cut_off_at_any_byte_keeps_the_vm, 0, REPLIES);
	tcase_add_loop_test(target, reply_with_any_byte_damaged_keeps_the_vm, 0, REPLIES);
	tcase_add_loop_test(target, reply_that_is_wrong_keeps_the_vm, 0, ARRAY_SIZE(wrong_replies));
	tcase_add_test(target, destination_that_knows_nothing_of_rounds_is_not_asked);
	tcase_add_test(target, answer_to_what_was_not_asked_keeps_the_vm);
	tcase_add_test(target, destination_that_pings_is_waited_for_before_the_pause);
	tcase_add_test(target, destination_that_is_silent_about_a_round_keeps_the_vm);
	tcase_add_test(target, failed_after_commit_gives_the_vm_back);
	suite_add_tcase(suite, target);
	return suite;
}

int main(void)
{
	return run_suite(hostile_suite());
}
