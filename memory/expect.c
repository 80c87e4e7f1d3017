/* SPDX-License-Identifier: Apache-2.0 */
/* Huge pages: for RAM that the guest is known to use at once, and when there must be none. */
#include <sys/mman.h>

#include "base/bytes.h"
#include "memory/guest_memory_private.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

#define THP_SIZE (2 * MIB)

static void expect(const struct guest_memory_region *r, uint64_t start, uint64_t end)
{
	uint8_t *hva = r->hva + (start - r->gpa);

	/* MADV_COLLAPSE makes a huge page of an extent that has at least one page. */
	for (uint64_t offset = 0; offset < end - start; offset += THP_SIZE)
		if (madvise(hva + offset, GUEST_PAGE_SIZE, MADV_POPULATE_WRITE))
			return;
	madvise(hva, end - start, MADV_COLLAPSE);
}

void guest_memory_expect(struct guest_memory *memory, uint64_t gpa, uint64_t len)
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
			expect(r, start, end);
	}
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
