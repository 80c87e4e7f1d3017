/* SPDX-License-Identifier: Apache-2.0 */
/* Assigned devices: the machine's DMA spaces, and devices on their transports. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "vfio/device_paths.h"
#include "vfio/given.h"
#include "vfio/vfio_pci.h"
#include "vmm/kvm_slots.h"
#include "vmm/machine_private.h"

/*
 * A space is made for the first device of its kind, with all of RAM in it, and stays. RAM
 * is going to be pinned, all of it: it is populated while the device is opened, which for
 * the most part waits for the device's reset, and mapped when both are done.
 */
struct new_space {
	struct dma_space *space; /* NULL: the machine had it */
	struct machine *machine;
	pthread_t thread;
	bool started;
	int result;
	struct error err;
};

static void *populate(void *opaque)
{
	struct new_space *made = opaque;
	struct machine *machine = made->machine;

	made->result = guest_memory_prefault(machine->host.memory, machine->running, &made->err);
	return NULL;
}

static struct dma_space *begin_space(struct machine *machine, struct dma_space *there,
				     struct dma_space *(*open)(struct machine *machine,
							       struct error *err),
				     struct new_space *made, struct error *err)
{
	if (there)
		return there;
	made->space = open(machine, err);
	/* It inherits this thread's confinement, as those do that help it. */
	if (made->space && !machine->host.kept)
		made->started = !thread_start(&made->thread, NULL, THREAD_IO, "populate", populate,
					      made, NULL);
	return made->space;
}

/* With the device on it, or NULL where that could not be had. */
static struct vfio_transport *finish_space(struct new_space *made, struct dma_space **space,
					   struct vfio_transport *transport, struct error *err)
{
	bool kept = made->machine->host.kept;

	if (!made->space)
		return transport;
	if (made->started)
		pthread_join(made->thread, NULL);
	else if (transport && !kept)
		populate(made);
	if (transport && made->result) {
		*err = made->err;
	} else if (transport &&
		   /* What comes along is pinned and mapped. */
		   (kept || !dma_space_map_memory(made->space, made->machine->host.memory, err))) {
		*space = made->space;
		return transport;
	}
	if (transport)
		transport->ops->close(transport);
	made->space->ops->free(made->space);
	return NULL;
}

static struct dma_space *open_iommufd(struct machine *machine, struct error *err)
{
	struct dma_space *space;
	int fd;

	if (machine->host.kept)
		return dma_space_take_iommufd(machine->host.kept, machine->env.log, err);
	fd = vfio_given_iommufd(machine->env.given, err);
	if (fd < -1)
		return NULL;
	space = dma_space_open_iommufd(fd, machine->env.log, err);
	if (!space && fd >= 0)
		close(fd);
	return space;
}

static struct dma_space *open_type1(struct machine *machine, struct error *err)
{
	if (machine->host.kept)
		return dma_space_take_type1(machine->host.memory, machine->host.kept,
					    machine->env.log, err);
	return dma_space_open_type1(machine->env.log, err);
}

static struct vfio_transport *open_cdev(struct machine *machine, const struct device_config *config,
					struct error *err)
{
	struct new_space made = { .machine = machine };
	struct dma_space *space = begin_space(machine, machine->iommufd, open_iommufd, &made, err);
	struct vfio_transport *transport;

	if (!space)
		return NULL;
	if (machine->host.kept && config->fd >= 0)
		transport = vfio_given_take(machine->env.given, config->fd, machine->host.kept,
					    config->id, space, machine->env.log, err);
	else if (machine->host.kept)
		transport = vfio_transport_take_cdev(config->path, machine->host.kept, config->id,
						     space, machine->env.log, err);
	/* The configuration keeps its descriptor for the next boot. */
	else if (config->fd >= 0)
		transport = vfio_given_open(machine->env.given, config->fd, space, machine->env.log,
					    err);
	else
		transport =
			vfio_transport_open_cdev(config->path, -1, space, machine->env.log, err);
	return finish_space(&made, &machine->iommufd, transport, err);
}

static struct vfio_transport *open_group(struct machine *machine,
					 const struct device_config *config, struct error *err)
{
	struct new_space made = { .machine = machine };
	struct dma_space *space = begin_space(machine, machine->type1, open_type1, &made, err);
	struct vfio_transport *transport;

	if (!space)
		return NULL;
	if (machine->host.kept)
		transport = vfio_transport_take_group(config->path, machine->host.kept, config->id,
						      space, machine->env.log, err);
	else
		transport = vfio_transport_open_group(config->path, space, machine->env.log, err);
	return finish_space(&made, &machine->type1, transport, err);
}

/* The cdev where the host has it, unless told otherwise: the group is as good a way. */
static struct vfio_transport *open_transport(struct machine *machine,
					     const struct device_config *config, struct error *err)
{
	/* As it was opened by the process before. */
	if (machine->host.kept)
		return vfio_transport_kept_group(machine->host.kept, config->id)
			       ? open_group(machine, config, err)
			       : open_cdev(machine, config, err);
	/* Before a DMA space is made for it: what is wrong with the path is said first. */
	if (config->path && vfio_device_check(config->path, err))
		return NULL;
	if (config->fd >= 0 || (config->iommufd && vfio_cdev_available(config->path)))
		return open_cdev(machine, config, err);
	return open_group(machine, config, err);
}

static int slot_add(void *opaque, uint64_t gpa, uint64_t size, void *hva, bool readonly,
		    struct error *err)
{
	struct machine *machine = opaque;

	return kvm_slots_add(machine->slots, gpa, size, hva, readonly, err);
}

static void slot_remove(void *opaque, int slot)
{
	struct machine *machine = opaque;

	kvm_slots_remove(machine->slots, slot);
}

static void device_lost(void *opaque, const char *id, const char *reason)
{
	struct machine *machine = opaque;

	machine->env.callbacks.device_lost(machine->env.callbacks.opaque, id, reason);
}

static const struct vfio_host_ops vfio_host_ops = {
	.slot_add = slot_add,
	.slot_remove = slot_remove,
	.device_lost = device_lost,
};

static int plug_vfio(struct machine *machine, struct vfio_transport *transport,
		     const struct vfio_pci_options *options, const struct machine_movable *movable,
		     bool hotplug, struct vm_device_place *place, struct error *err)
{
	const struct vfio_host vfio_host = { .ops = &vfio_host_ops, .opaque = machine };
	struct pci_function *fn;
	int r;

	if (!transport)
		return error_prefix(err, "device %s", options->id);
	if (!machine->slots) {
		unsigned int used = guest_memory_region_count(machine->host.memory);

		machine->slots = kvm_slots_new(&machine->kvm, used, err);
		if (!machine->slots) {
			transport->ops->close(transport);
			return err->code;
		}
	}
	fn = vfio_pci_new(&machine->host, &vfio_host, transport, options, err);
	if (!fn) {
		transport->ops->close(transport);
		return error_prefix(err, "device %s", options->id);
	}
	r = machine_plug_function(machine, fn, hotplug, place, err);
	if (!r)
		machine_make_movable(machine, options->id, movable);
	return r;
}

/* BARs are mapped for others only where there are others. */
static void introduce(struct machine *machine)
{
	unsigned int count = 0;

	for (const struct machine_device *d = machine->devices; d; d = d->next)
		count += vfio_pci_may_meet_peers(d->fn);
	for (struct machine_device *d = machine->devices; count > 1 && d; d = d->next)
		if (vfio_pci_may_meet_peers(d->fn))
			vfio_pci_meet_peers(d->fn);
}

int machine_plug_device(struct machine *machine, const struct device_config *config, bool hotplug,
			struct vm_device_place *place, struct error *err)
{
	struct vfio_pci_options options = {
		.id = config->id,
		.gpudirect_clique = config->x_nv_gpudirect_clique,
		.exclude_mmap_bars = config->x_exclude_mmap_bars,
	};
	const struct machine_movable movable = {
		.plugin_path = config->migration.plugin_path,
		.plugin_arg = config->migration.plugin_arg,
		.all_dirty = config->dirty_tracking == DIRTY_TRACKING_ALL,
	};
	struct vfio_transport *transport;
	int r;

	/* A balloon gives pages back to the host that the device's IOMMU keeps: guest and
	 * device would from then on see different memory. */
	if (machine->balloon)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, EINVAL,
			"device %s: a VM with a balloon cannot have assigned devices, "
			"whose memory must stay where it is; remove the balloon",
			config->id);
	transport = open_transport(machine, config, err);
	if (transport)
		options.peer_space = transport->space;
	r = plug_vfio(machine, transport, &options, &movable, hotplug, place, err);
	if (!r)
		introduce(machine);
	return r;
}

#define SERVER_PLUGGED 1U
#define SERVER_LOST 2U

/* Whose connection it is that was lost. */
struct machine_server {
	struct machine_server *next;
	struct machine *machine;
	char id[64], reason[256];
	/* Lost while it is being plugged, a device is refused; only later is it lost. */
	atomic_uint state;
};

static void server_lost(void *opaque, const char *reason)
{
	struct machine_server *server = opaque;

	snprintf(server->reason, sizeof(server->reason), "%s", reason);
	if (atomic_fetch_or(&server->state, SERVER_LOST) & SERVER_PLUGGED)
		device_lost(server->machine, server->id, server->reason);
}

static void server_plugged(struct machine_server *server)
{
	if (atomic_fetch_or(&server->state, SERVER_PLUGGED) & SERVER_LOST)
		device_lost(server->machine, server->id, server->reason);
}

static struct machine_server *add_server(struct machine *machine, const char *id)
{
	struct machine_server *server = calloc(1, sizeof(*server));

	if (!server)
		return NULL;
	server->machine = machine;
	snprintf(server->id, sizeof(server->id), "%s", id);
	server->next = machine->servers;
	machine->servers = server;
	return server;
}

void machine_forget_server(struct machine *machine, const char *id)
{
	for (struct machine_server **at = &machine->servers; *at; at = &(*at)->next) {
		struct machine_server *server = *at;

		if (strcmp(server->id, id))
			continue;
		*at = server->next;
		free(server);
		return;
	}
}

int machine_plug_user_device(struct machine *machine, const struct user_device_config *config,
			     bool hotplug, struct vm_device_place *place, struct error *err)
{
	struct vfio_user_options user = {
		.socket = config->socket,
		.memory = machine->host.memory,
		.loop = machine->env.loop,
		.log = machine->env.log,
		.lost = server_lost,
	};
	const struct vfio_pci_options options = { .id = config->id, .gpudirect_clique = -1 };
	const struct machine_movable movable = {
		.plugin_path = config->migration.plugin_path,
		.plugin_arg = config->migration.plugin_arg,
		.all_dirty = config->dirty_tracking == DIRTY_TRACKING_ALL,
	};
	struct machine_server *server = add_server(machine, config->id);
	int r;

	if (!server)
		return error_set_errno(err, ENOMEM, "device %s", config->id);
	user.opaque = server;
	user.kept = machine->host.kept;
	user.id = config->id;
	r = plug_vfio(machine, vfio_transport_open_user(&user, err), &options, &movable, hotplug,
		      place, err);
	if (r)
		machine_forget_server(machine, config->id);
	else
		server_plugged(server);
	return r;
}

void machine_free_vfio(struct machine *machine)
{
	struct machine_server *server;

	while ((server = machine->servers)) {
		machine->servers = server->next;
		free(server);
	}
	if (machine->iommufd)
		machine->iommufd->ops->free(machine->iommufd);
	if (machine->type1)
		machine->type1->ops->free(machine->type1);
	machine->iommufd = machine->type1 = NULL;
	kvm_slots_free(machine->slots);
	machine->slots = NULL;
}
