/* SPDX-License-Identifier: Apache-2.0 */
/* ferry's command line as one text, for the tests of its options. */
#ifndef TESTS_UNIT_API_OPTIONS_WORDS_H
#define TESTS_UNIT_API_OPTIONS_WORDS_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "api/options.h"

#define WORDS_MAX 24

/* Parses "ferry" and the words, which are separated by '|'. */
static inline int parse(struct ferry_options *o, const char *words, struct error *err)
{
	char *copy = strdup(words), *save, *argv[WORDS_MAX + 2] = { (char *)"ferry" };
	int argc = 1, r;

	for (char *w = strtok_r(copy, "|", &save); w && argc < WORDS_MAX;
	     w = strtok_r(NULL, "|", &save))
		argv[argc++] = w;
	r = ferry_options_parse(o, argc, argv, err);
	free(copy);
	return r;
}

static inline struct ferry_options good(const char *words)
{
	struct error err = ERROR_INIT;
	struct ferry_options o;

	ck_assert_msg(parse(&o, words, &err) == 0, "%s: %s", words, err.message);
	return o;
}

static inline void bad(const char *words, const char *const *expect)
{
	struct error err = ERROR_INIT;
	struct ferry_options o;
	int r = parse(&o, words, &err);

	if (!r)
		ferry_options_destroy(&o);
	ck_assert_msg(r < 0, "accepted: %s", words);
	ck_assert_int_eq(err.kind, ERROR_BAD_REQUEST);
	for (; *expect; expect++)
		ck_assert_msg(strstr(err.message, *expect), "%s: \"%s\" lacks \"%s\"", words,
			      err.message, *expect);
}
#define bad(words, ...) bad(words, (const char *const[]){ __VA_ARGS__, NULL })

#endif
