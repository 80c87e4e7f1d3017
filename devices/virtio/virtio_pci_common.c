/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Common configuration (virtio 1.2, 4.1.4.3) and the status machine (2.1, 3.1).
 */
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/virtio/virtio_pci_private.h"

uint64_t virtio_pci_offered_features(const struct virtio_pci *t)
{
	uint64_t ring = VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) |
			VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | VIRTIO_FEATURE(VIRTIO_F_RING_PACKED);

	return t->dev->device_features | VIRTIO_FEATURE(VIRTIO_F_VERSION_1) |
	       (ring & ~t->dev->withheld);
}

static uint32_t half(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

/* The selected queue; NULL where the device has none of that number. */
static struct virtio_pci_queue *selected(struct virtio_pci *t)
{
	return t->queue_select < t->dev->queue_count ? &t->queues[t->queue_select] : NULL;
}

void virtio_pci_common_read(struct virtio_pci *t, uint32_t offset, void *data, unsigned int len)
{
	const struct virtio_pci_queue *q;
	uint8_t regs[VIRTIO_PCI_COMMON_SIZE] = { 0 };

	memset(data, 0, len);
	if (offset >= sizeof(regs))
		return;
	pthread_mutex_lock(&t->lock);
	store_le32(regs + VIRTIO_PCI_COMMON_DFSELECT, t->device_feature_select);
	store_le32(regs + VIRTIO_PCI_COMMON_DF,
		   half(virtio_pci_offered_features(t), t->device_feature_select));
	store_le32(regs + VIRTIO_PCI_COMMON_GFSELECT, t->driver_feature_select);
	store_le32(regs + VIRTIO_PCI_COMMON_GF, half(t->driver_features, t->driver_feature_select));
	store_le16(regs + VIRTIO_PCI_COMMON_MSIX, atomic_load(&t->config_vector));
	store_le16(regs + VIRTIO_PCI_COMMON_NUMQ, (uint16_t)t->dev->queue_count);
	regs[VIRTIO_PCI_COMMON_STATUS] = (uint8_t)atomic_load(&t->status);
	regs[VIRTIO_PCI_COMMON_CFGGENERATION] = atomic_load(&t->generation);
	store_le16(regs + VIRTIO_PCI_COMMON_Q_SELECT, t->queue_select);
	q = selected(t);
	if (q) {
		store_le16(regs + VIRTIO_PCI_COMMON_Q_SIZE, q->size);
		store_le16(regs + VIRTIO_PCI_COMMON_Q_MSIX, atomic_load(&q->vector));
		store_le16(regs + VIRTIO_PCI_COMMON_Q_ENABLE, q->enabled);
		store_le16(regs + VIRTIO_PCI_COMMON_Q_NOFF, t->queue_select);
		store_le64(regs + VIRTIO_PCI_COMMON_Q_DESCLO, q->desc);
		store_le64(regs + VIRTIO_PCI_COMMON_Q_AVAILLO, q->driver);
		store_le64(regs + VIRTIO_PCI_COMMON_Q_USEDLO, q->device);
	}
	pthread_mutex_unlock(&t->lock);
	memcpy(data, regs + offset, MIN((size_t)len, sizeof(regs) - offset));
}

int virtio_pci_start_queue(struct virtio_pci *t, unsigned int i, struct error *err)
{
	const struct virtio_pci_queue *q = &t->queues[i];
	struct virtqueue *vq = &t->dev->queues[i];

	vq->size = q->size;
	vq->desc = q->desc;
	vq->driver = q->driver;
	vq->device = q->device;
	vq->packed = virtio_device_has(t->dev, VIRTIO_F_RING_PACKED);
	vq->event_idx = virtio_device_has(t->dev, VIRTIO_F_EVENT_IDX);
	vq->indirect = virtio_device_has(t->dev, VIRTIO_F_INDIRECT_DESC);
	if (virtqueue_start(vq, err))
		return error_prefix(err, "queue %u", i);
	return 0;
}

static void reset_queues(struct virtio_pci *t)
{
	for (unsigned int i = 0; i < t->dev->queue_count; i++)
		virtqueue_reset(&t->dev->queues[i]);
}

static void activate(struct virtio_pci *t)
{
	struct virtio_device *dev = t->dev;
	struct error err = ERROR_INIT;
	int r = 0;

	for (unsigned int i = 0; i < dev->queue_count && !r; i++)
		if (t->queues[i].enabled)
			r = virtio_pci_start_queue(t, i, &err);
	if (!r)
		r = dev->ops->activate(dev, &err);
	if (r) {
		reset_queues(t);
		virtio_pci_needs_reset(t, err.message);
		return;
	}
	dev->active = true;
	virtio_pci_update_ioevents(t);
}

void virtio_pci_activate_loaded(struct virtio_pci *t)
{
	struct virtio_device *dev = t->dev;
	struct error err = ERROR_INIT;
	int r;

	t->loaded = false;
	dev->restored = true;
	r = dev->ops->activate(dev, &err);
	dev->restored = false;
	if (r) {
		dev->active = false;
		virtio_pci_update_ioevents(t);
		reset_queues(t);
		virtio_pci_needs_reset(t, err.message);
		return;
	}
	/* An interrupt that was on its way when the other side was saved may not have
	 * reached what was saved of the interrupt controllers. One too many does no harm. */
	for (unsigned int i = 0; i < dev->queue_count; i++)
		if (t->queues[i].enabled)
			virtio_device_signal(dev, i);
}

void virtio_pci_reset_locked(struct virtio_pci *t)
{
	struct virtio_device *dev = t->dev;

	if (dev->active) {
		dev->active = false;
		virtio_pci_update_ioevents(t);
		dev->ops->deactivate(dev);
	}
	t->paused = t->loaded = false;
	reset_queues(t);
	dev->features = 0;
	t->device_feature_select = t->driver_feature_select = 0;
	t->driver_features = 0;
	t->queue_select = 0;
	for (unsigned int i = 0; i < dev->queue_count; i++) {
		struct virtio_pci_queue *q = &t->queues[i];

		q->size = dev->queues[i].size_max;
		q->enabled = false;
		q->desc = q->driver = q->device = 0;
		atomic_store(&q->vector, MSIX_NO_VECTOR);
		eventfd_drain(dev->kick_fd[i]);
	}
	atomic_store(&t->config_vector, MSIX_NO_VECTOR);
	virtio_pci_clear_intx(t);
	atomic_store(&t->status, 0);
}

/* FEATURES_OK stays clear where the driver took what was not offered, or left
 * VERSION_1; the driver reads the status back to see. */
static bool accept_features(struct virtio_pci *t)
{
	uint64_t features = t->driver_features;

	if (features & ~virtio_pci_offered_features(t))
		return false;
	if (!(features & VIRTIO_FEATURE(VIRTIO_F_VERSION_1)))
		return false;
	t->dev->features = features;
	return true;
}

static void write_status(struct virtio_pci *t, uint8_t value)
{
	unsigned int status = atomic_load(&t->status);
	unsigned int added = value & ~status;

	if (!value) {
		virtio_pci_reset_locked(t);
		return;
	}
	/* Bits are only ever added; NEEDS_RESET is the device's own. */
	atomic_fetch_or(&t->status, added & (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
					     VIRTIO_CONFIG_S_FAILED));
	if ((added & VIRTIO_CONFIG_S_FEATURES_OK) && accept_features(t))
		atomic_fetch_or(&t->status, VIRTIO_CONFIG_S_FEATURES_OK);
	if ((added & VIRTIO_CONFIG_S_DRIVER_OK) &&
	    (atomic_load(&t->status) & VIRTIO_CONFIG_S_FEATURES_OK)) {
		atomic_fetch_or(&t->status, VIRTIO_CONFIG_S_DRIVER_OK);
		activate(t);
	}
}

static uint16_t valid_vector(const struct virtio_pci *t, uint16_t vector)
{
	return vector < msix_vectors(t->msix) ? vector : MSIX_NO_VECTOR;
}

static void write_driver_features(struct virtio_pci *t, uint32_t value)
{
	unsigned int shift = 32 * t->driver_feature_select;

	if (t->driver_feature_select > 1 || (atomic_load(&t->status) & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	t->driver_features &= ~(0xffffffffULL << shift);
	t->driver_features |= (uint64_t)value << shift;
}

/* The areas of a queue, as two dwords or at once. */
static void write_area(struct virtio_pci_queue *q, uint32_t offset, uint64_t value,
		       unsigned int len)
{
	uint64_t *area[] = { &q->desc, &q->driver, &q->device };
	uint64_t *p = area[(offset - VIRTIO_PCI_COMMON_Q_DESCLO) / 8];

	if (len == 8 && !(offset & 7))
		*p = value;
	else if (len == 4 && !(offset & 7))
		*p = (*p & ~0xffffffffULL) | value;
	else if (len == 4 && (offset & 7) == 4)
		*p = (*p & 0xffffffffULL) | value << 32;
}

static void write_queue(struct virtio_pci *t, uint32_t offset, uint64_t value, unsigned int len)
{
	struct virtio_pci_queue *q = selected(t);

	if (!q)
		return;
	if (offset == VIRTIO_PCI_COMMON_Q_MSIX && len == 2) {
		atomic_store(&q->vector, valid_vector(t, (uint16_t)value));
		return;
	}
	/* A queue in use stays as it is until reset. */
	if (q->enabled)
		return;
	if (offset == VIRTIO_PCI_COMMON_Q_SIZE && len == 2)
		q->size = (uint16_t)value;
	else if (offset == VIRTIO_PCI_COMMON_Q_ENABLE && len == 2)
		q->enabled = value == 1 && !(atomic_load(&t->status) & VIRTIO_CONFIG_S_DRIVER_OK);
	else if (offset >= VIRTIO_PCI_COMMON_Q_DESCLO && offset < VIRTIO_PCI_COMMON_SIZE)
		write_area(q, offset, value, len);
}

/* Writes take effect where they are as wide as the register; others are dropped. */
void virtio_pci_common_write(struct virtio_pci *t, uint32_t offset, const void *data,
			     unsigned int len)
{
	uint64_t value = load_le(data, len);

	pthread_mutex_lock(&t->lock);
	virtio_pci_resume_locked(t);
	if (offset == VIRTIO_PCI_COMMON_DFSELECT && len == 4)
		t->device_feature_select = (uint32_t)value;
	else if (offset == VIRTIO_PCI_COMMON_GFSELECT && len == 4)
		t->driver_feature_select = (uint32_t)value;
	else if (offset == VIRTIO_PCI_COMMON_GF && len == 4)
		write_driver_features(t, (uint32_t)value);
	else if (offset == VIRTIO_PCI_COMMON_MSIX && len == 2)
		atomic_store(&t->config_vector, valid_vector(t, (uint16_t)value));
	else if (offset == VIRTIO_PCI_COMMON_STATUS && len == 1)
		write_status(t, (uint8_t)value);
	else if (offset == VIRTIO_PCI_COMMON_Q_SELECT && len == 2)
		t->queue_select = (uint16_t)value;
	else if (offset >= VIRTIO_PCI_COMMON_Q_SIZE)
		write_queue(t, offset, value, len);
	pthread_mutex_unlock(&t->lock);
}
