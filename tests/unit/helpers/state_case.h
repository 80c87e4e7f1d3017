/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every device's save and load must do, whatever the device:
 *
 *	state_case_round_trip	a fresh device loads it, and saves the same bytes
 *	state_case_golden	so does the file of the version, written long ago
 *	state_case_refusals	each property missing, of another size or out of range,
 *				each node missing, of another kind or newer is refused
 *				by path and name
 *
 * The kind of property that has no wrong value, or no wrong size, is said in the case.
 */
#ifndef TESTS_UNIT_HELPERS_STATE_CASE_H
#define TESTS_UNIT_HELPERS_STATE_CASE_H

#include <libfdt.h>

#include "tests/unit/helpers/golden.h"

struct state_case {
	const char *golden;	       /* its file: "serial-v1" */
	void *(*make)(void);	       /* as the machine makes it */
	void (*prepare)(void *device); /* gives it a state; paused at the end */
	/* Write and read the tree's one node. */
	int (*save)(void *device, struct state_writer *writer, struct error *err);
	int (*load)(void *device, const struct state_node *node, struct error *err);
	void (*destroy)(void *device);
	/* NULL-terminated or NULL: properties for which any value will do, and any size. */
	const char *const *any_value, *const *any_size;
};

struct state_blob {
	void *data;
	size_t len;
};

static inline struct state_blob state_case_save(const struct state_case *c, void *device)
{
	struct error err = ERROR_INIT;
	struct state_writer *writer = state_writer_new(&err);
	struct state_blob blob;

	ck_assert_ptr_nonnull(writer);
	ck_assert_msg(!c->save(device, writer, &err), "save: %s", err.message);
	ck_assert_msg(!state_writer_finish(writer, &blob.data, &blob.len, &err), "%s", err.message);
	state_writer_free(writer);
	return blob;
}

static inline int state_case_load(const struct state_case *c, void *device, const void *blob,
				  size_t len, struct error *err)
{
	struct state_node root, node = { .offset = -1 };
	int r = state_tree_open(blob, len, &root, err);

	ck_assert_msg(!r, "%s", err->message);
	ck_assert(state_next_child(&root, &node));
	return c->load(device, &node, err);
}

static inline struct state_blob state_case_prepared(const struct state_case *c)
{
	void *device = c->make();
	struct state_blob blob;

	c->prepare(device);
	blob = state_case_save(c, device);
	c->destroy(device);
	return blob;
}

/* Loads it in a fresh device, and saves that. */
static inline void state_case_check_loads(const struct state_case *c, struct state_blob blob)
{
	struct error err = ERROR_INIT;
	void *device = c->make();
	struct state_blob again;
	char *was, *is;

	ck_assert_msg(!state_case_load(c, device, blob.data, blob.len, &err), "load: %s",
		      err.message);
	again = state_case_save(c, device);
	was = golden_text(blob.data, blob.len);
	is = golden_text(again.data, again.len);
	/* All that a tree says; how its names are stored may differ between versions. */
	ck_assert_str_eq(was, is);
	free(was);
	free(is);
	free(again.data);
	c->destroy(device);
}

static inline void state_case_round_trip(const struct state_case *c)
{
	struct state_blob blob = state_case_prepared(c);

	state_case_check_loads(c, blob);
	free(blob.data);
}

static inline void state_case_golden(const struct state_case *c)
{
	struct state_blob blob = state_case_prepared(c);

	golden_write(c->golden, blob.data, blob.len);
	free(blob.data);
	golden_open(c->golden, &blob.data);
	blob.len = fdt_totalsize(blob.data);
	state_case_check_loads(c, blob);
	free(blob.data);
}

static inline bool state_case_lists(const char *const *names, const char *name)
{
	for (; names && *names; names++)
		if (!strcmp(*names, name))
			return true;
	return false;
}

/* A copy with room for a change, and where `path` is in it. */
static inline int state_case_copy(struct state_blob blob, const char *path, void **copy)
{
	size_t size = blob.len + 8192;
	int node;

	*copy = malloc(size);
	ck_assert_int_eq(fdt_open_into(blob.data, *copy, (int)size), 0);
	node = fdt_path_offset(*copy, path);
	ck_assert_int_ge(node, 0);
	return node;
}

/* Loading it is refused, and says where and what. Frees copy. */
static inline void state_case_refused(const struct state_case *c, void *copy, const char *path,
				      const char *name, const char *what)
{
	struct error err = ERROR_INIT;
	void *device = c->make();
	int r;

	ck_assert_int_eq(fdt_pack(copy), 0);
	r = state_case_load(c, device, copy, fdt_totalsize(copy), &err);
	ck_assert_msg(r < 0 && err.code == r, "%s %s %s: load gives %d: %s", path, name, what, r,
		      err.message);
	ck_assert_msg(strstr(err.message, path) && strstr(err.message, name),
		      "%s %s %s: the message is: %s", path, name, what, err.message);
	c->destroy(device);
	free(copy);
}

static inline void state_case_property(const struct state_case *c, struct state_blob blob,
				       const char *path, const char *name, const void *value,
				       int len)
{
	uint8_t bytes[65536];
	void *copy;
	int node;

	ck_assert_int_lt(len, (int)sizeof(bytes) - 1);
	node = state_case_copy(blob, path, &copy);
	ck_assert_int_eq(fdt_delprop(copy, node, name), 0);
	state_case_refused(c, copy, path, name, "missing");

	memcpy(bytes, value, (size_t)len);
	bytes[len] = 0;
	for (int by = -1; by <= 1 && !state_case_lists(c->any_size, name); by += 2) {
		if (len + by < 0)
			continue;
		node = state_case_copy(blob, path, &copy);
		ck_assert_int_eq(fdt_setprop(copy, node, name, bytes, len + by), 0);
		state_case_refused(c, copy, path, name, by < 0 ? "shorter" : "longer");
	}
	if (state_case_lists(c->any_value, name) || !len)
		return;
	memset(bytes, 0xff, (size_t)len);
	node = state_case_copy(blob, path, &copy);
	ck_assert_int_eq(fdt_setprop(copy, node, name, bytes, len), 0);
	state_case_refused(c, copy, path, name, "all ones");
}

static inline void state_case_node(const struct state_case *c, struct state_blob blob,
				   const struct state_node *node)
{
	struct state_node child = { .offset = -1 };
	char path[256], *slash;
	void *copy;
	int at;

	state_path(node, path, sizeof(path));
	fdt_for_each_property_offset(at, node->blob, node->offset)
	{
		const char *name;
		int len;
		const void *value = fdt_getprop_by_offset(node->blob, at, &name, &len);

		state_case_property(c, blob, path, name, value, len);
	}
	at = state_case_copy(blob, path, &copy);
	ck_assert_int_eq(fdt_setprop_string(copy, at, "compatible", "ferry,another"), 0);
	state_case_refused(c, copy, path, "kind", "another");
	while (state_next_child(node, &child))
		state_case_node(c, blob, &child);
	slash = strrchr(path, '/');
	if (slash == path) /* without it there is nothing to load */
		return;
	at = state_case_copy(blob, path, &copy);
	ck_assert_int_eq(fdt_del_node(copy, at), 0);
	*slash = '\0';
	state_case_refused(c, copy, path, slash + 1, "missing");
}

static inline void state_case_refusals(const struct state_case *c)
{
	struct state_blob blob = state_case_prepared(c);
	struct state_node root, node = { .offset = -1 };

	ck_assert_int_eq(state_tree_open(blob.data, blob.len, &root, NULL), 0);
	ck_assert(state_next_child(&root, &node));
	state_case_node(c, blob, &node);
	free(blob.data);
}

#endif
