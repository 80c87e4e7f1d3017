/* SPDX-License-Identifier: Apache-2.0 */
/* What ferryctl makes of replies, for people to read. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/unit/helpers/ctl_fake.h"

#define OK_JSON "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"

static const struct {
	const char *command, *body, *out;
} replies[] = {
	/* a VM that runs */
	{ "info",
	  "{\"state\":\"Running\",\"memory_actual_size\":805306368,\"config\":{"
	  "\"cpus\":{\"boot_vcpus\":2,\"max_vcpus\":2},\"memory\":{\"size\":1073741824},"
	  "\"payload\":{\"kernel\":\"/boot/"
	  "vmlinux\",\"cmdline\":\"console=hvc0\",\"initramfs\":null},"
	  "\"serial\":{\"mode\":\"Null\"},\"console\":{\"mode\":\"Pty\",\"file\":\"/dev/pts/4\"},"
	  "\"disks\":[{\"id\":\"_disk0\",\"path\":\"/a.img\",\"readonly\":true},"
	  "{\"id\":\"data\",\"path\":\"/b.img\"}],"
	  "\"net\":[{\"id\":\"_net0\",\"tap\":\"tap0\",\"mac\":\"2e:89:a8:e4:bf:01\"}],"
	  "\"vsock\":{\"id\":\"_vsock0\",\"cid\":3,\"socket\":\"/s\"}},"
	  "\"device_tree\":{\"_disk0\":{\"id\":\"_disk0\",\"pci_bdf\":\"0000:00:02.0\"},"
	  "\"_net0\":{\"pci_bdf\":\"0000:00:04.0\"},\"_rng\":{\"pci_bdf\":\"0000:00:01.0\"},"
	  "\"_vsock0\":{\"pci_bdf\":null}}}",
	  "State         Running\n"
	  "vCPUs         2\n"
	  "Memory        1 GiB, 768 MiB in use\n"
	  "Kernel        /boot/vmlinux\n"
	  "Command line  console=hvc0\n"
	  "Serial        Null\n"
	  "Console       Pty /dev/pts/4\n"
	  "\n"
	  "DEVICE   ADDRESS       WHAT\n"
	  "_disk0   0000:00:02.0  disk /a.img (read-only)\n"
	  "_net0    0000:00:04.0  net tap0, 2e:89:a8:e4:bf:01\n"
	  "_rng     0000:00:01.0\n"
	  "_vsock0  -             vsock cid 3, /s\n"
	  "data     -             disk /b.img\n" },
	/* one that is made only */
	{ "info",
	  "{\"state\":\"Created\",\"memory_actual_size\":536870913,\"config\":{\"memory\":"
	  "{\"size\":536870913},\"disks\":[{\"id\":\"d\",\"path\":\"/a\"}]}}",
	  "State   Created\n"
	  "Memory  536870913 bytes\n"
	  "\n"
	  "DEVICE  ADDRESS  WHAT\n"
	  "d       -        disk /a\n" },
	/* assigned devices */
	{ "info",
	  "{\"state\":\"Running\",\"config\":{\"devices\":[{\"id\":\"vf\",\"path\":\"/sys/vf\"},"
	  "{\"id\":\"_vfio0\",\"fd\":-1}],\"user_devices\":[{\"id\":\"u\",\"socket\":\"/u\"}]},"
	  "\"device_tree\":{\"vf\":{\"pci_bdf\":\"0000:00:05.0\"}}}",
	  "State  Running\n"
	  "\n"
	  "DEVICE  ADDRESS       WHAT\n"
	  "vf      0000:00:05.0  device /sys/vf\n"
	  "_vfio0  -             device (by descriptor)\n"
	  "u       -             vfio-user /u\n" },
	/* fields of other types than they should have are left out */
	{ "info",
	  "{\"state\":7,\"memory_actual_size\":\"x\",\"config\":{\"cpus\":[],\"memory\":{\"size\":-"
	  "1},"
	  "\"payload\":\"x\",\"serial\":[],\"console\":{\"mode\":1},\"disks\":{\"id\":1},"
	  "\"net\":[1,{\"id\":[]}],\"vsock\":3,\"devices\":[1,{\"id\":2}],"
	  "\"user_devices\":{}},\"device_tree\":[1]}",
	  "State\n" },
	{ "info", "[]", "State\n" },
	{ "info", "null", "State\n" },
	{ "info", "{\"state\":\"R\",\"device_tree\":{\"a\":1,\"b\":{\"pci_bdf\":{}}}}",
	  "State  R\n\nDEVICE  ADDRESS  WHAT\na       -\nb       -\n" },
	/* what could command a terminal does not reach it */
	{ "info", "{\"state\":\"\\u001b]0;x\\u0007\\u009b2J\\u007f\"}", "State  ?]0;x??2J?\n" },
	/* other alphabets do */
	{ "info", "{\"state\":\"b\303\244r\"}", "State  b\303\244r\n" },
	{ "counters",
	  "{\"_disk0\":{\"read_bytes\":1048576,\"read_ops\":12},\"_net0\":{\"rx\":-1,\"x\":\"y\"},"
	  "\"z\":3}",
	  "DEVICE  COUNTER       VALUE\n"
	  "_disk0  read_bytes  1048576\n"
	  "_disk0  read_ops         12\n"
	  "_net0   rx               -1\n" },
	{ "counters", "{}", "DEVICE  COUNTER  VALUE\n" },
	{ "counters", "[1,2]", "DEVICE  COUNTER  VALUE\n" },
	{ "ping", "{\"version\":\"9\"}", "ferry 9\n" },
	{ "ping", "{\"version\":9,\"pid\":\"a\"}", "ferry of unknown version\n" },
	{ "ping", "[]", "ferry of unknown version\n" },
	{ "add-disk|path=/a", "{\"id\":\"x\"}", "x\n" },
	{ "add-disk|path=/a", "{}", "added; the VM has it when it boots\n" },
	{ "add-disk|path=/a", "{\"id\":\"a\\nb\\u001b\",\"bdf\":\"c\"}", "a\nb? at c\n" },
	/* as it is, for programs */
	{ "--json|info", "[ 1, {\"b\":2,\"a\":\"\\u001b\"} ]",
	  "[\n  1,\n  {\n    \"b\": 2,\n    \"a\": \"\\u001B\"\n  }\n]\n" },
	{ "--json|ping", "18446744073709551615", NULL },
};

START_TEST(reply_is_rendered)
{
	struct ctl_fake fake = { 0 };
	struct ctl_outcome o;
	char text[4096];

	snprintf(text, sizeof(text), OK_JSON "%s", replies[_i].body);
	o = ctl_call(&fake, replies[_i].command, text);
	if (replies[_i].out) {
		ck_assert_msg(o.status == CTL_OK, "%s", o.err);
		ck_assert_str_eq(o.out, replies[_i].out);
	} else {
		ck_assert_int_eq(o.status, CTL_FAILED);
		ck_assert_ptr_nonnull(strstr(o.err, "not JSON"));
	}
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(deep_nesting_is_refused)
{
	struct ctl_fake fake = { 0 };
	char *text = calloc(1, 70000);
	struct ctl_outcome o;

	strcpy(text, OK_JSON);
	memset(text + strlen(text), '[', 60000);
	o = ctl_call(&fake, "info", text);
	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_ptr_nonnull(strstr(o.err, "not JSON"));
	ctl_outcome_free(&o);
	free(text);
}
END_TEST

START_TEST(very_many_rows_and_long_names_are_bounded)
{
	struct ctl_fake fake = { 0 };
	size_t room = 600000, used;
	char *text = calloc(1, room);
	struct ctl_outcome o;
	unsigned int lines = 0;

	used = (size_t)snprintf(text, room, OK_JSON "{\"d\":{\"");
	memset(text + used, 'n', 100);
	used += 100;
	used += (size_t)snprintf(text + used, room - used, "\":1");
	for (int i = 0; i < 20000; i++)
		used += (size_t)snprintf(text + used, room - used, ",\"c%d\":%d", i, i);
	snprintf(text + used, room - used, "}}");
	o = ctl_call(&fake, "counters", text);
	ck_assert_int_eq(o.status, CTL_OK);
	for (const char *p = o.out; (p = strchr(p, '\n')); p++)
		lines++;
	ck_assert_uint_eq(lines, 4096);
	ctl_outcome_free(&o);
	free(text);
}
END_TEST

START_TEST(output_that_cannot_be_written_is_a_failure)
{
	struct ctl_fake fake = { .reply = OK_JSON "{}", .reply_len = sizeof(OK_JSON "{}") - 1 };
	struct ctl_outcome o;

	fake.out_to = "/dev/full";
	o = ctl_call(&fake, "--json|info", fake.reply);
	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_ptr_nonnull(strstr(o.err, "write the answer"));
	ctl_outcome_free(&o);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ctl_render");
	TCase *tc = tcase_create("ctl_render");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, reply_is_rendered, 0, ARRAY_SIZE(replies));
	tcase_add_test(tc, deep_nesting_is_refused);
	tcase_add_test(tc, very_many_rows_and_long_names_are_bounded);
	tcase_add_test(tc, output_that_cannot_be_written_is_a_failure);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
