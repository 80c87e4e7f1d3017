/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/helpers/fake_vfio_transport.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"

#define PAGE 4096UL

static struct fake_vfio_pci *fake_of(struct vfio_transport *t)
{
	return container_of(t, struct fake_vfio_pci, transport);
}

/* Whether this call fails, and how. */
static int begin(struct fake_vfio_pci *f, enum fake_vfio_pci_op op, struct error *err)
{
	static const char *const names[FAKE_VFIO_PCI_OPS] = {
		"region_info", "irq_info",    "region_read",	   "region_write",
		"region_map",  "set_irq_fds", "mask_irq",	   "set_unmask_fd",
		"reset",       "feature",     "region_ioeventfds",
	};
	int r = f->fail_op[op];

	f->calls[op]++;
	if (++f->total == f->fail_at)
		r = -EIO;
	if (!r)
		return 0;
	f->failed++;
	return error_set(err, r, "fake: %s fails", names[op]);
}

static int region_info(struct vfio_transport *t, uint32_t index, struct vfio_region *region,
		       struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	int r = begin(f, FAKE_VFIO_PCI_REGION_INFO, err);

	if (r)
		return r;
	if (index >= FAKE_VFIO_PCI_REGIONS)
		return error_set(err, EINVAL, "fake: no region %u", index);
	*region = f->regions[index];
	return 0;
}

static int irq_info(struct vfio_transport *t, uint32_t index, struct vfio_irq *irq,
		    struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	int r = begin(f, FAKE_VFIO_PCI_IRQ_INFO, err);

	if (r)
		return r;
	if (index >= VFIO_PCI_NUM_IRQS)
		return error_set(err, EINVAL, "fake: no irq %u", index);
	*irq = f->irqs[index].info;
	return 0;
}

/* Bounds by the memory behind it, not by what the region says of itself. */
static int check_access(const struct fake_vfio_pci *f, const struct vfio_region *region,
			uint64_t offset, size_t len, struct error *err)
{
	uint64_t size = region->index < FAKE_VFIO_PCI_REGIONS ? f->regions[region->index].size : 0;

	if (len > size || offset > size - len || !f->data[region->index])
		return error_set(err, EINVAL, "fake: access to region %u at 0x%llx+0x%zx",
				 region->index, (unsigned long long)offset, len);
	return 0;
}

static int region_read(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		       void *data, size_t len, struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	int r = begin(f, FAKE_VFIO_PCI_READ, err);

	if (!r)
		r = check_access(f, region, offset, len, err);
	if (!r)
		memcpy(data, f->data[region->index] + offset, len);
	return r;
}

static int region_write(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
			const void *data, size_t len, struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	int r = begin(f, FAKE_VFIO_PCI_WRITE, err);

	if (!r)
		r = check_access(f, region, offset, len, err);
	if (r)
		return r;
	memcpy(f->data[region->index] + offset, data, len);
	f->writes[f->write_count++ % FAKE_VFIO_PCI_WRITES] = (struct fake_vfio_pci_write){
		.region = region->index,
		.offset = offset,
		.value = len <= 8 ? load_le(data, (unsigned int)len) : 0,
		.len = len,
	};
	return 0;
}

static int region_map(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		      uint64_t size, void **address, struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	int r = begin(f, FAKE_VFIO_PCI_MAP, err);
	void *p;

	if (r)
		return r;
	if (offset % PAGE || offset + size > f->regions[region->index].size)
		return error_set(err, EINVAL, "fake: map region %u at 0x%llx+0x%llx", region->index,
				 (unsigned long long)offset, (unsigned long long)size);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd[region->index],
		 (off_t)offset);
	if (p == MAP_FAILED)
		return error_set_errno(err, errno, "fake: mmap");
	f->maps++;
	*address = p;
	return 0;
}

static void irq_off(struct fake_vfio_pci_irq *irq)
{
	irq->enabled = 0;
	memset(irq->fds, 0xff, sizeof(irq->fds));
}

static bool other_is_on(const struct fake_vfio_pci *f, uint32_t index)
{
	for (uint32_t i = 0; i <= VFIO_PCI_MSIX_IRQ_INDEX; i++)
		if (i != index && f->irqs[i].enabled)
			return true;
	return false;
}

/* As vfio-pci: one kind at a time; [0, n) at first, more of it only without NORESIZE. */
static int set_irq_fds(struct vfio_transport *t, uint32_t index, uint32_t start, uint32_t count,
		       const int *fds, struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	int r = begin(f, FAKE_VFIO_PCI_SET_IRQ_FDS, err);
	struct fake_vfio_pci_irq *irq;
	uint32_t limit;

	if (r)
		return r;
	if (index >= VFIO_PCI_NUM_IRQS)
		return error_set(err, EINVAL, "fake: no irq %u", index);
	irq = &f->irqs[index];
	if (!count) {
		irq->disables++;
		irq_off(irq);
		return 0;
	}
	limit = irq->limit ? irq->limit : irq->info.count;
	if (index <= VFIO_PCI_MSIX_IRQ_INDEX && other_is_on(f, index))
		return error_set(err, EINVAL, "fake: another kind of interrupt is on");
	if (start + count > irq->info.count ||
	    (irq->enabled && irq->info.noresize && start + count > irq->enabled))
		return error_set(err, EINVAL, "fake: vectors %u to %u of irq %u", start,
				 start + count, index);
	if (start + count > limit)
		return error_set(err, ENOSPC, "fake: the host has %u vectors", limit);
	if (!irq->enabled)
		irq->enables++;
	irq->enabled = MAX(irq->enabled, start + count);
	memcpy(irq->fds + start, fds, count * sizeof(*fds));
	return 0;
}

static int mask_irq(struct vfio_transport *t, uint32_t index, bool masked, struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	int r = begin(f, FAKE_VFIO_PCI_MASK, err);

	if (r)
		return r;
	f->intx_masked = masked;
	*(masked ? &f->masks : &f->unmasks) += 1;
	return 0;
}

static int set_unmask_fd(struct vfio_transport *t, uint32_t index, int fd, struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	int r = begin(f, FAKE_VFIO_PCI_UNMASK_FD, err);

	if (!r)
		f->unmask_fd = fd;
	return r;
}

static int reset(struct vfio_transport *t, struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	int r = begin(f, FAKE_VFIO_PCI_RESET, err);

	if (!r)
		f->resets++;
	return r;
}

#ifndef VFIO_DEVICE_FEATURE_DMA_BUF
#define VFIO_DEVICE_FEATURE_DMA_BUF 11
#endif

static int feature(struct vfio_transport *t, uint32_t flags, void *data, size_t len,
		   struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	int r = begin(f, FAKE_VFIO_PCI_FEATURE, err), fd;

	if (r)
		return r;
	if ((flags & VFIO_DEVICE_FEATURE_MASK) != VFIO_DEVICE_FEATURE_DMA_BUF ||
	    !f->exports_dma_bufs)
		return error_set(err, ENOTTY, "fake: no such feature");
	if (flags & VFIO_DEVICE_FEATURE_PROBE)
		return 0;
	fd = memfd_create("fake-dma-buf", MFD_CLOEXEC);
	return fd < 0 ? error_set_errno(err, errno, "fake: memfd") : fd;
}

static int region_ioeventfds(struct vfio_transport *t, const struct vfio_region *region,
			     struct vfio_ioeventfd *out, unsigned int max, struct error *err)
{
	struct fake_vfio_pci *f = fake_of(t);
	unsigned int count = MIN(f->ioevent_count, max);
	int r = begin(f, FAKE_VFIO_PCI_IOEVENTFDS, err);

	if (r || region->index != f->ioevent_region)
		return r;
	memcpy(out, f->ioevents, count * sizeof(*out));
	return (int)count;
}

static void close_transport(struct vfio_transport *t)
{
	fake_of(t)->closes++;
}

static const struct vfio_transport_ops fake_ops = {
	.name = "fake",
	.region_info = region_info,
	.irq_info = irq_info,
	.region_read = region_read,
	.region_write = region_write,
	.region_map = region_map,
	.set_irq_fds = set_irq_fds,
	.mask_irq = mask_irq,
	.set_unmask_fd = set_unmask_fd,
	.reset = reset,
	.feature = feature,
	.region_ioeventfds = region_ioeventfds,
	.close = close_transport,
};

void fake_vfio_pci_init(struct fake_vfio_pci *f)
{
	memset(f, 0, sizeof(*f));
	f->transport = (struct vfio_transport){
		.ops = &fake_ops,
		.name = "0000:01:10.0",
		.region_count = FAKE_VFIO_PCI_REGIONS,
		.irq_count = VFIO_PCI_NUM_IRQS,
		.resettable = true,
		.is_pci = true,
		.fd = -1,
	};
	f->unmask_fd = -1;
	for (uint32_t i = 0; i < FAKE_VFIO_PCI_REGIONS; i++) {
		f->regions[i].index = i;
		f->regions[i].map_fd = -1;
		f->memfd[i] = -1;
	}
	for (uint32_t i = 0; i < VFIO_PCI_NUM_IRQS; i++) {
		f->irqs[i].info.index = i;
		irq_off(&f->irqs[i]);
	}
	fake_vfio_pci_add_region(f, VFIO_PCI_CONFIG_REGION_INDEX, 4096, false);
	fake_vfio_pci_config32(f, PCI_VENDOR_ID, 0x10ab1af4);
	fake_vfio_pci_config32(f, PCI_CLASS_REVISION, 0x02000001);
	fake_vfio_pci_config32(f, PCI_SUBSYSTEM_VENDOR_ID, 0x00011af4);
}

void fake_vfio_pci_destroy(struct fake_vfio_pci *f)
{
	for (uint32_t i = 0; i < FAKE_VFIO_PCI_REGIONS; i++) {
		if (f->data[i])
			munmap(f->data[i], align_up(f->regions[i].size, PAGE));
		if (f->memfd[i] >= 0)
			close(f->memfd[i]);
	}
}

void fake_vfio_pci_add_region(struct fake_vfio_pci *f, uint32_t index, uint64_t size, bool mappable)
{
	struct vfio_region *r = &f->regions[index];
	uint64_t room = align_up(size, PAGE);

	r->readable = r->writable = true;
	r->mappable = mappable;
	r->size = size;
	if (mappable) {
		r->area_count = 1;
		r->areas[0] = (struct vfio_area){ .size = size };
	}
	f->memfd[index] = memfd_create("fake-vfio", MFD_CLOEXEC);
	if (f->memfd[index] < 0 || ftruncate(f->memfd[index], (off_t)room))
		abort();
	f->data[index] = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd[index], 0);
	if (f->data[index] == MAP_FAILED)
		abort();
}

void fake_vfio_pci_add_bar(struct fake_vfio_pci *f, uint32_t bar, uint32_t kind, uint64_t size,
			   bool mappable)
{
	fake_vfio_pci_add_region(f, bar, size, mappable);
	fake_vfio_pci_config32(f, PCI_BASE_ADDRESS_0 + 4 * bar, kind);
}

void fake_vfio_pci_add_irq(struct fake_vfio_pci *f, uint32_t index, uint32_t count, bool noresize)
{
	f->irqs[index].info.count = count;
	f->irqs[index].info.eventfd = true;
	f->irqs[index].info.noresize = noresize;
	if (index == VFIO_PCI_INTX_IRQ_INDEX) {
		f->irqs[index].info.maskable = f->irqs[index].info.automasked = true;
		fake_vfio_pci_config(f)[PCI_INTERRUPT_PIN] = 1;
	}
}

uint8_t *fake_vfio_pci_config(struct fake_vfio_pci *f)
{
	return f->data[VFIO_PCI_CONFIG_REGION_INDEX];
}

void fake_vfio_pci_config16(struct fake_vfio_pci *f, unsigned int offset, uint16_t value)
{
	store_le16(fake_vfio_pci_config(f) + offset, value);
}

void fake_vfio_pci_config32(struct fake_vfio_pci *f, unsigned int offset, uint32_t value)
{
	store_le32(fake_vfio_pci_config(f) + offset, value);
}

void fake_vfio_pci_add_cap(struct fake_vfio_pci *f, uint8_t id, unsigned int at)
{
	uint8_t *config = fake_vfio_pci_config(f), *link = config + PCI_CAPABILITY_LIST;

	for (unsigned int i = 0; *link && i < 64; i++)
		link = config + *link + 1;
	*link = (uint8_t)at;
	config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	config[at] = id;
	config[at + 1] = 0;
}

void fake_vfio_pci_add_ext_cap(struct fake_vfio_pci *f, uint16_t id, unsigned int at)
{
	uint8_t *config = fake_vfio_pci_config(f);
	unsigned int last = 0x100;

	store_le32(config + at, id | 1u << 16);
	if (at == last)
		return;
	while (load_le32(config + last) >> 20)
		last = load_le32(config + last) >> 20;
	store_le32(config + last, load_le32(config + last) | (uint32_t)at << 20);
}

void fake_vfio_pci_add_msix(struct fake_vfio_pci *f, unsigned int at, unsigned int vectors,
			    unsigned int table_bar, uint32_t table, unsigned int pba_bar,
			    uint32_t pba)
{
	fake_vfio_pci_add_cap(f, PCI_CAP_ID_MSIX, at);
	fake_vfio_pci_config16(f, at + PCI_MSIX_FLAGS, (uint16_t)(vectors - 1));
	fake_vfio_pci_config32(f, at + PCI_MSIX_TABLE, table | table_bar);
	fake_vfio_pci_config32(f, at + PCI_MSIX_PBA, pba | pba_bar);
}

bool fake_vfio_pci_interrupt(struct fake_vfio_pci *f, uint32_t index, unsigned int vector)
{
	struct fake_vfio_pci_irq *irq = &f->irqs[index];

	if (vector >= irq->enabled || irq->fds[vector] < 0)
		return false;
	if (index == VFIO_PCI_INTX_IRQ_INDEX) {
		if (f->unmask_fd >= 0 && eventfd_drain(f->unmask_fd))
			f->intx_masked = false;
		if (f->intx_masked)
			return false;
		f->intx_masked = true;
	}
	eventfd_signal(irq->fds[vector]);
	return true;
}

unsigned int fake_vfio_pci_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned int n = 0;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps))
		n += strstr(line, "memfd:fake-vfio") != NULL;
	if (maps)
		fclose(maps);
	return n;
}

static int space_map(struct dma_space *space, uint64_t iova, uint64_t size, int fd, uint64_t offset,
		     void *hva, bool writable, struct error *err)
{
	struct fake_space *s = container_of(space, struct fake_space, space);

	if (s->map_error)
		return error_set_errno(err, s->map_error, "fake: map");
	if (s->count == FAKE_SPACE_MAPS) {
		s->misuses++;
		return error_set_errno(err, ENOSPC, "fake: map");
	}
	s->maps[s->count].iova = iova;
	s->maps[s->count].size = size;
	s->maps[s->count].hva = hva;
	s->maps[s->count++].by_fd = fd >= 0;
	return 0;
}

static int space_unmap(struct dma_space *space, uint64_t iova, uint64_t size,
		       struct dirty_bitmap *dirty, struct error *err)
{
	struct fake_space *s = container_of(space, struct fake_space, space);

	for (unsigned int i = 0; i < s->count; i++)
		if (s->maps[i].iova == iova && s->maps[i].size == size) {
			s->maps[i] = s->maps[--s->count];
			return 0;
		}
	s->misuses++;
	return error_set_errno(err, ENOENT, "fake: unmap");
}

void fake_space_init(struct fake_space *s, const char *name)
{
	memset(s, 0, sizeof(*s));
	s->ops = (struct dma_space_ops){ .name = name, .map = space_map, .unmap = space_unmap };
	s->space.ops = &s->ops;
}
