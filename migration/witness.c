/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/witness.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BACKLOG 8

struct errand {
	const uint8_t *name;
	bool listen;
	int fd; /* or -errno */
};

static socklen_t address_of(struct sockaddr_un *un, const uint8_t name[SESSION_SIZE])
{
	char *at = un->sun_path + 1; /* a leading 0: abstract */
	int n;

	*un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(at, sizeof(un->sun_path) - 1, "ferry-migration-");
	for (unsigned int i = 0; i < SESSION_SIZE; i++)
		n += snprintf(at + n, sizeof(un->sun_path) - 1 - (size_t)n, "%02x", name[i]);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static void make_socket(void *opaque)
{
	struct errand *errand = opaque;
	struct sockaddr_un un = { 0 };
	socklen_t len = address_of(&un, errand->name);
	int r = 0;

	errand->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (errand->fd < 0) {
		errand->fd = -errno;
		return;
	}
	if (errand->listen)
		r = bind(errand->fd, (struct sockaddr *)&un, len) || listen(errand->fd, BACKLOG);
	else
		r = connect(errand->fd, (struct sockaddr *)&un, len);
	if (r) {
		r = -errno;
		close(errand->fd);
		errand->fd = r;
	}
}

int witness_listen(struct witness *witness, const uint8_t name[SESSION_SIZE],
		   const struct thread_policy *policy)
{
	struct errand errand = { .name = name, .listen = true };

	thread_run_in_starter(policy, make_socket, &errand);
	if (errand.fd < 0)
		return errand.fd;
	witness->listener = errand.fd;
	return 0;
}

int witness_connect(struct witness *witness, const uint8_t name[SESSION_SIZE],
		    const uint8_t session[SESSION_SIZE], const struct thread_policy *policy)
{
	struct errand errand = { .name = name };

	thread_run_in_starter(policy, make_socket, &errand);
	if (errand.fd < 0)
		return errand.fd;
	if (send(errand.fd, session, SESSION_SIZE, MSG_NOSIGNAL) != SESSION_SIZE) {
		close(errand.fd);
		return -EIO;
	}
	witness->fd = errand.fd;
	return 0;
}

void witness_accept(struct witness *witness, const uint8_t session[SESSION_SIZE])
{
	/* The name can be seen by others of this host (/proc/net/unix), the session not. */
	for (int i = 0; i < 2 * BACKLOG && witness->listener >= 0 && witness->fd < 0; i++) {
		uint8_t said[SESSION_SIZE];
		int fd = accept4(witness->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		/* It was written before the connection was mentioned to us. */
		if (recv(fd, said, sizeof(said), 0) == (ssize_t)sizeof(said) &&
		    !memcmp(said, session, sizeof(said)))
			witness->fd = fd;
		else
			close(fd);
	}
}

void witness_say(struct witness *witness, enum witness_word word)
{
	/* A few bytes always fit. */
	if (witness->fd >= 0)
		send(witness->fd, &(char){ (char)word }, 1, MSG_NOSIGNAL);
}

enum witness_state witness_look(struct witness *witness)
{
	char said[16];
	ssize_t n;

	if (witness->fd < 0)
		return WITNESS_NONE;
	do {
		n = recv(witness->fd, said, sizeof(said), MSG_DONTWAIT);
		if (n > 0)
			witness->heard = (enum witness_word)said[n - 1];
	} while (n > 0 || (n < 0 && errno == EINTR));
	return n < 0 && errno == EAGAIN ? WITNESS_THERE : WITNESS_GONE;
}

void witness_close(struct witness *witness)
{
	cleanup_close(&witness->fd);
	cleanup_close(&witness->listener);
	witness_keep(witness);
}

void witness_keep(struct witness *witness)
{
	witness->fd = witness->listener = -1;
}
