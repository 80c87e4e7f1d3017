/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things are in a machine that was: what a configuration does not say, and a guest
 * has been told.
 *
 *   { "mem64_base": n, "mem64_size": n,       the window for 64-bit BARs
 *     "slots": { "_disk0": 3, ... },          PCI slots, by the devices' ids
 *     "expected": ... }                       what is not certain: machine_expect.c
 */
#include <errno.h>

#include "base/bytes.h"
#include "vmm/machine_private.h"

static void add_slot(void *opaque, struct pci_function *fn)
{
	json_object_set_new(opaque, fn->id, json_integer(fn->devfn >> 3));
}

json_t *machine_layout(struct machine *machine, struct error *err)
{
	json_t *slots = json_object(), *layout;

	if (slots)
		pci_root_each(machine->pci, add_slot, slots);
	layout = json_pack("{s:I, s:I, s:o, s:o}", "mem64_base", (json_int_t)machine->mem64_base,
			   "mem64_size", (json_int_t)machine->mem64_size, "slots", slots,
			   "expected", machine_expected(machine));
	if (!layout)
		error_set_errno(err, ENOMEM, "machine layout");
	return layout;
}

static int get_address(const json_t *layout, const char *name, uint64_t *value, struct error *err)
{
	const json_t *number = json_object_get(layout, name);

	if (!json_is_integer(number) || json_integer_value(number) < 0)
		return error_set(err, EINVAL, "machine.%s is missing, or no address", name);
	*value = (uint64_t)json_integer_value(number);
	return 0;
}

int machine_layout_window(struct machine *machine, struct error *err)
{
	unsigned int bits = x86_cpuid_phys_bits(machine->supported);
	uint64_t end = 1ULL << MIN(bits, 52U), base = 0, size = 0;
	int r = get_address(machine->layout, "mem64_base", &base, err);

	if (!r)
		r = get_address(machine->layout, "mem64_size", &size, err);
	if (r)
		return r;
	if (base % GIB || size % GIB || base < 4 * GIB || !size || size > end || base > end - size)
		return error_set(err, EINVAL,
				 "machine: the window 0x%llx+0x%llx for BARs does not fit this "
				 "host's CPU, which addresses %u bits",
				 (unsigned long long)base, (unsigned long long)size, bits);
	for (unsigned int i = 0; i < guest_memory_region_count(machine->host.memory); i++) {
		const struct guest_memory_region *region =
			guest_memory_region(machine->host.memory, i);

		if (base < region->gpa + region->size)
			return error_set(err, EINVAL,
					 "machine: the window 0x%llx for BARs is within RAM",
					 (unsigned long long)base);
	}
	machine->mem64_base = base;
	machine->mem64_size = size;
	return 0;
}

int machine_layout_slot(struct machine *machine, const char *id, int *slot, struct error *err)
{
	const json_t *slots = json_object_get(machine->layout, "slots");
	const json_t *number = json_object_get(slots, id);

	if (!json_is_integer(number) || json_integer_value(number) < 1 ||
	    json_integer_value(number) >= PCI_SLOTS)
		return error_set(err, EINVAL, "machine.slots: device %s has none", id);
	*slot = (int)json_integer_value(number);
	return 0;
}
