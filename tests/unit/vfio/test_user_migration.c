/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a vfio-user device, moved from one ferry-testdev to another (found beside
 * this program's folder): by features and by the migration region, with a DMA under way, and
 * whatever the servers do wrong.
 */
#include <check.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "memory/dirty_tracker.h"
#include "tests/testdev/testdev_regs.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vfio/user_bench.h"
#include "vfio/device_dirty.h"
#include "vfio/device_migration.h"
#include "vfio/uapi_vfio.h"

/* Sanitized, on a busy machine. */
#define TIMEOUT_MS 20000
/* Where the server is meant not to answer; it has answered other things before. */
#define SHORT_TIMEOUT_MS 3000
#define STREAM_MAX (8 * MIB)

struct side {
	struct bench b;
	pid_t server;
	bool dies; /* the server does not end well */
	struct vfio_region bar0;
	struct migratable *m;
};

static struct side source, destination;
static uint8_t *stream;
static size_t stream_len;
static struct error err;

static const char *testdev_path(void)
{
	static char path[PATH_MAX + 32];
	char self[PATH_MAX] = "";
	char *dir = self;

	ck_assert_int_gt(readlink("/proc/self/exe", self, sizeof(self) - 1), 0);
	for (int i = 0; i < 4; i++) /* O/tests/unit/vfio/test_user_migration */
		dir = dirname(dir);
	snprintf(path, sizeof(path), "%s/ferry-testdev", dir);
	return path;
}

/* A server with up to five options on one end of a socketpair; the other. */
static int start_server(struct side *side, const char *const *options)
{
	char fd_option[32];
	const char *argv[8] = { testdev_path(), fd_option };
	int pair[2], n = 2;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	for (; options && *options; options++)
		argv[n++] = *options;
	side->server = fork();
	if (!side->server) {
		int fd = dup(pair[1]); /* not close-on-exec */

		snprintf(fd_option, sizeof(fd_option), "--fd=%d", fd);
		execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	close(pair[1]);
	return pair[0];
}

static void open_side(struct side *side, unsigned int timeout_ms, const char *const *options)
{
	const struct device_migration_options migration = { .id = "dev0" };
	int fd;

	bench_init(&side->b);
	fd = start_server(side, options);
	side->b.t = vfio_transport_open_user_fd(&side->b.options, fd, timeout_ms, &err);
	ck_assert_msg(side->b.t != NULL, "%s", err.message);
	ck_assert_int_eq(side->b.t->ops->region_info(side->b.t, 0, &side->bar0, &err), 0);
	side->m = device_migration_new(side->b.t, &migration, &err);
	ck_assert_msg(side->m != NULL, "%s", err.message);
}

#define OPEN(side, ...) open_side(side, TIMEOUT_MS, (const char *const[]){ __VA_ARGS__, NULL })

static void close_side(struct side *side)
{
	int status;

	if (!side->server)
		return;
	device_migration_free(side->m);
	bench_done(&side->b);
	if (side->dies)
		kill(side->server, SIGKILL);
	ck_assert_int_eq(waitpid(side->server, &status, 0), side->server);
	ck_assert_msg(side->dies || (WIFEXITED(status) && !WEXITSTATUS(status)),
		      "server ended with %x", status);
	*side = (struct side){ .server = 0 };
}

static void setup(void)
{
	error_clear(&err);
	stream = malloc(STREAM_MAX);
	ck_assert_ptr_nonnull(stream);
}

static void teardown(void)
{
	/* Each counts descriptors from when it was opened. */
	close_side(&destination);
	close_side(&source);
	free(stream);
}

static uint32_t get(struct side *side, uint32_t reg)
{
	uint32_t value = 0;

	ck_assert_msg(!side->b.t->ops->region_read(side->b.t, &side->bar0, reg, &value, 4, &err),
		      "%s", err.message);
	return value;
}

static void put(struct side *side, uint32_t reg, uint32_t value)
{
	ck_assert_msg(!side->b.t->ops->region_write(side->b.t, &side->bar0, reg, &value, 4, &err),
		      "%s", err.message);
}

static int read_stream(struct migratable *m, bool to_the_end)
{
	/* While it runs it may change without end. */
	for (unsigned int i = 0; to_the_end || i < 8; i++) {
		size_t room = MIN(STREAM_MAX - stream_len, 100000UL);
		ssize_t n = m->ops->save_read(m, stream + stream_len, room, &err);

		if (n <= 0)
			return (int)n;
		stream_len += (size_t)n;
		if (stream_len == STREAM_MAX) /* begin again: it is an endless one */
			stream_len = 0;
	}
	return 0;
}

static int save(struct migratable *m)
{
	int r;

	stream_len = 0;
	r = m->ops->save_begin(m, &err);
	if (!r)
		r = read_stream(m, false);
	if (!r)
		r = m->ops->quiesce(m, &err);
	if (!r)
		r = m->ops->save_stop(m, &err);
	if (!r)
		r = read_stream(m, true);
	return r ? r : m->ops->save_end(m, &err);
}

static int load(struct migratable *m)
{
	int r = m->ops->load_begin(m, &err);

	for (size_t done = 0, n; !r && done < stream_len; done += n) {
		n = MIN(stream_len - done, 70000UL);
		r = m->ops->load_write(m, stream + done, n, &err);
	}
	if (!r)
		r = m->ops->load_end(m, &err);
	if (!r)
		r = m->ops->resume(m, &err);
	return r ? r : m->ops->run(m, &err);
}

static const struct {
	const char *option, *kind;
	bool precopy, p2p;
} ways[] = {
	{ "--migration=v2", "feature", true, true },
	{ "--migration=stop-copy", "feature", false, false },
	{ "--migration=stop-copy+p2p", "feature", false, true },
	{ "--migration=stop-copy+pre-copy", "feature", true, false },
	{ "--migration=region", "region", true, false },
	{ "--migration=region-mapped", "region", true, false },
	{ "--migration=region-sparse", "region", true, false },
};

START_TEST(a_device_moves_with_all_its_state)
{
	const char *const options[] = { ways[_i].option, "--state-size=3M", "--state-initial=1M",
					"--state-dirty=1M", NULL };
	uint32_t sum;

	open_side(&source, TIMEOUT_MS, options);
	open_side(&destination, TIMEOUT_MS, options);
	ck_assert_msg(!device_migration_refusal(source.m), "%s",
		      device_migration_refusal(source.m));
	ck_assert_str_eq(source.m->ops->kind, ways[_i].kind);
	ck_assert_int_eq(source.m->precopy, ways[_i].precopy);
	ck_assert_int_eq(source.m->p2p, ways[_i].p2p);
	put(&source, TESTDEV_SCRATCH, 0x600dcafe);
	put(&source, TESTDEV_STATE_TOUCH, 5);
	ck_assert_msg(!save(source.m), "%s", err.message);
	sum = get(&source, TESTDEV_STATE_SUM);
	ck_assert_msg(!load(destination.m), "%s", err.message);
	ck_assert_uint_eq(get(&destination, TESTDEV_SCRATCH), 0x600dcafe);
	ck_assert_uint_ge(get(&destination, TESTDEV_STATE_SUM), sum);
	ck_assert_uint_eq(get(&destination, TESTDEV_LOAD_COUNT), 1);
	/* The source is there to go on. */
	ck_assert_msg(!source.m->ops->rollback(source.m, &err), "%s", err.message);
	put(&source, TESTDEV_SCRATCH, 7);
	ck_assert_uint_eq(get(&source, TESTDEV_SCRATCH), 7);
}
END_TEST

/* A section of 16 KiB there, of 64 KiB here: packets come in pieces. */
START_TEST(a_smaller_section_takes_it_in_pieces)
{
	OPEN(&source, "--migration=region", "--state-size=300K");
	OPEN(&destination, "--migration=region", "--state-size=300K", "--region-data=16K");
	put(&source, TESTDEV_SCRATCH, 0x5eed);
	ck_assert_msg(!save(source.m), "%s", err.message);
	ck_assert_msg(!load(destination.m), "%s", err.message);
	ck_assert_uint_eq(get(&destination, TESTDEV_SCRATCH), 0x5eed);
}
END_TEST

/* A DMA that is under way goes on at the destination; what it wrote before is told. */
START_TEST(a_dma_under_way_goes_on_elsewhere)
{
	const char *const options[] = { ways[_i].option, "--dirty=log", "--dma-rate=1000000",
					NULL };
	struct dirty_tracker *tracker;
	struct dirty_source *dirty;
	struct dirty_round round;
	uint64_t at = 0x10000;
	uint8_t *from, *to;

	open_side(&source, TIMEOUT_MS, options);
	open_side(&destination, TIMEOUT_MS, options);
	tracker = dirty_tracker_new(source.b.memory, &err);
	dirty = device_dirty_source(source.b.t, source.b.memory, DEVICE_DIRTY_AUTO, &err);
	ck_assert_msg(dirty != NULL, "%s", err.message);
	ck_assert_str_eq(dirty->ops->name, "device-log");
	ck_assert_int_eq(dirty_tracker_add(tracker, dirty, DIRTY_ORDER_LAST, &err), 0);
	ck_assert_msg(!dirty_tracker_start(tracker, &err), "%s", err.message);
	put(&source, TESTDEV_DMA_SRC, 0xa5);
	put(&source, TESTDEV_DMA_SRC + 4, 0);
	put(&source, TESTDEV_DMA_DST, (uint32_t)at);
	put(&source, TESTDEV_DMA_DST + 4, 0);
	put(&source, TESTDEV_DMA_LEN, 100000);
	put(&source, TESTDEV_DMA_CTRL, TESTDEV_DMA_START | TESTDEV_DMA_FILL);
	ck_assert_msg(!save(source.m), "%s", err.message);
	ck_assert_msg(!dirty_tracker_collect_last(tracker, &round, &err), "%s", err.message);
	ck_assert_uint_eq(round.losses, 0);
	/* The pages that are dirty, and no others, are as the source left them. */
	from = guest_memory_ptr(source.b.memory, 0, BENCH_RAM / 2);
	to = guest_memory_ptr(destination.b.memory, 0, BENCH_RAM / 2);
	for (uint64_t page = 0; page < BENCH_RAM / 2 / 4096; page++)
		if (dirty_bitmap_test(dirty_tracker_bitmap(tracker, 0), page))
			memcpy(to + page * 4096, from + page * 4096, 4096);
	ck_assert_mem_eq(to, from, BENCH_RAM / 2);
	ck_assert_msg(!load(destination.m), "%s", err.message);
	while (get(&destination, TESTDEV_DMA_STATUS) == TESTDEV_DMA_BUSY)
		usleep(10000);
	ck_assert_uint_eq(get(&destination, TESTDEV_DMA_STATUS), TESTDEV_DMA_DONE);
	for (unsigned int i = 0; i < 100000; i++)
		ck_assert_uint_eq(to[at + i], 0xa5);
	dirty_tracker_free(tracker);
	dirty->ops->free(dirty);
}
END_TEST

/* The older way to log. */
START_TEST(an_older_server_logs_by_its_messages)
{
	struct dirty_tracker *tracker;
	struct dirty_source *dirty;
	struct dirty_round round;

	OPEN(&source, "--dirty=pages");
	tracker = dirty_tracker_new(source.b.memory, &err);
	dirty = device_dirty_source(source.b.t, source.b.memory, DEVICE_DIRTY_AUTO, &err);
	ck_assert_msg(dirty != NULL, "%s", err.message);
	ck_assert_str_eq(dirty->ops->name, "iommu");
	ck_assert_int_eq(dirty_tracker_add(tracker, dirty, DIRTY_ORDER_LAST, &err), 0);
	ck_assert_msg(!dirty_tracker_start(tracker, &err), "%s", err.message);
	put(&source, TESTDEV_DMA_DST, 0x3000);
	put(&source, TESTDEV_DMA_LEN, 5000);
	put(&source, TESTDEV_DMA_CTRL, TESTDEV_DMA_START | TESTDEV_DMA_FILL | TESTDEV_DMA_SYNC);
	ck_assert_msg(!dirty_tracker_collect_last(tracker, &round, &err), "%s", err.message);
	ck_assert_uint_eq(round.losses, 0);
	ck_assert_uint_eq(round.pages, 2);
	dirty_tracker_free(tracker);
	dirty->ops->free(dirty);
}
END_TEST

START_TEST(a_server_that_moves_nothing_is_refused)
{
	OPEN(&source, "--dirty=none");
	ck_assert_ptr_nonnull(device_migration_refusal(source.m));
	ck_assert_ptr_null(
		device_dirty_source(source.b.t, source.b.memory, DEVICE_DIRTY_AUTO, &err));
	ck_assert_ptr_nonnull(strstr(err.message, "its server does not log the pages"));
}
END_TEST

/* At which message of migration it goes wrong, and whether the server is there afterwards. */
static const struct {
	const char *way, *how;
	bool gone, in_error;
} wrongs[] = {
	{ "v2", "mig-error", false, false },
	{ "v2", "mig-die", true, false },
	{ "v2", "mig-die-in-reply", true, false },
	{ "v2", "mig-hang", true, false },
	{ "v2", "mig-long", true, false },
	{ "v2", "mig-lie", true, false },
	{ "v2", "refuse-pre-copy", false, false },
	{ "v2", "refuse-pre-copy-p2p", false, false },
	{ "v2", "refuse-stop-copy", false, false },
	{ "v2", "refuse-stop", false, false },
	{ "v2", "error-pre-copy", false, true },
	{ "v2", "error-stop-copy", false, true },
	{ "region", "mig-error", false, false },
	{ "region", "mig-die", true, false },
	{ "region", "mig-hang", true, false },
	{ "region", "mig-offset", false, false },
	{ "region", "mig-offset-head", false, false },
	{ "region", "refuse-pre-copy", false, false },
	{ "region", "refuse-stop-copy", false, false },
	{ "region", "error-stop-copy", false, true },
};

/* At the first message it does, the second ...: as far as the migration has any. A source
 * that is still there runs on. */
START_TEST(a_source_runs_on_whatever_its_server_does)
{
	char migration[32], misbehave[48];
	const char *const options[] = { migration, misbehave, "--state-size=200K", NULL };
	bool hangs = !strcmp(wrongs[_i].how, "mig-hang");
	unsigned int failed = 0;

	snprintf(migration, sizeof(migration), "--migration=%s", wrongs[_i].way);
	for (unsigned int at = 1; at < 30; at += hangs ? 12 : wrongs[_i].gone ? 5 : 1) {
		int r;

		snprintf(misbehave, sizeof(misbehave), "--misbehave=%s@%u", wrongs[_i].how, at);
		error_clear(&err);
		open_side(&source, hangs ? SHORT_TIMEOUT_MS : TIMEOUT_MS, options);
		source.dies = wrongs[_i].gone;
		if (device_migration_refusal(source.m)) { /* at once */
			close_side(&source);
			continue;
		}
		r = save(source.m);
		failed += r != 0;
		if (r) {
			ck_assert_int_eq(err.code, r);
			ck_assert_msg(strstr(err.message, "dev0") != NULL, "%s", err.message);
			error_clear(&err);
			r = source.m->ops->rollback(source.m, &err);
			if (wrongs[_i].gone)
				ck_assert_int_eq(r, -ECONNRESET);
			else if (wrongs[_i].in_error && r)
				ck_assert_ptr_nonnull(strstr(err.message, "reset"));
			if (!r) {
				put(&source, TESTDEV_SCRATCH, 0x77);
				ck_assert_uint_eq(get(&source, TESTDEV_SCRATCH), 0x77);
			}
		}
		close_side(&source);
	}
	ck_assert_uint_gt(failed, 0);
}
END_TEST

static const char *const streams[] = {
	"mig-magic", "mig-version", "mig-device", "mig-reordered", "mig-corrupt", "mig-truncated",
};

START_TEST(a_destination_refuses_what_is_no_state)
{
	char misbehave[48];
	const char *const bad[] = { ways[_i % 2 ? 4 : 0].option, misbehave, "--state-size=100K",
				    NULL };
	const char *const good[] = { ways[_i % 2 ? 4 : 0].option, "--state-size=100K", NULL };

	snprintf(misbehave, sizeof(misbehave), "--misbehave=%s", streams[_i / 2]);
	open_side(&source, TIMEOUT_MS, bad);
	open_side(&destination, TIMEOUT_MS, good);
	/* By the region, what is missing shows here already: there is some, but none comes. */
	ck_assert(save(source.m) < 0 || load(destination.m) < 0);
	ck_assert_msg(strstr(err.message, "dev0") != NULL, "%s", err.message);
	ck_assert_uint_eq(get(&destination, TESTDEV_LOAD_COUNT), 0);
	ck_assert_msg(!source.m->ops->rollback(source.m, &err), "%s", err.message);
}
END_TEST

START_TEST(a_state_without_an_end_ends_the_migration)
{
	OPEN(&source, ways[_i ? 4 : 0].option, "--misbehave=mig-endless");
	ck_assert_int_eq(save(source.m), -EPROTO);
	ck_assert_msg(!source.m->ops->rollback(source.m, &err), "%s", err.message);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vfio-user device migration");
	TCase *tc = tcase_create("testdev");

	signal(SIGPIPE, SIG_IGN);
	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_device_moves_with_all_its_state, 0, ARRAY_SIZE(ways));
	tcase_add_test(tc, a_smaller_section_takes_it_in_pieces);
	tcase_add_loop_test(tc, a_dma_under_way_goes_on_elsewhere, 0, ARRAY_SIZE(ways));
	tcase_add_test(tc, an_older_server_logs_by_its_messages);
	tcase_add_test(tc, a_server_that_moves_nothing_is_refused);
	tcase_add_loop_test(tc, a_source_runs_on_whatever_its_server_does, 0, ARRAY_SIZE(wrongs));
	tcase_add_loop_test(tc, a_destination_refuses_what_is_no_state, 0, 2 * ARRAY_SIZE(streams));
	tcase_add_loop_test(tc, a_state_without_an_end_ends_the_migration, 0, 2);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
