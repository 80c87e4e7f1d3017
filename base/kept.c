/* SPDX-License-Identifier: Apache-2.0 */
#include "base/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

void kept_destroy(struct kept *kept)
{
	for (unsigned int i = 0; i < kept->count; i++) {
		if (kept->entries[i].fd >= 0)
			close(kept->entries[i].fd);
		free(kept->entries[i].data);
	}
	free(kept->entries);
	free(kept->slots);
	*kept = (struct kept){ .count = 0 };
}

/* FNV-1a. */
static uint32_t hash(const char *name)
{
	uint32_t h = 2166136261U;

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 16777619U;
	return h;
}

/* Where a name is, or would be put: at most half of the slots are taken. */
static uint32_t *slot_of(const struct kept *kept, const char *name)
{
	uint32_t mask = 2 * kept->room - 1, at = hash(name) & mask;

	while (kept->slots[at] && strcmp(kept->entries[kept->slots[at] - 1].name, name))
		at = (at + 1) & mask;
	return &kept->slots[at];
}

static struct kept_entry *find(const struct kept *kept, const char *name)
{
	uint32_t slot = kept && kept->count ? *slot_of(kept, name) : 0;

	return slot ? &kept->entries[slot - 1] : NULL;
}

static int make_room(struct kept *kept)
{
	unsigned int room = kept->room ? 2 * kept->room : 32;
	struct kept_entry *entries;
	uint32_t *slots;

	if (kept->entries && kept->count < kept->room)
		return 0;
	if (kept->count >= KEPT_ENTRIES_MAX)
		return -E2BIG;
	entries = reallocarray(kept->entries, room, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	kept->entries = entries;
	slots = calloc(2 * (size_t)room, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(kept->slots);
	kept->slots = slots;
	kept->room = room;
	for (unsigned int i = 0; i < kept->count; i++)
		*slot_of(kept, entries[i].name) = i + 1;
	return 0;
}

int kept_put(struct kept *kept, const char *name, int fd, const void *data, size_t len,
	     struct error *err)
{
	struct kept_entry *entry;
	int r;

	if (!*name || strlen(name) >= KEPT_NAME_MAX || len > KEPT_DATA_MAX)
		return error_set(err, EINVAL,
				 "keep %.130s: the name, or its %zu bytes, are too long", name,
				 len);
	if (find(kept, name))
		return error_set(err, EEXIST, "keep %s: it is there already", name);
	r = make_room(kept);
	if (r)
		return error_set_errno(err, r, "keep %s", name);
	entry = &kept->entries[kept->count];
	*entry = (struct kept_entry){ .fd = fd, .len = len };
	if (len) {
		entry->data = malloc(len);
		if (!entry->data)
			return error_set_errno(err, ENOMEM, "keep %s", name);
		memcpy(entry->data, data, len);
	}
	snprintf(entry->name, sizeof(entry->name), "%s", name);
	kept->count++;
	*slot_of(kept, name) = kept->count;
	return 0;
}

/* A name that does not fit is none that anybody has. */
static bool format_name(char name[KEPT_NAME_MAX + 1], const char *format, va_list args)
{
	return vsnprintf(name, KEPT_NAME_MAX + 1, format, args) < (int)KEPT_NAME_MAX;
}

int kept_add(struct kept *kept, int fd, const void *data, size_t len, struct error *err,
	     const char *format, ...)
{
	char name[KEPT_NAME_MAX + 1];
	_cleanup_close_ int copy = -1;
	va_list args;
	int r;

	va_start(args, format);
	format_name(name, format, args);
	va_end(args);
	if (fd >= 0) {
		copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (copy < 0)
			return error_set_errno(err, errno, "keep %s", name);
	}
	r = kept_put(kept, name, copy, data, len, err);
	if (!r)
		take_fd(&copy);
	return r;
}

#define FIND(kept, format) \
	({ \
		char name[KEPT_NAME_MAX + 1]; \
		va_list args; \
		bool fits; \
\
		va_start(args, format); \
		fits = format_name(name, format, args); \
		va_end(args); \
		fits ? find(kept, name) : NULL; \
	})

int kept_take(struct kept *kept, const char *format, ...)
{
	struct kept_entry *entry = FIND(kept, format);

	return entry ? take_fd(&entry->fd) : -1;
}

const void *kept_facts(const struct kept *kept, size_t len, const char *format, ...)
{
	const struct kept_entry *entry = FIND(kept, format);

	return entry && entry->len == len ? entry->data : NULL;
}

const void *kept_bytes(const struct kept *kept, size_t *len, const char *format, ...)
{
	const struct kept_entry *entry = FIND(kept, format);

	*len = entry ? entry->len : 0;
	return entry ? entry->data : NULL;
}

bool kept_has(const struct kept *kept, const char *format, ...)
{
	return FIND(kept, format) != NULL;
}
