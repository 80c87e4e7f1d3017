/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual CPU and the thread that runs it.
 *
 * The thread routes KVM's exits to the buses and reports what it cannot handle. It
 * is created stopped; vcpu_resume lets it enter the guest, vcpu_pause gets it out
 * and returns when no instruction of the guest runs and the exit in progress has
 * been completed in KVM's state. Control plane calls them; callbacks come from the
 * vCPU's thread.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/thread.h"
#include "devices/bus.h"
#include "vmm/kvm.h"

struct vcpu;

struct vcpu_exits {
	atomic_ullong pio, mmio, halt, interrupted, other;
};

struct vcpu_callbacks {
	/* Triple fault: the guest wants, or needs, a reset. */
	void (*shutdown)(void *opaque, unsigned int cpu);
	/* The vCPU cannot go on; `reason` says why. It stays stopped. */
	void (*failed)(void *opaque, unsigned int cpu, const char *reason);
	/* The dirty ring of this vCPU is full: harvest it and reset the rings. */
	void (*dirty_ring_full)(void *opaque, unsigned int cpu);
	void *opaque;
};

struct vcpu_options {
	struct kvm *kvm;
	unsigned int id; /* KVM's vCPU id = APIC id */
	unsigned int index;
	struct bus *mmio, *pio;
	const struct thread_policy *threads;
	struct log *log;
	struct vcpu_callbacks callbacks;
};

/* The signal that gets a vCPU out of KVM_RUN; vcpu_signals_init() once a process. */
int vcpu_signals_init(struct error *err);

struct vcpu *vcpu_new(const struct vcpu_options *options, struct error *err);
/* Stops and joins the thread. NULL is allowed. */
void vcpu_free(struct vcpu *vcpu);
int vcpu_fd(const struct vcpu *vcpu);

/* Starts the thread, paused. */
int vcpu_start(struct vcpu *vcpu, struct error *err);
/* Asks it out; vcpu_wait_paused waits until it is. Asking all first, then waiting for
 * all, keeps the pause short. */
void vcpu_request_pause(struct vcpu *vcpu);
void vcpu_wait_paused(struct vcpu *vcpu);
void vcpu_resume(struct vcpu *vcpu);
/* Keeps it out of the guest for a while, beside pause and resume: nobody waits for it. */
void vcpu_hold(struct vcpu *vcpu, bool hold);
/* It cannot go on (or waits for a reset): its state is none to be saved. */
bool vcpu_has_failed(struct vcpu *vcpu);
int vcpu_inject_nmi(struct vcpu *vcpu, struct error *err); /* any state */
const struct vcpu_exits *vcpu_exit_counts(const struct vcpu *vcpu);

/* The dirty ring: kvm_dirty_gfn entries, NULL where none is enabled. */
struct kvm_dirty_gfn *vcpu_dirty_ring(const struct vcpu *vcpu, uint32_t *entries);

#endif
