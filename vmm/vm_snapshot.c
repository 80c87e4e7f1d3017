/* SPDX-License-Identifier: Apache-2.0 */
/* vm.snapshot and vm.restore: migration/snapshot.h over struct vm. In the worker. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "migration/snapshot.h"
#include "vmm/kvm.h"
#include "vmm/vm_migration.h"
#include "vmm/vm_private.h"

/* A restore whose RAM comes when it is touched. */
struct vm_lazy {
	struct vm *vm;
	struct snapshot *snapshot;
	struct snapshot_lazy *lazy;
	struct snapshot_progress progress;
};

static void lazy_done(void *opaque, const struct error *err)
{
	struct vm_lazy *lazy = opaque;

	vm_work_set_background(&lazy->vm->work, NULL);
	vm_work_end(&lazy->vm->work, err ? err->code : 0, err);
	if (err)
		vm_fail(lazy->vm, err->message);
}

static void lazy_free(struct vm_lazy *lazy)
{
	if (!lazy)
		return;
	snapshot_lazy_free(lazy->lazy);
	vm_work_set_background(&lazy->vm->work, NULL);
	snapshot_close(lazy->snapshot);
	free(lazy);
}

int vm_finish_restore(struct vm *vm, struct error *err)
{
	int r;

	if (!vm->lazy)
		return 0;
	r = snapshot_lazy_wait(vm->lazy->lazy, err);
	if (r)
		return r;
	lazy_free(vm->lazy);
	vm->lazy = NULL;
	return 0;
}

void vm_forget_snapshots(struct vm *vm)
{
	/* What is not there yet would read as zero: the guest must not see it. */
	if (vm->lazy)
		machine_pause(vm->machine, NULL);
	lazy_free(vm->lazy);
	snapshot_tracking_free(vm->tracking);
	vm->lazy = NULL;
	vm->tracking = NULL;
}

/* vm.snapshot */

static int parse_dir(const char *text, const char *field, const char **dir, struct error *err)
{
	struct config_url url;
	int r = config_url_parse(&url, text, CONFIG_URL_FILE, field, err);

	if (!r)
		*dir = url.path;
	return r;
}

static void note_result(struct vm *vm, const struct snapshot_result *result)
{
	struct vm_work *work = &vm->work;

	pthread_mutex_lock(&work->lock);
	work->progress.downtime.total = result->pause_ns / 1000;
	work->progress.downtime.stop = result->pause_protect_ns / 1000;
	work->progress.downtime.state = result->pause_save_ns / 1000;
	work->progress.io_uring = result->io && !strcmp(result->io, "io_uring");
	pthread_mutex_unlock(&work->lock);
	if (result->not_live[0])
		log_warn(vm->options.log,
			 "snapshot: the VM was paused until its RAM was written: %s",
			 result->not_live);
	log_info(vm->options.log,
		 "snapshot %s: %llu bytes of RAM, %llu written, by %s, in %llu ms; paused %llu us",
		 result->id, (unsigned long long)result->ram_bytes,
		 (unsigned long long)result->written_bytes, result->io ? result->io : "nothing",
		 (unsigned long long)(result->total_ns / 1000000),
		 (unsigned long long)(result->pause_ns / 1000));
}

/* Tracking is what a later, differential snapshot goes by; without it there is none. */
static void prepare_tracking(struct vm *vm)
{
	struct dirty_source *sources[MIGRATION_DIRTY_SOURCES_MAX];
	struct error err = ERROR_INIT;

	if (vm->tracking)
		return;
	if (machine_dirty_sources(vm->machine, sources, MIGRATION_DIRTY_SOURCES_MAX, &err) < 0)
		log_info(vm->options.log, "snapshot: no differential one can follow: %s",
			 err.message);
	else
		vm->tracking = snapshot_tracking_new(NULL);
}

static int write_snapshot(struct vm *vm, const struct snapshot_config *config, struct error *err)
{
	struct snapshot_options options = {
		.live = config->live,
		.compress = config->compress == SNAPSHOT_COMPRESS_ZSTD,
		.userfaultfd_device = -1,
		.policy = vm->options.threads,
	};
	const struct migration_vm source = vm_migration_source(vm);
	struct snapshot_progress progress = { 0 };
	struct snapshot_result result = { 0 };
	int r = parse_dir(config->destination_url, "destination_url", &options.dir, err);

	if (!r && config->base_url)
		r = parse_dir(config->base_url, "base_url", &options.base, err);
	if (!r)
		r = vm_finish_restore(vm, err);
	if (r)
		return r;
	prepare_tracking(vm);
	options.tracking = vm->tracking;
	vm_work_set_snapshot(&vm->work, &progress);
	r = snapshot_write(&options, &source, &progress, &result, err);
	vm_work_set_snapshot(&vm->work, NULL);
	if (!r)
		note_result(vm, &result);
	return r;
}

int vm_snapshot(void *opaque, const struct snapshot_config *config, struct error *err)
{
	struct vm *vm = opaque;
	int r;

	if (!vm->created)
		return vm_not_created(err);
	if (!vm->machine)
		return vm_wrong_state(vm, "snapshot", err);
	if (vm->away == VM_MOVED)
		return vm_is_away(err);
	vm_emit(vm, "snapshotting");
	vm_work_begin(&vm->work, VM_MIGRATION_DIRECTION_SNAPSHOT);
	r = write_snapshot(vm, config, err);
	if (r)
		vm_suggest_rule(vm, "rw", err);
	vm_work_end(&vm->work, r, err);
	vm_migration_settle(vm);
	vm_emit(vm, r ? "snapshot-failed" : "snapshotted");
	return r;
}

/* vm.restore */

static int start_lazy(struct vm *vm, struct snapshot **snapshot,
		      const struct snapshot_read_options *options, struct error *err)
{
	struct vm_lazy *lazy = calloc(1, sizeof(*lazy));

	if (!lazy)
		return error_set_errno(err, ENOMEM, "restore");
	lazy->vm = vm;
	vm_work_set_background(&vm->work, &lazy->progress);
	lazy->lazy = snapshot_lazy_start(*snapshot, machine_memory(vm->machine), options,
					 &lazy->progress, lazy_done, lazy, err);
	if (!lazy->lazy) {
		vm_work_set_background(&vm->work, NULL);
		free(lazy);
		return err->code;
	}
	lazy->snapshot = take_ptr(*snapshot);
	vm->lazy = lazy;
	return 0;
}

static int fill(struct vm *vm, struct snapshot **snapshot, enum memory_restore_mode mode,
		struct error *err)
{
	const struct snapshot_read_options options = {
		.userfaultfd_device = -1,
		.policy = vm->options.threads,
	};
	struct snapshot_progress progress = { 0 };
	int r;

	if (mode == MEMORY_RESTORE_SHARED)
		return 0;
	if (mode == MEMORY_RESTORE_LAZY)
		return start_lazy(vm, snapshot, &options, err);
	vm_work_set_snapshot(&vm->work, &progress);
	r = snapshot_fill(*snapshot, machine_memory(vm->machine), &options, &progress, err);
	vm_work_set_snapshot(&vm->work, NULL);
	return r;
}

/* Clones share the pages of the snapshot that none of them writes. */
static int map_shared(struct snapshot *snapshot, struct vm_target *target, struct error *err)
{
	const struct snapshot_file_region *regions;
	unsigned int count;
	int r = snapshot_shared_regions(snapshot, &regions, &count, err);

	if (r)
		return r;
	target->no_devices = "RAM is mapped privately from the snapshot, and a device cannot map "
			     "that: restore by copying";
	target->memory = guest_memory_new_empty(err);
	if (!target->memory)
		return err->code;
	for (unsigned int i = 0; !r && i < count; i++)
		r = guest_memory_add_private(target->memory, regions[i].gpa, regions[i].size,
					     regions[i].fd, regions[i].offset, err);
	return r;
}

/* What assigned devices keep for themselves, before the state tree is loaded. */
static int load_devices(struct snapshot *snapshot, const struct migration_target *target,
			struct error *err)
{
	struct migratable *devices[MIGRATION_DEVICES_MAX];
	int n = target->ops->devices(target->opaque, devices, MIGRATION_DEVICES_MAX, err);

	/* A lazy restore has taken the snapshot over, and there are none. */
	if (n <= 0 && !snapshot)
		return n;
	return n < 0 ? n : snapshot_load_devices(snapshot, devices, (unsigned int)n, err);
}

static int restore_from(struct vm *vm, struct snapshot **snapshot, struct restore_config *config,
			struct error *err)
{
	struct kvm kvm = KVM_INIT;
	struct vm_target target = {
		.vm = vm,
		.overrides = &config->overrides,
		.kvm = &kvm,
		.lock_disks = true,
		.prefault = &config->prefault,
	};
	const struct migration_target ops = vm_migration_target(&target);
	/* They stay where they are when the snapshot goes over to a lazy restore. */
	struct state_node node = snapshot_cpu(*snapshot);
	int r = ops.ops->check_cpu(&target, &node, err);

	if (!r && config->memory_restore_mode == MEMORY_RESTORE_SHARED)
		r = map_shared(*snapshot, &target, err);
	if (!r && config->memory_restore_mode == MEMORY_RESTORE_LAZY)
		target.no_devices = "its DMA needs all RAM to be there: not with a lazy restore";
	if (!r)
		r = ops.ops->create(&target, snapshot_config(*snapshot), err);
	guest_memory_free(target.memory);
	kvm_close(&kvm);
	if (r)
		return r;
	node = snapshot_machine(*snapshot);
	r = fill(vm, snapshot, config->memory_restore_mode, err);
	if (!r)
		r = load_devices(*snapshot, &ops, err);
	if (!r)
		r = ops.ops->load(&target, &node, err);
	if (!r)
		r = machine_movables_resume(vm->machine, err);
	if (!r)
		r = machine_renew_generation_id(vm->machine, err);
	if (!r && config->resume) {
		r = ops.ops->resume(&target, err);
		if (!r)
			ops.ops->announce(&target);
	}
	if (r)
		ops.ops->destroy(&target);
	return r;
}

int vm_restore(void *opaque, struct restore_config *config, struct error *err)
{
	struct vm *vm = opaque;
	struct snapshot *snapshot;
	const char *dir;
	int r;

	if (vm->created)
		return error_set_kind(err, ERROR_CONFLICT, EEXIST,
				      "a VM is created already; vm.delete removes it");
	r = parse_dir(config->source_url, "source_url", &dir, err);
	if (r)
		return r;
	vm_emit(vm, "restoring");
	vm_work_begin(&vm->work, VM_MIGRATION_DIRECTION_RESTORE);
	snapshot = snapshot_open(dir, vm->options.threads, err);
	r = snapshot ? restore_from(vm, &snapshot, config, err) : err->code;
	snapshot_close(snapshot);
	if (r) {
		error_prefix(err, "restore %s", dir);
		vm_suggest_rule(vm, "rw", err);
	}
	if (r || config->memory_restore_mode != MEMORY_RESTORE_LAZY)
		vm_work_end(&vm->work, r, err);
	vm_emit(vm, r ? "restore-failed" : "restored");
	if (!r && vm->lazy)
		snapshot_lazy_fill(vm->lazy->lazy);
	return r;
}
