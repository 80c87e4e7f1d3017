/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors for people.
 *
 * A function that can fail returns 0 or a negative errno and fills a
 * caller-owned `struct error` once, where the cause is known, with "operation,
 * object: cause" and, where there is one, the remedy. Callers that know more
 * add it in front with error_prefix(); whoever handles the error logs it, once.
 *
 * Every function here accepts err == NULL and then only returns the code. No
 * allocation; any thread, each error belongs to one thread at a time.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdarg.h>

/* What the caller did wrong, if it did: the API turns it into a status code. */
enum error_kind {
	ERROR_FAILED = 0,  /* it could not be done              (500) */
	ERROR_BAD_REQUEST, /* the request itself is wrong        (400) */
	ERROR_NOT_FOUND,   /* no VM, or no object of that name   (404) */
	ERROR_WRONG_STATE, /* not in the state the VM is in      (405) */
	ERROR_CONFLICT,	   /* an object of that name exists      (409) */
};

#define ERROR_MESSAGE_MAX 512

struct error {
	int code; /* negative errno, 0: no error */
	enum error_kind kind;
	char message[ERROR_MESSAGE_MAX];
};

#define ERROR_INIT \
	{ \
		.code = 0 \
	}

/* Fills err; `code` is a positive or negative errno. Returns -|code|. The
 * message does not end in the errno's text: see error_set_errno. */
int error_set(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* As error_set, and appends ": " and the text of the errno. */
int error_set_errno(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* As error_set, with a kind. */
int error_set_kind(struct error *err, enum error_kind kind, int code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Puts text in front of the message; keeps code and kind. Returns err's code
 * (or -EIO where err is NULL). */
int error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline void error_clear(struct error *err)
{
	if (err) {
		err->code = 0;
		err->kind = ERROR_FAILED;
		err->message[0] = '\0';
	}
}

#endif
