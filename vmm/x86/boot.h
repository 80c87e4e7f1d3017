/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a kernel: bzImage by the 64-bit boot protocol (Linux
 * Documentation/arch/x86/boot.rst) and ELF vmlinux by PVH (Xen
 * docs/misc/pvh.pandoc, include/public/arch-x86/hvm/start_info.h; note
 * XEN_ELFNOTE_PHYS32_ENTRY). Which one is found from the file.
 *
 * The files are hostile: every offset, size and alignment in them is checked; an
 * error names the file and what is wrong with it. Control plane, before the vCPUs run.
 */
#ifndef VMM_X86_BOOT_H
#define VMM_X86_BOOT_H

#include <stdint.h>

#include "base/error.h"
#include "memory/guest_memory.h"

enum x86_boot_protocol { X86_BOOT_LINUX64, X86_BOOT_PVH };

struct x86_boot {
	enum x86_boot_protocol protocol;
	uint64_t entry;	     /* RIP of the boot CPU */
	uint64_t parameters; /* gpa of boot_params (RSI) or hvm_start_info (EBX) */
	/* LINUX64 only: gpa of the GDT and of an identity map of the first 4 GiB */
	uint64_t gdt, page_tables;
};

struct x86_boot_options {
	const char *kernel;
	const char *initramfs; /* NULL: none */
	const char *cmdline;   /* NULL: "" */
	uint64_t rsdp;	       /* gpa */
};

/* Loads everything but ACPI; fills *boot. Kernel pages are read straight into guest
 * memory. An uncompressed kernel larger than RAM, a command line longer than the
 * kernel takes, an initramfs that does not fit: each is an error of its own. */
int x86_boot_load(struct guest_memory *memory, const struct x86_boot_options *options,
		  struct x86_boot *boot, struct error *err);

#endif
