/* SPDX-License-Identifier: Apache-2.0 */
#include "api/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api/server_internal.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define ACCEPT_PAUSE_NS 100000000ULL
#define ACCEPTS_AT_ONCE 16

/* --- deadlines ------------------------------------------------------------------ */

void api_server_schedule(struct api_server *server)
{
	uint64_t next = server->listen_again, now;

	for (struct api_connection *c = server->connections; c; c = c->next)
		if (c->deadline && (!next || c->deadline < next))
			next = c->deadline;
	now = clock_ns();
	loop_timer_set(server->timer, !next ? 0 : next > now ? next - now : 1);
}

static void on_timer(void *opaque)
{
	struct api_server *server = opaque;
	struct api_connection *c, *next;
	uint64_t now = clock_ns();

	if (server->listen_again && server->listen_again <= now && !server->held) {
		server->listen_again = 0;
		loop_modify(server->listen_source, EPOLLIN);
	}
	/* Expiring one connection frees no other. */
	for (c = server->connections; c; c = next) {
		next = c->next;
		if (c->deadline && c->deadline <= now)
			api_connection_expire(c);
	}
	api_server_schedule(server);
}

void api_server_set_request_timeout(struct api_server *server, uint64_t ns)
{
	server->request_timeout = ns;
}

/* --- accepting ------------------------------------------------------------------- */

/* Makes room by dropping the connection that has been idle longest: HTTP lets a
 * server close an idle connection at any time. */
static bool drop_idle(struct api_server *server)
{
	struct api_connection *idle = NULL;

	for (struct api_connection *c = server->connections; c; c = c->next)
		if (c->state == CONNECTION_LINGERING ||
		    (c->state == CONNECTION_READING && !c->reader.begun && !c->out.len &&
		     !c->in.len))
			if (!idle || c->idle_since < idle->idle_since)
				idle = c;
	if (idle)
		api_connection_close(idle);
	return idle != NULL;
}

static void turn_away(struct api_server *server, int fd)
{
	_cleanup_strbuf_ struct strbuf out = STRBUF_INIT;
	static const char body[] = "[\"the API serves 64 connections at a time\"]";
	struct http_response response = {
		.status = 503,
		.type = "application/json",
		.body = body,
		.len = sizeof(body) - 1,
	};
	ssize_t n;

	http_response_write(&out, &response);
	n = send(fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)n; /* it is turned away either way */
	close(fd);
	server->responses[5]++;
	log_warn(server->log, "API: turned a client away: %d connections are busy",
		 API_CONNECTIONS_MAX);
}

void api_server_on_listen(void *opaque, int listen_fd, uint32_t events)
{
	struct api_server *server = opaque;
	struct error err = ERROR_INIT;

	for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
		int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 &&
		    (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
			/* It stays pending: without a pause the loop would spin. */
			loop_modify(server->listen_source, 0);
			server->listen_again = clock_ns() + ACCEPT_PAUSE_NS;
			break;
		}
		if (fd < 0)
			break;
		if (server->connection_count >= API_CONNECTIONS_MAX && !drop_idle(server))
			turn_away(server, fd);
		else if (api_connection_new(server, fd, &err))
			log_error(server->log, "API", &err);
	}
	api_server_schedule(server);
}

/* --- the socket ------------------------------------------------------------------- */

static bool somebody_listens(const struct sockaddr_un *addr)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return false;
	return !connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) || errno == EAGAIN;
}

/* Makes way where the path is the socket of a server that is gone. */
static int remove_dead_socket(const struct sockaddr_un *addr, struct error *err)
{
	struct stat st;

	if (lstat(addr->sun_path, &st))
		return errno == ENOENT
			       ? 0
			       : error_set_errno(err, errno, "bind API socket %s", addr->sun_path);
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, EADDRINUSE,
				 "bind API socket %s: the file exists and is no socket; remove it "
				 "or choose another path",
				 addr->sun_path);
	if (somebody_listens(addr))
		return error_set(err, EADDRINUSE,
				 "bind API socket %s: a live server has it; choose another path",
				 addr->sun_path);
	if (unlink(addr->sun_path) && errno != ENOENT)
		return error_set_errno(err, errno, "remove dead API socket %s", addr->sun_path);
	return 0;
}

static int bind_socket(int fd, const char *path, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int r;

	if (!*path || strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, EINVAL,
				 "bind API socket \"%s\": the path must have 1 to %zu bytes", path,
				 sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path));
	/* bind() gives the file the mode of the socket's own inode, less the umask: it
	 * is never open to others, not even for a moment. */
	if (fchmod(fd, 0600))
		return error_set_errno(err, errno, "set mode of API socket %s", path);
	if (!bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return 0;
	if (errno != EADDRINUSE)
		return error_set_errno(err, errno, "bind API socket %s", path);
	r = remove_dead_socket(&addr, err);
	if (r)
		return r;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return error_set_errno(err, errno, "bind API socket %s", path);
	return 0;
}

static int open_socket(struct api_server *server, const char *path, struct error *err)
{
	struct stat st;
	int r;

	server->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (server->listen_fd < 0)
		return error_set_errno(err, errno, "create API socket %s", path);
	r = bind_socket(server->listen_fd, path, err);
	if (r)
		return r;
	server->path = strdup(path);
	if (!server->path) {
		unlink(path);
		return error_set_errno(err, ENOMEM, "create API socket %s", path);
	}
	if (!lstat(path, &st)) {
		server->socket_dev = st.st_dev;
		server->socket_ino = st.st_ino;
	}
	if (listen(server->listen_fd, API_CONNECTIONS_MAX))
		return error_set_errno(err, errno, "listen on API socket %s", path);
	return 0;
}

static int take_socket(struct api_server *server, int fd, struct error *err)
{
	int listening = 0, r;
	socklen_t len = sizeof(listening);

	server->listen_fd = fd;
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len))
		return error_set_errno(err, errno, "use fd %d as API socket", fd);
	if (!listening)
		return error_set(err, EINVAL, "use fd %d as API socket: it is not listening", fd);
	r = fd_set_nonblocking(fd, true);
	return r ? error_set_errno(err, r, "use fd %d as API socket", fd) : 0;
}

/* Only our own: another ferry may have taken the path meanwhile. */
static void remove_socket(struct api_server *server)
{
	struct stat st;

	if (server->path && !lstat(server->path, &st) && st.st_dev == server->socket_dev &&
	    st.st_ino == server->socket_ino)
		unlink(server->path);
}

/* --- life ---------------------------------------------------------------------------- */

/* Jansson would open /dev/urandom for it, which a jail need not have. */
static void seed_json(void)
{
	size_t seed = 0;

	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) == (ssize_t)sizeof(seed) && seed)
		json_object_seed(seed);
}

static int start(struct api_server *server, const struct api_server_options *options,
		 struct error *err)
{
	int r;

	r = options->path	      ? open_socket(server, options->path, err)
	    : options->listen_fd >= 0 ? take_socket(server, options->listen_fd, err)
				      : 0;
	if (r)
		return r;
	server->timer = loop_timer_new(server->loop, on_timer, server, err);
	if (!server->timer)
		return -ENOMEM;
	if (server->listen_fd < 0)
		return 0;
	server->listen_source = loop_add(server->loop, server->listen_fd, EPOLLIN,
					 api_server_on_listen, server, err);
	return server->listen_source ? 0 : -ENOMEM;
}

struct api_server *api_server_new(const struct api_server_options *options, struct error *err)
{
	struct api_server *server = calloc(1, sizeof(*server));

	if (!server) {
		error_set_errno(err, ENOMEM, "create API server");
		return NULL;
	}
	server->ops = *options->ops;
	server->vm = options->vm;
	server->loop = options->loop;
	server->threads = options->threads;
	server->log = options->log;
	server->listen_fd = -1;
	server->request_timeout = API_REQUEST_TIMEOUT_NS;
	server->start_time = time(NULL);
	server->version = strdup(options->version ? options->version : "");
	seed_json();
	if (api_worker_init(&server->worker, server->loop, err) || start(server, options, err)) {
		api_server_free(server);
		return NULL;
	}
	if (!server->version) {
		error_set_errno(err, ENOMEM, "create API server");
		api_server_free(server);
		return NULL;
	}
	return server;
}

void api_server_free(struct api_server *server)
{
	if (!server)
		return;
	loop_remove(server->listen_source);
	server->listen_source = NULL;
	/* Answers what is done: the client of vmm.shutdown still gets its 204. */
	api_worker_destroy(&server->worker);
	while (server->connections)
		api_connection_close(server->connections);
	loop_remove(server->timer);
	if (server->listen_fd >= 0)
		close(server->listen_fd);
	remove_socket(server);
	free(server->path);
	free(server->version);
	free(server);
}

struct outside_job {
	struct api_job job;
	api_work_fn fn;
	void (*done)(void *opaque, int result, const struct error *err);
	void *opaque;
};

static int run_outside(struct api_job *job, struct error *err)
{
	struct outside_job *o = container_of(job, struct outside_job, job);

	return o->fn(o->opaque, err);
}

static void finish_outside(struct api_job *job)
{
	struct outside_job *o = container_of(job, struct outside_job, job);

	if (o->done)
		o->done(o->opaque, job->result, &job->err);
	free(o);
}

int api_server_work(struct api_server *server, api_work_fn fn,
		    void (*done)(void *opaque, int result, const struct error *err), void *opaque)
{
	struct outside_job *o = calloc(1, sizeof(*o));
	struct error err = ERROR_INIT;
	int r;

	if (!o)
		return -ENOMEM;
	o->job.run = run_outside;
	o->job.finish = finish_outside;
	o->fn = fn;
	o->done = done;
	o->opaque = opaque;
	r = api_worker_submit(&server->worker, server->threads, &o->job, &err);
	if (r) {
		log_error(server->log, "API", &err);
		free(o);
	}
	return r;
}
