/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio 1.2 device, apart from its transport (virtio_pci.h).
 *
 * The transport handles status, features, queue set-up and interrupts; the device
 * says what it is, and runs its queues in a thread of its own (io_thread) between
 * activate() and deactivate(). Control calls come from vCPU threads (config space,
 * status) and the control plane, one at a time under the transport's lock; the data
 * path runs beside them and only touches its queues, virtio_device_signal() and
 * what the device protects itself.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_DEVICE_H
#define DEVICES_VIRTIO_VIRTIO_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "devices/device_host.h"
#include "devices/device_state.h"
#include "devices/virtio/virtqueue.h"
#include "memory/dirty_source.h"

/* Device ids, virtio 1.2 chapter 5. */
enum {
	VIRTIO_NET = 1,
	VIRTIO_BLK = 2,
	VIRTIO_CONSOLE = 3,
	VIRTIO_RNG = 4,
	VIRTIO_BALLOON = 5,
	VIRTIO_VSOCK = 19,
};

#define VIRTIO_QUEUES_MAX 66

/* Feature bits of the transport, chapter 6; devices' own are bits 0-23 and 50-63. */
#define VIRTIO_FEATURE(bit) (1ULL << (bit))
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX 29
#define VIRTIO_F_VERSION_1 32
#define VIRTIO_F_ACCESS_PLATFORM 33
#define VIRTIO_F_RING_PACKED 34
#define VIRTIO_F_IN_ORDER 35

struct virtio_device;

/* One named, monotonic counter, for vm.counters and /metrics. */
struct virtio_counter {
	const char *name; /* "read_bytes" */
	atomic_ullong value;
};

struct virtio_device_ops {
	/* Device config space, little-endian; out of range: zeros / dropped. */
	void (*config_read)(struct virtio_device *dev, uint32_t offset, void *data,
			    unsigned int len);
	void (*config_write)(struct virtio_device *dev, uint32_t offset, const void *data,
			     unsigned int len); /* may be NULL */
	/*
	 * DRIVER_OK was set: dev->features are negotiated, queues with .ready set are
	 * started. Begin serving them: queue i is kicked through kick_fd[i]
	 * (non-blocking eventfd) and signalled by virtio_device_signal(). A failure
	 * sets DEVICE_NEEDS_RESET and is logged.
	 */
	int (*activate)(struct virtio_device *dev, struct error *err);
	/* Reset or unplug: when it returns no thread touches queues or guest memory,
	 * and all I/O in flight has ended. Called only after a successful activate,
	 * also while paused (nothing may be served on then). */
	void (*deactivate)(struct virtio_device *dev);
	/*
	 * Its own part of the state (devices/device_state.h), as properties and nodes of
	 * a node the transport made; NULL: it has none. Paused or inactive. Load finds
	 * features, queues and their positions in place; the device is active then, but
	 * serves nothing before its first activate(), which sees `restored` and goes on
	 * from what was loaded. deactivate() may come without that.
	 */
	int (*save)(struct virtio_device *dev, struct state_writer *writer, struct error *err);
	int (*load)(struct virtio_device *dev, const struct state_node *node, struct error *err);
	/* Pause: as deactivate, but the queues' positions stay; requests in flight are
	 * completed. Resume serves on (and looks at every queue once). */
	void (*pause)(struct virtio_device *dev);
	void (*resume)(struct virtio_device *dev);
	/* As virtio_device_dirty_source; NULL: it writes by guest_memory alone. */
	int (*dirty_source)(struct virtio_device *dev, struct dirty_source **source,
			    struct error *err);
	/* What it has open, for a machine in another process that goes on with it
	 * (device_host.kept), under its id; NULL: nothing. First while it runs, then paused;
	 * it may be resumed after either. Control plane. */
	int (*keep)(struct virtio_device *dev, struct kept *kept, bool paused, struct error *err);
	/* It stays here after all: what keep had to give up is taken back, by resume too, which
	 * may come first; NULL: nothing. Running, paused or inactive. Control plane. */
	int (*unkeep)(struct virtio_device *dev, struct error *err);
	/* Inactive and off the bus. */
	void (*free)(struct virtio_device *dev);
	uint32_t state_version; /* of what save writes; 0 is 1 */
};

/* Embedded first in the device's own struct. */
struct virtio_device {
	const struct virtio_device_ops *ops;
	struct device_host *host;
	char id[64];
	uint16_t type;		  /* VIRTIO_NET... */
	uint64_t device_features; /* its own bits; the transport adds ring features */
	uint64_t withheld;	  /* ring features it cannot serve (vhost: RING_PACKED) */
	uint64_t features;	  /* negotiated */
	unsigned int queue_count;
	struct virtqueue queues[VIRTIO_QUEUES_MAX];
	int kick_fd[VIRTIO_QUEUES_MAX]; /* made by the transport */
	uint32_t config_size;
	bool active;
	bool restored; /* during the activate() that follows a load */

	struct virtio_counter *counters; /* the device's array, for life */
	unsigned int counter_count;

	/* Set by the transport. Any thread may call them through the wrappers. */
	const struct virtio_transport_ops *transport_ops;
	void *transport;
};

struct virtio_transport_ops {
	void (*signal)(void *transport, unsigned int queue);
	void (*config_changed)(void *transport);
	void (*needs_reset)(void *transport, const char *reason);
	/* The eventfd that interrupts for a queue (vhost); -1 while it has none. */
	int (*call_fd)(void *transport, unsigned int queue);
};

/* The driver is interrupted for this queue, unconditionally: ask
 * virtqueue_should_signal() first. */
static inline void virtio_device_signal(struct virtio_device *dev, unsigned int queue)
{
	dev->transport_ops->signal(dev->transport, queue);
}

/* Config space changed: generation and interrupt. */
static inline void virtio_device_config_changed(struct virtio_device *dev)
{
	dev->transport_ops->config_changed(dev->transport);
}

/* The driver did what it must not; `reason` is logged (rate-limited). */
static inline void virtio_device_needs_reset(struct virtio_device *dev, const char *reason)
{
	dev->transport_ops->needs_reset(dev->transport, reason);
}

static inline int virtio_device_call_fd(struct virtio_device *dev, unsigned int queue)
{
	return dev->transport_ops->call_fd(dev->transport, queue);
}

/*
 * Who follows what the device writes to RAM past guest_memory (vhost does): *source is
 * the device's for its life, or NULL where there is nothing of the kind. -EOPNOTSUPP
 * where that cannot be followed. Control plane.
 */
static inline int virtio_device_dirty_source(struct virtio_device *dev,
					     struct dirty_source **source, struct error *err)
{
	*source = NULL;
	return dev->ops->dirty_source ? dev->ops->dirty_source(dev, source, err) : 0;
}

static inline bool virtio_device_has(const struct virtio_device *dev, unsigned int feature)
{
	return dev->features & VIRTIO_FEATURE(feature);
}

#endif
