/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Authorities, and directories for tls_dir with what they issue. Nothing here is secret.
 */
#ifndef TESTS_UNIT_MIGRATION_CERTIFICATES_H
#define TESTS_UNIT_MIGRATION_CERTIFICATES_H

#include <check.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct authority {
	EVP_PKEY *key;
	X509 *certificate;
};

/* What a certificate is for; 0 and NULL: as it should be. */
struct wish {
	const char *names; /* subject alternative names; NULL: 127.0.0.1 and localhost */
	const char *usage; /* extended key usage; NULL: both ends of TLS */
	long age, life;	   /* seconds since it was valid first, and until it ends */
};

static inline void add_extension(X509 *certificate, int nid, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_nconf_nid(NULL, NULL, nid, value);

	ck_assert_ptr_nonnull(extension);
	ck_assert_int_eq(X509_add_ext(certificate, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

static inline X509 *certificate_new(const char *name, EVP_PKEY *key, const struct authority *issuer,
				    const struct wish *wish)
{
	static long serial;
	X509 *certificate = X509_new();
	X509_NAME *subject = X509_get_subject_name(certificate);
	bool is_authority = !issuer->certificate;

	X509_set_version(certificate, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -(wish->age ? wish->age : 3600));
	X509_gmtime_adj(X509_getm_notAfter(certificate), wish->life ? wish->life : 36000);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0);
	X509_set_issuer_name(certificate,
			     is_authority ? subject : X509_get_subject_name(issuer->certificate));
	X509_set_pubkey(certificate, key);
	add_extension(certificate, NID_basic_constraints,
		      is_authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
	if (!is_authority) {
		add_extension(certificate, NID_subject_alt_name,
			      wish->names ? wish->names : "IP:127.0.0.1,DNS:localhost");
		add_extension(certificate, NID_ext_key_usage,
			      wish->usage ? wish->usage : "serverAuth,clientAuth");
	}
	ck_assert_int_gt(X509_sign(certificate, issuer->key, EVP_sha256()), 0);
	return certificate;
}

static inline struct authority authority_new(const char *name)
{
	struct authority own = { .key = EVP_EC_gen("P-256") };

	ck_assert_ptr_nonnull(own.key);
	own.certificate = certificate_new(name, own.key, &own, &(struct wish){ 0 });
	return own;
}

static inline void authority_free(struct authority *authority)
{
	X509_free(authority->certificate);
	EVP_PKEY_free(authority->key);
}

static inline FILE *open_in(const char *dir, const char *name)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	return file;
}

static inline void put_text(const char *dir, const char *name, const char *text)
{
	FILE *file = open_in(dir, name);

	fputs(text, file);
	fclose(file);
}

static inline void put_authority(const char *dir, const struct authority *authority)
{
	FILE *file = open_in(dir, "ca-cert.pem");

	ck_assert_int_eq(PEM_write_X509(file, authority->certificate), 1);
	fclose(file);
}

/* what: "client" or "server" */
static inline void put_certificate(const char *dir, const char *what,
				   const struct authority *issuer, const struct wish *wish)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = certificate_new(what, key, issuer, wish);
	char name[32];
	FILE *file;

	snprintf(name, sizeof(name), "%s-cert.pem", what);
	file = open_in(dir, name);
	ck_assert_int_eq(PEM_write_X509(file, certificate), 1);
	fclose(file);
	snprintf(name, sizeof(name), "%s-key.pem", what);
	file = open_in(dir, name);
	ck_assert_int_eq(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(file);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

/* dir: room for a path, which is made up. */
#define TLS_DIR_SIZE 64
static inline void make_tls_dir(char dir[TLS_DIR_SIZE], const struct authority *authority)
{
	strcpy(dir, "/tmp/ferry-tls-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	put_authority(dir, authority);
	put_certificate(dir, "server", authority, &(struct wish){ 0 });
	put_certificate(dir, "client", authority, &(struct wish){ 0 });
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	return remove(path);
}

static inline void remove_tls_dir(const char *dir)
{
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
