/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the API server and how they meet. Private to api/ and its tests.
 *
 *   server.c             the listening socket, the bound on connections, deadlines
 *   server_handover.c    the listening socket in another process
 *   server_connection.c  one client: bytes in, one request at a time, bytes out
 *   server_routes.c      what path and method do
 *   server_arguments.c   a body becomes the arguments of a job
 *   server_worker.c      the thread that runs the long jobs, in order
 *   server_metrics.c     /metrics
 *
 * Everything runs in the main loop but the run() of a job, which sees the job's
 * arguments and the VM's operations and nothing else of the server.
 */
#ifndef API_SERVER_INTERNAL_H
#define API_SERVER_INTERNAL_H

#include <pthread.h>
#include <sys/types.h>

#include "api/http.h"
#include "api/server.h"
#include "base/fd.h"
#include "base/strbuf.h"

#define API_CONNECTIONS_MAX 64
#define API_REQUEST_TIMEOUT_NS 10000000000ULL
#define API_LINGER_NS 1000000000ULL

struct api_connection;
struct api_route;
struct request_job;

/* --- worker --- */

struct api_job {
	struct api_job *next;
	int (*run)(struct api_job *job, struct error *err); /* worker thread */
	void (*finish)(struct api_job *job);		    /* main thread; frees the job */
	int result;
	struct error err;
};

struct api_worker {
	pthread_t thread;
	pthread_mutex_t lock; /* guards what follows, down to `done` */
	pthread_cond_t wake;
	bool started, stop;
	struct api_job *queue, **queue_end;
	struct api_job *done, **done_end;
	int done_event;
	struct loop_source *source;
	bool in_place; /* tests: run jobs in the caller, at once */
};

int api_worker_init(struct api_worker *worker, struct loop *loop, struct error *err);
/* Waits for the job that runs; the queued ones finish with -ECANCELED. */
void api_worker_destroy(struct api_worker *worker);
/* The job is the worker's on success. Starts the thread where there is none yet. */
int api_worker_submit(struct api_worker *worker, const struct thread_policy *threads,
		      struct api_job *job, struct error *err);

/* --- requests --- */

struct api_request {
	struct api_server *server;
	struct api_connection *connection;
	unsigned int method;
	const char *path;
	size_t path_len;
	const char *body;
	size_t body_len;
	int *fds; /* the connection's; those taken are set to -1 */
	unsigned int fd_count;
};

struct api_reply {
	int status;
	json_t *json;	    /* owned; NULL: see text */
	struct strbuf text; /* text/plain, where it has data */
	const char *allow;
};

/* Fills *reply and returns true, or has queued a job that will answer. */
bool api_route_request(struct api_request *request, struct api_reply *reply);
void api_reply_error(struct api_reply *reply, const struct error *err);
void api_reply_problem(struct api_reply *reply, int status, const char *problem);
void api_reply_destroy(struct api_reply *reply);
/* Each route there is, for tests: path and method, until NULL. */
const char *api_route_name(unsigned int index, const char **method);

void api_metrics_write(struct api_server *server, struct strbuf *out);

/* --- connections --- */

enum api_connection_state {
	CONNECTION_READING,
	CONNECTION_WORKING,   /* a job runs; nothing is read meanwhile */
	CONNECTION_CLOSING,   /* the last response is on its way */
	CONNECTION_LINGERING, /* sent; what still comes in is dropped */
};

struct api_connection {
	struct api_server *server;
	struct api_connection *next, **link;
	int fd;
	struct loop_source *source;
	uint32_t events;
	enum api_connection_state state;
	bool failed, eof;
	bool advancing; /* api_connection_answer() came from within */
	struct http_reader reader;
	struct strbuf in, out;
	size_t lingered;
	int fds[FD_PASS_MAX];
	unsigned int fd_count;
	struct api_connection **holder; /* the job's pointer to us: NULLed when we go */
	uint64_t deadline, idle_since;
};

/* Takes fd over (closed on failure too). */
int api_connection_new(struct api_server *server, int fd, struct error *err);
void api_connection_close(struct api_connection *c);
/* The answer to what api_route_request() left open. */
void api_connection_answer(struct api_connection *c, struct api_reply *reply);
void api_connection_expire(struct api_connection *c);

struct api_server {
	struct vm_ops ops;
	void *vm;
	struct loop *loop;
	const struct thread_policy *threads;
	struct log *log;
	char *version, *path;
	dev_t socket_dev;
	ino_t socket_ino;
	int listen_fd;
	struct loop_source *listen_source, *timer;
	bool held;	       /* accepts nobody: server_handover.c */
	uint64_t listen_again; /* out of descriptors: accept again then */
	uint64_t request_timeout;
	struct api_connection *connections;
	unsigned int connection_count;
	struct api_worker worker;
	struct request_job *exclusive; /* queued or running: others are refused */
	uint64_t responses[6];	       /* by hundred */
	int64_t start_time;	       /* seconds since the epoch */
};

/* Accepts. */
void api_server_on_listen(void *opaque, int listen_fd, uint32_t events);
/* Sets the timer to the nearest deadline. */
void api_server_schedule(struct api_server *server);
/* Tests. */
void api_server_set_request_timeout(struct api_server *server, uint64_t ns);

#endif
