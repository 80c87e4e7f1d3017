/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's PCI devices: made from their configuration, plugged and unplugged. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/parse.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_simple.h"
#include "devices/virtio/virtio_vsock.h"
#include "vfio/vfio_pci.h"
#include "vmm/machine_private.h"

static struct machine_device *find_locked(struct machine *machine, const char *id)
{
	for (struct machine_device *d = machine->devices; d; d = d->next)
		if (!strcmp(d->id, id))
			return d;
	return NULL;
}

static void append(struct machine *machine, struct machine_device *device)
{
	struct machine_device **end;

	pthread_mutex_lock(&machine->lock);
	for (end = &machine->devices; *end; end = &(*end)->next)
		;
	*end = device;
	pthread_mutex_unlock(&machine->lock);
}

int machine_plug_function(struct machine *machine, struct pci_function *fn, bool hotplug,
			  struct vm_device_place *place, struct error *err)
{
	struct machine_device *device = calloc(1, sizeof(*device));
	int slot = -1, r;

	if (!device) {
		fn->ops->free(fn);
		return error_set_errno(err, ENOMEM, "add device");
	}
	device->fn = fn;
	snprintf(device->id, sizeof(device->id), "%s", fn->id);
	/* In the list before the guest can see it, and eject it. */
	append(machine, device);
	r = machine->layout ? machine_layout_slot(machine, fn->id, &slot, err) : 0;
	if (!r)
		r = pci_root_add(machine->pci, fn, slot, hotplug, err);
	if (r) {
		pthread_mutex_lock(&machine->lock);
		for (struct machine_device **d = &machine->devices; *d; d = &(*d)->next)
			if (*d == device) {
				*d = device->next;
				break;
			}
		pthread_mutex_unlock(&machine->lock);
		free(device);
		fn->ops->free(fn);
		return r;
	}
	if (place) {
		snprintf(place->id, sizeof(place->id), "%s", fn->id);
		pci_function_bdf(fn, place->bdf, sizeof(place->bdf));
	}
	return 0;
}

/* Puts a virtio device on the bus; takes dev over, also on failure. */
static int plug(struct machine *machine, struct virtio_device *dev, bool hotplug,
		struct vm_device_place *place, struct error *err)
{
	struct pci_function *fn;

	if (!dev)
		return err->code;
	fn = virtio_pci_new(&machine->host, dev, err);
	if (!fn) {
		dev->ops->free(dev);
		return err->code;
	}
	return machine_plug_function(machine, fn, hotplug, place, err);
}

static struct rate_limiter_options rate_options(const struct rate_config *config)
{
	return (struct rate_limiter_options){
		.bandwidth = {
			.size = config->bandwidth.size,
			.one_time_burst = config->bandwidth.one_time_burst,
			.refill_ms = config->bandwidth.refill_time,
		},
		.ops = {
			.size = config->ops.size,
			.one_time_burst = config->ops.one_time_burst,
			.refill_ms = config->ops.refill_time,
		},
	};
}

static int add_disk(struct machine *machine, const struct disk_config *config, bool hotplug,
		    struct vm_device_place *place, struct error *err)
{
	const struct virtio_blk_options options = {
		.path = config->path,
		.readonly = config->readonly,
		.direct = config->direct,
		.serial = config->serial ?: config->id,
		.queues = config->num_queues,
		.queue_size = config->queue_size,
		.disable_io_uring = config->disable_io_uring,
		.discard = !config->readonly,
		.unlocked = machine->disks_unlocked,
		.rate_limit = rate_options(&config->rate_limiter_config),
	};

	return plug(machine, virtio_blk_new(&machine->host, config->id, &options, err), hotplug,
		    place, err);
}

/* The configuration keeps its descriptors for the next boot: the device gets copies. */
static int copy_fds(const struct net_config *config, int *fds, struct error *err)
{
	for (unsigned int i = 0; i < config->fd_count; i++) {
		fds[i] = dup(config->fds[i]);
		if (fds[i] < 0) {
			int r = error_set_errno(err, errno, "%s: copy tap descriptor %d",
						config->id, config->fds[i]);
			while (i--)
				close(fds[i]);
			return r;
		}
	}
	return 0;
}

static int add_net(struct machine *machine, const struct net_config *config, bool hotplug,
		   struct vm_device_place *place, struct error *err)
{
	int fds[VIRTIO_QUEUES_MAX / 2];
	struct virtio_net_options options = {
		.tap = config->tap,
		.fds = config->fd_count ? fds : NULL,
		.fd_count = config->fd_count,
		.ip = config->ip,
		.mask = config->mask,
		.mtu = (uint16_t)config->mtu,
		.queue_pairs = config->fd_count ? config->fd_count : config->num_queues / 2,
		.queue_size = config->queue_size,
		.vhost = config->vhost,
		.offload_tso = config->offload_tso,
		.offload_ufo = config->offload_ufo,
		.offload_csum = config->offload_csum,
		.rate_limit = rate_options(&config->rate_limiter_config),
	};
	struct virtio_device *dev;
	int r;

	if (config->fd_count > ARRAY_SIZE(fds))
		return error_set(err, EINVAL, "%s: %u tap descriptors, at most %zu are taken",
				 config->id, config->fd_count, ARRAY_SIZE(fds));
	if (config->mac && parse_mac(config->mac, options.mac))
		return error_set(err, EINVAL, "%s: mac %s is no MAC address", config->id,
				 config->mac);
	r = copy_fds(config, fds, err);
	if (r)
		return r;
	dev = virtio_net_new(&machine->host, config->id, &options, err);
	if (!dev)
		for (unsigned int i = 0; i < config->fd_count; i++)
			close(fds[i]);
	return plug(machine, dev, hotplug, place, err);
}

static int add_vsock(struct machine *machine, const struct vsock_config *config, bool hotplug,
		     struct vm_device_place *place, struct error *err)
{
	const struct virtio_vsock_options options = { .cid = config->cid,
						      .socket = config->socket };

	return plug(machine, virtio_vsock_new(&machine->host, config->id, &options, err), hotplug,
		    place, err);
}

static int add_balloon(struct machine *machine, const struct balloon_config *config,
		       struct error *err)
{
	machine->balloon =
		virtio_balloon_new(&machine->host, "_balloon0", config->size,
				   config->deflate_on_oom, config->free_page_reporting, err);
	return plug(machine, machine->balloon, false, NULL, err);
}

int machine_create_devices(struct machine *machine, const struct vm_config *config,
			   struct error *err)
{
	const struct console *console = machine->env.console;
	int r = 0;

	if (console)
		r = plug(machine,
			 virtio_console_new(&machine->host, "_console", console_in_fd(console),
					    console_out_fd(console), err),
			 false, NULL, err);
	for (unsigned int i = 0; !r && i < config->disk_count; i++)
		r = add_disk(machine, &config->disks[i], false, NULL, err);
	for (unsigned int i = 0; !r && i < config->net_count; i++)
		r = add_net(machine, &config->nets[i], false, NULL, err);
	if (!r)
		r = plug(machine, virtio_rng_new(&machine->host, "_rng", config->rng.src, err),
			 false, NULL, err);
	if (!r && config->vsock)
		r = add_vsock(machine, config->vsock, false, NULL, err);
	if (!r && config->balloon)
		r = add_balloon(machine, config->balloon, err);
	for (unsigned int i = 0; !r && i < config->device_count; i++)
		r = machine_plug_device(machine, &config->devices[i], false, NULL, err);
	for (unsigned int i = 0; !r && i < config->user_device_count; i++)
		r = machine_plug_user_device(machine, &config->user_devices[i], false, NULL, err);
	return r;
}

/* pci_root_free frees the functions that are still on the bus; those the guest has
 * ejected are ours. */
void machine_free_devices(struct machine *machine)
{
	struct machine_device *device;

	while ((device = machine->devices)) {
		machine->devices = device->next;
		machine_forget_movable(device);
		if (device->ejected)
			device->fn->ops->free(device->fn);
		free(device);
	}
	machine->balloon = NULL;
	pci_root_free(machine->pci);
	machine->pci = NULL;
	machine_free_vfio(machine);
}

int machine_add_disk(struct machine *machine, const struct disk_config *config,
		     struct vm_device_place *place, struct error *err)
{
	return add_disk(machine, config, true, place, err);
}

int machine_add_net(struct machine *machine, const struct net_config *config,
		    struct vm_device_place *place, struct error *err)
{
	return add_net(machine, config, true, place, err);
}

int machine_add_vsock(struct machine *machine, const struct vsock_config *config,
		      struct vm_device_place *place, struct error *err)
{
	return add_vsock(machine, config, true, place, err);
}

int machine_add_device(struct machine *machine, const struct device_config *config,
		       struct vm_device_place *place, struct error *err)
{
	return machine_plug_device(machine, config, true, place, err);
}

int machine_add_user_device(struct machine *machine, const struct user_device_config *config,
			    struct vm_device_place *place, struct error *err)
{
	return machine_plug_user_device(machine, config, true, place, err);
}

int machine_request_removal(struct machine *machine, const char *id, struct error *err)
{
	struct machine_device *device;
	struct pci_function *fn = NULL;
	int r;

	pthread_mutex_lock(&machine->lock);
	device = find_locked(machine, id);
	if (device && !device->ejected)
		fn = device->fn;
	pthread_mutex_unlock(&machine->lock);
	if (!fn)
		return error_set_kind(err, ERROR_NOT_FOUND, ENOENT, "device %s does not exist", id);
	if (virtio_pci_device(fn) && virtio_pci_device(fn) == machine->balloon)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "device %s is part of the machine and cannot be removed", id);
	r = pci_root_request_removal(machine->pci, fn, err);
	if (r)
		return r;
	pthread_mutex_lock(&machine->lock);
	device = find_locked(machine, id);
	if (device)
		device->removing = true;
	pthread_mutex_unlock(&machine->lock);
	return 0;
}

void machine_on_ejected(void *opaque, struct pci_function *fn)
{
	struct machine *machine = opaque;
	char id[64] = "";

	pthread_mutex_lock(&machine->lock);
	for (struct machine_device *d = machine->devices; d; d = d->next)
		if (d->fn == fn) {
			d->ejected = true;
			memcpy(id, d->id, sizeof(id));
		}
	pthread_mutex_unlock(&machine->lock);
	if (id[0])
		machine->env.callbacks.device_ejected(machine->env.callbacks.opaque, id);
}

void machine_finish_removal(struct machine *machine, const char *id)
{
	struct machine_device **link, *device = NULL;

	pthread_mutex_lock(&machine->lock);
	for (link = &machine->devices; *link; link = &(*link)->next)
		if ((*link)->ejected && !strcmp((*link)->id, id)) {
			device = *link;
			*link = device->next;
			break;
		}
	pthread_mutex_unlock(&machine->lock);
	if (!device)
		return;
	if (machine->balloon && virtio_pci_device(device->fn) == machine->balloon)
		machine->balloon = NULL;
	machine_forget_movable(device);
	device->fn->ops->free(device->fn);
	free(device);
	machine_forget_server(machine, id);
	machine_forget_counters(machine, id);
}

/* The control plane alone adds and removes, so it may walk without the lock. */
void machine_pause_devices(struct machine *machine)
{
	for (struct machine_device *d = machine->devices; d; d = d->next)
		if (!d->ejected && virtio_pci_device(d->fn))
			virtio_pci_pause(d->fn);
}

void machine_resume_devices(struct machine *machine)
{
	for (struct machine_device *d = machine->devices; d; d = d->next)
		if (!d->ejected && virtio_pci_device(d->fn))
			virtio_pci_resume(d->fn);
}

int machine_resize_balloon(struct machine *machine, uint64_t size, struct error *err)
{
	if (!machine->balloon)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, ENODEV,
			"the VM has no balloon; give it one at creation (--balloon size=0)");
	return virtio_balloon_resize(machine->balloon, size, err);
}

int machine_resize_disk(struct machine *machine, const char *id, struct error *err)
{
	struct pci_function *fn = pci_root_find(machine->pci, id);
	struct virtio_device *dev = fn ? virtio_pci_device(fn) : NULL;

	if (!dev || dev->type != VIRTIO_BLK)
		return error_set_kind(err, ERROR_NOT_FOUND, ENOENT, "disk %s does not exist", id);
	return virtio_blk_resize(dev, err);
}

json_t *machine_device_tree(struct machine *machine)
{
	json_t *tree = json_object();

	pthread_mutex_lock(&machine->lock);
	for (struct machine_device *d = machine->devices; tree && d; d = d->next) {
		char bdf[16] = "";
		json_t *entry, *movable;

		if (d->ejected)
			continue;
		pci_function_bdf(d->fn, bdf, sizeof(bdf));
		entry = json_pack("{s:s, s:[], s:n, s:[], s:s}", "id", d->id, "resources", "parent",
				  "children", "pci_bdf", bdf);
		movable = machine_movable_json(d);
		if (entry && movable)
			json_object_set_new(entry, "migration", movable);
		json_object_set_new(tree, d->id, entry);
	}
	pthread_mutex_unlock(&machine->lock);
	return tree;
}
