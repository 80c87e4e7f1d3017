/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/vfio/migration_fixture.h"
#include "vfio/migration_region.h"

#define LEN 20000U
#define PRECOPY 12000U
#define PAGE 4096U

/* Where the data section is: trapped, mapped whole, mapped but for its ends. */
static const struct {
	uint64_t mapped_at, mapped;
} layouts[] = { { 0, 0 }, { PAGE, 3 * PAGE }, { 2 * PAGE, PAGE } };

static unsigned int layout;

static void make(struct fake_migration *fake)
{
	fake_migration_init(fake, LEN, PRECOPY);
	fake_migration_add_region(fake, 4 * PAGE, PAGE - 64, 3 * PAGE, layouts[layout].mapped_at,
				  layouts[layout].mapped);
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
	layout = 0;
	make_source();
	make_destination();
}

static void teardown(void)
{
	fake_migration_destroy(&source);
	fake_migration_destroy(&destination);
}

static void use_layout(unsigned int i)
{
	teardown();
	layout = i;
	make_source();
	make_destination();
}

START_TEST(a_device_moves_however_its_data_are_had)
{
	use_layout((unsigned int)_i);
	check_moves();
	ck_assert_uint_ge(stream.before_stop, PRECOPY);
	ck_assert_uint_eq(source.old_state, 0xabcd0000);
	ck_assert_uint_eq(destination.old_state, 0xabcd0001);
}
END_TEST

START_TEST(the_size_of_reads_and_writes_does_not_matter)
{
	static const size_t chunks[] = { 1, 7, 8, 9, 4095, 65536 };

	stream.chunk = chunks[_i];
	source.packet = 1000;
	check_moves();
}
END_TEST

START_TEST(it_is_a_region_backend)
{
	struct migratable *m = movable(&source);

	ck_assert_str_eq(m->ops->kind, "region");
	ck_assert(m->precopy);
	ck_assert(!m->p2p);
	device_migration_free(m);
}
END_TEST

/* p o s d: pending_bytes, data_offset, data_size, data read. O D S: data_offset read, data
 * and data_size written. */
START_TEST(the_order_of_accesses_is_the_protocols)
{
	struct migratable *from, *to;

	source.len = 3000;
	source.precopy = 1000;
	source.packet = 1000;
	source.tracing = destination.tracing = true;
	from = movable(&source);
	to = movable(&destination);
	ck_assert_int_eq(save_device(from), 0);
	/* begin; pending; one packet, none for now (twice: two reads); stop; pending; two
	 * packets; end */
	ck_assert_str_eq(source.trace, "w"
				       "p"
				       "posdpp"
				       "w"
				       "p"
				       "posdposdpp"
				       "w");
	ck_assert_int_eq(load_device(to), 0);
	ck_assert_str_eq(destination.trace, "w"
					    "ODSODSODS"
					    "w");
	check_loaded();
	device_migration_free(from);
	device_migration_free(to);
}
END_TEST

START_TEST(asking_what_is_pending_does_not_give_up_a_packet)
{
	struct migratable *m = movable(&source);
	struct migratable_pending p;

	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(m->ops->save_read(m, stream.data, 100, &err), 100);
	source.tracing = true;
	ck_assert_int_eq(m->ops->save_pending(m, &p, &err), 0);
	ck_assert_str_eq(source.trace, "");
	ck_assert_uint_eq(p.dirty, PRECOPY);
	ck_assert_uint_eq(p.stop_copy, PRECOPY);
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	device_migration_free(m);
}
END_TEST

/* What is under way when it is stopped is not there any more afterwards. */
START_TEST(a_packet_is_taken_whole_before_the_device_is_stopped)
{
	static const size_t parts[] = { 1, 7, 8, 9, 500, 1007, 1008, 1009, 1500 };
	struct migratable *from, *to;

	source.packet = 1000;
	from = movable(&source);
	to = movable(&destination);
	stream.len = 0;
	ck_assert_int_eq(from->ops->save_begin(from, &err), 0);
	stream.len = (size_t)from->ops->save_read(from, stream.data, parts[_i], &err);
	ck_assert_uint_eq(stream.len, parts[_i]);
	ck_assert_int_eq(from->ops->save_stop(from, &err), 0);
	ck_assert_int_eq(read_all(from), 0);
	ck_assert_int_eq(from->ops->save_end(from, &err), 0);
	ck_assert_msg(!load_device(to), "%s", err.message);
	check_loaded();
	device_migration_free(from);
	device_migration_free(to);
}
END_TEST

START_TEST(what_is_pending_is_asked_while_it_is_read)
{
	stream.chunk = 64;
	source.packet = 500;
	check_moves_while_asked();
}
END_TEST

START_TEST(a_smaller_section_takes_a_packet_in_pieces)
{
	fake_migration_destroy(&destination);
	fake_migration_init(&destination, LEN, PRECOPY);
	fake_migration_add_region(&destination, 0x20 + 700, 0x20, 700, 0, 0);
	destination.tracing = true;
	source.packet = 1500;
	source.len = 3000;
	source.precopy = 0;
	check_moves();
	/* 1500 in 700, 700, 100; twice */
	ck_assert_str_eq(destination.trace, "wODSODSODSODSODSODSw");
}
END_TEST

/* A packet of the source's arrives as one where the section here has room for it. */
START_TEST(a_packet_arrives_as_it_was_given_out)
{
	source.packet = 1500;
	source.len = 3100;
	source.precopy = 0;
	destination.tracing = true;
	stream.chunk = 64;
	check_moves();
	ck_assert_str_eq(destination.trace, "wODSODSODSw");
}
END_TEST

START_TEST(a_source_runs_on_whatever_access_fails)
{
	teardown();
	layout = (unsigned int)_i;
	check_source_survives(make_source, false);
	check_source_survives(make_source, true);
	check_rollback_survives(make_source);
	make_source();
	make_destination();
}
END_TEST

START_TEST(a_load_fails_at_the_access_that_fails)
{
	struct migratable *m = movable(&source);

	ck_assert_int_eq(save_device(m), 0);
	device_migration_free(m);
	fake_migration_destroy(&destination);
	check_load_fails(make_destination);
	make_destination();
}
END_TEST

/* Packets that the device says are somewhere else. */
static void check_misplaced(uint64_t offset, uint64_t size)
{
	struct migratable *m;

	teardown();
	make_source();
	make_destination();
	source.wrong_offset = offset;
	source.wrong_size = size;
	m = movable(&source);
	check_failed(save_device(m), "not in its migration region of 0x4000");
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	ck_assert(fake_migration_runs(&source));
	ck_assert_uint_eq(source.misuses, 0);
	device_migration_free(m);
}

START_TEST(data_outside_the_region_are_refused)
{
	check_misplaced(4 * PAGE, 0);
	check_misplaced(4 * PAGE - 1, 2);
	check_misplaced(0x1f, 1); /* in the registers */
	check_misplaced(8, 0);
	check_misplaced(UINT64_MAX, 0);
	check_misplaced(0, UINT64_MAX);
	check_misplaced(0, 4 * PAGE);
	check_misplaced(PAGE, UINT64_MAX - PAGE + 1);
	check_misplaced(1ULL << 63, 1ULL << 63);
}
END_TEST

START_TEST(a_section_outside_the_region_is_refused)
{
	static const uint64_t offsets[] = { 4 * PAGE, 0x1f, UINT64_MAX, 1ULL << 40 };
	struct migratable *from = movable(&source), *to = movable(&destination);

	ck_assert_int_eq(save_device(from), 0);
	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		destination.wrong_offset = offsets[i];
		fake_migration_reset(&destination);
		check_failed(load_device(to), "not in its migration region of 0x4000");
		ck_assert_uint_eq(destination.loaded_len, 0);
	}
	device_migration_free(from);
	device_migration_free(to);
}
END_TEST

START_TEST(pending_bytes_that_never_shrink_end_the_migration)
{
	struct migratable *m;
	uint64_t total = 0;
	ssize_t n;

	teardown();
	make_destination();
	fake_migration_init(&source, LEN, 0);
	fake_migration_add_region(&source, 64 * MIB, PAGE, 60 * MIB, PAGE, 63 * MIB);
	source.stuck_pending = 1000;
	m = movable(&source);
	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(m->ops->save_stop(m, &err), 0);
	do {
		static uint8_t buf[4 << 20];

		n = m->ops->save_read(m, buf, sizeof(buf), &err);
		total += n > 0 ? (uint64_t)n : 0;
	} while (n > 0 && total < 4 * GIB);
	check_failed((int)n, "pending_bytes does not fall below 0x3e8");
	ck_assert_uint_lt(total, GIB + 128 * MIB);
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	ck_assert(fake_migration_runs(&source));
	device_migration_free(m);
}
END_TEST

START_TEST(a_stopped_device_that_has_more_must_give_it_out)
{
	struct migratable *m;

	source.packet = 0;
	m = movable(&source);
	/* While it runs that is a pause. */
	check_failed(save_device(m), "0x4e20 bytes are pending, but it gives out none");
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	device_migration_free(m);
}
END_TEST

START_TEST(a_stream_cut_short_or_made_up_is_refused)
{
	struct migratable *from = movable(&source), *to = movable(&destination);
	size_t len;

	ck_assert_int_eq(save_device(from), 0);
	len = stream.len;
	for (size_t cut = 1; cut < 20; cut++) {
		fake_migration_reset(&destination);
		stream.len = len - cut;
		check_failed(load_device(to), "ends within a packet");
		ck_assert(!fake_migration_runs(&destination));
	}
	stream.len = 8;
	memset(stream.data, 0, 8);
	fake_migration_reset(&destination);
	check_failed(load_device(to), "packet of 0 bytes");
	/* Longer than any section: in pieces, until the device has enough of it. */
	stream.len = sizeof(stream.data);
	memset(stream.data, 0xff, 8);
	fake_migration_reset(&destination);
	check_failed(load_device(to), "more than it can take");
	device_migration_free(from);
	device_migration_free(to);
}
END_TEST

START_TEST(a_driver_in_error_is_named)
{
	struct migratable *m = movable(&source);

	source.old_state = 0xabcd0006;
	check_failed(m->ops->save_begin(m, &err), "device_state 0xabcd0006");
	check_message("only a reset");
	check_failed(m->ops->rollback(m, &err), "only a reset");
	fake_migration_reset(&source);
	ck_assert_int_eq(save_device(m), 0);
	device_migration_free(m);
}
END_TEST

START_TEST(a_state_the_device_refuses_fails_when_it_shall_run)
{
	struct migratable *from = movable(&source), *to = movable(&destination);

	ck_assert_int_eq(save_device(from), 0);
	destination.refuses_state = true;
	check_failed(load_device(to), "resuming -> running");
	check_message("run");
	device_migration_free(from);
	device_migration_free(to);
}
END_TEST

START_TEST(a_device_reset_under_way_does_not_move)
{
	struct migratable *m = movable(&source);

	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(read_all(m), 0);
	fake_migration_reset(&source);
	check_failed(m->ops->save_stop(m, &err), "it was reset meanwhile");
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	ck_assert(fake_migration_runs(&source));
	device_migration_free(m);
}
END_TEST

START_TEST(nothing_is_loaded_into_a_device_that_runs)
{
	struct migratable *m = movable(&destination);

	check_failed(m->ops->load_write(m, "x", 1, &err), "running");
	device_migration_free(m);
}
END_TEST

START_TEST(a_state_is_not_cut_off)
{
	struct migratable *m = movable(&source);

	ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
	ck_assert_int_eq(m->ops->save_stop(m, &err), 0);
	check_failed(m->ops->save_end(m, &err), "not read to the end");
	ck_assert_int_eq(m->ops->rollback(m, &err), 0);
	device_migration_free(m);
}
END_TEST

/* All arcs of the protocol's description, and no other. */
START_TEST(every_pair_of_states_is_an_arc_or_refused)
{
	static const uint8_t arcs[][2] = { { 1, 3 }, { 3, 2 }, { 1, 2 }, { 2, 0 }, { 3, 1 },
					   { 2, 1 }, { 0, 1 }, { 1, 4 }, { 4, 1 }, { 1, 0 } };

	for (uint32_t from = 0; from < 8; from++)
		for (uint32_t to = 0; to < 8; to++) {
			bool exists = false;

			for (size_t i = 0; i < ARRAY_SIZE(arcs); i++)
				exists |= arcs[i][0] == from && arcs[i][1] == to;
			ck_assert_int_eq(migration_region_arc(from, to), exists);
		}
	ck_assert_str_eq(migration_region_state_name(6), "error");
	ck_assert_str_eq(migration_region_state_name(7), "invalid");
	ck_assert_str_eq(migration_region_state_name(0xf003), "pre-copy");
}
END_TEST

static void refused(const char *part)
{
	struct migratable *m = migratable_new(&source);
	const char *why = device_migration_refusal(m);

	ck_assert_ptr_nonnull(why);
	ck_assert_msg(strstr(why, part) && strstr(why, "0000:01:10.0"), "%s", why);
	device_migration_free(m);
}

START_TEST(a_region_that_cannot_be_used_is_refused)
{
	source.region.size = 0x20;
	refused("has 0x20 bytes: it cannot be used");
	source.region.size = 4 * PAGE;
	source.region.writable = false;
	refused("cannot be both read and written");
	source.region.writable = true;
	source.region.subtype = 2;
	refused("neither migration features nor a migration region");
	source.region.subtype = 1;
	source.fail_at = source.calls + 2;
	refused("region_info fails");
}
END_TEST

/* What a server shares it could cut short, and what is behind the end cannot be read. */
START_TEST(a_file_that_may_shrink_is_not_mapped)
{
	use_layout(1);
	source.region.map_fd = source.memfd;
	source.tracing = true;
	check_moves();
	ck_assert_ptr_nonnull(strchr(source.trace, 'd'));
}
END_TEST

START_TEST(where_mapping_fails_data_go_by_accesses)
{
	struct migratable *m;

	use_layout(1);
	source.tracing = true;
	source.fail_at = source.calls + 4; /* feature, two regions, map */
	m = movable(&source);
	ck_assert_uint_eq(source.failed, 1);
	ck_assert_int_eq(save_device(m), 0);
	ck_assert_ptr_nonnull(strchr(source.trace, 'd'));
	device_migration_free(m);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("migration_region");
	TCase *tc = tcase_create("region");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_device_moves_however_its_data_are_had, 0, ARRAY_SIZE(layouts));
	tcase_add_loop_test(tc, the_size_of_reads_and_writes_does_not_matter, 0, 6);
	tcase_add_test(tc, it_is_a_region_backend);
	tcase_add_test(tc, the_order_of_accesses_is_the_protocols);
	tcase_add_test(tc, asking_what_is_pending_does_not_give_up_a_packet);
	tcase_add_loop_test(tc, a_packet_is_taken_whole_before_the_device_is_stopped, 0, 9);
	tcase_add_test(tc, what_is_pending_is_asked_while_it_is_read);
	tcase_add_test(tc, a_smaller_section_takes_a_packet_in_pieces);
	tcase_add_test(tc, a_packet_arrives_as_it_was_given_out);
	tcase_add_loop_test(tc, a_source_runs_on_whatever_access_fails, 0, ARRAY_SIZE(layouts));
	tcase_add_test(tc, a_load_fails_at_the_access_that_fails);
	tcase_add_test(tc, data_outside_the_region_are_refused);
	tcase_add_test(tc, a_section_outside_the_region_is_refused);
	tcase_add_test(tc, pending_bytes_that_never_shrink_end_the_migration);
	tcase_add_test(tc, a_stopped_device_that_has_more_must_give_it_out);
	tcase_add_test(tc, a_stream_cut_short_or_made_up_is_refused);
	tcase_add_test(tc, a_driver_in_error_is_named);
	tcase_add_test(tc, a_state_the_device_refuses_fails_when_it_shall_run);
	tcase_add_test(tc, a_device_reset_under_way_does_not_move);
	tcase_add_test(tc, nothing_is_loaded_into_a_device_that_runs);
	tcase_add_test(tc, a_state_is_not_cut_off);
	tcase_add_test(tc, every_pair_of_states_is_an_arc_or_refused);
	tcase_add_test(tc, a_region_that_cannot_be_used_is_refused);
	tcase_add_test(tc, a_file_that_may_shrink_is_not_mapped);
	tcase_add_test(tc, where_mapping_fails_data_go_by_accesses);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
