/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/unit/helpers/run_suite.h"
#include "vmm/x86/cpu.h"

static struct x86_cpuid cpuid;

static void add(uint32_t function, uint32_t index, bool indexed, uint32_t a, uint32_t b, uint32_t c,
		uint32_t d)
{
	cpuid.entries[cpuid.head.nent++] = (struct kvm_cpuid_entry2){
		.function = function,
		.index = index,
		.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
		.eax = a,
		.ebx = b,
		.ecx = c,
		.edx = d,
	};
}

/* What KVM on an Intel host offers, in short; with the host's own ids in it. */
static void intel(void)
{
	memset(&cpuid, 0, sizeof(cpuid));
	add(0, 0, false, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69);
	add(1, 0, false, 0xa0671, 0x77100800, 1U << 5 | 1U << 15 | 1, 0xf8bfbff);
	add(4, 0, true, 0xfc004121, 0x02c0003f, 0x3f, 0);
	add(4, 1, true, 0xfc004122, 0x02c0003f, 0x3f, 0);
	add(4, 2, true, 0xfc01c143, 0x03c0003f, 0x7ff, 0);
	add(4, 3, true, 0xfc3fc163, 0x03c0003f, 0x77fff, 0);
	add(4, 4, true, 0, 0, 0, 0);
	add(0xa, 0, false, 0x07300404, 0, 0, 0x603);
	add(0xb, 0, true, 1, 2, 0x100, 77);
	add(0xb, 1, true, 7, 64, 0x201, 77);
	add(0x1f, 0, true, 1, 2, 0x100, 77);
	add(0x80000000, 0, false, 0x80000008, 0, 0, 0);
	add(0x80000001, 0, false, 0, 0, 0x121, 0x2c100800);
	add(0x80000008, 0, false, 0x302e, 0x100, 0, 0);
	add(0x40000000, 0, false, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	add(0x40000001, 0, false, 0x01007efb, 0, 0, 0);
}

static void amd(void)
{
	memset(&cpuid, 0, sizeof(cpuid));
	add(0, 0, false, 0x10, 0x68747541, 0x444d4163, 0x69746e65);
	add(1, 0, false, 0xa20f12, 0x05100800, 1, 0xf8bfbff);
	add(0x80000000, 0, false, 0x80000026, 0, 0, 0);
	add(0x80000001, 0, false, 0, 0, 1U << 2 | 1U << 23 | 1, 0x2c100800);
	add(0x80000008, 0, false, 0x3030, 0x1000, 0x700f, 0);
	add(0x8000001d, 0, true, 0x4121, 0x1c0003f, 0x3f, 0);
	add(0x8000001d, 3, true, 0x3c163, 0x3c0003f, 0x7fff, 0);
	add(0x8000001e, 0, false, 9, 0x104, 0, 0);
	add(0x80000026, 0, true, 1, 2, 0x100, 9);
}

static const struct kvm_cpuid_entry2 *leaf(uint32_t function, uint32_t index)
{
	const struct kvm_cpuid_entry2 *found = NULL;

	for (uint32_t i = 0; i < cpuid.head.nent; i++) {
		const struct kvm_cpuid_entry2 *e = &cpuid.entries[i];

		if (e->function != function || e->index != index)
			continue;
		ck_assert_msg(!found, "leaf %#x.%u twice", function, index);
		found = e;
	}
	return found;
}

static const struct {
	struct x86_topology t;
	unsigned int cpu;
	uint32_t apic_id;
} ids[] = {
	{ { 1, 1, 1, 1 }, 0, 0 },    { { 1, 4, 1, 1 }, 3, 3 },
	{ { 2, 2, 1, 1 }, 3, 3 },    { { 1, 3, 1, 2 }, 2, 2 },
	{ { 1, 3, 1, 2 }, 3, 4 },    { { 1, 3, 1, 2 }, 5, 6 },
	{ { 2, 3, 1, 1 }, 5, 5 },    { { 2, 3, 2, 2 }, 6, 8 },
	{ { 2, 3, 2, 2 }, 12, 16 },  { { 2, 3, 2, 2 }, 23, 16 + 8 + 4 + 1 },
	{ { 1, 1, 1, 64 }, 63, 63 },
};

START_TEST(apic_id_packs_thread_core_die_and_package)
{
	ck_assert_uint_eq(x86_apic_id(&ids[_i].t, ids[_i].cpu), ids[_i].apic_id);
}
END_TEST

START_TEST(apic_ids_are_unique_and_rising)
{
	for (unsigned int t = 1; t <= 2; t++) {
		for (unsigned int c = 1; c <= 8; c++) {
			for (unsigned int d = 1; d <= 3; d++) {
				struct x86_topology topology = { t, c, d, 2 };

				for (unsigned int i = 1; i < t * c * d * 2; i++)
					ck_assert_uint_gt(x86_apic_id(&topology, i),
							  x86_apic_id(&topology, i - 1));
			}
		}
	}
}
END_TEST

START_TEST(leaf_1_describes_this_cpu)
{
	const struct x86_topology t = { 2, 3, 1, 1 };

	intel();
	x86_cpuid_for_vcpu(&cpuid, &t, 5);
	ck_assert_uint_eq(leaf(1, 0)->ebx, 5U << 24 | 8U << 16 | 0x0800);
	ck_assert_uint_ne(leaf(1, 0)->edx & 1U << 28, 0);
	ck_assert_uint_ne(leaf(1, 0)->ecx & 1U << 31, 0);
	ck_assert_uint_ne(leaf(1, 0)->ecx & 1U << 24, 0);
	ck_assert_uint_ne(leaf(1, 0)->ecx & 1U << 21, 0);
}
END_TEST

START_TEST(one_cpu_is_no_multi_threading)
{
	const struct x86_topology t = { 1, 1, 1, 1 };

	intel();
	x86_cpuid_for_vcpu(&cpuid, &t, 0);
	ck_assert_uint_eq(leaf(1, 0)->edx & 1U << 28, 0);
	ck_assert_uint_eq(leaf(1, 0)->ebx, 1U << 16 | 0x0800);
}
END_TEST

START_TEST(what_does_not_move_is_hidden)
{
	const struct x86_topology t = { 1, 1, 1, 1 };

	intel();
	x86_cpuid_for_vcpu(&cpuid, &t, 0);
	ck_assert_uint_eq(leaf(1, 0)->ecx & (1U << 5 | 1U << 15), 0);
	ck_assert_uint_eq(leaf(0xa, 0)->eax, 0);
	amd();
	x86_cpuid_for_vcpu(&cpuid, &t, 0);
	ck_assert_uint_eq(leaf(0x80000001, 0)->ecx & (1U << 2 | 1U << 23), 0);
}
END_TEST

START_TEST(leaf_0xb_has_threads_and_cores)
{
	const struct x86_topology t = { 2, 3, 1, 2 };

	intel();
	x86_cpuid_for_vcpu(&cpuid, &t, 7);
	ck_assert_uint_eq(leaf(0xb, 0)->eax, 1);
	ck_assert_uint_eq(leaf(0xb, 0)->ebx, 2);
	ck_assert_uint_eq(leaf(0xb, 0)->ecx, 0x100);
	ck_assert_uint_eq(leaf(0xb, 1)->eax, 3);
	ck_assert_uint_eq(leaf(0xb, 1)->ebx, 6);
	ck_assert_uint_eq(leaf(0xb, 1)->ecx, 0x201);
	ck_assert_uint_eq(leaf(0xb, 2)->ebx, 0);
	ck_assert_uint_eq(leaf(0xb, 2)->ecx, 2);
	for (uint32_t i = 0; i < 3; i++)
		ck_assert_uint_eq(leaf(0xb, i)->edx, 8 + 1);
	ck_assert_ptr_null(leaf(0x1f, 0));
	ck_assert_uint_eq(leaf(0, 0)->eax, 0xd);
}
END_TEST

START_TEST(dies_show_in_leaf_0x1f)
{
	const struct x86_topology t = { 2, 2, 2, 1 };

	intel();
	x86_cpuid_for_vcpu(&cpuid, &t, 6);
	ck_assert_uint_eq(leaf(0, 0)->eax, 0x1f);
	ck_assert_uint_eq(leaf(0x1f, 0)->ecx, 0x100);
	ck_assert_uint_eq(leaf(0x1f, 1)->ecx, 0x201);
	ck_assert_uint_eq(leaf(0x1f, 1)->eax, 2);
	ck_assert_uint_eq(leaf(0x1f, 1)->ebx, 4);
	ck_assert_uint_eq(leaf(0x1f, 2)->ecx, 0x502);
	ck_assert_uint_eq(leaf(0x1f, 2)->eax, 3);
	ck_assert_uint_eq(leaf(0x1f, 2)->ebx, 8);
	ck_assert_uint_eq(leaf(0x1f, 3)->ecx, 3);
	ck_assert_uint_eq(leaf(0x1f, 0)->edx, 6);
	/* Leaf 0xb knows no dies: its cores are the package's. */
	ck_assert_uint_eq(leaf(0xb, 1)->eax, 3);
	ck_assert_uint_eq(leaf(0xb, 1)->ebx, 8);
}
END_TEST

START_TEST(cpu_without_leaf_0xb_gets_it)
{
	const struct x86_topology t = { 1, 2, 1, 1 };

	intel();
	cpuid.entries[0].eax = 5;
	x86_cpuid_for_vcpu(&cpuid, &t, 1);
	ck_assert_uint_eq(leaf(0, 0)->eax, 0xb);
	ck_assert_uint_eq(leaf(0xb, 1)->ebx, 2);
}
END_TEST

START_TEST(caches_are_shared_by_core_and_die)
{
	const struct x86_topology t = { 2, 4, 2, 1 };

	intel();
	x86_cpuid_for_vcpu(&cpuid, &t, 0);
	for (uint32_t i = 0; i < 3; i++)
		ck_assert_uint_eq(leaf(4, i)->eax >> 14 & 0xfff, 1);
	ck_assert_uint_eq(leaf(4, 3)->eax >> 14 & 0xfff, 7);
	for (uint32_t i = 0; i < 4; i++)
		ck_assert_uint_eq(leaf(4, i)->eax >> 26, 7);
	ck_assert_uint_eq(leaf(4, 3)->eax & 0x3fff, 0x163);
	ck_assert_uint_eq(leaf(4, 4)->eax, 0);
}
END_TEST

START_TEST(amd_leaves_describe_this_cpu)
{
	const struct x86_topology t = { 2, 3, 1, 2 };

	amd();
	x86_cpuid_for_vcpu(&cpuid, &t, 9);
	ck_assert_uint_eq(leaf(0x80000008, 0)->ecx, 5 | 3U << 12);
	ck_assert_uint_eq(leaf(0x80000008, 0)->ebx, 0x1000);
	ck_assert_uint_ne(leaf(0x80000001, 0)->ecx & 1U << 22, 0);
	ck_assert_uint_ne(leaf(0x80000001, 0)->ecx & 1U << 1, 0);
	ck_assert_uint_eq(leaf(0x8000001e, 0)->eax, 8 + 3);
	ck_assert_uint_eq(leaf(0x8000001e, 0)->ebx, 5 | 1U << 8);
	ck_assert_uint_eq(leaf(0x8000001e, 0)->ecx, 1);
	ck_assert_ptr_null(leaf(0x80000026, 0));
	ck_assert_uint_eq(leaf(0x8000001d, 0)->eax >> 14, 1);
	ck_assert_uint_eq(leaf(0x8000001d, 3)->eax >> 14, 7);
	ck_assert_uint_eq(leaf(0xb, 1)->ebx, 6);
}
END_TEST

START_TEST(kvm_leaves_stay)
{
	const struct x86_topology t = { 1, 1, 1, 1 };

	intel();
	x86_cpuid_for_vcpu(&cpuid, &t, 0);
	ck_assert_uint_eq(leaf(0x40000000, 0)->ebx, 0x4b4d564b);
	ck_assert_uint_eq(leaf(0x40000001, 0)->eax, 0x01007efb);
}
END_TEST

START_TEST(full_table_loses_nothing_and_keeps_its_bounds)
{
	const struct x86_topology t = { 1, 1, 1, 1 };

	intel();
	while (cpuid.head.nent < X86_CPUID_ENTRIES)
		add(0x20000000 + cpuid.head.nent, 0, false, 0, 0, 0, 0);
	x86_cpuid_for_vcpu(&cpuid, &t, 0);
	ck_assert_uint_le(cpuid.head.nent, X86_CPUID_ENTRIES);
}
END_TEST

START_TEST(phys_bits_come_from_their_leaf_or_are_36)
{
	intel();
	ck_assert_uint_eq(x86_cpuid_phys_bits(&cpuid), 46);
	cpuid.head.nent = 2;
	ck_assert_uint_eq(x86_cpuid_phys_bits(&cpuid), 36);
}
END_TEST

START_TEST(error_names_the_ioctl)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(x86_cpuid_supported(-1, &cpuid, &err), -EBADF);
	ck_assert_ptr_nonnull(strstr(err.message, "KVM_GET_SUPPORTED_CPUID"));
	ck_assert_int_lt(x86_vcpu_setup(-1, 0, &cpuid, &ids[0].t, NULL, NULL, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "KVM_SET_CPUID2"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("CPUID");
	TCase *tc = tcase_create("cpuid");

	tcase_add_loop_test(tc, apic_id_packs_thread_core_die_and_package, 0, ARRAY_SIZE(ids));
	tcase_add_test(tc, apic_ids_are_unique_and_rising);
	tcase_add_test(tc, leaf_1_describes_this_cpu);
	tcase_add_test(tc, one_cpu_is_no_multi_threading);
	tcase_add_test(tc, what_does_not_move_is_hidden);
	tcase_add_test(tc, leaf_0xb_has_threads_and_cores);
	tcase_add_test(tc, dies_show_in_leaf_0x1f);
	tcase_add_test(tc, cpu_without_leaf_0xb_gets_it);
	tcase_add_test(tc, caches_are_shared_by_core_and_die);
	tcase_add_test(tc, amd_leaves_describe_this_cpu);
	tcase_add_test(tc, kvm_leaves_stay);
	tcase_add_test(tc, full_table_loses_nothing_and_keeps_its_bounds);
	tcase_add_test(tc, phys_bits_come_from_their_leaf_or_are_36);
	tcase_add_test(tc, error_names_the_ioctl);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
