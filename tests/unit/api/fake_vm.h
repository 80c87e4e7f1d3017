/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that is not there: vm_ops that remember what they were asked and fail as
 * told. In a header, since only tests and fuzzers of api/ link what it needs.
 */
#ifndef TESTS_UNIT_API_FAKE_VM_H
#define TESTS_UNIT_API_FAKE_VM_H

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "api/config_json.h"
#include "api/vm_ops.h"
#include "base/loop.h"

#define FAKE_NO_FAILURE (-1)

struct fake_vm {
	atomic_int failure; /* an error_kind: the next operations fail so */
	atomic_bool cold;
	atomic_int calls, state_calls;
	atomic_int fd_count; /* of the last net or device */
	atomic_ullong size;  /* of the last resize */
	atomic_bool gated;   /* boot, snapshot, send and receive wait for `gate` */
	atomic_bool booting;
	atomic_bool moving; /* in one of the three; cancel opens the gate */
	atomic_bool cancelled;
	atomic_int over; /* the phase that vm.migration tells otherwise */
	sem_t gate;
	pthread_mutex_t lock;	/* guards last */
	char last[64];		/* operation or id; read by fake_last() */
	struct loop *stop_loop; /* vmm_shutdown stops it */
};

static inline int fake_result(struct fake_vm *vm, const char *what, struct error *err)
{
	int failure = atomic_load(&vm->failure);

	atomic_fetch_add(&vm->calls, 1);
	if (failure != FAKE_NO_FAILURE)
		return error_set_kind(err, (enum error_kind)failure, EIO, "%s: fake failure", what);
	pthread_mutex_lock(&vm->lock);
	snprintf(vm->last, sizeof(vm->last), "%s", what);
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

/* The last operation that was done, or its id, in a static buffer. */
static inline const char *fake_last(struct fake_vm *vm)
{
	static char last[sizeof(vm->last)];

	pthread_mutex_lock(&vm->lock);
	memcpy(last, vm->last, sizeof(last));
	pthread_mutex_unlock(&vm->lock);
	return last;
}

#define FAKE_OPERATION(name) \
	static inline int fake_##name(void *vm, struct error *err) \
	{ \
		return fake_result(vm, #name, err); \
	}

FAKE_OPERATION(delete)
FAKE_OPERATION(shutdown)
FAKE_OPERATION(reboot)
FAKE_OPERATION(pause)
FAKE_OPERATION(resume)
FAKE_OPERATION(power_button)
FAKE_OPERATION(nmi)

static inline int fake_boot(void *opaque, struct error *err)
{
	struct fake_vm *vm = opaque;

	if (atomic_load(&vm->gated)) {
		atomic_store(&vm->booting, true);
		while (sem_wait(&vm->gate))
			;
	}
	return fake_result(vm, "boot", err);
}

static inline int fake_create(void *opaque, struct vm_config *config, struct error *err)
{
	struct fake_vm *vm = opaque;
	unsigned int fds = 0;
	int r = fake_result(vm, "create", err);

	if (r)
		return r;
	for (unsigned int i = 0; i < config->net_count; i++)
		fds += config->nets[i].fd_count;
	for (unsigned int i = 0; i < config->device_count; i++)
		fds += config->devices[i].fd >= 0;
	atomic_store(&vm->fd_count, (int)fds);
	vm_config_destroy(config);
	return 0;
}

static inline void fake_place(struct fake_vm *vm, const char *id, const char *fallback,
			      struct vm_device_place *place)
{
	place->cold = atomic_load(&vm->cold);
	snprintf(place->id, sizeof(place->id), "%s", id ? id : fallback);
	snprintf(place->bdf, sizeof(place->bdf), "0000:00:05.0");
}

static inline int fake_add_disk(void *vm, struct disk_config *disk, struct vm_device_place *place,
				struct error *err)
{
	int r = fake_result(vm, disk->path, err);

	if (r)
		return r;
	fake_place(vm, disk->id, "_disk0", place);
	disk_config_destroy(disk);
	return 0;
}

static inline int fake_add_net(void *opaque, struct net_config *net, struct vm_device_place *place,
			       struct error *err)
{
	struct fake_vm *vm = opaque;
	int r = fake_result(vm, "add_net", err);

	if (r)
		return r;
	atomic_store(&vm->fd_count, (int)net->fd_count);
	fake_place(vm, net->id, "_net0", place);
	net_config_destroy(net);
	return 0;
}

static inline int fake_add_vsock(void *vm, struct vsock_config *vsock,
				 struct vm_device_place *place, struct error *err)
{
	int r = fake_result(vm, "add_vsock", err);

	if (r)
		return r;
	fake_place(vm, vsock->id, "_vsock0", place);
	vsock_config_destroy(vsock);
	return 0;
}

static inline int fake_add_device(void *opaque, struct device_config *device,
				  struct vm_device_place *place, struct error *err)
{
	struct fake_vm *vm = opaque;
	int r = fake_result(vm, device->path ? device->path : "add_device", err);

	if (r)
		return r;
	atomic_store(&vm->fd_count, device->fd >= 0);
	fake_place(vm, device->id, "_vfio0", place);
	device_config_destroy(device);
	return 0;
}

static inline int fake_add_user_device(void *vm, struct user_device_config *device,
				       struct vm_device_place *place, struct error *err)
{
	int r = fake_result(vm, device->socket, err);

	if (r)
		return r;
	fake_place(vm, device->id, "_vfio_user0", place);
	user_device_config_destroy(device);
	return 0;
}

static inline int fake_remove_device(void *vm, const char *id, struct error *err)
{
	return fake_result(vm, id, err);
}

static inline int fake_resize_balloon(void *opaque, uint64_t size, struct error *err)
{
	struct fake_vm *vm = opaque;

	atomic_store(&vm->size, size);
	return fake_result(vm, "resize_balloon", err);
}

static inline int fake_resize_disk(void *opaque, const char *id, uint64_t size, struct error *err)
{
	struct fake_vm *vm = opaque;

	atomic_store(&vm->size, size);
	return fake_result(vm, id, err);
}

/* Waits at the gate where it is asked to. */
static inline int fake_move(struct fake_vm *vm, const char *what, struct error *err)
{
	if (atomic_load(&vm->gated)) {
		atomic_store(&vm->cancelled, false);
		atomic_store(&vm->moving, true);
		while (sem_wait(&vm->gate))
			;
		atomic_store(&vm->moving, false);
		if (atomic_load(&vm->cancelled))
			return error_set(err, ECANCELED, "%s: cancelled", what);
	}
	return fake_result(vm, what, err);
}

static inline int fake_snapshot(void *vm, const struct snapshot_config *config, struct error *err)
{
	return fake_move(vm, config->destination_url, err);
}

/* Takes the descriptors, as a VM would. */
static inline void fake_take_overrides(struct fake_vm *vm, struct config_overrides *overrides)
{
	unsigned int fds = 0;

	for (unsigned int i = 0; i < overrides->net_fds_count; i++)
		for (unsigned int k = 0; k < overrides->net_fds[i].fd_count; k++)
			fds += overrides->net_fds[i].fds[k] >= 0;
	atomic_store(&vm->fd_count, (int)fds);
}

static inline int fake_restore(void *vm, struct restore_config *config, struct error *err)
{
	fake_take_overrides(vm, &config->overrides);
	return fake_result(vm, config->source_url, err);
}

static inline int fake_send_migration(void *vm, const struct send_migration_config *config,
				      struct error *err)
{
	return fake_move(vm, config->destination_url, err);
}

static inline int fake_receive_migration(void *vm, struct receive_migration_config *config,
					 struct error *err)
{
	fake_take_overrides(vm, &config->overrides);
	return fake_move(vm, config->receiver_url, err);
}

static inline int fake_live_update(void *vm, const struct live_update_config *config,
				   struct live_update_result *result, struct error *err)
{
	*result = (struct live_update_result){ .pid = 77, .downtime = 2345, .load = 1000 };
	return fake_result(vm, config->socket ?: config->binary ?: "self", err);
}

static inline int fake_cancel_migration(void *opaque, struct error *err)
{
	struct fake_vm *vm = opaque;

	if (!atomic_load(&vm->moving))
		return fake_result(vm, "cancel_migration", err);
	atomic_store(&vm->cancelled, true);
	sem_post(&vm->gate);
	return 0;
}

static inline void fake_migration(void *opaque, struct vm_migration_progress *progress)
{
	struct fake_vm *vm = opaque;

	progress->direction = VM_MIGRATION_DIRECTION_SEND;
	progress->phase = atomic_load(&vm->moving)
				  ? VM_MIGRATION_PHASE_PRECOPY
				  : (enum vm_migration_phase)atomic_load(&vm->over);
	progress->elapsed_ms = 2000;
	progress->transferred_bytes = 200 << 20;
	progress->pages = 51200;
	progress->downtime.total = atomic_load(&vm->moving) ? 0 : 8200;
	progress->downtime.memory = 5000;
	progress->round = 3;
	progress->ram_bytes = 1 << 30;
	progress->done_bytes = 1 << 29;
	progress->remaining_bytes = 1 << 29;
	progress->rate = 100 << 20;
	progress->dirty_rate = 10 << 20;
	progress->expected_downtime_us = 5000;
	progress->connection_count = 1;
	progress->connections[0].bytes = 4096;
}

/* Two vCPUs, 1 GiB. */
static inline json_t *fake_info(void *vm, struct error *err)
{
	int failure = atomic_load(&((struct fake_vm *)vm)->failure);

	if (failure != FAKE_NO_FAILURE) {
		error_set_kind(err, (enum error_kind)failure, EIO, "info: fake failure");
		return NULL;
	}
	return json_pack("{s:{s:{s:i},s:{s:I}},s:s}", "config", "cpus", "boot_vcpus", 2, "memory",
			 "size", (json_int_t)1 << 30, "state", "Running");
}

static inline json_t *fake_counters(void *vm, struct error *err)
{
	int failure = atomic_load(&((struct fake_vm *)vm)->failure);

	if (failure != FAKE_NO_FAILURE) {
		error_set_kind(err, (enum error_kind)failure, EIO, "counters: fake failure");
		return NULL;
	}
	return json_pack("{s:{s:i,s:i},s:{s:i,s:i}}", "_disk0", "read_bytes", 4096, "read_ops", 1,
			 "a\"b", "read_bytes", 512, "rx-frames", 7);
}

static inline int fake_state(void *opaque, enum vm_state *state)
{
	struct fake_vm *vm = opaque;

	atomic_fetch_add(&vm->state_calls, 1);
	if (atomic_load(&vm->failure) == ERROR_NOT_FOUND)
		return -ENOENT;
	*state = VM_RUNNING;
	return 0;
}

static inline void fake_vmm_shutdown(void *opaque)
{
	struct fake_vm *vm = opaque;

	atomic_fetch_add(&vm->calls, 1);
	if (vm->stop_loop)
		loop_stop(vm->stop_loop);
}

static const struct vm_ops fake_vm_ops = {
	.create = fake_create,
	.delete = fake_delete,
	.boot = fake_boot,
	.shutdown = fake_shutdown,
	.reboot = fake_reboot,
	.pause = fake_pause,
	.resume = fake_resume,
	.power_button = fake_power_button,
	.nmi = fake_nmi,
	.add_disk = fake_add_disk,
	.add_net = fake_add_net,
	.add_vsock = fake_add_vsock,
	.add_device = fake_add_device,
	.add_user_device = fake_add_user_device,
	.remove_device = fake_remove_device,
	.resize_balloon = fake_resize_balloon,
	.resize_disk = fake_resize_disk,
	.info = fake_info,
	.counters = fake_counters,
	.state = fake_state,
	.vmm_shutdown = fake_vmm_shutdown,
	.snapshot = fake_snapshot,
	.restore = fake_restore,
	.send_migration = fake_send_migration,
	.receive_migration = fake_receive_migration,
	.live_update = fake_live_update,
	.cancel_migration = fake_cancel_migration,
	.migration = fake_migration,
};

static inline void fake_vm_init(struct fake_vm *vm)
{
	memset(vm, 0, sizeof(*vm));
	atomic_store(&vm->failure, FAKE_NO_FAILURE);
	atomic_store(&vm->over, VM_MIGRATION_PHASE_COMPLETED);
	sem_init(&vm->gate, 0, 0);
	pthread_mutex_init(&vm->lock, NULL);
}

#endif
