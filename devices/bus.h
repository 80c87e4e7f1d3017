/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus of addresses: guest port I/O, or guest-physical MMIO.
 *
 * Ranges are added and removed by the control plane or, when the guest moves a
 * BAR, by a vCPU thread; accesses come from vCPU threads. A handler runs with no
 * lock of the bus held, only a count on its own range: it may add and remove
 * other ranges, never its own. bus_remove returns when no access is inside the
 * range any more, so its owner may then be freed.
 */
#ifndef DEVICES_BUS_H
#define DEVICES_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct bus;

struct bus_ops {
	/* offset from the range's start; len is 1, 2, 4 or 8 and the access lies
	 * within the range. Data are `len` bytes as on the wire (little-endian). */
	void (*read)(void *opaque, uint64_t offset, void *data, unsigned int len);
	void (*write)(void *opaque, uint64_t offset, const void *data, unsigned int len);
};

struct bus *bus_new(struct error *err);
void bus_free(struct bus *bus);

/* -EEXIST where it overlaps: the message names both ranges by `name` (kept by
 * reference until removed). */
int bus_add(struct bus *bus, uint64_t start, uint64_t len, const char *name,
	    const struct bus_ops *ops, void *opaque, struct error *err);
void bus_remove(struct bus *bus, uint64_t start);

/* An access by a vCPU. Where nothing answers (or the access crosses a range's
 * end): reads give all ones, writes are dropped, and false is returned. */
bool bus_read(struct bus *bus, uint64_t addr, void *data, unsigned int len);
bool bus_write(struct bus *bus, uint64_t addr, const void *data, unsigned int len);

#endif
