/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables behind config_json.h: fields, types and defaults of Cloud
 * Hypervisor's VmConfig. JSON_FIELD_OFF marks what it has and Ferry has not.
 */
#include "api/config_json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/config_json_fields.h"

/* --- cpus, memory, payload, platform ------------------------------------------- */

static bool topology_absent(const void *target)
{
	const struct cpus_config *cpus = target;

	return !cpus->threads_per_core && !cpus->cores_per_die && !cpus->dies_per_package &&
	       !cpus->packages;
}

static const struct json_field topology_fields[] = {
	FIELD(cpus_config, threads_per_core, UINT, .min = 1, .flags = JSON_FIELD_REQUIRED),
	FIELD(cpus_config, cores_per_die, UINT, .min = 1, .flags = JSON_FIELD_REQUIRED),
	FIELD(cpus_config, dies_per_package, UINT, .min = 1, .flags = JSON_FIELD_REQUIRED),
	FIELD(cpus_config, packages, UINT, .min = 1, .flags = JSON_FIELD_REQUIRED),
	{ 0 },
};

static const struct json_object topology_object = {
	.fields = topology_fields,
	.absent = topology_absent,
};

static const struct json_field cpus_fields[] = {
	FIELD(cpus_config, boot_vcpus, UINT, .min = 1),
	FIELD(cpus_config, max_vcpus, UINT, .min = 1),
	{ .name = "topology",
	  .kind = JSON_FIELD_OBJECT,
	  .flags = JSON_FIELD_NULLABLE,
	  .object = &topology_object },
	FIELD(cpus_config, kvm_hyperv, BOOL),
	OFF_OR("max_phys_bits", "46"),
	OFF_OR("nested", "true"),
	OFF("affinity"),
	OFF("features"),
	OFF_OR("core_scheduling", "Vm|Off"),
	{ 0 },
};

static const struct json_object cpus_object = {
	.fields = cpus_fields,
};

static const struct json_field memory_fields[] = {
	FIELD(memory_config, size, U64),
	FIELD(memory_config, mergeable, BOOL),
	FIELD(memory_config, shared, BOOL),
	FIELD(memory_config, hugepages, BOOL),
	FIELD(memory_config, hugepage_size, U64, .flags = JSON_FIELD_NULLABLE | JSON_FIELD_UNSET_0),
	FIELD(memory_config, prefault, BOOL),
	FIELD(memory_config, thp, BOOL),
	OFF("hotplug_size"),
	OFF("hotplugged_size"),
	OFF_OR("hotplug_method", "Acpi"),
	OFF("reserve"),
	OFF("zones"),
	{ 0 },
};

static const struct json_object memory_object = {
	.fields = memory_fields,
};

static bool payload_absent(const void *target)
{
	const struct payload_config *payload = target;

	return !payload->kernel && !payload->cmdline && !payload->initramfs;
}

static const struct json_field payload_fields[] = {
	FIELD(payload_config, kernel, STRING),
	FIELD(payload_config, cmdline, STRING),
	FIELD(payload_config, initramfs, STRING),
	OFF("firmware"),
	OFF("igvm"),
	OFF("host_data"),
	{ 0 },
};

static const struct json_object payload_object = {
	.fields = payload_fields,
	.absent = payload_absent,
};

static bool platform_absent(const void *target)
{
	const struct platform_config *platform = target;

	return !platform->serial_number && !platform->uuid && !platform->oem_string_count;
}

static const struct json_field platform_fields[] = {
	FIELD(platform_config, serial_number, STRING),
	FIELD(platform_config, uuid, STRING),
	/* The names of later releases. */
	{ .name = "system_serial_number",
	  .kind = JSON_FIELD_STRING,
	  .flags = JSON_FIELD_ALIAS,
	  .offset = offsetof(struct platform_config, serial_number) },
	{ .name = "system_uuid",
	  .kind = JSON_FIELD_STRING,
	  .flags = JSON_FIELD_ALIAS,
	  .offset = offsetof(struct platform_config, uuid) },
	FIELD(platform_config, oem_strings, STRINGS,
	      .count_offset = offsetof(struct platform_config, oem_string_count)),
	OFF_OR("num_pci_segments", "1"),
	OFF("iommu_segments"),
	OFF_OR("iommu_address_width_bits", "64"),
	OFF("system_manufacturer"),
	OFF("system_product_name"),
	OFF("system_version"),
	OFF("system_family"),
	OFF("system_sku_number"),
	OFF("chassis_asset_tag"),
	OFF("tdx"),
	OFF("sev_snp"),
	OFF_OR("iommufd", "true"), /* a device says for itself */
	OFF_OR("vfio_p2p_dma", "true"),
	{ 0 },
};

static const struct json_object platform_object = {
	.fields = platform_fields,
	.absent = platform_absent,
};

/* --- the small ones --------------------------------------------------------------- */

static const struct json_field balloon_fields[] = {
	FIELD(balloon_config, size, U64, .flags = JSON_FIELD_REQUIRED),
	FIELD(balloon_config, deflate_on_oom, BOOL),
	FIELD(balloon_config, free_page_reporting, BOOL),
	OFF("id"),
	PCI_FIELDS,
	{ 0 },
};

static const struct json_object balloon_object = {
	.fields = balloon_fields,
	.size = sizeof(struct balloon_config),
};

/* rng.src has a default that a given one replaces. */
static int read_rng_src(void *target, const json_t *json, const struct json_where *where,
			struct error *err)
{
	char **src = target;

	if (!json_is_string(json) || strlen(json_string_value(json)) != json_string_length(json))
		return json_bad(err, where, "must be a string without NUL, not %s",
				json_type_name(json));
	free(*src);
	*src = strdup(json_string_value(json));
	return *src ? 0 : error_set_errno(err, ENOMEM, "read configuration");
}

static json_t *write_rng_src(const void *target)
{
	char *const *src = target;

	return json_text(*src ? *src : "");
}

static const struct json_field rng_fields[] = {
	FIELD(rng_config, src, CUSTOM, .flags = JSON_FIELD_REQUIRED, .read = read_rng_src,
	      .write = write_rng_src),
	OFF("id"),
	PCI_FIELDS,
	{ 0 },
};

static const struct json_object rng_object = {
	.fields = rng_fields,
};

static const char *const console_modes[] = { "Off", "Pty", "Tty", "File", "Socket", "Null", NULL };

#define CONSOLE_FIELDS \
	FIELD(console_config, mode, ENUM, .flags = JSON_FIELD_REQUIRED, .names = console_modes), \
		FIELD(console_config, file, STRING)

static const struct json_field console_fields[] = {
	CONSOLE_FIELDS, FIELD(console_config, socket, STRING), OFF("id"), PCI_FIELDS, { 0 },
};

const struct json_object console_object = {
	.fields = console_fields,
	.size = sizeof(struct console_config),
};

static const struct json_field debug_console_fields[] = {
	CONSOLE_FIELDS,
	FIELD(console_config, iobase, U16, .flags = JSON_FIELD_NULLABLE),
	{ 0 },
};

static const struct json_object debug_console_object = {
	.fields = debug_console_fields,
};

static int read_access(void *target, const json_t *json, const struct json_where *where,
		       struct error *err)
{
	struct landlock_rule *rule = target;
	const char *text = json_string_value(json);

	if (!text)
		return json_bad(err, where, "must be a string, not %s", json_type_name(json));
	if (!*text || json_string_length(json) > 2 ||
	    strspn(text, "rw") != json_string_length(json))
		return json_bad(err, where, "\"%.64s\" is none of r, w, rw", text);
	rule->read = strchr(text, 'r');
	rule->write = strchr(text, 'w');
	return 0;
}

static json_t *write_access(const void *target)
{
	const struct landlock_rule *rule = target;

	return json_string(rule->read ? rule->write ? "rw" : "r" : rule->write ? "w" : "");
}

static const struct json_field landlock_fields[] = {
	FIELD(landlock_rule, path, STRING, .flags = JSON_FIELD_REQUIRED),
	{ .name = "access",
	  .kind = JSON_FIELD_CUSTOM,
	  .flags = JSON_FIELD_REQUIRED,
	  .read = read_access,
	  .write = write_access },
	{ 0 },
};

static const struct json_object landlock_object = {
	.fields = landlock_fields,
	.size = sizeof(struct landlock_rule),
};

/* --- the whole ---------------------------------------------------------------------- */

static const struct json_field vm_fields[] = {
	FIELD(vm_config, cpus, OBJECT, .object = &cpus_object),
	FIELD(vm_config, memory, OBJECT, .object = &memory_object),
	FIELD(vm_config, payload, OBJECT, .flags = JSON_FIELD_NULLABLE, .object = &payload_object),
	FIELD(vm_config, disks, ARRAY, .object = &disk_object,
	      .count_offset = offsetof(struct vm_config, disk_count)),
	{ .name = "net",
	  .kind = JSON_FIELD_ARRAY,
	  .object = &net_object,
	  .offset = offsetof(struct vm_config, nets),
	  .count_offset = offsetof(struct vm_config, net_count) },
	FIELD(vm_config, vsock, POINTER, .object = &vsock_object),
	FIELD(vm_config, devices, ARRAY, .object = &device_object,
	      .count_offset = offsetof(struct vm_config, device_count)),
	FIELD(vm_config, user_devices, ARRAY, .object = &user_device_object,
	      .count_offset = offsetof(struct vm_config, user_device_count)),
	FIELD(vm_config, rng, OBJECT, .object = &rng_object),
	FIELD(vm_config, balloon, POINTER, .object = &balloon_object),
	FIELD(vm_config, serial, OBJECT, .object = &console_object),
	FIELD(vm_config, console, OBJECT, .object = &console_object),
	FIELD(vm_config, debug_console, OBJECT, .object = &debug_console_object),
	FIELD(vm_config, pvpanic, BOOL),
	FIELD(vm_config, watchdog, BOOL),
	FIELD(vm_config, platform, OBJECT, .flags = JSON_FIELD_NULLABLE,
	      .object = &platform_object),
	FIELD(vm_config, landlock_enable, BOOL),
	FIELD(vm_config, landlock_rules, ARRAY, .object = &landlock_object,
	      .count_offset = offsetof(struct vm_config, landlock_rule_count)),
	OFF("rate_limit_groups"),
	OFF("fs"),
	OFF("generic_vhost_user"),
	OFF("pmem"),
	OFF("vdpa"),
	OFF("numa"),
	OFF("iommu"),
	OFF("rtc"),
	OFF("pci_segments"),
	OFF("tpm"),
	OFF("sgx_epc"),
	OFF("gdb"),
	OFF("ivshmem"),
	OFF("preserved_fds"),
	{ 0 },
};

static const struct json_object vm_object = {
	.fields = vm_fields,
};

int vm_config_from_json(struct vm_config *config, const json_t *json, struct error *err)
{
	struct json_where root = { NULL, NULL, -1 };
	int r;

	vm_config_init(config);
	config->cpus.max_vcpus = 0; /* left out: as boot_vcpus */
	r = json_object_read(&vm_object, config, json, &root, err);
	if (r) {
		vm_config_destroy(config);
		return r;
	}
	if (!config->cpus.max_vcpus)
		config->cpus.max_vcpus = config->cpus.boot_vcpus;
	return 0;
}

json_t *vm_config_to_json(const struct vm_config *config)
{
	return json_object_write(&vm_object, config);
}
