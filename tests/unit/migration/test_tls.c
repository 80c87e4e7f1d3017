/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts from files, and sessions in memory. */
#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "migration/tls.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/certificates.h"

static struct authority authority;
static char dir[TLS_DIR_SIZE];
static struct tls_context *contexts[2];
static struct tls_session *sessions[2]; /* by enum tls_side */

static void set_up(void)
{
	authority = authority_new("one");
	make_tls_dir(dir, &authority);
}

static void tear_down(void)
{
	for (int i = 0; i < 2; i++) {
		tls_session_free(sessions[i]);
		tls_context_free(contexts[i]);
		sessions[i] = NULL;
		contexts[i] = NULL;
	}
	remove_tls_dir(dir);
	authority_free(&authority);
}

static void open_sessions(const char *host)
{
	struct error err = ERROR_INIT;

	for (int side = 0; side < 2; side++) {
		contexts[side] =
			tls_context_new(dir, side, side == TLS_SOURCE ? host : NULL, NULL, &err);
		ck_assert_msg(contexts[side] != NULL, "%s", err.message);
		sessions[side] = tls_session_new(contexts[side]);
		ck_assert_ptr_nonnull(sessions[side]);
	}
}

/* As many bytes of one session's output to the other as that asks for; false: none. */
static bool move_some(int from, size_t *at)
{
	struct tls_session *to = sessions[!from];
	size_t len, want;
	const uint8_t *out = tls_session_output(sessions[from], &len);
	void *in = tls_session_input(to, &want);

	want = MIN(want, len - *at);
	if (want)
		memcpy(in, out + *at, want);
	tls_session_received(to, want);
	*at += want;
	if (*at == len) {
		tls_session_sent(sessions[from]);
		*at = 0;
	}
	return want;
}

/* Returns the first result that is no -EAGAIN but 0 of both. */
static int shake_hands(void)
{
	size_t at[2] = { 0, 0 };
	int results[2] = { -EAGAIN, -EAGAIN };

	for (int i = 0; i < 200 && (results[0] || results[1]); i++) {
		int side = i % 2;

		if (results[side])
			results[side] = tls_session_handshake(sessions[side]);
		if (results[side] && results[side] != -EAGAIN)
			return results[side];
		for (size_t len; tls_session_output(sessions[side], &len) && len;)
			if (!move_some(side, &at[side]) || !at[side])
				break;
			else if (results[!side])
				results[!side] = tls_session_handshake(sessions[!side]);
	}
	return results[0] ? results[0] : results[1];
}

START_TEST(what_is_written_is_read)
{
	uint8_t data[TLS_WRITE_MAX], got[TLS_WRITE_MAX];
	size_t lens[] = { 1, 48, 4096, TLS_WRITE_MAX };

	memset(data, 0x5a, sizeof(data));
	open_sessions("127.0.0.1");
	ck_assert_int_eq(shake_hands(), 0);
	for (size_t i = 0; i < ARRAY_SIZE(lens) * 2; i++) {
		int from = (int)(i % 2);
		size_t at = 0, have = 0, len = lens[i / 2];

		ck_assert_int_eq(tls_session_write(sessions[from], data, len), 0);
		while (have < len) {
			ssize_t n = tls_session_read(sessions[!from], got + have, len - have,
						     len - have);

			if (n == -EAGAIN) {
				ck_assert(move_some(from, &at));
				continue;
			}
			ck_assert_int_gt(n, 0);
			have += (size_t)n;
		}
		ck_assert_int_eq(memcmp(data, got, len), 0);
		ck_assert(!tls_session_pending(sessions[!from]));
	}
}
END_TEST

/* The socket is what others poll: nothing may be taken from it that nobody waits for. */
START_TEST(no_byte_of_the_next_record_is_asked_for)
{
	uint8_t data[100] = { 1 }, got[100];
	size_t len, at = 0, begun;

	open_sessions("127.0.0.1");
	ck_assert_int_eq(shake_hands(), 0);
	ck_assert_int_eq(tls_session_write(sessions[0], data, sizeof(data)), 0);
	tls_session_output(sessions[0], &begun);
	ck_assert_int_eq(tls_session_write(sessions[0], data, sizeof(data)), 0);
	tls_session_output(sessions[0], &len);
	ck_assert_uint_eq(len, 2 * begun);
	for (size_t have = 0; have < sizeof(got);) {
		ssize_t n = tls_session_read(sessions[1], got, 1, 1);

		if (n == -EAGAIN)
			ck_assert(move_some(0, &at));
		else
			have++;
	}
	ck_assert_uint_eq(at, begun);
	ck_assert(!tls_session_pending(sessions[1]));
}
END_TEST

START_TEST(keys_change_and_nothing_is_lost)
{
	uint8_t data[10] = { 3 }, got[10];
	size_t plain = 0, wire = 0;

	open_sessions("localhost");
	tls_context_set_rekey(contexts[TLS_SOURCE], 5);
	ck_assert_int_eq(shake_hands(), 0);
	for (uint8_t i = 0; i < 40; i++) {
		size_t at = 0, len, had;
		ssize_t n;

		data[9] = i;
		ck_assert_int_eq(tls_session_write(sessions[0], data, sizeof(data)), 0);
		tls_session_output(sessions[0], &had);
		if (!plain)
			plain = had;
		wire += had;
		while ((n = tls_session_read(sessions[1], got, 10, 10)) == -EAGAIN)
			ck_assert(move_some(0, &at));
		ck_assert_int_eq(n, 10);
		ck_assert_uint_eq(got[9], i);
		tls_session_output(sessions[0], &len);
		ck_assert_uint_eq(len, 0);
	}
	ck_assert_uint_gt(wire, 40 * plain);
}
END_TEST

START_TEST(damaged_record_ends_it)
{
	uint8_t data[10] = { 0 };
	struct error err = ERROR_INIT;
	size_t len;
	void *in;

	open_sessions("127.0.0.1");
	ck_assert_int_eq(shake_hands(), 0);
	ck_assert_int_eq(tls_session_write(sessions[0], data, sizeof(data)), 0);
	((uint8_t *)tls_session_output(sessions[0], &len))[len - 1] ^= 1;
	in = tls_session_input(sessions[1], &(size_t){ 0 });
	memcpy(in, tls_session_output(sessions[0], &len), len);
	tls_session_received(sessions[1], len);
	ck_assert_int_eq(tls_session_read(sessions[1], data, 10, 10), -EKEYREJECTED);
	ck_assert_int_eq(tls_session_error(sessions[1], &err), -EKEYREJECTED);
	ck_assert_ptr_nonnull(strstr(err.message, "TLS with the source"));
	ck_assert_int_eq(tls_session_read(sessions[1], data, 10, 10), -EKEYREJECTED);
	ck_assert_int_eq(tls_session_write(sessions[1], data, 10), -EKEYREJECTED);
}
END_TEST

START_TEST(record_longer_than_there_can_be_ends_it)
{
	static const uint8_t header[] = { 23, 3, 3, 0xff, 0xff };
	uint8_t data[10];
	size_t len;

	open_sessions("127.0.0.1");
	ck_assert_int_eq(shake_hands(), 0);
	ck_assert_int_eq(tls_session_read(sessions[1], data, 10, 10), -EAGAIN);
	memcpy(tls_session_input(sessions[1], &len), header, sizeof(header));
	tls_session_received(sessions[1], sizeof(header));
	ck_assert_int_eq(tls_session_read(sessions[1], data, 10, 10), -EKEYREJECTED);
}
END_TEST

/* Who is refused by which side, for what. */
static const struct {
	const char *what; /* whose certificate */
	struct wish wish;
	bool stranger; /* of another authority */
	const char *host;
	const char *says;
} refused[] = {
	{ "server", { .age = 7200, .life = -3600 }, false, "127.0.0.1", "expired" },
	{ "server", { .age = -3600, .life = 7200 }, false, "127.0.0.1", "not yet valid" },
	{ "server", { .names = "IP:127.0.0.2" }, false, "127.0.0.1", "not for 127.0.0.1" },
	{ "server", { .names = "DNS:elsewhere" }, false, "localhost", "not for localhost" },
	{ "server", { .names = "DNS:127.0.0.1" }, false, "127.0.0.1", "not for 127.0.0.1" },
	{ "server", { .names = "IP:127.0.0.1" }, false, "::1", "not for ::1" },
	{ "server", { .usage = "clientAuth" }, false, "127.0.0.1", "purpose" },
	{ "server", { 0 }, true, "127.0.0.1", "ca-cert.pem" },
	{ "client", { .age = 7200, .life = -3600 }, false, "127.0.0.1", "expired" },
	{ "client", { .usage = "serverAuth" }, false, "127.0.0.1", "purpose" },
	{ "client", { 0 }, true, "127.0.0.1", "ca-cert.pem" },
};

START_TEST(certificates_that_do_not_hold_are_refused)
{
	bool server = !strcmp(refused[_i].what, "server");
	struct authority other = authority_new("another");
	struct error err = ERROR_INIT;

	put_certificate(dir, refused[_i].what, refused[_i].stranger ? &other : &authority,
			&refused[_i].wish);
	open_sessions(refused[_i].host);
	ck_assert_int_eq(shake_hands(), -EKEYREJECTED);
	tls_session_error(sessions[server ? TLS_SOURCE : TLS_DESTINATION], &err);
	ck_assert_msg(strstr(err.message, refused[_i].says), "%s", err.message);
	ck_assert_msg(strstr(err.message, server ? "the destination's" : "the source's"), "%s",
		      err.message);
	authority_free(&other);
}
END_TEST

START_TEST(certificates_by_another_name_or_address_hold)
{
	put_certificate(dir, "server", &authority,
			&(struct wish){ .names = "DNS:some.host,IP:::1,IP:10.0.0.1" });
	open_sessions(((const char *[]){ "some.host", "::1", "10.0.0.1" })[_i]);
	ck_assert_int_eq(shake_hands(), 0);
}
END_TEST

static void spoil(const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (text && !strcmp(text, "a directory")) {
		ck_assert_int_eq(unlink(path), 0);
		ck_assert_int_eq(mkdir(path, 0700), 0);
	} else if (text) {
		put_text(dir, name, text);
	} else {
		ck_assert_int_eq(unlink(path), 0);
	}
}

static const struct {
	enum tls_side side;
	const char *name, *text; /* NULL: it is not there */
	const char *says;
} spoilt[] = {
	{ TLS_SOURCE, "ca-cert.pem", NULL, "No such file" },
	{ TLS_SOURCE, "client-cert.pem", NULL, "No such file" },
	{ TLS_SOURCE, "client-key.pem", NULL, "No such file" },
	{ TLS_DESTINATION, "ca-cert.pem", NULL, "No such file" },
	{ TLS_DESTINATION, "server-cert.pem", NULL, "No such file" },
	{ TLS_DESTINATION, "server-key.pem", NULL, "No such file" },
	{ TLS_SOURCE, "ca-cert.pem", "", "no certificate" },
	{ TLS_SOURCE, "client-cert.pem", "hello", "no certificate" },
	{ TLS_SOURCE, "client-cert.pem",
	  "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "damaged" },
	{ TLS_SOURCE, "client-key.pem", "hello", "no private key" },
	{ TLS_DESTINATION, "server-cert.pem", "a directory", "is no file" },
};

START_TEST(files_that_are_not_there_or_no_good_are_named)
{
	struct error err = ERROR_INIT;

	spoil(spoilt[_i].name, spoilt[_i].text);
	ck_assert_ptr_null(tls_context_new(dir, spoilt[_i].side, "127.0.0.1", NULL, &err));
	ck_assert_int_lt(err.code, 0);
	ck_assert_msg(strstr(err.message, spoilt[_i].name), "%s", err.message);
	ck_assert_msg(strstr(err.message, spoilt[_i].says), "%s", err.message);
	/* Of the other side's files none is needed. */
	if (strcmp(spoilt[_i].name, "ca-cert.pem") != 0) {
		struct tls_context *other =
			tls_context_new(dir, !spoilt[_i].side, NULL, NULL, NULL);

		ck_assert_ptr_nonnull(other);
		tls_context_free(other);
	}
}
END_TEST

START_TEST(key_of_another_certificate_is_refused)
{
	struct error err = ERROR_INIT;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	FILE *file = open_in(dir, "client-key.pem");

	PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
	fclose(file);
	EVP_PKEY_free(key);
	ck_assert_ptr_null(tls_context_new(dir, TLS_SOURCE, "127.0.0.1", NULL, &err));
	ck_assert_msg(strstr(err.message, "is not the key of"), "%s", err.message);
}
END_TEST

/* It would ask on the terminal that the VMM was started from. */
START_TEST(encrypted_key_is_refused_and_nobody_asked)
{
	struct error err = ERROR_INIT;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	FILE *file = open_in(dir, "server-key.pem");

	PEM_write_PrivateKey(file, key, EVP_aes_128_cbc(), (const uint8_t *)"secret", 6, NULL,
			     NULL);
	fclose(file);
	EVP_PKEY_free(key);
	ck_assert_ptr_null(tls_context_new(dir, TLS_DESTINATION, NULL, NULL, &err));
	ck_assert_msg(strstr(err.message, "encrypted"), "%s", err.message);
}
END_TEST

START_TEST(fifo_is_not_waited_for)
{
	struct error err = ERROR_INIT;
	char path[128];

	spoil("client-key.pem", NULL);
	snprintf(path, sizeof(path), "%s/client-key.pem", dir);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_ptr_null(tls_context_new(dir, TLS_SOURCE, "127.0.0.1", NULL, &err));
	ck_assert_msg(strstr(err.message, "is no file"), "%s", err.message);
}
END_TEST

START_TEST(directory_that_is_not_there_is_an_error)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(tls_context_new("/nowhere", TLS_SOURCE, "127.0.0.1", NULL, &err));
	ck_assert_msg(strstr(err.message, "/nowhere/ca-cert.pem"), "%s", err.message);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("tls");
	TCase *t = tcase_create("tls");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, what_is_written_is_read);
	tcase_add_test(t, no_byte_of_the_next_record_is_asked_for);
	tcase_add_test(t, keys_change_and_nothing_is_lost);
	tcase_add_test(t, damaged_record_ends_it);
	tcase_add_test(t, record_longer_than_there_can_be_ends_it);
	tcase_add_loop_test(t, certificates_that_do_not_hold_are_refused, 0, ARRAY_SIZE(refused));
	tcase_add_loop_test(t, certificates_by_another_name_or_address_hold, 0, 3);
	tcase_add_loop_test(t, files_that_are_not_there_or_no_good_are_named, 0,
			    ARRAY_SIZE(spoilt));
	tcase_add_test(t, key_of_another_certificate_is_refused);
	tcase_add_test(t, encrypted_key_is_refused_and_nobody_asked);
	tcase_add_test(t, fifo_is_not_waited_for);
	tcase_add_test(t, directory_that_is_not_there_is_an_error);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
