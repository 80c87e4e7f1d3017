/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "api/server_internal.h"

static void append(struct api_job ***end, struct api_job *job)
{
	job->next = NULL;
	**end = job;
	*end = &job->next;
}

static void run(struct api_job *job)
{
	job->result = job->run(job, &job->err);
	if (job->result && !job->err.code)
		error_set_errno(&job->err, job->result, "the operation failed");
}

static void *worker_main(void *opaque)
{
	struct api_worker *w = opaque;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct api_job *job = w->queue;

		if (w->stop)
			break;
		if (!job) {
			pthread_cond_wait(&w->wake, &w->lock);
			continue;
		}
		w->queue = job->next;
		if (!w->queue)
			w->queue_end = &w->queue;
		pthread_mutex_unlock(&w->lock);
		run(job);
		pthread_mutex_lock(&w->lock);
		append(&w->done_end, job);
		eventfd_signal(w->done_event);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void finish_done(struct api_worker *w)
{
	struct api_job *job, *next;

	pthread_mutex_lock(&w->lock);
	job = w->done;
	w->done = NULL;
	w->done_end = &w->done;
	pthread_mutex_unlock(&w->lock);
	for (; job; job = next) {
		next = job->next;
		job->finish(job);
	}
}

static void on_done(void *opaque, int fd, uint32_t events)
{
	eventfd_drain(fd);
	finish_done(opaque);
}

int api_worker_init(struct api_worker *w, struct loop *loop, struct error *err)
{
	*w = (struct api_worker){ .done_event = eventfd_new() };
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	w->queue_end = &w->queue;
	w->done_end = &w->done;
	if (w->done_event < 0)
		return error_set_errno(err, w->done_event, "create the API's worker");
	w->source = loop_add(loop, w->done_event, EPOLLIN, on_done, w, err);
	return w->source ? 0 : -ENOMEM;
}

void api_worker_destroy(struct api_worker *w)
{
	struct api_job *job;

	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	if (w->started)
		pthread_join(w->thread, NULL);
	finish_done(w);
	while ((job = w->queue)) {
		w->queue = job->next;
		job->result = error_set(&job->err, ECANCELED, "ferry ends");
		job->finish(job);
	}
	loop_remove(w->source);
	if (w->done_event >= 0)
		close(w->done_event);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
}

int api_worker_submit(struct api_worker *w, const struct thread_policy *threads,
		      struct api_job *job, struct error *err)
{
	int r = 0;

	if (w->in_place) {
		run(job);
		job->finish(job);
		return 0;
	}
	pthread_mutex_lock(&w->lock);
	if (!w->started) {
		r = thread_start(&w->thread, threads, THREAD_MAIN, "api", worker_main, w, err);
		w->started = !r;
	}
	if (!r) {
		append(&w->queue_end, job);
		pthread_cond_signal(&w->wake);
	}
	pthread_mutex_unlock(&w->lock);
	return r;
}
