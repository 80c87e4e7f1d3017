/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device_host without a machine: buses, a loop, fake interrupts and, if asked
 * for, a little guest RAM. Inline, because helpers are linked into the tests of
 * libraries below devices as well.
 */
#ifndef TESTS_FAKE_HOST_H
#define TESTS_FAKE_HOST_H

#include <string.h>

#include "devices/device_host.h"
#include "tests/unit/helpers/fake_interrupts.h"

struct fake_host {
	struct device_host host;
	struct fake_interrupts fake;
};

/* No RAM. 0 or -errno. */
static inline int fake_host_init(struct fake_host *h)
{
	struct error err = ERROR_INIT;

	memset(h, 0, sizeof(*h));
	fake_interrupts_init(&h->fake);
	h->host.interrupts = h->fake.interrupts;
	h->host.ioevents = h->fake.ioevents;
	h->host.mmio = bus_new(&err);
	h->host.pio = bus_new(&err);
	h->host.loop = loop_new(&err);
	return err.code;
}

/* RAM at gpa 0. */
static inline int fake_host_init_ram(struct fake_host *h, uint64_t bytes)
{
	struct guest_memory_options options = {
		.size = bytes,
		.low_end = 3 * (1ULL << 30),
		.high_start = 4 * (1ULL << 30),
	};
	struct error err = ERROR_INIT;
	int r = fake_host_init(h);

	if (r)
		return r;
	h->host.memory = guest_memory_new(&options, &err);
	return err.code;
}

static inline void fake_host_destroy(struct fake_host *h)
{
	loop_free(h->host.loop);
	bus_free(h->host.pio);
	bus_free(h->host.mmio);
	fake_interrupts_destroy(&h->fake);
}

static inline void fake_host_destroy_ram(struct fake_host *h)
{
	guest_memory_free(h->host.memory);
	fake_host_destroy(h);
}

#endif
