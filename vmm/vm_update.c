/* SPDX-License-Identifier: Apache-2.0 */
/* vm.live-update: the VM goes to another process of this host. In the worker. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migration/send.h"
#include "migration/snapshot.h"
#include "migration/url.h"
#include "vmm/spawner.h"
#include "vmm/vm_migration.h"
#include "vmm/vm_private.h"
#include "vmm/vm_update_private.h"

#define STALL_MS 10000

/* The new process, reached by a path, or by the abstract name that its listener has. */

struct dial {
	const struct thread_policy *policy;
	bool spawned;
	struct url url;
	struct sockaddr_un address; /* spawned */
	socklen_t len;
	int fd; /* or -errno */
};

static void connect_abstract(void *opaque)
{
	struct dial *dial = opaque;

	dial->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (dial->fd < 0 || !connect(dial->fd, (struct sockaddr *)&dial->address, dial->len))
		return;
	close(dial->fd);
	dial->fd = -errno;
}

static int dial_connect(void *opaque, int timeout_ms, int cancel_fd, struct error *err)
{
	struct dial *dial = opaque;

	if (!dial->spawned)
		return url_connect(&dial->url, dial->policy, timeout_ms, cancel_fd, err);
	thread_run_in_starter(dial->policy, connect_abstract, dial);
	return dial->fd >= 0 ? dial->fd
			     : error_set_errno(err, dial->fd, "connect to the new process");
}

struct listen_call {
	struct dial *dial;
	int fd;
};

/* The kernel chooses the name. */
static void listen_abstract(void *opaque)
{
	struct listen_call *call = opaque;
	struct dial *dial = call->dial;
	sa_family_t family = AF_UNIX;

	call->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	dial->len = sizeof(dial->address);
	if (call->fd < 0 ||
	    (!bind(call->fd, (struct sockaddr *)&family, sizeof(family)) && !listen(call->fd, 8) &&
	     !getsockname(call->fd, (struct sockaddr *)&dial->address, &dial->len)))
		return;
	close(call->fd);
	call->fd = -errno;
}

static int spawn(struct vm *vm, const struct live_update_config *config, struct dial *dial,
		 struct live_update_result *result, struct error *err)
{
	struct listen_call call = { .dial = dial };
	pid_t pid;

	if (!vm->options.spawner)
		return error_set_kind(err, ERROR_BAD_REQUEST, EOPNOTSUPP,
				      "this process cannot start another one (%s): start it "
				      "yourself with --adopt "
				      "and give its socket",
				      vm->options.no_spawner ?: "it has no helper for that");
	thread_run_in_starter(dial->policy, listen_abstract, &call);
	if (call.fd < 0)
		return error_set_errno(err, call.fd, "make a socket for the new process");
	pid = spawner_start(vm->options.spawner, config->binary, config->args, config->arg_count,
			    call.fd, err);
	/* The new process alone has it now: that one gone, a connection is refused. */
	close(call.fd);
	if (pid < 0)
		return (int)pid;
	dial->spawned = true;
	result->pid = (int)pid;
	return 0;
}

static int find_new(struct vm *vm, const struct live_update_config *config, struct dial *dial,
		    struct live_update_result *result, struct error *err)
{
	char url[sizeof(struct sockaddr_un) + 8];

	if (!config->socket)
		return spawn(vm, config, dial, result, err);
	snprintf(url, sizeof(url), "unix:%s", config->socket);
	return url_parse(&dial->url, url, err);
}

/* The host's ends: who uses them while this process and another have them. */
static int hold(struct vm *vm, bool hold, struct error *err)
{
	if (vm->server)
		api_server_hold(vm->server, hold);
	console_hold(vm->serial, hold);
	console_hold(vm->console, hold);
	console_hold(vm->debug_console, hold);
	return vm->machine ? machine_hold_host(vm->machine, hold, err) : 0;
}

struct hold_call {
	struct vm *vm;
	struct error *err;
	int r;
};

static void hold_in_loop(void *opaque)
{
	struct hold_call *call = opaque;

	call->r = hold(call->vm, true, call->err);
}

/*
 * The main loop is asked once, not for each source that it has. It can wait for no vCPU
 * meanwhile, since they stand still, and so have no lock and no question to it.
 */
static int update_pause(void *opaque, struct error *err)
{
	struct vm *vm = opaque;
	struct hold_call call = { .vm = vm, .err = err };
	int r = machine_pause(vm->machine, err);

	if (!r)
		loop_call(vm->options.loop, hold_in_loop, &call);
	return r ? r : call.r;
}

static void add_kinds(struct vm *vm, json_t *kinds)
{
	for (const struct state_kind *kind = state_kinds; kind->name; kind++)
		if ((!kind->device || machine_has_virtio(vm->machine, kind->device)) &&
		    (!kind->vfio || machine_has_vfio(vm->machine)))
			json_object_set_new(kinds, kind->name, json_integer(kind->version));
}

static char *update_describe(void *opaque, struct error *err)
{
	struct vm *vm = opaque;
	json_t *kinds = json_object(), *json;
	char *text;

	if (kinds)
		add_kinds(vm, kinds);
	json = json_pack("{s:s,s:i,s:o}", "version", FERRY_VERSION_STRING, "format", UPDATE_FORMAT,
			 "kinds", kinds);
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	if (!text)
		error_set_errno(err, ENOMEM, "live update");
	return text;
}

static int keep_consoles(struct vm *vm, struct kept *kept, bool paused, struct error *err)
{
	int r = console_keep(vm->serial, kept, UPDATE_SERIAL, paused, err);

	if (!r)
		r = console_keep(vm->console, kept, UPDATE_CONSOLE, paused, err);
	if (!r)
		r = console_keep(vm->debug_console, kept, UPDATE_DEBUG_CONSOLE, paused, err);
	return r;
}

/* Those of the configuration, for the next boot. */
static int keep_config(struct vm *vm, struct kept *kept, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < vm->config.net_count; i++)
		for (unsigned int n = 0; !r && n < vm->config.nets[i].fd_count; n++)
			r = kept_add(kept, vm->config.nets[i].fds[n], NULL, 0, err, UPDATE_NET_FD,
				     vm->config.nets[i].id, n);
	for (unsigned int i = 0; !r && i < vm->config.device_count; i++)
		if (vm->config.devices[i].fd >= 0)
			r = kept_add(kept, vm->config.devices[i].fd, NULL, 0, err, UPDATE_DEVICE_FD,
				     vm->config.devices[i].id);
	return r;
}

static int update_keep(void *opaque, struct kept *kept, bool paused, struct error *err)
{
	struct vm *vm = opaque;
	int r = event_monitor_keep(vm->options.events, kept, paused, err);

	if (!r)
		r = keep_consoles(vm, kept, paused, err);
	if (!r)
		r = machine_keep(vm->machine, kept, paused, err);
	if (r || paused)
		return r;
	r = keep_config(vm, kept, err);
	if (!r)
		r = log_keep(vm->options.log, kept, err);
	if (!r && vm->server)
		r = api_server_keep(vm->server, kept, err);
	return r;
}

static int send_to(struct vm *vm, struct dial *dial, enum transfer_outcome *outcome,
		   struct live_update_result *result, struct error *err)
{
	struct migration_vm source = vm_migration_source(vm);
	struct migration_vm_ops ops = *source.ops;
	struct transfer_progress progress;
	struct migration_send *send;
	struct send_options options;
	int r;

	ops.pause = update_pause;
	ops.devices = NULL; /* their own state stays where it is: in them */
	ops.describe = update_describe;
	ops.keep = update_keep;
	source.ops = &ops;
	send_options_init(&options);
	options.dialer = (struct send_dialer){ .connect = dial_connect, .opaque = dial };
	options.local = options.update = true;
	options.stall_ms = STALL_MS;
	options.policy = vm->options.threads;
	send = migration_send_new(&source, &options, err);
	if (!send)
		return err->code;
	vm_work_set_send(&vm->work, send, vm->generation);
	r = migration_send_run(send, err);
	vm_work_set_send(&vm->work, NULL, 0);
	*outcome = migration_send_outcome(send);
	migration_send_progress(send, &progress);
	result->downtime = progress.downtime.total;
	result->pause = progress.downtime.pause;
	result->save = progress.downtime.save;
	result->load = progress.downtime.load;
	result->handover = progress.downtime.handover;
	migration_send_free(send);
	return r;
}

static int prepare(struct vm *vm, struct error *err)
{
	int r = vm_finish_restore(vm, err);

	if (r)
		return r;
	/* It follows writes by what goes with this process: the next one begins anew. */
	snapshot_tracking_free(vm->tracking);
	vm->tracking = NULL;
	return 0;
}

/* The VM is here, as it was, or held. */
static void stay(struct vm *vm, enum transfer_outcome outcome)
{
	struct error err = ERROR_INIT;

	if (hold(vm, false, &err))
		log_error(vm->options.log, "after a live update that failed", &err);
	machine_unkeep(vm->machine);
	if (outcome == TRANSFER_HELD)
		vm->away = VM_HELD;
	vm_migration_settle(vm);
	vm_emit(vm, "live-update-failed");
}

/* Why it did not, a process that has just started says on standard error alone. */
static void explain(const struct dial *dial, const struct live_update_config *config,
		    const struct live_update_result *result, int code, struct error *err)
{
	if (dial->spawned && (code == -ECONNRESET || code == -ECONNREFUSED || code == -EPIPE))
		error_prefix(err,
			     "the new process %d ended, or would not take the VM (it says why on "
			     "standard error)",
			     result->pid);
	error_prefix(err, "live update%s%s", config->binary ? " to " : "", config->binary ?: "");
}

int vm_live_update(void *opaque, const struct live_update_config *config,
		   struct live_update_result *result, struct error *err)
{
	struct vm *vm = opaque;
	enum transfer_outcome outcome = TRANSFER_STAYED;
	struct dial dial = { .policy = vm->options.threads };
	int r;

	*result = (struct live_update_result){ .pid = 0 };
	if (!vm->created)
		return vm_not_created(err);
	if (!vm->machine)
		return vm_wrong_state(vm, "hand over", err);
	if (vm->away == VM_MOVED)
		return vm_is_away(err);
	vm_emit(vm, "live-updating");
	vm_work_begin(&vm->work, VM_MIGRATION_DIRECTION_SEND);
	r = prepare(vm, err);
	if (!r)
		r = find_new(vm, config, &dial, result, err);
	if (!r)
		r = send_to(vm, &dial, &outcome, result, err);
	if (r)
		explain(&dial, config, result, r, err);
	vm_work_end(&vm->work, r, err);
	if (outcome != TRANSFER_MOVED) {
		stay(vm, outcome);
		return r;
	}
	/* Nothing of it is ours any more, not even to close it properly: the process ends,
	 * once the client has its answer. */
	vm->away = VM_MOVED;
	atomic_store(&vm->handed_over, true);
	vm->options.finished(vm->options.opaque, 0);
	return 0;
}

bool vm_handed_over(const struct vm *vm)
{
	return atomic_load(&vm->handed_over);
}
