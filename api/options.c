/* SPDX-License-Identifier: Apache-2.0 */
#include "api/options.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/options_keys.h"
#include "api/options_vm.h"
#include "base/bytes.h"
#include "base/parse.h"

enum option_takes { TAKES_NOTHING, TAKES_ONE, TAKES_MANY };

struct option {
	const char *name;
	enum option_takes takes;
	bool vm; /* says something about the VM, not about the process */
	/* value is NULL where the option takes nothing */
	int (*apply)(struct ferry_options *options, const char *value, struct error *err);
};

static int set_string(char **field, const char *option, const char *value, size_t max,
		      struct error *err)
{
	if (!*value)
		return option_error(err, "%s: the value is empty", option);
	if (strlen(value) > max)
		return option_error(err, "%s: the value is longer than %zu bytes", option, max);
	free(*field);
	*field = strdup(value);
	return *field ? 0 : error_set_errno(err, ENOMEM, "%s", option);
}

/* Room for one more element at the end of an array, zeroed; NULL with err filled. */
static void *append(void **array, unsigned int count, size_t size, const char *option,
		    struct error *err)
{
	void *larger;

	if (count >= OPTION_DEVICES_MAX) {
		option_error(err, "%s: given more than %d times", option, OPTION_DEVICES_MAX);
		return NULL;
	}
	larger = realloc(*array, (count + 1) * size);
	if (!larger) {
		error_set_errno(err, ENOMEM, "%s", option);
		return NULL;
	}
	*array = larger;
	return memset((char *)larger + count * size, 0, size);
}

static int apply_kernel(struct ferry_options *o, const char *value, struct error *err)
{
	return set_string(&o->config.payload.kernel, "--kernel", value, OPTION_PATH_MAX, err);
}

static int apply_initramfs(struct ferry_options *o, const char *value, struct error *err)
{
	return set_string(&o->config.payload.initramfs, "--initramfs", value, OPTION_PATH_MAX, err);
}

static int apply_cmdline(struct ferry_options *o, const char *value, struct error *err)
{
	if (!*value)
		return 0;
	return set_string(&o->config.payload.cmdline, "--cmdline", value, OPTION_TEXT_MAX, err);
}

static int apply_cpus(struct ferry_options *o, const char *value, struct error *err)
{
	return option_cpus(&o->config.cpus, value, err);
}

static int apply_memory(struct ferry_options *o, const char *value, struct error *err)
{
	return option_memory(&o->config.memory, value, err);
}

static int apply_disk(struct ferry_options *o, const char *value, struct error *err)
{
	struct vm_config *c = &o->config;
	struct disk_config *disk =
		append((void **)&c->disks, c->disk_count, sizeof(*disk), "--disk", err);
	int r = disk ? disk_config_parse(disk, value, err) : -EINVAL;

	if (!r)
		c->disk_count++;
	return r;
}

static int apply_net(struct ferry_options *o, const char *value, struct error *err)
{
	struct vm_config *c = &o->config;
	struct net_config *net =
		append((void **)&c->nets, c->net_count, sizeof(*net), "--net", err);
	int r = net ? net_config_parse(net, value, err) : -EINVAL;

	if (!r)
		c->net_count++;
	return r;
}

static int apply_vsock(struct ferry_options *o, const char *value, struct error *err)
{
	struct vsock_config *vsock = calloc(1, sizeof(*vsock));
	int r;

	if (!vsock)
		return error_set_errno(err, ENOMEM, "--vsock");
	r = vsock_config_parse(vsock, value, err);
	if (r)
		free(vsock);
	else
		o->config.vsock = vsock;
	return r;
}

static int apply_device(struct ferry_options *o, const char *value, struct error *err)
{
	struct vm_config *c = &o->config;
	struct device_config *device =
		append((void **)&c->devices, c->device_count, sizeof(*device), "--device", err);
	int r = device ? device_config_parse(device, value, err) : -EINVAL;

	if (!r)
		c->device_count++;
	return r;
}

static int apply_user_device(struct ferry_options *o, const char *value, struct error *err)
{
	struct vm_config *c = &o->config;
	struct user_device_config *device = append((void **)&c->user_devices, c->user_device_count,
						   sizeof(*device), "--user-device", err);
	int r = device ? user_device_config_parse(device, value, err) : -EINVAL;

	if (!r)
		c->user_device_count++;
	return r;
}

static int apply_rng(struct ferry_options *o, const char *value, struct error *err)
{
	return option_rng(&o->config.rng, value, err);
}

static int apply_balloon(struct ferry_options *o, const char *value, struct error *err)
{
	o->config.balloon = calloc(1, sizeof(*o->config.balloon));
	if (!o->config.balloon)
		return error_set_errno(err, ENOMEM, "--balloon");
	return option_balloon(o->config.balloon, value, err);
}

static int apply_serial(struct ferry_options *o, const char *value, struct error *err)
{
	return option_console(&o->config.serial, "--serial", value, err);
}

static int apply_console(struct ferry_options *o, const char *value, struct error *err)
{
	return option_console(&o->config.console, "--console", value, err);
}

static int apply_debug_console(struct ferry_options *o, const char *value, struct error *err)
{
	return option_debug_console(&o->config.debug_console, value, err);
}

static int apply_pvpanic(struct ferry_options *o, const char *value, struct error *err)
{
	o->config.pvpanic = true;
	return 0;
}

static int apply_platform(struct ferry_options *o, const char *value, struct error *err)
{
	return option_platform(&o->config.platform, value, err);
}

static int apply_landlock(struct ferry_options *o, const char *value, struct error *err)
{
	o->config.landlock_enable = true;
	return 0;
}

static int apply_landlock_rules(struct ferry_options *o, const char *value, struct error *err)
{
	struct vm_config *c = &o->config;
	struct landlock_rule *rule = append((void **)&c->landlock_rules, c->landlock_rule_count,
					    sizeof(*rule), "--landlock-rules", err);

	if (!rule)
		return -EINVAL;
	/* Counted first: what a failing parser leaves is destroyed with the rest. */
	c->landlock_rule_count++;
	return option_landlock_rule(rule, value, err);
}

struct place {
	char *path;
	uint64_t fd;
};

/* "path=", "fd=" or a bare path: what --api-socket and --event-monitor take. */
static int parse_place(const char *option, size_t path_max, const char *value, char **path, int *fd,
		       struct error *err)
{
	const struct option_key keys[] = {
		{ "path", KEY_STRING, offsetof(struct place, path), 0, path_max, NULL, NULL },
		{ "fd", KEY_U64, offsetof(struct place, fd), 3, INT_MAX,
		  "the number of an open descriptor from 3 on", NULL },
	};
	const struct option_syntax syntax = { option, keys, ARRAY_SIZE(keys), "path" };
	struct place place = { 0 };
	int r = option_parse_keys(&syntax, value, &place, NULL, err);

	if (!r && !place.path == !place.fd)
		r = option_error(err, "%s: must be one of path=<path> and fd=<number>", option);
	if (!r && place.fd && fcntl((int)place.fd, F_GETFD) < 0)
		r = option_error(err, "%s: fd=%d: no such descriptor is open", option,
				 (int)place.fd);
	if (!r && place.fd)
		fcntl((int)place.fd, F_SETFD, FD_CLOEXEC);
	if (r) {
		free(place.path);
		return r;
	}
	*path = place.path;
	*fd = place.fd ? (int)place.fd : -1;
	return 0;
}

static int apply_api_socket(struct ferry_options *o, const char *value, struct error *err)
{
	return parse_place("--api-socket", OPTION_SOCKET_MAX, value, &o->api_socket,
			   &o->api_socket_fd, err);
}

static int apply_event_monitor(struct ferry_options *o, const char *value, struct error *err)
{
	return parse_place("--event-monitor", OPTION_PATH_MAX, value, &o->event_monitor_path,
			   &o->event_monitor_fd, err);
}

static int apply_log_file(struct ferry_options *o, const char *value, struct error *err)
{
	return set_string(&o->log_file, "--log-file", value, OPTION_PATH_MAX, err);
}

static int apply_verbose(struct ferry_options *o, const char *value, struct error *err)
{
	if (o->log_level < LOG_LEVEL_DEBUG)
		o->log_level++;
	return 0;
}

static int apply_seccomp(struct ferry_options *o, const char *value, struct error *err)
{
	if (!strcmp(value, "true"))
		o->seccomp = SECCOMP_KILL;
	else if (!strcmp(value, "false"))
		o->seccomp = SECCOMP_OFF;
	else if (!strcmp(value, "log"))
		o->seccomp = SECCOMP_LOG;
	else
		return option_error(err, "--seccomp: %.80s: must be true, false or log", value);
	return 0;
}

static const struct option_key jail_keys[] = {
	{ "dir", KEY_STRING, offsetof(struct jail_options, dir), 0, OPTION_PATH_MAX, NULL, NULL },
	/* 0 would leave root in its jail, ~0 is setuid()'s "no change". */
	{ "uid", KEY_UINT, offsetof(struct jail_options, uid), 1, UINT_MAX - 1, NULL, NULL },
	{ "gid", KEY_UINT, offsetof(struct jail_options, gid), 1, UINT_MAX - 1, NULL, NULL },
	{ "net", KEY_BOOL, offsetof(struct jail_options, net), 0, 0, NULL, NULL },
};
static const struct option_syntax jail_syntax = { "--jail", jail_keys, ARRAY_SIZE(jail_keys),
						  "dir" };

static int apply_jail(struct ferry_options *o, const char *value, struct error *err)
{
	int r = option_parse_keys(&jail_syntax, value, &o->jail, NULL, err);

	if (r)
		return r;
	if (!o->jail.dir)
		return option_error(err, "--jail: the directory is missing: DIR,uid=<id>,gid=<id>");
	if (!o->jail.uid || !o->jail.gid)
		return option_error(err, "--jail: uid=<id> and gid=<id> are needed: whom the "
					 "jailed process shall run as");
	return 0;
}

static int apply_plugins(struct ferry_options *o, const char *value, struct error *err)
{
	char **path =
		append((void **)&o->plugins, o->plugin_count, sizeof(*path), "--plugins", err);
	int r = path ? set_string(path, "--plugins", value, OPTION_PATH_MAX, err) : -EINVAL;

	if (r)
		return r;
	o->plugin_count++;
	if (*value != '/')
		return option_error(err, "--plugins: %.80s: must be absolute", value);
	return 0;
}

static int apply_help(struct ferry_options *o, const char *value, struct error *err)
{
	o->action = FERRY_HELP;
	return 0;
}

static int apply_version(struct ferry_options *o, const char *value, struct error *err)
{
	o->action = FERRY_VERSION;
	return 0;
}

static int apply_restore(struct ferry_options *o, const char *value, struct error *err)
{
	int r = restore_config_parse(&o->restore, value, err);

	o->restore_given = !r;
	return r;
}

static const struct option_key adopt_keys[] = {
	{ "path", KEY_STRING, offsetof(struct adopt_options, path), 0, OPTION_SOCKET_MAX, NULL,
	  NULL },
	{ "fd", KEY_UINT, offsetof(struct adopt_options, fd), 3, INT_MAX,
	  "the number of an open descriptor from 3 on", NULL },
	{ "confined", KEY_BOOL, offsetof(struct adopt_options, confined), 0, 0, NULL, NULL },
};
static const struct option_syntax adopt_syntax = { "--adopt", adopt_keys, ARRAY_SIZE(adopt_keys),
						   "path" };

static int apply_adopt(struct ferry_options *o, const char *value, struct error *err)
{
	int r = option_parse_keys(&adopt_syntax, value, &o->adopt, NULL, err);

	if (r)
		return r;
	if (!o->adopt.path == (o->adopt.fd < 0))
		return option_error(err, "--adopt: must be one of path=<path> and fd=<number>");
	if (o->adopt.fd >= 0 && fcntl(o->adopt.fd, F_SETFD, FD_CLOEXEC) < 0)
		return option_error(err, "--adopt: fd=%d: no such descriptor is open", o->adopt.fd);
	o->adopt_given = true;
	return 0;
}

static const struct option_key live_update_keys[] = {
	{ "binary", KEY_STRING, offsetof(struct live_update_options, binary), 0, OPTION_PATH_MAX,
	  NULL, NULL },
	{ "off", KEY_WORD, offsetof(struct live_update_options, off), 0, 0, NULL, NULL },
};
static const struct option_syntax live_update_syntax = { "--live-update", live_update_keys,
							 ARRAY_SIZE(live_update_keys), NULL };

static int apply_live_update(struct ferry_options *o, const char *value, struct error *err)
{
	struct live_update_options *update = &o->live_update;
	int r = option_parse_keys(&live_update_syntax, value, update, NULL, err);

	if (r)
		return r;
	if (!update->off == !update->binary)
		return option_error(err, "--live-update: must be off, or binary=<path>");
	if (update->binary && update->binary[0] != '/')
		return option_error(err, "--live-update: binary=%s: must be an absolute path",
				    update->binary);
	return 0;
}

static const struct option options_table[] = {
	{ "--kernel", TAKES_ONE, true, apply_kernel },
	{ "--initramfs", TAKES_ONE, true, apply_initramfs },
	{ "--cmdline", TAKES_ONE, true, apply_cmdline },
	{ "--cpus", TAKES_ONE, true, apply_cpus },
	{ "--memory", TAKES_ONE, true, apply_memory },
	{ "--disk", TAKES_MANY, true, apply_disk },
	{ "--net", TAKES_MANY, true, apply_net },
	{ "--vsock", TAKES_ONE, true, apply_vsock },
	{ "--device", TAKES_MANY, true, apply_device },
	{ "--user-device", TAKES_MANY, true, apply_user_device },
	{ "--rng", TAKES_ONE, true, apply_rng },
	{ "--balloon", TAKES_ONE, true, apply_balloon },
	{ "--serial", TAKES_ONE, true, apply_serial },
	{ "--console", TAKES_ONE, true, apply_console },
	{ "--debug-console", TAKES_ONE, true, apply_debug_console },
	{ "--pvpanic", TAKES_NOTHING, true, apply_pvpanic },
	{ "--platform", TAKES_ONE, true, apply_platform },
	{ "--landlock", TAKES_NOTHING, true, apply_landlock },
	{ "--landlock-rules", TAKES_MANY, true, apply_landlock_rules },
	{ "--restore", TAKES_ONE, false, apply_restore },
	{ "--adopt", TAKES_ONE, false, apply_adopt },
	{ "--live-update", TAKES_ONE, false, apply_live_update },
	{ "--api-socket", TAKES_ONE, false, apply_api_socket },
	{ "--event-monitor", TAKES_ONE, false, apply_event_monitor },
	{ "--log-file", TAKES_ONE, false, apply_log_file },
	{ "-v", TAKES_NOTHING, false, apply_verbose },
	{ "--seccomp", TAKES_ONE, false, apply_seccomp },
	{ "--jail", TAKES_ONE, false, apply_jail },
	{ "--plugins", TAKES_MANY, false, apply_plugins },
	{ "--version", TAKES_NOTHING, false, apply_version },
	{ "--help", TAKES_NOTHING, false, apply_help },
};

void ferry_options_each(void (*fn)(void *opaque, const char *name), void *opaque)
{
	for (size_t i = 0; i < ARRAY_SIZE(options_table); i++)
		fn(opaque, options_table[i].name);
}

/* Where the walk over argv stands. */
struct walk {
	struct ferry_options *options;
	char *const *argv;
	int argc, next;
	bool vm_only;
	const struct option *given_vm; /* the first option that describes the VM */
	uint64_t seen;		       /* bit per row of options_table */
};

static const struct option *find_option(const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(options_table); i++)
		if (strlen(options_table[i].name) == len &&
		    !strncmp(options_table[i].name, name, len))
			return &options_table[i];
	return NULL;
}

static int unknown_option(const struct walk *walk, const char *arg, size_t len, struct error *err)
{
	char name[64], hint[80];
	struct suggestion near = SUGGESTION_INIT(name);

	if (len >= sizeof(name))
		return option_error(err, "unknown option %.60s...", arg);
	memcpy(name, arg, len);
	name[len] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(options_table); i++)
		if (!walk->vm_only || options_table[i].vm)
			suggestion_consider(&near, options_table[i].name);
	return option_error(err, "unknown option %s%s", name,
			    suggestion_text(&near, hint, sizeof(hint)));
}

static bool is_option(const char *arg)
{
	return arg[0] == '-' && arg[1];
}

/* -v, -vv, -h and -V; NULL: none of them. */
static const struct option *short_option(const char *arg, unsigned int *times)
{
	*times = 1;
	if (!strcmp(arg, "-h"))
		return find_option("--help", 6);
	if (!strcmp(arg, "-V"))
		return find_option("--version", 9);
	if (arg[0] == '-' && arg[1] == 'v' && !arg[1 + strspn(arg + 1, "v")]) {
		*times = (unsigned int)strlen(arg + 1);
		return find_option("-v", 2);
	}
	return NULL;
}

static int apply_values(struct walk *walk, const struct option *option, const char *value,
			struct error *err)
{
	int r;

	if (!value) {
		/* A value that begins with a dash goes behind an "=". */
		if (walk->next >= walk->argc || !strncmp(walk->argv[walk->next], "--", 2))
			return option_error(err, "%s needs a value", option->name);
		value = walk->argv[walk->next++];
	}
	r = option->apply(walk->options, value, err);
	while (!r && option->takes == TAKES_MANY && walk->next < walk->argc &&
	       !is_option(walk->argv[walk->next]))
		r = option->apply(walk->options, walk->argv[walk->next++], err);
	return r;
}

/* Of a VM's configuration, but true of the process that it comes to as well. */
static bool confines(const struct option *option)
{
	return option->apply == apply_landlock || option->apply == apply_landlock_rules;
}

static int step(struct walk *walk, struct error *err)
{
	const char *arg = walk->argv[walk->next++];
	const struct option *option;
	const char *value = NULL;
	size_t len = strlen(arg);
	unsigned int times;
	uint64_t bit;

	if (!is_option(arg))
		return option_error(err, "unexpected argument \"%.80s\": options begin with --",
				    arg);
	option = short_option(arg, &times);
	if (!option) {
		if (!strncmp(arg, "--", 2) && strchr(arg, '=')) {
			len = (size_t)(strchr(arg, '=') - arg);
			value = arg + len + 1;
		}
		option = find_option(arg, len);
	}
	if (!option)
		return unknown_option(walk, arg, len, err);
	if (walk->vm_only && !option->vm)
		return option_error(err,
				    "%s concerns the ferry process and is given when ferry is "
				    "started",
				    option->name);
	bit = 1ULL << (option - options_table);
	if (walk->seen & bit && option->takes == TAKES_ONE)
		return option_error(err, "%s is given twice", option->name);
	walk->seen |= bit;
	if (option->vm && !walk->given_vm && !confines(option))
		walk->given_vm = option;
	if (option->takes != TAKES_NOTHING)
		return apply_values(walk, option, value, err);
	if (value)
		return option_error(err, "%s takes no value", option->name);
	while (times--)
		option->apply(walk->options, NULL, err);
	return 0;
}

static bool given(const struct walk *walk, const char *name)
{
	return walk->seen & 1ULL << (find_option(name, strlen(name)) - options_table);
}

/* What the VM is, the snapshot says; where its consoles go and what the process may reach is
 * asked here. */
static int check_restore(const struct walk *walk, struct error *err)
{
	struct ferry_options *o = walk->options;

	for (size_t i = 0; i < ARRAY_SIZE(options_table); i++)
		if (walk->seen & 1ULL << i && options_table[i].vm && !confines(&options_table[i]) &&
		    strcmp(options_table[i].name, "--serial") &&
		    strcmp(options_table[i].name, "--console"))
			return option_error(err,
					    "%s: with --restore the VM is what the snapshot says; "
					    "the keys of --restore change what may differ",
					    options_table[i].name);
	return option_finish_restore(o, given(walk, "--serial"), given(walk, "--console"), err);
}

/* What the VM is, and where its API, the process says that it comes from. */
static int check_adopt(const struct walk *walk, struct error *err)
{
	struct ferry_options *o = walk->options;

	for (size_t i = 0; i < ARRAY_SIZE(options_table); i++)
		if (walk->seen & 1ULL << i && options_table[i].vm &&
		    strcmp(options_table[i].name, "--landlock-rules") &&
		    strcmp(options_table[i].name, "--landlock"))
			return option_error(err, "%s: with --adopt the VM comes as it is",
					    options_table[i].name);
	if (o->restore_given)
		return option_error(err, "--adopt and --restore: a VM comes from one place");
	return 0;
}

static int check_ferry(const struct walk *walk, struct error *err)
{
	struct ferry_options *o = walk->options;

	if (o->adopt_given)
		return check_adopt(walk, err);

	if (o->restore_given)
		return check_restore(walk, err);
	o->vm_given = o->config.payload.kernel != NULL;
	if (o->vm_given)
		return vm_config_validate(&o->config, err);
	if (walk->given_vm)
		return option_error(err, "%s needs --kernel: without a kernel no VM is made",
				    walk->given_vm->name);
	if (!o->api_socket && o->api_socket_fd < 0)
		return option_error(err, "nothing to do: give --kernel to boot a VM, --restore to "
					 "go on with one, or --api-socket to be driven by ferryctl "
					 "(see --help)");
	return 0;
}

static void options_init(struct ferry_options *options)
{
	*options = (struct ferry_options){
		.action = FERRY_RUN,
		.api_socket_fd = -1,
		.event_monitor_fd = -1,
		.adopt.fd = -1,
		.log_level = LOG_LEVEL_WARNING,
		.seccomp = SECCOMP_KILL,
		.jail.net = true,
	};
	vm_config_init(&options->config);
}

static int walk_argv(struct walk *walk, struct error *err)
{
	int r = 0;

	options_init(walk->options);
	while (!r && walk->next < walk->argc && walk->options->action == FERRY_RUN)
		r = step(walk, err);
	if (r || walk->options->action != FERRY_RUN)
		return r;
	/* There is one terminal; asked for by --serial, it is not the default console's. */
	if (walk->options->config.serial.mode == CONSOLE_TTY && !given(walk, "--console"))
		walk->options->config.console.mode = CONSOLE_OFF;
	return option_check_descriptors(walk->options, err);
}

int ferry_options_parse(struct ferry_options *options, int argc, char *const argv[],
			struct error *err)
{
	struct walk walk = { .options = options, .argv = argv, .argc = argc, .next = 1 };
	int r = walk_argv(&walk, err);

	if (!r && options->action == FERRY_RUN)
		r = check_ferry(&walk, err);
	if (r)
		ferry_options_destroy(options);
	return r;
}

int vm_config_parse_options(struct vm_config *config, int argc, char *const argv[],
			    struct error *err)
{
	struct ferry_options options = { 0 };
	struct walk walk = {
		.options = &options, .argv = argv, .argc = argc, .next = 1, .vm_only = true
	};
	int r = walk_argv(&walk, err);

	if (!r && !options.config.payload.kernel)
		r = option_error(err, "--kernel is missing");
	if (!r) {
		*config = options.config;
		memset(&options.config, 0, sizeof(options.config));
	}
	ferry_options_destroy(&options);
	return r;
}

void ferry_options_destroy(struct ferry_options *options)
{
	vm_config_destroy(&options->config);
	restore_config_destroy(&options->restore);
	free(options->api_socket);
	free(options->event_monitor_path);
	free(options->log_file);
	free(options->jail.dir);
	for (unsigned int i = 0; i < options->plugin_count; i++)
		free(options->plugins[i]);
	free(options->plugins);
	free(options->adopt.path);
	free(options->live_update.binary);
	memset(options, 0, sizeof(*options));
	options->api_socket_fd = options->event_monitor_fd = options->adopt.fd = -1;
}
