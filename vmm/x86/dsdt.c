/* SPDX-License-Identifier: Apache-2.0 */
/* What the DSDT says: the devices of the machine and how they are plugged. */
#include "vmm/x86/dsdt.h"

#include <stdio.h>

#include "devices/legacy/legacy.h"
#include "devices/pci/pci_root.h"
#include "vmm/x86/layout.h"

#define NOTIFY_DEVICE_CHECK 1
#define NOTIFY_EJECT 3
#define NOTIFY_PRESSED 0x80
#define NOTIFY_NEW_GENERATION 0x80

#define OSC_PCI_UUID "33DB4D5B-1FF7-401C-9657-7441C03DD766"
#define OSC_UNRECOGNIZED_UUID 0x4
/* Of the controls an OS may ask for it gets the PCIe capability structure; hot-plug
 * stays with ACPI. */
#define OSC_GRANTED 0x10

static void slot_name(char name[8], unsigned int slot)
{
	snprintf(name, 8, "S%02u", slot % 100);
}

/* Every function of this root interrupts by INTA (devices/pci/pci_root.h), and none is in
 * slot 0. Linux reads the whole table for each device that it enables: no line too many. */
static void build_prt(struct aml *aml)
{
	size_t table, entry;

	aml_name(aml, "_PRT");
	table = aml_package(aml, PCI_SLOTS - 1);
	for (unsigned int slot = 1; slot < PCI_SLOTS; slot++) {
		entry = aml_package(aml, 4);
		aml_integer(aml, slot << 16 | 0xffff);
		aml_integer(aml, 0); /* INTA */
		aml_integer(aml, 0); /* a GSI follows, no link device */
		aml_integer(aml, X86_PCI_INTX_GSI + slot % 4);
		aml_close(aml, entry);
	}
	aml_close(aml, table);
}

static void build_osc(struct aml *aml)
{
	size_t method, block;

	method = aml_method(aml, "_OSC", 4, false);
	block = aml_if(aml);
	aml_op(aml, AML_LEQUAL);
	aml_op(aml, AML_ARG0);
	aml_uuid(aml, OSC_PCI_UUID);
	aml_op(aml, AML_CREATE_DWORD_FIELD);
	aml_op(aml, AML_ARG3);
	aml_integer(aml, 8);
	aml_path(aml, "CTRL");
	aml_op(aml, AML_AND);
	aml_path(aml, "CTRL");
	aml_integer(aml, OSC_GRANTED);
	aml_path(aml, "CTRL");
	aml_close(aml, block);
	block = aml_else(aml);
	aml_op(aml, AML_CREATE_DWORD_FIELD);
	aml_op(aml, AML_ARG3);
	aml_integer(aml, 0);
	aml_path(aml, "STAT");
	aml_op(aml, AML_OR);
	aml_path(aml, "STAT");
	aml_integer(aml, OSC_UNRECOGNIZED_UUID);
	aml_path(aml, "STAT");
	aml_close(aml, block);
	aml_op(aml, AML_RETURN);
	aml_op(aml, AML_ARG3);
	aml_close(aml, method);
}

static void build_slot(struct aml *aml, unsigned int slot)
{
	size_t device, method;
	char name[8];

	slot_name(name, slot);
	device = aml_device(aml, name);
	aml_name_integer(aml, "_ADR", slot << 16);
	aml_name_integer(aml, "_SUN", slot);
	method = aml_method(aml, "_EJ0", 1, true);
	aml_op(aml, AML_STORE);
	aml_integer(aml, 1U << slot);
	aml_path(aml, "EJSL");
	aml_close(aml, method);
	aml_close(aml, device);
}

static void notify_slot(struct aml *aml, enum aml_op mask, unsigned int slot, unsigned int event)
{
	size_t block = aml_if(aml);
	char name[8];

	slot_name(name, slot);
	aml_op(aml, AML_AND);
	aml_op(aml, mask);
	aml_integer(aml, 1U << slot);
	aml_integer(aml, 0); /* no target */
	aml_op(aml, AML_NOTIFY);
	aml_path(aml, name);
	aml_integer(aml, event);
	aml_close(aml, block);
}

static void store(struct aml *aml, const char *from, enum aml_op to)
{
	aml_op(aml, AML_STORE);
	aml_path(aml, from);
	aml_op(aml, to);
}

/* The hot-plug registers of devices/pci/pci_root.h; reading UP and DOWN clears them,
 * hence once each. */
static void build_hotplug(struct aml *aml)
{
	static const char *const registers[] = { "UPSL", "DNSL", "EJSL" };
	size_t method;

	aml_memory_registers(aml, "HPRG", X86_PCI_HOTPLUG_BASE, registers, 3);
	/* Slot 0 is the host bridge's. */
	for (unsigned int slot = 1; slot < PCI_SLOTS; slot++)
		build_slot(aml, slot);
	method = aml_method(aml, "PCNT", 0, true);
	store(aml, "UPSL", AML_LOCAL0);
	store(aml, "DNSL", AML_LOCAL1);
	for (unsigned int slot = 1; slot < PCI_SLOTS; slot++) {
		notify_slot(aml, AML_LOCAL0, slot, NOTIFY_DEVICE_CHECK);
		notify_slot(aml, AML_LOCAL1, slot, NOTIFY_EJECT);
	}
	aml_close(aml, method);
}

static void build_pci(struct aml *aml, const struct x86_acpi_options *options)
{
	size_t device = aml_device(aml, "PCI0"), resources;

	aml_name(aml, "_HID");
	aml_eisa_id(aml, "PNP0A08");
	aml_name(aml, "_CID");
	aml_eisa_id(aml, "PNP0A03");
	aml_name_integer(aml, "_UID", 0);
	aml_name_integer(aml, "_SEG", 0);
	aml_name_integer(aml, "_BBN", 0);
	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_bus_window(aml, 0, 0);
	aml_io_window(aml, X86_PCI_IO_BASE, X86_PCI_IO_SIZE);
	aml_memory_window32(aml, X86_MEM32_BASE, X86_MEM32_SIZE);
	if (options->mem64_size)
		aml_memory_window64(aml, options->mem64_base, options->mem64_size);
	aml_resources_close(aml, resources);
	build_prt(aml);
	build_osc(aml);
	build_hotplug(aml);
	aml_close(aml, device);
}

static void if_event(struct aml *aml, uint32_t event, size_t *block)
{
	*block = aml_if(aml);
	aml_op(aml, AML_AND);
	aml_op(aml, AML_LOCAL0);
	aml_integer(aml, event);
	aml_integer(aml, 0);
}

/* The event device: one line, one register of pending events that a read clears. */
static void build_ged(struct aml *aml, const struct x86_acpi_options *options)
{
	static const char *const registers[] = { "EVTS" };
	size_t device = aml_device(aml, "GED_"), block, method;

	aml_name(aml, "_HID");
	aml_string(aml, "ACPI0013");
	aml_name_integer(aml, "_UID", 0);
	aml_name(aml, "_CRS");
	block = aml_resources(aml);
	aml_interrupt(aml, X86_GED_IRQ);
	aml_resources_close(aml, block);
	aml_memory_registers(aml, "EVRG", X86_GED_BASE, registers, 1);
	method = aml_method(aml, "_EVT", 1, true);
	store(aml, "EVTS", AML_LOCAL0);
	if_event(aml, ACPI_EVENT_POWER_BUTTON, &block);
	aml_op(aml, AML_NOTIFY);
	aml_path(aml, "\\_SB_.PWRB");
	aml_integer(aml, NOTIFY_PRESSED);
	aml_close(aml, block);
	if_event(aml, ACPI_EVENT_PCI_HOTPLUG, &block);
	aml_path(aml, "\\_SB_.PCI0.PCNT"); /* a call without arguments */
	aml_close(aml, block);
	if (options->vmgenid) {
		if_event(aml, ACPI_EVENT_VMGENID, &block);
		aml_op(aml, AML_NOTIFY);
		aml_path(aml, "\\_SB_.VGEN");
		aml_integer(aml, NOTIFY_NEW_GENERATION);
		aml_close(aml, block);
	}
	aml_close(aml, method);
	aml_close(aml, device);
}

/* "Virtual Machine Generation ID" (Microsoft, 2012): _CID and _DDN are what its drivers
 * go by, ADDR is the address of the id in two halves. */
static void build_vmgenid(struct aml *aml, uint64_t gpa)
{
	size_t device = aml_device(aml, "VGEN"), package;

	aml_name(aml, "_HID");
	aml_string(aml, "QEMUVGID");
	aml_name(aml, "_CID");
	aml_string(aml, "VM_Gen_Counter");
	aml_name(aml, "_DDN");
	aml_string(aml, "VM_Gen_Counter");
	aml_name(aml, "ADDR");
	package = aml_package(aml, 2);
	aml_integer(aml, gpa & UINT32_MAX);
	aml_integer(aml, gpa >> 32);
	aml_close(aml, package);
	aml_close(aml, device);
}

/* A device with ports and, unless gsi is 0, an interrupt. */
static void build_port_device(struct aml *aml, const char *name, const char *hid, uint16_t port,
			      uint8_t ports, uint32_t gsi)
{
	size_t device = aml_device(aml, name), resources;

	aml_name(aml, "_HID");
	if (hid[0] == 'P')
		aml_eisa_id(aml, hid);
	else
		aml_string(aml, hid);
	aml_name_integer(aml, "_UID", 0);
	aml_name_integer(aml, "_STA", 0xf);
	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_io(aml, port, ports);
	if (gsi)
		aml_interrupt(aml, gsi);
	aml_resources_close(aml, resources);
	aml_close(aml, device);
}

/* Linux uses ECAM only where this, too, reserves it. */
static void build_reserved(struct aml *aml)
{
	size_t device = aml_device(aml, "MRES"), resources;

	aml_name(aml, "_HID");
	aml_eisa_id(aml, "PNP0C02");
	aml_name_integer(aml, "_UID", 0);
	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_memory32(aml, X86_ECAM_BASE, X86_ECAM_SIZE);
	aml_memory32(aml, X86_GED_BASE, ACPI_GED_SIZE);
	aml_memory32(aml, X86_PCI_HOTPLUG_BASE, 0x1000);
	aml_resources_close(aml, resources);
	aml_close(aml, device);
}

static void build_button(struct aml *aml)
{
	size_t device = aml_device(aml, "PWRB");

	aml_name(aml, "_HID");
	aml_eisa_id(aml, "PNP0C0C");
	aml_name_integer(aml, "_UID", 0);
	aml_close(aml, device);
}

static void build_cpus(struct aml *aml, unsigned int cpus)
{
	for (unsigned int i = 0; i < cpus; i++) {
		size_t device;
		char name[8];

		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		device = aml_device(aml, name);
		aml_name(aml, "_HID");
		aml_string(aml, "ACPI0007");
		aml_name_integer(aml, "_UID", i);
		aml_close(aml, device);
	}
}

void x86_dsdt_build(struct aml *aml, const struct x86_acpi_options *options)
{
	size_t scope = aml_scope(aml, "\\_SB_"), package;

	build_pci(aml, options);
	build_ged(aml, options);
	if (options->vmgenid)
		build_vmgenid(aml, options->vmgenid);
	build_button(aml);
	build_reserved(aml);
	if (options->serial)
		build_port_device(aml, "COM1", "PNP0501", X86_SERIAL_PORT, 8, X86_SERIAL_IRQ);
	build_port_device(aml, "RTC_", "PNP0B00", 0x70, 2, 0);
	if (options->pvpanic)
		build_port_device(aml, "PEVT", "QEMU0001", X86_PVPANIC_PORT, 1, 0);
	build_cpus(aml, options->cpus);
	aml_close(aml, scope);
	aml_name(aml, "\\_S5_");
	package = aml_package(aml, 4);
	aml_integer(aml, 5);
	for (unsigned int i = 0; i < 3; i++)
		aml_integer(aml, 0);
	aml_close(aml, package);
}
