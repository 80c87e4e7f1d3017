/* SPDX-License-Identifier: Apache-2.0 */
/* A VM that comes by live update from another process of this host. In the worker. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migration/receive.h"
#include "migration/url.h"
#include "vmm/vm_migration.h"
#include "vmm/vm_private.h"
#include "vmm/vm_update_private.h"

#define WAIT_MS 30000 /* for the other process to come */
#define STALL_MS 10000

/* Of the VM, and the table that vm_migration_target() made for it. */
struct adoption {
	struct vm_target target;
	const struct migration_target_ops *base;
	struct kept kept;
};

static int check_format(const json_t *json, struct error *err)
{
	json_int_t format = json_integer_value(json_object_get(json, "format"));
	const char *version = json_string_value(json_object_get(json, "version"));
	int r = state_kinds_check(json_object_get(json, "kinds"), err);

	if (!r && format != UPDATE_FORMAT)
		r = error_set(err, EPROTONOSUPPORT,
			      "it hands over in format %lld, this version takes %d",
			      (long long)format, UPDATE_FORMAT);
	if (r)
		error_prefix(err, "take the VM of ferry v%.40s with v%s", version ? version : "?",
			     FERRY_VERSION_STRING);
	return r;
}

static int adopt_consider(void *opaque, const char *text, struct error *err)
{
	json_error_t why;
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &why);
	int r;

	(void)opaque;
	if (!json)
		return error_set(err, EBADMSG, "what the VM is: %s", why.text);
	r = check_format(json, err);
	json_decref(json);
	return r;
}

static struct kept *adopt_kept(void *opaque)
{
	struct adoption *adoption = opaque;

	return &adoption->kept;
}

static int take_kept(void *opaque, bool paused, struct error *err)
{
	struct adoption *adoption = opaque;
	struct vm *vm = adoption->target.vm;
	struct kept *kept = &adoption->kept;
	int r;

	event_monitor_take(vm->options.events, kept, paused);
	if (!paused) {
		log_take(vm->options.log, kept);
		return vm->server ? api_server_take(vm->server, kept, err) : 0;
	}
	r = console_take_held(vm->serial, kept, UPDATE_SERIAL, err);
	if (!r)
		r = console_take_held(vm->console, kept, UPDATE_CONSOLE, err);
	if (!r)
		r = console_take_held(vm->debug_console, kept, UPDATE_DEBUG_CONSOLE, err);
	return r;
}

/* The VM is this process's, running or paused. */
static void own(struct adoption *adoption)
{
	struct vm *vm = adoption->target.vm;
	char text[64];

	machine_own(vm->machine);
	console_hold(vm->serial, false);
	console_hold(vm->console, false);
	console_hold(vm->debug_console, false);
	snprintf(text, sizeof(text), "MAINPID=%d\nREADY=1", (int)getpid());
	notify_send(vm->options.notify, text);
	if (vm->server)
		api_server_hold(vm->server, false);
}

static int adopt_start(void *opaque, bool paused, struct error *err)
{
	struct adoption *adoption = opaque;
	int r = paused ? 0 : adoption->base->resume(&adoption->target, err);

	if (!r)
		own(adoption);
	return r;
}

/* The table's functions take the target; an adoption begins with it. */
_Static_assert(offsetof(struct adoption, target) == 0, "the adoption is its target");

static int receive_at(struct adoption *adoption, int listener, struct error *err)
{
	struct migration_target target = vm_migration_target(&adoption->target);
	struct migration_target_ops ops = *target.ops;
	struct vm *vm = adoption->target.vm;
	struct migration_receive *receive;
	struct receive_options options;
	int r;

	adoption->base = target.ops;
	ops.devices = NULL;
	ops.consider = adopt_consider;
	ops.kept = adopt_kept;
	ops.take_kept = take_kept;
	ops.start = adopt_start;
	target.ops = &ops;
	target.opaque = adoption;
	receive_options_init(&options);
	options.listener = listener;
	options.update = true;
	options.wait_ms = WAIT_MS;
	options.stall_ms = STALL_MS;
	options.policy = vm->options.threads;
	receive = migration_receive_new(&target, &options, err);
	if (!receive)
		return err->code;
	vm_work_set_receive(&vm->work, receive);
	r = migration_receive_run(receive, err);
	vm_work_set_receive(&vm->work, NULL);
	migration_receive_free(receive);
	guest_memory_free(adoption->target.memory);
	return r;
}

int vm_adopt(struct vm *vm, int listener, struct error *err)
{
	struct adoption adoption = { .target = { .vm = vm } };
	int r;

	adoption.target.kept = &adoption.kept;
	vm_work_begin(&vm->work, VM_MIGRATION_DIRECTION_RECEIVE);
	r = receive_at(&adoption, listener, err);
	vm_work_end(&vm->work, r, err);
	kept_destroy(&adoption.kept);
	if (r)
		return r;
	machine_ask_devices(vm->machine);
	vm_emit(vm, "live-updated");
	return 0;
}

int vm_adopt_listen(const char *path, const struct thread_policy *threads, struct error *err)
{
	char text[URL_MAX];
	struct url url;
	int r;

	if (snprintf(text, sizeof(text), "unix:%s", path) >= (int)sizeof(text))
		return error_set_errno(err, ENAMETOOLONG, "--adopt: %s", path);
	r = url_parse(&url, text, err);
	return r ? r : url_listen(&url, threads, err);
}
