/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How devices interrupt the guest. Implemented over KVM in vmm/, faked in unit
 * tests. Every call is for any thread.
 *
 * A GSI is an input of the interrupt controllers: 0-23 are IOAPIC pins, higher
 * ones are allocated routes that carry an MSI message (at most 4096 in all: take
 * them lazily, give them back). An irqfd is an eventfd that raises a GSI without
 * leaving the kernel.
 */
#ifndef DEVICES_INTERRUPTS_H
#define DEVICES_INTERRUPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct msi_message {
	uint64_t address;
	uint32_t data;
	uint32_t devid; /* requester id (bus << 8 | devfn), for ITS-like controllers */
};

struct interrupt_ops {
	/* Sets the level of an IOAPIC pin. */
	void (*set_line)(void *opaque, unsigned int gsi, bool level);
	/* Sends one MSI message now. */
	int (*send_msi)(void *opaque, const struct msi_message *msg);
	/* A new route for a message: returns the gsi or -errno (-ENOSPC: all
	 * 4096 are taken; the message says by how many). */
	int (*route_add)(void *opaque, const struct msi_message *msg, struct error *err);
	/* route_add() will be called for all of these now: told together they are less work. */
	void (*routes_expect)(void *opaque, const struct msi_message *msgs, unsigned int count);
	int (*route_update)(void *opaque, unsigned int gsi, const struct msi_message *msg,
			    struct error *err);
	void (*route_remove)(void *opaque, unsigned int gsi);
	/* Attaches an eventfd to a gsi. An eventfd already signalled at that moment
	 * raises the interrupt at once. resample_fd >= 0: level-triggered pin,
	 * signalled by KVM at the guest's EOI. */
	int (*irqfd_attach)(void *opaque, unsigned int gsi, int fd, int resample_fd,
			    struct error *err);
	void (*irqfd_detach)(void *opaque, unsigned int gsi, int fd);
};

struct interrupts {
	const struct interrupt_ops *ops;
	void *opaque;
};

/* One IOAPIC pin, as a device sees it. */
struct irq_line {
	const struct interrupts *interrupts;
	unsigned int gsi;
};

static inline void irq_line_set(const struct irq_line *line, bool level)
{
	if (line->interrupts)
		line->interrupts->ops->set_line(line->interrupts->opaque, line->gsi, level);
}

/* Edge: low to high to low. */
static inline void irq_line_pulse(const struct irq_line *line)
{
	irq_line_set(line, true);
	irq_line_set(line, false);
}

/*
 * Eventfds signalled by guest writes, without an exit to user space (KVM
 * ioeventfd). len 0 matches a write of any length at addr.
 */
struct ioevent_ops {
	int (*attach)(void *opaque, bool pio, uint64_t addr, unsigned int len, bool match,
		      uint64_t value, int fd, struct error *err);
	void (*detach)(void *opaque, bool pio, uint64_t addr, unsigned int len, bool match,
		       uint64_t value, int fd);
};

struct ioevents {
	const struct ioevent_ops *ops;
	void *opaque;
};

#endif
