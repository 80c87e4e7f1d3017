/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads, by kind. Each kind has its own seccomp filter: whoever starts a
 * thread names its kind, and the policy that main() handed down confines the
 * thread before its function runs. Signals are blocked in every thread but
 * those the thread unblocks itself.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

#include "base/error.h"

enum thread_kind {
	THREAD_MAIN,	  /* event loop and control plane */
	THREAD_VCPU,	  /* KVM_RUN and its exits */
	THREAD_IO,	  /* data path of devices */
	THREAD_MIGRATION, /* sends and receives state */
	THREAD_KINDS,
};

struct thread_policy {
	/* Runs first in the new thread; not 0: the thread does not start. */
	int (*enter)(const struct thread_policy *policy, enum thread_kind kind, struct error *err);
	/*
	 * Runs fn(arg) in the thread that starts all others and returns when it has: a new
	 * thread inherits the filter of its starter, so a vCPU that brings a device to life
	 * must not start that device's thread itself. NULL: the caller starts it.
	 */
	void (*start_in)(const struct thread_policy *policy, void (*fn)(void *arg), void *arg);
	void *opaque;
};

/* Runs fn(arg) in the thread that starts all others (where policy names none, here) and
 * returns when it has: for what that thread's filter allows and the caller's does not. */
void thread_run_in_starter(const struct thread_policy *policy, void (*fn)(void *arg), void *arg);

/*
 * Starts fn(arg) in a joinable thread of that name (cut to 15 bytes) and waits
 * until the policy was applied in it. policy may be NULL: unconfined (tests).
 */
int thread_start(pthread_t *thread, const struct thread_policy *policy, enum thread_kind kind,
		 const char *name, void *(*fn)(void *arg), void *arg, struct error *err);

#endif
