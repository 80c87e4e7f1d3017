/* SPDX-License-Identifier: Apache-2.0 */
#include "api/options_keys.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/parse.h"

/* Values are quoted in messages up to this; the rest tells nobody more. */
#define SHOWN 80

void option_elements_free(char **elements, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		free(elements[i]);
}

/* The end of the element that begins at text: a comma, or the end of the text. */
static const char *element_end(const char *text)
{
	unsigned int depth = 0;
	bool quoted = false;

	for (; *text; text++) {
		if (*text == '"') {
			quoted = !quoted;
		} else if (quoted) {
			continue;
		} else if (*text == '[') {
			depth++;
		} else if (*text == ']') {
			if (!depth--)
				return NULL;
		} else if (*text == ',' && !depth) {
			break;
		}
	}
	return quoted || depth ? NULL : text;
}

int option_split(const char *text, char **elements, unsigned int max, unsigned int *count)
{
	unsigned int n = 0;
	int r = -EINVAL;

	for (;; text++) {
		const char *end = element_end(text);

		if (!end)
			goto fail;
		r = -E2BIG;
		if (n == max)
			goto fail;
		elements[n] = strndup(text, (size_t)(end - text));
		r = -ENOMEM;
		if (!elements[n])
			goto fail;
		n++;
		r = -EINVAL;
		text = end;
		if (!*text)
			break;
	}
	*count = n;
	return 0;
fail:
	option_elements_free(elements, n);
	*count = 0;
	return r;
}

/* In place; the text has its quotes in pairs. */
static void unquote(char *text)
{
	char *out = text;
	bool quoted = false;

	for (; *text; text++) {
		if (*text != '"') {
			*out++ = *text;
		} else if (quoted && text[1] == '"') {
			*out++ = '"';
			text++;
		} else {
			quoted = !quoted;
		}
	}
	*out = '\0';
}

int option_list(const char *text, char **elements, unsigned int max, unsigned int *count)
{
	char *inner;
	size_t len = strlen(text);
	int r;

	*count = 0;
	if (text[0] == '[') {
		if (len < 2 || text[len - 1] != ']')
			return -EINVAL;
		text++;
		len -= 2;
	}
	if (!len)
		return 0;
	inner = strndup(text, len);
	if (!inner)
		return -ENOMEM;
	r = option_split(inner, elements, max, count);
	free(inner);
	for (unsigned int i = 0; i < *count; i++)
		unquote(elements[i]);
	return r;
}

static void describe(const struct option_key *key, char *buf, size_t len)
{
	if (key->allowed) {
		snprintf(buf, len, "%s", key->allowed);
		return;
	}
	switch (key->type) {
	case KEY_STRING: snprintf(buf, len, "text of at most %" PRIu64 " bytes", key->max); break;
	case KEY_BOOL: snprintf(buf, len, "on or off"); break;
	case KEY_POWER:
		snprintf(buf, len, "a power of two from %" PRIu64 " to %" PRIu64, key->min,
			 key->max);
		break;
	case KEY_SIZE:
		if (key->min)
			snprintf(buf, len,
				 "bytes, or a number with K, M, G or T, from %" PRIu64 " on",
				 key->min);
		else
			snprintf(buf, len, "bytes, or a number with K, M, G or T");
		break;
	case KEY_UINT:
	case KEY_U64:
		if (key->max == UINT64_MAX)
			snprintf(buf, len, "a number from %" PRIu64 " on", key->min);
		else
			snprintf(buf, len, "a number from %" PRIu64 " to %" PRIu64, key->min,
				 key->max);
		break;
	case KEY_WORD:
	case KEY_PARSE:
	case KEY_LIST: snprintf(buf, len, "another value"); break;
	}
}

static int bad_value(const struct option_syntax *syntax, const struct option_key *key,
		     const char *value, struct error *err)
{
	char allowed[160];

	describe(key, allowed, sizeof(allowed));
	return option_error(err, "%s: %s=%.*s%s: must be %s", syntax->option, key->name, SHOWN,
			    value, strlen(value) > SHOWN ? "..." : "", allowed);
}

static int store_string(const struct option_key *key, char **field, const char *value)
{
	char *copy;

	if (strlen(value) > key->max)
		return -EINVAL;
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static int store_number(const struct option_key *key, void *field, const char *value)
{
	uint64_t v;
	int r = key->type == KEY_SIZE ? parse_size(value, &v) : parse_u64(value, &v);

	if (r || v < key->min || v > key->max || (key->type == KEY_POWER && !is_power_of_2(v)))
		return -EINVAL;
	if (key->type == KEY_SIZE || key->type == KEY_U64)
		*(uint64_t *)field = v;
	else if (v <= UINT_MAX)
		*(unsigned int *)field = (unsigned int)v;
	else
		return -EINVAL;
	return 0;
}

static int store(const struct option_key *key, void *target, const char *value)
{
	void *field = (char *)target + key->offset;

	switch (key->type) {
	case KEY_PARSE:
	case KEY_LIST: return key->parse(target, value);
	case KEY_STRING: return store_string(key, field, value);
	case KEY_BOOL: return parse_bool(value, field);
	default: return store_number(key, field, value);
	}
}

static const struct option_key *find_key(const struct option_syntax *syntax, const char *name)
{
	for (size_t i = 0; i < syntax->key_count; i++)
		if (!strcmp(syntax->keys[i].name, name))
			return &syntax->keys[i];
	return NULL;
}

bool option_key_seen(const struct option_syntax *syntax, uint64_t seen, const char *name)
{
	const struct option_key *key = find_key(syntax, name);

	return key && seen & 1ULL << (key - syntax->keys);
}

static int unknown_key(const struct option_syntax *syntax, const char *name, struct error *err)
{
	struct suggestion near = SUGGESTION_INIT(name);
	char hint[80], keys[320];
	size_t used = 0;

	for (size_t i = 0; i < syntax->key_count; i++)
		suggestion_consider(&near, syntax->keys[i].name);
	if (near.best)
		return option_error(err, "%s: unknown key \"%.*s\"%s", syntax->option, SHOWN, name,
				    suggestion_text(&near, hint, sizeof(hint)));
	keys[0] = '\0';
	for (size_t i = 0; i < syntax->key_count && used < sizeof(keys); i++)
		used += (size_t)snprintf(keys + used, sizeof(keys) - used, "%s%s", i ? ", " : "",
					 syntax->keys[i].name);
	return option_error(err, "%s: unknown key \"%.*s\"; known: %s", syntax->option, SHOWN, name,
			    keys);
}

/* Cuts the element into key and value; *value is NULL where there is no "=". */
static const struct option_key *element_key(const struct option_syntax *syntax, char *element,
					    bool first, char **value, struct error *err)
{
	const struct option_key *key;
	char *equals = strchr(element, '=');

	if (first && syntax->bare && *element && !find_key(syntax, element) &&
	    (!equals || strchr("/.\"", *element))) {
		*value = element;
		return find_key(syntax, syntax->bare);
	}
	if (equals)
		*equals = '\0';
	*value = equals ? equals + 1 : NULL;
	key = find_key(syntax, element);
	if (!key)
		unknown_key(syntax, element, err);
	return key;
}

static int parse_element(const struct option_syntax *syntax, char *element, bool first,
			 void *target, uint64_t *seen, struct error *err)
{
	const struct option_key *key;
	char *value;
	int r;

	if (!*element)
		return option_error(err, "%s: a key=value is missing beside a comma",
				    syntax->option);
	key = element_key(syntax, element, first, &value, err);
	if (!key)
		return -EINVAL;
	if (*seen & 1ULL << (key - syntax->keys))
		return option_error(err, "%s: %s is given twice", syntax->option, key->name);
	if (key->type == KEY_WORD) {
		if (value)
			return option_error(err, "%s: %s takes no value", syntax->option,
					    key->name);
		*(bool *)((char *)target + key->offset) = true;
		*seen |= 1ULL << (key - syntax->keys);
		return 0;
	}
	if (!value)
		return option_error(err, "%s: %s needs a value: %s=...", syntax->option, key->name,
				    key->name);
	if (key->type != KEY_LIST)
		unquote(value);
	if (!*value)
		return 0;
	r = store(key, target, value);
	if (r == -ENOMEM)
		return error_set_errno(err, ENOMEM, "%s: %s", syntax->option, key->name);
	if (r)
		return bad_value(syntax, key, value, err);
	*seen |= 1ULL << (key - syntax->keys);
	return 0;
}

int option_parse_keys(const struct option_syntax *syntax, const char *text, void *target,
		      uint64_t *seen, struct error *err)
{
	char *elements[OPTION_KEYS_MAX];
	unsigned int count = 0;
	uint64_t local = 0;
	int r;

	if (!seen)
		seen = &local;
	*seen = 0;
	if (!*text)
		return 0;
	if (strlen(text) > OPTION_TEXT_MAX)
		return option_error(err, "%s: the value is longer than %d bytes", syntax->option,
				    OPTION_TEXT_MAX);
	r = option_split(text, elements, OPTION_KEYS_MAX, &count);
	if (r == -ENOMEM)
		return error_set_errno(err, ENOMEM, "%s", syntax->option);
	if (r == -E2BIG)
		return option_error(err, "%s: more than %d keys", syntax->option, OPTION_KEYS_MAX);
	if (r)
		return option_error(err, "%s: %.*s: a bracket or a quote is not closed",
				    syntax->option, SHOWN, text);
	for (unsigned int i = 0; i < count && !r; i++)
		r = parse_element(syntax, elements[i], i == 0, target, seen, err);
	option_elements_free(elements, count);
	return r;
}
