/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree from a file or a peer is looked at as a whole before any node of it is used.
 *
 * The walk below is by hand: libfdt 1.6 adds a property's length to an int without
 * looking (it can go backwards, for ever), takes a name as long as the strings block,
 * and allows properties behind nodes, which its readers then do not see. What has
 * passed here is safe for all of libfdt.
 */
#include <endian.h>
#include <errno.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/state_tree_private.h"

struct entry {
	uint32_t parent; /* which node, counted in their order */
	bool is_node;
	const char *name;
};

struct walk {
	const uint8_t *structure; /* the structure block */
	size_t size, at;
	const char *strings;
	size_t strings_size;
	struct entry *entries; /* owned */
	size_t count, capacity;
	unsigned int depth;
	uint32_t nodes;
	uint32_t open[STATE_TREE_DEPTH_MAX];	  /* nodes that are open */
	bool has_child[STATE_TREE_DEPTH_MAX + 1]; /* by depth */
	struct error *err;
};

bool state_name_is_valid(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789,._+@-";
	size_t len = name ? strnlen(name, STATE_NAME_MAX + 1) : 0;

	return len && len <= STATE_NAME_MAX && strspn(name, allowed) == len;
}

static int malformed(struct walk *walk, const char *what)
{
	return error_set(walk->err, EINVAL, "state tree: %s, at byte %zu of its structure", what,
			 walk->at);
}

static bool take_u32(struct walk *walk, uint32_t *value)
{
	if (walk->size - walk->at < sizeof(*value))
		return false;
	memcpy(value, walk->structure + walk->at, sizeof(*value));
	*value = be32toh(*value);
	walk->at += sizeof(*value);
	return true;
}

static int add_entry(struct walk *walk, bool is_node, const char *name)
{
	if (walk->count == STATE_ENTRIES_MAX)
		return error_set(walk->err, EINVAL, "state tree: more than %u nodes and properties",
				 STATE_ENTRIES_MAX);
	if (walk->count == walk->capacity) {
		size_t capacity = walk->capacity ? walk->capacity * 2 : 256;
		void *entries = reallocarray(walk->entries, capacity, sizeof(*walk->entries));

		if (!entries)
			return error_set_errno(walk->err, ENOMEM, "state tree");
		walk->entries = entries;
		walk->capacity = capacity;
	}
	walk->entries[walk->count++] = (struct entry){
		.parent = walk->open[walk->depth - 1],
		.is_node = is_node,
		.name = name,
	};
	return 0;
}

static int walk_begin(struct walk *walk)
{
	const char *name = (const char *)walk->structure + walk->at;
	size_t left = walk->size - walk->at;
	size_t len = strnlen(name, MIN(left, (size_t)STATE_NAME_MAX + 1));
	int rc;

	if (len == left || len > STATE_NAME_MAX)
		return malformed(walk, "a node's name does not end");
	if (walk->depth == STATE_TREE_DEPTH_MAX)
		return error_set(walk->err, EINVAL, "state tree: nodes more than %u deep",
				 STATE_TREE_DEPTH_MAX);
	if (walk->depth == 0) {
		if (walk->nodes || len)
			return malformed(walk, "more than one root, or one with a name");
	} else {
		if (!state_name_is_valid(name))
			return malformed(walk, "a node's name has bytes no name has");
		rc = add_entry(walk, true, name);
		if (rc)
			return rc;
	}
	walk->has_child[walk->depth] = true;
	walk->open[walk->depth++] = walk->nodes++;
	walk->has_child[walk->depth] = false;
	walk->at = MIN(walk->size, (size_t)align_up(walk->at + len + 1, FDT_TAGSIZE));
	return 0;
}

static int walk_property(struct walk *walk)
{
	uint32_t len, name;
	const char *text;
	size_t left;

	if (!take_u32(walk, &len) || !take_u32(walk, &name) || walk->size - walk->at < len)
		return malformed(walk, "a property is longer than the tree");
	if (!walk->depth || walk->has_child[walk->depth])
		return malformed(walk, "a property outside of a node, or behind nodes below it");
	left = name < walk->strings_size ? walk->strings_size - name : 0;
	text = walk->strings + name;
	if (!left || strnlen(text, MIN(left, (size_t)STATE_NAME_MAX + 1)) == left ||
	    !state_name_is_valid(text))
		return malformed(walk, "a property without a name, or with bytes no name has");
	walk->at = MIN(walk->size, (size_t)align_up(walk->at + len, FDT_TAGSIZE));
	return add_entry(walk, false, text);
}

static int walk_structure(struct walk *walk)
{
	uint32_t tag;
	int rc = 0;

	while (!rc) {
		if (!take_u32(walk, &tag))
			return malformed(walk, "it does not end");
		switch (tag) {
		case FDT_BEGIN_NODE: rc = walk_begin(walk); break;
		case FDT_END_NODE:
			if (!walk->depth)
				return malformed(walk, "the end of a node that has no beginning");
			walk->depth--;
			break;
		case FDT_PROP: rc = walk_property(walk); break;
		case FDT_NOP: break;
		case FDT_END:
			if (walk->depth || !walk->nodes)
				return malformed(walk, "it ends inside of a node");
			if (walk->at != walk->size)
				return malformed(walk, "it ends early");
			return 0;
		default: return malformed(walk, "an unknown tag");
		}
	}
	return rc;
}

static int compare_entries(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;

	if (a->parent != b->parent)
		return a->parent < b->parent ? -1 : 1;
	if (a->is_node != b->is_node)
		return a->is_node ? 1 : -1;
	return strcmp(a->name, b->name);
}

/* The same name twice is two truths: which one is read would depend on the reader. */
static int check_unique(struct walk *walk)
{
	if (walk->count)
		qsort(walk->entries, walk->count, sizeof(*walk->entries), compare_entries);
	for (size_t i = 1; i < walk->count; i++) {
		if (!compare_entries(&walk->entries[i - 1], &walk->entries[i]))
			return error_set(walk->err, EINVAL, "state tree: the %s %s is there twice",
					 walk->entries[i].is_node ? "node" : "property",
					 walk->entries[i].name);
	}
	return 0;
}

static int check_header(const void *blob, size_t len, struct error *err)
{
	int rc;

	if ((uintptr_t)blob % sizeof(uint64_t))
		return error_set(err, EINVAL, "state tree: not at a multiple of 8 in memory");
	if (len > STATE_TREE_SIZE_MAX)
		return error_set(err, EINVAL, "state tree: larger than %u MiB",
				 STATE_TREE_SIZE_MAX >> 20);
	if (len < sizeof(struct fdt_header) || fdt_magic(blob) != FDT_MAGIC)
		return error_set(err, EINVAL, "state tree: this is none (no device tree header)");
	if (fdt_totalsize(blob) != len)
		return error_set(err, EINVAL, "state tree: %zu bytes, where its header says %u",
				 len, fdt_totalsize(blob));
	if (fdt_version(blob) < FDT_LAST_SUPPORTED_VERSION)
		return error_set(err, EINVAL, "state tree: device tree version %u, not %u",
				 fdt_version(blob), FDT_LAST_SUPPORTED_VERSION);
	rc = fdt_check_header(blob);
	if (rc)
		return error_set(err, EINVAL, "state tree: header: %s", fdt_strerror(rc));
	if (fdt_off_dt_struct(blob) % FDT_TAGSIZE || fdt_off_mem_rsvmap(blob) % sizeof(uint64_t))
		return error_set(err, EINVAL, "state tree: header: blocks are not aligned");
	return 0;
}

int state_tree_open(const void *blob, size_t len, struct state_node *root, struct error *err)
{
	struct walk walk = { .err = err };
	int rc = check_header(blob, len, err);

	if (rc)
		return rc;
	walk.structure = (const uint8_t *)blob + fdt_off_dt_struct(blob);
	walk.size = fdt_size_dt_struct(blob);
	walk.strings = (const char *)blob + fdt_off_dt_strings(blob);
	walk.strings_size = fdt_size_dt_strings(blob);
	rc = walk_structure(&walk);
	if (!rc)
		rc = check_unique(&walk);
	free(walk.entries);
	if (rc)
		return rc;
	rc = fdt_check_full(blob, len);
	if (rc)
		return error_set(err, EINVAL, "state tree: %s", fdt_strerror(rc));
	*root = (struct state_node){ .blob = blob, .offset = 0 };
	rc = state_expect(root, STATE_ROOT_KIND, STATE_ROOT_VERSION, NULL, NULL, err);
	return rc ? error_prefix(err, "state tree") : 0;
}
