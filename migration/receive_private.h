/* SPDX-License-Identifier: Apache-2.0 */
/* What receive*.c share; nobody else includes this. */
#ifndef MIGRATION_RECEIVE_PRIVATE_H
#define MIGRATION_RECEIVE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "migration/arriving.h"
#include "migration/control.h"
#include "migration/receive.h"
#include "migration/receive_devices.h"
#include "migration/witness.h"

/* One page connection and its thread. */
struct page_receiver {
	struct migration_receive *receive;
	struct channel *channel;
	pthread_t thread;
	bool started;
	struct page_run runs[PAGE_RUNS_MAX];
	struct iovec iov[PAGE_RUNS_MAX];
	uint8_t *buffer; /* postcopy: FRAME_PAGES_MAX, for what is put in place from there */
};

/* Postcopy, but for the pages themselves. */
struct receive_postcopy {
	struct arriving *arriving; /* NULL: it is not postcopy */

	/* Under round_lock: how pages are received changes once. */
	bool switched;	    /* MISSING was read: not straight into RAM any more */
	bool begun;	    /* ... and from now on they are put in place */
	unsigned int plain; /* frames that are being received straight into RAM */
	bool committed;	    /* the VM runs, or may: nobody may see a page that is not there */
	bool released;	    /* it failed before that: nobody is kept waiting for one */

	/* The connection of requests. */
	struct page_receiver requests;

	/* Resumes the VM, for that may touch RAM. */
	pthread_t resumer;
	bool resuming, resume_wanted;
	int resumed; /* eventfd */
	_Atomic int resume_result;
	struct error resume_error;
	bool lost; /* the VM */
};

/* What was decided, and what the source is told of it. */
struct receive_decision {
	bool runs;
	uint64_t resume_us;
	struct error why_not;
};

struct migration_receive {
	struct migration_target target;
	struct receive_options options;
	struct guest_memory *memory;
	struct channel *control;
	struct witness witness;
	struct hello hello;
	uint64_t capabilities;
	uint8_t session[SESSION_SIZE];
	bool created;	    /* the target has to be destroyed */
	bool decided;	    /* and told: what became of the hand-over */
	bool source_failed; /* it said so, instead of COMMIT */
	uint64_t started_ns;

	/* eventfds */
	int stop; /* cancelled by the user, or a page connection failed */
	int late; /* the user does not want to wait for the source to ask */

	/* Rounds: a connection that has ended one waits for the others. */
	struct page_receiver *receivers;
	unsigned int count; /* that are attached */
	pthread_mutex_t round_lock;
	pthread_cond_t round_over;
	unsigned int round, ended; /* rounds that are over; connections that ended the next */
	bool last, complete, quit;
	struct error page_error; /* the first, of devices as well */
	_Atomic uint64_t pages, zero_pages;
	struct receive_devices devices;
	struct receive_postcopy postcopy;

	pthread_mutex_t lock;  /* of what follows */
	uint64_t closed_bytes; /* of connections that are gone */
	struct transfer_progress progress;
};

/* receive_setup.c: up to CREATED. */
int receive_set_up(struct migration_receive *receive, struct error *err);
/* The next frame on control; FAILED is an error. */
int receive_next(struct migration_receive *receive, struct frame *frame, struct error *err);
/* The same, after any PING: it must be of this type. */
int receive_expect(struct migration_receive *receive, uint16_t type, struct frame *frame,
		   struct error *err);
/* Waits for a connection; a plain channel. -ETIMEDOUT, -ECANCELED. */
struct channel *receive_accept(struct migration_receive *receive, int timeout_ms,
			       struct error *err);
/* Waits for the connections that belong to control, and starts their threads. */
int receive_attach(struct migration_receive *receive, struct error *err);

/* receive_pages.c */
/* Starts the thread of a connection that has shown the session. Takes over channel. */
int receive_pages_attach(struct migration_receive *receive, struct channel *channel,
			 uint32_t stream, struct error *err);
/* Waits until that round is over; 0: until RAM and the state of every device are complete.
 * In postcopy with nothing on its way, and switches over. */
int receive_pages_wait(struct migration_receive *receive, uint64_t round, struct error *err);
int receive_pages_error(struct migration_receive *receive, struct error *err);
void receive_pages_stop(struct migration_receive *receive);
/* One frame straight into RAM. */
int receive_pages_plain(struct page_receiver *receiver, const struct frame *frame,
			struct error *err);
int receive_pages_check(const struct migration_receive *receive, const struct frame *frame,
			struct error *err);
/* That a connection failed: everything ends. Any thread. */
void receive_note_error(struct migration_receive *receive, const struct error *error);
/* Closes all connections, control too, so that new ones can be made. */
void receive_hang_up(struct migration_receive *receive);

/* receive_postcopy.c */
int receive_postcopy_open(struct migration_receive *receive, struct error *err);
/* The connection of requests; its thread starts later. Takes over channel. */
int receive_postcopy_attach(struct migration_receive *receive, struct channel *channel,
			    struct error *err);
/* One PAGES frame of a page connection, of either kind. */
int receive_postcopy_pages(struct page_receiver *receiver, const struct frame *frame,
			   struct error *err);
/* MISSING, up to where STATE can be loaded. */
int receive_postcopy_prepare(struct migration_receive *receive, struct error *err);
int receive_postcopy_serve_requests(struct migration_receive *receive, struct error *err);
/* From here on who waits for a page waits until it comes. Fails where it was too late. */
int receive_postcopy_commit(struct migration_receive *receive, struct error *err);
void receive_postcopy_hang_up(struct migration_receive *receive); /* the connection of requests */
/* Nothing runs: nobody is kept waiting. May be called twice. */
void receive_postcopy_release(struct migration_receive *receive);

/* receive_follow.c: postcopy after COMMIT. */
/* 0: the VM runs, or is the destination's and being resumed. */
int receive_follow_resume(struct migration_receive *receive, bool wanted, struct error *err);
/* Until all of RAM is there. An error: the VM is lost. */
int receive_follow(struct migration_receive *receive, struct receive_decision *decision,
		   struct error *err);

/* receive_handover.c: from the loaded state on. 0: the VM is here. */
int receive_hand_over(struct migration_receive *receive, uint64_t load_us, struct error *err);
/* The next connection, if it is the source's with a question: QUERY, RECOVER. */
struct channel *receive_take_question(struct migration_receive *receive, uint16_t *type);
/* Answers it; true where the source knows now all there is. */
bool receive_answer(struct migration_receive *receive, struct channel *question, uint16_t type,
		    const struct receive_decision *decision);
/* Stays there to be asked until the source knows; false: the time is over. */
bool receive_linger(struct migration_receive *receive, const struct receive_decision *decision);
int receive_say_complete(struct migration_receive *receive, struct channel *channel);

/* receive.c */
void receive_set_phase(struct migration_receive *receive, enum transfer_phase phase);
void receive_set_outcome(struct migration_receive *receive, enum transfer_outcome outcome);
bool receive_cancelled(struct migration_receive *receive);
/* So that the source knows that we are there. */
int receive_ping(struct migration_receive *receive, uint64_t *pinged_ms, struct error *err);
/* Nothing is left of the machine. May be called twice. */
void receive_destroy_target(struct migration_receive *receive);

#endif
