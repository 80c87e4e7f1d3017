/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of the Intel MultiProcessor Specification 1.4, chapter 4: floating pointer and
 * configuration table. Linux looks for the pointer before it reads ACPI's tables, in 4,000
 * steps of 64 KiB mapped anew where there is none.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/checksum.h"
#include "vmm/x86/layout.h"

#define POINTER_SIZE 16
#define HEADER_SIZE 44
#define SPECIFICATION 4 /* 1.4 */

enum entry { ENTRY_CPU, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum interrupt { INTERRUPT_VECTORED = 0, INTERRUPT_NMI = 1, INTERRUPT_EXTERNAL = 3 };

#define CPU_ENABLED (1U << 0)
#define CPU_BOOT (1U << 1)
#define IOAPIC_ENABLED (1U << 0)
#define LAPIC_VERSION 0x14
#define IOAPIC_VERSION 0x11
#define IOAPIC_ID 0
#define ISA_BUS 0
#define ISA_IRQS 16
#define EVERY_LAPIC 0xff

/* Ids of 8 bits; all ones stand for all. */
#define APIC_ID_MAX 254

#define TABLE_SIZE (X86_MP_TABLE_END - X86_MP_TABLE)

struct table {
	uint8_t data[TABLE_SIZE];
	size_t len;
	uint16_t count;
};

static void put(struct table *t, const uint8_t *entry, size_t len)
{
	if (len > TABLE_SIZE - t->len) /* 64 CPUs take a third */
		return;
	memcpy(t->data + t->len, entry, len);
	t->len += len;
	t->count++;
}

static void put_cpu(struct table *t, uint8_t apic_id, uint8_t flags)
{
	/* Signature and features stay 0: CPUID has them. */
	put(t, (uint8_t[20]){ ENTRY_CPU, apic_id, LAPIC_VERSION, flags }, 20);
}

static void put_interrupt(struct table *t, enum entry entry, enum interrupt type, uint8_t irq,
			  uint8_t apic, uint8_t pin)
{
	/* Bytes 2 and 3: polarity and trigger are the bus's. */
	put(t, (uint8_t[8]){ entry, type, 0, 0, ISA_BUS, irq, apic, pin }, 8);
}

static void put_ioapic(struct table *t)
{
	uint8_t entry[8] = { ENTRY_IOAPIC, IOAPIC_ID, IOAPIC_VERSION, IOAPIC_ENABLED };

	store_le32(entry + 4, X86_IOAPIC_BASE);
	put(t, entry, sizeof(entry));
}

static void write_header(struct table *t)
{
	memcpy(t->data, "PCMP", 4);
	store_le16(t->data + 4, (uint16_t)t->len);
	t->data[6] = SPECIFICATION;
	memcpy(t->data + 8, "FERRY   FERRYVM     ", 20);
	store_le16(t->data + 34, t->count);
	store_le32(t->data + 36, X86_LAPIC_BASE);
	t->data[7] = x86_checksum(t->data, t->len);
}

int x86_mptable_write(struct guest_memory *memory, const uint32_t *apic_ids, unsigned int cpus,
		      struct error *err)
{
	struct table t = { .len = HEADER_SIZE };
	uint8_t pointer[POINTER_SIZE] = "_MP_";

	for (unsigned int i = 0; i < cpus; i++)
		if (apic_ids[i] <= APIC_ID_MAX)
			put_cpu(&t, (uint8_t)apic_ids[i], CPU_ENABLED | (i ? 0 : CPU_BOOT));
	put(&t, (uint8_t[8]){ ENTRY_BUS, ISA_BUS, 'I', 'S', 'A', ' ', ' ', ' ' }, 8);
	put_ioapic(&t);
	for (uint8_t irq = 0; irq < ISA_IRQS; irq++)
		put_interrupt(&t, ENTRY_INTERRUPT, INTERRUPT_VECTORED, irq, IOAPIC_ID, irq);
	put_interrupt(&t, ENTRY_LOCAL_INTERRUPT, INTERRUPT_EXTERNAL, 0, EVERY_LAPIC, 0);
	put_interrupt(&t, ENTRY_LOCAL_INTERRUPT, INTERRUPT_NMI, 0, EVERY_LAPIC, 1);
	write_header(&t);
	store_le32(pointer + 4, X86_MP_TABLE);
	pointer[8] = POINTER_SIZE / 16;
	pointer[9] = SPECIFICATION;
	pointer[10] = x86_checksum(pointer, sizeof(pointer));
	if (guest_memory_write(memory, X86_MP_POINTER, pointer, sizeof(pointer)) ||
	    guest_memory_write(memory, X86_MP_TABLE, t.data, t.len))
		return error_set_kind(err, ERROR_BAD_REQUEST, EFAULT,
				      "memory size: %llu KiB of guest memory leave no room for the "
				      "MP table at %#llx",
				      (unsigned long long)(guest_memory_size(memory) / KIB),
				      (unsigned long long)X86_MP_TABLE);
	return 0;
}
