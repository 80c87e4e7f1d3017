/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a kernel: the loaders refuse them with a message, or load them inside
 * guest memory. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct guest_memory *memory, const struct x86_boot *boot, int r,
		  const struct error *err)
{
	if (r && (!err->message[0] || err->code != r))
		abort();
	if (!r && (boot->entry < X86_HIGH_MEMORY || !guest_memory_find(memory, boot->entry) ||
		   !guest_memory_find(memory, boot->parameters)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct guest_memory_options ram = {
		.size = 4 * MIB,
		.low_end = X86_LOW_RAM_END,
		.high_start = X86_HIGH_RAM_START,
	};
	struct x86_boot_options options = { .cmdline = "console=ttyS0" };
	struct guest_memory *memory = guest_memory_new(&ram, NULL);
	int fd = memfd_create("kernel", MFD_CLOEXEC);
	struct error err = ERROR_INIT;
	struct x86_boot boot;
	char path[64];

	if (!memory || fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	options.kernel = path;
	/* The file serves as its own initramfs in every second case. */
	if (size & 1)
		options.initramfs = path;
	check(memory, &boot, x86_boot_load(memory, &options, &boot, &err), &err);
	close(fd);
	guest_memory_free(memory);
	return 0;
}
