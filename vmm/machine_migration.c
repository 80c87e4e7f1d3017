/* SPDX-License-Identifier: Apache-2.0 */
/* What a migration wants of a machine beside its state: who writes to RAM, less speed, locks
 * of disks, and word to the network. */
#include <errno.h>

#include "base/bytes.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_pci.h"
#include "vfio/vfio_pci.h"
#include "vmm/kvm_dirty.h"
#include "vmm/machine_private.h"
#include "vmm/throttle.h"

struct guest_memory *machine_memory(struct machine *machine)
{
	return machine->host.memory;
}

bool machine_running(const struct machine *machine)
{
	return machine->running;
}

int machine_check_postcopy(const struct machine *machine, struct error *err)
{
	for (const struct machine_device *d = machine->devices; d; d = d->next)
		if (!d->ejected && vfio_pci_is(d->fn))
			return error_set_kind(
				err, ERROR_BAD_REQUEST, EOPNOTSUPP,
				"device %s: the DMA of an assigned device cannot wait "
				"for a page that is still to come: migrate by precopy",
				d->id);
	return 0;
}

static int create_sources(struct machine *machine, struct error *err)
{
	if (!machine->kvm_writes)
		machine->kvm_writes =
			machine->kvm.dirty_ring_bytes
				? kvm_dirty_ring_new(&machine->kvm, machine->host.memory,
						     machine->vcpus, machine->vcpu_count, err)
				: kvm_dirty_log_new(&machine->kvm, machine->host.memory, err);
	if (machine->kvm_writes && !machine->vmm_writes)
		machine->vmm_writes = guest_memory_dirty_source(machine->host.memory, err);
	return machine->kvm_writes && machine->vmm_writes ? 0 : err->code;
}

/* *source is NULL where the device writes to RAM by the VMM alone. */
static int device_source(struct machine *machine, struct machine_device *device,
			 struct dirty_source **source, struct error *err)
{
	struct virtio_device *dev = virtio_pci_device(device->fn);

	*source = NULL;
	if (vfio_pci_is(device->fn))
		return machine_movable_source(machine, device, source, err);
	return dev ? virtio_device_dirty_source(dev, source, err) : 0;
}

int machine_dirty_sources(struct machine *machine, struct dirty_source **sources, unsigned int max,
			  struct error *err)
{
	unsigned int count = 2;
	int r = create_sources(machine, err);

	for (struct machine_device *d = machine->devices; !r && d; d = d->next) {
		struct dirty_source *source;

		if (d->ejected)
			continue;
		r = device_source(machine, d, &source, err);
		if (r || !source)
			continue;
		if (count >= max)
			return error_set(err, ENOSPC, "more than %u sources of dirty pages", max);
		sources[count++] = source;
	}
	if (r)
		return r;
	sources[0] = machine->kvm_writes;
	sources[1] = machine->vmm_writes;
	return (int)count;
}

int machine_throttle(struct machine *machine, unsigned int percent, struct error *err)
{
	if (!machine->throttle && percent)
		machine->throttle = throttle_new(machine->vcpus, machine->vcpu_count,
						 machine->env.threads, err);
	if (!machine->throttle)
		return percent ? err->code : 0;
	return throttle_set(machine->throttle, percent, err);
}

void machine_free_migration(struct machine *machine)
{
	throttle_free(machine->throttle);
	if (machine->kvm_writes)
		machine->kvm_writes->ops->free(machine->kvm_writes);
	if (machine->vmm_writes)
		machine->vmm_writes->ops->free(machine->vmm_writes);
	machine->throttle = NULL;
	machine->kvm_writes = machine->vmm_writes = NULL;
}

static struct virtio_device *device_of_type(const struct machine_device *device, uint16_t type)
{
	struct virtio_device *dev = device->ejected ? NULL : virtio_pci_device(device->fn);

	return dev && dev->type == type ? dev : NULL;
}

int machine_lock_disks(struct machine *machine, struct error *err)
{
	int r = 0;

	for (struct machine_device *d = machine->devices; !r && d; d = d->next) {
		struct virtio_device *dev = device_of_type(d, VIRTIO_BLK);

		if (dev)
			r = virtio_blk_take_lock(dev, err);
	}
	return r;
}

/* All of them, whatever becomes of one. */
int machine_unlock_disks(struct machine *machine, struct error *err)
{
	int r = 0;

	for (struct machine_device *d = machine->devices; d; d = d->next) {
		struct virtio_device *dev = device_of_type(d, VIRTIO_BLK);
		int one = dev ? virtio_blk_release_lock(dev, r ? NULL : err) : 0;

		r = r ? r : one;
	}
	return r;
}

void machine_announce(struct machine *machine)
{
	for (struct machine_device *d = machine->devices; d; d = d->next) {
		struct virtio_device *dev = device_of_type(d, VIRTIO_NET);

		if (dev)
			virtio_net_announce(dev);
	}
}
