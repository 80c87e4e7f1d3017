/* SPDX-License-Identifier: Apache-2.0 */
/* Which backend a device has, and the one that only refuses. */
#include "vfio/device_migration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfio/device_migration_private.h"
#include "vfio/migration_plugin.h"

void device_migration_init(struct device_migration *dm, const struct migratable_ops *ops,
			   void (*free)(struct device_migration *dm),
			   struct vfio_transport *transport,
			   const struct device_migration_options *options)
{
	*dm = (struct device_migration){
		.m = { .ops = ops },
		.transport = transport,
		.log = options->log,
		.free = free,
	};
	snprintf(dm->m.id, sizeof(dm->m.id), "%s", options->id);
}

int device_migration_error(const struct device_migration *dm, const char *step, struct error *err)
{
	return error_prefix(err, "device %s: %s", dm->m.id, step);
}

static int refuse(struct migratable *m, struct error *err)
{
	return error_set(err, EOPNOTSUPP, "device %s: %s", m->id, device_migration_of(m)->refusal);
}

static int refuse_pending(struct migratable *m, struct migratable_pending *pending,
			  struct error *err)
{
	return refuse(m, err);
}

static ssize_t refuse_read(struct migratable *m, void *buf, size_t len, struct error *err)
{
	return refuse(m, err);
}

static int refuse_write(struct migratable *m, const void *buf, size_t len, struct error *err)
{
	return refuse(m, err);
}

/* Nothing was begun, so it runs. */
static int none_rollback(struct migratable *m, struct error *err)
{
	return 0;
}

static const struct migratable_ops none_ops = {
	.kind = "none",
	.save_begin = refuse,
	.save_pending = refuse_pending,
	.save_read = refuse_read,
	.quiesce = refuse,
	.save_stop = refuse,
	.save_end = refuse,
	.rollback = none_rollback,
	.load_begin = refuse,
	.load_write = refuse_write,
	.load_end = refuse,
	.resume = refuse,
	.run = refuse,
};

static void none_free(struct device_migration *dm)
{
	free(dm);
}

static struct migratable *new_none(struct vfio_transport *transport,
				   const struct device_migration_options *options,
				   const struct error *why, struct error *err)
{
	struct device_migration *dm = malloc(sizeof(*dm));

	if (!dm) {
		error_set_errno(err, ENOMEM, "%s: migration", transport->name);
		return NULL;
	}
	device_migration_init(dm, &none_ops, none_free, transport, options);
	memcpy(dm->refusal, why->message, sizeof(dm->refusal));
	return &dm->m;
}

static struct device_migration *choose(struct vfio_transport *transport,
				       const struct device_migration_options *options,
				       struct error *why)
{
	struct device_migration *dm;

	if (options->plugin_path)
		return migration_plugin_new(transport, options, why);
	dm = migration_feature_new(transport, options, why);
	if (dm || why->code != -ENOTTY)
		return dm;
	error_clear(why);
	dm = migration_region_new(transport, options, why);
	if (!dm && why->code == -ENOTTY)
		error_set(why, EOPNOTSUPP,
			  "%s: its driver does not give out the device's state (neither "
			  "migration features nor a migration region): a variant driver of its "
			  "vendor, or a migration plugin, may",
			  transport->name);
	return dm;
}

struct migratable *device_migration_new(struct vfio_transport *transport,
					const struct device_migration_options *options,
					struct error *err)
{
	struct error why = ERROR_INIT;
	struct device_migration *dm = choose(transport, options, &why);

	return dm ? &dm->m : new_none(transport, options, &why, err);
}

void device_migration_free(struct migratable *m)
{
	if (m)
		device_migration_of(m)->free(device_migration_of(m));
}

const char *device_migration_refusal(const struct migratable *m)
{
	const struct device_migration *dm = device_migration_of(m);

	return dm->refusal[0] ? dm->refusal : NULL;
}
