/* SPDX-License-Identifier: Apache-2.0 */
#include "boot_images.h"

#include <stdlib.h>

#include "tests/unit/helpers/run_suite.h"

/* Xen include/public/arch-x86/hvm/start_info.h */
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};

static struct image image, initramfs;

static const struct start_info *info_of(struct guest_memory *m, const struct x86_boot *boot)
{
	return guest_memory_ptr(m, boot->parameters, sizeof(struct start_info));
}

static void loaded(struct guest_memory *m, const struct x86_boot *boot)
{
	ck_assert_int_eq(boot->protocol, X86_BOOT_PVH);
	ck_assert_uint_eq(boot->entry, ELF_ENTRY);
	ck_assert_mem_eq(guest_memory_ptr(m, ELF_LOAD, ELF_FILESZ), image.bytes + ELF_DATA_OFFSET,
			 ELF_FILESZ);
}

START_TEST(elf64_is_loaded_at_its_physical_addresses)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	struct x86_boot boot;

	elf64(&image);
	boot = image_loads(&image, m, &(struct boot_case){ 0 });
	loaded(m, &boot);
	guest_memory_free(m);
}
END_TEST

START_TEST(elf32_is_loaded_as_well)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	struct x86_boot boot;

	elf32(&image);
	boot = image_loads(&image, m, &(struct boot_case){ 0 });
	loaded(m, &boot);
	guest_memory_free(m);
}
END_TEST

START_TEST(bss_is_zeroed)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	uint8_t *bss = guest_memory_ptr(m, ELF_LOAD + ELF_FILESZ, ELF_MEMSZ - ELF_FILESZ + 1);

	memset(bss, 0xcc, ELF_MEMSZ - ELF_FILESZ + 1);
	elf64(&image);
	image_loads(&image, m, &(struct boot_case){ 0 });
	for (unsigned int i = 0; i < ELF_MEMSZ - ELF_FILESZ; i++)
		ck_assert_uint_eq(bss[i], 0);
	ck_assert_uint_eq(bss[ELF_MEMSZ - ELF_FILESZ], 0xcc);
	guest_memory_free(m);
}
END_TEST

START_TEST(start_info_tells_what_the_kernel_gets)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	const struct start_info *info;
	const uint64_t *module;
	const uint8_t *map;
	struct x86_boot boot;

	elf64(&image);
	memset(&initramfs, 0, sizeof(initramfs));
	initramfs.size = 777;
	memset(initramfs.bytes, 0x5a, 777);
	boot = image_loads(&image, m,
			   &(struct boot_case){
				   .initramfs = image_path(&initramfs),
				   .cmdline = "a b",
			   });
	info = info_of(m, &boot);
	ck_assert_uint_eq(info->magic, 0x336ec578);
	ck_assert_uint_eq(info->version, 1);
	ck_assert_uint_eq(info->rsdp_paddr, X86_ACPI_BASE);
	ck_assert_str_eq(guest_memory_ptr(m, info->cmdline_paddr, 4), "a b");
	ck_assert_uint_eq(info->nr_modules, 1);
	module = guest_memory_ptr(m, info->modlist_paddr, 32);
	ck_assert_uint_eq(module[0], 16 * MIB - 4096);
	ck_assert_uint_eq(module[1], 777);
	ck_assert_mem_eq(guest_memory_ptr(m, module[0], 777), initramfs.bytes, 777);
	ck_assert_uint_eq(info->memmap_entries, 5);
	map = guest_memory_ptr(m, info->memmap_paddr, 5 * 24);
	ck_assert_uint_eq(load_le64(map), 0);
	ck_assert_uint_eq(load_le64(map + 8), X86_BOOT_END);
	ck_assert_uint_eq(load_le32(map + 16), 1);
	ck_assert_uint_eq(load_le64(map + 48), MIB);
	ck_assert_uint_eq(load_le64(map + 56), 15 * MIB);
	guest_memory_free(m);
}
END_TEST

START_TEST(no_initramfs_is_no_module)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	struct x86_boot boot;

	elf64(&image);
	boot = image_loads(&image, m, &(struct boot_case){ 0 });
	ck_assert_uint_eq(info_of(m, &boot)->nr_modules, 0);
	ck_assert_uint_eq(info_of(m, &boot)->modlist_paddr, 0);
	guest_memory_free(m);
}
END_TEST

START_TEST(note_behind_other_notes_is_found)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	struct x86_boot boot;
	uint8_t *n = image.bytes + ELF_NOTE_OFFSET;

	elf64(&image);
	memmove(n + 24, n, 24);
	store_le32(n, 4);
	store_le32(n + 4, 5); /* padded to 8 */
	store_le32(n + 8, 3);
	memcpy(n + 12, "GNU", 4);
	elf_segment(&image, 0)->p_filesz = 48;
	boot = image_loads(&image, m, &(struct boot_case){ 0 });
	loaded(m, &boot);
	guest_memory_free(m);
}
END_TEST

static void class_none(struct image *i)
{
	i->bytes[EI_CLASS] = 0;
}
static void big_endian(struct image *i)
{
	i->bytes[EI_DATA] = ELFDATA2MSB;
}
static void arm(struct image *i)
{
	elf_header(i)->e_machine = EM_AARCH64;
}
static void no_segments(struct image *i)
{
	elf_header(i)->e_phnum = 0;
}
static void many_segments(struct image *i)
{
	elf_header(i)->e_phnum = 65535;
}
static void odd_segments(struct image *i)
{
	elf_header(i)->e_phentsize = 32;
}
static void headers_outside(struct image *i)
{
	elf_header(i)->e_phoff = UINT64_MAX - 8;
}
static void no_note(struct image *i)
{
	elf_segment(i, 0)->p_type = PT_NULL;
}
static void other_note(struct image *i)
{
	store_le32(i->bytes + ELF_NOTE_OFFSET + 8, 17);
}
static void other_owner(struct image *i)
{
	i->bytes[ELF_NOTE_OFFSET + 12] = 'Z';
}
static void note_name_too_long(struct image *i)
{
	store_le32(i->bytes + ELF_NOTE_OFFSET, 0xfffffff0);
}
static void note_desc_too_long(struct image *i)
{
	store_le32(i->bytes + ELF_NOTE_OFFSET + 4, 0xfffffff0);
}
static void note_outside(struct image *i)
{
	elf_segment(i, 0)->p_offset = 1 * MIB;
}
static void note_too_large(struct image *i)
{
	elf_segment(i, 0)->p_filesz = 1ULL << 40;
}
static void data_outside(struct image *i)
{
	elf_segment(i, 1)->p_offset = ELF_DATA_OFFSET + 1;
}
static void data_offset_wraps(struct image *i)
{
	elf_segment(i, 1)->p_offset = UINT64_MAX - 100;
}
static void more_file_than_memory(struct image *i)
{
	elf_segment(i, 1)->p_memsz = ELF_FILESZ - 1;
}
static void below_one_mib(struct image *i)
{
	elf_segment(i, 1)->p_paddr = 0x70000;
}
static void beyond_ram(struct image *i)
{
	elf_segment(i, 1)->p_paddr = 16 * MIB - 4096;
}
static void address_wraps(struct image *i)
{
	elf_segment(i, 1)->p_paddr = UINT64_MAX - 4095;
}
static void huge_bss(struct image *i)
{
	elf_segment(i, 1)->p_memsz = UINT64_MAX;
}
static void entry_outside(struct image *i)
{
	elf_note(i, ELF_LOAD + ELF_MEMSZ, 8);
}
static void entry_high(struct image *i)
{
	elf_note(i, 0x100000000 + ELF_ENTRY, 8);
}
static void nothing_to_load(struct image *i)
{
	elf_segment(i, 1)->p_type = PT_NULL;
}

static const struct {
	void (*change)(struct image *i);
	const char *text;
} broken[] = {
	{ class_none, "not a little-endian 32- or 64-bit ELF file" },
	{ big_endian, "not a little-endian" },
	{ arm, "another machine (183)" },
	{ no_segments, "no program headers" },
	{ many_segments, "65535 program headers" },
	{ odd_segments, "program headers of 32 bytes, 56 expected" },
	{ headers_outside, "truncated" },
	{ no_note, "no PVH entry" },
	{ other_note, "no PVH entry" },
	{ other_owner, "CONFIG_PVH=y" },
	{ note_name_too_long, "no PVH entry" },
	{ note_desc_too_long, "no PVH entry" },
	{ note_outside, "truncated" },
	{ note_too_large, "a note segment of 0x10000000000 bytes" },
	{ data_outside, "truncated" },
	{ data_offset_wraps, "truncated" },
	{ more_file_than_memory, "segment 1: 0x1000 bytes in the file, 0xfff in memory" },
	{ below_one_mib, "segment 1: address 0x70000 is below 1 MiB" },
	{ beyond_ram, "do not fit into the guest memory below 4 GiB, which ends at 0x1000000" },
	{ address_wraps, "do not fit" },
	{ huge_bss, "do not fit" },
	{ entry_outside, "the entry point 0x102000 lies in no segment" },
	{ entry_high, "lies in no segment" },
	{ nothing_to_load, "lies in no segment" },
};

START_TEST(broken_elf_is_refused_with_its_fault)
{
	elf64(&image);
	broken[_i].change(&image);
	image_refused(&image, &(struct boot_case){ 0 }, broken[_i].text);
}
END_TEST

START_TEST(elf_cut_anywhere_is_refused)
{
	elf64(&image);
	for (size_t size = 4; size < ELF_DATA_OFFSET + ELF_FILESZ; size += 37) {
		image.size = size;
		image_refused(&image, &(struct boot_case){ 0 }, "truncated");
	}
}
END_TEST

START_TEST(initramfs_that_meets_the_kernel_is_refused)
{
	elf64(&image);
	memset(&initramfs, 0, sizeof(initramfs));
	initramfs.size = 8193;
	image_refused(&image,
		      &(struct boot_case){
			      .memory = MIB + ELF_MEMSZ + 8192,
			      .initramfs = image_path(&initramfs),
		      },
		      "do not fit into the 8 KiB");
}
END_TEST

START_TEST(command_line_larger_than_its_place_is_refused)
{
	char *text = malloc(200 * KIB);

	memset(text, 'x', 200 * KIB);
	text[200 * KIB - 1] = '\0';
	elf64(&image);
	image_refused(&image, &(struct boot_case){ .cmdline = text }, "kernel command line");
	free(text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("boot: PVH");
	TCase *tc = tcase_create("pvh");

	tcase_add_test(tc, elf64_is_loaded_at_its_physical_addresses);
	tcase_add_test(tc, elf32_is_loaded_as_well);
	tcase_add_test(tc, bss_is_zeroed);
	tcase_add_test(tc, start_info_tells_what_the_kernel_gets);
	tcase_add_test(tc, no_initramfs_is_no_module);
	tcase_add_test(tc, note_behind_other_notes_is_found);
	tcase_add_loop_test(tc, broken_elf_is_refused_with_its_fault, 0, ARRAY_SIZE(broken));
	tcase_add_test(tc, elf_cut_anywhere_is_refused);
	tcase_add_test(tc, initramfs_that_meets_the_kernel_is_refused);
	tcase_add_test(tc, command_line_larger_than_its_place_is_refused);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
