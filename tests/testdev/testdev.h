/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ferry-testdev: a vfio-user server of one small PCI device. One thread, one client at a
 * time.
 *
 *   main.c       options, the socket, the poll loop      regions.c    info, accesses, BARs
 *   server.c     messages in and out                     device.c     registers, DMA engine
 *   commands.c   one function per command                irqs.c       MSI-X, MSI, INTx
 *   features.c   device features: a table                dma.c        guest memory
 *   misbehave.c  what it does wrong when it is told to   migration.h  its state, and how it moves
 *   options.c    the command line                        agent.c      its state out of band
 *
 * Registers are in testdev_regs.h, their use in README.md.
 */
#ifndef TESTS_TESTDEV_TESTDEV_H
#define TESTS_TESTDEV_TESTDEV_H

#include <linux/vfio.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/testdev/migration.h"
#include "tests/testdev/testdev_regs.h"
#include "vfio/uapi_vfio.h"
#include "vfio/user_protocol.h"

#define TESTDEV_DATA_MAX (1024UL * 1024)
#define TESTDEV_PAYLOAD_MAX (TESTDEV_DATA_MAX + 65536)
#define TESTDEV_FDS_MAX 64
#define TESTDEV_MAPS_MAX 64
#define TESTDEV_VECTORS_MAX 2048
#define TESTDEV_QUEUE_MAX 64

enum testdev_fault {
	FAULT_NONE,
	/* replies */
	FAULT_SHORT_REPLY,
	FAULT_SHORT_DATA,
	FAULT_LONG_REPLY,
	FAULT_WRONG_SIZE,
	FAULT_HUGE_SIZE,
	FAULT_TINY_SIZE,
	FAULT_WRONG_ID,
	FAULT_WRONG_COMMAND,
	FAULT_WRONG_TYPE,
	FAULT_ERROR_REPLIES,
	FAULT_ERROR_DATA,
	FAULT_EXTRA_FDS,
	FAULT_TRICKLE,
	/* when */
	FAULT_DIE_AT,
	FAULT_DIE_IN_REPLY,
	FAULT_HANG_AT,
	/* out of turn */
	FAULT_REPLY_TO_NOTHING,
	FAULT_UNKNOWN_COMMAND,
	FAULT_COMMAND_FDS,
	FAULT_FLOOD,
	/* DMA */
	FAULT_DMA_OUTSIDE,
	FAULT_DMA_HUGE,
	FAULT_DMA_LIE,
	/* negotiation */
	FAULT_BAD_VERSION,
	FAULT_BAD_JSON,
	FAULT_BAD_CAPS,
	/* description */
	FAULT_NOT_PCI,
	FAULT_MANY_REGIONS,
	FAULT_MANY_IRQS,
	FAULT_HUGE_REGION,
	FAULT_WRONG_REGION,
	FAULT_CAP_LOOP,
	FAULT_CAP_OUTSIDE,
	FAULT_AREA_OUTSIDE,
	FAULT_AREAS_OVERLAP,
	FAULT_AREAS_MANY,
	FAULT_SHORT_FILE,
	FAULT_IO_FD_INDEX,
	FAULT_IO_FD_OUTSIDE,
	/* migration */
	FAULT_REFUSE_STATE,
	FAULT_ERROR_STATE,
	FAULT_MIG_ERROR,
	FAULT_MIG_DIE,
	FAULT_MIG_DIE_IN_REPLY,
	FAULT_MIG_HANG,
	FAULT_MIG_SHORT,
	FAULT_MIG_LONG,
	FAULT_MIG_LIE,
	FAULT_MIG_ENDLESS,
	FAULT_MIG_OFFSET,
	FAULT_MIG_OFFSET_HEAD,
	FAULT_MIG_MAGIC,
	FAULT_MIG_VERSION,
	FAULT_MIG_DEVICE,
	FAULT_MIG_REORDERED,
	FAULT_MIG_CORRUPT,
	FAULT_MIG_TRUNCATED,
};

enum testdev_region_map { REGION_TRAPPED, REGION_MAPPED, REGION_SPARSE };

enum testdev_dirty { DIRTY_NONE, DIRTY_LOG, DIRTY_PAGES };

struct testdev_options {
	const char *socket;
	int fd; /* a connected socket instead, or -1 */
	bool once, verbose;
	bool dma_messages;
	bool no_caps;
	enum testdev_dirty dirty;
	unsigned int vectors;
	unsigned int max_fds;
	uint64_t max_data;
	enum testdev_fault fault;
	uint32_t fault_state; /* enum vfio_device_mig_state, of faults about one */
	/* Number of the command (of migration, for faults about that), from 1, where the
	 * fault starts. */
	uint64_t fault_at;
	bool fault_of_migration;
	uint64_t mig_flags; /* VFIO_MIGRATION_*; 0: it does not migrate */
	/* By device features, by the first protocol's region, or by an agent out of band. */
	enum testdev_way { WAY_FEATURES, WAY_REGION, WAY_AGENT } mig_way;
	const char *agent; /* ADDRESS:PORT; NULL: none */
	enum testdev_region_map region_map;
	uint64_t region_data;		    /* bytes of its data section */
	uint64_t state_size, state_initial; /* bytes of filler */
	uint64_t state_dirty;		    /* bytes of filler that change in a second */
	uint64_t dma_rate;		    /* bytes a second, 0: at once */
	bool dma_finish;		    /* before it stops */
};

struct testdev_map {
	uint64_t iova, size;
	bool writable;
	uint8_t *hva;	 /* NULL: by messages */
	uint64_t *dirty; /* a bit per page of 4 KiB */
};

/* A transfer, as it was started, and how far it is. */
struct testdev_dma {
	uint64_t src, dst;
	uint32_t len, ctrl, done;
	uint64_t started_ns; /* or continued: when it had done `started_done` */
	uint32_t started_done;
};

/* A message in memory. */
struct testdev_message {
	struct vfio_user_header header;
	uint8_t *payload;
	size_t len;
	int fds[TESTDEV_FDS_MAX];
	unsigned int fd_count;
	struct testdev_message *next;
};

struct testdev_irqs {
	int intx, msi[TESTDEV_MSI_VECTORS], msix[TESTDEV_VECTORS_MAX]; /* eventfds, -1: none */
	int err, req;
	bool intx_masked;
};

struct testdev {
	struct testdev_options o;
	int sock;	   /* the client, -1: none */
	bool ended;	   /* the client is gone */
	uint64_t commands; /* so far */
	uint16_t last_id;
	uint64_t client_max_data;
	unsigned int client_max_fds;
	struct testdev_message *queue, **queue_end; /* commands that came while we waited */
	unsigned int queued;
	uint8_t *reply; /* TESTDEV_PAYLOAD_MAX */

	uint8_t config[TESTDEV_CONFIG_SIZE];
	uint32_t scratch, irq_status, irq_count;
	uint32_t dma_len, dma_ctrl, dma_status, dma_error, dma_count;
	uint64_t dma_src, dma_dst;
	bool dma_pending; /* dma_now is under way */
	struct testdev_dma dma_now;
	uint32_t doorbell_count, doorbell_irq, reset_count;
	int doorbell_fd;
	uint8_t msix_table[TESTDEV_BAR1_SIZE];
	int bar2_fd;
	uint8_t *bar2;
	struct testdev_irqs irqs;
	struct testdev_map maps[TESTDEV_MAPS_MAX];
	unsigned int map_count;
	bool logging;
	struct testdev_migration migration;
	int agent_listener, agent; /* -1: none */
};

/* Region info with two mappable areas: struct vfio_region_info_cap_sparse_mmap ends in an
 * array without a length, which some compilers want last. */
struct testdev_region_reply {
	struct vfio_region_info info;
	struct {
		struct vfio_info_cap_header header;
		uint32_t nr_areas, reserved;
	} sparse;
	struct vfio_region_sparse_mmap_area areas[2];
};

/* What a command's function makes: the reply's payload in t->reply, or an errno. */
struct testdev_result {
	int error; /* positive errno: an error reply */
	size_t len;
	int fds[TESTDEV_FDS_MAX]; /* lent */
	unsigned int fd_count;
};

/* options.c: does not return if they are wrong. */
void testdev_parse_options(int argc, char **argv, struct testdev_options *o);

/* main.c, misbehave.c */
void testdev_log(const struct testdev *t, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
bool testdev_parse_fault(const char *text, struct testdev_options *o);
void testdev_print_faults(void);
/* Whether the device is to misbehave in this way now. */
bool testdev_fault(const struct testdev *t, enum testdev_fault fault);
/* Called for every command before it is dealt with; may not return. */
void testdev_misbehave_before(struct testdev *t);
/* Sends the reply as the fault has it; false where it is sent as it should be. */
bool testdev_misbehave_reply(struct testdev *t, struct vfio_user_header *header,
			     struct testdev_result *result);
/* The payload of the reply to `command` is changed. */
void testdev_misbehave_payload(struct testdev *t, uint16_t command, struct testdev_result *result);

/* server.c */
bool testdev_receive(struct testdev *t); /* one command; false: the client is gone */
bool testdev_run_queue(struct testdev *t);
void testdev_send(struct testdev *t, struct vfio_user_header *header, const void *payload,
		  size_t len, const int *fds, unsigned int fd_count);
void testdev_send_raw(struct testdev *t, const void *data, size_t len, const int *fds,
		      unsigned int fd_count);
/* A command to the client, and its reply: the length of the payload in `reply`, which
 * takes `room` bytes, or -errno. */
ssize_t testdev_call(struct testdev *t, uint16_t command, const void *payload, size_t len,
		     void *reply, size_t room);
void testdev_disconnect(struct testdev *t);

/* commands.c, regions.c, features.c */
void testdev_command(struct testdev *t, const struct testdev_message *m,
		     struct testdev_result *result);
uint32_t testdev_region_count(const struct testdev *t);
int testdev_region_info(struct testdev *t, const struct testdev_message *m,
			struct testdev_result *result);
int testdev_region_io_fds(struct testdev *t, const struct testdev_message *m,
			  struct testdev_result *result);
int testdev_region_read(struct testdev *t, const struct testdev_message *m,
			struct testdev_result *result);
int testdev_region_write(struct testdev *t, const struct testdev_message *m,
			 struct testdev_result *result);
int testdev_feature(struct testdev *t, const struct testdev_message *m,
		    struct testdev_result *result);

/* agent.c: a device's state out of band. */
int testdev_agent_listen(struct testdev *t);
void testdev_agent_accept(struct testdev *t);
void testdev_agent_serve(struct testdev *t); /* one request */

/* device.c */
int testdev_init(struct testdev *t);
void testdev_reset(struct testdev *t);
void testdev_bar0_read(struct testdev *t, uint64_t offset, uint8_t *data, size_t len);
void testdev_bar0_write(struct testdev *t, uint64_t offset, const uint8_t *data, size_t len);
void testdev_doorbell(struct testdev *t);
/* Continues a transfer; milliseconds until it can go on, 0: at once, -1: nothing to do. */
int testdev_run_dma(struct testdev *t);
void testdev_finish_dma(struct testdev *t);

/* irqs.c */
void testdev_irqs_init(struct testdev *t);
void testdev_irqs_close(struct testdev *t);
uint32_t testdev_irq_max(const struct testdev *t, uint32_t index);
int testdev_set_irqs(struct testdev *t, const struct testdev_message *m);
void testdev_raise(struct testdev *t, unsigned int vector, uint32_t status);

/* dma.c */
int testdev_dma_map(struct testdev *t, const struct testdev_message *m);
int testdev_dma_unmap(struct testdev *t, const struct testdev_message *m,
		      struct testdev_result *result);
int testdev_dirty_pages(struct testdev *t, const struct testdev_message *m,
			struct testdev_result *result);
void testdev_dma_unmap_all(struct testdev *t);
void testdev_dirty_clear(struct testdev *t);
/* Bits of [iova, iova + size), moved out of the log. 0 or an errno. */
int testdev_dirty_report(struct testdev *t, uint64_t iova, uint64_t size, uint64_t page_size,
			 uint8_t *bits, size_t bytes);
/* 0 or an errno. */
int testdev_dma_read(struct testdev *t, uint64_t iova, void *data, size_t len);
int testdev_dma_write(struct testdev *t, uint64_t iova, const void *data, size_t len);

#endif
