/* SPDX-License-Identifier: Apache-2.0 */
/* live-update: what it makes of its arguments, and what it prints. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "api/ctl/ctl.h"
#include "api/live_update_config.h"
#include "api/options_keys.h"
#include "base/bytes.h"
#include "base/cleanup.h"

/* Ferry wants a path from the root on; a file has one. */
static json_t *absolute(const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL);

	return json_string(real ?: path);
}

static int add_path(json_t *body, const char *name, const char *path, struct error *err)
{
	if (!path)
		return 0;
	if (!*path)
		return option_error(err, "--%s: the value is empty", name);
	return json_object_set_new(body, name, absolute(path))
		       ? error_set_errno(err, ENOMEM, "make the request")
		       : 0;
}

static int add_arguments(json_t *body, int count, char *const args[], struct error *err)
{
	json_t *list = count ? json_array() : NULL;

	for (int i = 0; list && i < count; i++)
		json_array_append_new(list, json_string(args[i]));
	if (count && json_object_set_new(body, "args", list))
		return error_set_errno(err, ENOMEM, "make the request");
	return 0;
}

int ctl_build_live_update(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	const char *binary = NULL, *socket = NULL;
	const struct ctl_argument arguments[] = { { "--binary", &binary, false },
						  { "--socket", &socket, false } };
	json_t *body = json_object();
	int own = 1, r;

	if (!body)
		return error_set_errno(err, ENOMEM, "make the request");
	while (own < argc && strcmp(argv[own], "--"))
		own++;
	r = ctl_take_arguments(arguments, ARRAY_SIZE(arguments), NULL, own, argv, err);
	if (!r)
		r = add_path(body, "binary", binary, err);
	if (!r)
		r = add_path(body, "socket", socket, err);
	if (!r && own < argc)
		r = add_arguments(body, argc - own - 1, argv + own + 1, err);
	if (r) {
		json_decref(body);
		return r;
	}
	return ctl_set_body(call, body, err);
}

void ctl_render_live_update(FILE *out, int status, const json_t *body)
{
	const json_t *downtime = json_object_get(body, "downtime_us");
	json_int_t pid = json_integer_value(json_object_get(body, "pid"));
	double ms = (double)json_integer_value(json_object_get(downtime, "total")) / 1000;

	if (pid)
		fprintf(out, "The VM goes on in process %lld; it stood still for %.1f ms.\n",
			(long long)pid, ms);
	else
		fprintf(out, "The VM goes on in the new process; it stood still for %.1f ms.\n",
			ms);
}
