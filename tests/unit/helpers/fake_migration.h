/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device whose own state can be moved, behind a transport: by migration v2, by the region
 * of the first protocol, or by neither; and that may log its DMA. It has its own idea of
 * both state machines, and counts what breaks them. Depends on base alone.
 *
 * The state is `content`: `precopy` bytes of it are had while the device runs, the rest
 * when it is stopped. What is loaded is in `loaded`. Any one call can be made to fail.
 */
#ifndef TESTS_FAKE_MIGRATION_H
#define TESTS_FAKE_MIGRATION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vfio/transport.h"
#include "vfio/uapi_vfio.h"

#define FAKE_MIGRATION_MAX 65536U
#define FAKE_MIGRATION_REGION 10U /* 9 is another */
#define FAKE_LOG_RANGES 1024U

struct fake_migration {
	struct vfio_transport transport;
	struct vfio_transport_ops ops; /* a test may take some away */

	uint8_t content[FAKE_MIGRATION_MAX], loaded[FAKE_MIGRATION_MAX];
	size_t len, precopy, sent, loaded_len;

	/* Migration v2. */
	bool has_feature, has_data_size, has_reinit, no_precopy_info;
	uint64_t flags;	    /* VFIO_MIGRATION_* */
	uint32_t state;	    /* enum vfio_device_mig_state */
	bool reinit;	    /* reported next, and precopy begins anew */
	bool reinit_on;	    /* MIG_PRECOPY_INFOv2 was set */
	int fd;		    /* of the stream, -1 */
	unsigned int slow;  /* reads that find nothing, though stopped */
	bool endless;	    /* stopped, it gives out whatever is asked for */
	bool refuses_state; /* what is loaded does not do: RESUMING -> STOP fails */

	/* The region. */
	bool has_region;
	struct vfio_region region;
	int memfd;
	uint8_t *memory;
	uint64_t data_at;   /* where packets lie; section up to the region's end */
	size_t packet;	    /* bytes of one at most */
	size_t staged;	    /* of content, in the section */
	uint32_t old_state; /* device_state, all its bits */
	uint64_t wrong_offset, wrong_size, stuck_pending; /* what it says instead; 0: the truth */
	char trace[1024]; /* accesses: p o s d read, O D S written (O: data_offset read), w */
	bool tracing;

	/* DMA logging. */
	bool has_log, logging;
	uint64_t log_page;	 /* granted; 0: what is asked for */
	uint32_t log_ranges_max; /* more are refused */
	int report_error;
	uint32_t log_range_count;
	struct vfio_device_feature_dma_logging_range log_ranges[FAKE_LOG_RANGES];
	uint64_t dirty[16];
	unsigned int dirty_count, log_starts, log_stops, reports;

	pthread_mutex_t lock; /* save_pending comes beside save_read */
	unsigned int calls, fail_at, failed;
	bool fail_in_error; /* an arc that fails ends in ERROR */
	bool fail_all;	    /* from fail_at on all fail */
	unsigned int misuses;
};

/* With neither; fake->has_feature or fake_migration_add_region make it something. */
void fake_migration_init(struct fake_migration *fake, size_t len, size_t precopy);
void fake_migration_destroy(struct fake_migration *fake);
/* `mapped` bytes from the page after data_at's on can be mapped; 0: none. */
void fake_migration_add_region(struct fake_migration *fake, uint64_t size, uint64_t data_at,
			       size_t packet, uint64_t mapped_at, uint64_t mapped);
/* As the guest's driver or VFIO_DEVICE_RESET does. */
void fake_migration_reset(struct fake_migration *fake);
/* It does what a running device does: nobody holds it. */
bool fake_migration_runs(const struct fake_migration *fake);

#endif
