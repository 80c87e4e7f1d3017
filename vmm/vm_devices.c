/* SPDX-License-Identifier: Apache-2.0 */
/* Devices that come and go while the VM exists: configuration and machine together. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vmm/vm_private.h"

/* A kind of device of which a VM can have several: an array in its configuration. */
struct kind {
	const char *name;    /* of ids: "_<name><n>" */
	size_t array, count; /* offsets in struct vm_config */
	size_t size;
	int (*validate)(const void *config, struct error *err);
	int (*admit)(const struct vm_config *vm, const void *config, struct error *err);
	int (*plug)(struct machine *machine, const void *config, struct vm_device_place *place,
		    struct error *err);
	void (*destroy)(void *config);
};

#define KIND(type, noun, array_, count_) \
	static int type##_validate(const void *config, struct error *err) \
	{ \
		return type##_config_validate(config, err); \
	} \
	static int type##_admit(const struct vm_config *vm, const void *config, struct error *err) \
	{ \
		return vm_config_admit_##type(vm, config, err); \
	} \
	static int type##_plug(struct machine *machine, const void *config, \
			       struct vm_device_place *place, struct error *err) \
	{ \
		return machine_add_##type(machine, config, place, err); \
	} \
	static void type##_destroy(void *config) \
	{ \
		type##_config_destroy(config); \
	} \
	_Static_assert(offsetof(struct type##_config, id) == 0, "the id comes first"); \
	static const struct kind type##_kind = { \
		.name = (noun), \
		.array = offsetof(struct vm_config, array_), \
		.count = offsetof(struct vm_config, count_), \
		.size = sizeof(struct type##_config), \
		.validate = type##_validate, \
		.admit = type##_admit, \
		.plug = type##_plug, \
		.destroy = type##_destroy, \
	}

KIND(disk, "disk", disks, disk_count);
KIND(net, "net", nets, net_count);
KIND(device, "vfio", devices, device_count);
KIND(user_device, "vfio_user", user_devices, user_device_count);

static const struct kind *const kinds[] = { &disk_kind, &net_kind, &device_kind,
					    &user_device_kind };

static char **array_of(const struct kind *kind, const struct vm_config *config)
{
	return (char **)((char *)config + kind->array);
}

static unsigned int *count_of(const struct kind *kind, const struct vm_config *config)
{
	return (unsigned int *)((char *)config + kind->count);
}

static char *id_of(const struct kind *kind, const struct vm_config *config, unsigned int i)
{
	return *(char **)(*array_of(kind, config) + i * kind->size);
}

static bool id_taken(const struct vm *vm, const char *id)
{
	static const char *const fixed[] = { "_console", "_rng", "_balloon0" };
	const struct vm_config *config = &vm->config;

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (!strcmp(fixed[i], id))
			return true;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
		for (unsigned int i = 0; i < *count_of(kinds[k], config); i++)
			if (!strcmp(id_of(kinds[k], config, i), id))
				return true;
	return config->vsock && !strcmp(config->vsock->id, id);
}

/* Gives a device without an id the first free "_<kind><n>". */
static int settle_id(struct vm *vm, char **id, const char *kind, struct error *err)
{
	char name[32];

	if (*id && id_taken(vm, *id))
		return error_set_kind(err, ERROR_CONFLICT, EEXIST, "device id %s exists already",
				      *id);
	for (unsigned int n = 0; !*id; n++) {
		snprintf(name, sizeof(name), "_%s%u", kind, n);
		if (id_taken(vm, name))
			continue;
		*id = strdup(name);
		if (!*id)
			return error_set_errno(err, ENOMEM, "add device");
	}
	return 0;
}

static void announce(struct vm *vm, const struct vm_device_place *place)
{
	event_monitor_emit(vm->options.events, "vm", "device-added", "id", place->id, NULL);
}

/* Makes room for one more element at the end of an array; its count stays. */
static int grow(struct vm *vm, const struct kind *kind, struct error *err)
{
	char **array = array_of(kind, &vm->config), *grown;

	pthread_mutex_lock(&vm->lock);
	grown = realloc(*array, (*count_of(kind, &vm->config) + 1) * kind->size);
	if (grown)
		*array = grown;
	pthread_mutex_unlock(&vm->lock);
	return grown ? 0 : error_set_errno(err, ENOMEM, "add device");
}

static void suggest(struct error *err, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void suggest(struct error *err, const char *format, ...)
{
	size_t used = strlen(err->message);
	va_list args;

	va_start(args, format);
	vsnprintf(err->message + used, sizeof(err->message) - used, format, args);
	va_end(args);
}

void vm_suggest_rule(const struct vm *vm, const char *access, struct error *err)
{
	if (vm->options.landlocked && err->code == -EACCES)
		suggest(err,
			"; with --landlock that needs --landlock-rules path=...,access=%s at the "
			"start",
			access);
}

/* A device that could not be opened for reasons of the sandbox: what would do. */
static void suggest_remedy(const struct vm *vm, const struct kind *kind, const void *config,
			   struct error *err)
{
	const struct device_config *device = config;
	const struct user_device_config *user = config;
	const struct disk_config *disk = config;
	bool locked = vm->options.landlocked && err->code == -EACCES;

	if (kind == &device_kind && locked)
		suggest(err,
			"; with --landlock a device that comes later needs --landlock-rules "
			"path=%s,access=r path=/dev/vfio,access=rw at the start",
			device->path ? device->path : "/sys/devices");
	else if (kind == &device_kind && vm->options.jailed && err->code == -ENOENT)
		suggest(err, "; a jail has the devices of the command line, others come as opened "
			     "descriptors (SCM_RIGHTS)");
	else if (locked && (kind == &disk_kind || kind == &user_device_kind))
		suggest(err,
			"; with --landlock what comes later needs --landlock-rules "
			"path=%s,access=rw at the start",
			kind == &disk_kind ? disk->path : user->socket);
}

static int add(struct vm *vm, const struct kind *kind, void *config, struct vm_device_place *place,
	       struct error *err)
{
	int r;

	if (!vm->created)
		return vm_not_created(err);
	r = settle_id(vm, config, kind->name, err);
	if (!r)
		r = kind->validate(config, err);
	if (!r)
		r = kind->admit(&vm->config, config, err);
	if (!r)
		r = grow(vm, kind, err);
	if (r)
		return r;
	place->cold = !vm->machine;
	snprintf(place->id, sizeof(place->id), "%s", *(char **)config);
	if (vm->machine)
		r = kind->plug(vm->machine, config, place, err);
	if (r) {
		suggest_remedy(vm, kind, config, err);
		return r;
	}
	pthread_mutex_lock(&vm->lock);
	memcpy(*array_of(kind, &vm->config) + (*count_of(kind, &vm->config))++ * kind->size, config,
	       kind->size);
	pthread_mutex_unlock(&vm->lock);
	memset(config, 0, kind->size);
	announce(vm, place);
	return 0;
}

int vm_add_disk(void *vm, struct disk_config *disk, struct vm_device_place *place,
		struct error *err)
{
	return add(vm, &disk_kind, disk, place, err);
}

int vm_add_net(void *vm, struct net_config *net, struct vm_device_place *place, struct error *err)
{
	return add(vm, &net_kind, net, place, err);
}

int vm_add_device(void *vm, struct device_config *device, struct vm_device_place *place,
		  struct error *err)
{
	return add(vm, &device_kind, device, place, err);
}

int vm_add_user_device(void *vm, struct user_device_config *device, struct vm_device_place *place,
		       struct error *err)
{
	return add(vm, &user_device_kind, device, place, err);
}

int vm_add_vsock(void *opaque, struct vsock_config *vsock, struct vm_device_place *place,
		 struct error *err)
{
	struct vm *vm = opaque;
	struct vsock_config *copy;
	int r = vm->created ? 0 : vm_not_created(err);

	if (!r && vm->config.vsock)
		return error_set_kind(err, ERROR_CONFLICT, EEXIST,
				      "the VM has a vsock device already: %s",
				      vm->config.vsock->id);
	if (!r)
		r = settle_id(vm, &vsock->id, "vsock", err);
	if (!r)
		r = vsock_config_validate(vsock, err);
	if (!r)
		r = vm_config_admit_vsock(&vm->config, vsock, err);
	if (r)
		return r;
	copy = calloc(1, sizeof(*copy));
	if (!copy)
		return error_set_errno(err, ENOMEM, "add vsock");
	place->cold = !vm->machine;
	snprintf(place->id, sizeof(place->id), "%s", vsock->id);
	if (vm->machine)
		r = machine_add_vsock(vm->machine, vsock, place, err);
	if (r) {
		free(copy);
		return r;
	}
	*copy = *vsock;
	*vsock = (struct vsock_config){ 0 };
	pthread_mutex_lock(&vm->lock);
	vm->config.vsock = copy;
	pthread_mutex_unlock(&vm->lock);
	announce(vm, place);
	return 0;
}

static bool forget(struct vm_config *config, const struct kind *kind, const char *id)
{
	unsigned int *count = count_of(kind, config);

	for (unsigned int i = 0; i < *count; i++) {
		char *at = *array_of(kind, config) + i * kind->size;

		if (strcmp(id_of(kind, config, i), id))
			continue;
		kind->destroy(at);
		memmove(at, at + kind->size, (--*count - i) * kind->size);
		return true;
	}
	return false;
}

int vm_forget_device(struct vm *vm, const char *id)
{
	struct vm_config *config = &vm->config;
	bool found = false;

	pthread_mutex_lock(&vm->lock);
	for (size_t k = 0; !found && k < ARRAY_SIZE(kinds); k++)
		found = forget(config, kinds[k], id);
	if (!found && config->vsock && !strcmp(config->vsock->id, id)) {
		vsock_config_destroy(config->vsock);
		free(config->vsock);
		config->vsock = NULL;
		found = true;
	}
	pthread_mutex_unlock(&vm->lock);
	return found ? 0 : -ENOENT;
}

int vm_remove_device(void *opaque, const char *id, struct error *err)
{
	struct vm *vm = opaque;

	if (!vm->created)
		return vm_not_created(err);
	if (vm->machine)
		return machine_request_removal(vm->machine, id, err);
	if (vm_forget_device(vm, id))
		return error_set_kind(err, ERROR_NOT_FOUND, ENOENT, "device %s does not exist", id);
	event_monitor_emit(vm->options.events, "vm", "device-removed", "id", id, NULL);
	return 0;
}

int vm_resize_balloon(void *opaque, uint64_t size, struct error *err)
{
	struct vm *vm = opaque;
	int r;

	if (!vm->created)
		return vm_not_created(err);
	if (!vm->machine)
		return vm_wrong_state(vm, "resize the balloon of", err);
	r = machine_resize_balloon(vm->machine, size, err);
	if (!r && vm->config.balloon) {
		pthread_mutex_lock(&vm->lock);
		vm->config.balloon->size = size;
		pthread_mutex_unlock(&vm->lock);
	}
	return r;
}

int vm_resize_disk(void *opaque, const char *id, uint64_t size, struct error *err)
{
	struct vm *vm = opaque;
	const struct disk_config *disk = NULL;
	struct stat st;

	if (!vm->created)
		return vm_not_created(err);
	if (!vm->machine)
		return vm_wrong_state(vm, "resize a disk of", err);
	for (unsigned int i = 0; i < vm->config.disk_count; i++)
		if (!strcmp(vm->config.disks[i].id, id))
			disk = &vm->config.disks[i];
	if (!disk)
		return error_set_kind(err, ERROR_NOT_FOUND, ENOENT, "disk %s does not exist", id);
	if (stat(disk->path, &st))
		return error_set_errno(err, errno, "disk %s: %s", id, disk->path);
	if (size < 512 || size % 512)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "disk %s: size %llu is no multiple of 512", id,
				      (unsigned long long)size);
	if (S_ISREG(st.st_mode) && truncate(disk->path, (off_t)size))
		return error_set_errno(err, errno, "disk %s: resize %s to %llu", id, disk->path,
				       (unsigned long long)size);
	return machine_resize_disk(vm->machine, id, err);
}
