/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands make their calls with. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/ctl/ctl.h"
#include "api/options_keys.h"

int ctl_set_body(struct ctl_call *call, json_t *json, struct error *err)
{
	if (json)
		call->body = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	return call->body ? 0 : error_set_errno(err, ENOMEM, "make the request");
}

int ctl_drop_option(int r, const char *option, struct error *err)
{
	size_t len = strlen(option);

	if (r && !strncmp(err->message, option, len))
		memmove(err->message, err->message + len, strlen(err->message + len) + 1);
	return r;
}

static int unknown_argument(const struct ctl_argument *arguments, size_t count, const char *given,
			    struct error *err)
{
	struct suggestion near = SUGGESTION_INIT(given);
	char hint[80];

	for (size_t i = 0; i < count; i++)
		suggestion_consider(&near, arguments[i].name);
	return option_error(err, "unknown option %.60s%s", given,
			    suggestion_text(&near, hint, sizeof(hint)));
}

int ctl_take_arguments(const struct ctl_argument *arguments, size_t count, const char **rest,
		       int argc, char *const argv[], struct error *err)
{
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *equals = strchr(arg, '=');
		size_t len = equals ? (size_t)(equals - arg) : strlen(arg), k;

		if (arg[0] != '-') {
			if (!rest || *rest)
				return option_error(err, "unexpected argument \"%.60s\"", arg);
			*rest = arg;
			continue;
		}
		for (k = 0; k < count; k++)
			if (strlen(arguments[k].name) == len &&
			    !strncmp(arguments[k].name, arg, len))
				break;
		if (k == count)
			return unknown_argument(arguments, count, arg, err);
		if (*arguments[k].value)
			return option_error(err, "%s is given twice", arguments[k].name);
		if (arguments[k].flag && equals)
			return option_error(err, "%s takes no value", arguments[k].name);
		if (arguments[k].flag) {
			*arguments[k].value = "";
			continue;
		}
		if (!equals && ++i == argc)
			return option_error(err, "%s needs a value", arguments[k].name);
		*arguments[k].value = equals ? equals + 1 : argv[i];
	}
	return 0;
}
