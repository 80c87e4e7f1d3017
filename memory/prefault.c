/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/prefault.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/thread.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

#define WORKERS_MAX 16
/* Large enough that the shared counter is never contended. */
#define CHUNK (64 * MIB)

struct work {
	uint8_t *start;
	uint64_t size, page_size, chunk;
	bool huge;
	atomic_ullong next; /* offset of the first chunk nobody took */
	atomic_int failed;  /* the first errno */
};

static int touch(uint8_t *start, uint64_t len, uint64_t page_size)
{
	/* An atomic add of nothing is a write that keeps what is there. */
	for (uint64_t offset = 0; offset < len; offset += page_size)
		__atomic_fetch_or(start + offset, 0, __ATOMIC_RELAXED);
	return 0;
}

void make_huge(uint8_t *start, uint64_t len, enum expect_order order, const atomic_bool *stop)
{
	/* MADV_COLLAPSE makes a huge page of an extent that has at least one page. */
	for (uint64_t done = 0; done < len; done += THP_SIZE) {
		uint64_t offset = order == EXPECT_DOWNWARDS ? len - THP_SIZE - done : done;

		if ((stop && atomic_load(stop)) ||
		    madvise(start + offset, GUEST_PAGE_SIZE, MADV_POPULATE_WRITE))
			return;
	}
	madvise(start, len, MADV_COLLAPSE);
}

static int populate(const struct work *work, uint64_t offset)
{
	uint64_t len = MIN(work->chunk, work->size - offset);

	/* What does not become huge is populated page by page. */
	if (work->huge)
		make_huge(work->start + offset, align_down(len, THP_SIZE), EXPECT_UPWARDS, NULL);
	while (madvise(work->start + offset, len, MADV_POPULATE_WRITE)) {
		if (errno == EINTR || errno == EAGAIN)
			continue;
		if (errno == EINVAL) /* before Linux 5.14 */
			return touch(work->start + offset, len, work->page_size);
		return errno;
	}
	return 0;
}

static void *run(void *opaque)
{
	struct work *work = opaque;
	int none = 0;

	while (!atomic_load(&work->failed)) {
		uint64_t offset = atomic_fetch_add(&work->next, work->chunk);
		int r;

		if (offset >= work->size)
			break;
		r = populate(work, offset);
		if (r)
			atomic_compare_exchange_strong(&work->failed, &none, r);
	}
	return NULL;
}

static unsigned int cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned int)CPU_COUNT(&set);
}

int prefault(uint8_t *start, uint64_t size, uint64_t page_size, bool huge, struct error *err)
{
	uint64_t chunk = MAX(CHUNK, page_size);
	struct work work = {
		.start = start,
		.size = size,
		.page_size = page_size,
		.chunk = chunk,
		.huge = huge,
	};
	uint64_t chunks = (size + work.chunk - 1) / work.chunk;
	unsigned int want = (unsigned int)MIN(MIN((uint64_t)cpus(), chunks), (uint64_t)WORKERS_MAX);
	pthread_t threads[WORKERS_MAX];
	unsigned int started = 0;

	/* This thread is one of the workers; with fewer helpers it only takes longer.
	 * They inherit its confinement: no policy of their own. */
	while (started + 1 < want &&
	       !thread_start(&threads[started], NULL, THREAD_IO, "prefault", run, &work, NULL))
		started++;
	run(&work);
	while (started)
		pthread_join(threads[--started], NULL);
	if (work.failed)
		return error_set_errno(err, work.failed,
				       "prefault %llu MiB of guest RAM: the host has not enough "
				       "free memory",
				       (unsigned long long)(size / MIB));
	return 0;
}
