/* SPDX-License-Identifier: Apache-2.0 */
/* What of a machine goes on in another process: its devices' descriptors. */
#include <errno.h>

#include "devices/virtio/virtio_pci.h"
#include "vfio/vfio_pci.h"
#include "vmm/machine_private.h"

/* The kernel's DMA spaces; NULL: no device is in it. */
#define SPACES 2u

static struct dma_space *space_in_use(const struct machine *machine, unsigned int i)
{
	struct dma_space *space = i ? machine->type1 : machine->iommufd;

	for (const struct machine_device *d = machine->devices; space && d; d = d->next)
		if (!d->ejected && vfio_pci_is(d->fn) && vfio_pci_transport(d->fn)->space == space)
			return space;
	return NULL;
}

static int keep_device(const struct machine_device *device, struct kept *kept, bool paused,
		       struct error *err)
{
	struct virtio_device *dev = virtio_pci_device(device->fn);

	if (vfio_pci_is(device->fn))
		return vfio_pci_keep(device->fn, kept, paused, err);
	return dev && dev->ops->keep ? dev->ops->keep(dev, kept, paused, err) : 0;
}

int machine_keep(struct machine *machine, struct kept *kept, bool paused, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; !r && !paused && i < SPACES; i++) {
		struct dma_space *space = space_in_use(machine, i);

		r = space ? space->ops->keep(space, kept, err) : 0;
	}
	for (const struct machine_device *d = machine->devices; !r && d; d = d->next)
		if (!d->ejected)
			r = keep_device(d, kept, paused, err);
	return r || !paused ? r : machine_keep_counters(machine, kept, err);
}

void machine_unkeep(struct machine *machine)
{
	for (const struct machine_device *d = machine->devices; d; d = d->next) {
		struct virtio_device *dev = d->ejected ? NULL : virtio_pci_device(d->fn);
		struct error err = ERROR_INIT;

		if (dev && dev->ops->unkeep && dev->ops->unkeep(dev, &err))
			log_error(machine->env.log, "after a live update that failed", &err);
	}
}

/* A device that cannot be gone on with is lost, not the VM. */
static void own_device(struct machine *machine, struct machine_device *device)
{
	const struct machine_callbacks *callbacks = &machine->env.callbacks;
	struct error err = ERROR_INIT;

	if (!vfio_pci_is(device->fn))
		return;
	if (vfio_pci_own(device->fn, &err))
		callbacks->device_lost(callbacks->opaque, device->id, err.message);
	else
		device->unasked = true;
}

static void own_in_loop(void *opaque)
{
	struct machine *machine = opaque;
	struct error err = ERROR_INIT;

	for (unsigned int i = 0; i < SPACES; i++) {
		struct dma_space *space = space_in_use(machine, i);

		if (space && space->ops->own(space, &err))
			log_error(machine->env.log, "live update", &err);
	}
	for (struct machine_device *d = machine->devices; d; d = d->next)
		if (!d->ejected)
			own_device(machine, d);
	machine_hold_serial(machine, false);
}

/* The main loop is asked once, not for each source that it gets; no vCPU runs yet. */
void machine_own(struct machine *machine)
{
	if (!machine->host.kept)
		return;
	machine->host.kept = NULL;
	loop_call(machine->env.loop, own_in_loop, machine);
}

/* All are told; what the first one said is the error. */
static void note(int failed, const struct error *why, int *r, struct error *err)
{
	if (!failed || *r)
		return;
	*r = failed;
	if (err)
		*err = *why;
}

static int hold_devices(struct machine *machine, bool hold, struct error *err)
{
	int r = 0;

	for (const struct machine_device *d = machine->devices; d; d = d->next) {
		struct error why = ERROR_INIT;

		if (!d->ejected && vfio_pci_is(d->fn))
			note(vfio_pci_hold(d->fn, hold, &why), &why, &r, err);
	}
	for (unsigned int i = 0; i < SPACES; i++) {
		struct dma_space *space = space_in_use(machine, i);
		struct error why = ERROR_INIT;

		if (space && space->ops->hold)
			note(space->ops->hold(space, hold, &why), &why, &r, err);
	}
	return r;
}

int machine_hold_host(struct machine *machine, bool hold, struct error *err)
{
	if (hold == machine->held)
		return 0;
	machine->held = hold;
	machine_hold_serial(machine, hold);
	return hold_devices(machine, hold, err);
}

bool machine_has_virtio(const struct machine *machine, unsigned int type)
{
	for (const struct machine_device *d = machine->devices; d; d = d->next) {
		const struct virtio_device *dev = d->ejected ? NULL : virtio_pci_device(d->fn);

		if (dev && dev->type == type)
			return true;
	}
	return false;
}

bool machine_has_vfio(const struct machine *machine)
{
	for (const struct machine_device *d = machine->devices; d; d = d->next)
		if (!d->ejected && vfio_pci_is(d->fn))
			return true;
	return false;
}
