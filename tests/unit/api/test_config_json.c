/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/config_json.h"
#include "tests/unit/helpers/run_suite.h"

/* Every field, each at a value that is not its default. */
static const char everything[] =
	"{\"cpus\":{\"boot_vcpus\":4,\"max_vcpus\":4,\"topology\":{\"threads_per_core\":2,"
	"\"cores_per_die\":2,\"dies_per_package\":1,\"packages\":1},\"kvm_hyperv\":true},"
	"\"memory\":{\"size\":1073741824,\"mergeable\":true,\"shared\":true,\"hugepages\":true,"
	"\"hugepage_size\":2097152,\"prefault\":true,\"thp\":false},"
	"\"payload\":{\"kernel\":\"/k\",\"cmdline\":\"a=b \\\"c\\\"\",\"initramfs\":\"/i\"},"
	"\"disks\":[{\"id\":\"d0\",\"path\":\"/d\",\"readonly\":true,\"direct\":true,"
	"\"disable_io_uring\":true,\"serial\":\"s\",\"num_queues\":2,\"queue_size\":256,"
	"\"rate_limiter_config\":{\"bandwidth\":{\"size\":1,\"one_time_burst\":2,\"refill_time\":3}"
	","
	"\"ops\":{\"size\":4,\"refill_time\":6}}},"
	"{\"path\":\"/e\",\"readonly\":false,\"direct\":false,\"disable_io_uring\":false,"
	"\"num_queues\":1,\"queue_size\":128}],"
	"\"net\":[{\"id\":\"n0\",\"tap\":\"tap0\",\"ip\":\"10.0.0.1\",\"mask\":\"255.0.0.0\","
	"\"mac\":\"02:00:00:00:00:01\",\"mtu\":1400,\"num_queues\":4,\"queue_size\":512,"
	"\"vhost\":true,\"offload_tso\":false,\"offload_ufo\":false,\"offload_csum\":false,"
	"\"fds\":[-1,-1],\"rate_limiter_config\":{\"ops\":{\"size\":4,\"refill_time\":6}}}],"
	"\"vsock\":{\"id\":\"v\",\"cid\":4294967294,\"socket\":\"/s\"},"
	"\"devices\":[{\"id\":\"f\",\"path\":\"/sys/f\",\"iommufd\":false,"
	"\"x_nv_gpudirect_clique\":15,\"x_exclude_mmap_bars\":[0,5],"
	"\"migration\":{\"plugin_path\":\"/p.so\",\"plugin_arg\":\"10.0.0.1:7\"},"
	"\"dirty_tracking\":\"all\"},"
	"{\"fd\":-1,\"iommufd\":true}],"
	"\"user_devices\":[{\"id\":\"u\",\"socket\":\"/u\","
	"\"migration\":{\"plugin_path\":\"/q.so\"},\"dirty_tracking\":\"all\"}],"
	"\"rng\":{\"src\":\"/dev/random\"},"
	"\"balloon\":{\"size\":4096,\"deflate_on_oom\":true,\"free_page_reporting\":true},"
	"\"serial\":{\"mode\":\"File\",\"file\":\"/f\"},"
	"\"console\":{\"mode\":\"Socket\",\"socket\":\"/c\"},"
	"\"debug_console\":{\"mode\":\"Tty\",\"iobase\":1026},"
	"\"pvpanic\":true,\"watchdog\":true,"
	"\"platform\":{\"serial_number\":\"sn\",\"uuid\":\"u\",\"oem_strings\":[\"a\",\"b\"]},"
	"\"landlock_enable\":true,"
	"\"landlock_rules\":[{\"path\":\"/r\",\"access\":\"r\"},{\"path\":\"/w\",\"access\":\"w\"},"
	"{\"path\":\"/rw\",\"access\":\"rw\"}]}";

static json_t *parse(const char *text)
{
	json_error_t problem;
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &problem);

	ck_assert_msg(json != NULL, "%s: %s", text, problem.text);
	return json;
}

static struct vm_config good(const char *text)
{
	struct error err = ERROR_INIT;
	struct vm_config config;
	json_t *json = parse(text);

	ck_assert_msg(!vm_config_from_json(&config, json, &err), "%s", err.message);
	json_decref(json);
	return config;
}

static void bad_json(const json_t *json, const char *expect)
{
	struct error err = ERROR_INIT;
	struct vm_config config;
	int r = vm_config_from_json(&config, json, &err);

	ck_assert_msg(r < 0, "accepted, expected: %s", expect);
	ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
	ck_assert_msg(strstr(err.message, expect) != NULL, "\"%s\" lacks \"%s\"", err.message,
		      expect);
}

static void bad(const char *text, const char *expect)
{
	json_t *json = parse(text);

	bad_json(json, expect);
	json_decref(json);
}

START_TEST(every_field_survives_the_round_trip)
{
	struct vm_config config = good(everything);
	json_t *wanted = parse(everything), *got = vm_config_to_json(&config);
	char *text = json_dumps(got, JSON_INDENT(1));

	ck_assert_msg(json_equal(wanted, got), "got %s", text);
	free(text);
	json_decref(wanted);
	json_decref(got);
	vm_config_destroy(&config);
}
END_TEST

START_TEST(fields_arrive_where_they_belong)
{
	struct vm_config c = good(everything);

	ck_assert_uint_eq(c.cpus.boot_vcpus, 4);
	ck_assert_uint_eq(c.cpus.cores_per_die, 2);
	ck_assert_uint_eq(c.memory.hugepage_size, 2097152);
	ck_assert_str_eq(c.payload.cmdline, "a=b \"c\"");
	ck_assert_uint_eq(c.disk_count, 2);
	ck_assert_uint_eq(c.disks[0].rate_limiter_config.bandwidth.one_time_burst, 2);
	ck_assert_uint_eq(c.disks[1].queue_size, 128);
	ck_assert_ptr_null(c.disks[1].id);
	ck_assert_uint_eq(c.nets[0].fd_count, 2);
	ck_assert_int_eq(c.nets[0].fds[1], -1);
	ck_assert_uint_eq(c.vsock->cid, 4294967294u);
	ck_assert_uint_eq(c.device_count, 2);
	ck_assert_str_eq(c.devices[0].path, "/sys/f");
	ck_assert_str_eq(c.devices[0].id, "f");
	ck_assert(!c.devices[0].iommufd && c.devices[1].iommufd);
	ck_assert_int_eq(c.devices[0].x_nv_gpudirect_clique, 15);
	ck_assert_uint_eq(c.devices[0].x_exclude_mmap_bars, 1 << 5 | 1 << 0);
	ck_assert_int_eq(c.devices[0].fd, -1);
	ck_assert_str_eq(c.user_devices[0].socket, "/u");
	ck_assert_str_eq(c.user_devices[0].id, "u");
	ck_assert_str_eq(c.devices[0].migration.plugin_path, "/p.so");
	ck_assert_str_eq(c.devices[0].migration.plugin_arg, "10.0.0.1:7");
	ck_assert_int_eq(c.devices[0].dirty_tracking, DIRTY_TRACKING_ALL);
	ck_assert_ptr_null(c.devices[1].migration.plugin_path);
	ck_assert_int_eq(c.devices[1].dirty_tracking, DIRTY_TRACKING_AUTO);
	ck_assert_str_eq(c.user_devices[0].migration.plugin_path, "/q.so");
	ck_assert_ptr_null(c.user_devices[0].migration.plugin_arg);
	ck_assert_int_eq(c.user_devices[0].dirty_tracking, DIRTY_TRACKING_ALL);
	ck_assert_int_eq(c.serial.mode, CONSOLE_FILE);
	ck_assert_int_eq(c.console.mode, CONSOLE_SOCKET);
	ck_assert_uint_eq(c.debug_console.iobase, 1026);
	ck_assert_str_eq(c.platform.oem_strings[1], "b");
	ck_assert(c.landlock_rules[1].write && !c.landlock_rules[1].read);
	vm_config_destroy(&c);
}
END_TEST

START_TEST(what_is_left_out_has_its_default)
{
	struct vm_config c = good("{\"payload\":{\"kernel\":\"/k\"},\"cpus\":{\"boot_vcpus\":3},"
				  "\"disks\":[{\"path\":\"/d\"}],\"net\":[{}],"
				  "\"devices\":[{\"path\":\"/f\"}]}");

	ck_assert(c.devices[0].iommufd);
	ck_assert_int_eq(c.devices[0].fd, -1);
	ck_assert_int_eq(c.devices[0].x_nv_gpudirect_clique, -1);
	ck_assert_uint_eq(c.devices[0].x_exclude_mmap_bars, 0);
	ck_assert_uint_eq(c.cpus.max_vcpus, 3);
	ck_assert_uint_eq(c.memory.size, 512 << 20);
	ck_assert(c.memory.thp);
	ck_assert_uint_eq(c.disks[0].num_queues, 1);
	ck_assert_uint_eq(c.nets[0].num_queues, 2);
	ck_assert_uint_eq(c.nets[0].queue_size, 256);
	ck_assert(c.nets[0].offload_csum && !c.nets[0].vhost);
	ck_assert_str_eq(c.rng.src, "/dev/urandom");
	ck_assert_int_eq(c.console.mode, CONSOLE_TTY);
	ck_assert_int_eq(c.serial.mode, CONSOLE_NULL);
	ck_assert_ptr_null(c.balloon);
	ck_assert_uint_eq(c.debug_console.iobase, 0xe9);
	vm_config_destroy(&c);
}
END_TEST

START_TEST(null_is_as_good_as_absent_where_nothing_is_a_value)
{
	struct vm_config c = good(
		"{\"payload\":null,\"disks\":null,\"net\":[{\"id\":null,\"tap\":null,\"mtu\":null,"
		"\"fds\":null,\"rate_limiter_config\":null}],\"devices\":[{\"path\":\"/"
		"f\",\"fd\":null,"
		"\"x_nv_gpudirect_clique\":null,\"x_exclude_mmap_bars\":null}],"
		"\"user_devices\":null,\"vsock\":null,\"balloon\":null,"
		"\"platform\":null,\"landlock_rules\":null,\"cpus\":{\"boot_vcpus\":1,"
		"\"topology\":null},\"memory\":{\"size\":4096,\"hugepage_size\":null}}");

	ck_assert_uint_eq(c.disk_count, 0);
	ck_assert_uint_eq(c.net_count, 1);
	ck_assert_int_eq(c.devices[0].x_nv_gpudirect_clique, -1);
	vm_config_destroy(&c);
}
END_TEST

/* Replaces the value at a path of keys and indices by each wrong type in turn. */
static void spoil(json_t *root, json_t *holder, const char *key, size_t index, const char *path)
{
	static const char *const wrong[] = { "[[]]",   "[{}]",	"[\"x\"]", "[7]",
					     "[true]", "[1.5]", "[-9]" };
	json_t *value = json_is_object(holder) ? json_object_get(holder, key)
					       : json_array_get(holder, index);

	json_incref(value);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		json_t *list = parse(wrong[i]), *replacement = json_array_get(list, 0);
		bool integers = json_is_integer(value) && json_is_integer(replacement);

		/* -9 is the wrong integer; 7 may be a right one. An empty object or
		 * array may be a right one too. */
		if ((json_typeof(value) != json_typeof(replacement) &&
		     !(json_is_boolean(value) && json_is_boolean(replacement))) ||
		    (integers && json_integer_value(replacement) < 0)) {
			if (json_is_object(holder))
				json_object_set(holder, key, replacement);
			else
				json_array_set(holder, index, replacement);
			bad_json(root, path);
		}
		json_decref(list);
	}
	if (json_is_object(holder))
		json_object_set(holder, key, value);
	else
		json_array_set(holder, index, value);
	json_decref(value);
}

static void spoil_all(json_t *root, json_t *node, const char *path)
{
	char at[256];
	const char *key;
	json_t *value;
	void *tmp;

	if (json_is_object(node))
		json_object_foreach_safe(node, tmp, key, value)
		{
			snprintf(at, sizeof(at), "%s%s%s", path, *path ? "." : "", key);
			spoil_all(root, json_object_get(node, key), at);
			spoil(root, node, key, 0, at);
		}
	else if (json_is_array(node) && !strstr(path, "fds") && !strstr(path, "bars"))
		for (size_t i = 0; i < json_array_size(node); i++) {
			snprintf(at, sizeof(at), "%s[%zu]", path, i);
			spoil_all(root, json_array_get(node, i), at);
			spoil(root, node, NULL, i, at);
		}
}

START_TEST(every_field_of_a_wrong_type_is_refused_by_path)
{
	json_t *root = parse(everything);

	spoil_all(root, root, "");
	json_decref(root);
}
END_TEST

static void add_unknown(json_t *root, json_t *node, const char *path)
{
	char at[256];
	const char *key;
	json_t *value;
	size_t i;

	if (json_is_object(node)) {
		snprintf(at, sizeof(at), "%s%snonsense: unknown field", path, *path ? "." : "");
		json_object_set_new(node, "nonsense", json_true());
		bad_json(root, at);
		json_object_del(node, "nonsense");
		json_object_foreach(node, key, value)
		{
			snprintf(at, sizeof(at), "%s%s%s", path, *path ? "." : "", key);
			add_unknown(root, value, at);
		}
	} else if (json_is_array(node)) {
		json_array_foreach(node, i, value)
		{
			snprintf(at, sizeof(at), "%s[%zu]", path, i);
			add_unknown(root, value, at);
		}
	}
}

START_TEST(unknown_field_is_refused_by_path_in_every_object)
{
	json_t *root = parse(everything);

	add_unknown(root, root, "");
	json_decref(root);
}
END_TEST

static const struct {
	const char *text, *expect;
} wrong[] = {
	{ "[]", "the body must be an object, not an array" },
	{ "{\"memory\":{\"size\":9223372036854775807},\"x\":1}", "x: unknown field" },
	{ "{\"cpus\":{\"boot_vcpus\":4294967296}}", "cpus.boot_vcpus: 4294967296 is not in" },
	{ "{\"cpus\":{\"boot_vcpus\":0}}", "cpus.boot_vcpus: 0 is not in" },
	{ "{\"cpus\":{\"boot_vcpus\":1,\"max_vcpus\":0}}", "cpus.max_vcpus" },
	{ "{\"debug_console\":{\"mode\":\"Off\",\"iobase\":65536}}", "debug_console.iobase" },
	{ "{\"memory\":{\"size\":-1}}", "memory.size: -1 is not in" },
	{ "{\"vsock\":{\"socket\":\"/s\"}}", "vsock.cid: is missing" },
	{ "{\"balloon\":{}}", "balloon.size: is missing" },
	{ "{\"serial\":{}}", "serial.mode: is missing" },
	{ "{\"serial\":{\"mode\":\"tty\"}}", "serial.mode: \"tty\" is none of Off, Pty" },
	{ "{\"rng\":{}}", "rng.src: is missing" },
	{ "{\"landlock_rules\":[{\"path\":\"/a\",\"access\":\"x\"}]}", "landlock_rules[0].access" },
	{ "{\"landlock_rules\":[{\"path\":\"/a\",\"access\":\"\"}]}", "landlock_rules[0].access" },
	{ "{\"landlock_rules\":[{\"access\":\"r\"}]}", "landlock_rules[0].path: is missing" },
	{ "{\"disks\":[{\"rate_limiter_config\":{\"ops\":{\"size\":1}}}]}",
	  "disks[0].rate_limiter_config.ops.refill_time: is missing" },
	{ "{\"cpus\":{\"topology\":{\"packages\":1}}}",
	  "cpus.topology.threads_per_core: is missing" },
	{ "{\"net\":[{\"fds\":[3]}]}", "net[0].fds: may have -1 only" },
	{ "{\"net\":[{\"fds\":[\"a\"]}]}", "net[0].fds" },
	{ "{\"net\":[{\"fds\":4}]}", "net[0].fds: must be an array" },
	{ "{\"platform\":{\"uuid\":\"a\",\"system_uuid\":\"b\"}}", "is there under two names" },
	{ "{\"a\\nb\":1}", "a?b: unknown field" },
	{ "{\"devices\":[{\"iommu\":true}]}", "devices[0].iommu: not offered" },
	{ "{\"devices\":[{\"pci_segment\":1}]}", "devices[0].pci_segment: not offered" },
	{ "{\"devices\":[{\"fd\":3}]}", "devices[0].fd: may be -1 only" },
	{ "{\"devices\":[{\"x_nv_gpudirect_clique\":16}]}",
	  "devices[0].x_nv_gpudirect_clique: 16 is not in 0 to 15" },
	{ "{\"devices\":[{\"x_nv_gpudirect_clique\":-1}]}", "clique: -1 is not in 0 to 15" },
	{ "{\"devices\":[{\"x_exclude_mmap_bars\":[6]}]}",
	  "devices[0].x_exclude_mmap_bars: may have the numbers of BARs only" },
	{ "{\"devices\":[{\"x_exclude_mmap_bars\":[-1]}]}", "x_exclude_mmap_bars" },
	{ "{\"devices\":[{\"x_exclude_mmap_bars\":[\"1\"]}]}", "x_exclude_mmap_bars" },
	{ "{\"devices\":[{\"x_exclude_mmap_bars\":[4294967296]}]}", "x_exclude_mmap_bars" },
	{ "{\"devices\":[{\"x_exclude_mmap_bars\":[2,2]}]}", "BAR 2 is there twice" },
	{ "{\"devices\":[{\"dirty_tracking\":\"some\"}]}",
	  "devices[0].dirty_tracking: \"some\" is neither auto nor all" },
	{ "{\"devices\":[{\"dirty_tracking\":1}]}", "dirty_tracking: must be a string" },
	{ "{\"devices\":[{\"migration\":\"/p\"}]}", "devices[0].migration: must be an object" },
	{ "{\"devices\":[{\"migration\":{\"plugin_path\":7}}]}",
	  "devices[0].migration.plugin_path: must be a string" },
	{ "{\"user_devices\":[{\"socket\":\"/s\",\"migration\":{\"path\":\"/p\"}}]}",
	  "user_devices[0].migration.path: unknown field" },
	{ "{\"user_devices\":[{}]}", "user_devices[0].socket: is missing" },
	{ "{\"user_devices\":[{\"socket\":null}]}", "user_devices[0].socket: must be a string" },
	{ "{\"user_devices\":[{\"socket\":\"/s\",\"iommu\":true}]}",
	  "user_devices[0].iommu: not offered" },
	{ "{\"disks\":[{\"vhost_user\":true}]}", "disks[0].vhost_user: not offered" },
	{ "{\"disks\":[{\"iommu\":true}]}", "disks[0].iommu: not offered" },
	{ "{\"disks\":[{\"sparse\":1}]}", "disks[0].sparse: not offered" },
	{ "{\"memory\":{\"size\":1,\"hotplug_method\":\"VirtioMem\"}}", "memory.hotplug_method" },
	{ "{\"memory\":{\"size\":1,\"hotplug_size\":4096}}", "memory.hotplug_size: not offered" },
	{ "{\"cpus\":{\"features\":{\"amx\":true}}}", "cpus.features: not offered" },
	{ "{\"platform\":{\"num_pci_segments\":2}}", "platform.num_pci_segments: not offered" },
	{ "{\"payload\":{\"firmware\":\"/f\"}}", "payload.firmware: not offered" },
};

START_TEST(wrong_values_are_refused_by_path)
{
	bad(wrong[_i].text, wrong[_i].expect);
}
END_TEST

START_TEST(fields_of_features_not_offered_are_taken_when_off)
{
	struct vm_config c = good(
		"{\"cpus\":{\"boot_vcpus\":1,\"max_phys_bits\":46,\"nested\":true,\"affinity\":"
		"null,"
		"\"features\":{\"amx\":false},\"core_scheduling\":\"Vm\"},"
		"\"memory\":{\"size\":4096,\"hotplug_method\":\"Acpi\",\"hotplug_size\":null,"
		"\"hotplugged_size\":0,\"zones\":[],\"reserve\":false},"
		"\"payload\":{\"kernel\":\"k\",\"firmware\":null,\"igvm\":null},"
		"\"disks\":[{\"path\":\"/"
		"d\",\"iommu\":false,\"vhost_user\":false,\"pci_segment\":0,"
		"\"vhost_socket\":null,\"sparse\":true,\"image_type\":\"Raw\","
		"\"lock_granularity\":\"ByteRange\",\"queue_affinity\":[]}],"
		"\"net\":[{\"vhost_mode\":\"Client\",\"host_mac\":null}],"
		"\"rng\":{\"src\":\"/dev/urandom\",\"iommu\":false},"
		"\"platform\":{\"num_pci_segments\":1,\"iommu_segments\":null,\"tdx\":false,"
		"\"vfio_p2p_dma\":true,\"iommufd\":true},"
		"\"devices\":[{\"path\":\"/f\",\"iommu\":false,\"pci_segment\":0,"
		"\"pci_device_id\":null}],\"user_devices\":[],"
		"\"fs\":null,\"pmem\":[],\"vdpa\":null,\"numa\":[],\"iommu\":false,\"tpm\":{},"
		"\"gdb\":false}");

	ck_assert_uint_eq(c.disk_count, 1);
	vm_config_destroy(&c);
}
END_TEST

START_TEST(string_with_a_nul_is_refused)
{
	json_t *json = json_pack("{s:{s:o}}", "payload", "kernel", json_stringn("a\0b", 3));

	bad_json(json, "payload.kernel: has a NUL");
	json_decref(json);
}
END_TEST

START_TEST(array_of_too_many_elements_is_refused)
{
	json_t *json = json_pack("{s:[]}", "disks");

	for (int i = 0; i < 300; i++)
		json_array_append_new(json_object_get(json, "disks"), json_object());
	bad_json(json, "disks: has 300 elements");
	json_decref(json);
}
END_TEST

START_TEST(devices_alone_are_named_as_asked)
{
	struct error err = ERROR_INIT;
	struct disk_config disk;
	struct net_config net;
	struct vsock_config vsock;
	struct device_config device;
	struct user_device_config user;
	json_t *json = parse("{\"nope\":1}");

	ck_assert_int_lt(disk_config_from_json(&disk, json, "disk", &err), 0);
	ck_assert_str_eq(err.message, "disk.nope: unknown field");
	ck_assert_int_lt(net_config_from_json(&net, json, NULL, &err), 0);
	ck_assert_str_eq(err.message, "nope: unknown field");
	ck_assert_int_lt(device_config_from_json(&device, json, "device", &err), 0);
	ck_assert_str_eq(err.message, "device.nope: unknown field");
	ck_assert_int_lt(user_device_config_from_json(&user, json, "user_device", &err), 0);
	ck_assert_str_eq(err.message, "user_device.nope: unknown field");
	ck_assert_int_lt(vsock_config_from_json(&vsock, json, "", &err), 0);
	ck_assert_str_eq(err.message, "nope: unknown field");
	json_decref(json);
}
END_TEST

START_TEST(path_that_is_no_utf8_can_be_shown)
{
	struct vm_config config;
	json_t *json;

	vm_config_init(&config);
	config.payload.kernel = strdup("/k\xff\xfe");
	json = vm_config_to_json(&config);
	ck_assert_str_eq(
		json_string_value(json_object_get(json_object_get(json, "payload"), "kernel")),
		"/k??");
	json_decref(json);
	vm_config_destroy(&config);
}
END_TEST

/* Elements behind the wrong one were never filled in. */
START_TEST(refused_device_costs_no_descriptor)
{
	for (int i = 0; i < 3; i++)
		bad("{\"devices\":[{\"path\":\"/f\"},{\"path\":7},{\"path\":\"/h\"}]}",
		    "devices[1].path: must be a string");
	ck_assert_int_ge(fcntl(STDIN_FILENO, F_GETFD), 0);
}
END_TEST

START_TEST(devices_alone_survive_the_round_trip)
{
	static const char text[] = "{\"path\":\"/f\",\"iommufd\":false,\"id\":\"f\","
				   "\"x_exclude_mmap_bars\":[1,3]}";
	struct error err = ERROR_INIT;
	struct device_config device;
	struct user_device_config user;
	json_t *json = parse(text), *again;

	ck_assert_int_eq(device_config_from_json(&device, json, "device", &err), 0);
	again = device_config_to_json(&device);
	ck_assert(json_equal(json, again));
	device_config_destroy(&device);
	json_decref(json);
	json_decref(again);
	json = parse("{\"socket\":\"/s\",\"id\":\"u\"}");
	ck_assert_int_eq(user_device_config_from_json(&user, json, "user_device", &err), 0);
	again = user_device_config_to_json(&user);
	ck_assert(json_equal(json, again));
	user_device_config_destroy(&user);
	json_decref(json);
	json_decref(again);
}
END_TEST

START_TEST(destroyed_config_is_zeroed)
{
	struct vm_config config = good(everything), zero;

	memset(&zero, 0, sizeof(zero));
	vm_config_destroy(&config);
	ck_assert_ptr_null(config.disks);
	ck_assert_uint_eq(config.net_count, 0);
	ck_assert_ptr_null(config.rng.src);
	vm_config_destroy(&config);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("config_json");
	TCase *tc = tcase_create("config_json");

	tcase_add_test(tc, every_field_survives_the_round_trip);
	tcase_add_test(tc, fields_arrive_where_they_belong);
	tcase_add_test(tc, what_is_left_out_has_its_default);
	tcase_add_test(tc, null_is_as_good_as_absent_where_nothing_is_a_value);
	tcase_add_test(tc, every_field_of_a_wrong_type_is_refused_by_path);
	tcase_add_test(tc, unknown_field_is_refused_by_path_in_every_object);
	tcase_add_loop_test(tc, wrong_values_are_refused_by_path, 0,
			    sizeof(wrong) / sizeof(wrong[0]));
	tcase_add_test(tc, fields_of_features_not_offered_are_taken_when_off);
	tcase_add_test(tc, string_with_a_nul_is_refused);
	tcase_add_test(tc, array_of_too_many_elements_is_refused);
	tcase_add_test(tc, devices_alone_are_named_as_asked);
	tcase_add_test(tc, path_that_is_no_utf8_can_be_shown);
	tcase_add_test(tc, refused_device_costs_no_descriptor);
	tcase_add_test(tc, devices_alone_survive_the_round_trip);
	tcase_add_test(tc, destroyed_config_is_zeroed);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
