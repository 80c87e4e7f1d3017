/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first migration protocol of VFIO (linux/vfio.h of Linux 5.8 to 5.17): a region of
 * type 3, subtype 1, which begins with registers
 *
 *   0x00  u32  device_state   RUNNING 1, SAVING 2, RESUMING 4; SAVING|RESUMING is an error
 *   0x08  u64  pending_bytes  still to be read
 *   0x10  u64  data_offset    of the data section, in the region
 *   0x18  u64  data_size      bytes in the section
 *
 * and has a data section behind them, which may be mapped, in part, or not at all (a
 * vfio-user server's only where its file is sealed against shrinking). The order of accesses
 * is the protocol. Saving (SAVING|RUNNING, then SAVING), one packet:
 *
 *   read pending_bytes   the packet before it is done with; 0: there is none (for now).
 *                        So it is asked in between packets only, and before a packet's
 *                        state is left
 *   read data_offset     the device puts the next one into the section
 *   read data_size
 *   read the data
 *
 * Resuming (RESUMING), one packet:
 *
 *   read data_offset
 *   write the data
 *   write data_size      the device takes it
 *
 * What goes from here to there is each packet with its length before it (u64, little
 * endian), since a device may want them as they were given out. A section here that is
 * smaller than the packet gets it in pieces.
 *
 * Private to vfio/.
 */
#ifndef VFIO_MIGRATION_REGION_H
#define VFIO_MIGRATION_REGION_H

#include <pthread.h>

#include "vfio/device_migration_private.h"

#define VFIO_REGION_TYPE_MIGRATION 3
#define VFIO_REGION_SUBTYPE_MIGRATION 1

/* Bits of device_state; the others are the device's, and are kept. */
#define REGION_STATE_STOP 0U
#define REGION_STATE_RUNNING 1U
#define REGION_STATE_SAVING 2U
#define REGION_STATE_RESUMING 4U
#define REGION_STATE_MASK 7U
#define REGION_STATE_ERROR (REGION_STATE_SAVING | REGION_STATE_RESUMING)

#define REGION_PENDING_BYTES 0x08U
#define REGION_DATA_OFFSET 0x10U
#define REGION_DATA_SIZE 0x18U
#define REGION_HEADER_SIZE 0x20U

#define REGION_PACKET_HEAD 8U /* bytes, in the stream */

/* The region, and its parts that are mapped. migration_section.c */
struct migration_section {
	struct vfio_transport *transport;
	struct vfio_region region;
	unsigned int map_count;
	struct {
		uint64_t offset, size;
		uint8_t *hva;
	} maps[VFIO_SPARSE_AREAS_MAX];
};

/* Finds it and maps what can be. -ENOTTY: the device has none. */
int migration_section_open(struct migration_section *s, struct vfio_transport *transport,
			   struct log *log, struct error *err);
void migration_section_close(struct migration_section *s);
/* A register, trapped, by its offset; len 4 or 8. */
int migration_section_get(struct migration_section *s, uint64_t offset, unsigned int len,
			  uint64_t *value, struct error *err);
int migration_section_put(struct migration_section *s, uint64_t offset, unsigned int len,
			  uint64_t value, struct error *err);
/* Data, inside the region. */
int migration_section_read(struct migration_section *s, uint64_t offset, void *data, size_t len,
			   struct error *err);
int migration_section_write(struct migration_section *s, uint64_t offset, const void *data,
			    size_t len, struct error *err);
/* -EPROTO where [offset, offset + size) is not in the data part of the region. */
int migration_section_check(const struct migration_section *s, uint64_t offset, uint64_t size,
			    struct error *err);

/* Whether the protocol has that arc, and a name for a state: "pre-copy". */
bool migration_region_arc(uint32_t from, uint32_t to);
const char *migration_region_state_name(uint32_t state);

struct migration_region {
	struct device_migration dm; /* first */
	struct migration_section section;
	uint32_t state; /* as last set or seen: the three bits */
	/* Saving: save_pending comes beside save_read, but the device must not be asked in the
	 * middle of a packet. */
	pthread_mutex_t lock;
	uint64_t pending; /* when last asked */
	uint64_t least;	  /* the smallest so far, in this state */
	uint64_t since;	  /* bytes read since it was */
	bool in_packet, ended;
	bool taken;	   /* a packet was read, and the device not asked since */
	uint64_t at, left; /* of the packet: where in the region, how much */
	/* What was left of a packet when the device was stopped: ours by then. */
	uint8_t *rest;
	size_t rest_at, rest_len;
	/* The length before a packet, on its way out or in. */
	uint8_t head[REGION_PACKET_HEAD];
	unsigned int head_done;
	/* Resuming: left is of the packet, this of the section. */
	bool filling;
	uint64_t section_at, section_room, section_done;
};

#endif
