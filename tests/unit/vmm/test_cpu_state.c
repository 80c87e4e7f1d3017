/* SPDX-License-Identifier: Apache-2.0 */
/* vCPUs, interrupt controllers and clocks, saved from a KVM that is made up and loaded
 * into another. */
#include <check.h>
#include <stdlib.h>

#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vmm/fake_kvm.h"
#include "vmm/kvm_state.h"
#include "vmm/x86/cpu_state.h"

static struct x86_vcpu_state state;
static struct kvm kvm;
static void *blob;
static size_t blob_len;

static struct x86_cpuid *some_cpuid(void)
{
	struct x86_cpuid *cpuid = calloc(1, sizeof(*cpuid));

	ck_assert_ptr_nonnull(cpuid);
	cpuid->head.nent = 2;
	cpuid->entries[0] = (struct kvm_cpuid_entry2){ .function = 0, .eax = 13 };
	cpuid->entries[1] = (struct kvm_cpuid_entry2){ .function = 1, .ecx = 0x1234 };
	return cpuid;
}

/* A vCPU of which each part is recognizable. */
static void setup(void)
{
	struct fake_vcpu *vcpu;

	fake_kvm_reset();
	kvm = fake_kvm_handle();
	vcpu = &fake.vcpus[0];
	for (unsigned int i = 0; i < KVM_PARTS; i++)
		memset(vcpu->parts[i], 0x10 + (int)i, FAKE_PART_MAX);
	memset(vcpu->xsave, 0x55, 4096);
	fake_msr_set(vcpu, 0x174, 0x10);
	fake_msr_set(vcpu, 0xc0000082, 0xffffffff81000000);
	fake_msr_set(vcpu, 0x277, 0x0007040600070406);
	state = (struct x86_vcpu_state){
		.cpuid = some_cpuid(),
		.time = { .khz = 2000000, .tsc = 1000, .deadline = 5000, .wall_clock = 0x7000 },
	};
	blob = NULL;
}

static void teardown(void)
{
	free(state.cpuid);
	free(blob);
}

static int save(struct error *err)
{
	struct kvm_msr_list_buffer *msrs = malloc(sizeof(*msrs));
	struct state_writer *writer = state_writer_new(err);
	int r = x86_msrs_find(&kvm, msrs, err);

	if (!r)
		r = x86_vcpu_save(&kvm, FAKE_VCPU, "vcpu0", &state, msrs, writer, err);
	if (!r)
		r = state_writer_finish(writer, &blob, &blob_len, err);
	state_writer_free(writer);
	free(msrs);
	return r;
}

static int load(int vcpu_fd, struct x86_vcpu_state *into, struct error *err)
{
	struct state_node root, node;
	int r = state_tree_open(blob, blob_len, &root, err);

	if (!r)
		r = state_child(&root, "vcpu0", &node, err);
	fake.call_count = 0;
	return r ? r : x86_vcpu_load(&kvm, vcpu_fd, &node, into, err);
}

static void save_ok(void)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(!save(&err), "%s", err.message);
}

static void load_ok(struct x86_vcpu_state *into)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(!load(FAKE_VCPU + 1, into, &err), "%s", err.message);
}

START_TEST(what_is_loaded_is_what_was_saved)
{
	struct x86_vcpu_state loaded = { 0 };
	const struct fake_vcpu *from = &fake.vcpus[0], *to = &fake.vcpus[1];

	save_ok();
	load_ok(&loaded);
	for (unsigned int i = 0; i < KVM_PARTS; i++)
		if (i != KVM_PART_SREGS)
			ck_assert_mem_eq(to->parts[i], from->parts[i], kvm_part_size(i));
	ck_assert_mem_eq(to->xsave, from->xsave, 4096);
	ck_assert_uint_eq(*fake_msr(&fake.vcpus[1], 0xc0000082), 0xffffffff81000000);
	ck_assert_uint_eq(*fake_msr(&fake.vcpus[1], 0x277), 0x0007040600070406);
	ck_assert_mem_eq(to->cpuid + 8, state.cpuid->entries, 2 * sizeof(state.cpuid->entries[0]));
	ck_assert_uint_eq(loaded.cpuid->head.nent, 2);
	ck_assert_uint_eq(loaded.time.tsc, 1000);
	ck_assert_uint_eq(loaded.time.deadline, 5000);
	ck_assert_uint_eq(loaded.time.wall_clock, 0x7000);
	free(loaded.cpuid);
}
END_TEST

START_TEST(mp_state_is_saved_first_and_events_last)
{
	fake.call_count = 0;
	save_ok();
	ck_assert_int_eq(fake_kvm_position(KVM_GET_MSR_INDEX_LIST), 0);
	ck_assert_int_eq(fake_kvm_position(KVM_GET_MP_STATE), 1);
	ck_assert_int_eq(fake_kvm_position(KVM_GET_VCPU_EVENTS), (int)fake.call_count - 1);
}
END_TEST

START_TEST(parts_are_loaded_in_the_order_that_they_depend_on)
{
	static const unsigned long order[] = {
		KVM_SET_CPUID2,	     KVM_SET_SREGS2,	KVM_SET_REGS,  KVM_SET_XSAVE,
		KVM_SET_XCRS,	     KVM_SET_DEBUGREGS, KVM_SET_LAPIC, KVM_SET_MSRS,
		KVM_SET_VCPU_EVENTS, KVM_SET_MP_STATE,
	};
	struct x86_vcpu_state loaded = { 0 };

	save_ok();
	load_ok(&loaded);
	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		ck_assert_int_eq(fake_kvm_position(order[i]), (int)i);
	ck_assert_uint_eq(fake.call_count, ARRAY_SIZE(order));
	free(loaded.cpuid);
}
END_TEST

START_TEST(time_and_the_wall_clock_are_left_to_the_resume)
{
	struct x86_vcpu_state loaded = { 0 };

	save_ok();
	load_ok(&loaded);
	ck_assert_uint_eq(*fake_msr(&fake.vcpus[1], 0x10), 0);
	ck_assert_uint_eq(*fake_msr(&fake.vcpus[1], 0x6e0), 0);
	ck_assert_uint_eq(*fake_msr(&fake.vcpus[1], 0x4b564d00), 0);
	free(loaded.cpuid);
}
END_TEST

START_TEST(another_tsc_frequency_is_set_before_all_else)
{
	struct x86_vcpu_state loaded = { 0 };

	save_ok();
	fake.vcpus[1].tsc_khz = 3000000;
	load_ok(&loaded);
	ck_assert_int_eq(fake_kvm_position(KVM_SET_TSC_KHZ), 0);
	ck_assert_uint_eq(fake.vcpus[1].tsc_khz, 2000000);
	free(loaded.cpuid);
}
END_TEST

static const struct {
	unsigned long request;
	const char *name;
} gets[] = {
	{ KVM_GET_MSR_INDEX_LIST, "KVM_GET_MSR_INDEX_LIST" },
	{ KVM_GET_MP_STATE, "KVM_GET_MP_STATE" },
	{ KVM_GET_REGS, "KVM_GET_REGS" },
	{ KVM_GET_SREGS2, "KVM_GET_SREGS2" },
	{ KVM_GET_XSAVE, "KVM_GET_XSAVE" },
	{ KVM_GET_XCRS, "KVM_GET_XCRS" },
	{ KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS" },
	{ KVM_GET_LAPIC, "KVM_GET_LAPIC" },
	{ KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS" },
};

START_TEST(a_call_that_fails_fails_the_save_and_is_named)
{
	struct error err = ERROR_INIT;

	fake_kvm_fail(gets[_i].request, 1, EIO);
	ck_assert_int_eq(save(&err), -EIO);
	ck_assert_msg(strstr(err.message, gets[_i].name), "%s", err.message);
}
END_TEST

/* The first reads how many banks of machine checks there are: without, there are none. */
START_TEST(msrs_that_cannot_be_read_fail_the_save)
{
	struct error err = ERROR_INIT;

	fake_kvm_fail(KVM_GET_MSRS, 2, EIO);
	ck_assert_int_eq(save(&err), -EIO);
	ck_assert_ptr_nonnull(strstr(err.message, "KVM_GET_MSRS"));
}
END_TEST

static const struct {
	unsigned long request;
	const char *name;
} sets[] = {
	{ KVM_SET_TSC_KHZ, "KVM_SET_TSC_KHZ" },	    { KVM_SET_CPUID2, "KVM_SET_CPUID2" },
	{ KVM_SET_SREGS2, "KVM_SET_SREGS2" },	    { KVM_SET_REGS, "KVM_SET_REGS" },
	{ KVM_SET_XSAVE, "KVM_SET_XSAVE" },	    { KVM_SET_XCRS, "KVM_SET_XCRS" },
	{ KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS" }, { KVM_SET_LAPIC, "KVM_SET_LAPIC" },
	{ KVM_SET_MSRS, "KVM_SET_MSRS" },	    { KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS" },
	{ KVM_SET_MP_STATE, "KVM_SET_MP_STATE" },
};

START_TEST(a_call_that_fails_fails_the_load_and_is_named)
{
	struct x86_vcpu_state loaded = { 0 };
	struct error err = ERROR_INIT;

	save_ok();
	fake.vcpus[1].tsc_khz = 3000000;
	fake_kvm_fail(sets[_i].request, 1, EIO);
	ck_assert_int_eq(load(FAKE_VCPU + 1, &loaded, &err), -EIO);
	ck_assert_msg(strstr(err.message, sets[_i].name), "%s", err.message);
	ck_assert_msg(strstr(err.message, "/vcpu0"), "%s", err.message);
	free(loaded.cpuid);
}
END_TEST

START_TEST(an_msr_that_is_refused_but_right_is_passed_over)
{
	struct x86_vcpu_state loaded = { 0 };

	save_ok();
	fake.refused_msr = 0x174;
	fake_msr_set(&fake.vcpus[1], 0x174, 0x10);
	load_ok(&loaded);
	ck_assert_uint_eq(*fake_msr(&fake.vcpus[1], 0xc0000082), 0xffffffff81000000);
	free(loaded.cpuid);
}
END_TEST

START_TEST(an_msr_that_is_refused_and_wrong_is_named)
{
	struct x86_vcpu_state loaded = { 0 };
	struct error err = ERROR_INIT;

	save_ok();
	fake.refused_msr = 0x174;
	ck_assert_int_eq(load(FAKE_VCPU + 1, &loaded, &err), -EPROTONOSUPPORT);
	ck_assert_msg(strstr(err.message, "0x174"), "%s", err.message);
	free(loaded.cpuid);
}
END_TEST

START_TEST(msrs_that_the_vcpu_does_not_have_are_not_saved)
{
	struct x86_vcpu_state loaded = { 0 };

	/* PAT is not listed and is there; MTRR bases are not listed and are not. */
	save_ok();
	load_ok(&loaded);
	ck_assert_ptr_null(fake_msr(&fake.vcpus[1], 0x200));
	free(loaded.cpuid);
}
END_TEST

START_TEST(without_sregs2_sregs_are_saved)
{
	struct x86_vcpu_state loaded = { 0 };

	fake.sregs2 = 0;
	save_ok();
	load_ok(&loaded);
	ck_assert_int_eq(fake_kvm_position(KVM_SET_SREGS), 1);
	free(loaded.cpuid);
}
END_TEST

START_TEST(sregs2_of_another_host_are_refused_where_kvm_has_none)
{
	struct x86_vcpu_state loaded = { 0 };
	struct error err = ERROR_INIT;

	save_ok();
	fake.sregs2 = 0;
	ck_assert_int_eq(load(FAKE_VCPU + 1, &loaded, &err), -EPROTONOSUPPORT);
	ck_assert_ptr_nonnull(strstr(err.message, "sregs2"));
	free(loaded.cpuid);
}
END_TEST

START_TEST(xsave_state_beyond_4096_bytes_goes_along)
{
	struct x86_vcpu_state loaded = { 0 };

	fake.xsave2 = 11008;
	fake.vcpus[0].xsave[10000] = 0x77;
	save_ok();
	ck_assert_int_ge(fake_kvm_position(KVM_GET_XSAVE2), 0);
	load_ok(&loaded);
	ck_assert_uint_eq(fake.vcpus[1].xsave[10000], 0x77);
	free(loaded.cpuid);
}
END_TEST

START_TEST(xsave_state_in_use_that_finds_no_room_is_refused)
{
	struct x86_vcpu_state loaded = { 0 };
	struct error err = ERROR_INIT;

	fake.xsave2 = 11008;
	fake.vcpus[0].xsave[10000] = 0x77;
	save_ok();
	fake.xsave2 = 0;
	ck_assert_int_eq(load(FAKE_VCPU + 1, &loaded, &err), -EPROTONOSUPPORT);
	ck_assert_msg(strstr(err.message, "11008"), "%s", err.message);
	free(loaded.cpuid);
}
END_TEST

START_TEST(xsave_state_not_in_use_needs_no_room)
{
	struct x86_vcpu_state loaded = { 0 };

	fake.xsave2 = 11008;
	save_ok();
	fake.xsave2 = 0;
	load_ok(&loaded);
	free(loaded.cpuid);
}
END_TEST

/* A node whose properties are right but for one. */
static int load_with(const char *name, const void *data, size_t len, struct error *err)
{
	static const char zeros[4096];
	struct state_writer *writer = state_writer_new(NULL);
	struct x86_vcpu_state loaded = { 0 };
	int r;

	state_begin(writer, "vcpu0", "vcpu", 1);
	x86_cpuid_save(state.cpuid, writer);
	state_put_u32(writer, "tsc-khz", 0);
	state_put_u64(writer, "tsc", 0);
	state_put_u64(writer, "tsc-deadline", 0);
	state_put_u64(writer, "wall-clock", 0);
	for (unsigned int i = KVM_PART_REGS; i < KVM_PARTS; i++)
		if (strcmp(kvm_part_name(i), name) && i != KVM_PART_SREGS)
			state_put_bytes(writer, kvm_part_name(i), zeros, kvm_part_size(i));
	state_put_u32(writer, "mp-state", 0);
	if (strcmp(name, "xsave"))
		state_put_bytes(writer, "xsave", zeros, 4096);
	if (strcmp(name, "msrs"))
		state_put_bytes(writer, "msrs", zeros, 0);
	if (data)
		state_put_bytes(writer, name, data, len);
	state_end(writer);
	ck_assert_int_eq(state_writer_finish(writer, &blob, &blob_len, NULL), 0);
	state_writer_free(writer);
	r = load(FAKE_VCPU + 1, &loaded, err);
	free(loaded.cpuid);
	return r;
}

START_TEST(a_part_that_is_missing_or_of_another_size_is_refused)
{
	static const char *const names[] = {
		"regs", "debugregs", "lapic", "events", "xsave", "msrs"
	};
	struct error err = ERROR_INIT;

	ck_assert_int_eq(load_with("regs", NULL, 0, &err), -ENOENT);
	ck_assert_msg(strstr(err.message, "regs"), "%s", err.message);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		free(blob);
		ck_assert_int_eq(load_with(names[i], "12345", 5, &err), -EINVAL);
		ck_assert_msg(strstr(err.message, names[i]), "%s", err.message);
	}
}
END_TEST

START_TEST(more_msrs_than_there_can_be_are_refused)
{
	size_t len = (KVM_MSRS_MAX + 1) * sizeof(struct kvm_msr_entry);
	char *many = calloc(1, len);
	struct error err = ERROR_INIT;

	ck_assert_int_eq(load_with("msrs", many, len, &err), -EINVAL);
	free(many);
}
END_TEST

static int load_cpuid(size_t len, struct error *err)
{
	struct state_writer *writer = state_writer_new(NULL);
	char *entries = calloc(1, len + 1);
	struct x86_cpuid *cpuid = NULL;
	struct state_node root, node;
	int r;

	state_begin(writer, "cpu", "cpu", 1);
	state_put_bytes(writer, "cpuid", entries, len);
	state_end(writer);
	ck_assert_int_eq(state_writer_finish(writer, &blob, &blob_len, NULL), 0);
	state_writer_free(writer);
	ck_assert_int_eq(state_tree_open(blob, blob_len, &root, NULL), 0);
	ck_assert_int_eq(state_child(&root, "cpu", &node, NULL), 0);
	r = x86_cpuid_load(&cpuid, &node, err);
	free(cpuid);
	free(entries);
	return r;
}

START_TEST(cpuid_of_no_entries_of_parts_of_one_and_of_too_many_is_refused)
{
	static const size_t wrong[] = { 0, 39, 41, 257 * 40 };
	struct error err = ERROR_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		ck_assert_int_eq(load_cpuid(wrong[i], &err), -EINVAL);
		free(blob);
	}
	ck_assert_int_eq(load_cpuid(256 * 40, &err), 0);
}
END_TEST

/* Time */

START_TEST(tscs_go_on_by_the_time_that_has_passed_and_stay_in_step)
{
	static const int fds[] = { FAKE_VCPU, FAKE_VCPU + 1 };
	const struct x86_time times[] = {
		{ .khz = 2000000, .tsc = 1000000, .offset = 500, .has_offset = true },
		{ .khz = 2000000, .tsc = 1000070, .offset = 570, .has_offset = true },
	};

	/* Another host: its TSCs stand at 7000 and offsets at 0. */
	fake_msr_set(&fake.vcpus[0], 0x10, 7000);
	fake_msr_set(&fake.vcpus[1], 0x10, 7000);
	ck_assert_int_eq(x86_time_set(fds, times, 2, 1000, NULL), 0);
	ck_assert_uint_eq(*fake_msr(&fake.vcpus[0], 0x10), 1000000 + 2000);
	ck_assert_uint_eq(*fake_msr(&fake.vcpus[1], 0x10), 1000070 + 2000);
}
END_TEST

START_TEST(without_offsets_tscs_are_written)
{
	static const int fds[] = { FAKE_VCPU };
	const struct x86_time time = { .khz = 2000000, .tsc = 1000, .deadline = 99 };

	fake.no_tsc_offset = true;
	ck_assert_int_eq(x86_time_set(fds, &time, 1, 1000000, NULL), 0);
	ck_assert_uint_eq(*fake_msr(&fake.vcpus[0], 0x10), 2001000);
	ck_assert_uint_eq(*fake_msr(&fake.vcpus[0], 0x6e0), 99);
}
END_TEST

START_TEST(a_time_that_cannot_be_set_is_an_error)
{
	static const int fds[] = { FAKE_VCPU };
	const struct x86_time time = {
		.khz = 1, .deadline = 99, .wall_clock = 0x7000, .has_offset = true
	};
	struct error err = ERROR_INIT;

	fake_kvm_fail(KVM_SET_DEVICE_ATTR, 1, EIO);
	ck_assert_int_eq(x86_time_set(fds, &time, 1, 0, &err), -EIO);
	fake_kvm_fail(KVM_SET_MSRS, 1, EIO);
	ck_assert_int_eq(x86_time_set(fds, &time, 1, 0, &err), -EIO);
	fake_kvm_fail(KVM_SET_MSRS, 2, EIO);
	ck_assert_int_eq(x86_time_set(fds, &time, 1, 0, &err), -EIO);
}
END_TEST

START_TEST(time_is_read_with_what_there_is_of_it)
{
	struct x86_time time;

	fake_msr_set(&fake.vcpus[0], 0x10, 12345);
	fake.no_tsc_offset = true;
	ck_assert_int_eq(x86_time_read(FAKE_VCPU, &time, NULL), 0);
	ck_assert_uint_eq(time.tsc, 12345);
	ck_assert_uint_eq(time.khz, 2000000);
	ck_assert(!time.has_offset);
	fake_kvm_fail(KVM_GET_MSRS, 1, EIO);
	ck_assert_int_eq(x86_time_read(FAKE_VCPU, &time, NULL), -EIO);
}
END_TEST

/* KVM's devices */

static int kvm_round_trip(struct error *err)
{
	struct state_writer *writer = state_writer_new(err);
	struct state_node root, node;
	int r = kvm_irqchip_save(&kvm, writer, err);

	if (!r)
		r = state_writer_finish(writer, &blob, &blob_len, err);
	state_writer_free(writer);
	if (!r)
		r = state_tree_open(blob, blob_len, &root, err);
	if (!r)
		r = state_child(&root, "irqchip", &node, err);
	memset(fake.chips, 0, sizeof(fake.chips));
	return r ? r : kvm_irqchip_load(&kvm, &node, err);
}

START_TEST(interrupt_controllers_are_as_they_were)
{
	struct error err = ERROR_INIT;

	fake.chips[KVM_IRQCHIP_PIC_SLAVE].chip.pic.imr = 0xab;
	fake.chips[KVM_IRQCHIP_IOAPIC].chip.ioapic.irr = 0x10;
	ck_assert_msg(!kvm_round_trip(&err), "%s", err.message);
	ck_assert_uint_eq(fake.chips[KVM_IRQCHIP_PIC_SLAVE].chip.pic.imr, 0xab);
	ck_assert_uint_eq(fake.chips[KVM_IRQCHIP_IOAPIC].chip.ioapic.irr, 0x10);
}
END_TEST

START_TEST(an_interrupt_controller_that_fails_is_an_error)
{
	struct error err = ERROR_INIT;

	for (unsigned int nth = 1; nth <= 3; nth++) {
		fake_kvm_fail(KVM_GET_IRQCHIP, nth, EIO);
		ck_assert_int_eq(kvm_round_trip(&err), -EIO);
		fake_kvm_fail(KVM_SET_IRQCHIP, nth, EIO);
		ck_assert_int_eq(kvm_round_trip(&err), -EIO);
		free(blob);
		blob = NULL;
	}
}
END_TEST

START_TEST(a_clock_goes_on_where_it_stopped_or_by_what_has_passed)
{
	const struct kvm_clock clock = { .clock = 1000, .realtime = 500 };
	uint64_t elapsed = 0;

	ck_assert_int_eq(kvm_clock_continue(&kvm, &clock, NULL), 0);
	ck_assert_uint_eq(fake.clock.clock, 1000);
	fake.realtime = 750;
	ck_assert_int_eq(kvm_clock_advance(&kvm, &clock, &elapsed, NULL), 0);
	ck_assert_uint_eq(fake.clock.clock, 1250);
	ck_assert_uint_eq(elapsed, 250);
}
END_TEST

START_TEST(a_host_whose_time_is_behind_does_not_set_the_clock_back)
{
	struct kvm_clock clock = { .clock = 1000, .realtime = 500 };
	uint64_t elapsed = 7;

	fake.realtime = 100;
	ck_assert_int_eq(kvm_clock_advance(&kvm, &clock, &elapsed, NULL), 0);
	ck_assert_uint_eq(fake.clock.clock, 1000);
	ck_assert_uint_eq(elapsed, 0);
	/* The same where KVM leaves it to us. */
	fake.adjust_clock = 0;
	clock.realtime = UINT64_MAX;
	ck_assert_int_eq(kvm_clock_advance(&kvm, &clock, &elapsed, NULL), 0);
	ck_assert_uint_eq(fake.clock.clock, 1000);
}
END_TEST

START_TEST(a_clock_that_cannot_be_had_or_set_is_an_error)
{
	struct kvm_clock clock = { 0 };
	uint64_t elapsed;

	fake_kvm_fail(KVM_GET_CLOCK, 1, EIO);
	ck_assert_int_eq(kvm_clock_read(&kvm, &clock, NULL), -EIO);
	fake_kvm_fail(KVM_SET_CLOCK, 1, EIO);
	ck_assert_int_eq(kvm_clock_continue(&kvm, &clock, NULL), -EIO);
	fake_kvm_fail(KVM_SET_CLOCK, 1, EIO);
	ck_assert_int_eq(kvm_clock_advance(&kvm, &clock, &elapsed, NULL), -EIO);
	fake_kvm_fail(KVM_GET_CLOCK, 1, EIO);
	ck_assert_int_eq(kvm_clock_advance(&kvm, &clock, &elapsed, NULL), -EIO);
}
END_TEST

static TCase *vcpu_case(void)
{
	TCase *tcase = tcase_create("vcpu");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, what_is_loaded_is_what_was_saved);
	tcase_add_test(tcase, mp_state_is_saved_first_and_events_last);
	tcase_add_test(tcase, parts_are_loaded_in_the_order_that_they_depend_on);
	tcase_add_test(tcase, time_and_the_wall_clock_are_left_to_the_resume);
	tcase_add_test(tcase, another_tsc_frequency_is_set_before_all_else);
	tcase_add_loop_test(tcase, a_call_that_fails_fails_the_save_and_is_named, 0,
			    ARRAY_SIZE(gets));
	tcase_add_test(tcase, msrs_that_cannot_be_read_fail_the_save);
	tcase_add_loop_test(tcase, a_call_that_fails_fails_the_load_and_is_named, 0,
			    ARRAY_SIZE(sets));
	tcase_add_test(tcase, an_msr_that_is_refused_but_right_is_passed_over);
	tcase_add_test(tcase, an_msr_that_is_refused_and_wrong_is_named);
	tcase_add_test(tcase, msrs_that_the_vcpu_does_not_have_are_not_saved);
	tcase_add_test(tcase, without_sregs2_sregs_are_saved);
	tcase_add_test(tcase, sregs2_of_another_host_are_refused_where_kvm_has_none);
	tcase_add_test(tcase, xsave_state_beyond_4096_bytes_goes_along);
	tcase_add_test(tcase, xsave_state_in_use_that_finds_no_room_is_refused);
	tcase_add_test(tcase, xsave_state_not_in_use_needs_no_room);
	tcase_add_test(tcase, a_part_that_is_missing_or_of_another_size_is_refused);
	tcase_add_test(tcase, more_msrs_than_there_can_be_are_refused);
	tcase_add_test(tcase, cpuid_of_no_entries_of_parts_of_one_and_of_too_many_is_refused);
	return tcase;
}

static TCase *time_case(void)
{
	TCase *tcase = tcase_create("time");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, tscs_go_on_by_the_time_that_has_passed_and_stay_in_step);
	tcase_add_test(tcase, without_offsets_tscs_are_written);
	tcase_add_test(tcase, a_time_that_cannot_be_set_is_an_error);
	tcase_add_test(tcase, time_is_read_with_what_there_is_of_it);
	tcase_add_test(tcase, interrupt_controllers_are_as_they_were);
	tcase_add_test(tcase, an_interrupt_controller_that_fails_is_an_error);
	tcase_add_test(tcase, a_clock_goes_on_where_it_stopped_or_by_what_has_passed);
	tcase_add_test(tcase, a_host_whose_time_is_behind_does_not_set_the_clock_back);
	tcase_add_test(tcase, a_clock_that_cannot_be_had_or_set_is_an_error);
	return tcase;
}

int main(void)
{
	Suite *suite = suite_create("CPU state");

	suite_add_tcase(suite, vcpu_case());
	suite_add_tcase(suite, time_case());
	return run_suite(suite);
}
