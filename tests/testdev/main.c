/* SPDX-License-Identifier: Apache-2.0 */
/* ferry-testdev: the socket, the poll loop. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/testdev/testdev.h"

void testdev_log(const struct testdev *t, const char *format, ...)
{
	va_list args;

	if (!t->o.verbose)
		return;
	va_start(args, format);
	fputs("ferry-testdev: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1)) {
		fprintf(stderr, "ferry-testdev: cannot listen at %s: %s\n", path, strerror(errno));
		exit(1);
	}
	return fd;
}

/* Whatever there is to do until `fd`, the client's or a listener's, has something. */
static bool wait_for(struct testdev *t, int fd)
{
	/* What the command before began: it goes on without another. */
	int wait_ms = testdev_run_dma(t);

	testdev_run_queue(t);
	while (!t->ended) {
		struct pollfd p[4] = {
			{ .fd = fd, .events = POLLIN },
			/* Rung while it is stopped, the doorbell waits. */
			{ .fd = testdev_writes_allowed(t) ? t->doorbell_fd : -1, .events = POLLIN },
			{ .fd = t->agent_listener, .events = POLLIN },
			{ .fd = t->agent, .events = POLLIN },
		};

		if (poll(p, 4, wait_ms) < 0)
			continue;
		if (p[1].revents & POLLIN && eventfd_drain(t->doorbell_fd))
			testdev_doorbell(t);
		if (p[2].revents)
			testdev_agent_accept(t);
		else if (p[3].revents)
			testdev_agent_serve(t);
		if (p[0].revents)
			return true;
		wait_ms = testdev_run_dma(t);
		/* By messages, commands may come in between. */
		testdev_run_queue(t);
	}
	return false;
}

/* Until the client leaves. */
static void serve(struct testdev *t)
{
	t->ended = false;
	while (wait_for(t, t->sock) && testdev_receive(t))
		;
	testdev_log(t, "the client is gone after %llu commands", (unsigned long long)t->commands);
	testdev_disconnect(t);
}

static int accept_client(struct testdev *t, int listener)
{
	t->ended = false;
	wait_for(t, listener);
	return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

int main(int argc, char **argv)
{
	static struct testdev t = {
		.o = { .fd = -1,
		       .vectors = 8,
		       .max_fds = 8,
		       .max_data = TESTDEV_DATA_MAX,
		       .region_data = 65536 },
		.sock = -1,
		.agent_listener = -1,
		.agent = -1,
		.client_max_data = VFIO_USER_DEFAULT_XFER_SIZE, /* until it says */
	};
	int listener = -1;

	signal(SIGPIPE, SIG_IGN);
	testdev_parse_options(argc, argv, &t.o);
	t.queue_end = &t.queue;
	t.reply = calloc(1, TESTDEV_PAYLOAD_MAX + 65536);
	if (!t.reply || testdev_init(&t)) {
		fprintf(stderr, "ferry-testdev: out of memory\n");
		return 1;
	}
	if (t.o.agent && testdev_agent_listen(&t)) {
		fprintf(stderr, "ferry-testdev: cannot listen at %s: %s\n", t.o.agent,
			strerror(errno));
		return 1;
	}
	if (t.o.socket) {
		listener = listen_at(t.o.socket);
		printf("ferry-testdev: listening at %s\n", t.o.socket);
		fflush(stdout);
	}
	do {
		t.sock = t.o.socket ? accept_client(&t, listener) : t.o.fd;
		if (t.sock >= 0)
			serve(&t);
	} while (!t.o.once && t.o.socket);
	if (t.o.socket)
		unlink(t.o.socket);
	free(t.reply);
	return 0;
}
