/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "snapshot_fake_vm.h"
#include "tests/unit/helpers/run_suite.h"

#define SIZE (24 * MIB)

static char top[256], dir[512], second[600], third[600];

static void setup(void)
{
	fake_dir(top, sizeof(top), "write");
	snprintf(dir, sizeof(dir), "%s/one", top);
	snprintf(second, sizeof(second), "%s/two", top);
	snprintf(third, sizeof(third), "%s/three", top);
}

static void teardown(void)
{
	fake_remove(top);
}

static uint64_t blocks(const char *of)
{
	char path[600];
	struct stat st;

	snprintf(path, sizeof(path), "%s/ram", of);
	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* _i: bit 0 live, bit 1 plain system calls, bit 2 compressed */
START_TEST(image_is_ram_as_it_was_in_the_pause)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);
	struct snapshot_result result;

	options.live = _i & 1;
	options.plain_io = _i & 2;
	options.compress = _i & 4;
	fake_vm_fill(f);
	fake_vm_start(f);
	result = fake_snapshot(f, &options);
	ck_assert(fake_running(f));
	ck_assert_uint_eq(f->saves, 1);
	ck_assert_uint_eq(f->pauses, 1);
	ck_assert_uint_eq(f->resumes, 1);
	ck_assert_uint_gt(result.pause_ns, 0);
	ck_assert_uint_eq(result.ram_bytes, SIZE);
	if (options.plain_io)
		ck_assert_str_eq(result.io, "pwrite");
	if (options.live && !result.not_live[0])
		ck_assert(result.live);
	else
		ck_assert(!result.live);
	fake_restore(dir, SIZE, f->saved, options.plain_io);
	fake_vm_free(f);
}
END_TEST

START_TEST(vm_goes_on_writing_while_ram_is_written)
{
	struct fake_vm *f = fake_vm_new(256 * MIB);
	struct snapshot_options options = fake_options(dir);
	struct snapshot_progress progress = { 0 };
	struct snapshot_result result;
	struct error err = ERROR_INIT;
	uint64_t before;

	options.live = true;
	fake_vm_fill(f);
	fake_vm_start(f);
	before = atomic_load(&f->writes);
	ck_assert_int_eq(snapshot_write(&options, &f->vm, &progress, &result, &err), 0);
	if (result.live) {
		ck_assert_uint_gt(atomic_load(&f->writes), before);
		ck_assert_uint_gt(atomic_load(&progress.faults), 0);
	}
	ck_assert_int_eq(atomic_load(&progress.phase), SNAPSHOT_DONE);
	ck_assert_uint_eq(atomic_load(&progress.done), atomic_load(&progress.total));
	ck_assert_uint_eq(atomic_load(&progress.transferred), result.written_bytes);
	fake_restore(dir, f->size, f->saved, false);
	/* Nothing is protected any more. */
	fake_vm_stop(f);
	for (uint64_t page = 0; page < f->size / 4096; page++)
		fake_write(f, page * 4096, page);
	fake_vm_free(f);
}
END_TEST

static void discard_all(struct fake_vm *f)
{
	for (uint64_t at = 0; at < FAKE_LOW; at += FAKE_LOW / 8)
		guest_memory_discard(f->memory, at, FAKE_LOW / 8);
	for (uint64_t at = f->size - FAKE_LOW; at >= MIB; at -= MIB)
		guest_memory_discard(f->memory, FAKE_HIGH + at - MIB, MIB);
}

START_TEST(what_the_balloon_gives_back_is_saved_first)
{
	struct fake_vm *f = fake_vm_new(64 * MIB);
	struct snapshot_options options = fake_options(dir);

	options.live = true;
	options.compress = _i;
	f->resumed = discard_all;
	fake_vm_fill(f);
	fake_snapshot(f, &options);
	fake_restore(dir, f->size, f->saved, false);
	ck_assert_uint_eq(*fake_word(f, 20 * MIB + 96 * 4096 + 8), 0);
	fake_vm_free(f);
}
END_TEST

START_TEST(holes_and_zero_pages_take_no_room)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);
	struct snapshot_result result;
	struct stat before, after;

	/* One MiB of data, two of zeros that are there. */
	for (uint64_t at = 0; at < 3 * MIB; at += 8)
		*fake_word(f, at) = at < MIB ? at + 1 : 0;
	fstat(guest_memory_region(f->memory, 0)->memfd, &before);
	options.live = true;
	result = fake_snapshot(f, &options);
	fstat(guest_memory_region(f->memory, 0)->memfd, &after);
	ck_assert_uint_eq(result.written_bytes, MIB);
	ck_assert_uint_le(blocks(dir), MIB + 64 * KIB);
	/* Looking did not allocate what the guest never touched. */
	ck_assert_int_eq(after.st_blocks, before.st_blocks);
	fake_restore(dir, SIZE, f->saved, false);
	fake_vm_free(f);
}
END_TEST

START_TEST(compressed_is_smaller)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);
	struct snapshot_result result;

	for (uint64_t at = 0; at < SIZE; at += 8)
		*fake_word(f, at) = at / 4096 + 1;
	options.compress = true;
	result = fake_snapshot(f, &options);
	ck_assert_uint_lt(result.written_bytes, SIZE / 8);
	fake_restore(dir, SIZE, f->saved, true);
	fake_vm_free(f);
}
END_TEST

START_TEST(vm_that_is_paused_stays_paused)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);
	struct snapshot_result result;

	fake_vm_fill(f);
	atomic_store(&f->running, false);
	options.live = true;
	result = fake_snapshot(f, &options);
	ck_assert_uint_eq(f->pauses + f->resumes, 0);
	ck_assert_uint_eq(result.pause_ns, 0);
	ck_assert(!result.live);
	fake_restore(dir, SIZE, f->saved, false);
	fake_vm_free(f);
}
END_TEST

static void refused(struct fake_vm *f, const struct snapshot_options *options, int code,
		    const char *text)
{
	struct error err = ERROR_INIT;

	ck_assert_int_eq(snapshot_write(options, &f->vm, NULL, NULL, &err), code);
	ck_assert_int_eq(err.code, code);
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' lacks '%s'", err.message, text);
	ck_assert(fake_running(f));
}

START_TEST(directory_that_exists_is_left_alone)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);

	ck_assert_int_eq(mkdir(dir, 0700), 0);
	refused(f, &options, -EEXIST, dir);
	ck_assert_uint_eq(f->pauses, 0);
	ck_assert_uint_eq(fake_entries(dir), 0);
	ck_assert_uint_eq(fake_entries(top), 1);
	fake_vm_free(f);
}
END_TEST

static void make_dir_in_pause(struct fake_vm *f)
{
	ck_assert_int_eq(mkdir(dir, 0700), 0);
}

START_TEST(directory_made_meanwhile_is_not_replaced)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);

	f->paused = make_dir_in_pause;
	fake_vm_fill(f);
	refused(f, &options, -EEXIST, "it exists");
	ck_assert_uint_eq(fake_entries(dir), 0);
	ck_assert_uint_eq(fake_entries(top), 1);
	fake_vm_free(f);
}
END_TEST

START_TEST(parent_that_is_missing_is_named)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options("/nonexistent/a/b");

	refused(f, &options, -ENOENT, "/nonexistent/a/b: open its parent");
	options.dir = "/";
	refused(f, &options, -EINVAL, "no name");
	options.dir = "";
	refused(f, &options, -EINVAL, "no name");
	options.dir = "..";
	refused(f, &options, -EINVAL, "no name");
	fake_vm_free(f);
}
END_TEST

START_TEST(device_that_cannot_be_saved_leaves_nothing_and_the_vm_running)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);

	options.live = _i;
	f->fail_save = EOPNOTSUPP;
	fake_vm_fill(f);
	fake_vm_start(f);
	refused(f, &options, -EOPNOTSUPP, "device net0");
	ck_assert_uint_eq(fake_entries(top), 0);
	f->fail_save = 0;
	fake_snapshot(f, &options);
	fake_restore(dir, SIZE, f->saved, false);
	fake_vm_free(f);
}
END_TEST

START_TEST(vm_that_does_not_pause_leaves_nothing)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);

	options.live = _i;
	f->fail_pause = EIO;
	refused(f, &options, -EIO, "does not stop");
	ck_assert_uint_eq(fake_entries(top), 0);
	fake_vm_free(f);
}
END_TEST

START_TEST(vm_that_does_not_resume_leaves_nothing)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);
	struct error err = ERROR_INIT;

	options.live = _i;
	f->fail_resume = EIO;
	fake_vm_fill(f);
	ck_assert_int_eq(snapshot_write(&options, &f->vm, NULL, NULL, &err), -EIO);
	ck_assert_ptr_nonnull(strstr(err.message, "does not start"));
	ck_assert_uint_eq(fake_entries(top), 0);
	fake_vm_free(f);
}
END_TEST

/* The thread that starts all others, and itself writes to RAM in between. */
struct starter {
	struct thread_policy policy;
	struct fake_vm *vm;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	void (*fn)(void *arg);
	void *arg;
	bool stop;
};

static void *run_starter(void *opaque)
{
	struct starter *s = opaque;
	uint64_t at = 0;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		if (s->fn)
			s->fn(s->arg);
		s->fn = NULL;
		pthread_cond_broadcast(&s->changed);
		pthread_mutex_unlock(&s->lock);
		fake_write(s->vm, at, at);
		at = (at + 5 * 4096) % s->vm->size;
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void start_in(const struct thread_policy *policy, void (*fn)(void *arg), void *arg)
{
	struct starter *s = policy->opaque;

	pthread_mutex_lock(&s->lock);
	while (s->fn)
		pthread_cond_wait(&s->changed, &s->lock);
	s->fn = fn;
	s->arg = arg;
	while (s->fn == fn && s->arg == arg)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

/* _i: compressed */
START_TEST(thread_that_starts_the_others_may_wait_for_its_write)
{
	struct fake_vm *f = fake_vm_new(96 * MIB);
	struct snapshot_options options = fake_options(dir);
	struct starter s = { .vm = f, .policy = { .start_in = start_in } };

	pthread_mutex_init(&s.lock, NULL);
	pthread_cond_init(&s.changed, NULL);
	s.policy.opaque = &s;
	options.live = true;
	options.compress = _i;
	options.policy = &s.policy;
	fake_vm_fill(f);
	fake_vm_start(f);
	pthread_create(&s.thread, NULL, run_starter, &s);
	fake_snapshot(f, &options);
	pthread_mutex_lock(&s.lock);
	s.stop = true;
	pthread_mutex_unlock(&s.lock);
	pthread_join(s.thread, NULL);
	fake_restore(dir, f->size, f->saved, false);
	fake_vm_free(f);
}
END_TEST

static void limit_in_pause(struct fake_vm *f)
{
	struct rlimit limit = { .rlim_cur = 4 * MIB, .rlim_max = RLIM_INFINITY };

	setrlimit(RLIMIT_FSIZE, &limit);
}

/* _i: bit 0 live, bit 1 plain system calls */
START_TEST(write_that_fails_in_the_middle_leaves_nothing_and_the_vm_running)
{
	struct rlimit unlimited = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);

	signal(SIGXFSZ, SIG_IGN);
	options.live = _i & 1;
	options.plain_io = _i & 2;
	f->paused = limit_in_pause;
	fake_vm_fill(f);
	fake_vm_start(f);
	refused(f, &options, -EFBIG, "ram");
	ck_assert_uint_eq(fake_entries(top), 0);
	setrlimit(RLIMIT_FSIZE, &unlimited);
	fake_vm_stop(f);
	for (uint64_t page = 0; page < f->size / 4096; page++)
		fake_write(f, page * 4096, page);
	fake_vm_free(f);
}
END_TEST

/* A disk of 4 MiB; needs the privilege to mount. _i as above, bit 2 compressed. */
START_TEST(full_disk_leaves_nothing_and_the_vm_running)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(second);
	uint64_t state = 3;

	ck_assert_int_eq(mkdir(dir, 0700), 0);
	if (mount("none", dir, "tmpfs", 0, "size=4m")) {
		fake_vm_free(f);
		return;
	}
	snprintf(second, sizeof(second), "%s/snapshot", dir);
	options.live = _i & 1;
	options.plain_io = _i & 2;
	options.compress = _i & 4;
	for (uint64_t at = 0; at < SIZE; at += 8)
		*fake_word(f, at) = fake_random(&state) << 32 | fake_random(&state);
	fake_vm_start(f);
	refused(f, &options, -ENOSPC, "No space");
	ck_assert_uint_eq(fake_entries(dir), 0);
	ck_assert_msg(!umount(dir), "%s", strerror(errno));
	fake_vm_free(f);
}
END_TEST

static struct snapshot_progress *to_cancel;

static void cancel_in_pause(struct fake_vm *f)
{
	atomic_store(&to_cancel->cancel, true);
}

START_TEST(canceled_leaves_nothing_and_the_vm_running)
{
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);
	struct snapshot_progress progress = { 0 };
	struct error err = ERROR_INIT;

	options.live = _i;
	to_cancel = &progress;
	f->paused = cancel_in_pause;
	fake_vm_fill(f);
	fake_vm_start(f);
	ck_assert_int_eq(snapshot_write(&options, &f->vm, &progress, NULL, &err), -ECANCELED);
	ck_assert(fake_running(f));
	ck_assert_uint_eq(fake_entries(top), 0);
	fake_vm_free(f);
}
END_TEST

/* _i: bit 0 live, bit 1 base compressed, bit 2 the others */
START_TEST(differential_chain_restores)
{
	struct snapshot_tracking *tracking = snapshot_tracking_new(NULL);
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);
	struct snapshot_result full, next;
	uint64_t state = 9;

	options.live = _i & 1;
	options.compress = _i & 2;
	options.tracking = tracking;
	fake_vm_fill(f);
	full = fake_snapshot(f, &options);
	ck_assert_str_eq(snapshot_tracking_id(tracking), full.id);
	/* Little is written, and some of it becomes zero. */
	for (unsigned int i = 0; i < 40; i++)
		fake_write(f, fake_random(&state) % (SIZE / 4096) * 4096, fake_random(&state));
	for (uint64_t at = 97 * 4096; at < 105 * 4096; at += 8)
		fake_write(f, at, 0);
	options.compress = _i & 4;
	options.dir = second;
	options.base = dir;
	next = fake_snapshot(f, &options);
	ck_assert_uint_lt(next.written_bytes, MIB);
	fake_restore(second, SIZE, f->saved, false);
	fake_vm_start(f);
	options.dir = third;
	options.base = second;
	fake_snapshot(f, &options);
	fake_restore(third, SIZE, f->saved, true);
	ck_assert_uint_eq(f->starts, 1);
	snapshot_tracking_free(tracking);
	ck_assert_uint_eq(f->stops, 1);
	fake_vm_free(f);
}
END_TEST

START_TEST(chain_moved_together_restores)
{
	struct snapshot_tracking *tracking = snapshot_tracking_new(NULL);
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);
	char moved[600], path[700];

	options.tracking = tracking;
	fake_vm_fill(f);
	fake_snapshot(f, &options);
	fake_write(f, 0, 77);
	options.dir = second;
	options.base = dir;
	fake_snapshot(f, &options);
	snprintf(moved, sizeof(moved), "%s/elsewhere", top);
	ck_assert_int_eq(mkdir(moved, 0700), 0);
	snprintf(path, sizeof(path), "%s/one", moved);
	ck_assert_int_eq(rename(dir, path), 0);
	snprintf(path, sizeof(path), "%s/two", moved);
	ck_assert_int_eq(rename(second, path), 0);
	fake_restore(path, SIZE, f->saved, false);
	snapshot_tracking_free(tracking);
	fake_vm_free(f);
}
END_TEST

START_TEST(what_a_failed_snapshot_took_is_in_the_next)
{
	struct snapshot_tracking *tracking = snapshot_tracking_new(NULL);
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);

	options.tracking = tracking;
	options.live = true;
	fake_vm_fill(f);
	fake_snapshot(f, &options);
	fake_write(f, 5 * MIB, 1);
	options.dir = second;
	options.base = dir;
	f->fail_save = EIO;
	refused(f, &options, -EIO, "net0");
	f->fail_save = 0;
	fake_write(f, 7 * MIB, 2);
	fake_snapshot(f, &options);
	fake_restore(second, SIZE, f->saved, false);
	snapshot_tracking_free(tracking);
	fake_vm_free(f);
}
END_TEST

START_TEST(base_that_is_not_the_parent_is_refused)
{
	struct snapshot_tracking *tracking = snapshot_tracking_new(NULL);
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);

	fake_vm_fill(f);
	/* nothing tracked */
	fake_snapshot(f, &options);
	options.dir = second;
	options.base = dir;
	refused(f, &options, -EINVAL, "not tracked");
	options.tracking = tracking;
	refused(f, &options, -EINVAL, "not tracked");
	/* tracked since another */
	options.base = NULL;
	fake_snapshot(f, &options);
	options.dir = third;
	options.base = dir;
	refused(f, &options, -EINVAL, "last snapshot");
	/* gone */
	fake_remove(second);
	options.base = second;
	refused(f, &options, -ENOENT, second);
	ck_assert_uint_eq(fake_entries(top), 1);
	snapshot_tracking_free(tracking);
	fake_vm_free(f);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("snapshot_write");
	TCase *tc = tcase_create("write");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, image_is_ram_as_it_was_in_the_pause, 0, 8);
	tcase_add_test(tc, vm_goes_on_writing_while_ram_is_written);
	tcase_add_loop_test(tc, what_the_balloon_gives_back_is_saved_first, 0, 2);
	tcase_add_test(tc, holes_and_zero_pages_take_no_room);
	tcase_add_test(tc, compressed_is_smaller);
	tcase_add_test(tc, vm_that_is_paused_stays_paused);
	tcase_add_test(tc, directory_that_exists_is_left_alone);
	tcase_add_test(tc, directory_made_meanwhile_is_not_replaced);
	tcase_add_test(tc, parent_that_is_missing_is_named);
	tcase_add_loop_test(tc, device_that_cannot_be_saved_leaves_nothing_and_the_vm_running, 0,
			    2);
	tcase_add_loop_test(tc, vm_that_does_not_pause_leaves_nothing, 0, 2);
	tcase_add_loop_test(tc, vm_that_does_not_resume_leaves_nothing, 0, 2);
	tcase_add_loop_test(tc, thread_that_starts_the_others_may_wait_for_its_write, 0, 2);
	tcase_add_loop_test(tc, write_that_fails_in_the_middle_leaves_nothing_and_the_vm_running, 0,
			    4);
	tcase_add_loop_test(tc, full_disk_leaves_nothing_and_the_vm_running, 0, 8);
	tcase_add_loop_test(tc, canceled_leaves_nothing_and_the_vm_running, 0, 2);
	tcase_add_loop_test(tc, differential_chain_restores, 0, 8);
	tcase_add_test(tc, chain_moved_together_restores);
	tcase_add_test(tc, what_a_failed_snapshot_took_is_in_the_next);
	tcase_add_test(tc, base_that_is_not_the_parent_is_refused);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
