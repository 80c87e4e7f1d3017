/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vfio-user protocol on the wire: VFIO's device interface as messages over a unix
 * stream socket. Layout by the published protocol description (libvfio-user and QEMU,
 * docs/interop/vfio-user.rst, version 0.1 of the negotiated protocol).
 *
 * The VMM is the client, the device's process the server. Either side sends commands,
 * each answered by one reply that carries the command's id:
 *
 *	client                                        server
 *	  VERSION {0.1, JSON capabilities}       ->
 *	                                         <-   VERSION {0.1, JSON capabilities}
 *	  DEVICE_GET_INFO                        ->
 *	                                         <-   regions, interrupts, flags
 *	  DMA_MAP {gpa, size, offset} + memfd    ->            once per region of RAM
 *	                                         <-   (empty)
 *	  DEVICE_GET_REGION_INFO {index}         ->
 *	                                         <-   flags, size, capabilities + fd to mmap
 *	  DEVICE_SET_IRQS {index, start} + fds   ->            eventfds the server signals
 *	                                         <-   (empty)
 *	  REGION_WRITE {region, offset, data}    ->            a trapped access of the guest
 *	                                         <-   DMA_READ {gpa, count}       where the
 *	  DMA_READ reply {gpa, count, data}      ->            server has not mapped the RAM
 *	                                         <-   REGION_WRITE reply
 *
 * A message is a header, a fixed payload per command, and data; `size` counts all of it.
 * Descriptors travel as SCM_RIGHTS with the message's bytes. Integers are in the byte
 * order of the host (both ends share it). An error reply is a bare header with ERROR set.
 * `argsz` in a command is the largest reply payload wanted; in a reply what the whole
 * payload takes: larger than wanted, the variable part is missing and the command is
 * repeated with more.
 *
 * Two revisions differ in how pages written by DMA are reported. The older one has the
 * capability "migration", DIRTY_PAGES and a bitmap in DMA_UNMAP; the newer one has
 * DEVICE_FEATURE with VFIO's DMA logging features, and MIG_DATA_READ/WRITE.
 */
#ifndef VFIO_USER_PROTOCOL_H
#define VFIO_USER_PROTOCOL_H

#include <stdint.h>

#define VFIO_USER_MAJOR 0
#define VFIO_USER_MINOR 1

enum vfio_user_command {
	VFIO_USER_VERSION = 1,
	VFIO_USER_DMA_MAP = 2,
	VFIO_USER_DMA_UNMAP = 3,
	VFIO_USER_DEVICE_GET_INFO = 4,
	VFIO_USER_DEVICE_GET_REGION_INFO = 5,
	VFIO_USER_DEVICE_GET_REGION_IO_FDS = 6,
	VFIO_USER_DEVICE_GET_IRQ_INFO = 7,
	VFIO_USER_DEVICE_SET_IRQS = 8,
	VFIO_USER_REGION_READ = 9,
	VFIO_USER_REGION_WRITE = 10,
	VFIO_USER_DMA_READ = 11,  /* from the server */
	VFIO_USER_DMA_WRITE = 12, /* from the server */
	VFIO_USER_DEVICE_RESET = 13,
	VFIO_USER_DIRTY_PAGES = 14, /* older revision */
	VFIO_USER_REGION_WRITE_MULTI = 15,
	VFIO_USER_DEVICE_FEATURE = 16,
	VFIO_USER_MIG_DATA_READ = 17,
	VFIO_USER_MIG_DATA_WRITE = 18,
};

#define VFIO_USER_TYPE_MASK 0xfU
#define VFIO_USER_TYPE_COMMAND 0U
#define VFIO_USER_TYPE_REPLY 1U
#define VFIO_USER_NO_REPLY (1U << 4)
#define VFIO_USER_ERROR (1U << 5)

struct vfio_user_header {
	uint16_t id;
	uint16_t command;
	uint32_t size; /* with this header */
	uint32_t flags;
	uint32_t error; /* errno, in replies with ERROR */
};

/* VERSION, both ways; JSON text with its NUL follows, or nothing:
 * {"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1048576, "pgsizes": 4096,
 *  "max_dma_maps": 65535, "migration": {"pgsize": 4096}}}. */
struct vfio_user_version {
	uint16_t major, minor;
};
/* What a side means that leaves a capability out. */
#define VFIO_USER_DEFAULT_MSG_FDS 1
#define VFIO_USER_DEFAULT_XFER_SIZE (1024 * 1024)
#define VFIO_USER_DEFAULT_PGSIZES 4096
#define VFIO_USER_DEFAULT_DMA_MAPS 65535

/* DMA_MAP; the reply is empty. A descriptor with it: the server may mmap the range. */
#define VFIO_USER_DMA_READABLE (1U << 0)
#define VFIO_USER_DMA_WRITABLE (1U << 1)
struct vfio_user_dma_map {
	uint32_t argsz, flags;
	uint64_t offset; /* in the descriptor's file */
	uint64_t iova, size;
};

/* DMA_UNMAP, exactly what was mapped; the reply repeats it. Older revision: with
 * GET_DIRTY_BITMAP a bitmap follows on both sides, with its bits in the reply. */
#define VFIO_USER_UNMAP_GET_DIRTY_BITMAP (1U << 0)
struct vfio_user_dma_unmap {
	uint32_t argsz, flags;
	uint64_t iova, size;
};
struct vfio_user_bitmap {
	uint64_t pgsize;
	uint64_t size; /* bytes of bits behind this */
};

/* DIRTY_PAGES; with GET_BITMAP the range follows, and comes back with its bits. */
#define VFIO_USER_DIRTY_START (1U << 0)
#define VFIO_USER_DIRTY_STOP (1U << 1)
#define VFIO_USER_DIRTY_GET_BITMAP (1U << 2)
struct vfio_user_dirty_pages {
	uint32_t argsz, flags;
};
struct vfio_user_dirty_range {
	uint64_t iova, size;
	struct vfio_user_bitmap bitmap;
};

/* As struct vfio_device_info's first fields. */
struct vfio_user_device_info {
	uint32_t argsz, flags; /* VFIO_DEVICE_FLAGS_* */
	uint32_t num_regions, num_irqs;
};

/* DEVICE_GET_REGION_INFO is struct vfio_region_info and its capabilities,
 * DEVICE_GET_IRQ_INFO struct vfio_irq_info, DEVICE_SET_IRQS struct vfio_irq_set. */

/* DEVICE_GET_REGION_IO_FDS; in the reply `count` entries follow, argsz - 16 bytes in all. */
struct vfio_user_region_io_fds {
	uint32_t argsz, flags, index, count;
};
#define VFIO_USER_IO_FD_IOEVENTFD 0
#define VFIO_USER_IO_FD_IOREGIONFD 1
#define VFIO_USER_IOEVENTFD_DATAMATCH (1U << 0) /* as KVM_IOEVENTFD_FLAG_* */
#define VFIO_USER_IOEVENTFD_PIO (1U << 1)
struct vfio_user_io_fd {
	uint64_t offset;
	uint64_t size;	   /* 0: a write of any size */
	uint32_t fd_index; /* among the message's descriptors */
	uint32_t type, flags, padding;
	uint64_t datamatch;
};

/* REGION_READ, REGION_WRITE and their replies; data behind it. */
struct vfio_user_region_access {
	uint64_t offset;
	uint32_t region, count;
};

/* DMA_READ, DMA_WRITE and their replies; data behind it. */
struct vfio_user_dma_access {
	uint64_t iova, count;
};

/* DEVICE_FEATURE: as struct vfio_device_feature. What is a pointer in the kernel's
 * structures lies inline: ranges of DMA_LOGGING_START behind its first 16 bytes, the
 * bitmap of DMA_LOGGING_REPORT behind its first 24. */
struct vfio_user_feature {
	uint32_t argsz, flags;
};

/* MIG_DATA_READ, MIG_DATA_WRITE; data behind it. */
struct vfio_user_mig_data {
	uint32_t argsz, size;
};

#endif
