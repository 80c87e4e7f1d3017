/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI: 1 to 32 vectors, each an eventfd of the device's, attached to a route of its own
 * while the guest has it unmasked. The capability (PCI Local Bus 3.0, 6.8.1) is ours; the
 * device's is set up by VFIO.
 *
 * While a vector is masked its eventfd is detached, and its counter is the pending bit.
 */
#include <errno.h>
#include <poll.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "vfio/vfio_pci_private.h"

/* Where the registers are: they move with the address's width. */
static unsigned int data_at(const struct vfio_pci_msi *msi)
{
	return msi->cap + (msi->wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32);
}

static unsigned int mask_at(const struct vfio_pci_msi *msi)
{
	return msi->cap + (msi->wide ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32);
}

static unsigned int pending_at(const struct vfio_pci_msi *msi)
{
	return msi->cap + (msi->wide ? PCI_MSI_PENDING_64 : PCI_MSI_PENDING_32);
}

int vfio_pci_msi_length(uint16_t flags)
{
	return 10 + (flags & PCI_MSI_FLAGS_64BIT ? 4 : 0) +
	       (flags & PCI_MSI_FLAGS_MASKBIT ? 10 : 0);
}

static uint16_t control(const struct vfio_pci *self)
{
	return load_le16(self->fn.config + self->msi.cap + PCI_MSI_FLAGS);
}

int vfio_pci_msi_add(struct vfio_pci *self, unsigned int cap, struct error *err)
{
	struct vfio_pci_msi *msi = &self->msi;
	uint8_t *mask = self->fn.write_mask;
	unsigned int order = 0;
	uint32_t flags;
	int r;

	r = vfio_pci_config_load(self, cap + PCI_MSI_FLAGS, 2, &flags, err);
	if (r)
		return r;
	msi->cap = cap;
	msi->wide = flags & PCI_MSI_FLAGS_64BIT;
	msi->maskable = flags & PCI_MSI_FLAGS_MASKBIT;
	msi->max = MIN(1u << ((flags & PCI_MSI_FLAGS_QMASK) >> 1), (unsigned int)VFIO_PCI_MSI_MAX);
	if (msi->max > msi->irq.count)
		msi->max = msi->irq.count;
	/* What VFIO has, rounded down to what the register can say. */
	while (2u << order <= msi->max)
		order++;
	msi->max = 1u << order;
	store_le16(
		self->fn.config + cap + PCI_MSI_FLAGS,
		(uint16_t)((flags & (PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT)) | order << 1));
	store_le16(mask + cap + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	store_le32(mask + cap + PCI_MSI_ADDRESS_LO, ~3u);
	if (msi->wide)
		store_le32(mask + cap + PCI_MSI_ADDRESS_HI, UINT32_MAX);
	store_le16(mask + data_at(msi), UINT16_MAX);
	if (msi->maskable)
		store_le32(mask + mask_at(msi), msi->max == 32 ? UINT32_MAX : (1u << msi->max) - 1);
	for (unsigned int i = 0; i < VFIO_PCI_MSI_MAX; i++)
		msi->vectors[i].fd = msi->vectors[i].gsi = -1;
	return 0;
}

bool vfio_pci_msi_enabled(const struct vfio_pci *self)
{
	return self->msi.cap && control(self) & PCI_MSI_FLAGS_ENABLE;
}

static unsigned int guest_count(const struct vfio_pci *self)
{
	unsigned int order = (control(self) & PCI_MSI_FLAGS_QSIZE) >> 4;

	return MIN(1u << order, self->msi.max);
}

static bool masked(const struct vfio_pci *self, unsigned int vector)
{
	return self->msi.maskable &&
	       load_le32(self->fn.config + mask_at(&self->msi)) & 1u << vector;
}

/* The vector's number replaces the low bits of the message. */
static struct msi_message message_of(const struct vfio_pci *self, unsigned int vector)
{
	const struct vfio_pci_msi *msi = &self->msi;
	const uint8_t *config = self->fn.config;
	uint32_t data = load_le16(config + data_at(msi));

	return (struct msi_message){
		.address = load_le32(config + msi->cap + PCI_MSI_ADDRESS_LO) |
			   (msi->wide ? (uint64_t)load_le32(config + msi->cap + PCI_MSI_ADDRESS_HI)
						<< 32
				      : 0),
		.data = (data & ~(guest_count(self) - 1)) | vector,
		.devid = self->fn.devfn,
	};
}

static void detach(struct vfio_pci *self, unsigned int i)
{
	const struct interrupts *irqs = &self->fn.host->interrupts;
	unsigned int gsi = (unsigned int)self->msi.vectors[i].gsi;

	irqs->ops->irqfd_detach(irqs->opaque, gsi, self->msi.vectors[i].fd);
	irqs->ops->route_remove(irqs->opaque, gsi);
	self->msi.vectors[i].gsi = -1;
}

static int attach(struct vfio_pci *self, unsigned int i, const struct msi_message *msg,
		  struct error *err)
{
	const struct interrupts *irqs = &self->fn.host->interrupts;
	int gsi = irqs->ops->route_add(irqs->opaque, msg, err), r;

	if (gsi < 0)
		return gsi;
	r = irqs->ops->irqfd_attach(irqs->opaque, (unsigned int)gsi, self->msi.vectors[i].fd, -1,
				    err);
	if (r) {
		irqs->ops->route_remove(irqs->opaque, (unsigned int)gsi);
		return r;
	}
	self->msi.vectors[i].gsi = gsi;
	self->msi.vectors[i].routed = *msg;
	return 0;
}

static int update_vector(struct vfio_pci *self, unsigned int i, struct error *err)
{
	const struct interrupts *irqs = &self->fn.host->interrupts;
	struct msi_message msg = message_of(self, i), *routed = &self->msi.vectors[i].routed;
	bool was = self->msi.vectors[i].gsi >= 0, want = !self->held && !masked(self, i);
	int r = 0;

	if (was && !want) {
		detach(self, i);
	} else if (!was && want) {
		r = attach(self, i, &msg, err);
	} else if (was && (msg.address != routed->address || msg.data != routed->data)) {
		r = irqs->ops->route_update(irqs->opaque, (unsigned int)self->msi.vectors[i].gsi,
					    &msg, err);
		if (!r)
			*routed = msg;
	}
	if (r)
		error_prefix(err, "MSI vector %u does not interrupt", i);
	return r;
}

static int enable(struct vfio_pci *self, unsigned int count, struct error *err)
{
	struct vfio_transport *t = self->transport;
	int fds[VFIO_PCI_MSI_MAX] = { -1 };

	for (unsigned int i = 0; i < count; i++)
		fds[i] = self->msi.vectors[i].fd;
	return t->ops->set_irq_fds(t, VFIO_PCI_MSI_IRQ_INDEX, 0, count, fds, err);
}

/* The vector's eventfd, made where there is none yet; -errno. */
static int vector_fd(struct vfio_pci *self, unsigned int i, struct error *err)
{
	int fd = self->msi.vectors[i].fd;

	if (fd >= 0)
		return fd;
	fd = eventfd_new();
	if (fd < 0)
		return error_set_errno(err, fd, "create eventfd");
	self->msi.vectors[i].fd = fd;
	return fd;
}

int vfio_pci_msi_start(struct vfio_pci *self, struct error *err)
{
	struct vfio_pci_msi *msi = &self->msi;
	unsigned int count = guest_count(self);
	int r;

	for (unsigned int i = 0; i < count; i++) {
		r = vector_fd(self, i, err);
		if (r < 0)
			return r;
	}
	r = enable(self, count, err);
	if (r && count > 1) {
		/* A host without interrupt remapping has one vector for a device. */
		error_clear(err);
		log_warn(self->fn.host->log,
			 "%s: the host has not got %u MSI vectors for %s: trying 1", self->fn.id,
			 count, self->transport->name);
		count = 1;
		r = enable(self, count, err);
	}
	if (r)
		return r;
	msi->count = count;
	atomic_store(&self->msi_vectors, count);
	vfio_pci_msi_update(self);
	return 0;
}

void vfio_pci_msi_update(struct vfio_pci *self)
{
	for (unsigned int i = 0; i < self->msi.count; i++) {
		struct error err = ERROR_INIT;

		if (update_vector(self, i, &err))
			vfio_pci_complain(self, LOG_LEVEL_ERROR, "%s: %s", self->fn.id,
					  err.message);
	}
}

int vfio_pci_msi_route(struct vfio_pci *self, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < self->msi.count; i++)
		r = update_vector(self, i, err);
	return r;
}

void vfio_pci_msi_stop(struct vfio_pci *self)
{
	struct vfio_pci_msi *msi = &self->msi;

	/* Another process's, with what is in them: none is attached here. */
	if (vfio_pci_is_kept(self))
		msi->count = 0;
	if (!msi->count)
		return;
	vfio_pci_irq_disable(self, VFIO_PCI_MSI_IRQ_INDEX);
	for (unsigned int i = 0; i < msi->count; i++) {
		if (msi->vectors[i].gsi >= 0)
			detach(self, i);
		eventfd_drain(msi->vectors[i].fd);
	}
	msi->count = 0;
	atomic_store(&self->msi_vectors, 0);
}

void vfio_pci_msi_free(struct vfio_pci *self)
{
	if (!self->msi.cap)
		return;
	for (unsigned int i = 0; i < VFIO_PCI_MSI_MAX; i++) {
		cleanup_close(&self->msi.vectors[i].fd);
		self->msi.vectors[i].fd = -1;
	}
}

uint32_t vfio_pci_msi_pending(struct vfio_pci *self)
{
	struct vfio_pci_msi *msi = &self->msi;
	struct pollfd polls[VFIO_PCI_MSI_MAX];
	uint32_t bits = 0;

	pthread_mutex_lock(&self->irq_lock);
	for (unsigned int i = 0; i < msi->count; i++)
		polls[i] = (struct pollfd){
			/* Attached: KVM has consumed it. */
			.fd = msi->vectors[i].gsi < 0 ? msi->vectors[i].fd : -1,
			.events = POLLIN,
		};
	if (msi->count && poll(polls, msi->count, 0) > 0)
		for (unsigned int i = 0; i < msi->count; i++)
			if (polls[i].revents & POLLIN)
				bits |= 1u << i;
	pthread_mutex_unlock(&self->irq_lock);
	return bits;
}

int vfio_pci_msi_raise(struct vfio_pci *self, uint32_t pending, struct error *err)
{
	for (unsigned int i = 0; i < self->msi.max; i++) {
		int fd;

		if (!(pending & 1u << i))
			continue;
		fd = vector_fd(self, i, err);
		if (fd < 0)
			return fd;
		eventfd_signal(fd);
	}
	return 0;
}

void vfio_pci_msi_read(struct vfio_pci *self, unsigned int offset, uint8_t *data, unsigned int len)
{
	struct vfio_pci_msi *msi = &self->msi;
	unsigned int at = pending_at(msi);
	uint32_t bits;

	if (!msi->cap || !msi->maskable || offset >= at + 4 || offset + len <= at)
		return;
	bits = vfio_pci_msi_pending(self);
	for (unsigned int i = 0; i < len; i++)
		if (offset + i >= at && offset + i < at + 4)
			data[i] = (uint8_t)(bits >> 8 * (offset + i - at));
}
