/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vmm/guest_ram.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/layout.h"

static struct guest_memory *memory;

static void setup(void)
{
	memory = guest_ram(2 * MIB);
}

static void teardown(void)
{
	guest_memory_free(memory);
}

static const uint8_t *entry_point(void)
{
	return guest_memory_ptr(memory, X86_SMBIOS_BASE, 0x10000);
}

/* The structure of a type, by walking them all as a guest does. */
static const uint8_t *structure(uint8_t type)
{
	const uint8_t *e = entry_point();
	const uint8_t *at = e + (load_le64(e + 16) - X86_SMBIOS_BASE);
	const uint8_t *end = at + load_le32(e + 12);
	const uint8_t *found = NULL;

	while (at < end) {
		const uint8_t *p = at + at[1];

		if (at[0] == type)
			found = at;
		if (at[0] == 127)
			break;
		while (p[0] || p[1])
			p++;
		at = p + 2;
	}
	ck_assert(at < end);
	ck_assert_uint_eq(at[0], 127);
	ck_assert_ptr_eq(at + 6, end);
	return found;
}

static const char *string_of(const uint8_t *structure, unsigned int number)
{
	const char *text = (const char *)structure + structure[1];

	for (; number > 1; number--)
		text += strlen(text) + 1;
	return text;
}

static void written(const struct x86_smbios_options *options)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(x86_smbios_write(memory, options, &err) == 0, "%s", err.message);
}

static void refused(const struct x86_smbios_options *options, const char *text)
{
	struct error err = ERROR_INIT;

	ck_assert_int_lt(x86_smbios_write(memory, options, &err), 0);
	ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' lacks '%s'", err.message, text);
}

START_TEST(entry_point_is_found_and_sums_to_zero)
{
	const uint8_t *e;

	written(&(struct x86_smbios_options){ 0 });
	e = entry_point();
	ck_assert_mem_eq(e, "_SM3_", 5);
	ck_assert_uint_eq(e[6], 24);
	ck_assert_uint_eq(byte_sum(e, 24), 0);
	ck_assert_str_eq(string_of(structure(0), structure(0)[4]), "Ferry");
	ck_assert_ptr_null(structure(11));
}
END_TEST

START_TEST(system_has_the_serial_number_and_uuid_asked_for)
{
	static const uint8_t uuid[16] = { 0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
					  0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
	const uint8_t *s;

	written(&(struct x86_smbios_options){
		.serial_number = "sn-1",
		.uuid = "00112233-4455-6677-8899-AABBccddeeff",
	});
	s = structure(1);
	ck_assert_str_eq(string_of(s, s[7]), "sn-1");
	ck_assert_mem_eq(s + 8, uuid, 16);
}
END_TEST

START_TEST(no_serial_number_is_string_zero)
{
	written(&(struct x86_smbios_options){ .serial_number = "" });
	ck_assert_uint_eq(structure(1)[7], 0);
}
END_TEST

START_TEST(oem_strings_are_in_order)
{
	char *const strings[] = { (char *)"io.systemd.credential:a=b", (char *)"two" };
	const uint8_t *s;

	written(&(struct x86_smbios_options){ .oem_strings = strings, .oem_string_count = 2 });
	s = structure(11);
	ck_assert_uint_eq(s[4], 2);
	ck_assert_str_eq(string_of(s, 1), strings[0]);
	ck_assert_str_eq(string_of(s, 2), "two");
}
END_TEST

START_TEST(malformed_uuid_is_refused)
{
	static const char *const bad[] = {
		"",
		"x",
		"00112233-4455-6677-8899-aabbccddeef",
		"00112233-4455-6677-8899-aabbccddeeff0",
		"001122334455-6677-8899-aabbccddeeff0",
		"0011223g-4455-6677-8899-aabbccddeeff",
		"00112233-4455-6677-8899",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refused(&(struct x86_smbios_options){ .uuid = bad[i] }, "platform uuid");
}
END_TEST

START_TEST(strings_that_do_not_fit_are_refused)
{
	char *big = malloc(70000), *const one[] = { big }, *const empty[] = { (char *)"" };
	char **many = calloc(256, sizeof(*many));

	memset(big, 'x', 69999);
	big[69999] = '\0';
	for (unsigned int i = 0; i < 256; i++)
		many[i] = (char *)"x";
	refused(&(struct x86_smbios_options){ .oem_strings = one, .oem_string_count = 1 },
		"more than the 64 KiB");
	refused(&(struct x86_smbios_options){ .serial_number = big }, "more than the 64 KiB");
	refused(&(struct x86_smbios_options){ .oem_strings = empty, .oem_string_count = 1 },
		"string 1 is empty");
	refused(&(struct x86_smbios_options){ .oem_strings = many, .oem_string_count = 256 },
		"256 strings");
	free(many);
	free(big);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("SMBIOS");
	TCase *tc = tcase_create("smbios");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, entry_point_is_found_and_sums_to_zero);
	tcase_add_test(tc, system_has_the_serial_number_and_uuid_asked_for);
	tcase_add_test(tc, no_serial_number_is_string_zero);
	tcase_add_test(tc, oem_strings_are_in_order);
	tcase_add_test(tc, malformed_uuid_is_refused);
	tcase_add_test(tc, strings_that_do_not_fit_are_refused);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
