/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What another process hands over in a live update: KEPT, and what is made of it: a
 * vfio-user device, an IOAS, a vsock's connections, which are then served. The input: u8
 * descriptors that come along, of which every other one is a socket, then the body.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/virtio/virtio_vsock_priv.h"
#include "migration/update.h"
#include "tests/fuzz/without_check.h"
#include "tests/unit/helpers/fake_driver.h"
#include "tests/unit/helpers/fake_host.h"
#include "vfio/kernel_space.h"
#include "vfio/user_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take_user(struct kept *kept)
{
	struct user_transport *u = calloc(1, sizeof(*u));
	struct vfio_region region = { .index = 7, .size = 4096 };
	struct vfio_irq irq;
	uint8_t value[8];

	u->unmask_fd = -1;
	user_dma_init(u);
	if (!user_take(u, kept, "dev", NULL)) {
		for (uint32_t i = 0; i < u->t.irq_count; i++)
			user_kept_irq(u, i, &irq, NULL);
		user_kept_read(u, &region, 0, value, sizeof(value), NULL);
		user_kept_read(u, &region, 4092, value, sizeof(value), NULL);
	}
	user_quiet_free(u);
	user_regions_free(u);
	user_dma_destroy(u);
	free(u);
}

static void take_iommufd(struct kept *kept)
{
	struct dma_space *space = dma_space_take_iommufd(kept, NULL, NULL);

	if (space)
		space->ops->free(space);
}

static void nothing(void *opaque)
{
}

/* A guest that has some buffers takes what the connections have to say. */
static void serve(struct fake_transport *transport, struct vsock *vsock)
{
	struct fake_driver *rx = &transport->drivers[VSOCK_RX];
	uint32_t len;
	uint16_t id;

	for (uint64_t i = 0; i < 32; i++)
		fake_driver_add(rx, &(struct fake_buffer){ MIB + 4096 * i, 4096, true }, 1);
	fake_transport_kick(transport, VSOCK_RX);
	for (int i = 0; i < 3; i++)
		loop_call(vsock->loop, nothing, NULL);
	while (fake_driver_used(rx, &id, &len))
		if (len < VSOCK_HEADER_SIZE || len > 4096)
			abort();
}

static void take_vsock(struct kept *kept)
{
	const struct virtio_vsock_options options = { .cid = 3, .socket = "/nowhere/vsock" };
	static struct fake_host host;
	struct fake_transport transport;
	struct virtio_device *dev;
	struct vsock *vsock;

	if (!host.host.memory && fake_host_init_ram(&host, 4 * MIB))
		abort();
	host.host.kept = kept;
	dev = virtio_vsock_new(&host.host, "dev", &options, NULL);
	if (!dev)
		return;
	vsock = container_of(dev, struct vsock, dev);
	fake_transport_attach(&transport, dev);
	dev->active = true; /* as load finds it */
	if (!vsock_take_conns(vsock, NULL)) {
		dev->active = false;
		fake_transport_activate(&transport, VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX), 0x10000,
					64);
		serve(&transport, vsock);
	}
	fake_transport_destroy(&transport);
}

/* As those of clients are, or of no use as one. */
static int descriptor(unsigned int n)
{
	return n % 2 ? socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
		     : open("/dev/null", O_RDWR | O_CLOEXEC);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kept kept = { .count = 0 };
	int fds[FD_PASS_MAX];
	unsigned int count;

	if (!size)
		return 0;
	count = *data % FD_PASS_MAX;
	for (unsigned int i = 0; i < count; i++)
		fds[i] = descriptor(i);
	if (!kept_decode(&kept, data + 1, size - 1, fds, count, NULL)) {
		take_user(&kept);
		take_iommufd(&kept);
		take_vsock(&kept);
	}
	kept_destroy(&kept);
	return 0;
}
