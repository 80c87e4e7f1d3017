/* SPDX-License-Identifier: Apache-2.0 */
/* The program ferryctl against a server of one request in a thread. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "tests/unit/helpers/ctl_fake.h"

#define NO_CONTENT "HTTP/1.1 204 No Content\r\n\r\n"
#define REPLY(status, type, body) \
	"HTTP/1.1 " status "\r\nContent-Type: " type "\r\nConnection: close\r\n\r\n" body
#define OK_JSON(body) REPLY("200 OK", "application/json", body)

/* Every command that sends a request: what it sends, what it prints. (The one that sends
 * none, state, has test_ctl_state.c, and those that send several test_ctl_migration.c.) */
static const struct {
	const char *words, *line, *body, *reply, *out;
} commands[] = {
	{ "ping", "GET /api/v1/vmm.ping ", NULL,
	  OK_JSON("{\"build_version\":\"b\",\"version\":\"1.2\",\"pid\":7}"),
	  "ferry 1.2, pid 7\n" },
	{ "shutdown-vmm", "PUT /api/v1/vmm.shutdown ", NULL, NO_CONTENT, "" },
	{ "boot", "PUT /api/v1/vm.boot ", NULL, NO_CONTENT, "" },
	{ "delete", "PUT /api/v1/vm.delete ", NULL, NO_CONTENT, "" },
	{ "shutdown", "PUT /api/v1/vm.shutdown ", NULL, NO_CONTENT, "" },
	{ "reboot", "PUT /api/v1/vm.reboot ", NULL, NO_CONTENT, "" },
	{ "pause", "PUT /api/v1/vm.pause ", NULL, NO_CONTENT, "" },
	{ "resume", "PUT /api/v1/vm.resume ", NULL, NO_CONTENT, "" },
	{ "power-button", "PUT /api/v1/vm.power-button ", NULL, NO_CONTENT, "" },
	{ "nmi", "PUT /api/v1/vm.nmi ", NULL, NO_CONTENT, "" },
	{ "info", "GET /api/v1/vm.info ", NULL, OK_JSON("{\"state\":\"Running\"}"),
	  "State  Running\n" },
	{ "counters", "GET /api/v1/vm.counters ", NULL, OK_JSON("{\"_net0\":{\"rx\":5}}"),
	  "DEVICE  COUNTER  VALUE\n_net0   rx           5\n" },
	{ "metrics", "GET /metrics ", NULL, REPLY("200 OK", "text/plain", "ferry_x 1\n"),
	  "ferry_x 1\n" },
	{ "resize|--balloon|1M", "PUT /api/v1/vm.resize ", "{\"desired_balloon\":1048576}",
	  NO_CONTENT, "" },
	{ "resize|--balloon=0", "PUT /api/v1/vm.resize ", "{\"desired_balloon\":0}", NO_CONTENT,
	  "" },
	{ "resize-disk|--disk|d|--size|2K", "PUT /api/v1/vm.resize-disk ",
	  "{\"id\":\"d\",\"desired_size\":2048}", NO_CONTENT, "" },
	{ "remove-device|d", "PUT /api/v1/vm.remove-device ", "{\"id\":\"d\"}", NO_CONTENT, "" },
	{ "add-disk|path=/a,id=d", "PUT /api/v1/vm.add-disk ", "\"path\":\"/a\"",
	  OK_JSON("{\"id\":\"d\",\"bdf\":\"0000:00:05.0\"}"), "d at 0000:00:05.0\n" },
	{ "add-net|tap=t", "PUT /api/v1/vm.add-net ", "\"tap\":\"t\"",
	  OK_JSON("{\"id\":\"_net0\",\"bdf\":\"0000:00:06.0\"}"), "_net0 at 0000:00:06.0\n" },
	{ "add-vsock|cid=9,socket=/s", "PUT /api/v1/vm.add-vsock ", "\"cid\":9", NO_CONTENT,
	  "added; the VM has it when it boots\n" },
	{ "add-device|path=/sys/vf,iommufd=off", "PUT /api/v1/vm.add-device ",
	  "\"path\":\"/sys/vf\"", OK_JSON("{\"id\":\"_vfio0\",\"bdf\":\"0000:00:08.0\"}"),
	  "_vfio0 at 0000:00:08.0\n" },
	{ "add-user-device|socket=/s,id=u", "PUT /api/v1/vm.add-user-device ", "\"socket\":\"/s\"",
	  NO_CONTENT, "added; the VM has it when it boots\n" },
	{ "create|--kernel|/k|--device|path=/sys/vf|--user-device|socket=/s",
	  "PUT /api/v1/vm.create ", "\"devices\":[{\"path\":\"/sys/vf\",", NO_CONTENT, "" },
	{ "create|--kernel|/k|--disk|path=/a", "PUT /api/v1/vm.create ", "\"kernel\":\"/k\"",
	  NO_CONTENT, "" },
	{ "restore|file:///s,resume=on,tap=[n0@t1]|--serial|file=/f|--console|off",
	  "PUT /api/v1/vm.restore ",
	  "\"resume\":true,\"net\":[{\"id\":\"n0\",\"tap\":\"t1\"}],"
	  "\"serial\":{\"mode\":\"File\",\"file\":\"/f\"},\"console\":{\"mode\":\"Off\"}}",
	  NO_CONTENT, "" },
	{ "cancel-migration", "PUT /api/v1/vm.cancel-migration ", NULL, NO_CONTENT, "" },
	{ "migration", "GET /api/v1/vm.migration ", NULL,
	  OK_JSON("{\"direction\":\"none\",\"phase\":\"none\"}"),
	  "nothing was migrated, saved or restored yet\n" },
	{ "live-update", "PUT /api/v1/vm.live-update ", "{}",
	  OK_JSON("{\"pid\":7,\"downtime_us\":{\"total\":2345}}"),
	  "The VM goes on in process 7; it stood still for 2.3 ms.\n" },
	{ "live-update|--binary|/proc|--|-v|--x=y", "PUT /api/v1/vm.live-update ",
	  "{\"binary\":\"/proc\",\"args\":[\"-v\",\"--x=y\"]}",
	  OK_JSON("{\"pid\":7,\"downtime_us\":{\"total\":900}}"),
	  "The VM goes on in process 7; it stood still for 0.9 ms.\n" },
	{ "live-update|--socket|/no/where", "PUT /api/v1/vm.live-update ",
	  "{\"socket\":\"/no/where\"}", OK_JSON("{\"downtime_us\":{\"total\":900}}"),
	  "The VM goes on in the new process; it stood still for 0.9 ms.\n" },
	{ "--json|info", "GET /api/v1/vm.info ", NULL, OK_JSON("{\"state\":\"Running\"}"),
	  "{\n  \"state\": \"Running\"\n}\n" },
	{ "info|--json", "GET /api/v1/vm.info ", NULL, OK_JSON("{\"a\":1}"), "{\n  \"a\": 1\n}\n" },
	{ "--json|boot", "PUT /api/v1/vm.boot ", NULL, NO_CONTENT, "" },
};

START_TEST(command_sends_its_call_and_prints_the_answer)
{
	struct ctl_fake fake = { 0 };
	struct ctl_outcome o = ctl_call(&fake, commands[_i].words, commands[_i].reply);

	ck_assert_msg(o.status == CTL_OK, "%s: %s", commands[_i].words, o.err);
	ck_assert_msg(!strncmp(fake.request, commands[_i].line, strlen(commands[_i].line)), "%s",
		      fake.request);
	if (commands[_i].body)
		ck_assert_msg(strstr(fake.request, commands[_i].body) != NULL, "%s", fake.request);
	else
		ck_assert_ptr_null(strcasestr(fake.request, "content-length"));
	ck_assert_str_eq(o.out, commands[_i].out);
	ck_assert_str_eq(o.err, "");
	ctl_outcome_free(&o);
}
END_TEST

static void check_command(const char *name)
{
	struct ctl_outcome o;
	char words[64];
	static const char *const elsewhere[] = { "state", "snapshot", "send-migration",
						 "receive-migration" };
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(elsewhere) && !found; i++)
		found = !strcmp(name, elsewhere[i]);
	for (size_t i = 0; i < ARRAY_SIZE(commands) && !found; i++)
		found = !strncmp(commands[i].words, name, strlen(name));
	ck_assert_msg(found, "%s is not tested", name);
	snprintf(words, sizeof(words), "%s|--help", name);
	o = ctl_run(words);
	ck_assert_int_eq(o.status, CTL_OK);
	ck_assert_ptr_nonnull(strstr(o.out, "Usage: ferryctl "));
	ck_assert_ptr_nonnull(strstr(o.out, name));
	ctl_outcome_free(&o);
}

static void check_document(const char *document, const char *name)
{
	FILE *f = fopen(document, "r");
	char line[1024], roff[64];
	bool found = false;
	size_t n = 0;

	ck_assert_msg(f != NULL, "%s: cannot be read (run in the project's root)", document);
	/* roff writes a minus as \- */
	for (const char *p = name; *p; p++) {
		if (*p == '-')
			roff[n++] = '\\';
		roff[n++] = *p;
	}
	roff[n] = '\0';
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, name) || strstr(line, roff);
	fclose(f);
	ck_assert_msg(found, "%s is missing in %s", name, document);
}

START_TEST(every_command_is_tested_and_documented)
{
	struct ctl_outcome o = ctl_run("--help");
	unsigned int count = 0;
	char *line, *save, *list;

	ck_assert_int_eq(o.status, CTL_OK);
	list = strstr(o.out, "Commands");
	ck_assert_ptr_nonnull(list);
	strtok_r(list, "\n", &save);
	while ((line = strtok_r(NULL, "\n", &save)) && !strncmp(line, "  ", 2)) {
		char *name = line + 2;

		name[strcspn(name, " ")] = '\0';
		check_command(name);
		check_document("packaging/man/ferryctl.1", name);
		check_document("packaging/completion/bash/ferryctl", name);
		check_document("packaging/completion/zsh/_ferryctl", name);
		count++;
	}
	ck_assert_uint_eq(count, 30);
	ctl_outcome_free(&o);
}
END_TEST

/* What ferry refuses. */
static const struct {
	const char *reply, *err;
} refusals[] = {
	{ REPLY("404 Not Found", "application/json", "[\"VM is not created\"]"),
	  "ferryctl: boot: VM is not created\n" },
	{ REPLY("500 Internal Server Error", "application/json", "[\"boot VM\",\"no KVM\"]"),
	  "ferryctl: boot: boot VM: no KVM\n" },
	{ REPLY("400 Bad Request", "application/json", "{\"error\":\"bad\"}"),
	  "ferryctl: boot: bad\n" },
	{ REPLY("400 Bad Request", "text/plain", "not so\r\n"), "ferryctl: boot: not so\n" },
	{ REPLY("400 Bad Request", "application/json", "\"text\""), "ferryctl: boot: text\n" },
	{ REPLY("405 Method Not Allowed", "application/json", "[]"),
	  "ferryctl: boot: HTTP status 405\n" },
	{ REPLY("302 Found", "text/plain", ""), "ferryctl: boot: HTTP status 302\n" },
	{ REPLY("404 Not Found", "text/plain", ""),
	  "ferryctl: boot: ferry has no /api/v1/vm.boot (HTTP 404): is it of another version than "
	  "ferryctl?\n" },
	{ REPLY("500 X", "text/plain", "a\033[2Jb\302\233c"), "ferryctl: boot: a?[2Jb?c\n" },
};

START_TEST(refusal_is_reported_with_the_words_of_ferry)
{
	struct ctl_fake fake = { 0 };
	struct ctl_outcome o = ctl_call(&fake, "boot", refusals[_i].reply);

	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_str_eq(o.err, refusals[_i].err);
	ck_assert_str_eq(o.out, "");
	ctl_outcome_free(&o);
}
END_TEST

/* Replies of a server that is broken, or worse. */
static const struct {
	const char *reply, *says;
	size_t len, repeat; /* len 0: the text's */
} hostile[] = {
	{ "garbage\r\n\r\n", "not HTTP", 0, 0 },
	{ "HTTP/1.1 200 OK\r\nContent-Le", "ends early", 0, 0 },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"state\":", "ends early", 0, 0 },
	{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{}", "ends early", 0, 0 },
	{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", "not HTTP", 0, 0 },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "not HTTP", 0, 0 },
	{ "HTTP/1.1 100 Continue\r\n\r\n", "did ferry end?", 0, 0 },
	{ "HTTP/1.1 200 OK\r\nX: a", "head is too large", 0, 1 << 20 },
	{ "HTTP/1.1 200 OK\r\n\r\n ", "larger than 16 MiB", 0, 17 << 20 },
	{ OK_JSON("{\"state\":"), "not JSON", 0, 0 },
	{ OK_JSON("{\"a\":1,\"a\":2}"), "not JSON", 0, 0 },
	{ OK_JSON("{\"state\":\"\xff\"}"), "not JSON", 0, 0 },
	{ "HTTP/1.1 200 OK\r\n\r\n[", "not JSON", 0, 65536 },
};

START_TEST(hostile_reply_is_an_error_and_no_more)
{
	struct ctl_fake fake = { .reply_len = hostile[_i].len, .repeat = hostile[_i].repeat };
	struct ctl_outcome o = ctl_call(&fake, "info", hostile[_i].reply);

	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_msg(strstr(o.err, hostile[_i].says) != NULL, "%s", o.err);
	ck_assert_str_eq(o.out, "");
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(closing_without_a_reply_is_an_error)
{
	struct ctl_fake fake = { .read_nothing = true };
	struct ctl_outcome o = ctl_call(&fake, "info", "");

	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_ptr_nonnull(strstr(o.err, "no reply: did ferry end?"));
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(interim_reply_and_chunks_are_understood)
{
	struct ctl_fake fake = { 0 };
	struct ctl_outcome o = ctl_call(&fake, "info",
					"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
					"Transfer-Encoding: chunked\r\n\r\n9\r\n{\"state\":\r\n"
					"8\r\n\"Paused\"\r\n1\r\n}\r\n0\r\n\r\n");

	ck_assert_msg(o.status == CTL_OK, "%s", o.err);
	ck_assert_str_eq(o.out, "State  Paused\n");
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(descriptors_go_with_add_net)
{
	struct ctl_fake fake = { 0 };
	int a = fcntl(STDERR_FILENO, F_DUPFD, 30), b = fcntl(STDERR_FILENO, F_DUPFD, 31);
	struct ctl_outcome o;
	char words[64];

	snprintf(words, sizeof(words), "add-net|id=n|--fd|%d,%d", a, b);
	o = ctl_call(&fake, words, OK_JSON("{\"id\":\"n\",\"bdf\":\"0000:00:07.0\"}"));
	ck_assert_msg(o.status == CTL_OK, "%s", o.err);
	ck_assert_uint_eq(fake.fd_count, 2);
	ck_assert_ptr_nonnull(strstr(fake.request, "\"fds\":[-1,-1]"));
	ck_assert_ptr_nonnull(strstr(fake.request, "\"num_queues\":4"));
	close(a);
	close(b);
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(descriptors_go_with_create)
{
	struct ctl_fake fake = { 0 };
	int a = fcntl(STDERR_FILENO, F_DUPFD, 30);
	struct ctl_outcome o;
	char words[64];

	snprintf(words, sizeof(words), "create|--kernel|/k|--net|fd=%d", a);
	o = ctl_call(&fake, words, NO_CONTENT);
	ck_assert_msg(o.status == CTL_OK, "%s", o.err);
	ck_assert_uint_eq(fake.fd_count, 1);
	close(a);
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(descriptor_goes_with_add_device)
{
	struct ctl_fake fake = { 0 }, other = { 0 };
	int a = fcntl(STDERR_FILENO, F_DUPFD, 30), b = fcntl(STDERR_FILENO, F_DUPFD, 31);
	struct ctl_outcome o;
	char words[64];

	snprintf(words, sizeof(words), "add-device|id=vf|--fd|%d", a);
	o = ctl_call(&fake, words, OK_JSON("{\"id\":\"vf\",\"bdf\":\"0000:00:07.0\"}"));
	ck_assert_msg(o.status == CTL_OK, "%s", o.err);
	ck_assert_uint_eq(fake.fd_count, 1);
	ck_assert_ptr_nonnull(strstr(fake.request, "\"fd\":-1"));
	ck_assert_ptr_null(strstr(fake.request, "\"path\""));
	ctl_outcome_free(&o);
	snprintf(words, sizeof(words), "add-device|--fd=%d", b);
	o = ctl_call(&other, words, NO_CONTENT);
	ck_assert_msg(o.status == CTL_OK, "%s", o.err);
	ck_assert_uint_eq(other.fd_count, 1);
	close(a);
	close(b);
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(descriptors_of_devices_go_with_create_behind_those_of_nets)
{
	struct ctl_fake fake = { 0 };
	int a = fcntl(STDERR_FILENO, F_DUPFD, 30), b = fcntl(STDERR_FILENO, F_DUPFD, 31);
	struct ctl_outcome o;
	char words[64];

	snprintf(words, sizeof(words), "create|--kernel|/k|--device|fd=%d|--net|fd=%d", a, b);
	o = ctl_call(&fake, words, NO_CONTENT);
	ck_assert_msg(o.status == CTL_OK, "%s", o.err);
	ck_assert_uint_eq(fake.fd_count, 2);
	close(a);
	close(b);
	ctl_outcome_free(&o);
}
END_TEST

static void write_file(char *path, const char *text, size_t len)
{
	int fd;

	strcpy(path, "/tmp/ferryctl-file-XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fd_write_full(fd, text, len), 0);
	close(fd);
}

START_TEST(create_sends_a_file_as_it_is)
{
	static const char text[] = "{ \"payload\": { \"kernel\": \"/k\" } }\n";
	struct ctl_fake fake = { 0 };
	char path[32], words[64];
	struct ctl_outcome o;

	write_file(path, text, strlen(text));
	snprintf(words, sizeof(words), "create|%s", path);
	o = ctl_call(&fake, words, NO_CONTENT);
	unlink(path);
	ck_assert_msg(o.status == CTL_OK, "%s", o.err);
	ck_assert_str_eq(strstr(fake.request, "\r\n\r\n") + 4, text);
	ctl_outcome_free(&o);
}
END_TEST

static const struct {
	const char *text, *says;
	size_t len;
} bad_files[] = {
	{ "", "not JSON", 0 },
	{ "{\n  \"a\": }", "line 2, column", 10 },
	{ "[1]", "must be a JSON object", 3 },
	{ "{}\0{}", "not JSON", 5 },
	{ NULL, "larger than the 512 KiB", 600000 },
};

START_TEST(create_refuses_a_file_that_cannot_be_meant)
{
	char path[32], words[64], *large = calloc(1, 600000);
	struct ctl_outcome o;

	memset(large, ' ', 600000);
	write_file(path, bad_files[_i].text ? bad_files[_i].text : large, bad_files[_i].len);
	snprintf(words, sizeof(words), "--api-socket|/nowhere|create|%s", path);
	o = ctl_run(words);
	unlink(path);
	free(large);
	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_msg(strstr(o.err, bad_files[_i].says) != NULL, "%s", o.err);
	ck_assert_ptr_nonnull(strstr(o.err, path));
	ctl_outcome_free(&o);
}
END_TEST

/* What is wrong before anything is sent: the exit status is 2. */
static const struct {
	const char *words, *says;
} usage[] = {
	{ "", "Usage: ferryctl" },
	{ "inof", "unknown command inof (did you mean info?)" },
	{ "xyzzy", "unknown command xyzzy (see ferryctl --help)" },
	{ "--jsno|info", "unknown option --jsno" },
	{ "--api-socket", "--api-socket needs a value" },
	{ "info", "no API socket is named" },
	{ "info|extra", "info: unexpected argument \"extra\"" },
	{ "resize", "--balloon SIZE is missing" },
	{ "resize|--balloon", "--balloon needs a value" },
	{ "resize|--balloon|x", "--balloon x: must be bytes" },
	{ "resize|--balloon|9223372036854775808", "must be bytes" },
	{ "resize|--baloon|1", "unknown option --baloon (did you mean --balloon?)" },
	{ "resize|--balloon|1|--balloon|2", "--balloon is given twice" },
	{ "resize|1", "unexpected argument" },
	{ "resize-disk|--size|1", "--disk ID is missing" },
	{ "resize-disk|--disk|d", "--size SIZE is missing" },
	{ "resize-disk|--disk|\xff|--size|1", "UTF-8" },
	{ "remove-device", "the device's id is missing" },
	{ "remove-device|a|b", "unexpected argument \"b\"" },
	{ "remove-device|\xff", "UTF-8" },
	{ "add-disk", "path=FILE is missing" },
	{ "add-disk|pth=/a", "add-disk: unknown key \"pth\" (did you mean path?)" },
	{ "add-disk|path=/a,queue_size=3", "add-disk: queue_size=3: must be a power of two" },
	{ "add-net", "tap=NAME or --fd N is missing" },
	{ "add-net|--fd|x", "--fd x: must be numbers" },
	{ "add-net|--fd|3],tap=[", "must be numbers" },
	{ "add-net|--fd|900", "must be the numbers of open descriptors" },
	{ "add-net|tap=a|--fd|2", "from 3 on" },
	{ "add-vsock|cid=1", "cid=1" },
	{ "add-device", "path=DIR or --fd N is missing" },
	{ "add-device|id=x", "add-device: path=" },
	{ "add-device|path=vf", "add-device: path=vf: must be absolute" },
	{ "add-device|--fd|3,4", "--fd 3,4: must be the number" },
	{ "add-device|--fd|3],path=[", "must be the number" },
	{ "add-device|--fd|900", "fd=900: must be the number of an open descriptor" },
	{ "add-device|path=/f|--fd|2", "from 3 on" },
	{ "add-device|path=/f|path=/g", "unexpected argument \"path=/g\"" },
	{ "add-user-device", "socket=PATH is missing" },
	{ "add-user-device|path=/s", "add-user-device: unknown key \"path\"" },
	{ "add-user-device|id=x", "add-user-device: socket=" },
	{ "snapshot", "file:///DIR is missing" },
	{ "snapshot|/s", "snapshot: destination_url: \"/s\": must be file:///" },
	{ "snapshot|file:///s,live=maybe", "snapshot: live=maybe: must be on or off" },
	{ "snapshot|file:///s,compress=gz", "compress=gz: must be none or zstd" },
	{ "snapshot|file:///s|--no-wait=1", "--no-wait takes no value" },
	{ "restore", "file:///DIR is missing" },
	{ "restore|file:///s,memory_restore_mode=x", "memory_restore_mode=x: must be eager" },
	{ "restore|file:///s|--serial|nowhere", "--serial: unknown key \"nowhere\"" },
	{ "restore|file:///s,net_fds=[n@[900]]", "net_fds=[n@[900]]: must be devices and open" },
	{ "send-migration", "tcp:HOST:PORT or unix:PATH is missing" },
	{ "send-migration|http://x", "send-migration: destination_url: \"http://x\": must be" },
	{ "send-migration|tcp:h:1,local=on", "a local migration" },
	{ "send-migration|unix:/s,memory_mode=postcopy,local=on", "Postcopy and local exclude" },
	{ "send-migration|tcp:h:1,connection=2", "(did you mean connections?)" },
	{ "send-migration|tcp:h:1|--now", "unknown option --now" },
	{ "receive-migration", "tcp:HOST:PORT or unix:PATH is missing" },
	{ "receive-migration|tcp:h", "receive-migration: receiver_url: \"tcp:h\"" },
	{ "live-update|--binary", "--binary needs a value" },
	{ "live-update|--socket|", "--socket needs a value" },
	{ "live-update|--socket=", "--socket: the value is empty" },
	{ "live-update|/bin/ferry", "unexpected argument \"/bin/ferry\"" },
	{ "migration|--wach", "(did you mean --watch?)" },
	{ "create", "give a JSON file" },
	{ "create|a|b", "unexpected argument \"b\"" },
	{ "create|--cpus|boot=1", "--kernel is missing" },
	{ "create|--kernel|k|--jail|/j", "--jail concerns the ferry process" },
};

START_TEST(wrong_usage_is_named_and_exits_with_2)
{
	struct ctl_outcome o;

	unsetenv("FERRY_API_SOCKET");
	o = ctl_run(usage[_i].words);
	ck_assert_msg(o.status == CTL_USAGE, "%s: %d", usage[_i].words, o.status);
	ck_assert_msg(strstr(o.err, usage[_i].says) != NULL, "%s: %s", usage[_i].words, o.err);
	ck_assert_str_eq(o.out, "");
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(missing_and_dead_sockets_get_a_hint)
{
	struct ctl_fake fake = { 0 };
	struct ctl_outcome o = ctl_run("--api-socket|/tmp/no-such-dir/s|boot");

	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_str_eq(o.err,
			 "ferryctl: boot: /tmp/no-such-dir/s: no such socket: is ferry running "
			 "with --api-socket /tmp/no-such-dir/s?\n");
	ctl_outcome_free(&o);
	ctl_fake_listen(&fake);
	close(fake.listener);
	o = ctl_run("boot");
	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_ptr_nonnull(strstr(o.err, "nobody listens"));
	ctl_outcome_free(&o);
	fake.listener = -1;
	ctl_fake_remove(&fake);
	o = ctl_run("--api-socket|/dev/null|boot");
	ck_assert_int_eq(o.status, CTL_FAILED);
	ctl_outcome_free(&o);
	o = ctl_run("--api-socket|/"
		    "0123456789012345678901234567890123456789012345678901234567890123456789"
		    "0123456789012345678901234567890123456789|boot");
	ck_assert_int_eq(o.status, CTL_FAILED);
	ck_assert_ptr_nonnull(strstr(o.err, "longer than the 107 bytes"));
	ctl_outcome_free(&o);
}
END_TEST

START_TEST(option_goes_before_environment_and_takes_both_forms)
{
	struct ctl_fake fake = { .reply = NO_CONTENT, .reply_len = sizeof(NO_CONTENT) - 1 };
	struct ctl_outcome o;
	char words[128];

	ctl_fake_listen(&fake);
	setenv("FERRY_API_SOCKET", "/tmp/no-such-dir/s", 1);
	ctl_fake_start(&fake);
	snprintf(words, sizeof(words), "boot|--api-socket=path=%s", fake.path);
	o = ctl_run(words);
	pthread_join(fake.thread, NULL);
	ctl_fake_remove(&fake);
	ck_assert_msg(o.status == CTL_OK, "%s", o.err);
	ctl_outcome_free(&o);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ctl");
	TCase *tc = tcase_create("ctl");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, command_sends_its_call_and_prints_the_answer, 0,
			    ARRAY_SIZE(commands));
	tcase_add_test(tc, every_command_is_tested_and_documented);
	tcase_add_loop_test(tc, refusal_is_reported_with_the_words_of_ferry, 0,
			    ARRAY_SIZE(refusals));
	tcase_add_loop_test(tc, hostile_reply_is_an_error_and_no_more, 0, ARRAY_SIZE(hostile));
	tcase_add_test(tc, closing_without_a_reply_is_an_error);
	tcase_add_test(tc, interim_reply_and_chunks_are_understood);
	tcase_add_test(tc, descriptors_go_with_add_net);
	tcase_add_test(tc, descriptors_go_with_create);
	tcase_add_test(tc, descriptor_goes_with_add_device);
	tcase_add_test(tc, descriptors_of_devices_go_with_create_behind_those_of_nets);
	tcase_add_test(tc, create_sends_a_file_as_it_is);
	tcase_add_loop_test(tc, create_refuses_a_file_that_cannot_be_meant, 0,
			    ARRAY_SIZE(bad_files));
	tcase_add_loop_test(tc, wrong_usage_is_named_and_exits_with_2, 0, ARRAY_SIZE(usage));
	tcase_add_test(tc, missing_and_dead_sockets_get_a_hint);
	tcase_add_test(tc, option_goes_before_environment_and_takes_both_forms);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
