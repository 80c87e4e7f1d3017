/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines that ferry refuses, and what it says of them. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/strbuf.h"
#include "tests/unit/api/options_words.h"

/* Everything that is wrong, and what the message must say of it. */
static const struct {
	const char *words, *says[4];
} wrong[] = {
	{ "--cpus|boot=0", { "--cpus: boot=0", "1 to 64" } },
	{ "--cpus|boot=65", { "--cpus: boot=65", "1 to 64" } },
	{ "--cpus|boot=4294967297", { "--cpus: boot=4294967297" } },
	{ "--cpus|boot=-1", { "--cpus: boot=-1" } },
	{ "--cpus|boot=two", { "--cpus: boot=two" } },
	{ "--cpus|4", { "--cpus", "\"4\"", "known: boot" } },
	{ "--cpus|boot=2,max=4", { "--cpus: max=4", "boot=2" } },
	{ "--cpus|max=0", { "max=0" } },
	{ "--cpus|boot=4,topology=1:2:1", { "topology=1:2:1", "threads:cores" } },
	{ "--cpus|boot=4,topology=1:2:1:1:2", { "topology=" } },
	{ "--cpus|boot=4,topology=1::2:2:1", { "topology=" } },
	{ "--cpus|boot=4,topology=1:2:2:", { "topology=" } },
	{ "--cpus|boot=4,topology=0:2:2:1", { "topology=" } },
	{ "--cpus|boot=4,topology=1:2:1:1", { "topology=1:2:1:1", "2", "boot=4" } },
	{ "--cpus|boot=4,topology=\"\":", { "topology=" } },
	{ "--cpus|boot=1|--cpus|boot=2", { "--cpus is given twice" } },
	{ "--memory|size=0", { "--memory: size=0" } },
	{ "--memory|size=1X", { "--memory: size=1X", "K, M, G or T" } },
	{ "--memory|size=99999999999999999999", { "size=9" } },
	{ "--memory|size=512M,shared=maybe", { "shared=maybe", "on or off" } },
	{ "--memory|hugepage_size=2M", { "hugepages=on" } },
	{ "--memory|hugepages=on,hugepage_size=3M", { "hugepage_size=3145728", "page size" } },
	{ "--memory|hugepages=on,hugepage_size=4K", { "hugepage_size=4K", "page size" } },
	{ "--memory|prefault=1", { "prefault=1", "on or off" } },
	{ "--memory|mergeable", { "mergeable needs a value" } },
	{ "--memory|thp=x", { "thp=x" } },
	{ "--disk|readonly=on", { "--disk: path=" } },
	{ "--disk|path=", { "--disk: path=" } },
	{ "--disk|path=\"\"", { "--disk: path=" } },
	{ "--disk|path=/a,path=/b", { "path is given twice" } },
	{ "--disk|path=/a,readonly=ja", { "--disk: readonly=ja", "on or off" } },
	{ "--disk|path=/a,direct=2", { "direct=2" } },
	{ "--disk|path=/a,serial=123456789012345678901", { "serial=", "20" } },
	{ "--disk|path=/a,num_queues=0", { "num_queues=0", "1 to 16" } },
	{ "--disk|path=/a,num_queues=17", { "num_queues=17" } },
	{ "--disk|path=/a,num_queues=2", { "num_queues", "vCPU" } },
	{ "--disk|path=/a,queue_size=3", { "queue_size=3", "power of two" } },
	{ "--disk|path=/a,queue_size=2048", { "queue_size=2048", "1024" } },
	{ "--disk|path=/a,bw_size=1M", { "bw_refill_time" } },
	{ "--disk|path=/a,bw_refill_time=1", { "bw_size" } },
	{ "--disk|path=/a,bw_size=1,bw_refill_time=0", { "bw_refill_time=0", "milliseconds" } },
	{ "--disk|path=/a,ops_size=5", { "ops_refill_time" } },
	{ "--disk|path=/a,ops_one_time_burst=5", { "ops_size" } },
	{ "--disk|path=/a,ops_size=1M,ops_refill_time=1", { "ops_size=1M" } },
	{ "--disk|path=/a,id=x|path=/b,id=x", { "\"x\"" } },
	{ "--disk|path=/a,,readonly=on", { "--disk", "comma" } },
	{ "--disk|path=/a,", { "--disk", "comma" } },
	{ "--disk|path=\"/a", { "--disk", "not closed" } },
	{ "--disk|path=/a]", { "--disk", "not closed" } },
	{ "--disk|/a", { "--disk", "\"/a\"" } },
	{ "--disk|=x", { "--disk", "unknown key" } },
	{ "--disk|path=/a,iommu=on", { "unknown key \"iommu\"" } },
	{ "--net|tap=abcdefghijklmnop", { "--net: tap=", "15" } },
	{ "--net|tap=a b", { "tap" } },
	{ "--net|ip=300.0.0.1,mask=255.0.0.0", { "ip=300.0.0.1", "IP address" } },
	{ "--net|ip=10.0.0.1,mask=255.0.255.0", { "mask=255.0.255.0", "netmask" } },
	{ "--net|mask=255.0.0.0", { "mask=", "ip=" } },
	{ "--net|mac=1:2:3", { "mac=1:2:3", "MAC address" } },
	{ "--net|mac=01:00:5e:00:00:01", { "mac=01:00", "unicast" } },
	{ "--net|mtu=67", { "mtu=67", "68" } },
	{ "--net|mtu=65536", { "mtu=65536", "65535" } },
	{ "--net|num_queues=3", { "num_queues=3", "even" } },
	{ "--net|num_queues=1", { "num_queues=1", "even" } },
	{ "--net|num_queues=66", { "num_queues=66" } },
	{ "--net|queue_size=100", { "queue_size=100" } },
	{ "--net|vhost=x", { "vhost=x" } },
	{ "--net|offload_tso=x", { "offload_tso=x" } },
	{ "--net|offload_ufo=x", { "offload_ufo=x" } },
	{ "--net|offload_csum=x", { "offload_csum=x" } },
	{ "--net|id=a/b", { "id" } },
	{ "--vsock|socket=/s", { "--vsock", "cid" } },
	{ "--vsock|cid=2", { "cid=2", "3" } },
	{ "--vsock|cid=4294967295", { "cid=4294967295" } },
	{ "--vsock|cid=3|--vsock|cid=4", { "--vsock is given twice" } },
	{ "--vsock|cid=3|cid=4", { "unexpected argument \"cid=4\"" } },
	{ "--rng|source=/r", { "--rng", "\"source\"" } },
	{ "--balloon|size=x", { "--balloon: size=x" } },
	{ "--balloon|deflate_on_oom=x", { "deflate_on_oom=x" } },
	{ "--balloon|free_page_reporting=x", { "free_page_reporting=x" } },
	{ "--balloon|size=1G", { "balloon" } },
	{ "--serial|of", { "--serial", "did you mean off?" } },
	{ "--serial|file=", { "--serial", "one of" } },
	{ "--serial|off,tty", { "--serial", "one of" } },
	{ "--serial|off=1", { "--serial", "off takes no value" } },
	{ "--serial|file=/a,socket=/b", { "--serial", "one of" } },
	{ "--console|file", { "--console", "file needs a value" } },
	{ "--debug-console|iobase=1", { "--debug-console", "one of" } },
	{ "--debug-console|file=/f,iobase=0x10000", { "iobase=0x10000", "0xffff" } },
	{ "--debug-console|tty", { "--debug-console", "\"tty\"" } },
	{ "--platform|uuid=1234", { "uuid=1234", "UUID" } },
	{ "--platform|uuid=4f4d2fcc-2a5c-4fb1-9d3c-0f0a7ea6b2ag", { "uuid=" } },
	{ "--platform|oem_strings=[a][b]", { "oem_strings=[a][b]", "list" } },
	{ "--platform|oem_strings=[a", { "not closed" } },
	{ "--landlock-rules|path=/a", { "--landlock-rules: access=" } },
	{ "--landlock-rules|access=r", { "--landlock-rules: path=" } },
	{ "--landlock-rules|path=/a,access=x", { "access=x", "r, w or rw" } },
	{ "--pvpanic=on", { "--pvpanic takes no value" } },
	{ "--landlock|on", { "unexpected argument \"on\"" } },
	{ "--seccomp|maybe", { "--seccomp: maybe", "true, false or log" } },
	{ "--jail|uid=1,gid=1", { "--jail", "directory" } },
	{ "--jail|/j", { "--jail", "uid=" } },
	{ "--jail|/j,uid=0,gid=1", { "uid=0" } },
	{ "--jail|/j,uid=1,gid=4294967295", { "gid=4294967295" } },
	{ "--jail|/j,uid=1,gid=1,net=x", { "net=x" } },
	{ "--event-monitor|path=/a,fd=1", { "--event-monitor", "fd=1" } },
	{ "--event-monitor|fd=999", { "--event-monitor", "fd=999" } },
	{ "--log-file", { "--log-file needs a value" } },
	{ "extra", { "unexpected argument \"extra\"" } },
	{ "-x", { "unknown option -x" } },
	{ "-vx", { "unknown option -vx" } },
	{ "--device|id=x", { "--device: path=", "missing" } },
	{ "--device|path=", { "--device: path=", "missing" } },
	{ "--device|path=0000:01:10.0", { "--device: path=0000:01:10.0", "absolute" } },
	{ "--device|0000:01:10.0", { "--device", "unknown key" } },
	{ "--device|path=/f,iommu=on", { "unknown key \"iommu\"" } },
	{ "--device|path=/f,iommufd=maybe", { "iommufd=maybe", "on or off" } },
	{ "--device|path=/f,x_nv_gpudirect_clique=16", { "clique=16", "0 to 15" } },
	{ "--device|path=/f,x_nv_gpudirect_clique=-1", { "clique=-1", "0 to 15" } },
	{ "--device|path=/f,x_exclude_mmap_bars=[6]", { "bars=[6]", "0 to 5" } },
	{ "--device|path=/f,x_exclude_mmap_bars=[1,1]", { "bars=[1,1]", "each once" } },
	{ "--device|path=/f,x_exclude_mmap_bars=[0,1,2,3,4,5,5]", { "each once" } },
	{ "--device|path=/f,x_exclude_mmap_bars=[a]", { "bars=[a]" } },
	{ "--device|path=/f,x_exclude_mmap_bars=[18446744073709551616]", { "bars=[18" } },
	{ "--device|path=/f,x_exclude_mmap_bars=[1", { "not closed" } },
	{ "--device|path=/f,dirty_tracking=none", { "dirty_tracking=none", "auto or all" } },
	{ "--device|path=/f,migration_plugin=p.so", { "migration_plugin=p.so", "absolute" } },
	{ "--device|path=/f,migration_plugin_arg=x", { "needs migration_plugin=" } },
	{ "--user-device|socket=/s,dirty_tracking=maybe", { "dirty_tracking=maybe" } },
	{ "--user-device|socket=/s,migration_plugin_arg=x", { "--user-device", "needs" } },
	{ "--plugins", { "--plugins needs a value" } },
	{ "--plugins|here", { "--plugins: here", "absolute" } },
	{ "--plugins|", { "--plugins" } },
	{ "--device|path=/f|path=/f", { "/f is devices[0]'s already" } },
	{ "--device|path=/f,id=a/b", { "id" } },
	{ "--device|path=/f,id=x|--user-device|socket=/s,id=x", { "\"x\"" } },
	{ "--user-device|id=x", { "--user-device: socket=", "missing" } },
	{ "--user-device|socket=", { "--user-device: socket=", "missing" } },
	{ "--user-device|path=/s", { "--user-device", "\"path\"" } },
	{ "--user-device|socket=/s|socket=/s", { "/s is user_devices[0]'s already" } },
	{ "--tpm|socket=x", { "unknown option --tpm" } },
};

START_TEST(wrong_value_is_refused_and_named)
{
	char words[512];

	snprintf(words, sizeof(words), "--kernel|k|%s", wrong[_i].words);
	(bad)(words, wrong[_i].says);
}
END_TEST

static const struct {
	const char *words, *says;
} mistyped[] = {
	{ "--kernal|k", "--kernal (did you mean --kernel?)" },
	{ "--dsik|path=/a", "(did you mean --disk?)" },
	{ "--mem|size=1G", "(did you mean --memory?)" },
	{ "--cpu|boot=1", "(did you mean --cpus?)" },
	{ "--api-sock=/a", "(did you mean --api-socket?)" },
	{ "--kernel|k|--disk|pth=/a", "\"pth\" (did you mean path?)" },
	{ "--kernel|k|--disk|path=/a,read_only=on", "(did you mean readonly?)" },
	{ "--kernel|k|--memory|szie=1G", "(did you mean size?)" },
	{ "--devise|path=/f", "(did you mean --device?)" },
	{ "--kernel|k|--device|path=/f,x_exclude_mmap_bar=[1]",
	  "(did you mean x_exclude_mmap_bars?)" },
	{ "--kernel|k|--net|offload-tso=on", "(did you mean offload_tso?)" },
};

START_TEST(mistyped_name_gets_the_nearest_one)
{
	bad(mistyped[_i].words, mistyped[_i].says);
}
END_TEST

START_TEST(far_away_name_gets_no_suggestion)
{
	struct error err = ERROR_INIT;
	struct ferry_options o;

	ck_assert_int_lt(parse(&o, "--xylophone", &err), 0);
	ck_assert_str_eq(err.message, "unknown option --xylophone");
}
END_TEST

START_TEST(vm_options_need_a_kernel)
{
	bad("--api-socket|/s|--disk|path=/a", "--disk needs --kernel");
	bad("--cpus|boot=1", "--cpus needs --kernel");
	bad("-v", "nothing to do", "--help");
}
END_TEST

START_TEST(too_much_is_refused)
{
	_cleanup_strbuf_ struct strbuf s = STRBUF_INIT;
	char *argv[80] = { (char *)"ferry", (char *)"--kernel", (char *)"k", (char *)"--disk" };
	struct error err = ERROR_INIT;
	struct ferry_options o;
	struct disk_config disk;

	for (int i = 4; i < 80; i++)
		argv[i] = (char *)"path=/a";
	ck_assert_int_lt(ferry_options_parse(&o, 80, argv, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "--disk: given more than 32 times"));

	strbuf_puts(&s, "path=/");
	while (s.len < 20000)
		strbuf_puts(&s, "aaaaaaaaaaaaaaaa");
	ck_assert_int_lt(disk_config_parse(&disk, s.data, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "longer than 16384"));
	s.data[8000] = '\0';
	ck_assert_int_lt(disk_config_parse(&disk, s.data, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "...: must be text of at most 4095"));

	strbuf_consume(&s, s.len);
	for (int i = 0; i < 100; i++)
		strbuf_puts(&s, "readonly=,");
	strbuf_puts(&s, "path=/a");
	ck_assert_int_lt(disk_config_parse(&disk, s.data, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "more than 64 keys"));
}
END_TEST

START_TEST(vm_options_alone_make_a_configuration)
{
	char *argv[] = { (char *)"create", (char *)"--kernel", (char *)"k", (char *)"--seccomp",
			 (char *)"log" };
	struct error err = ERROR_INIT;
	struct vm_config config;

	ck_assert_int_eq(vm_config_parse_options(&config, 3, argv, &err), 0);
	ck_assert_str_eq(config.payload.kernel, "k");
	vm_config_destroy(&config);
	ck_assert_int_lt(vm_config_parse_options(&config, 5, argv, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "--seccomp concerns the ferry process"));
	ck_assert_int_lt(vm_config_parse_options(&config, 1, argv, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "--kernel is missing"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("options_wrong");
	TCase *tc = tcase_create("options_wrong");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, wrong_value_is_refused_and_named, 0, ARRAY_SIZE(wrong));
	tcase_add_loop_test(tc, mistyped_name_gets_the_nearest_one, 0, ARRAY_SIZE(mistyped));
	tcase_add_test(tc, far_away_name_gets_no_suggestion);
	tcase_add_test(tc, vm_options_need_a_kernel);
	tcase_add_test(tc, too_much_is_refused);
	tcase_add_test(tc, vm_options_alone_make_a_configuration);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
