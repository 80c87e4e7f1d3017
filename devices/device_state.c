/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/device_state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PATH_SHOWN (ERROR_MESSAGE_MAX / 2)

int state_refuse(const struct state_node *node, const char *name, struct error *err,
		 const char *what, ...)
{
	char path[PATH_SHOWN], text[160];
	va_list args;

	va_start(args, what);
	vsnprintf(text, sizeof(text), what, args);
	va_end(args);
	state_path(node, path, sizeof(path));
	return error_set(err, EINVAL, "%s: property %s %s", path, name, text);
}

static uint64_t member_load(const void *object, const struct state_field *field)
{
	const uint8_t *at = (const uint8_t *)object + field->offset;

	switch (field->size) {
	case 1: return *at;
	case 2: return *(const uint16_t *)at;
	case 4: return *(const uint32_t *)at;
	default: return *(const uint64_t *)at;
	}
}

static void member_store(void *object, const struct state_field *field, uint64_t value)
{
	uint8_t *at = (uint8_t *)object + field->offset;

	switch (field->size) {
	case 1: *at = (uint8_t)value; break;
	case 2: *(uint16_t *)at = (uint16_t)value; break;
	case 4: *(uint32_t *)at = (uint32_t)value; break;
	default: *(uint64_t *)at = value; break;
	}
}

void state_fields_save(struct state_writer *writer, const struct state_field *fields, size_t count,
		       const void *object)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t value = member_load(object, &fields[i]);

		if (fields[i].size == 8)
			state_put_u64(writer, fields[i].name, value);
		else
			state_put_u32(writer, fields[i].name, (uint32_t)value);
	}
}

static int field_load(const struct state_node *node, const struct state_field *field, void *object,
		      struct error *err)
{
	uint32_t narrow = 0;
	uint64_t value;
	int r;

	if (field->size == 8) {
		r = state_get_u64(node, field->name, &value, err);
	} else {
		r = state_get_u32(node, field->name, &narrow, err);
		value = narrow;
	}
	/* Again, for the message that names the bounds. */
	if (!r && value > field->max)
		r = state_get_range(node, field->name, 0, field->max, &value, err);
	if (!r)
		member_store(object, field, value);
	return r;
}

int state_fields_load(const struct state_node *node, const struct state_field *fields, size_t count,
		      void *object, struct error *err)
{
	int r = 0;

	for (size_t i = 0; !r && i < count; i++)
		r = field_load(node, &fields[i], object, err);
	return r;
}

int state_get_u32_max(const struct state_node *node, const char *name, uint32_t max,
		      uint32_t *value, struct error *err)
{
	const struct state_field field = { .name = name, .size = 4, .max = max };

	return field_load(node, &field, value, err);
}

int state_match_u32(const struct state_node *node, const char *name, uint32_t here,
		    struct error *err)
{
	uint32_t saved;
	int r = state_get_u32(node, name, &saved, err);

	if (!r && saved != here)
		r = state_refuse(node, name, err, "is %" PRIu32 ", here %" PRIu32, saved, here);
	return r;
}

int state_match_u64(const struct state_node *node, const char *name, uint64_t here,
		    struct error *err)
{
	uint64_t saved;
	int r = state_get_u64(node, name, &saved, err);

	if (!r && saved != here)
		r = state_refuse(node, name, err, "is %" PRIu64 ", here %" PRIu64, saved, here);
	return r;
}

int state_expect_child(const struct state_node *parent, const char *name, const char *kind,
		       uint32_t newest, struct state_node *child, struct error *err)
{
	int r = state_child(parent, name, child, err);

	return r ? r : state_expect(child, kind, newest, NULL, NULL, err);
}
