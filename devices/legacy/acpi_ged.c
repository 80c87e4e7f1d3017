/* SPDX-License-Identifier: Apache-2.0 */
/* The registers behind ACPI's Generic Event Device, sleep and reset: see legacy.h.
 * Bits are set before the line is pulsed and taken by one read, so an event that
 * comes while another is handled is either seen by that handler or interrupts again. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/legacy/legacy.h"

#define REG_EVENTS 0x0
#define REG_SLEEP_CONTROL 0x4
#define REG_RESET 0x6

#define STATE_VERSION 1
#define EVENTS_ALL (ACPI_EVENT_POWER_BUTTON | ACPI_EVENT_PCI_HOTPLUG | ACPI_EVENT_VMGENID)

/* ACPI 4.8.3.7 */
#define SLP_EN 0x20
#define SLP_TYP(value) ((value) >> 2 & 7)
#define S5 5

struct acpi_ged {
	struct device_host *host;
	uint64_t base;
	struct irq_line irq;
	struct machine_requests requests;
	atomic_uint events;
};

static void registers_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct acpi_ged *ged = opaque;

	memset(data, 0, len);
	if (offset == REG_EVENTS && len == 4)
		store_le32(data, atomic_exchange(&ged->events, 0));
}

static void registers_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	const struct acpi_ged *ged = opaque;
	uint8_t value = *(const uint8_t *)data;

	if (len != 1)
		return;
	if (offset == REG_SLEEP_CONTROL && (value & SLP_EN) && SLP_TYP(value) == S5) {
		if (ged->requests.shutdown)
			ged->requests.shutdown(ged->requests.opaque);
	} else if (offset == REG_RESET && value == 1) {
		if (ged->requests.reset)
			ged->requests.reset(ged->requests.opaque);
	}
}

static const struct bus_ops register_ops = { .read = registers_read, .write = registers_write };

struct acpi_ged *acpi_ged_new(struct device_host *host, uint64_t base, struct irq_line irq,
			      const struct machine_requests *requests, struct error *err)
{
	struct acpi_ged *ged = calloc(1, sizeof(*ged));

	if (!ged) {
		error_set_errno(err, ENOMEM, "create ACPI event device");
		return NULL;
	}
	ged->host = host;
	ged->base = base;
	ged->irq = irq;
	ged->requests = *requests;
	if (bus_add(host->mmio, base, ACPI_GED_SIZE, "ACPI events", &register_ops, ged, err)) {
		free(ged);
		return NULL;
	}
	return ged;
}

void acpi_ged_raise(struct acpi_ged *ged, uint32_t events)
{
	atomic_fetch_or(&ged->events, events);
	irq_line_pulse(&ged->irq);
}

void acpi_ged_save(struct acpi_ged *ged, struct state_writer *writer, const char *name)
{
	state_begin(writer, name, "acpi-ged", STATE_VERSION);
	state_put_u32(writer, "events", atomic_load(&ged->events));
	state_end(writer);
}

int acpi_ged_load(struct acpi_ged *ged, const struct state_node *node, struct error *err)
{
	uint32_t events;
	int r = state_expect(node, "acpi-ged", STATE_VERSION, NULL, NULL, err);

	if (!r)
		r = state_get_u32_max(node, "events", EVENTS_ALL, &events, err);
	if (r)
		return r;
	atomic_store(&ged->events, events);
	if (events)
		irq_line_pulse(&ged->irq);
	return 0;
}

void acpi_ged_free(struct acpi_ged *ged)
{
	if (!ged)
		return;
	bus_remove(ged->host->mmio, ged->base);
	free(ged);
}
