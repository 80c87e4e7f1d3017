/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that were handed in as descriptors, for as long as those are kept. A cdev is bound
 * to an iommufd once in its life, so a machine that is made anew (a reboot) goes on with the
 * iommufd of the one before it, and has to know each device's number there.
 *
 * Control plane.
 */
#ifndef VFIO_GIVEN_H
#define VFIO_GIVEN_H

#include <stdint.h>

#include "vfio/transport.h"

struct vfio_given_device {
	int fd;
	uint32_t devid;
};

/* All zero at first. */
struct vfio_given {
	bool bound;  /* some device is, to: */
	int iommufd; /* a copy of a machine's */
	unsigned int count;
	struct vfio_given_device *devices;
};

/* A copy of the iommufd that a machine's space has to be in; -1: any; -errno. */
int vfio_given_iommufd(const struct vfio_given *given, struct error *err);

/* Opens a copy of fd, which stays the caller's, as vfio_transport_open_cdev does. The space
 * is in the iommufd above. */
struct vfio_transport *vfio_given_open(struct vfio_given *given, int fd, struct dma_space *space,
				       struct log *log, struct error *err);

/* One that another process was given and hands over under id, already bound and in use; fd
 * is a copy of it that came along, too, and stays the caller's. */
struct vfio_transport *vfio_given_take(struct vfio_given *given, int fd, struct kept *kept,
				       const char *id, struct dma_space *space, struct log *log,
				       struct error *err);

/* No machine is left that has one of them. */
void vfio_given_clear(struct vfio_given *given);

#endif
