/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/parse.h"

#define BACKLOG 256 /* all connections of a migration, and then some */

static int bad(const char *text, const char *why, struct error *err)
{
	return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "migration URL \"%.200s\": %s", text,
			      why);
}

static int parse_unix(struct url *url, const char *path, struct error *err)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&url->address;
	size_t len = strlen(path);

	if (!len)
		return bad(url->text, "a path is missing", err);
	if (len >= sizeof(un->sun_path))
		return bad(url->text, "the path is longer than a unix socket's 107 bytes", err);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len + 1);
	url->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return 0;
}

static bool parse_address(struct url *url, const char *host, uint16_t port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&url->address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&url->address;
	char plain[INET6_ADDRSTRLEN];
	size_t len = strlen(host);

	if (!strcmp(host, "localhost"))
		host = "127.0.0.1";
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		url->len = sizeof(*v4);
		return true;
	}
	if (len < 2 || host[0] != '[' || host[len - 1] != ']' || len - 2 >= sizeof(plain))
		return false;
	memcpy(plain, host + 1, len - 2);
	plain[len - 2] = '\0';
	if (inet_pton(AF_INET6, plain, &v6->sin6_addr) != 1)
		return false;
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	url->len = sizeof(*v6);
	return true;
}

static int parse_tcp(struct url *url, const char *rest, struct error *err)
{
	const char *colon = strrchr(rest, ':');
	char host[URL_HOST_MAX];
	uint64_t port;

	if (!colon || strchr(colon, ']'))
		return bad(url->text, "a port is missing: tcp:HOST:PORT", err);
	if (parse_u64(colon + 1, &port) || !port || port > UINT16_MAX)
		return bad(url->text, "the port is no number from 1 to 65535", err);
	if ((size_t)(colon - rest) >= sizeof(host) || colon == rest)
		return bad(url->text, "the host is no address", err);
	memcpy(host, rest, (size_t)(colon - rest));
	host[colon - rest] = '\0';
	if (host[0] != '[' && strchr(host, ':'))
		return bad(url->text, "an IPv6 address stands in brackets: tcp:[ADDRESS]:PORT",
			   err);
	if (!parse_address(url, host, (uint16_t)port))
		return bad(
			url->text,
			"the host is no IPv4 address, IPv6 address in brackets or \"localhost\"; "
			"names are not resolved",
			err);
	url->tcp = true;
	return 0;
}

int url_parse(struct url *url, const char *text, struct error *err)
{
	*url = (struct url){ .tcp = false };
	if (strlen(text) >= sizeof(url->text))
		return bad(text, "it is too long", err);
	memcpy(url->text, text, strlen(text) + 1);
	if (!strncmp(text, "unix:", 5))
		return parse_unix(url, text + 5, err);
	if (!strncmp(text, "tcp:", 4))
		return parse_tcp(url, text + 4, err);
	return bad(text, "it begins neither with \"unix:\" nor with \"tcp:\"", err);
}

void url_host(const struct url *url, char host[URL_HOST_MAX])
{
	const char *begin = url->text + strlen("tcp:"), *end = strrchr(url->text, ':');

	host[0] = '\0';
	if (!url->tcp)
		return;
	if (*begin == '[') {
		begin++;
		end--;
	}
	/* url_parse saw that it fits. */
	memcpy(host, begin, (size_t)(end - begin));
	host[end - begin] = '\0';
}

/* What the starter does for us. */
struct errand {
	const struct url *url;
	int fd;
	int result;
};

static void make_socket(void *opaque)
{
	struct errand *errand = opaque;

	errand->fd = socket(errand->url->address.ss_family,
			    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	errand->result = errand->fd < 0 ? -errno : 0;
}

static const char *unix_path(const struct url *url)
{
	return ((const struct sockaddr_un *)&url->address)->sun_path;
}

static void remove_file(void *opaque)
{
	const struct url *url = opaque;
	struct stat st;

	if (!lstat(unix_path(url), &st) && S_ISSOCK(st.st_mode))
		unlink(unix_path(url));
}

/* A socket's file that its listener left behind. */
static bool is_stale(const struct url *url)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool stale;

	if (fd < 0)
		return false;
	stale = connect(fd, (const struct sockaddr *)&url->address, url->len) &&
		errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static void bind_and_listen(void *opaque)
{
	struct errand *errand = opaque;
	const struct url *url = errand->url;
	const struct sockaddr *address = (const struct sockaddr *)&url->address;
	int one = 1, r;

	make_socket(errand);
	if (errand->result)
		return;
	if (url->tcp)
		setsockopt(errand->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	r = bind(errand->fd, address, url->len);
	if (r && errno == EADDRINUSE && !url->tcp && is_stale(url)) {
		remove_file((void *)url);
		r = bind(errand->fd, address, url->len);
	}
	if (!r)
		r = listen(errand->fd, BACKLOG);
	if (r) {
		errand->result = -errno;
		close(errand->fd);
	}
}

int url_listen(const struct url *url, const struct thread_policy *policy, struct error *err)
{
	struct errand errand = { .url = url };

	thread_run_in_starter(policy, bind_and_listen, &errand);
	if (errand.result)
		return error_set_errno(err, errand.result, "listen on %s", url->text);
	return errand.fd;
}

void url_remove(const struct url *url, const struct thread_policy *policy)
{
	if (!url->tcp)
		thread_run_in_starter(policy, remove_file, (void *)url);
}

/* The connection is on its way: waits for what becomes of it. */
static int wait_connected(int fd, int timeout_ms, int cancel_fd)
{
	struct pollfd p[2] = { { .fd = fd, .events = POLLOUT },
			       { .fd = cancel_fd, .events = POLLIN } };
	int result = 0, n;
	socklen_t len = sizeof(result);

	do
		n = poll(p, 2, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (!n)
		return -ETIMEDOUT;
	if (p[1].revents)
		return -ECANCELED;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &len))
		return -errno;
	return -result;
}

/* A unix socket whose backlog is full says EAGAIN, and cannot be polled for room. */
static int start_connecting(int fd, const struct url *url, int timeout_ms, int cancel_fd)
{
	struct pollfd p = { .fd = cancel_fd, .events = POLLIN };

	for (int waited = 0;; waited += 10) {
		if (!connect(fd, (const struct sockaddr *)&url->address, url->len))
			return 0;
		if (errno != EAGAIN || (timeout_ms >= 0 && waited >= timeout_ms))
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (poll(&p, 1, 10) > 0)
			return -ECANCELED;
	}
}

int url_connect(const struct url *url, const struct thread_policy *policy, int timeout_ms,
		int cancel_fd, struct error *err)
{
	struct errand errand = { .url = url };
	int r;

	thread_run_in_starter(policy, make_socket, &errand);
	r = errand.result;
	if (r)
		return error_set_errno(err, r, "make a socket for %s", url->text);
	r = start_connecting(errand.fd, url, timeout_ms, cancel_fd);
	if (r == -EINPROGRESS)
		r = wait_connected(errand.fd, timeout_ms, cancel_fd);
	if (r) {
		close(errand.fd);
		return error_set_errno(err, r, "connect to %s", url->text);
	}
	return errand.fd;
}
