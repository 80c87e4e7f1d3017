/* SPDX-License-Identifier: Apache-2.0 */
#include <semaphore.h>

#include "snapshot_fake_vm.h"
#include "tests/unit/helpers/run_suite.h"

#define SIZE (24 * MIB)

static char top[256], dir[512], second[600];

static void setup(void)
{
	fake_dir(top, sizeof(top), "restore");
	snprintf(dir, sizeof(dir), "%s/one", top);
	snprintf(second, sizeof(second), "%s/two", top);
}

static void teardown(void)
{
	fake_remove(top);
}

/* _i: bit 0 compressed, bit 1 differential */
static struct fake_vm *make(unsigned int kind)
{
	struct snapshot_tracking *tracking = snapshot_tracking_new(NULL);
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);

	options.compress = kind & 1;
	options.tracking = tracking;
	fake_vm_fill(f);
	fake_snapshot(f, &options);
	if (kind & 2) {
		for (uint64_t page = 0; page < 600; page += 5)
			fake_write(f, page * 4096, page);
		options.base = dir;
		options.dir = second;
		fake_snapshot(f, &options);
	}
	snapshot_tracking_free(tracking);
	return f;
}

static const char *made(unsigned int kind)
{
	return kind & 2 ? second : dir;
}

START_TEST(nodes_and_config_are_as_they_were_saved)
{
	struct fake_vm *f = make(0);
	struct snapshot *s = fake_open(dir);
	struct state_node cpu = snapshot_cpu(s), machine = snapshot_machine(s);
	const char *vendor;
	uint32_t answer;

	ck_assert_str_eq(snapshot_config(s), FAKE_CONFIG);
	ck_assert_uint_eq(snapshot_ram_size(s), SIZE);
	ck_assert_uint_eq(strlen(snapshot_id(s)), 32);
	ck_assert_int_eq(state_get_string(&cpu, "vendor", &vendor, NULL), 0);
	ck_assert_str_eq(vendor, "Fake");
	ck_assert_int_eq(state_get_u32(&machine, "answer", &answer, NULL), 0);
	ck_assert_uint_eq(answer, 42);
	snapshot_close(s);
	fake_vm_free(f);
}
END_TEST

START_TEST(eager_leaves_holes)
{
	struct fake_vm *f = make((unsigned int)_i);
	struct snapshot_read_options options = { .userfaultfd_device = -1 };
	struct snapshot_progress progress = { 0 };
	struct guest_memory *memory = fake_ram(SIZE);
	struct snapshot *s = fake_open(made((unsigned int)_i));
	struct stat st;

	ck_assert_int_eq(snapshot_fill(s, memory, &options, &progress, NULL), 0);
	ck_assert_int_eq(fstat(guest_memory_region(memory, 0)->memfd, &st), 0);
	/* Half of it is zero pages, or was never touched. */
	ck_assert_uint_lt((uint64_t)st.st_blocks * 512, SIZE * 6 / 10);
	ck_assert_uint_eq(atomic_load(&progress.done), SIZE);
	ck_assert_int_eq(atomic_load(&progress.phase), SNAPSHOT_DONE);
	fake_same(memory, f->saved);
	snapshot_close(s);
	guest_memory_free(memory);
	fake_vm_free(f);
}
END_TEST

START_TEST(eager_restore_is_canceled)
{
	struct fake_vm *f = make(0);
	struct snapshot_read_options options = { .userfaultfd_device = -1 };
	struct snapshot_progress progress = { .cancel = true };
	struct guest_memory *memory = fake_ram(SIZE);
	struct snapshot *s = fake_open(dir);
	struct error err = ERROR_INIT;

	ck_assert_int_eq(snapshot_fill(s, memory, &options, &progress, &err), -ECANCELED);
	snapshot_close(s);
	guest_memory_free(memory);
	fake_vm_free(f);
}
END_TEST

START_TEST(ram_of_another_size_is_refused)
{
	struct fake_vm *f = make(0);
	struct snapshot_read_options options = { .userfaultfd_device = -1 };
	struct guest_memory *memory = fake_ram(SIZE + MIB), *one = fake_ram(4 * MIB);
	struct snapshot *s = fake_open(dir);
	struct error err = ERROR_INIT;

	ck_assert_int_eq(snapshot_fill(s, memory, &options, NULL, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "0x100000000"));
	ck_assert_ptr_null(snapshot_lazy_start(s, memory, &options, NULL, NULL, NULL, &err));
	ck_assert_int_eq(err.code, -EINVAL);
	ck_assert_int_eq(snapshot_fill(s, one, &options, NULL, &err), -EINVAL);
	snapshot_close(s);
	guest_memory_free(memory);
	guest_memory_free(one);
	fake_vm_free(f);
}
END_TEST

struct waiter {
	sem_t done;
	struct error err;
	unsigned int calls;
	bool failed;
};

static void lazy_done(void *opaque, const struct error *err)
{
	struct waiter *w = opaque;

	w->calls++;
	w->failed = err;
	if (err)
		w->err = *err;
	sem_post(&w->done);
}

struct reader {
	struct guest_memory *memory;
	const uint8_t *saved;
	unsigned int seed;
	pthread_t thread;
	unsigned int wrong;
};

/* Reads all of RAM in an order of its own, each page as it must be. */
static void *read_all(void *opaque)
{
	struct reader *r = opaque;
	uint64_t pages = SIZE / 4096, low = FAKE_LOW / 4096;
	/* odd, and so prime to the number of pages, a power of two times three */
	uint64_t step = r->seed ? 2345 + 2 * r->seed : 1;

	for (uint64_t i = 0, page = r->seed; i < pages; i++, page = (page + step) % pages) {
		const struct guest_memory_region *region =
			guest_memory_region(r->memory, page >= low);
		uint64_t at = (page >= low ? page - low : page) * 4096;

		r->wrong += memcmp(region->hva + at, r->saved + page * 4096, 4096) != 0;
	}
	return NULL;
}

/* _i as above */
START_TEST(lazy_gives_every_page_to_readers_at_once)
{
	struct fake_vm *f = make((unsigned int)_i);
	struct snapshot_read_options options = { .userfaultfd_device = -1 };
	struct snapshot_progress progress = { 0 };
	struct guest_memory *memory = fake_ram(SIZE);
	struct snapshot *s = fake_open(made((unsigned int)_i));
	struct error err = ERROR_INIT;
	struct reader readers[3];
	struct waiter waiter = { 0 };
	struct snapshot_lazy *lazy;

	sem_init(&waiter.done, 0, 0);
	lazy = snapshot_lazy_start(s, memory, &options, &progress, lazy_done, &waiter, &err);
	if (!lazy && err.code == -EOPNOTSUPP)
		goto out; /* without privilege */
	ck_assert_msg(lazy != NULL, "%s", err.message);
	for (unsigned int i = 0; i < 3; i++) {
		readers[i] = (struct reader){ .memory = memory, .saved = f->saved, .seed = i * 3 };
		pthread_create(&readers[i].thread, NULL, read_all, &readers[i]);
	}
	for (unsigned int i = 0; i < 3; i++) {
		pthread_join(readers[i].thread, NULL);
		ck_assert_uint_eq(readers[i].wrong, 0);
	}
	ck_assert_int_eq(snapshot_lazy_wait(lazy, &err), 0);
	sem_wait(&waiter.done);
	snapshot_lazy_free(lazy);
	ck_assert_uint_eq(waiter.calls, 1);
	ck_assert(!waiter.failed);
	ck_assert_uint_eq(atomic_load(&progress.done), SIZE);
	fake_same(memory, f->saved);
out:
	snapshot_close(s);
	guest_memory_free(memory);
	fake_vm_free(f);
}
END_TEST

/* Filled it is as it was saved; lazy is NULL where there is no privilege for it. */
static void end_lazy(struct snapshot_lazy *lazy, struct snapshot *s, struct guest_memory *memory,
		     struct fake_vm *f)
{
	snapshot_lazy_free(lazy);
	if (lazy)
		fake_same(memory, f->saved);
	snapshot_close(s);
	guest_memory_free(memory);
	fake_vm_free(f);
}

START_TEST(lazy_ends_by_itself_and_keeps_what_the_guest_wrote)
{
	struct fake_vm *f = make(0);
	struct snapshot_read_options options = { .userfaultfd_device = -1 };
	struct guest_memory *memory = fake_ram(SIZE);
	struct snapshot *s = fake_open(dir);
	struct error err = ERROR_INIT;
	struct snapshot_lazy *lazy;
	uint64_t page;

	lazy = snapshot_lazy_start(s, memory, &options, NULL, NULL, NULL, &err);
	if (!lazy && err.code == -EOPNOTSUPP)
		goto out;
	ck_assert_msg(lazy != NULL, "%s", err.message);
	for (page = 0; page < SIZE / 4096; page += 7) {
		guest_memory_write(memory,
				   page * 4096 >= FAKE_LOW ? FAKE_HIGH + page * 4096 - FAKE_LOW
							   : page * 4096,
				   "written", 8);
		memcpy(f->saved + page * 4096, "written", 8);
	}
	ck_assert_int_eq(snapshot_lazy_wait(lazy, &err), 0);
out:
	end_lazy(lazy, s, memory, f);
}
END_TEST

START_TEST(what_the_balloon_gives_back_is_not_filled_in_again)
{
	struct fake_vm *f = make(0);
	struct snapshot_read_options options = { .userfaultfd_device = -1 };
	struct guest_memory *memory = fake_ram(SIZE);
	struct snapshot *s = fake_open(dir);
	struct error err = ERROR_INIT;
	struct snapshot_lazy *lazy;

	lazy = snapshot_lazy_start(s, memory, &options, NULL, NULL, NULL, &err);
	if (lazy) {
		for (uint64_t at = 14 * MIB; at >= 8 * MIB; at -= 2 * MIB)
			ck_assert_int_eq(guest_memory_discard(memory, FAKE_HIGH + at, 2 * MIB), 0);
		memset(f->saved + FAKE_LOW + 8 * MIB, 0, 8 * MIB);
		ck_assert_int_eq(snapshot_lazy_wait(lazy, &err), 0);
	}
	end_lazy(lazy, s, memory, f);
}
END_TEST

START_TEST(lazy_fills_what_nobody_touched_when_it_is_told_to)
{
	struct fake_vm *f = make(0);
	struct snapshot_read_options options = { .userfaultfd_device = -1 };
	struct snapshot_progress progress = { 0 };
	struct guest_memory *memory = fake_ram(SIZE);
	struct snapshot *s = fake_open(dir);
	struct error err = ERROR_INIT;
	struct waiter waiter = { 0 };
	struct snapshot_lazy *lazy;
	uint64_t served;
	uint8_t byte;

	sem_init(&waiter.done, 0, 0);
	lazy = snapshot_lazy_start(s, memory, &options, &progress, lazy_done, &waiter, &err);
	if (lazy) {
		usleep(50000);
		ck_assert_uint_eq(atomic_load(&progress.done), 0);
		guest_memory_read(memory, FAKE_HIGH, &byte, 1);
		usleep(50000);
		served = atomic_load(&progress.done);
		ck_assert_uint_gt(served, 0);
		ck_assert_uint_lt(served, SIZE);
		snapshot_lazy_fill(lazy);
		sem_wait(&waiter.done);
		ck_assert(!waiter.failed);
	}
	end_lazy(lazy, s, memory, f);
}
END_TEST

START_TEST(lazy_is_ended_in_the_middle)
{
	struct fake_vm *f = make(0);
	struct snapshot_read_options options = { .userfaultfd_device = -1 };
	struct error err = ERROR_INIT;

	for (unsigned int i = 0; i < 20; i++) {
		struct guest_memory *memory = fake_ram(SIZE);
		struct snapshot *s = fake_open(dir);
		struct snapshot_lazy *lazy =
			snapshot_lazy_start(s, memory, &options, NULL, NULL, NULL, &err);

		if (lazy && i % 4)
			snapshot_lazy_fill(lazy);
		usleep(i * 300);
		snapshot_lazy_free(lazy);
		guest_memory_free(memory);
		snapshot_close(s);
	}
	fake_vm_free(f);
}
END_TEST

static void corrupt_frames(void)
{
	char path[700];
	int fd;

	snprintf(path, sizeof(path), "%s/ram", dir);
	fd = open(path, O_WRONLY);
	for (off_t at = 100; at < 2 * (off_t)MIB; at += 4096)
		ck_assert_int_eq(pwrite(fd, "garbage", 7, at), 7);
	close(fd);
}

START_TEST(corrupt_frame_is_found_and_named)
{
	struct fake_vm *f = make(1);
	struct snapshot_read_options options = { .userfaultfd_device = -1 };
	struct guest_memory *memory = fake_ram(SIZE);
	struct error err = ERROR_INIT;
	struct waiter waiter = { 0 };
	struct snapshot_lazy *lazy;
	struct snapshot *s;

	corrupt_frames();
	s = fake_open(dir);
	ck_assert_int_eq(snapshot_fill(s, memory, &options, NULL, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "unit"));
	guest_memory_free(memory);
	/* Lazily: it is told, once. */
	memory = fake_ram(SIZE);
	sem_init(&waiter.done, 0, 0);
	lazy = snapshot_lazy_start(s, memory, &options, NULL, lazy_done, &waiter, &err);
	if (lazy) {
		snapshot_lazy_fill(lazy);
		sem_wait(&waiter.done);
		ck_assert(waiter.failed);
		ck_assert_int_eq(waiter.err.code, -EINVAL);
		ck_assert_int_eq(snapshot_lazy_wait(lazy, &err), -EINVAL);
		snapshot_lazy_free(lazy);
		ck_assert_uint_eq(waiter.calls, 1);
	}
	snapshot_close(s);
	guest_memory_free(memory);
	fake_vm_free(f);
}
END_TEST

START_TEST(clones_map_the_file_and_share_it)
{
	struct fake_vm *f = make(0);
	struct snapshot *s = fake_open(dir);
	const struct snapshot_file_region *regions;
	const uint8_t *saved = f->saved;
	unsigned int count;

	ck_assert_int_eq(snapshot_shared_regions(s, &regions, &count, NULL), 0);
	ck_assert_uint_eq(count, 2);
	ck_assert_uint_eq(regions[1].gpa, FAKE_HIGH);
	for (unsigned int i = 0; i < count; i++) {
		uint8_t *map = mmap(NULL, regions[i].size, PROT_READ | PROT_WRITE, MAP_PRIVATE,
				    regions[i].fd, (off_t)regions[i].offset);

		ck_assert_ptr_ne(map, MAP_FAILED);
		ck_assert_int_eq(memcmp(map, saved, regions[i].size), 0);
		map[5] ^= 1; /* its own */
		munmap(map, regions[i].size);
		saved += regions[i].size;
	}
	snapshot_close(s);
	fake_restore(dir, SIZE, f->saved, false);
	fake_vm_free(f);
}
END_TEST

/* _i: 1 compressed, 2 differential */
START_TEST(what_cannot_be_mapped_is_not_shared)
{
	struct fake_vm *f = make((unsigned int)_i);
	struct snapshot *s = fake_open(made((unsigned int)_i));
	const struct snapshot_file_region *regions;
	struct error err = ERROR_INIT;
	unsigned int count;

	ck_assert_int_eq(snapshot_shared_regions(s, &regions, &count, &err), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(err.message, _i == 1 ? "compressed" : "differential"));
	snapshot_close(s);
	fake_vm_free(f);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("snapshot_restore");
	TCase *tc = tcase_create("restore");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, nodes_and_config_are_as_they_were_saved);
	tcase_add_loop_test(tc, eager_leaves_holes, 0, 4);
	tcase_add_test(tc, eager_restore_is_canceled);
	tcase_add_test(tc, ram_of_another_size_is_refused);
	tcase_add_loop_test(tc, lazy_gives_every_page_to_readers_at_once, 0, 4);
	tcase_add_test(tc, lazy_ends_by_itself_and_keeps_what_the_guest_wrote);
	tcase_add_test(tc, what_the_balloon_gives_back_is_not_filled_in_again);
	tcase_add_test(tc, lazy_fills_what_nobody_touched_when_it_is_told_to);
	tcase_add_test(tc, lazy_is_ended_in_the_middle);
	tcase_add_test(tc, corrupt_frame_is_found_and_named);
	tcase_add_test(tc, clones_map_the_file_and_share_it);
	tcase_add_loop_test(tc, what_cannot_be_mapped_is_not_shared, 1, 3);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
