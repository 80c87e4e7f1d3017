/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of virtio over PCI, driven by a hostile guest: config space, the BAR,
 * and, once the guest brought the device up, its rings.
 *
 * Input: operations of 12 bytes { kind, length code, offset 16 bits, value 64 bits },
 * little-endian. The device answers each chain of each queue at once.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/virtio/virtio_pci.h"
#include "tests/unit/helpers/fake_host.h"

#define BAR 0x100000000ULL
#define RAM (256 * KIB)
#define QUEUES 3
#define OPS_MAX 512
#define IOVS 66

struct op {
	uint8_t kind, len;
	uint16_t offset;
	uint64_t value;
} __attribute__((packed));

struct device {
	struct virtio_device dev;
	bool serving;
	uint8_t config[20];
	struct iovec iov[IOVS];
	uint64_t gpa[IOVS];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
	if (!condition)
		abort();
}

static struct device *device_of(struct virtio_device *dev)
{
	return container_of(dev, struct device, dev);
}

static void config_read(struct virtio_device *dev, uint32_t offset, void *data, unsigned int len)
{
	require(offset + len <= sizeof(device_of(dev)->config));
	memcpy(data, device_of(dev)->config + offset, len);
}

static void config_write(struct virtio_device *dev, uint32_t offset, const void *data,
			 unsigned int len)
{
	require(offset + len <= sizeof(device_of(dev)->config));
	memcpy(device_of(dev)->config + offset, data, len);
}

static int activate(struct virtio_device *dev, struct error *err)
{
	require(!device_of(dev)->serving);
	if (device_of(dev)->config[0] == 0xee)
		return error_set(err, EIO, "as the guest wished");
	device_of(dev)->serving = true;
	return 0;
}

static void deactivate(struct virtio_device *dev)
{
	require(device_of(dev)->serving);
	device_of(dev)->serving = false;
}

static void pause_device(struct virtio_device *dev)
{
	require(device_of(dev)->serving);
}

static void free_device(struct virtio_device *dev)
{
	require(!device_of(dev)->serving);
	free(device_of(dev));
}

static const struct virtio_device_ops ops = {
	.config_read = config_read,
	.config_write = config_write,
	.activate = activate,
	.deactivate = deactivate,
	.pause = pause_device,
	.resume = pause_device,
	.free = free_device,
};

static void serve(struct device *device)
{
	struct virtqueue_chain chain = { .iov = device->iov, .gpa = device->gpa, .iov_max = IOVS };

	for (unsigned int i = 0; i < QUEUES && device->serving; i++) {
		struct virtqueue *vq = &device->dev.queues[i];
		int r = 0;

		eventfd_drain(device->dev.kick_fd[i]);
		for (int n = 0; n < 4 && (r = virtqueue_pop(vq, &chain)) == 1; n++) {
			size_t len = virtqueue_chain_write(&chain, 0, "answer", 6);

			virtqueue_push(vq, &chain, (uint32_t)len);
		}
		if (r == -EBADMSG)
			virtio_device_needs_reset(&device->dev, vq->fault);
		if (virtqueue_should_signal(vq))
			virtio_device_signal(&device->dev, i);
		require(virtio_device_call_fd(&device->dev, i) >= -1);
	}
}

static struct pci_function *make_function(struct fake_host *h, struct device **out)
{
	struct device *device = calloc(1, sizeof(*device));
	struct pci_function *fn;

	require(device != NULL);
	device->dev.ops = &ops;
	device->dev.host = &h->host;
	strcpy(device->dev.id, "fuzz0");
	device->dev.type = VIRTIO_BLK;
	device->dev.device_features = 0x60;
	device->dev.queue_count = QUEUES;
	device->dev.queues[0].size_max = 64;
	device->dev.config_size = sizeof(device->config);
	fn = virtio_pci_new(&h->host, &device->dev, NULL);
	require(fn != NULL);
	fn->intx = (struct irq_line){ .interrupts = &h->host.interrupts, .gsi = 5 };
	*out = device;
	return fn;
}

static void place_bar(struct pci_function *fn)
{
	uint8_t address[8], command[2] = { 6, 0 };

	store_le64(address, BAR);
	pci_function_config_write(fn, 0x10, address, 4);
	pci_function_config_write(fn, 0x14, address + 4, 4);
	pci_function_config_write(fn, 4, command, 2);
}

static void step(struct fake_host *h, struct pci_function *fn, const struct op *op)
{
	unsigned int len = 1U << (op->len & 3);
	uint8_t data[8];

	memcpy(data, &op->value, sizeof(data));
	switch (op->kind & 7) {
	case 0:
	case 1: bus_write(h->host.mmio, BAR + op->offset, data, len); break;
	case 2: bus_read(h->host.mmio, BAR + op->offset, data, len); break;
	case 3: pci_function_config_write(fn, op->offset, data, MIN(len, 4U)); break;
	case 4: pci_function_config_read(fn, op->offset, data, MIN(len, 4U)); break;
	case 5: guest_memory_write(h->host.memory, (uint64_t)op->offset * 4, data, len); break;
	case 6: place_bar(fn); break;
	default:
		if (op->len & 4)
			fn->ops->reset(fn);
		else if (op->len & 8)
			virtio_pci_pause(fn);
		else
			virtio_pci_resume(fn);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fake_host h; /* kept: making it costs more than a run */
	struct pci_function *fn;
	struct device *device;
	struct op op;

	if (size / sizeof(op) > OPS_MAX)
		return -1;
	if (!h.host.memory)
		require(!fake_host_init_ram(&h, RAM));
	guest_memory_zero(h.host.memory, 0, RAM);
	fn = make_function(&h, &device);
	place_bar(fn);
	for (; size >= sizeof(op); data += sizeof(op), size -= sizeof(op)) {
		memcpy(&op, data, sizeof(op));
		step(&h, fn, &op);
		serve(device);
	}
	pci_function_unmap(fn);
	fn->ops->free(fn);
	require(!h.fake.ioevent_count && !h.fake.irqfd_count && !h.fake.routes && !h.fake.misuses);
	h.fake.level[5] = false;
	return 0;
}
