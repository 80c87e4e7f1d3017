/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "memory/userfault.h"
#include "tests/unit/helpers/run_suite.h"

#define PAGE 4096
#define SIZE (256 * (size_t)PAGE)

static uint8_t *map_ram(void)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);
	uint8_t *ram;

	ck_assert_int_eq(ftruncate(fd, SIZE), 0);
	ram = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(ram, MAP_FAILED);
	close(fd);
	return ram;
}

/* False on a host that does not allow it. */
static bool open_for(struct userfault *uf, uint8_t *ram, unsigned int mode)
{
	struct error err = ERROR_INIT;
	int r = userfault_open(uf, mode, -1, NULL, &err);

	if (r == -EOPNOTSUPP)
		return false;
	ck_assert_msg(r == 0, "%s", err.message);
	r = userfault_register(uf, ram, SIZE, mode, &err);
	ck_assert_msg(r == 0, "%s", err.message);
	return true;
}

static struct userfault_event next_event(const struct userfault *uf)
{
	struct pollfd p = { .fd = uf->fd, .events = POLLIN };
	struct userfault_event event;

	ck_assert_int_eq(poll(&p, 1, 10000), 1);
	ck_assert_int_eq(userfault_read(uf, &event, 1), 1);
	return event;
}

/* Another thread writes there, when the page allows it: ThreadSanitizer cannot know. */
static int value(const uint8_t *at)
{
	return __atomic_load_n(at, __ATOMIC_RELAXED);
}

struct touch {
	uint8_t *at;
	int value; /* < 0: read */
	atomic_int result;
	pthread_t thread;
};

static void *touch(void *opaque)
{
	struct touch *t = opaque;

	if (t->value >= 0)
		__atomic_store_n(t->at, (uint8_t)t->value, __ATOMIC_RELAXED);
	atomic_store(&t->result, __atomic_load_n(t->at, __ATOMIC_RELAXED));
	return NULL;
}

static void start_touch(struct touch *t, uint8_t *at, int value)
{
	t->at = at;
	t->value = value;
	atomic_store(&t->result, -1);
	ck_assert_int_eq(pthread_create(&t->thread, NULL, touch, t), 0);
}

START_TEST(touch_of_a_missing_page_waits_for_its_contents)
{
	uint8_t *ram = map_ram(), *page = malloc(PAGE);
	struct userfault_event event;
	struct userfault uf;
	struct touch t;

	memset(page, 0x5a, PAGE);
	if (open_for(&uf, ram, USERFAULT_MISSING)) {
		start_touch(&t, ram + 5 * PAGE + 17, -1);
		event = next_event(&uf);
		ck_assert_ptr_eq(event.address, ram + 5 * (size_t)PAGE);
		ck_assert(!event.protected);
		ck_assert_int_eq(atomic_load(&t.result), -1);
		ck_assert_int_eq(userfault_copy(&uf, event.address, page, PAGE, PAGE), 0);
		pthread_join(t.thread, NULL);
		ck_assert_int_eq(atomic_load(&t.result), 0x5a);
		ck_assert_int_eq(userfault_read(&uf, &event, 1), 0);
		userfault_close(&uf);
	}
	free(page);
	munmap(ram, SIZE);
}
END_TEST

START_TEST(pages_that_are_there_are_passed_over)
{
	uint8_t *ram = map_ram(), *pages = malloc(8 * (size_t)PAGE);
	struct userfault uf;

	memset(pages, 1, 8 * (size_t)PAGE);
	ram[2 * PAGE] = 2;
	ram[6 * PAGE] = 6;
	if (open_for(&uf, ram, USERFAULT_MISSING)) {
		ck_assert_int_eq(userfault_copy(&uf, ram, pages, 8 * PAGE, PAGE), 0);
		for (size_t i = 0; i < 8; i++)
			ck_assert_uint_eq(ram[i * PAGE], i == 2 ? 2 : i == 6 ? 6 : 1);
		ck_assert_int_eq(userfault_zero(&uf, ram + 4 * (size_t)PAGE, 8 * PAGE, PAGE), 0);
		ck_assert_uint_eq(ram[7 * PAGE], 1);
		ck_assert_uint_eq(ram[11 * PAGE], 0);
		userfault_close(&uf);
	}
	free(pages);
	munmap(ram, SIZE);
}
END_TEST

START_TEST(write_to_a_protected_page_waits)
{
	uint8_t *ram = map_ram();
	struct userfault_event event;
	struct userfault uf;
	struct touch t;

	memset(ram, 3, SIZE / 2);
	/* _i: a page that is there, or one that never was */
	if (open_for(&uf, ram, USERFAULT_WRITE_PROTECT)) {
		uint8_t *at = ram + (_i ? 200 : 9) * (size_t)PAGE;
		int before = _i ? 0 : 3;

		ck_assert_int_eq(userfault_protect(&uf, ram, SIZE), 0);
		ck_assert_int_eq(value(at), before); /* reading is free */
		start_touch(&t, at, 8);
		event = next_event(&uf);
		ck_assert_ptr_eq(event.address, at);
		ck_assert(event.protected);
		ck_assert_int_eq(value(at), before);
		ck_assert_int_eq(userfault_unprotect(&uf, event.address, PAGE), 0);
		pthread_join(t.thread, NULL);
		ck_assert_int_eq(value(at), 8);
		userfault_close(&uf);
	}
	munmap(ram, SIZE);
}
END_TEST

struct reading {
	int fd;
	uint8_t *to;
	long result;
};

static void *read_into_ram(void *opaque)
{
	struct reading *r = opaque;

	r->result = syscall(SYS_read, r->fd, r->to, 1);
	return NULL;
}

START_TEST(system_calls_that_write_to_ram_wait_too)
{
	uint8_t *ram = map_ram();
	struct userfault_event event;
	struct userfault uf;
	pthread_t thread;
	int pipes[2];

	ck_assert_int_eq(pipe(pipes), 0);
	ck_assert_int_eq(write(pipes[1], "x", 1), 1);
	memset(ram, 3, SIZE);
	if (open_for(&uf, ram, USERFAULT_WRITE_PROTECT)) {
		struct reading reading = { .fd = pipes[0], .to = ram + PAGE };

		ck_assert_int_eq(userfault_protect(&uf, ram, SIZE), 0);
		pthread_create(&thread, NULL, read_into_ram, &reading);
		event = next_event(&uf);
		ck_assert_ptr_eq(event.address, ram + PAGE);
		ck_assert_int_eq(value(ram + PAGE), 3);
		ck_assert_int_eq(userfault_unprotect(&uf, event.address, PAGE), 0);
		pthread_join(thread, NULL);
		ck_assert_int_eq(reading.result, 1);
		ck_assert_uint_eq(ram[PAGE], 'x');
		userfault_close(&uf);
	}
	close(pipes[0]);
	close(pipes[1]);
	munmap(ram, SIZE);
}
END_TEST

START_TEST(unregistering_lets_everybody_through)
{
	uint8_t *ram = map_ram();
	struct userfault uf;
	struct touch t[4];

	memset(ram, 3, SIZE);
	if (open_for(&uf, ram, USERFAULT_WRITE_PROTECT)) {
		ck_assert_int_eq(userfault_protect(&uf, ram, SIZE), 0);
		for (size_t i = 0; i < 4; i++)
			start_touch(&t[i], ram + i * 50 * PAGE, (int)i);
		for (size_t i = 0; i < 4; i++)
			next_event(&uf);
		userfault_unregister(&uf, ram, SIZE);
		for (size_t i = 0; i < 4; i++) {
			pthread_join(t[i].thread, NULL);
			ck_assert_int_eq(atomic_load(&t[i].result), (int)i);
		}
		/* Forgotten, not only let through. */
		memset(ram, 7, SIZE);
		ck_assert_int_eq(userfault_protect(&uf, ram, SIZE), -ENOENT);
		userfault_close(&uf);
	}
	munmap(ram, SIZE);
}
END_TEST

static sigjmp_buf jump;

static void on_sigbus(int signal)
{
	siglongjmp(jump, 1);
}

START_TEST(poisoned_page_cannot_be_read)
{
	uint8_t *ram = map_ram();
	struct userfault uf;
	volatile uint8_t *page = ram + 3 * (size_t)PAGE;

	if (open_for(&uf, ram, USERFAULT_MISSING)) {
		if (uf.poison) {
			signal(SIGBUS, on_sigbus);
			ck_assert_int_eq(userfault_poison(&uf, ram + 3 * (size_t)PAGE, PAGE), 0);
			if (!sigsetjmp(jump, 1)) {
				(void)*page;
				ck_abort_msg("it could be read");
			}
		} else {
			ck_assert_int_eq(userfault_poison(&uf, ram, PAGE), -EOPNOTSUPP);
		}
		userfault_close(&uf);
	}
	munmap(ram, SIZE);
}
END_TEST

START_TEST(device_that_is_handed_in_is_used)
{
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	struct error err = ERROR_INIT;
	struct userfault uf;

	if (device < 0)
		return;
	ck_assert_msg(!userfault_open(&uf, USERFAULT_WRITE_PROTECT, device, NULL, &err), "%s",
		      err.message);
	userfault_close(&uf);
	userfault_close(&uf);
	close(device);
}
END_TEST

START_TEST(without_privilege_it_is_said_what_would_help)
{
	struct error err = ERROR_INIT;
	struct userfault uf;
	int r;

	if (setgid(65534) || setuid(65534))
		return;
	r = userfault_open(&uf, USERFAULT_MISSING, -1, NULL, &err);
	if (!r) {
		userfault_close(&uf); /* the host allows it to all */
		return;
	}
	ck_assert_int_eq(r, -EOPNOTSUPP);
	ck_assert_int_eq(uf.fd, -1);
	ck_assert_ptr_nonnull(strstr(err.message, "vm.unprivileged_userfaultfd"));
}
END_TEST

START_TEST(memory_of_another_kind_is_refused)
{
	char path[] = "/var/tmp/ferry-userfault-XXXXXX";
	int fd = mkstemp(path);
	struct error err = ERROR_INIT;
	struct userfault uf;
	void *map;

	ck_assert_int_ge(fd, 0);
	unlink(path);
	ck_assert_int_eq(ftruncate(fd, SIZE), 0);
	map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ck_assert_ptr_ne(map, MAP_FAILED);
	if (!userfault_open(&uf, USERFAULT_WRITE_PROTECT, -1, NULL, &err)) {
		ck_assert_int_lt(userfault_register(&uf, map, SIZE, USERFAULT_WRITE_PROTECT, &err),
				 0);
		userfault_close(&uf);
	}
	munmap(map, SIZE);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("userfault");
	TCase *tc = tcase_create("userfault");

	tcase_add_test(tc, touch_of_a_missing_page_waits_for_its_contents);
	tcase_add_test(tc, pages_that_are_there_are_passed_over);
	tcase_add_loop_test(tc, write_to_a_protected_page_waits, 0, 2);
	tcase_add_test(tc, system_calls_that_write_to_ram_wait_too);
	tcase_add_test(tc, unregistering_lets_everybody_through);
	tcase_add_test(tc, poisoned_page_cannot_be_read);
	tcase_add_test(tc, device_that_is_handed_in_is_used);
	tcase_add_test(tc, without_privilege_it_is_said_what_would_help);
	tcase_add_test(tc, memory_of_another_kind_is_refused);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
