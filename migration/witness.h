/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The witness (protocol.h): how the two processes of a migration on one host see each
 * other end. One thread.
 */
#ifndef MIGRATION_WITNESS_H
#define MIGRATION_WITNESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/thread.h"
#include "migration/protocol.h"

/* What the destination says. */
enum witness_word {
	WITNESS_NOTHING = 0,
	WITNESS_STARTING = 'S', /* right before the VM runs */
	WITNESS_RUNNING = 'R',
	WITNESS_FAILED = 'F', /* it does not run, and will not */
};

struct witness {
	int listener;		 /* destination; -1: none */
	int fd;			 /* to the other side; -1: none */
	enum witness_word heard; /* source: the last */
};

#define WITNESS_INIT \
	{ \
		.listener = -1, .fd = -1 \
	}

enum witness_state {
	WITNESS_NONE,  /* there is none: it says nothing */
	WITNESS_THERE, /* the other process lives */
	WITNESS_GONE,  /* it ended, or gave up for good */
};

/* Destination: 0 or -errno. */
int witness_listen(struct witness *witness, const uint8_t name[SESSION_SIZE],
		   const struct thread_policy *policy);
/* Destination: takes the connection that knows the session, where one waits. */
void witness_accept(struct witness *witness, const uint8_t session[SESSION_SIZE]);
/* Destination. */
void witness_say(struct witness *witness, enum witness_word word);

/* Source: 0 or -errno, where it is on another host, or out of sight. */
int witness_connect(struct witness *witness, const uint8_t name[SESSION_SIZE],
		    const uint8_t session[SESSION_SIZE], const struct thread_policy *policy);

/* Both: reads what there is. Does not wait. */
enum witness_state witness_look(struct witness *witness);

void witness_close(struct witness *witness);
/* As long as this process lives the other side shall not see an end: forgets the
 * descriptors without closing them. */
void witness_keep(struct witness *witness);

#endif
