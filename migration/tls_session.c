/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection's TLS, in memory. OpenSSL is given whole records only: what is missing of
 * one is known from its header, so that nothing is read that nobody waits for.
 */
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "migration/protocol.h"
#include "migration/tls_private.h"

/* RFC 8446, 5.1 and 5.2: header, the most that is encrypted, and what encrypting adds. */
#define RECORD_HEADER 5U
#define RECORD_MAX (RECORD_HEADER + TLS_WRITE_MAX + 256U)
#define RECORD_EXTRA (RECORD_HEADER + 1U + 16U)
#define RECORD_ALERT 21
#define RECORD_HANDSHAKE 22

#define INPUT_SIZE (8U * RECORD_MAX)
#define OUTPUT_MAX (4U << 20) /* a handshake with the longest chain of certificates */

struct tls_session {
	const struct tls_context *context;
	SSL *ssl;
	uint8_t *output;
	size_t output_len, output_size;
	/* [start, whole): records for OpenSSL; [whole, end): the beginning of another */
	size_t start, whole, end;
	size_t wanted;	  /* plain bytes that the reader waits for */
	uint64_t records; /* under the key that there is */
	bool established, first_seen, plain;
	struct error error;
	uint8_t input[INPUT_SIZE];
};

/* OpenSSL's reads and writes. */

static int bio_write(BIO *bio, const char *data, size_t len, size_t *written)
{
	struct tls_session *session = BIO_get_data(bio);

	if (len > OUTPUT_MAX - session->output_len)
		return 0;
	if (len > session->output_size - session->output_len) {
		size_t size = MAX(2 * session->output_size, session->output_len + len);
		uint8_t *larger = realloc(session->output, size);

		if (!larger)
			return 0;
		session->output = larger;
		session->output_size = size;
	}
	memcpy(session->output + session->output_len, data, len);
	session->output_len += len;
	*written = len;
	return 1;
}

static int bio_read(BIO *bio, char *data, size_t len, size_t *taken)
{
	struct tls_session *session = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	*taken = MIN(len, session->whole - session->start);
	if (!*taken) {
		BIO_set_retry_read(bio);
		return 0;
	}
	memcpy(data, session->input + session->start, *taken);
	session->start += *taken;
	return 1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
	return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *tls_session_bio(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "migration");

	if (method && BIO_meth_set_write_ex(method, bio_write) &&
	    BIO_meth_set_read_ex(method, bio_read) && BIO_meth_set_ctrl(method, bio_control))
		return method;
	BIO_meth_free(method);
	return NULL;
}

struct tls_session *tls_session_new(const struct tls_context *context)
{
	struct tls_session *session = calloc(1, sizeof(*session));
	BIO *bio;

	if (!session)
		return NULL;
	session->context = context;
	session->ssl = SSL_new(context->ssl);
	bio = BIO_new(context->buffers);
	if (!session->ssl || !bio) {
		BIO_free(bio);
		tls_session_free(session);
		return NULL;
	}
	BIO_set_data(bio, session);
	BIO_set_init(bio, 1);
	SSL_set_bio(session->ssl, bio, bio);
	if (context->side == TLS_SOURCE)
		SSL_set_connect_state(session->ssl);
	else
		SSL_set_accept_state(session->ssl);
	return session;
}

void tls_session_free(struct tls_session *session)
{
	if (!session)
		return;
	SSL_free(session->ssl);
	free(session->output);
	free(session);
}

/* Why it is over. */

static const char *peer_name(const struct tls_session *session)
{
	return session->context->side == TLS_SOURCE ? "destination" : "source";
}

static int refuse_certificate(struct tls_session *session, long why)
{
	const struct tls_context *context = session->context;
	const char *peer = peer_name(session);

	switch (why) {
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return error_set(&session->error, EKEYREJECTED,
				 "TLS: the %s's certificate is not for %s: its subject alternative "
				 "names have to have it",
				 peer, context->host);
	default:
		return error_set(&session->error, EKEYREJECTED,
				 "TLS: the %s's certificate is refused by %s/ca-cert.pem: %s", peer,
				 context->dir, X509_verify_cert_error_string(why));
	}
}

/* The library's reasons from here on are the peer's alerts (openssl/sslerr.h). */
static int peer_alerted(struct tls_session *session, int alert)
{
	const char *peer = peer_name(session);
	const char *what = SSL_alert_desc_string_long(alert);

	switch (alert) {
	case SSL3_AD_BAD_CERTIFICATE:
	case SSL3_AD_UNSUPPORTED_CERTIFICATE:
	case SSL3_AD_CERTIFICATE_REVOKED:
	case SSL3_AD_CERTIFICATE_EXPIRED:
	case SSL3_AD_CERTIFICATE_UNKNOWN:
	case TLS1_AD_UNKNOWN_CA:
	case TLS1_AD_ACCESS_DENIED:
	case TLS13_AD_CERTIFICATE_REQUIRED:
		return error_set(&session->error, EKEYREJECTED,
				 "TLS: the %s refuses this side's certificate: %s", peer, what);
	default:
		return error_set(&session->error, EKEYREJECTED, "TLS: the %s gave up: %s", peer,
				 what);
	}
}

static int give_up(struct tls_session *session)
{
	unsigned long code = ERR_peek_error();
	int reason = ERR_GET_REASON(code);
	long verified = SSL_get_verify_result(session->ssl);
	const char *text = ERR_reason_error_string(code);

	ERR_clear_error();
	if (session->error.code)
		return -EKEYREJECTED;
	if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
		return refuse_certificate(session, verified);
	if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
		return error_set(&session->error, EKEYREJECTED, "TLS: the %s shows no certificate",
				 peer_name(session));
	if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET)
		return peer_alerted(session, reason - SSL_AD_REASON_OFFSET);
	return error_set(&session->error, EKEYREJECTED, "TLS with the %s: %s", peer_name(session),
			 text ? text : "it does not work");
}

/* Before OpenSSL sees it, which would only say that the version is wrong. */
static void look_at_first(struct tls_session *session)
{
	static const uint8_t magic[] = { 'F', 'R', 'R', 'Y' };
	const uint8_t *bytes = session->input;

	session->first_seen = true;
	session->plain = !memcmp(bytes, magic, sizeof(magic));
	if (bytes[1] == 3 && (bytes[0] == RECORD_HANDSHAKE || bytes[0] == RECORD_ALERT))
		return;
	if (session->context->side == TLS_SOURCE)
		error_set(&session->error, EKEYREJECTED,
			  "TLS: the destination does not speak it: its tls_dir is missing");
	else
		error_set(&session->error, EKEYREJECTED,
			  "TLS: the source does not speak it, and this side was given a tls_dir: "
			  "its own is missing");
}

static int result_of(struct tls_session *session, int ok)
{
	switch (SSL_get_error(session->ssl, ok)) {
	case SSL_ERROR_WANT_READ: return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN: return -ENODATA;
	default: return give_up(session);
	}
}

int tls_session_handshake(struct tls_session *session)
{
	int ok, r;

	if (session->established)
		return 0;
	if (session->error.code)
		return -EKEYREJECTED;
	session->wanted = 0;
	ERR_clear_error();
	ok = SSL_do_handshake(session->ssl);
	r = ok == 1 ? 0 : result_of(session, ok);
	session->established = !r;
	if (r == -ENODATA)
		return error_set(&session->error, EKEYREJECTED,
				 "TLS: the %s closed during the handshake", peer_name(session));
	return r;
}

int tls_session_write(struct tls_session *session, const void *data, size_t len)
{
	size_t written;
	int ok = 1;

	if (session->error.code)
		return -EKEYREJECTED;
	ERR_clear_error();
	if (session->records++ == session->context->rekey_records) {
		session->records = 0;
		ok = SSL_key_update(session->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
	}
	if (ok != 1 || SSL_write_ex(session->ssl, data, len, &written) != 1 || written != len)
		return give_up(session);
	return 0;
}

ssize_t tls_session_read(struct tls_session *session, void *buf, size_t len, size_t wanted)
{
	size_t taken;
	int ok;

	if (session->error.code)
		return -EKEYREJECTED;
	session->wanted = wanted;
	ERR_clear_error();
	ok = SSL_read_ex(session->ssl, buf, len, &taken);
	return ok == 1 ? (ssize_t)taken : result_of(session, ok);
}

bool tls_session_pending(const struct tls_session *session)
{
	return session->end > session->start || SSL_pending(session->ssl) > 0;
}

const void *tls_session_output(const struct tls_session *session, size_t *len)
{
	*len = session->output_len;
	return session->output;
}

void tls_session_sent(struct tls_session *session)
{
	session->output_len = 0;
}

/* The record at `whole`, header included; 0: its header is not all there. */
static size_t record_size(const struct tls_session *session)
{
	const uint8_t *header = session->input + session->whole;

	if (session->end - session->whole < RECORD_HEADER)
		return 0;
	return RECORD_HEADER + ((size_t)header[3] << 8 | header[4]);
}

/* The least that has to come until so many plain bytes have. */
static size_t least(size_t plain)
{
	return plain + (plain + TLS_WRITE_MAX - 1) / TLS_WRITE_MAX * RECORD_EXTRA;
}

void *tls_session_input(struct tls_session *session, size_t *len)
{
	size_t have, record, need;

	memmove(session->input, session->input + session->start, session->end - session->start);
	session->whole -= session->start;
	session->end -= session->start;
	session->start = 0;
	have = session->end - session->whole;
	record = record_size(session);
	if (!record) {
		need = MAX(least(session->wanted), (size_t)RECORD_HEADER) - have;
	} else {
		size_t carries = record > RECORD_EXTRA ? record - RECORD_EXTRA : 0;

		need = record - have;
		if (session->wanted > carries)
			need += least(session->wanted - carries);
	}
	*len = MIN(need, sizeof(session->input) - session->end);
	return session->input + session->end;
}

void tls_session_received(struct tls_session *session, size_t len)
{
	size_t record;

	session->end += len;
	if (!session->first_seen && session->end >= RECORD_HEADER)
		look_at_first(session);
	while ((record = record_size(session)) && record <= session->end - session->whole)
		session->whole += record;
	/* Longer than there can be: OpenSSL says so, from the header. */
	if (record > RECORD_MAX)
		session->whole = session->end;
}

bool tls_session_established(const struct tls_session *session)
{
	return session->established;
}

enum tls_side tls_session_side(const struct tls_session *session)
{
	return session->context->side;
}

bool tls_session_peer_is_plain(const struct tls_session *session)
{
	return session->plain;
}

int tls_session_error(const struct tls_session *session, struct error *err)
{
	if (err)
		*err = session->error;
	return session->error.code;
}

bool tls_is_handshake(const uint8_t *bytes)
{
	return bytes[0] == RECORD_HANDSHAKE && bytes[1] == 3;
}
