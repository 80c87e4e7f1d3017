/* SPDX-License-Identifier: Apache-2.0 */
/* The listening socket goes on in another process, and its file with it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/server_internal.h"
#include "base/cleanup.h"

int api_server_keep(struct api_server *server, struct kept *kept, struct error *err)
{
	const char *path = server->path;

	if (server->listen_fd < 0)
		return 0;
	return kept_add(kept, server->listen_fd, path, path ? strlen(path) : 0, err, "@api");
}

struct hold {
	struct api_server *server;
	bool hold;
};

static void own_file(struct api_server *server)
{
	struct stat st;

	if (server->path && !lstat(server->path, &st) && S_ISSOCK(st.st_mode)) {
		server->socket_dev = st.st_dev;
		server->socket_ino = st.st_ino;
	}
}

/* In the loop. */
static void set_hold(void *opaque)
{
	struct hold *h = opaque;
	struct api_server *server = h->server;

	if (server->listen_fd < 0 || server->held == h->hold)
		return;
	server->held = h->hold;
	loop_remove(server->listen_source);
	server->listen_source = NULL;
	if (h->hold)
		return;
	own_file(server);
	server->listen_again = 0;
	server->listen_source = loop_add(server->loop, server->listen_fd, EPOLLIN,
					 api_server_on_listen, server, NULL);
	if (!server->listen_source)
		log_err(server->log, "API: no memory to accept clients");
}

void api_server_hold(struct api_server *server, bool hold)
{
	struct hold h = { .server = server, .hold = hold };

	loop_call(server->loop, set_hold, &h);
}

void api_server_forget(struct api_server *server)
{
	free(take_ptr(server->path));
}

int api_server_take(struct api_server *server, struct kept *kept, struct error *err)
{
	int fd = server->listen_fd < 0 ? kept_take(kept, "@api") : -1;
	const char *path;
	size_t len;

	if (fd < 0)
		return 0;
	server->listen_fd = fd;
	server->held = true;
	path = kept_bytes(kept, &len, "@api");
	if (!path)
		return 0;
	if (memchr(path, 0, len))
		return error_set(err, EBADMSG, "the API socket's path is none");
	/* Until the end of the hold it is no file of ours: its inode is not known. */
	server->path = strndup(path, len);
	return server->path ? 0 : error_set_errno(err, ENOMEM, "take the API socket");
}
