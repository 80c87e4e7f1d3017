/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes a part of their time from vCPUs, so that a migration catches up with what they
 * write: a thread of its own holds them for so many percent of each 10 ms.
 *
 * One thread at a time calls these. They go beside vcpu_request_pause and vcpu_resume.
 */
#ifndef VMM_THROTTLE_H
#define VMM_THROTTLE_H

#include "vmm/vcpu.h"

#define THROTTLE_PERIOD_US 10000U
#define THROTTLE_MAX 99U /* percent */

struct throttle;

/* The vCPUs outlive it; at full speed. */
struct throttle *throttle_new(struct vcpu *const *vcpus, unsigned int count,
			      const struct thread_policy *threads, struct error *err);
/* More than THROTTLE_MAX is that. 0: full speed, the thread is gone when it returns. */
int throttle_set(struct throttle *throttle, unsigned int percent, struct error *err);
/* Full speed again; NULL is allowed. */
void throttle_free(struct throttle *throttle);

#endif
