/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many completions to tell a driver of at once.
 *
 * A device that answers at once (from the page cache) would interrupt the driver once for
 * each request, while it is still sending the next: that costs it more than the requests. A
 * completion is held back instead while requests keep coming, for a moment that is twice
 * what they come apart, and as many are told together as came together the last times. One
 * that sends the next request when it has the answer to the last never waits: after the
 * first moment that was in vain its completions are told at once, but for a try now and then,
 * more rarely where the last tries were in vain.
 *
 * For completions that come at once only. Each belongs to the thread of its queue.
 */
#ifndef DEVICES_VIRTIO_INTERRUPT_HOLD_H
#define DEVICES_VIRTIO_INTERRUPT_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#define INTERRUPT_HOLD_MAX 16U
#define INTERRUPT_HOLD_NS_MIN 4000U
#define INTERRUPT_HOLD_NS_MAX 1000000U

struct interrupt_hold {
	unsigned int limit;  /* so many are told together; 0 is 1 */
	unsigned int streak; /* times in a row that so many came */
	unsigned int vain;   /* tries in a row that were */
	bool missed;	     /* the last time too few came: a driver may halt for once */
	uint64_t gap_ns;     /* between requests, a mean */
	uint64_t arrived_ns; /* the last ones */
};

/* Requests came; now_ns of any steady clock. */
void interrupt_hold_arrived(struct interrupt_hold *hold, unsigned int count, uint64_t now_ns);
/* Whether so many completions are to be told now. */
bool interrupt_hold_full(const struct interrupt_hold *hold, unsigned int completions);
/* How long after the last request to wait for the next, in ns, while they are held back. */
uint64_t interrupt_hold_ns(const struct interrupt_hold *hold);
/* How much of that is left; 0: it is over. */
uint64_t interrupt_hold_left(const struct interrupt_hold *hold, uint64_t now_ns);
/* They are told: since they were as many as wanted; since nothing came. */
void interrupt_hold_told(struct interrupt_hold *hold);
void interrupt_hold_over(struct interrupt_hold *hold, unsigned int completions);

#endif
