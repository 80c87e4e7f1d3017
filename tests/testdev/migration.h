/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration of ferry-testdev: its state as a stream, and the two protocols that move it.
 *
 *   migration.c         the states (migration v2's) and what the arcs between them do
 *   migration_save.c    the stream, made        migration_load.c  the stream, taken
 *   migration_v2.c      device features and MIG_DATA_*
 *   migration_region.c  the first protocol: a region
 *   filler.c            bytes of state that a test can ask for, and check
 *
 * The stream is a sequence of records, little endian. Any cut of it into messages will do:
 *
 *	struct testdev_record, then `len` bytes of data
 *
 *	HEAD      struct testdev_stream_head; first, alone of its kind
 *	FILLER    pages of filler, `offset` in it; as often as they changed
 *	DEVICE    struct testdev_device_state; once, when the device is stopped
 *	BAR2      its memory, in pieces
 *	END       struct testdev_stream_end; last
 *
 * `seq` counts records from 0; `sum` is the sum of the data as 32-bit words (the last one
 * padded with zeros). A reader refuses a stream with any of that wrong, with a magic,
 * version or device of another kind, or that ends before END.
 */
#ifndef TESTS_TESTDEV_MIGRATION_H
#define TESTS_TESTDEV_MIGRATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TESTDEV_PAGE 4096U
#define TESTDEV_STATES 8 /* enum vfio_device_mig_state, PRE_COPY_P2P the last */

#define TESTDEV_STREAM_MAGIC "FERRYTDV"
#define TESTDEV_STREAM_VERSION 1

enum testdev_record_type {
	RECORD_HEAD = 1,
	RECORD_FILLER = 2,
	RECORD_DEVICE = 3,
	RECORD_BAR2 = 4,
	RECORD_END = 5,
};

#define TESTDEV_RECORD_MAX (256UL * 1024) /* of data */

struct testdev_record {
	uint32_t type, seq;
	uint32_t len, sum;
	uint64_t offset;
};

struct testdev_stream_head {
	char magic[8];
	uint32_t version;
	uint16_t vendor, device;
	uint64_t state_size; /* filler of the device that was left */
};

/* Registers, counters, and a DMA that was in flight. */
struct testdev_device_state {
	uint64_t dma_src, dma_dst;
	uint64_t now_src, now_dst; /* of the transfer under way */
	uint32_t now_len, now_ctrl, now_done, now_pending;
	uint32_t scratch, irq_status, irq_count;
	uint32_t dma_len, dma_ctrl, dma_status, dma_error, dma_count;
	uint32_t doorbell_count, doorbell_irq;
};

struct testdev_stream_end {
	uint64_t generations; /* of all pages of filler, summed up */
	uint32_t records;     /* before this one */
	uint32_t reserved;
};

/*
 * Filler: pages that can be checked. Word k (64 bits) of page p in generation g is
 * (p << 32 | k) * TESTDEV_FILLER_FACTOR + g, but for word 0: g itself.
 */
#define TESTDEV_FILLER_FACTOR 0x9e3779b97f4a7c15ULL

struct testdev_filler {
	uint8_t *bytes;
	uint64_t pages, initial; /* `initial`: those that PRE_COPY sends first */
	uint64_t *unsent;	 /* a bit per page: to be sent (again) */
	uint64_t unsent_count, unsent_initial;
	uint64_t send_at, touch_at; /* where the next page is looked for, gets dirty */
	uint64_t generations;	    /* of all pages, summed up */
	uint64_t touched_ns;	    /* when pages last got dirty by themselves */
};

/* One record on its way out or in. */
struct testdev_stage {
	uint8_t *bytes; /* head and data */
	size_t len, at;
};

enum testdev_region_step { STEP_IDLE, STEP_PENDING, STEP_OFFSET, STEP_SIZE };

struct testdev_migration {
	uint32_t state; /* enum vfio_device_mig_state */
	struct testdev_filler filler;
	/* The stream under way. */
	struct testdev_stage stage;
	uint32_t seq;
	bool head, device, ended; /* these records went, or came */
	uint64_t bar2_at;
	bool failed;	/* what came was refused */
	uint32_t loads; /* streams that were taken */
	/* The region: its bytes behind the header, and how far the protocol's sequence is. */
	int region_fd;
	uint8_t *region;
	enum testdev_region_step step;
	uint64_t section_len;
	uint64_t messages; /* of migration so far: see testdev_migration_message */
};

struct testdev;
struct testdev_message;
struct testdev_result;
struct vfio_region_info;

int testdev_migration_init(struct testdev *t);
/* RUNNING again, whatever it was. */
void testdev_migration_reset(struct testdev *t);
/* By way of all states between: 0 or an errno; the state is then where it got to. */
int testdev_set_state(struct testdev *t, uint32_t target);
/* Whether the device does DMA, and takes its registers' writes. */
bool testdev_dma_allowed(const struct testdev *t);
bool testdev_writes_allowed(const struct testdev *t);
/* Of a message that is one of migration: counts it, and does what the faults "mig-die..."
 * have it do then: an errno, 0, or no return. */
int testdev_migration_message(struct testdev *t);

/* Up to `len` bytes of the stream; 0: none now, or no more. */
size_t testdev_stream_read(struct testdev *t, uint8_t *to, size_t len);
/* Estimates of what is still to be read: worth sending first, the rest. */
void testdev_stream_pending(struct testdev *t, uint64_t *initial, uint64_t *rest);
/* The bytes of the whole of STOP_COPY, if it began now. */
uint64_t testdev_stop_copy_size(struct testdev *t);
void testdev_stream_begin(struct testdev *t); /* of a new stream, out or in */
/* 0 or an errno: from then on every write fails. */
int testdev_stream_write(struct testdev *t, const uint8_t *from, size_t len);
bool testdev_stream_complete(const struct testdev *t);
uint32_t testdev_sum(const uint8_t *data, size_t len);

int testdev_filler_init(struct testdev *t);
void testdev_filler_touch(struct testdev *t, uint64_t pages); /* the next ones get dirty */
void testdev_filler_run(struct testdev *t);   /* those that got dirty in the meantime */
void testdev_filler_start(struct testdev *t); /* the meantime begins */
void testdev_filler_unsent_all(struct testdev *t);
/* The next pages to send, marked as sent, up to `max`: their count, *first the first. */
uint64_t testdev_filler_take(struct testdev *t, uint64_t max, uint64_t *first);
/* Pages that came; EINVAL where they are not what filler is. */
int testdev_filler_load(struct testdev *t, uint64_t offset, const uint8_t *data, size_t len);

/* Command MIG_DATA_READ, MIG_DATA_WRITE. */
int testdev_mig_data_read(struct testdev *t, const struct testdev_message *m,
			  struct testdev_result *result);
int testdev_mig_data_write(struct testdev *t, const struct testdev_message *m,
			   struct testdev_result *result);

/* The states as the first protocol and plugins have them. */
uint32_t testdev_v1_state(const struct testdev *t);
int testdev_set_v1_state(struct testdev *t, uint32_t v1);

/* The region: size, the reply to its info, accesses (0 or an errno). */
int testdev_migration_region_init(struct testdev *t);
uint64_t testdev_migration_region_size(const struct testdev *t);
void testdev_migration_region_info(struct testdev *t, const struct vfio_region_info *info,
				   struct testdev_result *result);
int testdev_migration_region_read(struct testdev *t, uint64_t offset, uint8_t *data, size_t len);
int testdev_migration_region_write(struct testdev *t, uint64_t offset, const uint8_t *data,
				   size_t len);

#endif
