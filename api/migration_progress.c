/* SPDX-License-Identifier: Apache-2.0 */
#include "api/migration_progress.h"

#include "api/json_fields.h"
#include "base/bytes.h"

static const char *const direction_names[] = {
	[VM_MIGRATION_DIRECTION_NONE] = "none",
	[VM_MIGRATION_DIRECTION_SEND] = "send",
	[VM_MIGRATION_DIRECTION_RECEIVE] = "receive",
	[VM_MIGRATION_DIRECTION_SNAPSHOT] = "snapshot",
	[VM_MIGRATION_DIRECTION_RESTORE] = "restore",
	NULL,
};

static const char *const phase_names[] = {
	[VM_MIGRATION_PHASE_NONE] = "none",
	[VM_MIGRATION_PHASE_CONNECT] = "connect",
	[VM_MIGRATION_PHASE_SETUP] = "setup",
	[VM_MIGRATION_PHASE_PRECOPY] = "precopy",
	[VM_MIGRATION_PHASE_SWITCHOVER] = "switchover",
	[VM_MIGRATION_PHASE_POSTCOPY] = "postcopy",
	[VM_MIGRATION_PHASE_BACKGROUND] = "background",
	[VM_MIGRATION_PHASE_COMPLETED] = "completed",
	[VM_MIGRATION_PHASE_FAILED] = "failed",
	[VM_MIGRATION_PHASE_CANCELLED] = "cancelled",
	NULL,
};

#define FIELD(type, field, what, ...) \
	{ \
		.name = #field, .kind = JSON_FIELD_##what, .offset = offsetof(struct type, field), \
		__VA_ARGS__ \
	}

static const struct json_field downtime_fields[] = {
	FIELD(vm_migration_downtime, total, U64),
	FIELD(vm_migration_downtime, stop, U64),
	FIELD(vm_migration_downtime, devices, U64),
	FIELD(vm_migration_downtime, memory, U64),
	FIELD(vm_migration_downtime, state, U64),
	FIELD(vm_migration_downtime, handover, U64),
	{ 0 },
};

static bool downtime_absent(const void *target)
{
	return !((const struct vm_migration_downtime *)target)->total;
}

static const struct json_object downtime_object = {
	.fields = downtime_fields,
	.absent = downtime_absent,
};

static const struct json_field faults_fields[] = {
	FIELD(vm_migration_faults, count, U64),
	FIELD(vm_migration_faults, mean, U64),
	FIELD(vm_migration_faults, max, U64),
	FIELD(vm_migration_faults, recoveries, UINT),
	{ 0 },
};

static bool faults_absent(const void *target)
{
	const struct vm_migration_faults *faults = target;

	return !faults->count && !faults->recoveries;
}

static const struct json_object faults_object = {
	.fields = faults_fields,
	.absent = faults_absent,
};

static const struct json_field progress_fields[] = {
	FIELD(vm_migration_progress, direction, ENUM, .names = direction_names),
	FIELD(vm_migration_progress, phase, ENUM, .names = phase_names),
	FIELD(vm_migration_progress, cancelling, BOOL),
	FIELD(vm_migration_progress, elapsed_ms, U64),
	FIELD(vm_migration_progress, round, UINT),
	FIELD(vm_migration_progress, ram_bytes, U64),
	FIELD(vm_migration_progress, done_bytes, U64),
	FIELD(vm_migration_progress, remaining_bytes, U64),
	FIELD(vm_migration_progress, transferred_bytes, U64),
	FIELD(vm_migration_progress, pages, U64),
	FIELD(vm_migration_progress, zero_pages, U64),
	FIELD(vm_migration_progress, rate, U64),
	FIELD(vm_migration_progress, dirty_rate, U64),
	FIELD(vm_migration_progress, throttle, UINT),
	FIELD(vm_migration_progress, expected_downtime_us, U64, .flags = JSON_FIELD_UNSET_0),
	{ .name = "downtime_us",
	  .kind = JSON_FIELD_OBJECT,
	  .offset = offsetof(struct vm_migration_progress, downtime),
	  .object = &downtime_object },
	{ .name = "faults_us",
	  .kind = JSON_FIELD_OBJECT,
	  .offset = offsetof(struct vm_migration_progress, faults),
	  .object = &faults_object },
	FIELD(vm_migration_progress, io_uring, BOOL),
	FIELD(vm_migration_progress, zero_copy, BOOL),
	{ 0 },
};

static const struct json_object progress_object = { .fields = progress_fields };

static const struct json_field none_fields[] = {
	FIELD(vm_migration_progress, direction, ENUM, .names = direction_names),
	FIELD(vm_migration_progress, phase, ENUM, .names = phase_names),
	{ 0 },
};

static const struct json_object none_object = { .fields = none_fields };

static json_t *write_connections(const struct vm_migration_progress *p)
{
	json_t *array = json_array();

	for (unsigned int i = 0; array && i < p->connection_count && i < SEND_CONNECTIONS_MAX; i++)
		if (json_array_append_new(array,
					  json_pack("{s:I,s:I}", "bytes",
						    (json_int_t)p->connections[i].bytes, "rate",
						    (json_int_t)p->connections[i].rate))) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static json_t *write_devices(const struct vm_migration_progress *p)
{
	json_t *array = json_array();

	for (unsigned int i = 0; array && i < p->device_count && i < VM_MIGRATION_DEVICES_MAX; i++)
		if (json_array_append_new(
			    array, json_pack("{s:s,s:s,s:I,s:I,s:b}", "id", p->devices[i].id,
					     "backend", p->devices[i].backend, "bytes",
					     (json_int_t)p->devices[i].bytes, "remaining_bytes",
					     (json_int_t)p->devices[i].remaining_bytes, "ready",
					     p->devices[i].ready))) {
			json_decref(array);
			return NULL;
		}
	return array;
}

json_t *vm_migration_progress_to_json(const struct vm_migration_progress *p)
{
	bool none = p->direction == VM_MIGRATION_DIRECTION_NONE;
	json_t *json = json_object_write(none ? &none_object : &progress_object, p);

	if (json && !none &&
	    ((p->note[0] && json_object_set_new(json, "note", json_text(p->note))) ||
	     (p->error[0] && json_object_set_new(json, "error", json_text(p->error))) ||
	     json_object_set_new(json, "connections", write_connections(p)) ||
	     (p->device_count && json_object_set_new(json, "devices", write_devices(p))))) {
		json_decref(json);
		return NULL;
	}
	return json;
}
