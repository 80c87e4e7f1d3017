/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's side of virtio, for unit tests: a driver of one queue, split or
 * packed, that builds rings and chains in guest memory; and a transport that
 * stands between a device and such drivers.
 *
 *	struct fake_driver driver;
 *	struct guest_memory *memory = fake_driver_memory(MIB);
 *
 *	fake_driver_init(&driver, memory, 0x10000, 16, packed);
 *	fake_driver_configure(&driver, &vq);	// then virtqueue_start(&vq, &err)
 *	fake_driver_add(&driver, (struct fake_buffer[]){ { 0x1000, 16, false } }, 1);
 *	...
 *	while (fake_driver_used(&driver, &id, &len)) ...
 *
 * What fails here fails the test. To build rings that are wrong, set descriptors
 * by hand: fake_driver_set_descriptor(), fake_driver_publish().
 *
 * What needs more than base is inline, because helpers are linked into the tests
 * of libraries below devices as well.
 */
#ifndef TESTS_UNIT_HELPERS_FAKE_DRIVER_H
#define TESTS_UNIT_HELPERS_FAKE_DRIVER_H

#include <check.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "devices/virtio/virtio_device.h"
#include "devices/virtio/virtqueue.h"

struct fake_buffer {
	uint64_t gpa;
	uint32_t len;
	bool writable;
};

struct fake_driver {
	struct guest_memory *memory;
	const struct guest_memory_region *ram; /* the first region: rings lie in it */
	uint16_t size;
	bool packed;
	bool event_idx, indirect;      /* true; change before fake_driver_configure() */
	uint64_t desc, driver, device; /* gpa of the areas */
	uint16_t avail;		       /* free-running; packed: position with wrap bit 15 */
	uint16_t used;
	uint16_t kicked; /* avail when fake_driver_wants_kick() was last asked */
	uint16_t next;	 /* next descriptor (split) or id (packed) to use */
	uint16_t counts[VIRTQUEUE_SIZE_MAX]; /* descriptors of the chain, by id (packed) */
};

/* RAM at [0, size), no hole. */
static inline struct guest_memory *fake_driver_memory(uint64_t size)
{
	struct guest_memory_options options = {
		.size = size,
		.low_end = 3 * GIB,
		.high_start = 4 * GIB,
	};
	struct error err = ERROR_INIT;
	struct guest_memory *memory = guest_memory_new(&options, &err);

	ck_assert_msg(memory != NULL, "guest memory: %s", err.message);
	return memory;
}

uint64_t fake_driver_layout(struct fake_driver *driver, struct guest_memory *memory,
			    const struct guest_memory_region *ram, uint64_t gpa, uint16_t size,
			    bool packed);

/* Lays the areas out from gpa on (4 KiB aligned, zeroed); returns the gpa after. */
static inline uint64_t fake_driver_init(struct fake_driver *driver, struct guest_memory *memory,
					uint64_t gpa, uint16_t size, bool packed)
{
	return fake_driver_layout(driver, memory, guest_memory_region(memory, 0), gpa, size,
				  packed);
}

/* Describes the queue to the device's side. vq->size_max is set where it is 0. */
void fake_driver_configure(const struct fake_driver *driver, struct virtqueue *vq);

/* Makes a chain of n buffers available; returns its id. */
uint16_t fake_driver_add(struct fake_driver *driver, const struct fake_buffer *buffers,
			 unsigned int n);
/* The same by an indirect table, written to table_gpa. */
uint16_t fake_driver_add_indirect(struct fake_driver *driver, uint64_t table_gpa,
				  const struct fake_buffer *buffers, unsigned int n);
/* Takes the next chain the device returned; false where there is none. */
bool fake_driver_used(struct fake_driver *driver, uint16_t *id, uint32_t *len);

/* By hand: any descriptor; `next` is the id in a packed ring, and flags there are
 * taken as they are. */
void fake_driver_set_descriptor(struct fake_driver *driver, uint16_t index, uint64_t addr,
				uint32_t len, uint16_t flags, uint16_t next);
/* Split: puts head into the available ring and moves the index by one. */
void fake_driver_publish(struct fake_driver *driver, uint16_t head);
/* Split: sets the available index. */
void fake_driver_set_avail(struct fake_driver *driver, uint16_t index);
/* Packed: AVAIL and USED bits for a descriptor made available at `position`. */
uint16_t fake_driver_packed_flags(uint16_t position);

/* Interrupts by flag: all or none. */
void fake_driver_set_interrupts(struct fake_driver *driver, bool on);
/* Interrupts by event: when the chain at this used position is returned. */
void fake_driver_set_used_event(struct fake_driver *driver, uint16_t position);
/* Whether a driver would kick for what it added since it last asked. */
bool fake_driver_wants_kick(struct fake_driver *driver);

/* A transport for one device, without PCI. */
struct fake_transport {
	struct virtio_device *dev;
	atomic_uint signals[VIRTIO_QUEUES_MAX];
	atomic_uint config_changes;
	atomic_uint resets_needed;
	int call_fd[VIRTIO_QUEUES_MAX];
	struct fake_driver drivers[VIRTIO_QUEUES_MAX];
};

/* Becomes dev's transport: makes kick and call eventfds. */
void fake_transport_attach(struct fake_transport *transport, struct virtio_device *dev);
/* Sets up every queue of the device (size 0: its size_max) with rings from ring_gpa
 * on, negotiates `features` (with RING_PACKED, EVENT_IDX, INDIRECT_DESC as given)
 * and activates. Returns the gpa after the last ring. */
static inline uint64_t fake_transport_activate(struct fake_transport *transport, uint64_t features,
					       uint64_t ring_gpa, uint16_t size)
{
	struct virtio_device *dev = transport->dev;
	struct error err = ERROR_INIT;

	dev->features = features | VIRTIO_FEATURE(VIRTIO_F_VERSION_1);
	for (unsigned int i = 0; i < dev->queue_count; i++) {
		struct fake_driver *driver = &transport->drivers[i];

		ring_gpa = fake_driver_init(driver, dev->host->memory, ring_gpa,
					    size ? size : dev->queues[i].size_max,
					    virtio_device_has(dev, VIRTIO_F_RING_PACKED));
		driver->event_idx = virtio_device_has(dev, VIRTIO_F_EVENT_IDX);
		driver->indirect = virtio_device_has(dev, VIRTIO_F_INDIRECT_DESC);
		fake_driver_configure(driver, &dev->queues[i]);
		ck_assert_msg(!virtqueue_start(&dev->queues[i], &err), "%s", err.message);
	}
	ck_assert_msg(!dev->ops->activate(dev, &err), "%s", err.message);
	dev->active = true;
	return ring_gpa;
}
void fake_transport_kick(struct fake_transport *transport, unsigned int queue);
/* Waits until the device has returned a chain on the queue; false: not in time. */
bool fake_transport_wait_used(struct fake_transport *transport, unsigned int queue, uint16_t *id,
			      uint32_t *len, unsigned int timeout_ms);
/* Waits for an interrupt of the queue since the last call. */
bool fake_transport_wait_signal(struct fake_transport *transport, unsigned int queue,
				unsigned int timeout_ms);
bool fake_transport_wait_reset_needed(struct fake_transport *transport, unsigned int timeout_ms);
/* Deactivates where active, frees the device, closes the eventfds. */
void fake_transport_destroy(struct fake_transport *transport);

#endif
