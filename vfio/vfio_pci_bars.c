/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BARs of an assigned function. The guest sees the device's own layout: sizes from the
 * regions, kinds from the device's BAR registers.
 *
 * What the transport can map is mapped once, and given to the guest by memory slots while
 * the BAR is on the bus. The whole BAR is on the bus besides: accesses that no slot takes
 * come here and go to the device one by one. Always so: I/O BARs, what the driver does
 * not let be mapped, the pages of MSI-X table and PBA, BARs that options exclude.
 *
 * A memory BAR smaller than a page can be mapped only where it has a page to itself, in
 * the guest too: it is shown to the guest as a page. (The kernel offers to map it only
 * where nothing else is on that page.)
 */
#include <errno.h>
#include <sys/mman.h>

#include "vfio/vfio_pci_private.h"

static bool inside(uint64_t offset, uint64_t len, uint64_t size)
{
	return len <= size && offset <= size - len;
}

static void bar_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct vfio_pci_bar *bar = opaque;
	struct vfio_pci *self = bar->self;
	struct vfio_transport *t = self->transport;
	struct error err = ERROR_INIT;

	atomic_fetch_add_explicit(&self->bar_reads, 1, memory_order_relaxed);
	if (vfio_pci_msix_read(self, bar->index, offset, data, len))
		return;
	if (inside(offset, len, bar->region.size) && bar->region.readable) {
		if (!t->ops->region_read(t, &bar->region, offset, data, len, &err))
			return;
		vfio_pci_complain(self, LOG_LEVEL_WARNING, "%s: read bar%u+0x%llx: %s", self->fn.id,
				  bar->index, (unsigned long long)offset, err.message);
	}
	memset(data, 0xff, len);
}

static void bar_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct vfio_pci_bar *bar = opaque;
	struct vfio_pci *self = bar->self;
	struct vfio_transport *t = self->transport;
	struct error err = ERROR_INIT;

	atomic_fetch_add_explicit(&self->bar_writes, 1, memory_order_relaxed);
	if (vfio_pci_msix_write(self, bar->index, offset, data, len))
		return;
	if (!inside(offset, len, bar->region.size) || !bar->region.writable)
		return;
	if (t->ops->region_write(t, &bar->region, offset, data, len, &err))
		vfio_pci_complain(self, LOG_LEVEL_WARNING, "%s: write bar%u+0x%llx: %s",
				  self->fn.id, bar->index, (unsigned long long)offset, err.message);
}

static const struct bus_ops bar_ops = { .read = bar_read, .write = bar_write };

/* To a power of two, least or more. */
static uint64_t round_up_power(uint64_t size, uint64_t least)
{
	uint64_t power = least;

	while (power < size)
		power <<= 1;
	return power;
}

static int refuse(const struct vfio_pci_bar *bar, const char *why, struct error *err)
{
	return error_set(err, EINVAL, "%s: bar%u of 0x%llx bytes %s", bar->self->transport->name,
			 bar->index, (unsigned long long)bar->region.size, why);
}

static int add_memory_bar(struct vfio_pci_bar *bar, uint32_t reg, struct error *err)
{
	bool wide = (reg & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64;
	uint64_t size = bar->region.size;

	if (wide && bar->index == PCI_BARS - 1)
		return refuse(bar, "is 64 bits wide and the last", err);
	if (size > (wide ? 1ULL << 62 : 1ULL << 31))
		return refuse(bar, "is larger than its register can address", err);
	size = round_up_power(size, 16);
	if (size < GUEST_PAGE_SIZE && bar->region.mappable && bar->region.area_count)
		size = GUEST_PAGE_SIZE;
	pci_function_set_bar(&bar->self->fn, bar->index, wide ? PCI_BAR_MEM64 : PCI_BAR_MEM32,
			     reg & PCI_BASE_ADDRESS_MEM_PREFETCH, size, &bar_ops, bar);
	return 0;
}

static int add_bar(struct vfio_pci_bar *bar, struct error *err)
{
	struct vfio_pci *self = bar->self;
	uint32_t reg;
	int r;

	r = vfio_pci_config_load(self, PCI_BAR_OFFSET(bar->index), 4, &reg, err);
	if (r)
		return r;
	if (!(reg & PCI_BASE_ADDRESS_SPACE_IO))
		return add_memory_bar(bar, reg, err);
	if (bar->region.size > 1U << 15)
		return refuse(bar, "is larger than a PC's I/O space allows", err);
	pci_function_set_bar(&self->fn, bar->index, PCI_BAR_IO, false,
			     round_up_power(bar->region.size, 4), &bar_ops, bar);
	return 0;
}

int vfio_pci_bars_add(struct vfio_pci *self, struct error *err)
{
	struct vfio_transport *t = self->transport;

	for (unsigned int i = 0; i < PCI_BARS && i < t->region_count; i++) {
		struct vfio_pci_bar *bar = &self->bars[i];
		int r = t->ops->region_info(t, i, &bar->region, err);

		if (r)
			return r;
		if (!bar->region.size)
			continue;
		if (i && self->fn.bars[i - 1].kind == PCI_BAR_MEM64)
			return refuse(bar, "lies where the upper half of the one before it is",
				      err);
		r = add_bar(bar, err);
		if (r)
			return r;
	}
	return 0;
}

/* What a region lets be mapped, without the holes: appended to bar->areas. */
struct hole {
	uint64_t start, end;
};

static void plan(struct vfio_pci_bar *bar, uint64_t start, uint64_t end)
{
	if (start < end && bar->area_count < VFIO_PCI_AREAS_MAX)
		bar->areas[bar->area_count++] = (struct vfio_pci_area){
			.offset = start,
			.size = end - start,
			.slot = -1,
		};
}

static void plan_around(struct vfio_pci_bar *bar, uint64_t start, uint64_t end,
			const struct hole *holes, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		if (holes[i].end <= start || holes[i].start >= end)
			continue;
		plan(bar, start, holes[i].start);
		start = MAX(start, holes[i].end);
	}
	plan(bar, start, end);
}

static struct hole pages_of(uint64_t offset, uint64_t size)
{
	return (struct hole){
		.start = align_down(offset, GUEST_PAGE_SIZE),
		.end = align_up(offset + size, GUEST_PAGE_SIZE),
	};
}

/* Sorted by start. Also where the driver would let the table be mapped: the guest's
 * table is ours. */
static unsigned int find_holes(const struct vfio_pci *self, unsigned int index, struct hole *holes)
{
	const struct vfio_pci_msix *msix = &self->msix;
	unsigned int n = 0;

	if (!msix->cap)
		return 0;
	if (msix->table_bar == index)
		holes[n++] = pages_of(msix->table_offset, msix->table_size);
	if (msix->pba_bar == index && msix->pba_size)
		holes[n++] = pages_of(msix->pba_offset, msix->pba_size);
	if (n == 2 && holes[1].start < holes[0].start) {
		struct hole first = holes[1];

		holes[1] = holes[0];
		holes[0] = first;
	}
	return n;
}

static bool excluded(const struct vfio_pci *self, unsigned int index)
{
	return self->options.exclude_mmap_bars & 1u << index ||
	       (self->options.exclude_msix_bar && self->msix.cap && self->msix.table_bar == index);
}

static void plan_areas(struct vfio_pci_bar *bar)
{
	const struct vfio_region *region = &bar->region;
	struct hole holes[2];
	unsigned int count = find_holes(bar->self, bar->index, holes);

	for (unsigned int i = 0; i < region->area_count && i < VFIO_SPARSE_AREAS_MAX; i++) {
		uint64_t start = region->areas[i].offset, end = start + region->areas[i].size;

		if (!inside(start, region->areas[i].size, region->size)) {
			log_warn(bar->self->fn.host->log,
				 "%s: %s: bar%u of 0x%llx bytes: area 0x%llx+0x%llx lies outside: "
				 "not mapped",
				 bar->self->fn.id, bar->self->transport->name, bar->index,
				 (unsigned long long)region->size, (unsigned long long)start,
				 (unsigned long long)region->areas[i].size);
			continue;
		}
		/* Smaller than a page, and alone on it. */
		if (region->size < GUEST_PAGE_SIZE && !start && end == region->size)
			end = GUEST_PAGE_SIZE;
		plan_around(bar, align_up(start, GUEST_PAGE_SIZE), align_down(end, GUEST_PAGE_SIZE),
			    holes, count);
	}
}

/* Where it cannot be mapped the guest gets there all the same, slowly. */
static void map_areas(struct vfio_pci_bar *bar)
{
	struct vfio_pci *self = bar->self;
	struct vfio_transport *t = self->transport;
	unsigned int mapped = 0;

	for (unsigned int i = 0; i < bar->area_count; i++) {
		struct vfio_pci_area area = bar->areas[i];
		/* Less than the page that is mapped, for a BAR smaller than that. */
		uint64_t size = MIN(area.size, bar->region.size - area.offset);
		struct error err = ERROR_INIT;

		if (t->ops->region_map(t, &bar->region, area.offset, size, &area.hva, &err))
			log_warn(self->fn.host->log,
				 "%s: bar%u+0x%llx: every access of the guest exits: %s",
				 self->fn.id, bar->index, (unsigned long long)area.offset,
				 err.message);
		else
			bar->areas[mapped++] = area;
	}
	bar->area_count = mapped;
}

void vfio_pci_bars_map(struct vfio_pci *self)
{
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		struct vfio_pci_bar *bar = &self->bars[i];
		enum pci_bar_kind kind = self->fn.bars[i].kind;

		if ((kind != PCI_BAR_MEM32 && kind != PCI_BAR_MEM64) || !bar->region.mappable ||
		    !bar->region.readable || excluded(self, i))
			continue;
		plan_areas(bar);
		map_areas(bar);
	}
}

void vfio_pci_bar_mapped(struct pci_function *fn, unsigned int index)
{
	struct vfio_pci *self = vfio_pci_of(fn);
	const struct vfio_host_ops *ops = self->vfio_host.ops;

	if (index == PCI_ROM_BAR) {
		vfio_pci_rom_load(self);
		return;
	}
	for (unsigned int i = 0; i < self->bars[index].area_count; i++) {
		struct vfio_pci_area *area = &self->bars[index].areas[i];
		struct error err = ERROR_INIT;

		area->slot = ops->slot_add(self->vfio_host.opaque,
					   fn->bars[index].address + area->offset, area->size,
					   area->hva, !self->bars[index].region.writable, &err);
		if (area->slot >= 0) {
			atomic_fetch_add(&self->mapped_bytes, area->size);
			continue;
		}
		area->slot = -1;
		vfio_pci_complain(self, LOG_LEVEL_WARNING,
				  "%s: bar%u+0x%llx: every access of the guest exits: %s", fn->id,
				  index, (unsigned long long)area->offset, err.message);
	}
	vfio_pci_ioevents_attach(&self->bars[index], fn->bars[index].address);
	if (!fn->bars[index].expected)
		vfio_pci_bar_confirmed(fn, index);
}

/* Where other devices reach it is in the DMA space, which is another process's before. */
void vfio_pci_bar_confirmed(struct pci_function *fn, unsigned int index)
{
	vfio_pci_peer_place(vfio_pci_of(fn)->peer, index, fn->bars[index].address);
}

void vfio_pci_bar_unmapped(struct pci_function *fn, unsigned int index)
{
	struct vfio_pci *self = vfio_pci_of(fn);

	if (index == PCI_ROM_BAR)
		return;
	vfio_pci_peer_place(self->peer, index, 0);
	vfio_pci_ioevents_detach(&self->bars[index]);
	for (unsigned int i = 0; i < self->bars[index].area_count; i++) {
		struct vfio_pci_area *area = &self->bars[index].areas[i];

		if (area->slot < 0)
			continue;
		self->vfio_host.ops->slot_remove(self->vfio_host.opaque, area->slot);
		area->slot = -1;
		atomic_fetch_sub(&self->mapped_bytes, area->size);
	}
}

void vfio_pci_bars_free(struct vfio_pci *self)
{
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		struct vfio_pci_bar *bar = &self->bars[i];

		for (unsigned int j = 0; j < bar->area_count; j++)
			munmap(bar->areas[j].hva, bar->areas[j].size);
		bar->area_count = 0;
	}
}
