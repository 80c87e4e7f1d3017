/* SPDX-License-Identifier: Apache-2.0 */
/* What sending and receiving tell of themselves. Plain data, copied under a lock. */
#ifndef MIGRATION_TRANSFER_H
#define MIGRATION_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>

#include "migration/migration_vm.h"
#include "migration/protocol.h"

/* In order. */
enum transfer_phase {
	TRANSFER_CONNECT,  /* connecting; waiting for the source */
	TRANSFER_SETUP,	   /* HELLO to CREATED */
	TRANSFER_PRECOPY,  /* rounds; the VM runs on the source */
	TRANSFER_STOPPED,  /* paused: last round, state, up to READY */
	TRANSFER_HANDOVER, /* from COMMIT on: cannot be cancelled any more */
	TRANSFER_POSTCOPY, /* the VM runs on the destination, pages follow */
	TRANSFER_OVER,
};

enum transfer_outcome {
	TRANSFER_UNDECIDED, /* not over yet */
	TRANSFER_MOVED,	    /* the VM is the destination's */
	TRANSFER_STAYED,    /* the source's, as before; the destination has none */
	/* The source's, paused and without its disk locks: it cannot be known whether it runs
	 * over there, or its locks could not be had back (protocol.h). */
	TRANSFER_HELD,
	/* Postcopy: it ran at the destination, and memory that it needs has not got there. What
	 * the source has is paused and may not run; the destination has nothing. */
	TRANSFER_LOST,
};

/* Postcopy. The destination counts; the source has it from COMPLETE, and before that how
 * many pages it was asked for. */
struct transfer_faults {
	uint64_t count;
	uint64_t mean_us, max_us; /* from the fault until the page was there */
	unsigned int recoveries;  /* connections were lost and made anew */
};

struct transfer_downtime { /* us */
	uint64_t total;	   /* from pause until it ran there */
	uint64_t pause;	   /* vCPUs and emulated devices */
	uint64_t devices;  /* assigned devices stopped */
	uint64_t save;	   /* the state tree */
	uint64_t pages;	   /* the last round, and the rest of devices' streams */
	uint64_t load;	   /* the state sent and loaded, until READY */
	uint64_t handover; /* locks, COMMIT, resume, until RUNNING */
};

struct transfer_connection {
	uint64_t bytes; /* on the wire, headers included */
	uint64_t rate;	/* bytes/s, lately */
};

/* A device whose state is a stream. */
struct transfer_device {
	char id[DEVICE_ID_MAX + 1];
	char kind[DEVICE_KIND_MAX + 1];
	uint64_t bytes;	  /* of its stream, sent or received */
	uint64_t pending; /* source: that it takes when it is stopped; an estimate */
	bool ready;	  /* initial bytes (destination: all) are loaded */
};

struct transfer_progress {
	enum transfer_phase phase;
	enum transfer_outcome outcome;
	bool cancelling;
	uint64_t elapsed_us;
	unsigned int round;
	uint64_t ram_bytes;
	uint64_t remaining_bytes;	   /* RAM to be sent that is known of */
	uint64_t wire_bytes;		   /* of all connections */
	uint64_t pages, zero_pages;	   /* 4 KiB; with data, without */
	uint64_t rate;			   /* bytes/s on the wire, lately */
	uint64_t dirty_rate;		   /* bytes/s, in the round before */
	unsigned int throttle;		   /* % that vCPUs are slowed down by */
	uint64_t expected_downtime_us;	   /* were the VM stopped now; 0: not known */
	struct transfer_downtime downtime; /* source, when it is over */
	uint64_t load_us, resume_us;	   /* what the destination says of itself */
	struct transfer_faults faults;
	const char *io; /* of the page connections: "io_uring", "plain" */
	bool zero_copy;
	unsigned int connection_count; /* page connections */
	struct transfer_connection connections[PROTOCOL_CONNECTIONS_MAX];
	unsigned int device_count;
	struct transfer_device devices[MIGRATION_DEVICES_MAX];
};

#endif
