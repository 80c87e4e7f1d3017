/* SPDX-License-Identifier: Apache-2.0 */
/* The byte that makes the sum of a firmware table 0: of ACPI's, SMBIOS's, the MP table. */
#ifndef VMM_X86_CHECKSUM_H
#define VMM_X86_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Over bytes in which the checksum's own is still 0. */
static inline uint8_t x86_checksum(const uint8_t *bytes, size_t len)
{
	uint8_t sum = 0;

	while (len--)
		sum = (uint8_t)(sum + *bytes++);
	return (uint8_t)-sum;
}

#endif
