/* SPDX-License-Identifier: Apache-2.0 */
/* The bodies of snapshot, restore and migration, and how overrides reach a VM. */
#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/config_json.h"
#include "api/migration_config.h"
#include "api/migration_progress.h"
#include "base/bytes.h"
#include "tests/unit/helpers/run_suite.h"

static json_t *parse(const char *text)
{
	json_error_t problem;
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &problem);

	ck_assert_msg(json != NULL, "%s: %s", text, problem.text);
	return json;
}

/* One reader and writer per body, for the tests that walk all four. */
struct body {
	const char *name, *everything, *minimal;
	int (*read)(void *config, const json_t *json, struct error *err);
	json_t *(*write)(const void *config);
	void (*destroy)(void *config);
};

#define BODY(type) \
	static int read_##type(void *config, const json_t *json, struct error *err) \
	{ \
		return type##_config_from_json(config, json, err); \
	} \
	static json_t *write_##type(const void *config) \
	{ \
		return type##_config_to_json(config); \
	} \
	static void destroy_##type(void *config) \
	{ \
		type##_config_destroy(config); \
	}

BODY(snapshot)
BODY(restore)
BODY(send_migration)
BODY(receive_migration)

#define OVERRIDES \
	"\"net\":[{\"id\":\"n0\",\"tap\":\"tap7\",\"mac\":\"02:00:00:00:00:07\"}]," \
	"\"net_fds\":[{\"id\":\"n1\",\"num_fds\":2}]," \
	"\"disks\":[{\"id\":\"d0\",\"path\":\"/clone.img\"}]," \
	"\"vsock\":{\"socket\":\"/clone.vsock\",\"cid\":77}," \
	"\"serial\":{\"mode\":\"File\",\"file\":\"/clone.log\"},\"console\":{\"mode\":\"Null\"}"

/* Everything: each field at a value that is not its default. */
static const struct body bodies[] = {
	{ "snapshot",
	  "{\"destination_url\":\"file:///s\",\"live\":false,\"compress\":\"zstd\","
	  "\"base_url\":\"file:///b\"}",
	  "{\"destination_url\":\"file:///s\"}", read_snapshot, write_snapshot, destroy_snapshot },
	{ "restore",
	  "{\"source_url\":\"file:///s\",\"prefault\":true,\"memory_restore_mode\":\"CopyOnWrite\","
	  "\"resume\":true," OVERRIDES "}",
	  "{\"source_url\":\"file:///s\"}", read_restore, write_restore, destroy_restore },
	{ "send",
	  "{\"destination_url\":\"tcp:[fe80::1%eth0]:4444\",\"local\":false,"
	  "\"memory_mode\":\"Precopy\",\"downtime_ms\":50,\"timeout_s\":60,"
	  "\"timeout_strategy\":\"Ignore\",\"connections\":128,\"preserve_source\":true,"
	  "\"bandwidth\":1000000,\"max_throttle\":50,\"checksum\":true,"
	  "\"tls_dir\":\"/etc/tls\"}",
	  "{\"destination_url\":\"unix:/s\"}", read_send_migration, write_send_migration,
	  destroy_send_migration },
	{ "receive",
	  "{\"receiver_url\":\"tcp:0.0.0.0:4444\",\"tls_dir\":\"/t\",\"resume\":false," OVERRIDES
	  "}",
	  "{\"receiver_url\":\"unix:/s\"}", read_receive_migration, write_receive_migration,
	  destroy_receive_migration },
};

enum { SNAPSHOT, RESTORE, SEND, RECEIVE };

union any {
	struct snapshot_config snapshot;
	struct restore_config restore;
	struct send_migration_config send;
	struct receive_migration_config receive;
};

static union any good(int body, const char *text)
{
	struct error err = ERROR_INIT;
	union any config;
	json_t *json = parse(text);

	ck_assert_msg(!bodies[body].read(&config, json, &err), "%s: %s", text, err.message);
	json_decref(json);
	return config;
}

static void bad(int body, const char *text, const char *expect)
{
	struct error err = ERROR_INIT;
	union any config;
	json_t *json = parse(text);
	int r = bodies[body].read(&config, json, &err);

	json_decref(json);
	ck_assert_msg(r < 0, "%s accepted, expected: %s", text, expect);
	ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
	ck_assert_msg(strstr(err.message, expect) != NULL, "\"%s\" lacks \"%s\"", err.message,
		      expect);
}

/* A body of that kind with one more field. */
static void bad_field(int body, const char *field, const char *expect)
{
	char text[1024];
	size_t len = strlen(bodies[body].minimal) - 1;

	snprintf(text, sizeof(text), "%.*s,%s}", (int)len, bodies[body].minimal, field);
	bad(body, text, expect);
}

START_TEST(every_field_survives_the_round_trip)
{
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		union any config = good((int)i, bodies[i].everything);
		json_t *wanted = parse(bodies[i].everything), *got = bodies[i].write(&config);
		char *text = json_dumps(got, JSON_COMPACT);

		ck_assert_msg(json_equal(wanted, got), "%s: got %s", bodies[i].name, text);
		free(text);
		json_decref(wanted);
		json_decref(got);
		bodies[i].destroy(&config);
	}
}
END_TEST

START_TEST(what_is_left_out_or_null_has_its_default)
{
	union any c = good(SNAPSHOT, "{\"destination_url\":\"file:///s\",\"live\":null,"
				     "\"compress\":null,\"base_url\":null}");

	ck_assert(c.snapshot.live && c.snapshot.compress == SNAPSHOT_COMPRESS_NONE);
	ck_assert_ptr_null(c.snapshot.base_url);
	snapshot_config_destroy(&c.snapshot);
	c = good(RESTORE,
		 "{\"source_url\":\"file:///s\",\"prefault\":null,\"memory_restore_mode\":null,"
		 "\"resume\":null,\"zone_updates\":null,\"net\":null,\"net_fds\":[],\"vsock\":"
		 "null}");
	ck_assert(!c.restore.prefault && !c.restore.resume);
	ck_assert_int_eq(c.restore.memory_restore_mode, MEMORY_RESTORE_EAGER);
	ck_assert_uint_eq(c.restore.overrides.net_count + c.restore.overrides.net_fds_count, 0);
	restore_config_destroy(&c.restore);
	c = good(SEND, "{\"destination_url\":\"unix:/s\",\"local\":null,\"memory_mode\":null,"
		       "\"downtime_ms\":null,\"timeout_s\":null,\"timeout_strategy\":null,"
		       "\"connections\":null,\"tls_dir\":null,\"bandwidth\":null}");
	ck_assert_uint_eq(c.send.downtime_ms, 300);
	ck_assert_uint_eq(c.send.timeout_s, 3600);
	ck_assert_int_eq(c.send.timeout_strategy, SEND_TIMEOUT_CANCEL);
	ck_assert_int_eq(c.send.memory_mode, SEND_PRECOPY);
	ck_assert_uint_eq(c.send.connections, 1);
	ck_assert_uint_eq(c.send.bandwidth, 0);
	ck_assert_uint_eq(c.send.max_throttle, 99);
	ck_assert(!c.send.local && !c.send.preserve_source && !c.send.checksum);
	send_migration_config_destroy(&c.send);
	c = good(RECEIVE, "{\"receiver_url\":\"unix:/s\",\"tls_dir\":null}");
	ck_assert(c.receive.resume);
	receive_migration_config_destroy(&c.receive);
}
END_TEST

START_TEST(modes_have_cloud_hypervisors_names_and_ours)
{
	static const struct {
		const char *word;
		enum memory_restore_mode mode;
	} modes[] = {
		{ "Copy", MEMORY_RESTORE_EAGER },	  { "eager", MEMORY_RESTORE_EAGER },
		{ "OnDemand", MEMORY_RESTORE_LAZY },	  { "lazy", MEMORY_RESTORE_LAZY },
		{ "CopyOnWrite", MEMORY_RESTORE_SHARED }, { "shared", MEMORY_RESTORE_SHARED },
	};
	char text[128];

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		union any c;

		snprintf(text, sizeof(text),
			 "{\"source_url\":\"file:///s\",\"memory_restore_mode\":\"%s\"}",
			 modes[i].word);
		c = good(RESTORE, text);
		ck_assert_int_eq(c.restore.memory_restore_mode, modes[i].mode);
		restore_config_destroy(&c.restore);
	}
}
END_TEST

START_TEST(local_and_memfds_say_the_same)
{
	static const char *const texts[] = { "\"local\":true", "\"memory_mode\":\"MemFDs\"",
					     "\"memory_mode\":\"memfds\",\"local\":true" };
	char text[128];

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		union any c;

		snprintf(text, sizeof(text), "{\"destination_url\":\"unix:/s\",%s}", texts[i]);
		c = good(SEND, text);
		ck_assert(c.send.local);
		ck_assert_int_eq(c.send.memory_mode, SEND_MEMFDS);
		send_migration_config_destroy(&c.send);
	}
}
END_TEST

START_TEST(each_field_refuses_what_it_is_not)
{
	static const struct {
		int body;
		const char *field, *expect;
	} cases[] = {
		{ SNAPSHOT, "\"live\":1", "live: must be a boolean, not an integer" },
		{ SNAPSHOT, "\"compress\":\"gzip\"", "compress: \"gzip\" is none of none, zstd" },
		{ SNAPSHOT, "\"compress\":true", "compress: must be a string" },
		{ SNAPSHOT, "\"base_url\":\"/b\"", "base_url: \"/b\": must be file:///" },
		{ SNAPSHOT, "\"base_url\":7", "base_url: must be a string" },
		{ SNAPSHOT, "\"base_url\":\"file:///s\"", "base_url: is the destination_url" },
		{ SNAPSHOT, "\"nonsense\":1", "nonsense: unknown field" },
		{ RESTORE, "\"prefault\":\"on\"", "prefault: must be a boolean" },
		{ RESTORE, "\"resume\":0", "resume: must be a boolean" },
		{ RESTORE, "\"memory_restore_mode\":\"slow\"", "memory_restore_mode: \"slow\" is" },
		{ RESTORE, "\"memory_restore_mode\":2", "memory_restore_mode: must be a string" },
		{ RESTORE, "\"prefault\":true,\"memory_restore_mode\":\"lazy\"",
		  "prefault: a lazy" },
		{ RESTORE, "\"zone_updates\":[{\"id\":\"z\",\"host_numa_node\":1}]",
		  "zone_updates: not offered" },
		{ RESTORE, "\"net\":{}", "net: must be an array" },
		{ RESTORE, "\"net\":[{\"tap\":\"t\"}]", "net[0].id: is missing" },
		{ RESTORE, "\"net\":[{\"id\":\"a/b\"}]", "net[0].id: \"a/b\" may have" },
		{ RESTORE, "\"net\":[{\"id\":\"a\",\"tap\":\"x/y\"}]", "net[0].tap: \"x/y\"" },
		{ RESTORE, "\"net\":[{\"id\":\"a\"},{\"id\":\"b\",\"mac\":\"1\"}]",
		  "net[1].mac: \"1\"" },
		{ RESTORE, "\"net\":[{\"id\":\"a\",\"mac\":\"01:00:00:00:00:01\"}]",
		  "net[0].mac: 01:00:00:00:00:01 is a multicast" },
		{ RESTORE, "\"net\":[{\"id\":\"a\"},{\"id\":\"a\"}]",
		  "net[1].id: \"a\" is net[0]'s" },
		{ RESTORE, "\"net\":[{\"id\":\"a\",\"mtu\":1500}]", "net[0].mtu: unknown field" },
		{ RESTORE,
		  "\"net\":[{\"id\":\"a\",\"tap\":\"t\"}],\"net_fds\":[{\"id\":\"a\",\"num_fds\":1}"
		  "]",
		  "net[0].tap: \"a\" has descriptors" },
		{ RESTORE, "\"net_fds\":[{\"num_fds\":1}]", "net_fds[0].id: is missing" },
		{ RESTORE, "\"net_fds\":[{\"id\":\"a\"}]", "net_fds[0].num_fds: is missing" },
		{ RESTORE, "\"net_fds\":[{\"id\":\"a\",\"num_fds\":0}]", "net_fds[0].num_fds: 0" },
		{ RESTORE, "\"net_fds\":[{\"id\":\"a\",\"num_fds\":-1}]", "net_fds[0].num_fds: 0" },
		{ RESTORE, "\"net_fds\":[{\"id\":\"a\",\"num_fds\":65}]",
		  "net_fds[0].num_fds: 65" },
		{ RESTORE, "\"net_fds\":[{\"id\":\"a\",\"num_fds\":\"1\"}]",
		  "net_fds[0].num_fds: must be an integer" },
		{ RESTORE, "\"net_fds\":[{\"id\":\"a\",\"fds\":[5]}]",
		  "net_fds[0].fds: may have -1" },
		{ RESTORE, "\"net_fds\":[{\"id\":\"a\",\"fds\":7}]",
		  "net_fds[0].fds: must be an array" },
		{ RESTORE, "\"net_fds\":[{\"id\":\"a\",\"num_fds\":1,\"fds\":[-1,-1]}]",
		  "net_fds[0].fds: num_fds and fds differ" },
		{ RESTORE,
		  "\"net_fds\":[{\"id\":\"a\",\"num_fds\":1},{\"id\":\"a\",\"num_fds\":1}]",
		  "net_fds[1].id: \"a\" is there twice" },
		{ RESTORE, "\"disks\":[{\"id\":\"d\"}]", "disks[0].path: is missing" },
		{ RESTORE, "\"devices\":[{\"path\":\"/d\"}]", "devices[0].id: is missing" },
		{ RESTORE, "\"devices\":[{\"id\":\"d\",\"path\":\"\"}]",
		  "devices[0].path: a path" },
		{ RESTORE, "\"devices\":[{\"id\":\"d\",\"path\":\"/p\",\"migration\":{\"x\":1}}]",
		  "devices[0].migration.x" },
		{ RESTORE,
		  "\"devices\":[{\"id\":\"d\",\"path\":\"/d\",\"migration\":{"
		  "\"plugin_path\":\"p.so\"}}]",
		  "devices[0].migration.plugin_path: \"p.so\" must be absolute" },
		{ RESTORE,
		  "\"user_devices\":[{\"id\":\"d\",\"socket\":\"/d\",\"migration\":{"
		  "\"plugin_path\":\"p.so\"}}]",
		  "user_devices[0].migration.plugin_path: \"p.so\" must be absolute" },
		{ RESTORE, "\"user_devices\":[{\"id\":\"d\"}]",
		  "user_devices[0].socket: is missing" },
		{ RESTORE, "\"disks\":[{\"path\":\"/d\"}]", "disks[0].id: is missing" },
		{ RESTORE, "\"disks\":[{\"id\":\"d\",\"path\":\"\"}]", "disks[0].path: a path" },
		{ RESTORE,
		  "\"disks\":[{\"id\":\"d\",\"path\":\"/\"},{\"id\":\"d\",\"path\":\"/\"}]",
		  "disks[1].id: \"d\" is disks[0]'s already" },
		{ RESTORE, "\"vsock\":{\"cid\":2}", "vsock.cid: 2 is not in 3" },
		{ RESTORE, "\"vsock\":{\"socket\":\"\"}", "vsock.socket: a path" },
		{ RESTORE, "\"vsock\":[]", "vsock: must be an object" },
		{ RESTORE, "\"serial\":{\"mode\":\"File\"}", "serial.file: a path is needed" },
		{ RESTORE, "\"serial\":{\"file\":\"/f\"}", "serial.mode: is missing" },
		{ RESTORE, "\"console\":{\"mode\":\"Socket\"}", "console.socket: must be set" },
		{ RESTORE, "\"console\":{\"mode\":\"tty\"}", "console.mode: \"tty\" is none of" },
		{ SEND, "\"local\":\"on\"", "local: must be a boolean" },
		{ SEND, "\"memory_mode\":\"Postcopy\",\"local\":true",
		  "Postcopy and local exclude" },
		{ SEND, "\"memory_mode\":\"fast\"", "memory_mode: \"fast\" is none of Precopy" },
		{ SEND, "\"downtime_ms\":0", "downtime_ms: 0 is not in 1" },
		{ SEND, "\"downtime_ms\":-1", "downtime_ms: -1 is not in 1" },
		{ SEND, "\"downtime_ms\":3600001", "downtime_ms: 3600001 is not in" },
		{ SEND, "\"downtime_ms\":1.5", "downtime_ms: must be an integer" },
		{ SEND, "\"timeout_s\":0", "timeout_s: 0 is not in 1" },
		{ SEND, "\"timeout_s\":31536001", "timeout_s: 31536001 is not in" },
		{ SEND, "\"timeout_strategy\":\"Wait\"", "timeout_strategy: \"Wait\" is none of" },
		{ SEND, "\"connections\":0", "connections: 0 is not in 1 to 128" },
		{ SEND, "\"connections\":129", "connections: 129 is not in 1 to 128" },
		{ SEND, "\"connections\":2", "connections: 2: more than one needs tcp:" },
		{ SEND, "\"preserve_source\":1", "preserve_source: must be a boolean" },
		{ SEND, "\"bandwidth\":1", "bandwidth: 1 is less than 65536" },
		{ SEND, "\"bandwidth\":-5", "bandwidth: -5 is not in" },
		{ SEND, "\"max_throttle\":100", "max_throttle: 100 is not in 0 to 99" },
		{ SEND, "\"checksum\":\"crc\"", "checksum: must be a boolean" },
		{ SEND, "\"tls_dir\":\"/t\"", "tls_dir: needs tcp:" },
		{ SEND, "\"tls_dir\":5", "tls_dir: must be a string" },
		{ RECEIVE, "\"resume\":\"no\"", "resume: must be a boolean" },
		{ RECEIVE, "\"tls_dir\":\"/t\"", "tls_dir: needs tcp:" },
		{ RECEIVE, "\"net\":[{}]", "net[0].id: is missing" },
		{ RECEIVE, "\"source_url\":\"file:///s\"", "source_url: unknown field" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		bad_field(cases[i].body, cases[i].field, cases[i].expect);
	bad(SEND, "{\"destination_url\":\"tcp:h:1\",\"local\":true}",
	    "destination_url: \"tcp:h:1\": a local migration");
	bad(SEND, "{\"destination_url\":\"tcp:h:1\",\"tls_dir\":\"t\"}",
	    "tls_dir: \"t\": the path must be absolute");
	bad(RECEIVE, "{\"receiver_url\":\"tcp:h:1\",\"tls_dir\":\"\"}",
	    "tls_dir: \"\": the path must be absolute");
	for (int i = SNAPSHOT; i <= RECEIVE; i++) {
		bad(i, "{}", "_url: is missing");
		bad(i, "[]", "the body must be an object");
	}
}
END_TEST

/* --- URLs --------------------------------------------------------------------------- */

#define ANY (CONFIG_URL_FILE | CONFIG_URL_UNIX | CONFIG_URL_TCP)

START_TEST(urls_come_apart)
{
	struct config_url url;

	ck_assert_int_eq(config_url_parse(&url, "file:///a b/c", ANY, "u", NULL), 0);
	ck_assert_int_eq(url.kind, CONFIG_URL_FILE);
	ck_assert_str_eq(url.path, "/a b/c");
	ck_assert_int_eq(config_url_parse(&url, "unix:rel/sock", ANY, "u", NULL), 0);
	ck_assert_int_eq(url.kind, CONFIG_URL_UNIX);
	ck_assert_str_eq(url.path, "rel/sock");
	ck_assert_int_eq(config_url_parse(&url, "tcp:host-1.example:65535", ANY, "u", NULL), 0);
	ck_assert_int_eq(url.kind, CONFIG_URL_TCP);
	ck_assert_uint_eq(url.host_len, strlen("host-1.example"));
	ck_assert_int_eq(strncmp(url.host, "host-1.example", url.host_len), 0);
	ck_assert_str_eq(url.port, "65535");
	ck_assert_int_eq(config_url_parse(&url, "tcp:[::1]:1", ANY, "u", NULL), 0);
	ck_assert_uint_eq(url.host_len, 3);
	ck_assert_int_eq(strncmp(url.host, "::1", 3), 0);
	ck_assert_str_eq(url.port, "1");
}
END_TEST

START_TEST(what_is_no_url_is_refused_and_named)
{
	static const struct {
		const char *text;
		unsigned int kinds;
		const char *expect;
	} cases[] = {
		{ NULL, ANY, "u: is missing" },
		{ "", ANY, "must be" },
		{ "/tmp/s", CONFIG_URL_FILE, "must be file:///" },
		{ "file:/s", ANY, "must be file:///" },
		{ "file://s", ANY, "must be absolute" },
		{ "file://", ANY, "must be absolute" },
		{ "file:///s", CONFIG_URL_UNIX | CONFIG_URL_TCP, "must be unix:<path> or tcp:" },
		{ "unix:/s", CONFIG_URL_FILE, "must be file:///" },
		{ "unix:", ANY, "a path is needed" },
		{ "http://h/s", ANY, "must be" },
		{ "TCP:h:1", ANY, "must be" },
		{ "tcp:", ANY, "must be tcp:<host>:<port>" },
		{ "tcp:h", ANY, "must be tcp:<host>:<port>" },
		{ "tcp::1", ANY, "is no host" },
		{ "tcp://h:1", ANY, "is no host" },
		{ "tcp:a b:1", ANY, "is no host" },
		{ "tcp:::1:80", ANY, "is written [address]" },
		{ "tcp:[::1", ANY, "must be tcp:<host>:<port>" },
		{ "tcp:[::1]80", ANY, "must be tcp:<host>:<port>" },
		{ "tcp:[]:80", ANY, "is no host" },
		{ "tcp:h:", ANY, "is no port" },
		{ "tcp:h:0", ANY, "is no port" },
		{ "tcp:h:65536", ANY, "is no port" },
		{ "tcp:h:-1", ANY, "is no port" },
		{ "tcp:h:0x50", ANY, "is no port" },
		{ "tcp:h:80 ", ANY, "is no port" },
		{ "tcp:h:99999999999999999999", ANY, "is no port" },
	};
	char text[5000] = "unix:/";
	struct config_url url;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		error_clear(&err);
		ck_assert_msg(config_url_parse(&url, cases[i].text, cases[i].kinds, "u", &err) < 0,
			      "%s", cases[i].text);
		ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
		ck_assert_int_eq(strncmp(err.message, "u: ", 3), 0);
		ck_assert_msg(strstr(err.message, cases[i].expect) != NULL,
			      "%s: \"%s\" lacks \"%s\"", cases[i].text, err.message,
			      cases[i].expect);
	}
	memset(text + 6, 'a', 106); /* 107 with the slash: what sun_path holds */
	ck_assert_int_eq(config_url_parse(&url, text, ANY, "u", NULL), 0);
	text[6 + 106] = 'a';
	ck_assert_int_lt(config_url_parse(&url, text, ANY, "u", &err), 0);
	memcpy(text, "file:///", 8);
	memset(text + 8, 'a', 4095);
	ck_assert_int_lt(config_url_parse(&url, text, ANY, "u", &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "longer than 4095"));
}
END_TEST

/* --- overrides ---------------------------------------------------------------------- */

static const char machine[] =
	"{\"cpus\":{\"boot_vcpus\":4,\"max_vcpus\":4},\"payload\":{\"kernel\":\"/k\"},"
	"\"disks\":[{\"id\":\"d0\",\"path\":\"/d0\"},{\"id\":\"d1\",\"path\":\"/d1\"}],"
	"\"net\":[{\"id\":\"n0\",\"tap\":\"tap0\",\"mac\":\"02:00:00:00:00:01\","
	"\"ip\":\"10.0.0.1\",\"mask\":\"255.0.0.0\"},"
	"{\"id\":\"n1\",\"num_queues\":4,\"fds\":[-1,-1]}],"
	"\"vsock\":{\"id\":\"v\",\"cid\":3,\"socket\":\"/v\"},"
	"\"serial\":{\"mode\":\"File\",\"file\":\"/serial\"}}";

static struct vm_config machine_config(void)
{
	struct error err = ERROR_INIT;
	struct vm_config config;
	json_t *json = parse(machine);

	ck_assert_msg(!vm_config_from_json(&config, json, &err), "%s", err.message);
	json_decref(json);
	return config;
}

static void open_fds(struct config_overrides *o)
{
	for (unsigned int i = 0; i < o->net_fds_count; i++)
		for (unsigned int k = 0; k < o->net_fds[i].fd_count; k++)
			o->net_fds[i].fds[k] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

START_TEST(overrides_reach_their_devices_and_no_other)
{
	struct error err = ERROR_INIT;
	struct vm_config config = machine_config();
	union any c = good(RESTORE, bodies[RESTORE].everything);
	int fd;

	open_fds(&c.restore.overrides);
	fd = c.restore.overrides.net_fds[0].fds[1];
	ck_assert_msg(!config_overrides_apply(&c.restore.overrides, &config, &err), "%s",
		      err.message);
	restore_config_destroy(&c.restore);
	ck_assert_str_eq(config.nets[0].tap, "tap7");
	ck_assert_str_eq(config.nets[0].mac, "02:00:00:00:00:07");
	ck_assert_ptr_null(config.nets[0].ip); /* tap0's, not tap7's */
	ck_assert_ptr_null(config.nets[0].mask);
	ck_assert_int_eq(config.nets[1].fds[1], fd);
	ck_assert_int_ge(fcntl(fd, F_GETFD), 0);
	ck_assert_str_eq(config.disks[0].path, "/clone.img");
	ck_assert_str_eq(config.disks[1].path, "/d1");
	ck_assert_str_eq(config.vsock->socket, "/clone.vsock");
	ck_assert_uint_eq(config.vsock->cid, 77);
	ck_assert_str_eq(config.serial.file, "/clone.log");
	ck_assert_int_eq(config.console.mode, CONSOLE_NULL);
	vm_config_destroy(&config);
	ck_assert_int_lt(fcntl(fd, F_GETFD), 0);
}
END_TEST

/* The card is another here, and so is its agent; the plugin may lie elsewhere. */
START_TEST(plugins_of_devices_are_overridden_in_part_or_whole)
{
	struct error err = ERROR_INIT;
	struct vm_config config;
	json_t *json =
		parse("{\"payload\":{\"kernel\":\"/k\"},\"devices\":[{\"id\":\"a\",\"path\":"
		      "\"/sys/a\",\"migration\":{\"plugin_path\":\"/p\",\"plugin_arg\":\"x\"}}],"
		      "\"user_devices\":[{\"id\":\"b\",\"socket\":\"/b\"}]}");
	union any c =
		good(RECEIVE, "{\"receiver_url\":\"unix:/s\",\"devices\":[{\"id\":\"a\","
			      "\"path\":\"/sys/c\",\"migration\":{\"plugin_arg\":\"y\"}}],"
			      "\"user_devices\":[{\"id\":\"b\",\"socket\":\"/c\",\"migration\":"
			      "{\"plugin_path\":\"/q\",\"plugin_arg\":\"z\"}}]}");

	ck_assert_msg(!vm_config_from_json(&config, json, &err), "%s", err.message);
	json_decref(json);
	ck_assert_msg(!config_overrides_apply(&c.receive.overrides, &config, &err), "%s",
		      err.message);
	ck_assert_str_eq(config.devices[0].path, "/sys/c");
	ck_assert_str_eq(config.devices[0].migration.plugin_path, "/p");
	ck_assert_str_eq(config.devices[0].migration.plugin_arg, "y");
	ck_assert_str_eq(config.user_devices[0].migration.plugin_path, "/q");
	ck_assert_str_eq(config.user_devices[0].migration.plugin_arg, "z");
	receive_migration_config_destroy(&c.receive);
	vm_config_destroy(&config);
}
END_TEST

START_TEST(a_mac_alone_leaves_the_tap_and_its_address)
{
	struct error err = ERROR_INIT;
	struct vm_config config = machine_config();
	union any c = good(RECEIVE, "{\"receiver_url\":\"unix:/s\",\"net\":[{\"id\":\"n0\","
				    "\"mac\":\"02:00:00:00:00:09\"}],"
				    "\"net_fds\":[{\"id\":\"n1\",\"fds\":[-1,-1]}],"
				    "\"vsock\":{\"socket\":\"/w\"}}");

	open_fds(&c.receive.overrides);
	ck_assert_msg(!config_overrides_apply(&c.receive.overrides, &config, &err), "%s",
		      err.message);
	ck_assert_str_eq(config.nets[0].tap, "tap0");
	ck_assert_str_eq(config.nets[0].ip, "10.0.0.1");
	ck_assert_str_eq(config.nets[0].mac, "02:00:00:00:00:09");
	ck_assert_uint_eq(config.vsock->cid, 3);
	ck_assert_str_eq(config.vsock->socket, "/w");
	receive_migration_config_destroy(&c.receive);
	vm_config_destroy(&config);
}
END_TEST

START_TEST(override_of_what_the_vm_does_not_have_is_refused_and_named)
{
	static const struct {
		const char *fields, *expect;
	} cases[] = {
		{ "\"net\":[{\"id\":\"x\",\"tap\":\"t\"}]",
		  "net[0].id: \"x\": the VM has no such network device" },
		{ "\"net_fds\":[{\"id\":\"d0\",\"num_fds\":1}]", "net_fds[0].id: \"d0\"" },
		{ "\"net_fds\":[{\"id\":\"n1\",\"num_fds\":1}]",
		  "net_fds[0].num_fds: 1: \"n1\" has 2 pairs" },
		{ "\"devices\":[{\"id\":\"n0\",\"path\":\"/p\"}]",
		  "devices[0].id: \"n0\": the VM has" },
		{ "\"user_devices\":[{\"id\":\"n0\",\"socket\":\"/p\"}]",
		  "user_devices[0].id: \"n0\": the VM has" },
		{ "\"disks\":[{\"id\":\"n0\",\"path\":\"/p\"}]",
		  "disks[0].id: \"n0\": the VM has" },
		{ "\"net_fds\":[{\"id\":\"n1\",\"num_fds\":2}],\"console\":{\"mode\":\"Off\"}",
		  "console.mode: the VM has one, which cannot go; Null" },
		/* n1's descriptors stayed on the other host */
		{ "\"net\":[]", "net[1].fds[0]: no descriptor came" },
		{ "\"net\":[{\"id\":\"n1\",\"tap\":\"tap0\"}]", "tap0" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_INIT;
		struct vm_config config = machine_config();
		char text[256];
		union any c;

		snprintf(text, sizeof(text), "{\"source_url\":\"file:///s\",%s}", cases[i].fields);
		c = good(RESTORE, text);
		open_fds(&c.restore.overrides);
		ck_assert_msg(config_overrides_apply(&c.restore.overrides, &config, &err) < 0, "%s",
			      cases[i].fields);
		ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
		ck_assert_msg(strstr(err.message, cases[i].expect) != NULL, "\"%s\" lacks \"%s\"",
			      err.message, cases[i].expect);
		restore_config_destroy(&c.restore);
		vm_config_destroy(&config);
	}
}
END_TEST

START_TEST(console_that_is_off_stays_off)
{
	static const char *const fields[] = { "serial", "console" };

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		struct error err = ERROR_INIT;
		struct vm_config config;
		char text[128];
		json_t *json;
		union any c;

		snprintf(text, sizeof(text),
			 "{\"payload\":{\"kernel\":\"/k\"},\"%s\":{\"mode\":\"Off\"}}", fields[i]);
		json = parse(text);
		ck_assert_int_eq(vm_config_from_json(&config, json, &err), 0);
		json_decref(json);
		snprintf(text, sizeof(text),
			 "{\"source_url\":\"file:///s\",\"%s\":{\"mode\":\"Null\"}}", fields[i]);
		c = good(RESTORE, text);
		ck_assert_int_lt(config_overrides_apply(&c.restore.overrides, &config, &err), 0);
		ck_assert_msg(strstr(err.message, ".mode: the VM has none (Off)") != NULL, "%s",
			      err.message);
		restore_config_destroy(&c.restore);
		vm_config_destroy(&config);
	}
}
END_TEST

START_TEST(vsock_override_needs_a_vsock)
{
	struct error err = ERROR_INIT;
	struct vm_config config;
	json_t *json = parse("{\"payload\":{\"kernel\":\"/k\"}}");
	union any c = good(RESTORE, "{\"source_url\":\"file:///s\",\"vsock\":{\"cid\":5}}");

	ck_assert_int_eq(vm_config_from_json(&config, json, &err), 0);
	json_decref(json);
	ck_assert_int_lt(config_overrides_apply(&c.restore.overrides, &config, &err), 0);
	ck_assert_str_eq(err.message, "vsock: the VM has no vsock device");
	restore_config_destroy(&c.restore);
	vm_config_destroy(&config);
}
END_TEST

/* --- progress ------------------------------------------------------------------------ */

static void expect_progress(const struct vm_migration_progress *p, const char *wanted_text)
{
	json_t *wanted = parse(wanted_text), *got = vm_migration_progress_to_json(p);
	char *text = json_dumps(got, JSON_COMPACT);

	ck_assert_msg(json_equal(wanted, got), "got %s", text);
	free(text);
	json_decref(wanted);
	json_decref(got);
}

START_TEST(progress_says_all_it_knows)
{
	static struct vm_migration_progress p = {
		.direction = VM_MIGRATION_DIRECTION_SEND,
		.phase = VM_MIGRATION_PHASE_CANCELLED,
		.error = "asked to",
		.note = "no io_uring",
		.cancelling = true,
		.elapsed_ms = 1,
		.round = 2,
		.ram_bytes = 3,
		.done_bytes = 4,
		.remaining_bytes = 5,
		.transferred_bytes = 6,
		.pages = 7,
		.zero_pages = 8,
		.rate = 9,
		.dirty_rate = 10,
		.throttle = 11,
		.expected_downtime_us = 12,
		.downtime = { 13, 14, 22, 15, 16, 17 },
		.io_uring = true,
		.zero_copy = true,
		.connection_count = 2,
		.connections = { { 18, 19 }, { 20, 21 } },
		.device_count = 1,
		.devices = { { "vf", "feature", 23, 24, true } },
	};

	expect_progress(&p,
			"{\"direction\":\"send\",\"phase\":\"cancelled\",\"error\":\"asked to\","
			"\"note\":\"no io_uring\",\"cancelling\":true,\"elapsed_ms\":1,\"round\":2,"
			"\"ram_bytes\":3,\"done_bytes\":4,\"remaining_bytes\":5,"
			"\"transferred_bytes\":6,\"pages\":7,\"zero_pages\":8,\"rate\":9,"
			"\"dirty_rate\":10,\"throttle\":11,\"expected_downtime_us\":12,"
			"\"downtime_us\":{\"total\":13,\"stop\":14,\"devices\":22,\"memory\":15,"
			"\"state\":16,"
			"\"handover\":17},\"io_uring\":true,\"zero_copy\":true,"
			"\"connections\":[{\"bytes\":18,\"rate\":19},{\"bytes\":20,\"rate\":21}],"
			"\"devices\":[{\"id\":\"vf\",\"backend\":\"feature\",\"bytes\":23,"
			"\"remaining_bytes\":24,\"ready\":true}]}");
	ck_assert(vm_migration_phase_over(p.phase));
	ck_assert(!vm_migration_phase_over(VM_MIGRATION_PHASE_BACKGROUND));
}
END_TEST

START_TEST(progress_of_nothing_says_so)
{
	static struct vm_migration_progress p;

	expect_progress(&p, "{\"direction\":\"none\",\"phase\":\"none\"}");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("migration config");
	TCase *tc = tcase_create("migration config");

	tcase_add_test(tc, every_field_survives_the_round_trip);
	tcase_add_test(tc, what_is_left_out_or_null_has_its_default);
	tcase_add_test(tc, modes_have_cloud_hypervisors_names_and_ours);
	tcase_add_test(tc, local_and_memfds_say_the_same);
	tcase_add_test(tc, each_field_refuses_what_it_is_not);
	tcase_add_test(tc, urls_come_apart);
	tcase_add_test(tc, what_is_no_url_is_refused_and_named);
	tcase_add_test(tc, overrides_reach_their_devices_and_no_other);
	tcase_add_test(tc, plugins_of_devices_are_overridden_in_part_or_whole);
	tcase_add_test(tc, a_mac_alone_leaves_the_tap_and_its_address);
	tcase_add_test(tc, override_of_what_the_vm_does_not_have_is_refused_and_named);
	tcase_add_test(tc, console_that_is_off_stays_off);
	tcase_add_test(tc, vsock_override_needs_a_vsock);
	tcase_add_test(tc, progress_says_all_it_knows);
	tcase_add_test(tc, progress_of_nothing_says_so);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
