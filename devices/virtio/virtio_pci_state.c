/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over PCI, saved and loaded: below the function's node
 *
 *	msix	table and pending vectors
 *	virtio	what the driver sees in the common configuration and the ISR
 *		queue-0...	registers and ring positions of a queue
 *		device		what the device adds
 *
 * A loaded device is active and paused, but was never activated: that comes with
 * resume, so that nothing is read from a tap, a disk or a socket before it is certain
 * that the guest goes on here.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_config.h>
#include <stdio.h>

#include "base/bytes.h"
#include "devices/virtio/virtio_pci_private.h"

#define KIND "virtio-pci"
#define VERSION 1
#define QUEUE_KIND "virtqueue"
#define QUEUE_VERSION 1

#define STATUS_KNOWN \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED)

static const struct state_field transport_fields[] = {
	STATE_FIELD(struct virtio_pci, device_feature_select, "device-feature-select", UINT32_MAX),
	STATE_FIELD(struct virtio_pci, driver_feature_select, "driver-feature-select", UINT32_MAX),
	STATE_FIELD(struct virtio_pci, driver_features, "driver-features", UINT64_MAX),
	STATE_FIELD(struct virtio_pci, queue_select, "queue-select", UINT16_MAX),
};

static const struct state_field queue_fields[] = {
	STATE_FIELD(struct virtio_pci_queue, size, "size", UINT16_MAX),
	STATE_FIELD(struct virtio_pci_queue, enabled, "enabled", 1),
	STATE_FIELD(struct virtio_pci_queue, desc, "descriptor-area", UINT64_MAX),
	STATE_FIELD(struct virtio_pci_queue, driver, "driver-area", UINT64_MAX),
	STATE_FIELD(struct virtio_pci_queue, device, "device-area", UINT64_MAX),
};

static const char *kind_of(const struct virtio_device *dev)
{
	switch (dev->type) {
	case VIRTIO_NET: return "virtio-net";
	case VIRTIO_BLK: return "virtio-blk";
	case VIRTIO_CONSOLE: return "virtio-console";
	case VIRTIO_RNG: return "virtio-rng";
	case VIRTIO_BALLOON: return "virtio-balloon";
	case VIRTIO_VSOCK: return "virtio-vsock";
	default: return "virtio-device";
	}
}

static uint32_t version_of(const struct virtio_device *dev)
{
	return MAX(dev->ops->state_version, 1U);
}

static int save_queue(struct virtio_pci *t, unsigned int i, struct state_writer *writer,
		      struct error *err)
{
	char name[24];
	int r;

	snprintf(name, sizeof(name), "queue-%u", i);
	state_begin(writer, name, QUEUE_KIND, QUEUE_VERSION);
	state_fields_save(writer, queue_fields, ARRAY_SIZE(queue_fields), &t->queues[i]);
	state_put_u32(writer, "vector", atomic_load(&t->queues[i].vector));
	r = virtqueue_save(&t->dev->queues[i], writer, err);
	state_end(writer);
	return r ? error_prefix(err, "queue %u", i) : 0;
}

static int save_device(struct virtio_device *dev, struct state_writer *writer, struct error *err)
{
	int r = 0;

	state_begin(writer, "device", kind_of(dev), version_of(dev));
	if (dev->ops->save)
		r = dev->ops->save(dev, writer, err);
	state_end(writer);
	return r;
}

static int save_locked(struct virtio_pci *t, struct state_writer *writer, struct error *err)
{
	struct virtio_device *dev = t->dev;
	int r = 0;

	if (dev->active && !t->paused)
		return error_set(err, EBUSY, "it is not paused");
	state_begin(writer, "virtio", KIND, VERSION);
	state_put_u32(writer, "queue-count", dev->queue_count);
	state_put_u32(writer, "status", atomic_load(&t->status));
	state_put_bool(writer, "active", dev->active);
	state_fields_save(writer, transport_fields, ARRAY_SIZE(transport_fields), t);
	state_put_u32(writer, "config-generation", atomic_load(&t->generation));
	state_put_u32(writer, "config-vector", atomic_load(&t->config_vector));
	pthread_mutex_lock(&t->irq_lock);
	state_put_u32(writer, "isr", t->isr);
	pthread_mutex_unlock(&t->irq_lock);
	for (unsigned int i = 0; !r && i < dev->queue_count; i++)
		r = save_queue(t, i, writer, err);
	if (!r)
		r = save_device(dev, writer, err);
	state_end(writer);
	return r;
}

int virtio_pci_save(struct pci_function *fn, struct state_writer *writer, struct error *err)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);
	int r;

	msix_save(t->msix, writer);
	pthread_mutex_lock(&t->lock);
	r = save_locked(t, writer, err);
	pthread_mutex_unlock(&t->lock);
	return r ? error_prefix(err, "save %s", fn->id) : 0;
}

static int get_vector(const struct virtio_pci *t, const struct state_node *node, const char *name,
		      uint16_t *vector, struct error *err)
{
	uint32_t value;
	int r = state_get_u32(node, name, &value, err);

	if (!r && value >= msix_vectors(t->msix) && value != MSIX_NO_VECTOR)
		r = state_refuse(node, name, err, "is %" PRIu32 " of %u vectors", value,
				 msix_vectors(t->msix));
	if (!r)
		*vector = (uint16_t)value;
	return r;
}

/* What a driver cannot have brought about is not taken. */
static int check_status(struct virtio_pci *t, const struct state_node *node, uint32_t status,
			bool active, struct error *err)
{
	uint64_t offered = virtio_pci_offered_features(t);

	if (status & ~STATUS_KNOWN)
		return state_refuse(node, "status", err, "is 0x%02" PRIx32 ": unknown bits",
				    status);
	if ((status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK))
		return state_refuse(node, "status", err,
				    "is 0x%02" PRIx32 ": DRIVER_OK without "
				    "FEATURES_OK",
				    status);
	if (active && !(status & VIRTIO_CONFIG_S_DRIVER_OK))
		return state_refuse(node, "active", err, "is 1 without DRIVER_OK in status");
	if (!(status & VIRTIO_CONFIG_S_FEATURES_OK))
		return 0;
	if (t->driver_features & ~offered)
		return state_refuse(node, "driver-features", err,
				    "is 0x%" PRIx64 ", of which 0x%" PRIx64 " is not offered here",
				    t->driver_features, t->driver_features & ~offered);
	if (!(t->driver_features & VIRTIO_FEATURE(VIRTIO_F_VERSION_1)))
		return state_refuse(node, "driver-features", err,
				    "is 0x%" PRIx64 ", without VERSION_1", t->driver_features);
	t->dev->features = t->driver_features;
	return 0;
}

static int load_transport(struct virtio_pci *t, const struct state_node *node, bool *active,
			  uint8_t *isr_bits, struct error *err)
{
	uint32_t status = 0, generation = 0, isr = 0;
	uint16_t vector = 0;
	int r = state_match_u32(node, "queue-count", t->dev->queue_count, err);

	if (!r)
		r = state_get_u32(node, "status", &status, err);
	if (!r)
		r = state_get_bool(node, "active", active, err);
	if (!r)
		r = state_fields_load(node, transport_fields, ARRAY_SIZE(transport_fields), t, err);
	if (!r)
		r = state_get_u32_max(node, "config-generation", UINT8_MAX, &generation, err);
	if (!r)
		r = get_vector(t, node, "config-vector", &vector, err);
	if (!r)
		r = state_get_u32_max(node, "isr", VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG, &isr, err);
	if (!r)
		r = check_status(t, node, status, *active, err);
	if (r)
		return r;
	atomic_store(&t->status, status);
	atomic_store(&t->generation, (uint8_t)generation);
	atomic_store(&t->config_vector, vector);
	*isr_bits = (uint8_t)isr;
	return 0;
}

static int load_queue(struct virtio_pci *t, const struct state_node *virtio, unsigned int i,
		      bool active, struct error *err)
{
	struct virtio_pci_queue *q = &t->queues[i];
	struct virtqueue *vq = &t->dev->queues[i];
	struct error why = ERROR_INIT;
	struct state_node node;
	uint16_t vector = 0;
	char name[24];
	int r;

	snprintf(name, sizeof(name), "queue-%u", i);
	r = state_expect_child(virtio, name, QUEUE_KIND, QUEUE_VERSION, &node, err);
	if (!r)
		r = state_fields_load(&node, queue_fields, ARRAY_SIZE(queue_fields), q, err);
	if (!r)
		r = get_vector(t, &node, "vector", &vector, err);
	if (r)
		return r;
	atomic_store(&q->vector, vector);
	if (active && q->enabled) {
		if (!q->size || q->size > vq->size_max)
			return state_refuse(&node, "size", err, "is %u, here 1 to %u", q->size,
					    vq->size_max);
		if (virtio_pci_start_queue(t, i, &why))
			return state_refuse(&node, "descriptor-area, driver-area or device-area",
					    err, "is none here: %s", why.message);
	}
	return virtqueue_load(vq, &node, err);
}

static int load_device(struct virtio_device *dev, const struct state_node *virtio,
		       struct error *err)
{
	struct state_node node;
	int r = state_expect_child(virtio, "device", kind_of(dev), version_of(dev), &node, err);

	if (!r && dev->ops->load)
		r = dev->ops->load(dev, &node, err);
	return r;
}

static int load_locked(struct virtio_pci *t, const struct state_node *function, uint8_t *isr,
		       struct error *err)
{
	struct state_node node;
	bool active = false;
	int r;

	if (t->dev->active)
		return error_set(err, EBUSY, "load %s: its driver runs already", t->dev->id);
	r = state_expect_child(function, "virtio", KIND, VERSION, &node, err);
	if (!r)
		r = load_transport(t, &node, &active, isr, err);
	for (unsigned int i = 0; !r && i < t->dev->queue_count; i++)
		r = load_queue(t, &node, i, active, err);
	if (r)
		return r;
	t->dev->active = t->paused = t->loaded = active;
	t->expected = 0;
	virtio_pci_update_ioevents(t);
	return load_device(t->dev, &node, err);
}

int virtio_pci_load(struct pci_function *fn, const struct state_node *node, struct error *err)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);
	uint8_t isr = 0;
	int r;

	pthread_mutex_lock(&t->lock);
	r = load_locked(t, node, &isr, err);
	pthread_mutex_unlock(&t->lock);
	if (!r)
		r = msix_load(t->msix, node, err);
	/* The line is raised without MSI-X only. */
	if (!r)
		virtio_pci_restore_isr(t, isr);
	return r;
}
