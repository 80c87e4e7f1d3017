/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device is handed when it is made: everything it may touch of the
 * machine, and nothing else. Owned by the machine, outlives every device.
 */
#ifndef DEVICES_DEVICE_HOST_H
#define DEVICES_DEVICE_HOST_H

#include "base/kept.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/thread.h"
#include "devices/bus.h"
#include "devices/interrupts.h"
#include "memory/guest_memory.h"

struct device_host {
	struct guest_memory *memory;
	struct bus *mmio;
	struct bus *pio;
	struct interrupts interrupts;
	struct ioevents ioevents;
	struct loop *loop; /* the main thread's: consoles, timers; never a data path */
	const struct thread_policy *threads;
	struct log *log;
	/* While a machine is made and loaded that goes on in place of another process's (live
	 * update): what that one has open. A device takes its own out of it, by its id, where
	 * it would open something, and leaves all as it is until it is resumed. Else NULL. */
	struct kept *kept;
};

#endif
