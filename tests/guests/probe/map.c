/* SPDX-License-Identifier: Apache-2.0 */
/* Pages for the probe itself, and the identity map above 4 GiB. */
#include "probe.h"

#define TABLE 0x7  /* present, writable, user */
#define LARGE 0xe7 /* and accessed, dirty, 2 MiB */
#define SIZE_2M (2 * MIB)
#define ADDRESS_BITS 47 /* the lower half */

static uint64_t pool_next = PROBE_POOL;

void *pool_alloc(unsigned int pages)
{
	uint64_t at = pool_next, len = pages * PAGE_SIZE;

	if (len > PROBE_BUFFERS - at)
		return NULL;
	pool_next += len;
	__builtin_memset((void *)at, 0, len);
	return (void *)at;
}

static uint64_t *table_of(uint64_t *entry)
{
	if (!(*entry & 1)) {
		void *page = pool_alloc(1);

		if (!page)
			return NULL;
		*entry = (uint64_t)page | TABLE;
	}
	return (uint64_t *)(*entry & 0x000ffffffffff000);
}

bool map_range(uint64_t start, uint64_t len)
{
	uint64_t last = start + len - 1;

	if (!len || last < start || last >> ADDRESS_BITS)
		return false;
	for (uint64_t at = start & ~(SIZE_2M - 1); at <= last; at += SIZE_2M) {
		uint64_t *pdpt = table_of(&pml4[at >> 39 & 511]);
		uint64_t *pd = pdpt ? table_of(&pdpt[at >> 30 & 511]) : NULL;

		if (!pd)
			return false;
		if (!(pd[at >> 21 & 511] & 1))
			pd[at >> 21 & 511] = at | LARGE;
	}
	return true;
}
