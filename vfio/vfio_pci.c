/* SPDX-License-Identifier: Apache-2.0 */
#include "vfio/vfio_pci.h"

#include <errno.h>
#include <stdlib.h>

#include "vfio/vfio_pci_private.h"

#define LOG_BURST 8

/* The device as after power-on, as far as there is a reset. Nothing is on the bus. */
static void reset_device(struct vfio_pci *self)
{
	struct vfio_transport *t = self->transport;
	struct error err = ERROR_INIT;
	int r;

	if (self->msix.msix)
		msix_reset(self->msix.msix);
	vfio_pci_config_reset(self);
	vfio_pci_irq_update(self);
	/* No DMA from here on, also where the reset fails or saves and restores. */
	r = vfio_pci_config_command(self, 0, &err);
	if (!r && t->resettable)
		r = t->ops->reset(t, &err);
	if (!r && t->resettable)
		r = vfio_pci_config_command(self, 0, &err);
	if (r)
		vfio_pci_complain(self, LOG_LEVEL_WARNING, "%s: reset %s: %s", self->fn.id, t->name,
				  err.message);
}

static void config_written(struct pci_function *fn, unsigned int offset, unsigned int len)
{
	struct vfio_pci *self = vfio_pci_of(fn);

	if (self->reset_wanted) {
		self->reset_wanted = false;
		pci_function_reset(fn);
		reset_device(self);
		return;
	}
	/* On: the device's MSI-X goes on first, then its vectors. Off: the reverse. */
	if (vfio_pci_msix_enabled(self))
		vfio_pci_irq_update(self);
	if (self->msix.msix)
		msix_config_written(self->msix.msix, offset, len);
	vfio_pci_irq_update(self);
}

/* Machine reset: the generic part has taken the BARs off. */
static void reset(struct pci_function *fn)
{
	reset_device(vfio_pci_of(fn));
}

/* What was made so far; the transport is not closed. */
static void release(struct vfio_pci *self)
{
	vfio_pci_events_free(self);
	vfio_pci_irq_free(self);
	vfio_pci_peer_free(self->peer);
	vfio_pci_ioevents_free(self);
	vfio_pci_bars_free(self);
	vfio_pci_rom_free(self);
	pthread_mutex_destroy(&self->irq_lock);
	pci_function_destroy(&self->fn);
	free(self);
}

static void free_function(struct pci_function *fn)
{
	struct vfio_pci *self = vfio_pci_of(fn);
	struct vfio_transport *t = self->transport;

	/* Nothing it does after this reaches memory that is no longer the guest's. */
	vfio_pci_config_command(self, 0, NULL);
	release(self);
	t->ops->close(t);
}

static const struct pci_function_ops vfio_pci_ops = {
	.config_read = vfio_pci_config_read,
	.config_write = vfio_pci_config_write,
	.config_written = config_written,
	.bar_mapped = vfio_pci_bar_mapped,
	.bar_unmapped = vfio_pci_bar_unmapped,
	.bar_confirmed = vfio_pci_bar_confirmed,
	.reset = reset,
	.save = vfio_pci_state_save,
	.load = vfio_pci_state_load,
	.free = free_function,
};

/* Everything that release() undoes, in the order that the parts need each other. */
static int build(struct vfio_pci *self, struct error *err)
{
	int r;

	vfio_pci_config_header(self);
	r = vfio_pci_config_command(self, 0, err);
	if (!r)
		r = vfio_pci_irq_init(self, err);
	if (!r)
		r = vfio_pci_bars_add(self, err);
	if (!r)
		r = vfio_pci_rom_add(self, err);
	if (!r)
		r = vfio_pci_caps_add(self, err);
	if (r)
		return r;
	vfio_pci_bars_map(self);
	r = vfio_pci_ioevents_add(self, err);
	if (!r)
		r = vfio_pci_state_learn(self, err);
	if (r)
		return r;
	self->peer = vfio_pci_peer_new(self);
	return vfio_pci_events_add(self, err);
}

static struct vfio_pci *allocate(struct vfio_transport *transport, struct error *err)
{
	struct vfio_pci *self = calloc(1, sizeof(*self));

	if (!self) {
		error_set_errno(err, ENOMEM, "%s: assign", transport->name);
		return NULL;
	}
	self->transport = transport;
	atomic_init(&self->log_limit.burst_left, LOG_BURST);
	pthread_mutex_init(&self->irq_lock, NULL);
	self->intx.fd = self->intx.resample_fd = self->intx.forward_fd = -1;
	for (unsigned int i = 0; i < VFIO_PCI_EVENTS; i++)
		self->events[i].fd = -1;
	for (unsigned int i = 0; i < PCI_BARS; i++)
		self->bars[i] = (struct vfio_pci_bar){ .self = self, .index = i };
	return self;
}

struct pci_function *vfio_pci_new(struct device_host *host, const struct vfio_host *vfio_host,
				  struct vfio_transport *transport,
				  const struct vfio_pci_options *options, struct error *err)
{
	struct error local = ERROR_INIT;
	struct vfio_pci *self;
	struct pci_ids ids;

	if (!err)
		err = &local;
	if (!transport->is_pci) {
		error_set(err, EINVAL, "%s: assign %s: it is no PCI device", options->id,
			  transport->name);
		return NULL;
	}
	self = allocate(transport, err);
	if (!self)
		return NULL;
	if (vfio_pci_config_open(self, &ids, err)) {
		error_prefix(err, "%s", options->id);
		pthread_mutex_destroy(&self->irq_lock);
		free(self);
		return NULL;
	}
	self->vfio_host = *vfio_host;
	self->options = *options;
	self->options.id = NULL;
	pci_function_init(&self->fn, &vfio_pci_ops, host, options->id, &ids);
	if (build(self, err)) {
		error_prefix(err, "%s", options->id);
		release(self);
		return NULL;
	}
	if (!transport->resettable)
		log_warn(host->log,
			 "%s: %s has no reset: it keeps its state over a reboot of the guest",
			 self->fn.id, transport->name);
	return &self->fn;
}

bool vfio_pci_is(const struct pci_function *fn)
{
	return fn->ops == &vfio_pci_ops;
}

struct vfio_transport *vfio_pci_transport(struct pci_function *fn)
{
	return vfio_pci_of(fn)->transport;
}

void vfio_pci_count(struct pci_function *fn, struct vfio_pci_counters *counters)
{
	struct vfio_pci *self = vfio_pci_of(fn);

	*counters = (struct vfio_pci_counters){
		.config_reads = atomic_load(&self->config_reads),
		.config_writes = atomic_load(&self->config_writes),
		.bar_reads = atomic_load(&self->bar_reads),
		.bar_writes = atomic_load(&self->bar_writes),
		.intx_exits = atomic_load(&self->intx_exits),
		.msi_vectors = atomic_load(&self->msi_vectors),
		.mapped_bytes = atomic_load(&self->mapped_bytes),
	};
}
