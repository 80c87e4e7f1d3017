/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vmm/guest_ram.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/layout.h"

/* Lengths of entries by their type: MultiProcessor Specification 1.4, 4.3. */
static const unsigned int lengths[] = { 20, 8, 8, 8, 8 };

struct counts {
	unsigned int entries[5], boot_cpus;
	bool irqs[16];
};

static uint32_t ids[64];
static struct guest_memory *memory;

static void setup(void)
{
	memory = guest_ram(4 * MIB);
	for (uint32_t i = 0; i < 64; i++)
		ids[i] = i;
}

static void teardown(void)
{
	guest_memory_free(memory);
}

/* As Linux does: 16 bytes apart in the last KiB below 640 KiB. */
static const uint8_t *find_table(void)
{
	for (uint64_t gpa = 639 * KIB; gpa < 640 * KIB; gpa += 16) {
		const uint8_t *pointer = guest_memory_ptr(memory, gpa, 16);

		if (memcmp(pointer, "_MP_", 4) != 0)
			continue;
		ck_assert_uint_eq(pointer[8], 1);
		ck_assert_uint_eq(pointer[9], 4);
		ck_assert_uint_eq(pointer[11], 0); /* a table of its own, no default */
		ck_assert_uint_eq(byte_sum(pointer, 16), 0);
		return guest_memory_ptr(memory, load_le32(pointer + 4), 44);
	}
	ck_abort_msg("no floating pointer");
}

static void count(const uint8_t *entry, const uint8_t *before, struct counts *found)
{
	ck_assert_uint_lt(entry[0], 5);
	if (before) /* sorted */
		ck_assert_uint_ge(entry[0], before[0]);
	found->entries[entry[0]]++;
	if (entry[0] == 0) {
		ck_assert_uint_eq(entry[3] & 1, 1);
		found->boot_cpus += entry[3] >> 1 & 1;
	} else if (entry[0] == 2) {
		ck_assert_uint_eq(load_le32(entry + 4), X86_IOAPIC_BASE);
	} else if (entry[0] == 3) {
		ck_assert_uint_eq(entry[5], entry[7]);
		found->irqs[entry[5] & 15] = true;
	}
}

static struct counts read_table(void)
{
	const uint8_t *table = find_table(), *at = table + 44, *before = NULL;
	struct counts found = { 0 };
	unsigned int len = load_le16(table + 4);

	ck_assert_mem_eq(table, "PCMP", 4);
	ck_assert_uint_le(len, X86_MP_TABLE_END - X86_MP_TABLE);
	ck_assert_uint_eq(byte_sum(table, len), 0);
	ck_assert_uint_eq(load_le32(table + 36), X86_LAPIC_BASE);
	for (unsigned int i = load_le16(table + 34); i; i--) {
		ck_assert_int_lt(at - table, len);
		count(at, before, &found);
		before = at;
		at += lengths[at[0]];
	}
	ck_assert_int_eq(at - table, len);
	return found;
}

START_TEST(table_has_cpus_ioapic_and_interrupts)
{
	static const unsigned int cpus[] = { 1, 4, 64 };
	struct counts found;

	ck_assert_int_eq(x86_mptable_write(memory, ids, cpus[_i], NULL), 0);
	found = read_table();
	ck_assert_uint_eq(found.entries[0], cpus[_i]);
	ck_assert_uint_eq(found.boot_cpus, 1);
	ck_assert_uint_eq(found.entries[1], 1);
	ck_assert_uint_eq(found.entries[2], 1);
	ck_assert_uint_eq(found.entries[3], 16);
	for (unsigned int irq = 0; irq < 16; irq++)
		ck_assert(found.irqs[irq]);
	ck_assert_uint_eq(found.entries[4], 2); /* ExtINT and NMI */
}
END_TEST

START_TEST(large_apic_ids_are_left_out)
{
	ids[1] = 254;
	ids[2] = 255;
	ids[3] = 4096;
	ck_assert_int_eq(x86_mptable_write(memory, ids, 4, NULL), 0);
	ck_assert_uint_eq(read_table().entries[0], 2);
}
END_TEST

START_TEST(ram_that_is_too_small_is_named)
{
	struct guest_memory *small = guest_ram(64 * KIB);
	struct error err = ERROR_INIT;

	ck_assert_int_eq(x86_mptable_write(small, ids, 1, &err), -EFAULT);
	ck_assert_ptr_nonnull(strstr(err.message, "64 KiB"));
	guest_memory_free(small);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mptable");
	TCase *t = tcase_create("mptable");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, table_has_cpus_ioapic_and_interrupts, 0, 3);
	tcase_add_test(t, large_apic_ids_are_left_out);
	tcase_add_test(t, ram_that_is_too_small_is_named);
	suite_add_tcase(s, t);
	return run_suite(s);
}
