/* SPDX-License-Identifier: Apache-2.0 */
/* bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst). */
#include <asm/bootparam.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/bytes.h"
#include "vmm/x86/boot_private.h"

#define SECTOR 512U
#define HEADER_OFFSET 0x1f1U
#define HEADER_MAGIC 0x53726448U /* "HdrS" */
#define BOOT_FLAG 0xaa55U
#define PROTOCOL_2_12 0x020cU /* the first with xloadflags */
#define ENTRY_64 0x200U
#define LOADER_UNDEFINED 0xffU

/* The identity map ends there, and so must everything the kernel is handed. */
#define IDENTITY_MAP_END 0x100000000ULL

struct image {
	struct setup_header header;
	uint64_t offset, size; /* protected-mode part in the file */
	uint64_t load;	       /* gpa */
};

static int read_header(const struct boot_file *kernel, struct image *image, struct error *err)
{
	struct setup_header *h = &image->header;
	uint8_t setup[SECTOR + 0x100] = { 0 };
	size_t end;
	int r;

	if (kernel->size < HEADER_OFFSET + sizeof(*h))
		return boot_file_bad(kernel, err,
				     "neither a bzImage nor an ELF file (%llu bytes only)",
				     (unsigned long long)kernel->size);
	r = boot_file_read(kernel, 0, setup, MIN(sizeof(setup), kernel->size), err);
	if (r)
		return r;
	memcpy(h, setup + HEADER_OFFSET, sizeof(*h));
	if (h->boot_flag != BOOT_FLAG || h->header != HEADER_MAGIC)
		return boot_file_bad(kernel, err, "neither a bzImage nor an ELF file");
	if (h->version < PROTOCOL_2_12)
		return boot_file_bad(kernel, err,
				     "boot protocol %u.%02u is too old, 2.12 is needed",
				     h->version >> 8, h->version & 0xff);
	if (!(h->xloadflags & XLF_KERNEL_64))
		return boot_file_bad(kernel, err, "a 32-bit kernel, a 64-bit one is needed");
	/* The header says where it ends: what lies behind is code, not fields. */
	end = 0x202 + (h->jump >> 8);
	if (end < HEADER_OFFSET + offsetof(struct setup_header, handover_offset))
		return boot_file_bad(kernel, err, "the setup header is only %zu bytes",
				     end - HEADER_OFFSET);
	if (end < HEADER_OFFSET + sizeof(*h))
		memset((uint8_t *)h + (end - HEADER_OFFSET), 0, HEADER_OFFSET + sizeof(*h) - end);
	return 0;
}

static int check_image(const struct boot_file *kernel, struct image *image, struct error *err)
{
	const struct setup_header *h = &image->header;
	/* The protocol's reading of 0 sectors is 4. */
	uint64_t sectors = h->setup_sects ? h->setup_sects : 4;
	uint64_t wanted = (uint64_t)h->syssize * 16;

	image->offset = (sectors + 1) * SECTOR;
	if (image->offset >= kernel->size)
		return boot_file_bad(kernel, err,
				     "truncated: the setup part takes %llu bytes, the file has "
				     "%llu",
				     (unsigned long long)image->offset,
				     (unsigned long long)kernel->size);
	image->size = kernel->size - image->offset;
	/* syssize is rounded up to 16 by some builds. */
	if (image->size + 15 < wanted)
		return boot_file_bad(kernel, err,
				     "truncated: the kernel takes %llu bytes, the file has %llu "
				     "of them",
				     (unsigned long long)wanted, (unsigned long long)image->size);
	if (wanted <= ENTRY_64)
		return boot_file_bad(kernel, err, "the kernel is only %llu bytes",
				     (unsigned long long)wanted);
	if (image->size > h->init_size)
		return boot_file_bad(kernel, err,
				     "corrupt: init_size %#x is less than the %#llx bytes of the "
				     "kernel",
				     h->init_size, (unsigned long long)image->size);
	if (h->relocatable_kernel &&
	    (!is_power_of_2(h->kernel_alignment) || h->kernel_alignment > GIB))
		return boot_file_bad(kernel, err, "corrupt: kernel_alignment is %#x",
				     h->kernel_alignment);
	return 0;
}

static int place(const struct boot_file *kernel, struct image *image, uint64_t ram_end,
		 struct error *err)
{
	const struct setup_header *h = &image->header;
	uint64_t end;

	image->load = h->pref_address;
	if (image->load < X86_HIGH_MEMORY || image->load >= IDENTITY_MAP_END)
		return boot_file_bad(kernel, err, "corrupt: pref_address is %#llx",
				     (unsigned long long)image->load);
	if (h->relocatable_kernel)
		image->load = align_up(image->load, h->kernel_alignment);
	/* A lower address gains nothing: a 64-bit kernel moves itself up to it. */
	end = image->load + h->init_size;
	if (end > ram_end)
		return error_set_kind(err, ERROR_BAD_REQUEST, ENOMEM,
				      "load kernel %s: it takes guest memory from %llu to %llu "
				      "MiB, the VM has %llu MiB below 4 GiB",
				      kernel->path, (unsigned long long)(image->load / MIB),
				      (unsigned long long)((end + MIB - 1) / MIB),
				      (unsigned long long)(ram_end / MIB));
	return 0;
}

static int write_gdt(struct guest_memory *memory)
{
	/* The protocol wants __BOOT_CS 0x10 (execute/read) and __BOOT_DS 0x18
	 * (read/write), both flat. */
	static const uint64_t gdt[] = { 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff };
	uint64_t bytes[ARRAY_SIZE(gdt)];

	for (size_t i = 0; i < ARRAY_SIZE(gdt); i++)
		store_le64(&bytes[i], gdt[i]);
	return guest_memory_write(memory, BOOT_GDT, bytes, sizeof(bytes));
}

#define PT_ENTRIES 512U
#define PT_TABLE 0x3ULL	   /* present, writable */
#define PT_PAGE_2M 0x83ULL /* present, writable, page size */

static int write_page_tables(struct guest_memory *memory)
{
	const uint64_t pdpt = BOOT_PAGE_TABLES + GUEST_PAGE_SIZE, pd = pdpt + GUEST_PAGE_SIZE;
	uint64_t table[PT_ENTRIES] = { 0 };
	int r;

	store_le64(&table[0], pdpt | PT_TABLE);
	r = guest_memory_write(memory, BOOT_PAGE_TABLES, table, sizeof(table));
	for (unsigned int i = 0; i < 4; i++)
		store_le64(&table[i], (pd + i * GUEST_PAGE_SIZE) | PT_TABLE);
	if (!r)
		r = guest_memory_write(memory, pdpt, table, sizeof(table));
	for (unsigned int d = 0; d < 4 && !r; d++) {
		for (unsigned int i = 0; i < PT_ENTRIES; i++)
			store_le64(&table[i],
				   (uint64_t)(d * PT_ENTRIES + i) * 2 * MIB | PT_PAGE_2M);
		r = guest_memory_write(memory, pd + d * GUEST_PAGE_SIZE, table, sizeof(table));
	}
	return r;
}

static int write_zero_page(struct guest_memory *memory, const struct image *image,
			   const struct x86_boot_options *options,
			   const struct boot_blob *initramfs)
{
	struct boot_params params = { .hdr = image->header };
	struct boot_range ranges[BOOT_RANGES_MAX];
	unsigned int count = boot_memory_map(memory, ranges);

	_Static_assert(BOOT_RANGES_MAX <= E820_MAX_ENTRIES_ZEROPAGE, "one e820 table");
	params.acpi_rsdp_addr = options->rsdp;
	params.hdr.type_of_loader = LOADER_UNDEFINED;
	params.hdr.ext_loader_type = 0;
	params.hdr.ext_loader_ver = 0;
	params.hdr.code32_start = (uint32_t)image->load;
	params.hdr.cmd_line_ptr = BOOT_CMDLINE;
	params.hdr.ramdisk_image = (uint32_t)initramfs->gpa;
	params.hdr.ramdisk_size = (uint32_t)initramfs->size;
	params.hdr.setup_data = 0;
	params.e820_entries = (uint8_t)count;
	for (unsigned int i = 0; i < count; i++)
		params.e820_table[i] = (struct boot_e820_entry){
			.addr = ranges[i].start,
			.size = ranges[i].size,
			.type = ranges[i].type,
		};
	return guest_memory_write(memory, BOOT_PARAMETERS, &params, sizeof(params));
}

int boot_load_linux64(struct guest_memory *memory, const struct boot_file *kernel,
		      const struct x86_boot_options *options, struct x86_boot *boot,
		      struct error *err)
{
	_cleanup_boot_file_ struct boot_file file = { .fd = -1 };
	struct boot_blob initramfs;
	struct image image = { 0 };
	struct boot_kernel taken;
	uint64_t ram_end;
	int r;

	r = read_header(kernel, &image, err);
	if (!r)
		r = check_image(kernel, &image, err);
	if (!r)
		r = boot_low_ram_end(memory, &ram_end, err);
	if (!r)
		r = place(kernel, &image, ram_end, err);
	if (r)
		return r;
	taken = (struct boot_kernel){ image.load, image.size, image.load + image.header.init_size };
	r = boot_place_initramfs(&file, options->initramfs, taken.end,
				 MIN(ram_end, (uint64_t)image.header.initrd_addr_max + 1),
				 &initramfs, err);
	if (r)
		return r;
	boot_expect(memory, &taken, &initramfs);
	r = boot_write_cmdline(memory, options->cmdline, image.header.cmdline_size, err);
	if (!r)
		r = boot_file_load(kernel, image.offset, memory, image.load, image.size, err);
	if (!r)
		r = boot_file_load(&file, 0, memory, initramfs.gpa, initramfs.size, err);
	if (r)
		return r;
	if (write_gdt(memory) || write_page_tables(memory) ||
	    write_zero_page(memory, &image, options, &initramfs))
		return error_set(err, EFAULT, "boot: the boot area at %#llx is not guest RAM",
				 (unsigned long long)X86_BOOT_BASE);
	*boot = (struct x86_boot){
		.protocol = X86_BOOT_LINUX64,
		.entry = image.load + ENTRY_64,
		.parameters = BOOT_PARAMETERS,
		.gdt = BOOT_GDT,
		.page_tables = BOOT_PAGE_TABLES,
	};
	return 0;
}
