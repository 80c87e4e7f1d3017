/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int set(struct error *err, enum error_kind kind, int code, const char *format, va_list args)
{
	code = -abs(code);
	if (err) {
		err->code = code;
		err->kind = kind;
		vsnprintf(err->message, sizeof(err->message), format, args);
	}
	return code;
}

int error_set(struct error *err, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	code = set(err, ERROR_FAILED, code, format, args);
	va_end(args);
	return code;
}

int error_set_errno(struct error *err, int code, const char *format, ...)
{
	va_list args;
	size_t used;

	va_start(args, format);
	code = set(err, ERROR_FAILED, code, format, args);
	va_end(args);
	if (err) {
		char text[128];

		used = strlen(err->message);
		snprintf(err->message + used, sizeof(err->message) - used, ": %s",
			 strerror_r(-code, text, sizeof(text)));
	}
	return code;
}

int error_set_kind(struct error *err, enum error_kind kind, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	code = set(err, kind, code, format, args);
	va_end(args);
	return code;
}

int error_prefix(struct error *err, const char *format, ...)
{
	char cause[ERROR_MESSAGE_MAX];
	va_list args;
	size_t used;

	if (!err)
		return -EIO;
	memcpy(cause, err->message, sizeof(cause));
	va_start(args, format);
	vsnprintf(err->message, sizeof(err->message), format, args);
	va_end(args);
	used = strlen(err->message);
	snprintf(err->message + used, sizeof(err->message) - used, ": %s", cause);
	return err->code;
}
