/* SPDX-License-Identifier: Apache-2.0 */
/* What user_connection.c (callers, roles, the loop) and user_message.c (bytes) share. */
#ifndef VFIO_USER_CONNECTION_PRIVATE_H
#define VFIO_USER_CONNECTION_PRIVATE_H

#include <pthread.h>

#include "base/fd.h"
#include "vfio/user_connection.h"

/* A message on its way in. */
struct rx {
	struct vfio_user_header header;
	size_t have; /* bytes so far, header included */
	int fds[FD_PASS_MAX];
	unsigned int fd_count;
	uint8_t *payload; /* USER_PAYLOAD_MAX */
};

struct user_connection {
	struct user_connection_options o;
	pthread_mutex_t send_lock; /* a message goes out whole; taken with `lock` free */
	pthread_mutex_t lock;	   /* guards what follows, but rx */
	pthread_cond_t changed;	   /* a call is done, the role is free, or all is lost */
	struct user_call *calls;
	uint16_t last_id;
	bool reading, missed;
	bool lost, told;
	char reason[256];
	struct rx rx; /* of whoever has `reading` */
	int kick_fd;
	struct loop_source *input, *kick; /* NULL: not watched */
};

const char *user_command_name(uint16_t command);

/* All is lost, for this reason; the first reason stays. `lock` free. */
void user_connection_lose(struct user_connection *c, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Waits for events on the socket until the deadline (clock_ms): false where that is over. */
bool user_wait_for(struct user_connection *c, short events, uint64_t deadline);
struct user_call *user_find_call_locked(struct user_connection *c, uint16_t id);

/* Sends a message whole; fills header->size. A failure loses the connection. `lock` free. */
void user_send(struct user_connection *c, struct vfio_user_header *header,
	       const struct iovec data[2], const int *fds, unsigned int fd_count);

/* For whoever has the role. One message: 1 where it was dealt with, 0 where it is not all
 * there yet, -1 lost. */
int user_receive(struct user_connection *c);
void user_receive_reset(struct rx *rx);

#endif
