/* SPDX-License-Identifier: Apache-2.0 */
#include "boot_images.h"

#include "tests/unit/helpers/run_suite.h"

static struct image image, initramfs;

static const struct boot_params *zero_page(struct guest_memory *m, const struct x86_boot *boot)
{
	return guest_memory_ptr(m, boot->parameters, sizeof(struct boot_params));
}

static void make_initramfs(size_t size)
{
	memset(&initramfs, 0, sizeof(initramfs));
	initramfs.size = size;
	memset(initramfs.bytes, 0xa5, size);
}

START_TEST(bzimage_is_loaded_at_its_preferred_address)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	struct x86_boot boot;

	bzimage(&image);
	boot = image_loads(&image, m, &(struct boot_case){ 0 });
	ck_assert_int_eq(boot.protocol, X86_BOOT_LINUX64);
	ck_assert_uint_eq(boot.entry, BZIMAGE_LOAD + 0x200);
	ck_assert_mem_eq(guest_memory_ptr(m, BZIMAGE_LOAD, BZIMAGE_KERNEL),
			 image.bytes + BZIMAGE_OFFSET, BZIMAGE_KERNEL);
	guest_memory_free(m);
}
END_TEST

START_TEST(unaligned_preferred_address_is_rounded_up)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	struct x86_boot boot;

	bzimage(&image);
	bzimage_header(&image)->pref_address = BZIMAGE_LOAD + 4096;
	boot = image_loads(&image, m, &(struct boot_case){ 0 });
	ck_assert_uint_eq(boot.entry, 4 * MIB + 0x200);
	guest_memory_free(m);
}
END_TEST

START_TEST(setup_sectors_of_zero_mean_four)
{
	struct guest_memory *m = guest_ram(16 * MIB);

	bzimage(&image);
	bzimage_header(&image)->setup_sects = 0;
	image_loads(&image, m, &(struct boot_case){ 0 });
	ck_assert_mem_eq(guest_memory_ptr(m, BZIMAGE_LOAD, BZIMAGE_KERNEL),
			 image.bytes + BZIMAGE_OFFSET, BZIMAGE_KERNEL);
	guest_memory_free(m);
}
END_TEST

START_TEST(zero_page_tells_what_the_kernel_gets)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	const struct boot_params *p;
	struct x86_boot boot;

	bzimage(&image);
	make_initramfs(5000);
	boot = image_loads(&image, m,
			   &(struct boot_case){
				   .initramfs = image_path(&initramfs),
				   .cmdline = "console=ttyS0",
			   });
	p = zero_page(m, &boot);
	ck_assert_uint_eq(p->acpi_rsdp_addr, X86_ACPI_BASE);
	ck_assert_uint_eq(p->hdr.type_of_loader, 0xff);
	ck_assert_uint_eq(p->hdr.setup_data, 0);
	ck_assert_uint_eq(p->sentinel, 0);
	ck_assert_str_eq(guest_memory_ptr(m, p->hdr.cmd_line_ptr, 14), "console=ttyS0");
	ck_assert_uint_eq(p->hdr.ramdisk_size, 5000);
	ck_assert_uint_eq(p->hdr.ramdisk_image, 16 * MIB - 8192);
	ck_assert_mem_eq(guest_memory_ptr(m, p->hdr.ramdisk_image, 5000), initramfs.bytes, 5000);
	guest_memory_free(m);
}
END_TEST

START_TEST(fields_behind_the_end_of_the_header_are_not_taken)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	struct x86_boot boot;

	bzimage(&image);
	bzimage_header(&image)->jump = 0xeb | 0x62 << 8; /* up to init_size */
	bzimage_header(&image)->handover_offset = 0x1190;
	boot = image_loads(&image, m, &(struct boot_case){ 0 });
	ck_assert_uint_eq(zero_page(m, &boot)->hdr.handover_offset, 0);
	ck_assert_uint_eq(zero_page(m, &boot)->hdr.init_size, BZIMAGE_INIT_SIZE);
	guest_memory_free(m);
}
END_TEST

START_TEST(initramfs_stays_below_the_highest_address_the_kernel_takes)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	const struct boot_params *p;
	struct x86_boot boot;

	bzimage(&image);
	bzimage_header(&image)->initrd_addr_max = 8 * MIB - 1;
	make_initramfs(4097);
	boot = image_loads(&image, m, &(struct boot_case){ .initramfs = image_path(&initramfs) });
	p = zero_page(m, &boot);
	ck_assert_uint_eq(p->hdr.ramdisk_image, 8 * MIB - 8192);
	guest_memory_free(m);
}
END_TEST

static void range_is(const struct boot_params *p, unsigned int i, uint64_t start, uint64_t end,
		     uint32_t type)
{
	ck_assert_uint_gt(p->e820_entries, i);
	ck_assert_uint_eq(p->e820_table[i].addr, start);
	ck_assert_uint_eq(p->e820_table[i].addr + p->e820_table[i].size, end);
	ck_assert_uint_eq(p->e820_table[i].type, type);
}

START_TEST(memory_map_of_a_small_guest)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	const struct boot_params *p;
	struct x86_boot boot;

	bzimage(&image);
	boot = image_loads(&image, m, &(struct boot_case){ 0 });
	p = zero_page(m, &boot);
	ck_assert_uint_eq(p->e820_entries, 5);
	range_is(p, 0, 0, X86_BOOT_END, 1);
	range_is(p, 1, X86_BOOT_END, MIB, 2);
	range_is(p, 2, MIB, 16 * MIB, 1);
	range_is(p, 3, X86_ECAM_BASE, X86_ECAM_BASE + X86_ECAM_SIZE, 2);
	range_is(p, 4, X86_KVM_IDENTITY_MAP, X86_KVM_TSS + 0x3000, 2);
	guest_memory_free(m);
}
END_TEST

START_TEST(memory_map_goes_on_above_four_gib)
{
	struct guest_memory_options options = {
		.size = 24 * MIB,
		.low_end = 16 * MIB,
		.high_start = X86_HIGH_RAM_START,
	};
	struct guest_memory *m = guest_memory_new(&options, NULL);
	const struct boot_params *p;
	struct x86_boot boot;

	ck_assert_ptr_nonnull(m);
	bzimage(&image);
	boot = image_loads(&image, m, &(struct boot_case){ 0 });
	p = zero_page(m, &boot);
	ck_assert_uint_eq(p->e820_entries, 6);
	range_is(p, 2, MIB, 16 * MIB, 1);
	range_is(p, 3, X86_ECAM_BASE, X86_ECAM_BASE + X86_ECAM_SIZE, 2);
	range_is(p, 5, X86_HIGH_RAM_START, X86_HIGH_RAM_START + 8 * MIB, 1);
	guest_memory_free(m);
}
END_TEST

START_TEST(page_tables_map_four_gib_to_themselves)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	const uint64_t *table;
	struct x86_boot boot;

	bzimage(&image);
	boot = image_loads(&image, m, &(struct boot_case){ 0 });
	for (uint64_t gpa = 0; gpa < 4 * GIB; gpa += 2 * MIB) {
		table = guest_memory_ptr(m, boot.page_tables, 4096);
		table = guest_memory_ptr(m, table[0] & ~0xfffULL, 4096);
		table = guest_memory_ptr(m, table[gpa >> 30] & ~0xfffULL, 4096);
		ck_assert_uint_eq(table[gpa >> 21 & 511], gpa | 0x83);
	}
	table = guest_memory_ptr(m, boot.gdt, 32);
	ck_assert_uint_eq(table[2] >> 40 & 0xff, 0x9b); /* __BOOT_CS: code */
	ck_assert_uint_eq(table[2] >> 53 & 1, 1);	/* 64-bit */
	ck_assert_uint_eq(table[3] >> 40 & 0xff, 0x93); /* __BOOT_DS: data */
	guest_memory_free(m);
}
END_TEST

/* One change to a good image, and what the error then says. */
static void no_flag(struct setup_header *h)
{
	h->boot_flag = 0;
}
static void no_magic(struct setup_header *h)
{
	h->header = 0;
}
static void old_protocol(struct setup_header *h)
{
	h->version = 0x020b;
}
static void kernel_32(struct setup_header *h)
{
	h->xloadflags = 0;
}
static void short_header(struct setup_header *h)
{
	h->jump = 0xeb | 0x20 << 8;
}
static void many_sectors(struct setup_header *h)
{
	h->setup_sects = 255;
}
static void large_kernel(struct setup_header *h)
{
	h->syssize = 0xffffffff;
}
static void tiny_kernel(struct setup_header *h)
{
	h->syssize = 1;
}
static void small_init_size(struct setup_header *h)
{
	h->init_size = 4096;
}
static void odd_alignment(struct setup_header *h)
{
	h->kernel_alignment = 0x300000;
}
static void zero_alignment(struct setup_header *h)
{
	h->kernel_alignment = 0;
}
static void huge_alignment(struct setup_header *h)
{
	h->kernel_alignment = 1U << 31;
}
static void zero_address(struct setup_header *h)
{
	h->pref_address = 0;
}
static void top_address(struct setup_header *h)
{
	h->pref_address = UINT64_MAX - 4096;
}
static void beyond_ram(struct setup_header *h)
{
	h->pref_address = 32 * MIB;
}
static void huge_init_size(struct setup_header *h)
{
	h->init_size = 0xffffffff;
}

static const struct {
	void (*change)(struct setup_header *h);
	const char *text;
} broken[] = {
	{ no_flag, "neither a bzImage nor an ELF file" },
	{ no_magic, "neither a bzImage nor an ELF file" },
	{ old_protocol, "boot protocol 2.11 is too old" },
	{ kernel_32, "32-bit kernel" },
	{ short_header, "setup header is only" },
	{ many_sectors, "truncated: the setup part" },
	{ large_kernel, "truncated: the kernel takes" },
	{ tiny_kernel, "the kernel is only 16 bytes" },
	{ small_init_size, "init_size" },
	{ odd_alignment, "kernel_alignment is 0x300000" },
	{ zero_alignment, "kernel_alignment is 0" },
	{ huge_alignment, "kernel_alignment" },
	{ zero_address, "pref_address is 0" },
	{ top_address, "pref_address is 0xff" },
	{ beyond_ram, "takes guest memory from 32 to 33 MiB, the VM has 16 MiB" },
	{ huge_init_size, "takes guest memory from 2 to" },
};

START_TEST(broken_bzimage_is_refused_with_its_fault)
{
	bzimage(&image);
	broken[_i].change(bzimage_header(&image));
	image_refused(&image, &(struct boot_case){ 0 }, broken[_i].text);
}
END_TEST

START_TEST(bzimage_cut_anywhere_is_refused)
{
	bzimage(&image);
	for (size_t size = 0; size < BZIMAGE_OFFSET + BZIMAGE_KERNEL - 16; size += 61) {
		image.size = size;
		image_refused(&image, &(struct boot_case){ 0 }, "load kernel /proc/self/fd/");
	}
}
END_TEST

START_TEST(command_line_longer_than_the_kernel_takes_is_refused)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	char text[2049];

	memset(text, 'x', sizeof(text));
	text[2048] = '\0';
	bzimage(&image);
	image_refused(&image, &(struct boot_case){ .cmdline = text }, "2048 bytes");
	text[2047] = '\0';
	image_loads(&image, m, &(struct boot_case){ .cmdline = text });
	guest_memory_free(m);
}
END_TEST

START_TEST(initramfs_that_does_not_fit_is_refused)
{
	static const struct boot_case at = { .memory = 3 * MIB + 16 * KIB };
	struct boot_case c = at;

	bzimage(&image);
	make_initramfs(16 * KIB + 1);
	c.initramfs = image_path(&initramfs);
	image_refused(&image, &c, "do not fit into the 16 KiB");
	make_initramfs(0);
	c.initramfs = image_path(&initramfs);
	image_refused(&image, &c, "the file is empty");
	c.initramfs = "/nonexistent/initramfs";
	image_refused(&image, &c, "load initramfs /nonexistent/initramfs: No such file");
}
END_TEST

START_TEST(initramfs_takes_the_last_page_there_is)
{
	struct guest_memory *m = guest_ram(3 * MIB + 16 * KIB);
	struct x86_boot boot;

	bzimage(&image);
	make_initramfs(16 * KIB);
	boot = image_loads(&image, m, &(struct boot_case){ .initramfs = image_path(&initramfs) });
	ck_assert_uint_eq(zero_page(m, &boot)->hdr.ramdisk_image, 3 * MIB);
	guest_memory_free(m);
}
END_TEST

START_TEST(memory_without_room_above_one_mib_is_refused)
{
	bzimage(&image);
	image_refused(&image, &(struct boot_case){ .memory = MIB }, "1024 KiB of guest memory");
}
END_TEST

START_TEST(what_is_no_regular_file_is_refused)
{
	struct guest_memory *m = guest_ram(16 * MIB);
	static const struct {
		const char *path, *text;
	} cases[] = {
		{ "/nonexistent/kernel", "load kernel /nonexistent/kernel: No such file" },
		{ "/tmp", "not a regular file" },
		{ "/dev/zero", "not a regular file" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct x86_boot_options options = { .kernel = cases[i].path };
		struct error err = ERROR_INIT;
		struct x86_boot boot;

		ck_assert_int_lt(x86_boot_load(m, &options, &boot, &err), 0);
		ck_assert_msg(strstr(err.message, cases[i].text) != NULL, "%s", err.message);
	}
	guest_memory_free(m);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("boot: bzImage");
	TCase *tc = tcase_create("linux");

	tcase_add_test(tc, bzimage_is_loaded_at_its_preferred_address);
	tcase_add_test(tc, unaligned_preferred_address_is_rounded_up);
	tcase_add_test(tc, setup_sectors_of_zero_mean_four);
	tcase_add_test(tc, zero_page_tells_what_the_kernel_gets);
	tcase_add_test(tc, fields_behind_the_end_of_the_header_are_not_taken);
	tcase_add_test(tc, initramfs_stays_below_the_highest_address_the_kernel_takes);
	tcase_add_test(tc, memory_map_of_a_small_guest);
	tcase_add_test(tc, memory_map_goes_on_above_four_gib);
	tcase_add_test(tc, page_tables_map_four_gib_to_themselves);
	tcase_add_loop_test(tc, broken_bzimage_is_refused_with_its_fault, 0, ARRAY_SIZE(broken));
	tcase_add_test(tc, bzimage_cut_anywhere_is_refused);
	tcase_add_test(tc, command_line_longer_than_the_kernel_takes_is_refused);
	tcase_add_test(tc, initramfs_that_does_not_fit_is_refused);
	tcase_add_test(tc, initramfs_takes_the_last_page_there_is);
	tcase_add_test(tc, memory_without_room_above_one_mib_is_refused);
	tcase_add_test(tc, what_is_no_regular_file_is_refused);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
