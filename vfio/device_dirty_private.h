/* SPDX-License-Identifier: Apache-2.0 */
/* The device's own log as a dirty source: device_dirty_log.c. Private to vfio/. */
#ifndef VFIO_DEVICE_DIRTY_PRIVATE_H
#define VFIO_DEVICE_DIRTY_PRIVATE_H

#include "vfio/device_dirty.h"

/* 0, or a negative errno and why it has none. */
int device_log_able(struct vfio_transport *transport, struct error *err);
struct dirty_source *device_log_new(struct vfio_transport *transport, struct guest_memory *memory,
				    struct error *err);

#endif
