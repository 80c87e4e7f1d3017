/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian loads and stores at any alignment, and powers of two. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KIB (1ULL << 10)
#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) \
	({ \
		__typeof__(a) a_ = (a); \
		__typeof__(b) b_ = (b); \
		a_ < b_ ? a_ : b_; \
	})
#define MAX(a, b) \
	({ \
		__typeof__(a) a_ = (a); \
		__typeof__(b) b_ = (b); \
		a_ > b_ ? a_ : b_; \
	})
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

static inline uint16_t load_le16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static inline uint32_t load_le32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static inline uint64_t load_le64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

static inline void store_le16(void *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof(v));
}

static inline void store_le32(void *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void store_le64(void *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

/* A little-endian value of `len` bytes; len is 1, 2, 4 or 8. */
static inline uint64_t load_le(const void *p, unsigned int len)
{
	uint64_t v = 0;

	memcpy(&v, p, len);
	return le64toh(v);
}

static inline void store_le(void *p, uint64_t v, unsigned int len)
{
	v = htole64(v);
	memcpy(p, &v, len);
}

static inline bool is_power_of_2(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* `to` is a power of two; align_up overflows to 0 at the end of the space. */
static inline uint64_t align_down(uint64_t v, uint64_t to)
{
	return v & ~(to - 1);
}

static inline uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) & ~(to - 1);
}

#endif
