/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What KVM keeps of a VM beside its vCPUs, in the state tree (base/state_tree.h):
 *
 *   irqchip, version 1
 *     pic-master, pic-slave   struct kvm_pic_state
 *     ioapic                  struct kvm_ioapic_state
 *   clock, version 1
 *     clock      kvmclock when the vCPUs were stopped, ns
 *     realtime   the host's CLOCK_REALTIME at that moment, ns
 *
 * Control plane, while no vCPU runs.
 */
#ifndef VMM_KVM_STATE_H
#define VMM_KVM_STATE_H

#include "base/state_tree.h"
#include "vmm/kvm.h"

/* Begins and ends the node. */
int kvm_irqchip_save(const struct kvm *kvm, struct state_writer *writer, struct error *err);
/* After the vCPUs' local APICs, which an interrupt pending in the IOAPIC goes to; before the
 * devices, which set the levels of their lines. */
int kvm_irqchip_load(const struct kvm *kvm, const struct state_node *node, struct error *err);

struct kvm_clock {
	uint64_t clock, realtime;
};

int kvm_clock_read(const struct kvm *kvm, struct kvm_clock *clock, struct error *err);
/* The guest's clock goes on where it stopped: the pause is hidden. */
int kvm_clock_continue(const struct kvm *kvm, const struct kvm_clock *clock, struct error *err);
/* The guest's clock has gone on: by the host's CLOCK_REALTIME, and never backwards. *elapsed
 * is by how much, ns. */
int kvm_clock_advance(const struct kvm *kvm, const struct kvm_clock *clock, uint64_t *elapsed,
		      struct error *err);

void kvm_clock_save(const struct kvm_clock *clock, struct state_writer *writer);
int kvm_clock_load(struct kvm_clock *clock, const struct state_node *node, struct error *err);

#endif
