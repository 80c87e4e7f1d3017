/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RAM that arrives while it is used: the destination's side of postcopy, without its
 * connections.
 *
 *     new -> set_memory -> expect... -> begin -> place... until left is 0 -> end -> free
 *
 * Pages that are expected are taken out of RAM, which costs some us each, and from begin on
 * whoever touches one waits (memory/userfault.h): vCPUs, devices' threads, system calls.
 * place() puts a page there,
 * once: a second copy of it is dropped, as is a page that was not expected, so that a page
 * which the VM has already written to stays its own. What a device gives back to the host
 * meanwhile (guest_memory_discard) is zero when it is touched again.
 *
 * From begin on faults() has to be called whenever fd is readable, by one thread, which
 * never touches RAM itself. place() and the figures are for any thread, the rest for the
 * one that made it. Errors: err is filled in.
 */
#ifndef MIGRATION_ARRIVING_H
#define MIGRATION_ARRIVING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/thread.h"
#include "memory/guest_memory.h"
#include "migration/missing.h"
#include "migration/transfer.h"

struct arriving;

/* -EOPNOTSUPP: this host does not let us serve page faults; says what would help. */
struct arriving *arriving_new(const struct thread_policy *policy, struct error *err);
/* Ends it. NULL is allowed. */
void arriving_free(struct arriving *arriving);

/* RAM with nothing to come yet; it outlives this. -EOPNOTSUPP pages above
 * POSTCOPY_UNIT_MAX. */
int arriving_set_memory(struct arriving *arriving, struct guest_memory *memory, struct error *err);
uint32_t arriving_unit(const struct arriving *arriving); /* bytes: its largest page */

/* Before begin: these are gone when it returns; those expected before stay so. -EBADMSG: not
 * RAM, or not whole pages of it. For missing_list_decode. */
int arriving_expect(void *arriving, uint64_t gpa, uint64_t len, struct error *err);
/* The pages expected are served from now on. */
int arriving_begin(struct arriving *arriving, struct error *err);
/* Nothing is served any more, whoever waits goes on: pages that have not come are zero.
 * Only when all are there, or nothing runs that must not see that. */
void arriving_end(struct arriving *arriving);

/* data: len bytes, or NULL for zeros. In whole pages of its region, else -EBADMSG. */
int arriving_place(struct arriving *arriving, uint64_t gpa, uint64_t len, const void *data,
		   struct error *err);

int arriving_fd(const struct arriving *arriving); /* readable: faults */
/* Reads faults that are there; up to max addresses (gpa, of whole pages of the region) that
 * nobody was told of before. *more: call again. -errno. */
int arriving_faults(struct arriving *arriving, uint64_t *gpas, unsigned int max, bool *more);
/* Those that are waited for, told of again: returns how many. */
unsigned int arriving_waited_for(struct arriving *arriving, uint64_t *gpas, unsigned int max);
/* For how long somebody has been waiting while no page came at all, ms; 0: nobody waits. */
uint64_t arriving_stalled_ms(struct arriving *arriving);

uint64_t arriving_left(const struct arriving *arriving); /* pages of 4096 to come */
/* eventfd, signalled when none is left. */
int arriving_done_fd(const struct arriving *arriving);
/* What has not come, one region after the other (missing.h): false when *list is full and
 * there is more. *region, *page: where it stands, 0 at first. Not while pages are placed. */
bool arriving_list(const struct arriving *arriving, struct missing_list *list, unsigned int *region,
		   uint64_t *page);
/* count, mean_us, max_us. */
void arriving_figures(struct arriving *arriving, struct transfer_faults *faults);

#endif
