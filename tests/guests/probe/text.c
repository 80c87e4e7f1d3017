/* SPDX-License-Identifier: Apache-2.0 */
/* Strings, and the functions a compiler expects. */
#include "probe.h"

void *memcpy(void *to, const void *from, size_t len);
void *memset(void *to, int value, size_t len);

void *memcpy(void *to, const void *from, size_t len)
{
	void *p = to;

	__asm__ volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(len) : : "memory");
	return to;
}

void *memset(void *to, int value, size_t len)
{
	void *p = to;

	__asm__ volatile("rep stosb" : "+D"(p), "+c"(len) : "a"(value) : "memory");
	return to;
}

bool equal(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

char *next_word(char **text)
{
	char *word = *text, *end;

	while (*word == ' ')
		word++;
	for (end = word; *end && *end != ' '; end++)
		;
	*text = *end ? end + 1 : end;
	*end = '\0';
	return word;
}

bool parse_number(const char *text, uint64_t *value)
{
	unsigned int base = 10;
	uint64_t v = 0;

	if (text[0] == '0' && text[1] == 'x') {
		base = 16;
		text += 2;
	}
	if (!*text)
		return false;
	for (; *text; text++) {
		unsigned int digit = *text >= '0' && *text <= '9' ? (unsigned int)(*text - '0')
				     : *text >= 'a' && *text <= 'f'
					     ? (unsigned int)(*text - 'a') + 10
					     : 16;

		if (digit >= base)
			return false;
		v = v * base + digit;
	}
	*value = v;
	return true;
}

bool next_number(char **text, uint64_t *value)
{
	return parse_number(next_word(text), value);
}
