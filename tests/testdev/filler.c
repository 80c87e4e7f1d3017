/* SPDX-License-Identifier: Apache-2.0 */
/* State for figures: as much as asked for, with a pattern that shows where a page belongs
 * and how old it is, and some of it changing while the device runs. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "tests/testdev/testdev.h"

#define WORDS (TESTDEV_PAGE / 8)

static void write_page(struct testdev_filler *f, uint64_t page, uint64_t generation)
{
	uint64_t *word = (uint64_t *)(f->bytes + page * TESTDEV_PAGE);
	uint64_t value = (page << 32) * TESTDEV_FILLER_FACTOR + generation;

	f->generations += generation - word[0];
	word[0] = generation;
	for (uint64_t k = 1; k < WORDS; k++)
		word[k] = value += TESTDEV_FILLER_FACTOR;
}

int testdev_filler_init(struct testdev *t)
{
	struct testdev_filler *f = &t->migration.filler;

	f->pages = t->o.state_size / TESTDEV_PAGE;
	f->initial = MIN(t->o.state_initial / TESTDEV_PAGE, f->pages);
	f->unsent = calloc(f->pages / 64 + 1, 8);
	if (!f->unsent)
		return -ENOMEM;
	if (!f->pages)
		return 0;
	f->bytes = mmap(NULL, f->pages * TESTDEV_PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f->bytes == MAP_FAILED)
		return -errno;
	for (uint64_t page = 0; page < f->pages; page++)
		write_page(f, page, 0);
	f->touched_ns = clock_ns();
	return 0;
}

static bool is_unsent(const struct testdev_filler *f, uint64_t page)
{
	return f->unsent[page / 64] & 1ULL << page % 64;
}

static void set_unsent(struct testdev_filler *f, uint64_t page, bool unsent)
{
	if (is_unsent(f, page) == unsent)
		return;
	f->unsent[page / 64] ^= 1ULL << page % 64;
	f->unsent_count += unsent ? 1 : -1ULL;
	if (page < f->initial)
		f->unsent_initial += unsent ? 1 : -1ULL;
}

void testdev_filler_unsent_all(struct testdev *t)
{
	struct testdev_filler *f = &t->migration.filler;

	for (uint64_t page = 0; page < f->pages; page++)
		set_unsent(f, page, true);
	f->send_at = 0;
}

void testdev_filler_touch(struct testdev *t, uint64_t pages)
{
	struct testdev_filler *f = &t->migration.filler;

	for (pages = MIN(pages, f->pages); pages; pages--) {
		uint64_t page = f->touch_at++ % f->pages;

		write_page(f, page, *(uint64_t *)(f->bytes + page * TESTDEV_PAGE) + 1);
		set_unsent(f, page, true);
	}
}

void testdev_filler_start(struct testdev *t)
{
	t->migration.filler.touched_ns = clock_ns();
}

void testdev_filler_run(struct testdev *t)
{
	struct testdev_filler *f = &t->migration.filler;
	uint64_t now = clock_ns(), pages;
	double rate = (double)t->o.state_dirty / TESTDEV_PAGE / 1e9;

	if (!t->o.state_dirty || !f->pages)
		return;
	pages = (uint64_t)((double)(now - f->touched_ns) * rate);
	if (!pages)
		return;
	f->touched_ns = now;
	testdev_filler_touch(t, pages);
}

/* Initial pages first, and from where the last ones were taken on. */
uint64_t testdev_filler_take(struct testdev *t, uint64_t max, uint64_t *first)
{
	struct testdev_filler *f = &t->migration.filler;
	uint64_t end = f->unsent_initial ? f->initial : f->pages;
	uint64_t page = f->send_at < end ? f->send_at : 0, count = 0;

	if (!f->unsent_count)
		return 0;
	while (!is_unsent(f, page))
		page = page + 1 == end ? 0 : page + 1;
	*first = page;
	for (; count < max && page < f->pages && is_unsent(f, page); count++)
		set_unsent(f, page++, false);
	f->send_at = page;
	return count;
}

static int check_page(const uint64_t *word, uint64_t page)
{
	uint64_t value = (page << 32) * TESTDEV_FILLER_FACTOR + word[0], differs = 0;

	for (uint64_t k = 1; k < WORDS; k++)
		differs |= word[k] ^ (value += TESTDEV_FILLER_FACTOR);
	return differs ? EINVAL : 0;
}

int testdev_filler_load(struct testdev *t, uint64_t offset, const uint8_t *data, size_t len)
{
	struct testdev_filler *f = &t->migration.filler;
	uint64_t size = f->pages * TESTDEV_PAGE;

	if ((offset | len) % TESTDEV_PAGE || offset > size || len > size - offset)
		return EINVAL;
	for (size_t at = 0; at < len; at += TESTDEV_PAGE) {
		uint64_t *page = (uint64_t *)(f->bytes + offset + at), before = page[0];

		memcpy(page, data + at, TESTDEV_PAGE);
		f->generations += page[0] - before;
		if (check_page(page, (offset + at) / TESTDEV_PAGE)) {
			testdev_log(t, "filler at 0x%" PRIx64 " is none", offset + at);
			return EINVAL;
		}
	}
	return 0;
}
