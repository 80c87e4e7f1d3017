/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Build-time program: takes the relocations of OpenSSL's data out of those that a linked
 * ferry does at its start, and says in its `tls_late` where they are (tls_late.h). The
 * table of relocations (ELF gABI, "Relocation"; DT_RELA, DT_RELASZ, DT_RELACOUNT) is sorted
 * anew, those of OpenSSL behind its end.
 *
 *   gen_late FILE
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migration/tls_late.h"

struct part {
	const char *begin_name, *end_name;
	bool writable;
	uint64_t begin, end;
};

static struct part parts[TLS_LATE_PARTS] = {
	{ "tls_late_local_begin", "tls_late_local_end", false, 0, 0 },
	{ "tls_late_constant_begin", "tls_late_constant_end", false, 0, 0 },
	{ "tls_late_data_begin", "tls_late_data_end", true, 0, 0 },
};

static uint8_t *file;
static uint64_t file_size;

static void die(const char *what)
{
	fprintf(stderr, "gen_late: %s\n", what);
	exit(1);
}

static void *at(uint64_t offset, uint64_t len)
{
	if (offset > file_size || len > file_size - offset)
		die("the file is cut off");
	return file + offset;
}

static void map_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || st.st_size < (off_t)sizeof(Elf64_Ehdr))
		die(path);
	file_size = (uint64_t)st.st_size;
	file = mmap(NULL, file_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (file == MAP_FAILED)
		die(strerror(errno));
	close(fd);
}

static const Elf64_Ehdr *header(void)
{
	const Elf64_Ehdr *ehdr = at(0, sizeof(*ehdr));

	if (memcmp(ehdr->e_ident, ELFMAG, SELFMAG) != 0 || ehdr->e_ident[EI_CLASS] != ELFCLASS64 ||
	    ehdr->e_type != ET_DYN || ehdr->e_machine != EM_X86_64)
		die("the file is no position-independent ELF of x86-64");
	return ehdr;
}

/* Where an address of the file's image is in the file. */
static void *at_address(uint64_t address, uint64_t len)
{
	const Elf64_Ehdr *ehdr = header();
	const Elf64_Phdr *phdr = at(ehdr->e_phoff, ehdr->e_phnum * sizeof(*phdr));

	for (unsigned int i = 0; i < ehdr->e_phnum; i++)
		if (phdr[i].p_type == PT_LOAD && address >= phdr[i].p_vaddr &&
		    address - phdr[i].p_vaddr + len <= phdr[i].p_filesz)
			return at(address - phdr[i].p_vaddr + phdr[i].p_offset, len);
	die("an address is outside of the file");
	return NULL;
}

static uint64_t find_symbol(const char *name)
{
	const Elf64_Ehdr *ehdr = header();
	const Elf64_Shdr *shdr = at(ehdr->e_shoff, ehdr->e_shnum * sizeof(*shdr));

	for (unsigned int i = 0; i < ehdr->e_shnum; i++) {
		const Elf64_Sym *symbols;
		const char *names;

		if (shdr[i].sh_type != SHT_SYMTAB || shdr[i].sh_link >= ehdr->e_shnum)
			continue;
		symbols = at(shdr[i].sh_offset, shdr[i].sh_size);
		names = at(shdr[shdr[i].sh_link].sh_offset, shdr[shdr[i].sh_link].sh_size);
		for (uint64_t k = 0; k < shdr[i].sh_size / sizeof(*symbols); k++)
			if (!strcmp(names + symbols[k].st_name, name))
				return symbols[k].st_value;
	}
	die(name);
	return 0;
}

static Elf64_Dyn *find_dynamic(int64_t tag)
{
	const Elf64_Ehdr *ehdr = header();
	const Elf64_Phdr *phdr = at(ehdr->e_phoff, ehdr->e_phnum * sizeof(*phdr));

	for (unsigned int i = 0; i < ehdr->e_phnum; i++) {
		Elf64_Dyn *dynamic = at(phdr[i].p_offset, 0);

		if (phdr[i].p_type != PT_DYNAMIC)
			continue;
		for (uint64_t k = 0; k < phdr[i].p_filesz / sizeof(*dynamic); k++)
			if (dynamic[k].d_tag == tag)
				return &dynamic[k];
	}
	die("the file has no relocations of the kind that is looked for");
	return NULL;
}

static int part_of(const Elf64_Rela *entry)
{
	for (int i = 0; i < TLS_LATE_PARTS; i++)
		if (ELF64_R_TYPE(entry->r_info) == R_X86_64_RELATIVE &&
		    entry->r_offset >= parts[i].begin && entry->r_offset < parts[i].end)
			return i;
	return -1;
}

static int by_address(const void *a, const void *b)
{
	const Elf64_Rela *x = a, *y = b;

	return (x->r_offset > y->r_offset) - (x->r_offset < y->r_offset);
}

int main(int argc, char **argv)
{
	Elf64_Dyn *size, *relative;
	struct tls_late *late;
	Elf64_Rela *table, *copy;
	uint64_t count, done = 0;

	if (argc != 2)
		die("which file?");
	map_file(argv[1]);
	size = find_dynamic(DT_RELASZ);
	relative = find_dynamic(DT_RELACOUNT);
	late = at_address(find_symbol("tls_late"), sizeof(*late));
	if (late->table)
		die("it was done already");
	for (int i = 0; i < TLS_LATE_PARTS; i++) {
		parts[i].begin = find_symbol(parts[i].begin_name);
		parts[i].end = find_symbol(parts[i].end_name);
		if (parts[i].begin > parts[i].end)
			die("the linker's order is another: markers are not around OpenSSL");
	}
	count = size->d_un.d_val / sizeof(*table);
	late->table = find_dynamic(DT_RELA)->d_un.d_ptr;
	table = at_address(late->table, size->d_un.d_val);
	copy = malloc(count * sizeof(*copy));
	if (!copy)
		die("no memory");
	memcpy(copy, table, count * sizeof(*copy));
	/* RELATIVE ones come first, and so they do afterwards. */
	for (uint64_t i = 0; i < count; i++)
		if (part_of(&copy[i]) < 0)
			table[done++] = copy[i];
	late->table += done * sizeof(*table);
	relative->d_un.d_val -= count - done;
	size->d_un.d_val = done * sizeof(*table);
	for (int part = 0; part < TLS_LATE_PARTS; part++) {
		uint64_t first = done;

		for (uint64_t i = 0; i < count; i++)
			if (part_of(&copy[i]) == part)
				table[done++] = copy[i];
		qsort(table + first, done - first, sizeof(*table), by_address);
		late->parts[part].count = done - first;
		late->parts[part].writable = parts[part].writable;
	}
	free(copy);
	return 0;
}
