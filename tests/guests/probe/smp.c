/* SPDX-License-Identifier: Apache-2.0 */
/* The other CPUs: started one at a time, then asleep or counting. */
#include "probe.h"

#define GDT_ENTRIES 8
#define TSS_SELECTOR 0x30
#define ICR_INIT 0x4500U
#define ICR_STARTUP 0x4600U
#define STARTED_US 200000U

struct ap_start {
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} gdt;
	uint64_t ring0_stack, ring3_stack;
	void (*function)(void);
};
_Static_assert(offsetof(struct ap_start, ring0_stack) == AP_RING0_STACK &&
		       offsetof(struct ap_start, ring3_stack) == AP_RING3_STACK &&
		       offsetof(struct ap_start, function) == AP_FUNCTION,
	       "as trampoline.S reads it");

/* A CPU's own block: two pages from the pool. */
struct ap_block {
	uint64_t gdt[GDT_ENTRIES];
	uint8_t tss[104] __attribute__((aligned(16)));
	volatile uint64_t count;
	uint8_t ring0_stack[2048] __attribute__((aligned(16)));
	uint8_t ring3_stack[2048] __attribute__((aligned(16)));
};

struct ap_start ap_start;
extern const uint8_t ap_trampoline[], ap_trampoline_end[];
extern const uint64_t gdt[GDT_ENTRIES];

static struct ap_block *blocks[CPUS_MAX];
static unsigned int online; /* besides the boot CPU */
static volatile unsigned int arrived;
static bool spin;

static void ap_main(void)
{
	struct ap_block *block = blocks[arrived];
	bool counts = spin;

	block->count = 1;
	arrived++;
	if (counts) {
		for (;;)
			block->count++;
	}
	gate(GATE_HALT, 0, 0, NULL);
}

static void pause_us(uint64_t us)
{
	uint64_t end = rdtsc() + us * platform.tsc_khz / 1000;

	while (rdtsc() < end)
		cpu_relax();
}

static bool prepare(unsigned int index)
{
	struct ap_block *b = pool_alloc((sizeof(*b) + PAGE_SIZE - 1) / PAGE_SIZE);
	uint64_t tss;

	if (!b)
		return false;
	blocks[index] = b;
	tss = (uint64_t)b->tss;
	__builtin_memcpy(b->gdt, gdt, sizeof(b->gdt));
	/* Below 4 GiB: the descriptor's upper half stays 0. */
	b->gdt[TSS_SELECTOR / 8] =
		0x67 | (tss & 0xffffff) << 16 | 0x89UL << 40 | (tss >> 24 & 0xff) << 56;
	b->gdt[TSS_SELECTOR / 8 + 1] = 0;
	*(uint32_t *)(b->tss + 4) = (uint32_t)(uint64_t)(b->ring0_stack + sizeof(b->ring0_stack));
	*(uint16_t *)(b->tss + 102) = 104;
	ap_start.gdt.limit = sizeof(b->gdt) - 1;
	ap_start.gdt.base = (uint64_t)b->gdt;
	ap_start.ring0_stack = (uint64_t)(b->ring0_stack + sizeof(b->ring0_stack));
	ap_start.ring3_stack = (uint64_t)(b->ring3_stack + sizeof(b->ring3_stack)) - 8;
	ap_start.function = ap_main;
	return true;
}

static bool start(uint32_t apic_id)
{
	unsigned int before = arrived;

	lapic_ipi(apic_id, ICR_INIT);
	pause_us(100);
	lapic_ipi(apic_id, ICR_STARTUP | AP_TRAMPOLINE >> 12);
	for (unsigned int us = 0; us < STARTED_US && arrived == before; us += 100) {
		pause_us(100);
		if (us == 1000)
			lapic_ipi(apic_id, ICR_STARTUP | AP_TRAMPOLINE >> 12);
	}
	return arrived != before;
}

void command_smp(char *args)
{
	spin = equal(next_word(&args), "spin");
	__builtin_memcpy((void *)AP_TRAMPOLINE, ap_trampoline,
			 (uint64_t)(ap_trampoline_end - ap_trampoline));
	online = 0;
	arrived = 0;
	for (unsigned int i = 0; i < platform.cpus; i++) {
		if (platform.apic_ids[i] == lapic_id())
			continue;
		if (!prepare(arrived)) {
			print("error out of pages\n");
			return;
		}
		if (start(platform.apic_ids[i]))
			online++;
	}
	print("smp online=%u of=%u\n", online + 1, platform.cpus);
}

void command_apcount(char *args)
{
	(void)args;
	print("apcount");
	for (unsigned int i = 0; i < online; i++)
		print(" %lu", blocks[i]->count);
	print("\n");
}
