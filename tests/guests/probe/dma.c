/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps the DMA engines of every ferry-testdev busy, with copies that can be checked later. */
#include "probe.h"

#include "tests/testdev/testdev_regs.h"

#define BLOCK 16UL /* pages that one transfer copies */
#define BLOCK_BYTES (BLOCK * PAGE_SIZE)
#define WORDS (BLOCK_BYTES / 8)
#define DEVICES_MAX 8
#define END_MS 10000 /* for a transfer to end */

/*
 * A device's part of the range: a block that is copied from, and slots that are copied to.
 * Transfer n (from 0) copies generation n + 1 into slot n % slots.
 */
struct engine {
	uint64_t bar, start, slots, done;
	uint32_t count; /* the device's own, before the first */
	bool busy;
};

static struct {
	struct engine engines[DEVICES_MAX];
	unsigned int count;
	uint64_t seed;
	bool running;
	uint32_t failed; /* a status that is not to be: 0, none */
} dma;

static uint32_t get(const struct engine *e, unsigned int reg)
{
	return (uint32_t)mmio_read(e->bar + reg, 4);
}

static void set(const struct engine *e, unsigned int reg, uint64_t value)
{
	mmio_write(e->bar + reg, 4, (uint32_t)value);
}

static uint64_t word(const struct engine *e, uint64_t generation, uint64_t k)
{
	return pattern(dma.seed, e->start >> 12, generation, 0) +
	       k * (pattern(0, 0, 0, 1) - pattern(0, 0, 0, 0));
}

static void begin(struct engine *e)
{
	uint64_t *from = (uint64_t *)e->start;
	uint64_t to = e->start + (1 + e->done % e->slots) * BLOCK_BYTES;
	uint64_t value = word(e, e->done + 1, 0), step = word(e, e->done + 1, 1) - value;

	for (uint64_t k = 0; k < WORDS; k++, value += step)
		from[k] = value;
	set(e, TESTDEV_DMA_SRC, e->start);
	set(e, TESTDEV_DMA_SRC + 4, e->start >> 32);
	set(e, TESTDEV_DMA_DST, to);
	set(e, TESTDEV_DMA_DST + 4, to >> 32);
	set(e, TESTDEV_DMA_LEN, BLOCK_BYTES);
	set(e, TESTDEV_DMA_CTRL, TESTDEV_DMA_START);
	e->busy = true;
}

/* Has the transfer ended? */
static void look(struct engine *e)
{
	uint32_t status = get(e, TESTDEV_DMA_STATUS);

	if (status == TESTDEV_DMA_BUSY)
		return;
	if (status != TESTDEV_DMA_DONE) {
		dma.failed = status + 1;
		dma.running = false;
	}
	e->busy = false;
	e->done++;
}

bool dma_work(void)
{
	if (!dma.running)
		return false;
	for (unsigned int i = 0; dma.running && i < dma.count; i++) {
		if (dma.engines[i].busy)
			look(&dma.engines[i]);
		if (dma.running && !dma.engines[i].busy)
			begin(&dma.engines[i]);
	}
	return dma.running;
}

/* Waits for the transfers under way. */
static bool settle(void)
{
	uint64_t end = rdtsc() + END_MS * platform.tsc_khz;

	for (unsigned int i = 0; i < dma.count; i++) {
		while (dma.engines[i].busy && !dma.failed) {
			if (rdtsc() > end) {
				print("error transfer %lu of device %u does not end\n",
				      dma.engines[i].done, i);
				return false;
			}
			look(&dma.engines[i]);
		}
	}
	if (dma.failed)
		print("error a transfer ended with status %u\n", dma.failed - 1);
	return !dma.failed;
}

static bool check_slot(unsigned int device, uint64_t slot)
{
	const struct engine *e = &dma.engines[device];
	const uint64_t *at = (const uint64_t *)(e->start + (1 + slot) * BLOCK_BYTES);
	uint64_t generation = (e->done - 1 - slot) / e->slots * e->slots + slot + 1;
	uint64_t want = word(e, generation, 0), step = word(e, generation, 1) - want;

	for (uint64_t k = 0; k < WORDS; k++, want += step) {
		if (at[k] == want)
			continue;
		print("dmacheck bad device=%u slot=%lu of=%lu word=%lu got=%lx want=%lx\n", device,
		      slot, e->done, k, at[k], want);
		return false;
	}
	return true;
}

/* The device counts, too: none is lost and none is done twice. */
static bool check_engine(unsigned int device)
{
	const struct engine *e = &dma.engines[device];
	uint32_t counted = get(e, TESTDEV_DMA_COUNT) - e->count;

	if (counted != (uint32_t)e->done) {
		print("dmacheck bad device=%u done=%lu counted=%u\n", device, e->done, counted);
		return false;
	}
	for (uint64_t slot = 0; slot < e->slots && slot < e->done; slot++)
		if (!check_slot(device, slot))
			return false;
	return true;
}

void command_dmacheck(char *args)
{
	uint64_t done = 0;

	(void)args;
	if (!settle())
		return;
	for (unsigned int i = 0; i < dma.count; i++) {
		if (!check_engine(i))
			return;
		done += dma.engines[i].done;
	}
	print("dmacheck ok devices=%u done=%lu\n", dma.count, done);
}

void command_dmastop(char *args)
{
	(void)args;
	dma.running = false;
	if (settle())
		print("dmastop ok\n");
}

static void find_engines(void)
{
	struct pci_device device;

	for (dma.count = 0; dma.count < DEVICES_MAX; dma.count++) {
		struct engine *e = &dma.engines[dma.count];

		if (!pci_find(TESTDEV_VENDOR, TESTDEV_DEVICE, TESTDEV_DEVICE, dma.count, &device))
			return;
		e->bar = pci_bar(&device, 0);
		if (!e->bar)
			return;
	}
}

static void start_engines(uint64_t start, uint64_t blocks)
{
	for (unsigned int i = 0; i < dma.count; i++) {
		struct engine *e = &dma.engines[i];

		e->start = start + i * blocks * BLOCK_BYTES;
		e->slots = blocks - 1;
		e->done = 0;
		e->busy = false;
		e->count = get(e, TESTDEV_DMA_COUNT);
	}
	dma.failed = 0;
	dma.running = true;
}

void command_dma(char *args)
{
	uint64_t start, pages, seed, blocks;

	if (dma.running) {
		print("error dmastop first\n");
		return;
	}
	if (!free_range(&args, &start, &pages))
		return;
	if (!next_number(&args, &seed)) {
		print("error <seed> wanted\n");
		return;
	}
	find_engines();
	if (!dma.count) {
		print("error no ferry-testdev\n");
		return;
	}
	blocks = pages / BLOCK / dma.count;
	if (blocks < 2) {
		print("error %lu pages for each device wanted\n", 2 * BLOCK);
		return;
	}
	dma.seed = seed;
	start_engines(start, blocks);
	print("dma ok devices=%u\n", dma.count);
}
