/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine that comes from elsewhere has done before the guest is paused there: BARs
 * and doorbells are put where they are there now, and MSI routes made. KVM waits for a grace
 * period at each of them, which else the guest would have to. None of it is certain: the
 * guest runs on, and what the state then says otherwise is done anew.
 *
 * In the layout (machine_layout.c):
 *
 *   "expected": { "messages": [[address, data], ...],      of the MSI routes in use
 *                 "bars": { "_disk0": [a, 0, ...], ... },  addresses; 0: not on the bus
 *                 "doorbells": { "_disk0": [0, ...] } }    queues that have an ioeventfd
 */
#include "base/bytes.h"
#include "devices/virtio/virtio_pci.h"
#include "vmm/machine_private.h"

static json_t *messages_of(struct machine *machine)
{
	struct msi_message msgs[IDLE_ROUTES_MAX];
	unsigned int count = kvm_interrupts_messages(machine->interrupts, msgs, IDLE_ROUTES_MAX);
	json_t *list = json_array();

	for (unsigned int i = 0; i < count; i++)
		json_array_append_new(list, json_pack("[I, I]", (json_int_t)msgs[i].address,
						      (json_int_t)msgs[i].data));
	return list;
}

static json_t *bars_of(struct pci_function *fn)
{
	uint64_t addresses[PCI_BARS];
	json_t *list = json_array();

	pci_function_mappings(fn, addresses);
	for (unsigned int i = 0; i < PCI_BARS; i++)
		json_array_append_new(list, json_integer((json_int_t)addresses[i]));
	return list;
}

static json_t *doorbells_of(struct pci_function *fn)
{
	uint64_t doorbells = virtio_pci_doorbells(fn);
	json_t *list = json_array();

	for (unsigned int i = 0; i < 64; i++)
		if (doorbells >> i & 1)
			json_array_append_new(list, json_integer(i));
	return list;
}

json_t *machine_expected(struct machine *machine)
{
	json_t *bars = json_object(), *doorbells = json_object();

	for (const struct machine_device *d = machine->devices; d; d = d->next) {
		if (d->ejected)
			continue;
		json_object_set_new(bars, d->id, bars_of(d->fn));
		if (virtio_pci_device(d->fn))
			json_object_set_new(doorbells, d->id, doorbells_of(d->fn));
	}
	return json_pack("{s:o, s:o, s:o}", "messages", messages_of(machine), "bars", bars,
			 "doorbells", doorbells);
}

/* 0 for what is none. */
static uint64_t number(const json_t *list, size_t i)
{
	json_int_t value = json_integer_value(json_array_get(list, i));

	return value > 0 ? (uint64_t)value : 0;
}

static void expect_messages(struct machine *machine, const json_t *list)
{
	const struct interrupts *interrupts = &machine->host.interrupts;
	struct msi_message msgs[IDLE_ROUTES_MAX];
	unsigned int count = (unsigned int)MIN(json_array_size(list), (size_t)IDLE_ROUTES_MAX);

	for (unsigned int i = 0; i < count; i++) {
		const json_t *message = json_array_get(list, i);

		msgs[i] = (struct msi_message){
			.address = number(message, 0),
			.data = (uint32_t)number(message, 1),
		};
	}
	interrupts->ops->routes_expect(interrupts->opaque, msgs, count);
}

static void expect_device(const struct machine_device *device, const json_t *expected)
{
	const json_t *bars = json_object_get(json_object_get(expected, "bars"), device->id);
	const json_t *list = json_object_get(json_object_get(expected, "doorbells"), device->id);
	uint64_t addresses[PCI_BARS], doorbells = 0;

	for (unsigned int i = 0; i < PCI_BARS; i++)
		addresses[i] = number(bars, i);
	pci_function_expect(device->fn, addresses);
	if (!virtio_pci_device(device->fn))
		return;
	for (size_t i = 0; i < json_array_size(list); i++)
		doorbells |= number(list, i) < 64 ? 1ULL << number(list, i) : 0;
	virtio_pci_expect_doorbells(device->fn, doorbells);
}

void machine_expect(struct machine *machine)
{
	const json_t *expected = json_object_get(machine->layout, "expected");

	if (!expected)
		return; /* of a version that does not say it */
	expect_messages(machine, json_object_get(expected, "messages"));
	for (const struct machine_device *d = machine->devices; d; d = d->next)
		expect_device(d, expected);
}
