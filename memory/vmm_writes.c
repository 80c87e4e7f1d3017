/* SPDX-License-Identifier: Apache-2.0 */
/* The dirty source of what the VMM itself writes. */
#include <errno.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "memory/dirty_source.h"
#include "memory/guest_memory_private.h"

struct vmm_writes {
	struct dirty_source source; /* first */
	struct guest_memory *memory;
	bool started;
};

int region_track(struct region *region, struct error *err)
{
	if (region->writes.words)
		return 0;
	return dirty_bitmap_init(&region->writes, region->r.size / GUEST_PAGE_SIZE, err);
}

/*
 * A writer stores to RAM and then loads the flag, with no fence in between: its load may
 * run ahead of its store, and it marks nothing for what we would not see yet. A barrier
 * on every CPU the process runs on, here, is what makes that load cheap there.
 */
static void settle_writers(void)
{
	if (!syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
		syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

static int start(struct dirty_source *source, struct error *err)
{
	struct vmm_writes *w = container_of(source, struct vmm_writes, source);
	struct guest_memory *memory = w->memory;

	if (atomic_load(&memory->tracking))
		return error_set(err, EBUSY, "track writes of the VMM: they are tracked already");
	for (unsigned int i = 0; i < memory->count; i++) {
		struct region *region = memory->regions[i];
		int r = region_track(region, err);

		if (r)
			return r;
		dirty_bitmap_clear(&region->writes, 0, region->writes.pages);
	}
	atomic_store(&memory->tracking, true);
	settle_writers();
	w->started = true;
	return 0;
}

static void stop(struct dirty_source *source)
{
	struct vmm_writes *w = container_of(source, struct vmm_writes, source);

	if (w->started)
		atomic_store(&w->memory->tracking, false);
	w->started = false;
}

static int collect(struct dirty_source *source, const struct guest_memory_region *region,
		   struct dirty_bitmap *bitmap, struct error *err)
{
	struct vmm_writes *w = container_of(source, struct vmm_writes, source);

	if (!w->started)
		return error_set(err, EINVAL, "collect writes of the VMM: they are not tracked");
	for (unsigned int i = 0; i < w->memory->count; i++) {
		struct region *own = w->memory->regions[i];

		if (&own->r != region)
			continue;
		if (bitmap->pages != own->writes.pages)
			return error_set(err, EINVAL,
					 "collect writes of the VMM: bitmap of %llu pages for a "
					 "region of %llu",
					 (unsigned long long)bitmap->pages,
					 (unsigned long long)own->writes.pages);
		dirty_bitmap_move(bitmap, &own->writes);
		return 0;
	}
	return error_set(err, ENOENT, "collect writes of the VMM: no RAM region at 0x%llx",
			 (unsigned long long)region->gpa);
}

static void free_source(struct dirty_source *source)
{
	stop(source);
	free(container_of(source, struct vmm_writes, source));
}

struct dirty_source *guest_memory_dirty_source(struct guest_memory *memory, struct error *err)
{
	static const struct dirty_source_ops ops = {
		.name = "vmm",
		.start = start,
		.stop = stop,
		.collect = collect,
		.free = free_source,
	};
	struct vmm_writes *w = calloc(1, sizeof(*w));

	if (!w) {
		error_set_errno(err, ENOMEM, "create dirty source of the VMM");
		return NULL;
	}
	w->source.ops = &ops;
	w->memory = memory;
	return &w->source;
}
