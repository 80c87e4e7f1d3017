/* SPDX-License-Identifier: Apache-2.0 */
/* Migrations of VMs with devices whose state is a stream. */
#include <check.h>

#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/fake_device.h"
#include "tests/unit/migration/scripted_peer.h"

#define RAM (6 * MIB)
#define DEVICES FAKE_MACHINE_DEVICES

static struct fixture f;
static struct fake_device source[DEVICES], target[DEVICES];

static void setup(bool tcp, unsigned int count, uint64_t initial, uint64_t rest)
{
	fixture_init(&f, tcp, RAM, 0);
	f.send_options.downtime_ms = 10000;
	fake_devices_init(source, count, &f.source, initial, rest);
	fake_devices_init(target, count, &f.target, initial, rest);
}

static void assert_devices_moved(unsigned int count, uint64_t bytes)
{
	assert_moved(&f);
	for (unsigned int i = 0; i < count; i++) {
		ck_assert(!source[i].wrong_order && !target[i].wrong_order);
		ck_assert(!target[i].wrong_data);
		ck_assert_uint_eq(target[i].at, bytes + 8);
		ck_assert_int_eq(source[i].state, FAKE_STANDS);
		ck_assert_int_eq(target[i].state, FAKE_RUNS);
		ck_assert_uint_eq(source[i].rollbacks, 0);
	}
}

static void assert_devices_stayed(unsigned int count)
{
	assert_stayed(&f);
	for (unsigned int i = 0; i < count; i++)
		ck_assert_int_eq(source[i].state, FAKE_RUNS);
}

static const struct {
	bool tcp, local;
	enum channel_kind kind;
	unsigned int connections, devices;
	uint64_t initial, rest;
} ways[] = {
	{ false, false, CHANNEL_PLAIN, 1, 1, 300000, 100000 },
	{ false, false, CHANNEL_URING, 2, 1, 300000, 100000 },
	{ true, false, CHANNEL_PLAIN, 1, DEVICES, 5000000, 3000000 },
	{ true, false, CHANNEL_URING, 3, DEVICES, 5000000, 3000000 },
	{ true, false, CHANNEL_AUTO, 1, 2, 0, 3000000 }, /* no precopy */
	{ true, false, CHANNEL_AUTO, 1, 2, 300000, 0 },
	{ false, true, CHANNEL_PLAIN, 1, 1, 300000, 100000 },
	{ false, true, CHANNEL_AUTO, 1, DEVICES, 0, 100000 },
};

START_TEST(streams_arrive_whole_and_every_step_in_its_order)
{
	struct transfer_progress progress;
	unsigned int count = ways[_i].devices;

	setup(ways[_i].tcp, count, ways[_i].initial, ways[_i].rest);
	f.send_options.local = ways[_i].local;
	f.send_options.connections = ways[_i].connections;
	f.send_options.kind = f.receive_options.kind = ways[_i].kind;
	fixture_run(&f);
	assert_devices_moved(count, ways[_i].initial + ways[_i].rest);
	migration_send_progress(f.send, &progress);
	ck_assert_uint_eq(progress.device_count, count);
	ck_assert_str_eq(progress.devices[0].id, "vf0");
	ck_assert_str_eq(progress.devices[0].kind, "fake");
	ck_assert_uint_eq(progress.devices[0].bytes, ways[_i].initial + ways[_i].rest + 8);
	ck_assert_uint_ge(progress.wire_bytes, count * progress.devices[0].bytes);
	migration_receive_progress(f.receive, &progress);
	ck_assert_uint_eq(progress.device_count, count);
	ck_assert_uint_eq(progress.devices[0].bytes, ways[_i].initial + ways[_i].rest + 8);
	ck_assert(progress.devices[0].ready);
	fixture_free(&f);
}
END_TEST

/* No device was stopped before all initial bytes were there. */
static int look_at_pause(struct fake_machine *m, enum fake_step step)
{
	if (step == FAKE_PAUSE)
		for (unsigned int i = 0; i < f.target.device_count; i++)
			target[i].loaded_at_pause = target[i].at;
	return 0;
}

START_TEST(vm_is_not_stopped_before_initial_bytes_are_loaded)
{
	setup(true, 3, 4000000, 1000);
	f.source.hook = look_at_pause;
	fixture_run(&f);
	assert_devices_moved(3, 4001000);
	for (unsigned int i = 0; i < 3; i++)
		ck_assert_uint_ge(target[i].loaded_at_pause, 4000000);
	fixture_free(&f);
}
END_TEST

static int slow_round(struct fake_machine *m, enum fake_step step)
{
	if (step == FAKE_COLLECT)
		usleep(100000);
	return 0;
}

/* Next to nothing was sent before, in whatever time: that says nothing of the line. */
START_TEST(devices_of_a_vm_without_memory_in_use_may_stop_it)
{
	setup(true, 1, 0, 40000000);
	f.send_options.downtime_ms = 1000;
	for (unsigned int i = 0; i < guest_memory_region_count(f.source.memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(f.source.memory, i);

		memset(r->hva, 0, r->size);
	}
	f.source.hook = slow_round;
	fixture_run(&f);
	assert_devices_moved(1, 40000000);
	fixture_free(&f);
}
END_TEST

START_TEST(device_that_was_reconfigured_has_its_initial_bytes_loaded_anew)
{
	setup(true, 1, 1000000, 1000);
	source[0].reinits = 3;
	f.source.hook = look_at_pause;
	fixture_run(&f);
	assert_devices_moved(1, 4001000);
	ck_assert_uint_ge(target[0].loaded_at_pause, 4000000);
	fixture_free(&f);
}
END_TEST

/* The word that the first ones are loaded comes when there are new ones. */
START_TEST(device_may_be_reconfigured_while_it_is_loaded_there)
{
	setup(true, 1, 70000, 1000);
	source[0].reinits = 2;
	source[0].late = true;
	target[0].load_ms = 60;
	f.source.hook = look_at_pause;
	fixture_run(&f);
	assert_moved(&f);
	ck_assert(!target[0].wrong_data);
	ck_assert_uint_ge(target[0].loaded_at_pause, 2 * 70000);
	fixture_free(&f);
}
END_TEST

/* A question is as dear as a read. */
START_TEST(device_is_not_asked_what_is_to_come_before_every_read)
{
	setup(true, 1, 40 * MIB, 1000);
	fixture_run(&f);
	assert_devices_moved(1, 40 * MIB + 1000);
	ck_assert_uint_le(source[0].asked, 3);
	fixture_free(&f);
}
END_TEST

/* Rounds of RAM take the time of the devices. */
START_TEST(ram_that_is_done_is_looked_at_now_and_then_while_devices_load)
{
	struct transfer_progress progress;

	setup(true, 1, 300000, 1000);
	target[0].load_ms = 60;
	fixture_run(&f);
	assert_devices_moved(1, 301000);
	migration_send_progress(f.send, &progress);
	ck_assert_uint_lt(progress.round, 15); /* in 240 ms */
	fixture_free(&f);
}
END_TEST

/* What it writes while the source waits for devices is not too much for that. */
START_TEST(guest_is_not_slowed_down_for_devices_that_load)
{
	fixture_init(&f, true, RAM, 8);
	f.send_options.downtime_ms = 10000;
	fake_devices_init(source, 1, &f.source, 1000000, 1000);
	fake_devices_init(target, 1, &f.target, 1000000, 1000);
	target[0].load_ms = 60;
	fixture_run(&f);
	assert_devices_moved(1, 1001000);
	ck_assert_uint_eq(f.source.most_throttle, 0);
	fixture_free(&f);
}
END_TEST

START_TEST(states_too_large_for_the_downtime_end_it_with_the_time_they_take)
{
	setup(true, 2, 100000, 50000000);
	f.send_options.downtime_ms = 1;
	f.send_options.bandwidth = 50 * MIB;
	fixture_run(&f);
	assert_devices_stayed(2);
	ck_assert_msg(strstr(f.send_error.message, "states of the assigned devices take 95 MiB"),
		      "%s", f.send_error.message);
	fixture_free(&f);
}
END_TEST

START_TEST(step_that_fails_leaves_source_and_its_devices_running)
{
	enum fake_device_step step = (enum fake_device_step)(1 + _i % (FAKE_DEVICE_STEPS - 1));
	struct fake_device *where = step < FAKE_LOAD_BEGIN ? source : target;
	bool local = _i >= FAKE_DEVICE_STEPS - 1;

	setup(false, 2, 300000, 100000);
	f.send_options.local = local;
	where[1].fails = step;
	fixture_run(&f);
	if (local && (step == FAKE_SAVE_PENDING || step == FAKE_SAVE_READ)) {
		assert_devices_moved(2, 400000); /* has no such step */
		fixture_free(&f);
		return;
	}
	assert_devices_stayed(2);
	ck_assert_msg(strstr(f.send_error.message, "device vf1: fake step"), "%s; %s",
		      f.send_error.message, f.receive_error.message);
	fixture_free(&f);
}
END_TEST

/* Much RAM that is given up. */
static int destroy_slowly(struct fake_machine *m, enum fake_step step)
{
	if (step == FAKE_DESTROY)
		nanosleep(&(struct timespec){ .tv_nsec = 400000000 }, NULL);
	return 0;
}

static const struct {
	enum fake_device_step step;
	enum channel_kind kind;
} losses[] = {
	{ FAKE_SAVE_READ, CHANNEL_URING },  { FAKE_QUIESCE, CHANNEL_URING },
	{ FAKE_REST_READ, CHANNEL_PLAIN },  { FAKE_LOAD_WRITE, CHANNEL_URING },
	{ FAKE_LOAD_WRITE, CHANNEL_PLAIN }, { FAKE_LOAD_END, CHANNEL_URING },
};

/* Its server: who has it says so, and neither waits for the other to say why. */
START_TEST(device_that_is_gone_is_named_by_both)
{
	enum fake_device_step step = losses[_i].step;
	struct fake_device *where = step < FAKE_LOAD_BEGIN ? source : target;

	setup(false, 2, 300000, 100000);
	f.target.hook = destroy_slowly;
	f.send_options.kind = f.receive_options.kind = losses[_i].kind;
	where[1].fails = step;
	where[1].fails_with = ECONNRESET;
	fixture_run(&f);
	assert_devices_stayed(2);
	ck_assert_msg(strstr(f.send_error.message, "device vf1: fake step"), "%s",
		      f.send_error.message);
	ck_assert_msg(strstr(f.receive_error.message, "device vf1: fake step"), "%s",
		      f.receive_error.message);
	fixture_free(&f);
}
END_TEST

START_TEST(device_that_cannot_go_back_is_named_and_the_vm_goes_on)
{
	setup(false, 2, 1000, 1000);
	source[0].no_rollback = true;
	target[1].fails = FAKE_LOAD_END;
	fixture_run(&f);
	assert_stayed(&f);
	ck_assert_int_eq(source[1].state, FAKE_RUNS);
	ck_assert_msg(strstr(f.send_error.message, "device vf0 is in ERROR"), "%s",
		      f.send_error.message);
	fixture_free(&f);
}
END_TEST

static void assert_refused_early(const char *message)
{
	ck_assert_int_lt(f.send_result, 0);
	ck_assert_msg(strstr(f.send_error.message, message), "%s", f.send_error.message);
	ck_assert(fake_running(&f.source));
	ck_assert_uint_eq(f.target.created, 0);
	ck_assert_int_eq(source[0].state, FAKE_RUNS);
}

START_TEST(several_devices_without_p2p_are_refused_before_anything_starts)
{
	setup(false, 2, 1000, 1000);
	source[1].base.p2p = false;
	fixture_run(&f);
	assert_refused_early("device vf1 cannot be kept from starting DMA");
	fixture_free(&f);
}
END_TEST

START_TEST(one_device_needs_no_p2p)
{
	setup(false, 1, 1000, 1000);
	source[0].base.p2p = false;
	fixture_run(&f);
	assert_devices_moved(1, 2000);
	fixture_free(&f);
}
END_TEST

START_TEST(device_that_is_not_migratable_is_refused_with_its_reason)
{
	setup(false, 1, 1000, 1000);
	f.source.not_movable = "device vf0: its driver has no migration";
	fixture_run(&f);
	assert_refused_early("device vf0: its driver has no migration");
	fixture_free(&f);
}
END_TEST

START_TEST(destination_with_fewer_devices_is_refused)
{
	setup(false, 2, 1000, 1000);
	f.target.device_count = 1;
	fixture_run(&f);
	assert_devices_stayed(2);
	ck_assert_msg(strstr(f.send_error.message, "2 assigned devices"), "%s",
		      f.send_error.message);
	fixture_free(&f);
}
END_TEST

START_TEST(destination_with_another_device_is_refused_by_name)
{
	setup(false, 2, 1000, 1000);
	strcpy(target[1].base.id, "nic");
	fixture_run(&f);
	assert_devices_stayed(2);
	ck_assert_msg(strstr(f.send_error.message, "vf1"), "%s", f.send_error.message);
	fixture_free(&f);
}
END_TEST

START_TEST(destination_with_another_backend_is_refused_by_name)
{
	static const struct migratable_ops other = { .kind = "plugin" };

	setup(false, 2, 1000, 1000);
	target[0].base.ops = &other;
	fixture_run(&f);
	assert_devices_stayed(2);
	ck_assert_msg(strstr(f.send_error.message, "by \"fake\", this side by \"plugin\""), "%s",
		      f.send_error.message);
	fixture_free(&f);
}
END_TEST

START_TEST(cancel_before_the_pause_leaves_devices_running)
{
	struct transfer_progress progress = { .phase = TRANSFER_CONNECT };
	pthread_t thread;

	setup(false, 1, 300000, 1000);
	source[0].reinits = 1000000; /* never ready */
	fixture_start(&f);
	ck_assert_int_eq(pthread_create(&thread, NULL, fixture_send, &f), 0);
	while (progress.phase < TRANSFER_PRECOPY) {
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		migration_send_progress(f.send, &progress);
	}
	nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	ck_assert_int_eq(migration_send_cancel(f.send, NULL), 0);
	pthread_join(thread, NULL);
	pthread_join(f.receive_thread, NULL);
	assert_devices_stayed(1);
	ck_assert_msg(strstr(f.send_error.message, "cancelled"), "%s", f.send_error.message);
	fixture_free(&f);
}
END_TEST

/* A source that says what a test wants on a device connection. */
static struct script_frame frames[SCRIPT_STEPS], data;
static struct script_run run;

static void spoil_hello(uint32_t devices, uint64_t capabilities)
{
	uint8_t meta[HELLO_SIZE];

	memcpy(meta, frames[SCRIPT_HELLO].bytes + FRAME_HEADER_SIZE, sizeof(meta));
	store_le64(meta + 8, capabilities);
	store_le64(meta + 16, capabilities);
	store_le32(meta + 36, devices);
	script_build(&frames[SCRIPT_HELLO], meta, sizeof(meta), NULL, 0);
}

static void script_start_devices(unsigned int count, uint32_t devices, uint64_t capabilities)
{
	script_init(frames);
	spoil_hello(devices, capabilities | CAPABILITY_CHECKSUM);
	script_start(&run);
	fake_devices_init(target, count, &run.target, 1000, 1000);
}

static void assert_script_failed(const char *message)
{
	script_hang_up(&run);
	ck_assert_int_lt(run.result, 0);
	ck_assert_msg(strstr(run.error.message, message), "%s", run.error.message);
	ck_assert_int_eq(run.world.running, 0);
	ck_assert_int_eq(run.target.created, run.target.destroyed);
	script_end(&run);
}

static int script_device(const char *id, const char *kind)
{
	struct device_head head = { .id = "" };
	uint8_t meta[DEVICE_HEAD_SIZE_MAX];
	int fd = connect_to(&run.address, run.address_len);

	memcpy(head.session, run.session, SESSION_SIZE);
	snprintf(head.id, sizeof(head.id), "%s", id);
	snprintf(head.kind, sizeof(head.kind), "%s", kind);
	data.frame = (struct frame){ .type = FRAME_DEVICE };
	script_build(&data, meta, device_head_encode(&head, meta), NULL, 0);
	ck_assert_int_eq(send(fd, data.bytes, data.len, MSG_NOSIGNAL), (ssize_t)data.len);
	return fd;
}

/* Up to the page connection, whose ATTACH nobody answers yet. */
static void script_connect(void)
{
	for (int i = SCRIPT_HELLO; i <= SCRIPT_ATTACH; i++) {
		if (i == SCRIPT_ATTACH)
			script_build(&frames[i], run.session, SESSION_SIZE, NULL, 0);
		ck_assert(script_send(&run, &frames[i], frames[i].len));
		if (i < SCRIPT_ATTACH)
			ck_assert(script_await(&run, &frames[i]));
	}
}

static const struct {
	uint32_t devices;
	uint64_t capabilities;
	const char *message;
} hellos[] = {
	{ MIGRATION_DEVICES_MAX + 1, CAPABILITY_DEVICES, "33 devices" },
	{ 1, 0, "1 devices" },
	{ 0, CAPABILITY_DEVICES, "0 devices" },
};

START_TEST(hello_that_contradicts_itself_about_devices_is_refused)
{
	script_start_devices(1, hellos[_i].devices, hellos[_i].capabilities);
	ck_assert(script_send(&run, &frames[SCRIPT_HELLO], frames[SCRIPT_HELLO].len));
	script_await(&run, &frames[SCRIPT_HELLO]);
	assert_script_failed(hellos[_i].message);
}
END_TEST

START_TEST(device_that_comes_twice_is_refused)
{
	int fd[2];

	script_start_devices(2, 2, CAPABILITY_DEVICES);
	script_connect();
	fd[0] = script_device("vf1", "fake");
	fd[1] = script_device("vf1", "fake");
	ck_assert_int_ne(script_reply(run.control, run.meta), FRAME_CREATED);
	assert_script_failed("device vf1 twice");
	close(fd[0]);
	close(fd[1]);
}
END_TEST

static const struct {
	uint16_t type, flags;
	uint64_t offset;
	size_t len;
	const char *message;
} parts[] = {
	{ FRAME_DEVICE_DATA, FRAME_PAYLOAD_CRC, 5, 100, "goes on at 5 where 0 is next" },
	{ FRAME_DEVICE_DATA, FRAME_LAST | FRAME_PAYLOAD_CRC, 0, 100, "its state is damaged" },
	{ FRAME_DEVICE_DATA, FRAME_LAST, 0, 0, "its state is damaged" },
	{ FRAME_DEVICE_DATA, 0, 0, 100, "checksum" },
	{ FRAME_DEVICE_LOADED, 0, 0, 0, "connection of device vf0" },
	{ FRAME_PAGES, 0, 0, 0, "connection of device vf0" },
	{ FRAME_DEVICE, 0, 0, 0, "connection of device vf0" },
};

START_TEST(stream_that_is_wrong_is_refused_and_leaves_nothing)
{
	static uint8_t bytes[100];
	int fd;

	script_start_devices(1, 1, CAPABILITY_DEVICES);
	script_connect();
	fd = script_device("vf0", "fake");
	ck_assert_int_eq(script_reply(run.control, run.meta), FRAME_CREATED);
	memset(bytes, 0xff, sizeof(bytes));
	data.frame = (struct frame){
		.type = parts[_i].type,
		.flags = parts[_i].flags,
		.offset = parts[_i].offset,
	};
	script_build(&data, NULL, 0, bytes, parts[_i].len);
	ck_assert_int_eq(send(fd, data.bytes, data.len, MSG_NOSIGNAL), (ssize_t)data.len);
	while (script_reply(run.control, run.meta))
		;
	assert_script_failed(parts[_i].message);
	close(fd);
}
END_TEST

static Suite *devices_suite(void)
{
	Suite *suite = suite_create("devices");
	TCase *tcase = tcase_create("devices");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, streams_arrive_whole_and_every_step_in_its_order, 0,
			    ARRAY_SIZE(ways));
	tcase_add_test(tcase, vm_is_not_stopped_before_initial_bytes_are_loaded);
	tcase_add_test(tcase, devices_of_a_vm_without_memory_in_use_may_stop_it);
	tcase_add_test(tcase, device_that_was_reconfigured_has_its_initial_bytes_loaded_anew);
	tcase_add_test(tcase, device_may_be_reconfigured_while_it_is_loaded_there);
	tcase_add_test(tcase, device_is_not_asked_what_is_to_come_before_every_read);
	tcase_add_test(tcase, ram_that_is_done_is_looked_at_now_and_then_while_devices_load);
	tcase_add_test(tcase, guest_is_not_slowed_down_for_devices_that_load);
	tcase_add_test(tcase, states_too_large_for_the_downtime_end_it_with_the_time_they_take);
	tcase_add_loop_test(tcase, step_that_fails_leaves_source_and_its_devices_running, 0,
			    2 * (FAKE_DEVICE_STEPS - 1));
	tcase_add_loop_test(tcase, device_that_is_gone_is_named_by_both, 0, ARRAY_SIZE(losses));
	tcase_add_test(tcase, device_that_cannot_go_back_is_named_and_the_vm_goes_on);
	tcase_add_test(tcase, several_devices_without_p2p_are_refused_before_anything_starts);
	tcase_add_test(tcase, one_device_needs_no_p2p);
	tcase_add_test(tcase, device_that_is_not_migratable_is_refused_with_its_reason);
	tcase_add_test(tcase, destination_with_fewer_devices_is_refused);
	tcase_add_test(tcase, destination_with_another_device_is_refused_by_name);
	tcase_add_test(tcase, destination_with_another_backend_is_refused_by_name);
	tcase_add_loop_test(tcase, hello_that_contradicts_itself_about_devices_is_refused, 0,
			    ARRAY_SIZE(hellos));
	tcase_add_test(tcase, device_that_comes_twice_is_refused);
	tcase_add_loop_test(tcase, stream_that_is_wrong_is_refused_and_leaves_nothing, 0,
			    ARRAY_SIZE(parts));
	tcase_add_test(tcase, cancel_before_the_pause_leaves_devices_running);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(devices_suite());
}
