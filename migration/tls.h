/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of a migration's connections, below the frames (protocol.h): version 1.3 only, both
 * sides show a certificate of the one CA there is, and the source checks that the
 * destination's is for the host that its URL names (subject alternative names; the common
 * name does not count).
 *
 * A context is what one migration's connections share: certificate, key and CA, read from
 * a directory once. It does not change: any thread. A session is one connection's: one
 * thread at a time. It does no I/O: records of the peer are put into its input, and what
 * comes out is sent by whoever has it (channel_tls.c). Nothing of OpenSSL is set up, or
 * even relocated, before the first context is made.
 *
 * Each call of tls_session_write begins a record, and a reader asks for what a frame still
 * lacks: a session never takes a byte from the socket that belongs to the next frame, so
 * that poll() on the socket tells whether there is one.
 *
 * No close_notify is sent: where the stream may end is the protocol's business, and an end
 * anywhere else counts as a cut connection.
 */
#ifndef MIGRATION_TLS_H
#define MIGRATION_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/thread.h"

enum tls_side {
	TLS_SOURCE,	 /* the TLS client: client-cert.pem, client-key.pem, ca-cert.pem */
	TLS_DESTINATION, /* the TLS server: server-cert.pem, server-key.pem, ca-cert.pem */
};

#define TLS_WRITE_MAX 16384u /* what one record carries */

struct tls_context;

/*
 * Reads dir's files (in the thread that starts all others, which may). host: an address or
 * a name that the destination's certificate has to be for; of a source only, copied. The
 * error names the file and what is wrong with it.
 */
struct tls_context *tls_context_new(const char *dir, enum tls_side side, const char *host,
				    const struct thread_policy *policy, struct error *err);
/* Not before its sessions. NULL is allowed. */
void tls_context_free(struct tls_context *context);
/* New keys after so many records instead of as many as are safe; for tests. */
void tls_context_set_rekey(struct tls_context *context, uint64_t records);

struct tls_session;

/* NULL: no memory. */
struct tls_session *tls_session_new(const struct tls_context *context);
void tls_session_free(struct tls_session *session);

/*
 * These return 0 (or a count of bytes), or
 *   -EAGAIN         more of the peer is needed: tls_session_input
 *   -ENODATA        (read) the peer has closed
 *   -EKEYREJECTED   it is over, and tls_session_error says why
 * All may leave output that has to be sent first, also when it is over: an alert.
 */
int tls_session_handshake(struct tls_session *session);
/* len: 1 to TLS_WRITE_MAX; it may change meanwhile, what goes out is consistent. */
int tls_session_write(struct tls_session *session, const void *data, size_t len);
/* wanted: how much the caller still waits for, `len` of it into buf. */
ssize_t tls_session_read(struct tls_session *session, void *buf, size_t len, size_t wanted);
/* Has come from the peer and was not read, decrypted or not. */
bool tls_session_pending(const struct tls_session *session);

/* What is to be sent; tls_session_sent when it was, all of it. */
const void *tls_session_output(const struct tls_session *session, size_t *len);
void tls_session_sent(struct tls_session *session);
/* Where the next bytes of the peer belong: it has to send at least *len more. */
void *tls_session_input(struct tls_session *session, size_t *len);
void tls_session_received(struct tls_session *session, size_t len);

bool tls_session_established(const struct tls_session *session);
enum tls_side tls_session_side(const struct tls_session *session);
/* The peer began with a frame instead: it was not told to use TLS. */
bool tls_session_peer_is_plain(const struct tls_session *session);
/* Why -EKEYREJECTED; returns its code. */
int tls_session_error(const struct tls_session *session, struct error *err);

/* Do these first bytes of a connection (at least 3) begin a TLS handshake? */
bool tls_is_handshake(const uint8_t *bytes);

#endif
