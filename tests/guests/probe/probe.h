/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The probe: a freestanding guest for tests. entry.S takes it to ring 3, where all
 * of this runs; ring 0 is left to interrupts and the gate. README.md has the commands.
 *
 * Memory: the image from 1 MiB; page tables, per-CPU blocks and the rings and buffers
 * of devices up to PROBE_END. RAM above belongs to the commands.
 */
#ifndef PROBE_H
#define PROBE_H

#define DEBUG_PORT 0x80
#define MARK_ENTRY 1 /* in the first instructions */
#define MARK_MAIN 2  /* ring 3 */
#define MARK_READY 3 /* the ready line is out */
#define MARK_END 4   /* about to shut down */

#define LAPIC_BASE 0xfee00000
#define LAPIC_EOI 0xb0

#define GATE_HALT 0
#define GATE_WAIT 1
#define GATE_CPUID 2
#define GATE_READ_MSR 3
#define GATE_WRITE_MSR 4
#define GATE_TRIPLE_FAULT 5

#define VECTOR_TIMER 33
#define VECTOR_SERIAL 36
#define VECTOR_INTX 38
#define VECTOR_DMA 40
#define VECTOR_DOORBELL 41
#define VECTOR_SPURIOUS 47

#define PROBE_POOL 0x200000
#define PROBE_BUFFERS 0x400000
#define PROBE_END 0x800000

#define AP_TRAMPOLINE 0x8000
/* Offsets in struct ap_start. */
#define AP_GDT 0
#define AP_RING0_STACK 16
#define AP_RING3_STACK 24
#define AP_FUNCTION 32

#ifndef __ASSEMBLER__

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE 4096UL
#define MIB (1UL << 20)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* entry.S */
uint64_t gate(unsigned int function, uint64_t a, uint64_t b, uint32_t *out);
extern uint64_t start_info, pml4[512];
extern volatile uint64_t irq_count[16], irq_total, nmi_count;

static inline void out8(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline void out16(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}

static inline void out32(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline uint16_t in16(uint16_t port)
{
	uint16_t v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline uint32_t in32(uint16_t port)
{
	uint32_t v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

/* One plain move each: an exit's emulator need not know more. */
static inline uint64_t mmio_read(uint64_t address, unsigned int len)
{
	switch (len) {
	case 1: return *(volatile uint8_t *)address;
	case 2: return *(volatile uint16_t *)address;
	case 4: return *(volatile uint32_t *)address;
	default: return *(volatile uint64_t *)address;
	}
}

static inline void mmio_write(uint64_t address, unsigned int len, uint64_t v)
{
	switch (len) {
	case 1: *(volatile uint8_t *)address = (uint8_t)v; break;
	case 2: *(volatile uint16_t *)address = (uint16_t)v; break;
	case 4: *(volatile uint32_t *)address = (uint32_t)v; break;
	default: *(volatile uint64_t *)address = v; break;
	}
}

static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

static inline void cpu_relax(void)
{
	__asm__ volatile("pause" ::: "memory");
}

/* serial.c: the line protocol */
void serial_init(bool interrupts);
/* %s, %u (uint32_t), %lu, %x, %lx (uint64_t) */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One line without its end, or NULL while none is complete. */
char *serial_line(void);

/* text.c */
bool equal(const char *a, const char *b);
/* The next word of *text, which is cut out of it; "" at the end. */
char *next_word(char **text);
/* Decimal or 0x...; false: no number. */
bool parse_number(const char *text, uint64_t *value);
bool next_number(char **text, uint64_t *value);

/* platform.c: what start_info and the ACPI tables say */
#define CPUS_MAX 64
struct ram {
	uint64_t start, end;
};
struct platform {
	struct ram ram[32];
	unsigned int ram_count;
	uint64_t ram_bytes;
	const char *cmdline;
	uint32_t apic_ids[CPUS_MAX];
	unsigned int cpus;
	uint64_t ecam;
	unsigned int ecam_buses;
	uint64_t sleep_control;
	uint64_t tsc_khz;
};
extern struct platform platform;
void platform_init(void);
void platform_tsc_init(void); /* after lapic_init() */
bool cmdline_has(const char *word);
/* Whether [start, start + len) is RAM the commands may use. */
bool is_free_ram(uint64_t start, uint64_t len);
void shut_down(void) __attribute__((noreturn));

/* map.c */
/* Zeroed pages between PROBE_POOL and PROBE_BUFFERS; NULL: used up. */
void *pool_alloc(unsigned int pages);
/* Makes [start, start + len) accessible at its physical address. */
bool map_range(uint64_t start, uint64_t len);

/* lapic.c: one-shot and periodic timer, in units of 1 us; interrupts of the CPU */
void lapic_init(void);
void lapic_timer(uint32_t us, bool periodic);
void lapic_ipi(uint32_t apic_id, uint32_t command);
uint32_t lapic_id(void);
void ioapic_route(unsigned int gsi, unsigned int vector);
void ioapic_route_level(unsigned int gsi, unsigned int vector);
/* Sleeps until irq_total is no longer `seen`. */
void wait_for_interrupt(uint64_t seen);

/* memory.c */
uint64_t fnv(uint64_t hash, const void *data, uint64_t len);
#define FNV_INIT 0xcbf29ce484222325UL
/* Word k of unit i (a page, a sector) in generation g. */
uint64_t pattern(uint64_t seed, uint64_t unit, uint64_t generation, unsigned int word);
void pattern_fill(uint64_t page, uint64_t seed, uint64_t unit, uint64_t generation);
bool pattern_holds(uint64_t page, uint64_t seed, uint64_t unit, uint64_t generation);
/* The arguments <start> <pages> of a command: free RAM, mapped. False: it has been said. */
bool free_range(char **args, uint64_t *start, uint64_t *pages);
void command_sum(char *args);
void command_fill(char *args);
void command_dirty(char *args);
void command_dirtystop(char *args);
void command_verify(char *args);
/* Does what is due; true while there is something to do. Sets the timer for it. */
bool dirty_work(void);

/* pci.c */
struct pci_device {
	uint64_t config; /* address of its config space */
	uint8_t bus, slot, function;
};
/* The nth function with this vendor and one of two device ids. */
bool pci_find(uint16_t vendor, uint16_t device, uint16_t other, unsigned int nth,
	      struct pci_device *found);
/* The address of a memory BAR, mapped; 0: none. */
uint64_t pci_bar(const struct pci_device *device, unsigned int bar);
void command_pciscan(char *args);

/* testdev.c */
void command_testdev(char *args);
/* Begins what can be begun. */
void testdev_work(void);
/* dma.c */
void command_dma(char *args);
void command_dmacheck(char *args);
void command_dmastop(char *args);
/* As dirty_work, without the timer. */
bool dma_work(void);

/* blk.c, smp.c */
void command_blk(char *args);
void command_smp(char *args);
void command_apcount(char *args);

#endif
#endif
