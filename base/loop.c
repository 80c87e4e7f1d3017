/* SPDX-License-Identifier: Apache-2.0 */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"

struct loop_source {
	struct loop *loop;
	int fd;
	bool is_timer;
	bool removed;
	loop_fd_fn fn;
	loop_fn timer_fn;
	void *opaque;
	struct loop_source *next, **link; /* on loop->sources, or on loop->garbage */
};

struct task {
	struct task *next;
	loop_fn fn;
	void *opaque;
	sem_t *done; /* the task is its waiter's, on its stack; NULL: heap, ours */
};

struct loop {
	int epoll_fd;
	int wake_fd;
	atomic_bool stop;
	struct loop_source *sources, *garbage;
	pthread_mutex_t lock; /* guards what follows */
	struct task *tasks, **tasks_end;
	bool running;
	pthread_t runner;
};

struct loop *loop_new(struct error *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };

	if (!loop) {
		error_set_errno(err, ENOMEM, "create event loop");
		return NULL;
	}
	pthread_mutex_init(&loop->lock, NULL);
	loop->tasks_end = &loop->tasks;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd_new();
	if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
	    epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event)) {
		error_set_errno(err, errno, "create event loop");
		loop_free(loop);
		return NULL;
	}
	return loop;
}

static void list_add(struct loop_source **head, struct loop_source *s)
{
	s->next = *head;
	s->link = head;
	if (s->next)
		s->next->link = &s->next;
	*head = s;
}

static void list_del(struct loop_source *s)
{
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
}

static void collect_garbage(struct loop *loop)
{
	struct loop_source *s;

	while ((s = loop->garbage)) {
		loop->garbage = s->next;
		free(s);
	}
}

void loop_free(struct loop *loop)
{
	struct task *t;

	if (!loop)
		return;
	while (loop->sources)
		loop_remove(loop->sources);
	collect_garbage(loop);
	while ((t = loop->tasks)) {
		loop->tasks = t->next;
		if (!t->done)
			free(t);
	}
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

struct loop_source *loop_add(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn,
			     void *opaque, struct error *err)
{
	struct loop_source *s = calloc(1, sizeof(*s));
	struct epoll_event event = { .events = events, .data.ptr = s };

	if (!s) {
		error_set_errno(err, ENOMEM, "watch fd %d", fd);
		return NULL;
	}
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event)) {
		error_set_errno(err, errno, "watch fd %d", fd);
		free(s);
		return NULL;
	}
	s->loop = loop;
	s->fd = fd;
	s->fn = fn;
	s->opaque = opaque;
	list_add(&loop->sources, s);
	return s;
}

void loop_modify(struct loop_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
}

void loop_remove(struct loop_source *source)
{
	if (!source || source->removed)
		return;
	epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	if (source->is_timer)
		close(source->fd);
	/* An event for it may be in the batch being dispatched: free it later. */
	source->removed = true;
	list_del(source);
	list_add(&source->loop->garbage, source);
}

static void timer_fired(void *opaque, int fd, uint32_t events)
{
	struct loop_source *s = opaque;
	uint64_t count;

	(void)events;
	if (read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
		s->timer_fn(s->opaque);
}

struct loop_source *loop_timer_new(struct loop *loop, loop_fn fn, void *opaque, struct error *err)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	struct loop_source *s;

	if (fd < 0) {
		error_set_errno(err, errno, "create timer");
		return NULL;
	}
	s = loop_add(loop, fd, EPOLLIN, timer_fired, NULL, err);
	if (!s) {
		close(fd);
		return NULL;
	}
	/* The timer calls back through its own source. */
	s->is_timer = true;
	s->timer_fn = fn;
	s->opaque = opaque;
	return s;
}

void loop_timer_set(struct loop_source *timer, uint64_t ns)
{
	struct itimerspec spec = {
		.it_value = { .tv_sec = (time_t)(ns / 1000000000),
			      .tv_nsec = (long)(ns % 1000000000) },
	};

	timerfd_settime(timer->fd, 0, &spec, NULL);
}

static void run_tasks(struct loop *loop)
{
	struct task *t, *next;

	pthread_mutex_lock(&loop->lock);
	t = loop->tasks;
	loop->tasks = NULL;
	loop->tasks_end = &loop->tasks;
	pthread_mutex_unlock(&loop->lock);
	for (; t; t = next) {
		sem_t *done = t->done;

		next = t->next;
		t->fn(t->opaque);
		if (done)
			sem_post(done);
		else
			free(t);
	}
}

void loop_run(struct loop *loop)
{
	struct epoll_event events[32];

	pthread_mutex_lock(&loop->lock);
	loop->running = true;
	loop->runner = pthread_self();
	pthread_mutex_unlock(&loop->lock);
	while (!atomic_load(&loop->stop)) {
		int n = epoll_wait(loop->epoll_fd, events, ARRAY_SIZE(events), -1);
		bool woken = false;

		for (int i = 0; i < n; i++) {
			struct loop_source *s = events[i].data.ptr;

			if (!s)
				woken = true;
			else if (!s->removed)
				s->fn(s->is_timer ? s : s->opaque, s->fd, events[i].events);
		}
		collect_garbage(loop);
		if (woken) {
			eventfd_drain(loop->wake_fd);
			run_tasks(loop);
		}
	}
	pthread_mutex_lock(&loop->lock);
	loop->running = false;
	pthread_mutex_unlock(&loop->lock);
	run_tasks(loop); /* nobody waits for ever in loop_call */
	collect_garbage(loop);
	atomic_store(&loop->stop, false);
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stop, true);
	eventfd_signal(loop->wake_fd);
}

static void append_locked(struct loop *loop, struct task *t)
{
	*loop->tasks_end = t;
	loop->tasks_end = &t->next;
}

int loop_post(struct loop *loop, loop_fn fn, void *opaque)
{
	struct task *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->fn = fn;
	t->opaque = opaque;
	pthread_mutex_lock(&loop->lock);
	append_locked(loop, t);
	pthread_mutex_unlock(&loop->lock);
	eventfd_signal(loop->wake_fd);
	return 0;
}

/* Queues fn and waits for it; takes the lock held and drops it. */
static void call_locked(struct loop *loop, loop_fn fn, void *opaque)
{
	struct task t = { .fn = fn, .opaque = opaque };
	sem_t done;

	sem_init(&done, 0, 0);
	t.done = &done;
	append_locked(loop, &t);
	pthread_mutex_unlock(&loop->lock);
	eventfd_signal(loop->wake_fd);
	while (sem_wait(&done) && errno == EINTR)
		;
	sem_destroy(&done);
}

void loop_call(struct loop *loop, loop_fn fn, void *opaque)
{
	pthread_mutex_lock(&loop->lock);
	if (!loop->running || pthread_equal(loop->runner, pthread_self())) {
		pthread_mutex_unlock(&loop->lock);
		fn(opaque);
		return;
	}
	call_locked(loop, fn, opaque);
}

struct watch {
	struct loop *loop;
	struct loop_source **source;
	int fd;
	uint32_t events;
	loop_fd_fn fn;
	void *opaque;
	struct error *err;
	int result;
};

static void watch(void *opaque)
{
	struct watch *w = opaque;

	*w->source = loop_add(w->loop, w->fd, w->events, w->fn, w->opaque, w->err);
	w->result = *w->source ? 0 : -errno;
}

int loop_watch(struct loop *loop, struct loop_source **source, int fd, uint32_t events,
	       loop_fd_fn fn, void *opaque, struct error *err)
{
	struct watch w = {
		.loop = loop,
		.source = source,
		.fd = fd,
		.events = events,
		.fn = fn,
		.opaque = opaque,
		.err = err,
	};

	loop_call(loop, watch, &w);
	return w.result;
}

static void unwatch(void *opaque)
{
	struct loop_source **source = opaque;

	loop_remove(*source);
	*source = NULL;
}

void loop_unwatch(struct loop *loop, struct loop_source **source)
{
	loop_call(loop, unwatch, source);
}

struct io_thread {
	struct loop *loop;
	pthread_t thread;
};

static void *io_thread_main(void *opaque)
{
	struct io_thread *thread = opaque;

	loop_run(thread->loop);
	return NULL;
}

static void started(void *opaque)
{
	(void)opaque;
}

struct io_thread *io_thread_new(const struct thread_policy *policy, const char *name,
				struct error *err)
{
	struct io_thread *thread = calloc(1, sizeof(*thread));

	if (!thread) {
		error_set_errno(err, ENOMEM, "start thread %s", name);
		return NULL;
	}
	thread->loop = loop_new(err);
	if (!thread->loop ||
	    thread_start(&thread->thread, policy, THREAD_IO, name, io_thread_main, thread, err)) {
		loop_free(thread->loop);
		free(thread);
		return NULL;
	}
	/* From here on loop_call() finds the loop running. */
	pthread_mutex_lock(&thread->loop->lock);
	call_locked(thread->loop, started, NULL);
	return thread;
}

struct loop *io_thread_loop(struct io_thread *thread)
{
	return thread->loop;
}

void io_thread_free(struct io_thread *thread)
{
	if (!thread)
		return;
	loop_stop(thread->loop);
	pthread_join(thread->thread, NULL);
	loop_free(thread->loop);
	free(thread);
}
