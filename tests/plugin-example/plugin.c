/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The example of an out-of-band migration plugin: it asks an agent over TCP, named by its
 * argument "HOST:PORT". Built with nothing but the public header; docs/plugins.md walks
 * through it.
 */
#include <endian.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/plugin-example/agent_protocol.h"
#include "vfio/plugin/vfio_lm_plugin.h"

struct handle {
	int sock;
};

static int transfer(int sock, void *in, const void *out, uint64_t len)
{
	for (uint64_t done = 0; done < len;) {
		ssize_t n = in ? recv(sock, (char *)in + done, len - done, 0)
			       : send(sock, (const char *)out + done, len - done, MSG_NOSIGNAL);

		if (n <= 0)
			return -1;
		done += (uint64_t)n;
	}
	return 0;
}

/* A request with `len` bytes of data, and its reply, of which data are `room` bytes. */
static int ask(struct handle *h, enum agent_request what, uint64_t value, const void *data,
	       uint64_t len, uint64_t *answer, void *room_for, uint64_t room)
{
	struct agent_message m = {
		.magic = htole32(AGENT_MAGIC),
		.what = htole32(what),
		.value = htole64(value),
		.len = htole32((uint32_t)len),
	};

	if (transfer(h->sock, NULL, &m, sizeof(m)) || transfer(h->sock, NULL, data, len) ||
	    transfer(h->sock, &m, NULL, sizeof(m)))
		return -1;
	if (le32toh(m.magic) != AGENT_MAGIC || le32toh(m.what) != what)
		return -1;
	if (m.status)
		return (int)le32toh(m.status);
	if (le32toh(m.len) != room)
		return -1;
	if (answer)
		*answer = le64toh(m.value);
	return transfer(h->sock, room_for, NULL, room);
}

static int connect_to(const char *name)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	const char *colon = strrchr(name, ':');
	struct addrinfo *list = NULL;
	char host[256];
	int sock = -1;

	if (!colon || (size_t)(colon - name) >= sizeof(host))
		return -1;
	snprintf(host, sizeof(host), "%.*s", (int)(colon - name), name);
	if (getaddrinfo(host, colon + 1, &hints, &list))
		return -1;
	for (const struct addrinfo *a = list; a && sock < 0; a = a->ai_next) {
		sock = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
		if (sock >= 0 && connect(sock, a->ai_addr, a->ai_addrlen)) {
			close(sock);
			sock = -1;
		}
	}
	freeaddrinfo(list);
	return sock;
}

static int plugin_cleanup(void *opaque)
{
	struct handle *h = opaque;

	close(h->sock);
	free(h);
	return 0;
}

static void *plugin_init(char *devid, char *arg)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->sock = arg ? connect_to(arg) : -1;
	if (h->sock < 0) {
		fprintf(stderr, "example plugin: no agent at %s\n", arg ? arg : "(no argument)");
		free(h);
		return NULL;
	}
	if (ask(h, AGENT_HELLO, 0, devid, strlen(devid), NULL, NULL, 0)) {
		fprintf(stderr, "example plugin: the agent at %s has no device %s\n", arg, devid);
		plugin_cleanup(h);
		return NULL;
	}
	return h;
}

static int plugin_save(void *opaque, uint8_t *state, uint64_t len)
{
	return ask(opaque, AGENT_SAVE, len, NULL, 0, NULL, state, len);
}

static int plugin_load(void *opaque, uint8_t *state, uint64_t len)
{
	return ask(opaque, AGENT_LOAD, 0, state, len, NULL, NULL, 0);
}

static int plugin_update_pending(void *opaque, uint64_t *pending_bytes)
{
	return ask(opaque, AGENT_PENDING, 0, NULL, 0, pending_bytes, NULL, 0);
}

static int plugin_set_state(void *opaque, uint32_t value)
{
	return ask(opaque, AGENT_SET_STATE, value, NULL, 0, NULL, NULL, 0);
}

static int plugin_get_state(void *opaque, uint32_t *value)
{
	uint64_t answer = 0;
	int r = ask(opaque, AGENT_GET_STATE, 0, NULL, 0, &answer, NULL, 0);

	*value = (uint32_t)answer;
	return r;
}

int vfio_lm_get_plugin_version(void);
int vfio_lm_get_plugin_version(void)
{
	return VFIO_LM_PLUGIN_API_VERSION;
}

VFIOMigrationPluginOps *vfio_lm_get_plugin_ops(void);
VFIOMigrationPluginOps *vfio_lm_get_plugin_ops(void)
{
	static VFIOMigrationPluginOps ops = {
		.init = plugin_init,
		.save = plugin_save,
		.load = plugin_load,
		.update_pending = plugin_update_pending,
		.set_state = plugin_set_state,
		.get_state = plugin_get_state,
		.cleanup = plugin_cleanup,
	};

	return &ops;
}
