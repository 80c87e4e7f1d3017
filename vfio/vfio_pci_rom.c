/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expansion ROM: a copy, made when the guest first enables it. Few guests without
 * firmware ever do, and devices are slow to read.
 */
#include <errno.h>
#include <stdlib.h>

#include "vfio/vfio_pci_private.h"

#define ROM_MIN 2048ULL
#define ROM_MAX (16 * MIB)

static void rom_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct vfio_pci *self = opaque;
	const uint8_t *shadow = atomic_load(&self->rom.shadow);
	uint64_t size = self->rom.region.size;

	atomic_fetch_add_explicit(&self->bar_reads, 1, memory_order_relaxed);
	if (shadow && len <= size && offset <= size - len)
		memcpy(data, shadow + offset, len);
	else
		memset(data, 0xff, len);
}

static void rom_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct vfio_pci *self = opaque;

	atomic_fetch_add_explicit(&self->bar_writes, 1, memory_order_relaxed);
}

static const struct bus_ops rom_ops = { .read = rom_read, .write = rom_write };

int vfio_pci_rom_add(struct vfio_pci *self, struct error *err)
{
	struct vfio_transport *t = self->transport;
	uint64_t size = ROM_MIN;
	int r;

	if (t->region_count <= VFIO_PCI_ROM_REGION_INDEX)
		return 0;
	r = t->ops->region_info(t, VFIO_PCI_ROM_REGION_INDEX, &self->rom.region, err);
	if (r || !self->rom.region.size || !self->rom.region.readable)
		return r;
	if (self->rom.region.size > ROM_MAX)
		return error_set(err, EINVAL,
				 "%s: expansion ROM of 0x%llx bytes: a ROM has at most 16 MiB",
				 t->name, (unsigned long long)self->rom.region.size);
	while (size < self->rom.region.size)
		size <<= 1;
	pci_function_set_bar(&self->fn, PCI_ROM_BAR, PCI_BAR_MEM32, false, size, &rom_ops, self);
	return 0;
}

/* It is on the bus already: a read that is faster than this gives ones, as a ROM does
 * that is not there. */
void vfio_pci_rom_load(struct vfio_pci *self)
{
	struct vfio_transport *t = self->transport;
	struct vfio_pci_rom *rom = &self->rom;
	struct error err = ERROR_INIT;
	uint8_t *shadow;
	int r;

	if (rom->read)
		return;
	rom->read = true;
	shadow = malloc(rom->region.size);
	if (!shadow)
		r = error_set_errno(&err, ENOMEM, "copy %llu bytes",
				    (unsigned long long)rom->region.size);
	else
		r = t->ops->region_read(t, &rom->region, 0, shadow, rom->region.size, &err);
	if (r) {
		log_warn(self->fn.host->log, "%s: expansion ROM reads as all ones: %s", self->fn.id,
			 err.message);
		free(shadow);
		return;
	}
	atomic_store(&rom->shadow, shadow);
}

void vfio_pci_rom_free(struct vfio_pci *self)
{
	free(self->rom.shadow);
	self->rom.shadow = NULL;
}
