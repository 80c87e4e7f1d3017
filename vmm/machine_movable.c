/* SPDX-License-Identifier: Apache-2.0 */
/* Assigned devices that move: whose state can be had and how, what they write to RAM, and
 * that they run again where a hand-over was given up. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vfio/device_dirty.h"
#include "vfio/device_migration.h"
#include "vfio/vfio_pci.h"
#include "vmm/machine_private.h"

static struct machine_device *find(struct machine *machine, const char *id)
{
	for (struct machine_device *d = machine->devices; d; d = d->next)
		if (!d->ejected && !strcmp(d->id, id))
			return d;
	return NULL;
}

static void keep_for_later(struct machine_device *device, const struct machine_movable *how)
{
	device->movable = (struct machine_movable){
		.plugin_path = how->plugin_path ? strdup(how->plugin_path) : NULL,
		.plugin_arg = how->plugin_arg ? strdup(how->plugin_arg) : NULL,
		.all_dirty = how->all_dirty,
	};
}

void machine_make_movable(struct machine *machine, const char *id,
			  const struct machine_movable *how)
{
	struct machine_device *device = find(machine, id);
	const struct device_migration_options options = {
		.id = id,
		.plugin_path = how->plugin_path,
		.plugin_arg = how->plugin_arg,
		.plugin_host = machine->env.plugins,
		.threads = machine->env.threads,
		.log = machine->env.log,
	};
	struct error err = ERROR_INIT;
	struct migratable *migration;

	if (!device)
		return;
	/* Another process still uses it, and it is asked nothing: machine_ask_devices() asks. */
	if (machine->host.kept) {
		keep_for_later(device, how);
		return;
	}
	/* A device without is one that cannot be moved, and says so when it is to be. */
	migration = device_migration_new(vfio_pci_transport(device->fn), &options, &err);
	if (!migration)
		log_warn(machine->env.log, "device %s cannot be migrated: %s", id, err.message);
	pthread_mutex_lock(&machine->lock);
	device->migration = migration;
	device->all_dirty = how->all_dirty;
	pthread_mutex_unlock(&machine->lock);
}

void machine_ask_devices(struct machine *machine)
{
	for (struct machine_device *d = machine->devices; d; d = d->next) {
		if (d->unasked && !d->ejected)
			machine_make_movable(machine, d->id, &d->movable);
		d->unasked = false;
	}
}

void machine_forget_movable(struct machine_device *device)
{
	if (device->dirty)
		device->dirty->ops->free(device->dirty);
	device_migration_free(device->migration);
	free((char *)device->movable.plugin_path);
	free((char *)device->movable.plugin_arg);
	device->movable = (struct machine_movable){ .all_dirty = false };
	device->dirty = NULL;
	device->migration = NULL;
}

static int check(const struct machine_device *device, struct error *err)
{
	const char *why = device->migration ? device_migration_refusal(device->migration)
					    : "there was no memory for its migration";

	return why ? error_set_kind(err, ERROR_BAD_REQUEST, EOPNOTSUPP,
				    "device %s cannot be moved: %s", device->id, why)
		   : 0;
}

int machine_movables(struct machine *machine, struct migratable **movables, unsigned int max,
		     struct error *err)
{
	unsigned int count = 0;

	for (struct machine_device *d = machine->devices; d; d = d->next) {
		int r;

		if (d->ejected || !vfio_pci_is(d->fn))
			continue;
		r = check(d, err);
		if (r)
			return r;
		if (count == max)
			return error_set(err, E2BIG, "more than %u assigned devices", max);
		movables[count++] = d->migration;
	}
	return (int)count;
}

int machine_movable_source(struct machine *machine, struct machine_device *device,
			   struct dirty_source **source, struct error *err)
{
	if (!device->dirty)
		device->dirty = device_dirty_source(
			vfio_pci_transport(device->fn), machine->host.memory,
			device->all_dirty ? DEVICE_DIRTY_ALL : DEVICE_DIRTY_AUTO, err);
	*source = device->dirty;
	return device->dirty ? 0 : error_prefix(err, "device %s", device->id);
}

int machine_movables_run(struct machine *machine, struct error *err)
{
	int r = 0;

	for (struct machine_device *d = machine->devices; d; d = d->next) {
		struct migratable *m = d->ejected ? NULL : d->migration;
		int one = m ? m->ops->rollback(m, r ? NULL : err) : 0;

		r = r ? r : one;
	}
	return r;
}

/* Before one starts DMA, all others answer. */
int machine_movables_resume(struct machine *machine, struct error *err)
{
	int r = 0;

	for (struct machine_device *d = machine->devices; !r && d; d = d->next)
		if (!d->ejected && d->migration && !check(d, NULL))
			r = d->migration->ops->resume(d->migration, err);
	for (struct machine_device *d = machine->devices; !r && d; d = d->next)
		if (!d->ejected && d->migration && !check(d, NULL))
			r = d->migration->ops->run(d->migration, err);
	return r;
}

json_t *machine_movable_json(const struct machine_device *device)
{
	const char *why;

	if (!vfio_pci_is(device->fn))
		return NULL;
	if (!device->migration)
		return json_pack("{s:s, s:s}", "backend", "none", "reason", "out of memory");
	why = device_migration_refusal(device->migration);
	if (why)
		return json_pack("{s:s, s:s}", "backend", "none", "reason", why);
	return json_pack("{s:s, s:b, s:b, s:s}", "backend", device->migration->ops->kind, "precopy",
			 device->migration->precopy, "p2p", device->migration->p2p,
			 "dirty_tracking",
			 device->dirty	     ? device->dirty->ops->name
			 : device->all_dirty ? "all"
					     : "auto");
}
