/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM without a processor: RAM with a hole in its address space, threads that write to it
 * until it is paused, and a dirty source that sees what they write. When its state is saved
 * it keeps a copy of RAM: what the snapshot must hold.
 */
#ifndef TESTS_UNIT_MIGRATION_SNAPSHOT_FAKE_VM_H
#define TESTS_UNIT_MIGRATION_SNAPSHOT_FAKE_VM_H

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "migration/snapshot.h"

#define FAKE_LOW (6 * MIB + 4096 * 3) /* not in whole units */
#define FAKE_HIGH (4 * GIB)
#define FAKE_WRITERS 2
#define FAKE_CONFIG "{\"memory\":{\"size\":1}}"

struct fake_vm {
	struct migration_vm vm;
	struct guest_memory *memory;
	uint64_t size;
	uint8_t *saved; /* RAM when it was saved, regions one after the other */
	atomic_bool running, stop;
	atomic_uint writing; /* writers within a write */
	atomic_ullong writes;
	pthread_t writers[FAKE_WRITERS];
	unsigned int writer_count;
	unsigned int pauses, resumes, saves;
	int fail_save, fail_pause, fail_resume;
	struct dirty_source source;
	struct dirty_bitmap dirty[2];
	atomic_bool tracked;
	unsigned int starts, stops;
	void (*paused)(struct fake_vm *fake);  /* called in save */
	void (*resumed)(struct fake_vm *fake); /* called in resume, the VM runs */
};

static inline uint64_t *fake_word(struct fake_vm *f, uint64_t offset)
{
	const struct guest_memory_region *r = guest_memory_region(f->memory, 0);

	if (offset >= r->size) {
		offset -= r->size;
		r = guest_memory_region(f->memory, 1);
	}
	return (uint64_t *)(void *)(r->hva + offset);
}

static inline void fake_mark(struct fake_vm *f, uint64_t offset)
{
	bool high = offset >= FAKE_LOW;

	if (atomic_load(&f->tracked))
		dirty_bitmap_set(&f->dirty[high], (high ? offset - FAKE_LOW : offset) / 4096, 1);
}

/* One write, as a guest does it: not while the VM is paused. */
static inline bool fake_write(struct fake_vm *f, uint64_t offset, uint64_t value)
{
	bool running;

	atomic_fetch_add(&f->writing, 1);
	running = atomic_load(&f->running);
	if (running) {
		__atomic_store_n(fake_word(f, offset), value, __ATOMIC_RELAXED);
		fake_mark(f, offset);
		atomic_fetch_add(&f->writes, 1);
	}
	atomic_fetch_sub(&f->writing, 1);
	return running;
}

static inline uint64_t fake_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 20;
}

static inline void *fake_writer(void *opaque)
{
	struct fake_vm *f = opaque;
	uint64_t state = (uint64_t)(uintptr_t)&state;

	while (!atomic_load(&f->stop)) {
		if (!fake_write(f, fake_random(&state) % (f->size / 8) * 8, fake_random(&state)))
			usleep(100);
	}
	return NULL;
}

static inline struct guest_memory *fake_memory_op(void *vm)
{
	return ((struct fake_vm *)vm)->memory;
}

static inline int fake_pause(void *vm, struct error *err)
{
	struct fake_vm *f = vm;

	f->pauses++;
	if (f->fail_pause)
		return error_set(err, f->fail_pause, "vCPU 0 does not stop");
	atomic_store(&f->running, false);
	while (atomic_load(&f->writing))
		usleep(10);
	return 0;
}

static inline int fake_resume(void *vm, struct error *err)
{
	struct fake_vm *f = vm;

	f->resumes++;
	if (f->fail_resume)
		return error_set(err, f->fail_resume, "vCPU 0 does not start");
	atomic_store(&f->running, true);
	if (f->resumed)
		f->resumed(f);
	return 0;
}

static inline bool fake_running(void *vm)
{
	return atomic_load(&((struct fake_vm *)vm)->running);
}

/* By the file, which leaves holes as they are. */
static inline void fake_copy(struct fake_vm *f, uint8_t *to)
{
	for (unsigned int i = 0; i < 2; i++) {
		const struct guest_memory_region *r = guest_memory_region(f->memory, i);

		for (uint64_t at = 0; at < r->size;) {
			ssize_t n = pread(r->memfd, to + at, r->size - at, (off_t)(r->offset + at));

			ck_assert_int_gt(n, 0);
			at += (uint64_t)n;
		}
		to += r->size;
	}
}

static inline int fake_save(void *vm, struct state_writer *writer, struct error *err)
{
	struct fake_vm *f = vm;

	ck_assert(!fake_running(vm));
	f->saves++;
	if (f->fail_save)
		return error_set(err, f->fail_save, "device net0 cannot be saved");
	if (f->paused)
		f->paused(f);
	if (f->saved)
		fake_copy(f, f->saved);
	state_begin(writer, "machine", "machine", 1);
	state_put_u32(writer, "answer", 42);
	state_end(writer);
	return 0;
}

static inline int fake_save_cpu(void *vm, struct state_writer *writer, struct error *err)
{
	state_begin(writer, "cpu", "cpu", 1);
	state_put_string(writer, "vendor", "Fake");
	state_end(writer);
	return 0;
}

static inline char *fake_config(void *vm, struct error *err)
{
	return strdup(FAKE_CONFIG);
}

static inline int fake_start(struct dirty_source *source, struct error *err)
{
	struct fake_vm *f = container_of(source, struct fake_vm, source);

	f->starts++;
	atomic_store(&f->tracked, true);
	return 0;
}

static inline void fake_stop(struct dirty_source *source)
{
	struct fake_vm *f = container_of(source, struct fake_vm, source);

	f->stops++;
	atomic_store(&f->tracked, false);
}

static inline int fake_collect(struct dirty_source *source,
			       const struct guest_memory_region *region,
			       struct dirty_bitmap *bitmap, struct error *err)
{
	struct fake_vm *f = container_of(source, struct fake_vm, source);

	dirty_bitmap_move(bitmap, &f->dirty[region->gpa != 0]);
	return 0;
}

static inline int fake_sources(void *vm, struct dirty_source **sources, unsigned int max,
			       struct error *err)
{
	sources[0] = &((struct fake_vm *)vm)->source;
	return 1;
}

static inline struct guest_memory *fake_ram(uint64_t size)
{
	struct guest_memory_options options = { .size = size,
						.low_end = FAKE_LOW,
						.high_start = FAKE_HIGH };
	struct error err = ERROR_INIT;
	struct guest_memory *memory = guest_memory_new(&options, &err);

	ck_assert_msg(memory != NULL, "%s", err.message);
	return memory;
}

static inline struct fake_vm *fake_vm_new(uint64_t size)
{
	static const struct migration_vm_ops ops = {
		.memory = fake_memory_op,
		.pause = fake_pause,
		.resume = fake_resume,
		.running = fake_running,
		.save = fake_save,
		.save_cpu = fake_save_cpu,
		.config = fake_config,
		.dirty_sources = fake_sources,
	};
	static const struct dirty_source_ops source_ops = {
		.name = "fake",
		.start = fake_start,
		.stop = fake_stop,
		.collect = fake_collect,
	};
	struct fake_vm *f = calloc(1, sizeof(*f));

	ck_assert_ptr_nonnull(f);
	f->vm = (struct migration_vm){ .ops = &ops, .opaque = f };
	f->source.ops = &source_ops;
	f->size = size;
	f->memory = fake_ram(size);
	f->saved = malloc(size);
	atomic_store(&f->running, true);
	dirty_bitmap_init(&f->dirty[0], FAKE_LOW / 4096, NULL);
	dirty_bitmap_init(&f->dirty[1], (size - FAKE_LOW) / 4096, NULL);
	return f;
}

static inline void fake_vm_start(struct fake_vm *f)
{
	while (f->writer_count < FAKE_WRITERS)
		pthread_create(&f->writers[f->writer_count++], NULL, fake_writer, f);
}

static inline void fake_vm_stop(struct fake_vm *f)
{
	atomic_store(&f->stop, true);
	while (f->writer_count)
		pthread_join(f->writers[--f->writer_count], NULL);
	atomic_store(&f->stop, false);
}

static inline void fake_vm_free(struct fake_vm *f)
{
	fake_vm_stop(f);
	guest_memory_free(f->memory);
	dirty_bitmap_destroy(&f->dirty[0]);
	dirty_bitmap_destroy(&f->dirty[1]);
	free(f->saved);
	free(f);
}

/* Data in about every other quarter: incompressible pages, compressible ones, and zeros that
 * are there; the rest is never touched. */
static inline void fake_vm_fill(struct fake_vm *f)
{
	uint64_t state = 7;

	for (uint64_t page = 0; page < f->size / 4096; page++) {
		uint64_t *words = fake_word(f, page * 4096);
		unsigned int kind = (unsigned int)(page / 96 % 4);

		for (unsigned int i = 0; kind && i < 512; i++)
			words[i] = kind == 1 ? fake_random(&state) : kind == 2 ? page + i / 64 : 0;
	}
}

/* A fresh directory below $TMPDIR, or on the test's own file system. */
static inline void fake_dir(char *path, size_t size, const char *name)
{
	const char *base = getenv("TMPDIR");

	snprintf(path, size, "%s/ferry-snapshot-%s-XXXXXX", base ? base : "/tmp", name);
	ck_assert_ptr_nonnull(mkdtemp(path));
}

static inline int fake_unlink(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

static inline void fake_remove(const char *path)
{
	nftw(path, fake_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

static inline unsigned int fake_entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned int count = 0;

	ck_assert_ptr_nonnull(dir);
	for (struct dirent *e = readdir(dir); e; e = readdir(dir))
		count += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	closedir(dir);
	return count;
}

/* What a guest reads from RAM, beside what was saved. */
static inline void fake_same(struct guest_memory *memory, const uint8_t *saved)
{
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(memory, i);

		for (uint64_t at = 0; at < r->size; at += 4096)
			ck_assert_msg(!memcmp(r->hva + at, saved + at, 4096),
				      "region %u: page at 0x%" PRIx64 " differs", i, at);
		saved += r->size;
	}
}

static inline struct snapshot_options fake_options(const char *dir)
{
	return (struct snapshot_options){ .dir = dir, .userfaultfd_device = -1 };
}

static inline struct snapshot_result fake_snapshot(struct fake_vm *f,
						   const struct snapshot_options *options)
{
	struct snapshot_result result;
	struct error err = ERROR_INIT;
	int r = snapshot_write(options, &f->vm, NULL, &result, &err);

	ck_assert_msg(r == 0, "%s", err.message);
	return result;
}

static inline struct snapshot *fake_open(const char *dir)
{
	struct error err = ERROR_INIT;
	struct snapshot *s = snapshot_open(dir, NULL, &err);

	ck_assert_msg(s != NULL, "%s", err.message);
	return s;
}

/* Restores eagerly and compares. */
static inline void fake_restore(const char *dir, uint64_t size, const uint8_t *saved, bool plain_io)
{
	struct snapshot_read_options options = { .plain_io = plain_io, .userfaultfd_device = -1 };
	struct guest_memory *memory = fake_ram(size);
	struct snapshot *s = fake_open(dir);
	struct error err = ERROR_INIT;
	int r = snapshot_fill(s, memory, &options, NULL, &err);

	ck_assert_msg(r == 0, "%s", err.message);
	fake_same(memory, saved);
	snapshot_close(s);
	guest_memory_free(memory);
}

#endif
