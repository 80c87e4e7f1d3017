/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's stream of a device's state: over pipes, and over a kernel with a script. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/helpers/run_suite.h"
#include "vfio/kernel_device.h"
#include "vfio/uapi_vfio.h"

static struct kernel_device dev;
static struct error err;
static int ends[2];

static void setup(void)
{
	dev = (struct kernel_device){ .kernel = &vfio_kernel_host };
	strcpy(dev.t.name, "0000:01:10.0");
	error_clear(&err);
	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
}

static void teardown(void)
{
	for (unsigned int i = 0; i < 2; i++)
		if (ends[i] >= 0)
			close(ends[i]);
}

START_TEST(a_stream_gives_what_there_is_pauses_and_ends)
{
	char data[8];

	ck_assert_int_eq(kernel_device_migration_read(&dev.t, ends[0], data, 8, 0, &err), -ENOMSG);
	ck_assert_int_eq(write(ends[1], "abc", 3), 3);
	ck_assert_int_eq(kernel_device_migration_read(&dev.t, ends[0], data, 8, 1000, &err), 3);
	ck_assert_mem_eq(data, "abc", 3);
	ck_assert_int_eq(kernel_device_migration_read(&dev.t, ends[0], data, 8, 1, &err), -ENOMSG);
	close(ends[1]);
	ends[1] = -1;
	ck_assert_int_eq(kernel_device_migration_read(&dev.t, ends[0], data, 8, 1000, &err), 0);
	kernel_device_migration_end(&dev.t, ends[0]);
	ck_assert_int_eq(fcntl(ends[0], F_GETFD), -1);
	ends[0] = -1;
	kernel_device_migration_end(&dev.t, -1); /* there was none */
}
END_TEST

static void *drain(void *opaque)
{
	size_t *total = opaque;
	char data[4096];
	ssize_t n;

	while ((n = read(ends[0], data, sizeof(data))) > 0)
		*total += (size_t)n;
	return NULL;
}

START_TEST(all_is_written_in_whatever_pieces)
{
	static const char data[1 << 20];
	size_t total = 0;
	pthread_t thread;

	ck_assert_int_eq(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0); /* so that it takes parts */
	pthread_create(&thread, NULL, drain, &total);
	ck_assert_int_eq(kernel_device_migration_write(&dev.t, ends[1], data, sizeof(data), &err),
			 0);
	close(ends[1]);
	ends[1] = -1;
	pthread_join(thread, NULL);
	ck_assert_uint_eq(total, sizeof(data));
}
END_TEST

/* A kernel that answers as told. */
struct script {
	int waits[4];
	ssize_t moves[4]; /* of read or write */
	unsigned int wait_count, move_count, ioctls;
	unsigned int waited_ms;
	short events;
};

static int script_wait(void *opaque, int fd, short events, unsigned int timeout_ms)
{
	struct script *s = opaque;

	s->waited_ms = timeout_ms;
	s->events = events;
	s->wait_count++;
	return s->waits[MIN(s->wait_count, 4U) - 1];
}

static ssize_t script_read(void *opaque, int fd, void *data, size_t len)
{
	struct script *s = opaque;

	s->move_count++;
	return s->moves[MIN(s->move_count, 4U) - 1];
}

static ssize_t script_write(void *opaque, int fd, const void *data, size_t len)
{
	return script_read(opaque, fd, NULL, len);
}

static int script_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	struct vfio_precopy_info *info = arg;
	struct script *s = opaque;

	if (request != VFIO_MIG_GET_PRECOPY_INFO || info->argsz != sizeof(*info) || fd != 5)
		return -EINVAL;
	s->ioctls++;
	info->initial_bytes = 7;
	info->dirty_bytes = 9;
	return s->waits[0];
}

static struct vfio_kernel scripted(struct script *s)
{
	return (struct vfio_kernel){
		.wait = script_wait,
		.read = script_read,
		.write = script_write,
		.ioctl = script_ioctl,
		.opaque = s,
	};
}

static ssize_t scripted_read(struct script s)
{
	struct vfio_kernel kernel = scripted(&s);
	char data[16];
	ssize_t n;

	dev.kernel = &kernel;
	n = kernel_device_migration_read(&dev.t, 5, data, sizeof(data), 1234, &err);
	ck_assert_uint_eq(s.waited_ms, 1234);
	ck_assert_int_eq(s.events, POLLIN);
	return n;
}

static int scripted_write(struct script s)
{
	struct vfio_kernel kernel = scripted(&s);

	dev.kernel = &kernel;
	return kernel_device_migration_write(&dev.t, 5, "0123456789", 10, &err);
}

START_TEST(reads_are_what_the_kernel_says)
{
	/* Signals; a pause, by either name; an end; a failure; nonsense. */
	ck_assert_int_eq(
		scripted_read((struct script){ .waits = { -EINTR, 1 }, .moves = { -EINTR, 3 } }),
		3);
	ck_assert_int_eq(scripted_read((struct script){ .waits = { 1 }, .moves = { -ENOMSG } }),
			 -ENOMSG);
	ck_assert_int_eq(scripted_read((struct script){ .waits = { 1 }, .moves = { -EAGAIN } }),
			 -ENOMSG);
	ck_assert_int_eq(scripted_read((struct script){ .waits = { 0 }, .moves = { 5 } }), -ENOMSG);
	ck_assert_int_eq(scripted_read((struct script){ .waits = { 1 }, .moves = { 0 } }), 0);
	ck_assert_int_eq(scripted_read((struct script){ .waits = { 1 }, .moves = { -ENODEV } }),
			 -ENODEV);
	ck_assert_ptr_nonnull(strstr(err.message, "0000:01:10.0: read migration data"));
	ck_assert_int_eq(scripted_read((struct script){ .waits = { -ENOMEM }, .moves = { 1 } }),
			 -ENOMEM);
	ck_assert_int_eq(scripted_read((struct script){ .waits = { 1 }, .moves = { 17 } }), -EIO);
}
END_TEST

START_TEST(writes_are_what_the_kernel_says)
{
	ck_assert_int_eq(scripted_write((struct script){ .waits = { 1, 1, 1, 1 },
							 .moves = { 4, -EINTR, -EAGAIN, 6 } }),
			 0);
	ck_assert_int_eq(
		scripted_write((struct script){ .waits = { 1, 1 }, .moves = { 4, -ENOSPC } }),
		-ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.message, "0000:01:10.0: write migration data"));
	ck_assert_int_eq(scripted_write((struct script){ .waits = { 1 }, .moves = { 0 } }), -EIO);
	ck_assert_int_eq(scripted_write((struct script){ .waits = { 1 }, .moves = { 11 } }), -EIO);
	ck_assert_int_eq(scripted_write((struct script){ .waits = { 0 }, .moves = { 10 } }),
			 -ETIMEDOUT);
}
END_TEST

START_TEST(precopy_info_is_asked_of_the_stream)
{
	struct script s = { .waits = { 0 } };
	struct vfio_kernel kernel = scripted(&s);
	struct vfio_precopy_info info;

	dev.kernel = &kernel;
	ck_assert_int_eq(kernel_device_migration_precopy_info(&dev.t, 5, &info, &err), 0);
	ck_assert_uint_eq(info.initial_bytes, 7);
	ck_assert_uint_eq(info.dirty_bytes, 9);
	s.waits[0] = -EINVAL;
	ck_assert_int_eq(kernel_device_migration_precopy_info(&dev.t, 5, &info, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "VFIO_MIG_GET_PRECOPY_INFO"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kernel_migration");
	TCase *tc = tcase_create("stream");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_stream_gives_what_there_is_pauses_and_ends);
	tcase_add_test(tc, all_is_written_in_whatever_pieces);
	tcase_add_test(tc, reads_are_what_the_kernel_says);
	tcase_add_test(tc, writes_are_what_the_kernel_says);
	tcase_add_test(tc, precopy_info_is_asked_of_the_stream);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
