/* SPDX-License-Identifier: Apache-2.0 */
#include "api/live_update_config.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "api/config_json_fields.h"

void live_update_config_destroy(struct live_update_config *config)
{
	for (unsigned int i = 0; i < config->arg_count; i++)
		free(config->args[i]);
	free(config->args);
	free(config->binary);
	free(config->socket);
	*config = (struct live_update_config){ .binary = NULL };
}

static const struct json_field fields[] = {
	FIELD(live_update_config, binary, STRING),
	FIELD(live_update_config, args, STRINGS,
	      .count_offset = offsetof(struct live_update_config, arg_count)),
	FIELD(live_update_config, socket, STRING),
	{ 0 },
};

static const struct json_object object = { .fields = fields };

static int bad(struct error *err, const char *text)
{
	return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "%s", text);
}

static int validate(const struct live_update_config *config, struct error *err)
{
	if (config->binary && (config->binary[0] != '/' || strlen(config->binary) >= PATH_MAX))
		return bad(err, "binary: must be an absolute path");
	if (config->socket &&
	    (config->socket[0] != '/' ||
	     strlen(config->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path)))
		return bad(err, "socket: must be an absolute path of at most 107 bytes");
	if (config->socket && (config->binary || config->arg_count))
		return bad(err, "socket: a process that waits there is started already: give "
				"either it, or binary and args");
	if (config->arg_count > LIVE_UPDATE_ARGS_MAX)
		return bad(err, "args: at most 64");
	return 0;
}

int live_update_config_from_json(struct live_update_config *config, const json_t *json,
				 struct error *err)
{
	const struct json_where root = { NULL, NULL, -1 };
	int r;

	*config = (struct live_update_config){ .binary = NULL };
	r = json_object_read(&object, config, json, &root, err);
	if (!r)
		r = validate(config, err);
	if (r)
		live_update_config_destroy(config);
	return r;
}

json_t *live_update_config_to_json(const struct live_update_config *config)
{
	return json_object_write(&object, config);
}

json_t *live_update_result_to_json(const struct live_update_result *result)
{
	json_t *json = json_pack("{s:{s:I,s:I,s:I,s:I,s:I}}", "downtime_us", "total",
				 (json_int_t)result->downtime, "pause", (json_int_t)result->pause,
				 "save", (json_int_t)result->save, "load", (json_int_t)result->load,
				 "handover", (json_int_t)result->handover);

	if (json && result->pid)
		json_object_set_new(json, "pid", json_integer(result->pid));
	return json;
}
