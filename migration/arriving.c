/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each page that is to come has two bits. `missing` belongs to who clears it: he puts the
 * page in place. `coming` is cleared when it is there; until then a fault is waited for,
 * from then on a page that is not there was given back, and is zero.
 */
#include "migration/arriving.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "memory/userfault.h"

#define EVENTS 64
/* Threads that wait at a time, as far as their time is taken: more are served as well. */
#define WAITING_MAX 256
#define DISCARD_TRIES 5

struct waiting {
	uint64_t gpa, since_ns;
};

struct region {
	const struct guest_memory_region *ram;
	struct dirty_bitmap missing, coming;
	bool registered;
};

struct arriving {
	struct userfault uf;
	struct guest_memory *memory;
	struct region *regions;
	unsigned int region_count;
	bool small, holding; /* no huge pages; discards wait */
	int done;	     /* eventfd */
	_Atomic uint64_t left;

	pthread_mutex_t lock; /* of what follows */
	struct waiting waiting[WAITING_MAX];
	unsigned int waiting_count;
	uint64_t placed_ns; /* the last page */
	uint64_t faults, timed, sum_ns, max_ns;
};

struct arriving *arriving_new(const struct thread_policy *policy, struct error *err)
{
	struct arriving *a = calloc(1, sizeof(*a));

	if (!a) {
		error_set_errno(err, ENOMEM, "postcopy");
		return NULL;
	}
	a->uf.fd = -1;
	pthread_mutex_init(&a->lock, NULL);
	a->done = eventfd_new();
	if (a->done < 0)
		error_set_errno(err, a->done, "postcopy");
	if (a->done < 0 || userfault_open(&a->uf, USERFAULT_MISSING, -1, policy, err)) {
		error_prefix(err, "postcopy");
		arriving_free(a);
		return NULL;
	}
	return a;
}

void arriving_free(struct arriving *a)
{
	if (!a)
		return;
	arriving_end(a);
	userfault_close(&a->uf);
	if (a->done >= 0)
		close(a->done);
	for (unsigned int i = 0; i < a->region_count; i++) {
		dirty_bitmap_destroy(&a->regions[i].missing);
		dirty_bitmap_destroy(&a->regions[i].coming);
	}
	free(a->regions);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

int arriving_set_memory(struct arriving *a, struct guest_memory *memory, struct error *err)
{
	unsigned int count = guest_memory_region_count(memory);
	int r = 0;

	a->memory = memory;
	a->regions = calloc(MAX(count, 1U), sizeof(*a->regions));
	if (!a->regions)
		return error_set_errno(err, ENOMEM, "postcopy");
	for (unsigned int i = 0; !r && i < count; i++) {
		struct region *region = &a->regions[a->region_count++];
		uint64_t pages;

		region->ram = guest_memory_region(memory, i);
		pages = region->ram->size / GUEST_PAGE_SIZE;
		if (region->ram->page_size > POSTCOPY_UNIT_MAX)
			r = error_set(err, EOPNOTSUPP,
				      "postcopy: pages of %u MiB cannot follow one by one; migrate "
				      "by precopy, or with smaller ones",
				      (unsigned int)(region->ram->page_size / MIB));
		if (!r)
			r = dirty_bitmap_init(&region->missing, pages, err);
		if (!r)
			r = dirty_bitmap_init(&region->coming, pages, err);
	}
	return r;
}

uint32_t arriving_unit(const struct arriving *a)
{
	uint32_t unit = GUEST_PAGE_SIZE;

	for (unsigned int i = 0; i < a->region_count; i++)
		unit = MAX(unit, a->regions[i].ram->page_size);
	return unit;
}

/* The region of a run in whole pages; *page: its first. */
static struct region *find(struct arriving *a, uint64_t gpa, uint64_t len, uint64_t *page)
{
	for (unsigned int i = 0; i < a->region_count; i++) {
		const struct guest_memory_region *ram = a->regions[i].ram;
		uint64_t offset = gpa - ram->gpa;

		if (offset >= ram->size)
			continue;
		if (len > ram->size - offset || offset % ram->page_size || len % ram->page_size)
			return NULL;
		*page = offset / GUEST_PAGE_SIZE;
		return &a->regions[i];
	}
	return NULL;
}

static int no_pages(const char *what, uint64_t gpa, uint64_t len, struct error *err)
{
	return error_set(err, EBADMSG,
			 "%s of the peer: %llu bytes at 0x%llx are not whole pages of RAM", what,
			 (unsigned long long)len, (unsigned long long)gpa);
}

/* A page that was sent before and is stale; one that somebody holds for a moment, or that
 * is part of a huge page just being taken apart, may need to be asked to go again. */
static int discard(struct arriving *a, const struct guest_memory_region *ram, uint64_t page,
		   uint64_t pages, struct error *err)
{
	uint64_t start = ram->offset + page * GUEST_PAGE_SIZE;
	uint64_t end = start + pages * GUEST_PAGE_SIZE;

	for (int i = 0; i < DISCARD_TRIES; i++) {
		int r = guest_memory_discard(a->memory, ram->gpa + page * GUEST_PAGE_SIZE,
					     pages * GUEST_PAGE_SIZE);
		off_t data;

		if (r)
			return error_set_errno(err, r, "postcopy: drop stale pages");
		if (ram->page_size > GUEST_PAGE_SIZE)
			return 0;
		data = lseek(ram->memfd, (off_t)start, SEEK_DATA);
		if (data < 0 ? errno == ENXIO : (uint64_t)data >= end)
			return 0;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000L << i }, NULL);
	}
	return error_set(err, EBUSY,
			 "postcopy: the kernel keeps stale pages at 0x%" PRIx64
			 ", part of a huge page",
			 ram->gpa + page * GUEST_PAGE_SIZE);
}

int arriving_expect(void *opaque, uint64_t gpa, uint64_t len, struct error *err)
{
	struct arriving *a = opaque;
	uint64_t page, end, first, count;
	struct region *region = find(a, gpa, len, &page);
	int r = 0;

	if (!region)
		return no_pages("MISSING", gpa, len, err);
	if (!a->small)
		guest_memory_allow_huge(a->memory, false);
	a->small = true;
	end = page + len / GUEST_PAGE_SIZE;
	while (!r && page < end) {
		first = page;
		if (!dirty_bitmap_next_run(&region->coming, &first, &count) || first >= end)
			first = end;
		dirty_bitmap_set(&region->missing, page, first - page);
		dirty_bitmap_set(&region->coming, page, first - page);
		if (first > page)
			r = discard(a, region->ram, page, first - page, err);
		page = first < end ? first + count : end;
	}
	return r;
}

int arriving_begin(struct arriving *a, struct error *err)
{
	uint64_t left = 0;
	int r = 0;

	for (unsigned int i = 0; i < a->region_count; i++)
		left += dirty_bitmap_count(&a->regions[i].coming);
	atomic_store(&a->left, left);
	guest_memory_hold_discards(a->memory);
	a->holding = true;
	for (unsigned int i = 0; !r && i < a->region_count; i++) {
		const struct guest_memory_region *ram = a->regions[i].ram;

		r = userfault_register(&a->uf, ram->hva, ram->size, USERFAULT_MISSING, err);
		a->regions[i].registered = !r;
	}
	if (!r && !left)
		eventfd_signal(a->done);
	return r ? error_prefix(err, "postcopy") : 0;
}

void arriving_end(struct arriving *a)
{
	for (unsigned int i = 0; i < a->region_count; i++) {
		struct region *region = &a->regions[i];

		if (region->registered)
			userfault_unregister(&a->uf, region->ram->hva, region->ram->size);
		region->registered = false;
	}
	if (a->holding)
		guest_memory_release_discards(a->memory);
	if (a->small)
		guest_memory_allow_huge(a->memory, true);
	a->holding = a->small = false;
}

/* They are there: who waited for one waits no more. */
static void note_placed(struct arriving *a, struct region *region, uint64_t page, uint64_t pages)
{
	uint64_t gpa = region->ram->gpa + page * GUEST_PAGE_SIZE, len = pages * GUEST_PAGE_SIZE;
	uint64_t now = clock_ns();

	dirty_bitmap_clear(&region->coming, page, pages);
	pthread_mutex_lock(&a->lock);
	a->placed_ns = now;
	for (unsigned int i = 0; i < a->waiting_count;) {
		struct waiting *w = &a->waiting[i];

		if (w->gpa - gpa >= len) {
			i++;
			continue;
		}
		a->timed++;
		a->sum_ns += now - w->since_ns;
		a->max_ns = MAX(a->max_ns, now - w->since_ns);
		*w = a->waiting[--a->waiting_count];
	}
	pthread_mutex_unlock(&a->lock);
	if (atomic_fetch_sub(&a->left, pages) == pages)
		eventfd_signal(a->done);
}

/* What one operation takes of a run: the pages of a word, or a huge page. */
struct piece {
	struct region *region;
	uint64_t base; /* page of bit 0 */
	uint64_t taken;
	uint64_t unit;	     /* pages that a bit stands for: 1, or all of a huge page's */
	const uint8_t *data; /* of the page data_page; NULL: zeros */
	uint64_t data_page;
};

/* Takes those pages of [page, page + *count) that nobody has, and shortens *count to what
 * was looked at. */
static struct piece take(struct region *region, uint64_t page, uint64_t *count)
{
	uint64_t unit = region->ram->page_size / GUEST_PAGE_SIZE, shift = page % 64;
	uint64_t bits = unit > 1 ? 1 : MIN(64 - shift, *count);
	uint64_t mask = (bits == 64 ? UINT64_MAX : (1ULL << bits) - 1) << shift;
	struct piece piece = { .region = region, .base = page - shift, .unit = unit };

	*count = bits * unit;
	piece.taken =
		__atomic_fetch_and(&region->missing.words[page / 64], ~mask, __ATOMIC_ACQ_REL) &
		mask;
	/* The first bit of a huge page decides for all of them. */
	if (unit > 1 && piece.taken)
		dirty_bitmap_clear(&region->missing, page, unit);
	return piece;
}

/* What fails is missing again. */
static int place_piece(struct arriving *a, const struct piece *piece)
{
	const struct guest_memory_region *ram = piece->region->ram;

	for (uint64_t left = piece->taken; left;) {
		uint64_t first = (uint64_t)__builtin_ctzll(left), run = left >> first;
		uint64_t count = ~run ? (uint64_t)__builtin_ctzll(~run) : 64;
		uint64_t page = piece->base + first, pages = count * piece->unit;
		int r = 0;

		if (piece->data)
			r = userfault_copy(&a->uf, ram->hva + page * GUEST_PAGE_SIZE,
					   piece->data +
						   (page - piece->data_page) * GUEST_PAGE_SIZE,
					   pages * GUEST_PAGE_SIZE, ram->page_size);
		if (r) {
			__atomic_fetch_or(&piece->region->missing.words[piece->base / 64], left,
					  __ATOMIC_RELEASE);
			return r;
		}
		note_placed(a, piece->region, page, pages);
		left &= count == 64 ? 0 : ~(((1ULL << count) - 1) << first);
	}
	return 0;
}

int arriving_place(struct arriving *a, uint64_t gpa, uint64_t len, const void *data,
		   struct error *err)
{
	uint64_t first, count, pages = len / GUEST_PAGE_SIZE;
	struct region *region = find(a, gpa, len, &first);

	if (!region)
		return no_pages("PAGES", gpa, len, err);
	for (uint64_t page = first; page < first + pages; page += count) {
		struct piece piece;
		int r;

		count = first + pages - page;
		piece = take(region, page, &count);
		piece.data = data;
		piece.data_page = first;
		r = place_piece(a, &piece);
		if (r)
			return error_set_errno(err, r, "postcopy: put pages in place");
	}
	/* Zeros are not put anywhere: who waits faults again, and is told so then. */
	if (!data)
		userfault_wake(&a->uf, region->ram->hva + first * GUEST_PAGE_SIZE, len);
	return 0;
}

int arriving_fd(const struct arriving *a)
{
	return a->uf.fd;
}

/* Is this page to be asked for? Under the lock, so that it cannot come in between. */
static bool add_waiting(struct arriving *a, struct region *region, uint64_t page)
{
	uint64_t gpa = region->ram->gpa + page * GUEST_PAGE_SIZE;
	bool known = false, coming;

	pthread_mutex_lock(&a->lock);
	coming = dirty_bitmap_test(&region->coming, page);
	for (unsigned int i = 0; i < a->waiting_count; i++)
		known |= a->waiting[i].gpa == gpa;
	if (coming) {
		a->faults++;
		if (!a->waiting_count)
			a->placed_ns = clock_ns();
		if (!known && a->waiting_count < WAITING_MAX)
			a->waiting[a->waiting_count++] =
				(struct waiting){ .gpa = gpa, .since_ns = clock_ns() };
	}
	pthread_mutex_unlock(&a->lock);
	return coming && !known;
}

static bool serve(struct arriving *a, uint8_t *address, uint64_t *gpa)
{
	for (unsigned int i = 0; i < a->region_count; i++) {
		const struct guest_memory_region *ram = a->regions[i].ram;
		uint64_t offset = (uint64_t)(address - ram->hva);

		if (offset >= ram->size)
			continue;
		offset = align_down(offset, ram->page_size);
		*gpa = ram->gpa + offset;
		if (add_waiting(a, &a->regions[i], offset / GUEST_PAGE_SIZE))
			return true;
		if (dirty_bitmap_test(&a->regions[i].coming, offset / GUEST_PAGE_SIZE))
			return false; /* asked for already */
		/* It came as zeros, or was given back since. If it is there after all, nobody
		 * has woken who waits. */
		userfault_zero(&a->uf, ram->hva + offset, ram->page_size, ram->page_size);
		userfault_wake(&a->uf, ram->hva + offset, ram->page_size);
		return false;
	}
	return false;
}

int arriving_faults(struct arriving *a, uint64_t *gpas, unsigned int max, bool *more)
{
	struct userfault_event events[EVENTS];
	int n = userfault_read(&a->uf, events, MIN(max, (unsigned int)EVENTS)), count = 0;

	*more = n > 0;
	for (int i = 0; i < n; i++)
		if (serve(a, events[i].address, &gpas[count]))
			count++;
	return n < 0 ? n : count;
}

unsigned int arriving_waited_for(struct arriving *a, uint64_t *gpas, unsigned int max)
{
	unsigned int count;

	pthread_mutex_lock(&a->lock);
	count = MIN(a->waiting_count, max);
	for (unsigned int i = 0; i < count; i++)
		gpas[i] = a->waiting[i].gpa;
	a->placed_ns = clock_ns(); /* the others' turn now */
	pthread_mutex_unlock(&a->lock);
	return count;
}

uint64_t arriving_stalled_ms(struct arriving *a)
{
	uint64_t ms = 0;

	pthread_mutex_lock(&a->lock);
	if (a->waiting_count)
		ms = (clock_ns() - a->placed_ns) / 1000000;
	pthread_mutex_unlock(&a->lock);
	return ms;
}

uint64_t arriving_left(const struct arriving *a)
{
	return atomic_load(&a->left);
}

int arriving_done_fd(const struct arriving *a)
{
	return a->done;
}

bool arriving_list(const struct arriving *a, struct missing_list *list, unsigned int *region,
		   uint64_t *page)
{
	for (; *region < a->region_count; (*region)++, *page = 0)
		if (!missing_list_add(list, &a->regions[*region].coming,
				      a->regions[*region].ram->gpa, page))
			return false;
	return true;
}

void arriving_figures(struct arriving *a, struct transfer_faults *faults)
{
	pthread_mutex_lock(&a->lock);
	faults->count = a->faults;
	faults->mean_us = a->timed ? a->sum_ns / a->timed / 1000 : 0;
	faults->max_us = a->max_ns / 1000;
	pthread_mutex_unlock(&a->lock);
}
