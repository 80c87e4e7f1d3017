/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin backend, and a process that says anything. What it will ever say is in the
 * socket before it is asked, and the end behind it, so nothing waits. And a stream that is
 * anything.
 *
 * The input: a byte of what is done, then packets. A packet is a good reply to the next call,
 * with some of its bytes changed; or raw bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vfio/migration_plugin_private.h"

struct input {
	const uint8_t *p;
	size_t left;
};

static uint64_t take(struct input *in, unsigned int bytes)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint64_t)*in->p++ << 8 * i;
	return v;
}

static void packet(int sock, struct input *in, uint32_t seq)
{
	struct plugin_message m = { .magic = PLUGIN_MAGIC, .seq = seq };
	uint8_t what = (uint8_t)take(in, 1), bytes[2 * sizeof(m)];
	size_t len = sizeof(m);

	m.type = what % 8;
	if (what & 8)
		m.value = take(in, 1 + (what >> 4 & 7));
	memcpy(bytes, &m, sizeof(m));
	if (what & 0x80) {
		unsigned int changes = (unsigned int)take(in, 1);

		for (unsigned int i = 0; i < (changes & 3); i++) {
			unsigned int at = (unsigned int)take(in, 1) % sizeof(m);

			bytes[at] = (uint8_t)take(in, 1);
		}
		if (changes & 4)
			len = take(in, 1) % sizeof(bytes);
	}
	send(sock, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Errors say something; results are within what was asked for. */
static int checked(int r, struct error *err)
{
	if (r > 0 || (r < 0 && (!err->message[0] || err->code != r)))
		abort();
	return r;
}

static void save(struct plugin_migration *p, struct error *err)
{
	const struct migratable_ops *ops = p->dm.m.ops;
	struct migratable_pending pending;
	static uint8_t buf[4096];

	checked(ops->save_pending(&p->dm.m, &pending, err), err);
	if (ops->save_stop(&p->dm.m, err))
		return;
	for (int i = 0; i < 600; i++) {
		ssize_t n = ops->save_read(&p->dm.m, buf, sizeof(buf), err);

		if (n > (ssize_t)sizeof(buf))
			abort();
		if (n <= 0)
			break;
	}
	checked(ops->save_end(&p->dm.m, err), err);
}

static void load(struct plugin_migration *p, struct input *in, struct error *err)
{
	const struct migratable_ops *ops = p->dm.m.ops;
	static uint8_t head[] = "FERRYPLG\1\0\0\0\0\0\0\0";
	int r = checked(ops->load_write(&p->dm.m, head, sizeof(head) - 1, err), err);

	while (!r && in->left) {
		size_t len = MIN((size_t)take(in, 1) + 1, in->left);

		r = checked(ops->load_write(&p->dm.m, in->p, len, err), err);
		in->p += len;
		in->left -= len;
	}
	if (!r)
		r = checked(ops->load_end(&p->dm.m, err), err);
	if (!r)
		checked(ops->run(&p->dm.m, err), err);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static uint8_t *window;
	struct input in = { bytes, size };
	struct error err = ERROR_INIT;
	struct plugin_migration *p;
	unsigned int packets;
	uint8_t what;
	int pair[2];

	if (!window)
		window = calloc(1, PLUGIN_WINDOW_SIZE);
	if (!window || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		abort();
	p = migration_plugin_attach(pair[1], window, &err);
	if (!p)
		abort();
	what = (uint8_t)take(&in, 1);
	packets = what & 1 ? what >> 3 : 64;
	for (uint32_t seq = 1; seq <= packets && in.left; seq++)
		packet(pair[0], &in, seq);
	shutdown(pair[0], SHUT_WR);
	if (what & 1)
		load(p, &in, &err);
	else
		save(p, &err);
	device_migration_free(&p->dm.m);
	close(pair[0]);
	close(pair[1]);
	return 0;
}
