/* SPDX-License-Identifier: Apache-2.0 */
/* Trees that no writer writes: made tag by tag, and broken one way at a time. */
#include <check.h>
#include <endian.h>
#include <errno.h>
#include <libfdt.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/state_tree_private.h"
#include "base/strbuf.h"
#include "tests/unit/helpers/run_suite.h"

#define STRUCT_AT 56 /* header and an empty memory reserve block */

/* A structure block and its strings in the making. */
struct raw {
	struct strbuf structure, strings;
};

static void tag(struct raw *raw, uint32_t value)
{
	value = htobe32(value);
	strbuf_append(&raw->structure, &value, sizeof(value));
}

static void padded(struct raw *raw, const void *data, size_t len)
{
	strbuf_append(&raw->structure, data, len);
	strbuf_append(&raw->structure, "\0\0\0", align_up(len, 4) - len);
}

static void begin(struct raw *raw, const char *name)
{
	tag(raw, FDT_BEGIN_NODE);
	padded(raw, name, strlen(name) + 1);
}

static void prop(struct raw *raw, const char *name, const void *data, size_t len)
{
	tag(raw, FDT_PROP);
	tag(raw, (uint32_t)len);
	tag(raw, (uint32_t)raw->strings.len);
	padded(raw, data, len);
	strbuf_append(&raw->strings, name, strlen(name) + 1);
}

static void identity(struct raw *raw)
{
	prop(raw, "compatible", "ferry,state-tree", 17);
	prop(raw, "version", "\0\0\0\1", 4);
}

static struct raw root(void)
{
	struct raw raw = { .structure = STRBUF_INIT };

	begin(&raw, "");
	identity(&raw);
	return raw;
}

static void end(struct raw *raw)
{
	tag(raw, FDT_END_NODE);
	tag(raw, FDT_END);
}

/* The blob; raw is used up. */
static struct fdt_header *assemble(struct raw *raw, size_t *len)
{
	struct fdt_header *header;

	*len = STRUCT_AT + raw->structure.len + raw->strings.len;
	header = calloc(1, *len);
	ck_assert_ptr_nonnull(header);
	*header = (struct fdt_header){
		.magic = htobe32(FDT_MAGIC),
		.totalsize = htobe32((uint32_t)*len),
		.off_dt_struct = htobe32(STRUCT_AT),
		.off_dt_strings = htobe32((uint32_t)(STRUCT_AT + raw->structure.len)),
		.off_mem_rsvmap = htobe32(sizeof(*header)),
		.version = htobe32(17),
		.last_comp_version = htobe32(16),
		.size_dt_strings = htobe32((uint32_t)raw->strings.len),
		.size_dt_struct = htobe32((uint32_t)raw->structure.len),
	};
	memcpy((char *)header + STRUCT_AT, raw->structure.data, raw->structure.len);
	if (raw->strings.len)
		memcpy((char *)header + STRUCT_AT + raw->structure.len, raw->strings.data,
		       raw->strings.len);
	strbuf_free(&raw->structure);
	strbuf_free(&raw->strings);
	return header;
}

static void opens(struct raw *raw)
{
	struct error err = ERROR_INIT;
	struct state_node node;
	size_t len;
	_cleanup_free_ void *blob = assemble(raw, &len);

	ck_assert_msg(!state_tree_open(blob, len, &node, &err), "%s", err.message);
}

static void is_refused(struct raw *raw, int code, const char *reason)
{
	struct error err = ERROR_INIT;
	struct state_node node;
	size_t len;
	_cleanup_free_ void *blob = assemble(raw, &len);

	ck_assert_int_eq(state_tree_open(blob, len, &node, &err), code);
	ck_assert_msg(strstr(err.message, reason), "\"%s\", not \"%s\"", err.message, reason);
}

static struct fdt_header *plain(size_t *len)
{
	struct raw raw = root();

	begin(&raw, "node");
	identity(&raw);
	prop(&raw, "bytes", "abcdefgh", 8);
	tag(&raw, FDT_END_NODE);
	tag(&raw, FDT_NOP);
	end(&raw);
	return assemble(&raw, len);
}

START_TEST(the_tree_that_is_broken_below_opens_as_it_is)
{
	struct raw raw = root();

	end(&raw);
	opens(&raw);
}
END_TEST

START_TEST(a_tree_cut_anywhere_is_refused)
{
	struct state_node node;
	size_t len;
	struct fdt_header *whole = plain(&len);

	ck_assert_int_eq(state_tree_open(whole, len, &node, NULL), 0);
	for (size_t cut = 0; cut < len; cut++) {
		/* on the heap, in its size, so that ASan sees a read behind it */
		struct fdt_header *part = malloc(cut ? cut : 1);

		memcpy(part, whole, cut);
		ck_assert_int_eq(state_tree_open(part, cut, &node, NULL), -EINVAL);
		if (cut >= sizeof(*part)) { /* one that knows that it is cut */
			part->totalsize = htobe32((uint32_t)cut);
			ck_assert_int_eq(state_tree_open(part, cut, &node, NULL), -EINVAL);
		}
		free(part);
	}
	free(whole);
}
END_TEST

START_TEST(bytes_behind_a_tree_are_refused)
{
	struct state_node node;
	size_t len;
	_cleanup_free_ void *whole = plain(&len);
	_cleanup_free_ char *more = calloc(1, len + 8);

	memcpy(more, whole, len);
	ck_assert_int_eq(state_tree_open(more, len + 8, &node, NULL), -EINVAL);
}
END_TEST

START_TEST(a_tree_not_aligned_is_refused)
{
	struct error err = ERROR_INIT;
	struct state_node node;
	size_t len;
	_cleanup_free_ void *whole = plain(&len);
	_cleanup_free_ char *moved = calloc(1, len + 4);

	memcpy(moved + 4, whole, len);
	ck_assert_int_eq(state_tree_open(moved + 4, len, &node, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "multiple of 8"));
}
END_TEST

START_TEST(a_larger_tree_is_refused_by_its_size_alone)
{
	struct state_node node;
	uint64_t blob[8] = { 0 };

	ck_assert_int_eq(state_tree_open(blob, (size_t)STATE_TREE_SIZE_MAX + 1, &node, NULL),
			 -EINVAL);
}
END_TEST

/* Each word of the header, with each of these in it: refused, or at least read safely. */
static const uint32_t words[] = { 0,  1,  3,   4,      16,	   17,	       39,
				  40, 55, 256, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff };

static void read_all(const struct state_node *root_node, size_t len)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	ck_assert_int_eq(state_tree_print(root_node->blob, len, out, NULL), 0);
	fclose(out);
	free(text);
}

START_TEST(a_wrong_header_is_refused)
{
	const size_t word = (size_t)_i / ARRAY_SIZE(words);
	struct state_node node;
	size_t len;
	_cleanup_free_ void *whole = plain(&len);
	uint32_t value = htobe32(words[(size_t)_i % ARRAY_SIZE(words)]);
	int rc;

	memcpy((char *)whole + word * sizeof(value), &value, sizeof(value));
	rc = state_tree_open(whole, len, &node, NULL);
	if (!rc)
		read_all(&node, len);
	else
		ck_assert_int_eq(rc, -EINVAL);
	/* of these words no other value is right */
	if (word == 0 || word == 1 || word == 2 || word == 9)
		ck_assert_int_eq(rc, -EINVAL);
}
END_TEST

START_TEST(every_byte_may_be_any_other)
{
	struct state_node node;
	size_t len;
	_cleanup_free_ uint8_t *whole = (uint8_t *)plain(&len);

	for (size_t at = 0; at < len; at++) {
		for (unsigned int flip = 1; flip < 256; flip += 2) {
			whole[at] ^= flip;
			if (!state_tree_open(whole, len, &node, NULL))
				read_all(&node, len);
			whole[at] ^= flip;
		}
	}
}
END_TEST

START_TEST(property_lengths_beyond_the_tree_are_refused)
{
	/* -12: the walk would stand still, or go back, for ever */
	static const uint32_t lens[] = { 0xfffffff4, 0xffffffff, 0x7fffffff, 0x80000000, 100, 25 };

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		struct raw raw = root();

		strbuf_puts(&raw.strings, "x");
		strbuf_append(&raw.strings, "", 1);
		tag(&raw, FDT_PROP);
		tag(&raw, lens[i]);
		tag(&raw, (uint32_t)raw.strings.len - 2);
		for (int pad = 0; pad < 4; pad++)
			tag(&raw, FDT_NOP);
		end(&raw);
		is_refused(&raw, -EINVAL, "longer than the tree");
	}
}
END_TEST

START_TEST(property_names_must_be_names_within_the_strings)
{
	static const uint32_t beyond[] = { 1000, 0x7fffffff, 0xffffffff };
	static const char *const names[] = {
		"",
		"a b",
		"\x1b[2J",
		"\xff",
		"0123456789012345678901234567890123456789012345678901234567890123",
	};

	for (size_t i = 0; i < ARRAY_SIZE(beyond); i++) {
		struct raw raw = root();

		tag(&raw, FDT_PROP);
		tag(&raw, 0);
		tag(&raw, beyond[i]);
		end(&raw);
		is_refused(&raw, -EINVAL, "a property without a name");
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct raw raw = root();

		prop(&raw, names[i], "", 0);
		end(&raw);
		is_refused(&raw, -EINVAL, "a property without a name");
	}
}
END_TEST

START_TEST(a_property_name_without_end_is_refused)
{
	struct raw raw = root();

	prop(&raw, "x", "", 0);
	raw.strings.len--;
	end(&raw);
	is_refused(&raw, -EINVAL, "a property without a name");
}
END_TEST

START_TEST(node_names_must_be_names)
{
	static const char *const names[] = { "", "a/b", "a b", "\x1b[2J" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct raw raw = root();

		begin(&raw, names[i]);
		tag(&raw, FDT_END_NODE);
		end(&raw);
		is_refused(&raw, -EINVAL, "bytes no name has");
	}
}
END_TEST

START_TEST(a_node_name_without_end_is_refused)
{
	struct raw raw = root();

	tag(&raw, FDT_BEGIN_NODE);
	tag(&raw, 0x61616161);
	is_refused(&raw, -EINVAL, "name does not end");
	raw = root();
	begin(&raw, "0123456789012345678901234567890123456789012345678901234567890123");
	tag(&raw, FDT_END_NODE);
	end(&raw);
	is_refused(&raw, -EINVAL, "name does not end");
}
END_TEST

START_TEST(the_root_is_one_and_has_no_name)
{
	struct raw raw = root();

	tag(&raw, FDT_END_NODE);
	begin(&raw, "");
	end(&raw);
	is_refused(&raw, -EINVAL, "more than one root");
	raw = (struct raw){ .structure = STRBUF_INIT };
	begin(&raw, "root");
	identity(&raw);
	end(&raw);
	is_refused(&raw, -EINVAL, "one with a name");
	raw = (struct raw){ .structure = STRBUF_INIT };
	tag(&raw, FDT_END);
	is_refused(&raw, -EINVAL, "");
}
END_TEST

START_TEST(properties_have_their_place)
{
	struct raw raw = root();

	begin(&raw, "a");
	tag(&raw, FDT_END_NODE);
	prop(&raw, "late", "", 0);
	end(&raw);
	is_refused(&raw, -EINVAL, "behind nodes below it");
	raw = (struct raw){ .structure = STRBUF_INIT };
	identity(&raw);
	begin(&raw, "");
	end(&raw);
	is_refused(&raw, -EINVAL, "outside of a node");
	raw = root();
	tag(&raw, FDT_END_NODE);
	prop(&raw, "late", "", 0);
	tag(&raw, FDT_END);
	is_refused(&raw, -EINVAL, "outside of a node");
}
END_TEST

START_TEST(tags_must_be_balanced_and_known)
{
	struct raw raw = root();

	tag(&raw, FDT_END);
	is_refused(&raw, -EINVAL, "ends inside of a node");
	raw = root();
	tag(&raw, FDT_END_NODE);
	tag(&raw, FDT_END_NODE);
	tag(&raw, FDT_END);
	is_refused(&raw, -EINVAL, "has no beginning");
	raw = root();
	tag(&raw, FDT_END_NODE);
	is_refused(&raw, -EINVAL, "does not end");
	raw = root();
	tag(&raw, 5);
	end(&raw);
	is_refused(&raw, -EINVAL, "unknown tag");
	raw = root();
	end(&raw);
	tag(&raw, FDT_NOP);
	is_refused(&raw, -EINVAL, "ends early");
}
END_TEST

START_TEST(nodes_too_deep_are_refused)
{
	for (int more = 0; more < 2; more++) {
		struct raw raw = root();

		for (int i = 1; i < STATE_TREE_DEPTH_MAX + more; i++)
			begin(&raw, "n");
		for (int i = 1; i < STATE_TREE_DEPTH_MAX + more; i++)
			tag(&raw, FDT_END_NODE);
		end(&raw);
		if (more)
			is_refused(&raw, -EINVAL, "more than 16 deep");
		else
			opens(&raw);
	}
}
END_TEST

START_TEST(names_twice_are_refused)
{
	struct raw raw = root();

	begin(&raw, "a");
	prop(&raw, "x", "", 0);
	prop(&raw, "y", "", 0);
	prop(&raw, "x", "1", 1);
	tag(&raw, FDT_END_NODE);
	end(&raw);
	is_refused(&raw, -EINVAL, "the property x is there twice");
	raw = root();
	begin(&raw, "a");
	tag(&raw, FDT_END_NODE);
	begin(&raw, "b");
	begin(&raw, "a");
	tag(&raw, FDT_END_NODE);
	tag(&raw, FDT_END_NODE);
	begin(&raw, "a");
	tag(&raw, FDT_END_NODE);
	end(&raw);
	is_refused(&raw, -EINVAL, "the node a is there twice");
}
END_TEST

START_TEST(a_tree_has_as_many_entries_as_allowed)
{
	const unsigned int most = STATE_ENTRIES_MAX - 2; /* beside the root's two */
	char name[16];

	for (unsigned int more = 0; more < 2; more++) {
		struct raw raw = root();

		for (unsigned int i = 0; i < most + more; i++) {
			snprintf(name, sizeof(name), "%x", i);
			begin(&raw, name);
			tag(&raw, FDT_END_NODE);
		}
		end(&raw);
		if (more)
			is_refused(&raw, -EINVAL, "more than 262144 nodes and properties");
		else
			opens(&raw);
	}
}
END_TEST

START_TEST(a_device_tree_of_something_else_is_refused)
{
	struct raw raw = { .structure = STRBUF_INIT };

	begin(&raw, "");
	end(&raw);
	is_refused(&raw, -EINVAL, "property compatible is missing");
	raw = (struct raw){ .structure = STRBUF_INIT };
	begin(&raw, "");
	prop(&raw, "compatible", "linux,dummy-virt", 17);
	prop(&raw, "version", "\0\0\0\1", 4);
	end(&raw);
	is_refused(&raw, -EINVAL, "not of the kind state-tree");
	raw = (struct raw){ .structure = STRBUF_INIT };
	begin(&raw, "");
	prop(&raw, "compatible", "ferry,state-tree", 17);
	prop(&raw, "version", "\0\0\0\2", 4);
	end(&raw);
	is_refused(&raw, -EPROTONOSUPPORT, "of a newer Ferry");
	raw = (struct raw){ .structure = STRBUF_INIT };
	begin(&raw, "");
	prop(&raw, "compatible", "ferry,state-tree", 16); /* without its zero */
	prop(&raw, "version", "\0\0\0\1", 4);
	end(&raw);
	is_refused(&raw, -EINVAL, "property compatible is no text");
	raw = root();
	prop(&raw, "required", "future", 7);
	end(&raw);
	is_refused(&raw, -EPROTONOSUPPORT, "property future is required");
}
END_TEST

START_TEST(a_list_of_required_properties_must_be_one)
{
	static const struct {
		const char *list;
		size_t len;
	} lists[] = {
		{ "", 0 }, { "x", 1 }, { "", 1 }, { "x\0y", 3 }, { "x\0\0", 3 }, { "a b", 4 }
	};
	static const char *const known[] = { "x", "y", NULL };
	struct error err = ERROR_INIT;
	struct raw raw = root();
	struct state_node node, child;
	size_t len;
	_cleanup_free_ void *blob = NULL;

	begin(&raw, "a");
	identity(&raw);
	prop(&raw, "required", lists[_i].list, lists[_i].len);
	tag(&raw, FDT_END_NODE);
	end(&raw);
	blob = assemble(&raw, &len);
	ck_assert_int_eq(state_tree_open(blob, len, &node, NULL), 0);
	ck_assert_int_eq(state_child(&node, "a", &child, NULL), 0);
	ck_assert_int_eq(state_expect(&child, "state-tree", 1, known, NULL, &err), -EINVAL);
	ck_assert_str_eq(err.message, "/a: property required is no list of names");
}
END_TEST

static Suite *state_tree_suite(void)
{
	Suite *suite = suite_create("malformed state tree");
	TCase *test = tcase_create("malformed");

	tcase_set_timeout(test, 60);
	tcase_add_test(test, the_tree_that_is_broken_below_opens_as_it_is);
	tcase_add_test(test, a_tree_cut_anywhere_is_refused);
	tcase_add_test(test, bytes_behind_a_tree_are_refused);
	tcase_add_test(test, a_tree_not_aligned_is_refused);
	tcase_add_test(test, a_larger_tree_is_refused_by_its_size_alone);
	tcase_add_loop_test(test, a_wrong_header_is_refused, 0, 10 * ARRAY_SIZE(words));
	tcase_add_test(test, every_byte_may_be_any_other);
	tcase_add_test(test, property_lengths_beyond_the_tree_are_refused);
	tcase_add_test(test, property_names_must_be_names_within_the_strings);
	tcase_add_test(test, a_property_name_without_end_is_refused);
	tcase_add_test(test, node_names_must_be_names);
	tcase_add_test(test, a_node_name_without_end_is_refused);
	tcase_add_test(test, the_root_is_one_and_has_no_name);
	tcase_add_test(test, properties_have_their_place);
	tcase_add_test(test, tags_must_be_balanced_and_known);
	tcase_add_test(test, nodes_too_deep_are_refused);
	tcase_add_test(test, names_twice_are_refused);
	tcase_add_test(test, a_tree_has_as_many_entries_as_allowed);
	tcase_add_test(test, a_device_tree_of_something_else_is_refused);
	tcase_add_loop_test(test, a_list_of_required_properties_must_be_one, 0, 6);
	suite_add_tcase(suite, test);
	return suite;
}

int main(void)
{
	return run_suite(state_tree_suite());
}
