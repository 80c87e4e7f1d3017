/* SPDX-License-Identifier: Apache-2.0 */
/* pvpanic, ISA form (QEMU docs/specs/pvpanic): reading says which events it knows,
 * writing reports some. */
#include <errno.h>
#include <stdlib.h>

#include "devices/legacy/legacy.h"

#define PORT 0x505
#define STATE_VERSION 1
#define EVENTS 0x3 /* PANICKED, CRASH_LOADED */

struct pvpanic {
	struct device_host *host;
	struct machine_requests requests;
};

static void port_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	*(uint8_t *)data = EVENTS;
}

static void port_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct pvpanic *pvpanic = opaque;
	unsigned int events = *(const uint8_t *)data & EVENTS;

	if (events && pvpanic->requests.panicked)
		pvpanic->requests.panicked(pvpanic->requests.opaque, events);
}

static const struct bus_ops port_ops = { .read = port_read, .write = port_write };

struct pvpanic *pvpanic_new(struct device_host *host, const struct machine_requests *requests,
			    struct error *err)
{
	struct pvpanic *pvpanic = calloc(1, sizeof(*pvpanic));

	if (!pvpanic) {
		error_set_errno(err, ENOMEM, "create pvpanic");
		return NULL;
	}
	pvpanic->host = host;
	pvpanic->requests = *requests;
	if (bus_add(host->pio, PORT, 1, "pvpanic", &port_ops, pvpanic, err)) {
		free(pvpanic);
		return NULL;
	}
	return pvpanic;
}

void pvpanic_save(struct pvpanic *pvpanic, struct state_writer *writer, const char *name)
{
	state_begin(writer, name, "pvpanic", STATE_VERSION);
	state_end(writer);
}

int pvpanic_load(struct pvpanic *pvpanic, const struct state_node *node, struct error *err)
{
	return state_expect(node, "pvpanic", STATE_VERSION, NULL, NULL, err);
}

void pvpanic_free(struct pvpanic *pvpanic)
{
	if (!pvpanic)
		return;
	bus_remove(pvpanic->host->pio, PORT);
	free(pvpanic);
}
