/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/legacy/output.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

/* What a pipe or terminal that polls as writable takes without blocking. The mode
 * of the fd is not ours to change: a shell shares its terminal with us. */
#define CHUNK 256

ssize_t output_write(int fd, const void *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		size_t chunk = len - done < CHUNK ? len - done : CHUNK;
		ssize_t n;

		if (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLOUT | POLLERR | POLLHUP | POLLNVAL)))
			break;
		n = write(fd, (const char *)data + done, chunk);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return done ? (ssize_t)done : -errno;
		done += (size_t)n;
	}
	return (ssize_t)done;
}
