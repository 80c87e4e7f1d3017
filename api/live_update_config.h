/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vm.live-update is asked to do, and what it tells (docs/live-update.md). Plain data,
 * as in migration_config.h.
 */
#ifndef API_LIVE_UPDATE_CONFIG_H
#define API_LIVE_UPDATE_CONFIG_H

#include <stdint.h>

#include <jansson.h>

#include "base/error.h"

#define LIVE_UPDATE_ARGS_MAX 64

struct live_update_config {
	char *binary; /* the new ferry; NULL: the one this process was started as */
	char **args;  /* of it, beside --adopt */
	unsigned int arg_count;
	char *socket; /* instead: where a ferry --adopt waits already */
};

struct live_update_result {
	int pid; /* of the new process; 0: not known */
	/* us: from the pause until the VM ran over there, and parts of it */
	uint64_t downtime, pause, save, load, handover;
};

void live_update_config_destroy(struct live_update_config *config);
/* *config is initialised by the call; on failure nothing is to be destroyed. */
int live_update_config_from_json(struct live_update_config *config, const json_t *json,
				 struct error *err);
json_t *live_update_config_to_json(const struct live_update_config *config);
json_t *live_update_result_to_json(const struct live_update_result *result);

#endif
