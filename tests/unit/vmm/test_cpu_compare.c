/* SPDX-License-Identifier: Apache-2.0 */
/* A guest of one host on another: what is missing is named. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/unit/helpers/run_suite.h"
#include "vmm/x86/cpu_compare.h"

#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX

static struct x86_cpuid guest, host;
static uint32_t guest_khz;
static struct x86_host_cpu here;

static struct kvm_cpuid_entry2 *entry(struct x86_cpuid *cpuid, uint32_t function, uint32_t index)
{
	struct kvm_cpuid_entry2 *e;

	for (uint32_t i = 0; i < cpuid->head.nent; i++)
		if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
			return &cpuid->entries[i];
	ck_assert_uint_lt(cpuid->head.nent, X86_CPUID_ENTRIES);
	e = &cpuid->entries[cpuid->head.nent++];
	*e = (struct kvm_cpuid_entry2){ .function = function, .index = index };
	if (function == 7 || function == 0xd)
		e->flags = INDEXED;
	return e;
}

/* The same on both sides. */
static void fill(struct x86_cpuid *cpuid)
{
	memset(cpuid, 0, sizeof(*cpuid));
	memcpy(&entry(cpuid, 0, 0)->ebx, "Genu", 4);
	memcpy(&entry(cpuid, 0, 0)->edx, "ineI", 4);
	memcpy(&entry(cpuid, 0, 0)->ecx, "ntel", 4);
	entry(cpuid, 1, 0)->ecx = 1 << 20; /* sse4_2 */
	entry(cpuid, 7, 0)->ebx = 1 << 5;  /* avx2 */
	entry(cpuid, 0xd, 0)->eax = 7;
	entry(cpuid, 0xd, 2)->ebx = 576;
	entry(cpuid, 0x80000008, 0)->eax = 48 << 8 | 46;
}

static void setup(void)
{
	fill(&guest);
	fill(&host);
	guest_khz = 2000000;
	here = (struct x86_host_cpu){ .supported = &host, .tsc_khz = 2000000 };
}

static int check_as(const char *kind, uint32_t version, struct error *err)
{
	struct state_writer *writer = state_writer_new(NULL);
	struct state_node root, node;
	void *blob;
	size_t len;
	int r;

	if (kind) {
		state_begin(writer, "cpu", kind, version);
		state_end(writer);
	} else {
		x86_cpu_save(&guest, guest_khz, writer);
	}
	ck_assert_int_eq(state_writer_finish(writer, &blob, &len, err), 0);
	state_writer_free(writer);
	ck_assert_int_eq(state_tree_open(blob, len, &root, err), 0);
	ck_assert_int_eq(state_child(&root, "cpu", &node, err), 0);
	r = x86_cpu_check(&here, &node, err);
	free(blob);
	return r;
}

static void refused_for(const char *what)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(check_as(NULL, 0, &err), -EPROTONOSUPPORT);
	ck_assert_msg(strstr(err.message, what), "%s", err.message);
}

static void taken(void)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(!check_as(NULL, 0, &err), "%s", err.message);
}

START_TEST(the_same_cpu_will_do)
{
	taken();
}
END_TEST

START_TEST(a_cpu_that_has_more_will_do)
{
	entry(&host, 7, 0)->ebx |= 1 << 16;
	entry(&host, 0x80000008, 0)->eax = 57 << 8 | 52;
	taken();
}
END_TEST

START_TEST(what_is_missing_is_named_by_the_names_of_the_field)
{
	entry(&guest, 7, 0)->ebx |= 1 << 16;
	entry(&guest, 1, 0)->ecx |= 1 << 30;
	refused_for("rdrand, avx512f");
}
END_TEST

START_TEST(a_bit_without_a_name_is_told_by_its_place)
{
	entry(&guest, 0x80000021, 0)->eax = 1U << 31;
	refused_for("CPUID 0x80000021.0 eax bit 31");
}
END_TEST

START_TEST(a_leaf_that_the_host_has_not_lacks_all_its_bits)
{
	entry(&guest, 7, 1)->eax = 1 << 4;
	refused_for("avx_vnni");
}
END_TEST

START_TEST(what_kvm_emulates_anywhere_is_not_compared)
{
	/* x2APIC, TSC deadline, OSXSAVE, hypervisor; HTT; OSPKE; topology of AMD */
	entry(&guest, 1, 0)->ecx |= 1U << 21 | 1U << 24 | 1U << 27 | 1U << 31;
	entry(&guest, 1, 0)->edx |= 1U << 28;
	entry(&guest, 7, 0)->ecx |= 1U << 4;
	entry(&guest, 0x80000001, 0)->ecx |= 1U << 1 | 1U << 22;
	taken();
}
END_TEST

START_TEST(a_paravirtual_feature_that_kvm_lacks_is_named)
{
	entry(&guest, 0x40000001, 0)->eax = 1 << 11;
	refused_for("kvm_pv_ipi");
}
END_TEST

START_TEST(another_vendor_is_refused_and_named)
{
	memcpy(&entry(&host, 0, 0)->ebx, "Auth", 4);
	memcpy(&entry(&host, 0, 0)->edx, "enti", 4);
	memcpy(&entry(&host, 0, 0)->ecx, "cAMD", 4);
	refused_for("GenuineIntel, this host's a AuthenticAMD");
}
END_TEST

START_TEST(a_vendor_of_a_hostile_file_is_made_printable)
{
	memcpy(&entry(&guest, 0, 0)->ebx, "\x1b[2J", 4);
	refused_for("?[2J");
}
END_TEST

START_TEST(more_address_bits_than_here_are_refused)
{
	entry(&guest, 0x80000008, 0)->eax = 48 << 8 | 52;
	refused_for("physical addresses of 52 bits, this host's CPU 46");
	entry(&guest, 0x80000008, 0)->eax = 57 << 8 | 46;
	refused_for("virtual addresses of 57 bits");
}
END_TEST

START_TEST(xsave_state_that_lies_elsewhere_is_refused)
{
	entry(&guest, 0xd, 0)->eax |= 1 << 9;
	entry(&host, 0xd, 0)->eax |= 1 << 9;
	entry(&guest, 0xd, 9)->ebx = 2688;
	entry(&host, 0xd, 9)->ebx = 2432;
	refused_for("component 9");
}
END_TEST

START_TEST(another_tsc_frequency_needs_scaling)
{
	guest_khz = 2100000;
	refused_for("2100000 kHz, this host's at 2000000 kHz");
	here.tsc_scaling = true;
	taken();
}
END_TEST

START_TEST(a_tsc_frequency_that_is_hardly_another_will_do)
{
	guest_khz = 2000499;
	taken();
	guest_khz = 2000501;
	refused_for("TSC");
	guest_khz = 0;
	taken();
}
END_TEST

START_TEST(a_node_of_another_kind_or_newer_is_refused)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(check_as("vcpu", 1, &err), -EINVAL);
	ck_assert_int_eq(check_as("cpu", 2, &err), -EPROTONOSUPPORT);
	ck_assert_int_eq(check_as("cpu", 1, &err), -ENOENT);
}
END_TEST

START_TEST(names_are_those_of_proc_cpuinfo)
{
	ck_assert_str_eq(x86_feature_name(7, 0, X86_EBX, 16), "avx512f");
	ck_assert_str_eq(x86_feature_name(1, 0, X86_ECX, 25), "aes");
	ck_assert_str_eq(x86_feature_name(7, 0, X86_EBX, 31), "avx512vl");
	ck_assert_str_eq(x86_feature_name(7, 0, X86_ECX, 3), "pku");
	ck_assert_str_eq(x86_feature_name(7, 0, X86_EDX, 31), "spec_ctrl_ssbd");
	ck_assert_str_eq(x86_feature_name(1, 0, X86_EDX, 26), "sse2");
	ck_assert_str_eq(x86_feature_name(0x80000001, 0, X86_EDX, 29), "lm");
	ck_assert_str_eq(x86_feature_name(0x80000001, 0, X86_ECX, 22), "topoext");
	ck_assert_str_eq(x86_feature_name(0x80000008, 0, X86_EBX, 12), "ibpb");
	ck_assert_ptr_null(x86_feature_name(1, 0, X86_ECX, 16));
	ck_assert_ptr_null(x86_feature_name(1, 0, X86_ECX, 32));
	ck_assert_ptr_null(x86_feature_name(0x1234, 0, X86_ECX, 0));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("CPU comparison");
	TCase *tcase = tcase_create("compare");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, the_same_cpu_will_do);
	tcase_add_test(tcase, a_cpu_that_has_more_will_do);
	tcase_add_test(tcase, what_is_missing_is_named_by_the_names_of_the_field);
	tcase_add_test(tcase, a_bit_without_a_name_is_told_by_its_place);
	tcase_add_test(tcase, a_leaf_that_the_host_has_not_lacks_all_its_bits);
	tcase_add_test(tcase, what_kvm_emulates_anywhere_is_not_compared);
	tcase_add_test(tcase, a_paravirtual_feature_that_kvm_lacks_is_named);
	tcase_add_test(tcase, another_vendor_is_refused_and_named);
	tcase_add_test(tcase, a_vendor_of_a_hostile_file_is_made_printable);
	tcase_add_test(tcase, more_address_bits_than_here_are_refused);
	tcase_add_test(tcase, xsave_state_that_lies_elsewhere_is_refused);
	tcase_add_test(tcase, another_tsc_frequency_needs_scaling);
	tcase_add_test(tcase, a_tsc_frequency_that_is_hardly_another_will_do);
	tcase_add_test(tcase, a_node_of_another_kind_or_newer_is_refused);
	tcase_add_test(tcase, names_are_those_of_proc_cpuinfo);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
