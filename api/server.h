/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API server: HTTP/1.1 over a unix socket, under /api/v1, described by
 * openapi.yaml; /metrics in Prometheus text.
 *
 * Connections are served in the main loop; [long] operations run one at a time in a
 * worker thread, in order of arrival, and their connection is answered when they
 * are done; every other connection goes on meanwhile. File descriptors that come
 * with a request (SCM_RIGHTS) belong to that request and are closed when it ends
 * unless the operation took them.
 *
 * Bounds: 64 connections, 8 KiB of request line and headers, 512 KiB of body,
 * FD_PASS_MAX descriptors, 10 s for a request to arrive once begun.
 */
#ifndef API_SERVER_H
#define API_SERVER_H

#include "api/vm_ops.h"
#include "base/kept.h"
#include "base/log.h"
#include "base/loop.h"

struct api_server;

struct api_server_options {
	const char *path; /* of the socket, mode 0600; NULL: listen_fd */
	int listen_fd;	  /* a listening socket, taken over; -1: none */
	const struct vm_ops *ops;
	void *vm;
	struct loop *loop;
	const struct thread_policy *threads;
	struct log *log;
	const char *version; /* of ferry */
};

/* -EADDRINUSE names the socket and says whether a live server has it; a dead
 * socket's file is replaced. Main thread. */
struct api_server *api_server_new(const struct api_server_options *options, struct error *err);
/* Waits for the worker. Removes the socket's file. */
void api_server_free(struct api_server *server);

/*
 * The listener goes on in another process (live update). keep: a copy, with the socket's
 * path. hold: clients wait in its queue, for the other process or for the end of the hold.
 * forget: it is the other's, file and all. take: what was kept, into a server that has no
 * listener; held. Worker, but forget: main thread.
 */
int api_server_keep(struct api_server *server, struct kept *kept, struct error *err);
void api_server_hold(struct api_server *server, bool hold);
void api_server_forget(struct api_server *server);
int api_server_take(struct api_server *server, struct kept *kept, struct error *err);

/* Queues a long operation from outside of HTTP (command line boot, signals), in the
 * same order as the others; done(opaque, result, err) runs in the main loop. */
typedef int (*api_work_fn)(void *opaque, struct error *err);
int api_server_work(struct api_server *server, api_work_fn fn,
		    void (*done)(void *opaque, int result, const struct error *err), void *opaque);

#endif
