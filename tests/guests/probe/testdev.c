/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver for ferry-testdev (tests/testdev/README.md) that keeps it at work: round after
 * round of a transfer and a doorbell, each begun when both interrupts of the one before have
 * come. So no two interrupts of a kind can merge, and a lost one stops the work for good.
 * One device by MSI-X and one by INTx at a time.
 */
#include "probe.h"
#include "tests/testdev/testdev_regs.h"

#define COMMAND 0x04
#define COMMAND_NO_INTX 0x400
#define CAPABILITIES 0x34
#define INTERRUPT_LINE 0x3c /* the machine has put its GSI there */
#define CAP_MSIX 0x11
#define MSIX_ENABLE 0x8000U
#define MSIX_ENTRY 16

#define MSIX_DMA 0
#define MSIX_DOORBELL 2 /* the device's choice */
#define DRAIN_US 5000000U

/* Filled by entry.S, which sees to INTx. */
uint64_t intx_bar0;
volatile uint64_t intx_causes[3];

static struct engine {
	const char *name;
	volatile uint64_t *dma_irqs, *doorbell_irqs;
	bool by_msix, there, running;
	uint64_t bar0, from, to, pages, seed;
	uint64_t transfers, rings, good, bad; /* checked ones are good or bad */
} engines[] = {
	{ "msix", &irq_count[VECTOR_DMA - 32], &irq_count[VECTOR_DOORBELL - 32], .by_msix = true },
	{ "intx", &intx_causes[0], &intx_causes[2], .by_msix = false },
};

static uint32_t read(const struct engine *e, unsigned int reg)
{
	return (uint32_t)mmio_read(e->bar0 + reg, 4);
}

static void write(const struct engine *e, unsigned int reg, uint32_t value)
{
	mmio_write(e->bar0 + reg, 4, value);
}

static void begin(struct engine *e)
{
	e->transfers++;
	e->rings++;
	for (uint64_t i = 0; i < e->pages; i++)
		pattern_fill(e->from + i * PAGE_SIZE, e->seed, i, e->transfers);
	write(e, TESTDEV_DMA_CTRL,
	      TESTDEV_DMA_START | TESTDEV_DMA_IRQ | MSIX_DMA << TESTDEV_DMA_VECTOR_SHIFT);
	write(e, TESTDEV_DOORBELL, 1);
}

static void check(struct engine *e)
{
	bool same = true;

	for (uint64_t i = 0; i < e->pages; i++)
		same = same && pattern_holds(e->to + i * PAGE_SIZE, e->seed, i, e->transfers);
	e->good += same;
	e->bad += !same;
}

/* Whether all interrupts of this round have come; a copy that has is checked. */
static bool is_over(struct engine *e)
{
	if (*e->dma_irqs != e->transfers)
		return false;
	if (e->good + e->bad != e->transfers)
		check(e);
	return *e->doorbell_irqs == e->rings;
}

void testdev_work(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(engines); i++) {
		struct engine *e = &engines[i];

		if (!e->running)
			continue;
		if (is_over(e))
			begin(e);
	}
}

static void set_msix_entry(uint64_t table, unsigned int index, unsigned int vector)
{
	uint64_t entry = table + (uint64_t)MSIX_ENTRY * index;

	mmio_write(entry, 4, LAPIC_BASE | lapic_id() << 12);
	mmio_write(entry + 4, 4, 0);
	mmio_write(entry + 8, 4, vector);
	mmio_write(entry + 12, 4, 0);
}

static bool enable_msix(const struct pci_device *d)
{
	uint8_t at = (uint8_t)mmio_read(d->config + CAPABILITIES, 1);
	uint64_t table = pci_bar(d, 1);

	for (unsigned int i = 0; at && i < 48; i++) {
		uint64_t cap = d->config + at;

		if ((uint8_t)mmio_read(cap, 1) == CAP_MSIX && table) {
			set_msix_entry(table, MSIX_DMA, VECTOR_DMA);
			set_msix_entry(table, MSIX_DOORBELL, VECTOR_DOORBELL);
			mmio_write(cap + 2, 2, mmio_read(cap + 2, 2) | MSIX_ENABLE);
			return true;
		}
		at = (uint8_t)mmio_read(cap + 1, 1);
	}
	return false;
}

static bool enable_intx(const struct pci_device *d, const struct engine *e)
{
	uint64_t command = mmio_read(d->config + COMMAND, 2);

	mmio_write(d->config + COMMAND, 2, command & ~(uint64_t)COMMAND_NO_INTX);
	intx_bar0 = e->bar0;
	ioapic_route_level((uint8_t)mmio_read(d->config + INTERRUPT_LINE, 1), VECTOR_INTX);
	return true;
}

static bool find(struct engine *e, unsigned int nth)
{
	struct pci_device d;

	if (!pci_find(TESTDEV_VENDOR, TESTDEV_DEVICE, TESTDEV_DEVICE, nth, &d)) {
		print("error no ferry-testdev %u\n", nth);
		return false;
	}
	e->bar0 = pci_bar(&d, 0);
	if (!e->bar0 || read(e, TESTDEV_ID) != TESTDEV_ID_VALUE || read(e, TESTDEV_IRQ_COUNT)) {
		print("error the device does not answer, or has been used before\n");
		return false;
	}
	if (!(e->by_msix ? enable_msix(&d) : enable_intx(&d, e))) {
		print("error no MSI-X\n");
		return false;
	}
	return true;
}

static void set_64(const struct engine *e, unsigned int reg, uint64_t value)
{
	write(e, reg, (uint32_t)value);
	write(e, reg + 4, (uint32_t)(value >> 32));
}

/* <nth> <start> <pages> <seed>: from `start` to what follows it. */
static void start(struct engine *e, char *args)
{
	uint64_t nth;

	if (e->there) {
		print("error it was started before\n");
		return;
	}
	if (!next_number(&args, &nth) || !next_number(&args, &e->from) ||
	    !next_number(&args, &e->pages) || !next_number(&args, &e->seed) || !e->pages ||
	    e->pages > TESTDEV_DMA_MAX / PAGE_SIZE || e->from % PAGE_SIZE ||
	    !is_free_ram(e->from, 2 * e->pages * PAGE_SIZE) ||
	    !map_range(e->from, 2 * e->pages * PAGE_SIZE)) {
		print("error <nth> <start> <pages> <seed> wanted, twice so many in free RAM\n");
		return;
	}
	if (!find(e, (unsigned int)nth))
		return;
	e->to = e->from + e->pages * PAGE_SIZE;
	set_64(e, TESTDEV_DMA_SRC, e->from);
	set_64(e, TESTDEV_DMA_DST, e->to);
	write(e, TESTDEV_DMA_LEN, (uint32_t)(e->pages * PAGE_SIZE));
	write(e, TESTDEV_DOORBELL_IRQ, 1);
	e->there = e->running = true;
	print("testdev %s ok\n", e->name);
}

/* The guest's counts, and the device's own. */
static void report(const struct engine *e)
{
	print("testdev %s transfers=%lu good=%lu bad=%lu rings=%lu dma_irqs=%lu doorbell_irqs=%lu ",
	      e->name, e->transfers, e->good, e->bad, e->rings, *e->dma_irqs, *e->doorbell_irqs);
	print("raised=%u moved=%u heard=%u\n", read(e, TESTDEV_IRQ_COUNT),
	      read(e, TESTDEV_DMA_COUNT), read(e, TESTDEV_DOORBELL_COUNT));
}

/* What is under way ends, if its interrupts come. */
static void stop(struct engine *e)
{
	uint64_t end = rdtsc() + DRAIN_US / 1000 * platform.tsc_khz;

	e->running = false;
	while (!is_over(e) && rdtsc() < end)
		cpu_relax();
	report(e);
}

void command_testdev(char *args)
{
	const char *what = next_word(&args), *name = next_word(&args);

	for (unsigned int i = 0; i < ARRAY_SIZE(engines); i++) {
		struct engine *e = &engines[i];

		if (!equal(name, e->name))
			continue;
		if (equal(what, "start")) {
			start(e, args);
			return;
		}
		if (e->there && equal(what, "stop")) {
			stop(e);
			return;
		}
		if (e->there && equal(what, "count")) {
			report(e);
			return;
		}
	}
	print("error testdev start|stop|count msix|intx, started first\n");
}
