/* SPDX-License-Identifier: Apache-2.0 */
/* Huge pages: for RAM that the guest is known to use at once, and when there must be none. */
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "memory/guest_memory_private.h"
#include "memory/prefault.h"

static void allocate(struct guest_memory *memory, const struct expected *e)
{
	make_huge(e->hva, e->size, e->order, &memory->expecting.stop);
}

/* Calls fn with each whole extent of RAM that the range touches, where huge pages are wanted. */
static void for_each_range(struct guest_memory *memory, uint64_t gpa, uint64_t len,
			   enum expect_order order,
			   void (*fn)(struct guest_memory *memory, const struct expected *e))
{
	uint64_t last = gpa + len < gpa ? UINT64_MAX : gpa + len;

	for (unsigned int i = 0; i < memory->count; i++) {
		const struct guest_memory_region *r = &memory->regions[i]->r;
		uint64_t start = MAX(align_down(gpa, THP_SIZE), align_up(r->gpa, THP_SIZE));
		uint64_t end = align_down(r->gpa + r->size, THP_SIZE);

		/* Outwards, but no further than whole extents of RAM. */
		if (last < end)
			end = MIN(end, align_up(last, THP_SIZE));
		if (memory->regions[i]->transparent_hugepages && len && start < end)
			fn(memory,
			   &(struct expected){ r->hva + (start - r->gpa), end - start, order });
	}
}

void guest_memory_make_huge(struct guest_memory *memory, uint64_t gpa, uint64_t len)
{
	for_each_range(memory, gpa, len, EXPECT_UPWARDS, allocate);
}

/* The next of those that are left; none: the thread ends. */
static bool take(struct guest_memory *memory, struct expected *e)
{
	bool some;

	pthread_mutex_lock(&memory->expecting.lock);
	some = memory->expecting.count > 0 && !atomic_load(&memory->expecting.stop);
	memory->expecting.done = !some;
	if (some) {
		*e = memory->expecting.left[0];
		memory->expecting.count--;
		memmove(memory->expecting.left, memory->expecting.left + 1,
			memory->expecting.count * sizeof(*e));
	}
	pthread_mutex_unlock(&memory->expecting.lock);
	return some;
}

static void *run(void *opaque)
{
	struct guest_memory *memory = opaque;
	struct expected e;

	while (take(memory, &e))
		allocate(memory, &e);
	return NULL;
}

/* Whoever runs takes it; true: nobody does. More than fits is not expected. */
static bool add(struct guest_memory *memory, const struct expected *e)
{
	bool nobody;

	pthread_mutex_lock(&memory->expecting.lock);
	if (memory->expecting.count < EXPECTED_MAX)
		memory->expecting.left[memory->expecting.count++] = *e;
	nobody = !memory->expecting.started || memory->expecting.done;
	if (nobody)
		memory->expecting.done = false;
	pthread_mutex_unlock(&memory->expecting.lock);
	return nobody;
}

static void expect(struct guest_memory *memory, const struct expected *e)
{
	if (!add(memory, e))
		return;
	guest_memory_expect_wait(memory); /* one that has just ended */
	/* It inherits its starter's confinement. */
	memory->expecting.started = !thread_start(&memory->expecting.thread, NULL, THREAD_IO,
						  "expect", run, memory, NULL);
	if (!memory->expecting.started)
		run(memory);
}

void guest_memory_expect(struct guest_memory *memory, uint64_t gpa, uint64_t len,
			 enum expect_order order)
{
	for_each_range(memory, gpa, len, order, expect);
}

void guest_memory_expect_wait(struct guest_memory *memory)
{
	if (memory->expecting.started)
		pthread_join(memory->expecting.thread, NULL);
	memory->expecting.started = false;
}

void guest_memory_expect_init(struct guest_memory *memory)
{
	pthread_mutex_init(&memory->expecting.lock, NULL);
}

void guest_memory_expect_destroy(struct guest_memory *memory)
{
	atomic_store(&memory->expecting.stop, true);
	guest_memory_expect_wait(memory);
	pthread_mutex_destroy(&memory->expecting.lock);
}

void guest_memory_allow_huge(struct guest_memory *memory, bool allow)
{
	for (unsigned int i = 0; i < memory->count; i++) {
		const struct guest_memory_region *r = &memory->regions[i]->r;

		/* Best effort: a kernel without huge pages refuses the advice. */
		if (r->page_size == GUEST_PAGE_SIZE &&
		    (!allow || memory->regions[i]->transparent_hugepages))
			madvise(r->hva, r->size, allow ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	}
}
