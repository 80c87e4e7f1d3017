/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile peer against a session of TLS, before, in and after the handshake. The input:
 *
 *   u8 which: 1 the victim is the source, else the destination; 2 a real peer is there,
 *   u8 (of a real peer) how many moves of real bytes come first, then, until the end:
 *   u16 length | 0x8000 (with a real peer: so many of its bytes, one of them xor'ed by the
 *   byte that follows), bytes
 *
 * Nothing may be taken that was not asked for, and what is over stays over.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "migration/tls.h"
#include "tests/fuzz/without_check.h"
#include "tests/unit/migration/certificates.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tls_context *contexts[2];

static void make_contexts(void)
{
	struct authority authority = authority_new("fuzz");
	char dir[TLS_DIR_SIZE];

	make_tls_dir(dir, &authority);
	for (int side = 0; side < 2; side++) {
		contexts[side] = tls_context_new(dir, side, side == TLS_SOURCE ? "127.0.0.1" : NULL,
						 NULL, NULL);
		if (!contexts[side])
			abort();
	}
	remove_tls_dir(dir);
	authority_free(&authority);
}

/* Works with what has come; false: it is over. */
static bool step(struct tls_session *session)
{
	uint8_t buf[4096];
	int r = tls_session_handshake(session);

	for (unsigned int i = 0; !r && i < 100; i++) {
		ssize_t n = tls_session_read(session, buf, sizeof(buf), sizeof(buf));

		if (n <= 0)
			r = (int)n;
	}
	if (!r || r == -EAGAIN)
		return true;
	if (r == -EKEYREJECTED && (tls_session_handshake(session) == 0
					   ? tls_session_read(session, buf, 1, 1) != -EKEYREJECTED
					   : tls_session_error(session, NULL) != -EKEYREJECTED))
		abort();
	return false;
}

static bool feed(struct tls_session *session, const uint8_t *data, size_t len)
{
	while (len) {
		size_t room;
		uint8_t *input = tls_session_input(session, &room);
		size_t part = MIN(room, len);

		if (!room)
			abort(); /* it asks for nothing, and waits */
		memcpy(input, data, part);
		tls_session_received(session, part);
		data += part;
		len -= part;
		if (!step(session))
			return false;
	}
	return true;
}

/* All of one side's output to the other, with one byte changed at `at`. */
static bool move_output(struct tls_session *from, struct tls_session *to, size_t at, uint8_t flip)
{
	size_t len;
	const uint8_t *output = tls_session_output(from, &len);
	uint8_t *copy = malloc(len + 1);
	bool goes_on;

	if (len) {
		memcpy(copy, output, len);
		copy[at % len] ^= flip;
	}
	tls_session_sent(from);
	goes_on = feed(to, copy, len);
	free(copy);
	return goes_on;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tls_session *victim, *peer = NULL;
	unsigned int moves = 0;
	bool goes_on;

	if (size < 2)
		return 0;
	if (!contexts[0])
		make_contexts();
	victim = tls_session_new(contexts[data[0] & 1 ? TLS_SOURCE : TLS_DESTINATION]);
	if (data[0] & 2) {
		peer = tls_session_new(contexts[data[0] & 1 ? TLS_DESTINATION : TLS_SOURCE]);
		moves = data[1] % 8;
	}
	data += 2;
	size -= 2;
	goes_on = step(victim);
	for (unsigned int i = 0; peer && i < moves && goes_on; i++)
		goes_on = step(peer) && move_output(peer, victim, 0, 0) &&
			  move_output(victim, peer, 0, 0);
	while (goes_on && size >= 3) {
		size_t len = load_le16(data);
		uint8_t flip = data[2];

		data += 2;
		size -= 2;
		if (len & 0x8000 && peer) {
			goes_on = step(peer) && move_output(peer, victim, len & 0x7fff, flip) &&
				  move_output(victim, peer, 0, 0);
			data++;
			size--;
			continue;
		}
		len = MIN(len & 0x7fff, size);
		goes_on = feed(victim, data, len);
		data += len;
		size -= len;
	}
	tls_session_free(victim);
	tls_session_free(peer);
	return 0;
}
