/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ferry's command line: the input's lines are its arguments.
 *
 * Left out are values with "fd=": a descriptor that is taken is closed later, and the
 * fuzzer's own are open too.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/options.h"

#define ARGS_MAX 48

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *argv[ARGS_MAX] = { (char *)"ferry" }, *text, *next;
	struct error err = ERROR_INIT;
	struct ferry_options options;
	int argc = 1;

	if (size > 40000)
		return -1;
	text = malloc(size + 1);
	if (!text)
		return -1;
	memcpy(text, data, size);
	text[size] = '\0';
	if (strstr(text, "fd") || strstr(text, "f\"")) {
		free(text);
		return -1;
	}
	for (char *line = text; line && argc < ARGS_MAX; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		argv[argc++] = line;
	}
	if (!ferry_options_parse(&options, argc, argv, &err))
		ferry_options_destroy(&options);
	else if (!err.code || !err.message[0])
		abort(); /* refused without saying why */
	free(text);
	return 0;
}
