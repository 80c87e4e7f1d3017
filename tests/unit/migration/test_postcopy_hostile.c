/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers that are broken or hostile in postcopy: each frame truncated and damaged, what is
 * well-formed and wrong, at both sides. Up to COMMIT nothing is lost by it.
 */
#include <check.h>
#include <poll.h>

#include "migration/missing.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/scripted_peer.h"

#define LISTED 0x5000ULL /* to 0x6fff, and all above 4 GiB; 0x3000 is sent before */
#define HIGH (4 * GIB)

/* --- a hostile source --------------------------------------------------------------------- */

enum step {
	HELLO,
	CPU,
	MEMORY,
	CONFIG,
	ATTACH,
	ATTACH_REQ,
	ROUND_1,
	ROUND_1_END,
	EARLY,
	MISSING,
	STATE,
	COMMIT,
	FOLLOWING,
	ANSWER,
	DONE,
	STEPS,
};

static struct script_frame frames[STEPS];
static struct script_run run;

static void build_pages(struct script_frame *f, uint64_t gpa, uint64_t pages, bool zero, int value)
{
	static uint8_t data[8 * GUEST_PAGE_SIZE];
	struct page_run page_run = { gpa, pages * GUEST_PAGE_SIZE, zero };
	uint8_t meta[PAGE_RUN_SIZE];

	memset(data, value, sizeof(data));
	page_run_encode(&page_run, meta);
	script_build(f, meta, sizeof(meta), data, zero ? 0 : pages * GUEST_PAGE_SIZE);
}

static void build_missing(struct script_frame *f, uint64_t gpa, uint64_t len, uint64_t high)
{
	uint8_t meta[2 * PAGE_RUN_SIZE];

	store_le64(meta, gpa);
	store_le64(meta + 8, len);
	store_le64(meta + 16, high);
	store_le64(meta + 24, GUEST_PAGE_SIZE);
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void build(void)
{
	static const enum script_step old[] = { SCRIPT_HELLO,  SCRIPT_CPU,    SCRIPT_MEMORY,
						SCRIPT_CONFIG, SCRIPT_ATTACH, SCRIPT_ATTACH,
						SCRIPT_PAGES,  SCRIPT_ROUND,  SCRIPT_PAGES,
						SCRIPT_PAGES,  SCRIPT_STATE,  SCRIPT_COMMIT,
						SCRIPT_PAGES,  SCRIPT_PAGES,  SCRIPT_DONE };
	static struct script_frame script[SCRIPT_STEPS];
	struct hello hello;
	uint8_t meta[HELLO_SIZE];

	script_init(script);
	for (int i = 0; i < STEPS; i++)
		frames[i] = script[old[i]];
	hello_decode(&hello, frames[HELLO].bytes + FRAME_HEADER_SIZE, HELLO_SIZE, NULL);
	hello.offered |= CAPABILITY_POSTCOPY;
	hello.required |= CAPABILITY_POSTCOPY;
	hello_encode(&hello, meta);
	script_build(&frames[HELLO], meta, sizeof(meta), NULL, 0);
	frames[ATTACH].reply = 0;
	frames[ATTACH_REQ].pages = false;
	frames[ATTACH_REQ].requests = true;
	frames[ATTACH_REQ].frame.offset = ATTACH_REQUESTS;
	frames[EARLY].pages = false;
	frames[EARLY].reply = FRAME_DROPPED;
	frames[EARLY].frame =
		(struct frame){ .type = FRAME_MISSING,
				.flags = FRAME_INITIAL | FRAME_LAST | FRAME_PAYLOAD_CRC,
				.offset = 1 };
	build_missing(&frames[EARLY], LISTED, GUEST_PAGE_SIZE, HIGH);
	frames[MISSING].pages = false;
	frames[MISSING].frame = (struct frame){ .type = FRAME_MISSING,
						.flags = FRAME_LAST | FRAME_PAYLOAD_CRC,
						.offset = 1 };
	build_missing(&frames[MISSING], LISTED, 2 * GUEST_PAGE_SIZE, HIGH);
	build_pages(&frames[FOLLOWING], LISTED, 2, false, 0xcd);
	build_pages(&frames[ANSWER], HIGH, 1, true, 0);
	frames[ANSWER].pages = false;
	frames[ANSWER].requests = true;
	frames[ANSWER].reply = FRAME_COMPLETE;
}

/* Returns the step at which the other side stopped answering. */
static int play(int spoiled, size_t len)
{
	int i;

	for (i = 0; i < STEPS; i++) {
		struct script_frame f = frames[i];

		if ((i == ATTACH || i == ATTACH_REQ) && i != spoiled)
			script_build(&f, run.session, SESSION_SIZE, NULL, 0);
		if (!script_send(&run, &f, i == spoiled ? len : f.len))
			break;
		if (i == spoiled && (len < f.len || i == ATTACH || i == ATTACH_REQ))
			break;
		if (!script_await(&run, &frames[i]))
			break;
	}
	script_hang_up(&run);
	return i;
}

static void assert_nothing_left(int spoiled)
{
	bool lost = spoiled == FOLLOWING || spoiled == ANSWER;

	ck_assert_int_lt(run.result, 0);
	ck_assert_str_ne(run.error.message, "");
	ck_assert_int_eq(migration_receive_outcome(run.receive),
			 lost ? TRANSFER_LOST : TRANSFER_STAYED);
	ck_assert_int_eq(run.target.lost, lost);
	ck_assert_int_eq(run.world.running, 0);
	ck_assert_int_eq(run.world.most, lost);
	ck_assert_int_eq(run.world.locked, 0);
	ck_assert_int_eq(run.target.created, run.target.destroyed);
	ck_assert_ptr_null(run.target.memory);
}

static uint8_t byte_at(uint64_t gpa)
{
	uint8_t byte;

	ck_assert_int_eq(guest_memory_read(run.target.memory, gpa, &byte, 1), 0);
	return byte;
}

static void assert_arrived(void)
{
	ck_assert_msg(!run.result, "%s", run.error.message);
	ck_assert_int_eq(migration_receive_outcome(run.receive), TRANSFER_MOVED);
	ck_assert_int_eq(run.world.running, 1);
	ck_assert_int_eq(run.target.announced, 1);
	ck_assert_uint_eq(run.target.counter, 4711);
	ck_assert_uint_eq(byte_at(0x3000), 0xab);
	ck_assert_uint_eq(byte_at(LISTED), 0xcd);
	ck_assert_uint_eq(byte_at(LISTED + GUEST_PAGE_SIZE), 0xcd);
	ck_assert_uint_eq(byte_at(HIGH), 0);
}

START_TEST(script_as_it_is_moves_the_vm)
{
	build();
	script_start_with(&run, 100, 5000);
	ck_assert_int_eq(play(-1, 0), STEPS);
	assert_arrived();
	script_end(&run);
}
END_TEST

static void prepare(int step)
{
	build();
	if (step == ATTACH || step == ATTACH_REQ) {
		memset(run.session, 0x11, SESSION_SIZE); /* another session's */
		script_build(&frames[step], run.session, SESSION_SIZE, NULL, 0);
	}
}

static size_t next(size_t at, size_t len)
{
	return at > 150 && at + 160 < len ? at + 157 : at + 1;
}

START_TEST(frame_cut_off_at_any_byte_is_refused)
{
	prepare(_i);
	for (size_t len = 0; len < frames[_i].len; len = next(len, frames[_i].len)) {
		script_start_with(&run, 100, 5);
		play(_i, len);
		assert_nothing_left(_i);
		script_end(&run);
	}
}
END_TEST

START_TEST(frame_with_any_byte_damaged_is_refused)
{
	prepare(_i);
	for (size_t at = 0; at < frames[_i].len; at = next(at, frames[_i].len)) {
		script_start_with(&run, 100, 5);
		frames[_i].bytes[at] ^= (uint8_t)(1 << at % 8);
		play(_i, frames[_i].len);
		frames[_i].bytes[at] ^= (uint8_t)(1 << at % 8);
		assert_nothing_left(_i);
		script_end(&run);
	}
}
END_TEST

static void local_too(struct script_frame *f)
{
	uint8_t meta[HELLO_SIZE];
	struct hello hello;

	hello_decode(&hello, f->bytes + FRAME_HEADER_SIZE, HELLO_SIZE, NULL);
	hello.required |= CAPABILITY_LOCAL;
	hello.offered |= CAPABILITY_LOCAL;
	hello_encode(&hello, meta);
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void last_round(struct script_frame *f)
{
	f->frame.flags = FRAME_LAST;
	script_build(f, NULL, 0, NULL, 0);
}

static void missing_no_ram(struct script_frame *f)
{
	build_missing(f, FAKE_LOW_END - GUEST_PAGE_SIZE, 2 * GUEST_PAGE_SIZE, HIGH);
}

static void missing_descends(struct script_frame *f)
{
	build_missing(f, LISTED, 2 * GUEST_PAGE_SIZE, LISTED + GUEST_PAGE_SIZE);
}

static void missing_bits_lie(struct script_frame *f)
{
	build_missing(f, LISTED | MISSING_BITS, 2 * GUEST_PAGE_SIZE, HIGH);
}

static void missing_before_any_round(struct script_frame *f)
{
	f->frame.offset = 0;
	build_missing(f, LISTED, 2 * GUEST_PAGE_SIZE, HIGH);
}

static void missing_of_a_round_to_come(struct script_frame *f)
{
	f->frame.offset = 2;
	build_missing(f, LISTED, 2 * GUEST_PAGE_SIZE, HIGH);
}

static void initial_twice(struct script_frame *f)
{
	f->frame.flags |= FRAME_INITIAL;
	build_missing(f, LISTED, 2 * GUEST_PAGE_SIZE, HIGH);
}

static void not_initial(struct script_frame *f)
{
	f->frame.flags &= (uint16_t)~FRAME_INITIAL;
	build_missing(f, LISTED, 2 * GUEST_PAGE_SIZE, HIGH);
}

static void state_too_early(struct script_frame *f)
{
	*f = frames[STATE];
}

static void failed(struct script_frame *f)
{
	uint8_t meta[] = { 28, 0, 0, 0, 'n', 'o', ' ', 'r', 'o', 'o', 'm' };

	f->frame.type = FRAME_FAILED;
	f->reply = 0;
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static void pages_behind_ram(struct script_frame *f)
{
	build_pages(f, FAKE_LOW_END, 1, false, 1);
}

static void pages_over_the_end(struct script_frame *f)
{
	build_pages(f, FAKE_LOW_END - GUEST_PAGE_SIZE, 2, false, 1);
}

static void zeros_for_ever(struct script_frame *f)
{
	build_pages(f, 0, 1ULL << 50, true, 0);
}

static void pages_without_checksum(struct script_frame *f)
{
	f->frame.flags = 0;
	f->frame.payload_crc = 0;
	build_pages(f, LISTED, 2, false, 1);
}

static void another_round(struct script_frame *f)
{
	f->frame = (struct frame){ .type = FRAME_ROUND_END, .offset = 2 };
	script_build(f, NULL, 0, NULL, 0);
}

static void request(struct script_frame *f)
{
	uint8_t meta[8] = { 0 };

	f->frame.type = FRAME_PAGE_REQUEST;
	script_build(f, meta, sizeof(meta), NULL, 0);
}

static const struct {
	enum step step;
	void (*spoil)(struct script_frame *frame);
	const char *message;
} wrongs[] = {
	{ HELLO, local_too, "contradicts itself" },
	{ ROUND_1_END, last_round, "ROUND_END" },
	{ EARLY, missing_no_ram, "not whole pages of RAM" },
	{ EARLY, missing_before_any_round, "before any round" },
	{ EARLY, missing_of_a_round_to_come, "rounds before are not complete" },
	{ EARLY, not_initial, "too early" },
	{ EARLY, state_too_early, "STATE where MISSING belongs" },
	{ MISSING, initial_twice, "comes twice" },
	{ MISSING, missing_no_ram, "not whole pages of RAM" },
	{ MISSING, missing_descends, "MISSING" },
	{ MISSING, missing_bits_lie, "bits" },
	{ MISSING, missing_before_any_round, "before any round" },
	{ MISSING, state_too_early, "STATE where MISSING belongs" },
	{ MISSING, failed, "no room" },
	{ STATE, failed, "no room" },
	{ COMMIT, failed, "no room" },
	{ FOLLOWING, pages_behind_ram, "not whole pages of RAM" },
	{ FOLLOWING, pages_over_the_end, "not whole pages of RAM" },
	{ FOLLOWING, zeros_for_ever, "not whole pages of RAM" },
	{ FOLLOWING, pages_without_checksum, "checksum" },
	{ FOLLOWING, another_round, "ROUND_END" },
	{ FOLLOWING, request, "page connection" },
	{ ANSWER, pages_behind_ram, "not whole pages of RAM" },
	{ ANSWER, request, "connection of requests" },
};

START_TEST(frame_that_is_wrong_is_refused_with_the_reason)
{
	prepare(wrongs[_i].step);
	wrongs[_i].spoil(&frames[wrongs[_i].step]);
	script_start(&run);
	play(wrongs[_i].step, frames[wrongs[_i].step].len);
	assert_nothing_left(wrongs[_i].step);
	ck_assert_msg(strstr(run.error.message, wrongs[_i].message), "%s", run.error.message);
	script_end(&run);
}
END_TEST

START_TEST(connection_of_requests_is_there_once_and_only_there)
{
	build();
	frames[ATTACH_REQ].frame.offset = 2 - 2 * (uint64_t)_i; /* 2, or one of pages too many */
	script_start(&run);
	play(-1, 0);
	assert_nothing_left(ATTACH_REQ);
	ck_assert_ptr_nonnull(strstr(run.error.message, "too many, or of role"));
	script_end(&run);
}
END_TEST

/* Pages that come unasked, twice, or were never missing: none of them replaces one that is
 * there. */
START_TEST(page_that_is_there_is_never_replaced)
{
	static struct script_frame extra;

	build();
	script_start(&run);
	for (int i = 0; i < STEPS; i++) {
		struct script_frame f = frames[i];

		if (i == ATTACH || i == ATTACH_REQ)
			script_build(&f, run.session, SESSION_SIZE, NULL, 0);
		ck_assert(script_send(&run, &f, f.len));
		if (i == FOLLOWING) {
			extra = frames[FOLLOWING];
			build_pages(&extra, 0x2000, 8, false, 0xee);
			ck_assert(script_send(&run, &extra, extra.len));
			extra = frames[ANSWER];
			build_pages(&extra, LISTED, 1, false, 0xee);
			ck_assert(script_send(&run, &extra, extra.len));
		}
		ck_assert(script_await(&run, &frames[i]));
	}
	script_hang_up(&run);
	ck_assert_uint_eq(byte_at(0x2000), 0);
	ck_assert_uint_eq(byte_at(0x4000), 0);
	ck_assert_uint_ne(byte_at(LISTED), 0);
	ck_assert_uint_eq(byte_at(0x3000), 0xab);
	ck_assert_int_eq(run.result, 0);
	script_end(&run);
}
END_TEST

/* The VM's load waits for a page that never comes. */
static int touching_hook(struct fake_machine *m, enum fake_step step)
{
	uint8_t byte;

	return step == FAKE_LOAD ? guest_memory_read(m->memory, LISTED, &byte, 1) : 0;
}

START_TEST(page_that_does_not_come_ends_it_before_commit)
{
	uint16_t type;

	build();
	script_start_with(&run, 100, 50);
	run.target.hook = touching_hook;
	for (int i = 0; i <= STATE; i++) {
		struct script_frame f = frames[i];

		if (i == ATTACH || i == ATTACH_REQ)
			script_build(&f, run.session, SESSION_SIZE, NULL, 0);
		ck_assert(script_send(&run, &f, f.len));
		if (i < STATE)
			ck_assert(script_await(&run, &frames[i]));
	}
	/* It is asked for, at least; then: silence, or the end of the connection. */
	type = script_reply(run.requests, run.meta);
	ck_assert_uint_eq(type, FRAME_PAGE_REQUEST);
	ck_assert_uint_eq(load_le64(run.meta), LISTED);
	if (_i)
		shutdown(run.requests, SHUT_RDWR);
	ck_assert_uint_eq(script_reply(run.control, run.meta), FRAME_FAILED);
	script_hang_up(&run);
	assert_nothing_left(STATE);
	script_end(&run);
}
END_TEST

/* --- a hostile destination ---------------------------------------------------------------- */

static struct {
	struct fixture f;
	int listener, control, pages, requests, spare;
	struct script_frame frame; /* what it says at `at` instead */
	enum at { AT_NEVER, AT_CREATED, AT_EARLY, AT_REQUEST, AT_COMPLETE, AT_RECOVER } at;
	size_t len, flip;
	bool dead; /* nobody listens any more */
} other;

static bool read_until(int fd, uint16_t type)
{
	uint8_t header[FRAME_HEADER_SIZE], waste[64 * 1024];
	struct frame frame;

	do {
		if (fd_read_full(fd, header, sizeof(header)) || frame_decode(&frame, header, NULL))
			return false;
		for (uint64_t left = frame.meta_len + frame.length, part; left; left -= part) {
			part = MIN(left, (uint64_t)sizeof(waste));
			if (fd_read_full(fd, waste, part))
				return false;
		}
	} while (frame.type != type);
	return true;
}

static bool say(int fd, uint16_t type, uint16_t flags, const void *meta, size_t len)
{
	static struct script_frame frame;

	frame.frame = (struct frame){ .type = type, .flags = flags };
	script_build(&frame, meta, len, NULL, 0);
	return send(fd, frame.bytes, frame.len, MSG_NOSIGNAL) == (ssize_t)frame.len;
}

/* The frame of the test, where it is its turn: then that is the last one here. */
static bool spoiled(enum at at, int fd)
{
	if (other.at != at)
		return false;
	if (other.flip != SIZE_MAX)
		other.frame.bytes[other.flip] ^= 4;
	send(fd, other.frame.bytes, other.len, MSG_NOSIGNAL);
	if (other.len < other.frame.len)
		shutdown(fd, SHUT_WR);
	return true;
}

static int accept_one(void)
{
	struct pollfd p = { .fd = other.listener, .events = POLLIN };

	return poll(&p, 1, 2000) > 0 ? accept(other.listener, NULL, NULL) : -1;
}

static void *read_away(void *opaque)
{
	read_until((int)(intptr_t)opaque, UINT16_MAX);
	return NULL;
}

static bool take_connections(pthread_t *reader)
{
	uint8_t unit[CREATED_SIZE] = { 0, 16 };

	other.pages = accept_one();
	if (other.pages < 0)
		return false;
	pthread_create(reader, NULL, read_away, (void *)(intptr_t)other.pages);
	other.requests = accept_one();
	if (other.requests < 0 || !read_until(other.requests, FRAME_ATTACH))
		return false;
	return !spoiled(AT_CREATED, other.control) &&
	       say(other.control, FRAME_CREATED, 0, unit, sizeof(unit));
}

static void recover(void)
{
	int fd;

	close(other.control);
	close(other.requests);
	other.requests = -1;
	shutdown(other.pages, SHUT_RDWR);
	fd = other.control = accept_one();
	if (fd >= 0 && read_until(fd, FRAME_RECOVER) && !spoiled(AT_RECOVER, fd))
		say(fd, FRAME_COMPLETE, 0, NULL, 0);
	if (fd >= 0)
		read_until(fd, FRAME_DONE);
}

static void converse(pthread_t *reader)
{
	static const uint8_t zeros[COMPLETE_SIZE];
	struct hello_reply reply = { .version = 1, .capabilities = CAPABILITY_POSTCOPY };
	uint8_t meta[HELLO_REPLY_SIZE], gpa[16] = { 0, 0x30 };

	hello_reply_encode(&reply, meta);
	other.control = accept_one();
	if (!read_until(other.control, FRAME_HELLO) ||
	    !say(other.control, FRAME_HELLO_REPLY, 0, meta, sizeof(meta)) ||
	    !read_until(other.control, FRAME_CONFIG) || !take_connections(reader))
		return;
	if (spoiled(AT_EARLY, other.requests)) {
		read_until(other.control, FRAME_FAILED);
		return;
	}
	if (!read_until(other.control, FRAME_MISSING) ||
	    !say(other.control, FRAME_DROPPED, 0, NULL, 0) ||
	    !read_until(other.control, FRAME_STATE) ||
	    !say(other.control, FRAME_READY, 0, zeros, READY_SIZE) ||
	    !read_until(other.control, FRAME_COMMIT) ||
	    !say(other.control, FRAME_RUNNING, 0, zeros, 8))
		return;
	if (other.at == AT_RECOVER) {
		recover();
		return;
	}
	if (spoiled(AT_REQUEST, other.requests) || spoiled(AT_COMPLETE, other.control))
		return;
	store_le64(gpa + 8, HIGH);
	if (say(other.requests, FRAME_PAGE_REQUEST, 0, gpa, sizeof(gpa)) &&
	    read_until(other.requests, FRAME_PAGES) && read_until(other.requests, FRAME_PAGES) &&
	    say(other.control, FRAME_COMPLETE, 0, zeros, sizeof(zeros)))
		read_until(other.control, FRAME_DONE);
}

static void *be_destination(void *opaque)
{
	pthread_t reader = 0;

	other.control = other.pages = other.requests = -1;
	converse(&reader);
	/* It must see what was said before the end. */
	if (other.at == AT_REQUEST || other.at == AT_COMPLETE)
		usleep(100000);
	if (other.at != AT_NEVER)
		close(other.listener);
	for (int i = 0; i < 3; i++) {
		int *fd = i == 0 ? &other.control : i == 1 ? &other.requests : &other.pages;

		if (*fd >= 0)
			shutdown(*fd, SHUT_RDWR);
	}
	if (reader)
		pthread_join(reader, NULL);
	for (int i = 0; i < 3; i++) {
		int *fd = i == 0 ? &other.control : i == 1 ? &other.requests : &other.pages;

		if (*fd >= 0)
			close(*fd);
	}
	return NULL;
}

static void be_answered(enum at at, size_t len, size_t flip)
{
	struct migration_vm vm;
	pthread_t thread;

	fixture_init(&other.f, false, FAKE_LOW_END + GUEST_PAGE_SIZE, 0);
	other.f.send_options.stall_ms = 2000;
	other.f.send_options.inquiry_ms = 50;
	other.f.send_options.recovery_ms = 10;
	other.f.send_options.kind = CHANNEL_PLAIN;
	other.f.send_options.postcopy = true;
	other.listener = dup(other.f.receive_options.listener);
	close(other.f.receive_options.listener);
	other.f.receive_options.listener = -1;
	other.at = at;
	other.len = len;
	other.flip = flip;
	vm = fake_vm(&other.f.source);
	other.f.send = migration_send_new(&vm, &other.f.send_options, NULL);
	pthread_create(&thread, NULL, be_destination, NULL);
	other.f.send_result = migration_send_run(other.f.send, &other.f.send_error);
	pthread_join(thread, NULL);
	if (at == AT_NEVER)
		close(other.listener);
}

static void assert_kept(enum transfer_outcome outcome)
{
	ck_assert_int_lt(other.f.send_result, 0);
	ck_assert_int_eq(migration_send_outcome(other.f.send), outcome);
	ck_assert_int_eq(fake_running(&other.f.source), outcome == TRANSFER_STAYED);
	ck_assert_int_eq(other.f.source.locked, outcome == TRANSFER_STAYED);
	ck_assert(!other.f.source.logging);
}

START_TEST(replies_as_they_are_move_the_vm)
{
	be_answered(AT_NEVER, 0, SIZE_MAX);
	ck_assert_msg(!other.f.send_result, "%s", other.f.send_error.message);
	ck_assert_int_eq(migration_send_outcome(other.f.send), TRANSFER_MOVED);
	fixture_free(&other.f);
}
END_TEST

static void bad_unit(uint32_t unit)
{
	uint8_t meta[CREATED_SIZE];

	store_le32(meta, unit);
	other.frame.frame = (struct frame){ .type = FRAME_CREATED };
	script_build(&other.frame, meta, sizeof(meta), NULL, 0);
}

static void unit_none(void)
{
	other.frame.frame = (struct frame){ .type = FRAME_CREATED };
	script_build(&other.frame, NULL, 0, NULL, 0);
}

static void unit_small(void)
{
	bad_unit(2048);
}

static void unit_odd(void)
{
	bad_unit(3 * 4096);
}

static void unit_large(void)
{
	bad_unit(4 << 20);
}

static void ask(uint64_t gpa, size_t len)
{
	uint8_t meta[8 * (PAGE_REQUESTS_MAX + 1)] = { 0 };

	store_le64(meta, gpa);
	other.frame.frame = (struct frame){ .type = FRAME_PAGE_REQUEST };
	script_build(&other.frame, meta, len, NULL, 0);
}

static void ask_well(void)
{
	ask(0x3000, 8);
}

static void ask_behind_ram(void)
{
	ask(FAKE_LOW_END, 8);
}

static void ask_far_away(void)
{
	ask(UINT64_MAX - 4095, 8);
}

static void ask_in_a_page(void)
{
	ask(0x3008, 8);
}

static void ask_nothing(void)
{
	ask(0, 0);
}

static void ask_half(void)
{
	ask(0, 12);
}

static void ask_too_much(void)
{
	ask(0, 8 * (PAGE_REQUESTS_MAX + 1));
}

static void say_pages(void)
{
	other.frame.frame = (struct frame){ .type = FRAME_PAGES, .flags = FRAME_PAYLOAD_CRC };
	build_pages(&other.frame, 0, 1, false, 1);
}

static void say_failed(void)
{
	failed(&other.frame);
	other.frame.frame.flags = 0;
}

static void say_missing(uint64_t gpa, uint64_t len)
{
	other.frame.frame =
		(struct frame){ .type = FRAME_MISSING, .flags = FRAME_LAST | FRAME_PAYLOAD_CRC };
	build_missing(&other.frame, gpa, len, HIGH);
}

static void missing_unasked(void)
{
	say_missing(0, GUEST_PAGE_SIZE);
}

static void missing_nowhere(void)
{
	say_missing(FAKE_LOW_END, GUEST_PAGE_SIZE);
}

static void missing_upside_down(void)
{
	say_missing(HIGH, GUEST_PAGE_SIZE);
}

static const struct {
	enum at at;
	void (*make)(void);
	const char *message;
	enum transfer_outcome outcome;
} wrong_replies[] = {
	{ AT_CREATED, unit_none, "pages of 0 bytes", TRANSFER_STAYED },
	{ AT_CREATED, unit_small, "pages of 2048 bytes", TRANSFER_STAYED },
	{ AT_CREATED, unit_odd, "pages of 12288 bytes", TRANSFER_STAYED },
	{ AT_CREATED, unit_large, "pages of 4194304 bytes", TRANSFER_STAYED },
	{ AT_EARLY, ask_well, "connection of requests", TRANSFER_STAYED },
	{ AT_REQUEST, ask_behind_ram, "is no RAM", TRANSFER_LOST },
	{ AT_REQUEST, ask_far_away, "is no RAM", TRANSFER_LOST },
	{ AT_REQUEST, ask_in_a_page, "is no RAM", TRANSFER_LOST },
	{ AT_REQUEST, ask_nothing, "make no sense", TRANSFER_LOST },
	{ AT_REQUEST, ask_half, "make no sense", TRANSFER_LOST },
	{ AT_REQUEST, ask_too_much, "make no sense", TRANSFER_LOST },
	{ AT_REQUEST, say_pages, "connection of requests", TRANSFER_LOST },
	{ AT_COMPLETE, say_failed, "no room", TRANSFER_LOST },
	{ AT_COMPLETE, missing_unasked, "MISSING unasked", TRANSFER_LOST },
	{ AT_RECOVER, say_failed, "no room", TRANSFER_LOST },
	{ AT_RECOVER, missing_nowhere, "", TRANSFER_LOST },
	{ AT_RECOVER, missing_upside_down, "", TRANSFER_LOST },
	{ AT_RECOVER, say_pages, "", TRANSFER_LOST },
};

START_TEST(reply_that_is_wrong_is_refused_with_the_reason)
{
	wrong_replies[_i].make();
	be_answered(wrong_replies[_i].at, other.frame.len, SIZE_MAX);
	assert_kept(wrong_replies[_i].outcome);
	ck_assert_msg(strstr(other.f.send_error.message, wrong_replies[_i].message), "%s",
		      other.f.send_error.message);
	fixture_free(&other.f);
}
END_TEST

static const struct {
	enum at at;
	void (*make)(void);
} replies[] = {
	{ AT_CREATED, unit_none },
	{ AT_REQUEST, ask_well },
	{ AT_RECOVER, missing_unasked },
};

START_TEST(reply_cut_off_or_damaged_at_any_byte_is_none)
{
	for (size_t at = 0;; at++) {
		bool damaged = _i % 2;

		replies[_i / 2].make();
		if (at >= other.frame.len)
			break;
		be_answered(replies[_i / 2].at, damaged ? other.frame.len : at,
			    damaged ? at : SIZE_MAX);
		assert_kept(_i / 2 ? TRANSFER_LOST : TRANSFER_STAYED);
		fixture_free(&other.f);
	}
}
END_TEST

START_TEST(recovered_destination_that_has_all_is_believed)
{
	other.frame.frame = (struct frame){ .type = FRAME_COMPLETE };
	script_build(&other.frame, NULL, 0, NULL, 0);
	be_answered(AT_RECOVER, other.frame.len, SIZE_MAX);
	ck_assert_msg(!other.f.send_result, "%s", other.f.send_error.message);
	ck_assert_int_eq(migration_send_outcome(other.f.send), TRANSFER_MOVED);
	fixture_free(&other.f);
}
END_TEST

static Suite *hostile_suite(void)
{
	Suite *suite = suite_create("postcopy_hostile");
	TCase *source = tcase_create("source");
	TCase *target = tcase_create("destination");

	tcase_set_timeout(source, 240);
	tcase_add_test(source, script_as_it_is_moves_the_vm);
	tcase_add_loop_test(source, frame_cut_off_at_any_byte_is_refused, 0, DONE);
	tcase_add_loop_test(source, frame_with_any_byte_damaged_is_refused, 0, DONE);
	tcase_add_loop_test(source, frame_that_is_wrong_is_refused_with_the_reason, 0,
			    ARRAY_SIZE(wrongs));
	tcase_add_loop_test(source, connection_of_requests_is_there_once_and_only_there, 0, 2);
	tcase_add_test(source, page_that_is_there_is_never_replaced);
	tcase_add_loop_test(source, page_that_does_not_come_ends_it_before_commit, 0, 2);
	suite_add_tcase(suite, source);
	tcase_set_timeout(target, 240);
	tcase_add_test(target, replies_as_they_are_move_the_vm);
	tcase_add_loop_test(target, reply_that_is_wrong_is_refused_with_the_reason, 0,
			    ARRAY_SIZE(wrong_replies));
	tcase_add_loop_test(target, reply_cut_off_or_damaged_at_any_byte_is_none, 0,
			    2 * ARRAY_SIZE(replies));
	tcase_add_test(target, recovered_destination_that_has_all_is_believed);
	suite_add_tcase(suite, target);
	return suite;
}

int main(void)
{
	return run_suite(hostile_suite());
}
