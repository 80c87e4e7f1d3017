/* SPDX-License-Identifier: Apache-2.0 */
/* Live update: the body of KEPT, and the hand-over between two fake machines. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "migration/update.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/migration_fixture.h"

#define DESCRIPTION "{\"kinds\":{}}"

static unsigned int open_fds(void)
{
	unsigned int n = 0;
	DIR *dir = opendir("/proc/self/fd");

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* The body of KEPT */

struct body {
	uint8_t meta[FRAME_META_MAX];
	size_t len;
	int fds[FD_PASS_MAX];
	unsigned int fd_count;
};

static void encode(struct body *body)
{
	struct kept kept = { .count = 0 };
	int fds[2];

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	ck_assert_int_eq(kept_put(&kept, "a/file", fds[0], NULL, 0, NULL), 0);
	ck_assert_int_eq(kept_put(&kept, "facts", -1, "12345", 5, NULL), 0);
	ck_assert_int_eq(kept_put(&kept, "a/lock", fds[1], "x", 1, NULL), 0);
	ck_assert_uint_eq(kept_encode(&kept, 0, body->meta, &body->len, body->fds, &body->fd_count),
			  3);
	ck_assert_uint_eq(body->fd_count, 2);
	for (unsigned int i = 0; i < body->fd_count; i++)
		body->fds[i] = fcntl(body->fds[i], F_DUPFD_CLOEXEC, 3);
	kept_destroy(&kept);
}

START_TEST(what_goes_in_comes_out)
{
	unsigned int before = open_fds();
	struct kept kept = { .count = 0 };
	struct body body;
	int fd;

	encode(&body);
	ck_assert_int_eq(kept_decode(&kept, body.meta, body.len, body.fds, body.fd_count, NULL), 0);
	ck_assert_uint_eq(kept.count, 3);
	fd = kept_take(&kept, "a/file");
	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(memcmp(kept_facts(&kept, 5, "facts"), "12345", 5), 0);
	ck_assert_ptr_nonnull(kept_facts(&kept, 1, "a/lock"));
	kept_destroy(&kept);
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

/* However it is cut or changed: refused, or understood; nothing leaks, nothing is read
 * beyond its end. */
START_TEST(what_is_cut_short_is_refused)
{
	unsigned int before = open_fds();
	struct body body;

	encode(&body);
	for (size_t len = 0; len < body.len; len++) {
		struct kept kept = { .count = 0 };
		uint8_t *copy = malloc(len ?: 1);
		struct error err = ERROR_INIT;
		int fds[2] = { fcntl(body.fds[0], F_DUPFD_CLOEXEC, 3),
			       fcntl(body.fds[1], F_DUPFD_CLOEXEC, 3) };

		memcpy(copy, body.meta, len);
		ck_assert_int_eq(kept_decode(&kept, copy, len, fds, 2, &err), -EBADMSG);
		free(copy);
		kept_destroy(&kept);
	}
	close(body.fds[0]);
	close(body.fds[1]);
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(any_byte_may_be_another)
{
	unsigned int before = open_fds();
	struct body body;

	encode(&body);
	for (size_t at = 0; at < body.len; at++)
		for (unsigned int bit = 0; bit < 8; bit++) {
			struct kept kept = { .count = 0 };
			int fds[2] = { fcntl(body.fds[0], F_DUPFD_CLOEXEC, 3),
				       fcntl(body.fds[1], F_DUPFD_CLOEXEC, 3) };
			int r;

			body.meta[at] ^= (uint8_t)(1 << bit);
			r = kept_decode(&kept, body.meta, body.len, fds, 2, NULL);
			body.meta[at] ^= (uint8_t)(1 << bit);
			ck_assert(r == 0 || r == -EBADMSG || r == -EINVAL || r == -EEXIST);
			kept_destroy(&kept);
		}
	close(body.fds[0]);
	close(body.fds[1]);
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(descriptors_have_to_be_as_many_as_are_named)
{
	unsigned int before = open_fds();

	for (unsigned int given = 0; given <= 3; given++) {
		struct kept kept = { .count = 0 };
		struct error err = ERROR_INIT;
		struct body body;
		int r;

		encode(&body);
		if (given == 3)
			body.fds[body.fd_count++] = fcntl(body.fds[0], F_DUPFD_CLOEXEC, 3);
		while (body.fd_count > given)
			close(body.fds[--body.fd_count]);
		r = kept_decode(&kept, body.meta, body.len, body.fds, body.fd_count, &err);
		ck_assert_int_eq(r, given == 2 ? 0 : -EBADMSG);
		kept_destroy(&kept);
	}
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(a_name_that_comes_twice_is_refused)
{
	struct kept kept = { .count = 0 };
	struct error err = ERROR_INIT;
	struct body body;

	ck_assert_int_eq(kept_put(&kept, "facts", -1, NULL, 0, NULL), 0);
	encode(&body);
	ck_assert_int_eq(kept_decode(&kept, body.meta, body.len, body.fds, body.fd_count, &err),
			 -EEXIST);
	kept_destroy(&kept);
}
END_TEST

START_TEST(more_than_fits_a_frame_goes_in_several)
{
	static const uint8_t data[KEPT_DATA_MAX];
	struct kept kept = { .count = 0 }, back = { .count = 0 };
	unsigned int done = 0, frames = 0;

	for (unsigned int i = 0; i < 100; i++)
		ck_assert_int_eq(kept_add(&kept, i % 2 ? -1 : 0, data, i % 7 ? 0 : sizeof(data),
					  NULL, "entry/%u", i),
				 0);
	while (done < kept.count) {
		struct body body;
		unsigned int n =
			kept_encode(&kept, done, body.meta, &body.len, body.fds, &body.fd_count);

		ck_assert_uint_gt(n, 0);
		for (unsigned int i = 0; i < body.fd_count; i++)
			body.fds[i] = fcntl(body.fds[i], F_DUPFD_CLOEXEC, 3);
		ck_assert_int_eq(
			kept_decode(&back, body.meta, body.len, body.fds, body.fd_count, NULL), 0);
		done += n;
		frames++;
	}
	ck_assert_uint_gt(frames, 5);
	ck_assert_uint_eq(back.count, kept.count);
	kept_destroy(&kept);
	kept_destroy(&back);
}
END_TEST

/* The hand-over */

static struct {
	struct fixture f;
	struct kept kept;
	int pipe[2];
	unsigned int kept_calls[2], take_calls[2], considered, started;
	int refuse, keep_fails, take_fails, start_fails;
	bool started_paused;
} u;

static char *describe(void *opaque, struct error *err)
{
	return strdup(DESCRIPTION);
}

static int keep(void *opaque, struct kept *kept, bool paused, struct error *err)
{
	u.kept_calls[paused]++;
	ck_assert_int_eq(fake_running(&u.f.source), !paused);
	if (u.keep_fails && paused)
		return error_set(err, u.keep_fails, "cannot be kept");
	for (unsigned int i = 0; i < 100; i++)
		ck_assert_int_eq(kept_add(kept, u.pipe[0], &i, sizeof(i), err, "%s/%u",
					  paused ? "late" : "open", i),
				 0);
	return 0;
}

static int consider(void *opaque, const char *text, struct error *err)
{
	u.considered++;
	ck_assert_str_eq(text, DESCRIPTION);
	ck_assert_uint_eq(u.f.target.created, 0);
	return u.refuse ? error_set(err, u.refuse, "it is too new") : 0;
}

static struct kept *kept_of(void *opaque)
{
	return &u.kept;
}

static int take_kept(void *opaque, bool paused, struct error *err)
{
	u.take_calls[paused]++;
	ck_assert_uint_eq(u.kept.count, paused ? 200 : 100);
	ck_assert(kept_has(&u.kept, paused ? "late/99" : "open/99"));
	return u.take_fails ? error_set(err, u.take_fails, "cannot be taken") : 0;
}

static int start_vm(void *opaque, bool paused, struct error *err)
{
	u.started++;
	u.started_paused = paused;
	if (u.start_fails)
		return error_set(err, u.start_fails, "cannot be started");
	/* The disks' locks are where they were: both have them. */
	ck_assert_int_ne(atomic_load(&u.f.world.locked), 0);
	u.f.target.locked = true;
	return paused ? 0 : fake_resume(opaque, err);
}

static void run(bool offered)
{
	struct migration_vm vm;
	struct migration_target target;
	struct migration_vm_ops source_ops;
	struct migration_target_ops target_ops;

	fixture_init(&u.f, false, 3 * MIB, 3);
	u.f.send_options.local = u.f.send_options.update = true;
	u.f.receive_options.update = offered;
	vm = fake_vm(&u.f.source);
	source_ops = *vm.ops;
	source_ops.describe = describe;
	source_ops.keep = keep;
	vm.ops = &source_ops;
	target = fake_target(&u.f.target);
	target_ops = *target.ops;
	target_ops.consider = consider;
	target_ops.kept = kept_of;
	target_ops.take_kept = take_kept;
	target_ops.start = start_vm;
	target.ops = &target_ops;
	u.f.send = migration_send_new(&vm, &u.f.send_options, NULL);
	u.f.receive = migration_receive_new(&target, &u.f.receive_options, NULL);
	ck_assert_int_eq(pthread_create(&u.f.receive_thread, NULL, run_receive, &u.f), 0);
	u.f.send_result = migration_send_run(u.f.send, &u.f.send_error);
	pthread_join(u.f.receive_thread, NULL);
}

static void setup(void)
{
	memset(&u, 0, sizeof(u));
	ck_assert_int_eq(pipe2(u.pipe, O_CLOEXEC), 0);
}

static void teardown(void)
{
	if (u.f.send)
		fixture_free(&u.f);
	kept_destroy(&u.kept);
	close(u.pipe[0]);
	close(u.pipe[1]);
}

static void stayed(const char *text)
{
	ck_assert_int_ne(u.f.send_result, 0);
	ck_assert_msg(strstr(u.f.send_error.message, text) != NULL, "'%s' lacks '%s'",
		      u.f.send_error.message, text);
	ck_assert_int_eq(migration_send_outcome(u.f.send), TRANSFER_STAYED);
	ck_assert(fake_running(&u.f.source));
	ck_assert_int_eq(atomic_load(&u.f.world.running), 1);
	ck_assert(u.f.source.locked);
	ck_assert_int_le(atomic_load(&u.f.world.most), 1);
}

START_TEST(it_is_asked_then_kept_then_kept_again_and_started)
{
	run(true);
	ck_assert_msg(!u.f.send_result, "%s", u.f.send_error.message);
	ck_assert_msg(!u.f.receive_result, "%s", u.f.receive_error.message);
	ck_assert_int_eq(migration_send_outcome(u.f.send), TRANSFER_MOVED);
	ck_assert_uint_eq(u.considered, 1);
	ck_assert_uint_eq(u.started, 1);
	ck_assert(!u.started_paused);
	for (unsigned int i = 0; i < 2; i++) {
		ck_assert_uint_eq(u.kept_calls[i], 1);
		ck_assert_uint_eq(u.take_calls[i], 1);
	}
	ck_assert(!fake_running(&u.f.source) && fake_running(&u.f.target));
	ck_assert_int_le(atomic_load(&u.f.world.most), 1);
	ck_assert_uint_eq(atomic_load(&u.f.world.crc), atomic_load(&u.f.world.arrived));
	ck_assert(u.f.source.locked); /* never given up */
	ck_assert_uint_eq(u.f.target.announced, 0);
}
END_TEST

START_TEST(who_cannot_take_it_says_why_before_anything_is_paused)
{
	u.refuse = EPROTONOSUPPORT;
	run(true);
	stayed("it is too new");
	ck_assert_uint_eq(u.kept_calls[0] + u.kept_calls[1], 0);
	ck_assert_uint_eq(u.f.target.created, 0);
}
END_TEST

START_TEST(each_step_that_fails_leaves_the_vm_where_it_was)
{
	u.keep_fails = EMFILE;
	run(true);
	stayed("cannot be kept");
	teardown();
	setup();
	u.take_fails = EBADMSG;
	run(true);
	stayed("cannot be taken");
	teardown();
	setup();
	u.start_fails = EIO;
	run(true);
	stayed("cannot be started");
	ck_assert_uint_eq(u.f.target.destroyed, 1);
}
END_TEST

START_TEST(who_does_not_know_live_updates_refuses_them)
{
	run(false);
	stayed("capabilities");
	ck_assert_uint_eq(u.considered, 0);
}
END_TEST

START_TEST(a_migration_is_no_live_update)
{
	fixture_init(&u.f, false, 3 * MIB, 3);
	u.f.send_options.local = true;
	u.f.receive_options.update = true;
	fixture_start(&u.f);
	u.f.send_result = migration_send_run(u.f.send, &u.f.send_error);
	pthread_join(u.f.receive_thread, NULL);
	stayed("live update only");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("update");
	TCase *c = tcase_create("KEPT");

	tcase_add_test(c, what_goes_in_comes_out);
	tcase_add_test(c, what_is_cut_short_is_refused);
	tcase_add_test(c, any_byte_may_be_another);
	tcase_add_test(c, descriptors_have_to_be_as_many_as_are_named);
	tcase_add_test(c, a_name_that_comes_twice_is_refused);
	tcase_add_test(c, more_than_fits_a_frame_goes_in_several);
	suite_add_tcase(s, c);
	c = tcase_create("hand-over");
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, it_is_asked_then_kept_then_kept_again_and_started);
	tcase_add_test(c, who_cannot_take_it_says_why_before_anything_is_paused);
	tcase_add_test(c, each_step_that_fails_leaves_the_vm_where_it_was);
	tcase_add_test(c, who_does_not_know_live_updates_refuses_them);
	tcase_add_test(c, a_migration_is_no_live_update);
	suite_add_tcase(s, c);
	return run_suite(s);
}
