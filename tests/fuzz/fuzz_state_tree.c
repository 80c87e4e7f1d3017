/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A state tree from a snapshot or a peer: opened, printed, and every property of every
 * node asked for in every way.
 */
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/state_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_property(const struct state_node *node, const char *name)
{
	const char *text;
	const void *blob;
	uint8_t bytes[16];
	uint64_t wide;
	uint32_t narrow;
	size_t len;
	bool yes;

	if (!state_has(node, name) || state_get_blob(node, name, &blob, &len, NULL))
		abort(); /* iteration has just seen it */
	state_get_u32(node, name, &narrow, NULL);
	state_get_u64(node, name, &wide, NULL);
	state_get_bool(node, name, &yes, NULL);
	state_get_bytes(node, name, bytes, sizeof(bytes), NULL);
	state_get_range(node, name, 1, 9, &wide, NULL);
	if (!state_get_string(node, name, &text, NULL) && strlen(text) + 1 != len)
		abort();
}

static void read_node(const struct state_node *node)
{
	static const char *const known[] = { "number", "text", NULL };
	struct state_node child = { .offset = -1 }, same;
	struct error err = ERROR_INIT;
	char path[64];
	int offset;

	state_path(node, path, sizeof(path));
	state_expect(node, "golden-device", 2, known, NULL, &err);
	fdt_for_each_property_offset(offset, node->blob, node->offset)
	{
		const char *name;

		if (!fdt_getprop_by_offset(node->blob, offset, &name, NULL))
			abort();
		read_property(node, name);
	}
	while (state_next_child(node, &child)) {
		/* names are unique: the first of that name is this one */
		if (state_child(node, state_name(&child), &same, &err) ||
		    same.offset != child.offset)
			abort();
		read_node(&child);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error err = ERROR_INIT;
	struct state_node root;
	char *text = NULL;
	void *blob = malloc(size ? size : 1); /* aligned, and no longer than it is */
	size_t len;
	FILE *out;

	memcpy(blob, data, size);
	if (!state_tree_open(blob, size, &root, &err)) {
		read_node(&root);
		out = open_memstream(&text, &len);
		if (state_tree_print(blob, size, out, &err))
			abort();
		fclose(out);
		free(text);
	} else if (!err.code || !err.message[0]) {
		abort(); /* refused without a reason */
	}
	free(blob);
	return 0;
}
