/* SPDX-License-Identifier: Apache-2.0 */
#include "base/strbuf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(struct strbuf *s, size_t more)
{
	size_t need, cap;
	char *data;

	if (s->failed || more > SIZE_MAX / 4 - s->len || (s->max && s->len + more > s->max)) {
		s->failed = true;
		return false;
	}
	need = s->len + more + 1;
	if (need <= s->cap)
		return true;
	cap = s->cap ? s->cap * 2 : 64;
	while (cap < need)
		cap *= 2;
	data = realloc(s->data, cap);
	if (!data) {
		s->failed = true;
		return false;
	}
	s->data = data;
	s->cap = cap;
	return true;
}

void strbuf_append(struct strbuf *s, const void *data, size_t len)
{
	if (!reserve(s, len))
		return;
	if (len)
		memcpy(s->data + s->len, data, len);
	s->len += len;
	s->data[s->len] = '\0';
}

void strbuf_puts(struct strbuf *s, const char *text)
{
	strbuf_append(s, text, strlen(text));
}

void strbuf_printf(struct strbuf *s, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n < 0 || !reserve(s, (size_t)n))
		return;
	va_start(args, format);
	vsnprintf(s->data + s->len, (size_t)n + 1, format, args);
	va_end(args);
	s->len += (size_t)n;
}

void strbuf_consume(struct strbuf *s, size_t n)
{
	if (n > s->len)
		n = s->len;
	if (!n)
		return;
	memmove(s->data, s->data + n, s->len - n + 1);
	s->len -= n;
}

void strbuf_free(struct strbuf *s)
{
	free(s->data);
	*s = (struct strbuf)STRBUF_INIT;
}
