/* SPDX-License-Identifier: Apache-2.0 */
/* Boot milestones at port 0x80, and a console without a driver: each byte written
 * goes out, reading says that it is there. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "devices/legacy/legacy.h"
#include "devices/legacy/output.h"

#define PORT_MILESTONE 0x80
#define STATE_VERSION 1
#define CONSOLE_PRESENT 0xe9 /* as Bochs answers, which guests look for */

struct debug_port {
	struct device_host *host;
	struct machine_requests requests;
	uint16_t console_port; /* 0: none */
	atomic_int out_fd;
	atomic_uchar last;
};

static void milestone_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	*(uint8_t *)data = atomic_load(&((struct debug_port *)opaque)->last);
}

static void milestone_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct debug_port *d = opaque;
	uint8_t value = *(const uint8_t *)data;

	atomic_store(&d->last, value);
	if (d->requests.debug)
		d->requests.debug(d->requests.opaque, value);
}

static void console_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	*(uint8_t *)data = CONSOLE_PRESENT;
}

/* What does not go out at once is lost: nobody debugs through a slow reader. */
static void console_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct debug_port *d = opaque;
	int fd = atomic_load(&d->out_fd);

	if (fd >= 0 && output_write(fd, data, 1) < 0)
		atomic_store(&d->out_fd, -1);
}

static const struct bus_ops milestone_ops = { .read = milestone_read, .write = milestone_write };
static const struct bus_ops console_ops = { .read = console_read, .write = console_write };

struct debug_port *debug_port_new(struct device_host *host, const struct machine_requests *requests,
				  uint16_t port, int out_fd, struct error *err)
{
	struct debug_port *d = calloc(1, sizeof(*d));

	if (!d) {
		error_set_errno(err, ENOMEM, "create debug port");
		return NULL;
	}
	d->host = host;
	d->requests = *requests;
	d->console_port = port;
	atomic_init(&d->out_fd, out_fd);
	if (bus_add(host->pio, PORT_MILESTONE, 1, "debug port", &milestone_ops, d, err))
		goto fail;
	if (port && bus_add(host->pio, port, 1, "debug console", &console_ops, d, err)) {
		bus_remove(host->pio, PORT_MILESTONE);
		goto fail;
	}
	return d;
fail:
	free(d);
	return NULL;
}

void debug_port_save(struct debug_port *d, struct state_writer *writer, const char *name)
{
	state_begin(writer, name, "debug-port", STATE_VERSION);
	state_put_u32(writer, "last", atomic_load(&d->last));
	state_end(writer);
}

int debug_port_load(struct debug_port *d, const struct state_node *node, struct error *err)
{
	uint32_t last;
	int r = state_expect(node, "debug-port", STATE_VERSION, NULL, NULL, err);

	if (!r)
		r = state_get_u32_max(node, "last", UINT8_MAX, &last, err);
	if (!r)
		atomic_store(&d->last, (uint8_t)last);
	return r;
}

void debug_port_free(struct debug_port *d)
{
	if (!d)
		return;
	if (d->console_port)
		bus_remove(d->host->pio, d->console_port);
	bus_remove(d->host->pio, PORT_MILESTONE);
	free(d);
}
