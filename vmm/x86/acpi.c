/* SPDX-License-Identifier: Apache-2.0 */
/* The fixed tables (ACPI 6.4, 5.2; MCFG: PCI Firmware Specification 3.3, 4.1.2). */
#include "vmm/x86/acpi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vmm/x86/checksum.h"
#include "vmm/x86/dsdt.h"
#include "vmm/x86/layout.h"

#define HEADER_SIZE 36
#define RSDP_SIZE 36
#define FADT_SIZE 276
#define TABLES_SIZE (X86_ACPI_END - X86_ACPI_BASE)

#define FADT_WBINVD (1U << 0)
#define FADT_NO_POWER_BUTTON (1U << 4) /* as a fixed feature */
#define FADT_NO_SLEEP_BUTTON (1U << 5)
#define FADT_RESET_REG (1U << 10)
#define FADT_HW_REDUCED (1U << 20)
#define BOOT_ARCH_NO_VGA (1U << 2)
#define BOOT_ARCH_NO_ASPM (1U << 4)

#define SLEEP_CONTROL (X86_GED_BASE + 4)
#define SLEEP_STATUS (X86_GED_BASE + 5)
#define RESET_REGISTER (X86_GED_BASE + 6)

/* The tables, as they will lie from X86_ACPI_BASE. */
struct tables {
	uint8_t *data;
	size_t len;
	bool failed; /* out of room */
};

/* Room for a table of `size` bytes, aligned and zeroed; NULL where there is none. */
static uint8_t *reserve(struct tables *t, size_t size)
{
	size_t start = align_up(t->len, 16);

	if (start > TABLES_SIZE || size > TABLES_SIZE - start) {
		t->failed = true;
		return NULL;
	}
	t->len = start + size;
	return t->data + start;
}

static uint64_t gpa_of(const struct tables *t, const uint8_t *table)
{
	return X86_ACPI_BASE + (uint64_t)(table - t->data);
}

static void finish(uint8_t *table, const char *signature, uint32_t size, uint8_t revision)
{
	memcpy(table, signature, 4);
	store_le32(table + 4, size);
	table[8] = revision;
	table[9] = 0;
	memcpy(table + 10, "FERRY ", 6);
	memcpy(table + 16, "FERRYVM ", 8);
	store_le32(table + 24, 1);
	memcpy(table + 28, "FRRY", 4);
	store_le32(table + 32, 1);
	table[9] = x86_checksum(table, size);
}

static uint64_t write_dsdt(struct tables *t, const struct x86_acpi_options *options)
{
	uint8_t *table = reserve(t, HEADER_SIZE);
	struct aml aml;

	if (!table)
		return 0;
	aml = (struct aml){ .data = t->data + t->len, .cap = TABLES_SIZE - t->len };
	x86_dsdt_build(&aml, options);
	if (aml.failed) {
		t->failed = true;
		return 0;
	}
	t->len += aml.len;
	finish(table, "DSDT", (uint32_t)(HEADER_SIZE + aml.len), 2);
	return gpa_of(t, table);
}

/* A generic address: one byte in memory. */
static void put_register(uint8_t *to, uint64_t address)
{
	to[0] = 0; /* system memory */
	to[1] = 8;
	to[2] = 0;
	to[3] = 1; /* byte access */
	store_le64(to + 4, address);
}

static uint64_t write_fadt(struct tables *t, uint64_t dsdt)
{
	static const char hypervisor[8] = "FERRY";
	uint8_t *table = reserve(t, FADT_SIZE);

	if (!table)
		return 0;
	store_le32(table + 40, (uint32_t)dsdt);
	/* No 8042 said: probing for one costs every boot some time. */
	store_le16(table + 109, BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_ASPM);
	store_le32(table + 112, FADT_WBINVD | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
					FADT_RESET_REG | FADT_HW_REDUCED);
	put_register(table + 116, RESET_REGISTER);
	table[128] = 1;
	table[131] = 4; /* 6.4 */
	store_le64(table + 140, dsdt);
	put_register(table + 244, SLEEP_CONTROL);
	put_register(table + 256, SLEEP_STATUS);
	memcpy(table + 268, hypervisor, sizeof(hypervisor));
	finish(table, "FACP", FADT_SIZE, 6);
	return gpa_of(t, table);
}

/* A local APIC by its processor's UID; ids from 255 on have an entry of their own. */
static size_t put_lapic(uint8_t *to, uint32_t uid, uint32_t apic_id)
{
	if (apic_id < 255 && uid < 255) {
		to[0] = 0;
		to[1] = 8;
		to[2] = (uint8_t)uid;
		to[3] = (uint8_t)apic_id;
		store_le32(to + 4, 1); /* enabled */
		return 8;
	}
	to[0] = 9;
	to[1] = 16;
	store_le32(to + 4, apic_id);
	store_le32(to + 8, 1);
	store_le32(to + 12, uid);
	return 16;
}

static uint64_t write_madt(struct tables *t, const struct x86_acpi_options *options)
{
	size_t max = HEADER_SIZE + 8 + (size_t)options->cpus * 16 + 12 + 6 + 12;
	uint8_t *table = reserve(t, max);
	size_t len = HEADER_SIZE + 8;
	uint64_t gpa;

	if (!table)
		return 0;
	store_le32(table + 36, X86_LAPIC_BASE);
	for (unsigned int i = 0; i < options->cpus; i++)
		len += put_lapic(table + len, i, options->apic_ids[i]);
	memcpy(table + len, (uint8_t[]){ 1, 12 }, 2); /* IOAPIC 0, GSIs from 0 */
	store_le32(table + len + 4, X86_IOAPIC_BASE);
	len += 12;
	memcpy(table + len, (uint8_t[]){ 4, 6, 0xff, 0, 0, 1 }, 6); /* NMI: LINT1 of all */
	len += 6;
	memcpy(table + len, (uint8_t[]){ 10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1 }, 9);
	len += 12;
	gpa = gpa_of(t, table);
	t->len -= max - len;
	finish(table, "APIC", (uint32_t)len, 5);
	return gpa;
}

static uint64_t write_mcfg(struct tables *t)
{
	uint8_t *table = reserve(t, HEADER_SIZE + 8 + 16);

	if (!table)
		return 0;
	store_le64(table + 44, X86_ECAM_BASE);
	store_le16(table + 52, 0);
	table[54] = 0;
	table[55] = X86_ECAM_SIZE / MIB - 1;
	finish(table, "MCFG", HEADER_SIZE + 8 + 16, 1);
	return gpa_of(t, table);
}

static void write_rsdp(uint8_t *rsdp, uint64_t xsdt)
{
	static const char signature[8] = "RSD PTR ", oem[6] = "FERRY ";

	memcpy(rsdp, signature, sizeof(signature));
	memcpy(rsdp + 9, oem, sizeof(oem));
	rsdp[15] = 2;
	store_le32(rsdp + 20, RSDP_SIZE);
	store_le64(rsdp + 24, xsdt);
	rsdp[8] = x86_checksum(rsdp, 20);
	rsdp[32] = x86_checksum(rsdp, RSDP_SIZE);
}

int x86_acpi_write(struct guest_memory *memory, const struct x86_acpi_options *options,
		   struct error *err)
{
	_cleanup_free_ uint8_t *data = calloc(1, TABLES_SIZE);
	struct tables t = { .data = data };
	uint64_t tables[3];
	uint8_t *root, *xsdt;

	if (!data)
		return error_set_errno(err, ENOMEM, "ACPI tables");
	root = reserve(&t, RSDP_SIZE);
	xsdt = reserve(&t, HEADER_SIZE + sizeof(tables));
	tables[0] = write_fadt(&t, write_dsdt(&t, options));
	tables[1] = write_madt(&t, options);
	tables[2] = write_mcfg(&t);
	if (t.failed || !root || !xsdt)
		return error_set(err, ENOSPC, "ACPI tables: %u CPUs take more than %llu KiB",
				 options->cpus, (unsigned long long)(TABLES_SIZE / KIB));
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		store_le64(xsdt + HEADER_SIZE + i * 8, tables[i]);
	finish(xsdt, "XSDT", HEADER_SIZE + sizeof(tables), 1);
	write_rsdp(root, gpa_of(&t, xsdt));
	if (guest_memory_write(memory, X86_ACPI_BASE, data, t.len))
		return error_set_kind(err, ERROR_BAD_REQUEST, EFAULT,
				      "memory size: %llu KiB of guest memory leave no room for the "
				      "ACPI tables at %#llx",
				      (unsigned long long)(guest_memory_size(memory) / KIB),
				      (unsigned long long)X86_ACPI_BASE);
	return 0;
}
