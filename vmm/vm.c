/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/vm.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/config_json.h"
#include "base/program_pages.h"
#include "vmm/vm_private.h"
#include "vmm/vm_update_private.h"

#define SETTLE_NS 200000000ULL /* from the first run on */

/* One thing that the guest did, on its way from a vCPU thread to the worker. */
struct guest_event {
	struct vm *vm;
	unsigned int generation;
	enum {
		GUEST_RESET,
		GUEST_SHUTDOWN,
		GUEST_FAILED,
		GUEST_EJECTED,
		DEVICE_LOST,
		GUEST_OVERTAKEN
	} kind;
	char text[256];
};

/* Most of the code that makes a VM, and lets a guest set it up, is not run again. */
static void settled(void *opaque)
{
	program_pages_release();
}

static void begin_to_settle(void *opaque)
{
	struct vm *vm = opaque;

	loop_timer_set(vm->settle, SETTLE_NS);
}

struct vm *vm_new(const struct vm_options *options, struct error *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	if (!vm) {
		error_set_errno(err, ENOMEM, "create VM");
		return NULL;
	}
	vm->settle = loop_timer_new(options->loop, settled, vm, err);
	if (!vm->settle) {
		free(vm);
		return NULL;
	}
	vm->options = *options;
	pthread_mutex_init(&vm->lock, NULL);
	vm_work_init(&vm->work);
	return vm;
}

void vm_set_server(struct vm *vm, struct api_server *server)
{
	vm->server = server;
}

void vm_emit(struct vm *vm, const char *event)
{
	event_monitor_emit(vm->options.events, "vm", event, NULL);
}

void vm_set_state(struct vm *vm, enum vm_state state)
{
	bool first = state == VM_RUNNING && !vm->has_run;

	pthread_mutex_lock(&vm->lock);
	vm->state = state;
	pthread_mutex_unlock(&vm->lock);
	if (!first)
		return;
	vm->has_run = true;
	loop_post(vm->options.loop, begin_to_settle, vm);
}

static struct machine *set_machine(struct vm *vm, struct machine *machine)
{
	struct machine *old;

	pthread_mutex_lock(&vm->lock);
	old = vm->machine;
	vm->machine = machine;
	pthread_mutex_unlock(&vm->lock);
	return old;
}

int vm_not_created(struct error *err)
{
	return error_set_kind(err, ERROR_NOT_FOUND, ENOENT,
			      "no VM is created; vm.create makes one");
}

const char *vm_state_name(enum vm_state state)
{
	static const char *const names[] = {
		[VM_CREATED] = "Created",	[VM_RUNNING] = "Running",
		[VM_SHUTDOWN] = "Shutdown",	[VM_PAUSED] = "Paused",
		[VM_BREAKPOINT] = "BreakPoint",
	};

	return names[state];
}

int vm_wrong_state(struct vm *vm, const char *what, struct error *err)
{
	return error_set_kind(err, ERROR_WRONG_STATE, EBUSY, "cannot %s a VM in state %s", what,
			      vm_state_name(vm->state));
}

int vm_is_away(struct error *err)
{
	return error_set_kind(err, ERROR_WRONG_STATE, EBUSY,
			      "the VM has moved to its migration's destination; what is left of it "
			      "here can be deleted");
}

static bool running_or_paused(const struct vm *vm)
{
	return vm->state == VM_RUNNING || vm->state == VM_PAUSED;
}

/* What the guest does, from its vCPU threads to the worker */

static int reboot_machine(struct vm *vm, struct error *err);
static int stop_machine(struct vm *vm);

static int serve_guest_event(void *opaque, struct error *err)
{
	struct guest_event *event = opaque;
	struct vm *vm = event->vm;
	int r = 0;

	/* It may have been overtaken by a shutdown, a reboot or a delete. */
	if (!vm->machine || event->generation != vm->generation) {
		event->kind = GUEST_OVERTAKEN;
		return 0;
	}
	switch (event->kind) {
	case GUEST_RESET: r = reboot_machine(vm, err); break;
	case GUEST_SHUTDOWN: stop_machine(vm); break;
	case GUEST_FAILED: stop_machine(vm); break;
	case GUEST_EJECTED:
		vm_forget_device(vm, event->text);
		machine_finish_removal(vm->machine, event->text);
		event_monitor_emit(vm->options.events, "vm", "device-removed", "id", event->text,
				   NULL);
		break;
	case DEVICE_LOST:
		/* The guest is asked to let go of it; what it still does with it fails. */
		if (machine_request_removal(vm->machine, event->text, NULL))
			log_warn(vm->options.log, "device %s: cannot be unplugged", event->text);
		break;
	case GUEST_OVERTAKEN: break;
	}
	return r;
}

static void guest_event_done(void *opaque, int result, const struct error *err)
{
	struct guest_event *event = opaque;
	struct vm *vm = event->vm;

	if (event->kind == GUEST_SHUTDOWN) {
		vm->options.finished(vm->options.opaque, 0);
	} else if (event->kind == GUEST_FAILED) {
		vm->options.finished(vm->options.opaque, 1);
	} else if (result && result != -ECANCELED) {
		/* -ECANCELED: the process is ending anyway. */
		log_error(vm->options.log, "reboot", err);
		vm->options.finished(vm->options.opaque, 1);
	}
	free(event);
}

static void queue_guest_event(void *opaque)
{
	static const char *const ends[] = {
		[GUEST_RESET] = "the guest was reset meanwhile",
		[GUEST_SHUTDOWN] = "the guest shut down meanwhile",
		[GUEST_FAILED] = "the VM failed meanwhile",
		[GUEST_OVERTAKEN] = NULL,
	};
	struct guest_event *event = opaque;

	/* It waits in line behind a migration, which would move a guest that has ended. */
	if (ends[event->kind])
		vm_work_guest_ended(&event->vm->work, event->generation, ends[event->kind]);
	if (!event->vm->server ||
	    api_server_work(event->vm->server, serve_guest_event, guest_event_done, event))
		free(event);
}

static void post_guest_event(struct vm *vm, int kind, const char *text)
{
	struct guest_event *event = calloc(1, sizeof(*event));

	if (!event)
		return;
	event->vm = vm;
	event->generation = vm->generation;
	event->kind = kind;
	snprintf(event->text, sizeof(event->text), "%s", text);
	if (loop_post(vm->options.loop, queue_guest_event, event))
		free(event);
}

static void on_request(void *opaque, enum machine_request request, const char *detail)
{
	struct vm *vm = opaque;

	switch (request) {
	case MACHINE_RESET:
		log_info(vm->options.log, "reset: %s", detail);
		event_monitor_emit(vm->options.events, "vm", "reset", "reason", detail, NULL);
		post_guest_event(vm, GUEST_RESET, detail);
		break;
	case MACHINE_SHUTDOWN:
		log_info(vm->options.log, "shutdown: %s", detail);
		event_monitor_emit(vm->options.events, "guest", "shutdown", NULL);
		post_guest_event(vm, GUEST_SHUTDOWN, detail);
		break;
	case MACHINE_PANICKED:
		log_warn(vm->options.log, "the guest panicked: %s", detail);
		event_monitor_emit(vm->options.events, "guest", "panic", "detail", detail, NULL);
		break;
	case MACHINE_FAILED:
		log_err(vm->options.log, "the VM is stopped: %s", detail);
		event_monitor_emit(vm->options.events, "vm", "failed", "reason", detail, NULL);
		post_guest_event(vm, GUEST_FAILED, detail);
		break;
	}
}

void vm_fail(struct vm *vm, const char *reason)
{
	on_request(vm, MACHINE_FAILED, reason);
}

static void on_ejected(void *opaque, const char *id)
{
	post_guest_event(opaque, GUEST_EJECTED, id);
}

static void on_device_lost(void *opaque, const char *id, const char *reason)
{
	struct vm *vm = opaque;

	log_err(vm->options.log, "device %s is lost: %s", id, reason);
	event_monitor_emit(vm->options.events, "vm", "device-lost", "id", id, "reason", reason,
			   NULL);
	post_guest_event(vm, DEVICE_LOST, id);
}

/* Machine */

static void close_consoles(struct vm *vm)
{
	console_close(vm->serial);
	console_close(vm->console);
	console_close(vm->debug_console);
	vm->serial = vm->console = vm->debug_console = NULL;
}

/* kept: not NULL, it goes on from another process. */
static int open_console(struct vm *vm, struct console_config *config, struct console **console,
			struct kept *kept, const char *name, struct error *err)
{
	/* Null is a device whose output goes nowhere, Off is no device. */
	if (config->mode == CONSOLE_OFF || *console)
		return 0;
	*console = kept ? console_take(config, kept, name, vm->options.loop, vm->options.log, err)
			: console_open(config, vm->options.loop, vm->options.log, err);
	return *console ? 0 : error_prefix(err, "%s", name + 1);
}

int vm_make_machine(struct vm *vm, const struct machine_incoming *incoming, struct error *err)
{
	struct machine_env env = {
		.loop = vm->options.loop,
		.threads = vm->options.threads,
		.log = vm->options.log,
		.generation_id = vm->generation_id,
		.given = &vm->given,
		.plugins = vm->options.plugins,
		.callbacks = { .request = on_request,
			       .device_ejected = on_ejected,
			       .device_lost = on_device_lost,
			       .opaque = vm },
	};
	struct kept *kept = incoming ? incoming->kept : NULL;
	struct machine *machine;
	int r;

	r = open_console(vm, &vm->config.serial, &vm->serial, kept, UPDATE_SERIAL, err);
	if (!r)
		r = open_console(vm, &vm->config.console, &vm->console, kept, UPDATE_CONSOLE, err);
	if (!r)
		r = open_console(vm, &vm->config.debug_console, &vm->debug_console, kept,
				 UPDATE_DEBUG_CONSOLE, err);
	if (r)
		return r;
	env.serial = vm->serial;
	env.console = vm->console;
	env.debug_console = vm->debug_console;
	vm->generation++;
	vm->away = VM_HERE;
	machine = machine_new(&vm->config, &env, incoming, err);
	if (!machine)
		return err->code;
	set_machine(vm, machine);
	return 0;
}

void vm_drop_machine(struct vm *vm)
{
	vm_forget_snapshots(vm);
	machine_free(set_machine(vm, NULL));
}

static int start_machine(struct vm *vm, struct error *err)
{
	int r = vm_make_machine(vm, NULL, err);

	if (r)
		return r;
	r = machine_resume(vm->machine, err);
	if (r)
		vm_drop_machine(vm);
	return r;
}

static int stop_machine(struct vm *vm)
{
	vm_set_state(vm, VM_SHUTDOWN);
	vm_drop_machine(vm);
	return 0;
}

static int reboot_machine(struct vm *vm, struct error *err)
{
	int r;

	vm_emit(vm, "rebooting");
	vm_drop_machine(vm);
	r = start_machine(vm, err);
	vm_set_state(vm, r ? VM_SHUTDOWN : VM_RUNNING);
	if (!r)
		vm_emit(vm, "rebooted");
	return r;
}

/* Operations */

int vm_adopt_config(struct vm *vm, struct vm_config *config, struct error *err)
{
	int r;

	if (vm->created)
		return error_set_kind(err, ERROR_CONFLICT, EEXIST,
				      "a VM is created already; vm.delete removes it");
	/* The rules come from the configuration, and have to be there before the process
	 * opens anything: it is too late for them here. */
	if (config->landlock_enable && !vm->options.landlocked)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, EOPNOTSUPP,
			"landlock_enable: start ferry with --landlock and the VM on its "
			"command line; a VM made by the API cannot confine it afterwards");
	r = vm_config_validate(config, err);
	if (r)
		return r;
	pthread_mutex_lock(&vm->lock);
	vm->config = *config;
	*config = (struct vm_config){ 0 };
	vm->created = true;
	vm->state = VM_CREATED;
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

static int op_create(void *opaque, struct vm_config *config, struct error *err)
{
	int r = vm_adopt_config(opaque, config, err);

	if (!r)
		vm_emit(opaque, "created");
	return r;
}

static int op_boot(void *opaque, struct error *err)
{
	struct vm *vm = opaque;
	int r;

	if (!vm->created)
		return vm_not_created(err);
	if (vm->state != VM_CREATED && vm->state != VM_SHUTDOWN)
		return vm_wrong_state(vm, "boot", err);
	vm_emit(vm, "booting");
	r = start_machine(vm, err);
	if (r) {
		if (vm->state == VM_CREATED)
			close_consoles(vm);
		return r;
	}
	vm_set_state(vm, VM_RUNNING);
	vm_emit(vm, "booted");
	return 0;
}

static int op_shutdown(void *opaque, struct error *err)
{
	struct vm *vm = opaque;

	if (!vm->created)
		return vm_not_created(err);
	if (!running_or_paused(vm))
		return vm_wrong_state(vm, "shut down", err);
	stop_machine(vm);
	vm_emit(vm, "shutdown");
	return 0;
}

void vm_discard(struct vm *vm)
{
	if (vm->machine)
		stop_machine(vm);
	close_consoles(vm);
	vfio_given_clear(&vm->given);
	pthread_mutex_lock(&vm->lock);
	vm_config_destroy(&vm->config);
	vm->created = false;
	memset(vm->generation_id, 0, sizeof(vm->generation_id));
	pthread_mutex_unlock(&vm->lock);
}

static int op_delete(void *opaque, struct error *err)
{
	struct vm *vm = opaque;

	if (!vm->created)
		return vm_not_created(err);
	vm_discard(vm);
	vm_emit(vm, "deleted");
	return 0;
}

static int op_reboot(void *opaque, struct error *err)
{
	struct vm *vm = opaque;

	if (!vm->created)
		return vm_not_created(err);
	if (!running_or_paused(vm))
		return vm_wrong_state(vm, "reboot", err);
	if (vm->away == VM_MOVED)
		return vm_is_away(err);
	return reboot_machine(vm, err);
}

static int op_pause(void *opaque, struct error *err)
{
	struct vm *vm = opaque;
	int r;

	if (!vm->created)
		return vm_not_created(err);
	if (vm->state != VM_RUNNING)
		return vm_wrong_state(vm, "pause", err);
	r = machine_pause(vm->machine, err);
	if (r)
		return r;
	vm_set_state(vm, VM_PAUSED);
	vm_emit(vm, "paused");
	return 0;
}

static int op_resume(void *opaque, struct error *err)
{
	struct vm *vm = opaque;
	int r;

	if (!vm->created)
		return vm_not_created(err);
	if (vm->state != VM_PAUSED)
		return vm_wrong_state(vm, "resume", err);
	if (vm->away == VM_MOVED)
		return vm_is_away(err);
	r = vm->away == VM_HELD ? machine_lock_disks(vm->machine, err) : 0;
	if (!r && vm->away == VM_HELD)
		r = machine_movables_run(vm->machine, err);
	if (!r)
		r = machine_resume(vm->machine, err);
	if (r)
		return r;
	vm->away = VM_HERE;
	vm_set_state(vm, VM_RUNNING);
	vm_emit(vm, "resumed");
	return 0;
}

static int op_power_button(void *opaque, struct error *err)
{
	struct vm *vm = opaque;

	if (!vm->created)
		return vm_not_created(err);
	if (vm->state != VM_RUNNING)
		return vm_wrong_state(vm, "press the power button of", err);
	machine_power_button(vm->machine);
	return 0;
}

static int op_nmi(void *opaque, struct error *err)
{
	struct vm *vm = opaque;

	if (!vm->created)
		return vm_not_created(err);
	if (vm->state != VM_RUNNING)
		return vm_wrong_state(vm, "send an NMI to", err);
	return machine_nmi(vm->machine, err);
}

static json_t *op_info(void *opaque, struct error *err)
{
	struct vm *vm = opaque;
	json_t *info = NULL, *config, *tree;
	uint64_t actual;

	pthread_mutex_lock(&vm->lock);
	if (!vm->created) {
		vm_not_created(err);
	} else {
		config = vm_config_to_json(&vm->config);
		tree = vm->machine ? machine_device_tree(vm->machine) : json_object();
		actual = vm->machine ? machine_memory_actual(vm->machine) : vm->config.memory.size;
		info = json_pack("{s:o, s:s, s:I, s:o}", "config", config, "state",
				 vm_state_name(vm->state), "memory_actual_size", (json_int_t)actual,
				 "device_tree", tree);
		if (!info)
			error_set_errno(err, ENOMEM, "vm.info");
	}
	pthread_mutex_unlock(&vm->lock);
	return info;
}

static json_t *op_counters(void *opaque, struct error *err)
{
	struct vm *vm = opaque;
	json_t *counters = NULL;

	pthread_mutex_lock(&vm->lock);
	if (!vm->created) {
		vm_not_created(err);
	} else if (!vm->machine) {
		vm_wrong_state(vm, "count events of", err);
	} else {
		counters = machine_counters(vm->machine);
		if (!counters)
			error_set_errno(err, ENOMEM, "vm.counters");
	}
	pthread_mutex_unlock(&vm->lock);
	return counters;
}

static int op_cancel_migration(void *opaque, struct error *err)
{
	struct vm *vm = opaque;

	return vm_work_cancel(&vm->work, err);
}

static void op_migration(void *opaque, struct vm_migration_progress *progress)
{
	struct vm *vm = opaque;

	vm_work_progress(&vm->work, progress);
}

static int op_state(void *opaque, enum vm_state *state)
{
	struct vm *vm = opaque;
	int r = -ENOENT;

	pthread_mutex_lock(&vm->lock);
	if (vm->created) {
		*state = vm->state;
		r = 0;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static void op_vmm_shutdown(void *opaque)
{
	struct vm *vm = opaque;

	if (vm->created)
		op_delete(vm, NULL);
	event_monitor_emit(vm->options.events, "vmm", "shutdown", NULL);
	vm->options.finished(vm->options.opaque, 0);
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	if (vm->created)
		op_delete(vm, NULL);
	loop_remove(vm->settle);
	vm_work_destroy(&vm->work);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}

const struct vm_ops *vm_operations(void)
{
	static const struct vm_ops ops = {
		.create = op_create,
		.delete = op_delete,
		.boot = op_boot,
		.shutdown = op_shutdown,
		.reboot = op_reboot,
		.pause = op_pause,
		.resume = op_resume,
		.power_button = op_power_button,
		.nmi = op_nmi,
		.add_disk = vm_add_disk,
		.add_net = vm_add_net,
		.add_vsock = vm_add_vsock,
		.add_device = vm_add_device,
		.add_user_device = vm_add_user_device,
		.remove_device = vm_remove_device,
		.resize_balloon = vm_resize_balloon,
		.resize_disk = vm_resize_disk,
		.snapshot = vm_snapshot,
		.restore = vm_restore,
		.send_migration = vm_send_migration,
		.receive_migration = vm_receive_migration,
		.live_update = vm_live_update,
		.cancel_migration = op_cancel_migration,
		.migration = op_migration,
		.info = op_info,
		.counters = op_counters,
		.state = op_state,
		.vmm_shutdown = op_vmm_shutdown,
	};

	return &ops;
}
