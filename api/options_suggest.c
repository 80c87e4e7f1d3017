/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "api/options_keys.h"
#include "base/bytes.h"

#define WORD_MAX 40

/*
 * Edits (insert, delete, replace, swap neighbours) from a to b. Both are at most
 * WORD_MAX long, which bounds the work and the table.
 */
static unsigned int edit_distance(const char *a, size_t alen, const char *b, size_t blen)
{
	unsigned int d[WORD_MAX + 1][WORD_MAX + 1];

	for (size_t i = 0; i <= alen; i++)
		d[i][0] = (unsigned int)i;
	for (size_t j = 0; j <= blen; j++)
		d[0][j] = (unsigned int)j;
	for (size_t i = 1; i <= alen; i++)
		for (size_t j = 1; j <= blen; j++) {
			unsigned int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			best = MIN(best, d[i - 1][j] + 1);
			best = MIN(best, d[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = MIN(best, d[i - 2][j - 2] + 1);
			d[i][j] = best;
		}
	return d[alen][blen];
}

/* The dashes in front are the same for every option: they tell nothing. */
static const char *skip_dashes(const char *word)
{
	while (*word == '-')
		word++;
	return word;
}

void suggestion_consider(struct suggestion *suggestion, const char *candidate)
{
	const char *word = skip_dashes(suggestion->word), *other = skip_dashes(candidate);
	size_t wlen = strlen(word), olen = strlen(other);
	unsigned int distance, limit;

	if (!wlen || wlen > WORD_MAX || olen > WORD_MAX)
		return;
	distance = edit_distance(word, wlen, other, olen);
	limit = (unsigned int)MAX(wlen, olen) / 3;
	/* A word cut short is meant, however short: "mem", "init". */
	if (wlen >= 3 && !strncmp(word, other, wlen))
		distance = 1;
	if (distance > MAX(limit, 1u) || distance >= MAX(wlen, olen))
		return;
	if (suggestion->best && distance >= suggestion->distance)
		return;
	suggestion->best = candidate;
	suggestion->distance = distance;
}

const char *suggestion_text(const struct suggestion *suggestion, char *buf, size_t len)
{
	buf[0] = '\0';
	if (suggestion->best)
		snprintf(buf, len, " (did you mean %s?)", suggestion->best);
	return buf;
}
