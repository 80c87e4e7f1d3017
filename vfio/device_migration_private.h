/* SPDX-License-Identifier: Apache-2.0 */
/* What the migration backends share. Private to vfio/. */
#ifndef VFIO_DEVICE_MIGRATION_PRIVATE_H
#define VFIO_DEVICE_MIGRATION_PRIVATE_H

#include "vfio/device_migration.h"

/* Embedded first in each backend's struct: a struct migratable of device_migration_new is
 * always one of these. */
struct device_migration {
	struct migratable m; /* first */
	struct vfio_transport *transport;
	struct log *log;
	void (*free)(struct device_migration *dm);
	char refusal[ERROR_MESSAGE_MAX]; /* "": it can be moved */
};

static inline struct device_migration *device_migration_of(const struct migratable *m)
{
	return (struct device_migration *)(void *)(uintptr_t)m; /* m is its first member */
}

/* Fills what is common; `ops` and `free` are the backend's. */
void device_migration_init(struct device_migration *dm, const struct migratable_ops *ops,
			   void (*free)(struct device_migration *dm),
			   struct vfio_transport *transport,
			   const struct device_migration_options *options);

/*
 * The backends. NULL and -ENOTTY in err: the device does not have it, the next is asked.
 * NULL and any other code: it has it, but cannot be moved by it: err says why, in words
 * that stand for themselves ("DEVICE: ..."), and becomes the refusal.
 */
struct device_migration *migration_feature_new(struct vfio_transport *transport,
					       const struct device_migration_options *options,
					       struct error *err);
struct device_migration *migration_region_new(struct vfio_transport *transport,
					      const struct device_migration_options *options,
					      struct error *err);

/* "ID (NAME): STEP" in front of err's message; returns err's code. */
int device_migration_error(const struct device_migration *dm, const char *step, struct error *err);

#endif
