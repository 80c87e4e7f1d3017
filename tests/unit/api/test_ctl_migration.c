/* SPDX-License-Identifier: Apache-2.0 */
/* ferryctl's commands that take long, against the API's server over a fake VM. */
#include <pthread.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "tests/unit/api/server_fixture.h"
#include "tests/unit/helpers/ctl_fake.h"
#include "tests/unit/helpers/run_suite.h"

extern char **environ;

static void start(void)
{
	fixture_start();
	setenv("FERRY_API_SOCKET", fx.path, 1);
}

static const struct {
	const char *words, *last;
} moves[] = {
	{ "snapshot|file:///s,compress=zstd,base_url=file:///b", "file:///s" },
	{ "send-migration|unix:/d,local=on,timeout_strategy=ignore", "unix:/d" },
	{ "send-migration|destination_url=tcp:h:1,connections=4,bandwidth=1G", "tcp:h:1" },
	{ "receive-migration|tcp:[::]:1,mac=[n0@02:00:00:00:00:01]|--serial|null", "tcp:[::]:1" },
};

START_TEST(when_it_is_over_one_line_says_what_it_came_to)
{
	for (size_t i = 0; i < ARRAY_SIZE(moves); i++) {
		struct ctl_outcome o = ctl_run(moves[i].words);

		ck_assert_msg(o.status == CTL_OK, "%s: %s", moves[i].words, o.err);
		ck_assert_str_eq(fake_last(&fx.vm), moves[i].last);
		ck_assert_str_eq(o.err, "");
		ck_assert_str_eq(o.out, "migrated in 2.0 s: 200 MiB sent in 3 rounds, 100 MiB/s, "
					"downtime 8.2 ms (memory 5.0 ms)\n");
		ctl_outcome_free(&o);
	}
}
END_TEST

START_TEST(with_json_it_is_the_progress_itself)
{
	struct ctl_outcome o = ctl_run("--json|send-migration|unix:/d");
	json_t *json = json_loads(o.out, 0, NULL);

	ck_assert_msg(json != NULL, "%s", o.out);
	ck_assert_str_eq(json_string_value(json_object_get(json, "phase")), "completed");
	json_decref(json);
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(refusal_is_reported_and_nothing_else_printed)
{
	struct ctl_outcome o;

	atomic_store(&fx.vm.failure, (int)ERROR_WRONG_STATE);
	o = ctl_run("send-migration|unix:/d");
	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_str_eq(o.err, "ferryctl: send-migration: unix:/d: fake failure\n");
	ck_assert_str_eq(o.out, "");
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(no_wait_returns_when_it_goes_on)
{
	struct ctl_outcome o;

	atomic_store(&fx.vm.gated, true);
	o = ctl_run("send-migration|unix:/d|--no-wait");
	ck_assert_msg(o.status == CTL_OK, "%s", o.err);
	ck_assert_str_eq(o.out, "");
	ck_assert(atomic_load(&fx.vm.moving));
	ctl_outcome_free(&o);
	o = ctl_run("migration");
	ck_assert_str_eq(o.out, "State        send: precopy, round 3\n"
				"RAM          1.0 GiB, 512 MiB to go\n"
				"Transferred  200 MiB, 51200 pages, 0 zero pages in 2.0 s\n"
				"Rate         100 MiB/s\n"
				"Dirty rate   10.0 MiB/s\n"
				"Downtime     5.0 ms expected\n"
				"Connection 0 4.0 KiB, 0 bytes/s\n");
	ctl_outcome_free(&o);
	o = ctl_run("pause");
	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_msg(strstr(o.err, "the VM is being migrated away") != NULL, "%s", o.err);
	ctl_outcome_free(&o);
	o = ctl_run("cancel-migration");
	ck_assert_int_eq(o.status, CTL_OK);
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(no_wait_reports_what_is_refused_at_once)
{
	struct ctl_outcome o;

	atomic_store(&fx.vm.failure, (int)ERROR_NOT_FOUND);
	o = ctl_run("send-migration|unix:/d|--no-wait");
	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_msg(strstr(o.err, "fake failure") != NULL, "%s", o.err);
	ctl_outcome_free(&o);
}
END_TEST

static void *open_gate_soon(void *opaque)
{
	usleep(700000);
	sem_post(&fx.vm.gate);
	return NULL;
}

START_TEST(watch_goes_on_until_it_is_over_and_fails_where_it_failed)
{
	struct ctl_outcome o;
	pthread_t thread;

	atomic_store(&fx.vm.gated, true);
	o = ctl_run("send-migration|unix:/d|--no-wait");
	ctl_outcome_free(&o);
	atomic_store(&fx.vm.over, VM_MIGRATION_PHASE_FAILED);
	pthread_create(&thread, NULL, open_gate_soon, NULL);
	o = ctl_run("migration|--watch");
	pthread_join(thread, NULL);
	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert(!atomic_load(&fx.vm.moving));
	ck_assert_ptr_nonnull(strstr(o.out, "State        send: failed"));
	ctl_outcome_free(&o);
	atomic_store(&fx.vm.over, VM_MIGRATION_PHASE_COMPLETED);
	o = ctl_run("migration|--watch");
	ck_assert_int_eq(o.status, CTL_OK);
	ck_assert_ptr_nonnull(strstr(o.out, "Downtime     8.2 ms (memory 5.0 ms)\n"));
	ctl_outcome_free(&o);
}
END_TEST

/* --- on a terminal -------------------------------------------------------------------- */

static void program_path(char *path, size_t len)
{
	ssize_t n = readlink("/proc/self/exe", path, len - 16);

	ck_assert_int_gt(n, 0);
	path[n] = '\0';
	for (int up = 0; up < 4; up++)
		*strrchr(path, '/') = '\0';
	strcat(path, "/ferryctl");
}

/* Adds what is there to read, waiting for the first of it. */
static size_t read_terminal(int master, char *text, size_t used, size_t len)
{
	struct pollfd ready = { .fd = master, .events = POLLIN };
	ssize_t n = 0;

	if (poll(&ready, 1, ANSWER_MS) == 1)
		n = read(master, text + used, len - 1 - used);
	ck_assert_msg(n > 0, "nothing more after: %s", text);
	text[used + (size_t)n] = '\0';
	return used + (size_t)n;
}

/* What ferryctl writes to a terminal of that width while a migration goes on, which
 * it does until the bar is there. */
static void run_on_terminal(unsigned short columns, char *text, size_t len)
{
	char *argv[] = { (char *)"ferryctl", (char *)"send-migration", (char *)"unix:/d", NULL };
	struct winsize size = { .ws_row = 24, .ws_col = columns };
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave, status;
	posix_spawn_file_actions_t actions;
	char program[4096];
	size_t used = 0;
	ssize_t n;
	pid_t pid;

	ck_assert_int_ge(master, 0);
	grantpt(master);
	unlockpt(master);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	ck_assert_int_eq(ioctl(slave, TIOCSWINSZ, &size), 0);
	program_path(program, sizeof(program));
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, slave, STDERR_FILENO);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	atomic_store(&fx.vm.gated, true);
	ck_assert_int_eq(posix_spawn(&pid, program, &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	for (text[0] = '\0'; !strstr(text, "50%");)
		used = read_terminal(master, text, used, len);
	sem_post(&fx.vm.gate);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	fcntl(master, F_SETFL, O_NONBLOCK);
	while (used < len - 1 && (n = read(master, text + used, len - 1 - used)) > 0)
		used += (size_t)n;
	text[used] = '\0';
	close(slave);
	close(master);
}

START_TEST(terminal_gets_a_bar_that_is_drawn_over_and_wiped)
{
	static const char bar[] = "\r[###############---------------]  50% precopy 3, 100 MiB/s, "
				  "dirty 10.0 MiB/s, downtime 5.0 ms\033[K";
	char text[8192];

	run_on_terminal(120, text, sizeof(text));
	ck_assert_msg(!strncmp(text, bar, strlen(bar)), "%s", text);
	ck_assert_msg(!strcmp(text + strlen(text) - 4, "\r\033[K"), "%s", text);
	ck_assert_ptr_null(strchr(text, '\n'));
}
END_TEST

START_TEST(bar_never_wraps)
{
	static const unsigned short widths[] = { 10, 40, 70 };
	char text[8192];

	for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
		run_on_terminal(widths[i], text, sizeof(text));
		ck_assert_ptr_nonnull(strstr(text, "50%"));
		for (char *line = strtok(text, "\r"); line; line = strtok(NULL, "\r"))
			ck_assert_msg(strcspn(line, "\033") < widths[i], "%u: %s", widths[i], line);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ctl, migration");
	TCase *tc = tcase_create("ctl, migration");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, start, fixture_stop);
	tcase_add_test(tc, when_it_is_over_one_line_says_what_it_came_to);
	tcase_add_test(tc, with_json_it_is_the_progress_itself);
	tcase_add_test(tc, refusal_is_reported_and_nothing_else_printed);
	tcase_add_test(tc, no_wait_returns_when_it_goes_on);
	tcase_add_test(tc, no_wait_reports_what_is_refused_at_once);
	tcase_add_test(tc, watch_goes_on_until_it_is_over_and_fails_where_it_failed);
	tcase_add_test(tc, terminal_gets_a_bar_that_is_drawn_over_and_wiped);
	tcase_add_test(tc, bar_never_wraps);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
