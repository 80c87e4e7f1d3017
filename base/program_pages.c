/* SPDX-License-Identifier: Apache-2.0 */
#include "base/program_pages.h"

#include <link.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of the first object alone: that is the program. */
static int release(struct dl_phdr_info *info, size_t size, void *opaque)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	for (unsigned int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + segment->p_vaddr;
		uintptr_t end = start + segment->p_filesz;

		/* Nobody can have changed these: the file has what they are. */
		if (segment->p_type != PT_LOAD || segment->p_flags & PF_W)
			continue;
		start &= ~(page - 1);
		end = (end + page - 1) & ~(page - 1);
		madvise((void *)start, end - start, MADV_DONTNEED);
	}
	return 1;
}

void program_pages_release(void)
{
	dl_iterate_phdr(release, NULL);
}
