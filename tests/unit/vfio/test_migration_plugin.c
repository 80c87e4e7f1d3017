/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin backend with real processes of ferry-plugin, which is found beside this
 * program's folder: plugins that work, and everything a plugin can do wrong. */
#include <check.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "tests/unit/helpers/run_suite.h"
#include "vfio/migration_plugin_private.h"

#define BDF "0000:01:10.0"
#define TIMEOUT_MS 20000 /* sanitized, on a busy machine */
#define SHORT_MS 300	 /* where the plugin is meant not to return */
#define STREAM_MAX (16 * MIB)

static char build[PATH_MAX], plugins[PATH_MAX + 16];
static struct plugin_host *host;
static struct error err;
static uint8_t *stream;
static size_t stream_len;

static const char *plugin(const char *name)
{
	static char path[2 * PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", plugins, name);
	return path;
}

static struct plugin_host *new_host(const char *allowed)
{
	static char program[PATH_MAX + 16];
	const char *const list[] = { allowed };
	const struct plugin_host_options options = { .program = program,
						     .allowed = list,
						     .allowed_count = 1 };

	snprintf(program, sizeof(program), "%s/ferry-plugin", build);
	return plugin_host_new(&options, &err);
}

static void setup(void)
{
	char *dir = build;

	error_clear(&err);
	ck_assert_int_gt(readlink("/proc/self/exe", build, sizeof(build) - 1), 0);
	for (int i = 0; i < 4; i++) /* O/tests/unit/vfio/test_migration_plugin */
		dir = dirname(dir);
	memmove(build, dir, strlen(dir) + 1);
	snprintf(plugins, sizeof(plugins), "%s/plugins", build);
	host = new_host(plugins);
	ck_assert_msg(host != NULL, "%s", err.message);
	stream = malloc(STREAM_MAX);
	stream_len = 0;
}

static void teardown(void)
{
	plugin_host_free(host);
	free(stream);
}

static struct migratable *open_plugin(const char *name, const char *arg, unsigned int timeout_ms)
{
	const struct device_migration_options options = {
		.id = "dev0", .plugin_path = plugin(name), .plugin_arg = arg, .plugin_host = host
	};

	struct device_migration *dm;

	error_clear(&err);
	dm = migration_plugin_new_for(BDF, timeout_ms, &options, &err);
	return dm ? &dm->m : NULL;
}

static struct migratable *must_open(const char *arg)
{
	struct migratable *m = open_plugin("bad.so", arg, TIMEOUT_MS);

	ck_assert_msg(m != NULL, "%s", err.message);
	return m;
}

static void says(const char *text)
{
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' lacks '%s'", err.message, text);
}

#define OK(call) ck_assert_msg(!(call), "%s", err.message)

/* Until there is nothing, in odd pieces. */
static int read_all(struct migratable *m)
{
	for (;;) {
		size_t room = MIN((size_t)70001, STREAM_MAX - stream_len);
		ssize_t n = m->ops->save_read(m, stream + stream_len, room, &err);

		if (n <= 0)
			return (int)n;
		stream_len += (size_t)n;
	}
}

static int save(struct migratable *m)
{
	int r = m->ops->save_begin(m, &err);

	if (!r)
		r = read_all(m);
	if (!r)
		r = m->ops->quiesce(m, &err);
	if (!r)
		r = m->ops->save_stop(m, &err);
	if (!r)
		r = read_all(m);
	if (!r)
		r = m->ops->save_end(m, &err);
	return r;
}

static int load(struct migratable *m, size_t piece)
{
	int r = m->ops->load_begin(m, &err);

	for (size_t at = 0; !r && at < stream_len; at += piece)
		r = m->ops->load_write(m, stream + at, MIN(piece, stream_len - at), &err);
	if (!r)
		r = m->ops->load_end(m, &err);
	if (!r)
		r = m->ops->resume(m, &err);
	if (!r)
		r = m->ops->run(m, &err);
	return r;
}

START_TEST(state_moves_in_any_pieces)
{
	static const size_t pieces[] = { 1, 13, 4096, STREAM_MAX };
	struct migratable *m = must_open(_i ? "size=3000000" : "size=20000");

	ck_assert_str_eq(m->ops->kind, "plugin");
	ck_assert(m->precopy && !m->p2p);
	OK(save(m));
	ck_assert_uint_gt(stream_len, _i ? 3000000 : 20000);
	device_migration_free(m);
	m = must_open(_i ? "size=3000000" : "size=20000");
	OK(load(m, pieces[_i]));
	device_migration_free(m);
}
END_TEST

START_TEST(pending_says_what_is_left)
{
	struct migratable *m = must_open("size=3000000");
	struct migratable_pending p;
	uint8_t buf[100];

	OK(m->ops->save_begin(m, &err));
	OK(m->ops->save_pending(m, &p, &err));
	ck_assert_uint_eq(p.dirty, 3000000);
	ck_assert_uint_eq(p.stop_copy, 3000000);
	ck_assert_int_eq(m->ops->save_read(m, buf, 100, &err), 100);
	OK(m->ops->save_pending(m, &p, &err));
	/* With the heads that are in the 100 bytes. */
	ck_assert_uint_eq(p.dirty, 3000000 - 100 + 24);
	OK(m->ops->save_stop(m, &err));
	OK(read_all(m));
	OK(m->ops->save_pending(m, &p, &err));
	ck_assert(!p.dirty && !p.stop_copy && !p.initial);
	OK(m->ops->rollback(m, &err));
	device_migration_free(m);
}
END_TEST

START_TEST(migrations_follow_one_another)
{
	struct migratable *m = must_open("size=5000");

	OK(m->ops->rollback(m, &err)); /* of nothing */
	for (int i = 0; i < 5; i++) {
		stream_len = 0;
		OK(m->ops->save_begin(m, &err));
		OK(read_all(m));
		if (i > 1)
			OK(m->ops->save_stop(m, &err));
		if (i > 2)
			OK(read_all(m));
		if (i > 3)
			OK(m->ops->save_end(m, &err));
		OK(m->ops->rollback(m, &err));
	}
	stream_len = 0;
	OK(save(m));
	OK(load(m, 777));
	device_migration_free(m);
}
END_TEST

static const struct {
	const char *name, *arg, *says;
} unusable[] = {
	{ "bad-version.so", NULL, "it is a plugin of version 1, where 0 is needed" },
	{ "bad-symbol.so", NULL, "does not export vfio_lm_get_plugin_ops" },
	{ "bad-function.so", NULL, "it lacks one of its functions" },
	{ "bad-null.so", NULL, "vfio_lm_get_plugin_ops() returned NULL" },
	{ "bad-constructor.so", NULL, "its process ended in init() (it called exit(5))" },
	{ "bad.so", "crash:init", "its process ended in init() (signal 11, Segmentation fault)" },
	{ "bad.so", "exit:init", "its process ended in init() (it called exit(3))" },
	{ "bad.so", "fail:init", "its init() failed" },
	{ "bad.so", "nonsense:init", "its process answered init() with nonsense" },
	{ "bad.so", "flood:init", "its process answered init() with nonsense" },
	{ "missing.so", NULL, "No such file" },
	{ "example.so", "127.0.0.1:1", "its init() failed" },
};

START_TEST(unusable_plugins_are_refused_with_the_reason)
{
	ck_assert_ptr_null(open_plugin(unusable[_i].name, unusable[_i].arg, TIMEOUT_MS));
	ck_assert_int_lt(err.code, 0);
	says(BDF ": plugin ");
	says(unusable[_i].name);
	says(unusable[_i].says);
}
END_TEST

START_TEST(hanging_init_is_given_up)
{
	ck_assert_ptr_null(open_plugin("bad.so", "hang:init", SHORT_MS));
	ck_assert_int_eq(err.code, -ETIMEDOUT);
	says("init() has not returned for 300 ms");
}
END_TEST

START_TEST(file_that_is_no_plugin_is_refused)
{
	char path[2 * PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), "%s/text.%d.so", plugins, getpid());
	f = fopen(path, "w");
	fputs("no object\n", f);
	fclose(f);
	ck_assert_ptr_null(open_plugin(basename(path), NULL, TIMEOUT_MS));
	says("it cannot be loaded");
	unlink(path);
}
END_TEST

START_TEST(only_what_is_allowed_is_loaded)
{
	struct device_migration_options options = { .id = "dev0", .plugin_path = "/usr/lib/x.so" };
	char outside[2 * PATH_MAX], link[2 * PATH_MAX];

	/* Nothing is. */
	ck_assert_ptr_null(migration_plugin_new_for(BDF, TIMEOUT_MS, &options, &err));
	says("start ferry with --plugins");
	/* By way of an allowed folder; by a link in it. */
	options.plugin_host = host;
	snprintf(outside, sizeof(outside), "%s/../ferry-plugin", plugins);
	options.plugin_path = outside;
	ck_assert_ptr_null(migration_plugin_new_for(BDF, TIMEOUT_MS, &options, &err));
	ck_assert_int_eq(err.code, -EACCES);
	says("is not allowed");
	snprintf(link, sizeof(link), "%s/link.%d.so", plugins, getpid());
	ck_assert_int_eq(symlink("../ferry-plugin", link), 0);
	options.plugin_path = link;
	ck_assert_ptr_null(migration_plugin_new_for(BDF, TIMEOUT_MS, &options, &err));
	ck_assert_int_eq(err.code, -EACCES);
	unlink(link);
	/* One file and no other, not even one whose name begins like it. */
	plugin_host_free(host);
	host = new_host(plugin("bad.so"));
	device_migration_free(must_open(NULL));
	ck_assert_ptr_null(open_plugin("bad-null.so", NULL, TIMEOUT_MS));
	ck_assert_int_eq(err.code, -EACCES);
	/* What is allowed has to be there. */
	ck_assert_ptr_null(new_host("/nowhere/plugin.so"));
	says("/nowhere/plugin.so");
}
END_TEST

static const char *const functions[] = { "save", "load", "update_pending", "set_state",
					 "get_state" };
static const char *const ways[] = { "crash", "exit", "hang", "fail", "nonsense", "flood" };
static const char *const way_says[] = {
	"(signal 11, Segmentation fault)",
	"(it called exit(3))",
	"has not returned for 300 ms",
	"() returned -7",
	"with nonsense",
	"with nonsense",
};

/* Each function, in each way: the migration fails and says it. */
START_TEST(misbehaviour_in_a_function_fails_the_migration_and_names_it)
{
	const char *function = functions[(size_t)_i % ARRAY_SIZE(functions)];
	size_t way = (size_t)_i / ARRAY_SIZE(functions);
	bool loads = !strcmp(function, "load");
	struct migratable *m = must_open("size=100000");
	char arg[64];
	int r;

	if (loads)
		OK(save(m));
	device_migration_free(m);
	snprintf(arg, sizeof(arg), "%s:%s,size=100000", ways[way], function);
	m = open_plugin("bad.so", arg, way == 2 ? SHORT_MS : TIMEOUT_MS);
	ck_assert_msg(m != NULL, "%s", err.message);
	r = loads ? load(m, 5000) : save(m);
	ck_assert_int_lt(r, 0);
	ck_assert_int_eq(r, err.code);
	says("device dev0: plugin ");
	says(function);
	says(way_says[way]);
	/* What works still works: the device is set running by another process. */
	error_clear(&err);
	r = m->ops->rollback(m, &err);
	if (!strcmp(function, "set_state") || !strcmp(function, "get_state")) {
		/* get_state fails before the device was told anything. */
		ck_assert(!strcmp(function, "get_state") ? !r : r < 0);
		if (r)
			says("reset it");
	} else {
		ck_assert_msg(!r, "%s", err.message);
	}
	device_migration_free(m);
}
END_TEST

START_TEST(misbehaviour_in_cleanup_is_of_no_consequence)
{
	char arg[64];
	struct migratable *m;

	snprintf(arg, sizeof(arg), "%s:cleanup,size=1000", ways[_i]);
	m = open_plugin("bad.so", arg, _i == 2 ? SHORT_MS : TIMEOUT_MS);
	ck_assert_msg(m != NULL, "%s", err.message);
	OK(save(m));
	OK(m->ops->rollback(m, &err));
	device_migration_free(m);
}
END_TEST

START_TEST(pending_that_never_shrinks_ends)
{
	struct migratable *m = must_open("endless");

	OK(m->ops->save_begin(m, &err));
	OK(m->ops->save_stop(m, &err));
	ck_assert_int_eq(read_all(m), -EPROTO);
	says("still says 4096 bytes");
	OK(m->ops->rollback(m, &err));
	device_migration_free(m);
}
END_TEST

START_TEST(pending_beyond_reason_is_refused)
{
	struct migratable *m = must_open("huge");
	struct migratable_pending p;

	OK(m->ops->save_begin(m, &err));
	OK(m->ops->save_pending(m, &p, &err));
	ck_assert_uint_lt(p.stop_copy, 1ULL << 63);
	ck_assert_int_eq(read_all(m), -EPROTO);
	says("0x8000000000000000 bytes");
	device_migration_free(m);
}
END_TEST

START_TEST(states_that_are_none_are_refused)
{
	static const struct {
		const char *arg, *says;
	} states[] = {
		{ "state=6", "the device has failed" },
		{ "state=5", "0x5, which is no state" },
		{ "state=4294967295", "0xffffffff, which is no state" },
	};
	struct migratable *m = must_open(states[_i].arg);

	ck_assert_int_lt(m->ops->save_begin(m, &err), 0);
	says(states[_i].says);
	ck_assert_int_lt(m->ops->load_begin(m, &err), 0);
	OK(m->ops->rollback(m, &err));
	device_migration_free(m);
}
END_TEST

START_TEST(device_that_does_not_take_the_state_is_not_run)
{
	struct migratable *m = must_open("size=1000");

	OK(save(m));
	device_migration_free(m);
	m = must_open("size=1000,late");
	ck_assert_int_lt(load(m, 100), 0);
	says("set_state() returned -2");
	device_migration_free(m);
}
END_TEST

START_TEST(broken_streams_are_refused)
{
	struct migratable *m = must_open("size=3000");
	size_t full;

	OK(save(m));
	full = stream_len;
	/* Cut anywhere: too early; and what is cut is not run. */
	for (stream_len = 0; stream_len < full; stream_len += stream_len < 32 ? 1 : 331) {
		ck_assert_int_eq(load(m, 64), -EBADMSG);
		says("ends too early");
	}
	stream_len = full;
	for (size_t at = 0; at < 32; at++) { /* the heads, but for a word that is reserved */
		stream[at] ^= 0x80;
		if (at < 12 || (at >= 16 && at < 24)) {
			ck_assert_int_lt(load(m, 64), 0);
			says("device dev0");
		}
		stream[at] ^= 0x80;
	}
	/* Something behind its end. */
	stream[stream_len++] = 0;
	ck_assert_int_eq(load(m, 64), -EBADMSG);
	says("behind its end");
	device_migration_free(m);
}
END_TEST

START_TEST(plugin_is_confined)
{
	struct migratable *m = must_open("escape");
	struct migratable_pending p;

	OK(m->ops->save_begin(m, &err));
	OK(m->ops->save_pending(m, &p, &err));
	ck_assert_msg(!p.stop_copy, "ways out: 0x%llx", (unsigned long long)p.stop_copy);
	device_migration_free(m);
}
END_TEST

/* How many this process has; *first is one of them. */
static int children(pid_t *first)
{
	char path[64];
	int count = 0, pid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", getpid(), getpid());
	f = fopen(path, "r");
	while (f && fscanf(f, "%d", &pid) == 1) {
		*first = pid;
		count++;
	}
	if (f)
		fclose(f);
	return count;
}

START_TEST(ferry_plugin_that_is_killed_fails_the_migration_and_leaves_nothing)
{
	struct migratable *m = must_open("size=10");
	pid_t pid = 0;

	ck_assert_int_eq(children(&pid), 1); /* ferry-plugin; the plugin's is its child */
	OK(m->ops->save_begin(m, &err));
	kill(pid, SIGKILL);
	/* The plugin's process goes with it, soon: see PR_SET_PDEATHSIG. */
	for (int i = 0; i < 1000 && !m->ops->save_stop(m, &err); i++)
		usleep(10000);
	says("its process ended");
	error_clear(&err);
	ck_assert_int_lt(m->ops->rollback(m, &err), 0);
	says("does not answer");
	ck_assert_int_lt(m->ops->save_begin(m, &err), 0);
	device_migration_free(m);
	plugin_host_free(host);
	host = NULL;
	ck_assert_int_eq(children(&pid), 0);
}
END_TEST

/* Orphans become this process's children. */
START_TEST(processes_end_with_their_ferry)
{
	struct plugin_process process;
	int pair[2], ended = 0;
	pid_t ferry;
	char byte;

	plugin_host_free(host);
	host = NULL;
	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	ck_assert_int_eq(pipe(pair), 0);
	ferry = fork();
	if (!ferry) {
		host = new_host(plugins);
		if (!host || plugin_host_start(host, plugin("bad.so"), &process, &err) ||
		    write(pair[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	close(pair[1]);
	ck_assert_int_eq(read(pair[0], &byte, 1), 1);
	kill(ferry, SIGKILL);
	alarm(30);
	while (wait(NULL) > 0)
		ended++;
	alarm(0);
	ck_assert_int_ge(ended, 2); /* ferry, ferry-plugin; the third it may have reaped */
	close(pair[0]);
}
END_TEST

struct saver {
	pthread_t thread;
	struct migratable *m;
	struct error err;
	size_t bytes;
	int result;
};

static void *save_in_thread(void *opaque)
{
	struct saver *s = opaque;
	static __thread uint8_t buf[65536];
	ssize_t n = s->m->ops->save_begin(s->m, &s->err);

	for (int round = 0; round < 2 && !n; round++) {
		while ((n = s->m->ops->save_read(s->m, buf, sizeof(buf), &s->err)) > 0)
			s->bytes += (size_t)n;
		if (!n && !round)
			n = s->m->ops->save_stop(s->m, &s->err);
	}
	s->result = (int)n;
	return NULL;
}

START_TEST(several_devices_save_at_once_and_are_asked_how_far_they_are)
{
	struct saver savers[4] = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(savers); i++) {
		savers[i].m = must_open("size=2500000");
		pthread_create(&savers[i].thread, NULL, save_in_thread, &savers[i]);
	}
	for (int round = 0; round < 50; round++)
		for (size_t i = 0; i < ARRAY_SIZE(savers); i++) {
			struct migratable_pending p;

			/* Before its begin there is nothing to ask. */
			savers[i].m->ops->save_pending(savers[i].m, &p, NULL);
		}
	for (size_t i = 0; i < ARRAY_SIZE(savers); i++) {
		pthread_join(savers[i].thread, NULL);
		ck_assert_msg(!savers[i].result, "%s", savers[i].err.message);
		ck_assert_uint_gt(savers[i].bytes, 2500000);
		device_migration_free(savers[i].m);
	}
}
END_TEST

/* The example, with ferry-testdev as the card and its agent. */

struct card {
	pid_t pid;
	char address[64];
};

static void start_card(struct card *card, const char *option)
{
	char program[PATH_MAX + 32], line[128] = "";
	int out[2], pair[2];
	FILE *f;

	snprintf(program, sizeof(program), "%s/ferry-testdev", build);
	ck_assert_int_eq(pipe(out), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	card->pid = fork();
	if (!card->pid) {
		char fd[32];

		snprintf(fd, sizeof(fd), "--fd=%d", pair[0]);
		dup2(out[1], 1);
		close(pair[1]);
		execl(program, program, fd, "--migration=agent", "--agent=127.0.0.1:0", option,
		      NULL);
		_exit(127);
	}
	close(out[1]);
	close(pair[0]);
	f = fdopen(out[0], "r");
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), f));
	fclose(f);
	ck_assert_int_eq(sscanf(line, "ferry-testdev: agent at %63s", card->address), 1);
}

static void stop_card(struct card *card)
{
	kill(card->pid, SIGKILL);
	waitpid(card->pid, NULL, 0);
}

START_TEST(example_plugin_moves_a_device_by_its_agent)
{
	struct card a, b;
	struct migratable *m;

	start_card(&a, "--state-size=2M");
	start_card(&b, "--state-size=2M");
	m = open_plugin("example.so", a.address, TIMEOUT_MS);
	ck_assert_msg(m != NULL, "%s", err.message);
	OK(save(m));
	ck_assert_uint_gt(stream_len, 3 * MIB);
	OK(m->ops->rollback(m, &err));
	device_migration_free(m);
	m = open_plugin("example.so", b.address, TIMEOUT_MS);
	OK(load(m, 100000));
	device_migration_free(m);
	/* Its agent dies on the way. */
	m = open_plugin("example.so", a.address, TIMEOUT_MS);
	OK(m->ops->save_begin(m, &err));
	stop_card(&a);
	ck_assert_int_lt(read_all(m), 0);
	says("update_pending() returned -1");
	ck_assert_int_lt(m->ops->rollback(m, &err), 0);
	says("reset it");
	device_migration_free(m);
	stop_card(&b);
}
END_TEST

START_TEST(agent_that_refuses_is_an_error_that_says_so)
{
	struct card a;
	struct migratable *m;

	start_card(&a, "--misbehave=refuse-stop-copy");
	m = open_plugin("example.so", a.address, TIMEOUT_MS);
	ck_assert_msg(m != NULL, "%s", err.message);
	OK(m->ops->save_begin(m, &err));
	OK(read_all(m));
	ck_assert_int_lt(m->ops->save_stop(m, &err), 0);
	says("set_state() returned 5"); /* EIO */
	OK(m->ops->rollback(m, &err));
	device_migration_free(m);
	stop_card(&a);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("migration by plugin");
	TCase *tc = tcase_create("plugin");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, state_moves_in_any_pieces, 0, 4);
	tcase_add_test(tc, pending_says_what_is_left);
	tcase_add_test(tc, migrations_follow_one_another);
	tcase_add_loop_test(tc, unusable_plugins_are_refused_with_the_reason, 0,
			    ARRAY_SIZE(unusable));
	tcase_add_test(tc, hanging_init_is_given_up);
	tcase_add_test(tc, file_that_is_no_plugin_is_refused);
	tcase_add_test(tc, only_what_is_allowed_is_loaded);
	tcase_add_loop_test(tc, misbehaviour_in_a_function_fails_the_migration_and_names_it, 0,
			    ARRAY_SIZE(functions) * ARRAY_SIZE(ways));
	tcase_add_loop_test(tc, misbehaviour_in_cleanup_is_of_no_consequence, 0, ARRAY_SIZE(ways));
	tcase_add_test(tc, pending_that_never_shrinks_ends);
	tcase_add_test(tc, pending_beyond_reason_is_refused);
	tcase_add_loop_test(tc, states_that_are_none_are_refused, 0, 3);
	tcase_add_test(tc, device_that_does_not_take_the_state_is_not_run);
	tcase_add_test(tc, broken_streams_are_refused);
	tcase_add_test(tc, plugin_is_confined);
	tcase_add_test(tc, ferry_plugin_that_is_killed_fails_the_migration_and_leaves_nothing);
	tcase_add_test(tc, processes_end_with_their_ferry);
	tcase_add_test(tc, several_devices_save_at_once_and_are_asked_how_far_they_are);
	tcase_add_test(tc, example_plugin_moves_a_device_by_its_agent);
	tcase_add_test(tc, agent_that_refuses_is_an_error_that_says_so);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
