/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a migration goes: unix:PATH or tcp:HOST:PORT (an IPv6 address in brackets), as
 * Cloud Hypervisor writes them. HOST is an address, or "localhost": Ferry resolves no
 * names, its sandbox opens no resolver; who wants names resolves them before.
 *
 * Sockets are made, bound and removed in the thread that starts all others, whose filter
 * alone allows it (thread_run_in_starter); connecting and waiting are the caller's.
 */
#ifndef MIGRATION_URL_H
#define MIGRATION_URL_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/thread.h"

#define URL_MAX 512

struct url {
	bool tcp; /* else unix */
	socklen_t len;
	struct sockaddr_storage address;
	char text[URL_MAX]; /* as it was given */
};

/* -EINVAL, ERROR_BAD_REQUEST: the text says what is wrong with it. */
int url_parse(struct url *url, const char *text, struct error *err);

/* Its host as it was given, an IPv6 address without brackets; "" where it is unix. */
#define URL_HOST_MAX 64
void url_host(const struct url *url, char host[URL_HOST_MAX]);

/*
 * A listening, non-blocking socket, or -errno. A unix socket's file that nobody listens
 * on any more is replaced. -EADDRINUSE where somebody does.
 */
int url_listen(const struct url *url, const struct thread_policy *policy, struct error *err);
/* Removes the file of a unix socket. */
void url_remove(const struct url *url, const struct thread_policy *policy);

/* A connected, non-blocking socket, or -errno: -ETIMEDOUT, -ECANCELED when cancel_fd (or
 * -1) becomes readable, -ECONNREFUSED, ... */
int url_connect(const struct url *url, const struct thread_policy *policy, int timeout_ms,
		int cancel_fd, struct error *err);

#endif
