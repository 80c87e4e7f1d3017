/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer: libfdt's sequential functions on a buffer that doubles when they run out
 * of it. They check no order and no names, so this does.
 */
#include <endian.h>
#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/state_tree_private.h"
#include "base/strbuf.h"

#define FIRST_SIZE (64 * KIB) /* a small machine's */

struct level {
	char name[STATE_NAME_MAX + 1];
	bool has_child;		  /* no property may follow */
	struct strbuf properties; /* names, each with its NUL */
	struct strbuf children;
	struct strbuf required;
};

struct state_writer {
	void *fdt;
	size_t size; /* of the buffer */
	size_t entries;
	unsigned int depth; /* levels in use; the root is the first */
	struct level levels[STATE_TREE_DEPTH_MAX];
	struct error failure;
};

static struct level *current(struct state_writer *writer)
{
	return &writer->levels[writer->depth - 1];
}

static void reset_level(struct level *level)
{
	strbuf_free(&level->properties);
	strbuf_free(&level->children);
	strbuf_free(&level->required);
	memset(level, 0, sizeof(*level));
}

/* Where the writer is, for messages. */
static void writer_path(const struct state_writer *writer, char *path, size_t size)
{
	struct strbuf text = STRBUF_INIT;

	for (unsigned int i = 1; i < writer->depth; i++)
		strbuf_printf(&text, "/%s", writer->levels[i].name);
	snprintf(path, size, "%s", text.data ? text.data : "/");
	strbuf_free(&text);
}

static void fail(struct state_writer *writer, int code, const char *what, const char *name)
{
	char path[ERROR_MESSAGE_MAX / 2];

	if (writer->failure.code)
		return;
	writer_path(writer, path, sizeof(path));
	error_set(&writer->failure, code, "%s: %s %.*s", path, what, STATE_NAME_MAX,
		  name ? name : "(none)");
}

/* Doubles the buffer. False, and the failure noted, at the limit. */
static bool grow(struct state_writer *writer)
{
	size_t size = writer->size ? writer->size * 2 : FIRST_SIZE;
	void *fdt;
	int rc;

	if (size > 2 * (size_t)STATE_TREE_SIZE_MAX) {
		error_set(&writer->failure, EFBIG, "state tree: larger than %u MiB",
			  STATE_TREE_SIZE_MAX >> 20);
		return false;
	}
	fdt = calloc(1, size);
	if (!fdt) {
		error_set_errno(&writer->failure, ENOMEM, "state tree: %zu bytes", size);
		return false;
	}
	if (writer->fdt) {
		rc = fdt_resize(writer->fdt, fdt, (int)size);
		if (rc) {
			free(fdt);
			error_set(&writer->failure, EIO, "state tree: %s", fdt_strerror(rc));
			return false;
		}
		free(writer->fdt);
	}
	writer->fdt = fdt;
	writer->size = size;
	return true;
}

/* Repeats what libfdt had no room for: true when it is to be called again. */
static bool again(struct state_writer *writer, int rc)
{
	if (rc == -FDT_ERR_NOSPACE)
		return grow(writer);
	if (rc)
		error_set(&writer->failure, EIO, "state tree: %s", fdt_strerror(rc));
	return false;
}

#define WRITE(writer, call) \
	do { \
		while (again((writer), (call))) \
			; \
	} while (0)

/* Notes a name; false where it is there already. */
static bool note_name(struct strbuf *names, const char *name)
{
	size_t len = strlen(name) + 1;

	for (size_t at = 0; at < names->len; at += strlen(names->data + at) + 1) {
		if (!strcmp(names->data + at, name))
			return false;
	}
	strbuf_append(names, name, len);
	return !names->failed;
}

static bool count_entry(struct state_writer *writer)
{
	if (writer->entries++ < STATE_ENTRIES_MAX)
		return true;
	fail(writer, E2BIG, "too many nodes and properties, at", "this one");
	return false;
}

static void put(struct state_writer *writer, const char *name, const void *data, size_t len)
{
	if (writer->failure.code)
		return;
	if (!state_name_is_valid(name) ||
	    (!strcmp(name, STATE_REQUIRED) && data != current(writer)->required.data)) {
		fail(writer, EINVAL, "no name of a property:", name);
	} else if (current(writer)->has_child) {
		fail(writer, EINVAL, "after a node below it comes property", name);
	} else if (len > STATE_TREE_SIZE_MAX) {
		fail(writer, EFBIG, "too large is property", name);
	} else if (!note_name(&current(writer)->properties, name)) {
		fail(writer, EEXIST, "twice there is property", name);
	} else if (count_entry(writer)) {
		WRITE(writer, fdt_property(writer->fdt, name, len ? data : "", (int)len));
	}
}

/* The list of required properties is complete when a node below begins, or at the end. */
static void put_required(struct state_writer *writer)
{
	struct level *level = current(writer);

	if (!level->required.len || level->has_child)
		return;
	if (level->required.failed)
		fail(writer, ENOMEM, "no memory for property", STATE_REQUIRED);
	put(writer, STATE_REQUIRED, level->required.data, level->required.len);
}

static void begin(struct state_writer *writer, const char *name, const char *kind, uint32_t version)
{
	char compatible[sizeof(STATE_VENDOR) + STATE_NAME_MAX];

	WRITE(writer, fdt_begin_node(writer->fdt, name));
	writer->depth++;
	reset_level(current(writer));
	snprintf(current(writer)->name, sizeof(current(writer)->name), "%s", name);
	snprintf(compatible, sizeof(compatible), STATE_VENDOR "%s", kind);
	state_put_string(writer, STATE_COMPATIBLE, compatible);
	state_put_u32(writer, STATE_VERSION, version);
}

struct state_writer *state_writer_new(struct error *err)
{
	struct state_writer *writer = calloc(1, sizeof(*writer));

	if (!writer) {
		error_set_errno(err, ENOMEM, "state tree");
		return NULL;
	}
	if (grow(writer)) {
		/* To find a name again, libfdt looks at each byte of all there are: that is most
		 * of the time it takes, while a guest stands still. */
		WRITE(writer, fdt_create_with_flags(writer->fdt, (int)writer->size,
						    FDT_CREATE_FLAG_NO_NAME_DEDUP));
		WRITE(writer, fdt_finish_reservemap(writer->fdt));
		begin(writer, "", STATE_ROOT_KIND, STATE_ROOT_VERSION);
	}
	if (writer->failure.code) {
		error_set(err, writer->failure.code, "%s", writer->failure.message);
		state_writer_free(writer);
		return NULL;
	}
	return writer;
}

void state_writer_free(struct state_writer *writer)
{
	if (!writer)
		return;
	for (unsigned int i = 0; i < STATE_TREE_DEPTH_MAX; i++)
		reset_level(&writer->levels[i]);
	free(writer->fdt);
	free(writer);
}

void state_begin(struct state_writer *writer, const char *name, const char *kind, uint32_t version)
{
	if (writer->failure.code)
		return;
	if (!state_name_is_valid(name) || !state_name_is_valid(kind)) {
		fail(writer, EINVAL, "no name or kind of a node:", name);
		return;
	}
	if (writer->depth == STATE_TREE_DEPTH_MAX) {
		fail(writer, E2BIG, "too deep is node", name);
		return;
	}
	if (!note_name(&current(writer)->children, name)) {
		fail(writer, EEXIST, "twice there is node", name);
		return;
	}
	if (!count_entry(writer))
		return;
	put_required(writer);
	current(writer)->has_child = true;
	if (!writer->failure.code)
		begin(writer, name, kind, version);
}

void state_end(struct state_writer *writer)
{
	if (writer->failure.code)
		return;
	if (writer->depth == 1) {
		fail(writer, EINVAL, "ended more often than begun:", "the root");
		return;
	}
	put_required(writer);
	reset_level(current(writer));
	writer->depth--;
	WRITE(writer, fdt_end_node(writer->fdt));
}

void state_put_u32(struct state_writer *writer, const char *name, uint32_t value)
{
	value = htobe32(value);
	put(writer, name, &value, sizeof(value));
}

void state_put_u64(struct state_writer *writer, const char *name, uint64_t value)
{
	value = htobe64(value);
	put(writer, name, &value, sizeof(value));
}

void state_put_bool(struct state_writer *writer, const char *name, bool value)
{
	state_put_u32(writer, name, value);
}

void state_put_string(struct state_writer *writer, const char *name, const char *value)
{
	if (!value)
		fail(writer, EINVAL, "without a value is property", name);
	else
		put(writer, name, value, strlen(value) + 1);
}

void state_put_bytes(struct state_writer *writer, const char *name, const void *data, size_t len)
{
	if (!data && len)
		fail(writer, EINVAL, "without a value is property", name);
	else
		put(writer, name, data, len);
}

static bool has_name(const struct strbuf *names, const char *name)
{
	for (size_t at = 0; at < names->len; at += strlen(names->data + at) + 1) {
		if (!strcmp(names->data + at, name))
			return true;
	}
	return false;
}

void state_require(struct state_writer *writer, const char *name)
{
	struct level *level = current(writer);

	if (writer->failure.code)
		return;
	if (!name || !has_name(&level->properties, name))
		fail(writer, EINVAL, "required, but not there, is property", name);
	else if (level->has_child)
		fail(writer, EINVAL, "after a node below it is required property", name);
	else if (!has_name(&level->required, name))
		strbuf_append(&level->required, name, strlen(name) + 1);
}

int state_writer_finish(struct state_writer *writer, void **blob, size_t *len, struct error *err)
{
	void *shrunk;

	if (writer->depth > 1)
		fail(writer, EINVAL, "not ended is node", current(writer)->name);
	if (!writer->failure.code) {
		put_required(writer);
		WRITE(writer, fdt_end_node(writer->fdt));
		WRITE(writer, fdt_finish(writer->fdt));
	}
	if (!writer->failure.code && fdt_totalsize(writer->fdt) > STATE_TREE_SIZE_MAX)
		error_set(&writer->failure, EFBIG, "state tree: larger than %u MiB",
			  STATE_TREE_SIZE_MAX >> 20);
	if (writer->failure.code)
		return error_set(err, writer->failure.code, "%s", writer->failure.message);
	*len = fdt_totalsize(writer->fdt);
	shrunk = realloc(writer->fdt, *len);
	*blob = shrunk ? shrunk : writer->fdt;
	writer->fdt = NULL;
	error_set(&writer->failure, EINVAL, "state tree: written to after its end");
	return 0;
}
