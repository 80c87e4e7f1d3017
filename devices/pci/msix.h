/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X (PCI Local Bus 3.0, 6.8.2): table and pending bits of one function, each
 * vector an eventfd.
 *
 * A vector's eventfd is what signals it: by msix_signal(), by vhost, by VFIO.
 * While the vector is unmasked (and MSI-X enabled) a route is held for it and
 * the eventfd is attached to it as an irqfd, so that no signal leaves the
 * kernel. While it is masked the eventfd is detached, no route is held, and its
 * counter is the pending bit; attaching again delivers what was pending. So only
 * vectors a guest really uses cost routes.
 *
 * Guest accesses come from vCPU threads; signals from any thread.
 */
#ifndef DEVICES_PCI_MSIX_H
#define DEVICES_PCI_MSIX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "devices/pci/pci_function.h"

#define MSIX_VECTORS_MAX 2048
#define MSIX_NO_VECTOR 0xffff

struct msix;

/*
 * Adds the capability to fn: `vectors` (1-2048) entries, table in table_bar at
 * table_offset, PBA in pba_bar at pba_offset (both 8-byte aligned). The owner of
 * the BARs routes accesses to that part to msix_table_* and msix_pba_*, and
 * calls msix_config_written() from its config_written op.
 */
struct msix *msix_new(struct pci_function *fn, unsigned int vectors, unsigned int table_bar,
		      uint32_t table_offset, unsigned int pba_bar, uint32_t pba_offset,
		      struct error *err);
/* Detaches everything. NULL is allowed. */
void msix_free(struct msix *msix);

void msix_config_written(struct msix *msix, unsigned int offset, unsigned int len);
void msix_table_read(struct msix *msix, uint64_t offset, void *data, unsigned int len);
void msix_table_write(struct msix *msix, uint64_t offset, const void *data, unsigned int len);
void msix_pba_read(struct msix *msix, uint64_t offset, void *data, unsigned int len);

bool msix_enabled(const struct msix *msix);
unsigned int msix_vectors(const struct msix *msix);
/* Raises a vector; MSIX_NO_VECTOR and vectors out of range do nothing. */
void msix_signal(struct msix *msix, unsigned int vector);
/* The vector's eventfd (the msix keeps it), or -1. Stable for the msix's life. */
int msix_eventfd(struct msix *msix, unsigned int vector);
/* As the device's own reset: disabled, all masked, nothing pending. */
void msix_reset(struct msix *msix);

/* The node "msix": table and pending vectors. */
void msix_save(struct msix *msix, struct state_writer *writer);
/*
 * Reads that node, below the function's; enable and function mask are those config
 * space has now. Vectors that were pending are so again, or are delivered where they
 * are not masked. A route or irqfd that cannot be had fails the load.
 */
int msix_load(struct msix *msix, const struct state_node *function, struct error *err);

/* Held: no eventfd is attached, whatever the masks say, so signals stay in them; let go,
 * they are delivered. Starts so where it is made with host->kept. */
void msix_hold(struct msix *msix, bool hold);
/* The eventfd of a vector that has none yet, from another process; taken over. */
void msix_set_eventfd(struct msix *msix, unsigned int vector, int fd);
/* That of a vector that has one, else -1: makes none. */
int msix_has_eventfd(const struct msix *msix, unsigned int vector);

/* Told when a vector becomes deliverable or stops being so (VFIO enables the
 * physical vector lazily). Called with no lock of the msix held. */
void msix_set_notify(struct msix *msix,
		     void (*notify)(void *opaque, unsigned int vector, bool unmasked),
		     void *opaque);

/* Routes now held: for counters and tests. */
unsigned int msix_routes(const struct msix *msix);

#endif
