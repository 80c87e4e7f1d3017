/* SPDX-License-Identifier: Apache-2.0 */
/* Every file of tests/golden is still read as what it was when it was written. */
#include <check.h>
#include <dirent.h>

#include "tests/unit/helpers/golden.h"
#include "tests/unit/helpers/run_suite.h"

static void check_file(const char *file)
{
	char name[256];
	char *blob, *expected, *text;
	size_t len, size;

	snprintf(name, sizeof(name), "%.*s.txt", (int)(strlen(file) - 4), file);
	blob = golden_file(file, &len);
	expected = golden_file(name, &size);
	text = golden_text(blob, len);
	ck_assert_msg(!strcmp(text, expected), "%s reads as\n%s", file, text);
	free(text);
	free(expected);
	free(blob);
}

START_TEST(every_golden_file_reads_as_its_text_says)
{
	DIR *folder = opendir(GOLDEN_FOLDER);
	struct dirent *entry;
	int found = 0;

	ck_assert_msg(folder, GOLDEN_FOLDER ": %s", strerror(errno));
	while ((entry = readdir(folder))) {
		size_t len = strlen(entry->d_name);

		if (len <= 4 || strcmp(entry->d_name + len - 4, ".dtb") != 0)
			continue;
		check_file(entry->d_name);
		found++;
	}
	closedir(folder);
	ck_assert_int_gt(found, 0);
}
END_TEST

/* What the first version of the writer made: one of each kind of property. */
static void write_tree(struct state_writer *writer)
{
	uint8_t bytes[256];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	state_begin(writer, "machine", "golden-machine", 1);
	state_put_u64(writer, "wide", 0x0123456789abcdef);
	state_begin(writer, "devices", "golden-devices", 1);
	state_begin(writer, "device@0", "golden-device", 2);
	state_put_u32(writer, "number", 4096);
	state_put_bool(writer, "yes", true);
	state_put_bool(writer, "no", false);
	state_put_string(writer, "text", "one \"text\"");
	state_put_bytes(writer, "mac", "\x02\0\0\0\0\1", 6);
	state_put_bytes(writer, "bytes", bytes, sizeof(bytes));
	state_put_bytes(writer, "empty", NULL, 0);
	state_require(writer, "number");
	state_require(writer, "text");
	state_end(writer);
	state_begin(writer, "device@1", "golden-device", 1);
	state_end(writer);
	state_end(writer);
	state_end(writer);
}

START_TEST(the_first_tree_ever_written_is_read)
{
	static const char *const known[] = { "number", "text", NULL };
	struct state_node root, machine, devices, device;
	struct state_writer *writer = state_writer_new(NULL);
	const char *text;
	uint64_t number;
	uint32_t version;
	uint8_t mac[6];
	void *blob;
	size_t len;
	bool yes;

	write_tree(writer);
	ck_assert_int_eq(state_writer_finish(writer, &blob, &len, NULL), 0);
	state_writer_free(writer);
	golden_write("state-tree-v1", blob, len);
	free(blob);
	root = golden_open("state-tree-v1", &blob);
	ck_assert_int_eq(state_child(&root, "machine", &machine, NULL), 0);
	ck_assert_int_eq(state_get_u64(&machine, "wide", &number, NULL), 0);
	ck_assert_uint_eq(number, 0x0123456789abcdef);
	ck_assert_int_eq(state_child(&machine, "devices", &devices, NULL), 0);
	ck_assert_int_eq(state_child(&devices, "device@0", &device, NULL), 0);
	ck_assert_int_eq(state_expect(&device, "golden-device", 2, known, &version, NULL), 0);
	ck_assert_uint_eq(version, 2);
	ck_assert_int_eq(state_get_range(&device, "number", 4096, 4096, &number, NULL), 0);
	ck_assert_int_eq(state_get_bool(&device, "yes", &yes, NULL), 0);
	ck_assert(yes);
	ck_assert_int_eq(state_get_bool(&device, "no", &yes, NULL), 0);
	ck_assert(!yes);
	ck_assert_int_eq(state_get_string(&device, "text", &text, NULL), 0);
	ck_assert_str_eq(text, "one \"text\"");
	ck_assert_int_eq(state_get_bytes(&device, "mac", mac, 6, NULL), 0);
	ck_assert_mem_eq(mac, "\x02\0\0\0\0\1", 6);
	free(blob);
}
END_TEST

static Suite *golden_suite(void)
{
	Suite *suite = suite_create("golden files");
	TCase *test = tcase_create("golden");

	tcase_add_test(test, the_first_tree_ever_written_is_read);
	tcase_add_test(test, every_golden_file_reads_as_its_text_says);
	suite_add_tcase(suite, test);
	return suite;
}

int main(void)
{
	return run_suite(golden_suite());
}
