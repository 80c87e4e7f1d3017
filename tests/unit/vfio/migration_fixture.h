/* SPDX-License-Identifier: Apache-2.0 */
/* A device that is moved, as the migration does it: for the tests of its backends. */
#ifndef TESTS_UNIT_VFIO_MIGRATION_FIXTURE_H
#define TESTS_UNIT_VFIO_MIGRATION_FIXTURE_H

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/helpers/fake_migration.h"
#include "tests/unit/helpers/run_suite.h"
#include "vfio/device_migration.h"

struct stream {
	uint8_t data[2 * FAKE_MIGRATION_MAX];
	size_t len, before_stop;
	size_t chunk; /* bytes of a read or write */
};

static struct fake_migration source, destination;
static struct stream stream;
static struct error err;

static inline unsigned int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static inline struct migratable *migratable_new(struct fake_migration *fake)
{
	const struct device_migration_options options = { .id = "vf0" };
	struct error why = ERROR_INIT;
	struct migratable *m = device_migration_new(&fake->transport, &options, &why);

	ck_assert_msg(m != NULL, "%s", why.message);
	return m;
}

static inline struct migratable *movable(struct fake_migration *fake)
{
	struct migratable *m = migratable_new(fake);

	ck_assert_msg(!device_migration_refusal(m), "%s", device_migration_refusal(m));
	return m;
}

/* Reads until there is no more, now or at all. */
static inline int read_all(struct migratable *m)
{
	for (;;) {
		size_t room = MIN(stream.chunk, sizeof(stream.data) - stream.len);
		ssize_t n = m->ops->save_read(m, stream.data + stream.len, room, &err);

		if (n <= 0)
			return (int)n;
		ck_assert_uint_le((size_t)n, room);
		stream.len += (size_t)n;
	}
}

/* The source's half, up to save_end. */
static inline int save_device(struct migratable *m)
{
	struct migratable_pending pending;
	int r;

	error_clear(&err);
	stream.len = 0;
	r = m->ops->save_begin(m, &err);
	if (!r)
		r = m->ops->save_pending(m, &pending, &err);
	if (!r)
		r = read_all(m);
	if (!r)
		r = m->ops->quiesce(m, &err);
	stream.before_stop = stream.len;
	if (!r)
		r = m->ops->save_stop(m, &err);
	if (!r)
		r = m->ops->save_pending(m, &pending, &err);
	if (!r)
		r = read_all(m);
	return r ? r : m->ops->save_end(m, &err);
}

/* The destination's, up to run. */
static inline int load_device(struct migratable *m)
{
	int r;

	error_clear(&err);
	r = m->ops->load_begin(m, &err);
	for (size_t done = 0, n; !r && done < stream.len; done += n) {
		n = MIN(stream.chunk, stream.len - done);
		r = m->ops->load_write(m, stream.data + done, n, &err);
	}
	if (!r)
		r = m->ops->load_end(m, &err);
	if (!r)
		r = m->ops->resume(m, &err);
	return r ? r : m->ops->run(m, &err);
}

static inline void check_message(const char *part)
{
	ck_assert_msg(strstr(err.message, part) != NULL, "'%s' lacks '%s'", err.message, part);
}

static inline void check_failed(int r, const char *part)
{
	ck_assert_int_lt(r, 0);
	ck_assert_int_eq(err.code, r);
	check_message("vf0");
	check_message(part);
}

static inline void check_loaded(void)
{
	ck_assert_uint_eq(destination.loaded_len, source.len);
	ck_assert_mem_eq(destination.loaded, source.content, source.len);
	ck_assert_uint_eq(source.misuses, 0);
	ck_assert_uint_eq(destination.misuses, 0);
}

struct asking {
	struct migratable *m;
	atomic_bool stop;
	unsigned int asked;
};

static inline void *ask(void *opaque)
{
	struct asking *asking = opaque;
	struct migratable_pending pending;
	struct error why = ERROR_INIT;

	do {
		ck_assert_int_eq(asking->m->ops->save_pending(asking->m, &pending, &why), 0);
		asking->asked++;
	} while (!atomic_load(&asking->stop));
	return NULL;
}

/* Another thread asks how much is pending while this one reads. */
static inline void check_moves_while_asked(void)
{
	struct migratable *from = movable(&source), *to = movable(&destination);
	struct asking asking = { .m = from };
	pthread_t thread;

	stream.len = 0;
	ck_assert_int_eq(from->ops->save_begin(from, &err), 0);
	for (unsigned int stopped = 0; stopped < 2; stopped++) {
		if (stopped)
			ck_assert_int_eq(from->ops->save_stop(from, &err), 0);
		atomic_store(&asking.stop, false);
		ck_assert_int_eq(pthread_create(&thread, NULL, ask, &asking), 0);
		ck_assert_int_eq(read_all(from), 0);
		atomic_store(&asking.stop, true);
		pthread_join(thread, NULL);
	}
	ck_assert_uint_ge(asking.asked, 2);
	ck_assert_int_eq(from->ops->save_end(from, &err), 0);
	ck_assert_msg(!load_device(to), "%s", err.message);
	check_loaded();
	device_migration_free(from);
	device_migration_free(to);
}

static inline void check_moves(void)
{
	struct migratable *from = movable(&source), *to = movable(&destination);

	ck_assert_str_eq(from->ops->kind, to->ops->kind);
	ck_assert_msg(!save_device(from), "%s", err.message);
	ck_assert_msg(!load_device(to), "%s", err.message);
	check_loaded();
	ck_assert(fake_migration_runs(&destination));
	ck_assert(!fake_migration_runs(&source));
	device_migration_free(from);
	device_migration_free(to);
}

/* Every call of the source's device fails in turn; then rollback has it running. What `make`
 * makes of `source` is undone here. */
static inline void check_source_survives(void (*make)(void), bool in_error)
{
	unsigned int fds = open_fds(), at = 0, failed;

	do {
		struct migratable *m;
		int r;

		make();
		m = movable(&source);
		source.fail_at = source.calls + ++at;
		source.fail_in_error = in_error;
		r = save_device(m);
		failed = source.failed;
		ck_assert_int_eq(r != 0, failed != 0);
		source.fail_at = 0;
		if (r) {
			check_failed(r, "0000:01:10.0");
			error_clear(&err);
			r = m->ops->rollback(m, &err);
			if (source.state == VFIO_DEVICE_STATE_ERROR ||
			    (source.old_state & 7) == 6) {
				ck_assert(in_error);
				check_failed(r, "reset");
			} else {
				ck_assert_msg(!r, "%s", err.message);
				ck_assert(fake_migration_runs(&source));
			}
			/* Nothing is left of it: the next one works. */
			source.fail_in_error = false;
			fake_migration_reset(&source);
			ck_assert_msg(!save_device(m), "%s", err.message);
		}
		ck_assert_uint_eq(source.misuses, 0);
		device_migration_free(m);
		fake_migration_destroy(&source);
		ck_assert_uint_eq(open_fds(), fds);
	} while (failed);
	ck_assert_uint_gt(at, 10);
}

/* Every call fails in turn in the rollback itself, from every step. */
static inline void check_rollback_survives(void (*make)(void))
{
	for (unsigned int step = 0; step < 4; step++)
		for (unsigned int at = 1; at < 12; at++) {
			struct migratable *m;

			make();
			m = movable(&source);
			ck_assert_int_eq(m->ops->save_begin(m, &err), 0);
			if (step > 0)
				ck_assert_int_eq(m->ops->quiesce(m, &err), 0);
			if (step > 1)
				ck_assert_int_eq(m->ops->save_stop(m, &err), 0);
			if (step > 2) {
				ck_assert_int_eq(read_all(m), 0);
				ck_assert_int_eq(m->ops->save_end(m, &err), 0);
			}
			stream.len = 0;
			source.fail_at = source.calls + at;
			/* The reason is said already, more often than not. */
			ck_assert_msg(!m->ops->rollback(m, at % 2 ? &err : NULL), "%s",
				      err.message);
			ck_assert(fake_migration_runs(&source));
			ck_assert_uint_eq(source.misuses, 0);
			device_migration_free(m);
			fake_migration_destroy(&source);
		}
}

/* Every call of the destination's device fails in turn: the load fails, and says so. */
static inline void check_load_fails(void (*make)(void))
{
	unsigned int fds = open_fds(), at = 0, failed;

	do {
		struct migratable *m;
		int r;

		make();
		m = movable(&destination);
		destination.fail_at = destination.calls + ++at;
		r = load_device(m);
		failed = destination.failed;
		ck_assert_int_eq(r != 0, failed != 0);
		if (r) {
			check_failed(r, "0000:01:10.0");
			ck_assert(!fake_migration_runs(&destination) ||
				  destination.loaded_len == 0);
		}
		device_migration_free(m);
		fake_migration_destroy(&destination);
		ck_assert_uint_eq(open_fds(), fds);
	} while (failed);
	ck_assert_uint_gt(at, 5);
}

#endif
