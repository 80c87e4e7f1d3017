/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/vm_migration.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/config_json.h"
#include "base/cleanup.h"
#include "vmm/vm_private.h"
#include "vmm/vm_update_private.h"

static void cleanup_json(json_t **json)
{
	json_decref(*json);
}
#define _cleanup_json_ __attribute__((cleanup(cleanup_json)))

/* A VM that is saved or sent */

static struct guest_memory *source_memory(void *opaque)
{
	const struct vm *vm = opaque;

	return machine_memory(vm->machine);
}

static int source_pause(void *opaque, struct error *err)
{
	const struct vm *vm = opaque;

	return machine_pause(vm->machine, err);
}

static int source_resume(void *opaque, struct error *err)
{
	const struct vm *vm = opaque;

	return machine_resume(vm->machine, err);
}

static bool source_running(void *opaque)
{
	const struct vm *vm = opaque;

	return machine_running(vm->machine);
}

static int source_save(void *opaque, struct state_writer *writer, struct error *err)
{
	const struct vm *vm = opaque;

	return machine_save(vm->machine, writer, err);
}

static char *source_config(void *opaque, struct error *err)
{
	const struct vm *vm = opaque;
	_cleanup_json_ json_t *config = vm_config_to_json(&vm->config);
	json_t *layout = machine_layout(vm->machine, err);
	char *text = NULL;

	if (!layout)
		return NULL;
	if (config && !json_object_set_new(config, "machine", layout))
		text = json_dumps(config, JSON_INDENT(2));
	if (!text)
		error_set_errno(err, ENOMEM, "save configuration");
	return text;
}

static int source_save_cpu(void *opaque, struct state_writer *writer, struct error *err)
{
	const struct vm *vm = opaque;

	return machine_save_cpu(vm->machine, writer, err);
}

static int source_dirty_sources(void *opaque, struct dirty_source **sources, unsigned int max,
				struct error *err)
{
	const struct vm *vm = opaque;

	return machine_dirty_sources(vm->machine, sources, max, err);
}

static int source_devices(void *opaque, struct migratable **devices, unsigned int max,
			  struct error *err)
{
	const struct vm *vm = opaque;

	return machine_movables(vm->machine, devices, max, err);
}

static int source_check_postcopy(void *opaque, struct error *err)
{
	const struct vm *vm = opaque;

	return machine_check_postcopy(vm->machine, err);
}

static int source_throttle(void *opaque, unsigned int percent, struct error *err)
{
	const struct vm *vm = opaque;

	return machine_throttle(vm->machine, percent, err);
}

static int source_release_locks(void *opaque, struct error *err)
{
	const struct vm *vm = opaque;

	return machine_unlock_disks(vm->machine, err);
}

static int source_take_locks(void *opaque, struct error *err)
{
	const struct vm *vm = opaque;

	return machine_lock_disks(vm->machine, err);
}

static void source_announce(void *opaque)
{
	const struct vm *vm = opaque;

	machine_announce(vm->machine);
}

struct migration_vm vm_migration_source(struct vm *vm)
{
	static const struct migration_vm_ops ops = {
		.memory = source_memory,
		.pause = source_pause,
		.resume = source_resume,
		.running = source_running,
		.save = source_save,
		.config = source_config,
		.save_cpu = source_save_cpu,
		.dirty_sources = source_dirty_sources,
		.devices = source_devices,
		.check_postcopy = source_check_postcopy,
		.throttle = source_throttle,
		.release_locks = source_release_locks,
		.take_locks = source_take_locks,
		.announce = source_announce,
	};

	return (struct migration_vm){ .ops = &ops, .opaque = vm };
}

void vm_migration_settle(struct vm *vm)
{
	enum vm_state state = machine_running(vm->machine) ? VM_RUNNING : VM_PAUSED;

	if (state == vm->state)
		return;
	vm_set_state(vm, state);
	vm_emit(vm, state == VM_RUNNING ? "resumed" : "paused");
}

/* A VM that comes */

static const bool no_prefault;

static int target_check_cpu(void *opaque, const struct state_node *cpu, struct error *err)
{
	struct vm_target *target = opaque;

	return machine_check_cpu(cpu, target->kvm, err);
}

static int target_expect_postcopy(void *opaque, struct error *err)
{
	struct vm_target *target = opaque;

	(void)err;
	target->no_devices = "its DMA cannot wait for pages that are still to come: migrate by "
			     "precopy";
	/* It would be there, and dropped again. */
	target->prefault = &no_prefault;
	return 0;
}

/* The text, as configuration and layout. *layout is a new reference. */
static int read_config(const char *text, struct vm_config *config, json_t **layout,
		       struct error *err)
{
	json_error_t why;
	_cleanup_json_ json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &why);
	json_t *machine;
	int r;

	if (!json)
		return error_set(err, EINVAL, "configuration: line %d: %s", why.line, why.text);
	machine = json_incref(json_object_get(json, "machine"));
	json_object_del(json, "machine");
	if (!json_is_object(machine)) {
		json_decref(machine);
		return error_set(err, EINVAL, "configuration: there is no object \"machine\"");
	}
	r = vm_config_from_json(config, json, err);
	if (r)
		json_decref(machine);
	else
		*layout = machine;
	return r ? error_prefix(err, "configuration") : 0;
}

static int refuse_devices(const struct vm_config *config, const char *why, struct error *err)
{
	if (config->device_count)
		return error_set(err, EOPNOTSUPP, "device %s: %s", config->devices[0].id, why);
	if (config->user_device_count)
		return error_set(err, EOPNOTSUPP, "device %s: %s", config->user_devices[0].id, why);
	return 0;
}

/* The descriptors of the configuration were another process's. */
static int check_descriptors(const struct vm_config *config, struct error *err)
{
	for (unsigned int i = 0; i < config->net_count; i++)
		for (unsigned int n = 0; n < config->nets[i].fd_count; n++)
			if (config->nets[i].fds[n] < 0)
				return error_set_kind(
					err, ERROR_BAD_REQUEST, EINVAL,
					"device %s had its tap as descriptors: give new ones "
					"(net_fds), or a tap's name (net)",
					config->nets[i].id);
	for (unsigned int i = 0; i < config->device_count; i++)
		if (!config->devices[i].path && config->devices[i].fd < 0)
			return error_set_kind(
				err, ERROR_BAD_REQUEST, EINVAL,
				"device %s was given as a descriptor: give a new one, or a path "
				"(devices)",
				config->devices[i].id);
	return 0;
}

static void take_descriptors(struct kept *kept, struct vm_config *config)
{
	for (unsigned int i = 0; i < config->net_count; i++)
		for (unsigned int n = 0; n < config->nets[i].fd_count; n++)
			config->nets[i].fds[n] =
				kept_take(kept, UPDATE_NET_FD, config->nets[i].id, n);
	for (unsigned int i = 0; i < config->device_count; i++)
		if (!config->devices[i].path)
			config->devices[i].fd =
				kept_take(kept, UPDATE_DEVICE_FD, config->devices[i].id);
}

/* Whether a process is confined was decided at its start, not by the VM that comes. */
static void settle_landlock(struct vm *vm, struct vm_config *config)
{
	if (config->landlock_enable && !vm->options.landlocked)
		log_warn(vm->options.log,
			 "the VM was confined by Landlock where it comes from; this "
			 "process is not: start ferry with --landlock for that");
	config->landlock_enable = vm->options.landlocked;
}

static int settle_config(struct vm_target *target, struct vm_config *config, struct error *err)
{
	int r = 0;

	settle_landlock(target->vm, config);
	if (target->overrides)
		r = config_overrides_apply(target->overrides, config, err);
	if (!r && target->kept)
		take_descriptors(target->kept, config);
	if (!r)
		r = check_descriptors(config, err);
	if (!r && target->no_devices)
		r = refuse_devices(config, target->no_devices, err);
	if (target->prefault)
		config->memory.prefault = *target->prefault;
	return r;
}

static int target_create(void *opaque, const char *text, struct error *err)
{
	struct vm_target *target = opaque;
	_cleanup_json_ json_t *layout = NULL;
	struct machine_incoming incoming = {
		.memory = target->memory,
		.kvm = target->kvm,
		.disks_unlocked = !target->lock_disks,
		.kept = target->kept,
	};
	struct vm_config config = { 0 };
	int r = read_config(text, &config, &layout, err);

	if (r)
		return r;
	incoming.layout = layout;
	r = settle_config(target, &config, err);
	if (!r)
		r = vm_adopt_config(target->vm, &config, err);
	if (r) {
		vm_config_destroy(&config);
		return r;
	}
	r = vm_make_machine(target->vm, &incoming, err);
	if (r) {
		vm_discard(target->vm);
		return r;
	}
	vm_set_state(target->vm, VM_PAUSED);
	target->memory = NULL;
	target->created = true;
	return 0;
}

/* The descriptors stay the caller's unless all are taken. */
static int add_copy(struct guest_memory *memory, const struct guest_memory_region *region,
		    struct error *err)
{
	_cleanup_close_ int fd = fcntl(region->memfd, F_DUPFD_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return error_set_errno(err, errno, "adopt guest RAM");
	r = guest_memory_add(memory, region->gpa, region->size, fd, region->offset, err);
	if (!r)
		take_fd(&fd);
	return r;
}

static int target_adopt_memory(void *opaque, const struct guest_memory_region *regions,
			       unsigned int count, struct error *err)
{
	struct vm_target *target = opaque;
	struct guest_memory *memory = guest_memory_new_empty(err);
	int r = memory ? 0 : err->code;

	for (unsigned int i = 0; !r && i < count; i++)
		r = add_copy(memory, &regions[i], err);
	if (r) {
		guest_memory_free(memory);
		return r;
	}
	for (unsigned int i = 0; i < count; i++)
		close(regions[i].memfd);
	target->memory = memory;
	return 0;
}

static struct guest_memory *target_memory(void *opaque)
{
	const struct vm_target *target = opaque;

	return machine_memory(target->vm->machine);
}

static int target_devices(void *opaque, struct migratable **devices, unsigned int max,
			  struct error *err)
{
	const struct vm_target *target = opaque;

	return machine_movables(target->vm->machine, devices, max, err);
}

static int target_load(void *opaque, const struct state_node *node, struct error *err)
{
	const struct vm_target *target = opaque;

	return machine_load(target->vm->machine, node, err);
}

static int target_take_locks(void *opaque, struct error *err)
{
	const struct vm_target *target = opaque;

	return machine_lock_disks(target->vm->machine, err);
}

static int target_resume(void *opaque, struct error *err)
{
	const struct vm_target *target = opaque;
	int r = machine_resume(target->vm->machine, err);

	if (!r)
		vm_set_state(target->vm, VM_RUNNING);
	return r;
}

static void target_destroy(void *opaque)
{
	struct vm_target *target = opaque;

	if (target->created)
		vm_discard(target->vm);
	target->created = false;
	guest_memory_free(target->memory);
	target->memory = NULL;
}

/* Whoever waits for a page, in the kernel, can be ended with the process alone. */
static void target_lost(void *opaque, const struct error *why)
{
	const struct vm_target *target = opaque;

	log_error(target->vm->options.log, "the process ends", why);
	event_monitor_emit(target->vm->options.events, "vm", "lost", "reason", why->message, NULL);
	_exit(EXIT_FAILURE);
}

static void target_announce(void *opaque)
{
	const struct vm_target *target = opaque;

	machine_announce(target->vm->machine);
}

struct migration_target vm_migration_target(struct vm_target *target)
{
	static const struct migration_target_ops ops = {
		.check_cpu = target_check_cpu,
		.expect_postcopy = target_expect_postcopy,
		.adopt_memory = target_adopt_memory,
		.create = target_create,
		.memory = target_memory,
		.devices = target_devices,
		.load = target_load,
		.take_locks = target_take_locks,
		.resume = target_resume,
		.destroy = target_destroy,
		.lost = target_lost,
		.announce = target_announce,
	};

	return (struct migration_target){ .ops = &ops, .opaque = target };
}
