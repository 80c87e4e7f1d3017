/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels made by hand, the memory they go into, and what a refusal has to say. */
#ifndef TESTS_UNIT_VMM_BOOT_IMAGES_H
#define TESTS_UNIT_VMM_BOOT_IMAGES_H

#include <asm/bootparam.h>
#include <check.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "memory/guest_memory.h"
#include "tests/unit/vmm/guest_ram.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/layout.h"

#define IMAGE_MAX (64 * KIB)

struct image {
	uint8_t bytes[IMAGE_MAX];
	size_t size;
	char path[64];
	int fd;
};

/* Makes the image a file; may be called again after a change. */
static inline const char *image_path(struct image *image)
{
	if (image->fd > 0)
		close(image->fd);
	image->fd = memfd_create("kernel", MFD_CLOEXEC);
	ck_assert_int_gt(image->fd, 0);
	ck_assert_int_eq(write(image->fd, image->bytes, image->size), (ssize_t)image->size);
	snprintf(image->path, sizeof(image->path), "/proc/self/fd/%d", image->fd);
	return image->path;
}

/* bzImage: 4 setup sectors, and a protected-mode part of known bytes. */
#define BZIMAGE_OFFSET (5 * 512)
#define BZIMAGE_KERNEL 8192
#define BZIMAGE_LOAD (2 * MIB)
#define BZIMAGE_INIT_SIZE (1 * MIB)

static inline struct setup_header *bzimage_header(struct image *image)
{
	return (struct setup_header *)(image->bytes + 0x1f1);
}

static inline void bzimage(struct image *image)
{
	struct setup_header h = {
		.setup_sects = 4,
		.syssize = BZIMAGE_KERNEL / 16,
		.boot_flag = 0xaa55,
		.jump = 0xeb | 0x6a << 8, /* the header ends at 0x202 + 0x6a */
		.header = 0x53726448,
		.version = 0x020f,
		.loadflags = 1,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = 0x200000,
		.relocatable_kernel = 1,
		.xloadflags = XLF_KERNEL_64,
		.cmdline_size = 2047,
		.setup_data = 0x1234,
		.pref_address = BZIMAGE_LOAD,
		.init_size = BZIMAGE_INIT_SIZE,
	};

	memset(image, 0, sizeof(*image));
	image->size = BZIMAGE_OFFSET + BZIMAGE_KERNEL;
	memcpy(image->bytes + 0x1f1, &h, sizeof(h));
	for (unsigned int i = 0; i < BZIMAGE_KERNEL; i++)
		image->bytes[BZIMAGE_OFFSET + i] = (uint8_t)(i * 7 + 1);
}

/* ELF64: a note segment, and a loaded one of 4 KiB in the file and 8 KiB in memory. */
#define ELF_LOAD (1 * MIB)
#define ELF_ENTRY (ELF_LOAD + 0x10)
#define ELF_FILESZ 4096
#define ELF_MEMSZ 8192
#define ELF_NOTE_OFFSET 0x200
#define ELF_NOTE_SIZE 28
#define ELF_DATA_OFFSET 0x1000

static inline Elf64_Ehdr *elf_header(struct image *image)
{
	return (Elf64_Ehdr *)image->bytes;
}

static inline Elf64_Phdr *elf_segment(struct image *image, unsigned int index)
{
	return (Elf64_Phdr *)(image->bytes + sizeof(Elf64_Ehdr)) + index;
}

static inline void elf_note(struct image *image, uint64_t entry, uint32_t desc_size)
{
	uint8_t *n = image->bytes + ELF_NOTE_OFFSET;

	store_le32(n, 4);
	store_le32(n + 4, desc_size);
	store_le32(n + 8, 18);
	memcpy(n + 12, "Xen", 4);
	store_le64(n + 16, entry);
}

static inline void elf64(struct image *image)
{
	memset(image, 0, sizeof(*image));
	image->size = ELF_DATA_OFFSET + ELF_FILESZ;
	*elf_header(image) = (Elf64_Ehdr){
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 2,
	};
	*elf_segment(image, 0) = (Elf64_Phdr){
		.p_type = PT_NOTE,
		.p_offset = ELF_NOTE_OFFSET,
		.p_filesz = ELF_NOTE_SIZE - 4,
		.p_memsz = ELF_NOTE_SIZE - 4,
		.p_align = 4,
	};
	*elf_segment(image, 1) = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_offset = ELF_DATA_OFFSET,
		.p_paddr = ELF_LOAD,
		.p_filesz = ELF_FILESZ,
		.p_memsz = ELF_MEMSZ,
	};
	elf_note(image, ELF_ENTRY, 8);
	for (unsigned int i = 0; i < ELF_FILESZ; i++)
		image->bytes[ELF_DATA_OFFSET + i] = (uint8_t)(i * 5 + 3);
}

/* The same as ELF32. */
static inline void elf32(struct image *image)
{
	Elf32_Phdr *p = (Elf32_Phdr *)(image->bytes + sizeof(Elf32_Ehdr));

	elf64(image);
	memset(image->bytes, 0, ELF_NOTE_OFFSET);
	*(Elf32_Ehdr *)image->bytes = (Elf32_Ehdr){
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = EM_386,
		.e_phoff = sizeof(Elf32_Ehdr),
		.e_phentsize = sizeof(Elf32_Phdr),
		.e_phnum = 2,
	};
	p[0] = (Elf32_Phdr){ .p_type = PT_NOTE, .p_offset = ELF_NOTE_OFFSET, .p_filesz = 20 };
	p[1] = (Elf32_Phdr){
		.p_type = PT_LOAD,
		.p_offset = ELF_DATA_OFFSET,
		.p_paddr = ELF_LOAD,
		.p_filesz = ELF_FILESZ,
		.p_memsz = ELF_MEMSZ,
	};
	elf_note(image, ELF_ENTRY, 4);
}

struct boot_case {
	uint64_t memory; /* 0: 16 MiB */
	const char *initramfs, *cmdline;
};

/* Loads, and wants the error to hold `text` and, where it is the file, its path. */
static inline void image_refused(struct image *image, const struct boot_case *c, const char *text)
{
	struct guest_memory *memory = guest_ram(c->memory ? c->memory : 16 * MIB);
	struct x86_boot_options options = {
		.kernel = image_path(image),
		.initramfs = c->initramfs,
		.cmdline = c->cmdline,
	};
	struct error err = ERROR_INIT;
	struct x86_boot boot;

	ck_assert_int_lt(x86_boot_load(memory, &options, &boot, &err), 0);
	ck_assert_int_lt(err.code, 0);
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' lacks '%s'", err.message, text);
	guest_memory_free(memory);
}

static inline struct x86_boot image_loads(struct image *image, struct guest_memory *memory,
					  const struct boot_case *c)
{
	struct x86_boot_options options = {
		.kernel = image_path(image),
		.initramfs = c->initramfs,
		.cmdline = c->cmdline,
		.rsdp = X86_ACPI_BASE,
	};
	struct error err = ERROR_INIT;
	struct x86_boot boot;

	ck_assert_msg(x86_boot_load(memory, &options, &boot, &err) == 0, "%s", err.message);
	return boot;
}

#endif
