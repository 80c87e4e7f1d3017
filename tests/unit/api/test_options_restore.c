/* SPDX-License-Identifier: Apache-2.0 */
/* --restore on ferry's command line. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/api/options_words.h"
#include "tests/unit/helpers/run_suite.h"

START_TEST(every_key_arrives_where_it_belongs)
{
	struct ferry_options o =
		good("--restore|source_url=file:///s,memory_restore_mode=shared,prefault=on,"
		     "resume=on,tap=[n0@t1,\"n1\"@t2],mac=[n1@02:00:00:00:00:01],"
		     "disk=[d0@/a,d1@\"/b,c\"],device=[vf@/sys/vf1],"
		     "user_device=[nic@/run/nic],vsock_socket=/v,vsock_cid=9|"
		     "--serial|file=/f|--console|off");
	const struct config_overrides *over = &o.restore.overrides;

	ck_assert(o.restore_given && !o.vm_given);
	ck_assert_str_eq(o.restore.source_url, "file:///s");
	ck_assert_int_eq(o.restore.memory_restore_mode, MEMORY_RESTORE_SHARED);
	ck_assert(o.restore.prefault && o.restore.resume);
	ck_assert_uint_eq(over->net_count, 2);
	ck_assert_str_eq(over->nets[0].tap, "t1");
	ck_assert_ptr_null(over->nets[0].mac);
	ck_assert_str_eq(over->nets[1].id, "n1");
	ck_assert_str_eq(over->nets[1].tap, "t2");
	ck_assert_str_eq(over->nets[1].mac, "02:00:00:00:00:01");
	ck_assert_uint_eq(over->disk_count, 2);
	ck_assert_str_eq(over->disks[1].path, "/b,c");
	ck_assert_uint_eq(over->device_count, 1);
	ck_assert_str_eq(over->devices[0].id, "vf");
	ck_assert_str_eq(over->devices[0].path, "/sys/vf1");
	ck_assert_int_eq(over->devices[0].fd, -1);
	ck_assert_uint_eq(over->user_device_count, 1);
	ck_assert_str_eq(over->user_devices[0].socket, "/run/nic");
	ck_assert_str_eq(over->vsock->socket, "/v");
	ck_assert_uint_eq(over->vsock->cid, 9);
	ck_assert_int_eq(over->serial->mode, CONSOLE_FILE);
	ck_assert_str_eq(over->serial->file, "/f");
	ck_assert_int_eq(over->console->mode, CONSOLE_OFF);
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(url_stands_alone_and_the_rest_has_defaults)
{
	struct ferry_options o = good("--restore|file:///s|--api-socket|/a");

	ck_assert_str_eq(o.restore.source_url, "file:///s");
	ck_assert_int_eq(o.restore.memory_restore_mode, MEMORY_RESTORE_EAGER);
	ck_assert(!o.restore.resume && !o.restore.prefault);
	ck_assert_ptr_null(o.restore.overrides.serial);
	ck_assert_ptr_null(o.restore.overrides.console);
	ck_assert_ptr_null(o.restore.overrides.vsock);
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(modes_have_cloud_hypervisors_names_too)
{
	static const struct {
		const char *words;
		enum memory_restore_mode mode;
	} rows[] = {
		{ "copy", MEMORY_RESTORE_EAGER },	  { "eager", MEMORY_RESTORE_EAGER },
		{ "ondemand", MEMORY_RESTORE_LAZY },	  { "OnDemand", MEMORY_RESTORE_LAZY },
		{ "copyonwrite", MEMORY_RESTORE_SHARED }, { "lazy", MEMORY_RESTORE_LAZY },
	};
	char words[128];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct ferry_options o;

		snprintf(words, sizeof(words),
			 "--restore|file:///s,resume=on,memory_restore_mode=%s", rows[i].words);
		o = good(words);
		ck_assert_int_eq(o.restore.memory_restore_mode, rows[i].mode);
		ferry_options_destroy(&o);
	}
}
END_TEST

START_TEST(descriptors_are_taken_and_closed)
{
	int a = open("/dev/null", O_RDONLY), b = open("/dev/null", O_RDONLY);
	char words[128];
	struct ferry_options o;

	snprintf(words, sizeof(words), "--restore|file:///s,resume=on,net_fds=[n0@[%d],n1@[%d]]", a,
		 b);
	o = good(words);
	ck_assert_uint_eq(o.restore.overrides.net_fds_count, 2);
	ck_assert_int_eq(o.restore.overrides.net_fds[1].fds[0], b);
	ferry_options_destroy(&o);
	ck_assert_int_lt(fcntl(a, F_GETFD), 0);
	ck_assert_int_lt(fcntl(b, F_GETFD), 0);
}
END_TEST

START_TEST(descriptor_that_two_devices_claim_is_refused)
{
	int fd = open("/dev/null", O_RDONLY);
	char words[160];

	snprintf(words, sizeof(words), "--restore|file:///s,resume=on,net_fds=[n0@[%d],n1@[%d]]",
		 fd, fd);
	bad(words, "--restore: net_fds=", "each once");
	fd = open("/dev/null", O_RDONLY);
	snprintf(words, sizeof(words), "--restore|file:///s,net_fds=[n0@[%d]]|--api-socket|fd=%d",
		 fd, fd);
	bad(words, "is given twice");
}
END_TEST

static const struct {
	const char *words, *says;
} wrong[] = {
	{ "--restore", "--restore needs a value" },
	{ "--restore|resume=on", "--restore: source_url: is missing" },
	{ "--restore|/s", "--restore: source_url: \"/s\": must be file:///" },
	{ "--restore|file://s", "must be absolute" },
	{ "--restore|file:///s", "--restore: the VM comes up paused" },
	{ "--restore|file:///s|--restore|file:///t", "--restore is given twice" },
	{ "--restore|file:///s,resume=on|--cpus|boot=1", "--cpus: with --restore" },
	{ "--restore|file:///s,resume=on|--kernel|k", "--kernel: with --restore" },
	{ "--restore|file:///s,resume=maybe", "resume=maybe: must be on or off" },
	{ "--restore|file:///s,memory_restore_mode=fast", "memory_restore_mode=fast: must be" },
	{ "--restore|file:///s,prefault=on,memory_restore_mode=lazy", "prefault: a lazy restore" },
	{ "--restore|file:///s,tap=[n0]", "tap=[n0]: must be devices and their taps" },
	{ "--restore|file:///s,tap=[n0@]", "tap=[n0@]: must be" },
	{ "--restore|file:///s,tap=[@t]", "tap=[@t]: must be" },
	{ "--restore|file:///s,tap=[]", "tap=[]: must be" },
	{ "--restore|file:///s,tap=[n@a,n@b]", "each once" },
	{ "--restore|file:///s,tap=[n@a/b]", "net[0].tap: \"a/b\" is no interface name" },
	{ "--restore|file:///s,mac=[n@1]", "net[0].mac: \"1\" is no MAC" },
	{ "--restore|file:///s,net_fds=[n@[900]]", "net_fds=[n@[900]]: must be" },
	{ "--restore|file:///s,net_fds=[n@[x]]", "must be devices and open descriptors" },
	{ "--restore|file:///s,net_fds=[n@[1", "a bracket or a quote is not closed" },
	{ "--restore|file:///s,disk=[d]", "disk=[d]: must be disks" },
	{ "--restore|file:///s,device=[d]", "device=[d]: must be assigned devices" },
	{ "--restore|file:///s,device=[d@/a,d@/b]",
	  "devices[1].id: \"d\" is devices[0]'s already" },
	{ "--restore|file:///s,user_device=[d@/a,d@/b]",
	  "user_devices[1].id: \"d\" is user_devices[0]'s already" },
	{ "--restore|file:///s,disk=[d@/a,d@/b]", "disks[1].id: \"d\" is disks[0]'s already" },
	{ "--restore|file:///s,vsock_cid=2", "vsock_cid=2: must be a number from 3" },
	{ "--restore|file:///s,sorce_url=x", "(did you mean source_url?)" },
	{ "--restor|file:///s", "(did you mean --restore?)" },
};

START_TEST(wrong_value_is_refused_and_named)
{
	bad(wrong[_i].words, wrong[_i].says);
}
END_TEST

START_TEST(restore_is_not_of_the_options_that_describe_a_vm)
{
	char *argv[] = { (char *)"create", (char *)"--restore", (char *)"file:///s" };
	struct error err = ERROR_INIT;
	struct vm_config config;

	ck_assert_int_lt(vm_config_parse_options(&config, 3, argv, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "--restore concerns the ferry process"));
}
END_TEST

START_TEST(confinement_is_asked_for_with_restore_and_without_a_vm)
{
	static const char *const lines[] = {
		"--restore|source_url=file:///s,resume=on|--landlock|--landlock-rules|path=/"
		"a,access=r",
		"--api-socket|/s|--landlock|--landlock-rules|path=/a,access=r",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct ferry_options o = good(lines[i]);

		ck_assert(o.config.landlock_enable && !o.vm_given);
		ck_assert_uint_eq(o.config.landlock_rule_count, 1);
		ferry_options_destroy(&o);
	}
}
END_TEST

START_TEST(send_takes_every_key)
{
	struct send_migration_config c;
	struct error err = ERROR_INIT;

	ck_assert_msg(!send_migration_config_parse(
			      &c,
			      "tcp:h:1,memory_mode=Precopy,downtime_ms=5,timeout_s=6,"
			      "timeout_strategy=Ignore,connections=7,preserve_source=on,"
			      "bandwidth=1M,max_throttle=8,checksum=on,tls_dir=/tls",
			      &err),
		      "%s", err.message);
	ck_assert_str_eq(c.destination_url, "tcp:h:1");
	ck_assert_int_eq(c.memory_mode, SEND_PRECOPY);
	ck_assert_uint_eq(c.downtime_ms, 5);
	ck_assert_uint_eq(c.timeout_s, 6);
	ck_assert_int_eq(c.timeout_strategy, SEND_TIMEOUT_IGNORE);
	ck_assert_uint_eq(c.connections, 7);
	ck_assert(c.preserve_source && c.checksum && !c.local);
	ck_assert_uint_eq(c.bandwidth, 1 << 20);
	ck_assert_uint_eq(c.max_throttle, 8);
	ck_assert_str_eq(c.tls_dir, "/tls");
	send_migration_config_destroy(&c);
	ck_assert_int_lt(send_migration_config_parse(&c, "tcp:h:1,bandwidth=1", &err), 0);
	ck_assert_str_eq(err.message, "--send-migration: bandwidth: 1 is less than 65536 bytes/s; "
				      "0 means no limit");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("options, restore");
	TCase *tc = tcase_create("options, restore");

	tcase_add_test(tc, every_key_arrives_where_it_belongs);
	tcase_add_test(tc, url_stands_alone_and_the_rest_has_defaults);
	tcase_add_test(tc, modes_have_cloud_hypervisors_names_too);
	tcase_add_test(tc, descriptors_are_taken_and_closed);
	tcase_add_test(tc, descriptor_that_two_devices_claim_is_refused);
	tcase_add_loop_test(tc, wrong_value_is_refused_and_named, 0, ARRAY_SIZE(wrong));
	tcase_add_test(tc, restore_is_not_of_the_options_that_describe_a_vm);
	tcase_add_test(tc, confinement_is_asked_for_with_restore_and_without_a_vm);
	tcase_add_test(tc, send_takes_every_key);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
