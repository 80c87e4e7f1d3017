/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parse.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <strings.h>

#include "base/bytes.h"

static int parse_prefix(const char *text, uint64_t *out, const char **end)
{
	int base = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
	unsigned long long v;
	char *e;

	if (!isxdigit((unsigned char)text[0]) || (base == 16 && !isxdigit((unsigned char)text[2])))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &e, base);
	if (errno)
		return errno == ERANGE ? -ERANGE : -EINVAL;
	if (e == text)
		return -EINVAL;
	*out = v;
	*end = e;
	return 0;
}

int parse_u64(const char *text, uint64_t *out)
{
	const char *end;
	uint64_t v;
	int r = parse_prefix(text, &v, &end);

	if (r)
		return r;
	if (*end)
		return -EINVAL;
	*out = v;
	return 0;
}

int parse_size(const char *text, uint64_t *out)
{
	unsigned int shift = 0;
	const char *end;
	uint64_t v;
	int r = parse_prefix(text, &v, &end);

	if (r)
		return r;
	switch (*end) {
	case 'k':
	case 'K': shift = 10; break;
	case 'm':
	case 'M': shift = 20; break;
	case 'g':
	case 'G': shift = 30; break;
	case 't':
	case 'T': shift = 40; break;
	case '\0': break;
	default: return -EINVAL;
	}
	if (shift && end[1])
		return -EINVAL;
	if (v > UINT64_MAX >> shift)
		return -ERANGE;
	*out = v << shift;
	return 0;
}

int parse_bool(const char *text, bool *out)
{
	static const struct {
		const char *text;
		bool value;
	} words[] = {
		{ "on", true },	  { "true", true },   { "yes", true },
		{ "off", false }, { "false", false }, { "no", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcasecmp(text, words[i].text)) {
			*out = words[i].value;
			return 0;
		}
	return -EINVAL;
}

int parse_mac(const char *text, uint8_t out[6])
{
	uint8_t mac[6];

	for (int i = 0; i < 6; i++) {
		char pair[3] = { text[0], text[0] ? text[1] : 0, 0 };

		if (!isxdigit((unsigned char)pair[0]) || !isxdigit((unsigned char)pair[1]))
			return -EINVAL;
		mac[i] = (uint8_t)strtoul(pair, NULL, 16);
		text += 2;
		if (i < 5 && *text++ != ':')
			return -EINVAL;
	}
	if (*text)
		return -EINVAL;
	for (int i = 0; i < 6; i++)
		out[i] = mac[i];
	return 0;
}
