/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a VFIO device is reached. One interface, three of them (and a fake):
 *
 *   cdev   /dev/vfio/devices/vfioN bound to an iommufd        transport_cdev.c
 *   group  /dev/vfio/GROUP in a container /dev/vfio/vfio      transport_group.c
 *   user   the vfio-user protocol over a unix socket          transport_user.c
 *
 * What they carry is the device interface of linux/vfio.h: regions, interrupts,
 * features. A transport belongs to one device; it is opened attached to the DMA space
 * of its kind (dma_space.h), so that no device can do DMA before its space is there.
 *
 * Control plane, except region_read, region_write and set_irqs, which vCPU threads
 * call too (several at once); an implementation that needs to serialises them.
 * Every reply of a kernel driver or server is checked here: what comes out of these
 * functions is within bounds. Errors name the device, the call and the remedy.
 */
#ifndef VFIO_TRANSPORT_H
#define VFIO_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/kept.h"
#include "base/log.h"
#include "base/loop.h"
#include "vfio/dma_space.h"

/* VFIO_PCI_*_REGION_INDEX and further, device-specific ones. */
#define VFIO_REGIONS_MAX 64
#define VFIO_SPARSE_AREAS_MAX 64

struct vfio_area {
	uint64_t offset, size; /* within the region; page-aligned where it can be mapped */
};

struct vfio_region {
	uint32_t index;
	bool readable, writable, mappable;
	uint64_t size;		/* 0: absent */
	uint64_t offset;	/* in the device's descriptor (kernel) or the server's numbering */
	uint32_t type, subtype; /* device-specific regions: VFIO_REGION_INFO_CAP_TYPE; else 0 */
	bool msix_mappable;	/* the MSI-X table may be mapped with the rest */
	/* What can be mapped: the whole region, or the sparse areas the driver names;
	 * sorted, not overlapping, inside the region. */
	unsigned int area_count;
	struct vfio_area areas[VFIO_SPARSE_AREAS_MAX];
	int map_fd; /* where areas are mapped from (vfio-user hands them out); -1: the device's */
};

struct vfio_irq {
	uint32_t index; /* VFIO_PCI_INTX_IRQ_INDEX ... */
	uint32_t count; /* 0: absent */
	bool eventfd, maskable, automasked, noresize;
};

/* A write the device takes as a signal of fd: KVM_IOEVENTFD's terms. */
struct vfio_ioeventfd {
	uint64_t offset; /* within the region */
	uint32_t size;	 /* 1, 2, 4, 8; 0: a write of any size */
	bool match;	 /* only this value */
	uint64_t value;
	int fd;
};

struct vfio_transport;
struct vfio_precopy_info; /* uapi_vfio.h */

struct vfio_transport_ops {
	const char *name; /* "cdev", "group", "user" */

	/* Fills what vfio_transport_open_* left: see the struct. */
	int (*region_info)(struct vfio_transport *t, uint32_t index, struct vfio_region *region,
			   struct error *err);
	int (*irq_info)(struct vfio_transport *t, uint32_t index, struct vfio_irq *irq,
			struct error *err);
	/* Whole accesses: a short one is -EIO. len is at most 8 for registers; larger for
	 * ROMs and migration data. */
	int (*region_read)(struct vfio_transport *t, const struct vfio_region *region,
			   uint64_t offset, void *data, size_t len, struct error *err);
	int (*region_write)(struct vfio_transport *t, const struct vfio_region *region,
			    uint64_t offset, const void *data, size_t len, struct error *err);
	/* mmap of [offset, offset + size) of a mappable area; munmap by the caller. */
	int (*region_map)(struct vfio_transport *t, const struct vfio_region *region,
			  uint64_t offset, uint64_t size, void **address, struct error *err);

	/* VFIO_DEVICE_SET_IRQS: eventfds for [start, start + count) of an index (-1 in the
	 * array: none), fds NULL: count 0 disables the index. The fds stay the caller's. */
	int (*set_irq_fds)(struct vfio_transport *t, uint32_t index, uint32_t start, uint32_t count,
			   const int *fds, struct error *err);
	/* INTx: mask, unmask now (VFIO_IRQ_SET_ACTION_*); unmask_fd: unmask when signalled
	 * (the resample eventfd), -1 takes it off. */
	int (*mask_irq)(struct vfio_transport *t, uint32_t index, bool masked, struct error *err);
	int (*set_unmask_fd)(struct vfio_transport *t, uint32_t index, int fd, struct error *err);

	int (*reset)(struct vfio_transport *t, struct error *err);
	/* VFIO_DEVICE_FEATURE: flags has the feature and GET, SET or PROBE; data is what
	 * follows the header, `len` its size in and room out. Returns the bytes that came
	 * back (0 for SET and PROBE) or -errno: -ENOTTY where the device lacks it. SET may
	 * answer in data, too (MIG_DEVICE_STATE); GET of DMA_BUF returns the descriptor. */
	int (*feature)(struct vfio_transport *t, uint32_t flags, void *data, size_t len,
		       struct error *err);

	/* Optional. Writes the device takes as a signal of an eventfd, without an exit to user
	 * space: up to `max` into out; the count, 0 where it offers none. The fds are the
	 * transport's and live until close. Control plane. */
	int (*region_ioeventfds)(struct vfio_transport *t, const struct vfio_region *region,
				 struct vfio_ioeventfd *out, unsigned int max, struct error *err);

	/*
	 * Optional, all or none: the stream that a SET of MIG_DEVICE_STATE begins. fd is the
	 * data_fd it returned (-1: the transport needs none). One thread at a time, but
	 * migration_precopy_info, which may come beside a read.
	 */
	/* Up to len bytes: how many; 0: there is no more; -ENOMSG: none for now, nor within
	 * wait_ms. vfio-user cannot tell these apart: 0 for both. */
	ssize_t (*migration_read)(struct vfio_transport *t, int fd, void *data, size_t len,
				  unsigned int wait_ms, struct error *err);
	/* All of it. */
	int (*migration_write)(struct vfio_transport *t, int fd, const void *data, size_t len,
			       struct error *err);
	/* VFIO_MIG_GET_PRECOPY_INFO; -ENOTTY: it cannot be asked. */
	int (*migration_precopy_info)(struct vfio_transport *t, int fd,
				      struct vfio_precopy_info *info, struct error *err);
	/* The stream is over, or given up: fd is closed. */
	void (*migration_end)(struct vfio_transport *t, int fd);

	/*
	 * Live update; NULL: it cannot be handed over. keep: what it has open and knows, under
	 * id, first while the device is used, then paused. hold: this process asks nothing of
	 * the device until it is let go of again, so that nothing is half-way when another
	 * goes on with it. own: of one that was made of what was kept; up to then it answers
	 * from that alone, and leaves the device and its space as they are. Control plane.
	 */
	int (*keep)(struct vfio_transport *t, struct kept *kept, const char *id, bool paused,
		    struct error *err);
	int (*hold)(struct vfio_transport *t, bool hold, struct error *err);
	int (*own)(struct vfio_transport *t, struct error *err);
	/* set_unmask_fd is this process's work, not the device's: to be done again after own. */
	bool keeps_unmask;

	/* Ends it: the device's descriptor is closed (which resets it), its space is left.
	 * Frees t. */
	void (*close)(struct vfio_transport *t);
};

/* Embedded first in the implementation's struct. */
struct vfio_transport {
	const struct vfio_transport_ops *ops;
	struct dma_space *space;
	char name[128]; /* for messages: "0000:01:10.0", a mediated device's UUID, a socket */
	uint32_t region_count, irq_count;
	bool resettable, is_pci;
	bool own_log; /* it logs its DMA now (device_dirty.h): its IOMMU need not */
	int fd;	      /* the device's (cdev, group) or the socket; for live update */
};

/*
 * Opens by a device's sysfs path ("/sys/bus/pci/devices/0000:01:10.0", or a mediated
 * device's), or by a descriptor the caller opened (device_fd >= 0: a cdev, taken over on
 * success). space is the machine's iommufd space. Errors as issue and README have them:
 * no such device; bound to another driver (which, and the command that binds it to
 * vfio-pci); no vfio-dev folder: no IOMMU, or a kernel without CONFIG_VFIO_DEVICE_CDEV
 * (-EOPNOTSUPP: the caller tries the group); permission.
 */
struct vfio_transport *vfio_transport_open_cdev(const char *sysfs_path, int device_fd,
						struct dma_space *space, struct log *log,
						struct error *err);

/* One that another process kept under id: bound, attached and set up as it is. space is that
 * process's, kept by it (dma_space_take_iommufd). */
struct vfio_transport *vfio_transport_take_cdev(const char *sysfs_path, struct kept *kept,
						const char *id, struct dma_space *space,
						struct log *log, struct error *err);

/* Whether id was kept by its group; and one that was, as vfio_transport_take_cdev. */
bool vfio_transport_kept_group(const struct kept *kept, const char *id);
struct vfio_transport *vfio_transport_take_group(const char *sysfs_path, struct kept *kept,
						 const char *id, struct dma_space *space,
						 struct log *log, struct error *err);

/* By the group of a sysfs path; space is the machine's type1 space. A group that is not
 * viable names the devices in it that hold it back. */
struct vfio_transport *vfio_transport_open_group(const char *sysfs_path, struct dma_space *space,
						 struct log *log, struct error *err);

/*
 * The server behind a unix socket. The transport makes its own DMA space: a server is
 * told of guest memory by messages. Requests time out after 5 s. The connection is
 * served in `loop`; when the server dies or speaks nonsense every call from then on
 * fails with -ECONNRESET, and `lost` is called once in the loop.
 */
struct vfio_user_options {
	const char *socket;
	struct guest_memory *memory;
	struct loop *loop;
	struct log *log;
	void (*lost)(void *opaque, const char *reason);
	void *opaque;
	/* The device goes on as it is. Else it is reset before it can reach memory: a server
	 * may keep what another guest left in it. (The kernel resets what is opened.) */
	bool keep_state;
	/* Another process's connection goes on here: kept under id. socket is then for messages
	 * alone, and until own() nothing is said to the server. */
	struct kept *kept;
	const char *id;
};
struct vfio_transport *vfio_transport_open_user(const struct vfio_user_options *options,
						struct error *err);

/* Whether sysfs_path names a device behind an iommufd-capable kernel here: decides which
 * of the two is tried first. */
bool vfio_cdev_available(const char *sysfs_path);

#endif
