/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of a disk's queue: made in one thread, used by another, and good for nothing but
 * the disk's file. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/virtio/virtio_blk_private.h"
#include "tests/unit/helpers/run_suite.h"

static struct blk_queue q;
static struct virtio_blk blk;
static struct virtqueue vq;
static bool have_ring;

static void setup(void)
{
	char path[] = "/tmp/ferry-ring-XXXXXX";

	memset(&blk, 0, sizeof(blk));
	blk.file.fd = mkstemp(path);
	ck_assert_int_ge(blk.file.fd, 0);
	unlink(path);
	ck_assert_int_eq(write(blk.file.fd, "content!", 8), 8);
	vq.size = 16;
	q = (struct blk_queue){ .blk = &blk, .vq = &vq };
	have_ring = !blk_ring_new(&q);
}

static void teardown(void)
{
	blk_ring_free(&q);
	blk_ring_free(&q);
	close(blk.file.fd);
}

/* What the kernel says to one request. */
static int result_of(void (*prepare)(struct io_uring_sqe *sqe))
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&q.ring);
	struct io_uring_cqe *cqe;
	int result;

	ck_assert_ptr_nonnull(sqe);
	prepare(sqe);
	ck_assert_int_eq(io_uring_submit(&q.ring), 1);
	ck_assert_int_eq(io_uring_wait_cqe(&q.ring, &cqe), 0);
	result = cqe->res;
	io_uring_cqe_seen(&q.ring, cqe);
	return result;
}

static char buffer[8];

static void read_the_disk(struct io_uring_sqe *sqe)
{
	io_uring_prep_read(sqe, 0, buffer, sizeof(buffer), 0);
	sqe->flags |= IOSQE_FIXED_FILE;
}

static void read_a_descriptor(struct io_uring_sqe *sqe)
{
	io_uring_prep_read(sqe, blk.file.fd, buffer, sizeof(buffer), 0);
}

static void open_a_file(struct io_uring_sqe *sqe)
{
	io_uring_prep_openat(sqe, AT_FDCWD, "/dev/null", O_RDONLY, 0);
}

static void make_a_socket(struct io_uring_sqe *sqe)
{
	io_uring_prep_rw(IORING_OP_CONNECT, sqe, 0, NULL, 0, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
}

static void close_a_descriptor(struct io_uring_sqe *sqe)
{
	io_uring_prep_close(sqe, 0);
}

static void use(void)
{
	ck_assert_int_eq(blk_ring_start(&q), 0);
	ck_assert_int_eq(result_of(read_the_disk), 8);
	ck_assert_mem_eq(buffer, "content!", 8);
	ck_assert_int_eq(result_of(read_a_descriptor), -EACCES);
	ck_assert_int_eq(result_of(open_a_file), -EACCES);
	ck_assert_int_eq(result_of(make_a_socket), -EACCES);
	ck_assert_int_eq(result_of(close_a_descriptor), -EACCES);
	ck_assert_int_eq(result_of(read_the_disk), 8);
}

static void *use_in_thread(void *arg)
{
	use();
	ck_assert_int_lt(io_uring_register_files(&q.ring, &blk.file.fd, 1), 0);
	blk_ring_stop(&q);
	return arg;
}

START_TEST(a_ring_reaches_the_disks_file_and_nothing_else)
{
	if (have_ring)
		use();
	blk_ring_stop(&q);
}
END_TEST

START_TEST(a_ring_made_by_one_thread_is_started_and_used_by_another)
{
	pthread_t thread;

	if (!have_ring)
		return;
	ck_assert_int_eq(pthread_create(&thread, NULL, use_in_thread, NULL), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

START_TEST(a_ring_that_was_not_started_takes_nothing_and_is_freed)
{
	struct io_uring_sqe *sqe;

	if (!have_ring)
		return;
	sqe = io_uring_get_sqe(&q.ring);
	read_the_disk(sqe);
	ck_assert_int_eq(io_uring_submit(&q.ring), -EBADFD);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("blk_ring");
	TCase *tcase = tcase_create("ring");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_ring_reaches_the_disks_file_and_nothing_else);
	tcase_add_test(tcase, a_ring_made_by_one_thread_is_started_and_used_by_another);
	tcase_add_test(tcase, a_ring_that_was_not_started_takes_nothing_and_is_freed);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
