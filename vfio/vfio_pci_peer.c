/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peer to peer: BARs in the address space that other devices do DMA through, at the
 * addresses the guest gave them.
 *
 *   iommufd  by dma-buf, which the device's driver exports from Linux 6.19 on: what is
 *            mapped by address must be RAM
 *   type1    by address
 *
 * Where it cannot be done one warning says so, and the guest goes on without: its drivers
 * fall back to RAM, if they ever tried. A device alone has no peers: nothing is mapped
 * until vfio_pci_meet_peers() says that it has (which also spares a live update: what is
 * mapped by dma-buf keeps the kernel from moving the accounting of pinned memory).
 *
 * BARs move in a vCPU's thread, the space belongs to the control plane: so a move is
 * noted, and the main loop makes the space follow.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "vfio/uapi_vfio.h"
#include "vfio/vfio_pci_private.h"

struct vfio_pci_peer {
	struct vfio_pci *device;
	struct dma_space *space;
	struct log *log;
	bool by_file;
	int moved; /* eventfd: the main loop shall look */
	struct loop_source *source;
	pthread_mutex_t lock; /* guards what follows */
	bool met;	      /* there are others */
	bool failed;
	struct {
		uint64_t wanted, at; /* 0: nowhere */
		unsigned int areas;  /* of those mapped at `at`, the first so many */
	} bars[PCI_BARS];
};

static void warn(struct vfio_pci_peer *peer, const char *why)
{
	if (!peer->failed)
		log_warn(peer->log,
			 "%s: other devices cannot reach its BARs (no peer-to-peer DMA): %s",
			 peer->device->fn.id, why);
	peer->failed = true;
}

/* Returns a descriptor. */
static int export_area(struct vfio_pci *device, unsigned int bar, const struct vfio_pci_area *area,
		       struct error *err)
{
	struct vfio_transport *t = device->transport;
	union {
		struct vfio_device_feature_dma_buf feature;
		uint8_t bytes[sizeof(struct vfio_device_feature_dma_buf) +
			      sizeof(struct vfio_region_dma_range)];
	} args = {
		.feature = {
			.region_index = bar,
			.open_flags = O_RDWR | O_CLOEXEC,
			.nr_ranges = 1,
		},
	};

	args.feature.dma_ranges[0] = (struct vfio_region_dma_range){
		.offset = area->offset,
		.length = area->size,
	};
	return t->ops->feature(t, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF, &args,
			       sizeof(args), err);
}

static int map_area(struct vfio_pci_peer *peer, unsigned int bar, const struct vfio_pci_area *area,
		    uint64_t iova, struct error *err)
{
	_cleanup_close_ int fd = -1;

	if (peer->by_file) {
		fd = export_area(peer->device, bar, area, err);
		if (fd < 0)
			return fd;
	}
	return peer->space->ops->map(peer->space, iova, area->size, fd, 0, area->hva,
				     peer->device->bars[bar].region.writable, err);
}

static void take_off(struct vfio_pci_peer *peer, unsigned int bar)
{
	const struct vfio_pci_bar *b = &peer->device->bars[bar];

	for (unsigned int i = 0; i < peer->bars[bar].areas; i++) {
		struct error err = ERROR_INIT;

		if (peer->space->ops->unmap(peer->space, peer->bars[bar].at + b->areas[i].offset,
					    b->areas[i].size, NULL, &err))
			log_warn(peer->log, "%s: bar%u for other devices: %s", peer->device->fn.id,
				 bar, err.message);
	}
	peer->bars[bar].areas = 0;
	peer->bars[bar].at = 0;
}

static void put_on(struct vfio_pci_peer *peer, unsigned int bar)
{
	const struct vfio_pci_bar *b = &peer->device->bars[bar];
	uint64_t address = peer->bars[bar].wanted;
	struct error err = ERROR_INIT;

	peer->bars[bar].at = address;
	for (unsigned int i = 0; i < b->area_count && !peer->failed; i++) {
		if (map_area(peer, bar, &b->areas[i], address + b->areas[i].offset, &err)) {
			warn(peer, err.message);
			return;
		}
		peer->bars[bar].areas++;
	}
}

/* Takes off before putting on: two BARs may have changed places. */
static void follow_locked(struct vfio_pci_peer *peer)
{
	if (!peer->met)
		return;
	for (unsigned int i = 0; i < PCI_BARS; i++)
		if (peer->bars[i].at && peer->bars[i].at != peer->bars[i].wanted)
			take_off(peer, i);
	for (unsigned int i = 0; i < PCI_BARS; i++)
		if (peer->bars[i].wanted && !peer->bars[i].at)
			put_on(peer, i);
}

/* Main loop. */
static void on_moved(void *opaque, int fd, uint32_t events)
{
	struct vfio_pci_peer *peer = opaque;

	eventfd_drain(fd);
	pthread_mutex_lock(&peer->lock);
	follow_locked(peer);
	pthread_mutex_unlock(&peer->lock);
}

static bool can_export(struct vfio_pci *self, struct error *err)
{
	struct vfio_transport *t = self->transport;

	return t->ops->feature(t,
			       VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET |
				       VFIO_DEVICE_FEATURE_DMA_BUF,
			       NULL, 0, err) >= 0;
}

static void check(struct vfio_pci_peer *peer)
{
	struct error err = ERROR_INIT;

	if (!peer->by_file && strcmp(peer->space->ops->name, "type1"))
		warn(peer, "BARs can be mapped by iommufd and type1 only");
	else if (peer->by_file && !can_export(peer->device, &err))
		warn(peer, "its driver does not export BARs as dma-bufs (vfio-pci does from Linux "
			   "6.19 on, with CONFIG_VFIO_PCI_DMABUF)");
}

struct vfio_pci_peer *vfio_pci_peer_new(struct vfio_pci *self)
{
	struct dma_space *space = self->options.peer_space;
	struct vfio_pci_peer *peer;

	if (!space)
		return NULL;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return NULL;
	*peer = (struct vfio_pci_peer){
		.device = self,
		.space = space,
		.log = self->fn.host->log,
		.by_file = !strcmp(space->ops->name, "iommufd"),
		.moved = eventfd_new(),
	};
	pthread_mutex_init(&peer->lock, NULL);
	if (peer->moved < 0 || loop_watch(self->fn.host->loop, &peer->source, peer->moved, EPOLLIN,
					  on_moved, peer, NULL))
		warn(peer, "out of descriptors or memory");
	if (!peer->failed)
		return peer;
	vfio_pci_peer_free(peer);
	return NULL;
}

bool vfio_pci_may_meet_peers(const struct pci_function *fn)
{
	return vfio_pci_is(fn) && vfio_pci_of((struct pci_function *)fn)->peer;
}

void vfio_pci_meet_peers(struct pci_function *fn)
{
	struct vfio_pci_peer *peer = vfio_pci_of(fn)->peer;

	if (!peer || peer->met)
		return;
	pthread_mutex_lock(&peer->lock);
	check(peer);
	peer->met = true;
	pthread_mutex_unlock(&peer->lock);
	eventfd_signal(peer->moved);
}

void vfio_pci_peer_place(struct vfio_pci_peer *peer, unsigned int bar, uint64_t address)
{
	if (!peer)
		return;
	pthread_mutex_lock(&peer->lock);
	peer->bars[bar].wanted = address;
	pthread_mutex_unlock(&peer->lock);
	eventfd_signal(peer->moved);
}

void vfio_pci_peer_free(struct vfio_pci_peer *peer)
{
	if (!peer)
		return;
	loop_unwatch(peer->device->fn.host->loop, &peer->source);
	/* Another process's devices go on using them. */
	for (unsigned int i = 0; i < PCI_BARS && !vfio_pci_is_kept(peer->device); i++)
		if (peer->bars[i].at)
			take_off(peer, i);
	cleanup_close(&peer->moved);
	pthread_mutex_destroy(&peer->lock);
	free(peer);
}
