/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON objects as tables of fields: one table reads and writes a struct.
 *
 * Reading is strict and names what is wrong by its path ("disks[1].path"): unknown
 * field, wrong type, number out of range, string with a NUL, missing field. A
 * JSON_FIELD_OFF field exists in Cloud Hypervisor's API but not in Ferry: it is
 * refused unless its value means "off".
 *
 * On failure the struct is left half filled but destroyable: pointers are owned
 * and counts are right at every moment. Private to api/.
 */
#ifndef API_JSON_FIELDS_H
#define API_JSON_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"

/* Where in the document we are: a chain of names up to the root. */
struct json_where {
	const struct json_where *up;
	const char *name; /* NULL or "": nothing to say */
	int index;	  /* in an array; -1: none */
};

enum json_field_kind {
	JSON_FIELD_BOOL,    /* bool */
	JSON_FIELD_U16,	    /* uint16_t */
	JSON_FIELD_UINT,    /* unsigned int */
	JSON_FIELD_U64,	    /* uint64_t */
	JSON_FIELD_STRING,  /* char *, owned */
	JSON_FIELD_ENUM,    /* an enum whose values count from 0; names */
	JSON_FIELD_OBJECT,  /* a struct in place */
	JSON_FIELD_POINTER, /* a struct of its own, owned */
	JSON_FIELD_ARRAY,   /* structs, owned, and their count */
	JSON_FIELD_STRINGS, /* char *, owned, and their count */
	JSON_FIELD_CUSTOM,  /* read() and write() */
	JSON_FIELD_OFF,	    /* not offered */
};

enum {
	JSON_FIELD_REQUIRED = 1, /* must be there */
	JSON_FIELD_NULLABLE = 2, /* null is as good as absent (always so for what is owned) */
	JSON_FIELD_ALIAS = 4,	 /* another name of a field: read, never written */
	JSON_FIELD_UNSET_0 = 8,	 /* a number that is not written where it is 0 */
};

#define JSON_ARRAY_MAX 255

struct json_object;

struct json_field {
	const char *name;
	enum json_field_kind kind;
	unsigned int flags;
	size_t offset, count_offset;
	uint64_t min, max; /* numbers; max 0: what the type holds */
	const struct json_object *object;
	const char *const *names; /* JSON_FIELD_ENUM, NULL at the end */
	const char *off;	  /* JSON_FIELD_OFF: other values that mean "off": "46|0" */
	int (*read)(void *target, const json_t *json, const struct json_where *where,
		    struct error *err);
	json_t *(*write)(const void *target);
	bool (*unset)(const void *target); /* JSON_FIELD_CUSTOM: not to be written; may be NULL */
};

struct json_object {
	const struct json_field *fields; /* up to one without a name */
	size_t size;
	void (*init)(void *target);
	bool (*absent)(const void *target); /* nothing to write */
};

int json_object_read(const struct json_object *object, void *target, const json_t *json,
		     const struct json_where *where, struct error *err);
/* A new reference; NULL out of memory. */
json_t *json_object_write(const struct json_object *object, const void *target);

/* ERROR_BAD_REQUEST "<path>: <text>". */
int json_bad(struct error *err, const struct json_where *where, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
const char *json_type_name(const json_t *json);
/* A JSON string of any bytes: what is no UTF-8 becomes '?'. */
json_t *json_text(const char *text);

#endif
