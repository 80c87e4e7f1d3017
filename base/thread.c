/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>

#define STACK_BYTES (256 * 1024)

/* Sanitizers need more stack: the default then. gcc and clang say so differently. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

struct start {
	const struct thread_policy *policy;
	enum thread_kind kind;
	char name[16];
	void *(*fn)(void *arg);
	void *arg;
	struct error *err;
	int result;
	sem_t ready;
};

static void *trampoline(void *opaque)
{
	struct start *start = opaque;
	void *(*fn)(void *) = start->fn;
	void *arg = start->arg;
	int result = 0;

	pthread_setname_np(pthread_self(), start->name);
	if (start->policy && start->policy->enter)
		result = start->policy->enter(start->policy, start->kind, start->err);
	start->result = result;
	sem_post(&start->ready); /* `start` is gone from here on */
	return result ? NULL : fn(arg);
}

struct creation {
	pthread_t *thread;
	struct start *start;
	int result;
};

static void create(void *opaque)
{
	struct creation *creation = opaque;
	pthread_attr_t attr;
	sigset_t all, old;

	pthread_attr_init(&attr);
#ifndef SANITIZED
	pthread_attr_setstacksize(&attr, STACK_BYTES);
#endif
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	creation->result = pthread_create(creation->thread, &attr, trampoline, creation->start);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
}

void thread_run_in_starter(const struct thread_policy *policy, void (*fn)(void *arg), void *arg)
{
	if (policy && policy->start_in)
		policy->start_in(policy, fn, arg);
	else
		fn(arg);
}

int thread_start(pthread_t *thread, const struct thread_policy *policy, enum thread_kind kind,
		 const char *name, void *(*fn)(void *arg), void *arg, struct error *err)
{
	struct start start = { .policy = policy, .kind = kind, .fn = fn, .arg = arg, .err = err };
	struct creation creation = { .thread = thread, .start = &start };

	snprintf(start.name, sizeof(start.name), "%s", name);
	sem_init(&start.ready, 0, 0);
	thread_run_in_starter(policy, create, &creation);
	if (creation.result) {
		sem_destroy(&start.ready);
		return error_set_errno(err, creation.result, "start thread %s", start.name);
	}
	while (sem_wait(&start.ready) && errno == EINTR)
		;
	sem_destroy(&start.ready);
	if (start.result)
		pthread_join(*thread, NULL);
	return start.result;
}
