/* SPDX-License-Identifier: Apache-2.0 */
/* The reader: nodes and properties of a tree that state_tree_open has checked. */
#include <endian.h>
#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/state_tree_private.h"

#define PATH_SIZE (STATE_TREE_DEPTH_MAX * (STATE_NAME_MAX + 1) + 1)
/* Of a path in a message: room is left for what is said of it. */
#define PATH_SHOWN (ERROR_MESSAGE_MAX / 2)

const char *state_name(const struct state_node *node)
{
	const char *name = fdt_get_name(node->blob, node->offset, NULL);

	return name ? name : "";
}

void state_path(const struct state_node *node, char *path, size_t size)
{
	char whole[PATH_SIZE];

	size_t len;

	if (!size)
		return;
	if (fdt_get_path(node->blob, node->offset, whole, sizeof(whole)))
		snprintf(whole, sizeof(whole), "?");
	len = MIN(strlen(whole), size - 1);
	memcpy(path, whole, len);
	path[len] = '\0';
}

bool state_next_child(const struct state_node *parent, struct state_node *child)
{
	child->blob = parent->blob;
	if (child->offset < 0)
		child->offset = fdt_first_subnode(parent->blob, parent->offset);
	else
		child->offset = fdt_next_subnode(parent->blob, child->offset);
	return child->offset >= 0;
}

/* Not fdt_subnode_offset: it takes "cpu" for "cpu@1". */
bool state_has_child(const struct state_node *parent, const char *name, struct state_node *child)
{
	child->offset = -1;
	while (state_next_child(parent, child)) {
		if (!strcmp(state_name(child), name))
			return true;
	}
	return false;
}

int state_child(const struct state_node *parent, const char *name, struct state_node *child,
		struct error *err)
{
	char path[PATH_SHOWN];

	if (state_has_child(parent, name, child))
		return 0;
	state_path(parent, path, sizeof(path));
	return error_set(err, ENOENT, "%s: node %s is missing", path, name);
}

static const void *property(const struct state_node *node, const char *name, size_t *len)
{
	int size;
	const void *data = fdt_getprop(node->blob, node->offset, name, &size);

	*len = data ? (size_t)size : 0;
	return data;
}

static int wrong(const struct state_node *node, const char *name, int code, const char *what,
		 struct error *err)
{
	char path[PATH_SHOWN];

	state_path(node, path, sizeof(path));
	return error_set(err, code, "%s: property %s %s", path, name, what);
}

static int wrong_size(const struct state_node *node, const char *name, size_t len,
		      const char *expected, struct error *err)
{
	char what[96];

	snprintf(what, sizeof(what), "has %zu bytes, not %s", len, expected);
	return wrong(node, name, EINVAL, what, err);
}

bool state_has(const struct state_node *node, const char *name)
{
	size_t len;

	return property(node, name, &len);
}

int state_get_blob(const struct state_node *node, const char *name, const void **data, size_t *len,
		   struct error *err)
{
	*data = property(node, name, len);
	return *data ? 0 : wrong(node, name, ENOENT, "is missing", err);
}

int state_get_bytes(const struct state_node *node, const char *name, void *data, size_t len,
		    struct error *err)
{
	char expected[24];
	const void *found;
	size_t size;
	int rc = state_get_blob(node, name, &found, &size, err);

	if (rc)
		return rc;
	if (size != len) {
		snprintf(expected, sizeof(expected), "%zu", len);
		return wrong_size(node, name, size, expected, err);
	}
	if (len)
		memcpy(data, found, len);
	return 0;
}

int state_get_u32(const struct state_node *node, const char *name, uint32_t *value,
		  struct error *err)
{
	uint32_t raw = 0;
	int rc = state_get_bytes(node, name, &raw, sizeof(raw), err);

	if (!rc)
		*value = be32toh(raw);
	return rc;
}

int state_get_u64(const struct state_node *node, const char *name, uint64_t *value,
		  struct error *err)
{
	uint64_t raw = 0;
	int rc = state_get_bytes(node, name, &raw, sizeof(raw), err);

	if (!rc)
		*value = be64toh(raw);
	return rc;
}

int state_get_bool(const struct state_node *node, const char *name, bool *value, struct error *err)
{
	uint32_t number = 0;
	int rc = state_get_u32(node, name, &number, err);

	if (rc)
		return rc;
	if (number > 1)
		return wrong(node, name, EINVAL, "is neither 0 nor 1", err);
	*value = number;
	return 0;
}

int state_get_string(const struct state_node *node, const char *name, const char **value,
		     struct error *err)
{
	const void *data;
	size_t len;
	int rc = state_get_blob(node, name, &data, &len, err);

	if (rc)
		return rc;
	if (!len || strnlen(data, len) != len - 1)
		return wrong(node, name, EINVAL, "is no text (one zero byte, at its end)", err);
	*value = data;
	return 0;
}

int state_get_range(const struct state_node *node, const char *name, uint64_t min, uint64_t max,
		    uint64_t *value, struct error *err)
{
	const void *data;
	uint32_t narrow = 0;
	uint64_t number = 0;
	char what[96];
	size_t len;
	int rc = state_get_blob(node, name, &data, &len, err);

	if (rc)
		return rc;
	if (len == sizeof(narrow)) {
		rc = state_get_u32(node, name, &narrow, err);
		number = narrow;
	} else if (len == sizeof(number)) {
		rc = state_get_u64(node, name, &number, err);
	} else {
		return wrong_size(node, name, len, "4 or 8", err);
	}
	if (rc)
		return rc;
	if (number < min || number > max) {
		snprintf(what, sizeof(what), "is %llu, not within %llu to %llu",
			 (unsigned long long)number, (unsigned long long)min,
			 (unsigned long long)max);
		return wrong(node, name, ERANGE, what, err);
	}
	*value = number;
	return 0;
}

/* Does the reader know everything the node lists in `required`? */
static int check_required(const struct state_node *node, const char *const *known,
			  struct error *err)
{
	size_t len, step;
	const char *list = property(node, STATE_REQUIRED, &len);
	char path[PATH_SHOWN];

	if (!list)
		return 0;
	if (!len || list[len - 1])
		return wrong(node, STATE_REQUIRED, EINVAL, "is no list of names", err);
	for (const char *name = list; name < list + len; name += step) {
		const char *const *match = known;

		step = strlen(name) + 1;
		if (!state_name_is_valid(name))
			return wrong(node, STATE_REQUIRED, EINVAL, "is no list of names", err);
		while (match && *match && strcmp(*match, name) != 0)
			match++;
		if (match && *match)
			continue;
		state_path(node, path, sizeof(path));
		return error_set(
			err, EPROTONOSUPPORT,
			"%s: property %s is required, and unknown to this version of Ferry", path,
			name);
	}
	return 0;
}

int state_expect(const struct state_node *node, const char *kind, uint32_t newest,
		 const char *const *known, uint32_t *version, struct error *err)
{
	const size_t vendor = strlen(STATE_VENDOR);
	char path[PATH_SHOWN];
	const char *compatible = "";
	uint32_t number = 0;
	int rc = state_get_string(node, STATE_COMPATIBLE, &compatible, err);

	if (!rc)
		rc = state_get_u32(node, STATE_VERSION, &number, err);
	if (rc) {
		/* a node that does not say what it is, is of another kind */
		if (err)
			err->code = -EINVAL;
		return -EINVAL;
	}
	state_path(node, path, sizeof(path));
	if (strncmp(compatible, STATE_VENDOR, vendor) != 0 ||
	    strcmp(compatible + vendor, kind) != 0)
		return error_set(err, EINVAL, "%s: is not of the kind %s", path, kind);
	if (number > newest)
		return error_set(err, EPROTONOSUPPORT,
				 "%s: %s of version %u, of a newer Ferry; this one reads up to %u",
				 path, kind, number, newest);
	rc = check_required(node, known, err);
	if (!rc && version)
		*version = number;
	return rc;
}
