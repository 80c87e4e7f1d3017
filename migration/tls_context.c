/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates, key and CA of a migration. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "migration/tls_late.h"
#include "migration/tls_private.h"

#define FILE_MAX (1U << 20) /* more than any chain of certificates */
/* RFC 8446, 5.5: AES-GCM is safe for 2^24.5 full records under one key. */
#define REKEY_RECORDS (1U << 23)
#define CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

/* A file of the directory. */
struct pem_file {
	char path[512];
	char *text; /* malloc'ed, zeroed when it is freed: it may be a key */
	size_t len;
	int result;
};

static void pem_file_free(struct pem_file *file)
{
	if (file->text)
		explicit_bzero(file->text, file->len);
	free(file->text);
}

#define _cleanup_pem_ __attribute__((cleanup(pem_file_free)))

/* In the thread that may open files. Not a FIFO, which would make it wait for ever. */
static void read_file(void *opaque)
{
	struct pem_file *file = opaque;
	_cleanup_close_ int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		file->result = -errno;
		return;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
		file->result = S_ISREG(st.st_mode) ? -EFBIG : -EINVAL;
		return;
	}
	file->len = (size_t)st.st_size;
	file->text = malloc(file->len + 1);
	file->result = file->text ? fd_read_full(fd, file->text, file->len) : -ENOMEM;
}

static int load(struct pem_file *file, const char *dir, const char *name,
		const struct thread_policy *policy, struct error *err)
{
	if ((size_t)snprintf(file->path, sizeof(file->path), "%s/%s", dir, name) >=
	    sizeof(file->path))
		return error_set_kind(err, ERROR_BAD_REQUEST, ENAMETOOLONG, "tls_dir: too long");
	thread_run_in_starter(policy, read_file, file);
	if (!file->result)
		return 0;
	if (file->result == -EINVAL)
		return error_set(err, EINVAL, "tls_dir: %s is no file", file->path);
	return error_set_errno(err, file->result, "tls_dir: %s", file->path);
}

/* The text ends at its end: there is nothing more to be had from OpenSSL about that. */
static bool at_end_of_pem(void)
{
	unsigned long code = ERR_peek_last_error();
	bool end = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;

	ERR_clear_error();
	return end;
}

static int bad_file(const struct pem_file *file, const char *what, struct error *err)
{
	ERR_clear_error();
	return error_set(err, EINVAL, "tls_dir: %s %s", file->path, what);
}

/* Calls take with each certificate of the file, which must have one. */
static int each_certificate(const struct pem_file *file,
			    int (*take)(SSL_CTX *ssl, X509 *certificate, unsigned int index),
			    SSL_CTX *ssl, struct error *err)
{
	BIO *bio = BIO_new_mem_buf(file->text, (int)file->len);
	unsigned int count = 0;
	X509 *certificate;
	int ok = 1;

	if (!bio)
		return error_set_errno(err, ENOMEM, "tls_dir");
	while (ok && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		ok = take(ssl, certificate, count++);
		X509_free(certificate);
	}
	BIO_free(bio);
	if (!ok)
		return bad_file(file, "has a certificate that OpenSSL does not take", err);
	if (!at_end_of_pem())
		return bad_file(file, "has a damaged certificate", err);
	return count ? 0 : bad_file(file, "has no certificate (PEM)", err);
}

static int trust(SSL_CTX *ssl, X509 *certificate, unsigned int index)
{
	return X509_STORE_add_cert(SSL_CTX_get_cert_store(ssl), certificate);
}

/* The first is ours, the others lead to the CA. */
static int show(SSL_CTX *ssl, X509 *certificate, unsigned int index)
{
	if (!index)
		return SSL_CTX_use_certificate(ssl, certificate);
	return (int)SSL_CTX_add1_chain_cert(ssl, certificate);
}

/* There is nobody to ask. */
static int no_password(char *buf, int size, int writing, void *opaque)
{
	*(bool *)opaque = true;
	return -1;
}

static int use_key(SSL_CTX *ssl, const struct pem_file *file, const struct pem_file *certificate,
		   struct error *err)
{
	BIO *bio = BIO_new_mem_buf(file->text, (int)file->len);
	bool encrypted = false;
	EVP_PKEY *key;
	int ok;

	if (!bio)
		return error_set_errno(err, ENOMEM, "tls_dir");
	key = PEM_read_bio_PrivateKey(bio, NULL, no_password, &encrypted);
	BIO_free(bio);
	if (!key)
		return bad_file(file,
				encrypted ? "is encrypted: Ferry has no password for it"
					  : "has no private key (PEM)",
				err);
	ok = SSL_CTX_use_PrivateKey(ssl, key) && SSL_CTX_check_private_key(ssl);
	EVP_PKEY_free(key);
	ERR_clear_error();
	if (ok)
		return 0;
	return error_set(err, EINVAL, "tls_dir: %s is not the key of %s", file->path,
			 certificate->path);
}

static int load_all(struct tls_context *context, const struct thread_policy *policy,
		    struct error *err)
{
	bool source = context->side == TLS_SOURCE;
	_cleanup_pem_ struct pem_file ca = { .len = 0 }, certificate = { .len = 0 },
				      key = { .len = 0 };
	int r = load(&ca, context->dir, "ca-cert.pem", policy, err);

	if (!r)
		r = load(&certificate, context->dir, source ? "client-cert.pem" : "server-cert.pem",
			 policy, err);
	if (!r)
		r = load(&key, context->dir, source ? "client-key.pem" : "server-key.pem", policy,
			 err);
	if (!r)
		r = each_certificate(&ca, trust, context->ssl, err);
	if (!r)
		r = each_certificate(&certificate, show, context->ssl, err);
	return r ? r : use_key(context->ssl, &key, &certificate, err);
}

/* Names are compared whole; "localhost" is one. */
static bool expect_host(SSL_CTX *ssl, const char *host)
{
	X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ssl);
	uint8_t address[16];
	size_t len = inet_pton(AF_INET, host, address) == 1    ? 4
		     : inet_pton(AF_INET6, host, address) == 1 ? 16
							       : 0;

	if (len)
		return X509_VERIFY_PARAM_set1_ip(param, address, len);
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
						       X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return X509_VERIFY_PARAM_set1_host(param, host, 0);
}

static bool set_rules(SSL_CTX *ssl)
{
	SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(ssl, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/* No tickets: after the handshake nothing comes but what the protocol sends. */
	return SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) &&
	       SSL_CTX_set_num_tickets(ssl, 0) && SSL_CTX_set_ciphersuites(ssl, CIPHERS);
}

static int make(struct tls_context *context, struct error *err)
{
	int r = tls_late_start();

	if (r)
		return error_set_errno(err, r, "TLS: start OpenSSL");
	/* No configuration of the host's, and no work left for the end of the process. */
	if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL))
		return error_set(err, ENOMEM, "TLS: OpenSSL does not start");
	ERR_clear_error();
	context->buffers = tls_session_bio();
	context->ssl = SSL_CTX_new(context->side == TLS_SOURCE ? TLS_client_method()
							       : TLS_server_method());
	if (!context->ssl || !context->buffers || !set_rules(context->ssl) ||
	    (context->host[0] && !expect_host(context->ssl, context->host)))
		return error_set(err, ENOMEM, "TLS: OpenSSL has no TLS 1.3");
	return 0;
}

struct tls_context *tls_context_new(const char *dir, enum tls_side side, const char *host,
				    const struct thread_policy *policy, struct error *err)
{
	struct tls_context *context = calloc(1, sizeof(*context));
	int r;

	if (!context) {
		error_set_errno(err, ENOMEM, "TLS");
		return NULL;
	}
	context->side = side;
	context->rekey_records = REKEY_RECORDS;
	if ((size_t)snprintf(context->dir, sizeof(context->dir), "%s", dir) >=
		    sizeof(context->dir) ||
	    (host && (size_t)snprintf(context->host, sizeof(context->host), "%s", host) >=
			     sizeof(context->host)))
		r = error_set_kind(err, ERROR_BAD_REQUEST, ENAMETOOLONG,
				   "tls_dir: it, or the URL's host, is too long");
	else
		r = make(context, err);
	if (!r)
		r = load_all(context, policy, err);
	if (!r)
		return context;
	tls_context_free(context);
	return NULL;
}

void tls_context_free(struct tls_context *context)
{
	if (!context)
		return;
	SSL_CTX_free(context->ssl);
	BIO_meth_free(context->buffers);
	free(context);
}

void tls_context_set_rekey(struct tls_context *context, uint64_t records)
{
	context->rekey_records = records;
}
