/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/config_json.h"
#include "tests/unit/helpers/run_suite.h"

/* The text is put between { and } beside a kernel and two vCPUs of 512 MiB. */
static struct vm_config config_of(const char *text)
{
	struct error err = ERROR_INIT;
	struct vm_config config;
	char full[8192];
	json_t *json;

	snprintf(full, sizeof(full), "{%s%s\"payload\":{\"kernel\":\"/k\"}%s}", text,
		 *text ? "," : "", strstr(text, "\"cpus\"") ? "" : ",\"cpus\":{\"boot_vcpus\":2}");
	json = json_loads(full, 0, NULL);
	ck_assert_msg(json != NULL, "%s", full);
	ck_assert_msg(!vm_config_from_json(&config, json, &err), "%s", err.message);
	json_decref(json);
	return config;
}

static const char *const good[] = {
	"",
	"\"cpus\":{\"boot_vcpus\":64}",
	"\"cpus\":{\"boot_vcpus\":8,\"topology\":{\"threads_per_core\":2,\"cores_per_die\":2,"
	"\"dies_per_package\":1,\"packages\":2}}",
	"\"memory\":{\"size\":1073741824,\"hugepages\":true,\"hugepage_size\":1073741824}",
	"\"memory\":{\"size\":4096}",
	"\"disks\":[{\"path\":\"/d\",\"num_queues\":2,\"queue_size\":1024,"
	"\"serial\":\"12345678901234567890\"}]",
	"\"net\":[{\"tap\":\"tap0\",\"ip\":\"10.0.0.1\",\"mask\":\"255.255.255.0\",\"mtu\":1500,"
	"\"mac\":\"02:00:00:00:00:01\",\"num_queues\":4}]",
	"\"disks\":[{\"path\":\"/d\",\"readonly\":true},{\"path\":\"/d\",\"readonly\":true}]",
	"\"net\":[{},{}]",
	"\"net\":[{\"ip\":\"fd00::1\",\"mask\":\"ffff:ffff::\"}]",
	"\"vsock\":{\"cid\":3}",
	"\"devices\":[{\"path\":\"/sys/a\",\"x_nv_gpudirect_clique\":0,\"x_exclude_mmap_bars\":"
	"[0,1,2,3,4,5]},{\"path\":\"/sys/b\",\"iommufd\":false}]",
	"\"user_devices\":[{\"socket\":\"/s\"},{\"socket\":\"t\"}]",
	"\"balloon\":{\"size\":536870912}",
	"\"console\":{\"mode\":\"Off\"},\"serial\":{\"mode\":\"Tty\"}",
	"\"platform\":{\"uuid\":\"01234567-89ab-cdef-0123-456789abcdef\"}",
};

START_TEST(sound_configurations_pass)
{
	struct error err = ERROR_INIT;
	struct vm_config config = config_of(good[_i]);

	ck_assert_msg(!vm_config_validate(&config, &err), "%s", err.message);
	vm_config_destroy(&config);
}
END_TEST

static const struct {
	const char *text, *expect;
} bad[] = {
	{ "\"cpus\":{\"boot_vcpus\":65}", "cpus.boot_vcpus: 65 is not in 1 to 64" },
	{ "\"cpus\":{\"boot_vcpus\":1,\"max_vcpus\":2}", "CPU hot-plug is not offered" },
	{ "\"cpus\":{\"boot_vcpus\":3,\"topology\":{\"threads_per_core\":2,\"cores_per_die\":2,"
	  "\"dies_per_package\":1,\"packages\":1}}",
	  "cpus.topology: multiplies up to 4 vCPUs" },
	{ "\"cpus\":{\"boot_vcpus\":3,\"topology\":{\"threads_per_core\":65,\"cores_per_die\":2,"
	  "\"dies_per_package\":1,\"packages\":1}}",
	  "cpus.topology.threads_per_core: 65" },
	{ "\"memory\":{\"size\":0}", "memory.size: 0 is not in" },
	{ "\"memory\":{\"size\":4097}", "memory.size: 4097 is no multiple" },
	{ "\"memory\":{\"size\":9223372036854775807}", "memory.size" },
	{ "\"memory\":{\"size\":4096,\"hugepages\":true,\"hugepage_size\":2097152}",
	  "no multiple of the page size 2097152" },
	{ "\"memory\":{\"size\":4096,\"hugepages\":true,\"hugepage_size\":3000000}",
	  "memory.hugepage_size: 3000000" },
	{ "\"memory\":{\"size\":4096,\"hugepage_size\":2097152}", "set without hugepages" },
	{ "\"disks\":[{}]", "disks[0].path: a path is needed" },
	{ "\"disks\":[{\"path\":\"\"}]", "disks[0].path: a path is needed" },
	{ "\"disks\":[{\"path\":\"/d\",\"num_queues\":0}]", "disks[0].num_queues: 0" },
	{ "\"disks\":[{\"path\":\"/d\",\"num_queues\":17}]", "disks[0].num_queues: 17" },
	{ "\"disks\":[{\"path\":\"/d\",\"num_queues\":3}]", "3 queues for 2 vCPUs" },
	{ "\"disks\":[{\"path\":\"/d\",\"queue_size\":100}]", "disks[0].queue_size: 100" },
	{ "\"disks\":[{\"path\":\"/d\",\"queue_size\":0}]", "disks[0].queue_size: 0" },
	{ "\"disks\":[{\"path\":\"/d\",\"queue_size\":2048}]", "disks[0].queue_size: 2048" },
	{ "\"disks\":[{\"path\":\"/d\",\"serial\":\"123456789012345678901\"}]", "disks[0].serial" },
	{ "\"disks\":[{\"path\":\"/d\",\"rate_limiter_config\":{\"ops\":{\"size\":1,"
	  "\"refill_time\":0}}}]",
	  "disks[0].rate_limiter_config.ops.refill_time" },
	{ "\"disks\":[{\"path\":\"/d\",\"rate_limiter_config\":{\"bandwidth\":{\"size\":0,"
	  "\"one_time_burst\":5,\"refill_time\":0}}}]",
	  "disks[0].rate_limiter_config.bandwidth.size" },
	{ "\"disks\":[{\"path\":\"/d\",\"id\":\"\"}]", "disks[0].id: must have 1 to 63" },
	{ "\"disks\":[{\"path\":\"/d\",\"id\":\"a/b\"}]", "disks[0].id: \"a/b\"" },
	{ "\"disks\":[{\"path\":\"/d\",\"id\":\"__x\"}]", "are reserved" },
	{ "\"disks\":[{\"path\":\"/d\",\"id\":\"a\"},{\"path\":\"/e\",\"id\":\"a\"}]",
	  "disks[1].id: \"a\" is disks[0]'s already" },
	{ "\"disks\":[{\"path\":\"/d\",\"id\":\"a\"}],\"net\":[{\"id\":\"a\"}]",
	  "net[0].id: \"a\" is disks[0]'s already" },
	{ "\"disks\":[{\"path\":\"/d\"},{\"path\":\"/e\"},{\"path\":\"/d\"}]",
	  "disks[2].path: /d is disks[0]'s already" },
	{ "\"disks\":[{\"path\":\"/d\",\"id\":\"a\"},{\"path\":\"/d\",\"readonly\":true}]",
	  "disks[1].path: /d is a's already" },
	{ "\"net\":[{\"num_queues\":1}]", "net[0].num_queues: 1" },
	{ "\"net\":[{\"num_queues\":3}]", "net[0].num_queues: 3" },
	{ "\"net\":[{\"num_queues\":66}]", "net[0].num_queues: 66" },
	{ "\"net\":[{\"num_queues\":6}]", "3 queue pairs for 2 vCPUs" },
	{ "\"net\":[{\"queue_size\":3}]", "net[0].queue_size" },
	{ "\"net\":[{\"tap\":\"\"}]", "net[0].tap" },
	{ "\"net\":[{\"tap\":\"sixteen-bytes-xx\"}]", "net[0].tap" },
	{ "\"net\":[{\"tap\":\"a/b\"}]", "net[0].tap" },
	{ "\"net\":[{\"tap\":\"..\"}]", "net[0].tap" },
	{ "\"net\":[{\"tap\":\"t\"},{\"tap\":\"t\"}]", "net[1].tap: t is net[0]'s already" },
	{ "\"net\":[{\"ip\":\"10.0.0\",\"mask\":\"255.0.0.0\"}]", "net[0].ip" },
	{ "\"net\":[{\"ip\":\"10.0.0.1\"}]", "net[0].mask: must be set" },
	{ "\"net\":[{\"mask\":\"255.0.0.0\"}]", "net[0].mask: set without an ip" },
	{ "\"net\":[{\"ip\":\"10.0.0.1\",\"mask\":\"255.0.255.0\"}]", "net[0].mask" },
	{ "\"net\":[{\"ip\":\"10.0.0.1\",\"mask\":\"ffff::\"}]", "net[0].mask" },
	{ "\"net\":[{\"mac\":\"02:00:00:00:00\"}]", "net[0].mac" },
	{ "\"net\":[{\"mac\":\"01:00:00:00:00:00\"}]", "multicast" },
	{ "\"net\":[{\"mac\":\"00:00:00:00:00:00\"}]", "all zero" },
	{ "\"net\":[{\"mtu\":67}]", "net[0].mtu" },
	{ "\"net\":[{\"mtu\":65536}]", "net[0].mtu" },
	{ "\"net\":[{\"fds\":[-1]}]", "net[0].fds[0]: no descriptor came" },
	{ "\"net\":[{\"fds\":[-1,-1]}]", "net[0].num_queues: is 2, must be twice" },
	{ "\"net\":[{\"fds\":[-1],\"tap\":\"t\"}]", "a tap or descriptors, not both" },
	{ "\"vsock\":{\"cid\":2}", "vsock.cid: 2" },
	{ "\"vsock\":{\"cid\":4294967295}", "vsock.cid: 4294967295" },
	{ "\"vsock\":{\"cid\":3,\"socket\":\"\"}", "vsock.socket" },
	{ "\"vsock\":{\"cid\":3,\"socket\":\"/"
	  "0123456789012345678901234567890123456789012345678901234"
	  "56789012345678901234567890123456789012345678901234567890123456789\"}",
	  "vsock.socket" },
	{ "\"devices\":[{}]", "devices[0].path: a path is needed, or a descriptor" },
	{ "\"devices\":[{\"path\":\"\"}]", "devices[0].path: a path is needed" },
	{ "\"devices\":[{\"path\":\"0000:01:10.0\"}]", "\"0000:01:10.0\" must be the absolute" },
	{ "\"devices\":[{\"path\":\"/f\",\"id\":\"a/b\"}]", "devices[0].id: \"a/b\"" },
	{ "\"devices\":[{\"path\":\"/f\"},{\"path\":\"/f\"}]",
	  "devices[1].path: /f is devices[0]'s already" },
	{ "\"user_devices\":[{\"socket\":\"\"}]", "user_devices[0].socket: a path is needed" },
	{ "\"user_devices\":[{\"socket\":\"/s\",\"id\":\"\"}]", "user_devices[0].id: must have" },
	{ "\"user_devices\":[{\"socket\":\"/"
	  "0123456789012345678901234567890123456789012345678901234"
	  "56789012345678901234567890123456789012345678901234567890123456789\"}]",
	  "user_devices[0].socket" },
	{ "\"user_devices\":[{\"socket\":\"/s\"},{\"socket\":\"/s\"}]",
	  "user_devices[1].socket: /s is user_devices[0]'s already" },
	{ "\"vsock\":{\"cid\":3,\"socket\":\"/s\"},\"user_devices\":[{\"socket\":\"/s\"}]",
	  "user_devices[0].socket: /s is vsock[0]'s already" },
	{ "\"serial\":{\"mode\":\"Socket\",\"socket\":\"/s\"},\"vsock\":{\"cid\":3,\"socket\":\"/"
	  "s\"}",
	  "vsock.socket: /s is serial's already" },
	{ "\"console\":{\"mode\":\"Socket\",\"socket\":\"/s\"},\"user_devices\":[{\"socket\":\"/"
	  "s\"}]",
	  "user_devices[0].socket: /s is console's already" },
	{ "\"disks\":[{\"path\":\"/d\",\"id\":\"a\"}],\"devices\":[{\"path\":\"/f\",\"id\":\"a\"}]",
	  "devices[0].id: \"a\" is disks[0]'s already" },
	{ "\"vsock\":{\"cid\":3,\"id\":\"a\"},\"user_devices\":[{\"socket\":\"/s\",\"id\":\"a\"}]",
	  "user_devices[0].id: \"a\" is vsock[0]'s already" },
	{ "\"devices\":[{\"path\":\"/f\",\"id\":\"a\"}],"
	  "\"user_devices\":[{\"socket\":\"/s\",\"id\":\"a\"}]",
	  "user_devices[0].id: \"a\" is devices[0]'s already" },
	{ "\"rng\":{\"src\":\"\"}", "rng.src" },
	{ "\"balloon\":{\"size\":1073741824}", "balloon.size" },
	{ "\"balloon\":{\"size\":100}", "balloon.size" },
	{ "\"serial\":{\"mode\":\"File\"}", "serial.file" },
	{ "\"serial\":{\"mode\":\"Socket\"}", "serial.socket" },
	{ "\"serial\":{\"mode\":\"Tty\"}", "console.mode: the terminal is serial's already" },
	{ "\"debug_console\":{\"mode\":\"Null\",\"iobase\":0}", "debug_console.iobase" },
	{ "\"debug_console\":{\"mode\":\"Socket\"}", "debug_console.mode: Socket is not offered" },
	{ "\"watchdog\":true", "watchdog: not offered" },
	{ "\"platform\":{\"uuid\":\"0123\"}", "platform.uuid" },
	{ "\"platform\":{\"uuid\":\"01234567x89ab-cdef-0123-456789abcdef\"}", "platform.uuid" },
	{ "\"landlock_rules\":[{\"path\":\"\",\"access\":\"r\"}]", "landlock_rules[0].path" },
};

START_TEST(each_rule_names_field_and_device)
{
	struct error err = ERROR_INIT;
	struct vm_config config = config_of(bad[_i].text);
	int r = vm_config_validate(&config, &err);

	ck_assert_msg(r < 0, "accepted: %s", bad[_i].text);
	ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
	ck_assert_msg(strstr(err.message, bad[_i].expect) != NULL, "\"%s\" lacks \"%s\"",
		      err.message, bad[_i].expect);
	vm_config_destroy(&config);
}
END_TEST

START_TEST(kernel_must_be_named)
{
	struct error err = ERROR_INIT;
	struct vm_config config;

	vm_config_init(&config);
	ck_assert_int_lt(vm_config_validate(&config, &err), 0);
	ck_assert_str_eq(err.message, "payload.kernel: a kernel is needed");
	config.payload.kernel = strdup("/k");
	config.payload.initramfs = strdup("");
	ck_assert_int_lt(vm_config_validate(&config, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "payload.initramfs"));
	vm_config_destroy(&config);
}
END_TEST

START_TEST(devices_without_id_get_the_next_free_one)
{
	struct error err = ERROR_INIT;
	struct vm_config c =
		config_of("\"disks\":[{\"path\":\"/a\"},{\"path\":\"/b\",\"id\":\"_disk0\"},"
			  "{\"path\":\"/c\"}],\"net\":[{}],\"vsock\":{\"cid\":3},\"devices\":"
			  "[{\"path\":\"/f\"},{\"path\":\"/g\",\"id\":\"_vfio0\"}],"
			  "\"user_devices\":[{\"socket\":\"/s\"},{\"socket\":\"/t\"}]");

	ck_assert_msg(!vm_config_validate(&c, &err), "%s", err.message);
	ck_assert_str_eq(c.disks[0].id, "_disk1");
	ck_assert_str_eq(c.disks[1].id, "_disk0");
	ck_assert_str_eq(c.disks[2].id, "_disk2");
	ck_assert_str_eq(c.nets[0].id, "_net0");
	ck_assert_str_eq(c.vsock->id, "_vsock0");
	ck_assert_str_eq(c.devices[0].id, "_vfio1");
	ck_assert_str_eq(c.devices[1].id, "_vfio0");
	ck_assert_str_eq(c.user_devices[0].id, "_vfio_user0");
	ck_assert_str_eq(c.user_devices[1].id, "_vfio_user1");
	ck_assert_msg(!vm_config_validate(&c, &err), "second time: %s", err.message);
	vm_config_destroy(&c);
}
END_TEST

START_TEST(same_descriptor_twice_is_refused)
{
	struct error err = ERROR_INIT;
	struct net_config net;
	int fd = dup(0);

	net_config_init(&net);
	net.num_queues = 4;
	net.fds = malloc(2 * sizeof(int));
	net.fds[0] = net.fds[1] = fd;
	net.fd_count = 2;
	ck_assert_int_lt(net_config_validate(&net, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "is there twice"));
	net.fds[1] = -1;
	net_config_destroy(&net);
	ck_assert_int_lt(close(fd), 0); /* destroy closed it */
}
END_TEST

static void expect_bad_device(const struct device_config *device, const char *expect)
{
	struct error err = ERROR_INIT;

	ck_assert_int_lt(device_config_validate(device, &err), 0);
	ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
	ck_assert_msg(strstr(err.message, expect) != NULL, "\"%s\" lacks \"%s\"", err.message,
		      expect);
}

START_TEST(device_is_reached_by_path_or_descriptor)
{
	struct error err = ERROR_INIT;
	struct device_config device;
	int fd = dup(0);

	device_config_init(&device);
	expect_bad_device(&device, "device.path: a path is needed, or a descriptor");
	device.fd = fd;
	ck_assert_int_eq(device_config_validate(&device, &err), 0);
	device.iommufd = false;
	expect_bad_device(&device, "device.iommufd: must not be off");
	device.path = strdup("/sys/f");
	expect_bad_device(&device, "device: give a path or a descriptor, not both");
	device_config_destroy(&device);
	ck_assert_int_lt(close(fd), 0); /* destroy closed it */
	device_config_destroy(&device);
}
END_TEST

START_TEST(values_of_a_device_stay_in_their_range)
{
	struct error err = ERROR_INIT;
	struct device_config device;

	device_config_init(&device);
	device.path = strdup("/sys/f");
	for (int clique = -1; clique <= 15; clique++) {
		device.x_nv_gpudirect_clique = clique;
		ck_assert_int_eq(device_config_validate(&device, &err), 0);
	}
	device.x_nv_gpudirect_clique = 16;
	expect_bad_device(&device, "device.x_nv_gpudirect_clique: 16 is not in 0 to 15");
	device.x_nv_gpudirect_clique = -2;
	expect_bad_device(&device, "device.x_nv_gpudirect_clique: -2");
	device.x_nv_gpudirect_clique = -1;
	device.x_exclude_mmap_bars = 1 << 6;
	expect_bad_device(&device, "device.x_exclude_mmap_bars: a device has BARs 0 to 5");
	device_config_destroy(&device);
}
END_TEST

START_TEST(migration_of_a_device_is_by_a_plugin_that_can_be_found)
{
	struct error err = ERROR_INIT;
	struct device_config device;
	struct user_device_config user = { 0 };

	device_config_init(&device);
	device.path = strdup("/sys/f");
	device.migration.plugin_arg = strdup("10.0.0.1:7");
	expect_bad_device(&device, "device.migration.plugin_arg: is a plugin's");
	device.migration.plugin_path = strdup("p.so");
	expect_bad_device(&device, "device.migration.plugin_path: \"p.so\" must be absolute");
	free(device.migration.plugin_path);
	device.migration.plugin_path = strdup("/p.so");
	ck_assert_int_eq(device_config_validate(&device, &err), 0);
	device.dirty_tracking = 2;
	expect_bad_device(&device, "device.dirty_tracking: must be auto or all");
	device.dirty_tracking = DIRTY_TRACKING_ALL;
	ck_assert_int_eq(device_config_validate(&device, &err), 0);
	free(device.migration.plugin_arg);
	device.migration.plugin_arg = malloc(4097);
	memset(device.migration.plugin_arg, 'a', 4096);
	device.migration.plugin_arg[4096] = '\0';
	expect_bad_device(&device, "device.migration.plugin_arg: is longer than 4095 bytes");
	device_config_destroy(&device);
	user.socket = strdup("/s");
	user.migration.plugin_path = strdup("p.so");
	ck_assert_int_lt(user_device_config_validate(&user, &err), 0);
	user_device_config_destroy(&user);
	ck_assert_ptr_null(user.migration.plugin_path);
}
END_TEST

START_TEST(device_whose_contents_were_taken_owns_nothing)
{
	struct device_config device = { 0 };

	device_config_destroy(&device);
	ck_assert_int_ge(fcntl(STDIN_FILENO, F_GETFD), 0);
	ck_assert_int_eq(device.fd, -1);
}
END_TEST

START_TEST(more_devices_than_a_vm_can_have_are_refused)
{
	struct error err = ERROR_INIT;
	struct vm_config c = config_of("");

	c.devices = calloc(200, sizeof(*c.devices));
	c.user_devices = calloc(100, sizeof(*c.user_devices));
	c.device_count = 200;
	c.user_device_count = 100;
	ck_assert_int_lt(vm_config_validate(&c, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "more than 255 devices"));
	vm_config_destroy(&c);
}
END_TEST

/* A running VM's devices have ids: these are named. */
START_TEST(device_that_would_share_what_another_has_is_not_admitted)
{
	struct vm_config c = config_of(
		"\"disks\":[{\"path\":\"/d\",\"id\":\"a\"},{\"path\":\"/ro\",\"readonly\":true}],"
		"\"net\":[{\"tap\":\"t\",\"id\":\"b\"},{}],\"vsock\":{\"cid\":3,\"socket\":\"/v\"},"
		"\"devices\":[{\"path\":\"/f\",\"id\":\"c\"}],"
		"\"user_devices\":[{\"socket\":\"/s\",\"id\":\"e\"}]");
	struct error err = ERROR_INIT;
	struct disk_config disk;
	struct net_config net;
	struct vsock_config vsock;
	struct device_config device;
	struct user_device_config user = { .socket = (char *)"/s" };

	ck_assert_int_eq(vm_config_validate(&c, &err), 0);
	disk_config_init(&disk);
	net_config_init(&net);
	vsock_config_init(&vsock);
	device_config_init(&device);

	disk.path = (char *)"/d";
	ck_assert_int_eq(vm_config_admit_disk(&c, &disk, &err), -EINVAL);
	ck_assert_str_eq(err.message, "disk.path: /d is a's already");
	ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
	disk.path = (char *)"/ro";
	ck_assert_int_eq(vm_config_admit_disk(&c, &disk, &err), -EINVAL);
	disk.readonly = true;
	ck_assert_int_eq(vm_config_admit_disk(&c, &disk, &err), 0);
	disk.num_queues = 3;
	ck_assert_int_eq(vm_config_admit_disk(&c, &disk, &err), -EINVAL);
	ck_assert_str_eq(err.message, "disk.num_queues: 3 queues for 2 vCPUs");

	ck_assert_int_eq(vm_config_admit_net(&c, &net, &err), 0);
	net.tap = (char *)"t";
	ck_assert_int_eq(vm_config_admit_net(&c, &net, &err), -EINVAL);
	ck_assert_str_eq(err.message, "net.tap: t is b's already");
	net.tap = (char *)"u";
	ck_assert_int_eq(vm_config_admit_net(&c, &net, &err), 0);

	device.path = (char *)"/f";
	ck_assert_int_eq(vm_config_admit_device(&c, &device, &err), -EINVAL);
	ck_assert_str_eq(err.message, "device.path: /f is c's already");
	device.path = (char *)"/g";
	ck_assert_int_eq(vm_config_admit_device(&c, &device, &err), 0);

	ck_assert_int_eq(vm_config_admit_user_device(&c, &user, &err), -EINVAL);
	ck_assert_str_eq(err.message, "user_device.socket: /s is e's already");
	user.socket = (char *)"/v";
	ck_assert_int_eq(vm_config_admit_user_device(&c, &user, &err), -EINVAL);
	ck_assert_str_eq(err.message, "user_device.socket: /v is _vsock0's already");
	user.socket = (char *)"/w";
	ck_assert_int_eq(vm_config_admit_user_device(&c, &user, &err), 0);
	vsock.socket = (char *)"/s";
	ck_assert_int_eq(vm_config_admit_vsock(&c, &vsock, &err), -EINVAL);
	ck_assert_str_eq(err.message, "vsock.socket: /s is e's already");
	vsock.socket = NULL;
	ck_assert_int_eq(vm_config_admit_vsock(&c, &vsock, &err), 0);
	vm_config_destroy(&c);
}
END_TEST

START_TEST(devices_alone_are_named_by_kind)
{
	struct error err = ERROR_INIT;
	struct user_device_config user = { 0 };
	struct vsock_config vsock;
	struct disk_config disk;

	disk_config_init(&disk);
	ck_assert_int_lt(disk_config_validate(&disk, &err), 0);
	ck_assert_str_eq(err.message, "disk.path: a path is needed");
	disk_config_destroy(&disk);
	ck_assert_int_lt(user_device_config_validate(&user, &err), 0);
	ck_assert_str_eq(err.message, "user_device.socket: a path is needed");
	vsock_config_init(&vsock);
	ck_assert_int_lt(vsock_config_validate(&vsock, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "vsock.cid: 0"));
	vsock_config_destroy(&vsock);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vm_config");
	TCase *tc = tcase_create("vm_config");

	tcase_add_loop_test(tc, sound_configurations_pass, 0, sizeof(good) / sizeof(good[0]));
	tcase_add_loop_test(tc, each_rule_names_field_and_device, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(tc, kernel_must_be_named);
	tcase_add_test(tc, devices_without_id_get_the_next_free_one);
	tcase_add_test(tc, same_descriptor_twice_is_refused);
	tcase_add_test(tc, device_is_reached_by_path_or_descriptor);
	tcase_add_test(tc, values_of_a_device_stay_in_their_range);
	tcase_add_test(tc, migration_of_a_device_is_by_a_plugin_that_can_be_found);
	tcase_add_test(tc, device_whose_contents_were_taken_owns_nothing);
	tcase_add_test(tc, more_devices_than_a_vm_can_have_are_refused);
	tcase_add_test(tc, device_that_would_share_what_another_has_is_not_admitted);
	tcase_add_test(tc, devices_alone_are_named_by_kind);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
