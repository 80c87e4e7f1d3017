/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot directory: the input is the length of the file `state` (32 bits, little-endian),
 * that file, and the beginning of `ram`, which gets the length that the state asks for. What
 * opens is filled into RAM.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "migration/snapshot_private.h"

#define RAM_MOST (16 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(int dirfd, const char *name, const void *data, size_t len, uint64_t full)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, data, len) != (ssize_t)len || ftruncate(fd, (off_t)full))
		abort();
	close(fd);
}

static struct guest_memory *make_ram(const struct snapshot_layout *layout)
{
	struct guest_memory *memory = guest_memory_new_empty(NULL);

	for (unsigned int i = 0; memory && i < layout->count; i++) {
		const struct snapshot_region *region = &layout->regions[i];
		int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

		if (fd < 0 || ftruncate(fd, (off_t)region->size))
			abort();
		if (guest_memory_add(memory, region->gpa, region->size, fd, 0, NULL))
			close(fd);
	}
	return memory;
}

static void fill(const char *path)
{
	struct snapshot_read_options options = { .plain_io = true, .userfaultfd_device = -1 };
	struct snapshot *s = snapshot_open(path, NULL, NULL);
	const struct snapshot_file_region *shared;
	struct guest_memory *memory;
	unsigned int count;

	if (!s)
		return;
	snapshot_shared_regions(s, &shared, &count, NULL);
	memory = make_ram(&s->images[0]->layout);
	if (memory)
		snapshot_fill(s, memory, &options, NULL, NULL);
	guest_memory_free(memory);
	snapshot_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char path[] = "/tmp/fuzz-snapshot-XXXXXX";
	struct snapshot_image *image;
	struct state_node root;
	uint64_t ram = 0;
	uint32_t len;
	uint8_t *copy;
	int dirfd;

	if (size < 4)
		return -1;
	len = load_le32(data);
	data += 4;
	size -= 4;
	if (len > size)
		return -1;
	/* A tree lies at a multiple of 8. */
	copy = malloc(len + 1);
	image = malloc(sizeof(*image));
	if (!copy || !image)
		abort();
	memcpy(copy, data, len);
	if (!state_tree_open(copy, len, &root, NULL) && !snapshot_image_load(image, &root, NULL)) {
		if (image->layout.ram_size <= RAM_MOST)
			ram = image->file_size;
		snapshot_image_destroy(image);
	}
	free(image);
	free(copy);
	if (!ram || ram > RAM_MOST)
		return 0;
	if (!mkdtemp(path))
		abort();
	dirfd = open(path, O_RDONLY | O_DIRECTORY);
	put(dirfd, "state", data, len, len);
	put(dirfd, "ram", data + len, MIN((uint64_t)(size - len), ram), ram);
	put(dirfd, "config.json", "{}", 2, 2);
	fill(path);
	unlinkat(dirfd, "state", 0);
	unlinkat(dirfd, "ram", 0);
	unlinkat(dirfd, "config.json", 0);
	close(dirfd);
	rmdir(path);
	return 0;
}
