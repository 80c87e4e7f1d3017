/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What outlives a VMM: open descriptors and a few bytes of facts, by name. The one that
 * goes fills it, the one that comes takes out of it, instead of opening, what it finds
 * (docs/live-update.md). Names are paths: "_disk0/lock", "api/listener".
 *
 * Facts are what the descriptors cannot say of themselves and is needed before the state
 * tree comes. Who takes checks them: the other side is a process of its own.
 *
 * One thread at a time. Descriptors in it are its own: added ones are copies, taken ones
 * the caller's; all are close-on-exec.
 */
#ifndef BASE_KEPT_H
#define BASE_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define KEPT_NAME_MAX 120u /* bytes, with the NUL */
#define KEPT_DATA_MAX 8192u
#define KEPT_ENTRIES_MAX 16384u

struct kept_entry {
	char name[KEPT_NAME_MAX];
	int fd; /* -1: none, or taken */
	size_t len;
	uint8_t *data; /* NULL: none, or taken */
};

/* All zero: empty. */
struct kept {
	unsigned int count, room;
	struct kept_entry *entries;
	/* By name: 2 * room, a power of two; an entry's place in entries + 1, or 0. There may be
	 * thousands, which go over while a guest stands still. */
	uint32_t *slots;
};

void kept_destroy(struct kept *kept); /* closes what was not taken; empty again */

/* A copy of fd (-1: none) and of data, under that name, which nothing has yet. -EMFILE,
 * -E2BIG, -EEXIST, -EINVAL a name or data too long. */
int kept_add(struct kept *kept, int fd, const void *data, size_t len, struct error *err,
	     const char *format, ...) __attribute__((format(printf, 6, 7)));
/* The same, of fd itself, which is taken over on success. */
int kept_put(struct kept *kept, const char *name, int fd, const void *data, size_t len,
	     struct error *err);

/* The descriptor of that name, the caller's from now on; -1: there is none. kept may be
 * NULL: there is nothing. */
int kept_take(struct kept *kept, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Its facts, valid as long as it is: NULL, or exactly len bytes. */
const void *kept_facts(const struct kept *kept, size_t len, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Facts of any length. */
const void *kept_bytes(const struct kept *kept, size_t *len, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
bool kept_has(const struct kept *kept, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
