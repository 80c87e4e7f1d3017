/* SPDX-License-Identifier: Apache-2.0 */
#include "api/json_fields.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/strbuf.h"

#define PATH_MAX_LEN 160 /* of a field's name in a message */

static void put_where(struct strbuf *s, const struct json_where *where)
{
	if (!where)
		return;
	put_where(s, where->up);
	if (where->name && *where->name)
		strbuf_printf(s, "%s%.64s", s->len ? "." : "", where->name);
	if (where->index >= 0)
		strbuf_printf(s, "[%d]", where->index);
}

int json_bad(struct error *err, const struct json_where *where, const char *format, ...)
{
	_cleanup_strbuf_ struct strbuf path = { .max = 4 * KIB };
	char text[ERROR_MESSAGE_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	put_where(&path, where);
	for (size_t i = 0; i < path.len; i++) /* names of unknown fields are the client's */
		if ((unsigned char)path.data[i] < 0x20 || path.data[i] == 0x7f)
			path.data[i] = '?';
	if (!path.len)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "the body %s", text);
	return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "%.*s: %s", PATH_MAX_LEN, path.data,
			      text);
}

const char *json_type_name(const json_t *json)
{
	switch (json_typeof(json)) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "an array";
	case JSON_STRING: return "a string";
	case JSON_INTEGER: return "an integer";
	case JSON_REAL: return "a number with a fraction";
	case JSON_TRUE:
	case JSON_FALSE: return "a boolean";
	default: return "null";
	}
}

json_t *json_text(const char *text)
{
	json_t *json = json_string(text);
	char *copy;

	if (json)
		return json;
	copy = strdup(text);
	if (!copy)
		return NULL;
	for (char *p = copy; *p; p++)
		if (*p & 0x80)
			*p = '?';
	json = json_string(copy);
	free(copy);
	return json;
}

/* --- reading ------------------------------------------------------------------ */

static int read_string(char **target, const json_t *json, const struct json_where *where,
		       struct error *err)
{
	if (!json_is_string(json))
		return json_bad(err, where, "must be a string, not %s", json_type_name(json));
	if (strlen(json_string_value(json)) != json_string_length(json))
		return json_bad(err, where, "has a NUL character");
	if (*target)
		return json_bad(err, where, "is there under two names");
	*target = strdup(json_string_value(json));
	return *target ? 0 : error_set_errno(err, ENOMEM, "read configuration");
}

static int read_number(const struct json_field *field, void *target, const json_t *json,
		       const struct json_where *where, struct error *err)
{
	uint64_t max = field->max, v;

	if (!json_is_integer(json))
		return json_bad(err, where, "must be an integer, not %s", json_type_name(json));
	if (!max)
		max = field->kind == JSON_FIELD_U16    ? UINT16_MAX
		      : field->kind == JSON_FIELD_UINT ? UINT32_MAX
						       : INT64_MAX;
	v = (uint64_t)json_integer_value(json);
	if (json_integer_value(json) < 0 || v < field->min || v > max)
		return json_bad(err, where, "%lld is not in %llu to %llu",
				(long long)json_integer_value(json), (unsigned long long)field->min,
				(unsigned long long)max);
	if (field->kind == JSON_FIELD_U16)
		*(uint16_t *)target = (uint16_t)v;
	else if (field->kind == JSON_FIELD_UINT)
		*(unsigned int *)target = (unsigned int)v;
	else
		*(uint64_t *)target = v;
	return 0;
}

static int read_enum(const struct json_field *field, void *target, const json_t *json,
		     const struct json_where *where, struct error *err)
{
	_cleanup_strbuf_ struct strbuf known = { .max = 256 };

	if (!json_is_string(json))
		return json_bad(err, where, "must be a string, not %s", json_type_name(json));
	for (int i = 0; field->names[i]; i++) {
		if (!strcmp(field->names[i], json_string_value(json))) {
			memcpy(target, &i, sizeof(i));
			return 0;
		}
		strbuf_printf(&known, "%s%s", i ? ", " : "", field->names[i]);
	}
	return json_bad(err, where, "\"%.64s\" is none of %s", json_string_value(json),
			known.data ? known.data : "");
}

static int read_pointer(const struct json_field *field, void **target, const json_t *json,
			const struct json_where *where, struct error *err)
{
	*target = calloc(1, field->object->size);
	if (!*target)
		return error_set_errno(err, ENOMEM, "read configuration");
	if (field->object->init)
		field->object->init(*target);
	return json_object_read(field->object, *target, json, where, err);
}

static int read_array(const struct json_field *field, void *base, const json_t *json,
		      const struct json_where *where, struct error *err)
{
	bool strings = field->kind == JSON_FIELD_STRINGS;
	size_t size = strings ? sizeof(char *) : field->object->size, n;
	char *elements;

	if (!json_is_array(json))
		return json_bad(err, where, "must be an array, not %s", json_type_name(json));
	n = json_array_size(json);
	if (n > JSON_ARRAY_MAX)
		return json_bad(err, where, "has %zu elements, at most %d are allowed", n,
				JSON_ARRAY_MAX);
	if (!n)
		return 0;
	elements = calloc(n, size);
	if (!elements)
		return error_set_errno(err, ENOMEM, "read configuration");
	*(char **)((char *)base + field->offset) = elements;
	*(unsigned int *)((char *)base + field->count_offset) = (unsigned int)n;
	for (size_t i = 0; i < n; i++) {
		struct json_where at = { where->up, where->name, (int)i };
		void *element = elements + i * size;
		const json_t *value = json_array_get(json, i);
		int r;

		if (!strings && field->object->init)
			field->object->init(element);
		r = strings ? read_string(element, value, &at, err)
			    : json_object_read(field->object, element, value, &at, err);
		if (r)
			return r;
	}
	return 0;
}

static bool is_one_of(const char *text, size_t len, const char *alternatives)
{
	while (alternatives) {
		size_t n = strcspn(alternatives, "|");

		if (n == len && !memcmp(text, alternatives, n))
			return true;
		alternatives = alternatives[n] ? alternatives + n + 1 : NULL;
	}
	return false;
}

static bool means_off(const json_t *json, const char *off, unsigned int depth)
{
	char number[24];
	const char *key;
	json_t *value;

	switch (json_typeof(json)) {
	case JSON_NULL:
	case JSON_FALSE: return true;
	case JSON_TRUE: return is_one_of("true", 4, off);
	case JSON_ARRAY: return !json_array_size(json);
	case JSON_STRING: return is_one_of(json_string_value(json), json_string_length(json), off);
	case JSON_INTEGER:
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(json));
		return !json_integer_value(json) || is_one_of(number, strlen(number), off);
	case JSON_OBJECT:
		if (!depth)
			return false;
		json_object_foreach((json_t *)json, key, value)
		{
			if (!means_off(value, NULL, depth - 1))
				return false;
		}
		return true;
	default: return false;
	}
}

static bool nullable(const struct json_field *field)
{
	return field->flags & JSON_FIELD_NULLABLE || field->kind == JSON_FIELD_STRING ||
	       field->kind == JSON_FIELD_POINTER || field->kind == JSON_FIELD_ARRAY ||
	       field->kind == JSON_FIELD_STRINGS;
}

static int read_field(const struct json_field *field, void *base, const json_t *json,
		      const struct json_where *where, struct error *err)
{
	void *target = (char *)base + field->offset;

	if (json_is_null(json) && nullable(field) && !(field->flags & JSON_FIELD_REQUIRED))
		return 0;
	switch (field->kind) {
	case JSON_FIELD_BOOL:
		if (!json_is_boolean(json))
			return json_bad(err, where, "must be a boolean, not %s",
					json_type_name(json));
		*(bool *)target = json_is_true(json);
		return 0;
	case JSON_FIELD_U16:
	case JSON_FIELD_UINT:
	case JSON_FIELD_U64: return read_number(field, target, json, where, err);
	case JSON_FIELD_STRING: return read_string(target, json, where, err);
	case JSON_FIELD_ENUM: return read_enum(field, target, json, where, err);
	case JSON_FIELD_OBJECT: return json_object_read(field->object, target, json, where, err);
	case JSON_FIELD_POINTER: return read_pointer(field, target, json, where, err);
	case JSON_FIELD_ARRAY:
	case JSON_FIELD_STRINGS: return read_array(field, base, json, where, err);
	case JSON_FIELD_CUSTOM: return field->read(target, json, where, err);
	case JSON_FIELD_OFF:
		if (means_off(json, field->off, 4))
			return 0;
		return json_bad(err, where, "not offered");
	}
	return 0;
}

static const struct json_field *find_field(const struct json_object *object, const char *name)
{
	for (const struct json_field *f = object->fields; f->name; f++)
		if (!strcmp(f->name, name))
			return f;
	return NULL;
}

int json_object_read(const struct json_object *object, void *target, const json_t *json,
		     const struct json_where *where, struct error *err)
{
	const char *key;
	json_t *value;

	if (!json_is_object(json))
		return json_bad(err, where, "must be an object, not %s", json_type_name(json));
	json_object_foreach((json_t *)json, key, value)
	{
		struct json_where at = { where, key, -1 };
		const struct json_field *field = find_field(object, key);
		int r;

		if (!field)
			return json_bad(err, &at, "unknown field");
		r = read_field(field, target, value, &at, err);
		if (r)
			return r;
	}
	for (const struct json_field *f = object->fields; f->name; f++)
		if (f->flags & JSON_FIELD_REQUIRED && !json_object_get(json, f->name)) {
			struct json_where at = { where, f->name, -1 };

			return json_bad(err, &at, "is missing");
		}
	return 0;
}

/* --- writing ------------------------------------------------------------------ */

static json_t *write_number(const struct json_field *field, const void *target)
{
	uint64_t v = field->kind == JSON_FIELD_U16    ? *(const uint16_t *)target
		     : field->kind == JSON_FIELD_UINT ? *(const unsigned int *)target
						      : *(const uint64_t *)target;

	return json_integer((json_int_t)MIN(v, (uint64_t)INT64_MAX));
}

static json_t *write_array(const struct json_field *field, const void *base)
{
	const char *elements = *(char *const *)((const char *)base + field->offset);
	unsigned int n = *(const unsigned int *)((const char *)base + field->count_offset);
	json_t *array = json_array();

	for (unsigned int i = 0; array && i < n; i++) {
		json_t *value = field->kind == JSON_FIELD_STRINGS
					? json_text(((char *const *)(const void *)elements)[i])
					: json_object_write(field->object,
							    elements + i * field->object->size);

		/* json_array_append_new() takes NULL as a failure. */
		if (json_array_append_new(array, value)) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

/* Whether the field is at the value that leaving it out means. */
static bool is_unset(const struct json_field *field, const void *base)
{
	const void *target = (const char *)base + field->offset;

	if (field->flags & JSON_FIELD_ALIAS)
		return true;
	switch (field->kind) {
	case JSON_FIELD_STRING:
	case JSON_FIELD_POINTER: return !*(void *const *)target;
	case JSON_FIELD_ARRAY:
	case JSON_FIELD_STRINGS:
		return !*(const unsigned int *)((const char *)base + field->count_offset);
	case JSON_FIELD_OBJECT: return field->object->absent && field->object->absent(target);
	case JSON_FIELD_UINT:
		return field->flags & JSON_FIELD_UNSET_0 && !*(const unsigned int *)target;
	case JSON_FIELD_U64: return field->flags & JSON_FIELD_UNSET_0 && !*(const uint64_t *)target;
	case JSON_FIELD_CUSTOM: return field->unset && field->unset(target);
	case JSON_FIELD_OFF: return true;
	default: return false;
	}
}

static json_t *write_field(const struct json_field *field, const void *base)
{
	const void *target = (const char *)base + field->offset;
	int value;

	switch (field->kind) {
	case JSON_FIELD_BOOL: return json_boolean(*(const bool *)target);
	case JSON_FIELD_STRING: return json_text(*(char *const *)target);
	case JSON_FIELD_ENUM:
		memcpy(&value, target, sizeof(value));
		return json_string(field->names[value]);
	case JSON_FIELD_OBJECT: return json_object_write(field->object, target);
	case JSON_FIELD_POINTER: return json_object_write(field->object, *(void *const *)target);
	case JSON_FIELD_ARRAY:
	case JSON_FIELD_STRINGS: return write_array(field, base);
	case JSON_FIELD_CUSTOM: return field->write(target);
	default: return write_number(field, target);
	}
}

json_t *json_object_write(const struct json_object *object, const void *target)
{
	json_t *json = json_object();

	for (const struct json_field *f = object->fields; json && f->name; f++) {
		if (is_unset(f, target))
			continue;
		/* A NULL value makes json_object_set_new() fail. */
		if (json_object_set_new(json, f->name, write_field(f, target))) {
			json_decref(json);
			return NULL;
		}
	}
	return json;
}
