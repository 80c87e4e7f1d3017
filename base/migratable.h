/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device whose own state is a stream of bytes, beside what it has in the state tree: an
 * assigned device, whose state only its driver (or its server, or a plugin) can read. The
 * migration moves the stream and knows nothing else of it; vfio/ implements the table, one
 * backend for each way to the state; tests fake it.
 *
 * The source, in this order, for all devices of a VM before the next step begins:
 *
 *   save_begin     the stream begins, the device runs on               RUNNING -> PRE_COPY
 *   save_read...   while it runs, as often as wanted (precopy only)
 *   quiesce        vCPUs stand; starts no DMA to other devices           -> PRE_COPY_P2P
 *   save_stop      does no DMA at all, its state is fixed                -> STOP_COPY
 *   save_read...   until it returns 0: the stream is complete
 *   save_end       the stream is over, the device stands                 -> STOP
 *   rollback       instead, after any of them, also after a failure      -> RUNNING
 *
 * The destination:
 *
 *   load_begin     the device stands and takes a stream                RUNNING -> RESUMING
 *   load_write...  all of it
 *   load_end       complete: the device has accepted it                  -> STOP
 *   resume         vCPUs stand; answers other devices                    -> RUNNING_P2P
 *   run            may start DMA                                         -> RUNNING
 *
 * The state tree is saved after save_stop and loaded after load_end, before resume: what
 * the device signalled until it stood is then in the tree, and what its stream does not
 * carry (command register, interrupts) is written to it while it stands.
 *
 * A device without p2p has no state between stopped and running: quiesce does nothing, and
 * resume does nothing. Only where `p2p` is set may a VM with several such devices be moved.
 * The stream is opaque and of one backend: the destination has to have the same `kind`.
 *
 * Calls on one device come one at a time; on several devices, from several threads (of
 * kind THREAD_MIGRATION). save_pending may come beside a save_read. None is called by a
 * vCPU. A call may take long (save_stop: until DMA in flight is over); it returns within
 * MIGRATABLE_STEP_MS or fails. Errors name the device and the step.
 */
#ifndef BASE_MIGRATABLE_H
#define BASE_MIGRATABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define MIGRATABLE_STEP_MS 10000

/* Bytes that are still to be read. Estimates: a device may have more. */
struct migratable_pending {
	uint64_t initial;   /* precopy: those worth sending before anything is stopped */
	uint64_t dirty;	    /* precopy: those beyond, for now */
	uint64_t stop_copy; /* what the whole of STOP_COPY will take, if it began now */
	bool reinit;	    /* the initial bytes began anew: the device was reconfigured */
};

struct migratable;

struct migratable_ops {
	const char *kind; /* "feature", "region", "plugin"; written into the stream's head */

	int (*save_begin)(struct migratable *m, struct error *err);
	int (*save_pending)(struct migratable *m, struct migratable_pending *pending,
			    struct error *err);
	/* Up to len bytes into buf: how many; 0: none now (it runs), or no more at all (after
	 * save_stop); -errno. */
	ssize_t (*save_read)(struct migratable *m, void *buf, size_t len, struct error *err);
	int (*quiesce)(struct migratable *m, struct error *err);
	int (*save_stop)(struct migratable *m, struct error *err);
	int (*save_end)(struct migratable *m, struct error *err);
	/* 0 where the device runs as before. Else it is in ERROR, which only a reset ends: err
	 * says so. */
	int (*rollback)(struct migratable *m, struct error *err);

	int (*load_begin)(struct migratable *m, struct error *err);
	/* All of buf, in whatever pieces the device takes them. */
	int (*load_write)(struct migratable *m, const void *buf, size_t len, struct error *err);
	int (*load_end)(struct migratable *m, struct error *err);
	int (*resume)(struct migratable *m, struct error *err);
	int (*run)(struct migratable *m, struct error *err);
};

/* Embedded first in the implementation's struct; lives as long as its device. */
struct migratable {
	const struct migratable_ops *ops;
	char id[64];  /* of the device, in the configuration */
	bool precopy; /* it has a stream worth reading while it runs */
	bool p2p;     /* it can be kept from starting DMA and still answer */
};

#endif
