/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State trees that somebody made up, loaded into a machine's devices. What loads is
 * resumed, served for a moment with RAM of zeros, and saved: that must load again.
 *
 * Input: a byte that chooses the device, a byte of what happens after the load, then the
 * tree. Seeds are tests/golden's files with two bytes in front.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/legacy/legacy.h"
#include "devices/pci/pci_root.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_net_priv.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_simple.h"
#include "devices/virtio/virtio_vsock_priv.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/fake_tap.h"

#define SLOT 3
#define RAM (8 * MIB)
#define INPUT_MAX 65536

struct machine {
	struct fake_host h;
	struct fake_tap tap;
	struct pci_root *root;
	struct pci_function *fn;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char disk[64], socket_path[64];

static void require(bool condition)
{
	if (!condition)
		abort();
}

static void remove_files(void)
{
	unlink(disk);
	unlink(socket_path);
}

static void make_files(void)
{
	int fd;

	strcpy(disk, "/tmp/fuzz-state-XXXXXX");
	fd = mkstemp(disk);
	require(fd >= 0 && !ftruncate(fd, 65536));
	close(fd);
	snprintf(socket_path, sizeof(socket_path), "%s.sock", disk);
	atexit(remove_files);
}

/* virtio devices, as tests/unit/devices/test_state_virtio.c makes them. */

static const struct rate_limiter_options limits = {
	.bandwidth = { .size = 1 << 20, .one_time_burst = 1000, .refill_ms = 1000000000 },
	.ops = { .size = 100, .refill_ms = 1000000000 },
};

static struct virtio_device *make_blk(struct machine *m)
{
	const struct virtio_blk_options options = {
		.path = disk,
		.unlocked = true,
		.queues = 2,
		.queue_size = 64,
		.discard = true,
		.disable_io_uring = true,
		.rate_limit = limits,
	};

	return virtio_blk_new(&m->h.host, "disk0", &options, NULL);
}

static struct virtio_device *make_net(struct machine *m)
{
	const struct virtio_net_options options = {
		.mac = { 2, 0, 0, 0, 0, 9 },
		.queue_pairs = 2,
		.queue_size = 64,
		.mtu = 1400,
		.offload_csum = true,
		.offload_tso = true,
		.rate_limit = limits,
	};

	return virtio_net_new_with(&m->h.host, "net0", &options, &m->tap.ops, &vhost_kernel_ops,
				   NULL);
}

static struct virtio_device *make_rng(struct machine *m)
{
	return virtio_rng_new(&m->h.host, "rng", NULL, NULL);
}

static struct virtio_device *make_console(struct machine *m)
{
	return virtio_console_new(&m->h.host, "console", -1, -1, NULL);
}

static struct virtio_device *make_balloon(struct machine *m)
{
	return virtio_balloon_new(&m->h.host, "balloon", 0, true, true, NULL);
}

static struct virtio_device *make_vsock(struct machine *m)
{
	const struct virtio_vsock_options options = { .cid = 42, .socket = socket_path };

	return virtio_vsock_new(&m->h.host, "vsock0", &options, NULL);
}

static struct virtio_device *(*const makers[])(struct machine *m) = {
	make_blk, make_net, make_rng, make_console, make_balloon, make_vsock,
};

static void machine_init(struct machine *m, unsigned int kind)
{
	static const struct pci_root_layout layout = {
		.ecam_base = 0xe0000000,
		.mem32_base = 0xc0000000,
		.mem32_size = 0x10000000,
		.mem64_base = 0x4000000000,
		.mem64_size = 0x100000000,
		.io_base = 0xd000,
		.io_size = 0x1000,
		.intx_gsi = { 16, 17, 18, 19 },
		.hotplug_base = 0xe1000000,
	};
	struct virtio_device *dev;

	require(!fake_host_init_ram(&m->h, RAM));
	fake_tap_init(&m->tap);
	m->root = pci_root_new(&m->h.host, &layout, NULL, NULL);
	dev = makers[kind](m);
	require(m->root && dev);
	m->fn = virtio_pci_new(&m->h.host, dev, NULL);
	require(m->fn && !pci_root_add(m->root, m->fn, SLOT, false, NULL));
}

static void machine_destroy(struct machine *m)
{
	pci_root_free(m->root);
	require(!m->h.fake.ioevent_count && !m->h.fake.irqfd_count && !m->h.fake.routes &&
		!m->h.fake.misuses);
	fake_tap_destroy(&m->tap);
	fake_host_destroy_ram(&m->h);
}

/* What a device saves, a fresh one takes. */
static void save_and_load(struct machine *m, unsigned int kind)
{
	static struct machine again;
	struct error err = ERROR_INIT;
	struct state_writer *writer = state_writer_new(NULL);
	struct state_node root, node;
	void *blob;
	size_t len;

	require(writer && !pci_root_save(m->root, writer, "devices", &err));
	require(!state_writer_finish(writer, &blob, &len, &err));
	state_writer_free(writer);
	/* One socket, one listener. */
	if (makers[kind] != make_vsock) {
		machine_init(&again, kind);
		require(!state_tree_open(blob, len, &root, &err));
		require(!state_child(&root, "devices", &node, &err));
		require(!pci_root_load(again.root, &node, &err));
		machine_destroy(&again);
	}
	free(blob);
}

static void load_virtio(unsigned int kind, uint8_t after, const struct state_node *node)
{
	static struct machine m;
	struct error err = ERROR_INIT;
	int r;

	machine_init(&m, kind);
	r = pci_root_load(m.root, node, &err);
	require(r ? err.code == r && err.message[0] : true);
	if (!r && (after & 1)) {
		virtio_pci_resume(m.fn);
		virtio_pci_pause(m.fn);
	}
	if (!r && (after & 2))
		save_and_load(&m, kind);
	if (!r && (after & 4))
		pci_root_reset(m.root);
	machine_destroy(&m);
}

static void require_said(int r, const struct error *err)
{
	require(r ? err->code == r && err->message[0] : true);
}

static void load_legacy(const struct state_node *node)
{
	static const struct machine_requests requests;
	static struct fake_host h;
	struct irq_line irq = { .interrupts = &h.host.interrupts, .gsi = 4 };
	struct error err = ERROR_INIT;
	struct debug_port *debug_port;
	struct acpi_ged *ged;
	struct serial *serial;
	struct i8042 *i8042;
	struct rtc *rtc;
	uint8_t byte;

	require(!fake_host_init(&h));
	serial = serial_new(&h.host, 0x3f8, irq, -1, -1, NULL);
	rtc = rtc_new(&h.host, 1 << 20, 0, NULL);
	i8042 = i8042_new(&h.host, &requests, NULL);
	debug_port = debug_port_new(&h.host, &requests, 0, -1, NULL);
	ged = acpi_ged_new(&h.host, 0xfed00000, irq, &requests, NULL);
	require(serial && rtc && i8042 && debug_port && ged);
	require_said(serial_load(serial, node, &err), &err);
	require_said(rtc_load(rtc, node, &err), &err);
	require_said(i8042_load(i8042, node, &err), &err);
	require_said(debug_port_load(debug_port, node, &err), &err);
	require_said(acpi_ged_load(ged, node, &err), &err);
	for (uint16_t port = 0x3f8; port < 0x400; port++)
		for (unsigned int i = 0; i < 17; i++)
			bus_read(h.host.pio, port, &byte, 1);
	bus_read(h.host.pio, 0x71, &byte, 1);
	acpi_ged_free(ged);
	debug_port_free(debug_port);
	i8042_free(i8042);
	rtc_free(rtc);
	serial_free(serial);
	fake_host_destroy(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const unsigned int virtio = ARRAY_SIZE(makers);
	struct state_node root, node = { .offset = -1 };
	uint8_t *copy;

	if (size < 2 || size > INPUT_MAX)
		return -1;
	if (!disk[0])
		make_files();
	copy = malloc(size - 2);
	require(copy != NULL);
	memcpy(copy, data + 2, size - 2);
	if (!state_tree_open(copy, size - 2, &root, NULL) && state_next_child(&root, &node)) {
		if (data[0] % (virtio + 1) == virtio)
			load_legacy(&node);
		else
			load_virtio(data[0] % (virtio + 1), data[1], &node);
	}
	free(copy);
	return 0;
}
