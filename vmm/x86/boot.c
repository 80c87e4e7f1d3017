/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a kernel: what both boot protocols need. */
#include "vmm/x86/boot.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "vmm/x86/boot_private.h"

int boot_file_bad(const struct boot_file *file, struct error *err, const char *format, ...)
{
	char what[256];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	return error_set(err, ENOEXEC, "load %s %s: %s", file->role, file->path, what);
}

int boot_file_open(struct boot_file *file, const char *role, const char *path, struct error *err)
{
	struct stat st;

	*file = (struct boot_file){ .fd = -1, .role = role, .path = path };
	/* O_NONBLOCK: a FIFO in place of the file must not hang the control plane. */
	file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (file->fd < 0 || fstat(file->fd, &st))
		return error_set_errno(err, errno, "load %s %s", role, path);
	if (!S_ISREG(st.st_mode))
		return boot_file_bad(file, err, "not a regular file");
	if (!st.st_size)
		return boot_file_bad(file, err, "the file is empty");
	file->size = (uint64_t)st.st_size;
	return 0;
}

void boot_file_close(struct boot_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
}

static int check_range(const struct boot_file *file, uint64_t offset, uint64_t len,
		       struct error *err)
{
	if (offset <= file->size && len <= file->size - offset)
		return 0;
	return boot_file_bad(file, err,
			     "truncated: %#llx bytes at %#llx wanted, the file has %#llx",
			     (unsigned long long)len, (unsigned long long)offset,
			     (unsigned long long)file->size);
}

static int read_checked(const struct boot_file *file, uint64_t offset, void *buf, size_t len,
			struct error *err)
{
	int r = fd_pread_full(file->fd, buf, len, (off_t)offset);

	if (r == -ENODATA)
		return boot_file_bad(file, err, "truncated while it was read");
	if (r)
		return error_set_errno(err, r, "read %s %s", file->role, file->path);
	return 0;
}

int boot_file_read(const struct boot_file *file, uint64_t offset, void *buf, size_t len,
		   struct error *err)
{
	int r = check_range(file, offset, len, err);

	return r ? r : read_checked(file, offset, buf, len, err);
}

int boot_file_load(const struct boot_file *file, uint64_t offset, struct guest_memory *memory,
		   uint64_t gpa, uint64_t len, struct error *err)
{
	int r = check_range(file, offset, len, err);
	void *to;

	if (r || !len)
		return r;
	to = guest_memory_ptr(memory, gpa, len);
	if (!to)
		return error_set(err, ENOMEM, "load %s %s: %#llx bytes at %#llx are not guest RAM",
				 file->role, file->path, (unsigned long long)len,
				 (unsigned long long)gpa);
	r = read_checked(file, offset, to, len, err);
	guest_memory_mark_dirty(memory, gpa, len);
	return r;
}

static void add_range(struct boot_range *ranges, unsigned int *count, uint64_t start, uint64_t end,
		      enum boot_range_type type)
{
	if (start < end && *count < BOOT_RANGES_MAX)
		ranges[(*count)++] = (struct boot_range){ start, end - start, type };
}

/* What lies between low and high RAM and must not be taken for free address space. */
static void add_holes(struct boot_range *ranges, unsigned int *count)
{
	/* Linux trusts ECAM only where the memory map reserves it. */
	add_range(ranges, count, X86_ECAM_BASE, X86_ECAM_BASE + X86_ECAM_SIZE, BOOT_RANGE_RESERVED);
	add_range(ranges, count, X86_KVM_IDENTITY_MAP, X86_KVM_TSS + 3 * GUEST_PAGE_SIZE,
		  BOOT_RANGE_RESERVED);
}

unsigned int boot_memory_map(const struct guest_memory *memory, struct boot_range *ranges)
{
	unsigned int count = 0, regions = guest_memory_region_count(memory);
	bool holes_added = false;

	/* The kernel's real-mode trampoline takes its pages below 640 KiB. */
	add_range(ranges, &count, 0, X86_BOOT_END, BOOT_RANGE_RAM);
	add_range(ranges, &count, X86_BOOT_END, X86_HIGH_MEMORY, BOOT_RANGE_RESERVED);
	for (unsigned int i = 0; i < regions; i++) {
		const struct guest_memory_region *r = guest_memory_region(memory, i);

		if (r->gpa >= X86_HIGH_RAM_START && !holes_added) {
			add_holes(ranges, &count);
			holes_added = true;
		}
		add_range(ranges, &count, MAX(r->gpa, X86_HIGH_MEMORY), r->gpa + r->size,
			  BOOT_RANGE_RAM);
	}
	if (!holes_added)
		add_holes(ranges, &count);
	return count;
}

int boot_low_ram_end(const struct guest_memory *memory, uint64_t *end, struct error *err)
{
	const struct guest_memory_region *r = guest_memory_find(memory, 0);

	if (!r || r->size <= X86_HIGH_MEMORY)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "boot: %llu KiB of guest memory leave no room for a kernel, "
				      "which starts at 1 MiB",
				      (unsigned long long)(r ? r->size / KIB : 0));
	*end = MIN(r->size, X86_LOW_RAM_END);
	return 0;
}

/*
 * What Linux takes at once, from a look at which pages are there when init starts: all
 * from 0 (page allocation goes upwards) to a bit behind its image, and from the top of
 * RAM downwards the initramfs, then 64 bytes per page and some tables.
 */
#define KERNEL_MIN (2 * MIB) /* what is smaller is no Linux */
#define BEHIND_KERNEL (6 * MIB)
#define EARLY_TABLES (2 * MIB)
#define EARLY_MAX (32 * MIB) /* large guests need not start fast */
#define INITRAMFS_MIN MIB

static void expect_tables(struct guest_memory *memory, const struct boot_blob *initramfs)
{
	const struct guest_memory_region *r =
		guest_memory_region(memory, guest_memory_region_count(memory) - 1);
	uint64_t len = MIN(guest_memory_size(memory) / 64 + EARLY_TABLES, EARLY_MAX);
	uint64_t top = r->gpa + r->size;

	if (initramfs->size && top - initramfs->gpa < r->size &&
	    align_up(initramfs->gpa + initramfs->size, GUEST_PAGE_SIZE) == top)
		top = initramfs->gpa;
	len = MIN(len, top - r->gpa);
	guest_memory_expect(memory, top - len, len, EXPECT_UPWARDS);
}

void boot_expect(struct guest_memory *memory, const struct boot_kernel *kernel,
		 const struct boot_blob *initramfs)
{
	if (kernel->end < kernel->start + KERNEL_MIN)
		return;
	/* What is loaded first. */
	guest_memory_expect(memory, kernel->start, kernel->loaded, EXPECT_DOWNWARDS);
	if (initramfs->size >= INITRAMFS_MIN)
		guest_memory_expect(memory, initramfs->gpa, initramfs->size, EXPECT_DOWNWARDS);
	guest_memory_expect(memory, 0, kernel->end + BEHIND_KERNEL, EXPECT_UPWARDS);
	expect_tables(memory, initramfs);
}

int boot_place_initramfs(struct boot_file *file, const char *path, uint64_t floor, uint64_t ceiling,
			 struct boot_blob *initramfs, struct error *err)
{
	int r;

	*initramfs = (struct boot_blob){ 0 };
	if (!path)
		return 0;
	r = boot_file_open(file, "initramfs", path, err);
	if (r)
		return r;
	floor = align_up(floor, GUEST_PAGE_SIZE);
	ceiling = align_down(ceiling, GUEST_PAGE_SIZE);
	if (floor >= ceiling || file->size > ceiling - floor)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, ENOMEM,
			"load initramfs %s: %llu KiB do not fit into the %llu KiB of "
			"guest memory beside the kernel; give the VM more memory",
			path, (unsigned long long)((file->size + KIB - 1) / KIB),
			(unsigned long long)(floor < ceiling ? (ceiling - floor) / KIB : 0));
	*initramfs =
		(struct boot_blob){ align_down(ceiling - file->size, GUEST_PAGE_SIZE), file->size };
	return 0;
}

int boot_write_cmdline(struct guest_memory *memory, const char *cmdline, uint64_t max,
		       struct error *err)
{
	size_t len;

	if (!cmdline)
		cmdline = "";
	len = strlen(cmdline);
	max = MIN(max, BOOT_CMDLINE_MAX);
	if (len > max)
		return error_set_kind(err, ERROR_BAD_REQUEST, E2BIG,
				      "kernel command line: %zu bytes, this kernel takes at most "
				      "%llu",
				      len, (unsigned long long)max);
	if (guest_memory_write(memory, BOOT_CMDLINE, cmdline, len + 1))
		return error_set(err, EFAULT, "kernel command line: %#llx is not guest RAM",
				 (unsigned long long)BOOT_CMDLINE);
	return 0;
}

int x86_boot_load(struct guest_memory *memory, const struct x86_boot_options *options,
		  struct x86_boot *boot, struct error *err)
{
	unsigned char magic[SELFMAG] = { 0 };
	_cleanup_boot_file_ struct boot_file kernel = { .fd = -1 };
	int r;

	*boot = (struct x86_boot){ 0 };
	r = boot_file_open(&kernel, "kernel", options->kernel, err);
	if (!r)
		r = boot_file_read(&kernel, 0, magic, sizeof(magic), err);
	if (r)
		return r;
	if (!memcmp(magic, ELFMAG, SELFMAG))
		return boot_load_pvh(memory, &kernel, options, boot, err);
	return boot_load_linux64(memory, &kernel, options, boot, err);
}
