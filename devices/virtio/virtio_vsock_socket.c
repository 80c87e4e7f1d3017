/* SPDX-License-Identifier: Apache-2.0 */
/* The unix sockets: the one clients connect to, and those of the host's listeners. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "devices/virtio/virtio_vsock_priv.h"

#define BACKLOG 128
#define ACCEPT_TURN 32
#define PORT_SUFFIX_MAX 11 /* _4294967295 */

static int try_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return -errno;
	return take_fd(&fd);
}

int vsock_connect(const struct vsock *vsock, uint32_t port)
{
	char path[sizeof(vsock->path) + PORT_SUFFIX_MAX + 1];

	snprintf(path, sizeof(path), "%s_%u", vsock->path, port);
	return try_connect(path);
}

/* A socket file that nobody listens on is what a killed VMM leaves behind. */
static int remove_stale(const char *path, struct error *err)
{
	struct stat st;
	int fd;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : error_set_errno(err, errno, "vsock socket %s", path);
	if (!S_ISSOCK(st.st_mode))
		return error_set_kind(err, ERROR_BAD_REQUEST, EEXIST,
				      "vsock socket %s: a file that is no socket is there", path);
	fd = try_connect(path);
	if (fd >= 0)
		close(fd);
	if (fd != -ECONNREFUSED)
		return error_set_kind(err, ERROR_CONFLICT, EADDRINUSE,
				      "vsock socket %s: in use by another program", path);
	if (unlink(path) && errno != ENOENT)
		return error_set_errno(err, errno, "vsock socket %s: remove the stale one", path);
	return 0;
}

int vsock_listen(struct vsock *vsock, const char *path, struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;
	struct stat st;
	int r;

	if (!*path || strlen(path) + PORT_SUFFIX_MAX >= sizeof(address.sun_path))
		return error_set_kind(err, ERROR_BAD_REQUEST, ENAMETOOLONG,
				      "vsock socket %s: 1 to %zu characters", path,
				      sizeof(address.sun_path) - PORT_SUFFIX_MAX - 1);
	r = remove_stale(path, err);
	if (r)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set_errno(err, errno, "vsock socket %s", path);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	/* The file gets the socket's mode: there is no moment when others may
	 * connect, whatever the umask. */
	if (fchmod(fd, 0660) || bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(fd, BACKLOG) || lstat(path, &st))
		return error_set_errno(err, errno, "vsock socket %s: listen", path);
	vsock->path_dev = st.st_dev;
	vsock->path_ino = st.st_ino;
	memcpy(vsock->path, address.sun_path, sizeof(vsock->path));
	vsock->listener = take_fd(&fd);
	return 0;
}

void vsock_unlisten(struct vsock *vsock)
{
	struct stat st;

	if (vsock->listener < 0)
		return;
	close(vsock->listener);
	vsock->listener = -1;
	if (vsock->dev.host->kept)
		return; /* another process listens there */
	/* Somebody may have put another one there. */
	if (!lstat(vsock->path, &st) && st.st_dev == vsock->path_dev &&
	    st.st_ino == vsock->path_ino)
		unlink(vsock->path);
}

/* Without descriptors or memory the clients wait, and epoll must not remind us. */
static void pause_accept(struct vsock *vsock)
{
	loop_remove(vsock->accept);
	vsock->accept = NULL;
	vsock->accept_paused = true;
	if (!vsock->timer_set)
		loop_timer_set(vsock->timer, VSOCK_TICK_NS);
	vsock->timer_set = true;
}

void vsock_accept(void *opaque, int listener, uint32_t events)
{
	struct vsock *vsock = opaque;

	for (unsigned int i = 0; i < ACCEPT_TURN; i++) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct vsock_conn *conn;

		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			    errno == ENOBUFS)
				pause_accept(vsock);
			return;
		}
		conn = vsock_conn_new(vsock, fd);
		if (!conn) {
			close(fd); /* the table is full: the client is told at once */
			continue;
		}
		vsock_conn_patience(conn);
		vsock_conn_update(conn);
	}
}

/* "CONNECT <port>" without the newline. */
static int parse_line(const char *line, uint32_t *port)
{
	static const char word[] = "CONNECT ";
	uint64_t v;

	if (strncasecmp(line, word, sizeof(word) - 1) != 0)
		return -EINVAL;
	line += sizeof(word) - 1;
	if (strspn(line, "0123456789") != strlen(line) || parse_u64(line, &v) || v > UINT32_MAX)
		return -EINVAL;
	*port = (uint32_t)v;
	return 1;
}

int vsock_read_line(struct vsock_conn *conn, uint32_t *port)
{
	char *at = conn->line + conn->line_len, *end;
	ssize_t n = recv(conn->fd, at, VSOCK_LINE_MAX - conn->line_len, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return n ? -errno : -ENODATA;
	/* What follows the line is for the guest: it stays in the socket. */
	end = memchr(at, '\n', (size_t)n);
	if (end)
		n = end + 1 - at;
	n = recv(conn->fd, at, (size_t)n, MSG_DONTWAIT);
	if (n <= 0)
		return -EIO;
	conn->line_len += (unsigned int)n;
	if (!end)
		return conn->line_len < VSOCK_LINE_MAX ? 0 : -E2BIG;
	*end = '\0';
	return parse_line(conn->line, port);
}
