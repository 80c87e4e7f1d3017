/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: in, out, and commands to the client whose replies are waited for. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/testdev/testdev.h"

static void free_message(struct testdev_message *m)
{
	if (!m)
		return;
	while (m->fd_count)
		close(m->fds[--m->fd_count]);
	free(m->payload);
	free(m);
}

static bool receive_part(struct testdev *t, struct testdev_message *m, uint8_t *to, size_t len)
{
	while (len) {
		unsigned int fds = TESTDEV_FDS_MAX - m->fd_count;
		ssize_t n = fd_recv(t->sock, to, len, m->fds + m->fd_count, &fds);

		if (n <= 0)
			return false;
		m->fd_count += fds;
		to += n;
		len -= (size_t)n;
	}
	return true;
}

/* NULL: the client is gone, or speaks nonsense. */
static struct testdev_message *receive_message(struct testdev *t)
{
	struct testdev_message *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	if (!receive_part(t, m, (uint8_t *)&m->header, sizeof(m->header)) ||
	    m->header.size < sizeof(m->header) ||
	    m->header.size - sizeof(m->header) > TESTDEV_PAYLOAD_MAX)
		goto fail;
	m->len = m->header.size - sizeof(m->header);
	m->payload = calloc(1, m->len + 1);
	if (!m->payload || !receive_part(t, m, m->payload, m->len))
		goto fail;
	return m;
fail:
	free_message(m);
	t->ended = true;
	return NULL;
}

void testdev_send_raw(struct testdev *t, const void *data, size_t len, const int *fds,
		      unsigned int fd_count)
{
	if (!t->ended && fd_send(t->sock, data, len, fds, fd_count))
		t->ended = true;
}

void testdev_send(struct testdev *t, struct vfio_user_header *header, const void *payload,
		  size_t len, const int *fds, unsigned int fd_count)
{
	header->size = (uint32_t)(sizeof(*header) + len);
	testdev_send_raw(t, header, sizeof(*header), fds, fd_count);
	if (len)
		testdev_send_raw(t, payload, len, NULL, 0);
}

static void answer(struct testdev *t, struct testdev_message *m)
{
	struct vfio_user_header reply = {
		.id = m->header.id,
		.command = m->header.command,
		.flags = VFIO_USER_TYPE_REPLY,
	};
	struct testdev_result result = { 0 };

	t->commands++;
	testdev_misbehave_before(t);
	testdev_command(t, m, &result);
	testdev_log(t, "command %u, %zu bytes, %u fds: error %d, %zu bytes", m->header.command,
		    m->len, m->fd_count, result.error, result.len);
	if (m->header.flags & VFIO_USER_NO_REPLY || t->ended)
		return;
	if (!result.error)
		testdev_misbehave_payload(t, m->header.command, &result);
	if (testdev_misbehave_reply(t, &reply, &result))
		return;
	if (result.error) {
		reply.flags |= VFIO_USER_ERROR;
		reply.error = (uint32_t)result.error;
		testdev_send(t, &reply, NULL, 0, NULL, 0);
	} else {
		testdev_send(t, &reply, t->reply, result.len, result.fds, result.fd_count);
	}
}

bool testdev_run_queue(struct testdev *t)
{
	while (t->queue && !t->ended) {
		struct testdev_message *m = t->queue;

		t->queue = m->next;
		if (!t->queue)
			t->queue_end = &t->queue;
		t->queued--;
		answer(t, m);
		free_message(m);
	}
	return !t->ended;
}

bool testdev_receive(struct testdev *t)
{
	struct testdev_message *m = receive_message(t);

	if (!m)
		return false;
	if ((m->header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_COMMAND)
		answer(t, m);
	free_message(m);
	return testdev_run_queue(t);
}

/* The reply to `id`; commands that come first are kept for later. */
static struct testdev_message *await_reply(struct testdev *t, uint16_t id)
{
	for (;;) {
		struct testdev_message *m = receive_message(t);

		if (!m)
			return NULL;
		if ((m->header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_REPLY) {
			if (m->header.id == id)
				return m;
			free_message(m); /* to a call that was given up */
		} else if (t->queued == TESTDEV_QUEUE_MAX) {
			free_message(m);
			t->ended = true;
			return NULL;
		} else {
			*t->queue_end = m;
			t->queue_end = &m->next;
			t->queued++;
		}
	}
}

ssize_t testdev_call(struct testdev *t, uint16_t command, const void *payload, size_t len,
		     void *reply, size_t room)
{
	struct vfio_user_header header = { .id = ++t->last_id, .command = command };
	struct testdev_message *m;
	ssize_t r;

	testdev_send(t, &header, payload, len, NULL, 0);
	if (t->ended)
		return -ECONNRESET;
	m = await_reply(t, header.id);
	if (!m)
		return -ECONNRESET;
	if (m->header.flags & VFIO_USER_ERROR) {
		r = m->header.error ? -(ssize_t)m->header.error : -EIO;
	} else if (m->len > room) {
		r = -EMSGSIZE;
	} else {
		memcpy(reply, m->payload, m->len);
		r = (ssize_t)m->len;
	}
	free_message(m);
	return r;
}

/* Everything of the client goes; the device keeps its state. */
void testdev_disconnect(struct testdev *t)
{
	while (t->queue) {
		struct testdev_message *m = t->queue;

		t->queue = m->next;
		free_message(m);
	}
	t->queue_end = &t->queue;
	t->queued = 0;
	testdev_irqs_close(t);
	testdev_dma_unmap_all(t);
	if (t->sock >= 0)
		close(t->sock);
	t->sock = -1;
	t->dma_pending = false;
}
