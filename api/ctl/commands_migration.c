/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot, restore and migration: what each makes of its arguments. */
#include <errno.h>
#include <stdlib.h>

#include "api/ctl/ctl.h"
#include "api/options.h"
#include "api/options_keys.h"
#include "api/options_vm.h"
#include "base/bytes.h"
#include "base/cleanup.h"

static int keys_argument(const char *example, const char *keys, struct error *err)
{
	return keys && *keys ? 0 : option_error(err, "%s is missing", example);
}

int ctl_build_snapshot(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	const char *keys = NULL, *no_wait = NULL;
	const struct ctl_argument arguments[] = { { "--no-wait", &no_wait, true } };
	struct snapshot_config config;
	int r = ctl_take_arguments(arguments, ARRAY_SIZE(arguments), &keys, argc, argv, err);

	if (!r)
		r = keys_argument("file:///DIR", keys, err);
	if (!r)
		r = ctl_drop_option(snapshot_config_parse(&config, keys, err), "--snapshot: ", err);
	if (r)
		return r;
	call->no_wait = no_wait;
	r = ctl_set_body(call, snapshot_config_to_json(&config), err);
	snapshot_config_destroy(&config);
	return r;
}

int ctl_build_send(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	const char *keys = NULL, *no_wait = NULL;
	const struct ctl_argument arguments[] = { { "--no-wait", &no_wait, true } };
	struct send_migration_config config;
	int r = ctl_take_arguments(arguments, ARRAY_SIZE(arguments), &keys, argc, argv, err);

	if (!r)
		r = keys_argument("tcp:HOST:PORT or unix:PATH", keys, err);
	if (!r)
		r = ctl_drop_option(send_migration_config_parse(&config, keys, err),
				    "--send-migration: ", err);
	if (r)
		return r;
	call->no_wait = no_wait;
	r = ctl_set_body(call, send_migration_config_to_json(&config), err);
	send_migration_config_destroy(&config);
	return r;
}

/* --- where a VM arrives ---------------------------------------------------------------- */

static int console_argument(struct console_config **console, const char *option, const char *text,
			    struct error *err)
{
	if (!text)
		return 0;
	*console = calloc(1, sizeof(**console));
	if (!*console)
		return error_set_errno(err, ENOMEM, "make the request");
	return option_console(*console, option, text, err);
}

/* The descriptors go with the request; how many are whose stays. */
static int take_fds(struct ctl_call *call, struct config_overrides *overrides, struct error *err)
{
	for (unsigned int i = 0; i < overrides->net_fds_count; i++) {
		struct net_fds_override *net = &overrides->net_fds[i];

		for (unsigned int k = 0; k < net->fd_count; k++) {
			if (call->fd_count == FD_PASS_MAX)
				return option_error(err, "more than %d descriptors", FD_PASS_MAX);
			call->fds[call->fd_count++] = take_fd(&net->fds[k]);
		}
	}
	return 0;
}

static int finish_overrides(struct ctl_call *call, struct config_overrides *overrides,
			    const char *serial, const char *console, struct error *err)
{
	int r = console_argument(&overrides->serial, "--serial", serial, err);

	if (!r)
		r = console_argument(&overrides->console, "--console", console, err);
	return r ? r : take_fds(call, overrides, err);
}

int ctl_build_restore(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	const char *keys = NULL, *serial = NULL, *console = NULL;
	const struct ctl_argument arguments[] = { { "--serial", &serial, false },
						  { "--console", &console, false } };
	struct restore_config config;
	int r = ctl_take_arguments(arguments, ARRAY_SIZE(arguments), &keys, argc, argv, err);

	if (!r)
		r = keys_argument("file:///DIR", keys, err);
	if (!r)
		r = ctl_drop_option(restore_config_parse(&config, keys, err), "--restore: ", err);
	if (r)
		return r;
	r = finish_overrides(call, &config.overrides, serial, console, err);
	if (!r)
		r = ctl_set_body(call, restore_config_to_json(&config), err);
	restore_config_destroy(&config);
	return r;
}

int ctl_build_receive(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	const char *keys = NULL, *serial = NULL, *console = NULL, *no_wait = NULL;
	const struct ctl_argument arguments[] = { { "--serial", &serial, false },
						  { "--console", &console, false },
						  { "--no-wait", &no_wait, true } };
	struct receive_migration_config config;
	int r = ctl_take_arguments(arguments, ARRAY_SIZE(arguments), &keys, argc, argv, err);

	if (!r)
		r = keys_argument("tcp:HOST:PORT or unix:PATH", keys, err);
	if (!r)
		r = ctl_drop_option(receive_migration_config_parse(&config, keys, err),
				    "--receive-migration: ", err);
	if (r)
		return r;
	call->no_wait = no_wait;
	r = finish_overrides(call, &config.overrides, serial, console, err);
	if (!r)
		r = ctl_set_body(call, receive_migration_config_to_json(&config), err);
	receive_migration_config_destroy(&config);
	return r;
}

int ctl_build_migration(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	const char *watch = NULL;
	const struct ctl_argument arguments[] = { { "--watch", &watch, true } };
	int r = ctl_take_arguments(arguments, ARRAY_SIZE(arguments), NULL, argc, argv, err);

	call->watch = watch;
	return r;
}
