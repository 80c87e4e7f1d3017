/* SPDX-License-Identifier: Apache-2.0 */
/* Allocates and maps every page of [start, start + size) now, by several threads;
 * contents stay. huge: as transparent huge pages where the host has some, also where
 * the file's own policy is against them; start is aligned for them, and nobody uses the
 * range meanwhile. Private to memory/. */
#ifndef MEMORY_PREFAULT_H
#define MEMORY_PREFAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "memory/guest_memory.h"

#define THP_SIZE (2 * MIB)

/* One page of each extent, and what is left of it as a huge page at once, in this thread;
 * start and len are whole extents. Advice: what does not become huge stays as it is. Ends
 * early once *stop is set; NULL: never. */
void make_huge(uint8_t *start, uint64_t len, enum expect_order order, const atomic_bool *stop);

int prefault(uint8_t *start, uint64_t size, uint64_t page_size, bool huge, struct error *err);

#endif
