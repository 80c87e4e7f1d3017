/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vmm/guest_ram.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/aml.h"
#include "vmm/x86/layout.h"

static const uint32_t apic_ids[64] = { 0, 1, 4, 5 };
static const struct x86_acpi_options usual = {
	.cpus = 4,
	.apic_ids = apic_ids,
	.mem64_base = 1ULL << 38,
	.mem64_size = 1ULL << 38,
	.serial = true,
	.pvpanic = true,
	.vmgenid = X86_VMGENID,
};

static struct guest_memory *memory;

static void setup(void)
{
	memory = guest_ram(4 * MIB);
}

static void teardown(void)
{
	guest_memory_free(memory);
}

/* Every table has to be in the ACPI area, whole, and of checksum 0. */
static const uint8_t *table_at(uint64_t gpa, const char *signature)
{
	const uint8_t *t;
	uint32_t len;

	ck_assert_uint_ge(gpa, X86_ACPI_BASE);
	ck_assert_uint_le(gpa + 36, X86_ACPI_END);
	t = guest_memory_ptr(memory, gpa, 36);
	len = load_le32(t + 4);
	ck_assert_uint_le(gpa + len, X86_ACPI_END);
	ck_assert_uint_eq(byte_sum(t, len), 0);
	ck_assert_mem_eq(t, signature, 4);
	return t;
}

static const uint8_t *write_tables(const struct x86_acpi_options *options)
{
	struct error err = ERROR_INIT;
	const uint8_t *root;

	ck_assert_msg(x86_acpi_write(memory, options, &err) == 0, "%s", err.message);
	root = guest_memory_ptr(memory, X86_ACPI_BASE, 36);
	ck_assert_mem_eq(root, "RSD PTR ", 8);
	ck_assert_uint_eq(root[15], 2);
	ck_assert_uint_eq(byte_sum(root, 20), 0);
	ck_assert_uint_eq(byte_sum(root, 36), 0);
	return table_at(load_le64(root + 24), "XSDT");
}

static const uint8_t *find_table(const struct x86_acpi_options *options, const char *signature)
{
	const uint8_t *xsdt = write_tables(options);

	for (uint32_t at = 36; at < load_le32(xsdt + 4); at += 8) {
		uint64_t gpa = load_le64(xsdt + at);

		if (!memcmp(guest_memory_ptr(memory, gpa, 4), signature, 4))
			return table_at(gpa, signature);
	}
	ck_abort_msg("no table %s", signature);
	return NULL;
}

START_TEST(fadt_is_that_of_reduced_hardware)
{
	const uint8_t *fadt = find_table(&usual, "FACP");

	ck_assert_uint_eq(load_le32(fadt + 4), 276);
	ck_assert_uint_eq(fadt[8], 6);
	ck_assert_uint_ne(load_le32(fadt + 112) & 1U << 20, 0); /* HW_REDUCED */
	ck_assert_uint_ne(load_le32(fadt + 112) & 1U << 10, 0); /* RESET_REG_SUP */
	ck_assert_uint_eq(load_le16(fadt + 109) & 1U << 1, 0);	/* no 8042 */
	ck_assert_uint_eq(load_le64(fadt + 120), X86_GED_BASE + 6);
	ck_assert_uint_eq(fadt[128], 1);
	ck_assert_uint_eq(load_le64(fadt + 248), X86_GED_BASE + 4);
	ck_assert_uint_eq(load_le64(fadt + 260), X86_GED_BASE + 5);
	ck_assert_uint_eq(load_le64(fadt + 140), load_le32(fadt + 40));
	table_at(load_le64(fadt + 140), "DSDT");
}
END_TEST

START_TEST(madt_lists_cpus_ioapic_and_nmi)
{
	const uint8_t *madt = find_table(&usual, "APIC");
	unsigned int cpus = 0, ioapics = 0, nmis = 0;

	ck_assert_uint_eq(load_le32(madt + 36), X86_LAPIC_BASE);
	for (uint32_t at = 44; at < load_le32(madt + 4); at += madt[at + 1]) {
		const uint8_t *e = madt + at;

		ck_assert_uint_ge(e[1], 2);
		if (e[0] == 0) {
			ck_assert_uint_eq(e[2], cpus);
			ck_assert_uint_eq(e[3], apic_ids[cpus]);
			ck_assert_uint_eq(load_le32(e + 4), 1);
			cpus++;
		} else if (e[0] == 1) {
			ck_assert_uint_eq(load_le32(e + 4), X86_IOAPIC_BASE);
			ioapics++;
		} else if (e[0] == 4) {
			ck_assert_uint_eq(e[2], 0xff);
			ck_assert_uint_eq(e[5], 1);
			nmis++;
		}
	}
	ck_assert_uint_eq(cpus, 4);
	ck_assert_uint_eq(ioapics, 1);
	ck_assert_uint_eq(nmis, 1);
}
END_TEST

START_TEST(apic_id_of_255_and_more_gets_an_x2apic_entry)
{
	static const uint32_t ids[] = { 0, 255, 300 };
	const struct x86_acpi_options options = { .cpus = 3, .apic_ids = ids };
	const uint8_t *madt = find_table(&options, "APIC");

	ck_assert_uint_eq(madt[44], 0);
	ck_assert_uint_eq(madt[52], 9);
	ck_assert_uint_eq(load_le32(madt + 56), 255);
	ck_assert_uint_eq(load_le32(madt + 64), 1); /* UID */
	ck_assert_uint_eq(madt[68], 9);
	ck_assert_uint_eq(load_le32(madt + 72), 300);
}
END_TEST

START_TEST(mcfg_gives_ecam_of_bus_0)
{
	const uint8_t *mcfg = find_table(&usual, "MCFG");

	ck_assert_uint_eq(load_le32(mcfg + 4), 60);
	ck_assert_uint_eq(load_le64(mcfg + 44), X86_ECAM_BASE);
	ck_assert_uint_eq(mcfg[54], 0);
	ck_assert_uint_eq(mcfg[55], 0);
}
END_TEST

static const uint8_t *dsdt_of(const struct x86_acpi_options *options)
{
	const uint8_t *fadt = find_table(options, "FACP");

	return table_at(load_le64(fadt + 140), "DSDT");
}

static bool dsdt_has(const struct x86_acpi_options *options, const char *text)
{
	const uint8_t *dsdt = dsdt_of(options);

	return memmem(dsdt, load_le32(dsdt + 4), text, strlen(text)) != NULL;
}

START_TEST(dsdt_has_the_devices_there_are)
{
	struct x86_acpi_options options = usual;

	ck_assert(dsdt_has(&options, "COM1"));
	ck_assert(dsdt_has(&options, "QEMU0001"));
	ck_assert(dsdt_has(&options, "C003"));
	ck_assert(!dsdt_has(&options, "C004"));
	ck_assert(dsdt_has(&options, "S01_"));
	ck_assert(dsdt_has(&options, "S31_"));
	ck_assert(!dsdt_has(&options, "S00_"));
	ck_assert(dsdt_has(&options, "VGEN"));
	ck_assert(dsdt_has(&options, "VM_Gen_Counter"));
	options.serial = false;
	options.vmgenid = 0;
	ck_assert(!dsdt_has(&options, "VGEN"));
	options.pvpanic = false;
	ck_assert(!dsdt_has(&options, "COM1"));
	ck_assert(!dsdt_has(&options, "QEMU0001"));
}
END_TEST

/* The PkgLength at `at`: its value, and its own size in *size. */
static uint32_t package_length(const uint8_t *at, unsigned int *size)
{
	uint32_t value = at[0] & 0xf;

	*size = (at[0] >> 6) + 1U;
	if (*size == 1)
		return at[0] & 0x3f;
	for (unsigned int i = 1; i < *size; i++)
		value |= (uint32_t)at[i] << (8 * i - 4);
	return value;
}

START_TEST(dsdt_scope_ends_where_the_next_name_begins)
{
	const uint8_t *dsdt = dsdt_of(&usual);
	unsigned int size;
	uint32_t len;

	ck_assert_uint_eq(dsdt[36], 0x10); /* ScopeOp */
	len = package_length(dsdt + 37, &size);
	ck_assert_mem_eq(dsdt + 37 + len, "\x08\\_S5_", 6);
	ck_assert_uint_lt(37 + len, load_le32(dsdt + 4));
}
END_TEST

START_TEST(aml_lengths_grow_with_their_blocks)
{
	static uint8_t data[5000];

	for (size_t body = 0; body < 4200; body++) {
		struct aml aml = { .data = data, .cap = sizeof(data) };
		size_t start = aml_scope(&aml, "\\");
		unsigned int size;

		for (size_t i = 1; i < body; i++)
			aml_op(&aml, AML_LOCAL0);
		aml_close(&aml, start);
		ck_assert(!aml.failed);
		ck_assert_uint_eq(package_length(data + 1, &size), aml.len - 1);
	}
}
END_TEST

START_TEST(aml_out_of_room_fails_and_stays_inside)
{
	uint8_t data[40];

	for (size_t cap = 0; cap < 32; cap++) {
		struct aml aml = { .data = data, .cap = cap };
		size_t start;

		memset(data, 0xee, sizeof(data));
		start = aml_device(&aml, "ABCD");
		aml_name_integer(&aml, "_UID", UINT64_MAX);
		aml_string(&aml, "0123456789");
		aml_close(&aml, start);
		ck_assert(aml.failed == (cap < 2 + 1 + 4 + 14 + 12 - 1));
		for (size_t i = cap; i < sizeof(data); i++)
			ck_assert_uint_eq(data[i], 0xee);
	}
}
END_TEST

START_TEST(aml_encodes_ids_and_names)
{
	uint8_t data[64];
	struct aml aml = { .data = data, .cap = sizeof(data) };

	aml_eisa_id(&aml, "PNP0A08");
	ck_assert_mem_eq(data, "\x0c\x41\xd0\x0a\x08", 5);
	aml.len = 0;
	aml_path(&aml, "\\_SB.PCI0.S1");
	ck_assert_uint_eq(aml.len, 15);
	ck_assert_mem_eq(data, "\\\x2f\x03_SB_PCI0S1__", 15);
	aml.len = 0;
	aml_uuid(&aml, "33DB4D5B-1FF7-401C-9657-7441C03DD766");
	ck_assert_mem_eq(data + 4,
			 "\x5b\x4d\xdb\x33\xf7\x1f\x1c\x40\x96\x57\x74\x41\xc0\x3d\xd7\x66", 16);
}
END_TEST

START_TEST(sixty_four_cpus_fit)
{
	struct x86_acpi_options options = usual;

	options.cpus = 64;
	write_tables(&options);
}
END_TEST

START_TEST(too_many_cpus_are_an_error)
{
	static uint32_t ids[4096];
	struct x86_acpi_options options = { .cpus = 4096, .apic_ids = ids };
	struct error err = ERROR_INIT;

	ck_assert_int_eq(x86_acpi_write(memory, &options, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.message, "4096 CPUs"));
}
END_TEST

/* What Linux's interpreter would take offence at, ACPICA's own tools find. */
START_TEST(dsdt_disassembles_and_compiles_again)
{
	const uint8_t *dsdt = dsdt_of(&usual);
	char dir[] = "/tmp/ferry-acpi-XXXXXX", command[512];
	int status;
	FILE *f;

	if (access("/usr/bin/iasl", X_OK))
		return; /* package acpica-tools */
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(command, sizeof(command), "%s/dsdt.dat", dir);
	f = fopen(command, "wb");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(dsdt, 1, load_le32(dsdt + 4), f), load_le32(dsdt + 4));
	ck_assert_int_eq(fclose(f), 0);
	/* 6035: QEMUVGID, which is what this device is called, is no PNP id */
	snprintf(command, sizeof(command),
		 "cd %s && iasl -d dsdt.dat >log 2>&1 && "
		 "iasl -we -ve -vw 6035 dsdt.dsl >>log 2>&1 && "
		 "grep -q ' 0 Errors, 0 Warnings' log || { cat log; exit 1; }; rm -r %s",
		 dir, dir);
	status = system(command);
	ck_assert_int_eq(status, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ACPI tables");
	TCase *tc = tcase_create("acpi");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, fadt_is_that_of_reduced_hardware);
	tcase_add_test(tc, madt_lists_cpus_ioapic_and_nmi);
	tcase_add_test(tc, apic_id_of_255_and_more_gets_an_x2apic_entry);
	tcase_add_test(tc, mcfg_gives_ecam_of_bus_0);
	tcase_add_test(tc, dsdt_has_the_devices_there_are);
	tcase_add_test(tc, dsdt_scope_ends_where_the_next_name_begins);
	tcase_add_test(tc, aml_lengths_grow_with_their_blocks);
	tcase_add_test(tc, aml_out_of_room_fails_and_stays_inside);
	tcase_add_test(tc, aml_encodes_ids_and_names);
	tcase_add_test(tc, sixty_four_cpus_fit);
	tcase_add_test(tc, too_many_cpus_are_an_error);
	tcase_add_test(tc, dsdt_disassembles_and_compiles_again);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
