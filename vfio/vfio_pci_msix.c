/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X: the table the guest sees is devices/pci/msix.h's, which also attaches eventfds
 * to routes. Here is the other end: which eventfds the device has.
 *
 * A vector is handed to the device when the guest first unmasks it, and stays there until
 * MSI-X goes off: masking only detaches its irqfd. Most guests use few of the vectors a
 * device has, and each costs the host one of a scarce kind.
 *
 * VFIO sets up vectors [0, n) when MSI-X goes on. Where the irq is `noresize` (kernels
 * before 6.5, some hardware) others can be had only by turning all off, and on again with
 * more; so they come in doubling numbers. What a device sent while it was off is lost:
 * each vector in use is signalled once afterwards. A spurious interrupt is harmless, a
 * lost one is not.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "vfio/vfio_pci_private.h"

static int set_fds(struct vfio_pci *self, unsigned int start, unsigned int count, const int *fds,
		   struct error *err)
{
	struct vfio_transport *t = self->transport;

	return t->ops->set_irq_fds(t, VFIO_PCI_MSIX_IRQ_INDEX, start, count, fds, err);
}

static void count_armed(struct vfio_pci *self)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < self->msix.count; i++)
		n += self->msix.armed[i];
	atomic_store(&self->msi_vectors, n);
}

/* The eventfds of all vectors in use. */
static void pick_fds(struct vfio_pci *self)
{
	struct vfio_pci_msix *m = &self->msix;

	for (unsigned int i = 0; i < m->count; i++)
		m->fds[i] = m->wanted[i] || m->armed[i] ? msix_eventfd(m->msix, i) : -1;
}

/* Vectors [0, count), with what was picked. MSI-X is off at the device. */
static int enable(struct vfio_pci *self, unsigned int count, struct error *err)
{
	struct vfio_pci_msix *m = &self->msix;
	int r = set_fds(self, 0, count, m->fds, err);

	m->enabled = r ? 0 : count;
	for (unsigned int i = 0; i < m->count; i++)
		m->armed[i] = i < m->enabled && m->fds[i] >= 0;
	count_armed(self);
	return r;
}

/* `least` vectors, if the host has them a few more. */
static int enable_again(struct vfio_pci *self, unsigned int least, struct error *err)
{
	struct vfio_pci_msix *m = &self->msix;
	unsigned int before = m->enabled, more = MIN(MAX(least, 2 * before), m->irq.count);
	int r = -ENOSPC;

	pick_fds(self);
	if (before)
		vfio_pci_irq_disable(self, VFIO_PCI_MSIX_IRQ_INDEX);
	if (m->irq.noresize && more > least)
		r = enable(self, more, NULL);
	if (r)
		r = enable(self, least, err);
	if (r && before) /* as it was: the others go on */
		enable(self, before, NULL);
	for (unsigned int i = 0; before && i < m->enabled; i++)
		if (m->armed[i])
			eventfd_signal(m->fds[i]);
	return r;
}

static int arm(struct vfio_pci *self, unsigned int vector, struct error *err)
{
	struct vfio_pci_msix *m = &self->msix;
	int fd = msix_eventfd(m->msix, vector), r;

	if (fd < 0)
		return error_set_errno(err, EMFILE, "create eventfd");
	if (vector >= m->irq.count)
		return error_set(err, EINVAL, "VFIO offers %u vectors", m->irq.count);
	if (m->enabled && (vector < m->enabled || !m->irq.noresize)) {
		r = set_fds(self, vector, 1, &fd, err);
		if (!r) {
			m->armed[vector] = true;
			m->enabled = MAX(m->enabled, vector + 1);
			count_armed(self);
		}
		if (!r || vector < m->enabled || r != -EINVAL)
			return r;
		/* A kernel that cannot, without saying so. */
		error_clear(err);
		m->irq.noresize = true;
	}
	return enable_again(self, vector + 1, err);
}

/* A vector became deliverable, or stopped being so: msix.h. */
static void on_notify(void *opaque, unsigned int vector, bool unmasked)
{
	struct vfio_pci *self = opaque;
	struct vfio_pci_msix *m = &self->msix;
	struct error err = ERROR_INIT;

	pthread_mutex_lock(&self->irq_lock);
	/* Also while MSI-X is off at the device: another vCPU may be turning it on. */
	m->wanted[vector] = unmasked;
	if (unmasked && self->irq_mode == VFIO_PCI_IRQ_MSIX && !m->armed[vector] &&
	    arm(self, vector, &err))
		vfio_pci_complain(self, LOG_LEVEL_ERROR,
				  "%s: MSI-X vector %u does not interrupt: %s", self->fn.id, vector,
				  err.message);
	pthread_mutex_unlock(&self->irq_lock);
}

/* Where a table lies: NULL, or why it cannot be there. */
static const char *misplaced(const struct vfio_pci *self, unsigned int bar, uint64_t offset,
			     uint64_t size)
{
	if (bar >= PCI_BARS || !self->bars[bar].region.size)
		return "there is no such BAR";
	if (self->fn.bars[bar].kind == PCI_BAR_IO)
		return "that is an I/O BAR";
	if (size > self->bars[bar].region.size || offset > self->bars[bar].region.size - size)
		return "that is beyond its end";
	return NULL;
}

static int locate(struct vfio_pci *self, unsigned int cap, struct error *err)
{
	struct vfio_pci_msix *m = &self->msix;
	uint32_t flags, table, pba;
	const char *why;
	int r;

	r = vfio_pci_config_load(self, cap + PCI_MSIX_FLAGS, 2, &flags, err);
	if (!r)
		r = vfio_pci_config_load(self, cap + PCI_MSIX_TABLE, 4, &table, err);
	if (!r)
		r = vfio_pci_config_load(self, cap + PCI_MSIX_PBA, 4, &pba, err);
	if (r)
		return r;
	m->count = (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
	m->table_bar = table & PCI_MSIX_TABLE_BIR;
	m->table_offset = table & PCI_MSIX_TABLE_OFFSET;
	m->table_size = (uint64_t)m->count * PCI_MSIX_ENTRY_SIZE;
	m->pba_bar = pba & PCI_MSIX_PBA_BIR;
	m->pba_offset = pba & PCI_MSIX_PBA_OFFSET;
	m->pba_size = align_up(m->count, 64) / 8;
	why = misplaced(self, m->table_bar, m->table_offset, m->table_size);
	if (why)
		return error_set(err, EINVAL, "%s: MSI-X table of %u vectors at bar%u+0x%llx: %s",
				 self->transport->name, m->count, m->table_bar,
				 (unsigned long long)m->table_offset, why);
	/* Hardware is known that has this wrong, and guests hardly look at it. */
	why = misplaced(self, m->pba_bar, m->pba_offset, m->pba_size);
	if (why) {
		log_warn(self->fn.host->log,
			 "%s: %s: MSI-X pending bits at bar%u+0x%llx: %s: "
			 "the guest will not see them",
			 self->fn.id, self->transport->name, m->pba_bar,
			 (unsigned long long)m->pba_offset, why);
		m->pba_size = 0;
	}
	return 0;
}

int vfio_pci_msix_add(struct vfio_pci *self, unsigned int cap, struct error *err)
{
	struct vfio_pci_msix *m = &self->msix;
	int r;

	if (!m->irq.count) /* not offered by VFIO: the guest does without */
		return 0;
	r = locate(self, cap, err);
	if (r)
		return r;
	m->wanted = calloc(m->count, sizeof(*m->wanted));
	m->armed = calloc(m->count, sizeof(*m->armed));
	m->fds = calloc(m->count, sizeof(*m->fds));
	if (!m->wanted || !m->armed || !m->fds)
		return error_set_errno(err, ENOMEM, "%s: MSI-X", self->fn.id);
	if (m->irq.count > m->count)
		m->irq.count = m->count;
	m->msix = msix_new(&self->fn, m->count, m->table_bar, (uint32_t)m->table_offset,
			   m->pba_bar < PCI_BARS ? m->pba_bar : m->table_bar,
			   (uint32_t)m->pba_offset, err);
	if (!m->msix)
		return err && err->code ? err->code : -EIO;
	m->cap = cap;
	if (vfio_pci_is_kept(self))
		msix_hold(m->msix, true);
	msix_set_notify(m->msix, on_notify, self);
	return 0;
}

bool vfio_pci_msix_enabled(const struct vfio_pci *self)
{
	return self->msix.cap &&
	       self->fn.config[self->msix.cap + PCI_MSIX_FLAGS + 1] & PCI_MSIX_FLAGS_ENABLE >> 8;
}

/* One vector at least, so that the device knows that MSI-X is on. */
int vfio_pci_msix_start(struct vfio_pci *self, struct error *err)
{
	struct vfio_pci_msix *m = &self->msix;
	unsigned int count = 1;

	for (unsigned int i = 0; i < m->irq.count; i++)
		if (m->wanted[i])
			count = i + 1;
	pick_fds(self);
	return enable(self, count, err);
}

void vfio_pci_msix_stop(struct vfio_pci *self)
{
	struct vfio_pci_msix *m = &self->msix;

	if (m->enabled)
		vfio_pci_irq_disable(self, VFIO_PCI_MSIX_IRQ_INDEX);
	m->enabled = 0;
	memset(m->armed, 0, m->count * sizeof(*m->armed));
	atomic_store(&self->msi_vectors, 0);
}

void vfio_pci_msix_free(struct vfio_pci *self)
{
	struct vfio_pci_msix *m = &self->msix;

	msix_free(m->msix);
	free(m->wanted);
	free(m->armed);
	free(m->fds);
	*m = (struct vfio_pci_msix){ .msix = NULL };
}

static bool touches(uint64_t offset, unsigned int len, uint64_t start, uint64_t size)
{
	return offset < start + size && start < offset + len;
}

static bool in_pba(const struct vfio_pci_msix *m, unsigned int bar, uint64_t offset,
		   unsigned int len)
{
	return m->pba_size && bar == m->pba_bar && touches(offset, len, m->pba_offset, m->pba_size);
}

/* An access across the table's edge is the table's, which drops it. */
bool vfio_pci_msix_read(struct vfio_pci *self, unsigned int bar, uint64_t offset, void *data,
			unsigned int len)
{
	const struct vfio_pci_msix *m = &self->msix;

	if (!m->cap)
		return false;
	if (bar == m->table_bar && touches(offset, len, m->table_offset, m->table_size)) {
		msix_table_read(m->msix, offset - m->table_offset, data, len);
		return true;
	}
	if (in_pba(m, bar, offset, len)) {
		msix_pba_read(m->msix, offset - m->pba_offset, data, len);
		return true;
	}
	return false;
}

bool vfio_pci_msix_write(struct vfio_pci *self, unsigned int bar, uint64_t offset, const void *data,
			 unsigned int len)
{
	const struct vfio_pci_msix *m = &self->msix;

	if (!m->cap)
		return false;
	if (bar == m->table_bar && touches(offset, len, m->table_offset, m->table_size)) {
		msix_table_write(m->msix, offset - m->table_offset, data, len);
		return true;
	}
	return in_pba(m, bar, offset, len);
}
