/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC32C (Castagnoli; RFC 3720 appendix B.4), by the CPU's instruction where it has one.
 * crc32c(0, ...) begins; crc32c(crc of a, b) is the CRC of a and b joined.
 */
#ifndef MIGRATION_CRC32C_H
#define MIGRATION_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *data, size_t len);
/* Without the instruction, for comparison. */
uint32_t crc32c_table(uint32_t crc, const void *data, size_t len);

#endif
