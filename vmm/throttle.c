/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/throttle.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/clock.h"

struct throttle {
	struct vcpu *const *vcpus;
	unsigned int count;
	const struct thread_policy *threads;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int percent; /* under lock; 0: the thread ends */
};

struct throttle *throttle_new(struct vcpu *const *vcpus, unsigned int count,
			      const struct thread_policy *threads, struct error *err)
{
	struct throttle *throttle = calloc(1, sizeof(*throttle));
	pthread_condattr_t attr;

	if (!throttle) {
		error_set_errno(err, ENOMEM, "throttle vCPUs");
		return NULL;
	}
	throttle->vcpus = vcpus;
	throttle->count = count;
	throttle->threads = threads;
	pthread_mutex_init(&throttle->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&throttle->changed, &attr);
	pthread_condattr_destroy(&attr);
	return throttle;
}

static void hold_all(struct throttle *throttle, bool hold)
{
	for (unsigned int i = 0; i < throttle->count; i++)
		vcpu_hold(throttle->vcpus[i], hold);
}

/* Sleeps, unless told to end. */
static void sleep_locked(struct throttle *throttle, unsigned int us)
{
	struct timespec until = clock_in_us(us);

	while (throttle->percent &&
	       pthread_cond_timedwait(&throttle->changed, &throttle->lock, &until) != ETIMEDOUT)
		;
}

static void *throttle_main(void *opaque)
{
	struct throttle *throttle = opaque;

	pthread_mutex_lock(&throttle->lock);
	while (throttle->percent) {
		unsigned int held = throttle->percent * (THROTTLE_PERIOD_US / 100);

		hold_all(throttle, true);
		sleep_locked(throttle, held);
		hold_all(throttle, false);
		sleep_locked(throttle, THROTTLE_PERIOD_US - held);
	}
	pthread_mutex_unlock(&throttle->lock);
	return NULL;
}

int throttle_set(struct throttle *throttle, unsigned int percent, struct error *err)
{
	int r;

	pthread_mutex_lock(&throttle->lock);
	throttle->percent = MIN(percent, THROTTLE_MAX);
	pthread_cond_signal(&throttle->changed);
	pthread_mutex_unlock(&throttle->lock);
	if (percent && !throttle->started) {
		r = thread_start(&throttle->thread, throttle->threads, THREAD_MIGRATION, "throttle",
				 throttle_main, throttle, err);
		if (r) {
			throttle->percent = 0;
			return r;
		}
		throttle->started = true;
	} else if (!percent && throttle->started) {
		pthread_join(throttle->thread, NULL);
		throttle->started = false;
	}
	return 0;
}

void throttle_free(struct throttle *throttle)
{
	if (!throttle)
		return;
	throttle_set(throttle, 0, NULL);
	pthread_cond_destroy(&throttle->changed);
	pthread_mutex_destroy(&throttle->lock);
	free(throttle);
}
