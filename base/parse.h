/* SPDX-License-Identifier: Apache-2.0 */
/* Text to numbers, strictly: the whole text, no sign, no overflow. 0 or
 * -EINVAL / -ERANGE; *out is untouched on failure. */
#ifndef BASE_PARSE_H
#define BASE_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* Decimal, or hexadecimal with 0x. */
int parse_u64(const char *text, uint64_t *out);
/* A number with an optional suffix K, M, G or T (powers of 1024, either case). */
int parse_size(const char *text, uint64_t *out);
/* on/off, true/false, yes/no. */
int parse_bool(const char *text, bool *out);
/* Six hex pairs joined by colons. */
int parse_mac(const char *text, uint8_t out[6]);

#endif
