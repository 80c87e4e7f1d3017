/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The time of day of a PC: Motorola MC146818A data sheet; the bytes beyond its own
 * as PC firmware lays them out. It follows the host's clock: a guest that sets
 * the time changes bytes that nobody reads.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "devices/legacy/legacy.h"

#define PORT 0x70
#define PORTS 2
#define BYTES 128
#define STATE_VERSION 1

enum {
	RTC_SECONDS = 0,
	RTC_MINUTES = 2,
	RTC_HOURS = 4,
	RTC_DAY_OF_WEEK = 6,
	RTC_DAY_OF_MONTH = 7,
	RTC_MONTH = 8,
	RTC_YEAR = 9,
	RTC_A = 10, /* update in progress, divider, rate */
	RTC_B = 11, /* set, interrupt enables, formats */
	RTC_C = 12, /* interrupt flags */
	RTC_D = 13, /* valid RAM and time */
	RTC_CENTURY = 0x32,
};

#define A_UIP 0x80
#define A_DEFAULT 0x26 /* 32 kHz divider, 1024 Hz */
#define B_SET 0x80
#define B_BINARY 0x04
#define B_24H 0x02
#define B_DST 0x01
/* No interrupt enables: it has no line. */
#define B_WRITABLE (B_SET | B_BINARY | B_24H | B_DST)
#define D_VALID 0x80
#define HOURS_PM 0x80

/* Registers are read one by one, in whatever time that takes: those read soon
 * after the seconds belong to the same moment. */
#define SNAPSHOT_NS 10000000LL
/* An update is announced this long before it. */
#define UIP_NS 244000L

struct rtc {
	struct device_host *host;
	pthread_mutex_t lock;
	uint8_t index;
	uint8_t nvram[BYTES];
	struct tm snapshot;
	uint64_t snapshot_ns; /* CLOCK_MONOTONIC; 0: none */
};

static void take_snapshot(struct rtc *rtc)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	clock_utc(now.tv_sec, &rtc->snapshot);
	rtc->snapshot_ns = clock_ns();
}

static uint8_t encode(const struct rtc *rtc, int value)
{
	if (rtc->nvram[RTC_B] & B_BINARY)
		return (uint8_t)value;
	return (uint8_t)(value / 10 << 4 | value % 10);
}

static uint8_t encode_hours(const struct rtc *rtc, int hours)
{
	int twelve = hours % 12 ? hours % 12 : 12;

	if (rtc->nvram[RTC_B] & B_24H)
		return encode(rtc, hours);
	return encode(rtc, twelve) | (hours >= 12 ? HOURS_PM : 0);
}

static uint8_t read_time(struct rtc *rtc, uint8_t reg)
{
	const struct tm *tm = &rtc->snapshot;

	if (reg == RTC_SECONDS || clock_ns() - rtc->snapshot_ns > SNAPSHOT_NS)
		take_snapshot(rtc);
	switch (reg) {
	case RTC_SECONDS: return encode(rtc, tm->tm_sec);
	case RTC_MINUTES: return encode(rtc, tm->tm_min);
	case RTC_HOURS: return encode_hours(rtc, tm->tm_hour);
	case RTC_DAY_OF_WEEK: /* Sunday is 1 */ return encode(rtc, tm->tm_wday + 1);
	case RTC_DAY_OF_MONTH: return encode(rtc, tm->tm_mday);
	case RTC_MONTH: return encode(rtc, tm->tm_mon + 1);
	case RTC_YEAR: return encode(rtc, tm->tm_year % 100);
	default: /* the century */ return encode(rtc, (tm->tm_year + 1900) / 100);
	}
}

static uint8_t read_status_a(const struct rtc *rtc)
{
	uint8_t value = rtc->nvram[RTC_A] & (uint8_t)~A_UIP;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return value | (now.tv_nsec >= 1000000000L - UIP_NS ? A_UIP : 0);
}

static uint8_t read_register(struct rtc *rtc, uint8_t reg)
{
	switch (reg) {
	case RTC_SECONDS:
	case RTC_MINUTES:
	case RTC_HOURS:
	case RTC_DAY_OF_WEEK:
	case RTC_DAY_OF_MONTH:
	case RTC_MONTH:
	case RTC_YEAR:
	case RTC_CENTURY: return read_time(rtc, reg);
	case RTC_A: return read_status_a(rtc);
	case RTC_C: /* it interrupts never */ return 0;
	case RTC_D: return D_VALID;
	default: return rtc->nvram[reg];
	}
}

static void ports_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct rtc *rtc = opaque;

	memset(data, 0xff, len);
	if (len != 1)
		return;
	pthread_mutex_lock(&rtc->lock);
	if (offset == 1)
		*(uint8_t *)data = read_register(rtc, rtc->index);
	pthread_mutex_unlock(&rtc->lock);
}

static void ports_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct rtc *rtc = opaque;
	uint8_t value = *(const uint8_t *)data;

	if (len > 2 || offset + len > PORTS)
		return;
	pthread_mutex_lock(&rtc->lock);
	if (offset == 0) {
		/* Bit 7 masks NMIs on a PC. A word is index and data in one. */
		rtc->index = value % BYTES;
		value = ((const uint8_t *)data)[len - 1];
	}
	if (offset + len == PORTS)
		rtc->nvram[rtc->index] = rtc->index == RTC_B ? value & B_WRITABLE : value;
	pthread_mutex_unlock(&rtc->lock);
}

static const struct bus_ops port_ops = { .read = ports_read, .write = ports_write };

static void store_memory_sizes(struct rtc *rtc, uint64_t low, uint64_t high)
{
	uint64_t above_1m = low > MIB ? (low - MIB) / KIB : 0;
	uint64_t above_16m = low > 16 * MIB ? (low - 16 * MIB) / (64 * KIB) : 0;
	uint64_t above_4g = MIN(high / (64 * KIB), 0xffffffULL);

	store_le16(rtc->nvram + 0x15, 640); /* KiB of base memory */
	store_le16(rtc->nvram + 0x17, (uint16_t)MIN(above_1m, 0xffffULL));
	store_le16(rtc->nvram + 0x30, (uint16_t)MIN(above_1m, 0xffffULL));
	store_le16(rtc->nvram + 0x34, (uint16_t)MIN(above_16m, 0xffffULL));
	store_le16(rtc->nvram + 0x5b, (uint16_t)above_4g);
	rtc->nvram[0x5d] = (uint8_t)(above_4g >> 16);
}

struct rtc *rtc_new(struct device_host *host, uint64_t low_memory, uint64_t high_memory,
		    struct error *err)
{
	struct rtc *rtc = calloc(1, sizeof(*rtc));

	if (!rtc) {
		error_set_errno(err, ENOMEM, "create RTC");
		return NULL;
	}
	rtc->host = host;
	rtc->nvram[RTC_A] = A_DEFAULT;
	rtc->nvram[RTC_B] = B_24H;
	store_memory_sizes(rtc, low_memory, high_memory);
	pthread_mutex_init(&rtc->lock, NULL);
	if (bus_add(host->pio, PORT, PORTS, "RTC", &port_ops, rtc, err)) {
		pthread_mutex_destroy(&rtc->lock);
		free(rtc);
		return NULL;
	}
	return rtc;
}

void rtc_save(struct rtc *rtc, struct state_writer *writer, const char *name)
{
	state_begin(writer, name, "rtc", STATE_VERSION);
	pthread_mutex_lock(&rtc->lock);
	state_put_u32(writer, "index", rtc->index);
	state_put_bytes(writer, "nvram", rtc->nvram, sizeof(rtc->nvram));
	pthread_mutex_unlock(&rtc->lock);
	state_end(writer);
}

int rtc_load(struct rtc *rtc, const struct state_node *node, struct error *err)
{
	uint8_t nvram[BYTES];
	uint32_t index;
	int r = state_expect(node, "rtc", STATE_VERSION, NULL, NULL, err);

	if (!r)
		r = state_get_u32_max(node, "index", BYTES - 1, &index, err);
	if (!r)
		r = state_get_bytes(node, "nvram", nvram, sizeof(nvram), err);
	if (!r && (nvram[RTC_B] & ~B_WRITABLE))
		r = state_refuse(node, "nvram", err, "has 0x%02x in register B", nvram[RTC_B]);
	if (r)
		return r;
	pthread_mutex_lock(&rtc->lock);
	rtc->index = (uint8_t)index;
	memcpy(rtc->nvram, nvram, sizeof(nvram));
	rtc->snapshot_ns = 0;
	pthread_mutex_unlock(&rtc->lock);
	return 0;
}

void rtc_free(struct rtc *rtc)
{
	if (!rtc)
		return;
	bus_remove(rtc->host->pio, PORT);
	pthread_mutex_destroy(&rtc->lock);
	free(rtc);
}
