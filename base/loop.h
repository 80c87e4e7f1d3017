/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An event loop over epoll: one thread runs it; callbacks run in that thread.
 *
 * loop_add, loop_modify, loop_remove and the timer functions are for the
 * loop's own thread (or before it runs). loop_watch, loop_unwatch, loop_post,
 * loop_call and loop_stop are for any thread. A source may remove itself, or any
 * other source, from within a callback; a removed source's callback does not run
 * again.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdint.h>

#include "base/error.h"
#include "base/thread.h"

struct loop;
struct loop_source;

/* events: EPOLLIN, EPOLLOUT, ... as they came. */
typedef void (*loop_fd_fn)(void *opaque, int fd, uint32_t events);
typedef void (*loop_fn)(void *opaque);

struct loop *loop_new(struct error *err);
/* Not running any more; removes what is left, does not close the fds. */
void loop_free(struct loop *loop);

/* Runs until loop_stop(). */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* The fd stays the caller's. NULL with err filled where epoll refuses the fd
 * (-EPERM: a regular file). */
struct loop_source *loop_add(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn,
			     void *opaque, struct error *err);
void loop_modify(struct loop_source *source, uint32_t events);
/* NULL is allowed. Remove before closing the fd. */
void loop_remove(struct loop_source *source);

/* As loop_add and loop_remove, waiting for the loop's thread: *source is set before fn runs
 * first, and NULL where it fails (0, -errno). *source may be NULL in loop_unwatch. */
int loop_watch(struct loop *loop, struct loop_source **source, int fd, uint32_t events,
	       loop_fd_fn fn, void *opaque, struct error *err);
void loop_unwatch(struct loop *loop, struct loop_source **source);

/* A timer: fires once `ns` nanoseconds from loop_timer_set on; 0 disarms. */
struct loop_source *loop_timer_new(struct loop *loop, loop_fn fn, void *opaque, struct error *err);
void loop_timer_set(struct loop_source *timer, uint64_t ns);

/* Runs fn in the loop's thread, soon, in order of posting. -ENOMEM possible. */
int loop_post(struct loop *loop, loop_fn fn, void *opaque);
/* As loop_post, and waits until fn has returned. Called in the loop's own
 * thread, or while no thread runs the loop, fn runs at once in the caller. */
void loop_call(struct loop *loop, loop_fn fn, void *opaque);

/* A thread that runs a loop: what a device's data path lives in. */
struct io_thread;
struct io_thread *io_thread_new(const struct thread_policy *policy, const char *name,
				struct error *err);
struct loop *io_thread_loop(struct io_thread *thread);
/* Stops the loop, joins the thread, frees both. NULL is allowed. */
void io_thread_free(struct io_thread *thread);

#endif
