/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses for BARs. What is taken is what the slots hold: there is no other
 * book-keeping, so an address comes back the moment its function leaves.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/pci/pci_root_internal.h"

struct taken {
	uint64_t start, size;
};

/* Every BAR counts twice: where we put it, and where the guest moved it. */
#define TAKEN_MAX ((PCI_SLOTS * 2 + 1) * (PCI_BARS + 1))

struct book {
	unsigned int count;
	struct taken taken[TAKEN_MAX];
};

static bool same_space(enum pci_bar_kind a, enum pci_bar_kind b)
{
	return (a == PCI_BAR_IO) == (b == PCI_BAR_IO);
}

static void note(struct book *book, uint64_t start, uint64_t size)
{
	if (start && book->count < TAKEN_MAX)
		book->taken[book->count++] = (struct taken){ .start = start, .size = size };
}

static void collect_locked(struct pci_root *root, enum pci_bar_kind kind, struct book *book)
{
	book->count = 0;
	for (unsigned int s = 0; s < PCI_SLOTS; s++) {
		const struct pci_slot *slot = &root->slots[s];

		if (!slot->fn)
			continue;
		pthread_mutex_lock(&slot->fn->lock);
		for (unsigned int i = 0; i <= PCI_ROM_BAR; i++) {
			const struct pci_bar *bar = &slot->fn->bars[i];

			if (bar->kind == PCI_BAR_NONE || !same_space(bar->kind, kind))
				continue;
			note(book, slot->assigned[i], bar->size);
			if (bar->mapped)
				note(book, bar->address, bar->size);
		}
		pthread_mutex_unlock(&slot->fn->lock);
	}
}

static const struct taken *overlapping(const struct book *book, uint64_t start, uint64_t size)
{
	for (unsigned int i = 0; i < book->count; i++) {
		const struct taken *t = &book->taken[i];

		if (start < t->start + t->size && t->start < start + size)
			return t;
	}
	return NULL;
}

/* 0 where there is no room. Each step goes past one range that is taken. */
static uint64_t first_fit(const struct book *book, const struct pci_window *window, uint64_t size)
{
	uint64_t start = align_up(window->base, size);
	const struct taken *t;

	if (!start) /* 0 means unassigned to guests */
		start = size;
	for (;;) {
		if (start < window->base || size > window->size ||
		    start - window->base > window->size - size)
			return 0;
		t = overlapping(book, start, size);
		if (!t)
			return start;
		start = align_up(t->start + t->size, size);
	}
}

static const struct pci_window *window_of(const struct pci_root *root, enum pci_bar_kind kind,
					  const char **name)
{
	switch (kind) {
	case PCI_BAR_IO: *name = "I/O"; return &root->windows.io;
	case PCI_BAR_MEM64: *name = "64-bit memory"; return &root->windows.mem64;
	default: *name = "32-bit memory"; return &root->windows.mem32;
	}
}

int pci_root_allocate(struct pci_root *root, struct pci_function *fn,
		      uint64_t address[PCI_BARS + 1], struct error *err)
{
	struct book book;

	memset(address, 0, (PCI_BARS + 1) * sizeof(*address));
	for (unsigned int i = 0; i <= PCI_ROM_BAR; i++) {
		const struct pci_bar *bar = &fn->bars[i];
		const struct pci_window *window;
		const char *name;

		if (bar->kind == PCI_BAR_NONE)
			continue;
		window = window_of(root, bar->kind, &name);
		pthread_mutex_lock(&root->lock);
		collect_locked(root, bar->kind, &book);
		pthread_mutex_unlock(&root->lock);
		for (unsigned int j = 0; j < i; j++)
			if (same_space(fn->bars[j].kind, bar->kind))
				note(&book, address[j], fn->bars[j].size);
		address[i] = first_fit(&book, window, bar->size);
		if (!address[i])
			return error_set(err, ENOSPC,
					 "place %s of 0x%llx bytes: no room in the %s window of "
					 "0x%llx bytes",
					 bar->name, (unsigned long long)bar->size, name,
					 (unsigned long long)window->size);
	}
	return 0;
}

bool pci_root_may_place(const struct pci_root *root, const struct pci_bar *bar, uint64_t address)
{
	const struct pci_window *window;
	const char *name;

	if (!bar || bar->kind == PCI_BAR_NONE)
		return !address;
	window = window_of(root, bar->kind, &name);
	return address && !(address & (bar->size - 1)) && address >= window->base &&
	       bar->size <= window->size && address - window->base <= window->size - bar->size;
}
