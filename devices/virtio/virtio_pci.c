/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/virtio_pci.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/virtio/virtio_pci_private.h"

#define PCI_VENDOR_VIRTIO 0x1af4
#define PCI_DEVICE_VIRTIO_MODERN 0x1040
#define PCI_CAP_VENDOR 0x09
#define QUEUE_SIZE_DEFAULT 256

/* Interrupts: device threads come here, without t->lock. */

/* irq_lock held. */
static void update_intx(struct virtio_pci *t)
{
	irq_line_set(&t->fn.intx,
		     t->isr && !msix_enabled(t->msix) && !atomic_load(&t->intx_disabled));
}

void virtio_pci_interrupt(struct virtio_pci *t, uint8_t isr, uint16_t vector)
{
	if (msix_enabled(t->msix)) {
		msix_signal(t->msix, vector);
		return;
	}
	pthread_mutex_lock(&t->irq_lock);
	t->isr |= isr;
	update_intx(t);
	pthread_mutex_unlock(&t->irq_lock);
}

/* Reading the ISR clears it and lowers the line. */
static uint8_t take_isr(struct virtio_pci *t)
{
	uint8_t isr;

	pthread_mutex_lock(&t->irq_lock);
	isr = t->isr;
	t->isr = 0;
	if (isr)
		update_intx(t);
	pthread_mutex_unlock(&t->irq_lock);
	return isr;
}

void virtio_pci_clear_intx(struct virtio_pci *t)
{
	take_isr(t);
}

void virtio_pci_restore_isr(struct virtio_pci *t, uint8_t isr)
{
	pthread_mutex_lock(&t->irq_lock);
	atomic_store(&t->intx_disabled, pci_function_command(&t->fn) & PCI_COMMAND_INTX_DISABLE);
	t->isr = isr;
	update_intx(t);
	pthread_mutex_unlock(&t->irq_lock);
}

static void signal_queue(void *transport, unsigned int queue)
{
	struct virtio_pci *t = transport;

	if (queue < t->dev->queue_count)
		virtio_pci_interrupt(t, VIRTIO_ISR_QUEUE, atomic_load(&t->queues[queue].vector));
}

static void config_changed(void *transport)
{
	struct virtio_pci *t = transport;

	atomic_fetch_add(&t->generation, 1);
	if (atomic_load(&t->status) & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_pci_interrupt(t, VIRTIO_ISR_CONFIG, atomic_load(&t->config_vector));
}

void virtio_pci_needs_reset(void *transport, const char *reason)
{
	struct virtio_pci *t = transport;

	log_limited(t->host->log, &t->driver_errors, LOG_LEVEL_WARNING,
		    "%s: needs a reset by its driver: %s", t->dev->id, reason);
	atomic_fetch_or(&t->status, VIRTIO_CONFIG_S_NEEDS_RESET);
	config_changed(t);
}

static int call_fd(void *transport, unsigned int queue)
{
	struct virtio_pci *t = transport;
	uint16_t vector;

	if (queue >= t->dev->queue_count || !msix_enabled(t->msix))
		return -1;
	vector = atomic_load(&t->queues[queue].vector);
	return vector == MSIX_NO_VECTOR ? -1 : msix_eventfd(t->msix, vector);
}

static const struct virtio_transport_ops transport_ops = {
	.signal = signal_queue,
	.config_changed = config_changed,
	.needs_reset = virtio_pci_needs_reset,
	.call_fd = call_fd,
};

/* Kicks. */

/*
 * Only an active device has ioeventfds: while the guest's PCI code sizes BARs it
 * switches decoding off and on, and each attach costs the kernel a grace period.
 * A kick that comes before is a plain MMIO write.
 */
void virtio_pci_update_ioevents(struct virtio_pci *t)
{
	const struct ioevents *ioevents = &t->host->ioevents;
	struct error err = ERROR_INIT;

	for (unsigned int i = 0; i < t->dev->queue_count && ioevents->ops; i++) {
		struct virtio_pci_queue *q = &t->queues[i];
		uint64_t gpa = t->notify_base + VIRTIO_PCI_NOTIFY_MULTIPLIER * (uint64_t)i;
		bool wanted = t->bar_mapped &&
			      ((t->dev->active && q->enabled) || (i < 64 && t->expected >> i & 1));

		if (wanted == q->ioevent)
			continue;
		if (!wanted)
			ioevents->ops->detach(ioevents->opaque, false, gpa, 0, false, 0,
					      t->dev->kick_fd[i]);
		else if (ioevents->ops->attach(ioevents->opaque, false, gpa, 0, false, 0,
					       t->dev->kick_fd[i], &err)) {
			error_prefix(&err, "queue %u is kicked through the VMM", i);
			log_error(t->host->log, t->dev->id, &err);
			wanted = false;
		}
		q->ioevent = wanted;
	}
}

uint64_t virtio_pci_doorbells(struct pci_function *fn)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);
	uint64_t doorbells = 0;

	pthread_mutex_lock(&t->lock);
	for (unsigned int i = 0; i < MIN(t->dev->queue_count, 64U); i++)
		doorbells |= (uint64_t)t->queues[i].ioevent << i;
	pthread_mutex_unlock(&t->lock);
	return doorbells;
}

void virtio_pci_expect_doorbells(struct pci_function *fn, uint64_t doorbells)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);

	pthread_mutex_lock(&t->lock);
	t->expected = doorbells;
	virtio_pci_update_ioevents(t);
	pthread_mutex_unlock(&t->lock);
}

static void bar_mapped(struct pci_function *fn, unsigned int bar)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);

	if (bar)
		return;
	pthread_mutex_lock(&t->lock);
	t->notify_base = fn->bars[0].address + BAR_NOTIFY;
	t->bar_mapped = true;
	virtio_pci_update_ioevents(t);
	pthread_mutex_unlock(&t->lock);
}

static void bar_unmapped(struct pci_function *fn, unsigned int bar)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);

	if (bar)
		return;
	pthread_mutex_lock(&t->lock);
	t->bar_mapped = false;
	virtio_pci_update_ioevents(t);
	pthread_mutex_unlock(&t->lock);
}

/* A kick KVM did not take. */
static void notify_write(struct virtio_pci *t, uint32_t offset)
{
	unsigned int queue = offset / VIRTIO_PCI_NOTIFY_MULTIPLIER;

	if (offset % VIRTIO_PCI_NOTIFY_MULTIPLIER == 0 && queue < t->dev->queue_count)
		eventfd_signal(t->dev->kick_fd[queue]);
}

/* The BAR. */

static void device_config_read(struct virtio_pci *t, uint32_t offset, void *data, unsigned int len)
{
	memset(data, 0, len);
	if (offset >= t->dev->config_size)
		return;
	len = MIN(len, t->dev->config_size - offset);
	pthread_mutex_lock(&t->lock);
	t->dev->ops->config_read(t->dev, offset, data, len);
	pthread_mutex_unlock(&t->lock);
}

static void device_config_write(struct virtio_pci *t, uint32_t offset, const void *data,
				unsigned int len)
{
	if (!t->dev->ops->config_write || offset >= t->dev->config_size ||
	    len > t->dev->config_size - offset)
		return;
	pthread_mutex_lock(&t->lock);
	virtio_pci_resume_locked(t);
	t->dev->ops->config_write(t->dev, offset, data, len);
	pthread_mutex_unlock(&t->lock);
}

static void bar_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct virtio_pci *t = opaque;
	uint32_t in_page = offset % BAR_PAGE;

	memset(data, 0, len);
	if (in_page + len > BAR_PAGE)
		return;
	switch (offset - in_page) {
	case BAR_COMMON: virtio_pci_common_read(t, in_page, data, len); break;
	case BAR_ISR:
		if (!in_page)
			*(uint8_t *)data = take_isr(t);
		break;
	case BAR_DEVICE: device_config_read(t, in_page, data, len); break;
	case BAR_MSIX_TABLE:
		if (in_page + len <= 16 * msix_vectors(t->msix))
			msix_table_read(t->msix, in_page, data, len);
		break;
	case BAR_MSIX_PBA:
		if (in_page + len <= align_up(msix_vectors(t->msix), 64) / 8)
			msix_pba_read(t->msix, in_page, data, len);
		break;
	default: break;
	}
}

static void bar_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct virtio_pci *t = opaque;
	uint32_t in_page = offset % BAR_PAGE;

	if (in_page + len > BAR_PAGE)
		return;
	switch (offset - in_page) {
	case BAR_COMMON: virtio_pci_common_write(t, in_page, data, len); break;
	case BAR_DEVICE: device_config_write(t, in_page, data, len); break;
	case BAR_NOTIFY: notify_write(t, in_page); break;
	case BAR_MSIX_TABLE:
		if (in_page + len <= 16 * msix_vectors(t->msix))
			msix_table_write(t->msix, in_page, data, len);
		break;
	default: break;
	}
}

static const struct bus_ops bar_ops = {
	.read = bar_read,
	.write = bar_write,
};

/* Config space. */

/*
 * The window of VIRTIO_PCI_CAP_PCI_CFG (4.1.4.9): whether the access described by
 * the capability's fields is one to virtio's structures in the BAR.
 */
static bool window(struct pci_function *fn, unsigned int cap, uint32_t *offset, unsigned int *len)
{
	*offset = load_le32(fn->config + cap + VIRTIO_PCI_CAP_OFFSET);
	*len = load_le32(fn->config + cap + VIRTIO_PCI_CAP_LENGTH);
	return fn->config[cap + VIRTIO_PCI_CAP_BAR] == 0 && (*len == 1 || *len == 2 || *len == 4) &&
	       *offset % *len == 0 && *offset < BAR_MSIX_TABLE;
}

static bool in_window(const struct virtio_pci *t, unsigned int offset)
{
	unsigned int data = t->pci_cfg_cap + sizeof(struct virtio_pci_cap);

	return offset >= data && offset < data + 4;
}

static bool config_read(struct pci_function *fn, unsigned int offset, void *data, unsigned int len)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);
	unsigned int width;
	uint32_t at;

	if (!in_window(t, offset))
		return false;
	if (window(fn, t->pci_cfg_cap, &at, &width))
		bar_read(t, at, fn->config + t->pci_cfg_cap + sizeof(struct virtio_pci_cap), width);
	memcpy(data, fn->config + offset, len);
	return true;
}

static bool config_write(struct pci_function *fn, unsigned int offset, const void *data,
			 unsigned int len)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);
	unsigned int width;
	uint32_t at;

	if (!in_window(t, offset))
		return false;
	memcpy(fn->config + offset, data, len);
	if (window(fn, t->pci_cfg_cap, &at, &width))
		bar_write(t, at, fn->config + t->pci_cfg_cap + sizeof(struct virtio_pci_cap),
			  width);
	return true;
}

static void config_written(struct pci_function *fn, unsigned int offset, unsigned int len)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);

	msix_config_written(t->msix, offset, len);
	pthread_mutex_lock(&t->irq_lock);
	atomic_store(&t->intx_disabled, pci_function_command(fn) & PCI_COMMAND_INTX_DISABLE);
	if (t->isr)
		update_intx(t);
	pthread_mutex_unlock(&t->irq_lock);
}

static void reset(struct pci_function *fn)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);

	pthread_mutex_lock(&t->lock);
	virtio_pci_reset_locked(t);
	atomic_store(&t->generation, 0);
	pthread_mutex_unlock(&t->lock);
	msix_reset(t->msix);
}

static void free_function(struct pci_function *fn)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);
	struct virtio_device *dev = t->dev;

	pthread_mutex_lock(&t->lock);
	virtio_pci_reset_locked(t);
	pthread_mutex_unlock(&t->lock);
	msix_free(t->msix);
	for (unsigned int i = 0; i < dev->queue_count; i++)
		close(dev->kick_fd[i]);
	dev->ops->free(dev);
	pci_function_destroy(fn);
	pthread_mutex_destroy(&t->lock);
	pthread_mutex_destroy(&t->irq_lock);
	free(t);
}

static const struct pci_function_ops function_ops = {
	.config_read = config_read,
	.config_write = config_write,
	.config_written = config_written,
	.bar_mapped = bar_mapped,
	.bar_unmapped = bar_unmapped,
	.reset = reset,
	.save = virtio_pci_save,
	.load = virtio_pci_load,
	.free = free_function,
};

/* Making one. */

static int add_capability(struct virtio_pci *t, uint8_t type, uint32_t offset, uint32_t length,
			  unsigned int size)
{
	int cap = pci_function_add_capability(&t->fn, PCI_CAP_VENDOR, size);
	uint8_t *config;

	if (cap < 0)
		return cap;
	config = t->fn.config + cap;
	config[VIRTIO_PCI_CAP_LEN] = (uint8_t)size;
	config[VIRTIO_PCI_CAP_CFG_TYPE] = type;
	config[VIRTIO_PCI_CAP_BAR] = 0;
	store_le32(config + VIRTIO_PCI_CAP_OFFSET, offset);
	store_le32(config + VIRTIO_PCI_CAP_LENGTH, length);
	return cap;
}

static int add_capabilities(struct virtio_pci *t)
{
	const unsigned int plain = sizeof(struct virtio_pci_cap), more = plain + 4;
	int cap;

	if (add_capability(t, VIRTIO_PCI_CAP_COMMON_CFG, BAR_COMMON, VIRTIO_PCI_COMMON_SIZE,
			   plain) < 0 ||
	    add_capability(t, VIRTIO_PCI_CAP_ISR_CFG, BAR_ISR, 1, plain) < 0)
		return -ENOSPC;
	if (t->dev->config_size && add_capability(t, VIRTIO_PCI_CAP_DEVICE_CFG, BAR_DEVICE,
						  t->dev->config_size, plain) < 0)
		return -ENOSPC;
	cap = add_capability(t, VIRTIO_PCI_CAP_NOTIFY_CFG, BAR_NOTIFY,
			     t->dev->queue_count * VIRTIO_PCI_NOTIFY_MULTIPLIER, more);
	if (cap < 0)
		return -ENOSPC;
	store_le32(t->fn.config + cap + plain, VIRTIO_PCI_NOTIFY_MULTIPLIER);
	cap = add_capability(t, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, more);
	if (cap < 0)
		return -ENOSPC;
	t->pci_cfg_cap = (unsigned int)cap;
	t->fn.write_mask[cap + VIRTIO_PCI_CAP_BAR] = 0xff;
	/* offset, length and the data window */
	memset(t->fn.write_mask + cap + VIRTIO_PCI_CAP_OFFSET, 0xff, 12);
	return 0;
}

static uint32_t class_code(uint16_t type)
{
	switch (type) {
	case VIRTIO_NET: return 0x020000; /* ethernet */
	case VIRTIO_BLK: return 0x018000; /* other mass storage */
	case VIRTIO_CONSOLE:
	case VIRTIO_VSOCK: return 0x078000; /* other communication */
	default: return 0xff0000;	    /* in no class */
	}
}

static int make_kick_fds(struct virtio_device *dev, struct error *err)
{
	for (unsigned int i = 0; i < dev->queue_count; i++) {
		int fd = dev->kick_fd[i] = eventfd_new();

		if (fd >= 0)
			continue;
		while (i-- > 0)
			close(dev->kick_fd[i]);
		return error_set_errno(err, fd, "create eventfd of %s", dev->id);
	}
	return 0;
}

static int set_up(struct virtio_pci *t, struct device_host *host, struct virtio_device *dev,
		  struct error *err)
{
	const struct pci_ids ids = {
		.vendor = PCI_VENDOR_VIRTIO,
		.device = PCI_DEVICE_VIRTIO_MODERN + dev->type,
		.subsystem_vendor = PCI_VENDOR_VIRTIO,
		.subsystem = PCI_DEVICE_VIRTIO_MODERN + dev->type,
		.class_code = class_code(dev->type),
		.revision = 1,
		.intx = true,
	};

	pci_function_init(&t->fn, &function_ops, host, dev->id, &ids);
	pci_function_set_bar(&t->fn, 0, PCI_BAR_MEM64, false, BAR_SIZE, &bar_ops, t);
	t->msix = msix_new(&t->fn, dev->queue_count + 1, 0, BAR_MSIX_TABLE, 0, BAR_MSIX_PBA, err);
	if (t->msix && !add_capabilities(t))
		return 0;
	if (t->msix)
		error_set(err, ENOSPC, "%s: no room for virtio's PCI capabilities", dev->id);
	msix_free(t->msix);
	pci_function_destroy(&t->fn);
	return -1;
}

struct pci_function *virtio_pci_new(struct device_host *host, struct virtio_device *dev,
				    struct error *err)
{
	struct virtio_pci *t;

	if (!dev->queue_count || dev->queue_count > VIRTIO_QUEUES_MAX ||
	    dev->config_size > BAR_PAGE) {
		error_set(err, EINVAL, "%s: a virtio device has 1-%u queues", dev->id,
			  VIRTIO_QUEUES_MAX);
		return NULL;
	}
	t = calloc(1, sizeof(*t));
	if (!t) {
		error_set_errno(err, ENOMEM, "create PCI function of %s", dev->id);
		return NULL;
	}
	t->host = host;
	t->dev = dev;
	atomic_store(&t->driver_errors.burst_left, 10);
	if (make_kick_fds(dev, err)) {
		free(t);
		return NULL;
	}
	if (set_up(t, host, dev, err)) {
		for (unsigned int i = 0; i < dev->queue_count; i++)
			close(dev->kick_fd[i]);
		free(t);
		return NULL;
	}
	pthread_mutex_init(&t->lock, NULL);
	pthread_mutex_init(&t->irq_lock, NULL);
	for (unsigned int i = 0; i < dev->queue_count; i++) {
		dev->queues[i].memory = host->memory;
		if (!dev->queues[i].size_max)
			dev->queues[i].size_max = QUEUE_SIZE_DEFAULT;
	}
	dev->transport = t;
	dev->transport_ops = &transport_ops;
	virtio_pci_reset_locked(t);
	return &t->fn;
}

struct virtio_device *virtio_pci_device(struct pci_function *fn)
{
	if (!fn || fn->ops != &function_ops)
		return NULL;
	return container_of(fn, struct virtio_pci, fn)->dev;
}

void virtio_pci_pause(struct pci_function *fn)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);

	if (!virtio_pci_device(fn))
		return;
	pthread_mutex_lock(&t->lock);
	if (t->dev->active && !t->paused) {
		t->dev->ops->pause(t->dev);
		t->paused = true;
	}
	pthread_mutex_unlock(&t->lock);
}

void virtio_pci_resume_locked(struct virtio_pci *t)
{
	if (!t->paused)
		return;
	t->paused = false;
	if (t->loaded)
		virtio_pci_activate_loaded(t);
	else
		t->dev->ops->resume(t->dev);
}

void virtio_pci_resume(struct pci_function *fn)
{
	struct virtio_pci *t = container_of(fn, struct virtio_pci, fn);

	if (!virtio_pci_device(fn))
		return;
	pthread_mutex_lock(&t->lock);
	virtio_pci_resume_locked(t);
	pthread_mutex_unlock(&t->lock);
}
