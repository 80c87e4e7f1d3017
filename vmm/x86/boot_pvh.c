/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ELF kernels by the PVH protocol: Xen docs/misc/pvh.pandoc for the state at entry,
 * include/public/arch-x86/hvm/start_info.h for the structures, include/public/elfnote.h
 * for the note. ELF64, and ELF32 for small test guests.
 */
#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vmm/x86/boot_private.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18U
#define SEGMENTS_MAX 64U
#define NOTES_MAX (64 * KIB)

#define START_INFO_MAGIC 0x336ec578U
#define START_INFO_VERSION 1U /* the first with a memory map */

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};

struct module_entry {
	uint64_t paddr, size, cmdline_paddr, reserved;
};

struct memmap_entry {
	uint64_t addr, size;
	uint32_t type, reserved;
};

/* One page of guest memory. */
struct parameters {
	struct start_info info;
	struct module_entry initramfs;
	struct memmap_entry memmap[BOOT_RANGES_MAX];
};
_Static_assert(sizeof(struct start_info) == 56 && sizeof(struct module_entry) == 32 &&
		       sizeof(struct memmap_entry) == 24,
	       "the layout of start_info.h");
_Static_assert(sizeof(struct parameters) <= GUEST_PAGE_SIZE, "one page");

struct elf {
	unsigned int count;
	Elf64_Phdr segments[SEGMENTS_MAX];
	uint64_t entry;	     /* from the note */
	uint64_t start, end; /* of all loaded segments */
};

/* Widens an ELF32 file's headers, so that the rest sees one form. */
static int read_segments(const struct boot_file *kernel, struct elf *elf, bool is_64, uint64_t at,
			 unsigned int count, unsigned int entry_size, struct error *err)
{
	unsigned int wanted = is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	Elf32_Phdr narrow[SEGMENTS_MAX];
	int r;

	if (!count)
		return boot_file_bad(kernel, err, "the ELF file has no program headers");
	if (count > SEGMENTS_MAX)
		return boot_file_bad(kernel, err, "%u program headers, at most %u are read", count,
				     SEGMENTS_MAX);
	if (entry_size != wanted)
		return boot_file_bad(kernel, err, "program headers of %u bytes, %u expected",
				     entry_size, wanted);
	elf->count = count;
	if (is_64)
		return boot_file_read(kernel, at, elf->segments, count * sizeof(Elf64_Phdr), err);
	r = boot_file_read(kernel, at, narrow, count * sizeof(Elf32_Phdr), err);
	for (unsigned int i = 0; i < count && !r; i++)
		elf->segments[i] = (Elf64_Phdr){
			.p_type = narrow[i].p_type,
			.p_offset = narrow[i].p_offset,
			.p_paddr = narrow[i].p_paddr,
			.p_filesz = narrow[i].p_filesz,
			.p_memsz = narrow[i].p_memsz,
			.p_align = narrow[i].p_align,
		};
	return r;
}

static int read_headers(const struct boot_file *kernel, struct elf *elf, struct error *err)
{
	union {
		unsigned char ident[EI_NIDENT];
		Elf32_Ehdr e32;
		Elf64_Ehdr e64;
	} h;
	bool is_64;
	int r = boot_file_read(kernel, 0, h.ident, sizeof(h.ident), err);

	if (r)
		return r;
	is_64 = h.ident[EI_CLASS] == ELFCLASS64;
	if ((!is_64 && h.ident[EI_CLASS] != ELFCLASS32) || h.ident[EI_DATA] != ELFDATA2LSB)
		return boot_file_bad(kernel, err, "not a little-endian 32- or 64-bit ELF file");
	r = boot_file_read(kernel, 0, &h, is_64 ? sizeof(h.e64) : sizeof(h.e32), err);
	if (r)
		return r;
	if (is_64 ? h.e64.e_machine != EM_X86_64
		  : h.e32.e_machine != EM_386 && h.e32.e_machine != EM_X86_64)
		return boot_file_bad(kernel, err, "an ELF file of another machine (%u), not x86",
				     is_64 ? h.e64.e_machine : h.e32.e_machine);
	if (is_64)
		return read_segments(kernel, elf, true, h.e64.e_phoff, h.e64.e_phnum,
				     h.e64.e_phentsize, err);
	return read_segments(kernel, elf, false, h.e32.e_phoff, h.e32.e_phnum, h.e32.e_phentsize,
			     err);
}

/* Looks for the PVH note in the bytes of one note segment. */
static bool find_note(const uint8_t *notes, uint64_t size, uint64_t align, uint64_t *entry)
{
	uint64_t at = 0;

	while (size - at >= sizeof(Elf32_Nhdr)) {
		uint32_t name_size = load_le32(notes + at);
		uint32_t desc_size = load_le32(notes + at + 4);
		uint32_t type = load_le32(notes + at + 8);
		uint64_t name = at + sizeof(Elf32_Nhdr);
		uint64_t desc = align_up(name + name_size, align);

		if (desc > size || desc_size > size - desc)
			return false;
		if (type == XEN_ELFNOTE_PHYS32_ENTRY && name_size == 4 &&
		    !memcmp(notes + name, "Xen", 4) && (desc_size == 4 || desc_size == 8)) {
			*entry = load_le(notes + desc, desc_size);
			return true;
		}
		at = align_up(desc + desc_size, align);
		if (at > size)
			return false;
	}
	return false;
}

static int read_entry(const struct boot_file *kernel, struct elf *elf, struct error *err)
{
	for (unsigned int i = 0; i < elf->count; i++) {
		const Elf64_Phdr *p = &elf->segments[i];
		_cleanup_free_ uint8_t *notes = NULL;
		int r;

		if (p->p_type != PT_NOTE || !p->p_filesz)
			continue;
		if (p->p_filesz > NOTES_MAX)
			return boot_file_bad(kernel, err, "a note segment of %#llx bytes",
					     (unsigned long long)p->p_filesz);
		notes = malloc(p->p_filesz);
		if (!notes)
			return error_set_errno(err, ENOMEM, "load kernel %s", kernel->path);
		r = boot_file_read(kernel, p->p_offset, notes, p->p_filesz, err);
		if (r)
			return r;
		if (find_note(notes, p->p_filesz, p->p_align == 8 ? 8 : 4, &elf->entry))
			return 0;
	}
	return boot_file_bad(kernel, err,
			     "no PVH entry (ELF note XEN_ELFNOTE_PHYS32_ENTRY); for Linux, build "
			     "with CONFIG_PVH=y or use the bzImage");
}

static int check_segment(const struct boot_file *kernel, const Elf64_Phdr *p, unsigned int index,
			 uint64_t ram_end, struct error *err)
{
	if (p->p_filesz > p->p_memsz)
		return boot_file_bad(
			kernel, err, "segment %u: %#llx bytes in the file, %#llx in memory", index,
			(unsigned long long)p->p_filesz, (unsigned long long)p->p_memsz);
	if (p->p_paddr < X86_HIGH_MEMORY)
		return boot_file_bad(kernel, err, "segment %u: address %#llx is below 1 MiB", index,
				     (unsigned long long)p->p_paddr);
	if (p->p_paddr > ram_end || p->p_memsz > ram_end - p->p_paddr)
		return error_set_kind(err, ERROR_BAD_REQUEST, ENOMEM,
				      "load kernel %s: segment %u: %#llx bytes at %#llx do not fit "
				      "into the guest memory below 4 GiB, which ends at %#llx",
				      kernel->path, index, (unsigned long long)p->p_memsz,
				      (unsigned long long)p->p_paddr, (unsigned long long)ram_end);
	return 0;
}

static int check_segments(const struct boot_file *kernel, struct elf *elf, uint64_t ram_end,
			  struct error *err)
{
	elf->start = ram_end;
	for (unsigned int i = 0; i < elf->count; i++) {
		const Elf64_Phdr *p = &elf->segments[i];
		int r;

		if (p->p_type != PT_LOAD || !p->p_memsz)
			continue;
		r = check_segment(kernel, p, i, ram_end, err);
		if (r)
			return r;
		elf->start = MIN(elf->start, p->p_paddr);
		elf->end = MAX(elf->end, p->p_paddr + p->p_memsz);
	}
	return 0;
}

static int load_segments(struct guest_memory *memory, const struct boot_file *kernel,
			 struct elf *elf, struct error *err)
{
	bool entry_loaded = false;

	for (unsigned int i = 0; i < elf->count; i++) {
		const Elf64_Phdr *p = &elf->segments[i];
		int r;

		if (p->p_type != PT_LOAD || !p->p_memsz)
			continue;
		r = boot_file_load(kernel, p->p_offset, memory, p->p_paddr, p->p_filesz, err);
		if (r)
			return r;
		/* After a reboot the pages hold what the last kernel left there. */
		if (guest_memory_zero(memory, p->p_paddr + p->p_filesz, p->p_memsz - p->p_filesz))
			return boot_file_bad(kernel, err, "segment %u: not guest RAM", i);
		entry_loaded |= elf->entry - p->p_paddr < p->p_memsz;
	}
	if (!entry_loaded)
		return boot_file_bad(kernel, err, "the entry point %#llx lies in no segment",
				     (unsigned long long)elf->entry);
	return 0;
}

static int write_parameters(struct guest_memory *memory, const struct x86_boot_options *options,
			    const struct boot_blob *initramfs)
{
	struct parameters p = { 0 };
	struct boot_range ranges[BOOT_RANGES_MAX];
	unsigned int count = boot_memory_map(memory, ranges);

	p.info = (struct start_info){
		.magic = START_INFO_MAGIC,
		.version = START_INFO_VERSION,
		.cmdline_paddr = BOOT_CMDLINE,
		.rsdp_paddr = options->rsdp,
		.memmap_paddr = BOOT_PARAMETERS + offsetof(struct parameters, memmap),
		.memmap_entries = count,
	};
	if (initramfs->size) {
		p.info.nr_modules = 1;
		p.info.modlist_paddr = BOOT_PARAMETERS + offsetof(struct parameters, initramfs);
		p.initramfs = (struct module_entry){
			.paddr = initramfs->gpa,
			.size = initramfs->size,
		};
	}
	for (unsigned int i = 0; i < count; i++)
		p.memmap[i] = (struct memmap_entry){
			.addr = ranges[i].start,
			.size = ranges[i].size,
			.type = ranges[i].type,
		};
	return guest_memory_write(memory, BOOT_PARAMETERS, &p, sizeof(p));
}

int boot_load_pvh(struct guest_memory *memory, const struct boot_file *kernel,
		  const struct x86_boot_options *options, struct x86_boot *boot, struct error *err)
{
	_cleanup_boot_file_ struct boot_file file = { .fd = -1 };
	struct elf elf = { 0 };
	struct boot_blob initramfs;
	uint64_t ram_end;
	int r;

	r = read_headers(kernel, &elf, err);
	if (!r)
		r = read_entry(kernel, &elf, err);
	if (!r)
		r = boot_low_ram_end(memory, &ram_end, err);
	if (!r)
		r = check_segments(kernel, &elf, ram_end, err);
	if (!r)
		r = boot_place_initramfs(&file, options->initramfs, elf.end, ram_end, &initramfs,
					 err);
	if (r)
		return r;
	boot_expect(memory, &(struct boot_kernel){ elf.start, elf.end - elf.start, elf.end },
		    &initramfs);
	r = load_segments(memory, kernel, &elf, err);
	if (!r)
		r = boot_write_cmdline(memory, options->cmdline, BOOT_CMDLINE_MAX, err);
	if (!r)
		r = boot_file_load(&file, 0, memory, initramfs.gpa, initramfs.size, err);
	if (r)
		return r;
	if (write_parameters(memory, options, &initramfs))
		return error_set(err, EFAULT, "boot: the boot area at %#llx is not guest RAM",
				 (unsigned long long)X86_BOOT_BASE);
	*boot = (struct x86_boot){
		.protocol = X86_BOOT_PVH,
		.entry = elf.entry,
		.parameters = BOOT_PARAMETERS,
	};
	return 0;
}
