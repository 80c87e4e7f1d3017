/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/loop.h"
#include "tests/unit/helpers/run_suite.h"

static struct loop *loop;

static void setup(void)
{
	loop = loop_new(NULL);
	ck_assert_ptr_nonnull(loop);
}

static void teardown(void)
{
	loop_free(loop);
}

static void stop(void *opaque)
{
	loop_stop(loop);
}

struct watch {
	struct loop_source *source, *other;
	unsigned int calls;
};

static void drain_and_stop(void *opaque, int fd, uint32_t events)
{
	struct watch *w = opaque;

	ck_assert_uint_eq(events, EPOLLIN);
	ck_assert(eventfd_drain(fd));
	w->calls++;
	loop_stop(loop);
}

START_TEST(ready_fd_is_dispatched)
{
	struct watch w = { 0 };
	int fd = eventfd_new();

	w.source = loop_add(loop, fd, EPOLLIN, drain_and_stop, &w, NULL);
	ck_assert_ptr_nonnull(w.source);
	eventfd_signal(fd);
	loop_run(loop);
	ck_assert_uint_eq(w.calls, 1);
	/* and again: a loop may be run more than once */
	eventfd_signal(fd);
	loop_run(loop);
	ck_assert_uint_eq(w.calls, 2);
	loop_remove(w.source);
	close(fd);
}
END_TEST

START_TEST(regular_file_is_refused)
{
	struct error err = ERROR_INIT;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	ck_assert_ptr_null(loop_add(loop, fd, EPOLLIN, drain_and_stop, NULL, &err));
	ck_assert_int_eq(err.code, -EPERM);
	ck_assert_ptr_null(loop_add(loop, -1, EPOLLIN, drain_and_stop, NULL, &err));
	ck_assert_int_eq(err.code, -EBADF);
	close(fd);
}
END_TEST

/* Both are ready in one batch; whichever runs first removes both. */
static void remove_both(void *opaque, int fd, uint32_t events)
{
	struct watch *w = opaque;

	w->calls++;
	loop_remove(w->other);
	loop_remove(w->source);
	loop_remove(w->source); /* twice is harmless */
	loop_post(loop, stop, NULL);
}

START_TEST(removed_source_is_not_called_again_even_in_the_same_batch)
{
	int a = eventfd_new(), b = eventfd_new();
	struct watch wa = { 0 }, wb = { 0 };

	wa.source = loop_add(loop, a, EPOLLIN, remove_both, &wa, NULL);
	wb.source = loop_add(loop, b, EPOLLIN, remove_both, &wb, NULL);
	wa.other = wb.source;
	wb.other = wa.source;
	eventfd_signal(a);
	eventfd_signal(b);
	loop_run(loop);
	ck_assert_uint_eq(wa.calls + wb.calls, 1);
	close(a);
	close(b);
}
END_TEST

START_TEST(removing_nothing_is_allowed)
{
	loop_remove(NULL);
	loop_free(NULL);
	io_thread_free(NULL);
}
END_TEST

START_TEST(modified_events_take_effect)
{
	struct watch w = { 0 };
	int fd = eventfd_new();

	w.source = loop_add(loop, fd, 0, drain_and_stop, &w, NULL);
	eventfd_signal(fd);
	loop_post(loop, stop, NULL);
	loop_run(loop);
	ck_assert_uint_eq(w.calls, 0);
	loop_modify(w.source, EPOLLIN);
	loop_run(loop);
	ck_assert_uint_eq(w.calls, 1);
	loop_free(loop); /* removes what is left */
	setup();
	ck_assert_int_ge(fcntl(fd, F_GETFD), 0);
	close(fd);
}
END_TEST

struct timer {
	struct loop_source *source;
	unsigned int calls, until;
	uint64_t again_ns;
};

static void tick(void *opaque)
{
	struct timer *t = opaque;

	if (++t->calls >= t->until)
		loop_stop(loop);
	else
		loop_timer_set(t->source, t->again_ns);
}

START_TEST(timer_fires_once_and_not_early)
{
	struct timer t = { .until = 2 }; /* only a second shot would stop the loop by it */
	struct timer end = { .until = 1 };
	uint64_t start = clock_ns();

	t.source = loop_timer_new(loop, tick, &t, NULL);
	end.source = loop_timer_new(loop, tick, &end, NULL);
	loop_timer_set(t.source, 5000000);
	loop_timer_set(end.source, 30000000);
	loop_run(loop);
	ck_assert_uint_eq(t.calls, 1);
	ck_assert_uint_eq(end.calls, 1);
	ck_assert_uint_ge(clock_ns() - start, 30000000);
}
END_TEST

START_TEST(timer_can_be_set_again_from_its_callback)
{
	struct timer t = { .until = 5, .again_ns = 1000000 };

	t.source = loop_timer_new(loop, tick, &t, NULL);
	loop_timer_set(t.source, 1);
	loop_run(loop);
	ck_assert_uint_eq(t.calls, 5);
	loop_remove(t.source);
}
END_TEST

START_TEST(disarmed_timer_does_not_fire)
{
	struct timer t = { .until = 1 }, end = { .until = 1 };

	t.source = loop_timer_new(loop, tick, &t, NULL);
	end.source = loop_timer_new(loop, tick, &end, NULL);
	loop_timer_set(t.source, 1000000);
	loop_timer_set(t.source, 0);
	loop_timer_set(end.source, 10000000);
	loop_run(loop);
	ck_assert_uint_eq(t.calls, 0);
}
END_TEST

static void remove_timer(void *opaque)
{
	struct timer *t = opaque;

	t->calls++;
	loop_remove(t->source);
	loop_stop(loop);
}

START_TEST(timer_may_remove_itself)
{
	struct timer t = { 0 };

	t.source = loop_timer_new(loop, remove_timer, &t, NULL);
	loop_timer_set(t.source, 1);
	loop_run(loop);
	ck_assert_uint_eq(t.calls, 1);
}
END_TEST

static char order[16];
static void note(void *opaque)
{
	char text[2] = { (char)(uintptr_t)opaque };

	strcat(order, text);
}

START_TEST(posts_run_in_order)
{
	order[0] = '\0';
	ck_assert_int_eq(loop_post(loop, note, (void *)'a'), 0);
	ck_assert_int_eq(loop_post(loop, note, (void *)'b'), 0);
	ck_assert_int_eq(loop_post(loop, note, (void *)'c'), 0);
	ck_assert_str_eq(order, "");
	loop_post(loop, stop, NULL);
	loop_run(loop);
	ck_assert_str_eq(order, "abc");
}
END_TEST

static void post_more(void *opaque)
{
	loop_post(loop, note, (void *)'x');
	loop_post(loop, stop, NULL);
}

START_TEST(post_from_a_post_runs)
{
	order[0] = '\0';
	loop_post(loop, post_more, NULL);
	loop_run(loop);
	ck_assert_str_eq(order, "x");
}
END_TEST

START_TEST(call_on_a_loop_nobody_runs_runs_here)
{
	order[0] = '\0';
	loop_call(loop, note, (void *)'a');
	ck_assert_str_eq(order, "a");
}
END_TEST

static void call_inside(void *opaque)
{
	loop_call(loop, note, (void *)'i');
	strcat(order, "o");
	loop_stop(loop);
}

START_TEST(call_from_the_loops_own_thread_runs_at_once)
{
	order[0] = '\0';
	loop_post(loop, call_inside, NULL);
	loop_run(loop);
	ck_assert_str_eq(order, "io");
}
END_TEST

START_TEST(stop_before_run_is_not_lost)
{
	loop_stop(loop);
	loop_run(loop);
}
END_TEST

START_TEST(posts_never_run_are_freed)
{
	loop_post(loop, note, (void *)'a');
	/* the leak sanitizer looks after the rest */
}
END_TEST

/* Threads */

#define THREADS 4
#define EACH 2000

struct shared {
	struct io_thread *thread;
	unsigned int count; /* only the loop's thread touches it: no atomics */
	pthread_t where;
};

static void add_one(void *opaque)
{
	struct shared *s = opaque;

	s->count++;
	s->where = pthread_self();
}

static void *poster(void *opaque)
{
	struct shared *s = opaque;

	for (int i = 0; i < EACH; i++)
		ck_assert_int_eq(loop_post(io_thread_loop(s->thread), add_one, s), 0);
	return NULL;
}

static void *caller(void *opaque)
{
	struct shared *s = opaque;

	for (int i = 0; i < EACH / 10; i++)
		loop_call(io_thread_loop(s->thread), add_one, s);
	return NULL;
}

START_TEST(posts_and_calls_of_many_threads_all_run_in_one)
{
	struct shared s = { .thread = io_thread_new(NULL, "io", NULL) };
	pthread_t threads[2 * THREADS];

	for (int i = 0; i < THREADS; i++) {
		ck_assert_int_eq(pthread_create(&threads[2 * i], NULL, poster, &s), 0);
		ck_assert_int_eq(pthread_create(&threads[2 * i + 1], NULL, caller, &s), 0);
	}
	for (int i = 0; i < 2 * THREADS; i++)
		pthread_join(threads[i], NULL);
	loop_call(io_thread_loop(s.thread), add_one, &s); /* behind all posts */
	ck_assert_uint_eq(s.count, THREADS * (EACH + EACH / 10) + 1);
	ck_assert(!pthread_equal(s.where, pthread_self()));
	io_thread_free(s.thread);
}
END_TEST

START_TEST(io_threads_start_and_end_many_times)
{
	for (int i = 0; i < 200; i++) {
		struct shared s = { .thread = io_thread_new(NULL, "io", NULL) };

		ck_assert_ptr_nonnull(s.thread);
		if (i & 1)
			loop_call(io_thread_loop(s.thread), add_one, &s);
		else
			loop_post(io_thread_loop(s.thread), add_one, &s);
		io_thread_free(s.thread);
		ck_assert_uint_eq(s.count, 1); /* what was posted before the end ran */
	}
}
END_TEST

static int record_policy(const struct thread_policy *policy, enum thread_kind kind,
			 struct error *err)
{
	char name[17] = "";

	prctl(PR_GET_NAME, name);
	ck_assert_str_eq(name, "a-name-of-more-");
	*(int *)policy->opaque = (int)kind;
	return 0;
}

START_TEST(policy_is_applied_in_the_thread_before_it_runs)
{
	int kind = -1;
	struct thread_policy policy = { .enter = record_policy, .opaque = &kind };
	struct io_thread *thread = io_thread_new(&policy, "a-name-of-more-than-15", NULL);

	ck_assert_int_eq(kind, THREAD_IO);
	io_thread_free(thread);
}
END_TEST

static int refuse(const struct thread_policy *policy, enum thread_kind kind, struct error *err)
{
	return error_set(err, EPERM, "filter refused");
}

START_TEST(thread_whose_policy_fails_does_not_start)
{
	struct thread_policy policy = { .enter = refuse };
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(io_thread_new(&policy, "io", &err));
	ck_assert_int_eq(err.code, -EPERM);
	ck_assert_str_eq(err.message, "filter refused");
}
END_TEST

static void read_mask(void *opaque)
{
	pthread_sigmask(SIG_SETMASK, NULL, opaque);
}

START_TEST(threads_take_no_signals)
{
	struct io_thread *thread = io_thread_new(NULL, "io", NULL);
	sigset_t mask, own;

	loop_call(io_thread_loop(thread), read_mask, &mask);
	ck_assert_int_eq(sigismember(&mask, SIGTERM), 1);
	ck_assert_int_eq(sigismember(&mask, SIGUSR1), 1);
	pthread_sigmask(SIG_SETMASK, NULL, &own);
	ck_assert_int_eq(sigismember(&own, SIGTERM), 0);
	io_thread_free(thread);
}
END_TEST

/* A source that takes itself away at once: so it must be known by then. */
struct watched {
	struct loop *loop;
	struct loop_source *source;
	sem_t called;
};

static void unwatch_itself(void *opaque, int fd, uint32_t events)
{
	struct watched *w = opaque;

	ck_assert_ptr_nonnull(w->source);
	loop_unwatch(w->loop, &w->source);
	sem_post(&w->called);
}

START_TEST(another_threads_source_is_known_before_it_is_called)
{
	struct io_thread *thread = io_thread_new(NULL, "io", NULL);
	struct watched w = { .loop = io_thread_loop(thread) };
	int fd = eventfd_new();

	sem_init(&w.called, 0, 0);
	eventfd_signal(fd);
	for (int i = 0; i < EACH; i++) {
		ck_assert_int_eq(
			loop_watch(w.loop, &w.source, fd, EPOLLIN, unwatch_itself, &w, NULL), 0);
		sem_wait(&w.called);
	}
	ck_assert_ptr_null(w.source);
	ck_assert_int_eq(loop_watch(w.loop, &w.source, fd, 0, unwatch_itself, &w, NULL), 0);
	ck_assert_ptr_nonnull(w.source);
	loop_unwatch(w.loop, &w.source);
	ck_assert_ptr_null(w.source);
	loop_unwatch(w.loop, &w.source); /* nothing: allowed */
	io_thread_free(thread);
	ck_assert_int_eq(sem_trywait(&w.called), -1);
	sem_destroy(&w.called);
	close(fd);
}
END_TEST

START_TEST(another_threads_source_may_be_refused)
{
	struct io_thread *thread = io_thread_new(NULL, "io", NULL);
	struct watched w = { .loop = io_thread_loop(thread), .source = (void *)&w };
	struct error err = ERROR_INIT;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(loop_watch(w.loop, &w.source, fd, EPOLLIN, unwatch_itself, &w, &err),
			 -EPERM);
	ck_assert_ptr_null(w.source);
	ck_assert_int_eq(err.code, -EPERM);
	ck_assert_int_eq(loop_watch(w.loop, &w.source, -1, EPOLLIN, unwatch_itself, &w, NULL),
			 -EBADF);
	io_thread_free(thread);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("loop");
	TCase *t = tcase_create("loop"), *threads = tcase_create("threads");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, ready_fd_is_dispatched);
	tcase_add_test(t, regular_file_is_refused);
	tcase_add_test(t, removed_source_is_not_called_again_even_in_the_same_batch);
	tcase_add_test(t, removing_nothing_is_allowed);
	tcase_add_test(t, modified_events_take_effect);
	tcase_add_test(t, timer_fires_once_and_not_early);
	tcase_add_test(t, timer_can_be_set_again_from_its_callback);
	tcase_add_test(t, disarmed_timer_does_not_fire);
	tcase_add_test(t, timer_may_remove_itself);
	tcase_add_test(t, posts_run_in_order);
	tcase_add_test(t, post_from_a_post_runs);
	tcase_add_test(t, call_on_a_loop_nobody_runs_runs_here);
	tcase_add_test(t, call_from_the_loops_own_thread_runs_at_once);
	tcase_add_test(t, stop_before_run_is_not_lost);
	tcase_add_test(t, posts_never_run_are_freed);
	tcase_add_test(threads, another_threads_source_is_known_before_it_is_called);
	tcase_add_test(threads, another_threads_source_may_be_refused);
	tcase_add_test(threads, posts_and_calls_of_many_threads_all_run_in_one);
	tcase_add_test(threads, io_threads_start_and_end_many_times);
	tcase_add_test(threads, policy_is_applied_in_the_thread_before_it_runs);
	tcase_add_test(threads, thread_whose_policy_fails_does_not_start);
	tcase_add_test(threads, threads_take_no_signals);
	tcase_set_timeout(threads, 60);
	suite_add_tcase(s, t);
	suite_add_tcase(s, threads);
	return run_suite(s);
}
