/* SPDX-License-Identifier: Apache-2.0 */
/* What send*.c share; nobody else includes this. */
#ifndef MIGRATION_SEND_PRIVATE_H
#define MIGRATION_SEND_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "memory/dirty_tracker.h"
#include "migration/control.h"
#include "migration/send.h"
#include "migration/send_devices.h"
#include "migration/witness.h"

/* One page connection and its thread. */
struct page_sender {
	struct migration_send *send;
	struct channel *channel;
	unsigned int index;
	pthread_t thread;
	bool started;
	uint64_t rate_bytes; /* sent when the rate was taken last */
	unsigned int round;  /* that was begun last when it was started */
};

/* Postcopy: what the destination asks for, and the thread that answers. */
struct request_server {
	struct channel *channel;
	pthread_t thread;
	bool started;
};

struct migration_send {
	struct migration_vm vm;
	struct send_options options;
	struct bandwidth bandwidth;
	struct guest_memory *memory;
	struct dirty_tracker *tracker;
	struct channel *control;
	struct witness witness;
	uint64_t capabilities;
	uint8_t session[SESSION_SIZE];

	/* eventfds */
	int cancel; /* it is cancelled: of the control connection */
	int stop;   /* that, or a page connection failed: of the page connections */
	int late;   /* it is cancelled while we inquire */

	bool was_running, paused, unlocked; /* what is to be undone */
	bool in_doubt;			    /* ... but may not */
	bool inquiring;			    /* under `lock` */
	const char *why;		    /* under `lock`: it is cancelled */
	uint64_t pinged_ms, rated_ns, started_ns, paused_ns, deadline_ms;
	unsigned int stuck;		  /* rounds in a row that did not shrink */
	uint64_t least_pending, least_ms; /* what devices had left at least, and since when */

	/* The page connections: one round at a time. */
	struct page_sender *senders;
	pthread_mutex_t round_lock;
	pthread_cond_t round_begins, round_over;
	unsigned int round, busy;
	bool last_round, quit;
	struct error page_error; /* the first, of devices as well; code 0: none */
	unsigned int region;	 /* where the next pages are taken */
	uint64_t page;
	uint64_t data_end;	    /* of the extent of its memfd that was looked up last */
	_Atomic uint64_t remaining; /* pages */
	struct send_devices devices;
	_Atomic uint64_t pages, zero_pages;

	/* Postcopy. */
	uint64_t unit;	/* pages that only come together: 1, or those of a huge page */
	bool cut_round; /* under round_lock: the round ends with what it has */
	bool following; /* under round_lock: the VM is paused, and the bitmaps have what it lacks */
	bool connected; /* control is of use, after RUNNING */
	bool lost;	/* the VM */
	struct request_server requests;
	_Atomic uint64_t faults;

	pthread_mutex_t lock;		   /* of what follows */
	uint64_t closed_bytes;		   /* of connections that are gone */
	struct transfer_progress progress; /* counters above are filled in when asked */
};

/* send_pages.c */
int send_pages_start(struct migration_send *send, struct error *err);
void send_pages_stop(struct migration_send *send); /* joins; may be called twice */
void send_pages_begin_round(struct migration_send *send, bool last);
/* Waits up to ms; true when it is over. */
bool send_pages_wait(struct migration_send *send, unsigned int ms);
/* 0, or why a page connection, or a device, failed. */
int send_pages_error(struct migration_send *send, struct error *err);
/* That: everything ends. Any thread. */
void send_note_error(struct migration_send *send, const struct error *error);
/* Closes the page connections and that of requests, so that new ones can be made. */
void send_pages_hang_up(struct migration_send *send);
/* One frame of [page, page + pages) of a region, whatever the bitmap says. */
int send_pages_run(struct migration_send *send, struct channel *channel,
		   const struct guest_memory_region *region, uint64_t page, uint64_t pages,
		   struct error *err);

/* send_setup.c */
int send_set_up(struct migration_send *send, struct error *err);
/* The next frame on control; FAILED is an error. */
int send_next(struct migration_send *send, struct frame *frame, int idle_ms, struct error *err);
/* The same: it must be of this type. */
int send_expect(struct migration_send *send, uint16_t type, struct frame *frame, int idle_ms,
		struct error *err);
/* A connection that broke says less than the destination's last words, if it had any. */
void send_find_reason(struct migration_send *send, struct error *err);

/* send_precopy.c */
int send_precopy(struct migration_send *send, struct error *err);
/* One round of what the tracker has; looks after the control connection meanwhile. */
int send_round(struct migration_send *send, bool last, struct error *err);
/* What is looked after while anything takes long; 0: go on. */
int send_tick(struct migration_send *send, struct error *err);
void send_take_rates(struct migration_send *send);
int send_ping(struct migration_send *send, struct error *err);

/* send_postcopy.c */
/* The connection of requests, and its thread. */
int send_postcopy_connect(struct migration_send *send, struct error *err);
void send_postcopy_hang_up(struct migration_send *send);
/* Before the pause: most of what will be missing, until the destination has dropped it. */
int send_postcopy_announce(struct migration_send *send, struct error *err);
/* Paused and saved: tells what is missing, and answers requests from now on. */
int send_postcopy_missing(struct migration_send *send, struct error *err);
/* Reads the destination's list of what it misses into the bitmaps, from its first frame on. */
int send_postcopy_read_missing(struct migration_send *send, struct frame *frame, struct error *err);

/* send_follow.c: postcopy from RUNNING on. An error: the VM is lost. */
int send_follow(struct migration_send *send, struct error *err);

/* send_handover.c: from READY on. */
int send_hand_over(struct migration_send *send, struct error *err);

/* send.c */
void send_set_phase(struct migration_send *send, enum transfer_phase phase);
uint64_t send_wire_bytes(const struct migration_send *send);

#endif
