/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "tests/unit/api/options_words.h"

START_TEST(defaults_are_those_of_the_headers)
{
	struct ferry_options o = good("--kernel|k");

	ck_assert_int_eq(o.action, FERRY_RUN);
	ck_assert(o.vm_given);
	ck_assert_uint_eq(o.config.cpus.boot_vcpus, 1);
	ck_assert_uint_eq(o.config.memory.size, 512 * MIB);
	ck_assert_str_eq(o.config.rng.src, "/dev/urandom");
	ck_assert_int_eq(o.config.serial.mode, CONSOLE_NULL);
	ck_assert_int_eq(o.config.console.mode, CONSOLE_TTY);
	ck_assert_ptr_null(o.config.balloon);
	ck_assert_ptr_null(o.config.vsock);
	ck_assert_int_eq(o.api_socket_fd, -1);
	ck_assert_int_eq(o.event_monitor_fd, -1);
	ck_assert_int_eq(o.seccomp, SECCOMP_KILL);
	ck_assert_int_eq(o.log_level, LOG_LEVEL_WARNING);
	ck_assert_ptr_null(o.jail.dir);
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(boot_options_are_taken)
{
	struct ferry_options o = good("--kernel|/k|--initramfs=/i|--cmdline|console=ttyS0 -x=y");

	ck_assert_str_eq(o.config.payload.kernel, "/k");
	ck_assert_str_eq(o.config.payload.initramfs, "/i");
	ck_assert_str_eq(o.config.payload.cmdline, "console=ttyS0 -x=y");
	ferry_options_destroy(&o);
	bad("--kernel", "--kernel needs a value");
	bad("--kernel|--initramfs|/i", "--kernel needs a value");
	bad("--kernel|a|--kernel|b", "--kernel is given twice");
	bad("--kernel=", "--kernel", "empty");
}
END_TEST

START_TEST(cpus_are_taken_with_their_topology)
{
	struct ferry_options o = good("--kernel|k|--cpus|boot=8,max=8,topology=2:2:1:2");

	ck_assert_uint_eq(o.config.cpus.boot_vcpus, 8);
	ck_assert_uint_eq(o.config.cpus.max_vcpus, 8);
	ck_assert_uint_eq(o.config.cpus.threads_per_core, 2);
	ck_assert_uint_eq(o.config.cpus.cores_per_die, 2);
	ck_assert_uint_eq(o.config.cpus.dies_per_package, 1);
	ck_assert_uint_eq(o.config.cpus.packages, 2);
	ferry_options_destroy(&o);
	o = good("--kernel|k|--cpus|boot=3");
	ck_assert_uint_eq(o.config.cpus.max_vcpus, 3);
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(memory_is_taken)
{
	struct ferry_options o = good("--kernel|k|--memory|size=4G,hugepages=on,hugepage_size=2M,"
				      "prefault=on,mergeable=true,shared=on,thp=off");

	ck_assert_uint_eq(o.config.memory.size, 4 * GIB);
	ck_assert(o.config.memory.hugepages && o.config.memory.prefault);
	ck_assert(o.config.memory.mergeable && o.config.memory.shared && !o.config.memory.thp);
	ck_assert_uint_eq(o.config.memory.hugepage_size, 2 * MIB);
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(several_disks_follow_one_option_and_several_options)
{
	struct ferry_options o =
		good("--kernel|k|--disk|path=/a,readonly=on|path=/b|--cpus|boot=2|--disk|"
		     "path=\"/c,d\",direct=on,serial=S1,num_queues=2,queue_size=256,id=x,"
		     "bw_size=1M,bw_one_time_burst=2M,bw_refill_time=100,ops_size=1000,"
		     "ops_one_time_burst=5,ops_refill_time=200,_disable_io_uring=on");
	const struct disk_config *d = o.config.disks;

	ck_assert_uint_eq(o.config.disk_count, 3);
	ck_assert_str_eq(d[0].path, "/a");
	ck_assert(d[0].readonly && !d[1].readonly);
	ck_assert_str_eq(d[1].path, "/b");
	ck_assert_str_eq(d[2].path, "/c,d");
	ck_assert_str_eq(d[2].serial, "S1");
	ck_assert_str_eq(d[2].id, "x");
	ck_assert(d[2].direct && d[2].disable_io_uring);
	ck_assert_uint_eq(d[2].num_queues, 2);
	ck_assert_uint_eq(d[2].queue_size, 256);
	ck_assert_uint_eq(d[2].rate_limiter_config.bandwidth.size, MIB);
	ck_assert_uint_eq(d[2].rate_limiter_config.bandwidth.one_time_burst, 2 * MIB);
	ck_assert_uint_eq(d[2].rate_limiter_config.bandwidth.refill_time, 100);
	ck_assert_uint_eq(d[2].rate_limiter_config.ops.size, 1000);
	ck_assert_uint_eq(d[2].rate_limiter_config.ops.one_time_burst, 5);
	ck_assert_uint_eq(d[2].rate_limiter_config.ops.refill_time, 200);
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(net_is_taken)
{
	struct ferry_options o =
		good("--kernel|k|--cpus|boot=2|--net|tap=tap0,ip=10.0.0.1,mask=255.255.255.0,"
		     "mac=2e:89:a8:e4:bf:01,mtu=9000,num_queues=4,queue_size=512,id=n,vhost=on,"
		     "offload_tso=off,offload_ufo=off,offload_csum=off,bw_size=9,bw_refill_time=1|"
		     "tap=,mac=,ip=,mask=");
	const struct net_config *n = o.config.nets;

	ck_assert_uint_eq(o.config.net_count, 2);
	ck_assert_str_eq(n->tap, "tap0");
	ck_assert_str_eq(n->ip, "10.0.0.1");
	ck_assert_str_eq(n->mask, "255.255.255.0");
	ck_assert_str_eq(n->mac, "2e:89:a8:e4:bf:01");
	ck_assert_str_eq(n->id, "n");
	ck_assert_uint_eq(n->mtu, 9000);
	ck_assert_uint_eq(n->num_queues, 4);
	ck_assert_uint_eq(n->queue_size, 512);
	ck_assert(n->vhost && !n->offload_tso && !n->offload_ufo && !n->offload_csum);
	ck_assert_uint_eq(n->rate_limiter_config.bandwidth.size, 9);
	/* An empty value leaves the default. */
	ck_assert_ptr_null(n[1].tap);
	ck_assert_ptr_null(n[1].mac);
	ck_assert(n[1].offload_tso && n[1].offload_ufo && n[1].offload_csum);
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(net_descriptors_must_be_open_and_given_once)
{
	int a = fcntl(STDERR_FILENO, F_DUPFD, 40), b = fcntl(STDERR_FILENO, F_DUPFD, 50);
	struct ferry_options o;
	char words[128];

	snprintf(words, sizeof(words), "--kernel|k|--net|fd=[%d,%d,%d]", a, b, a);
	bad(words, "--net", "fd=[", "each once");
	snprintf(words, sizeof(words), "--kernel|k|--cpus|boot=2|--net|fd=[%d,%d]", a, b);
	o = good(words);
	ck_assert_uint_eq(o.config.nets[0].fd_count, 2);
	ck_assert_int_eq(o.config.nets[0].fds[0], a);
	ck_assert_int_eq(o.config.nets[0].fds[1], b);
	ck_assert_uint_eq(o.config.nets[0].num_queues, 4);
	ck_assert(fcntl(a, F_GETFD) & FD_CLOEXEC);
	ferry_options_destroy(&o);
	/* Owned: closed with the configuration. */
	ck_assert_int_eq(fcntl(a, F_GETFD), -1);
	snprintf(words, sizeof(words), "--kernel|k|--net|fd=%d", b);
	bad(words, "--net", "open descriptors");
	bad("--kernel|k|--net|fd=1", "fd=1", "from 3 on");
	bad("--kernel|k|--net|fd=[]", "fd=[]");
	bad("--kernel|k|--net|fd=[3", "not closed");
	bad("--kernel|k|--net|fd=4294967299", "fd=4294967299");
}
END_TEST

START_TEST(one_descriptor_has_one_user)
{
	int a = fcntl(STDERR_FILENO, F_DUPFD, 40);
	char words[128];

	snprintf(words, sizeof(words), "--kernel|k|--net|fd=%d|fd=%d", a, a);
	bad(words, "given twice");
	a = fcntl(STDERR_FILENO, F_DUPFD, 40);
	snprintf(words, sizeof(words), "--kernel|k|--api-socket|fd=%d|--event-monitor|fd=%d", a, a);
	bad(words, "given twice");
}
END_TEST

START_TEST(assigned_devices_are_taken)
{
	struct ferry_options o =
		good("--kernel|k|--device|path=/sys/bus/pci/devices/0000:01:10.0|"
		     "path=/sys/b,id=vf,iommufd=off,x_nv_gpudirect_clique=15,"
		     "x_exclude_mmap_bars=[0,5]|--user-device|socket=/s|socket=/t,id=u|--device|"
		     "path=/sys/c,x_exclude_mmap_bars=2,migration_plugin=/p.so,"
		     "migration_plugin_arg=10.0.0.1:7,dirty_tracking=all|--user-device|"
		     "socket=/v,dirty_tracking=auto,migration_plugin=/q.so|--plugins|/a|/b.so|"
		     "--plugins|/c");
	const struct device_config *d = o.config.devices;

	ck_assert_uint_eq(o.config.device_count, 3);
	ck_assert_str_eq(d[0].path, "/sys/bus/pci/devices/0000:01:10.0");
	ck_assert_str_eq(d[0].id, "_vfio0");
	ck_assert(d[0].iommufd);
	ck_assert_int_eq(d[0].fd, -1);
	ck_assert_int_eq(d[0].x_nv_gpudirect_clique, -1);
	ck_assert_uint_eq(d[0].x_exclude_mmap_bars, 0);
	ck_assert_str_eq(d[1].id, "vf");
	ck_assert(!d[1].iommufd);
	ck_assert_int_eq(d[1].x_nv_gpudirect_clique, 15);
	ck_assert_uint_eq(d[1].x_exclude_mmap_bars, 1 << 5 | 1);
	ck_assert_uint_eq(d[2].x_exclude_mmap_bars, 1 << 2);
	ck_assert_ptr_null(d[0].migration.plugin_path);
	ck_assert_int_eq(d[0].dirty_tracking, DIRTY_TRACKING_AUTO);
	ck_assert_str_eq(d[2].migration.plugin_path, "/p.so");
	ck_assert_str_eq(d[2].migration.plugin_arg, "10.0.0.1:7");
	ck_assert_int_eq(d[2].dirty_tracking, DIRTY_TRACKING_ALL);
	ck_assert_str_eq(o.config.user_devices[2].migration.plugin_path, "/q.so");
	ck_assert_uint_eq(o.plugin_count, 3);
	ck_assert_str_eq(o.plugins[1], "/b.so");
	ck_assert_str_eq(o.plugins[2], "/c");
	ck_assert_uint_eq(o.config.user_device_count, 3);
	ck_assert_str_eq(o.config.user_devices[0].socket, "/s");
	ck_assert_str_eq(o.config.user_devices[0].id, "_vfio_user0");
	ck_assert_str_eq(o.config.user_devices[1].id, "u");
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(device_descriptor_must_be_open_and_given_once)
{
	int a = fcntl(STDERR_FILENO, F_DUPFD, 40);
	struct ferry_options o;
	char words[128];

	snprintf(words, sizeof(words), "--kernel|k|--device|fd=%d,id=vf", a);
	o = good(words);
	ck_assert_int_eq(o.config.devices[0].fd, a);
	ck_assert_ptr_null(o.config.devices[0].path);
	ck_assert(fcntl(a, F_GETFD) & FD_CLOEXEC);
	ferry_options_destroy(&o);
	/* Owned: closed with the configuration. */
	ck_assert_int_eq(fcntl(a, F_GETFD), -1);
	bad(words, "--device: fd=40", "open descriptor");
	bad("--kernel|k|--device|fd=0", "fd=0", "from 3 on");
	a = fcntl(STDERR_FILENO, F_DUPFD, 40);
	snprintf(words, sizeof(words), "--kernel|k|--device|fd=%d|fd=%d", a, a);
	bad(words, "given twice");
	a = fcntl(STDERR_FILENO, F_DUPFD, 40);
	snprintf(words, sizeof(words), "--kernel|k|--net|fd=%d|--device|fd=%d", a, a);
	bad(words, "given twice");
	a = fcntl(STDERR_FILENO, F_DUPFD, 40);
	snprintf(words, sizeof(words), "--kernel|k|--device|path=/f,fd=%d", a);
	bad(words, "--device: path=/f and fd= exclude each other");
	a = fcntl(STDERR_FILENO, F_DUPFD, 40);
	snprintf(words, sizeof(words), "--kernel|k|--device|iommufd=off,fd=%d", a);
	bad(words, "--device: iommufd=off", "needs iommufd");
	ck_assert_int_ge(fcntl(STDIN_FILENO, F_GETFD), 0);
}
END_TEST

START_TEST(other_devices_are_taken)
{
	struct ferry_options o = good("--kernel|k|--vsock|cid=3,socket=/s,id=v|--rng|src=/r|"
				      "--balloon|size=64M,deflate_on_oom=on,free_page_reporting=on|"
				      "--pvpanic");

	ck_assert_uint_eq(o.config.vsock->cid, 3);
	ck_assert_str_eq(o.config.vsock->socket, "/s");
	ck_assert_str_eq(o.config.vsock->id, "v");
	ck_assert_str_eq(o.config.rng.src, "/r");
	ck_assert_uint_eq(o.config.balloon->size, 64 * MIB);
	ck_assert(o.config.balloon->deflate_on_oom && o.config.balloon->free_page_reporting);
	ck_assert(o.config.pvpanic);
	ferry_options_destroy(&o);
	o = good("--kernel|k|--vsock|cid=4294967294|--balloon|size=0");
	ck_assert_ptr_null(o.config.vsock->socket);
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(consoles_take_every_mode)
{
	static const struct {
		const char *text;
		enum console_mode mode;
	} modes[] = {
		{ "off", CONSOLE_OFF },	     { "null", CONSOLE_NULL },
		{ "pty", CONSOLE_PTY },	     { "tty", CONSOLE_TTY },
		{ "file=/f", CONSOLE_FILE }, { "socket=/s", CONSOLE_SOCKET },
	};

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		struct ferry_options o;
		char words[128];

		snprintf(words, sizeof(words), "--kernel|k|--console|off|--serial|%s",
			 modes[i].text);
		o = good(words);
		ck_assert_int_eq(o.config.serial.mode, modes[i].mode);
		ferry_options_destroy(&o);
		snprintf(words, sizeof(words), "--kernel|k|--serial|null|--console|%s",
			 modes[i].text);
		o = good(words);
		ck_assert_int_eq(o.config.console.mode, modes[i].mode);
		if (modes[i].mode == CONSOLE_FILE)
			ck_assert_str_eq(o.config.console.file, "/f");
		if (modes[i].mode == CONSOLE_SOCKET)
			ck_assert_str_eq(o.config.console.socket, "/s");
		ferry_options_destroy(&o);
	}
}
END_TEST

START_TEST(serial_tty_takes_the_terminal_from_the_default_console_only)
{
	struct ferry_options o = good("--kernel|k|--serial|tty");

	ck_assert_int_eq(o.config.console.mode, CONSOLE_OFF);
	ferry_options_destroy(&o);
	bad("--kernel|k|--serial|tty|--console|tty", "console");
}
END_TEST

START_TEST(debug_console_goes_to_a_file)
{
	struct ferry_options o = good("--kernel|k|--debug-console|file=/f,iobase=0x402");

	ck_assert_int_eq(o.config.debug_console.mode, CONSOLE_FILE);
	ck_assert_str_eq(o.config.debug_console.file, "/f");
	ck_assert_uint_eq(o.config.debug_console.iobase, 0x402);
	ferry_options_destroy(&o);
	o = good("--kernel|k|--debug-console|off");
	ck_assert_int_eq(o.config.debug_console.mode, CONSOLE_OFF);
	ck_assert_uint_eq(o.config.debug_console.iobase, 0xe9);
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(platform_is_taken_with_lists_and_quotes)
{
	struct ferry_options o = good("--kernel|k|--platform|serial_number=a=b,"
				      "uuid=4f4d2fcc-2a5c-4fb1-9d3c-0f0a7ea6b2a1,"
				      "oem_strings=[one,\"two,]\",\"say \"\"x\"\"\"]");
	const struct platform_config *p = &o.config.platform;

	ck_assert_str_eq(p->serial_number, "a=b");
	ck_assert_str_eq(p->uuid, "4f4d2fcc-2a5c-4fb1-9d3c-0f0a7ea6b2a1");
	ck_assert_uint_eq(p->oem_string_count, 3);
	ck_assert_str_eq(p->oem_strings[0], "one");
	ck_assert_str_eq(p->oem_strings[1], "two,]");
	ck_assert_str_eq(p->oem_strings[2], "say \"x\"");
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(landlock_takes_rules)
{
	struct ferry_options o = good("--kernel|k|--landlock|--landlock-rules|path=/a,access=rw|"
				      "path=/b,access=r");

	ck_assert(o.config.landlock_enable);
	ck_assert_uint_eq(o.config.landlock_rule_count, 2);
	ck_assert(o.config.landlock_rules[0].read && o.config.landlock_rules[0].write);
	ck_assert(o.config.landlock_rules[1].read && !o.config.landlock_rules[1].write);
	ck_assert_str_eq(o.config.landlock_rules[1].path, "/b");
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(api_socket_has_three_forms)
{
	static const char *const forms[] = { "--api-socket|/s=1", "--api-socket|path=/s=1",
					     "--api-socket=/s=1", "--api-socket|path=\"/s=1\"" };
	int fd = fcntl(STDERR_FILENO, F_DUPFD, 40);
	struct ferry_options o;
	char words[64];

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		o = good(forms[i]);
		ck_assert(!o.vm_given);
		ck_assert_str_eq(o.api_socket, "/s=1");
		ck_assert_int_eq(o.api_socket_fd, -1);
		ferry_options_destroy(&o);
	}
	snprintf(words, sizeof(words), "--api-socket|fd=%d", fd);
	o = good(words);
	ck_assert_ptr_null(o.api_socket);
	ck_assert_int_eq(o.api_socket_fd, fd);
	ferry_options_destroy(&o);
	/* Not the options' to close. */
	ck_assert_int_ge(fcntl(fd, F_GETFD), 0);
	snprintf(words, sizeof(words), "--api-socket|path=/s,fd=%d", fd);
	bad(words, "--api-socket", "one of");
	close(fd);
	snprintf(words, sizeof(words), "--api-socket|fd=%d", fd);
	bad(words, "--api-socket", "no such descriptor");
	bad("--api-socket|path=", "--api-socket", "one of");
	bad("--api-socket|/"
	    "0123456789012345678901234567890123456789012345678901234567890123456789"
	    "0123456789012345678901234567890123456789",
	    "--api-socket", "107");
}
END_TEST

START_TEST(process_options_are_taken)
{
	struct ferry_options o = good("--api-socket|/s|--event-monitor|path=/e|--log-file|/l|-v|"
				      "--seccomp|log|--jail|/j,uid=1000,gid=1001,net=off");

	ck_assert_str_eq(o.event_monitor_path, "/e");
	ck_assert_str_eq(o.log_file, "/l");
	ck_assert_int_eq(o.log_level, LOG_LEVEL_INFO);
	ck_assert_int_eq(o.seccomp, SECCOMP_LOG);
	ck_assert_str_eq(o.jail.dir, "/j");
	ck_assert_uint_eq(o.jail.uid, 1000);
	ck_assert_uint_eq(o.jail.gid, 1001);
	ck_assert(!o.jail.net);
	ferry_options_destroy(&o);
	o = good("--api-socket|/s|-vvv|--seccomp|false");
	ck_assert_int_eq(o.log_level, LOG_LEVEL_DEBUG);
	ck_assert_int_eq(o.seccomp, SECCOMP_OFF);
	ferry_options_destroy(&o);
}
END_TEST

START_TEST(help_and_version_need_nothing_else)
{
	static const struct {
		const char *words;
		int action;
	} rows[] = {
		{ "--help", FERRY_HELP },
		{ "-h", FERRY_HELP },
		{ "--version", FERRY_VERSION },
		{ "-V", FERRY_VERSION },
		{ "--disk|path=/a|--help", FERRY_HELP },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct ferry_options o = good(rows[i].words);

		ck_assert_int_eq(o.action, rows[i].action);
		ferry_options_destroy(&o);
	}
}
END_TEST

/* Where every option must be written of, from the project's root. */
static const char *const documents[] = {
	"packaging/man/ferry.1",
	"packaging/completion/bash/ferry",
	"packaging/completion/zsh/_ferry",
};

static void check_help(void *opaque, const char *name)
{
	ck_assert_msg(strstr(opaque, name), "%s is missing in the help", name);
}

static void check_document(void *opaque, const char *name)
{
	const char *const *document = opaque;
	_cleanup_fclose_ FILE *f = fopen(*document, "r");
	char line[1024], roff[64];
	size_t n = 0;
	bool found = false;

	ck_assert_msg(f != NULL, "%s: cannot be read (run in the project's root)", *document);
	/* roff writes a minus as \- */
	for (const char *p = name; *p; p++) {
		if (*p == '-')
			roff[n++] = '\\';
		roff[n++] = *p;
	}
	roff[n] = '\0';
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, name) || strstr(line, roff);
	ck_assert_msg(found, "%s is missing in %s", name, *document);
}

START_TEST(every_option_is_in_the_help_the_manual_and_the_completions)
{
	ferry_options_each(check_help, (void *)ferry_options_help());
	for (size_t i = 0; i < ARRAY_SIZE(documents); i++)
		ferry_options_each(check_document, (void *)&documents[i]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("options");
	TCase *tc = tcase_create("options");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, defaults_are_those_of_the_headers);
	tcase_add_test(tc, boot_options_are_taken);
	tcase_add_test(tc, cpus_are_taken_with_their_topology);
	tcase_add_test(tc, memory_is_taken);
	tcase_add_test(tc, several_disks_follow_one_option_and_several_options);
	tcase_add_test(tc, net_is_taken);
	tcase_add_test(tc, net_descriptors_must_be_open_and_given_once);
	tcase_add_test(tc, one_descriptor_has_one_user);
	tcase_add_test(tc, assigned_devices_are_taken);
	tcase_add_test(tc, device_descriptor_must_be_open_and_given_once);
	tcase_add_test(tc, other_devices_are_taken);
	tcase_add_test(tc, consoles_take_every_mode);
	tcase_add_test(tc, serial_tty_takes_the_terminal_from_the_default_console_only);
	tcase_add_test(tc, debug_console_goes_to_a_file);
	tcase_add_test(tc, platform_is_taken_with_lists_and_quotes);
	tcase_add_test(tc, landlock_takes_rules);
	tcase_add_test(tc, api_socket_has_three_forms);
	tcase_add_test(tc, process_options_are_taken);
	tcase_add_test(tc, help_and_version_need_nothing_else);
	tcase_add_test(tc, every_option_is_in_the_help_the_manual_and_the_completions);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
