/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_balloon.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "devices/virtio/virtio_simple.h"
#include "tests/unit/helpers/fake_driver.h"

#define RAM (8 * MIB)
#define RINGS 0x10000
#define DATA 0x100000
#define WAIT_MS 5000
#define FEATURES (VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC))
#define PACKED VIRTIO_FEATURE(VIRTIO_F_RING_PACKED)

enum { RX, TX };
enum { INFLATE, DEFLATE };

static struct device_host host;
static struct fake_transport transport;
static struct virtio_device *dev;
static uint16_t id;
static uint32_t len;

static void set_up(void)
{
	memset(&host, 0, sizeof(host));
	host.memory = fake_driver_memory(RAM);
}

static void tear_down(void)
{
	fake_transport_destroy(&transport);
	guest_memory_free(host.memory);
}

static void start(struct virtio_device *device, uint64_t features)
{
	ck_assert_ptr_nonnull(device);
	dev = device;
	fake_transport_attach(&transport, dev);
	fake_transport_activate(&transport, features | FEATURES, RINGS, 0);
}

static void add(unsigned int queue, uint64_t gpa, uint32_t bytes, bool writable)
{
	fake_driver_add(&transport.drivers[queue], &(struct fake_buffer){ gpa, bytes, writable },
			1);
	fake_transport_kick(&transport, queue);
}

static bool wait_used(unsigned int queue)
{
	return fake_transport_wait_used(&transport, queue, &id, &len, WAIT_MS);
}

static unsigned long long counter(const char *name)
{
	for (unsigned int i = 0; i < dev->counter_count; i++)
		if (!strcmp(dev->counters[i].name, name))
			return atomic_load(&dev->counters[i].value);
	ck_abort_msg("no counter %s", name);
}

/* Nothing happens for a while, and nothing is what it costs. */
static void assert_idle(void)
{
	struct timespec wait = { .tv_nsec = 200000000 }, before, after;
	int64_t ns;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	nanosleep(&wait, NULL);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	ns = (after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec - before.tv_nsec;
	ck_assert_msg(ns < 50000000, "%lld ns of CPU while idle", (long long)ns);
}

static bool all_zero(uint64_t gpa, size_t n)
{
	const char *p = guest_memory_ptr(host.memory, gpa, n);

	return !*p && !memcmp(p, p + 1, n - 1);
}

/* Entropy */

START_TEST(rng_fills_the_buffer_with_entropy)
{
	struct error err = ERROR_INIT;

	start(virtio_rng_new(&host, "rng0", NULL, &err), _i ? PACKED : 0);
	for (int i = 0; i < 200; i++) {
		guest_memory_zero(host.memory, DATA, 64);
		add(0, DATA, 64, true);
		ck_assert(wait_used(0));
		ck_assert_uint_eq(len, 64);
		ck_assert(!all_zero(DATA, 64));
	}
	ck_assert(fake_transport_wait_signal(&transport, 0, WAIT_MS));
	ck_assert_uint_eq(counter("bytes"), 200 * 64);
}
END_TEST

START_TEST(rng_reads_the_source_it_was_given)
{
	struct error err = ERROR_INIT;
	char text[8] = "";

	char path[] = "/tmp/test-rng-XXXXXX";
	int fd = mkstemp(path);

	ck_assert_int_eq(fd_write_full(fd, "entropy", 7), 0);
	close(fd);
	start(virtio_rng_new(&host, "rng0", path, &err), 0);
	unlink(path);
	add(0, DATA, 100, true);
	ck_assert(wait_used(0));
	ck_assert_uint_eq(len, 7);
	guest_memory_read(host.memory, DATA, text, 7);
	ck_assert_str_eq(text, "entropy");
	/* It has no more: the next request waits, and costs nothing. */
	add(0, DATA, 100, true);
	ck_assert(!fake_transport_wait_used(&transport, 0, &id, &len, 50));
	assert_idle();
}
END_TEST

START_TEST(rng_source_that_does_not_open_is_named)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(virtio_rng_new(&host, "rng0", "/nonexistent", &err));
	ck_assert(strstr(err.message, "/nonexistent") != NULL);
	ck_assert_int_eq(err.code, -ENOENT);
	ck_assert_ptr_null(virtio_rng_new(&host, "rng0", "/tmp", &err));
	ck_assert_int_eq(err.code, -EISDIR);
	start(virtio_rng_new(&host, "rng0", NULL, &err), 0);
}
END_TEST

START_TEST(rng_answers_a_request_of_a_megabyte_in_part)
{
	struct error err = ERROR_INIT;

	start(virtio_rng_new(&host, "rng0", "/dev/urandom", &err), 0);
	add(0, DATA, (uint32_t)MIB, true);
	ck_assert(wait_used(0));
	ck_assert_uint_eq(len, 64 * KIB);
	/* Nothing writable: nothing written, and no hang. */
	add(0, DATA, 16, false);
	ck_assert(wait_used(0));
	ck_assert_uint_eq(len, 0);
}
END_TEST

START_TEST(broken_ring_asks_for_a_reset_once)
{
	struct error err = ERROR_INIT;

	start(virtio_rng_new(&host, "rng0", NULL, &err), 0);
	add(0, RAM, 64, true);
	ck_assert(fake_transport_wait_reset_needed(&transport, WAIT_MS));
	fake_transport_kick(&transport, 0);
	fake_transport_kick(&transport, 0);
	ck_assert(!fake_transport_wait_used(&transport, 0, &id, &len, 20));
	ck_assert_uint_eq(atomic_load(&transport.resets_needed), 1);
}
END_TEST

START_TEST(paused_device_serves_on_after_resume)
{
	struct error err = ERROR_INIT;

	start(virtio_rng_new(&host, "rng0", NULL, &err), _i ? PACKED : 0);
	add(0, DATA, 64, true);
	ck_assert(wait_used(0));
	dev->ops->pause(dev);
	add(0, DATA, 64, true);
	eventfd_drain(dev->kick_fd[0]); /* the kick is lost: resume looks by itself */
	ck_assert(!fake_transport_wait_used(&transport, 0, &id, &len, 20));
	dev->ops->resume(dev);
	ck_assert(wait_used(0));
	/* Deactivated while paused. */
	dev->ops->pause(dev);
	dev->ops->deactivate(dev);
	dev->active = false;
}
END_TEST

/* Console */

START_TEST(console_output_reaches_the_reader)
{
	struct error err = ERROR_INIT;
	char text[32] = "";
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	start(virtio_console_new(&host, "con0", -1, fds[1], &err), _i ? PACKED : 0);
	guest_memory_write(host.memory, DATA, "hello ", 6);
	guest_memory_write(host.memory, DATA + 100, "world", 5);
	add(TX, DATA, 6, false);
	add(TX, DATA + 100, 5, false);
	ck_assert(wait_used(TX));
	ck_assert_uint_eq(len, 0);
	ck_assert(wait_used(TX));
	ck_assert_int_eq(fd_read_full(fds[0], text, 11), 0);
	ck_assert_str_eq(text, "hello world");
	ck_assert_uint_eq(counter("tx_bytes"), 11);
	/* The caller's end stays as it was. */
	ck_assert(!(fcntl(fds[1], F_GETFL) & O_NONBLOCK));
}
END_TEST

START_TEST(console_output_to_a_reader_that_never_reads_is_dropped)
{
	struct error err = ERROR_INIT;
	int fds[2];

	if (_i)
		ck_assert_int_eq(pipe(fds), 0);
	else
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	start(virtio_console_new(&host, "con0", -1, fds[1], &err), 0);
	for (int i = 0; i < 64; i++) {
		add(TX, DATA, 64 * KIB, false);
		ck_assert_msg(wait_used(TX), "the guest is blocked");
	}
	ck_assert_uint_gt(counter("tx_dropped_bytes"), 0);
	ck_assert_uint_eq(counter("tx_bytes"), 64 * 64 * KIB);
}
END_TEST

START_TEST(console_output_waits_for_a_slow_reader_within_its_bound)
{
	struct error err = ERROR_INIT;
	static char got[96 * 1024];
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	start(virtio_console_new(&host, "con0", -1, fds[1], &err), 0);
	for (uint32_t i = 0; i < sizeof(got); i++)
		got[i] = (char)(i % 251);
	guest_memory_write(host.memory, DATA, got, sizeof(got));
	memset(got, 0, sizeof(got));
	add(TX, DATA, sizeof(got), false); /* 64 KiB in the pipe, the rest waits */
	ck_assert(wait_used(TX));
	ck_assert_int_eq(fd_read_full(fds[0], got, sizeof(got)), 0);
	for (uint32_t i = 0; i < sizeof(got); i++)
		if (got[i] != (char)(i % 251))
			ck_abort_msg("byte %u differs", i);
	ck_assert_uint_eq(counter("tx_dropped_bytes"), 0);
}
END_TEST

START_TEST(console_survives_a_reader_that_goes_away)
{
	struct error err = ERROR_INIT;
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	start(virtio_console_new(&host, "con0", -1, fds[1], &err), 0);
	add(TX, DATA, 65536, false);
	ck_assert(wait_used(TX));
	add(TX, DATA, 4096, false);
	ck_assert(wait_used(TX));
	assert_idle();
	close(fds[0]);
	add(TX, DATA, 4096, false);
	ck_assert(wait_used(TX));
	ck_assert_uint_ge(counter("tx_dropped_bytes"), 4096);
	assert_idle();
}
END_TEST

START_TEST(console_input_waits_for_a_buffer_and_reaches_the_guest)
{
	struct error err = ERROR_INIT;
	char text[32] = "";
	int fds[2];

	if (_i & 2)
		ck_assert_int_eq(pipe(fds), 0);
	else
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	start(virtio_console_new(&host, "con0", fds[0], -1, &err), _i & 1 ? PACKED : 0);
	ck_assert_int_eq(fd_write_full(fds[1], "abcdef", 6), 0);
	add(RX, DATA, 4, true);
	ck_assert(wait_used(RX));
	ck_assert_uint_eq(len, 4);
	add(RX, DATA + 4, 16, true);
	ck_assert(wait_used(RX));
	ck_assert_uint_eq(len, 2);
	/* And the other order: the buffer waits. */
	add(RX, DATA + 6, 16, true);
	ck_assert(!fake_transport_wait_used(&transport, RX, &id, &len, 20));
	ck_assert_int_eq(fd_write_full(fds[1], "ghi", 3), 0);
	ck_assert(wait_used(RX));
	ck_assert_uint_eq(len, 3);
	guest_memory_read(host.memory, DATA, text, 9);
	ck_assert_str_eq(text, "abcdefghi");
	ck_assert(fake_transport_wait_signal(&transport, RX, WAIT_MS));
	/* The end of input is not an endless loop, nor the end of output. */
	add(RX, DATA, 16, true);
	close(fds[1]);
	ck_assert(!fake_transport_wait_used(&transport, RX, &id, &len, 20));
	assert_idle();
	add(TX, DATA, 16, false);
	ck_assert(wait_used(TX));
}
END_TEST

START_TEST(console_reads_a_file_and_writes_to_dev_null)
{
	struct error err = ERROR_INIT;
	char path[] = "/tmp/test-console-XXXXXX";
	int file = mkstemp(path), null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	unlink(path);
	ck_assert_int_eq(fd_write_full(file, "input", 5), 0);
	lseek(file, 0, SEEK_SET);
	start(virtio_console_new(&host, "con0", file, null, &err), 0);
	add(RX, DATA, 16, true);
	ck_assert(wait_used(RX));
	ck_assert_uint_eq(len, 5);
	add(RX, DATA, 16, true);
	ck_assert(!fake_transport_wait_used(&transport, RX, &id, &len, 20));
	add(TX, DATA, 16, false);
	ck_assert(wait_used(TX));
}
END_TEST

START_TEST(console_on_a_terminal_shows_its_size_and_its_changes)
{
	struct winsize size = { .ws_row = 25, .ws_col = 100 };
	struct error err = ERROR_INIT;
	uint8_t config[12];
	int master, slave;
	char c;

	ck_assert_int_eq(openpty(&master, &slave, NULL, NULL, &size), 0);
	start(virtio_console_new(&host, "con0", slave, slave, &err), VIRTIO_FEATURE(0));
	ck_assert(dev->device_features & VIRTIO_FEATURE(0));
	dev->ops->config_read(dev, 0, config, 12);
	ck_assert_uint_eq(load_le16(config), 100);
	ck_assert_uint_eq(load_le16(config + 2), 25);
	size.ws_row = 50;
	ioctl(master, TIOCSWINSZ, &size);
	virtio_console_resized(dev);
	ck_assert_uint_eq(atomic_load(&transport.config_changes), 1);
	dev->ops->config_read(dev, 2, config, 2);
	ck_assert_uint_eq(load_le16(config), 50);
	guest_memory_write(host.memory, DATA, "x", 1);
	add(TX, DATA, 1, false);
	ck_assert(wait_used(TX));
	ck_assert_int_eq(fd_read_full(master, &c, 1), 0);
	ck_assert_int_eq(c, 'x');
	ck_assert(!(fcntl(slave, F_GETFL) & O_NONBLOCK));
}
END_TEST

START_TEST(console_on_a_pty_nobody_has_open_works_when_somebody_comes)
{
	struct error err = ERROR_INIT;
	struct termios raw;
	int master, slave;
	char name[64];

	ck_assert_int_eq(openpty(&master, &slave, name, NULL, NULL), 0);
	tcgetattr(slave, &raw);
	cfmakeraw(&raw);
	tcsetattr(slave, TCSANOW, &raw);
	close(slave);
	start(virtio_console_new(&host, "con0", master, master, &err), 0);
	add(RX, DATA, 16, true);
	ck_assert(!fake_transport_wait_used(&transport, RX, &id, &len, 50));
	assert_idle();
	slave = open(name, O_RDWR | O_NOCTTY);
	ck_assert_int_eq(fd_write_full(slave, "hi", 2), 0);
	ck_assert(wait_used(RX));
	ck_assert_uint_eq(len, 2);
}
END_TEST

START_TEST(console_fd_is_blocking_again_after_free)
{
	struct error err = ERROR_INIT;
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	start(virtio_console_new(&host, "con0", fds[0], fds[0], &err), 0);
	ck_assert(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	fake_transport_destroy(&transport);
	ck_assert(!(fcntl(fds[0], F_GETFL) & O_NONBLOCK));
	start(virtio_console_new(&host, "con0", -1, -1, &err), 0);
	add(TX, DATA, 4, false);
	ck_assert(wait_used(TX));
}
END_TEST

/* Balloon */

static void fill_ram(uint64_t gpa, size_t n)
{
	memset(guest_memory_ptr(host.memory, gpa, n), 0xaa, n);
}

START_TEST(inflated_pages_go_back_to_the_host)
{
	/* Pages in any order; PFN 0x1000000 is no RAM and does no harm. */
	const uint32_t pfns[] = { 0x203, 0x201, 0x202, 0x210, 0x1000000, 0x201 };
	struct error err = ERROR_INIT;

	start(virtio_balloon_new(&host, "balloon0", 0, false, false, &err), _i ? PACKED : 0);
	fill_ram(0x200000, 0x20000);
	guest_memory_write(host.memory, DATA, pfns, sizeof(pfns));
	add(INFLATE, DATA, sizeof(pfns), false);
	ck_assert(wait_used(INFLATE));
	ck_assert_uint_eq(len, 0);
	ck_assert(!all_zero(0x200000, 4096));
	ck_assert(all_zero(0x201000, 3 * 4096));
	ck_assert(!all_zero(0x204000, 4096));
	ck_assert(all_zero(0x210000, 4096));
	ck_assert(!all_zero(0x211000, 4096));
	ck_assert_uint_eq(counter("inflated_bytes"), 4 * 4096);
	add(DEFLATE, DATA, 8, false);
	ck_assert(wait_used(DEFLATE));
	ck_assert_uint_eq(counter("deflated_bytes"), 2 * 4096);
}
END_TEST

START_TEST(inflating_more_than_a_batch_frees_all_of_it)
{
	struct error err = ERROR_INIT;
	uint32_t pfns[700];

	start(virtio_balloon_new(&host, "balloon0", 0, false, false, &err), 0);
	fill_ram(0x200000, 700 * 4096);
	for (uint32_t i = 0; i < 700; i++)
		pfns[i] = 0x200 + 699 - i;
	guest_memory_write(host.memory, DATA, pfns, sizeof(pfns));
	add(INFLATE, DATA, sizeof(pfns) + 3, false); /* a cut-off number is ignored */
	ck_assert(wait_used(INFLATE));
	ck_assert(all_zero(0x200000, 700 * 4096));
}
END_TEST

START_TEST(reported_free_pages_go_back_on_whichever_queue)
{
	struct error err = ERROR_INIT;
	struct fake_buffer buffers[] = {
		{ 0x200000, 0x3000, true },
		{ 0x210000, 0x1000, true },
		{ 0x220800, 0x1000, true },
	};

	start(virtio_balloon_new(&host, "balloon0", 0, true, true, &err),
	      VIRTIO_FEATURE(VIRTIO_BALLOON_F_REPORTING));
	ck_assert(dev->device_features & VIRTIO_FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM));
	ck_assert_uint_eq(dev->queue_count, 5);
	fill_ram(0x200000, 0x30000);
	fake_driver_add(&transport.drivers[_i], buffers, 3);
	fake_transport_kick(&transport, (unsigned int)_i);
	ck_assert(wait_used((unsigned int)_i));
	ck_assert(all_zero(0x200000, 0x3000));
	ck_assert(!all_zero(0x203000, 0x1000));
	ck_assert(all_zero(0x210000, 0x1000));
	ck_assert(!all_zero(0x220000, 0x2000)); /* no whole page */
}
END_TEST

START_TEST(balloon_config_shows_what_is_wanted_and_takes_what_is_given)
{
	struct error err = ERROR_INIT;
	uint8_t config[8], actual[4];

	start(virtio_balloon_new(&host, "balloon0", MIB, false, false, &err), 0);
	ck_assert_uint_eq(dev->queue_count, 2);
	dev->ops->config_read(dev, 0, config, 8);
	ck_assert_uint_eq(load_le32(config), 256);
	ck_assert_uint_eq(load_le32(config + 4), 0);
	store_le32(actual, 100);
	dev->ops->config_write(dev, 4, actual, 4);
	ck_assert_uint_eq(virtio_balloon_actual(dev), 100 * 4096);
	dev->ops->config_write(dev, 0, actual, 4); /* not the driver's */
	dev->ops->config_write(dev, 6, actual, 4); /* past the end */
	dev->ops->config_read(dev, 0, config, 8);
	ck_assert_uint_eq(load_le32(config), 256);
	ck_assert_uint_eq(load_le32(config + 4), 100);
	ck_assert_int_eq(virtio_balloon_resize(dev, 2 * MIB, &err), 0);
	ck_assert_uint_eq(atomic_load(&transport.config_changes), 1);
	dev->ops->config_read(dev, 0, config, 4);
	ck_assert_uint_eq(load_le32(config), 512);
	dev->ops->pause(dev);
	ck_assert_uint_eq(virtio_balloon_actual(dev), 100 * 4096);
	dev->ops->resume(dev);
	dev->ops->deactivate(dev);
	dev->active = false;
	ck_assert_uint_eq(virtio_balloon_actual(dev), 0);
}
END_TEST

START_TEST(balloon_of_odd_size_or_larger_than_ram_is_refused)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(virtio_balloon_new(&host, "balloon0", 4097, false, false, &err));
	ck_assert_int_eq(err.code, -EINVAL);
	ck_assert_ptr_null(virtio_balloon_new(&host, "balloon0", RAM + 4096, false, false, &err));
	ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
	ck_assert(strstr(err.message, "balloon0") != NULL);
	start(virtio_balloon_new(&host, "balloon0", RAM, false, false, &err), 0);
	ck_assert_int_eq(virtio_balloon_resize(dev, RAM + 4096, &err), -EINVAL);
	ck_assert_int_eq(virtio_balloon_resize(dev, 1, &err), -EINVAL);
	ck_assert_uint_eq(atomic_load(&transport.config_changes), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("virtio_simple");
	TCase *rng = tcase_create("rng"), *console = tcase_create("console");
	TCase *balloon = tcase_create("balloon");
	TCase *cases[] = { rng, console, balloon };

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		tcase_add_checked_fixture(cases[i], set_up, tear_down);
		tcase_set_timeout(cases[i], 60);
		suite_add_tcase(s, cases[i]);
	}
	tcase_add_loop_test(rng, rng_fills_the_buffer_with_entropy, 0, 2);
	tcase_add_test(rng, rng_reads_the_source_it_was_given);
	tcase_add_test(rng, rng_source_that_does_not_open_is_named);
	tcase_add_test(rng, rng_answers_a_request_of_a_megabyte_in_part);
	tcase_add_test(rng, broken_ring_asks_for_a_reset_once);
	tcase_add_loop_test(rng, paused_device_serves_on_after_resume, 0, 2);

	tcase_add_loop_test(console, console_output_reaches_the_reader, 0, 2);
	tcase_add_loop_test(console, console_output_to_a_reader_that_never_reads_is_dropped, 0, 2);
	tcase_add_test(console, console_output_waits_for_a_slow_reader_within_its_bound);
	tcase_add_test(console, console_survives_a_reader_that_goes_away);
	tcase_add_loop_test(console, console_input_waits_for_a_buffer_and_reaches_the_guest, 0, 4);
	tcase_add_test(console, console_reads_a_file_and_writes_to_dev_null);
	tcase_add_test(console, console_on_a_terminal_shows_its_size_and_its_changes);
	tcase_add_test(console, console_on_a_pty_nobody_has_open_works_when_somebody_comes);
	tcase_add_test(console, console_fd_is_blocking_again_after_free);

	tcase_add_loop_test(balloon, inflated_pages_go_back_to_the_host, 0, 2);
	tcase_add_test(balloon, inflating_more_than_a_batch_frees_all_of_it);
	tcase_add_loop_test(balloon, reported_free_pages_go_back_on_whichever_queue, 2, 5);
	tcase_add_test(balloon, balloon_config_shows_what_is_wanted_and_takes_what_is_given);
	tcase_add_test(balloon, balloon_of_odd_size_or_larger_than_ram_is_refused);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
