/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/interrupts.h over KVM: IOAPIC and PIC pins, MSI routes, irqfds, ioeventfds.
 */
#ifndef VMM_KVM_INTERRUPTS_H
#define VMM_KVM_INTERRUPTS_H

#include "base/error.h"
#include "devices/interrupts.h"
#include "vmm/kvm.h"

struct kvm_interrupts;

/* MSI routes that stay in KVM's table unused: as many as can be expected (routes_expect). */
#define IDLE_ROUTES_MAX 64u

/* kvm stays the caller's and outlives it. Sets the pins' routes. */
struct kvm_interrupts *kvm_interrupts_new(struct kvm *kvm, struct error *err);
void kvm_interrupts_free(struct kvm_interrupts *interrupts);

struct interrupts kvm_interrupts_ops(struct kvm_interrupts *interrupts);
struct ioevents kvm_ioevents_ops(struct kvm *kvm);
/* MSI routes in use. Any thread. */
unsigned int kvm_interrupts_routes(struct kvm_interrupts *interrupts);
/* What those carry, at most max; returns how many. Any thread. */
unsigned int kvm_interrupts_messages(struct kvm_interrupts *interrupts, struct msi_message *msgs,
				     unsigned int max);

#endif
