/* SPDX-License-Identifier: Apache-2.0 */
/* Monotonic time, and dates. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static inline uint64_t clock_ms(void)
{
	return clock_ns() / 1000000;
}

/* The time in so many microseconds: what waits on a CLOCK_MONOTONIC condition take. */
static inline struct timespec clock_in_us(uint64_t us)
{
	uint64_t then = clock_ns() + us * 1000;

	return (struct timespec){ .tv_sec = (time_t)(then / 1000000000ULL),
				  .tv_nsec = (long)(then % 1000000000ULL) };
}

/*
 * The date and time of day in UTC, `seconds` after 1970; tm_yday stays 0. gmtime_r() opens
 * the host's time zone file, which most threads must not, takes a lock, and counts leap
 * seconds where that file does.
 */
void clock_utc(int64_t seconds, struct tm *tm);

#endif
