/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sources of the vfio-user transport share, and what its tests need: the
 * timeout, and a socket that is connected already.
 *
 *   user_connection.c  callers and the loop on one socket     user_message.c  its bytes
 *   user_version.c     negotiation                            user_dma.c      the DMA space
 *   user_region.c      regions and accesses                   user_feature.c  features
 *   transport_user.c   opening and closing, interrupts, reset
 */
#ifndef VFIO_USER_PRIVATE_H
#define VFIO_USER_PRIVATE_H

#include <pthread.h>

#include "base/fd.h"
#include "vfio/transport.h"
#include "vfio/user_connection.h"

#define USER_TIMEOUT_MS 5000

/* What is sent in one message at most, whatever the server would take: see
 * user_connection.c. */
#define USER_SEND_MAX (64UL * 1024)

/* What was negotiated: the server's side, cut down to what we use. */
struct user_caps {
	unsigned int max_fds; /* descriptors it takes in a message */
	uint64_t max_data;    /* bytes of data in a message, either way */
	uint64_t pgsizes;
	uint64_t max_dma_maps;
	bool dirty_pages;    /* older revision: DIRTY_PAGES, and bitmaps in DMA_UNMAP */
	uint64_t max_bitmap; /* bytes of bitmap in a message */
};

struct user_mapping {
	uint64_t iova, size;
	uint8_t *hva;
	bool writable;
};

/* What the server said, once: descriptors come with it, and the answer does not change. */
struct user_region {
	struct vfio_region region;
	bool io_fds_asked;
	struct vfio_ioeventfd *ioeventfds;
	unsigned int ioeventfd_count;
	int io_fds[FD_PASS_MAX];
	unsigned int io_fd_count;
};

/* Of a device that another process still uses: what that one knew. user_keep.c */
struct user_quiet;

struct user_transport {
	struct vfio_transport t; /* first */
	struct dma_space space;
	struct user_connection *connection;
	struct user_caps caps;
	struct guest_memory *memory;
	struct loop *loop;
	struct log *log;
	void (*lost)(void *opaque, const char *reason);
	void *opaque;
	/* What the server may reach. Changed by the control plane, read by whoever serves
	 * the server's commands. */
	pthread_mutex_t maps_lock;
	struct user_mapping *maps; /* sorted by iova */
	unsigned int map_count, map_room;
	struct user_region *regions[VFIO_REGIONS_MAX]; /* those that were asked for */
	/* INTx: unmask when this is signalled; ours (a duplicate), -1: none. */
	int unmask_fd;
	uint32_t unmask_index;
	struct loop_source *unmask;
	struct user_quiet *quiet; /* NULL: it is ours */
};

static inline struct user_transport *to_user(struct vfio_transport *t)
{
	return (struct user_transport *)t;
}

/* As vfio_transport_open_user, over a connected socket, which is taken over on success. */
struct vfio_transport *vfio_transport_open_user_fd(const struct vfio_user_options *options, int fd,
						   unsigned int timeout_ms, struct error *err);

/* Live update, user_keep.c: vfio_transport_ops, and an open without a word to the server. */
int user_keep(struct vfio_transport *t, struct kept *kept, const char *id, bool paused,
	      struct error *err);
int user_hold(struct vfio_transport *t, bool hold, struct error *err);
int user_own(struct vfio_transport *t, struct error *err);
int user_take(struct user_transport *u, struct kept *kept, const char *id, struct error *err);
void user_quiet_free(struct user_transport *u);
/* transport_user.c: ends of interrupts wait. */
int user_hold_unmask(struct user_transport *u, bool hold, struct error *err);
/* Fills err: the server is not spoken to now. */
int user_is_quiet(const struct user_transport *u, struct error *err);
int user_kept_irq(const struct user_transport *u, uint32_t index, struct vfio_irq *irq,
		  struct error *err);
int user_kept_read(const struct user_transport *u, const struct vfio_region *region,
		   uint64_t offset, void *data, size_t len, struct error *err);

/* VERSION, both ways. */
int user_negotiate(struct user_connection *connection, struct user_caps *caps, struct error *err);

/* The DMA space: part of the transport. */
void user_dma_init(struct user_transport *u);
void user_dma_destroy(struct user_transport *u);
/* DMA_READ and DMA_WRITE: see user_connection_options.serve. */
ssize_t user_dma_serve(void *opaque, uint16_t command, void *payload, size_t len);
/* ORs the bits of a server's bitmap of 4 KiB pages, `pages` long, into bitmap from bit
 * `first` on; bits past `pages` are ignored. */
void user_bitmap_merge(struct dirty_bitmap *bitmap, uint64_t first, const uint64_t *words,
		       uint64_t pages);

/* Regions. */
int user_region_info(struct vfio_transport *t, uint32_t index, struct vfio_region *region,
		     struct error *err);
int user_region_read(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		     void *data, size_t len, struct error *err);
int user_region_write(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		      const void *data, size_t len, struct error *err);
int user_region_map(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		    uint64_t size, void **address, struct error *err);
int user_region_ioeventfds(struct vfio_transport *t, const struct vfio_region *region,
			   struct vfio_ioeventfd *out, unsigned int max, struct error *err);
void user_regions_free(struct user_transport *u);
/* A reply to DEVICE_GET_REGION_INFO of len bytes into region (map_fd aside): 0, or -EPROTO
 * and why. */
int user_region_parse(const void *reply, size_t len, uint32_t index, struct vfio_region *region,
		      struct error *err);

/* Features; the pointers in the kernel's structures are followed here. */
int user_feature(struct vfio_transport *t, uint32_t flags, void *data, size_t len,
		 struct error *err);
/* Migration data, by messages where the kernel has a descriptor. */
ssize_t user_migration_read(struct vfio_transport *t, int fd, void *data, size_t len,
			    unsigned int wait_ms, struct error *err);
int user_migration_write(struct vfio_transport *t, int fd, const void *data, size_t len,
			 struct error *err);
int user_migration_precopy_info(struct vfio_transport *t, int fd, struct vfio_precopy_info *info,
				struct error *err);
void user_migration_end(struct vfio_transport *t, int fd);

#endif
