/* SPDX-License-Identifier: Apache-2.0 */
/* The device's agent, as a DPU's would be: its state over TCP, for the example plugin
 * (tests/plugin-example). One connection at a time; a new one ends the one before. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/vfio.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/plugin-example/agent_protocol.h"
#include "tests/testdev/testdev.h"

/* "127.0.0.1:0" for a port of the system's choice, which is printed. */
int testdev_agent_listen(struct testdev *t)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t len = sizeof(address);
	const char *colon = strrchr(t->o.agent, ':');
	char host[64];
	int one = 1;

	errno = EINVAL;
	if (!colon)
		return -1;
	snprintf(host, sizeof(host), "%.*s", (int)(colon - t->o.agent), t->o.agent);
	address.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
		return -1;
	t->agent_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (t->agent_listener < 0)
		return -1;
	setsockopt(t->agent_listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(t->agent_listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(t->agent_listener, 4) ||
	    getsockname(t->agent_listener, (struct sockaddr *)&address, &len))
		return -1;
	printf("ferry-testdev: agent at %s:%u\n", host, ntohs(address.sin_port));
	fflush(stdout);
	return 0;
}

static void hang_up(struct testdev *t)
{
	if (t->agent >= 0)
		close(t->agent);
	t->agent = -1;
}

void testdev_agent_accept(struct testdev *t)
{
	int one = 1;

	hang_up(t);
	t->agent = accept4(t->agent_listener, NULL, NULL, SOCK_CLOEXEC);
	if (t->agent >= 0)
		setsockopt(t->agent, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static bool receive(struct testdev *t, void *to, size_t len)
{
	return !len || recv(t->agent, to, len, MSG_WAITALL) == (ssize_t)len;
}

static bool transmit(struct testdev *t, const uint8_t *from, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(t->agent, from + done, len - done, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static int save(struct testdev *t, struct agent_message *m, uint8_t *data)
{
	bool saving = t->migration.state == VFIO_DEVICE_STATE_STOP_COPY ||
		      t->migration.state == VFIO_DEVICE_STATE_PRE_COPY;

	if (!saving || m->value > AGENT_DATA_MAX)
		return EINVAL;
	m->len = (uint32_t)testdev_stream_read(t, data, m->value);
	return m->len == m->value ? 0 : ENODATA;
}

static int pending(struct testdev *t, struct agent_message *m)
{
	uint64_t initial = 0, rest = 0;

	testdev_stream_pending(t, &initial, &rest);
	m->value = initial + rest;
	if (testdev_fault(t, FAULT_MIG_ENDLESS))
		m->value = TESTDEV_PAGE;
	return 0;
}

static int answer(struct testdev *t, struct agent_message *m, uint8_t *data)
{
	uint32_t len = m->len;
	int error = testdev_migration_message(t);

	m->len = 0;
	if (error)
		return error;
	switch (m->what) {
	case AGENT_HELLO:
		testdev_log(t, "agent: device %.*s", (int)len, (const char *)data);
		return 0;
	case AGENT_SET_STATE: return testdev_set_v1_state(t, (uint32_t)m->value);
	case AGENT_GET_STATE: m->value = testdev_v1_state(t); return 0;
	case AGENT_PENDING: return pending(t, m);
	case AGENT_SAVE: return save(t, m, data);
	case AGENT_LOAD:
		return t->migration.state == VFIO_DEVICE_STATE_RESUMING
			       ? testdev_stream_write(t, data, len)
			       : EINVAL;
	default: return ENOTSUP;
	}
}

void testdev_agent_serve(struct testdev *t)
{
	static uint8_t data[AGENT_DATA_MAX];
	struct agent_message m;

	if (!receive(t, &m, sizeof(m)) || le32toh(m.magic) != AGENT_MAGIC ||
	    le32toh(m.len) > sizeof(data) || !receive(t, data, le32toh(m.len))) {
		hang_up(t);
		return;
	}
	m.what = le32toh(m.what);
	m.value = le64toh(m.value);
	m.len = le32toh(m.len);
	m.status = (uint32_t)answer(t, &m, data);
	if (m.status)
		m.len = 0;
	testdev_log(t, "agent: request %u, value %llu: error %u, %u bytes", m.what,
		    (unsigned long long)m.value, m.status, m.len);
	m.what = htole32(m.what);
	m.value = htole64(m.value);
	m.status = htole32(m.status);
	if (!transmit(t, (uint8_t *)&m, sizeof(m)) || !transmit(t, data, m.len))
		hang_up(t);
}
