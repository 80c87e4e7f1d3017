/* SPDX-License-Identifier: Apache-2.0 */
/* RAM as the machine lays it out, for tests of what is written there before a guest starts. */
#ifndef TESTS_UNIT_VMM_GUEST_RAM_H
#define TESTS_UNIT_VMM_GUEST_RAM_H

#include <check.h>

#include "memory/guest_memory.h"
#include "vmm/x86/layout.h"

static inline struct guest_memory *guest_ram(uint64_t size)
{
	struct guest_memory_options options = {
		.size = size,
		.low_end = X86_LOW_RAM_END,
		.high_start = X86_HIGH_RAM_START,
	};
	struct error err = ERROR_INIT;
	struct guest_memory *memory = guest_memory_new(&options, &err);

	ck_assert_msg(memory != NULL, "%s", err.message);
	return memory;
}

/* 0 of a table whose checksum is right. */
static inline uint8_t byte_sum(const uint8_t *bytes, size_t len)
{
	uint8_t sum = 0;

	while (len--)
		sum = (uint8_t)(sum + *bytes++);
	return sum;
}

#endif
