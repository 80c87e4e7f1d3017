/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC (xAPIC, MMIO) and the IOAPIC. */
#include "probe.h"

#define LAPIC_ID 0x20
#define LAPIC_SPIV 0xf0
#define LAPIC_ICR 0x300
#define LAPIC_ICR_HIGH 0x310
#define LAPIC_LVT_TIMER 0x320
#define LAPIC_TIMER_INITIAL 0x380
#define LAPIC_TIMER_CURRENT 0x390
#define LAPIC_TIMER_DIVIDE 0x3e0
#define PERIODIC (1U << 17)
#define MASKED (1U << 16)
#define DIVIDE_BY_1 0xb
/* KVM's and QEMU's timers count nanoseconds. */
#define TICKS_PER_US 1000U

#define IOAPIC_BASE 0xfec00000UL
#define ACTIVE_LOW (1U << 13)
#define LEVEL (1U << 15)

/* Counted in entry.S. */
volatile uint64_t irq_count[16], irq_total, nmi_count;

static void write(unsigned int reg, uint32_t value)
{
	mmio_write(LAPIC_BASE + reg, 4, value);
}

void lapic_init(void)
{
	write(LAPIC_SPIV, 0x100 | VECTOR_SPURIOUS);
	write(LAPIC_TIMER_DIVIDE, DIVIDE_BY_1);
}

uint32_t lapic_id(void)
{
	return (uint32_t)mmio_read(LAPIC_BASE + LAPIC_ID, 4) >> 24;
}

void lapic_timer(uint32_t us, bool periodic)
{
	write(LAPIC_LVT_TIMER, VECTOR_TIMER | (periodic ? PERIODIC : 0) | (us ? 0 : MASKED));
	write(LAPIC_TIMER_INITIAL, us * TICKS_PER_US);
}

void lapic_ipi(uint32_t apic_id, uint32_t command)
{
	write(LAPIC_ICR_HIGH, apic_id << 24);
	write(LAPIC_ICR, command);
}

static void route(unsigned int gsi, uint32_t entry)
{
	mmio_write(IOAPIC_BASE, 4, 0x11 + 2 * gsi);
	mmio_write(IOAPIC_BASE + 0x10, 4, lapic_id() << 24);
	mmio_write(IOAPIC_BASE, 4, 0x10 + 2 * gsi);
	mmio_write(IOAPIC_BASE + 0x10, 4, entry); /* not masked */
}

void ioapic_route(unsigned int gsi, unsigned int vector)
{
	route(gsi, vector); /* edge, active high */
}

void ioapic_route_level(unsigned int gsi, unsigned int vector)
{
	route(gsi, LEVEL | ACTIVE_LOW | vector);
}

void wait_for_interrupt(uint64_t seen)
{
	gate(GATE_WAIT, (uint64_t)&irq_total, seen, NULL);
}

void platform_tsc_init(void)
{
	uint32_t regs[4];
	uint64_t start, end;
	uint32_t from, to;

	gate(GATE_CPUID, 0x40000000, 0, regs);
	if (regs[0] >= 0x40000010 && regs[0] < 0x40010000) {
		gate(GATE_CPUID, 0x40000010, 0, regs);
		platform.tsc_khz = regs[0];
	}
	if (platform.tsc_khz)
		return;
	/* Nobody says: measure it against the timer, for 2 ms. */
	write(LAPIC_LVT_TIMER, VECTOR_TIMER | MASKED);
	write(LAPIC_TIMER_INITIAL, 0xffffffff);
	from = (uint32_t)mmio_read(LAPIC_BASE + LAPIC_TIMER_CURRENT, 4);
	start = rdtsc();
	do
		to = (uint32_t)mmio_read(LAPIC_BASE + LAPIC_TIMER_CURRENT, 4);
	while (from - to < 2000 * TICKS_PER_US);
	end = rdtsc();
	write(LAPIC_TIMER_INITIAL, 0);
	platform.tsc_khz = (end - start) * 1000000 / (from - to);
}
