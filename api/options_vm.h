/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options that describe a VM, one parser each. Private to api/: a target holds
 * its defaults when the call is made, and is still to be destroyed when it fails.
 */
#ifndef API_OPTIONS_VM_H
#define API_OPTIONS_VM_H

#include "api/options.h"
#include "api/vm_config.h"

/* What ferry's own limits allow, so that a mistake is named where it was typed;
 * vm_config_validate() says the rest. */
#define OPTION_ID_MAX 63
#define OPTION_PATH_MAX 4095
#define OPTION_SOCKET_MAX 107 /* sun_path without its NUL */
#define OPTION_DEVICES_MAX 32 /* of one kind */

/* "[3,4]": numbers of open descriptors from 3 on, each once; at least one. *fds is malloc'd. */
int option_descriptors(const char *text, int **fds, unsigned int *count);

/* No descriptor has two owners. */
int option_check_descriptors(const struct ferry_options *options, struct error *err);
/* --serial and --console, where given, become overrides; nobody is left with a VM that
 * stays paused. */
int option_finish_restore(struct ferry_options *options, bool serial, bool console,
			  struct error *err);

int option_cpus(struct cpus_config *cpus, const char *text, struct error *err);
int option_memory(struct memory_config *memory, const char *text, struct error *err);
int option_rng(struct rng_config *rng, const char *text, struct error *err);
int option_balloon(struct balloon_config *balloon, const char *text, struct error *err);
/* option: "--serial" or "--console" */
int option_console(struct console_config *console, const char *option, const char *text,
		   struct error *err);
int option_debug_console(struct console_config *console, const char *text, struct error *err);
int option_platform(struct platform_config *platform, const char *text, struct error *err);
int option_landlock_rule(struct landlock_rule *rule, const char *text, struct error *err);

#endif
