/* SPDX-License-Identifier: Apache-2.0 */
/* What the readers and the validation of migration_config.h share. Private to api/. */
#ifndef API_MIGRATION_CONFIG_CHECK_H
#define API_MIGRATION_CONFIG_CHECK_H

#include "api/migration_config.h"

#define SEND_DOWNTIME_MS_MAX 3600000 /* an hour */
#define SEND_TIMEOUT_S_MAX 31536000  /* a year */
#define SEND_BANDWIDTH_MIN 65536     /* a frame now and then */

/* What can be said without the configuration they go into. */
int config_overrides_validate(const struct config_overrides *overrides, struct error *err);

#endif
