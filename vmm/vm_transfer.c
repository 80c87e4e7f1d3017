/* SPDX-License-Identifier: Apache-2.0 */
/* vm.send-migration and vm.receive-migration: migration/ over struct vm. In the worker. */
#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migration/receive.h"
#include "migration/send.h"
#include "migration/snapshot.h"
#include "migration/url.h"
#include "vmm/vm_migration.h"
#include "vmm/vm_private.h"

/* vm.send-migration */

struct dial {
	struct url url;
	const struct thread_policy *policy;
};

static int dial_connect(void *opaque, int timeout_ms, int cancel_fd, struct error *err)
{
	const struct dial *dial = opaque;

	return url_connect(&dial->url, dial->policy, timeout_ms, cancel_fd, err);
}

static int send_to(struct vm *vm, struct dial *dial, const struct tls_context *tls,
		   const struct send_migration_config *config, enum transfer_outcome *outcome,
		   struct error *err)
{
	const struct migration_vm source = vm_migration_source(vm);
	struct migration_send *send;
	struct send_options options;
	int r;

	send_options_init(&options);
	options.dialer = (struct send_dialer){ .connect = dial_connect, .opaque = dial };
	options.connections = config->connections;
	options.local = config->memory_mode == SEND_MEMFDS;
	options.postcopy = config->memory_mode == SEND_POSTCOPY;
	options.downtime_ms = config->downtime_ms;
	options.timeout_s = config->timeout_s;
	options.timeout_strategy = config->timeout_strategy == SEND_TIMEOUT_IGNORE
					   ? SEND_AT_TIMEOUT_IGNORE
					   : SEND_AT_TIMEOUT_CANCEL;
	options.bandwidth = config->bandwidth;
	options.max_throttle = config->max_throttle;
	options.checksum = config->checksum;
	options.tls = tls;
	options.policy = vm->options.threads;
	send = migration_send_new(&source, &options, err);
	if (!send)
		return err->code;
	vm_work_set_send(&vm->work, send, vm->generation);
	r = migration_send_run(send, err);
	vm_work_set_send(&vm->work, NULL, 0);
	*outcome = migration_send_outcome(send);
	migration_send_free(send);
	return r;
}

/* RAM that is a private copy of a file cannot be handed to anybody. */
static int check_local(struct vm *vm, struct error *err)
{
	const struct guest_memory *memory = machine_memory(vm->machine);

	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++)
		if (guest_memory_region(memory, i)->memfd < 0)
			return error_set_kind(err, ERROR_BAD_REQUEST, EOPNOTSUPP,
					      "a clone whose RAM shares pages with its snapshot "
					      "cannot hand it over: migrate without local");
	return 0;
}

static int open_tls(struct vm *vm, const char *dir, enum tls_side side, const struct url *url,
		    struct tls_context **tls, struct error *err)
{
	char host[URL_HOST_MAX];

	if (!dir)
		return 0;
	url_host(url, host);
	*tls = tls_context_new(dir, side, side == TLS_SOURCE ? host : NULL, vm->options.threads,
			       err);
	if (!*tls)
		vm_suggest_rule(vm, "r", err);
	return *tls ? 0 : err->code;
}

static int prepare_send(struct vm *vm, const struct send_migration_config *config,
			struct dial *dial, struct tls_context **tls, struct error *err)
{
	int r = url_parse(&dial->url, config->destination_url, err);

	if (!r)
		r = open_tls(vm, config->tls_dir, TLS_SOURCE, &dial->url, tls, err);
	if (!r && config->memory_mode == SEND_MEMFDS)
		r = check_local(vm, err);
	if (!r)
		r = vm_finish_restore(vm, err);
	/* It follows the same writes. */
	snapshot_tracking_free(vm->tracking);
	vm->tracking = NULL;
	return r;
}

static void settle_source(struct vm *vm, enum transfer_outcome outcome, bool preserve)
{
	switch (outcome) {
	case TRANSFER_MOVED:
		vm->away = VM_MOVED;
		if (preserve)
			break;
		vm_discard(vm);
		vm_emit(vm, "deleted");
		return;
	case TRANSFER_HELD: vm->away = VM_HELD; break;
	/* It has run on elsewhere: what is here is of no use but to look at. */
	case TRANSFER_LOST:
		vm->away = VM_MOVED;
		vm_emit(vm, "lost");
		break;
	case TRANSFER_UNDECIDED:
	case TRANSFER_STAYED: break;
	}
	vm_migration_settle(vm);
}

int vm_send_migration(void *opaque, const struct send_migration_config *config, struct error *err)
{
	struct vm *vm = opaque;
	enum transfer_outcome outcome = TRANSFER_STAYED;
	struct dial dial = { .policy = vm->options.threads };
	struct tls_context *tls = NULL;
	int r;

	if (!vm->created)
		return vm_not_created(err);
	if (!vm->machine)
		return vm_wrong_state(vm, "migrate", err);
	if (vm->away == VM_MOVED)
		return vm_is_away(err);
	vm_emit(vm, "migrating");
	vm_work_begin(&vm->work, VM_MIGRATION_DIRECTION_SEND);
	r = prepare_send(vm, config, &dial, &tls, err);
	if (!r)
		r = send_to(vm, &dial, tls, config, &outcome, err);
	tls_context_free(tls);
	vm_work_end(&vm->work, r, err);
	settle_source(vm, outcome, config->preserve_source);
	vm_emit(vm, r ? "migration-failed" : "migrated");
	return r;
}

/* vm.receive-migration */

static int receive_at(struct vm *vm, int listener, const struct tls_context *tls,
		      struct receive_migration_config *config, struct error *err)
{
	struct vm_target target = { .vm = vm, .overrides = &config->overrides };
	const struct migration_target ops = vm_migration_target(&target);
	struct migration_receive *receive;
	struct receive_options options;
	int r;

	receive_options_init(&options);
	options.listener = listener;
	options.paused = !config->resume;
	options.tls = tls;
	options.policy = vm->options.threads;
	receive = migration_receive_new(&ops, &options, err);
	if (!receive)
		return err->code;
	vm_work_set_receive(&vm->work, receive);
	r = migration_receive_run(receive, err);
	vm_work_set_receive(&vm->work, NULL);
	migration_receive_free(receive);
	guest_memory_free(target.memory);
	return r;
}

int vm_receive_migration(void *opaque, struct receive_migration_config *config, struct error *err)
{
	struct vm *vm = opaque;
	struct tls_context *tls = NULL;
	struct url url;
	int listener, r;

	if (vm->created)
		return error_set_kind(err, ERROR_CONFLICT, EEXIST,
				      "a VM is created already; vm.delete removes it");
	r = url_parse(&url, config->receiver_url, err);
	if (!r)
		r = open_tls(vm, config->tls_dir, TLS_DESTINATION, &url, &tls, err);
	if (r)
		return r;
	listener = url_listen(&url, vm->options.threads, err);
	if (listener < 0) {
		tls_context_free(tls);
		vm_suggest_rule(vm, "rw", err);
		return listener;
	}
	vm_emit(vm, "receiving");
	vm_work_begin(&vm->work, VM_MIGRATION_DIRECTION_RECEIVE);
	r = receive_at(vm, listener, tls, config, err);
	vm_work_end(&vm->work, r, err);
	tls_context_free(tls);
	close(listener);
	url_remove(&url, vm->options.threads);
	vm_emit(vm, r ? "receive-failed" : "received");
	return r;
}
