/* SPDX-License-Identifier: Apache-2.0 */
/* Filling, summing, and dirtying memory with a pattern that can be checked later. */
#include "probe.h"

#define WORDS (PAGE_SIZE / 8)
#define FNV_PRIME 0x100000001b3UL
#define STEP 0x9e3779b97f4a7c15UL /* from word to word */
#define SLICE_US 1000U
/* A clock that jumps (the VM was away) is no reason to catch up. */
#define CATCH_UP_US 100000U

/* The job of `dirty`: page n % pages gets generation n / pages + 1, n = 0, 1, ... */
static struct {
	uint64_t start, pages, seed;
	uint64_t rate;	  /* bytes a second, 0: all it can */
	uint64_t written; /* n */
	bool running;
	uint64_t last;	 /* TSC */
	uint64_t credit; /* bytes that may be written now */
} dirty;

uint64_t fnv(uint64_t hash, const void *data, uint64_t len)
{
	const uint64_t *words = data;

	for (uint64_t i = 0; i < len / 8; i++)
		hash = (hash ^ words[i]) * FNV_PRIME;
	return hash;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9UL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebUL;
	return x ^ x >> 31;
}

uint64_t pattern(uint64_t seed, uint64_t unit, uint64_t generation, unsigned int word)
{
	return mix(seed ^ mix(unit << 24 ^ generation)) + word * STEP;
}

void pattern_fill(uint64_t page, uint64_t seed, uint64_t unit, uint64_t generation)
{
	uint64_t *to = (uint64_t *)page, value = pattern(seed, unit, generation, 0);

	for (unsigned int i = 0; i < WORDS; i++, value += STEP)
		to[i] = value;
}

bool pattern_holds(uint64_t page, uint64_t seed, uint64_t unit, uint64_t generation)
{
	const uint64_t *from = (const uint64_t *)page;
	uint64_t value = pattern(seed, unit, generation, 0), differs = 0;

	for (unsigned int i = 0; i < WORDS; i++, value += STEP)
		differs |= from[i] ^ value;
	return !differs;
}

bool free_range(char **args, uint64_t *start, uint64_t *pages)
{
	uint64_t len;

	if (!next_number(args, start) || !next_number(args, pages)) {
		print("error <start> <pages> wanted\n");
		return false;
	}
	len = *pages * PAGE_SIZE;
	if (!*pages || *pages > 1UL << 40 || *start % PAGE_SIZE || !is_free_ram(*start, len)) {
		print("error 0x%lx + %lu pages is not free RAM (from 0x%x)\n", *start, *pages,
		      PROBE_END);
		return false;
	}
	if (!map_range(*start, len)) {
		print("error no page tables left\n");
		return false;
	}
	return true;
}

void command_sum(char *args)
{
	uint64_t start, pages;

	if (free_range(&args, &start, &pages))
		print("sum %lx\n", fnv(FNV_INIT, (const void *)start, pages * PAGE_SIZE));
}

void command_fill(char *args)
{
	uint64_t start, pages, seed;

	if (!free_range(&args, &start, &pages))
		return;
	if (!next_number(&args, &seed)) {
		print("error <seed> wanted\n");
		return;
	}
	for (uint64_t i = 0; i < pages; i++)
		pattern_fill(start + i * PAGE_SIZE, seed, i, 0);
	print("fill ok\n");
}

void command_dirty(char *args)
{
	uint64_t start, pages, rate, seed;

	if (!free_range(&args, &start, &pages))
		return;
	if (!next_number(&args, &rate) || !next_number(&args, &seed)) {
		print("error <MiB/s> <seed> wanted\n");
		return;
	}
	dirty.start = start;
	dirty.pages = pages;
	dirty.seed = seed;
	dirty.rate = rate * MIB;
	dirty.written = 0;
	dirty.credit = 0;
	dirty.last = rdtsc();
	dirty.running = true;
	print("dirty ok\n");
}

void command_dirtystop(char *args)
{
	(void)args;
	dirty.running = false;
	lapic_timer(0, false);
	print("dirtystop pages=%lu\n", dirty.written);
}

void command_verify(char *args)
{
	uint64_t reached = dirty.written < dirty.pages ? dirty.written : dirty.pages;

	(void)args;
	for (uint64_t i = 0; i < reached; i++) {
		const uint64_t *page = (const uint64_t *)(dirty.start + i * PAGE_SIZE);
		uint64_t generation = (dirty.written - 1 - i) / dirty.pages + 1;

		for (unsigned int k = 0; k < WORDS; k++) {
			uint64_t want = pattern(dirty.seed, i, generation, k);

			if (page[k] == want)
				continue;
			print("verify bad page=%lu word=%u got=%lx want=%lx\n", i, k, page[k],
			      want);
			return;
		}
	}
	print("verify ok pages=%lu written=%lu\n", reached, dirty.written);
}

static void earn(void)
{
	uint64_t now = rdtsc(), most = CATCH_UP_US * platform.tsc_khz / 1000;
	uint64_t passed = now - dirty.last;

	dirty.last = now;
	if (passed > most)
		passed = most;
	/* us first: bytes a second times TSC ticks would overflow. */
	dirty.credit += passed * 1000 / platform.tsc_khz * dirty.rate / 1000000;
}

bool dirty_work(void)
{
	uint64_t end;

	if (!dirty.running)
		return false;
	if (dirty.rate)
		earn();
	else
		dirty.credit = ~0UL;
	end = rdtsc() + SLICE_US * platform.tsc_khz / 1000;
	while (dirty.credit >= PAGE_SIZE && rdtsc() < end) {
		uint64_t i = dirty.written % dirty.pages;

		pattern_fill(dirty.start + i * PAGE_SIZE, dirty.seed, i,
			     dirty.written / dirty.pages + 1);
		dirty.written++;
		dirty.credit -= PAGE_SIZE;
	}
	if (dirty.credit >= PAGE_SIZE)
		return true;
	lapic_timer(SLICE_US, false);
	return false;
}
