/* SPDX-License-Identifier: Apache-2.0 */
/* The state tree: what is written is read, and what cannot be is refused. */
#include <check.h>
#include <endian.h>
#include <errno.h>
#include <libfdt.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/state_tree_private.h"
#include "tests/unit/helpers/run_suite.h"

struct tree {
	void *blob;
	size_t len;
	struct state_node root;
	struct error err;
};

static struct state_writer *new_writer(void)
{
	struct state_writer *writer = state_writer_new(NULL);

	ck_assert_ptr_nonnull(writer);
	return writer;
}

static struct tree finish(struct state_writer *writer)
{
	struct tree tree = { .blob = NULL };
	int rc = state_writer_finish(writer, &tree.blob, &tree.len, &tree.err);

	ck_assert_msg(!rc, "%s", tree.err.message);
	state_writer_free(writer);
	rc = state_tree_open(tree.blob, tree.len, &tree.root, &tree.err);
	ck_assert_msg(!rc, "%s", tree.err.message);
	return tree;
}

static int refused(struct state_writer *writer, struct error *err)
{
	void *blob = NULL;
	size_t len = 0;
	int rc = state_writer_finish(writer, &blob, &len, err);

	ck_assert_int_lt(rc, 0);
	ck_assert_ptr_null(blob);
	state_writer_free(writer);
	return rc;
}

static struct tree sample(void)
{
	struct state_writer *writer = new_writer();

	state_begin(writer, "machine", "machine", 3);
	state_put_u64(writer, "ram-size", 5 * GIB);
	state_begin(writer, "devices", "devices", 1);
	state_begin(writer, "disk0", "virtio-blk", 2);
	state_put_u32(writer, "queue-size", 256);
	state_put_bool(writer, "read-only", true);
	state_put_string(writer, "path", "/disk.raw");
	state_put_bytes(writer, "serial", "\1\2\3", 3);
	state_put_bytes(writer, "empty", NULL, 0);
	state_require(writer, "queue-size");
	state_require(writer, "path");
	state_end(writer);
	state_begin(writer, "disk0@1", "virtio-net", 1);
	state_end(writer);
	state_end(writer);
	state_end(writer);
	state_begin(writer, "cpu", "cpu", 1);
	state_end(writer);
	return finish(writer);
}

static struct state_node child(const struct state_node *parent, const char *name)
{
	struct state_node node;

	ck_assert_int_eq(state_child(parent, name, &node, NULL), 0);
	return node;
}

static struct state_node disk(const struct tree *tree)
{
	struct state_node machine = child(&tree->root, "machine");
	struct state_node devices = child(&machine, "devices");

	return child(&devices, "disk0");
}

START_TEST(what_is_written_is_read)
{
	static const char *const known[] = { "path", "queue-size", NULL };
	struct tree tree = sample();
	struct state_node machine = child(&tree.root, "machine"), node = disk(&tree);
	uint64_t wide, number;
	uint32_t narrow, version = 0;
	uint8_t bytes[3];
	const void *data;
	const char *text;
	char path[64];
	size_t len;
	bool yes;

	ck_assert_str_eq(state_name(&tree.root), "");
	ck_assert_str_eq(state_name(&node), "disk0");
	state_path(&node, path, sizeof(path));
	ck_assert_str_eq(path, "/machine/devices/disk0");
	state_path(&node, path, 9);
	ck_assert_str_eq(path, "/machine");
	state_path(&tree.root, path, sizeof(path));
	ck_assert_str_eq(path, "/");
	ck_assert_int_eq(state_expect(&node, "virtio-blk", 2, known, &version, NULL), 0);
	ck_assert_uint_eq(version, 2);
	ck_assert_int_eq(state_get_u64(&machine, "ram-size", &wide, NULL), 0);
	ck_assert_uint_eq(wide, 5 * GIB);
	ck_assert_int_eq(state_get_u32(&node, "queue-size", &narrow, NULL), 0);
	ck_assert_uint_eq(narrow, 256);
	ck_assert_int_eq(state_get_range(&node, "queue-size", 1, 256, &number, NULL), 0);
	ck_assert_uint_eq(number, 256);
	ck_assert_int_eq(state_get_range(&machine, "ram-size", 0, UINT64_MAX, &number, NULL), 0);
	ck_assert_uint_eq(number, 5 * GIB);
	ck_assert_int_eq(state_get_bool(&node, "read-only", &yes, NULL), 0);
	ck_assert(yes);
	ck_assert_int_eq(state_get_string(&node, "path", &text, NULL), 0);
	ck_assert_str_eq(text, "/disk.raw");
	ck_assert_int_eq(state_get_bytes(&node, "serial", bytes, 3, NULL), 0);
	ck_assert_mem_eq(bytes, "\1\2\3", 3);
	ck_assert_int_eq(state_get_blob(&node, "empty", &data, &len, NULL), 0);
	ck_assert_uint_eq(len, 0);
	ck_assert(state_has(&node, "empty"));
	ck_assert(!state_has(&node, "emptyy"));
	ck_assert(!state_has(&node, "empt"));
	free(tree.blob);
}
END_TEST

START_TEST(children_come_in_the_order_written)
{
	struct tree tree = sample();
	struct state_node machine = child(&tree.root, "machine");
	struct state_node devices = child(&machine, "devices"), node = { .offset = -1 };

	ck_assert(state_next_child(&devices, &node));
	ck_assert_str_eq(state_name(&node), "disk0");
	ck_assert(state_next_child(&devices, &node));
	ck_assert_str_eq(state_name(&node), "disk0@1");
	ck_assert(!state_next_child(&devices, &node));
	node.offset = -1;
	ck_assert(state_next_child(&tree.root, &node));
	ck_assert_str_eq(state_name(&node), "machine");
	ck_assert(state_next_child(&tree.root, &node));
	ck_assert_str_eq(state_name(&node), "cpu");
	ck_assert(!state_next_child(&tree.root, &node));
	free(tree.blob);
}
END_TEST

START_TEST(a_name_is_the_whole_name)
{
	struct state_writer *writer = new_writer();
	struct state_node node;
	struct tree tree;

	state_begin(writer, "cpu@1", "vcpu", 1);
	state_end(writer);
	tree = finish(writer);
	ck_assert(!state_has_child(&tree.root, "cpu", &node));
	ck_assert(state_has_child(&tree.root, "cpu@1", &node));
	ck_assert_int_eq(state_child(&tree.root, "cpu", &node, &tree.err), -ENOENT);
	ck_assert_str_eq(tree.err.message, "/: node cpu is missing");
	free(tree.blob);
}
END_TEST

START_TEST(messages_name_node_and_property_by_path)
{
	struct tree tree = sample();
	struct state_node node = disk(&tree), none;
	struct error *err = &tree.err;
	uint64_t wide = 7;
	uint32_t narrow = 7;
	const char *text = "x";
	uint8_t bytes[4] = { 7 };
	bool yes = true;

	ck_assert_int_eq(state_get_u32(&node, "nope", &narrow, err), -ENOENT);
	ck_assert_str_eq(err->message, "/machine/devices/disk0: property nope is missing");
	ck_assert_int_eq(state_get_u64(&node, "queue-size", &wide, err), -EINVAL);
	ck_assert_str_eq(err->message,
			 "/machine/devices/disk0: property queue-size has 4 bytes, not 8");
	ck_assert_int_eq(state_get_bool(&node, "queue-size", &yes, err), -EINVAL);
	ck_assert_str_eq(err->message,
			 "/machine/devices/disk0: property queue-size is neither 0 nor 1");
	ck_assert_int_eq(state_get_bytes(&node, "serial", bytes, 4, err), -EINVAL);
	ck_assert_int_eq(state_get_string(&node, "serial", &text, err), -EINVAL);
	ck_assert_int_eq(state_get_string(&node, "empty", &text, err), -EINVAL);
	ck_assert_int_eq(state_get_range(&node, "serial", 0, 9, &wide, err), -EINVAL);
	ck_assert_int_eq(state_get_range(&node, "queue-size", 257, 1024, &wide, err), -ERANGE);
	ck_assert_str_eq(
		err->message,
		"/machine/devices/disk0: property queue-size is 256, not within 257 to 1024");
	ck_assert_int_eq(state_get_range(&node, "queue-size", 0, 255, &wide, err), -ERANGE);
	ck_assert_int_eq(state_child(&node, "x", &none, err), -ENOENT);
	ck_assert_str_eq(err->message, "/machine/devices/disk0: node x is missing");
	/* nothing was written to what is not there */
	ck_assert_uint_eq(wide, 7);
	ck_assert_uint_eq(narrow, 7);
	ck_assert_uint_eq(bytes[0], 7);
	ck_assert_str_eq(text, "x");
	ck_assert(yes);
	free(tree.blob);
}
END_TEST

START_TEST(a_kind_version_or_required_property_not_known_is_refused)
{
	static const char *const some[] = { "queue-size", NULL };
	struct tree tree = sample();
	struct state_node node = disk(&tree), machine = child(&tree.root, "machine");
	struct error *err = &tree.err;

	ck_assert_int_eq(state_expect(&machine, "machine", 3, NULL, NULL, err), 0);
	ck_assert_int_eq(state_expect(&machine, "machine", 9, NULL, NULL, err), 0);
	ck_assert_int_eq(state_expect(&machine, "machin", 3, NULL, NULL, err), -EINVAL);
	ck_assert_str_eq(err->message, "/machine: is not of the kind machin");
	ck_assert_int_eq(state_expect(&machine, "machine", 2, NULL, NULL, err), -EPROTONOSUPPORT);
	ck_assert_str_eq(
		err->message,
		"/machine: machine of version 3, of a newer Ferry; this one reads up to 2");
	ck_assert_int_eq(state_expect(&node, "virtio-blk", 2, some, NULL, err), -EPROTONOSUPPORT);
	ck_assert_str_eq(err->message, "/machine/devices/disk0: property path is required, and "
				       "unknown to this version of Ferry");
	ck_assert_int_eq(state_expect(&node, "virtio-blk", 2, NULL, NULL, err), -EPROTONOSUPPORT);
	free(tree.blob);
}
END_TEST

START_TEST(properties_after_a_node_below_are_refused)
{
	struct state_writer *writer = new_writer();
	struct error err = ERROR_INIT;

	state_begin(writer, "a", "a", 1);
	state_begin(writer, "b", "b", 1);
	state_end(writer);
	state_put_u32(writer, "late", 1);
	/* the first failure sticks */
	state_put_u32(writer, "compatible", 1);
	state_end(writer);
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
	ck_assert_str_eq(err.message, "/a: after a node below it comes property late");
}
END_TEST

START_TEST(names_twice_are_refused)
{
	struct state_writer *writer = new_writer();
	struct error err = ERROR_INIT;

	state_begin(writer, "a", "a", 1);
	state_put_u32(writer, "x", 1);
	state_put_u64(writer, "x", 1);
	ck_assert_int_eq(refused(writer, &err), -EEXIST);
	ck_assert_str_eq(err.message, "/a: twice there is property x");
	writer = new_writer();
	state_begin(writer, "a", "a", 1);
	state_end(writer);
	state_begin(writer, "a", "b", 1);
	ck_assert_int_eq(refused(writer, &err), -EEXIST);
	writer = new_writer();
	state_put_u32(writer, "version", 1);
	ck_assert_int_eq(refused(writer, &err), -EEXIST);
	writer = new_writer();
	state_put_u32(writer, "required", 1);
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
	/* of cousins, and of a node and a property, they may be the same */
	writer = new_writer();
	state_begin(writer, "a", "a", 1);
	state_put_u32(writer, "a", 1);
	state_begin(writer, "a", "a", 1);
	state_put_u32(writer, "a", 1);
	state_end(writer);
	state_end(writer);
	free(finish(writer).blob);
}
END_TEST

static const char *const bad_names[] = {
	"",    "a/b",
	"a b", "\xc3\xa4",
	"a\n", "0123456789012345678901234567890123456789012345678901234567890123", /* 64 */
};

START_TEST(names_that_are_none_are_refused)
{
	struct state_writer *writer = new_writer();
	struct error err = ERROR_INIT;

	state_begin(writer, bad_names[_i], "a", 1);
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
	writer = new_writer();
	state_begin(writer, "a", bad_names[_i], 1);
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
	writer = new_writer();
	state_begin(writer, "a", "a", 1);
	state_put_u32(writer, bad_names[_i], 1);
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
	writer = new_writer();
	state_begin(writer, bad_names[5] + 1, bad_names[5] + 1, 1); /* 63 */
	state_put_u32(writer, bad_names[5] + 1, 1);
	state_end(writer);
	free(finish(writer).blob);
}
END_TEST

START_TEST(an_unbalanced_tree_is_refused)
{
	struct state_writer *writer = new_writer();
	struct error err = ERROR_INIT;

	state_begin(writer, "a", "a", 1);
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
	ck_assert_str_eq(err.message, "/a: not ended is node a");
	writer = new_writer();
	state_end(writer);
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
}
END_TEST

START_TEST(only_what_is_there_can_be_required)
{
	struct state_writer *writer = new_writer();
	struct error err = ERROR_INIT;

	state_begin(writer, "a", "a", 1);
	state_require(writer, "x");
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
	writer = new_writer();
	state_begin(writer, "a", "a", 1);
	state_put_u32(writer, "x", 1);
	state_begin(writer, "b", "b", 1);
	state_end(writer);
	state_require(writer, "x");
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
}
END_TEST

START_TEST(values_that_are_none_are_refused)
{
	struct state_writer *writer = new_writer();
	struct error err = ERROR_INIT;

	state_put_string(writer, "x", NULL);
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
	writer = new_writer();
	state_put_bytes(writer, "x", NULL, 1);
	ck_assert_int_eq(refused(writer, &err), -EINVAL);
}
END_TEST

START_TEST(nodes_are_as_deep_as_allowed)
{
	struct state_writer *writer = new_writer();
	struct error err = ERROR_INIT;

	for (int i = 1; i < STATE_TREE_DEPTH_MAX; i++)
		state_begin(writer, "deep", "a", 1);
	for (int i = 1; i < STATE_TREE_DEPTH_MAX; i++)
		state_end(writer);
	free(finish(writer).blob);
	writer = new_writer();
	for (int i = 0; i < STATE_TREE_DEPTH_MAX; i++)
		state_begin(writer, "deep", "a", 1);
	ck_assert_int_eq(refused(writer, &err), -E2BIG);
}
END_TEST

START_TEST(the_tree_grows_up_to_its_bound)
{
	struct state_writer *writer = new_writer();
	_cleanup_free_ uint8_t *data = malloc(8 * MIB);
	struct error err = ERROR_INIT;
	char name[16];
	struct tree tree;
	struct state_node node;
	const void *found;
	size_t len;

	memset(data, 0xa5, 8 * MIB);
	for (int i = 0; i < 7; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		state_begin(writer, name, "a", 1);
		state_put_bytes(writer, name, data, 8 * MIB);
		state_end(writer);
	}
	tree = finish(writer);
	node = child(&tree.root, "n6");
	ck_assert_int_eq(state_get_blob(&node, "n6", &found, &len, NULL), 0);
	ck_assert_uint_eq(len, 8 * MIB);
	ck_assert(!memcmp(found, data, len));
	free(tree.blob);
	writer = new_writer();
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		state_put_bytes(writer, name, data, 8 * MIB);
	}
	ck_assert_int_eq(refused(writer, &err), -EFBIG);
	ck_assert_str_eq(err.message, "state tree: larger than 64 MiB");
	writer = new_writer();
	state_put_bytes(writer, "x", data, STATE_TREE_SIZE_MAX + 1);
	ck_assert_int_eq(refused(writer, &err), -EFBIG);
}
END_TEST

static char *print(const void *blob, size_t len)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	ck_assert_int_eq(state_tree_print(blob, len, out, NULL), 0);
	fclose(out);
	return text;
}

START_TEST(a_tree_prints_readably)
{
	struct state_writer *writer = new_writer();
	_cleanup_free_ char *text = NULL;
	uint8_t bytes[33];
	struct tree tree;

	memset(bytes, 0x5a, sizeof(bytes));
	state_begin(writer, "a", "kind", 2);
	state_put_u32(writer, "u32", 10);
	state_put_u64(writer, "u64", 9);
	state_put_string(writer, "text", "say \"\\\n\t\"");
	state_put_string(writer, "none", "");
	state_put_bytes(writer, "short", "\x1b[0m\0\0", 6);
	state_put_bytes(writer, "long", bytes, 33);
	state_put_bytes(writer, "nothing", NULL, 0);
	state_require(writer, "u32");
	state_require(writer, "u64");
	state_begin(writer, "b", "other", 1);
	state_end(writer);
	state_end(writer);
	tree = finish(writer);
	text = print(tree.blob, tree.len);
	ck_assert_str_eq(
		text, "/: \"ferry,state-tree\" version 1\n"
		      "  a: \"ferry,kind\" version 2\n"
		      "    u32 = 10 (0xa)\n"
		      "    u64 = 9\n"
		      "    text = \"say \\\"\\\\\\n\\t\\\"\"\n"
		      "    none = \"\"\n"
		      "    short = [1b 5b 30 6d 00 00]\n"
		      "    long = [5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a "
		      "5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a ...] 33 bytes, crc32 fb4a1fc4\n"
		      "    nothing = []\n"
		      "    required = \"u32\", \"u64\"\n"
		      "    b: \"ferry,other\" version 1\n");
	free(tree.blob);
}
END_TEST

static Suite *state_tree_suite(void)
{
	Suite *suite = suite_create("state tree");
	TCase *write = tcase_create("written and read");

	tcase_add_test(write, what_is_written_is_read);
	tcase_add_test(write, children_come_in_the_order_written);
	tcase_add_test(write, a_name_is_the_whole_name);
	tcase_add_test(write, messages_name_node_and_property_by_path);
	tcase_add_test(write, a_kind_version_or_required_property_not_known_is_refused);
	tcase_add_test(write, properties_after_a_node_below_are_refused);
	tcase_add_test(write, names_twice_are_refused);
	tcase_add_loop_test(write, names_that_are_none_are_refused, 0, ARRAY_SIZE(bad_names));
	tcase_add_test(write, an_unbalanced_tree_is_refused);
	tcase_add_test(write, only_what_is_there_can_be_required);
	tcase_add_test(write, values_that_are_none_are_refused);
	tcase_add_test(write, nodes_are_as_deep_as_allowed);
	tcase_add_test(write, the_tree_grows_up_to_its_bound);
	tcase_add_test(write, a_tree_prints_readably);
	suite_add_tcase(suite, write);
	return suite;
}

int main(void)
{
	return run_suite(state_tree_suite());
}
