/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vfio-user server in a thread, on one end of a socketpair. It answers as a good server
 * would, by the protocol's offsets written out once more (not by our header), and lets a
 * test change one reply: see struct fake_server.
 */
#ifndef TESTS_UNIT_VFIO_USER_FAKE_SERVER_H
#define TESTS_UNIT_VFIO_USER_FAKE_SERVER_H

#include <check.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"

#define FAKE_MESSAGE_MAX (2 * MIB)
#define FAKE_CAPS "{\"capabilities\":{\"max_msg_fds\":4,\"max_data_xfer_size\":4096}}"

struct fake_message {
	uint8_t *bytes; /* header included */
	size_t len;
	int fds[8];
	unsigned int fd_count;
};

struct fake_server {
	int sock, memfd;
	pthread_t thread;
	const char *caps; /* JSON of the VERSION reply, NULL: none */
	uint16_t version[2];
	/* Sees each command (from 1) and the reply as it will go out, and may change it;
	 * false: nothing is sent. Runs in the server's thread. */
	bool (*hook)(struct fake_server *s, unsigned int number, const struct fake_message *command,
		     struct fake_message *reply);
	void *opaque;
	atomic_uint commands;
	/* What the last command of each kind looked like. */
	pthread_mutex_t lock;
	struct fake_seen {
		uint8_t bytes[256];
		size_t len;
		unsigned int fds;
	} seen[32];
};

static inline bool fake_read(int sock, uint8_t *to, size_t len, struct fake_message *m)
{
	while (len) {
		unsigned int room = ARRAY_SIZE(m->fds) - m->fd_count;
		ssize_t n = fd_recv(sock, to, len, m->fds + m->fd_count, &room);

		if (n <= 0)
			return false;
		m->fd_count += room;
		to += n;
		len -= (size_t)n;
	}
	return true;
}

static inline void fake_close_fds(struct fake_message *m)
{
	while (m->fd_count)
		close(m->fds[--m->fd_count]);
}

/* One message into m->bytes, which has room for FAKE_MESSAGE_MAX. */
static inline bool fake_receive(int sock, struct fake_message *m)
{
	m->fd_count = 0;
	if (!fake_read(sock, m->bytes, 16, m))
		return false;
	m->len = load_le32(m->bytes + 4);
	if (m->len < 16 || m->len > FAKE_MESSAGE_MAX)
		return false;
	return fake_read(sock, m->bytes + 16, m->len - 16, m);
}

static inline void fake_header(uint8_t *to, uint16_t id, uint16_t command, uint32_t size,
			       uint32_t flags)
{
	store_le16(to, id);
	store_le16(to + 2, command);
	store_le32(to + 4, size);
	store_le32(to + 8, flags);
	store_le32(to + 12, 0);
}

static inline size_t fake_region_info(struct fake_server *s, const uint8_t *in, uint8_t *out,
				      struct fake_message *reply)
{
	uint32_t index = load_le32(in + 8);

	memset(out, 0, 256);
	store_le32(out, 32);
	store_le32(out + 4, 3); /* read, write */
	store_le32(out + 8, index);
	store_le64(out + 16, index <= 2 ? 0x4000 : index == 7 ? 256 : 0);
	if (index != 2)
		return 32;
	/* Mappable in two areas, given in the wrong order; and a type. */
	store_le32(out, 32 + 16 + 32 + 16);
	store_le32(out + 4, 15);
	store_le32(out + 12, 32);
	store_le64(out + 24, 0x1000);
	store_le16(out + 32, 1); /* sparse mmap */
	store_le16(out + 34, 1);
	store_le32(out + 36, 80);
	store_le32(out + 40, 2);
	store_le64(out + 48, 0x3000);
	store_le64(out + 56, 0x1000);
	store_le64(out + 64, 0x1000);
	store_le64(out + 72, 0x1000);
	store_le16(out + 80, 2); /* type */
	store_le16(out + 82, 1);
	store_le32(out + 88, 3);
	store_le32(out + 92, 1);
	reply->fds[reply->fd_count++] = dup(s->memfd);
	return 96;
}

static inline size_t fake_io_fds(struct fake_server *s, const uint8_t *in, uint8_t *out,
				 struct fake_message *reply)
{
	memset(out, 0, 64);
	store_le32(out + 8, load_le32(in + 8));
	store_le32(out, 16);
	if (load_le32(in + 8) != 0)
		return 16;
	store_le32(out, 56);
	store_le32(out + 12, 1);
	store_le64(out + 16, 0x100); /* offset */
	store_le64(out + 24, 2);     /* size */
	store_le32(out + 40, 1);     /* datamatch */
	store_le64(out + 48, 77);
	reply->fds[reply->fd_count++] = eventfd_new();
	return 56;
}

/* The payload of a good reply. */
static inline size_t fake_payload(struct fake_server *s, const struct fake_message *command,
				  struct fake_message *reply)
{
	const uint8_t *in = command->bytes + 16;
	uint8_t *out = reply->bytes + 16;
	size_t count;

	switch (load_le16(command->bytes + 2)) {
	case 1: /* VERSION */
		store_le16(out, s->version[0]);
		store_le16(out + 2, s->version[1]);
		if (!s->caps)
			return 4;
		strcpy((char *)out + 4, s->caps);
		return 4 + strlen(s->caps) + 1;
	case 3: /* DMA_UNMAP */ memcpy(out, in, 24); return 24;
	case 4: /* DEVICE_GET_INFO */
		store_le32(out, 16);
		store_le32(out + 4, 3); /* reset, PCI */
		store_le32(out + 8, 9);
		store_le32(out + 12, 5);
		return 16;
	case 5: return fake_region_info(s, in, out, reply);
	case 6: return fake_io_fds(s, in, out, reply);
	case 7: /* DEVICE_GET_IRQ_INFO */
		memcpy(out, in, 16);
		store_le32(out + 4, 1);
		store_le32(out + 12, load_le32(in + 8) == 2 ? 300 : 1);
		return 16;
	case 9: /* REGION_READ: bytes that say where they are from */
		count = load_le32(in + 12);
		memcpy(out, in, 16);
		for (size_t i = 0; i < count; i++)
			out[16 + i] = (uint8_t)(load_le64(in) + i);
		return 16 + count;
	case 10: /* REGION_WRITE */ memcpy(out, in, 16); return 16;
	case 16: /* DEVICE_FEATURE */
		memcpy(out, in, 8);
		store_le64(out + 8, 5);
		return load_le32(in + 4) & 1 << 16 ? 16 : 8;
	case 17: /* MIG_DATA_READ: four bytes */
		store_le32(out, 12);
		store_le32(out + 4, 4);
		memcpy(out + 8, "data", 4);
		return 12;
	case 18: /* MIG_DATA_WRITE */ memcpy(out, in, 8); return 8;
	default: return 0;
	}
}

static inline void fake_remember(struct fake_server *s, const struct fake_message *m)
{
	struct fake_seen *seen = &s->seen[load_le16(m->bytes + 2) % 32];

	pthread_mutex_lock(&s->lock);
	memcpy(seen->bytes, m->bytes, MIN(m->len, sizeof(seen->bytes)));
	seen->len = m->len;
	seen->fds = m->fd_count;
	pthread_mutex_unlock(&s->lock);
}

/* The last command of its kind. */
static inline struct fake_seen fake_seen(struct fake_server *s, unsigned int command)
{
	struct fake_seen seen;

	pthread_mutex_lock(&s->lock);
	seen = s->seen[command];
	pthread_mutex_unlock(&s->lock);
	return seen;
}

static inline void *fake_main(void *opaque)
{
	struct fake_server *s = opaque;
	struct fake_message command = { .bytes = malloc(FAKE_MESSAGE_MAX) };
	struct fake_message reply = { .bytes = malloc(FAKE_MESSAGE_MAX) };

	while (fake_receive(s->sock, &command)) {
		unsigned int number;
		bool send;

		fake_remember(s, &command);
		number = atomic_fetch_add(&s->commands, 1) + 1;
		reply.len = 16 + fake_payload(s, &command, &reply);
		fake_header(reply.bytes, load_le16(command.bytes), load_le16(command.bytes + 2),
			    (uint32_t)reply.len, 1);
		send = !(load_le32(command.bytes + 8) & 16);
		if (s->hook)
			send &= s->hook(s, number, &command, &reply);
		if (send && reply.len)
			fd_send(s->sock, reply.bytes, reply.len, reply.fds, reply.fd_count);
		fake_close_fds(&command);
		fake_close_fds(&reply);
	}
	shutdown(s->sock, SHUT_RDWR);
	fake_close_fds(&command);
	free(command.bytes);
	free(reply.bytes);
	return NULL;
}

/* The client's end of the socket. */
static inline int fake_start(struct fake_server *s)
{
	int pair[2];

	atomic_store(&s->commands, 0);
	pthread_mutex_init(&s->lock, NULL);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	s->memfd = memfd_create("fake", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(s->memfd, 0x8000), 0);
	s->sock = pair[0];
	pthread_create(&s->thread, NULL, fake_main, s);
	return pair[1];
}

static inline void fake_stop(struct fake_server *s)
{
	shutdown(s->sock, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->sock);
	close(s->memfd);
}

#endif
