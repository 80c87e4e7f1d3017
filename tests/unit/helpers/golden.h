/* SPDX-License-Identifier: Apache-2.0 */
/* State trees that Ferry has once written, and must read for ever: tests/golden/README.md. */
#ifndef TESTS_UNIT_HELPERS_GOLDEN_H
#define TESTS_UNIT_HELPERS_GOLDEN_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/state_tree.h"

#define GOLDEN_FOLDER "tests/golden/" /* unit tests run in the project's folder */

/* The file of that name, ending included; the caller's. A byte of zero follows it. */
static inline char *golden_file(const char *name, size_t *len)
{
	char path[512], *data = NULL;
	size_t capacity = 0, count;
	FILE *file;

	snprintf(path, sizeof(path), GOLDEN_FOLDER "%s", name);
	file = fopen(path, "re");
	ck_assert_msg(file, "%s: %s", path, strerror(errno));
	*len = 0;
	do {
		capacity += 65536;
		data = realloc(data, capacity + 1);
		ck_assert_ptr_nonnull(data);
		count = fread(data + *len, 1, capacity - *len, file);
		*len += count;
	} while (count);
	ck_assert(!ferror(file));
	fclose(file);
	data[*len] = '\0';
	return data;
}

/* NAME.dtb, opened: *blob is the caller's. */
static inline struct state_node golden_open(const char *name, void **blob)
{
	struct error err = ERROR_INIT;
	struct state_node root;
	char path[256];
	size_t len;

	snprintf(path, sizeof(path), "%s.dtb", name);
	*blob = golden_file(path, &len);
	ck_assert_msg(!state_tree_open(*blob, len, &root, &err), "%s: %s", path, err.message);
	return root;
}

/* The tree as `ferryctl state show` prints it; the caller's. */
static inline char *golden_text(const void *blob, size_t len)
{
	struct error err = ERROR_INIT;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	ck_assert_ptr_nonnull(out);
	ck_assert_msg(!state_tree_print(blob, len, out, &err), "%s", err.message);
	fclose(out);
	return text;
}

static inline void golden_create(const char *name, const char *ending, const void *data, size_t len)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), GOLDEN_FOLDER "%s.%s", name, ending);
	/* never over one that is there */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 && errno == EEXIST)
		return;
	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	close(fd);
}

/*
 * For the test of a save function: with FERRY_GOLDEN_WRITE set, what it saved becomes
 * NAME.dtb and NAME.txt, unless they exist. Does nothing otherwise.
 */
static inline void golden_write(const char *name, const void *blob, size_t len)
{
	char *text;

	if (!getenv("FERRY_GOLDEN_WRITE"))
		return;
	text = golden_text(blob, len);
	golden_create(name, "dtb", blob, len);
	golden_create(name, "txt", text, strlen(text));
	free(text);
}

#endif
