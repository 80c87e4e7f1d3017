/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a function's BARs are decoded.
 *
 * The registers in config space say what the guest wants; bar->address and
 * bar->mapped say what is. A remapping first takes off the bus what is not wanted
 * (where it is) any more, then puts on what is wanted and not there: so two BARs of
 * a function can swap places, and one that found its place taken is tried again
 * whenever a register that matters is written.
 */
#include "devices/pci/pci_function.h"

#include <errno.h>
#include <stdio.h>

#include "base/bytes.h"
#include "devices/pci/pci_registers.h"

static unsigned int register_offset(unsigned int bar)
{
	return bar == PCI_ROM_BAR ? PCI_ROM_ADDRESS : PCI_BAR_OFFSET(bar);
}

static uint64_t address_mask(const struct pci_bar *bar)
{
	uint64_t mask = ~(bar->size - 1);

	switch (bar->kind) {
	case PCI_BAR_MEM64: return mask;
	case PCI_BAR_MEM32: return (uint32_t)mask;
	case PCI_BAR_IO:
		/* A PC's I/O space has 16 bits; the upper half is hardwired to 0. */
		return (uint16_t)mask;
	case PCI_BAR_NONE: break;
	}
	return 0;
}

static bool valid_bar(unsigned int bar, enum pci_bar_kind kind, uint64_t size)
{
	static const struct {
		uint64_t min, max;
	} sizes[] = {
		[PCI_BAR_MEM32] = { 16, 1ULL << 31 },
		[PCI_BAR_MEM64] = { 16, 1ULL << 63 },
		[PCI_BAR_IO] = { 4, 1ULL << 15 },
	};

	if (!is_power_of_2(size) || kind == PCI_BAR_NONE)
		return false;
	if (bar == PCI_ROM_BAR)
		return kind == PCI_BAR_MEM32 && size >= 2048 && size <= 1ULL << 24;
	return bar < (kind == PCI_BAR_MEM64 ? PCI_BARS - 1 : PCI_BARS) && size >= sizes[kind].min &&
	       size <= sizes[kind].max;
}

void pci_function_set_bar(struct pci_function *fn, unsigned int index, enum pci_bar_kind kind,
			  bool prefetchable, uint64_t size, const struct bus_ops *ops, void *opaque)
{
	unsigned int at = register_offset(index);
	struct pci_bar *bar;
	uint64_t mask;

	if (!valid_bar(index, kind, size)) {
		log_err(fn->host->log, "%s: bar%u of 0x%llx bytes is not possible", fn->id, index,
			(unsigned long long)size);
		return;
	}
	bar = &fn->bars[index];
	*bar = (struct pci_bar){
		.kind = kind,
		.prefetchable = prefetchable,
		.size = size,
		.ops = ops,
		.opaque = opaque,
	};
	if (index == PCI_ROM_BAR)
		snprintf(bar->name, sizeof(bar->name), "%.40s rom", fn->id);
	else
		snprintf(bar->name, sizeof(bar->name), "%.40s bar%u", fn->id, index);

	mask = address_mask(bar);
	store_le32(fn->config + at, 0);
	store_le32(fn->write_mask + at, (uint32_t)mask);
	if (index == PCI_ROM_BAR) {
		fn->write_mask[at] |= PCI_ROM_ADDRESS_ENABLE;
		return;
	}
	if (kind == PCI_BAR_IO)
		fn->config[at] |= PCI_BASE_ADDRESS_SPACE_IO;
	else if (prefetchable)
		fn->config[at] |= PCI_BASE_ADDRESS_MEM_PREFETCH;
	if (kind == PCI_BAR_MEM64) {
		fn->config[at] |= PCI_BASE_ADDRESS_MEM_TYPE_64;
		store_le32(fn->config + at + 4, 0);
		store_le32(fn->write_mask + at + 4, (uint32_t)(mask >> 32));
	}
}

static uint64_t address_in(const uint8_t *config, const struct pci_bar *bar, unsigned int index)
{
	const uint8_t *at = config + register_offset(index);
	uint64_t value = load_le32(at);

	if (bar->kind == PCI_BAR_MEM64)
		value |= (uint64_t)load_le32(at + 4) << 32;
	return value & address_mask(bar);
}

static uint64_t programmed_address(const struct pci_function *fn, unsigned int index)
{
	return address_in(fn->config, &fn->bars[index], index);
}

static bool decoding_enabled(const struct pci_function *fn, unsigned int index)
{
	uint16_t command = pci_function_command(fn);

	if (fn->bars[index].kind == PCI_BAR_IO)
		return command & PCI_COMMAND_IO;
	if (index == PCI_ROM_BAR && !(fn->config[PCI_ROM_ADDRESS] & PCI_ROM_ADDRESS_ENABLE))
		return false;
	return command & PCI_COMMAND_MEMORY;
}

static bool inside(const struct pci_window *window, uint64_t address, uint64_t size)
{
	return size <= window->size && address >= window->base &&
	       address - window->base <= window->size - size;
}

static bool overlaps_ram(const struct guest_memory *memory, uint64_t address, uint64_t size)
{
	unsigned int count = memory ? guest_memory_region_count(memory) : 0;

	for (unsigned int i = 0; i < count; i++) {
		const struct guest_memory_region *r = guest_memory_region(memory, i);

		if (address < r->gpa + r->size && r->gpa < address + size)
			return true;
	}
	return false;
}

/* Why a BAR cannot be decoded at an address, or NULL. */
static const char *refusal(const struct pci_function *fn, const struct pci_bar *bar,
			   uint64_t address)
{
	const struct pci_windows *windows = fn->windows;

	if (address + (bar->size - 1) < address)
		return "beyond the address space";
	if (bar->kind == PCI_BAR_IO)
		return windows && !inside(&windows->io, address, bar->size)
			       ? "outside the root's window"
			       : NULL;
	if (windows && !inside(&windows->mem32, address, bar->size) &&
	    !inside(&windows->mem64, address, bar->size))
		return "outside the root's windows";
	if (overlaps_ram(fn->host->memory, address, bar->size))
		return "on top of RAM";
	return NULL;
}

static struct bus *bus_of(const struct pci_function *fn, const struct pci_bar *bar)
{
	return bar->kind == PCI_BAR_IO ? fn->host->pio : fn->host->mmio;
}

static void unmap_bar(struct pci_function *fn, unsigned int index)
{
	struct pci_bar *bar = &fn->bars[index];

	/* Without fn->lock: waits for handlers, which may take it. */
	bus_remove(bus_of(fn, bar), bar->address);
	pthread_mutex_lock(&fn->lock);
	bar->mapped = bar->expected = false;
	pthread_mutex_unlock(&fn->lock);
	if (fn->ops->bar_unmapped)
		fn->ops->bar_unmapped(fn, index);
}

static int try_map_bar(struct pci_function *fn, unsigned int index, struct error *err)
{
	struct pci_bar *bar = &fn->bars[index];
	const char *why = bar->address ? refusal(fn, bar, bar->address) : "it has no address";
	int r;

	if (why)
		return error_set(err, EINVAL, "%s", why);
	r = bus_add(bus_of(fn, bar), bar->address, bar->size, bar->name, bar->ops, bar->opaque,
		    err);
	if (r)
		return r;
	pthread_mutex_lock(&fn->lock);
	bar->mapped = true;
	pthread_mutex_unlock(&fn->lock);
	if (fn->ops->bar_mapped)
		fn->ops->bar_mapped(fn, index);
	return 0;
}

static void map_bar(struct pci_function *fn, unsigned int index)
{
	const struct pci_bar *bar = &fn->bars[index];
	struct error err = ERROR_INIT;

	/* No address: not assigned. All ones: a guest that sizes with decoding on, no mistake. */
	if (!bar->address || !try_map_bar(fn, index, &err) || bar->address == address_mask(bar))
		return;
	log_limited(fn->host->log, &fn->log_limit, LOG_LEVEL_WARNING,
		    "%s stays unmapped: guest put it at 0x%llx: %s", bar->name,
		    (unsigned long long)bar->address, err.message);
}

void pci_function_update_mappings(struct pci_function *fn)
{
	uint64_t address[PCI_BARS + 1];
	bool wanted[PCI_BARS + 1];

	pthread_mutex_lock(&fn->write_lock);
	pthread_mutex_lock(&fn->lock);
	for (unsigned int i = 0; i <= PCI_ROM_BAR; i++) {
		wanted[i] = fn->bars[i].kind != PCI_BAR_NONE && decoding_enabled(fn, i);
		address[i] = programmed_address(fn, i);
	}
	pthread_mutex_unlock(&fn->lock);

	for (unsigned int i = 0; i <= PCI_ROM_BAR; i++) {
		struct pci_bar *bar = &fn->bars[i];

		if (bar->mapped && (!wanted[i] || bar->address != address[i]))
			unmap_bar(fn, i);
		/* Only now: bar_unmapped still saw where it was. */
		pthread_mutex_lock(&fn->lock);
		bar->address = address[i];
		pthread_mutex_unlock(&fn->lock);
	}
	for (unsigned int i = 0; i <= PCI_ROM_BAR; i++)
		if (wanted[i] && !fn->bars[i].mapped)
			map_bar(fn, i);
	pthread_mutex_unlock(&fn->write_lock);
}

static int restore_bar(struct pci_function *fn, unsigned int index, bool mapped, struct error *err)
{
	struct pci_bar *bar = &fn->bars[index];
	bool possible;

	if (bar->expected && mapped && decoding_enabled(fn, index) &&
	    bar->address == programmed_address(fn, index)) {
		bar->expected = false;
		if (fn->ops->bar_confirmed)
			fn->ops->bar_confirmed(fn, index);
		return 0;
	}
	if (bar->mapped)
		unmap_bar(fn, index);
	pthread_mutex_lock(&fn->lock);
	bar->address = bar->kind == PCI_BAR_NONE ? 0 : programmed_address(fn, index);
	possible = bar->kind != PCI_BAR_NONE && decoding_enabled(fn, index);
	pthread_mutex_unlock(&fn->lock);
	if (!mapped)
		return 0;
	if (!possible)
		return error_set(err, EINVAL, "%s does not decode bar%u", fn->id, index);
	if (!try_map_bar(fn, index, err))
		return 0;
	return error_prefix(err, "%s at 0x%llx", bar->name, (unsigned long long)bar->address);
}

int pci_function_restore_mappings(struct pci_function *fn, uint32_t mapped, struct error *err)
{
	int r = 0;

	pthread_mutex_lock(&fn->write_lock);
	for (unsigned int i = 0; !r && i <= PCI_ROM_BAR; i++)
		r = restore_bar(fn, i, mapped & 1u << i, err);
	pthread_mutex_unlock(&fn->write_lock);
	return r;
}

void pci_function_mappings(struct pci_function *fn, uint64_t addresses[PCI_BARS])
{
	pthread_mutex_lock(&fn->lock);
	for (unsigned int i = 0; i < PCI_BARS; i++)
		addresses[i] = fn->bars[i].mapped ? fn->bars[i].address : 0;
	pthread_mutex_unlock(&fn->lock);
}

static void expect_bar(struct pci_function *fn, unsigned int index, uint64_t address)
{
	struct pci_bar *bar = &fn->bars[index];
	struct error err = ERROR_INIT;

	if (bar->mapped || bar->kind == PCI_BAR_NONE || address & ~address_mask(bar))
		return;
	pthread_mutex_lock(&fn->lock);
	bar->address = address;
	bar->expected = true;
	pthread_mutex_unlock(&fn->lock);
	if (try_map_bar(fn, index, &err))
		bar->expected = false;
}

void pci_function_expect(struct pci_function *fn, const uint64_t addresses[PCI_BARS])
{
	pthread_mutex_lock(&fn->write_lock);
	for (unsigned int i = 0; i < PCI_BARS; i++)
		expect_bar(fn, i, addresses[i]);
	pthread_mutex_unlock(&fn->write_lock);
}

void pci_function_settle_mappings(struct pci_function *fn, const uint8_t *config, uint32_t mapped)
{
	pthread_mutex_lock(&fn->write_lock);
	for (unsigned int i = 0; i < PCI_BARS; i++)
		if (fn->bars[i].expected &&
		    (!(mapped & 1u << i) ||
		     address_in(config, &fn->bars[i], i) != fn->bars[i].address))
			unmap_bar(fn, i);
	pthread_mutex_unlock(&fn->write_lock);
}

void pci_function_unmap(struct pci_function *fn)
{
	pthread_mutex_lock(&fn->write_lock);
	pthread_mutex_lock(&fn->lock);
	fn->config[PCI_COMMAND] &= (uint8_t) ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	pthread_mutex_unlock(&fn->lock);
	pci_function_update_mappings(fn);
	pthread_mutex_unlock(&fn->write_lock);
}

void pci_function_place_bar(struct pci_function *fn, unsigned int index, uint64_t address)
{
	unsigned int at = register_offset(index);
	struct pci_bar *bar = &fn->bars[index];
	uint32_t mask;

	if (bar->kind == PCI_BAR_NONE)
		return;
	pthread_mutex_lock(&fn->write_lock);
	pthread_mutex_lock(&fn->lock);
	mask = (uint32_t)address_mask(bar);
	store_le32(fn->config + at,
		   (load_le32(fn->config + at) & ~mask) | ((uint32_t)address & mask));
	if (bar->kind == PCI_BAR_MEM64)
		store_le32(fn->config + at + 4, (uint32_t)(address >> 32));
	pthread_mutex_unlock(&fn->lock);
	pci_function_update_mappings(fn);
	pthread_mutex_unlock(&fn->write_lock);
}
