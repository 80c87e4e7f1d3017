/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of the vfio-user client stand on: guest RAM, a loop that runs in a thread of
 * its own, a socketpair, and a count of `lost`. Inline: included by the two programs.
 */
#ifndef TESTS_UNIT_VFIO_USER_BENCH_H
#define TESTS_UNIT_VFIO_USER_BENCH_H

#include <check.h>
#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/loop.h"
#include "memory/dirty_source.h"
#include "vfio/user_private.h"

#define BENCH_RAM (4 * MIB)

struct bench {
	struct guest_memory *memory;
	struct io_thread *thread;
	struct vfio_user_options options;
	struct vfio_transport *t;
	atomic_int lost;
	char reason[256]; /* read behind bench_settle */
	int fds_before;
	struct error err;
};

static inline int bench_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = -1; /* its own */

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static inline void bench_lost(void *opaque, const char *reason)
{
	struct bench *b = opaque;

	snprintf(b->reason, sizeof(b->reason), "%s", reason);
	atomic_fetch_add(&b->lost, 1);
}

static inline void bench_init(struct bench *b)
{
	struct guest_memory_options ram = {
		.size = BENCH_RAM,
		.low_end = BENCH_RAM / 2, /* two regions */
		.high_start = 4 * GIB,
	};

	memset(b, 0, sizeof(*b));
	b->memory = guest_memory_new(&ram, &b->err);
	ck_assert_msg(b->memory != NULL, "%s", b->err.message);
	b->thread = io_thread_new(NULL, "loop", &b->err);
	ck_assert_ptr_nonnull(b->thread);
	b->options = (struct vfio_user_options){
		.socket = "test.sock",
		.memory = b->memory,
		.loop = io_thread_loop(b->thread),
		.lost = bench_lost,
		.opaque = b,
		.keep_state = true,
	};
	b->fds_before = bench_open_fds();
}

static inline void bench_nothing(void *opaque)
{
}

/* The loop has seen what there was to see. */
static inline void bench_settle(struct bench *b)
{
	for (int i = 0; i < 2; i++)
		loop_call(b->options.loop, bench_nothing, NULL);
}

static inline bool bench_wait_lost(struct bench *b)
{
	for (int i = 0; i < 3000 && !atomic_load(&b->lost); i++)
		usleep(1000);
	bench_settle(b);
	return atomic_load(&b->lost) == 1;
}

/* Ends it all; nothing is left open. */
static inline void bench_done(struct bench *b)
{
	if (b->t)
		b->t->ops->close(b->t);
	ck_assert_int_eq(bench_open_fds(), b->fds_before);
	io_thread_free(b->thread);
	guest_memory_free(b->memory);
}

static inline void bench_says(const char *message, const char *text)
{
	ck_assert_msg(strstr(message, text) != NULL, "'%s' lacks '%s'", message, text);
}

#endif
