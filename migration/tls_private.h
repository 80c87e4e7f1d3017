/* SPDX-License-Identifier: Apache-2.0 */
/* What tls*.c share; nobody else includes this. */
#ifndef MIGRATION_TLS_PRIVATE_H
#define MIGRATION_TLS_PRIVATE_H

#include <openssl/ssl.h>

#include "migration/tls.h"

struct tls_context {
	enum tls_side side;
	SSL_CTX *ssl;
	BIO_METHOD *buffers;	/* of sessions */
	uint64_t rekey_records; /* that one key encrypts */
	char dir[256];		/* for errors */
	char host[256];		/* of a source: whom the certificate is to be for */
};

/* tls_session.c: the BIO of sessions, between OpenSSL and their buffers. NULL: no memory. */
BIO_METHOD *tls_session_bio(void);

#endif
