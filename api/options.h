/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ferry's command line: the options of cloud-hypervisor.
 *
 * `--disk path=/a,readonly=on path=/b` style values: key=value pairs joined by
 * commas, values may be [lists] or "quoted". An unknown option or key is an error
 * that names the nearest one known.
 */
#ifndef API_OPTIONS_H
#define API_OPTIONS_H

#include <stdbool.h>

#include "api/migration_config.h"
#include "api/vm_config.h"
#include "base/log.h"

enum seccomp_mode { SECCOMP_KILL, SECCOMP_LOG, SECCOMP_OFF };

/* --adopt: the VM comes from a process that runs it (docs/live-update.md). */
struct adopt_options {
	char *path;    /* listen there; NULL: fd */
	int fd;	       /* a listening socket, or -1: nothing is to be adopted */
	bool confined; /* by Landlock, from its start on */
};

/* --live-update: may this process start the one that takes its place? */
struct live_update_options {
	bool off;
	char *binary; /* the one it may start; NULL: the file it was started from */
};

struct jail_options {
	char *dir; /* NULL: no jail */
	unsigned int uid, gid;
	bool net; /* own (empty) network namespace; true */
};

struct ferry_options {
	enum { FERRY_RUN, FERRY_HELP, FERRY_VERSION } action;
	bool vm_given; /* a kernel was named: create and boot at once */
	struct vm_config config;
	bool restore_given; /* --restore: the VM comes from a snapshot instead */
	struct restore_config restore;
	bool adopt_given;
	struct adopt_options adopt;
	struct live_update_options live_update;
	char *api_socket;	  /* path, or NULL */
	int api_socket_fd;	  /* --api-socket fd=N, or -1 */
	char *event_monitor_path; /* --event-monitor path=|fd= */
	int event_monitor_fd;	  /* -1 */
	char *log_file;
	enum log_level log_level;  /* warnings; -v info, -vv debug */
	enum seccomp_mode seccomp; /* --seccomp true|false|log; kill by default */
	struct jail_options jail;
	/* Migration plugins that may be loaded, and folders of them: --plugins. Those that devices
	 * of the command line name may be, too. */
	char **plugins;
	unsigned int plugin_count;
};

/* Parses argv. On failure *options needs no destroy. */
int ferry_options_parse(struct ferry_options *options, int argc, char *const argv[],
			struct error *err);
void ferry_options_destroy(struct ferry_options *options);
/* --help: usage, every option with its keys and defaults, examples. */
const char *ferry_options_help(void);

/*
 * The options that describe a VM (--kernel, --cpus, --disk, ...) and no others, for
 * ferryctl's create. argv[0] is skipped. On failure nothing is to be destroyed.
 */
int vm_config_parse_options(struct vm_config *config, int argc, char *const argv[],
			    struct error *err);

/* Calls fn with the name ("--disk") of each option that ferry knows. */
void ferry_options_each(void (*fn)(void *opaque, const char *name), void *opaque);

/* The same parsers, for ferryctl's add-disk and the like. */
int disk_config_parse(struct disk_config *disk, const char *text, struct error *err);
int net_config_parse(struct net_config *net, const char *text, struct error *err);
int vsock_config_parse(struct vsock_config *vsock, const char *text, struct error *err);
int device_config_parse(struct device_config *device, const char *text, struct error *err);
int user_device_config_parse(struct user_device_config *device, const char *text,
			     struct error *err);
/*
 * As `--restore` and for ferryctl; the URL may stand first without its key. Validated.
 * The messages begin with "--restore: ", "--snapshot: " and so on where the option's
 * text is wrong.
 */
int snapshot_config_parse(struct snapshot_config *config, const char *text, struct error *err);
int restore_config_parse(struct restore_config *config, const char *text, struct error *err);
int send_migration_config_parse(struct send_migration_config *config, const char *text,
				struct error *err);
int receive_migration_config_parse(struct receive_migration_config *config, const char *text,
				   struct error *err);

#endif
