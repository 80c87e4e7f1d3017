/* SPDX-License-Identifier: Apache-2.0 */
/* Allocates and maps every page of [start, start + size) now, by several threads;
 * contents stay. huge: as transparent huge pages where the host has some, also where
 * the file's own policy is against them; start is aligned for them, and nobody uses the
 * range meanwhile. Private to memory/. */
#ifndef MEMORY_PREFAULT_H
#define MEMORY_PREFAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

int prefault(uint8_t *start, uint64_t size, uint64_t page_size, bool huge, struct error *err);

#endif
