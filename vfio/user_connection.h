/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's end of a vfio-user socket: calls and their replies, commands of the
 * server, and what happens when the server dies, hangs or breaks the protocol. It knows
 * messages, not what they mean. Private to the vfio-user transport.
 *
 * A server that breaks the protocol once is not asked again: the connection is lost,
 * every call that waits and every later one fails with -ECONNRESET and the reason, and
 * `lost` runs once in the loop.
 */
#ifndef VFIO_USER_CONNECTION_H
#define VFIO_USER_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"
#include "vfio/user_protocol.h"

/* The largest payload taken from a server: 1 MiB of data, and what describes it. */
#define USER_DATA_MAX (1024UL * 1024)
#define USER_PAYLOAD_MAX (USER_DATA_MAX + 4096)

struct user_connection;

struct user_connection_options {
	int fd;		  /* a connected stream socket, taken over on success */
	const char *name; /* for messages; kept by reference */
	unsigned int timeout_ms;
	struct loop *loop;
	/* A command of the server: its payload of len bytes, in a buffer of
	 * USER_PAYLOAD_MAX that takes the reply's. The reply's length, or -errno for an
	 * error reply; -EBADMSG: the command is nonsense and the connection lost. In any
	 * thread that waits for a reply, or the loop; one at a time. */
	ssize_t (*serve)(void *opaque, uint16_t command, void *payload, size_t len);
	/* In the loop, once, after user_connection_watch; may free the connection. */
	void (*lost)(void *opaque, const char *reason);
	void *opaque;
};

/* A command and where its reply goes; on the caller's stack. The buffers of the two are
 * not the same ones: a server that lies may answer before the command is sent. */
struct user_call {
	uint16_t command;
	struct iovec out[2]; /* payload: fixed part, data */
	const int *fds;
	unsigned int fd_count;
	struct iovec in[2]; /* reply: fixed part (all of it has to come), data (up to) */
	size_t received;    /* bytes of the reply's data */
	int *reply_fds;	    /* the caller's from then on */
	unsigned int reply_fds_max, reply_fd_count;
	/* The connection's. */
	uint16_t id;
	bool done;
	int result;
	struct user_call *next;
};

struct user_connection *user_connection_new(const struct user_connection_options *options,
					    struct error *err);
/* No call may be under way. */
void user_connection_free(struct user_connection *connection);

/* Serves the server's commands in the loop from now on, and tells `lost`. */
int user_connection_watch(struct user_connection *connection, struct error *err);
/* Undoes that, and reads what has begun to arrive to the end of its message. Calls are
 * possible meanwhile and after it, and each reads what it wants. -ECONNRESET, -ETIMEDOUT. */
int user_connection_unwatch(struct user_connection *connection, struct error *err);

/* Sends the command and waits for its reply. Any thread, several at once. -ECONNRESET:
 * the connection is lost; else 0 or the errno of the server's error reply. */
int user_connection_call(struct user_connection *connection, struct user_call *call,
			 struct error *err);
/* Sends a command that wants no reply. */
int user_connection_post(struct user_connection *connection, uint16_t command, const void *payload,
			 size_t len, struct error *err);

/* The content of a reply breaks the protocol: the connection is lost. Fills err, returns
 * -ECONNRESET. */
int user_connection_break(struct user_connection *connection, struct error *err, const char *format,
			  ...) __attribute__((format(printf, 3, 4)));

#endif
