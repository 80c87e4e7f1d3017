/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state tree: what a machine is made of, as a flattened device tree (Devicetree
 * Specification 0.4, chapter 5), written and read with libfdt.
 *
 * A node has a name, `compatible` = "ferry,<kind>", `version`, properties and nodes
 * below it. The same tree is the payload of a snapshot, a migration and a live update;
 * each device has one function that saves and one that loads. Bulk data (RAM, a
 * device's binary state) is not in here.
 *
 * Versions only grow: a reader takes every version up to its own. Properties it does
 * not know it ignores, unless the node lists them in `required`; a node of an unknown
 * kind, or of a newer version, it refuses. Messages name node and property by path
 * ("/machine/devices/disk0: property queue-size is missing").
 *
 * A tree that is read is hostile: bounds are checked once as a whole (fdt_check_full)
 * and each property when it is asked for.
 */
#ifndef BASE_STATE_TREE_H
#define BASE_STATE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define STATE_TREE_SIZE_MAX (64u << 20) /* bytes */
#define STATE_TREE_DEPTH_MAX 16

/* Writing. One thread. The first failure sticks: calls after it do nothing, and
 * state_writer_finish reports it; so the functions between need no checks. */
struct state_writer;

struct state_writer *state_writer_new(struct error *err);
void state_writer_free(struct state_writer *writer); /* NULL is allowed */

/* A node; kind without "ferry,". Names are [a-zA-Z0-9,._+@-], at most 63 bytes, unique
 * among their siblings. */
void state_begin(struct state_writer *writer, const char *name, const char *kind, uint32_t version);
void state_end(struct state_writer *writer);

/* Properties of the node begun last; before any node below it. */
void state_put_u32(struct state_writer *writer, const char *name, uint32_t value);
void state_put_u64(struct state_writer *writer, const char *name, uint64_t value);
void state_put_bool(struct state_writer *writer, const char *name, bool value); /* u32 */
void state_put_string(struct state_writer *writer, const char *name, const char *value);
void state_put_bytes(struct state_writer *writer, const char *name, const void *data, size_t len);
/* A reader that does not know this property must refuse the node; comes after it. */
void state_require(struct state_writer *writer, const char *name);

/* Closes the tree. *blob is malloc'ed, the caller's. */
int state_writer_finish(struct state_writer *writer, void **blob, size_t *len, struct error *err);

/* Reading. Nodes are values; they point into the blob, which must outlive them. */
struct state_node {
	const void *blob;
	int offset; /* of libfdt; < 0: no node */
};

/* Checks the whole of it and gives the root, whose name is empty. blob: at a multiple of 8
 * in memory (as malloc and mmap give it), and len its size to the byte. -EINVAL;
 * -EPROTONOSUPPORT the tree as a whole is of a newer version. */
int state_tree_open(const void *blob, size_t len, struct state_node *root, struct error *err);

/* The node of that name below parent: 0, or -ENOENT (err filled). */
int state_child(const struct state_node *parent, const char *name, struct state_node *child,
		struct error *err);
/* As state_child, false where there is none. */
bool state_has_child(const struct state_node *parent, const char *name, struct state_node *child);
/* Iteration: *child starts as { .offset = -1 }; false at the end. */
bool state_next_child(const struct state_node *parent, struct state_node *child);
const char *state_name(const struct state_node *node); /* "" for the root */
/* "/machine/devices/disk0", cut to size. */
void state_path(const struct state_node *node, char *path, size_t size);

/*
 * Is it of this kind and of a version up to `newest`, and does the reader know all the
 * properties that it lists in `required`? known: NULL-terminated, may be NULL. *version
 * may be NULL. -EINVAL another kind, -EPROTONOSUPPORT newer or unknown.
 */
int state_expect(const struct state_node *node, const char *kind, uint32_t newest,
		 const char *const *known, uint32_t *version, struct error *err);

/* A property: 0; -ENOENT absent; -EINVAL of another size. */
int state_get_u32(const struct state_node *node, const char *name, uint32_t *value,
		  struct error *err);
int state_get_u64(const struct state_node *node, const char *name, uint64_t *value,
		  struct error *err);
int state_get_bool(const struct state_node *node, const char *name, bool *value, struct error *err);
/* Points into the blob; terminated. */
int state_get_string(const struct state_node *node, const char *name, const char **value,
		     struct error *err);
/* Exactly len bytes are copied. */
int state_get_bytes(const struct state_node *node, const char *name, void *data, size_t len,
		    struct error *err);
/* Whatever its length; points into the blob, unaligned. */
int state_get_blob(const struct state_node *node, const char *name, const void **data, size_t *len,
		   struct error *err);
/* A number within [min, max], else -ERANGE naming it. */
int state_get_range(const struct state_node *node, const char *name, uint64_t min, uint64_t max,
		    uint64_t *value, struct error *err); /* of a u32 or u64 property */
bool state_has(const struct state_node *node, const char *name);

/* Readable text of a tree, for ferryctl: returns -EINVAL, or writes to `out` (FILE *). */
int state_tree_print(const void *blob, size_t len, void *out, struct error *err);

#endif
