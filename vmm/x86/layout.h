/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-physical layout and interrupt lines of the x86-64 machine.
 *
 *   0000_0000  RAM; boot structures below 1 MiB
 *   0007_0000    boot: zero page / PVH start info, GDT, page tables, command line
 *   0009_fc00    MP floating pointer
 *   000a_0000    hole (no RAM use: reserved in the memory map) up to 1 MiB, of which
 *   000d_e000      the MP table,
 *   000d_f000      the page of the VM generation id,
 *   000e_0000      ACPI tables, and 000f_0000 the SMBIOS entry point
 *   0010_0000    kernel, initramfs (as high as it may go)
 *   c000_0000  32-bit MMIO window for BARs (512 MiB)
 *   e000_0000  ECAM, bus 0 (1 MiB; 256 MiB set aside)
 *   f000_0000  platform registers: ACPI event device, PCI hot-plug
 *   fec0_0000  IOAPIC; fee0_0000 local APIC; fffb_c000 KVM's identity map and TSS
 *   1_0000_0000 rest of RAM, then the 64-bit MMIO window up to the CPU's last address
 */
#ifndef VMM_X86_LAYOUT_H
#define VMM_X86_LAYOUT_H

#define X86_BOOT_BASE 0x70000ULL /* to 0x9fc00: what boot.c lays out */
#define X86_BOOT_END 0x9fc00ULL
#define X86_HOLE_START 0xa0000ULL
/* In the last KiB below 640 KiB: one of the places where it is looked for. */
#define X86_MP_POINTER 0x9fc00ULL
#define X86_MP_TABLE 0xde000ULL
#define X86_MP_TABLE_END 0xdf000ULL
/* Not at the page's start: Linux looks at those of 2 KiB for option ROMs. */
#define X86_VMGENID 0xdf028ULL
#define X86_ACPI_BASE 0xe0000ULL
#define X86_ACPI_END 0xf0000ULL
#define X86_SMBIOS_BASE 0xf0000ULL
#define X86_SMBIOS_END 0x100000ULL
#define X86_HIGH_MEMORY 0x100000ULL

#define X86_LOW_RAM_END 0xc0000000ULL
#define X86_HIGH_RAM_START 0x100000000ULL
#define X86_MEM32_BASE 0xc0000000ULL
#define X86_MEM32_SIZE 0x20000000ULL
#define X86_ECAM_BASE 0xe0000000ULL
#define X86_ECAM_SIZE 0x100000ULL
#define X86_GED_BASE 0xf0000000ULL
#define X86_PCI_HOTPLUG_BASE 0xf0001000ULL
#define X86_IOAPIC_BASE 0xfec00000ULL
#define X86_LAPIC_BASE 0xfee00000ULL
#define X86_KVM_IDENTITY_MAP 0xfffbc000ULL
#define X86_KVM_TSS 0xfffbd000ULL

#define X86_PCI_IO_BASE 0x1000
#define X86_PCI_IO_SIZE 0xf000
#define X86_SERIAL_PORT 0x3f8
#define X86_SERIAL_IRQ 4
#define X86_GED_IRQ 9
/* INTA-D of slot s, pin p: 16 + (s + p) % 4 */
#define X86_PCI_INTX_GSI 16
#define X86_PVPANIC_PORT 0x505

#endif
