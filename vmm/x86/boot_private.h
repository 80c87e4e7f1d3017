/* SPDX-License-Identifier: Apache-2.0 */
/* What boot.c, boot_linux.c and boot_pvh.c share; nobody else includes this. */
#ifndef VMM_X86_BOOT_PRIVATE_H
#define VMM_X86_BOOT_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include "vmm/x86/boot.h"
#include "vmm/x86/layout.h"

/* The boot area, from X86_BOOT_BASE. */
#define BOOT_PARAMETERS X86_BOOT_BASE			   /* zero page or start info: 4 KiB */
#define BOOT_GDT (X86_BOOT_BASE + 0x1000)		   /* 4 KiB */
#define BOOT_PAGE_TABLES (X86_BOOT_BASE + 0x2000)	   /* PML4, PDPT, 4 page directories */
#define BOOT_CMDLINE (X86_BOOT_BASE + 0x8000)		   /* to the end of the area */
#define BOOT_CMDLINE_MAX (X86_BOOT_END - BOOT_CMDLINE - 1) /* without the NUL */

/* A file to be loaded, kept open: a kernel or an initramfs. */
struct boot_file {
	int fd;
	const char *role; /* "kernel", "initramfs": for messages */
	const char *path;
	uint64_t size;
};

int boot_file_open(struct boot_file *file, const char *role, const char *path, struct error *err);
void boot_file_close(struct boot_file *file);
#define _cleanup_boot_file_ __attribute__((cleanup(boot_file_close)))
/* "load kernel PATH: <what>", with -ENOEXEC. */
int boot_file_bad(const struct boot_file *file, struct error *err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Both check [offset, offset + len) against the file: "truncated" otherwise. */
int boot_file_read(const struct boot_file *file, uint64_t offset, void *buf, size_t len,
		   struct error *err);
int boot_file_load(const struct boot_file *file, uint64_t offset, struct guest_memory *memory,
		   uint64_t gpa, uint64_t len, struct error *err);

/* Types as e820 and start_info's memory map number them. */
enum boot_range_type { BOOT_RANGE_RAM = 1, BOOT_RANGE_RESERVED = 2 };

struct boot_range {
	uint64_t start, size;
	enum boot_range_type type;
};

#define BOOT_RANGES_MAX 80

/* The guest's memory map, sorted; returns the number of ranges. */
unsigned int boot_memory_map(const struct guest_memory *memory, struct boot_range *ranges);

/* The end of the RAM that holds gpa 1 MiB: where kernel and initramfs go. */
int boot_low_ram_end(const struct guest_memory *memory, uint64_t *end, struct error *err);

struct boot_blob {
	uint64_t gpa, size;
};

/* Where a kernel will be: what is loaded, and how far its own memory goes. */
struct boot_kernel {
	uint64_t start, loaded /* bytes */, end;
};

/* Has RAM ready that a kernel will take as it starts. Before anything is loaded. */
void boot_expect(struct guest_memory *memory, const struct boot_kernel *kernel,
		 const struct boot_blob *initramfs);

/* Opens the initramfs, if there is one, and finds the highest pages within [floor, ceiling)
 * for it. The file is the caller's. */
int boot_place_initramfs(struct boot_file *file, const char *path, uint64_t floor, uint64_t ceiling,
			 struct boot_blob *initramfs, struct error *err);
/* Writes the command line, of at most max bytes, to BOOT_CMDLINE. */
int boot_write_cmdline(struct guest_memory *memory, const char *cmdline, uint64_t max,
		       struct error *err);

int boot_load_linux64(struct guest_memory *memory, const struct boot_file *kernel,
		      const struct x86_boot_options *options, struct x86_boot *boot,
		      struct error *err);
int boot_load_pvh(struct guest_memory *memory, const struct boot_file *kernel,
		  const struct x86_boot_options *options, struct x86_boot *boot, struct error *err);

#endif
