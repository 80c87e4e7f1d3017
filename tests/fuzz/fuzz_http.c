/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes from a client to the API server, over a socketpair, in pieces: all of
 * connection, HTTP, routing, JSON and arguments, with a fake VM behind. The first
 * byte is the size of a piece, the second how many descriptors come with each.
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/server_internal.h"
#include "tests/unit/api/fake_vm.h"

#define ROUNDS_AFTER 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fake_vm vm;
static struct loop *loop;
static struct api_server *server;

static void start(void)
{
	struct api_server_options options = {
		.listen_fd = -1,
		.ops = &fake_vm_ops,
		.vm = &vm,
		.version = "fuzz",
	};

	fake_vm_init(&vm);
	loop = loop_new(NULL);
	options.loop = loop;
	server = api_server_new(&options, NULL);
	server->worker.in_place = true;
}

static void stop(void *opaque)
{
	loop_stop(opaque);
}

/* One batch of events; what the server answers must look like answers. */
static void turn(int peer)
{
	char answer[4096];

	loop_post(loop, stop, loop);
	loop_run(loop);
	while (recv(peer, answer, sizeof(answer), MSG_DONTWAIT) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fds[2], passed[3] = { 0, 1, 2 };
	size_t piece, count;

	if (size < 3)
		return 0;
	if (!server)
		start();
	piece = data[0] ? data[0] : size;
	count = data[1] % 4;
	data += 2;
	size -= 2;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds))
		abort();
	if (api_connection_new(server, fds[0], NULL))
		abort();
	for (size_t at = 0; at < size && server->connections; at += piece) {
		if (fd_send(fds[1], data + at, MIN(piece, size - at), passed, (unsigned int)count))
			break;
		turn(fds[1]);
	}
	shutdown(fds[1], SHUT_WR);
	for (int i = 0; i < ROUNDS_AFTER && server->connections; i++)
		turn(fds[1]);
	close(fds[1]);
	for (int i = 0; i < ROUNDS_AFTER && server->connections; i++)
		turn(-1);
	if (server->connections) /* a client that is gone holds nothing */
		abort();
	return 0;
}
