/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing byte string with an upper bound. Appending past the bound, or out
 * of memory, sets `failed` and drops the text; check it once at the end.
 * Always NUL-terminated where data is not NULL. One thread at a time.
 */
#ifndef BASE_STRBUF_H
#define BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

struct strbuf {
	char *data; /* owned, malloc'd */
	size_t len, cap;
	size_t max; /* 0: no bound */
	bool failed;
};

#define STRBUF_INIT \
	{ \
		.data = NULL \
	}

void strbuf_append(struct strbuf *s, const void *data, size_t len);
void strbuf_puts(struct strbuf *s, const char *text);
void strbuf_printf(struct strbuf *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Removes the first n bytes. */
void strbuf_consume(struct strbuf *s, size_t n);
void strbuf_free(struct strbuf *s);

#define _cleanup_strbuf_ __attribute__((cleanup(strbuf_free)))

#endif
