/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts and ioevents without KVM, for unit tests: records lines, routes,
 * irqfds and ioeventfds, and can be told to fail. Depends on base alone.
 *
 * An attached eventfd is consumed as KVM would: at attach where it is already
 * signalled, afterwards by fake_interrupts_deliver(). Calls from any thread;
 * tests read the fields when the threads are done.
 */
#ifndef TESTS_FAKE_INTERRUPTS_H
#define TESTS_FAKE_INTERRUPTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "devices/interrupts.h"

#define FAKE_LINES 24
#define FAKE_GSIS 4096
#define FAKE_IRQFDS 4096
#define FAKE_IOEVENTS 256

struct fake_route {
	bool used;
	struct msi_message msg;
	unsigned int delivered; /* interrupts that arrived by an irqfd */
};

struct fake_irqfd {
	unsigned int gsi;
	int fd, resample_fd;
};

struct fake_ioevent {
	bool pio, match;
	uint64_t addr, value;
	unsigned int len;
	int fd;
};

struct fake_interrupts {
	struct interrupts interrupts;
	struct ioevents ioevents;
	pthread_mutex_t lock;

	bool level[FAKE_LINES];
	unsigned int rises[FAKE_LINES]; /* low-to-high transitions */
	unsigned int line_calls;

	struct fake_route gsis[FAKE_GSIS]; /* routes from FAKE_LINES on */
	unsigned int routes;		   /* held now */
	unsigned int route_limit;	   /* -ENOSPC beyond; FAKE_GSIS - FAKE_LINES */
	unsigned int route_adds, route_updates, route_removes;
	unsigned int expects, expected;	   /* calls, and messages in all of them */
	struct msi_message last_delivered; /* by irqfd or send_msi */
	unsigned int delivered, msi_sent;

	struct fake_irqfd irqfds[FAKE_IRQFDS];
	unsigned int irqfd_count;
	int attach_error; /* what irqfd_attach returns, where not 0 */

	struct fake_ioevent ioevent[FAKE_IOEVENTS];
	unsigned int ioevent_count;
	int ioevent_error;

	unsigned int misuses; /* unknown gsi, detach of what is not attached, ... */
};

void fake_interrupts_init(struct fake_interrupts *fake);
void fake_interrupts_destroy(struct fake_interrupts *fake);

/* Consumes attached eventfds that are signalled; returns how many were. */
unsigned int fake_interrupts_deliver(struct fake_interrupts *fake);
/* The gsi fd is attached to, or -1. */
int fake_interrupts_gsi_of(struct fake_interrupts *fake, int fd);
/* What a guest's write at addr does where KVM has the ioeventfds: signals those
 * that match; returns how many. */
unsigned int fake_ioevents_write(struct fake_interrupts *fake, bool pio, uint64_t addr,
				 uint64_t value, unsigned int len);

#endif
