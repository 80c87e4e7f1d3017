/* SPDX-License-Identifier: Apache-2.0 */
#include "api/server_arguments.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/config_json.h"
#include "api/json_fields.h"
#include "base/cleanup.h"

#define JSON_DEPTH_MAX 32

static int check_depth(const char *body, size_t len, struct error *err)
{
	unsigned int depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < len; i++) {
		if (quoted && body[i] == '\\')
			i++;
		else if (body[i] == '"')
			quoted = !quoted;
		else if (!quoted && (body[i] == '[' || body[i] == '{') && ++depth > JSON_DEPTH_MAX)
			return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
					      "body: nested deeper than %d", JSON_DEPTH_MAX);
		else if (!quoted && (body[i] == ']' || body[i] == '}') && depth)
			depth--;
	}
	return 0;
}

static json_t *load_body(const struct api_request *request, struct error *err)
{
	json_error_t problem;
	json_t *json;

	if (!request->body_len) {
		error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "a JSON body is needed");
		return NULL;
	}
	if (check_depth(request->body, request->body_len, err))
		return NULL;
	json = json_loadb(request->body, request->body_len, JSON_REJECT_DUPLICATES, &problem);
	if (!json)
		error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "body: line %d, column %d: %s",
			       problem.line, problem.column, problem.text);
	return json;
}

int api_arguments_parse(struct api_request *request, api_parse_fn parse, union api_arguments *args,
			struct error *err)
{
	json_t *json = load_body(request, err);
	int r;

	if (!json)
		return err->code;
	r = parse(request, json, args, err);
	json_decref(json);
	return r;
}

static bool wants_fd(const struct device_config *device)
{
	return !device->path;
}

/* In the order of the devices, first those of net, then those of devices. */
static int hand_out_fds(struct api_request *request, struct vm_config *vm, struct error *err)
{
	unsigned int wanted = 0, next = 0;

	for (unsigned int i = 0; i < vm->net_count; i++)
		wanted += vm->nets[i].fd_count;
	for (unsigned int i = 0; i < vm->device_count; i++)
		wanted += wants_fd(&vm->devices[i]);
	if (wanted != request->fd_count)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "net's \"fds\" and devices without a \"path\" ask for %u "
				      "descriptors, %u came with the request",
				      wanted, request->fd_count);
	for (unsigned int i = 0; i < vm->net_count; i++)
		for (unsigned int k = 0; k < vm->nets[i].fd_count; k++)
			vm->nets[i].fds[k] = take_fd(&request->fds[next++]);
	for (unsigned int i = 0; i < vm->device_count; i++)
		if (wants_fd(&vm->devices[i]))
			vm->devices[i].fd = take_fd(&request->fds[next++]);
	return 0;
}

int api_parse_vm(struct api_request *request, const json_t *body, union api_arguments *args,
		 struct error *err)
{
	int r = vm_config_from_json(&args->vm, body, err);

	if (r)
		return r;
	r = hand_out_fds(request, &args->vm, err);
	if (!r)
		r = vm_config_validate(&args->vm, err);
	if (r)
		vm_config_destroy(&args->vm);
	return r;
}

void api_release_vm(union api_arguments *args)
{
	vm_config_destroy(&args->vm);
}

int api_parse_disk(struct api_request *request, const json_t *body, union api_arguments *args,
		   struct error *err)
{
	int r = disk_config_from_json(&args->disk, body, "disk", err);

	if (r)
		return r;
	r = disk_config_validate(&args->disk, err);
	if (r)
		disk_config_destroy(&args->disk);
	return r;
}

void api_release_disk(union api_arguments *args)
{
	disk_config_destroy(&args->disk);
}

/* All descriptors of the request are the device's. */
static int take_net_fds(struct api_request *request, struct net_config *net, struct error *err)
{
	if (net->fd_count && net->fd_count != request->fd_count)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "net.fds: asks for %u descriptors, %u came with the request",
				      net->fd_count, request->fd_count);
	if (!request->fd_count)
		return 0;
	free(net->fds);
	net->fd_count = 0;
	net->fds = malloc(request->fd_count * sizeof(*net->fds));
	if (!net->fds)
		return error_set_errno(err, ENOMEM, "take descriptors");
	for (unsigned int i = 0; i < request->fd_count; i++)
		net->fds[i] = take_fd(&request->fds[i]);
	net->fd_count = request->fd_count;
	return 0;
}

int api_parse_net(struct api_request *request, const json_t *body, union api_arguments *args,
		  struct error *err)
{
	int r = net_config_from_json(&args->net, body, "net", err);

	if (r)
		return r;
	r = take_net_fds(request, &args->net, err);
	if (!r)
		r = net_config_validate(&args->net, err);
	if (r)
		net_config_destroy(&args->net);
	return r;
}

void api_release_net(union api_arguments *args)
{
	net_config_destroy(&args->net);
}

int api_parse_vsock(struct api_request *request, const json_t *body, union api_arguments *args,
		    struct error *err)
{
	int r = vsock_config_from_json(&args->vsock, body, "vsock", err);

	if (r)
		return r;
	r = vsock_config_validate(&args->vsock, err);
	if (r)
		vsock_config_destroy(&args->vsock);
	return r;
}

void api_release_vsock(union api_arguments *args)
{
	vsock_config_destroy(&args->vsock);
}

int api_parse_device(struct api_request *request, const json_t *body, union api_arguments *args,
		     struct error *err)
{
	int r = device_config_from_json(&args->device, body, "device", err);

	if (r)
		return r;
	if (request->fd_count > 1)
		r = error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				   "device: is one descriptor, %u came with the request",
				   request->fd_count);
	else if (request->fd_count)
		args->device.fd = take_fd(&request->fds[0]);
	if (!r)
		r = device_config_validate(&args->device, err);
	if (r)
		device_config_destroy(&args->device);
	return r;
}

void api_release_device(union api_arguments *args)
{
	device_config_destroy(&args->device);
}

int api_parse_user_device(struct api_request *request, const json_t *body,
			  union api_arguments *args, struct error *err)
{
	int r = user_device_config_from_json(&args->user_device, body, "user_device", err);

	if (r)
		return r;
	r = user_device_config_validate(&args->user_device, err);
	if (r)
		user_device_config_destroy(&args->user_device);
	return r;
}

void api_release_user_device(union api_arguments *args)
{
	user_device_config_destroy(&args->user_device);
}

void api_release_named(union api_arguments *args)
{
	free(args->named.id);
	args->named.id = NULL;
}

static int parse_fields(const struct json_field *fields, union api_arguments *args,
			const json_t *body, struct error *err)
{
	const struct json_object object = { .fields = fields };
	const struct json_where root = { NULL, NULL, -1 };

	return json_object_read(&object, args, body, &root, err);
}

#define ID_FIELD \
	{ \
		.name = "id", .kind = JSON_FIELD_STRING, .flags = JSON_FIELD_REQUIRED, \
		.offset = offsetof(union api_arguments, named.id) \
	}

int api_parse_id(struct api_request *request, const json_t *body, union api_arguments *args,
		 struct error *err)
{
	static const struct json_field fields[] = { ID_FIELD, { .name = NULL } };
	int r = parse_fields(fields, args, body, err);

	if (r)
		api_release_named(args);
	return r;
}

int api_parse_resize_disk(struct api_request *request, const json_t *body,
			  union api_arguments *args, struct error *err)
{
	static const struct json_field fields[] = {
		ID_FIELD,
		{ .name = "desired_size",
		  .kind = JSON_FIELD_U64,
		  .min = 1,
		  .flags = JSON_FIELD_REQUIRED,
		  .offset = offsetof(union api_arguments, named.size) },
		{ .name = NULL },
	};
	int r = parse_fields(fields, args, body, err);

	if (r)
		api_release_named(args);
	return r;
}

/* vCPUs and memory cannot change: what equals the present is no change. */
static int check_present(struct api_request *request, const struct api_resize *resize,
			 struct error *err)
{
	json_t *info = request->server->ops.info(request->server->vm, err);
	long long vcpus = 0, ram = 0;
	int r = 0;

	if (!info)
		return err->code ? err->code : error_set_errno(err, ENOMEM, "resize VM");
	if (json_unpack(info, "{s:{s:{s:I},s:{s:I}}}", "config", "cpus", "boot_vcpus", &vcpus,
			"memory", "size", &ram))
		r = error_set(err, EIO, "resize VM: its size is not known");
	else if (resize->vcpus && resize->vcpus != vcpus)
		r = error_set_kind(
			err, ERROR_BAD_REQUEST, EINVAL,
			"desired_vcpus: %u: the VM has %lld and CPU hot-plug is not offered",
			resize->vcpus, vcpus);
	else if (resize->ram != API_UNASKED && resize->ram != (uint64_t)ram)
		r = error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				   "desired_ram: %llu: the VM has %lld and memory hot-plug is not "
				   "offered; desired_balloon takes memory back",
				   (unsigned long long)resize->ram, ram);
	json_decref(info);
	return r;
}

int api_parse_resize(struct api_request *request, const json_t *body, union api_arguments *args,
		     struct error *err)
{
	static const struct json_field fields[] = {
		{ .name = "desired_vcpus",
		  .kind = JSON_FIELD_UINT,
		  .min = 1,
		  .flags = JSON_FIELD_NULLABLE,
		  .offset = offsetof(union api_arguments, resize.vcpus) },
		{ .name = "desired_ram",
		  .kind = JSON_FIELD_U64,
		  .flags = JSON_FIELD_NULLABLE,
		  .offset = offsetof(union api_arguments, resize.ram) },
		{ .name = "desired_balloon",
		  .kind = JSON_FIELD_U64,
		  .flags = JSON_FIELD_NULLABLE,
		  .offset = offsetof(union api_arguments, resize.balloon) },
		{ .name = NULL },
	};
	int r;

	args->resize = (struct api_resize){ .ram = API_UNASKED, .balloon = API_UNASKED };
	r = parse_fields(fields, args, body, err);
	return r ? r : check_present(request, &args->resize, err);
}

/* --- snapshot, restore, migration --------------------------------------------------- */

int api_parse_snapshot(struct api_request *request, const json_t *body, union api_arguments *args,
		       struct error *err)
{
	return snapshot_config_from_json(&args->snapshot, body, err);
}

void api_release_snapshot(union api_arguments *args)
{
	snapshot_config_destroy(&args->snapshot);
}

/* In the order of net_fds, then that of devices without a path. */
static int take_override_fds(struct api_request *request, struct config_overrides *overrides,
			     struct error *err)
{
	unsigned int wanted = 0, next = 0;

	for (unsigned int i = 0; i < overrides->net_fds_count; i++)
		wanted += overrides->net_fds[i].fd_count;
	for (unsigned int i = 0; i < overrides->device_count; i++)
		wanted += !overrides->devices[i].path;
	if (wanted != request->fd_count)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, EINVAL,
			"net_fds and devices without a \"path\" ask for %u descriptors, "
			"%u came with the request",
			wanted, request->fd_count);
	for (unsigned int i = 0; i < overrides->net_fds_count; i++)
		for (unsigned int k = 0; k < overrides->net_fds[i].fd_count; k++)
			overrides->net_fds[i].fds[k] = take_fd(&request->fds[next++]);
	for (unsigned int i = 0; i < overrides->device_count; i++)
		if (!overrides->devices[i].path)
			overrides->devices[i].fd = take_fd(&request->fds[next++]);
	return 0;
}

int api_parse_restore(struct api_request *request, const json_t *body, union api_arguments *args,
		      struct error *err)
{
	int r = restore_config_from_json(&args->restore, body, err);

	if (r)
		return r;
	r = take_override_fds(request, &args->restore.overrides, err);
	if (r)
		restore_config_destroy(&args->restore);
	return r;
}

void api_release_restore(union api_arguments *args)
{
	restore_config_destroy(&args->restore);
}

int api_parse_send_migration(struct api_request *request, const json_t *body,
			     union api_arguments *args, struct error *err)
{
	return send_migration_config_from_json(&args->send_migration, body, err);
}

void api_release_send_migration(union api_arguments *args)
{
	send_migration_config_destroy(&args->send_migration);
}

int api_parse_receive_migration(struct api_request *request, const json_t *body,
				union api_arguments *args, struct error *err)
{
	int r = receive_migration_config_from_json(&args->receive_migration, body, err);

	if (r)
		return r;
	r = take_override_fds(request, &args->receive_migration.overrides, err);
	if (r)
		receive_migration_config_destroy(&args->receive_migration);
	return r;
}

void api_release_receive_migration(union api_arguments *args)
{
	receive_migration_config_destroy(&args->receive_migration);
}

int api_parse_live_update(struct api_request *request, const json_t *body,
			  union api_arguments *args, struct error *err)
{
	return live_update_config_from_json(&args->live_update, body, err);
}

void api_release_live_update(union api_arguments *args)
{
	live_update_config_destroy(&args->live_update);
}
