/* SPDX-License-Identifier: Apache-2.0 */
#include "base/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct notify {
	int fd;
};

static int connect_to(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = strlen(name);
	int fd;

	/* A path, or, with an @, an abstract name. */
	if ((name[0] != '/' && name[0] != '@') || len >= sizeof(address.sun_path))
		return -1;
	memcpy(address.sun_path, name, len);
	if (name[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	len += offsetof(struct sockaddr_un, sun_path);
	if (!connect(fd, (struct sockaddr *)&address, (socklen_t)len))
		return fd;
	close(fd);
	return -1;
}

struct notify *notify_new(void)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct notify *notify;
	int fd = name ? connect_to(name) : -1;

	if (fd < 0)
		return NULL;
	notify = malloc(sizeof(*notify));
	if (notify)
		notify->fd = fd;
	else
		close(fd);
	return notify;
}

void notify_free(struct notify *notify)
{
	if (!notify)
		return;
	close(notify->fd);
	free(notify);
}

void notify_send(struct notify *notify, const char *text)
{
	if (notify && send(notify->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return; /* it will find out otherwise */
}
