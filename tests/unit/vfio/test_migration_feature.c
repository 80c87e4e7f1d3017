/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/vfio/migration_fixture.h"

#define LEN 50000U
#define PRECOPY 30000U

static const uint64_t kinds[] = {
	VFIO_MIGRATION_STOP_COPY,
	VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P,
	VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY,
	VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY | VFIO_MIGRATION_P2P,
};

static uint64_t kind;

static void make(struct fake_migration *fake)
{
	fake_migration_init(fake, LEN, PRECOPY);
	fake->has_feature = fake->has_data_size = fake->has_reinit = true;
	fake->flags = kind;
}

static void make_source(void)
{
	make(&source);
	stream.chunk = 4096;
}

static void make_destination(void)
{
	make(&destination);
}

static void setup(void)
{
	kind = kinds[3];
	make_source();
	make_destination();
}

static void teardown(void)
{
	fake_migration_destroy(&source);
	fake_migration_destroy(&destination);
}

START_TEST(every_kind_of_device_moves)
{
	source.flags = kinds[_i];
	destination.flags = kinds[_i];
	check_moves();
	ck_assert_uint_eq(stream.before_stop, kinds[_i] & VFIO_MIGRATION_PRE_COPY ? PRECOPY : 0);
	ck_assert_int_eq(source.fd, -1);
	ck_assert_int_eq(destination.fd, -1);
}
END_TEST

START_TEST(what_the_device_can_is_told)
{
	struct migratable *m;

	source.flags = kinds[_i];
	m = movable(&source);
	ck_assert_str_eq(m->ops->kind, "feature");
	ck_assert_str_eq(m->id, "vf0");
	ck_assert_int_eq(m->precopy, (kinds[_i] & VFIO_MIGRATION_PRE_COPY) != 0);
	ck_assert_int_eq(m->p2p, (kinds[_i] & VFIO_MIGRATION_P2P) != 0);
	device_migration_free(m);
}
END_TEST

START_TEST(the_size_of_reads_and_writes_does_not_matter)
{
	stream.chunk = 1;
	source.len = destination.len = 3000;
	source.precopy = 1000;
	check_moves();
}
END_TEST

START_TEST(pending_bytes_are_the_devices)
{
	struct migratable *m = movable(&source);
	struct migratable_pending p;

	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert_uint_eq(p.initial, PRECOPY);
	ck_assert_uint_eq(p.dirty, 0);
	ck_assert_uint_eq(p.stop_copy, LEN);
	ck_assert(!p.reinit);
	ck_assert_int_eq(read_all(m), 0);
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert_uint_eq(p.initial, 0);
	ck_assert_uint_eq(p.dirty, 100);
	ck_assert_uint_eq(p.stop_copy, LEN - PRECOPY);
	/* Reconfigured: its initial bytes begin anew, told once. */
	source.reinit = true;
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert(p.reinit);
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert(!p.reinit);
	/* Precopy info is for PRE_COPY only. */
	ck_assert_int_eq(m->ops->save_stop(m, &err), 0);
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert_uint_eq(p.initial + p.dirty, 0);
	ck_assert_uint_eq(p.stop_copy, LEN - PRECOPY);
	ck_assert_int_eq(read_all(m), 0);
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert_uint_eq(p.stop_copy, 0);
	device_migration_free(m);
}
END_TEST

/* Flags of the precopy info are rubbish before INFOv2 was agreed on. */
START_TEST(without_infov2_nothing_begins_anew)
{
	struct migratable_pending p;
	struct migratable *m;

	source.has_reinit = source.has_data_size = false;
	m = movable(&source);
	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert_uint_eq(p.initial, PRECOPY);
	ck_assert_uint_eq(p.stop_copy, 0);
	ck_assert(!p.reinit);
	device_migration_free(m);
}
END_TEST

/* As over vfio-user, which has no word for it. */
START_TEST(without_precopy_info_the_first_pause_ends_the_initial_bytes)
{
	struct migratable_pending p;
	struct migratable *m;

	source.no_precopy_info = true;
	m = movable(&source);
	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert_uint_eq(p.initial, LEN);
	ck_assert_int_eq(read_all(m), 0);
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert_uint_eq(p.initial, 0);
	device_migration_free(m);
}
END_TEST

START_TEST(initial_bytes_of_which_nobody_knows_how_many_are_some)
{
	struct migratable_pending p;
	struct migratable *m;

	source.no_precopy_info = true;
	source.has_data_size = false;
	m = movable(&source);
	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert_uint_eq(p.initial, 1);
	ck_assert_int_eq(read_all(m), 0);
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert_uint_eq(p.initial, 0);
	device_migration_free(m);
}
END_TEST

START_TEST(what_is_pending_is_asked_while_it_is_read)
{
	stream.chunk = 64;
	check_moves_while_asked();
}
END_TEST

START_TEST(a_pause_is_not_the_end)
{
	struct migratable *m = movable(&source);
	uint8_t buf[64];

	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(read_all(m), 0);
	ck_assert_int_eq(m->ops->save_read(m, buf, sizeof(buf), &err), 0);
	source.precopy += 10; /* it changed */
	ck_assert_int_eq(m->ops->save_read(m, buf, sizeof(buf), &err), 10);
	ck_assert_int_eq(m->ops->save_stop(m, &err), 0);
	ck_assert_int_eq(m->ops->save_read(m, buf, sizeof(buf), &err), sizeof(buf));
	/* Its state would be cut off. */
	check_failed(m->ops->save_end(m, &err), "not read to the end");
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	ck_assert(fake_migration_runs(&source));
	device_migration_free(m);
}
END_TEST

START_TEST(a_stopped_device_that_gives_nothing_times_out)
{
	struct migratable *m = movable(&source);
	uint8_t buf[64];
	ssize_t r;

	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(m->ops->save_stop(m, &err), 0);
	source.slow = 1;
	r = m->ops->save_read(m, buf, sizeof(buf), &err);
	ck_assert_int_eq(r, -ETIMEDOUT);
	check_message("STOP_COPY");
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	ck_assert(fake_migration_runs(&source));
	device_migration_free(m);
}
END_TEST

START_TEST(a_state_without_an_end_ends_the_migration)
{
	static uint8_t buf[16 << 20];
	struct migratable *m = movable(&source);
	uint64_t total = 0;
	ssize_t n;

	source.endless = true;
	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(m->ops->save_stop(m, &err), 0);
	while ((n = m->ops->save_read(m, buf, sizeof(buf), &err)) > 0) {
		total += (uint64_t)n;
		ck_assert_uint_lt(total, 2 * GIB);
	}
	check_failed((int)n, "bytes were read in STOP_COPY, many times what it said");
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	ck_assert(fake_migration_runs(&source));
	device_migration_free(m);
}
END_TEST

START_TEST(a_source_runs_on_whatever_call_fails)
{
	teardown();
	kind = kinds[_i];
	check_source_survives(make_source, false);
	check_source_survives(make_source, true);
	check_rollback_survives(make_source);
	make_source();
	make_destination();
}
END_TEST

START_TEST(a_load_fails_at_the_call_that_fails)
{
	struct migratable *m;

	teardown();
	kind = kinds[_i];
	make_source();
	m = movable(&source);
	ck_assert_int_eq(save_device(m), 0);
	device_migration_free(m);
	check_load_fails(make_destination);
	make_destination();
}
END_TEST

START_TEST(error_is_named_with_the_arc_and_left_by_a_reset)
{
	struct migratable *m = movable(&source);

	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	source.fail_in_error = true;
	source.fail_at = source.calls + 2;
	check_failed(m->ops->save_stop(m, &err), "PRE_COPY_P2P -> STOP_COPY");
	check_message("stop");
	check_message("ERROR, which only a reset of it ends");
	check_failed(m->ops->rollback(m, &err), "ERROR, which only a reset of it ends");
	check_failed(m->ops->save_begin(m, &err), "ERROR");
	source.fail_in_error = false;
	ck_assert_int_eq(source.ops.reset(&source.transport, &err), 0);
	error_clear(&err);
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	ck_assert_msg(!save_device(m), "%s", err.message);
	device_migration_free(m);
}
END_TEST

/* The guest's driver reset it: what streamed so far belongs to what it was. */
START_TEST(a_device_reset_under_way_does_not_move)
{
	struct migratable *m = movable(&source);
	int r;

	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(read_all(m), 0);
	fake_migration_reset(&source);
	close(source.fd); /* the kernel's end of it */
	source.fd = -1;
	r = m->ops->quiesce(m, &err);
	ck_assert_int_lt(r, 0);
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	ck_assert(fake_migration_runs(&source));
	device_migration_free(m);
	source.misuses = 0;
}
END_TEST

START_TEST(a_state_the_device_refuses_fails_the_load)
{
	struct migratable *from = movable(&source), *to = movable(&destination);

	ck_assert_int_eq(save_device(from), 0);
	destination.refuses_state = true;
	check_failed(load_device(to), "RESUMING -> STOP");
	check_message("take what was loaded");
	device_migration_free(from);
	device_migration_free(to);
}
END_TEST

START_TEST(nothing_is_loaded_into_a_device_that_runs)
{
	struct migratable *m = movable(&destination);

	check_failed(m->ops->load_write(m, "x", 1, &err), "RUNNING");
	ck_assert_uint_eq(destination.loaded_len, 0);
	device_migration_free(m);
}
END_TEST

START_TEST(a_device_that_does_not_run_is_not_saved)
{
	struct migratable *m = movable(&source);

	source.state = VFIO_DEVICE_STATE_STOP;
	check_failed(m->ops->save_begin(m, &err), "STOP, not RUNNING");
	source.state = 77;
	check_failed(m->ops->save_begin(m, &err), "77, which does not exist");
	device_migration_free(m);
}
END_TEST

/* As a mediated device is that was loaded in part by a process before this one. */
START_TEST(a_device_left_in_a_migration_is_brought_back)
{
	static const uint32_t states[] = {
		VFIO_DEVICE_STATE_ERROR,     VFIO_DEVICE_STATE_STOP,
		VFIO_DEVICE_STATE_STOP_COPY, VFIO_DEVICE_STATE_RESUMING,
		VFIO_DEVICE_STATE_PRE_COPY,  VFIO_DEVICE_STATE_RUNNING_P2P,
	};

	source.state = states[_i];
	check_moves();
}
END_TEST

static void refused(const char *part)
{
	struct migratable *m = migratable_new(&source);
	const char *why = device_migration_refusal(m);
	struct migratable_pending p;
	uint8_t byte;

	ck_assert_ptr_nonnull(why);
	ck_assert_msg(strstr(why, part) && strstr(why, "0000:01:10.0"), "%s", why);
	ck_assert_str_eq(m->ops->kind, "none");
	/* Every call says so, too. */
	check_failed(m->ops->save_begin(m, &err), part);
	check_failed(m->ops->save_pending(m, &p, &err), part);
	check_failed((int)m->ops->save_read(m, &byte, 1, &err), part);
	check_failed(m->ops->quiesce(m, &err), part);
	check_failed(m->ops->save_stop(m, &err), part);
	check_failed(m->ops->save_end(m, &err), part);
	check_failed(m->ops->load_begin(m, &err), part);
	check_failed(m->ops->load_write(m, &byte, 1, &err), part);
	check_failed(m->ops->load_end(m, &err), part);
	check_failed(m->ops->resume(m, &err), part);
	check_failed(m->ops->run(m, &err), part);
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	device_migration_free(m);
}

START_TEST(a_device_whose_state_cannot_be_had_says_why)
{
	source.has_feature = false;
	refused("its driver does not give out the device's state");
	source.ops.migration_read = NULL;
	refused("its driver does not give out the device's state");
}
END_TEST

START_TEST(migration_without_stop_copy_is_none)
{
	source.flags = VFIO_MIGRATION_P2P;
	refused("without STOP_COPY");
}
END_TEST

START_TEST(a_device_that_fails_the_question_is_not_moved)
{
	source.fail_at = 1;
	source.fail_all = true;
	refused("feature 1 fails");
}
END_TEST

/* Asked for, it is that or nothing: the device's own ways may not carry what it does. */
START_TEST(a_plugin_that_does_not_do_is_the_reason)
{
	const struct device_migration_options options = {
		.id = "vf0",
		.plugin_path = "/nonexistent.so",
	};
	struct migratable *m = device_migration_new(&source.transport, &options, &err);

	ck_assert_ptr_nonnull(strstr(device_migration_refusal(m), "/nonexistent.so"));
	ck_assert_str_eq(m->ops->kind, "none");
	ck_assert_uint_eq(source.calls, 0);
	check_failed(m->ops->save_begin(m, &err), "/nonexistent.so");
	device_migration_free(m);
}
END_TEST

START_TEST(a_device_in_error_without_a_reset_is_refused)
{
	source.transport.resettable = false;
	source.state = VFIO_DEVICE_STATE_ERROR;
	refused("ERROR, which only a reset of it ends");
	source.state = VFIO_DEVICE_STATE_RESUMING;
	source.refuses_state = true;
	refused("RESUMING -> STOP");
}
END_TEST

START_TEST(the_feature_goes_before_the_region)
{
	struct migratable *m;

	fake_migration_add_region(&source, 8192, 4096, 512, 0, 0);
	m = movable(&source);
	ck_assert_str_eq(m->ops->kind, "feature");
	device_migration_free(m);
	source.has_feature = false;
	m = movable(&source);
	ck_assert_str_eq(m->ops->kind, "region");
	device_migration_free(m);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("migration_feature");
	TCase *tc = tcase_create("feature");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, every_kind_of_device_moves, 0, ARRAY_SIZE(kinds));
	tcase_add_loop_test(tc, what_the_device_can_is_told, 0, ARRAY_SIZE(kinds));
	tcase_add_test(tc, the_size_of_reads_and_writes_does_not_matter);
	tcase_add_test(tc, pending_bytes_are_the_devices);
	tcase_add_test(tc, without_infov2_nothing_begins_anew);
	tcase_add_test(tc, without_precopy_info_the_first_pause_ends_the_initial_bytes);
	tcase_add_test(tc, initial_bytes_of_which_nobody_knows_how_many_are_some);
	tcase_add_test(tc, what_is_pending_is_asked_while_it_is_read);
	tcase_add_test(tc, a_pause_is_not_the_end);
	tcase_add_test(tc, a_stopped_device_that_gives_nothing_times_out);
	tcase_add_test(tc, a_state_without_an_end_ends_the_migration);
	tcase_add_loop_test(tc, a_source_runs_on_whatever_call_fails, 0, ARRAY_SIZE(kinds));
	tcase_add_loop_test(tc, a_load_fails_at_the_call_that_fails, 0, ARRAY_SIZE(kinds));
	tcase_add_test(tc, error_is_named_with_the_arc_and_left_by_a_reset);
	tcase_add_test(tc, a_device_reset_under_way_does_not_move);
	tcase_add_test(tc, a_state_the_device_refuses_fails_the_load);
	tcase_add_test(tc, nothing_is_loaded_into_a_device_that_runs);
	tcase_add_test(tc, a_device_that_does_not_run_is_not_saved);
	tcase_add_test(tc, a_device_whose_state_cannot_be_had_says_why);
	tcase_add_test(tc, migration_without_stop_copy_is_none);
	tcase_add_test(tc, a_device_that_fails_the_question_is_not_moved);
	tcase_add_test(tc, a_plugin_that_does_not_do_is_the_reason);
	tcase_add_loop_test(tc, a_device_left_in_a_migration_is_brought_back, 0, 6);
	tcase_add_test(tc, a_device_in_error_without_a_reset_is_refused);
	tcase_add_test(tc, the_feature_goes_before_the_region);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
