/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/bytes.h"
#include "memory/guest_memory.h"

/* RAM [0, LOW) and [HIGH, HIGH + SIZE - LOW): a hole in between. */
#define SIZE (8 * MIB)
#define LOW (6 * MIB)
#define HIGH (4 * GIB)

static struct guest_memory *make(uint64_t size)
{
	struct guest_memory_options options = { .size = size, .low_end = LOW, .high_start = HIGH };
	struct error err = ERROR_INIT;
	struct guest_memory *memory = guest_memory_new(&options, &err);

	ck_assert_msg(memory != NULL, "%s", err.message);
	return memory;
}

static int memfd_of(uint64_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void refused(struct guest_memory_options options, int code, const char *text)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(guest_memory_new(&options, &err));
	ck_assert_int_eq(err.code, code);
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' lacks '%s'", err.message, text);
}

START_TEST(ram_below_the_hole_is_one_region)
{
	struct guest_memory *m = make(LOW);

	ck_assert_uint_eq(guest_memory_region_count(m), 1);
	ck_assert_uint_eq(guest_memory_region(m, 0)->size, LOW);
	ck_assert_uint_eq(guest_memory_size(m), LOW);
	ck_assert_ptr_null(guest_memory_region(m, 1));
	guest_memory_free(m);
}
END_TEST

START_TEST(ram_above_the_hole_continues_in_the_same_memfd)
{
	struct guest_memory *m = make(SIZE);
	const struct guest_memory_region *low, *high;

	ck_assert_uint_eq(guest_memory_region_count(m), 2);
	low = guest_memory_region(m, 0);
	high = guest_memory_region(m, 1);
	ck_assert_uint_eq(low->gpa, 0);
	ck_assert_uint_eq(high->gpa, HIGH);
	ck_assert_int_eq(low->memfd, high->memfd);
	ck_assert_uint_eq(high->offset, LOW);
	ck_assert_uint_eq(high->size, SIZE - LOW);
	ck_assert_uint_eq(guest_memory_size(m), SIZE);
	guest_memory_free(m);
}
END_TEST

START_TEST(find_knows_every_edge)
{
	struct guest_memory *m = make(SIZE);

	ck_assert_ptr_eq(guest_memory_find(m, 0), guest_memory_region(m, 0));
	ck_assert_ptr_eq(guest_memory_find(m, LOW - 1), guest_memory_region(m, 0));
	ck_assert_ptr_null(guest_memory_find(m, LOW));
	ck_assert_ptr_null(guest_memory_find(m, HIGH - 1));
	ck_assert_ptr_eq(guest_memory_find(m, HIGH), guest_memory_region(m, 1));
	ck_assert_ptr_null(guest_memory_find(m, HIGH + SIZE - LOW));
	ck_assert_ptr_null(guest_memory_find(m, UINT64_MAX));
	guest_memory_free(m);
}
END_TEST

/* gpa, len, and whether it is RAM all through */
static const struct {
	uint64_t gpa, len;
	bool ok;
} accesses[] = {
	{ 0, 0, true },
	{ 0, 1, true },
	{ LOW - 4, 4, true },
	{ LOW - 4, 5, false },
	{ LOW, 1, false },
	{ HIGH - 1, 1, false },
	{ HIGH - 1, 2, false },
	{ HIGH, 4096, true },
	{ HIGH + SIZE - LOW - 1, 1, true },
	{ HIGH + SIZE - LOW - 1, 2, false },
	{ HIGH + SIZE - LOW, 1, false },
	{ UINT64_MAX, 1, false },
	{ UINT64_MAX, 2, false },
	{ UINT64_MAX - 1, 4096, false },
	{ HIGH, UINT64_MAX, false },
	{ 1, UINT64_MAX, false },
	{ 1, UINT64_MAX - 1, false },
};

START_TEST(access_is_checked_at_every_edge)
{
	struct guest_memory *m = make(SIZE);
	static uint8_t buf[8192];
	uint64_t gpa = accesses[_i].gpa, len = accesses[_i].len;
	int want = accesses[_i].ok ? 0 : -EFAULT;
	struct iovec iov[4];
	unsigned int count = 0;

	/* read and write get a real buffer only where they may use it */
	if (len <= sizeof(buf)) {
		ck_assert_int_eq(guest_memory_read(m, gpa, buf, len), want);
		ck_assert_int_eq(guest_memory_write(m, gpa, buf, len), want);
	} else {
		ck_assert_int_eq(guest_memory_read(m, gpa, NULL, len), want);
		ck_assert_int_eq(guest_memory_write(m, gpa, NULL, len), want);
	}
	ck_assert_int_eq(guest_memory_zero(m, gpa, len), want);
	ck_assert_int_eq(guest_memory_discard(m, gpa, len), want);
	ck_assert_int_eq(guest_memory_iov(m, gpa, len, iov, &count, 4), want);
	ck_assert_int_eq(guest_memory_ptr(m, gpa, len) != NULL, accesses[_i].ok);
	guest_memory_mark_dirty(m, gpa, len);
	guest_memory_free(m);
}
END_TEST

START_TEST(what_is_written_is_read)
{
	struct guest_memory *m = make(SIZE);
	char buf[8] = "";

	ck_assert_int_eq(guest_memory_write(m, HIGH + 4093, "crossing", 8), 0);
	ck_assert_int_eq(guest_memory_read(m, HIGH + 4093, buf, 8), 0);
	ck_assert_mem_eq(buf, "crossing", 8);
	ck_assert_mem_eq(guest_memory_ptr(m, HIGH + 4093, 8), "crossing", 8);
	ck_assert_int_eq(guest_memory_zero(m, HIGH + 4094, 2), 0);
	ck_assert_int_eq(guest_memory_read(m, HIGH + 4093, buf, 8), 0);
	ck_assert_mem_eq(buf, "c\0\0ssing", 8);
	guest_memory_free(m);
}
END_TEST

/* A second region right behind the low one. */
static struct guest_memory *make_adjacent(void)
{
	struct guest_memory *m = make(LOW);
	struct error err = ERROR_INIT;
	int fd = memfd_of(2 * GUEST_PAGE_SIZE);

	ck_assert_int_eq(guest_memory_add(m, LOW, GUEST_PAGE_SIZE, fd, GUEST_PAGE_SIZE, &err), 0);
	return m;
}

START_TEST(access_crosses_into_an_adjacent_region)
{
	struct guest_memory *m = make_adjacent();
	char buf[8] = "";

	ck_assert_int_eq(guest_memory_write(m, LOW - 3, "crossing", 8), 0);
	ck_assert_int_eq(guest_memory_read(m, LOW - 3, buf, 8), 0);
	ck_assert_mem_eq(buf, "crossing", 8);
	ck_assert_mem_eq(guest_memory_ptr(m, LOW, 5), "ssing", 5);
	ck_assert_ptr_null(guest_memory_ptr(m, LOW - 3, 8));
	ck_assert_int_eq(guest_memory_zero(m, LOW - 1, 2), 0);
	ck_assert_int_eq(guest_memory_read(m, LOW - 3, buf, 8), 0);
	ck_assert_mem_eq(buf, "cr\0\0sing", 8);
	guest_memory_free(m);
}
END_TEST

START_TEST(failed_access_copies_nothing)
{
	struct guest_memory *m = make_adjacent();
	uint64_t end = LOW + GUEST_PAGE_SIZE;
	char buf[16] = "untouched";

	ck_assert_int_eq(guest_memory_write(m, end - 4, "12345678", 8), -EFAULT);
	ck_assert_mem_eq(guest_memory_ptr(m, end - 4, 4), "\0\0\0\0", 4);
	ck_assert_int_eq(guest_memory_read(m, end - 4, buf, 8), -EFAULT);
	ck_assert_str_eq(buf, "untouched");
	ck_assert_int_eq(guest_memory_write(m, end - 4, "1234", 4), 0);
	ck_assert_int_eq(guest_memory_zero(m, end - 4, 8), -EFAULT);
	ck_assert_mem_eq(guest_memory_ptr(m, end - 4, 4), "1234", 4);
	guest_memory_free(m);
}
END_TEST

START_TEST(iov_splits_at_the_border_and_appends)
{
	struct guest_memory *m = make_adjacent();
	struct iovec iov[4];
	unsigned int count = 1;

	ck_assert_int_eq(guest_memory_iov(m, LOW - 3, 8, iov, &count, 4), 0);
	ck_assert_uint_eq(count, 3);
	ck_assert_uint_eq(iov[1].iov_len, 3);
	ck_assert_uint_eq(iov[2].iov_len, 5);
	ck_assert_ptr_eq(iov[2].iov_base, guest_memory_ptr(m, LOW, 5));
	guest_memory_free(m);
}
END_TEST

START_TEST(iov_without_room_leaves_the_count)
{
	struct guest_memory *m = make_adjacent();
	struct iovec iov[2];
	unsigned int count = 1;

	ck_assert_int_eq(guest_memory_iov(m, LOW - 3, 8, iov, &count, 2), -E2BIG);
	ck_assert_uint_eq(count, 1);
	/* no RAM is the graver fault */
	ck_assert_int_eq(guest_memory_iov(m, LOW - 3, 3 + GUEST_PAGE_SIZE + 1, iov, &count, 2),
			 -EFAULT);
	ck_assert_uint_eq(count, 1);
	guest_memory_free(m);
}
END_TEST

START_TEST(ram_cannot_shrink)
{
	struct guest_memory *m = make(LOW);
	int fd = guest_memory_region(m, 0)->memfd;

	ck_assert_int_eq(ftruncate(fd, 0), -1);
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_SEAL),
			 F_SEAL_SHRINK | F_SEAL_SEAL);
	ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	guest_memory_free(m);
}
END_TEST

static uint64_t allocated(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

START_TEST(new_ram_takes_no_page_of_the_host)
{
	struct guest_memory *m = make(SIZE);

	ck_assert_uint_eq(allocated(guest_memory_region(m, 0)->memfd), 0);
	guest_memory_free(m);
}
END_TEST

START_TEST(prefault_takes_every_page)
{
	struct guest_memory_options o = {
		.size = 200 * MIB + 4096,
		.low_end = 130 * MIB,
		.high_start = HIGH,
		.prefault = true,
	};
	struct error err = ERROR_INIT;
	struct guest_memory *m = guest_memory_new(&o, &err);

	ck_assert_msg(m != NULL, "%s", err.message);
	ck_assert_uint_eq(allocated(guest_memory_region(m, 0)->memfd), o.size);
	guest_memory_free(m);
}
END_TEST

START_TEST(transparent_hugepages_align_the_host_address)
{
	struct guest_memory_options o = {
		.size = SIZE,
		.low_end = LOW,
		.high_start = HIGH,
		.transparent_hugepages = true,
		.mergeable = true,
	};
	struct guest_memory *m = guest_memory_new(&o, NULL);

	ck_assert_ptr_nonnull(m);
	for (unsigned int i = 0; i < 2; i++)
		ck_assert_uint_eq((uintptr_t)guest_memory_region(m, i)->hva % (2 * MIB), 0);
	ck_assert_int_eq(guest_memory_write(m, LOW - 4, "last", 4), 0);
	ck_assert_int_eq(guest_memory_write(m, HIGH + SIZE - LOW - 4, "last", 4), 0);
	guest_memory_free(m);
}
END_TEST

START_TEST(discarded_ram_reads_zero_and_returns_to_the_host)
{
	struct guest_memory *m = make(SIZE);
	int fd = guest_memory_region(m, 0)->memfd;
	uint64_t at = HIGH + GUEST_PAGE_SIZE;
	uint8_t page[GUEST_PAGE_SIZE], *hva = guest_memory_ptr(m, HIGH, 3 * GUEST_PAGE_SIZE);

	memset(hva, 0xab, 3 * GUEST_PAGE_SIZE);
	ck_assert_uint_eq(allocated(fd), 3 * GUEST_PAGE_SIZE);
	ck_assert_int_eq(guest_memory_discard(m, at, GUEST_PAGE_SIZE), 0);
	ck_assert_uint_eq(allocated(fd), 2 * GUEST_PAGE_SIZE);
	ck_assert_int_eq(guest_memory_read(m, at, page, sizeof(page)), 0);
	for (size_t i = 0; i < sizeof(page); i++)
		ck_assert_uint_eq(page[i], 0);
	ck_assert_uint_eq(hva[GUEST_PAGE_SIZE - 1], 0xab);
	ck_assert_uint_eq(hva[2 * GUEST_PAGE_SIZE], 0xab);
	guest_memory_free(m);
}
END_TEST

START_TEST(discard_keeps_pages_it_covers_in_part)
{
	struct guest_memory *m = make(SIZE);
	uint8_t *hva = guest_memory_ptr(m, 0, 3 * GUEST_PAGE_SIZE);

	memset(hva, 0xab, 3 * GUEST_PAGE_SIZE);
	ck_assert_int_eq(guest_memory_discard(m, 1, 3 * GUEST_PAGE_SIZE - 2), 0);
	ck_assert_uint_eq(hva[1], 0xab);
	ck_assert_uint_eq(hva[GUEST_PAGE_SIZE], 0);
	ck_assert_uint_eq(hva[2 * GUEST_PAGE_SIZE - 1], 0);
	ck_assert_uint_eq(hva[2 * GUEST_PAGE_SIZE], 0xab);
	ck_assert_int_eq(guest_memory_discard(m, 2 * GUEST_PAGE_SIZE + 1, 100), 0);
	ck_assert_uint_eq(hva[2 * GUEST_PAGE_SIZE + 1], 0xab);
	guest_memory_free(m);
}
END_TEST

START_TEST(wrong_sizes_are_refused)
{
	refused((struct guest_memory_options){ .size = 0, .low_end = LOW, .high_start = HIGH },
		-EINVAL, "size is 0");
	refused((struct guest_memory_options){ .size = 4097, .low_end = LOW, .high_start = HIGH },
		-EINVAL, "4096 would do");
	refused((struct guest_memory_options){ .size = 3 * MIB,
					       .low_end = 4 * MIB,
					       .high_start = HIGH,
					       .hugepage_size = 2 * MIB },
		-EINVAL, "2097152 would do");
	refused((struct guest_memory_options){ .size = MIB, .low_end = 4095, .high_start = HIGH },
		-EINVAL, "hole");
	refused((struct guest_memory_options){ .size = MIB, .low_end = 0, .high_start = HIGH },
		-EINVAL, "hole");
	refused((struct guest_memory_options){ .size = MIB, .low_end = LOW, .high_start = 4096 },
		-EINVAL, "hole");
	refused((struct guest_memory_options){ .size = 3 * MIB,
					       .low_end = LOW,
					       .high_start = HIGH,
					       .hugepage_size = 3 * MIB },
		-EINVAL, "hugepage size");
	refused((struct guest_memory_options){ .size = 16 * MIB,
					       .low_end = 16 * MIB,
					       .high_start = HIGH,
					       .hugepage_size = 16 * MIB },
		-ENODEV, "no hugepages of 16 MiB");
}
END_TEST

START_TEST(more_than_the_host_has_is_refused_with_both_figures)
{
	struct sysinfo info;
	uint64_t host;
	char text[64];

	ck_assert_int_eq(sysinfo(&info), 0);
	host = (uint64_t)info.totalram * info.mem_unit;
	snprintf(text, sizeof(text), "at most %llu MiB", (unsigned long long)(host / MIB));
	refused((struct guest_memory_options){ .size = align_up(host + MIB, 4096),
					       .low_end = LOW,
					       .high_start = HIGH },
		-EINVAL, text);
	snprintf(text, sizeof(text), "%llu MiB is more", (1ULL << 62) / MIB);
	refused((struct guest_memory_options){ .size = 1ULL << 62,
					       .low_end = LOW,
					       .high_start = HIGH },
		-EINVAL, text);
}
END_TEST

START_TEST(too_few_hugepages_names_the_sysctl)
{
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", "r");
	unsigned long total = 0;
	char text[64];
	struct sysinfo info;

	if (!f || fscanf(f, "%lu", &total) != 1)
		total = 0;
	if (f)
		fclose(f);
	ck_assert_int_eq(sysinfo(&info), 0);
	/* more than can be free, less than the host has */
	if (total >= info.totalram * info.mem_unit / (2 * MIB) / 2)
		return;
	snprintf(text, sizeof(text), "sysctl vm.nr_hugepages=");
	refused((struct guest_memory_options){ .size = (total + 12) * 2 * MIB,
					       .low_end = 2 * GIB,
					       .high_start = HIGH,
					       .hugepage_size = 2 * MIB },
		-ENOMEM, text);
}
END_TEST

static void add_refused(struct guest_memory *m, uint64_t gpa, uint64_t size, int fd,
			uint64_t offset, int code, const char *text)
{
	unsigned int count = guest_memory_region_count(m);
	struct error err = ERROR_INIT;

	ck_assert_int_eq(guest_memory_add(m, gpa, size, fd, offset, &err), code);
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' lacks '%s'", err.message, text);
	ck_assert_uint_eq(guest_memory_region_count(m), count);
	ck_assert_int_ge(fcntl(fd, F_GETFD), 0); /* still the caller's */
}

START_TEST(added_region_may_not_overlap)
{
	struct guest_memory *m = make(SIZE);
	int fd = memfd_of(SIZE);

	add_refused(m, LOW - 4096, 4096, fd, 0, -EEXIST, "overlaps");
	add_refused(m, LOW - 4096, 8192, fd, 0, -EEXIST, "overlaps");
	add_refused(m, HIGH - 4096, 8192, fd, 0, -EEXIST, "overlaps");
	add_refused(m, 0, SIZE, fd, 0, -EEXIST, "overlaps");
	close(fd);
	guest_memory_free(m);
}
END_TEST

START_TEST(added_region_must_fit_its_file_and_the_address_space)
{
	struct guest_memory *m = make(LOW);
	int fd = memfd_of(2 * GUEST_PAGE_SIZE);

	add_refused(m, HIGH, 0, fd, 0, -EINVAL, "multiples");
	add_refused(m, HIGH + 1, 4096, fd, 0, -EINVAL, "multiples");
	add_refused(m, HIGH, 100, fd, 0, -EINVAL, "multiples");
	add_refused(m, HIGH, 4096, fd, 100, -EINVAL, "multiples");
	add_refused(m, HIGH, 3 * 4096, fd, 0, -EINVAL, "bytes");
	add_refused(m, HIGH, 4096, fd, 2 * 4096, -EINVAL, "bytes");
	add_refused(m, HIGH, 4096, fd, -4096ULL, -EINVAL, "bytes");
	add_refused(m, -4096ULL, 4096, fd, 0, -EINVAL, "multiples");
	add_refused(m, HIGH, -4096ULL, fd, 0, -EINVAL, "");
	close(fd);
	guest_memory_free(m);
}
END_TEST

START_TEST(added_region_must_be_sealable)
{
	struct guest_memory *m = make(LOW);
	char path[] = "/tmp/ferry-test-XXXXXX";
	int file = mkstemp(path), unsealable = memfd_create("test", MFD_CLOEXEC);

	ck_assert_int_eq(ftruncate(file, 4096), 0);
	ck_assert_int_eq(ftruncate(unsealable, 4096), 0);
	unlink(path);
	add_refused(m, HIGH, 4096, file, 0, -EINVAL, "seal");
	add_refused(m, HIGH, 4096, unsealable, 0, -EPERM, "seal");
	close(file);
	close(unsealable);
	ck_assert_int_eq(guest_memory_add(m, HIGH, 4096, -1, 0, NULL), -EBADF);
	guest_memory_free(m);
}
END_TEST

START_TEST(regions_are_sorted_and_their_pointers_stay)
{
	struct guest_memory *m = make(LOW);
	const struct guest_memory_region *first = guest_memory_region(m, 0), *top;
	int a = memfd_of(4096), b = memfd_of(8192);

	ck_assert_int_eq(guest_memory_add(m, HIGH + 8192, 4096, a, 0, NULL), 0);
	top = guest_memory_find(m, HIGH + 8192);
	/* one memfd may back two regions */
	ck_assert_int_eq(guest_memory_add(m, HIGH, 4096, b, 0, NULL), 0);
	ck_assert_int_eq(guest_memory_add(m, HIGH + 4096, 4096, b, 4096, NULL), 0);
	ck_assert_uint_eq(guest_memory_region_count(m), 4);
	for (unsigned int i = 1; i < 4; i++)
		ck_assert_uint_lt(guest_memory_region(m, i - 1)->gpa,
				  guest_memory_region(m, i)->gpa);
	ck_assert_ptr_eq(guest_memory_region(m, 0), first);
	ck_assert_ptr_eq(guest_memory_region(m, 3), top);
	guest_memory_free(m);
	ck_assert_int_eq(fcntl(a, F_GETFD), -1);
	ck_assert_int_eq(fcntl(b, F_GETFD), -1);
}
END_TEST

START_TEST(regions_run_out_with_an_error)
{
	struct guest_memory *m = make(LOW);
	int fd = memfd_of(4096);
	int r = 0;

	for (unsigned int i = 0; i < 1000 && !r; i++)
		r = guest_memory_add(m, HIGH + i * 4096, 4096, fd, 0, NULL);
	ck_assert_int_eq(r, -ENOSPC);
	guest_memory_free(m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("guest_memory");
	TCase *t = tcase_create("guest_memory");
	SRunner *runner;
	int failed;

	tcase_add_test(t, ram_below_the_hole_is_one_region);
	tcase_add_test(t, ram_above_the_hole_continues_in_the_same_memfd);
	tcase_add_test(t, find_knows_every_edge);
	tcase_add_loop_test(t, access_is_checked_at_every_edge, 0, ARRAY_SIZE(accesses));
	tcase_add_test(t, what_is_written_is_read);
	tcase_add_test(t, access_crosses_into_an_adjacent_region);
	tcase_add_test(t, failed_access_copies_nothing);
	tcase_add_test(t, iov_splits_at_the_border_and_appends);
	tcase_add_test(t, iov_without_room_leaves_the_count);
	tcase_add_test(t, ram_cannot_shrink);
	tcase_add_test(t, new_ram_takes_no_page_of_the_host);
	tcase_add_test(t, prefault_takes_every_page);
	tcase_add_test(t, transparent_hugepages_align_the_host_address);
	tcase_add_test(t, discarded_ram_reads_zero_and_returns_to_the_host);
	tcase_add_test(t, discard_keeps_pages_it_covers_in_part);
	tcase_add_test(t, wrong_sizes_are_refused);
	tcase_add_test(t, more_than_the_host_has_is_refused_with_both_figures);
	tcase_add_test(t, too_few_hugepages_names_the_sysctl);
	tcase_add_test(t, added_region_may_not_overlap);
	tcase_add_test(t, added_region_must_fit_its_file_and_the_address_space);
	tcase_add_test(t, added_region_must_be_sealable);
	tcase_add_test(t, regions_are_sorted_and_their_pointers_stay);
	tcase_add_test(t, regions_run_out_with_an_error);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
