/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `key=value,key=value` values of options, read by tables. Private to api/.
 *
 * A table names the keys of an option, where each goes in the caller's struct and
 * what it may hold; option_parse_keys() does the rest. Commas inside [lists] and
 * "quotes" do not separate; quotes are removed, and "" inside them is a quote. An
 * empty value (`mac=`) leaves the default. Errors are ERROR_BAD_REQUEST and name the
 * option, the key, the value and what is allowed.
 */
#ifndef API_OPTIONS_KEYS_H
#define API_OPTIONS_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define OPTION_TEXT_MAX 16384 /* bytes of one option's value */
#define OPTION_KEYS_MAX 64
#define OPTION_LIST_MAX 64 /* elements of a [list] */

enum option_key_type {
	KEY_STRING, /* char *: malloc'd, at most max bytes */
	KEY_BOOL,   /* bool */
	KEY_UINT,   /* unsigned int, min to max */
	KEY_POWER,  /* unsigned int, a power of two, min to max */
	KEY_U64,    /* uint64_t, min to max */
	KEY_SIZE,   /* uint64_t with an optional suffix, min to max */
	KEY_WORD,   /* bool: the key alone, without "=" */
	KEY_PARSE,  /* by parse() */
	KEY_LIST,   /* by parse(), which gets the brackets and quotes too */
};

struct option_key {
	const char *name;
	enum option_key_type type;
	size_t offset; /* of the field in the target */
	uint64_t min, max;
	const char *allowed; /* for people; NULL: said by the type */
	/* 0, -EINVAL or -ENOMEM. The text is not empty. */
	int (*parse)(void *target, const char *text);
};

struct option_syntax {
	const char *option; /* "--disk" */
	const struct option_key *keys;
	size_t key_count;
	/* The key that a first element without "=", or a first element that begins
	 * as a path does, stands for; NULL: none. */
	const char *bare;
};

/* Bit n of *seen (may be NULL): key n was given a value. */
int option_parse_keys(const struct option_syntax *syntax, const char *text, void *target,
		      uint64_t *seen, struct error *err);
bool option_key_seen(const struct option_syntax *syntax, uint64_t seen, const char *name);

/*
 * Splits at top-level commas: each element is malloc'd, quotes kept. -EINVAL: a
 * bracket or a quote is left open; -E2BIG: more than max elements.
 */
int option_split(const char *text, char **elements, unsigned int max, unsigned int *count);
/* "[a,b]" or "a" into elements without brackets and quotes. */
int option_list(const char *text, char **elements, unsigned int max, unsigned int *count);
void option_elements_free(char **elements, unsigned int count);

/* The candidate nearest to a mistyped word, if one is near enough to be meant. */
struct suggestion {
	const char *word;
	const char *best; /* NULL: none so far */
	unsigned int distance;
};
#define SUGGESTION_INIT(w) \
	{ \
		.word = (w) \
	}
void suggestion_consider(struct suggestion *suggestion, const char *candidate);
/* " (did you mean X?)" in buf, or "". Returns buf. */
const char *suggestion_text(const struct suggestion *suggestion, char *buf, size_t len);

/* error_set_kind(ERROR_BAD_REQUEST, EINVAL) */
#define option_error(err, ...) error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, __VA_ARGS__)

#endif
