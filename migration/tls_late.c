/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/tls_late.h"

#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"

/* The compiler must not take it for what it is before gen_late.c has filled it in. */
const volatile struct tls_late tls_late = { .table = 0 };

/* The file's first byte in memory: the linker's. */
extern const uint8_t file_start[] __asm__("__ehdr_start") __attribute__((visibility("hidden")));

/* What libcrypto's .init calls instead (the linker's --wrap), and what it would call. */
void cpu_setup_at_start(void) __asm__("__wrap_OPENSSL_cpuid_setup");
extern void cpu_setup(void) __asm__("__real_OPENSSL_cpuid_setup") __attribute__((weak));

void cpu_setup_at_start(void)
{
}

static int apply(const Elf64_Rela *entries, uint64_t count, bool writable)
{
	uintptr_t base = (uintptr_t)file_start, page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t begin, end;

	if (!count)
		return 0;
	begin = align_down(base + entries[0].r_offset, page);
	end = align_up(base + entries[count - 1].r_offset + sizeof(uint64_t), page);
	if (!writable && mprotect((void *)begin, end - begin, PROT_READ | PROT_WRITE))
		return -errno;
	for (uint64_t i = 0; i < count; i++)
		*(uint64_t *)(base + entries[i].r_offset) = base + (uint64_t)entries[i].r_addend;
	if (!writable && mprotect((void *)begin, end - begin, PROT_READ))
		return -errno;
	return 0;
}

static int start_result;

static void start(void)
{
	const Elf64_Rela *entries = (const Elf64_Rela *)(file_start + tls_late.table);

	if (!tls_late.table)
		return;
	for (unsigned int i = 0; i < TLS_LATE_PARTS && !start_result; i++) {
		start_result = apply(entries, tls_late.parts[i].count, tls_late.parts[i].writable);
		entries += tls_late.parts[i].count;
	}
	if (cpu_setup)
		cpu_setup();
}

int tls_late_start(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, start);
	return start_result;
}
