/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM for migration: RAM, a thread that writes to it while the VM runs, a dirty source
 * that sees what it writes, disk locks, and a bit of state. One struct is source and
 * target; what a test wants to go wrong it puts into `hook`.
 */
#ifndef TESTS_UNIT_MIGRATION_FAKE_MACHINE_H
#define TESTS_UNIT_MIGRATION_FAKE_MACHINE_H

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "memory/dirty_source.h"
#include "migration/crc32c.h"
#include "migration/migration_vm.h"

#define FAKE_CONFIG "{\"fake\": true}"
#define FAKE_LOW_END (2 * MIB)
#define FAKE_MACHINE_DEVICES 4

enum fake_step {
	FAKE_SAVE_CPU,
	FAKE_CHECK_CPU,
	FAKE_CREATE,
	FAKE_START_LOG,
	FAKE_COLLECT,
	FAKE_PAUSE,
	FAKE_SAVE,
	FAKE_LOAD,
	FAKE_RELEASE_LOCKS,
	FAKE_TAKE_LOCKS,
	FAKE_RESUME,
	FAKE_RESUMED, /* after it runs, before anybody is told */
	FAKE_CHECK_POSTCOPY,
	FAKE_EXPECT_POSTCOPY,
	FAKE_DESTROY, /* cannot fail */
	FAKE_STEPS,
};

/* What both sides see, also across processes (shared memory). */
struct fake_world {
	atomic_int running;	  /* VMs that run */
	atomic_int most;	  /* ... at most at a time */
	atomic_int locked;	  /* holders of the disk locks */
	_Atomic uint32_t crc;	  /* of RAM, when the source was paused last */
	_Atomic uint32_t arrived; /* of RAM, when the target was to run */
	atomic_bool wrong_state;
};

struct fake_machine {
	struct dirty_source source; /* first */
	struct fake_world *world;
	struct guest_memory *memory;
	uint64_t ram_size;
	bool huge_pages;   /* transparent ones */
	uint8_t *alias[2]; /* of the regions: the guest's own view, which TSan does not follow */
	pthread_mutex_t lock;
	bool running, logging, locked, stop_writer, writer_started;
	bool no_adopt;	  /* nor postcopy */
	atomic_bool lost; /* what waited for a page goes on, but not as the guest */
	struct dirty_bitmap dirty[2];
	pthread_t writer;
	unsigned int writes_per_ms; /* pages; 0: no writer */
	unsigned int throttle, most_throttle, announced, created, destroyed, collects;
	uint32_t counter;				  /* the state */
	struct migratable *devices[FAKE_MACHINE_DEVICES]; /* fake_device.h */
	unsigned int device_count;
	const char *not_movable;
	/* Returns what the step fails with. */
	int (*hook)(struct fake_machine *machine, enum fake_step step);
	void *hook_data;
};

static inline int fake_hook(struct fake_machine *m, enum fake_step step, struct error *err)
{
	int r = m->hook ? m->hook(m, step) : 0;

	return r ? error_set(err, r, "fake step %d fails", step) : 0;
}

static inline void fake_make_ram(struct fake_machine *m)
{
	struct guest_memory_options options = {
		.size = m->ram_size,
		.low_end = FAKE_LOW_END,
		.high_start = 4 * GIB,
		.transparent_hugepages = m->huge_pages,
	};

	m->memory = guest_memory_new(&options, NULL);
	ck_assert_ptr_nonnull(m->memory);
}

static inline void fake_map(struct fake_machine *m)
{
	for (unsigned int i = 0; i < guest_memory_region_count(m->memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(m->memory, i);

		m->alias[i] = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, r->memfd,
				   (off_t)r->offset);
		ck_assert_ptr_ne(m->alias[i], MAP_FAILED);
		ck_assert_int_eq(dirty_bitmap_init(&m->dirty[i], r->size / GUEST_PAGE_SIZE, NULL),
				 0);
	}
}

static inline void fake_unmap(struct fake_machine *m)
{
	for (unsigned int i = 0; m->memory && i < guest_memory_region_count(m->memory); i++) {
		munmap(m->alias[i], guest_memory_region(m->memory, i)->size);
		dirty_bitmap_destroy(&m->dirty[i]);
	}
	guest_memory_free(m->memory);
	m->memory = NULL;
}

/* Of what is there, without making it come into being. */
static inline uint32_t fake_crc(struct fake_machine *m)
{
	uint32_t crc = 0;

	for (unsigned int i = 0; i < guest_memory_region_count(m->memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(m->memory, i);
		uint8_t page[GUEST_PAGE_SIZE];

		for (uint64_t at = 0; at < r->size; at += sizeof(page)) {
			ck_assert_int_eq(
				pread(r->memfd, page, sizeof(page), (off_t)(r->offset + at)),
				sizeof(page));
			crc = crc32c(crc, page, sizeof(page));
		}
	}
	return crc;
}

static inline void fake_write(struct fake_machine *m, unsigned int region, uint64_t page,
			      uint64_t value)
{
	pthread_mutex_lock(&m->lock);
	for (unsigned int i = 0; i < GUEST_PAGE_SIZE; i += 512)
		store_le64(m->alias[region] + page * GUEST_PAGE_SIZE + i, value);
	if (m->logging)
		dirty_bitmap_set(&m->dirty[region], page, 1);
	pthread_mutex_unlock(&m->lock);
}

static inline void *fake_writer(void *opaque)
{
	struct fake_machine *m = opaque;
	uint64_t seed = 88172645463325252ULL;

	for (;;) {
		bool running, stop;
		unsigned int n;

		pthread_mutex_lock(&m->lock);
		running = m->running;
		stop = m->stop_writer;
		n = m->writes_per_ms * (100 - m->throttle) / 100;
		pthread_mutex_unlock(&m->lock);
		if (stop)
			return NULL;
		for (unsigned int i = 0; running && i < n; i++) {
			unsigned int regions = guest_memory_region_count(m->memory);
			unsigned int region;

			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			region = (unsigned int)(seed >> 60) % regions;
			pthread_mutex_lock(&m->lock);
			running = m->running;
			pthread_mutex_unlock(&m->lock);
			/* now and then a page becomes zero */
			if (running)
				fake_write(m, region, (seed >> 8) % m->dirty[region].pages,
					   seed % 8 ? seed : 0);
		}
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

static inline int fake_log_start(struct dirty_source *source, struct error *err)
{
	struct fake_machine *m = container_of(source, struct fake_machine, source);
	int r = fake_hook(m, FAKE_START_LOG, err);

	pthread_mutex_lock(&m->lock);
	m->logging = !r;
	pthread_mutex_unlock(&m->lock);
	return r;
}

static inline void fake_log_stop(struct dirty_source *source)
{
	struct fake_machine *m = container_of(source, struct fake_machine, source);

	pthread_mutex_lock(&m->lock);
	m->logging = false;
	pthread_mutex_unlock(&m->lock);
}

static inline int fake_log_collect(struct dirty_source *source,
				   const struct guest_memory_region *region,
				   struct dirty_bitmap *bitmap, struct error *err)
{
	struct fake_machine *m = container_of(source, struct fake_machine, source);
	unsigned int i = region->gpa ? 1 : 0;
	int r = fake_hook(m, FAKE_COLLECT, err);

	pthread_mutex_lock(&m->lock);
	dirty_bitmap_move(bitmap, &m->dirty[i]);
	m->collects++;
	pthread_mutex_unlock(&m->lock);
	return r;
}

static inline struct guest_memory *fake_memory(void *opaque)
{
	return ((struct fake_machine *)opaque)->memory;
}

static inline void fake_count_running(struct fake_machine *m, bool running)
{
	int now;

	if (m->running == running)
		return;
	m->running = running;
	now = atomic_fetch_add(&m->world->running, running ? 1 : -1) + (running ? 1 : -1);
	if (now > atomic_load(&m->world->most))
		atomic_store(&m->world->most, now);
}

static inline int fake_pause(void *opaque, struct error *err)
{
	struct fake_machine *m = opaque;
	int r = fake_hook(m, FAKE_PAUSE, err);

	if (r)
		return r;
	pthread_mutex_lock(&m->lock);
	fake_count_running(m, false);
	pthread_mutex_unlock(&m->lock);
	atomic_store(&m->world->crc, fake_crc(m));
	return 0;
}

static inline int fake_resume(void *opaque, struct error *err)
{
	struct fake_machine *m = opaque;
	int r = fake_hook(m, FAKE_RESUME, err);

	if (r)
		return r;
	atomic_store(&m->world->arrived, fake_crc(m));
	pthread_mutex_lock(&m->lock);
	if (!m->locked)
		m->world->wrong_state = true;
	fake_count_running(m, true);
	pthread_mutex_unlock(&m->lock);
	return fake_hook(m, FAKE_RESUMED, err);
}

static inline bool fake_running(void *opaque)
{
	struct fake_machine *m = opaque;
	bool running;

	pthread_mutex_lock(&m->lock);
	running = m->running;
	pthread_mutex_unlock(&m->lock);
	return running;
}

static inline int fake_save(void *opaque, struct state_writer *writer, struct error *err)
{
	struct fake_machine *m = opaque;

	/* Devices may have written after the pause. */
	atomic_store(&m->world->crc, fake_crc(m));
	state_begin(writer, "machine", "fake-machine", 1);
	state_put_u32(writer, "counter", m->counter);
	state_end(writer);
	return fake_hook(m, FAKE_SAVE, err);
}

static inline char *fake_config(void *opaque, struct error *err)
{
	return strdup(FAKE_CONFIG);
}

static inline int fake_save_cpu(void *opaque, struct state_writer *writer, struct error *err)
{
	state_begin(writer, "cpu", "fake-cpu", 1);
	state_put_u32(writer, "features", 7);
	state_end(writer);
	return fake_hook(opaque, FAKE_SAVE_CPU, err);
}

static inline int fake_dirty_sources(void *opaque, struct dirty_source **sources, unsigned int max,
				     struct error *err)
{
	sources[0] = &((struct fake_machine *)opaque)->source;
	return 1;
}

static inline int fake_find_devices(void *opaque, struct migratable **devices, unsigned int max,
				    struct error *err)
{
	struct fake_machine *m = opaque;

	if (m->not_movable)
		return error_set(err, EOPNOTSUPP, "%s", m->not_movable);
	for (unsigned int i = 0; i < m->device_count; i++)
		devices[i] = m->devices[i];
	return (int)m->device_count;
}

static inline int fake_check_postcopy(void *opaque, struct error *err)
{
	return fake_hook(opaque, FAKE_CHECK_POSTCOPY, err);
}

static inline int fake_expect_postcopy(void *opaque, struct error *err)
{
	return fake_hook(opaque, FAKE_EXPECT_POSTCOPY, err);
}

static inline void fake_lost(void *opaque, const struct error *why)
{
	struct fake_machine *m = opaque;

	ck_assert_ptr_nonnull(strstr(why->message, "lost"));
	atomic_store(&m->lost, true);
}

static inline int fake_throttle(void *opaque, unsigned int percent, struct error *err)
{
	struct fake_machine *m = opaque;

	pthread_mutex_lock(&m->lock);
	m->throttle = percent;
	m->most_throttle = MAX(m->most_throttle, percent);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static inline int fake_release_locks(void *opaque, struct error *err)
{
	struct fake_machine *m = opaque;
	int r = fake_hook(m, FAKE_RELEASE_LOCKS, err);

	if (!r && m->locked) {
		m->locked = false;
		atomic_store(&m->world->locked, 0);
	}
	return r;
}

static inline int fake_take_locks(void *opaque, struct error *err)
{
	struct fake_machine *m = opaque;
	int r = fake_hook(m, FAKE_TAKE_LOCKS, err), none = 0, own = getpid();

	if (r || m->locked)
		return r;
	if (!atomic_compare_exchange_strong(&m->world->locked, &none, own))
		return error_set(err, EAGAIN, "disk is locked");
	m->locked = true;
	return 0;
}

static inline void fake_announce(void *opaque)
{
	((struct fake_machine *)opaque)->announced++;
}

static inline int fake_check_cpu(void *opaque, const struct state_node *cpu, struct error *err)
{
	uint32_t features;
	int r = fake_hook(opaque, FAKE_CHECK_CPU, err);

	if (!r)
		r = state_expect(cpu, "fake-cpu", 1, NULL, NULL, err);
	return r ? r : state_get_u32(cpu, "features", &features, err);
}

static inline int fake_adopt(void *opaque, const struct guest_memory_region *regions,
			     unsigned int count, struct error *err)
{
	struct fake_machine *m = opaque;

	m->memory = guest_memory_new_empty(err);
	ck_assert_ptr_nonnull(m->memory);
	for (unsigned int i = 0; i < count; i++) {
		int r = guest_memory_add(m->memory, regions[i].gpa, regions[i].size,
					 regions[i].memfd, regions[i].offset, err);

		ck_assert_int_eq(r, 0);
	}
	return 0;
}

static inline int fake_create(void *opaque, const char *config, struct error *err)
{
	struct fake_machine *m = opaque;
	int r = fake_hook(m, FAKE_CREATE, err);

	if (r)
		return r;
	if (strcmp(config, FAKE_CONFIG) != 0)
		return error_set(err, EINVAL, "fake: config \"%s\"", config);
	if (!m->memory)
		fake_make_ram(m);
	fake_map(m);
	m->created++;
	return 0;
}

static inline int fake_load(void *opaque, const struct state_node *machine, struct error *err)
{
	struct fake_machine *m = opaque;
	int r = fake_hook(m, FAKE_LOAD, err);

	if (!r)
		r = state_expect(machine, "fake-machine", 1, NULL, NULL, err);
	return r ? r : state_get_u32(machine, "counter", &m->counter, err);
}

static inline void fake_destroy(void *opaque)
{
	struct fake_machine *m = opaque;

	pthread_mutex_lock(&m->lock);
	fake_count_running(m, false);
	pthread_mutex_unlock(&m->lock);
	fake_hook(m, FAKE_DESTROY, NULL);
	fake_unmap(m);
	if (m->locked)
		atomic_store(&m->world->locked, 0);
	m->locked = false;
	/* They went with it. */
	for (unsigned int i = 0; i < m->device_count; i++)
		memset(m->devices[i], 0xee, sizeof(*m->devices[i]));
	m->destroyed++;
}

static inline struct migration_vm fake_vm(struct fake_machine *m)
{
	static const struct migration_vm_ops ops = {
		.memory = fake_memory,
		.pause = fake_pause,
		.resume = fake_resume,
		.running = fake_running,
		.save = fake_save,
		.config = fake_config,
		.save_cpu = fake_save_cpu,
		.dirty_sources = fake_dirty_sources,
		.devices = fake_find_devices,
		.check_postcopy = fake_check_postcopy,
		.throttle = fake_throttle,
		.release_locks = fake_release_locks,
		.take_locks = fake_take_locks,
		.announce = fake_announce,
	};

	return (struct migration_vm){ .ops = &ops, .opaque = m };
}

static inline struct migration_target fake_target(struct fake_machine *m)
{
	static const struct migration_target_ops ops = {
		.check_cpu = fake_check_cpu,
		.expect_postcopy = fake_expect_postcopy,
		.lost = fake_lost,
		.adopt_memory = fake_adopt,
		.create = fake_create,
		.memory = fake_memory,
		.devices = fake_find_devices,
		.load = fake_load,
		.take_locks = fake_take_locks,
		.resume = fake_resume,
		.destroy = fake_destroy,
		.announce = fake_announce,
	};
	static const struct migration_target_ops no_adopt_ops = {
		.check_cpu = fake_check_cpu,
		.create = fake_create,
		.memory = fake_memory,
		.load = fake_load,
		.take_locks = fake_take_locks,
		.resume = fake_resume,
		.destroy = fake_destroy,
		.announce = fake_announce,
	};

	return (struct migration_target){ .ops = m->no_adopt ? &no_adopt_ops : &ops, .opaque = m };
}

static inline void fake_init(struct fake_machine *m, struct fake_world *world, uint64_t ram_size)
{
	static const struct dirty_source_ops ops = {
		.name = "fake",
		.start = fake_log_start,
		.stop = fake_log_stop,
		.collect = fake_log_collect,
	};

	*m = (struct fake_machine){ .source.ops = &ops, .world = world, .ram_size = ram_size };
	pthread_mutex_init(&m->lock, NULL);
}

/* A VM that runs, has its locks, and every third page of RAM filled, every ninth touched. */
static inline void fake_init_running(struct fake_machine *m, struct fake_world *world,
				     uint64_t ram_size, unsigned int writes_per_ms)
{
	fake_init(m, world, ram_size);
	m->counter = 4711;
	m->writes_per_ms = writes_per_ms;
	fake_make_ram(m);
	fake_map(m);
	for (unsigned int i = 0; i < guest_memory_region_count(m->memory); i++)
		for (uint64_t page = 0; page < m->dirty[i].pages; page += 3)
			fake_write(m, i, page, page % 9 ? page + 1 : 0);
	ck_assert_int_eq(fake_take_locks(m, NULL), 0);
	fake_count_running(m, true);
	if (!writes_per_ms)
		return;
	ck_assert_int_eq(pthread_create(&m->writer, NULL, fake_writer, m), 0);
	m->writer_started = true;
}

static inline void fake_stop_writer(struct fake_machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->stop_writer = true;
	pthread_mutex_unlock(&m->lock);
	if (m->writer_started)
		pthread_join(m->writer, NULL);
	m->writer_started = false;
}

static inline void fake_free(struct fake_machine *m)
{
	fake_stop_writer(m);
	fake_unmap(m);
	pthread_mutex_destroy(&m->lock);
}

#endif
