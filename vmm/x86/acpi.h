/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI 6.4 tables of a hardware-reduced platform, so that stock kernels work
 * unpatched: RSDP, XSDT, FADT, MADT, MCFG, DSDT; SMBIOS 3.0 (types 0, 1, 11, 127);
 * MultiProcessor Specification 1.4.
 *
 * DSDT: \_SB.PCI0 (PNP0A08; bus 0, windows, _PRT, a device object per slot with
 * _SUN/_EJ0, PCNT/PSCN over the registers of devices/pci/pci_root.h), \_SB.GED_
 * (ACPI0013, registers of devices/legacy/legacy.h) which notifies the power button
 * (PNP0C0C) and scans PCI, COM1 (PNP0501), RTC (PNP0B00), pvpanic (QEMU0001), CPUs
 * (ACPI0007), VGEN (VM_Gen_Counter, which the GED notifies), \_S5;
 * SLEEP_CONTROL/STATUS and RESET point at the GED's registers.
 */
#ifndef VMM_X86_ACPI_H
#define VMM_X86_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/guest_memory.h"

struct x86_acpi_options {
	unsigned int cpus;
	const uint32_t *apic_ids; /* of each */
	uint64_t mem64_base, mem64_size;
	bool serial, pvpanic;
	uint64_t vmgenid; /* gpa of the VM generation id; 0: there is none */
};

/* Writes the tables at X86_ACPI_BASE, the RSDP first. */
int x86_acpi_write(struct guest_memory *memory, const struct x86_acpi_options *options,
		   struct error *err);

/* The MP floating pointer at X86_MP_POINTER and the table at X86_MP_TABLE: CPUs, IOAPIC and
 * ISA interrupts, for kernels without ACPI. APIC ids from 255 on have no place in it. */
int x86_mptable_write(struct guest_memory *memory, const uint32_t *apic_ids, unsigned int cpus,
		      struct error *err);

struct x86_smbios_options {
	const char *serial_number; /* NULL: none */
	const char *uuid;	   /* text form; NULL: all zero */
	char *const *oem_strings;
	unsigned int oem_string_count;
};

int x86_smbios_write(struct guest_memory *memory, const struct x86_smbios_options *options,
		     struct error *err);

#endif
